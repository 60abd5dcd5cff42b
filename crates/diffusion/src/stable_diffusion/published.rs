//! What the folders of the published models say and single files leave out: noise levels with their solver, and tokenizers.

use evenset_nn::Part;
use evenset_nn::models::clip::Filling;
use serde_json::{Map, Value, json};

use super::facts::{Family, Prediction};

/// The `scheduler_config.json` of `stable-diffusion-v1-5`, `stable-diffusion-2-1` or `stable-diffusion-xl-base-1.0`, which
/// diffusers' `from_single_file` (0.42) takes too, for a network that predicts `prediction`. With `zero_terminal_snr` the
/// noise levels end in noise alone.
pub(super) fn scheduler(family: Family, prediction: Option<Prediction>, zero_terminal_snr: bool) -> Map<String, Value> {
    let own = match family {
        Family::Sd1 => json!({"_class_name": "PNDMScheduler"}),
        Family::Sd2 => json!({"_class_name": "DDIMScheduler"}),
        Family::Xl => json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading",
                             "interpolation_type": "linear", "use_karras_sigmas": false, "sample_max_value": 1.0}),
    };
    let common = json!({"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
                        "beta_end": 0.012, "trained_betas": null, "steps_offset": 1, "skip_prk_steps": true,
                        "set_alpha_to_one": false, "clip_sample": false});
    let prediction = prediction.map(|prediction| match prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::V => "v_prediction",
        Prediction::Sample => "sample",
    });
    let mut settings: Map<String, Value> =
        [own, common].into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect();
    settings.extend(prediction.map(|prediction| ("prediction_type".to_owned(), prediction.into())));
    if zero_terminal_snr {
        settings.insert("rescale_betas_zero_snr".into(), true.into());
    }
    settings
}

/// What fills up the texts of a text encoder.
pub(super) fn filling(family: Family, part: Part) -> Filling {
    match (family, part) {
        (Family::Sd2, _) | (_, Part::TextEncoder2) => Filling::Exclamation,
        (Family::Sd1 | Family::Xl, _) => Filling::End,
    }
}
