//! A lease: what a message says, once it was found fit to be believed.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Refused, Reply};
use super::options::{self, is_host, mask};

/// RFC 791: every host takes packets of 576 octets; a smaller MTU (RFC 2132 allows 68) breaks more
/// than it can mend, so it is passed over.
const LEAST_MTU: u16 = 576;

/// An address and what came with it (RFC 2131, options of RFC 2132).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address of this machine.
    pub address: Ipv4Addr,
    /// The length of the subnet mask (option 1).
    pub prefix: u8,
    /// The server that gave it (option 54).
    pub server: Ipv4Addr,
    /// How long it is given for (option 51); `None` is for ever.
    pub duration: Option<Duration>,
    /// When to renew it with its server (option 58, else half of the duration).
    pub renew_after: Duration,
    /// When to ask every server (option 59, else seven eighths).
    pub rebind_after: Duration,
    /// Default routers in order of preference (option 3).
    pub routers: Vec<Ipv4Addr>,
    /// Destination, prefix length, router (option 121). If it is there, `routers` does not count.
    pub classless: Option<Vec<(Ipv4Addr, u8, Ipv4Addr)>>,
    /// Name servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Search domains (option 119, else 15).
    pub search: Vec<String>,
    /// The name of this machine (option 12).
    pub hostname: Option<String>,
    /// The MTU of the link (option 26).
    pub mtu: Option<u16>,
}

impl Lease {
    /// Reads an offer or an acknowledgement. What a machine cannot do without refuses the whole
    /// (address, mask, lease time); anything else that is wrong is only passed over.
    pub(super) fn read(reply: &Reply, shortest: Duration) -> Result<Self, Refused> {
        let Reply { address, server, options, .. } = reply;
        if !is_host(*address) {
            return Err(Refused::Address(*address));
        }
        let prefix = match options.exact(options::MASK)? {
            Some(octets) => prefix(Ipv4Addr::from(octets))?,
            None => class_prefix(*address),
        };
        // The first and the last address of a network are its own, except in networks of one or
        // two (RFC 3021).
        let host_bits = address.to_bits() & !mask(prefix);
        if prefix < 31 && (host_bits == 0 || host_bits == !mask(prefix)) {
            return Err(Refused::Address(*address));
        }
        let octets = options.exact(options::LEASE_TIME)?.ok_or(Refused::NoLeaseTime)?;
        // RFC 2131 3.3: all ones is infinity.
        let duration = match u32::from_be_bytes(octets) {
            u32::MAX => None,
            secs if Duration::from_secs(secs.into()) < shortest => {
                return Err(Refused::LeaseTime(secs));
            }
            secs => Some(Duration::from_secs(secs.into())),
        };
        let (renew_after, rebind_after) = times(
            duration.unwrap_or(Duration::MAX),
            options.seconds(options::RENEWAL),
            options.seconds(options::REBINDING),
        );
        let mut routers = options.addresses(options::ROUTER);
        routers.retain(|router| router != address);
        Ok(Self {
            address: *address,
            prefix,
            server: *server,
            duration,
            renew_after,
            rebind_after,
            routers,
            classless: options.classless_routes(),
            dns: options.addresses(options::DNS),
            search: options.search(),
            hostname: options.hostname(),
            mtu: options.mtu().filter(|mtu| *mtu >= LEAST_MTU),
        })
    }
}

/// T1 and T2. RFC 2131 4.4.5: T1 lies before T2 and T2 before the end; a server that says
/// otherwise gets the defaults.
fn times(duration: Duration, renew: Option<u32>, rebind: Option<u32>) -> (Duration, Duration) {
    let secs = |secs: u32| Duration::from_secs(secs.into());
    match (renew.map(secs), rebind.map(secs)) {
        (Some(renew), Some(rebind)) if !renew.is_zero() && renew < rebind && rebind < duration => {
            (renew, rebind)
        }
        _ => (duration / 2, duration / 8 * 7),
    }
}

fn prefix(mask: Ipv4Addr) -> Result<u8, Refused> {
    let bits = mask.to_bits();
    match bits.leading_ones() {
        ones if ones > 0 && ones == bits.count_ones() => Ok(u8::try_from(ones).unwrap_or(32)),
        _ => Err(Refused::Mask(mask)),
    }
}

/// The mask of an address's class, for a server that gives none (RFC 2132 3.3 lets it).
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..128, ..] => 8,
        [128..192, ..] => 16,
        _ => 24,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::Kind;
    use super::super::options::Options;
    use super::*;

    /// Options in their wire form: code, data.
    pub(in super::super) fn options(list: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, data) in list {
            bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
            bytes.extend_from_slice(data);
        }
        bytes.push(255);
        bytes
    }

    const SOUND: &[(u8, &[u8])] =
        &[(1, &[255, 255, 255, 0]), (51, &[0, 0, 14, 16]), (54, &[10, 0, 0, 1])];

    fn read(address: [u8; 4], change: &[(u8, &[u8])]) -> Result<Lease, Refused> {
        let kept = SOUND.iter().filter(|(code, _)| change.iter().all(|(other, _)| other != code));
        // An empty value takes the option away.
        let list: Vec<_> =
            kept.chain(change.iter().filter(|(_, data)| !data.is_empty())).copied().collect();
        let reply = Reply {
            kind: Kind::Ack,
            address: Ipv4Addr::from(address),
            server: Ipv4Addr::new(10, 0, 0, 1),
            options: Options::parse(&options(&list), &[], &[]).unwrap(),
        };
        Lease::read(&reply, Duration::from_secs(10))
    }

    #[test]
    fn what_refuses_a_lease() {
        #[track_caller]
        fn check(address: [u8; 4], change: &[(u8, &[u8])], expect: Result<u8, Refused>) {
            assert_eq!(read(address, change).map(|lease| lease.prefix), expect);
        }
        let good = [10, 0, 0, 50];
        check(good, &[], Ok(24));
        for bad in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
        ] {
            check(bad, &[], Err(Refused::Address(bad.into())));
        }
        check([10, 0, 0, 0], &[], Err(Refused::Address([10, 0, 0, 0].into())));
        check([10, 0, 0, 255], &[], Err(Refused::Address([10, 0, 0, 255].into())));
        // ... which the mask decides.
        check([10, 0, 0, 255], &[(1, &[255, 255, 0, 0])], Ok(16));
        check([10, 0, 0, 0], &[(1, &[255, 255, 255, 254])], Ok(31));
        check([10, 0, 0, 7], &[(1, &[255, 255, 255, 255])], Ok(32));
        for bad in [
            [0, 0, 0, 0],
            [255, 0, 255, 0],
            [0, 255, 255, 255],
            [255, 255, 255, 1],
            [127, 255, 255, 0],
        ] {
            check(good, &[(1, &bad)], Err(Refused::Mask(bad.into())));
        }
        check(good, &[(1, &[255, 255, 255])], Err(Refused::OptionLength(1)));
        check(good, &[(1, &[])], Ok(8));
        check([172, 16, 0, 9], &[(1, &[])], Ok(16));
        check([192, 168, 0, 9], &[(1, &[])], Ok(24));
        check(good, &[(51, &[])], Err(Refused::NoLeaseTime));
        check(good, &[(51, &[0, 0, 0, 0])], Err(Refused::LeaseTime(0)));
        check(good, &[(51, &[0, 0, 0, 9])], Err(Refused::LeaseTime(9)));
        check(good, &[(51, &[0, 0, 0])], Err(Refused::OptionLength(51)));
        // What a machine can do without is passed over.
        check(good, &[(26, &[1])], Ok(24));
        check(good, &[(121, &[99])], Ok(24));
        check(good, &[(6, &[1, 2, 3])], Ok(24));
    }

    #[test]
    fn times_of_a_lease() {
        #[track_caller]
        fn check(change: &[(u8, &[u8])], expect: (Option<u64>, u64, u64)) {
            let lease = read([10, 0, 0, 50], change).unwrap();
            let duration = lease.duration.map(|duration| duration.as_secs());
            assert_eq!(
                (duration, lease.renew_after.as_secs(), lease.rebind_after.as_secs()),
                expect
            );
        }
        check(&[], (Some(3600), 1800, 3150));
        check(&[(58, &[0, 0, 1, 0]), (59, &[0, 0, 2, 0])], (Some(3600), 256, 512));
        // Out of order, zero, beyond the end, only one of them, cut short.
        check(&[(58, &[0, 0, 2, 0]), (59, &[0, 0, 1, 0])], (Some(3600), 1800, 3150));
        check(&[(58, &[0, 0, 0, 0]), (59, &[0, 0, 1, 0])], (Some(3600), 1800, 3150));
        check(&[(58, &[0, 0, 1, 0]), (59, &[0, 1, 0, 0])], (Some(3600), 1800, 3150));
        check(&[(58, &[0, 0, 1, 0])], (Some(3600), 1800, 3150));
        check(&[(58, &[1]), (59, &[0, 0, 2, 0])], (Some(3600), 1800, 3150));
        let never = Duration::MAX;
        check(&[(51, &[255; 4])], (None, (never / 2).as_secs(), (never / 8 * 7).as_secs()));
        check(&[(51, &[255, 255, 255, 254])], (Some(4_294_967_294), 2_147_483_647, 3_758_096_382));
    }

    #[test]
    fn the_rest_of_a_lease() {
        let lease = read(
            [10, 0, 0, 50],
            &[
                (3, &[10, 0, 0, 50, 10, 0, 0, 1]),
                (6, &[10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 3, 10, 0, 0, 4]),
                (12, b"node-7"),
                (15, b"lab.example"),
                (26, &[5, 120]),
                (121, &[0, 10, 0, 0, 254]),
            ],
        )
        .unwrap();
        assert_eq!(lease.routers, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(lease.dns.len(), 4);
        assert_eq!(lease.hostname.as_deref(), Some("node-7"));
        assert_eq!(lease.search, ["lab.example"]);
        assert_eq!(lease.mtu, Some(1400));
        assert_eq!(
            lease.classless,
            Some(vec![(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 0, 254))])
        );
        assert_eq!(read([10, 0, 0, 50], &[(26, &[0, 68])]).unwrap().mtu, None);
    }
}
