//! Spaces: named caches with their own options, and the privileges of roles in them. All other layers use the items that this file
//! passes on.
//!
//! ```text
//! options.rs      the options of a space
//! rows.rs         the rows of `pgcache.spaces`
//! privileges.rs   the privileges of roles in spaces
//! resolving.rs    finds a space by its name, for a role
//! ```

mod options;
mod privileges;
mod resolving;
mod rows;

pub use options::{KEEP_WARM_MAX, Notify, TtlPolicy};
pub use privileges::{
    Privilege, each_visible, each_visible_grant, grant_to_run, granted_to, granted_to_public, is_owner,
    may_look, may_monitor, may_read_queries, may_write_everywhere, readable, require_monitor, require_owner,
    require_rights_of_owner,
};
pub use resolving::{
    Space, any_keyspace, default_for_owner, observed, require_tag_writer, with_privilege, with_privilege_of,
    without_privilege,
};
pub use rows::{
    DEFAULT, DEFAULT_OID, NAME_BYTES_MAX, each_name, each_space, each_with_row, options, unknown,
};
