//! The walk through the states of a model: reaches each state on one path, and tries each step from that state. If steps lead back
//! to the initial state, it is reached once more. A *path* is a list of steps, each with the state after it. A *tier* is a cache in
//! memory that several processes share.

use std::collections::HashSet;
use std::hash::Hash;

use stateright::Model;

use crate::say;

/// Takes every step from every state of a model. For each step, calls `replay` with the initial state and the path that
/// ends with the step. `replay` must take the path on a new tier, and panic if the tier and the model differ.
pub fn walk<M>(name: &str, model: &M, replay: impl Fn(&M::State, &[(M::Action, M::State)]))
where
    M: Model,
    M::State: Clone + Eq + Hash,
    M::Action: Clone,
{
    let actions = |state: &M::State| {
        let mut actions = vec![];
        model.actions(state, &mut actions);
        actions
    };
    let (mut seen, mut steps) = (HashSet::new(), 0);
    for start in model.init_states() {
        let mut path: Vec<(M::Action, M::State)> = vec![];
        let mut ahead = vec![actions(&start)];
        while let Some(left) = ahead.last_mut() {
            let Some(action) = left.pop() else {
                ahead.pop();
                path.pop();
                continue;
            };
            let here = path.last().map_or(&start, |(_, state)| state);
            let Some(next) = model.next_state(here, action.clone()) else { continue };
            path.push((action, next.clone()));
            replay(&start, &path);
            steps += 1;
            if seen.insert(next.clone()) {
                ahead.push(actions(&next));
            } else {
                path.pop();
            }
        }
    }
    assert!(steps > seen.len(), "{name}: no step led to a state that was seen before");
    say(&format!("  as built, {name:<46} {:>9} states {steps:>9} steps", seen.len()));
}
