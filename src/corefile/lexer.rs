//! Text to tokens: caddy 1.1.4's state machine (spec/coredns.md §1.1).
