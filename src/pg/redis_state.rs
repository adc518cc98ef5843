//! The state of the worker that copies values to Redis (`workers/redis/`), in shared memory. The view `cache_workers` and the
//! health check (`store/health.rs`) show it.
//!
//! Only the worker writes. Each number is one word, so a reader may see some numbers from before and others from after a step. A
//! reader may also see parts of two error texts. That does no harm, because no code decides by the text.
//!
//! A *tick* is 50 ms on the clock of `clock.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

/// The words of the error text.
const TEXT_WORDS: usize = 32;

/// The state of the Redis worker.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct RedisState {
    /// 1 while Redis answers: from the first successful job on a connection on.
    pub is_connected: AtomicU64,
    /// The tick of the last change of `is_connected`, or of the start of the worker.
    pub since: AtomicU64,
    /// The number of the journal (the ring of records of changes) up to which Redis has confirmed all changes.
    acked: AtomicU64,
    /// 1 while the worker compares all keys of Redis with the cache or copies all values again (a *refill*), because it does not
    /// know the keys that have changed.
    is_comparing: AtomicU64,
    /// How often the worker has begun a resync since it started: a comparison of all keys with the cache (`workers/redis/mod.rs`).
    pub resyncs: AtomicU64,
    /// The tick at which Redis last refused a value, as a rule because it was full; 0 if never.
    pub refused: AtomicU64,
    /// The limit of the memory of Redis in bytes: 0 if there is none, and [`UNKNOWN`] if it is not known.
    pub maxmemory: AtomicU64,
    /// 1 if Redis refuses values when its memory is full instead of evicting others.
    pub is_noeviction: AtomicU64,
    /// The bytes of the error text; 0 if there is no error.
    length: AtomicU64,
    text: [AtomicU64; TEXT_WORDS],
}

/// See [`RedisState::maxmemory`].
pub const UNKNOWN: u64 = u64::MAX;

impl RedisState {
    /// Makes this the state of a worker that has not done anything yet. Must be called before any other process can access it, or
    /// by the worker.
    pub fn clear(&self, tick: u32) {
        let numbers = [&self.is_connected, &self.acked, &self.is_comparing, &self.resyncs, &self.refused];
        numbers.into_iter().chain([&self.is_noeviction]).for_each(|word| word.store(0, Ordering::Relaxed));
        self.since.store(tick.into(), Ordering::Relaxed);
        self.maxmemory.store(UNKNOWN, Ordering::Relaxed);
        self.set_error("");
    }

    /// Notes up to which number of the journal Redis has confirmed all changes, and whether keys are still to be compared for them.
    /// The number is written last and [read first](Self::progress). So a reader that gets a number also gets what was noted with it
    /// about comparing, or with a later number.
    pub fn set_progress(&self, acked: u64, is_comparing: bool) {
        self.is_comparing.store(is_comparing.into(), Ordering::Release);
        self.acked.store(acked, Ordering::Release);
    }

    /// Returns the number that [`set_progress`](Self::set_progress) has noted last, and whether keys are still to be compared for
    /// the changes up to it.
    pub fn progress(&self) -> (u64, bool) {
        let acked = self.acked.load(Ordering::Acquire);
        (acked, self.is_comparing.load(Ordering::Acquire) != 0)
    }

    /// Notes whether Redis answers.
    pub fn set_connected(&self, is_connected: bool, tick: u32) {
        if self.is_connected.swap(is_connected.into(), Ordering::Relaxed) != u64::from(is_connected) {
            self.since.store(tick.into(), Ordering::Relaxed);
        }
    }

    /// Notes the last error, without a secret. It is cut off after 256 bytes. An empty text stands for no error.
    pub fn set_error(&self, text: &str) {
        let mut bytes = [0; TEXT_WORDS * 8];
        let length = text.floor_char_boundary(bytes.len());
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        for (word, bytes) in self.text.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        self.length.store(length as u64, Ordering::Relaxed);
    }

    /// Returns the last error that was noted. None if an empty text was noted since.
    pub fn error(&self) -> Option<String> {
        let length = self.length.load(Ordering::Relaxed) as usize;
        let bytes: Vec<u8> = self
            .text
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .take(length)
            .collect();
        (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}
