//! Measurements inside networks, as findings in words, figures and tables. There is one module per measurement.

mod activations;
mod alpha;
mod gradients;
mod landscape;
mod lesion;
mod paths;
mod shattered;

use crate::{chart::Figure, table, words::training};
use residual_lab::{Inspection, Measured, Measurement};

/// The view of a measurement in a report.
pub struct InspectionView {
    /// The main result in one sentence.
    pub finding: String,
    /// How well the networks were trained, if they were, and further results: one or two sentences per network.
    pub details: Vec<String>,
    pub(crate) figure: Figure,
    /// The header and the rows.
    table: Vec<Vec<String>>,
}

impl InspectionView {
    /// The view of a measurement.
    pub fn of(inspection: &Inspection) -> Self {
        let subjects = &inspection.subjects;
        let mut view = match &inspection.measured {
            Measured::Gradients(gradients) => gradients::view(subjects, gradients),
            Measured::Activations(activations) => activations::view(subjects, activations),
            Measured::Lesion(lesion) => lesion::view(subjects, lesion),
            // Its trainings are not those of the subjects.
            Measured::Alpha(skip_strength) => return alpha::view(skip_strength),
            Measured::Paths(paths) => paths::view(subjects, paths),
            Measured::Landscape(landscape) => landscape::view(subjects, landscape),
            Measured::Shattered(shattered) => shattered::view(subjects, shattered),
        };
        view.details.splice(..0, training(subjects));
        view
    }

    /// The figure as SVG.
    pub fn svg(&self) -> String {
        self.figure.to_svg()
    }

    /// All values, as CSV with a header.
    pub fn csv(&self) -> Vec<u8> {
        table::csv(&self.table)
    }
}

/// The heading of a measurement.
pub(crate) fn title(measurement: Measurement) -> &'static str {
    match measurement {
        Measurement::Gradients => "Gradients by layer",
        Measurement::Activations => "Activations by block",
        Measurement::Lesion => "Blocks removed",
        Measurement::Alpha => "Skip strength",
        Measurement::Paths => "Paths by length",
        Measurement::Landscape => "Loss around the weights",
        Measurement::Shattered => "Gradients at neighbouring inputs",
    }
}

/// Two sentences on what a measurement shows and why it matters.
pub(crate) fn explanation(measurement: Measurement) -> &'static str {
    match measurement {
        Measurement::Gradients => {
            "The norm of the gradient of the loss with respect to the weights of each layer. If it grows or shrinks by a \
             factor per layer, the first and the last layer of a deep net cannot learn at the same learning rate."
        }
        Measurement::Activations => {
            "The scale of each block's output, and the norm of its main path relative to the norm of its input. Blocks \
             with shortcuts refine their input; plain blocks replace it (He et al. 2015, Fig. 7)."
        }
        Measurement::Lesion => {
            "The test error of the trained net with one block removed, with several removed, and with blocks swapped. \
             Residual nets behave like many short paths and lose little accuracy; a plain net is a single path (Veit et al. \
             2016)."
        }
        Measurement::Alpha => {
            "The error of the same net, trained with its shortcuts multiplied by α: 0 is the plain net, 1 is the residual \
             net. It shows how close the shortcut must be to the identity (He et al. 2016, Table 1)."
        }
        Measurement::Paths => {
            "The gradient that reaches the input along paths through the main paths of exactly k blocks and the shortcuts \
             of all others, times the number of such paths. Long paths carry little of it, so the effective depth is \
             smaller than the number of layers (Veit et al. 2016)."
        }
        Measurement::Landscape => {
            "The training loss along random directions from the weights, in which the step of each filter is proportional \
             to the norm of the filter. Deep nets without shortcuts lack the smooth basin that gradient descent can follow \
             (Li et al. 2018)."
        }
        Measurement::Shattered => {
            "The gradient along a line of inputs, and its autocorrelation. In deep plain nets it resembles white noise, \
             which gradient descent cannot follow; shortcuts keep the gradients of neighbouring inputs similar (Balduzzi \
             et al. 2017)."
        }
    }
}

/// A header, followed by the rows of a table.
fn rows<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Vec<Vec<String>> {
    let header = header.map(String::from).to_vec();
    std::iter::once(header).chain(rows.into_iter().map(|row| row.to_vec())).collect()
}
