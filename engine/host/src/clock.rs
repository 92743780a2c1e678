//! The clock: not before a floor, and once by the time servers.
//!
//! A machine without a battery wakes in 1970, where no certificate is valid yet. The floor is the date of a file: what
//! is on the data partition was written before now. Then the time servers are asked, if there are any (SNTP, RFC 5905
//! section 14); their word stands above the floor. Each run dates the file anew, so the next boot begins no earlier.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keel_unit::kinds;
use keel_unit::value::AbsPath;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use rsntp::{Config, SntpClient};

/// How long one server has for its answer. One lost packet costs this much of the boot.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How many addresses of one server are tried.
const ADDRESSES: usize = 4;

/// The port of NTP (RFC 5905, section 7.2).
const NTP_PORT: u16 = 123;

/// A clock that can be set.
pub trait WallClock {
    /// What it shows.
    fn now(&self) -> SystemTime;
    /// Sets it.
    fn set(&self, time: SystemTime) -> io::Result<()>;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn set(&self, time: SystemTime) -> io::Result<()> {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since_epoch))?)
    }
}

/// What was done to the clock.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adjusted {
    /// It stood this much before the floor and was set to it.
    pub raised_by: Option<Duration>,
    /// What a time server said.
    pub server: Option<Answer>,
}

/// What a time server said of the clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The server, as the unit names it.
    pub server: String,
    /// The address that answered.
    pub address: SocketAddr,
    /// By how many seconds the clock was wrong; positive: it was slow.
    pub offset: f64,
    /// Whether it was set; not when it is right within what the network lets one measure.
    pub stepped: bool,
}

/// A clock that is not known to be right.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The clock could not be set.
    #[error("cannot set the clock")]
    Set(#[source] io::Error),
    /// The file of the floor could not be read or dated.
    #[error("cannot keep the time in {}", path.display())]
    Floor {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No time server gave an answer that can be used.
    #[error("no time server answered: {}", Failures(.0))]
    NoAnswer(Vec<(String, String)>),
}

/// `a (timed out), b (not synchronized)`
struct Failures<'a>(&'a [(String, String)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (server, reason)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{server} ({reason})")?;
        }
        Ok(())
    }
}

/// Does to the clock of this machine what the unit says. Blocks.
pub fn apply(unit: &kinds::Time) -> Result<Adjusted, ClockError> {
    let servers: Vec<String> = unit.servers.iter().map(ToString::to_string).collect();
    adjust(&SystemClock, unit.floor.as_ref().map(AbsPath::as_path), &servers)
}

/// Brings `clock` to the floor, asks the servers in their order until one answers, and dates the floor anew. Blocks.
///
/// The floor holds also when no server answers.
pub fn adjust(
    clock: &impl WallClock,
    floor: Option<&Path>,
    servers: &[String],
) -> Result<Adjusted, ClockError> {
    let mut adjusted = Adjusted::default();
    if let Some(floor) = floor {
        adjusted.raised_by = raise(clock, floor)?;
    }
    let answered = if servers.is_empty() { Ok(None) } else { step(clock, servers).map(Some) };
    if let Some(floor) = floor {
        date(clock, floor)?;
    }
    adjusted.server = answered?;
    Ok(adjusted)
}

/// Sets the clock to the date of the file, if it stands before it. No file: no floor yet.
fn raise(clock: &impl WallClock, floor: &Path) -> Result<Option<Duration>, ClockError> {
    let date = match std::fs::metadata(floor).and_then(|found| found.modified()) {
        Ok(date) => date,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ClockError::Floor { path: floor.to_owned(), source }),
    };
    match date.duration_since(clock.now()) {
        Ok(behind) if !behind.is_zero() => {
            clock.set(date).map_err(ClockError::Set)?;
            Ok(Some(behind))
        }
        _ => Ok(None),
    }
}

/// Gives the file the date of the clock. On a filesystem that is read-only, the date that it was built with is the
/// floor for ever.
fn date(clock: &impl WallClock, floor: &Path) -> Result<(), ClockError> {
    let dated = File::options()
        .create(true)
        .append(true)
        .open(floor)
        .and_then(|file| file.set_modified(clock.now()));
    match dated {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        other => other.map_err(|source| ClockError::Floor { path: floor.to_owned(), source }),
    }
}

/// Sets the clock by the first server that answers.
fn step(clock: &impl WallClock, servers: &[String]) -> Result<Answer, ClockError> {
    let mut failures = Vec::new();
    for server in servers {
        let addresses = match addresses(server) {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.push((server.clone(), error.to_string()));
                continue;
            }
        };
        for address in addresses {
            let bind = match address {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            };
            let client = SntpClient::with_config(
                Config::default().bind_address(bind).timeout(ANSWER_WITHIN),
            );
            match client.synchronize(address) {
                Ok(result) => {
                    let offset = result.clock_offset().as_secs_f64();
                    let stepped = is_wrong(offset, result.round_trip_delay().as_secs_f64());
                    if stepped {
                        let time = shifted(clock.now(), offset)
                            .ok_or_else(|| ClockError::Set(io::ErrorKind::InvalidInput.into()))?;
                        clock.set(time).map_err(ClockError::Set)?;
                    }
                    return Ok(Answer { server: server.clone(), address, offset, stepped });
                }
                Err(error) => failures.push((server.clone(), reason(&error))),
            }
        }
    }
    Err(ClockError::NoAnswer(failures))
}

/// The true time lies within half the round trip of what the server said (RFC 5905, section 4): a smaller offset than
/// that is noise.
fn is_wrong(offset: f64, round_trip: f64) -> bool {
    offset.abs() > round_trip.abs() / 2.0
}

fn shifted(time: SystemTime, seconds: f64) -> Option<SystemTime> {
    let by = Duration::try_from_secs_f64(seconds.abs()).ok()?;
    if seconds < 0.0 { time.checked_sub(by) } else { time.checked_add(by) }
}

fn addresses(server: &str) -> io::Result<Vec<SocketAddr>> {
    // With a port or without: `time.example`, `10.0.0.1`, `fd00::1`, `[fd00::1]:1123`, `time.example:1123`.
    let bare = server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(server);
    let with_port = server.to_socket_addrs();
    let resolved = match with_port {
        Ok(addresses) => addresses,
        Err(_) => (bare, NTP_PORT).to_socket_addrs()?,
    };
    Ok(resolved.take(ADDRESSES).collect())
}

/// What a person can do something with.
fn reason(error: &rsntp::SynchronizationError) -> String {
    match error {
        rsntp::SynchronizationError::IOError(io) if io.kind() == io::ErrorKind::WouldBlock => {
            format!("no answer within {} s", ANSWER_WITHIN.as_secs())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::UdpSocket;

    use super::*;

    /// A clock that is wrong by a constant, as machines' clocks are.
    struct FakeClock {
        shift: Cell<i64>,
        refuses: bool,
    }

    impl FakeClock {
        fn off_by(seconds: i64) -> Self {
            Self { shift: Cell::new(seconds), refuses: false }
        }
    }

    impl WallClock for FakeClock {
        fn now(&self) -> SystemTime {
            shifted(SystemTime::now(), self.shift.get() as f64).unwrap()
        }

        fn set(&self, time: SystemTime) -> io::Result<()> {
            if self.refuses {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let shift = match time.duration_since(SystemTime::now()) {
                Ok(ahead) => ahead.as_secs_f64(),
                Err(behind) => -behind.duration().as_secs_f64(),
            };
            self.shift.set(shift.round() as i64);
            Ok(())
        }
    }

    const YEAR: i64 = 365 * 24 * 3600;

    #[test]
    fn the_floor_raises_and_never_lowers() {
        #[track_caller]
        fn check(clock_off_by: i64, floor_off_by: i64, expect: i64) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let date = shifted(SystemTime::now(), floor_off_by as f64).unwrap();
            file.as_file().set_modified(date).unwrap();
            let clock = FakeClock::off_by(clock_off_by);
            let adjusted = adjust(&clock, Some(file.path()), &[]).unwrap();
            assert_eq!(clock.shift.get(), expect);
            assert_eq!(adjusted.raised_by.is_some(), clock_off_by != expect);
            // Dated anew: the next boot begins here.
            let dated = file.as_file().metadata().unwrap().modified().unwrap();
            assert!(clock.now().duration_since(dated).unwrap() < Duration::from_secs(60));
        }
        check(0, -YEAR, 0);
        check(-30 * YEAR, -YEAR, -YEAR);
        check(-YEAR, 0, 0);
        check(YEAR, 0, YEAR);
    }

    #[test]
    fn the_first_boot_has_no_floor_and_makes_one() {
        let dir = tempfile::tempdir().unwrap();
        let floor = dir.path().join("clock");
        let clock = FakeClock::off_by(0);
        assert_eq!(adjust(&clock, Some(&floor), &[]).unwrap(), Adjusted::default());
        assert!(floor.exists());
        let error = adjust(&clock, Some(&dir.path().join("no/such/clock")), &[]).unwrap_err();
        assert!(error.to_string().starts_with("cannot keep the time in "), "{error}");
    }

    #[test]
    fn a_clock_that_cannot_be_set_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let clock = FakeClock { shift: Cell::new(-YEAR), refuses: true };
        let error = adjust(&clock, Some(file.path()), &[]).unwrap_err();
        assert_eq!(error.to_string(), "cannot set the clock");
        // The one of this machine says no to a time before 1970, and is not moved by that.
        assert!(SystemClock.set(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).is_err());
    }

    #[test]
    fn what_is_noise() {
        let check = |offset, round_trip, expect| assert_eq!(is_wrong(offset, round_trip), expect);
        check(0.004, 0.010, false);
        check(-0.004, 0.010, false);
        check(0.006, 0.010, true);
        check(-30.0 * 365.0 * 86_400.0, 0.1, true);
    }

    /// A server on the loopback link that shows the time `ahead` seconds from now, in the way that `bend` makes of it.
    fn server(ahead: i64, bend: impl Fn(&mut [u8; 48]) + Send + 'static) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut request = [0_u8; 48];
            while let Ok((48, client)) = socket.recv_from(&mut request) {
                let time = shifted(SystemTime::now(), ahead as f64).unwrap();
                let since_1900 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap()
                    + Duration::from_secs(2_208_988_800);
                let seconds = u32::try_from(since_1900.as_secs() % (1 << 32)).unwrap();
                let fraction =
                    u32::try_from((u64::from(since_1900.subsec_nanos()) << 32) / 1_000_000_000)
                        .unwrap();
                let mut reply = [0_u8; 48];
                reply[0] = 0x24; // version 4, server
                reply[1] = 2; // stratum
                reply[24..32].copy_from_slice(&request[40..48]); // originate
                for timestamp in [32, 40] {
                    reply[timestamp..timestamp + 4].copy_from_slice(&seconds.to_be_bytes());
                    reply[timestamp + 4..timestamp + 8].copy_from_slice(&fraction.to_be_bytes());
                }
                bend(&mut reply);
                socket.send_to(&reply, client).unwrap();
            }
        });
        address.to_string()
    }

    #[test]
    fn a_server_sets_the_clock() {
        // rsntp measures against the machine's clock, which is right here; the fake is moved by what it measures.
        let check = |ahead: i64| {
            let servers = [server(ahead, |_| {})];
            let clock = FakeClock::off_by(0);
            let answer = adjust(&clock, None, &servers).unwrap().server.unwrap();
            assert!(answer.stepped);
            assert_eq!((clock.shift.get(), &answer.server), (ahead, &servers[0]));
            assert!((answer.offset - ahead as f64).abs() < 1.0, "{}", answer.offset);
        };
        check(3600);
        check(-3600);
        check(30 * YEAR);
    }

    #[test]
    fn the_word_of_a_server_stands_above_the_floor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_modified(shifted(SystemTime::now(), YEAR as f64).unwrap()).unwrap();
        let clock = FakeClock::off_by(0);
        // The clock of a year ahead is put right, and so is the floor.
        let servers = [server(-7200, |_| {})];
        adjust(&clock, Some(file.path()), &servers).unwrap();
        assert!(file.as_file().metadata().unwrap().modified().unwrap() <= clock.now());
    }

    #[test]
    fn the_next_server_is_asked() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wrong = server(0, |reply| reply[0] = 0xe4); // leap indicator 3: not synchronized
        let servers = [wrong, silent.local_addr().unwrap().to_string(), server(60, |_| {})];
        let answer = adjust(&FakeClock::off_by(0), None, &servers).unwrap().server.unwrap();
        assert_eq!(answer.server, servers[2]);
    }

    #[test]
    fn no_answer_names_each_server_and_why() {
        let floor = tempfile::NamedTempFile::new().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = silent.local_addr().map(|address| (silent, address)).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let forged = server(0, |reply| reply[24] ^= 1); // not the answer to what was asked
        let kiss = server(0, |reply| reply[1] = 0); // stratum 0: go away
        let servers =
            [silent.1.to_string(), closed.to_string(), forged, kiss, "no such host".to_owned()];
        let clock = FakeClock::off_by(-YEAR);

        let error = adjust(&clock, Some(floor.path()), &servers).unwrap_err().to_string();
        assert!(error.starts_with("no time server answered: "), "{error}");
        assert!(error.contains(&format!("{} (no answer within 2 s)", servers[0])), "{error}");
        for server in &servers {
            assert!(error.contains(&format!("{server} (")), "{error}");
        }
        assert_eq!(clock.shift.get(), 0, "the floor holds all the same");
    }

    #[test]
    fn servers_are_named_in_many_ways() {
        let check = |server: &str, expect: &str| {
            assert_eq!(
                addresses(server).unwrap(),
                [expect.parse::<SocketAddr>().unwrap()],
                "{server}"
            );
        };
        check("127.0.0.1", "127.0.0.1:123");
        check("127.0.0.1:1123", "127.0.0.1:1123");
        check("fd00::1", "[fd00::1]:123");
        check("[fd00::1]", "[fd00::1]:123");
        check("[fd00::1]:1123", "[fd00::1]:1123");
    }
}
