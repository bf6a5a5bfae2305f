//! What needs the whole workspace: backends against each other, trainings from start to end, the
//! sweep, and the rules of the house.

mod backends;
mod house;
mod inputs;
mod sweep;
mod training;
