//! The bill of materials: an SPDX 2.3 document of what is in an image, and from where.
//!
//! Versions come from the payload manifest, else from dpkg for files of packages, and of Keel's own programs from this build.
//! The document is a function of the image: its time is that of the image, its name is made from its content.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::dpkg::{self, DebianPackage};
use crate::manifest::{Manifest, Taken, hex};

/// The document's name in an image directory.
pub(crate) const SBOM: &str = "sbom.spdx.json";

/// Where the content of a file of the image came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Origin {
    /// The component that it is a part of, as a person calls it.
    pub(crate) component: String,
    /// The file on this machine, for dpkg.
    pub(crate) source: PathBuf,
    pub(crate) version: Option<String>,
    pub(crate) url: Option<String>,
}

/// A component of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Component {
    name: String,
    version: Option<String>,
    url: Option<String>,
    /// A package URL (https://github.com/package-url/purl-spec).
    purl: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'static str,
    document_namespace: String,
    creation_info: CreationInfo,
    packages: Vec<Package>,
    files: Vec<File<'a>>,
    relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
struct CreationInfo {
    created: String,
    creators: [&'static str; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    download_location: String,
    files_analyzed: bool,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "SPDXID")]
    id: String,
    file_name: String,
    checksums: Vec<Checksum<'a>>,
    license_concluded: &'static str,
    copyright_text: &'static str,
    comment: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum<'a> {
    algorithm: &'static str,
    checksum_value: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

const UNKNOWN: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const IMAGE: &str = "SPDXRef-Image";

/// The document of an image, given where its files came from.
pub(crate) fn document(
    manifest: &Manifest,
    origins: &BTreeMap<String, Origin>,
    mtime: u32,
) -> serde_json::Result<Vec<u8>> {
    let sources: Vec<PathBuf> = origins.values().map(|origin| origin.source.clone()).collect();
    text(manifest, origins, &dpkg::owners(&sources), mtime)
}

fn text(
    manifest: &Manifest,
    origins: &BTreeMap<String, Origin>,
    owners: &BTreeMap<PathBuf, DebianPackage>,
    mtime: u32,
) -> serde_json::Result<Vec<u8>> {
    let kernel = Component {
        name: "linux".into(),
        version: Some(manifest.kernel_release.clone()),
        url: None,
        purl: None,
    };
    let mut components = BTreeMap::from([(id_of("Package", "linux"), kernel)]);
    let (mut files, mut relationships) = (Vec::new(), Vec::new());
    let mut relate = |from: &str, kind: &'static str, to: &str| {
        relationships.push(Relationship {
            spdx_element_id: from.to_owned(),
            relationship_type: kind,
            related_spdx_element: to.to_owned(),
        });
    };
    relate(DOCUMENT, "DESCRIBES", IMAGE);
    let beside = [&manifest.kernel, &manifest.initramfs].into_iter().chain(&manifest.firmware);
    for blob in beside {
        let id = id_of("File", &blob.file);
        files.push(file(
            id.clone(),
            format!("./{}", blob.file),
            &blob.sha256,
            "a file of the image",
        ));
        relate(IMAGE, "CONTAINS", &id);
    }
    relate(&id_of("Package", "linux"), "CONTAINS", &id_of("File", &manifest.kernel.file));
    for Taken { path, sha256, why, .. } in &manifest.files {
        let Some(sum) = sha256 else { continue };
        let id = id_of("File", path);
        files.push(file(id.clone(), format!(".{path}"), sum, why));
        let component = match origins.get(path) {
            Some(origin) => Some(component(origin, owners.get(&origin.source))),
            None if why.starts_with("module") => {
                components.get(&id_of("Package", "linux")).cloned()
            }
            None => None,
        };
        match component {
            Some(component) => {
                let package = id_of("Package", &component.name);
                relate(&package, "CONTAINS", &id);
                components.insert(package, component);
            }
            None => relate(IMAGE, "CONTAINS", &id),
        }
    }
    for id in components.keys() {
        relate(IMAGE, "CONTAINS", id);
    }
    let image = Component {
        name: "keel-image".into(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        url: None,
        purl: None,
    };
    let packages = [(IMAGE.to_owned(), image)].into_iter().chain(components);
    let document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: "keel-image",
        document_namespace: namespace(manifest),
        creation_info: CreationInfo {
            created: utc(mtime),
            creators: [concat!("Tool: osctl-", env!("CARGO_PKG_VERSION"))],
        },
        packages: packages.map(|(id, component)| package(id, component)).collect(),
        files,
        relationships,
    };
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}

fn component(origin: &Origin, owner: Option<&DebianPackage>) -> Component {
    match owner {
        // What the manifest says of a file comes before what a package manager says.
        Some(owner) if origin.version.is_none() => Component {
            name: owner.name.clone(),
            version: Some(owner.version.clone()),
            url: None,
            purl: Some(format!(
                "pkg:deb/debian/{}@{}?arch={}",
                owner.name,
                percent(&owner.version),
                owner.architecture
            )),
        },
        _ => Component {
            name: origin.component.clone(),
            version: origin.version.clone(),
            url: origin.url.clone(),
            purl: None,
        },
    }
}

fn package(id: String, component: Component) -> Package {
    let purl = |reference_locator| ExternalRef {
        reference_category: "PACKAGE-MANAGER",
        reference_type: "purl",
        reference_locator,
    };
    Package {
        id,
        name: component.name,
        version_info: component.version,
        download_location: component.url.unwrap_or_else(|| UNKNOWN.to_owned()),
        files_analyzed: false,
        license_concluded: UNKNOWN,
        license_declared: UNKNOWN,
        copyright_text: UNKNOWN,
        external_refs: component.purl.map(purl).into_iter().collect(),
    }
}

fn file<'a>(id: String, file_name: String, sum: &'a str, comment: &'a str) -> File<'a> {
    File {
        id,
        file_name,
        checksums: vec![Checksum { algorithm: "SHA256", checksum_value: sum }],
        license_concluded: UNKNOWN,
        copyright_text: UNKNOWN,
        comment,
    }
}

/// An identifier of letters, digits, dots and dashes; what is something else is told apart by a checksum.
fn id_of(kind: &str, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let readable: String = name.trim_start_matches('/').chars().map(plain).collect();
    let sum = hex(&Sha256::digest(name)[..4]);
    format!("SPDXRef-{kind}-{readable}-{sum}")
}

/// Unique for what the image holds, and the same for the same image.
fn namespace(manifest: &Manifest) -> String {
    let mut hash = Sha256::new();
    for blob in [&manifest.kernel, &manifest.initramfs].into_iter().chain(&manifest.firmware) {
        hash.update(&blob.sha256);
    }
    format!("https://spdx.org/spdxdocs/keel-image-{}", hex(&hash.finalize()))
}

/// What a package URL has to write otherwise.
fn percent(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | '~' => c.to_string(),
            other => other.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
        })
        .collect()
}

/// `2025-01-31T12:00:00Z`: days since 1970 as a date of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn utc(seconds: u32) -> String {
    let (days, second) = (u64::from(seconds) / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Where the components' files came from, by their path in the image.
#[derive(Debug, Default)]
pub(crate) struct Origins(pub(crate) BTreeMap<String, Origin>);

impl Origins {
    pub(crate) fn add(&mut self, path: &str, component: &str, source: &Path) -> &mut Origin {
        let origin = Origin {
            component: component.to_owned(),
            source: source.to_owned(),
            ..Origin::default()
        };
        self.0.entry(path.to_owned()).insert_entry(origin).into_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Blob;

    #[test]
    fn a_time_is_written_as_spdx_wants_it() {
        let check = |seconds: u32, expect: &str| assert_eq!(utc(seconds), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn versions_come_from_the_manifest_then_from_dpkg() {
        let blob = |file: &str| Blob { file: file.into(), size: 1, sha256: "ab".repeat(32) };
        let taken = |path: &str, why: &str| Taken {
            path: path.into(),
            mode: "0755".into(),
            size: Some(1),
            sha256: Some("cd".repeat(32)),
            link: None,
            why: why.into(),
        };
        let manifest = Manifest {
            schema: 1,
            kernel_release: "6.1".into(),
            arguments: Vec::new(),
            api_port: 50051,
            kernel: blob("vmlinuz"),
            initramfs: blob("initramfs.zst"),
            firmware: Vec::new(),
            unpacked: 1,
            files: vec![
                taken("/etc/hosts", "layout"),
                taken("/usr/bin/mount", "payload mount"),
                taken("/usr/bin/runc", "payload runc"),
                taken("/usr/lib/modules/6.1/a.ko", "module: default set"),
            ],
        };
        let mut origins = Origins::default();
        origins.add("/usr/bin/mount", "mount", Path::new("/usr/bin/mount"));
        let runc = origins.add("/usr/bin/runc", "runc", Path::new("/m/runc"));
        runc.version = Some("1.1.5".into());
        runc.url = Some("https://example.com/runc".into());
        let mount = DebianPackage {
            name: "mount".into(),
            version: "2.38.1-5+deb12u3".into(),
            architecture: "amd64".into(),
        };
        let owners = BTreeMap::from([(PathBuf::from("/usr/bin/mount"), mount)]);
        let text = text(&manifest, &origins.0, &owners, 0).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap());
    }
}
