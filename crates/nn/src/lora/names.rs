//! What the keys of a LoRA file say: which network, which layer, which of its matrices.
//!
//! Layers are compared with `_` for every dot, which is how kohya's scripts write them; a layer's name in diffusers' or
//! PEFT's files becomes the same.

use super::Part;

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Up,
    Alpha,
}

/// A key that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) part: Part,
    /// The layer, with `_` for dots; in a text encoder without `text_model`, which new files leave away.
    pub(super) layer: String,
    /// The layer as PEFT names it, by which it is found in `alpha_pattern`.
    pub(super) module: String,
    pub(super) role: Role,
}

/// Ends of keys and what they mean; the longer of two that fit comes first.
const ENDS: [(&str, Role); 14] = [
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_A.default.weight", Role::Down),
    (".lora_B.default.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    ("_lora.alpha", Role::Alpha),
    (".alpha", Role::Alpha),
];

/// What stands in the keys of other kinds of files.
const OTHERS: [(&str, &str); 13] = [
    ("dora_scale", "a DoRA"),
    ("lora_magnitude_vector", "a DoRA"),
    ("hada_w", "a LoHa"),
    ("hada_t", "a LoHa"),
    ("lokr_", "a LoKr"),
    ("lora_mid", "a LoCon with a Tucker core"),
    ("lora_embedding_", "a LoRA of an embedding"),
    ("oft_", "an OFT"),
    ("on_input", "an IA3"),
    ("lora_B.bias", "a LoRA with biases"),
    (".diff_", "full differences of weights"),
    ("lora_controlnet", "a Control-LoRA"),
    ("emb_params", "a textual inversion"),
];

/// Prefixes of kohya's scripts.
const KOHYA: [(&str, Part); 4] = [
    ("lora_unet_", Part::UNet),
    ("lora_te1_", Part::TextEncoder),
    ("lora_te2_", Part::TextEncoder2),
    ("lora_te_", Part::TextEncoder),
];

/// Prefixes of diffusers.
const FOLDERS: [(&str, Part); 3] =
    [("unet.", Part::UNet), ("text_encoder_2.", Part::TextEncoder2), ("text_encoder.", Part::TextEncoder)];

/// What keys without a prefix start with in the two kinds of networks.
const UNET_STARTS: [&str; 8] = [
    "down_blocks.",
    "mid_block.",
    "up_blocks.",
    "conv_in.",
    "conv_out.",
    "time_embedding.",
    "add_embedding.",
    "class_embedding.",
];
const TEXT_STARTS: [&str; 3] = ["text_model.", "encoder.layers.", "text_projection."];

const PEFT: &str = "base_model.model.";

/// Reads a key; the error says what it is instead.
pub(super) fn parse(key: &str) -> Result<Key, String> {
    let closed = format!("{key}_");
    if let Some((_, kind)) = OTHERS.iter().find(|(part, _)| closed.contains(part)) {
        return Err(format!(
            "`{key}` shows that this is {kind}, which is not supported; merge it into the model with the program that \
             made it, or use a plain LoRA"
        ));
    }
    let unknown = || format!("`{key}` is no key of a LoRA for Stable Diffusion; name another file");
    let (end, role) = ENDS.iter().find(|(end, _)| key.ends_with(end)).ok_or_else(unknown)?;
    let name = key.strip_suffix(end).ok_or_else(unknown)?;
    let is_old = end.starts_with('_');
    let (part, module) = match KOHYA.iter().find_map(|(start, part)| Some((*part, name.strip_prefix(start)?))) {
        Some((part, name)) => (part, name.to_owned()),
        None => split(name).ok_or_else(unknown)?,
    };
    let module = module.replace(".processor.", ".");
    let module = if is_old { of_processor(part, &module) } else { module };
    let layer = underscored(part, &module);
    match layer.is_empty() {
        true => Err(unknown()),
        false => Ok(Key { part, layer, module, role: *role }),
    }
}

/// The network and the layer of a name with dots.
fn split(name: &str) -> Option<(Part, String)> {
    let name = name.strip_prefix(PEFT).unwrap_or(name);
    if let Some((part, name)) = FOLDERS.iter().find_map(|(start, part)| Some((*part, name.strip_prefix(start)?))) {
        return Some((part, name.strip_prefix(PEFT).unwrap_or(name).to_owned()));
    }
    let dotted = format!("{name}.");
    let starts = |starts: &[&str]| starts.iter().any(|start| dotted.starts_with(start));
    match (starts(&UNET_STARTS), starts(&TEXT_STARTS)) {
        (true, _) => Some((Part::UNet, name.to_owned())),
        (_, true) => Some((Part::TextEncoder, name.to_owned())),
        _ => None,
    }
}

/// The layer behind the names that attention processors gave: `to_q`, `to_k`, `to_v`, `to_out` in every network.
fn of_processor(part: Part, module: &str) -> String {
    let Some((place, name)) = module.rsplit_once('.') else { return module.to_owned() };
    let name = match (part, name) {
        (Part::UNet, "to_out") => "to_out.0",
        (Part::UNet, name) => name,
        (_, "to_q") => "q_proj",
        (_, "to_k") => "k_proj",
        (_, "to_v") => "v_proj",
        (_, "to_out") => "out_proj",
        (_, name) => name,
    };
    format!("{place}.{name}")
}

/// A layer's name with `_` for every dot, as layers are compared.
pub(super) fn underscored(part: Part, module: &str) -> String {
    let name = module.replace('.', "_");
    match part {
        Part::UNet => name,
        _ => name.strip_prefix("text_model_").map_or(name.clone(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str) -> (Part, String, Role) {
        let Key { part, layer, role, .. } = parse(key).unwrap();
        (part, layer, role)
    }

    #[test]
    fn one_layer_has_one_name_in_every_way_of_writing_it() {
        let layer = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0";
        for key in [
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
            "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
            "base_model.model.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.default.weight",
            "unet.base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
        ] {
            assert_eq!(read(key), (Part::UNet, layer.to_owned(), Role::Down), "{key}");
        }
        for key in [
            "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_linear_layer.up.weight",
            "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.up.weight",
            "text_encoder.encoder.layers.1.self_attn.q_proj.lora_B.weight",
            "base_model.model.text_model.encoder.layers.1.self_attn.q_proj.lora_B.weight",
            "lora_te_text_model_encoder_layers_1_self_attn_q_proj.lora_up.weight",
            "lora_te1_text_model_encoder_layers_1_self_attn_q_proj.lora_up.weight",
        ] {
            assert_eq!(read(key), (Part::TextEncoder, "encoder_layers_1_self_attn_q_proj".into(), Role::Up), "{key}");
        }
        let second = read("lora_te2_text_projection.alpha");
        assert_eq!(second, (Part::TextEncoder2, "text_projection".into(), Role::Alpha));
    }

    #[test]
    fn other_kinds_of_files_are_refused_by_name() {
        for (key, kind) in [
            ("lora_unet_x.dora_scale", "DoRA"),
            ("unet.x.lora_magnitude_vector", "DoRA"),
            ("lora_unet_x.hada_w1_a", "LoHa"),
            ("lora_unet_x.lokr_w1", "LoKr"),
            ("lora_unet_x.lora_mid.weight", "Tucker"),
            ("unet.x.lora_B.bias", "biases"),
            ("lora_unet_x.diff_b", "differences"),
            ("lora_unet_x.diff", "differences"),
            ("model.diffusion_model.x.weight", "no key of a LoRA"),
            ("transformer.x.lora_A.weight", "no key of a LoRA"),
            ("lora_unet_.lora_down.weight", "no key of a LoRA"),
            ("model.weight", "no key of a LoRA"),
        ] {
            let message = parse(key).unwrap_err();
            assert!(message.contains(kind) && message.contains(key), "{message}");
        }
    }
}
