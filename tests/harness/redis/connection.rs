//! A client of Redis for tests, over the Unix socket of a server. It is independent of the client library that the workers of
//! pg_cache use, so a bug of that library cannot hide itself.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a connection waits for a reply before it panics.
const PATIENCE: Duration = Duration::from_secs(180);

/// The reply of Redis to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A simple string or a bulk string.
    Text(Vec<u8>),
    /// A number.
    Integer(i64),
    /// The text of an error.
    Error(String),
    /// An array of replies.
    List(Vec<Reply>),
}

impl Reply {
    /// Returns the text of the reply, or `None` if it is nil. Bytes that are not UTF-8 become replacement characters.
    ///
    /// # Panics
    /// When the reply is an error or a list.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Nil => None,
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Error(_) | Self::List(_) => panic!("{self:?} is not a text"),
        }
    }

    /// Returns the number.
    ///
    /// # Panics
    /// When the reply is not a number.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            Self::Text(digits) => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_else(|| panic!("{self:?} is not a number")),
            _ => panic!("{self:?} is not a number"),
        }
    }

    /// Returns the members of the list.
    ///
    /// # Panics
    /// When the reply is not a list.
    pub fn list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            _ => panic!("{self:?} is not a list"),
        }
    }

    /// Returns the bytes of the reply.
    ///
    /// # Panics
    /// When the reply is not a string.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Text(bytes) => bytes,
            _ => panic!("{self:?} is not a string"),
        }
    }
}

/// A connection to the Unix socket of a server.
///
/// # Panics
/// The public methods panic when the connection breaks, or when no reply arrives within three minutes.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects, or returns `None` if nothing listens on the socket.
    pub(super) fn open(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        Some(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and returns the reply, which may be an error.
    pub fn send(&mut self, words: &[impl AsRef<[u8]>]) -> Reply {
        self.try_send(words).expect("Redis replies")
    }

    /// Sends a command and returns the reply, or the error of a connection that has ended.
    pub(super) fn try_send(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Reply> {
        self.stream.get_mut().write_all(&encode(words))?;
        self.reply()
    }

    /// Sends all commands at once and returns their replies.
    pub fn pipeline<W: AsRef<[u8]>>(&mut self, commands: &[Vec<W>]) -> Vec<Reply> {
        let mut replies = Vec::new();
        // Redis stops reading while nothing reads its replies, so the commands must not be too many at once.
        for some in commands.chunks(1000) {
            let all: Vec<u8> = some.iter().flat_map(|words| encode(words)).collect();
            self.stream.get_mut().write_all(&all).expect("Redis reads");
            replies.extend(some.iter().map(|_| self.reply().expect("Redis replies")));
        }
        replies
    }

    /// Returns the next message of a subscription, or `None` if none arrives within this time.
    pub fn message(&mut self, wait: Duration) -> Option<Reply> {
        self.stream.get_ref().set_read_timeout(Some(wait)).expect("the time is not zero");
        let arrived = match self.stream.fill_buf() {
            Ok(bytes) => !bytes.is_empty(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("{error}"),
        };
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        arrived.then(|| self.reply().expect("Redis replies"))
    }

    /// Returns the keys of this server that match a pattern.
    pub fn scan(&mut self, pattern: &str) -> Vec<Vec<u8>> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let mut reply = self.send(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"]).list();
            keys.extend(reply.remove(1).list().into_iter().map(Reply::bytes));
            cursor = reply.remove(0).text().expect("the cursor is a text");
            if cursor == "0" {
                // SCAN may return a key twice.
                keys.sort();
                keys.dedup();
                return keys;
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn reply(&mut self) -> Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().unwrap_or_else(|_| panic!("no number in {line:?}"));
        Ok(match kind {
            "+" => Reply::Text(rest.as_bytes().to_vec()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()),
            "$" | "*" if number() < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; number() as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(bytes)
            }
            "*" => Reply::List((0..number()).map(|_| self.reply()).collect::<Result<_>>()?),
            _ => panic!("an unknown reply: {line:?}"),
        })
    }
}

/// Returns a command as Redis reads it.
fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
