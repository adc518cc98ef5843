//! Which server of a Redis Cluster has which keys: the hash of a key selects one of 16 384 *slots*, and each primary has some of
//! them. If the answer to `CLUSTER SLOTS` is outdated, the server redirects the command (`link.rs`).

use crate::failure::Failure;
use crate::target::Endpoint;
use redis::Value;

const SLOTS: usize = 16384;

/// The primary of each hash slot.
#[derive(Debug, PartialEq, Eq)]
pub struct Slots {
    /// The primaries, sorted.
    pub primaries: Vec<Endpoint>,
    /// For each slot, the index of its primary.
    primary_of: Vec<Option<u16>>,
}

impl Slots {
    /// Reads the answer to `CLUSTER SLOTS`. `asked` is the server that has answered: a server that does not know its own name
    /// leaves it out.
    pub fn parse(answer: &Value, asked: &Endpoint) -> Result<Self, Failure> {
        let unexpected = || Failure::unexpected("CLUSTER SLOTS");
        let ranges = match answer {
            Value::Array(ranges) => ranges,
            Value::ServerError(error) => return Err(error.clone().into()),
            _ => return Err(unexpected()),
        };
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| range_of(range, asked))
            .collect::<Option<_>>()
            .ok_or_else(unexpected)?;
        let mut primaries: Vec<Endpoint> = ranges.iter().map(|(_, _, primary)| primary.clone()).collect();
        primaries.sort_unstable();
        primaries.dedup();
        let mut primary_of = vec![None; SLOTS];
        for (first, last, primary) in ranges {
            let index = primaries.binary_search(&primary).ok().and_then(|index| u16::try_from(index).ok());
            primary_of.get_mut(first..=last).ok_or_else(unexpected)?.fill(index);
        }
        Ok(Self { primaries, primary_of })
    }

    /// Returns the primary of a key, or `None` if its slot has none at the moment.
    pub fn primary(&self, key: &[u8]) -> Option<&Endpoint> {
        self.primaries.get(usize::from(self.primary_of[slot(key)]?))
    }
}

/// Reads one range of the answer to `CLUSTER SLOTS`: the first and the last slot, and the primary that has them. None if it has
/// another form. `asked` is the server that gave the answer.
fn range_of(range: &Value, asked: &Endpoint) -> Option<(usize, usize, Endpoint)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = primary.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let endpoint = Endpoint::Tcp(host.to_owned(), u16::try_from(*port).ok()?);
    Some((usize::try_from(*first).ok()?, usize::try_from(*last).ok()?, complete(endpoint, asked)))
}

/// Completes an address without a host: its host is that of `asked`, the server that has told the address. Instead of a host that
/// it does not know, a server sends null, an empty text or `?`. Returns any other address as it is, also if `asked` has no host.
pub fn complete(endpoint: Endpoint, asked: &Endpoint) -> Endpoint {
    match (endpoint, asked) {
        (Endpoint::Tcp(host, port), Endpoint::Tcp(asked, _)) if host.is_empty() || host == "?" => {
            Endpoint::Tcp(asked.clone(), port)
        }
        (endpoint, _) => endpoint,
    }
}

/// Returns the hash slot of a key. If the key has braces, only the part between the first `{` and the next `}` is hashed, unless it
/// is empty.
fn slot(key: &[u8]) -> usize {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|length| *length > 0).map(|length| &rest[..length])
    });
    usize::from(crc16(tag.unwrap_or(key))) % SLOTS
}

/// CRC16 with the polynomial of XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if the slot of a key is not the one that the servers of a cluster compute, especially of a key with braces.
    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{foo}bar"), slot(b"foo"));
        assert_eq!(slot(b"x{foo}bar{y}"), slot(b"foo"));
        assert_eq!(slot(b"foo{}{bar}"), usize::from(crc16(b"foo{}{bar}")) % SLOTS);
        assert_ne!(slot(b"foo{bar"), slot(b"bar"));
    }

    /// Fails if a slot gets the wrong server, if a slot without a server gets one, or if a malformed answer is accepted.
    #[test]
    fn the_answer_of_a_server_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |first, last, host: Value, port| {
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(vec![host, Value::Int(port), text("id")]),
            ])
        };
        let asked = Endpoint::Tcp("asked".to_owned(), 1);
        let answer = Value::Array(vec![
            range(0, 12181, text("a"), 1),
            range(12182, 12182, text("b"), 2),
            range(12190, 16383, Value::Nil, 3),
        ]);
        let slots = Slots::parse(&answer, &asked).expect("a valid answer");
        assert_eq!(slots.primary(b"foo"), Some(&Endpoint::Tcp("b".to_owned(), 2)));
        assert_eq!(slots.primaries[1], Endpoint::Tcp("asked".to_owned(), 3));
        assert_eq!(slots.primary_of[12185], None);
        assert!(Slots::parse(&Value::Array(vec![range(0, 16384, text("a"), 1)]), &asked).is_err());
        assert!(Slots::parse(&Value::Okay, &asked).is_err());
    }
}
