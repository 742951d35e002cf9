//! The Go program of `tests/webhook`: kube-apiserver's own audit webhook backend.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::root;

pub struct Backend {
    child: Child,
    /// With the kubeconfig and the log.
    directory: TempDir,
    stdout: mpsc::Receiver<String>,
    /// Host and port of the metrics.
    metrics: String,
}

impl Backend {
    /// Builds the program unless it is there, and starts it with these flags and with nothing but this environment: a
    /// proxy of the host must not come in between.
    pub fn start(kubeconfig: &Value, flags: &[&str], environment: &[(&str, String)]) -> Self {
        let build = root().join("tests/webhook/build");
        let built = Command::new(build).stderr(Stdio::inherit()).output().expect("tests/webhook/build cannot be run");
        assert!(built.status.success(), "tests/webhook/build failed: it needs Go");
        let path = String::from_utf8(built.stdout).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut file = File::create(directory.path().join("kubeconfig")).unwrap();
        file.write_all(kubeconfig.to_string().as_bytes()).unwrap();
        let mut child = Command::new(path.trim_end())
            .arg("--audit-webhook-config-file")
            .arg(directory.path().join("kubeconfig"))
            .args(flags)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log")).unwrap())
            .spawn()
            .expect("the webhook backend does not start");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, stdout) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut backend = Self { child, directory, stdout, metrics: String::new() };
        let url = backend.line(Duration::from_secs(60));
        backend.metrics = url.trim_start_matches("http://").trim_end_matches("/metrics").to_string();
        backend
    }

    fn line(&self, limit: Duration) -> String {
        self.stdout.recv_timeout(limit).unwrap_or_else(|error| panic!("the webhook backend: {error}\n{}", self.log()))
    }

    /// Waits until the last of its `--events` has been delivered or given up.
    pub fn drained(&self, limit: Duration) {
        assert_eq!(self.line(limit), "drained");
    }

    pub fn metrics(&self) -> Metrics {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        Metrics(body.to_string())
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// An answer of `/metrics`.
pub struct Metrics(String);

impl Metrics {
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The series of one name: labels and value.
    pub fn series(&self, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let of_name = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let labels = labels.split_terminator("\",").map(|label| {
                let (name, value) = label.split_once("=\"").unwrap();
                (name.to_string(), value.trim_end_matches('"').to_string())
            });
            Some((labels.collect(), value.parse().unwrap()))
        };
        self.0.lines().filter_map(of_name).collect()
    }

    /// The sum over all series of one name.
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).iter().map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_their_whole_name() {
        let text =
            "# TYPE a counter\na{code=\"<error>\",host=\"[::1]:80\"} 2\na_sum 3\na{code=\"200\",host=\"x\"} 1e+03\n";
        let metrics = Metrics(text.to_string());
        let labels = |code: &str, host: &str| {
            BTreeMap::from([("code".to_string(), code.to_string()), ("host".to_string(), host.to_string())])
        };
        assert_eq!(metrics.series("a"), [(labels("<error>", "[::1]:80"), 2.0), (labels("200", "x"), 1000.0)]);
        assert_eq!(metrics.series("a_sum"), [(BTreeMap::new(), 3.0)]);
        assert_eq!(metrics.sum("a"), 1002.0);
    }
}
