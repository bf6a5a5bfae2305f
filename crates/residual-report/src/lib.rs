//! Figures, tables, findings in words and pages, drawn from the data that `residual-lab` returns.
//!
//! - [`draw`] and [`redraw`]: everything beside the data of a sweep or of inspections
//! - [`Report`]: one HTML page of several folders
//! - [`InspectionView`]: a measurement as sentences, figure and table
//! - [`sweep_markdown`], [`markdown_table`], [`verdict()`]: a sweep in words
//! - [`comparison`]: trainings side by side
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
mod table;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

pub use drawn::{Drawn, draw, redraw};
pub use error::ReportError;
pub use inspect::InspectionView;
pub use page::Report;
pub use table::{markdown_table, sweep_markdown};
pub use verdict::verdict;
