//! Commands in the form in which they are sent to Redis: a pipeline of commands, and the key of each, by which a cluster chooses
//! the server. `link.rs` sends them.

use crate::failure::Failure;
use std::ops::Range;

/// The most bytes that a word takes in addition to its own: `$`, a length of up to 20 digits, and two ends of lines of 2 bytes
/// each.
const WORD_EXTRA: usize = 25;

/// Commands for one pipeline. Each has one key. In a cluster, the key decides which server gets the command.
#[derive(Default)]
pub struct Commands {
    /// All commands, one after the other, in the form in which they are sent.
    bytes: Vec<u8>,
    /// Where each command is in `bytes`.
    parts: Vec<Part>,
}

/// The place of one command in the bytes of all.
struct Part {
    /// The bytes of the command.
    bytes: Range<usize>,
    /// The bytes of its key.
    key: Range<usize>,
}

impl Commands {
    /// Adds the command `name key words…`. Fails if there is no memory for it.
    pub fn push(&mut self, name: &str, key: &[u8], words: &[&[u8]]) -> Result<(), Failure> {
        let start = self.bytes.len();
        let size: usize =
            [name.as_bytes(), key].iter().chain(words).map(|word| word.len() + WORD_EXTRA).sum();
        self.bytes.try_reserve(size + WORD_EXTRA)?;
        self.parts.try_reserve(1)?;
        begin(&mut self.bytes, words.len() + 2);
        word(&mut self.bytes, name.as_bytes());
        word(&mut self.bytes, key);
        let key_end = self.bytes.len() - 2;
        for next in words {
            word(&mut self.bytes, next);
        }
        self.parts.push(Part { bytes: start..self.bytes.len(), key: key_end - key.len()..key_end });
        Ok(())
    }

    /// Returns how many commands there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns all commands in order.
    pub fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns one command.
    pub fn one(&self, index: usize) -> &[u8] {
        &self.bytes[self.parts[index].bytes.clone()]
    }

    /// Returns the key of one command.
    pub fn key(&self, index: usize) -> &[u8] {
        &self.bytes[self.parts[index].key.clone()]
    }
}

/// Returns one command, which need not have a key.
pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes, words.len());
    for next in words {
        word(&mut bytes, next);
    }
    bytes
}

fn begin(bytes: &mut Vec<u8>, words: usize) {
    bytes.push(b'*');
    bytes.extend_from_slice(words.to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

fn word(bytes: &mut Vec<u8>, word: &[u8]) {
    bytes.push(b'$');
    bytes.extend_from_slice(word.len().to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a command is not in the form that Redis reads, with any bytes in its words, or if a cluster would send it to the
    /// server of another key.
    #[test]
    fn commands_are_encoded_and_know_their_keys() {
        let mut commands = Commands::default();
        commands.push("UNLINK", b"a\r\n", &[]).expect("there is memory");
        commands.push("SET", b"k", &[b"v", b""]).expect("there is memory");
        assert_eq!(commands.one(0), b"*2\r\n$6\r\nUNLINK\r\n$3\r\na\r\n\r\n");
        assert_eq!(commands.one(1), b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n$0\r\n\r\n");
        assert_eq!((commands.key(0), commands.key(1)), (&b"a\r\n"[..], &b"k"[..]));
        assert_eq!(commands.all(), [commands.one(0), commands.one(1)].concat());
        assert_eq!(encode(&[b"INFO"]), b"*1\r\n$4\r\nINFO\r\n");
    }
}
