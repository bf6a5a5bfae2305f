//! Summaries of networks: layers, output shapes, parameters and multiply-adds.

use crate::{Norm, conv::ConvShape, parameters::for_each_parameter};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use burn::module::Module;
use core::fmt;
use serde::Serialize;

/// A weighted layer with its norm, or the last norm of a pre-activation network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryRow {
    /// The layer's path in the network.
    pub layer: String,
    /// The operation with its sizes, such as `conv 3x3, 16 to 32`.
    pub operation: String,
    /// The output shape, without the batch dimension.
    pub output: Vec<usize>,
    /// The number of trainable parameters.
    pub parameters: u64,
    /// The number of multiply-adds of the convolution or matrix product for one sample. Norms, additions and pooling
    /// are not counted, as in He et al. 2015.
    pub multiply_adds: u64,
}

/// The weighted layers of a network in the order of the forward pass.
///
/// ```
/// use residual_model::cifar_resnet;
///
/// let summary = cifar_resnet(20).summary();
/// assert_eq!(summary.parameters(), 269_722);
/// assert_eq!(summary.multiply_adds(), 40_551_040);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    rows: Vec<SummaryRow>,
    #[serde(skip)]
    norm: Norm,
    #[serde(skip)]
    tensors: u64,
}

/// γ, β, and the running mean and variance.
const NORM_TENSORS: u64 = 4;

impl Summary {
    pub(crate) fn new(norm: Norm) -> Self {
        Self { rows: Vec::new(), norm, tensors: 0 }
    }

    /// Adds a convolution with the output height and width `size`. `norm` is the number of channels of its norm, if it
    /// has one.
    pub(crate) fn conv(&mut self, layer: &str, shape: ConvShape, norm: Option<usize>, size: [usize; 2]) {
        let ConvShape { channels, kernel, groups, .. } = shape;
        let weights = (channels[0] / groups).saturating_mul(channels[1]).saturating_mul(kernel * kernel);
        let grouped = if groups == 1 { String::new() } else { format!(", {groups} groups") };
        let affine = match self.norm {
            Norm::Batch => 2 * norm.unwrap_or(0),
            Norm::None => channels[1],
        };
        self.tensors += match (self.norm, norm) {
            (Norm::Batch, Some(_)) => 1 + NORM_TENSORS,
            (Norm::Batch, None) => 1,
            (Norm::None, _) => 2,
        };
        self.push(
            layer,
            format!("conv {kernel}x{kernel}, {} to {}{grouped}", channels[0], channels[1]),
            vec![channels[1], size[0], size[1]],
            weights.saturating_add(affine),
            (weights as u64).saturating_mul(size[0] as u64).saturating_mul(size[1] as u64),
        );
    }

    /// Adds a norm that does not belong to a convolution.
    pub(crate) fn norm(&mut self, layer: &str, channels: usize, size: [usize; 2]) {
        if self.norm == Norm::Batch {
            self.tensors += NORM_TENSORS;
            self.push(layer, "batch norm".into(), vec![channels, size[0], size[1]], 2 * channels, 0);
        }
    }

    /// Adds a linear layer and its norm.
    pub(crate) fn linear(&mut self, layer: &str, features: [usize; 2]) {
        let parameters = features[0] * features[1] + self.affine(features[1]);
        self.tensors += if self.norm.needs_bias() { 2 } else { 1 + NORM_TENSORS };
        self.product(layer, features, parameters);
    }

    /// Adds the head, a linear layer with a bias and without a norm.
    pub(crate) fn head(&mut self, features: usize, classes: usize) {
        self.tensors += 2;
        self.product("fc", [features, classes], (features + 1) * classes);
    }

    fn product(&mut self, layer: &str, [input, output]: [usize; 2], parameters: usize) {
        let operation = format!("linear, {input} to {output}");
        self.push(layer, operation, vec![output], parameters, (input * output) as u64);
    }

    /// The number of parameters of a norm (γ and β), or of the bias that replaces it.
    fn affine(&self, channels: usize) -> usize {
        if self.norm.needs_bias() { channels } else { 2 * channels }
    }

    fn push(&mut self, layer: &str, operation: String, output: Vec<usize>, parameters: usize, multiply_adds: u64) {
        let parameters = parameters as u64;
        self.rows.push(SummaryRow { layer: layer.into(), operation, output, parameters, multiply_adds });
    }

    /// The layers, including those of shortcuts.
    pub fn rows(&self) -> &[SummaryRow] {
        &self.rows
    }

    /// The total number of trainable parameters.
    pub fn parameters(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.parameters))
    }

    /// The number of tensors: weights, biases, and the four tensors of each norm, two of which are running statistics.
    pub fn tensors(&self) -> u64 {
        self.tensors
    }

    /// The total number of multiply-adds in the forward pass of one sample, including those of projection shortcuts.
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.multiply_adds))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["layer", "operation", "output", "parameters", "multiply-adds"].map(ToString::to_string);
        let row = |row: &SummaryRow| {
            let output: Vec<String> = row.output.iter().map(usize::to_string).collect();
            let (parameters, multiply_adds) = (thousands(row.parameters), thousands(row.multiply_adds));
            [row.layer.clone(), row.operation.clone(), output.join("x"), parameters, multiply_adds]
        };
        let (parameters, multiply_adds) = (thousands(self.parameters()), thousands(self.multiply_adds()));
        let total = ["total".into(), String::new(), String::new(), parameters, multiply_adds];
        let lines: Vec<[String; 5]> =
            core::iter::once(header).chain(self.rows.iter().map(row)).chain([total]).collect();
        let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or_default();
        let widths = [width(0), width(1), width(2), width(3), width(4)];
        for [layer, operation, output, parameters, multiply_adds] in &lines {
            let [a, b, c, d, e] = widths;
            writeln!(f, "{layer:<a$}  {operation:<b$}  {output:>c$}  {parameters:>d$}  {multiply_adds:>e$}")?;
        }
        Ok(())
    }
}

/// Formats a number with thousands separators: `1234567` as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The number of trainable parameters of a module. Unlike [`Module::num_params`], it does not count the running
/// statistics of batch norms.
pub fn trainable_parameters<M: Module>(module: &M) -> usize {
    let mut count = 0;
    for_each_parameter(module, |parameter| {
        if parameter.path.rsplit('.').next().is_some_and(|name| !name.starts_with("running_")) {
            count += parameter.shape.iter().product::<usize>();
        }
    });
    count
}
