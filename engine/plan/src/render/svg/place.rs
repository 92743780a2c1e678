//! How high each place stands: near to its neighbours, in the order that is given, with room between.
//!
//! For one lane of one column that is a least-squares fit under an order, which pooling adjacent violators solves exactly; going
//! through the columns to and fro brings all of them together.

use super::layout::{Layout, What, gap};

/// How often all columns are gone through.
const SWEEPS: usize = 40;

/// Gives every place its height.
pub(super) fn place(layout: &mut Layout) {
    stack(layout);
    let count = layout.columns.len();
    for sweep in 0..SWEEPS {
        let levels = levels(layout);
        for turn in 0..count {
            let column = if sweep % 2 == 0 { turn } else { count - 1 - turn };
            for run in runs(layout, column) {
                settle(layout, &run, &levels);
            }
        }
    }
}

/// The mean height of each chain.
fn levels(layout: &Layout) -> Vec<f64> {
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for place in &layout.places {
        if let What::Way { chain } = place.what {
            sums.resize(sums.len().max(chain + 1), (0.0, 0.0));
            sums[chain] = (sums[chain].0 + place.y, sums[chain].1 + 1.0);
        }
    }
    // A chain without places is nobody's.
    sums.into_iter().map(|(sum, count)| sum / count.max(1.0)).collect()
}

/// The places of a column that stand in one lane, lane by lane.
fn runs(layout: &Layout, column: usize) -> Vec<Vec<usize>> {
    let places = &layout.columns[column].places;
    places
        .chunk_by(|a, b| layout.places[*a].lane == layout.places[*b].lane)
        .map(<[usize]>::to_vec)
        .collect()
}

/// To begin with, everything stands in the middle of its lane, as near together as it may.
fn stack(layout: &mut Layout) {
    for column in 0..layout.columns.len() {
        for run in runs(layout, column) {
            let offsets = offsets(layout, &run);
            let height = offsets.last().copied().unwrap_or(0.0);
            let (top, bottom) = bounds(layout, &run, &offsets);
            let middle = layout.room(&layout.places[run[0]]);
            let begin = ((middle.0 + middle.1 - height) / 2.0).clamp(top, bottom.max(top));
            run.iter().zip(offsets).for_each(|(at, offset)| layout.places[*at].y = begin + offset);
        }
    }
}

/// How far below the first each place stands at least.
fn offsets(layout: &Layout, run: &[usize]) -> Vec<f64> {
    let mut offset = 0.0;
    let mut offsets = vec![0.0];
    for pair in run.windows(2) {
        let (above, below) = (&layout.places[pair[0]], &layout.places[pair[1]]);
        offset += (above.height + below.height) / 2.0 + gap(above, below);
        offsets.push(offset);
    }
    offsets
}

/// Between which heights the first place may stand, had all the others their least distance.
fn bounds(layout: &Layout, run: &[usize], offsets: &[f64]) -> (f64, f64) {
    let top = layout.room(&layout.places[run[0]]).0;
    let last = run.len() - 1;
    (top, layout.room(&layout.places[run[last]]).1 - offsets[last])
}

/// Moves the places of a run to where their neighbours are.
fn settle(layout: &mut Layout, run: &[usize], levels: &[f64]) {
    let offsets = offsets(layout, run);
    let (top, bottom) = bounds(layout, run, &offsets);
    // Blocks of places that stand as near together as they may: sum of weights, weighted sum of wishes, number of places.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for (at, offset) in run.iter().zip(&offsets) {
        let (weight, wish) = wish(layout, *at, levels);
        let mut block = (weight, weight * (wish - offset), 1);
        while let Some(above) = blocks.last().filter(|above| above.1 / above.0 > block.1 / block.0)
        {
            block = (above.0 + block.0, above.1 + block.1, above.2 + block.2);
            blocks.pop();
        }
        blocks.push(block);
    }
    let heights = blocks.iter().flat_map(|block| {
        let y = (block.1 / block.0).clamp(top, bottom.max(top));
        std::iter::repeat_n(y, block.2)
    });
    let heights: Vec<f64> = heights.collect();
    for ((at, offset), y) in run.iter().zip(offsets).zip(heights) {
        layout.places[*at].y = y + offset;
    }
}

/// Where a place would like to be, and how much.
fn wish(layout: &Layout, at: usize, levels: &[f64]) -> (f64, f64) {
    let own = &layout.places[at];
    // A little inertia keeps what nothing pulls at where it is.
    let (mut weight, mut sum) = (0.05, 0.05 * own.y);
    let mut pull = |by: f64, to: f64| {
        weight += by;
        sum += by * to;
    };
    for other in own.before.iter().chain(&own.behind).map(|other| &layout.places[*other]) {
        // What lies in another lane can be no neighbour anyway, and a long line stays level until it leaves its lane.
        pull(
            match (own.lane == other.lane, own.what) {
                (true, _) => 3.0,
                (false, What::Way { .. }) => 0.0,
                (false, _) => 0.3,
            },
            other.y,
        );
    }
    if let What::Way { chain } = own.what {
        pull(20.0, levels[chain]);
    }
    (weight, sum / weight)
}
