//! The number and the duration of the measurements, in a full run and in a quick run.
//!
//! A *part* is a section of the report (`parts.rs`). A measurement compares *contenders*, the alternatives that do the same work.
//! In a *round*, each contender runs once. The *tax on writes* (`served/tax/`) is the slowdown of writes to tables that cached
//! values depend on. The *table tier* (`tables/`) saves values in tables before they leave the memory. The *core* is the cache in
//! shared memory, measured without a server (`hot_tier/`, `eviction/`).

use crate::eviction::traces::Extent;
use crate::plan::Side;
use std::time::Duration;

/// The number and the duration of all measurements. About how long they take, in a full and in a quick run:
/// - the comparison of contenders: 10 minutes and 3;
/// - the parts tags, sizes, rates, walk and rows: 5 minutes and 2;
/// - the tax on writes: 10 minutes and 3;
/// - the parts about cached queries: 6 minutes and 2;
/// - the part day: 36 minutes and 1;
/// - the parts about the table tier: 10 minutes and 4;
/// - the parts about NOTIFY and Redis: 8 minutes and 2;
/// - the parts about frameworks: 6 minutes and 1;
/// - the core alone: 7 minutes and 1. In the full run, [`beside`](Self::beside) takes 5 of the 7 minutes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a contender runs before the first round, to fill caches. Before that, it runs for a quarter of this time, to find
    /// its speed.
    pub warm_up: Duration,
    /// The duration of one run of a reading contender.
    pub read: Duration,
    /// The duration of one run of a writing contender.
    pub write: Duration,
    /// Rounds of a reading measurement: at least 6, because a median of fewer samples has no interval of 95 % confidence.
    pub read_rounds: usize,
    /// Rounds of a writing measurement, and pairs of the tax on writes: at least 20, because the ratios of writes vary more than
    /// those of reads. A pair gives one time of each contender.
    pub write_rounds: usize,
    /// The durations of a short and a long run, whose difference gives the server's cost of an operation without the cost of
    /// connections. A contender that stays connected needs only the long run.
    pub counted: [Duration; 2],
    /// Rounds of these two runs.
    pub counted_rounds: usize,
    /// For the part core-put: how many values are stored in each tier in one round, if a series has 1000 of them. A series is the
    /// values that are stored before the tier is restored. Scenarios with shorter series store fewer values.
    pub puts: usize,
    /// How long unchanged entries are watched while a writer stores others (part core-innocents).
    pub beside: Duration,
    /// Rounds of the part tags, each of which fills the cache, and of the parts tables-save and tables-restart. The parts
    /// tables-disk, tables-restart and outward-redis also store less if this is below the value of the full run, and the parts
    /// queries-dashboard and queries-tpch have fewer rows.
    pub fillings: usize,
    /// How long requests are sent at one rate, in whole seconds. The part tables-save sets values at a rate for a tenth of it, but
    /// at least 2 s. The parts outward-delay, outward-redis and outward-outages send for a fraction of it, too.
    pub at_rate: Duration,
    /// The duration of one turn in the part about the tax on writes. Its rounds, called pairs, consist of several short turns of
    /// each contender.
    pub turn: Duration,
    /// The number of turns of each contender in such a pair. It must be even, so that the turns run forwards and backwards equally
    /// often: see [`turns`](crate::rounds::turns).
    pub turns: usize,
    /// After how many of these pairs the servers are restarted.
    pub pairs_per_start: usize,
    /// The duration of one turn of a backend in the parts about frameworks.
    pub framework_turn: Duration,
    /// The factor by which the part day shortens five minutes: the time for which an outdated result may be served, for which a row
    /// of the cache table lives, and from one refresh of the materialized views to the next.
    pub day_scale: f64,
    /// The number of rounds of the part day.
    pub day_rounds: usize,
    /// The number of dashboards of the part day.
    pub day_dashboards: usize,
    /// The number of orders in the shop of the part day.
    pub day_orders: u32,
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
        framework_turn: Duration::from_secs(1),
        day_scale: 2.5,
        day_rounds: 2,
        day_dashboards: 500,
        day_orders: 60_000,
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
        framework_turn: Duration::from_millis(150),
        day_scale: 100.0,
        day_rounds: 1,
        day_dashboards: 50,
        day_orders: 30_000,
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

    /// Fails if a pace has fewer than 6 rounds of reads, so that the median has no interval of 95 % confidence, or fewer than 20
    /// rounds of writes.
    #[test]
    fn write_ratios_have_their_twenty_pairs() {
        for pace in [Pace::FULL, Pace::QUICK] {
            assert!(pace.write_rounds >= 20);
            assert!(pace.read_rounds >= 6);
        }
    }
}
