//! Encrypted transports against other people's programs: Unbound as upstream, kdig as client,
//! certificates by openssl. Says what is missing and passes, unless `NODENS_TEST_ALL=1`.

// A test may panic, and why it did not run is for whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The programs that these tests need.
const TOOLS: &[&str] = &["openssl", "unbound", "kdig"];

/// A directory with certificates, and the programs that were started in it.
struct Lab {
    folder: tempfile::TempDir,
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

fn has(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&paths).chain(sbin).any(|folder| folder.join(tool).is_file())
}

fn lab() -> Option<Lab> {
    if let Some(missing) = TOOLS.iter().find(|tool| !has(tool)) {
        assert!(std::env::var("NODENS_TEST_ALL").as_deref() != Ok("1"), "missing: {missing}");
        println!("not run, missing: {missing}");
        return None;
    }
    let lab = Lab { folder: tempfile::tempdir().unwrap(), children: Vec::new() };
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
    openssl(&format!("req -x509 {key} -keyout x.key -out stranger.pem -days 2 -subj /CN=stranger"));
    lab.write("names", "subjectAltName=DNS:dns.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
    for (certificate, days) in [("own", 2), ("expired", -1)] {
        openssl(&format!(
            "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {certificate}.pem \
             -days {days} -extfile names"
        ));
    }
    Some(lab)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn start(&mut self, mut command: Command, log: &str) {
        let output = File::create(self.path(log)).unwrap();
        let errors = output.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().unwrap();
        self.children.push(child);
    }

    /// Unbound with DNS over TLS and HTTPS on two ports, which shows `certificate`; it knows one
    /// name.
    fn unbound(&mut self, certificate: &str) -> (u16, u16) {
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
        (tls, https)
    }

    fn nodens(&mut self, corefile: &str, port: u16) {
        self.write("Corefile", corefile);
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodens"));
        command
            .args(["-localip=127.0.0.1", "-setupinterface=false", "-setupiptables=false"])
            .arg("-metrics-listen-address=127.0.0.1:0")
            .arg(format!("-basecorefile={}", self.path("none").display()))
            .arg(format!("-conf={}", self.path("Corefile").display()));
        self.start(command, "nodens.log");
        self.until_listening(port, "nodens.log");
    }

    fn until_listening(&self, port: u16, log: &str) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "nothing listens on {port}: {}", self.text(log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What kdig prints, errors included.
    fn kdig(&self, port: u16, options: &[&str]) -> String {
        let output = Command::new("kdig")
            .args(["@127.0.0.1", "-p", &port.to_string(), "+retry=0", "+time=8"])
            .args(options)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }
}

/// Verifies the server's certificate against the lab's authority.
const VERIFY: [&str; 2] = ["+tls-ca=ca.pem", "+tls-hostname=dns.test"];

#[test]
fn kdig_is_answered_over_tls_and_https_from_unbound_over_tls_and_https() {
    let Some(mut lab) = lab() else { return };
    let (tls_up, https_up) = lab.unbound("own");
    let (tls, https, https_too) = (free_port(), free_port(), free_port());
    let block = |keys: &str, upstream: &str| {
        format!(
            "{keys} {{\n    bind 127.0.0.1\n    errors\n    tls {folder}/own.pem {folder}/own.key\n    \
             forward . {upstream} {{\n        tls {folder}/ca.pem\n        \
             tls_servername dns.test\n    }}\n}}\n",
            folder = lab.folder.path().display()
        )
    };
    let corefile =
        block(&format!("tls://.:{tls} https://.:{https}"), &format!("tls://127.0.0.1:{tls_up}"))
            + &block(&format!("https://.:{https_too}"), &format!("https://127.0.0.1:{https_up}"));
    lab.nodens(&corefile, https_too);
    for (port, how) in [
        (tls, &["+tls"][..]),
        (https, &["+https"]),
        (https, &["+https-get"]),
        (https_too, &["+https"]),
        (https_too, &["+https", "+https-get"]),
    ] {
        let answer = lab.kdig(port, &[&VERIFY, how, &["www.test", "A"]].concat());
        let log = lab.text("nodens.log");
        assert!(answer.contains("status: NOERROR"), "{how:?} {answer}\n{log}");
        assert!(answer.contains("192.0.2.80"), "{how:?} {answer}\n{log}");
        let negative = lab.kdig(port, &[&VERIFY, how, &["none.test", "A"]].concat());
        assert!(negative.contains("status: NXDOMAIN"), "{how:?} {negative}\n{log}");
    }
}

/// What nodens says of an upstream with `certificate` when it must be called `name` and be signed by
/// `authority`: over TLS and HTTPS the client gets SERVFAIL, and the line names the upstream's address
/// and `name` before `why`.
fn is_not_believed(certificate: &str, authority: &str, name: &str, why: &str) {
    let Some(mut lab) = lab() else { return };
    let (tls_up, https_up) = lab.unbound(certificate);
    let folder = lab.folder.path().display().to_string();
    for (scheme, upstream) in [("tls", tls_up), ("https", https_up)] {
        let port = free_port();
        let corefile = format!(
            ".:{port} {{\n    bind 127.0.0.1\n    errors\n    forward . \
             {scheme}://127.0.0.1:{upstream} {{\n        tls {folder}/{authority}.pem\n        \
             tls_servername {name}\n    }}\n}}\n"
        );
        lab.nodens(&corefile, port);
        let answer = lab.kdig(port, &["www.test", "A"]);
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
        let line = format!(
            "[ERROR] plugin/errors: 2 www.test. A: 127.0.0.1:{upstream} ({name}): tls: failed to \
             verify certificate: x509: {why}"
        );
        let began = Instant::now();
        while !lab.text("nodens.log").contains(&line) {
            assert!(began.elapsed() < PATIENCE, "no {line} in\n{}", lab.text("nodens.log"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn an_upstream_with_the_wrong_name_is_not_believed_and_the_line_says_which() {
    is_not_believed("own", "ca", "wrong.test", "certificate is valid for dns.test");
}

#[test]
fn an_upstream_of_an_unknown_authority_is_not_believed_and_the_line_says_which() {
    is_not_believed("own", "stranger", "dns.test", "certificate signed by unknown authority\n");
}

#[test]
fn an_upstream_with_an_expired_certificate_is_not_believed_and_the_line_says_which() {
    is_not_believed("expired", "ca", "dns.test", "certificate has expired or is not yet valid\n");
}

#[test]
fn an_upstream_is_found_by_its_name_and_must_have_it() {
    let Some(mut lab) = lab() else { return };
    let (tls_up, _) = lab.unbound("own");
    let resolver = free_port();
    let port = free_port();
    let folder = lab.folder.path().display().to_string();
    let first = format!(
        ".:{resolver} {{\n    bind 127.0.0.1\n    hosts {{\n        127.0.0.1 dns.test\n    }}\n}}\n"
    );
    lab.nodens(&first, resolver);
    let corefile = format!(
        ".:{port} {{\n    bind 127.0.0.1\n    errors\n    forward . tls://dns.test:{tls_up} {{\n        \
         tls {folder}/ca.pem\n        resolver 127.0.0.1:{resolver}\n    }}\n}}\n"
    );
    lab.nodens(&corefile, port);
    let answer = lab.kdig(port, &["www.test", "A"]);
    assert!(answer.contains("192.0.2.80"), "{answer}\n{}", lab.text("nodens.log"));
}
