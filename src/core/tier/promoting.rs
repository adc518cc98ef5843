//! Brings saved values back: judges a saved copy as if it were an entry, and makes it an entry again, which is called *promoting*.
//! A value is *saved* if a copy of it is outside of the memory. `store/table/reading.rs` of the extension reads the copies and
//! calls the functions here. Only [`Tier::promote`] takes locks; its caller must not hold one.
//!
//! A *location* says where the copy of a value is saved (`tier/directory.rs`). A *fence* is a word in shared memory that says when
//! a dependency of entries last changed; it *holds* for a value if that was not after the value's stamp. A *scope* is the database,
//! the space and the role of a key. A value is *stale* if it is not valid any more, and *outdated* if only changes of rows have
//! made it invalid. A *flight* says which session computes the value of a key (`tier/flight.rs`). A *reservation* is blocks with a
//! value that no reader can find yet (`publishing.rs`).

use super::Tier;
use super::entry::Entry;
use super::eviction;
use crate::fence::{FenceId, Stamp};
use crate::figures::Counter;
use crate::host::Host;
use crate::key::{Key, Scope};
use crate::location::Location;
use crate::reader::{Freshness, Miss, Reader};
use crate::value::{Meta, Reservation, StaleOk, Stored};

/// The properties of a saved value, as its copy tells them.
#[derive(Clone, Copy, Debug)]
pub struct SavedValue<'v> {
    /// The bytes of the key.
    pub key: &'v [u8],
    /// The properties of the value.
    pub meta: Meta,
    /// The fences of the value's dependencies.
    pub dependencies: &'v [FenceId],
    /// How long the value may be served stale, or None if it may not be.
    pub stale_ok: Option<StaleOk>,
}

impl<H: Host> Tier<'_, H> {
    /// Decides whether a reader may have a saved value, by the rules of [`get`](Self::get). The value must be that of a key of the
    /// scope. Counts nothing.
    pub fn judge_saved<'r>(
        &self,
        scope: &Scope,
        saved: &SavedValue<'_>,
        reader: impl Into<Reader<'r>>,
    ) -> Result<(), Miss> {
        let reader = reader.into();
        if saved.meta.expires <= self.host.now() {
            return Err(Miss::Expired);
        }
        if !self.outlasts_patterns_saved(scope, saved, reader)
            || !self.saved_holds(scope, saved, reader.safe_stamp)
        {
            return Err(Miss::Fenced);
        }
        if self.is_own(scope, saved, reader) { Err(Miss::Own) } else { Ok(()) }
    }

    /// Decides the same for a reader that may accept an [outdated](Reader::outdated_since) value. Returns the [`Meta::valid_at`]
    /// for the reader: `u32::MAX` if the value is valid, and otherwise the last tick at which it was known to be valid.
    ///
    /// [`Meta::valid_at`]: crate::Meta::valid_at
    pub fn judge_saved_outdated(
        &self,
        scope: &Scope,
        saved: &SavedValue<'_>,
        reader: Reader<'_>,
    ) -> Result<u32, Miss> {
        let miss = match self.judge_saved(scope, saved, reader) {
            Ok(()) => return Ok(u32::MAX),
            Err(miss) => miss,
        };
        let fences = self.fences();
        // Relations without a record of their own share *unclaimed* fences (`fence/mod.rs`), so these stand for rows, too.
        let is_forgiven = |fence: &FenceId| {
            let is_of_rows = fences.is_of_relation(*fence) || fences.is_of_unclaimed(*fence);
            is_of_rows || fences.holds(*fence, saved.meta.stamp, reader.safe_stamp)
        };
        let valid_at = saved.stale_ok.map_or(saved.meta.created, |noted| noted.valid_at);
        let is_recent = reader.outdated_since.is_some_and(|oldest| valid_at >= oldest);
        let is_accepted = miss == Miss::Fenced
            && is_recent
            && self.outlasts_patterns_saved(scope, saved, reader)
            && scope.fences.iter().chain(saved.dependencies).all(is_forgiven)
            && !self.is_own(scope, saved, reader);
        if is_accepted { Ok(valid_at) } else { Err(miss) }
    }

    /// Decides whether a reader that accepts a stale value may have a saved one, by the rules of [`get_stale`](Self::get_stale).
    /// Returns whether the value is valid, or until when it may be served stale.
    pub fn judge_saved_stale<'r>(
        &self,
        scope: &Scope,
        saved: &SavedValue<'_>,
        reader: impl Into<Reader<'r>>,
    ) -> Result<Freshness, Miss> {
        let reader = reader.into();
        let miss = match self.judge_saved(scope, saved, reader) {
            Ok(()) => return Ok(Freshness::Valid),
            Err(miss @ (Miss::Expired | Miss::Fenced)) => miss,
            Err(miss) => return Err(miss),
        };
        let holds = |fence| self.fences().holds(fence, saved.meta.stamp, reader.safe_stamp);
        let Some(StaleOk { ticks, valid_at }) = saved.stale_ok else { return Err(miss) };
        if !self.outlasts_patterns_saved(scope, saved, reader)
            || !scope.fences.into_iter().all(holds)
            || self.is_own(scope, saved, reader)
        {
            return Err(miss);
        }
        // A stale value is served for `ticks`. They begin when the value has expired, or, if a dependency has changed, when the
        // value was last known to be valid, if that was earlier.
        let expires = saved.meta.expires;
        let fenced = !saved.dependencies.iter().copied().all(holds);
        let until = if fenced { valid_at.min(expires) } else { expires }.saturating_add(ticks);
        if until > self.host.now() { Ok(Freshness::Stale { until }) } else { Err(miss) }
    }

    /// Returns whether no reader will ever get a saved value again.
    pub fn is_saved_useless(&self, scope: &Scope, saved: &SavedValue<'_>) -> bool {
        let fences = self.fences();
        let has_changed = |fence: &FenceId| fences.has_changed_since(*fence, saved.meta.stamp);
        scope.fences.iter().any(has_changed)
            || self.has_saved_lost_to_pattern(scope, saved.key, saved.meta.stamp)
            || (saved.meta.expires <= self.host.now() || saved.dependencies.iter().any(has_changed))
                && self.judge_saved_stale(scope, saved, Stamp::LATEST).is_err()
    }

    /// Whether no pattern (`patterns/mod.rs`) has removed a saved value. The caller must check the fence of the space afterwards:
    /// while this function looks, a pattern may be retired, and that fence then gets its number. `arrived` must not make this
    /// function skip a pattern, because no saved value is accepted on the ground of [`Reader::arrived`].
    fn outlasts_patterns_saved(&self, scope: &Scope, saved: &SavedValue<'_>, reader: Reader<'_>) -> bool {
        let (stamp, reader) = (saved.meta.stamp, Reader { arrived: None, ..reader });
        !self.has_pattern_since(scope, stamp, reader.safe_stamp)
            || self.outlasts_patterns(scope, saved.key, stamp, reader).is_some()
    }

    /// Whether all fences that a saved value depends on hold: none is raised, and none has changed after the value's stamp or after
    /// the reader's [safe stamp](Reader::safe_stamp).
    fn saved_holds(&self, scope: &Scope, saved: &SavedValue<'_>, safe_stamp: Stamp) -> bool {
        let holds = |fence: &FenceId| self.fences().holds(*fence, saved.meta.stamp, safe_stamp);
        scope.fences.iter().chain(saved.dependencies).all(holds)
    }

    /// Whether the reader has changed a dependency itself, or is [tracked](Reader::tracked), so that it must not get a value that
    /// depends on a relation.
    fn is_own(&self, scope: &Scope, saved: &SavedValue<'_>, reader: Reader<'_>) -> bool {
        let changed = |fence: &FenceId| reader.changed_fences.binary_search(fence).is_ok();
        reader.tracked && saved.dependencies.iter().any(|fence| self.fences().is_of_relation(*fence))
            || scope.fences.iter().chain(saved.dependencies).any(changed)
    }

    /// Makes a saved copy an entry of the memory again, with the reservation into which the caller has copied it. `created` is the
    /// tick at which the value was first stored. The copy stays where it is, and so does its location. The value is dropped if the
    /// location is not in the directory any more, if the key has an entry by now, or if the shard is switched off.
    ///
    /// This is no change of the key: flights go on.
    pub fn promote(
        &self,
        key: &Key<'_>,
        reservation: Reservation,
        location: Location,
        created: u32,
    ) -> Stored {
        let new = Entry::new(self.region, &self.layout, reservation.block);
        new.set_created(created);
        let guard = self.shard_of(key).lock(&self.host);
        let stands = guard.shard.location(key.fingerprint()) == Some(location);
        let kept = !guard.poisoned() && stands && guard.find(key).is_none();
        if kept {
            guard.change(|| {
                let header = new.header();
                guard.link(&new, &header);
                eviction::admit(&guard, &new, &header);
            });
        }
        drop(guard);
        if !kept {
            self.release(reservation.block);
            return Stored::Dropped;
        }
        self.statistics.count(key.scope.cell, Counter::Promoted);
        Stored::New
    }
}
