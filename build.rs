//! Keeps the section that holds the SQL entities, which nothing references, in the linked library.
//!
//! `cargo pgrx` would do it with global rustflags, and every other cargo command would then rebuild
//! all dependencies without them. A link argument of this one library lets all commands share a build.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup");
    } else {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
    }
}
