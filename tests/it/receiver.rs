//! The receiver under hostile clients: it serves the others throughout, in less than 64 MB.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

use audit_operator::node::files::Host;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const MAX_MEMORY_KIB: u64 = 64 * 1024;
const MIB: usize = 1 << 20;

struct Receiver {
    child: Child,
    address: SocketAddr,
    roots: RootCertStore,
    directory: tempfile::TempDir,
}

impl Receiver {
    fn start(arguments: &[&str]) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let directory = tempfile::tempdir().unwrap();
        let host = Host::open(directory.path()).unwrap();
        let made = rcgen::generate_simple_self_signed(["sink.test".to_string()]).unwrap();
        host.replace("/tls.crt", made.cert.pem().as_bytes(), 0o600).unwrap();
        host.replace("/tls.key", made.signing_key.serialize_pem().as_bytes(), 0o600).unwrap();
        host.replace("/token", b"secret", 0o600).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
            .current_dir(directory.path())
            .args(["receiver", "--listen=127.0.0.1:0", "--output=/dev/null", "--token-file=token"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let address = line.rsplit_once("address=").unwrap_or_else(|| panic!("{line}")).1.trim().parse().unwrap();
        // Otherwise it would wait for a reader when the pipe is full.
        spawn(move || drop(std::io::copy(&mut log, &mut std::io::sink())));
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { child, address, roots, directory }
    }

    fn start_tls() -> Self {
        Self::start(&["--tls-cert=tls.crt", "--tls-key=tls.key"])
    }

    fn connect(&self) -> TcpStream {
        connect(self.address, 1)
    }

    fn connect_tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let config = ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        let name = ServerName::try_from("sink.test").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), self.connect())
    }

    /// The most memory that it ever had.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn metrics(&self) -> String {
        let mut stream = self.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        answer(&mut stream)
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Ends it, and checks the most memory that it had.
    fn end(self, what: &str) {
        let peak = self.peak_kib();
        println!("{what}: {peak} KiB at most");
        assert!(peak < MAX_MEMORY_KIB, "{what}: {peak} KiB");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Connects from 127.0.0.`host`: each is an address of its own to the receiver.
fn connect(address: SocketAddr, host: u8) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into()).unwrap();
    socket.connect_timeout(&address.into(), LIMIT).unwrap();
    if host > 1 {
        // A port in TIME_WAIT cannot be used by the next connection.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer secret\r\n";

/// One answer, by its Content-Length.
fn answer(stream: &mut impl Read) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap_or_else(|error| panic!("no answer: {error}")), 1, "no answer");
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn head(length: usize) -> String {
    format!("{HEAD}Content-Length: {length}\r\n\r\n")
}

/// Writes all of a request, and only then looks for the answer.
fn post(stream: &mut (impl Read + Write), body: &[u8]) -> String {
    stream.write_all(head(body.len()).as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    answer(stream)
}

fn list(items: &str) -> String {
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#)
}

/// As a kube-apiserver sends it with full bodies.
fn batch(events: usize, bytes: usize) -> String {
    let event = format!(
        r#"{{"level":"RequestResponse","auditID":"7f0a","stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"list","user":{{"username":"alice"}},"responseObject":{{"data":"{}"}}}}"#,
        "0123456789abcdef0123456789abcdef\\n".repeat(bytes / 34)
    );
    list(&vec![event; events].join(","))
}

/// Sends batches on one connection that stays and on a new one each time, while `condition` holds and 20 times at
/// least. Returns the times that they took, the longest last.
fn serve_others<S: Read + Write>(connect: impl Fn() -> S, condition: impl Fn() -> bool) -> Vec<Duration> {
    let body = batch(10, 1000);
    let mut kept = connect();
    let mut times = Vec::new();
    while times.len() < 40 || condition() {
        for stream in [&mut kept, &mut connect()] {
            let begin = Instant::now();
            let answer = post(stream, body.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            times.push(begin.elapsed());
        }
    }
    times.sort();
    times
}

fn assert_quick(what: &str, times: &[Duration]) {
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: {} batches, median {median:?}, p99 {p99:?}, max {:?}", times.len(), times[times.len() - 1]);
    assert!(p99 < Duration::from_secs(2), "{what}: {p99:?}");
}

/// This process opens more than the usual 1,024 files.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Sets the flag when it is dropped, also by a failing test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_idle_strangers_hold_nobody_up() {
    allow_many_files();
    let receiver = Receiver::start_tls();
    let mut stranger = receiver.connect_tls();
    stranger.conn.complete_io(&mut stranger.sock).unwrap();
    let mut slow = receiver.connect_tls();
    slow.write_all(b"POST / HTTP/1.1\r\nHo").unwrap();
    // From the address of the others, from one address, and from many.
    let idle: Vec<_> = (0..1000).map(|n| connect(receiver.address, [1, 2, (n % 200) as u8 + 3][n % 3])).collect();
    let is_over = AtomicBool::new(false);
    let times = scope(|scope| {
        let _over = Over(&is_over);
        // One that connects a thousand times a second.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(connect(receiver.address, 2));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        serve_others(|| receiver.connect_tls(), || false)
    });
    assert_quick("1,000 idle strangers", &times);
    let mut probe = receiver.connect_tls();
    probe.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(answer(&mut probe).starts_with("HTTP/1.1 200 "));
    assert!(receiver.open_files() < 400, "{}", receiver.open_files());
    drop(idle);
    // The two that began with a handshake and a header were the oldest ones.
    for mut stream in [stranger, slow] {
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte), Ok(1..)), "a stranger is given nothing");
    }
    receiver.end("1,000 idle strangers");
}

#[test]
fn who_is_slow_holds_nobody_up_and_is_closed_after_ten_seconds() {
    let receiver = Receiver::start(&["--format=json"]);
    let over_tls = Receiver::start_tls();
    let begin = Instant::now();
    let (silent, mut header) = (over_tls.connect(), over_tls.connect_tls());
    header.write_all(b"POST / HTTP/1.1\r\nHo").unwrap();
    let mut slow: Vec<_> = (0..50).map(|_| receiver.connect()).collect();
    for stream in &mut slow {
        stream.write_all((head(1000) + "{").as_bytes()).unwrap();
    }
    // These hold memory as well: more than there is.
    let begun = batch(1, 400_000);
    let mut large: Vec<_> = (0..50).map(|_| receiver.connect()).collect();
    for stream in &mut large {
        // One that has given up its memory may be closed.
        drop(stream.write_all((head(begun.len()) + &begun[..begun.len() - 10]).as_bytes()));
    }
    let times = serve_others(|| receiver.connect(), || false);
    assert_quick("50 slow bodies", &times);
    let whole = batch(100, 100_000);
    assert!(post(&mut receiver.connect(), whole.as_bytes()).starts_with("HTTP/1.1 200 "));
    assert!(begin.elapsed() < Duration::from_secs(9), "the slow ones are there still: {:?}", begin.elapsed());
    assert!(receiver.metrics().contains(r#"audit_receiver_refused_total{reason="Busy"}"#), "{}", receiver.metrics());
    assert!(answer(&mut slow[0]).starts_with("HTTP/1.1 408 "));
    assert!((9..20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    let strangers: [Box<dyn Read>; 2] = [Box::new(silent), Box::new(header)];
    for mut stranger in strangers {
        assert!(!matches!(stranger.read(&mut [0]), Ok(1..)), "a stranger is given nothing");
    }
    assert!((9..20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    over_tls.end("slow strangers");
    receiver.end("50 slow bodies");
}

#[test]
fn no_shape_of_a_body_takes_much_memory() {
    // A debug build takes its time for each byte and each event.
    let (events, bytes) = if cfg!(debug_assertions) { (2 * MIB, 10 * MIB) } else { (20 * MIB, 63 * MIB) };
    let open = list("").trim_end_matches("]}").to_string();
    let large = 63 * MIB;
    let bodies: [(&str, String, &str); 8] = [
        ("numbers", list(&("0,".repeat(large / 2) + "0")), "400"),
        ("empty objects", list(&("{},".repeat(events / 3) + "{}")), "200"),
        ("small objects", list(&("{\"a\":[1,2]},".repeat(events / 12) + "{}")), "200"),
        ("one text", list(&format!(r#"{{"a":"{}"}}"#, "x".repeat(large))), "200"),
        ("one depth", list(&format!(r#"{{"a":{}{}}}"#, "[".repeat(bytes / 2), "]".repeat(bytes / 2))), "200"),
        (
            "one depth below the limit",
            list(&format!(r#"{{"a":{}1{}}}"#, "[".repeat(MIB / 2), "}".repeat(MIB / 2))),
            "400",
        ),
        ("blanks", open.clone() + &" \n".repeat(bytes / 2) + "]}", "200"),
        ("one key", format!(r#"{{"{}":1}}"#, "x".repeat(large)), "400"),
    ];
    for format in ["--format=summary", "--format=json"] {
        let receiver = Receiver::start(&[format]);
        for (what, body, status) in &bodies {
            let begin = Instant::now();
            let times = scope(|scope| {
                let mut stream = receiver.connect();
                let posted = scope.spawn(move || post(&mut stream, body.as_bytes()));
                let times = serve_others(|| receiver.connect(), || !posted.is_finished());
                let answer = posted.join().unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
                times
            });
            assert_quick(&format!("{what} {format} {:?}, {} KiB", begin.elapsed(), receiver.peak_kib()), &times);
        }
        receiver.end(format);
    }
}

#[test]
fn large_batches_are_taken_side_by_side() {
    let body = batch(400, 100_000);
    assert!(body.len() > 40_000_000);
    let receiver = Receiver::start(&["--format=json"]);
    let begin = Instant::now();
    scope(|scope| {
        let posts: Vec<_> = (0..6).map(|_| scope.spawn(|| post(&mut receiver.connect(), body.as_bytes()))).collect();
        for posted in posts {
            let answer = posted.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    });
    println!("6 batches of {} bytes: {:?}", body.len(), begin.elapsed());
    let metrics = receiver.metrics();
    let events = r#"audit_receiver_events_total{level="RequestResponse",stage="ResponseComplete"} 2400"#;
    assert!(metrics.contains(events), "{metrics}");
    let mut dropped =
        metrics.lines().filter(|line| line.starts_with("audit_receiver_dropped_events_total{")).peekable();
    assert!(dropped.peek().is_some() && dropped.all(|line| line.ends_with(" 0")), "{metrics}");
    receiver.end("6 large batches");
}

#[test]
fn a_body_that_is_too_large_is_answered_though_the_client_is_still_sending() {
    let receiver = Receiver::start(&["--max-body-bytes=1000000"]);
    let over_tls = Receiver::start(&["--max-body-bytes=1000000", "--tls-cert=tls.crt", "--tls-key=tls.key"]);
    let body = batch(200, 100_000);
    for _ in 0..5 {
        for answer in
            [post(&mut receiver.connect(), body.as_bytes()), post(&mut over_tls.connect_tls(), body.as_bytes())]
        {
            assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 1000000 bytes"), "{answer}");
        }
        // Known only as the bytes come.
        let mut stream = receiver.connect();
        stream.write_all(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 413 "));
        // And to a stranger, that the token is missing.
        let mut stream = receiver.connect();
        let request = head(body.len()).replace("secret", "wrong") + &body;
        stream.write_all(request.as_bytes()).unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 401 "));
    }
    let file = receiver.directory.path().join("body");
    Host::open(receiver.directory.path()).unwrap().replace("/body", body.as_bytes(), 0o600).unwrap();
    for expect in ["Expect: 100-continue", "Expect:"] {
        let curl = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--write-out", "%{http_code}"])
            .args(["-H", "Authorization: Bearer secret", "-H", "Content-Type: application/json", "-H", expect])
            .arg("--data-binary")
            .arg(format!("@{}", file.display()))
            .arg(format!("http://{}/", receiver.address))
            .output();
        match curl {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(said.ends_with("413") && said.contains("larger than"), "{expect}: {output:?}");
            }
            Err(error) => eprintln!("SKIPPED: curl: {error}"),
        }
    }
    over_tls.end("413 over TLS");
    receiver.end("413");
}

#[test]
fn a_token_that_cannot_be_read_is_an_error_at_the_start() {
    for (file, want) in [("/nowhere/token", "cannot read /nowhere/token"), ("/dev/null", "/dev/null is empty")] {
        let output = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
            .args(["receiver", "--listen=127.0.0.1:0", "--token-file", file])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(want), "{said}");
    }
}
