//! Certificates for clients, right ones and wrong ones.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// What its clients send beside their own certificate.
    chain: Vec<CertificateDer<'static>>,
}

/// A client's certificate and key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    pub(crate) serial: u64,
}

/// What a certificate is to say.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) name: &'static str,
    pub(crate) organizations: &'static [&'static str],
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    /// From now, in days.
    pub(crate) from: i32,
    pub(crate) until: i32,
    pub(crate) serial: u64,
    /// Valid for so many seconds from now, whatever `until` says.
    pub(crate) seconds: Option<u64>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            name: "ada",
            organizations: &["keel:admin"],
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            from: -1,
            until: 1,
            serial: 7,
            seconds: None,
        }
    }
}

/// So many days from now. What is past is so by half an hour more: a node's clock may be a little behind this machine's, and what it
/// makes of whole days is compared.
fn at(days: i32) -> SystemTime {
    match days < 0 {
        true => SystemTime::now() - DAY * days.unsigned_abs() - Duration::from_secs(1_800),
        false => SystemTime::now() + DAY * days.unsigned_abs(),
    }
}

fn params(wanted: &Wanted) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in wanted.organizations {
        params.distinguished_name.push(DnType::OrganizationName, *name);
    }
    params.distinguished_name.push(DnType::CommonName, wanted.name);
    params.extended_key_usages = wanted.usages.clone();
    params.not_before = at(wanted.from).into();
    params.not_after = match wanted.seconds {
        Some(seconds) => (SystemTime::now() + Duration::from_secs(seconds)).into(),
        None => at(wanted.until).into(),
    };
    params.serial_number = Some(SerialNumber::from(wanted.serial));
    params
}

fn authority_params(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(-30).into();
    params.not_after = at(until).into();
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, 30)
    }

    /// One that is valid until so many days from now.
    pub(crate) fn until(name: &str, days: i32) -> Self {
        let params = authority_params(name, days);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key), chain: Vec::new() }
    }

    /// One that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let params = authority_params(name, 30);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key), chain }
    }

    pub(crate) fn issue(&self, wanted: &Wanted) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params(wanted).signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Issued::new(chain, &key, wanted.serial)
    }

    /// A client with one Organization.
    pub(crate) fn client(&self, organization: &'static [&'static str]) -> Issued {
        self.issue(&Wanted { organizations: organization, ..Wanted::default() })
    }

    /// A list that revokes one certificate.
    pub(crate) fn revoke(&self, serial: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: at(-1).into(),
            next_update: at(1).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: at(-1).into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair, serial: u64) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Self { chain, key: Arc::new(key), serial }
    }

    /// One that nobody vouches for.
    pub(crate) fn self_signed(wanted: &Wanted) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(wanted).self_signed(&key).unwrap();
        Self::new(vec![certificate.der().clone()], &key, wanted.serial)
    }

    pub(crate) fn from_files(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        Self { chain, key: Arc::new(key), serial: 0 }
    }

    /// The certificates and the key, as programs take them.
    pub(crate) fn pem(&self) -> (String, String) {
        let block = |label: &str, der: &[u8]| {
            let body = STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let chain = self.chain.iter().map(|one| block("CERTIFICATE", one)).collect();
        (chain, block("PRIVATE KEY", self.key.secret_der()))
    }

    /// Shows it whatever the node asks for.
    pub(crate) fn always(&self) -> Arc<dyn ResolvesClientCert> {
        let certified = CertifiedKey::from_der(
            self.chain.clone(),
            self.key.clone_key(),
            &ring::default_provider(),
        );
        Arc::new(Always(Arc::new(certified.unwrap())))
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
