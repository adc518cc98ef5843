//! The parts about the *table tier*, in which pg_cache saves values in tables before they are evicted from memory. A background
//! worker, the *saver*, saves the values. The *directory* in shared memory has a *location* for each saved value, which says where
//! the value is.
//!
//! [`read`] compares hits and misses, and [`set`] compares sets, both between servers that save values in tables and servers that
//! do not. [`save`] measures how fast values are saved, and how many in time. [`disk`] compares the space that values take, and
//! [`restart`] measures how much later a server answers after a clean restart, and how many values it still has. [`side`] starts
//! the servers.

pub mod disk;
pub mod read;
pub mod restart;
pub mod save;
pub mod set;
mod side;

use crate::data::SAVED_BYTES;
use crate::report::target::Target;
