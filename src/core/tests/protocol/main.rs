//! Checks the protocols of fences, keys, flights, saved values, prepared transactions and copies in Redis, in every state
//! that they can reach.
//!
//! Each module is one protocol: a few actors, each with a program of atomic steps, over a copy of what the shared
//! memory would hold. The crate `stateright` tries every order of those steps. The result holds for the order of
//! steps, for a few actors and a few fences. For `read_rule.rs`, `set_and_fence.rs` and `keys/`, and for one key of
//! `table/`, `as_built/` shows that the operations of the code do what the steps say: it takes the same paths with the
//! real tier. It does not cover the other models. Memory is sequentially consistent in the models. The checker
//! identifies a state by a 64-bit hash. Among ten million states, the chance that it mistakes a new state for a known
//! one and skips it is three in a million.
//!
//! ```text
//! memory.rs          a fence as the models see it: the counterpart of src/core/fence/fences.rs
//! reader.rs          reads an entry, and judges whether the entry was right for this reader
//! read_rule.rs       writers, fills and readers: no reader gets a stale value or one from the future
//! keys/              announcing, confirming, leases, claims: no value from before a change is served after it
//! flights/           callers of one query, of which one computes the result for all: no stale result, two runs, no hang
//! claims.rs          a relation gets a record while a writer that found none is still at work
//! bulk.rs            an entry depends on single rows, while a writer that does not know of that is still at work
//! journal/           a near-cache outside of the server follows the journal, and never misses a change; which changes are named
//! redis/             a worker copies values to Redis: each key there ends equal to the cache, or absent
//! set_and_fence.rs   a transaction changes a dependency of the value that it sets
//! two_phase.rs       the change of a prepared transaction
//! table/             a value is saved in a row, leaves the memory, and comes back
//! patterns/          a pattern invalidates the keys that it matches, and no others
//! names.rs           the name of a prepared transaction is given to another one after it has ended
//! as_built/          compares the models with the code
//! ```
//!
//! # Variants
//!
//! A model takes a variant, which says what the model does differently. [`Verdict::Breaks`] names the property that
//! must fail. These variants are the controls: a model that cannot fail proves nothing. [`Verdict::Harmless`] marks a
//! variant that stays right: another way to build the protocol, or a difference that looks dangerous but is not.
//! `sometimes` properties make sure that a model is not right merely because nothing happens in it.
//! `PG_CACHE_TEST_LONG=1` adds larger configurations.
//!
//! # How to read a counterexample
//!
//! When a property fails that should hold, or holds although it should fail, the test fails. For a property that
//! should hold, it prints the shortest path to the failure: one step a line, in the order of time. For example,
//! `Writer(0, Raise(1))` means that writer 0 raises fence 1. `PG_CACHE_TEST_PATHS=1` also prints the counterexamples
//! of the controls. They are worth reading: each is the reason for one rule of the design. Actors that do not occur in
//! a path do not matter to it. Read the path from its end: what did the last reader get, which step computed that
//! value, which writer had shown its change before the reader began, and why did no check between them see the change?
//!
//! # Where to add a protocol
//!
//! Add a new protocol as a module of its own with a `State`, a `Step` and variants, run by [`check`], with the fences
//! of `memory.rs` and the reader of `reader.rs`. Extra actors for an existing protocol belong in its module. For
//! example, one more kind of dependency is one more fence that the reader of `read_rule.rs` checks. A protocol whose
//! steps are operations of this crate also belongs in `as_built/`.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed.

mod as_built;
mod bulk;
mod claims;
mod flights;
mod journal;
mod keys;
mod memory;
mod names;
mod patterns;
mod read_rule;
mod reader;
mod redis;
mod set_and_fence;
mod table;
mod two_phase;

use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::io::Write as _;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// The result that a variant of a protocol must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The protocol as it is built.
    Right,
    /// Another correct way to build it.
    Harmless,
    /// A mistake, with the property that must fail because of it.
    Breaks(&'static str),
}

/// Returns whether to run the large configurations (`PG_CACHE_TEST_LONG`).
pub fn long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Visits the states of a model, prints how many it visited, and panics if the result differs from `verdict`. `name`
/// is printed with the result.
pub fn check<M>(name: &str, model: M, verdict: Verdict)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    // A control stops as soon as its property has failed; a `sometimes` property fails only when every state was
    // visited. A variant that should hold stops at the first failure; without one, the checker visits every state.
    let until = match verdict {
        Verdict::Breaks(property) => HasDiscoveries::AnyOf([property].into()),
        Verdict::Right | Verdict::Harmless => HasDiscoveries::AnyFailures,
    };
    let checker = model.clone().checker().finish_when(until).spawn_bfs().join();
    let (states, found) = (checker.unique_state_count(), checker.discoveries());
    let properties = model.properties();
    let fallen: Vec<_> = properties
        .iter()
        .filter(|property| match property.expectation {
            Expectation::Sometimes => !found.contains_key(property.name),
            _ => found.contains_key(property.name),
        })
        .map(|property| property.name)
        .collect();
    let path = |property: &str| found.get(property).map(|path| shortest(&model, property, path.clone()));
    let outcome = match verdict {
        Verdict::Breaks(property) => {
            assert!(
                fallen.contains(&property),
                "{name}: {property:?} should fall, and does not in {states} states ({fallen:?} does)"
            );
            if std::env::var_os("PG_CACHE_TEST_PATHS").is_some() {
                say(&format!("{name}:\n{}", path(property).unwrap_or_default()));
            }
            format!("falls: {property}")
        }
        Verdict::Right | Verdict::Harmless => {
            // If the search stopped early, it may just not have reached a `sometimes` property yet. Report such a
            // property only if nothing else has failed.
            let real = |name: &&str| found.contains_key(name);
            let fallen = match fallen.iter().any(real) {
                true => fallen.into_iter().filter(real).collect(),
                false => fallen,
            };
            let paths: String = fallen.iter().filter_map(|property| path(property)).collect();
            assert!(fallen.is_empty(), "{name}: {fallen:?} fell, after {states} states\n{paths}");
            if verdict == Verdict::Right { "holds" } else { "holds as well" }.to_owned()
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    say(&format!("  {name:<58} {states:>9} states {seconds:>5.1} s   {outcome}"));
}

/// Returns the steps of the shortest path on which a property fails, one step a line. `path` is a path that the checker
/// has reported. With more than one thread, the checker may report a longer one first, so this searches for shorter
/// paths until there is none.
fn shortest<M>(model: &M, property: &str, mut path: Path<M::State, M::Action>) -> String
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    loop {
        // The depth limit excludes paths as long as this one.
        let states = path.clone().into_states().len();
        let checker = model.clone().checker().target_max_depth(states).spawn_bfs().join();
        match checker.discoveries().remove(property) {
            Some(shorter) => path = shorter,
            None => break,
        }
    }
    path.into_actions().iter().fold(String::new(), |mut lines, action| {
        let _ = writeln!(lines, "    {action:?}");
        lines
    })
}

/// Writes to standard output directly, because the test harness hides what a passing test prints.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
