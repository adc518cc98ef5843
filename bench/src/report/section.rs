//! A part of the report that speaks for itself: tables, what they have to show, and whether they do.

use super::markdown::{bullet, paragraph};
pub use super::table::Table;
use serde::{Deserialize, Serialize};

/// What one part found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// Its name for programs.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// How it was measured, a paragraph each.
    pub explained: Vec<String>,
    /// What was measured, for people.
    pub tables: Vec<Table>,
    /// What it was to reach.
    pub goals: Vec<Goal>,
    /// What was measured, for programs.
    pub figures: serde_json::Value,
}

/// Something to reach, and what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// What, with its limit.
    pub wanted: String,
    /// What came out, with its unit.
    pub found: String,
    /// Whether that is enough.
    pub met: bool,
}

impl Goal {
    /// As a point of a list.
    pub fn markdown(&self) -> String {
        let mark = if self.met { '✓' } else { '✗' };
        bullet(&format!("{mark} {}: **{}**", self.wanted, self.found))
    }
}

impl Section {
    /// As text.
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
