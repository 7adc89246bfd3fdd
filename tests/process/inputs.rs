//! Files that change while the program runs: resolv.conf, the template, the kube-dns ConfigMap.

use crate::node::Node;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

/// An upstream on port 53 of a loopback address of its own, which answers every question with that
/// address. `None`, said and why, where port 53 cannot be had. Its thread ends with the test.
fn upstream(last: u8) -> Option<Ipv4Addr> {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let address = Ipv4Addr::new(127, 100 + (high & 63), low, last);
    let socket = match UdpSocket::bind((address, 53)) {
        Ok(socket) => socket,
        Err(why) => {
            assert!(std::env::var("NODENS_TEST_ALL").as_deref() != Ok("1"), "port 53: {why}");
            println!("not run, missing: port 53 of loopback addresses ({why})");
            return None;
        }
    };
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let Some(name) = query[12..length].iter().position(|octet| *octet == 0) else { return };
            let mut reply = query[..12 + name + 5].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04");
            reply.extend(address.octets());
            let _ = socket.send_to(&reply, client);
        }
    });
    Some(address)
}

/// Turns the link `name` in `folder` to `target`, in one step as the kubelet does it.
fn turn(folder: &Path, name: &str, target: &str) {
    let beside = folder.join(format!("{name}_tmp"));
    symlink(target, &beside).unwrap();
    fs::rename(beside, folder.join(name)).unwrap();
}

#[test]
fn an_edit_of_resolv_conf_takes_effect_and_the_cache_stays() {
    let (Some(first), Some(second)) = (upstream(1), upstream(2)) else { return };
    let mut node = Node::new();
    let folder = node.folder.path().to_owned();
    fs::write(folder.join("first"), format!("nameserver {first}\n")).unwrap();
    // Equal in size, and in time as far as a file system tells it.
    fs::write(folder.join("second"), format!("nameserver {second}\n")).unwrap();
    turn(&folder, "resolv.conf", "first");
    let file = node.path("resolv.conf").display().to_string();
    node.start(&format!("    prometheus HTTP\n    cache\n    forward . {file}"), &[]);
    assert_eq!(node.ask("kept.test"), Some(first));

    turn(&folder, "resolv.conf", "second");
    let mut number = 0;
    node.until("the second upstream", |node| {
        number += 1;
        node.ask(&format!("new{number}.test")) == Some(second)
    });
    assert_eq!(node.ask("kept.test"), Some(first), "the cache is kept");
    let told = format!("[INFO] plugin/forward: upstreams changed: asking {second}:53 now\n");
    assert_eq!(node.lines().matches(&told).count(), 1, "{}", node.lines());

    fs::write(folder.join("second"), "nameserver\n").unwrap();
    node.until("the complaint", |node| node.lines().contains("as before: no nameservers found\n"));
    assert_eq!(node.ask("later.test"), Some(second));
    let counter = format!("nodens_forward_file_failures_total{{file=\"{file}\"}}");
    assert_eq!(node.metric(&counter).as_deref(), Some("1"));
    fs::write(folder.join("second"), format!("nameserver {first}\n")).unwrap();
    node.until("the first upstream again", |node| {
        number += 1;
        node.ask(&format!("new{number}.test")) == Some(first)
    });
    assert!(!node.lines().contains("Reloading"), "{}", node.lines());
}
