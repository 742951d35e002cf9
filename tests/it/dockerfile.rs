//! The Dockerfile copies every input of the build. Checked without Docker.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testing::root;

/// Paths that the Dockerfile copies from the checkout, relative to it.
fn copied() -> Vec<PathBuf> {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    copies
        .filter(|copy| !copy.starts_with("--from="))
        .flat_map(|copy| {
            let mut paths: Vec<&str> = copy.split_whitespace().collect();
            let destination = paths.pop().unwrap();
            assert!(destination == "./" || paths == [destination], "COPY {copy}: cargo finds nothing elsewhere");
            paths
        })
        .map(PathBuf::from)
        .collect()
}

/// The directories of the workspace's packages, relative to the checkout. Cargo reads all their manifests for any
/// build.
fn packages() -> Vec<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version=1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let manifests = packages.map(|package| Path::new(package["manifest_path"].as_str().unwrap()));
    manifests.map(|path| path.parent().unwrap().strip_prefix(root()).unwrap().to_path_buf()).collect()
}

/// Every file below a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Files that a source includes, relative to the checkout. Those that unit tests include are not part of the build.
fn included(source: &Path) -> Vec<PathBuf> {
    if source.extension().is_none_or(|extension| extension != "rs") || source.ends_with("tests.rs") {
        return Vec::new();
    }
    let text = fs::read_to_string(source).unwrap();
    let (built, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
    let includes = ["include_str!(\"", "include_bytes!(\""].into_iter().flat_map(|start| built.split(start).skip(1));
    includes
        .filter_map(|rest| rest.split_once("\")"))
        .filter(|(path, _)| !path.contains('\n'))
        .map(|(path, _)| without_dots(&source.parent().unwrap().join(path)).strip_prefix(root()).unwrap().to_path_buf())
        .collect()
}

fn without_dots(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut found, component| {
        if component == Component::ParentDir {
            found.pop();
        } else {
            found.push(component);
        }
        found
    })
}

#[test]
fn the_dockerfile_copies_every_input_of_the_build() {
    let copied = copied();
    let mut inputs = ["Cargo.lock", "rust-toolchain.toml"].map(PathBuf::from).to_vec();
    for optional in ["build.rs", ".cargo/config.toml"].map(PathBuf::from) {
        if root().join(&optional).exists() {
            inputs.push(optional);
        }
    }
    for package in packages() {
        let mut sources = Vec::new();
        files(&root().join(&package).join("src"), &mut sources);
        assert!(!sources.is_empty(), "{package:?} has no source");
        inputs.extend(sources.iter().flat_map(|source| included(source)));
        inputs.extend([package.join("Cargo.toml"), package.join("src")]);
    }
    inputs.retain(|input| !copied.iter().any(|path| input.starts_with(path)));
    assert!(inputs.is_empty(), "the Dockerfile does not copy {inputs:?}");
    let absent: Vec<&PathBuf> = copied.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(absent.is_empty(), "the Dockerfile copies {absent:?}, which do not exist");
}
