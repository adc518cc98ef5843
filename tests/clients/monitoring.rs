//! The files of `monitoring/`: promtool checks and tests the alert rules, all files name only metrics and labels that exist, and a
//! real Prometheus with a real exporter has data for each panel of the dashboard.

use pg_cache_testbed::{Cluster, Conf, Redis, RedisConf, free_port, wait_until};
use postgres::Client;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Labels that Prometheus gives to each metric, and the one that the exporter gives instead of `database`.
const OTHER_LABELS: [&str; 4] = ["job", "instance", "name", "cached_database"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(directory().join(name)).expect("the file is there")
}

/// Runs promtool in `monitoring/` and returns its output. Panics if it finds a fault.
fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(directory())
        .output()
        .expect("promtool is installed: run make test ONLY=clients");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

/// Starts a server with everything that has metrics, and returns a session that has used the cache.
fn start() -> (Redis, Cluster, Client) {
    let redis = Redis::start_with(&RedisConf::tcp());
    let conf = Conf::preloaded()
        .set("pg_cache.redis_url", &redis.url())
        .set("pg_cache.notify_channel", "changes")
        .set("pg_cache.min_cost", "0");
    let cluster = Cluster::start(&conf);
    let mut session = cluster.connect("postgres");
    session
        .batch_execute("CREATE EXTENSION pg_cache; SELECT cache_create_space('shop', redis => true, default_ttl => '1 hour')")
        .expect("it is prepared");
    use_cache(&mut session);
    (redis, cluster, session)
}

/// Stores, reads and invalidates values.
fn use_cache(session: &mut Client) {
    for statement in [
        "SET pg_cache.track_latency = 1",
        "SELECT cache_set('k', '1', space => 'shop', tags => ARRAY['t'])",
        "SELECT cache_get('k', 'shop'), cache_get('absent', 'shop')",
        "SELECT cache_fetch('q' || n, 'SELECT 1') FROM (SELECT random() AS n) AS random, generate_series(1, 2)",
        "SELECT cache_invalidate_tag('t')",
    ] {
        session.batch_execute(statement).expect("the cache is used");
    }
}

/// Returns the rows of a query, which have one column.
fn column(session: &mut Client, query: &str) -> BTreeSet<String> {
    session.query(query, &[]).expect("it is read").iter().map(|row| row.get(0)).collect()
}

/// Returns the words of a text that follow `before`.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(before).map(move |(at, _)| {
        let rest = &text[at + before.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

/// Returns the names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    words_after(text, "pgcache_")
        .filter(|word| !word.is_empty())
        .map(|word| format!("pgcache_{word}"))
        .collect()
}

/// Returns the labels that PromQL expressions select or group by.
fn labels(text: &str) -> BTreeSet<String> {
    let between = |open: &'static str, close: char| {
        text.split(open).skip(1).map(move |rest| rest.split(close).next().unwrap_or_default())
    };
    let grouped = between("by (", ')').chain(between("on (", ')')).flat_map(|list| list.split(','));
    let selected = between("{", '}')
        .flat_map(|list| list.split(','))
        .filter_map(|matcher| matcher.split_once('='))
        .map(|(label, _)| label.trim_end_matches('!'));
    grouped.chain(selected).map(|label| label.trim().to_owned()).collect()
}

/// Returns the titles of the panels of the dashboard and their expressions.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Json = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let text = |of: &Json, member: &str| of[member].as_str().expect("a text").to_owned();
    let panels =
        dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row");
    let of_panel = |panel: &Json| {
        panel["targets"].as_array().expect("targets").iter().map(|t| text(t, "expr")).collect()
    };
    panels.map(|panel| (text(panel, "title"), of_panel(panel))).collect()
}

/// The rules are right, each alert fires in one of their tests, and `docs/monitoring.md` has a row for it.
#[test]
fn promtool_accepts_the_alerts() {
    assert!(promtool(&["check", "rules", "alerts.yml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "alerts_test.yml"]).contains("SUCCESS"));
    let (rules, tests, docs) = (
        read("alerts.yml"),
        read("alerts_test.yml"),
        std::fs::read_to_string(directory().join("../docs/monitoring.md")).expect("docs"),
    );
    let alerts: Vec<_> = words_after(&rules, "alert: ").collect();
    assert!(alerts.len() >= 15);
    for alert in alerts {
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")),
            "{alert} has no test in which it fires"
        );
        assert!(docs.contains(&format!("| `{alert}` |")), "{alert} is not in docs/monitoring.md");
    }
}

/// A metric or a label that is renamed must be renamed in `monitoring/`, too.
#[test]
fn the_files_name_metrics_that_exist() {
    let (_redis, _cluster, mut session) = start();
    let mut known = BTreeSet::new();
    // The lags of Redis and of notifications, and the space on disk, begin to exist some time after the start.
    let awaited = ["pgcache_redis_lag_seconds", "pgcache_notifications_paused", "pgcache_worker_lag_seconds"];
    wait_until("the metrics", || {
        known = column(&mut session, "SELECT DISTINCT name FROM cache_metrics");
        awaited.iter().all(|name| known.contains(*name))
    });
    let text: String = session.query_one("SELECT cache_metrics_text()", &[]).expect("the text").get(0);
    known.extend(words_after(&text, "# TYPE ").map(str::to_owned));
    let known_labels = column(&mut session, "SELECT DISTINCT jsonb_object_keys(labels) FROM cache_metrics");
    let expressions =
        panels().into_iter().flat_map(|(_, expressions)| expressions).collect::<Vec<_>>().join("\n");
    let rules = read("alerts.yml");
    let rules: String =
        rules.lines().filter(|line| !line.contains("labels: {") && !line.contains("summary:")).collect();
    for text in [&expressions, &rules] {
        let missing: Vec<_> = metrics(text).difference(&known).cloned().collect();
        assert!(missing.is_empty(), "no such metrics: {missing:?}");
        let used = labels(text);
        assert!(used.len() > 5, "{used:?}");
        let missing: Vec<_> =
            used.difference(&known_labels).filter(|label| !OTHER_LABELS.contains(&&***label)).collect();
        assert!(missing.is_empty(), "no such labels: {missing:?}");
    }
    for file in ["sql_exporter.yml", "cnpg-queries.yaml", "pg_exporter.yml", "pgwatch-metrics.yaml"] {
        let text = read(file);
        let used: BTreeSet<_> = words_after(&text, "labels->>'").map(str::to_owned).collect();
        assert_eq!(used, known_labels, "{file}");
        // These exporters need a list of the columns.
        if text.contains("usage: LABEL") {
            let listed = text.matches("usage: LABEL").count();
            assert_eq!(listed, known_labels.len() + 1, "{file}: the labels and the name");
            for label in known_labels.iter().filter(|label| *label != "database") {
                assert!(text.contains(&format!("- {label}: {{usage: LABEL")), "{file} does not list {label}");
            }
        }
        // The query stands at the end, or before the list of columns. YAML has indented it.
        let query = &text[text.find("SELECT ").expect("a query")..];
        let query = query.split("  metrics:").next().expect("a text");
        session.query(query, &[]).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// A program that is killed with its owner.
struct Program(Child);

impl Program {
    fn start(program: &str, arguments: &[String]) -> Self {
        let command =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(command.unwrap_or_else(|error| panic!("{program}: {error}: run make test ONLY=clients")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The exporter reads a real server, Prometheus reads the exporter, and each expression of the dashboard returns data.
#[test]
fn each_panel_has_data() {
    let (_redis, cluster, mut session) = start();
    let home = std::env::temp_dir().join(format!("pg_cache_monitoring_{}", std::process::id()));
    std::fs::create_dir_all(&home).expect("a directory");
    let (exporter, prometheus) = (free_port(), free_port());
    let write = |name: &str, text: String| {
        std::fs::write(home.join(name), text).expect("it is written");
        home.join(name).display().to_string()
    };
    let address =
        format!("postgres:///postgres?host={}&user=postgres&sslmode=disable", cluster.socket_dir().display());
    let text = read("sql_exporter.yml");
    let replaced = text.replace("postgres://exporter@localhost/postgres?sslmode=prefer", &address);
    assert_ne!(replaced, text);
    let of_exporter = write("sql_exporter.yml", replaced.replace("interval: 15s", "interval: 1s"));
    let text = read("prometheus.yml").replace("scrape_interval: 15s", "scrape_interval: 1s");
    let of_prometheus =
        write("prometheus.yml", text.replace("localhost:9237", &format!("localhost:{exporter}")));
    write("alerts.yml", read("alerts.yml"));
    let listen = |port: u16, option: &str| format!("{option}=localhost:{port}");
    let _exporter = Program::start(
        "prometheus-sql-exporter",
        &["-config.file".to_owned(), of_exporter, listen(exporter, "-web.listen-address")],
    );
    let data = home.join("data").display().to_string();
    let _prometheus = Program::start(
        "prometheus",
        &[
            format!("--config.file={of_prometheus}"),
            format!("--storage.tsdb.path={data}"),
            listen(prometheus, "--web.listen-address"),
        ],
    );
    let url = format!("http://localhost:{prometheus}");
    for (title, expressions) in panels() {
        for expression in expressions {
            // What Grafana would insert.
            let query = expression.replace("$__rate_interval", "10s").replace("$__range", "10s");
            let query = ["$job", "$instance", "$database"]
                .iter()
                .fold(query, |query, name| query.replace(name, ".*"));
            assert!(!query.contains('$'), "{query}");
            // No value is saved in a table here.
            if query.contains("pgcache_table_bytes") {
                continue;
            }
            wait_until(&format!("data for {title}: {query}"), || {
                use_cache(&mut session);
                let output = Command::new("promtool")
                    .args(["query", "instant", &url, &query])
                    .output()
                    .expect("promtool");
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let has_data = said.lines().any(|line| line.contains("=> ") && !line.contains("=> NaN"));
                output.status.success() && has_data
            });
        }
    }
    let _ = std::fs::remove_dir_all(home);
}
