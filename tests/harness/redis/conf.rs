//! The settings of a Redis server: port, password, users, TLS, limit of memory. A test combines them, and `server.rs` writes them
//! to `redis.conf`.

use super::certificate::Certificate;
use super::ports::free_port;
use std::fmt::Write;
use std::path::PathBuf;

/// The settings of a server. Each server also listens on a Unix socket, writes nothing to disk unless it is told to, and is reached
/// from this machine only.
#[derive(Clone, Debug, Default)]
pub struct RedisConf {
    /// The TCP port. None if the server listens on its Unix socket only.
    port: Option<u16>,
    /// The certificate of the authority, for clients. None without TLS.
    authority: Option<PathBuf>,
    /// The directory with the certificate and the key of the server. None without TLS.
    certificates: Option<PathBuf>,
    /// The part of a URL with the user and the password, which ends with `@`. Empty without a password.
    credentials: String,
    /// The password of the default user.
    password: Option<String>,
    /// The further settings of `redis.conf`: names with their arguments, in order.
    lines: Vec<(String, String)>,
}

impl RedisConf {
    /// Returns the settings of a server that listens on a Unix socket only.
    pub fn socket() -> Self {
        Self::default()
    }

    /// Returns the settings of a server that also listens on a free port.
    pub fn tcp() -> Self {
        Self::default().on_free_port()
    }

    /// Adds a setting of `redis.conf`, with its arguments as they are written there.
    pub fn set(mut self, name: &str, arguments: &str) -> Self {
        self.lines.push((name.to_owned(), arguments.to_owned()));
        self
    }

    /// Gives the server a free port, in place of the one that it may have.
    pub(super) fn on_free_port(mut self) -> Self {
        self.port = Some(free_port());
        self
    }

    /// Demands a password from clients. A replica also presents it to its primary.
    pub fn password(mut self, password: &str) -> Self {
        self.credentials = format!(":{}@", percent(password));
        self.password = Some(password.to_owned());
        self.set("requirepass", &quoted(password)).set("masterauth", &quoted(password))
    }

    /// Adds a user with a password and with rules such as `~* &* +@all`. The URL of the server then has this user.
    pub fn user(mut self, name: &str, password: &str, rules: &str) -> Self {
        self.credentials = format!("{}:{}@", percent(name), percent(password));
        self.set("user", &format!("{name} on {} {rules}", quoted(&format!(">{password}"))))
    }

    /// Makes the server accept only TLS on its port. The Unix socket stays without TLS.
    pub fn tls(mut self, certificate: &Certificate) -> Self {
        self.authority = Some(certificate.authority());
        self.certificates = Some(certificate.directory().to_owned());
        self
    }

    /// Limits the memory to a number of bytes such as `10mb`, with a policy such as `noeviction` or `allkeys-lru`.
    pub fn max_memory(self, bytes: &str, policy: &str) -> Self {
        self.set("maxmemory", bytes).set("maxmemory-policy", policy)
    }

    /// Makes the server a replica of the one on this port.
    pub fn replica_of(self, port: u16) -> Self {
        self.set("replicaof", &format!("127.0.0.1 {port}"))
    }

    /// Makes the server a node of a cluster, with a second free port on which it talks to the other nodes. A primary that is gone
    /// for two seconds is replaced.
    pub(super) fn node(self) -> Self {
        let bus = free_port().to_string();
        let conf = self.set("cluster-enabled", "yes").set("cluster-port", &bus);
        let conf = conf.set("cluster-node-timeout", "2000").set("cluster-replica-validity-factor", "0");
        if conf.authority.is_some() {
            conf.set("tls-cluster", "yes").set("tls-replication", "yes")
        } else {
            conf
        }
    }

    /// Returns the port, if there is one.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the password of the default user.
    pub(super) fn default_password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Returns the part of a URL with the user and the password: empty, or with `@` at the end.
    pub(super) fn credentials(&self) -> &str {
        &self.credentials
    }

    /// Returns the file of the certificate authority, if the port is one for TLS.
    pub(super) fn authority(&self) -> Option<&PathBuf> {
        self.authority.as_ref()
    }

    /// Returns the text of the file `redis.conf`, without the directory of the server.
    pub(super) fn text(&self) -> String {
        let mut text =
            String::from("bind 127.0.0.1\nprotected-mode no\nsave \"\"\nappendonly no\nunixsocketperm 777\n");
        // A replica that starts must not wait for others.
        text += "repl-diskless-sync-delay 0\n";
        let port = self.port.unwrap_or(0);
        match &self.certificates {
            None => writeln!(text, "port {port}"),
            Some(directory) => writeln!(
                text,
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file {0}/server.crt\ntls-key-file {0}/server.key\n\
                 tls-ca-cert-file {0}/authority.crt",
                directory.display()
            ),
        }
        .expect("a string takes everything");
        for (name, arguments) in &self.lines {
            writeln!(text, "{name} {arguments}").expect("a string takes everything");
        }
        text
    }
}

/// Returns a word as `redis.conf` has it.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
}

/// Returns a user or a password as a URL has it.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("a string takes everything");
        }
        url
    })
}
