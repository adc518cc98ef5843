//! The tier as its users see it: a map from keys to values that forgets.

use crate::blocks::Run;
use crate::entry::{
    CHAINED, DEPENDENCIES_MAX, Entry, HIDDEN, Header, IN_MAIN, KEY_BYTES_MAX, Kind, Meta, RUN_BLOCKS_MAX,
    RUN_BLOCKS_MIN, SPREAD, TOMBSTONE, Writer, blocks_of, link_at,
};
use crate::eviction::{Policy, S3Fifo};
use crate::fence::{FenceId, Fences, Reserved, Stamp};
use crate::layout::{BLOCK_BYTES, Layout, Sizes};
use crate::region::{Region, RegionError};
use crate::shard::{Guard, Look, Shard};
use crate::statistics::{Counter, Slot, total};
use crate::sync::Ordering;

/// What the tier needs from its surroundings.
pub trait Host {
    /// The present time in ticks that never go back, whatever happens to the system's clock.
    fn now(&self) -> u32;
    /// Takes the lock of a shard. It is held for a bounded number of steps.
    fn lock(&self, shard: u32);
    /// Releases it.
    fn unlock(&self, shard: u32);
    /// Whether this request for blocks is to fail although there are some. Tests say yes now and then.
    #[inline]
    fn refuses_blocks(&self) -> bool {
        false
    }
}

/// Whose keys: part of an entry's identity. Made by [`Tier::scope`], once for many keys.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The database's number.
    pub database: u32,
    /// The space's number in it.
    pub space: u32,
    /// The role whose entries they are, or 0 for everybody's.
    pub role: u32,
    fences: [FenceId; 2],
}

/// The identity of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    pub(crate) scope: Scope,
    pub(crate) bytes: &'k [u8],
    pub(crate) hash: u64,
}

impl<'k> Key<'k> {
    /// A key of 1 to [`KEY_BYTES_MAX`] bytes. `hash` is of the bytes; equal keys must come with equal hashes.
    ///
    /// A key of another length is no key: None.
    pub fn new(scope: Scope, bytes: &'k [u8], hash: u64) -> Option<Self> {
        let space = u64::from(scope.space) << 32 | u64::from(scope.role);
        let hash = crate::fence::scatter(hash ^ space ^ u64::from(scope.database).rotate_left(48));
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self { scope, bytes, hash })
    }

    /// The half of the hash that an entry keeps and that buckets are chosen by; shards are chosen by the other half.
    pub(crate) fn print(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// A value to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'v> {
    /// Its bytes.
    pub bytes: &'v [u8],
    /// What they are.
    pub kind: Kind,
    /// As of when they are right.
    pub stamp: Stamp,
    /// The tick at which its time is over.
    pub expires: u32,
    /// What it cost to compute, on the caller's scale.
    pub cost: u16,
    /// What makes it wrong by changing, beside its database and its space; at most [`DEPENDENCIES_MAX`].
    pub dependencies: &'v [FenceId],
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is no entry of this key.
    Absent,
    /// Its time is over.
    Expired,
    /// It, or something it depends on, has changed or is about to.
    Fenced,
    /// The shard is switched off.
    Off,
}

/// Why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than one entry may be in a tier of this size.
    TooLarge,
    /// There is no room, and nothing that could be evicted.
    Full,
    /// It has more dependencies than an entry can name.
    TooManyDependencies,
    /// The shard is switched off.
    Off,
}

/// Why a counter was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrError {
    /// The key holds something else.
    OtherKind(Kind),
    /// The result would not fit into 64 bits.
    Overflow,
    /// A new counter could not be stored.
    Refused(Refusal),
}

/// The right to publish a value that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Distinguishes it from all others of the region.
    pub number: u64,
    /// The moment as of which the value will be right: to be stored with it.
    pub stamp: Stamp,
}

/// The answer to who wants to compute a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// You are the one.
    Lead(Lease),
    /// Somebody else is, until a tick at the latest.
    Busy {
        /// Who.
        owner: u32,
        /// Until when.
        deadline: u32,
    },
    /// Too many are being computed, or the shard is switched off: compute, but it cannot be published.
    Unregistered,
}

/// What publishing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The value is there, and no other was.
    New,
    /// The value is there in the place of another.
    Replaced,
    /// The value was dropped.
    Dropped,
}

/// Room for a value, already written, that nobody can see yet. It ends in [`Tier::publish`] or [`Tier::cancel`], or
/// its memory is lost until the region is formatted again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "publish or cancel it, or its memory is lost"]
pub struct Reservation {
    block: u32,
}

/// Where a value is copied to.
pub trait Buffer {
    /// As many bytes as the value has. May be called more than once for one value, if the first copy was disturbed.
    fn room(&mut self, meta: &Meta) -> &mut [u8];
}

impl Buffer for Vec<u8> {
    fn room(&mut self, meta: &Meta) -> &mut [u8] {
        self.resize(meta.value_len, 0);
        self
    }
}

/// For those who only look.
impl Buffer for () {
    fn room(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}

/// An entry as inspection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The database's number.
    pub database: u32,
    /// The space's number.
    pub space: u32,
    /// The role, or 0.
    pub role: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The rest.
    pub meta: Meta,
    /// Whether it would be served now.
    pub valid: bool,
}

/// How full the tier is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries, right or not.
    pub entries: u64,
    /// Bytes of blocks in use, by entries and reservations.
    pub used_bytes: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Bytes of fences.
    pub fence_bytes: u64,
    /// Values that are being computed.
    pub flights: u64,
    /// Announced changes that are neither confirmed nor withdrawn.
    pub announced: u64,
    /// Shards.
    pub shards: u32,
    /// Shards that are switched off.
    pub shards_off: u32,
}

/// How often a read without a lock is repeated before it takes the lock.
const RETRIES: u32 = 8;
/// Evictions during one hold of a lock. Waiting writers get in between.
const EVICTIONS_PER_HOLD: u32 = 32;
/// Words of the bitmap that a search may look at before something is evicted instead: 64 KB of blocks.
const SEARCH_WORDS: u32 = 64;
/// One entry takes at most this part of the tier.
const ENTRY_SHARE: u64 = 20;
/// An entry of more than this part of a shard is spread over several.
const SHARD_SHARE: u32 = 8;
/// Entries of at most this many blocks are first tried to be kept in one run: 512 bytes.
const SMALL_BLOCKS: u32 = 32;
/// Larger ones are first tried to be kept in about this many.
const PIECES: u32 = 8;

/// Blocks of spread entries that have been unlinked, to be given back when no lock is held. A fixed size, because nothing
/// that a commit does may allocate.
#[derive(Default)]
struct Unlinked {
    blocks: [u32; 16],
    count: usize,
}

impl Unlinked {
    fn is_full(&self) -> bool {
        self.count == self.blocks.len()
    }

    fn push(&mut self, block: u32) {
        if let Some(slot) = self.blocks.get_mut(self.count) {
            *slot = block;
            self.count += 1;
        }
    }
}

/// The blocks that are being collected for an entry.
struct Room {
    first: Option<Run>,
    last: Option<Run>,
    /// Bytes that have no place yet.
    left: usize,
}

impl Room {
    /// Adds a run: the only one, or another one in a chain.
    fn add(&mut self, region: &Region<'_>, layout: &Layout, run: Run, alone: bool) {
        if alone {
            self.left = 0;
        } else {
            region.store(link_at(layout, run), 0);
            if let Some(last) = self.last {
                region.store(link_at(layout, last), u64::from(run.first) << 32 | u64::from(run.blocks));
            }
            self.last = Some(run);
            self.left = self.left.saturating_sub(run.blocks as usize * BLOCK_BYTES - 8);
        }
        self.first = self.first.or(Some(run));
    }

    /// Writes into the header what the runs are.
    fn note(&self, header: &mut Header) {
        if let (Some(first), Some(_)) = (self.first, self.last) {
            header.words[4] |= CHAINED;
            header.words[6] |= u64::from(first.blocks);
        }
    }

    /// Gives everything back.
    fn abandon<H: Host>(self, tier: &Tier<'_, H>, header: &mut Header, why: Refusal) -> Result<u32, Refusal> {
        self.note(header);
        if let Some(first) = self.first {
            let entry = Entry::new(tier.region, &tier.layout, first.first);
            tier.release_runs(entry.runs(&tier.layout, header).map(|data| data.run));
        }
        Err(why)
    }
}

/// A tier in a region, as one backend sees it.
#[derive(Debug)]
pub struct Tier<'m, H> {
    region: Region<'m>,
    layout: Layout,
    host: H,
    statistics: Slot<'m>,
    /// What no entry exceeds: a header that says otherwise is damaged.
    entry_bytes_max: usize,
}

impl<'m, H: Host> Tier<'m, H> {
    /// Makes a region an empty tier. Nobody else may be at work in it.
    ///
    /// `sizes.bytes` is the region's size, whatever it says.
    pub fn format(region: Region<'m>, sizes: Sizes, host: H, backend: u32) -> Result<Self, RegionError> {
        let layout = Layout::of(Sizes { bytes: region.bytes(), ..sizes })?;
        layout.format(&region);
        for shard in 0..layout.shards {
            Shard::new(region, &layout, shard).format();
        }
        Ok(Self::new(region, layout, host, backend))
    }

    fn new(region: Region<'m>, layout: Layout, host: H, backend: u32) -> Self {
        let share = layout.blocks_total() / ENTRY_SHARE;
        // In a tier of a few entries a twentieth would be none.
        let blocks = share.max(u64::from(blocks_of(2048)).min(layout.blocks_total() / 2));
        Self {
            region,
            statistics: Slot::of(region, &layout, backend),
            layout,
            host,
            entry_bytes_max: blocks as usize * BLOCK_BYTES,
        }
    }

    /// Finds the tier in a region that was formatted before, perhaps by another process and at another address.
    pub fn attach(region: Region<'m>, host: H, backend: u32) -> Result<Self, RegionError> {
        Ok(Self::new(region, Layout::read(&region)?, host, backend))
    }

    /// How many locks a tier of these sizes needs of its host.
    pub fn shards_of(sizes: Sizes) -> Result<u32, RegionError> {
        Layout::of(sizes).map(|layout| layout.shards)
    }

    /// The fences.
    pub fn fences(&self) -> Fences<'_> {
        Fences::new(self.region, &self.layout)
    }

    /// The scope of keys of a space, of a role's own or of everybody's (0).
    pub fn scope(&self, database: u32, space: u32, role: u32) -> Scope {
        let fences = self.fences();
        let fences = [
            fences.reserved(Reserved::Database(database)),
            fences.reserved(Reserved::Space { database, space }),
        ];
        Scope { database, space, role, fences }
    }

    /// Copies the value of a key into a buffer, for a reader who may not see what changed after `horizon`.
    pub fn get(&self, key: &Key<'_>, horizon: Stamp, into: &mut impl Buffer) -> Result<Meta, Miss> {
        let outcome = self.read(key, horizon, into);
        self.statistics.count(match outcome {
            Ok(_) => Counter::Hit,
            Err(Miss::Absent) => Counter::MissAbsent,
            Err(Miss::Expired) => Counter::MissExpired,
            Err(Miss::Fenced) => Counter::MissFenced,
            Err(Miss::Off) => Counter::MissOff,
        });
        outcome
    }

    /// What [`get`](Self::get) would say, without counting as a read.
    pub fn peek(&self, key: &Key<'_>, horizon: Stamp) -> Result<Meta, Miss> {
        self.look(key, horizon, &mut None::<&mut ()>)
    }

    fn read(&self, key: &Key<'_>, horizon: Stamp, into: &mut impl Buffer) -> Result<Meta, Miss> {
        self.look(key, horizon, &mut Some(into))
    }

    #[inline]
    fn look(&self, key: &Key<'_>, horizon: Stamp, into: &mut Option<&mut impl Buffer>) -> Result<Meta, Miss> {
        let now = self.host.now();
        match self.try_look(key, horizon, now, into) {
            Some(outcome) => outcome,
            None => self.look_again(key, horizon, now, into),
        }
    }

    /// One attempt without a lock. Nothing if a writer was in the way.
    #[inline(always)]
    fn try_look(
        &self,
        key: &Key<'_>,
        horizon: Stamp,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Option<Result<Meta, Miss>> {
        let shard = self.shard_of(key);
        match shard.look(key) {
            Look::Found(seen) if seen.header.has(HIDDEN) => Some(Err(Miss::Fenced)),
            Look::Found(seen) => {
                let entry = Entry::new(self.region, &self.layout, seen.block);
                let outcome = self.serve(&entry, &seen.header, Some(&key.scope), horizon, now, into);
                if !shard.lived(&seen) {
                    return None;
                }
                if outcome.is_ok() && into.is_some() {
                    shard.visit(seen.block);
                }
                Some(outcome)
            }
            Look::Absent => Some(Err(Miss::Absent)),
            Look::Poisoned => Some(Err(Miss::Off)),
            Look::Disturbed => None,
        }
    }

    /// Further attempts, apart from the first one so that this does not burden it.
    #[cold]
    fn look_again(
        &self,
        key: &Key<'_>,
        horizon: Stamp,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        for _ in 0..RETRIES {
            self.statistics.count(Counter::Retry);
            if let Some(outcome) = self.try_look(key, horizon, now, into) {
                return outcome;
            }
        }
        self.look_locked(&self.shard_of(key), key, horizon, now, into)
    }

    /// Reading among so many writers that there was no quiet moment. The buffer is asked for room before the lock is
    /// taken, because it is somebody else's code; should the value have grown meanwhile, we begin again.
    #[cold]
    fn look_locked(
        &self,
        shard: &Shard<'_>,
        key: &Key<'_>,
        horizon: Stamp,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        let mut expected: Option<Meta> = None;
        loop {
            let mut room = match (&mut *into, expected) {
                (Some(buffer), Some(meta)) => Some(buffer.room(&meta)),
                _ => None,
            };
            let guard = shard.lock(&self.host);
            if guard.poisoned() {
                return Err(Miss::Off);
            }
            if guard.is_changing(key) {
                return Err(Miss::Fenced);
            }
            let Some((entry, header)) = guard.find(key) else { return Err(Miss::Absent) };
            let outcome = self.serve(&entry, &header, Some(&key.scope), horizon, now, &mut None::<&mut ()>);
            let Ok(meta) = outcome else { return outcome };
            match &mut room {
                Some(room) if room.len() == meta.value_len => {
                    entry.copy(&self.layout, &header, header.value_at(), room);
                    shard.visit(entry.block);
                    return Ok(meta);
                }
                _ => {}
            }
            drop(guard);
            if into.is_none() {
                return Ok(meta);
            }
            expected = Some(meta);
        }
    }

    /// Judges an entry and copies its value if it is right.
    #[inline(always)]
    fn serve(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: Option<&Scope>,
        horizon: Stamp,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        if header.bytes() > self.entry_bytes_max {
            // Nobody has stored this. A caller must not be made to find room for it.
            return Err(Miss::Off);
        }
        if header.expires() <= now {
            return Err(Miss::Expired);
        }
        let fences = self.fences();
        let stamp = header.stamp();
        let own = match scope {
            Some(scope) => scope.fences,
            None => self.scope(header.database(), header.space(), header.role()).fences,
        };
        let holds = |fence| fences.holds(fence, stamp, horizon);
        if !own.into_iter().all(holds)
            || !(0..header.dependencies()).all(|place| holds(entry.dependency(&self.layout, header, place)))
        {
            return Err(Miss::Fenced);
        }
        let meta = header.meta();
        if let Some(buffer) = into {
            let room = buffer.room(&meta);
            let length = room.len().min(meta.value_len);
            entry.copy(&self.layout, header, header.value_at(), &mut room[..length]);
        }
        Ok(meta)
    }

    /// Writes a value where nobody can see it yet. May evict others. What can fail in storing fails here.
    pub fn reserve(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Reservation, Refusal> {
        let outcome = self.try_reserve(key, value);
        match outcome {
            Err(Refusal::TooLarge) => self.statistics.count(Counter::RefusedSize),
            Err(Refusal::Full) => self.statistics.count(Counter::RefusedFull),
            _ => {}
        }
        outcome
    }

    fn try_reserve(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Reservation, Refusal> {
        if value.dependencies.len() > DEPENDENCIES_MAX {
            return Err(Refusal::TooManyDependencies);
        }
        if value.bytes.len() > self.entry_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let mut header = Header::new(key, value, self.host.now());
        if header.bytes() > self.entry_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let block = self.find_room(&self.shard_of(key), &mut header)?;
        let entry = Entry::new(self.region, &self.layout, block);
        let mut writer = Writer::new(&entry, &self.layout, &header);
        for dependency in value.dependencies {
            writer.write(&dependency.0.to_ne_bytes());
        }
        writer.write(key.bytes);
        if value.kind == Kind::COUNTER {
            writer.align();
        }
        writer.write(value.bytes);
        writer.finish();
        Ok(Reservation { block })
    }

    /// The most bytes that an entry may take, with its header, its dependencies and its key.
    pub fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }

    /// Makes a reservation visible in the place of what the key had, as a plain set does: whoever is computing the key will
    /// not publish any more. Bounded, without allocation, without failure.
    pub fn publish(&self, key: &Key<'_>, reservation: Reservation) -> Stored {
        self.publish_if(key, reservation, |guard, _| {
            guard.flights().void(key.hash);
            true
        })
    }

    /// The same if there is nothing of this key that would be served, and nobody is about to change it.
    pub fn publish_absent(&self, key: &Key<'_>, reservation: Reservation) -> Stored {
        self.publish_if(key, reservation, |guard, valid| {
            let absent = !valid && !guard.is_changing(key);
            if absent {
                guard.flights().void(key.hash);
            }
            absent
        })
    }

    /// Makes a computed value visible if the key was neither set nor removed since the lease was given. Ends the flight.
    ///
    /// If somebody is about to change the key, the value stands behind the announcement: nobody sees it while that stands, it
    /// goes when that is confirmed, and it is right if that is withdrawn.
    pub fn publish_leased(&self, key: &Key<'_>, reservation: Reservation, lease: u64) -> Stored {
        self.publish_if(key, reservation, |guard, _| guard.flights().end(key.hash, lease) == Some(true))
    }

    fn publish_if(
        &self,
        key: &Key<'_>,
        reservation: Reservation,
        decide: impl FnOnce(&Guard<'_, H>, bool) -> bool,
    ) -> Stored {
        let shard = self.shard_of(key);
        let now = self.host.now();
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = shard.lock(&self.host);
        let mut unlinked = Unlinked::default();
        let old = guard.find(key);
        let valid = old.is_some_and(|(entry, header)| self.is_valid(&entry, &header, now));
        let outcome = if guard.poisoned() || !decide(&guard, valid) {
            Stored::Dropped
        } else {
            self.replace(&guard, key, None, old, Some(&new), &mut unlinked);
            if valid { Stored::Replaced } else { Stored::New }
        };
        drop(guard);
        if outcome == Stored::Dropped {
            self.release(reservation.block);
        } else {
            self.statistics.count(Counter::Stored);
        }
        self.release_all(&unlinked);
        outcome
    }

    /// Puts an entry, or nothing, in the place of what a key has, and takes an announcement away: all in one change, so that
    /// readers see what was before or what is after, and never the old value between announcement and new one.
    fn replace<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        key: &Key<'_>,
        announced: Option<&Entry<'t>>,
        old: Option<(Entry<'t>, Header)>,
        new: Option<&Entry<'t>>,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| {
            if let Some(announced) = announced {
                guard.unlink_hidden(announced);
            }
            if let Some((entry, header)) = &old {
                guard.unlink(entry, header);
            }
            if let Some(new) = new {
                guard.link(key, new, &S3Fifo);
            }
        });
        if let Some((entry, header)) = &old {
            self.give_back(guard, entry, header, unlinked);
        }
    }

    /// What a transaction needs for removing a key when it commits.
    pub fn reserve_removal(&self, key: &Key<'_>) -> Result<Reservation, Refusal> {
        let value = NewValue {
            bytes: &[],
            kind: Kind(0),
            stamp: Stamp::VOID,
            expires: u32::MAX,
            cost: 0,
            dependencies: &[],
        };
        let reservation = self.reserve(key, &value)?;
        Entry::new(self.region, &self.layout, reservation.block).set_flag(TOMBSTONE, true);
        Ok(reservation)
    }

    /// Says that a change of the key is about to become visible: from now on it is a miss. To be called before that can
    /// happen, and followed by exactly one [`confirm`](Self::confirm) or [`withdraw`](Self::withdraw).
    pub fn announce(&self, key: &Key<'_>, reservation: &Reservation) {
        let guard = self.shard_of(key).lock(&self.host);
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        guard.change(|| guard.link_hidden(&entry));
    }

    /// Says that the announced change is visible now. Bounded, without allocation, without failure.
    pub fn confirm(&self, key: &Key<'_>, reservation: Reservation) {
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        let mut unlinked = Unlinked::default();
        guard.flights().void(key.hash);
        let kept = new.word(4) & TOMBSTONE == 0;
        self.replace(&guard, key, Some(&new), guard.find(key), kept.then_some(&new), &mut unlinked);
        drop(guard);
        if kept {
            self.statistics.count(Counter::Stored);
        } else {
            self.release(reservation.block);
        }
        self.release_all(&unlinked);
    }

    /// Says that the announced change will not happen. What was there before is there again.
    pub fn withdraw(&self, key: &Key<'_>, reservation: Reservation) {
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        guard.change(|| guard.unlink_hidden(&entry));
        drop(guard);
        self.release(reservation.block);
    }

    /// Asks to be the one who computes the value of a key, until a tick at the latest.
    pub fn acquire(&self, key: &Key<'_>, owner: u32, deadline: u32) -> Acquired {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() {
            return Acquired::Unregistered;
        }
        if let Some((owner, deadline)) = guard.flights().leader(key.hash, now) {
            return Acquired::Busy { owner, deadline };
        }
        let lease = Lease { number: guard.next_lease(), stamp: self.fences().now() };
        match guard.flights().begin(key.hash, &lease, owner, deadline, now) {
            true => Acquired::Lead(lease),
            false => Acquired::Unregistered,
        }
    }

    /// Ends a flight without a result. Whether there was such a one.
    pub fn release_lease(&self, key: &Key<'_>, lease: u64) -> bool {
        self.shard_of(key).lock(&self.host).flights().end(key.hash, lease).is_some()
    }

    /// Ends all flights of an owner who is gone, and says how many they were.
    pub fn release_leases_of(&self, owner: u32) -> u32 {
        (0..self.layout.shards)
            .map(|shard| {
                Shard::new(self.region, &self.layout, shard).lock(&self.host).flights().end_all_of(owner)
            })
            .sum()
    }

    /// Gives the memory of a reservation back.
    pub fn cancel(&self, reservation: Reservation) {
        self.release(reservation.block);
    }

    /// Stores a value at once.
    pub fn put(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Stored, Refusal> {
        let reservation = self.reserve(key, value)?;
        match self.publish(key, reservation) {
            Stored::Dropped => Err(Refusal::Off),
            stored => Ok(stored),
        }
    }

    /// Removes a key. Whether there was something that would have been served.
    pub fn remove(&self, key: &Key<'_>) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        guard.flights().void(key.hash);
        let Some((entry, header)) = guard.find(key).filter(|_| !guard.poisoned()) else { return false };
        let valid = self.is_valid(&entry, &header, now);
        let mut unlinked = Unlinked::default();
        self.drop_entry(&guard, &entry, &header, Counter::Removed, &mut unlinked);
        drop(guard);
        self.release_all(&unlinked);
        valid
    }

    /// Gives a key another time to live. Whether there was something that would have been served.
    pub fn touch(&self, key: &Key<'_>, expires: u32) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let found =
            guard.find(key).filter(|(entry, header)| !guard.poisoned() && self.is_valid(entry, header, now));
        if let Some((entry, _)) = &found {
            entry.set_expires(expires);
        }
        found.is_some()
    }

    /// Adds to a counter in one step, and returns what it holds now. A key that is absent becomes a counter as
    /// `new` describes, with `by` in it.
    pub fn incr(&self, key: &Key<'_>, by: i64, new: &NewValue<'_>) -> Result<i64, IncrError> {
        loop {
            if let Some(outcome) = self.add_in_place(key, by) {
                return outcome;
            }
            let value = NewValue { bytes: &by.to_ne_bytes(), kind: Kind::COUNTER, ..*new };
            let reservation = self.reserve(key, &value).map_err(IncrError::Refused)?;
            // Beside an announced change, which takes its place when it is confirmed: to wait for that could take long.
            let stored = self.publish_if(key, reservation, |guard, valid| {
                if !valid {
                    guard.flights().void(key.hash);
                }
                !valid
            });
            match stored {
                Stored::New | Stored::Replaced => return Ok(by),
                Stored::Dropped if self.shard_of(key).poisoned() => {
                    return Err(IncrError::Refused(Refusal::Off));
                }
                // Somebody else's counter was there first.
                Stored::Dropped => {}
            }
        }
    }

    fn add_in_place(&self, key: &Key<'_>, by: i64) -> Option<Result<i64, IncrError>> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let (entry, header) = guard
            .find(key)
            .filter(|(entry, header)| !guard.poisoned() && self.is_valid(entry, header, now))?;
        if header.kind() != Kind::COUNTER {
            return Some(Err(IncrError::OtherKind(header.kind())));
        }
        let word = entry.counter(&self.layout, &header)?;
        let old = word.load(Ordering::Relaxed) as i64;
        let Some(sum) = old.checked_add(by) else { return Some(Err(IncrError::Overflow)) };
        word.store(sum as u64, Ordering::Relaxed);
        guard.flights().void(key.hash);
        Some(Ok(sum))
    }

    /// Looks through the next `budget` buckets and removes what is of no use any more. Returns how many entries that were.
    pub fn sweep(&self, budget: u32) -> u64 {
        let now = self.host.now();
        let mut removed = 0;
        let mut left = budget;
        while left > 0 {
            let shard = Shard::new(self.region, &self.layout, self.layout.next_swept(&self.region));
            let guard = shard.lock(&self.host);
            let mut unlinked = Unlinked::default();
            let from = guard.swept().min(guard.buckets());
            let until = guard.buckets().min(from.saturating_add(left.min(BUCKETS_PER_HOLD)));
            let mut at = from;
            while at < until && !guard.poisoned() && !unlinked.is_full() {
                for entry in guard.in_bucket(at) {
                    let header = entry.header();
                    if !header.has(HIDDEN)
                        && let Some(reason) = self.is_useless(&entry, &header, now)
                        && !unlinked.is_full()
                    {
                        self.drop_entry(&guard, &entry, &header, reason, &mut unlinked);
                        removed += 1;
                    }
                }
                at += 1;
            }
            let done = at >= guard.buckets() || guard.poisoned();
            guard.set_swept(if done { 0 } else { at });
            drop(guard);
            self.release_all(&unlinked);
            left -= (at - from).clamp(1, left);
            if done {
                self.layout.sweep_next(&self.region);
            }
        }
        removed
    }

    /// The entries of a bucket; `None` behind the last one of the last shard. For people, not for callers in a hurry: it
    /// copies the keys.
    pub fn inspect(&self, bucket: u64) -> Option<Vec<Inspected>> {
        let now = self.host.now();
        let shard = u32::try_from(bucket / u64::from(self.layout.buckets))
            .ok()
            .filter(|n| *n < self.layout.shards)?;
        let mut found = Vec::new();
        let guard = Shard::new(self.region, &self.layout, shard).lock(&self.host);
        if guard.poisoned() {
            return Some(found);
        }
        for entry in guard.in_bucket((bucket % u64::from(self.layout.buckets)) as u32) {
            let header = entry.header();
            if header.has(HIDDEN) {
                continue;
            }
            let mut key = vec![0; header.key_len()];
            entry.copy(&self.layout, &header, header.key_at(), &mut key);
            found.push(Inspected {
                database: header.database(),
                space: header.space(),
                role: header.role(),
                key,
                meta: header.meta(),
                valid: self.is_valid(&entry, &header, now),
            });
        }
        Some(found)
    }

    /// How often something happened, in all backends together.
    pub fn counted(&self, what: Counter) -> u64 {
        total(&self.region, &self.layout, what)
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            block_bytes: self.layout.blocks_total() * BLOCK_BYTES as u64,
            fence_bytes: (self.layout.counters_at - self.layout.reserved_at) as u64 * 8,
            shards: self.layout.shards,
            ..Usage::default()
        };
        for number in 0..self.layout.shards {
            let guard = Shard::new(self.region, &self.layout, number).lock(&self.host);
            usage.entries = usage.entries.wrapping_add(guard.entries());
            usage.flights += guard.flights().count() as u64;
            usage.announced = usage.announced.wrapping_add(guard.hidden());
            usage.used_bytes +=
                u64::from(self.layout.blocks.saturating_sub(guard.free_blocks())) * BLOCK_BYTES as u64;
            usage.shards_off += u32::from(guard.poisoned());
        }
        usage
    }

    /// Verifies every structure and returns what is wrong, in words.
    pub fn check(&self) -> Vec<String> {
        crate::check::check(self.region, &self.layout, &self.host)
    }

    fn shard_of(&self, key: &Key<'_>) -> Shard<'_> {
        Shard::of_hash(self.region, &self.layout, key.hash)
    }

    /// Whether an entry would be served now.
    fn is_valid(&self, entry: &Entry<'_>, header: &Header, now: u32) -> bool {
        self.serve(entry, header, None, Stamp::LATEST, now, &mut None::<&mut ()>).is_ok()
    }

    /// Whether an entry will never be served again, and why.
    fn is_useless(&self, entry: &Entry<'_>, header: &Header, now: u32) -> Option<Counter> {
        if header.expires() <= now {
            return Some(Counter::Expired);
        }
        let fences = self.fences();
        let scope = self.scope(header.database(), header.space(), header.role());
        let passed = |fence| fences.passed(fence, header.stamp());
        (scope.fences.into_iter().any(passed)
            || (0..header.dependencies()).any(|place| passed(entry.dependency(&self.layout, header, place))))
        .then_some(Counter::Fenced)
    }

    fn drop_entry<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        entry: &Entry<'t>,
        header: &Header,
        reason: Counter,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| guard.unlink(entry, header));
        self.statistics.count(reason);
        self.give_back(guard, entry, header, unlinked);
    }

    /// Gives the blocks of an unlinked entry back: at once if they are of the shard we hold, later otherwise.
    fn give_back<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        entry: &Entry<'t>,
        header: &Header,
        unlinked: &mut Unlinked,
    ) {
        if header.has(SPREAD) {
            unlinked.push(entry.block);
            return;
        }
        let mut runs = entry.runs(&self.layout, header);
        let mut next = runs.next();
        while let Some(data) = next {
            // The next run is read before the one that names it is given away.
            next = runs.next();
            guard.give(data.run);
        }
    }

    fn release_all(&self, unlinked: &Unlinked) {
        for block in &unlinked.blocks[..unlinked.count] {
            self.release(*block);
        }
    }

    /// Gives the blocks of an entry back that is not linked. No lock may be held.
    fn release(&self, block: u32) {
        let entry = Entry::new(self.region, &self.layout, block);
        let header = entry.header();
        self.release_runs(entry.runs(&self.layout, &header).map(|data| data.run));
    }

    /// One lock after the other. The next run is read before the one that names it is given away.
    fn release_runs(&self, mut runs: impl Iterator<Item = Run>) {
        let mut next = runs.next();
        while let Some(run) = next {
            let owner = self.layout.shard_of_block(run.first);
            if owner >= self.layout.shards {
                return;
            }
            let guard = Shard::new(self.region, &self.layout, owner).lock(&self.host);
            let mut current = Some(run);
            while let Some(run) = current {
                next = runs.next();
                guard.give(run);
                current = next.filter(|run| self.layout.shard_of_block(run.first) == owner);
            }
        }
    }

    /// Takes blocks for an entry, evicting for them, and notes in its header how they hang together.
    ///
    /// One run in the key's own shard is best. Where free space is in pieces the entry is chained, first out of a few
    /// large pieces and, if evicting does not make such, out of any. An entry that is large for a shard takes a
    /// share of every shard instead of emptying one.
    fn find_room(&self, home: &Shard<'_>, header: &mut Header) -> Result<u32, Refusal> {
        let now = self.host.now();
        let blocks = header.blocks();
        let spread = blocks > self.layout.blocks / SHARD_SHARE;
        let share = if spread { self.layout.blocks / SHARD_SHARE / 2 } else { u32::MAX };
        let piece = if blocks <= SMALL_BLOCKS { blocks } else { (blocks / PIECES).max(SMALL_BLOCKS) };
        let mut room = Room { first: None, last: None, left: header.bytes() };
        let mut number = home.number;
        let mut fruitless = 0;
        while room.left > 0 && fruitless <= self.layout.shards.saturating_mul(2) {
            let guard = Shard::new(self.region, &self.layout, number).lock(&self.host);
            let mut unlinked = Unlinked::default();
            let mut evictions = EVICTIONS_PER_HOLD;
            let mut share_left = if guard.poisoned() { 0 } else { share };
            let before = room.left;
            while room.left > 0 && share_left >= RUN_BLOCKS_MIN {
                let alone = room.first.is_none() && !spread && blocks <= RUN_BLOCKS_MAX;
                // In a chain each run gives a word to the link.
                let want = if alone { blocks } else { blocks_of(room.left + 8) };
                let want = want.max(RUN_BLOCKS_MIN).min(share_left).min(RUN_BLOCKS_MAX);
                let least = if fruitless == 0 { piece.min(want) } else { RUN_BLOCKS_MIN };
                let Some(run) = self.take(&guard, least, want, now, &mut evictions, &mut unlinked) else {
                    break;
                };
                room.add(&self.region, &self.layout, run, alone && run.blocks == blocks);
                share_left -= run.blocks;
            }
            let off = guard.poisoned();
            drop(guard);
            self.release_all(&unlinked);
            if off && number == home.number {
                return room.abandon(self, header, Refusal::Off);
            }
            fruitless = if room.left < before { 0 } else { fruitless + 1 };
            // A first failure may be for want of large pieces, so the key's own shard is asked again.
            if spread || fruitless > 1 {
                number = (number + 1) % self.layout.shards;
                header.words[4] |= SPREAD;
            }
        }
        if room.left > 0 {
            return room.abandon(self, header, Refusal::Full);
        }
        room.note(header);
        room.first.map(|run| run.first).ok_or(Refusal::Full)
    }

    /// Takes a run of the shard we hold: one that a short search finds, or else one that evictions make.
    fn take<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        least: u32,
        want: u32,
        now: u32,
        evictions: &mut u32,
        unlinked: &mut Unlinked,
    ) -> Option<Run> {
        if self.host.refuses_blocks() {
            return None;
        }
        let mut run = guard.take(least, want, SEARCH_WORDS);
        while run.is_none() && *evictions > 0 && !unlinked.is_full() {
            let Some(freed) = self.evict(guard, now, unlinked) else {
                // Nobody to evict: what there is, is worth a longer search.
                return guard.take(least, want, u32::MAX);
            };
            run = guard.take_around(freed, least, want);
            *evictions -= 1;
        }
        run
    }

    /// Evicts one entry of the shard we hold, and returns where it was.
    fn evict<'t>(&'t self, guard: &Guard<'t, H>, now: u32, unlinked: &mut Unlinked) -> Option<u32> {
        let mut reason = Counter::Evicted;
        let entry = S3Fifo.victim(guard, |entry, header| match self.is_useless(entry, header, now) {
            Some(useless) => {
                reason = useless;
                true
            }
            None => false,
        })?;
        let header = entry.header();
        if reason == Counter::Evicted {
            guard.count_eviction();
            if entry.word(4) & IN_MAIN == 0 {
                self.statistics.count(Counter::EvictedUnread);
            }
        }
        self.drop_entry(guard, &entry, &header, reason, unlinked);
        Some(entry.block)
    }
}

/// Buckets that a sweep looks through under one hold of the lock.
const BUCKETS_PER_HOLD: u32 = 64;
