//! kube-apiserver's own last error about a sink, from the log of its container. Pure.

/// What a log says of a batch that was dropped (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/audit/metrics.go, HandlePluginError).
const LINE: &str = "Error in audit plugin '";
const AFTER: &str = " audit events: ";
/// A longer error is cut.
const MOST: usize = 300;

/// The newest error of a plugin in the text of a log, without the URL, which may be a secret.
pub fn last(text: &str, plugin: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| {
        line.split_once(LINE)
            .is_some_and(|(_, rest)| rest.strip_prefix(plugin).is_some_and(|rest| rest.starts_with('\'')))
    })?;
    let (_, error) = line.split_once(LINE)?.1.split_once(AFTER)?;
    // A part of it can be the receiver's own text.
    let plain: String = error.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut error = without_urls(&plain);
    if let Some((at, _)) = error.char_indices().nth(MOST) {
        error.truncate(at);
        error.push('…');
    }
    Some(error)
}

/// Replaces all of a URL behind its host. `Post "URL": ` at the beginning says nothing and goes.
fn without_urls(error: &str) -> String {
    let rest = match error.strip_prefix("Post \"").and_then(|rest| rest.split_once("\": ")) {
        Some((_, rest)) => rest,
        None => error,
    };
    let mut out = String::new();
    let mut rest = rest;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>')).unwrap_or(after.len());
        let authority = after[..end].split(['/', '?', '#']).next().unwrap_or_default();
        out.push_str(authority.rsplit('@').next().unwrap_or_default());
        if authority.len() < end {
            out.push_str("/…");
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_error_of_the_plugin_is_found_and_shows_no_path() {
        let text = "\
2026-11-30T12:00:00Z stderr F E1130 12:00:00 1 metrics.go:109] \"Unhandled Error\" err=<
2026-11-30T12:00:00Z stderr F \tError in audit plugin 'webhook' affecting 2 audit events: old
2026-11-30T12:00:01Z stderr F \tError in audit plugin 'log' affecting 1 audit events: write /a: no space left on device
2026-11-30T12:00:02Z stderr F \tError in audit plugin 'webhook' affecting 400 audit events: Post \"https://sink/tok?timeout=30s\": dial tcp 10.0.0.1:443: connect: connection refused
2026-11-30T12:00:02Z stderr F \tImpacted events:
";
        assert_eq!(last(text, "webhook").unwrap(), "dial tcp 10.0.0.1:443: connect: connection refused");
        assert_eq!(last(text, "log").unwrap(), "write /a: no space left on device");
        assert_eq!(last(text, "buffered"), None);
        let other = "Error in audit plugin 'webhook' affecting 1 audit events: failed to reach https://u:p@sink:1/secret, twice";
        assert_eq!(last(other, "webhook").unwrap(), "failed to reach https://sink:1/… twice");
    }
}
