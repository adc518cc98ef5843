//! Tests several processes on one region in a file. One process is killed at some moment. Even then every operation on the damaged
//! region must end, and a newly formatted region must work. No process may read a wrong value, until the heir (see below) changes
//! the damaged region.
//!
//! A life of the region goes as in a server. The processes work until enough has happened: reads, stores, evictions,
//! and reads that were disturbed. One process, the *victim*, is killed by SIGKILL: at any moment, or when it is seen to
//! hold a lock, or in the middle of a change. Then all others must end. Either they are told to stop, also while they
//! wait for a lock of the dead process, or they are killed as well. Then a new process, the *heir*, attaches to the
//! region, reads everything that is left, and works with it. The values that it reads before it changes anything must
//! be right, and each call must end. At last the region is formatted, and the next life begins.
//!
//! The locks are in the same file, before the region. No process repairs the lock of a dead process: a process that
//! waits for it waits until it is told to stop. Each process is this test program, started again.
//!
//! The *region* is the memory of the tier, in words of 64 bits.

mod crew;
mod ground;
#[path = "../values/mod.rs"]
mod values;
mod worker;

use crate::crew::{Crew, DIRECTORY, SEAT, SEED};
use crate::ground::{
    ADDRESS, BUSY, CONTROL_WORDS, FINDINGS, Ground, HEIR, OPERATIONS, PATIENCE, Probe, READS, STOP, VICTIM,
    sizes,
};
use crate::values::{Random, content};
use crate::worker::{PARTS, SPREAD, Worker, new_value, with_key};
use pg_cache_core::{Counter, Stamp, Tier};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, set_parent_process_death_signal, waitid,
};
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One of the processes, not a test: the work of the seat that the environment names. Without that, it does nothing.
#[test]
#[ignore = "one of the processes that the other tests start"]
fn a_process() {
    let variable = |name| std::env::var(name).ok();
    let (Some(seat), Some(seed), Some(directory)) = (variable(SEAT), variable(SEED), variable(DIRECTORY))
    else {
        return;
    };
    // The process that started us never writes to our standard input. So this read returns when that process ends,
    // for any reason. A stopped process would not notice, so the kernel must also kill us.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("it can be asked for");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let seat = seat.parse().expect("a number");
    let ground = Ground::of(&Path::new(&directory).join("region"), seat);
    ground.note(ADDRESS, ground.mapping.words().as_ptr() as u64);
    let mut worker = Worker::new(&ground, seed.parse().expect("a number"));
    match PARTS.get(seat) {
        Some(part) => worker.work(*part),
        None => worker.inherit(),
    }
}

/// The counts of all lives together. Each of the first five is a number of kills: of all, of those in the middle of an operation,
/// with a lock held, in the middle of a change, and of those whose damage the check of the heir has found. The others are counts of
/// the processes before the heir.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    in_an_operation: u64,
    with_a_lock: u64,
    in_a_change: u64,
    left_damaged: u64,
    reads: u64,
    disturbed: u64,
    stored: u64,
    evicted: u64,
}

/// Runs one life of the region, from formatting to the heir.
fn one_life(ground: &Ground, directory: &Path, random: &mut Random, tally: &mut Tally) {
    for at in 0..CONTROL_WORDS {
        ground.control(at).store(0, Ordering::SeqCst);
    }
    let tier = Tier::format(ground.region(), sizes(), ground, HEIR as u32).expect("it fits");
    assert_eq!(tier.check(), Vec::<String>::new(), "formatted");
    assert_eq!(tier.usage().entries, 0);
    let mut crew = Crew::start(directory, 0..PARTS.len(), random);
    // Each life must see enough interference, however busy the machine is.
    let started = Instant::now();
    let reads = || (0..PARTS.len()).map(|seat| ground.noted(seat, READS)).sum::<u64>();
    let enough = || {
        reads() >= 2_000
            && (0..PARTS.len()).all(|seat| ground.noted(seat, OPERATIONS) >= 20)
            && tier.counted(Counter::Stored) >= 500
            && tier.counted(Counter::Removed) >= 50
            && tier.counted(Counter::Evicted) >= 50
            && tier.counted(Counter::Retry) >= 20
    };
    while !enough() {
        crew.all_live(0);
        assert!(
            started.elapsed() < PATIENCE,
            "too little happens: {} reads, {} stored, {} removed, {} evicted, {} disturbed",
            reads(),
            tier.counted(Counter::Stored),
            tier.counted(Counter::Removed),
            tier.counted(Counter::Evicted),
            tier.counted(Counter::Retry)
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let addresses: HashSet<_> = (0..PARTS.len()).map(|seat| ground.noted(seat, ADDRESS)).collect();
    assert!(addresses.len() > 1, "all processes have mapped the file at one address");

    // The four ways to choose the moment of the kill take turns.
    let probe = Probe::new(ground);
    match tally.kills % 4 {
        0 => std::thread::sleep(Duration::from_nanos(random.below(2_000_000))),
        1 => assert!(stop_when(|| ground.holds_a_lock(VICTIM), PATIENCE, &crew.0[VICTIM], random)),
        2 => assert!(stop_when(|| probe.finds_a_change(), PATIENCE, &crew.0[VICTIM], random)),
        // A half-done change that the check finds is rare, so the test does not insist on it every time.
        _ => {
            stop_when(|| probe.finds_damage(), PATIENCE / 6, &crew.0[VICTIM], random);
        }
    }
    crew.0[VICTIM].kill().expect("it lives");
    let end = crew.end_of(VICTIM);
    assert_eq!(end.signal(), Some(Signal::KILL.as_raw()), "the victim has ended by itself: {end}");
    tally.kills += 1;
    tally.in_an_operation += ground.noted(VICTIM, BUSY);
    tally.with_a_lock += u64::from(ground.holds_a_lock(VICTIM));
    tally.in_a_change += u64::from(probe.finds_a_change());

    // The others continue for a moment, and may wait for a lock that no process will release.
    std::thread::sleep(Duration::from_nanos(random.below(2_000_000)));
    if random.below(2) == 0 {
        ground.control(STOP).store(1, Ordering::SeqCst);
        for (seat, part) in PARTS.iter().enumerate().skip(VICTIM + 1) {
            let status = crew.end_of(seat);
            assert!(status.success(), "process {seat}, the {part:?}: {status}");
        }
    } else {
        crew.all_live(VICTIM + 1);
    }
    drop(crew);

    tally.reads += reads();
    tally.disturbed += tier.counted(Counter::Retry);
    tally.stored += tier.counted(Counter::Stored);
    tally.evicted += tier.counted(Counter::Evicted);
    let mut heir = Crew::start(directory, HEIR..HEIR + 1, random);
    let status = heir.end_of(0);
    assert!(status.success(), "the heir: {status}");
    tally.left_damaged += u64::from(ground.noted(HEIR, FINDINGS) > 0);
}

/// Stops a process at random moments until it is stopped in the wanted state, and leaves it stopped. Returns false if that has not
/// succeeded within `patience`.
fn stop_when(wanted: impl Fn() -> bool, patience: Duration, child: &Child, random: &mut Random) -> bool {
    let pid = Pid::from_child(child);
    let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let mut moment = || std::thread::sleep(Duration::from_nanos(random.below(300_000)));
    let started = Instant::now();
    while started.elapsed() < patience {
        // The signal is sent again until the stop is seen, because a stop that crosses a continuation can get lost.
        kill_process(pid, Signal::STOP).expect("it lives");
        moment();
        if waitid(WaitId::Pid(pid), seen).expect("it is ours").is_some() {
            if wanted() {
                return true;
            }
            kill_process(pid, Signal::CONT).expect("it lives");
            moment();
        }
    }
    false
}

/// Ends the whole test if a life of the region takes so long that a process, perhaps this one, must be in an endless
/// loop.
fn watch(lives: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        loop {
            let before = lives.load(Ordering::SeqCst);
            std::thread::sleep(PATIENCE * 3);
            if lives.load(Ordering::SeqCst) == before {
                eprintln!("this life of the region does not end");
                std::process::exit(1);
            }
        }
    });
}

/// Runs lives of the region. It also fails if too few of the kills hit an operation, a held lock or a change, or if no kill has
/// left anything half done, because the test would then prove little.
#[test]
fn one_is_killed_and_all_begin_anew() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let duration = Duration::from_secs(if long { 60 } else { 5 });
    let given = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("PG_CACHE_TEST_SEED={seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let ground = Ground::new(directory.path());
    let (mut random, mut tally) = (Random::new(seed), Tally::default());
    let lives = Arc::new(AtomicU64::new(0));
    watch(lives.clone());
    let started = Instant::now();
    // Rare events are waited for, but not for ever.
    while started.elapsed() < duration || tally.kills < 8 || (tally.left_damaged == 0 && tally.kills < 40) {
        one_life(&ground, directory.path(), &mut random, &mut tally);
        lives.fetch_add(1, Ordering::SeqCst);
    }
    println!("{tally:?}");
    // Three of four kills aim at a held lock, and two of four at a change. One of these two may give up its aim.
    assert!(tally.in_an_operation * 2 > tally.kills, "most kills hit nothing: {tally:?}");
    assert!(tally.with_a_lock * 2 >= tally.kills, "few kills find a lock held: {tally:?}");
    assert!(tally.in_a_change * 5 >= tally.kills, "few kills hit a change: {tally:?}");
    assert!(tally.left_damaged > 0, "nobody has left anything half done: {tally:?}");
}

/// A region must be the same at every address where it is mapped: a value or a change that was written through one mapping must be
/// seen through the other. A position that was stored as an address would fail this.
#[test]
fn two_mappings_are_one_region() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = Ground::new(directory.path());
    let there = Ground::of(&directory.path().join("region"), 1);
    assert_ne!(here.mapping.words().as_ptr(), there.mapping.words().as_ptr());
    let first = Tier::format(here.region(), sizes(), &here, HEIR as u32).expect("it fits");
    let second = Tier::attach(there.region(), &there, 1).expect("it is formatted");
    let mut found = Vec::new();
    for number in 0..SPREAD {
        let (writer, reader) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let content = content(number, number, (number * 7) as usize);
        // The highest six bits of a hash select one of the 64 fences of tags.
        let tag = writer.fences().tag(number << 58);
        let new = new_value(&content, writer.fences().now(), u32::MAX, std::slice::from_ref(&tag));
        let get = |tier: &Tier<'_, &Ground>, found: &mut Vec<u8>| {
            with_key(tier.scope(1, 1, 0), number, |key| tier.get(key, Stamp::LATEST, found))
        };
        with_key(writer.scope(1, 1, 0), number, |key| writer.put(key, &new)).expect("it is stored");
        get(reader, &mut found).expect("an entry that one mapping writes is read through the other");
        assert_eq!(found, content);
        if number % 3 == 0 {
            reader.fences().raise(tag);
            reader.fences().lower(tag);
            assert_eq!(get(writer, &mut found).map(|_| ()), Err(pg_cache_core::Miss::Fenced));
        }
    }
    assert_eq!(first.check(), Vec::<String>::new());
    assert_eq!(first.usage(), second.usage());
}
