//! The number and the duration of the measurements.

use crate::eviction::traces::Extent;
use crate::plan::Side;
use std::time::Duration;

/// The number and the duration of all measurements. The comparison of contenders must stay below about 10 minutes in a full run and
/// 3 minutes in a quick run. The parts with their own servers take 4 minutes in a full run and half a minute in a quick run. The
/// tax on writes takes about 10 minutes or 3. The core alone takes 7 minutes or 1; 5 of the 7 minutes are `beside`, which tests a
/// promise about 5 minutes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a contender runs before the first round, to fill caches and to measure its speed.
    pub warm_up: Duration,
    /// The duration of one run of a reading contender.
    pub read: Duration,
    /// The duration of one run of a writing contender.
    pub write: Duration,
    /// Rounds of a reading measurement: at least 6, because a median of fewer samples has no 95 % interval.
    pub read_rounds: usize,
    /// Rounds of a writing measurement: at least 20, because the ratios of writes vary more than those of reads.
    pub write_rounds: usize,
    /// The durations of a short and a long run, whose difference gives the server's cost of an operation without the cost of
    /// connections. A contender that stays connected needs only the long run.
    pub counted: [Duration; 2],
    /// Rounds of these two runs.
    pub counted_rounds: usize,
    /// Puts that are timed in one round.
    pub puts: usize,
    /// How long unchanged entries are watched while a writer stores others.
    pub beside: Duration,
    /// How often a tier is filled to invalidate all of it.
    pub fillings: usize,
    /// How long requests are sent at one rate, in whole seconds.
    pub at_rate: Duration,
    /// The duration of one turn, for contenders whose pairs consist of many short turns.
    pub turn: Duration,
    /// The number of turns of each contender in such a pair. It must be even: see [`turns`](crate::rounds::turns).
    pub turns: usize,
    /// How many pairs the servers serve before they are restarted.
    pub pairs_per_start: usize,
    /// The size of the traces (sequences of requested keys) that judge the eviction.
    pub traces: Extent,
}

impl Pace {
    /// The full run, for numbers to publish.
    pub const FULL: Self = Self {
        warm_up: Duration::from_millis(300),
        read: Duration::from_millis(600),
        write: Duration::from_millis(450),
        read_rounds: 9,
        write_rounds: 24,
        counted: [Duration::from_millis(50), Duration::from_millis(250)],
        counted_rounds: 6,
        puts: 20_000,
        beside: Duration::from_secs(300),
        fillings: 11,
        at_rate: Duration::from_secs(60),
        turn: Duration::from_millis(40),
        turns: 12,
        pairs_per_start: 1,
        traces: Extent { keys: 50_000, requests: 1_000_000 },
    };

    /// The quick run, to check that everything works and to notice large errors.
    pub const QUICK: Self = Self {
        warm_up: Duration::from_millis(100),
        read: Duration::from_millis(150),
        write: Duration::from_millis(120),
        read_rounds: 6,
        write_rounds: 20,
        counted: [Duration::from_millis(30), Duration::from_millis(130)],
        counted_rounds: 3,
        puts: 5_000,
        beside: Duration::from_secs(5),
        fillings: 6,
        at_rate: Duration::from_secs(3),
        turn: Duration::from_millis(20),
        turns: 2,
        pairs_per_start: 10,
        traces: Extent { keys: 20_000, requests: 200_000 },
    };

    /// Returns how many times a measurement of this side is repeated.
    pub fn rounds(&self, side: Side) -> usize {
        match side {
            Side::Read => self.read_rounds,
            Side::Write => self.write_rounds,
        }
    }

    /// Returns how long one run of this side takes.
    pub fn span(&self, side: Side) -> Duration {
        match side {
            Side::Read => self.read,
            Side::Write => self.write,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_ratios_have_their_twenty_pairs() {
        for pace in [Pace::FULL, Pace::QUICK] {
            assert!(pace.write_rounds >= 20);
            assert!(pace.read_rounds >= 6);
        }
    }
}
