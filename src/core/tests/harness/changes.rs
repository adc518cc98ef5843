//! Actions of transactions: fences, reservations and announcements. Each method does one action of `action.rs`, which explains
//! the parameters, on the tier and on the model, and asserts that the outcomes agree.
//!
//! The values expire after 30 ticks. A value that is only reserved depends on tag 0 (the set of tags is 1), and an announced value
//! on tag 1 (the set is 2).
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. An *announced* change of a key hides
//! the key's value until the change is confirmed (`tier/publishing.rs`).

use super::action::RELATION;
use super::both::Both;
use super::expectations::{as_value, expect, expect_refusal, new_value, published};
use super::keys::{dependencies, fence_of, with_key};
use pg_cache_core::Counter;

impl Both<'_> {
    /// Raises the fence of a tag.
    pub fn raise(&mut self, tag: u8) {
        let (tier, model) = (self.tier, &mut *self.model);
        tier.fences().raise(fence_of(tier, tag));
        model.tags[tag as usize].pending += 1;
    }

    /// Ends a raise of a tag's fence: lowers the fence with a new number, or withdraws the raise.
    pub fn lower_or_withdraw(&mut self, tag: u8, commit: bool) {
        let (tier, model, now) = (self.tier, &mut *self.model, self.now);
        let fence = &mut model.tags[tag as usize];
        if fence.pending > 0 {
            fence.pending -= 1;
            if commit {
                let _ = tier.lower_as(fence_of(tier, tag), tier.fences().draw());
                model.now += 1;
                fence.seq = model.now;
                if tag == RELATION {
                    model.note_change(now);
                }
            } else {
                tier.fences().withdraw(fence_of(tier, tag));
            }
        }
    }

    /// Invalidates all entries of the database.
    pub fn flush(&mut self) {
        let (tier, model) = (self.tier, &mut *self.model);
        let fence = tier.fences().reserved(pg_cache_core::Reserved::Database(1));
        tier.fences().raise(fence);
        tier.fences().lower(fence);
        model.now += 1;
        model.flushed = model.now;
    }

    /// Reserves memory for a value of a key.
    pub fn reserve(&mut self, key: u8, size: usize) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        let known = new_value(model, key, size, 1, now + 30);
        let outcome = with_key(tier, key, |key| {
            tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
        });
        match outcome {
            Ok(reservation) => begun.reserved.push((key, known, reservation)),
            Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
        }
    }

    /// Publishes the oldest reservation, or cancels it.
    pub fn publish_or_cancel(&mut self, publish: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        if begun.reserved.is_empty() {
            return;
        }
        let (key, known, reservation) = begun.reserved.remove(0);
        if publish {
            let stored = with_key(tier, key, |key| tier.publish(key, reservation));
            published(tier, model, key, known, stored, false, now);
            expect(tier, model, key, now);
        } else {
            tier.cancel(reservation);
        }
    }

    /// Announces a new value of a key, or its removal.
    pub fn announce(&mut self, key: u8, size: usize, removal: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        let known = new_value(model, key, size, 2, now + 30);
        let outcome = with_key(tier, key, |key| {
            if removal {
                return tier.reserve_removal(key);
            }
            tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
        });
        match outcome {
            Ok(reservation) => {
                with_key(tier, key, |key| tier.announce(key, &reservation));
                model.changing.push(key);
                begun.announced.push((key, (!removal).then_some(known), reservation));
            }
            Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
        }
        expect(tier, model, key, now);
    }

    /// Confirms the oldest announced change, or withdraws it.
    pub fn end_transaction(&mut self, commit: bool) {
        let (tier, model, begun, now) = (self.tier, &mut *self.model, &mut *self.begun, self.now);
        if begun.announced.is_empty() {
            return;
        }
        let (key, known, reservation) = begun.announced.remove(0);
        let place = model.changing.iter().position(|changing| *changing == key).expect("it was announced");
        model.changing.remove(place);
        if commit {
            with_key(tier, key, |key| tier.confirm(key, reservation));
            model.changed(key);
            if known.is_some() {
                model.count(key, Counter::Stored);
            }
            match known {
                Some(known) => model.put(tier, key, known),
                None => drop(model.take(tier, key)),
            }
        } else {
            with_key(tier, key, |key| tier.withdraw(key, reservation));
        }
        expect(tier, model, key, now);
    }
}
