#!/usr/bin/env python3
"""Bad input while hits go on: what it costs in memory and descriptors, and whether hits notice.

  garbage  10,000 datagrams a second of random octets, half of them with the header of a query
  slow     500 TCP clients that send one octet a second of a message that never becomes whole
  idle     10,000 TCP connections that are opened and left alone; nodens keeps 2,048 for each worker
           and ends the one that has been idle for the longest when another one comes

Memory and descriptors before, at their most, and 10 s after; the latency of hits without and with it.

  benches/abuse.py [--nodens PATH] [--kinds garbage,slow,idle] [--seconds 5] [--hits 5000] [--settle 10]
                   [--json FILE]
"""
import contextlib
import os
import random
import resource
import select
import socket
import threading
import time

import lab
import storm

GARBAGE = 10_000
SLOW = 500
IDLE = 10_000


def garbage(address, seconds, over):
    """Random datagrams at an even rate; how many were sent."""
    chance, sent, began = random.Random(1), 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(address)
        client.setblocking(False)
        while not over.is_set() and time.monotonic() - began < seconds:
            while sent < (time.monotonic() - began) * GARBAGE:
                octets = chance.randbytes(chance.randrange(600))
                if sent % 2 and len(octets) > 12:
                    octets = octets[:2] + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + octets[12:]
                with contextlib.suppress(BlockingIOError):
                    client.send(octets)
                sent += 1
            with contextlib.suppress(BlockingIOError):
                while client.recv(4096):
                    pass
            time.sleep(0.001)
    return sent


def connected(held, address, count):
    """Connections, at most `count` of them open at a time."""
    clients = []
    for number in range(count):
        client = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        # Addresses of their own: one has 28,000 ports.
        client.bind((f"127.0.1.{1 + number % 200}", 0))
        client.connect(address)
        client.setblocking(False)
        clients.append(client)
    return clients


def slow(address, seconds, over):
    """One octet a second to each connection; how many connections the server ended meanwhile."""
    began, ended = time.monotonic(), 0
    with contextlib.ExitStack() as held:
        clients = connected(held, address, SLOW)
        # The length, then the message: 400 octets would take 400 seconds.
        for octet in b"\x01\x90" + bytes(400):
            if over.is_set() or time.monotonic() - began >= seconds:
                break
            for client in list(clients):
                try:
                    client.send(bytes([octet]))
                    if client in select.select([client], [], [], 0)[0] and not client.recv(1):
                        raise ConnectionResetError
                except OSError:
                    clients.remove(client)
                    ended += 1
            over.wait(1)
    return ended


def idle(address, seconds, over):
    """Connections that say nothing; how many of them the server has ended at the end."""
    with contextlib.ExitStack() as held:
        clients = connected(held, address, IDLE)
        over.wait(seconds)
        ended = 0
        for client in clients:
            try:
                ended += client.recv(1) == b""
            except BlockingIOError:
                pass
            except OSError:
                ended += 1
        return ended


KINDS = {"garbage": garbage, "slow": slow, "idle": idle}


def measured(place, options, kind):
    with place.server("nodens", nodens=options.nodens) as (process, address):
        path, _ = place.names(1000)
        place.warm(address, path)
        time.sleep(min(2, options.settle))
        row = {"kind": kind, "before_mib": process.rss() / 2**20, "before_fds": storm.descriptors(process)}
        row["quiet"] = storm.hits_met(storm.hits_beside(address, path, options))
        watch, over, said = storm.Watch(process), threading.Event(), []
        watch.start()
        abuse = threading.Thread(target=lambda: said.append(KINDS[kind](address, 4 * options.seconds, over)))
        abuse.start()
        time.sleep(options.seconds)
        row["abused"] = storm.hits_met(storm.hits_beside(address, path, options))
        over.set()
        abuse.join()
        time.sleep(options.settle)
        row["after_mib"], row["after_fds"] = process.rss() / 2**20, storm.descriptors(process)
        watch.end()
        row["most_mib"], row["most_fds"] = watch.rss / 2**20, watch.fds
        row["said"] = said[0]
        return row


def main():
    parser = lab.arguments(__doc__)
    parser.add_argument("--kinds", default="garbage,slow,idle")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--hits", type=int, default=5_000, help="hits a second")
    parser.add_argument("--settle", type=float, default=10, help="seconds after its end until memory is looked at")
    options = parser.parse_args()
    options.nodens = lab.nodens_binary(options.nodens)
    lab.load_generator()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < IDLE + 100:
        lab.fail(f"only {most} descriptors may be open here")
    # The Python of this script is part of the load.
    os.sched_setaffinity(0, {lab.LOAD_CORE})
    rows = []
    with lab.Lab() as place:
        for kind in options.kinds.split(","):
            rows.append(measured(place, options, kind))
    what = {"garbage": "datagrams sent", "slow": "connections ended", "idle": "connections ended"}
    lab.say(f"Bad input beside {options.hits} hits/s:\n")
    lab.table(["", "", f"RSS before/most/{options.settle:g} s after, MiB", "fds before/most/after", "hits lost", "p50/p99 µs quiet", "with it"],
              [[row["kind"], f"{row['said']} {what[row['kind']]}",
                f"{row['before_mib']:.1f}/{row['most_mib']:.1f}/{row['after_mib']:.1f}",
                f"{row['before_fds']}/{row['most_fds']}/{row['after_fds']}", row["abused"]["lost"],
                f"{row['quiet']['p50_us']:.0f}/{row['quiet']['p99_us']:.0f}",
                f"{row['abused']['p50_us']:.0f}/{row['abused']['p99_us']:.0f}"] for row in rows])
    lab.keep(options.json, "abuse", rows)


if __name__ == "__main__":
    main()
