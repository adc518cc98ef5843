//! One key of a real tier and the rows of one segment, beside those of the model `table/`, whose `mod.rs` explains the writer, the
//! saver, the readers and the deciders. A *path* is a list of steps, each with the model's state after it. A *variant* is a model
//! with one rule broken; these tests take the model as built. A *segment* is one of the tables that the saver fills.
//!
//! The *saver* copies entries to rows; a *location* says in which row the copy of a value is; the *directory* of the tier has the
//! locations.

use pg_cache_core::testing::{TestHost, memory, owner};
use pg_cache_core::{Batch, Location, Meta, Miss, Reservation, Stamp, Stored, Unclaimed};

use super::tier::{TestTier, format, reserve, with_key};
use super::walk::walk;
use crate::table::{self, Table};

/// The size of a region with a directory. Such a region also has the records of all segments, which take 32 KB.
const REGION_BYTES: usize = 64 * 1024;

/// One key in a real tier with a directory, and the rows of one segment.
struct TableTwin<'t> {
    tier: TestTier<'t>,
    /// The announced change of the writer.
    announced: Option<Reservation>,
    /// The entry that the saver has marked last.
    batch: Batch,
    /// The bytes and the properties of the value that the saver has copied.
    copy: Option<(Vec<u8>, Meta)>,
    /// The rows of the segment. The position of a row in the tier is its index plus 1.
    rows: Vec<(Vec<u8>, Meta)>,
}

/// Returns the tick at which a version of a value expires. So the version is a property of the value. The tick is later than all
/// ticks of the test, so no value expires.
fn expiry(version: u8) -> u32 {
    1000 + u32::from(version)
}

/// Converts a location of the model. A position of the tier must not be 0.
fn place(location: table::Location) -> Location {
    Location::new(location.segment as u16, location.position as u64 + 1).expect("it is a legal location")
}

impl TableTwin<'_> {
    fn location(&self) -> Option<Location> {
        with_key(&self.tier, |key| self.tier.location(key))
    }

    /// Reserves the version that the next change makes.
    fn reserve_next(&self, before: &table::State) -> Reservation {
        let version = before.visible[0] + 1;
        reserve(&self.tier, &[version], expiry(version))
    }

    /// Takes a step of the writer.
    fn write(&mut self, step: table::Write, change: table::Change, before: &table::State) {
        match step {
            table::Write::Announce => {
                let reservation = match change.removes() {
                    true => {
                        with_key(&self.tier, |key| self.tier.reserve_removal(key)).expect("there is room")
                    }
                    false => self.reserve_next(before),
                };
                with_key(&self.tier, |key| self.tier.announce(key, &reservation));
                self.announced = Some(reservation);
            }
            table::Write::Show => {}
            table::Write::Confirm => {
                let reservation = self.announced.take().expect("it is announced");
                with_key(&self.tier, |key| self.tier.confirm(key, reservation));
            }
            table::Write::Withdraw => {
                let reservation = self.announced.take().expect("it is announced");
                with_key(&self.tier, |key| self.tier.withdraw(key, reservation));
            }
            table::Write::AtOnce if change.removes() => {
                with_key(&self.tier, |key| self.tier.remove(key));
            }
            table::Write::AtOnce => {
                let reservation = self.reserve_next(before);
                assert_ne!(with_key(&self.tier, |key| self.tier.publish(key, reservation)), Stored::Dropped);
            }
            table::Write::Touch => {
                let touched = with_key(&self.tier, |key| self.tier.touch(key, expiry(before.visible[0] + 1)));
                assert_eq!(touched, before.entries[0].is_some());
            }
            table::Write::Forget => unreachable!("{step:?} is of a variant"),
        }
    }

    /// Takes a step of the saver, and compares its answer with the model's next state.
    fn save(&mut self, step: table::Save, before: &table::State, after: &table::State) {
        match step {
            table::Save::Mark(_) => {
                self.batch = Batch::with_room(2).expect("there is memory");
                self.tier.mark_oldest(0, 1, true, |_| true, &mut self.batch);
                assert_eq!(self.batch.marked().len(), 1);
            }
            table::Save::Copy => {
                let marked = &self.batch.marked()[0];
                let mut value = vec![0; marked.meta().value_len];
                self.tier.read_marked(marked, &mut vec![0; marked.key_len()], &mut [], &mut [], &mut value);
                self.copy = Some((value, marked.meta()));
            }
            table::Save::Append(_) => self.rows.push(self.copy.take().expect("it was copied")),
            table::Save::Locate => {
                let location = Location::new(0, self.rows.len() as u64).expect("it is a legal location");
                let located = self.tier.locate(&self.batch.marked()[0], location, true);
                assert_eq!(located, before.entries[0].is_some() && after.entries[0].is_none());
            }
            table::Save::Empty(segment) => {
                self.tier.forget_segment(segment as u16);
            }
            table::Save::Truncate => {
                if after.segments[0].rows.is_empty() {
                    self.rows.clear();
                }
            }
            table::Save::GiveUp => self.copy = None,
            other => unreachable!("{other:?} needs two segments"),
        }
    }

    /// Takes a step of a reader or a decider, and compares its answer with the model's next state.
    fn read(
        &mut self,
        model: &Table,
        number: usize,
        step: table::Read,
        before: &table::State,
        after: &table::State,
    ) {
        let (was, reader) = (&before.readers[number], &after.readers[number]);
        match step {
            table::Read::Locate => assert_eq!(self.location(), reader.location.map(place)),
            table::Read::LookAgain => {
                let stands = self.location() == was.location.map(place);
                assert_eq!(stands, reader.locked, "{reader:?}");
            }
            table::Read::Promote => {
                let at = was.location.expect("it has one");
                let (bytes, meta) = self.rows[at.position].clone();
                let reservation = reserve(&self.tier, &bytes, meta.expires);
                let stored =
                    with_key(&self.tier, |key| self.tier.promote(key, reservation, place(at), meta.created));
                let promoted = before.entries[0].is_none() && after.entries[0].is_some();
                assert_eq!(stored == Stored::New, promoted);
            }
            // A row that is of another file or of another key costs its location: then the model's next state has none.
            table::Read::Row if self.location() == after.location(model, 0).map(place) => {}
            table::Read::Row | table::Read::Forget => {
                let at = was.location.expect("it has one");
                with_key(&self.tier, |key| self.tier.forget_location(key, place(at)));
            }
            table::Read::Decide => {
                match with_key(&self.tier, |key| {
                    self.tier.claim(key, Some(Stamp::LATEST.into()), owner(number as u32))
                }) {
                    Ok(claim) => {
                        assert_eq!(reader.outcome, Some(table::Outcome::First));
                        let reservation = self.reserve_next(before);
                        with_key(&self.tier, |key| self.tier.publish_leased(key, reservation, claim));
                    }
                    Err(Unclaimed::Present) => assert_eq!(reader.outcome, Some(table::Outcome::Present)),
                    Err(Unclaimed::Saved(at)) => assert_eq!(Some(at), reader.location.map(place)),
                    Err(other) => panic!("it is told {other:?}"),
                }
            }
            // The other steps do nothing with the tier: `compare` looks in the memory, and the rows are the test's.
            _ => {}
        }
    }

    /// Asserts that the tier is in the model's state.
    fn compare(&self, model: &Table, state: &table::State) {
        let location = state.location(model, 0);
        assert_eq!(self.location(), location.map(place));
        let mut bytes = vec![];
        let found = with_key(&self.tier, |key| self.tier.get(key, Stamp::LATEST, &mut bytes));
        let found = found.map(|meta| (bytes, meta.expires));
        let as_modelled = |value: table::Value| (vec![value.bytes.1], expiry(value.version));
        let expected = match (state.in_memory(0), location) {
            _ if state.announced[0].is_some() => Err(Miss::Fenced),
            (Some(value), _) => Ok(as_modelled(value)),
            (None, Some(at)) => Err(Miss::Saved(place(at))),
            (None, None) => Err(Miss::Absent),
        };
        assert_eq!(found, expected);
        if let Some(at) = location {
            let (bytes, meta) = &self.rows[at.position];
            assert_eq!((bytes.clone(), meta.expires), as_modelled(state.segments[0].rows[at.position]));
        }
    }
}

/// Takes a path of the table protocol with a new tier, in which the key has version 0. Panics if an answer or the last state
/// differs from the model's.
fn replay_table(model: &Table, start: &table::State, path: &[(table::Step, table::State)]) {
    let memory = memory(REGION_BYTES);
    let host = TestHost::default();
    let mut twin = TableTwin {
        tier: format(&memory, &host, 8),
        announced: None,
        batch: Batch::default(),
        copy: None,
        rows: vec![],
    };
    let first = reserve(&twin.tier, &[0], expiry(0));
    with_key(&twin.tier, |key| twin.tier.publish(key, first));
    let mut before = start;
    for (step, after) in path {
        match *step {
            table::Step::Writer(step) => {
                twin.write(step, model.changes[usize::from(before.change)], before);
            }
            table::Step::Saver(step) => twin.save(step, before, after),
            table::Step::Reader(number, step) => twin.read(model, number, step, before, after),
            other => unreachable!("{other:?} is not of these scenarios"),
        }
        before = after;
    }
    twin.compare(model, before);
}

/// The operations on a saved value must give the answers and end in the states of the model, on every path that `walk` takes.
#[test]
fn saved_values_are_as_modelled() {
    let walk = |name: &str, make: fn(table::Variant) -> Table| {
        let model = make(table::Variant::AsBuilt);
        walk(name, &model, |start, path| replay_table(&model, start, path));
    };
    walk("table, leaves", Table::leaves);
    walk("table, leaves for deciders", Table::leaves_for_deciders);
}
