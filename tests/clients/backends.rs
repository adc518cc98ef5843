//! The backends for frameworks, and the helpers, of `examples/backends/`. Most tests run a script of `clients/backends/` that
//! prints `done` last if it gets only expected results. The ignored tests take longer or need further languages: `make/backends.sh`
//! runs them. The suites among them come with the frameworks. The programs and modules that the tests need are named by variables
//! such as `PG_CACHE_TEST_PYTHON`, which `make/clients.sh` and `make/backends.sh` set.
//!
//! Both scripts select the tests by their names. The name of an ignored test must begin with `long_`: `make/backends.sh` runs no
//! others. In a test for Node, Go, Java, PHP or Ruby, `node`, `go`, `java`, `php` or `ruby` must follow, because the script skips
//! the tests of a missing language by this name. The name of a test for Node that is not ignored must begin with `node`:
//! `make/clients.sh` skips these without Node.
//!
//! A *lease* is the right to compute the value of a key. `cache_acquire_bytes` with `hold => NULL` acquires none and only looks:
//! its status is `hit` if there is a value, `wait` if a session has the lease, and `compute` if none has it.

#[path = "../../examples/backends/rust/pg_cached.rs"]
mod pg_cached;

use crate::language::named;
use pg_cache_testbed::{Cluster, Conf, Database, wait_until};
use pg_cached::Cached;
use postgres::{Client, Error};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Returns the path of a file or directory below `tests/`.
fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the directory of a backend.
fn backend(name: &str) -> String {
    beside("../examples/backends").join(name).display().to_string()
}

/// Runs a program on a new database. Fails unless the program succeeds and prints `expected`, or if `cache_check` finds a fault in
/// the cache afterwards. Prints the lines of the output that contain `expected` or `skipped`: the counts of a suite.
fn run(command: Command, expected: &str) {
    let database = Database::create();
    let mut command = database.cluster().point_here(command);
    let output = command.env("PGDATABASE", database.name()).output().expect("it starts");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains(expected), "{command:?}: {}\n{text}", output.status);
    assert_eq!(database.connect().query("SELECT cache_check()", &[]).expect("it can be checked").len(), 0);
    let lines: Vec<_> =
        text.lines().filter(|line| line.contains("skipped") || line.contains(expected)).collect();
    println!("{:?}: {}", command.get_program(), lines.join("; "));
}

/// Returns a command with a script of `clients/backends/` and further arguments.
fn script(program: &str, script: &str, more: &[String]) -> Command {
    let mut command = Command::new(program);
    command.arg(beside("clients/backends").join(script)).args(more);
    // Python would write directories beside the files that it imports.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn python(file: &str, more: &[String]) -> Command {
    script(&named("PG_CACHE_TEST_PYTHON"), file, more)
}

/// The script `cached.py` checks the decorator for Python. Fails if one of its results is wrong.
#[test]
fn python_decorator() {
    run(python("cached.py", &[backend("python")]), "done\n");
}

/// The script `django_backend.py` checks the backend for Django. Fails if one of its results is wrong.
#[test]
fn django() {
    run(python("django_backend.py", &[backend("django")]), "done\n");
}

/// The script `dogpile_backend.py` checks the backend for dogpile.cache. Fails if one of its results is wrong.
#[test]
fn dogpile() {
    run(python("dogpile_backend.py", &[backend("dogpile")]), "done\n");
}

/// The script `keyv_backend.mjs` checks the backend for keyv. Fails if one of its results is wrong. Node looks for modules beside
/// the script. They are in another directory, which the last argument names.
#[test]
fn node_keyv() {
    run(
        script("node", "keyv_backend.mjs", &[backend("keyv"), named("PG_CACHE_TEST_NODE_MODULES")]),
        "done\n",
    );
}

/// 20 sessions miss at once. Fails if more than one of them computes the value.
#[test]
fn rust_one_session_computes() {
    let database = Database::create();
    let calls = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = database.connect();
                let patient = Cached { wait: Duration::from_secs(60), ..Cached::new("stampede", &[]) };
                let value = patient.get_or_compute(&mut client, |client| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    client.query_one("SELECT pg_sleep(0.3)", &[])?;
                    Ok::<_, Error>(b"computed".to_vec())
                });
                assert_eq!(value.expect("it is computed"), b"computed");
            });
        }
    });
    assert_eq!(calls.into_inner(), 1);
}

/// A tag that stands for a table makes the value exact: a commit invalidates it, and a rollback does not. An outdated value is not
/// stored, and neither is the result of a function that fails.
#[test]
fn rust_values_follow_their_table() {
    let database = Database::create();
    let mut session = database.connect();
    session
        .batch_execute(
            "CREATE TABLE product (cents int); INSERT INTO product VALUES (100); SELECT cache_watch('product')",
        )
        .expect("it is watched");
    let mut other = database.connect();
    let price = Cached::new("price", &["product"]);
    let cents = |client: &mut Client| {
        Ok::<_, Error>(
            client.query_one("SELECT cents::text FROM product", &[])?.get::<_, String>(0).into_bytes(),
        )
    };
    let mut write =
        |cents: i32| other.execute("UPDATE product SET cents = $1", &[&cents]).expect("it is written");
    let mut get = |expected: &str, status: &str| {
        let value = price.get_or_compute(&mut session, cents).expect("it is computed");
        assert_eq!(String::from_utf8_lossy(&value), expected);
        let found: String = session
            .query_one("SELECT status FROM cache_acquire_bytes('price', hold => NULL)", &[])
            .expect("it is found")
            .get(0);
        assert_eq!(found, status);
    };
    get("100", "hit");
    write(101);
    get("101", "hit");
    write(102);
    let mut client = database.connect();
    let outdated = price.get_or_compute(&mut client, |client| {
        let old = cents(client);
        write(103);
        old
    });
    assert_eq!(outdated.expect("it is computed"), b"102");
    get("103", "hit");

    let mut transaction = client.transaction().expect("it begins");
    transaction.execute("UPDATE product SET cents = 0", &[]).expect("it is written");
    for _ in 0..2 {
        let own = price.get_or_compute(&mut transaction, |client| {
            Ok::<_, Error>(
                client.query_one("SELECT cents::text FROM product", &[])?.get::<_, String>(0).into_bytes(),
            )
        });
        assert_eq!(own.expect("it is computed"), b"0");
    }
    get("103", "hit");
    // The transaction has changed `product`, so a value with this tag is not stored. The helper then releases the lease at once, so
    // that others need not wait for the end of this transaction.
    let own = Cached::new("own", &["product"]);
    own.get_or_compute(&mut transaction, |_| Ok::<_, Error>(Vec::new())).expect("it is computed");
    let looks = "SELECT status FROM cache_acquire_bytes($1, hold => NULL)";
    let looked: String = database.connect().query_one(looks, &[&own.key]).expect("it is asked").get(0);
    assert_eq!(looked, "compute");
    transaction.rollback().expect("it is rolled back");
    get("103", "hit");
    // A value that is too large is not stored either, and its lease is released as well.
    let large = Cached::new("large", &[]).get_or_compute(&mut client, |_| Ok::<_, Error>(vec![0; 9_000_000]));
    assert_eq!(large.expect("it is computed").len(), 9_000_000);
    let looks = "SELECT status FROM cache_acquire_bytes('large', hold => NULL)";
    let status: String = client.query_one(looks, &[]).expect("it is asked").get(0);
    assert_eq!(status, "compute");

    let failing = Cached { hold: Duration::from_secs(3600), ..Cached::new("failing", &[]) };
    for _ in 0..2 {
        let result = failing
            .get_or_compute(&mut client, |client| client.query_one("SELECT 1 / 0", &[]).map(|_| Vec::new()));
        assert_eq!(result.expect_err("it fails").code().expect("it has a code").code(), "22012");
    }
    wait_until("the lease to be released", || {
        let status: String = client
            .query_one("SELECT status FROM cache_acquire_bytes('failing', hold => NULL)", &[])
            .expect("it is asked")
            .get(0);
        status == "compute"
    });
}

/// Django's own tests of cache backends: with each call in its own transaction, and with all calls of a test in one.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_django() {
    run(python("django_suite.py", &[backend("django"), named("PG_CACHE_TEST_DJANGO")]), " passed");
}

/// Runs the tests that dogpile.cache has for backends. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_dogpile() {
    let mut command = Command::new(named("PG_CACHE_TEST_PYTHON"));
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(beside("clients/backends/dogpile_suite.py"));
    command.env("DOGPILE_BACKEND", backend("dogpile")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, " passed");
}

/// keyv's tests of stores. The test framework runs the tests of the directory that contains its modules.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_node_keyv() {
    let modules = PathBuf::from(named("PG_CACHE_TEST_KEYV_MODULES"));
    let directory = modules.parent().expect("the modules are in a directory");
    std::fs::copy(beside("clients/backends/keyv_suite.test.mjs"), directory.join("keyv_suite.test.mjs"))
        .expect("it is copied");
    let mut command = Command::new(modules.join(".bin/vitest"));
    command.args(["run", "--no-color"]).current_dir(directory);
    command.env("KEYV_BACKEND", format!("{}/keyv_pg_cache.mjs", backend("keyv")));
    run(command, " passed");
}

/// Runs the tests of the helper in Go. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_go() {
    let place = PathBuf::from(named("PG_CACHE_TEST_GOPATH"));
    let package = place.join("src/pgcached");
    std::fs::create_dir_all(&package).expect("it can be created");
    std::fs::copy(format!("{}/pgcached.go", backend("go")), package.join("pgcached.go"))
        .expect("it is copied");
    std::fs::copy(beside("clients/backends/pgcached_test.go"), package.join("pgcached_test.go"))
        .expect("it is copied");
    let mut command = Command::new("go");
    command.args(["test", "-count=1", "pgcached"]).current_dir(&package);
    command.env("GO111MODULE", "off").env("GOPATH", format!("{}:/usr/share/gocode", place.display()));
    command.env("GOCACHE", place.join("cache"));
    run(command, "ok");
}

/// Runs a file of tests with PHPUnit. The suite expects some exceptions that Symfony raises only if the assertions of PHP are
/// switched on (`zend.assertions=1`).
fn phpunit(file: &str) {
    let mut command = Command::new("php");
    command.args([
        "-d",
        "zend.assertions=1",
        "/usr/bin/phpunit",
        "--no-configuration",
        "--do-not-cache-result",
    ]);
    command.arg(beside("clients/backends").join(file));
    command.env("SYMFONY_BACKEND", format!("{}/PgCacheAdapter.php", backend("symfony")));
    run(command, "OK (");
}

/// Runs the tests of the backend for PHP. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_php() {
    phpunit("PgCacheTest.php");
}

/// Runs the integration tests of PSR-6 pools. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_php_suite() {
    phpunit("PgCachePoolTest.php");
}

/// Runs the tests of the store for Rails. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_ruby() {
    run(script("ruby", "rails_store.rb", &[backend("rails")]), " 0 failures, 0 errors");
}

/// Runs the tests that Active Support has for the behaviour of cache stores. Fails if one of them fails.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_ruby_suite() {
    let suite = script("ruby", "rails_suite.rb", &[backend("rails"), named("PG_CACHE_TEST_RAILS")]);
    run(suite, " 0 failures, 0 errors");
}

/// The driver for Java needs TCP. The server listens on a loopback address of its own, because all test servers have one port.
#[test]
#[ignore = "make/backends.sh runs it"]
fn long_java() {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = format!("127.77.{high}.{low}");
    let cluster = Cluster::start(&Conf::preloaded().set("listen_addresses", &address));
    cluster.connect("postgres").batch_execute("CREATE EXTENSION pg_cache").expect("it installs");
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java");
    let jars = ["spring3-context", "spring3-core", "postgresql", "commons-logging"];
    let path = jars.map(|jar| format!("/usr/share/java/{jar}.jar")).join(":");
    let mut javac = Command::new("javac");
    javac.args(["-cp", &path, "-d"]).arg(&classes);
    javac.arg(format!("{}/PgCacheManager.java", backend("spring")));
    javac.arg(beside("clients/backends/PgCacheManagerTest.java"));
    let compiled = javac.output().expect("it starts");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut java = Command::new("java");
    java.args(["-cp", &format!("{path}:{}", classes.display()), "PgCacheManagerTest"]);
    let output =
        java.arg(format!("jdbc:postgresql://{address}/postgres?user=postgres")).output().expect("it starts");
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("done\n"), "{}\n{text}", output.status);
}
