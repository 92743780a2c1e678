//! Spans of time such as `1m30s`.

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
    fn what_is_shown_reads_back() {
        for text in ["30s", "1m30s", "500ms", "1d2h3m4s5ms6us", "0s"] {
            assert_eq!(Timespan::parse(text).unwrap().to_string(), text);
        }
    }
}
