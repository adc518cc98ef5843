//! Where Redis is and how to reach it: the URL of `pg_cache.redis_url`, with its servers, user, password and TLS. No text of this
//! file, and no error, may show the user or the password.

use crate::failure::Failure;
use crate::mask::mask;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Redis is and how to reach it. `Debug` and `Display` never show user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL without user and password.
    shown: String,
    /// The servers.
    kind: Kind,
    /// The user, if the URL has one.
    user: Option<String>,
    /// The password, if the URL has one.
    password: Option<String>,
    /// The number of the database in Redis.
    database: i64,
    /// Whether connections use TLS.
    is_encrypted: bool,
    /// The limit of each wait for a server.
    timeout: Duration,
    /// The file with the certificate authority for TLS. None for the system's authorities.
    ca_file: Option<PathBuf>,
    /// The name that connections get (`CLIENT SETNAME`). None for `pg_cache`.
    name: Option<String>,
}

/// The servers of the URL, and how they belong together.
#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    /// One server.
    Single(Endpoint),
    /// A cluster that these servers belong to.
    Cluster(Vec<Endpoint>),
    /// The master of a service that these sentinels know.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<Endpoint>,
        /// The name of the service.
        service: String,
    },
}

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A host and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

const SCHEMES: &str = "redis://, rediss://, unix://, redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://";

impl Target {
    /// Reads a URL. `timeout` bounds each wait for a server; `ca_file` has the certificate authority for TLS. An error is a
    /// sentence without secrets.
    pub fn parse(url: &str, timeout: Duration, ca_file: Option<&Path>) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(format!("The URL must begin with {SCHEMES}."))?;
        let mut target = Self {
            shown: mask(url).into_owned(),
            kind: Kind::Cluster(Vec::new()),
            user: None,
            password: None,
            database: 0,
            is_encrypted: scheme.starts_with("rediss"),
            timeout: timeout.max(Duration::from_millis(1)),
            ca_file: ca_file.map(Path::to_owned),
            name: None,
        };
        let place = if scheme == "unix" && rest.starts_with('/') { rest } else { target.take_user(rest)? };
        if place.contains(|c: char| c.is_control() || c == '#' || (c == '?' && scheme != "unix")) {
            return Err("The URL must have no parameters, no fragment, and no control characters.".to_owned());
        }
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        target.kind = match scheme {
            "redis" | "rediss" => {
                target.database = database(path)?;
                Kind::Single(one(endpoints(hosts, 6379)?)?)
            }
            "unix" => {
                let (path, parameter) = place.split_once('?').unwrap_or((place, "db=0"));
                target.database =
                    database(parameter.strip_prefix("db=").ok_or("The only parameter is db.")?)?;
                if !path.starts_with('/') {
                    return Err("After unix://, the URL must have the absolute path of a socket.".to_owned());
                }
                Kind::Single(Endpoint::Unix(path.into()))
            }
            "redis+cluster" | "rediss+cluster" => {
                if !matches!(path, "" | "0") {
                    return Err("A Redis cluster has no numbered databases.".to_owned());
                }
                Kind::Cluster(endpoints(hosts, 6379)?)
            }
            "redis+sentinel" | "rediss+sentinel" => {
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                target.database = database(number)?;
                let service = decode(service).ok_or("The name of the service has an invalid % sequence.")?;
                if service.is_empty() {
                    return Err(
                        "Behind the sentinels, the URL must have a / and the name of the service.".to_owned()
                    );
                }
                Kind::Sentinel { sentinels: endpoints(hosts, 26379)?, service }
            }
            _ => return Err(format!("The URL must begin with {SCHEMES}.")),
        };
        Ok(target)
    }

    /// Names the connections. When a client connects for the first time, it ends all other connections with that name: they are
    /// left from a process that has ended, and the servers may still read commands from them. So no two clients that exist at the
    /// same time may have the same name. Without this, the connections are called `pg_cache`, and none is ended.
    pub fn with_name(mut self, name: &str) -> Self {
        // Redis allows these characters only.
        self.name = Some(name.replace(|c: char| !c.is_ascii_graphic(), "_"));
        self
    }

    /// Returns the name that [`with_name`](Self::with_name) has given to the connections.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes `user:password@` from the beginning of a text.
    fn take_user<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        let Some((secret, place)) = text.rsplit_once('@') else { return Ok(text) };
        let (user, password) = secret.split_once(':').unwrap_or((secret, ""));
        if secret.contains(['/', '?', '#', '@']) || password.contains(':') {
            return Err("In user and password, the characters :, /, ?, #, @ and % must be written as %3A, %2F, %3F, %23, %40 and %25."
                .to_owned());
        }
        let decoded = |text| decode(text).ok_or("User or password has an invalid % sequence.");
        self.user = Some(decoded(user)?).filter(|user| !user.is_empty());
        self.password = Some(decoded(password)?);
        Ok(place)
    }

    /// Returns which servers there are.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns the bound of each wait.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns how to connect to a server that stores data.
    pub(crate) fn server(&self, endpoint: &Endpoint) -> Result<ConnectionInfo, Failure> {
        let mut settings = RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        Ok(self.place(endpoint)?.set_redis_settings(settings))
    }

    /// Returns how to connect to a sentinel. It gets neither user nor password.
    pub(crate) fn sentinel(&self, endpoint: &Endpoint) -> Result<ConnectionInfo, Failure> {
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        Ok(self.place(endpoint)?.set_redis_settings(settings))
    }

    /// Returns how to reach a server: its address, and the certificates for TLS.
    fn place(&self, endpoint: &Endpoint) -> Result<ConnectionInfo, Failure> {
        let address = match endpoint {
            Endpoint::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Endpoint::Tcp(host, port) if !self.is_encrypted => ConnectionAddr::Tcp(host.clone(), *port),
            Endpoint::Tcp(host, port) => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
        };
        let settings = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = address.into_connection_info()?.set_tcp_settings(settings);
        let Some(file) = self.ca_file.as_ref().filter(|_| self.is_encrypted) else { return Ok(info) };
        // The file is read for each connection, so that it can be renewed.
        let root_cert = std::fs::read(file)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
        let client = redis::Client::build_with_tls(info, certificates)?;
        Ok(client.get_connection_info().clone())
    }

    /// Returns a text as one line of at most 200 bytes, without user and password.
    pub(crate) fn clean(&self, text: &str) -> String {
        // Secrets come first: they may have control characters, too.
        let mut clean = mask(text).into_owned();
        for secret in [&self.password, &self.user].into_iter().flatten().filter(|secret| !secret.is_empty()) {
            clean = without(&clean, secret);
        }
        clean = clean.replace(|c: char| c.is_control(), " ");
        clean.truncate(clean.floor_char_boundary(200));
        clean
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}, {:?}, {:?})", self.shown, self.timeout, self.ca_file)
    }
}

impl Endpoint {
    /// Reads `host:port`, where the host may be an IPv6 address without brackets.
    pub(crate) fn of_server(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self::Tcp(host.to_owned(), port.parse().ok()?))
    }
}

/// Replaces a secret by `***`. A short one is replaced only where it is a word, because its letters occur in other words.
fn without(text: &str, secret: &str) -> String {
    let mut clean = String::new();
    let mut end = 0;
    for (at, found) in text.match_indices(secret) {
        let is_inside = |next: Option<char>| secret.len() < 4 && next.is_some_and(char::is_alphanumeric);
        if !is_inside(text[..at].chars().next_back()) && !is_inside(text[at + found.len()..].chars().next()) {
            clean.push_str(&text[end..at]);
            clean.push_str("***");
            end = at + found.len();
        }
    }
    clean + &text[end..]
}

fn database(text: &str) -> Result<i64, String> {
    let digits = if text.is_empty() { "0" } else { text };
    let number =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
    Ok(i64::from(number.ok_or("The number of the database must be a whole number.")?))
}

fn one(endpoints: Vec<Endpoint>) -> Result<Endpoint, String> {
    let [endpoint] = <[Endpoint; 1]>::try_from(endpoints)
        .map_err(|_| "Several hosts need redis+cluster:// or redis+sentinel://.".to_owned())?;
    Ok(endpoint)
}

/// Reads a list of hosts, separated by commas.
fn endpoints(hosts: &str, default_port: u16) -> Result<Vec<Endpoint>, String> {
    hosts.split(',').map(|host| endpoint(host, default_port)).collect()
}

/// Reads a host with an optional port. The error is a sentence for the user.
fn endpoint(text: &str, default_port: u16) -> Result<Endpoint, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("An IPv6 address must end with ].")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "The brackets must hold an IPv6 address.")?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let is_valid = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
            if !is_valid {
                return Err("The URL must have the name or the address of a host.".to_owned());
            }
            (host, port.or(Some("")))
        }
    };
    let port = match port {
        Some("") if !text.ends_with(':') => Some(default_port),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0)
        }
        _ => None,
    };
    let port = port.ok_or("A port must be a number from 1 to 65535.")?;
    Ok(Endpoint::Tcp(host.to_owned(), port))
}

/// Decodes `%XX`. Returns `None` if a sequence is invalid, or the result is not UTF-8 or contains a zero byte.
fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push(if byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { byte });
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, Duration::from_millis(500), None)
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp(host.to_owned(), port)
    }

    /// Fails if a part of a URL is lost or read as another part.
    #[test]
    fn urls_are_read() {
        for (url, kind, user, password, database, is_encrypted) in [
            ("redis://host", Kind::Single(tcp("host", 6379)), None, None, 0, false),
            ("rediss://host:1/3", Kind::Single(tcp("host", 1)), None, None, 3, true),
            ("redis://:p@10.0.0.1:1/", Kind::Single(tcp("10.0.0.1", 1)), None, Some("p"), 0, false),
            ("redis://u:p%40q%3A%2f@h", Kind::Single(tcp("h", 6379)), Some("u"), Some("p@q:/"), 0, false),
            ("redis://u@h", Kind::Single(tcp("h", 6379)), Some("u"), Some(""), 0, false),
            ("redis://[::1]:7", Kind::Single(tcp("::1", 7)), None, None, 0, false),
            ("redis://[fe80::1]", Kind::Single(tcp("fe80::1", 6379)), None, None, 0, false),
            ("unix:///a/b@c", Kind::Single(Endpoint::Unix("/a/b@c".into())), None, None, 0, false),
            ("unix://u:p@/a?db=2", Kind::Single(Endpoint::Unix("/a".into())), Some("u"), Some("p"), 2, false),
            (
                "redis+cluster://a:1,b,[::1]:3",
                Kind::Cluster(vec![tcp("a", 1), tcp("b", 6379), tcp("::1", 3)]),
                None,
                None,
                0,
                false,
            ),
            ("rediss+cluster://u:p@a", Kind::Cluster(vec![tcp("a", 6379)]), Some("u"), Some("p"), 0, true),
            (
                "redis+sentinel://:p@a,b:2/my%20service/4",
                Kind::Sentinel {
                    sentinels: vec![tcp("a", 26379), tcp("b", 2)],
                    service: "my service".to_owned(),
                },
                None,
                Some("p"),
                4,
                false,
            ),
        ] {
            let target = parse(url).expect(url);
            assert!(target.kind == kind, "{url}");
            assert_eq!((target.user.as_deref(), target.password.as_deref()), (user, password), "{url}");
            assert_eq!((target.database, target.is_encrypted), (database, is_encrypted), "{url}");
        }
    }

    /// Fails if a URL that leads to no Redis is accepted, or if the error repeats the password.
    #[test]
    fn bad_urls_are_refused_without_their_secrets() {
        for url in [
            "",
            "host",
            "http://u:sesame@host",
            "redis:/u:sesame@host",
            "REDIS://u:sesame@host",
            "redis://",
            "redis://u:sesame@",
            "redis://u:sesame@:1",
            "redis://u:sesame@host:",
            "redis://u:sesame@host:x",
            "redis://u:sesame@host:0",
            "redis://u:sesame@host:65536",
            "redis://u:sesame@host:+1",
            "redis://u:sesame@host/x",
            "redis://u:sesame@host/-1",
            "redis://u:sesame@host/1/2",
            "redis://u:sesame@host?db=1",
            "redis://u:sesame@host#insecure",
            "redis://u:sesame@a,b",
            "redis://u:sesame@::1",
            "redis://u:sesame@[::1",
            "redis://u:sesame@[host]",
            "redis://u:sesame@[::1]x",
            "redis://u:ses/ame@host",
            "redis://u:ses@ame@host",
            "redis://u:sesame%4@host",
            "redis://u:sesame%zz@host",
            "redis://u:sesame%ff@host",
            "redis://u:sesame%00@host",
            "redis://u:sesame@ho st",
            "redis://u:sesame@host\n",
            "unix://",
            "unix://u:sesame@socket",
            "unix://socket",
            "unix:///a?x=1",
            "redis+cluster://u:sesame@a,",
            "redis+cluster://u:sesame@a/1",
            "redis+sentinel://u:sesame@a",
            "redis+sentinel://u:sesame@a/",
            "redis+sentinel://u:sesame@a//1",
            "redis+sentinel://u:sesame@a/s/x",
            "unix+cluster:///a",
        ] {
            let error = parse(url).expect_err(url);
            assert!(!error.contains("sesame") && !error.contains("ame@"), "{error}");
            assert!(error.ends_with('.'), "{error}");
        }
    }

    /// Fails if a text about the target, or an error of a server, shows the user or the password.
    #[test]
    fn no_text_shows_user_or_password() {
        let target = parse("redis://alice:open%40sesame@host:1").expect("a valid URL");
        let shown = format!("{target} {target:?}");
        let failed = target.clean("NOPERM User alice\r\nhas open@sesame, redis://alice:open@sesame@host");
        for secret in ["alice", "sesame"] {
            assert!(!shown.contains(secret) && !failed.contains(secret), "{shown} {failed}");
        }
        assert!(shown.contains("host:1"), "{shown}");
        let short =
            parse("redis://u:pw@host").expect("a valid URL").clean("Connection refused for u, pw and \"u\"");
        assert_eq!(short, "Connection refused for ***, *** and \"***\"");
        assert_eq!(target.clean(&"é".repeat(150)).len(), 200);
    }
}
