//! The progress of a run, on a terminal only.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// A line on standard error that is overwritten again and again, and erased at the end.
pub(super) struct Progress {
    /// Size of all files; `None` if unknown.
    bytes: Option<u64>,
    start: Instant,
    shown: Instant,
    is_terminal: bool,
    is_shown: bool,
}

const INTERVAL: Duration = Duration::from_millis(200);

impl Progress {
    pub fn new(bytes: Option<u64>) -> Self {
        let start = Instant::now();
        Self { bytes, start, shown: start, is_terminal: stderr().is_terminal(), is_shown: false }
    }

    pub fn show(&mut self, read: u64) {
        if !self.is_terminal || self.shown.elapsed() < INTERVAL {
            return;
        }
        self.shown = Instant::now();
        self.is_shown = true;
        let seconds = self.start.elapsed().as_secs_f64();
        let megabytes = read as f64 / 1e6;
        let rate = megabytes / seconds;
        let far = self.bytes.filter(|bytes| *bytes > 0).map(|bytes| {
            let left = bytes.saturating_sub(read) as f64 / 1e6 / rate;
            format!("{:3.0} % of {:.0} MB, {left:.0} s left, ", read as f64 * 100.0 / bytes as f64, bytes as f64 / 1e6)
        });
        // A closed terminal is no error.
        drop(write!(stderr(), "\r\x1b[K{}{megabytes:.0} MB at {rate:.0} MB/s", far.unwrap_or_default()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            drop(write!(stderr(), "\r\x1b[K"));
        }
    }
}
