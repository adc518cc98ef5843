//! Notifications about the changes in a database: which changes they tell, and how. The worker of the database reads the *journal*,
//! the ring in shared memory whose *records* name what has changed, and sends the payloads that this file makes.
//!
//! A payload is a JSON object:
//! ```json
//! {"seq": [17, 21], "keys": {"default": ["a", "b"]}, "tags": ["news"], "spaces": ["shop"], "all": true}
//! ```
//! `seq` has the number before the first change and that of the last one. The other members are there only if there is something to
//! name: keys by their *space* (a named cache), tags, spaces that were flushed, and `all` if everything in the database may have
//! changed, or if privileges have. Any role may listen, so a payload names only what every role may know ([`names::public`]); of
//! the other changes it has the numbers. A payload is a hint: the truth is in the journal.

use super::names::{self, Public};
use super::watch;
use crate::pg::encoding::letters;
use crate::pg::memory;
use crate::pg::notify::PAYLOAD_BYTES;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::{KEY_BYTES_MAX, Record, What};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The most records of the journal that one batch reads. This bounds the memory of a batch and the time of its transaction.
const BATCH_MAX: usize = 10_000;
/// The most payloads for one batch. More names would be no help to a listener, so only the numbers are sent.
const PAYLOADS_MAX: usize = 8;

/// The changes in a part of the journal, each once. Relations and spaces are known by their OIDs.
#[derive(Debug)]
pub struct Batch {
    /// The number before the first record of the batch.
    from: u64,
    /// The number up to which the batch goes.
    to: u64,
    /// The keys with the OIDs of their spaces. Keys of single roles are left out.
    keys: BTreeSet<(u32, Vec<u8>)>,
    /// The tags that have changed.
    tags: BTreeSet<Vec<u8>>,
    /// The OIDs of the relations that have changed.
    relations: BTreeSet<u32>,
    /// The OIDs of the spaces in which everything has changed.
    spaces: BTreeSet<u32>,
    /// Whether everything in the database may have changed, or privileges have.
    all: bool,
    /// Whether the batch has no change.
    is_empty: bool,
}

impl Batch {
    /// Reads the records behind a number that concern this database or all databases: at most [`BATCH_MAX`] records of any
    /// database, as far as they are written. If the journal does not reach back to the number, everything counts as changed. May
    /// raise errors.
    pub fn read(tier: &HotTier, from: u64) -> Self {
        let mut batch = Self {
            from,
            to: from,
            keys: BTreeSet::new(),
            tags: BTreeSet::new(),
            relations: BTreeSet::new(),
            spaces: BTreeSet::new(),
            all: false,
            is_empty: true,
        };
        let last = tier.journal().last().unwrap_or(from);
        for _ in 0..BATCH_MAX {
            let mut name = [0; KEY_BYTES_MAX];
            match tier.journal().read(batch.to, &mut name) {
                Ok(None) => break,
                Ok(Some(next)) => {
                    batch.to = next.number;
                    batch.add(&next.record);
                }
                Err(_) => {
                    (batch.to, batch.all, batch.is_empty) = (last, true, false);
                    break;
                }
            }
        }
        batch
    }

    /// Adds a record, if it concerns this database or all databases.
    fn add(&mut self, record: &Record<'_>) {
        if ![0, shared::database()].contains(&record.database) {
            return;
        }
        self.is_empty = false;
        memory::check();
        match record.what {
            What::Key if record.role != 0 => {}
            What::Key => _ = self.keys.insert((record.object, memory::copy(record.name))),
            What::Tag => _ = self.tags.insert(memory::copy(record.name)),
            What::Relation => _ = self.relations.insert(record.object),
            What::Space => _ = self.spaces.insert(record.object),
            What::Database | What::Privileges => self.all = true,
        }
    }

    /// Returns whether the batch has no change in this database.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Returns the number up to which the journal was read.
    pub fn number(&self) -> u64 {
        self.to
    }

    /// Returns the payloads, at least one. Must be called within a transaction. May raise errors.
    pub fn payloads(&self, tier: &HotTier) -> Vec<String> {
        let mut payloads = Payloads::from(self.from);
        match self.all {
            true => payloads.parts.all = true,
            false => self.name(tier, &names::public(), &mut payloads),
        }
        let payloads = payloads.finish(self.to);
        match payloads.len() <= PAYLOADS_MAX {
            true => payloads,
            false => vec![json!({ "seq": [self.from, self.to] }).to_string()],
        }
    }

    /// Adds the names that may be told to the payloads. A relation is named by the tags that stand for it.
    fn name(&self, tier: &HotTier, public: &Public, payloads: &mut Payloads) {
        // `spaces` has the names that any role may know, and `tags` says whether tags may be named.
        let Public { spaces, tags } = public;
        if *tags {
            let watched = self.relations.iter().flat_map(|oid| watch::known_tags_of(tier, *oid));
            for tag in watched.collect::<BTreeSet<_>>().union(&self.tags) {
                payloads.add(letters(tag).map(Item::Tag));
            }
        }
        for oid in &self.spaces {
            payloads.add(spaces.name(*oid).map(Item::Space));
        }
        for (oid, key) in &self.keys {
            payloads.add(spaces.name(*oid).zip(letters(key)).map(|(space, key)| Item::Key(space, key)));
        }
    }
}

/// A name in a payload.
enum Item<'a> {
    /// The name of a space, and a key in it.
    Key(Rc<str>, &'a str),
    Tag(&'a str),
    Space(Rc<str>),
}

/// Payloads that are being made. When a payload is full, the next one begins, with the same numbers.
struct Payloads {
    /// The number before the first record of the batch.
    from: u64,
    /// The payloads that are full.
    done: Vec<Parts>,
    /// The payload that is being filled.
    parts: Parts,
}

/// The names of one payload. Keys are grouped by the names of their spaces.
#[derive(Default)]
struct Parts {
    /// The keys, by the names of their spaces.
    keys: BTreeMap<Rc<str>, Vec<Value>>,
    /// The tags.
    tags: Vec<Value>,
    /// The names of the spaces that were flushed.
    spaces: Vec<Value>,
    /// Whether everything may have changed.
    all: bool,
    /// The bytes of the names, with quotes and commas.
    bytes: usize,
}

/// The most bytes of a payload beside its names: two numbers of 20 digits and all members take less than 100.
const FRAME_BYTES: usize = 128;

impl Payloads {
    fn from(from: u64) -> Self {
        Self { from, done: Vec::new(), parts: Parts::default() }
    }

    /// Adds a name, unless there are too many payloads already. None stands for a name that must not be told, or that cannot be
    /// written in JSON; it adds nothing.
    fn add(&mut self, item: Option<Item<'_>>) {
        let Some(item) = item.filter(|_| self.done.len() <= PAYLOADS_MAX) else { return };
        memory::check();
        // A name has its quotes and a comma, and the name of a space also a colon and brackets.
        let bytes = |name: &str| Value::from(name).to_string().len() + 1;
        let needed = match &item {
            Item::Tag(name) => bytes(name),
            Item::Space(name) => bytes(name),
            Item::Key(space, key) => bytes(key) + bytes(space) + 3,
        };
        if self.parts.bytes + needed + FRAME_BYTES > PAYLOAD_BYTES {
            self.done.push(std::mem::take(&mut self.parts));
        }
        self.parts.bytes += needed;
        match item {
            Item::Tag(name) => self.parts.tags.push(name.into()),
            Item::Space(name) => self.parts.spaces.push((*name).into()),
            Item::Key(space, key) => self.parts.keys.entry(space).or_default().push(key.into()),
        }
    }

    /// Returns the payloads as texts. `to` is the number of the last change.
    fn finish(mut self, to: u64) -> Vec<String> {
        self.done.push(self.parts);
        self.done.into_iter().map(|parts| parts.payload([self.from, to])).collect()
    }
}

impl Parts {
    /// Returns the parts as one JSON text. `seq` has the number before the first change and that of the last one.
    fn payload(self, seq: [u64; 2]) -> String {
        let mut payload = Map::new();
        payload.insert("seq".into(), json!(seq));
        if !self.keys.is_empty() {
            let keys = self.keys.into_iter().map(|(space, keys)| (space.to_string(), keys.into()));
            payload.insert("keys".into(), Value::Object(keys.collect()));
        }
        for (member, names) in [("tags", self.tags), ("spaces", self.spaces)] {
            if !names.is_empty() {
                payload.insert(member.into(), names.into());
            }
        }
        if self.all {
            payload.insert("all".into(), true.into());
        }
        Value::Object(payload).to_string()
    }
}
