//! The option fields of a message (RFC 2132): found, joined, and read.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::message::Refused;

pub(super) const MASK: u8 = 1;
pub(super) const ROUTER: u8 = 3;
pub(super) const DNS: u8 = 6;
pub(super) const HOSTNAME: u8 = 12;
pub(super) const DOMAIN: u8 = 15;
pub(super) const MTU: u8 = 26;
pub(super) const LEASE_TIME: u8 = 51;
pub(super) const OVERLOAD: u8 = 52;
pub(super) const MESSAGE_TYPE: u8 = 53;
pub(super) const SERVER: u8 = 54;
pub(super) const RENEWAL: u8 = 58;
pub(super) const REBINDING: u8 = 59;
pub(super) const SEARCH: u8 = 119;
pub(super) const CLASSLESS: u8 = 121;

/// What the client asks a server for. RFC 3442: classless routes are asked for before routers.
pub(super) const WANTED: &[u8] = &[
    MASK, CLASSLESS, ROUTER, DNS, HOSTNAME, DOMAIN, MTU, LEASE_TIME, SERVER, RENEWAL, REBINDING,
    SEARCH,
];

const PAD: u8 = 0;
const END: u8 = 255;

/// The options of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Reads the options field, and `file` and `sname` where option 52 says that they hold options
    /// too. An option that occurs again continues the first (RFC 3396).
    pub(super) fn parse(options: &[u8], file: &[u8], sname: &[u8]) -> Result<Self, Refused> {
        let mut found = Self::default();
        found.gather(options)?;
        let overload = found.0.get(&OVERLOAD).and_then(|data| data.first()).copied().unwrap_or(0);
        if overload & 1 != 0 {
            found.gather(file)?;
        }
        if overload & 2 != 0 {
            found.gather(sname)?;
        }
        Ok(found)
    }

    fn gather(&mut self, mut field: &[u8]) -> Result<(), Refused> {
        loop {
            match field {
                [END, ..] => return Ok(()),
                [PAD, rest @ ..] => field = rest,
                [code, len, rest @ ..] => {
                    let (data, rest) =
                        rest.split_at_checked(usize::from(*len)).ok_or(Refused::Truncated)?;
                    self.0.entry(*code).or_default().extend_from_slice(data);
                    field = rest;
                }
                // RFC 2131 4.1: the last option is always END. What lacks it lacks more.
                [] | [_] => return Err(Refused::Truncated),
            }
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// An option of exactly `N` octets; a wrong length refuses the message.
    pub(super) fn exact<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, Refused> {
        match self.get(code) {
            None => Ok(None),
            Some(data) => data.try_into().map(Some).map_err(|_| Refused::OptionLength(code)),
        }
    }

    /// A number that the message can do without: a wrong length is as good as none.
    pub(super) fn seconds(&self, code: u8) -> Option<u32> {
        self.exact(code).ok().flatten().map(u32::from_be_bytes)
    }

    /// Option 26.
    pub(super) fn mtu(&self) -> Option<u16> {
        self.exact(MTU).ok().flatten().map(u16::from_be_bytes)
    }

    /// A list of addresses that a host can have; others are passed over.
    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let data = self.get(code).unwrap_or_default();
        data.as_chunks()
            .0
            .iter()
            .map(|octets: &[u8; 4]| Ipv4Addr::from(*octets))
            .filter(|a| is_host(*a))
            .collect()
    }

    /// Option 12, if it is a name that a host may bear. What a server says ends in the kernel and
    /// in files, so only the letters of RFC 1123 pass.
    pub(super) fn hostname(&self) -> Option<String> {
        let name = text(self.get(HOSTNAME)?)?;
        let usable =
            name.len() <= 64 && is_domain(name) && !name.contains('_') && name != "localhost";
        usable.then(|| name.to_owned())
    }

    /// Search domains: option 119 (RFC 3397), else the names in option 15.
    pub(super) fn search(&self) -> Vec<String> {
        let listed = self.get(SEARCH).and_then(domain_list).unwrap_or_default();
        if !listed.is_empty() {
            return listed;
        }
        let text = self.get(DOMAIN).and_then(text).unwrap_or_default();
        text.split_ascii_whitespace().filter(|name| is_domain(name)).map(str::to_owned).collect()
    }

    /// Option 121 (RFC 3442): destination, prefix length, router (0.0.0.0: on the link itself).
    /// `None` if it is absent or malformed in any part.
    pub(super) fn classless_routes(&self) -> Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>> {
        let mut data = self.get(CLASSLESS)?;
        let mut routes = Vec::new();
        while let [prefix, rest @ ..] = data {
            if *prefix > 32 {
                return None;
            }
            let (significant, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8)))?;
            let (router, rest) = rest.split_first_chunk::<4>()?;
            let mut destination = [0; 4];
            destination[..significant.len()].copy_from_slice(significant);
            // RFC 3442: bits behind the prefix may be set by a careless server and are cleared.
            let destination = Ipv4Addr::from_bits(u32::from_be_bytes(destination) & mask(*prefix));
            routes.push((destination, *prefix, Ipv4Addr::from(*router)));
            data = rest;
        }
        (!routes.is_empty()).then_some(routes)
    }
}

/// The bits of a mask of `prefix` ones.
pub(super) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Whether a single host on a network can have this address.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

fn text(data: &[u8]) -> Option<&str> {
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    str::from_utf8(&data[..end]).ok()
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

/// Names in the compressed form of RFC 1035 4.1.4. `None` if any of it is malformed.
fn domain_list(data: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let (name, next) = domain(data, at)?;
        at = next;
        if is_domain(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// The name at `start`, and where the next one starts.
fn domain(data: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<&str> = Vec::new();
    let mut next = None;
    let mut at = start;
    // A pointer leads only backward of what was read so far: no loop can be built.
    let mut floor = start;
    loop {
        let len = *data.get(at)?;
        match len {
            0 => return Some((labels.join("."), next.unwrap_or(at + 1))),
            1..=63 => {
                let end = at + 1 + usize::from(len);
                labels.push(str::from_utf8(data.get(at + 1..end)?).ok()?);
                at = end;
            }
            0xc0.. => {
                let target = usize::from(len & 0x3f) << 8 | usize::from(*data.get(at + 1)?);
                next.get_or_insert(at + 2);
                if target >= floor {
                    return None;
                }
                floor = target;
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(code: u8, data: &[u8]) -> Options {
        Options(BTreeMap::from([(code, data.to_vec())]))
    }

    #[test]
    fn options_are_found_and_joined() {
        #[track_caller]
        fn check(
            options: &[u8],
            file: &[u8],
            sname: &[u8],
            expect: Result<&[(u8, &[u8])], Refused>,
        ) {
            let expect =
                expect.map(|list| list.iter().map(|(code, data)| (*code, data.to_vec())).collect());
            assert_eq!(Options::parse(options, file, sname).map(|options| options.0), expect);
        }
        check(&[255], &[], &[], Ok(&[]));
        check(&[53, 1, 2, 255, 9, 9], &[], &[], Ok(&[(53, &[2])]));
        check(&[0, 53, 1, 2, 0, 255], &[], &[], Ok(&[(53, &[2])]));
        check(&[12, 0, 255], &[], &[], Ok(&[(12, &[])]));
        // RFC 3396: pieces of one option are joined in order, also across fields.
        check(&[12, 1, b'a', 53, 1, 2, 12, 1, b'b', 255], &[], &[], Ok(&[(12, b"ab"), (53, &[2])]));
        check(
            &[52, 1, 3, 12, 1, b'a', 255],
            &[12, 1, b'b', 255],
            &[12, 1, b'c', 255, 0],
            Ok(&[(12, b"abc"), (52, &[3])]),
        );
        // Without option 52 the other fields are names, not options.
        check(&[12, 1, b'a', 255], &[12, 1, b'b'], &[7], Ok(&[(12, b"a")]));
        check(&[52, 1, 1, 255], &[255], &[12, 9], Ok(&[(52, &[1])]));
        check(&[], &[], &[], Err(Refused::Truncated));
        check(&[0, 0, 0], &[], &[], Err(Refused::Truncated));
        check(&[53, 1, 2], &[], &[], Err(Refused::Truncated));
        check(&[53], &[], &[], Err(Refused::Truncated));
        check(&[53, 1], &[], &[], Err(Refused::Truncated));
        check(&[53, 4, 1, 2, 3], &[], &[], Err(Refused::Truncated));
        check(&[52, 1, 2, 255], &[], &[12, 9, 0], Err(Refused::Truncated));
    }

    #[test]
    fn classless_routes() {
        #[track_caller]
        fn check(data: &[u8], expect: Option<&[(&str, u8, &str)]>) {
            let expect = expect.map(|list| {
                list.iter()
                    .map(|(to, len, via)| (to.parse().unwrap(), *len, via.parse().unwrap()))
                    .collect()
            });
            assert_eq!(option(CLASSLESS, data).classless_routes(), expect, "{data:?}");
        }
        check(&[0, 10, 0, 0, 1], Some(&[("0.0.0.0", 0, "10.0.0.1")]));
        check(&[8, 10, 1, 2, 3, 4], Some(&[("10.0.0.0", 8, "1.2.3.4")]));
        check(
            &[24, 192, 168, 7, 10, 0, 0, 1, 0, 10, 0, 0, 2],
            Some(&[("192.168.7.0", 24, "10.0.0.1"), ("0.0.0.0", 0, "10.0.0.2")]),
        );
        check(&[32, 169, 254, 169, 254, 0, 0, 0, 0], Some(&[("169.254.169.254", 32, "0.0.0.0")]));
        // Bits behind the prefix.
        check(&[12, 172, 31, 10, 0, 0, 1], Some(&[("172.16.0.0", 12, "10.0.0.1")]));
        check(&[], None);
        check(&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1], None);
        check(&[24, 10, 0], None);
        check(&[0, 10, 0, 0, 1, 24], None);
        check(&[255; 40], None);
    }

    #[test]
    fn search_domains() {
        #[track_caller]
        fn check(code: u8, data: &[u8], expect: &[&str]) {
            assert_eq!(option(code, data).search(), expect, "{data:?}");
        }
        check(DOMAIN, b"lab.example", &["lab.example"]);
        check(DOMAIN, b"lab.example\0", &["lab.example"]);
        check(DOMAIN, b"a.example b.example", &["a.example", "b.example"]);
        // Nothing that could add a line to resolv.conf gets through.
        check(DOMAIN, b"a.example\nnameserver", &["a.example", "nameserver"]);
        check(DOMAIN, b"a;b", &[]);
        check(DOMAIN, &[0xff, 0xfe], &[]);
        check(
            SEARCH,
            b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04",
            &["eng.apple.com", "marketing.apple.com"],
        );
        check(SEARCH, b"\x03eng\x00", &["eng"]);
        // Pointers to themselves, forward, out of the data; a label cut short; a reserved length.
        check(SEARCH, b"\xc0\x00", &[]);
        check(SEARCH, b"\x01a\xc0\x02", &[]);
        check(SEARCH, b"\x01a\xc0\x09\x01b\x00", &[]);
        check(SEARCH, b"\x09abc", &[]);
        check(SEARCH, b"\x80abc\x00", &[]);
        check(SEARCH, b"\x03a\nb\x00", &[]);
    }

    #[test]
    fn hostnames() {
        #[track_caller]
        fn check(name: &[u8], expect: Option<&str>) {
            assert_eq!(option(HOSTNAME, name).hostname().as_deref(), expect);
        }
        check(b"node-1", Some("node-1"));
        check(b"node-1.lab.example", Some("node-1.lab.example"));
        check(b"node-1\0", Some("node-1"));
        for bad in [
            &b""[..],
            b"\0",
            b"-a",
            b"a-",
            b"a..b",
            b"a b",
            b"a/b",
            b"a_b",
            b"a\nb",
            b"localhost",
            &[b'a'; 65],
            &[0xc3],
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn addresses_that_no_host_has_are_passed_over() {
        let data = [
            10, 0, 0, 1, 0, 0, 0, 0, 224, 0, 0, 1, 255, 255, 255, 255, 127, 0, 0, 1, 10, 0, 0, 2,
            9, 9,
        ];
        assert_eq!(
            option(DNS, &data).addresses(DNS),
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
    }
}
