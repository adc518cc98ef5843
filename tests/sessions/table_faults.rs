//! Tests of the table tier while something keeps it from working: tables that cannot be emptied, a full disk, damaged files, a
//! server without room for workers, and a change of the server's role. Reads return the right value or none. No session gets an
//! error, except from a file that the operating system refuses to read.
//!
//! A *segment* is a table of saved values. A *location* says in shared memory where a saved value is. The *saver* is the part of a
//! database's worker that saves values, and the *launcher* is the process that starts the workers. The *table tier* saves values in
//! tables before they leave the memory.
//!
//! Many tests end with a check of shared memory: `findings` returns what `cache_check()` reports, and must be empty.

use crate::memory::{cluster, findings};
use crate::tables::{conf, one, only_tables, save, size, status_of, wait_saved, with_tables};
use pg_cache_testbed::{Cluster, Stop, wait_until};
use postgres::Client;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Runs a command and asserts that it succeeds.
fn run(command: &mut Command) {
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns a command that runs a program of the system as the server's account.
fn system(cluster: &Cluster, program: &str) -> Command {
    cluster.server().command(&format!("/bin/{program}"))
}

/// Returns what `cache_health()` finds.
pub fn health(session: &mut Client) -> Vec<String> {
    let rows = session.query("SELECT finding FROM cache_health()", &[]).expect("it answers");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the bytes of all tables of saved values in a database, or in all databases.
fn used(session: &mut Client, database: Option<&str>) -> i64 {
    let database = database.map_or("IS NULL".to_owned(), |name| format!("= '{name}'"));
    let query = format!(
        "SELECT coalesce(sum(used), 0)::int8 FROM cache_usage WHERE resource = 'saved bytes' AND database {database}"
    );
    one(session, &query)
}

/// Opens a session in a database that has the extension, and whose default space keeps its values in tables only.
pub fn connect(cluster: &Cluster, database: &str) -> Client {
    let mut session = cluster.connect(database);
    session.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_cache").expect("it installs");
    only_tables(&mut session);
    session
}

/// Saves `count` values of 2 kB in tables, under the keys from `k<from>` on, and waits until they are there. `count` must be a
/// multiple of 50, because 50 values at a time are set and saved.
fn fill(session: &mut Client, from: i32, count: i32) {
    for from in (from..from + count).step_by(50) {
        let set = "SELECT count(*) FILTER (WHERE cache_set_text('k' || i, repeat('v', 2000) || i, '1 hour'))
                   FROM generate_series($1::int, $1 + 49) AS i";
        assert_eq!(session.query_one(set, &[&from]).expect("values are set").get::<_, i64>(0), 50);
        let left = "SELECT entries FROM cache_stats_detail WHERE space = 'default'";
        wait_until("all values to be saved", || one::<i64>(session, left) == 0);
    }
}

/// Ends the worker of a database and waits until it is gone.
pub fn end_worker(session: &mut Client, database: &str) {
    let workers =
        format!("FROM pg_stat_activity WHERE backend_type = 'pg_cache worker' AND datname = '{database}'");
    wait_until("the end of the worker", || {
        session.batch_execute(&format!("SELECT pg_terminate_backend(pid) {workers}")).expect("it ends");
        one::<i64>(session, &format!("SELECT count(*) {workers}")) == 0
    });
}

/// Allows or refuses connections to the database `stuck`.
fn allow_connections(_: &Cluster, session: &mut Client, allow: bool) {
    session.batch_execute(&format!("ALTER DATABASE stuck ALLOW_CONNECTIONS {allow}")).expect("it is altered");
}

/// Renames a file without which no process can connect to the database `stuck`, or, if `right` is true, gives its name back.
fn name_version_file(cluster: &Cluster, session: &mut Client, right: bool) {
    let oid: i32 = one(session, "SELECT oid::int FROM pg_database WHERE datname = 'stuck'");
    let file = cluster.data().join(format!("base/{oid}/PG_VERSION"));
    let other = file.with_extension("away");
    let [from, to] = if right { [other, file] } else { [file, other] };
    run(system(cluster, "mv").arg(from).arg(to));
}

/// The bytes of `pg_cache.table_size` in the tests that compare with it.
const TABLE_SIZE: i64 = 2 << 20;
/// The bytes of one table: each is an eighth.
const SEGMENT: i64 = TABLE_SIZE / 8;

/// Fills the tier with values of the database `stuck`, and then makes it impossible to empty their tables: by the switch, which
/// is called with false (and with true in the end), or without one by a session that locks the tables. Another database must then
/// still be able to save. When the obstacle is gone, the tables of `stuck` must be emptied.
fn assert_others_save(switch: Option<fn(&Cluster, &mut Client, bool)>) {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    session.batch_execute("CREATE DATABASE stuck").expect("a database");
    let mut stuck = connect(&cluster, "stuck");
    fill(&mut stuck, 0, 1500);
    assert!(used(&mut session, Some("stuck")) > TABLE_SIZE - 2 * SEGMENT, "the tier is not full");
    let mut owner = None;
    match switch {
        Some(switch) => {
            drop(stuck);
            switch(&cluster, &mut session, false);
            end_worker(&mut session, "stuck");
        }
        None => {
            stuck.batch_execute("BEGIN").expect("a transaction");
            for number in 1..=8 {
                let read = format!("SELECT count(*) FROM pgcache.segment_{number}");
                stuck.batch_execute(&read).expect("a table is locked");
            }
            owner = Some(stuck);
        }
    }
    for round in 0..6 {
        fill(&mut session, round * 200, 200);
        // Tables that cannot be emptied may take a quarter more, which is two segments. One more is tolerated.
        let total = used(&mut session, None);
        assert!(total <= TABLE_SIZE + 3 * SEGMENT, "{total} bytes");
    }
    assert_eq!(status_of(&mut session, "k1199").0.map(|value| value.len()), Some(2004));
    let finding = "tables of saved values cannot be emptied".to_owned();
    wait_until("the finding", || health(&mut session).contains(&finding));
    assert_eq!(findings(&mut session), Vec::<String>::new());
    // Without the obstacle, the tables are emptied.
    if let Some(owner) = owner.as_mut() {
        assert_eq!(status_of(owner, "k1").0, None);
        owner.batch_execute("ROLLBACK").expect("the locks are released");
    }
    if let Some(switch) = switch {
        switch(&cluster, &mut session, true);
    }
    wait_until("the tables to be emptied", || !health(&mut session).contains(&finding));
    fill(&mut connect(&cluster, "stuck"), 2000, 200);
}

/// An open transaction has read all tables, and its locks keep them from being emptied. For the failures, see
/// [`assert_others_save`].
#[test]
fn locked_tables_keep_no_other_database_from_saving() {
    assert_others_save(None);
}

/// `ALTER DATABASE` forbids connections, so no worker can empty the tables.
#[test]
fn a_database_without_connections_keeps_no_other_database_from_saving() {
    assert_others_save(Some(allow_connections));
}

/// A file of the database is missing, so a worker is started and ends with an error, again and again.
#[test]
fn a_database_whose_worker_cannot_start_keeps_no_other_database_from_saving() {
    assert_others_save(Some(name_version_file));
}

/// A saver must not wait for the table that it has begun, if another one is free.
#[test]
fn a_locked_table_is_passed_over() {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    fill(&mut session, 0, 50);
    let mut owner = cluster.connect("postgres");
    owner.batch_execute("BEGIN").expect("a transaction");
    for number in 1..=5 {
        owner.batch_execute(&format!("LOCK TABLE pgcache.segment_{number}")).expect("a lock");
    }
    for round in 1..10 {
        fill(&mut session, round * 200, 200);
        assert!(used(&mut session, None) <= TABLE_SIZE + SEGMENT);
    }
    owner.batch_execute("ROLLBACK").expect("the locks are released");
    wait_until("the tables to be emptied", || size(&mut session) <= used(&mut session, None));
}

/// `VACUUM FULL` gives an empty table another file. If the table is locked then, the saver cannot begin it, and must go on with
/// another one.
#[test]
fn a_locked_table_with_another_file_is_passed_over() {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    fill(&mut session, 0, 50);
    for number in 1..=8 {
        session
            .batch_execute(&format!("VACUUM FULL pgcache.segment_{number}"))
            .expect("it gets another file");
    }
    let mut owner = cluster.connect("postgres");
    owner.batch_execute("BEGIN").expect("a transaction");
    for number in 1..=4 {
        owner.batch_execute(&format!("SELECT FROM pgcache.segment_{number}")).expect("a lock");
    }
    (1..10).for_each(|round| fill(&mut session, round * 200, 200));
    owner.batch_execute("ROLLBACK").expect("the locks are released");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Two databases store values all the time, and there is one worker. A turn takes 30 seconds, so only `make test-long` waits for
/// it. The database with the larger OID must get its turn after the other one.
#[test]
fn each_database_gets_its_turn() {
    if std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        let cluster = cluster(&conf("8MB").set("pg_cache.max_workers", "1"));
        let mut first = connect(&cluster, "postgres");
        first.batch_execute("CREATE DATABASE second").expect("a database");
        let mut second = connect(&cluster, "second");
        let mut key = 0;
        for database in ["postgres", "second"] {
            wait_until("the turn of a database", || {
                key += 1;
                for session in [&mut first, &mut second] {
                    one::<bool>(session, &format!("SELECT cache_set_text('k{key}', 'value', '1 hour')"));
                }
                let works = format!(
                    "SELECT EXISTS (SELECT FROM cache_workers WHERE database = '{database}' AND saved > 0)"
                );
                one(&mut first, &works)
            });
        }
    }
}

/// Limits the size of the files that a process may write, in bytes or as `unlimited`.
fn limit_files(cluster: &Cluster, process: i32, bytes: &str) {
    run(system(cluster, "prlimit").arg(format!("--pid={process}")).arg(format!("--fsize={bytes}:")));
}

/// The worker may write files of 128 kB only, as if the disk were full. It must go on with its attempts, and save when it can.
/// Meanwhile, the values are hits in memory.
#[test]
fn a_full_disk_delays_saving_and_nothing_else() {
    let cluster = with_tables("8MB");
    let mut session = cluster.connect("postgres");
    let set = |session: &mut Client, key: i32| {
        let set = format!("SELECT cache_set_text('k{key}', repeat('v', 1000) || '{key}', '1 hour')");
        assert!(one::<bool>(session, &set));
    };
    set(&mut session, 0);
    let worker =
        "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres' AND saved > 0";
    wait_until("a worker", || session.query_opt(worker, &[]).expect("a view").is_some());
    let process: i32 = one(&mut session, worker);
    let attempts = "SELECT max(errors) FROM cache_workers";
    let (began, before) = (Instant::now(), one::<i64>(&mut session, attempts));
    limit_files(&cluster, process, "131072");
    (1..300).for_each(|key| set(&mut session, key));
    let failed = "SELECT EXISTS (SELECT FROM cache_workers WHERE errors > 0 AND error IS NOT NULL)";
    wait_until("the worker to fail", || one(&mut session, failed));
    assert_eq!(health(&mut session), ["the background worker of a database has failed"]);
    // The worker tries again, and waits for a second at least before that.
    wait_until("two more attempts", || {
        for key in 0..300 {
            let value = status_of(&mut session, &format!("k{key}")).0;
            assert_eq!(value, Some("v".repeat(1000) + &key.to_string()), "a value in memory is lost");
        }
        one::<i64>(&mut session, attempts) >= before + 3
    });
    let (errors, elapsed) = (one::<i64>(&mut session, attempts) - before, began.elapsed().as_secs());
    assert!(errors <= elapsed as i64 + 1, "{errors} errors in {elapsed} seconds");
    assert_eq!(one::<i32>(&mut session, worker), process, "the worker has ended");
    limit_files(&cluster, process, "unlimited");
    let saved = "SELECT EXISTS (SELECT FROM cache_workers WHERE error IS NULL AND saved >= 300)";
    wait_until("the worker to go on", || one(&mut session, saved));
    wait_until("no finding", || health(&mut session).is_empty());
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Returns whether a value of [`fill`] is there, which must then be the right one.
fn is_kept(session: &mut Client, key: i32) -> bool {
    let value = status_of(session, &format!("k{key}")).0;
    assert!(value.is_none() || value == Some("v".repeat(2000) + &key.to_string()), "k{key}: {value:?}");
    value.is_some()
}

/// Values of a table that is to be emptied are copied to another table first. If there is no room for them, they are lost, and the
/// table is emptied all the same, because others need its space.
#[test]
fn values_that_cannot_be_copied_for_lack_of_disk_space_are_misses() {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    fill(&mut session, 0, 300);
    let worker = "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres'";
    let process: i32 = one(&mut session, worker);
    let delete = |session: &mut Client, from: i32, to: i32| {
        let delete = format!("SELECT count(cache_delete('k' || i)) FROM generate_series({from}, {to}) AS i");
        session.batch_execute(&delete).expect("values are deleted");
    };
    // A table has about 100 values. Most of those of the first one are deleted, so the others are to be copied on.
    let all = size(&mut session);
    limit_files(&cluster, process, "16384");
    delete(&mut session, 0, 79);
    let failed = "SELECT EXISTS (SELECT FROM cache_workers WHERE errors > 0)";
    wait_until("the worker to fail", || {
        assert!((120..300).all(|key| is_kept(&mut session, key)), "a value is lost");
        one(&mut session, failed)
    });
    wait_until("the table to be emptied", || size(&mut session) < all);
    let kept: Vec<i32> = (80..120).filter(|key| is_kept(&mut session, *key)).collect();
    assert!(kept.len() < 30, "{} of 40 values are kept: they were copied", kept.len());
    assert!((120..300).all(|key| is_kept(&mut session, key)), "a value of another table is lost");
    // New values stay in memory, and are saved when there is room again.
    assert!(one::<bool>(&mut session, "SELECT cache_set_text('new', 'value', '1 hour')"));
    assert_eq!(status_of(&mut session, "new").0.as_deref(), Some("value"));
    limit_files(&cluster, process, "unlimited");
    wait_saved(&mut session, "new");
    wait_until("no finding", || {
        one(&mut session, "SELECT NOT EXISTS (SELECT FROM cache_workers WHERE error IS NOT NULL)")
    });
    assert_eq!(one::<i32>(&mut session, worker), process, "the worker has ended");
    // Now values are copied on.
    let all = size(&mut session);
    delete(&mut session, 120, 200);
    wait_until("a table to be emptied", || size(&mut session) < all);
    assert!(kept.into_iter().chain(201..300).all(|key| is_kept(&mut session, key)), "a value is lost");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The disk is full now and then while new values push out older ones, and a reader asks for all of them. So the worker fails at
/// every step, also while it copies on what was asked for.
#[test]
fn no_value_is_wrong_while_the_disk_is_full_now_and_then() {
    let cluster = with_tables("2MB");
    let mut session = connect(&cluster, "postgres");
    fill(&mut session, 0, 400);
    let worker = "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres'";
    let process: i32 = one(&mut session, worker);
    const LAST: i32 = 4;
    let mut failures = 0;
    for round in 2..=LAST {
        limit_files(&cluster, process, ["16384", "65536", "131072"][round as usize % 3]);
        for from in (round * 200..(round + 1) * 200).step_by(50) {
            let set =
                "SELECT count(*) FILTER (WHERE cache_set_text('k' || i, repeat('v', 2000) || i, '1 hour'))
                       FROM generate_series($1::int, $1 + 49) AS i";
            let stored: i64 = session.query_one(set, &[&from]).expect("values are set").get(0);
            assert_eq!(stored, 50, "a value is refused");
            (0..from + 50).for_each(|key| _ = is_kept(&mut session, key));
        }
        let failing = "SELECT count(*) FROM cache_workers WHERE error IS NOT NULL";
        failures += one::<i64>(&mut session, failing);
        if round == LAST && failures == 0 {
            // The worker had no processor until now.
            wait_until("the disk to be full", || one::<i64>(&mut session, failing) > 0);
            failures += 1;
        }
        limit_files(&cluster, process, "unlimited");
        fill(&mut session, round * 200, 50);
        assert!(
            (round * 200..round * 200 + 50).all(|key| is_kept(&mut session, key)),
            "a saved value is lost"
        );
    }
    assert!(failures > 0, "the disk was never full");
    assert_eq!(one::<i32>(&mut session, worker), process, "the worker has ended");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// The server raises the errors of a full disk. This error (53200) is raised by code of the extension, when a worker whose memory
/// is limited saves a value of 6 MB.
#[test]
fn a_worker_survives_a_lack_of_memory() {
    let cluster = cluster(&conf("64MB").set("pg_cache.hot_size", "128MB"));
    let mut session = connect(&cluster, "postgres");
    let set = |session: &mut Client, key: &str, bytes: u32| {
        let set = format!("SELECT cache_set_text('{key}', repeat('v', {bytes}), '1 hour')");
        assert!(one::<bool>(session, &set));
    };
    set(&mut session, "small", 10);
    let worker =
        "SELECT pid FROM cache_workers WHERE kind = 'worker' AND database = 'postgres' AND saved > 0";
    wait_until("a worker", || session.query_opt(worker, &[]).expect("a view").is_some());
    let process: i32 = one(&mut session, worker);
    cluster.limit_address_space(process, 1 << 20);
    set(&mut session, "large", 6_000_000);
    let failed = "SELECT EXISTS (SELECT FROM cache_workers WHERE error = '53200')";
    wait_until("the worker to fail", || one(&mut session, failed));
    cluster.free_address_space(process);
    wait_saved(&mut session, "large");
    assert_eq!(one::<i32>(&mut session, worker), process, "the worker has ended");
    assert_eq!(findings(&mut session), Vec::<String>::new());
}

/// Nothing is cached on a standby. After its promotion, and on a server that was started from a base backup, both places are empty
/// at first.
#[test]
fn a_standby_and_a_base_backup_start_without_saved_values() {
    let primary = with_tables("8MB");
    let mut session = primary.connect("postgres");
    only_tables(&mut session);
    session.batch_execute("CREATE TABLE pages AS SELECT 1 AS id").expect("a table");
    save(&mut session, "key", "primary");
    let [standby, copy] = [(); 2].map(|()| {
        let other = cluster(&conf("8MB"));
        other.stop(Stop::Fast);
        other.follow(&primary);
        other
    });
    fs::remove_file(copy.data().join("standby.signal")).expect("it is there");
    standby.resume();
    let mut reader = standby.connect("postgres");
    let fetch = "SELECT cache_fetch('sum', 'SELECT sum(id) FROM pages') #>> '{}'";
    for _ in 0..3 {
        assert_eq!(status_of(&mut reader, "key").0, None);
        assert_eq!(one::<String>(&mut reader, fetch), "1");
        assert!(!one::<bool>(&mut reader, "SELECT cache_set_text('key', 'standby', '1 hour')"));
        wait_until("no finding", || health(&mut reader).is_empty());
    }
    assert!(one::<bool>(&mut reader, "SELECT pg_promote(wait_seconds => 180)"));
    copy.resume();
    for other in [&standby, &copy] {
        let mut session = other.connect("postgres");
        assert_eq!(status_of(&mut session, "key").0, None);
        save(&mut session, "key", "other");
        session.batch_execute("UPDATE pages SET id = 2").expect("it is written");
        assert_eq!(one::<String>(&mut session, fetch), "2");
        assert_eq!(status_of(&mut session, "key").0.as_deref(), Some("other"));
        assert_eq!(findings(&mut session), Vec::<String>::new());
        wait_until("no finding", || health(&mut session).is_empty());
    }
    assert_eq!(status_of(&mut session, "key").0.as_deref(), Some("primary"));
}

/// A name, and a way to damage the file of a table while the server is stopped.
type Damage = (&'static str, fn(&Cluster, &Path));

/// 12 000 bytes are one whole block and a part of another one. The noise is a multiplicative hash of the position.
const DAMAGES: [Damage; 8] = [
    ("empty", |cluster, file| run(system(cluster, "truncate").arg("--size=0").arg(file))),
    ("cut off", |cluster, file| run(system(cluster, "truncate").arg("--size=12000").arg(file))),
    ("gone", |cluster, file| run(system(cluster, "rm").arg(file))),
    ("overwritten", |_, file| {
        let length = fs::metadata(file).expect("it is there").len();
        let noise: Vec<u8> = (0..length).map(|at| ((at * 2_654_435_761) >> 7) as u8).collect();
        fs::write(file, noise).expect("it is written");
    }),
    // `sql/segments.sql` has the columns. The first column of a row is the format. The last one of fixed length is the epoch, the
    // number of the life of shared memory in which the row was written. It begins 64 bytes behind the beginning of the format.
    ("of another format", |_, file| change_rows(file, |row| row[0] ^= 1)),
    ("of another epoch", |_, file| change_rows(file, |row| row[64] ^= 1)),
    ("not aligned", |_, file| change_pointers(file, |block, at| block[at] += 1)),
    ("not readable", |cluster, file| run(system(cluster, "chmod").arg("000").arg(file))),
];

/// Changes the columns of each row in the file of a table. The low 15 bits of the pointer to a row are the position of the row, whose
/// byte 22 is the length of the row's header.
fn change_rows(file: &Path, change: impl Fn(&mut [u8])) {
    change_pointers(file, |block, at| {
        let row = usize::from(u16::from_ne_bytes([block[at], block[at + 1]]) & 0x7fff);
        let columns = row + usize::from(block[row + 22]);
        change(&mut block[columns..]);
    });
}

/// Calls `change` with each block of the file of a table, and with the position of each pointer to a row in it. The file consists of
/// blocks of 8192 bytes. The pointers begin at the 24th byte of a block and end where its field `pd_lower` says.
fn change_pointers(file: &Path, change: impl Fn(&mut [u8], usize)) {
    let mut content = fs::read(file).expect("it can be read");
    let mut changed = 0;
    for block in content.chunks_exact_mut(8192) {
        let pointers = usize::from(u16::from_ne_bytes([block[12], block[13]]));
        for at in (24..pointers).step_by(4) {
            change(block, at);
            changed += 1;
        }
    }
    assert!(changed >= 50, "only {changed} rows are found");
    fs::write(file, content).expect("it can be written");
}

/// Returns the files of the tables that have rows.
fn files(cluster: &Cluster, session: &mut Client) -> Vec<PathBuf> {
    let query = "SELECT pg_relation_filepath(oid) FROM pg_class
                 WHERE relname LIKE 'segment\\_%' AND pg_relation_size(oid) > 0";
    let rows = session.query(query, &[]).expect("a catalog");
    rows.iter().map(|row| cluster.data().join(row.get::<_, String>(0))).collect()
}

/// A value that cannot be read is a miss. A file that the system does not let the server read costs one error for each value.
#[test]
fn values_in_damaged_files_are_misses() {
    let cluster = with_tables("8MB");
    for (name, damage) in DAMAGES {
        let mut session = connect(&cluster, "postgres");
        fill(&mut session, 0, 50);
        let files = files(&cluster, &mut session);
        assert!(!files.is_empty());
        drop(session);
        cluster.stop(Stop::Fast);
        files.iter().for_each(|file| damage(&cluster, file));
        // Without a worker, the locations stay.
        let alter = |workers: &str| {
            let file = cluster.data().join("postgresql.auto.conf");
            fs::write(file, format!("pg_cache.max_workers = {workers}\n")).expect("a setting");
        };
        alter("0");
        cluster.resume();
        let mut session = cluster.connect("postgres");
        let locations = "SELECT used FROM cache_usage WHERE resource = 'saved values'";
        assert!(one::<i64>(&mut session, locations) >= 50, "{name}: the locations are gone");
        let (mut errors, mut found) = (0, 0);
        for key in 0..50 {
            for _ in 0..2 {
                match session.query_one(&format!("SELECT cache_get_text('k{key}')"), &[]) {
                    Ok(row) => {
                        let value: Option<String> = row.get(0);
                        let right = "v".repeat(2000) + &key.to_string();
                        assert!(value.is_none() || value.as_ref() == Some(&right), "{name}: {value:?}");
                        found += i32::from(value.is_some());
                    }
                    Err(_) => errors += 1,
                }
            }
        }
        // A value whose read ends in an error is forgotten, so the second read is a miss. The whole block that is left of a file
        // has three values, which are read twice.
        let [errors_right, found_right] = match name {
            "not readable" => [50, 0],
            "cut off" => [0, 6],
            _ => [0, 0],
        };
        assert_eq!([errors, found], [errors_right, found_right], "{name}");
        assert_eq!(findings(&mut session), Vec::<String>::new(), "{name}");
        // After a crash, the server empties unlogged tables, and makes their files anew.
        alter("2");
        drop(session);
        files
            .iter()
            .filter(|file| file.exists())
            .for_each(|file| run(system(&cluster, "chmod").arg("600").arg(file)));
        cluster.stop(Stop::Immediate);
        cluster.resume();
    }
}

/// The server has room for two background workers: its own launcher of logical replication, and the launcher of pg_cache. Nothing
/// can then be saved, and `cache_health()` must name the command that helps.
#[test]
fn a_server_without_room_for_workers_caches_in_memory() {
    let cluster = cluster(&conf("8MB").set("max_worker_processes", "2"));
    let mut session = cluster.connect("postgres");
    assert!(one::<bool>(&mut session, "SELECT cache_set_text('key', 'value', '1 hour')"));
    let finding = "values are not saved in tables because no worker can be started";
    wait_until("the finding", || health(&mut session) == [finding]);
    assert_eq!(status_of(&mut session, "key"), (Some("value".to_owned()), Some("hot".to_owned())));
    let command: String = one(&mut session, "SELECT command FROM cache_health()");
    session.batch_execute(&command).expect("the command of the finding can be run");
    drop(session);
    cluster.stop(Stop::Fast);
    cluster.resume();
    let mut session = cluster.connect("postgres");
    only_tables(&mut session);
    save(&mut session, "other", "value");
    wait_until("no finding", || health(&mut session).is_empty());
}

/// The restart with another `pg_cache.hot_size` loses the memory, so no location leads to the rows. A worker must empty the
/// tables, even if `pg_cache.table_size` is 0.
#[test]
fn rows_of_a_lost_memory_leave_the_disk_even_if_nothing_is_saved_any_more() {
    let cluster = with_tables("8MB");
    let mut session = connect(&cluster, "postgres");
    fill(&mut session, 0, 100);
    assert!(size(&mut session) > 0);
    drop(session);
    cluster.restart(Stop::Fast, &conf("0").set("pg_cache.hot_size", "2MB"));
    let mut session = cluster.connect("postgres");
    wait_until("the tables to be empty", || size(&mut session) == 0);
    let workers = "SELECT count(*) FROM cache_workers WHERE kind = 'worker'";
    wait_until("the end of the worker", || one::<i64>(&mut session, workers) == 0);
    assert_eq!(status_of(&mut session, "k1").0, None);
    assert_eq!(findings(&mut session), Vec::<String>::new());
}
