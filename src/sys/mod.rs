//! System calls made safe. The only `unsafe` of the project stands here. Never knows DNS.

pub mod beside;
pub mod capabilities;
pub mod cgroup;
pub mod cpu;
pub mod descriptors;
pub mod errors;
pub mod inherited;
pub mod interfaces;
pub mod memory;
pub mod netlink;
pub mod readiness;
pub mod seccomp;
pub mod signals;
pub mod sleep;
pub mod udp;
pub mod unix;
