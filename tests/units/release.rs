//! The files that name the version of the project agree, and `META.json` has the form that PGXN, the registry of PostgreSQL
//! extensions, requires.

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the text of a file of the repository.
fn file(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails if the newest section of the changelog describes another version than that of `Cargo.toml`, or if the control file does
/// not take its version from there.
#[test]
fn the_changelog_and_the_control_file_have_the_version() {
    let changelog = file("CHANGELOG.md");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## ")).expect("a section");
    assert_eq!(newest.split(' ').next(), Some(VERSION));
    assert!(file("pg_cache.control").contains("default_version = '@CARGO_VERSION@'"));
}

/// PGXN requires these keys of `META.json`, in these forms.
#[test]
fn the_description_for_pgxn_is_valid() {
    let meta: Value = serde_json::from_str(&file("META.json")).expect("it is JSON");
    for key in ["name", "abstract", "maintainer"] {
        assert!(meta[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    assert_eq!(meta["license"], "postgresql");
    assert_eq!(meta["meta-spec"]["version"], "1.0.0");
    assert_eq!(meta["version"], VERSION);
    let provided = meta["provides"].as_object().expect("an object");
    assert_eq!(provided.keys().collect::<Vec<_>>(), ["pg_cache"]);
    assert_eq!(provided["pg_cache"]["version"], VERSION);
    for key in ["file", "docfile"] {
        file(provided["pg_cache"][key].as_str().expect("the name of a file"));
    }
    assert!(meta["tags"].as_array().is_some_and(|tags| tags.iter().all(Value::is_string)));
}
