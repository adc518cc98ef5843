//! What is measured: the one place where a row is added.
//!
//! - A new contender is a line in [`IN_SQL`], [`READS`] or [`WRITES`], and its data a few lines in
//!   `setup.sql`. It then takes part in every measurement of that list.
//! - A new measurement is an entry in [`measurements`].
//!
//! Whatever is put there shows up in the JSON, the tables and the chart without further work. A contender that
//! may miss also needs a line in [`Bed::check_hits`](crate::bed::Bed::check_hits): a fast miss is no hit.

use serde::{Deserialize, Serialize};

/// A function of the library that does nothing: no call into pg_cache can be cheaper.
const FLOOR: &str = "no-op function";
/// What one would write by hand: an index lookup in an UNLOGGED table.
const TABLE: &str = "table";
const TABLE_SQL: &str = "table, SQL function";
const TABLE_PLPGSQL: &str = "table, PL/pgSQL function";
const TABLE_INLINE: &str = "table, subquery";
const REDIS: &str = "Redis";

/// Evaluated for every key by one SELECT of one session.
const IN_SQL: &[Contender] = &[
    Contender { name: FLOOR, work: Work::Expression("pgcache.noop(key)") },
    Contender {
        name: TABLE_INLINE,
        work: Work::Expression("(SELECT value FROM entry WHERE entry.key = probe.key)"),
    },
    Contender { name: TABLE_SQL, work: Work::Expression("lookup_sql(key)") },
    Contender { name: TABLE_PLPGSQL, work: Work::Expression("lookup_plpgsql(key)") },
];

/// Sent over the wire, one key at a time.
const READS: &[Contender] = &[
    Contender { name: FLOOR, work: Work::Statement("SELECT pgcache.noop(:key)") },
    Contender { name: TABLE, work: Work::Statement("SELECT value FROM entry WHERE key = :key") },
    Contender { name: REDIS, work: Work::Redis(&["GET", "{key}"]) },
];

/// Sent over the wire, one key and its value at a time.
const WRITES: &[Contender] = &[
    Contender {
        name: TABLE,
        work: Work::Statement(
            "INSERT INTO written VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
        ),
    },
    Contender { name: REDIS, work: Work::Redis(&["SET", "{key}", "{value}"]) },
];

/// The measurements, in the order in which they are reported.
pub fn measurements() -> Vec<Measurement> {
    let mut plan = vec![Measurement {
        id: "read-in-sql".into(),
        group: "Read inside SQL",
        title: "one session".into(),
        side: Side::Read,
        clients: 1,
        pipeline: 1,
        contenders: IN_SQL,
        references: &[TABLE_SQL, TABLE_INLINE],
        shown_as: Shown::Time,
        counted: true,
    }];
    for (pipeline, group) in [(1, "Read over a socket"), (16, "Read over a socket, pipelined by 16")] {
        plan.extend([1, 8, 32].map(|clients| Measurement {
            id: format!("read-{clients}-clients-pipeline-{pipeline}"),
            group,
            title: title(clients),
            side: Side::Read,
            clients,
            pipeline,
            contenders: READS,
            references: &[REDIS, TABLE],
            shown_as: Shown::Rate,
            counted: clients == 1,
        }));
    }
    plan.extend([1, 8].map(|clients| Measurement {
        id: format!("write-{clients}-clients"),
        group: "Write over a socket",
        title: title(clients),
        side: Side::Write,
        clients,
        pipeline: 1,
        contenders: WRITES,
        references: &[REDIS, TABLE],
        shown_as: Shown::Rate,
        counted: true,
    }));
    plan
}

fn title(clients: u32) -> String {
    if clients == 1 { "1 client".into() } else { format!("{clients} clients") }
}

/// Several contenders doing the same, so that they can be compared.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Names it in the JSON, for good.
    pub id: String,
    /// The table and the panel of the chart it belongs to; its members share a scale.
    pub group: &'static str,
    /// What sets it apart in its group.
    pub title: String,
    /// Decides how often and how long it runs.
    pub side: Side,
    /// Connections that work at the same time.
    pub clients: u32,
    /// Operations a client sends before it waits for an answer.
    pub pipeline: u32,
    /// Who takes part, in the order in which they are shown.
    pub contenders: &'static [Contender],
    /// Whom the others are compared with.
    pub references: &'static [&'static str],
    /// Which figure is put first.
    pub shown_as: Shown,
    /// Whether the processor's counters are read as well.
    pub counted: bool,
}

/// Reads repeat well; writes leave dead rows and full caches behind and need more pairs to tell a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Leaves everything as it was.
    Read,
    /// Changes what is stored.
    Write,
}

/// How a speed is best told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Operations per second, of all clients together.
    Rate,
    /// Nanoseconds for one operation, where one session does them one after the other.
    Time,
}

/// One way to do what a measurement asks for.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// As shown. The same name has the same colour everywhere.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
}

/// What one operation is, and which program repeats it.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// An SQL expression over a `key`, for all keys in one SELECT.
    Expression(&'static str),
    /// A statement with `:key` and `:value` as parameters, sent by pgbench.
    Statement(&'static str),
    /// A command with `{key}` and `{value}` as arguments, sent by redis-benchmark.
    Redis(&'static [&'static str]),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique() {
        let plan = measurements();
        let ids: HashSet<_> = plan.iter().map(|measurement| &measurement.id).collect();
        assert_eq!(ids.len(), plan.len());
    }

    #[test]
    fn whoever_is_compared_with_takes_part() {
        for measurement in measurements() {
            let names: HashSet<_> = measurement.contenders.iter().map(|contender| contender.name).collect();
            assert_eq!(names.len(), measurement.contenders.len(), "{} names one twice", measurement.id);
            for reference in measurement.references {
                assert!(names.contains(reference), "{} has no {reference}", measurement.id);
            }
        }
    }

    #[test]
    fn groups_are_not_torn_apart() {
        let mut groups: Vec<_> = measurements().iter().map(|measurement| measurement.group).collect();
        let kinds: HashSet<_> = groups.iter().copied().collect();
        groups.dedup();
        assert_eq!(groups.len(), kinds.len());
    }
}
