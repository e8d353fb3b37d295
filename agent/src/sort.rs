//! Sorting in little code: one heap sort and one merge sort for the whole program. Those of the standard library
//! are made anew for each type and comparison, five to eight KiB each. Nothing is allocated. It must not know
//! what is sorted, and everybody may know it.

use std::cmp::Ordering;

/// Runs of so many elements are sorted by insertion.
const RUN: usize = 16;

/// Sorts as `sort_unstable_by` does: what compares equal may change places.
pub fn unstable_by<T>(rows: &mut [T], compare: impl FnMut(&T, &T) -> Ordering) {
    heap_sort(&mut Slice { rows, compare });
}

/// Sorts as `sort_unstable_by_key` does.
pub fn unstable_by_key<T, K: Ord>(rows: &mut [T], mut key: impl FnMut(&T) -> K) {
    unstable_by(rows, |a, b| key(a).cmp(&key(b)));
}

/// Sorts as `sort_by` does: what compares equal keeps its order. It is for short slices, or ones that are
/// nearly in order: others cost the square of the length's logarithm for each element.
pub fn stable_by<T>(rows: &mut [T], compare: impl FnMut(&T, &T) -> Ordering) {
    merge_sort(&mut Slice { rows, compare });
}

/// Sorts as `sort_by_key` does, at the cost of [`stable_by`].
pub fn stable_by_key<T, K: Ord>(rows: &mut [T], mut key: impl FnMut(&T) -> K) {
    stable_by(rows, |a, b| key(a).cmp(&key(b)));
}

/// All that the algorithms need: what is made for each type is two small functions.
trait Rows {
    fn len(&self) -> usize;
    fn is_less(&mut self, a: usize, b: usize) -> bool;
    fn swap(&mut self, a: usize, b: usize);
}

struct Slice<'a, T, F> {
    rows: &'a mut [T],
    compare: F,
}

impl<T, F: FnMut(&T, &T) -> Ordering> Rows for Slice<'_, T, F> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_less(&mut self, a: usize, b: usize) -> bool {
        match (self.rows.get(a), self.rows.get(b)) {
            (Some(a), Some(b)) => (self.compare)(a, b).is_lt(),
            _ => false,
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a.max(b) < self.rows.len() {
            self.rows.swap(a, b);
        }
    }
}

fn is_sorted(rows: &mut dyn Rows) -> bool {
    (1..rows.len()).all(|index| !rows.is_less(index, index - 1))
}

fn insertion_sort(rows: &mut dyn Rows, from: usize, to: usize) {
    for next in from + 1..to {
        let mut at = next;
        while at > from && rows.is_less(at, at - 1) {
            rows.swap(at, at - 1);
            at -= 1;
        }
    }
}

fn heap_sort(rows: &mut dyn Rows) {
    let len = rows.len();
    if len <= RUN {
        return insertion_sort(rows, 0, len);
    }
    if is_sorted(rows) {
        return;
    }
    for root in (0..len / 2).rev() {
        sift_down(rows, root, len);
    }
    for end in (1..len).rev() {
        rows.swap(0, end);
        sift_down(rows, 0, end);
    }
}

/// Lets the element at `root` sink to its place in the heap of the first `end` elements.
fn sift_down(rows: &mut dyn Rows, mut root: usize, end: usize) {
    loop {
        let mut child = 2 * root + 1;
        if child >= end {
            return;
        }
        if child + 1 < end && rows.is_less(child, child + 1) {
            child += 1;
        }
        if !rows.is_less(root, child) {
            return;
        }
        rows.swap(root, child);
        root = child;
    }
}

/// Sorted runs, merged in place: Kim and Kutzner, "Stable Minimum Storage Merging by Symmetric Comparisons", 2004.
fn merge_sort(rows: &mut dyn Rows) {
    let len = rows.len();
    for from in (0..len).step_by(RUN) {
        insertion_sort(rows, from, (from + RUN).min(len));
    }
    let mut width = RUN;
    while width < len {
        for from in (0..len).step_by(2 * width) {
            let middle = from + width;
            if middle < len {
                merge(rows, from, middle, (middle + width).min(len));
            }
        }
        width *= 2;
    }
}

/// Merges the sorted `from..middle` and `middle..to`.
fn merge(rows: &mut dyn Rows, from: usize, middle: usize, to: usize) {
    if from >= middle || middle >= to || !rows.is_less(middle, middle - 1) {
        return;
    }
    if to - from == 2 {
        return rows.swap(from, middle);
    }
    // Elements mirrored at the middle of both are compared, to find how many change sides.
    let half = from + (to - from) / 2;
    let sum = half + middle;
    let (mut start, mut end) = match middle > half {
        true => (sum - to, half),
        false => (from, middle),
    };
    while start < end {
        let at = start + (end - start) / 2;
        match rows.is_less(sum - 1 - at, at) {
            true => end = at,
            false => start = at + 1,
        }
    }
    let end = sum - start;
    rotate(rows, start, middle, end);
    merge(rows, from, start, half);
    merge(rows, half, end, to);
}

/// Lets `from..middle` and `middle..to` change places.
fn rotate(rows: &mut dyn Rows, from: usize, middle: usize, to: usize) {
    reverse(rows, from, middle);
    reverse(rows, middle, to);
    reverse(rows, from, to);
}

fn reverse(rows: &mut dyn Rows, mut from: usize, mut to: usize) {
    while from + 1 < to {
        to -= 1;
        rows.swap(from, to);
        from += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbered, so that the order of equal ones is seen.
    fn numbered(keys: &[u16]) -> Vec<(u16, usize)> {
        keys.iter().copied().zip(0..).collect()
    }

    proptest! {
        #[test]
        fn any_order_is_as_the_standard_library_has_it(
            keys in prop_oneof![
                prop::collection::vec(any::<u16>(), 0..400),
                prop::collection::vec(0u16..8, 0..400),
            ],
        ) {
            let mut expected = numbered(&keys);
            expected.sort_by_key(|(key, _)| *key);
            let mut stable = numbered(&keys);
            stable_by_key(&mut stable, |(key, _)| *key);
            prop_assert_eq!(&stable, &expected);
            let mut unstable = numbered(&keys);
            unstable_by(&mut unstable, |a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
            prop_assert_eq!(&unstable, &expected);
        }
    }

    /// How many comparisons and swaps it takes.
    struct Counted(Vec<u32>, usize);

    impl Rows for Counted {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn is_less(&mut self, a: usize, b: usize) -> bool {
            self.1 += 1;
            self.0[a] < self.0[b]
        }

        fn swap(&mut self, a: usize, b: usize) {
            self.1 += 1;
            self.0.swap(a, b);
        }
    }

    #[test]
    fn thousands_cost_no_square() {
        let orders: [fn(u32) -> u32; 5] = [
            |index| index,
            |index| 5_000 - index,
            |index| index.wrapping_mul(2_654_435_761) >> 8,
            |index| index % 7,
            |index| if index < 2_500 { 2 * index } else { 2 * (index - 2_500) + 1 },
        ];
        for (number, order) in orders.into_iter().enumerate() {
            let rows: Vec<u32> = (0..5_000).map(order).collect();
            for (sort, most) in [(heap_sort as fn(&mut dyn Rows), 250_000), (merge_sort, 1_500_000)]
            {
                let mut counted = Counted(rows.clone(), 0);
                sort(&mut counted);
                assert!(counted.0.is_sorted(), "order {number}");
                assert!(counted.1 < most, "order {number}: {} steps", counted.1);
            }
        }
    }
}
