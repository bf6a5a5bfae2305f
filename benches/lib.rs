//! Benchmarks of the kernels: `cargo bench`.
