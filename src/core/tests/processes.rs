//! Tests several processes on one region in a file, one of which is killed at some moment. Even then no process may
//! read a wrong value, every operation on the damaged region must end, and a newly formatted region must work.
//!
//! A life of the region goes as in a server. The processes work until each of them has met the others. One is killed
//! by SIGKILL: at any moment, or when it is seen to hold a lock, or in the middle of a change. Then all others must
//! end. Either they are told to stop, also while they wait for a lock of the dead process, or they are killed as
//! well. Then a new process, the *heir*, attaches to the region, reads everything that is left, and works with it.
//! The values that it reads before it changes anything must be right, and each call must end. At last the region is
//! formatted, and the next life begins.
//!
//! The locks are in the same file, before the region. No process repairs the lock of a dead process: a process that
//! waits for it waits until it is told to stop. Each process is this test program, started again.

mod values;

use pg_cache_core::{
    Acquired, Cost, Counter, FenceId, FlightRequest, Host, IncrError, Key, Kind, Mapping, NewValue, Owner,
    Region, Scope, Sizes, Stamp, Tier,
};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, set_parent_process_death_signal, waitid,
};
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use values::{Random, content, size_of, verify};

const SHARDS: u32 = 2;
const REGION_BYTES: usize = 192 * 1024;
/// The words before the region: those below, a line for each lock, and a line for each process.
const CONTROL_WORDS: usize = 512;
const STOP: usize = 0;
const TICK: usize = 1;
const LOCKS: usize = 8;
const SEATS: usize = LOCKS + 8 * SHARDS as usize;
// The words of a seat: the address of the mapping, the number of operations and reads, and whether an operation is
// running. The heir also stores the number of findings of its check.
const ADDRESS: usize = 0;
const OPERATIONS: usize = 1;
const READS: usize = 2;
const BUSY: usize = 3;
const FINDINGS: usize = 4;

/// The time limit for anything that should take only a moment. Beyond it, the test assumes that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The part that a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Reader,
    Writer,
    Deleter,
    Adder,
    Sweeper,
    /// Does the work of all others, until it is killed.
    Victim,
}

const PARTS: [Part; 8] = [
    Part::Victim,
    Part::Reader,
    Part::Reader,
    Part::Writer,
    Part::Writer,
    Part::Deleter,
    Part::Adder,
    Part::Sweeper,
];
const VICTIM: usize = 0;
/// The seat of the heir, which starts when all others are gone.
const HEIR: usize = PARTS.len();

/// The file as one process sees it, and the seat of that process.
struct Ground {
    mapping: Mapping,
    seat: usize,
}

impl Ground {
    fn of(path: &Path, seat: usize) -> Self {
        let file = File::options().read(true).write(true).open(path).expect("the file is there");
        // Reserve address space first, so that no two processes map the file at the same address, even without
        // address randomization.
        let other: Vec<_> = (0..seat).map(|_| Mapping::of(&file).expect("it can be mapped")).collect();
        let mapping = Mapping::of(&file).expect("it can be mapped");
        drop(other);
        Self { mapping, seat }
    }

    fn new(directory: &Path) -> Self {
        let path = directory.join("region");
        let file = File::create_new(&path).expect("a new file");
        file.set_len((CONTROL_WORDS * 8 + REGION_BYTES) as u64).expect("it fits");
        Self::of(&path, HEIR)
    }

    fn control(&self, at: usize) -> &AtomicU64 {
        &self.mapping.words()[..CONTROL_WORDS][at]
    }

    fn region(&self) -> Region<'_> {
        Region::of_words(&self.mapping.words()[CONTROL_WORDS..])
    }

    fn lock_word(&self, shard: u32) -> &AtomicU64 {
        self.control(LOCKS + 8 * shard as usize)
    }

    fn seat_word(&self, seat: usize, what: usize) -> &AtomicU64 {
        self.control(SEATS + 8 * seat + what)
    }

    fn note(&self, what: usize, value: u64) {
        self.seat_word(self.seat, what).store(value, Ordering::SeqCst);
    }

    fn count(&self, what: usize) {
        self.seat_word(self.seat, what).fetch_add(1, Ordering::SeqCst);
    }

    fn noted(&self, seat: usize, what: usize) -> u64 {
        self.seat_word(seat, what).load(Ordering::SeqCst)
    }

    fn stopped(&self) -> bool {
        self.control(STOP).load(Ordering::SeqCst) != 0
    }

    fn holder(&self, shard: u32) -> Option<usize> {
        (self.lock_word(shard).load(Ordering::SeqCst) as usize).checked_sub(1)
    }

    fn holds_a_lock(&self, seat: usize) -> bool {
        (0..SHARDS).any(|shard| self.holder(shard) == Some(seat))
    }
}

impl Host for &Ground {
    fn now(&self) -> u32 {
        self.control(TICK).load(Ordering::SeqCst) as u32
    }

    fn lock(&self, shard: u32) {
        let (word, me) = (self.lock_word(shard), self.seat as u64 + 1);
        if self.seat == HEIR {
            // The process that held the lock is dead.
            word.store(me, Ordering::SeqCst);
            return;
        }
        while word.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            if self.stopped() {
                // A server process does the same when another process has crashed: it exits at once, without cleaning
                // up.
                std::process::exit(0);
            }
            std::thread::yield_now();
        }
    }

    fn unlock(&self, shard: u32) {
        self.lock_word(shard).store(0, Ordering::SeqCst);
    }
}

/// Looks at the work of a stopped or dead victim, without touching its locks. Only shards whose locks the victim
/// holds do not change meanwhile.
struct Probe<'m> {
    ground: &'m Ground,
    waiting: Cell<bool>,
}

impl Host for &Probe<'_> {
    fn now(&self) -> u32 {
        1
    }
    fn lock(&self, shard: u32) {
        if self.ground.holder(shard) == Some(VICTIM) {
            self.waiting.set(true);
        }
    }
    fn unlock(&self, _: u32) {}
}

impl<'m> Probe<'m> {
    fn new(ground: &'m Ground) -> Self {
        Self { ground, waiting: Cell::new(false) }
    }

    /// Returns whether the victim is in the middle of a change. If it is, a reader has to ask for the lock.
    fn finds_a_change(&self) -> bool {
        let tier = Tier::attach(self.ground.region(), self, HEIR as u32).expect("it is formatted");
        self.waiting.set(false);
        // These are enough keys to reach every shard.
        for number in 0..40 {
            let _ = with_key(tier.scope(1, 1, 0), number, |key| tier.peek(key, Stamp::LATEST));
        }
        self.waiting.get()
    }

    /// Returns whether the victim has left a change half done.
    fn finds_damage(&self) -> bool {
        let shard = (0..SHARDS).find(|shard| self.ground.holder(*shard) == Some(VICTIM));
        let Some(shard) = shard.filter(|_| self.finds_a_change()) else { return false };
        let tier = Tier::attach(self.ground.region(), self, HEIR as u32).expect("it is formatted");
        tier.check().iter().any(|finding| finding.starts_with(&format!("shard {shard}:")))
    }
}

/// The keys: spread keys, keys that have the same hash and so share one bucket, and keys of counters. Searching the
/// crowded bucket takes so long that readers and kills come in between.
const SPREAD: u64 = 600;
const CROWDED: u64 = 300;
const COUNTERS: u64 = 20;
/// The first few keys are large and used most often, so that one process replaces a value while another copies it.
const HOT: u64 = 4;
const KEYS: u64 = SPREAD + CROWDED + COUNTERS;

fn is_counter(number: u64) -> bool {
    number >= SPREAD + CROWDED
}

/// Returns the step of a counter. Only multiples of it are added, so the counter must always hold a multiple.
fn step(number: u64) -> u64 {
    number * 2 + 1
}

fn with_key<T>(scope: Scope, number: u64, what: impl FnOnce(&Key<'_>) -> T) -> T {
    let hash = if (SPREAD..SPREAD + CROWDED).contains(&number) { SPREAD } else { number };
    let bytes = number.to_le_bytes();
    what(&Key::new(scope, &bytes, hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key"))
}

/// A process at work.
struct Worker<'m> {
    ground: &'m Ground,
    tier: Tier<'m, &'m Ground>,
    scope: Scope,
    random: Random,
    value: Vec<u8>,
}

impl<'m> Worker<'m> {
    fn new(ground: &'m Ground, seed: u64) -> Self {
        let tier = Tier::attach(ground.region(), ground, ground.seat as u32).expect("it is formatted");
        let scope = tier.scope(1, 1, 0);
        Self { ground, tier, scope, random: Random::new(seed), value: Vec::new() }
    }

    fn work(&mut self, part: Part) {
        while !self.ground.stopped() {
            self.ground.note(BUSY, 1);
            self.step(part);
            self.ground.note(BUSY, 0);
            self.ground.count(OPERATIONS);
        }
    }

    fn step(&mut self, part: Part) {
        let hot = self.random.below(3) == 0;
        let mut below = |bound| self.random.below(if hot { HOT } else { bound });
        let (plain, any) = (below(SPREAD + CROWDED), below(KEYS));
        let counter = SPREAD + CROWDED + self.random.below(COUNTERS);
        match part {
            Part::Reader => self.read(any),
            Part::Writer => self.write(plain),
            // Not every time, or there would be nothing to evict.
            Part::Deleter if any.is_multiple_of(4) => {
                with_key(self.scope, any, |key| self.tier.remove(key));
            }
            Part::Deleter => self.read(any),
            Part::Adder => {
                let new = new_value(&[], self.tier.fences().now(), u32::MAX, &[]);
                // Adding is refused if there is no room. An existing entry of this key is always a counter.
                match with_key(self.scope, counter, |key| {
                    self.tier.incr(key, step(counter) as i64, &new, None)
                }) {
                    Ok(sum) => assert_counter(counter, sum as u64),
                    Err(error) => assert!(matches!(error, IncrError::Refused(_)), "{error:?}"),
                }
            }
            Part::Sweeper => {
                self.ground.control(TICK).fetch_add(u64::from(any.is_multiple_of(64)), Ordering::SeqCst);
                self.tier.sweep(64);
                self.tier.inspect(plain).expect("there is memory");
            }
            Part::Victim => {
                let others = &PARTS[VICTIM + 1..];
                let one = self.random.below(others.len() as u64);
                self.step(others[one as usize]);
            }
        }
    }

    /// Reads a key. Fails if the value is torn, belongs to another key, or has expired.
    fn read(&mut self, number: u64) {
        let now = self.ground.now();
        let value = &mut self.value;
        let answer = with_key(self.scope, number, |key| self.tier.get(key, Stamp::LATEST, value));
        let Ok(meta) = answer else { return };
        assert_eq!(meta.value_len, self.value.len());
        assert!(meta.expires > now, "served at {now} what was over at {}", meta.expires);
        if is_counter(number) {
            let bytes = self.value.as_slice().try_into().expect("a counter has eight bytes");
            assert_counter(number, u64::from_ne_bytes(bytes));
        } else {
            verify(number, &self.value);
        }
        self.ground.count(READS);
    }

    /// Stores a value in one of the possible ways.
    fn write(&mut self, number: u64) {
        let version = self.random.below(u64::MAX);
        let size = match number {
            0..HOT => 4_000 + version as usize % 5_000,
            HOT..SPREAD => size_of(version),
            // The values are small, so that the crowded bucket has many entries.
            _ => version as usize % 60,
        };
        let content = content(number, version, size);
        let tag = self.tier.fences().tag(version << 40);
        let expires = self.ground.now() + 1 + (version >> 20) as u32 % 2_000;
        let tier = &self.tier;
        with_key(self.scope, number, |key| match version % 16 {
            // This must be seldom: a tier in which all entries are invalidated never evicts.
            0 if version.is_multiple_of(128) => {
                tier.fences().raise(tag);
                tier.fences().lower(tag);
            }
            1 => {
                if let Acquired::Lead(lease) = tier.acquire(
                    key,
                    FlightRequest::lease(Owner { session: self.ground.seat as u32, role: 0 }, expires),
                ) && let Ok(reserved) =
                    tier.reserve(key, &new_value(&content, lease.stamp, expires, &[tag]), Default::default())
                {
                    tier.publish_leased(key, reserved, lease.id);
                }
            }
            how => {
                let new = new_value(&content, tier.fences().now(), expires, std::slice::from_ref(&tag));
                let Ok(reserved) = tier.reserve(key, &new, Default::default()) else { return };
                match how {
                    2 => tier.cancel(reserved),
                    3 => {
                        tier.announce(key, &reserved);
                        tier.confirm(key, reserved);
                    }
                    4 => {
                        tier.announce(key, &reserved);
                        tier.withdraw(key, reserved);
                    }
                    _ => {
                        tier.publish(key, reserved);
                    }
                }
            }
        });
    }

    /// Reads everything that the dead processes have left, and then works with it as if nothing had happened.
    fn inherit(&mut self) {
        for number in 0..KEYS {
            self.read(number);
        }
        self.ground.note(FINDINGS, self.tier.check().len() as u64);
        for bucket in 0.. {
            if self.tier.inspect(bucket).expect("there is memory").is_none() {
                break;
            }
        }
        self.tier.usage();
        // From here on the values may be wrong, because changes build on structures that are half changed. Only the
        // end of each call is tested.
        for _ in 0..2 {
            for number in 0..KEYS {
                with_key(self.scope, number, |key| {
                    let _ = self.tier.get(key, Stamp::LATEST, &mut self.value);
                    let _ = self.tier.incr(key, 1, &new_value(&[], Stamp::VOID, u32::MAX, &[]), None);
                });
                if !is_counter(number) {
                    self.write(number);
                }
                if number % 3 == 0 {
                    with_key(self.scope, number, |key| self.tier.remove(key));
                }
            }
            self.tier.sweep(2_000);
            self.tier.check();
        }
    }
}

fn new_value<'v>(bytes: &'v [u8], stamp: Stamp, expires: u32, dependencies: &'v [FenceId]) -> NewValue<'v> {
    NewValue { bytes, kind: Kind(1), stamp, expires, cost: Cost::NONE, dependencies }
}

fn assert_counter(number: u64, sum: u64) {
    assert!(sum > 0 && sum.is_multiple_of(step(number)), "counter {number} holds {sum}, a foreign number");
}

/// The environment variables of a started process: its seat, the seed of its random numbers, and the directory of the
/// file.
const SEAT: &str = "PG_CACHE_TEST_SEAT";
const SEED: &str = "PG_CACHE_TEST_PROCESS_SEED";
const DIRECTORY: &str = "PG_CACHE_TEST_DIRECTORY";

#[test]
#[ignore = "one of the processes that the other tests start"]
fn a_process() {
    let told = |name| std::env::var(name).ok();
    let (Some(seat), Some(seed), Some(directory)) = (told(SEAT), told(SEED), told(DIRECTORY)) else { return };
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

/// Started processes. They are killed at the latest when this value is dropped.
struct Crew(Vec<Child>);

impl Crew {
    fn start(directory: &Path, seats: std::ops::Range<usize>, random: &mut Random) -> Self {
        let mut crew = Self(Vec::new());
        for seat in seats {
            let child = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "a_process", "--ignored", "--nocapture", "--test-threads=1"])
                .env(SEAT, seat.to_string())
                .env(SEED, random.below(u64::MAX).to_string())
                .env(DIRECTORY, directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("this program can be started again");
            crew.0.push(child);
        }
        crew
    }

    /// Fails if a process has ended, from seat `from` on.
    fn all_live(&mut self, from: usize) {
        for (seat, child) in self.0.iter_mut().enumerate().skip(from) {
            let ended = child.try_wait().expect("it is ours");
            assert_eq!(ended, None, "process {seat}, the {:?}, has ended", PARTS.get(seat));
        }
    }

    /// Waits for the end of a process.
    fn end_of(&mut self, seat: usize) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0[seat].try_wait().expect("it is ours") {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "process {seat} of {} does not end", self.0.len());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The counts of all lives together.
#[derive(Debug, Default)]
struct Toll {
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

fn sizes() -> Sizes {
    Sizes {
        bytes: 0,
        reserved_fences: 8,
        relation_fences: 0,
        tag_fences: 64,
        backends: HEIR as u32 + 1,
        shards: SHARDS,
    }
}

/// Runs one life of the region, from formatting to the heir.
fn one_life(ground: &Ground, directory: &Path, random: &mut Random, toll: &mut Toll) {
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

    let probe = Probe::new(ground);
    match toll.kills % 4 {
        0 => std::thread::sleep(Duration::from_nanos(random.below(2_000_000))),
        1 => assert!(stop_when(|| ground.holds_a_lock(VICTIM), PATIENCE, &crew.0[VICTIM], random)),
        2 => assert!(stop_when(|| probe.finds_a_change(), PATIENCE, &crew.0[VICTIM], random)),
        // This is rare, so the test does not insist on it every time.
        _ => {
            stop_when(|| probe.finds_damage(), PATIENCE / 6, &crew.0[VICTIM], random);
        }
    }
    crew.0[VICTIM].kill().expect("it lives");
    let end = crew.end_of(VICTIM);
    assert_eq!(end.signal(), Some(Signal::KILL.as_raw()), "the victim has ended by itself: {end}");
    toll.kills += 1;
    toll.in_an_operation += ground.noted(VICTIM, BUSY);
    toll.with_a_lock += u64::from(ground.holds_a_lock(VICTIM));
    toll.in_a_change += u64::from(probe.finds_a_change());

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

    toll.reads += reads();
    toll.disturbed += tier.counted(Counter::Retry);
    toll.stored += tier.counted(Counter::Stored);
    toll.evicted += tier.counted(Counter::Evicted);
    let mut heir = Crew::start(directory, HEIR..HEIR + 1, random);
    let status = heir.end_of(0);
    assert!(status.success(), "the heir: {status}");
    toll.left_damaged += u64::from(ground.noted(HEIR, FINDINGS) > 0);
}

/// Stops a process at random moments until it is stopped in the wanted state. Returns whether that succeeded.
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

#[test]
fn one_is_killed_and_all_begin_anew() {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let duration = Duration::from_secs(if long { 60 } else { 5 });
    let told = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = told.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("PG_CACHE_TEST_SEED={seed}");
    let directory = tempfile::tempdir().expect("a directory");
    let ground = Ground::new(directory.path());
    let (mut random, mut toll) = (Random::new(seed), Toll::default());
    let lives = Arc::new(AtomicU64::new(0));
    watch(lives.clone());
    let started = Instant::now();
    // Rare events are waited for, but not for ever.
    while started.elapsed() < duration || toll.kills < 8 || (toll.left_damaged == 0 && toll.kills < 40) {
        one_life(&ground, directory.path(), &mut random, &mut toll);
        lives.fetch_add(1, Ordering::SeqCst);
    }
    println!("{toll:?}");
    assert!(toll.in_an_operation * 2 > toll.kills, "most kills hit nothing: {toll:?}");
    assert!(toll.with_a_lock * 2 >= toll.kills, "few kills find a lock held: {toll:?}");
    assert!(toll.in_a_change * 5 >= toll.kills, "few kills hit a change: {toll:?}");
    assert!(toll.left_damaged > 0, "nobody has left anything half done: {toll:?}");
}

/// A region must be the same at every address where it is mapped.
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
        let tag = writer.fences().tag(number << 58);
        let new = new_value(&content, writer.fences().now(), u32::MAX, std::slice::from_ref(&tag));
        let get = |tier: &Tier<'_, &Ground>, found: &mut Vec<u8>| {
            with_key(tier.scope(1, 1, 0), number, |key| tier.get(key, Stamp::LATEST, found))
        };
        with_key(writer.scope(1, 1, 0), number, |key| writer.put(key, &new)).expect("it is stored");
        get(reader, &mut found).expect("what is written through one mapping is read through the other");
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
