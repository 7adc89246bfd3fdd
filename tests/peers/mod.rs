//! Programs that tests start beside nodens on loopback: a folder for their files, certificates, Unbound
//! and Knot DNS. They end with the test.

#![allow(dead_code)] // Not every test file uses all of it.

#[path = "../ports/mod.rs"]
mod ports;

pub(crate) use super::missing::are_here;
pub(crate) use ports::free_port;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with certificates, and the programs that were started in it.
pub(crate) struct Lab {
    /// Where all of its files are.
    pub(crate) folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What `openssl ca` wants to be told.
const POLICY: &str = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nrand_serial = yes\n\
                      new_certs_dir = .\ndefault_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n";

impl Lab {
    /// An empty one.
    pub(crate) fn new() -> Lab {
        Lab { folder: tempfile::tempdir().unwrap(), children: Vec::new() }
    }

    /// One with certificates by openssl, which is among `tools`: `own` of `dns.test` and 127.0.0.1,
    /// `expired` (of January 2024), both by the authority `ca`, and the authority `stranger`.
    pub(crate) fn with_certificates(tools: &[&str]) -> Option<Lab> {
        if !are_here(tools) {
            return None;
        }
        let lab = Lab::new();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(lab.folder.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        openssl(&format!("req {key} -keyout own.key -out own.csr -subj /CN=dns.test"));
        openssl(&format!(
            "req -x509 {key} -keyout x.key -out stranger.pem -days 2 -subj /CN=stranger"
        ));
        lab.write("names", "subjectAltName=DNS:dns.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
        let signed = "-in own.csr -extfile names -out";
        openssl(&format!(
            "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 {signed} own.pem"
        ));
        // Dates of one's own are for `openssl ca` alone, which keeps books.
        lab.write("index", "");
        lab.write("policy", POLICY);
        let ca = "ca -batch -notext -config policy -cert ca.pem -keyfile ca.key";
        let dates = "-startdate 20240101000000Z -enddate 20240201000000Z";
        openssl(&format!("{ca} {dates} {signed} expired.pem"));
        Some(lab)
    }

    /// The path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A file's text, empty when there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Starts a program that ends with the lab, its output in `log`.
    pub(crate) fn start(&mut self, mut command: Command, log: &str) {
        let output = File::create(self.path(log)).unwrap();
        let errors = output.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
        self.children.push(child);
    }

    /// Unbound with DNS over TLS and HTTPS on two ports, which shows `certificate`; it knows one
    /// name.
    pub(crate) fn unbound(&mut self, certificate: &str) -> (u16, u16) {
        let (tls, https) = (free_port(), free_port());
        let folder = self.folder.path().display();
        let config = format!(
            "server:\n  interface: 127.0.0.1@{tls}\n  interface: 127.0.0.1@{https}\n  \
             tls-port: {tls}\n  https-port: {https}\n  tls-service-key: {folder}/own.key\n  \
             tls-service-pem: {folder}/{certificate}.pem\n  username: \"\"\n  chroot: \"\"\n  \
             pidfile: \"\"\n  directory: {folder}\n  use-syslog: no\n  do-daemonize: no\n  \
             module-config: \"iterator\"\n  local-zone: test. static\n  \
             local-data: \"www.test. 60 A 192.0.2.80\"\n  local-data: \"dns.test. 60 A 127.0.0.1\"\n"
        );
        let config = self.write("unbound.conf", &config);
        let program =
            if Path::new("/usr/sbin/unbound").exists() { "/usr/sbin/unbound" } else { "unbound" };
        let mut command = Command::new(program);
        command.arg("-d").arg("-c").arg(config);
        self.start(command, "unbound.log");
        self.until_listening(tls, "unbound.log");
        self.until_listening(https, "unbound.log");
        (tls, https)
    }

    /// nodens with a Corefile, and waits for its port.
    pub(crate) fn nodens(&mut self, corefile: &str, port: u16) {
        self.write("Corefile", corefile);
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
        command
            .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
            // A system call that the filter does not list must not pass unseen.
            .arg("-seccomp=kill")
            .arg("-metrics-listen-address=127.0.0.1:0")
            .arg(format!("-runtime-dir={}", self.path("run").display()))
            .arg(format!("-basecorefile={}", self.path("none").display()))
            .arg(format!("-conf={}", self.path("Corefile").display()));
        self.start(command, "nodens.log");
        self.until_listening(port, "nodens.log");
    }

    /// Waits for somebody who listens on a TCP port.
    pub(crate) fn until_listening(&self, port: u16, log: &str) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "nothing listens on {port}: {}", self.text(log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Knot DNS with zones, each by its name, file and policy for signing; its port.
    pub(crate) fn knot(&mut self, zones: &[(&str, &str, Option<&str>)]) -> u16 {
        let port = free_port();
        let folder = self.folder.path().display();
        let mut config = format!(
            "server:\n  rundir: {folder}\n  listen: 127.0.0.1@{port}\n  version: \"a version\"\n  \
             nsid: \"knot\"\ncontrol:\n  listen: {folder}/control\nlog:\n  - target: stderr\n    \
             any: info\ndatabase:\n  storage: {folder}\npolicy:\n  - id: nsec\n    algorithm: \
             rsasha256\n  - id: nsec3\n    algorithm: ecdsap256sha256\n    nsec3: on\n    \
             nsec3-salt-length: 4\ntemplate:\n  - id: default\n    storage: {folder}\n    \
             zonefile-sync: -1\n    zonefile-load: difference-no-serial\n    \
             journal-content: all\nzone:\n"
        );
        for (zone, text, policy) in zones {
            self.write(&format!("{zone}.zone"), text);
            config += &format!("  - domain: {zone}\n    file: {zone}.zone\n");
            if let Some(policy) = policy {
                config += &format!("    dnssec-signing: on\n    dnssec-policy: {policy}\n");
            }
        }
        let config = self.write("knot.conf", &config);
        let mut command = Command::new("knotd");
        command.arg("-c").arg(config);
        self.start(command, "knot.log");
        self.until_listening(port, "knot.log");
        port
    }
}
