//! Build script. It sets the link arguments of the library. On macOS, symbols of the server may stay undefined until the
//! server loads the library; this is untested. Elsewhere, the linker must keep the section with the SQL entities: no code
//! references this section, so the linker would drop it.
//!
//! `cargo pgrx` would do this with global rustflags, and every other cargo command would then rebuild all dependencies
//! without them. A link argument for this library alone lets all commands share a build.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup");
    } else {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--no-gc-sections");
    }
}
