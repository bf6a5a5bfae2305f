//! Benchmarks of the kernels. Run them with `cargo bench` in this directory.
