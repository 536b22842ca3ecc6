//! When to send: as fast as answered, or at a rate that does not wait for answers.
//!
//! At a rate, the k-th request has an intended time, k intervals after the start, whatever became of those before it.
//! Latency counts from there: a server that stalls is charged for every request that it held up (no coordinated
//! omission).

use super::mark::now;
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::unix::AsyncFd;

/// The intended times of a run, handed out in order to whoever is free.
#[derive(Debug)]
pub struct Schedule {
    start: u64,
    /// *Units*: nanoseconds; fractions, so that a rate of millions does not drift.
    interval: f64,
    next: AtomicU64,
}

impl Schedule {
    /// So many requests a second from a time on.
    pub fn new(start: u64, requests_per_second: f64) -> Self {
        Self { start, interval: 1e9 / requests_per_second, next: AtomicU64::new(0) }
    }

    /// The next intended time. *Units*: nanoseconds of [`now`].
    pub fn take(&self) -> u64 {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.start + (place as f64 * self.interval) as u64
    }
}

/// Wakes at a time, to some tens of microseconds; the runtime's own timer knows only milliseconds.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm, to be used within a runtime.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor asks for a promise that OwnedFd keeps by itself, and is unsafe"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Waits until this time of [`now`]; not at all when it has passed.
    pub async fn until(&self, time: u64) -> io::Result<()> {
        loop {
            let left = time.saturating_sub(now());
            if left == 0 {
                return Ok(());
            }
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec {
                tv_sec: i64::try_from(left / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: (left % 1_000_000_000) as _,
            };
            let spec = Itimerspec { it_interval: zero, it_value: value };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            if rustix::io::read(self.timer.get_ref(), &mut expirations).is_err() {
                ready.clear_ready();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_depend_on_who_asks_or_when() {
        let schedule = Schedule::new(1000, 3e6);
        let times: Vec<u64> = (0..7).map(|_| schedule.take()).collect();
        assert_eq!(times, [1000, 1333, 1666, 2000, 2333, 2666, 3000]);
        let slow = Schedule::new(0, 0.5);
        assert_eq!([slow.take(), slow.take()], [0, 2_000_000_000]);
    }

    #[tokio::test]
    async fn an_alarm_never_rings_early() {
        let alarm = Alarm::new().unwrap();
        for wait in [0, 1, 50_000, 3_000_000] {
            let time = now() + wait;
            alarm.until(time).await.unwrap();
            assert!(now() >= time);
        }
    }
}
