//! `dnstap`: a record of each query and response, for a collector on a socket.
//!
//! Owns the grammar and what the records say; `forward` below tells it what went upstream. The
//! records end in a bounded pile, from which `net::dnstap` sends them.

pub mod protobuf;
mod record;
mod tap;

pub use tap::{Endpoint, OCTETS_MOST, RECORDS_MOST, Tap};

use self::record::{Event, Kind, Sender, encode};
use super::address::url_authority;
use super::forward::{Exchanged, Tried};
use super::log::Format;
use super::{Context, Flow, Handler, Service, Setup, Turn};
use crate::corefile::{CorefileError, Dispenser, parse_integer};
use crate::dns::{Query, ReplyLimits, Response, Written, foreseen_reply};
use crate::metrics::{Registry, names};
use std::sync::Arc;

/// The greatest WRITEBUFFER: the TCP send buffer in MiB.
const GREATEST_BUFFER: i64 = 1024;

/// The greatest QUEUE: the queue in units of 10 000 records.
const GREATEST_QUEUE: i64 = 4096;

/// One directive: what its records say of the sender, and where they go.
#[derive(Debug)]
pub struct Point {
    tap: Arc<Tap>,
    /// Records hold the messages.
    is_full: bool,
    identity: String,
    version: String,
    extra: Option<Format>,
}

impl Point {
    fn push(&self, event: &Event<'_>, query: &Query<'_>, context: &Context<'_>) {
        let extra = match &self.extra {
            Some(format) => format.of_query(query, context).to_string(),
            None => String::new(),
        };
        let sender = Sender {
            identity: self.identity.as_bytes(),
            version: self.version.as_bytes(),
            extra: extra.as_bytes(),
        };
        self.tap.push(&encode(&sender, event));
    }

    /// What went to one upstream, and what came back. `query` is as it was forwarded.
    pub(super) fn forwarded(
        &self,
        tried: &Tried,
        exchanged: &Exchanged,
        query: &Query<'_>,
        context: &Context<'_>,
    ) {
        let began = context.now.unix.saturating_sub(exchanged.took);
        let asked = Event {
            kind: Kind::ForwarderQuery,
            transport: tried.transport,
            client: context.client.address,
            upstream: Some(tried.upstream),
            asked: began + tried.began,
            answered: None,
            message: self.is_full.then(|| query.wire()),
        };
        self.push(&asked, query, context);
        let Some((ended, response)) = &tried.response else { return };
        let message = self.is_full.then(|| with_id(response, query));
        let answered = Event {
            kind: Kind::ForwarderResponse,
            answered: Some(began + *ended),
            message: message.as_deref(),
            ..asked
        };
        self.push(&answered, query, context);
    }
}

/// A message with the query's id: towards upstreams each try has one of its own.
fn with_id(wire: &[u8], query: &Query<'_>) -> Vec<u8> {
    let mut wire = wire.to_vec();
    if let Some(id) = wire.get_mut(..2) {
        id.copy_from_slice(&query.id().to_be_bytes());
    }
    wire
}

/// The handler: what clients ask and get.
struct Dnstap {
    point: Arc<Point>,
}

impl Dnstap {
    fn event<'e>(&self, kind: Kind, context: &Context<'_>) -> Event<'e> {
        Event {
            kind,
            transport: context.client.transport,
            client: context.client.address,
            upstream: None,
            asked: context.received.unix,
            answered: None,
            message: None,
        }
    }
}

impl Handler for Dnstap {
    fn word(&self) -> &'static str {
        "dnstap"
    }

    fn query(
        &self,
        query: &mut Query<'_>,
        _response: &mut Response,
        context: &mut Context<'_>,
    ) -> Flow {
        let message = self.point.is_full.then(|| query.wire());
        let event = Event { message, ..self.event(Kind::ClientQuery, context) };
        self.point.push(&event, query, context);
        Flow::Next
    }

    fn response(
        &self,
        query: &mut Query<'_>,
        response: &mut Response,
        context: &mut Context<'_>,
    ) -> Turn {
        // An error that the server core words for the client passes above, as in CoreDNS.
        if response.written == Written::Message {
            let message = self.point.is_full.then(|| {
                let limits = ReplyLimits::of(query, context.client.transport);
                foreseen_reply(query, response, limits).wire
            });
            let event = Event {
                answered: Some(context.now.unix),
                message: message.as_deref(),
                ..self.event(Kind::ClientResponse, context)
            };
            self.point.push(&event, query, context);
        }
        response.pass_through("dnstap");
        Turn::Up
    }
}

/// What one directive says.
struct Options {
    endpoint: Endpoint,
    is_full: bool,
    send_buffer: usize,
    queue: usize,
    identity: Option<String>,
    version: Option<String>,
    extra: Option<String>,
}

/// Reads the block's `dnstap` directives.
///
/// # Errors
///
/// `Wrong argument count or unexpected line ending after '…'` for no endpoint, for one with a wrong
/// port, and for an option without its value; `dnstap: invalid … : …` or `dnstap: … must be between 1
/// and …` for the sizes of the send buffer (MiB) and the queue (ten thousands of messages).
pub fn setup(setup: &mut Setup<'_>) -> Result<(), CorefileError> {
    while setup.dispenser.next() {
        let options = options(&mut setup.dispenser)?;
        let Options { endpoint, send_buffer, queue, .. } = options;
        // Directives that name an endpoint alike share its connection, also over a reload.
        let key = format!("dnstap {endpoint:?} {send_buffer} {queue}");
        let (metrics, budget) = (setup.metrics, setup.carried.budget().clone());
        let tap = setup.carried.take_or_make(key, || {
            let dropped = dropped(metrics, &endpoint);
            Tap::new(endpoint, send_buffer, queue, dropped, budget)
        });
        let is_new = !setup
            .services
            .iter()
            .any(|service| matches!(service, Service::Dnstap(other) if Arc::ptr_eq(other, &tap)));
        if is_new {
            setup.services.push(Service::Dnstap(tap.clone()));
        }
        let version = || concat!("nodens-", env!("CARGO_PKG_VERSION")).to_owned();
        let point = Arc::new(Point {
            tap,
            is_full: options.is_full,
            identity: options.identity.unwrap_or_else(|| setup.surroundings.hostname()),
            version: options.version.unwrap_or_else(version),
            extra: options.extra.filter(|text| !text.is_empty()).map(|text| Format::read(&text)),
        });
        setup.block.taps.push(point.clone());
        setup.block.add(Dnstap { point });
    }
    Ok(())
}

fn dropped(metrics: &Registry, endpoint: &Endpoint) -> crate::metrics::Counter {
    metrics.counter(&names::DNSTAP_DROPPED, &[endpoint.address()])
}

fn options(dispenser: &mut Dispenser<'_>) -> Result<Options, CorefileError> {
    let arguments = dispenser.remaining_args();
    let [target, rest @ ..] = arguments.as_slice() else { return Err(dispenser.arg_err()) };
    let mut sizes = [1, 1];
    let bounds = [
        ("MultipleTcpWriteBuf", GREATEST_BUFFER, "MiB units"),
        ("MultipleQueue", GREATEST_QUEUE, "x10k messages"),
    ];
    for ((size, bound), text) in sizes.iter_mut().zip(bounds).zip(rest.iter().skip(1)) {
        let (name, greatest, unit) = bound;
        let number = parse_integer(text)
            .map_err(|why| dispenser.err(format!("dnstap: invalid {name} {text:?}: {why}")))?;
        if !(1..=greatest).contains(&number) {
            return Err(dispenser.err(format!(
                "dnstap: {name} must be between 1 and {greatest} ({unit}): {number}"
            )));
        }
        *size = number as usize;
    }
    let mut options = Options {
        endpoint: Endpoint::Unix(String::new()),
        is_full: rest.first() == Some(&"full"),
        send_buffer: sizes[0],
        queue: sizes[1],
        identity: None,
        version: None,
        extra: None,
    };
    let mut is_verified = true;
    while dispenser.next_block() {
        let place = match dispenser.val() {
            "skipverify" => {
                is_verified = false;
                continue;
            }
            "identity" => &mut options.identity,
            "version" => &mut options.version,
            "extra" => &mut options.extra,
            // CoreDNS 1.13.2 passes over words that it does not know.
            _ => continue,
        };
        if !dispenser.next_arg() {
            return Err(dispenser.arg_err());
        }
        *place = Some(dispenser.val().to_owned());
    }
    options.endpoint = match (target.strip_prefix("tls://"), target.strip_prefix("tcp://")) {
        (Some(rest), _) => Endpoint::Tls { address: authority(rest, dispenser)?, is_verified },
        (None, Some(rest)) => Endpoint::Tcp(authority(rest, dispenser)?),
        (None, None) => Endpoint::Unix(target.strip_prefix("unix://").unwrap_or(target).to_owned()),
    };
    Ok(options)
}

/// A URL's host and port.
fn authority(rest: &str, dispenser: &Dispenser<'_>) -> Result<String, CorefileError> {
    url_authority(rest).map(str::to_owned).map_err(|_| dispenser.arg_err())
}

#[cfg(test)]
mod tests;
