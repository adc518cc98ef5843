//! The part of shared memory for observed statements. With `pg_cache.observe`, pg_cache finds out for the statements of the client
//! which of them would have been hits (`query/observe.rs`). For each role and statement, the table holds how often the statement
//! ran, how many of these calls would have been hits, and the text of the statement.
//!
//! The table has sets of [`WAYS`] places. The hash of a statement chooses its set. If all places of the set are taken, the
//! statement that ran least recently loses its place. So a call looks at [`WAYS`] places only.
//!
//! Access: a process must hold the lock of the table (`shared::with_observed`), also to read. While it holds the lock, it must call
//! no function of the server, and must not panic. All fields are atomic words, so a process that breaks this rule causes no
//! undefined behaviour.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The number of sets.
const SETS: usize = 64;
/// The places of a set.
const WAYS: usize = 16;
/// The most statements that are kept, over all databases and roles.
pub const PLACES: usize = SETS * WAYS;
/// The words of a statement's text.
const TEXT_WORDS: usize = 64;
/// The words of the reason why a result would not have been stored.
const REASON_WORDS: usize = 16;
/// The most bytes of a text. Longer texts are cut off.
pub const TEXT_BYTES_MAX: usize = TEXT_WORDS * 8;
/// The most bytes of a reason.
pub const REASON_BYTES_MAX: usize = REASON_WORDS * 8;
/// The most tables for which a statement has a count of invalidations. A *culprit* is a table whose change has invalidated the
/// result that the statement would have had.
const CULPRITS: usize = 4;

/// A statement of a role in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementId {
    pub database: u32,
    pub role: u32,
    pub query_id: u64,
}

impl StatementId {
    fn owner(self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.role)
    }
}

/// One call of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The beginning of the statement's text.
    pub text: &'a [u8],
    /// Whether the call would have been a hit.
    pub is_hit: bool,
    pub run_us: u64,
    /// The table whose change had invalidated the result before the call.
    pub culprit: Option<u32>,
    /// A number for the reason why the result would not have been stored, never 0. None if it would have been stored.
    pub reason: Option<u64>,
    /// The present time, in microseconds since 2000.
    pub now: i64,
}

/// The figures of a statement.
#[derive(Clone, Debug)]
pub struct Statement {
    pub id: StatementId,
    pub calls: u64,
    /// How many of the calls would have been hits.
    pub hits: u64,
    /// The run time of all calls.
    pub run_us: u64,
    /// The run time of the calls that would have been hits.
    pub saved_us: u64,
    /// When the first call was counted, in microseconds since 2000.
    pub since: i64,
    /// The table that has invalidated the most results.
    pub culprit: Option<u32>,
    text: Bytes<TEXT_WORDS>,
    reason: Bytes<REASON_WORDS>,
}

impl Statement {
    /// Returns the beginning of the statement's text.
    pub fn text(&self) -> Vec<u8> {
        self.text.bytes()
    }

    /// Returns the reason why the result of the last call would not have been stored. None if it would have been, or was a hit.
    pub fn reason(&self) -> Option<Vec<u8>> {
        (self.reason.length > 0).then(|| self.reason.bytes())
    }
}

/// A copy of some bytes of shared memory.
#[derive(Clone, Debug)]
struct Bytes<const WORDS: usize> {
    words: [u64; WORDS],
    length: u64,
}

impl<const WORDS: usize> Bytes<WORDS> {
    /// Makes a copy of bytes that are cut off if they are too long.
    fn of(bytes: &[u8]) -> Self {
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut filled = [0; 8];
            filled.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            *word = u64::from_ne_bytes(filled);
        }
        Self { words, length: bytes.len().min(WORDS * 8) as u64 }
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(self.length as usize).collect()
    }
}

/// Bytes in shared memory.
#[repr(C)]
#[derive(Debug)]
struct Text<const WORDS: usize> {
    length: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Text<WORDS> {
    fn store(&self, text: &Bytes<WORDS>) {
        self.length.store(text.length, Relaxed);
        self.words.iter().zip(text.words).for_each(|(to, from)| to.store(from, Relaxed));
    }

    fn load(&self) -> Bytes<WORDS> {
        let mut words = [0; WORDS];
        words.iter_mut().zip(&self.words).for_each(|(to, from)| *to = from.load(Relaxed));
        Bytes { words, length: self.length.load(Relaxed).min(WORDS as u64 * 8) }
    }
}

/// A place for a statement. The place is free if `used` is 0.
#[repr(C, align(64))]
#[derive(Debug)]
struct Place {
    /// The number of the statement's last call among all calls that the table has counted.
    used: AtomicU64,
    /// The database and the role.
    owner: AtomicU64,
    query_id: AtomicU64,
    calls: AtomicU64,
    hits: AtomicU64,
    run_us: AtomicU64,
    saved_us: AtomicU64,
    since: AtomicU64,
    /// The number of the reason in `reason`, or 0 if the last call has no reason.
    reason_number: AtomicU64,
    /// Tables, each with a count: `count : 32 | table : 32`.
    culprits: [AtomicU64; CULPRITS],
    reason: Text<REASON_WORDS>,
    text: Text<TEXT_WORDS>,
}

/// The table of observed statements.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Observed {
    /// The number of calls that were counted.
    counted: AtomicU64,
    places: [Place; PLACES],
}

impl Observed {
    /// Empties the table. Must be called before any other process can access it.
    pub fn format(&self) {
        self.counted.store(0, Relaxed);
        self.places.iter().for_each(|place| place.used.store(0, Relaxed));
    }

    /// Counts a call. Returns true if the table does not have the text of the call's reason: the caller must then call
    /// [`set_reason`](Self::set_reason).
    pub fn count(&self, id: StatementId, call: &Call<'_>) -> bool {
        let now = self.counted.fetch_add(1, Relaxed) + 1;
        let set = self.set(id);
        let place = match set.iter().find(|place| place.is_of(id)) {
            Some(place) => place,
            None => {
                let Some(oldest) = set.iter().min_by_key(|place| place.used.load(Relaxed)) else {
                    return false;
                };
                oldest.take(id, call);
                oldest
            }
        };
        place.used.store(now, Relaxed);
        place.add(call)
    }

    /// Stores the text of a reason, unless a later call of the statement had another one.
    pub fn set_reason(&self, id: StatementId, number: u64, text: &[u8]) {
        let place = self.set(id).iter().find(|place| place.is_of(id));
        if let Some(place) = place.filter(|place| place.reason_number.load(Relaxed) == number) {
            place.reason.store(&Bytes::of(text));
        }
    }

    /// Returns the statement at a place, if it is one of this database.
    pub fn statement(&self, index: usize, database: u32) -> Option<Statement> {
        self.places.get(index)?.statement().filter(|statement| statement.id.database == database)
    }

    /// Removes all statements of a database.
    pub fn reset(&self, database: u32) {
        let own = |place: &&Place| place.owner.load(Relaxed) >> 32 == u64::from(database);
        self.places.iter().filter(own).for_each(|place| place.used.store(0, Relaxed));
    }

    /// Returns the set of places that a statement may use.
    fn set(&self, id: StatementId) -> &[Place] {
        let hash = (id.query_id ^ id.owner().rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = (hash >> 32) as usize % SETS * WAYS;
        self.places.get(first..first + WAYS).unwrap_or_default()
    }
}

impl Place {
    fn is_of(&self, id: StatementId) -> bool {
        self.used.load(Relaxed) != 0
            && self.owner.load(Relaxed) == id.owner()
            && self.query_id.load(Relaxed) == id.query_id
    }

    /// Gives the place to a statement that has no figures yet.
    fn take(&self, id: StatementId, call: &Call<'_>) {
        self.owner.store(id.owner(), Relaxed);
        self.query_id.store(id.query_id, Relaxed);
        for figure in [&self.calls, &self.hits, &self.run_us, &self.saved_us, &self.reason_number] {
            figure.store(0, Relaxed);
        }
        self.since.store(call.now as u64, Relaxed);
        self.culprits.iter().for_each(|culprit| culprit.store(0, Relaxed));
        self.reason.length.store(0, Relaxed);
        self.text.store(&Bytes::of(call.text));
    }

    /// Adds a call to the figures. Returns true if the place does not have the text of the call's reason.
    fn add(&self, call: &Call<'_>) -> bool {
        let add = |to: &AtomicU64, more: u64| to.store(to.load(Relaxed).saturating_add(more), Relaxed);
        add(&self.calls, 1);
        add(&self.run_us, call.run_us);
        if call.is_hit {
            add(&self.hits, 1);
            add(&self.saved_us, call.run_us);
        }
        if let Some(culprit) = call.culprit {
            self.blame(culprit);
        }
        let number = call.reason.unwrap_or(0);
        if self.reason_number.load(Relaxed) == number {
            return false;
        }
        self.reason_number.store(number, Relaxed);
        self.reason.length.store(0, Relaxed);
        number != 0
    }

    /// Counts an invalidation for a table. If the table has no count and all counts are taken, it replaces the table with the
    /// smallest count, and continues from that count. So a table that invalidates often gets the greatest count in the end.
    fn blame(&self, table: u32) {
        let known = self.culprits.iter().find(|culprit| culprit.load(Relaxed) as u32 == table);
        let count_of = |culprit: &&AtomicU64| culprit.load(Relaxed) >> 32;
        if let Some(culprit) = known.or_else(|| self.culprits.iter().min_by_key(count_of)) {
            let count = (count_of(&culprit) + 1).min(u64::from(u32::MAX));
            culprit.store(count << 32 | u64::from(table), Relaxed);
        }
    }

    fn statement(&self) -> Option<Statement> {
        let owner = self.owner.load(Relaxed);
        let id = StatementId {
            database: (owner >> 32) as u32,
            role: owner as u32,
            query_id: self.query_id.load(Relaxed),
        };
        let culprit = self.culprits.iter().map(|culprit| culprit.load(Relaxed)).max().unwrap_or(0);
        (self.used.load(Relaxed) != 0).then(|| Statement {
            id,
            calls: self.calls.load(Relaxed),
            hits: self.hits.load(Relaxed),
            run_us: self.run_us.load(Relaxed),
            saved_us: self.saved_us.load(Relaxed),
            since: self.since.load(Relaxed) as i64,
            culprit: Some(culprit as u32).filter(|table| *table != 0),
            text: self.text.load(),
            reason: self.reason.load(),
        })
    }
}
