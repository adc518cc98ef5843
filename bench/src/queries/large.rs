//! The part `queries-large` of the report: measures the hit of a large result, that is, a call of `cache_query` that returns 10 000
//! stored rows. It is compared with a SELECT of the same rows from an UNLOGGED table, and with the same rows as one jsonb in the
//! cache. A *contender* is one of the alternatives that a measurement compares.

use super::race::{Race, at_least, table, times};
use super::stage::{SPACE, Stage, cached};
use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::plan::Given;
use crate::report::notation::{count, digits};
use crate::report::section::{Goal, Section};
use std::time::Duration;

const ROWS: u64 = 10_000;
/// The columns of the rows: those of the table `wide`, in its order. [`NAMES`] has their names.
const COLUMNS: &str = "id int, customer bigint, amount numeric, name text, category text, ordered date, \
    changed timestamptz, paid boolean, weight float8, note text";
const NAMES: [&str; 10] =
    ["id", "customer", "amount", "name", "category", "ordered", "changed", "paid", "weight", "note"];
const QUERY: &str = "SELECT * FROM wide";

/// The space that stores results without compression.
const PLAIN: &str = "plain";
/// The goal beside the jsonb: the speed of a hit, divided by that of `jsonb_to_recordset`, is at least this.
const TO_JSON: f64 = 3.0;
/// The goal beside the table: the speed of a hit, divided by that of an UNLOGGED table, is at least this.
const TO_TABLE: f64 = 0.85;

/// The names of the contenders.
const TABLE: &str = "SELECT * from an UNLOGGED table";
const COMPRESSED: &str = "hit, compressed";
const UNCOMPRESSED: &str = "hit, not compressed";
const JSON: &str = "cached jsonb, jsonb_to_recordset";

/// Returns about how long the part takes.
pub fn estimate(pace: &Pace) -> Duration {
    // Two races of four contenders. A turn takes 60 ms besides its measured time, and creating the table takes about 12 s with the
    // start of the server.
    (pace.read / 2 + Duration::from_millis(60)) * (8 * (pace.read_rounds + 1)) as u32
        + Duration::from_secs(12)
}

/// Measures the part.
pub fn measure(pace: &Pace) -> Section {
    let (stage, span) = (Stage::start(), pace.read / 2);
    stage.execute(&format!(
        "CREATE UNLOGGED TABLE wide AS
         SELECT i AS id, i::bigint * 7919 % 100000 AS customer, (i * 37 % 100000) / 100.0 AS amount, 'customer ' || i * 31 % 5000 AS name,
                (ARRAY['light', 'furniture', 'kitchen', 'travel'])[1 + i % 4] AS category, date '2024-01-01' + i % 700 AS ordered,
                timestamptz '2024-01-01 00:00:00+00' + i * interval '97 seconds' AS changed, i % 3 = 0 AS paid,
                sqrt(i)::float8 AS weight, md5(i::text) AS note
           FROM generate_series(1, {ROWS}) AS i;
         SELECT cache_create_space('{PLAIN}', compress_above => '64MB');
         SELECT cache_set('wide', jsonb_agg(to_jsonb(wide) ORDER BY id), '1 day') FROM wide"
    ));
    stage.execute("VACUUM (ANALYZE) wide");
    let compressed = cached(QUERY, COLUMNS, "");
    let uncompressed = cached(QUERY, COLUMNS, &format!(", space => '{PLAIN}'"));
    let json = format!("jsonb_to_recordset(cache_get('wide')) AS result({COLUMNS})");
    let sources = [
        (TABLE, "table_rows", "wide"),
        (COMPRESSED, "compressed_rows", &compressed),
        (UNCOMPRESSED, "uncompressed_rows", &uncompressed),
        (JSON, "json_rows", &json),
    ];
    for source in [&compressed, &uncompressed] {
        // The first call stores the rows, and the second returns them. Both must return the rows of the table.
        for _ in ["miss", "hit"] {
            let same = format!("SELECT count(*) FROM {source} JOIN wide ON wide = ROW(result.*)::wide");
            assert_eq!(stage.number(&same), ROWS, "the rows of {source}");
        }
    }
    let size = |space| {
        let size = format!("SELECT max(size)::bigint FROM cache_queries WHERE space = '{space}'");
        stage.number(&size) as f64 / 1e6
    };
    let sizes = [SPACE, PLAIN].map(size);

    let all_columns = NAMES.map(|name| format!("count({name})")).join(", ");
    for (_, function, source) in sources {
        stage.create_loop(function, &all_columns, source);
    }
    let only_hits = |measured: &dyn Fn() -> Race| stage.only_hits(SPACE, || stage.only_hits(PLAIN, measured));
    let stage = &stage;
    let in_server = only_hits(&|| {
        let contenders = sources
            .map(|(name, function, _)| Contender::new(name, move || stage.loop_for(function, 1, span)));
        Race::hold(
            "in the server, in a loop of PL/pgSQL, all columns counted, no writes",
            pace.read_rounds,
            contenders.into(),
        )
    });
    let over_wire = only_hits(&|| {
        let contenders = sources.map(|(name, _, source)| {
            let statement = format!("SELECT * FROM {source}");
            Contender::new(name, move || stage.wire(&statement, Given::Nothing, span))
        });
        Race::hold(
            "over the wire, prepared, text form, 1 client, no writes",
            pace.read_rounds,
            contenders.into(),
        )
    });

    let goals = [("in the server", &in_server), ("over the wire", &over_wire)]
        .into_iter()
        .flat_map(|(place, race)| goals(place, race))
        .collect();
    let races = [&in_server, &over_wire];
    Section {
        id: "queries-large".into(),
        title: "Hits of a large cached result".into(),
        goals,
        tables: vec![table(&races)],
        explained: vec![
            format!(
                "The result has {} rows of 10 columns: int, bigint, numeric, three texts, date, timestamptz, boolean and float8. It takes {} MB of \
                 the cache as it is, and {} MB compressed, which is the default for a result of this size. The contender with jsonb keeps \
                 the same rows as an array of objects in the cache, and expands it with `jsonb_to_recordset(cache_get(…))`.",
                count(ROWS as f64),
                digits(sizes[1]),
                digits(sizes[0]),
            ),
            // The loop takes its times from `clock_timestamp()` in the server (`Stage::create_loop`), so they contain no work of
            // the client.
            format!(
                "In the server, each pass of the loop counts the values of all columns, so that it reads each of them, by the clock of the server. \
                 Over the wire, the client reads all rows and decodes nothing. Client and server share one core. Each turn takes about {} \
                 ms, in {} rounds. The goals compare speeds: more is better. The ratios of the table compare times: less is better.",
                span.as_millis(),
                pace.read_rounds
            ),
        ],
        figures: serde_json::json!({ "races": races, "megabytes": sizes }),
    }
}

/// Returns the goals of the compressed form, which is the default for a result of this size (`pg_cache.compress_above`).
fn goals(place: &str, race: &Race) -> [Goal; 2] {
    let goal = |other, what: &str, limit| {
        at_least(
            &format!("{place}, the speed of a hit, of that of {what}"),
            race.ratio(other, COMPRESSED),
            limit,
            times,
        )
    };
    [goal(JSON, "jsonb_to_recordset", TO_JSON), goal(TABLE, "an UNLOGGED table", TO_TABLE)]
}
