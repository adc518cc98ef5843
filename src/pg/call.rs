//! Tells by the definition of a function what a call of it means for the result of a query: whether the result may depend on the
//! clock, on settings, on the state of the server, or on more than pg_cache can follow. `analysis.rs` asks this for the calls in
//! the tree of a query, and `function.rs` for the calls while it runs.

#![allow(unsafe_code)]

use super::built_in;
use pgrx::prelude::*;

/// The meaning of a call of a function for the result of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The function is a stable built-in one that reads the state of the server.
    pub server_state: bool,
    /// The function is in a language that pg_cache cannot follow.
    pub foreign_language: bool,
    /// The function may read settings by their names.
    pub reads_settings: bool,
    /// The function may read the clock.
    pub reads_clock: bool,
    /// The function is neither built in nor in the language `internal` or `c`, so pg_cache cannot know what names it uses.
    pub user_function: bool,
}

/// Volatile built-in functions that change no result: `pg_sleep` and the like, and the functions that take and release advisory
/// locks. A function that is declared as stable may call them.
const HARMLESS: [u32; 24] = [
    2626, 2880, 2881, 2882, 2883, 2884, 2885, 2886, 2887, 2888, 2889, 2890, 2891, 2892, 3089, 3090, 3091,
    3092, 3093, 3094, 3095, 3096, 3935, 3936,
];

impl Call {
    /// Returns what the call of a function means. May raise errors.
    pub fn of(function: u32) -> Self {
        let traits = built_in::traits(function);
        let is_stable = |found: Function| found.volatility == pg_sys::PROVOLATILE_STABLE;
        if function < pg_sys::FirstNormalObjectId {
            let depends_on_more = |found: Function| {
                is_stable(found)
                    || found.volatility == pg_sys::PROVOLATILE_VOLATILE && !HARMLESS.contains(&function)
            };
            let is_unknown = || !traits.is_known() && find(function).is_none_or(depends_on_more);
            return Self {
                server_state: traits.reads_state() || is_unknown(),
                reads_settings: traits.reads_settings(),
                reads_clock: traits.reads_clock(),
                ..Self::default()
            };
        }
        let Some(found) = find(function) else {
            // A function that is gone could have been anything.
            return Self { server_state: false, ..Self::ANYTHING };
        };
        if found.is_aggregate {
            // The aggregate consists of other functions, which are observed, but it could consist of others tomorrow.
            return Self { user_function: true, ..Self::default() };
        }
        let is_native = [INTERNAL, C].contains(&found.language);
        let is_sql = found.language == SQL;
        Self {
            server_state: false,
            foreign_language: !is_native && !is_sql && found.language != plpgsql(),
            // A library reads its settings, and a session may have set one before it has loaded the library.
            reads_settings: found.language != INTERNAL && !is_sql,
            reads_clock: is_stable(found) && found.language != C,
            user_function: !is_native,
        }
    }

    const ANYTHING: Self = Self {
        server_state: true,
        foreign_language: true,
        reads_settings: true,
        reads_clock: true,
        user_function: true,
    };
}

/// The OID of the language `internal` in pg_language.
pub const INTERNAL: u32 = 12;
/// The OID of the language `c` in pg_language.
pub const C: u32 = 13;
/// The OID of the language `sql` in pg_language.
pub const SQL: u32 = 14;

/// Returns the OID of the language `plpgsql` in pg_language, or 0 if it is not installed.
pub fn plpgsql() -> u32 {
    // SAFETY: looks up a catalog, by a name that ends with a zero.
    unsafe { pg_sys::get_language_oid(c"plpgsql".as_ptr(), true) }.to_u32()
}

/// A row of pg_proc.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The OID of its language.
    pub language: u32,
    /// Its `provolatile`.
    pub volatility: u8,
    pub is_aggregate: bool,
}

/// Returns the row of a function in pg_proc. None if there is no such function. May raise errors.
pub fn find(function: u32) -> Option<Function> {
    // SAFETY: a look-up in the server's cache of pg_proc. The entry is released after the last access.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, function.into());
        if tuple.is_null() {
            return None;
        }
        let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let found = Function {
            language: row.prolang.to_u32(),
            volatility: row.provolatile as u8,
            is_aggregate: row.prokind as u8 == pg_sys::PROKIND_AGGREGATE,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}
