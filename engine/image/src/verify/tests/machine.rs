//! The same against a machine's inventory.

use super::*;

const MACHINE: &str = r#"{
  "schema": 1,
  "machine": {"architecture": "x86_64", "kernel": "6.1.0-9", "memory": "2GiB"},
  "links": [
    {"name": "eth0", "mac": "52:54:00:00:00:01", "carrier": true,
     "drivers": [{"name": "virtio_net", "modalias": "virtio:d00000001v00001AF4"}]},
    {"name": "eth1", "mac": "52:54:00:00:00:02", "carrier": false, "drivers": [{"name": "e1000"}]},
    {"name": "br0", "mac": "52:54:00:00:00:03", "kind": "bridge"}
  ],
  "disks": [
    {"path": "/dev/vda", "by-id": ["virtio-data"], "serial": "data", "size": "10GiB", "bus": "virtio", "content": []},
    {"path": "/dev/sda", "model": "QEMU HARDDISK", "size": "20GiB", "bus": "sata",
     "content": ["GPT partition table"],
     "partitions": [{"number": 1, "label": "root", "type": "0FC63DAF-8483-4772-8E79-3D69D8477DE4"}]}
  ]
}"#;

#[track_caller]
fn check(change: &dyn Fn(&mut Inventory), units: &[(&str, &str)], expect: &[&str]) {
    let mut inventory = Inventory::parse(MACHINE).unwrap();
    change(&mut inventory);
    let (image, set) = (Parts::sound().image(), graph(units));
    let units: Vec<&Unit> = set.units.iter().collect();
    let question = Question { inventory: Some(&inventory), ..question(&image, &set, &units) };
    let verdict = verify(&question);
    let all = verdict.findings.diagnostics.iter().map(|d| (d, "", &verdict.findings));
    let all = all.chain(verdict.notes.diagnostics.iter().map(|d| (d, "~", &verdict.notes)));
    let told = |(d, mark, report): (&Diagnostic, &str, &Report)| {
        let help = d.help.as_ref().map(|help| format!(" [{help}]")).unwrap_or_default();
        format!("{mark}{} {}: {}{help}", report.location(d), d.code, d.message)
    };
    assert_eq!(all.map(told).collect::<Vec<_>>(), expect);
}

fn same(_: &mut Inventory) {}

fn partition(disk: &str) -> String {
    format!(
        "[partition]\nlabel = \"keel-data\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\n{disk}"
    )
}

#[test]
fn a_selector_means_one_blank_disk() {
    let check = |change: &dyn Fn(&mut Inventory), disk: &str, expect: &[&str]| {
        check(change, &[("p", &partition(disk))], expect);
    };
    check(&same, "disk = { bus = \"virtio\" }", &[]);
    check(
        &same,
        "disk = { bus = \"nvme\", min-size = \"15GiB\" }",
        &["p.toml:5 no-disk: no disk of the machine fits min-size = \"15GiB\", bus = \"nvme\" \
         [not /dev/vda: its size is 10GiB, its bus is virtio\nnot /dev/sda: its bus is sata]"],
    );
    check(
        &|i| i.disks.clear(),
        "disk = { bus = \"nvme\" }",
        &[
            "p.toml:5 no-disk: no disk of the machine fits bus = \"nvme\" [the inventory has no disks]",
        ],
    );
    check(
        &same,
        "disk = { min-size = \"1GiB\" }",
        &["p.toml:5 many-disks: 2 disks of the machine fit min-size = \"1GiB\", and one has to \
         [/dev/vda: 10GiB, virtio, serial number data, virtio-data\n/dev/sda: 20GiB, sata, QEMU HARDDISK\n\
         select one by its serial number or its by-id name]"],
    );
    check(
        &same,
        "disk = { path = \"/dev/sda\" }",
        &["p.toml:5 not-blank: /dev/sda, which the selector fits, is not blank \
         [take a blank disk, or write `wipe = \"always\"` if nothing on it is needed]"],
    );
    check(
        &same,
        "disk = { path = \"/dev/sda\" }\nwipe = \"always\"",
        &["~p.toml:6 erases: the first boot erases /dev/sda"],
    );
    check(
        &|i| i.disks[0].read_only = true,
        "disk = { path = \"/dev/vda\" }",
        &["p.toml:5 read-only: /dev/vda, which the selector fits, cannot be written"],
    );
    check(
        &same,
        "disk = { path = \"/dev/vda\" }\nsize = \"11GiB\"",
        &["p.toml:6 too-small: /dev/vda has 10238MiB for partitions, less than 11GiB"],
    );
    check(
        &same,
        "",
        &["p.toml:3 no-partition: no disk of the machine has a partition keel-data \
         [select the disk that may be partitioned in storage.data.disk]"],
    );
}

/// What the node does with each is in keel-host, `disk/addition.rs`; the rule is one and the same.
#[test]
fn behind_an_image_there_is_room_for_a_partition() {
    let image = |behind: &'static str, partitions: bool| {
        move |inventory: &mut Inventory| {
            let disk = &mut inventory.disks[0];
            disk.content = Some(vec!["GPT partition table".to_owned()]);
            disk.image = serde_json::from_str(behind).unwrap();
            let found = crate::inventory::Partition {
                number: 2,
                label: "keel-esp".to_owned(),
                ..Default::default()
            };
            disk.partitions = if partitions { vec![found] } else { Vec::new() };
        }
    };
    let check = |change: &dyn Fn(&mut Inventory), more: &str, expect: &[&str]| {
        let unit = partition(&format!("disk = {{ path = \"/dev/vda\" }}\n{more}"));
        check(change, &[("p", &unit)], expect);
    };
    let blank = image(r#"{"room": "9GiB", "content": []}"#, true);
    check(&blank, "", &[]);
    check(&blank, "wipe = \"always\"", &[]);
    check(&blank, "size = \"9GiB\"", &[]);
    check(
        &blank,
        "size = \"10GiB\"",
        &["p.toml:6 too-small: /dev/vda has 9GiB for partitions behind its image, less than 10GiB"],
    );
    check(
        &image(r#"{"room": "1MiB", "content": []}"#, true),
        "",
        &["p.toml:5 too-small: /dev/vda has 1MiB for partitions behind its image, less than 16MiB"],
    );
    let full = image(r#"{"room": "9GiB", "content": ["btrfs filesystem"]}"#, true);
    check(
        &full,
        "",
        &[
            "p.toml:5 not-blank: /dev/vda, which the selector fits, is not blank behind the image that it carries \
         [write `wipe = \"always\"` if nothing behind the image is needed; the image stays]",
        ],
    );
    check(
        &full,
        "wipe = \"always\"",
        &["~p.toml:6 erases: the first boot erases what is behind the image on /dev/vda"],
    );
    check(
        &image(r#"{"unfit": "its partition table is full"}"#, true),
        "wipe = \"always\"",
        &[
            "p.toml:5 unfit-image: /dev/vda, which the selector fits, carries an image of Keel, but its partition table is full \
         [write the image to the disk again, or take a larger disk]",
        ],
    );
    check(
        &image("{}", true),
        "",
        &[
            "~p.toml:5 not-looked-at: nobody has looked whether what is behind the image on /dev/vda is blank \
         [write `\"content\": []` for it in the inventory if it is]",
        ],
    );
    // An inventory that is older, or by hand.
    check(
        &image("null", true),
        "",
        &[
            "p.toml:5 not-blank: /dev/vda, which the selector fits, is not blank, as far as the inventory tells \
         [it looks as if it carried an image of Keel, and then the partition goes behind that: take the inventory again with \
         this version of Keel, or write `image` for the disk]",
        ],
    );
}

#[test]
fn what_nobody_looked_at_is_not_taken_for_blank() {
    let unit = partition("disk = { path = \"/dev/vda\" }");
    let check = |change: &dyn Fn(&mut Inventory), expect: &[&str]| {
        check(change, &[("p", &unit)], expect);
    };
    check(
        &|i| i.disks[0].content = None,
        &["~p.toml:5 not-looked-at: nobody has looked whether /dev/vda is blank \
         [write `\"content\": []` for it in the inventory if it is]"],
    );
    // The partition may be on a disk that could not be read, whichever is selected: the node then writes none.
    for disk in [0, 1] {
        let path = ["/dev/vda", "/dev/sda"][disk];
        check(
            &|i| {
                i.disks[disk].content = None;
                i.disks[disk].partitions.clear();
                i.disks[disk].unread = Some("it did not answer in time".to_owned());
            },
            &[&format!(
                "~p.toml:5 not-looked-at: {path} could not be looked at: it did not answer in time"
            )],
        );
    }
}

#[test]
fn a_partition_that_is_there_needs_no_selector() {
    let with = |disks: &'static [usize]| {
        move |inventory: &mut Inventory| {
            for disk in disks {
                let label = "keel-data".to_owned();
                let found = crate::inventory::Partition { number: 1, label, ..Default::default() };
                inventory.disks[*disk].partitions = vec![found];
            }
        }
    };
    check(&with(&[1]), &[("p", &partition(""))], &[]);
    check(&with(&[1]), &[("p", &partition("disk = { path = \"/dev/none\" }"))], &[]);
    check(
        &with(&[0, 1]),
        &[("p", &partition(""))],
        &[
            "p.toml:3 partition-twice: partition keel-data is there more than once: /dev/vda, partition 1; /dev/sda, partition 1",
        ],
    );
    let mount = "[mount]\nsource = \"PARTLABEL=keel-data\"\ntarget = \"/mnt\"\nfstype = \"vfat\"";
    check(&with(&[1]), &[("m", mount)], &[]);
    check(&same, &[("m", mount), ("p", &partition("disk = { path = \"/dev/vda\" }"))], &[]);
    let disks = "[/dev/vda: 10GiB, virtio, serial number data, virtio-data\n/dev/sda: 20GiB, sata, QEMU HARDDISK]";
    check(
        &same,
        &[("m", mount)],
        &[&format!(
            "m.toml:3 no-such-device: no disk of the machine has a partition keel-data, and no unit makes it {disks}"
        )],
    );
    let device = |path: &str| format!("[device]\npath = \"{path}\"");
    check(&same, &[("d", &device("/dev/sda1"))], &[]);
    check(&same, &[("d", &device("/dev/ttyS0"))], &[]);
    check(
        &same,
        &[("d", &device("/dev/nvme0n1"))],
        &[&format!("d.toml:3 no-such-device: the machine has no /dev/nvme0n1 {disks}")],
    );
}

#[test]
fn links_are_there_and_have_drivers() {
    let link = |keys: &str| format!("[link]\n{keys}");
    let check = |change: &dyn Fn(&mut Inventory), keys: &str, expect: &[&str]| {
        check(change, &[("l", &link(keys))], expect);
    };
    check(&same, "name = \"lo\"", &[]);
    check(&same, "name = \"eth0\"\ndhcp = true", &[]);
    check(&same, "mac = \"52:54:00:00:00:01\"", &[]);
    check(&same, "name = \"br0\"", &[]);
    let all = "[the machine has eth0 (52:54:00:00:00:01); eth1 (52:54:00:00:00:02); br0 (52:54:00:00:00:03, bridge)]";
    check(
        &same,
        "name = \"ens3\"",
        &[&format!("l.toml:3 no-such-link: the machine has no link ens3 {all}")],
    );
    check(
        &same,
        "mac = \"52:54:00:00:00:09\"",
        &[&format!(
            "l.toml:3 no-such-link: the machine has no link with the address 52:54:00:00:00:09 {all}"
        )],
    );
    const E1000: &str = "l.toml:3 driver-missing: the image has no driver e1000 for link eth1 \
         [add \"e1000\" to kernel.modules, and build the image again]";
    check(&same, "name = \"eth1\"", &[E1000]);
    check(
        &same,
        "name = \"eth1\"\ndhcp = true",
        &[E1000, "~l.toml:3 no-carrier: no carrier was on eth1 when the inventory was taken"],
    );
    // Built into the kernel of the machine: this one may have it too, and if it is the same, it has.
    check(&|i| i.links[1].drivers[0].built_in = true, "name = \"eth1\"", &[]);
    check(
        &|i| {
            i.links[1].drivers[0].built_in = true;
            i.machine.kernel = Some("5.10".into());
        },
        "name = \"eth1\"",
        &["~l.toml:3 driver-missing: the image has no driver e1000 for link eth1"],
    );
    check(
        &|i| i.links.clear(),
        "dhcp = true",
        &["l.toml:2 no-such-link: the machine has no ethernet link [the inventory has no links]"],
    );
}

#[test]
fn an_address_belongs_to_one_link() {
    let link = |name: &str| format!("[link]\nname = \"{name}\"\naddresses = [\"192.0.2.1/24\"]");
    check(
        &same,
        &[("a", &link("eth0")), ("b", &link("br0"))],
        &["b.toml:4 address-twice: link.a and link.b both have 192.0.2.1"],
    );
}

#[test]
fn the_machine_can_run_and_hold_the_image() {
    check(&same, &[], &[]);
    check(&|i| i.machine = Default::default(), &[], &[]);
    let places = |expect: &str, change: &dyn Fn(&mut Inventory)| {
        let mut inventory = Inventory::parse(MACHINE).unwrap();
        change(&mut inventory);
        let (image, set) = (Parts::sound().image(), graph(&[]));
        let question = Question { inventory: Some(&inventory), ..question(&image, &set, &[]) };
        let verdict = verify(&question);
        let [found] = verdict.findings.diagnostics.as_slice() else { panic!("{verdict:?}") };
        assert!(found.message.starts_with(expect), "{}", found.message);
    };
    places("the image is built for x86-64, and the machine is arm64", &|i| {
        i.machine.architecture = Some("aarch64".into());
    });
    places("the image unpacks to", &|i| i.machine.memory = Some(crate::inventory::Size(64 << 10)));
}
