//! The signals that mean something, as values (docs/operating.md). SIGHUP and SIGUSR2 stay
//! ignored from the first instruction on ([`crate::sys::signals`]).

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM: serve through lameduck, answer what is in flight, end.
    Terminate,
    /// SIGINT: end without draining; the second one at once.
    Interrupt,
    /// SIGQUIT: end at once.
    Quit,
    /// SIGUSR1: take the Corefile as it is now.
    Reload,
}

/// The receivers of all signals.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    /// One that was received and is still to be answered.
    put_back: Option<Asked>,
}

impl Signals {
    /// From now on signals wait to be received.
    pub(super) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
            put_back: None,
        })
    }

    /// The result of `work`, during which signals are heard: one that ends the process waits for it no longer
    /// than `most`. `None` when it was given up for that. The signal is the next one then.
    pub(super) async fn beside<T>(
        &mut self,
        most: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut again = None;
        let ends = loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.put_back = again;
                    return Some(done);
                }
                asked = self.next() => match asked {
                    Asked::Reload => again = Some(asked),
                    ends => break ends,
                },
            }
        };
        let done = timeout(most, work).await.ok();
        self.put_back = Some(ends);
        done
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        if let Some(asked) = self.put_back.take() {
            return asked;
        }
        tokio::select! {
            biased;
            _ = self.quit.recv() => Asked::Quit,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.reload.recv() => Asked::Reload,
        }
    }
}
