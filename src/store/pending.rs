//! What the transaction of this session has changed and not committed yet.
//!
//! Changes are collected in the session's own memory, in order, each with the depth of the savepoint it was made in. The
//! session sees its own; others see them when it commits:
//! - *before commit* everything is done that can fail: values are copied to where nobody can see them, fences are raised, and,
//!   if the transaction has changed the database too, keys are announced, because its commit is seen before we are told;
//! - *after commit* it only remains to confirm, which is a bounded walk over plain memory;
//! - *after an abort*, however it came about, everything is taken back.
//!
//! What becomes of a transaction that is prepared instead stands in `prepared.rs`.
//!
//! Nothing that is called while the changes are borrowed may report to the client, which could end the session there and then.

use crate::pg::transaction::{self, Listener};
use crate::pg::{settings, shared};
use crate::store::prepared;
use crate::store::space::{Place, hash};
use pg_cache_core::{FenceId, Key, KeyMark, Kind, Lowered, Meta, NewValue, Reservation, Stamp};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A key, kept.
#[derive(Debug)]
pub struct OwnKey {
    place: Place,
    bytes: Box<[u8]>,
    hash: u64,
}

impl OwnKey {
    pub fn new(place: Place, bytes: &[u8]) -> Self {
        Self { place, bytes: bytes.into(), hash: hash(bytes) }
    }

    fn key(&self) -> Option<Key<'_>> {
        self.place.key(&self.bytes, self.hash)
    }

    fn is(&self, place: &Place, bytes: &[u8]) -> bool {
        self.place.scope.is(&place.scope) && *self.bytes == *bytes
    }
}

/// A value, kept.
#[derive(Debug)]
pub struct Value {
    pub bytes: Box<[u8]>,
    pub kind: Kind,
    pub stamp: Stamp,
    pub expires: u32,
    pub dependencies: Box<[FenceId]>,
}

impl Value {
    fn as_new(&self) -> NewValue<'_> {
        NewValue {
            bytes: &self.bytes,
            kind: self.kind,
            stamp: self.stamp,
            expires: self.expires,
            cost: 0,
            dependencies: &self.dependencies,
        }
    }

    /// What is known of it. It will be created when others can see it, so that it is of no age yet.
    pub fn meta(&self) -> Meta {
        let Self { kind, stamp, expires, .. } = *self;
        Meta { value_len: self.bytes.len(), kind, stamp, created: u32::MAX, expires, cost: 0 }
    }
}

/// What the transaction says of a key itself.
#[derive(Debug)]
pub enum Own<'p> {
    /// Nothing: ask the tier.
    Nothing,
    /// It has set it.
    Set(&'p Value),
    /// It has given it another time to live.
    Touched(u32),
    /// It has removed it, or has changed what its own value depends on.
    Gone,
}

#[derive(Debug)]
enum What {
    Set(OwnKey, Value),
    Remove(OwnKey),
    Touch(OwnKey, u32),
    Invalidate(FenceId),
}

impl What {
    fn key(&self) -> Option<&OwnKey> {
        match self {
            Self::Set(key, _) | Self::Remove(key) | Self::Touch(key, _) => Some(key),
            Self::Invalidate(_) => None,
        }
    }

    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + self.key().map_or(0, |key| key.bytes.len())
            + match self {
                Self::Set(_, value) => value.bytes.len() + value.dependencies.len() * 4,
                _ => 0,
            }
    }
}

/// What a change takes beside its bytes.
const OVERHEAD_BYTES: usize = 256;
/// So many fences a transaction raises. Whoever invalidates more tags than that invalidates the database.
const FENCES_MAX: usize = 4096;

#[derive(Debug)]
struct Change {
    what: What,
    depth: i32,
    /// Grows with each change. (Its place does not tell: a change takes the place of an older one of the same savepoint.)
    at: u64,
}

#[derive(Debug)]
struct Pending {
    /// Those of inner savepoints behind those of outer ones.
    changes: Vec<Change>,
    /// By the hash of a key, where its changes are, the latest last.
    by_key: BTreeMap<u64, Vec<usize>>,
    by_fence: BTreeMap<FenceId, Vec<usize>>,
    /// The fences in order.
    fences: Vec<FenceId>,
    bytes: usize,
    last: u64,
    commit: Option<Commit>,
}

/// A commit that has begun.
#[derive(Debug)]
struct Commit {
    fences: Vec<Raised>,
    steps: Vec<(usize, Step)>,
    announced: bool,
}

#[derive(Debug)]
struct Raised {
    fence: FenceId,
    lowered: Option<Lowered>,
}

/// What is to be done for a change when it is visible.
#[derive(Debug)]
enum Step {
    Publish(Reservation),
    /// Announced, or not.
    Remove(Option<Reservation>),
    Touch(u32),
}

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending::NOTHING) };
}

struct Collector;

impl Listener for Collector {
    fn before_commit(&self) {
        PENDING.with_borrow_mut(Pending::before_commit);
    }

    fn before_prepare(&self) {
        let (fences, marks) = PENDING.with_borrow(Pending::in_short);
        prepared::record(&fences, marks).unwrap_or_else(|refused| refused.raise());
    }

    fn prepared(&self) {
        prepared::stands();
        PENDING.with_borrow_mut(Pending::aborted);
    }

    fn committed(&self) {
        PENDING.with_borrow_mut(Pending::committed);
        prepared::over();
    }

    fn aborted(&self) {
        prepared::over();
        PENDING.with_borrow_mut(Pending::aborted);
    }

    fn released(&self, depth: i32) {
        PENDING.with_borrow_mut(|pending| pending.hand_over(depth));
    }

    fn rolled_back(&self, depth: i32) {
        PENDING.with_borrow_mut(|pending| pending.drop_from(depth));
    }
}

/// Has the transactions of this session told to us, and to what is behind us, from now on.
pub fn listen() {
    transaction::listen(&Collector);
}

/// Calls with what the transaction says of a key, and with the fences of what it has changed.
#[inline]
pub fn with_own<R>(place: &Place, key: &[u8], hash: u64, read: impl FnOnce(Own<'_>, &[FenceId]) -> R) -> R {
    PENDING.with_borrow(|pending| {
        let own = if pending.changes.is_empty() { Own::Nothing } else { pending.own(place, key, hash) };
        read(own, &pending.fences)
    })
}

/// Remembers that a key was set. False if the transaction holds back too much already.
pub fn set(key: OwnKey, value: Value) -> bool {
    PENDING.with_borrow_mut(|pending| pending.add_if_it_fits(What::Set(key, value)).is_ok())
}

/// Remembers that a key was removed.
pub fn remove(key: OwnKey) {
    PENDING.with_borrow_mut(|pending| {
        let place = key.place;
        if pending.add_if_it_fits(What::Remove(key)).is_err() {
            pending.invalidate(&place, place.own_fence());
        }
    });
}

/// Remembers that a key was given another time to live. False if the transaction holds back too much already.
pub fn touch(key: OwnKey, expires: u32) -> bool {
    PENDING.with_borrow_mut(|pending| {
        if let Some(place) = pending.latest(&key.place, &key.bytes, key.hash)
            && let What::Set(_, Value { bytes, kind, stamp, dependencies, .. }) = &pending.changes[place].what
        {
            let (bytes, dependencies) = (bytes.clone(), dependencies.clone());
            let value = Value { bytes, kind: *kind, stamp: *stamp, expires, dependencies };
            return pending.add_if_it_fits(What::Set(key, value)).is_ok();
        }
        pending.add_if_it_fits(What::Touch(key, expires)).is_ok()
    })
}

/// Remembers that everything under a fence was invalidated.
pub fn invalidate(place: &Place, fence: FenceId) {
    PENDING.with_borrow_mut(|pending| pending.invalidate(place, fence));
}

/// The keys of a place that the transaction has changed.
pub fn own_keys(place: &Place) -> Vec<Box<[u8]>> {
    PENDING.with_borrow(|pending| {
        let keys = pending.changes.iter().filter_map(|change| change.what.key());
        keys.filter(|key| key.place.scope.is(&place.scope)).map(|key| key.bytes.clone()).collect()
    })
}

impl Pending {
    const NOTHING: Self = Self {
        changes: Vec::new(),
        by_key: BTreeMap::new(),
        by_fence: BTreeMap::new(),
        fences: Vec::new(),
        bytes: 0,
        last: 0,
        commit: None,
    };

    fn add_if_it_fits(&mut self, what: What) -> Result<(), ()> {
        let replaced = self.replaced_by(&what, transaction::depth());
        let replaced = replaced.map_or(0, |place| self.changes[place].what.bytes());
        let fits = self.bytes - replaced + what.bytes() <= settings::max_transaction_bytes();
        if fits {
            self.add(what);
        }
        fits.then_some(()).ok_or(())
    }

    /// Where the change is whose place a new one takes: the latest of the same, if it was made in the same savepoint.
    fn replaced_by(&self, what: &What, depth: i32) -> Option<usize> {
        match what {
            What::Invalidate(fence) => self.by_fence.get(fence)?.last().copied(),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.latest(&key.place, &key.bytes, key.hash)
            }
        }
        .filter(|place| self.changes[*place].depth == depth)
    }

    fn invalidate(&mut self, place: &Place, fence: FenceId) {
        let known = self.by_fence.contains_key(&fence) || place.fences.contains(&fence);
        let fence = if known || self.fences.len() < FENCES_MAX { fence } else { place.fences[0] };
        self.add(What::Invalidate(fence));
    }

    fn add(&mut self, what: What) {
        listen();
        self.last += 1;
        self.put(Change { what, depth: transaction::depth(), at: self.last });
    }

    fn put(&mut self, change: Change) {
        self.bytes += change.what.bytes();
        if let Some(place) = self.replaced_by(&change.what, change.depth) {
            self.bytes -= self.changes[place].what.bytes();
            self.changes[place] = change;
            return;
        }
        let place = self.changes.len();
        match &change.what {
            What::Invalidate(fence) => {
                if let Err(at) = self.fences.binary_search(fence) {
                    self.fences.insert(at, *fence);
                }
                self.by_fence.entry(*fence).or_default().push(place);
            }
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.by_key.entry(key.hash).or_default().push(place);
            }
        }
        self.changes.push(change);
    }

    /// Gives what was done in a savepoint to the one around it, in the place of what that one had done to the same: a loop of
    /// savepoints would grow without end otherwise.
    fn hand_over(&mut self, depth: i32) {
        let outer = self.changes.iter().rposition(|change| change.depth < depth).map_or(0, |place| place + 1);
        let inner = self.changes.split_off(outer);
        for Change { what, .. } in &inner {
            self.bytes -= what.bytes();
            let places = match what {
                What::Invalidate(fence) => self.by_fence.get_mut(fence),
                What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => self.by_key.get_mut(&key.hash),
            };
            places.into_iter().for_each(|places| places.retain(|place| *place < outer));
        }
        for change in inner {
            self.put(Change { depth: depth - 1, ..change });
        }
    }

    /// Forgets what was done in a savepoint, and in those inside of it.
    fn drop_from(&mut self, depth: i32) {
        while let Some(change) = self.changes.pop_if(|change| change.depth >= depth) {
            self.bytes -= change.what.bytes();
            match &change.what {
                What::Invalidate(fence) => {
                    let places = self.by_fence.entry(*fence).or_default();
                    places.pop();
                    if places.is_empty() {
                        self.by_fence.remove(fence);
                        self.fences.retain(|other| other != fence);
                    }
                }
                What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                    let places = self.by_key.entry(key.hash).or_default();
                    places.pop();
                    if places.is_empty() {
                        self.by_key.remove(&key.hash);
                    }
                }
            }
        }
    }

    /// Where the latest change of a key is.
    fn latest(&self, place: &Place, key: &[u8], hash: u64) -> Option<usize> {
        let places = self.by_key.get(&hash)?;
        let is_it = |at: &usize| self.changes[*at].what.key().is_some_and(|own| own.is(place, key));
        places.iter().rev().copied().find(is_it)
    }

    #[cold]
    fn own(&self, place: &Place, key: &[u8], hash: u64) -> Own<'_> {
        let Some(at) = self.latest(place, key, hash) else { return Own::Nothing };
        let change = &self.changes[at];
        match &change.what {
            What::Set(key, value) if self.is_right(change, key, value) => Own::Set(value),
            What::Touch(_, expires) => Own::Touched(*expires),
            _ => Own::Gone,
        }
    }

    /// Whether the transaction has not changed what a value depends on since it set it.
    fn is_right(&self, change: &Change, key: &OwnKey, value: &Value) -> bool {
        fences_of(key, value).all(|fence| {
            let latest = self.by_fence.get(&fence).and_then(|places| places.last());
            latest.is_none_or(|place| self.changes[*place].at < change.at)
        })
    }

    /// The fences and the keys that it changes.
    fn in_short(&self) -> (Vec<FenceId>, Vec<KeyMark>) {
        let keys = self.changes.iter().filter_map(|change| change.what.key()?.key());
        (self.fences.clone(), keys.map(|key| key.mark()).collect())
    }

    fn before_commit(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let announced = transaction::has_written() || !self.fences.is_empty();
        let mut fences = self.fences.clone();
        let mut steps = Vec::with_capacity(self.changes.len());
        for (place, change) in self.changes.iter().enumerate() {
            let Some(own) = change.what.key() else { continue };
            if self.latest(&own.place, &own.bytes, own.hash) != Some(place) {
                continue;
            }
            let Some(key) = own.key() else { continue };
            let tier = own.place.tier;
            let reserved = match &change.what {
                What::Touch(_, expires) => {
                    steps.push((place, Step::Touch(*expires)));
                    continue;
                }
                What::Set(key_kept, value) if self.is_right(change, key_kept, value) => {
                    own.place.reserve(&key, &value.as_new()).ok()
                }
                _ => None,
            };
            steps.push((
                place,
                match reserved {
                    Some(reservation) => Step::Publish(reservation),
                    // What the key had has to go, also if the new value finds no room.
                    None if !announced => Step::Remove(None),
                    None => match tier.reserve_removal(&key) {
                        Ok(reservation) => Step::Remove(Some(reservation)),
                        Err(_) => {
                            fences.push(own.place.own_fence());
                            continue;
                        }
                    },
                },
            ));
        }
        fences.sort_unstable();
        fences.dedup();
        if let Some(tier) = shared::tier() {
            fences.iter().for_each(|fence| tier.fences().raise(*fence));
        }
        let fences = fences.into_iter().map(|fence| Raised { fence, lowered: None }).collect();
        for (place, step) in steps.iter().filter(|_| announced) {
            if let (Some(own), Step::Publish(reservation) | Step::Remove(Some(reservation))) =
                (self.changes[*place].what.key(), step)
                && let Some(key) = own.key()
            {
                own.place.tier.announce(&key, reservation);
            }
        }
        self.commit = Some(Commit { fences, steps, announced });
    }

    fn committed(&mut self) {
        let Self { changes, commit, .. } = std::mem::replace(self, Self::NOTHING);
        let (Some(Commit { mut fences, steps, announced }), Some(tier)) = (commit, shared::tier()) else {
            return;
        };
        let mut number = Stamp::VOID;
        if !fences.is_empty() {
            number = tier.fences().draw();
            for raised in &mut fences {
                raised.lowered = Some(tier.fences().lower_as(raised.fence, number));
            }
        }
        for (place, step) in steps {
            let what = &changes[place].what;
            let Some((tier, key)) = what.key().and_then(|own| Some((own.place.tier, own.key()?))) else {
                continue;
            };
            match (step, what) {
                (Step::Publish(reservation), What::Set(own, value)) if announced => {
                    tier.confirm_as(&key, reservation, stamp_of(own, value, &fences, number));
                }
                (Step::Publish(reservation), _) => {
                    tier.publish(&key, reservation);
                }
                (Step::Remove(Some(reservation)), _) => tier.confirm(&key, reservation),
                (Step::Remove(None), _) => {
                    tier.remove(&key);
                }
                (Step::Touch(expires), _) => {
                    tier.touch(&key, expires);
                }
            }
        }
    }

    fn aborted(&mut self) {
        let Self { changes, commit, .. } = std::mem::replace(self, Self::NOTHING);
        let (Some(Commit { fences, steps, announced }), Some(tier)) = (commit, shared::tier()) else {
            return;
        };
        for (place, step) in steps {
            if let (Some(own), Step::Publish(reservation) | Step::Remove(Some(reservation))) =
                (changes[place].what.key(), step)
                && let Some(key) = own.key()
            {
                match announced {
                    true => own.place.tier.withdraw(&key, reservation),
                    false => own.place.tier.cancel(reservation),
                }
            }
        }
        fences.iter().for_each(|raised| tier.fences().withdraw(raised.fence));
    }
}

/// What makes a value wrong by changing.
fn fences_of(key: &OwnKey, value: &Value) -> impl Iterator<Item = FenceId> {
    value.dependencies.iter().copied().chain(key.place.fences)
}

/// As of when a value is right that its transaction has announced, or that it is not: see *set and fence* in the core.
fn stamp_of(key: &OwnKey, value: &Value, own: &[Raised], number: Stamp) -> Option<Stamp> {
    let find = |fence: FenceId| own.binary_search_by_key(&fence, |raised| raised.fence).ok();
    if fences_of(key, value).all(|fence| find(fence).is_none()) {
        return Some(value.stamp);
    }
    fences_of(key, value)
        .all(|fence| match find(fence) {
            Some(at) => own[at].lowered.is_some_and(|lowered| lowered.was_alone_since(value.stamp)),
            None => key.place.tier.fences().holds(fence, value.stamp, Stamp::LATEST),
        })
        .then_some(number)
}
