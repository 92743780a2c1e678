//! Makes the key and the certificate. No file and no clock: a first boot often has no idea what day it is.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use crate::identity::Names;
use crate::identity::files::MachineId;

/// A new ECDSA key on P-256, in PEM.
pub(crate) fn new_key() -> Result<String, Error> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem())
}

/// A server certificate for that key, signed with it, in PEM.
pub(crate) fn self_signed(
    key: &str,
    machine_id: MachineId,
    names: &Names,
) -> Result<String, Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let common_name = names.hostname.clone().unwrap_or_else(|| machine_id.to_string());
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = subject_alt_names(machine_id, names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // The machine's clock may be decades off on its first boot, and what a client trusts is the fingerprint. RFC 5280,
    // 4.1.2.5: the last second of 9999 means that there is no good date of expiry.
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + END_OF_DAY;
    Ok(params.self_signed(&key)?.pem())
}

/// From the first second of a day to its last.
const END_OF_DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60 - 1);

fn subject_alt_names(machine_id: MachineId, names: &Names) -> Result<Vec<SanType>, Error> {
    let mut all = vec![
        // RFC 9562, 4: the machine id is a UUID, whichever way it is written.
        SanType::URI(format!("urn:uuid:{}", machine_id.hyphenated()).try_into()?),
        SanType::DnsName("localhost".try_into()?),
    ];
    if let Some(hostname) = &names.hostname {
        all.push(SanType::DnsName(hostname.as_str().try_into()?));
    }
    all.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    Ok(all)
}
