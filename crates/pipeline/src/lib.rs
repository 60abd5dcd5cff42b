//! Job file, stages, run folder, units, rounds and hooks.
