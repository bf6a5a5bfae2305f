//! Whole networks: a backbone, which is a stem and blocks, and a linear head.

mod anatomy;
mod config;
mod conv;
mod dense;
mod options;
mod part;
pub mod published;
mod stage;

pub use anatomy::{BlockView, Branches};
pub use config::{Architecture, NetworkConfig};
pub use conv::{Activation, BlockShape, ConvArchitecture, ConvBackbone, Stem};
pub use dense::{DenseArchitecture, DenseBackbone};
pub use options::BlockOptions;
pub use part::Part;
pub use stage::{NetworkBlock, Stage, StageConfig, StageInfo};

use crate::{
    DenseBlock, ModelError, Norm, Summary,
    dense::linear,
    init::he_normal_field,
    kernels::unit,
    norm::{Fold, fold_conv, fold_linear},
    stochastic_depth::survivors,
    transparent::{transparent_enum, transparent_struct},
};
use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};
use burn::{
    module::{Flag, Module, ModuleMapper, Param},
    nn::Linear,
    tensor::Tensor,
};

/// A network: a backbone and a linear head. As in torchvision, parameter paths start with a field of the backbone, such
/// as `layer1`, or with `fc`.
///
/// Should be created using [`NetworkConfig`].
#[derive(Clone, Debug)]
pub struct Network {
    /// All layers before the head.
    pub backbone: Backbone,
    /// The head: a linear layer that maps features to classes.
    pub fc: Linear,
}

transparent_struct!(Network { backbone } and { fc });

/// A network without its head. It maps images to pooled features. Parameter paths are the same as those of the inner
/// backbone.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use residual_model::resnet18;
///
/// let device = Device::flex();
/// let backbone = resnet18(1000).with_width(8).init(&device).backbone;
/// let images = Tensor::ones([1, 3, 64, 64], &device);
/// assert_eq!(backbone.forward(images.clone()).dims(), [1, 64]);
/// let last_stage = backbone.features(images).stages.pop();
/// assert_eq!(last_stage.map(|t| t.dims()), Some([1, 64, 2, 2]));
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the tensors behind it are far larger")]
pub enum Backbone {
    /// A fully-connected backbone.
    Dense(DenseBackbone),
    /// A convolutional backbone.
    Conv(ConvBackbone),
}

transparent_enum!(Backbone { Dense, Conv });

/// The features that a backbone computes.
#[derive(Clone, Debug)]
pub struct Features {
    /// The output of each stage: `[batch, channels, height, width]`. A dense network has one stage, whose output is
    /// `[batch, width, 1, 1]`.
    pub stages: Vec<Tensor<4>>,
    /// The input of the head: `[batch, features]`.
    pub embedding: Tensor<2>,
}

impl Network {
    /// Computes the class scores before the softmax (logits). With stochastic depth, every block takes part, and its
    /// main path is multiplied by its survival probability. An empty batch gives an empty output.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.classify(self.backbone.forward(images))
    }

    /// Computes the class scores for a training step. With stochastic depth, the blocks that take part are a pure
    /// function of the seed and the step.
    ///
    /// # Shapes
    /// The same as for [`Self::forward`].
    pub fn forward_training(&self, images: Tensor<4>, seed: u64, step: u64) -> Tensor<2> {
        self.classify(self.backbone.forward_training(images, seed, step))
    }

    /// Computes the input of the head with [`Backbone::forward`].
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn embed(&self, images: Tensor<4>) -> Tensor<2> {
        self.backbone.forward(images)
    }

    /// Computes the outputs of all stages and the input of the head in one pass, with [`Backbone::features`].
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    pub fn features(&self, images: Tensor<4>) -> Features {
        self.backbone.features(images)
    }

    /// Computes the class scores from the input of the head.
    ///
    /// # Shapes
    /// - embedding: `[batch, features]`
    /// - output: `[batch, classes]`
    pub fn classify(&self, embedding: Tensor<2>) -> Tensor<2> {
        unit(&self.fc, &None).forward(embedding)
    }

    /// Replaces the head with a new one for this number of classes. The new weights are a pure function of the seed.
    pub fn with_head(self, classes: usize, seed: u64) -> Self {
        let [features, _] = self.fc.weight.lazy_shape().dims();
        let fc = linear([features, classes], Norm::None, &self.fc.weight.lazy_device());
        Self { fc: he_normal_field(fc, "fc", seed), ..self }
    }

    /// The parts of the network, from first to last.
    pub fn parts(&self) -> Vec<Part> {
        Part::all(self.backbone.stage_count())
    }

    /// Returns the network with these parts frozen: their parameters get no gradients, and their batch norms use their
    /// running statistics without updating them. The weights are shared with the original network, not copied. The
    /// blocks of a dense network are stage 1.
    ///
    /// # Errors
    /// If the network does not have one of the parts.
    pub fn freeze_parts(&self, parts: &[Part]) -> Result<Self, ModelError> {
        let own = self.parts();
        if let Some(&part) = parts.iter().find(|part| !own.contains(part)) {
            let parts = own.iter().map(Part::to_string).collect::<Vec<_>>().join(", ");
            return Err(ModelError::NoPart { part, parts });
        }
        Ok(self.clone().map(&mut Freeze { parts, path: Vec::new() }))
    }

    /// Returns the network for inference, with each batch norm folded into the weight and bias of the convolution or
    /// linear layer before it: `W' = W · γ/√(v + ε)`, `b' = β + (b - m) · γ/√(v + ε)`, where m is the running mean and
    /// v the running variance. In a pre-activation network, the first norm of each block and the last norm of the
    /// network are not folded: the input of the former also goes to the shortcut, and the input of the latter is a sum.
    pub fn fold_batch_norm(&self) -> Self {
        let network = self.valid();
        let backbone = match network.backbone {
            Backbone::Dense(mut backbone) => {
                backbone.linear1 = fold_linear(backbone.linear1, backbone.bn1.take());
                backbone.blocks = backbone.blocks.into_iter().map(DenseBlock::folded).collect();
                Backbone::Dense(backbone)
            }
            Backbone::Conv(backbone) => {
                let mut backbone = backbone.map_blocks(Fold::folded);
                backbone.conv1 = fold_conv(backbone.conv1, backbone.bn1.take());
                Backbone::Conv(backbone)
            }
        };
        Self { backbone, ..network }
    }
}

impl Backbone {
    /// Computes the input of the head: the average over the pixels of the last stage, or the last features of a dense
    /// network.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output: `[batch, features]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::Dense(backbone) => backbone.forward(images.flatten(1, 3)),
            Self::Conv(backbone) => backbone.forward(images),
        }
    }

    /// Computes the input of the head for a training step. With stochastic depth, the blocks that take part are a pure
    /// function of the seed and the step.
    ///
    /// # Shapes
    /// The same as for [`Self::forward`].
    pub fn forward_training(&self, images: Tensor<4>, seed: u64, step: u64) -> Tensor<2> {
        let survivors = survivors(seed, step, &self.survival());
        match self {
            Self::Dense(backbone) => backbone.forward_sampled(images.flatten(1, 3), &survivors),
            Self::Conv(backbone) => backbone.forward_sampled(images, &survivors),
        }
    }

    /// Computes the outputs of all stages and the input of the head in one pass. [`NetworkConfig::stages`] gives the
    /// names, channels and strides of the stages.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`
    /// - output of a stage: `[batch, channels, ⌈height / stride⌉, ⌈width / stride⌉]`, with the channels and stride of
    ///   the stage
    pub fn features(&self, images: Tensor<4>) -> Features {
        match self {
            Self::Dense(backbone) => {
                let embedding = backbone.forward(images.flatten(1, 3));
                let [batch, width] = embedding.dims();
                Features { stages: vec![embedding.clone().reshape([batch, width, 1, 1])], embedding }
            }
            Self::Conv(backbone) => {
                let mut a = backbone.stem(images);
                let mut stages = Vec::new();
                for stage in backbone.stages() {
                    a = stage.forward(a);
                    stages.push(a.clone());
                }
                Features { stages, embedding: backbone.pool(a) }
            }
        }
    }

    /// The survival probability of each block.
    fn survival(&self) -> Vec<f64> {
        match self {
            Self::Dense(backbone) => backbone.blocks.iter().map(DenseBlock::survival).collect(),
            Self::Conv(backbone) => backbone.blocks().map(NetworkBlock::survival).collect(),
        }
    }

    fn stage_count(&self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Conv(backbone) => backbone.stages().count(),
        }
    }

    fn zero_last_layers(self) -> Self {
        match self {
            Self::Dense(backbone) => Self::Dense(DenseBackbone {
                blocks: backbone.blocks.into_iter().map(DenseBlock::zero_last_layer).collect(),
                ..backbone
            }),
            Self::Conv(backbone) => Self::Conv(backbone.map_blocks(NetworkBlock::zero_last_layer)),
        }
    }
}

/// Freezes the parameters and batch norms of some parts.
struct Freeze<'a> {
    parts: &'a [Part],
    path: Vec<String>,
}

impl Freeze<'_> {
    fn is_frozen(&self) -> bool {
        let path = self.path.join(".");
        self.parts.iter().any(|part| part.contains(&path))
    }
}

impl ModuleMapper for Freeze<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.is_frozen() { param.set_require_grad(false) } else { param }
    }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        if self.is_frozen() { flag.with_value(false) } else { flag }
    }
}

fn at_least_one(sizes: &[(&'static str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(ModelError::Zero(name)),
        None => Ok(()),
    }
}

/// Larger than any useful size, and small enough that products of sizes do not overflow.
const MAX_SIZE: usize = 1 << 20;

/// The limit on the number of parameters: 40 GB of weights.
const MAX_PARAMETERS: u64 = 10_000_000_000;

fn at_most_max_size(sizes: &[(&'static str, usize)]) -> Result<(), ModelError> {
    match sizes.iter().find(|(_, size)| *size > MAX_SIZE) {
        Some((name, size)) => Err(ModelError::Range { name, expected: "at most 1048576", value: size.to_string() }),
        None => Ok(()),
    }
}

fn check_parameters(summary: &Summary) -> Result<(), ModelError> {
    match summary.parameters() {
        n if n > MAX_PARAMETERS => Err(ModelError::Range {
            name: "the number of parameters",
            expected: "at most 10 billion",
            value: crate::summary::thousands(n),
        }),
        _ => Ok(()),
    }
}

fn panic_unless_valid(result: Result<(), ModelError>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}
