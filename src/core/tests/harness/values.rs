//! Actions on values. Each method does one action of `action.rs`, which explains the parameters, on the tier and on the model, and
//! asserts that the outcomes agree. A *tier* is a cache in memory that several processes share.

use super::both::Both;
use super::expectations::{as_value, counter, expect, expect_refusal, new_value, published};
use super::keys::{dependencies, owner_of, with_key};
use super::model::{Known, SETTER, may_forget};
use super::saving::settle;
use pg_cache_core::{Counter, IncrError, Kind, ReserveOptions, StaleOk, Stamp, Stored, Unclaimed};

impl Both<'_> {
    /// Adds a number to the counter of a key.
    pub fn incr(&mut self, key: u8, by: i64) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        // A new counter expires after 40 ticks and depends on no tag.
        let fresh = new_value(model, key, 0, 0, now + 40);
        let outcome = loop {
            match with_key(tier, key, |key| {
                tier.incr(key, by, &as_value(&fresh, &[]), ReserveOptions::default())
            }) {
                Err(IncrError::Saved(location)) => settle(tier, &model.saver, key, location),
                outcome => break outcome,
            }
        };
        // The model cannot know whether the counter was stored anew or added to.
        model.believe(tier, key, &[Counter::Stored, Counter::Dropped, Counter::RefusedFull]);
        let known = model.entries.get(&key).filter(|known| model.verdict(known, now).is_ok()).cloned();
        let known = known.as_ref();
        match (outcome, known) {
            (Ok(sum), Some(known)) if known.kind == Kind::COUNTER && !may_forget(tier, model, key) => {
                assert_eq!(Some(sum), counter(known).checked_add(by));
            }
            (Err(IncrError::OtherKind(kind)), Some(known)) => assert_eq!(kind, known.kind),
            (Err(IncrError::Overflow), Some(known)) => assert_eq!(counter(known).checked_add(by), None),
            (Err(IncrError::Refused(_)), _) => {}
            (Err(IncrError::Saved(_)), _) => unreachable!("it was settled"),
            (Err(error), None) => panic!("{error:?} on nothing"),

            (Ok(_), Some(known)) => {
                assert!(
                    known.kind == Kind::COUNTER || may_forget(tier, model, key),
                    "a number was added to a value that is no counter"
                )
            }
            (Ok(sum), None) => assert_eq!(sum, by, "a new counter begins with the added number"),
        }
        if let Ok(sum) = outcome {
            model.changed(key);
            let value = sum.to_ne_bytes().to_vec();
            // A counter that was forgotten starts again, with a new expiry.
            let kept = known.cloned().filter(|known| known.kind == Kind::COUNTER);
            let anew = sum == by && may_forget(tier, model, key);
            let known = match kept {
                Some(old) if !anew => Known { value, ..old },
                Some(old) => {
                    // Both are possible, so ask the tier.
                    let meta = with_key(tier, key, |key| tier.peek(key, Stamp::LATEST));
                    let expires = meta.map_or(old.expires, |meta| meta.expires);
                    let stamp = meta.map_or(old.stamp, |meta| meta.stamp.as_u64());
                    let tags = if expires == fresh.expires && stamp == fresh.stamp { 0 } else { old.tags };
                    Known { value, expires, stamp, tags, ..old }
                }
                None => Known { value, kind: Kind::COUNTER, ..fresh },
            };
            model.put(tier, key, known);
        }
        expect(tier, model, key, now);
    }

    /// Stores a value of a key; with `absent`, only if the key has none.
    pub fn put(&mut self, key: u8, size: usize, tags: u8, ttl: u32, absent: bool) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let known = new_value(model, key, size, tags % 8, now + ttl);
        let (setter, number) = (owner_of(SETTER, key), key);
        let outcome = with_key(tier, key, |key| {
            let dependencies = dependencies(tier, known.tags);
            let reservation = tier.reserve(key, &as_value(&known, &dependencies), Default::default())?;
            if !absent {
                return Ok(tier.publish(key, reservation));
            }
            let claimed = loop {
                match tier.claim(key, Some(Stamp::LATEST.into()), setter) {
                    Err(Unclaimed::Saved(location)) => settle(tier, &model.saver, number, location),
                    claimed => break claimed,
                }
            };
            Ok(match claimed {
                Ok(claim) => tier.publish_leased(key, reservation, claim),
                Err(_) => {
                    tier.cancel(reservation);
                    Stored::Dropped
                }
            })
        });
        match outcome {
            Ok(stored) => published(tier, model, key, known, stored, absent, now),
            Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
        }
        expect(tier, model, key, now);
    }

    /// Removes a key.
    pub fn remove(&mut self, key: u8) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let removed = with_key(tier, key, |key| tier.remove(key));
        model.changed(key);
        let valid = model.take(tier, key).is_some_and(|known| model.verdict(&known, now).is_ok());
        assert!(
            removed == valid || (valid && may_forget(tier, model, key)),
            "removed {removed}, valid {valid}"
        );
    }

    /// Gives the value of a key a new time to live.
    pub fn touch(&mut self, key: u8, ttl: u32) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let touched = with_key(tier, key, |key| tier.touch(key, now + ttl));
        let valid = model.entries.get(&key).is_some_and(|known| model.verdict(known, now).is_ok());
        assert!(
            touched == valid || (valid && may_forget(tier, model, key)),
            "touched {touched}, valid {valid}"
        );
        if let Some(known) = model.entries.get_mut(&key).filter(|_| valid) {
            // If the tier has forgotten the entry, it serves nothing, so the model's expiry does not matter.
            known.expires = now + ttl;
        }
    }

    /// Removes entries of no use from the next buckets.
    pub fn sweep(&mut self, budget: u32) {
        let tier = self.tier;
        tier.sweep(budget);
    }

    /// Stores a value that may be served stale.
    pub fn put_stale_ok(&mut self, key: u8, size: usize, tags: u8, ttl: u32, ticks: u32) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let stale_ok = StaleOk { ticks, valid_at: now };
        let known = Known { stale_ok: Some(stale_ok), ..new_value(model, key, size, tags % 8, now + ttl) };
        let outcome = with_key(tier, key, |key| {
            let dependencies = dependencies(tier, known.tags);
            let value = as_value(&known, &dependencies);
            let reservation = tier.reserve(key, &value, Some(stale_ok).into())?;
            Ok(tier.publish(key, reservation))
        });
        match outcome {
            Ok(stored) => published(tier, model, key, known, stored, false, now),
            Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
        }
        expect(tier, model, key, now);
    }
}
