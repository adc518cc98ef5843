//! The actors of the protocol, their steps, and the state between two steps. `mod.rs` explains the words.
//!
//! A *flight* is the right to compute the result of a key. Its *slot* in the tier is *marked* if a caller waits for it. A *stamp*
//! is a number of the clock of changes. A flight is *void* once its key was removed: its result is not stored. A *variant* is the
//! protocol with one rule broken. The *leader* is the caller that has the flight. A *fence* is a word in shared memory that says
//! when a dependency of entries last changed.
//!
//! A new step must be offered in `properties.rs`, and take effect in `steps.rs`. A new field of [`State`] needs its first value in
//! `properties.rs` (`init_states`). If it holds a number of the clock, `State::renumber` in `steps.rs` must renumber it, too.

use crate::memory::Fence;

/// The number of keys.
pub const KEYS: usize = 2;

/// One step of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The call begins and looks for a valid result. It must see every change that is visible now. If there is no valid result, it
    /// draws the number of its arrival from the clock of changes, and registers for wake-ups. The model draws in the same step as
    /// it begins: a caller that begins as late as possible must see the most changes.
    Begin,
    /// Under the shard's lock: takes the result if it is valid or its flight began after the arrival, begins the flight, or marks
    /// the present flight as waited for and goes to sleep.
    Look,
    /// Wakes up, and resets the wake-up, before it looks again.
    Rise,
    /// Gives the present flight up, because the timeout has passed.
    GiveUp,
    /// Checks whether its session is among the blockers of its leader. If so, it runs the query without a flight.
    CheckDeadlock,
    /// Calls the cache for the plan's nested key, while it runs its own query.
    Nest,
    /// Takes a snapshot, and plans the query. Finds that the result varies on settings: notes that, and ends the flight of the key
    /// without settings under the shard's lock. Then it looks at the key with its settings.
    Plan,
    /// Goes over to the key with the settings of the session.
    Move,
    /// Runs the query of its flight on a new snapshot, or on that of its plan.
    Run,
    /// Runs the query without a flight.
    RunAlone,
    /// Under the shard's lock: ends the flight with a result, and stores it.
    Land,
    /// The query fails. If the session leads, it ends the flight under the shard's lock.
    Fail,
    /// Under the shard's lock: ends the flight because the result cannot be cached.
    Refuse,
    /// Wakes the callers that wait.
    Wake,
    /// The session is terminated. Its flight ends under the shard's lock.
    Die,
    // Only variants have the following steps.
    /// Draws the number of its arrival.
    Draw,
    /// Marks the present flight as waited for.
    Mark,
    /// Resets the wake-up.
    Reset,
    /// Reads the stamp of the flight from the clock.
    Stamp,
}

/// One step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Raises the fence of the relation.
    Raise,
    /// The commit: the change becomes visible.
    Show,
    /// Draws a number from the clock of changes.
    Draw,
    /// Lowers the fence with the drawn number.
    Lower,
    /// Ends a transaction that aborts after it has raised the fence.
    Withdraw,
}

/// One step of one actor, or an event that no actor chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Caller(usize, Call),
    Writer(usize, Write),
    /// The key is removed: its result goes, and its flight is void.
    Remove,
    /// The space of the keys is flushed: all earlier results are invalid, and all flights are over.
    Flush,
    /// One timeout passes.
    Tick,
}

/// The next step of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Begins,
    Looks,
    /// The call can go on only after a wake-up, after a timeout or to break a deadlock.
    Sleeps,
    /// The call leads the flight of a key without settings, and plans the query.
    Plans,
    /// The call leads a flight and runs the query.
    Runs,
    /// The call leads a flight and has the result.
    Lands,
    /// The flight of the call has ended, and the call wakes the waiters.
    Wakes,
    /// The call has ended the flight of the key without settings. It wakes the waiters, and then looks at the other key.
    WakesThenLooks,
    /// The call runs the query without a flight.
    RunsAlone,
    Done,
    // Only variants have the following phases.
    Draws,
    Marks,
    Resets,
    Stamps,
    WakesFirst,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Got a valid result without waiting.
    Hit,
    /// Waited, and got a valid result.
    WaitedForValid,
    /// Waited, and got a result because its flight began after the call's arrival.
    WaitedForLater,
    /// Led a flight, and ran the query.
    Led,
    /// Ran the query without a flight.
    Alone,
    /// Led a flight, and the query failed.
    Failed,
    /// The session was terminated.
    Died,
    /// Got a result as valid, but the result lacks a change that was visible when the call began.
    StaleHit,
    /// Got a result because of its stamp, but the result lacks a change that was visible when the call began.
    StaleWait,
}

/// The state of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The next step of the call.
    pub phase: Phase,
    /// The key that it asks for.
    pub key: u8,
    /// The changes that were visible when the call began, as bits.
    pub expected: u8,
    /// The number of its arrival. 0 before the arrival is drawn.
    pub arrival: u8,
    /// The timeout count at its arrival.
    pub arrived_at: u8,
    /// The stamp of its flight.
    pub stamp: u8,
    /// The changes in its result, as bits.
    pub value: u8,
    /// Whether a leader has woken the call since the call last reset the wake-up.
    pub woken: bool,
    /// Whether it has looked for a deadlock.
    pub checked: bool,
    /// Whether the call has a snapshot from planning the query. Its stamp is then the stamp of the flight of the key without
    /// settings.
    pub planned: bool,
    /// Whether it has ended a marked flight of the key without settings, and has not looked again yet.
    pub moves_mark: bool,
    /// Whether its nested call has ended.
    pub nested: bool,
    /// The flight that the call has marked last, as the number of the leader plus 1. 0 if the call has marked none.
    pub waits_for: u8,
    /// Whether a flight of its key that began after its arrival has landed with a result while it waited.
    pub has_result: bool,
    /// The number of flights that the call has waited for or led.
    pub flights: u8,
    /// The number of flights without a result that the call has waited for.
    pub fruitless: u8,
    /// None while the call goes on.
    pub outcome: Option<Outcome>,
}

/// A session: the present call, and the call that it is nested in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    /// The present call.
    pub call: Frame,
    /// The call that the present one is nested in.
    pub outer: Option<Frame>,
}

impl Session {
    /// Returns whether all calls of the session have ended.
    pub fn is_done(&self) -> bool {
        self.call.phase == Phase::Done && self.outer.is_none()
    }
}

/// The flight of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    /// The session that leads it. A session leads at most one flight of a key, so this is also the ID of the flight.
    pub leader: u8,
    /// The number on the clock of changes that the flight's result gets.
    pub stamp: u8,
    /// Whether the key was removed since the flight began.
    pub void: bool,
    /// The timeout count when the flight began.
    pub begun_at: u8,
    /// The timeout count when a waiter last gave the flight up.
    pub given_up_at: u8,
    /// The number of times that a waiter has given the flight up.
    pub given_up: u8,
}

/// The slot of a key. It keeps `owed` and `fruitless` after the flight has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The flight of the key, if it has one.
    pub flight: Option<Flight>,
    /// Whether a caller has marked the present flight, because it waits.
    pub waited: bool,
    /// Whether callers that marked an earlier flight may not have looked again yet.
    pub owed: bool,
    /// The fruitless level: the number of flights in a row that have ended without a result, at most 2. At 2, no call waits.
    pub fruitless: u8,
}

/// A stored result. `value` is the set of the changes that it contains, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The stamp of the flight that computed the result.
    pub stamp: u8,
    /// The changes that the result contains, as bits.
    pub value: u8,
    /// Whether it was invalid when it was stored.
    pub born_invalid: bool,
}

/// The progress of a writer, which changes the relation that the query reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// The number of steps that the writer has taken.
    pub at: u8,
    /// Whether the transaction has aborted.
    pub aborted: bool,
    /// The number that the writer has drawn from the clock of changes.
    pub number: u8,
}

/// The state of the model between two steps: the slots and stored results of the tier, and the progress of each actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    pub now: u8,
    /// The fence of the relation that all results depend on.
    pub fence: Fence,
    /// The number of the last flush.
    pub flushed: u8,
    /// The changes, removals and flushes that are visible, as bits.
    pub visible: u8,
    /// The transactions that change the relation.
    pub writers: Vec<Writer>,
    /// Whether it is known that the result varies on settings.
    pub varies: bool,
    /// The slot of each key.
    pub slots: [Slot; KEYS],
    /// The stored result of each key.
    pub entries: [Option<Entry>; KEYS],
    /// The sessions that call.
    pub sessions: Vec<Session>,
    /// The number of timeouts that have passed.
    pub ticks: u8,
    /// The number of removals of the key so far.
    pub removals: u8,
    /// The number of flushes of the space so far.
    pub flushes: u8,
    /// The number of sessions that have died.
    pub deaths: u8,
    // The protocol does not use the following facts. The properties judge them.
    /// The number of runs of the query.
    pub runs: u8,
    /// Whether a flight has ended.
    pub landed: bool,
    /// Whether, after the end of a flight, a call has marked its first flight or begun a flight without waiting. Such a call may
    /// need a run of its own.
    pub late: bool,
    /// Whether a waiter has begun or marked a flight although a result that it could take had landed.
    pub needless: bool,
    /// Whether a deadlock check has found a deadlock.
    pub broke_deadlock: bool,
    /// Whether a session has ended its flight after another flight had replaced it.
    pub replaced: bool,
}
