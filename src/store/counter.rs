//! Counters: integers under a key that sessions add to (`cache_incr`).
//!
//! An addition takes effect at once, for all sessions, like `nextval`: it neither waits for other transactions nor is undone by a
//! rollback. There is one exception. If the own transaction has set, removed or invalidated the key before, its number is not the
//! one in the *tier*, the cache in shared memory. Then the addition changes the transaction's own number in the *ledger*, the list
//! of its changes. It becomes visible when the transaction commits, and a rollback discards it together with the change it belongs
//! to.
//!
//! A session can also add to a text or a jsonb that is an integer. It becomes a counter first, with the same time to live and the
//! same dependencies.

use crate::pg::memory::OutOfMemory;
use crate::pg::varlena::{Jsonb, Varlena};
use crate::pg::{jsonb, memory, queue, shared, transaction};
use crate::store::entry::{self, NO_LIFE, NO_VALUE};
use crate::store::journal;
use crate::store::keyspace::{Keyspace, hash};
use crate::store::kind::{JSONB, TEXT};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::table::reading;
use crate::store::transaction::{Basis, NotRecorded, OwnKey, OwnState, Value, pending};
use pg_cache_core::{Cost, IncrError, Key, Kind, Miss, NewValue, Reader, Stamp};

/// An addition to a counter.
#[derive(Clone, Copy, Debug)]
pub struct Addition {
    pub by: i64,
    /// The time to live of a new counter in milliseconds, or none for the default. With 0, no counter is created.
    pub ttl_ms: Option<u64>,
    /// Whether to add only if the key has a value.
    pub only_present: bool,
}

/// The reason why nothing was added.
#[derive(Clone, Copy, Debug)]
pub enum Uncounted {
    /// The status has the reason: the cache cannot be used, there is no memory, or there is no counter and none is created.
    Because(Status),
    /// The key has a number that the transaction itself has set, and this sum could not be recorded: the number stays as it was.
    /// The status has the reason.
    NotRecorded(i64, Status),
    /// The value of the key is no integer.
    OtherKind(Kind),
    /// The sum does not fit into 64 bits.
    Overflow,
}

impl From<Status> for Uncounted {
    fn from(why: Status) -> Self {
        Self::Because(why)
    }
}

impl From<OutOfMemory> for Uncounted {
    fn from(short: OutOfMemory) -> Self {
        Self::Because(short.into())
    }
}

impl From<NotRecorded> for Uncounted {
    fn from(why: NotRecorded) -> Self {
        Self::Because(why.into())
    }
}

impl From<IncrError> for Uncounted {
    fn from(error: IncrError) -> Self {
        match error {
            IncrError::OtherKind(kind) => Self::OtherKind(kind),
            IncrError::Overflow => Self::Overflow,
            IncrError::Refused(refusal) => Self::Because(refusal.into()),
            IncrError::Saved(_) => Self::Because(NO_VALUE),
        }
    }
}

/// Adds to a counter and returns its new value. Sets the status of the session.
pub fn add(space: &Space, key: &[u8], addition: Addition) -> Result<i64, Uncounted> {
    let outcome = try_add(space, key, addition);
    status::set(match outcome {
        Err(Uncounted::Because(why) | Uncounted::NotRecorded(_, why)) => why,
        _ => Status::Done,
    });
    outcome
}

/// Adds to a counter. Does not set the status of the session.
fn try_add(space: &Space, key: &[u8], addition: Addition) -> Result<i64, Uncounted> {
    let keyspace = entry::keyspace_to_count(space, key)?;
    let hash = hash(key);
    let Some(name) = keyspace.key(key, hash) else { return Err(NO_VALUE.into()) };
    let number = match number_of_own(&keyspace, &name, key, hash) {
        OwnNumber::Unchanged => {
            let sum = add_at_once(space, &keyspace, &name, addition);
            if sum.is_ok() {
                journal::key_changed(&keyspace, key);
            }
            queue::wake(hash);
            return sum;
        }
        OwnNumber::Is(kind, number) => Some(number.ok_or(Uncounted::OtherKind(kind))?),
        OwnNumber::None => None,
    };
    let own = OwnKey::new(keyspace, key)?;
    match number {
        Some(number) => {
            let sum = number.checked_add(addition.by).ok_or(Uncounted::Overflow)?;
            pending::replace_by_counter(own, sum).map_err(|why| Uncounted::NotRecorded(sum, why.into()))?;
            Ok(sum)
        }
        None => {
            addition.require_creation()?;
            pending::set(own, addition.new_value(space, &keyspace)?)?;
            Ok(addition.by)
        }
    }
}

impl Addition {
    /// Returns an error if no counter must be created.
    fn require_creation(&self) -> Result<(), Status> {
        match self {
            Self { only_present: true, .. } => Err(NO_VALUE),
            Self { ttl_ms: Some(0), .. } => Err(NO_LIFE),
            _ => Ok(()),
        }
    }

    /// Returns a new counter for the ledger.
    fn new_value(&self, space: &Space, keyspace: &Keyspace) -> Result<Value, OutOfMemory> {
        Ok(Value {
            bytes: memory::try_copy(&self.by.to_ne_bytes())?.into_boxed_slice(),
            note: Box::default(),
            kind: Kind::COUNTER,
            stamp: keyspace.tier.fences().now(),
            expires: entry::expires(space, self.ttl_ms),
            dependencies: Box::default(),
            stale_ok: None,
            basis: Basis::Plain,
            command_id: transaction::command_id(),
        })
    }
}

/// The number of a key as the own transaction has changed it.
enum OwnNumber {
    /// The transaction has not changed the number: ask the tier.
    Unchanged,
    /// The transaction has set a value of this kind, and it is this integer, or none.
    Is(Kind, Option<i64>),
    /// The transaction has removed the value, or has changed what it depends on.
    None,
}

/// Returns the number of a key as the own transaction has changed it. May raise errors.
fn number_of_own(keyspace: &Keyspace, name: &Key<'_>, key: &[u8], hash: u64) -> OwnNumber {
    let mut copy = [0; INTEGER_BYTES_MAX];
    let mut length = None;
    // `Touched` is a key to which the transaction has only given another time to live.
    let own = pending::with_own(keyspace, key, hash, |own, changed| match own {
        OwnState::Set(value) if value.expires > shared::tick() => {
            let bytes = copy.get_mut(..value.bytes.len());
            length = bytes.map(|bytes| bytes.copy_from_slice(&value.bytes)).map(|()| value.bytes.len());
            OwnNumber::Is(value.kind, None)
        }
        OwnState::Set(_) | OwnState::Gone => OwnNumber::None,
        OwnState::Nothing | OwnState::Touched(_)
            if keyspace.scope.fences().iter().any(|fence| changed.contains(fence)) =>
        {
            OwnNumber::None
        }
        OwnState::Nothing | OwnState::Touched(_) => {
            let reader = Reader { changed_fences: changed, ..Stamp::LATEST.into() };
            let is_gone = || matches!(keyspace.tier.peek(name, reader), Err(Miss::Own));
            if !changed.is_empty() && is_gone() { OwnNumber::None } else { OwnNumber::Unchanged }
        }
    });
    // Reading the number may raise errors, so it comes after the ledger is no longer borrowed.
    match (own, length) {
        (OwnNumber::Is(kind, _), Some(length)) => OwnNumber::Is(kind, integer(kind, &copy[..length])),
        (own, _) => own,
    }
}

/// Adds to the number in the tier, for all sessions at once. If the key has no number, creates a counter if `addition` allows it.
fn add_at_once(
    space: &Space,
    keyspace: &Keyspace,
    name: &Key<'_>,
    addition: Addition,
) -> Result<i64, Uncounted> {
    let new = NewValue {
        bytes: &[],
        note: &[],
        kind: Kind::COUNTER,
        stamp: keyspace.tier.fences().now(),
        expires: entry::expires(space, addition.ttl_ms),
        cost: Cost::NONE,
        dependencies: &[],
    };
    loop {
        let outcome = match addition.require_creation() {
            Ok(()) => keyspace.incr(name, addition.by, &new),
            Err(why) => keyspace.tier.add(name, addition.by).ok_or(why)?,
        };
        match outcome {
            Err(IncrError::OtherKind(kind)) => make_counter(keyspace, name, kind)?,
            Err(IncrError::Saved(location)) => reading::bring_back_or_forget(keyspace, name, location),
            outcome => return Ok(outcome?),
        }
        // The value may have changed between two steps, then the addition begins again.
        shared::check_for_interrupts();
    }
}

/// Turns the value of a key into a counter, if it is still there. `kind` is the kind that the value had when it was found.
fn make_counter(keyspace: &Keyspace, name: &Key<'_>, kind: Kind) -> Result<(), Uncounted> {
    let mut copy = [0; INTEGER_BYTES_MAX];
    let Some(meta) = keyspace.tier.peek_to_add(name, &mut copy) else { return Ok(()) };
    let bytes = copy.get(..meta.value_len).ok_or(Uncounted::OtherKind(kind))?;
    let number = integer(meta.kind, bytes).ok_or(Uncounted::OtherKind(kind))?;
    keyspace.make_counter(name, (meta.kind, bytes), number).map_err(Status::from)?;
    Ok(())
}

/// The most bytes of a value that may be an integer. A longer value counts as no integer, even a text with many leading zeros. An
/// integer of 64 bits has at most 20 characters as a text, and takes about as many bytes as a jsonb.
const INTEGER_BYTES_MAX: usize = 64;

/// Returns the integer that a value is, or none if it is no integer of 64 bits. May raise errors.
fn integer(kind: Kind, bytes: &[u8]) -> Option<i64> {
    match kind {
        Kind::COUNTER => bytes.first_chunk().map(|word| i64::from_ne_bytes(*word)),
        JSONB => jsonb::bigint(&Jsonb(Varlena::of(bytes))),
        TEXT => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}
