//! Measures Keel beside what a user would pick instead.

pub(crate) mod boots;
pub(crate) mod offline;

/// The middle one; of an even number the greater of the two, so that nobody looks better than they were.
fn median<T: Copy + PartialOrd + Default>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[u64], expect: u64| assert_eq!(median(values), expect);
        check(&[], 0);
        check(&[3], 3);
        check(&[9, 1, 5], 5);
        check(&[4, 1, 3, 2], 3);
    }
}
