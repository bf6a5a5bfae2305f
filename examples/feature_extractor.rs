//! Uses a trained network as a feature extractor: prints the output shape of each stage, and classifies test images by
//! their embeddings (the input of the head), without the head.
//!
//!     cargo run --release --example feature_extractor
//!
//! You should see the output shapes of the stages, and that classification by the nearest class mean has a test error
//! close to that of the head. The example takes about three seconds on two cores.

#![allow(clippy::print_stdout)]

use residual::{
    backend::Backend,
    burn::tensor::Tensor,
    data::{DataName, Loader, Source},
    model::Network,
    train::{Device, TrainConfig, Training},
};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Backend::Flex.probe()?.device;
    let config = TrainConfig::new("resnet14".parse()?, DataName::Digits)?.with_epochs(5);
    let stages = config.network.stages();
    let outcome = Training::new(config, device.clone())?.run()?;
    let digits = DataName::Digits.load()?;

    let batch = Loader::new(digits.test.clone(), 4, &device).batches().next().expect("there are images")?;
    let features = outcome.network.features(batch.images);
    for (stage, output) in stages.iter().zip(&features.stages) {
        println!("{}: {:?}, 1/{} of the image size", stage.name, output.dims(), stage.stride.unwrap_or(1));
    }
    println!("embedding: {:?}", features.embedding.dims());

    let train = embed(&outcome.network, &digits.train, &device)?;
    let means: Vec<Vec<f32>> = (0..10)
        .map(|class| {
            let members: Vec<&Vec<f32>> = train.iter().filter(|(_, label)| *label == class).map(|(e, _)| e).collect();
            (0..members[0].len()).map(|i| members.iter().map(|e| e[i]).sum::<f32>() / members.len() as f32).collect()
        })
        .collect();
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    let test = embed(&outcome.network, &digits.test, &device)?;
    let nearest = |e: &[f32]| (0..10).min_by(|&a, &b| distance(e, &means[a]).total_cmp(&distance(e, &means[b])));
    let wrong = test.iter().filter(|(e, label)| nearest(e) != Some(*label)).count();
    println!("test error of the head: {:.1} %", 100.0 * outcome.test.error);
    println!("test error of the nearest class mean: {:.1} %", 100.0 * wrong as f64 / test.len() as f64);
    Ok(())
}

/// The embedding and label of each image.
type Embedded = Vec<(Vec<f32>, usize)>;

/// Computes the embedding of every image, and returns the embeddings with the labels.
fn embed(network: &Network, source: &Arc<dyn Source>, device: &Device) -> Result<Embedded, Box<dyn std::error::Error>> {
    let mut embedded = Vec::new();
    for batch in Loader::new(source.clone(), 128, device).batches() {
        let batch = batch?;
        let embedding: Tensor<2> = network.embed(batch.images);
        let width = embedding.dims()[1];
        let values: Vec<f32> = embedding.into_data().iter::<f32>().collect();
        let labels = batch.labels.into_data().iter::<i64>().map(|label| label as usize).collect::<Vec<_>>();
        embedded.extend(values.chunks_exact(width).map(<[f32]>::to_vec).zip(labels));
    }
    Ok(embedded)
}
