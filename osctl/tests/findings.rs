//! `osctl validate --format`: what other programs are told of findings, by the real binary.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn validate(arguments: &[&str]) -> Output {
    let mut osctl = Command::new(env!("CARGO_BIN_EXE_osctl"));
    osctl.arg("validate").args(arguments).current_dir(root()).output().unwrap()
}

/// What is printed on stdout, with this exit code and nothing on stderr.
fn check(arguments: &[&str], code: i32) -> String {
    let output = validate(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(code), ""), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The arguments that name every bad tree of units and every bad config.
fn bad_inputs() -> Vec<[String; 2]> {
    let mut inputs = Vec::new();
    for (option, folder) in
        [("--units", "testdata/units/err"), ("--config", "testdata/configs/err")]
    {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            inputs.push([option.to_owned(), format!("{folder}/{name}")]);
        }
    }
    assert!(inputs.len() > 30);
    inputs
}

fn sarif_schema() -> jsonschema::Validator {
    let text = fs::read_to_string(root().join("testdata/schema/sarif-2.1.0.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    // OASIS published these patterns with a stray bracket; the log has no language.
    for of in ["run", "toolComponent"] {
        let language = &mut schema["definitions"][of]["properties"]["language"];
        language.as_object_mut().unwrap().remove("pattern");
    }
    jsonschema::validator_for(&schema).unwrap()
}

fn conforms(schema: &jsonschema::Validator, log: &Value) {
    let errors: Vec<_> =
        schema.iter_errors(log).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn sarif_conforms_to_its_schema_and_to_json() {
    let schema = sarif_schema();
    for [option, input] in bad_inputs() {
        let log: Value =
            serde_json::from_str(&check(&[&option, &input, "--format", "sarif"], 1)).unwrap();
        conforms(&schema, &log);
        let json: Value =
            serde_json::from_str(&check(&[&option, &input, "--format", "json"], 1)).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        let findings = json["findings"].as_array().unwrap();
        assert_eq!(results.len(), findings.len(), "{input}");
        let rules = log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
        for (result, finding) in results.iter().zip(findings) {
            assert_eq!(result["ruleId"], finding["code"]);
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"], "{input}");
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["region"]["startLine"], finding["line"]);
            assert_eq!(place["region"]["startColumn"], finding["column"]);
        }
    }
}

#[test]
fn a_valid_machine_has_no_results() {
    let log: Value = serde_json::from_str(&check(&["--format", "sarif"], 0)).unwrap();
    conforms(&sarif_schema(), &log);
    assert_eq!(log["runs"][0]["results"], Value::Array(vec![]));
    assert!(check(&["--format", "github"], 0).starts_with("valid: "));
}

#[test]
fn the_schema_itself_refuses_what_is_wrong() {
    let mut log: Value = serde_json::from_str(&check(&["--format", "sarif"], 0)).unwrap();
    log["runs"][0]["results"] = serde_json::json!([{ "ruleId": "cycle" }]);
    assert!(!sarif_schema().is_valid(&log), "a result needs a message");
}

#[test]
fn a_result_of_each_format() {
    let cycle = |format| check(&["--units", "testdata/units/err/cycle", "--format", format], 1);
    let log: Value = serde_json::from_str(&cycle("sarif")).unwrap();
    let results = serde_json::to_string_pretty(&log["runs"][0]["results"]).unwrap();
    insta::assert_snapshot!("sarif-results", results);
    insta::assert_snapshot!("github", cycle("github"));
}

/// The properties and the message of an annotation, as GitHub's runner takes it apart.
fn parsed(line: &str) -> (Vec<(String, String)>, String) {
    let (properties, message) = line.strip_prefix("::error ").unwrap().split_once("::").unwrap();
    let plain = |text: &str| {
        let text = text.replace("%0D", "\r").replace("%0A", "\n");
        text.replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
    };
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap();
        (key.to_owned(), plain(value))
    };
    (properties.split(',').map(pair).collect(), plain(message))
}

#[test]
fn there_is_one_annotation_a_finding() {
    for [option, input] in bad_inputs() {
        let annotations = check(&[&option, &input, "--format", "github"], 1);
        let json: Value =
            serde_json::from_str(&check(&[&option, &input, "--output", "json"], 1)).unwrap();
        let findings = json["findings"].as_array().unwrap();
        assert_eq!(annotations.lines().count(), findings.len(), "{input}");
        for (line, finding) in annotations.lines().zip(findings) {
            let (properties, message) = parsed(line);
            let get = |key| properties.iter().find(|(name, _)| name == key).map(|(_, v)| v);
            assert_eq!(get("file").unwrap(), finding["file"].as_str().unwrap());
            assert_eq!(get("line").unwrap(), &finding["line"].to_string());
            assert_eq!(get("title").unwrap(), finding["code"].as_str().unwrap());
            let first = finding["message"].as_str().unwrap().lines().next().unwrap();
            assert!(message.starts_with(first), "{message}");
        }
    }
}

#[test]
fn names_that_mean_something_to_the_runner_are_only_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a,b 100%:c.toml");
    fs::write(&file, "after = \"nobody\"\n[target]\n").unwrap();
    fs::write(folder.path().join("boot.toml"), "[target]\n").unwrap();
    let units = folder.path().to_str().unwrap();
    let annotations = check(&["--units", units, "--format", "github"], 1);
    let (properties, _) = parsed(annotations.lines().next().unwrap());
    assert_eq!(properties[0], ("file".to_owned(), file.to_str().unwrap().to_owned()));
    let log: Value =
        serde_json::from_str(&check(&["--units", units, "--format", "sarif"], 1)).unwrap();
    conforms(&sarif_schema(), &log);
    let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("file:///") && uri.ends_with("/a%2Cb%20100%25%3Ac.toml"), "{uri}");
}

#[test]
fn files_are_named_from_the_folder_that_osctl_runs_in() {
    let units = root().join("testdata/units/err/cycle");
    let annotations = check(&["--units", units.to_str().unwrap(), "--format", "github"], 1);
    assert!(annotations.starts_with("::error file=testdata/units/err/cycle/"), "{annotations}");
}

#[test]
fn no_format_shows_a_secret() {
    for input in ["testdata/configs/err/secret.toml", "testdata/configs/err/secret-syntax.toml"] {
        for format in ["human", "sarif", "github", "json"] {
            let printed = check(&["--config", input, "--format", format], 1);
            assert!(!printed.contains("hunter2"), "{format}: {printed}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_no_finding_in_any_format() {
    for format in ["human", "sarif", "github", "json"] {
        let output = validate(&["--config", "no-such.toml", "--format", format]);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{format}");
    }
}
