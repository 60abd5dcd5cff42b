//! The hub's local cache.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use evenset_diffusion::stable_diffusion::ModelSource;
use evenset_diffusion::stable_diffusion::hub::{self, HubCache, HubId};
use evenset_nn::models::Variant;

use crate::{copy, copy_into, model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with the model `own.er/tiny_sd`; the folder of its files.
fn cached(root: &Path) -> PathBuf {
    let repository = root.join("models--own.er--tiny_sd");
    let snapshot = repository.join("snapshots").join(COMMIT);
    copy_into(&model("sd1"), &snapshot);
    fs::create_dir_all(repository.join("refs/pr")).unwrap();
    for name in ["main", "pr/1"] {
        fs::write(repository.join("refs").join(name), COMMIT).unwrap();
    }
    snapshot
}

fn open(root: &Path, name: &str) -> Result<PathBuf, String> {
    let opened = hub::open(name, Some(&HubCache::at(root)), Variant::Whole);
    opened.map(|folder| folder.path().to_owned()).map_err(|error| error.to_string())
}

#[test]
fn a_model_is_found_by_its_branch_its_pull_request_and_its_commit() {
    let root = tempfile::tempdir().unwrap();
    let snapshot = cached(root.path());
    for name in ["own.er/tiny_sd", "own.er/tiny_sd@main", "own.er/tiny_sd@pr/1", &format!("own.er/tiny_sd@{COMMIT}")] {
        assert_eq!(open(root.path(), name).unwrap(), snapshot, "{name}");
    }
}

#[test]
fn a_model_that_is_not_there_says_how_to_fetch_it() {
    let root = tempfile::tempdir().unwrap();
    let snapshot = cached(root.path());
    for name in ["own.er/other", "own.er/tiny_sd@fp16", &format!("own.er/tiny_sd@{}", "a".repeat(40))] {
        let error = open(root.path(), name).unwrap_err();
        assert!(error.contains("hf download own.er/") && error.contains("--revision"), "{error}");
        assert!(error.contains(&root.path().display().to_string()), "{error}");
    }
    fs::remove_file(snapshot.join("unet/config.json")).unwrap();
    let error = open(root.path(), "own.er/tiny_sd").unwrap_err();
    assert!(error.contains("lacks unet/config.json") && error.contains("hf download"), "{error}");
    fs::write(root.path().join("models--own.er--tiny_sd/refs/main"), "../../../etc").unwrap();
    let error = open(root.path(), "own.er/tiny_sd").unwrap_err();
    assert!(error.contains("no commit"), "{error}");
    for name in ["nowhere", "a/b/c", "../x", "a/..", "a/b@../c", "a--b/c"] {
        assert!(open(root.path(), name).unwrap_err().contains("no hub id"), "{name}");
    }
}

#[test]
fn a_local_folder_goes_before_the_cache() {
    let (root, local) = (tempfile::tempdir().unwrap(), copy("sd1"));
    assert_eq!(open(root.path(), local.path().to_str().unwrap()).unwrap(), local.path());
}

#[cfg(unix)]
#[test]
fn links_are_followed_inside_the_cache_and_not_out_of_it() {
    use std::os::unix::fs::symlink;
    let (root, outside) = (tempfile::tempdir().unwrap(), copy("sd1"));
    let snapshot = cached(root.path());
    let blobs = root.path().join("models--own.er--tiny_sd/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let file = snapshot.join("unet/config.json");
    fs::rename(&file, blobs.join("1234")).unwrap();
    symlink("../../../blobs/1234", &file).unwrap();
    assert!(open(root.path(), "own.er/tiny_sd").is_ok());
    // The cache itself may be a link.
    let link = outside.path().join("cache");
    symlink(root.path(), &link).unwrap();
    assert!(open(&link, "own.er/tiny_sd").is_ok());
    for name in
        ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "model_index.json", "tokenizer/vocab.json"]
    {
        let file = snapshot.join(name);
        let kept = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(outside.path().join(name), &file).unwrap();
        let error = open(root.path(), "own.er/tiny_sd").unwrap_err();
        assert!(error.contains("outside the cache"), "{name}: {error}");
        fs::remove_file(&file).unwrap();
        fs::write(&file, kept).unwrap();
    }
    fs::remove_dir_all(snapshot.join("vae")).unwrap();
    symlink(outside.path().join("vae"), snapshot.join("vae")).unwrap();
    assert!(open(root.path(), "own.er/tiny_sd").unwrap_err().contains("outside the cache"));
}

#[test]
fn the_cache_lies_where_the_hubs_own_package_keeps_it() {
    let at = |variables: &[(&str, &str)]| {
        let cache = HubCache::from_environment(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        });
        cache.map(|cache| cache.root().display().to_string().replace('\\', "/"))
    };
    let home = ("HOME", "/h");
    assert_eq!(at(&[]), None);
    assert_eq!(at(&[home]).unwrap(), "/h/.cache/huggingface/hub");
    assert_eq!(at(&[home, ("XDG_CACHE_HOME", "/x")]).unwrap(), "/x/huggingface/hub");
    assert_eq!(at(&[home, ("HF_HOME", "/f")]).unwrap(), "/f/hub");
    assert_eq!(at(&[home, ("HF_HOME", "")]).unwrap(), "/h/.cache/huggingface/hub");
    assert_eq!(at(&[home, ("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")]).unwrap(), "/o");
    assert_eq!(at(&[home, ("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]).unwrap(), "/c");
}

#[test]
fn an_id_has_an_owner_a_name_and_a_revision() {
    let id = HubId::parse("stabilityai/sdxl-turbo").unwrap();
    assert_eq!((id.id().as_str(), id.revision()), ("stabilityai/sdxl-turbo", "main"));
    assert_eq!(HubId::parse("a/b@refs/pr/3").unwrap().revision(), "refs/pr/3");
    let too_long = format!("a/{}", "b".repeat(95));
    for text in ["", "a", "a/", "/b", "a/b/c", "a/b@", "a/b@/x", "a/b@x//y", "a/b c", "a/é", "./b", "a/.b", &too_long]
    {
        assert_eq!(HubId::parse(text), None, "{text}");
    }
}
