//! Reads records and writes answers, one per line, in constant memory.

use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

/// A longer line is not a record.
const MAX_LINE: usize = 1 << 20;

/// Answers every line of the input that is not blank. A reader that has closed the pipe wants no more: no error.
pub(super) fn answer(
    source: &str,
    input: impl Read,
    mut answer: impl FnMut(&str, &mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut line = Vec::new();
    for number in 1_u64.. {
        // A client that asks one request at a time waits for its answer.
        if input.buffer().is_empty() && is_gone(out.flush())? {
            return Ok(());
        }
        line.clear();
        let read = input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {source}"))? == 0 {
            break;
        }
        let place = || format!("{source}, line {number}");
        if line.len() > MAX_LINE {
            bail!("{}: the line is longer than {} KiB", place(), MAX_LINE >> 10);
        }
        let text = std::str::from_utf8(&line).with_context(place)?;
        if text.trim().is_empty() {
            continue;
        }
        let mut written = Vec::new();
        answer(text, &mut written).with_context(place)?;
        if is_gone(out.write_all(&written))? {
            return Ok(());
        }
    }
    is_gone(out.flush()).map(drop)
}

/// The record of a line. [`answer`] adds the number of the line; serde_json would say line 1, and take a list for a
/// record.
pub(super) fn record<'a, T: Deserialize<'a>>(line: &'a str) -> anyhow::Result<T> {
    if !line.trim_start().starts_with('{') {
        bail!("not a JSON object");
    }
    serde_json::from_str(line.trim_end()).map_err(|error| {
        let (column, text) = (error.column(), error.to_string());
        anyhow!("column {column}: {}", text.trim_end_matches(&format!(" at line 1 column {column}")))
    })
}

fn is_gone(written: std::io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        written => written.context("cannot write to standard output").map(|()| false),
    }
}
