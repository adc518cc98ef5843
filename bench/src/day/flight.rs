//! For the part `day` of the report (`day/mod.rs`): the cost of single flight (one session computes a result, the others wait for
//! it) for a session that finds no other one to wait for, on a hit and on a miss. With `pg_cache.wait_timeout` = 0, a session never
//! waits.
//!
//! A *contender* is one of the alternatives that a measurement compares: here, the two values of the setting. They run in turns, in
//! rounds (`queries/race.rs`). The measured calls are in *loops*: SQL functions that repeat a call as often as their argument says,
//! and return the nanoseconds of one pass (`queries/stage.rs`).

use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::queries::race::{Race, at_most, summary};
use crate::queries::stage::{MANY_PASSES, SPACE, Stage, cached};
use crate::report::notation::{digits, time, with_interval};
use crate::report::section::{Goal, Table};
use crate::statistics::Summary;
use std::time::Duration;

/// The most that single flight may add to a miss, in nanoseconds.
const MISS_MAX: f64 = 5000.0;
/// The most that the time of a hit with single flight, divided by the time without it, may be: 1, and the noise of the measurement.
const HIT_MAX: f64 = 1.02;

/// The name of the contender without single flight.
const WITHOUT: &str = "wait_timeout = 0";
/// The name of the contender with single flight.
const WITH: &str = "wait_timeout = 3s";
/// The contenders, with their values of `pg_cache.wait_timeout`.
const SETTINGS: [(&str, &str); 2] = [(WITHOUT, "0"), (WITH, "3s")];

/// The name of the loop of hits.
const HIT: &str = "flight_hit";
/// The name of the loop of misses.
const MISS: &str = "flight_miss";

/// Returns about how long this takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Two races of two contenders. A race begins with one round that does not count. A turn takes 10 ms besides its measured time.
    (pace.read / 2 + Duration::from_millis(10)) * (4 * (pace.write_rounds + 1)) as u32
}

/// The results of this part.
pub struct Flight {
    pub hit: Race,
    pub miss: Race,
}

/// Measures hits and misses in one session, with and without single flight.
pub fn measure(stage: &Stage, pace: &Pace) -> Flight {
    let columns = "number bigint";
    stage.create_loop(HIT, "count(*)", &cached("SELECT 1::bigint", columns, ""));
    // The sum of the microseconds since 1970 and the number of the pass is an argument that no call has had, because a pass takes
    // longer than a microsecond.
    let miss = cached("SELECT $1::bigint", columns, ", jsonb_build_array(first + pass)");
    stage.execute(&format!(
        "CREATE FUNCTION {MISS}(passes int) RETURNS float8 LANGUAGE plpgsql AS $loop$
         DECLARE
             started timestamptz := clock_timestamp();
             first bigint := extract(epoch FROM started) * 1000000;
         BEGIN
             FOR pass IN 1 .. passes LOOP
                 PERFORM count(*) FROM {miss};
             END LOOP;
             RETURN extract(epoch FROM clock_timestamp() - started) * 1e9 / passes;
         END $loop$"
    ));
    let contenders = |name: &'static str| {
        let contender = |(title, setting): (&'static str, &'static str)| {
            Contender::new(title, move || {
                stage.execute(&format!("SET pg_cache.wait_timeout = '{setting}'"));
                stage.loop_for(name, MANY_PASSES, pace.read / 2)
            })
        };
        SETTINGS.map(contender).into()
    };
    // The first call stores the result that all measured calls find.
    stage.loop_once(HIT);
    let hit = stage.only_hits(SPACE, || {
        Race::hold("hit of 1 row, no session waits", pace.write_rounds, contenders(HIT))
    });
    // `reads` returns the hits and the misses of the space so far.
    let [hits, _] = stage.reads(SPACE);
    let miss = Race::hold("miss of 1 row, each time another key", pace.write_rounds, contenders(MISS));
    assert_eq!(stage.reads(SPACE)[0], hits, "only misses are measured");
    stage.execute("RESET pg_cache.wait_timeout");
    Flight { hit, miss }
}

impl Flight {
    /// Returns the goals of this part.
    pub fn goals(&self) -> [Goal; 2] {
        [
            at_most(
                "single flight on a hit: the time of a call, divided by the time without single flight",
                self.hit.ratio(WITH, WITHOUT),
                HIT_MAX,
                |ratio| format!("{ratio:.3} ×"),
            ),
            at_most("single flight on a miss: a call takes longer by", added(&self.miss), MISS_MAX, time),
        ]
    }

    /// Returns the results as a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new(1, ["one call", WITHOUT, WITH, "longer by", "× without"]);
        for (title, race) in [("hit", &self.hit), ("miss", &self.miss)] {
            let [without, with] = [WITHOUT, WITH].map(|name| with_interval(summary(race.times(name)), time));
            let longer = with_interval(added(race), |nanoseconds| format!("{} ns", digits(nanoseconds)));
            let ratio = with_interval(race.ratio(WITH, WITHOUT), |ratio| format!("{ratio:.3}"));
            table.rows.push(vec![title.into(), without, with, longer, ratio]);
        }
        table
    }
}

/// Returns how many nanoseconds longer a call takes with single flight: the median of the differences, round by round.
fn added(race: &Race) -> Summary {
    let pairs = race.times(WITH).iter().zip(race.times(WITHOUT));
    summary(&pairs.map(|(with, without)| with - without).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a difference has the wrong sign, if a result within the limits misses a goal, or if one beyond them meets a goal.
    #[test]
    fn the_addition_is_that_of_single_flight() {
        let contender = |name, time: f64| Contender::new(name, move || time);
        let race = |with| Race::hold("r", 6, vec![contender(WITHOUT, 20_000.0), contender(WITH, with)]);
        let flight = Flight { hit: race(20_000.0), miss: race(24_000.0) };
        assert!(flight.goals().iter().all(|goal| goal.met));
        assert_eq!(added(&flight.miss).median, 4000.0);
        let flight = Flight { hit: race(21_000.0), miss: race(26_000.0) };
        assert!(flight.goals().iter().all(|goal| !goal.met));
        assert_eq!(added(&race(15_000.0)).median, -5000.0);
    }
}
