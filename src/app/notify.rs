//! What the service tells systemd, by the protocol of sd_notify(3): that it is ready, reloads, stops,
//! that it lives, and which sockets to keep for the next start.
//!
//! Owns the datagram socket of `NOTIFY_SOCKET`. Without that variable nothing is told, and nothing
//! fails: nobody answers these messages.

use crate::net::Heartbeat;
use crate::sys::unix::{self, DESCRIPTORS_MOST};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// How long the manager may take to take a socket, or to do what it was told.
const MANAGER_TIME: Duration = Duration::from_secs(2);

/// Tells the service manager; clones share the socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Notify {
    socket: Option<Arc<UnixDatagram>>,
    /// The same one, where what is sent must arrive: sending waits for [`MANAGER_TIME`].
    patient: Option<Arc<UnixDatagram>>,
    /// How often to tell that the service lives: a third of what the manager waits for
    /// (`WATCHDOG_USEC`), so that one lost message ends nothing.
    alive_every: Option<Duration>,
}

impl Notify {
    /// As `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say; `process` is our own number. The
    /// error says which socket cannot be used.
    pub(super) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        process: u32,
    ) -> Result<Notify, String> {
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(Notify::default());
        };
        let wrong = |error: io::Error| format!("NOTIFY_SOCKET {path}: {error}");
        let (socket, patient) = (connect(&path).map_err(wrong)?, connect(&path).map_err(wrong)?);
        // Sending never waits.
        socket.set_nonblocking(true).map_err(wrong)?;
        patient.set_write_timeout(Some(MANAGER_TIME)).map_err(wrong)?;
        let is_ours = variable("WATCHDOG_PID").is_none_or(|number| number == process.to_string());
        let wait = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|_| is_ours);
        let alive_every = wait
            .map(|microseconds| Duration::from_micros(microseconds) / 3)
            .filter(|every| !every.is_zero());
        Ok(Notify { socket: Some(Arc::new(socket)), patient: Some(Arc::new(patient)), alive_every })
    }

    /// Whether there is a manager.
    pub(super) fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Queries are answered.
    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=Serving");
    }

    /// A Corefile is being loaded; [`Notify::ready`] ends it.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=Loading the Corefile");
    }

    /// The service ends; what it has received is still answered.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Answering what was received");
    }

    /// Another process is the service from now on; 0 where its number is not known here.
    pub(super) fn handed_to(&self, process: u32) {
        if process != 0 {
            self.tell(&format!("MAINPID={process}\nREADY=1\nSTATUS=Serving"));
        }
    }

    /// Tells that the service lives, where the manager asks for it, for as long as every worker
    /// answers `heart`. Ends with what it returns.
    pub(super) fn watch(&self, heart: Heartbeat) -> Watch {
        let (notify, every) = (self.clone(), self.alive_every);
        Watch(every.map(|every| tokio::spawn(notify.beat(heart, every))))
    }

    async fn beat(self, heart: Heartbeat, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !self.alive(heart.beats()).await {
                return;
            }
        }
    }

    /// Tells once that the service lives, when all workers `answer`. One that hangs holds this up,
    /// as the thread does that it runs on; one that is gone makes it false.
    async fn alive(&self, answer: impl Future<Output = bool>) -> bool {
        let all_answered = answer.await;
        if all_answered {
            self.tell("WATCHDOG=1");
        }
        all_answered
    }

    /// Has the manager keep sockets under a name, beside those that it has. One that it has already it
    /// does not take twice. Blocks, within a bound of time.
    pub(super) fn keep(&self, name: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(patient) = &self.patient else { return Ok(()) };
        // Not looked at by the manager: it would let a socket go for an error that is none to us.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        let mut parts = sockets.chunks(DESCRIPTORS_MOST);
        parts.try_for_each(|part| unix::send(patient.as_fd(), text.as_bytes(), part))
    }

    /// Has the manager close all that it keeps under a name. Blocks, within a bound of time.
    pub(super) fn forget(&self, name: &str) {
        if let Some(patient) = &self.patient {
            // What it does not hear it keeps until the unit is stopped, and gives to the next start.
            let _ = patient.send(format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes());
        }
    }

    /// Waits until the manager has done what it was told before, for [`MANAGER_TIME`] at most.
    pub(super) fn wait_until_heard(&self) {
        let Some(patient) = &self.patient else { return };
        let Ok((own, its)) = UnixStream::pair() else { return };
        // It closes what comes with this once it is there.
        let sent = unix::send(patient.as_fd(), b"BARRIER=1", &[its.as_fd()]);
        drop(its);
        if sent.is_ok() && own.set_read_timeout(Some(MANAGER_TIME)).is_ok() {
            // The end of the stream, or of our patience.
            let _ = (&own).read(&mut [0]);
        }
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is gone or does not read must not stop a resolver.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// While this is there, the manager is told that the service lives.
#[derive(Debug)]
pub(super) struct Watch(Option<JoinHandle<()>>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The socket of a path, or of an abstract name (`@name`).
fn connect(path: &str) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::{Context, Poll, Waker};

    /// What a manager hears that gives a service `variables`.
    fn hears(variables: &[(&str, &str)], act: impl FnOnce(&Notify)) -> (Notify, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let path = path.display().to_string();
        let variable = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(path.clone()),
            _ => variables.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned()),
        };
        let notify = Notify::from_variables(variable, 7).unwrap();
        act(&notify);
        let mut heard = Vec::new();
        let mut buffer = [0; 256];
        while let Ok(length) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        (notify, heard)
    }

    #[test]
    fn the_manager_hears_every_state() {
        let (notify, heard) = hears(&[], |notify| {
            notify.ready();
            notify.reloading();
            notify.ready();
            notify.stopping();
            notify.handed_to(0);
            notify.handed_to(4711);
        });
        let first: Vec<&str> = heard.iter().filter_map(|text| text.lines().next()).collect();
        assert_eq!(first, ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1", "MAINPID=4711"]);
        assert_eq!(notify.alive_every, None);
        // The manager is gone: nobody is told, nothing fails.
        notify.stopping();
    }

    #[test]
    fn an_abstract_name_is_a_socket_too() {
        let name = format!("nodens-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let variable = |word: &str| (word == "NOTIFY_SOCKET").then(|| format!("@{name}"));
        Notify::from_variables(variable, 7).unwrap().ready();
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"READY=1\n"));
    }

    #[test]
    fn without_a_manager_nothing_is_told_and_a_wrong_socket_is_an_error() {
        let notify = Notify::from_variables(|_| None, 7).unwrap();
        assert!(notify.socket.is_none() && notify.alive_every.is_none());
        notify.ready();
        let missing = |word: &str| (word == "NOTIFY_SOCKET").then(|| "/nowhere/notify".to_owned());
        let why = Notify::from_variables(missing, 7).unwrap_err();
        assert!(why.starts_with("NOTIFY_SOCKET /nowhere/notify: "), "{why}");
    }

    #[test]
    fn the_watchdog_is_told_three_times_in_its_time_when_it_is_ours() {
        let every = |variables: &[(&str, &str)]| hears(variables, |_| {}).0.alive_every;
        let thirty = ("WATCHDOG_USEC", "30000000");
        assert_eq!(every(&[thirty]), Some(Duration::from_secs(10)));
        assert_eq!(every(&[thirty, ("WATCHDOG_PID", "7")]), Some(Duration::from_secs(10)));
        assert_eq!(every(&[thirty, ("WATCHDOG_PID", "8")]), None);
        for wrong in ["", "0", "-1", "soon"] {
            assert_eq!(every(&[("WATCHDOG_USEC", wrong)]), None, "{wrong}");
        }
    }

    #[test]
    fn a_worker_that_hangs_or_is_gone_keeps_the_watchdog_untold() {
        let poll = |notify: &Notify, answer: &mut dyn FnMut() -> Poll<bool>| {
            let mut told = std::pin::pin!(notify.alive(poll_fn(|_| answer())));
            told.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        let (_, heard) = hears(&[], |notify| {
            assert_eq!(poll(notify, &mut || Poll::Pending), Poll::Pending);
            assert_eq!(poll(notify, &mut || Poll::Ready(false)), Poll::Ready(false));
        });
        assert_eq!(heard, [""; 0]);
        let (_, heard) = hears(&[], |notify| {
            assert_eq!(poll(notify, &mut || Poll::Ready(true)), Poll::Ready(true));
        });
        assert_eq!(heard, ["WATCHDOG=1"]);
    }
}
