//! Tests that need several crates: comparison of backends, whole trainings, the depth sweep, reading of untrusted
//! files, and the rules of ARCHITECTURE.md.

mod backends;
mod house;
mod inputs;
mod results;
mod sweep;
mod training;
