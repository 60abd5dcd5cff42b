//! A text encoder's names in OpenCLIP: one matrix for queries, keys and values, and a projection that multiplies from the
//! other side.

use super::{Place, Take, numbers};

/// Weights outside the layers.
const FIXED: [(&str, &str); 4] = [
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("final_layer_norm.weight", "ln_final.weight"),
    ("final_layer_norm.bias", "ln_final.bias"),
];

/// Parts of a layer.
const LAYER: [(&str, &str); 5] = [
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.out_proj.", "attn.out_proj."),
];

const LAYERS: &str = "transformer.resblocks.";

/// The number of the last layer.
pub(super) fn last_layer<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    numbers(names, LAYERS).last().copied().unwrap_or_default()
}

/// Whether a name is that of a weight that is read; `unused` is a layer that is not, together with the projection.
pub(super) fn holds(name: &str, unused: Option<usize>) -> bool {
    let ends = unused
        .is_some_and(|layer| name.starts_with("text_projection") || name.starts_with(&format!("{LAYERS}{layer}.")));
    !ends && !matches!(name, "logit_scale" | "attn_mask")
}

/// Where the weight `name` of transformers lies.
pub(super) fn place(name: &str) -> Option<Place> {
    if name == "text_projection.weight" {
        return Some(Place { key: "text_projection".into(), take: Take::Transposed });
    }
    let name = name.strip_prefix("text_model.")?;
    if let Some((_, original)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        return Some(Place::whole((*original).to_owned()));
    }
    let (layer, part) = name.strip_prefix("encoder.layers.")?.split_once('.')?;
    if let Some((start, original)) = LAYER.iter().find(|(start, _)| part.starts_with(start)) {
        return Some(Place::whole(format!("{LAYERS}{layer}.{original}{}", part.strip_prefix(start)?)));
    }
    let (projection, kind) = part.strip_prefix("self_attn.")?.split_once('.')?;
    let third = ["q_proj", "k_proj", "v_proj"].iter().position(|name| *name == projection)?;
    Some(Place { key: format!("{LAYERS}{layer}.attn.in_proj_{kind}"), take: Take::Third(third) })
}
