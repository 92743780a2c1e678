//! What a machine keeps secret is told to nobody, however it is asked.

use super::*;

/// The openssl program, in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let openssl = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let openssl = openssl.expect("openssl");
    assert!(openssl.status.success(), "openssl {arguments}: {openssl:?}");
}

/// Every way in which bytes are likely to be written down: as they are, in hexadecimal digits, in base64 wherever they begin.
pub(super) fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3 {
        let bytes = [&vec![0; before][..], secret].concat();
        // The first characters and the last one are of other bytes too.
        let first = (before * 8).div_ceil(6);
        for base64 in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            all.push(base64.as_bytes()[first..base64.len() - 1].to_vec());
        }
    }
    all
}

/// Secrets, and everything that must not tell them.
pub(super) struct Watch(pub(super) Vec<(&'static str, Vec<Vec<u8>>)>);

impl Watch {
    #[track_caller]
    pub(super) fn look(&self, place: &str, bytes: &[u8]) {
        for (secret, spellings) in &self.0 {
            let found = spellings
                .iter()
                .find(|text| bytes.windows(text.len()).any(|window| window == text.as_slice()));
            assert!(found.is_none(), "{place} tells {secret}: {}", bytes.escape_ascii());
        }
    }

    /// Every file below a folder.
    pub(super) fn look_into(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => self.look_into(&path),
                false => self.look(&path.to_string_lossy(), &fs::read(&path).expect("a file")),
            }
        }
    }
}

#[test]
fn a_watch_sees_a_secret_however_it_is_written() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let secret = b"correct-horse-\xff\xfe-battery";
    let sees = |text: &[u8]| {
        spellings(secret).iter().any(|s| text.windows(s.len()).any(|window| window == s.as_slice()))
    };
    for before in ["", "a", "ab", "abc"] {
        let whole = [before.as_bytes(), secret, b"and more"].concat();
        assert!(sees(&whole) && sees(STANDARD.encode(&whole).as_bytes()), "{before}");
    }
    assert!(
        !sees(b"correct-horse") && !sees(&STANDARD.encode("correct-horse-battery").into_bytes())
    );
}

/// Whatever a secret may stand in, and a program that has one and fails.
pub(super) const SECRETIVE: [(&str, &str); 5] = [
    (
        "file.whole.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/whole\"\ncontent = \"{{ secrets.whole }}\"\ntimeout = \"5s\"\n",
    ),
    (
        "file.inside.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/inside\"\ncontent = \"token={{ secrets.inside }}.\"\ntimeout = \"5s\"\n",
    ),
    (
        "file.literal.toml",
        "part-of = \"boot\"\n[file]\npath = \"{dir}/literal\"\nsecret = true\ncontent = \"in-the-unit-itself-5d1c\"\ntimeout = \"5s\"\n",
    ),
    (
        "runs.toml",
        "part-of = \"boot\"\n[service]\nexec = [\"/bin/sleep\", \"1000\"]\ntimeout = \"20s\"\n\
         [service.environment]\nTOKEN = \"{{ secrets.service }}\"\n",
    ),
    (
        "fails.toml",
        "part-of = \"boot\"\n[oneshot]\nexec = [\"/bin/sh\", \"-c\", \"test -n \\\"$TOKEN\\\" && exit 3\"]\ntimeout = \"20s\"\n\
         [oneshot.environment]\nTOKEN = \"Bearer {{ secrets.oneshot }}\"\n",
    ),
];

/// The secret keys of a machine config, which exclude each other: the key and its text.
const CLUSTERS: [(&str, &str, &str); 2] = [
    (
        "token",
        "a2f9c1.7d03b5e86f124ca9",
        "api-server = \"https://203.0.113.10:6443\"\n\
         ca-hash = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n",
    ),
    ("kubeconfig", "clusters: [of-a-kubeconfig-b81e]", ""),
];

#[test]
fn a_client_in_python_calls_every_method_and_is_told_no_secret() {
    a_client_in_python("python", CLUSTERS[0]);
}

#[test]
fn no_client_is_told_the_kubeconfig() {
    a_client_in_python("kubeconfig", CLUSTERS[1]);
}

/// What people ask a node with osctl. No answer may tell a secret.
const ASKED: [&[&str]; 19] = [
    &["status"],
    &["units"],
    &["units", "show", "runs"],
    &["units", "show", "fails"],
    &["explain", "fails", "--node"],
    &["graph", "render", "--node"],
    &["events"],
    &["logs"],
    &["logs", "keel-agent"],
    &["dmesg", "--tail", "5"],
    &["inventory"],
    &["processes"],
    &["boot", "list"],
    &["boot", "show"],
    &["boot", "blame"],
    &["boot", "record"],
    &["config", "get"],
    &["history"],
    &["audit"],
];

/// A client that shares nothing with ours calls every method of the API, and each answers as its proto file says; osctl asks all that it
/// can. No byte of an answer, of the console or of what is kept of it tells a secret, whichever key of a config or field of a unit it was
/// planted in, nor the node's key.
fn a_client_in_python(name: &str, (joined, text, beside): (&'static str, &str, &str)) {
    let port = free_port();
    let makes_ca = "part-of = \"boot\"\nbefore = [\"keel-agent\"]\n[oneshot]\n\
                    exec = [\"/bin/sh\", \"-c\", \"until test -e {dir}/ca.crt; do sleep 0.02; done\"]\ntimeout = \"20s\"\n";
    let joins = format!(
        "part-of = \"boot\"\n[file]\npath = \"{{dir}}/joins\"\ncontent = \"with {{{{ cluster.{joined} }}}}\"\ntimeout = \"5s\"\n"
    );
    let planted = [
        ("whole", "the-whole-file-1f09"),
        ("inside", "inside-of-a-file-77ab"),
        ("service", "of-a-service-c0de"),
        ("oneshot", "of-a-oneshot-93e2"),
        ("dropped", "of-a-drop-in-e4a7"),
    ];
    let config: String =
        planted.iter().map(|(name, secret)| format!("{name} = \"{secret}\"\n")).collect();
    let (certificate, agent) = (certificate(), agent(port));
    let units = [
        BOOT,
        ("certificate.toml", certificate.as_str()),
        ("authority.toml", makes_ca),
        ("keel-agent.toml", agent.as_str()),
    ];
    let units = [&units[..], &SECRETIVE, &[("file.joins.toml", joins.as_str())]].concat();
    let config = format!(
        "schema = 1\n[secrets]\n{config}[cluster]\n{beside}{joined} = \"{text}\"\n\
         [units.runs.service.environment]\nDROPPED = \"Bearer {{{{ secrets.dropped }}}}\"\n"
    );
    let mut machine = Machine::boot_with(name, &config, &units);
    let folder = machine.directory.path().to_owned();
    let key = "ecparam -name prime256v1 -genkey -noout -out";
    openssl(&folder, &format!("{key} ca.key"));
    openssl(&folder, &format!("{key} ada.key"));
    openssl(&folder, "req -new -key ada.key -subj /O=keel:admin/CN=ada -out ada.csr");
    openssl(&folder, "req -x509 -new -key ca.key -subj /CN=cluster -days 2 -out ca.new");
    fs::write(folder.join("extensions"), "extendedKeyUsage = clientAuth\n").expect("a file");
    openssl(
        &folder,
        "x509 -req -in ada.csr -CA ca.new -CAkey ca.key -CAcreateserial -days 1 -extfile extensions -out ada.crt",
    );
    fs::rename(folder.join("ca.new"), folder.join("ca.crt")).expect("the CA in its place");
    let report = machine.report();
    let failed = serde_json::json!([{ "unit": "fails", "why": "exited with status 3" }]);
    assert_eq!(report["degraded"], failed, "{report}");
    assert_eq!(machine.read("inside"), "token=inside-of-a-file-77ab.");
    assert_eq!(machine.read("joins"), format!("with {text}"));

    let mut watch =
        Watch(planted.map(|(name, secret)| (name, spellings(secret.as_bytes()))).into());
    watch.0.push(("a bootstrap token", spellings(b"planted5token5ab")));
    watch.0.push(("literal", spellings(b"in-the-unit-itself-5d1c")));
    watch.0.push((joined, spellings(text.as_bytes())));
    watch.0.push(("the node's key", spellings(&private_key(&machine.read("identity/node.key")))));

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/python/bin/python3");
    assert!(python.exists(), "first: cargo xtask setup");
    let client = Command::new(python)
        .arg(root.join("testdata/python/client.py"))
        .arg(root.join("proto"))
        .arg(format!("127.0.0.1:{port}"))
        .arg(folder.join("identity/node.crt"))
        .arg("localhost")
        .args([folder.join("ada.crt"), folder.join("ada.key")])
        .output()
        .expect("python");
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    let text = String::from_utf8(client.stdout).expect("UTF-8");
    let calls: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let answer = |method: &str| {
        let found = calls.iter().find(|call| call["method"] == method);
        found.unwrap_or_else(|| panic!("{method} was not called: {text}"))
    };
    for call in &calls {
        // A machine without a data partition has nothing to wipe, and no config on trial; and one that is in a cluster joins no other.
        let expected = match call["method"].as_str() {
            Some("/keel.v1.Operation/Reset" | "/keel.v1.Config/Confirm") => "FAILED_PRECONDITION",
            Some("/keel.v1.Cluster/Bootstrap") if joined == "token" => "FAILED_PRECONDITION",
            _ => "OK",
        };
        assert_eq!(call["code"], expected, "{call}");
    }
    let protos = fs::read_dir(root.join("proto/keel/v1")).expect("the proto files");
    let declared: usize = protos
        .map(|file| fs::read_to_string(file.expect("a file").path()).expect("a proto file"))
        .map(|proto| proto.lines().filter(|line| line.trim_start().starts_with("rpc ")).count())
        .sum();
    assert_eq!(calls.len(), declared);
    let status = &answer("/keel.v1.Node/GetStatus")["answers"][0]["status"];
    assert_eq!(status["state"], "GOAL_STATE_DEGRADED");
    assert_eq!(status["mode"], "MODE_BOOTSTRAPPED");
    assert_eq!(status["digest"], report["digest"]);
    for call in &calls {
        for piece in call["wire"].as_array().expect("what came") {
            let digits = piece.as_str().expect("hexadecimal digits").as_bytes();
            let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).expect("digits"), 16);
            let bytes: Result<Vec<u8>, _> = digits.chunks(2).map(byte).collect();
            watch.look(call["method"].as_str().expect("a method"), &bytes.expect("digits"));
        }
    }
    let graph = answer("/keel.v1.Node/ExportGraph")["wire"].to_string();
    let in_place: String = "<secret sha256:".bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(graph.matches(&in_place).count() >= SECRETIVE.len(), "they are in the graph, by hash");
    let jobs = &answer("/keel.v1.Operation/ControlUnit")["answers"][0]["jobs"];
    assert!(jobs.is_array(), "stopping the goal stops something: {jobs}");
    let audit = &answer("/keel.v1.Journal/ReadAudit")["answers"];
    assert!(audit.to_string().contains("CN=ada"), "{audit}");
    for asked in ASKED {
        for form in ["table", "json"] {
            let mut osctl = Command::new(program(env!("CARGO_BIN_EXE_keel-init"), "osctl"));
            osctl.args(["--endpoint", &format!("127.0.0.1:{port}"), "--output", form]).args(asked);
            osctl.arg("--cert").arg(folder.join("ada.crt"));
            osctl.arg("--key").arg(folder.join("ada.key")).env("OSCTL_HOME", &folder);
            let out = osctl.output().expect("osctl");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(!out.stdout.is_empty(), "{asked:?} --output {form}: {said}");
            watch.look(&format!("osctl {asked:?} --output {form}"), &out.stdout);
            watch.look(&format!("osctl {asked:?}"), &out.stderr);
            if *asked == ["config", "get"] && form == "table" {
                // It is a config that can be edited and sent back.
                let shown = String::from_utf8_lossy(&out.stdout);
                let lines: Vec<_> = shown.lines().collect();
                assert!(lines.contains(&"whole = \"<secret>\""), "{shown}");
                assert!(lines.contains(&format!("{joined} = \"<secret>\"").as_str()), "{shown}");
            }
        }
    }
    machine.signal("TERM");
    assert_eq!(machine.end(), Some(SIGINT));
    watch.look("the console", machine.seen.join("\n").as_bytes());
    watch.look_into(&machine.shared("audit"));
}

/// The secret number in a key on P-256, as PKCS #8 has it: the version (3 bytes behind the outermost head of 3), the algorithm (21),
/// and the heads of an octet string, a sequence, a version and an octet string around 32 bytes.
fn private_key(pem: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(text).expect("PEM");
    der.get(36..68).expect("a key on P-256").to_vec()
}
