//! Runs on several threads, with the results in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Calls `work` with the numbers below `count` on `workers` threads, and passes the results to `take` in order. Stops
/// at the first error.
pub fn in_order<T: Send, E: Send>(
    count: usize,
    workers: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    mut take: impl FnMut(T),
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, count.max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, work(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (index, result) in receiver {
            waiting.insert(index, result?);
            while let Some(result) = waiting.remove(&due) {
                take(result);
                due += 1;
            }
        }
        Ok(())
    })
}

/// The number of threads that this machine runs at once.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_error_ends_it() {
        let mut all = Vec::new();
        in_order(500, 4, |index| Ok::<_, ()>(index * 2), |n| all.push(n)).unwrap();
        assert_eq!(all, (0..500).map(|n| n * 2).collect::<Vec<_>>());
        let result = in_order(50, 4, |index| if index == 7 { Err("seven") } else { Ok(()) }, |()| {});
        assert_eq!(result, Err("seven"));
    }
}
