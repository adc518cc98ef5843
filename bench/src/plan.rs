//! The plan: the list of all measurements that compare *contenders*, the alternatives that do the same work: a function of
//! pg_cache, a lookup in a table, a command of Redis.
//!
//! - A new contender is a line in one of the lists ([`IN_SQL`], [`READS`], [`WRITES`] ...), and a few lines in `setup.sql` for its
//!   data. It then takes part in every measurement of that list. A name that begins in a new way needs a colour in
//!   `report/chart.rs`.
//! - A new measurement is an entry in [`measurements`].
//!
//! Additions appear in the JSON, the tables and the chart without further work. A contender that may miss also needs a line in
//! [`TestServers::check_hits`](crate::test_servers::TestServers::check_hits), because a fast miss must not count as a hit. The
//! tests check the names.

use serde::{Deserialize, Serialize};

/// A function of the library that does nothing: no call into pg_cache can be cheaper.
const FLOOR: &str = "no-op function";
/// pg_cache with values as jsonb.
const CACHE: &str = "pg_cache";
/// pg_cache with values as text, like Redis and the table.
const CACHE_TEXT: &str = "pg_cache, text";
/// pg_cache, with all values of a request in one jsonb instead of one row for each.
const CACHE_ONE_JSONB: &str = "pg_cache, one jsonb";
/// The solution that a user would write by hand: an index lookup in an UNLOGGED table.
const TABLE: &str = "table";
/// That lookup in a function in SQL (`setup.sql`).
const TABLE_SQL: &str = "table, SQL function";
/// That lookup in a function in PL/pgSQL (`setup.sql`).
const TABLE_PLPGSQL: &str = "table, PL/pgSQL function";
/// That lookup as a subquery of the SELECT.
const TABLE_INLINE: &str = "table, subquery";
/// A real Redis server.
const REDIS: &str = "Redis";

/// One SELECT of one session evaluates these for every `key` of the table `probe`.
const IN_SQL: &[Contender] = &[
    Contender { name: FLOOR, work: Work::Expression("pgcache.noop(key)") },
    Contender { name: CACHE, work: Work::Expression("cache_get(key)") },
    Contender {
        name: TABLE_INLINE,
        work: Work::Expression("(SELECT value FROM entry WHERE entry.key = probe.key)"),
    },
    Contender { name: TABLE_SQL, work: Work::Expression("lookup_sql(key)") },
    Contender { name: TABLE_PLPGSQL, work: Work::Expression("lookup_plpgsql(key)") },
];

/// The same with keys that are computed for each call. pg_cache prefetches the entries of the keys that a scan will return next,
/// and cannot foresee computed keys.
const IN_SQL_COMPUTED: &[Contender] = &[
    Contender { name: FLOOR, work: Work::Expression("pgcache.noop(key || '')") },
    Contender { name: CACHE, work: Work::Expression("cache_get(key || '')") },
    Contender { name: TABLE_SQL, work: Work::Expression("lookup_sql(key || '')") },
];

/// These are sent over the wire, one key at a time.
const READS: &[Contender] = &[
    Contender { name: FLOOR, work: Work::Statement("SELECT pgcache.noop($1)", Given::Key) },
    Contender { name: CACHE, work: Work::Statement("SELECT cache_get($1)", Given::Key) },
    Contender { name: CACHE_TEXT, work: Work::Statement("SELECT cache_get_text($1)", Given::TextKey) },
    Contender { name: TABLE, work: Work::Statement("SELECT value FROM entry WHERE key = $1", Given::Key) },
    Contender { name: REDIS, work: Work::Redis(&["GET", "{key}"]) },
];

/// These are sent over the wire, many keys at a time.
const READS_OF_MANY: &[Contender] = &[
    Contender { name: CACHE, work: Work::Statement("SELECT * FROM cache_get_many($1)", Given::Keys) },
    Contender {
        name: CACHE_ONE_JSONB,
        work: Work::Statement("SELECT jsonb_object_agg(key, value) FROM cache_get_many($1)", Given::Keys),
    },
    Contender {
        name: TABLE,
        work: Work::Statement("SELECT key, value FROM entry WHERE key = ANY ($1)", Given::Keys),
    },
    Contender { name: REDIS, work: Work::Redis(&MGET) },
];

/// The number of keys in a request of [`READS_OF_MANY`].
const MANY: u32 = 100;

/// The Redis command that reads [`MANY`] keys.
const MGET: [&str; MANY as usize + 1] = {
    let mut words = ["{key}"; MANY as usize + 1];
    words[0] = "MGET";
    words
};

/// These are sent over the wire, one key and its value at a time. pg_cache overwrites keys of its own.
const WRITES: &[Contender] = &[
    // The no-op gets the same parameters as the other contenders.
    Contender { name: FLOOR, work: Work::Statement("SELECT pgcache.noop($1)", Given::KeyAndValue) },
    Contender {
        name: CACHE,
        work: Work::Statement("SELECT cache_set($1, $2, '1 day')", Given::WrittenKeyAndJson),
    },
    Contender {
        name: CACHE_TEXT,
        work: Work::Statement("SELECT cache_set_text($1, $2, '1 day')", Given::WrittenKeyAndText),
    },
    Contender {
        name: TABLE,
        work: Work::Statement(
            "INSERT INTO written VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
            Given::KeyAndValue,
        ),
    },
    Contender { name: REDIS, work: Work::Redis(&["SET", "{key}", "{value}"]) },
];

/// Returns the measurements, in the order of the report. The numbers in `wanted` are what the project aims at, not results.
pub fn measurements() -> Vec<Measurement> {
    let in_sql = Measurement {
        id: "read-in-sql".into(),
        group: "Read inside SQL",
        title: "from a scan".into(),
        side: Side::Read,
        clients: 1,
        pipeline: 1,
        keys: 1,
        contenders: IN_SQL,
        references: &[TABLE_SQL, FLOOR],
        wanted: &[
            Wanted { of: CACHE, to: TABLE_SQL, limit: Limit::FasterBy { goal: 10.0, floor: 7.0 } },
            Wanted { of: CACHE, to: FLOOR, limit: Limit::SlowerBy { goal: 3.0, floor: 4.0 } },
        ],
        shown_as: Shown::Time,
        counted: true,
    };
    let computed = Measurement {
        id: "read-in-sql-computed".into(),
        title: "computed".into(),
        contenders: IN_SQL_COMPUTED,
        counted: false,
        ..in_sql.clone()
    };
    let mut plan = vec![in_sql, computed];
    for (pipeline, group) in [(1, "Read over a socket"), (16, "Read over a socket, pipelined by 16")] {
        plan.extend([1, 8, 32].map(|clients| Measurement {
            id: format!("read-{clients}-clients-pipeline-{pipeline}"),
            group,
            title: title(clients),
            side: Side::Read,
            clients,
            pipeline,
            keys: 1,
            contenders: READS,
            references: &[REDIS, FLOOR, TABLE],
            wanted: if pipeline == 1 && clients < 32 {
                &[
                    Wanted { of: CACHE, to: FLOOR, limit: Limit::FasterBy { goal: 0.93, floor: 0.85 } },
                    Wanted { of: CACHE, to: REDIS, limit: Limit::FasterBy { goal: 1.1, floor: 0.9 } },
                ]
            } else {
                &[]
            },
            shown_as: Shown::Rate,
            counted: clients == 1,
        }));
    }
    plan.push(Measurement {
        id: "read-many-8-clients".into(),
        group: "Read 100 keys at a time over a socket",
        title: title(8),
        side: Side::Read,
        clients: 8,
        pipeline: 1,
        keys: MANY,
        contenders: READS_OF_MANY,
        references: &[REDIS, TABLE],
        wanted: &[Wanted { of: CACHE, to: REDIS, limit: Limit::FasterBy { goal: 1.5, floor: 0.8 } }],
        shown_as: Shown::Rate,
        counted: true,
    });
    for (pipeline, group, clients) in
        [(1, "Write over a socket", &[1, 8][..]), (16, "Write over a socket, pipelined by 16", &[8])]
    {
        plan.extend(clients.iter().map(|&clients| Measurement {
            id: format!("write-{clients}-clients{}", if pipeline == 1 { "" } else { "-pipeline-16" }),
            group,
            title: title(clients),
            side: Side::Write,
            clients,
            pipeline,
            keys: 1,
            contenders: WRITES,
            references: &[REDIS, FLOOR, TABLE],
            wanted: if pipeline == 1 && clients == 8 {
                &[
                    Wanted { of: CACHE, to: REDIS, limit: Limit::FasterBy { goal: 0.9, floor: 0.7 } },
                    Wanted { of: CACHE, to: TABLE, limit: Limit::FasterBy { goal: 1.5, floor: 1.1 } },
                ]
            } else {
                &[]
            },
            shown_as: Shown::Rate,
            counted: pipeline == 1,
        }));
    }
    plan
}

fn title(clients: u32) -> String {
    if clients == 1 { "1 client".into() } else { format!("{clients} clients") }
}

/// Several contenders that do the same work, so that they can be compared.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The name of the measurement in the JSON output. It never changes.
    pub id: String,
    /// The table and the panel of the chart that the measurement belongs to. The measurements of a group share a scale.
    pub group: &'static str,
    /// The title of the measurement within its group.
    pub title: String,
    /// Whether the measurement reads or writes. This decides how often and how long it runs.
    pub side: Side,
    /// The number of connections that work at the same time.
    pub clients: u32,
    /// Requests that a client sends before it waits for their answers.
    pub pipeline: u32,
    /// Keys of one request over the wire. Each key counts as one operation.
    pub keys: u32,
    /// The contenders, in the order in which they are shown.
    pub contenders: &'static [Contender],
    /// The contenders that the others are compared with. The table of server costs compares with the first one only.
    pub references: &'static [&'static str],
    /// The goals of the measurement.
    pub wanted: &'static [Wanted],
    /// The figure that is shown first. It must be the same for all measurements of a group.
    pub shown_as: Shown,
    /// Whether the server's processor time and events are counted too, in rounds of their own.
    pub counted: bool,
}

/// A goal for one contender, relative to another.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The contender that has the goal.
    pub of: &'static str,
    /// The contender that it is compared with: one of the references.
    pub to: &'static str,
    /// The wanted ratio.
    pub limit: Limit,
}

/// A limit. `goal` is the wanted result, and `floor` the worst acceptable one. Only the goal decides whether the report shows ✓.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// The contender must do at least this many times as many operations per second.
    FasterBy { goal: f64, floor: f64 },
    /// One operation may take at most this many times as long. `floor` is above `goal`.
    SlowerBy { goal: f64, floor: f64 },
}

/// The kind of a measurement. The times of reads vary little. Writes leave dead rows and full caches behind, so their times vary
/// more, and need more rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The measurement changes nothing.
    Read,
    /// The measurement changes stored data.
    Write,
}

/// The unit in which a speed is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Operations per second of all clients together.
    Rate,
    /// Nanoseconds per operation, if one session does the operations one after the other.
    Time,
}

/// One way to do the work of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// The name as shown. The same name has the same colour everywhere.
    pub name: &'static str,
    /// The work of the contender.
    pub work: Work,
}

/// The operation, and thereby the program that repeats it.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// An SQL expression over a `key`, evaluated for all keys in one SELECT.
    Expression(&'static str),
    /// A prepared statement over the wire, with its parameters.
    Statement(&'static str, Given),
    /// The words of a command, sent by redis-benchmark. `{key}` stands for a random key, `{value}` for the value.
    Redis(&'static [&'static str]),
}

/// The parameters of a statement. [`data`](crate::data) has the ranges of the keys and the lengths of the values. `drive/wire.rs`
/// builds the messages: a new variant needs its types, its first key, its number of keys and its value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// A key.
    Key,
    /// A key of the values that pg_cache holds as text.
    TextKey,
    /// An array of keys.
    Keys,
    /// A key and its value.
    KeyAndValue,
    /// A key of the values that only pg_cache writes, and its value as JSON.
    WrittenKeyAndJson,
    /// A key of the values that only pg_cache writes, and its value as text.
    WrittenKeyAndText,
    /// A key that was almost certainly never set, and a value of the length of the parts about values in tables (`tables/`).
    NewKeyAndText,
    /// The number of a row, from [`FIRST_KEY`](crate::data::FIRST_KEY) on, as a bigint.
    Row,
    /// The number of one of the first [`FEW_KEYS`](crate::data::FEW_KEYS) rows.
    FewRows,
    /// No parameters.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Fails if two measurements have the same id: their results would overwrite each other.
    #[test]
    fn ids_are_unique() {
        let plan = measurements();
        let ids: HashSet<_> = plan.iter().map(|measurement| &measurement.id).collect();
        assert_eq!(ids.len(), plan.len());
    }

    /// Fails if a measurement compares with a contender that it does not run, or runs two contenders of the same name.
    #[test]
    fn every_reference_is_a_contender() {
        for measurement in measurements() {
            let names: HashSet<_> = measurement.contenders.iter().map(|contender| contender.name).collect();
            assert_eq!(names.len(), measurement.contenders.len(), "{} names one twice", measurement.id);
            for reference in measurement.references {
                assert!(names.contains(reference), "{} has no {reference}", measurement.id);
            }
            for Wanted { of, to, .. } in measurement.wanted {
                assert!(names.contains(of) && measurement.references.contains(to), "{}", measurement.id);
            }
        }
    }

    /// The report joins only adjacent measurements into a group. Fails if a group would be shown in two pieces.
    #[test]
    fn the_measurements_of_a_group_are_adjacent() {
        let mut groups: Vec<_> = measurements().iter().map(|measurement| measurement.group).collect();
        let kinds: HashSet<_> = groups.iter().copied().collect();
        groups.dedup();
        assert_eq!(groups.len(), kinds.len());
    }
}
