//! Tiled autoencoding: diffusers' tiles and blending.

use evenset_nn::models::{AutoencoderKL, LoadOptions, Tiling};
use evenset_nn::no_grad;

use crate::{CPU, assert_near, bits, distance, golden, parts, tensors};

fn vae() -> AutoencoderKL {
    AutoencoderKL::from_pretrained(&golden("vae"), CPU, LoadOptions::default()).unwrap()
}

#[test]
fn tiles_are_decoded_and_encoded_and_blended_as_diffusers_does() {
    let io = tensors(&parts("tiles.safetensors"));
    let vae = vae();
    let default = Tiling::of(vae.config());
    assert_eq!(default, Tiling { size: 32, overlap: 0.25 });
    let whole = no_grad(|| vae.decode(&io["z"])).unwrap();
    for (name, tiling) in [("default", default), ("small", Tiling { size: 16, overlap: 0.5 })] {
        let vae = vae.clone().with_tiling(Some(tiling)).unwrap();
        let (decoded, posterior) = no_grad(|| (vae.decode(&io["z"]).unwrap(), vae.encode(&io["image"]).unwrap()));
        assert_near(&format!("{name}, decoded"), &decoded, &io[&format!("{name}.decoded")]);
        assert_near(&format!("{name}, mean"), &posterior.mean, &io[&format!("{name}.mean")]);
        assert_near(&format!("{name}, logvar"), &posterior.logvar, &io[&format!("{name}.logvar")]);
        assert_eq!(decoded.dims(), whole.dims(), "{name}");
        assert!(distance(&decoded, &whole) > 1e-3, "{name}: nothing was tiled");
    }
}

#[test]
fn an_image_no_larger_than_a_tile_is_taken_whole_and_its_bytes_do_not_depend_on_the_batch() {
    let io = tensors(&parts("tiles.safetensors"));
    let tiled = vae().with_tiling(Some(Tiling { size: 32, overlap: 0.25 })).unwrap();
    let small = io["z"].narrow(2, 0, 8).unwrap().narrow(3, 0, 8).unwrap();
    no_grad(|| {
        assert_eq!(bits(&tiled.decode(&small).unwrap()), bits(&vae().decode(&small).unwrap()));
        let other = (&io["z"] * 0.5).unwrap();
        let both = tiled.decode(&candle_core::Tensor::cat(&[&other, &io["z"]], 0).unwrap()).unwrap();
        assert_eq!(bits(&both.narrow(0, 1, 1).unwrap()), bits(&tiled.decode(&io["z"]).unwrap()));
    });
}

#[test]
fn impossible_tiles_are_refused() {
    // Those of the last two fall between latents: diffusers takes them, and gives an image of another size.
    let sizes = [
        (0, 0.25),
        (3, 0.25),
        (32, 1.0),
        (32, -0.1),
        (32, f64::NAN),
        (4, 0.5),
        (usize::MAX, 0.25),
        (20, 0.45),
        (18, 0.0),
    ];
    for (size, overlap) in sizes {
        let message = vae().with_tiling(Some(Tiling { size, overlap })).unwrap_err().to_string();
        assert!(message.contains("tiles of"), "{message}");
    }
}
