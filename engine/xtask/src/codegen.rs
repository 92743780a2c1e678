//! `cargo xtask codegen`: writes what is generated, or with `--check` proves that what is checked in is current.
//!
//! protox compiles the proto files, so nobody needs protoc; the result is checked in, so nobody needs this to build. The
//! reference of unit files and machine configs comes from the tables that their decoder is made from, and the picture of the boot from
//! the units.

mod numbers;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::picture::pictures;
use crate::reference;

/// What to do with generated files.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a generated file differs from what would be written
    #[arg(long)]
    check: bool,
}

/// Generated files that could not be made, or are not current.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodegenError {
    /// A folder or file could not be read or written.
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A proto file is wrong.
    #[error("cannot compile the proto files")]
    Proto(#[source] protox::Error),
    /// The shipped units have no graph.
    #[error("cannot draw the shipped boot")]
    Graph(#[source] keel_plan::PlanError),
    /// A number of the API would mean something else than before.
    #[error("a number of the API is never used again; reserve it, and take the next: {}", .0.join("; "))]
    Numbers(Vec<String>),
    /// Checked-in files differ.
    #[error("not current, run `cargo xtask codegen`: {}", .0.join(", "))]
    Stale(Vec<String>),
}

const PROTO_IN: &str = "proto";
/// Folders that belong wholly to what is generated: a file in one of them that nothing generates is stale.
const PROTO_OUT: &str = "proto/src/gen";
const NUMBERS: &str = "numbers.lock";
const REFERENCE_OUT: &str = "docs/reference";
const PICTURES_OUT: &str = "docs/pictures";
const SCHEMA_OUT: &str = "docs/schema";

/// Writes or checks every generated file of the workspace at `root`.
pub(crate) fn run(root: &Path, args: Args) -> Result<(), CodegenError> {
    let compiled = compile(&root.join(PROTO_IN))?;
    let folders = [
        (root.join(PROTO_OUT), grpc(&compiled)?),
        (root.join(REFERENCE_OUT), reference::pages()),
        (root.join(PICTURES_OUT), pictures(root).map_err(CodegenError::Graph)?),
        (root.join(SCHEMA_OUT), reference::schemas()),
    ];
    let mut all_stale = Vec::new();
    for (folder, wanted) in &folders {
        let stale = differences(folder, wanted)?;
        if !args.check {
            write(folder, wanted, &stale)?;
        }
        all_stale.extend(stale);
    }
    let path = root.join(PROTO_IN).join(NUMBERS);
    let before = match fs::read_to_string(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(io_error(&path))?,
    };
    let numbers =
        numbers::list(&compiled.file_descriptor_set(), &before).map_err(CodegenError::Numbers)?;
    if numbers != before {
        if !args.check {
            fs::write(&path, numbers).map_err(io_error(&path))?;
        }
        all_stale.push(NUMBERS.to_owned());
    }
    if args.check && !all_stale.is_empty() {
        return Err(CodegenError::Stale(all_stale));
    }
    Ok(())
}

/// Every proto file below `protos`.
fn compile(protos: &Path) -> Result<protox::Compiler, CodegenError> {
    let mut compiler = protox::Compiler::new([protos]).map_err(CodegenError::Proto)?;
    compiler.include_source_info(true).include_imports(true);
    for file in proto_files(protos)? {
        compiler.open_file(file).map_err(CodegenError::Proto)?;
    }
    Ok(compiler)
}

/// The Rust code of the proto files: file name -> text.
fn grpc(compiler: &protox::Compiler) -> Result<BTreeMap<String, String>, CodegenError> {
    let scratch = tempfile::tempdir().map_err(io_error(Path::new("a temporary folder")))?;
    tonic_prost_build::configure()
        // Without this the client gets a `connect` that would speak in the clear.
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(scratch.path())
        .compile_fds(compiler.file_descriptor_set())
        .map_err(io_error(scratch.path()))?;
    let mut files = read_all(scratch.path())?;
    for text in files.values_mut() {
        text.insert_str(0, "//! The messages and services of a package of proto files. They are what to read and to change.\n");
    }
    let set = compiler.encode_file_descriptor_set();
    files.insert("descriptor.rs".to_owned(), descriptor(&set));
    Ok(files)
}

/// The compiled proto files as Rust code, for whoever asks a node what it can be asked.
fn descriptor(set: &[u8]) -> String {
    let mut text = "//! The proto files as a node hands them out to whoever asks what it can be asked.\n// @generated\n/// The compiled proto files: a google.protobuf.FileDescriptorSet.\npub const FILE_DESCRIPTOR_SET: &[u8] = b\"".to_owned();
    text.extend(set.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from));
    text.push_str("\";\n");
    text
}

/// Every proto file below a folder, in the order of their paths.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, CodegenError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
            let path = entry.map_err(io_error(&folder))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_all(folder: &Path) -> Result<BTreeMap<String, String>, CodegenError> {
    let entries = match fs::read_dir(folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(io_error(folder))?,
    };
    entries
        .map(|entry| {
            let path = entry.map_err(io_error(folder))?.path();
            let text = fs::read_to_string(&path).map_err(io_error(&path))?;
            Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text))
        })
        .collect()
}

/// The names of files that are missing, other than wanted, or not wanted at all.
fn differences(
    folder: &Path,
    wanted: &BTreeMap<String, String>,
) -> Result<Vec<String>, CodegenError> {
    let found = read_all(folder)?;
    let names = wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name)));
    Ok(names.filter(|name| wanted.get(*name) != found.get(*name)).cloned().collect())
}

fn write(
    folder: &Path,
    wanted: &BTreeMap<String, String>,
    stale: &[String],
) -> Result<(), CodegenError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    for name in stale {
        let path = folder.join(name);
        match wanted.get(name) {
            Some(text) => fs::write(&path, text),
            None => fs::remove_file(&path),
        }
        .map_err(io_error(&path))?;
    }
    Ok(())
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> CodegenError {
    let path = path.to_owned();
    move |source| CodegenError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = r#"
        syntax = "proto3";
        package keel.v1;
        // Says hello.
        message Hello { string name = 1; }
    "#;

    fn check(root: &Path) -> Result<(), String> {
        run(root, Args { check: true }).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_checked_in_is_compared_with_what_would_be_written() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        let proto = root.join("proto/keel/v1/hello.proto");
        fs::create_dir_all(proto.parent().unwrap()).unwrap();
        fs::write(&proto, PROTO).unwrap();
        let stale = Err("not current, run `cargo xtask codegen`: keel.v1.rs".to_owned());
        assert_eq!(
            check(root),
            Err("not current, run `cargo xtask codegen`: descriptor.rs, keel.v1.rs, findings.md, machine-config.md, units.md, inventory.json, machine-config.json, unit.json, numbers.lock"
                .to_owned()),
            "nothing is generated yet"
        );

        run(root, Args { check: false }).unwrap();
        assert_eq!(check(root), Ok(()));

        let generated = root.join(PROTO_OUT).join("keel.v1.rs");
        let text = fs::read_to_string(&generated).unwrap();
        assert!(text.starts_with("//! ") && text.contains("/// Says hello.\n"), "{text}");
        fs::write(&generated, "edited by hand").unwrap();
        assert_eq!(check(root), stale);

        run(root, Args { check: false }).unwrap();
        fs::write(&proto, PROTO.replace("name = 1;", "name = 1; string word = 2;")).unwrap();
        assert_eq!(
            check(root),
            Err("not current, run `cargo xtask codegen`: descriptor.rs, keel.v1.rs, numbers.lock"
                .to_owned()),
            "the proto file has changed since"
        );
        fs::write(&proto, PROTO.replace("name", "word")).unwrap();
        assert_eq!(
            check(root),
            Err("a number of the API is never used again; reserve it, and take the next: \
                 keel.v1.Hello: 1 was `name string` and may not become `word string`"
                .to_owned())
        );

        fs::write(&proto, PROTO).unwrap();
        fs::write(root.join(PROTO_OUT).join("keel.v0.rs"), "").unwrap();
        assert_eq!(
            check(root),
            Err("not current, run `cargo xtask codegen`: keel.v0.rs".to_owned())
        );
        run(root, Args { check: false }).unwrap();
        assert_eq!(check(root), Ok(()), "what nothing generates is removed");
    }

    #[test]
    fn a_wrong_proto_file_is_an_error() {
        let tree = tempfile::tempdir().unwrap();
        let folder = tree.path().join("proto");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.proto"), "syntax = \"proto3\"; message A { Missing b = 1; }")
            .unwrap();
        assert!(matches!(run(tree.path(), Args { check: false }), Err(CodegenError::Proto(_))));
    }
}
