//! What kube-apiserver takes a plain YAML scalar for.
//!
//! Its parser is go.yaml.in/yaml/v2, so YAML 1.1: `on`, `y` and `1_000` are no strings. Where it wants a string, such a scalar
//! stops it.

/// What a plain (unquoted) scalar is; `None` for a string.
pub(super) fn not_a_string(text: &str) -> Option<&'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some("null"),
        "y" | "Y" | "yes" | "Yes" | "YES" | "n" | "N" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false"
        | "False" | "FALSE" | "on" | "On" | "ON" | "off" | "Off" | "OFF" => return Some("a boolean"),
        "<<" => return Some("a merge key"),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Some("a number"),
        _ => {}
    }
    // Only these first characters make the parser try numbers, so `_1` is a string.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    (is_integer(&digits) || is_float(&digits)).then_some("a number")
}

/// Go's `strconv.ParseInt(text, 0, 64)` and `ParseUint`.
fn is_integer(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    // `from_str_radix` takes a sign of its own, Go does not at this place.
    digits.starts_with(|c: char| c.is_ascii_alphanumeric()) && u64::from_str_radix(digits, radix).is_ok()
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, as long as it fits a float64.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    mantissa_ok
        && exponent.is_none_or(|e| !e.is_empty() && all_digits(e))
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As measured on kube-apiserver 1.36.3.
    #[test]
    fn numbers_booleans_and_nulls_are_those_of_the_api_server() {
        for text in
            ["0o17", "0b11", "1_000", "08", "1.", ".5", "+1", "1e3", "0x1f", "007", "-3", "18446744073709551615"]
        {
            assert_eq!(not_a_string(text), Some("a number"), "{text}");
        }
        for text in ["on", "No", "y", "N", "TRUE"] {
            assert_eq!(not_a_string(text), Some("a boolean"), "{text}");
        }
        for text in ["", "~", "null"] {
            assert_eq!(not_a_string(text), Some("null"), "{text}");
        }
        for text in [
            "0o8",
            "0x",
            "1e",
            "1e400",
            "_1",
            "12:30",
            "2001-01-01",
            "inf",
            "oN",
            "nULL",
            "-",
            ".",
            "system:nodes",
            "v1",
        ] {
            assert_eq!(not_a_string(text), None, "{text}");
        }
    }
}
