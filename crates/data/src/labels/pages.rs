//! A flat text column of a row group, page by page, as codes into its dictionary.
//!
//! The Arrow reader turns dictionary pages into arrays of texts or of checked keys; counting needs neither. Here the
//! codes of a page go straight into the caller's buffer and the dictionary is read once. The Parquet library still does
//! the footer, the page headers and the decompression. Plain pages, which writers fall back to when a dictionary grows
//! too large, are read into a dictionary of the batch.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_schema::DataType;
use bytes::Bytes;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;

use super::hybrid::{ENDS_EARLY, Hybrid};
use super::words::{Cells, Interner, Words};
use crate::features::is_text;

/// Definition levels that are unpacked at a time where there are missing values.
const LEVELS: usize = 1024;

/// Whether [`PageColumn`] reads this column chunk of this Arrow type.
pub(crate) fn is_readable(chunk: &ColumnChunkMetaData, data_type: &DataType) -> bool {
    let text = match data_type {
        DataType::Dictionary(_, words) => is_text(words),
        other => is_text(other),
    };
    let descriptor = chunk.column_descr();
    let flat = descriptor.max_rep_level() == 0 && descriptor.max_def_level() <= 1;
    #[expect(deprecated, reason = "files from before 2013 hold BIT_PACKED levels, and later ones still name it")]
    let levels = [Encoding::RLE, Encoding::BIT_PACKED];
    let values = [Encoding::PLAIN, Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY];
    let known = |encoding| levels.contains(&encoding) || values.contains(&encoding);
    text && flat && descriptor.physical_type() == Type::BYTE_ARRAY && chunk.encodings().all(known)
}

/// The pages of a column chunk, read from front to back.
pub(crate) struct PageColumn {
    pages: Box<dyn PageReader>,
    /// Whether values can be missing.
    optional: bool,
    missing: Arc<HashSet<String>>,
    /// The dictionary, and behind it `None` for missing values.
    words: Arc<Words>,
    page: DataPage,
    /// The words of a batch that has values outside the dictionary.
    outside: Interner,
}

#[derive(Default)]
struct DataPage {
    left: usize,
    levels: Option<Hybrid>,
    values: Values,
}

enum Values {
    Codes(Hybrid),
    Plain { bytes: Bytes, at: usize },
}

impl Default for Values {
    fn default() -> Self {
        Self::Plain { bytes: Bytes::new(), at: 0 }
    }
}

impl PageColumn {
    /// Reads `pages` of a chunk that [`is_readable`]. `missing` are the texts that stand for no value.
    pub fn new(pages: Box<dyn PageReader>, optional: bool, missing: Arc<HashSet<String>>) -> Self {
        Self {
            pages,
            optional,
            words: Arc::new(Words { values: vec![None], measured: false }),
            page: DataPage::default(),
            outside: Interner::new(Arc::clone(&missing), false),
            missing,
        }
    }

    /// The next `rows` rows. The error says what is wrong with the pages.
    pub fn read(&mut self, rows: usize, cells: &mut Cells) -> Result<(), String> {
        cells.codes.resize(rows, 0);
        let (mut done, mut outside) = (0, false);
        while done < rows {
            if self.page.left == 0 {
                self.next_page()?;
                continue;
            }
            let given = self.page.left.min(rows - done);
            let plain = matches!(self.page.values, Values::Plain { .. });
            if plain && !outside {
                outside = true;
                self.outside.begin();
                self.move_outside(&mut cells.codes[..done]);
            }
            let out = &mut cells.codes[done..done + given];
            if plain {
                self.plain(out)?;
            } else {
                self.codes(out)?;
                if outside {
                    self.move_outside(out);
                }
            }
            self.page.left -= given;
            done += given;
        }
        cells.words = if outside { self.outside.words() } else { Arc::clone(&self.words) };
        Ok(())
    }

    /// Codes of the dictionary as codes of the batch's own words.
    fn move_outside(&mut self, codes: &mut [u32]) {
        for code in codes {
            *code = self.outside.code(self.words.values.get(*code as usize).and_then(Option::as_deref));
        }
    }

    /// Dictionary codes of the rows at hand; the code behind the last word stands for a missing value.
    fn codes(&mut self, out: &mut [u32]) -> Result<(), String> {
        let Values::Codes(values) = &mut self.page.values else { return Err(ENDS_EARLY.to_owned()) };
        let words = self.words.values.len() as u32 - 1;
        let mut fill = |out: &mut [u32]| {
            values.fill(out)?;
            let outside = out.iter().fold(false, |outside, &code| outside | (code >= words));
            if outside { Err(format!("a value lies outside its dictionary of {words} words")) } else { Ok(()) }
        };
        let Some(levels) = &mut self.page.levels else { return fill(out) };
        let mut done = 0;
        while done < out.len() {
            let left = &mut out[done..];
            if let Some((level, count)) = levels.repeated(left.len())? {
                if level == 1 {
                    fill(&mut left[..count])?
                } else {
                    left[..count].fill(words)
                }
                done += count;
                continue;
            }
            let count = left.len().min(LEVELS);
            let (mut present, mut codes) = ([0; LEVELS], [0; LEVELS]);
            levels.fill(&mut present[..count])?;
            let there = present[..count].iter().map(|&level| level as usize).sum();
            fill(&mut codes[..there])?;
            let mut next = 0;
            for (code, &level) in left.iter_mut().zip(&present[..count]) {
                // Beyond the last code there is only the missing value, so the place is always within the buffer.
                *code = if level == 1 { codes[next & (LEVELS - 1)] } else { words };
                next += level as usize;
            }
            done += count;
        }
        Ok(())
    }

    /// Texts of the rows at hand, each with its length before it.
    fn plain(&mut self, out: &mut [u32]) -> Result<(), String> {
        let Values::Plain { bytes, at } = &mut self.page.values else { return Err(ENDS_EARLY.to_owned()) };
        let mut level = [1];
        for code in out {
            if let Some(levels) = &mut self.page.levels {
                levels.fill(&mut level)?;
            }
            *code = if level == [1] {
                let text = next_text(bytes, at)?;
                self.outside.code(Some(text))
            } else {
                self.outside.code(None)
            };
        }
        Ok(())
    }

    fn next_page(&mut self) -> Result<(), String> {
        match self.pages.get_next_page().map_err(|error| error.to_string())? {
            None => Err("its pages end before its rows do".to_owned()),
            Some(Page::DictionaryPage { buf, num_values, .. }) => self.set_dictionary(&buf, num_values as usize),
            Some(Page::DataPage { buf, num_values, encoding, def_level_encoding, .. }) => {
                let (levels, values) = match self.optional {
                    false => (None, buf),
                    #[expect(deprecated, reason = "old files still hold it")]
                    true if def_level_encoding == Encoding::BIT_PACKED => {
                        let length = (num_values as usize).div_ceil(8);
                        (Some(of_big_endian_bits(buf.get(..length).ok_or(ENDS_EARLY)?)), buf.slice(length..))
                    }
                    true => {
                        let length = buf.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
                        let end = length.and_then(|length| length.checked_add(4)).filter(|end| *end <= buf.len());
                        let end = end.ok_or(ENDS_EARLY)?;
                        (Some(buf.slice(4..end)), buf.slice(end..))
                    }
                };
                self.set_page(num_values, levels, values, encoding)
            }
            Some(Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. }) => {
                let begin = rep_levels_byte_len as usize;
                let end = begin.saturating_add(def_levels_byte_len as usize);
                if end > buf.len() {
                    return Err(ENDS_EARLY.to_owned());
                }
                let levels = self.optional.then(|| buf.slice(begin..end));
                self.set_page(num_values, levels, buf.slice(end..), encoding)
            }
        }
    }

    fn set_page(&mut self, rows: u32, levels: Option<Bytes>, values: Bytes, encoding: Encoding) -> Result<(), String> {
        let values = match encoding {
            Encoding::PLAIN => Values::Plain { bytes: values, at: 0 },
            Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => match values.first() {
                Some(&width) => Values::Codes(Hybrid::new(values.slice(1..), width)?),
                // A page of missing values only may have no codes.
                None => Values::Codes(Hybrid::new(values, 0)?),
            },
            other => return Err(format!("a page is encoded as {other}, which its footer does not say")),
        };
        let levels = levels.map(|levels| Hybrid::new(levels, 1)).transpose()?;
        self.page = DataPage { left: rows as usize, levels, values };
        Ok(())
    }

    fn set_dictionary(&mut self, bytes: &[u8], count: usize) -> Result<(), String> {
        // Each word takes four bytes at least, so a wrong count cannot ask for much memory.
        if count > bytes.len() / 4 {
            return Err(ENDS_EARLY.to_owned());
        }
        let mut values = Vec::with_capacity(count + 1);
        let mut at = 0;
        for _ in 0..count {
            let word = next_text(bytes, &mut at)?;
            values.push((!self.missing.contains(word)).then(|| word.to_owned()));
        }
        values.push(None);
        self.words = Arc::new(Words { values, measured: false });
        Ok(())
    }
}

/// A text with its length in four bytes before it.
fn next_text<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a str, String> {
    let length = bytes.get(*at..).and_then(|left| left.first_chunk::<4>()).ok_or(ENDS_EARLY)?;
    let begin = *at + 4;
    let end = begin.checked_add(u32::from_le_bytes(*length) as usize).ok_or(ENDS_EARLY)?;
    *at = end;
    std::str::from_utf8(bytes.get(begin..end).ok_or(ENDS_EARLY)?).map_err(|_| "a text is not UTF-8".to_owned())
}

/// Levels of one bit, most significant first, as one packed run.
fn of_big_endian_bits(bits: &[u8]) -> Bytes {
    let mut header = (bits.len() << 1) | 1;
    let mut run = Vec::with_capacity(bits.len() + 5);
    while header >= 0x80 {
        run.push(header as u8 | 0x80);
        header >>= 7;
    }
    run.push(header as u8);
    run.extend(bits.iter().map(|byte| byte.reverse_bits()));
    run.into()
}
