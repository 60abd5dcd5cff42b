//! One LoRA file: its layers, each with both matrices.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::Tensor;

use super::names::{self, Key, Role};
use super::scale::Scales;
use super::{Part, refusal};
use crate::error::Result;
use crate::files::WeightFiles;

/// A layer's place: its network and its name with `_` for dots.
pub(super) type Place = (Part, String);

/// The change of one layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// The names of both matrices in the file.
    pub(super) down: String,
    pub(super) up: String,
    /// `[outputs, inputs, ..]`: the shape of the weight that it changes.
    pub(super) shape: Vec<usize>,
    pub(super) rank: usize,
    /// What the product of the matrices is multiplied by.
    pub(super) scale: f64,
}

/// The layers of a file.
#[derive(Debug)]
pub(super) struct LoraFile {
    files: WeightFiles,
    layers: BTreeMap<Place, Layer>,
}

/// The keys of a layer as far as they were met.
#[derive(Default)]
struct Keys {
    module: String,
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

impl LoraFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let files = WeightFiles::open(path)?;
        let scales = Scales::read(path, files.metadata())?;
        let mut layers = BTreeMap::new();
        for (place, keys) in collect(&files)? {
            let layer = layer(&files, &scales, place.0, &keys)?;
            layers.insert(place, layer);
        }
        match layers.is_empty() {
            true => Err(refusal(path, "it changes nothing; name another file".into())),
            false => Ok(Self { files, layers }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.files.path()
    }

    pub(super) fn parts(&self) -> BTreeSet<Part> {
        self.layers.keys().map(|(part, _)| *part).collect()
    }

    /// How many layers of a network there are, and the key of the first.
    pub(super) fn example(&self, part: Part) -> (usize, &str) {
        let layers = self.of(part);
        (layers.len(), layers.first().map_or("", |(_, layer)| &layer.down))
    }

    /// The layers of a network.
    pub(super) fn of(&self, part: Part) -> Vec<(&Place, &Layer)> {
        self.layers.iter().filter(|((of, _), _)| *of == part).collect()
    }

    /// The layer in the first of several places, and which that is.
    pub(super) fn find(&self, places: &[Place]) -> Option<(&Place, &Layer)> {
        places.iter().find_map(|place| self.layers.get_key_value(place))
    }

    /// Both matrices, `[rank, inputs ..]` and `[outputs, rank]`.
    pub(super) fn matrices(&self, layer: &Layer) -> Result<(Tensor, Tensor)> {
        let [outputs, inputs @ ..] = layer.shape.as_slice() else {
            return Err(refusal(self.path(), format!("`{}` is no matrix", layer.down)));
        };
        let columns: usize = inputs.iter().product();
        let down = self.finite(&layer.down)?.reshape((layer.rank, columns))?;
        Ok((down, self.finite(&layer.up)?.reshape((*outputs, layer.rank))?))
    }

    fn finite(&self, name: &str) -> Result<Tensor> {
        let tensor = self.files.read_whole(name)?;
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => {
                let reason =
                    format!("`{name}` holds {value}: the training had failed; use an earlier checkpoint of it");
                Err(refusal(self.path(), reason))
            }
            None => Ok(tensor),
        }
    }
}

/// All keys by their layers.
fn collect(files: &WeightFiles) -> Result<BTreeMap<Place, Keys>> {
    let mut layers: BTreeMap<Place, Keys> = BTreeMap::new();
    for name in files.names() {
        let Key { part, layer, module, role } = names::parse(name).map_err(|reason| refusal(files.path(), reason))?;
        let keys = layers.entry((part, layer)).or_default();
        let slot = match role {
            Role::Down => &mut keys.down,
            Role::Up => &mut keys.up,
            Role::Alpha => &mut keys.alpha,
        };
        if let Some(other) = slot.replace(name.to_owned()) {
            return Err(refusal(
                files.path(),
                format!("`{name}` and `{other}` are the same layer; remove one of them"),
            ));
        }
        keys.module = module;
    }
    Ok(layers)
}

fn layer(files: &WeightFiles, scales: &Scales, part: Part, keys: &Keys) -> Result<Layer> {
    let alone = |name: &str| refusal(files.path(), format!("`{name}` stands alone; the file is not complete"));
    let (down, up) = match (&keys.down, &keys.up) {
        (Some(down), Some(up)) => (down, up),
        (Some(one), None) | (None, Some(one)) => return Err(alone(one)),
        (None, None) => return Err(alone(keys.alpha.as_deref().unwrap_or(&keys.module))),
    };
    let (down_shape, up_shape) = (files.shape(down).unwrap_or_default(), files.shape(up).unwrap_or_default());
    let shape = match (down_shape, up_shape) {
        ([rank, inputs @ ..], [outputs, up_rank, ones @ ..])
            if rank == up_rank && !inputs.is_empty() && inputs.len() <= 3 && ones.iter().all(|size| *size == 1) =>
        {
            std::iter::once(outputs).chain(inputs).copied().collect::<Vec<_>>()
        }
        _ => {
            let reason =
                format!("`{down}` {down_shape:?} and `{up}` {up_shape:?} do not go together; the file is damaged");
            return Err(refusal(files.path(), reason));
        }
    };
    let rank = down_shape.first().copied().unwrap_or_default();
    if rank == 0 || shape.contains(&0) {
        return Err(refusal(files.path(), format!("`{down}` is empty; the file is damaged")));
    }
    let alpha = keys.alpha.as_deref().map(|name| files.read_number(name)).transpose()?;
    let scale = scales.of(part, &keys.module, rank, alpha);
    match scale.is_finite() {
        true => Ok(Layer { down: down.clone(), up: up.clone(), shape, rank, scale }),
        false => Err(refusal(files.path(), format!("the alpha of `{down}` is no finite number; the file is damaged"))),
    }
}
