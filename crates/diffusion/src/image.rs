//! What every generator gives.

/// An image that was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: u32,
    /// `[height, width, channels]`.
    pub pixels: Vec<u8>,
    /// Whether every number on the way to it was finite; the pixels of an image that was not mean nothing.
    pub finite: bool,
}
