//! The signals that mean something, as values (docs/operating.md). SIGHUP and SIGUSR2 stay
//! ignored from the first instruction on ([`crate::sys::signals`]).

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
}

impl Signals {
    /// From now on signals wait to be received.
    pub(super) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.quit.recv() => Asked::Quit,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.reload.recv() => Asked::Reload,
        }
    }
}
