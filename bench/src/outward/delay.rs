//! The part `outward-delay` of the report: measures how long the invalidation of a tag takes to reach a session that listens, and
//! whether an invalidation is lost. A background worker sends the names of invalidated tags with NOTIFY (`pg_cache.notify`).

use super::listener::Listener;
use super::side::Side;
use crate::pace::Pace;
use crate::report::notation::{count, time};
use crate::report::section::{Goal, Section, Table};
use crate::statistics::percentile;
use crate::test_servers;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The rates that are measured, in invalidations per second.
const RATES: [u64; 3] = [1, 100, 1000];
/// At the rate of the first number, 99 % of the invalidations must reach the listener within the second number of nanoseconds.
const AT_RATE: (u64, f64) = (100, 10e6);
/// At every other rate, 99 % of the invalidations must reach the listener within this number of nanoseconds.
const AT_ALL: f64 = 100e6;
/// How long the measurement waits for the last notifications before it counts the others as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns about how long the part takes: the time at each rate, and 5 s for the start.
pub fn estimate(pace: &Pace) -> Duration {
    RATES.map(|rate| span(pace, rate)).iter().sum::<Duration>() + Duration::from_secs(5)
}

/// Returns for how long tags are invalidated at a rate. The lowest rate needs more time for the same precision.
fn span(pace: &Pace, rate: u64) -> Duration {
    if rate == RATES[0] { pace.at_rate / 3 } else { pace.at_rate / 5 }
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let mut stage = Stage::make();
    // The first change starts the worker.
    stage.outcome(RATES[1], Duration::from_secs(2));
    let outcomes = RATES.map(|rate| stage.outcome(rate, span(pace, rate)));
    let mut table =
        Table::new(0, ["invalidations per second", "done", "in all", "lost", "p50", "p99", "longest"]);
    for outcome in &outcomes {
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|part| time(outcome.percentile(part)));
        table.rows.push(vec![
            count(outcome.rate as f64),
            count(outcome.done),
            outcome.invalidations.to_string(),
            outcome.lost().to_string(),
            median,
            most,
            longest,
        ]);
    }
    let limit = |rate| if rate == AT_RATE.0 { AT_RATE.1 } else { AT_ALL };
    Section {
        id: "outward-delay".into(),
        title: "From a commit to a listener".into(),
        goals: outcomes.iter().map(|outcome| outcome.goal(limit(outcome.rate))).collect(),
        tables: vec![table],
        explained: vec![format!(
            "One client calls `cache_invalidate_tag` with a new tag each time, all operations writes, as a prepared statement over a Unix \
             socket, at equal distances, for {} s at the lowest rate and {} s at the others. Another session listens. Both are in one \
             process. The time counts from the moment at which the call is sent, so it includes the commit, until the listener \
             has the name of the tag. The settings about the disk are the defaults, but an invalidation alone writes nothing there. With few \
             invalidations, p99 is the longest time.",
            span(pace, RATES[0]).as_secs_f64(),
            span(pace, RATES[1]).as_secs_f64(),
        )],
        figures: outcomes.iter().map(Outcome::figures).collect(),
    }
}

/// The invalidations at one rate.
struct Outcome {
    /// The rate that was wanted, per second.
    rate: u64,
    /// The rate that was reached.
    done: f64,
    /// The number of invalidations.
    invalidations: usize,
    /// The times to the listener in nanoseconds, sorted, of all invalidations that have arrived.
    nanoseconds: Vec<f64>,
}

impl Outcome {
    /// Combines the moments at which tags were invalidated and those at which the listener had their names.
    fn of(rate: u64, done: f64, sent: &[(String, Instant)], heard: &HashMap<String, Instant>) -> Self {
        let times = sent.iter().filter_map(|(tag, at)| Some(heard.get(tag)?.duration_since(*at)));
        let mut nanoseconds: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e9).collect();
        nanoseconds.sort_by(f64::total_cmp);
        Self { rate, done, invalidations: sent.len(), nanoseconds }
    }

    fn lost(&self) -> usize {
        self.invalidations - self.nanoseconds.len()
    }

    /// Returns the time within which this fraction of the invalidations that have arrived did so. 0 if none has arrived.
    fn percentile(&self, part: f64) -> f64 {
        percentile(&self.nanoseconds, part).unwrap_or(0.0)
    }

    fn figures(&self) -> serde_json::Value {
        let [median, most, longest] = [0.5, 0.99, 1.0].map(|part| self.percentile(part));
        serde_json::json!({
            "rate": self.rate, "done": self.done, "invalidations": self.invalidations, "lost": self.lost(), "p50": median, "p99": most,
            "longest": longest,
        })
    }

    /// Returns the goal that nothing is lost and that 99 % arrive within this time.
    fn goal(&self, limit: f64) -> Goal {
        let most = self.percentile(0.99);
        Goal {
            wanted: format!(
                "{} invalidations per second: none lost, p99 below {}",
                count(self.rate as f64),
                time(limit)
            ),
            found: format!("{} of {} lost, p99 {}", self.lost(), self.invalidations, time(most)),
            met: self.lost() == 0 && most < limit,
        }
    }
}

/// A server, a session that invalidates tags, and one that listens.
struct Stage {
    /// Must be dropped before the server.
    _listener: Listener,
    side: Side,
    /// The names of tags, each with the moment at which the listener had it.
    arrivals: Receiver<(String, Instant)>,
    /// How many tags were invalidated so far.
    number: u64,
}

impl Stage {
    /// Starts the server and begins to listen.
    fn make() -> Self {
        let side = Side::start(&test_servers::conf());
        let (sender, arrivals) = channel();
        let listener = Listener::start(&side.cluster, &["pg_cache"], move |notification| {
            let names = tags(notification.payload());
            let now = Instant::now();
            // The receiver is gone only if the measurement has failed.
            names.into_iter().for_each(|tag| _ = sender.send((tag, now)));
        });
        Self { _listener: listener, side, arrivals, number: 0 }
    }

    /// Invalidates new tags at a rate for some time, and waits until the listener has all names.
    fn outcome(&mut self, rate: u64, span: Duration) -> Outcome {
        let mut session = self.side.cluster.connect("postgres");
        let invalidate = session.prepare("SELECT cache_invalidate_tag($1)").expect("it can be prepared");
        session.execute(&invalidate, &[&"the first call of a session is slower"]).expect("it invalidates");
        let (started, mut sent) = (Instant::now(), Vec::new());
        let all = (rate as f64 * span.as_secs_f64()).ceil() as u64;
        for call in 0..all {
            std::thread::sleep(due(call, rate).saturating_sub(started.elapsed()));
            self.number += 1;
            let tag = format!("tag {}", self.number);
            let at = Instant::now();
            session.execute(&invalidate, &[&tag]).expect("it invalidates");
            sent.push((tag, at));
        }
        // The time includes the distance from the last call to the next one, which is not made.
        let done = all as f64 / started.elapsed().max(due(all, rate)).as_secs_f64();
        let mut heard = HashMap::new();
        let deadline = Instant::now() + PATIENCE;
        while sent.iter().any(|(tag, _)| !heard.contains_key(tag)) {
            let Ok((tag, at)) =
                self.arrivals.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            heard.entry(tag).or_insert(at);
            while let Ok((tag, at)) = self.arrivals.try_recv() {
                heard.entry(tag).or_insert(at);
            }
        }
        Outcome::of(rate, done, &sent, &heard)
    }
}

/// Returns how long after the first call a call is due. The first has the number 0.
fn due(call: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(call as f64 / rate as f64)
}

/// Returns the names of the tags in a payload: none if it is not of the form that `src/store/broadcast.rs` describes.
fn tags(payload: &str) -> Vec<String> {
    let payload: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
    let names = payload["tags"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a name in a notification is not found, or if another text gives names.
    #[test]
    fn tags_are_read_from_a_payload() {
        assert_eq!(tags(r#"{"seq": [1, 3], "tags": ["a", "b\"c"], "keys": {"s": ["k"]}}"#), ["a", "b\"c"]);
        assert_eq!(tags(r#"{"seq": [1, 3], "all": true}"#), [""; 0]);
        assert_eq!(tags("forged"), [""; 0]);
    }

    /// Fails if a name that did not arrive gets a time, or if another tag's arrival counts.
    #[test]
    fn a_name_that_does_not_arrive_is_lost() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let sent = [("a".to_owned(), start), ("b".to_owned(), after(5)), ("c".to_owned(), after(6))];
        let heard =
            HashMap::from([("b".to_owned(), after(8)), ("a".to_owned(), after(9)), ("x".to_owned(), start)]);
        let outcome = Outcome::of(100, 100.0, &sent, &heard);
        assert_eq!((outcome.lost(), outcome.percentile(0.0), outcome.percentile(1.0)), (1, 3e6, 9e6));
        assert!(!outcome.goal(10e6).met, "one is lost");
        let outcome = Outcome::of(100, 100.0, &sent[..2], &heard);
        assert!(outcome.goal(10e6).met && !outcome.goal(9e6).met);
    }

    /// Fails if calls are not at equal distances from the first one, so that delays would add up.
    #[test]
    fn calls_are_due_at_equal_distances() {
        assert_eq!([0, 1, 1000].map(|call| due(call, 1000).as_millis()), [0, 1, 1000]);
        assert_eq!(due(3, 1), Duration::from_secs(3));
    }
}
