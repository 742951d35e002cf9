//! What was found out about a request, for the next time that the same one is made.

use super::event::{Damage, Event};
use super::request::Request;

/// Remembers a value for each request, as many as there is room for: memory is bounded, and a new request may take the place of
/// another one. Requests are the same if their verb, URI and user stand in the log in the same way.
#[derive(Debug)]
pub struct Memo<V> {
    slots: Vec<Option<Slot<V>>>,
}

#[derive(Debug)]
struct Slot<V> {
    hash: u64,
    /// Verb, URI and user, one after the other, and how long the first two are.
    key: Vec<u8>,
    lengths: [usize; 2],
    value: V,
}

/// A power of two. With keys of half a kilobyte these are 8 MB.
const SLOTS: usize = 1 << 14;
/// Longer ones are found out each time, so that whoever sends long URLs does not fill the memory.
const MAX_KEY: usize = 4 << 10;

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(SLOTS).collect() }
    }
}

impl<V: Clone> Memo<V> {
    pub fn value(&mut self, event: &Event<'_>, find: impl FnOnce(&Request<'_>) -> V) -> Result<V, Damage> {
        let parts = [event.verb, event.uri, event.user];
        let hash = parts.into_iter().fold(0, hash);
        let slot = &mut self.slots[hash as usize % SLOTS];
        if let Some(slot) = slot
            && slot.hash == hash
            && slot.is(parts)
        {
            return Ok(slot.value.clone());
        }
        let value = find(&Request::of(event)?);
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length <= MAX_KEY {
            // The room of the one before is used again.
            let mut key = slot.take().map(|slot| slot.key).unwrap_or_default();
            key.clear();
            key.reserve_exact(length);
            parts.into_iter().for_each(|part| key.extend_from_slice(part));
            *slot = Some(Slot { hash, key, lengths: [event.verb.len(), event.uri.len()], value: value.clone() });
        }
        Ok(value)
    }
}

impl<V> Slot<V> {
    fn is(&self, parts: [&[u8]; 3]) -> bool {
        let [verb, uri, user] = parts;
        let (have_verb, rest) = self.key.split_at(self.lengths[0]);
        let (have_uri, have_user) = rest.split_at(self.lengths[1]);
        (have_verb, have_uri, have_user) == (verb, uri, user)
    }
}

/// Good enough to spread requests: a collision costs time and nothing else.
#[inline]
fn hash(state: u64, text: &[u8]) -> u64 {
    const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let mix = |a: u64, b: u64| {
        let product = u128::from(a ^ KEYS[0]) * u128::from(b ^ KEYS[1]);
        product as u64 ^ (product >> 64) as u64
    };
    // Two chains, so that the multiplications need not wait for each other.
    let mut states = [state ^ text.len() as u64, KEYS[0]];
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
