//! The drivers between a device and the processor: what has to be loaded before the device is there.

use std::fs;
use std::path::Path;

use super::{Driver, clip};

/// Longest chain of devices above one another; a USB disk behind hubs has some ten.
const DEEPEST: usize = 32;

/// The drivers above a device of sysfs, nearest first.
pub(super) fn of(sys: &Path, device: &Path) -> Vec<Driver> {
    let (Ok(device), Ok(sys)) = (fs::canonicalize(device), fs::canonicalize(sys)) else {
        return Vec::new();
    };
    let above = device.ancestors().take_while(|path| **path != sys).take(DEEPEST);
    above.filter_map(|path| driver(&sys, path)).collect()
}

fn driver(sys: &Path, device: &Path) -> Option<Driver> {
    let modalias = fs::read_to_string(device.join("modalias")).ok()?;
    let link = device.join("driver");
    let own = name(&fs::read_link(&link).ok()?)?;
    let module = fs::read_link(link.join("module")).ok().and_then(|module| name(&module));
    // The state of loading is there for modules that were loaded, and for no part of the kernel.
    let loaded = module
        .as_ref()
        .is_some_and(|module| sys.join("module").join(module).join("initstate").exists());
    Some(Driver {
        name: clip(&module.unwrap_or(own)),
        modalias: clip(modalias.trim()),
        built_in: !loaded,
    })
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_disk_takes_its_own_driver_and_those_of_its_bus() {
        let sys = tempfile::tempdir().unwrap();
        let at = |path: &str| sys.path().join(path);
        let pci = "devices/pci0000:00/0000:00:05.0";
        fs::create_dir_all(at(&format!("{pci}/virtio1/block/vda"))).unwrap();
        let device = |path: &str, modalias: &str, driver: &str| {
            fs::write(at(path).join("modalias"), format!("{modalias}\n")).unwrap();
            fs::create_dir_all(at(driver)).unwrap();
            symlink(at(driver), at(path).join("driver")).unwrap();
        };
        device(
            &format!("{pci}/virtio1"),
            "virtio:d00000002v00001AF4",
            "bus/virtio/drivers/virtio_blk",
        );
        device(pci, "pci:v00001AF4d00001042", "bus/pci/drivers/virtio-pci");
        // Without a driver it is no link of the chain.
        fs::write(at("devices/pci0000:00/modalias"), "acpi:PNP0A03:").unwrap();
        fs::create_dir_all(at("module/virtio_blk")).unwrap();
        fs::write(at("module/virtio_blk/initstate"), "live\n").unwrap();
        symlink(at("module/virtio_blk"), at("bus/virtio/drivers/virtio_blk/module")).unwrap();
        fs::create_dir_all(at("class/block")).unwrap();
        symlink(at(&format!("{pci}/virtio1/block/vda")), at("class/block/vda")).unwrap();

        let driver = |name: &str, modalias: &str, built_in| Driver {
            name: name.into(),
            modalias: modalias.into(),
            built_in,
        };
        let expect = [
            driver("virtio_blk", "virtio:d00000002v00001AF4", false),
            driver("virtio-pci", "pci:v00001AF4d00001042", true),
        ];
        assert_eq!(of(sys.path(), &at("class/block/vda")), expect);
        assert_eq!(of(sys.path(), &at("class/block/gone")), []);
    }
}
