//! Gates: every generated image is kept, or dropped with a reason.
