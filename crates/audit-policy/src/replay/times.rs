//! Events over time.

use std::collections::BTreeMap;

/// One minute of a log.
#[derive(Clone, Debug)]
pub(super) struct Minute {
    /// All events; the kept ones of each second.
    pub events: u64,
    pub kept: [u32; 60],
    pub kept_bytes: u64,
}

impl Default for Minute {
    fn default() -> Self {
        Self { events: 0, kept: [0; 60], kept_bytes: 0 }
    }
}

/// The minutes of a log in which there was an event, by their number since 1970.
#[derive(Debug, Default)]
pub(super) struct Times {
    minutes: BTreeMap<i64, Minute>,
    /// A log is almost in the order of time: most events are in the same minute as the one before.
    current: (i64, Minute),
    /// Whether the log had more minutes than are kept.
    pub is_full: bool,
    pub first: Option<i64>,
    pub last: Option<i64>,
    /// Events without a time.
    pub untimed: u64,
}

/// Ten weeks; 30 MB.
const MAX_MINUTES: usize = 100_000;
/// A longer time without any event is a gap in the log, not a quiet time. kube-apiserver renews its own leases every
/// few seconds, but the policy of the log may omit them.
const GAP_MINUTES: i64 = 60;

/// The time that a log covers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Span {
    /// Without the gaps. `None`: the log has no two different times.
    pub seconds: Option<u64>,
    pub gaps: u64,
    pub gap_seconds: u64,
}

impl Times {
    #[inline]
    pub fn count(&mut self, time: Option<i64>, kept: Option<u64>) {
        let Some(time) = time else {
            self.untimed += 1;
            return;
        };
        let minute = time.div_euclid(60);
        if self.current.0 != minute {
            self.flush();
            self.current.0 = minute;
        }
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        let current = &mut self.current.1;
        current.events += 1;
        if let Some(bytes) = kept {
            current.kept[time.rem_euclid(60) as usize] += 1;
            current.kept_bytes += bytes;
        }
    }

    fn flush(&mut self) {
        let (number, minute) = std::mem::take(&mut self.current);
        if minute.events > 0 {
            self.add(number, &minute);
        }
    }

    fn add(&mut self, number: i64, minute: &Minute) {
        if self.minutes.len() >= MAX_MINUTES && !self.minutes.contains_key(&number) {
            self.is_full = true;
            return;
        }
        let sum = self.minutes.entry(number).or_default();
        sum.events += minute.events;
        sum.kept_bytes += minute.kept_bytes;
        for (sum, kept) in sum.kept.iter_mut().zip(minute.kept) {
            *sum += kept;
        }
    }

    pub fn merge(&mut self, mut other: Self) {
        other.flush();
        for (number, minute) in &other.minutes {
            self.add(*number, minute);
        }
        self.is_full |= other.is_full;
        self.untimed += other.untimed;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }

    /// In order of time.
    pub fn minutes(&mut self) -> &BTreeMap<i64, Minute> {
        self.flush();
        &self.minutes
    }

    pub fn span(&mut self) -> Span {
        let (Some(first), Some(last)) = (self.first, self.last) else { return Span::default() };
        let minutes = self.minutes();
        let gaps: Vec<u64> = minutes
            .keys()
            .zip(minutes.keys().skip(1))
            .map(|(one, next)| next - one)
            .filter(|gap| *gap > GAP_MINUTES)
            .map(|gap| gap.unsigned_abs() * 60)
            .collect();
        let gap_seconds: u64 = gaps.iter().sum();
        let seconds = (last - first).unsigned_abs().saturating_sub(gap_seconds);
        Span { seconds: (seconds > 0).then_some(seconds), gaps: gaps.len() as u64, gap_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_log_come_to_the_same_as_the_whole() {
        let times: Vec<i64> = (0..500).map(|i| 1_000_000 + i * 7 % 900 + (i / 250) * 50_000).collect();
        let count = |times: &[i64]| {
            let mut counted = Times::default();
            times.iter().for_each(|time| counted.count(Some(*time), (time % 3 == 0).then_some(10)));
            counted
        };
        let mut whole = count(&times);
        let mut parts = count(&times[..100]);
        parts.merge(count(&times[300..]));
        parts.merge(count(&times[100..300]));
        assert_eq!((whole.first, whole.last), (parts.first, parts.last));
        assert_eq!(whole.span(), parts.span());
        assert_eq!(format!("{:?}", whole.minutes()), format!("{:?}", parts.minutes()));
        let span = whole.span();
        let seconds = (whole.last.unwrap() - whole.first.unwrap()).unsigned_abs();
        assert_eq!((span.gaps, span.gap_seconds + span.seconds.unwrap()), (1, seconds));
    }

    #[test]
    fn a_log_of_one_moment_has_no_rate() {
        let mut times = Times::default();
        assert_eq!(times.span(), Span::default());
        times.count(Some(60), None);
        times.count(None, Some(1));
        assert_eq!((times.span().seconds, times.untimed), (None, 1));
    }
}
