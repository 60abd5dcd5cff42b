//! An autoencoder's names: levels of the decoder are counted from the highest resolution.

use super::numbers;

/// Names within the attention of the middle.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out.")];

/// How many resolutions a decoder has.
pub(super) fn levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    numbers(names, "decoder.up.").last().map_or(0, |last| last.saturating_add(1))
}

/// Whether a name is that of a weight: training left others beside them.
pub(super) fn holds(name: &str) -> bool {
    ["encoder.", "decoder.", "quant_conv.", "post_quant_conv."].iter().any(|start| name.starts_with(start))
}

/// The original name of a weight.
pub(super) fn name(name: &str, levels: usize) -> Option<String> {
    let (side, rest) = name.split_once('.')?;
    if matches!(side, "quant_conv" | "post_quant_conv") {
        return Some(name.to_owned());
    }
    let (block, inner) = rest.split_once('.')?;
    Some(match block {
        "conv_in" | "conv_out" => name.to_owned(),
        "conv_norm_out" => format!("{side}.norm_out.{inner}"),
        "mid_block" => format!("{side}.mid.{}", middle(inner)?),
        "down_blocks" | "up_blocks" => {
            let (level, inner) = inner.split_once('.')?;
            let level: usize = level.parse().ok()?;
            let (direction, level) = match block {
                "down_blocks" => ("down", level),
                _ => ("up", levels.checked_sub(level.checked_add(1)?)?),
            };
            format!("{side}.{direction}.{level}.{}", within_level(inner)?)
        }
        _ => return None,
    })
}

fn within_level(inner: &str) -> Option<String> {
    if let Some(rest) = inner.strip_prefix("resnets.") {
        return Some(format!("block.{}", rest.replace(".conv_shortcut.", ".nin_shortcut.")));
    }
    let rest = inner.strip_prefix("downsamplers.0.conv.").map(|rest| format!("downsample.conv.{rest}"));
    rest.or_else(|| inner.strip_prefix("upsamplers.0.conv.").map(|rest| format!("upsample.conv.{rest}")))
}

fn middle(inner: &str) -> Option<String> {
    if let Some(rest) = inner.strip_prefix("resnets.") {
        let (i, rest) = rest.split_once('.')?;
        let i: usize = i.parse().ok()?;
        return Some(format!("block_{}.{rest}", i.checked_add(1)?));
    }
    let rest = inner.strip_prefix("attentions.0.")?;
    let (name, original) = ATTENTION.iter().find(|(name, _)| rest.starts_with(name))?;
    Some(format!("attn_1.{original}{}", rest.strip_prefix(name)?))
}
