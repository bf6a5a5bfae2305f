//! Draws the data that `residual-lab` returns as figures, tables, findings in words and web pages.
//!
//! - [`draw`], [`draw_inspection`] and [`redraw`]: the files that belong next to the data of a sweep or of inspections
//! - [`Report`]: a single HTML page for several folders
//! - [`InspectionView`]: the findings, the figure and the table of one measurement
//! - [`sweep_markdown`], [`markdown_table`] and [`verdict()`]: the tables and verdicts of a sweep as text
//! - [`comparison`]: a table and a figure that compare trainings
//!
//! ```no_run
//! for drawn in residual_report::draw("results/digits".as_ref())? {
//!     println!("{}: {} bytes", drawn.path.display(), drawn.content.len());
//! }
//! # Ok::<(), residual_report::ReportError>(())
//! ```

mod chart;
pub mod comparison;
mod contents;
mod drawn;
mod error;
mod figures;
mod inspect;
mod page;
mod palette;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

pub use drawn::{Drawn, draw, draw_inspection, redraw};
pub use error::ReportError;
pub use inspect::InspectionView;
pub use page::Report;
pub use table::{markdown_table, sweep_markdown};
pub use verdict::verdict;
