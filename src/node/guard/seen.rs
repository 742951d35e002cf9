//! Facts that only continuous watching gives. Pure: each look is passed in, with its time.

use crate::verdict::Kubelet;

/// The kubelet releases a static pod some time after its process is gone; if the new manifest is put in earlier, it
/// waits for the kubelet's next round, 10 s later (measured on 1.36.3: 1.5 s is enough, n = 4).
const RELEASE_MS: u64 = 1500;

/// The looks of one guard since it started.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The process of kube-apiserver that is ready without a break, and since when.
    serving: Option<(Option<i32>, u64)>,
    /// Since when there has been no process of kube-apiserver.
    gone_since_ms: Option<u64>,
    /// Process and start of the kubelet that ran when an API server served.
    kubelet_with_api: Option<(i32, u64)>,
    /// Starts and last words at the last look.
    written: Option<(u32, Option<String>)>,
    /// Starts when an old process was last seen.
    starts_beside_old: u32,
}

impl Seen {
    /// How long kube-apiserver has been ready. Two processes in a row may answer without a gap that the probe sees:
    /// each starts at zero.
    pub(super) fn serving_ms(&mut self, now_ms: u64, pid: Option<i32>, is_serving: bool) -> Option<u64> {
        let since = self.serving.filter(|(before, _)| *before == pid).map_or(now_ms, |(_, since)| since);
        self.serving = is_serving.then_some((pid, since));
        self.serving.map(|(_, since)| now_ms.saturating_sub(since))
    }

    /// Whether kube-apiserver has been gone long enough for the kubelet to have released its pod.
    pub(super) fn is_released(&mut self, now_ms: u64, pid: Option<i32>) -> bool {
        self.gone_since_ms = if pid.is_some() { None } else { self.gone_since_ms.or(Some(now_ms)) };
        self.gone_since_ms.is_some_and(|gone| now_ms.saturating_sub(gone) >= RELEASE_MS)
    }

    /// The kubelet, and whether an API server has served since it started. `kubelet`: its process and start.
    pub(super) fn kubelet(&mut self, kubelet: Option<(i32, u64)>, is_serving: bool) -> Option<Kubelet> {
        if is_serving && kubelet.is_some() {
            self.kubelet_with_api = kubelet;
        }
        let has_seen_api = self.kubelet_with_api == kubelet;
        kubelet.map(|(_, started_since_boot_ms)| Kubelet { started_since_boot_ms, has_seen_api })
    }

    /// Starts of the new container, and its last words. The last line of a container reaches its log a moment after it
    /// ended: its end counts once nothing more comes.
    pub(super) fn starts(&mut self, written: (u32, Option<String>), is_running: bool) -> (u32, Option<String>) {
        let is_settled = is_running || self.written.as_ref() == Some(&written);
        self.written = Some(written.clone());
        let (starts, last_words) = written;
        (if is_settled { starts } else { starts.saturating_sub(1) }, last_words)
    }

    /// How many of the starts were beside an old process.
    pub(super) fn starts_beside_old(&mut self, starts: u32, old_runs: bool) -> u32 {
        if old_runs {
            self.starts_beside_old = starts;
        }
        self.starts_beside_old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_earns_its_time_again() {
        let mut seen = Seen::default();
        for (now_ms, pid, is_serving, want) in [
            (100, Some(1), false, None),
            (200, Some(1), true, Some(0)),
            (300, Some(1), true, Some(100)),
            (400, Some(2), true, Some(0)),
            (500, Some(2), true, Some(100)),
            (600, Some(2), false, None),
            (700, Some(2), true, Some(0)),
            (800, None, true, Some(0)),
            (0, None, true, Some(0)),
        ] {
            assert_eq!(seen.serving_ms(now_ms, pid, is_serving), want, "{now_ms}");
        }
    }

    #[test]
    fn a_pod_is_released_some_time_after_its_process_is_gone() {
        let mut seen = Seen::default();
        for (now_ms, pid, want) in [
            (0, Some(1), false),
            (100, None, false),
            (1599, None, false),
            (1600, None, true),
            (1700, Some(2), false),
            (1800, None, false),
            (3300, None, true),
        ] {
            assert_eq!(seen.is_released(now_ms, pid), want, "{now_ms}");
        }
    }

    #[test]
    fn a_kubelet_has_seen_the_api_only_if_it_ran_when_one_served() {
        let mut seen = Seen::default();
        let mut has_seen = |kubelet, is_serving| seen.kubelet(kubelet, is_serving).map(|kubelet| kubelet.has_seen_api);
        assert_eq!(has_seen(None, true), None);
        assert_eq!(has_seen(Some((7, 10)), false), Some(false));
        assert_eq!(has_seen(Some((7, 10)), true), Some(true));
        assert_eq!(has_seen(Some((7, 10)), false), Some(true));
        assert_eq!(has_seen(Some((7, 99)), false), Some(false), "another one with the same number");
        assert_eq!(has_seen(None, true), None);
        assert_eq!(has_seen(Some((7, 10)), false), Some(true));
    }

    #[test]
    fn the_end_of_a_container_counts_once_its_last_line_is_there() {
        let mut seen = Seen::default();
        let mut starts =
            |written: u32, words: &str, is_running| seen.starts((written, Some(words.into())), is_running).0;
        assert_eq!(starts(1, "starting", true), 1);
        assert_eq!(starts(1, "bad flag", false), 0, "more may come");
        assert_eq!(starts(1, "bad flag", false), 1);
        assert_eq!(starts(2, "starting", false), 1);
        assert_eq!(starts(2, "bad flag", false), 1);
        assert_eq!(starts(2, "bad flag", false), 2);
        assert_eq!(starts(0, "", false), 0);
    }

    #[test]
    fn starts_beside_an_old_process_are_remembered_once_it_is_gone() {
        let mut seen = Seen::default();
        let found =
            [(1, true), (2, true), (3, false), (4, false)].map(|(starts, old)| seen.starts_beside_old(starts, old));
        assert_eq!(found, [1, 2, 2, 2]);
    }
}
