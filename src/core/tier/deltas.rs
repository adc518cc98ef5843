//! Notes, in the `Deltas` of the caller, the effect of a hold of a shard's lock on the figures of spaces and relations. A *shard*
//! is a part of the tier, a *space* is a set of keys in one database, and a *hold* is the time from acquiring to releasing a lock.
//! The caller settles the `Deltas` after the hold: adds them to the shared memory. `figures/deltas.rs` has the reasons.
//!
//! A change of a relation *kills* an entry that depends on it: the entry is not valid any more (`figures/relation_stats.rs`).

use super::Tier;
use super::entry::Entry;
use super::header::Header;
use crate::figures::{Counter, Delta, Deltas};
use crate::host::Host;
use crate::layout::AT_LAST;

impl<H: Host> Tier<'_, H> {
    /// Notes that `times` entries of a space have gone, for the reason `how`.
    pub(crate) fn note_gone(&self, deltas: &mut Deltas, space_id: u64, how: Counter, times: u32) {
        self.delta_of(deltas, space_id).note_gone(how, times);
    }

    /// Notes that a space has `by` blocks more, or fewer if `by` is negative.
    #[inline]
    pub(crate) fn note_blocks(&self, deltas: &mut Deltas, space_id: u64, by: i64) {
        self.delta_of(deltas, space_id).note_blocks(by);
    }

    #[inline]
    fn delta_of<'d>(&self, deltas: &'d mut Deltas, space_id: u64) -> &'d mut Delta {
        let position = deltas.position(space_id).unwrap_or_else(|| self.another(deltas, space_id));
        deltas.at(position)
    }

    /// Gives a space a delta. A separate function, because most spaces have one already.
    #[inline(never)]
    fn another(&self, deltas: &mut Deltas, space_id: u64) -> usize {
        deltas.add(space_id, self.cell_of(space_id), &self.statistics)
    }

    /// Counts the removal of an entry for a relation that has killed it: the first of its relations that has changed since the
    /// entry's stamp, and whose last change was before the entry expired. If there is none, counts nothing. The caller must hold
    /// the lock, and must not have given the entry's blocks back.
    #[inline]
    pub(crate) fn note_killed(&self, deltas: &mut Deltas, entry: &Entry<'_>, header: &Header) {
        if header.dependency_count() > 0 {
            self.note_killed_by(deltas, entry, header);
        }
    }

    /// A separate function, so that entries without dependencies do not pay for the loop.
    #[inline(never)]
    fn note_killed_by(&self, deltas: &mut Deltas, entry: &Entry<'_>, header: &Header) {
        let fences = self.fences();
        let killer = (0..header.dependency_count()).find_map(|index| {
            let fence = entry.dependency(&self.layout, header, index);
            let record = fences.record_of(fence)?;
            let in_time = || u64::from(header.expires()) > self.region.load(record + AT_LAST);
            (fences.has_changed_since(fence, header.stamp()) && in_time()).then_some(record)
        });
        if let Some(record) = killer {
            deltas.kills.add(record, &self.region);
        }
    }
}
