//! Noise schedules, samplers and generators.
