//! Reads changes from the journal: the keys to look at, and the changes whose keys the journal does not name.
//!
//! The *journal* is a ring in shared memory whose records name what has changed. A *space* is a named cache with its own options.

use super::batches::{KEYS_MAX, KeyId};
use super::places::Places;
use super::sets::{self, SetId, Sets};
use crate::pg::memory;
use crate::pg::shared::HotTier;
use pg_cache_core::{KEY_BYTES_MAX, Lost, Record, What};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The most records that are read at once.
const RECORDS_MAX: usize = 10_000;
/// The most tags and relations whose keys are removed together.
const SETS_MAX: usize = 256;
/// How long the worker waits for a session that has reserved a place in the journal but has not written its record yet. A session
/// needs less than a microsecond for this, unless its process is stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// A change whose keys the journal does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wide {
    /// All keys in the sets of some tags and relations of one database have changed. There is at least one.
    Sets(BTreeSet<SetId>),
    /// All keys of an extent may have changed.
    Keys(Extent),
}

/// A set of keys: those of a space, those of a database, or all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The text with which the Redis keys begin.
    pub prefix: String,
    /// The database and the space of the keys.
    pub of: Of,
}

/// The OIDs of a database and of a space in it. None stands for all databases, or for all spaces of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// The OID of the database.
    database: Option<u32>,
    /// The OID of the space.
    space: Option<u32>,
}

impl Of {
    pub const ALL: Self = Self { database: None, space: None };

    /// Returns whether the extent contains the keys of a space.
    pub fn has(self, database: u32, space: u32) -> bool {
        self.database.is_none_or(|own| own == database) && self.space.is_none_or(|own| own == space)
    }

    /// Returns the smallest extent that contains the keys of both.
    pub fn and(self, other: Self) -> Self {
        let database = self.database.filter(|_| self.database == other.database);
        Self { database, space: self.space.filter(|_| database.is_some() && self.space == other.space) }
    }
}

/// Some changes from the journal. The keys may be looked at in any order. The wide change, if there is one, came after the changes
/// of the keys.
#[derive(Debug, Default)]
pub struct Changes {
    /// The keys that have changed.
    pub keys: BTreeSet<KeyId>,
    /// A change whose keys the journal does not name.
    pub wide: Option<Wide>,
}

impl Changes {
    /// Adds the sets of a tag or a relation to the wide change. Returns false if the wide change is full, belongs to another
    /// database, or is of another kind.
    fn take_set(&mut self, id: SetId) -> bool {
        match &mut self.wide {
            None => self.wide = Some(Wide::Sets(BTreeSet::from([id]))),
            Some(Wide::Sets(ids)) => {
                let is_alike = ids.first().is_some_and(|(database, _)| *database == id.0);
                if !is_alike || ids.len() >= SETS_MAX {
                    return false;
                }
                ids.insert(id);
            }
            Some(Wide::Keys(_)) => return false,
        }
        true
    }
}

/// The meaning of a record of the journal for Redis.
enum Effect {
    Nothing,
    /// A key may have another value.
    Key(KeyId),
    /// The keys in the sets of a tag or a relation have changed.
    Set(SetId),
    /// All keys of an extent may have changed.
    Keys(Extent),
}

/// The position of the worker in the journal.
#[derive(Debug)]
pub struct Position {
    /// The number up to which the worker has read the journal.
    pub number: u64,
    /// Since when the next record has been reserved but not written.
    stalled: Option<Instant>,
}

impl Position {
    pub fn at(number: u64) -> Self {
        Self { number, stalled: None }
    }

    /// Returns whether there are records to read.
    pub fn has_more(&self, tier: &HotTier) -> bool {
        tier.journal().last() != Some(self.number)
    }

    /// Reads the next records, up to a wide change. Tags and relations that change one after the other are one wide change, because
    /// Redis needs a few round trips for it, however many they are. `sets` are the sets that the worker has written. Returns
    /// [`Lost`] if the journal no longer has the next record, or if the writer of the record has not written it for [`PATIENCE`].
    /// May raise errors.
    pub fn read(&mut self, tier: &HotTier, places: &mut Places, sets: &Sets) -> Result<Changes, Lost> {
        let mut changes = Changes::default();
        for _ in 0..RECORDS_MAX {
            if changes.keys.len() >= KEYS_MAX {
                break;
            }
            let mut name = [0; KEY_BYTES_MAX];
            let Some(next) = tier.journal().read(self.number, &mut name)? else {
                return self.wait(tier).map(|()| changes);
            };
            self.stalled = None;
            let is_end = match self.effect(&next.record, places, sets) {
                Effect::Nothing => false,
                // A key that has changed after a tag must be looked at after the removal of the keys with the tag, which could
                // remove the new value.
                Effect::Key(_) | Effect::Keys(_) if changes.wide.is_some() => break,
                Effect::Key(id) => {
                    changes.keys.insert(id);
                    false
                }
                Effect::Set(id) if !changes.take_set(id) => break,
                Effect::Set(_) => false,
                Effect::Keys(extent) => {
                    changes.wide = Some(Wide::Keys(extent));
                    true
                }
            };
            self.number = next.number;
            if is_end {
                break;
            }
        }
        Ok(changes)
    }

    /// Returns what a record means for Redis. May raise errors.
    fn effect(&self, record: &Record<'_>, places: &mut Places, sets: &Sets) -> Effect {
        let (database, object) = (record.database, record.object);
        // If the worker knows no sets of a tag, there is nothing to remove: Redis has no key with the tag, or a comparison of all
        // keys is under way and finds the change.
        let of_sets = |id: SetId| sets.known(id).map_or(Effect::Nothing, Effect::Set);
        let extent = match record.what {
            What::Key if record.role == 0 && places.find(database, object).is_some() => {
                memory::check();
                return Effect::Key((database, object, memory::copy(record.name)));
            }
            What::Key | What::Privileges => None,
            What::Tag => return of_sets(sets::of_tag(database, record.name)),
            What::Relation => return of_sets(sets::of_relation(database, object)),
            What::Space => places.find(database, object).map(|place| {
                let of = Of { database: Some(database), space: Some(object) };
                Extent { prefix: place.prefix.clone(), of }
            }),
            What::Database => {
                // The extension may have been dropped and created again: then an OID may belong to a space with another name.
                places.forget();
                match database {
                    0 => Some(Extent { prefix: places.names().all().to_owned(), of: Of::ALL }),
                    _ => places.any_of(database).map(|place| {
                        let of = Of { database: Some(database), space: None };
                        Extent { prefix: place.database_prefix.clone(), of }
                    }),
                }
            }
        };
        extent.map_or(Effect::Nothing, Effect::Keys)
    }

    /// Notes that the next record cannot be read yet. Returns [`Lost`] if a session has reserved its place but has not written it
    /// for [`PATIENCE`].
    fn wait(&mut self, tier: &HotTier) -> Result<(), Lost> {
        if !self.has_more(tier) {
            self.stalled = None;
            return Ok(());
        }
        let since = *self.stalled.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE { Ok(()) } else { Err(Lost) }
    }
}
