//! Pairs of queries: texts that look alike and are not the same query, texts that differ in comments only, and the pairs of
//! SQLancer's methods, whose results must agree although their texts have nothing in common.

use super::cached::{Answer, cost, is_hit};
use super::changes::{self, Made};
use super::grammar::{self, Argument, Text};
use super::schema::{RELATIONS, Type};
use super::{is_long, set_up};
use crate::hunter::dice::{Dice, seed};
use crate::memory::cluster;
use pg_cache_testbed::{Conf, Database};
use postgres::Client;
use std::time::{Duration, Instant};

/// Groups of texts, each of which is another query, or no query at all. They read the table `t` of [`LOOKALIKE_SETUP`].
const LOOKALIKES: &[&[&str]] = &[
    &["SELECT 'a b'", "SELECT 'a  b'", "SELECT 'a\tb'", "SELECT 'a\nb'", "SELECT 'A b'", "SELECT ' a b'"],
    &[
        "SELECT 'x /* y */ z'",
        "SELECT 'x  z'",
        "SELECT 'x z'",
        "SELECT 'x /* z */ z'",
        "SELECT 'x ' /* y */ 'z'",
    ],
    &["SELECT 'a--b'", "SELECT 'a'--b'", "SELECT 'a--c'", "SELECT 'a-- b'"],
    &[
        "SELECT $$a b$$",
        "SELECT $$a  b$$",
        "SELECT $x$a b$x$ || ''",
        "SELECT $$a /* */ b$$",
        "SELECT $$a -- b\n$$",
    ],
    &[
        "SELECT $a$ $b$ $a$",
        "SELECT $a$  $b$ $a$",
        "SELECT $a$ $b$  $a$",
        "SELECT $a$ 'b' $a$",
        "SELECT $a$ 'b'  $a$",
    ],
    // A newline between two literals joins them. Without it, there is no such query.
    &[
        "SELECT 'a'\n'b'",
        "SELECT 'a' 'b'",
        "SELECT 'a''b'",
        "SELECT 'a' AS b",
        "SELECT 'a'\n\n  'c'",
        "SELECT 'a' /* \n */ 'b'",
    ],
    &["SELECT 'a' -- c\n'b'", "SELECT 'a' -- c 'b'", "SELECT 'a' -- c\n 'd'", "SELECT 'a' /* c */\n'e'"],
    &["SELECT E'a\\nb'", "SELECT 'a\\nb'", "SELECT E'a\\\\nb'", "SELECT E 'a\\nb'", "SELECT E'a\\n b'"],
    &[
        "SELECT U&'\\0061 b'",
        "SELECT U&'!0061 b' UESCAPE '!'",
        "SELECT U&'!0061 b'",
        "SELECT U & 'x'",
        "SELECT U&'\\0061  b'",
    ],
    &["SELECT B'101'::text", "SELECT X'101'::text", "SELECT B'1 01'::text", "SELECT b '101'::text"],
    &["SELECT 1 - -1", "SELECT 1 --1", "SELECT 1 - - - 1", "SELECT 1 - 1"],
    &["SELECT 1 --1\n+ 1", "SELECT 1 --1 + 1", "SELECT 1 - 1\n+ 1", "SELECT 1 --1\n+ 2"],
    &["SELECT 1 /* /* */ + 1 -- */", "SELECT 1 /* /* */ */ + 1 -- */", "SELECT 1 /* */ + 2 -- */"],
    &["SELECT 1 -- /*\n+ 1 -- */", "SELECT 1 /*\n+ 1 -- */", "SELECT 1 -- /*\n+ 2 -- */"],
    &[
        "SELECT \"a b\" FROM t",
        "SELECT \"a  b\" FROM t",
        "SELECT \"A b\" FROM t",
        "SELECT \"a /* */ b\" FROM t",
        "SELECT a b FROM t",
    ],
    &["SELECT a FROM t", "SELECT \"A\" FROM t", "SELECT A FROM t WHERE false", "SELECT \"a\"\"\" FROM t"],
    &["SELECT ab FROM t", "SELECT a b FROM t WHERE b > 0", "SELECT a.b FROM t AS a", "SELECT a,b FROM t"],
    &[
        "SELECT a$b$ FROM t",
        "SELECT a$b$  , 1 FROM t",
        "SELECT a $b$ $b$ FROM t",
        "SELECT a$b$, 'x  y' FROM t -- $b$",
        "SELECT a$b$, 'x y' FROM t -- $b$",
    ],
    &["SELECT @ -5", "SELECT @-5", "SELECT @ - 6"],
    &["SELECT 3 <> -1", "SELECT 3 <>-2", "SELECT 3 < > -1"],
    &["SELECT 1.5", "SELECT 1 .5", "SELECT 1. + 5", "SELECT 15"],
    &["SELECT 1e1", "SELECT 1 e1", "SELECT 1e+1 + 0", "SELECT 1 e"],
    &["SELECT count(*) FROM parent", "SELECT count(*) FROM ONLY parent", "SELECT count(*) FROM parent *, t"],
    &["SELECT 'it''s'", "SELECT 'it' 's'", "SELECT 'it'\n's'", "SELECT 'it'' s'"],
    &["SELECT \"a\" FROM t", "SELECT 'a' FROM t", "SELECT $$\"a\"$$ FROM t", "SELECT U&\"\\0062\" FROM t"],
    &["SELECT 1", "SELECT 1; SELECT 2", "SELECT 1,", "", ";", "-- SELECT 1"],
    &["SELECT 'ä'", "SELECT 'a\u{308}'", "SELECT 'Ä'", "SELECT '\u{a0}'", "SELECT ' '"],
    &[
        "SELECT CASE WHEN true THEN 1 END",
        "SELECT CASE WHEN true THEN 1 ELSE 2 END",
        "SELECT CASE WHEN false THEN 1 END",
    ],
    &["SELECT 'a' || 'b'", "SELECT 'a' | | 'b'", "SELECT 'a' ||\n'c'"],
    &[
        "SELECT x FROM (SELECT 1 AS x) AS t",
        "SELECT t FROM (SELECT 1 AS x) AS t",
        "SELECT t.* FROM (SELECT 2 AS x) AS t",
    ],
];

/// Creates the tables that [`LOOKALIKES`] read.
const LOOKALIKE_SETUP: &str = r#"CREATE TABLE t ("a b" int, "a  b" int, "A b" int, "a /* */ b" int, a int, "A" int, "a""" int, ab int, b int, a$b$ int);
    INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    CREATE TABLE parent (i int); CREATE TABLE child () INHERITS (parent);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2), (3)"#;

/// Asks for a query through the cache. The column list is that of the query, or another one if it has none.
fn cached(session: &mut Client, text: &Text) -> (Answer, String) {
    let columns = text.columns(session);
    text.cached(session, columns.as_deref().unwrap_or("(c1 text)"))
}

/// Returns whether the answers agree. A text without a query fails with one error or another.
fn agree(cached: &Answer, direct: &Answer) -> bool {
    // Without the cache, several statements are no error, and neither is an empty one.
    cached.has_failed() && (direct.has_failed() || direct.is_same(&Answer::Rows(Vec::new()), true))
        || cached.is_same(direct, false)
}

/// Every text is asked for after every other one of its group. Fails if it gets the result of another one.
#[test]
fn texts_that_look_alike_do_not_share_a_result() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    session.batch_execute(LOOKALIKE_SETUP).expect("tables");
    let mut wrong = Vec::new();
    for group in LOOKALIKES {
        for first in *group {
            session.batch_execute("SELECT cache_flush()").expect("it is flushed");
            cached(&mut session, &Text::plain(first));
            for second in *group {
                let text = Text::plain(second);
                let several = second.contains("; SELECT");
                let direct = text.direct(&mut other);
                for session in [&mut session, &mut other] {
                    let (cached, status) = cached(session, &text);
                    let is_right = if several { cached.has_failed() } else { agree(&cached, &direct) };
                    if !is_right {
                        wrong.push(format!("{second:?} after {first:?}: {cached:?} ({status}), and without the cache {direct:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong: {wrong:#?}", wrong.len());
}

/// With `standard_conforming_strings = off`, a backslash escapes a quote. Fails if a session gets the result that the same text has
/// with the other value of the setting.
#[test]
fn a_text_means_something_else_where_a_backslash_escapes() {
    let database = Database::create();
    let mut sessions = [(); 2].map(|()| database.connect());
    for setting in ["on", "off", "on"] {
        for session in &mut sessions {
            let set = format!("SET standard_conforming_strings = {setting}; SET escape_string_warning = off");
            session.batch_execute(&set).expect("it is set");
            for query in [
                "SELECT 'a\\nb'",
                "SELECT '\\' || 'x  y' || '\\'",
                "SELECT '\\'  x' AS y --'",
                "SELECT '\\' x' AS y --'",
            ] {
                let text = Text::plain(query);
                for _ in 0..2 {
                    let direct = text.direct(session);
                    let (cached, status) = cached(session, &text);
                    assert!(agree(&cached, &direct), "{setting}: {query}: {cached:?} ({status}), {direct:?}");
                }
            }
        }
    }
}

/// Lists of arguments that look alike, each for the same query. Fails if one list gets the result of another one.
#[test]
fn arguments_that_look_alike_do_not_share_a_result() {
    let database = Database::create();
    let mut session = database.connect();
    /// A list of arguments, each as JSON and as an SQL literal.
    type List = &'static [(&'static str, &'static str)];
    let lists: [(&str, &[List]); 5] = [
        (
            "SELECT $1::text",
            &[
                &[("1", "'1'")],
                &[("1.0", "'1.0'")],
                &[("1.00", "'1.00'")],
                &[("\"1 \"", "'1 '")],
                &[("null", "NULL")],
                &[("\"null\"", "'null'")],
                &[("true", "'true'")],
                &[("\"\"", "''")],
                &[("\"a\\u0062\"", "'ab'")],
                &[("\"ab\"", "'ab'")],
                &[("\"$1\"", "'$1'")],
            ],
        ),
        (
            "SELECT $1::text, $2::text",
            &[
                &[("\"a\"", "'a'"), ("\"b\"", "'b'")],
                &[("\"a\\\", \\\"b\"", "'a\", \"b'"), ("null", "NULL")],
                &[("\"ab\"", "'ab'"), ("\"\"", "''")],
                &[("\"b\"", "'b'"), ("\"a\"", "'a'")],
                &[("null", "NULL"), ("\"a\"", "'a'")],
            ],
        ),
        (
            "SELECT $1::int + $2::int * 10",
            &[
                &[("1", "1"), ("2", "2")],
                &[("2", "2"), ("1", "1")],
                &[("12", "12"), ("0", "0")],
                &[("\"1\"", "1"), ("2", "2")],
            ],
        ),
        (
            "SELECT $1::int[]",
            &[
                &[("[1, 2]", "'{1,2}'")],
                &[("[12]", "'{12}'")],
                &[("[1, null]", "'{1,NULL}'")],
                &[("[]", "'{}'")],
                &[("null", "NULL")],
                &[("[2, 1]", "'{2,1}'")],
            ],
        ),
        (
            "SELECT $1::jsonb",
            &[
                &[("{\"a\": 1}", "'{\"a\": 1}'")],
                &[("{\"a\": \"1\"}", "'{\"a\": \"1\"}'")],
                &[("[1]", "'[1]'")],
                &[("{}", "'{}'")],
            ],
        ),
    ];
    for (query, arguments) in lists {
        for first in arguments {
            session.batch_execute("SELECT cache_flush()").expect("it is flushed");
            for second in [first].into_iter().chain(arguments) {
                let arguments = second
                    .iter()
                    .map(|(json, literal)| Argument { json: (*json).into(), literal: (*literal).into() });
                let text = Text { arguments: arguments.collect(), ..Text::plain(query) };
                let direct = text.direct(&mut session);
                for _ in 0..2 {
                    let (cached, status) = cached(&mut session, &text);
                    assert!(
                        !cached.has_failed() && agree(&cached, &direct),
                        "{query}, {second:?} after {first:?}: {cached:?} ({status}), {direct:?}"
                    );
                }
            }
        }
    }
}

/// Business intelligence tools put a comment with the user's name before a query.
#[test]
fn texts_that_differ_in_comments_and_white_space_share_a_result() {
    let database = Database::create();
    let [mut session, mut other] = [(); 2].map(|()| database.connect());
    session.batch_execute(LOOKALIKE_SETUP).expect("tables");
    for group in [
        &[
            "SELECT a, 'x  y' FROM t WHERE b > 1",
            "-- Metabase:: userID: 1 queryType: MBQL queryHash: 12ab\nSELECT a, 'x  y' FROM t WHERE b > 1",
            "-- Metabase:: userID: 2 queryType: MBQL queryHash: 12ab\nSELECT a, 'x  y' FROM t WHERE b > 1",
            "/* tableau */ SELECT  a,\n\t'x  y' FROM t /* t /* */ */ WHERE b > 1 -- the end",
            "SELECT a, 'x  y'\r\n  FROM t\r\n WHERE b > 1\r\n",
        ][..],
        &["SELECT 'a'\n'b'", "SELECT 'a'\n   'b'", "SELECT 'a' -- c\n'b'", "/* x */ SELECT 'a'\r\n'b'"],
    ] {
        let (first, _) = cached(&mut session, &Text::plain(group[0]));
        for query in group {
            let text = Text::plain(query);
            let direct = text.direct(&mut session);
            let (answer, status) = cached(&mut other, &text);
            assert!(
                answer.is_same(&direct, true) && answer.is_same(&first, true),
                "{query}: {answer:?}, {direct:?}"
            );
            assert!(is_hit(&status), "{query}: {status}");
        }
    }
}

/// Two methods of SQLancer. A condition splits the rows of a relation in three (true, false, null), which are together all rows.
/// And the rows that a filter leaves are as many as the rows for which the same condition as an expression is true. Each side is
/// asked for by a session of its own, mostly as a hit, while rows and definitions change.
#[test]
fn split_and_counted_conditions_agree_with_the_whole() {
    let cluster = cluster(&Conf::preloaded().set("autovacuum", "off"));
    let mut owner = cluster.connect("postgres");
    set_up(&mut owner);
    let [mut one, mut other] = [(); 2].map(|()| cluster.connect("postgres"));
    let seed = seed();
    println!("split and counted conditions: seed = {seed}");
    let (mut dice, mut made) = (Dice(seed), Made::default());
    let (mut asked, mut hits, mut compared) = (0, 0, 0);
    let began = Instant::now();
    let time = Duration::from_secs(if is_long() { 120 } else { 6 });
    let mut ask = |session: &mut Client, query: String| {
        let (answer, status) = cached(session, &Text::plain(&query));
        asked += 1;
        hits += u32::from(is_hit(&status));
        (answer, format!("{query} ({status})"))
    };
    // Also on a slow machine, so many conditions are tried that the share of hits means something.
    let mut conditions = 0;
    while began.elapsed() < time || conditions < 20 {
        let relation = dice.roll(RELATIONS.len());
        let condition = grammar::condition(&mut dice, relation);
        let name = RELATIONS[relation].name;
        // The type of a domain is sent as the type below it, which is no column list of the query.
        let cast = |column: &(&str, Type)| match column.1 {
            Type::Small => format!("{}::int", column.0),
            _ => column.0.to_owned(),
        };
        let columns: Vec<String> = RELATIONS[relation].columns.iter().map(cast).collect();
        let columns = columns.join(", ");
        let filtered = format!("SELECT {columns} FROM {name} AS r WHERE {condition}");
        if cost(&mut owner, &filtered).is_none_or(|cost| cost > 100) {
            continue;
        }
        conditions += 1;
        for _ in 0..3 {
            for _ in 0..2 {
                let whole = ask(&mut one, format!("SELECT {columns} FROM {name} AS r"));
                let parts = ask(
                    &mut other,
                    format!(
                        "{filtered} UNION ALL SELECT {columns} FROM {name} AS r WHERE NOT ({condition})
                         UNION ALL SELECT {columns} FROM {name} AS r WHERE ({condition}) IS NULL"
                    ),
                );
                let count = ask(&mut one, format!("SELECT count(*) FROM {name} AS r WHERE {condition}"));
                let sum = ask(
                    &mut other,
                    format!("SELECT coalesce(sum((({condition}) IS TRUE)::int), 0) FROM {name} AS r"),
                );
                for (one, other) in [(whole, parts), (count, sum)] {
                    // A change of definitions may have made one of them no query at all.
                    if one.0.has_failed() || other.0.has_failed() {
                        continue;
                    }
                    compared += 1;
                    assert!(
                        one.0.is_same(&other.0, false),
                        "seed {seed}:\n{}: {:?}\n{}: {:?}",
                        one.1,
                        one.0,
                        other.1,
                        other.0
                    );
                }
            }
            let change = changes::choose(&mut dice, &mut made).statements;
            owner.batch_execute(&change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        }
    }
    println!("split and counted conditions: {asked} asked, {hits} hits, {compared} compared");
    assert!(hits * 10 > asked * 4, "{hits} hits of {asked} prove little");
}
