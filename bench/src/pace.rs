//! How often and for how long.

use crate::eviction::traces::Extent;
use crate::plan::Side;
use std::time::Duration;

/// The length of everything. Contenders beside each other have to stay below some ten minutes in a full run and three in a quick one;
/// what has servers of its own takes four, or half of one; the tax on writing ten, or three; and the core by itself seven, or
/// one: five of those belong to one promise about five minutes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a contender runs before the first round: caches fill, and its speed becomes known.
    pub warm_up: Duration,
    /// One run of a reading contender.
    pub read: Duration,
    /// One run of a writing contender.
    pub write: Duration,
    /// Rounds of reading: at least 6, below which a median has no 95 % interval.
    pub read_rounds: usize,
    /// Rounds of writing, each a pair with the reference: never below 20.
    pub write_rounds: usize,
    /// The two runs whose difference is what an operation costs the server, connections left out.
    pub counted: [Duration; 2],
    /// Rounds of those.
    pub counted_rounds: usize,
    /// Puts that are timed in one round.
    pub puts: usize,
    /// How long entries have to stand beside a writer of others.
    pub beside: Duration,
    /// Rounds of filling a tier to invalidate all of it.
    pub fillings: usize,
    /// How long requests come at one rate: whole seconds.
    pub at_rate: Duration,
    /// One turn of a contender whose pairs are made of many short ones.
    pub turn: Duration,
    /// How many turns that are.
    pub turns: usize,
    /// How many of those pairs the servers serve before they are started again.
    pub pairs_per_start: usize,
    /// The size of the traces that eviction is judged by.
    pub traces: Extent,
}

impl Pace {
    /// For numbers to show.
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

    /// To see that it works, and to notice what is plainly wrong.
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

    /// How often a measurement of this side is repeated.
    pub fn rounds(&self, side: Side) -> usize {
        match side {
            Side::Read => self.read_rounds,
            Side::Write => self.write_rounds,
        }
    }

    /// How long one run of it takes.
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
