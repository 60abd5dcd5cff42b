//! The stages: each reads the folders of the stages before it and writes its own.

pub mod audit;
pub mod checks;
pub mod evidence;
pub mod generate;
pub mod held_out;
pub mod hook;
pub mod looks;
pub mod model;
pub mod plan;
pub mod plateau;
pub mod report;
pub mod scan;
pub mod verifier;
pub mod verify;
pub mod write;
