//! Unit tests of files of the extension that need no server. The library itself has no test binary, because its symbols resolve
//! only inside a server. So these files are compiled here, as the modules that they are in the library, with stand-ins for the few
//! functions of `pg` that they call.

mod compressing;
mod known;
mod notes;
mod pg;
mod release;
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
}

/// Files of `src/workers`.
#[path = "../../src/workers"]
mod workers {
    pub mod known;
}
