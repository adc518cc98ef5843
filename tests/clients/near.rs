//! The near-caches of `examples/`: each value that one of them holds equals the database's, whatever happens to connections and
//! servers. A near-cache keeps values in the process of an application. The server's journal of changes tells it which values to
//! drop: see `docs/near-caches.md`. `near.py` and `near.mjs` run a near-cache in a process of its own, and obey commands, which the
//! head of `near.py` lists.
//!
//! A *place* is a key with its space, written as `space/key`. The *cursor* is the number of the last change that the near-cache has
//! applied. After a *reset*, an answer of `cache_changes` without the changes, the near-cache drops all values.
//!
//! Some tests hold up the server's answers. In them, the near-cache finds functions of a schema `slow` first, which wait for
//! advisory locks.

use crate::language::named;
use pg_cache_testbed::{Cluster, Conf, Pooler, Stop, wait_until};
use postgres::Client;
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The language of a near-cache: `examples/near_cache.py` or `examples/near_cache.mjs`.
#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
}

/// How a near-cache learns of changes: by notifications and by polling, or by polling only.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Listen,
    Poll,
}

/// A process with a near-cache.
struct Near {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Near {
    /// Starts a near-cache whose connections lead to the server or pooler in the directory `host`. It polls every `poll_seconds`,
    /// and serves values without asking the server for at most `stale_seconds` after it asked for the last full answer of
    /// `cache_changes`. `path` is the search path of its sessions, or `None` for the default.
    fn start(
        language: Language,
        cluster: &Cluster,
        host: &Path,
        (mode, poll_seconds, stale_seconds): (Mode, f64, f64),
        path: Option<&str>,
    ) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let (program, script, modules) = match language {
            Language::Python => (named("PG_CACHE_TEST_PYTHON"), "near.py", None),
            Language::Node => ("node".to_owned(), "near.mjs", Some(named("PG_CACHE_TEST_NODE_MODULES"))),
        };
        let mode = if matches!(mode, Mode::Listen) { "listen" } else { "poll" };
        let mut command = cluster.point_here(Command::new(program));
        command
            .arg(scripts.join(script))
            .arg(mode)
            .args([poll_seconds, stale_seconds].map(|s| s.to_string()));
        command.args(modules).env("PGHOST", host).env("PGAPPNAME", "near");
        command.envs(path.map(|path| ("PGOPTIONS", format!("-c search_path={path}"))));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let commands = child.stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, commands, answers }
    }

    /// Sends a command and returns the answer.
    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("it reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.strip_suffix('\n').expect("it still runs").to_owned()
    }

    /// Returns the value of a place, as the near-cache returns it.
    fn get(&mut self, place: &str) -> String {
        self.ask(&format!("get {place}"))
    }

    /// Returns the values that the near-cache holds, by their place.
    fn held(&mut self) -> HashMap<String, String> {
        let split =
            |pair: &str| pair.split_once('=').map(|(place, value)| (place.to_owned(), value.to_owned()));
        self.ask("held").split_whitespace().filter_map(split).collect()
    }

    /// Waits until the near-cache has applied all changes so far.
    fn settle(&mut self, session: &mut Client) {
        let seq: i64 = session.query_one("SELECT public.cache_seq()", &[]).expect("it is told").get(0);
        wait_until("the cursor to pass all changes", || {
            self.ask("cursor").parse::<i64>().expect("it is a number") >= seq
        });
    }

    /// Waits until the near-cache has applied all changes so far. Then compares all values that it holds with those of the
    /// database, and returns how many there are.
    fn compare(&mut self, session: &mut Client) -> usize {
        self.settle(session);
        let held = self.held();
        for (place, value) in &held {
            let (space, key) = place.split_once('/').expect("a place has a space");
            let query = "SELECT cache_get($1, space => $2)::text";
            let truth: Option<String> = session.query_one(query, &[&key, &space]).expect("it is got").get(0);
            assert_eq!(Some(value), truth.as_ref(), "{place} is stale");
        }
        held.len()
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a cluster with what the tests need. `journal_size` is the memory for the journal, 64 bytes for each short record.
fn cluster(journal_size: &str) -> (Cluster, Client) {
    let cluster = Cluster::start(&Conf::preloaded().set("pg_cache.journal_size", journal_size));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE EXTENSION pg_cache;
             CREATE ROLE stranger LOGIN;
             CREATE TABLE watched (k int PRIMARY KEY, n bigint);
             INSERT INTO watched SELECT k, 1 FROM generate_series(0, 9) AS k;
             SELECT cache_watch('watched'), cache_create_space('flushed', default_ttl => '1 hour');
             CREATE SCHEMA slow;
             CREATE SEQUENCE slow.reads;
             CREATE FUNCTION slow.cache_get_near(k text, s text)
             RETURNS TABLE (value jsonb, keep boolean, ttl interval, tags text[]) LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM nextval('slow.reads');
                 RETURN QUERY SELECT * FROM public.cache_get_near(k, s);
                 PERFORM pg_advisory_xact_lock_shared(1);
             END $$;
             CREATE FUNCTION slow.cache_changes(since bigint, most int)
             RETURNS TABLE (seq bigint, kind text, space text, name text, at timestamptz) LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock_shared(2);
                 RETURN QUERY SELECT * FROM public.cache_changes(since, most);
             END $$",
        )
        .expect("it is prepared");
    (cluster, session)
}

/// The locks of the schema `slow`. `READS` holds up a read that has its result already, so the answer is old when it arrives.
/// `CHANGES` holds up a call of `cache_changes` before it looks at the journal.
const READS: i64 = 1;
const CHANGES: i64 = 2;

/// Holds up the near-cache.
fn hold_up(session: &mut Client, lock: i64) {
    session.execute("SELECT pg_advisory_lock($1)", &[&lock]).expect("it is locked");
}

/// Waits until the near-cache is held up.
fn wait_for(session: &mut Client, lock: i64) {
    let query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = $1 AND NOT granted";
    wait_until("the near-cache to wait", || !session.query(query, &[&lock]).expect("it is told").is_empty());
}

/// Lets the near-cache go on.
fn let_go(session: &mut Client, lock: i64) {
    session.execute("SELECT pg_advisory_unlock($1)", &[&lock]).expect("it is unlocked");
}

/// A read is answered before a change, and its answer arrives after the change was applied. The near-cache must return it, and must
/// not keep it. A value that it holds must go with the same change. Each kind of change is tried, and no change, after which the
/// near-cache must keep the value.
fn a_change_drops_a_value_and_an_answer_from_before_it(language: Language) {
    let (cluster, mut session) = cluster("64kB");
    let mode = (Mode::Poll, 0.05, 2.0);
    let mut near = Near::start(language, &cluster, cluster.socket_dir(), mode, Some("slow,public"));
    near.settle(&mut session);
    const SET: &str = "SELECT cache_set('late', '1', tags => '{tag,watched}', space => 'flushed')";
    let filling = "SELECT cache_set('filler ' || i, '1') FROM generate_series(1, 200) AS i;";
    let changes = [
        ("none", String::new()),
        ("key", "SELECT cache_set('late', '2', tags => '{tag,watched}', space => 'flushed')".to_owned()),
        ("tag", "SELECT cache_invalidate_tag('tag')".to_owned()),
        ("relation", "UPDATE watched SET n = n + 1 WHERE k = 1".to_owned()),
        ("space", "SELECT cache_flush('flushed')".to_owned()),
        ("database", "SELECT cache_flush('*')".to_owned()),
        // The journal has room for 1024 records, and these are 2000, so the cursor is no longer in it. A transaction with more than
        // 1000 records, or more than a quarter of the journal, would append a single record instead.
        ("reset", format!("BEGIN; {filling} COMMIT;").repeat(10)),
    ];
    for (kind, change) in changes {
        session.batch_execute(SET).expect("it is set");
        near.settle(&mut session);
        hold_up(&mut session, READS);
        near.ask("send flushed/late");
        wait_for(&mut session, READS);
        if kind == "reset" {
            hold_up(&mut session, CHANGES);
            wait_for(&mut session, CHANGES);
        }
        session.batch_execute(&change).expect(kind);
        if kind == "reset" {
            let_go(&mut session, CHANGES);
        }
        near.settle(&mut session);
        let_go(&mut session, READS);
        assert_eq!(near.ask("receive"), "1", "{kind}");
        let kept = usize::from(kind == "none");
        assert_eq!(near.held().len(), kept, "{kind}");
        assert_eq!(near.compare(&mut session), kept, "{kind}");
        // After a reset, the value itself may be as before.
        if kind != "reset" {
            session.batch_execute(SET).expect("it is set");
            near.settle(&mut session);
            assert_eq!(near.get("flushed/late"), "1", "{kind}");
            session.batch_execute(&change).expect(kind);
            near.compare(&mut session);
            assert_eq!(near.held().len(), kept, "a value that is held, {kind}");
        }
    }
}

/// A value is served without a question to the server only for a time after the last answer of `cache_changes`, and only for its
/// time to live. Fails if a read still returns the old value while the answers are held up, or a value that has expired.
fn a_value_is_served_only_while_the_journal_answers(language: Language) {
    let (cluster, mut session) = cluster("8MB");
    let mode = (Mode::Poll, 0.05, 1.0);
    let mut near = Near::start(language, &cluster, cluster.socket_dir(), mode, Some("slow,public"));
    session.batch_execute("SELECT cache_set('k', '1'), cache_set('short', '1', '1 s')").expect("it is set");
    near.settle(&mut session);
    let reads = |session: &mut Client| -> i64 {
        session.query_one("SELECT last_value FROM slow.reads", &[]).expect("it is told").get(0)
    };
    near.get("default/short");
    wait_until("a local hit", || {
        let before = reads(&mut session);
        near.get("default/k") == "1" && reads(&mut session) == before
    });
    hold_up(&mut session, CHANGES);
    wait_for(&mut session, CHANGES);
    session.batch_execute("SELECT cache_set('k', '2')").expect("it is set");
    wait_until("a read that asks the server", || near.get("default/k") == "2");
    let_go(&mut session, CHANGES);
    wait_until("the end of the short value", || near.get("default/short") == "null");
}

/// The near-cache is idle, so it drops only values that `cache_changes` names. Lost connections cost no values but those that have
/// changed. Neither a restart nor a crash leaves a value that has changed meanwhile.
fn changes_of_a_time_without_connections_are_applied(language: Language) {
    let (cluster, mut session) = cluster("8MB");
    let mode = (Mode::Listen, 1.0, 2.0);
    let mut near = Near::start(language, &cluster, cluster.socket_dir(), mode, None);
    let set = |session: &mut Client, keys: i32, value: i32| {
        let keys = format!("generate_series(1, {keys}) AS i");
        let query = format!("SELECT cache_set('k' || i, '{value}', '1 hour') FROM {keys}");
        session.batch_execute(&query).expect("it is set");
    };
    let fill = |near: &mut Near| {
        // A read fails on a connection that has ended. The next read connects again.
        (1..=20).for_each(|i| {
            wait_until("the server to be there", || near.get(&format!("default/k{i}")) != "error");
        });
    };
    set(&mut session, 20, 1);
    near.settle(&mut session);
    fill(&mut near);
    assert_eq!(near.compare(&mut session), 20);

    let terminate =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'near'";
    session.batch_execute(terminate).expect("they are terminated");
    set(&mut session, 5, 2);
    assert_eq!(near.compare(&mut session), 15, "the journal reaches back");

    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    set(&mut session, 10, 3);
    near.compare(&mut session);
    assert!(!near.held().contains_key("default/k10"), "it has changed");

    fill(&mut near);
    assert_eq!(near.compare(&mut session), 20);
    crash(&cluster);
    let mut session = cluster.connect("postgres");
    set(&mut session, 10, 4);
    assert_eq!(near.compare(&mut session), 0, "the cache was empty after the crash");
}

/// The directory in which a near-cache finds the socket of its server: a link, which can be removed and can lead to another server.
struct Way {
    link: PathBuf,
}

impl Way {
    /// Makes a link that leads to a server.
    fn to(cluster: &Cluster) -> Self {
        let way = Self { link: cluster.socket_dir().join("way") };
        way.lead_to(cluster);
        way
    }

    /// Makes the link lead to a server, after [`Way::cut`].
    fn lead_to(&self, cluster: &Cluster) {
        std::os::unix::fs::symlink(cluster.socket_dir(), &self.link).expect("the link is made");
    }

    /// Ends the connections of the near-cache, which cannot connect again.
    fn cut(&self, session: &mut Client) {
        std::fs::remove_file(&self.link).expect("the link is there");
        let terminate = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = 'near'";
        session.query_one(terminate, &[]).expect("they are terminated");
    }
}

/// Changes per second while the near-cache has no connection, and for how long.
const CUT_RATE: u32 = 1000;
const CUT: Duration = Duration::from_secs(10);

/// The near-cache has no connection for ten seconds, at 1000 changes per second. Afterwards it must have dropped the values that
/// have changed, and no others: a reset would cost all. It must be connected again within a second of the time from which it can
/// connect.
fn a_connection_that_is_cut_for_ten_seconds_costs_no_reset(language: Language) {
    let (cluster, mut session) = cluster("8MB");
    let way = Way::to(&cluster);
    let mut near = Near::start(language, &cluster, &way.link, (Mode::Listen, 1.0, 2.0), None);
    let keys = "SELECT count(cache_set(k || i, '0', '1 hour')) FROM generate_series(0, 99) AS i, unnest('{changed,kept}'::text[]) AS k";
    session.batch_execute(keys).expect("it is set");
    near.settle(&mut session);
    for i in 0..100 {
        near.get(&format!("default/changed{i}"));
        near.get(&format!("default/kept{i}"));
    }
    assert_eq!(near.compare(&mut session), 200);
    way.cut(&mut session);
    let set = session.prepare("SELECT cache_set('changed' || ($1::int % 100), to_jsonb($1::int), '1 hour')");
    let set = set.expect("it is prepared");
    let (began, changes) = (Instant::now(), CUT.as_secs() as u32 * CUT_RATE);
    for number in 1..=changes {
        session.execute(&set, &[&(number as i32)]).expect("it is set");
        std::thread::sleep((Duration::from_secs(1) / CUT_RATE * number).saturating_sub(began.elapsed()));
    }
    println!("{language:?}: {changes} changes in {:?}", began.elapsed());
    // The pause before a further attempt grows, so it is long now. The middle of three times leaves out a busy moment.
    let mut times = Vec::new();
    for round in 0..3 {
        if round > 0 {
            way.cut(&mut session);
            std::thread::sleep(Duration::from_secs(3));
        }
        let taken = Instant::now();
        way.lead_to(&cluster);
        let is_there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'near')";
        wait_until("the near-cache to connect", || {
            session.query_one(is_there, &[]).expect("it is told").get::<_, bool>(0)
        });
        times.push(taken.elapsed());
        near.settle(&mut session);
    }
    times.sort();
    println!("{language:?}: connected again after {times:?}");
    assert!(times[1] < Duration::from_secs(1), "{times:?}");
    assert_eq!(near.compare(&mut session), 100, "no reset, and nothing that has changed");
    assert!(near.held().keys().all(|place| place.starts_with("default/kept")));
    for i in 0..100 {
        let expected = changes - 100 + if i == 0 { 100 } else { i };
        // The first read may find that its connection was cut.
        wait_until("the present value", || near.get(&format!("default/changed{i}")) == expected.to_string());
    }
}

/// A standby that the near-cache is connected to takes over. The cache of the promoted server begins empty, so no value from before
/// may stay.
fn a_promotion_leaves_no_value(language: Language) {
    let (primary, mut session) = cluster("8MB");
    let standby = Cluster::start(&Conf::preloaded());
    standby.stop(Stop::Fast);
    standby.follow(&primary);
    standby.resume();
    let way = Way::to(&primary);
    let mut near = Near::start(language, &primary, &way.link, (Mode::Listen, 1.0, 2.0), None);
    let set = |session: &mut Client, value: i32| {
        let keys =
            format!("SELECT cache_set('k' || i, '{value}', '1 hour') FROM generate_series(1, 20) AS i");
        session.batch_execute(&keys).expect("it is set");
    };
    set(&mut session, 1);
    near.settle(&mut session);
    (1..=20).for_each(|i| _ = near.get(&format!("default/k{i}")));
    assert_eq!(near.compare(&mut session), 20);
    way.cut(&mut session);
    way.lead_to(&standby);
    let mut promoted = standby.connect("postgres");
    let is_there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'near')";
    wait_until("the near-cache to come", || {
        promoted.query_one(is_there, &[]).expect("it is told").get::<_, bool>(0)
    });
    drop(session);
    primary.stop(Stop::Immediate);
    promoted.query_one("SELECT pg_promote(wait_seconds => 180)", &[]).expect("it is promoted");
    set(&mut promoted, 2);
    assert_eq!(near.compare(&mut promoted), 0, "all values are from before the promotion");
    for i in 1..=20 {
        wait_until("a read of the promoted server", || near.get(&format!("default/k{i}")) == "2");
    }
    assert_eq!(near.compare(&mut promoted), 20);
}

/// Crashes a session that does nothing else. The server then ends all sessions and recovers.
fn crash(cluster: &Cluster) {
    let mut victim = cluster.connect("postgres");
    let process = victim.query_one("SELECT pg_backend_pid()", &[]).expect("it is told").get(0);
    cluster.crash(process);
}

/// The counters that writers have committed, by place.
type Committed = Mutex<HashMap<String, i64>>;

/// Changes values until the end of a storm. `step` returns the statements of a step and the places that they set to its number. The
/// numbers grow from step to step, and so do the values of a place. If the server ends the session, opens another one.
fn write(
    cluster: &Cluster,
    committed: &Committed,
    is_over: &AtomicBool,
    step: impl Fn(i64) -> (String, Vec<String>),
) {
    let mut session = None;
    for number in 1.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let Some(open) = session.as_mut() else {
            session = cluster.try_connect("postgres").ok();
            continue;
        };
        let (query, places) = step(number);
        // Each part is a transaction.
        match query.split("COMMIT;").try_for_each(|part| open.batch_execute(part)) {
            Ok(()) => {
                let mut committed = committed.lock().expect("no writer panics");
                committed.extend(places.into_iter().map(|place| (place, number)));
            }
            Err(_) => session = None,
        }
    }
}

/// More reads than these are made in a storm.
const READS_MIN: u64 = 1000;

/// How long ago a change must be for a reader to be stale without it: the bound of the near-cache in a storm, 1.5 s, and a second
/// for a writer that gets no processor between its change and its record in the journal.
const STALE_AFTER: Duration = Duration::from_millis(1500 + 1000);

/// Runs a near-cache with readers, and writers of keys, tags, a watched table and a space, while `disturb` disturbs them. Fails if
/// a reader got a number below one that was committed longer than [`STALE_AFTER`] before, or if a value that is held at the end
/// differs from the database's. `disturb` must return soon after its argument is true.
fn storm(
    language: Language,
    cluster: &Cluster,
    host: &Path,
    mode: Mode,
    disturb: impl FnOnce(&AtomicBool) + Send,
) {
    let mut near = Near::start(language, cluster, host, (mode, 1.0, 1.5), None);
    let (committed, is_over) = (Committed::default(), AtomicBool::new(false));
    let places: Vec<String> = (0..4000)
        .map(|i| format!("default/k{i}"))
        .chain((0..20).map(|i| format!("default/t{i}")))
        .chain((0..10).map(|i| format!("default/r{i}")))
        .chain((0..10).map(|i| format!("flushed/f{i}")))
        .collect();
    let set = |place: &str, number: i64, tags: &str| {
        let (space, key) = place.split_once('/').expect("a place has a space");
        format!("SELECT cache_set('{key}', '{number}', '1 hour', '{{{tags}}}', '{space}');")
    };
    let keys = |number: i64| {
        let place = format!("default/k{}", number * 7919 % 4000);
        (set(&place, number, ""), vec![place])
    };
    let tags = |number: i64| {
        let tag = number % 4;
        let places: Vec<_> = (0..5).map(|i| format!("default/t{}", i * 4 + tag)).collect();
        let sets: String = places.iter().map(|place| set(place, number, &format!("tag{tag}"))).collect();
        let pause = if number % 8 == 0 { "COMMIT; SELECT pg_sleep(0.02)" } else { "" };
        (format!("SELECT cache_invalidate_tag('tag{tag}'); {sets} {pause}"), places)
    };
    // The values are set only after the change of the table has committed.
    let table = |number: i64| {
        let places: Vec<_> = (0..10).map(|i| format!("default/r{i}")).collect();
        let sets: String = places.iter().map(|place| set(place, number, "watched")).collect();
        (format!("UPDATE watched SET n = {number}; COMMIT; {sets} COMMIT; SELECT pg_sleep(0.01)"), places)
    };
    let space = |number: i64| {
        let place = format!("flushed/f{}", number % 10);
        let flush = if number % 40 == 0 { "SELECT cache_flush('flushed'); COMMIT;" } else { "" };
        (format!("{flush} {} COMMIT; SELECT pg_sleep(0.001)", set(&place, number, "")), vec![place])
    };
    let (reads, stale) = std::thread::scope(|scope| {
        scope.spawn(|| write(cluster, &committed, &is_over, keys));
        scope.spawn(|| write(cluster, &committed, &is_over, tags));
        scope.spawn(|| write(cluster, &committed, &is_over, table));
        scope.spawn(|| write(cluster, &committed, &is_over, space));
        let disturber = scope.spawn(|| disturb(&is_over));
        near.ask(&format!("storm {}", places.join(" ")));
        let started = Instant::now();
        // A read of a number below the floor of its place is stale. The floors are the numbers that were committed long before.
        let mut floors = VecDeque::new();
        // On a slow machine, the storm lasts until there are enough reads.
        let is_slow = |near: &mut Near| {
            started.elapsed() < Duration::from_secs(180)
                && near.ask("reads").parse::<u64>().expect("it is a number") <= READS_MIN
        };
        while started.elapsed() < Duration::from_millis(3500) || is_slow(&mut near) {
            floors.push_back((Instant::now(), committed.lock().expect("no writer panics").clone()));
            while floors.front().is_some_and(|(at, _)| at.elapsed() > STALE_AFTER) {
                let (_, floor) = floors.pop_front().expect("it was there");
                let floor: Vec<_> = floor.iter().map(|(place, number)| format!("{place}={number}")).collect();
                near.ask(&format!("floors {}", floor.join(" ")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        is_over.store(true, Ordering::Relaxed);
        disturber.join().expect("it ends");
        // A reset at the end would leave no value to compare. After this, no change is left that could drop values, and the readers
        // fetch some again.
        near.settle(&mut cluster.connect("postgres"));
        wait_until("values to be held", || near.held().len() > 20);
        let counts = near.ask("calm");
        let (reads, stale) = counts.split_once(' ').expect("there are two counts");
        (reads.parse::<u64>().expect("it is a number"), stale.parse::<u64>().expect("it is a number"))
    });
    let mut session = cluster.connect("postgres");
    let held = near.compare(&mut session);
    println!("{language:?}, {mode:?}: {reads} reads, {stale} stale, {held} values held");
    assert_eq!(stale, 0, "reads of values that changed long before");
    assert!(reads > READS_MIN, "{reads} reads");
    assert!(held > 20, "{held} values held");
    assert_eq!(session.query("SELECT cache_check()", &[]).expect("it can be checked").len(), 0);
}

/// Connections of the near-cache are terminated all the time, and a role without any privilege sends notifications that name the
/// last change. A near-cache that moved its cursor by a notification would miss changes.
fn no_lost_connection_and_no_forged_notification_hides_a_change(language: Language) {
    let (cluster, _session) = cluster("8MB");
    storm(language, &cluster, cluster.socket_dir(), Mode::Listen, |is_over| {
        let mut session = cluster.connect("postgres");
        let mut stranger = cluster.connect("postgres");
        stranger.batch_execute("SET SESSION AUTHORIZATION stranger").expect("it is set");
        for round in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let forge = "SELECT pg_notify('pg_cache', format('{\"seq\":[%s,%s]}', cache_seq(), cache_seq())),
                                pg_notify('pg_cache', 'no JSON'), pg_notify('pg_cache', '')";
            stranger.batch_execute(forge).expect("any role may notify");
            let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                             WHERE application_name = 'near' ORDER BY random() LIMIT 1";
            if round % 20 == 0 {
                session.batch_execute(terminate).expect("it is terminated");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// The server restarts and crashes under load. A near-cache that kept its values over the crash, or that missed a change before it
/// connected again, would hold old values.
fn no_restart_and_no_crash_hides_a_change(language: Language) {
    let (cluster, _session) = cluster("8MB");
    storm(language, &cluster, cluster.socket_dir(), Mode::Listen, |_| {
        std::thread::sleep(Duration::from_millis(500));
        cluster.stop(Stop::Fast);
        cluster.resume();
        std::thread::sleep(Duration::from_millis(500));
        crash(&cluster);
    });
}

/// A pooler in transaction mode forwards no notifications, so the near-cache polls, each time perhaps on another server connection.
fn polling_through_a_pooler_follows_all_changes(language: Language) {
    let (cluster, _session) = cluster("8MB");
    let pooler = Pooler::start(&cluster, 3);
    storm(language, &cluster, pooler.socket_dir(), Mode::Poll, |_| {});
}

/// Makes a test of each named function for each language. The functions must be in this file and take a [`Language`]. A function
/// that is not named in `tests!` below does not run.
macro_rules! tests {
    ($module:ident, $language:ident: $($test:ident)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::$test(super::Language::$language);
            })*
        }
    };
    ($($test:ident)*) => {
        tests!(python, Python: $($test)*);
        tests!(node, Node: $($test)*);
    };
}

tests! {
    a_change_drops_a_value_and_an_answer_from_before_it
    a_value_is_served_only_while_the_journal_answers
    changes_of_a_time_without_connections_are_applied
    a_connection_that_is_cut_for_ten_seconds_costs_no_reset
    a_promotion_leaves_no_value
    no_lost_connection_and_no_forged_notification_hides_a_change
    no_restart_and_no_crash_hides_a_change
    polling_through_a_pooler_follows_all_changes
}
