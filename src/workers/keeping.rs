//! The results of one role that its worker keeps stored without a warmer (`store/kept.rs`).
//!
//! Every few seconds, the worker *walks* through all entries in memory to find the most valuable results of each space with the
//! option `keep_warm`. A walk over a million entries takes a part of a second, so the worker spends at most a twentieth of its time
//! on walks. Between two walks, it looks at the results of its role that the last walk has found. A look costs about a microsecond
//! for each result.
//!
//! To *renew* a result is to run its query again and store the new result.

use crate::pg::error::OrRaise;
use crate::pg::memory;
use crate::pg::role::Role;
use crate::query::keep::{self, Renewal};
use crate::store::kept::{self, Kept, Spaces};
use std::time::{Duration, Instant};

/// The least time between two walks.
const WALK_MIN: Duration = Duration::from_secs(5);
/// The time between two walks is at least this many times the duration of a walk.
const WALK_REST: u32 = 20;

/// The results that a worker keeps.
#[derive(Debug)]
pub struct Keeping {
    /// The role of the worker.
    role: Role,
    /// The options of the spaces in which results are kept.
    spaces: Spaces,
    /// The results of the role that the last walk has found.
    kept: Vec<Kept>,
    /// When the next walk begins.
    next_walk: Instant,
}

impl Keeping {
    pub fn new(role: Role) -> Self {
        Self { role, spaces: Spaces::new(), kept: Vec::new(), next_walk: Instant::now() }
    }

    /// Returns whether there are spaces in which results are kept, so that walks make sense.
    pub fn has_spaces(&self) -> bool {
        !self.spaces.is_empty()
    }

    /// Returns whether the role has no results that are kept, as far as the last walk has found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Reads the options of the spaces. Must be called when they may have changed. May raise errors.
    pub fn read_spaces(&mut self) {
        // A superuser keeps no results. A superuser may have called a function of another role once, and a worker must not run that
        // function again with the privileges of the superuser.
        let spaces = if self.role.is_superuser() { Spaces::new() } else { kept::spaces() };
        if spaces != self.spaces {
            self.spaces = spaces;
            self.next_walk = Instant::now();
        }
    }

    /// Walks through the entries if a walk is due, or if `now` is true. May raise errors.
    pub fn walk(&mut self, now: bool) {
        let began = Instant::now();
        if self.spaces.is_empty() {
            self.kept.clear();
        }
        if self.spaces.is_empty() || !now && began < self.next_walk {
            return;
        }
        self.kept = kept::best(&self.spaces);
        self.kept.retain(|kept| {
            memory::check();
            kept.role == self.role.oid() && keep::is_found_here(kept).or_raise()
        });
        let took = began.elapsed();
        self.next_walk = began + took + WALK_MIN.max(took * WALK_REST);
    }

    /// Looks at all results, which also notes that the valid results are valid now. Returns the index of the result to renew next:
    /// of those that must be renewed, the one that was stored first.
    pub fn next(&self) -> Option<(usize, Renewal)> {
        let mut next: Option<(usize, Renewal)> = None;
        for (index, kept) in self.kept.iter().enumerate() {
            memory::check();
            if let Some(renewal) = keep::due(kept).filter(|_| !kept.runs.rest())
                && next.as_ref().is_none_or(|(_, first)| renewal.created < first.created)
            {
                next = Some((index, renewal));
            }
        }
        next
    }

    /// Returns the result with this index, which [`next`](Self::next) has returned. The next walk changes the indexes.
    pub fn get(&self, index: usize) -> Option<&Kept> {
        self.kept.get(index)
    }
}
