//! The parser by table and at random; the socket and the wait against the kernel, each test in a network namespace of
//! its own (the kernel sends the uevents of links only into the namespace of the link).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::*;

fn message(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.bytes().chain([0])).collect()
}

#[test]
fn messages() {
    #[track_caller]
    fn check(parts: &[&str], expect: Option<&[(&str, &str)]>) {
        let event = Uevent::parse(&message(parts));
        match (event, expect) {
            (None, None) => {}
            (Some(event), Some(expect)) => {
                for (key, value) in expect {
                    assert_eq!(event.property(key), Some(*value), "{key}");
                }
            }
            (event, expect) => panic!("{event:?} is not {expect:?}"),
        }
    }
    // As Linux 6.1 sends it for a disk.
    check(
        &[
            "add@/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda1",
            "ACTION=add",
            "DEVPATH=/devices/pci0000:00/0000:00:03.0/virtio1/block/vda/vda1",
            "SUBSYSTEM=block",
            "MAJOR=254",
            "DEVNAME=vda1",
            "DEVTYPE=partition",
            "PARTNAME=keel-data",
            "SEQNUM=1201",
        ],
        Some(&[
            ("ACTION", "add"),
            ("DEVNAME", "vda1"),
            ("PARTNAME", "keel-data"),
            ("SEQNUM", "1201"),
        ]),
    );
    check(
        &["bind@/a", "ACTION=bind", "DEVPATH=/a", "MODALIAS=a=b@c"],
        Some(&[("MODALIAS", "a=b@c")]),
    );
    check(&["add@/a", "ACTION=add", "DEVPATH=/a", "noise", "=x", "EMPTY="], Some(&[("EMPTY", "")]));
    // An `@` in the path belongs to the path.
    check(&["add@/a@b", "ACTION=add", "DEVPATH=/a@b"], Some(&[("DEVPATH", "/a@b")]));
    check(&["libudev", "ACTION=add", "DEVPATH=/a"], None);
    check(&["add@/a", "ACTION=remove", "DEVPATH=/a"], None);
    check(&["add@/a", "ACTION=add", "DEVPATH=/b"], None);
    check(&["add@/a"], None);
    check(&[], None);
    assert_eq!(Uevent::parse(&[0xff, 0xfe, 0]), None);
}

#[test]
fn only_what_comes_is_news() {
    let check = |action: &str, expect| {
        let event = Uevent::parse(&message(&[
            &format!("{action}@/a"),
            &format!("ACTION={action}"),
            "DEVPATH=/a",
        ]));
        assert_eq!(event.unwrap().adds(), expect, "{action}");
    };
    for action in ["add", "bind", "change", "move", "online"] {
        check(action, true);
    }
    for action in ["remove", "unbind", "offline"] {
        check(action, false);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Uevent::parse(&bytes);
    }

    #[test]
    fn what_is_written_is_read(
        path in "/[a-z0-9/@:.]{0,30}",
        pairs in prop::collection::vec(("[A-Z_]{1,8}", "[ -~]{0,20}"), 0..8),
    ) {
        let pairs: Vec<_> = pairs.into_iter().filter(|(key, _)| key != "ACTION" && key != "DEVPATH").collect();
        let mut parts = vec![format!("add@{path}"), "ACTION=add".into(), format!("DEVPATH={path}")];
        parts.extend(pairs.iter().map(|(key, value)| format!("{key}={value}")));
        let event = Uevent::parse(&message(&parts.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        prop_assert_eq!(event.property("DEVPATH"), Some(&*path));
        for (key, _) in &pairs {
            let first = pairs.iter().find(|(other, _)| other == key).map(|(_, value)| &**value);
            prop_assert_eq!(event.property(key), first);
        }
    }
}

/// Runs a future on a thread with its own network namespace; the namespace ends with the thread.
fn in_own_network<F: Future>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    tokio::time::timeout(Duration::from_secs(20), test()).await.unwrap();
                });
            })
            .join()
            .unwrap();
    });
}

/// ip(8), in the namespace of this thread.
fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}");
}

async fn next_event(uevents: &UeventSocket) -> Uevent {
    match uevents.receive().await.unwrap() {
        Received::Event(event) => event,
        Received::Overrun => panic!("nothing was sent that could overrun"),
    }
}

#[test]
fn the_kernel_tells_of_a_new_link() {
    in_own_network(async || {
        let uevents = UeventSocket::open().unwrap();
        assert_eq!(uevents.try_receive().unwrap(), None);
        ip("link add keel0 type veth peer name keel1");
        loop {
            let event = next_event(&uevents).await;
            if event.property("INTERFACE") == Some("keel0") {
                assert_eq!(event.property("ACTION"), Some("add"));
                assert_eq!(event.property("SUBSYSTEM"), Some("net"));
                assert!(event.adds());
                break;
            }
        }
    });
}

#[test]
fn lost_uevents_are_noticed() {
    in_own_network(async || {
        // The least that the kernel grants holds one or two of them.
        let uevents = UeventSocket::over(Subscription::with_buffer(1).unwrap()).unwrap();
        for pair in 0..8 {
            ip(&format!("link add a{pair} type veth peer name b{pair}"));
        }
        while uevents.receive().await.unwrap() != Received::Overrun {}
    });
}

#[test]
fn a_link_that_is_there_is_found_at_once() {
    in_own_network(async || {
        assert_eq!(wait(&Wanted::Link("lo".into())).await.unwrap(), Found::Link(1));
    });
}

#[test]
fn a_link_is_awaited() {
    in_own_network(async || {
        let wanted = Wanted::Link("keel0".into());
        let waiting = wait(&wanted);
        tokio::pin!(waiting);
        // The first poll subscribes and looks in vain.
        assert!(poll_once(waiting.as_mut()).await.is_none());
        ip("link add other0 type veth peer name other1");
        assert!(poll_once(waiting.as_mut()).await.is_none());
        ip("link add keel0 type veth peer name keel1");
        assert!(matches!(waiting.await.unwrap(), Found::Link(_)));
    });
}

#[test]
fn a_renamed_link_is_found_under_its_new_name() {
    in_own_network(async || {
        ip("link add eth7 type veth peer name peer7");
        let wanted = Wanted::Link("uplink".into());
        let waiting = wait(&wanted);
        tokio::pin!(waiting);
        assert!(poll_once(waiting.as_mut()).await.is_none());
        ip("link set eth7 name uplink");
        assert!(matches!(waiting.await.unwrap(), Found::Link(_)));
    });
}

#[test]
fn a_path_that_is_there_is_found_at_once() {
    in_own_network(async || {
        let null = PathBuf::from("/dev/null");
        assert_eq!(wait(&Wanted::Path(null.clone())).await.unwrap(), Found::Path(null));
    });
}

#[test]
fn a_wait_ends_when_it_is_dropped() {
    in_own_network(async || {
        let wanted = Wanted::Path("/dev/keel-never".into());
        let waiting = tokio::time::timeout(Duration::from_millis(20), wait(&wanted));
        assert!(waiting.await.is_err());
    });
}

#[test]
fn a_partition_is_found_by_its_name() {
    let sys = tempfile::tempdir().unwrap();
    let device = |name: &str, uevent: &str| {
        let dir = sys.path().join("class/block").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("uevent"), uevent).unwrap();
    };
    device("vda", "MAJOR=254\nDEVNAME=vda\nDEVTYPE=disk\n");
    device("vda1", "DEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=keel-data-old\n");
    device("vda2", "DEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=keel data\n");
    std::fs::create_dir_all(sys.path().join("class/block/vanished")).unwrap();

    let check = |label: &str, expect: Option<&str>| {
        let found = Wanted::Partition(label.into());
        let path = sys.path();
        let seen = look_now(path, &found);
        assert_eq!(seen, expect.map(|node| Found::Partition(node.into())), "{label}");
    };
    check("keel-data-old", Some("/dev/vda1"));
    check("keel data", Some("/dev/vda2"));
    check("keel", None);
    check("", None);
    // A machine without any block device.
    assert_eq!(look_now(Path::new("/nonexistent"), &Wanted::Partition("x".into())), None);
}

#[test]
fn units() {
    use keel_unit::keys::Text;
    use keel_unit::value::{AbsPath, LinkName, PartLabel};

    let none = keel_unit::kinds::Device { path: None, link: None, partition: None, timeout: None };
    let check = |unit: keel_unit::kinds::Device, expect| assert_eq!(Wanted::of(&unit), expect);
    let path = AbsPath::parse("/dev/vda").ok();
    check(keel_unit::kinds::Device { path, ..none.clone() }, Some(Wanted::Path("/dev/vda".into())));
    let link = LinkName::parse("eth0").ok();
    check(keel_unit::kinds::Device { link, ..none.clone() }, Some(Wanted::Link("eth0".into())));
    let partition = PartLabel::parse("keel-data").ok();
    check(
        keel_unit::kinds::Device { partition, ..none.clone() },
        Some(Wanted::Partition("keel-data".into())),
    );
    check(none, None);
}

/// What a wait finds without waiting.
fn look_now(sys: &Path, wanted: &Wanted) -> Option<Found> {
    let mut found = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let waiting = wait_in(sys, wanted);
        tokio::pin!(waiting);
        found = poll_once(waiting).await.map(Result::unwrap);
    });
    found
}

/// Polls a future once.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
