//! Whether a reader is given each event once and in order. Pure.

use super::mark::Mark;

/// What one reader has been given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The number that is due, for each producer.
    next: Vec<u64>,
    /// What was passed over: producer, from, to (excluded). Empty unless something is wrong.
    gaps: Vec<(u16, u64, u64)>,
    /// Events, repeated ones not counted.
    pub delivered: u64,
    /// Given again.
    pub repeated: u64,
    /// Given after a later one of the same producer.
    pub out_of_order: u64,
}

impl Order {
    /// A reader to whom these numbers are due first.
    pub fn from(next: Vec<u64>) -> Self {
        Self { next, ..Self::default() }
    }

    /// Counts an event.
    #[inline]
    pub fn see(&mut self, mark: &Mark) {
        let producer = usize::from(mark.producer);
        if self.next.len() <= producer {
            self.next.resize(producer + 1, 0);
        }
        let next = self.next[producer];
        if mark.number == next {
            self.next[producer] += 1;
            self.delivered += 1;
        } else {
            self.see_unexpected(mark, next);
        }
    }

    #[cold]
    fn see_unexpected(&mut self, mark: &Mark, next: u64) {
        let Mark { producer, number, .. } = *mark;
        if number > next {
            self.gaps.push((producer, next, number));
            self.next[usize::from(producer)] = number + 1;
            self.delivered += 1;
            return;
        }
        let within = |(of, from, to): &(u16, u64, u64)| *of == producer && (*from..*to).contains(&number);
        match self.gaps.iter().position(within) {
            Some(index) => {
                let (_, from, to) = self.gaps.swap_remove(index);
                self.gaps.extend([(producer, from, number), (producer, number + 1, to)]);
                self.gaps.retain(|(_, from, to)| from < to);
                self.out_of_order += 1;
                self.delivered += 1;
            }
            None => self.repeated += 1,
        }
    }

    /// The number that is due of a producer.
    pub fn next(&self, producer: u16) -> u64 {
        self.next.get(usize::from(producer)).copied().unwrap_or(0)
    }

    /// Goes back: the reader comes again with a cursor before this number.
    pub fn rewind(&mut self, producer: u16, number: u64) {
        let producer = usize::from(producer);
        if self.next.len() <= producer {
            self.next.resize(producer + 1, 0);
        }
        self.next[producer] = number;
    }

    /// How many are missing when each producer has appended so many.
    pub fn missing(&self, appended: &[u64]) -> u64 {
        let passed_over: u64 = self.gaps.iter().map(|(_, from, to)| to - from).sum();
        let due = (0..).zip(appended).map(|(producer, count)| count.saturating_sub(self.next(producer)));
        passed_over + due.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[u64]) -> Order {
        let mut order = Order::default();
        for number in numbers {
            order.see(&Mark { run: 0, producer: 1, number: *number, sent: 0 });
        }
        order
    }

    #[test]
    fn what_is_missing_repeated_or_late_is_told_apart() {
        let told = |numbers: &[u64]| {
            let order = seen(numbers);
            (order.missing(&[0, 5]), order.repeated, order.out_of_order, order.delivered)
        };
        assert_eq!(told(&[0, 1, 2, 3, 4]), (0, 0, 0, 5));
        assert_eq!(told(&[0, 1, 4]), (2, 0, 0, 3));
        assert_eq!(told(&[0, 1, 2]), (2, 0, 0, 3));
        assert_eq!(told(&[0, 1, 1, 2, 3, 4, 0]), (0, 2, 0, 5));
        assert_eq!(told(&[0, 3, 1, 4, 2]), (0, 0, 2, 5));
        assert_eq!(told(&[0, 3, 2, 2]), (2, 1, 1, 3));
    }
}
