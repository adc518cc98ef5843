//! Compares four models with the code: `read_rule.rs`, `set_and_fence.rs`, `keys/`, and `table/` for one key in one
//! segment. The models are as built and have few actors. The rows of `table/` are vectors of the test. The test takes
//! every step that such a model can take with the real tier, too. Both must give the same answers and end in the same
//! state.
//!
//! `walk.rs` reaches each state on one path, and tries each step from that state after the same path on a new tier. So
//! the results of these modules about the order of steps also hold for the operations of the real tier. A step that
//! only the model has, such as a commit becoming visible, does nothing with the tier. `fences.rs`, `keys.rs` and
//! `table.rs` take the steps of the models, and `tier.rs` makes the tiers. A new step of a model needs an arm there. The
//! steps of variants, which are models with one rule broken, do not occur here and need none.
//!
//! A *tier* is a cache in memory that several processes share.

mod fences;
mod keys;
mod table;
mod tier;
mod walk;
