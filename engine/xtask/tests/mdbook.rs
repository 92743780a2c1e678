//! The book is one: mdBook makes it from docs/, and in what it makes every link, picture and anchor is there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use mdbook_driver::MDBook;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").canonicalize().unwrap()
}

/// Builds a book into a folder and gives its pages by their paths in it.
fn build(source: &Path, folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut book = MDBook::load(source).unwrap();
    book.config.build.build_dir = folder.to_owned();
    // The index for searching is mdBook's own affair, and takes longer to make than the book.
    book.config.set("output.html.search.enable", false).unwrap();
    book.build().unwrap();
    let mut pages = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(open) = folders.pop() {
        for entry in fs::read_dir(open).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "html") {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                pages.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    pages
}

/// The values of an attribute in a page.
fn values<'a>(page: &'a str, attribute: &str) -> impl Iterator<Item = &'a str> {
    let start = format!(" {attribute}=\"");
    let found: Vec<_> = page.match_indices(&start).map(|(at, _)| at + start.len()).collect();
    found.into_iter().filter_map(|at| page[at..].split_once('"').map(|(value, _)| value))
}

/// A relative path from a page, without `..`.
fn beside(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    path
}

/// What leads nowhere in a book that was built.
fn dead(folder: &Path, pages: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<&str>> =
        pages.iter().map(|(name, page)| (&**name, values(page, "id").collect())).collect();
    let mut dead = Vec::new();
    for (name, page) in pages {
        for target in values(page, "href").chain(values(page, "src")) {
            if target.contains(':') || target.starts_with('/') {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { name.clone() } else { beside(name, file) };
            let there = folder.join(&to).exists();
            let known = anchors.get(&*to).is_none_or(|known| known.contains(anchor));
            if !there || !anchor.is_empty() && !known {
                dead.push(format!("{}: {target}", name.display()));
            }
        }
    }
    dead
}

#[test]
fn the_book_builds_and_leads_nowhere_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let pages = build(&docs(), folder.path());
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    for (page, _) in summary.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
        let page = Path::new(page).with_extension("html");
        assert!(pages.contains_key(&page), "the book has no {}", page.display());
    }
    // All of a page is in the book: mdBook draws no Mermaid, and would show its source.
    for (name, page) in &pages {
        assert!(!page.contains("language-mermaid"), "{} holds a drawing", name.display());
    }
    assert_eq!(dead(folder.path(), &pages), [""; 0]);
}

#[test]
fn a_link_to_nothing_is_found() {
    let source = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(source.path().join(name), text).unwrap();
    write("book.toml", "[book]\ntitle = \"t\"\nsrc = \".\"\n");
    write("SUMMARY.md", "- [One](one.md)\n- [Two](two.md)\n");
    write("one.md", "# One\n\n[two](two.md#there) [no](no.md) ![no](no.svg)\n");
    write("two.md", "# Two\n\n## There\n\n[one](one.md#nowhere)\n");
    let folder = tempfile::tempdir().unwrap();
    let pages = build(source.path(), folder.path());
    let dead: BTreeSet<_> = dead(folder.path(), &pages)
        .into_iter()
        .filter(|dead| !dead.starts_with("print.html") && !dead.starts_with("index.html"))
        .collect();
    assert_eq!(
        dead,
        BTreeSet::from(
            ["one.html: no.html", "one.html: no.svg", "two.html: one.html#nowhere"]
                .map(str::to_owned)
        )
    );
}
