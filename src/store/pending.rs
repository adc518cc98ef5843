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
//! Nothing that is called while the changes are borrowed may report to the client or wait for a lock: the session could be ended there
//! and then.

use crate::pg::local::Local;
use crate::pg::shared::{self, HotTier};
#[cfg(debug_assertions)]
use crate::pg::targets;
use crate::pg::transaction::{self, Listener};
use crate::pg::{locks, queue, settings};
use crate::store::right::{self, Rights};
use crate::store::space::{Place, hash};
use crate::store::written;
use crate::store::{horizon, prepared};
use pg_cache_core::{
    Cost, FenceId, Key, KeyMark, Kind, Lingering, Lowered, Meta, NewValue, Refusal, Reservation, Stamp,
};
use std::cell::RefCell;
use std::collections::BTreeSet;

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

    pub fn tier(&self) -> &'static shared::HotTier {
        self.place.tier
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn key(&self) -> Option<Key<'_>> {
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
    pub lingering: Option<Lingering>,
    pub basis: Basis,
    /// The command in which it was set.
    pub command: u32,
}

/// With what right a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Because its caller says so.
    Plain,
    /// Because there was none, by a claim of this number: what somebody else sets meanwhile is later.
    Claim(u64),
    /// Because it was computed under a lease of this number. It is a fill, not a change: what was there is not wrong because of
    /// it, and it does not take the place of what has changed since.
    Lease(u64),
}

impl Value {
    fn reserve(&self, key: &OwnKey, name: &Key<'_>) -> Result<Reservation, Refusal> {
        key.place.reserve(name, &self.as_new(), self.lingering)
    }

    fn as_new(&self) -> NewValue<'_> {
        NewValue {
            bytes: &self.bytes,
            kind: self.kind,
            stamp: self.stamp,
            expires: self.expires,
            cost: Cost::NONE,
            dependencies: &self.dependencies,
        }
    }

    /// What is known of it. It will be created when others can see it, so that it is of no age yet.
    pub fn meta(&self) -> Meta {
        let Self { kind, stamp, expires, .. } = *self;
        Meta { value_len: self.bytes.len(), kind, stamp, created: u32::MAX, expires, cost: Cost::NONE }
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
    /// It has removed it, or has changed what its own value depends on, or has given it a time that is over.
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
/// So many of a commit's fences there is room for in the next one without asking for it.
const KEPT_MAX: usize = 128;
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
    /// Hashes of keys, each with where a change of it is.
    by_key: BTreeSet<(u64, usize)>,
    by_fence: BTreeSet<(FenceId, usize)>,
    /// The fences in order.
    fences: Vec<FenceId>,
    bytes: usize,
    last: u64,
    rights: Rights,
    /// The fences that the commit that has begun has raised, in order. Its room is kept for the next one.
    raised: Vec<Raised>,
    /// What else that commit will have to do.
    commit: Option<Commit>,
}

#[derive(Debug)]
struct Raised {
    fence: FenceId,
    lowered: Option<Lowered>,
}

/// What is to be done for changes of keys.
#[derive(Debug)]
struct Commit {
    steps: Vec<(usize, Step)>,
    announced: bool,
}

/// What is to be done for a change when it is visible.
#[derive(Debug)]
enum Step {
    Publish(Reservation),
    /// Under a lease, and never announced.
    Fill(Reservation, u64),
    /// Announced, or not.
    Remove(Option<Reservation>),
    Touch(u32),
}

static PENDING: Local<RefCell<Pending>> = Local::new(RefCell::new(Pending::NOTHING));

/// Of this session's transactions.
enum Collector {}

/// Has the server tell of transactions. To be called while it loads us.
pub fn listen() {
    transaction::listen::<Collector>();
}

impl Listener for Collector {
    #[inline]
    fn has_nothing() -> bool {
        #[cfg(debug_assertions)]
        if !targets::named().is_empty() {
            return false;
        }
        // Who has not been to the tier goes there before the first commit: one may write after it is told, and then it is too late.
        shared::known_tier().is_some()
            && PENDING.try_borrow().is_ok_and(|pending| pending.has_nothing())
            && prepared::has_nothing()
    }

    fn over() {
        written::over();
        horizon::end();
    }

    fn before_commit() {
        let Some(tier) = shared::tier() else { return };
        // What may raise errors comes first, with nothing borrowed.
        let keeps_nothing = PENDING.with_borrow(Pending::has_nothing);
        let command = if keeps_nothing { 0 } else { transaction::command_after_all() };
        prepared::before_commit(locks::has_written());
        written::before_commit(tier, |written| {
            PENDING.with_borrow_mut(|pending| pending.before_commit(written, command));
        });
    }

    fn before_prepare() {
        let Some(tier) = shared::tier() else { return };
        let (written, trees) = written::before_prepare(tier);
        let (fences, marks) = PENDING.with_borrow(Pending::in_short);
        prepared::record(&fences, marks, &written, trees).unwrap_or_else(|refused| refused.raise());
    }

    fn prepared() {
        #[cfg(debug_assertions)]
        targets::over();
        prepared::stands();
        PENDING.with_borrow_mut(|pending| {
            pending.rights.hand_over_leases();
            pending.aborted();
        });
    }

    fn committed() {
        #[cfg(debug_assertions)]
        targets::over();
        PENDING.with_borrow_mut(|pending| {
            if transaction::has_number() {
                pending.lower_late();
            }
            pending.committed();
        });
        prepared::over();
    }

    fn aborted() {
        #[cfg(debug_assertions)]
        targets::over();
        prepared::over();
        PENDING.with_borrow_mut(Pending::aborted);
    }

    fn released(depth: i32) {
        #[cfg(debug_assertions)]
        targets::released(depth);
        PENDING.with_borrow_mut(|pending| {
            pending.hand_over(depth);
            pending.rights.released(depth);
        });
    }

    fn rolled_back(depth: i32) {
        #[cfg(debug_assertions)]
        targets::rolled_back(depth);
        PENDING.with_borrow_mut(|pending| {
            pending.drop_from(depth);
            pending.rights.rolled_back(depth);
        });
    }
}

/// Goes through a commit as far as tables are concerned, and takes it back: fences are raised and withdrawn, and what depends on them
/// is as right as before. What the transaction has changed in the cache stays out of it. May raise errors, before any fence is raised.
pub fn rehearse() {
    let Some(tier) = shared::tier() else { return };
    let mut tables_alone = Pending::NOTHING;
    written::before_commit(tier, |written| tables_alone.before_commit(written, 0));
    tables_alone.lower_late();
    tables_alone.aborted();
}

/// Whether the transaction has changed nothing.
#[inline]
pub fn is_empty() -> bool {
    !locks::has_written() && PENDING.with_borrow(|pending| pending.changes.is_empty())
}

/// Calls with what the transaction says of a key, and with the fences of what it has changed.
pub fn with_own<R>(place: &Place, key: &[u8], hash: u64, read: impl FnOnce(Own<'_>, &[FenceId]) -> R) -> R {
    if locks::has_written() {
        return with_own_written(place, key, hash, read);
    }
    PENDING.with_borrow(|pending| {
        let own = if pending.changes.is_empty() { Own::Nothing } else { pending.own(place, key, hash, &[]) };
        read(own, &pending.fences)
    })
}

/// The same in a transaction that has written to tables.
#[cold]
fn with_own_written<R>(
    place: &Place,
    key: &[u8],
    hash: u64,
    read: impl FnOnce(Own<'_>, &[FenceId]) -> R,
) -> R {
    // Before anything is borrowed: it may wait for a lock, and the session be ended there.
    let mut changed = written::with_fences(place.tier, <[FenceId]>::to_vec);
    PENDING.with_borrow(|pending| {
        let own = pending.own(place, key, hash, &changed);
        changed.extend(&pending.fences);
        changed.sort_unstable();
        read(own, &changed)
    })
}

/// Remembers that a key was set. False if the transaction holds back too much already.
pub fn set(key: OwnKey, value: Value) -> bool {
    // The commit will look for what the key has: it is far away until then.
    key.key().into_iter().for_each(|name| key.place.tier.fetch_bucket(name.mark()));
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
            && let What::Set(_, value) = &pending.changes[place].what
        {
            let (bytes, dependencies) = (value.bytes.clone(), value.dependencies.clone());
            let value = Value { bytes, expires, dependencies, ..*value };
            return pending.add_if_it_fits(What::Set(key, value)).is_ok();
        }
        pending.add_if_it_fits(What::Touch(key, expires)).is_ok()
    })
}

/// Remembers a lease or a claim.
pub fn entitle(key: OwnKey, number: u64, kind: right::Kind) {
    PENDING.with_borrow_mut(|pending| pending.rights.add(key, number, kind, transaction::depth()));
}

/// Whether the transaction can remember more of them.
pub fn has_room_for_rights() -> bool {
    PENDING.with_borrow(|pending| pending.rights.has_room())
}

/// Whether a lease was given to this transaction, or a claim is its own.
pub fn holds(number: u64) -> bool {
    let kinds = [right::Kind::Lease, right::Kind::Claim];
    PENDING.with_borrow(|pending| kinds.into_iter().any(|kind| pending.rights.has(number, kind)))
}

/// A lease has ended.
pub fn forget_lease(number: u64) {
    PENDING.with_borrow_mut(|pending| pending.rights.forget_lease(number));
}

/// Remembers that everything under a fence was invalidated.
pub fn invalidate(place: &Place, fence: FenceId) {
    PENDING.with_borrow_mut(|pending| pending.invalidate(place, fence));
}

/// The same for a fence that nothing larger may stand in for.
pub fn invalidate_exactly(fence: FenceId) {
    PENDING.with_borrow_mut(|pending| pending.add(What::Invalidate(fence)));
}

/// Whether the transaction has changed any of these.
pub fn has_changed(tier: &HotTier, fences: &[FenceId]) -> bool {
    let any_of = |changed: &[FenceId]| fences.iter().any(|fence| changed.binary_search(fence).is_ok());
    written::with_fences(tier, any_of) || PENDING.with_borrow(|pending| any_of(&pending.fences))
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
        by_key: BTreeSet::new(),
        by_fence: BTreeSet::new(),
        fences: Vec::new(),
        bytes: 0,
        last: 0,
        rights: Rights::NONE,
        raised: Vec::new(),
        commit: None,
    };

    /// Whether the transaction has never changed anything here, and its commit has not begun.
    #[inline]
    fn has_nothing(&self) -> bool {
        self.last == 0 && self.rights.is_empty() && self.raised.is_empty()
    }

    fn add_if_it_fits(&mut self, what: What) -> Result<(), ()> {
        let depth = transaction::depth();
        let replaced = self.replaced_by(&what, depth);
        let freed = replaced.map_or(0, |place| self.changes[place].what.bytes());
        if self.bytes - freed + what.bytes() > settings::max_transaction_bytes() {
            return Err(());
        }
        self.put(what, depth, replaced);
        Ok(())
    }

    /// Where the change is whose place a new one takes: the latest of the same, if it was made in the same savepoint.
    fn replaced_by(&self, what: &What, depth: i32) -> Option<usize> {
        match what {
            What::Invalidate(fence) => self.latest_of(*fence),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.latest(&key.place, &key.bytes, key.hash)
            }
        }
        .filter(|place| self.changes[*place].depth == depth)
    }

    fn invalidate(&mut self, place: &Place, fence: FenceId) {
        let known = self.latest_of(fence).is_some() || place.fences.contains(&fence);
        let fence = if known || self.fences.len() < FENCES_MAX { fence } else { place.fences[0] };
        self.add(What::Invalidate(fence));
    }

    fn add(&mut self, what: What) {
        let depth = transaction::depth();
        let replaced = self.replaced_by(&what, depth);
        self.put(what, depth, replaced);
    }

    /// Adds a change that is later than all others.
    fn put(&mut self, what: What, depth: i32, replaced: Option<usize>) {
        self.last += 1;
        self.place(Change { what, depth, at: self.last }, replaced);
    }

    fn place(&mut self, change: Change, replaced: Option<usize>) {
        self.bytes += change.what.bytes();
        if let Some(place) = replaced {
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
                self.by_fence.insert((*fence, place));
            }
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.by_key.insert((key.hash, place));
            }
        }
        self.changes.push(change);
    }

    /// Forgets where a change was.
    fn forget_place(&mut self, what: &What, place: usize) {
        self.bytes -= what.bytes();
        match what {
            What::Invalidate(fence) => self.by_fence.remove(&(*fence, place)),
            What::Set(key, _) | What::Remove(key) | What::Touch(key, _) => {
                self.by_key.remove(&(key.hash, place))
            }
        };
    }

    /// Gives what was done in a savepoint to the one around it, in the place of what that one had done to the same: a loop of
    /// savepoints would grow without end otherwise.
    fn hand_over(&mut self, depth: i32) {
        let outer = self.changes.iter().rposition(|change| change.depth < depth).map_or(0, |place| place + 1);
        let inner = self.changes.split_off(outer);
        for (place, change) in inner.iter().enumerate() {
            self.forget_place(&change.what, outer + place);
        }
        for change in inner {
            let replaced = self.replaced_by(&change.what, depth - 1);
            self.place(Change { depth: depth - 1, ..change }, replaced);
        }
    }

    /// Forgets what was done in a savepoint, and in those inside of it.
    fn drop_from(&mut self, depth: i32) {
        while let Some(Change { what, .. }) = self.changes.pop_if(|change| change.depth >= depth) {
            self.forget_place(&what, self.changes.len());
            if let What::Invalidate(fence) = what
                && self.latest_of(fence).is_none()
            {
                self.fences.retain(|other| *other != fence);
            }
        }
    }

    /// Where the latest change of a key is.
    fn latest(&self, place: &Place, key: &[u8], hash: u64) -> Option<usize> {
        let is_it = |at: &usize| self.changes[*at].what.key().is_some_and(|own| own.is(place, key));
        let places = self.by_key.range((hash, 0)..=(hash, usize::MAX));
        places.rev().map(|(_, place)| *place).find(is_it)
    }

    /// Where a fence was invalidated last.
    fn latest_of(&self, fence: FenceId) -> Option<usize> {
        self.by_fence.range((fence, 0)..=(fence, usize::MAX)).next_back().map(|(_, place)| *place)
    }

    #[cold]
    fn own(&self, place: &Place, key: &[u8], hash: u64, written: &[FenceId]) -> Own<'_> {
        let Some(at) = self.latest(place, key, hash) else { return Own::Nothing };
        let change = &self.changes[at];
        match &change.what {
            What::Set(key, value) if self.is_right(change, key, value, written, transaction::command()) => {
                Own::Set(value)
            }
            What::Touch(_, expires) if *expires > shared::tick() => Own::Touched(*expires),
            _ => Own::Gone,
        }
    }

    /// Whether the transaction has not changed what a value depends on since it set it.
    ///
    /// Of tables it is known only that it has written to them, in this transaction. So a value that depends on such a table is right
    /// if nothing at all was written since it was set.
    fn is_right(
        &self,
        change: &Change,
        key: &OwnKey,
        value: &Value,
        written: &[FenceId],
        command: u32,
    ) -> bool {
        if value.command != command
            && value.dependencies.iter().any(|fence| written.binary_search(fence).is_ok())
        {
            return false;
        }
        fences_of(key, value)
            .all(|fence| self.latest_of(fence).is_none_or(|place| self.changes[place].at < change.at))
    }

    /// The fences and the keys that it changes. What was computed under a lease changes nothing.
    fn in_short(&self) -> (Vec<FenceId>, Vec<KeyMark>) {
        let is_fill = |what: &What| matches!(what, What::Set(_, Value { basis: Basis::Lease(_), .. }));
        let changes = self.changes.iter().filter(|change| !is_fill(&change.what));
        let keys = changes.filter_map(|change| change.what.key()?.key());
        (self.fences.clone(), keys.map(|key| key.mark()).collect())
    }

    fn before_commit(&mut self, written: &[FenceId], command: u32) {
        let mut raised = std::mem::take(&mut self.raised);
        raised.extend(self.fences.iter().chain(written).map(|fence| Raised::from(*fence)));
        let has_changes = !self.changes.is_empty();
        let commit = has_changes.then(|| self.reserve(written, command, &mut raised));
        raised.sort_unstable_by_key(|raised| raised.fence);
        raised.dedup_by_key(|raised| raised.fence);
        if let Some(tier) = shared::tier() {
            raised.iter().for_each(|raised| tier.fences().raise(raised.fence));
        }
        self.raised = raised;
        if let Some(commit) = commit {
            self.announce(commit);
        }
    }

    /// Says which keys are about to change. Apart, like [`reserve`](Self::reserve), so that who has changed none does not pay for it.
    #[inline(never)]
    fn announce(&mut self, commit: Commit) {
        for (place, step) in commit.steps.iter().filter(|_| commit.announced) {
            if let (Some(own), Step::Publish(reservation) | Step::Remove(Some(reservation))) =
                (self.changes[*place].what.key(), step)
                && let Some(key) = own.key()
            {
                own.place.tier.announce(&key, reservation);
            }
        }
        self.commit = Some(commit);
    }

    /// Finds room for what is to be published, and for the announcements. Where there is none, a fence stands in for the key.
    #[inline(never)]
    fn reserve(&self, written: &[FenceId], command: u32, fences: &mut Vec<Raised>) -> Commit {
        let announced = locks::has_written() || !self.fences.is_empty();
        let mut steps = Vec::with_capacity(self.changes.len());
        for (place, change) in self.changes.iter().enumerate() {
            let Some(own) = change.what.key() else { continue };
            if self.latest(&own.place, &own.bytes, own.hash) != Some(place) {
                continue;
            }
            let Some(key) = own.key() else { continue };
            let tier = own.place.tier;
            tier.fetch_entry(key.mark());
            let reserved = match &change.what {
                What::Touch(_, expires) => {
                    steps.push((place, Step::Touch(*expires)));
                    continue;
                }
                What::Set(own, value @ Value { basis: Basis::Lease(lease), .. }) => {
                    let right = self.is_right(change, own, value, written, command);
                    if let Some(reservation) = value.reserve(own, &key).ok().filter(|_| right) {
                        steps.push((place, Step::Fill(reservation, *lease)));
                    }
                    continue;
                }
                What::Set(own, value) if self.is_right(change, own, value, written, command) => {
                    value.reserve(own, &key).ok()
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
                            fences.push(own.place.own_fence().into());
                            continue;
                        }
                    },
                },
            ));
        }
        Commit { steps, announced }
    }

    /// Fences what was written after the walk before the commit.
    fn lower_late(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let fences = tier.fences();
        let grows = self.fences.binary_search(&written::trees(tier)).is_ok();
        written::late(tier, grows, |fence| {
            fences.raise(fence);
            let _ = tier.lower_as(fence, fences.draw());
        });
    }

    fn committed(&mut self) {
        let mut raised = std::mem::take(&mut self.raised);
        let number = lower(&mut raised);
        if !self.has_nothing() {
            self.finish(&raised, number);
        }
        self.keep_room(raised);
    }

    #[inline(never)]
    fn finish(&mut self, raised: &[Raised], number: Stamp) {
        let Self { changes, commit, rights, .. } = std::mem::replace(self, Self::NOTHING);
        if let Some(commit) = commit {
            commit.finish(&changes, raised, number);
        }
        rights.committed();
    }

    fn aborted(&mut self) {
        let Self { changes, commit, rights, raised, .. } = std::mem::replace(self, Self::NOTHING);
        if let Some(commit) = commit {
            commit.take_back(&changes);
        }
        if let Some(tier) = shared::tier() {
            raised.iter().for_each(|raised| tier.fences().withdraw(raised.fence));
        }
        rights.aborted();
        self.keep_room(raised);
    }

    fn keep_room(&mut self, mut raised: Vec<Raised>) {
        raised.clear();
        raised.shrink_to(KEPT_MAX);
        self.raised = raised;
    }
}

impl From<FenceId> for Raised {
    fn from(fence: FenceId) -> Self {
        Self { fence, lowered: None }
    }
}

/// Says that what fences were raised for is visible, as of the number that is returned.
fn lower(raised: &mut [Raised]) -> Stamp {
    let Some(tier) = shared::tier().filter(|_| !raised.is_empty()) else { return Stamp::VOID };
    let number = tier.fences().draw();
    for raised in raised {
        raised.lowered = Some(tier.lower_as(raised.fence, number));
    }
    number
}

impl Commit {
    /// What has changed is visible, and the fences of the transaction are lowered.
    fn finish(self, changes: &[Change], raised: &[Raised], number: Stamp) {
        let Self { steps, announced } = self;
        for (place, step) in steps {
            let what = &changes[place].what;
            let Some((tier, key)) = what.key().and_then(|own| Some((own.place.tier, own.key()?))) else {
                continue;
            };
            match (step, what) {
                (Step::Publish(reservation), What::Set(own, value)) => {
                    let stamp = || stamp_of(own, value, raised, number);
                    match (value.basis, announced) {
                        (Basis::Claim(claim), true) => {
                            tier.confirm_claimed(&key, reservation, claim, stamp());
                        }
                        (Basis::Claim(claim), false) => {
                            tier.publish_leased(&key, reservation, claim);
                        }
                        (_, true) => tier.confirm_as(&key, reservation, stamp()),
                        (_, false) => {
                            tier.publish(&key, reservation);
                        }
                    }
                }
                (Step::Fill(reservation, lease), What::Set(own, value)) => {
                    let changed = |fence| tier.fences().passed(fence, value.stamp);
                    match fences_of(own, value).any(changed) {
                        true => tier.cancel(reservation),
                        false => {
                            tier.publish_leased(&key, reservation, lease);
                        }
                    }
                }
                (Step::Publish(reservation) | Step::Fill(reservation, _), _) => tier.cancel(reservation),
                (Step::Remove(Some(reservation)), _) => tier.confirm(&key, reservation),
                (Step::Remove(None), _) => {
                    tier.remove(&key);
                }
                (Step::Touch(expires), _) => {
                    tier.touch(&key, expires);
                }
            }
            what.key().into_iter().for_each(|own| queue::wake(own.hash));
        }
    }

    /// It will not happen.
    fn take_back(self, changes: &[Change]) {
        let Self { steps, announced } = self;
        let Some(tier) = shared::tier() else { return };
        for (place, step) in steps {
            if let Step::Fill(reservation, _) = step {
                tier.cancel(reservation);
                continue;
            }
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
