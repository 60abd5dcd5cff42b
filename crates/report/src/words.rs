//! Names of arms, gates and cues in plain words, for readers who did not write the job.

/// What an arm of the evidence was trained on.
struct Words {
    name: &'static str,
    explained: &'static str,
    /// After "accuracy in the worst group is ... with the generated images and ... ".
    instead: &'static str,
    generated: bool,
}

const fn arm(name: &'static str, explained: &'static str, instead: &'static str) -> Words {
    Words { name, explained, instead, generated: false }
}

const fn generated(name: &'static str, explained: &'static str) -> Words {
    Words { name, explained, instead: "", generated: true }
}

const ARMS: [Words; 13] = [
    arm("as-is", "real images, unchanged", "without them"),
    arm("oversample", "rare groups drawn more often", "with rare groups merely drawn more often"),
    arm("undersample", "all groups cut to the size of the smallest", "with all groups merely cut to the smallest"),
    arm("reweight", "rare groups weigh more", "with rare groups merely weighted up"),
    arm("match-weights", "weighted as if label and attributes were independent", "with images merely weighted"),
    arm("augment", "real images mirrored, shifted, turned", "with the real images merely varied"),
    arm("mixup", "real images blended in pairs", "with the real images merely blended in pairs"),
    arm("group-dro", "the group that is worst at the moment weighs most", "with the worst groups merely weighted up"),
    generated("generated-only", "generated images alone"),
    generated("balanced", "real and generated, every group drawn equally often"),
    generated("balanced-reweight", "real and generated, rare groups weigh more"),
    generated("balanced-discount", "balanced, generated images weigh less"),
    generated("balanced-last-layer", "balanced, its last layer then trained on real images"),
];

fn find(name: &str) -> Option<&'static Words> {
    ARMS.iter().find(|arm| arm.name == name)
}

/// An arm in a few words; empty where it is not known.
pub(crate) fn arm_explained(name: &str) -> &'static str {
    find(name).map_or("", |arm| arm.explained)
}

/// An arm without generated images, as the end of a comparison.
pub(crate) fn instead(name: &str) -> String {
    let known = find(name).map(|arm| arm.instead).filter(|words| !words.is_empty());
    known.map_or_else(|| format!("with “{name}”"), str::to_owned)
}

/// Whether an arm sees generated images.
pub(crate) fn sees_generated(name: &str) -> bool {
    find(name).is_some_and(|arm| arm.generated)
}

/// A gate in a few words; empty where it is not known.
pub(crate) fn gate_explained(gate: &str) -> &'static str {
    match gate {
        "decode" => "the file opens and is not blank",
        "attributes" => "a classifier trained on real images recognises what was asked for",
        "novelty" => "it is no near copy of a training image or of another candidate",
        "in-distribution" => "it looks like the real images of its group",
        "shortcut" => "nothing trivial gives generated images away; it drops none",
        _ => "",
    }
}

/// What generated images have by one trivial cue: `sharper details`.
pub(crate) fn cue(cue: &str, more: bool) -> String {
    let (with_more, with_less) = match cue {
        "mean red" => ("more red", "less red"),
        "mean green" => ("more green", "less green"),
        "mean blue" => ("more blue", "less blue"),
        "contrast in red" => ("more contrast in red", "less contrast in red"),
        "contrast in green" => ("more contrast in green", "less contrast in green"),
        "contrast in blue" => ("more contrast in blue", "less contrast in blue"),
        "saturation" => ("stronger colours", "paler colours"),
        "border brightness" => ("brighter borders", "darker borders"),
        "border contrast" => ("more contrast along the border", "more even borders"),
        "sharpness" => ("sharper details", "softer details"),
        "noise" => ("more noise", "less noise"),
        "edges" => ("more edges", "fewer edges"),
        "low frequencies" => ("stronger coarse patterns", "weaker coarse patterns"),
        "middle frequencies" => ("stronger middling patterns", "weaker middling patterns"),
        "high frequencies" => ("stronger fine patterns", "weaker fine patterns"),
        "blockiness" => ("more visible blocks of 8 by 8", "less visible blocks of 8 by 8"),
        "exact black" => ("more pixels that are exactly black", "fewer pixels that are exactly black"),
        "exact white" => ("more pixels that are exactly white", "fewer pixels that are exactly white"),
        "grey levels" => ("more different grey levels", "fewer different grey levels"),
        "border against middle" => {
            ("borders that are brighter than the middle", "borders that are darker than the middle")
        }
        other => return format!("{} of “{other}”", if more { "more" } else { "less" }),
    };
    if more { with_more.to_owned() } else { with_less.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_is_explained_and_unknown_names_stay_as_they_are() {
        assert!(ARMS.iter().all(|arm| !arm_explained(arm.name).is_empty()));
        assert!(sees_generated("balanced") && sees_generated("generated-only") && !sees_generated("group-dro"));
        assert_eq!(instead("as-is"), "without them");
        assert_eq!(instead("other"), "with “other”");
        assert_eq!(cue("sharpness", false), "softer details");
        assert_eq!(cue("unheard of", true), "more of “unheard of”");
    }
}
