//! Tests of restarts. After a clean restart with the same settings and the same data directory, the cache is as it was: values in
//! memory, which the server saves in a file when it stops, and values that are only in tables. The *table tier* saves values in
//! tables before they leave the memory (`docs/tables.md`). After any other start both places are empty, and no read fails.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use crate::transaction::{get, set};
use pg_cache_testbed::{Cluster, Conf, Stop, wait_until};
use postgres::Client;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use twox_hash::XxHash3_64;

/// The name of the file with the saved cache, in the data directory.
const FILE: &str = "pg_cache.region";

/// A small cache, so that it is saved quickly, with a table tier.
fn conf() -> Conf {
    with_small_tables(Conf::preloaded().set("pg_cache.hot_size", "4MB").set("pg_cache.fence_slots", "65536"))
}

/// Adds a small table tier to the settings of a server.
fn with_small_tables(conf: Conf) -> Conf {
    conf.set("pg_cache.table_size", "8MB")
}

/// Returns the path of the file with the saved cache.
fn file(cluster: &Cluster) -> PathBuf {
    cluster.data().join(FILE)
}

/// Returns the value of an SQL expression as text, or `None` if it is null.
fn text(session: &mut Client, call: &str) -> Option<String> {
    session.query_one(&format!("SELECT ({call})::text"), &[]).expect(call).get(0)
}

/// Returns the text as [`get`] returns a value.
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Restarts the server cleanly and returns a new session. Ends all other sessions. Panics if the cache was not saved.
fn restart(cluster: &Cluster) -> Client {
    cluster.stop(Stop::Fast);
    assert!(file(cluster).exists(), "the cache is not saved:\n{}", cluster.log());
    cluster.resume();
    assert!(!file(cluster).exists(), "the file outlives the start");
    cluster.connect("postgres")
}

/// Returns whether `make test-long` runs the tests.
fn is_long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Runs a command and asserts that it succeeds.
fn run(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a command that runs a program of the system as the server's account.
fn system(cluster: &Cluster, program: &str) -> Command {
    cluster.server().command(&format!("/bin/{program}"))
}

/// Replaces the directory `to` by a copy of `from`. The server must be stopped if one of them is its data directory.
fn copy_directory(cluster: &Cluster, from: &Path, to: &Path) {
    run(system(cluster, "rm").arg("-rf").arg(to));
    run(system(cluster, "cp").arg("-a").arg(from).arg(to));
}

/// Returns the process ID of the postmaster.
fn postmaster(cluster: &Cluster) -> i32 {
    let pid = fs::read_to_string(cluster.data().join("postmaster.pid")).expect("the server runs");
    pid.lines().next().and_then(|pid| pid.parse().ok()).expect("a process id")
}

/// Kills the postmaster, and waits until its children have noticed and it is gone itself.
fn kill_postmaster(cluster: &Cluster) {
    let pid = postmaster(cluster);
    cluster.kill(pid);
    let data = cluster.data();
    wait_until("the end of the server", || {
        let mut processes = fs::read_dir("/proc").expect("a list of processes").flatten();
        let works_here = |process: fs::DirEntry| {
            fs::read_link(process.path().join("cwd")).is_ok_and(|directory| directory == data)
        };
        !Path::new(&format!("/proc/{pid}")).exists() && !processes.any(works_here)
    });
}

/// Starts a cluster with the table `t`, a space whose values are only in tables, a space whose values are never in tables, and the
/// values that [`fill`] stores.
fn filled(conf: &Conf) -> Cluster {
    let cluster = cluster(conf);
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE TABLE t (v int); INSERT INTO t VALUES (0);
             SELECT cache_create_space('saved', tiers => 'table'), cache_create_space('unsaved', tiers => 'hot')",
        )
        .expect("a table and two spaces");
    fill(&cluster);
    cluster
}

/// Stores a plain value, and the sum of the table `t`, in memory and in tables. Two values that were in tables are made invalid
/// afterwards, so no reader may get them again.
fn fill(cluster: &Cluster) {
    let mut session = cluster.connect("postgres");
    assert!(set(&mut session, "k", "v"));
    assert_eq!(fetched(&mut session), truth(&mut session));
    assert_eq!(get(&mut session, "k"), some("v"));
    session
        .batch_execute(
            "SELECT cache_set_text('kept', 'v', space => 'saved'), cache_set_text('deleted', 'v', space => 'saved'),
                    cache_set_text('tagged', 'v', space => 'saved', tags => '{gone}')",
        )
        .expect("values");
    for read in
        [GET_KEPT, "cache_get_text('deleted', 'saved')", "cache_get_text('tagged', 'saved')", FETCH_SAVED]
    {
        wait_until("a value to be in a table", || is_from_table(&mut session, read));
    }
    session
        .batch_execute("SELECT cache_delete('deleted', 'saved'), cache_invalidate_tag('gone')")
        .expect("two values are invalid");
    assert_invalid(&mut session, "before a restart");
}

/// Reads the plain value that is only in a table.
const GET_KEPT: &str = "cache_get_text('kept', 'saved')";
/// Reads the sum of the table `t` through the cache. The result is only in a table.
const FETCH_SAVED: &str = "cache_fetch('sum', 'SELECT sum(v) FROM t', space => 'saved')";

/// Returns whether a read gets its value from a table.
fn is_from_table(session: &mut Client, read: &str) -> bool {
    text(session, read).is_some() && text(session, "cache_status()") == some("hit: table")
}

/// Asserts that no reader gets the values in tables that were made invalid. `why` names the case if an assertion fails.
fn assert_invalid(session: &mut Client, why: &str) {
    for key in ["deleted", "tagged"] {
        let found = text(session, &format!("cache_get_text('{key}', 'saved')"));
        assert_eq!(found, None, "{why}: {key}");
    }
}

/// Returns the sum of the table `t`, from the table itself.
fn truth(session: &mut Client) -> Option<String> {
    text(session, "SELECT sum(v) FROM t")
}

/// Returns the same sum through the cache.
fn fetched(session: &mut Client) -> Option<String> {
    text(session, "cache_fetch('sum', 'SELECT sum(v) FROM t')")
}

/// Asserts that the plain values of [`fill`] are misses, that results are current, and that no file of a saved cache is left. Then
/// fills the cache again, which must work. `why` names the case if an assertion fails.
fn assert_empty(cluster: &Cluster, why: &str) {
    let mut session = cluster.connect("postgres");
    assert_eq!(get(&mut session, "k"), None, "{why}");
    assert_eq!(text(&mut session, GET_KEPT), None, "{why}: the rows of an earlier cache are values");
    assert_invalid(&mut session, why);
    assert_eq!(fetched(&mut session), truth(&mut session), "{why}");
    assert_eq!(text(&mut session, FETCH_SAVED), truth(&mut session), "{why}");
    assert_eq!(findings(&mut session), Vec::<String>::new(), "{why}");
    for name in [FILE, "pg_cache.region.tmp"] {
        assert!(!cluster.data().join(name).exists(), "{why}: {name} is left");
    }
    drop(session);
    fill(cluster);
}

/// Asserts that the values of [`fill`] are hits in their places, that the invalid ones are misses, and that results are current.
/// `why` names the case if an assertion fails.
fn assert_warm(cluster: &Cluster, why: &str) {
    let mut session = cluster.connect("postgres");
    assert_eq!(get(&mut session, "k"), some("v"), "{why}\n{}", cluster.log());
    assert_eq!(text(&mut session, "cache_exists('sum')"), some("true"), "{why}");
    assert_eq!(fetched(&mut session), truth(&mut session), "{why}");
    // A worker may just copy the values to another table and empty this one. Until it has done so, a read is a miss. A fetch would
    // store the result again, so its place counts only if the result was there before.
    wait_until("the value in a table", || is_from_table(&mut session, GET_KEPT));
    wait_until("the result in a table", || {
        text(&mut session, "cache_exists('sum', 'saved')") == some("true")
    });
    assert_eq!(text(&mut session, FETCH_SAVED), truth(&mut session), "{why}");
    assert_invalid(&mut session, why);
    assert_eq!(findings(&mut session), Vec::<String>::new(), "{why}");
}

/// Changes words of the header of the saved cache, and repairs the checksum of the header. The header (`Header` in
/// `src/pg/region_file.rs`) has 27 words: 0 the magic number, 1 the checksum of the others, 2 the version of the format, 8 the
/// first word of the digest of the programs, 19 the timeline, 22 the system clock in milliseconds, 23 the first word of the ID of
/// the machine's run.
fn change_header(cluster: &Cluster, change: impl FnOnce(&mut [u64; 27])) {
    let path = file(cluster);
    let mut content = fs::read(&path).expect("the cache is saved");
    let (words, _) = content.as_chunks_mut::<8>();
    let mut header: [u64; 27] = std::array::from_fn(|at| u64::from_ne_bytes(words[at]));
    let checksum = |header: &[u64; 27]| {
        header[2..]
            .iter()
            .fold(header[0], |sum, word| XxHash3_64::oneshot_with_seed(sum, &word.to_ne_bytes()))
    };
    assert_eq!(header[1], checksum(&header), "the header has another format");
    change(&mut header);
    header[1] = checksum(&header);
    (words.iter_mut().zip(header)).for_each(|(to, word)| *to = word.to_ne_bytes());
    fs::write(&path, content).expect("it can be written");
}

/// A part of what the server's log says of a saved cache, and a way to make the cache useless like that while the server is
/// stopped.
type Damage = (&'static str, fn(&Cluster));

/// After each damage, the server must start with an empty cache, and exactly one line of its log must say why.
#[test]
fn a_saved_cache_that_is_damaged_or_does_not_fit_is_left_out() {
    let cluster = filled(&conf());
    let damages: [Damage; 9] = [
        ("is damaged", |cluster| {
            let path = file(cluster);
            let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("it is saved");
            let middle = file.metadata().expect("it has a size").len() / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).expect("it can be read");
            file.write_all_at(&[byte[0] ^ 4], middle).expect("it can be written");
        }),
        ("is not complete", |cluster| {
            let file = fs::OpenOptions::new().write(true).open(file(cluster)).expect("it is saved");
            let length = file.metadata().expect("it has a size").len();
            file.set_len(length - 1).expect("it can be cut");
        }),
        ("is not complete", |cluster| {
            fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(file(cluster))
                .map(drop)
                .expect("it is saved");
        }),
        ("is damaged", |cluster| {
            let file = fs::OpenOptions::new().write(true).open(file(cluster)).expect("it is saved");
            file.write_all_at(&[1], 100).expect("it can be written");
        }),
        ("could not open file", |cluster| run(system(cluster, "chmod").arg("000").arg(file(cluster)))),
        // The machine seems to have been started again, and its clock to have been set back by 1000 seconds.
        ("clock was set back", |cluster| {
            change_header(cluster, |header| {
                header[22] += 1_000_000;
                header[23] ^= 1;
            });
        }),
        ("another version of pg_cache", |cluster| change_header(cluster, |header| header[2] += 1)),
        ("programs or libraries", |cluster| change_header(cluster, |header| header[8] ^= 1)),
        // A server in single-user mode writes to the table.
        ("last server run", |cluster| {
            let mut command = cluster.server().command("postgres");
            command.args(["--single", "-D"]).arg(cluster.data()).arg("postgres");
            let mut child = command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("it starts");
            let mut input = child.stdin.take().expect("a pipe");
            std::io::Write::write_all(&mut input, b"UPDATE t SET v = v + 1\n").expect("it reads");
            drop(input);
            assert!(child.wait().expect("it ends").success());
        }),
    ];
    for (says, damage) in damages {
        cluster.stop(Stop::Fast);
        damage(&cluster);
        let logged = cluster.log().len();
        cluster.resume();
        assert_empty(&cluster, says);
        let log = cluster.log()[logged..].to_owned();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("pg_cache starts with an empty cache")).collect();
        assert!(lines.len() == 1 && lines[0].contains(says), "{says}: {log}");
    }
    cluster.stop(Stop::Fast);
    cluster.resume();
    assert_warm(&cluster, "nothing is wrong any more");
}

/// Settings of results and of sizes are changed while the server is stopped. The cache must then be empty, and the log must say
/// why. `pg_cache.save_on_shutdown` counts at the start, too.
#[test]
fn a_saved_cache_does_not_fit_other_settings() {
    let cluster = filled(&conf());
    for (change, says) in [
        (conf().set("TimeZone", "Asia/Tokyo"), "settings that results depend on"),
        (conf().set("pg_cache.hot_size", "5MB"), "settings that size shared memory"),
        (conf().set("pg_cache.fence_slots", "70000"), "settings that size shared memory"),
        (conf().set("max_connections", "50"), "settings that size shared memory"),
        (conf().set("max_prepared_transactions", "7"), "settings that size shared memory"),
        (conf().set("pg_cache.save_on_shutdown", "off"), "save_on_shutdown is off"),
    ] {
        let logged = cluster.log().len();
        cluster.restart(Stop::Fast, &change);
        assert_empty(&cluster, says);
        assert!(cluster.log()[logged..].contains(says), "{}", cluster.log());
    }
    // The setting is still off, so the next shutdown saves nothing.
    cluster.stop(Stop::Fast);
    assert!(!file(&cluster).exists(), "it is saved");
    cluster.resume();
    assert_empty(&cluster, "it is not saved");
    cluster.restart(Stop::Fast, &conf().set("pg_cache.save_on_shutdown", "on"));
    assert_empty(&cluster, "it was not saved");
    cluster.restart(Stop::Fast, &conf().set("pg_cache.save_on_shutdown", "on").set("work_mem", "5MB"));
    assert_warm(&cluster, "a setting that results do not depend on");
}

/// After each kind of crash, the cache must be empty, also after one that follows a clean restart: the file of that restart must
/// not be used again.
#[test]
fn a_cache_is_lost_with_a_crash() {
    let cluster = filled(&conf());
    cluster.stop(Stop::Immediate);
    cluster.resume();
    assert_empty(&cluster, "an immediate shutdown");
    // A backend is killed, and the server starts again by itself.
    let mut session = cluster.connect("postgres");
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).expect("a session").get(0);
    cluster.crash(pid);
    assert_empty(&cluster, "a killed backend");
    cluster.stop(Stop::Fast);
    cluster.resume();
    assert_warm(&cluster, "a clean shutdown after a crash");
    kill_postmaster(&cluster);
    cluster.resume();
    assert_empty(&cluster, "a killed postmaster");
    // After all that, a clean restart keeps the cache.
    cluster.stop(Stop::Fast);
    cluster.resume();
    assert_warm(&cluster, "a clean restart");
    // The file is gone, so a crash leads to no older cache.
    let mut session = cluster.connect("postgres");
    session.batch_execute("UPDATE t SET v = v + 1; SELECT cache_delete('k')").expect("changes");
    drop(session);
    cluster.stop(Stop::Immediate);
    cluster.resume();
    assert_empty(&cluster, "a crash after a warm start");
}

/// The postmaster may only write files of up to 200 kB, which is less than the saved cache, as if the disk were full. The
/// shutdown must succeed all the same, and the next start must remove what is left of an unfinished file.
#[test]
fn a_full_disk_costs_the_cache_and_nothing_else() {
    let cluster = filled(&conf());
    run(system(&cluster, "prlimit").arg(format!("--pid={}", postmaster(&cluster))).arg("--fsize=200000:"));
    cluster.stop(Stop::Fast);
    assert!(
        cluster.log().contains("pg_cache did not save the cache: could not write file"),
        "{}",
        cluster.log()
    );
    for name in [FILE, "pg_cache.region.tmp"] {
        assert!(!cluster.data().join(name).exists(), "{name} is left");
    }
    // A server that was killed while it saved has left a part.
    run(system(&cluster, "cp")
        .arg(cluster.data().join("PG_VERSION"))
        .arg(cluster.data().join("pg_cache.region.tmp")));
    cluster.resume();
    assert_empty(&cluster, "a full disk");
}

/// A prepared transaction survives a restart. After a clean one, the cache still knows its changes, so its end invalidates
/// exactly these. After a crash, its commit invalidates everything in the database.
#[test]
fn a_prepared_transaction_invalidates_after_a_restart_what_it_has_changed() {
    let cluster = filled(&conf());
    let mut session = cluster.connect("postgres");
    for end in ["COMMIT", "ROLLBACK"] {
        fill(&cluster);
        session
            .batch_execute(
                "SELECT cache_set_text('tagged', 'old', tags => '{tag}'), cache_set_text('deleted', 'old')",
            )
            .expect("values");
        session
            .batch_execute(
                "BEGIN; UPDATE t SET v = v + 1; SELECT cache_delete('deleted'), cache_invalidate_tag('tag'); PREPARE TRANSACTION 'p'",
            )
            .expect("it is prepared");
        drop(session);
        session = restart(&cluster);
        assert_warm(&cluster, "the transaction is prepared and not committed");
        let values = |session: &mut Client| ["tagged", "deleted"].map(|key| get(session, key));
        assert_eq!(values(&mut session), [some("old"), some("old")]);
        session.batch_execute(&format!("{end} PREPARED 'p'")).expect("it ends");
        let old = some("old").filter(|_| end == "ROLLBACK");
        assert_eq!(values(&mut session), [old.clone(), old], "{end}");
        assert_eq!(text(&mut session, "cache_exists('sum')"), Some((end == "ROLLBACK").to_string()), "{end}");
        assert_eq!(get(&mut session, "k"), some("v"), "{end}: it has not changed that");
        assert_eq!(fetched(&mut session), truth(&mut session), "{end}");
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{end}");
    }
    // After a crash, nothing is known of the transaction, so its commit invalidates everything of the database.
    session.batch_execute("BEGIN; UPDATE t SET v = v + 1; PREPARE TRANSACTION 'p'").expect("it is prepared");
    drop(session);
    cluster.stop(Stop::Immediate);
    cluster.resume();
    fill(&cluster);
    let mut session = restart(&cluster);
    assert_warm(&cluster, "a clean restart after the crash");
    session.batch_execute("COMMIT PREPARED 'p'").expect("it commits");
    assert_eq!(get(&mut session, "k"), None);
    assert_eq!(fetched(&mut session), truth(&mut session));
}

/// The data directory is not in the state that the cache was saved with, so the cache must not be used. A whole copy of a state
/// has its own cache.
#[test]
fn a_saved_cache_does_not_fit_another_state_of_the_data_directory() {
    let cluster = filled(&conf());
    let (old, new) = (cluster.data().with_file_name("old"), cluster.data().with_file_name("new"));
    let update = |cluster: &Cluster| {
        let mut session = cluster.connect("postgres");
        session.batch_execute("UPDATE t SET v = v + 1").expect("it is written");
    };
    cluster.stop(Stop::Fast);
    copy_directory(&cluster, &cluster.data(), &old);
    cluster.resume();
    assert_warm(&cluster, "a clean restart");
    update(&cluster);
    fill(&cluster);
    cluster.stop(Stop::Fast);
    copy_directory(&cluster, &cluster.data(), &new);
    // The newer file with the older directory, and the reverse.
    copy_directory(&cluster, &old, &cluster.data());
    run(system(&cluster, "cp").arg("-p").arg(new.join(FILE)).arg(cluster.data()));
    cluster.resume();
    assert_empty(&cluster, "a newer file");
    cluster.stop(Stop::Fast);
    copy_directory(&cluster, &new, &cluster.data());
    run(system(&cluster, "cp").arg("-p").arg(old.join(FILE)).arg(cluster.data()));
    cluster.resume();
    assert_empty(&cluster, "an older file");
    // A whole older copy is a state of its own, with its own cache.
    cluster.stop(Stop::Fast);
    copy_directory(&cluster, &old, &cluster.data());
    cluster.resume();
    assert_warm(&cluster, "a whole copy");
    // A server without the library leaves the file, and changes the database.
    cluster.restart(Stop::Fast, &conf().set("shared_preload_libraries", ""));
    assert!(file(&cluster).exists());
    update(&cluster);
    cluster.restart(Stop::Fast, &conf());
    assert_empty(&cluster, "a run without the library");
}

/// A standby does not use the saved cache. After its promotion, the cache is empty at first, and then works as on any
/// primary.
#[test]
fn a_standby_does_not_use_the_cache_of_the_former_primary() {
    let cluster = filled(&conf());
    cluster.stop(Stop::Fast);
    cluster.become_standby();
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_eq!(get(&mut session, "k"), None);
    session.query_one("SELECT pg_promote()", &[]).expect("it is promoted");
    assert_empty(&cluster, "a promoted standby");
    session = restart(&cluster);
    assert_eq!(get(&mut session, "k"), some("v"), "the cache of the new primary");
    drop(session);
    assert_warm(&cluster, "a clean restart after the promotion");
    // A base backup has no file, because the server runs.
    if is_long() {
        let standby = crate::memory::cluster(&conf());
        standby.stop(Stop::Fast);
        standby.follow(&cluster);
        assert!(!file(&standby).exists());
        fill(&cluster);
        standby.resume();
        let mut session = standby.connect("postgres");
        assert_eq!(get(&mut session, "k"), None);
        session.query_one("SELECT pg_promote()", &[]).expect("it is promoted");
        assert_empty(&standby, "a base backup");
        // The file of another cluster.
        standby.stop(Stop::Fast);
        cluster.stop(Stop::Fast);
        run(system(&cluster, "cp").arg(file(&cluster)).arg(file(&standby)));
        standby.resume();
        assert_empty(&standby, "another cluster's file");
    }
}

/// A signal file that appears just when the server starts could lead to another timeline, after the saved cache was loaded. The
/// cache then stays off until the next start.
#[test]
fn a_saved_cache_of_another_timeline_is_not_used() {
    let cluster = filled(&conf());
    cluster.stop(Stop::Fast);
    change_header(&cluster, |header| header[19] += 1);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    assert_eq!(get(&mut session, "k"), None);
    assert!(!set(&mut session, "k", "v"));
    assert_eq!(fetched(&mut session), truth(&mut session));
    drop(session);
    cluster.stop(Stop::Immediate);
    cluster.resume();
    assert_empty(&cluster, "the next start");
}

/// A service manager kills the server while the server saves a large cache. If the file was complete before the kill, the next
/// start may use it. Otherwise the cache must be empty. The test must catch the server while it saves, which takes a large cache,
/// so only the long run does this.
#[test]
fn a_server_that_is_killed_while_it_saves_starts_with_an_empty_cache() {
    if !is_long() {
        return;
    }
    // The large values are in memory only: they would fill the tables.
    let conf =
        Conf::preloaded().set("pg_cache.hot_size", "256MB").set("pg_cache.max_transaction_size", "1GB");
    let cluster = filled(&with_small_tables(conf));
    let mut was_caught = false;
    for _ in 0..5 {
        let many = "SELECT cache_set_text('k' || i, repeat('x', 100000), space => 'unsaved')
                    FROM generate_series(1, 2000) AS i";
        cluster.connect("postgres").batch_execute(many).expect("values");
        let pid = postmaster(&cluster);
        run(system(&cluster, "kill").args(["-INT", &pid.to_string()]));
        let part = cluster.data().join("pg_cache.region.tmp");
        wait_until("the server to save", || part.exists() || file(&cluster).exists());
        cluster.kill(pid);
        was_caught |= part.exists();
        wait_until("the end of the server", || !Path::new(&format!("/proc/{pid}")).exists());
        let is_complete = file(&cluster).exists();
        cluster.resume();
        match is_complete {
            true => assert_warm(&cluster, "the file was complete"),
            false => assert_empty(&cluster, "a part of a file"),
        }
    }
    assert!(was_caught, "the server was never killed while it saved");
}

/// Values of all kinds, what was invalidated, the statistics and the remaining times to live must be as before. An entry from
/// before the restart must also be invalidated by changes after it.
#[test]
fn a_clean_restart_keeps_the_cache_as_it_was() {
    let cluster = cluster(&conf());
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
             CREATE TABLE u (v int); INSERT INTO u VALUES (1);
             SELECT cache_create_space('s', scope => 'role')",
        )
        .expect("tables");
    session
        .batch_execute(
            "SELECT cache_set_text('plain', 'v', '1 hour'), cache_set_text('short', 'v', '150 ms'),
                    cache_set_text('tagged', 'v', tags => '{t}'), cache_set_text('gone', 'v', tags => '{u}'),
                    cache_set_text('deleted', 'v'), cache_set_text('own', 'v', space => 's'), cache_incr('n', 7);
             SELECT cache_set_text('large', repeat('large', 50000));
             SELECT cache_fetch('of t', 'SELECT sum(v) FROM t'), cache_fetch('of u', 'SELECT sum(v) FROM u');
             SELECT cache_invalidate_tag('u'), cache_delete('deleted');
             UPDATE u SET v = 2",
        )
        .expect("values");
    let hits = "SELECT sum(hits)::text FROM cache_stats";
    assert_eq!(get(&mut session, "plain"), some("v"));
    let before: Option<String> = session.query_one(hits, &[]).expect("statistics").get(0);
    session.batch_execute("BEGIN; SELECT cache_set_text('unfinished', 'v')").expect("a transaction");
    drop(session);

    let mut session = restart(&cluster);
    let after: Option<String> = session.query_one(hits, &[]).expect("statistics").get(0);
    assert_eq!(before, after, "the counts go on");
    for (key, value) in [
        ("plain", some("v")),
        ("short", None),
        ("tagged", some("v")),
        ("gone", None),
        ("deleted", None),
        ("unfinished", None),
        ("of t", some("1")),
        ("of u", None),
        ("n", some("7")),
        ("large", some(&"large".repeat(50_000))),
    ] {
        let get = if key.starts_with("of") || key == "n" { "cache_get" } else { "cache_get_text" };
        let found = text(&mut session, &format!("{get}('{key}')"));
        assert_eq!(found, value, "{key}");
    }
    assert_eq!(text(&mut session, "cache_get_text('own', 's')"), some("v"));
    assert_eq!(text(&mut session, "cache_ttl('plain') BETWEEN '59 min' AND '1 hour'"), some("true"));
    assert_eq!(findings(&mut session), Vec::<String>::new());
    // The fences (`docs/invalidation.md`) are those of before, so changes after the restart invalidate entries from before it.
    session.batch_execute("SELECT cache_invalidate_tag('t'); UPDATE t SET v = 5").expect("changes");
    assert_eq!(get(&mut session, "tagged"), None);
    assert_eq!(text(&mut session, "cache_fetch('of t', 'SELECT sum(v) FROM t')"), some("5"));
    assert!(set(&mut session, "new", "v"));

    let mut session = restart(&cluster);
    for (key, value) in [("plain", some("v")), ("tagged", None), ("new", some("v"))] {
        assert_eq!(get(&mut session, key), value, "{key} after another restart");
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// An hour after a table was begun, its values in use are copied to another table, and its rows leave the disk. To make the hour
/// pass, the saved cache says that it was saved two hours ago, in an earlier run of the machine.
#[test]
fn a_table_is_emptied_after_an_hour_and_keeps_its_values() {
    // The worker looks at its tables twice per second.
    let cluster = cluster(&conf().set("pg_cache.sweep_interval", "500ms"));
    let mut session = cluster.connect("postgres");
    session.batch_execute("SELECT cache_create_space('saved', tiers => 'table')").expect("a space");
    // Each table has an eighth of 8 MB, so these values of 20 kB begin a third one.
    const VALUES: i32 = 120;
    let is_saved = |session: &mut Client, key: i32| {
        is_from_table(session, &format!("cache_get_text('k{key}', 'saved')"))
    };
    for from in (0..VALUES).step_by(20) {
        let set = format!(
            "SELECT cache_set_text('k' || i, repeat('v', 20000) || i, '1 day', space => 'saved')
             FROM generate_series({from}, {from} + 19) AS i"
        );
        session.batch_execute(&set).expect("values are set");
        (from..from + 20).for_each(|key| wait_until("the value to be saved", || is_saved(&mut session, key)));
    }
    let tables =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'segment\\_%' AND pg_relation_size(oid) > 0";
    let begun: i64 = session.query_one(tables, &[]).expect("a catalog").get(0);
    assert!(begun >= 3, "{begun} tables");
    drop(session);
    // Within the hour, nothing happens.
    let mut session = restart(&cluster);
    let worker = "FROM cache_workers WHERE kind = 'worker' AND database = 'postgres'";
    wait_until("some looks of the worker", || {
        text(&mut session, &format!("SELECT count(*) {worker} AND last_step > started + interval '2 s'"))
            == some("1")
    });
    assert_eq!(
        text(&mut session, &format!("SELECT freed {worker}")),
        some("0"),
        "a table is emptied within the hour"
    );
    drop(session);
    cluster.stop(Stop::Fast);
    change_header(&cluster, |header| {
        header[22] -= 2 * 60 * 60 * 1000;
        header[23] ^= 1;
    });
    cluster.resume();
    let mut session = cluster.connect("postgres");
    // All are due except the one that is being filled. An emptied table may be used again at once.
    wait_until("the old tables to be emptied", || {
        text(&mut session, &format!("SELECT coalesce(max(freed), 0) >= {begun} - 1 {worker}")) == some("true")
    });
    for key in 0..VALUES {
        let get = format!("cache_get_text('k{key}', 'saved')");
        wait_until("the value to be copied", || is_from_table(&mut session, &get));
        assert_eq!(text(&mut session, &get), Some("v".repeat(20_000) + &key.to_string()));
    }
    assert_eq!(findings(&mut session), Vec::<String>::new());
}
