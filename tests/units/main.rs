//! Unit tests of files of the extension that need no server. The library itself cannot have a test binary, because its symbols
//! resolve only inside a server. So these files are compiled here, under the same module names as in the library. `pg.rs` replaces
//! the few functions of PostgreSQL's layer (`src/pg/`) that they call. `release.rs` tests the files that name the version.

mod compressing;
mod known;
mod notes;
mod pg;
mod release;
mod walks;
mod worth;

/// Files of `src/query`.
#[path = "../../src/query"]
mod query {
    pub mod compress;
    pub mod worth;
}

/// Files of `src/store`.
#[allow(dead_code)]
#[path = "../../src/store"]
mod store {
    pub mod kind;
    pub mod note;
    pub mod table {
        pub mod saver {
            pub mod walk;
        }
    }
}

/// Files of `src/workers`.
#[path = "../../src/workers"]
mod workers {
    pub mod known;
}
