//! The status of the session: the outcome of its last operation, and the reason for it, as `cache_status()` returns it. The *tier*
//! is the cache in shared memory, a *fence* stands for something on which values depend, and a *stale* value is one that is not
//! valid any more but may still be served (`docs/architecture.md`).
//!
//! A status is a small plain record: setting it costs a store and looks nothing up. `cause.rs` turns it into words when the caller
//! asks for it. To add a reason, use `Status::Refused("…")` and the like for a text without a name, and [`Status::Of`] for a text
//! with the name of an object: `Status::Of("refused: {} is volatile", Object::Function(number))`. Every text must be in the tables
//! of `docs/status.md`.

use crate::pg::encoding::shown;
use crate::pg::local::local;
use crate::pg::memory::OutOfMemory;
use crate::pg::shared::HotTier;
use pg_cache_core::{FenceId, InvalidBecause, Key, Miss, Reader, Refusal, Scope, Stamp};
use std::cell::{Cell, RefCell};

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A value from the memory tier.
    Hot,
    /// A value from a table, where it was saved.
    Table,
    /// A value that the own transaction has set.
    Own,
    /// A stale value: it is not valid any more.
    Stale,
    /// A value for which the session has waited while another session computed it.
    Waited,
    /// No value, and the reason.
    Miss(&'static str),
    /// No value, because of a change.
    Invalidated(&'static str),
    /// A list that was cut off because it would have exceeded the most bytes that one call returns.
    Cut,
    /// A list without the values of another kind, and how many these were.
    LeftOut(u32),
    /// The cache was not used, and the reason.
    Bypass(&'static str),
    /// The operation has succeeded, for instance a change, a query whose result was stored, or a lease that was released.
    Done,
    /// A change that was refused, and the reason.
    Refused(&'static str),
    /// A whole text, with `{}` in place of an object. It must begin with the outcome, such as `bypass: `, because code recognizes
    /// the outcome by it ([`is_bypass`](Self::is_bypass)).
    Of(&'static str, Object),
}

impl Status {
    /// Returns whether the cache was not used because of the session or its transaction.
    pub fn is_bypass(self) -> bool {
        match self {
            Self::Bypass(_) => true,
            Self::Of(text, _) => text.starts_with("bypass: "),
            _ => false,
        }
    }
}

/// An object that a status names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A relation of the database, by its OID.
    Relation(u32),
    /// A function, by its OID.
    Function(u32),
    /// The dependency that a fence stands for, in an entry of the space with this OID.
    Dependency(FenceId, u32),
    /// The name that was given to [`about`].
    Named,
}

/// Returns a number that differs for most different objects. `observed.rs` counts equal reasons by it.
pub fn number_of(object: Object) -> u64 {
    match object {
        Object::Relation(number) => u64::from(number),
        Object::Function(number) => 1 << 32 | u64::from(number),
        Object::Dependency(fence, _) => 2 << 32 | u64::from(fence.number()),
        Object::Named => 3 << 32,
    }
}

local! {
    /// The status of the session; None if there is none.
    static LAST: Cell<Option<Status>> = Cell::new(None);
    /// The name for [`Object::Named`]. It is separate from the status, so that a hit only writes a small value.
    static NAME: RefCell<String> = RefCell::new(String::new());
}

/// Returns a status with a name that only the caller knows, such as that of a tag. `text` has `{}` in place of the name, and `kind`
/// is the word before the name that says what it is. The name stays until the next call, so only the latest of these statuses can
/// be put into words.
#[cold]
pub fn about(text: &'static str, kind: &str, name: &[u8]) -> Status {
    let name = shown(name);
    NAME.with_borrow_mut(|kept| {
        kept.clear();
        if kept.try_reserve(kind.len() + 1 + name.len()).is_err() {
            return OutOfMemory.into();
        }
        kept.push_str(kind);
        kept.push(' ');
        kept.push_str(&name);
        Status::Of(text, Object::Named)
    })
}

/// Calls `with` with the name that was given to [`about`] last.
pub fn with_name<R>(with: impl FnOnce(&str) -> R) -> R {
    NAME.with_borrow(|name| with(name))
}

/// Sets the status of the session.
#[inline]
pub fn set(status: Status) {
    LAST.set(Some(status));
}

/// Forgets the status, because the call that it describes was rolled back, or a later call has failed. Cannot fail.
#[inline]
pub fn forget() {
    LAST.set(None);
}

/// Returns the status of the session. None if there was no operation, or if the status was [forgotten](forget).
pub fn current() -> Option<Status> {
    LAST.get()
}

/// The reason when damage was found in shared memory.
pub const DAMAGED: &str = "part of the cache is switched off because it is damaged";

/// The reason when it is not known which changes the transaction's snapshot includes.
pub const SNAPSHOT_OF_UNKNOWN_AGE: &str = "the age of the transaction's snapshot is unknown";

/// The reason when a change has made an entry invalid, and it is not known any more which one.
const OVER: &str = "a change that is over";

/// The status when another session has the lease of the key, or runs a query for it.
pub const IN_FLIGHT: Status = Status::Miss("another session is computing the value");

/// Returns the status for a read that found no value. `reader` must be the one that was given to the read. If the miss was due to a
/// change, the tier is asked again which one; it may be over by then.
#[cold]
#[inline(never)]
pub fn of_miss(miss: Miss, tier: &HotTier, scope: &Scope, key: &Key<'_>, reader: Reader<'_>) -> Status {
    match miss {
        Miss::Absent | Miss::Saved(_) => Status::Miss("not there"),
        Miss::Expired => Status::Miss("expired"),
        Miss::Off => Status::Bypass(DAMAGED),
        Miss::Fenced | Miss::Own => match tier.why_fenced(key, reader) {
            Some(because) => of_invalid(because, scope),
            None => Status::Invalidated(OVER),
        },
    }
}

/// Returns the status for a stale value: why there is no valid one.
pub fn of_stale(tier: &HotTier, scope: &Scope, key: &Key<'_>, reader: Reader<'_>) -> Status {
    tier.why_fenced(key, reader).map_or(Status::Miss("expired"), |because| of_invalid(because, scope))
}

/// Returns the status for an entry that is not valid: the change that has made it invalid.
pub fn of_change(tier: &HotTier, scope: &Scope, key: &Key<'_>) -> Status {
    match tier.why_fenced(key, Stamp::LATEST) {
        Some(because) => of_invalid(because, scope),
        None => Status::Invalidated(OVER),
    }
}

/// Returns the status for the reason why an entry is not valid. `scope` is that of its key.
fn of_invalid(because: InvalidBecause, scope: &Scope) -> Status {
    let (text, fence) = match because {
        InvalidBecause::Key => return Status::Invalidated("the key, which another transaction is changing"),
        InvalidBecause::Changed(fence) => ("invalidated: {}", fence),
        InvalidBecause::Newer(fence) => ("miss: newer than the transaction's snapshot because of {}", fence),
        InvalidBecause::Own(fence) => ("invalidated: {}, changed by this transaction", fence),
        InvalidBecause::Pattern => return Status::Invalidated("a pattern that matches the key"),
        InvalidBecause::Tracked(fence) => ("miss: a serializable transaction must read {} itself", fence),
    };
    Status::Of(text, Object::Dependency(fence, scope.space))
}

impl From<OutOfMemory> for Status {
    fn from(_: OutOfMemory) -> Self {
        Self::Refused("out of memory")
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(match refusal {
            Refusal::TooLarge => "larger than an eighth of the cache",
            Refusal::Full => "no room",
            Refusal::Quota => "no room within the quota of the space",
            Refusal::TooManyDependencies => "too many dependencies",
            Refusal::Off => DAMAGED,
        })
    }
}
