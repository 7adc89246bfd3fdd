//! DNS over HTTP/3 from clients (RFC 8484, RFC 9114), on a connection that `net::quic` has accepted.
//!
//! Owns how requests come and responses go; what a request is answered with is `net::https`'s to say. h3 speaks
//! HTTP/3, over streams that are bounded ([`carrier`]).

mod carrier;

use super::https::{Exchanges, HEADER_MOST, Running};
use super::tcp::Open;
use carrier::{Carrier, Receiving};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Buf, Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, DATE, HeaderValue};
use quinn::{Connection, VarInt};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

/// The most streams of one direction that a client has at once: control, QPACK's two, and one of a kind that is
/// not known (RFC 9114 §6.2).
pub(super) const UNIDIRECTIONAL_MOST: u32 = 4;

/// How often an ending connection looks whether its responses are taken.
const LOOK: Duration = Duration::from_millis(5);

/// A date as HTTP has it (RFC 9110 §5.6.7).
const DATE_FORMAT: StaticFormatDescription = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// Serves a connection until it ends.
pub(super) async fn serve(exchanges: Rc<Exchanges>, connection: &Connection, open: &Open) {
    let carrier = Carrier::new(connection.clone(), exchanges.shared.clone());
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEADER_MOST.into()).send_grease(false);
    let built = timeout(exchanges.timeouts.read, builder.build(carrier)).await;
    let Ok(Ok(http)) = built else { return };
    let ending = Notify::new();
    let driven = pin!(drive(&exchanges, http, &ending));
    let end = |_: Pin<&mut _>| {
        if exchanges.shared.is_evicted() {
            let why = Code::H3_EXCESSIVE_LOAD.value();
            connection.close(VarInt::from_u64(why).unwrap_or(VarInt::MAX), b"");
        }
        ending.notify_one();
    };
    exchanges.watch(driven, end, open).await;
}

/// Takes requests until it is `ending`, then waits until what is under way is taken. The connection is closed with
/// what it drops.
async fn drive(
    exchanges: &Rc<Exchanges>,
    mut http: h3::server::Connection<Carrier, Bytes>,
    ending: &Notify,
) {
    loop {
        tokio::select! {
            accepted = http.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let running = Rc::new(Running::new(exchanges));
                    spawn_local(exchange(exchanges.clone(), running, resolver));
                }
                Ok(None) | Err(_) => return,
            },
            () = ending.notified() => break,
        }
    }
    if http.shutdown(0).await.is_err() {
        return;
    }
    while exchanges.running.get() > 0 {
        tokio::select! {
            accepted = http.accept() => if !matches!(accepted, Ok(Some(_))) { return },
            () = sleep(LOOK) => {}
        }
    }
}

/// One request and its response.
async fn exchange(
    exchanges: Rc<Exchanges>,
    running: Rc<Running>,
    resolver: RequestResolver<Carrier, Bytes>,
) {
    let resolved = timeout(exchanges.timeouts.read, resolver.resolve_request()).await;
    let Ok(Ok((request, stream))) = resolved else { return };
    let (mut send, receive) = stream.split();
    let response = exchanges.respond(&running, request.map(|()| Uploaded(receive))).await;
    let (mut head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    // Held until its client has it all: then it is no longer under way.
    let body = body.to_bytes();
    head.headers.entry(CONTENT_LENGTH).or_insert_with(|| body.len().into());
    if let Some(date) = date(exchanges.worker.now().unix) {
        head.headers.insert(DATE, date);
    }
    let sent = async {
        send.send_response(Response::from_parts(head, ())).await?;
        if !body.is_empty() {
            send.send_data(body.clone()).await?;
        }
        send.finish().await
    };
    if timeout(exchanges.timeouts.write, sent).await.is_err() {
        exchanges.worker.counters.slow_readers.increment();
        send.stop_stream(Code::H3_REQUEST_CANCELLED);
    }
}

/// A moment, given since the Unix epoch, as HTTP writes it.
fn date(unix: Duration) -> Option<HeaderValue> {
    let moment = OffsetDateTime::from_unix_timestamp(unix.as_secs().try_into().ok()?).ok()?;
    HeaderValue::from_str(&moment.format(DATE_FORMAT).ok()?).ok()
}

/// The body of a request.
struct Uploaded(RequestStream<Receiving, Bytes>);

impl Body for Uploaded {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let data = ready!(self.0.poll_recv_data(task)).transpose();
        Poll::Ready(
            data.map(|data| data.map(|mut data| Frame::data(data.copy_to_bytes(data.remaining())))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_has_it() {
        // RFC 9110 §5.6.7.
        let date = date(Duration::from_secs(784_111_777)).unwrap();
        assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
