//! Values whose bytes show their key and version, so that a wrong or torn value is recognised, and a random number generator. For
//! `threads.rs` and `processes/`; `replay.rs` uses the generator only.

/// A small random number generator (xorshift). Each thread or process has its own, so that they share no state.
pub struct Random(u64);

impl Random {
    /// Seeds the generator. An even seed counts as the next odd one, because the state must not be 0.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Returns a number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Returns a value of `size` + 16 bytes: its key, its version, and `size` bytes computed from both. If two values are mixed,
/// [`verify`] finds every byte that differs from the value of the version at the front. Values of different versions may have equal
/// bytes.
pub fn content(key: u64, version: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 16);
    bytes.extend_from_slice(&key.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend((0..size).map(|at| (version.rotate_left(at as u32 % 64) ^ key) as u8));
    bytes
}

/// Panics unless the bytes are a complete value of this key, of any version.
pub fn verify(key: u64, bytes: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(number(0), key, "another key's value");
    assert_eq!(bytes, content(key, number(8), bytes.len() - 16), "a torn value");
}

/// Returns the size of the value of a version. Most values are small, some may need several runs of blocks, and a few
/// may have runs in several shards.
pub fn size_of(version: u64) -> usize {
    match version % 50 {
        0 => 9_000,
        1..=4 => 1_500,
        other => other as usize * 5,
    }
}
