//! Container images of one layer, as an archive that `ctr images import` takes (the OCI image layout in a tar).

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A program of an image: where it is on this machine, and in the image.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveFile<'a> {
    /// On this machine.
    pub from: &'a Path,
    /// In the image, without the first slash.
    pub to: &'a str,
}

fn add(tar: &mut Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, bytes)
}

/// An image of these files that runs `entry`, under that name.
///
/// # Errors
/// If a file cannot be read.
pub fn archive(name: &str, entry: &[&str], files: &[ArchiveFile<'_>]) -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for file in files {
        add(&mut layer, file.to, &std::fs::read(file.from)?, 0o755)?;
    }
    let layer = layer.into_inner()?;
    let mut tar = Builder::new(Vec::new());
    let mut blob = |bytes: &[u8], media_type: &str| -> io::Result<Value> {
        let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        add(&mut tar, &format!("blobs/sha256/{hash}"), bytes, 0o644)?;
        let digest = format!("sha256:{hash}");
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let layer = blob(&layer, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": entry, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest = blob(manifest.to_string().as_bytes(), media_type)?;
    manifest["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    add(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_is_what_it_is_called() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = [ArchiveFile { from: file.path(), to: "bin/pause" }];
        let bytes = archive("localhost/pause:1", &["/bin/pause"], &files).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut blobs = 0;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                let hash: String =
                    Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
                assert_eq!(name, hash);
                blobs += 1;
            }
        }
        assert_eq!(blobs, 3);
    }
}
