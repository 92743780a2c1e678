//! Distinguished names as people write them.

use std::fmt::Write as _;

use x509_parser::prelude::{AttributeTypeAndValue, X509Name};

/// The longest name that is shown; a certificate may hold any.
const LONGEST: usize = 512;

/// Short names of attributes: RFC 4514, 3, and O and OU's companions that certificates use.
const SHORT: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A name as RFC 4514 writes one: the most particular part first. It holds nothing that a terminal would obey.
pub(crate) fn rfc4514(name: &X509Name<'_>) -> String {
    let rdns: Vec<String> = name
        .iter_rdn()
        .map(|rdn| rdn.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    let mut text = rdns.into_iter().rev().collect::<Vec<_>>().join(",");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
    match (short, attribute.as_str()) {
        (Some(short), Ok(value)) => format!("{short}={}", escaped(value)),
        (short, _) => {
            let mut text = format!("{}=#", short.unwrap_or(&oid));
            for byte in attribute.as_slice() {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

/// RFC 4514, 2.4.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', c]),
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            c if c.is_control() => {
                for byte in c.to_string().bytes() {
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            // What turns the direction of writing would let one name look like another.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                text.extend(c.escape_unicode());
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::prelude::{FromDer, X509Certificate};

    fn check(parts: &[(DnType, &str)], expect: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(rfc4514(certificate.subject()), expect);
    }

    #[test]
    fn names() {
        use DnType::{CommonName, CountryName, OrganizationName};
        check(&[(OrganizationName, "keel:admin"), (CommonName, "ada")], "CN=ada,O=keel:admin");
        check(&[(CommonName, "a,b+c=d")], "CN=a\\,b\\+c=d");
        check(&[(CommonName, " #x ")], "CN=\\ #x\\ ");
        check(&[(CommonName, "#x")], "CN=\\#x");
        check(&[(CommonName, "a\nb\u{1b}[0m")], "CN=a\\0ab\\1b[0m");
        check(&[(CommonName, "nada\u{202e}nimda")], "CN=nada\\u{202e}nimda");
        check(&[(CountryName, "DE"), (CommonName, "ä")], "CN=ä,C=DE");
        check(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")], "1.2.3.4=#78");
        check(&[], "");
    }
}
