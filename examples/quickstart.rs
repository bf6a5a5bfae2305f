//! Compares the plain block and the residual block: shapes, parameters, and outputs when the last layer is zero.
//!
//!     cargo run --release --example quickstart
//!
//! You should see that both blocks have the same output shape and number of parameters. If the last layer is zero, the
//! residual block returns its input, while the plain block returns zeros. resnet20 and plain20 have 269,722 parameters
//! each. The example takes a second.

#![allow(clippy::print_stdout)]

use residual::{
    burn::tensor::{Device, Int, Tensor},
    model::{
        DensePathConfig, NetworkConfig, PlainBlockConfig, ResidualBlockConfig,
        summary::{thousands, trainable_parameters},
    },
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let a = Tensor::<1, Int>::arange(0..128, &device).float().div_scalar(127).reshape([2, 64]);

    let path = DensePathConfig::new(64, 64);
    let plain = PlainBlockConfig::new(path.clone()).init(&device);
    let residual = ResidualBlockConfig::new(path.clone()).init(&device);
    for (name, output, parameters) in [
        ("plain", plain.forward(a.clone()), trainable_parameters(&plain)),
        ("residual", residual.forward(a.clone()), trainable_parameters(&residual)),
    ] {
        println!("{name:>8} block: {:?} to {:?}, {parameters} parameters", a.dims(), output.dims());
    }

    println!("\nlargest |output - input| if the last layer is zero");
    let plain = PlainBlockConfig::new(path.clone()).with_zero_init(true).init(&device);
    let residual = ResidualBlockConfig::new(path).with_zero_init(true).init(&device);
    for (name, output) in [("plain", plain.forward(a.clone())), ("residual", residual.forward(a.clone()))] {
        println!("{name:>8} block: {:.3}", (output - a.clone()).abs().max().into_scalar::<f32>());
    }

    println!("\nwhole networks for 3x32x32 images and 10 classes");
    for name in ["plain20", "resnet20", "plain56", "resnet56", "dense-plain20", "dense-resnet20"] {
        let summary = NetworkConfig::new(name.parse()?, [3, 32, 32], 10).summary();
        let (parameters, multiply_adds) = (thousands(summary.parameters()), thousands(summary.multiply_adds()));
        println!("{name:>14}: {parameters:>9} parameters, {multiply_adds:>11} multiply-adds");
    }
    Ok(())
}
