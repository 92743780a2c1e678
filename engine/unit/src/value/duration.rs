//! Spans of time: as a file says them, `1m30s`, and as a page does, `1 min 30 s`.

use std::fmt;
use std::time::Duration;

use crate::keys::Text;

/// A span of time, written with units: `500ms`, `30s`, `1m30s`, `2h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timespan(pub Duration);

const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
/// Longer than any machine waits; keeps sums of time far from overflow.
const LONGEST: u64 = 365 * 86_400_000_000;

impl Text for Timespan {
    const EXPECTED: &'static str = "a duration such as \"500ms\", \"30s\" or \"1m30s\"";
    const EXAMPLE: &'static str = "30s";
    const PATTERN: &'static str = r"^([0-9]+(d|h|m|s|ms|us))+$";

    fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text;
        let mut total: u64 = 0;
        let mut smallest = usize::MAX;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return Err("a number must stand before each unit".to_owned());
            }
            let number: u64 =
                rest[..digits].parse().map_err(|_| "the number is too large".to_owned())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[..letters];
            rest = &rest[letters..];
            let at = UNITS.iter().position(|(u, _)| *u == unit);
            let Some(at) = at else {
                return Err(match unit {
                    "" => format!("a unit is missing after {number} (d, h, m, s, ms or us)"),
                    _ => format!("`{unit}` is no unit (d, h, m, s, ms or us)"),
                });
            };
            if smallest != usize::MAX && at <= smallest {
                return Err("units go from the largest to the smallest, each once".to_owned());
            }
            smallest = at;
            let part = number.checked_mul(UNITS[at].1).filter(|p| *p <= LONGEST);
            total = part.and_then(|p| total.checked_add(p)).ok_or("longer than 365 days")?;
        }
        if smallest == usize::MAX {
            return Err("it is empty".to_owned());
        }
        if total > LONGEST {
            return Err("longer than 365 days".to_owned());
        }
        Ok(Timespan(Duration::from_micros(total)))
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_micros() as u64;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

/// A span of time as a page says it to people, to three digits or so: `2.31 s`. What is exact has no fraction: `2 s`, where `2.00 s` is
/// what was left out of a little more.
pub fn people(span: Duration) -> String {
    let micros = span.as_micros();
    let (millis, seconds) = (micros / 1_000, micros / 1_000_000);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u128, unit: &str, small: u128, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    };
    match micros {
        0..10_000 => match micros % 1_000 {
            0 => format!("{millis} ms"),
            rest => format!("{millis}.{} ms", rest / 100),
        },
        10_000..1_000_000 => format!("{millis} ms"),
        1_000_000..60_000_000 => match micros % 1_000_000 {
            0 => format!("{seconds} s"),
            rest => format!("{seconds}.{:02} s", rest / 10_000),
        },
        _ if hours == 0 => two(minutes, "min", seconds % 60, "s"),
        _ if days == 0 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<u64>) {
        let got = Timespan::parse(text).ok().map(|t| t.0.as_micros() as u64);
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn durations() {
        check("30s", Some(30_000_000));
        check("1m30s", Some(90_000_000));
        check("500ms", Some(500_000));
        check("0s", Some(0));
        check("365d", Some(LONGEST));
        check("365d1us", None);
        check("", None);
        check("30", None);
        check("s", None);
        check("-1s", None);
        check("1s1m", None);
        check("1s1s", None);
        check("1.5s", None);
        check("99999999999999999999s", None);
        check("9999999999999d", None);
        check("30 s", None);
    }

    #[test]
    fn people_are_told_three_digits() {
        let check = |micros: u64, expect: &str| {
            assert_eq!(people(Duration::from_micros(micros)), expect);
        };
        check(0, "0 ms");
        check(99, "0.0 ms");
        check(1_000, "1 ms");
        check(1_250, "1.2 ms");
        check(9_999, "9.9 ms");
        check(10_000, "10 ms");
        check(999_999, "999 ms");
        check(1_000_000, "1 s");
        check(1_000_001, "1.00 s");
        check(1_500_000, "1.50 s");
        check(59_999_999, "59.99 s");
        check(60_000_000, "1 min");
        check(90_000_000, "1 min 30 s");
        check(3_600_000_000, "1 h");
        check(7_500_000_000, "2 h 5 min");
        check(LONGEST, "365 d");
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["30s", "1m30s", "500ms", "1d2h3m4s5ms6us", "0s"] {
            assert_eq!(Timespan::parse(text).unwrap().to_string(), text);
        }
    }
}
