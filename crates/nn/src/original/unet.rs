//! A UNet's names: `input_blocks`, `middle_block` and `output_blocks`, counted through.

use super::numbers;

/// Modules outside the blocks.
const FIXED: [(&str, &str); 10] = [
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("class_embedding.linear_1", "label_emb.0.0"),
    ("class_embedding.linear_2", "label_emb.0.2"),
    ("class_embedding", "label_emb"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];

/// Layers of a residual block.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// How many residual blocks a level has, by the original names: the first convolution that halves the size stands behind
/// those of the first level, and where none does there is one level only.
pub(super) fn layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let names: Vec<&str> = names.collect();
    let blocks = numbers(names.iter().copied(), "input_blocks.");
    let is_halving = |i: &usize| names.iter().any(|name| name.starts_with(&format!("input_blocks.{i}.0.op.")));
    let end = blocks.iter().copied().find(is_halving).or(blocks.last().map(|last| last + 1));
    end.unwrap_or_default().saturating_sub(1)
}

/// The original names that a weight may have.
pub(super) fn names(name: &str, layers: usize) -> Vec<String> {
    let Some((module, kind)) = name.rsplit_once('.') else { return Vec::new() };
    modules(module, layers).into_iter().map(|module| format!("{module}.{kind}")).collect()
}

/// The original names that a module may have, of a UNet with `layers` residual blocks a level: none for a module that
/// the original networks lack, two for one whose place depends on its neighbours.
pub(crate) fn modules(module: &str, layers: usize) -> Vec<String> {
    if let Some((_, original)) = FIXED.iter().find(|(name, _)| *name == module) {
        return vec![(*original).to_owned()];
    }
    blocks(module, layers).unwrap_or_default()
}

fn blocks(module: &str, layers: usize) -> Option<Vec<String>> {
    let step = layers.checked_add(1)?;
    let (side, rest) = module.split_once('.')?;
    if side == "mid_block" {
        let (kind, rest) = rest.split_once('.')?;
        let (i, rest) = split_number(rest)?;
        return Some(vec![match kind {
            "resnets" => format!("middle_block.{}.{}", i.checked_mul(2)?, resnet(rest)?),
            "attentions" => format!("middle_block.{}.{rest}", i.checked_mul(2)?.checked_add(1)?),
            _ => return None,
        }]);
    }
    let (level, rest) = split_number(rest)?;
    let (kind, rest) = rest.split_once('.')?;
    let (i, rest) = split_number(rest)?;
    let before = level.checked_mul(step)?;
    let down = before.checked_add(1)?.checked_add(i)?;
    let up = before.checked_add(i)?;
    Some(match (side, kind) {
        ("down_blocks", "resnets") => vec![format!("input_blocks.{down}.0.{}", resnet(rest)?)],
        ("down_blocks", "attentions") => vec![format!("input_blocks.{down}.1.{rest}")],
        ("down_blocks", "downsamplers") if rest == "conv" => vec![format!("input_blocks.{}.0.op", before + step)],
        ("up_blocks", "resnets") => vec![format!("output_blocks.{up}.0.{}", resnet(rest)?)],
        ("up_blocks", "attentions") => vec![format!("output_blocks.{up}.1.{rest}")],
        // Behind the attention, where the level has one.
        ("up_blocks", "upsamplers") if rest == "conv" => {
            [2, 1].into_iter().map(|place| format!("output_blocks.{}.{place}.conv", before + layers)).collect()
        }
        _ => return None,
    })
}

fn resnet(rest: &str) -> Option<&'static str> {
    RESNET.iter().find(|(name, _)| *name == rest).map(|(_, original)| *original)
}

/// A number, and what stands behind its dot.
fn split_number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.')?;
    Some((number.parse().ok()?, rest))
}
