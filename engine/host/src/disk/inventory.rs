//! The disks of this machine, as sysfs shows them.
//!
//! No udev runs on a node, so nobody makes /dev/disk/by-id: the names that it would have are computed here from the same
//! sources (udev's 60-persistent-storage.rules), and people can select a disk by the name that they know from elsewhere.

use std::path::{Path, PathBuf};
use std::{fs, io};

use keel_unit::kinds::Bus;
use keel_unit::select::DiskFacts;

use super::source::Located;

/// Where the kernel shows its devices (tests show it a few), and what was found there so far. Clones share that.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Where sysfs is mounted.
    pub sys: PathBuf,
    /// Where devtmpfs is mounted.
    pub dev: PathBuf,
    /// The partitions that partition units have located or made.
    pub located: Located,
}

impl Roots {
    /// The devices that are shown here.
    pub fn new(sys: impl Into<PathBuf>, dev: impl Into<PathBuf>) -> Self {
        Self { sys: sys.into(), dev: dev.into(), located: Located::default() }
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self::new("/sys", "/dev")
    }
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    /// The kernel's name: `vda`.
    pub name: String,
    /// Its node: `/dev/vda`.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Size of a logical sector in bytes.
    pub logical_sector: u32,
    /// Size of a physical sector in bytes.
    pub physical_sector: u32,
    /// Whether its medium can be taken out.
    pub removable: bool,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Model, without padding.
    pub model: Option<String>,
    /// Serial number, without padding.
    pub serial: Option<String>,
    /// World-wide name as the kernel writes it: `naa.5000c500a1b2c3d4`, `eui.0025385b71b1a3f5`.
    pub wwid: Option<String>,
    /// Vendor, where the bus has one (SCSI, USB).
    pub vendor: Option<String>,
    /// How it is attached; `None` for a loop device and for what is of no known bus.
    pub bus: Option<Bus>,
    /// The partitions that the kernel knows.
    pub partitions: Vec<KernelPartition>,
}

/// A partition that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPartition {
    /// Its number.
    pub number: u32,
    /// Its node.
    pub path: PathBuf,
    /// Its first byte.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl Disk {
    /// The names that /dev/disk/by-id would have for this disk.
    pub fn ids(&self) -> Vec<String> {
        let word = |text: &Option<String>| text.as_deref().map(escape);
        let (model, serial, vendor) = (word(&self.model), word(&self.serial), word(&self.vendor));
        let mut ids = Vec::new();
        match (self.bus, model, serial) {
            (Some(Bus::Virtio), _, Some(serial)) => ids.push(format!("virtio-{serial}")),
            (Some(Bus::Nvme), Some(model), Some(serial)) => {
                ids.push(format!("nvme-{model}_{serial}"))
            }
            (Some(Bus::Sata), Some(model), Some(serial)) => {
                ids.push(format!("ata-{model}_{serial}"))
            }
            (Some(Bus::Mmc), Some(model), Some(serial)) => {
                ids.push(format!("mmc-{model}_{serial}"))
            }
            (Some(Bus::Usb), Some(model), Some(serial)) => {
                let vendor = vendor.map(|vendor| vendor + "_").unwrap_or_default();
                ids.push(format!("usb-{vendor}{model}_{serial}-0:0"));
            }
            _ => {}
        }
        if let Some(wwid) = &self.wwid {
            match (self.bus, wwid.strip_prefix("naa.")) {
                (Some(Bus::Nvme), _) => ids.push(format!("nvme-{wwid}")),
                (_, Some(naa)) => {
                    ids.push(format!("wwn-0x{naa}"));
                    ids.push(format!("scsi-3{naa}"));
                }
                (_, None) => {}
            }
        }
        ids
    }
}

impl DiskFacts for Disk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn ids(&self) -> Vec<String> {
        Disk::ids(self)
    }

    fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn bus(&self) -> Option<Bus> {
        self.bus
    }
}

/// udev replaces runs of blanks by one underscore.
fn escape(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("_")
}

/// Every disk that has a medium, by name.
///
/// Left out is what is made of other disks or of memory (device-mapper, MD, zram), what is never the place for data
/// (optical drives, floppies, the boot partitions of an eMMC), and the single paths of a multipath NVMe namespace.
///
/// # Errors
/// When sysfs is not there. A device that goes while it is looked at is left out.
pub fn observe(roots: &Roots) -> io::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir(roots.sys.join("class/block"))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(directory) = fs::canonicalize(entry.path()) else { continue };
        if directory.join("partition").exists() || is_left_out(&name, &directory) {
            continue;
        }
        disks.extend(observe_disk(roots, &name, &directory).filter(|disk| disk.size > 0));
    }
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(disks)
}

fn is_left_out(name: &str, directory: &Path) -> bool {
    let virtual_device = directory.to_string_lossy().contains("/devices/virtual/block/")
        && !name.starts_with("loop");
    let unsuited = ["sr", "fd", "ram", "mtdblock"].iter().any(|prefix| name.starts_with(prefix));
    let emmc_boot = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    virtual_device || unsuited || emmc_boot || number(directory, "hidden") == Some(1)
}

fn observe_disk(roots: &Roots, name: &str, directory: &Path) -> Option<Disk> {
    let bus = bus(name, directory);
    let device = directory.join("device");
    let (mut model, mut serial) = (text(&device, "model"), None);
    match bus {
        Some(Bus::Virtio) if name.starts_with("vd") => serial = text(directory, "serial"),
        Some(Bus::Nvme) => serial = text(&device, "serial"),
        Some(Bus::Mmc) => {
            model = text(&device, "name");
            serial = text(&device, "serial");
        }
        Some(Bus::Usb) => {
            serial = usb_serial(directory).or_else(|| vpd_serial(&device));
        }
        Some(Bus::Sata) => {
            // SCSI cuts an ATA model to 16 characters; page 0x89 holds what the disk itself says.
            let (whole_model, whole_serial) = ata_identity(&device);
            model = whole_model.or(model);
            serial = whole_serial.or_else(|| vpd_serial(&device));
        }
        Some(Bus::Scsi | Bus::Virtio) => serial = vpd_serial(&device),
        None => {}
    }
    Some(Disk {
        name: name.to_owned(),
        path: node(roots, directory)?,
        size: number(directory, "size")?.checked_mul(512)?,
        logical_sector: narrow(directory, "queue/logical_block_size").unwrap_or(512),
        physical_sector: narrow(directory, "queue/physical_block_size").unwrap_or(512),
        removable: number(directory, "removable") == Some(1),
        read_only: number(directory, "ro") == Some(1),
        wwid: text(&device, "wwid").or_else(|| text(directory, "wwid")),
        vendor: text(&device, "vendor").filter(|vendor| !vendor.starts_with("0x")),
        partitions: partitions(roots, directory),
        model,
        serial,
        bus,
    })
}

fn bus(name: &str, directory: &Path) -> Option<Bus> {
    let attached = |prefix: &str| {
        directory.iter().any(|part| {
            let number = part.to_str().and_then(|part| part.strip_prefix(prefix));
            number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    match name {
        _ if name.starts_with("loop") => None,
        _ if name.starts_with("vd") => Some(Bus::Virtio),
        _ if name.starts_with("nvme") => Some(Bus::Nvme),
        _ if name.starts_with("mmcblk") => Some(Bus::Mmc),
        _ if !name.starts_with("sd") => None,
        _ if attached("usb") => Some(Bus::Usb),
        _ if attached("ata") => Some(Bus::Sata),
        _ if attached("virtio") => Some(Bus::Virtio),
        _ => Some(Bus::Scsi),
    }
}

fn partitions(roots: &Roots, directory: &Path) -> Vec<KernelPartition> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut partitions: Vec<_> =
        entries.flatten().filter_map(|entry| observe_partition(roots, &entry.path())).collect();
    partitions.sort_by_key(|partition| partition.number);
    partitions
}

fn observe_partition(roots: &Roots, directory: &Path) -> Option<KernelPartition> {
    Some(KernelPartition {
        number: narrow(directory, "partition")?,
        path: node(roots, directory)?,
        start: number(directory, "start")?.checked_mul(512)?,
        size: number(directory, "size")?.checked_mul(512)?,
    })
}

/// The node of a device: its `uevent` file says the name, which may hold a slash (`cciss/c0d0`).
fn node(roots: &Roots, directory: &Path) -> Option<PathBuf> {
    let uevent = fs::read_to_string(directory.join("uevent")).ok()?;
    let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(roots.dev.join(name))
}

fn text(directory: &Path, file: &str) -> Option<String> {
    let bytes = fs::read(directory.join(file)).ok()?;
    printable(&bytes)
}

/// What a device says of itself is padded with blanks and NULs, and not always ASCII.
fn printable(bytes: &[u8]) -> Option<String> {
    let text: String = bytes
        .iter()
        .map(|&byte| char::from(byte))
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

fn narrow(directory: &Path, file: &str) -> Option<u32> {
    u32::try_from(number(directory, file)?).ok()
}

/// The unit serial number (SPC-4, 7.8.15): four bytes of header, then text.
fn vpd_serial(device: &Path) -> Option<String> {
    printable(fs::read(device.join("vpd_pg80")).ok()?.get(4..)?)
}

/// Model and serial number out of the ATA information page (SAT-3, 12.4.2), which carries the disk's IDENTIFY DEVICE data
/// from byte 60 on: words 27 to 46 and 10 to 19 (ACS-3, 7.12.7), each word with its characters swapped.
fn ata_identity(device: &Path) -> (Option<String>, Option<String>) {
    let page = fs::read(device.join("vpd_pg89")).unwrap_or_default();
    let words = |from: usize, to: usize| {
        let bytes = page.get(60 + 2 * from..60 + 2 * (to + 1))?;
        let straight: Vec<u8> =
            bytes.chunks(2).flat_map(|word| word.iter().rev().copied()).collect();
        printable(&straight)
    };
    (words(27, 46), words(10, 19))
}

/// The serial number of the USB device that a disk hangs on: the nearest ancestor that is one.
fn usb_serial(directory: &Path) -> Option<String> {
    let device = directory.ancestors().find(|ancestor| ancestor.join("idVendor").exists())?;
    text(device, "serial")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of plain files: `(path below /sys/devices, content)`, with class links like the kernel's.
    struct Sysfs(tempfile::TempDir);

    impl Sysfs {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("class/block")).unwrap();
            Self(root)
        }

        fn add(&self, directory: &str, files: &[(&str, &[u8])]) {
            let directory = self.0.path().join("devices").join(directory);
            for (file, content) in files {
                let file = directory.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            let name = directory.file_name().unwrap();
            if directory.join("uevent").exists() {
                std::os::unix::fs::symlink(
                    &directory,
                    self.0.path().join("class/block").join(name),
                )
                .unwrap();
            }
        }

        fn observe(&self) -> Vec<Disk> {
            observe(&Roots::new(self.0.path(), "/dev")).unwrap()
        }
    }

    fn disk_files<'a>(uevent: &'a [u8], extra: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
        let mut files: Vec<(&str, &[u8])> =
            vec![("uevent", uevent), ("size", b"2048\n"), ("ro", b"0\n")];
        files.extend_from_slice(extra);
        files
    }

    #[test]
    fn each_bus_says_its_own_names() {
        let mut ata = vec![0; 572];
        ata[60 + 54..60 + 94].copy_from_slice(b"aSsmnu gSS D68 0VE OT1 B                ");
        ata[60 + 20..60 + 40].copy_from_slice(b"5SNSTNA01132K4 5    ");
        let sys = Sysfs::new();
        let pci = "pci0000:00/0000:00:05.0";
        sys.add(
            &format!("{pci}/virtio1/block/vda"),
            &disk_files(
                b"MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n",
                &[
                    ("serial", b"keel data"),
                    ("queue/logical_block_size", b"4096\n"),
                    ("queue/physical_block_size", b"4096\n"),
                    ("device/vendor", b"0x1af4\n"),
                    ("vda1/uevent", b"DEVNAME=vda1\n"),
                    ("vda1/partition", b"1\n"),
                    ("vda1/start", b"8\n"),
                    ("vda1/size", b"16\n"),
                ],
            ),
        );
        sys.add(
            &format!("{pci}/nvme/nvme0/nvme0n1"),
            &disk_files(
                b"DEVNAME=nvme0n1\n",
                &[
                    ("device/model", b"Samsung SSD 980 PRO 1TB                 \n"),
                    ("device/serial", b"S5GXNX0T  \n"),
                    ("wwid", b"eui.0025385b71b1a3f5\n"),
                ],
            ),
        );
        sys.add(
            &format!("{pci}/ata1/host0/target0:0:0/0:0:0:0/block/sda"),
            &disk_files(
                b"DEVNAME=sda\n",
                &[
                    ("device/model", b"Samsung SSD 860 \n"),
                    ("device/vendor", b"ATA     \n"),
                    ("device/vpd_pg89", &ata),
                    ("device/wwid", b"naa.5002538e40b2c3d4\n"),
                ],
            ),
        );
        sys.add(&format!("{pci}/usb2/2-1"), &[("idVendor", b"0781\n"), ("serial", b"4C53\n")]);
        sys.add(
            &format!("{pci}/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb"),
            &disk_files(
                b"DEVNAME=sdb\n",
                &[
                    ("removable", b"1\n"),
                    ("device/vendor", b"SanDisk \n"),
                    ("device/model", b"Ultra Fit       \n"),
                ],
            ),
        );
        sys.add(
            &format!("{pci}/virtio4/host2/target2:0:0/2:0:0:0/block/sdc"),
            &disk_files(b"DEVNAME=sdc\n", &[("device/vpd_pg80", b"\x00\x80\x00\x04disk")]),
        );
        sys.add(
            "platform/mmc0/mmc0:0001/block/mmcblk0",
            &disk_files(
                b"DEVNAME=mmcblk0\n",
                &[("device/name", b"DF4032\n"), ("device/serial", b"0x1a2b\n")],
            ),
        );
        sys.add("virtual/block/loop3", &disk_files(b"DEVNAME=loop3\n", &[("ro", b"1\n")]));

        let found: Vec<_> = sys
            .observe()
            .into_iter()
            .map(|disk| (disk.name.clone(), disk.bus, disk.ids()))
            .collect();
        let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
        let expect = [
            ("loop3", None, ids(&[])),
            ("mmcblk0", Some(Bus::Mmc), ids(&["mmc-DF4032_0x1a2b"])),
            (
                "nvme0n1",
                Some(Bus::Nvme),
                ids(&["nvme-Samsung_SSD_980_PRO_1TB_S5GXNX0T", "nvme-eui.0025385b71b1a3f5"]),
            ),
            (
                "sda",
                Some(Bus::Sata),
                ids(&[
                    "ata-Samsung_SSD_860_EVO_1TB_S5SNNT0A11234K5",
                    "wwn-0x5002538e40b2c3d4",
                    "scsi-35002538e40b2c3d4",
                ]),
            ),
            ("sdb", Some(Bus::Usb), ids(&["usb-SanDisk_Ultra_Fit_4C53-0:0"])),
            ("sdc", Some(Bus::Virtio), ids(&["virtio-disk"])),
            ("vda", Some(Bus::Virtio), ids(&["virtio-keel_data"])),
        ];
        assert_eq!(found, expect.map(|(name, bus, ids)| (name.to_owned(), bus, ids)));

        let vda = sys.observe().pop().unwrap();
        assert_eq!((vda.size, vda.logical_sector, vda.path), (1 << 20, 4096, "/dev/vda".into()));
        let partition =
            KernelPartition { number: 1, path: "/dev/vda1".into(), start: 4096, size: 8192 };
        assert_eq!(vda.partitions, [partition]);
    }

    #[test]
    fn what_is_no_place_for_data_is_left_out() {
        let check = |directory: &str, extra: &[(&str, &[u8])]| {
            let sys = Sysfs::new();
            sys.add(directory, &disk_files(b"DEVNAME=x\n", extra));
            assert_eq!(sys.observe(), [], "{directory}");
        };
        check("virtual/block/dm-0", &[]);
        check("virtual/block/md127", &[]);
        check("virtual/block/zram0", &[]);
        check("virtual/block/loop0", &[("size", b"0\n")]);
        check("pci0/ata2/host1/block/sr0", &[]);
        check("platform/mmc0/mmc0:0001/block/mmcblk0boot0", &[]);
        check("pci0/nvme/nvme0/nvme0c0n1", &[("hidden", b"1\n")]);
        check("pci0/virtio1/block/vda1", &[("partition", b"1\n")]);
    }
}
