//! What units of the graph use, and what is not the image's business.

use super::*;

#[test]
fn conditions_that_can_never_hold_are_notes() {
    let unit = |condition: &str| {
        format!("[condition]\n{condition}\n[service]\nexec = [\"/usr/bin/gone\"]")
    };
    let check = |condition: &str, expect: &[&str]| {
        check(none, &[("u", &unit(condition))], expect);
    };
    const GONE: &str = "u.toml:5 program-missing: the image has no /usr/bin/gone";
    check("when = false", &[]);
    check(
        "path-exists = [\"/usr/bin/gone\"]",
        &["~u.toml:3 never-met: u will be skipped: the image has no /usr/bin/gone"],
    );
    check(
        "path-missing = [\"/usr/bin/tool\"]",
        &["~u.toml:3 never-met: u will be skipped: the image has /usr/bin/tool"],
    );
    check("path-exists = [\"/usr/bin/tool\"]", &[GONE]);
    check("kernel-argument = [\"quiet\"]", &[GONE]);
    check(
        "kernel-argument = [\"debug\"]",
        &[GONE, "~u.toml:3 never-met: the image's kernel arguments have no debug"],
    );
}

#[test]
fn what_a_mount_or_a_unit_brings_is_not_the_images_business() {
    let run = |path: &str| format!("[oneshot]\nexec = [\"{path}\"]");
    const DATA: (&str, &str) =
        ("data", "[mount]\nsource = \"tmpfs\"\ntarget = \"/var/lib/keel\"\nfstype = \"tmpfs\"");
    check(none, &[("u", &run("/var/lib/keel/x")), DATA], &[]);
    check(
        none,
        &[("u", &run("/var/lib/keel/x"))],
        &["u.toml:3 program-missing: the image has no /var/lib/keel/x"],
    );
    check(
        none,
        &[
            ("u", &run("/opt/x")),
            ("f", "[file]\npath = \"/opt/x\"\ncopy = \"/usr/bin/tool\"\nmode = \"0755\""),
        ],
        &[],
    );
    check(
        |p| p.file("/var/lib/keel/x", 0o755, &PROGRAMS.fixed),
        &[DATA],
        &["~data.toml:4 hidden: mount.data hides what the image has there: x"],
    );
}

#[test]
fn paths_must_have_room() {
    check(
        none,
        &[
            ("a", "[file]\npath = \"/usr/bin/tool/x\"\ncontent = \"c\""),
            ("b", "[file]\npath = \"/usr/bin\"\ncontent = \"c\""),
            ("c", "[file]\npath = \"/etc/c\"\ncopy = \"/etc/gone\""),
            ("d", "[mount]\nsource = \"tmpfs\"\ntarget = \"/usr/bin/tool\"\nfstype = \"tmpfs\""),
            (
                "e",
                "[mount]\nsource = \"/srv\"\ntarget = \"/mnt\"\nfstype = \"none\"\noptions = [\"bind\"]",
            ),
            ("f", "[file]\npath = \"/new/deep/file\"\ncontent = \"c\""),
        ],
        &[
            "b.toml:3 path-taken: /usr/bin is a directory in the image",
            "c.toml:4 not-in-image: the image has no /etc/gone to copy",
            "d.toml:4 path-taken: /usr/bin/tool is a file in the image",
            "e.toml:3 not-in-image: the image has no /srv to mount",
        ],
    );
    check(
        none,
        &[("a", "[file]\npath = \"/usr/bin/tool/x\"\ncontent = \"c\"")],
        &["a.toml:3 path-taken: /usr/bin/tool is no directory in the image"],
    );
}
