//! What the book shows is true: every TOML block in it is a unit or a machine config that the shipped units plan with, and one that
//! shows a shipped unit shows it as it is.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use keel_unit::lower::Input;
use keel_unit::{UnitSet, lower};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages that people write; the reference is made from the code.
fn pages() -> Vec<PathBuf> {
    let docs = root().join("docs");
    let pages = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<_> =
        pages.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// A TOML block: the path in its first line, and what follows.
#[derive(Debug)]
struct Block {
    path: String,
    text: String,
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let mut found = Vec::new();
    for block in text.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("\n```").unwrap();
        let (first, rest) = block.split_once('\n').unwrap();
        let path = first.strip_prefix("# ").filter(|path| path.ends_with(".toml"));
        let path = path.unwrap_or_else(|| panic!("{}: `{first}` names no file", page.display()));
        found.push(Block { path: path.to_owned(), text: format!("{rest}\n") });
    }
    found
}

fn shipped() -> Input {
    keel_unit::load::load(&root().join("units"), None)
}

fn plans(page: &Path, input: Input) -> UnitSet {
    let page = page.display();
    let set = lower(input).unwrap_or_else(|report| panic!("{page}: {report}"));
    let graph = keel_plan::resolve(set.clone()).unwrap_or_else(|report| panic!("{page}: {report}"));
    keel_plan::plan(&graph, keel_plan::BOOT).unwrap_or_else(|error| panic!("{page}: {error:?}"));
    set
}

#[test]
fn every_unit_that_is_shown_works() {
    let mut shown = 0;
    for page in pages() {
        let mut input = shipped();
        for block in blocks(&page).iter().filter(|block| block.path != "config.toml") {
            if block.path == "payload.toml" {
                let read = keel_unit::payload::read(&block.path, &block.text);
                read.unwrap_or_else(|report| panic!("{}: {report}", page.display()));
                continue;
            }
            shown += 1;
            match fs::read_to_string(root().join(&block.path)) {
                Ok(text) => {
                    // The first line is for editors alone.
                    let schema =
                        text.split_once('\n').filter(|(line, _)| line.starts_with("#:schema "));
                    let text = schema.map_or(text.as_str(), |(_, rest)| rest);
                    assert_eq!(text, block.text, "{}: {} is another", page.display(), block.path)
                }
                Err(_) => input.unit(&block.path, block.text.as_str()),
            }
        }
        plans(&page, input);
    }
    assert!(shown > 0, "the book shows no unit any more");
}

#[test]
fn every_machine_config_that_is_shown_works() {
    let mut shown = 0;
    for page in pages() {
        for block in blocks(&page).iter().filter(|block| block.path == "config.toml") {
            shown += 1;
            let mut input = shipped();
            input.config(&format!("{} {}", page.display(), block.path), block.text.as_str());
            // What stands in a file of its own is shown by its name alone.
            let named =
                block.text.split("{{ secrets.").skip(1).filter_map(|rest| rest.split_once(' '));
            let secrets: String =
                named.map(|(name, _)| format!("{name} = \"abcdef.0123456789abcdef\"\n")).collect();
            input.secrets("secrets.toml", secrets);
            plans(&page, input);
        }
    }
    assert!(shown > 0, "the book shows no machine config any more");
}

#[test]
fn every_kind_has_an_example() {
    let text = fs::read_to_string(root().join("docs/units.md")).unwrap();
    for kind in keel_unit::KindName::ALL {
        assert!(text.contains(&format!("\n[{kind}]\n")), "docs/units.md shows no [{kind}]");
    }
}

#[test]
fn every_link_inside_the_book_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to)
        {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {target} leads nowhere", page.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&path).unwrap();
                let mut anchors =
                    headings.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(
                    anchors.any(|it| it == anchor),
                    "{}: {target} leads nowhere",
                    page.display()
                );
            }
        }
    }
}

/// The anchor of a heading, as mdBook and the forges make it.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn the_boot_is_told_whole() {
    let text = fs::read_to_string(root().join("docs/boot.md")).unwrap();
    for unit in plans(Path::new("units"), shipped()).units {
        let told = match &unit.template {
            Some(template) => text.contains(&format!("`{template}@")),
            None => text.contains(&format!("`{}`", unit.name)),
        };
        assert!(told, "docs/boot.md does not mention {}", unit.name);
    }
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for folder in ["", "reference/"] {
        for entry in fs::read_dir(root().join("docs").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") && name != "SUMMARY.md" {
                let found = summary.matches(&format!("]({folder}{name})")).count();
                assert_eq!(found, 1, "docs/SUMMARY.md names {folder}{name} {found} times");
            }
        }
    }
}
