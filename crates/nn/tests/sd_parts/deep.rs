//! Deep features of one call in the calls after it, against the package DeepCache around diffusers' network.

use candle_core::Tensor;
use evenset_nn::models::{Conditions, DeepFeatures, LoadOptions, UNet2DConditionModel};
use evenset_nn::no_grad;

use crate::{CPU, Tensors, assert_near, bits, golden, parts, tensors};

fn model(name: &str) -> (UNet2DConditionModel, Tensors) {
    let net = UNet2DConditionModel::from_pretrained(&golden(name), CPU, LoadOptions::default()).unwrap();
    (net, tensors(&golden(name).join("io.safetensors")))
}

fn conditions(io: &Tensors) -> Conditions<'_> {
    Conditions { class: io.get("class"), timestep: io.get("timestep_cond"), ..crate::conditions(io) }
}

#[test]
fn every_branch_of_two_layers_a_level_gives_what_deepcache_gives() {
    let (net, io) = model("upscaler");
    let expected = tensors(&parts("deep.safetensors"));
    assert_eq!(net.config().branches(), expected.len());
    let at = |timestep: f32| Tensor::full(timestep, io["x"].dims()[0], CPU).unwrap();
    let half = (&io["x"] * 0.5).unwrap();
    no_grad(|| {
        for (branch, expected) in &expected {
            let mut deep = DeepFeatures::new(branch.parse().unwrap());
            let mut run =
                |x: &Tensor, time| net.forward_with(x, &at(time), &conditions(&io), None, Some(&mut deep)).unwrap();
            run(&io["x"], 417.0);
            assert_near(&format!("branch {branch}"), &run(&half, 400.0), expected);
        }
    });
}

#[test]
fn features_of_the_same_inputs_change_nothing_and_forgotten_ones_are_computed_again() {
    for name in ["sd1", "sd2", "sdxl", "upscaler"] {
        let (net, io) = model(name);
        let half = (&io["x"] * 0.5).unwrap();
        no_grad(|| {
            let plain = |x: &Tensor| bits(&net.forward(x, &io["timesteps"], &conditions(&io)).unwrap());
            let (whole, other) = (plain(&io["x"]), plain(&half));
            for branch in 0..net.config().branches() {
                let mut deep = DeepFeatures::new(branch);
                let run = |x: &Tensor, deep: &mut DeepFeatures| {
                    bits(&net.forward_with(x, &io["timesteps"], &conditions(&io), None, Some(deep)).unwrap())
                };
                assert!(run(&io["x"], &mut deep) == whole, "{name}, branch {branch}: filled");
                assert!(run(&io["x"], &mut deep) == whole, "{name}, branch {branch}: reused");
                assert!(run(&half, &mut deep) != other, "{name}, branch {branch}: nothing was reused");
                deep.forget();
                assert!(run(&half, &mut deep) == other, "{name}, branch {branch}: forgotten");
            }
        });
    }
}
