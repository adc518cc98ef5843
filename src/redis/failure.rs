//! The reasons why a connection to Redis is given up, and their texts. After a [`Failure`], answers to earlier commands may still
//! arrive, so the connection must never be used again: the thread connects anew (`thread.rs`).

use redis::{ErrorKind, RedisError, ServerError};
use std::collections::TryReserveError;

/// The reason why a connection is given up. A server's text may contain the name of the user, so every text must pass
/// `Target::clean` before it leaves the crate.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

impl Failure {
    /// A failure in the crate's own words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The failure of a server whose answer to a command has a form that Redis does not use.
    pub fn unexpected(to: &str) -> Self {
        Self(format!("the server gives an unexpected answer to {to}"))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self(match error.kind() {
            _ if error.is_timeout() => "the server does not answer in time".to_owned(),
            ErrorKind::AuthenticationFailed => "the server refuses the user or the password".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl From<TryReserveError> for Failure {
    fn from(_: TryReserveError) -> Self {
        Self::new("out of memory")
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Self(words(&error))
    }
}

/// Returns the error as the server has written it.
pub fn words(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}
