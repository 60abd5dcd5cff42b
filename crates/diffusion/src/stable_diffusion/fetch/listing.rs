//! What the hub says of a model: its commit, and each file's size and hash.

use serde::Deserialize;

use crate::error::{DiffusionError, Result};

/// A model at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    /// 40 hexadecimal digits.
    pub(super) commit: String,
    files: Vec<Listed>,
}

/// A file of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Relative to the model's folder.
    pub(super) name: String,
    /// In bytes.
    pub(super) size: u64,
    pub(super) hash: Hash,
}

/// The hash under which the cache keeps a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// Of the content: large files.
    Sha256(String),
    /// Git's SHA-1 of the content with its length before it: small ones.
    Git(String),
}

impl Hash {
    /// The digits.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }
}

/// The hub's answer.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the answer about the model `id`. A file without a size or a hash is left out, as if it were not there.
    pub(super) fn parse(text: &str, id: &str) -> Result<Self> {
        let fail = |problem: String| DiffusionError::Fetch { what: id.to_owned(), problem };
        let answer: Answer = serde_json::from_str(text)
            .map_err(|error| fail(format!("the hub's answer is not about a model ({error}); check `HF_ENDPOINT`")))?;
        if !is_hex(&answer.sha, 40) {
            return Err(fail("the hub's answer names no commit; check `HF_ENDPOINT`".into()));
        }
        Ok(Self { commit: answer.sha, files: answer.siblings.into_iter().filter_map(Sibling::listed).collect() })
    }

    /// The file of this name.
    pub(super) fn file(&self, name: &str) -> Option<&Listed> {
        self.files.iter().find(|file| file.name == name)
    }
}

impl Sibling {
    fn listed(self) -> Option<Listed> {
        let (size, hash) = match self.lfs {
            Some(Lfs { sha256, size }) => (size, Hash::Sha256(Some(sha256).filter(|hash| is_hex(hash, 64))?)),
            None => (self.size?, Hash::Git(self.blob_id.filter(|hash| is_hex(hash, 40))?)),
        };
        Some(Listed { name: self.rfilename, size, hash })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_hashes_are_those_of_the_content_and_files_without_are_left_out() {
        let (git, sha256) = ("1".repeat(40), "2".repeat(64));
        let text = format!(
            r#"{{"sha": "{git}", "siblings": [
                {{"rfilename": "a.json", "size": 7, "blobId": "{git}"}},
                {{"rfilename": "b/c.safetensors", "size": 134, "blobId": "{git}", "lfs": {{"sha256": "{sha256}", "size": 9, "pointerSize": 134}}}},
                {{"rfilename": "no-size", "blobId": "{git}"}},
                {{"rfilename": "up", "size": 7, "blobId": "../../../../etc/passwd"}}]}}"#
        );
        let listing = Listing::parse(&text, "a/b").unwrap();
        let small = Listed { name: "a.json".into(), size: 7, hash: Hash::Git(git) };
        let large = Listed { name: "b/c.safetensors".into(), size: 9, hash: Hash::Sha256(sha256) };
        assert_eq!(listing.files, [small.clone(), large]);
        assert_eq!(listing.file("a.json"), Some(&small));
    }

    #[test]
    fn an_answer_that_names_no_commit_is_refused_with_the_models_name() {
        for text in ["<html>", r#"{"sha": "main", "siblings": []}"#, r#"{"sha": "../..", "siblings": []}"#] {
            let error = Listing::parse(text, "a/b").unwrap_err().to_string();
            assert!(error.starts_with("a/b: ") && error.contains("HF_ENDPOINT"), "{error}");
        }
    }
}
