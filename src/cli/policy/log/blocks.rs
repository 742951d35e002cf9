//! Files to blocks of whole lines.

use std::io::{Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use memchr::{memchr, memrchr};

use super::BlockDamage;
use super::document::{Lines, is_document};
use super::files::LogFile;
use super::progress::Progress;

/// Large enough that reading is cheap, small enough for the cache of a core.
const BLOCK: usize = 512 << 10;
/// No event is that long: two bodies of 3 MiB, or a large list.
const MAX_LINE: usize = 64 << 20;
/// The bytes that decide whether a file is a document or lines.
const HEAD: u64 = 4 << 10;

/// All blocks of all files, one after the other.
pub(super) struct Blocks {
    waiting: std::vec::IntoIter<LogFile>,
    current: Option<Current>,
    files: Vec<(String, bool)>,
    /// For each block, its file and how many lines it has.
    blocks: Vec<(usize, u64)>,
    damages: Vec<BlockDamage>,
    progress: Progress,
    read: Arc<AtomicU64>,
}

struct Current {
    reader: Box<dyn Read + Send>,
    name: String,
    /// The beginning of a line, read already.
    carry: Vec<u8>,
    /// Offset of the carry in the file.
    offset: u64,
    is_at_end: bool,
}

/// Where a block begins.
pub(super) struct Start {
    pub block: usize,
    pub offset: u64,
}

/// The result of [`Current::fill`].
enum Filled {
    Lines,
    /// A line that is too long, and its length.
    TooLong(u64),
    /// The decompression failed; the rest cannot be read.
    Broken(std::io::Error),
    End,
}

impl Blocks {
    pub fn new(files: Vec<LogFile>) -> Self {
        let bytes = files.iter().map(|opened| opened.bytes).sum();
        let is_known = files.iter().all(|opened| opened.file.is_some());
        Self {
            waiting: files.into_iter(),
            current: None,
            files: Vec::new(),
            blocks: Vec::new(),
            damages: Vec::new(),
            progress: Progress::new(is_known.then_some(bytes)),
            read: Arc::default(),
        }
    }

    /// Reads the next block. `done` is the previous block of this thread, with its number of lines. `None` at the end.
    pub fn next(&mut self, buffer: &mut Buffer, done: Option<(usize, u64)>) -> anyhow::Result<Option<Start>> {
        if let Some((block, lines)) = done {
            self.blocks[block].1 = lines;
        }
        // Frees the memory of a single long line.
        if buffer.bytes.len() > 8 * BLOCK {
            *buffer = Buffer::default();
        }
        loop {
            self.progress.show(self.read.load(Ordering::Relaxed));
            let Some(current) = &mut self.current else {
                let Some(opened) = self.waiting.next() else { return Ok(None) };
                self.open(opened)?;
                continue;
            };
            let offset = current.offset;
            let filled = current.fill(buffer).with_context(|| format!("cannot read {}", current.name))?;
            let block = self.blocks.len();
            let mut damaged = |message| self.damages.push(BlockDamage { block, line: 0, offset, message });
            match filled {
                Filled::Lines => {
                    self.blocks.push((self.files.len() - 1, 0));
                    return Ok(Some(Start { block, offset }));
                }
                Filled::TooLong(bytes) => {
                    damaged(format!("the line has {bytes} bytes; lines over {} MiB are skipped", MAX_LINE >> 20));
                    self.blocks.push((self.files.len() - 1, 1));
                }
                Filled::Broken(error) => {
                    damaged(format!("the compressed file is damaged ({error}): the rest of it was not read"));
                    self.blocks.push((self.files.len() - 1, 0));
                    self.current = None;
                }
                Filled::End => self.current = None,
            }
        }
    }

    fn open(&mut self, opened: LogFile) -> anyhow::Result<()> {
        let LogFile { name, file, .. } = opened;
        let input: Box<dyn Read + Send> = match file {
            Some(file) => Box::new(file),
            None => Box::new(std::io::stdin()),
        };
        let (reader, is_document) =
            text_of(Counted { input, read: self.read.clone() }).with_context(|| format!("cannot read {name}"))?;
        self.files.push((name.clone(), is_document));
        self.current = Some(Current { reader, name, carry: Vec::new(), offset: 0, is_at_end: false });
        Ok(())
    }

    /// Damage that no thread has seen.
    pub fn damages(&self) -> (u64, Vec<BlockDamage>) {
        let found = self.damages.iter().map(|found| BlockDamage { message: found.message.clone(), ..*found });
        (self.damages.len() as u64, found.collect())
    }

    /// File of a block, whether it is a document, and lines of the file before the block.
    pub fn place(&self, block: usize) -> (String, bool, u64) {
        let (file, _) = self.blocks[block];
        let before = self.blocks[..block].iter().filter(|(other, _)| *other == file).map(|(_, lines)| lines).sum();
        let (name, is_document) = &self.files[file];
        (name.clone(), *is_document, before)
    }
}

impl Current {
    fn fill(&mut self, block: &mut Buffer) -> std::io::Result<Filled> {
        block.filled = 0;
        block.push(&self.carry);
        self.carry.clear();
        let mut searched = 0;
        while !self.is_at_end {
            match block.read(&mut self.reader) {
                Ok(is_at_end) => self.is_at_end = is_at_end,
                // The system's errors have a number, those of the decompression do not.
                Err(error) if error.raw_os_error().is_some() => return Err(error),
                Err(error) => {
                    // The text after the last line end was never written completely.
                    let end = memrchr(b'\n', block.text()).map_or(0, |at| at + 1);
                    if end == 0 {
                        return Ok(Filled::Broken(error));
                    }
                    block.filled = end;
                    self.offset += end as u64;
                    self.reader = Box::new(Failing(Some(error)));
                    return Ok(Filled::Lines);
                }
            }
            if let Some(at) = memrchr(b'\n', &block.text()[searched..]) {
                let end = searched + at + 1;
                self.carry.extend_from_slice(&block.text()[end..]);
                block.filled = end;
                self.offset += end as u64;
                return Ok(Filled::Lines);
            }
            searched = block.filled;
            if searched > MAX_LINE {
                return self.skip_line(block).map(Filled::TooLong);
            }
        }
        self.offset += block.filled as u64;
        Ok(if block.filled == 0 { Filled::End } else { Filled::Lines })
    }

    /// Up to behind the end of the line that `block` is the beginning of.
    fn skip_line(&mut self, block: &mut Buffer) -> std::io::Result<u64> {
        let mut bytes = block.filled as u64;
        *block = Buffer::default();
        while !self.is_at_end {
            block.filled = 0;
            self.is_at_end = block.read(&mut self.reader)?;
            if let Some(at) = memchr(b'\n', block.text()) {
                self.carry.extend_from_slice(&block.text()[at + 1..]);
                bytes += at as u64;
                self.offset += bytes + 1;
                return Ok(bytes);
            }
            bytes += block.filled as u64;
        }
        self.offset += bytes;
        Ok(bytes)
    }
}

/// Memory for a block. It is reused, so that it is cleared only once.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn push(&mut self, text: &[u8]) {
        let end = self.filled + text.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[self.filled..end].copy_from_slice(text);
        self.filled = end;
    }

    /// Reads until it holds a multiple of a block, or until the end. Text from before an error is kept.
    fn read(&mut self, input: &mut impl Read) -> std::io::Result<bool> {
        let end = (self.filled / BLOCK + 1) * BLOCK;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        while self.filled < end {
            match input.read(&mut self.bytes[self.filled..end]) {
                Ok(0) => return Ok(true),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Fails once, then is at its end.
struct Failing(Option<std::io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Counts the bytes that are read from a file, before decompression.
struct Counted {
    input: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The text of a file with one event per line: decompressed, and split if it is a document. Both are detected by
/// content.
fn text_of(mut input: Counted) -> std::io::Result<(Box<dyn Read + Send>, bool)> {
    let mut magic = Vec::new();
    (&mut input).take(2).read_to_end(&mut magic)?;
    let is_gzip = magic == [0x1f, 0x8b];
    let input = Cursor::new(magic).chain(input);
    let mut text: Box<dyn Read + Send> = if is_gzip {
        Box::new(MultiGzDecoder::new(std::io::BufReader::with_capacity(BLOCK, input)))
    } else {
        Box::new(input)
    };
    let mut start = Vec::new();
    let failed = (&mut text).take(HEAD).read_to_end(&mut start).err();
    let is_document = is_document(&start);
    let text: Box<dyn Read + Send> = match failed {
        Some(error) if error.raw_os_error().is_some() => return Err(error),
        Some(error) => Box::new(Cursor::new(start).chain(Failing(Some(error)))),
        None => Box::new(Cursor::new(start).chain(text)),
    };
    Ok((if is_document { Box::new(Lines::of(text)) } else { text }, is_document))
}
