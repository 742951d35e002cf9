//! Events that kube-apiserver has dropped, by sink, over all its processes; pure. The agent keeps it on the node.
//!
//! kube-apiserver counts per process, and by plugin. `buffered` and `truncate` are shared by both backends
//! (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/plugin/pkg/audit): an event that they drop is booked to the sink
//! that uses them, and to both where both do, because nothing tells which of them lost it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::sample::Sample;

/// For how long a loss is reported as present.
const RECENT: SignedDuration = SignedDuration::from_mins(10);
/// Between two looks while deliveries fail: for at most so many seconds a process has gone on after the last one.
const UNSEEN_SECONDS: f64 = 15.0;

/// All losses of a node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Losses {
    /// The process of kube-apiserver that was last looked at.
    process: Option<f64>,
    /// What it had dropped by then, by plugin.
    dropped: BTreeMap<String, f64>,
    /// All events of the process by then.
    #[serde(default)]
    recorded: f64,
    /// When that was, in seconds of the Unix epoch.
    #[serde(default)]
    looked: f64,
    /// Events a second, between the last two looks at one process.
    #[serde(default)]
    rate: f64,
    sinks: BTreeMap<String, Loss>,
}

/// The losses of one sink.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Since the sink exists.
    pub events: i64,
    /// When the last one was seen.
    pub at: Option<Timestamp>,
    /// Events that kube-apiserver holds because their deliveries fail. They are lost if its process ends.
    #[serde(default)]
    held: i64,
    /// All events of the process when a delivery was last seen.
    #[serde(default)]
    delivered_at_event: f64,
}

/// A sink and the plugins that carry its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub sink: String,
    pub plugins: Vec<&'static str>,
    /// Whether kube-apiserver holds the events of failed deliveries, to send them again. The size of its buffer is no
    /// limit to them: a batch that is sent is not in it any more (kubernetes@v1.36.3
    /// staging/src/k8s.io/apiserver/plugin/pkg/audit/buffered/buffered.go, processEvents).
    pub is_repeated: bool,
}

impl Losses {
    /// Takes up a sample. `is_failing`: whether deliveries to the sink of a route fail. Returns whether there is
    /// something new to keep.
    pub fn observe(&mut self, sample: &Sample, routes: &[(Route, bool)], now: Timestamp) -> bool {
        let before = self.clone();
        let seconds = seconds(now);
        if self.process == Some(sample.started) {
            if seconds > self.looked {
                self.rate = (sample.events - self.recorded) / (seconds - self.looked);
            }
        } else {
            // Nobody counted what the last process recorded after the last look.
            let unseen = self.rate * (sample.started - self.looked).clamp(0.0, UNSEEN_SECONDS);
            for (route, _) in routes {
                let loss = self.sinks.entry(route.sink.clone()).or_default();
                let held = std::mem::take(&mut loss.held);
                loss.add(if held > 0 { held + whole(unseen) } else { 0 }, now);
                loss.delivered_at_event = 0.0;
            }
            self.dropped.clear();
            self.process = Some(sample.started);
        }
        (self.recorded, self.looked) = (sample.events, seconds);
        self.sinks.retain(|sink, _| routes.iter().any(|(route, _)| route.sink == *sink));
        for (route, is_failing) in routes {
            let loss = self.sinks.entry(route.sink.clone()).or_default();
            let rise = route.plugins.iter().map(|plugin| {
                let dropped = |counters: &BTreeMap<String, f64>| counters.get(*plugin).copied().unwrap_or(0.0);
                (dropped(&sample.dropped) - dropped(&self.dropped)).max(0.0)
            });
            let rise: f64 = rise.sum();
            loss.add(whole(rise), now);
            if *is_failing {
                // What was dropped meanwhile is not held any more.
                loss.delivered_at_event += rise;
                loss.held = if route.is_repeated { whole(sample.events - loss.delivered_at_event).max(0) } else { 0 };
            } else {
                (loss.held, loss.delivered_at_event) = (0, sample.events);
            }
        }
        self.dropped.clone_from(&sample.dropped);
        // Not what only counts on.
        let kept = |losses: &Losses| {
            let sinks: Vec<_> = losses.sinks.iter().map(|(sink, it)| (sink.clone(), it.events, it.held)).collect();
            (losses.process, losses.dropped.clone(), sinks)
        };
        kept(&before) != kept(self)
    }

    pub fn of(&self, sink: &str) -> Loss {
        self.sinks.get(sink).cloned().unwrap_or_default()
    }
}

impl Loss {
    fn add(&mut self, events: i64, now: Timestamp) {
        if events > 0 {
            self.events = self.events.saturating_add(events);
            self.at = Some(now);
        }
    }

    /// Whether an event was lost a short while ago.
    pub fn is_recent(&self, now: Timestamp) -> bool {
        // The clock may have been set back since.
        self.at.is_some_and(|at| now.duration_since(at).abs() < RECENT)
    }
}

fn seconds(time: Timestamp) -> f64 {
    SignedDuration::from_nanos_i128(time.as_nanosecond()).as_secs_f64()
}

#[expect(clippy::cast_possible_truncation, reason = "a count of events")]
fn whole(count: f64) -> i64 {
    count as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(started: f64, events: f64, dropped: &[(&str, f64)]) -> Sample {
        let dropped = dropped.iter().map(|(plugin, count)| (plugin.to_string(), *count)).collect();
        Sample { started, events, dropped, ..Sample::default() }
    }

    fn route(sink: &str, plugins: &[&'static str]) -> Route {
        Route { sink: sink.into(), plugins: plugins.to_vec(), is_repeated: true }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_loss_is_booked_to_the_sink_that_uses_the_plugin() {
        let dropped = [("log", 1.0), ("webhook", 20.0), ("buffered", 300.0), ("truncate", 4000.0)];
        let cases = [
            (route("a", &["log", "buffered"]), 301),
            (route("a", &["log"]), 1),
            (route("a", &["webhook", "buffered", "truncate"]), 4320),
        ];
        for (route, want) in cases {
            let mut losses = Losses::default();
            assert!(losses.observe(&sample(1.0, 0.0, &dropped), &[(route.clone(), false)], at(0)));
            assert_eq!(losses.of("a").events, want, "{route:?}");
            assert!(!losses.observe(&sample(1.0, 9.0, &dropped), &[(route.clone(), false)], at(60)));
            assert_eq!(losses.of("a").events, want, "a second look at the same counters");
        }
    }

    #[test]
    fn a_loss_has_a_time_and_outlives_the_process() {
        let routes = [(route("a", &["webhook"]), false)];
        let mut losses = Losses::default();
        losses.observe(&sample(1.0, 0.0, &[("webhook", 400.0)]), &routes, at(0));
        assert!(losses.of("a").is_recent(at(599)) && !losses.of("a").is_recent(at(600)));
        // The node was restarted, and the agent with it.
        let mut losses: Losses = serde_json::from_str(&serde_json::to_string(&losses).unwrap()).unwrap();
        losses.observe(&sample(2.0, 0.0, &[]), &routes, at(700));
        assert_eq!((losses.of("a").events, losses.of("a").at), (400, Some(at(0))));
        losses.observe(&sample(2.0, 0.0, &[("webhook", 3.0)]), &routes, at(800));
        assert_eq!((losses.of("a").events, losses.of("a").at), (403, Some(at(800))));
    }

    #[test]
    fn events_that_a_process_held_when_it_ended_are_lost() {
        let failing = [(route("a", &["webhook"]), true)];
        let works = [(route("a", &["webhook"]), false)];
        let mut losses = Losses::default();
        losses.observe(&sample(1.0, 1000.0, &[]), &works, at(0));
        losses.observe(&sample(1.0, 1500.0, &[]), &failing, at(15));
        losses.observe(&sample(1.0, 2000.0, &[("webhook", 400.0)]), &failing, at(30));
        assert_eq!(losses.of("a").events, 400);
        losses.observe(&sample(2.0, 10.0, &[]), &works, at(45));
        assert_eq!(losses.of("a").events, 1000, "1000 events since the last delivery, 400 of them counted");
        // Nothing is held while deliveries succeed.
        losses.observe(&sample(3.0, 10.0, &[]), &works, at(60));
        assert_eq!(losses.of("a").events, 1000);
    }

    #[test]
    fn what_a_process_recorded_after_the_last_look_is_estimated() {
        let failing = |is_repeated| [(Route { is_repeated, ..route("a", &["webhook"]) }, true)];
        // When the next process started after the last look, whether the sink holds events -> lost.
        let cases = [
            // 100 events a second.
            (10.0, true, 21_000),
            // The time without a process is not counted.
            (60.0, true, 21_500),
            // The clock was set.
            (-60.0, true, 20_000),
            // Nothing is sent again, so nothing is held.
            (10.0, false, 0),
        ];
        for (after, is_repeated, want) in cases {
            let routes = failing(is_repeated);
            let mut losses = Losses::default();
            losses.observe(&sample(1.0, 0.0, &[]), &[(routes[0].0.clone(), false)], at(0));
            losses.observe(&sample(1.0, 18_500.0, &[]), &routes, at(185));
            losses.observe(&sample(1.0, 20_000.0, &[]), &routes, at(200));
            losses.observe(&sample(seconds(at(200)) + after, 5.0, &[]), &routes, at(300));
            assert_eq!(losses.of("a").events, want, "{after} {is_repeated}");
        }
    }

    #[test]
    fn a_sink_that_was_removed_is_forgotten() {
        let mut losses = Losses::default();
        losses.observe(&sample(1.0, 0.0, &[("webhook", 1.0)]), &[(route("a", &["webhook"]), false)], at(0));
        losses.observe(&sample(1.0, 0.0, &[("webhook", 1.0)]), &[(route("b", &["webhook"]), false)], at(1));
        assert_eq!((losses.of("a").events, losses.of("b").events), (0, 0));
    }
}
