//! The pattern of a type, which editors check with, refuses nothing that its parser takes.

use std::net::{IpAddr, SocketAddr};

use keel_unit::UnitName;
use keel_unit::keys::Text;
use keel_unit::value::{
    AbsPath, Argument, ByteSize, Cidr, Content, CpuLimit, EnvName, FileMode, FsLabel, FsType, Glob,
    Guid, Hostname, KernelArgument, Line, LinkName, MacAddr, MachineId, ModuleName, MountOption,
    NtpServer, PartLabel, Source, SysctlKey, Timespan,
};
use proptest::prelude::*;
use regex::Regex;

/// Texts near to what a type takes: its example with pieces gone, doubled and replaced.
fn near(example: &str) -> String {
    let chars: String = regex::escape(example);
    format!("({chars}|[a-zA-Z0-9:./@_%\\[\\]= -]{{1,12}}|\\PC{{0,6}}){{0,3}}")
}

struct Checked {
    name: &'static str,
    taken: fn(&str) -> bool,
    pattern: Regex,
    example: &'static str,
}

fn of<T: Text>() -> Checked {
    let taken = |text: &str| !text.contains('\0') && T::parse(text).is_ok();
    let pattern = Regex::new(T::PATTERN).unwrap_or_else(|error| panic!("{error}"));
    Checked { name: std::any::type_name::<T>(), taken, pattern, example: T::EXAMPLE }
}

fn all() -> Vec<Checked> {
    macro_rules! each {
        ($($ty:ty),* $(,)?) => { vec![$(of::<$ty>()),*] };
    }
    each![
        AbsPath,
        Argument,
        ByteSize,
        Cidr,
        Content,
        CpuLimit,
        EnvName,
        FileMode,
        FsLabel,
        FsType,
        Glob,
        Guid,
        Hostname,
        IpAddr,
        KernelArgument,
        Line,
        LinkName,
        MacAddr,
        MachineId,
        ModuleName,
        MountOption,
        NtpServer,
        PartLabel,
        SocketAddr,
        Source,
        SysctlKey,
        Timespan,
        UnitName,
    ]
}

#[test]
fn what_is_taken_matches() {
    for one in all() {
        assert!((one.taken)(one.example), "{}", one.name);
        assert!(one.pattern.is_match(one.example), "{}", one.name);
        let strategy = proptest::string::string_regex(&near(one.example));
        let strategy = strategy.unwrap_or_else(|error| panic!("{error}"));
        proptest!(|(text in strategy)| {
            if (one.taken)(&text) {
                prop_assert!(one.pattern.is_match(&text), "{}: {:?}", one.name, text);
            }
        });
    }
}

/// A pattern that matches everything would pass as well.
#[test]
fn what_is_plainly_wrong_does_not_match() {
    fn check<T: Text>(wrong: &[&str]) {
        let pattern = Regex::new(T::PATTERN).unwrap_or_else(|error| panic!("{error}"));
        for text in wrong {
            assert!(T::parse(text).is_err() && !pattern.is_match(text), "{text:?}");
        }
    }
    check::<AbsPath>(&["etc", "/a//b", "/a/"]);
    check::<ByteSize>(&["5", "5GB", "GiB"]);
    check::<Cidr>(&["192.0.2.1", "x/24"]);
    check::<CpuLimit>(&["50", "0%", "-1%"]);
    check::<EnvName>(&["1A", "A=B", ""]);
    check::<FileMode>(&["00644", "0999", "64", "rw-r--r--"]);
    check::<Guid>(&["0fc63daf848347728e793d69d8477de4"]);
    check::<Hostname>(&["Node", "-a", "a..b", ""]);
    check::<KernelArgument>(&["a b", ""]);
    check::<LinkName>(&["sixteencharacter", "a/b", ""]);
    check::<MacAddr>(&["52:54:00:12:34", "525400123456"]);
    check::<MachineId>(&["0123", "0123456789ABCDEF0123456789abcdef"]);
    check::<ModuleName>(&["../evil", ""]);
    check::<MountOption>(&["nosuid,nodev", ""]);
    check::<SysctlKey>(&["net..ipv4", "net.*.x"]);
    check::<Timespan>(&["30", "", "1.5s", "30 s"]);
    check::<UnitName>(&["", "a b", ".x"]);
}
