//! The journal while writers and a reader are interleaved. The *journal* is a ring in shared memory whose *records* name what has
//! changed (`journal/mod.rs` has its rules). A record is read whole, in order, or is found to be lost.

use crate::world::{Image, LoomTier, Preemptions, Work, explore, together};
use loom::sync::atomic::Ordering::Relaxed;
use pg_cache_core::{KEY_BYTES_MAX, Record, What};

/// The base of the journal's numbers. Any number but 0 would do.
const BASE: u64 = 100;
/// A reader needs few interruptions: the values that a load may return place it anywhere in a writer's work.
const READER: Preemptions = [Some(1), Some(2)];

/// Appends a record of one line, whose words all say which writer it is from.
fn append(tier: &LoomTier<'_>, writer: u8) {
    let name = [writer; 40];
    let number = u32::from(writer);
    let record = Record { what: What::Key, database: number, object: number, role: number, name: &name };
    tier.journal().append(std::iter::once(record), number);
}

/// Reads on from a number. Returns the writers of the records that were found, and how the reading ended.
fn read(tier: &LoomTier<'_>, after: u64) -> (Vec<u8>, &'static str) {
    let (mut found, mut after) = (Vec::new(), after);
    loop {
        let mut name = [0; KEY_BYTES_MAX];
        match tier.journal().read(after, &mut name) {
            Ok(Some(next)) => {
                let writer = next.record.name[0];
                assert_eq!(next.record.name, [writer; 40], "a torn name");
                let (record, number) = (next.record, u32::from(writer));
                assert_eq!([record.database, record.object, record.role, next.tick], [number; 4]);
                found.push(writer);
                after = next.number;
            }
            Ok(None) => return (found, "end"),
            Err(_) => return (found, "lost"),
        }
    }
}

/// Begins the life of the journal, without which nothing can be appended.
fn begun(tier: &LoomTier<'_>) {
    tier.journal().begin(|| BASE);
}

/// Two writers and a reader in a ring that has room for both records. The reader must find each record whole, or stop before it,
/// and must not lose one.
#[test]
fn records_are_found_whole() {
    let image = Image::with_journal(4, begun);
    let expected =
        ["([1, 2], \"end\")", "([1], \"end\")", "([2, 1], \"end\")", "([2], \"end\")", "([], \"end\")"];
    explore("journal", &image, READER, &expected, |world| {
        let writer = |number| -> Work { Box::new(move |tier, _| append(tier, number)) };
        together(world, [writer(1), writer(2), Box::new(|tier, world| world.ledger.note(read(tier, BASE)))]);
        assert_eq!(read(&world.tier(0), BASE).0.len(), 2, "nothing is left out");
    });
}

/// A change must be visible before its record can be found: the result `([1], 1)`, a record without its change, is forbidden. A
/// reader that finds no record may see the source before the change or after it.
#[test]
fn a_change_is_visible_before_its_record() {
    let image = Image::with_journal(4, begun);
    let expected = ["([1], 2)", "([], 1)", "([], 2)"];
    explore("journal and source", &image, READER, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, world| {
                    world.source.store(2, Relaxed);
                    append(tier, 1);
                }),
                Box::new(|tier, world| {
                    let (found, _) = read(tier, BASE);
                    world.ledger.note((found, world.source.load(Relaxed)));
                }),
            ],
        );
    });
}

/// The ring has one line. A second record overwrites the first one while a reader copies it. The reader must find the first record
/// whole, or find that it is lost.
#[test]
fn an_overwritten_record_is_whole_or_lost() {
    let image = Image::with_journal(1, |tier| {
        begun(tier);
        append(tier, 1);
    });
    let expected = ["([1, 2], \"end\")", "([1], \"end\")", "([], \"lost\")"];
    explore("overwritten record", &image, READER, &expected, |world| {
        together(
            world,
            [
                Box::new(|tier, _| append(tier, 2)),
                Box::new(|tier, world| world.ledger.note(read(tier, BASE))),
            ],
        );
        assert_eq!(read(&world.tier(0), BASE + 1), (vec![2], "end"));
    });
}
