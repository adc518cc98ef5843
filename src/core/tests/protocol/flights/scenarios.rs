//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.
//!
//! `mod.rs` explains the protocol and its words: flight, leader, stamp, arrival, slot, mark, land, owe and fruitless. A flight is
//! *void* once its key was removed: its result is not stored. The test in `mod.rs` says which property each variant must break. A
//! new variant needs a line there, and a branch in `steps.rs`, or in `properties.rs`, that breaks the rule.
//!
//! A scenario is a function that returns [`Flights`]. Its fields also decide which properties must hold (`properties.rs`). The
//! numbers of events, such as removals and deaths, are limits: the model also visits the states in which fewer of them happen.

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    // The numbers of arrivals and the stamps of flights.
    /// A caller reads the clock when it arrives, and does not increment it.
    ArrivalIsRead,
    /// A caller draws the number of its arrival after it has found and marked the flight.
    DrawsAfterLook,
    /// A caller draws a new number of its arrival whenever it looks.
    DrawsEachTime,
    /// A leader reads the stamp of its flight after it has run the query.
    StampAfterRun,
    /// A waiter takes the result of the flight that it has waited for, without comparing its stamp.
    TakesAny,
    // The storing of invalid results.
    /// A result that is invalid when it lands is not stored, although a caller waits for it.
    InvalidNotStored,
    /// A result that is invalid when it lands gets a new stamp.
    StoredWithNewStamp,
    /// Every caller gets a result that was stored for waiters, as a hit.
    InvalidIsAHit,
    /// A caller that finds an invalid result when it begins removes it.
    RemovesInvalid,
    /// A flight that lands with an invalid result and does not store it removes the stored result.
    UnstoredRemoves,
    // The marks of slots.
    /// A mark ends with its flight: the next flight owes nothing.
    MarkEndsWithFlight,
    /// A flight owes its result to earlier waiters only if its leader is one of them.
    OnlyWaitersInherit,
    /// The mark of a flight that lands with a valid result ends with it.
    ValidForgetsMark,
    /// A flight without a result does not pass on that it owes its result.
    FruitlessForgetsMark,
    /// A flight begins without the mark of the flight that it replaces.
    ReplacedForgetsMark,
    /// A slot that has been marked stays marked.
    MarkLasts,
    /// A caller marks the flight in a later step than it looks.
    MarksAfterLook,
    /// A caller marks the flight in an earlier step than it looks, and then sleeps even if the flight is not the marked one.
    MarksBeforeLook,
    /// A caller marks the flight in an earlier step than it looks, and looks again if the flight that it finds has no mark.
    MarksBeforeLookTwice,
    /// A caller resets the wake-up after it has looked.
    ResetsAfterLook,
    /// A leader wakes the waiters before it ends its flight.
    WakesFirst,
    /// There are no marks. Each invalid result is stored, and each leader wakes.
    NoMarks,
    // Flights without a result.
    /// A flight begins with the fruitless level 0. It does not inherit the level that the last flight of the key has left.
    LevelNotInherited,
    /// A refused result counts like an error: it adds 1 to the fruitless level. As built, it sets the level to 2.
    RefusedIsAnError,
    /// A void flight does not change the fruitless level. As built, it counts like an error.
    VoidIsNotCounted,
    /// Callers also wait at the fruitless level 2. As built, they then run the query without a flight.
    LevelIsIgnored,
    // Sessions that end.
    /// A session that dies keeps its flight.
    DeathKeepsSlot,
    /// The death of a session ends its flight and does not wake the waiters.
    DeathDoesNotWake,
    /// A session may die after it has ended its flight, before it wakes the waiters.
    DiesBeforeWake,
    /// A death forgets the mark of the slot.
    DeathForgetsMark,
    // Deadlocks.
    /// A waiter does not look for deadlocks.
    NoDeadlockCheck,
    /// A waiter looks for a deadlock only once in its call, at any moment while it sleeps. As built, it looks again and again.
    ChecksOnce,
    /// A waiter's check for deadlocks follows only locks, and not flights.
    ChecksLocksOnly,
    /// A session that leads a flight waits for another flight.
    LeaderWaits,
    /// A session waits for its own flight.
    WaitsForItself,
    // Results that vary on settings.
    /// The flight of the key with settings gets a new stamp, and the query runs on the snapshot on which it was planned.
    MovesWithNewStamp,
    /// The flight of the key with settings gets a new stamp, and the query runs on a new snapshot.
    MovesWithNewSnapshot,
    /// The mark of the key without settings ends with its flight.
    MovesWithoutMark,
    /// The mark of the key without settings counts like that of an earlier flight of the key with settings.
    MovedMarkIsOwed,
    // Timeouts.
    /// A waiter gives the flight up after its own timeout, even if another waiter has given it up lately.
    GivesUpByItself,
}

/// The fate of the query of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    Works,
    /// Each run fails.
    Fails,
    /// Each run may fail.
    MayFail,
    /// Each run ends with a result that cannot be cached.
    IsRefused,
}

/// The plan of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub key: u8,
    /// The key with the settings of the session, if the result varies on them.
    pub full: Option<u8>,
    /// The key of a call inside of the query.
    pub nested: Option<u8>,
    /// A lock that the session holds until it is done.
    pub holds: Option<u8>,
    /// A lock that the query needs.
    pub needs: Option<u8>,
}

const PLAIN: Plan = Plan { key: 0, full: None, nested: None, holds: None, needs: None };

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Flights {
    /// The rule that is broken, if any.
    pub variant: Variant,
    /// The plan of each session's call.
    pub plans: &'static [Plan],
    /// The number of writers.
    pub writers: usize,
    /// Whether a writer may abort.
    pub aborts: bool,
    /// The query of all calls.
    pub query: Query,
    /// The most removals of the key.
    pub removals: u8,
    /// The most flushes of the space.
    pub flushes: u8,
    /// The most deaths of sessions.
    pub deaths: u8,
    /// The most timeouts that pass.
    pub ticks: u8,
    /// Whether waiters look for deadlocks.
    pub checks: bool,
}

impl Flights {
    fn of(variant: Variant, plans: &'static [Plan]) -> Self {
        Self {
            variant,
            plans,
            writers: 0,
            aborts: false,
            query: Query::Works,
            removals: 0,
            flushes: 0,
            deaths: 0,
            ticks: 0,
            checks: false,
        }
    }

    /// Four callers, and nothing that interferes.
    pub fn calm(variant: Variant) -> Self {
        Self::of(variant, &[PLAIN; 4])
    }

    /// Three callers and a writer, which may abort.
    pub fn writer(variant: Variant) -> Self {
        Self { writers: 1, aborts: true, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Three callers and two writers.
    pub fn two_writers(variant: Variant) -> Self {
        Self { writers: 2, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Four callers and a writer.
    pub fn four_callers(variant: Variant) -> Self {
        Self { writers: 1, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Four callers of a query that always fails.
    pub fn fails(variant: Variant) -> Self {
        Self { query: Query::Fails, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Five callers of a query that always fails. Only the long run has time for this.
    pub fn five_fail(variant: Variant) -> Self {
        Self { query: Query::Fails, ..Self::of(variant, &[PLAIN; 5]) }
    }

    /// Three callers of a query that may fail, and a writer.
    pub fn may_fail(variant: Variant) -> Self {
        Self { query: Query::MayFail, writers: 1, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Four callers of a query that may fail, and a writer. Only the long run has time for this.
    pub fn four_may_fail(variant: Variant) -> Self {
        Self { query: Query::MayFail, writers: 1, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Four callers of a query whose result is refused.
    pub fn refused(variant: Variant) -> Self {
        Self { query: Query::IsRefused, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Three callers of a key that is removed at most twice.
    pub fn removals(variant: Variant) -> Self {
        Self { removals: 2, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Four callers of a key that is removed at most three times. Only the long run has time to visit all states.
    pub fn three_removals(variant: Variant) -> Self {
        Self { removals: 3, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Three callers and at most one flush, which lets another flight replace the present one.
    pub fn flush(variant: Variant) -> Self {
        Self { flushes: 1, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Four callers, of which one may die.
    pub fn death(variant: Variant) -> Self {
        Self { deaths: 1, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Three callers, of which one may die, and a writer.
    pub fn death_and_writer(variant: Variant) -> Self {
        Self { deaths: 1, writers: 1, ..Self::of(variant, &[PLAIN; 3]) }
    }

    /// Four callers, and at most three timeouts.
    pub fn timeouts(variant: Variant) -> Self {
        Self { ticks: 3, ..Self::of(variant, &[PLAIN; 4]) }
    }

    /// Three callers. The query needs a lock that the second one holds.
    pub fn lock(variant: Variant) -> Self {
        const NEEDS: Plan = Plan { needs: Some(0), ..PLAIN };
        Self { checks: true, ..Self::of(variant, &[NEEDS, Plan { holds: Some(0), ..NEEDS }, NEEDS]) }
    }

    /// Two keys. The query of each needs a lock that a caller of the other key holds.
    pub fn two_locks(variant: Variant) -> Self {
        const FIRST: Plan = Plan { key: 0, needs: Some(0), ..PLAIN };
        const OTHER: Plan = Plan { key: 1, needs: Some(1), ..PLAIN };
        const PLANS: [Plan; 4] =
            [FIRST, Plan { holds: Some(1), ..FIRST }, OTHER, Plan { holds: Some(0), ..OTHER }];
        Self { checks: true, ..Self::of(variant, &PLANS) }
    }

    /// Two sessions whose queries call each other's key, and another caller of the first key.
    pub fn nested(variant: Variant) -> Self {
        const PLANS: [Plan; 3] =
            [Plan { nested: Some(1), ..PLAIN }, Plan { key: 1, nested: Some(0), ..PLAIN }, PLAIN];
        Self::of(variant, &PLANS)
    }

    /// A session whose query calls its own key, and two other callers.
    pub fn recursive(variant: Variant) -> Self {
        Self::of(variant, &[Plan { nested: Some(0), ..PLAIN }, PLAIN, PLAIN])
    }

    /// Three callers with the same settings, of a query whose result varies on them, and a writer.
    pub fn varies(variant: Variant) -> Self {
        Self { writers: 1, ..Self::of(variant, &[Plan { full: Some(1), ..PLAIN }; 3]) }
    }

    pub fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }
}
