//! Which timesteps are visited (`timestep_spacing`; table 2 of Lin et al. 2023), number by number as NumPy gives them.

use super::Class;
use super::settings::Settings;
use crate::error::Result;

/// How timesteps are spread over those of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    /// Whole strides from the first timestep up.
    Leading,
    /// Evenly between the first and the last.
    Linspace,
    /// Even strides from the last timestep down.
    Trailing,
}

impl Spacing {
    pub fn read(class: Class, settings: &Settings<'_>) -> Result<Self> {
        let default = match class {
            Class::Ddim | Class::Ddpm | Class::Pndm | Class::Lcm => "leading",
            _ => "linspace",
        };
        let choices = [("leading", Self::Leading), ("linspace", Self::Linspace), ("trailing", Self::Trailing)];
        settings.choice("timestep_spacing", default, &choices)
    }

    /// Falling timesteps of a walk that may end at timestep 0; not rounded where `Linspace` gives fractions.
    pub fn to_first(self, train: usize, offset: usize, steps: usize) -> Vec<f64> {
        match self {
            Self::Linspace => linspace(0.0, (train - 1) as f64, steps).into_iter().rev().collect(),
            Self::Leading => (0..steps).rev().map(|i| (i * (train / steps) + offset) as f64).collect(),
            Self::Trailing => trailing(train, train, steps),
        }
    }

    /// Falling timesteps of a walk that goes from the last of them to a clean image: those of one step more, without the
    /// lowest. `train` timesteps were trained, `used` of them are walked.
    pub fn above_first(self, train: usize, used: usize, offset: usize, steps: usize) -> Vec<f64> {
        match self {
            Self::Linspace => {
                let rounded = linspace(0.0, used as f64 - 1.0, steps + 1).into_iter().map(f64::round_ties_even);
                rounded.skip(1).rev().collect()
            }
            Self::Leading => (1..=steps).rev().map(|i| (i * (used / (steps + 1)) + offset) as f64).collect(),
            Self::Trailing => trailing(train, used, steps),
        }
    }
}

/// `numpy.linspace`: both ends belong to it, and one point is the start.
pub(super) fn linspace(start: f64, end: f64, points: usize) -> Vec<f64> {
    let step = (end - start) / (points.max(2) - 1) as f64;
    let at = |i: usize| if i > 0 && i + 1 == points { end } else { i as f64 * step + start };
    (0..points).map(at).collect()
}

/// Rounded strides of `train / steps` from `used` down, less 1.
///
/// The points are those of `numpy.arange`, whose last can be a rounding error above 0 (61 steps of 1000 do that, and
/// diffusers then walks to timestep -1): that one is left out.
fn trailing(train: usize, used: usize, steps: usize) -> Vec<f64> {
    let (start, stride) = (used as f64, train as f64 / steps as f64);
    let points = (start / stride).ceil() as usize;
    let delta = (start - stride) - start;
    let at = |i: usize| (start + i as f64 * delta).round_ties_even() - 1.0;
    (0..points).map(at).filter(|timestep| *timestep >= 0.0).collect()
}
