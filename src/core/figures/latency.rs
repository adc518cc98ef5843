//! How long operations took: a histogram for each kind of operation, in the *slot* of each backend, its own part of the shared
//! memory (`statistics.rs`). `store/latency.rs` of the extension measures the times.
//!
//! ```text
//! histogram   sum of nanoseconds | counts of the buckets, from the shortest times to the longest
//! ```
//!
//! The limit of each bucket is twice that of the bucket before it. A caller times only some of the operations, so that most
//! operations do not read the clock.

use crate::layout::{HISTOGRAM_WORDS, HISTOGRAMS};

/// The operations that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// A read of a key that found a value in memory.
    GetFromMemory,
    /// A read of a key that found a saved value.
    GetFromTable,
    /// A call of a query that found its result in memory.
    QueryFromMemory,
    /// A call of a query that found its result saved.
    QueryFromTable,
    /// A call that sets a value, without the commit.
    Set,
    /// A run of a query, because its result was not found or had to be renewed.
    Fill,
    /// A wait for another session that computes the value.
    Wait,
}

impl Operation {
    /// All operations, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::GetFromMemory,
        Self::GetFromTable,
        Self::QueryFromMemory,
        Self::QueryFromTable,
        Self::Set,
        Self::Fill,
        Self::Wait,
    ];
}

/// The number of buckets of a histogram. The last bucket counts the times above all limits.
pub const BUCKETS: usize = if cfg!(loom) { 1 } else { 28 };

/// The limit of the first bucket in nanoseconds: an eighth of a microsecond. The last limit is 2^23 microseconds, 8.4 seconds.
const FIRST_NANOS: u64 = 125;

// There must be a histogram for each operation, and words for its sum and its buckets.
const _: () = assert!(Operation::ALL.len() <= HISTOGRAMS && BUCKETS < HISTOGRAM_WORDS);

/// Returns the longest time of a bucket in nanoseconds. None for the last bucket, which has no limit.
pub fn bucket_limit_nanos(bucket: usize) -> Option<u64> {
    (bucket + 1 < BUCKETS).then_some(FIRST_NANOS << bucket)
}

/// Returns the bucket of a time: the first one whose limit is not less than the time.
pub(super) fn bucket_of(nanos: u64) -> usize {
    let units = nanos.div_ceil(FIRST_NANOS).max(1);
    // The bucket with the limit 2^n units has the times above 2^(n-1) units.
    let bucket = (u64::BITS - (units - 1).leading_zeros()) as usize;
    bucket.min(BUCKETS - 1)
}

/// The times of one kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The sum of all times in nanoseconds.
    pub sum_nanos: u64,
    /// The number of times in each bucket, without the times in the buckets before it.
    pub buckets: [u64; BUCKETS],
}

impl Histogram {
    /// Returns how many operations were timed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum: u64, count| sum.wrapping_add(*count))
    }
}

/// The histograms of all operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histograms([Histogram; Operation::ALL.len()]);

impl Histograms {
    /// Returns the times of an operation.
    pub fn of(&self, operation: Operation) -> &Histogram {
        &self.0[operation as usize]
    }

    /// Adds the times of a backend. `read` returns a word of its slot.
    pub(super) fn add(&mut self, read: impl Fn(usize) -> u64) {
        for (number, Histogram { sum_nanos, buckets }) in self.0.iter_mut().enumerate() {
            let at = number * HISTOGRAM_WORDS;
            *sum_nanos = sum_nanos.wrapping_add(read(at));
            for (bucket, count) in buckets.iter_mut().enumerate() {
                *count = count.wrapping_add(read(at + 1 + bucket));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time must be in the first bucket whose limit is not less than the time. Tries the limits of all buckets, the times next to
    /// them, and the ends of the range.
    #[test]
    fn a_time_is_in_the_first_bucket_that_it_fits_into() {
        assert_eq!((bucket_of(0), bucket_of(1)), (0, 0));
        for bucket in 0..BUCKETS - 1 {
            let limit = bucket_limit_nanos(bucket).expect("it is not the last one");
            assert_eq!((bucket_of(limit), bucket_of(limit + 1)), (bucket, bucket + 1), "{limit} ns");
        }
        assert_eq!((bucket_of(u64::MAX), bucket_limit_nanos(BUCKETS - 1)), (BUCKETS - 1, None));
        assert_eq!(bucket_limit_nanos(BUCKETS - 2), Some(8_388_608_000));
    }
}
