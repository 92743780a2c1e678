//! What differs between two graphs: told key by key, nothing of it a secret, and nothing exactly if the digests are equal.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use keel_plan::diff::{Diff, markdown, text};
use keel_plan::export::Export;
use keel_plan::{BOOT, compile};
use keel_unit::Input;
use proptest::prelude::*;

/// Units as `name: body`, separated by lines of `---`; `boot` is there.
fn graph(units: &str) -> Export {
    let mut input = Input::default();
    input.unit("units/boot.toml", "[target]\n");
    for unit in units.split("---\n").filter(|unit| !unit.trim().is_empty()) {
        let (path, body) = unit.trim_start().split_once('\n').unwrap();
        input.unit(&format!("units/{}", path.trim()), body.to_owned());
    }
    let (graph, transaction) = compile(input, BOOT).unwrap_or_else(|error| panic!("{error:?}"));
    Export::new(&graph, &transaction)
}

const OLD: &str = "a.toml\npart-of = \"boot\"\nduration = \"1s\"\n[oneshot]\nexec = [\"/bin/a\"]\ntimeout = \"10s\"\n---\n\
    b.toml\npart-of = \"boot\"\nafter = \"a\"\nduration = \"2s\"\n[oneshot]\nexec = [\"/bin/b\"]\ntimeout = \"10s\"\n---\n\
    gone.toml\ndescription = \"Was | <here> @me\"\npart-of = \"boot\"\n[file]\npath = \"/gone\"\ncontent = \"x\"\ntimeout = \"1s\"\n---\n\
    conf.toml\npart-of = \"boot\"\n[file]\npath = \"/conf\"\ncontent = '''\none\ntwo\nthree\nfour\n'''\ntimeout = \"1s\"\n---\n\
    token.toml\npart-of = \"boot\"\n[file]\npath = \"/token\"\nsecret = true\ncontent = \"hunter2\"\ntimeout = \"1s\"\n";

const NEW: &str = "a.toml\npart-of = \"boot\"\nduration = \"4s\"\n[oneshot]\nexec = [\"/bin/a\"]\ntimeout = \"20s\"\n---\n\
    b.toml\npart-of = \"boot\"\nafter = { unit = \"a\", await = \"exited\" }\nrequires = \"c\"\nduration = \"2s\"\n[oneshot]\nexec = [\"/bin/b\", \"--a-long-argument\", \"--and-another\", \"--and-more\"]\ntimeout = \"10s\"\n---\n\
    c.toml\ndescription = \"New\"\n[oneshot]\nexec = [\"/bin/c\"]\ntimeout = \"10s\"\n---\n\
    conf.toml\npart-of = \"boot\"\n[file]\npath = \"/conf\"\ncontent = '''\none\ntwo\n3\nfour\n'''\ntimeout = \"1s\"\n---\n\
    token.toml\npart-of = \"boot\"\n[file]\npath = \"/token\"\nsecret = true\ncontent = \"hunter3\"\ntimeout = \"1s\"\n";

#[test]
fn a_change_in_words() {
    let diff = Diff::new(&graph(OLD), &graph(NEW));
    let hide = |page: String| {
        let page = page.replace(&diff.old.digest[..19], "sha256:old");
        page.replace(&diff.new.digest[..19], "sha256:new")
    };
    let pages = [text(&diff), markdown(&diff), serde_json::to_string_pretty(&diff).unwrap()];
    for page in &pages {
        assert!(!page.contains("hunter"), "{page}");
        assert!(page.contains("<secret sha256:"), "{page}");
    }
    let [text, markdown, _] = pages;
    insta::with_settings!({filters => vec![("(sha256:(?:old|new))[0-9a-f]+", "$1")]}, {
        insta::assert_snapshot!("change-text", hide(text));
        insta::assert_snapshot!("change-markdown", hide(markdown));
    });
}

#[test]
fn the_way_back_is_the_change_turned_round() {
    let (old, new) = (graph(OLD), graph(NEW));
    let (there, back) = (Diff::new(&old, &new), Diff::new(&new, &old));
    assert_eq!((&there.added, &there.removed), (&back.removed, &back.added));
    assert_eq!(
        (&there.edges_added, &there.edges_removed),
        (&back.edges_removed, &back.edges_added)
    );
    assert_eq!(there.longer(), -back.longer());
    assert_eq!(there.longer(), 3_000);
}

#[test]
fn an_export_is_read_as_it_was_written() {
    let graph = graph(OLD);
    let json = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Export>(&json).unwrap(), graph);
    assert!(Diff::new(&serde_json::from_str(&json).unwrap(), &graph).is_empty());
    // What an older version knew nothing of is missing, and no reason to refuse.
    let bare = r#"{"digest": "", "goal": "boot", "units": [{"name": "a", "kind": "mount", "stage": null}],
        "edges": [{"from": "a", "to": "b", "kind": "after", "await": "ready"}]}"#;
    let bare: Export = serde_json::from_str(bare).unwrap();
    let diff = Diff::new(&bare, &graph);
    assert!(
        text(&diff).contains("without its times") && markdown(&diff).contains("without its times")
    );
}

#[test]
fn what_an_exported_graph_says_is_neither_obeyed_nor_markup() {
    let mut old = graph(OLD);
    old.units[0].name = "\u{1b}[31m`x` <b> | @team".to_owned();
    old.edges[0].why = "\u{202e}<script>".to_owned();
    old.edges[0].from = "\u{1b}".to_owned();
    let diff = Diff::new(&old, &graph(OLD));
    for page in [text(&diff), markdown(&diff)] {
        assert!(!page.contains(['\u{1b}', '\u{202e}']), "{page}");
    }
    let markdown = markdown(&diff);
    assert!(!markdown.contains("<script") && !markdown.contains("`x`"), "{markdown}");
}

/// A few units out of few words, so that two draws are often nearly the same.
fn units() -> impl Strategy<Value = String> {
    let unit = (
        prop::sample::select(vec![
            "",
            "wants = \"u0\"\n",
            "requires = \"u0\"\n",
            "after = \"u0\"\n",
        ]),
        prop::sample::select(vec!["", "duration = \"1s\"\n", "description = \"x\"\n"]),
        prop::sample::select(vec!["1s", "2s"]),
        prop::sample::select(vec!["one", "two"]),
        any::<bool>(),
    );
    prop::collection::vec(unit, 1..4).prop_map(|units| {
        let texts = units.iter().enumerate().map(|(at, (edge, more, timeout, content, secret))| {
            let edge = if at == 0 { "" } else { edge };
            format!(
                "u{at}.toml\npart-of = \"boot\"\n{edge}{more}[file]\npath = \"/{at}\"\nsecret = {secret}\ncontent = \"{content}\"\ntimeout = \"{timeout}\"\n"
            )
        });
        // References go by the name that a file has.
        texts.collect::<Vec<_>>().join("---\n").replace("\"u0\"", "\"file.u0\"")
    })
}

proptest! {
    #[test]
    fn graphs_differ_exactly_if_their_digests_do(old in units(), new in units()) {
        let (old, new) = (graph(&old), graph(&new));
        let diff = Diff::new(&old, &new);
        prop_assert_eq!(diff.is_empty(), old.digest == new.digest, "{}", text(&diff));
        if diff.is_empty() {
            prop_assert!(diff.shifted.is_empty() && diff.longer() == 0);
        }
    }
}
