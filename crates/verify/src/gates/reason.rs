//! What kinds of reasons there are, so that they can be counted.

/// What kind of reason it is: without the figures in brackets at its end, and without the number of an image or of images.
///
/// ```
/// use evenset_verify::gates::kind_of_reason;
/// assert_eq!(kind_of_reason("novelty: exact copy of candidate 12"), "novelty: exact copy of an earlier candidate");
/// ```
pub fn kind_of_reason(reason: &str) -> String {
    let plain = match reason.rsplit_once(" (") {
        Some((before, _)) if reason.ends_with(')') => before,
        _ => reason,
    };
    if plain.starts_with("diversity: ") {
        return "diversity: adds nothing to its group".to_owned();
    }
    match plain.split_once(" copy of ") {
        Some((how, image)) if how.starts_with("novelty: ") => {
            let of = if image.starts_with("training image") { "a training image" } else { "an earlier candidate" };
            format!("{how} copy of {of}")
        }
        _ => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_figures_alone_are_of_one_kind() {
        for (reason, kind) in [
            ("attributes: colour=red wanted, blue seen (0.81)", "attributes: colour=red wanted, blue seen"),
            (
                "attributes: colour=red (dark) wanted, blue seen (0.81)",
                "attributes: colour=red (dark) wanted, blue seen",
            ),
            ("novelty: exact copy of training image 3", "novelty: exact copy of a training image"),
            (
                "novelty: near copy of candidate 40 (pixels 0.0100, real images keep 0.0200 apart)",
                "novelty: near copy of an earlier candidate",
            ),
            (
                "novelty: near copy of an image accepted in an earlier round (hash bits 1.0, real images keep 4.0 apart)",
                "novelty: near copy of an earlier candidate",
            ),
            (
                "diversity: adds nothing to the 25 images of its group (features 0.1 from the nearest, at least 0.2)",
                "diversity: adds nothing to its group",
            ),
            ("taste: 3 faces", "taste: 3 faces"),
        ] {
            assert_eq!(kind_of_reason(reason), kind);
        }
    }
}
