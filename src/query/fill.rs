//! Computes the result of a query that was not found, or waits for the session that computes it.
//!
//! A result that other callers may get is stored at once, not with the commit, because its query has read committed data only
//! (`run.rs`). If the transaction itself has changed a dependency, the session runs the query for itself and stores nothing. The
//! [`Job`] says how the query runs and how its result is stored. If several sessions miss the same result at once, one of them
//! computes it (`flight.rs`). The [`Ticket`] is the right to store a result: it holds a *fill*, the record in shared memory of
//! which session computes the value of a key (`store/flights.rs`). To *renew* a result is to run its query again while the result
//! can still be used (`freshness.rs`). A *stamp* is the moment before a result was computed, a number on the clock of changes
//! (`flight.rs`).

use super::flight::{self, Waiting};
use super::freshness::Look;
use super::job::{Found, Job, Rules, Wanted};
use super::run::{Run, run};
use super::ticket::{Asked, Ticket};
use super::verify;
use crate::pg::observer;
use crate::store::flights::IfBusy;
use crate::store::keyspace;
use crate::store::space::Space;
use crate::store::status::{self, IN_FLIGHT, Status};
use pg_cache_core::Stamp;

/// The status if a caller has chosen a key in the form of the keys of query results.
const RESERVED: Status = Status::Refused("the key belongs to the result of a query");

/// Computes the result of a query, or waits for the session that computes it, and returns the result.
///
/// Unless `refresh` is set, the caller must have looked for a result before. `old` is the stamp of the result that the call renews;
/// None if the caller found no result. If this call runs the query and cannot store the result, the status says why. If it stores
/// the result, the status stays the reason of the miss; with `refresh` and after a renewal, the status is `Done`.
pub fn fill<J: Job>(space: &Space, wanted: &Wanted<'_>, old: Option<Stamp>, job: &mut J) -> J::Result {
    let missed = status::current().filter(|_| !wanted.refresh && old.is_none());
    // This call may run inside the query of another fill. The outer result then depends on what the cache returns here, and such a
    // dependency is not tracked.
    observer::note_cache();
    let mut waiting = Waiting::begin();
    let mut renewed = old;
    let why_not = loop {
        let if_busy = match wanted.refresh {
            true => IfBusy::TakeOver,
            false if renewed.is_none() && flight::may_wait() => IfBusy::Wait(waiting.arrived()),
            false => IfBusy::GiveWay,
        };
        // Sessions that miss the result of a query wait for its fill. A caller that chooses the key of such a result must never
        // make these sessions wait.
        let is_reserved = J::Rules::KEY_IS_CHOSEN && keyspace::is_of_query(job.rules().key());
        let asked = match is_reserved {
            true => Err(RESERVED),
            false if !wanted.refresh && job.rules().is_suspended(space) => Err(verify::FAILED),
            false => Ticket::ask(space, job.rules().key(), if_busy),
        };
        match asked {
            Ok(Asked::Ticket(ticket)) => match stored_meanwhile(space, wanted, renewed, &waiting, job) {
                Found::Result(result) => {
                    ticket.give_back(0);
                    return result;
                }
                // The look has found the marker of a query that reads settings: the result lies under the key with all settings
                // (`search.rs`), so this call needs the ticket of that key.
                Found::Nothing if ticket.key() != job.rules().key() => ticket.give_back(0),
                // The look has found the marker of a wrong stored result, so this call must store nothing.
                _ if !wanted.refresh && job.rules().is_suspended(space) => ticket.give_back(0),
                _ => {
                    drop(waiting);
                    if wanted.refresh {
                        ticket.resume(job.rules());
                    }
                    let (result, stored) = ticket.run(space, wanted, job);
                    status::set(stored.err().or(missed).unwrap_or(Status::Done));
                    return result;
                }
            },
            // The renewal is not possible now. The call looks again, and may still use the old result.
            Ok(Asked::Busy(..)) | Err(_) if renewed.is_some() => {}
            Ok(Asked::Busy(keyspace, leader, Some(arrived)))
                if waiting.goes_on(&keyspace, job.rules().key(), leader, arrived) => {}
            Ok(Asked::Busy(..)) => break IN_FLIGHT,
            Err(status) => break status,
        }
        renewed = None;
        let look = wanted.look_again(waiting.mark());
        if let Found::Result(result) = verify::find(space, wanted, &look, verify::is_drawn(), job) {
            // An outdated result keeps its status, so that the caller can tell it from a result that was computed after the call
            // began.
            if look.arrived.is_some() && status::current() != Some(Status::Stale) {
                status::set(Status::Waited);
            }
            return result;
        }
    };
    drop(waiting);
    let Run { result, cost, .. } = run(job, &mut |_| {});
    space.keyspace().into_iter().for_each(|keyspace| keyspace.count_fill(cost, false));
    status::set(why_not);
    result
}

/// Looks for a result that another session has stored after this call looked last and before it got the ticket. `old` is the stamp
/// of the result that this call renews.
fn stored_meanwhile<J: Job>(
    space: &Space,
    wanted: &Wanted<'_>,
    old: Option<Stamp>,
    waiting: &Waiting,
    job: &mut J,
) -> Found<J::Result> {
    if wanted.refresh {
        return Found::Nothing;
    }
    let look = Look { old, ..wanted.look_again(waiting.mark()) };
    verify::find(space, wanted, &look, verify::is_drawn(), job)
}
