//! Values that say whose they are, and where the numbers come from that choose among them.

/// A small generator of our own: those who work at once must not share one.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Whose value it is, which one, and bytes that follow from both: a mixture of two is recognised at every byte.
pub fn content(key: u64, version: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 16);
    bytes.extend_from_slice(&key.to_le_bytes());
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend((0..size).map(|at| (version.rotate_left(at as u32 % 64) ^ key) as u8));
    bytes
}

/// Fails unless these are the bytes of a value of this key.
pub fn verify(key: u64, bytes: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(number(0), key, "another key's value");
    assert_eq!(bytes, content(key, number(8), bytes.len() - 16), "a torn value");
}

/// Mostly small, some of several runs, a few that are spread over shards.
pub fn size_of(version: u64) -> usize {
    match version % 50 {
        0 => 9_000,
        1..=4 => 1_500,
        other => other as usize * 5,
    }
}
