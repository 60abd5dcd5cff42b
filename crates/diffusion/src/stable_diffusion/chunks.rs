//! A text as windows of tokens: as many as its tokens need.

use evenset_nn::models::clip::Tokenizer;

use super::emphasis::{self, Piece};
use super::prompt::{LongPrompts, PromptOptions};
use crate::error::{DiffusionError, Result};

/// The most windows that a text is read in; with CLIP's, 1200 tokens.
const MOST_WINDOWS: usize = 16;
/// The longest text that is looked at.
const LONGEST: usize = 256 << 10;

/// Tokens that are read together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// The window's length of them, with those of the ends and the filling.
    pub(super) ids: Vec<u32>,
    /// How many of them are not filling.
    pub(super) filled: usize,
    /// How much each counts; none where all count the same.
    pub(super) weights: Option<Vec<f32>>,
}

/// The windows of a text, at least one.
pub(super) fn windows(tokenizer: &Tokenizer, text: &str, options: PromptOptions) -> Result<Vec<Window>> {
    if text.len() > LONGEST {
        return Err(refused(text, format!("{} bytes are too many, {LONGEST} are read; shorten it", text.len())));
    }
    let pieces = match options.emphasis {
        true => emphasis::parse(text).map_err(|reason| refused(text, reason))?,
        false => vec![Piece { text: text.to_owned(), weight: 1.0 }],
    };
    let mut tokens: Vec<(u32, f32)> = Vec::new();
    for Piece { text, weight } in &pieces {
        tokens.extend(tokenizer.pieces(text)?.into_iter().map(|id| (id, *weight as f32)));
    }
    let (count, room) = (tokens.len(), tokenizer.room());
    match options.long_prompts {
        LongPrompts::Cut if count > room => {
            tracing::warn!(prompt = start(text), tokens = count, read = room, "the end of a long prompt is left out");
            tokens.truncate(room);
        }
        LongPrompts::Windows if count > MOST_WINDOWS * room => {
            let reason = format!(
                "its {count} tokens are more than the {} that are read ({MOST_WINDOWS} windows of {room}); shorten it, or \
                 set `long_prompts: cut` to read the first {room}",
                MOST_WINDOWS * room
            );
            return Err(refused(text, reason));
        }
        _ => {}
    }
    Ok(match tokens.is_empty() {
        true => vec![window(tokenizer, &[])],
        false => tokens.chunks(room).map(|tokens| window(tokenizer, tokens)).collect(),
    })
}

fn window(tokenizer: &Tokenizer, tokens: &[(u32, f32)]) -> Window {
    let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
    let mut weights = vec![1.0; tokenizer.length()];
    for (weight, (_, of_token)) in weights.iter_mut().skip(tokenizer.before()).zip(tokens) {
        *weight = *of_token;
    }
    Window {
        filled: tokenizer.length() - tokenizer.room() + ids.len(),
        ids: tokenizer.framed(&ids),
        weights: weights.iter().any(|weight| *weight != 1.0).then_some(weights),
    }
}

/// The error of a prompt that cannot be read.
pub(super) fn refused(text: &str, reason: impl Into<String>) -> DiffusionError {
    DiffusionError::Prompt { start: start(text), reason: reason.into() }
}

/// So much of a prompt as a message shows.
fn start(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}
