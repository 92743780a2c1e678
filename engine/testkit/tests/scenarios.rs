//! Every file in testdata/scenarios, run on the fake host.

use std::fs;

use keel_testkit::scenario::{Scenario, root};

#[test]
fn every_scenario_ends_as_it_says() {
    let folder = root().join("testdata/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut wrong = String::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let scenario = Scenario::parse(&fs::read_to_string(&file).unwrap());
        let scenario = scenario.unwrap_or_else(|error| panic!("{name}: {error}"));
        for line in scenario.check() {
            wrong += &format!("{name} ({}): {line}\n", scenario.description);
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
