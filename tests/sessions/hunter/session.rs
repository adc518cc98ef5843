//! Sessions of the staleness hunter (`mod.rs`) that reconnect after they were terminated: the hunt cancels and terminates sessions
//! all the time.

use super::DATABASES;
use super::hunt::Hunt;
use super::table::search_path;
use postgres::error::SqlState;
use postgres::{Client, SimpleQueryMessage};
use std::sync::atomic::Ordering::SeqCst;

/// The role of all readers.
pub const READER: &str = "hunt_reader";

/// The session of a writer or a reader, as an application with a connection of its own.
pub struct Session<'h> {
    /// The hunt that the session takes part in.
    pub hunt: &'h Hunt<'h>,
    /// The position in `Hunt::sessions`.
    slot: usize,
    /// The position in `DATABASES`.
    pub database: usize,
    /// Whether this is the session of a reader.
    is_reader: bool,
    /// None before the first connection, and after a change of the database.
    client: Option<Client>,
}

/// Returns whether an error is one that cancelling or terminating a session causes. An error without an SQLSTATE comes from the
/// connection, not from the server.
pub fn is_expected(error: &postgres::Error) -> bool {
    error.is_closed()
        || error.code().is_none()
        || [SqlState::QUERY_CANCELED, SqlState::ADMIN_SHUTDOWN].iter().any(|code| error.code() == Some(code))
}

impl<'h> Session<'h> {
    /// Makes the session of a reader in this slot. It connects when it is first used.
    pub fn reader(hunt: &'h Hunt<'h>, slot: usize) -> Self {
        Self { hunt, slot, database: slot % DATABASES.len(), is_reader: true, client: None }
    }

    /// Makes the session of a writer in this slot. It connects as the superuser when it is first used.
    pub fn writer(hunt: &'h Hunt<'h>, slot: usize) -> Self {
        Self { is_reader: false, ..Self::reader(hunt, slot) }
    }

    /// Returns the connection. Connects if there is none or it is closed.
    pub fn client(&mut self) -> &mut Client {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.hunt.sessions[self.slot].store(0, SeqCst);
            let mut client = self.hunt.cluster.connect(DATABASES[self.database]);
            if self.is_reader {
                let verifies = self.hunt.plan.verifies && self.slot.is_multiple_of(2);
                client
                    .batch_execute(&format!("SET pg_cache.verify_rate = {}", u8::from(verifies)))
                    .expect("it is set");
                let become_reader = format!("SET ROLE {READER}; SET search_path = {}", search_path());
                client.batch_execute(&become_reader).expect("it is set");
            }
            let process = client.query_one("SELECT pg_backend_pid()", &[]).expect("it lives").get(0);
            self.hunt.sessions[self.slot].store(process, SeqCst);
            self.client = Some(client);
        }
        self.client.as_mut().expect("it is there")
    }

    /// Changes the database, with a new connection. No transaction may be open.
    pub fn go_to(&mut self, database: usize) {
        if self.database != database {
            self.hunt.sessions[self.slot].store(0, SeqCst);
            (self.client, self.database) = (None, database);
        }
    }

    /// Runs statements in one message.
    pub fn run(&mut self, sql: &str) -> Result<(), postgres::Error> {
        self.client().batch_execute(sql)
    }

    /// Returns the columns of the first row that a statement returns. Without a row, returns one column that is null.
    pub fn row(&mut self, sql: &str) -> Result<Vec<Option<String>>, postgres::Error> {
        let messages = self.client().simple_query(sql)?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(row.unwrap_or_else(|| vec![None]))
    }

    /// Ends the transaction after an error, and records the error as a finding of `what` if it was not expected. Repeats the
    /// rollback until it succeeds, because a cancel or a terminate may hit it, too.
    pub fn recover(&mut self, error: &postgres::Error, what: &str) {
        self.hunt.errors.fetch_add(1, SeqCst);
        if !is_expected(error) {
            self.hunt.report(format!("{what}: {error:?}"));
        }
        while self.run("ROLLBACK").is_err() {}
    }
}
