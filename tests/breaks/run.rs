//! Runs a row: the sink is well, breaks, and is repaired.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use audit_operator::api::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testing::cluster::Cluster;
use tokio::runtime::Runtime;

use super::act::{self, Act, LOG, SMALL_DISK};
use super::matrix::{GOAL, Row, Setup, Sink};
use super::misbehaving::{ADDRESS, Authority, HTTP, HTTPS, Misbehaving, NAME, PATH, TOKEN};
use super::status::{self, Status};

const MINUTE: Duration = Duration::from_secs(60);
/// How long either is awaited.
const LIMIT: Duration = Duration::from_secs(300);
/// The agent looks often for five minutes after a change.
const REST: Duration = Duration::from_secs(330);
/// A loss is reported for ten minutes.
const UNTIL_COMPLETE: Duration = Duration::from_secs(660);
pub const SETUP: &str = "breaks";
/// The Secret with the certificate that the Setups name, and its key.
const AUTHORITY: &str = "stand-in-ca";

pub struct Runner {
    pub cluster: Cluster,
    pub stand_in: Misbehaving,
    pub status: Status,
    pub client: Client,
    pub runtime: Runtime,
    /// The Setup that the node has.
    current: Option<Setup>,
    /// When the node last changed.
    changed: Instant,
}

/// The outcome of a row.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub row: String,
    /// Each reason that was reported until the expected one.
    pub reasons: Vec<String>,
    pub message: String,
    /// From the break until the expected reason.
    pub broken: f64,
    /// From the repair until the sink delivers.
    pub repaired: f64,
    /// Whether no batch was given up meanwhile.
    pub complete: String,
    pub failure: Option<String>,
}

impl Runner {
    pub fn connect() -> Self {
        let runtime = Runtime::new().unwrap();
        let cluster = Cluster::connect(SETUP);
        // Before the pods that see them.
        act::on_node(
            &cluster,
            &format!(
                "mkdir -p {SMALL_DISK}; mountpoint -q {SMALL_DISK} || mount -t tmpfs -o size=320m tmpfs {SMALL_DISK}"
            ),
        );
        // Requests may wait for it, if the last run left a blocking webhook.
        let authority = authority(&cluster);
        let stand_in = Misbehaving::begin(&runtime, &authority);
        cluster.install_chart_with(&["--set=floor.grantedRisks={BlockingWebhook}"]);
        for object in [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": AUTHORITY, "namespace": "audit-system"},
                "stringData": {"ca.crt": authority.certificate, "ca.key": authority.key}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stand-in-token", "namespace": "audit-system"},
                "stringData": {"token": TOKEN}}),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "stand-in", "namespace": "audit-system"},
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": HTTPS}]}}),
            act::slice(true),
        ] {
            cluster.apply(&object);
        }
        let client = status::client(&runtime, &cluster);
        let status = Status::watch(&runtime, &client);
        Self { cluster, stand_in, status, client, runtime, current: None, changed: Instant::now() }
    }

    /// Makes the node run this Setup, and waits until both of its sinks deliver.
    pub fn run_under(&mut self, setup: Setup) {
        if self.current == Some(setup) {
            return;
        }
        self.current = None;
        self.apply(&spec(setup));
        self.current = Some(setup);
        for sink in [Sink::Log, Sink::Webhook] {
            self.wait_delivering(sink.name());
        }
    }

    /// Applies a Setup with this spec, and waits until the node runs it.
    pub fn apply(&mut self, spec: &Value) {
        self.cluster.apply(&json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup",
            "metadata": {"name": SETUP}, "spec": spec}));
        self.cluster.wait_generation();
        self.cluster.wait_condition("Ready", "True", 5 * MINUTE);
        self.changed = Instant::now();
    }

    pub fn wait_delivering(&mut self, name: &str) -> Instant {
        self.status.catch_up();
        let look = |setup: &Value| (status::sink(setup, name)?["delivering"] == "True").then_some(());
        self.status.wait(&format!("{name} delivering"), LIMIT, look).1
    }

    /// Waits until all is well, and has been for so long that the agent looks seldom.
    pub fn rest(&mut self) {
        let is_well = |setup: &Value| (status::condition(setup, "SinksHealthy")?["status"] == "True").then_some(());
        self.status.catch_up();
        self.status.wait("SinksHealthy", UNTIL_COMPLETE, is_well);
        let until = self.changed + REST;
        let is_ill =
            |setup: &Value| (status::condition(setup, "SinksHealthy")?["status"] == "False").then(|| setup.clone());
        let alarm = self.status.pass(until, is_ill);
        assert!(alarm.is_none(), "an alarm of a cluster at rest: {alarm:?}");
    }

    /// The events that are reported as lost.
    pub fn lost(&mut self, name: &str) -> i64 {
        status::sink(self.status.newest(), name).and_then(|sink| sink["lostEvents"].as_i64()).unwrap_or(0)
    }

    pub fn run(&mut self, row: &Row) -> Outcome {
        println!("{}", super::table::describe(row));
        let tried = catch_unwind(AssertUnwindSafe(|| self.try_run(row)));
        let outcome = tried.unwrap_or_else(|panic| {
            self.stand_in.behave();
            self.current = None;
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            Outcome {
                row: super::table::describe(row),
                reasons: Vec::new(),
                message: String::new(),
                broken: 0.0,
                repaired: 0.0,
                complete: String::new(),
                failure: Some(text),
            }
        });
        let Outcome { reasons, message, broken, repaired, complete, failure, .. } = &outcome;
        println!(
            "     {} after {broken:.0} s, delivering {repaired:.0} s after the repair, complete {complete}",
            reasons.join(", ")
        );
        println!("     {message}");
        if let Some(failure) = failure {
            println!("     FAILED: {failure}");
        }
        outcome
    }

    fn try_run(&mut self, row: &Row) -> Outcome {
        let name = row.sink.name();
        self.run_under(row.setup);
        row.act.prepare(&self.cluster);
        self.wait_delivering(name);
        if row.is_at_rest {
            self.rest();
        }
        let lost = self.lost(name);
        let mut begin = Instant::now();
        let mut broken = Some(row.act.carry_out(row.setup, &self.stand_in, &self.cluster));
        // The repair is a part of this one: the sink delivers again, and has lost events.
        if row.act == Act::LoseBatch {
            let given_up = || self.stand_in.given_up().filter(|at| *at > begin);
            begin = self.cluster.wait("a batch given up", 3 * MINUTE, given_up);
            row.act.repair(broken.take().unwrap_or_default(), &self.stand_in, &self.cluster);
        }
        let mut reasons: Vec<String> = Vec::new();
        let mut message = String::new();
        let seen = self.status.find(LIMIT, |setup| {
            let sink = status::sink(setup, name)?;
            let reason = sink["reason"].as_str()?;
            if sink["delivering"] != "True" && reasons.last().is_none_or(|last| last != reason) {
                reasons.push(reason.into());
            }
            message = sink["message"].as_str().unwrap_or_default().into();
            let has_lost = sink["complete"] == "False" && sink["lostEvents"].as_i64() > Some(lost);
            let is_reason = reason == row.reason.as_str();
            let is_seen = match row.reason {
                // Losses of the rows before are reported as well.
                Reason::EventsLost => is_reason && has_lost,
                // A loss is the worse news.
                Reason::MetricsUnavailable => sink["delivering"] == "Unknown" && (is_reason || has_lost),
                _ => is_reason && sink["delivering"] == "False",
            };
            is_seen.then_some(())
        });
        let repair = Instant::now();
        if let Some(broken) = broken {
            row.act.repair(broken, &self.stand_in, &self.cluster);
        }
        let count = self.stand_in.count();
        let delivering = self.status.find(LIMIT, |setup| {
            let sink = status::sink(setup, name)?;
            (sink["delivering"] == "True").then(|| sink["complete"].as_str().unwrap_or_default().to_string())
        });
        row.act.clean_up(&self.cluster);
        let after = |at: Option<Instant>, since: Instant| {
            at.map_or(LIMIT, |at| at.saturating_duration_since(since)).as_secs_f64()
        };
        let mut failures = Vec::new();
        match &seen {
            None => failures.push(format!("{} was not reported within {} s", row.reason, LIMIT.as_secs())),
            Some((_, at)) if *at > begin + GOAL => failures.push("reported too late".into()),
            Some(_) => {}
        }
        match &delivering {
            None => failures.push(format!("it does not deliver {} s after the repair", LIMIT.as_secs())),
            Some((_, at)) if *at > repair + row.repaired_within => {
                failures.push("the repair was reported too late".into())
            }
            Some(_) => {}
        }
        let is_proved = row.sink == Sink::Log || row.setup == Setup::Receiver || self.stand_in.count() > count;
        if delivering.is_some() && row.act != Act::LoseBatch && !is_proved {
            failures.push("it is said to deliver, and no event has arrived".into());
        }
        Outcome {
            row: super::table::describe(row),
            reasons,
            message,
            broken: after(seen.map(|(_, at)| at), begin),
            repaired: after(delivering.as_ref().map(|(_, at)| *at), repair),
            complete: delivering.map(|(complete, _)| complete).unwrap_or_default(),
            failure: (!failures.is_empty()).then(|| failures.join("; ")),
        }
    }
}

/// The authority of the stand-in. It stays for later runs on the same cluster: kube-apiserver takes minutes until it
/// trusts another one.
fn authority(cluster: &Cluster) -> Authority {
    let find = ["-n", "audit-system", "get", "secret", AUTHORITY, "--ignore-not-found", "-o", "json"];
    let Ok(secret) = serde_json::from_str::<Value>(&cluster.kubectl(&find)) else { return Authority::new() };
    let part = |key: &str| {
        let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    Authority { certificate: part("ca.crt"), key: part("ca.key") }
}

/// The spec of a Setup.
pub fn spec(setup: Setup) -> Value {
    let ca = json!({"caSecretRef": {"name": AUTHORITY}});
    let token = json!({"bearerTokenSecretRef": {"name": "stand-in-token"}});
    let batch = json!({"batch": {"maxWaitSeconds": 5}});
    let url = format!("https://{NAME}:{HTTPS}{PATH}");
    let (webhook, log) = match setup {
        Setup::Url => (json!({"url": url, "tls": ca, "auth": token, "delivery": batch}), json!({"path": LOG})),
        Setup::Blocking => (
            json!({"url": url, "tls": ca, "auth": token, "delivery": {"mode": "Blocking", "initialBackoffSeconds": 1}}),
            json!({"path": LOG}),
        ),
        Setup::Service => {
            let service = json!({"namespace": "audit-system", "name": "stand-in", "port": 443, "path": PATH});
            let webhook = json!({"service": service, "tls": ca, "auth": token, "delivery": batch});
            (webhook, json!({"path": LOG, "delivery": {"mode": "Batch"}}))
        }
        Setup::Http => {
            let log = json!({"path": format!("{SMALL_DISK}/audit.log"), "maxSizeMegabytes": 8, "maxBackups": 1});
            (json!({"url": format!("http://{ADDRESS}:{HTTP}{PATH}"), "delivery": batch}), log)
        }
        Setup::Receiver => {
            let service = json!({"namespace": "audit-system", "name": "audit-receiver", "port": 443});
            let tls = json!({"caSecretRef": {"name": "audit-receiver-tls"}});
            let token = json!({"bearerTokenSecretRef": {"name": "audit-receiver-token"}});
            (json!({"service": service, "tls": tls, "auth": token, "delivery": batch}), json!({"path": LOG}))
        }
    };
    let risks = if setup == Setup::Blocking { json!(["BlockingWebhook"]) } else { json!([]) };
    json!({
        "policy": {"preset": "gce", "acknowledge": risks},
        "sinks": [{"name": Sink::Log.name(), "log": log}, {"name": Sink::Webhook.name(), "webhook": webhook}],
        "rollout": {"minReadySeconds": 5},
    })
}
