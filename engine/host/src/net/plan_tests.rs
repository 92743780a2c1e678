//! The plan, in tables.

use super::super::Timing;
use super::*;

fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').unwrap();
    Cidr { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

/// `eth0: ethernet up carrier`, one link per line, indices from 1.
fn links(text: &str) -> Vec<Seen> {
    let link = |(at, line): (usize, &str)| {
        let (name, words) = line.trim().split_once(':').unwrap();
        let words: Vec<&str> = words.split_whitespace().collect();
        let has = |word| words.contains(&word);
        let index = u32::try_from(at).unwrap() + 1;
        Seen {
            index,
            name: name.to_owned(),
            mac: (!has("lo") && !has("tunnel")).then_some([2, 0, 0, 0, 0, at as u8 + 1]),
            loopback: has("lo"),
            kind: ["veth", "bridge", "vlan", "dummy"]
                .into_iter()
                .find(|kind| has(kind))
                .map(str::to_owned),
            enslaved: has("port"),
            up: has("up"),
            carrier: has("carrier"),
            mtu: 1500,
            ..Seen::default()
        }
    };
    text.lines().filter(|line| !line.trim().is_empty()).enumerate().map(link).collect()
}

#[test]
fn the_choice_of_the_link() {
    #[track_caller]
    fn check(selector: LinkSelector, dhcp: bool, text: &str, expect: &str) {
        let spec = LinkSpec { dhcp, ..LinkSpec::new(selector) };
        let links = links(text);
        let choice = match choose(&spec, &links) {
            Choice::Use(link) => format!("use {}", link.name),
            Choice::Raise(links) => {
                let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                format!("raise {}", names.join(" "))
            }
            Choice::Wait => "wait".to_owned(),
        };
        assert_eq!(choice, expect);
    }
    use LinkSelector::{FirstEthernetWithCarrier as First, Loopback, Mac, Name};
    let two = "lo: lo\n eth0: \n eth1: ";
    check(Loopback, false, two, "use lo");
    check(Loopback, false, "", "wait");

    check(First, true, "lo: lo", "wait");
    check(First, true, two, "raise eth0 eth1");
    check(First, true, "lo: lo up carrier\n eth0: up\n eth1: ", "raise eth1");
    check(First, true, "lo: lo up carrier\n eth0: up\n eth1: up", "wait");
    check(First, true, "lo: lo up carrier\n eth0: up\n eth1: up carrier", "use eth1");
    check(First, true, "lo: lo\n eth0: up carrier\n eth1: up carrier", "use eth0");
    // Also for a static address: without a carrier nothing tells which link is meant.
    check(First, false, "lo: lo\n eth0: up\n eth1: up", "wait");
    // Hardware goes before what software made, even if it has no carrier yet.
    check(First, true, "lo: lo\n veth0: veth up carrier\n eth0: up", "wait");
    check(First, true, "lo: lo\n veth0: veth up carrier", "use veth0");
    check(
        First,
        true,
        "br0: bridge up carrier\n v: vlan up carrier\n d: dummy up carrier\n t: tunnel up carrier",
        "wait",
    );
    // A port of a bond or a bridge has no addresses of its own.
    check(First, true, "lo: lo\n eth0: up carrier port\n eth1: up", "wait");

    check(Name("eth1".to_owned()), true, two, "raise eth1");
    check(Name("eth1".to_owned()), true, "lo: lo\n eth0: up carrier\n eth1: up", "wait");
    check(
        Name("eth1".to_owned()),
        true,
        "lo: lo\n eth0: up carrier\n eth1: up carrier",
        "use eth1",
    );
    check(Name("eth1".to_owned()), false, two, "use eth1");
    check(Name("eth9".to_owned()), false, two, "wait");
    check(Name("br0".to_owned()), true, "br0: bridge up carrier", "use br0");

    check(Mac([2, 0, 0, 0, 0, 3]), false, two, "use eth1");
    check(Mac([2, 0, 0, 0, 0, 9]), false, two, "wait");
    // A bond has the address of its first port.
    check(Mac([2, 0, 0, 0, 0, 1]), false, "eth0: port", "wait");
}

#[test]
fn what_is_waited_for_is_said() {
    #[track_caller]
    fn check(selector: LinkSelector, text: &str, expect: &str) {
        assert_eq!(awaited(&LinkSpec::new(selector), &links(text)), expect);
    }
    use LinkSelector::{FirstEthernetWithCarrier as First, Loopback, Mac, Name};
    let two = "lo: lo\n eth0: up\n eth1: up";
    check(First, "lo: lo", "there is no ethernet link");
    check(First, two, "no ethernet link has a carrier (of eth0, eth1)");
    check(Name("eth9".to_owned()), two, "there is no link eth9");
    check(Name("eth1".to_owned()), two, "the link has no carrier");
    check(Mac([2, 0, 0, 0, 0, 9]), two, "there is no link with the address 02:00:00:00:00:09");
    check(Mac([2, 0, 0, 0, 0, 2]), two, "the link has no carrier");
    check(Loopback, "", "there is no loopback link");
}

fn lease() -> Lease {
    Lease {
        address: Ipv4Addr::new(10, 0, 0, 50),
        prefix: 24,
        server: Ipv4Addr::new(10, 0, 0, 1),
        duration: Some(Duration::from_secs(3600)),
        renew_after: Duration::from_secs(1800),
        rebind_after: Duration::from_secs(3150),
        routers: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)],
        classless: None,
        dns: vec![Ipv4Addr::new(10, 0, 0, 53)],
        search: Vec::new(),
        hostname: None,
        mtu: Some(1400),
    }
}

fn spec() -> LinkSpec {
    LinkSpec { dhcp: true, ..LinkSpec::new(LinkSelector::FirstEthernetWithCarrier) }
}

/// Routes in the words of ip-route(8).
fn routes(wanted: &Wanted) -> Vec<String> {
    let show = |route: &Route| {
        let onlink = if route.onlink { " onlink" } else { "" };
        let from = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
        format!("{route}{from} {}{onlink}", if route.leased { "dhcp" } else { "static" })
    };
    wanted.routes.iter().map(show).collect()
}

#[test]
fn the_routes_of_a_lease() {
    #[track_caller]
    fn check(change: impl Fn(&mut Lease), expect: &[&str]) {
        let mut lease = lease();
        change(&mut lease);
        assert_eq!(routes(&wanted(&spec(), Some((&lease, None)), 2)), expect);
    }
    let ip = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    check(|_| {}, &["0.0.0.0/0 via 10.0.0.1 src 10.0.0.50 dhcp"]);
    check(|lease| lease.routers.clear(), &[]);
    // RFC 3442: option 121 wins over option 3, also if it gives no default route.
    check(
        |lease| lease.classless = Some(vec![(ip("192.168.0.0"), 16, ip("10.0.0.9"))]),
        &["192.168.0.0/16 via 10.0.0.9 src 10.0.0.50 dhcp"],
    );
    // A router on the link that only another of the routes makes reachable.
    check(
        |lease| {
            lease.prefix = 32;
            lease.classless = Some(vec![
                (ip("0.0.0.0"), 0, ip("169.254.1.1")),
                (ip("169.254.1.1"), 32, ip("0.0.0.0")),
            ]);
        },
        &[
            "169.254.1.1/32 on the link src 10.0.0.50 dhcp",
            "0.0.0.0/0 via 169.254.1.1 src 10.0.0.50 dhcp",
        ],
    );
    // ... and one that nothing does.
    check(|lease| lease.prefix = 32, &["0.0.0.0/0 via 10.0.0.1 src 10.0.0.50 dhcp onlink"]);
    // A route through ourselves leads nowhere.
    check(|lease| lease.classless = Some(vec![(ip("10.9.0.0"), 16, ip("10.0.0.50"))]), &[]);
}

#[test]
fn the_config_stands_before_the_lease() {
    let mut spec = spec();
    let lease = lease();
    let both = |spec: &LinkSpec| wanted(spec, Some((&lease, Some(Duration::from_secs(9)))), 2);
    assert_eq!(both(&spec).mtu, Some(1400));
    assert_eq!(dns(&spec, Some(&lease)), ["10.0.0.53".parse::<IpAddr>().unwrap()]);
    spec.mtu = Some(9000);
    spec.dns = vec!["fd00::53".parse().unwrap()];
    spec.addresses = vec![cidr("192.168.1.5/24"), cidr("fd00::5/64")];
    spec.gateway = Some("192.168.1.1".parse().unwrap());
    let wanted = both(&spec);
    assert_eq!(wanted.mtu, Some(9000));
    let servers: Vec<_> = dns(&spec, Some(&lease)).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["fd00::53", "10.0.0.53"]);
    let addresses: Vec<_> =
        wanted.addresses.iter().map(|a| (a.cidr.to_string(), a.lifetime)).collect();
    assert_eq!(
        addresses,
        [
            ("192.168.1.5/24".to_owned(), None),
            ("fd00::5/64".to_owned(), None),
            ("10.0.0.50/24".to_owned(), Some(Duration::from_secs(9))),
        ],
    );
    assert_eq!(routes(&wanted), ["0.0.0.0/0 via 192.168.1.1 src 192.168.1.5 static"]);
    // A gateway of the other family leaves the lease its default route.
    spec.gateway = Some("fd00::1".parse().unwrap());
    assert_eq!(
        routes(&both(&spec)),
        ["::/0 via fd00::1 src fd00::5 static", "0.0.0.0/0 via 10.0.0.1 src 10.0.0.50 dhcp"]
    );
    spec.gateway = Some("fe80::1".parse().unwrap());
    assert_eq!(routes(&both(&spec))[0], "::/0 via fe80::1 src fd00::5 static onlink");
}

#[test]
fn from_observed_to_wanted() {
    let config = LinkSpec { timing: Timing::default(), ..spec() };
    let hour = Some(Duration::from_secs(3600));
    let full = wanted(&config, Some((&lease(), hour)), 2);
    let bare = wanted(&config, None, 2);
    let has = |wanted: &Wanted| Observed {
        up: true,
        mtu: 1400,
        addresses: wanted.addresses.clone(),
        routes: wanted.routes.clone(),
    };
    #[track_caller]
    fn check(wanted: &Wanted, before: &Wanted, observed: &Observed, expect: &[&str]) {
        let changes: Vec<_> =
            changes(wanted, before, observed).iter().map(ToString::to_string).collect();
        assert_eq!(changes, expect);
    }
    let down = Observed { mtu: 1500, ..Observed::default() };
    check(&bare, &bare, &down, &["raise the link"]);
    check(
        &full,
        &bare,
        &down,
        &[
            "raise the link",
            "set the MTU to 1400",
            "set address 10.0.0.50/24",
            "add route 0.0.0.0/0 via 10.0.0.1",
        ],
    );
    check(&full, &full, &has(&full), &[]);

    // A lifetime counts down in the kernel; a renewal sets it anew.
    let seconds = |secs| {
        let mut observed = has(&full);
        observed.addresses[0].lifetime = Some(Duration::from_secs(secs));
        observed
    };
    check(&full, &full, &seconds(3601), &[]);
    check(&full, &full, &seconds(3599), &["set address 10.0.0.50/24"]);
    check(&full, &full, &seconds(1800), &["set address 10.0.0.50/24"]);

    // The end of a lease.
    check(
        &bare,
        &full,
        &has(&full),
        &["remove route 0.0.0.0/0 via 10.0.0.1", "remove address 10.0.0.50/24"],
    );
    // ... of which the kernel took the address already.
    let mut half = has(&full);
    half.addresses.clear();
    half.routes.clear();
    check(&bare, &full, &half, &[]);

    // Another address in the same network: the old one goes first.
    let moved = Lease { address: Ipv4Addr::new(10, 0, 0, 51), ..lease() };
    check(
        &wanted(&config, Some((&moved, hour)), 2),
        &full,
        &has(&full),
        &[
            "remove route 0.0.0.0/0 via 10.0.0.1",
            "remove address 10.0.0.50/24",
            "set address 10.0.0.51/24",
            "add route 0.0.0.0/0 via 10.0.0.1",
        ],
    );

    // A virtual IP and a route that someone else put on the link stay.
    let mut shared = has(&full);
    shared.addresses.push(Address { cidr: cidr("10.0.0.200/32"), lifetime: None });
    shared.routes.push(Route {
        destination: cidr("10.244.0.0/16"),
        leased: false,
        ..full.routes[0]
    });
    check(&full, &full, &shared, &[]);
    check(
        &bare,
        &full,
        &shared,
        &["remove route 0.0.0.0/0 via 10.0.0.1", "remove address 10.0.0.50/24"],
    );

    // Someone took the route: it comes back.
    let mut robbed = has(&full);
    robbed.routes.clear();
    check(&full, &full, &robbed, &["add route 0.0.0.0/0 via 10.0.0.1"]);
}

#[test]
fn networks_and_their_addresses() {
    #[track_caller]
    fn check(network: &str, address: &str, expect: bool) {
        assert_eq!(
            cidr(network).contains(address.parse().unwrap()),
            expect,
            "{address} in {network}"
        );
    }
    check("10.0.0.5/24", "10.0.0.1", true);
    check("10.0.0.5/24", "10.0.1.1", false);
    check("10.0.0.5/32", "10.0.0.5", true);
    check("10.0.0.5/32", "10.0.0.4", false);
    check("10.0.0.5/0", "192.168.0.1", true);
    check("fd00::5/64", "fd00::1", true);
    check("fd00::5/64", "fd00:0:0:1::1", false);
    check("::/0", "fe80::1", true);
    check("10.0.0.5/24", "fd00::1", false);
}
