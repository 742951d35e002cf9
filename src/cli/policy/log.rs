//! Reads audit logs with as many threads as there are cores: files to blocks of whole lines, blocks to counters.
//!
//! *Flow.* One thread at a time reads the next block. Each thread counts the lines of its block into its own counters,
//! which the caller merges. *Guarantees.* Memory does not grow with the logs: one block per thread, and no line longer
//! than 64 MiB. Damaged lines are counted and listed; a read error ends the run.

mod blocks;
mod document;
mod files;
mod progress;

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use memchr::memchr_iter;

use audit_policy::log::Damage;
use audit_policy::replay::{DamageReport, Damages};
use blocks::{Blocks, Buffer, Start};

/// Where events are read from.
#[derive(clap::Args)]
pub(super) struct Logs {
    /// Audit logs, plain or compressed with gzip; - is standard input. A base path (audit.log) includes its rotated
    /// files, and a directory includes all logs in it (*.log and their rotated files). A log has one Event or EventList
    /// per line, or is one EventList.
    #[arg(value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Number of threads that read. Default: the number of cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

/// Damaged lines that are listed.
const LISTED: usize = 10;

/// A damaged line, by its block.
struct BlockDamage {
    block: usize,
    line: u64,
    offset: u64,
    message: String,
}

/// Calls `line` for every line, with the counters of its thread.
pub(super) fn read<C: Send>(
    args: &Logs,
    counters: impl Fn() -> C + Sync,
    line: impl Fn(&mut C, &[u8], &mut dyn FnMut(Damage)) + Sync,
) -> anyhow::Result<(Vec<C>, Damages)> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = args.threads.map_or_else(cores, usize::from);
    let blocks = Mutex::new(Blocks::new(files::open(&args.logs)?));
    let work = || {
        let mut counters = counters();
        let (mut buffer, mut damages) = (Buffer::default(), (0, Vec::new()));
        let mut done = None;
        loop {
            // A thread that panicked has ended the process.
            let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).next(&mut buffer, done)?;
            let Some(Start { block, offset }) = next else { return Ok((counters, damages)) };
            let mut lines = 0;
            let mut each = |start: usize, text: &[u8]| {
                line(&mut counters, text, &mut |damage| {
                    damages.0 += 1;
                    // Blocks come in their order, so the first ones of a thread are enough.
                    if damages.1.len() < LISTED {
                        let offset = offset + start as u64;
                        damages.1.push(BlockDamage { block, line: lines, offset, message: damage.to_string() });
                    }
                });
                lines += 1;
            };
            let text = buffer.text();
            let mut start = 0;
            for end in memchr_iter(b'\n', text) {
                each(start, &text[start..end]);
                start = end + 1;
            }
            if start < text.len() {
                each(start, &text[start..]);
            }
            done = Some((block, lines));
        }
    };
    let work = &work;
    let results: Vec<anyhow::Result<_>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|thread| thread.join().expect("a panic ends the process"));
        std::iter::once(own).chain(others).collect()
    });
    let blocks = blocks.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut counters = Vec::new();
    let (mut count, mut found) = (0, Vec::new());
    for result in results {
        let (counter, (damaged, some)) = result?;
        counters.push(counter);
        count += damaged;
        found.extend(some);
    }
    let (damaged, some) = blocks.damages();
    count += damaged;
    found.extend(some);
    found.sort_by_key(|found| (found.block, found.line));
    let placed = found.into_iter().take(LISTED).map(|found| {
        let (file, is_document, lines_before) = blocks.place(found.block);
        let number = lines_before + found.line + 1;
        let BlockDamage { offset, message, .. } = found;
        if is_document {
            DamageReport { file, line: None, offset: None, message: format!("event {number}: {message}") }
        } else {
            DamageReport { file, line: Some(number), offset: Some(offset), message }
        }
    });
    Ok((counters, Damages { count, first: placed.collect() }))
}
