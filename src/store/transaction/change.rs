//! One change that a transaction has made in the cache. The session keeps it in the *ledger* (`ledger.rs`), the list of its changes
//! in its own memory, until the transaction commits.
//!
//! A *fence* is a word in shared memory that says when a dependency of values last changed. The *tier* is the cache in shared
//! memory. A *keyspace* is the part of it that holds the keys of a space, a named cache (`store/keyspace.rs`). A *stale* value is
//! not valid any more but may still be served. A *tick* is 50 ms on the clock of `pg/clock.rs`. The *journal* is a ring in shared
//! memory that names what has changed.

use crate::pg::memory::{self, OutOfMemory};
use crate::pg::shared;
use crate::store::keyspace::{Keyspace, hash};
use pg_cache_core::{Cost, FenceId, Key, Kind, Meta, NewValue, Refusal, Reservation, StaleOk, Stamp};

/// A copy of a key, with its keyspace and its hash.
#[derive(Debug)]
pub struct OwnKey {
    /// The keyspace of the key.
    pub keyspace: Keyspace,
    /// The bytes of the key.
    pub bytes: Box<[u8]>,
    /// The hash of the key.
    pub hash: u64,
}

impl OwnKey {
    pub fn new(keyspace: Keyspace, bytes: &[u8]) -> Result<Self, OutOfMemory> {
        Ok(Self { keyspace, bytes: memory::try_copy(bytes)?.into_boxed_slice(), hash: hash(bytes) })
    }

    /// Returns the key in the form that the tier takes.
    pub fn key(&self) -> Option<Key<'_>> {
        self.keyspace.key(&self.bytes, self.hash)
    }

    /// Returns whether this is the given key of the given keyspace.
    pub fn is(&self, keyspace: &Keyspace, bytes: &[u8]) -> bool {
        self.keyspace.scope.is(&keyspace.scope) && *self.bytes == *bytes
    }
}

/// A copy of a value that the transaction has set, with everything that the tier needs to store it.
#[derive(Debug)]
pub struct Value {
    /// The bytes of the value.
    pub bytes: Box<[u8]>,
    /// The tags of the value in the form of `store/note.rs`.
    pub note: Box<[u8]>,
    /// The kind of the value.
    pub kind: Kind,
    /// The moment as of which the value is valid.
    pub stamp: Stamp,
    /// The tick at which the value expires.
    pub expires: u32,
    /// The fences of the value's dependencies.
    pub dependencies: Box<[FenceId]>,
    /// How long the value may be served stale. None if it may not be.
    pub stale_ok: Option<StaleOk>,
    /// The condition under which the value is set.
    pub basis: Basis,
    /// The id of the command in which the value was set. It tells whether the transaction may have written to tables since
    /// (`Ledger::is_valid`).
    pub command_id: u32,
}

/// The condition under which a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The caller sets the value unconditionally.
    Plain,
    /// The key had no value, and the transaction claimed it with this number. If another session sets the key meanwhile, that
    /// session's value is the later one and stays.
    Claim(u64),
    /// The value was computed under the lease with this number, from what the database says. So it is not a change: it does not
    /// make the previous value wrong, and it never replaces a change that was made since.
    Lease(u64),
}

impl Value {
    /// Reserves memory for the value in the tier.
    pub fn reserve(&self, key: &OwnKey, name: &Key<'_>) -> Result<Reservation, Refusal> {
        key.keyspace.reserve(name, &self.as_new(), self.stale_ok)
    }

    /// Returns the value in the form in which the tier takes it.
    fn as_new(&self) -> NewValue<'_> {
        NewValue {
            bytes: &self.bytes,
            note: &self.note,
            kind: self.kind,
            stamp: self.stamp,
            expires: self.expires,
            cost: Cost::NONE,
            dependencies: &self.dependencies,
        }
    }

    /// Copies the value.
    pub fn try_copy(&self) -> Result<Self, OutOfMemory> {
        let bytes = memory::try_copy(&self.bytes)?.into_boxed_slice();
        let note = memory::try_copy(&self.note)?.into_boxed_slice();
        let dependencies = memory::try_copy(&self.dependencies)?.into_boxed_slice();
        Ok(Self { bytes, note, dependencies, ..*self })
    }

    /// Returns the fences that the value depends on: its dependencies, its database and its space.
    pub fn fences(&self, key: &OwnKey) -> impl Iterator<Item = FenceId> {
        self.dependencies.iter().copied().chain(key.keyspace.fences)
    }

    /// Returns the metadata of the value. The value counts as created when other sessions can see it, so its age is zero until
    /// then.
    pub fn meta(&self) -> Meta {
        let Self { kind, stamp, expires, .. } = *self;
        Meta {
            value_len: self.bytes.len(),
            kind,
            stamp,
            created: u32::MAX,
            expires,
            cost: Cost::NONE,
            valid_at: u32::MAX,
        }
    }
}

/// The kind of a change and its data.
#[derive(Debug)]
pub enum Action {
    /// The key has this value.
    Set(OwnKey, Value),
    /// The key has no value.
    Remove(OwnKey),
    /// The value of the key, which this transaction has not set, expires at this tick. A tick that is over removes the value.
    Touch(OwnKey, u32),
    /// Everything that depends on the fence is invalid.
    Invalidate(FenceId, JournalName),
}

/// The name of what an invalidated fence stands for. The journal tells it to readers outside of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalName {
    /// A tag of this database.
    Tag(Box<[u8]>),
    /// The space with this OID.
    Space(u32),
    /// The database with this OID; 0 stands for all databases. Also the name if two tags share a fence, and only one name can be
    /// kept.
    Database(u32),
    /// The privileges of roles in the database with this OID; 0 stands for all databases.
    Privileges(u32),
    /// A relation: the journal finds its name by its fence.
    Relation,
    /// Nothing that a value outside of the database can depend on, such as the definitions.
    Unnamed,
}

impl Action {
    /// Returns the key that is changed, if the change is of one key.
    pub fn key(&self) -> Option<&OwnKey> {
        match self {
            Self::Set(key, _) | Self::Remove(key) | Self::Touch(key, _) => Some(key),
            Self::Invalidate(..) => None,
        }
    }

    /// Makes the name of an invalidation cover that of an earlier invalidation of the same fence, too. Tags whose hashes lead to
    /// the same fence share it. Does not allocate.
    pub fn cover_name_of(&mut self, earlier: &Self) {
        if let (Self::Invalidate(_, named), Self::Invalidate(_, other)) = (self, earlier)
            && *named != *other
        {
            let are_all = [&*named, other]
                .iter()
                .any(|name| matches!(name, JournalName::Database(0) | JournalName::Privileges(0)));
            *named = JournalName::Database(if are_all { 0 } else { shared::database() });
        }
    }

    /// Returns roughly how many bytes of memory the change takes.
    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + self.key().map_or(0, |key| key.bytes.len())
            + match self {
                Self::Set(_, value) => value.bytes.len() + value.note.len() + value.dependencies.len() * 4,
                Self::Invalidate(_, JournalName::Tag(tag)) => tag.len(),
                _ => 0,
            }
    }
}

/// The memory of a change in addition to its bytes, in bytes.
const OVERHEAD_BYTES: usize = 256;

/// A change and its position in the order of changes.
#[derive(Debug)]
pub struct Change {
    pub action: Action,
    /// The index in the ledger of the previous change of the same fence, or of a key with the same hash.
    pub previous: Option<usize>,
    /// Grows with each change. The index of a change does not give the order, because a change replaces an earlier one of the same
    /// savepoint.
    pub sequence: u64,
}
