//! In which order the places of a column stand: by the middle of their neighbours, from left to right and back, as long as
//! fewer lines cross. Lanes keep their places.

use super::layout::Layout;

/// Most times that all columns are gone through.
const SWEEPS: usize = 24;
/// With more lines than this, neighbours are not swapped one by one.
const MOST_SWAPPED: usize = 4_000;

/// Puts the places of all columns in order.
pub(super) fn order(layout: &mut Layout) {
    for column in 0..layout.columns.len() {
        let places = &layout.places;
        // The order of units is that of their names, which is the same on every machine.
        layout.columns[column].places.sort_by_key(|at| (places[*at].lane, *at));
    }
    let mut best = columns(layout);
    let mut fewest = crossings(layout);
    for sweep in 0..SWEEPS {
        if fewest == 0 {
            break;
        }
        sort(layout, sweep % 2 == 0);
        swap(layout);
        let now = crossings(layout);
        if now < fewest {
            (fewest, best) = (now, columns(layout));
        }
    }
    layout.columns.iter_mut().zip(best).for_each(|(column, best)| column.places = best);
}

fn columns(layout: &Layout) -> Vec<Vec<usize>> {
    layout.columns.iter().map(|column| column.places.clone()).collect()
}

/// The position of each place in its column.
fn positions(layout: &Layout) -> Vec<usize> {
    let mut position = vec![0; layout.places.len()];
    for column in &layout.columns {
        column.places.iter().enumerate().for_each(|(at, place)| position[*place] = at);
    }
    position
}

/// Sorts each column by the mean position of the neighbours in the column before (or behind).
fn sort(layout: &mut Layout, forward: bool) {
    let mut position = positions(layout);
    let count = layout.columns.len();
    let sweep: Vec<usize> = if forward { (0..count).collect() } else { (0..count).rev().collect() };
    for column in sweep {
        let places = &layout.places;
        let mean = |at: usize| {
            let sides = (&places[at].before, &places[at].behind);
            let (near, far) = if forward { sides } else { (sides.1, sides.0) };
            let of = |others: &[usize]| {
                let sum: usize = others.iter().map(|other| position[*other]).sum();
                (!others.is_empty()).then(|| sum as f64 / others.len() as f64)
            };
            of(near).or_else(|| of(far)).unwrap_or(position[at] as f64)
        };
        let mut keyed: Vec<(usize, f64, usize)> = layout.columns[column]
            .places
            .iter()
            .map(|at| (places[*at].lane, mean(*at), *at))
            .collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let sorted: Vec<usize> = keyed.into_iter().map(|(_, _, at)| at).collect();
        sorted.iter().enumerate().for_each(|(at, place)| position[*place] = at);
        layout.columns[column].places = sorted;
    }
}

/// Swaps neighbours in a column where that saves crossings.
fn swap(layout: &mut Layout) {
    if layout.places.iter().map(|place| place.behind.len()).sum::<usize>() > MOST_SWAPPED {
        return;
    }
    let mut position = positions(layout);
    for column in 0..layout.columns.len() {
        for at in 1..layout.columns[column].places.len() {
            let (above, below) =
                (layout.columns[column].places[at - 1], layout.columns[column].places[at]);
            if layout.places[above].lane != layout.places[below].lane {
                continue;
            }
            let crossed = |one: usize, two: usize| {
                let (one, two) = (&layout.places[one], &layout.places[two]);
                crossed(&one.before, &two.before, &position)
                    + crossed(&one.behind, &two.behind, &position)
            };
            if crossed(below, above) < crossed(above, below) {
                layout.columns[column].places.swap(at - 1, at);
                position.swap(above, below);
            }
        }
    }
}

/// How many lines of the upper place cross lines of the lower one, on one side.
fn crossed(upper: &[usize], lower: &[usize], position: &[usize]) -> usize {
    let pairs = upper.iter().flat_map(|u| lower.iter().map(move |l| (*u, *l)));
    pairs.filter(|(u, l)| position[*u] > position[*l]).count()
}

/// How many lines cross each other in all.
fn crossings(layout: &Layout) -> usize {
    let position = positions(layout);
    layout
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let next = layout.columns.get(at + 1).map_or(0, |next| next.places.len());
            let ends = column.places.iter().flat_map(|place| {
                let mut ends: Vec<usize> =
                    layout.places[*place].behind.iter().map(|end| position[*end]).collect();
                ends.sort_unstable();
                ends
            });
            inversions(ends, next)
        })
        .sum()
}

/// Pairs that stand in the wrong order, counted with a binary indexed tree.
fn inversions(ends: impl Iterator<Item = usize>, size: usize) -> usize {
    let mut tree = vec![0_usize; size + 1];
    let mut crossed = 0;
    for (seen, end) in ends.enumerate() {
        // A straight line may end columns further on.
        let end = end.min(size.saturating_sub(1));
        let mut at = end + 1;
        let mut not_behind = 0;
        while at > 0 {
            not_behind += tree[at];
            at &= at - 1;
        }
        crossed += seen - not_behind;
        at = end + 1;
        while at <= size {
            tree[at] += 1;
            at += at & at.wrapping_neg();
        }
    }
    crossed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inversions_are_crossings() {
        let check = |ends: &[usize], expect: usize| {
            let size = ends.iter().max().map_or(0, |most| most + 1);
            assert_eq!(inversions(ends.iter().copied(), size), expect, "{ends:?}");
        };
        check(&[], 0);
        check(&[0, 1, 2], 0);
        check(&[2, 1, 0], 3);
        check(&[1, 1, 0, 2], 2);
    }
}
