//! Writes networks as ONNX models, which ONNX Runtime, OpenVINO, TensorRT and others run.
//!
//! A model has one input, `images`, `[batch, channels, height, width]` with normalised values, and one output, `logits`,
//! `[batch, classes]`; `batch` is symbolic. Its operators are those of opset 18. Names of tensors and operators are
//! torchvision's, such as `layer1.0.conv1.weight`. Batch norms are folded into the convolutions and linear layers before
//! them, unless [`OnnxOptions::keep_norms`] is set. The metadata hold the preprocessing, the classes and the network.
//!
//! ```
//! use burn::tensor::Device;
//! use residual_model::cifar_resnet;
//! use residual_weights::{Card, onnx};
//!
//! let file = std::env::temp_dir().join("residual-weights-doctest.onnx");
//! let config = cifar_resnet(8);
//! let card = Card { network: config.clone(), preprocessing: None, labels: None };
//! onnx::save(&config.init(&Device::flex()), &card, &file, onnx::OnnxOptions::default())?;
//! # std::fs::remove_file(file)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod graph;
mod layers;
mod message;

use crate::{Card, Precision, WeightsError, save::overflow};
use burn::module::Module;
use graph::{Attribute, Dimension, Graph, GraphError, Port, Type};
use layers::{Layers, Unsupported};
use message::Message;
use residual_data::Preprocessing;
use residual_fetch::Staged;
use residual_model::Network;
use serde::Serialize;
use std::{io::Write, path::Path};

/// The version of ONNX's operators.
const OPSET: i64 = 18;

/// The version of the file format.
const IR_VERSION: i64 = 8;

/// The longest message of protocol buffers, in bytes.
const MAX_LEN: u64 = (1 << 31) - 1;

/// How [`save`] writes a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Whether batch norms are operators of their own, even where they could be folded into the layer before them.
    pub keep_norms: bool,
    /// How weights are stored. The model converts 16-bit weights to 32 bits before it uses them.
    pub precision: Precision,
    /// Whether the output is `probabilities`, the softmax of the logits.
    pub softmax: bool,
    /// Whether the input is `pixels`, `[batch, height, width, channels]` of 8 bits, which the model normalises.
    pub preprocess: bool,
}

/// Writes a network as an ONNX model. An existing file is replaced atomically.
///
/// # Errors
/// If a layer has no equivalent in ONNX, the model would have 2 GiB or more, weights do not fit into 16-bit floats with
/// [`Precision::Half`], the card has no preprocessing with [`OnnxOptions::preprocess`], or the file cannot be written.
pub fn save(network: &Network, card: &Card, path: &Path, options: OnnxOptions) -> Result<(), WeightsError> {
    let bad = |reason: String| WeightsError::bad_file(path, format!("cannot be written: {reason}"));
    // `valid` brings the running statistics up to date with the last training step.
    let network = network.valid();
    let mut graph = Graph::new(options.precision);
    let preprocessing = card.preprocessing.as_ref();
    let (mut x, input) = match (preprocessing, options.preprocess) {
        (Some(preprocessing), true) => pixels(&mut graph, preprocessing),
        (None, true) => return Err(bad("the preprocessing of its images is not known".into())),
        (_, false) => images(card),
    };
    let mut layers = Layers { graph: &mut graph, keep_norms: options.keep_norms };
    if card.network.as_conv().is_none() && input.shape.len() > 2 {
        x = layers.flatten("flatten", &x);
    }
    let logits = layers.network(&network, &x).map_err(|Unsupported { layer, reason }| {
        bad(format!("the layer {layer} cannot be expressed in ONNX: {reason}"))
    })?;
    let name = if options.softmax { "probabilities" } else { "logits" };
    if options.softmax {
        graph.node("Softmax", name, &[&logits], &[("axis", Attribute::Int(1))]);
    } else {
        graph.node("Identity", name, &[&logits], &[]);
    }
    let output =
        Port { name, data_type: Type::F32, shape: vec![Dimension::Batch, Dimension::Size(card.network.classes)] };

    let (before, after) = model(card, options);
    let limit = MAX_LEN - before.len() - after.len();
    let staged = Staged::write_with(path, |file| {
        file.write_all(before.as_bytes())?;
        graph.write(7, &card.network.name().to_string(), [&input, &output], limit, file)?;
        Ok::<(), GraphError>(file.write_all(after.as_bytes())?)
    });
    let staged = staged.map_err(|error| match error {
        GraphError::Io(error) => WeightsError::io("write", path)(error),
        GraphError::TooLong(len) => {
            bad(format!("it would have {len} bytes, but ONNX files without external data have less than 2 GiB"))
        }
        GraphError::Overflow { tensor, value } => bad(overflow(&tensor, value)),
    })?;
    staged.publish().map_err(WeightsError::io("write", path))
}

/// The shape of a network's input images: that of its preprocessing, or that in its configuration. `None` if neither is
/// known, as for a dense network.
fn image_shape(card: &Card) -> Option<[usize; 3]> {
    let network = card.network.as_conv().map(|conv| conv.image);
    card.preprocessing.as_ref().map(Preprocessing::shape).or(network)
}

/// The input of normalised images. For a dense network without preprocessing, it is `[batch, features]`.
fn images(card: &Card) -> (String, Port) {
    let shape = image_shape(card).map_or_else(|| vec![card.network.features()], |shape| shape.to_vec());
    let shape = [Dimension::Batch].into_iter().chain(shape.into_iter().map(Dimension::Size)).collect();
    ("images".into(), Port { name: "images", data_type: Type::F32, shape })
}

/// The input of 8-bit pixels, and the operators that normalise them.
fn pixels(graph: &mut Graph<'_>, preprocessing: &Preprocessing) -> (String, Port) {
    let [channels, height, width] = preprocessing.shape();
    let Preprocessing { mean, std, .. } = preprocessing.clone();
    let sizes = [height, width, channels].map(Dimension::Size);
    let shape = [Dimension::Batch].into_iter().chain(sizes).collect();
    let floats = graph.node("Cast", "preprocess.float", &["pixels"], &[("to", Attribute::Int(Type::F32 as i64))]);
    let order = [("perm", Attribute::Ints(&[0, 3, 1, 2]))];
    let planes = graph.node("Transpose", "preprocess.planes", &[&floats], &order);
    let most = graph.constant("preprocess.most", &[], || vec![255.0]);
    let scaled = graph.node("Div", "preprocess.scaled", &[&planes, &most], &[]);
    let mean_shape = if mean.len() == channels { [1, channels, 1, 1] } else { [1, channels, height, width] };
    let mean = graph.constant("preprocess.mean", &mean_shape, move || mean.clone());
    let centred = graph.node("Sub", "preprocess.centred", &[&scaled, &mean], &[]);
    let std = graph.constant("preprocess.std", &[1, channels, 1, 1], move || std.clone());
    let images = graph.node("Div", "images", &[&centred, &std], &[]);
    (images, Port { name: "pixels", data_type: Type::U8, shape })
}

/// The fields of the model before and after its graph.
fn model(card: &Card, options: OnnxOptions) -> (Message, Message) {
    let version = env!("CARGO_PKG_VERSION");
    let opset = Message::default().bytes(1, "").int(2, OPSET);
    let before = Message::default().int(1, IR_VERSION).bytes(2, "residual").bytes(3, version);
    let mut metadata = vec![("network", card.network.name().to_string()), ("residual_version", version.to_string())];
    metadata.push(("network_config", json(&card.network)));
    if let Some([_, height, width]) = image_shape(card) {
        metadata.push(("image_size", json(&[height, width])));
    }
    if let Some(preprocessing) = &card.preprocessing {
        metadata.push(("resize", json(&preprocessing.resize)));
        metadata.push(("mean", json(&preprocessing.mean)));
        metadata.push(("std", json(&preprocessing.std)));
    }
    if let Some(labels) = &card.labels {
        metadata.push(("classes", json(labels)));
    }
    let after = Message::default().bytes(6, doc(card, options)).message(8, &opset);
    let after = metadata
        .iter()
        .fold(after, |model, (key, value)| model.message(14, &Message::default().bytes(1, key).bytes(2, value)));
    (before, after)
}

/// The description of the model, which says how to preprocess images.
fn doc(card: &Card, options: OnnxOptions) -> String {
    let network = card.network.name();
    let output = if options.softmax { "the probability of each class" } else { "the score of each class (logits)" };
    let Some(preprocessing) = &card.preprocessing else {
        return format!("{network}. The output is {output}. The preprocessing of the images is not known.");
    };
    let Preprocessing { resize, crop, mean, std, .. } = preprocessing;
    let colours = if std.len() == 1 { "greyscale" } else { "RGB" };
    let means = if mean.len() == std.len() { format!("{mean:?}") } else { "of the metadata, one per value,".into() };
    let cropped = format!(
        "Turn photos upright, resize the shorter side to {resize} pixels (bilinear, antialiased), and crop {crop}x{crop} \
         pixels from the centre."
    );
    let input = if options.preprocess {
        format!("The input is {colours} pixels of 8 bits, [batch, height, width, channels].")
    } else {
        format!(
            "The input is {colours} images [batch, channels, height, width] of values between 0 and 1, less the mean \
             {means} and divided by the standard deviation {std:?} of each channel."
        )
    };
    format!("{network}. {cropped} {input} The output is {output}.")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}
