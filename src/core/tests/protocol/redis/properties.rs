//! The steps that are possible in a state, and the properties of every state.
//!
//! In the model, a worker follows the *journal*, the records of changes, and gives Redis the present values of the keys by *jobs*
//! of a few commands. The *set* has the keys that depend on the tag; its *proof* is a member that only the addition which creates
//! the set adds. *Zombies* are commands of a connection that was given up. `mod.rs` has the details.

use super::scenarios::Redis;
use super::state::{Accidents, Change, KEYS, State, Step};
use stateright::{Model, Property};

/// When everything is quiet, each key in Redis has its present valid value, or is absent.
pub const EQUAL: &str = "each key is equal or absent";

/// The names of the properties which say that a key can be in Redis.
const CAN_BE_THERE: [&str; KEYS] = ["a new value of key 0 is in Redis", "a new value of key 1 is in Redis"];

impl Model for Redis {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for change in 0..self.changes.len() as u8 {
            if state.visible >> change & 1 == 0 {
                actions.push(Step::Show(change));
            } else if !state.journal.contains(&change) {
                actions.push(Step::Append(change));
            }
        }
        actions.extend(state.worker_steps(self));
        state.server_steps(self, actions);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Show(change) => state.show(self, change),
            Step::Append(change) => state.journal.push(change),
            Step::Connect => state.connect(self),
            Step::Check => state.check(),
            Step::Compare => state.compare_all(self),
            Step::ReadJournal => state.read_journal(self),
            Step::SendKey => state.send_key(self),
            Step::SendWide => state.send_wide(self),
            Step::SendFound => state.send_found(self),
            Step::SendScan => state.send_scan(),
            Step::SendRefill => state.send_refill(self),
            Step::Handle => state.handle(self),
            Step::Execute => state.execute(self, false),
            Step::ExecuteOther => state.execute_other(self),
            Step::Refuse => state.execute(self, true),
            Step::ExecuteZombie => state.execute_zombie(self),
            Step::Evict => {
                state.server.set = None;
                state.left.evictions -= 1;
            }
            Step::Lose => state.lose(),
            Step::FailOver => state.fail_over(self),
        }
        state.settle();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(EQUAL, |_, state: &State| !state.is_quiet() || state.is_equal()),
            Property::sometimes(
                "everything is quiet after all changes and accidents",
                |model: &Self, state: &State| {
                    let is_over = usize::from(state.tail()) == model.changes.len();
                    is_over && state.left == Accidents::default() && state.is_quiet()
                },
            ),
        ];
        let sets = |key| {
            let sets = |change: &Change| match change {
                Change::Set(of) | Change::SetTagged(of) | Change::Large(of) => *of == key,
                _ => false,
            };
            self.changes.iter().any(sets)
        };
        if sets(0) {
            properties.push(Property::sometimes(CAN_BE_THERE[0], |_, state: &State| state.has_new_value(0)));
        }
        if sets(1) {
            properties.push(Property::sometimes(CAN_BE_THERE[1], |_, state: &State| state.has_new_value(1)));
        }
        properties
    }
}
