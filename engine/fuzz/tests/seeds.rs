//! Every target over its seeds, and over mutations of them: what `cargo xtask fuzz` begins with, on any toolchain.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

use keel_fuzz::TARGETS;

/// Mutations of each seed.
const MUTATIONS: usize = 50;

/// A seed with its file.
type Seed = (PathBuf, Vec<u8>);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn seeds(target: &str) -> Vec<Seed> {
    let manifest = fs::read_to_string(root().join("engine/fuzz/Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let folders = manifest["package"]["metadata"]["seeds"][target].as_array().unwrap();
    let mut folders: Vec<_> =
        folders.iter().map(|folder| root().join(folder.as_str().unwrap())).collect();
    let mut seeds = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            let what = fs::symlink_metadata(&path).unwrap();
            if what.is_dir() {
                folders.push(path);
            } else if what.is_file() {
                let seed = fs::read(&path).unwrap();
                seeds.push((path, seed));
            }
        }
    }
    seeds.sort();
    seeds
}

/// One change of the kinds that fuzzers make: a bit, a byte, a cut, a piece twice.
fn mutate(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let Some(last) = bytes.len().checked_sub(1) else { return bytes.push(rng.u8(..)) };
    let at = rng.usize(..=last);
    match rng.u8(..5) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.u8(..)),
        _ => {
            let piece = bytes[at..(at + rng.usize(1..16)).min(last + 1)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

#[test]
fn no_seed_and_no_mutation_of_one_shows_a_fault() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (n, (path, seed)) in seeds.iter().enumerate() {
            target(seed);
            let mut rng = fastrand::Rng::with_seed(n as u64);
            for _ in 0..MUTATIONS {
                let mut bytes = seed.clone();
                for _ in 0..rng.usize(1..4) {
                    mutate(&mut bytes, &mut rng);
                }
                // Shown only if the target panics.
                eprintln!("{name}: {}: {}", path.display(), bytes.escape_ascii());
                target(&bytes);
            }
        }
    }
}

#[test]
fn every_target_has_a_binary() {
    let files = fs::read_dir(root().join("engine/fuzz/targets")).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, names);
}
