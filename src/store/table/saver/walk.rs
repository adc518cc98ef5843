//! The walk of a saver (`saving.rs`) through all entries of the cache: when a round begins, where it is, and when it pauses. A walk
//! that went on with nothing to save would take 3 % of a processor.

use std::time::{Duration, Instant};

/// How long the walk through all entries pauses after a round that has found nothing to save, if no value is stored meanwhile. The
/// next round finds entries that have lost their saved copy without being stored again, for instance because their time to live was
/// changed.
const PAUSE: Duration = Duration::from_secs(5);

/// The walk through all entries, in rounds. A round visits all buckets once.
#[derive(Debug, Default)]
pub struct Walk {
    /// The bucket at which the walk continues.
    bucket: u64,
    /// How many values had been stored in the cache when the present round began.
    stored: u64,
    /// Whether the present round has found entries to save.
    has_found: bool,
    /// When the last round ended. None if a round is under way, and if the last round has found entries to save.
    ended: Option<Instant>,
}

impl Walk {
    /// Begins a round, unless one is under way or the walk pauses. `stored` is the number of values that were stored so far.
    pub fn begin_if_due(&mut self, stored: u64) {
        let is_due = match self.ended {
            Some(ended) => stored != self.stored || ended.elapsed() >= PAUSE,
            None => self.bucket == 0,
        };
        if is_due {
            *self = Self { bucket: 0, stored, has_found: false, ended: None };
        }
    }

    /// Goes on to a bucket. None ends the round.
    pub fn go_to(&mut self, next: Option<u64>) {
        self.bucket = next.unwrap_or(0);
        if next.is_none() && !self.has_found {
            self.ended = Some(Instant::now());
        }
    }

    /// Notes that the present round has found entries to save.
    pub fn note_found(&mut self, found: bool) {
        self.has_found |= found;
    }

    /// Returns whether a round is under way.
    pub fn is_under_way(&self) -> bool {
        self.ended.is_none()
    }

    /// Returns the bucket at which the walk continues.
    pub fn bucket(&self) -> u64 {
        self.bucket
    }
}
