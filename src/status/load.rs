//! Warnings of a sink that is near its limits, from the load that the nodes report. Pure.

use super::Facts;
use crate::api::{LogSink, Mode, NodeSinkStatus, SetupFinding, Sink, SinkLoad, WebhookSink};

/// The log keeps its events for a short time only.
const LOG_HOLDS: &str = "log-holds";
/// The log fills its file system.
const LOG_FILLS_DISK: &str = "log-fills-disk";
/// kube-apiserver may send little more than it has to.
const NEAR_THROTTLE: &str = "near-throttle";

/// Ids of these findings.
pub(super) const IDS: [&str; 3] = [LOG_HOLDS, LOG_FILLS_DISK, NEAR_THROTTLE];

/// A log that holds less is told; one that holds less than [`SHORT_HOURS`] is warned of.
const DAY_HOURS: f64 = 24.0;
const SHORT_HOURS: f64 = 2.0;
/// Peaks are several times as high as the average.
const NEAR: f64 = 0.5;

/// For each sink, of the node that is worst off.
pub(super) fn findings(facts: Facts) -> Vec<SetupFinding> {
    let of_sink = |(index, sink): (usize, &Sink)| {
        let reports = facts.nodes.iter().filter(|node| !node.is_silent()).filter_map(|node| {
            let sinks = &node.audit?.status.as_ref()?.sinks;
            let report: &NodeSinkStatus = sinks.iter().find(|report| report.name == sink.name)?;
            Some((node.name, report.load?))
        });
        let loads: Vec<(&str, SinkLoad)> = reports.collect();
        let told = match (&sink.log, &sink.webhook) {
            (Some(log), _) => of_log(log, &loads),
            (None, Some(webhook)) => of_webhook(webhook, &loads).into_iter().collect(),
            (None, None) => Vec::new(),
        };
        let finding = |(id, severity, field, message): Told| SetupFinding {
            id: id.into(),
            severity: severity.into(),
            field: format!("spec.sinks[{index}].{field}"),
            message: format!("sink {}: {message}", sink.name),
        };
        told.into_iter().map(finding).collect::<Vec<_>>()
    };
    facts.setup.spec.sinks.iter().enumerate().flat_map(of_sink).collect()
}

/// Id, severity, field below the sink, message.
type Told = (&'static str, &'static str, &'static str, String);

fn of_log(log: &LogSink, loads: &[(&str, SinkLoad)]) -> Vec<Told> {
    let fills = least(loads, |load| load.disk_hours).map(|(node, hours)| {
        let message = format!(
            "at the present rate, the log fills its file system on {node} in about {}, before old files are removed. Lower \
             maxBackups or maxSizeMegabytes, free space, or record less",
            duration(hours)
        );
        (LOG_FILLS_DISK, "warning", "log", message)
    });
    let holds = least(loads, |load| load.log_hours).filter(|(_, hours)| *hours < DAY_HOURS).map(|(node, hours)| {
        let message = format!(
            "at the present rate, the log on {node} holds the last {} (maxBackups {} × maxSizeMegabytes {}): a collector that \
             is down for longer misses events. Raise one of them, or record less",
            duration(hours),
            log.max_backups,
            log.max_size_megabytes
        );
        (LOG_HOLDS, if hours < SHORT_HOURS { "warning" } else { "info" }, "log", message)
    });
    fills.into_iter().chain(holds).collect()
}

fn of_webhook(webhook: &WebhookSink, loads: &[(&str, SinkLoad)]) -> Option<Told> {
    let delivery = &webhook.delivery;
    let batch = delivery.batch.as_ref();
    // The defaults of kube-apiserver.
    let qps = batch.and_then(|batch| batch.throttle_qps).unwrap_or(10.0);
    let size = batch.and_then(|batch| batch.max_size).unwrap_or(400);
    #[expect(clippy::cast_precision_loss, reason = "a bounded count")]
    let most = qps * size as f64;
    let rates = loads.iter().filter_map(|(node, load)| Some((*node, load.events_per_second?)));
    let (node, rate) = rates.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (delivery.mode == Mode::Batch && qps > 0.0 && rate > most * NEAR).then(|| {
        let message = format!(
            "kube-apiserver on {node} records about {rate} events per second and may send at most {most} (throttleQPS {qps} × \
             maxSize {size}): events that it cannot send in time are lost. Raise maxSize or throttleQPS, or record less"
        );
        (NEAR_THROTTLE, "warning", "webhook.delivery.batch", message)
    })
}

fn least<'a>(loads: &[(&'a str, SinkLoad)], figure: fn(&SinkLoad) -> Option<f64>) -> Option<(&'a str, f64)> {
    let figures = loads.iter().filter_map(|(node, load)| Some((*node, figure(load)?)));
    figures.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn duration(hours: f64) -> String {
    match hours {
        hours if hours < 1.0 => format!("{:.0} minutes", (hours * 60.0).max(1.0)),
        hours if hours < 48.0 => format!("{hours} hours"),
        hours => format!("{:.0} days", hours / 24.0),
    }
}
