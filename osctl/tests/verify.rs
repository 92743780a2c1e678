//! The real osctl against an image that is built from programs of this host: what it finds, how it says so, and how it ends.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keel_image::{ImageSpec, Needs, Payload, Unwatched, build};

/// A kernel of which only the header is read.
fn kernel(release: &str) -> Vec<u8> {
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    kernel[0x236] = 1;
    kernel[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
    kernel
}

const CONFIG: &str = "schema = 1\n[storage.data.disk]\nbus = \"virtio\"\n";

/// A folder with units, a config and an image of them.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let write = |path: &str, text: &[u8]| {
            let path = bench.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("my.toml", CONFIG.as_bytes());
        let units = [
            ("boot", "wants = [\"all\"]\nafter = [\"all\"]\n[target]\n"),
            (
                "all",
                "wants = [\"mounter\", \"partition.data\", \"filesystem.data\", \"module.ext4\"]\nafter = [\"mounter\", \"partition.data\", \"filesystem.data\", \"module.ext4\"]\n[target]\n",
            ),
            (
                "mounter",
                "[oneshot]\nexec = [\"/usr/bin/mount\", \"--version\"]\ntimeout = \"1s\"\n",
            ),
            ("ext4", "[module]\nname = \"ext4\"\ntimeout = \"1s\"\n"),
            (
                "partition.data",
                "[partition]\nlabel = \"keel-data\"\ntype = \"7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441\"\ndisk = \"{{ storage.data.disk }}\"\ntimeout = \"1s\"\n",
            ),
            (
                "filesystem.data",
                "[filesystem]\ndevice = \"PARTLABEL=keel-data\"\ntype = \"ext4\"\ntimeout = \"1s\"\n",
            ),
        ];
        for (stem, text) in units {
            write(&format!("units/{stem}.toml"), format!("description = \"d\"\n{text}").as_bytes());
        }
        write("init.c", b"int main(void) { return 0; }");
        write("vmlinuz", &kernel("6.1.0-9"));
        let module = |path: &str| format!("lib/modules/6.1.0-9/{path}");
        write(&module("modules.order"), b"");
        write(&module("modules.dep"), b"kernel/fs/ext4.ko:\n");
        write(&module("kernel/fs/ext4.ko"), b"\0vermagic=6.1.0-9 SMP\0");
        let gcc = ["-static", "-o", "init", "init.c"];
        assert!(
            Command::new("gcc").args(gcc).current_dir(bench.0.path()).status().unwrap().success()
        );
        bench
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn image(&self, programs: &[&str]) {
        let set =
            keel_unit::lower(keel_unit::load::load(&self.at("units"), Some(&self.at("my.toml"))));
        let name =
            |source: &str| Path::new(source).file_name().unwrap().to_str().unwrap().to_owned();
        let payload = programs.iter().map(|source| Payload::new(name(source), *source));
        let spec = ImageSpec {
            init: self.at("init"),
            config: fs::read_to_string(self.at("my.toml")).unwrap(),
            units: self.at("units"),
            kernel: self.at("vmlinuz"),
            modules: self.at("."),
            needs: Needs::of(&set.unwrap()),
            payload: payload.collect(),
            ca_certificates: None,
            mtime: 0,
            firmware: None,
        };
        build(&spec, &self.at("image"), &Unwatched).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut osctl = Command::new(env!("CARGO_BIN_EXE_osctl"));
        osctl.args(["verify", "--image", "image"]).args(arguments).current_dir(self.0.path());
        let Output { status, stdout, stderr } = osctl.output().unwrap();
        let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.code().unwrap(), said)
    }
}

const ALL: [&str; 3] = ["/usr/bin/mount", "/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck"];

#[test]
fn a_whole_image_verifies_for_the_graph_it_was_built_from() {
    let bench = Bench::new();
    bench.image(&ALL);
    for arguments in [&[] as &[&str], &["--config", "my.toml"]] {
        let (code, said) = bench.run(arguments);
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with("verified: 6 units against "), "{said}");
    }
}

#[test]
fn what_is_missing_is_drawn_where_it_is_asked_for() {
    let bench = Bench::new();
    bench.image(&["/usr/bin/mount"]);
    let (code, said) = bench.run(&["--config", "my.toml"]);
    assert_eq!(code, 1);
    insta::with_settings!({filters => vec![(r"\d+ files", "N files")]}, {
        insta::assert_snapshot!("no_tools", said);
    });
    let (code, said) = bench.run(&["--config", "my.toml", "--output", "json"]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!(json["findings"][0]["code"], "program-missing");
    assert_eq!(json["findings"][0]["file"], "units/filesystem.data.toml");
    assert_eq!(json["findings"][0]["line"], 4);
    assert_eq!(json["findings"].as_array().unwrap().len(), 2);
}

#[test]
fn an_image_of_another_graph_and_a_machine_without_the_disk() {
    let bench = Bench::new();
    bench.image(&ALL);
    fs::write(bench.at("my.toml"), CONFIG.replace("virtio", "nvme")).unwrap();
    let inventory = r#"{"schema": 1, "machine": {"memory": "1GiB"}, "disks": [
        {"path": "/dev/vda", "size": "10GiB", "bus": "virtio", "content": []}]}"#;
    fs::write(bench.at("node.json"), inventory).unwrap();
    let (code, said) = bench.run(&["--config", "my.toml", "--inventory", "node.json"]);
    assert_eq!(code, 1);
    let filters = vec![(r"\d+ files", "N files"), (r"sha256:[0-9a-f]+", "sha256:…")];
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!("other_graph", said);
    });
    // The graph in the image itself fits that machine.
    assert_eq!(bench.run(&["--inventory", "node.json"]).0, 0);
}

#[test]
fn kernel_arguments_of_another_build_are_found() {
    let bench = Bench::new();
    bench.image(&ALL);
    fs::write(bench.at("my.toml"), format!("{CONFIG}[kernel]\narguments = [\"quiet\"]\n")).unwrap();
    let (code, said) = bench.run(&["--config", "my.toml", "--output", "json"]);
    assert_eq!(code, 1, "{said}");
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let found = &json["findings"][0];
    assert_eq!(
        (&found["code"], &found["file"], &found["line"]),
        (&"other-arguments".into(), &"my.toml".into(), &5.into())
    );
    // The image's own config and its manifest agree.
    assert_eq!(bench.run(&[]).0, 0);
    bench.image(&ALL);
    assert_eq!(bench.run(&["--config", "my.toml"]).0, 0);
}

#[test]
fn what_was_changed_after_the_build_is_found() {
    let bench = Bench::new();
    bench.image(&ALL);
    let path = bench.at("image/initramfs.zst");
    // The same archive packed otherwise has the same files and not the same bytes; its size would give it away.
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (code, said) = bench.run(&[]);
    assert_eq!(code, 1);
    assert!(said.contains("initramfs.zst is"), "{said}");
    bytes.truncate(100);
    fs::write(&path, &bytes).unwrap();
    let (code, said) = bench.run(&[]);
    assert_eq!(code, 1);
    assert!(said.contains("initramfs.zst is 100 bytes, and the manifest says"), "{said}");
}

#[test]
fn a_wrong_command_line_says_what_to_do() {
    let bench = Bench::new();
    let check = |arguments: &[&str], code: i32, expect: &str| {
        let (found, said) = bench.run(arguments);
        assert_eq!(found, code, "{said}");
        assert!(said.contains(expect), "{said}\ndoes not say\n{expect}");
    };
    check(&[], 2, "there is no image");
    bench.image(&ALL);
    check(&["--inventory", "no.json"], 2, "cannot read no.json");
    fs::write(bench.at("bad.json"), r#"{"schema": 1, "disk": []}"#).unwrap();
    check(&["--inventory", "bad.json"], 2, "unknown field `disk`");
    check(&["--inventory", "units"], 2, "units is no file of an inventory's size");
    check(&["--config", "no.toml"], 2, "cannot read no.toml");
    check(&["--config", "my.toml", "--goal", "nothing"], 2, "nothing");
    fs::write(bench.at("my.toml"), "schema = 2\n").unwrap();
    check(&["--config", "my.toml"], 1, "schema 2 is not known");
    fs::remove_file(bench.at("image/manifest.json")).unwrap();
    check(&[], 1, "cannot look into the image in image");
}

#[test]
fn no_secret_is_drawn() {
    let bench = Bench::new();
    let secret = "description = \"d\"\n[file]\npath = \"/etc/passwd/token\"\ncontent = \"hunter2\"\nsecret = true\ntimeout = \"1s\"\n";
    fs::write(bench.at("units/token.toml"), secret).unwrap();
    let goal =
        "description = \"d\"\nwants = [\"file.token\"]\nafter = [\"file.token\"]\n[target]\n";
    fs::write(bench.at("units/boot.toml"), goal).unwrap();
    bench.image(&ALL);
    for arguments in [&["--config", "my.toml"] as &[&str], &["--output", "json"]] {
        let (code, said) = bench.run(arguments);
        assert_eq!(code, 1);
        assert!(said.contains("/etc/passwd is no directory in the image"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// What the book shows of an inventory is one.
#[test]
fn the_inventory_of_the_book_is_read() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/inventory.md"));
    let page = page.unwrap();
    let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let inventory = keel_image::Inventory::parse(block).unwrap();
    assert_eq!(inventory.disks[0].content, Some(vec![]));
}
