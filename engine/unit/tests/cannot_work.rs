//! Values that are well written and cannot work: each is refused where it stands, with what to write instead.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use keel_unit::load::load;
use keel_unit::lower::lower;

/// Lowers one unit (a stem and its text) under a config; `expect` is the text that is marked, the message and a part of the
/// help, or nothing if there is nothing to find.
fn check(stem: &str, unit: &str, config: &str, expect: Option<(&str, &str, &str)>) {
    let dir = tempfile::tempdir().unwrap();
    let (units, path) = (dir.path().join("units"), dir.path().join("config.toml"));
    fs::create_dir(&units).unwrap();
    fs::write(units.join(format!("{stem}.toml")), unit).unwrap();
    fs::write(&path, format!("schema = 1\n{config}")).unwrap();
    let found: Vec<_> = match lower(load(&units, Some(&path))) {
        Ok(_) => Vec::new(),
        Err(report) => report
            .diagnostics
            .iter()
            .map(|found| {
                let span = found.label.span;
                let text = report.sources.text(span.file);
                let marked = text[span.start as usize..span.end as usize].to_owned();
                (marked, found.message.clone(), found.help.clone().unwrap_or_default())
            })
            .collect(),
    };
    match (expect, found.as_slice()) {
        (None, []) => {}
        (Some((marked, message, help)), [found])
            if found.0 == marked && found.1 == message && found.2.contains(help) => {}
        _ => panic!("expected {expect:?}, found {found:?}, in\n{unit}{config}"),
    }
}

/// The same addresses in a unit and in the machine config.
fn check_link(addresses: &str, gateway: &str, expect: Option<(&str, &str, &str)>) {
    let gateway = match gateway {
        "" => String::new(),
        address => format!("gateway = \"{address}\"\n"),
    };
    let keys = format!("addresses = [{addresses}]\n{gateway}timeout = \"5s\"\n");
    check("fixed", &format!("[link]\nname = \"eth0\"\n{keys}"), "", expect);
    let keys = format!("dhcp = false\naddresses = [{addresses}]\n{gateway}");
    let interface = format!("[[network.interfaces]]\nname = \"a\"\n{keys}");
    check("goal", "[target]\n", &interface, expect);
}

#[test]
fn addresses_that_no_host_can_have() {
    let hosts = "the hosts of this network are 192.0.2.1 to 192.0.2.254";
    let alone = "the address that this machine alone has";
    for (address, message, help) in [
        ("192.0.2.0/24", "192.0.2.0 is the address of the network itself", hosts),
        ("192.0.2.255/24", "192.0.2.255 is the broadcast address of its network", hosts),
        ("224.0.0.1/24", "224.0.0.1 is a multicast address", alone),
        ("255.255.255.255/32", "255.255.255.255 is the broadcast address of every network", ""),
        ("0.0.0.0/0", "0.0.0.0 is the address of nobody", alone),
        ("2001:db8::/64", "2001:db8:: is the address of the network itself", "2001:db8::1 to"),
        ("ff02::1/64", "ff02::1 is a multicast address", alone),
        ("::/64", ":: is the address of nobody", alone),
    ] {
        let (marked, message) =
            (format!("\"{address}\""), format!("{message}, and no machine can have it"));
        check_link(&marked, "", Some((&marked, &message, help)));
    }
    for fine in [
        "192.0.2.1/24",
        "192.0.2.254/24",
        "192.0.2.0/31",
        "192.0.2.1/31",
        "192.0.2.0/32",
        "192.0.2.255/32",
        "10.1.0.0/8",
        "10.0.1.255/23",
        "2001:db8::ffff/112",
        "2001:db8::/127",
        "2001:db8::/128",
    ] {
        check_link(
            &format!("\"{fine}\""),
            "",
            if fine == "10.0.1.255/23" {
                let message = "10.0.1.255 is the broadcast address of its network, and no machine can have it";
                Some(("\"10.0.1.255/23\"", message, "10.0.0.1 to 10.0.1.254"))
            } else {
                None
            },
        );
    }
}

#[test]
fn gateways_that_nothing_can_reach() {
    let outside = "the gateway 198.51.100.1 is in no network of this link";
    let from = "write one from 192.0.2.1 to 192.0.2.254; for a point-to-point link";
    for (addresses, gateway, message, help) in [
        ("\"192.0.2.7/24\"", "198.51.100.1", outside, from),
        ("\"192.0.2.7/24\", \"2001:db8::7/128\"", "198.51.100.1", outside, from),
        (
            "\"2001:db8::7/64\"",
            "2001:db8:1::1",
            "the gateway 2001:db8:1::1 is in no network of this link",
            "prefix length 128",
        ),
        (
            "\"192.0.2.7/24\"",
            "192.0.2.7",
            "the gateway 192.0.2.7 is an address of this link itself",
            "the router",
        ),
        (
            "\"192.0.2.7/24\"",
            "192.0.2.255",
            "192.0.2.255 is the broadcast address of its network, and no router can have it",
            "the router has",
        ),
        (
            "\"192.0.2.7/32\"",
            "224.0.0.1",
            "224.0.0.1 is a multicast address, and no router can have it",
            "the router has",
        ),
    ] {
        check_link(addresses, gateway, Some((&format!("\"{gateway}\""), message, help)));
    }
    for (addresses, gateway) in [
        ("\"192.0.2.7/24\"", "192.0.2.1"),
        ("\"192.0.2.7/24\", \"198.51.100.7/24\"", "198.51.100.1"),
        ("\"192.0.2.7/31\"", "192.0.2.6"),
        // Point to point.
        ("\"192.0.2.7/32\"", "198.51.100.1"),
        ("\"2001:db8::7/128\"", "2001:db8:1::1"),
        ("\"2001:db8::7/64\"", "fe80::1"),
    ] {
        check_link(addresses, gateway, None);
    }
}

#[test]
fn values_that_contradict_what_they_are_for() {
    let target = "[target]\n";
    check(
        "goal",
        target,
        "[agent]\nlisten = \"[::]:0\"\n",
        Some(("\"[::]:0\"", "port 0 is a different port in each boot", "[::]:50051")),
    );
    check("goal", target, "[agent]\nlisten = \"[::]:1\"\n", None);
    let modules = |list: &str| format!("[kernel]\nmodules = [{list}]\n");
    check(
        "goal",
        target,
        &modules("\"br-netfilter\", \"veth\", \"br_netfilter\""),
        Some((
            "\"br_netfilter\"",
            "`br_netfilter` and `br-netfilter` are one module to the kernel",
            "take one out",
        )),
    );
    check("goal", target, &modules("\"br-netfilter\", \"veth\""), None);

    let link = |keys: &str| format!("[file]\npath = \"/etc/a\"\ntimeout = \"5s\"\n{keys}");
    for (keys, marked, message, help) in [
        (
            "symlink = \"/etc/a\"\n",
            "\"/etc/a\"",
            "the link leads to itself",
            "what it should lead to",
        ),
        (
            "symlink = \"/etc/b\"\nsecret = true\n",
            "true",
            "`secret` says nothing of a symbolic link",
            "the file that the link leads to",
        ),
        (
            "symlink = \"/etc/b\"\nmode = \"0600\"\n",
            "\"0600\"",
            "`mode` says nothing of a symbolic link",
            "the file that the link leads to",
        ),
    ] {
        check("a", &link(keys), "", Some((marked, message, help)));
    }
    check("a", &link("symlink = \"/etc/b\"\n"), "", None);

    let service =
        |keys: &str| format!("[service]\nexec = [\"/usr/bin/a\"]\ntimeout = \"5s\"\n{keys}");
    check(
        "a",
        &service("restart = \"always\"\nrestart-delay = \"0s\"\n"),
        "",
        Some(("\"0s\"", "`restart-delay` must be more than 0s", "100ms")),
    );
    check("a", &service("restart = \"on-failure\"\nrestart-delay = \"0s\"\n"), "", None);
    check("a", &service("restart = \"always\"\nrestart-delay = \"1ms\"\n"), "", None);
}

#[test]
fn an_instance_that_a_template_does_not_have_is_told_those_that_it_has() {
    let template =
        "for-each = \"network.interfaces\"\n[link]\nname = \"{{ item.name }}\"\ntimeout = \"5s\"\n";
    let config = |names: &[&str]| {
        let each = names.iter().map(|name| format!("[[network.interfaces]]\nname = \"{name}\"\n"));
        format!("{}[units.\"link@b\".link]\nmtu = 1400\n", each.collect::<String>())
    };
    let expect = |help| Some(("\"link@b\"", "unknown unit `link@b`", help));
    check("link", template, &config(&["a"]), expect("did you mean `link@a`?"));
    check("link", template, &config(&["a", "c"]), expect("of `link` are `link@a`, `link@c`"));
    check("link", template, &config(&["a", "b"]), None);
}
