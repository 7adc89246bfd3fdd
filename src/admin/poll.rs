//! The poll of one's own /health: a GET over a connection of its own.

use crate::corefile::system_error_text;
use crate::plugin::split_host_port;
use crate::sys::beside::beside;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
pub enum PollFailure {
    /// No response in time.
    #[error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout,
    /// The connection could not be made or broke.
    #[error("{}", system_error_text(.0))]
    Connection(#[from] io::Error),
    /// Something that is not HTTP answered.
    #[error("malformed HTTP response")]
    Malformed,
}

/// Asks `http://ADDRESS/health` and waits for the response's first line, `longest` at most.
/// Any status is a response. An address without host means `localhost`.
///
/// # Errors
///
/// No response within `longest`, a connection that could not be made or broke, a response that is
/// no HTTP.
pub async fn poll_health(address: &str, longest: Duration) -> Result<(), PollFailure> {
    timeout(longest, ask(address)).await.unwrap_or(Err(PollFailure::Timeout))
}

async fn ask(address: &str) -> Result<(), PollFailure> {
    let target = match split_host_port(address) {
        Ok(("", port)) => format!("localhost:{port}"),
        _ => address.to_owned(),
    };
    let addresses: Vec<SocketAddr> = match target.parse() {
        Ok(address) => vec![address],
        Err(_) => {
            let named = target.clone();
            let found = beside(move || named.to_socket_addrs().map(Iterator::collect));
            found.await.map_err(io::Error::other)??
        }
    };
    let mut stream = TcpStream::connect(&addresses[..]).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 9];
    match stream.read_exact(&mut head).await {
        Ok(_) if head.starts_with(b"HTTP/1.") => Ok(()),
        Ok(_) => Err(PollFailure::Malformed),
        Err(error) => Err(error.into()),
    }
}
