//! Clients of Redis in other languages read the copies that pg_cache keeps in Redis (`docs/redis.md`): `redis_reader.py` and
//! `redis_reader.mjs` run one in a process of its own, and obey commands, which the head of `redis_reader.py` lists.
//!
//! pg_cache publishes messages on a channel of Redis: JSON objects, whose member `set` names the Redis keys that have got a value,
//! and whose member `removed` names those that were removed.

use crate::language::named;
use pg_cache_testbed::{Cluster, Conf, Redis, RedisConf, wait_until};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
enum Language {
    Python,
    Node,
}

/// A process with a client of Redis.
struct Reader {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    /// Starts a client of the server.
    fn start(language: Language, redis: &Redis) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
        let (program, script, modules) = match language {
            Language::Python => (named("PG_CACHE_TEST_PYTHON"), "redis_reader.py", None),
            Language::Node => {
                ("node".to_owned(), "redis_reader.mjs", Some(named("PG_CACHE_TEST_NODE_MODULES")))
            }
        };
        let mut command = Command::new(program);
        command.arg(scripts.join(script)).arg(redis.url()).args(modules);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let commands = child.stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, commands, answers }
    }

    /// Sends a command and returns the answer.
    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("it reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{command}: {error}: {answer:?}"))
    }

    /// Returns the value of a key.
    fn get(&mut self, key: &str) -> Value {
        self.ask(&json!(["get", in_shop(key)]))
    }

    /// Waits until messages have told all these keys as their member `member`.
    fn await_told(&mut self, member: &str, keys: &[&str]) {
        let mut left: BTreeSet<String> = keys.iter().map(|key| in_shop(key)).collect();
        while !left.is_empty() {
            let message = self.ask(&json!(["message", 180]));
            assert_ne!(message, Value::Null, "no message tells {left:?} as {member}");
            for key in message[member].as_array().into_iter().flatten() {
                left.remove(key.as_str().expect("a key is a text"));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the Redis key of a key in the space `shop`.
fn in_shop(key: &str) -> String {
    format!("pg_cache:postgres:shop:{key}")
}

fn start(language: Language) -> (Redis, Cluster, Client, Reader) {
    let redis = Redis::start_with(&RedisConf::tcp().password("se:cr/et"));
    let cluster = Cluster::start(&Conf::preloaded().set("pg_cache.redis_url", &redis.url()));
    let mut session = cluster.connect("postgres");
    session
        .batch_execute(
            "CREATE EXTENSION pg_cache; SELECT cache_create_space('shop', redis => true, default_ttl => '10 minutes')",
        )
        .expect("it is prepared");
    let reader = Reader::start(language, &redis);
    (redis, cluster, session, reader)
}

/// Values of all kinds are JSON, and end when the cache says.
fn a_client_reads_values_and_their_time_to_live(language: Language) {
    let (_redis, _cluster, mut session, mut reader) = start(language);
    let object =
        json!({"name": "Zoë", "nested": [1, 2.5, null, true, {"": "empty key"}], "🔑": "emoji\n\"\\"});
    session
        .execute(
            "SELECT cache_set('object', $1::text::jsonb, space => 'shop'), cache_set_text('text', $2, space => 'shop'),
                    cache_set_bytes('bytes', '\\x00ff6869', space => 'shop'), cache_set('null', 'null', space => 'shop'),
                    cache_set_text('ключ 鍵 🔑 ''\"\\', 'odd', '5 min', space => 'shop')",
            &[&object.to_string(), &"line\nbreak \\ \" ' 日本語 🦀"],
        )
        .expect("they are set");
    session
        .batch_execute(
            "SELECT cache_incr('count', 41, '1 hour', 'shop'); SELECT cache_incr('count', space => 'shop')",
        )
        .expect("it counts");
    wait_until("the number", || reader.get("count") == json!(42));
    let odd = "ключ 鍵 🔑 '\"\\";
    for (key, expected) in [
        ("object", object),
        ("text", json!("line\nbreak \\ \" ' 日本語 🦀")),
        ("bytes", json!("\\x00ff6869")),
        ("null", Value::Null),
        (odd, json!("odd")),
    ] {
        assert_eq!(reader.get(key), expected, "{key}");
    }
    let mut expected = ["bytes", "count", "null", "object", "text", odd].map(in_shop);
    expected.sort();
    assert_eq!(reader.ask(&json!(["keys", "pg_cache:*"])), json!(expected));
    for key in ["object", "count", odd] {
        let query = "SELECT 1000 * extract(epoch FROM cache_ttl($1, 'shop'))::float8";
        let in_cache =
            |session: &mut Client| -> f64 { session.query_one(query, &[&key]).expect("it is told").get(0) };
        let mut seen = Vec::new();
        let began = Instant::now();
        loop {
            let before = in_cache(&mut session);
            let in_redis = reader.ask(&json!(["pttl", in_shop(key)])).as_f64().expect("a number");
            let after = in_cache(&mut session);
            seen.push((before, in_redis, after));
            if after - 1000.0 < in_redis && in_redis < before + 1000.0 {
                break;
            }
            // On a busy machine, the value needs some time on its way to Redis, and so lives longer there. It is sent again.
            assert!(began.elapsed() < Duration::from_secs(120), "{key}: {seen:?}");
            let touch = "SELECT cache_touch($1, '4 minutes', 'shop')";
            session.execute(touch, &[&key]).expect("it is touched");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

/// The members of an invalidated tag leave Redis, and a message names them.
fn a_client_sees_the_invalidation_of_a_tag(language: Language) {
    let (_redis, _cluster, mut session, mut reader) = start(language);
    session
        .batch_execute(
            "CREATE TABLE products (id int); SELECT cache_watch('products');
             SELECT cache_set('first', '1', space => 'shop')",
        )
        .expect("it is prepared");
    wait_until("the first value", || reader.get("first") == json!(1));
    reader.ask(&json!(["subscribe", "pg_cache:postgres"]));
    session
        .batch_execute(
            "SELECT cache_set('a', '1', tags => '{red}', space => 'shop'), cache_set('b', '2', tags => '{red,blue}', space => 'shop'),
                    cache_set('c', '3', tags => '{blue}', space => 'shop');
             SELECT cache_set('d', '4', tags => '{products}', space => 'shop')",
        )
        .expect("they are set");
    reader.await_told("set", &["a", "b", "c", "d"]);
    assert_eq!(["a", "b", "c", "d"].map(|key| reader.get(key)), [1, 2, 3, 4].map(|value| json!(value)));
    session.batch_execute("SELECT cache_invalidate_tag('red')").expect("it invalidates");
    reader.await_told("removed", &["a", "b"]);
    assert_eq!(["a", "b", "c"].map(|key| reader.get(key)), [Value::Null, Value::Null, json!(3)]);
    session.batch_execute("INSERT INTO products VALUES (1)").expect("it inserts");
    reader.await_told("removed", &["d"]);
    assert_eq!(reader.get("d"), Value::Null);
    session.batch_execute("SELECT cache_delete('c', 'shop')").expect("it deletes");
    reader.await_told("removed", &["c"]);
    assert_eq!(reader.ask(&json!(["keys", "pg_cache:*"])), json!([in_shop("first")]));
}

/// Makes a test of each named function for each language. The functions must take a [`Language`]. A function that is not named in
/// `tests!` below does not run.
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
    a_client_reads_values_and_their_time_to_live
    a_client_sees_the_invalidation_of_a_tag
}
