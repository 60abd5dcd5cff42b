//! Files outside the job that gates read: what a gate says depends on what is in them.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::GateConfig;
use crate::gates::checker_folders;
use crate::recognise::RecogniserConfig;

/// How the names of files end that a folder with a model is read from: configurations, weights, tokenizers.
const OF_MODELS: [&str; 4] = ["json", "safetensors", "txt", "model"];

/// Programs that read a script; a version may follow the name.
const INTERPRETERS: [&str; 9] = ["sh", "bash", "env", "python", "node", "ruby", "perl", "Rscript", "julia"];

/// How the names of scripts end.
pub(crate) const SCRIPTS: [&str; 7] = ["py", "sh", "pl", "rb", "js", "R", "jl"];

impl GateConfig {
    /// The files that the gate reads, as far as they are there: its models, and whatever the command line of a program
    /// names, which may be a script or its settings.
    pub fn outside_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Attributes(config) => config.recognisers.iter().flat_map(of_recogniser).collect(),
            Self::Safety(config) => {
                let folders = config.model.iter().filter_map(|folder| checker_folders(folder)).flatten();
                let checker = folders.flat_map(|folder| of_model(&folder));
                checker.chain(config.onnx.iter().map(|onnx| onnx.path.clone()).filter(|path| path.is_file())).collect()
            }
            Self::Command(config) => files_of_command(&config.run),
            Self::Decode(_) | Self::InDistribution(_) | Self::Novelty(_) | Self::Diversity(_) | Self::Shortcut(_) => {
                Vec::new()
            }
        }
    }
}

/// The scripts that a command line names, as far as they are there, and that the program itself may be. An argument may be a
/// path or hold words for a shell. Interpreters are left out (another version of Python is no other judge), and so is
/// whatever is no script: a program may write it.
pub fn scripts_of_command(run: &[String]) -> Vec<PathBuf> {
    let words = run.iter().flat_map(|argument| {
        let words = argument.split(|c: char| c.is_whitespace() || "'\"=;|&<>()".contains(c));
        std::iter::once(argument.as_str()).chain(words)
    });
    let named = words.filter(|word| !word.is_empty()).map(PathBuf::from);
    let on_path = run.first().filter(|program| !program.contains('/')).and_then(|program| {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
    });
    let mut scripts: Vec<PathBuf> =
        on_path.into_iter().chain(named).filter(|path| !is_interpreter(path) && is_script(path)).collect();
    scripts.sort();
    scripts.dedup();
    scripts
}

/// The scripts of a command line, and what its arguments name beside them: settings and models that the program reads.
fn files_of_command(run: &[String]) -> Vec<PathBuf> {
    let arguments = run.iter().map(|argument| argument.split_once('=').map_or(argument.as_str(), |(_, path)| path));
    let named = arguments.map(PathBuf::from).filter(|path| path.is_file() && !is_interpreter(path));
    let log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let mut files: Vec<PathBuf> = named.filter(|path| !log(path)).chain(scripts_of_command(run)).collect();
    files.sort();
    files.dedup();
    files
}

/// Whether a program reads scripts, by its name.
fn is_interpreter(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    INTERPRETERS.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

/// Whether a file is a script, by its name or by its first two bytes, `#!`.
fn is_script(path: &Path) -> bool {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    path.is_file() && (SCRIPTS.contains(&extension) || begins_like_a_script(path))
}

fn begins_like_a_script(path: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"#!"
}

fn of_recogniser(config: &RecogniserConfig) -> Vec<PathBuf> {
    match config {
        RecogniserConfig::Trained(_) => Vec::new(),
        RecogniserConfig::Onnx(config) => Some(config.path.clone()).filter(|path| path.is_file()).into_iter().collect(),
        RecogniserConfig::Clip(config) => of_model(&config.path),
    }
}

/// The files of a model in a folder, by name; nothing where there is no folder, which is said when it is opened.
fn of_model(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.is_file() && extension.is_some_and(|extension| OF_MODELS.contains(&extension))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(read).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_what_a_command_line_names_are_outside_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["clip", "sd/safety_checker", "sd/feature_extractor"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let written = [
            "clip/config.json",
            "clip/model.safetensors",
            "clip/pytorch_model.bin",
            "sd/model_index.json",
            "sd/safety_checker/config.json",
            "sd/feature_extractor/preprocessor_config.json",
            "judge.py",
            "colour.onnx",
        ];
        written.iter().for_each(|name| std::fs::write(at(name), name).unwrap());
        let files = |gate: serde_json::Value| -> Vec<String> {
            let gate: GateConfig = serde_json::from_value(gate).unwrap();
            let name = |path: PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
            gate.outside_files().into_iter().map(name).collect()
        };
        let onnx = serde_json::json!({"type": "onnx", "path": at("colour.onnx"), "attribute": "colour",
            "classes": ["red", "blue"], "input": {"width": 8, "height": 8}, "output": "logits"});
        let clip = serde_json::json!({"type": "clip", "path": at("clip"), "prompts": {"colour": "a {value} thing"}});
        let recognised = files(serde_json::json!({"type": "attributes", "recognisers": [onnx, clip]}));
        assert_eq!(recognised, ["colour.onnx", "clip/config.json", "clip/model.safetensors"]);
        let checked = ["sd/safety_checker/config.json", "sd/feature_extractor/preprocessor_config.json"];
        assert_eq!(files(serde_json::json!({"type": "safety", "model": at("sd")})), checked);
        assert_eq!(files(serde_json::json!({"type": "safety", "model": at("sd/safety_checker")})), checked);
        let run = ["python3".into(), at("judge.py"), "--strict".into(), at("nowhere.json")];
        assert_eq!(files(serde_json::json!({"type": "command", "run": run})), ["judge.py"]);
        let script = format!("python3 '{}' --rules={}", at("judge.py").display(), at("colour.onnx").display());
        let run = ["sh", "-c", &script];
        assert_eq!(files(serde_json::json!({"type": "command", "run": run})), ["colour.onnx", "judge.py"]);
        assert!(files(serde_json::json!({"type": "novelty"})).is_empty());
    }
}
