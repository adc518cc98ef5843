//! The parts whose ids begin with `frameworks-`: the cache backends of `examples/backends/` for Django, keyv and Rails, beside the
//! frameworks' own backends for PostgreSQL and for Redis. All calls go through the API of the framework.
//!
//! A script in the language of the framework (`django_client.py`, `keyv_client.mjs`, `rails_client.rb`) has all contenders in one
//! process. [`client`] tells it whose turn it is. `make/frameworks.sh` fetches the frameworks. A part whose framework is missing
//! says so, and measures nothing.
//!
//! A new framework is a constant of type [`Framework`] here, a script that keeps the protocol of `client.rs`, a part in `parts.rs`,
//! and a variable that `make/frameworks.sh` sets ([`Framework::variable`] chooses it by the language).

mod client;

use crate::data::SAVED_BYTES;
use crate::drive::one_core::OneCore;
use crate::hot_tier::duel::Contender;
use crate::pace::Pace;
use crate::queries::race::{Race, summary};
use crate::report::notation::{digits, rate, time, with_interval};
use crate::report::section::{Section, Table};
use crate::test_servers;
use client::{Client, Roster};
use pg_cache_testbed::{Cluster, Redis};
use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The number of keys of the values, and of the counters.
const KEYS: usize = 1000;
/// The number of keys that one call gets, in the rows with many keys.
const MANY: usize = 20;
/// The space, a named cache, of the values in pg_cache.
const SPACE: &str = "bench";
/// The most contenders of a framework and operation: pg_cache, the backend for PostgreSQL with two kinds of tables, and Redis.
const CONTENDERS: u32 = 4;
/// The most operations of a framework.
const OPERATIONS: u32 = 4;

/// A framework.
pub struct Framework {
    /// The id of the part.
    id: &'static str,
    name: &'static str,
    /// The directory of the backend, in `examples/backends/`.
    backend: &'static str,
    /// The script, beside this file.
    script: &'static str,
    language: Language,
    /// The programs and packages that the framework needs, as shown if one is missing.
    needs: &'static str,
}

/// The language of a script, which decides how it is started.
enum Language {
    Python,
    Node,
    Ruby,
}

pub const DJANGO: Framework = Framework {
    id: "frameworks-django",
    name: "Django",
    backend: "django",
    script: "django_client.py",
    language: Language::Python,
    needs: "Python with the packages of Django",
};

pub const KEYV: Framework = Framework {
    id: "frameworks-keyv",
    name: "keyv",
    backend: "keyv",
    script: "keyv_client.mjs",
    language: Language::Node,
    needs: "Node.js with the packages of keyv",
};

pub const RAILS: Framework = Framework {
    id: "frameworks-rails",
    name: "Rails",
    backend: "rails",
    script: "rails_client.rb",
    language: Language::Ruby,
    needs: "Ruby with Active Record and a client for Redis",
};

/// Returns how long one of these parts takes at most.
pub fn estimate(pace: &Pace) -> Duration {
    // Starting and filling the servers takes about 10 s.
    let turns = CONTENDERS * OPERATIONS * (pace.read_rounds + 1) as u32;
    pace.framework_turn * turns + Duration::from_secs(10)
}

impl Framework {
    /// Measures the part.
    pub fn measure(&self, pace: &Pace) -> Section {
        let Some(program) = found(self.variable()) else {
            return self.left_out(&format!("{} cannot be had on this machine", self.needs));
        };
        let redis = Redis::start();
        let cluster = Cluster::start(&test_servers::conf());
        let mut session = cluster.connect("postgres");
        session
            .batch_execute(&format!("CREATE EXTENSION pg_cache; SELECT cache_create_space('{SPACE}')"))
            .expect("pg_cache is installed");
        let command = self.command(program, &cluster, &redis);
        let (client, roster) = match Client::start(command) {
            Ok(started) => started,
            Err(error) => {
                return self.left_out(&format!("the script of {} does not start: {error:#}", self.name));
            }
        };
        // By now, each contender has connected and has filled its cache, so these are the backends of all of them.
        let backends = session
            .query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()", &[])
            .expect("the sessions are listed");
        let mut processes: Vec<u32> =
            backends.iter().map(|row| row.get::<_, i32>(0).cast_unsigned()).collect();
        processes.extend(redis.info("process_id").and_then(|process| process.parse::<u32>().ok()));
        processes.push(client.process());
        let client = RefCell::new(client);
        let races: Vec<Race> = {
            let _alone = OneCore::hold(&processes).expect("a core can be chosen");
            roster.operations.iter().map(|operation| hold(&roster, operation, &client, pace)).collect()
        };
        let version: String = session
            .query_one("SELECT split_part(current_setting('server_version'), ' ', 1)", &[])
            .expect("the server has a version")
            .get(0);
        let redis_version = redis.info("redis_version").unwrap_or_default();
        self.section(pace, &roster, &races, &format!("PostgreSQL {version}, Redis {redis_version}"))
    }

    /// Returns the variable by which `make/frameworks.sh` names the program or the directory of packages of the framework.
    fn variable(&self) -> &'static str {
        match self.language {
            Language::Python => "PG_CACHE_BENCH_PYTHON",
            Language::Node => "PG_CACHE_BENCH_NODE_MODULES",
            Language::Ruby => "PG_CACHE_BENCH_RUBY",
        }
    }

    /// Returns the command that starts the script.
    fn command(&self, program: String, cluster: &Cluster, redis: &Redis) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (interpreter, modules) = match self.language {
            Language::Node => ("node".to_owned(), Some(program)),
            Language::Python | Language::Ruby => (program, None),
        };
        let mut command = Command::new(interpreter);
        command.arg(here.join("src/frameworks").join(self.script));
        command.arg(here.join("../examples/backends").join(self.backend)).arg(redis.socket());
        command.args([SPACE, &KEYS.to_string(), &SAVED_BYTES.to_string(), &MANY.to_string()]).args(modules);
        // Python would write directories beside the files that it imports.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if let (Language::Ruby, Some(gems)) = (&self.language, found("PG_CACHE_BENCH_GEMS")) {
            command.env("GEM_HOME", gems);
        }
        cluster.point_here(command)
    }

    /// Returns the section of a framework that is not measured.
    fn left_out(&self, why: &str) -> Section {
        Section {
            id: self.id.into(),
            title: self.title(),
            explained: vec![format!("**Not measured:** {why}.")],
            tables: Vec::new(),
            goals: Vec::new(),
            figures: serde_json::Value::Null,
        }
    }

    fn title(&self) -> String {
        format!("Through a framework: {}", self.name)
    }

    fn section(&self, pace: &Pace, roster: &Roster, races: &[Race], servers: &str) -> Section {
        let mut explained = vec![
            format!("{}; {servers}.", roster.versions),
            format!(
                "One process has all contenders, and calls them through the API of {}, one call at a time. Its connections to PostgreSQL \
                 and to Redis are persistent, and go over Unix sockets on the same machine. There are {KEYS} keys in a random order, with \
                 values of {SAVED_BYTES} bytes that live for a day. All reads are hits, which the process checks. The process, its \
                 sessions and Redis share one core, because only one of them works at a time.",
                self.name
            ),
            format!(
                "The contenders take turns of {} ms in {} rounds, after one round that does not count. The figures are medians of the \
                 rounds, with an interval that holds the true median with at least 95 % probability. The ratio is that of the times, \
                 round by round: above 1, the contender takes longer than pg_cache.",
                pace.framework_turn.as_millis(),
                pace.read_rounds
            ),
            "Each call is a transaction of its own. The server has its default settings for commits: those that write to a table wait \
             for the disk, unless the table is UNLOGGED. Redis writes nothing to disk, and neither does pg_cache without its table tier. "
                .to_owned()
                + &roster.notes.join(" "),
        ];
        let missing = roster.missing.iter().map(|missing| format!("Left out: {missing}"));
        explained.extend(missing);
        Section {
            id: self.id.into(),
            title: self.title(),
            goals: Vec::new(),
            tables: vec![table(races, roster)],
            explained,
            figures: serde_json::json!({ "versions": roster.versions, "missing": roster.missing, "races": races }),
        }
    }
}

/// Returns the value of a variable of `make/frameworks.sh`. `None` if what it names is missing.
fn found(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Compares the contenders that take part in an operation, in turns (`queries/race.rs`).
fn hold(roster: &Roster, operation: &client::Operation, client: &RefCell<Client>, pace: &Pace) -> Race {
    let contenders =
        roster.contenders.iter().enumerate().filter(|(_, contender)| contender.has(&operation.id));
    let contenders = contenders.map(|(place, contender)| {
        Contender::new(&contender.name, move || {
            let turn = client.borrow_mut().turn(place, &operation.id, pace.framework_turn);
            turn.unwrap_or_else(|error| panic!("{}, {}: {error:#}", contender.name, operation.title))
        })
    });
    Race::hold(&operation.title, pace.read_rounds, contenders.collect())
}

/// Returns the races as a table. Contenders that are missing have a row at its end.
fn table(races: &[Race], roster: &Roster) -> Table {
    let mut table = Table::new(2, ["", "contender", "one call", "× pg_cache", "calls per second"]);
    for race in races {
        let names = race.names();
        for (place, name) in names.iter().enumerate() {
            let ratio =
                if place == 0 { "1".into() } else { with_interval(race.ratio(name, names[0]), digits) };
            let each = summary(race.times(name));
            let title = if place == 0 { race.title().to_owned() } else { String::new() };
            table.rows.push(vec![
                title,
                (*name).to_owned(),
                with_interval(each, time),
                ratio,
                with_interval(each.inverted(1e9), rate),
            ]);
        }
    }
    for missing in &roster.missing {
        let name = missing.split(':').next().unwrap_or_default();
        table.rows.push(["", name, "cannot be had", "–", "–"].map(str::to_owned).to_vec());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a race of two contenders, the second of which takes four times as long.
    fn race() -> Race {
        let contender = |name: &str, time: f64| Contender::new(name, move || time);
        Race::hold("get", 6, vec![contender("pg_cache", 50_000.0), contender("table", 200_000.0)])
    }

    fn roster(missing: &[&str]) -> Roster {
        let missing = missing.iter().map(|missing| (*missing).to_owned()).collect();
        Roster {
            versions: "F 1".into(),
            operations: Vec::new(),
            contenders: Vec::new(),
            missing,
            notes: vec!["A note.".into()],
        }
    }

    /// Fails if a ratio is upside down, if pg_cache is not the reference, or if a rate does not belong to its time.
    #[test]
    fn times_are_divided_by_those_of_pg_cache() {
        let rows = table(&[race()], &roster(&[])).rows;
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0][..4], ["get", "pg_cache", "50.0 µs (50.0 – 50.0 µs)", "1"]);
        assert_eq!(rows[1][3..], ["4.00 (4.00 – 4.00)", "5.00 k (5.00 – 5.00 k)"]);
    }

    /// Fails if a contender that cannot be had is neither in the table nor explained.
    #[test]
    fn missing_contenders_are_named() {
        let roster = roster(&["a_gem: no registry"]);
        let section = RAILS.section(&Pace::QUICK, &roster, &[race()], "S 1");
        let row = section.tables[0].rows.last().expect("the table has rows");
        assert_eq!(row[1..3], ["a_gem", "cannot be had"]);
        assert!(section.explained.iter().any(|text| text == "Left out: a_gem: no registry"));
        assert!(section.explained.iter().any(|text| text.ends_with("A note.")));
    }

    /// Fails if a framework that is missing has a table, or if its section has another id than the part.
    #[test]
    fn a_missing_framework_says_so() {
        for framework in [DJANGO, KEYV, RAILS] {
            let section = framework.left_out("it cannot be had");
            assert_eq!((section.id.as_str(), section.tables.len()), (framework.id, 0));
            assert_eq!(section.explained, ["**Not measured:** it cannot be had."]);
        }
    }

    /// Fails if a script or a backend is not where the command looks for it.
    #[test]
    fn scripts_and_backends_are_there() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for framework in [DJANGO, KEYV, RAILS] {
            assert!(here.join("src/frameworks").join(framework.script).is_file());
            assert!(here.join("../examples/backends").join(framework.backend).is_dir());
        }
    }
}
