//! A connection to one server. A wait for an answer ends after the timeout of the settings (`target.rs`), or later after a large
//! request. A connection that was given up must be ended on its server ([`Node::kill`]) before anything is written over a new one,
//! because the server may still have commands from it.

use crate::commands::encode;
use crate::failure::Failure;
use crate::info::Info;
use crate::target::{Endpoint, Target};
use redis::{Connection, ConnectionInfo, ServerError, Value};
use std::time::Duration;

/// A connection to one server that stores data. After the first [`Failure`] of a method it must be given up, because answers may be
/// outstanding.
pub struct Node {
    /// Where the server is.
    pub endpoint: Endpoint,
    /// The server's answer to `INFO`. If `INFO` is forbidden: the role of a replica, and `None` for any other server.
    pub info: Option<Info>,
    /// The connection.
    wire: Wire,
    /// The number of the connection that the server gave (`CLIENT ID`). None if it gave none.
    id: Option<i64>,
}

/// Identifies a connection that was given up. The server may still execute commands that it received over this connection, so a new
/// connection to the server must [`kill`](Node::kill) the old one before anything is written.
#[derive(Debug, Clone)]
pub struct Past {
    /// Where the server is.
    endpoint: Endpoint,
    /// The identity of the server's run. None if the server does not tell it.
    run_id: Option<String>,
    /// The number of the connection (`CLIENT ID`).
    id: i64,
}

impl Node {
    /// Connects, and asks the server about itself.
    pub fn connect(target: &Target, endpoint: &Endpoint) -> Result<Self, Failure> {
        let mut wire = Wire::connect(target, target.server(endpoint)?)?;
        let id = match wire.ask(&[b"CLIENT", b"ID"])? {
            Value::Int(id) => Some(id),
            // The user may not run the command, or the server is still loading its data. In the latter case, INFO says so, and
            // `primary` (`find.rs`) refuses the server.
            _ => None,
        };
        // The server may refuse the name.
        wire.ask(&[b"CLIENT", b"SETNAME", target.name().unwrap_or("pg_cache").as_bytes()])?;
        let mut node = Self { endpoint: endpoint.clone(), info: None, wire, id };
        node.update_info()?;
        Ok(node)
    }

    /// Asks the server about itself again.
    pub fn update_info(&mut self) -> Result<(), Failure> {
        self.info = match self.wire.ask(&[b"INFO"])? {
            Value::BulkString(text) => Some(Info::parse(&String::from_utf8_lossy(&text))),
            Value::VerbatimString { text, .. } => Some(Info::parse(&text)),
            Value::ServerError(error) if is_forbidden(&error) => self.role()?,
            Value::ServerError(error) => return Err(error.into()),
            _ => return Err(Failure::unexpected("INFO")),
        };
        Ok(())
    }

    /// Asks the server for its role, because `primary` (`find.rs`) must refuse a replica even if `INFO` is forbidden. Returns
    /// `None` if the server is no replica or does not answer `ROLE`.
    fn role(&mut self) -> Result<Option<Info>, Failure> {
        let Value::Array(words) = self.wire.ask(&[b"ROLE"])? else { return Ok(None) };
        let is_replica = matches!(words.first(), Some(Value::BulkString(role)) if role == b"slave");
        Ok(is_replica.then(|| Info { is_replica, is_read_only: true, ..Info::default() }))
    }

    /// Sends commands. Their answers must be received afterwards.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), Failure> {
        self.wire.send(commands)
    }

    /// Receives the next answer. A server's error is an answer.
    pub fn receive(&mut self) -> Result<Value, Failure> {
        self.wire.receive()
    }

    /// Sends one command and receives the answer.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Failure> {
        self.wire.ask(words)
    }

    /// Returns what identifies this connection after it was given up; `None` if the server did not tell its number.
    pub fn past(&self) -> Option<Past> {
        Some(Past { endpoint: self.endpoint.clone(), run_id: self.run_id().cloned(), id: self.id? })
    }

    /// Ends a connection to this server that was given up. The server may refuse, or may have ended the connection.
    pub fn kill(&mut self, past: &Past) -> Result<(), Failure> {
        // Other servers, and a server that was started since, have other connections with the same numbers. If the user may not run
        // INFO, only the address tells the servers apart.
        let is_same = match (&past.run_id, self.run_id()) {
            (Some(then), Some(now)) => then == now,
            _ => past.endpoint == self.endpoint,
        };
        if is_same { self.kill_id(past.id) } else { Ok(()) }
    }

    /// Ends all other connections with a name. The server may refuse.
    pub fn kill_named(&mut self, name: &str) -> Result<(), Failure> {
        let list = match self.ask(&[b"CLIENT", b"LIST"])? {
            Value::BulkString(list) => String::from_utf8_lossy(&list).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => return Ok(()),
        };
        for line in list.lines() {
            let field = |field: &str| line.split(' ').find_map(|word| word.strip_prefix(field));
            let id = field("id=").and_then(|id| id.parse().ok());
            if let Some(id) = id
                && field("name=") == Some(name)
                && Some(id) != self.id
            {
                self.kill_id(id)?;
            }
        }
        Ok(())
    }

    fn kill_id(&mut self, id: i64) -> Result<(), Failure> {
        self.ask(&[b"CLIENT", b"KILL", b"ID", id.to_string().as_bytes()])?;
        Ok(())
    }

    fn run_id(&self) -> Option<&String> {
        self.info.as_ref()?.run_id.as_ref()
    }
}

/// The least bytes per second of a connection that is not given up while a large request is on its way.
const BYTES_PER_SECOND: u64 = 100_000;

/// A connection to a server of any kind: one that stores data, or a sentinel.
pub struct Wire {
    connection: Connection,
    timeout: Duration,
    /// The present timeout of reading.
    patience: Duration,
}

impl Wire {
    /// Connects.
    pub fn connect(target: &Target, info: ConnectionInfo) -> Result<Self, Failure> {
        // Fails if it is installed already. The process has no other user of TLS by rustls.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connection = redis::Client::open(info)?.get_connection_with_timeout(target.timeout())?;
        connection.set_read_timeout(Some(target.timeout()))?;
        connection.set_write_timeout(Some(target.timeout()))?;
        Ok(Self { connection, timeout: target.timeout(), patience: target.timeout() })
    }

    /// Sends one command and receives the answer. A server's error is an answer.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<Value, Failure> {
        self.send(&encode(words))?;
        self.receive()
    }

    /// Sends commands. The system may take them all before the first byte has arrived, so the wait for the answer is longer after
    /// many bytes.
    fn send(&mut self, commands: &[u8]) -> Result<(), Failure> {
        // The wait grows in steps of an eighth of a second, so it stays the same for a few kilobytes: each change of it costs a
        // call of the system.
        let seconds = commands.len() as u64 * 8 / BYTES_PER_SECOND;
        let patience = self.timeout + Duration::from_secs(seconds) / 8;
        if patience != self.patience {
            self.connection.set_read_timeout(Some(patience))?;
            self.patience = patience;
        }
        Ok(self.connection.send_packed_command(commands)?)
    }

    fn receive(&mut self) -> Result<Value, Failure> {
        Ok(self.connection.recv_response()?)
    }
}

/// Returns whether the server does not let the user run the command, or does not know the command.
fn is_forbidden(error: &ServerError) -> bool {
    error.code() == "NOPERM" || error.details().is_some_and(|details| details.starts_with("unknown command"))
}
