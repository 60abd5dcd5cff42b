//! The evenset command line.
fn main() {}
