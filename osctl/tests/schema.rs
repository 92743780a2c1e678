//! The schemas for editors say what `validate` says, as far as one file alone can be judged. Where they do not, it stands here with the reason.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use keel_plan::{BOOT, PlanError, compile};
use keel_unit::json_schema;
use keel_unit::load::{Files, load_all};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn validator(schema: &serde_json::Value) -> Validator {
    jsonschema::validator_for(schema).unwrap()
}

struct Schemas {
    config: Validator,
    unit: Validator,
}

impl Schemas {
    fn new() -> Self {
        Schemas {
            config: validator(&json_schema::machine_config()),
            unit: validator(&json_schema::unit()),
        }
    }
}

/// What a schema finds in a file; nothing at all for what is no TOML.
fn verdict(schema: &Validator, path: &Path) -> Option<Vec<String>> {
    let text = String::from_utf8(fs::read(path).unwrap()).ok()?;
    let value: serde_json::Value = toml::from_str(&text).ok()?;
    Some(schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect())
}

/// Every TOML file below a folder, as paths from the top of the tree.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The codes of what `validate` finds in each file.
fn validate(units: &str, config: Option<&str>) -> BTreeMap<String, BTreeSet<&'static str>> {
    let configs: Vec<PathBuf> = config.iter().map(|path| root().join(path)).collect();
    let mut input =
        load_all(Files { units: Some(&root().join(units)), configs: &configs, secrets: None });
    input.secrets_elsewhere = true;
    let report = match compile(input, BOOT) {
        Ok(_) => return BTreeMap::new(),
        Err(PlanError::Invalid(report)) => report,
        Err(other) => panic!("{units}: {other}"),
    };
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for finding in &report.diagnostics {
        let file = report.sources.name(finding.label.span.file).to_string();
        let file = Path::new(&file).strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        found.entry(file).or_default().insert(finding.code);
    }
    found
}

/// What one file says by itself. All other rules are about several files, or about what references stand for.
const OF_ONE_FILE: &[&str] = &[
    "bad-value",
    "missing-key",
    "missing-kind",
    "misplaced-key",
    "out-of-range",
    "two-kinds",
    "unknown-key",
    "unknown-kind",
    "unknown-value",
    "wrong-type",
];

/// Files that `validate` refuses for themselves, and the schema does not.
const BEYOND_A_SCHEMA: &[(&str, &str)] = &[
    (
        "testdata/configs/err/cluster-two-ways.toml",
        "ways to join a cluster exclude each other: two keys together",
    ),
    ("testdata/configs/err/drop-in-kind.toml", "the kind of a unit stands in its own file"),
    (
        "testdata/configs/err/empty-selector.toml",
        "a reference may leave keys unset, so none can be asked for",
    ),
    ("testdata/units/err/no-time/a.toml", "0s is a duration; only as a deadline it is none"),
    (
        "testdata/units/err/secret/beside.toml",
        "the mode of a file that is a secret: two keys together",
    ),
    (
        "testdata/units/err/slips-of-meaning/delay.toml",
        "one delay above the other: two keys together",
    ),
    (
        "testdata/units/err/slips-of-meaning/existing.toml",
        "`existing` excludes other keys: two keys together",
    ),
    (
        "testdata/units/err/slips-of-meaning/limit.toml",
        "0s is a duration; only as an interval it is none",
    ),
    (
        "testdata/units/err/slips-of-meaning/retry.toml",
        "a key without `on = \"retry\"`: two keys together",
    ),
    (
        "testdata/units/err/template-of-no-list/a.toml",
        "what `for-each` names stands in the machine config",
    ),
    (
        "testdata/units/err/template-of-no-list/b.toml",
        "what `for-each` names stands in the machine config",
    ),
    (
        "testdata/units/err/template-of-no-list/c.toml",
        "what `for-each` names stands in the machine config",
    ),
];

#[test]
fn the_schemas_are_schemas() {
    for schema in [json_schema::machine_config(), json_schema::unit()] {
        jsonschema::meta::validate(&schema).unwrap();
    }
}

#[test]
fn everything_that_ships_and_is_right_fits() {
    let schemas = Schemas::new();
    let units = ["units", "testdata/units/ok"].into_iter().flat_map(files);
    let new = files("osctl/src/commands/config/new").into_iter();
    let configs = ["machine-configs", "testdata/configs/ok"].into_iter().flat_map(files).chain(new);
    let mut count = 0;
    let all = units.map(|f| (&schemas.unit, f)).chain(configs.map(|f| (&schemas.config, f)));
    for (schema, file) in all {
        count += 1;
        assert_eq!(verdict(schema, &root().join(&file)), Some(Vec::new()), "{file}");
    }
    assert!(count > 40, "{count}");
}

#[test]
fn what_is_wrong_is_wrong_for_both() {
    let schemas = Schemas::new();
    let mut cases = Vec::new();
    for entry in fs::read_dir(root().join("testdata/units/err")).unwrap() {
        let tree = format!("testdata/units/err/{}", entry.unwrap().file_name().to_str().unwrap());
        let found = validate(&tree, None);
        for file in files(&tree) {
            let codes = found.get(&file).cloned().unwrap_or_default();
            cases.push((&schemas.unit, file, codes));
        }
    }
    for file in files("testdata/configs/err") {
        let mut found = validate("units", Some(&file));
        let codes = found.remove(&file).unwrap_or_default();
        cases.push((&schemas.config, file, codes));
    }
    let mut beyond = BTreeSet::new();
    let mut wrong = Vec::new();
    for (schema, file, codes) in cases {
        let Some(errors) = verdict(schema, &root().join(&file)) else { continue };
        let by_validate = codes.iter().any(|code| OF_ONE_FILE.contains(code));
        match (by_validate, errors.is_empty()) {
            (true, true) => drop(beyond.insert((file, codes))),
            (false, false) => {
                wrong.push(format!("{file}: only the schema finds {errors:?}, validate {codes:?}"))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let expected: BTreeSet<_> =
        BEYOND_A_SCHEMA.iter().map(|(file, _)| (*file).to_owned()).collect();
    let found: BTreeSet<_> = beyond.iter().map(|(file, _)| file.clone()).collect();
    assert_eq!(found, expected, "{beyond:#?}");
}

/// What only a config of several files, or a drop-in, may say.
#[test]
fn patches_and_references_fit() {
    let schemas = Schemas::new();
    let check = |schema: &Validator, text: &str, fits: bool| {
        let value: serde_json::Value = toml::from_str(text).unwrap();
        assert_eq!(schema.is_valid(&value), fits, "{text}");
    };
    let config = |text: &str, fits| check(&schemas.config, &format!("schema = 1\n{text}"), fits);
    config("kernel.modules = { append = [\"x\"] }", true);
    config("kernel.modules = { append = [\"../x\"] }", false);
    config("kernel.modules = { prepend = [\"x\"] }", false);
    config("[[network.interfaces.append]]\nname = \"x\"", true);
    config("[[network.interfaces.append]]\nnaem = \"x\"", false);
    config("units.x.service.exec = { append = [\"--v=2\"] }", true);
    config("units.x.service.timeout = \"30\"", false);
    config("units.x.servise = {}", false);
    config("machine.hostname = \"{{ cluster.node-name }}\"", true);
    config("machine.hostname = \"{{ x }}-1\"", true);
    config("machine.hostname = \"Node\"", false);
    config("network.interfaces = \"{{ x }}\"", false);
    config("secrets.token = \"{{\"", true);
    config("secrets.token = 1", false);
    let unit = |text: &str, fits| check(&schemas.unit, text, fits);
    unit("[mount]\ntarget = \"/x\"\noptions = \"{{ a.b }}\"", true);
    unit("[mount]\ntarget = \"/x\"\noptions = { append = [] }", false);
    unit("[link]\ndhcp = \"{{ item.dhcp }}\"", true);
    unit("[link]\ndhcp = \"yes\"", false);
    unit("after = { unit = \"x\", await = \"ready\" }\n[target]", true);
    unit("after = [\"x\", { unit = \"x\", await = \"redy\" }]\n[target]", false);
    unit("[target]\n[mount]\ntarget = \"/x\"", false);
    unit("after = \"x\"", false);
}

#[test]
fn every_file_that_ships_names_its_schema() {
    let of = [("units", json_schema::unit()), ("machine-configs", json_schema::machine_config())];
    for (folder, schema) in of {
        for file in files(folder) {
            let path = root().join(&file);
            let text = fs::read_to_string(&path).unwrap();
            let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
            let named = named.unwrap_or_else(|| panic!("{file} names none"));
            let found = fs::read_to_string(path.parent().unwrap().join(named)).unwrap();
            assert_eq!(found, format!("{schema:#}\n"), "{file}");
        }
    }
}

/// The schema of inventories and their reader agree, on what a person writes and on what osctl prints.
#[test]
fn the_schema_of_inventories_says_what_their_reader_says() {
    let schema = validator(&keel_image::Inventory::json_schema());
    let check = |text: &str, good: bool| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let read = keel_image::Inventory::parse(text);
        let found: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!((read.is_ok(), found.is_empty()), (good, good), "{text}\n{read:?}\n{found:?}");
    };
    let printed = |arguments: &[&str]| {
        let osctl =
            std::process::Command::new(env!("CARGO_BIN_EXE_osctl")).args(arguments).output();
        String::from_utf8(osctl.unwrap().stdout).unwrap()
    };
    check(&printed(&["inventory", "--example"]), true);
    let page = fs::read_to_string(root().join("docs/inventory.md")).unwrap();
    let blocks: Vec<_> = page.split("```json\n").skip(1).collect();
    assert!(blocks.len() > 1, "the page shows a whole inventory, and a disk with an image");
    check(blocks[0].split("```").next().unwrap(), true);

    let with = |rest: &str| format!(r#"{{"schema": 1{rest}}}"#);
    let disk = |rest: &str| with(&format!(r#", "disks": [{{"path": "/dev/a", "size": 1{rest}}}]"#));
    let link = |rest: &str| with(&format!(r#", "links": [{{"name": "e"{rest}}}]"#));
    check(&with(""), true);
    check(&with(r#", "$schema": "inventory.json""#), true);
    check(&with(r#", "machine": {"memory": "4GiB", "cpus": 2, "kernel": null}"#), true);
    check(&link(r#", "mac": "52:54:00:12:34:56", "carrier": false, "port": true"#), true);
    check(
        &link(r#", "drivers": [{"name": "e1000", "modalias": "pci:x", "built-in": true}]"#),
        true,
    );
    check(&disk(r#", "by-id": ["x"], "bus": "nvme", "content": [], "read-only": true"#), true);
    check(&disk(r#", "image": {"room": "9GiB", "content": ["x"], "unfit": "full"}"#), true);
    let guid = "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441";
    check(
        &disk(&format!(r#", "partitions": [{{"number": 1, "type": "{guid}", "size": 4}}]"#)),
        true,
    );

    check("{}", false);
    check(r#"{"schema": 2}"#, false);
    check(r#"{"schema": "1"}"#, false);
    check(&with(r#", "disk": []"#), false);
    check(&with(r#", "left-out": -1"#), false);
    check(&with(r#", "machine": {"memory": "4GB"}"#), false);
    check(&with(r#", "machine": {"memory": -1}"#), false);
    check(&with(r#", "links": [{"mac": "52:54:00:12:34:56"}]"#), false);
    check(&link(r#", "mac": "52:54""#), false);
    check(&disk(r#", "bus": "pci""#), false);
    check(&disk(r#", "content": "XFS""#), false);
    check(&disk(r#", "partitions": [{"label": "x"}]"#), false);
    check(&disk(r#", "partitions": [{"number": 1, "type": "x"}]"#), false);
    check(&disk(r#", "image": true"#), false);
    check(&with(r#", "disks": [{"path": "/dev/a"}]"#), false);
}
