//! The report on the counts of a log. The JSON of a [`Report`] is a contract: other programs read it. Unknown values
//! are null.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Tally;
use super::tally::Count;
use super::times::Span;
use crate::Policy;
use crate::{Level, PolicyRule, Stage};

/// Rotation of a log file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    pub max_size_megabytes: u64,
    /// 0: keeps all files.
    pub max_backups: u64,
}

/// kube-apiserver's batching for a webhook, with its defaults (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/audit.go#L145-L180).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batching {
    pub buffer_size: u64,
    pub max_size: u64,
    pub max_wait_seconds: u64,
    pub throttle_qps: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self { buffer_size: 10_000, max_size: 400, max_wait_seconds: 30, throttle_qps: 10 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub log: Log,
    pub kept: Kept,
    /// In the order of the policy. The last entry is for requests that no rule matches.
    pub rules: Vec<Rule>,
    pub rotation: Rotated,
    pub sink: Sink,
    pub top: Top,
    /// Limits of the report.
    pub unknown: Vec<Unknown>,
    /// Lines that could not be read.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<DamageReport>,
}

/// The log itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    pub events: u64,
    pub bytes: u64,
    /// RFC 3339, of the first and the last event.
    pub from: Option<String>,
    pub to: Option<String>,
    /// Without the gaps.
    pub seconds: Option<u64>,
    /// Periods of more than an hour without any event.
    pub gaps: u64,
    pub gap_seconds: u64,
    pub stages: BTreeMap<Stage, u64>,
    pub levels: BTreeMap<Level, u64>,
}

/// The events that the policy would have written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    pub events: u64,
    pub bytes: u64,
    /// Whether the bytes are a lower bound.
    pub at_least: bool,
    /// Share of all events of the log, 0 to 1.
    pub share_of_events: f64,
    pub events_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    pub bytes_per_day: Option<f64>,
    /// Further events, of the stage `RequestReceived`, that the policy would have written and the log does not have.
    pub first_stages_not_in_log: Estimate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    pub events: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Index. `None`: requests that no rule matches.
    pub rule: Option<usize>,
    pub level: Level,
    /// Summary of the rule's conditions.
    pub about: String,
    /// Requests whose first or last event is in the log.
    pub requests: u64,
    /// Events of the log that the rule decides about.
    pub hits: u64,
    /// Those of them that it keeps.
    pub events: u64,
    pub bytes: u64,
    pub at_least: bool,
    /// Share of all bytes that the policy keeps, 0 to 1.
    pub share_of_bytes: f64,
    pub events_per_second: Option<f64>,
    pub bytes_per_day: Option<f64>,
}

/// Capacity of the files of a log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    pub max_size_megabytes: u64,
    pub max_backups: u64,
    /// Bytes of all files together. `None`: no limit.
    pub bytes: Option<u64>,
    /// Hours of log that fit into them.
    pub hours: Option<f64>,
}

/// The load on a sink, from one API server.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sink {
    pub events_per_second: Rate,
    pub bytes_per_second: Rate,
    pub largest_event_bytes: u64,
    /// Events and bytes of a request to the webhook at the mean rate; bytes of a full request, with events of the mean
    /// size.
    pub batch_events: Option<f64>,
    pub batch_bytes: Option<f64>,
    pub full_batch_bytes: Option<f64>,
    /// kube-apiserver's defaults.
    pub batch_max_size: u64,
    pub batch_buffer_size: u64,
    pub throttle_qps: u64,
    /// `throttle_qps` times `batch_max_size`.
    pub events_per_second_at_most: u64,
    /// Events in the queue at its longest.
    pub longest_queue: u64,
    /// Whether these defaults would have dropped no event, if the sink answers.
    pub suffices: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    pub mean: Option<f64>,
    /// The busiest second. `None` for bytes.
    pub peak_second: Option<u64>,
    /// The mean of the busiest minute.
    pub peak_minute: Option<f64>,
}

/// The users, resources and verbs with the most kept bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top {
    pub users: Vec<Noise>,
    pub resources: Vec<Noise>,
    pub verbs: Vec<Noise>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Noise {
    pub name: String,
    pub events: u64,
    pub bytes: u64,
    pub share_of_bytes: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unknown {
    /// Stable: other programs depend on it.
    pub id: &'static str,
    pub message: String,
}

/// A damaged line and its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DamageReport {
    pub file: String,
    /// Counted from 1. `None`: in a document whose lines are not events.
    pub line: Option<u64>,
    /// Of the first byte, after decompression. `None`: as above.
    pub offset: Option<u64>,
    pub message: String,
}

/// All damaged lines, and the first of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Damages {
    pub count: u64,
    pub first: Vec<DamageReport>,
}

/// The parameters of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basis {
    pub rotation: Rotation,
    pub batching: Batching,
    /// Number of users, resources and verbs to list.
    pub top: usize,
}

impl Report {
    pub fn new(mut tally: Tally, policy: &Policy, basis: &Basis, damage: Damages) -> Self {
        let Basis { rotation, batching, top } = *basis;
        let Policy { rules, .. } = policy;
        let span = tally.times.span();
        let seconds = span.seconds.map(|seconds| seconds as f64);
        let per_second = |count: u64| seconds.map(|seconds| count as f64 / seconds);
        let per_day = |count: u64| per_second(count).map(|rate| rate * 86_400.0);
        let mut kept = Count::default();
        let mut missing = Estimate::default();
        let mut lacking = 0;
        for rule in &tally.rules {
            kept.events += rule.kept.events;
            kept.bytes += rule.kept.bytes;
            lacking += rule.lacking_bodies;
            let owed = rule.owed_first_stages;
            let absent = owed.events.saturating_sub(rule.first_stages);
            missing.events += absent;
            missing.bytes += (owed.bytes as f64 * share(absent, owed.events)) as u64;
        }
        let levels = rules.iter().map(|rule| rule.level).chain([Level::None]);
        let abouts = rules.iter().map(about).chain(["no rule matches".to_string()]);
        let rules =
            tally.rules.iter().zip(levels).zip(abouts).enumerate().map(|(index, ((rule, level), about))| Rule {
                rule: (index + 1 < tally.rules.len()).then_some(index),
                level,
                about,
                requests: rule.requests(),
                hits: rule.events,
                events: rule.kept.events,
                bytes: rule.kept.bytes,
                at_least: rule.lacking_bodies > 0,
                share_of_bytes: share(rule.kept.bytes, kept.bytes),
                events_per_second: per_second(rule.kept.events),
                bytes_per_day: per_day(rule.kept.bytes),
            });
        let rules = rules.collect();
        let rotated = (rotation.max_backups > 0)
            .then(|| rotation.max_size_megabytes.saturating_mul(1 << 20).saturating_mul(rotation.max_backups + 1));
        let hours = rotated.zip(per_second(kept.bytes)).filter(|(_, rate)| *rate > 0.0);
        let moment = |time: Option<i64>| {
            let time = jiff::Timestamp::from_second(time?).ok()?;
            Some(time.to_string())
        };
        let noise = |names: &super::tally::Names| {
            let ranked = names.ranked().into_iter().take(top);
            let noise = ranked.map(|(name, count)| Noise {
                name: name.to_string(),
                events: count.events,
                bytes: count.bytes,
                share_of_bytes: share(count.bytes, kept.bytes),
            });
            noise.collect()
        };
        Self {
            unknown: unknown(&tally, lacking, missing, &span, damage.count),
            log: Log {
                events: tally.log.events,
                bytes: tally.log.bytes,
                from: moment(tally.times.first),
                to: moment(tally.times.last),
                seconds: span.seconds,
                gaps: span.gaps,
                gap_seconds: span.gap_seconds,
                stages: STAGES.into_iter().zip(tally.stages).collect(),
                levels: LEVELS.into_iter().zip(tally.levels).collect(),
            },
            kept: Kept {
                events: kept.events,
                bytes: kept.bytes,
                at_least: lacking > 0,
                share_of_events: share(kept.events, tally.log.events),
                events_per_second: per_second(kept.events),
                bytes_per_second: per_second(kept.bytes),
                bytes_per_day: per_day(kept.bytes),
                first_stages_not_in_log: missing,
            },
            rules,
            rotation: Rotated {
                max_size_megabytes: rotation.max_size_megabytes,
                max_backups: rotation.max_backups,
                bytes: rotated,
                hours: hours.map(|(bytes, rate)| bytes as f64 / rate / 3_600.0),
            },
            top: Top { users: noise(&tally.users), resources: noise(&tally.resources), verbs: noise(&tally.verbs) },
            sink: sink(&mut tally, kept, seconds, batching),
            damaged: damage.count,
            damage: damage.first,
        }
    }
}

const STAGES: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
const LEVELS: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The queue of the webhook empties at the rate of the throttle, second by second
/// (plugin/pkg/audit/buffered/buffered.go#L163-L242).
fn sink(tally: &mut Tally, kept: Count, seconds: Option<f64>, batching: Batching) -> Sink {
    let at_most = batching.max_size * batching.throttle_qps;
    let (mut peak_second, mut peak_minute, mut peak_bytes) = (0, 0, 0);
    let (mut queue, mut longest_queue, mut before) = (0, 0, None);
    for (number, minute) in tally.times.minutes() {
        if before.is_some_and(|before| before + 1 != *number) {
            queue = 0;
        }
        before = Some(*number);
        for second in minute.kept {
            let second = u64::from(second);
            peak_second = peak_second.max(second);
            queue = (queue + second).saturating_sub(at_most);
            longest_queue = longest_queue.max(queue);
        }
        peak_minute = peak_minute.max(minute.kept.iter().map(|second| u64::from(*second)).sum());
        peak_bytes = peak_bytes.max(minute.kept_bytes);
    }
    let mean = seconds.map(|seconds| kept.events as f64 / seconds);
    let event_bytes = (kept.events > 0).then(|| kept.bytes as f64 / kept.events as f64);
    // A batch is sent when it is full or has waited long enough.
    let batch_events =
        mean.map(|mean| (mean * batching.max_wait_seconds as f64).min(batching.max_size as f64).max(1.0));
    let is_timed = tally.times.first.is_some();
    // A log may be shorter than a minute.
    let minute = seconds.unwrap_or(1.0).min(60.0);
    Sink {
        events_per_second: Rate {
            mean,
            peak_second: is_timed.then_some(peak_second),
            peak_minute: is_timed.then_some(peak_minute as f64 / minute),
        },
        bytes_per_second: Rate {
            mean: seconds.map(|seconds| kept.bytes as f64 / seconds),
            peak_second: None,
            peak_minute: is_timed.then_some(peak_bytes as f64 / minute),
        },
        largest_event_bytes: tally.largest,
        batch_events,
        batch_bytes: batch_events.zip(event_bytes).map(|(events, bytes)| events * bytes),
        full_batch_bytes: event_bytes.map(|bytes| bytes * batching.max_size as f64),
        batch_max_size: batching.max_size,
        batch_buffer_size: batching.buffer_size,
        throttle_qps: batching.throttle_qps,
        events_per_second_at_most: at_most,
        longest_queue,
        suffices: longest_queue <= batching.buffer_size,
    }
}

/// A shorter log says little about a day.
const SHORT_SECONDS: u64 = 3_600;

/// The limits of the report, the most important first.
fn unknown(tally: &Tally, lacking: u64, missing: Estimate, span: &Span, damaged: u64) -> Vec<Unknown> {
    let mut all = Vec::new();
    let mut say = |id, message| all.push(Unknown { id, message });
    if lacking > 0 {
        say(
            "bodies",
            format!(
                "For {lacking} events, this policy would record bodies that the log does not have: it was recorded at a lower level, or \
                 the bodies were cut off. All bytes are a lower bound."
            ),
        );
    }
    if missing.events > 0 {
        say(
            "first-stages",
            format!(
                "This policy does not omit the stage RequestReceived, but the log lacks {} events of it. They are not counted, and add about \
                 {} bytes.",
                missing.events, missing.bytes
            ),
        );
    }
    if tally.log.events > 0 && tally.stages[Stage::ResponseComplete as usize] == 0 {
        say(
            "last-stages",
            "The log has no events of the stage ResponseComplete: the policy of the log omits it.".into(),
        );
    }
    say(
        "dropped",
        "Requests that the policy of this log did not record are not in it. Only a log with all requests at level Metadata or above is \
         complete."
            .into(),
    );
    if tally.bodies > 0 && tally.managed_bodies == 0 {
        say(
            "managed-fields",
            "No kept body has managed fields. If the policy of this log omits them and this policy does not, bodies become larger."
                .into(),
        );
    }
    if tally.times.untimed > 0 {
        say("times", format!("{} events have no time, so the peaks do not include them.", tally.times.untimed));
    }
    if tally.times.is_full {
        say("minutes", "The log spans too many minutes: the peaks do not include all of them.".into());
    }
    if span.seconds.is_some_and(|seconds| seconds < SHORT_SECONDS) {
        say("short", "The log is shorter than an hour, so figures per day are uncertain.".into());
    }
    if span.gaps > 0 {
        say("gaps", format!("Gaps of more than an hour do not count as time: the log has {}.", span.gaps));
    }
    if damaged > 0 {
        say("damage", format!("{damaged} damaged lines are not counted."));
    }
    all
}

/// A rule in a few words.
fn about(rule: &PolicyRule) -> String {
    let resources: Vec<String> = rule
        .resources
        .iter()
        .flat_map(|entry| {
            let group = if entry.group.is_empty() { String::new() } else { format!(".{}", entry.group) };
            let all = entry.resources.is_empty().then(|| format!("*{group}"));
            let names = match entry.resource_names.as_slice() {
                [] => String::new(),
                names => format!(" {}", names.join("|")),
            };
            let each = entry.resources.iter().map(move |resource| match resource.split_once('/') {
                Some((resource, sub)) => format!("{resource}{group}/{sub}{names}"),
                None => format!("{resource}{group}{names}"),
            });
            all.into_iter().chain(each.collect::<Vec<_>>())
        })
        .collect();
    let parts: Vec<String> =
        [&rule.users, &rule.user_groups, &rule.verbs, &resources, &rule.namespaces, &rule.non_resource_urls]
            .into_iter()
            .zip(["by ", "by group ", "", "", "in ", ""])
            .filter(|(values, _)| !values.is_empty())
            .map(|(values, before)| format!("{before}{}", values.join(",")))
            .collect();
    if parts.is_empty() { "everything".into() } else { parts.join(" ") }
}
