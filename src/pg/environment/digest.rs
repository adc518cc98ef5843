//! Digests of the *environment* of a query: the roles, the search path and the settings. The key of each stored result contains a
//! digest, so a session gets only results from sessions with the same environment.
//!
//! [`basic`] covers all settings that can change a result, except for *placeholders*: settings that no library of the session has
//! defined, such as `app.tenant`. Only a query that reads settings by name depends on those. [`full`] covers, for such queries,
//! every setting that can differ between sessions.
//!
//! Only settings that differ from their compiled-in default count, so that loading a library changes nothing.
//!
//! [`basic`] runs at every look for a stored result. The session remembers where the values are, the last values and the last
//! digest. A call compares each value with the last one and computes the digest again if one differs. No event has to be caught for
//! that, so SET LOCAL, SET clauses of functions, rollbacks and reloads need no code.

#![allow(unsafe_code)]

use super::harmless::{harmless, is_harmless};
use super::server_settings::{Setting, count_settings, is_placeholder, with_settings};
use crate::pg::local::{check_thread, local};
use crate::pg::memory;
use pgrx::pg_sys;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_int};

/// The beginning of the names of our own settings. The basic digest leaves them out: a session with `pg_cache.bypass` must store
/// where other sessions read.
const OWN: &[u8] = b"pg_cache.";

/// A SHA-256 hash.
type Hash = [u8; 32];

unsafe extern "C" {
    // Called without pgrx's guard: they raise no errors, and run with every hit.
    fn EstimateLibraryStateSpace() -> pg_sys::Size;
    fn GetSessionUserId() -> pg_sys::Oid;
    fn GetUserIdAndSecContext(user: *mut pg_sys::Oid, context: *mut c_int);
}

local! {
    static REMEMBERED: RefCell<Remembered> = RefCell::new(Remembered::NOTHING);
}

/// Returns the digest of what the result of any query can depend on: roles, search path, and settings without placeholders.
pub fn basic() -> Hash {
    digest(false)
}

/// Returns the first eight bytes of [`basic`].
pub fn short() -> u64 {
    basic().first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Returns the digest of what the result of a query can depend on if the query reads settings by name: [`basic`], placeholders, and
/// all other settings that can differ between sessions.
pub fn full() -> Hash {
    digest(true)
}

/// Returns whether the current role is the role that has logged in: neither SET ROLE, nor SET SESSION AUTHORIZATION, nor a SECURITY
/// DEFINER function has changed it.
pub fn is_of_login() -> bool {
    let caller = Caller::now();
    // SAFETY: reads a variable of the server.
    caller.context == 0
        && caller.user == caller.session_user
        && caller.user == unsafe { pg_sys::GetAuthenticatedUserId() }
}

fn digest(full: bool) -> Hash {
    let mut buffer = [pg_sys::InvalidOid; 32];
    let mut longer = Vec::new();
    let caller = Caller::now();
    // May look up catalogs and raise an error, so it comes before the state is borrowed.
    let path = search_path(&mut buffer, &mut longer);
    if !REMEMBERED.with_borrow(|remembered| remembered.has_all_settings(full)) {
        let found = Remembered::new();
        REMEMBERED.with_borrow_mut(|remembered| *remembered = found);
    }
    REMEMBERED.with_borrow_mut(|remembered| {
        remembered.compare(caller, path, full);
        let place = &remembered.digests[usize::from(full)];
        place.unwrap_or_else(|| {
            let hash = remembered.hash(full);
            remembered.digests[usize::from(full)] = Some(hash);
            hash
        })
    })
}

/// Returns the OIDs of the schemas in the search path, including those that are searched implicitly, except for the session's
/// temporary schema: its OID differs between sessions that have the same search path.
fn search_path<'b>(buffer: &'b mut [pg_sys::Oid], longer: &'b mut Vec<pg_sys::Oid>) -> &'b [pg_sys::Oid] {
    // SAFETY: the server writes at most as many OIDs as there is room for, and returns how many there are.
    let fetch = |room: &mut [pg_sys::Oid]| unsafe {
        pg_sys::fetch_search_path_array(room.as_mut_ptr(), room.len() as c_int) as usize
    };
    let count = fetch(buffer);
    if count <= buffer.len() {
        return &buffer[..count];
    }
    memory::reserve(longer, count);
    longer.resize(count, pg_sys::InvalidOid);
    let count = fetch(longer).min(count);
    &longer[..count]
}

/// For whom a query runs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Caller {
    database: pg_sys::Oid,
    user: pg_sys::Oid,
    session_user: pg_sys::Oid,
    /// The flags of the security context: whether a SECURITY DEFINER function runs, and whether row security holds for owners.
    context: c_int,
}

impl Caller {
    const NONE: Self = Self {
        database: pg_sys::InvalidOid,
        user: pg_sys::InvalidOid,
        session_user: pg_sys::InvalidOid,
        context: 0,
    };

    fn now() -> Self {
        check_thread();
        let mut now = Self::NONE;
        // SAFETY: copies variables of the server.
        unsafe {
            now.database = pg_sys::MyDatabaseId;
            now.session_user = GetSessionUserId();
            GetUserIdAndSecContext(&raw mut now.user, &raw mut now.context);
        }
        now
    }
}

/// The memory of the last calls.
struct Remembered {
    /// How much memory the names of the loaded libraries take. It grows when the session loads a library, which may define settings
    /// and replace placeholders by them. 0: nothing is remembered.
    libraries: usize,
    /// How many settings there were, including placeholders.
    settings: c_int,
    caller: Caller,
    path: Vec<pg_sys::Oid>,
    /// The settings that the basic digest covers. The server never removes them.
    counting: Vec<Setting>,
    /// The settings that only the full digest covers.
    others: Vec<Setting>,
    /// The names of the placeholders among `others`. The server frees a placeholder when a library defines or reserves its name.
    placeholders: Vec<CString>,
    /// The basic and the full digest, if nothing they cover has changed since they were computed.
    digests: [Option<Hash>; 2],
}

impl Remembered {
    const NOTHING: Self = Self {
        libraries: 0,
        settings: 0,
        caller: Caller::NONE,
        path: Vec::new(),
        counting: Vec::new(),
        others: Vec::new(),
        placeholders: Vec::new(),
        digests: [None; 2],
    };

    /// Finds the settings of the session.
    fn new() -> Self {
        let mut found = Self { libraries: libraries(), ..Self::NOTHING };
        let harmless = harmless();
        with_settings(|records| {
            found.settings = records.len() as c_int;
            for record in records {
                // SAFETY: the server's records of settings are valid until the server is called again.
                unsafe {
                    let name = CStr::from_ptr((**record).name);
                    let context = (**record).context;
                    let is_fixed = matches!(
                        context,
                        pg_sys::GucContext::PGC_POSTMASTER | pg_sys::GucContext::PGC_INTERNAL
                    );
                    let Some(setting) = Setting::of(*record) else { continue };
                    if setting.default.is_none() {
                        if let Some(name) = memory::terminated(name.to_bytes()) {
                            memory::push(&mut found.placeholders, name);
                        }
                        memory::push(&mut found.others, setting);
                    } else if is_fixed
                        || name.to_bytes().starts_with(OWN)
                        || is_harmless(name.to_bytes(), context, &harmless)
                    {
                        memory::push(&mut found.others, setting);
                    } else {
                        memory::push(&mut found.counting, setting);
                    }
                }
            }
        });
        found
    }

    /// Returns whether the lists of settings are complete, and all their records are valid.
    ///
    /// Only a library defines settings, when it is loaded. On PostgreSQL 15, the number of settings shows those of a library that
    /// defines them later as well. Other versions count settings at a high cost, so they count them for the full digest only, which
    /// must know new placeholders.
    fn has_all_settings(&self, full: bool) -> bool {
        self.libraries == libraries()
            && (!(full || cfg!(feature = "pg15")) || self.settings == count_settings())
            && (!full || self.placeholders.iter().all(|name| is_placeholder(name)))
    }

    /// Compares everything that a digest covers with what is remembered, and forgets the digest if something differs.
    fn compare(&mut self, caller: Caller, path: &[pg_sys::Oid], full: bool) {
        if self.caller != caller || self.path != path {
            self.digests = [None; 2];
            self.caller = caller;
            self.path.clear();
            memory::reserve(&mut self.path, path.len());
            self.path.extend_from_slice(path);
        }
        for setting in &mut self.counting {
            // SAFETY: the record is that of a setting that the server never removes.
            unsafe { setting.update(|| self.digests = [None; 2]) };
        }
        if full {
            for setting in &mut self.others {
                // SAFETY: `has_all_settings` has just checked that the records are valid.
                unsafe { setting.update(|| self.digests[1] = None) };
            }
        }
    }

    fn hash(&self, full: bool) -> Hash {
        let mut hash = Sha256::new();
        let Caller { database, user, session_user, context } = self.caller;
        for word in [database, user, session_user] {
            hash.update(word.to_u32().to_ne_bytes());
        }
        hash.update(context.to_ne_bytes());
        hash.update(self.path.len().to_ne_bytes());
        for schema in &self.path {
            hash.update(schema.to_u32().to_ne_bytes());
        }
        for setting in self.counting.iter().chain(self.others.iter().filter(|_| full)) {
            // SAFETY: as in `compare`, which was called before.
            unsafe { setting.add_to(&mut hash) };
        }
        hash.finalize().into()
    }
}

/// Returns a number that grows when the session loads a library.
fn libraries() -> usize {
    check_thread();
    // SAFETY: adds up the lengths of the names in the server's list of libraries.
    unsafe { EstimateLibraryStateSpace() }
}

/// Returns the basic or the full digest as a text. For tests, in debug builds only (`CREATE FUNCTION … AS '$libdir/pg_cache',
/// 'environment_digest_wrapper'`).
#[cfg(debug_assertions)]
#[pgrx::pg_extern(sql = false)]
fn environment_digest(full: bool) -> String {
    digest(full).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the average nanoseconds of a digest when nothing has changed. Only builds with the feature `measure` have this function
/// (`CREATE FUNCTION … AS '$libdir/pg_cache', 'measure_environment_wrapper'`).
#[cfg(feature = "measure")]
#[pgrx::pg_extern(sql = false)]
fn measure_environment(times: i32, full: bool) -> f64 {
    let started = std::time::Instant::now();
    for _ in 0..times {
        std::hint::black_box(digest(full));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}
