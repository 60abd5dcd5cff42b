//! Differentiable layers, fast CPU kernels, the UNet, optimiser and EMA.
