//! kube-apiserver's own last error about a sink, from the log of its container. Pure.
//!
//! Nothing that a receiver wrote is shown. Otherwise, anyone who can name a receiver could read the answers of servers
//! that only the node can reach. If a receiver answered with a code, kube-apiserver's line can be its text. So only
//! lines about requests without an answer count, and their quotations are left out.

/// The line about a batch that was dropped (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/audit/metrics.go, HandlePluginError).
const LINE: &str = "Error in audit plugin '";
const AFTER: &str = " audit events: ";
/// A request without an answer, then its URL (golang@go1.26.8 src/net/url/url.go, Error).
const UNANSWERED: &str = "Post \"";
/// A longer error is cut.
const MOST: usize = 300;

/// The newest error of writing the log.
pub fn of_log(text: &str) -> Option<String> {
    Some(short(newest(text, "log")?))
}

/// The newest error of a request to a webhook that got no answer, without its URL, which may be a secret.
pub fn of_webhook(text: &str) -> Option<String> {
    let (_, error) = newest(text, "webhook")?.strip_prefix(UNANSWERED)?.split_once("\": ")?;
    let parts = error.split('"').enumerate();
    Some(short(&parts.map(|(index, part)| if index % 2 == 0 { part } else { "\"…\"" }).collect::<String>()))
}

/// The newest error of a plugin.
fn newest<'a>(text: &'a str, plugin: &str) -> Option<&'a str> {
    let of_plugin = |line: &'a str| line.split_once(LINE)?.1.strip_prefix(plugin)?.strip_prefix('\'');
    text.lines().rev().find_map(of_plugin)?.split_once(AFTER).map(|(_, error)| error.trim_end())
}

fn short(error: &str) -> String {
    let mut short: String = error.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if error.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_error_of_the_plugin_is_found_and_shows_no_url() {
        let text = "\
2026-11-30T12:00:00Z stderr F E1130 12:00:00 1 metrics.go:109] \"Unhandled Error\" err=<
2026-11-30T12:00:00Z stderr F \tError in audit plugin 'webhook' affecting 2 audit events: old
2026-11-30T12:00:01Z stderr F \tError in audit plugin 'log' affecting 1 audit events: write /a: no space left on device
2026-11-30T12:00:02Z stderr F \tError in audit plugin 'webhook' affecting 400 audit events: Post \"https://sink/tok?timeout=30s\": dial tcp 10.0.0.1:443: connect: connection refused
2026-11-30T12:00:02Z stderr F \tImpacted events:
";
        assert_eq!(of_webhook(text).unwrap(), "dial tcp 10.0.0.1:443: connect: connection refused");
        assert_eq!(of_log(text).unwrap(), "write /a: no space left on device");
        assert_eq!(of_webhook("nothing"), None);
    }

    #[test]
    fn nothing_that_a_receiver_wrote_is_shown() {
        let shown =
            |error: &str| of_webhook(&format!("Error in audit plugin 'webhook' affecting 1 audit events: {error}"));
        for answered in [
            "text of the receiver",
            "an error on the server (\"text of the receiver\") has prevented the request from succeeding",
            "failed to reach https://u:p@sink:1/secret, twice",
        ] {
            assert_eq!(shown(answered), None);
        }
        let url = "Post \"http://sink/SECRET\": ";
        assert_eq!(
            shown(&format!("{url}malformed HTTP response \"SSH-2.0-a\", b")).unwrap(),
            "malformed HTTP response \"…\", b"
        );
        assert_eq!(shown(&format!("{url}a\tb{}", "c".repeat(400))).unwrap(), format!("a b{}…", "c".repeat(297)));
    }
}
