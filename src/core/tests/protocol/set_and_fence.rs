//! A transaction changes a dependency of the value that it sets. Example: it updates `orders`, and then caches the
//! new total with the tag `orders`. `fence/mod.rs` of the core has the rule for the code; `as_built/fences.rs` takes the steps of
//! this model as built with the code's fences.
//!
//! The transaction's own fence would invalidate the value at once. So the value is published *as of the transaction's
//! own commit*, which is right if no other transaction has changed a dependency in between. The rule:
//!
//! 1. The value has a stamp like a fill's: taken before the snapshot that the value is computed on. Under REPEATABLE READ,
//!    it is the safe stamp (`reader.rs`). (A plain set takes the stamp when it is called. If the caller computed the
//!    value earlier, the caller is responsible.) A value that was computed before the transaction's own last change
//!    of one of its dependencies is dropped. It is not enough that the transaction had already changed the dependency
//!    before: it may change it twice.
//! 2. At commit, when the changes are visible, the transaction draws *one* number before it looks at any fence. It
//!    lowers each of its own fences with this number. The same atomic operation returns the previous state of the
//!    fence. The value stays if `pending` was the transaction's own raise alone and `seq` was not beyond the stamp.
//!    The transaction checks each other dependency as a reader would. It must lower every own fence, even if another
//!    check has failed. If one check fails, the value is dropped and the key is removed.
//! 3. A value that passed all checks is published with the drawn number as its stamp.
//!
//! Another correct rule compares `seq` with its value at the time of the set, instead of with the stamp. But then the
//! transaction must keep a number for each fence, and must know all fences before it computes the value.
//!
//! Why it is enough to check the fences one by one: a transaction that raises a fence after we have looked at it
//! draws a number after ours. So the fence passes the value's stamp when it is lowered, and it is pending until then.
//! A transaction that raised the fence before we looked is found, as pending or by its `seq`. This argument fails if
//! each fence gets a number of its own: the stamp must be the last of these numbers, and it would cover a change that
//! was numbered between two of ours.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *stamp* is a number of the clock of
//! changes, which each committed change increments. A *fill* computes an entry and stores it.

use stateright::{Model, Property};

use crate::memory::{Fence, LATEST};
use crate::reader::{Entry, Outcome, Read, Reader, View, program};
use crate::{Verdict, check, long};

/// The number of dependencies, each with a fence.
const FENCES: usize = 3;

/// One atomic step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Takes the stamp of the value.
    Stamp,
    /// Computes the value on a snapshot taken now, after this many of the transaction's own changes. The other
    /// changes follow.
    Compute(u8),
    /// Raises this fence.
    Raise(usize),
    /// The transaction's changes become visible: the commit.
    Show,
    /// Draws the transaction's number.
    Draw,
    /// Lowers this fence with the number, and checks the state that the fence had before.
    Lower(usize),
    /// Checks a dependency that the transaction has not changed.
    Look(usize),
    /// Publishes the value, unless a check has failed.
    Publish,
    /// Aborts. The transaction then withdraws each fence that it has raised.
    Abort,
    Withdraw(usize),
    // Only variants have the following step.
    /// Checks a dependency that the transaction has changed.
    LookAtOwn(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Transaction(usize, Act),
    Reader(Read),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// How many steps of its program it has taken. After an abort, how many fences it has withdrawn.
    at: u8,
    /// How many fences it had raised when it aborted. None if it has not aborted.
    aborted: Option<u8>,
    /// The stamp of its value.
    pub stamp: u8,
    /// The `seq` of each fence at the time of the stamp. Only `SeqAsItWas` uses this.
    seqs: [u8; FENCES],
    /// The changes that its value contains, as bits.
    value: u8,
    /// The number that it has drawn.
    pub number: u8,
    /// Whether a check has failed, so that its value is not published.
    pub dropped: bool,
    /// Whether the value was dropped although no other transaction did anything.
    for_nothing: bool,
    /// Whether its value was published.
    pub published: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    pub now: u8,
    /// The fences.
    pub fences: [Fence; FENCES],
    /// The changes that are visible, as bits.
    visible: u8,
    /// The transactions.
    pub transactions: Vec<Transaction>,
    /// The reader.
    pub reader: Reader,
}

/// The rule as it is built, with one part broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The rule as it is built.
    AsBuilt,
    /// A transaction checks only the `seq` of its own fences.
    SeqOnly,
    /// A transaction checks only the `pending` of its own fences.
    PendingOnly,
    /// A value stays although its transaction has changed a dependency after it computed the value.
    KeptOverOwnChange,
    /// A value stays although its transaction has changed a dependency after it computed the value, if the transaction had also
    /// changed that dependency before.
    KeptIfFenceWasOwn,
    /// A transaction draws a number for each of its fences.
    NumberForEachFence,
    /// Only the last of the own fences decides whether the value stays.
    LastFenceDecides,
    /// A transaction does not check the dependencies that it has not changed.
    OthersNotLookedAt,
    /// A transaction checks these dependencies before it draws its number.
    OthersLookedAtBeforeDraw,
    /// A transaction checks its own fences in steps of their own, before it draws its number.
    OwnLookedAtBeforeDraw,
    /// A transaction publishes its value before its changes are visible.
    PublishedBeforeVisible,
    /// A value is published with the stamp from its computation. Its own transaction has changed it since.
    StampedAsComputed,
    /// A transaction checks its own fences in steps of their own, after it has drawn its number.
    OwnLookedAtAfterDraw,
    /// A transaction compares the `seq` of its own fences with their `seq` at the time of the stamp.
    SeqAsItWas,
}

/// The fences of what a transaction changes, in order; whether it sets a value; whether it may abort.
type Plan = (&'static [usize], bool, bool);

/// The model: the programs of all actors, which follow from a variant.
#[derive(Clone, Debug)]
pub struct SetAndFence {
    /// The rule that is broken, if any.
    variant: Variant,
    /// The plans of the transactions.
    plans: Vec<Plan>,
    /// The program of each transaction that commits.
    commits: Vec<Vec<Act>>,
    /// The dependencies of every value.
    dependencies: &'static [usize],
    /// The programs of the reader: under READ COMMITTED, then under REPEATABLE READ.
    reads: [Vec<Read>; 2],
}

/// The maximum number of changes of one transaction. Each is a bit of a value.
const CHANGES: usize = 2;

/// Returns the bits of the first `changes` changes of a transaction.
fn bits(number: usize, changes: usize) -> u8 {
    ((1 << changes) - 1) << (number * CHANGES)
}

/// Returns the fences of some changes, each once.
fn fences_of(changes: &[usize]) -> Vec<usize> {
    let first = |(place, fence): &(usize, &usize)| !changes[..*place].contains(*fence);
    changes.iter().enumerate().filter(first).map(|(_, fence)| *fence).collect()
}

impl SetAndFence {
    /// Creates the model, with a transaction for each plan. Every value depends on `dependencies`, and the reader checks them in
    /// this order.
    pub fn new(variant: Variant, plans: &[Plan], dependencies: &'static [usize]) -> Self {
        let commits = plans.iter().map(|plan| commit(variant, plan, dependencies)).collect();
        let reads = [false, true].map(|repeatable| program(repeatable, dependencies));
        Self { variant, plans: plans.to_vec(), commits, dependencies, reads }
    }

    /// Two transactions that both set a value and change its dependencies. The first one changes two of them.
    pub fn two_setters(variant: Variant) -> Self {
        Self::new(variant, &[(&[0, 1], true, false), (&[0], true, true)], &[0, 1])
    }

    /// A transaction that sets a value and changes one dependency twice. The value also depends on something that
    /// only the other transaction changes.
    pub fn setter_and_writer(variant: Variant) -> Self {
        Self::new(variant, &[(&[0, 0], true, false), (&[2], false, true)], &[0, 2])
    }

    /// A transaction that sets a value, and one that changes both dependencies of the value.
    pub fn two_fences(variant: Variant) -> Self {
        Self::new(variant, &[(&[0, 1], true, true), (&[1, 0], false, true)], &[0, 1])
    }

    /// Two transactions that set a value and change dependencies, and one that only changes dependencies. Only the long run has
    /// time for this.
    pub fn everybody(variant: Variant) -> Self {
        let plans: &[Plan] = &[(&[0, 1], true, false), (&[1], true, false), (&[0, 2], false, true)];
        Self::new(variant, plans, &[0, 1, 2])
    }

    /// Returns the program of the reader.
    fn reads(&self, reader: &Reader) -> &[Read] {
        &self.reads[usize::from(reader.repeatable)]
    }

    /// Whether the values depend on what a fence stands for.
    pub fn depends_on(&self, fence: usize) -> bool {
        self.dependencies.contains(&fence)
    }

    /// Returns the changes that matter to a value, as bits.
    fn relevant(&self) -> u8 {
        let changes = self.plans.iter().enumerate().flat_map(|(number, (changes, ..))| {
            changes.iter().enumerate().map(move |(place, fence)| (number * CHANGES + place, fence))
        });
        changes.filter(|(_, fence)| self.dependencies.contains(fence)).map(|(bit, _)| 1 << bit).sum()
    }
}

/// Returns the program of a transaction that commits. `actions` offers each choice of how many own changes the value
/// contains.
fn commit(variant: Variant, (changes, sets, _): &Plan, dependencies: &[usize]) -> Vec<Act> {
    use Variant::*;
    let own = fences_of(changes);
    let each = |fences: &[usize], act: fn(usize) -> Act| fences.iter().map(|fence| act(*fence)).collect();
    let others: Vec<_> = dependencies.iter().copied().filter(|fence| !own.contains(fence)).collect();
    let raises: Vec<_> = each(&own, Act::Raise);
    let lowers: Vec<_> = each(&own, Act::Lower);
    if !sets {
        return [raises, vec![Act::Show, Act::Draw], lowers].concat();
    }
    let (looks, own_looks) = (each(&others, Act::Look), each(&own, Act::LookAtOwn));
    let [compute, show] = [vec![Act::Stamp, Act::Compute(0)], vec![Act::Show]];
    let [draw, publish] = [vec![Act::Draw], vec![Act::Publish]];
    match variant {
        NumberForEachFence => {
            let lowers = own.iter().flat_map(|fence| [Act::Draw, Act::Lower(*fence)]).collect();
            [compute, raises, show, lowers, looks, publish].concat()
        }
        OthersNotLookedAt => [compute, raises, show, draw, lowers, publish].concat(),
        OthersLookedAtBeforeDraw => [compute, raises, show, looks, draw, lowers, publish].concat(),
        OwnLookedAtBeforeDraw => [compute, raises, show, own_looks, draw, lowers, looks, publish].concat(),
        OwnLookedAtAfterDraw => [compute, raises, show, draw, own_looks, lowers, looks, publish].concat(),
        PublishedBeforeVisible => [compute, raises, draw, lowers, looks, publish, show].concat(),
        _ => [compute, raises, show, draw, lowers, looks, publish].concat(),
    }
}

impl State {
    /// Takes a step of a transaction.
    fn act(&mut self, model: &SetAndFence, number: usize, act: Act) {
        let (changes, ..) = model.plans[number];
        let disturbed = self.is_disturbed(model, number);
        let transaction = &mut self.transactions[number];
        transaction.at += 1;
        let alone = |found: Fence, stamp: u8| match model.variant {
            Variant::SeqOnly => found.seq <= stamp,
            Variant::PendingOnly => found.pending == 1,
            _ => found.was_alone(stamp),
        };
        let judge = |transaction: &mut Transaction, fine: bool| {
            if !fine && !transaction.dropped {
                transaction.dropped = true;
                transaction.for_nothing = !disturbed;
            }
        };
        match act {
            Act::Stamp => {
                transaction.stamp = self.now;
                if model.variant == Variant::SeqAsItWas {
                    transaction.seqs = self.fences.map(|fence| fence.seq);
                }
            }
            Act::Compute(own) => {
                transaction.value = self.visible | bits(number, usize::from(own));
                let (before, after) = changes.split_at(usize::from(own));
                transaction.dropped = match model.variant {
                    Variant::KeptOverOwnChange => false,
                    Variant::KeptIfFenceWasOwn => !after.iter().all(|fence| before.contains(fence)),
                    _ => after.iter().any(|fence| model.dependencies.contains(fence)),
                };
            }
            Act::Raise(fence) => self.fences[fence].raise(),
            Act::Show => self.visible |= bits(number, changes.len()),
            Act::Draw => {
                self.now += 1;
                transaction.number = self.now;
            }
            Act::Lower(fence) => {
                let found = self.fences[fence].lower(transaction.number);
                let fine = match model.variant {
                    Variant::OwnLookedAtBeforeDraw | Variant::OwnLookedAtAfterDraw => true,
                    // In this variant, only the last fence is checked.
                    Variant::LastFenceDecides => {
                        fence != *fences_of(changes).last().unwrap_or(&0) || alone(found, transaction.stamp)
                    }
                    Variant::SeqAsItWas => found.pending == 1 && found.seq == transaction.seqs[fence],
                    _ => alone(found, transaction.stamp),
                };
                if model.depends_on(fence) {
                    judge(transaction, fine);
                }
            }
            Act::Look(fence) => {
                let fine = self.fences[fence].holds(transaction.stamp, LATEST);
                judge(transaction, fine);
            }
            Act::LookAtOwn(fence) => {
                let fine = alone(self.fences[fence], transaction.stamp);
                judge(transaction, fine);
            }
            Act::Publish => transaction.published = !transaction.dropped,
            Act::Abort => {
                transaction.aborted =
                    Some(raised(&model.commits[number][..usize::from(transaction.at) - 1]) as u8);
                transaction.at = 0;
            }
            Act::Withdraw(fence) => self.fences[fence].withdraw(),
        }
    }

    /// Returns whether another transaction has changed anything or is about to: it has raised fences,
    /// and has not withdrawn all of them.
    fn is_disturbed(&self, model: &SetAndFence, number: usize) -> bool {
        self.transactions.iter().enumerate().any(|(other, transaction)| {
            other != number
                && transaction.aborted.is_none()
                && raised(&model.commits[other][..usize::from(transaction.at)]) > 0
                || other != number && transaction.aborted.is_some_and(|raised| transaction.at < raised)
        })
    }

    /// Takes a step of the reader, which judges the changes that matter to a value.
    fn read(&mut self, model: &SetAndFence, step: Read) {
        let view = View {
            now: self.now,
            fences: &self.fences,
            visible: self.visible,
            relevant: model.relevant(),
            rows: !0,
            aborted: self.transactions.iter().any(|other| other.aborted == Some(other.at)),
            // Needless misses are no subject of this model; `for_nothing` notes values that are dropped needlessly.
            disturbed: true,
        };
        let reader = &mut self.reader;
        let entry = reader.found.map(|found| &self.transactions[usize::from(found)]);
        let stamp = |setter: &Transaction| match model.variant {
            Variant::StampedAsComputed => setter.stamp,
            _ => setter.number,
        };
        let entry = entry.map(|setter| Entry { stamp: stamp(setter), value: setter.value });
        reader.step(step, model.reads(reader), &view, entry.unwrap_or_default());
    }
}

/// Returns how many fences these steps raise.
fn raised(acts: &[Act]) -> usize {
    acts.iter().filter(|act| matches!(act, Act::Raise(_))).count()
}

impl Model for SetAndFence {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let start = |repeatable| State {
            now: 0,
            fences: Default::default(),
            visible: 0,
            transactions: vec![Transaction::default(); self.plans.len()],
            reader: Reader::new(repeatable),
        };
        vec![start(false), start(true)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        for (number, transaction) in state.transactions.iter().enumerate() {
            let ((changes, _, may_abort), commit) = (self.plans[number], &self.commits[number]);
            let at = usize::from(transaction.at);
            let mut act = |act| actions.push(Step::Transaction(number, act));
            match transaction.aborted {
                Some(raised) if transaction.at < raised => act(Act::Withdraw(fences_of(changes)[at])),
                Some(_) => continue,
                None => {
                    match commit.get(at) {
                        Some(Act::Compute(_)) => {
                            (0..=changes.len()).for_each(|own| act(Act::Compute(own as u8)))
                        }
                        Some(next) => act(*next),
                        None => {}
                    }
                    let decided = commit[..at]
                        .iter()
                        .any(|act| matches!(act, Act::Show | Act::Draw | Act::LookAtOwn(_)));
                    if may_abort && !decided && raised(&commit[..at]) > 0 {
                        act(Act::Abort);
                    }
                }
            }
        }
        let entries = (0..self.plans.len()).filter(|number| state.transactions[*number].published);
        let next = state.reader.next(self.reads(&state.reader), entries);
        actions.extend(next.into_iter().map(Step::Reader));
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Transaction(number, act) => state.act(self, number, act),
            Step::Reader(step) => state.read(self, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOT_STALE, |_, state: &State| state.reader.outcome != Some(Outcome::Stale)),
            Property::always(NOT_FUTURE, |_, state: &State| state.reader.outcome != Some(Outcome::Future)),
            Property::always("no value is dropped for nothing", |_, state: &State| {
                !state.transactions.iter().any(|transaction| transaction.for_nothing)
            }),
            Property::sometimes(HIT, |_, state: &State| state.reader.hit(|reader| !reader.repeatable)),
            Property::sometimes("a REPEATABLE READ hit", |_, state: &State| {
                state.reader.hit(|reader| reader.repeatable)
            }),
            Property::sometimes("a hit behind an abort", |_, state: &State| {
                state.reader.hit(|reader| reader.after_abort)
            }),
            Property::sometimes("a value is dropped for what somebody else did", |model, state: &State| {
                let over =
                    |number: usize, one: &Transaction| model.commits[number].len() == usize::from(one.at);
                let full = |number: usize, one: &Transaction| {
                    let all = bits(number, model.plans[number].0.len());
                    one.value & all == all && one.dropped
                };
                state
                    .transactions
                    .iter()
                    .enumerate()
                    .any(|(number, one)| over(number, one) && full(number, one))
            }),
        ]
    }
}

/// See [`Outcome`] for the first two.
const NOT_STALE: &str = "no stale read";
const NOT_FUTURE: &str = "no read from the future";
const HIT: &str = "a READ COMMITTED hit";

/// The rule as built must keep all properties in each scenario. Each other variant must break the property that is named, or be
/// harmless.
#[test]
fn set_and_fence() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> SetAndFence, variant, verdict| {
        check(&format!("set and fence, {name}: {variant:?}"), make(variant), verdict);
    };
    let setters = |variant, verdict| run("two setters", SetAndFence::two_setters, variant, verdict);
    let writer = |variant, verdict| run("a writer", SetAndFence::setter_and_writer, variant, verdict);
    let fences = |variant, verdict| run("two fences", SetAndFence::two_fences, variant, verdict);
    setters(AsBuilt, Right);
    writer(AsBuilt, Right);
    fences(AsBuilt, Right);
    if long() {
        run("everybody", SetAndFence::everybody, AsBuilt, Right);
    }
    setters(SeqOnly, Breaks(NOT_STALE));
    setters(PendingOnly, Breaks(NOT_STALE));
    writer(KeptOverOwnChange, Breaks(NOT_STALE));
    writer(KeptIfFenceWasOwn, Breaks(NOT_STALE));
    setters(NumberForEachFence, Breaks(NOT_STALE));
    setters(LastFenceDecides, Breaks(NOT_STALE));
    writer(OthersNotLookedAt, Breaks(NOT_STALE));
    writer(OthersLookedAtBeforeDraw, Breaks(NOT_STALE));
    setters(OwnLookedAtBeforeDraw, Breaks(NOT_STALE));
    fences(PublishedBeforeVisible, Breaks(NOT_FUTURE));
    writer(StampedAsComputed, Breaks(HIT));
    setters(OwnLookedAtAfterDraw, Harmless);
    // This is stricter, but the transaction must remember a number for each fence and know all fences beforehand.
    setters(SeqAsItWas, Harmless);
}
