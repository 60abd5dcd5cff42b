//! An image as a network's input.

use evenset_nn::models::clip::{Filter, resample};

use crate::VerifyError;
use crate::recognise::{Colour, ImageInput, Layout};

/// The largest side of an input in pixels.
const LARGEST: usize = 4096;

/// Whether the description is possible.
pub(super) fn check(input: &ImageInput) -> Result<(), String> {
    let ImageInput { width, height, mean, std, scale, colour, .. } = input;
    if ![width, height].into_iter().all(|side| (1..=LARGEST).contains(side)) {
        return Err(format!("an input of {width}x{height} pixels is impossible; write 1 to {LARGEST}"));
    }
    for (key, list) in [("mean", mean), ("std", std)] {
        if !list.is_empty() && list.len() != colour.channels() {
            let wanted = colour.channels();
            return Err(format!("`{key}` has {} numbers; write {wanted}, one for each colour", list.len()));
        }
        if !list.iter().all(|value| value.is_finite()) || (key == "std" && list.iter().any(|value| *value <= 0.0)) {
            return Err(format!("`{key}` is impossible; write finite numbers, in `std` above 0"));
        }
    }
    match scale.is_finite() && *scale != 0.0 {
        true => Ok(()),
        false => Err(format!("`scale` {scale} is impossible; write a number other than 0, as 0.00392157 for 1/255")),
    }
}

/// The shape of a batch.
pub(super) fn shape(input: &ImageInput, batch: usize) -> [usize; 4] {
    let ImageInput { width, height, layout, colour, .. } = *input;
    match layout {
        Layout::Nchw => [batch, colour.channels(), height, width],
        Layout::Nhwc => [batch, height, width, colour.channels()],
    }
}

/// The numbers of one image `[height, width, 3]` of `size` (width, height), in the order of [`shape`].
pub(super) fn values(input: &ImageInput, image: &[u8], size: (usize, usize)) -> Result<Vec<f32>, VerifyError> {
    let ImageInput { width, height, layout, colour, ref mean, ref std, scale } = *input;
    let rgb = resample(image, size, (width, height), Filter::Bilinear)?;
    let channels = colour.channels();
    let value = |pixel: &[u8], channel: usize| {
        let value = match colour {
            Colour::Rgb => f32::from(pixel[channel]),
            Colour::Bgr => f32::from(pixel[2 - channel]),
            Colour::Grey => {
                let weighted: u32 =
                    pixel.iter().zip([299, 587, 114]).map(|(&value, part)| u32::from(value) * part).sum();
                weighted as f32 / 1000.0
            }
        };
        let (mean, std) = (mean.get(channel).copied().unwrap_or(0.0), std.get(channel).copied().unwrap_or(1.0));
        (value * scale - mean) / std
    };
    let pixels = || rgb.chunks_exact(3);
    Ok(match layout {
        Layout::Nchw => (0..channels).flat_map(|channel| pixels().map(move |pixel| value(pixel, channel))).collect(),
        Layout::Nhwc => pixels().flat_map(|pixel| (0..channels).map(move |channel| value(pixel, channel))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(layout: Layout, colour: Colour) -> ImageInput {
        ImageInput { width: 2, height: 1, layout, colour, mean: vec![], std: vec![], scale: 1.0 }
    }

    #[test]
    fn layout_and_colour_decide_the_order_of_the_numbers() {
        let image = [10, 20, 30, 40, 50, 60];
        let of = |layout, colour| values(&input(layout, colour), &image, (2, 1)).unwrap();
        assert_eq!(of(Layout::Nchw, Colour::Rgb), [10.0, 40.0, 20.0, 50.0, 30.0, 60.0]);
        assert_eq!(of(Layout::Nhwc, Colour::Rgb), [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(of(Layout::Nchw, Colour::Bgr), [30.0, 60.0, 20.0, 50.0, 10.0, 40.0]);
        assert_eq!(of(Layout::Nhwc, Colour::Grey), [18.15, 48.15]);
        let moved = ImageInput {
            mean: vec![1.0, 2.0, 3.0],
            std: vec![1.0, 2.0, 4.0],
            scale: 0.5,
            ..input(Layout::Nhwc, Colour::Bgr)
        };
        assert_eq!(values(&moved, &image, (2, 1)).unwrap(), [14.0, 4.0, 0.5, 29.0, 11.5, 4.25]);
    }

    #[test]
    fn an_impossible_description_is_refused_by_its_key() {
        let good = input(Layout::Nchw, Colour::Rgb);
        for (wrong, key) in [
            (ImageInput { width: 0, ..good.clone() }, "0x1"),
            (ImageInput { height: 1 << 20, ..good.clone() }, "1048576"),
            (ImageInput { mean: vec![0.5], ..good.clone() }, "`mean` has 1"),
            (ImageInput { std: vec![1.0, 0.0, 1.0], ..good.clone() }, "`std`"),
            (ImageInput { scale: 0.0, ..good.clone() }, "`scale`"),
        ] {
            let error = check(&wrong).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(check(&good), Ok(()));
    }
}
