//! What a receiver's answer does to the counters and to the log of kube-apiserver: its own webhook backend, in a Go
//! program beside `tests/webhook`, against receivers that misbehave ([`standin`], [`trust`]).
//!
//! [`cases::CASES`] is the table of expectations. The test prints the table of what was seen, and fails with each
//! difference.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod cases;
mod standin;
mod trust;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use audit_operator::revision::Proxy;
use serde_json::{Value, json};
use testing::wait;
use testing::webhook::{Backend, Metrics};
use tokio::runtime::{Handle, Runtime};

use cases::{CASES, Case, Receiver, Want};
use standin::{Kept, Reserved, Talk};
use trust::Trust;

/// A path with a secret, as hosted receivers want it.
const PATH: &str = "/audit/SECRET";
/// The longest case takes two attempts of 30 s.
const LIMIT: Duration = Duration::from_secs(110);

#[test]
fn counters_and_log_show_what_the_receiver_did() {
    let runtime = Runtime::new().unwrap();
    // Built before the clock of a case runs.
    drop(Backend::start(&kubeconfig("http://127.0.0.1:1", json!({}), json!({})), &["--events", "1"], &[]));
    // The slow ones first, side by side with the rest: they only wait.
    let mut order: Vec<usize> = (0..CASES.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(CASES[index].want.seconds()));
    let queue = Mutex::new(order.into_iter());
    let seen = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some(index) = queue.lock().unwrap().next() else { return };
                    let observed = observe(&CASES[index], runtime.handle());
                    seen.lock().unwrap().insert(index, observed);
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), CASES.len());
    println!("{}", Observed::HEAD);
    for (index, observed) in &seen {
        println!("| {} {}", CASES[*index].name, observed.row());
    }
    let differences: Vec<String> =
        seen.iter().flat_map(|(index, observed)| observed.differences(&CASES[*index])).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn what_is_in_the_buffer_is_delivered_at_the_end() {
    let runtime = Runtime::new().unwrap();
    let _guard = runtime.enter();
    let kept = Kept::default();
    let address = Reserved::v4().serve(Talk::Answers { code: 200, headers: Vec::new() }, None, &kept);
    let kubeconfig = kubeconfig(&format!("http://{address}{PATH}"), json!({}), json!({}));
    let mut backend =
        Backend::start(&kubeconfig, &["--events-per-second", "100", "--audit-webhook-batch-max-wait", "1h"], &[]);
    wait::until(
        || "some events".into(),
        LIMIT,
        || (backend.metrics().sum("apiserver_audit_event_total") >= 6.0).then_some(()),
    );
    assert!(kept.events().is_empty());
    let pid = rustix::process::Pid::from_raw(backend.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = wait::until(|| "the end of the backend".into(), LIMIT, || backend.ended());
    assert!(status.success(), "{status}");
    let kept: Vec<_> = kept.events().into_iter().map(|(id, event)| (id, event.times)).collect();
    assert!(kept.len() >= 6, "{kept:?}");
    assert_eq!(BTreeSet::from_iter(kept.iter().map(|(id, _)| id.clone())), handed(kept.len()));
    assert!(kept.iter().all(|(_, times)| *times == 1), "{kept:?}");
}

/// Audit IDs and stages of the first events.
fn handed(events: usize) -> BTreeSet<(String, String)> {
    let stage = |index: usize| ["RequestReceived", "ResponseComplete"][index % 2].to_string();
    (0..events).map(|index| (format!("event-{}", index / 2), stage(index))).collect()
}

fn kubeconfig(server: &str, mut cluster: Value, user: Value) -> Value {
    cluster["server"] = server.into();
    json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "sink", "cluster": cluster}],
        "users": [{"name": "sink", "user": user}],
        "contexts": [{"name": "sink", "context": {"cluster": "sink", "user": "sink"}}],
        "current-context": "sink",
    })
}

/// A case's receiver, and the way to it.
struct Place {
    server: String,
    cluster: Value,
    user: Value,
    environment: Vec<(&'static str, String)>,
    /// In messages.
    proxy: Option<String>,
    /// Listens only after the first attempt.
    late: Option<Reserved>,
    /// Refuses as long as it is held.
    #[expect(dead_code, reason = "it is held, not read")]
    refuses: Option<Reserved>,
}

impl Place {
    fn at(server: String) -> Self {
        let (cluster, user) = (json!({}), json!({}));
        Self { server, cluster, user, environment: Vec::new(), proxy: None, late: None, refuses: None }
    }

    /// By a proxy. Go asks none for loopback, and the name is the proxy's to resolve.
    fn by_proxy(scheme: &str, proxy: std::net::SocketAddr) -> Self {
        let environment = vec![("HTTP_PROXY", format!("http://{proxy}")), ("HTTPS_PROXY", format!("http://{proxy}"))];
        let proxy = Some(proxy.to_string());
        Self { environment, proxy, ..Self::at(format!("{scheme}://audit.invalid:8443")) }
    }

    /// By a proxy that the kubeconfig names. The environment must not matter: it names another, and exempts all hosts.
    fn by_proxy_url(scheme: &str, proxy: &str, address: std::net::SocketAddr) -> Self {
        let url = Proxy::parse(&format!("{proxy}://{address}")).unwrap();
        let environment = ["HTTP_PROXY", "HTTPS_PROXY"].map(|name| (name, "http://127.0.0.1:1".to_string()));
        let environment = environment.into_iter().chain([("NO_PROXY", "*".to_string())]).collect();
        let cluster = json!({"proxy-url": url.to_string()});
        Self { environment, cluster, ..Self::by_proxy(scheme, address) }
    }

    fn host(&self) -> &str {
        self.server.split_once("://").unwrap().1
    }
}

const OK: Talk = Talk::Answers { code: 200, headers: Vec::new() };

fn answers(code: u16) -> Talk {
    Talk::Answers { code, headers: Vec::new() }
}

fn place(receiver: &Receiver, kept: &Kept) -> Place {
    let plain = |talk| Place::at(format!("http://{}", Reserved::v4().serve(talk, None, kept)));
    let tls = |trust| {
        let made = trust::make(trust);
        let address = Reserved::v4().serve(OK, Some(made.acceptor), kept);
        let host = if trust == Trust::OtherName { "localhost" } else { "127.0.0.1" };
        let server = format!("https://{host}:{}", address.port());
        (address, Place { cluster: made.cluster, user: made.user, ..Place::at(server) })
    };
    // A receiver behind a proxy that works: its `cluster`, and the proxy.
    let proxied = |scheme| {
        let (receiver, mut place) = if scheme == "https" {
            tls(Trust::Holds)
        } else {
            (Reserved::v4().serve(OK, None, kept), Place::at(String::new()))
        };
        // The certificate is for the address.
        place.cluster["tls-server-name"] = "localhost".into();
        (place.cluster, Reserved::v4().serve(Talk::ProxyTo(receiver), None, kept))
    };
    match *receiver {
        Receiver::Answers(code, headers) => {
            let headers = headers.iter().map(|&(name, value)| (name.to_string(), value.to_string())).collect();
            plain(Talk::Answers { code, headers })
        }
        Receiver::Redirects(code) => {
            let target = Reserved::v4().serve(OK, None, kept);
            plain(Talk::Answers { code, headers: vec![("Location".into(), format!("http://{target}/elsewhere"))] })
        }
        Receiver::NeverAnswers => plain(Talk::NeverAnswers),
        Receiver::ClosesAtOnce => plain(Talk::ClosesAtOnce),
        Receiver::SpeaksSmtp => plain(Talk::SpeaksSmtp),
        Receiver::Refuses => {
            let reserved = Reserved::v4();
            let server = format!("http://{}", reserved.address());
            Place { refuses: Some(reserved), ..Place::at(server) }
        }
        Receiver::ComesBack => {
            let reserved = Reserved::v4();
            let server = format!("http://{}", reserved.address());
            Place { late: Some(reserved), ..Place::at(server) }
        }
        // No name can be like this, so Go's resolver asks no name server. With one, its address follows the name.
        Receiver::UnknownName => Place::at("http://audit..sink:8080".into()),
        Receiver::Ipv6 => Place::at(format!("http://{}", Reserved::v6().serve(OK, None, kept))),
        Receiver::Tls(trust) => tls(trust).1,
        Receiver::TlsButHttpUrl => {
            let (address, place) = tls(Trust::Holds);
            Place { server: format!("http://{address}"), ..place }
        }
        Receiver::HttpsUrlButNoTls => Place::at(format!("https://{}", Reserved::v4().serve(OK, None, kept))),
        Receiver::Proxy(scheme, 200) => {
            let (cluster, proxy) = proxied(scheme);
            Place { cluster, ..Place::by_proxy(scheme, proxy) }
        }
        Receiver::Proxy(scheme, code) => Place::by_proxy(scheme, Reserved::v4().serve(answers(code), None, kept)),
        Receiver::ProxyRefuses(scheme) => {
            let reserved = Reserved::v4();
            let address = reserved.address();
            Place { refuses: Some(reserved), ..Place::by_proxy(scheme, address) }
        }
        Receiver::ProxyUrl(scheme, proxy_scheme) => {
            let (mut cluster, proxy) = proxied(scheme);
            let place = Place::by_proxy_url(scheme, proxy_scheme, proxy);
            cluster["proxy-url"] = place.cluster["proxy-url"].clone();
            Place { cluster, ..place }
        }
        Receiver::ProxyUrlRefuses(scheme, proxy_scheme) => {
            let reserved = Reserved::v4();
            let address = reserved.address();
            Place { refuses: Some(reserved), ..Place::by_proxy_url(scheme, proxy_scheme, address) }
        }
    }
}

/// What was seen of a case.
struct Observed {
    codes: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    retries: u64,
    /// Observations of `rest_client_request_duration_seconds`, and their sum.
    timed: (u64, f64),
    /// Observations of `rest_client_request_size_bytes`, and their sum.
    sized: (u64, f64),
    handed: u64,
    rejected: u64,
    kept: BTreeMap<(String, String), standin::Event>,
    /// Of the error lines, what follows "affecting … audit events: ", with names for the addresses.
    messages: BTreeSet<String>,
    took: Duration,
    /// audit-operator's verdict.
    verdict: verdict::Verdict,
}

fn observe(case: &Case, runtime: &Handle) -> Observed {
    let _guard = runtime.enter();
    let kept = Kept::default();
    let mut place = place(&case.receiver, &kept);
    let server = format!("{}{PATH}", place.server);
    let kubeconfig = kubeconfig(&server, place.cluster.clone(), place.user.clone());
    let begin = Instant::now();
    let backend = Backend::start(&kubeconfig, case.flags, &place.environment);
    if let Some(reserved) = place.late.take() {
        let fails = || requests(&backend.metrics(), place.host()).contains_key("<error>").then_some(());
        wait::until(|| "a failed attempt".into(), LIMIT, fails);
        reserved.serve(OK, None, &kept);
    }
    backend.drained(LIMIT);
    let took = begin.elapsed();
    let metrics = backend.metrics();
    let count = |name: &str| whole(metrics.sum(name));
    let histogram = |name: &str| {
        let of_host = |suffix: &str| post(&metrics, &format!("{name}_{suffix}"), "verb", place.host());
        (of_host("count").iter().map(|(_, n)| whole(*n)).sum(), of_host("sum").iter().map(|(_, n)| n).sum())
    };
    Observed {
        codes: requests(&metrics, place.host()),
        errors: metrics
            .series("apiserver_audit_error_total")
            .iter()
            .map(|(labels, n)| (labels["plugin"].clone(), whole(*n)))
            .collect(),
        retries: count("rest_client_request_retries_total"),
        timed: histogram("rest_client_request_duration_seconds"),
        sized: histogram("rest_client_request_size_bytes"),
        handed: count("apiserver_audit_event_total"),
        rejected: count("apiserver_audit_requests_rejected_total"),
        kept: kept.events(),
        verdict: runtime.block_on(verdict::judge(
            metrics.text(),
            &backend.log(),
            &server,
            &place.cluster,
            place.proxy.as_deref(),
        )),
        messages: messages(&backend.log(), &place),
        took,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of a short test")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// The series of one name. All must be of POST and of the sink's host as the URL has it.
fn post(metrics: &Metrics, name: &str, method: &str, host: &str) -> Vec<(BTreeMap<String, String>, f64)> {
    let series = metrics.series(name);
    for (labels, _) in &series {
        assert_eq!((labels[method].as_str(), labels["host"].as_str()), ("POST", host), "{name}");
    }
    series
}

fn requests(metrics: &Metrics, host: &str) -> BTreeMap<String, u64> {
    let series = post(metrics, "rest_client_requests_total", "method", host);
    series.into_iter().map(|(labels, n)| (labels["code"].clone(), whole(n))).collect()
}

/// Every error line of an audit plugin has klog's header, the plugin, the number of events, and then the message.
fn messages(log: &str, place: &Place) -> BTreeSet<String> {
    let message = |line: &str| {
        let (head, rest) = line.split_once("] Error in audit plugin '")?;
        assert!(head.starts_with('E') && head.contains(" metrics.go:"), "{line}");
        let (plugin, rest) = rest.split_once("' affecting ").unwrap();
        let (events, message) = rest.split_once(" audit events: ").unwrap();
        assert!(events.parse::<u64>().unwrap() > 0, "{line}");
        Some(format!("{plugin}: {}", anonymous(message, place)))
    };
    log.lines().filter_map(message).collect()
}

/// With `SINK`, `PROXY` and `LOCAL` for the addresses, and `NOW`.
fn anonymous(message: &str, place: &Place) -> String {
    let mut text = message.replace(place.host(), "SINK");
    if let Some(proxy) = &place.proxy {
        text = text.replace(proxy, "PROXY");
    }
    if let Some((_, port)) = place.host().rsplit_once(':') {
        text = text.replace(&format!("127.0.0.1:{port}"), "SINK").replace(&format!("[::1]:{port}"), "SINK");
    }
    for (begin, end, name) in [("127.0.0.1:", "->", "LOCAL"), ("current time ", " is ", "current time NOW")] {
        if let Some(from) = text.find(begin)
            && let Some(length) = text[from..].find(end)
        {
            text.replace_range(from..from + length, name);
        }
    }
    text
}

fn list<V: std::fmt::Display>(map: &BTreeMap<String, V>) -> String {
    let items: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if items.is_empty() { "–".into() } else { items.join(", ") }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn mean((n, sum): (u64, f64)) -> f64 {
    if n == 0 { 0.0 } else { sum / n as f64 }
}

impl Observed {
    const HEAD: &str = "\
| receiver | requests by code | retries | audit errors by plugin | durations: n, s each | sizes: n, bytes each \
| handed, kept | drained after s | reason | messages |\n|---|---|---|---|---|---|---|---|---|---|";

    fn row(&self) -> String {
        let copies: BTreeSet<u64> = self.kept.values().map(|event| event.times).collect();
        let truncated = self.kept.values().filter(|event| event.is_truncated).count();
        let mut kept = format!("{}, {}", self.handed, self.kept.len());
        if copies.iter().any(|&copies| copies > 1) {
            kept += &format!(" (each {copies:?} times)");
        }
        if truncated > 0 {
            kept += &format!(" ({truncated} truncated)");
        }
        if self.rejected > 0 {
            kept += &format!("; {} requests rejected", self.rejected);
        }
        format!(
            "| {} | {} | {} | {}, {:.3} | {}, {:.0} | {kept} | {:.1} | {} | {} |",
            list(&self.codes),
            self.retries,
            list(&self.errors),
            self.timed.0,
            mean(self.timed),
            self.sized.0,
            mean(self.sized),
            self.took.as_secs_f64(),
            self.verdict.delivering.reason,
            Vec::from_iter(self.messages.iter().map(|message| format!("`{message}`"))).join("<br>"),
        )
    }

    /// All that is not as the case wants it.
    fn differences(&self, case: &Case) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |what: &str, holds: bool, seen: String, want: String| {
            if !holds {
                found.push(format!("{}: {what}: {seen}, not {want}", case.name));
            }
        };
        let Want { codes, retries, errors, timed, each, sized, kept, times, truncated, rejected, messages } = case.want;
        let same = |seen: &BTreeMap<String, u64>, want: &[(&str, cases::Count)]| {
            seen.len() == want.len() && want.iter().all(|(key, n)| seen.get(*key).is_some_and(|seen| n.holds(*seen)))
        };
        check("codes", same(&self.codes, codes), list(&self.codes), format!("{codes:?}"));
        check("errors", same(&self.errors, errors), list(&self.errors), format!("{errors:?}"));
        check("retries", retries.holds(self.retries), self.retries.to_string(), format!("{retries:?}"));
        check("durations", timed.holds(self.timed.0), self.timed.0.to_string(), format!("{timed:?}"));
        let seconds = mean(self.timed);
        check("seconds each", (each.0..each.1).contains(&seconds), seconds.to_string(), format!("{each:?}"));
        check("sizes", sized.holds(self.sized.0), self.sized.0.to_string(), format!("{sized:?}"));
        // Each event has some 500 bytes.
        check("bytes", self.sized.0 == 0 || self.sized.1 > 500.0, self.sized.1.to_string(), "more".into());
        let distinct = self.kept.len() as u64;
        check("kept", kept.holds(distinct), distinct.to_string(), format!("{kept:?}"));
        check("copies", self.kept.values().all(|e| e.times == times), "others".into(), times.to_string());
        let n = self.kept.values().filter(|event| event.is_truncated).count() as u64;
        check("truncated", n == truncated, n.to_string(), truncated.to_string());
        check("rejected", self.rejected == rejected, self.rejected.to_string(), rejected.to_string());
        let strange: Vec<_> = self.kept.keys().filter(|id| !handed(self.handed as usize).contains(id)).collect();
        check("events", strange.is_empty(), format!("{strange:?}"), "any that was never handed over".into());
        check(
            "messages",
            self.messages.is_empty() == messages.is_empty(),
            self.messages.len().to_string(),
            "so".into(),
        );
        for message in &self.messages {
            check("message", messages.contains(&message.as_str()), message.clone(), format!("{messages:?}"));
        }
        let reason = self.verdict.delivering.reason.as_str();
        let want =
            cases::REASONS.iter().find(|(_, names)| names.contains(&case.name)).map_or("none", |(reason, _)| *reason);
        check("reason", reason == want, format!("{reason} ({})", self.verdict.delivering.message), want.into());
        let message = &self.verdict.delivering.message;
        check("the message", !message.contains("SECRET"), message.clone(), "one without the path of the URL".into());
        let is_of_receiver = ["text of the receiver", "mail.example"].iter().any(|text| message.contains(text));
        check("the message", !is_of_receiver, message.clone(), "one without the receiver's own text".into());
        let lost = self.verdict.lost.to_string();
        let counted: u64 = self.errors.values().sum();
        check("reported loss", lost == counted.to_string(), lost, counted.to_string());
        if let cases::Loss::Counted = case.loss {
            let lost = self.handed - distinct;
            let counted: u64 = self.errors.values().sum();
            check("loss", lost == counted, format!("{lost} missing"), format!("{counted} counted"));
        }
        found
    }
}
