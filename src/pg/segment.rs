//! The tables that hold saved values, the *segments*: rows are appended, read by their position, and removed by truncating the
//! table. `sql/segments.sql` creates the tables, and `store/table/` decides what is in them.
//!
//! A row is found by its position only: its block and its number in the block. No index and no snapshot decides whether it exists,
//! so rows are inserted frozen, and neither hint bits nor the end of the inserting transaction matter. The memory tier, which is
//! the cache in shared memory, knows which rows are in use (`pg_cache_core::Location`).
//!
//! A reader holds AccessShareLock on the table only while it reads, and never waits for the lock. Everything in a table may be
//! wrong, because a superuser can write to it: readers check the file, the columns, and the length of each value before they use a
//! row.
//!
//! The functions that look up, open or read a table must be called within a transaction. They may raise errors of the server.
//!
//! A *fence* is the word in shared memory that says when a dependency of values last changed.

#![allow(unsafe_code)]

pub use super::segment_row::SegmentRow;

use super::memory::{self, Scratch};
use super::segment_row::{self, COLUMNS, TYPES};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;

unsafe extern "C" {
    // These raise no error for a buffer that is pinned, and for a relation that is open and locked, by the current resource owner. So
    // they are called without pgrx's guard, which would cost as much as the functions.
    fn LockBuffer(buffer: pg_sys::Buffer, mode: c_int);
    fn ReleaseBuffer(buffer: pg_sys::Buffer);
    fn RelationClose(relation: pg_sys::Relation);
    fn UnlockRelationOid(relation: pg_sys::Oid, lock: pg_sys::LOCKMODE);
}

/// This many of the lowest bits of a position are the number of the row in its block, counted from 1. The bits above them are the
/// number of the block. A block of 8 kB has at most 291 rows.
const ROW_BITS: u32 = 9;

/// A segment that is open and locked.
#[derive(Debug)]
pub struct Segment {
    relation: pg_sys::Relation,
    lock: i32,
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `open` has opened the relation and acquired the lock. After an error, the abort of the transaction releases both,
        // and this code runs before the abort.
        unsafe {
            let oid = (*self.relation).rd_id;
            RelationClose(self.relation);
            UnlockRelationOid(oid, self.lock);
        }
    }
}

impl Segment {
    /// Opens a segment for reading. None if another session holds or awaits a lock that conflicts with AccessShareLock, or if it is
    /// no segment.
    pub fn to_read(oid: u32) -> Option<Self> {
        Self::open(oid, pg_sys::AccessShareLock as i32)
    }

    /// Opens a segment for appending, under the same conditions for RowExclusiveLock, and if its file exists.
    pub fn to_append(oid: u32) -> Option<Self> {
        Self::open(oid, pg_sys::RowExclusiveLock as i32).filter(Self::has_file)
    }

    /// Opens a segment to remove its rows, under the same conditions for AccessExclusiveLock: no other session may even read it.
    pub fn to_truncate(oid: u32) -> Option<Self> {
        Self::open(oid, pg_sys::AccessExclusiveLock as i32)
    }

    /// Opens a segment with this lock, or returns None at once.
    fn open(oid: u32, lock: i32) -> Option<Self> {
        let oid = pg_sys::Oid::from(oid);
        if !lock_without_waiting(oid, lock) {
            return None;
        }
        // SAFETY: the relation is locked, so its entry in the server's cache stays valid. A null pointer means that it does not
        // exist.
        unsafe {
            let relation = pg_sys::RelationIdGetRelation(oid);
            if relation.is_null() {
                UnlockRelationOid(oid, lock);
                return None;
            }
            let segment = Self { relation, lock };
            segment.is_well_formed().then_some(segment)
        }
    }

    /// Whether the relation is an ordinary unlogged table with the columns of a segment.
    fn is_well_formed(&self) -> bool {
        // SAFETY: the relation is open; its descriptor has `natts` attributes.
        unsafe {
            let form = &*(*self.relation).rd_rel;
            let descriptor = (*self.relation).rd_att;
            form.relkind as u8 == pg_sys::RELKIND_RELATION
                && form.relpersistence as u8 == pg_sys::RELPERSISTENCE_UNLOGGED
                && form.relam == pg_sys::HEAP_TABLE_AM_OID
                && (*descriptor).natts as usize == COLUMNS
                && TYPES.iter().enumerate().all(|(column, kind)| column_type(descriptor, column) == *kind)
        }
    }

    /// Returns the number of the table's file. Rows keep their positions as long as the file is the same.
    pub fn file(&self) -> u32 {
        // SAFETY: the relation is open.
        #[cfg(feature = "pg15")]
        let file = unsafe { (*self.relation).rd_node.relNode };
        #[cfg(not(feature = "pg15"))]
        // SAFETY: as above.
        let file = unsafe { (*self.relation).rd_locator.relNumber };
        file.into()
    }

    /// Returns the size of the table in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks()) * u64::from(pg_sys::BLCKSZ)
    }

    /// Returns the number of blocks of the table; 0 if its file is missing.
    fn blocks(&self) -> u32 {
        if !self.has_file() {
            return 0;
        }
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Whether the file of the table exists. It may have been removed from a damaged disk.
    fn has_file(&self) -> bool {
        // SAFETY: the relation is open. The server's structure for its files lives at least until the end of the transaction.
        unsafe {
            let mut files = (*self.relation).rd_smgr;
            if files.is_null() {
                #[cfg(feature = "pg15")]
                let place = (*self.relation).rd_node;
                #[cfg(not(feature = "pg15"))]
                let place = (*self.relation).rd_locator;
                files = pg_sys::smgropen(place, (*self.relation).rd_backend);
            }
            // An open file needs no look at the directory.
            (*files).md_num_open_segs[0] > 0 || pg_sys::smgrexists(files, pg_sys::ForkNumber::MAIN_FORKNUM)
        }
    }

    /// Returns the row at a position, with a pin on its block. None if there is none, or if it is damaged.
    pub fn row(&self, position: u64) -> Option<PinnedRow<'_>> {
        let block = u32::try_from(position >> ROW_BITS).ok()?;
        let number = (position & ((1 << ROW_BITS) - 1)) as u16;
        // Reading behind the end of the file would raise an error.
        (number > 0 && self.has_block(block)).then(|| self.pinned_row(block, number)).flatten()
    }

    /// Whether a block exists. Asks the system for the size of the file only if the server does not know yet that the file is so
    /// large.
    fn has_block(&self, block: u32) -> bool {
        // SAFETY: the relation is open. Its file is either closed, and the pointer is null, or an object of this process. A
        // truncation sends a message before it shortens the file, and `lock_without_waiting` has accepted all messages from before
        // the lock was acquired: they close the file. While the lock is held, no other session truncates. So the file has no fewer
        // blocks than were counted last.
        let counted = unsafe {
            let file = (*self.relation).rd_smgr;
            if file.is_null() { pg_sys::InvalidBlockNumber } else { (*file).smgr_cached_nblocks[0] }
        };
        let is_counted = counted != pg_sys::InvalidBlockNumber && block < counted;
        is_counted || block < self.blocks()
    }

    /// Returns the row that directly follows a position, with its position: in the same block, or the first row of the next block.
    pub fn next_row(&self, position: u64) -> Option<(u64, PinnedRow<'_>)> {
        next(position).into_iter().find_map(|next| Some((next, self.row(next)?)))
    }

    /// Returns the row with this number, counted from 1, in a block that must exist. None if there is no such row, or if the block
    /// or the row is damaged. Raises an error if the operating system cannot read the block.
    fn pinned_row(&self, block: u32, number: u16) -> Option<PinnedRow<'_>> {
        // SAFETY: follows `heap_fetch`. The block exists. The content lock is held while the line pointer and the header of the tuple
        // are read; afterwards the pin protects the bytes of the tuple, and `PinnedRow` holds it. The page may be damaged: it is
        // read as zeros then, and the tuple must lie within it.
        unsafe {
            let buffer = pg_sys::ReadBufferExtended(
                self.relation,
                pg_sys::ForkNumber::MAIN_FORKNUM,
                block,
                pg_sys::ReadBufferMode::RBM_ZERO_ON_ERROR,
                std::ptr::null_mut(),
            );
            LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as c_int);
            let page = pg_sys::BufferGetPage(buffer);
            let mut data: Option<&'static [u8]> = None;
            if !pg_sys::PageIsNew(page) && number <= pg_sys::PageGetMaxOffsetNumber(page) {
                let item = pg_sys::PageGetItemId(page, number);
                let (start, length) = ((*item).lp_off() as usize, (*item).lp_len() as usize);
                let is_whole = length >= std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits)
                    && start + length <= pg_sys::BLCKSZ as usize
                    && start.is_multiple_of(pg_sys::MAXIMUM_ALIGNOF as usize);
                if (*item).lp_flags() == pg_sys::LP_NORMAL && is_whole {
                    let tuple = page.cast::<u8>().add(start);
                    let header = &*tuple.cast::<pg_sys::HeapTupleHeaderData>();
                    let (data_at, infomasks) =
                        (usize::from(header.t_hoff), [header.t_infomask, header.t_infomask2]);
                    if segment_row::has_all_columns(infomasks) && data_at <= length {
                        data = Some(std::slice::from_raw_parts(tuple.add(data_at), length - data_at));
                    }
                }
            }
            LockBuffer(buffer, pg_sys::BUFFER_LOCK_UNLOCK as c_int);
            let row = data.and_then(segment_row::read);
            if row.is_none() {
                ReleaseBuffer(buffer);
            }
            row.map(|row| PinnedRow { buffer, row, segment: PhantomData })
        }
    }

    /// Removes all rows and gives the file's space back to the system. The segment must be open to truncate.
    pub fn truncate(&self) {
        if self.lock == pg_sys::AccessExclusiveLock as i32 && self.blocks() > 0 {
            // SAFETY: the relation is open, and locked as the server requires.
            unsafe { pg_sys::heap_truncate_one_rel(self.relation) };
        }
    }

    /// Appends rows and returns their positions. The segment must be open to append; otherwise it returns no positions. Each row
    /// must fit into a block ([`SegmentRow::BYTES_MAX`]).
    ///
    /// Raises an error if there is no memory, or if the disk is full.
    pub fn append(&self, rows: &[SegmentRow<'_>]) -> Vec<u64> {
        let mut positions = Vec::new();
        if self.lock != pg_sys::RowExclusiveLock as i32 || rows.is_empty() {
            return positions;
        }
        memory::reserve(&mut positions, rows.len());
        let mut slots: Vec<*mut pg_sys::TupleTableSlot> = Vec::new();
        memory::reserve(&mut slots, rows.len());
        // The rows take memory of this context, which is freed at once.
        let _scratch = Scratch::new();
        // SAFETY: the relation is open and locked for writing. Each tuple is formed by the relation's own descriptor, from values
        // of the descriptor's types, as `is_well_formed` has checked. The slots are released here or with the memory context.
        unsafe {
            let descriptor = (*self.relation).rd_att;
            for row in rows {
                let tuple = segment_row::form(descriptor, row);
                let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsHeapTuple);
                pg_sys::ExecStoreHeapTuple(tuple, slot, true);
                slots.push(slot);
            }
            pg_sys::heap_multi_insert(
                self.relation,
                slots.as_mut_ptr(),
                slots.len() as i32,
                pg_sys::GetCurrentCommandId(true),
                (pg_sys::HEAP_INSERT_FROZEN | pg_sys::HEAP_INSERT_SKIP_FSM) as i32,
                std::ptr::null_mut(),
            );
            for slot in slots {
                let place = (*slot).tts_tid;
                let block = u64::from(place.ip_blkid.bi_hi) << 16 | u64::from(place.ip_blkid.bi_lo);
                positions.push(block << ROW_BITS | u64::from(place.ip_posid));
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
        positions
    }
}

/// Returns the two positions at which the next row may be.
fn next(position: u64) -> [u64; 2] {
    [position + 1, ((position >> ROW_BITS) + 1) << ROW_BITS | 1]
}

/// Returns whether [`Segment::next_row`] finds the row at `after` from the row at `position`, if no row lies between them.
pub fn is_next(position: u64, after: u64) -> bool {
    next(position).contains(&after)
}

/// Returns the type of a column, counted from 0; 0 if the column was dropped.
///
/// # Safety
/// The descriptor must have that many columns.
unsafe fn column_type(descriptor: pg_sys::TupleDesc, column: usize) -> pg_sys::Oid {
    // SAFETY: as the caller promises.
    #[cfg(not(feature = "pg18"))]
    return unsafe { (*(*descriptor).attrs.as_ptr().add(column)).atttypid };
    #[cfg(feature = "pg18")]
    // SAFETY: as above.
    return unsafe { (*pg_sys::TupleDescAttr(descriptor, column as i32)).atttypid };
}

/// Acquires a lock on a relation if that is possible at once. Raises no error if the lock table is full.
fn lock_without_waiting(oid: pg_sys::Oid, lock: i32) -> bool {
    // SAFETY: follows `ConditionalLockRelationOid`. The tag is that of a relation of this database. Once the lock is held,
    // invalidation messages must be accepted, unless that was done when the same lock was acquired before.
    unsafe {
        let mut tag: pg_sys::LOCKTAG = std::mem::zeroed();
        tag.locktag_field1 = pg_sys::MyDatabaseId.to_u32();
        tag.locktag_field2 = oid.to_u32();
        tag.locktag_type = pg_sys::LockTagType::LOCKTAG_RELATION as u8;
        tag.locktag_lockmethodid = pg_sys::DEFAULT_LOCKMETHOD as u8;
        let mut local: *mut pg_sys::LOCALLOCK = std::ptr::null_mut();
        let result = pg_sys::LockAcquireExtended(
            &raw const tag,
            lock,
            false,
            true,
            false,
            &raw mut local,
            #[cfg(feature = "pg18")]
            false,
        );
        use pg_sys::LockAcquireResult::{LOCKACQUIRE_ALREADY_CLEAR, LOCKACQUIRE_NOT_AVAIL};
        if result == LOCKACQUIRE_NOT_AVAIL {
            return false;
        }
        if result != LOCKACQUIRE_ALREADY_CLEAR {
            pg_sys::AcceptInvalidationMessages();
            // As `MarkLockClear` does.
            (*local).lockCleared = true;
        }
        true
    }
}

/// A row in a block that is pinned: the row's bytes stay where they are until it is dropped.
#[derive(Debug)]
pub struct PinnedRow<'s> {
    buffer: i32,
    /// The bytes of the row are in the block, so they may be used only as long as the pin lasts.
    row: SegmentRow<'static>,
    /// The lock on the segment must last as long as the pin.
    segment: PhantomData<&'s Segment>,
}

impl Drop for PinnedRow<'_> {
    fn drop(&mut self) {
        // SAFETY: the pin of `pinned_row`.
        unsafe { ReleaseBuffer(self.buffer) };
    }
}

impl PinnedRow<'_> {
    /// Returns the columns of the row.
    pub fn row(&self) -> SegmentRow<'_> {
        self.row
    }
}

/// Returns the OIDs of the segments of this database that exist. They are named `segment_1`, `segment_2` and so on, up to the
/// number `most`. `schema` must be the OID of the extension's schema.
pub fn all(schema: u32, most: usize) -> Vec<u32> {
    let mut found = Vec::new();
    memory::reserve(&mut found, most);
    for number in 1..=most {
        let Ok(name) = std::ffi::CString::new(format!("segment_{number}")) else { continue };
        found.extend(oid_of(&name, schema));
    }
    found
}

fn oid_of(name: &CStr, schema: u32) -> Option<u32> {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema.into()) };
    (oid != pg_sys::InvalidOid).then(|| oid.to_u32())
}
