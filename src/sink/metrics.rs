//! The counters of kube-apiserver's audit backends, from the text of its `/metrics`.

use std::collections::BTreeMap;

/// The counters of an API server at one moment. All start at zero with its process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    pub process_start_time_seconds: f64,
    /// POSTs that a host answered with 2xx, by `host:port`.
    pub delivered: BTreeMap<String, f64>,
    /// POSTs that failed, by `host:port`.
    pub failed: BTreeMap<String, f64>,
    /// Events that a backend dropped, by plugin (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/metrics.go).
    pub errors: BTreeMap<String, f64>,
}

impl Sample {
    /// Reads one line of the text.
    pub fn read_line(&mut self, line: &str) {
        let Some((name, labels, value)) = parse(line) else { return };
        match name {
            "process_start_time_seconds" => self.process_start_time_seconds = value,
            "apiserver_audit_error_total" => {
                *self.errors.entry(label(labels, "plugin").unwrap_or_default()).or_default() += value;
            }
            "rest_client_requests_total" if label(labels, "method").as_deref() == Some("POST") => {
                let Some(host) = label(labels, "host") else { return };
                let is_delivered = label(labels, "code").is_some_and(|code| code.starts_with('2'));
                let counters = if is_delivered { &mut self.delivered } else { &mut self.failed };
                *counters.entry(host).or_default() += value;
            }
            _ => {}
        }
    }

    /// All dropped events.
    pub fn lost(&self) -> f64 {
        self.errors.values().sum()
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
apiserver_audit_error_total{plugin="webhook"} 400
apiserver_audit_error_total{plugin="log"} 2
process_start_time_seconds 1.79522e+09
"#;
        let mut sample = Sample::default();
        text.lines().for_each(|line| sample.read_line(line));
        assert_eq!(sample.delivered, [("10.96.0.7:443".to_string(), 12.0)].into());
        assert_eq!(sample.failed, [("10.96.0.7:443".to_string(), 3.0), ("a\"b,host=\"c".to_string(), 1.0)].into());
        assert_eq!(sample.lost(), 402.0);
        assert_eq!(sample.process_start_time_seconds, 1.79522e9);
    }
}
