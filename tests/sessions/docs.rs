//! Runs what the documentation shows: each statement in a block of SQL, each row of the README's tables of first errors and of
//! replacements for other caches, and the tour (`examples/tour.sql`). Also checks that `docs/status.md` lists every status whose
//! text is a literal inside of a variant of `Status` (`src/store/status.rs`). The check does not see statuses with a fixed text,
//! and texts that are given to `status::about`.

use pg_cache_testbed::{Cluster, Conf, Database, Server, Stop};
use postgres::{Client, SimpleQueryMessage};
use std::path::{Path, PathBuf};

/// The pages with blocks of SQL, in the order in which a reader runs them. A page that gets its first block must be added here: no
/// test notices that it is missing.
const PAGES: [&str; 10] = [
    "README.md",
    "docs/queries.md",
    "docs/advice.md",
    "docs/freshness.md",
    "docs/warmers.md",
    "docs/privileges.md",
    "docs/invalidation.md",
    "docs/tables.md",
    "docs/redis.md",
    "docs/monitoring.md",
];

/// Returns the text of a page. The name is its path in the repository.
fn page(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the statements of all SQL blocks, each with the result that the comment behind it states, or `None` without a comment.
/// A statement ends with its line. Its comment follows on the same line, after a semicolon and at least two spaces.
fn statements(page: &str) -> Vec<(String, Option<String>)> {
    let mut statements = Vec::new();
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    for block in blocks {
        let mut statement = String::new();
        for line in block.lines() {
            let (code, comment) = match line.split_once(";  ") {
                Some((code, rest)) => {
                    let comment = rest.trim().strip_prefix("-- ").expect("behind a statement is a comment");
                    (format!("{code};"), Some(comment.to_owned()))
                }
                None => (line.to_owned(), None),
            };
            statement.push_str(&code);
            statement.push('\n');
            if code.ends_with(';') {
                statements.push((std::mem::take(&mut statement), comment));
            }
        }
        assert_eq!(statement.trim(), "", "a statement ends with its line");
    }
    statements
}

/// Runs statements and returns the first column of the last row, as psql shows it, but with names for null, true and false.
/// `None` means that there was no row.
fn last_value(session: &mut Client, statement: &str) -> Result<Option<String>, postgres::Error> {
    let mut last = None;
    for message in session.simple_query(statement)? {
        if let SimpleQueryMessage::Row(row) = message {
            last = Some(match row.get(0) {
                Some("t") => "true".to_owned(),
                Some("f") => "false".to_owned(),
                Some(value) => value.to_owned(),
                None => "null".to_owned(),
            });
        }
    }
    Ok(last)
}

/// Returns the texts of the statuses that a source file sets with literals, as the table shows them: all string literals between
/// the parentheses of a status. A variant `Of` holds the whole text, the others lack the outcome before the colon.
fn statuses(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let source = code.join("\n");
    for outcome in ["Miss", "Invalidated", "Bypass", "Refused", "Of"] {
        for rest in source.split(&format!("Status::{outcome}(")).skip(1) {
            let mut depth = 1_i32;
            for (at, part) in rest.split('"').enumerate() {
                if at % 2 == 1 {
                    let text = part.replace("{}", "…");
                    found.push(match outcome {
                        "Of" => text,
                        _ => format!("{}: {text}", outcome.to_lowercase()),
                    });
                    continue;
                }
                for letter in part.chars() {
                    depth += i32::from(letter == '(') - i32::from(letter == ')');
                    if depth == 0 {
                        break;
                    }
                }
                if depth <= 0 {
                    break;
                }
            }
        }
    }
    found
}

/// Returns the source files in a folder and in its subfolders.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("a file").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// A status that the sources set, and that `docs/status.md` does not list, fails here.
#[test]
fn every_status_is_documented() {
    let table = page("docs/status.md");
    let mut count = 0;
    for folder in ["src/api", "src/query", "src/store"] {
        let path = format!("{}/../{folder}", env!("CARGO_MANIFEST_DIR"));
        for path in sources(Path::new(&path)) {
            let source = std::fs::read_to_string(&path).expect("a source file");
            for status in statuses(&source) {
                count += 1;
                assert!(table.contains(&format!("`{status}`")), "{}: {status}", path.display());
            }
        }
    }
    assert!(count > 20, "the search found {count} statuses");
}

/// Runs the statements of all pages in one session, one after the other. Each must succeed, and return the result that its
/// comment states, if it has one.
#[test]
fn examples_do_what_they_say() {
    // The examples need the database `postgres`, and leave roles, so they run in a cluster of their own.
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    let mut promised = 0;
    for name in PAGES {
        for (statement, says) in statements(&page(name)) {
            let value = last_value(&mut session, &statement)
                .unwrap_or_else(|error| panic!("{name}: {statement}: {error:?}"));
            if let Some(says) = says {
                assert_eq!(value.as_deref(), Some(&*says), "{name}: {statement}");
                promised += 1;
            }
        }
    }
    assert!(promised > 10, "the examples were found");
}

/// Returns the sample shop of the tour, with a hundredth of its customers and orders.
fn small_shop() -> String {
    let shop = page("examples/shop.sql");
    for number in ["50000", "600000"] {
        assert!(shop.contains(number), "the number of customers or orders");
    }
    shop.replace("50000", "500").replace("600000", "6000")
}

/// The tour of `make run` must play to its end in psql, also a second time on the same database, after a restart of the server. The
/// second tour shows the value that the first one has left. When the tour shows the warmer, the worker has renewed its result after
/// the refresh.
#[test]
fn the_tour_plays_twice() {
    // The tour uses all of the database, and one more session for each of its parallel calls.
    let counts_statements = !Server::from_env().lacks("pg_stat_statements");
    let libraries = if counts_statements { "pg_cache, pg_stat_statements" } else { "pg_cache" };
    let cluster = Cluster::start(&Conf::preloaded().set("shared_preload_libraries", libraries));
    let mut session = cluster.connect("postgres");
    session.batch_execute(&small_shop()).expect("a shop");
    session.batch_execute("CREATE EXTENSION pg_cache").expect("the extension installs");
    let tour = format!("{}/../examples/tour.sql", env!("CARGO_MANIFEST_DIR"));
    for play in 1..=2 {
        let mut psql = cluster.client("psql");
        // The tour itself starts psql, too.
        let programs = cluster.server().program("psql");
        let programs = programs.parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        psql.env("PATH", format!("{programs}:{path}"));
        let output =
            psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &tour]).output().expect("psql runs");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{play}: {shown}\n{}", String::from_utf8_lossy(&output.stderr));
        let part =
            shown.split("the view is refreshed").nth(1).and_then(|rest| rest.split("All stored").next());
        let part = part.unwrap_or_default();
        for text in ["\n hot\n", "\n countries | warm  |"] {
            assert!(part.contains(text), "{play}: {part}");
        }
        let advice = shown.split("Which queries are worth caching").nth(1).unwrap_or_default();
        assert_eq!(advice.contains("\nadvice "), counts_statements, "{play}: {advice}");
        assert_eq!(shown.contains("\n tour of "), play == 2, "{play}: the value of an earlier tour: {shown}");
        if play == 1 {
            cluster.stop(Stop::Fast);
            cluster.resume();
        }
    }
}

/// Returns the code spans of a table's cell.
fn codes(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// In the README's table of first errors, each mistake must raise the error of its row, and each repair must succeed.
#[test]
fn the_documented_first_errors_occur_and_their_repairs_work() {
    let database = Database::create();
    let mut session = database.connect();
    session.batch_execute("SELECT cache_set('order:42', '1')").expect("as above on the page");
    let readme = page("README.md");
    let table = readme.split("| instead of | which says | write |\n").nth(1).expect("there is such a table");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 5, "the rows were found");
    for row in rows {
        let cells: Vec<Vec<&str>> = row.split(" | ").map(codes).collect();
        let [mistakes, messages, repairs] = &cells[..] else { panic!("three columns: {row}") };
        let error = session.simple_query(mistakes[0]).expect_err(mistakes[0]);
        let message = error.as_db_error().expect("the server says so").message();
        assert!(message.starts_with(messages[0]), "{}: {message}", mistakes[0]);
        for repair in repairs {
            session.simple_query(repair).unwrap_or_else(|error| panic!("{repair}: {error:?}"));
        }
    }
}

/// Each replacement in the README's table for users of other caches must succeed.
#[test]
fn the_documented_replacements_for_commands_of_other_caches_work() {
    let database = Database::create();
    let mut session = database.connect();
    let readme = page("README.md");
    let table = readme.split("| there | here |\n").nth(1).expect("there is such a table");
    let mut tried = 0;
    for row in table.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let (_, here) = row[1..].split_once('|').expect("two columns");
        for statement in codes(here) {
            // The statements are alternatives, so each one starts with an empty cache.
            session.simple_query("SELECT cache_flush('*')").expect("it flushes");
            session.simple_query(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            tried += 1;
        }
    }
    assert!(tried > 10, "the rows were found");
}

/// The page about the table tier shows the definition of the tables. Their columns, and the option behind them, must be the real
/// ones.
#[test]
fn the_documented_table_is_the_real_one() {
    let database = Database::create();
    let mut session = database.connect();
    let page = page("docs/tables.md");
    let definition =
        page.split("CREATE UNLOGGED TABLE pgcache.segment_1 (\n").nth(1).expect("the definition");
    let (columns, rest) = definition.split_once("\n) ").expect("its end");
    let documented: Vec<String> = columns
        .lines()
        .map(|line| {
            let words = line.split("--").next().unwrap_or_default().split_whitespace();
            words.collect::<Vec<_>>().join(" ").trim_end_matches(',').to_owned()
        })
        .collect();
    let real = "SELECT array_agg(attname || ' ' || typname || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END ORDER BY attnum)
                  FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = atttypid
                 WHERE attrelid = 'pgcache.segment_1'::regclass AND attnum > 0";
    let real: Vec<String> = session.query_one(real, &[]).expect("a catalog").get(0);
    assert_eq!(documented, real);
    let options = "SELECT relpersistence = 'u' AND reloptions = '{autovacuum_enabled=false}'
                     FROM pg_class WHERE oid = 'pgcache.segment_1'::regclass";
    assert!(session.query_one(options, &[]).expect("a catalog").get::<_, bool>(0));
    assert!(rest.starts_with("WITH (autovacuum_enabled = false);"), "{rest}");
}
