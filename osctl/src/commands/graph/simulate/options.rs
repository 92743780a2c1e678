//! What is made to go wrong, as it is typed.

use std::time::Duration;

use keel_plan::{Class, Transaction, UnitId};
use keel_unit::diagnostic::nearest;

use crate::error::Failure;

/// A unit that takes so many times as long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slow {
    pub(super) unit: String,
    pub(super) factor: f64,
}

/// The largest factor: a boot is simulated for a day at most.
const MOST: f64 = 10_000.0;

/// Reads `UNIT=x3`, `UNIT=×3`, `UNIT=3` or `UNIT=1.5`.
pub(super) fn slow(text: &str) -> Result<Slow, String> {
    let (unit, factor) = text.rsplit_once('=').ok_or("write it as UNIT=x3")?;
    let digits = factor.strip_prefix(['x', 'X', '×', '*']).unwrap_or(factor);
    let factor: f64 = digits.parse().map_err(|_| format!("`{factor}` is no factor such as x3"))?;
    if unit.is_empty() {
        return Err("a unit must stand before `=`".to_owned());
    }
    if !(0.0..=MOST).contains(&factor) {
        return Err(format!("a factor is between 0 and {MOST}"));
    }
    Ok(Slow { unit: unit.to_owned(), factor })
}

/// So many times as long.
pub(super) fn times(span: Duration, factor: f64) -> Duration {
    span.mul_f64(factor)
}

/// The unit of that name, which the goal starts.
pub(super) fn unit(transaction: &Transaction, option: &str, name: &str) -> Result<UnitId, Failure> {
    let Some(unit) = transaction.find(name) else {
        let failure = Failure::usage(format!("{option}: there is no unit `{name}`"));
        let names = transaction.units().iter().map(|spec| &*spec.name);
        return Err(match nearest(name, names) {
            Some(near) => failure.next(format!("did you mean `{near}`?")),
            None => failure.next("`osctl graph render` shows all units"),
        });
    };
    if !transaction.jobs().iter().any(|job| job.unit == unit) {
        let goal = &transaction.spec(transaction.goal()).name;
        return Err(Failure::usage(format!("{option}: `{goal}` does not start {name}")));
    }
    Ok(unit)
}

/// As [`unit`], and it does work that can go wrong.
pub(super) fn working(
    transaction: &Transaction,
    option: &str,
    name: &str,
) -> Result<UnitId, Failure> {
    let unit = unit(transaction, option, name)?;
    if transaction.spec(unit).class == Class::Target {
        let failure = Failure::usage(format!("{option}: {name} is a target and does no work"));
        return Err(failure.next("choose one of the units that it waits for"));
    }
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_read_as_people_write_them() {
        let check = |text: &str, expect: Result<(&str, f64), &str>| {
            let got = slow(text);
            let got = got.as_ref().map(|slow| (slow.unit.as_str(), slow.factor));
            assert_eq!(
                got,
                expect.as_ref().map(|it| *it).map_err(|e| (*e).to_owned()).as_ref().map(|it| *it),
                "{text}"
            );
        };
        check("containerd=x3", Ok(("containerd", 3.0)));
        check("containerd=×3", Ok(("containerd", 3.0)));
        check("link@eth0=3", Ok(("link@eth0", 3.0)));
        check("a=1.5", Ok(("a", 1.5)));
        check("a", Err("write it as UNIT=x3"));
        check("a=", Err("`` is no factor such as x3"));
        check("a=fast", Err("`fast` is no factor such as x3"));
        check("=3", Err("a unit must stand before `=`"));
        check("a=-1", Err("a factor is between 0 and 10000"));
        check("a=NaN", Err("a factor is between 0 and 10000"));
        check("a=1e9", Err("a factor is between 0 and 10000"));
    }
}
