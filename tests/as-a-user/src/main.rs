//! Trains a user-defined module of two blocks and one of Burn's layers for 100 steps, with the default features.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, loss::CrossEntropyLossConfig},
    optim::{GradientsParams, SgdConfig},
    tensor::{Device, Distribution, Int, Tensor},
};
use residual_model::{
    ConvPath, ConvPathConfig, ConvShortcut, Kernels, PlainBlock, PlainBlockConfig, ResidualBlock, ResidualBlockConfig,
};

#[derive(Module, Debug)]
struct Net {
    first: PlainBlock<ConvPath>,
    second: ResidualBlock<ConvPath, ConvShortcut>,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            first: PlainBlockConfig::new(ConvPathConfig::new(3, 16)).init(device),
            second: ResidualBlockConfig::new(ConvPathConfig::new(16, 32).with_stride(2)).init(device),
            head: LinearConfig::new(32, 4).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let a = self.second.forward(self.first.forward(images));
        self.head.forward(a.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

const STEPS: usize = 100;

fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

fn main() {
    let device = Device::flex().autodiff();
    let mut net = Net::new(&device);
    let images = Tensor::<4>::random([16, 3, 12, 12], Distribution::Normal(0.0, 1.0), &device);
    let labels = Tensor::<1, Int>::arange(0..16, &device).remainder_scalar(4);

    // The fused kernels run: their results differ from those of Burn's operations, but only by rounding.
    assert_eq!(Kernels::on(&device), Kernels::Fused);
    let blocks = |kernels: Kernels| values(kernels.scope(|| net.second.forward(net.first.forward(images.clone()))));
    let (fused, reference) = (blocks(Kernels::Fused), blocks(Kernels::Reference));
    let worst = fused.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert!(worst > 0.0 && worst < 1e-3, "fused and reference differ by {worst}");

    let weights = |net: &Net| [&net.first.main_path, &net.second.main_path].map(|path| values(path.conv1.weight.val()));
    let before = weights(&net);
    let mut optimizer = SgdConfig::new().init();
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let loss = CrossEntropyLossConfig::new().init(&device).forward(net.forward(images.clone()), labels.clone());
        losses.push(loss.clone().into_data().iter::<f32>().next().unwrap());
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        assert_eq!(gradients.len(), 17, "every parameter has its own gradient");
        net = optimizer.step(0.1, net, gradients);
    }
    assert!(weights(&net).iter().zip(&before).all(|(after, before)| after != before), "a block was not trained");
    assert!(losses[STEPS - 1] < 0.5 * losses[0], "{losses:?}");
    println!("loss {:.3} to {:.3} in {STEPS} steps", losses[0], losses[STEPS - 1]);
}
