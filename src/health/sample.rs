//! The counters of kube-apiserver's audit backends, from the text of its `/metrics`.

use std::collections::BTreeMap;

/// The counters of an API server at one moment. All start at zero with its process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When the process started, in seconds of the Unix epoch: it identifies the process.
    pub started: f64,
    /// Audit events that were handed to the backends (kubernetes@v1.36.3
    /// staging/src/k8s.io/apiserver/pkg/audit/metrics.go, like the next one).
    pub events: f64,
    /// Events that a plugin dropped, by plugin: `log`, `webhook`, `buffered`, `truncate`.
    pub dropped: BTreeMap<String, f64>,
    /// POSTs of the process, by `host:port` as its URL has it.
    pub posts: BTreeMap<String, Posts>,
}

/// POSTs to one host (kubernetes@v1.36.3 staging/src/k8s.io/component-base/metrics/prometheus/restclient/metrics.go).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Posts {
    /// Requests, by the code of the answer; `<error>` without an answer.
    pub codes: BTreeMap<String, f64>,
    /// Attempts to send a batch. One that is answered with `Retry-After` has several requests.
    pub attempts: f64,
    /// Seconds that all attempts took.
    pub seconds: f64,
    /// Bytes of all bodies.
    pub bytes: f64,
    /// The number of bodies in `bytes`.
    pub bodies: f64,
}

impl Posts {
    /// Requests that were answered with 2xx.
    pub fn accepted(&self) -> f64 {
        self.codes.iter().filter(|(code, _)| code.starts_with('2')).map(|(_, count)| count).sum()
    }
}

impl Sample {
    /// Bytes of an average POST to a host. `None`: there was none.
    pub fn average_body(&self, host: &str) -> Option<f64> {
        self.posts.get(host).filter(|posts| posts.bodies > 0.0).map(|posts| posts.bytes / posts.bodies)
    }

    /// Reads one line of the text.
    pub fn read_line(&mut self, line: &str) {
        let Some((name, labels, value)) = parse(line) else { return };
        match name {
            "process_start_time_seconds" => self.started = value,
            "apiserver_audit_event_total" => self.events += value,
            "apiserver_audit_error_total" => {
                *self.dropped.entry(label(labels, "plugin").unwrap_or_default()).or_default() += value;
            }
            "rest_client_requests_total" if label(labels, "method").as_deref() == Some("POST") => {
                let Some(posts) = self.posts(labels) else { return };
                *posts.codes.entry(label(labels, "code").unwrap_or_default()).or_default() += value;
            }
            "rest_client_request_duration_seconds_sum" => self.add(labels, value, |posts| &mut posts.seconds),
            "rest_client_request_duration_seconds_count" => self.add(labels, value, |posts| &mut posts.attempts),
            "rest_client_request_size_bytes_sum" => self.add(labels, value, |posts| &mut posts.bytes),
            "rest_client_request_size_bytes_count" => self.add(labels, value, |posts| &mut posts.bodies),
            _ => {}
        }
    }

    /// Adds to a figure of the POSTs to a host.
    fn add(&mut self, labels: &str, value: f64, figure: fn(&mut Posts) -> &mut f64) {
        if label(labels, "verb").as_deref() == Some("POST")
            && let Some(posts) = self.posts(labels)
        {
            *figure(posts) += value;
        }
    }

    fn posts(&mut self, labels: &str) -> Option<&mut Posts> {
        Some(self.posts.entry(label(labels, "host")?).or_default())
    }
}

fn parse(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.trim_end().rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    Some((name, labels, value.parse().ok()?))
}

/// Value of a label; `\\`, `\"` and `\n` are escapes.
fn label(labels: &str, wanted: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        if name.trim_start_matches([',', ' ']) == wanted {
            return Some(value);
        }
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_sinks_are_found_among_the_others() {
        let text = r#"# HELP rest_client_requests_total [ALPHA] Number of HTTP requests.
rest_client_requests_total{code="200",host="10.96.0.7:443",method="POST"} 12
rest_client_requests_total{code="<error>",host="10.96.0.7:443",method="POST"} 3
rest_client_requests_total{code="200",host="[::1]:6443",method="GET"} 900
rest_client_requests_total{code="503",host="a\"b,host=\"c",method="POST"} 1
rest_client_request_duration_seconds_bucket{host="10.96.0.7:443",verb="POST",le="0.005"} 12
rest_client_request_duration_seconds_sum{host="10.96.0.7:443",verb="POST"} 90.5
rest_client_request_duration_seconds_count{host="10.96.0.7:443",verb="POST"} 14
rest_client_request_size_bytes_sum{host="10.96.0.7:443",verb="POST"} 120000
rest_client_request_size_bytes_count{host="10.96.0.7:443",verb="POST"} 15
apiserver_audit_error_total{plugin="webhook"} 400
apiserver_audit_error_total{plugin="log"} 2
apiserver_audit_event_total 1.5e+06
process_start_time_seconds 1.79522e+09
"#;
        let mut sample = Sample::default();
        text.lines().for_each(|line| sample.read_line(line));
        let codes = |codes: &[(&str, f64)]| codes.iter().map(|(code, count)| (code.to_string(), *count)).collect();
        let want = Sample {
            started: 1.79522e9,
            events: 1.5e6,
            dropped: codes(&[("log", 2.0), ("webhook", 400.0)]),
            posts: [
                (
                    "10.96.0.7:443".to_string(),
                    Posts {
                        codes: codes(&[("200", 12.0), ("<error>", 3.0)]),
                        attempts: 14.0,
                        seconds: 90.5,
                        bytes: 120_000.0,
                        bodies: 15.0,
                    },
                ),
                ("a\"b,host=\"c".to_string(), Posts { codes: codes(&[("503", 1.0)]), ..Posts::default() }),
            ]
            .into(),
        };
        assert_eq!(sample, want);
        assert_eq!(sample.posts["10.96.0.7:443"].accepted(), 12.0);
    }
}
