pub mod clock;
pub mod error;
pub mod jsonb;
pub mod preload;
pub mod settings;
pub mod shared;
pub mod transaction;
pub mod varlena;
