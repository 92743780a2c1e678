//! Every way in which a folder may look, by a table: what is made, what is kept, what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::*;

const ID: &str = "0f3a5c7e91b24d4e8a6b0123456789ab\n";

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("machine-id"), ID).unwrap();
    folder
}

fn make(folder: &TempDir) -> Result<Identity, String> {
    let names =
        Names { hostname: Some("node-1".to_owned()), addresses: vec![[10, 0, 2, 15].into()] };
    Identity::locate_or_make(folder.path(), &names).map_err(|error| error.to_string())
}

/// Every file of a folder: name, mode, text.
fn contents(folder: &TempDir) -> Vec<(String, u32, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode, fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_first_run_makes_it_and_later_runs_change_nothing() {
    let folder = folder();
    let made = make(&folder).unwrap();
    let before = contents(&folder);
    let names: Vec<_> = before.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
    assert_eq!(
        names,
        [
            ("machine-id", 0o644),
            ("node.crt", 0o644),
            ("node.fingerprint", 0o644),
            ("node.key", 0o600)
        ],
        "and no draft is left"
    );
    assert_eq!(make(&folder).unwrap().fingerprint, made.fingerprint);
    assert_eq!(Identity::load(folder.path()).unwrap().fingerprint, made.fingerprint);
    assert_eq!(contents(&folder), before);
    assert_eq!(
        fs::read_to_string(folder.path().join("node.fingerprint")).unwrap(),
        made.fingerprint + "\n"
    );
}

#[test]
fn two_nodes_are_two_identities() {
    assert_ne!(make(&folder()).unwrap().fingerprint, make(&folder()).unwrap().fingerprint);
}

#[test]
fn the_certificate_says_what_it_should() {
    let identity = make(&folder()).unwrap();
    let der = identity.certified.end_entity_cert().unwrap();
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=node-1");
    assert_eq!(certificate.validity().not_before.to_string(), "Jan  1 00:00:00 1970 +00:00");
    assert_eq!(certificate.validity().not_after.to_string(), "Dec 31 23:59:59 9999 +00:00");
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let names =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
    assert_eq!(
        *names.unwrap(),
        [
            GeneralName::URI("urn:uuid:0f3a5c7e-91b2-4d4e-8a6b-0123456789ab"),
            GeneralName::DNSName("localhost"),
            GeneralName::DNSName("node-1"),
            GeneralName::IPAddress(&[10, 0, 2, 15]),
        ]
    );
    certificate.verify_signature(None).unwrap();
}

#[test]
fn a_run_that_lost_power_is_carried_on_with() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("node.key.new"), "half a k").unwrap();
    let first = make(&folder).unwrap().fingerprint;
    let key = fs::read(path("node.key")).unwrap();

    fs::remove_file(path("node.fingerprint")).unwrap();
    assert_eq!(make(&folder).unwrap().fingerprint, first, "the certificate was there");
    assert_eq!(fs::read_to_string(path("node.fingerprint")).unwrap().trim(), first);

    fs::remove_file(path("node.fingerprint")).unwrap();
    fs::remove_file(path("node.crt")).unwrap();
    make(&folder).unwrap();
    assert_eq!(fs::read(path("node.key")).unwrap(), key, "the key was there");
}

/// Makes an identity, spoils the folder, and expects an error that names both files and contains `expect`, with nothing
/// changed by it.
fn check(spoil: impl Fn(&Path), expect: &str) {
    let folder = folder();
    make(&folder).unwrap();
    spoil(folder.path());
    let before = contents(&folder);
    let error = make(&folder).unwrap_err();
    assert!(error.contains(expect), "{error} does not contain {expect}");
    for file in ["node.key", "node.crt"] {
        assert!(
            error.contains(&*folder.path().join(file).to_string_lossy()),
            "{error} does not name {file}"
        );
    }
    assert_eq!(contents(&folder), before, "{expect}");
}

#[test]
fn nothing_is_ever_made_again() {
    let remove =
        |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    let write = |name: &'static str, text: &'static str| {
        move |folder: &Path| fs::write(folder.join(name), text).unwrap()
    };
    check(remove("node.key"), "the key is missing although the certificate is there");
    check(remove("node.crt"), "the certificate is missing although the fingerprint is there");
    check(write("node.key", ""), "the key is not PEM");
    check(write("node.crt", "garbage"), "the certificate is not PEM");
    check(write("node.fingerprint", "00\n"), "says 00");
    check(
        |folder| {
            for name in ["node.key", "node.crt"] {
                fs::remove_file(folder.join(name)).unwrap();
            }
        },
        "the key is missing although the fingerprint is there",
    );
    check(
        |folder| {
            fs::set_permissions(folder.join("node.key"), fs::Permissions::from_mode(0o640)).unwrap()
        },
        "the key's mode is 640",
    );
    check(
        |folder| {
            let other = self::folder();
            make(&other).unwrap();
            fs::copy(other.path().join("node.key"), folder.join("node.key")).unwrap();
        },
        "the key and the certificate do not belong together: the key is ",
    );
}

#[test]
fn no_machine_id_no_identity() {
    let folder = TempDir::new().unwrap();
    assert!(make(&folder).unwrap_err().contains("machine-id holds no machine id"));
    fs::write(folder.path().join("machine-id"), "not an id").unwrap();
    assert!(make(&folder).unwrap_err().contains("machine-id holds no machine id"));
    assert_eq!(contents(&folder).len(), 1, "nothing was made");
    let load = || Identity::load(folder.path()).unwrap_err().to_string();
    assert!(load().ends_with("there is none yet"));
    fs::write(folder.path().join("node.fingerprint"), "00\n").unwrap();
    assert!(load().contains("the key is missing although the fingerprint is there"));
}
