//! The certificates of a control plane.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use sha2::{Digest, Sha256};

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) key: String,
    /// `sha256:` and the hash of its public key.
    pub(crate) pin: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.pin)
    }
}

/// A certificate and its key, in PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

fn named(common: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, rcgen::Error> {
        let mut params = named(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let hash = Sha256::digest(key.subject_public_key_info());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let (pin, text) = (format!("sha256:{hex}"), key.serialize_pem());
        Ok(Self { pem, key: text, pin, issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Issued, rcgen::Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// A client: its name, and its group.
    pub(crate) fn client(&self, name: &str, group: Option<&str>) -> Result<Issued, rcgen::Error> {
        self.issue(named(name, group), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The API server, under these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Result<Issued, rcgen::Error> {
        let mut params = CertificateParams::new(
            names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
        )?;
        params.distinguished_name = named("kube-apiserver", None).distinguished_name;
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth)
    }
}

/// A kubeconfig of one user, who shows a certificate.
pub(crate) fn kubeconfig(server: &str, ca: &str, user: &Issued) -> String {
    let [ca, certificate, key] =
        [ca, &user.certificate, &user.key].map(|text| STANDARD.encode(text));
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters:\n- name: k\n  cluster: {{server: \"{server}\", certificate-authority-data: {ca}}}\n\
         contexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         users:\n- name: u\n  user: {{client-certificate-data: {certificate}, client-key-data: {key}}}\n"
    )
}

/// The certificate of a CA that no cluster has, in PEM.
pub fn another_ca() -> String {
    Authority::new("another").map(|authority| authority.pem).unwrap_or_default()
}
