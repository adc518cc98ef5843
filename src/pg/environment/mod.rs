//! The environment of a session: everything besides data and definitions that the result of a query can depend on. It consists of
//! the roles, the search path and the settings.
//!
//! ```text
//! digest.rs            digests of the environment
//! harmless.rs          the settings that cannot change a result
//! server_settings.rs   where the values of settings are, and when they have changed
//! names.rs             how the session reads the names in a query
//! ```

mod digest;
mod harmless;
mod names;
mod server_settings;

pub use digest::{basic, full, is_of_login, short};
pub use names::{
    has_temporary_objects, has_temporary_schema, in_temporary_schema, lexing, search_path_names,
};
pub use server_settings::{separate_read_only, with_settings};
