//! The dashboards of the part `day` of the report: queries over the tables of the sample shop (`examples/shop.sql`), with
//! parameters that are drawn from a seed.
//!
//! All dashboards return rows of the same columns. The column `newest` is the largest primary key, in the snapshot of the query, of
//! the table that the dashboard is about ([`Subject`]). One session commits all new rows, with growing keys (`orders.rs`), so the
//! number tells which commits the answer contains. By this number, the part finds out whether an answer is outdated, and for how
//! long.

use crate::eviction::traces::Random;
use postgres::{Client, SimpleQueryMessage};
use std::time::{Duration, Instant};

/// The columns of a dashboard, as `cache_query` wants them.
pub const COLUMNS: &str = "label text, amount numeric, pieces bigint, newest bigint";
/// A part of the text of each dashboard, and of no other statement that runs while requests are noted. `executed` in `column.rs`
/// searches pg_stat_statements for it, to count how often dashboards were run.
pub const MARK: &str = "AS newest";
/// The least and the most time that a dashboard takes without a cache ([`Dashboard::cost`]). A candidate, a query that was drawn at
/// random, is left out if its time is outside of these limits.
pub const COST: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(200)];
/// The most candidates that are drawn for each dashboard, on average. If these are too few, the part fails.
const DRAWN: usize = 40;
/// The days of the sample shop's orders, from 2024-01-01 on.
pub const DAYS: u64 = 730;
const COUNTRIES: [&str; 11] = ["BR", "DE", "CN", "FR", "NO", "ML", "ES", "LB", "JP", "US", "IN"];
const CATEGORIES: [&str; 8] =
    ["light", "furniture", "kitchen", "travel", "paper", "sound", "textile", "outdoor"];

/// The table whose newest row a dashboard names. A new customer or product commits together with an order. So for a dashboard that
/// joins orders with customers or products, the newest order is enough: it also tells which customers and products the answer
/// contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Orders,
    Customers,
    Products,
}

impl Subject {
    /// All subjects, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Orders, Self::Customers, Self::Products];

    /// Returns the query of the newest row.
    pub fn newest(self) -> &'static str {
        match self {
            Self::Orders => "(SELECT max(order_id) FROM orders)::bigint AS newest",
            Self::Customers => "(SELECT max(customer_id) FROM customers)::bigint AS newest",
            Self::Products => "(SELECT max(product_id) FROM products)::bigint AS newest",
        }
    }
}

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    pub text: String,
    pub subject: Subject,
    /// The time of one run without a cache, on a core of its own: the processor time of the session's backend. All pages are in
    /// memory, and no worker takes part.
    pub cost: Duration,
}

/// Draws dashboards that return rows and whose time is within [`COST`]. Panics if there are too few such candidates.
pub fn draw(session: &mut Client, seed: u64, count: usize) -> Vec<Dashboard> {
    let backend: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("it tells").get(0);
    let mut random = Random::of_seed(seed);
    let mut dashboards: Vec<Dashboard> = Vec::new();
    for _ in 0..count * DRAWN {
        if dashboards.len() == count {
            return dashboards;
        }
        let (text, subject) = candidate(&mut random);
        if dashboards.iter().any(|other| other.text == text) {
            continue;
        }
        // The first run reads the pages that the second one finds in memory.
        if cost(session, backend, &text).is_none_or(|first| first > COST[1] * 2) {
            continue;
        }
        let Some(cost) = cost(session, backend, &text) else { continue };
        if (COST[0]..=COST[1]).contains(&cost) {
            dashboards.push(Dashboard { text, subject, cost });
        }
    }
    panic!("only {} dashboards of {count} take between {:?} and {:?}", dashboards.len(), COST[0], COST[1]);
}

/// Runs a query, and returns its time. `None` if it returned no rows: such an answer would have no column `newest`.
fn cost(session: &mut Client, backend: i32, text: &str) -> Option<Duration> {
    let (started, used) = (Instant::now(), processor_time(backend));
    let messages = session.simple_query(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    let elapsed = started.elapsed();
    // Other work on the machine makes the query wait, but adds no processor time.
    let cost = used.zip(processor_time(backend)).map_or(elapsed, |(before, after)| after - before);
    messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))).then_some(cost)
}

/// Returns how long a process has run on a core, or `None` if the kernel does not say.
fn processor_time(process: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Draws the text of a dashboard. Each text must return the columns of [`COLUMNS`] in this order, because `column.rs` reads
/// `newest` by its position, and must contain [`MARK`] once. The labels of its rows must be unique: REFRESH MATERIALIZED VIEW
/// CONCURRENTLY needs a unique index, and `column.rs` creates it on `label`. Names are unique labels, because the name of each
/// customer and product ends with its number, in `examples/shop.sql` and in `orders.rs`.
fn candidate(random: &mut Random) -> (String, Subject) {
    let kind = random.below(20);
    let subject = match kind {
        18.. => Subject::Customers,
        17 => Subject::Products,
        _ => Subject::Orders,
    };
    let newest = subject.newest();
    let sold = "sum(i.quantity * i.unit_price)";
    let lines = "FROM orders AS o JOIN order_items AS i USING (order_id)";
    let (since, until) = window(random);
    let during = format!("o.ordered_at >= {since} AND o.ordered_at < {until}");
    let country = any(random, &COUNTRIES);
    let category = any(random, &CATEGORIES);
    let text = match kind {
        0..=3 => format!(
            "SELECT p.category AS label, {sold} AS amount, count(DISTINCT o.order_id) AS pieces, {newest}
             {lines} JOIN products AS p USING (product_id)
             WHERE {during} AND o.status <> 'returned' GROUP BY p.category ORDER BY amount DESC"
        ),
        4..=6 => format!(
            "SELECT c.name AS label, {sold} AS amount, count(DISTINCT o.order_id) AS pieces, {newest}
             {lines} JOIN customers AS c USING (customer_id)
             WHERE {during} AND c.country = '{country}' GROUP BY c.customer_id, c.name ORDER BY amount DESC, label LIMIT 10"
        ),
        7..=9 => format!(
            "SELECT date_trunc('day', o.ordered_at AT TIME ZONE 'UTC')::date::text AS label,
                    round(100.0 * count(*) FILTER (WHERE o.status = 'returned') / count(*), 1) AS amount,
                    count(*) AS pieces, {newest}
             FROM orders AS o WHERE {during} GROUP BY label ORDER BY label"
        ),
        10..=11 => format!(
            "SELECT date_trunc('month', o.ordered_at AT TIME ZONE 'UTC')::date::text AS label, {sold} AS amount,
                    sum(i.quantity)::bigint AS pieces, {newest}
             {lines} WHERE i.product_id = {} GROUP BY label ORDER BY label",
            popular_product(random)
        ),
        12 => format!(
            "SELECT p.name AS label, {sold} AS amount, count(DISTINCT i.order_id) AS pieces, {newest}
             FROM order_items AS mine JOIN order_items AS i USING (order_id) JOIN products AS p ON p.product_id = i.product_id
             WHERE mine.product_id = {} AND i.product_id <> mine.product_id
             GROUP BY p.product_id, p.name ORDER BY pieces DESC, label LIMIT 10",
            popular_product(random)
        ),
        13..=14 => format!(
            "SELECT lines::text AS label, round(avg(total), 2) AS amount, count(*) AS pieces, {newest}
             FROM (SELECT count(*) AS lines, {sold} AS total {lines} WHERE {during} GROUP BY o.order_id) AS basket
             GROUP BY lines ORDER BY lines"
        ),
        15..=16 => format!(
            "SELECT c.country AS label, {sold} AS amount, count(DISTINCT o.customer_id) AS pieces, {newest}
             {lines} JOIN customers AS c USING (customer_id) JOIN products AS p USING (product_id)
             WHERE {during} AND p.category = '{category}' GROUP BY c.country ORDER BY amount DESC"
        ),
        17 => format!(
            "SELECT p.name AS label, p.price AS amount, rank() OVER (PARTITION BY p.category ORDER BY p.price) AS pieces, {newest}
             FROM products AS p WHERE p.category <> '{category}' AND p.product_id % 50 <> {} ORDER BY amount DESC, label LIMIT {}",
            random.below(50),
            10 + random.below(10)
        ),
        _ => format!(
            "SELECT date_trunc('month', c.joined_on)::date::text AS label,
                    round(100.0 * count(*) FILTER (WHERE c.country = '{country}') / count(*), 1) AS amount,
                    count(*) AS pieces, {newest}
             FROM customers AS c WHERE c.joined_on >= date '2022-01-01' + {} GROUP BY label ORDER BY label",
            random.below(1000)
        ),
    };
    (text, subject)
}

/// Draws a time range, and returns its begin and its end: a week, a month, a quarter, half a year or all days. Most dashboards are
/// about a week.
fn window(random: &mut Random) -> (String, String) {
    let days = match random.below(80) {
        0..57 => 7,
        57..73 => 30,
        73..77 => 91,
        77..79 => 182,
        _ => DAYS,
    };
    let first = random.below(DAYS - days + 1);
    let day = |number: u64| format!("timestamptz '2024-01-01 00:00:00+00' + interval '{number} days'");
    (day(first), day(first + days))
}

/// Returns a product that sells often: those with small numbers sell more.
fn popular_product(random: &mut Random) -> u64 {
    1 + (random.fraction().powi(2) * 400.0) as u64
}

fn any<'a>(random: &mut Random, words: &[&'a str]) -> &'a str {
    words[random.below(words.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Fails if two runs of the program with the same seed would draw different dashboards. Also fails if the text of a dashboard
    /// lacks [`MARK`], by which its runs are counted, or one of the columns.
    #[test]
    fn a_seed_always_gives_the_same_dashboards() {
        let texts = |seed| {
            let mut random = Random::of_seed(seed);
            (0..500).map(|_| candidate(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(texts(1), texts(1));
        assert_ne!(texts(1), texts(2));
        for (text, subject) in texts(1) {
            assert_eq!(text.matches(MARK).count(), 1, "{text}");
            assert!(text.contains(subject.newest()) && text.contains("AS label"), "{text}");
            assert!(text.contains("AS amount") && text.contains("AS pieces"), "{text}");
        }
    }

    /// Draws 1000 candidates. Fails if none of them is about one of the subjects, if the share that is about orders is not between
    /// 75 and 95 %, or if at most 700 of the candidates are different.
    #[test]
    fn candidates_are_a_mix() {
        let mut random = Random::of_seed(1);
        let drawn: Vec<_> = (0..1000).map(|_| candidate(&mut random)).collect();
        for subject in Subject::ALL {
            assert!(drawn.iter().any(|(_, found)| *found == subject), "{subject:?}");
        }
        let orders = drawn.iter().filter(|(_, subject)| *subject == Subject::Orders).count();
        assert!((750..950).contains(&orders), "{orders}");
        assert!(drawn.iter().map(|(text, _)| text).collect::<HashSet<_>>().len() > 700);
    }

    /// Fails if a time range is empty, or ends after the days that have orders.
    #[test]
    fn windows_lie_within_the_days() {
        let mut random = Random::of_seed(3);
        let number = |text: &str| text.rsplit('\'').nth(1)?.strip_suffix(" days")?.parse::<u64>().ok();
        for _ in 0..1000 {
            let (since, until) = window(&mut random);
            let [since, until] = [since, until].map(|text| number(&text).expect("it has a number of days"));
            assert!(since < until && until <= DAYS);
        }
    }
}
