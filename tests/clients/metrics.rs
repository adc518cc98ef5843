//! `promtool check metrics`, the checker of Prometheus, reads `cache_metrics_text()` without a complaint, also with names of spaces
//! that need escapes.

use pg_cache_testbed::{Cluster, Conf};
use postgres::Client;
use std::io::Write;
use std::process::{Command, Stdio};

/// Returns what the checker says of a text. An empty result means that the text is right.
fn complaints(text: &str) -> String {
    let mut checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: run make test ONLY=clients");
    let mut input = checker.stdin.take().expect("it has an input");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = checker.wait_with_output().expect("it ends");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(output.status.success(), said.is_empty(), "{}: {said}", output.status);
    said
}

/// Returns the metrics.
fn text(session: &mut Client) -> String {
    session.query_one("SELECT cache_metrics_text()", &[]).expect("the metrics").get(0)
}

/// The text must be right for an empty cache, for a used one, and with a database and spaces of unusual names. A text with a fault
/// shows that the checker finds one.
#[test]
fn promtool_accepts_the_text() {
    let cluster = Cluster::start(&Conf::preloaded());
    let mut session = cluster.connect("postgres");
    let name = "a \"b\" \\ \n {c=\"d\"} \u{1f600}\u{10ffff}";
    let create = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
    session.batch_execute(&create).expect("a database");
    let mut session = cluster.connect(name);
    session.batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let empty = text(&mut session);
    assert_eq!(complaints(&empty), "");
    session
        .execute(
            "SELECT cache_create_space(name), cache_set('k', '1', space => name), cache_get('k', name)
               FROM unnest(ARRAY[$1, E'\\\\n', E'\\u0001\\u007f\\u2028', '\"']) AS name",
            &[&name],
        )
        .expect("spaces");
    let used = text(&mut session);
    assert!(used.lines().count() > empty.lines().count() + 100);
    assert_eq!(complaints(&used), "");
    assert!(complaints(&used.replace("# HELP pgcache_up", "# pgcache_up")).contains("pgcache_up"));
    assert!(!complaints(&used.replace("\\n", "\n")).is_empty(), "a line feed must be escaped");
}
