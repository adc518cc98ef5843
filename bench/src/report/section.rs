//! A part of the report, as `parts.rs` lists them: its tables, its goals, and whether the goals are met.

pub use super::table::Table;
use super::text::{bullet, paragraph};
use serde::{Deserialize, Serialize};

/// The results of one part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// The name for programs: the `id` of the part.
    pub id: String,
    /// The heading.
    pub title: String,
    /// How the part was measured, one paragraph per item.
    pub explained: Vec<String>,
    /// The results for people.
    pub tables: Vec<Table>,
    /// The goals of the part.
    pub goals: Vec<Goal>,
    /// The results for programs, in a form that each part chooses.
    pub figures: serde_json::Value,
}

/// A goal and its result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// The goal and its limit, in words.
    pub wanted: String,
    /// The result with its unit, in words.
    pub found: String,
    /// Whether the result meets the goal.
    pub met: bool,
}

impl Goal {
    /// Returns the goal as a Markdown list item, with ✓ if it is met and ✗ if not.
    pub fn markdown(&self) -> String {
        let mark = if self.met { '✓' } else { '✗' };
        bullet(&format!("{mark} {}: **{}**", self.wanted, self.found))
    }
}

impl Section {
    /// Returns the section as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n", self.title);
        if !self.goals.is_empty() {
            text.push('\n');
        }
        text += &self.goals.iter().map(Goal::markdown).collect::<String>();
        for table in &self.tables {
            text += &format!("\n{}", table.align());
        }
        for explained in &self.explained {
            text += &format!("\n{}", paragraph(explained));
        }
        text
    }
}
