//! The stream of orders of the part `day` of the report: a session commits them at a fixed rate, and notes when each commit was
//! acknowledged.
//!
//! One session commits all orders, so the numbers of orders, customers and products grow in the order of the commits. An answer
//! whose column `newest` (`dashboards.rs`) is below the number of a commit misses the commit.

use super::dashboards::{DAYS, Subject};
use crate::eviction::traces::Random;
use postgres::Client;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// One order in this many is by a new customer.
pub const CUSTOMER_EVERY: u64 = 10;
/// One order in this many adds a product.
pub const PRODUCT_EVERY: u64 = 300;

/// The commits of one subject: rows with the numbers from `first` on, without gaps.
struct Commits {
    first: i64,
    /// The newest number whose commit was acknowledged. It is increased after the moment is in `moments`, because readers look up
    /// the moment of each number up to this one.
    newest: AtomicI64,
    /// When each commit was acknowledged, from the commit of `first` on.
    moments: Mutex<Vec<Instant>>,
}

/// The commits of all subjects.
pub struct Log([Commits; Subject::ALL.len()]);

impl Log {
    /// Begins after the rows that the tables have.
    pub fn begin(session: &mut Client) -> Self {
        let newest = |subject: Subject| -> i64 {
            session.query_one(&format!("SELECT {}", subject.newest()), &[]).expect("the shop has rows").get(0)
        };
        Self::after(Subject::ALL.map(newest))
    }

    /// Begins after the rows with these numbers.
    fn after(newest: [i64; Subject::ALL.len()]) -> Self {
        Self(newest.map(|newest| Commits {
            first: newest + 1,
            newest: AtomicI64::new(newest),
            moments: Mutex::default(),
        }))
    }

    /// Returns the newest number whose commit was acknowledged.
    pub fn newest(&self, subject: Subject) -> i64 {
        self.0[subject as usize].newest.load(Ordering::Acquire)
    }

    /// Notes that the commit of the next number was acknowledged at this moment.
    fn committed(&self, subject: Subject, moment: Instant) {
        let commits = &self.0[subject as usize];
        commits.moments.lock().expect("no session panics with it").push(moment);
        commits.newest.fetch_add(1, Ordering::Release);
    }

    /// Returns the moment since which an answer was outdated when it was requested: the moment of the first commit that the answer
    /// misses. `None` if the answer misses none of the commits up to the number `acknowledged`, which were acknowledged before the
    /// request. `newest` is the newest number in the answer.
    pub fn outdated_since(&self, subject: Subject, newest: i64, acknowledged: i64) -> Option<Instant> {
        let commits = &self.0[subject as usize];
        let missed = (newest + 1).max(commits.first);
        let moments = commits.moments.lock().expect("no session panics with it");
        (missed <= acknowledged).then(|| moments[(missed - commits.first) as usize])
    }
}

/// The work of a writer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub orders: u64,
    /// The longest delay of a commit behind its scheduled moment.
    pub most_behind: Duration,
}

/// Commits `rate` orders per second until `ends` returns true.
pub fn write(session: &mut Client, log: &Log, rate: u32, seed: u64, ends: impl Fn() -> bool) -> Written {
    let mut random = Random::of_seed(seed);
    let insert_order = "INSERT INTO orders VALUES ($1, $2, timestamptz '2024-01-01 00:00:00+00' + $3 * interval '1 second', 'paid')";
    let insert_lines = "INSERT INTO order_items
        SELECT $1, line::smallint, product_id, (1 + line % 3)::smallint, price
        FROM unnest($2::int[]) WITH ORDINALITY AS wanted(product_id, line) JOIN products USING (product_id)";
    let insert_customer =
        "INSERT INTO customers VALUES ($1, 'New ' || $1::int, 'DE', date '2022-01-01' + ($1 % 1400))";
    let insert_product = "INSERT INTO products VALUES ($1, 'new ' || $1::int, 'light', 9.90)";
    let [insert_order, insert_lines, insert_customer, insert_product] =
        [insert_order, insert_lines, insert_customer, insert_product]
            .map(|text| session.prepare(text).unwrap_or_else(|error| panic!("{error:?}: {text}")));

    let (started, mut written) = (Instant::now(), Written::default());
    loop {
        let due = started + Duration::from_secs_f64(written.orders as f64 / f64::from(rate));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if ends() {
            return written;
        }
        written.orders += 1;
        let next = |subject| i32::try_from(log.newest(subject) + 1).expect("few orders fit into an integer");
        let (order, customer, product) =
            (next(Subject::Orders), next(Subject::Customers), next(Subject::Products));
        let [brings_customer, brings_product] =
            [CUSTOMER_EVERY, PRODUCT_EVERY].map(|every| written.orders.is_multiple_of(every));
        let buyer = if brings_customer { customer } else { 1 + random.below(customer as u64 - 1) as i32 };
        let at = (random.fraction() * DAYS as f64 * 86_400.0).floor();
        let lines: Vec<i32> = (0..2 + order % 3)
            .map(|_| {
                1 + (random.fraction() * random.fraction() * random.fraction() * f64::from(product - 1))
                    as i32
            })
            .collect();
        let mut commit = || {
            let mut transaction = session.transaction()?;
            if brings_customer {
                transaction.execute(&insert_customer, &[&customer])?;
            }
            if brings_product {
                transaction.execute(&insert_product, &[&product])?;
            }
            transaction.execute(&insert_order, &[&order, &buyer, &at])?;
            transaction.execute(&insert_lines, &[&order, &lines])?;
            transaction.commit()
        };
        commit().unwrap_or_else(|error: postgres::Error| panic!("an order is refused: {error:?}"));
        let moment = Instant::now();
        if brings_customer {
            log.committed(Subject::Customers, moment);
        }
        if brings_product {
            log.committed(Subject::Products, moment);
        }
        log.committed(Subject::Orders, moment);
        written.most_behind = written.most_behind.max(moment.saturating_duration_since(due));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if an answer counts as outdated because of a commit that was not acknowledged before the request, or if its age does
    /// not count from the first commit that it misses.
    #[test]
    fn an_answer_is_as_old_as_the_first_commit_that_it_misses() {
        let log = Log::after([100, 10, 10]);
        let started = Instant::now();
        let moment = |seconds| started + Duration::from_secs(seconds);
        for seconds in 1..=3 {
            log.committed(Subject::Orders, moment(seconds));
        }
        assert_eq!((log.newest(Subject::Orders), log.newest(Subject::Customers)), (103, 10));
        let since = |newest, acknowledged| log.outdated_since(Subject::Orders, newest, acknowledged);
        assert_eq!(since(103, 103), None);
        assert_eq!(since(102, 102), None, "the commit of 103 came later");
        assert_eq!(since(104, 103), None, "a commit that is visible before it is acknowledged");
        assert_eq!(since(102, 103), Some(moment(3)));
        assert_eq!(since(100, 103), Some(moment(1)));
        assert_eq!(since(7, 103), Some(moment(1)), "rows from before the log are not missed");
    }
}
