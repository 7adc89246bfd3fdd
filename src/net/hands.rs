//! What the workers are told and asked, from threads that are none.
//!
//! Owns how long that waits for one of them. Never what a command does.

use super::worker::Command;
use crate::sys::memory::Spare;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Where a worker takes its commands from.
pub(super) type Hand = mpsc::UnboundedSender<Command>;

/// Asks the workers whether they still work.
#[derive(Debug, Clone)]
pub struct Heartbeat(Vec<Hand>);

impl Heartbeat {
    pub(super) fn of(hands: &[Hand]) -> Heartbeat {
        Heartbeat(hands.to_vec())
    }

    /// Waits until every worker has answered, each on the thread that reads its sockets. False when
    /// one is gone; without end when one hangs.
    pub async fn beats(&self) -> bool {
        let mut beats = Vec::with_capacity(self.0.len());
        for hand in &self.0 {
            let (done, is_done) = oneshot::channel();
            if hand.send(Command::Beat { done }).is_err() {
                return false;
            }
            beats.push(is_done);
        }
        for is_done in beats {
            if is_done.await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Asks the workers for the free memory that their threads keep.
#[derive(Debug)]
pub struct Spares(Vec<Asked>);

/// A worker, and where it tells what it was asked for and has not told yet.
#[derive(Debug)]
struct Asked {
    hand: Hand,
    told: Option<Receiver<Spare>>,
}

impl Spares {
    pub(super) fn of(hands: &[Hand]) -> Spares {
        Spares(hands.iter().map(|hand| Asked { hand: hand.clone(), told: None }).collect())
    }

    /// What each worker has, of those that tell within `longest`. One that has not told yet is not asked
    /// again: of one that hangs nothing piles up.
    pub fn collect(&mut self, longest: Duration) -> Vec<Spare> {
        for Asked { hand, told } in &mut self.0 {
            told.get_or_insert_with(|| {
                let (done, told) = channel();
                // A worker that is gone keeps nothing.
                let _ = hand.send(Command::Spare { done });
                told
            });
        }
        let end = Instant::now() + longest;
        let mut spares = Vec::with_capacity(self.0.len());
        for asked in &mut self.0 {
            let Some(told) = asked.told.take() else { continue };
            match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(spare) => spares.push(spare),
                Err(RecvTimeoutError::Timeout) => asked.told = Some(told),
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        spares
    }
}

/// Those of the workers that have not done their command when `longest` is over. One that is gone has
/// nothing to do.
pub(super) fn not_done(
    hands: &[Hand],
    longest: Duration,
    mut command: impl FnMut(usize, Sender<()>) -> Command,
) -> Vec<usize> {
    let told: Vec<Receiver<()>> = hands
        .iter()
        .enumerate()
        .map(|(worker, hand)| {
            let (done, is_done) = channel();
            let _ = hand.send(command(worker, done));
            is_done
        })
        .collect();
    let end = Instant::now() + longest;
    let hangs = |is_done: &Receiver<()>| {
        let left = end.saturating_duration_since(Instant::now());
        is_done.recv_timeout(left) == Err(RecvTimeoutError::Timeout)
    };
    told.iter()
        .enumerate()
        .filter(|(_, is_done)| hangs(is_done))
        .map(|(worker, _)| worker)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_known_and_one_that_is_gone_keeps_nobody_waiting() {
        let (gone, _) = mpsc::unbounded_channel();
        let (hangs, mut commands) = mpsc::unbounded_channel();
        let hands = [gone, hangs];
        assert_eq!(not_done(&hands, Duration::ZERO, |_, done| Command::Stop { done }), [1]);
        assert!(matches!(commands.try_recv(), Ok(Command::Stop { .. })), "it will do it");
        assert_eq!(
            not_done(&hands[..1], Duration::from_secs(60), |_, done| Command::Stop { done }),
            [0usize; 0]
        );
    }

    #[test]
    fn a_worker_that_hangs_is_asked_for_its_memory_once_until_it_tells() {
        let (hand, mut commands) = mpsc::unbounded_channel();
        let mut spares = Spares::of(&[hand]);
        for _ in 0..3 {
            assert_eq!(spares.collect(Duration::ZERO).len(), 0);
        }
        assert_eq!(commands.len(), 1);
        let Ok(Command::Spare { done }) = commands.try_recv() else { panic!("another command") };
        done.send(Spare::of_this_thread()).unwrap();
        assert_eq!(spares.collect(Duration::ZERO).len(), 1, "what it told late");
        assert_eq!(spares.collect(Duration::ZERO).len(), 0);
        assert_eq!(commands.len(), 1, "and then it is asked anew");
        drop(commands);
        assert_eq!(
            spares.collect(Duration::from_secs(60)).len(),
            0,
            "nobody waits for one that is gone"
        );
    }
}
