//! The copies in one Redis: decides which job comes next, and handles the answers.
//!
//! A few jobs are under way at a time. The thread of the client executes and answers the jobs in order, so the worker keeps the
//! purpose of each job in a queue. After a failure, the thread skips all jobs until it has connected again.
//!
//! The *journal* is a ring in shared memory whose records name what has changed. `mod.rs` explains scans, refills and resyncs.
//! `sets.rs` explains the sets in Redis. A *bucket* of a set is a stretch of time; a bucket of a refill is a hash bucket of the
//! cache.

use super::batches::{KEYS_MAX, KeyId, Looker};
use super::config::Config;
use super::journal::{Of, Position, Wide};
use super::places::Places;
use super::scans::Scans;
use super::sets::{SetId, Sets};
use crate::pg::error::{OrRaise, Refused, SqlState};
use crate::pg::redis_state::{RedisState, UNKNOWN};
use crate::pg::shared::{self, HotTier};
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{cluster, memory, thread};
use crate::store::journal;
use crate::workers::errors;
use pg_cache_core::Event;
use pg_cache_redis::{Answer, Batch, Client, Facts, Job, Names, Target, pattern};
use pgrx::prelude::PgSqlErrorCode;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The most jobs that are under way at a time.
const DEPTH: usize = 8;
/// How long the worker waits for an answer before it handles its signals.
const ATTENTION: Duration = Duration::from_millis(10);
/// The least time between two reads of the journal, so that a batch has many changes while many transactions commit. A read that
/// was stopped by a limit is followed by the next one at once.
const GAP: Duration = Duration::from_millis(5);
/// How often the worker asks whether Redis is still the same, and reads the names of the databases.
const CHECK: Duration = Duration::from_secs(1);
/// How long the worker waits before it connects again. Each further failure doubles the time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The limit to which [`PAUSE_MIN`] doubles.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The most keys that a refill looks at in a second.
const REFILL_RATE: f64 = 20_000.0;
/// How long a refill waits when it has used up its rate.
const REFILL_PAUSE: Duration = Duration::from_millis(10);
/// How long Redis must have taken all values, after it has refused one, before the values that it lacks are written again. Each
/// attempt doubles the time, unless the last one is long ago.
const REFUSED_MIN: Duration = Duration::from_secs(2);
/// The limit to which [`REFUSED_MIN`] doubles.
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// The least time between the end of a comparison of all keys and the next one, if a set is not complete. Without it, the worker
/// would do nothing but compare if Redis evicts many sets.
const COMPARE_AGAIN: Duration = Duration::from_secs(2);
/// The time before the next comparison must also be at least this many times the duration of the last one.
const COMPARE_SHARE: u32 = 4;
/// The most pages (`ExportedPage`, 64 hash buckets of the cache each) that one step of a refill reads. It keeps the step short if
/// few pages have keys.
const PAGES_MAX: usize = 512;
/// A scan waits while at least this many of its keys have not been compared yet, so that these keys take little memory.
const FOUND_MAX: usize = 5_000;
/// The most keys that are removed at once because no space has them.
const UNKNOWN_MAX: usize = 500;

/// The purpose of a job that is under way.
#[derive(Debug)]
enum Task {
    Connect,
    Check,
    /// Keys from the journal, and the sets that the batch creates. If there is a number, Redis has all changes up to it once this
    /// task and all tasks before it are done.
    Changes(Option<u64>, Vec<SetId>),
    /// The removal of the keys in the sets of some tags and relations. The fields are the sets, the bucket in which they were
    /// taken, and the number up to which Redis then has all changes.
    Sets(BTreeSet<SetId>, u64, u64),
    Scan,
    /// Keys that a scan has found, and the sets that the batch creates.
    Compare(Vec<SetId>),
    Refill(Of, Vec<SetId>),
}

/// The connection.
#[derive(Debug)]
enum Link {
    /// There is no connection. The worker connects at this moment. The second field is the pause before that moment.
    Down(Instant, Duration),
    /// `Connect` was sent. The field is the last pause.
    Connecting(Duration),
    /// Redis has answered `Connect`. The field is the last pause, and 0 once Redis has done a further job.
    Up(Duration),
}

/// The state of one Redis.
pub struct Copier {
    /// The cache in shared memory.
    tier: &'static HotTier,
    /// The slot of the worker in shared memory, which tells when it last worked.
    slot: &'static WorkerSlot,
    /// The state of the Redis worker in shared memory, for the views and for `cache_health`.
    state: &'static RedisState,
    /// The thread that talks to Redis.
    client: Client,
    /// The names of databases and spaces.
    places: Places,
    /// The sets in Redis that the worker has written and not removed.
    sets: Sets,
    /// The longest time to live in Redis, in milliseconds.
    max_ttl_ms: u64,
    /// The state of the connection.
    link: Link,
    /// The purpose of each job under way, in the order of the jobs.
    tasks: VecDeque<Task>,
    /// The servers and their data, as of the last `Connect` or `Check`. None before the first answer, and if Redis does not tell.
    identity: Option<Vec<String>>,
    /// When the worker last asked for the identity.
    checked: Instant,
    /// The position in the journal from which the worker reads on.
    position: Position,
    /// The moment before which the worker does not read the journal again ([`GAP`]).
    next_read: Instant,
    /// Redis has confirmed all changes up to this number.
    acked: u64,
    /// The keys of changes that were read from the journal and not sent yet.
    keys: BTreeSet<KeyId>,
    /// A change that was read from the journal and not sent yet, and whose keys the journal does not name.
    wide: Option<Wide>,
    /// The comparisons of the keys in Redis with the cache.
    scans: Scans,
    /// Keys that scans have found and that were not compared yet.
    found: BTreeSet<KeyId>,
    /// Redis keys that scans have found and that belong to no space.
    unknown: Vec<Vec<u8>>,
    /// The refill that is under way.
    refill: Option<Refill>,
    /// Whether the worker is removing all keys from this Redis.
    is_leaving: bool,
    /// Whether a set is not complete, so that the worker must compare all keys.
    owes_scan: bool,
    /// When the last comparison of all keys began, and when the worker first noticed that it had ended.
    compared: (Instant, Option<Instant>),
    /// Whether Redis has refused a value of the last batch.
    was_refused: bool,
    /// When Redis last refused a value. None once a refill has begun since. Redis then lacks the values of the whole batch.
    refused: Option<Instant>,
    /// How long Redis must then take all values before a refill begins.
    refused_wait: Duration,
    /// When a refill has last begun for this reason.
    retried: Option<Instant>,
}

/// A refill: a walk through the values in memory, which writes them to Redis.
#[derive(Debug)]
struct Refill {
    /// The database and the space of the keys that are written.
    of: Of,
    /// The next hash bucket of the cache.
    bucket: u64,
    /// How many buckets are left. A refill goes once around all buckets.
    left: u64,
    /// The keys that were found and not looked at yet.
    keys: BTreeSet<KeyId>,
    /// How many keys were looked at since `began`.
    count: usize,
    /// The moment of the first step.
    began: Option<Instant>,
}

impl Copier {
    /// Starts the thread for Redis. If that is not possible, returns the reason, without secrets. May raise errors.
    pub fn start(
        tier: &'static HotTier,
        slot: &'static WorkerSlot,
        state: &'static RedisState,
        config: &Config,
    ) -> Result<Self, String> {
        if !tier.journal().exists() {
            return Err("pg_cache.journal_size is 0, so changes cannot be followed".to_owned());
        }
        let target = Target::parse(&config.url, config.timeout, config.ca_file.as_deref())?;
        let target = target.with_name(&cluster::name());
        let places = Places::read(tier, Names::new(&config.prefix));
        journal::begin(tier);
        let client = thread::with_signals_blocked(|| Client::start(target, DEPTH * 2));
        let client = client.map_err(|error| format!("the thread for Redis cannot start: {error}"))?;
        let last = tier.journal().last().unwrap_or(0);
        Ok(Self {
            tier,
            slot,
            state,
            client,
            places,
            sets: Sets::new(config.max_ttl_ms),
            max_ttl_ms: config.max_ttl_ms,
            link: Link::Down(Instant::now(), Duration::ZERO),
            tasks: VecDeque::new(),
            identity: None,
            checked: Instant::now(),
            position: Position::at(last),
            next_read: Instant::now(),
            acked: last,
            keys: BTreeSet::new(),
            wide: None,
            scans: Scans::default(),
            found: BTreeSet::new(),
            unknown: Vec::new(),
            refill: None,
            is_leaving: false,
            owes_scan: false,
            compared: (Instant::now(), None),
            was_refused: false,
            refused: None,
            refused_wait: REFUSED_MIN,
            retried: None,
        })
    }

    /// Handles the answers that have arrived, and sends the next jobs. Returns how long the worker may sleep. May raise errors.
    pub fn step(&mut self) -> Duration {
        while let Some(answer) = self.client.answer(Duration::ZERO) {
            self.handle(answer);
        }
        if self.client.is_dead() {
            // A panic has ended the thread. The error makes the worker begin again with another thread.
            Refused::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the thread for Redis has ended").raise();
        }
        self.connect_if_due();
        if matches!(self.link, Link::Up(_)) {
            self.check_if_due();
            while let Some(prefix) = self.places.superseded() {
                self.scans.request(&prefix);
            }
            self.send_all();
        }
        if !self.tasks.iter().any(|task| matches!(task, Task::Changes(..) | Task::Sets(..)))
            && self.has_sent_changes()
        {
            self.acked = self.position.number;
        }
        self.state.set_progress(self.acked, self.is_comparing());
        if !self.tasks.is_empty() {
            if let Some(answer) = self.client.answer(ATTENTION) {
                self.handle(answer);
            }
            return Duration::ZERO;
        }
        self.rest()
    }

    /// Begins to remove all keys from this Redis, if that has not begun. Returns whether some keys may be left. The worker must
    /// call [`step`](Self::step) until none are left.
    pub fn withdraw(&mut self) -> bool {
        if !self.is_leaving {
            self.is_leaving = true;
            self.refill = None;
            self.scans.request(self.places.names().all());
        }
        let has_keys = !(self.scans.are_done() && self.found.is_empty() && self.unknown.is_empty());
        has_keys || !self.tasks.is_empty()
    }

    /// Returns whether Redis answers.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Returns whether keys are still to be compared or refilled.
    fn is_comparing(&self) -> bool {
        let is_comparing = |task: &Task| matches!(task, Task::Scan | Task::Compare(_) | Task::Refill(..));
        self.owes_scan
            || !self.scans.are_done()
            || !self.found.is_empty()
            || !self.unknown.is_empty()
            || self.refill.is_some()
            || self.tasks.iter().any(is_comparing)
    }

    /// Returns whether all changes that were read have been sent.
    fn has_sent_changes(&self) -> bool {
        self.keys.is_empty() && self.wide.is_none()
    }

    /// Returns how long the worker may sleep while no job is under way.
    fn rest(&self) -> Duration {
        match self.link {
            Link::Down(next, _) => next.saturating_duration_since(Instant::now()),
            Link::Connecting(_) => ATTENTION,
            Link::Up(_) if self.refill.is_some() => REFILL_PAUSE,
            Link::Up(_) => {
                let pause = self.next_read.saturating_duration_since(Instant::now());
                if !pause.is_zero() {
                    // Until then, no change must wake this process.
                    return pause.max(Duration::from_millis(1));
                }
                shared::wake_on_change();
                // A change that came before that call does not wake this process.
                let is_writing = self.position.has_more(self.tier) && !self.is_leaving;
                if is_writing { Duration::from_millis(1) } else { CHECK }
            }
        }
    }

    fn connect_if_due(&mut self) {
        if let Link::Down(next, waited) = self.link
            && self.tasks.is_empty()
            && next <= Instant::now()
        {
            self.link = Link::Connecting(waited);
            self.send(Job::Connect, Task::Connect);
        }
    }

    /// About once a second, asks whether Redis is still the same, and reads the names of the databases.
    fn check_if_due(&mut self) {
        if self.checked.elapsed() >= CHECK && self.tasks.len() < DEPTH {
            self.checked = Instant::now();
            self.send(Job::Check, Task::Check);
            if self.places.check() {
                self.resync();
            }
            if self.may_compare() && self.owes_scan {
                self.compare_all();
            }
            // Redis lacks the values of the batches in which it has refused one.
            if self.refused.is_some_and(|at| at.elapsed() >= self.refused_wait) && self.refill.is_none() {
                (self.refused, self.retried) = (None, Some(Instant::now()));
                self.refused_wait = REFUSED_MAX.min(self.refused_wait * 2);
                self.begin_refill(Of::ALL);
            }
        }
    }

    /// Returns whether the last comparison of all keys has ended long enough ago.
    fn may_compare(&mut self) -> bool {
        if !(self.scans.are_done() && self.found.is_empty() && self.unknown.is_empty()) {
            return false;
        }
        let (began, ended) = self.compared;
        let ended = ended.unwrap_or_else(Instant::now);
        self.compared = (began, Some(ended));
        ended.elapsed() >= COMPARE_AGAIN.max((ended - began) * COMPARE_SHARE)
    }

    /// Sends jobs until enough are under way. Each round sends at most one job of each kind, so that no kind waits for the others.
    fn send_all(&mut self) {
        let kinds = [Self::send_changes, Self::send_found, Self::send_scan, Self::send_refill];
        loop {
            let mut has_sent = false;
            for send in kinds {
                has_sent |= matches!(self.link, Link::Up(_)) && self.tasks.len() < DEPTH && send(self);
            }
            if !has_sent {
                break;
            }
        }
    }

    fn send(&mut self, job: Job, task: Task) {
        // The channel has room for more jobs than may be under way, so it refuses a job only if the thread has ended.
        match self.client.send(job) {
            Ok(()) => self.tasks.push_back(task),
            Err(_) => self.fail("the thread for Redis has ended"),
        }
    }

    /// Sends the next changes. Returns whether there may be more to send.
    fn send_changes(&mut self) -> bool {
        if self.is_leaving {
            return false;
        }
        if self.has_sent_changes() {
            if !self.position.has_more(self.tier) || self.next_read > Instant::now() {
                return false;
            }
            match self.position.read(self.tier, &mut self.places, &self.sets) {
                Ok(changes) => {
                    let is_limited = changes.keys.len() >= KEYS_MAX || changes.wide.is_some();
                    self.next_read = Instant::now() + if is_limited { Duration::ZERO } else { GAP };
                    (self.keys, self.wide) = (changes.keys, changes.wide);
                }
                Err(_) => {
                    self.resync();
                    return false;
                }
            }
        }
        if !self.keys.is_empty() {
            let mut keys = std::mem::take(&mut self.keys);
            let (batch, created) = self.looker().next_batch(&mut keys);
            self.keys = keys;
            let through = self.has_sent_changes().then_some(self.position.number);
            return self.send_batch(batch, Task::Changes(through, created));
        }
        match self.wide.take() {
            Some(Wide::Keys(extent)) => {
                // A transaction with many changes names only their space or database in the journal, and Redis may not have their
                // keys yet. So a scan is not enough.
                self.scans.request(&extent.prefix);
                self.begin_refill(extent.of);
                true
            }
            Some(Wide::Sets(ids)) => self.send_removal(ids),
            None => false,
        }
    }

    /// Removes the keys in the sets of some tags and relations of one database. Returns whether it has sent a job.
    fn send_removal(&mut self, ids: BTreeSet<SetId>) -> bool {
        let Some(place) = ids.first().and_then(|(database, _)| self.places.any_of(*database)) else {
            return false;
        };
        let bucket = self.sets.bucket();
        let mut sets = Vec::new();
        for id in &ids {
            for bucket in self.sets.take(*id, bucket) {
                memory::push(&mut sets, self.places.names().set(&place.database, bucket, id.1));
            }
        }
        if sets.is_empty() {
            return false;
        }
        let task = Task::Sets(ids, bucket, self.position.number);
        self.send(Job::RemoveMembers { sets, channel: place.channel.clone() }, task);
        true
    }

    /// Compares keys that scans have found, or removes keys that belong to no space. Returns whether there may be more to send.
    fn send_found(&mut self) -> bool {
        if !self.unknown.is_empty() {
            let rest = self.unknown.split_off(self.unknown.len().min(UNKNOWN_MAX));
            let removals = std::mem::replace(&mut self.unknown, rest);
            return self.send_batch(Batch { removals, ..Batch::default() }, Task::Compare(Vec::new()));
        }
        if self.found.is_empty() {
            return false;
        }
        let mut found = std::mem::take(&mut self.found);
        let (batch, created) = self.looker().next_batch(&mut found);
        self.found = found;
        self.send_batch(batch, Task::Compare(created))
    }

    /// Sends the next step of a scan. Only one step must be under way at a time. Returns whether it has sent a job.
    fn send_scan(&mut self) -> bool {
        let is_scanning = self.tasks.iter().any(|task| matches!(task, Task::Scan));
        if is_scanning || self.found.len() >= FOUND_MAX {
            return false;
        }
        let Some(position) = self.scans.next() else { return false };
        let (node, cursor) = position.at;
        self.send(Job::Scan { node, cursor, pattern: pattern(&position.prefix) }, Task::Scan);
        true
    }

    /// Sends the next values of the refill. Sends nothing before all scans have ended. At the end of the memory, the refill has
    /// ended. Returns whether there may be more to send.
    fn send_refill(&mut self) -> bool {
        if !self.scans.are_done() || !self.found.is_empty() {
            return false;
        }
        let Some(mut refill) = self.refill.take() else { return false };
        let began = *refill.began.get_or_insert_with(Instant::now);
        if refill.count as f64 > began.elapsed().as_secs_f64() * REFILL_RATE {
            self.refill = Some(refill);
            return false;
        }
        let total = self.tier.buckets_total();
        for _ in 0..PAGES_MAX {
            if !refill.keys.is_empty() {
                break;
            }
            if refill.left == 0 {
                return false;
            }
            let Some(page) = self.tier.exported_keys(refill.bucket).or_raise() else { return false };
            refill.left = refill.left.saturating_sub(page.next - refill.bucket);
            refill.bucket = if page.next < total { page.next } else { 0 };
            for found in page.keys.into_iter().filter(|found| refill.of.has(found.database, found.space)) {
                memory::check();
                refill.keys.insert((found.database, found.space, found.key));
            }
        }
        if refill.keys.is_empty() {
            self.refill = Some(refill);
            return false;
        }
        let left = refill.keys.len();
        let (mut batch, created) = self.looker().next_batch(&mut refill.keys);
        // A refill removes nothing: the scan before it has removed the keys without a value, and the journal names later changes.
        batch.removals.clear();
        refill.count += left - refill.keys.len();
        let of = refill.of;
        self.refill = Some(refill);
        self.send_batch(batch, Task::Refill(of, created));
        true
    }

    /// Sends a batch, unless it is empty. Always returns true: the caller has taken keys from a list, so there may be more to send.
    fn send_batch(&mut self, batch: Batch, task: Task) -> bool {
        if !batch.values.is_empty() || !batch.removals.is_empty() {
            self.send(Job::Write(batch), task);
        }
        true
    }

    fn looker(&mut self) -> Looker<'_> {
        Looker {
            tier: self.tier,
            places: &mut self.places,
            sets: &mut self.sets,
            max_ttl_ms: self.max_ttl_ms,
            removes_all: self.is_leaving,
        }
    }

    /// Handles the answer to the oldest job under way.
    fn handle(&mut self, answer: Answer) {
        let Some(task) = self.tasks.pop_front() else { return };
        match (answer, task) {
            (Answer::Facts(facts), task) => self.learn(facts, matches!(task, Task::Connect)),
            (Answer::Written { refused, lost_sets }, task) => {
                self.note_success();
                if let Task::Changes(Some(through), _) = task {
                    self.acked = self.acked.max(through);
                }
                self.written(refused, lost_sets, task);
            }
            (Answer::MembersRemoved { all_found }, Task::Sets(_, _, through)) => {
                self.note_success();
                self.owes_scan |= !all_found;
                self.acked = self.acked.max(through);
            }
            (Answer::Scanned { next, keys }, _) => {
                self.note_success();
                self.scans.advance(next);
                keys.into_iter().for_each(|key| self.compare(key));
            }
            (Answer::Failed(why), task) => {
                self.undo(&task);
                self.fail(&why);
            }
            (Answer::Skipped | Answer::MembersRemoved { .. }, _) => {}
        }
    }

    /// Notes that Redis has done a job, so the connection works.
    fn note_success(&mut self) {
        if let Link::Up(waited) = &mut self.link {
            *waited = Duration::ZERO;
            if self.state.is_connected.load(Relaxed) == 0 {
                pgrx::log!("pg_cache is connected to Redis");
                self.state.set_connected(true, shared::tick());
                self.state.set_error("");
                self.slot.note_success();
            }
        }
    }

    /// Handles the answer to a batch.
    fn written(&mut self, refused: Option<String>, lost_sets: bool, task: Task) {
        let is_refused = refused.is_some();
        match (refused, task) {
            (Some(why), Task::Changes(_, created) | Task::Compare(created) | Task::Refill(_, created)) => {
                self.state.refused.store(shared::tick().into(), Relaxed);
                self.state.set_error(&why);
                // A full Redis would refuse the rest of a refill, too, and lose more values.
                self.refill = None;
                if self.retried.is_none_or(|at| at.elapsed() > REFUSED_MAX * 2) {
                    self.refused_wait = REFUSED_MIN;
                }
                self.refused = Some(Instant::now());
                // Redis has removed the keys of the batch, and perhaps has not created the sets either. A later batch may rely on
                // such a set. Its answer then says that the set is not complete.
                let writes =
                    |task: &Task| matches!(task, Task::Changes(..) | Task::Compare(_) | Task::Refill(..));
                if !self.tasks.iter().any(writes) {
                    created.into_iter().for_each(|id| self.sets.forget(id));
                }
            }
            (None, Task::Changes(..) | Task::Compare(_) | Task::Refill(..)) => {
                self.owes_scan |= lost_sets;
                if self.was_refused {
                    self.state.set_error("");
                }
            }
            _ => return,
        }
        self.was_refused = is_refused;
    }

    /// Adds a key that a scan has found to the keys to compare or to remove.
    fn compare(&mut self, redis_key: Vec<u8>) {
        memory::check();
        match self.places.parse(&redis_key) {
            None if self.is_leaving && self.places.names().is_set(&redis_key) => {
                memory::push(&mut self.unknown, redis_key);
            }
            // The key is that of a set, or belongs to another program.
            None => {}
            Some((None, _)) => memory::push(&mut self.unknown, redis_key),
            Some((Some((database, space)), key)) => {
                self.found.insert((database, space, memory::copy(key)));
            }
        }
    }

    /// Notes the facts that Redis has answered about itself. `is_new` says whether the connection is new.
    fn learn(&mut self, facts: Facts, is_new: bool) {
        if !facts.is_writable {
            return self.fail("the server is a read-only replica");
        }
        self.state.maxmemory.store(facts.maxmemory.unwrap_or(UNKNOWN), Relaxed);
        let is_noeviction = facts.policy.as_deref() == Some("noeviction");
        self.state.is_noeviction.store(is_noeviction.into(), Relaxed);
        match self.link {
            Link::Connecting(waited) if is_new => {
                self.link = Link::Up(waited);
                self.checked = Instant::now();
            }
            _ => self.note_success(),
        }
        // If Redis does not tell its identity, a new connection may lead to other data.
        if self.identity != facts.identity || is_new && facts.identity.is_none() {
            self.identity = facts.identity;
            self.resync();
        }
    }

    /// Begins a resync: compares all keys, and refills.
    fn resync(&mut self) {
        self.state.resyncs.fetch_add(1, Relaxed);
        self.tier.count_event(Event::Resync, 1);
        // This must come before the keys are looked at, so that the worker reads all changes after the look from the journal.
        let last = self.tier.journal().last().unwrap_or(0);
        (self.position, self.acked) = (Position::at(last), last);
        (self.keys, self.wide) = (BTreeSet::new(), None);
        self.compare_all();
        self.begin_refill(Of::ALL);
    }

    /// Begins to compare all keys. Forgets the known sets, because Redis may have evicted some, and writes them anew. A change of a
    /// tag whose sets are not known needs no removal, because the comparison finds its keys.
    fn compare_all(&mut self) {
        self.sets.clear();
        self.scans.request(self.places.names().all());
        (self.owes_scan, self.compared) = (false, (Instant::now(), None));
    }

    /// Begins a refill. If a refill is under way, ends it and begins one that covers both extents.
    fn begin_refill(&mut self, of: Of) {
        if !self.is_leaving {
            let running = self.refill.take();
            let of = running.as_ref().map_or(of, |running| running.of.and(of));
            let bucket = running.map_or(0, |running| running.bucket);
            let left = self.tier.buckets_total();
            self.refill = Some(Refill { of, bucket, left, keys: BTreeSet::new(), count: 0, began: None });
        }
    }

    /// Closes the connection. The jobs that were under way are repeated: the worker reads the journal again from the last confirmed
    /// change, and begins scans and refills anew. `why` must not contain secrets.
    fn fail(&mut self, why: &str) {
        let waited = match self.link {
            Link::Down(..) => return,
            Link::Connecting(waited) => waited,
            Link::Up(waited) => waited,
        };
        if waited < PAUSE_MAX {
            pgrx::log!("pg_cache cannot reach Redis: {why}");
        }
        let pause = (waited * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.link = Link::Down(Instant::now() + pause, pause);
        self.state.set_connected(false, shared::tick());
        self.state.set_error(why);
        errors::note(self.slot, SqlState::CONNECTION_FAILURE);
        self.position = Position::at(self.acked);
        (self.keys, self.wide) = (BTreeSet::new(), None);
        let tasks = std::mem::take(&mut self.tasks);
        tasks.iter().for_each(|task| self.undo(task));
        // The answers to these jobs are still to come, but must not count as answers to the former tasks.
        self.tasks = tasks.into_iter().map(|_| Task::Check).collect();
        self.scans.restart();
        if let Some(of) = self.refill.as_ref().map(|refill| refill.of) {
            self.begin_refill(of);
        }
    }

    /// Notes that a task may not have been done. `fail` makes the worker read the changes from the journal again.
    fn undo(&mut self, task: &Task) {
        match task {
            Task::Sets(ids, bucket, _) => ids.iter().for_each(|id| self.sets.put_back(*id, *bucket)),
            Task::Compare(_) => self.scans.request(self.places.names().all()),
            // Redis may have the value without the addition to its set. A refill removes no key, so only a scan can remove the
            // value.
            Task::Refill(of, _) => {
                self.begin_refill(*of);
                self.scans.request(self.places.names().all());
            }
            Task::Connect | Task::Check | Task::Changes(..) | Task::Scan => {}
        }
    }
}
