//! Whether the machine has what the graph selects, and the image the drivers for it.

use std::collections::BTreeMap;

use keel_unit::kinds::{self, DiskSelector, Wipe};
use keel_unit::select::{LinkSelector, matching_disks, matching_links, mismatches};
use keel_unit::source::Span;
use keel_unit::value::{AbsPath, ByteSize, Glob, MacAddr, Source};
use keel_unit::{Diagnostic, Kind, Unit};

use super::drivers::Place;
use super::image::Listing;
use super::{Context, Findings, span_of};
use crate::inventory::{Disk, Driver, Inventory, Link, Partition};

pub(super) fn check(
    context: &Context<'_>,
    inventory: &Inventory,
    listing: &Listing<'_>,
    found: &mut Findings,
) {
    machine(context, inventory, listing, found);
    let mut addresses = BTreeMap::new();
    for unit in context.units {
        match &unit.kind {
            Kind::Link(link) => {
                link_unit(context, unit, link, inventory, found);
                twice(unit, link, &mut addresses, found);
            }
            Kind::Partition(partition) => {
                partition_unit(context, unit, partition, inventory, found)
            }
            Kind::Device(device) => device_unit(context, unit, device, inventory, found),
            Kind::Mount(kinds::Mount { source: Some(source), .. }) => {
                source_exists(context, source, span_of(unit, "source"), inventory, found);
            }
            Kind::Filesystem(filesystem) => {
                source_exists(
                    context,
                    &filesystem.device,
                    span_of(unit, "device"),
                    inventory,
                    found,
                );
            }
            _ => {}
        }
    }
}

/// Architecture and memory.
fn machine(
    context: &Context<'_>,
    inventory: &Inventory,
    listing: &Listing<'_>,
    found: &mut Findings,
) {
    let image = context.image;
    let built_for = context.machine.map(|machine| machine.to_string());
    let own = inventory.machine.architecture.as_deref().map(architecture);
    if let (Some(built_for), Some(own)) = (&built_for, own)
        && built_for != own
    {
        let message = format!("the image is built for {built_for}, and the machine is {own}");
        found.push(Diagnostic::new("wrong-machine", listing.span_of("/init"), message));
    }
    let Some(memory) = inventory.machine.memory else { return };
    // init/do_mounts.c: the root that an initramfs is unpacked into is a tmpfs, and one without a size is given half of the memory.
    let room = memory.0 / 2;
    let unpacked: u64 = image.files.unpacked;
    if unpacked > room {
        let message = format!(
            "the image unpacks to {}, and the machine has room for {}",
            about(unpacked),
            about(room)
        );
        let finding = Diagnostic::new("too-large", listing.span_of("unpacked"), message);
        found.push(
            finding
                .label(format!("a kernel unpacks into half of its memory, {}", about(memory.0)))
                .help("leave out what the machine does not need, or give it more memory"),
        );
    }
}

/// An architecture of `uname -m` in the words of the image.
fn architecture(uname: &str) -> &str {
    match uname {
        "x86_64" => "x86-64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A size for people: exact where it has few digits.
fn about(bytes: u64) -> String {
    let exact = ByteSize(bytes).to_string();
    if exact.len() <= 7 {
        return exact;
    }
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let (unit, size) = units.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("B", 1));
    format!("{:.1}{unit}", bytes as f64 / size as f64)
}

fn link_unit(
    context: &Context<'_>,
    unit: &Unit,
    link: &kinds::Link,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let selector = LinkSelector::from(link);
    let (at, wanted) = match &selector {
        // Every machine has one, and it takes no driver.
        LinkSelector::Loopback => return,
        LinkSelector::Name(name) => (span_of(unit, "name"), format!("link {name}")),
        LinkSelector::Mac(mac) => {
            (span_of(unit, "mac"), format!("link with the address {}", MacAddr(*mac)))
        }
        LinkSelector::FirstEthernetWithCarrier => (unit.span, "ethernet link".to_owned()),
    };
    // One that another unit's program makes (a bridge) is in no inventory; hardware is.
    let meant = matching_links(&selector, &inventory.links);
    if meant.is_empty() {
        let message = format!("the machine has no {wanted}");
        let finding = Diagnostic::new("no-such-link", at, message);
        let finding = finding.label(format!("{} waits for it until its timeout", unit.name));
        found.push(match inventory.links.as_slice() {
            [] => finding.help("the inventory has no links"),
            links => finding.help(format!(
                "the machine has {}",
                links.iter().map(describe_link).collect::<Vec<_>>().join("; ")
            )),
        });
        return;
    }
    let first_with_carrier = selector == LinkSelector::FirstEthernetWithCarrier;
    if (link.dhcp || first_with_carrier) && meant.iter().all(|link| link.carrier == Some(false)) {
        let names: Vec<_> = meant.iter().map(|link| link.name.as_str()).collect();
        let message =
            format!("no carrier was on {} when the inventory was taken", names.join(", "));
        found.note(Diagnostic::new("no-carrier", at, message).label("DHCP would ask nobody"));
    }
    for link in meant {
        // Which of several it will be depends on carriers; a machine whose first has no driver takes the next.
        let what = format!("link {}", link.name);
        drivers(context, &link.drivers, &what, at, inventory, found);
    }
}

fn describe_link(link: &Link) -> String {
    let mut words = vec![link.name.clone()];
    words.extend(link.mac.map(|mac| mac.0.to_string()));
    words.extend(link.kind.clone());
    if link.port {
        words.push("a port of another link".to_owned());
    }
    match words.split_first() {
        Some((name, rest)) if !rest.is_empty() => format!("{name} ({})", rest.join(", ")),
        _ => link.name.clone(),
    }
}

/// One address on two links.
fn twice<'a>(
    unit: &'a Unit,
    link: &kinds::Link,
    addresses: &mut BTreeMap<std::net::IpAddr, &'a Unit>,
    found: &mut Findings,
) {
    for cidr in &link.addresses {
        if let Some(first) = addresses.insert(cidr.address, unit) {
            let message = format!("{} and {} both have {}", first.name, unit.name, cidr.address);
            let at = span_of(unit, "addresses");
            let finding = Diagnostic::new("address-twice", at, message).label("the second");
            found.push(finding.also(span_of(first, "addresses"), "the first"));
        }
    }
}

/// Whether this partition is the wanted one: by type and by name, because either alone may be somebody else's.
fn is_wanted(wanted: &kinds::Partition, partition: &Partition) -> bool {
    partition.label == wanted.label.as_str()
        && partition.type_guid.is_none_or(|guid| guid.0 == wanted.type_guid)
}

fn partition_unit(
    context: &Context<'_>,
    unit: &Unit,
    wanted: &kinds::Partition,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let holding: Vec<&Disk> = inventory
        .disks
        .iter()
        .filter(|disk| disk.partitions.iter().any(|partition| is_wanted(wanted, partition)))
        .collect();
    let at = match wanted.disk {
        Some(_) => span_of(unit, "disk"),
        None => span_of(unit, "label"),
    };
    let label = &wanted.label;
    match holding.as_slice() {
        [] => {}
        [disk] => return disk_drivers(context, disk, at, inventory, found),
        several => {
            let paths = several.iter().map(|disk| disk.path.display().to_string());
            let message = format!(
                "partition {label} is on more than one disk: {}",
                paths.collect::<Vec<_>>().join(", ")
            );
            found.push(Diagnostic::new("partition-twice", span_of(unit, "label"), message));
            return;
        }
    }
    let Some(selector) = &wanted.disk else {
        let message = format!("no disk of the machine has a partition {label}");
        let finding = Diagnostic::new("no-partition", at, message);
        found.push(
            finding
                .label("none is made: no disk is selected")
                .help("select the disk that may be partitioned in storage.data.disk"),
        );
        return;
    };
    let meant = matching_disks(selector, &inventory.disks);
    match meant.as_slice() {
        [disk] => may_be_written(context, unit, wanted, disk, at, inventory, found),
        [] => {
            let finding = Diagnostic::new(
                "no-disk",
                at,
                format!("no disk of the machine fits {}", describe(selector)),
            );
            let finding = finding.label(format!("{} would have no disk to be made on", unit.name));
            let why = |disk: &Disk| {
                let why: Vec<_> =
                    mismatches(selector, disk).iter().map(ToString::to_string).collect();
                format!("not {}: {}", disk.path.display(), why.join(", "))
            };
            found.push(match inventory.disks.as_slice() {
                [] => finding.help("the inventory has no disks"),
                disks => finding.help(disks.iter().map(why).collect::<Vec<_>>().join("\n")),
            });
        }
        several => {
            let message = format!(
                "{} disks of the machine fit {}, and one has to",
                several.len(),
                describe(selector)
            );
            let finding = Diagnostic::new("many-disks", at, message);
            let each = several.iter().map(|disk| describe_disk(disk));
            found.push(finding.label("none of them is written").help(format!(
                "{}\nselect one by its serial number or its by-id name",
                each.collect::<Vec<_>>().join("\n")
            )));
        }
    }
}

/// The keys of a selector as they are written: the place in the unit is often no more than a reference to them.
fn describe(selector: &DiskSelector) -> String {
    let DiskSelector { path, by_id, serial, model, min_size, max_size, bus } = selector;
    let quoted =
        |key: &str, value: Option<String>| value.map(|value| format!("{key} = \"{value}\""));
    let text = |glob: &Option<Glob>| glob.as_ref().map(|glob| glob.as_str().to_owned());
    let keys = [
        quoted("path", path.as_ref().map(AbsPath::to_string)),
        quoted("by-id", text(by_id)),
        quoted("serial", text(serial)),
        quoted("model", text(model)),
        quoted("min-size", min_size.map(|size| size.to_string())),
        quoted("max-size", max_size.map(|size| size.to_string())),
        quoted("bus", bus.map(|bus| bus.to_string())),
    ];
    keys.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn describe_disk(disk: &Disk) -> String {
    let mut words = vec![about(disk.size.0)];
    words.extend(disk.bus.map(|bus| bus.0.to_string()));
    words.extend(disk.model.clone());
    words.extend(disk.serial.as_ref().map(|serial| format!("serial number {serial}")));
    words.extend(disk.by_id.first().cloned());
    format!("{}: {}", disk.path.display(), words.join(", "))
}

/// A disk on which the partition has to be made.
fn may_be_written(
    context: &Context<'_>,
    unit: &Unit,
    wanted: &kinds::Partition,
    disk: &Disk,
    at: Span,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let path = disk.path.display();
    if disk.read_only {
        let message = format!("{path}, which the selector fits, cannot be written");
        found.push(Diagnostic::new("read-only", at, message));
    }
    let marks = disk.content.iter().flatten().cloned();
    let partitions =
        disk.partitions.iter().map(|partition| format!("partition {}", partition.number));
    let on_it: Vec<String> = marks.chain(partitions).collect();
    if !on_it.is_empty() {
        let on_it = on_it.join(", ");
        match wanted.wipe {
            Wipe::Never => {
                let message = format!("{path}, which the selector fits, is not blank");
                let finding = Diagnostic::new("not-blank", at, message);
                found.push(finding.label(format!("it is left alone, for it has {on_it}")).help(
                    "take a blank disk, or write `wipe = \"always\"` if nothing on it is needed",
                ));
            }
            Wipe::Always => {
                let message = format!("the first boot erases {path}");
                let note = Diagnostic::new("erases", span_of(unit, "wipe"), message);
                found.note(note.label(format!("it has {on_it}")));
            }
        }
    }
    if let Some(size) = wanted.size.filter(|size| size.0 > disk.size.0) {
        let message = format!("{path} has {}, less than {size}", about(disk.size.0));
        found.push(Diagnostic::new("too-small", span_of(unit, "size"), message));
    }
    disk_drivers(context, disk, at, inventory, found);
}

fn disk_drivers(
    context: &Context<'_>,
    disk: &Disk,
    at: Span,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let what = format!("disk {}", disk.path.display());
    drivers(context, &disk.drivers, &what, at, inventory, found);
}

/// Whether the image has the drivers that a device takes.
fn drivers(
    context: &Context<'_>,
    chain: &[Driver],
    what: &str,
    at: Span,
    inventory: &Inventory,
    found: &mut Findings,
) {
    for driver in chain {
        let by_alias = driver.modalias.as_ref().map(|alias| context.drivers.serving(alias));
        let by_name = driver.name.as_ref().map(|name| context.drivers.find(name));
        if [by_alias, by_name].into_iter().flatten().any(|place| place != Place::Nowhere) {
            continue;
        }
        // What the same kernel has in itself needs no file, and not everything in a kernel is in its indexes.
        let release = &context.image.manifest.kernel_release;
        let same_kernel = inventory.machine.kernel.as_ref() == Some(release);
        if driver.built_in && same_kernel {
            continue;
        }
        let Some(name) = driver.name.as_ref().or(driver.modalias.as_ref()) else { continue };
        let message = format!("the image has no driver {name} for {what}");
        let finding = Diagnostic::new("driver-missing", at, message);
        if driver.built_in {
            let label = "the machine's own kernel had it built in; this one may too";
            found.note(finding.label(label));
            continue;
        }
        found.push(
            finding.label("the machine would not see it").help(match &driver.name {
                Some(name) => {
                    format!("add \"{name}\" to kernel.modules, and build the image again")
                }
                None => {
                    "add the module that drives it to kernel.modules, and build the image again"
                        .to_owned()
                }
            }),
        );
    }
}

fn device_unit(
    context: &Context<'_>,
    unit: &Unit,
    device: &kinds::Device,
    inventory: &Inventory,
    found: &mut Findings,
) {
    if let Some(link) = &device.link
        && link.as_str() != "lo"
        && !inventory.links.iter().any(|known| known.name == link.as_str())
    {
        let message = format!("the machine has no link {link}");
        let finding = Diagnostic::new("no-such-link", span_of(unit, "link"), message);
        found.push(finding.label(format!("{} waits for it until its timeout", unit.name)));
    }
    if let Some(path) = &device.path {
        source_exists(
            context,
            &Source::Path(path.clone()),
            span_of(unit, "path"),
            inventory,
            found,
        );
    }
    if let Some(partition) = &device.partition {
        let source = Source::PartLabel(partition.clone());
        source_exists(context, &source, span_of(unit, "partition"), inventory, found);
    }
}

/// Names of disks that the inventory would list.
const DISKS: [&str; 6] = ["/dev/sd", "/dev/vd", "/dev/nvme", "/dev/mmcblk", "/dev/xvd", "/dev/hd"];

/// A partition or disk that is named: it is there, or a unit makes it.
fn source_exists(
    context: &Context<'_>,
    source: &Source,
    at: Span,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let missing = match source {
        Source::PartLabel(label) => {
            let made = context.units.iter().any(|unit| match &unit.kind {
                Kind::Partition(partition) => partition.label == *label,
                _ => false,
            });
            let mut partitions = inventory.disks.iter().flat_map(|disk| &disk.partitions);
            (!made && !partitions.any(|partition| partition.label == label.as_str())).then(|| {
                format!("no disk of the machine has a partition {label}, and no unit makes it")
            })
        }
        Source::Path(path) if DISKS.iter().any(|disk| path.as_str().starts_with(disk)) => {
            let known = inventory.disks.iter().any(|disk| {
                // Also the nodes of its partitions: /dev/vda1, /dev/nvme0n1p1.
                let disk = disk.path.to_string_lossy();
                path.as_str().strip_prefix(&*disk).is_some_and(|rest| {
                    rest.trim_start_matches('p').bytes().all(|byte| byte.is_ascii_digit())
                })
            });
            (!known).then(|| format!("the machine has no {path}"))
        }
        _ => None,
    };
    if let Some(message) = missing {
        let all = inventory.disks.iter().map(describe_disk).collect::<Vec<_>>().join("\n");
        let finding = Diagnostic::new("no-such-device", at, message);
        found.push(if all.is_empty() { finding } else { finding.help(all) });
    }
}
