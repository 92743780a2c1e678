//! What the files may say, and what follows, by a table over one machine's life.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

/// A revocation list of X.509's first version: `openssl ca -gencrl` makes one where nobody asks for extensions.
const FIRST_VERSION: &str = "-----BEGIN X509 CRL-----
MIG/MGcwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHY2x1c3RlchcNMjYxMTI0MTQy
NzU0WhcNMzYxMTIxMTQyNzU0WjAnMCUCFBSCb4nkk5B9UcYQ8gayzZJegDfeFw0y
NjExMjQxNDA4MzZaMAoGCCqGSM49BAMCA0gAMEUCIQCQNGBDR92GTkeM/sD0sX4q
knnZnaOaYLcLmCyxW470QQIgDt6kjCLYT/7X8G8dm2qDWOb7RRw/B0JETs/4GAqt
xxI=
-----END X509 CRL-----";

/// A CA's certificate in PEM.
fn ca(name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A certificate in PEM that is no CA's.
fn leaf() -> String {
    CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

struct Machine {
    folder: TempDir,
    trust: Trust,
}

impl Machine {
    fn start(with_config: bool, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in files {
            fs::write(path(name), text).unwrap();
        }
        let places = Places {
            config: with_config.then(|| Source::File(path("config.crt"))),
            config_crl: None,
            cluster: path("cluster.crt"),
            cluster_crl: path("cluster.crl"),
        };
        let trust = Trust::load(places);
        Self { folder, trust }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How the door stands once the file says that, or is gone.
    fn after(&mut self, name: &str, text: Option<&str>) -> String {
        match text {
            Some(text) => fs::write(self.path(name), text).unwrap(),
            None => fs::remove_file(self.path(name)).unwrap(),
        }
        self.trust.reload();
        self.door()
    }

    /// `open`, `shut`, or the CAs by their subjects; `!` stands for each problem.
    fn door(&self) -> String {
        let state = self.trust.subscribe().borrow().clone();
        let door = match &state.door {
            Door::Open => "open".to_owned(),
            Door::Shut(_) => "shut".to_owned(),
            Door::Guarded(guard) => {
                let names = guard.authorities().iter().map(|ca| ca.subject.as_str());
                names.map(|name| name.split(',').next().unwrap()).collect::<Vec<_>>().join(" ")
            }
        };
        door + &"!".repeat(state.problems.len())
    }
}

#[test]
fn how_a_machine_starts() {
    let (one, two, leaf) = (ca("one"), ca("two"), leaf());
    let check = |with_config, files: &[(&str, &str)], expect: &str| {
        assert_eq!(Machine::start(with_config, files).door(), expect, "{with_config} {files:?}");
    };
    check(false, &[], "open");
    check(false, &[("cluster.crt", &one)], "CN=one");
    check(false, &[("cluster.crt", &format!("{one}{two}{one}"))], "CN=one CN=two");
    check(false, &[("cluster.crt", "")], "shut!");
    check(false, &[("cluster.crt", "garbage")], "shut!");
    check(false, &[("cluster.crt", &one[..one.len() / 2])], "shut!");
    check(false, &[("cluster.crt", &leaf)], "shut!");
    check(false, &[("cluster.crt", &format!("{one}{leaf}"))], "shut!");
    check(true, &[], "shut!");
    check(true, &[("config.crt", "")], "shut!");
    check(true, &[("config.crt", &one)], "CN=one");
    check(true, &[("config.crt", &one), ("cluster.crt", &two)], "CN=one CN=two");
    check(true, &[("cluster.crt", &two)], "CN=two!");
    check(false, &[("cluster.crt", &one), ("cluster.crl", "garbage")], "shut!");
    check(false, &[("cluster.crl", "garbage")], "shut!");
    // A list of X.509's first version, which webpki does not take.
    check(false, &[("cluster.crt", &one), ("cluster.crl", FIRST_VERSION)], "shut!");
}

#[test]
fn nothing_that_happens_later_opens_it() {
    let (one, two) = (ca("one"), ca("two"));
    let mut machine = Machine::start(false, &[]);
    assert_eq!(machine.door(), "open");
    let mut seen = machine.trust.subscribe();
    machine.trust.reload();
    assert!(!seen.has_changed().unwrap(), "nothing is published where nothing has changed");
    assert_eq!(machine.after("cluster.crt", Some(&one)), "CN=one");
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    assert_eq!(machine.after("cluster.crt", Some("half a ")), "CN=one!");
    assert_eq!(machine.after("cluster.crt", None), "CN=one!");
    assert_eq!(machine.after("cluster.crt", Some(&format!("{one}{two}"))), "CN=one CN=two");
    assert_eq!(machine.after("cluster.crt", Some(&two)), "CN=two");
    assert_eq!(machine.after("cluster.crl", Some("garbage")), "CN=two!");
    assert_eq!(machine.after("cluster.crl", Some(FIRST_VERSION)), "CN=two!");
    assert_eq!(machine.after("cluster.crl", None), "CN=two");

    let mut machine = Machine::start(false, &[("cluster.crt", &one), ("cluster.crl", "garbage")]);
    assert_eq!(machine.after("cluster.crl", None), "CN=one", "somebody has looked at it");
    let mut machine = Machine::start(false, &[("cluster.crt", "garbage")]);
    assert_eq!(machine.after("cluster.crt", None), "shut!");
    assert_eq!(machine.after("cluster.crt", Some(&one)), "CN=one");
}

#[test]
fn the_machine_config_can_hold_it_all() {
    let check = |text: &str, expect: &str| {
        let nowhere = PathBuf::from("/nonexistent/ca.crt");
        let config = Some(Source::Text(text.to_owned()));
        let (cluster, cluster_crl) = (nowhere.clone(), nowhere);
        let trust = Trust::load(Places { config, config_crl: None, cluster, cluster_crl });
        assert_eq!(Machine { folder: TempDir::new().unwrap(), trust }.door(), expect, "{text}");
    };
    check(&format!("{}\n\n{}", ca("one"), ca("two")), "CN=one CN=two");
    check("", "shut!");
    check("garbage", "shut!");
}

#[test]
fn what_is_wrong_is_said() {
    let machine = Machine::start(false, &[("cluster.crt", &leaf())]);
    let state = machine.trust.subscribe().borrow().clone();
    let problem = &state.problems[0];
    assert!(problem.contains("certificate 1 of "), "{problem}");
    assert!(problem.contains("its basicConstraints do not say that it is one"), "{problem}");
    let Door::Shut(why) = &state.door else { panic!("{state:?}") };
    assert_eq!(why, problem);
}
