//! Plain and residual networks that train in the browser, on 1,437 images of digits.
//!
//! [`Trainer`] is what the page's workers call. It is a thin layer over `residual-model` and Burn: the networks, their
//! initial weights and the kernels are those of `residual train`, and so is the order of the images.

pub mod digits;
pub mod settings;
pub mod training;

use std::cell::RefCell;
use training::Training;
use wasm_bindgen::prelude::*;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A training, for JavaScript.
#[wasm_bindgen]
pub struct Trainer(Training);

#[wasm_bindgen]
impl Trainer {
    /// Starts a training with the settings in JSON ([`settings::Settings`]).
    ///
    /// # Errors
    /// If the settings are invalid.
    #[wasm_bindgen(constructor)]
    pub fn new(json: &str) -> Result<Trainer, JsError> {
        std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
        Training::new(json).map(Self).map_err(|error| JsError::new(&error))
    }

    /// The number of steps of the whole training.
    pub fn steps(&self) -> usize {
        self.0.steps()
    }

    /// Takes a step and returns what it did in JSON ([`training::Step`]).
    ///
    /// # Errors
    /// If the result cannot be written as JSON.
    pub fn step(&mut self, measure: bool) -> Result<String, JsError> {
        Ok(serde_json::to_string(&self.0.step(measure))?)
    }

    /// The share of the training images that the network takes for another digit.
    pub fn training_error(&self) -> f64 {
        self.0.training_error()
    }

    /// The root mean square of the first block's input and of each block's output.
    pub fn activations(&self) -> Vec<f64> {
        self.0.activations()
    }

    /// The probability of each digit for an image of 8x8 pixels from 0 to 1.
    ///
    /// # Errors
    /// If there are not 64 pixels.
    pub fn predict(&self, pixels: &[f32]) -> Result<Vec<f32>, JsError> {
        self.0.predict(pixels).map_err(|error| JsError::new(&error))
    }
}

/// The message of the panic that ended the program, if one did.
#[wasm_bindgen]
pub fn panic_message() -> String {
    PANIC.with_borrow(Clone::clone)
}
