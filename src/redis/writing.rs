//! Executes a batch, the content of a `Job::Write`: adds keys to sets, writes values and removes keys. A *set* has the Redis keys
//! of the values that depend on a tag or a relation; its *proof* is a member that shows that the set is complete (`lib.rs`).
//!
//! The order of the commands is a rule: a key must be in its sets before its value is written. Otherwise a change of the tag, which
//! removes the keys of the set, would miss the value. The servers of a cluster do not wait for each other; there, the worker
//! repeats the batch or scans all keys if a server has failed.

use crate::commands::Commands;
use crate::failure::Failure;
use crate::jobs::{Answer, Batch};
use crate::link::{Link, is_full, number};
use crate::members::{self, Meaning, ttl};
use crate::messages::messages;
use redis::Value;

/// Writes and removes what the batch says, in one pipeline for each server. If a server refuses an addition or a value, removes
/// the keys of all values of the batch. Announces the changes at the end.
pub fn write(link: &mut Link, batch: &Batch) -> Result<Answer, Failure> {
    let mut commands = Commands::default();
    let mut meanings = Vec::new();
    for addition in &batch.set_additions {
        members::add(addition, &mut commands, &mut meanings)?;
    }
    for value in &batch.values {
        if value.ttl_ms == 0 {
            commands.push("UNLINK", &value.key, &[])?;
        } else {
            commands.push(
                "SET",
                &value.key,
                &[value.json.as_bytes(), b"PX", ttl(value.ttl_ms).as_bytes()],
            )?;
        }
    }
    for key in &batch.removals {
        commands.push("UNLINK", key, &[])?;
    }
    let mut refused = None;
    let mut lost_sets = false;
    // The answers come in the order of the commands: additions, values, removals.
    let is_value = |index: usize| (meanings.len()..meanings.len() + batch.values.len()).contains(&index);
    for (index, answer) in link.run(&commands)?.into_iter().enumerate() {
        match (meanings.get(index), answer) {
            (_, Value::ServerError(error)) => match is_full(&error) {
                Some(words) => refused = Some(words),
                // One value that the server does not take must not stop all others.
                None if is_value(index) && matches!(error.code(), "ERR" | "NOPERM") => {
                    refused = Some(Failure::from(error).0);
                }
                None => return Err(error.into()),
            },
            (Some(Meaning::Proof), answer) => lost_sets |= number(answer)? == 0,
            (Some(Meaning::Added | Meaning::Extended) | None, _) => {}
        }
    }
    if refused.is_some() {
        remove_values(link, batch)?;
    }
    announce(link, batch, refused.is_some())?;
    Ok(Answer::Written { refused, lost_sets })
}

/// Removes the keys of all values of a batch. After a refusal, each key may still have an older value, or may be missing in a set.
fn remove_values(link: &mut Link, batch: &Batch) -> Result<(), Failure> {
    let mut commands = Commands::default();
    for value in &batch.values {
        commands.push("UNLINK", &value.key, &[])?;
    }
    for answer in link.run(&commands)? {
        number(answer)?;
    }
    Ok(())
}

/// Publishes which keys a batch has set and removed, on the channels of the batch. If Redis has refused a value (`is_refused`), all
/// keys of values count as removed.
fn announce(link: &mut Link, batch: &Batch, is_refused: bool) -> Result<(), Failure> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for value in &batch.values {
        let list = if is_refused || value.ttl_ms == 0 { &mut removed } else { &mut set };
        list.push(value.key.as_slice());
    }
    removed.extend(batch.removals.iter().map(Vec::as_slice));
    let mut texts = Vec::new();
    for channel in &batch.channels {
        let belongs =
            |key: &&&[u8]| key.strip_prefix(channel.as_bytes()).is_some_and(|rest| rest.starts_with(b":"));
        let set: Vec<_> = set.iter().filter(belongs).copied().collect();
        let removed: Vec<_> = removed.iter().filter(belongs).copied().collect();
        texts.extend(messages(&set, &removed).into_iter().map(|text| (channel.as_str(), text)));
    }
    link.publish(&texts)
}
