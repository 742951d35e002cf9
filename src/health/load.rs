//! How much a sink has to carry, and for how long its log and its disk last at that rate. Pure.
//!
//! The figures for people change only when they have moved by half: a cluster at rest costs no write.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::sample::Sample;
use crate::api::LogSink;

/// A rate is taken over at least this time.
const SPAN: Duration = Duration::from_secs(600);
/// Or over this one, if the log has already removed older files.
const SHORT_SPAN: Duration = Duration::from_secs(60);
/// A figure is shown anew when it differs by this factor from the one shown.
const STEP: f64 = 1.5;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const HOUR: f64 = 3600.0;

/// The limits at which kube-apiserver removes rotated files. Zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    pub max_megabytes: i64,
    pub max_backups: i64,
    pub max_days: i64,
}

impl From<&LogSink> for Rotation {
    fn from(log: &LogSink) -> Self {
        Self { max_megabytes: log.max_size_megabytes, max_backups: log.max_backups, max_days: log.max_age_days }
    }
}

/// A log with its rotated files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    pub current_bytes: u64,
    /// When the first event of the current file was received.
    pub begun: Option<Timestamp>,
    /// The rotated files: when kube-apiserver renamed them, and their bytes.
    pub rotated: Vec<(Timestamp, u64)>,
    /// Free bytes of the file system.
    pub free_bytes: u64,
}

/// Seconds that a log lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lasts {
    /// From a full set of files until the oldest event is removed. `None`: it is never removed.
    pub rotation: Option<f64>,
    /// Until the file system is full. `None`: rotation keeps the log smaller than that.
    pub disk: Option<f64>,
}

/// `None`: too early to tell.
#[expect(clippy::cast_precision_loss, reason = "sizes and counts for people")]
pub fn lasts(files: &Files, rotation: Rotation, now: Timestamp) -> Option<Lasts> {
    let max_bytes = rotation.max_megabytes.max(1) as f64 * MEGABYTE;
    let written = bytes_per_second(files, max_bytes, now).filter(|rate| *rate > 0.0)?;
    let rotated_bytes: f64 = files.rotated.iter().map(|(_, bytes)| *bytes as f64).sum();
    // Smaller than `max_bytes` if kube-apiserver compresses them.
    let backup_bytes = match files.rotated.len() {
        0 => max_bytes,
        count => rotated_bytes / count as f64,
    };
    let days = (rotation.max_days > 0).then_some(rotation.max_days as f64 * 24.0 * HOUR);
    // The current file may just have begun.
    let by_count = (rotation.max_backups > 0).then_some(rotation.max_backups as f64 * max_bytes / written);
    let by_either = [days, by_count].into_iter().flatten().reduce(f64::min);
    let grows = written * (backup_bytes / max_bytes).min(1.0);
    let largest = by_either.map(|seconds| max_bytes + seconds * grows);
    let used = files.current_bytes as f64 + rotated_bytes;
    let free = files.free_bytes as f64;
    let fills = largest.is_none_or(|largest| largest - used > free);
    Some(Lasts { rotation: by_either, disk: fills.then_some(free / grows) })
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts for people")]
fn bytes_per_second(files: &Files, max_bytes: f64, now: Timestamp) -> Option<f64> {
    let mut rotated: Vec<Timestamp> = files.rotated.iter().map(|(at, _)| *at).collect();
    rotated.sort_unstable_by(|one, other| other.cmp(one));
    // The newest file began when the newest rotated one ended.
    let begun = rotated.first().copied().or(files.begun)?;
    // With the number of files that were filled since.
    let spans: Vec<(usize, Timestamp)> =
        std::iter::once(begun).chain(rotated.iter().skip(1).copied()).enumerate().collect();
    let seconds = |since: Timestamp| now.duration_since(since).as_secs_f64();
    let (full, since) = spans
        .iter()
        .find(|(_, since)| seconds(*since) >= SPAN.as_secs_f64())
        .or_else(|| spans.last().filter(|(full, since)| *full > 0 && seconds(*since) >= SHORT_SPAN.as_secs_f64()))?;
    Some((files.current_bytes as f64 + *full as f64 * max_bytes) / seconds(*since))
}

/// The events of an API server per second: over the last ten to twenty minutes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    /// The process, and two moments of it with the events until then.
    of: f64,
    base: (Duration, f64),
    next: (Duration, f64),
}

impl Events {
    /// `now`: by the steady clock. `None`: too early to tell.
    pub fn per_second(&mut self, sample: &Sample, now: Duration) -> Option<f64> {
        let here = (now, sample.events);
        if self.of.to_bits() != sample.started.to_bits() {
            *self = Self { of: sample.started, base: here, next: here };
        }
        if now.saturating_sub(self.next.0) >= SPAN {
            (self.base, self.next) = (self.next, here);
        }
        let span = now.saturating_sub(self.base.0);
        (span >= SPAN).then(|| (sample.events - self.base.1) / span.as_secs_f64())
    }
}

/// The figure to show: `old` as long as `new` is near to it, otherwise `new` with two digits.
pub fn shown(old: Option<f64>, new: Option<f64>) -> Option<f64> {
    let new = new.filter(|new| new.is_finite() && *new >= 0.0)?;
    let is_near = |old: f64| new <= old * STEP && old <= new * STEP;
    Some(old.filter(|old| is_near(*old)).unwrap_or_else(|| two_digits(new)))
}

fn two_digits(value: f64) -> f64 {
    // Below a hundredth nobody is interested in the digits.
    if value < 0.01 {
        return 0.0;
    }
    let digits = format!("{value:.1e}");
    digits.parse().unwrap_or(value)
}

/// Hours, for people.
pub fn hours(seconds: f64) -> f64 {
    seconds / HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROTATION: Rotation = Rotation { max_megabytes: 100, max_backups: 10, max_days: 30 };
    const GIGABYTE: u64 = 1024 * 1024 * 1024;

    fn now() -> Timestamp {
        "2026-12-01T12:00:00Z".parse().unwrap()
    }

    fn ago(minutes: i64) -> Timestamp {
        now() - k8s_openapi::jiff::SignedDuration::from_mins(minutes)
    }

    fn files(current_megabytes: u64, rotated_ago: &[i64]) -> Files {
        let rotated = rotated_ago.iter().map(|minutes| (ago(*minutes), 100 * 1024 * 1024)).collect();
        let current_bytes = current_megabytes * 1024 * 1024;
        Files { current_bytes, begun: Some(ago(100)), rotated, free_bytes: 100 * GIGABYTE }
    }

    fn lasts_for(files: &Files, rotation: Rotation) -> Option<(Option<i64>, Option<i64>)> {
        let minutes = |seconds: Option<f64>| seconds.map(|seconds| (seconds / 60.0).round() as i64);
        lasts(files, rotation, now()).map(|lasts| (minutes(lasts.rotation), minutes(lasts.disk)))
    }

    #[test]
    fn a_log_lasts_until_its_oldest_file_is_removed_or_its_disk_is_full() {
        let no_count = Rotation { max_backups: 0, ..ROTATION };
        let no_limit = Rotation { max_days: 0, ..no_count };
        let small = |files: Files| Files { free_bytes: GIGABYTE / 2, ..files };
        for (case, files, rotation, want) in [
            // 1 MB a minute: ten files of 100 MB.
            ("the first file, since its first event", files(100, &[]), ROTATION, Some((Some(1000), None))),
            ("the current file, since the last rotation", files(30, &[30, 80]), ROTATION, Some((Some(1000), None))),
            ("a rotation just now: the file before it too", files(1, &[2, 40, 90]), ROTATION, Some((Some(396), None))),
            ("too early", Files { begun: Some(ago(3)), ..files(30, &[]) }, ROTATION, None),
            ("rotations within minutes", files(10, &[1, 2, 3, 4]), ROTATION, Some((Some(13), None))),
            ("nothing written", files(0, &[30]), ROTATION, None),
            ("only the age removes files", files(30, &[30]), no_count, Some((Some(30 * 24 * 60), None))),
            ("nothing removes files", files(30, &[30]), no_limit, Some((None, Some(102_400)))),
            ("no room for all files", small(files(30, &[30])), ROTATION, Some((Some(1000), Some(512)))),
            ("the age fills the disk first", small(files(30, &[30])), no_count, Some((Some(43_200), Some(512)))),
            // 1030 MB are used already.
            (
                "little room, but none is needed",
                small(files(30, &[30, 130, 230, 330, 430, 530, 630, 730, 830, 930])),
                ROTATION,
                Some((Some(1000), None)),
            ),
        ] {
            assert_eq!(lasts_for(&files, rotation), want, "{case}");
        }
        // Compressed to a tenth, ten files have 100 MB.
        let mut compressed = Files { free_bytes: 200 * 1024 * 1024, ..files(30, &[30, 130]) };
        compressed.rotated.iter_mut().for_each(|(_, bytes)| *bytes /= 10);
        assert_eq!(lasts_for(&compressed, ROTATION), Some((Some(1000), None)));
        compressed.free_bytes /= 4;
        assert_eq!(lasts_for(&compressed, ROTATION), Some((Some(1000), Some(500))));
    }

    #[test]
    fn events_per_second_are_of_the_last_minutes_and_of_one_process() {
        let mut events = Events::default();
        let mut at = |minutes: u64, started: f64, count: f64| {
            events
                .per_second(&Sample { started, events: count, ..Sample::default() }, Duration::from_secs(60 * minutes))
        };
        assert_eq!(at(5, 1.0, 90_000.0), None);
        assert_eq!(at(10, 1.0, 90_300.0), None);
        assert_eq!(at(15, 1.0, 90_600.0), Some(1.0));
        assert_eq!(at(24, 1.0, 91_140.0), Some(1.0));
        // What came before minute 15 does not count any more.
        assert_eq!(at(26, 1.0, 110_400.0), Some(30.0));
        assert_eq!(at(27, 2.0, 5.0), None);
        assert_eq!(at(37, 2.0, 605.0), Some(1.0));
    }

    #[test]
    fn a_figure_is_shown_with_two_digits_and_stays_until_it_has_moved_by_half() {
        for (old, new, want) in [
            (None, Some(57_123.4), Some(57_000.0)),
            (None, Some(0.0678), Some(0.068)),
            (None, Some(0.001), Some(0.0)),
            (Some(5.0), Some(7.4), Some(5.0)),
            (Some(5.0), Some(3.4), Some(5.0)),
            (Some(5.0), Some(7.6), Some(7.6)),
            (Some(5.0), Some(3.21), Some(3.2)),
            (Some(0.0), Some(0.0), Some(0.0)),
            (Some(5.0), None, None),
            (Some(5.0), Some(f64::INFINITY), None),
        ] {
            assert_eq!(shown(old, new), want, "{old:?} {new:?}");
        }
    }
}
