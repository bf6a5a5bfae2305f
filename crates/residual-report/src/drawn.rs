use crate::{
    InspectionView, Report, ReportError,
    contents::Contents,
    figures, table,
    words::{markdown, training},
};
use residual_lab::{Inspection, Measurement};
use residual_train::{TrainError, files};
use std::path::{Path, PathBuf};

/// The findings of a folder of inspections.
const FINDINGS: &str = "findings.md";

/// A table, figure or page drawn from the data in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The path of the file, relative to the folder.
    pub path: PathBuf,
    /// The content of the file.
    pub content: Vec<u8>,
}

impl Drawn {
    /// Writes the file into a folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        Ok(files::write(&folder.join(&self.path), &self.content)?)
    }
}

/// Draws the tables, figures and pages that belong next to the data of a sweep or of inspections. Nothing is written.
///
/// - for a sweep: `results.csv`, `table.md`, `depth.svg`, `depth.png`, `curves.svg` and the page `index.html`
/// - for each inspection: `MEASUREMENT.csv` and `MEASUREMENT.svg`, and `findings.md` for each folder of inspections
///
/// # Errors
/// If the folder holds neither a sweep nor inspections, or if a file is damaged.
pub fn draw(folder: &Path) -> Result<Vec<Drawn>, ReportError> {
    let Contents { sweep, inspections } = Contents::read(folder)?;
    let mut drawn = Vec::new();
    let mut put = |path: PathBuf, content: Vec<u8>| drawn.push(Drawn { path, content });
    for (place, inspections) in &inspections {
        let (mut findings, mut trainings) = (String::new(), Vec::new());
        for inspection in inspections {
            let view = InspectionView::of(inspection);
            for Drawn { path, content } in draw_view(inspection.measurement(), &view) {
                put(place.join(path), content);
            }
            findings += &format!("- {}\n", markdown(&view.finding));
            let training = training(&inspection.subjects).filter(|training| !trainings.contains(training));
            trainings.extend(training);
        }
        // How well the networks were trained holds for all measurements of the same networks.
        trainings.iter().for_each(|training| findings += &format!("- {}\n", markdown(training)));
        put(place.join(FINDINGS), findings.into());
    }
    if let Some(results) = sweep {
        let (depth, curves) = (figures::depth(&results), figures::curves(&results));
        put("results.csv".into(), table::csv(&table::sweep_rows(&results)));
        put("table.md".into(), table::sweep_markdown(&results).into());
        put("depth.svg".into(), depth.to_svg().into());
        put("depth.png".into(), depth.to_png()?);
        put("curves.svg".into(), curves.to_svg().into());
        let inspections = inspections.into_iter().flat_map(|(_, inspections)| inspections).collect();
        put("index.html".into(), Report::in_folder(results, inspections).html().into());
    }
    Ok(drawn)
}

/// Draws the table and the figure of one inspection: `MEASUREMENT.csv` and `MEASUREMENT.svg`. Nothing is written.
pub fn draw_inspection(inspection: &Inspection) -> [Drawn; 2] {
    draw_view(inspection.measurement(), &InspectionView::of(inspection))
}

fn draw_view(name: Measurement, view: &InspectionView) -> [Drawn; 2] {
    [
        Drawn { path: format!("{name}.csv").into(), content: view.csv() },
        Drawn { path: format!("{name}.svg").into(), content: view.svg().into() },
    ]
}

/// Writes everything that [`draw`] draws into the folder.
///
/// A sweep's folder belongs to the sweep. A folder of inspections may have other files too, so there a `findings.md`
/// that has none of these findings is not replaced.
///
/// # Errors
/// As for [`draw`], or if a file cannot be written or is not replaced.
pub fn redraw(folder: &Path) -> Result<(), ReportError> {
    let drawn = draw(folder)?;
    let is_sweep = drawn.iter().any(|drawn| drawn.path == Path::new("index.html"));
    for Drawn { path, content } in drawn.iter().filter(|drawn| !is_sweep && drawn.path.ends_with(FINDINGS)) {
        let path = folder.join(path);
        let is_line = |line: &&[u8]| !line.is_empty();
        let lines = || content.split(|byte| *byte == b'\n').filter(is_line);
        let is_own =
            |old: Vec<u8>| old.split(|byte| *byte == b'\n').filter(is_line).any(|old| lines().any(|new| old == new));
        if path.exists() && !files::read(&path).is_ok_and(is_own) {
            let reason = "has other findings, or is not from this program; move it away to draw it again".into();
            return Err(TrainError::BadFile { path, reason }.into());
        }
    }
    drawn.iter().try_for_each(|drawn| drawn.write(folder))
}
