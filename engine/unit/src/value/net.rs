//! Network values: names, addresses, sizes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::AbsPath;
use crate::keys::Text;

/// An address with the length of its network's prefix: `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl Text for Cidr {
    const EXPECTED: &'static str = "an address with prefix length such as \"192.0.2.7/24\"";
    const EXAMPLE: &'static str = "192.0.2.7/24";
    const PATTERN: &'static str = r"^[0-9A-Fa-f:.]+/[0-9]{1,3}$";

    fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) =
            text.split_once('/').ok_or("the prefix length is missing (`/24`)")?;
        let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|p: &u8| digits && *p <= most);
        let prefix =
            prefix.ok_or_else(|| format!("the prefix length is not a number from 0 to {most}"))?;
        Ok(Cidr { address, prefix })
    }
}

/// Where something listens: an address and a port, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Address(SocketAddr),
    /// The path of a Unix socket.
    Socket(AbsPath),
}

impl Text for Listen {
    const EXPECTED: &'static str =
        "an address with port such as \"127.0.0.1:9100\", or the path of a Unix socket";
    const EXAMPLE: &'static str = "127.0.0.1:9100";
    const PATTERN: &'static str = r"^(/.*|.*:[0-9]{1,5})$";

    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return AbsPath::parse(text).map(Listen::Socket);
        }
        let address = SocketAddr::parse(text)?;
        match address.port() {
            0 => Err("port 0 is a different port in each boot".to_owned()),
            _ => Ok(Listen::Address(address)),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Text for IpAddr {
    const EXPECTED: &'static str = "an IP address such as \"192.0.2.1\"";
    const EXAMPLE: &'static str = "192.0.2.1";
    const PATTERN: &'static str = r"^[0-9A-Fa-f:.]+$";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not an IP address".to_owned())
    }
}

impl Text for SocketAddr {
    const EXPECTED: &'static str = "an address with port such as \"[::]:50051\"";
    const EXAMPLE: &'static str = "[::]:50051";
    const PATTERN: &'static str = r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]+):[0-9]{1,5}$";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not an address with port".to_owned())
    }
}

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl Text for MacAddr {
    const EXPECTED: &'static str = "a MAC address such as \"52:54:00:12:34:56\"";
    const EXAMPLE: &'static str = "52:54:00:12:34:56";
    const PATTERN: &'static str = r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$";

    fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part =
                parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            let part =
                part.ok_or("not six pairs of hexadecimal digits with colons between them")?;
            *byte = u8::from_str_radix(part, 16).map_err(|e| e.to_string())?;
        }
        match parts.next() {
            Some(_) => Err("more than six pairs".to_owned()),
            None => Ok(MacAddr(bytes)),
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The largest packet of a link, in bytes: 68 (RFC 791) to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mtu(pub u16);

impl crate::keys::Value for Mtu {
    fn expected() -> String {
        "an integer from 68 to 65535".to_owned()
    }

    fn shape() -> crate::shape::Shape {
        crate::shape::Shape::Integer { from: 68, to: 65_535 }
    }

    fn decode(
        node: &crate::tree::Node,
        findings: &mut Vec<crate::diagnostic::Diagnostic>,
    ) -> Option<Self> {
        let mtu = <u16 as crate::keys::Value>::decode(node, findings)?;
        if mtu < 68 {
            let found = crate::diagnostic::Diagnostic::new(
                "out-of-range",
                node.span,
                format!("{mtu} is out of range"),
            );
            findings.push(found.label(format!("expected {}", Self::expected())));
            return None;
        }
        Some(Mtu(mtu))
    }
}

macro_rules! name {
    ($(#[doc = $doc:literal])* $name:ident, $expected:literal, $example:literal, $pattern:literal, $valid:expr) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Text for $name {
            const EXPECTED: &'static str = $expected;
            const EXAMPLE: &'static str = $example;
            const PATTERN: &'static str = $pattern;

            fn parse(text: &str) -> Result<Self, String> {
                ($valid as fn(&str) -> Result<(), String>)(text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(super) use name;

fn hostname(text: &str) -> Result<(), String> {
    // 64 is what sethostname(2) takes; labels by RFC 1123, 2.1.
    if text.is_empty() || text.len() > 64 {
        return Err("not 1 to 64 characters".to_owned());
    }
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err("each part between dots has 1 to 63 characters".to_owned());
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a part starts or ends with `-`".to_owned());
        }
        if !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err("only a-z, 0-9, `-` and `.` (Kubernetes takes no capitals in node names)"
                .to_owned());
        }
    }
    Ok(())
}

name! {
    /// A host name (RFC 1123), in lower case because it becomes the name of a Kubernetes node.
    Hostname, "a host name such as \"node-1\"", "node-1", r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", hostname
}

name! {
    /// The name of a network link, 1 to 15 bytes (the kernel's IFNAMSIZ).
    LinkName, "a link name such as \"eth0\"", "eth0", r"^[!-.0-9;-~]{1,15}$", |text| {
        if text.is_empty() || text.len() > 15 {
            return Err("not 1 to 15 characters".to_owned());
        }
        if text == "." || text == ".." || text.bytes().any(|b| b == b'/' || b == b':' || !b.is_ascii_graphic()) {
            return Err("no `/`, `:`, blanks or special characters".to_owned());
        }
        Ok(())
    }
}

name! {
    /// A time server: a name or an address.
    NtpServer, "a host name or address such as \"pool.ntp.org\"", "pool.ntp.org", r"^[0-9A-Za-z:.-]{1,64}$", |text| {
        if text.parse::<IpAddr>().is_ok() { Ok(()) } else { hostname(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Text>(text: &str, expect: bool) {
        assert_eq!(T::parse(text).is_ok(), expect, "{text:?}");
    }

    #[test]
    fn addresses_and_names() {
        check::<Cidr>("192.0.2.7/24", true);
        check::<Cidr>("2001:db8::1/64", true);
        check::<Cidr>("192.0.2.7/33", false);
        check::<Cidr>("192.0.2.7/+4", false);
        check::<Cidr>("192.0.2.7", false);
        check::<Cidr>("192.0.2/24", false);
        check::<MacAddr>("52:54:00:12:34:56", true);
        check::<MacAddr>("52:54:00:12:34", false);
        check::<MacAddr>("52:54:00:12:34:56:78", false);
        check::<MacAddr>("+2:54:00:12:34:56", false);
        check::<Hostname>("node-1.example", true);
        check::<Hostname>("Node", false);
        check::<Hostname>("-a", false);
        check::<Hostname>("a..b", false);
        check::<Hostname>(&"a".repeat(65), false);
        check::<LinkName>("eth0", true);
        check::<LinkName>("..", false);
        check::<LinkName>("sixteencharacter", false);
        check::<NtpServer>("2001:db8::1", true);
        check::<SocketAddr>("[::]:50051", true);
        check::<SocketAddr>("localhost:1", false);
    }
}
