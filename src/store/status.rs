//! The status of the session: the outcome of its last operation, and the reason for it.

use crate::pg::encoding::shown;
use crate::pg::local::local;
use crate::pg::memory::OutOfMemory;
use pg_cache_core::{Miss, Refusal};
use std::cell::{Cell, RefCell};

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A value from the memory tier.
    Hot,
    /// A value that the own transaction has set.
    Own,
    /// A stale value: it is not valid any more.
    Stale,
    /// A value for which the session has waited while another session computed it.
    Waited,
    /// No value, and the reason.
    Miss(&'static str),
    /// A list that was cut off because it would have exceeded the most bytes that one call returns.
    Cut,
    /// The cache was not used, and the reason.
    Bypass(&'static str),
    /// A change that takes effect when the transaction commits, or a counter that was changed.
    Done,
    /// A change that was refused, and the reason.
    Refused(&'static str),
    /// A change that was refused because of an object with a name, which [`refused_because_of`] keeps.
    RefusedBecauseOf(&'static str),
}

local! {
    static LAST: Cell<Option<Status>> = Cell::new(None);
    /// The name of the object because of which a change was refused. It is separate from the status, so that a hit only writes a
    /// small value.
    static CAUSE: RefCell<String> = RefCell::new(String::new());
}

/// Keeps the name of the object because of which a change is refused, and returns the status.
#[cold]
pub fn refused_because_of(why: &'static str, name: &[u8]) -> Status {
    let name = shown(name);
    CAUSE.with_borrow_mut(|cause| {
        cause.clear();
        if cause.try_reserve(name.len()).is_err() {
            return OutOfMemory.into();
        }
        cause.push_str(&name);
        Status::RefusedBecauseOf(why)
    })
}

/// Sets the status of the session.
#[inline]
pub fn set(status: Status) {
    LAST.set(Some(status));
}

/// Returns the status of the session.
pub fn current() -> Option<Status> {
    LAST.get()
}

/// Returns the status of the session as text, if there is one.
pub fn last() -> Option<String> {
    LAST.get().map(|status| match status {
        Status::Hot => "hot".to_owned(),
        Status::Own => "hot: set by this transaction".to_owned(),
        Status::Stale => "stale".to_owned(),
        Status::Waited => "waited".to_owned(),
        Status::Miss(why) => format!("miss: {why}"),
        Status::Cut => "hot: cut off at 64 MB, which is the most that one call returns".to_owned(),
        Status::Bypass(why) => format!("bypass: {why}"),
        Status::Done => "done".to_owned(),
        Status::Refused(why) => format!("refused: {why}"),
        Status::RefusedBecauseOf(why) => CAUSE.with_borrow(|cause| format!("refused: {why} \"{cause}\"")),
    })
}

impl From<OutOfMemory> for Status {
    fn from(_: OutOfMemory) -> Self {
        Self::Refused("out of memory")
    }
}

impl From<Miss> for Status {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Absent => Self::Miss("not there"),
            Miss::Expired => Self::Miss("expired"),
            Miss::Fenced => Self::Miss("invalidated"),
            Miss::Own => Self::Miss("invalidated by this transaction"),
            Miss::Off => Self::Bypass("part of the cache is switched off because it is damaged"),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(match refusal {
            Refusal::TooLarge => "larger than an eighth of the cache",
            Refusal::Full => "no room",
            Refusal::Quota => "no room within the quota of the space",
            Refusal::TooManyDependencies => "too many dependencies",
            Refusal::Off => "part of the cache is switched off because it is damaged",
        })
    }
}
