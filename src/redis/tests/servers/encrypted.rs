//! Tests of the client with TLS, with certificates that openssl makes: it talks to the server with the right certificate, and to no
//! other. `target.rs` of the client decides which certificates a connection trusts.

use crate::harness::{
    Server, client_with, connect, execute, failure, needs_redis, scan, values, wait_until, write,
};
use pg_cache_redis::{Job, pattern};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

fn openssl(directory: &Path, words: &str) {
    let output = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl starts");
    assert!(output.status.success(), "{words}: {output:?}");
}

/// Makes a certificate authority, and a certificate for a server at 127.0.0.1. Returns the file of the authority.
pub fn certificates(directory: &Path) -> PathBuf {
    openssl(
        directory,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
    );
    openssl(directory, "req -newkey rsa:2048 -nodes -subj /CN=server -keyout key.pem -out request.pem");
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1").expect("a writable directory");
    openssl(
        directory,
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    );
    directory.join("ca.pem")
}

/// Returns the options with which a server uses the certificate in a directory.
pub fn tls_options(directory: &Path, port: u16) -> Vec<String> {
    let file = |name: &str| directory.join(name).to_str().expect("a UTF-8 path").to_owned();
    let options = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-cert-file"];
    let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    options.extend([file("cert.pem"), "--tls-key-file".to_owned(), file("key.pem")]);
    options.extend(["--tls-ca-cert-file".to_owned(), file("ca.pem")]);
    options
}

/// Fails if the client accepts another authority or another host, or falls back to a connection without TLS.
#[test]
fn only_a_server_with_a_certificate_of_the_authority_is_trusted() {
    needs_redis!("openssl");
    let directory = tempfile::tempdir().expect("a directory");
    let authority = certificates(directory.path());
    let port = crate::harness::free_port();
    let options = tls_options(directory.path(), port);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--requirepass", "sesame"]);
    let server = Server::start(&options);
    let try_to = |host: &str, authority: Option<&Path>| {
        client_with(&format!("rediss://:sesame@{host}:{port}/1"), TIMEOUT, authority)
    };

    let client = try_to("127.0.0.1", Some(&authority));
    connect(&client);
    let long = "x".repeat(3_000_000);
    write(&client, values([("key", long.as_str())]));
    assert_eq!(server.cli(&["-a", "sesame", "--no-auth-warning", "-n", "1", "STRLEN", "key"]), "3000000");

    let text = failure(execute(&try_to("localhost", Some(&authority)), Job::Connect));
    assert!(text.contains("certificate"), "{text}");
    let text = failure(execute(&try_to("127.0.0.1", None), Job::Connect));
    assert!(text.contains("certificate"), "{text}");
    let other = tempfile::tempdir().expect("a directory");
    let text = failure(execute(&try_to("127.0.0.1", Some(&certificates(other.path()))), Job::Connect));
    assert!(text.contains("certificate"), "{text}");
    let text = failure(execute(&try_to("127.0.0.1", Some(Path::new("/no/such/file"))), Job::Connect));
    assert!(text.contains("/no/such/file"), "{text}");
    let text = failure(execute(&try_to("127.0.0.1", Some(&directory.path().join("names"))), Job::Connect));
    assert!(text.contains("certificate"), "{text}");
    let plain = client_with(&format!("redis://:sesame@127.0.0.1:{port}"), TIMEOUT, None);
    failure(execute(&plain, Job::Connect));
}

/// Fails if the client connects without TLS to the addresses that the cluster tells.
#[test]
fn a_cluster_is_reached_through_tls_on_all_its_servers() {
    needs_redis!("openssl");
    let directory = tempfile::tempdir().expect("a directory");
    let authority = certificates(directory.path());
    let (port, bus) = (crate::harness::free_port(), crate::harness::free_port().to_string());
    let options = tls_options(directory.path(), port);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--cluster-enabled", "yes", "--cluster-port", &bus, "--tls-cluster", "yes"]);
    let server = Server::start(&options);
    server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_until("the cluster", || server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    // The server does not know its own address, so the one in the URL counts.
    let client = client_with(&format!("rediss+cluster://127.0.0.1:{port}"), TIMEOUT, Some(&authority));
    connect(&client);
    write(&client, values([("key", "1")]));
    assert_eq!(server.cli(&["GET", "key"]), "1");
    assert_eq!(scan(&client, pattern("k")), ["key"]);
}
