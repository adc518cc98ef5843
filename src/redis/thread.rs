//! The thread that executes jobs, and the channels to it. A *job* is one task for Redis, such as connecting or writing a batch of
//! values (`jobs.rs`). The Redis worker of pg_cache (`workers/redis/copier.rs`) sends the jobs, so that only this thread waits for
//! Redis.
//!
//! The thread executes the jobs in the order in which they were sent. After a failure it skips all jobs until `Job::Connect`
//! succeeds, so no job is executed out of order.

use crate::failure::Failure;
use crate::jobs::{Answer, Job};
use crate::link::Link;
use crate::members;
use crate::node::Past;
use crate::target::Target;
use crate::writing;
use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// The thread that owns the connections to Redis. Dropping the value lets the thread end after the job that it executes; nothing
/// waits for it.
pub struct Client {
    /// The channel to the thread.
    jobs: SyncSender<Job>,
    /// The channel from the thread.
    answers: Receiver<Answer>,
    /// The thread.
    thread: JoinHandle<()>,
    /// How many jobs have been sent and not been answered.
    outstanding: Cell<usize>,
}

impl Client {
    /// Starts the thread. It connects only when `Job::Connect` says so. The caller must have blocked all signals, because a signal
    /// of the process must never be handled on this thread. `capacity` bounds the jobs that wait, and the answers that wait.
    pub fn start(target: Target, capacity: usize) -> io::Result<Self> {
        let mut executor = Executor { target, link: None, past: Vec::new(), has_connected: false };
        Self::start_with(capacity, move |job| executor.execute(job))
    }

    /// Starts a thread that executes each job by `execute`.
    fn start_with(
        capacity: usize,
        mut execute: impl FnMut(Job) -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, next_job) = sync_channel(capacity.max(1));
        let (answer, answers) = sync_channel(capacity.max(1));
        let thread = Builder::new().name("pg_cache redis".to_owned()).spawn(move || {
            // Dropping the client closes both channels, which ends this loop: `recv` fails if no job is left, and `send` fails
            // after a job. A panic ends the closure, which closes both channels, too.
            while let Ok(job) = next_job.recv() {
                if answer.send(execute(job)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, answers, thread, outstanding: Cell::new(0) })
    }

    /// Sends a job. Returns the job if the channel is full, or if the thread has ended.
    pub fn send(&self, job: Job) -> Result<(), Job> {
        match self.jobs.try_send(job) {
            Ok(()) => {
                self.outstanding.update(|count| count + 1);
                Ok(())
            }
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Err(job),
        }
    }

    /// Returns the next answer, in the order of the jobs. Waits up to `wait` for it. If the thread has ended, each job that it has
    /// not answered is answered `Failed`.
    pub fn answer(&self, wait: Duration) -> Option<Answer> {
        if self.outstanding.get() == 0 {
            return None;
        }
        let answer = match self.answers.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                Answer::Failed("the thread for Redis has ended".to_owned())
            }
        };
        self.outstanding.update(|count| count - 1);
        Some(answer)
    }

    /// Returns how many jobs have been sent and not been answered.
    pub fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// Returns whether the thread has ended, which only a panic does.
    pub fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Executor {
    target: Target,
    /// `None` before the first connection, and after a failure.
    link: Option<Link>,
    /// The connections that were given up. The servers may still read commands from them, so the next [`Link::open`] ends them.
    past: Vec<Past>,
    /// Whether a connection has succeeded. Until then, [`Link::open`] also ends all other connections with the target's name.
    has_connected: bool,
}

impl Executor {
    /// Executes a job. A failure gives the connection up, and later jobs are skipped until `Job::Connect`.
    fn execute(&mut self, job: Job) -> Answer {
        let done = match (job, &mut self.link) {
            (Job::Connect, _) => self.connect(),
            (_, None) => return Answer::Skipped,
            (Job::Check, Some(link)) => link.check().map(Answer::Facts),
            (Job::Write(batch), Some(link)) => writing::write(link, &batch),
            (Job::RemoveMembers { sets, channel }, Some(link)) => {
                members::remove(link, &sets, &channel).map(|all_found| Answer::MembersRemoved { all_found })
            }
            (Job::Scan { node, cursor, pattern }, Some(link)) => {
                link.scan(node, cursor, &pattern).map(|(next, keys)| Answer::Scanned { next, keys })
            }
        };
        match done {
            Ok(Answer::Written { refused, lost_sets }) => {
                Answer::Written { refused: refused.map(|words| self.target.clean(&words)), lost_sets }
            }
            Ok(answer) => answer,
            Err(Failure(text)) => {
                self.give_up();
                Answer::Failed(self.target.clean(&text))
            }
        }
    }

    /// Gives up the present connections, and connects anew.
    fn connect(&mut self) -> Result<Answer, Failure> {
        self.give_up();
        let link = Link::open(&self.target, &self.past, !self.has_connected)?;
        self.has_connected = true;
        self.past.clear();
        let facts = link.facts();
        self.link = Some(link);
        Ok(Answer::Facts(facts))
    }

    /// Drops the connections, and keeps what identifies them.
    fn give_up(&mut self) {
        if let Some(link) = self.link.take() {
            self.past.extend(link.past());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Fails if a panic on the thread ends the process, or if a job that was sent before the panic gets no answer.
    #[test]
    fn a_panic_ends_the_thread_only() {
        let mut count = 0;
        let client = Client::start_with(8, move |_| {
            count += 1;
            assert!(count < 3, "the third job");
            Answer::Skipped
        })
        .expect("a thread starts");
        for _ in 0..4 {
            client.send(Job::Check).expect("there is room");
        }
        assert_eq!(client.answer(LONG), Some(Answer::Skipped));
        assert_eq!(client.answer(LONG), Some(Answer::Skipped));
        let failed = Some(Answer::Failed("the thread for Redis has ended".to_owned()));
        assert_eq!((client.answer(LONG), client.answer(LONG)), (failed.clone(), failed));
        assert_eq!(client.answer(LONG), None);
        while !client.is_dead() {
            std::thread::yield_now();
        }
        assert!(client.send(Job::Check).is_err());
    }

    /// Fails if the worker would wait for the thread when the channel is full, or if an answer is lost.
    #[test]
    fn a_full_channel_returns_the_job() {
        let (release, wait) = sync_channel::<()>(0);
        let client = Client::start_with(1, move |_| {
            let _ = wait.recv();
            Answer::Skipped
        })
        .expect("a thread starts");
        let mut sent = 0;
        while client.send(Job::Check).is_ok() {
            sent += 1;
        }
        // One job waits. The thread may have taken another.
        assert!((1..=2).contains(&sent));
        assert_eq!(client.answer(Duration::from_millis(1)), None);
        drop(release);
        for _ in 0..sent {
            assert_eq!(client.answer(LONG), Some(Answer::Skipped));
        }
        assert_eq!((client.answer(LONG), client.outstanding()), (None, 0));
    }
}
