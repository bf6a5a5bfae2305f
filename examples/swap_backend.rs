//! Runs the same network on every backend of this build: saves its weights on flex, loads them on the other backends,
//! and compares the class scores for the same images.
//!
//!     cargo run --release --example swap_backend
//!
//! You should see one line per backend with the largest difference between its class scores and those of flex, which is
//! about 0.000001. Backends whose hardware is missing are skipped. The example takes a few seconds.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    burn::{module::Module, store::ModuleRecord, tensor::Device},
    data::{DataName, Loader},
    model::{Network, NetworkConfig},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let digits = DataName::Digits.load()?;
    let config = NetworkConfig::new("resnet20".parse()?, digits.shape(), digits.classes());
    let scores = |network: &Network, device: &Device| -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let batch = Loader::new(digits.test.clone(), 64, device).batches().next().ok_or("no images")??;
        Ok(network.forward(batch.images).into_data().iter::<f32>().collect())
    };

    let flex = Backend::Flex.open()?;
    let network = config.init(&flex);
    let expected = scores(&network, &flex)?;
    let saved = network.into_record().into_bytes()?;

    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    println!("resnet20 on flex: 64 images, class scores up to {largest:.2}");
    for backend in Backend::compiled().into_iter().filter(|&b| b != Backend::Flex) {
        match backend.probe() {
            Ok(hardware) => {
                // The seed differs, so the scores agree only if the record was loaded.
                let other = config.clone().with_seed(1).init(&hardware.device);
                let other = other.try_load_record(ModuleRecord::from_bytes(saved.clone())?)?;
                let scores = scores(&other, &hardware.device)?;
                let difference = expected.iter().zip(&scores).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                println!("{backend:>8}: largest difference {difference:.1e} ({})", hardware.name);
            }
            Err(error) => println!("{backend:>8}: skipped, {error}"),
        }
    }
    Ok(())
}
