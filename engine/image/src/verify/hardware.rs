//! Whether the machine has what the graph selects, and the image the drivers for it.

use std::collections::BTreeMap;

use keel_unit::kinds;
use keel_unit::select::{LinkSelector, matching_links};
use keel_unit::source::Span;
use keel_unit::value::{MacAddr, Source};
use keel_unit::{Diagnostic, Kind, Unit};

use super::drivers::Place;
use super::image::Listing;
use super::partition::{self, about, describe_disk};
use super::{Context, Findings, span_of};
use crate::inventory::{Disk, Driver, Inventory, Link};

pub(super) fn check(
    context: &Context<'_>,
    inventory: &Inventory,
    listing: &Listing<'_>,
    found: &mut Findings,
) {
    machine(context, inventory, listing, found);
    let mut addresses = BTreeMap::new();
    for unit in context.units {
        let before = found.mark();
        match &unit.kind {
            Kind::Link(link) => {
                link_unit(context, unit, link, inventory, found);
                twice(unit, link, &mut addresses, found);
            }
            Kind::Partition(wanted) => partition::check(context, unit, wanted, inventory, found),
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
        found.blame(unit, before);
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
        let finding = Diagnostic::new("image-too-large", listing.span_of("unpacked"), message);
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

pub(super) fn disk_drivers(
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
