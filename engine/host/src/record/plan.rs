//! Which records stay.

/// Boots that are remembered, the one that runs among them.
const MOST_BOOTS: usize = 8;

/// A boot's folder, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The boot's id.
    pub(super) id: String,
    /// The number of its record; none if it holds no record.
    pub(super) number: Option<u64>,
}

/// What is to be done for a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The number that it has. Numbers rise from boot to boot, whatever the clock says.
    pub(super) number: u64,
    /// The boots that are forgotten, oldest first.
    pub(super) forget: Vec<String>,
}

/// Room for the record of the boot `id`.
pub(super) fn plan(mut found: Vec<Found>, id: &str) -> Plan {
    let own = found.iter().position(|boot| boot.id == id).map(|at| found.swap_remove(at));
    let newest = found.iter().filter_map(|boot| boot.number).max().unwrap_or(0);
    let number = own.and_then(|own| own.number).unwrap_or(newest.saturating_add(1));
    // A folder without a record is older than all: it tells nothing.
    found.sort_by(|a, b| (a.number, &a.id).cmp(&(b.number, &b.id)));
    let empty = found.iter().filter(|boot| boot.number.is_none()).count();
    let too_many = found.len().saturating_sub(MOST_BOOTS - 1).max(empty);
    let forget = found.into_iter().take(too_many).map(|boot| boot.id);
    Plan { number, forget: forget.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let check = |found: &[(&str, u64)], id: &str, number, forget: &[&str]| {
            let found = found.iter().map(|(id, number)| Found {
                id: (*id).to_owned(),
                number: (*number > 0).then_some(*number),
            });
            let forget = forget.iter().map(ToString::to_string).collect();
            assert_eq!(plan(found.collect(), id), Plan { number, forget });
        };
        check(&[], "a", 1, &[]);
        check(&[("a", 1)], "a", 1, &[]);
        check(&[("a", 1)], "b", 2, &[]);
        check(&[("b", 7), ("a", 3)], "c", 8, &[]);
        // Its own number stays, also when it is not the newest any more.
        check(&[("b", 7), ("a", 3)], "a", 3, &[]);
        let eight =
            [("h", 8), ("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6), ("g", 7)];
        check(&eight, "i", 9, &["a"]);
        check(&eight, "h", 8, &[]);
        check(&eight[..7], "h", 8, &[]);
        // What holds no record goes in any case.
        check(&[("x", 0), ("b", 2)], "c", 3, &["x"]);
        check(&[("c", 0), ("b", 2)], "c", 3, &[]);
        check(&[("m", u64::MAX)], "n", u64::MAX, &[]);
    }
}
