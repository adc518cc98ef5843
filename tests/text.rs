//! Tests of the division of a query's text into tokens, which need no server. They are in the file itself.

#[path = "../src/query/text.rs"]
#[cfg(test)]
mod text;
