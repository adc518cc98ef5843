//! Sets of Redis keys that depend on the same thing.

use crate::commands::Commands;
use crate::failure::Failure;
use crate::jobs::SetAddition;
use crate::link::{Link, cursor_and_words, number};
use crate::messages::messages;

/// The member that proves that a set is complete: only an addition that may create the set adds it.
const PROOF: &[u8] = b"";

/// How many members one command adds, and one step of a removal reads.
const STEP: usize = 1000;

/// What the answer to a command about a set means.
pub enum Meaning {
    /// The members are added, unless Redis is full.
    Added,
    /// The set lives longer.
    Extended,
    /// Whether the set was complete: 1 or 0.
    Proof,
}

/// Adds the commands of an addition. Redis may evict the set before any of them, so the question for the proof comes last.
pub fn add(addition: &SetAddition, commands: &mut Commands, meanings: &mut Vec<Meaning>) {
    let set = addition.set.as_bytes();
    let mut push = |meaning, name: &str, words: &[&[u8]]| {
        commands.push(name, set, words);
        meanings.push(meaning);
    };
    if !addition.must_exist {
        push(Meaning::Added, "SADD", &[PROOF]);
    }
    for members in addition.members.chunks(STEP) {
        let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        push(Meaning::Added, "SADD", &members);
    }
    push(Meaning::Extended, "PEXPIRE", &[ttl(addition.ttl_ms).as_bytes()]);
    if addition.must_exist {
        push(Meaning::Proof, "SISMEMBER", &[PROOF]);
    }
}

/// Removes the members of the sets, and then the sets. Returns whether all sets were complete.
pub fn remove(link: &mut Link, sets: &[String], channel: &str) -> Result<bool, Failure> {
    let mut all_found = true;
    for set in sets {
        let (mut cursor, mut is_complete) = (0, false);
        loop {
            let mut scan = Commands::default();
            let position = u64::to_string(&cursor);
            scan.push("SSCAN", set.as_bytes(), &[position.as_bytes(), b"COUNT", STEP.to_string().as_bytes()]);
            let answer = link.run(&scan)?.pop().ok_or_else(|| Failure::unexpected("SSCAN"))?;
            let (next, members) = cursor_and_words(answer)?;
            is_complete |= members.iter().any(|member| member == PROOF);
            unlink(link, members.iter().map(Vec::as_slice).filter(|member| *member != PROOF), channel)?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        all_found &= is_complete;
    }
    let mut commands = Commands::default();
    for set in sets {
        commands.push("UNLINK", set.as_bytes(), &[]);
    }
    for answer in link.run(&commands)? {
        number(answer)?;
    }
    Ok(all_found)
}

fn unlink<'m>(link: &mut Link, keys: impl Iterator<Item = &'m [u8]>, channel: &str) -> Result<(), Failure> {
    let keys: Vec<&[u8]> = keys.collect();
    let mut commands = Commands::default();
    for key in &keys {
        commands.push("UNLINK", key, &[]);
    }
    for answer in link.run(&commands)? {
        number(answer)?;
    }
    let texts: Vec<_> = messages(&[], &keys).into_iter().map(|text| (channel, text)).collect();
    link.publish(&texts)
}

/// Returns a time to live as Redis takes it. Redis refuses times that are too large for its clock.
pub fn ttl(milliseconds: u64) -> String {
    milliseconds.min(1 << 52).to_string()
}
