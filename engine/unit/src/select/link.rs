//! Which network link a unit means.

use crate::kinds::Link;

/// What a selector can ask of a link.
pub trait LinkFacts {
    /// The kernel's name for it.
    fn name(&self) -> &str;
    /// Its hardware address; `None` for what is no Ethernet.
    fn mac(&self) -> Option<[u8; 6]>;
    /// Whether it is `lo`.
    fn is_loopback(&self) -> bool;
    /// What software made it (`veth`, `bridge`, …); nothing for hardware.
    fn kind(&self) -> Option<&str>;
    /// Whether it is a port of a bridge or a bond, which then is the link to configure.
    fn is_port(&self) -> bool;
}

/// Which link is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSelector {
    /// `lo`.
    Loopback,
    /// The link of this name.
    Name(String),
    /// The link with this hardware address.
    Mac([u8; 6]),
    /// The primary link of a machine whose config names none: hardware before virtual links, the
    /// one that has a carrier first.
    FirstEthernetWithCarrier,
}

impl From<&Link> for LinkSelector {
    fn from(unit: &Link) -> Self {
        match (&unit.name, &unit.mac) {
            (Some(name), _) if name.as_str() == "lo" => Self::Loopback,
            (Some(name), _) => Self::Name(name.to_string()),
            (None, Some(mac)) => Self::Mac(mac.0),
            (None, None) => Self::FirstEthernetWithCarrier,
        }
    }
}

/// The links that the selector means. More than one are told apart by what only a running machine shows: a carrier.
pub fn matching_links<'a, L: LinkFacts>(selector: &LinkSelector, links: &'a [L]) -> Vec<&'a L> {
    let all = links.iter();
    match selector {
        LinkSelector::Loopback => all.filter(|link| link.is_loopback()).collect(),
        LinkSelector::Name(name) => all.filter(|link| link.name() == name).collect(),
        LinkSelector::Mac(mac) => {
            all.filter(|link| link.mac() == Some(*mac) && !link.is_port()).collect()
        }
        LinkSelector::FirstEthernetWithCarrier => ethernet(links),
    }
}

/// Hardware; where there is none, the inner end of a container's or a small VM's link.
fn ethernet<L: LinkFacts>(links: &[L]) -> Vec<&L> {
    let free = || {
        links.iter().filter(|link| link.mac().is_some() && !link.is_loopback() && !link.is_port())
    };
    let hardware: Vec<_> = free().filter(|link| link.kind().is_none()).collect();
    if !hardware.is_empty() {
        return hardware;
    }
    free().filter(|link| matches!(link.kind(), Some("veth" | "macvlan" | "ipvlan"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name`, its kind, whether it is a port; `lo` is the loopback, and `tun` has no address.
    struct Seen(&'static str, Option<&'static str>, bool);

    impl LinkFacts for Seen {
        fn name(&self) -> &str {
            self.0
        }
        fn mac(&self) -> Option<[u8; 6]> {
            let last = *self.0.as_bytes().last()?;
            (self.0 != "lo" && self.0 != "tun").then_some([2, 0, 0, 0, 0, last])
        }
        fn is_loopback(&self) -> bool {
            self.0 == "lo"
        }
        fn kind(&self) -> Option<&str> {
            self.1
        }
        fn is_port(&self) -> bool {
            self.2
        }
    }

    #[test]
    fn the_links_that_are_meant() {
        let check = |selector: LinkSelector, links: &[Seen], expect: &[&str]| {
            let found: Vec<_> = matching_links(&selector, links).iter().map(|l| l.0).collect();
            assert_eq!(found, expect, "{selector:?}");
        };
        use LinkSelector::{FirstEthernetWithCarrier as First, Loopback, Mac, Name};
        let hardware =
            || [Seen("lo", None, false), Seen("e0", None, false), Seen("e1", None, true)];
        let virtual_only = [Seen("lo", None, false), Seen("v0", Some("veth"), false)];
        check(Loopback, &hardware(), &["lo"]);
        check(Loopback, &[], &[]);
        check(Name("e1".into()), &hardware(), &["e1"]);
        check(Name("e2".into()), &hardware(), &[]);
        check(Mac([2, 0, 0, 0, 0, b'0']), &hardware(), &["e0"]);
        // A port of a bond has the address too; the bond is the link.
        check(Mac([2, 0, 0, 0, 0, b'1']), &hardware(), &[]);
        check(First, &hardware(), &["e0"]);
        check(First, &virtual_only, &["v0"]);
        check(First, &[Seen("b0", Some("bridge"), false), Seen("tun", None, false)], &[]);
    }
}
