//! Programs: whether they run, and what they need for it.

use super::*;

#[test]
fn programs_run_or_it_is_said_why_not() {
    const RUN: (&str, &str) = ("u", "[service]\nexec = [\"/usr/bin/tool\"]");
    check(
        |p| p.without("/usr/bin/tool"),
        &[RUN],
        &["u.toml:3 program-missing: the image has no /usr/bin/tool"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o644, &PROGRAMS.fixed),
        &[RUN],
        &["u.toml:3 not-executable: /usr/bin/tool has mode 0644, and nobody may execute it"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o755, b"text"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/tool is neither an ELF program nor a script"],
    );
    check(
        |p| p.file("/usr/bin/tool", 0o755, &foreign(&PROGRAMS.fixed)),
        &[RUN],
        &["u.toml:3 wrong-machine: /usr/bin/tool is built for arm64, and the node is x86-64"],
    );
    check(
        |p| p.without("/usr/lib/libodd.so"),
        &[RUN],
        &["u.toml:3 library-missing: the image has no libodd.so, which /usr/bin/tool needs"],
    );
    check(
        |p| p.without("/usr/lib/libbase.so"),
        &[RUN],
        &["u.toml:3 library-missing: the image has no libbase.so, which /usr/lib/libodd.so needs"],
    );
    check(
        |p| p.file("/usr/lib/libbase.so", 0o755, &foreign(&PROGRAMS.moving)),
        &[RUN],
        &[
            "u.toml:3 library-missing: libbase.so, which /usr/lib/libodd.so needs, is in the image for arm64 only",
        ],
    );
    check(
        |p| p.without("/usr/lib/ld-tiny.so"),
        &[RUN],
        &[
            "u.toml:3 loader-missing: the image has no /lib64/ld-tiny.so, the loader of /usr/bin/tool",
        ],
    );
    check(
        |p| p.file("/usr/lib/ld-tiny.so", 0o755, &foreign(&PROGRAMS.fixed)),
        &[RUN],
        &[
            "u.toml:3 wrong-machine: /lib64/ld-tiny.so, the loader of /usr/bin/tool, is of another machine",
        ],
    );
    // $ORIGIN of a program is the directory where it really lies.
    check(
        |p| {
            p.without("/usr/lib/libodd.so");
            p.without("/usr/bin/tool");
            p.file("/opt/x/tool", 0o755, &PROGRAMS.moving);
            p.file("/opt/x/libodd.so", 0o755, &PROGRAMS.libraries[1].1);
            p.link("/usr/bin/tool", "/opt/x/tool");
        },
        &[RUN],
        &[],
    );
}

/// A hundred thousand libraries, each of which needs the next; the last is not there.
#[test]
fn a_chain_of_libraries_may_have_any_length() {
    const LENGTH: usize = 100_000;
    let mut image = Parts::sound().image();
    let name = |n: usize| format!("lib{n}.so");
    let file = image.files.at("/usr/lib/libbase.so").unwrap().clone();
    for n in 0..=LENGTH {
        let mut file = file.clone();
        let archive::Kind::Regular { content: content::Content::Elf(elf), .. } = &mut file.kind
        else {
            panic!("{file:?}")
        };
        elf.needed = vec![name(n)];
        elf.rpath = vec!["/usr/bin".to_owned()];
        let path =
            if n == 0 { "usr/bin/tool".to_owned() } else { format!("usr/bin/{}", name(n - 1)) };
        image.files.put(&path, file);
    }
    let set = graph(&[("u", "[service]\nexec = [\"/usr/bin/tool\"]")]);
    let units: Vec<&Unit> = set.units.iter().collect();
    let found = told(&verify(&question(&image, &set, &units)));
    let missing = format!("the image has no {}, which", name(LENGTH));
    assert!(found.iter().any(|line| line.contains(&missing)), "{:?}", found.first());
}

#[test]
fn scripts_need_their_interpreter() {
    const RUN: (&str, &str) = ("u", "[service]\nexec = [\"/usr/bin/s\"]");
    let script =
        |line: &'static str| move |p: &mut Parts| p.file("/usr/bin/s", 0o755, line.as_bytes());
    check(script("#!/usr/bin/tool -x\n"), &[RUN], &[]);
    check(
        script("#!/bin/sh\n"),
        &[RUN],
        &[
            "u.toml:3 interpreter-missing: the image has no /bin/sh, which /usr/bin/s is a script for",
        ],
    );
    check(
        script("#!/usr/bin/s\n"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/s is a script of scripts, too many for the kernel"],
    );
    check(
        script("#!sh\n"),
        &[RUN],
        &["u.toml:3 not-a-program: /usr/bin/s is a script without an interpreter"],
    );
    let env = |line: &'static str| {
        move |p: &mut Parts| {
            p.file("/usr/bin/env", 0o755, &PROGRAMS.fixed);
            p.file("/usr/bin/s", 0o755, line.as_bytes());
        }
    };
    check(env("#!/usr/bin/env tool\n"), &[RUN], &[]);
    check(
        env("#!/usr/bin/env perl\n"),
        &[RUN],
        &[
            "u.toml:3 interpreter-missing: the image has no /usr/bin/perl, which /usr/bin/s is a script for",
        ],
    );
}

#[test]
fn what_programs_look_up_themselves() {
    let containerd = |p: &mut Parts| p.file("/usr/bin/containerd", 0o755, &PROGRAMS.fixed);
    check(
        containerd,
        &[("u", "[service]\nexec = [\"/usr/bin/containerd\"]")],
        &[
            "u.toml:3 program-missing: the image has no program containerd-shim-runc-v2 where programs are looked up",
            "u.toml:3 program-missing: the image has no program runc where programs are looked up",
            "~u.toml:3 no-certificates: the image has no /etc/ssl/certs/ca-certificates.crt",
        ],
    );
    const FS: (&str, &str) = ("f", "[filesystem]\ndevice = \"/dev/vda1\"\ntype = \"ext4\"");
    check(none, &[FS], &[]);
    check(
        |p| p.without("/usr/bin/e2fsck"),
        &[FS],
        &["f.toml:4 program-missing: the image has no program e2fsck where programs are looked up"],
    );
    check(
        none,
        &[(
            "u",
            "[oneshot]\nexec = [\"/usr/bin/tool\", \"--c=/etc/c\"]\nworking-directory = \"/srv\"",
        )],
        &[
            "u.toml:4 not-in-image: the image has no directory /srv",
            "~u.toml:3 path-missing: the image has no /etc/c, and no unit makes it",
        ],
    );
}
