//! The steps of a commit in the cache, and how they are undone. `pending.rs` calls them at the events of the transaction.
//!
//! `begin` does everything that can fail and raises the fences, before the transaction can become visible. `finish` lowers the
//! fences and publishes the values, after the transaction has become visible to all sessions. `take_back` undoes `begin` after an
//! abort. Only `begin` and `raise_more` may allocate or raise errors.
//!
//! A *fence* is a word in shared memory that says when a dependency of values last changed; while it is *raised*, no value that
//! depends on it is valid. A *stamp* is a number on the clock of changes. The *ledger* is the list of the transaction's changes. A
//! key is *announced* while its value is hidden from all readers until the change is confirmed. The *tier* is the cache in shared
//! memory, and a *reservation* is memory in it with a value that no reader can find yet. The *journal* is a ring in shared memory
//! whose records name what has changed.

use super::change::{Action, Basis, Change, JournalName, OwnKey, Value};
use super::ledger::Ledger;
use super::own_patterns::OwnPattern;
use crate::pg::shared::{self, HotTier};
use crate::pg::{locks, memory, queue};
use crate::store::journal;
use crate::store::keyspace::Keyspace;
use pg_cache_core::{AnnouncedPattern, FenceId, Key, Lowered, Record, Reservation, Reserved, Stamp, What};

/// The state of a commit, from its beginning until it is over. The next commit reuses the memory of `raised` and `counted`.
#[derive(Debug)]
pub struct Commit {
    /// The fences that the commit has raised, sorted.
    raised: Vec<Raised>,
    /// The patterns that the commit has announced.
    patterns: Vec<AnnouncedPattern>,
    /// The changes of the ledger that count: the latest change of each key, and each invalidation, in order.
    counted: Vec<Counted>,
    /// Whether the changed keys are announced in the tier: each is a miss until the commit is over. They must be announced if the
    /// transaction has written to the database, because other sessions can see that before the server calls our callback. They
    /// must also be announced if the transaction has invalidated anything: only an announced value can be published with a new
    /// stamp, and without one, the transaction's own invalidation would invalidate it (`stamp_of`).
    announced: bool,
    /// The fences that the COMMIT callback has raised. That callback must not allocate, so the array has a fixed length.
    late: [Option<FenceId>; LATE_MAX],
}

/// A fence that the commit has raised, and its state when it was lowered.
#[derive(Debug)]
struct Raised {
    /// The fence.
    fence: FenceId,
    /// The state of the fence when it was lowered. None before that.
    lowered: Option<Lowered>,
}

/// A change that counts.
#[derive(Debug)]
struct Counted {
    /// The index of the change in the ledger.
    index: usize,
    /// The step that publishes the change. None if there is nothing to publish, or if that was done.
    step: Option<Step>,
}

/// The step that publishes one change when the transaction has become visible.
#[derive(Debug)]
enum Step {
    Publish(Reservation),
    /// Publishes a value that was computed under the lease with this number. It is never announced: the previous value is not
    /// wrong.
    Fill(Reservation, u64),
    /// Removes the key. The reservation is present if the removal was announced.
    Remove(Option<Reservation>),
    Touch(u32),
}

/// The most fences and changes for which a commit keeps the allocated memory for the next one.
const KEPT_MAX: usize = 128;

/// The most fences that a commit raises late. The last place is for the fence of the database, which stands for all further
/// fences.
const LATE_MAX: usize = 16;

impl Commit {
    /// The state before a commit begins.
    pub const NONE: Self = Self {
        raised: Vec::new(),
        patterns: Vec::new(),
        counted: Vec::new(),
        announced: false,
        late: [None; LATE_MAX],
    };

    /// Returns whether the commit has raised a fence.
    pub fn has_raised(&self, fence: FenceId) -> bool {
        self.raised.binary_search_by_key(&fence, |raised| raised.fence).is_ok()
    }

    /// Returns whether the commit has nothing to finish and nothing to undo.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.raised.is_empty()
            && self.patterns.is_empty()
            && self.counted.is_empty()
            && self.late[0].is_none()
    }

    /// Does everything that can fail, and tells other sessions what they must know before the changes are visible: raises the
    /// fences and announces the keys. May raise errors.
    ///
    /// `written` holds the fences of the tables that the transaction has written, sorted. `command_id` is the id that the next
    /// command would have: a value that was set under another id may be older than a write (`Ledger::is_valid`).
    #[inline]
    pub fn begin(&mut self, ledger: &Ledger, written: &[FenceId], command_id: u32) {
        // `self.raised` must hold only fences that are actually raised, because `take_back` withdraws each of them. So the list
        // is built in a local variable and stored after the fences are raised.
        let mut raised = std::mem::take(&mut self.raised);
        if ledger.is_empty() {
            // Most commits have written tables only.
            memory::reserve(&mut raised, written.len());
            raised.extend(written.iter().map(|fence| Raised::from(*fence)));
            self.raise(raised);
        } else {
            self.begin_with_changes(ledger, written, command_id, raised);
        }
    }

    /// Does the same as [`begin`](Self::begin) for a transaction that has changes in the cache. `raised` is an empty list. Not
    /// inlined, so that a commit without such changes does not pay for it.
    #[inline(never)]
    fn begin_with_changes(
        &mut self,
        ledger: &Ledger,
        written: &[FenceId],
        command_id: u32,
        mut raised: Vec<Raised>,
    ) {
        // A fence may replace the announcement of a key or of a pattern.
        let patterns = ledger.patterns().all().len();
        memory::reserve(
            &mut raised,
            ledger.fences().len() + written.len() + ledger.changes().len() + patterns,
        );
        memory::reserve(&mut self.patterns, patterns);
        raised.extend(ledger.fences().iter().map(|fence| Raised::from(*fence)));
        raised.extend(written.iter().map(|fence| Raised::from(*fence)));
        let mut counted = std::mem::take(&mut self.counted);
        if !ledger.changes().is_empty() {
            let invalidates = !ledger.fences().is_empty() || !ledger.patterns().is_empty();
            self.announced = locks::has_written() || invalidates;
            self.reserve(ledger, written, command_id, &mut counted, &mut raised);
        }
        if !ledger.patterns().is_empty() {
            self.announce_patterns(ledger.patterns().all(), &mut raised);
        }
        raised.sort_unstable_by_key(|raised| raised.fence);
        raised.dedup_by_key(|raised| raised.fence);
        self.raise(raised);
        if self.announced {
            announce(ledger.changes(), &counted);
        }
        self.counted = counted;
    }

    /// Raises these fences, which must be sorted.
    #[inline]
    fn raise(&mut self, fences: Vec<Raised>) {
        if let Some(tier) = shared::tier() {
            fences.iter().for_each(|raised| tier.fences().raise(raised.fence));
        }
        self.raised = fences;
    }

    /// Announces the patterns. If there is no room for one, adds the fence of its space to `fences` instead. Both lists must have
    /// room for all patterns.
    #[cold]
    fn announce_patterns(&mut self, patterns: &[OwnPattern], fences: &mut Vec<Raised>) {
        for own in patterns {
            let Keyspace { tier, scope, .. } = own.keyspace;
            match own.glob().and_then(|pattern| tier.announce_pattern(&scope, pattern)) {
                Some(announced) => self.patterns.push(announced),
                None => fences.push(own.keyspace.own_fence().into()),
            }
        }
    }

    /// Adds the changes that count to `counted`, and reserves memory for their values and announcements. If there is no memory for
    /// an announcement, adds the fence of the key's space to `fences` instead. Not inlined, like all code for keys, so that a commit
    /// without changed keys does not pay for it.
    #[inline(never)]
    fn reserve(
        &self,
        ledger: &Ledger,
        written: &[FenceId],
        command_id: u32,
        counted: &mut Vec<Counted>,
        fences: &mut Vec<Raised>,
    ) {
        memory::reserve(counted, ledger.changes().len());
        for (index, change) in ledger.changes().iter().enumerate() {
            let Some(own) = change.action.key() else {
                counted.push(Counted { index, step: None });
                continue;
            };
            if ledger.latest(&own.keyspace, &own.bytes, own.hash) != Some(index) {
                continue;
            }
            let Some(key) = own.key() else { continue };
            own.keyspace.tier.prefetch_entry(key.mark());
            let step = match &change.action {
                Action::Touch(_, expires) => Ok(Some(Step::Touch(*expires))),
                Action::Set(own, value) => {
                    let is_valid = ledger.is_valid(change, own, value, written, command_id);
                    self.step_to_set(own, &key, value, is_valid)
                }
                Action::Remove(own) => self.step_to_remove(own, &key).map(Some),
                Action::Invalidate(..) => Ok(None),
            };
            let step = step.unwrap_or_else(|fence| {
                fences.push(fence.into());
                None
            });
            counted.push(Counted { index, step });
        }
    }

    /// Returns the step that publishes a value. There is none if the value of a lease cannot be stored. The error is the fence
    /// that must be raised instead.
    fn step_to_set(
        &self,
        own: &OwnKey,
        key: &Key<'_>,
        value: &Value,
        is_valid: bool,
    ) -> Result<Option<Step>, FenceId> {
        let reserved = if is_valid { value.reserve(own, key).ok() } else { None };
        match (reserved, value.basis) {
            (Some(reservation), Basis::Lease(lease)) => Ok(Some(Step::Fill(reservation, lease))),
            (None, Basis::Lease(_)) => Ok(None),
            (Some(reservation), _) => Ok(Some(Step::Publish(reservation))),
            // The previous value must go even if there is no memory for the new one.
            (None, _) => self.step_to_remove(own, key).map(Some),
        }
    }

    /// Returns the step that removes a key. The error is the fence that must be raised instead.
    fn step_to_remove(&self, own: &OwnKey, key: &Key<'_>) -> Result<Step, FenceId> {
        if !self.announced {
            return Ok(Step::Remove(None));
        }
        let reservation = own.keyspace.tier.reserve_removal(key).map_err(|_| own.keyspace.own_fence())?;
        Ok(Step::Remove(Some(reservation)))
    }

    /// Raises those of the given fences that are not raised yet. Must be called before the changes are visible. May raise errors
    /// before it raises the first fence.
    #[cold]
    pub fn raise_more(&mut self, tier: &HotTier, fences: &[FenceId]) {
        memory::reserve(&mut self.raised, fences.len());
        for fence in fences {
            if let Err(at) = self.raised.binary_search_by_key(fence, |raised| raised.fence) {
                self.raised.insert(at, (*fence).into());
                tier.fences().raise(*fence);
            }
        }
    }

    /// Raises a fence after the change has become visible: this is late, but better than not invalidating at all. Must not
    /// allocate.
    pub fn raise_late(&mut self, tier: &HotTier, fence: FenceId) {
        let Some(free) = self.late.iter().position(Option::is_none) else { return };
        let fence = match free == LATE_MAX - 1 {
            true => tier.fences().reserved(Reserved::Database(shared::database())),
            false => fence,
        };
        tier.fences().raise(fence);
        self.late[free] = Some(fence);
    }

    /// Lowers the fences, publishes the values, and writes the changes to the journal. Must be called when every session can see
    /// what the transaction has changed.
    #[inline]
    pub fn finish(&mut self, ledger: &Ledger) {
        let stamp = self.lower();
        if !self.counted.is_empty() {
            self.confirm(ledger, stamp);
        }
        if let Some(tier) = shared::tier().filter(|_| stamp != Stamp::VOID || !ledger.is_empty()) {
            self.journal(tier, ledger);
        }
        self.clear();
    }

    /// Lowers all fences with one stamp and returns the stamp. Returns VOID if no fence was raised.
    fn lower(&mut self) -> Stamp {
        let nothing = self.raised.is_empty() && self.patterns.is_empty() && self.late[0].is_none();
        let Some(tier) = shared::tier().filter(|_| !nothing) else { return Stamp::VOID };
        let stamp = tier.fences().draw();
        for raised in &mut self.raised {
            raised.lowered = Some(tier.lower_as(raised.fence, stamp));
        }
        for fence in self.late.iter().map_while(|late| *late) {
            let _ = tier.lower_as(fence, stamp);
        }
        self.patterns.drain(..).for_each(|announced| tier.confirm_pattern(announced, stamp));
        stamp
    }

    /// Writes to the journal what the commit has changed: the changes in the cache, and the written relations that must be named.
    fn journal(&self, tier: &HotTier, ledger: &Ledger) {
        let relations = self.raised.iter().filter_map(|raised| journal::of_fence(tier, raised.fence));
        if ledger.is_empty() && self.late[0].is_none() {
            // Most commits have written tables only.
            return journal::append(tier, relations);
        }
        let changes =
            self.counted.iter().filter_map(|counted| record(&ledger.changes()[counted.index].action));
        let patterns = ledger.patterns().all();
        if self.raised.is_empty() && self.late[0].is_none() && patterns.is_empty() {
            // Most of the other commits have set keys only.
            return journal::append(tier, changes);
        }
        // Another fence than that of a relation is raised late only if it is not known what else has changed.
        let late = self.late.iter().map_while(|late| *late).filter_map(|fence| {
            match tier.fences().is_of_relation(fence) || tier.fences().is_of_unclaimed(fence) {
                true => journal::of_fence(tier, fence),
                false => Some(journal::of_database(shared::database())),
            }
        });
        journal::append(tier, changes.chain(relations).chain(late).chain(spaces_of(patterns)));
    }

    /// Publishes the new values and removes the old ones.
    #[inline(never)]
    fn confirm(&mut self, ledger: &Ledger, lowered_at: Stamp) {
        let Self { raised, counted, announced, .. } = self;
        for counted in counted {
            let action = &ledger.changes()[counted.index].action;
            let Some(step) = counted.step.take() else { continue };
            let Some((tier, key)) = action.key().and_then(|own| Some((own.keyspace.tier, own.key()?))) else {
                continue;
            };
            match (step, action) {
                (Step::Publish(reservation), Action::Set(own, value)) => {
                    let is_removed = ledger.patterns().have_removed(&own.keyspace, &own.bytes, None);
                    let stamp = || stamp_of(own, value, &key, is_removed, raised, lowered_at);
                    match (value.basis, *announced) {
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
                (Step::Fill(reservation, lease), Action::Set(own, value)) => {
                    let changed = |fence| tier.fences().has_changed_since(fence, value.stamp);
                    let is_removed = tier.is_removed_by_pattern(&key, value.stamp, None);
                    match is_removed || value.fences(own).any(changed) {
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
            action.key().into_iter().for_each(|own| queue::wake(own.hash));
        }
    }

    /// Undoes `begin` after an abort.
    pub fn take_back(&mut self, changes: &[Change]) {
        for Counted { index, step } in self.counted.drain(..) {
            let own = changes[index].action.key();
            let (Some(step), Some((tier, key))) =
                (step, own.and_then(|own| Some((own.keyspace.tier, own.key()?))))
            else {
                continue;
            };
            match step {
                Step::Publish(reservation) | Step::Remove(Some(reservation)) if self.announced => {
                    tier.withdraw(&key, reservation);
                }
                Step::Publish(reservation) | Step::Fill(reservation, _) | Step::Remove(Some(reservation)) => {
                    tier.cancel(reservation);
                }
                Step::Remove(None) | Step::Touch(_) => {}
            }
        }
        if let Some(tier) = shared::tier() {
            self.raised.iter().for_each(|raised| tier.fences().withdraw(raised.fence));
            self.patterns.drain(..).for_each(|announced| tier.withdraw_pattern(announced));
            self.late.iter_mut().map_while(Option::take).for_each(|fence| tier.fences().withdraw(fence));
        }
        self.clear();
    }

    /// Forgets everything about the commit.
    fn clear(&mut self) {
        self.raised.clear();
        self.patterns = Vec::new();
        if self.raised.capacity() > KEPT_MAX {
            // Shrinking the vector would allocate, so it is dropped instead.
            self.raised = Vec::new();
        }
        self.counted.clear();
        if self.counted.capacity() > KEPT_MAX {
            self.counted = Vec::new();
        }
        self.announced = false;
        if self.late[0].is_some() {
            self.late = [None; LATE_MAX];
        }
    }
}

/// Applies the changes that other callbacks of the same commit made after `begin`: this is late, but better than not at all.
/// Values are not stored any more, but the previous values of their keys are removed.
#[cold]
pub fn catch_up(changes: &[Change], patterns: &[OwnPattern]) {
    for pattern in patterns {
        let tier = pattern.keyspace.tier;
        tier.fences().raise(pattern.keyspace.own_fence());
        let _ = tier.lower_as(pattern.keyspace.own_fence(), tier.fences().draw());
    }
    for Change { action, .. } in changes {
        match action {
            Action::Invalidate(fence, _) => {
                if let Some(tier) = shared::tier() {
                    tier.fences().raise(*fence);
                    let _ = tier.lower_as(*fence, tier.fences().draw());
                }
            }
            // The value of a lease does not make the previous value wrong, so there is nothing to remove.
            Action::Set(_, Value { basis: Basis::Lease(_), .. }) => {}
            Action::Set(own, _) | Action::Remove(own) | Action::Touch(own, _) => {
                let Some(key) = own.key() else { continue };
                match action {
                    Action::Touch(_, expires) => _ = own.keyspace.tier.touch(&key, *expires),
                    _ => _ = own.keyspace.tier.remove(&key),
                }
                queue::wake(own.hash);
            }
        }
    }
    if let Some(tier) = shared::tier() {
        journal::append(
            tier,
            changes
                .iter()
                .filter_map(|change| match &change.action {
                    Action::Invalidate(fence, JournalName::Relation) => journal::of_fence(tier, *fence),
                    action => record(action),
                })
                .chain(spaces_of(patterns)),
        );
    }
}

/// Returns the records of patterns for the journal: the space of each pattern, but not the same space twice in a row. The journal
/// cannot name the keys that a pattern matches.
fn spaces_of(patterns: &[OwnPattern]) -> impl Iterator<Item = Record<'_>> + Clone {
    let database = shared::database();
    let space = |pattern: &OwnPattern| pattern.keyspace.scope.space();
    let chunks = patterns.chunk_by(move |one, next| space(one) == space(next));
    chunks.map(move |chunk| Record {
        what: What::Space,
        database,
        object: space(&chunk[0]),
        role: 0,
        name: &[],
    })
}

/// Returns the record of a change for the journal. None if no cache outside of the database can depend on it.
fn record(action: &Action) -> Option<Record<'_>> {
    let database = shared::database();
    let of = |what, object, name| Some(Record { what, database, object, role: 0, name });
    match action {
        Action::Set(own, _) | Action::Remove(own) | Action::Touch(own, _) => {
            Some(journal::of_key(&own.keyspace, &own.bytes))
        }
        Action::Invalidate(_, JournalName::Tag(tag)) => of(What::Tag, 0, tag),
        Action::Invalidate(_, JournalName::Space(space)) => of(What::Space, *space, &[]),
        Action::Invalidate(_, JournalName::Database(database)) => Some(journal::of_database(*database)),
        Action::Invalidate(_, JournalName::Privileges(database)) => {
            Some(Record { what: What::Privileges, ..journal::of_database(*database) })
        }
        Action::Invalidate(_, JournalName::Relation | JournalName::Unnamed) => None,
    }
}

impl From<FenceId> for Raised {
    fn from(fence: FenceId) -> Self {
        Self { fence, lowered: None }
    }
}

/// Announces the keys that are about to change.
#[inline(never)]
fn announce(changes: &[Change], counted: &[Counted]) {
    for Counted { index, step } in counted {
        if let (Some(own), Some(Step::Publish(reservation) | Step::Remove(Some(reservation)))) =
            (changes[*index].action.key(), step)
            && let Some(key) = own.key()
        {
            own.keyspace.tier.announce(&key, reservation);
        }
    }
}

/// Returns the stamp with which an announced value can be published, or none if the value must be dropped. See *set and fence* in
/// `fence/mod.rs` of the core. `is_removed` says that the transaction has invalidated a pattern that matches the key, before it set
/// the value.
fn stamp_of(
    key: &OwnKey,
    value: &Value,
    name: &Key<'_>,
    is_removed: bool,
    own: &[Raised],
    lowered_at: Stamp,
) -> Option<Stamp> {
    let find = |fence: FenceId| own.binary_search_by_key(&fence, |raised| raised.fence).ok();
    if !is_removed && value.fences(key).all(|fence| find(fence).is_none()) {
        return Some(value.stamp);
    }
    // The later stamp also covers the patterns of other transactions, so none of them may match. Their slots must be looked at
    // before the fence of the space.
    if key.keyspace.tier.is_removed_by_pattern(name, value.stamp, Some(lowered_at)) {
        return None;
    }
    value
        .fences(key)
        .all(|fence| match find(fence) {
            Some(at) => own[at].lowered.is_some_and(|lowered| lowered.was_alone_since(value.stamp)),
            None => key.keyspace.tier.fences().holds(fence, value.stamp, Stamp::LATEST),
        })
        .then_some(lowered_at)
}
