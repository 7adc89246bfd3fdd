//! A connection of quinn's as h3 takes it, with bounds that h3 lacks.
//!
//! Owns the streams of one connection. h3 keeps a frame until it is whole, however long its sender says that it
//! is, and looks at all of it whenever more comes: so a stream ends here at a bound of octets, and what has been
//! read of it counts as the connection's. Knows nothing of what a stream carries.

use crate::net::https::{HEADER_MOST, QUERY_MOST};
use crate::net::tcp::{self, Kept};
use h3::error::Code;
use h3::quic::{
    self, BidiStream, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream,
    StreamErrorIncoming, StreamId, WriteBuf,
};
use hyper::body::{Buf, Bytes};
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The most octets of a request: its header, a query, and the frames around them.
const REQUEST_MOST: usize = HEADER_MOST as usize + QUERY_MOST + 1024;

/// The most octets of a control stream, or one of QPACK's, as long as its connection lasts: settings, and a few
/// for each of thousands of requests.
const CONTROL_MOST: usize = 64 * 1024;

/// Octets taken of a stream at once.
const CHUNK: usize = 2048;

/// What quinn is waited for.
type Waiting<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// Both directions of a new stream.
type Streams = (quinn::SendStream, quinn::RecvStream);

/// A connection.
pub(super) struct Carrier {
    connection: quinn::Connection,
    shared: Rc<tcp::Connection>,
    requests: Waiting<Result<Streams, ConnectionError>>,
    others: Waiting<Result<quinn::RecvStream, ConnectionError>>,
    opening: Opening,
}

impl Carrier {
    /// Of a connection that others see as `shared`.
    pub(super) fn new(connection: quinn::Connection, shared: Rc<tcp::Connection>) -> Carrier {
        let opening = Opening { connection: connection.clone(), waiting: None };
        Carrier { connection, shared, requests: None, others: None, opening }
    }

    fn receiving(&self, stream: quinn::RecvStream, most: usize) -> Receiving {
        let (shared, kept) = (self.shared.clone(), self.shared.keeps());
        Receiving { stream, most, read: 0, shared, kept }
    }
}

/// What `begin` gives, which goes on with where it was.
fn poll_waiting<T, F: Future<Output = T> + 'static>(
    waiting: &mut Waiting<T>,
    task: &mut Context<'_>,
    begin: impl FnOnce() -> F,
) -> Poll<T> {
    let future = waiting.get_or_insert_with(|| Box::pin(begin()));
    let done = ready!(future.as_mut().poll(task));
    *waiting = None;
    Poll::Ready(done)
}

impl quic::Connection<Bytes> for Carrier {
    type RecvStream = Receiving;
    type OpenStreams = Opening;

    fn poll_accept_recv(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let connection = self.connection.clone();
        let begin = || async move { connection.accept_uni().await };
        let stream = ready!(poll_waiting(&mut self.others, task, begin)).map_err(lost)?;
        Poll::Ready(Ok(self.receiving(stream, CONTROL_MOST)))
    }

    fn poll_accept_bidi(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let connection = self.connection.clone();
        let begin = || async move { connection.accept_bi().await };
        let (send, receive) =
            ready!(poll_waiting(&mut self.requests, task, begin)).map_err(lost)?;
        let receiving = self.receiving(receive, REQUEST_MOST);
        Poll::Ready(Ok(Both { sending: Sending::new(send), receiving }))
    }

    fn opener(&self) -> Opening {
        Opening { connection: self.connection.clone(), waiting: None }
    }
}

impl OpenStreams<Bytes> for Carrier {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opening.poll_open_bidi(task)
    }

    fn poll_open_send(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opening.poll_open_send(task)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opening.close(code, reason);
    }
}

/// Opens streams.
pub(super) struct Opening {
    connection: quinn::Connection,
    waiting: Waiting<Result<quinn::SendStream, ConnectionError>>,
}

impl OpenStreams<Bytes> for Opening {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        // A server never does (RFC 9114 §6.1).
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no request".into())))
    }

    fn poll_open_send(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let connection = self.connection.clone();
        let begin = || async move { connection.open_uni().await };
        let stream = ready!(poll_waiting(&mut self.waiting, task, begin));
        Poll::Ready(stream.map(Sending::new).map_err(with_connection))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX), reason);
    }
}

/// A stream that a client sends on.
pub(super) struct Receiving {
    stream: quinn::RecvStream,
    most: usize,
    read: usize,
    shared: Rc<tcp::Connection>,
    /// What was read, which h3 may have.
    kept: Kept,
}

impl RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut chunk = [0; CHUNK];
        let count =
            ready!(self.stream.poll_read(task, &mut chunk)).map_err(|error| match error {
                ReadError::Reset(code) => {
                    StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
                }
                ReadError::ConnectionLost(error) => with_connection(error),
                error => StreamErrorIncoming::Unknown(Box::new(error)),
            })?;
        if count == 0 {
            return Poll::Ready(Ok(None));
        }
        self.read += count;
        if self.read > self.most {
            let error_code = Code::H3_EXCESSIVE_LOAD.value();
            self.stop_sending(error_code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
        }
        self.shared.keeps_now(&mut self.kept, self.read);
        Poll::Ready(Ok(Some(Bytes::copy_from_slice(&chunk[..count]))))
    }

    fn stop_sending(&mut self, error_code: u64) {
        // One that has ended needs no stopping.
        let _ = self.stream.stop(VarInt::from_u64(error_code).unwrap_or(VarInt::MAX));
    }

    fn recv_id(&self) -> StreamId {
        id_of(self.stream.id())
    }
}

/// A stream that we send on.
pub(super) struct Sending {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    taken: Waiting<Result<Option<VarInt>, StoppedError>>,
}

impl Sending {
    fn new(stream: quinn::SendStream) -> Sending {
        Sending { stream, writing: None, taken: None }
    }
}

impl SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| data.has_remaining()) {
            let written = Pin::new(&mut self.stream).poll_write(task, data.chunk());
            let count = ready!(written).map_err(|error| match error {
                WriteError::Stopped(code) => {
                    StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
                }
                WriteError::ConnectionLost(error) => with_connection(error),
                error => StreamErrorIncoming::Unknown(Box::new(error)),
            })?;
            data.advance(count);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("what was sent before is not out yet".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    /// Ready once the client has it all.
    fn poll_finish(&mut self, task: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if self.taken.is_none() {
            self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error)))?;
        }
        let Sending { stream, taken, .. } = self;
        match ready!(poll_waiting(taken, task, || stream.stopped())) {
            Ok(None) => Poll::Ready(Ok(())),
            Ok(Some(code)) => {
                let error_code = code.into_inner();
                Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }))
            }
            Err(error) => Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
        }
    }

    fn reset(&mut self, reset_code: u64) {
        // One that has ended needs no reset.
        let _ = self.stream.reset(VarInt::from_u64(reset_code).unwrap_or(VarInt::MAX));
    }

    fn send_id(&self) -> StreamId {
        id_of(self.stream.id())
    }
}

/// Both directions of a request's stream.
pub(super) struct Both {
    sending: Sending,
    receiving: Receiving,
}

impl BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        task: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(task)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.receiving.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl SendStream<Bytes> for Both {
    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(task)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, task: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(task)
    }

    fn reset(&mut self, reset_code: u64) {
        self.sending.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

/// A stream's number.
fn id_of(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("both are below 2^62")
}

fn with_connection(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) }
}

/// Why a connection is no more.
fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}
