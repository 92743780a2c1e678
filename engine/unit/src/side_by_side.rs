//! Many small pieces of work of one kind, on as many processors as there are, with their results in order.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Pieces that one thread takes at a time.
const BLOCK: usize = 64;
/// Most threads: beyond these, what is left is done one after another anyway.
const MOST: usize = 8;

/// What `work` makes of each item, in the order of the items. For a few items no thread is started: a thread costs more.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(MOST).min(items.len() / BLOCK);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let blocks = Mutex::new(items.chunks(BLOCK).enumerate());
    let worker = || {
        let mut made = Vec::new();
        loop {
            let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, block)) = next else { return made };
            made.push((place, block.iter().map(&work).collect::<Vec<R>>()));
        }
    };
    let mut made = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut made = worker();
        for other in others {
            match other.join() {
                Ok(more) => made.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    });
    made.sort_unstable_by_key(|(place, _)| *place);
    made.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        for count in [0, 1, BLOCK, 2 * BLOCK, 10_001] {
            let items: Vec<usize> = (0..count).collect();
            let expect: Vec<usize> = items.iter().map(|i| i * 3).collect();
            assert_eq!(map(&items, |i| i * 3), expect, "{count}");
        }
    }
}
