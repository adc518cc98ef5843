//! The records of segments: four words for each segment, in which the saver notes what the segment is. The *saver* is the code
//! outside of the core that copies values to a place outside of shared memory, and a *segment* is a part of that place
//! (`location.rs`).
//!
//! The core gives the words no meaning. They lie in the *region*, the shared memory of the tier, so that they live and die with the
//! locations that name the segments. All words of a record are 0 until the saver writes them after the region was formatted.

use crate::layout::{Layout, SEGMENT_WORDS};
use crate::location::SEGMENTS_MAX;
use crate::region::Region;
use crate::sync::Ordering;

/// The record of a segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentRecord<'m> {
    /// The shared memory.
    region: Region<'m>,
    /// The position of the first word of the record.
    at: usize,
}

impl<'m> SegmentRecord<'m> {
    /// Returns None if the tier has no directory, or if the segment is not below [`SEGMENTS_MAX`].
    pub(crate) fn new(region: Region<'m>, layout: &Layout, segment: u16) -> Option<Self> {
        let at = layout.segments_at + usize::from(segment) * SEGMENT_WORDS;
        (layout.location_sets > 0 && segment < SEGMENTS_MAX).then_some(Self { region, at })
    }

    /// Returns a word of the record; `index` is 0 to 3.
    pub fn word(&self, index: usize) -> u64 {
        self.region.word(self.at + index % SEGMENT_WORDS).load(Ordering::Acquire)
    }

    /// Writes a word of the record. A process that reads the new value of this word also sees all earlier writes of this process.
    pub fn set_word(&self, index: usize, value: u64) {
        self.region.word(self.at + index % SEGMENT_WORDS).store(value, Ordering::Release);
    }

    /// Replaces a word if it is `old`. Returns whether it was. So only one of several processes claims a record.
    pub fn replace(&self, index: usize, old: u64, new: u64) -> bool {
        let word = self.region.word(self.at + index % SEGMENT_WORDS);
        word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
