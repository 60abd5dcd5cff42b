//! Fingerprints: is a finished piece of work still the one that is asked for?

use std::fmt;

use serde::{Deserialize, Serialize};

/// A blake3 hash over named parts: a stage's configuration, the fingerprints of what it reads, hashes of outside inputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of named parts, in the order given. Lengths are hashed too, so parts cannot run together.
    pub fn of<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (name, bytes) in parts {
            for part in [name.as_bytes(), bytes] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    /// All 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for folder names.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let split = Fingerprint::of([("a", &b"xy"[..]), ("b", b"z")]);
        assert_ne!(split, Fingerprint::of([("a", &b"x"[..]), ("b", b"yz")]));
        assert_eq!(split.short().len(), 12);
    }
}
