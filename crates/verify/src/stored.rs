//! A trained verifier's files: `verifier.json`, `references.safetensors` and the classifier's two.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use evenset_core::SampleId;
use serde::{Deserialize, Serialize};

use crate::config::attributes_config;
use crate::gates::{DiversityLimit, Looks, Scale};
use crate::nearest::Points;
use crate::sight::{Sight, View};
use crate::{Calibration, GateConfig, VerifyError, views};

const DESCRIPTION: &str = "verifier.json";
const REFERENCES: &str = "references.safetensors";
/// Stands for a real image that the classifier did not learn from, and for a missing value.
const NO_LABEL: u32 = u32::MAX;
/// A larger file of references is a mistake: it would hold some ten million images.
const LARGEST: u64 = 1 << 34;

/// All of a verifier but tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// In the order of the cascade.
    pub(crate) gates: Vec<GateConfig>,
    pub(crate) attributes: Vec<(String, Vec<String>)>,
    pub(crate) calibration: Calibration,
    /// The limit of `diversity`, if the gate is there.
    pub(crate) diversity: Option<DiversityLimit>,
}

/// The real images, as far as gates compare with them.
#[derive(Debug)]
pub(crate) struct References {
    /// Of all real images; without predictions.
    pub(crate) real: Looks,
    /// The label of every real image that the classifier learned from.
    pub(crate) labels: Vec<Option<u32>>,
    /// Every real image's values of all attributes.
    pub(crate) values: Vec<Vec<Option<u32>>>,
    /// Which real images the classifier did not learn from.
    pub(crate) held_out: Vec<bool>,
}

impl Stored {
    /// Writes all files into `folder`, the description last: a folder with it is complete.
    pub(crate) fn save(&self, folder: &Path, trained: Option<&(Sight, References)>) -> Result<(), VerifyError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| VerifyError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        if let Some((sight, references)) = trained {
            sight.save(folder)?;
            let path = folder.join(REFERENCES);
            candle_core::safetensors::save(&references.tensors(sight.scale.as_ref())?, &path)?;
        }
        let path = folder.join(DESCRIPTION);
        let text = serde_json::to_vec_pretty(self).map_err(|error| malformed(&path, &error))?;
        fs::write(&path, text).map_err(failed(&path))
    }

    pub(crate) fn load(folder: &Path) -> Result<(Self, Option<(Sight, References)>), VerifyError> {
        let path = folder.join(DESCRIPTION);
        let text = fs::read(&path).map_err(|source| VerifyError::File { path: path.clone(), source })?;
        let stored: Self = serde_json::from_slice(&text).map_err(|error| malformed(&path, &error))?;
        if !stored.gates.iter().any(GateConfig::needs_sight) {
            return Ok((stored, None));
        }
        let views: Vec<View> = stored.calibration.attributes.iter().map(|attribute| attribute.view).collect();
        let mut sight = Sight::load(folder, views, &attributes_config(&stored.gates))?;
        if sight.attributes() != stored.attributes || stored.calibration.attributes.len() != stored.attributes.len() {
            return Err(malformed(&path, &"its attributes are not those of the classifier beside it"));
        }
        let (scale, references) = References::load(&folder.join(REFERENCES), sight.feature_width())?;
        sight.scale = Some(scale);
        Ok((stored, Some((sight, references))))
    }
}

impl References {
    fn tensors(&self, scale: Option<&Scale>) -> Result<HashMap<String, Tensor>, VerifyError> {
        let Self { real, labels, values, held_out } = self;
        let matrix = |points: &Points| Tensor::from_slice(&points.values, (points.len(), points.width), &Device::Cpu);
        let code = |value: &Option<u32>| value.unwrap_or(NO_LABEL);
        let labels: Vec<u32> = labels.iter().map(code).collect();
        let width = values.first().map_or(0, Vec::len);
        let values: Vec<u32> = values.iter().flatten().map(code).collect();
        let held_out: Vec<u8> = held_out.iter().map(|&apart| u8::from(apart)).collect();
        // Halves, since the format has no unsigned numbers of 64 bits that all readers know.
        let hashes = real.hashes.iter().flatten().flat_map(|&hash| [(hash >> 32) as u32, hash as u32]).collect();
        let ids: Vec<u8> = real.ids.iter().flat_map(|id| *id.as_bytes()).collect();
        let count = real.len();
        let named = [
            ("features", matrix(&real.features)?),
            ("thumbnails", matrix(&real.thumbnails)?),
            ("middles", matrix(&real.middles)?),
            ("coarse", matrix(&real.coarse)?),
            ("hashes", Tensor::from_vec(hashes, (count, 4), &Device::Cpu)?),
            ("labels", Tensor::from_vec(labels, count, &Device::Cpu)?),
            ("values", Tensor::from_vec(values, (count, width), &Device::Cpu)?),
            ("held_out", Tensor::from_vec(held_out, count, &Device::Cpu)?),
            ("ids", Tensor::from_vec(ids, (count, 32), &Device::Cpu)?),
        ];
        let scale = scale.map(|scale| [("mean", &scale.mean), ("deviation", &scale.deviation)]);
        let scale = scale.into_iter().flatten();
        let scale = scale.map(|(name, values)| Ok((name, Tensor::from_slice(values, values.len(), &Device::Cpu)?)));
        let named = named.into_iter().chain(scale.collect::<Result<Vec<_>, VerifyError>>()?);
        Ok(named.map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }

    fn load(path: &Path, feature_width: usize) -> Result<(Scale, Self), VerifyError> {
        let length = fs::metadata(path).map_err(|source| VerifyError::File { path: path.to_owned(), source })?.len();
        if length > LARGEST {
            return Err(malformed(path, &format_args!("{length} bytes are more than any verifier needs")));
        }
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).map_err(|error| malformed(path, &error))?;
        let file = File { path: path.to_owned(), tensors };
        let features = file.floats("features")?;
        let thumbnails = file.floats("thumbnails")?;
        let (middles, coarse) = (file.floats("middles")?, file.floats("coarse")?);
        let hashes = file.get("hashes")?.to_vec2::<u32>().map_err(|error| malformed(path, &error))?;
        let labels = file.get("labels")?.to_vec1::<u32>().map_err(|error| malformed(path, &error))?;
        let values = file.get("values")?.to_vec2::<u32>().map_err(|error| malformed(path, &error))?;
        let held_out = file.get("held_out")?.to_vec1::<u8>().map_err(|error| malformed(path, &error))?;
        let ids = file.get("ids")?.to_vec2::<u8>().map_err(|error| malformed(path, &error))?;
        let hex = |id: Vec<u8>| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let ids = ids.into_iter().map(|id| hex(id).parse()).collect::<Result<Vec<SampleId>, _>>();
        let (ids, count) = (ids.map_err(|error| malformed(path, &error))?, labels.len());
        let scale = Scale { mean: file.floats("mean")?.values, deviation: file.floats("deviation")?.values };
        let widths = [features.width, scale.mean.len(), scale.deviation.len()];
        let hashes: Vec<[u64; 2]> = hashes.iter().filter_map(|halves| joined(halves)).collect();
        let points = [&features, &thumbnails, &middles, &coarse].map(Points::len);
        let lengths = [ids.len(), values.len(), held_out.len(), hashes.len()];
        let fits = (points, lengths) == ([count; 4], [count; 4]);
        let described = [middles.width, coarse.width] == [views::WIDTH, views::COARSE_WIDTH];
        if !fits || !described || widths != [feature_width; 3] {
            return Err(malformed(path, &"its tensors do not fit each other"));
        }
        let value = |code: u32| (code != NO_LABEL).then_some(code);
        let labels = labels.into_iter().map(value).collect();
        let values = values.into_iter().map(|row| row.into_iter().map(value).collect()).collect();
        let held_out = held_out.into_iter().map(|apart| apart != 0).collect();
        let real = Looks { heads: Vec::new(), features, thumbnails, middles, coarse, hashes, ids };
        Ok((scale, Self { real, labels, values, held_out }))
    }
}

/// Two hashes from their four halves.
fn joined(halves: &[u32]) -> Option<[u64; 2]> {
    let &[a, b, c, d] = halves else { return None };
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    Some([join(a, b), join(c, d)])
}

/// The tensors of a file.
struct File {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
}

impl File {
    fn get(&self, name: &str) -> Result<&Tensor, VerifyError> {
        self.tensors.get(name).ok_or_else(|| malformed(&self.path, &format_args!("`{name}` is missing")))
    }

    /// A vector or a matrix, row by row.
    fn floats(&self, name: &str) -> Result<Points, VerifyError> {
        let tensor = self.get(name)?;
        let width = tensor.dims().last().copied().unwrap_or_default();
        let values = tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>());
        Ok(Points::new(values.map_err(|error| malformed(&self.path, &error))?, width))
    }
}

fn malformed(path: &Path, reason: &dyn std::fmt::Display) -> VerifyError {
    VerifyError::Malformed { path: path.to_owned(), reason: reason.to_string() }
}
