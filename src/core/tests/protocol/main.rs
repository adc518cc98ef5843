//! The protocols of fences and keys, looked at in every state they can reach.
//!
//! Each room is one protocol: a few actors, each with a program of atomic steps, over a copy of what the shared memory would
//! hold. `stateright` tries every order of those steps. What it proves, it proves of the order of steps, for a few actors and
//! a few fences; that single operations do what a step says is shown in `as_built.rs`, where the same paths are
//! walked with the real tier. Memory is sequentially consistent here. States are known by 64 bits: that among ten million one
//! is taken for another, and not looked at, has a chance of three in a million.
//!
//! ```text
//! memory.rs          a fence as the models see it: the twin of src/core/fence.rs
//! reader.rs          who reads an entry, and judges whether it should have got it
//! read_rule.rs       writers, fills and readers: nobody reads what is stale, or from the future
//! keys.rs            announcing, confirming, leases: what was computed before a change is not served after it; claims: one is first
//! claims.rs          a relation gets a record while a writer is under way that has found none
//! set_and_fence.rs   a transaction changes what its own value depends on
//! two_phase.rs       the change of a prepared transaction
//! names.rs           its name, given to another when it has ended
//! as_built.rs        the models against the code
//! ```
//!
//! # Variants
//!
//! A model takes a variant, and says what is done differently then. [`Verdict::Breaks`] names the property that must fall:
//! these are the controls, a model that cannot fail proves nothing. [`Verdict::Harmless`] stays right: what could be built
//! otherwise, and what looks dangerous but is not. `sometimes` properties keep a model from being right because nothing happens in it.
//! `PG_CACHE_TEST_LONG=1` adds larger configurations.
//!
//! # How to read a counterexample
//!
//! When something fails that should hold, or the other way round, the shortest path to it is printed: one step a line,
//! in the order of time, with the actor's number and, in brackets, the fence's. `PG_CACHE_TEST_PATHS=1` prints the counterexamples of the controls too:
//! they are worth reading, each is the reason for one rule of the design. Actors that do not occur in a path do not
//! matter to it. Read it from its end: what did the last reader get, by which step was that computed, which writer had shown its
//! change before the reader began, and why did no check between them see that?
//!
//! # Where the next protocol joins
//!
//! As a room of its own with a `State`, a `Step` and variants, run by [`check`]; with the fences of `memory.rs` and the reader of
//! `reader.rs`. What only adds actors to a protocol joins its room: patterns are one more thing for the reader to check,
//! waiters take a run of the read rule's fills, rows of the table tier are entries that come back. And what has a
//! counterpart in the code joins `as_built.rs`.

mod as_built;
mod claims;
mod keys;
mod memory;
mod names;
mod read_rule;
mod reader;
mod set_and_fence;
mod two_phase;

use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::io::Write as _;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// What a variant of a protocol has to turn out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The protocol as it is built.
    Right,
    /// Another way to build it.
    Harmless,
    /// A mistake. The property that shows it.
    Breaks(&'static str),
}

/// Whether there is time for the large configurations.
pub fn long() -> bool {
    std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty())
}

/// Looks at every state of a model, says how many they were, and compares with what should come of it.
pub fn check<M>(name: &str, model: M, verdict: Verdict)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    // What should break is done with when it broke; the others are walked to the end.
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
            // What only sometimes holds may not have come yet when the search was broken off.
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

/// The steps of the shortest path to where a property falls. The checker names one that it found at about the same time,
/// so it is asked again for shorter ones.
fn shortest<M>(model: &M, property: &str, mut path: Path<M::State, M::Action>) -> String
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    loop {
        // As many states as this path has are not looked at any more.
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

/// To the output itself: what the test harness would keep to itself while all is well is asked for here.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
