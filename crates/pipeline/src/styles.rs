//! Generated images in files like the real ones', so that the file does not give them away.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use evenset_data::{FileStyle, Format, Limits, Mode, Styled, decode, png_text};
use rand::RngExt;

use crate::error::{PipelineError, Result};
use crate::rounds::Accepted;
use crate::stages::scan::Row;

/// The files of the real training images, by group.
#[derive(Debug, Default)]
pub struct Styles {
    known: Vec<FileStyle>,
    numbers: HashMap<FileStyle, usize>,
    /// Numbers of the styles of a group's files, one a file.
    groups: BTreeMap<String, Vec<usize>>,
    all: Vec<usize>,
}

impl Styles {
    /// Counts one real training image.
    pub fn add(&mut self, row: &Row, group: Option<&str>, bytes: &[u8]) {
        let Some(style) = FileStyle::of(bytes, row.width, row.height, row.grey) else { return };
        let number = *self.numbers.entry(style).or_insert_with_key(|style| {
            self.known.push(style.clone());
            self.known.len() - 1
        });
        self.all.push(number);
        if let Some(group) = group {
            self.groups.entry(group.to_owned()).or_default().push(number);
        }
    }

    /// The image in a file like that of a real one of its group, or of any group where it has none. Which real one is drawn
    /// by the image's own seed.
    ///
    /// # Errors
    /// [`PipelineError::Damaged`] where the stored candidate cannot be decoded.
    pub fn apply(&self, accepted: &Accepted) -> Result<Styled> {
        let request = &accepted.candidate.request;
        let png = &accepted.candidate.png;
        let as_drawn = || Styled { format: Format::Png, bytes: png.clone(), alike: true };
        let numbers = self.groups.get(&request.group.to_string()).unwrap_or(&self.all);
        if numbers.is_empty() {
            return Ok(as_drawn());
        }
        let place = request.seed.derive("file").rng().random_range(0..numbers.len());
        let style = &self.known[numbers[place]];
        let image = decode(png, &Limits::default()).map_err(PipelineError::damaged(Path::new(&request.id)))?;
        if FileStyle::of(png, image.width, image.height, image.mode == Mode::L).as_ref() == Some(style) {
            return Ok(as_drawn());
        }
        let text = png_text(png);
        let text: Vec<(&str, &str)> = text.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        Ok(style.apply(&image, &text))
    }
}
