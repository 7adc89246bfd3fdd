#!/usr/bin/env python3
"""Hits at a rate, timed by the kernel: from just before a query is sent until the kernel has its reply.

So a client that shares its core with others is not charged to the server: what its process waits for the
core is left out. For benches/storm.py and benches/lone.py.

  benches/hits.py ADDRESS PORT RATE SECONDS FILE

FILE holds `name type` lines, asked in order. One JSON object is printed.
"""
import argparse
import json
import random
import select
import socket
import struct
import time

import lab

# The message beside a datagram that holds when it came (socket(7)): seconds, nanoseconds.
SO_TIMESTAMPNS = 35
TYPES = {"A": 1, "AAAA": 28}
# How long the last replies are waited for, in seconds.
LAST = 0.2


def came(ancillary):
    """When the datagram came, in nanoseconds."""
    for level, kind, octets in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", octets)
            return seconds * 10**9 + nanoseconds
    lab.fail("the kernel gave no time with a datagram")


def asked(address, rate, seconds, queries):
    """How many queries were sent, the latencies of those that were answered, in microseconds, and how many of
    those had no record."""
    took, under_way, sent, failed = [], {}, 0, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(address)
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        due = time.monotonic()
        end = due + seconds
        while (now := time.monotonic()) < end + LAST:
            if due <= now and due < end:
                qid = sent & 0xffff
                wire = struct.pack(">H", qid) + queries[sent % len(queries)]
                under_way[qid] = time.time_ns()
                client.send(wire)
                sent += 1
                due += random.expovariate(rate)
            until = due if due < end else end + LAST
            select.select([client], [], [], max(0, until - time.monotonic()))
            try:
                while True:
                    reply, ancillary, _, _ = client.recvmsg(4096, 64)
                    begun = under_way.pop(int.from_bytes(reply[:2], "big"), None)
                    if begun is not None:
                        took.append((came(ancillary) - begun) / 1e3)
                        failed += reply[6:8] == b"\0\0"
            except BlockingIOError:
                pass
    return sent, sorted(took), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in [("address", str), ("port", int), ("rate", float), ("seconds", float), ("file", argparse.FileType())]:
        parser.add_argument(name, type=kind)
    options = parser.parse_args()
    with options.file as file:
        lines = [line.split() for line in file]
    queries = [lab.query(name, TYPES[kind])[2:] for name, kind in lines]
    sent, took, failed = asked((options.address, options.port), options.rate, options.seconds, queries)
    share = lambda part: took[min(len(took) - 1, int(len(took) * part))] if took else 0.0
    print(json.dumps({"sent": sent, "answered": len(took), "failed": failed, "lost": sent - len(took),
                      "p50_us": share(0.5), "p95_us": share(0.95), "p99_us": share(0.99)}))


if __name__ == "__main__":
    main()
