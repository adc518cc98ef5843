//! Actions with patterns, and the model's knowledge of the patterns. Each method of `Both` does one action of `action.rs`, which
//! explains the parameters.
//!
//! An *announced* change of a key hides the key's value until the change is confirmed (`tier/publishing.rs`). A *slot* holds one
//! pattern (`patterns/mod.rs`).

use super::both::Both;
use super::keys::{SCOPES, with_key};
use super::model::Known;
use pg_cache_core::Glob;

/// The patterns to choose from. The keys have four different lengths, from 1 to 151 bytes, and consist of the letter k.
const PATTERNS: [&[u8]; 6] = [b"*", b"k", b"k?*", b"x*", b"?", b"*kk\\k"];
/// The number of slots for patterns of a region of the harness.
pub const SLOTS_OF_PATTERNS: u32 = 4;

/// A pattern that was announced and not withdrawn. The tier may have retired it; then it still refuses the keys.
struct Pattern {
    scope: (u8, u32),
    bytes: &'static [u8],
    /// The number of the commit, or None until then.
    number: Option<u64>,
}

/// All patterns, and the use of the slots.
#[derive(Default)]
pub struct PatternsModel {
    all: Vec<Pattern>,
    /// How many slots are taken.
    taken: u32,
    /// Whether a slot was taken from a live pattern. Entries of its space may then have been invalidated.
    pub has_retired: bool,
}

impl PatternsModel {
    pub fn has_any(&self) -> bool {
        !self.all.is_empty()
    }

    fn announced(&self) -> u32 {
        self.all.iter().filter(|pattern| pattern.number.is_none()).count() as u32
    }

    /// Returns whether a pattern has removed a value, or is about to.
    pub fn remove(&self, known: &Known) -> bool {
        let key = vec![b'k'; 1 + (known.key / 6) as usize * 50];
        self.all.iter().any(|pattern| {
            pattern.scope == SCOPES[known.key as usize % SCOPES.len()]
                && pattern.number.is_none_or(|number| number > known.stamp)
                && Glob::new(pattern.bytes).expect("it is a pattern").matches(&key)
        })
    }

    /// Counts all announced patterns as committed with this number.
    pub fn confirm_all(&mut self, number: u64) {
        for pattern in &mut self.all {
            pattern.number.get_or_insert(number);
        }
    }
}

impl Both<'_> {
    /// Announces an invalidation by a pattern in the scope of a key.
    pub fn announce_pattern(&mut self, key: u8, pattern: u8) {
        let (tier, model) = (self.tier, &mut self.model.patterns);
        let bytes = PATTERNS[pattern as usize % PATTERNS.len()];
        let glob = Glob::new(bytes).expect("it is a pattern");
        let announced = with_key(tier, key, |key| tier.announce_pattern(key.scope(), glob));
        let has_room = model.announced() < SLOTS_OF_PATTERNS;
        assert_eq!(announced.is_some(), has_room, "{} patterns are announced", model.announced());
        let Some(announced) = announced else { return };
        match model.taken {
            SLOTS_OF_PATTERNS => model.has_retired = true,
            _ => model.taken += 1,
        }
        model.all.push(Pattern { scope: SCOPES[key as usize % SCOPES.len()], bytes, number: None });
        self.begun.patterns.push(announced);
    }

    /// Confirms the oldest announced pattern, or withdraws it.
    pub fn end_pattern(&mut self, commit: bool) {
        let (tier, model) = (self.tier, &mut *self.model);
        if self.begun.patterns.is_empty() {
            return;
        }
        let announced = self.begun.patterns.remove(0);
        let all = &mut model.patterns.all;
        let oldest = all.iter().position(|pattern| pattern.number.is_none()).expect("it was announced");
        if commit {
            tier.confirm_pattern(announced, tier.fences().draw());
            model.now += 1;
            all[oldest].number = Some(model.now);
        } else {
            tier.withdraw_pattern(announced);
            all.remove(oldest);
            model.patterns.taken -= 1;
        }
    }
}
