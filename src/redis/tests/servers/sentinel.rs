//! Tests of the client with three sentinels, a master and a replica: it writes only to the master that the sentinels name.
//! `find.rs` of the client asks the sentinels.

use crate::harness::{
    Server, client, client_with, connect, execute, failure, free_port, needs_redis, values, wait_until, write,
};
use pg_cache_redis::{Answer, Job};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::spawn;
use std::time::Duration;
use tempfile::TempDir;

/// A sentinel that watches one master, under the name `service`.
struct Sentinel {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let (port, directory) = (free_port(), tempfile::tempdir().expect("a directory"));
        let file = directory.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("sentinel monitor service 127.0.0.1 {master} 2"),
            "sentinel down-after-milliseconds service 1000".to_owned(),
            "sentinel failover-timeout service 5000".to_owned(),
            "sentinel auth-pass service sesame".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n")).expect("a writable directory");
        let process = launch(&file, directory.path());
        let sentinel = Self { process, port, _directory: directory };
        wait_until("the sentinel to answer", || sentinel.cli(&["PING"]) == "PONG");
        sentinel
    }

    fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        let output =
            command.args(["-p", &self.port.to_string()]).args(words).output().expect("redis-cli starts");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

fn launch(file: &Path, directory: &Path) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", &crate::harness::server()])
        .arg(file)
        .args(["--sentinel", "--logfile"])
        .arg(directory.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server starts")
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The master is killed, and the sentinels choose the replica. Fails if the client does not find the new master, if it needs the
/// first sentinel of the URL, or if it sends the password to a sentinel, which has none.
#[test]
fn the_master_that_the_sentinels_have_chosen_is_written() {
    needs_redis!();
    let secrets = ["--requirepass", "sesame", "--masterauth", "sesame"];
    let mut master = Server::on_port(&secrets);
    let with_master = ["--replicaof", "127.0.0.1", &master.port().to_string()];
    let replica = Server::on_port(&[&secrets[..], &with_master[..]].concat());
    let cli = |server: &Server, words: &[&str]| {
        server.cli(&[&["-a", "sesame", "--no-auth-warning"], words].concat())
    };
    wait_until("the replica to follow", || {
        cli(&replica, &["INFO", "replication"]).contains("master_link_status:up")
    });
    let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(master.port())).collect();
    wait_until("the sentinels to know everything", || {
        sentinels.iter().all(|sentinel| {
            let known = sentinel.cli(&["SENTINEL", "MASTER", "service"]);
            let lines: Vec<&str> = known.lines().collect();
            let number = |name: &str| lines.iter().position(|line| *line == name).map(|at| lines[at + 1]);
            (number("num-slaves"), number("num-other-sentinels")) == (Some("1"), Some("2"))
        })
    });

    // The first sentinel is not there.
    let hosts: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let url = format!("redis+sentinel://:sesame@127.0.0.1:1,{}/service", hosts.join(","));
    let client = client_with(&url, Duration::from_secs(1), None);
    let before = connect(&client);
    write(&client, values([("key", "1")]));
    assert_eq!(cli(&master, &["GET", "key"]), "1");
    wait_until("the replica to have the key", || cli(&replica, &["GET", "key"]) == "1");

    master.kill();
    failure(execute(&client, Job::Write(values([("key", "2")]))));
    let mut after = None;
    wait_until("the failover", || {
        after = match execute(&client, Job::Connect) {
            Answer::Facts(facts) => Some(facts),
            answer => {
                failure(answer);
                None
            }
        };
        after.is_some()
    });
    assert_ne!(after.expect("the loop has ended").identity, before.identity);
    write(&client, values([("key", "3")]));
    assert_eq!(cli(&replica, &["GET", "key"]), "3");

    let unknown = crate::harness::client(&url.replace("/service", "/other"));
    let text = failure(execute(&unknown, Job::Connect));
    assert!(text.contains("no service \"other\""), "{text}");
}

/// The sentinel names another master, but the old one still answers. Fails if a check asks only the old master, or if the client
/// does not connect to the new one afterwards.
#[test]
fn a_master_that_does_not_know_of_its_successor_is_left() {
    needs_redis!();
    let (first, second) = (Server::on_port(&[]), Server::on_port(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it listens").port();
    let master = Arc::new(AtomicU16::new(first.port()));
    let told = Arc::clone(&master);
    // This thread plays a sentinel: it answers each question with the port in `master`.
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut question = [0; 1024];
            let _ = stream.read(&mut question);
            let port = told.load(Ordering::SeqCst).to_string();
            let _ = write!(stream, "*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len());
        }
    });

    let client = client(&format!("redis+sentinel://127.0.0.1:{port}/service"));
    let facts = connect(&client);
    assert_eq!(execute(&client, Job::Check), Answer::Facts(facts.clone()));
    master.store(second.port(), Ordering::SeqCst);
    assert_eq!(failure(execute(&client, Job::Check)), "the sentinels have chosen another master");
    assert_ne!(connect(&client), facts);
    write(&client, values([("key", "1")]));
    assert_eq!((first.keys(), second.keys()), (0, 1));
}

/// Fails if the client trusts a sentinel that names a replica.
#[test]
fn a_master_that_is_a_replica_is_not_accepted() {
    needs_redis!();
    let server = Server::on_port(&[]);
    let sentinel = Sentinel::start(server.port());
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let client = client(&format!("redis+sentinel://127.0.0.1:{}/service", sentinel.port));
    assert_eq!(failure(execute(&client, Job::Connect)), "the server is a read-only replica");
}
