//! The steps of Redis, and of the thread that executes the jobs.
//!
//! In the model, a worker follows the *journal*, the records of changes, and gives Redis the present values of the keys by *jobs*
//! of a few commands. The *set* has the keys that depend on the tag; its *proof* is a member that only the addition which creates
//! the set adds. *Zombies* are commands of a connection that was given up. `mod.rs` has the details. `state.rs` lists the steps,
//! and `scenarios.rs` the *variants*, each of which is the protocol with one rule broken.

use super::scenarios::{Redis, Variant};
use super::state::{Answer, Command, Job, Server, State, Step, Task};

impl Server {
    /// Executes a command. Returns a command that the thread sends next because of the answer.
    fn execute(&mut self, model: &Redis, command: Command, answer: &mut Answer) -> Option<Command> {
        let mut next = None;
        match command {
            Command::Prove => self.set.get_or_insert_default().is_proved = true,
            Command::Add(key) => self.set.get_or_insert_default().members |= 1 << key,
            Command::Ask => {
                let is_proved = self.set.is_some_and(|set| set.is_proved);
                answer.has_lost_set |= !is_proved && !model.is(Variant::NeedsNoProof);
            }
            Command::Set(key, value) => self.values[usize::from(key)] = Some(value),
            Command::Unlink(key) => self.values[usize::from(key)] = None,
            Command::ReadSet(part) => {
                if let Some(set) = self.set {
                    answer.is_proved |= part == 0 && set.is_proved || model.is(Variant::NeedsNoProof);
                    next = (set.members >> part & 1 == 1).then_some(Command::Unlink(part));
                }
            }
            Command::UnlinkSet => {
                let is_gone = self.set.take().is_none() && !model.is(Variant::IgnoresLateEviction);
                answer.has_lost_set |= is_gone || !answer.is_proved;
            }
            Command::Scan(key) => answer.has_key = self.values[usize::from(key)].is_some(),
            Command::Info => answer.identity = self.identity,
        }
        next
    }
}

impl Job {
    /// Returns the commands that Redis may have received and not executed. A batch is one pipeline. In a removal, the thread waits
    /// for each answer.
    fn sent(&self) -> &[Command] {
        let count = if matches!(self.task, Task::Sets(_)) { 1 } else { self.commands.len() };
        &self.commands[..count]
    }

    /// Returns the position of the next command for another server of the cluster than that of the next command.
    fn next_of_other(&self) -> Option<usize> {
        let sent = self.sent();
        sent.iter().position(|command| command.is_of_set() != sent[0].is_of_set())
    }

    /// Returns the key of the first value that the job still sets, or of the set's new member.
    fn key(&self) -> Option<u8> {
        self.commands.iter().find_map(|command| match command {
            Command::Set(key, _) | Command::Add(key) => Some(*key),
            _ => None,
        })
    }
}

impl Command {
    /// Returns whether the command concerns the set. In the model of a cluster, one server has the set, and another one the values.
    fn is_of_set(self) -> bool {
        matches!(self, Self::Prove | Self::Add(_) | Self::Ask | Self::ReadSet(_) | Self::UnlinkSet)
    }
}

impl State {
    /// Returns the oldest job that has not ended.
    fn current_job(&mut self) -> Option<&mut Job> {
        self.worker.jobs.iter_mut().find(|job| !job.answer.is_done)
    }

    /// Returns the steps that are possible in Redis and in the network.
    pub fn server_steps(&self, model: &Redis, steps: &mut Vec<Step>) {
        let current = self.worker.jobs.iter().find(|job| !job.answer.is_done).filter(|_| self.is_linked);
        if let Some(job) = current {
            steps.push(Step::Execute);
            let has_other = model.is_cluster && job.next_of_other().is_some();
            steps.extend(has_other.then_some(Step::ExecuteOther));
            let grows = matches!(job.commands[0], Command::Prove | Command::Add(_) | Command::Set(..));
            steps.extend((grows && self.left.refusals > 0).then_some(Step::Refuse));
            steps.extend((self.left.losses > 0).then_some(Step::Lose));
        }
        steps.extend((!self.zombies.is_empty()).then_some(Step::ExecuteZombie));
        steps.extend((self.left.evictions > 0 && self.server.set.is_some()).then_some(Step::Evict));
        steps.extend((self.left.failovers > 0).then_some(Step::FailOver));
    }

    /// Executes or refuses the next command of the oldest job.
    pub fn execute(&mut self, model: &Redis, is_refused: bool) {
        let mut server = self.server;
        let Some(job) = self.current_job() else { return };
        let key = job.key();
        let command = job.commands.remove(0);
        if is_refused {
            job.answer.is_refused = true;
            // After the answers to the batch, the thread removes the keys of its values.
            if !model.is(Variant::LeavesRefused) {
                job.commands.extend(key.map(Command::Unlink));
            }
        } else if let Some(next) = server.execute(model, command, &mut job.answer) {
            job.commands.insert(0, next);
        }
        job.answer.is_done = job.commands.is_empty();
        self.server = server;
        self.left.refusals -= u8::from(is_refused);
    }

    /// Lets another server of the cluster execute its next command.
    pub fn execute_other(&mut self, model: &Redis) {
        if let Some(job) = self.current_job()
            && let Some(next) = job.next_of_other()
        {
            job.commands[..=next].rotate_right(1);
            self.execute(model, false);
        }
    }

    /// Executes the next command of the connection that was given up. Its answer goes nowhere.
    pub fn execute_zombie(&mut self, model: &Redis) {
        let command = self.zombies.remove(0);
        self.server.execute(model, command, &mut Answer::default());
    }

    /// Loses the connection: the present job fails, and the jobs after it are skipped.
    pub fn lose(&mut self) {
        self.left.losses -= 1;
        self.is_linked = false;
        let Some(job) = self.current_job() else { return };
        let sent = job.sent().to_vec();
        (job.answer.is_done, job.answer.is_failed) = (true, true);
        job.commands.clear();
        self.zombies = sent;
    }

    /// Gives Redis its first data back, with a new identity.
    pub fn fail_over(&mut self, model: &Redis) {
        self.left.failovers -= 1;
        self.server = Server { identity: self.server.identity + 1, ..model.server() };
    }
}
