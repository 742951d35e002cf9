//! Resolves a YAML scalar as kube-apiserver and kubectl do.
//!
//! Their parser, go.yaml.in/yaml/v2, follows YAML 1.1: `on`, `y` and `1_000` are not strings (resolve.go#L21-L196).
//! kube-apiserver does not start with such a scalar where it expects a string.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

/// A scalar and its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Too large for an `Int`.
    Uint(u64),
    Float(f64),
    Text(String),
}

/// Prefix of YAML's own tags: `!!str` is short for the prefix and `str`.
const YAML_TAG: &str = "tag:yaml.org,2002:";

/// Resolves a scalar with a tag; an empty tag means none. The error states why the scalar does not fit its tag.
pub fn resolve(tag: &[u8], text: &str) -> Result<Scalar, String> {
    let tag = String::from_utf8_lossy(tag);
    let wanted = match tag.strip_prefix(YAML_TAG) {
        _ if tag.is_empty() => "",
        Some("str") => return Ok(Scalar::Text(text.to_string())),
        Some("binary") => return binary(text),
        Some(known @ ("bool" | "int" | "float" | "null" | "timestamp")) => known,
        // Other tags have no effect.
        _ => return Ok(Scalar::Text(text.to_string())),
    };
    let is_timestamp = wanted == "timestamp" && is_timestamp(text);
    let found = plain(text);
    let kind = match &found {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) | Scalar::Uint(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::Text(_) if is_timestamp => "timestamp",
        Scalar::Text(_) => "str",
    };
    match (found, wanted) {
        (Scalar::Int(value), "float") => Ok(Scalar::Float(value as f64)),
        (found, wanted) if wanted.is_empty() || wanted == kind => Ok(found),
        (_, wanted) => Err(format!("cannot decode !!{kind} `{text}` as a !!{wanted}")),
    }
}

/// A plain scalar without a tag. A timestamp is a string.
fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' if underscores_separate_digits(text) => decimal(&text.replace('_', "")).map(Scalar::Float),
        // Only these first characters make the parser try the rest, so `_1` is a string.
        b'0'..=b'9' | b'+' | b'-' => {
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| decimal(&digits).map(Scalar::Float)).or_else(|| signed_binary(&digits))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_string()))
}

/// Go's `strconv.ParseInt(text, 0, 64)`, else `ParseUint`.
fn integer(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', _, ..] => (&lower[2..], 16),
        [b'0', b'o', _, ..] => (&lower[2..], 8),
        [b'0', b'b', _, ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    // `from_str_radix` accepts a sign; Go does not at this place.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = u64::from_str_radix(digits, radix).ok()?;
    let signed = if text.starts_with('-') { 0_i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() };
    match signed {
        Some(value) => Some(Scalar::Int(value)),
        None if unsigned.len() == text.len() => Some(Scalar::Uint(value)),
        None => None,
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`, if it fits a float64.
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let is_mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && all_digits(fraction),
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let is_number = is_mantissa && exponent.is_none_or(|e| !e.is_empty() && all_digits(e));
    text.parse::<f64>().ok().filter(|value| is_number && value.is_finite())
}

/// Go's rule for a number that begins with a point. Other numbers may have underscores anywhere.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    bytes.iter().enumerate().all(|(at, b)| *b != b'_' || (is_digit(at.wrapping_sub(1)) && is_digit(at + 1)))
}

/// `0b-1`, which upstream's second attempt at binary numbers accepts (resolve.go#L170-L183).
fn signed_binary(text: &str) -> Option<Scalar> {
    let digits = text.strip_prefix("0b").filter(|digits| digits.starts_with(['+', '-']))?;
    i64::from_str_radix(digits, 2).ok().map(Scalar::Int)
}

/// Go's `base64.StdEncoding`; a string that is not UTF-8 gets a replacement character for each odd byte.
fn binary(text: &str) -> Result<Scalar, String> {
    const LENIENT: GeneralPurpose =
        GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = LENIENT.decode(compact).map_err(|_| "!!binary value contains invalid base64 data".to_string())?;
    Ok(Scalar::Text(text_of(&bytes)))
}

/// Bytes as text. As in Go, each byte that is not part of a character becomes a replacement character.
pub fn text_of(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                return out;
            }
            Err(error) => {
                let (valid, odd) = rest.split_at(error.valid_up_to());
                out.push_str(std::str::from_utf8(valid).expect("valid up to here"));
                out.push(char::REPLACEMENT_CHARACTER);
                rest = &odd[1..];
            }
        }
    }
}

/// Whether Go's `time.Parse` accepts the text in one of the four layouts of resolve.go#L219-L226.
fn is_timestamp(text: &str) -> bool {
    let mut time = Time::new(text);
    let Some(()) = time.date(false) else { return false };
    if time.rest.is_empty() {
        return true;
    }
    if time.literal("T").or_else(|| time.literal("t")).is_some() {
        return time.clock(false).is_some() && time.zone().is_some() && time.rest.is_empty();
    }
    time.literal(" ").is_some() && time.clock(false).is_some() && time.rest.is_empty()
}

/// Whether Go's `time.Parse` accepts the text as RFC 3339: the hour may have one digit, and a comma may precede the
/// fraction.
pub fn is_rfc3339(text: &str) -> bool {
    let mut time = Time::new(text);
    let mut parse = || {
        time.date(true)?;
        time.literal("T")?;
        time.clock(true)?;
        time.zone()
    };
    parse().is_some() && time.rest.is_empty()
}

/// A time, read from its beginning. `None`: the text is not a time.
struct Time<'a> {
    rest: &'a [u8],
}

impl<'a> Time<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.as_bytes() }
    }

    fn literal(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text.as_bytes())?;
        Some(())
    }

    /// One or two digits, or exactly two.
    fn number(&mut self, is_two: bool) -> Option<u32> {
        let digit = |at: usize| self.rest.get(at).filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0'));
        let first = digit(0)?;
        let (value, width) = match digit(1) {
            Some(second) => (first * 10 + second, 2),
            None if is_two => return None,
            None => (first, 1),
        };
        self.rest = &self.rest[width..];
        Some(value)
    }

    fn date(&mut self, is_two: bool) -> Option<()> {
        let year = self.number(true)? * 100 + self.number(true)?;
        self.literal("-")?;
        let month = self.number(is_two)?;
        self.literal("-")?;
        let day = self.number(is_two)?;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if is_leap => 29,
            2 => 28,
            _ => return None,
        };
        (1..=days).contains(&day).then_some(())
    }

    fn clock(&mut self, is_two: bool) -> Option<()> {
        let hour = self.number(false)?;
        self.literal(":")?;
        let minute = self.number(is_two)?;
        self.literal(":")?;
        let second = self.number(is_two)?;
        if let [b'.' | b',', b'0'..=b'9', ..] = self.rest {
            let digits = self.rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
            self.rest = &self.rest[1 + digits..];
        }
        (hour < 24 && minute < 60 && second < 60).then_some(())
    }

    fn zone(&mut self) -> Option<()> {
        if self.literal("Z").is_some() {
            return Some(());
        }
        self.literal("+").or_else(|| self.literal("-"))?;
        let hour = self.number(true)?;
        self.literal(":")?;
        let minute = self.number(true)?;
        (hour <= 24 && minute <= 60).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As measured on kube-apiserver 1.36.3.
    #[test]
    fn numbers_booleans_and_nulls_are_those_of_the_api_server() {
        for (text, want) in [
            ("0o17", Scalar::Int(15)),
            ("0b11", Scalar::Int(3)),
            ("0b-1", Scalar::Int(-1)),
            ("1_000", Scalar::Int(1000)),
            ("0x1f", Scalar::Int(31)),
            ("007", Scalar::Int(7)),
            ("0", Scalar::Int(0)),
            ("-3", Scalar::Int(-3)),
            ("+1", Scalar::Int(1)),
            ("-9223372036854775808", Scalar::Int(i64::MIN)),
            ("18446744073709551615", Scalar::Uint(u64::MAX)),
            ("08", Scalar::Float(8.0)),
            ("1.", Scalar::Float(1.0)),
            (".5", Scalar::Float(0.5)),
            (".5_0", Scalar::Float(0.5)),
            ("1__0_", Scalar::Int(10)),
            ("1e3", Scalar::Float(1000.0)),
            ("-.inf", Scalar::Float(f64::NEG_INFINITY)),
            ("on", Scalar::Bool(true)),
            ("TRUE", Scalar::Bool(true)),
            ("N", Scalar::Bool(false)),
            ("", Scalar::Null),
            ("~", Scalar::Null),
        ] {
            assert_eq!(resolve(b"", text), Ok(want), "{text}");
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
            "<<",
            "._5",
            ".5_",
            ".5__0",
        ] {
            assert_eq!(resolve(b"", text), Ok(Scalar::Text(text.into())), "{text}");
        }
    }

    #[test]
    fn a_tag_decides_or_does_not_fit() {
        let yaml = |kind: &str, text: &str| resolve(format!("{YAML_TAG}{kind}").as_bytes(), text);
        assert_eq!(yaml("str", "on"), Ok(Scalar::Text("on".into())));
        assert_eq!(yaml("float", "1"), Ok(Scalar::Float(1.0)));
        assert_eq!(yaml("binary", "Z2V0\n"), Ok(Scalar::Text("get".into())));
        assert_eq!(yaml("binary", "/w=="), Ok(Scalar::Text("\u{fffd}".into())));
        assert_eq!(resolve(b"!other", "1"), Ok(Scalar::Text("1".into())));
        assert_eq!(yaml("timestamp", "2001-1-2 3:4:5"), Ok(Scalar::Text("2001-1-2 3:4:5".into())));
        assert_eq!(yaml("int", "a"), Err("cannot decode !!str `a` as a !!int".into()));
        assert_eq!(yaml("null", "1"), Err("cannot decode !!int `1` as a !!null".into()));
        assert_eq!(yaml("timestamp", "2001-02-29"), Err("cannot decode !!str `2001-02-29` as a !!timestamp".into()));
        assert_eq!(yaml("binary", "a"), Err("!!binary value contains invalid base64 data".into()));
    }

    #[test]
    fn a_time_is_read_as_go_reads_it() {
        for text in ["2024-05-01T10:00:00Z", "2024-05-01T1:00:00,5+24:60", "2024-02-29T23:59:59.123456789012-00:00"] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "2024-05-01",
            "2023-02-29T00:00:00Z",
            "2024-05-01t10:00:00Z",
            "2024-05-01T24:00:00Z",
            "2024-5-01T10:00:00Z",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }
}
