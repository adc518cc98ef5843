pub mod clock;
pub mod preload;
pub mod settings;
pub mod shared;
