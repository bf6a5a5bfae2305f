//! Tests that need several crates: comparisons of backends, complete training runs, the depth sweep, parsers of
//! untrusted files, the recorded results, and the invariants of ARCHITECTURE.md.

mod backends;
mod house;
mod inputs;
mod optimizers;
mod results;
mod sweep;
mod training;
