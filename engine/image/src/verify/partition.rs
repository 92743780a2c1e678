//! Where the partition of a unit is on the machine, or would be made: by the rule that the node itself goes by.

use keel_unit::kinds::{self, DiskSelector};
use keel_unit::select::{
    Choice, Permit, Refusal, choose, mismatches, permit, room_on, size_within,
};
use keel_unit::source::Span;
use keel_unit::value::{AbsPath, ByteSize, Glob};
use keel_unit::{Diagnostic, Unit};

use super::hardware::disk_drivers;
use super::{Context, Findings, span_of};
use crate::firmware::BOOT_LABELS;
use crate::inventory::{Behind, Disk, Inventory};

pub(super) fn check(
    context: &Context<'_>,
    unit: &Unit,
    wanted: &kinds::Partition,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let at = match wanted.disk {
        Some(_) => span_of(unit, "disk"),
        None => span_of(unit, "label"),
    };
    // A disk that did not answer once may answer at boot; that it may not is told beside the verdict.
    let choice = choose(wanted, &inventory.disks, false);
    if !matches!(choice, Ok(Choice::Located { .. }) | Err(Refusal::NotSelected | Refusal::Twice(_)))
    {
        unread(wanted, at, inventory, found);
    }
    match choice {
        Ok(Choice::Located { disk, .. }) => disk_drivers(context, disk, at, inventory, found),
        Ok(Choice::Selected(disk)) => {
            may_be_written(unit, wanted, disk, at, found);
            disk_drivers(context, disk, at, inventory, found);
        }
        Err(Refusal::ReadOnly(disk)) => {
            let path = disk.path.display();
            let message = format!("{path}, which the selector fits, cannot be written");
            found.push(Diagnostic::new("read-only", at, message));
            disk_drivers(context, disk, at, inventory, found);
        }
        Err(refusal) => refused(unit, wanted, &refusal, at, inventory, found),
    }
}

fn refused(
    unit: &Unit,
    wanted: &kinds::Partition,
    refusal: &Refusal<'_, Disk>,
    at: Span,
    inventory: &Inventory,
    found: &mut Findings,
) {
    let label = &wanted.label;
    let fits = || wanted.disk.as_ref().map(describe).unwrap_or_default();
    found.push(match refusal {
        Refusal::Twice(places) => {
            let each = places
                .iter()
                .map(|(disk, number)| format!("{}, partition {number}", disk.path.display()));
            let each = each.collect::<Vec<_>>().join("; ");
            let message = format!("partition {label} is there more than once: {each}");
            Diagnostic::new("partition-twice", span_of(unit, "label"), message)
                .label("none of them is used")
        }
        Refusal::ManyDisks(disks) => {
            let message =
                format!("{} disks of the machine fit {}, and one has to", disks.len(), fits());
            let finding = Diagnostic::new("many-disks", at, message);
            let each = disks.iter().map(|disk| describe_disk(disk));
            finding.label("none of them is written").help(format!(
                "{}\nselect one by its serial number or its by-id name",
                each.collect::<Vec<_>>().join("\n")
            ))
        }
        Refusal::NoDisk | Refusal::Unread | Refusal::ReadOnly(_) => {
            let message = format!("no disk of the machine fits {}", fits());
            let finding = Diagnostic::new("no-disk", at, message);
            let finding = finding.label(format!("{} would have no disk to be made on", unit.name));
            let why = |disk: &Disk| {
                let why = wanted.disk.iter().flat_map(|selector| mismatches(selector, disk));
                let why: Vec<_> = why.map(|why| why.to_string()).collect();
                format!("not {}: {}", disk.path.display(), why.join(", "))
            };
            match inventory.disks.as_slice() {
                [] => finding.help("the inventory has no disks"),
                disks => finding.help(disks.iter().map(why).collect::<Vec<_>>().join("\n")),
            }
        }
        Refusal::NotSelected => {
            let message = format!("no disk of the machine has a partition {label}");
            Diagnostic::new("no-partition", at, message)
                .label("none is made: no disk is selected")
                .help("select the disk that may be partitioned in storage.data.disk")
        }
    });
}

/// The disks of which nobody knows whether the partition is on them.
fn unread(wanted: &kinds::Partition, at: Span, inventory: &Inventory, found: &mut Findings) {
    for disk in &inventory.disks {
        let Some(why) = &disk.unread else { continue };
        let message = format!("{} could not be looked at: {why}", disk.path.display());
        found.note(Diagnostic::new("not-looked-at", at, message).label(format!(
            "partition {} may be on it; a node that cannot read it at boot writes no disk",
            wanted.label
        )));
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

pub(super) fn describe_disk(disk: &Disk) -> String {
    let mut words = vec![about(disk.size.0)];
    words.extend(disk.bus.map(|bus| bus.0.to_string()));
    words.extend(disk.model.clone());
    words.extend(disk.serial.as_ref().map(|serial| format!("serial number {serial}")));
    words.extend(disk.by_id.first().cloned());
    format!("{}: {}", disk.path.display(), words.join(", "))
}

/// A place that a partition would be made in.
struct Place<'a> {
    /// Such as `/dev/vda`, or what is behind the image on it.
    name: String,
    /// What is known to be there; nothing where nobody has looked.
    content: Option<Vec<String>>,
    /// Bytes for a partition, where that is known.
    room: Option<u64>,
    /// The image that it lies behind.
    image: Option<&'a Behind>,
}

impl<'a> Place<'a> {
    fn on(disk: &'a Disk) -> Self {
        let path = disk.path.display();
        if let Some(behind) = &disk.image {
            return Self {
                name: format!("what is behind the image on {path}"),
                content: behind.content.clone(),
                room: behind.room.map(|size| size.0),
                image: Some(behind),
            };
        }
        let partitions =
            disk.partitions.iter().map(|partition| format!("partition {}", partition.number));
        let marks = disk.content.iter().flatten().cloned();
        let known: Vec<String> = marks.chain(partitions).collect();
        let looked_at = disk.content.is_some() || !known.is_empty();
        // What a logical sector of 4096 bytes changes of this is less than the alignment.
        let room = Some(room_on(disk.size.0, 512));
        Self { name: path.to_string(), content: looked_at.then_some(known), room, image: None }
    }
}

/// A disk on which the partition has to be made.
fn may_be_written(
    unit: &Unit,
    wanted: &kinds::Partition,
    disk: &Disk,
    at: Span,
    found: &mut Findings,
) {
    let path = disk.path.display();
    let place = Place::on(disk);
    if let Some(why) = place.image.and_then(|behind| behind.unfit.as_ref()) {
        let message =
            format!("{path}, which the selector fits, carries an image of Keel, but {why}");
        let finding = Diagnostic::new("unfit-image", at, message);
        found.push(
            finding
                .label("no partition can be added behind the image, and the disk is left alone")
                .help("write the image to the disk again, or take a larger disk"),
        );
        return;
    }
    match place.content.as_deref() {
        None => {
            if disk.unread.is_none() {
                let message = format!("nobody has looked whether {} is blank", place.name);
                let note = Diagnostic::new("not-looked-at", at, message);
                let note = note.label("if it is not, it is left alone");
                found.note(note.help("write `\"content\": []` for it in the inventory if it is"));
            }
        }
        Some(on_it) => match permit(wanted.wipe, on_it.is_empty()) {
            Some(Permit::Write) => {}
            Some(Permit::EraseFirst) => {
                let message = format!("the first boot erases {}", place.name);
                let note = Diagnostic::new("erases", span_of(unit, "wipe"), message);
                found.note(note.label(format!("it has {}", on_it.join(", "))));
            }
            None => not_blank(disk, &place, on_it, at, found),
        },
    }
    let size = wanted.size.map(|size| size.0);
    if let Some(Err(small)) = place.room.map(|room| size_within(size, room)) {
        let (room, wanted) = (ByteSize(small.usable), ByteSize(small.wanted));
        let behind = if place.image.is_some() { " behind its image" } else { "" };
        let message = format!("{path} has {room} for partitions{behind}, less than {wanted}");
        let at = if size.is_some() { span_of(unit, "size") } else { at };
        found.push(Diagnostic::new("too-small", at, message));
    }
}

fn not_blank(disk: &Disk, place: &Place<'_>, on_it: &[String], at: Span, found: &mut Findings) {
    let path = disk.path.display();
    let label = format!("it is left alone, for it has {}", on_it.join(", "));
    let ours =
        |partition: &crate::inventory::Partition| BOOT_LABELS.contains(&partition.label.as_str());
    let (message, help) = if place.image.is_some() {
        (
            format!(
                "{path}, which the selector fits, is not blank behind the image that it carries"
            ),
            "write `wipe = \"always\"` if nothing behind the image is needed; the image stays",
        )
    } else if disk.partitions.iter().any(ours) {
        (
            format!("{path}, which the selector fits, is not blank, as far as the inventory tells"),
            "it looks as if it carried an image of Keel, and then the partition goes behind that: take the inventory again with \
             this version of Keel, or write `image` for the disk",
        )
    } else {
        (
            format!("{path}, which the selector fits, is not blank"),
            "take a blank disk, or write `wipe = \"always\"` if nothing on it is needed",
        )
    };
    found.push(Diagnostic::new("not-blank", at, message).label(label).help(help));
}

/// A size for people: exact where it has few digits.
pub(super) fn about(bytes: u64) -> String {
    let exact = ByteSize(bytes).to_string();
    if exact.len() <= 7 { exact } else { ByteSize(bytes).rounded() }
}
