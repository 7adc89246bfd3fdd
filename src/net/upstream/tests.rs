//! Exchanges against a scripted upstream on the loopback.
