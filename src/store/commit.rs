//! What a commit does in the cache, and how it is taken back.

use crate::pg::shared::{self, HotTier};
use crate::pg::{locks, memory, queue};
use crate::store::change::{Basis, Change, OwnKey, Value, What};
use crate::store::ledger::Ledger;
use pg_cache_core::{FenceId, Lowered, Reservation, Reserved, Stamp};

/// A commit, from the moment in which it begins to where it is over. Its room is kept for the next one.
#[derive(Debug)]
pub struct Commit {
    /// The fences that it has raised, in order.
    raised: Vec<Raised>,
    /// What is to be done for the changes, each with its place among them.
    steps: Vec<(usize, Step)>,
    /// Whether the keys are announced: others can see what has changed before we are told.
    announced: bool,
    /// Fences that were raised by the COMMIT callback, which must not allocate.
    late: [Option<FenceId>; LATE_MAX],
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
    /// Under a lease, and never announced.
    Fill(Reservation, u64),
    /// Announced, or not.
    Remove(Option<Reservation>),
    Touch(u32),
}

/// So many fences there is room for in the next commit without asking for it.
const KEPT_MAX: usize = 128;

/// A commit that finds more relations late raises the fence of its database instead.
const LATE_MAX: usize = 16;

impl Commit {
    /// The state before a commit begins.
    pub const NONE: Self =
        Self { raised: Vec::new(), steps: Vec::new(), announced: false, late: [None; LATE_MAX] };

    /// Whether it has raised a fence.
    pub fn has_raised(&self, fence: FenceId) -> bool {
        self.raised.binary_search_by_key(&fence, |raised| raised.fence).is_ok()
    }

    /// Whether there is nothing to be done, nor to be taken back.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.raised.is_empty() && self.steps.is_empty() && self.late[0].is_none()
    }

    /// Everything that can fail, and what others have to know before the changes are visible.
    #[inline]
    pub fn begin(&mut self, ledger: &Ledger, written: &[FenceId], command: u32) {
        // Nothing is taken back that was not done: what stands in here, has been.
        let mut raised = std::mem::take(&mut self.raised);
        // A fence may stand in for each key.
        memory::reserve(&mut raised, ledger.fences().len() + written.len() + ledger.changes().len());
        raised.extend(ledger.fences().iter().chain(written).map(|fence| Raised::from(*fence)));
        let mut steps = Vec::new();
        if !ledger.changes().is_empty() {
            self.announced = locks::has_written() || !ledger.fences().is_empty();
            steps = self.reserve(ledger, written, command, &mut raised);
        }
        raised.sort_unstable_by_key(|raised| raised.fence);
        raised.dedup_by_key(|raised| raised.fence);
        if let Some(tier) = shared::tier() {
            raised.iter().for_each(|raised| tier.fences().raise(raised.fence));
        }
        self.raised = raised;
        if self.announced {
            announce(ledger.changes(), &steps);
        }
        self.steps = steps;
    }

    /// Finds room for what is to be published, and for the announcements. Where there is none, a fence stands in for the key. Apart, as
    /// all that is done for keys, so that who has changed none does not pay for it.
    #[inline(never)]
    fn reserve(
        &self,
        ledger: &Ledger,
        written: &[FenceId],
        command: u32,
        fences: &mut Vec<Raised>,
    ) -> Vec<(usize, Step)> {
        let mut steps = Vec::new();
        memory::reserve(&mut steps, ledger.changes().len());
        for (place, change) in ledger.changes().iter().enumerate() {
            let Some(own) = change.what.key() else { continue };
            if ledger.latest(&own.place, &own.bytes, own.hash) != Some(place) {
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
                    let right = ledger.is_right(change, own, value, written, command);
                    if let Some(reservation) = value.reserve(own, &key).ok().filter(|_| right) {
                        steps.push((place, Step::Fill(reservation, *lease)));
                    }
                    continue;
                }
                What::Set(own, value) if ledger.is_right(change, own, value, written, command) => {
                    value.reserve(own, &key).ok()
                }
                _ => None,
            };
            steps.push((
                place,
                match reserved {
                    Some(reservation) => Step::Publish(reservation),
                    // What the key had has to go, also if the new value finds no room.
                    None if !self.announced => Step::Remove(None),
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
        steps
    }

    /// Raises those of some fences that are not raised yet. Before the changes are visible.
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

    /// Raises a fence when the change is visible already: late, and better than never. Must not allocate.
    pub fn raise_late(&mut self, tier: &HotTier, fence: FenceId) {
        let Some(free) = self.late.iter().position(Option::is_none) else { return };
        let fence = match free == LATE_MAX - 1 {
            true => tier.fences().reserved(Reserved::Database(shared::database())),
            false => fence,
        };
        tier.fences().raise(fence);
        self.late[free] = Some(fence);
    }

    /// Lowers the fences and publishes the values. Every session can see by now what the transaction has changed.
    #[inline]
    pub fn finish(&mut self, changes: &[Change]) {
        let number = self.lower();
        if !self.steps.is_empty() {
            self.confirm(changes, number);
        }
        self.clear();
    }

    /// Lowers all fences with one number, and returns it.
    fn lower(&mut self) -> Stamp {
        let nothing = self.raised.is_empty() && self.late[0].is_none();
        let Some(tier) = shared::tier().filter(|_| !nothing) else { return Stamp::VOID };
        let number = tier.fences().draw();
        for raised in &mut self.raised {
            raised.lowered = Some(tier.lower_as(raised.fence, number));
        }
        for fence in self.late.iter_mut().map_while(Option::take) {
            let _ = tier.lower_as(fence, number);
        }
        number
    }

    /// Shows the new values, and takes away the old ones.
    #[inline(never)]
    fn confirm(&mut self, changes: &[Change], number: Stamp) {
        let Self { raised, steps, announced, .. } = self;
        for (place, step) in steps.drain(..) {
            let what = &changes[place].what;
            let Some((tier, key)) = what.key().and_then(|own| Some((own.place.tier, own.key()?))) else {
                continue;
            };
            match (step, what) {
                (Step::Publish(reservation), What::Set(own, value)) => {
                    let stamp = || stamp_of(own, value, raised, number);
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
                (Step::Fill(reservation, lease), What::Set(own, value)) => {
                    let changed = |fence| tier.fences().passed(fence, value.stamp);
                    match value.fences(own).any(changed) {
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
    pub fn take_back(&mut self, changes: &[Change]) {
        for (place, step) in self.steps.drain(..) {
            let Some((tier, key)) =
                changes[place].what.key().and_then(|own| Some((own.place.tier, own.key()?)))
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
            self.late.iter_mut().map_while(Option::take).for_each(|fence| tier.fences().withdraw(fence));
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.raised.clear();
        if self.raised.capacity() > KEPT_MAX {
            // To shrink it would be to ask for memory.
            self.raised = Vec::new();
        }
        self.steps = Vec::new();
        self.announced = false;
    }
}

/// What was changed by others who are told of the commit, when it had begun: better late than never. A value is not stored any more, but
/// what its key had goes.
#[cold]
pub fn catch_up(changes: &[Change]) {
    for Change { what, .. } in changes {
        match what {
            What::Invalidate(fence) => {
                if let Some(tier) = shared::tier() {
                    tier.fences().raise(*fence);
                    let _ = tier.lower_as(*fence, tier.fences().draw());
                }
            }
            // Nothing is wrong because of it.
            What::Set(_, Value { basis: Basis::Lease(_), .. }) => {}
            What::Set(own, _) | What::Remove(own) | What::Touch(own, _) => {
                let Some(key) = own.key() else { continue };
                match what {
                    What::Touch(_, expires) => _ = own.place.tier.touch(&key, *expires),
                    _ => _ = own.place.tier.remove(&key),
                }
                queue::wake(own.hash);
            }
        }
    }
}

impl From<FenceId> for Raised {
    fn from(fence: FenceId) -> Self {
        Self { fence, lowered: None }
    }
}

/// Says which keys are about to change.
#[inline(never)]
fn announce(changes: &[Change], steps: &[(usize, Step)]) {
    for (place, step) in steps {
        if let (Some(own), Step::Publish(reservation) | Step::Remove(Some(reservation))) =
            (changes[*place].what.key(), step)
            && let Some(key) = own.key()
        {
            own.place.tier.announce(&key, reservation);
        }
    }
}

/// As of when a value is right that its transaction has announced, or that it is not: see *set and fence* in the core.
fn stamp_of(key: &OwnKey, value: &Value, own: &[Raised], number: Stamp) -> Option<Stamp> {
    let find = |fence: FenceId| own.binary_search_by_key(&fence, |raised| raised.fence).ok();
    if value.fences(key).all(|fence| find(fence).is_none()) {
        return Some(value.stamp);
    }
    value
        .fences(key)
        .all(|fence| match find(fence) {
            Some(at) => own[at].lowered.is_some_and(|lowered| lowered.was_alone_since(value.stamp)),
            None => key.place.tier.fences().holds(fence, value.stamp, Stamp::LATEST),
        })
        .then_some(number)
}
