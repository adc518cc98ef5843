//! The place where a value is saved outside of the region, the shared memory of the *tier* (the cache): a *segment*, for example a
//! table, and a position in it. The directory of a shard (a part of the tier) has the locations of saved values
//! (`tier/directory.rs`). A location shares a word of 64 bits with other data there, so segment and position have few bits.

const SEGMENT_BITS: u32 = 10;
const POSITION_BITS: u32 = 33;
/// The number of bits of a location.
pub(crate) const LOCATION_BITS: u32 = SEGMENT_BITS + POSITION_BITS;

/// The number of segments that locations can name. Each has a record in the region. The models of loom watch each word of the
/// region, so they have few.
pub const SEGMENTS_MAX: u16 = if cfg!(loom) { 2 } else { 1 << SEGMENT_BITS };

/// The place where a value is saved: a position in a segment. The *saver*, the code outside of the core that writes the copies,
/// decides what segments and positions are. The position is never 0, so a location is never 0, which marks an empty place in the
/// directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location(u64);

impl Location {
    /// Makes a location. Returns None if the segment is not below [`SEGMENTS_MAX`], or if the position is 0 or has more than 33
    /// bits.
    pub fn new(segment: u16, position: u64) -> Option<Self> {
        let fits = segment < SEGMENTS_MAX && position > 0 && position < 1 << POSITION_BITS;
        fits.then_some(Self(u64::from(segment) << POSITION_BITS | position))
    }

    /// Returns the number of the segment.
    pub fn segment(self) -> u16 {
        (self.0 >> POSITION_BITS) as u16
    }

    /// Returns the position in the segment.
    pub fn position(self) -> u64 {
        self.0 & ((1 << POSITION_BITS) - 1)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Takes the location from the lowest bits of a word. They must be those of a location.
    pub(crate) fn from_bits(word: u64) -> Self {
        Self(word & ((1 << LOCATION_BITS) - 1))
    }
}
