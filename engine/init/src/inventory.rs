//! The machine's inventory as keel-control tells it: conversion at the edge, nothing else.

use keel_control as control;
use keel_host::inventory::{Behind, Disk, Driver, Inventory, Link, Partition};

pub(crate) fn told(inventory: Inventory) -> control::Inventory {
    let Inventory { machine, links, disks, left_out } = inventory;
    control::Inventory {
        architecture: machine.architecture,
        kernel: machine.kernel,
        cpus: machine.cpus,
        memory: machine.memory,
        links: links.into_iter().map(link).collect(),
        disks: disks.into_iter().map(disk).collect(),
        left_out,
    }
}

fn link(link: Link) -> control::InventoryLink {
    let Link { name, mac, carrier, kind, port, drivers } = link;
    let drivers = drivers.into_iter().map(driver).collect();
    control::InventoryLink { name, mac, carrier, kind, port, drivers }
}

fn disk(disk: Disk) -> control::InventoryDisk {
    let (content, unread) = match disk.content {
        Ok(content) => (content, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    control::InventoryDisk {
        path: disk.path.to_string_lossy().into_owned(),
        ids: disk.ids,
        serial: disk.serial,
        model: disk.model,
        size: disk.size,
        bus: disk.bus.map(|bus| bus.to_string()),
        removable: disk.removable,
        read_only: disk.read_only,
        content,
        unread,
        partitions: disk.partitions.into_iter().map(partition).collect(),
        image: disk.image.map(image),
        drivers: disk.drivers.into_iter().map(driver).collect(),
    }
}

fn image(behind: Behind) -> control::InventoryImage {
    let Behind { room, content, unfit } = behind;
    control::InventoryImage { room, content, unfit }
}

fn partition(partition: Partition) -> control::InventoryPartition {
    let Partition { number, label, type_guid, size, content } = partition;
    // In the spelling of unit files.
    let type_guid = type_guid.map(|guid| guid.to_string().to_uppercase());
    control::InventoryPartition { number, label, type_guid, size, content }
}

fn driver(driver: Driver) -> control::InventoryDriver {
    let Driver { name, modalias, built_in } = driver;
    control::InventoryDriver { name, modalias, built_in }
}
