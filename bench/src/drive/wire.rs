//! Sends a prepared statement over the wire: for the contenders of the plan with `Work::Statement` (`plan.rs`), and for the parts
//! of the report that measure requests. A *pipeline* is the requests that a client sends before it waits for their answers; often
//! it is only one.
//!
//! This client treats PostgreSQL as redis-benchmark treats Redis, so that the comparison uses clients of the same kind. It has one
//! thread. It builds each request once and replaces only the digits of the keys. It reads answers to their end and does not decode
//! them. pgbench is not suitable: it runs a script and reads results through libpq, and spends more time on an operation than the
//! server.

use super::load::{Load, Run};
use crate::data::{
    FEW_KEYS, FIRST_KEY, FIRST_NEW_KEY, FIRST_TEXT_KEY, FIRST_WRITTEN_KEY, KEYS, SAVED_BYTES, json, value,
};
use crate::eviction::traces::Random;
use crate::plan::Given;
use anyhow::{Context, Result, bail, ensure};
use pg_cache_testbed::Cluster;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// The OID of PostgreSQL's type `bigint` (`pg_type.dat`).
const BIGINT: u32 = 20;
/// The OID of `text`.
const TEXT: u32 = 25;
/// The OID of `text[]`.
const TEXTS: u32 = 1009;
/// The OID of `jsonb`.
const JSONB: u32 = 3802;
/// The number of digits of a key: see [`FIRST_KEY`].
const DIGITS: usize = 13;

/// When a run stops.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Each client stops with its first answer after this time.
    Over(Duration),
    /// Stop after this number of pipelines of all clients together, but at least one for each client.
    Done(u64),
}

/// The work of all clients in a run.
#[derive(Clone, Copy, Debug)]
pub struct Task<'t> {
    /// The statement, which each session prepares on first use.
    pub statement: &'t str,
    /// The parameters of the statement.
    pub given: Given,
    /// The clients, and what each of them sends at once.
    pub load: Load,
    /// The seed of the random keys. Another seed gives other keys. Only its lower 32 bits count: the number of the client is added
    /// below them, so that each client has keys of its own.
    pub seed: u64,
}

/// Another statement that the clients of a task send instead of the task's own, at random.
#[derive(Clone, Copy, Debug)]
pub struct Other<'t> {
    pub statement: &'t str,
    pub given: Given,
    /// The share of this statement in all requests, from 0 to 1.
    pub share: f64,
}

/// Sessions that stay connected across statements, like those of a connection pool. All calls must name the same cluster. After an
/// error, the pool must not be used again, because answers may be unread.
///
/// Each page of shared memory that a session touches for the first time costs it a page fault of a few microseconds. So a session
/// that is half a second old is slower than it will be later. Redis is a single process, which has touched all its pages.
#[derive(Default)]
pub struct Pool(Vec<Session>);

impl Pool {
    /// Returns the process IDs of the first `count` sessions. Connects the sessions that are missing.
    pub fn processes(&mut self, cluster: &Cluster, count: u32) -> Result<Vec<u32>> {
        Ok(self.take(cluster, count)?.iter().map(|session| session.process).collect())
    }

    /// Returns the first `count` sessions. Connects the sessions that are missing.
    fn take(&mut self, cluster: &Cluster, count: u32) -> Result<&mut [Session]> {
        while self.0.len() < count as usize {
            self.0.push(Session::connect(cluster)?);
        }
        Ok(&mut self.0[..count as usize])
    }

    /// Makes all clients of the task send its statement with random keys at the same time, and returns when all answers have
    /// arrived. One key counts as one operation. Returns an error if the server refuses a statement.
    pub fn run(&mut self, cluster: &Cluster, task: Task<'_>, until: Until) -> Result<Run> {
        self.run_mixed(cluster, task, None, until)
    }

    /// Does the same as [`run`](Self::run), and sends another statement in a share of the requests.
    pub fn run_mixed(
        &mut self,
        cluster: &Cluster,
        task: Task<'_>,
        other: Option<Other<'_>>,
        until: Until,
    ) -> Result<Run> {
        let load = task.load;
        let sessions = self.take(cluster, load.clients)?.iter_mut().enumerate();
        let mut clients: Vec<Client> = sessions
            .map(|(number, session)| Client::of(session, task, other, number as u64))
            .collect::<Result<_>>()?;
        let started = Instant::now();
        for client in &mut clients {
            client.ask()?;
        }
        let (mut asked, mut answers, mut waiting) = (clients.len() as u64, 0_u64, clients.len());
        let mut ready = vec![true; clients.len()];
        while waiting > 0 {
            // A single client needs no poll: the read waits for its answer.
            if clients.len() > 1 {
                let mut sockets: Vec<_> =
                    clients.iter().map(|client| PollFd::new(&client.session.socket, PollFlags::IN)).collect();
                poll(&mut sockets, None).context("cannot wait for answers")?;
                ready.clear();
                ready.extend(sockets.iter().map(|socket| !socket.revents().is_empty()));
            }
            let most = match until {
                Until::Over(span) if started.elapsed() > span => 0,
                Until::Over(_) => u64::MAX,
                Until::Done(requests) => requests,
            };
            for (client, _) in clients.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
                if client.session.answered()? {
                    answers += 1;
                    if asked < most {
                        client.ask()?;
                        asked += 1;
                    } else {
                        waiting -= 1;
                    }
                }
            }
        }
        let operations = answers * u64::from(load.keys * load.pipeline);
        Ok(Run { operations, per_second: operations as f64 / started.elapsed().as_secs_f64() })
    }
}

/// One session with the server.
struct Session {
    socket: UnixStream,
    /// The ID of the backend process of the session.
    process: u32,
    /// The statements that the session has prepared, with the types of their parameters. A statement's name is its position in this
    /// list.
    prepared: Vec<(String, &'static [u32])>,
    /// How much of the present answer has been read.
    answer: Answer,
    /// The buffer for answers: 64 KB, more than an answer with 100 keys. It is allocated once, because clearing it takes about a
    /// third of the time that the server needs for a small answer.
    buffer: Box<[u8]>,
}

impl Session {
    /// Connects as the superuser, and waits until the server is ready. The server must not ask for a password: the test harness
    /// (`tests/harness/`) sets up `trust`.
    fn connect(cluster: &Cluster) -> Result<Self> {
        let socket = UnixStream::connect(cluster.socket_dir().join(".s.PGSQL.5432"))
            .context("the server's socket does not answer")?;
        // Version 3.0 of the protocol.
        let mut hello = vec![0, 3, 0, 0];
        hello.extend(b"user\0postgres\0database\0postgres\0\0");
        let mut first = length(hello.len());
        first.extend(hello);
        let mut session = Self {
            socket,
            process: 0,
            prepared: Vec::new(),
            answer: Answer::default(),
            buffer: vec![0; 1 << 16].into(),
        };
        session.socket.write_all(&first)?;
        let mut greeting = Vec::new();
        loop {
            let bytes = session.read()?;
            greeting.extend(bytes);
            let length = bytes.len();
            if session.answer.take(&session.buffer[..length])? {
                break;
            }
        }
        session.process = process(&greeting).context("the server does not say which process it is")?;
        Ok(session)
    }

    /// Returns the name of a statement, and prepares the statement if it is not prepared yet.
    fn prepare(&mut self, statement: &str, types: &'static [u32]) -> Result<String> {
        let name = |place: usize| format!("q{place}");
        if let Some(place) = self.prepared.iter().position(|known| known.0 == statement && known.1 == types) {
            return Ok(name(place));
        }
        let name = name(self.prepared.len());
        self.prepared.push((statement.to_owned(), types));
        let mut parse = Message::of(b'P');
        parse.text(&name).text(statement).short(types.len() as u16);
        for number in types {
            parse.long(*number);
        }
        let prepare = [parse.end(), Message::of(b'S').end()].concat();
        self.socket.write_all(&prepare)?;
        while !self.answered()? {}
        Ok(name)
    }

    /// Reads the bytes that have arrived, and waits until there are some. Returns whether they end an answer.
    fn answered(&mut self) -> Result<bool> {
        let length = self.read()?.len();
        self.answer.take(&self.buffer[..length])
    }

    /// Reads at least one byte, and at most as many as the buffer holds.
    fn read(&mut self) -> Result<&[u8]> {
        let count = self.socket.read(&mut self.buffer).context("the server does not answer")?;
        ensure!(count > 0, "the server ends the session");
        Ok(&self.buffer[..count])
    }
}

/// Returns the process ID that the server sends in its greeting (message `K`), or `None` if there is no complete message of this
/// kind.
fn process(mut greeting: &[u8]) -> Option<u32> {
    loop {
        let (kind, rest) = greeting.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        if *kind == b'K' {
            return Some(u32::from_be_bytes(*rest.get(4..)?.first_chunk()?));
        }
        greeting = rest.get(length..)?;
    }
}

/// A client that sends one pipeline of a statement again and again.
struct Client<'s> {
    session: &'s mut Session,
    request: Request,
    /// The pipeline of the other statement, and its share of all pipelines.
    other: Option<(Request, f64)>,
    random: Random,
}

impl<'s> Client<'s> {
    /// Prepares the statements in the session. `number` tells the clients of a run apart.
    fn of(session: &'s mut Session, task: Task<'_>, other: Option<Other<'_>>, number: u64) -> Result<Self> {
        let mut request = |statement, given: Given| -> Result<Request> {
            let name = session.prepare(statement, given.types())?;
            Ok(Request::of(&name, given, task.load))
        };
        let own = request(task.statement, task.given)?;
        let other = match other {
            Some(Other { statement, given, share }) => Some((request(statement, given)?, share)),
            None => None,
        };
        Ok(Self { session, request: own, other, random: Random::of_seed(task.seed << 32 | number) })
    }

    /// Sends the pipeline with new random keys. The answer to the one before must have been read to its end.
    fn ask(&mut self) -> Result<()> {
        let request = match &mut self.other {
            Some((other, share)) if self.random.fraction() < *share => other,
            _ => &mut self.request,
        };
        let Request { bytes, keys, first, count } = request;
        for at in keys {
            let mut key = *first + self.random.below(*count);
            for digit in bytes[*at..*at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (key % 10) as u8;
                key /= 10;
            }
        }
        self.session.socket.write_all(bytes).context("the server takes no request")
    }
}

/// How much of an answer has been read.
#[derive(Default)]
struct Answer {
    /// The kind and length of the current message, as far as they have arrived.
    head: Vec<u8>,
    /// Bytes of the current message's body that have not arrived yet.
    rest: usize,
}

impl Answer {
    /// Consumes bytes of an answer. Returns whether the answer has ended, so that the server is ready for the next request. Before
    /// that request, the server sends nothing more, so bytes behind the end are not expected, and are ignored. An error message of
    /// the server is an error.
    fn take(&mut self, mut bytes: &[u8]) -> Result<bool> {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            if self.rest > 0 || bytes.is_empty() {
                break;
            }
            let missing = (5 - self.head.len()).min(bytes.len());
            self.head.extend(&bytes[..missing]);
            bytes = &bytes[missing..];
            if let [kind, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.rest = (u32::from_be_bytes(length) as usize).saturating_sub(4);
                match kind {
                    b'E' => bail!("the server refuses a request: {}", String::from_utf8_lossy(bytes)),
                    // The body of ReadyForQuery is one byte. It is in these bytes, or it is skipped next time.
                    b'Z' => {
                        self.rest -= self.rest.min(bytes.len());
                        self.head.clear();
                        return Ok(true);
                    }
                    _ => self.head.clear(),
                }
            }
        }
        Ok(false)
    }
}

/// The pipeline that a client sends again and again, with other keys each time.
struct Request {
    /// The messages, as they are sent.
    bytes: Vec<u8>,
    /// The offsets of the keys in `bytes`. A key is [`DIGITS`] bytes long.
    keys: Vec<usize>,
    /// The smallest key that the pipeline may ask for.
    first: u64,
    /// The number of keys from `first` on that the pipeline may ask for. All of them must have [`DIGITS`] digits.
    count: u64,
}

impl Request {
    /// Builds a pipeline: one or more executions of the prepared statement `name`, and one Sync message. The server answers a
    /// pipeline with one ReadyForQuery.
    fn of(name: &str, given: Given, load: Load) -> Self {
        let first = match given {
            Given::Key | Given::Keys | Given::KeyAndValue | Given::Row | Given::FewRows | Given::Nothing => {
                FIRST_KEY
            }
            Given::TextKey => FIRST_TEXT_KEY,
            Given::WrittenKeyAndJson | Given::WrittenKeyAndText => FIRST_WRITTEN_KEY,
            Given::NewKeyAndText => FIRST_NEW_KEY,
        };
        let count = match given {
            Given::NewKeyAndText => FIRST_KEY,
            Given::FewRows => FEW_KEYS,
            _ => KEYS,
        };
        let mut request = Self { bytes: Vec::new(), keys: Vec::new(), first, count };
        for _ in 0..load.pipeline {
            let (bind, keys) = bind(name, given, load.keys);
            request.keys.extend(keys.into_iter().map(|at| request.bytes.len() + at));
            request.bytes.extend(bind);
            let mut execute = Message::of(b'E');
            execute.text("").long(0);
            request.bytes.extend(execute.end());
        }
        request.bytes.extend(Message::of(b'S').end());
        request
    }
}

impl Given {
    /// Returns the OIDs of the types of the parameters.
    fn types(self) -> &'static [u32] {
        match self {
            Self::Key | Self::TextKey => &[TEXT],
            Self::Keys => &[TEXTS],
            Self::KeyAndValue | Self::WrittenKeyAndText | Self::NewKeyAndText => &[TEXT, TEXT],
            Self::WrittenKeyAndJson => &[TEXT, JSONB],
            Self::Row | Self::FewRows => &[BIGINT],
            Self::Nothing => &[],
        }
    }
}

/// Builds the Bind message with `keys` keys, or without keys for [`Given::Nothing`], and returns it with the offsets of its keys.
/// `keys` must be 1, except for [`Given::Keys`].
fn bind(name: &str, given: Given, keys: u32) -> (Vec<u8>, Vec<usize>) {
    let mut bind = Message::of(b'B');
    // The message binds our statement to the unnamed portal. Arrays are sent in binary format, all other parameters as text.
    let form = u16::from(given == Given::Keys);
    bind.text("").text(name).short(1).short(form).short(given.types().len() as u16);
    if given == Given::Keys {
        bind.long(20 + keys * (4 + DIGITS as u32));
        // The 20 bytes: an array of one dimension without nulls, the type of the elements, their number, and the lower bound 1.
        bind.long(1).long(0).long(TEXT).long(keys).long(1);
    }
    let mut places = Vec::new();
    for _ in 0..if given == Given::Nothing { 0 } else { keys } {
        bind.long(DIGITS as u32);
        places.push(bind.0.len());
        bind.0.extend([b'0'; DIGITS]);
    }
    let value = match given {
        Given::Key | Given::TextKey | Given::Keys | Given::Row | Given::FewRows | Given::Nothing => None,
        Given::KeyAndValue | Given::WrittenKeyAndText => Some(value()),
        Given::WrittenKeyAndJson => Some(json()),
        Given::NewKeyAndText => Some("x".repeat(SAVED_BYTES)),
    };
    if let Some(value) = value {
        bind.long(value.len() as u32).0.extend(value.as_bytes());
    }
    // Results come as text, the server's default.
    bind.short(0);
    (bind.end(), places)
}

/// A protocol message under construction: the byte of its kind, its length, and its body. `of` begins a message whose length is not
/// known yet. `text`, `short` and `long` append a String, an Int16 and an Int32 of the protocol.
struct Message(Vec<u8>);

impl Message {
    fn of(kind: u8) -> Self {
        Self(vec![kind, 0, 0, 0, 0])
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn short(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn long(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Returns the complete message, with its length filled in.
    fn end(mut self) -> Vec<u8> {
        let body = self.0.len() - 5;
        self.0[1..5].copy_from_slice(&length(body));
        self.0
    }
}

/// Returns the length field of a message with a body of `body` bytes. The length includes the field itself.
fn length(body: usize) -> Vec<u8> {
    ((body + 4) as u32).to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if an answer that arrives in two pieces is misread, or if a byte `Z` in the values of a row counts as the end of the
    /// answer.
    #[test]
    fn an_answer_ends_with_ready_for_query_in_any_fragmentation() {
        let row = [b"D".as_slice(), &length(3), b"Z\0\0"].concat();
        let whole = [row.clone(), row, [b"Z".as_slice(), &length(1), b"I"].concat()].concat();
        for cut in 1..whole.len() {
            let mut answer = Answer::default();
            let (head, tail) = whole.split_at(cut);
            let ends = [answer.take(head).unwrap(), answer.take(tail).unwrap()];
            assert_eq!(ends.iter().filter(|end| **end).count(), 1, "cut at {cut}");
            // The parser must also understand the next answer.
            assert!(answer.take(&whole).unwrap(), "cut at {cut}");
        }
    }

    /// Fails if the messages before the message `K` are not skipped, or if a greeting without this message gives a process.
    #[test]
    fn a_process_is_found_in_the_greeting() {
        let status = [b"R".as_slice(), &length(4), &[0; 4]].concat();
        let process_and_secret = [7_u32.to_be_bytes(), [1; 4]].concat();
        let greeting = [status.clone(), [b"K".as_slice(), &length(8), &process_and_secret].concat()].concat();
        assert_eq!(process(&greeting), Some(7));
        assert_eq!(process(&status), None);
    }

    /// Fails if an error message of the server is skipped like a row: the speed of refused requests would be reported.
    #[test]
    fn a_refusal_is_an_error() {
        assert!(Answer::default().take(&[b"E".as_slice(), &length(5), b"oops!"].concat()).is_err());
    }

    /// Fails if a recorded offset is not that of a key, so that new digits would destroy the message, or if the length of a message
    /// is wrong.
    #[test]
    fn a_request_has_its_keys_at_the_recorded_offsets() {
        for (given, keys, pipeline) in [
            (Given::Key, 1, 1),
            (Given::Keys, 100, 1),
            (Given::WrittenKeyAndJson, 1, 16),
            (Given::Nothing, 1, 2),
        ] {
            let request = Request::of("q0", given, Load { clients: 1, pipeline, keys });
            let parameters = given.types().len().min(1) as u32;
            assert_eq!(request.keys.len(), (keys * pipeline * parameters) as usize);
            for at in request.keys {
                assert_eq!(&request.bytes[at - 4..at], &(DIGITS as u32).to_be_bytes());
                assert_eq!(&request.bytes[at..at + DIGITS], [b'0'; DIGITS]);
            }
            // Walk from message to message by their lengths, to the end.
            let (mut at, mut kinds) = (0, Vec::new());
            while let Some(length) = request.bytes.get(at + 1..at + 5) {
                kinds.push(request.bytes[at]);
                at += 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            }
            assert_eq!(at, request.bytes.len());
            assert_eq!(kinds, [b"BE".repeat(pipeline as usize), b"S".to_vec()].concat());
        }
    }
}
