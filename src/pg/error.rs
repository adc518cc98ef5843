//! Errors in PostgreSQL's form: a SQLSTATE, a message, and where useful a detail and a hint. Most functions return an error as a
//! `Refused`, and the outermost one raises it. A function whose comment says that it may raise errors raises them itself.

use pgrx::pg_sys::panic::{ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

/// The reason why a call is refused. The outermost function raises it as an error. So a function that returns it may have made only
/// changes that a rollback undoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Refused {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Refused {
    /// Reports the reason as a notice, and returns.
    pub fn notice(self) {
        ErrorReport::from(self).report(PgLogLevel::NOTICE);
    }

    /// Raises the error.
    pub fn raise(self) -> ! {
        ErrorReport::from(self).report(PgLogLevel::ERROR);
        unreachable!("an error does not return")
    }
}

impl Refused {
    /// Reports the reason as a warning, and returns.
    pub fn warn(self) {
        ErrorReport::from(self).report(PgLogLevel::WARNING);
    }
}

impl From<Refused> for ErrorReport {
    fn from(refused: Refused) -> Self {
        let Refused { code, message, detail, hint } = refused;
        let mut report = Self::new(code, message, "pg_cache");
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report
    }
}

/// The SQLSTATE of an error, as the server encodes it: six bits for each of its five characters, the first character in the lowest
/// bits. The number of a character is its distance from `0` in ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlState(pub u32);

impl SqlState {
    /// `connection_failure`
    pub const CONNECTION_FAILURE: Self = Self(PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE as u32);
    /// `insufficient_resources`
    pub const INSUFFICIENT_RESOURCES: Self = Self(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES as u32);
    /// `admin_shutdown`
    pub const ADMIN_SHUTDOWN: Self = Self(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as u32);
    /// `crash_shutdown`
    pub const CRASH_SHUTDOWN: Self = Self(PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN as u32);
    /// `insufficient_privilege`
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE as u32);
    /// `lock_not_available`
    pub const LOCK_NOT_AVAILABLE: Self = Self(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE as u32);
    /// `query_canceled`
    pub const QUERY_CANCELED: Self = Self(PgSqlErrorCode::ERRCODE_QUERY_CANCELED as u32);
}

impl std::fmt::Display for SqlState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let character = |index: u32| char::from(b'0' + (self.0 >> (6 * index) & 0x3F) as u8);
        (0..5).try_for_each(|index| write!(out, "{}", character(index)))
    }
}

/// An error that was caught: its SQLSTATE and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: SqlState,
    pub message: String,
}

impl Failure {
    pub fn of(report: &ErrorReportWithLevel) -> Self {
        Self { code: SqlState(report.sql_error_code() as u32), message: report.message().to_owned() }
    }
}

/// Raises the error of a result. It is for the outermost function of a call, which has no caller to return the error to, and for
/// functions whose comment says that they raise errors.
pub trait OrRaise<T> {
    /// Returns the value, or raises the error.
    fn or_raise(self) -> T;
}

impl<T, E: Into<Refused>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> T {
        /// A separate function, so that the caller pays for a branch only.
        #[cold]
        fn raise<E: Into<Refused>>(error: E) -> ! {
            error.into().raise()
        }
        self.unwrap_or_else(|error| raise(error))
    }
}
