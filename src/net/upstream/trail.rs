//! What an exchange tried, for those who want to know (`dnstap`).
//!
//! Costs nothing when nobody does.

use super::peer::Peer;
use crate::dns::Transport;
use crate::plugin::forward::Tried;
use std::sync::Arc;
use std::time::Duration;

/// The tries so far, each with its upstream's place.
#[derive(Debug)]
pub(super) struct Trail {
    /// Boxed: each exchange that waits pays for its size.
    tries: Option<Box<Tries>>,
}

#[derive(Debug, Default)]
struct Tries(Vec<(usize, Tried)>);

impl Trail {
    /// Nothing tried yet, for an exchange of which somebody wants to know.
    pub(super) fn kept() -> Trail {
        Trail { tries: Some(Box::default()) }
    }

    /// Keeps nothing.
    pub(super) fn unkept() -> Trail {
        Trail { tries: None }
    }

    /// An upstream is asked. The tries are few: `forward` bounds them.
    pub(super) fn asks(&mut self, place: usize, peer: &Peer, transport: Transport, at: Duration) {
        if let (Some(tries), Some(upstream)) = (&mut self.tries, peer.address()) {
            let transport = peer.transport(transport);
            tries.0.push((place, Tried { upstream, transport, began: at, response: None }));
        }
    }

    /// It answered, over the transport that it was asked over last.
    pub(super) fn answered(
        &mut self,
        place: usize,
        transport: Transport,
        at: Duration,
        response: &Arc<[u8]>,
    ) {
        let tries = self.tries.iter_mut().flat_map(|tries| tries.0.iter_mut());
        if let Some((_, tried)) = tries.rev().find(|(asked, _)| *asked == place) {
            tried.transport = transport;
            tried.response = Some((at, response.clone()));
        }
    }

    /// What came of it.
    pub(super) fn into_tried(self) -> Vec<Tried> {
        self.tries.into_iter().flat_map(|tries| tries.0).map(|(_, tried)| tried).collect()
    }
}
