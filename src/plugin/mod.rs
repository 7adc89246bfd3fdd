//! The plugin contract and THE ordered table of directives.
//!
//! A directive is text; its plugin is a file or folder here; its handler is the running part. Two
//! passes, both synchronous and total: down with the query, up with the response. Waiting is a
//! value ([`Flow::Forward`], [`Flow::Ask`]), not a future. Plugins never open a socket, start a
//! thread or read the time: all comes in through [`Context`] and [`Setup`].

mod address;
mod budget;
mod context;
mod journal;
mod kind;
pub(crate) mod pattern;
mod service;
mod setup;
mod table;
#[cfg(test)]
pub(crate) mod testing;

pub mod acl;
pub mod any;
pub mod bind;
pub mod bufsize;
pub mod cache;
pub mod cancel;
pub mod chaos;
pub mod debug;
pub mod dns64;
pub mod dnstap;
pub mod errors;
pub mod forward;
pub mod header;
pub mod health;
pub mod hosts;
pub mod loadbalance;
pub mod local;
pub mod log;
pub mod looping;
pub mod metadata;
pub mod minimal;
pub mod multisocket;
pub mod nsid;
pub mod pprof;
pub mod prometheus;
pub mod ready;
pub mod reload;
pub mod rewrite;
pub mod template;
pub mod timeouts;
pub mod tls;
pub mod trace;
pub mod whoami;

pub use address::{split_host_port, tcp_port};
pub use budget::{Budget, Share};
pub use context::{Client, Context, Labels, Note, Now, ServerIdentity};
pub use journal::{Journal, Level, SilentJournal};
pub use service::{LoopProbe, Monitor, Part, Service};
pub use setup::{BlockDraft, Carried, GivenTimeouts, PerServer, Setup, Timeouts};
pub use table::{DirectiveRow, SetupFn, TABLE, is_known};

use crate::corefile::{CorefileError, Surroundings};
use crate::dns::{Query, Response};
use std::sync::Arc;
use std::time::Duration;

/// What a handler decides on the way down.
#[derive(Debug)]
pub enum Flow {
    /// Not mine: on to the handler below.
    Next,
    /// The response is complete (written or failed): turn round, up through the handlers above.
    Answer,
    /// Ask upstream; the response then passes up from this handler on, itself included.
    Forward(forward::Exchange),
    /// Ask one further question through the whole server; the result comes to
    /// [`Handler::answered`].
    Ask(Box<Query<'static>>),
    /// No reply at all, counted under the reason. The handlers above see a response that holds
    /// nothing, with NOERROR.
    Drop(DropReason),
}

/// What a handler decides on the way up.
#[derive(Debug)]
pub enum Turn {
    /// On to the handler above.
    Up,
    /// Throw the response away and go down again, from the handler below this one.
    Down,
    /// Ask one further question through the whole server; the result comes to
    /// [`Handler::answered`].
    Ask(Box<Query<'static>>),
}

/// Why a query gets no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The Corefile asks for it (`acl … drop`).
    Policy,
}

/// The running part of a directive in one server block's chain.
pub trait Handler: Send + Sync {
    /// The directive's word: metrics label and log text.
    fn word(&self) -> &'static str;

    /// The way down. `response` is empty unless this handler writes it.
    fn query(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let _ = (query, response, context);
        Flow::Next
    }

    /// The way up: for every handler above the one that answered, and for the one that returned
    /// [`Flow::Forward`]. `response` may hold no message ([`crate::dns::Written::Nothing`]).
    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let _ = (query, response, context);
        Turn::Up
    }

    /// The result of a question that this handler asked; `response` is what it was before.
    fn answered(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        further: &Response,
        context: &mut Context<'_>,
    ) -> Turn {
        let _ = (query, response, further, context);
        Turn::Up
    }

    /// True when its presence lets classes other than IN pass: `forward`.
    fn takes_any_class(&self) -> bool {
        false
    }

    /// The upstreams that it sends queries to now, for whoever asks whether they answer.
    fn upstreams(&self) -> Option<Arc<forward::Upstreams>> {
        None
    }

    /// The first call, once the whole Corefile is set up and its listeners are known: what CoreDNS does
    /// as it starts, such as reading a file. Its error keeps the Corefile from being used.
    fn start(
        &self,
        surroundings: &dyn Surroundings,
        journal: &dyn Journal,
    ) -> Result<(), CorefileError> {
        let _ = (surroundings, journal);
        Ok(())
    }

    /// How often [`Handler::upkeep`] wants to run, if at all.
    fn upkeep_every(&self) -> Option<Duration> {
        None
    }

    /// Periodic work outside of queries: sweep expired entries, read a changed hosts file, print a
    /// consolidated error. Runs on a thread that serves no queries.
    fn upkeep(&self, now: Now, surroundings: &dyn Surroundings, journal: &dyn Journal) {
        let _ = (now, surroundings, journal);
    }

    /// The last call before the handler goes (shutdown, reload): flush what is pending.
    fn flush(&self, now: Now, journal: &dyn Journal) {
        let _ = (now, journal);
    }
}

/// A server block's handlers, outermost first.
pub type Chain = Vec<Arc<dyn Handler>>;
