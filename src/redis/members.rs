//! *Sets* in Redis, which have the Redis keys of the values that depend on the same tag or relation. This file adds keys to them,
//! and removes all keys that are members of a set. Redis may evict a set at any moment. An evicted set that was created again is
//! noticed by its missing *proof*, a member that only an addition that may create the set adds (`lib.rs`).

use crate::commands::Commands;
use crate::failure::Failure;
use crate::jobs::SetAddition;
use crate::link::{Link, cursor_and_words, number};
use crate::messages::messages;

/// The member that proves that a set is complete: only an addition that may create the set adds it.
const PROOF: &[u8] = b"";

/// How many members one command adds at most, and about how many one step of a removal reads from each set.
const STEP: usize = 1000;

/// How many sets are read at the same time, at most.
const SETS: usize = 32;

/// The meaning of a server's answer to a command about a set.
pub enum Meaning {
    /// The members are added, unless Redis is full.
    Added,
    /// The set has a new time to live.
    Extended,
    /// 1 if the set has the proof, else 0.
    Proof,
}

/// Appends the commands of an addition to `commands`, and the meanings of their answers to `meanings`. Redis may evict the set
/// before any of them, so the question for the proof comes last.
pub fn add(
    addition: &SetAddition,
    commands: &mut Commands,
    meanings: &mut Vec<Meaning>,
) -> Result<(), Failure> {
    let set = addition.set.as_bytes();
    let mut push = |meaning, name: &str, words: &[&[u8]]| {
        meanings.push(meaning);
        commands.push(name, set, words)
    };
    if !addition.must_exist {
        push(Meaning::Added, "SADD", &[PROOF])?;
    }
    for members in addition.members.chunks(STEP) {
        let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
        push(Meaning::Added, "SADD", &members)?;
    }
    push(Meaning::Extended, "PEXPIRE", &[ttl(addition.ttl_ms).as_bytes()])?;
    if addition.must_exist {
        push(Meaning::Proof, "SISMEMBER", &[PROOF])?;
    }
    Ok(())
}

/// Removes the members of the sets, and then the sets. Returns whether all sets were complete.
pub fn remove(link: &mut Link, sets: &[String], channel: &str) -> Result<bool, Failure> {
    let mut all_found = true;
    for sets in sets.chunks(SETS) {
        all_found &= remove_some(link, sets, channel)?;
    }
    Ok(all_found)
}

/// Removes the members of a few sets, which are read at the same time, and then the sets.
fn remove_some(link: &mut Link, sets: &[String], channel: &str) -> Result<bool, Failure> {
    let mut are_complete = vec![false; sets.len()];
    let mut open: Vec<(usize, u64)> = (0..sets.len()).map(|set| (set, 0)).collect();
    while !open.is_empty() {
        let mut scan = Commands::default();
        for (set, cursor) in &open {
            let words = [cursor.to_string(), "COUNT".to_owned(), STEP.to_string()];
            scan.push("SSCAN", sets[*set].as_bytes(), &words.each_ref().map(|word| word.as_bytes()))?;
        }
        let mut keys = Vec::new();
        let answers = link.run(&scan)?;
        open = open
            .into_iter()
            .zip(answers)
            .map(|((set, _), answer)| {
                let (cursor, mut members) = cursor_and_words(answer)?;
                are_complete[set] |= members.iter().any(|member| member == PROOF);
                members.retain(|member| member != PROOF);
                keys.append(&mut members);
                Ok((set, cursor))
            })
            .collect::<Result<_, Failure>>()?;
        open.retain(|(_, cursor)| *cursor != 0);
        unlink(link, &keys, channel)?;
    }
    let mut commands = Commands::default();
    for set in sets {
        commands.push("UNLINK", set.as_bytes(), &[])?;
    }
    // A set that Redis has evicted between two steps has lost members. It is there now only if it was there all the time: this
    // thread alone adds to sets.
    for (is_complete, answer) in are_complete.iter_mut().zip(link.run(&commands)?) {
        *is_complete &= number(answer)? == 1;
    }
    Ok(!are_complete.contains(&false))
}

/// Removes Redis keys, and publishes their removal on a channel.
fn unlink(link: &mut Link, keys: &[Vec<u8>], channel: &str) -> Result<(), Failure> {
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut commands = Commands::default();
    for key in &keys {
        commands.push("UNLINK", key, &[])?;
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
