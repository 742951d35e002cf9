//! Looks for the event of a canary in the new part of a log file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

/// The most that one look reads: the events of half a minute on a busy server.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Where the last look ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    inode: u64,
    offset: u64,
}

/// Moves to the end of the file that `open` opens, so that the next look reads only what comes after it.
pub fn end_of(open: impl Fn() -> io::Result<File>) -> Position {
    let metadata = open().and_then(|file| file.metadata());
    metadata.map_or_else(|_| Position::default(), |file| Position { inode: file.ino(), offset: file.len() })
}

/// Whether the file has `id` after `position`. After a rotation, a canary in the old file is not found, but the next
/// one is. Fails as `open` does: with NotFound if there is no file.
pub fn find(open: impl Fn() -> io::Result<File>, position: &Position, id: &str) -> io::Result<bool> {
    let mut file = open()?;
    let metadata = file.metadata()?;
    let is_same = metadata.ino() == position.inode && metadata.len() >= position.offset;
    let from = if is_same { position.offset } else { 0 }.max(metadata.len().saturating_sub(MAX_BYTES));
    file.seek(SeekFrom::Start(from))?;
    contains(file.take(MAX_BYTES), id.as_bytes())
}

fn contains(mut reader: impl Read, id: &[u8]) -> io::Result<bool> {
    let mut block = vec![0; 256 * 1024];
    let mut kept = 0;
    loop {
        let read = reader.read(&mut block[kept..])?;
        if read == 0 {
            return Ok(false);
        }
        let filled = kept + read;
        if block[..filled].windows(id.len()).any(|window| window == id) {
            return Ok(true);
        }
        // An id may lie across two blocks.
        kept = filled.min(id.len() - 1);
        block.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_came_after_the_position_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{\"auditID\":\"canary-1\"}\n").unwrap();
        let open = || File::open(&path);
        let position = end_of(open);
        assert!(!find(open, &position, "canary-1").unwrap());
        file.write_all(&vec![b'x'; 600 * 1024]).unwrap();
        file.write_all(b"{\"auditID\":\"canary-2\"}\n").unwrap();
        assert!(find(open, &position, "canary-2").unwrap());
    }

    #[test]
    fn a_rotated_file_is_read_from_its_start_and_a_missing_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        File::create(&path).unwrap().write_all(b"long enough to lie behind the new end\n").unwrap();
        let open = || File::open(&path);
        let position = end_of(open);
        std::fs::rename(&path, directory.path().join("audit-1.log")).unwrap();
        assert_eq!(find(open, &position, "canary").unwrap_err().kind(), io::ErrorKind::NotFound);
        File::create(&path).unwrap().write_all(b"canary\n").unwrap();
        assert!(find(open, &position, "canary").unwrap());
    }

    #[test]
    fn an_id_across_two_blocks_is_found() {
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = self.0.len().min(3).min(buffer.len());
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0 = &self.0[n..];
                Ok(n)
            }
        }
        assert!(contains(Slow(b"ab canary cd"), b"canary").unwrap());
        assert!(!contains(Slow(b"ab canar cd"), b"canary").unwrap());
    }
}
