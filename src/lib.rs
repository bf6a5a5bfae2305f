//! Residual networks on Burn.
