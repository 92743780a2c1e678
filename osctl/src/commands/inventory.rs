//! `osctl inventory`: what a machine is made of, for the eye and for `osctl verify --inventory`.

use std::path::{Path, PathBuf};

use keel_image::{
    Behind, BusName, Disk, Driver, INVENTORY_SCHEMA, Inventory, Link, Mac, Machine, Partition,
    Size, TypeGuid,
};
use keel_proto::v1::{self, GetInventoryRequest};
use keel_unit::keys::Text;
use keel_unit::kinds::Bus;
use keel_unit::value::{ByteSize, Guid, MacAddr};

use crate::cli::NodeArgs;
use crate::error::{Exit, Failure};
use crate::node::{self, Cell};
use crate::output::{Ink, Output, Palette, printable};
use crate::place;

/// Links and disks are shown with what a machine config can select them by. With --output json, or in a file with --out, it is the
/// inventory that `osctl verify --inventory` reads; docs/inventory.md describes it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  osctl --endpoint 192.0.2.10 inventory\n  osctl --endpoint 192.0.2.10 inventory --out node.json\n  osctl inventory --example > node.json"
)]
pub(crate) struct Args {
    /// Write the inventory to a file as JSON
    #[arg(long, short = 'o', value_name = "FILE", conflicts_with = "example")]
    out: Option<PathBuf>,

    /// Print an inventory to begin with, and ask no node
    #[arg(long)]
    example: bool,
}

pub(crate) fn run(args: &Args, node: &NodeArgs, out: &mut Output) -> Result<Exit, Failure> {
    if args.example {
        out.json(&example())?;
        return Ok(Exit::Clean);
    }
    let told = node::each(node, out, async |connection| {
        let answer = connection.node().get_inventory(GetInventoryRequest {}).await;
        let answer = answer
            .map_err(|status| node::refused("tell what it is made of", &status))?
            .into_inner();
        let inventory =
            answer.inventory.ok_or_else(|| Failure::new("the node's answer holds no inventory"))?;
        Ok(told(inventory))
    })?;
    if let Some(path) = &args.out {
        let Some(inventory) = told.alone() else {
            return Err(Failure::usage("--out records one node, and several are named")
                .next("record them one after the other, each into its own file"));
        };
        write(path, inventory).map_err(|error| {
            Failure::new(format!("cannot write {}", path.display())).because(error)
        })?;
        out.notice(&format!("the inventory is in {}", path.display()));
    }
    told.show(out, |inventory| inventory, page, HEADER, |inventory| vec![row(inventory)])
}

const HEADER: [&str; 5] = ["ARCH", "CPUS", "MEMORY", "LINKS", "DISKS"];

/// A node's line in a table of several.
fn row(inventory: &Inventory) -> [Cell; 5] {
    let machine = &inventory.machine;
    let links =
        inventory.links.iter().filter(|link| link.kind.is_none()).map(|link| link.name.clone());
    let disks =
        inventory.disks.iter().map(|disk| format!("{} {}", disk.path.display(), size(disk.size)));
    [
        Cell::plain(machine.architecture.clone().unwrap_or_default()),
        Cell::plain(machine.cpus.map(|cpus| cpus.to_string()).unwrap_or_default()),
        Cell::plain(machine.memory.map(size).unwrap_or_default()),
        Cell::plain(links.collect::<Vec<_>>().join(", ")),
        Cell::plain(disks.collect::<Vec<_>>().join(", ")),
    ]
}

fn write(path: &Path, inventory: &Inventory) -> std::io::Result<()> {
    let mut text = serde_json::to_vec_pretty(inventory)?;
    text.push(b'\n');
    place::write(path, &text)
}

/// The node's words as the file has them. What this osctl does not know (a new bus) it leaves out.
fn told(inventory: v1::Inventory) -> Inventory {
    Inventory {
        for_editors: None,
        schema: INVENTORY_SCHEMA,
        machine: Machine {
            architecture: Some(inventory.architecture).filter(|text| !text.is_empty()),
            kernel: Some(inventory.kernel).filter(|text| !text.is_empty()),
            cpus: Some(inventory.cpus).filter(|cpus| *cpus > 0),
            memory: Some(Size(inventory.memory_bytes)).filter(|memory| memory.0 > 0),
        },
        links: inventory.links.into_iter().map(link).collect(),
        disks: inventory.disks.into_iter().map(disk).collect(),
        left_out: inventory.left_out,
    }
}

fn link(link: v1::InventoryLink) -> Link {
    Link {
        name: link.name,
        mac: link.mac.and_then(|mac| MacAddr::parse(&mac).ok()).map(Mac),
        carrier: link.carrier,
        kind: link.kind,
        port: link.port,
        drivers: link.drivers.into_iter().map(driver).collect(),
    }
}

fn disk(disk: v1::InventoryDisk) -> Disk {
    Disk {
        path: disk.path.into(),
        by_id: disk.by_id,
        serial: disk.serial,
        model: disk.model,
        size: Size(disk.size_bytes),
        bus: disk.bus.and_then(|bus| Bus::from_word(&bus)).map(BusName),
        removable: disk.removable,
        read_only: disk.read_only,
        content: disk.unread.is_none().then_some(disk.content),
        unread: disk.unread,
        partitions: disk.partitions.into_iter().map(partition).collect(),
        image: disk.image.map(behind),
        drivers: disk.drivers.into_iter().map(driver).collect(),
    }
}

fn behind(image: v1::InventoryImage) -> Behind {
    let known = image.unfit.is_none();
    Behind {
        room: known.then_some(Size(image.room_bytes)),
        content: known.then_some(image.content),
        unfit: image.unfit,
    }
}

fn partition(partition: v1::InventoryPartition) -> Partition {
    Partition {
        number: partition.number,
        label: partition.label,
        type_guid: partition.type_guid.and_then(|guid| Guid::parse(&guid).ok()).map(TypeGuid),
        size: Some(Size(partition.size_bytes)),
        content: partition.content.map(|content| content.marks),
    }
}

fn driver(driver: v1::InventoryDriver) -> Driver {
    Driver {
        name: Some(driver.name).filter(|name| !name.is_empty()),
        modalias: Some(driver.modalias).filter(|modalias| !modalias.is_empty()),
        built_in: driver.built_in,
    }
}

/// A machine in QEMU, as `osctl image run` starts it.
fn example() -> Inventory {
    let driver = |name: &str, modalias: &str| Driver {
        name: Some(name.to_owned()),
        modalias: Some(modalias.to_owned()),
        built_in: false,
    };
    Inventory {
        for_editors: None,
        schema: INVENTORY_SCHEMA,
        machine: Machine {
            architecture: Some("x86_64".to_owned()),
            kernel: None,
            cpus: Some(2),
            memory: Some(Size(2 << 30)),
        },
        links: vec![Link {
            name: "eth0".to_owned(),
            mac: Some(Mac(MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]))),
            carrier: Some(true),
            drivers: vec![driver("virtio_net", "virtio:d00000001v00001AF4")],
            ..Link::default()
        }],
        disks: vec![Disk {
            path: "/dev/vda".into(),
            by_id: vec!["virtio-keel-data".to_owned()],
            serial: Some("keel-data".to_owned()),
            size: Size(20 << 30),
            bus: Some(BusName(Bus::Virtio)),
            content: Some(Vec::new()),
            drivers: vec![driver("virtio_blk", "virtio:d00000002v00001AF4")],
            ..Disk::default()
        }],
        left_out: 0,
    }
}

/// The page for people. What a node says is made printable line by line, and only the headings are painted.
fn page(inventory: &Inventory, palette: Palette) -> String {
    let mut lines = vec![printable(&machine(&inventory.machine))];
    let heading = |text: &str| palette.paint(Ink::Faint, text);
    lines.extend([String::new(), heading("links")]);
    let rows = inventory.links.iter().map(link_row);
    lines.extend(table(rows.collect()));
    lines.extend([String::new(), heading("disks")]);
    for disk in &inventory.disks {
        let mut said = vec![format!("  {}", disk_line(disk))];
        let ids = disk.by_id.iter().map(|id| format!("    by-id    {id}"));
        let serial = disk.serial.iter().map(|serial| format!("    serial   {serial}"));
        let model = disk.model.iter().map(|model| format!("    model    {model}"));
        said.extend(model.chain(serial).chain(ids));
        said.push(format!("    holds    {}", holds(disk)));
        said.extend(
            disk.partitions
                .iter()
                .map(|p| format!("    part {:<4}{}", p.number, partition_line(p))),
        );
        said.extend(disk.image.iter().map(|image| format!("    image    {}", behind_line(image))));
        said.extend(drivers(&disk.drivers).map(|drivers| format!("    drivers  {drivers}")));
        lines.extend(said.iter().map(|line| printable(line)));
    }
    if inventory.left_out > 0 {
        lines.extend([String::new(), format!("{} more are not listed", inventory.left_out)]);
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn machine(machine: &Machine) -> String {
    let mut words: Vec<String> = machine.architecture.iter().cloned().collect();
    words.extend(machine.cpus.map(|cpus| match cpus {
        1 => "1 processor".to_owned(),
        cpus => format!("{cpus} processors"),
    }));
    words.extend(machine.memory.map(|memory| format!("{} of memory", size(memory))));
    words.extend(machine.kernel.as_ref().map(|kernel| format!("linux {kernel}")));
    words.join(", ")
}

fn link_row(link: &Link) -> Vec<String> {
    let carrier = match link.carrier {
        Some(true) => "carrier",
        Some(false) => "no carrier",
        None => "down",
    };
    let port = if link.port { " (a port)" } else { "" };
    let cells = [
        link.name.clone(),
        link.mac.map(|mac| mac.0.to_string()).unwrap_or_default(),
        carrier.to_owned(),
        drivers(&link.drivers).or_else(|| link.kind.clone()).unwrap_or_default() + port,
    ];
    // Before the columns are aligned.
    cells.iter().map(|cell| printable(cell)).collect()
}

fn drivers(drivers: &[Driver]) -> Option<String> {
    let names: Vec<&str> = drivers.iter().filter_map(|driver| driver.name.as_deref()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn disk_line(disk: &Disk) -> String {
    let mut words = vec![disk.path.display().to_string(), size(disk.size)];
    words.extend(disk.bus.map(|bus| bus.0.to_string()));
    words.extend(disk.removable.then(|| "removable".to_owned()));
    words.extend(disk.read_only.then(|| "read-only".to_owned()));
    words.join("  ")
}

fn holds(disk: &Disk) -> String {
    match (&disk.content, &disk.unread) {
        (_, Some(why)) => format!("not known: {why}"),
        (None, None) => "not known".to_owned(),
        (Some(marks), None) if marks.is_empty() => "nothing: it is blank".to_owned(),
        (Some(marks), None) => marks.join(", "),
    }
}

/// What is behind the image of Keel on a disk.
fn behind_line(image: &Behind) -> String {
    if let Some(why) = &image.unfit {
        return format!("of Keel; nothing can be added to it: {why}");
    }
    let room = image.room.map(|room| format!("; {} behind it", size(room))).unwrap_or_default();
    match image.content.as_deref() {
        None => format!("of Keel{room}"),
        Some([]) => format!("of Keel{room}, blank"),
        Some(marks) => format!("of Keel{room}, with {}", marks.join(", ")),
    }
}

fn partition_line(partition: &Partition) -> String {
    let mut words = vec![partition.label.clone()];
    words.extend(partition.size.map(size));
    match partition.content.as_deref() {
        Some([]) => words.push("blank".to_owned()),
        Some([first, ..]) => words.push(first.clone()),
        None => {}
    }
    words.retain(|word| !word.is_empty());
    words.join("  ")
}

/// Rows with their columns aligned.
fn table(rows: Vec<Vec<String>>) -> Vec<String> {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  "))
    };
    rows.iter().map(line).collect()
}

fn size(size: Size) -> String {
    ByteSize(size.0).rounded()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_a_config_can_select_by() {
        let mut inventory = example();
        inventory.machine.kernel = Some("6.1.0-9".to_owned());
        inventory.links.push(Link {
            name: "br0".to_owned(),
            kind: Some("bridge".to_owned()),
            ..Link::default()
        });
        inventory.disks.push(Disk {
            path: "/dev/sda".into(),
            model: Some("QEMU HARDDISK".to_owned()),
            size: Size(500_107_862_016),
            bus: Some(BusName(Bus::Sata)),
            removable: true,
            content: Some(vec!["GPT partition table".to_owned()]),
            partitions: vec![Partition {
                number: 1,
                label: "keel-data".to_owned(),
                size: Some(Size(8 << 20)),
                content: Some(vec!["ext2/3/4 filesystem".to_owned()]),
                ..Partition::default()
            }],
            ..Disk::default()
        });
        inventory.disks.push(Disk {
            path: "/dev/sdb".into(),
            unread: Some("it did not answer in time".to_owned()),
            ..Disk::default()
        });
        inventory.left_out = 3;
        insta::assert_snapshot!(page(&inventory, Palette::PLAIN));
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_node_says() {
        let evil = || "\x1b[2J\u{9b}31m\r\nx\x07".to_owned();
        let driver = || Driver { name: Some(evil()), ..Driver::default() };
        let disk = Disk {
            path: evil().into(),
            by_id: vec![evil()],
            serial: Some(evil()),
            model: Some(evil()),
            content: Some(vec![evil()]),
            partitions: vec![Partition {
                label: evil(),
                content: Some(vec![evil()]),
                ..Partition::default()
            }],
            drivers: vec![driver()],
            ..Disk::default()
        };
        let unread = Disk { unread: Some(evil()), ..Disk::default() };
        let inventory = Inventory {
            for_editors: None,
            schema: INVENTORY_SCHEMA,
            machine: Machine {
                architecture: Some(evil()),
                kernel: Some(evil()),
                ..Machine::default()
            },
            links: vec![
                Link { name: evil(), kind: Some(evil()), ..Link::default() },
                Link { drivers: vec![driver()], ..Link::default() },
            ],
            disks: vec![disk, unread],
            left_out: 0,
        };
        let page = page(&inventory, Palette::PLAIN);
        assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
        assert!(page.lines().all(|line| !line.starts_with('x')), "{page}");
    }

    /// What is printed as an example is read as an inventory.
    #[test]
    fn the_example_is_an_inventory() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(Inventory::parse(&text).unwrap(), example());
    }
}
