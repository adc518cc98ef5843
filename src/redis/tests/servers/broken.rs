//! Tests of the client with servers that are paused, hang, or are not there: no wait is longer than the timeout, and no command of
//! a connection that was given up runs after newer ones. The rules are in `src/redis/lib.rs`; `node.rs` and `thread.rs` there keep
//! them.

use crate::harness::{
    Server, client, client_with, connect, execute, failure, needs_redis, values, wait_until, write,
};
use crate::proxy::Proxy;
use pg_cache_redis::{Answer, Batch, Client, Job, Target};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A timeout of the client that is soon over.
const SHORT: Duration = Duration::from_millis(200);

/// Fails if the client writes on a new connection while the server still has commands of the old one.
#[test]
fn commands_that_a_paused_server_has_received_never_run_after_newer_ones() {
    needs_redis!();
    let server = Server::on_port(&[]);
    let client = client_with(&format!("redis://127.0.0.1:{}", server.port()), SHORT, None);
    // The server cannot read this many commands at once.
    let filler: Vec<String> = (0..12_000).map(|number| format!("filler:{number}")).collect();
    for at_the_end in [true, false, true, false] {
        connect(&client);
        server.pause();
        let mut old = values(filler.iter().map(|key| (key.as_str(), "1")));
        let key = values([("key", "old")]).values;
        let position = if at_the_end { old.values.len() } else { 0 };
        old.values.splice(position..position, key);
        assert_eq!(failure(execute(&client, Job::Write(old))), "the server does not answer in time");
        server.resume();
        connect(&client);
        write(&client, values([("key", "new")]));
        wait_until("the old connection to end", || server.connections() == 1);
        assert_eq!(server.cli(&["GET", "key"]), "new");
    }
}

/// Gives up a connection whose commands are on their way to the server, and writes a newer batch before they arrive. Returns the
/// value in Redis at the end.
fn value_after_late_commands(server: &Server, user: &str) -> String {
    let mut proxy = Proxy::start(server.port());
    let client = client_with(&format!("redis://{user}127.0.0.1:{}", proxy.port()), SHORT, None);
    connect(&client);
    proxy.hold();
    assert_eq!(
        failure(execute(&client, Job::Write(values([("key", "old")])))),
        "the server does not answer in time"
    );
    proxy.pass();
    connect(&client);
    write(&client, values([("key", "new")]));
    proxy.deliver();
    server.cli(&["GET", "key"])
}

/// Fails if the server executes commands that arrive after newer ones.
#[test]
fn commands_that_arrive_late_are_ignored() {
    needs_redis!();
    let server = Server::on_port(&[]);
    assert_eq!(value_after_late_commands(&server, ""), "new");
}

/// The user may not run CLIENT KILL here. Fails if late commands are ignored nevertheless: then the test above would pass without
/// CLIENT KILL, and would show nothing.
#[test]
fn only_client_kill_protects_from_late_commands() {
    needs_redis!();
    let server = Server::on_port(&[]);
    server.cli(&["ACL", "SETUSER", "weak", "on", ">weak", "~*", "&*", "+@all", "-client|kill"]);
    assert_eq!(value_after_late_commands(&server, "weak:weak@"), "old");
}

/// Lets two clients write through a proxy, one after the other. The commands of the first one arrive last. Returns the value in
/// Redis at the end.
fn value_after_a_successor(server: &Server, names: [&str; 2]) -> String {
    let mut proxy = Proxy::start(server.port());
    let named = |name| {
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let target = Target::parse(&url, SHORT, None).expect("a valid URL").with_name(name);
        Client::start(target, 4).expect("a thread starts")
    };
    let (first, second) = (named(names[0]), named(names[1]));
    connect(&first);
    proxy.hold();
    failure(execute(&first, Job::Write(values([("key", "old")]))));
    drop(first);
    proxy.pass();
    connect(&second);
    write(&second, values([("key", "new")]));
    proxy.deliver();
    server.cli(&["GET", "key"])
}

/// Fails if a new client does not end the connection that an earlier client with the same name has left, or if it ends a connection
/// with another name.
#[test]
fn late_commands_of_a_process_that_has_ended_are_ignored() {
    needs_redis!();
    let server = Server::on_port(&[]);
    assert_eq!(value_after_a_successor(&server, ["a name\n", "a name\n"]), "new");
    assert_eq!(value_after_a_successor(&server, ["name", "name2"]), "old");
}

/// Fails if the client ends a connection by a number that the server gave before it was restarted.
#[test]
fn a_server_that_was_started_again_keeps_its_other_connections() {
    needs_redis!();
    let mut server = Server::on_port(&[]);
    let client = client(&format!("redis://127.0.0.1:{}", server.port()));
    connect(&client);
    server.restart();
    failure(execute(&client, Job::Check));
    // The numbers of connections begin anew, so one of these has the number of the old connection. It must not be ended.
    let others: Vec<_> = (0..50)
        .map(|_| {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).expect("a URL");
            client.get_connection().expect("the server accepts connections")
        })
        .collect();
    connect(&client);
    for mut other in others {
        redis::cmd("PING").exec(&mut other).expect("the connection lives");
    }
}

/// Fails if the client waits for the timeout once for each command, and not once for the batch.
#[test]
fn a_batch_to_a_paused_server_waits_once() {
    needs_redis!();
    let server = Server::start(&[]);
    let client = client_with(&server.url(), SHORT, None);
    connect(&client);
    server.pause();
    let began = Instant::now();
    let keys: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    failure(execute(&client, Job::Write(values(keys.iter().map(|key| (key.as_str(), "1"))))));
    // A wait for each of the commands would take 200 seconds.
    assert!(began.elapsed() < Duration::from_secs(30));
    failure(execute(&client, Job::Connect));
    assert_eq!(execute(&client, Job::Check), Answer::Skipped);
    server.resume();
    connect(&client);
    assert!(!write(&client, Batch::default()));
}

/// Fails if a host name without an address is not reported, or if the report has the password.
#[test]
fn a_host_without_an_address_is_a_failure() {
    let client = client("redis+cluster://u:sesame@nothing.invalid:1");
    let text = failure(execute(&client, Job::Connect));
    assert!(text.contains("address") || text.contains("resol"), "{text}");
    assert!(!text.contains("sesame"), "{text}");
}

/// Fails if a server that cannot be reached is not reported, or if the report has the password.
#[test]
fn a_server_that_is_not_there_is_a_failure() {
    let port = crate::harness::free_port();
    for url in [
        format!("redis://u:sesame@127.0.0.1:{port}"),
        format!("rediss://u:sesame@127.0.0.1:{port}"),
        format!("redis+cluster://u:sesame@127.0.0.1:{port},127.0.0.1:{port}"),
        format!("redis+sentinel://u:sesame@127.0.0.1:{port},127.0.0.1:{port}/service"),
        "unix://u:sesame@/no/such/socket".to_owned(),
    ] {
        let text = failure(execute(&client(&url), Job::Connect));
        assert!(text.contains("refused") || text.contains("No such file"), "{text}");
        assert!(!text.contains("sesame"), "{text}");
    }
}

/// Fails if a step of a connection waits without a timeout: TLS, the password, the number of the database, or a sentinel.
#[test]
fn a_server_that_never_answers_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:sesame@127.0.0.1:{port}/1"),
        format!("rediss://127.0.0.1:{port}"),
        format!("redis+cluster://127.0.0.1:{port}"),
        format!("redis+sentinel://127.0.0.1:{port}/service"),
    ] {
        let began = Instant::now();
        let text = failure(execute(&client_with(&url, SHORT, None), Job::Connect));
        assert_eq!(text, "the server does not answer in time", "{url}");
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

/// Fails if an answer in another form ends the thread, or counts as a connection.
#[test]
fn a_server_of_another_protocol_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let server = std::thread::spawn(move || {
        for answer in
            ["HTTP/1.1 400 Bad Request\r\n\r\n", "+OK\r\n+OK\r\n+OK\r\n", "$-7\r\n", "*2\r\n:1\r\n", ""]
        {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 16];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    for _ in 0..5 {
        let text = failure(execute(&client(&format!("redis://127.0.0.1:{port}")), Job::Connect));
        assert!(!text.is_empty());
    }
    server.join().expect("all connections came");
}
