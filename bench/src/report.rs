//! The report: the results as JSON, and the tables and the chart that are made from it. The files are `latest.json`, `latest.md`
//! and `latest.svg` in the directory of the command line, and `day.svg`, the chart of the part `day` (`day/`).
//!
//! `results` computes the results of the plan (`plan.rs`) from its samples, [`section`] holds those of another part of the report
//! (`parts.rs`), and [`target`] compares a figure with a goal and with the worst acceptable figure. `markdown`, `chart` and [`day`]
//! draw the results, with the help of `table`, `text` and [`notation`].

mod chart;
pub mod day;
mod markdown;
pub mod notation;
mod results;
pub mod section;
mod table;
pub mod target;
mod text;

pub use results::{Report, SideBySide};

use anyhow::{Context, Result};
use std::path::Path;

impl Report {
    /// Reads the results of an earlier run from `latest.json`. Returns an error if the fields of the JSON are not those of this
    /// program.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("latest.json");
        let json =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&json).with_context(|| format!("{} is of another version", path.display()))
    }

    /// Writes the JSON, the tables and the chart, and replaces those of an earlier run.
    pub fn write(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let json = serde_json::to_string_pretty(self).context("the results are not JSON")?;
        // A chart shows only some measurements. If there are none of them, no chart is written and an older chart is removed.
        let chart = (!self.measurements.is_empty()).then(|| chart::draw(self));
        let files = [
            ("latest.json", Some(json + "\n")),
            ("latest.md", Some(self.markdown())),
            ("latest.svg", chart),
            ("day.svg", day::draw(self)),
        ];
        for (name, content) in files {
            let path = directory.join(name);
            let Some(content) = content else {
                if path.exists() {
                    std::fs::remove_file(&path)
                        .with_context(|| format!("cannot remove {}", path.display()))?;
                }
                continue;
            };
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns the tables as Markdown, with explanations.
    pub fn markdown(&self) -> String {
        markdown::write(self)
    }
}
