//! When waiting readers are woken.
//!
//! A wake-up costs a reader a run of its task and a write of its socket, however many events there are. So they are not
//! woken for each commit but for as many as came while the last wake-up was being worked off. An event that comes alone
//! is never delayed.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What waking one reader costs, of two cores.
///
/// *Source*: measured, one write to one socket of 1,000 to 10,000: 4 to 9 us of one core. More would let a delay persist
/// where events come as often as that; less makes busy readers write more often for the same events.
const WAKE_UP: Duration = Duration::from_micros(5);

/// Paces the wake-ups. One belongs to the writer.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The bounds have changed since the last wake-up.
    is_wanted: bool,
    not_before: Instant,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { is_wanted: false, not_before: Instant::now() }
    }

    /// The bounds have changed.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next wake-up is due, if there is something to wake for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_wanted.then_some(self.not_before)
    }

    /// Wakes all readers that wait for this, if that is due.
    pub(super) fn beat(&mut self, waiting: &watch::Sender<()>) {
        if !self.is_wanted {
            return;
        }
        let now = Instant::now();
        if now >= self.not_before {
            self.is_wanted = false;
            let readers = u32::try_from(waiting.receiver_count()).unwrap_or(u32::MAX);
            self.not_before = now + WAKE_UP * readers;
            waiting.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a wake-up is given now.
    fn beats(pulse: &mut Pulse, waiting: &watch::Sender<()>) -> bool {
        let mut reader = waiting.subscribe();
        reader.mark_unchanged();
        pulse.beat(waiting);
        reader.has_changed().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn lone_event_wakes_at_once_and_the_next_only_when_the_last_wake_up_is_worked_off() {
        let waiting = watch::Sender::new(());
        let _readers: Vec<_> = (0..999).map(|_| waiting.subscribe()).collect();
        let mut pulse = Pulse::new();
        assert!(pulse.due().is_none() && !beats(&mut pulse, &waiting));
        pulse.want();
        assert!(beats(&mut pulse, &waiting), "a lone event");
        assert!(!beats(&mut pulse, &waiting), "nothing new");
        pulse.want();
        assert!(!beats(&mut pulse, &waiting), "too soon");
        assert_eq!(pulse.due().unwrap() - Instant::now(), WAKE_UP * 1000);
        tokio::time::sleep_until(pulse.due().unwrap()).await;
        assert!(beats(&mut pulse, &waiting));
        assert!(pulse.due().is_none());
        tokio::time::sleep(Duration::from_secs(1)).await;
        pulse.want();
        assert!(beats(&mut pulse, &waiting), "a lone event again");
    }
}
