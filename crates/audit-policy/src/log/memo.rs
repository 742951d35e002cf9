//! Remembers the result for a request until the same request comes again.

use super::event::{Damage, Event};
use super::request::Request;

/// Remembers a value for each request. Memory is bounded: a new request may replace another one. Two requests are the
/// same if verb, URI and user have the same text in the log, apart from parameters that do not affect the decision:
/// those of a watch are different each time.
#[derive(Debug)]
pub struct Memo<V> {
    slots: Vec<Option<Slot<V>>>,
    /// The key of the current request.
    key: Vec<u8>,
}

#[derive(Debug)]
struct Slot<V> {
    hash: u64,
    key: Vec<u8>,
    value: V,
}

/// A power of two. 8 MB with keys of half a kilobyte.
const SLOTS: usize = 1 << 14;
/// Longer keys are not remembered, so that long URLs cannot fill the memory.
const MAX_KEY: usize = 4 << 10;

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(SLOTS).collect(), key: Vec::new() }
    }
}

impl<V: Clone> Memo<V> {
    pub fn value(&mut self, event: &Event<'_>, find: impl FnOnce(&Request<'_>) -> V) -> Result<V, Damage> {
        let Self { slots, key } = self;
        if event.verb.len() + event.uri.len() + event.user.len() > MAX_KEY {
            return Request::of(event).map(|request| find(&request));
        }
        key.clear();
        for part in [event.verb, event.user] {
            key.extend_from_slice(part);
            // No JSON text contains it.
            key.push(0);
        }
        push_asked(key, event.uri);
        let hash = hash(key);
        let slot = &mut slots[hash as usize % SLOTS];
        if let Some(slot) = slot
            && slot.hash == hash
            && slot.key == *key
        {
            return Ok(slot.value.clone());
        }
        let value = find(&Request::of(event)?);
        // Reuses the buffer of the replaced key.
        let mut own = slot.take().map(|slot| slot.key).unwrap_or_default();
        own.clear();
        own.reserve_exact(key.len());
        own.extend_from_slice(key);
        *slot = Some(Slot { hash, key: own, value: value.clone() });
        Ok(value)
    }
}

/// Adds a URI to the key without the values that are different each time. A quote, which a URI here cannot contain,
/// replaces them.
///
/// [`attributes`](crate::attributes()) does not use resourceVersion and timeout. Of timeoutSeconds it only uses whether
/// it is a number, so values of another form stay.
fn push_asked(key: &mut Vec<u8>, uri: &[u8]) {
    let Some(query) = memchr::memchr(b'?', uri) else { return key.extend_from_slice(uri) };
    let (mut from, mut at) = (0, query + 1);
    while at < uri.len() {
        let rest = &uri[at..];
        // The text ends with its quote. kube-apiserver writes `&` as `\u0026`.
        let end = memchr::memchr3(b'&', b'\\', b'"', rest).unwrap_or(rest.len());
        let value = |name: &[u8]| rest[..end].strip_prefix(name).filter(|value| (1..=18).contains(&value.len()));
        let passing = value(b"timeout=").filter(|value| value.iter().all(u8::is_ascii_alphanumeric)).or_else(|| {
            value(b"resourceVersion=")
                .or_else(|| value(b"timeoutSeconds="))
                .filter(|value| value.iter().all(u8::is_ascii_digit))
        });
        if let Some(value) = passing {
            key.extend_from_slice(&uri[from..at + end - value.len()]);
            key.push(b'"');
            from = at + end;
        }
        at += end + if rest[end..].starts_with(b"\\u0026") { 6 } else { 1 };
    }
    key.extend_from_slice(&uri[from..]);
}

/// Good enough to spread requests: a collision only costs time.
#[inline]
fn hash(text: &[u8]) -> u64 {
    const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let mix = |a: u64, b: u64| {
        let product = u128::from(a ^ KEYS[0]) * u128::from(b ^ KEYS[1]);
        product as u64 ^ (product >> 64) as u64
    };
    // Two chains, so that the multiplications do not wait for each other.
    let mut states = [text.len() as u64, KEYS[0]];
    let (blocks, rest) = text.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        let words: [u64; 4] = std::array::from_fn(|i| u64::from_le_bytes(words[i]));
        states = [mix(states[0] ^ words[0], words[1]), mix(states[1] ^ words[2], words[3])];
    }
    for chunk in rest.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        states[0] = mix(states[0], u64::from_le_bytes(word));
    }
    mix(states[0], states[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Reader;

    #[test]
    fn values_that_change_each_time_make_no_new_request_and_all_others_do() {
        let mut memo = Memo::default();
        let mut found = 0;
        let mut is_new = |uri: &str, rest: &str| {
            let line = format!(r#"{{"level":"Metadata","stage":"Panic","requestURI":"{uri}","verb":"watch"{rest}}}"#);
            let before = found;
            Reader::default().read(line.as_bytes(), |event, _| {
                memo.value(&event.unwrap(), |_| found += 1).unwrap();
            });
            found > before
        };
        let watch = |version: &str, timeout: &str, seconds: &str| {
            format!(
                "/api/v1/pods?resourceVersion={version}\\u0026timeout={timeout}\\u0026timeoutSeconds={seconds}&watch=1"
            )
        };
        assert!(is_new(&watch("1", "5m10s", "310"), ""));
        assert!(!is_new(&watch("23456", "9m1s", "541"), ""));
        assert!(is_new(&watch("1", "5m10s", "x"), ""), "no number");
        assert!(is_new(&watch("1", "5m10s", ""), ""), "no number");
        assert!(is_new(&watch("1", "5m10s", "9999999999999999999"), ""), "too large a number");
        assert!(is_new(&watch("%31", "5m10s", "310"), ""), "an escape");
        assert!(is_new(&watch("1", "5m10s", "310").replace("watch", "watch2"), ""));
        assert!(is_new(&watch("1", "5m10s", "310"), r#","user":{"username":"a"}"#));
        assert!(!is_new(&watch("2", "1m", "60"), r#","user":{"username":"a"}"#));
        assert!(is_new("/api/v1/pods/resourceVersion=1", ""));
        assert!(is_new("/api/v1/pods/resourceVersion=2", ""), "no query");
    }
}
