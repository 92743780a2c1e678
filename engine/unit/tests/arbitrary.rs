//! Whatever a file holds, reading it ends with units or with findings: no panic, no hang, no overflow of the stack.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use keel_unit::diagnostic::Drawing;
use keel_unit::{Input, KindName, lower};
use proptest::prelude::*;

/// Lowers, and draws what was found: a span outside of its file would show here.
fn check(unit: &str, config: &str) {
    let mut input = Input::default();
    input.unit("units/a.toml", unit.to_owned());
    input.config("config.toml", config.to_owned());
    if let Err(report) = lower(input) {
        assert!(!report.diagnostics.is_empty());
        for d in &report.diagnostics {
            for label in std::iter::once(&d.label).chain(&d.others) {
                let text = report.sources.text(label.span.file);
                assert!(
                    label.span.start <= label.span.end && label.span.end as usize <= text.len(),
                    "{d:?}"
                );
            }
        }
        report.draw(Drawing::Ascii);
    }
}

/// Every shipped unit file and config.
fn shipped() -> Vec<String> {
    fn walk(folder: &Path, texts: &mut Vec<String>) {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            match path.is_dir() {
                true => walk(&path, texts),
                false => texts.push(std::fs::read_to_string(path).unwrap()),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = Vec::new();
    walk(&root.join("units"), &mut texts);
    walk(&root.join("machine-configs"), &mut texts);
    texts
}

/// Values that a person or a broken template might write anywhere.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|i| i.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        "[a-z0-9/=:.,{} -]{0,12}".prop_map(|s| format!("{s:?}")),
        Just("\"{{ machine.hostname }}\"".to_owned()),
        Just("\"{{ storage.data.disk }}\"".to_owned()),
        Just("\"{{ network.interfaces | map(attribute='name') | list }}\"".to_owned()),
        Just("\"{{ range(100000000) | list }}\"".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("[[\"a\"], { unit = \"b\", await = \"ready\" }]".to_owned()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        Just("nan".to_owned()),
    ]
}

fn unit_key() -> impl Strategy<Value = String> {
    let known: Vec<String> = KindName::ALL
        .iter()
        .flat_map(|k| k.keys())
        .map(|k| k.name.to_owned())
        .chain(
            ["requires", "after", "before", "wants", "part-of", "for-each", "condition", "failure"]
                .map(str::to_owned),
        )
        .collect();
    prop_oneof![9 => prop::sample::select(known), 1 => "[a-z-]{1,9}"]
}

fn unit() -> impl Strategy<Value = String> {
    let entries = || prop::collection::btree_map(unit_key(), value(), 0..6);
    let kinds: Vec<&str> = KindName::ALL.iter().map(|k| k.as_str()).collect();
    (entries(), prop::sample::select(kinds), entries()).prop_map(|(top, kind, inner)| {
        let lines = |m: std::collections::BTreeMap<String, String>| -> String {
            m.into_iter().map(|(k, v)| format!("{k} = {v}\n")).collect()
        };
        format!("{}[{kind}]\n{}", lines(top), lines(inner))
    })
}

proptest! {
    #[test]
    fn any_text(unit in "\\PC{0,200}", config in "\\PC{0,200}") {
        check(&unit, &config);
    }

    #[test]
    fn any_keys_with_any_values(unit in unit()) {
        check(&unit, "schema = 1\n");
    }

    #[test]
    fn a_shipped_file_with_a_slip(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(vec!["", "\"", "[", "]", "{{", "}}", "=", "\n", "\0", "é", "#", "9"]),
        gone in 0usize..4,
    ) {
        let texts = shipped();
        let text = which.get(&texts);
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let end = (at + gone).min(chars.len());
        let slipped: String = chars[..at].iter().chain(with.chars().collect::<Vec<_>>().iter()).chain(&chars[end..]).collect();
        check(&slipped, "schema = 1\n");
        check("[target]\n", &slipped);
    }
}

#[test]
fn references_that_grow_are_cut_off() {
    let mut config = String::from(
        "schema = 1\n[machine]\nhostname = \"x\"\n[cluster]\nnode-name = \"{{ machine.hostname }}\"\n[kernel.sysctls]\n",
    );
    // Each doubles the one before: 2^40 characters, if anybody let it.
    config.push_str("a0 = \"{{ machine.hostname }}\"\n");
    for i in 1..40 {
        config.push_str(&format!(
            "a{i} = \"{{{{ kernel.sysctls.a{} }}}}{{{{ kernel.sysctls.a{} }}}}\"\n",
            i - 1,
            i - 1
        ));
    }
    let mut input = Input::default();
    input.config("config.toml", config);
    let report = lower(input).unwrap_err().to_string();
    assert!(
        report.contains("longer than 1 MiB") || report.contains("chain of more than"),
        "{report}"
    );
}
