//! The door once more, with certificates that the openssl program made and with its own client: neither shares code with the agent.

#![cfg(test)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::pki::Issued;
use support::{Agent, Start};
use tempfile::TempDir;

/// A folder of keys and certificates.
struct Pki(TempDir);

const CONFIG: &str = "
[ca]
default_ca = all
[all]
database = index.txt
serial = serial
crlnumber = crlnumber
new_certs_dir = .
default_md = sha256
default_crl_days = 2
policy = any
unique_subject = no
copy_extensions = none
[any]
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[client]
extendedKeyUsage = clientAuth
[server]
extendedKeyUsage = serverAuth
[none]
keyUsage = digitalSignature
";

impl Pki {
    fn new() -> Self {
        let pki = Self(TempDir::new().unwrap());
        fs::write(pki.path("openssl.cnf"), CONFIG).unwrap();
        fs::write(pki.path("index.txt"), "").unwrap();
        fs::write(pki.path("serial"), "1000\n").unwrap();
        fs::write(pki.path("crlnumber"), "1000\n").unwrap();
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn openssl(&self, line: &str) {
        let ended = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("openssl is there: `cargo xtask setup` installs it");
        assert!(
            ended.status.success(),
            "openssl {line}\n{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }

    /// A CA of its own, in `NAME.crt` and `NAME.key`.
    fn authority(&self, name: &str, subject: &str) {
        self.openssl(&format!(
            "req -config openssl.cnf -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.crt -days 9 -subj {subject} -extensions authority"
        ));
    }

    /// A certificate that a CA issues, with what `openssl ca` is told beside.
    fn issue(&self, ca: &str, name: &str, subject: &str, extensions: &str, beside: &str) -> Issued {
        self.openssl(&format!(
            "req -config openssl.cnf -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
        ));
        let mut line = format!(
            "ca -config openssl.cnf -batch -notext -cert {ca}.crt -keyfile {ca}.key -in {name}.csr -out {name}.crt -extensions {extensions}"
        );
        for word in [" ", beside].concat().split_whitespace() {
            line.push(' ');
            line.push_str(word);
        }
        self.openssl(&line);
        issued(&self.path(&format!("{name}.crt")), &self.path(&format!("{name}.key")))
    }
}

fn issued(certificates: &Path, key: &Path) -> Issued {
    let chain = CertificateDer::pem_file_iter(certificates).unwrap();
    Issued::from_files(
        chain.collect::<Result<_, _>>().unwrap(),
        PrivateKeyDer::from_pem_file(key).unwrap(),
    )
}

const DAYS: &str = "-days 2";

#[tokio::test]
async fn certificates_of_openssl() {
    let pki = Pki::new();
    pki.authority("ca", "/CN=ca");
    pki.authority("twin", "/CN=ca");
    pki.authority("other", "/CN=other");
    let admin = "/O=keel:admin/CN=ada";
    let good = pki.issue("ca", "good", admin, "client", DAYS);
    let both = pki.issue("ca", "both", "/O=keel:viewer/O=keel:operator/CN=bob", "client", DAYS);
    let revoked = pki.issue("ca", "revoked", admin, "client", DAYS);
    pki.openssl("ca -config openssl.cnf -cert ca.crt -keyfile ca.key -revoke revoked.crt");
    pki.openssl("ca -config openssl.cnf -cert ca.crt -keyfile ca.key -gencrl -out ca.crl");
    pki.issue("ca", "between", "/CN=between", "authority", DAYS);
    pki.issue("between", "below", "/O=keel:viewer/CN=cyd", "client", DAYS);
    let chain = pki.read("below.crt") + &pki.read("between.crt");
    fs::write(pki.path("chain.crt"), chain).unwrap();

    let start = Start::new().cluster_ca(&pki.read("ca.crt")).cluster_crl(&pki.read("ca.crl"));
    let mut agent = start.start();
    let old = "-startdate 20200101000000Z -enddate 20200201000000Z";
    let far = "-startdate 20900101000000Z -enddate 20900201000000Z";
    let rows: Vec<(Issued, &str, &str)> = vec![
        (pki.issue("other", "a", admin, "client", DAYS), "UnknownCA", "was issued by CN=other"),
        (
            pki.issue("twin", "b", admin, "client", DAYS),
            "DecryptError",
            "another CA that calls itself CN=ca",
        ),
        (
            pki.issue("ca", "c", admin, "client", old),
            "CertificateExpired",
            "valid until 2020-02-01T00:00:00Z, the node's clock says",
        ),
        (
            pki.issue("ca", "d", admin, "client", far),
            "CertificateExpired",
            "valid from 2090-01-01T00:00:00Z, the node's clock says",
        ),
        (
            pki.issue("ca", "e", admin, "server", DAYS),
            "UnsupportedCertificate",
            "does not hold clientAuth",
        ),
        (
            pki.issue("ca", "f", admin, "none", DAYS),
            "UnsupportedCertificate",
            "does not hold clientAuth",
        ),
        (revoked, "CertificateRevoked", "is revoked"),
    ];
    for (client, alert, why) in &rows {
        assert_eq!(agent.refusal(Some(client)), format!("received fatal alert: {alert}"), "{why}");
        agent.logged(why);
    }

    let health = "/grpc.health.v1.Health/Check";
    assert_eq!(agent.call(Some(&good), health).await, "OK");
    let below = issued(&pki.path("chain.crt"), &pki.path("below.key"));
    assert_eq!(agent.call(Some(&below), health).await, "OK");
    // The greater of two roles counts.
    let reboot = agent.call(Some(&both), "/keel.v1.Operation/Reset").await;
    assert!(reboot.contains("CN=bob,O=keel:operator,O=keel:viewer is operator here"), "{reboot}");
}

/// What the client of openssl says of a handshake.
fn s_client(agent: &Agent, pki: &Pki, arguments: &[&str]) -> String {
    let ended = Command::new("openssl")
        .args(["s_client", "-connect", &agent.address.to_string(), "-brief", "-ign_eof"])
        .args(arguments)
        .current_dir(pki.0.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn the_client_of_openssl() {
    let pki = Pki::new();
    pki.authority("ca", "/CN=ca");
    pki.issue("ca", "ada", "/O=keel:viewer/CN=ada", "client", DAYS);
    let mut agent = Start::new().cluster_ca(&pki.read("ca.crt")).start();
    let h2 = ["-alpn", "h2"];
    let mine = ["-cert", "ada.crt", "-key", "ada.key"];
    let check = |arguments: &[&[&str]], expect: &str| {
        let said = s_client(&agent, &pki, &arguments.concat());
        assert!(said.contains(expect), "{arguments:?}: {said}");
    };
    check(&[&h2, &mine, &["-tls1_2"]], "alert protocol version");
    check(&[&h2], "certificate required");
    check(&[&["-alpn", "http/1.1"], &mine], "no application protocol");
    check(&[&mine], "TLSv1.3");
    agent.logged("the client did not ask for HTTP/2");
}
