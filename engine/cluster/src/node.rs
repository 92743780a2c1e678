//! What the image of a node takes to be one of a cluster, beside Keel itself.

use std::fs;
use std::io;
use std::path::Path;

use crate::archive::{ArchiveFile, archive};

/// What a pod and its sandbox run from: no registry is asked.
const IMAGES: [&str; 2] = ["pause", "pod"];

/// The kubelet, plugins of its network and container images, as `osctl image build --payload` takes them. The images are made in `dir`,
/// and the units that import them in `units`; `network` is the config of the plugins, and `ctr` imports.
///
/// # Errors
/// If a file cannot be read or written.
pub fn node_payload(
    programs: &Path,
    network: &Path,
    ctr: &Path,
    dir: &Path,
    units: &Path,
) -> io::Result<Vec<String>> {
    let place = |name: &str| programs.join(name).display().to_string();
    let mut payload = vec![
        format!("kubelet={}", place("bin/kubelet")),
        format!("ctr={}", ctr.display()),
        format!("/etc/cni/net.d/pods.conflist={}", network.display()),
    ];
    for plugin in ["bridge", "host-local", "loopback"] {
        payload.push(format!("/usr/lib/cni/{plugin}={}", place(&format!("cni/{plugin}"))));
    }
    let busybox = programs.join("bin/busybox");
    for image in IMAGES {
        let files = [ArchiveFile { from: &busybox, to: "bin/busybox" }];
        let name = format!("localhost/{image}:1");
        let path = dir.join(format!("{image}.tar"));
        fs::write(&path, archive(&name, &["/bin/busybox", "sleep", "1000000"], &files)?)?;
        payload.push(format!("/usr/share/images/{image}.tar={}", path.display()));
        let unit = format!(
            "description = \"The image {name}\"\npart-of = \"services\"\nrequires = [\"containerd\"]\n\
             after = [\"containerd\"]\nbefore = [\"kubelet\"]\n\n[oneshot]\nexec = [\"/usr/bin/ctr\", \
             \"--namespace=k8s.io\", \"images\", \"import\", \"/usr/share/images/{image}.tar\"]\ntimeout = \"2m\"\n"
        );
        fs::write(units.join(format!("image-{image}.toml")), unit)?;
    }
    Ok(payload)
}
