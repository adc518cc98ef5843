//! A load: sessions call a cached query for some time, while another session commits. Each call is recorded. So a test can ask how
//! old the answers were, which share of the calls in each second got a stored result ([`Record::by_second`]), and when the query
//! ran.

use super::calls::{call, run};
use super::seconds::Seconds;
use super::slow::{Outcome, RoomyDatabase, ask, ensure};
use postgres::Client;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// The calls and writes of the sessions.
#[derive(Clone, Copy, Debug)]
pub struct Load<'l> {
    /// The query. Its result must be one text that is a number. [`Record::assert_not_older`] compares it with the numbers that the
    /// writer has committed, so it must then be the column `v` of a written table.
    pub query: &'l str,
    /// The groups of readers. Each group has a number of sessions, and further arguments of their calls of `cache_query`, such as
    /// `stale_ok => '3 s'`.
    pub groups: &'l [(usize, &'l str)],
    /// The pause of a reader between two calls.
    pub pace: Duration,
    /// The tables that the writer changes every 10 ms, all in one transaction: it sets their column `v` to the number of the
    /// transaction, which begins with 2. The column must be 1 at the beginning. Without tables there is no writer.
    pub written: &'l [&'l str],
    /// The duration of the load.
    pub time: Duration,
}

/// The commits of the writer: for each, the moment of its acknowledgement, and the value that it wrote.
#[derive(Debug, Default)]
pub struct Commits(Mutex<Vec<(Instant, i64)>>);

impl Commits {
    fn note(&self, value: i64) {
        self.0.lock().expect("no thread panics").push((Instant::now(), value));
    }

    /// Returns the last value that was acknowledged at this time, or 1 before the first commit. None stands for a time before all
    /// commits.
    pub fn at(&self, time: Option<Instant>) -> i64 {
        let commits = self.0.lock().expect("no thread panics");
        let earlier = time.map_or(0, |time| commits.partition_point(|(at, _)| *at <= time));
        earlier.checked_sub(1).map_or(1, |last| commits[last].1)
    }
}

/// A load that is under way.
#[derive(Debug)]
pub struct Course {
    /// When the load ends.
    end: Instant,
    /// The commits so far.
    pub commits: Commits,
}

impl Course {
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }
}

/// A call of a reader.
#[derive(Debug)]
pub struct Read {
    /// The moment before the call.
    pub asked: Instant,
    /// The number that the call returned, or 0 if it returned none.
    pub value: i64,
    /// The outcome of the call.
    pub outcome: Outcome,
}

/// The calls and commits of a load that is over.
#[derive(Debug)]
pub struct Record {
    /// When the readers began.
    begin: Instant,
    /// The duration of the load.
    time: Duration,
    /// The commits of the writer.
    pub commits: Commits,
    /// The calls of each group of readers.
    pub groups: Vec<Vec<Read>>,
}

impl Load<'_> {
    /// Runs the load in a database, which must have the tables. Calls `meanwhile` when the readers begin. Returns when the load and
    /// `meanwhile` have ended.
    pub fn run(&self, database: &RoomyDatabase, meanwhile: impl FnOnce(&Course)) -> Record {
        let connect = |(number, options): &(usize, &str)| {
            (database.sessions(*number), call(self.query, "v text", options))
        };
        let groups: Vec<_> = self.groups.iter().map(connect).collect();
        let mut writer = database.connect();
        let begin = Instant::now();
        let over = Course { end: begin + self.time, commits: Commits::default() };
        let course = &over;
        let groups = thread::scope(|threads| {
            if !self.written.is_empty() {
                threads.spawn(|| self.write(&mut writer, course));
            }
            let spawn = |(sessions, statement): (Vec<Client>, String)| -> Vec<_> {
                let read = |mut session: Client| {
                    let statement = statement.clone();
                    threads.spawn(move || self.read(&mut session, &statement, course))
                };
                sessions.into_iter().map(read).collect()
            };
            let reading: Vec<_> = groups.into_iter().map(spawn).collect();
            meanwhile(course);
            let join = |group: Vec<thread::ScopedJoinHandle<'_, Vec<_>>>| -> Vec<_> {
                group.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
            };
            reading.into_iter().map(join).collect()
        });
        Record { begin, time: self.time, commits: over.commits, groups }
    }

    /// Changes the tables every 10 ms, and notes each commit, until the load is over.
    fn write(&self, writer: &mut Client, course: &Course) {
        for v in 2.. {
            let update = |table: &&str| format!("UPDATE {table} SET v = {v}");
            run(writer, &self.written.iter().map(update).collect::<Vec<_>>().join("; "));
            course.commits.note(v);
            thread::sleep(Duration::from_millis(10));
            if course.is_over() {
                break;
            }
        }
    }

    /// Calls the query again and again until the load is over, and returns the calls.
    fn read(&self, session: &mut Client, statement: &str, course: &Course) -> Vec<Read> {
        let mut found = Vec::new();
        while !course.is_over() {
            let asked = Instant::now();
            let outcome = ask(session, statement);
            let value = match outcome.answer.as_deref() {
                Ok([row]) => row[0].as_ref().and_then(|value| value.parse().ok()),
                _ => None,
            };
            found.push(Read { asked, value: value.unwrap_or(0), outcome });
            thread::sleep(self.pace);
        }
        found
    }
}

impl Record {
    /// Asserts that no answer of a group lacks a change that was committed at least `age` before the call.
    pub fn assert_not_older(&self, group: usize, age: Duration) {
        let found = &self.groups[group];
        let is_older = |read: &&Read| read.value < self.commits.at(read.asked.checked_sub(age));
        let older: Vec<_> = found.iter().filter(is_older).collect();
        let first = older.first();
        assert!(older.is_empty(), "{} of {} are older than {age:?}: {first:?}", older.len(), found.len());
    }

    /// Returns an error unless there were enough calls of a group, and at most 5 % of them ran the query.
    pub fn ensure_mostly_served(&self, group: usize) -> Result<(), String> {
        let (found, ran) = (&self.groups[group], self.runs(group));
        ensure(found.len() > 200, || format!("only {} calls", found.len()))?;
        let is_right = ran.len() * 20 <= found.len();
        ensure(is_right, || format!("{} of {} have run: {ran:?}", ran.len(), found.len()))
    }

    /// Returns the calls of a group that ran the query, in the order of their beginnings.
    pub fn runs(&self, group: usize) -> Vec<&Read> {
        let mut runs: Vec<_> = self.groups[group].iter().filter(|read| read.outcome.has_run()).collect();
        runs.sort_by_key(|read| read.asked);
        runs
    }

    /// Returns what happened in each second, in the calls of a group.
    pub fn by_second(&self, group: usize) -> Seconds {
        let since = |read: &Read| read.asked.duration_since(self.begin);
        let mut seconds = Seconds::new(self.time.as_secs() as usize);
        for read in &self.groups[group] {
            seconds.count(since(read), read.is_served());
        }
        for run in self.runs(group) {
            seconds.note_run(since(run), run.outcome.took);
        }
        seconds
    }
}

impl Read {
    /// Returns whether the call got a stored result without waiting.
    pub fn is_served(&self) -> bool {
        ["hot", "stale"].contains(&&*self.outcome.status)
    }
}
