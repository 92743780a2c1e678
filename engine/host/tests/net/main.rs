//! The network for real: namespaces, a veth, dnsmasq, and a server that misbehaves on demand.

mod server;
mod world;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use keel_host::net::{Cidr, LinkSelector, LinkSpec, NetEvent};
use server::{ADDRESS, Answer, Asked, SERVER, Server};
use smoltcp::wire::DhcpMessageType;
use world::{Dnsmasq, Subject, World};

fn file(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.resolv_conf()).expect("the link wrote it");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_lease_of_dnsmasq() {
    let world = World::new();
    let options = [
        "--dhcp-option=option:dns-server,10.77.0.53,10.77.0.54",
        "--dhcp-option=option:domain-search,lab.example,example",
        "--dhcp-option=option:mtu,1400",
    ];
    let mac = "52:54:00:00:00:07";
    world.node.ip(&format!("link set eth0 address {mac}"));
    let host = format!("--dhcp-host={mac},10.77.0.55,node-7");
    let dnsmasq = Dnsmasq::start(&world, &[&options[..], &[&host]].concat());
    world.node(|| async {
        let mut subject = Subject::start(LinkSpec { hostname_from_dhcp: true, ..world.spec() });
        let status = subject.link.up().await.unwrap();
        assert_eq!(status.name, "eth0");
        assert_eq!(
            status.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.77.0.55/24"]
        );
        assert_eq!(world.addresses(), ["10.77.0.55/24"]);
        assert_eq!(
            world.routes(),
            [
                "default via 10.77.0.1 proto dhcp src 10.77.0.55",
                "10.77.0.0/24 proto kernel scope link src 10.77.0.55"
            ],
        );
        assert_eq!(
            file(&world),
            ["search lab.example example", "nameserver 10.77.0.53", "nameserver 10.77.0.54"]
        );
        let link = world.node.ip("-o link show dev eth0");
        assert!(link.contains("mtu 1400"), "{link}");
        // The kernel lets go of the address by itself if nobody renews it.
        let address = world.node.ip("-4 -o addr show dev eth0");
        assert!(address.contains("valid_lft 12") || address.contains("valid_lft 11"), "{address}");
        let ttl = subject
            .hear(|event| if let NetEvent::Leased { ttl, .. } = event { *ttl } else { None })
            .await;
        assert!((100..=120).contains(&ttl.as_secs()));
        assert_eq!(nix::unistd::gethostname().unwrap(), "node-7");

        subject.link.release().await;
        assert_eq!(world.addresses(), [""; 0]);
        assert_eq!(world.routes(), [""; 0]);
    });
    dnsmasq.says("DHCPRELEASE(srv0) 10.77.0.55");
}

#[test]
fn classless_routes_win_over_the_router() {
    let world = World::new();
    let _dnsmasq = Dnsmasq::start(
        &world,
        &[
            "--dhcp-option=option:router,10.77.0.9",
            "--dhcp-option=option:classless-static-route,0.0.0.0/0,10.77.0.1,192.168.5.0/24,10.77.0.2,172.16.0.0/12,0.0.0.0",
        ],
    );
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        let status = subject.link.up().await.unwrap();
        let source = status.lease.unwrap().address;
        let mut routes = world.routes();
        routes.sort();
        assert_eq!(
            routes,
            [
                format!("10.77.0.0/24 proto kernel scope link src {source}"),
                format!("172.16.0.0/12 proto dhcp scope link src {source}"),
                format!("192.168.5.0/24 via 10.77.0.2 proto dhcp src {source}"),
                format!("default via 10.77.0.1 proto dhcp src {source}"),
            ],
        );
    });
}

#[test]
fn a_cloud_that_gives_a_single_address() {
    let world = World::new();
    let _server = Server::start(&world, |asked| {
        let alone = Ipv4Addr::new(255, 255, 255, 255);
        asked.sound().map(|answer| Answer { mask: alone, ..answer }).into_iter().collect()
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        assert_eq!(subject.leased().await, "10.77.0.50/32");
        assert_eq!(world.routes(), ["default via 10.77.0.1 proto dhcp src 10.77.0.50"]);
        assert!(world.node.ip("-4 route show dev eth0").contains("onlink"));
    });
}

#[test]
fn an_address_that_is_taken_over_is_defended_and_then_given_up() {
    let world = World::new();
    let server = Server::start(&world, |asked| asked.sound().into_iter().collect());
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        subject.leased().await;
        // Someone sets the address by hand and uses it: three times its kernel asks for a neighbour.
        world.other.ip("addr add 10.77.0.50/32 dev srv0");
        world.other.enter(|| {
            let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
            socket.send_to(b"", (Ipv4Addr::new(10, 77, 0, 99), 9)).unwrap();
        });
        let declined = subject.hear(|event| match event {
            NetEvent::Declined { address, .. } => Some(*address),
            _ => None,
        });
        assert_eq!(declined.await, ADDRESS);
        assert_eq!(world.addresses(), [""; 0]);
        server.heard(|asked| asked.kind == DhcpMessageType::Decline).await;
    });
}

#[test]
fn a_server_that_comes_late_heals_the_machine() {
    let world = World::new();
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        // The deadline of boot passes; the keeper goes on.
        let deadline = std::time::Duration::from_millis(400);
        assert!(tokio::time::timeout(deadline, subject.link.up()).await.is_err());
        for attempt in 1..=3 {
            let heard = subject.hear(|event| match event {
                NetEvent::Retrying { attempt, why } => Some((*attempt, why.clone())),
                _ => None,
            });
            assert_eq!(heard.await, (attempt, "no DHCP server answers".to_owned()));
        }
        assert_eq!(subject.link.awaits(), "no DHCP server answers");
        assert_eq!(subject.link.status(), None);
        let _dnsmasq = Dnsmasq::start(&world, &[]);
        let status = subject.link.up().await.unwrap();
        assert_eq!(world.addresses(), [status.addresses[0].to_string()]);
    });
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any() {
    let world = World::new();
    let alone = Arc::new(AtomicBool::new(true));
    let answers_alone = Arc::clone(&alone);
    let server = Server::start(&world, move |asked| {
        let deaf = !asked.broadcast && !answers_alone.load(Ordering::Relaxed);
        let answer = asked.sound().filter(|_| !deaf).map(|answer| answer.lasting(4, 1, 2));
        answer.into_iter().collect()
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        assert_eq!(subject.leased().await, "10.77.0.50/24");
        let renewed = |event: &NetEvent| matches!(event, NetEvent::Renewed { .. }).then_some(());
        subject.hear(renewed).await;
        let renewal = server.heard(Asked::is_renewal).await;
        assert_eq!((renewal.has, renewal.wants, renewal.server), (ADDRESS, None, None));
        assert!(!renewal.broadcast, "a renewal goes to the server alone");
        // From here on only what goes to everyone is answered.
        alone.store(false, Ordering::Relaxed);
        let rebinding = server.heard(|asked| asked.is_renewal() && asked.broadcast).await;
        assert_eq!((rebinding.has, rebinding.wants, rebinding.server), (ADDRESS, None, None));
        subject.hear(renewed).await;
        assert_eq!(world.addresses(), ["10.77.0.50/24"]);
        // The kernel was told of the longer life.
        let address = world.node.ip("-4 -o addr show dev eth0");
        assert!(
            ["5sec", "4sec", "3sec"]
                .iter()
                .any(|left| address.contains(&format!("valid_lft {left}"))),
            "{address}"
        );
    });
}

#[test]
fn a_lease_that_nobody_extends_ends() {
    let world = World::new();
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let _server = Server::start(&world, move |asked| {
        let answer = asked.sound().filter(|_| !is_silent.load(Ordering::Relaxed));
        answer.map(|answer| answer.lasting(3, 1, 2)).into_iter().collect()
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        subject.leased().await;
        assert_eq!(file(&world), ["nameserver 10.77.0.1"]);
        // What someone else put on the link is not Keel's to take.
        world.node.ip("addr add 10.77.0.200/32 dev eth0");
        world.node.ip("route add 10.244.0.0/16 via 10.77.0.200 dev eth0 proto static");
        silent.store(true, Ordering::Relaxed);
        assert_eq!(subject.expired().await, "10.77.0.50: the lease ran out");
        assert_eq!(world.addresses(), ["10.77.0.200/32"]);
        assert!(!world.routes().iter().any(|route| route.contains("dhcp")), "{:?}", world.routes());
        assert_eq!(file(&world), [""; 0]);
        assert_eq!(subject.link.status(), None);
        silent.store(false, Ordering::Relaxed);
        assert_eq!(subject.leased().await, "10.77.0.50/24");
        assert_eq!(file(&world), ["nameserver 10.77.0.1"]);
    });
}

#[test]
fn an_address_that_another_host_uses_is_declined() {
    let world = World::new();
    // The other host answers ARP for it.
    world.other.ip("addr add 10.77.0.50/32 dev srv0");
    let declined = Arc::new(AtomicBool::new(false));
    let server = Server::start(&world, move |asked| {
        declined.fetch_or(asked.kind == DhcpMessageType::Decline, Ordering::Relaxed);
        let next =
            if declined.load(Ordering::Relaxed) { Ipv4Addr::new(10, 77, 0, 51) } else { ADDRESS };
        asked.sound().map(|answer| Answer { address: next, ..answer }).into_iter().collect()
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        let other = world.other.ip("-o link show dev srv0");
        let by = subject.hear(|event| match event {
            NetEvent::Declined { address, by } => {
                assert_eq!(*address, ADDRESS);
                Some(by.map(|octet| format!("{octet:02x}")).join(":"))
            }
            NetEvent::Leased { .. } => panic!("the address is in use"),
            _ => None,
        });
        let by = by.await;
        assert!(other.contains(&by), "{by} is not in {other}");
        assert_eq!(subject.leased().await, "10.77.0.51/24");
        let decline = server.heard(|asked| asked.kind == DhcpMessageType::Decline).await;
        assert_eq!(
            (decline.wants, decline.server, decline.has),
            (Some(ADDRESS), Some(SERVER), Ipv4Addr::UNSPECIFIED)
        );
    });
}

#[test]
fn a_server_that_answers_wrongly_is_not_believed() {
    let world = World::new();
    world.connect();
    let count = Arc::new(AtomicU32::new(0));
    let asked_so_far = Arc::clone(&count);
    let _server = Server::start(&world, move |asked| {
        let Some(sound) = asked.sound() else { return Vec::new() };
        let wrong = vec![
            Answer { xid: !sound.xid, ..sound.clone() },
            Answer { mac: [2, 0, 0, 0, 0, 9], ..sound.clone() },
            Answer { cut: Some(0), ..sound.clone() },
            Answer { cut: Some(100), ..sound.clone() },
            Answer { cut: Some(250), ..sound.clone() },
            Answer { server: None, ..sound.clone() },
            Answer { server: Some(Ipv4Addr::UNSPECIFIED), ..sound.clone() },
            Answer { address: Ipv4Addr::UNSPECIFIED, ..sound.clone() },
            Answer { address: Ipv4Addr::BROADCAST, ..sound.clone() },
            Answer { address: Ipv4Addr::new(224, 0, 0, 5), ..sound.clone() },
            Answer { mask: Ipv4Addr::new(255, 0, 255, 0), ..sound.clone() },
            Answer { mask: Ipv4Addr::UNSPECIFIED, ..sound.clone() },
            Answer { lease: None, ..sound.clone() },
            Answer { lease: Some(0), ..sound.clone() },
        ];
        match asked_so_far.fetch_add(1, Ordering::Relaxed) {
            // One of them per attempt; then all of them before a sound one, in every phase.
            at if (at as usize) < wrong.len() => vec![wrong[at as usize].clone()],
            _ => wrong.into_iter().chain([sound]).collect(),
        }
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        let mut reasons = Vec::new();
        let address = subject.hear(|event| match event {
            NetEvent::Retrying { why, .. } => {
                reasons.push(why.clone());
                None
            }
            NetEvent::Leased { address, .. } => Some(address.to_string()),
            _ => None,
        });
        assert_eq!(address.await, "10.77.0.50/24");
        let expect = [
            "refused an answer to another request",
            "no DHCP server answers",
            "refused an answer that is cut short",
            "refused an answer that is cut short",
            "refused an answer that is cut short",
            "refused an answer that names no server",
            "refused an answer that names no server",
            "refused an answer that gives 0.0.0.0, which is no address for a host",
            "refused an answer that gives 255.255.255.255, which is no address for a host",
            "refused an answer that gives 224.0.0.5, which is no address for a host",
            "refused an answer with the mask 255.0.255.0, which is none",
            "refused an answer with the mask 0.0.0.0, which is none",
            "refused an answer without a lease time",
            "refused an answer with a lease of only 0 s",
        ];
        assert_eq!(reasons, expect);
        assert_eq!(count.load(Ordering::Relaxed) as usize, expect.len() + 2);
    });
}

#[test]
fn a_refusal_starts_over() {
    let world = World::new();
    let refuses = Arc::new(AtomicU32::new(0));
    let still = Arc::clone(&refuses);
    let _server = Server::start(&world, move |asked| {
        let Some(sound) = asked.sound().map(|answer| answer.lasting(5, 1, 4)) else {
            return Vec::new();
        };
        let refuse = match asked.kind {
            DhcpMessageType::Request if asked.is_renewal() => true,
            DhcpMessageType::Request => still.fetch_add(1, Ordering::Relaxed) < 2,
            _ => false,
        };
        vec![if refuse { sound.refusing() } else { sound }]
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        let mut refused = 0;
        let leased = subject.hear(|event| match event {
            NetEvent::Retrying { why, .. } => {
                refused += u32::from(why == "server 10.77.0.1 refuses what it offered");
                None
            }
            NetEvent::Leased { .. } => Some(()),
            _ => None,
        });
        leased.await;
        assert_eq!(refused, 2);
        assert_eq!(subject.expired().await, "10.77.0.50: server 10.77.0.1 took the address back");
        assert_eq!(world.addresses(), [""; 0]);
        subject.leased().await;
    });
}

#[test]
fn a_cable_that_is_plugged_elsewhere_is_noticed() {
    let world = World::new();
    let elsewhere = Arc::new(AtomicBool::new(false));
    let moved = Arc::clone(&elsewhere);
    let server = Server::start(&world, move |asked| {
        let Some(sound) = asked.sound() else { return Vec::new() };
        if !moved.load(Ordering::Relaxed) {
            return vec![sound];
        }
        // A server that does not know the address refuses it and gives another.
        let knows = asked.wants.is_none_or(|address| address != ADDRESS);
        let other = Answer { address: Ipv4Addr::new(10, 77, 0, 99), ..sound };
        vec![if knows { other } else { other.refusing() }]
    });
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        subject.leased().await;
        // The same network: the lease is confirmed and stays.
        world.other.ip("link set srv0 down");
        world.other.ip("link set srv0 up");
        subject.hear(|event| matches!(event, NetEvent::Renewed { .. }).then_some(())).await;
        let verify = server.heard(|asked| asked.wants.is_some() && asked.server.is_none()).await;
        assert_eq!((verify.wants, verify.has), (Some(ADDRESS), Ipv4Addr::UNSPECIFIED));
        elsewhere.store(true, Ordering::Relaxed);
        world.other.ip("link set srv0 down");
        world.other.ip("link set srv0 up");
        assert_eq!(subject.expired().await, "10.77.0.50: server 10.77.0.1 took the address back");
        assert_eq!(subject.leased().await, "10.77.0.99/24");
        assert_eq!(world.addresses(), ["10.77.0.99/24"]);
    });
}

#[test]
fn a_link_that_is_taken_down_is_raised_and_mended() {
    let world = World::new();
    let _server = Server::start(&world, |asked| asked.sound().into_iter().collect());
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        subject.leased().await;
        let before = world.routes();
        world.node.ip("link set eth0 down");
        // It verifies the lease once the carrier is back.
        subject.hear(|event| matches!(event, NetEvent::Renewed { .. }).then_some(())).await;
        assert_eq!(world.routes(), before);
    });
}

#[test]
fn a_link_that_goes_and_comes_back_is_configured_again() {
    let world = World::new();
    world.node(|| async {
        let server = Server::start(&world, |asked| asked.sound().into_iter().collect());
        let mut subject = Subject::start(world.spec());
        subject.leased().await;
        world.node.ip("link del eth0");
        assert_eq!(subject.expired().await, "10.77.0.50: link eth0 is gone");
        drop(server);
        world.plug("eth0", "srv0");
        world.other.ip("addr add 10.77.0.1/24 dev srv0");
        let _server = Server::start(&world, |asked| asked.sound().into_iter().collect());
        subject.leased().await;
    });
}

#[test]
fn the_first_link_with_a_carrier_is_the_one() {
    let world = World::new();
    world.plug("eth1", "srv1");
    world.other.ip("link set srv0 down");
    world.other.ip("link set srv1 down");
    world.node(|| async {
        let mut subject = Subject::start(world.spec());
        // Both are raised, neither has a carrier: nothing is chosen until the kernel tells of one.
        let waits = subject.hear(|event| match event {
            NetEvent::Waiting { why } => Some(why.clone()),
            _ => None,
        });
        assert_eq!(waits.await, "no ethernet link has a carrier (of eth0, eth1)");
        assert_eq!(subject.link.status(), None);
        world.other.ip("link set srv1 up");
        let chosen = subject.hear(|event| match event {
            NetEvent::LinkChosen { name, .. } => Some(name.clone()),
            _ => None,
        });
        assert_eq!(chosen.await, "eth1");
    });
}

#[test]
fn static_addresses() {
    let world = World::new();
    let cidr = |address: &str, prefix| Cidr { address: address.parse().unwrap(), prefix };
    let spec = LinkSpec {
        addresses: vec![cidr("10.77.0.7", 24), cidr("fd77::7", 64)],
        gateway: Some("10.77.0.1".parse().unwrap()),
        mtu: Some(1280),
        dns: vec!["10.77.0.53".parse().unwrap()],
        resolv_conf: Some(world.resolv_conf()),
        ..LinkSpec::new(LinkSelector::Name("eth0".to_owned()))
    };
    world.node(|| async {
        let mut subject = Subject::start(spec);
        let status = subject.link.up().await.unwrap();
        assert_eq!(status.addresses.len(), 2);
        assert_eq!(world.addresses(), ["10.77.0.7/24"]);
        assert!(world.node.ip("-6 -o addr show dev eth0").contains("fd77::7/64"));
        assert_eq!(world.routes()[0], "default via 10.77.0.1 proto static src 10.77.0.7");
        assert!(world.node.ip("-o link show dev eth0").contains("mtu 1280"));
        assert_eq!(file(&world), ["nameserver 10.77.0.53"]);
        world.node.ip("addr add 10.77.0.200/32 dev eth0");
        subject.link.release().await;
        assert_eq!(world.addresses(), ["10.77.0.200/32"]);
        assert!(!world.node.ip("-6 -o addr show dev eth0").contains("fd77::7"));
    });
}

#[test]
fn a_gateway_that_the_kernel_refuses_is_an_error_that_says_so() {
    let world = World::new();
    let spec = LinkSpec {
        addresses: vec![Cidr { address: "10.77.0.7".parse().unwrap(), prefix: 24 }],
        gateway: Some("224.0.0.1".parse().unwrap()),
        ..LinkSpec::new(LinkSelector::Name("eth0".to_owned()))
    };
    world.node(|| async {
        let mut subject = Subject::start(spec);
        let error = subject.link.up().await.unwrap_err();
        assert_eq!(error.to_string(), "eth0: cannot add route 0.0.0.0/0 via 224.0.0.1");
        assert_eq!(world.addresses(), ["10.77.0.7/24"]);
    });
}

#[test]
fn the_loopback() {
    let world = World::new();
    world.node.ip("link set lo down");
    world.node(|| async {
        let mut subject = Subject::start(LinkSpec::new(LinkSelector::Loopback));
        let status = subject.link.up().await.unwrap();
        assert_eq!(status.name, "lo");
        assert!(world.node.ip("-4 -o addr show dev lo").contains("127.0.0.1/8"));
        assert_eq!(subject.link.up().await.unwrap(), status);
    });
}

#[test]
fn the_links_of_an_inventory() {
    let world = World::new();
    world.node.ip("link add br0 type bridge");
    world.plug("eth1", "srv1");
    world.node.ip("link set eth1 master br0");
    world.node.ip("link set eth0 address 02:00:00:00:00:07");
    world.connect();
    // The other end sees the cable first.
    while !world.node.ip("link show dev eth0").contains("state UP") {
        std::thread::yield_now();
    }
    world.node(|| async {
        let inventories = keel_host::inventory::Inventories::new(Default::default());
        let inventory = inventories.take(std::time::Duration::from_secs(20)).await;
        let link = |name: &str| inventory.links.iter().find(|link| link.name == name).unwrap();
        assert_eq!(inventory.links.len(), 3, "{:?}", inventory.links);
        assert_eq!(link("eth0").mac, Some([2, 0, 0, 0, 0, 7]));
        assert_eq!(
            (link("eth0").kind.as_deref(), link("eth0").carrier),
            (Some("veth"), Some(true))
        );
        assert_eq!((link("eth1").port, link("eth1").carrier), (true, None));
        assert_eq!(link("br0").kind.as_deref(), Some("bridge"));
    });
}
