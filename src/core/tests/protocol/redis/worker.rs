//! The steps of the worker that copies values to Redis. Steps that also exist in `src/workers/redis/copier.rs` have the names that
//! they have there. Reading the journal and making batches are in `journal.rs` and `batches.rs` of that folder.
//!
//! In the model, a worker follows the *journal*, the records of changes, and gives Redis the present values of the keys by *jobs*
//! of a few commands. The *set* has the keys that depend on the tag; its *proof* is a member that only the addition which creates
//! the set adds. *Zombies* are commands of a connection that was given up. `mod.rs` has the details. `state.rs` lists the steps,
//! and `scenarios.rs` the *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Redis, Variant};
use super::state::{Answer, Change, Command, Job, KEYS, State, Task, Value, Wide};

/// Takes the first key out of some keys.
fn take_first(keys: &mut u8) -> u8 {
    let key = keys.trailing_zeros() as u8;
    *keys &= !(1 << key);
    key
}

impl State {
    /// Returns the steps that the worker may take.
    pub fn worker_steps(&self, model: &Redis) -> Vec<super::state::Step> {
        use super::state::Step::*;
        let worker = &self.worker;
        let mut steps = Vec::new();
        if worker.jobs.first().is_some_and(|job| job.answer.is_done) {
            steps.push(Handle);
        }
        if !worker.is_up {
            steps.extend(worker.jobs.is_empty().then_some(Connect));
            return steps;
        }
        let has_task = |task| worker.jobs.iter().any(|job| job.task == task);
        if (worker.keys, worker.wide) == (0, None) && worker.position != self.tail() {
            steps.push(ReadJournal);
        }
        steps.extend(worker.owes_scan.then_some(Compare));
        if worker.jobs.len() >= model.depth {
            return steps;
        }
        // A check of the same server changes nothing.
        let is_same = worker.identity == Some(self.server.identity);
        let are_scans_done = worker.scan.is_none() && !worker.is_scan_wanted;
        let possible = [
            (Check, !is_same && !has_task(Task::Check)),
            (SendKey, worker.keys != 0),
            (SendWide, worker.keys == 0 && worker.wide.is_some()),
            (SendFound, worker.found != 0),
            (SendScan, !are_scans_done && !has_task(Task::Scan)),
            (SendRefill, are_scans_done && worker.found == 0 && worker.refill.is_some()),
        ];
        steps.extend(possible.into_iter().filter(|(_, is_possible)| *is_possible).map(|(step, _)| step));
        steps
    }

    /// Notes that all changes are confirmed if none is under way. Must be called after each step of the model.
    pub fn settle(&mut self) {
        let worker = &mut self.worker;
        let is_change = |job: &Job| matches!(job.task, Task::Changes(_) | Task::Sets(_));
        if (worker.keys, worker.wide) == (0, None) && !worker.jobs.iter().any(is_change) {
            worker.acked = worker.position;
        }
    }

    fn send(&mut self, task: Task, commands: Vec<Command>) {
        let creates_set = commands.contains(&Command::Prove);
        self.worker.jobs.push(Job { task, creates_set, commands, answer: Answer::default() });
    }

    /// Connects to Redis, and learns its identity.
    pub fn connect(&mut self, model: &Redis) {
        self.worker.is_up = true;
        self.is_linked = true;
        if !model.is(Variant::KeepsZombies) {
            self.zombies.clear();
        }
        if model.is(Variant::KeepsIdentity) {
            self.worker.identity = Some(self.server.identity);
        }
        self.learn(model, self.server.identity);
    }

    pub fn check(&mut self) {
        self.send(Task::Check, vec![Command::Info]);
    }

    /// Notes the identity of Redis.
    fn learn(&mut self, model: &Redis, identity: u8) {
        if self.worker.identity != Some(identity) {
            self.worker.identity = Some(identity);
            self.resync(model);
        }
    }

    /// Compares all keys, and refills.
    fn resync(&mut self, model: &Redis) {
        let tail = self.tail();
        (self.worker.position, self.worker.acked) = (tail, tail);
        (self.worker.keys, self.worker.wide) = (0, None);
        self.compare_all(model);
        self.worker.refill = Some(0);
    }

    pub fn compare_all(&mut self, model: &Redis) {
        (self.worker.is_known, self.worker.owes_scan) = (false, false);
        self.request_scan(model);
    }

    fn request_scan(&mut self, model: &Redis) {
        let is_merged = model.is(Variant::MergesScans) && self.worker.scan.is_some();
        self.worker.is_scan_wanted |= !is_merged;
    }

    /// Reads the journal up to a change that does not name its keys.
    pub fn read_journal(&mut self, model: &Redis) {
        while self.worker.position < self.tail() && self.worker.wide.is_none() {
            let oldest = self.tail().saturating_sub(model.lines);
            if self.worker.position < oldest {
                if !model.is(Variant::IgnoresLap) {
                    return self.resync(model);
                }
                self.worker.position = oldest;
            }
            let change = self.journal[usize::from(self.worker.position)];
            self.worker.position += 1;
            match model.changes[usize::from(change)] {
                Change::Set(key) | Change::SetTagged(key) => {
                    self.worker.keys |= 1 << key;
                    self.record(model, key, Some(change + 1));
                }
                Change::Delete(key) => {
                    self.worker.keys |= 1 << key;
                    self.record(model, key, None);
                }
                Change::Invalidate if self.worker.is_known => self.worker.wide = Some(Wide::Sets),
                Change::Invalidate => {}
                Change::Flush | Change::Large(_) => self.worker.wide = Some(Wide::Keys),
            }
        }
    }

    fn record(&mut self, model: &Redis, key: usize, value: Option<Value>) {
        if model.is(Variant::CopiesRecord) {
            self.worker.recorded[key] = value;
        }
    }

    /// Sends the next key of the journal. A batch has one key.
    pub fn send_key(&mut self, model: &Redis) {
        let key = take_first(&mut self.worker.keys);
        let are_all = (self.worker.keys, self.worker.wide) == (0, None);
        let through = are_all.then_some(self.worker.position);
        let value = match model.variant {
            Variant::CopiesRecord => self.worker.recorded[usize::from(key)].take(),
            _ => self.values[usize::from(key)],
        };
        self.send_value(model, Task::Changes(through), key, value);
        if model.is(Variant::AcksWhenSent) {
            self.worker.acked = self.worker.acked.max(through.unwrap_or_default());
        }
    }

    /// Sends what Redis must be told of a key that has this value now.
    fn send_value(&mut self, model: &Redis, task: Task, key: u8, value: Option<Value>) {
        let Some(value) = value else { return self.send(task, vec![Command::Unlink(key)]) };
        let set = Command::Set(key, value);
        if !model.is_tagged(value) {
            return self.send(task, vec![set]);
        }
        let must_exist = std::mem::replace(&mut self.worker.is_known, true);
        let add = if must_exist {
            vec![Command::Add(key), Command::Ask]
        } else {
            vec![Command::Prove, Command::Add(key)]
        };
        match model.variant {
            Variant::AddsAfterValue => self.send(task, [&[set], &add[..]].concat()),
            Variant::AddsInLaterJob => {
                self.send(task, vec![set]);
                self.send(Task::Member, add);
            }
            _ => self.send(task, [&add[..], &[set]].concat()),
        }
    }

    /// Sends what follows from a change that does not name its keys.
    pub fn send_wide(&mut self, model: &Redis) {
        match self.worker.wide.take() {
            Some(Wide::Keys) => {
                if !model.is(Variant::LargeOnlyRefills) {
                    self.request_scan(model);
                }
                self.worker.refill = Some(0);
            }
            Some(Wide::Sets) if self.worker.is_known => {
                self.worker.is_known = false;
                let parts = (0..KEYS as u8).map(Command::ReadSet);
                self.send(Task::Sets(self.worker.position), parts.chain([Command::UnlinkSet]).collect());
            }
            _ => {}
        }
    }

    /// Sends a key that a scan has found.
    pub fn send_found(&mut self, model: &Redis) {
        let key = take_first(&mut self.worker.found);
        self.send_value(model, Task::Compare, key, self.values[usize::from(key)]);
    }

    pub fn send_scan(&mut self) {
        if self.worker.scan.is_none() {
            (self.worker.scan, self.worker.is_scan_wanted) = (Some(0), false);
        }
        let at = self.worker.scan.unwrap_or_default();
        self.send(Task::Scan, vec![Command::Scan(at)]);
    }

    /// Sends the next key of the refill if it has a value.
    pub fn send_refill(&mut self, model: &Redis) {
        let Some(key) = self.worker.refill else { return };
        self.worker.refill = Some(key + 1).filter(|next| usize::from(*next) < KEYS);
        if let Some(value) = self.values[usize::from(key)] {
            self.send_value(model, Task::Refill, key, Some(value));
        }
    }

    /// Handles the answer to the oldest job.
    pub fn handle(&mut self, model: &Redis) {
        let Job { task, creates_set, answer, .. } = self.worker.jobs.remove(0);
        if answer.is_failed {
            self.undo(model, task);
            return self.fail(model);
        }
        if answer.is_refused {
            // A later batch may rely on the set.
            let is_batch = |job: &Job| matches!(job.task, Task::Changes(_) | Task::Compare | Task::Refill);
            let is_last = !self.worker.jobs.iter().any(is_batch) || model.is(Variant::ForgetsRefusedSet);
            self.worker.is_known &= !(creates_set && is_last);
            // Redis lacks the values of the batch. The worker waits before it writes them again, which the order of the steps
            // allows.
            self.worker.refill = Some(0);
        } else if answer.has_lost_set {
            match model.variant {
                Variant::IgnoresLostSet => {}
                Variant::ClearsWithoutScan => self.worker.is_known = false,
                _ => self.worker.owes_scan = true,
            }
        }
        match task {
            Task::Changes(Some(through)) | Task::Sets(through) => {
                self.worker.acked = self.worker.acked.max(through);
            }
            Task::Scan => {
                let at = self.worker.scan.unwrap_or_default();
                self.worker.found |= u8::from(answer.has_key) << at;
                self.worker.scan = Some(at + 1).filter(|next| usize::from(*next) < KEYS);
                if model.is(Variant::FollowsAfterScan) && self.worker.scan.is_none() {
                    self.worker.position = self.tail();
                }
            }
            Task::Check => self.learn(model, answer.identity),
            Task::Changes(None) | Task::Compare | Task::Refill | Task::Member => {}
        }
    }

    /// Gives the connection up.
    fn fail(&mut self, model: &Redis) {
        self.worker.is_up = false;
        self.worker.position = self.worker.acked;
        (self.worker.keys, self.worker.wide) = (0, None);
        for job in std::mem::take(&mut self.worker.jobs) {
            self.undo(model, job.task);
        }
        if self.worker.scan.take().is_some() {
            self.request_scan(model);
        }
        self.worker.refill = self.worker.refill.map(|_| 0);
    }

    /// Notes that a job was perhaps not done.
    fn undo(&mut self, model: &Redis, task: Task) {
        match task {
            Task::Sets(_) if !model.is(Variant::ForgetsFailedRemoval) => self.worker.is_known = true,
            Task::Compare if !model.is(Variant::ForgetsFailedCompare) => self.request_scan(model),
            // A value may be there although the addition to its set has failed.
            Task::Refill => {
                if !model.is(Variant::OnlyRefillsAgain) {
                    self.request_scan(model);
                }
                self.worker.refill = Some(0);
            }
            _ => {}
        }
    }
}
