//! Tests of the client with one server: what each job does to the keys and sets in Redis, and what it answers. `jobs.rs` of the
//! client defines the jobs and their answers. A *set* has the Redis keys of the values that depend on a tag or a relation; `lib.rs`
//! there says how the client notices that Redis has evicted a set.

use crate::harness::{
    Server, addition, client, connect, connected, execute, facts, failure, needs_redis, scan, values,
    wait_until, write,
};
use pg_cache_redis::{Answer, Batch, Job, Names, Value, pattern};

/// Fails if a part of a batch is not executed, if keys of another database are announced, or if a time to live of 0 sets a value.
/// Also fails if a removal of members leaves a key of the set, or is not announced.
#[test]
fn a_batch_is_written_and_announced() {
    needs_redis!();
    let server = Server::start(&[]);
    let mut listener = redis::Client::open(server.url())
        .expect("a URL")
        .get_connection()
        .expect("the server accepts connections");
    let mut listener = listener.as_pubsub();
    listener.subscribe("p:db").expect("the server accepts subscriptions");
    let client = connected(&server.url());

    server.cli(&["SET", "p:db:s:gone", "1"]);
    server.cli(&["SET", "p:db:s:expired", "1"]);
    let mut batch =
        values([("p:db:s:a", r#"{"a": 1}"#), ("p:db:s:b", "\"\u{1f600}\""), ("p:other:s:c", "3")]);
    batch.values.push(Value { key: b"p:db:s:expired".to_vec(), json: "1".to_owned(), ttl_ms: 0 });
    batch.values.push(Value { key: b"p:db:s:long".to_vec(), json: "1".to_owned(), ttl_ms: u64::MAX });
    batch.removals = vec![b"p:db:s:gone".to_vec(), b"p:db:s:absent".to_vec()];
    batch.set_additions = vec![addition("p:db#tags:0:0", ["p:db:s:a", "p:db:s:b"], false)];
    batch.channels = vec!["p:db".to_owned()];
    assert!(!write(&client, batch));

    assert_eq!(server.cli(&["GET", "p:db:s:a"]), r#"{"a": 1}"#);
    assert_eq!(server.cli(&["GET", "p:other:s:c"]), "3");
    assert_eq!(server.cli(&["EXISTS", "p:db:s:gone", "p:db:s:expired"]), "0");
    for key in ["p:db:s:a", "p:db#tags:0:0"] {
        let ttl: i64 = server.cli(&["PTTL", key]).parse().expect("a number");
        assert!((1..=60_000).contains(&ttl), "{key}: {ttl}");
    }
    let message: String = listener.get_message().expect("a message").get_payload().expect("text");
    assert_eq!(
        message,
        r#"{"removed":["p:db:s:expired","p:db:s:gone","p:db:s:absent"],"set":["p:db:s:a","p:db:s:b","p:db:s:long"]}"#
    );

    let job = Job::RemoveMembers { sets: vec!["p:db#tags:0:0".to_owned()], channel: "p:db".to_owned() };
    assert_eq!(execute(&client, job), Answer::MembersRemoved { all_found: true });
    assert_eq!(server.cli(&["EXISTS", "p:db:s:a", "p:db:s:b", "p:db#tags:0:0"]), "0");
    assert_eq!(server.cli(&["EXISTS", "p:other:s:c"]), "1");
    let message: String = listener.get_message().expect("a message").get_payload().expect("text");
    assert!(message.contains(r#""set":[]"#) && message.contains("p:db:s:b"), "{message}");
}

/// Fails if a batch without any change is an error, or changes something.
#[test]
fn an_empty_batch_is_written() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    assert!(!write(&client, Batch::default()));
    assert_eq!(server.keys(), 0);
}

/// Fails if the client needs INFO or other commands that the user may not run, or if an error names the user.
#[test]
fn a_user_with_few_rights_is_enough_and_no_error_has_its_name() {
    needs_redis!();
    let server = Server::start(&[]);
    let url = |secret: &str| server.url().replace("unix://", &format!("unix://{secret}@"));
    let rules =
        ["~p:*", "&p:*", "+@write", "+@read", "+publish", "+client|id", "+client|kill", "+auth", "+select"];
    server.cli(&[&["ACL", "SETUSER", "alice", "on", ">open@sesame"][..], &rules[..]].concat());

    let alice = client(&url("alice:open%40sesame"));
    let facts = connect(&alice);
    assert_eq!((facts.identity, facts.maxmemory, facts.is_writable), (None, None, true));
    let mut batch = values([("p:db:s:a", "1")]);
    batch.channels = vec!["p:db".to_owned()];
    assert!(!write(&alice, batch));
    assert_eq!(scan(&alice, pattern("p:")), ["p:db:s:a"]);
    let text = failure(execute(&alice, Job::Write(values([("q:db:s:a", "1")]))));
    assert!(text.contains("NOPERM") && !text.contains("alice"), "{text}");
    assert_eq!(execute(&alice, Job::Check), Answer::Skipped);

    server.cli(&["ACL", "SETUSER", "alice", "-set"]);
    connect(&alice);
    // The user may remove the key, so the older value goes.
    let answer = execute(&alice, Job::Write(values([("p:db:s:a", "1")])));
    let Answer::Written { refused: Some(text), .. } = answer else { panic!("{answer:?}") };
    assert!(text.contains("NOPERM") && text.contains("'set'") && !text.contains("alice"), "{text}");
    assert_eq!(server.keys(), 0);

    for secret in ["alice:wrong", "bob:open%40sesame", ":open%40sesame"] {
        let text = failure(execute(&client(&url(secret)), Job::Connect));
        assert_eq!(text, "the server refuses the user or the password");
    }
}

/// Fails if the password of the default user is not sent, or is not decoded.
#[test]
fn a_password_without_a_user_opens_the_server() {
    needs_redis!();
    let server = Server::start(&["--requirepass", "se:s/ame"]);
    let text = failure(execute(&client(&server.url()), Job::Connect));
    assert!(text.contains("NOAUTH"), "{text}");
    let facts = connect(&client(&server.url().replace("unix://", "unix://:se%3As%2fame@")));
    assert_eq!(facts.identity.map(|identity| identity.len()), Some(1));
}

/// Fails if the client writes to another database of Redis than the URL says.
#[test]
fn a_database_with_a_number_is_used() {
    needs_redis!();
    let server = Server::on_port(&[]);
    for (url, number) in [
        (format!("{}?db=3", server.url()), "3"),
        (format!("redis://localhost:{}/4", server.port()), "4"),
        (format!("redis://127.0.0.1:{}", server.port()), "0"),
    ] {
        let client = connected(&url);
        write(&client, values([("key", number)]));
        assert_eq!(server.cli(&["-n", number, "GET", "key"]), number);
        assert_eq!(scan(&client, pattern("")), ["key"]);
    }
    let text = failure(execute(&client(&format!("{}?db=99", server.url())), Job::Connect));
    assert!(text.contains("out of range"), "{text}");
}

/// Fails if a refused value leaves the older one in Redis, or if the removals of the same batch are not executed.
#[test]
fn a_full_server_loses_the_values_that_it_refuses() {
    needs_redis!();
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let client = connected(&server.url());
    let mut batch = values([("old", "1"), ("other", "1")]);
    batch.set_additions = vec![addition("set", ["old"], false)];
    write(&client, batch);
    server.cli(&["CONFIG", "SET", "maxmemory", "100kb"]);
    let known = facts(execute(&client, Job::Check));
    assert_eq!((known.maxmemory, known.policy.as_deref()), (Some(102_400), Some("noeviction")));

    let mut batch = values([("old", "2"), ("new", "2")]);
    batch.set_additions = vec![addition("set", ["new"], true)];
    batch.removals = vec![b"other".to_vec()];
    match execute(&client, Job::Write(batch)) {
        Answer::Written { refused: Some(text), lost_sets: false } => assert!(text.contains("OOM"), "{text}"),
        answer => panic!("{answer:?}"),
    }
    assert_eq!(server.cli(&["EXISTS", "old", "new", "other"]), "0");

    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert!(!write(&client, values([("old", "3")])));
    assert_eq!(server.cli(&["GET", "old"]), "3");
}

/// Fails if the client accepts a replica, also one that accepts writes, or if a promoted server keeps its identity.
#[test]
fn a_replica_is_not_accepted() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    let before = facts(execute(&client, Job::Check));
    assert!(before.is_writable);

    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(!facts(execute(&client, Job::Check)).is_writable);
    let text = failure(execute(&client, Job::Write(values([("a", "1")]))));
    assert!(text.contains("READONLY"), "{text}");
    assert_eq!(failure(execute(&client, Job::Connect)), "the server is a read-only replica");
    server.cli(&["CONFIG", "SET", "replica-read-only", "no"]);
    assert_eq!(failure(execute(&client, Job::Connect)), "the server is a replica");

    // Once promoted, it has a new history, because its master could have had other data.
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    let after = connect(&client);
    assert!(after.is_writable && after.identity.is_some() && after.identity != before.identity);
}

/// Fails if a new connection alone changes the identity, or if a restart of the server does not.
#[test]
fn the_identity_is_the_same_until_the_server_is_started_again() {
    needs_redis!();
    let mut server = Server::start(&[]);
    let client = connected(&server.url());
    let first = connect(&client);
    assert_eq!(first, connect(&client));
    assert_eq!(first, facts(execute(&client, Job::Check)));
    server.restart();
    failure(execute(&client, Job::Check));
    assert_eq!(execute(&client, Job::Write(values([("a", "1")]))), Answer::Skipped);
    assert_ne!(first, connect(&client));
    assert_eq!(server.keys(), 0);
}

/// Fails if an addition to an evicted set, or the removal of a set that was created again, counts as complete.
#[test]
fn a_set_that_was_evicted_is_noticed() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    let add = |set: &str, member: &str, must_exist| {
        let set_additions = vec![addition(set, [member], must_exist)];
        write(&client, Batch { set_additions, ..Batch::default() })
    };
    let remove = |set: &str| {
        execute(&client, Job::RemoveMembers { sets: vec![set.to_owned()], channel: "channel".to_owned() })
    };
    assert!(!add("set", "a", false));
    assert!(!add("set", "b", true));
    assert!(!add("set", "b", false));
    server.cli(&["DEL", "set"]);
    assert!(add("set", "c", true), "the set was gone");
    // Later additions do not hide that members are missing.
    assert!(add("set", "d", true));
    assert_eq!(remove("set"), Answer::MembersRemoved { all_found: false });
    assert_eq!(server.cli(&["EXISTS", "set"]), "0");
    assert_eq!(remove("set"), Answer::MembersRemoved { all_found: false });
    assert!(!add("set", "e", false));
    assert_eq!(remove("set"), Answer::MembersRemoved { all_found: true });
}

/// The client reads at most 32 sets at the same time (`members.rs`). Fails if later ones are left, or if one missing set among many
/// is not noticed.
#[test]
fn many_sets_are_removed_at_once() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    let sets: Vec<String> = (0..100).map(|number| format!("set:{number}")).collect();
    let keys: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    for all_found in [true, false] {
        let mut batch = values(keys.iter().map(|key| (key.as_str(), "1")));
        let members = keys.chunks(3).map(|part| part.iter().map(String::as_str));
        batch.set_additions =
            sets.iter().zip(members).map(|(set, members)| addition(set, members, false)).collect();
        write(&client, batch);
        assert_eq!(server.keys(), 400);
        let expected_rest = if all_found {
            0
        } else {
            server.cli(&["DEL", "set:50"]);
            3
        };
        let answer =
            execute(&client, Job::RemoveMembers { sets: sets.clone(), channel: "channel".to_owned() });
        assert_eq!(answer, Answer::MembersRemoved { all_found });
        assert_eq!(server.keys(), expected_rest);
    }
}

/// Fails if members are left when a set is read in many steps.
#[test]
fn a_set_of_many_members_is_removed() {
    needs_redis!();
    const COUNT: usize = 100_000;
    let server = Server::start(&[]);
    let client = connected(&server.url());
    let keys: Vec<String> = (0..COUNT).map(|number| format!("p:db:s:{number}")).collect();
    for (number, part) in keys.chunks(10_000).enumerate() {
        let mut batch = values(part.iter().map(|key| (key.as_str(), "1")));
        batch.set_additions = vec![addition("set", part.iter().map(String::as_str), number > 0)];
        assert!(!write(&client, batch));
    }
    assert_eq!(server.keys(), COUNT as u64 + 1);
    let sets = vec!["set".to_owned()];
    let answer = execute(&client, Job::RemoveMembers { sets, channel: "channel".to_owned() });
    assert_eq!(answer, Answer::MembersRemoved { all_found: true });
    assert_eq!(server.keys(), 0);
}

/// Fails if a special character of a prefix has its meaning in patterns, if a scan ends too early, or if a step behind the last
/// server finds keys.
#[test]
fn a_scan_finds_the_keys_with_the_prefix_and_no_other() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    let mut mine: Vec<String> = (0..5000).map(|number| format!("mine:db:s:{number}")).collect();
    mine.sort();
    let others: Vec<String> = (0..5000).map(|number| format!("other:{number}")).collect();
    write(&client, values(mine.iter().chain(&others).map(|key| (key.as_str(), "1"))));
    assert_eq!(scan(&client, pattern("mine:")), mine);

    // Each of these would match others if its characters had their meaning in patterns.
    server.cli(&["FLUSHALL"]);
    let names: Vec<String> =
        ["a*b", "a?b", "a[x]b", "a[^x]b", "a\\b", "a\\*b", "a-b", "axb", "axxb", "a^b", "a]b", "a b"]
            .iter()
            .map(|prefix| Names::new(prefix).space(b"db", "s") + "key")
            .collect();
    write(&client, values(names.iter().map(|name| (name.as_str(), "1"))));
    for name in &names {
        assert_eq!(scan(&client, pattern(&name[..name.len() - 3])), [name.as_str()]);
    }
    let beyond = execute(&client, Job::Scan { node: 7, cursor: 0, pattern: pattern("") });
    assert_eq!(beyond, Answer::Scanned { next: None, keys: Vec::new() });
}

/// Fails if a job before the first connection or after a failed job is executed, on a connection that the client makes by itself.
#[test]
fn nothing_is_executed_before_the_first_connection_or_after_a_failure() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = client(&server.url());
    assert_eq!(execute(&client, Job::Write(values([("a", "1")]))), Answer::Skipped);
    connect(&client);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let jobs = ["1", "2", "3"].map(|number| Job::Write(values([("a", number)])));
    let answers = jobs.map(|job| execute(&client, job));
    failure(answers[0].clone());
    assert_eq!(answers[1..], [Answer::Skipped, Answer::Skipped]);
    assert_eq!(server.keys(), 0);
}

/// Fails if a new connection, or the end of the client, leaves a connection open.
#[test]
fn each_client_has_one_connection() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = connected(&server.url());
    for _ in 0..5 {
        connect(&client);
    }
    wait_until("the old connections to end", || server.connections() == 1);
    drop(client);
    wait_until("the last connection to end", || server.connections() == 0);
}
