//! Checks the text of the extension's SQL: every operator, function, type and collation in it must name its schema.
//! Otherwise, the search path of a caller could lead to an object of the same name in another schema. `twins.rs` tests that at
//! run time.

use pg_cache_testbed::Database;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A token of SQL. Comments are not tokens, and quoted identifiers are words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An identifier or a keyword with the schemas before it, in lower case, a number, or `::`.
    Word(String),
    Operator(String),
    /// A character that is part of the grammar.
    Mark(char),
    Literal,
}

/// Splits SQL into tokens.
pub fn tokens(sql: &str) -> Vec<Token> {
    let (mut tokens, mut rest) = (Vec::new(), sql);
    let is_operator = |letter: char| "+-*/<>=~!#%^&|`?".contains(letter);
    let is_word = |letter: char| letter.is_alphanumeric() || "_$.\"@".contains(letter);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '\'' {
            tokens.push(Token::Literal);
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("::") {
            tokens.push(Token::Word("::".to_owned()));
            2
        } else if is_word(first) {
            let word: String = rest.chars().take_while(|letter| is_word(*letter)).collect();
            tokens.push(Token::Word(word.to_lowercase()));
            word.len()
        } else if is_operator(first) {
            let operator: String = rest.chars().take_while(|letter| is_operator(*letter)).collect();
            let length = operator.len();
            tokens.push(Token::Operator(operator));
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Mark(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// Syntax that looks up an operator in the search path and cannot name its schema.
const LOOKS_UP: [&str; 8] = ["between", "in", "like", "ilike", "similar", "distinct", "nullif", "case"];

/// Returns the names in some SQL that do not name their schema. `functions` and `types` are the names in `pg_catalog`.
fn unqualified(sql: &str, functions: &BTreeSet<String>, types: &BTreeSet<String>) -> Vec<String> {
    let tokens = tokens(sql);
    let is = |at: usize, word: &str| tokens.get(at) == Some(&Token::Word(word.to_owned()));
    let mut found = Vec::new();
    // CREATE TYPE name (option = value, …) has no operators. One of the options is LIKE.
    let mut defines_type = false;
    for (at, token) in tokens.iter().enumerate() {
        defines_type = match token {
            Token::Mark('(') if at >= 3 => is(at - 3, "create") && is(at - 2, "type"),
            Token::Mark(')') => false,
            _ => defines_type,
        };
        let next = tokens.get(at + 1);
        let opens = next == Some(&Token::Mark('('));
        match token {
            Token::Operator(operator) => {
                let qualified = at >= 3 && is(at - 3, "operator") && is(at - 1, "pg_catalog.");
                // The `*` of `SELECT *` and of `relation.*` stands for columns.
                let of_relation = |token: &Token| matches!(token, Token::Word(word) if word.ends_with('.'));
                let all_columns =
                    operator == "*" && at >= 1 && (is(at - 1, "select") || of_relation(&tokens[at - 1]));
                // SET column = …, in the only two forms that the extension's SQL has.
                let assigned = operator == "=" && (is(at + 1, "coalesce") || is(at + 1, "array"));
                let option = operator == "=" && defines_type;
                if !qualified && !all_columns && !assigned && !option {
                    found.push(format!("operator {operator}"));
                }
            }
            Token::Word(word) if word == "like" && defines_type => {}
            Token::Word(word) if LOOKS_UP.contains(&word.as_str()) && (word != "in" || opens) => {
                found.push(format!("an operator of {word}"));
            }
            Token::Word(word) if word == "collate" => match next {
                Some(Token::Word(collation)) if collation.starts_with("pg_catalog.") => {}
                other => found.push(format!("collation {other:?}")),
            },
            Token::Word(word) if word == "::" => match next {
                Some(Token::Word(name)) if !name.starts_with("pg_catalog.") => {
                    found.push(format!("type {name}"));
                }
                _ => {}
            },
            // In the signature of a function, a word before a parenthesis can be a type, which `cargo pgrx` writes.
            Token::Word(word) if opens && functions.contains(word) && !types.contains(word) => {
                found.push(format!("function {word}"));
            }
            _ => {}
        }
    }
    found
}

/// Returns all installed scripts of the extension: the one that `CREATE EXTENSION` runs, and those of upgrades, if there are any.
pub fn script(database: &Database) -> String {
    let directory: String = database
        .connect()
        .query_one("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'", &[])
        .expect("the server knows")
        .get(0);
    let directory = Path::new(&directory).join("extension");
    let version = std::fs::read_dir(&directory).expect("it is there").filter_map(Result::ok);
    let is_script = |name: &str| name.starts_with("pg_cache--") && name.ends_with(".sql");
    let mut scripts: Vec<PathBuf> = version
        .map(|file| file.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_script))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no script in {}", directory.display());
    scripts.iter().map(|path| std::fs::read_to_string(path).expect("it can be read")).collect()
}

/// Returns the statements that Rust code runs: string literals that begin like a statement and name a schema of the
/// extension or the server.
pub fn statements() -> Vec<String> {
    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for file in std::fs::read_dir(directory).expect("it is there").filter_map(Result::ok) {
            match file.path() {
                path if path.is_dir() => sources(&path, found),
                path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), &mut files);
    let begins = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ", "MERGE ", "CREATE "];
    let is_statement = |text: &&str| {
        begins.iter().any(|verb| text.trim_start().starts_with(verb))
            && (text.contains("pgcache.") || text.contains("pg_"))
    };
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("it can be read");
    let literals = |source: &str| -> Vec<String> {
        source.replace("\\\"", "'").split('"').filter(is_statement).map(str::to_owned).collect()
    };
    files.iter().flat_map(|path| literals(&read(path))).collect()
}

/// Returns the names that a query finds.
fn names(database: &Database, query: &str) -> BTreeSet<String> {
    let rows = database.connect().query(query, &[]).expect("the catalogs say");
    rows.iter().map(|row| row.get(0)).collect()
}

/// First tests the check itself with some SQL. Then no name without a schema may be in the scripts of the extension, in the
/// conditions that `pg_dump` uses for its tables, and in the statements of the code.
#[test]
fn every_name_in_the_extensions_sql_has_a_schema() {
    let database = Database::create();
    let functions =
        names(&database, "SELECT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace");
    let types =
        names(&database, "SELECT typname::text FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace");
    let unqualified = |sql: &str| unqualified(sql, &functions, &types);

    for (sql, expected) in [
        ("CHECK (octet_length(a) > 1)", vec!["function octet_length", "operator >"]),
        (
            "CHECK (a BETWEEN 1 AND 2 AND b IN ('x') AND c NOT LIKE 'y')",
            vec!["an operator of between", "an operator of in", "an operator of like"],
        ),
        (
            "a IS DISTINCT FROM b::text COLLATE \"C\"",
            vec!["an operator of distinct", "type text", "collation Some(Word(\"\\\"c\\\"\"))"],
        ),
        ("SELECT * FROM f('=') -- a = b\n WHERE pg_catalog.length(a) OPERATOR(pg_catalog.=) 1", vec![]),
        ("UPDATE t SET a = COALESCE($1, a) WHERE a = $1::pg_catalog.oid", vec!["operator ="]),
        ("SELECT a.*, a.b * 2 FROM a", vec!["operator *"]),
        ("CREATE TYPE a.b (INPUT = a.c, LIKE = pg_catalog.int8); SELECT 1 = 1", vec!["operator ="]),
    ] {
        assert_eq!(unqualified(sql), expected, "{sql}");
    }

    let conditions = "SELECT unnest(extcondition) FROM pg_extension WHERE extname = 'pg_cache'";
    let mut texts: Vec<String> = names(&database, conditions).into_iter().collect();
    assert!(texts.len() > 1, "{texts:?}");
    texts.extend(statements());
    assert!(texts.len() > 12, "{texts:#?}");
    texts.push(script(&database));
    let found: Vec<_> = texts
        .iter()
        .flat_map(|text| unqualified(text).into_iter().map(|name| (name, text.clone())))
        .collect();
    let shown =
        |(name, text): &(String, String)| format!("{name} in {}", text.chars().take(200).collect::<String>());
    assert!(found.is_empty(), "{:#?}", found.iter().map(shown).collect::<Vec<_>>());
}
