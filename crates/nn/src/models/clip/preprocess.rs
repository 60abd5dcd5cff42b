//! Images as an image transformer wants them: transformers' `CLIPImageProcessor` and `SiglipImageProcessor`.
//!
//! The bytes after resizing are Pillow's. transformers' processors that resize with torchvision instead (its "fast" ones)
//! differ from Pillow, and so from this, by about one level of 255 in some pixels.

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::config::{Family, located};
use super::resample::{Filter, resample};
use crate::classifier::ImageSet;
use crate::error::Result;
use crate::models::config::{in_range, only, read, unsupported};

/// The largest side of an image in pixels.
const LARGEST: usize = 4096;
/// Mean and deviation of the images that OpenAI trained on.
const OPENAI: ([f32; 3], [f32; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]);

/// To which size an image is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// The shorter side gets this length; the other keeps the proportions, rounded down.
    ShortestEdge(usize),
    /// Height and width.
    Exact(usize, usize),
}

/// How images are brought to one size and normalised.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageProcessor {
    resize: Option<(Resize, Filter)>,
    /// Height and width of the middle that is kept.
    crop: Option<(usize, usize)>,
    factor: f32,
    mean: [f32; 3],
    deviation: [f32; 3],
}

impl ImageProcessor {
    /// What a model without a `preprocessor_config.json` is shown: images of `image` x `image` pixels.
    pub fn standard(family: Family, image: usize) -> Self {
        let (resize, crop, (mean, deviation)) = match family {
            Family::Clip => (Resize::ShortestEdge(image), Some((image, image)), OPENAI),
            Family::Siglip => (Resize::Exact(image, image), None, ([0.5; 3], [0.5; 3])),
        };
        Self { resize: Some((resize, Filter::Bicubic)), crop, factor: 1.0 / 255.0, mean, deviation }
    }

    /// From a `preprocessor_config.json`; what it does not say is as in [`standard`](Self::standard).
    ///
    /// # Errors
    /// A file that cannot be read, or a key whose value no such processor has; both name the file.
    pub fn read(path: &Path, family: Family, image: usize) -> Result<Self> {
        let values: Map<String, Value> = read(path, "CLIPImageProcessor")?;
        located(path, Self::parse(&values, family, image))
    }

    fn parse(values: &Map<String, Value>, family: Family, image: usize) -> Result<Self> {
        let standard = Self::standard(family, image);
        let wanted = |key: &'static str, default: bool| match values.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(wanted)) => Ok(*wanted),
            Some(other) => Err(unsupported(key, other, "true or false")),
        };
        let filter = match values.get("resample") {
            None | Some(Value::Null) => Filter::Bicubic,
            Some(value) => value
                .as_u64()
                .and_then(Filter::numbered)
                .ok_or_else(|| unsupported("resample", value, "1 (Lanczos), 2 (bilinear) or 3 (bicubic)"))?,
        };
        let size = match values.get("size") {
            None | Some(Value::Null) => standard.resize.map(|(resize, _)| resize),
            Some(value) => Some(resize(value, family)?),
        };
        let crop = match values.get("crop_size") {
            None | Some(Value::Null) => Some((image, image)),
            Some(value) => match resize(value, Family::Siglip)? {
                Resize::Exact(height, width) => Some((height, width)),
                Resize::ShortestEdge(side) => Some((side, side)),
            },
        };
        let factor = match values.get("rescale_factor") {
            None | Some(Value::Null) => standard.factor,
            Some(value) => number("rescale_factor", value)?,
        };
        let three = |key: &'static str, default: [f32; 3]| match values.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Array(list)) if list.len() == 3 => {
                let list: Vec<f32> = list.iter().map(|value| number(key, value)).collect::<Result<_>>()?;
                Ok([list[0], list[1], list[2]])
            }
            Some(other) => Err(unsupported(key, other, "three numbers")),
        };
        let (mut mean, mut deviation) = (three("image_mean", standard.mean)?, three("image_std", standard.deviation)?);
        if let Some(zero) = deviation.iter().find(|value| **value <= 0.0) {
            return Err(unsupported("image_std", zero, "positive numbers"));
        }
        if !wanted("do_normalize", true)? {
            (mean, deviation) = ([0.0; 3], [1.0; 3]);
        }
        only("do_pad", &wanted("do_pad", false)?, &[false])?;
        Ok(Self {
            resize: if wanted("do_resize", true)? { size.map(|size| (size, filter)) } else { None },
            crop: if wanted("do_center_crop", standard.crop.is_some())? { crop } else { None },
            factor: if wanted("do_rescale", true)? { factor } else { 1.0 },
            mean,
            deviation,
        })
    }

    /// Height and width of what comes out, where `from` (width, height) goes in.
    pub fn output_size(&self, from: (usize, usize)) -> (usize, usize) {
        self.crop.unwrap_or_else(|| {
            let (width, height) = self.resized(from);
            (height, width)
        })
    }

    /// Width and height after resizing.
    fn resized(&self, (width, height): (usize, usize)) -> (usize, usize) {
        match self.resize {
            None => (width, height),
            Some((Resize::Exact(height, width), _)) => (width, height),
            Some((Resize::ShortestEdge(edge), _)) => {
                let longer = |long: usize, short: usize| ((edge * long) as f64 / short.max(1) as f64) as usize;
                if width <= height { (edge, longer(height, width)) } else { (longer(width, height), edge) }
            }
        }
    }

    /// The images as `[images, 3, height, width]`, normalised.
    ///
    /// # Errors
    /// Sizes that are absurd.
    pub fn process(&self, images: &ImageSet) -> Result<Tensor> {
        let from = (images.width(), images.height());
        let (height, width) = self.output_size(from);
        let plane = height * width;
        let made: Vec<Vec<f32>> = images
            .pixels()
            .par_chunks_exact(3 * from.0 * from.1)
            .map(|image| self.one(image, from))
            .collect::<Result<_>>()?;
        let values: Vec<f32> = made.concat();
        Ok(Tensor::from_vec(values, (images.len(), 3, height, plane / height.max(1)), &Device::Cpu)?)
    }

    /// `[3, height, width]`.
    fn one(&self, image: &[u8], from: (usize, usize)) -> Result<Vec<f32>> {
        let size = self.resized(from);
        let filter = self.resize.map_or(Filter::Bicubic, |(_, filter)| filter);
        let resized = resample(image, from, size, filter)?;
        let (height, width) = self.output_size(from);
        // Where the middle is larger than the image, black is added around it.
        let (top, left) = (offset(size.1, height), offset(size.0, width));
        let mut values = vec![0f32; 3 * height * width];
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let (from_y, from_x) = (y as isize + top, x as isize + left);
            let inside = (0..size.1 as isize).contains(&from_y) && (0..size.0 as isize).contains(&from_x);
            for colour in 0..3 {
                let value = match inside {
                    true => f32::from(resized[3 * (from_y as usize * size.0 + from_x as usize) + colour]),
                    false => 0.0,
                };
                values[(colour * height + y) * width + x] =
                    (value * self.factor - self.mean[colour]) / self.deviation[colour];
            }
        }
        Ok(values)
    }
}

/// Where the middle `kept` of `size` begins; below zero where it is larger. As transformers' `center_crop` rounds.
fn offset(size: usize, kept: usize) -> isize {
    let (size, kept) = (size as isize, kept as isize);
    if size >= kept { (size - kept) / 2 } else { -((kept - size + 1) / 2) }
}

fn number(key: &'static str, value: &Value) -> Result<f32> {
    let number = value.as_f64().filter(|number| number.is_finite() && number.abs() < 1e6);
    number.map(|number| number as f32).ok_or_else(|| unsupported(key, value, "a number"))
}

/// A size as it is written: a number, or a map.
fn resize(value: &Value, family: Family) -> Result<Resize> {
    let side = |value: &Value| {
        let side = value.as_u64().and_then(|side| usize::try_from(side).ok());
        in_range("size", side.unwrap_or(0), LARGEST)
    };
    match (value, value.get("shortest_edge"), value.get("height"), value.get("width")) {
        (Value::Number(_), ..) if family == Family::Clip => Ok(Resize::ShortestEdge(side(value)?)),
        (Value::Number(_), ..) => Ok(Resize::Exact(side(value)?, side(value)?)),
        (_, Some(edge), _, _) => Ok(Resize::ShortestEdge(side(edge)?)),
        (_, None, Some(height), Some(width)) => Ok(Resize::Exact(side(height)?, side(width)?)),
        _ => Err(unsupported("size", value, "a number, {shortest_edge} or {height, width}")),
    }
}
