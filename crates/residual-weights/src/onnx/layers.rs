//! The operators of a network's layers.

use super::graph::{Attribute, Graph};
use crate::{load::transpose, names::torchvision};
use burn::{
    module::Param,
    nn::{BatchNorm, Linear, PaddingConfig2d, conv::Conv2d, pool::MaxPool2d},
    tensor::Tensor,
};
use residual_model::{
    Backbone, Block, ConvBackbone, ConvPath, ConvShortcut, DenseBackbone, DensePath, DenseShortcut, Network,
    NetworkBlock, PreactBlock, PreactPath, folded_factor_and_bias,
};

/// A layer that ONNX has no operator for, and the reason.
pub(super) struct Unsupported {
    pub(super) layer: String,
    pub(super) reason: String,
}

type Output = Result<String, Unsupported>;

fn values<const D: usize>(parameter: &Param<Tensor<D>>) -> Vec<f32> {
    floats(parameter.val())
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Multiplies the weights of each output channel with its factor.
fn scaled(mut weight: Vec<f32>, factors: &[f32]) -> Vec<f32> {
    let len = weight.len() / factors.len();
    for (weight, factor) in weight.chunks_mut(len).zip(factors) {
        weight.iter_mut().for_each(|value| *value *= factor);
    }
    weight
}

/// Adds the layers of a network to a graph.
pub(super) struct Layers<'g, 'a> {
    pub(super) graph: &'g mut Graph<'a>,
    /// Whether norms are operators of their own, even where they follow a convolution or linear layer.
    pub(super) keep_norms: bool,
}

impl<'a> Layers<'_, 'a> {
    /// Adds the network, whose input is `x`, and returns the class scores.
    pub(super) fn network(&mut self, network: &'a Network, x: &str) -> Output {
        let embedding = match &network.backbone {
            Backbone::Dense(backbone) => self.dense(backbone, x),
            Backbone::Conv(backbone) => self.conv_backbone(backbone, x)?,
        };
        Ok(self.linear("fc", &network.fc, None, &embedding))
    }

    fn dense(&mut self, backbone: &'a DenseBackbone, x: &str) -> String {
        let a = self.linear("linear1", &backbone.linear1, norm("bn1", &backbone.bn1), x);
        let mut a = self.relu("relu1", &a);
        for (i, block) in backbone.blocks.iter().enumerate() {
            let prefix = format!("blocks.{i}");
            a = match block {
                Block::Plain(block) => {
                    let z = self.dense_path(&prefix, &block.main_path, &a);
                    self.relu(&format!("{prefix}.relu"), &z)
                }
                Block::Residual(block) => {
                    let z = self.dense_path(&prefix, &block.main_path, &a);
                    let shortcut = self.dense_shortcut(&prefix, &block.shortcut, &block.main_path, &a);
                    let scales = [block.survival * block.branch_scale, block.skip_strength];
                    let sum = self.sum(&prefix, [&z, &shortcut], scales);
                    self.relu(&format!("{prefix}.relu"), &sum)
                }
            };
        }
        a
    }

    fn dense_path(&mut self, prefix: &str, path: &'a DensePath, a: &str) -> String {
        let name = |field: &str| torchvision(&format!("{prefix}.main_path.{field}"));
        let z = self.linear(&name("linear1"), &path.linear1, norm(name("bn1"), &path.bn1), a);
        let a = self.relu(&name("relu1"), &z);
        self.linear(&name("linear2"), &path.linear2, norm(name("bn2"), &path.bn2), &a)
    }

    fn dense_shortcut(&mut self, prefix: &str, shortcut: &'a DenseShortcut, path: &DensePath, a: &str) -> String {
        let name = |field: &str| torchvision(&format!("{prefix}.shortcut.{field}"));
        if let Some(linear) = &shortcut.linear {
            return self.linear(&name("linear"), linear, norm(name("bn"), &shortcut.bn), a);
        }
        let [inputs, _] = path.linear1.weight.lazy_shape().dims();
        let zeros = shortcut.out_features - inputs;
        self.pad_channels(&name("pad"), a, 2, zeros, shortcut.option.zeros_before(zeros))
    }

    fn conv_backbone(&mut self, backbone: &'a ConvBackbone, x: &str) -> Output {
        let mut a = self.conv("conv1", &backbone.conv1, norm("bn1", &backbone.bn1), x)?;
        if !backbone.preact {
            a = self.relu("relu", &a);
        }
        if let Some(pool) = &backbone.maxpool {
            a = self.max_pool("maxpool", pool, &a)?;
        }
        let stages = [&backbone.layer1, &backbone.layer2, &backbone.layer3, &backbone.layer4];
        for (stage, blocks) in stages.into_iter().enumerate() {
            for (i, block) in blocks.blocks.iter().enumerate() {
                let prefix = format!("layer{}.{i}", stage + 1);
                a = match block {
                    NetworkBlock::Post(block) => self.post_block(&prefix, block, &a)?,
                    NetworkBlock::Pre(block) => self.preact_block(&prefix, block, &a)?,
                };
            }
        }
        if backbone.preact {
            a = self.preactivate(["bn", "relu"], &backbone.bn, &a);
        }
        let pooled = self.graph.node("GlobalAveragePool", "avgpool", &[&a], &[]);
        Ok(self.flatten("flatten", &pooled))
    }

    fn post_block(&mut self, prefix: &str, block: &'a Block<ConvPath, ConvShortcut>, a: &str) -> Output {
        let sum = match block {
            Block::Plain(block) => self.conv_path(prefix, &block.main_path, a)?,
            Block::Residual(block) => {
                let path = &block.main_path;
                let z = self.conv_path(prefix, path, a)?;
                let shortcut = self.conv_shortcut(prefix, &block.shortcut, input_channels(&path.conv1), a)?;
                self.sum(prefix, [&z, &shortcut], [block.survival * block.branch_scale, block.skip_strength])
            }
        };
        Ok(self.relu(&format!("{prefix}.relu"), &sum))
    }

    fn conv_path(&mut self, prefix: &str, path: &'a ConvPath, a: &str) -> Output {
        let name = |field: &str| torchvision(&format!("{prefix}.main_path.{field}"));
        let z = self.conv(&name("conv1"), &path.conv1, norm(name("bn1"), &path.bn1), a)?;
        let a = self.relu(&name("relu1"), &z);
        let z = self.conv(&name("conv2"), &path.conv2, norm(name("bn2"), &path.bn2), &a)?;
        let Some(conv3) = &path.conv3 else { return Ok(z) };
        let a = self.relu(&name("relu2"), &z);
        self.conv(&name("conv3"), conv3, norm(name("bn3"), &path.bn3), &a)
    }

    fn conv_shortcut(&mut self, prefix: &str, shortcut: &'a ConvShortcut, inputs: usize, a: &str) -> Output {
        let name = |field: &str| torchvision(&format!("{prefix}.shortcut.{field}"));
        if let Some(conv) = &shortcut.conv {
            return self.conv(&name("conv"), conv, norm(name("bn"), &shortcut.bn), a);
        }
        let mut a = a.to_string();
        if shortcut.stride > 1 {
            let integers = |graph: &mut Graph<'a>, field: &str, value: i64| {
                graph.integers(name(&format!("slice.{field}")), vec![value; 2])
            };
            let starts = integers(self.graph, "starts", 0);
            let ends = integers(self.graph, "ends", i64::MAX);
            let axes = self.graph.integers(name("slice.axes"), vec![2, 3]);
            let steps = integers(self.graph, "steps", shortcut.stride as i64);
            a = self.graph.node("Slice", name("slice"), &[&a, &starts, &ends, &axes, &steps], &[]);
        }
        let zeros = shortcut.out_channels - inputs;
        Ok(self.pad_channels(&name("pad"), &a, 4, zeros, shortcut.option.zeros_before(zeros)))
    }

    fn preact_block(&mut self, prefix: &str, block: &'a PreactBlock, a: &str) -> Output {
        let path = match block {
            PreactBlock::Plain(block) => &block.main_path,
            PreactBlock::Residual(block) => &block.main_path,
        };
        let name = |field: &str| torchvision(&format!("{prefix}.main_path.{field}"));
        let p = self.preactivate([&name("bn1"), &name("relu1")], &path.bn1, a);
        let z = self.preact_path(&name, path, &p)?;
        let PreactBlock::Residual(block) = block else { return Ok(z) };
        let inputs = input_channels(&path.conv1);
        // Where shapes differ, the input of the shortcut is pre-activated.
        let input = if block.shortcut.is_identity(inputs) { a } else { &p };
        let shortcut = self.conv_shortcut(prefix, &block.shortcut, inputs, input)?;
        Ok(self.sum(prefix, [&z, &shortcut], [block.survival * block.branch_scale, block.skip_strength]))
    }

    fn preact_path(&mut self, name: &impl Fn(&str) -> String, path: &'a PreactPath, p: &str) -> Output {
        let z = self.conv(&name("conv1"), &path.conv1, norm(name("bn2"), &path.bn2), p)?;
        let a = self.relu(&name("relu2"), &z);
        let Some(conv3) = &path.conv3 else { return self.conv(&name("conv2"), &path.conv2, None, &a) };
        let z = self.conv(&name("conv2"), &path.conv2, norm(name("bn3"), &path.bn3), &a)?;
        let a = self.relu(&name("relu3"), &z);
        self.conv(&name("conv3"), conv3, None, &a)
    }

    /// Adds `g(norm(a))`.
    fn preactivate(&mut self, [norm, relu]: [&str; 2], bn: &'a Option<BatchNorm>, a: &str) -> String {
        let z = bn.as_ref().map_or_else(|| a.to_string(), |bn| self.batch_norm(norm, bn, a));
        self.relu(relu, &z)
    }

    /// Adds a convolution and the norm after it.
    fn conv(&mut self, name: &str, conv: &'a Conv2d, norm: Option<Named<'a>>, a: &str) -> Output {
        let pads = match conv.padding {
            PaddingConfig2d::Explicit(top, left, bottom, right) => [top, left, bottom, right],
            PaddingConfig2d::Valid => [0; 4],
            PaddingConfig2d::Same => {
                let reason = "its padding depends on the size of the image; use explicit padding".into();
                return Err(Unsupported { layer: name.into(), reason });
            }
        };
        let ints = |values: &[usize]| values.iter().map(|value| *value as i64).collect::<Vec<i64>>();
        let (kernel, pads) = (ints(&conv.kernel_size), ints(&pads));
        let (strides, dilations) = (ints(&conv.stride), ints(&conv.dilation));
        let attributes = [
            ("dilations", Attribute::Ints(&dilations)),
            ("group", Attribute::Int(conv.groups as i64)),
            ("kernel_shape", Attribute::Ints(&kernel)),
            ("pads", Attribute::Ints(&pads)),
            ("strides", Attribute::Ints(&strides)),
        ];
        let shape: [usize; 4] = conv.weight.lazy_shape().dims();
        let weight = || values(&conv.weight);
        Ok(self.with_norm(name, "Conv", shape.to_vec(), weight, conv.bias.as_ref(), norm, a, &attributes))
    }

    /// Adds a linear layer and the norm after it.
    fn linear(&mut self, name: &str, linear: &'a Linear, norm: Option<Named<'a>>, a: &str) -> String {
        let [inputs, outputs] = linear.weight.lazy_shape().dims();
        let weight = move || transpose(&values(&linear.weight), inputs, outputs);
        let attributes = [("transB", Attribute::Int(1))];
        self.with_norm(name, "Gemm", vec![outputs, inputs], weight, linear.bias.as_ref(), norm, a, &attributes)
    }

    /// Adds a convolution or linear layer and the norm after it, which is folded into the layer unless norms are kept.
    #[expect(clippy::too_many_arguments, reason = "the parts of a layer")]
    fn with_norm(
        &mut self,
        name: &str,
        operator: &str,
        shape: Vec<usize>,
        weight: impl Fn() -> Vec<f32> + 'a,
        bias: Option<&'a Param<Tensor<1>>>,
        norm: Option<Named<'a>>,
        a: &str,
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let outputs = shape[0];
        match norm {
            Some((_, norm)) if !self.keep_norms => {
                let folded = move || scaled(weight(), &floats(folded_factor_and_bias(norm, bias).0));
                let weight = self.graph.weight(weight_name, &shape, folded);
                let bias =
                    self.graph.constant(bias_name, &[outputs], move || floats(folded_factor_and_bias(norm, bias).1));
                self.graph.node(operator, name, &[a, &weight, &bias], attributes)
            }
            _ => {
                let weight = self.graph.weight(weight_name, &shape, weight);
                let bias = bias.map(|bias| self.graph.constant(bias_name, &[outputs], move || values(bias)));
                let inputs: Vec<&str> = [a, &weight].into_iter().chain(bias.as_deref()).collect();
                let z = self.graph.node(operator, name, &inputs, attributes);
                match norm {
                    Some((name, norm)) => self.batch_norm(&name, norm, &z),
                    None => z,
                }
            }
        }
    }

    fn batch_norm(&mut self, name: &str, norm: &'a BatchNorm, a: &str) -> String {
        let [channels] = norm.gamma.lazy_shape().dims();
        let graph = &mut self.graph;
        let mut constant = |field: &str, values: Box<dyn Fn() -> Vec<f32> + 'a>| {
            graph.constant(format!("{name}.{field}"), &[channels], values)
        };
        let inputs = [
            a.to_string(),
            constant("weight", Box::new(|| values(&norm.gamma))),
            constant("bias", Box::new(|| values(&norm.beta))),
            constant("running_mean", Box::new(|| floats(norm.running_mean.value()))),
            constant("running_var", Box::new(|| floats(norm.running_var.value()))),
        ];
        let epsilon = [("epsilon", Attribute::Float(norm.epsilon as f32))];
        self.graph.node("BatchNormalization", name, &inputs.each_ref().map(String::as_str), &epsilon)
    }

    fn relu(&mut self, name: &str, a: &str) -> String {
        self.graph.node("Relu", name, &[a], &[])
    }

    /// Adds a reshape to `[batch, values]`.
    pub(super) fn flatten(&mut self, name: &str, a: &str) -> String {
        self.graph.node("Flatten", name, &[a], &[("axis", Attribute::Int(1))])
    }

    fn max_pool(&mut self, name: &str, pool: &MaxPool2d, a: &str) -> Output {
        let PaddingConfig2d::Explicit(top, left, bottom, right) = pool.padding else {
            let reason = "its padding is not explicit".into();
            return Err(Unsupported { layer: name.into(), reason });
        };
        let ints = |values: &[usize]| values.iter().map(|value| *value as i64).collect::<Vec<i64>>();
        let (kernel, pads) = (ints(&pool.kernel_size), ints(&[top, left, bottom, right]));
        let (strides, dilations) = (ints(&pool.stride), ints(&pool.dilation));
        let attributes = [
            ("ceil_mode", Attribute::Int(i64::from(pool.ceil_mode))),
            ("dilations", Attribute::Ints(&dilations)),
            ("kernel_shape", Attribute::Ints(&kernel)),
            ("pads", Attribute::Ints(&pads)),
            ("strides", Attribute::Ints(&strides)),
        ];
        Ok(self.graph.node("MaxPool", name, &[a], &attributes))
    }

    /// Adds `zeros` channels of zeros, `before` of them before the channels of `a`, a tensor of this rank.
    fn pad_channels(&mut self, name: &str, a: &str, rank: usize, zeros: usize, before: usize) -> String {
        if zeros == 0 {
            return a.to_string();
        }
        let mut pads = vec![0; 2 * rank];
        (pads[1], pads[rank + 1]) = (before as i64, (zeros - before) as i64);
        let pads = self.graph.integers(format!("{name}.pads"), pads);
        self.graph.node("Pad", name, &[a, &pads], &[])
    }

    /// Adds `s · main_path + α · shortcut`.
    fn sum(&mut self, prefix: &str, [main_path, shortcut]: [&str; 2], [s, alpha]: [f64; 2]) -> String {
        let main_path = self.scale(&format!("{prefix}.scale"), main_path, s);
        let shortcut = self.scale(&format!("{prefix}.downsample.scale"), shortcut, alpha);
        self.graph.node("Add", format!("{prefix}.add"), &[&main_path, &shortcut], &[])
    }

    fn scale(&mut self, name: &str, a: &str, factor: f64) -> String {
        if factor == 1.0 {
            return a.to_string();
        }
        let factor = self.graph.constant(format!("{name}.factor"), &[], move || vec![factor as f32]);
        self.graph.node("Mul", name, &[a, &factor], &[])
    }
}

/// A norm and its name.
type Named<'a> = (String, &'a BatchNorm);

fn norm(name: impl Into<String>, norm: &Option<BatchNorm>) -> Option<Named<'_>> {
    norm.as_ref().map(|norm| (name.into(), norm))
}

fn input_channels(conv: &Conv2d) -> usize {
    let [_, inputs, _, _]: [usize; 4] = conv.weight.lazy_shape().dims();
    inputs * conv.groups
}
