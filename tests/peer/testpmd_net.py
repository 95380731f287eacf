#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""DPDK's virtio_user drives belfry-net: every kind of ring it has, frames compared byte for byte.

testpmd_net.py BELFRY_NET: frames of all sizes go from here into a TAP, through belfry-net to testpmd,
which sends them back the same way. Then testpmd sends from files: through --loopback, --switch and
into --sink.
"""

import os
import random
import select
import socket
import struct
import sys
import time

import net
from peer import Failed, wait_until
from testpmd import NAME, Testpmd, read_pcap, virtio_user, write_pcap

NR_FRAMES = 1500
WINDOW = 24  # frames on their way at once: none may be lost
LARGEST = 1514
FROM, TO = b"\x0a\x63\x00\x01", b"\x0a\x63\x00\x02"  # nobody here: the kernel does not answer

# title, virtio_user's options, queues, belfry-net's notify, who listens is testpmd
DRIVERS = (
    ("split", "in_order=0", 1, "eventfd", False),
    ("packed", "packed_vq=1,in_order=0", 1, "eventfd", False),
    ("split, in order", "in_order=1", 1, "poll", False),
    ("packed, in order", "packed_vq=1,in_order=1", 1, "poll", False),
    ("split, no mergeable buffers, in order", "mrg_rxbuf=0,in_order=1", 1, "eventfd", False),
    ("split, no mergeable buffers, vectorized", "mrg_rxbuf=0,in_order=0,vectorized=1", 1,
     "eventfd", False),
    ("packed, no mergeable buffers, in order, vectorized",
     "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1", 1, "eventfd", False),
    ("packed, testpmd listens", "packed_vq=1,server=1", 1, "eventfd", True),
    ("split, testpmd listens", "server=1", 1, "doorbell", True),
)
TWO_QUEUES = (
    ("split, two pairs", "queues=2", 2, "eventfd", False),
    ("packed, two pairs", "packed_vq=1,queues=2", 2, "eventfd", False),
)


def make_frame(number):
    """UDP with ports that differ, so that a TAP of several queues spreads them. The rest is random."""
    length = random.choice((60, 61, 64, 127, 128, 590, 1280, LARGEST, random.randint(60, LARGEST)))
    ip_header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length - 14, 0, 0, 64, 17, 0, FROM, TO)
    head = (b"\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02\x08\x00" + ip_header
            + struct.pack("!HHHHI", 1024 + number, 9, length - 34, 0, number))
    return head + os.urandom(length - len(head))


class Wire:
    """A TAP from the outside: frames out, and those that come back."""

    def __init__(self, name):
        self.socket = net.packet_socket(name)

    def send(self, frame):
        self.socket.send(frame)

    def receive(self, seconds):
        """The next frame that came out of the TAP, or None."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                frame, where = self.socket.recvfrom(65536)
                if where[2] != socket.PACKET_OUTGOING and frame[26:30] == FROM:
                    return frame
        return None


def there_and_back(run, tap, title, in_order):
    wire, out, came = Wire(tap), [], []
    while len(came) < NR_FRAMES:
        while len(out) < NR_FRAMES and len(out) - len(came) < WINDOW:
            out.append(make_frame(len(out)))
            wire.send(out[-1])
        frame = wire.receive(3)
        if frame is None:
            break
        came.append(frame)
    if not in_order:
        came.sort(key=lambda frame: frame[42:46])
    differ = [number for number, (went, back) in enumerate(zip(out, came)) if went != back]
    run.ok(len(came) == NR_FRAMES and not differ,
           f"{title}: {NR_FRAMES} frames there and back, the same bytes"
           + (" in the same order" if in_order else ""),
           f"{len(came)} came back", f"other than they went: {differ[:10]}")


def by_tap(run, drivers, nr_queues):
    """All in one testpmd, a port each."""
    backends, vdevs, taps = [], [], []
    for _, options, _, notify, server in drivers:
        number = len(run.programs) + 1
        taps.append(net.add_tap(number, nr_queues, address=False))
        path = run.folder / f"testpmd{number}.sock" if server else None
        backends.append(net.Net(run, sys.argv[1], f"--tap={taps[-1]}", notify=notify,
                                pairs=nr_queues, socket_path=path,
                                options=["--client"] if server else []))
        vdevs.append(virtio_user(number, backends[-1].socket, options + ",queue_size=256"))
    testpmd = Testpmd(run, vdevs, "loop", nr_queues)
    wait_until("all ports connected",
               lambda: all(backend.stats()["connected"] for backend in backends))
    testpmd.tell("start", "packet forwarding")
    for tap, (title, _, _, _, _) in zip(taps, drivers):
        there_and_back(run, tap, title, nr_queues == 1)
    counters = testpmd.stop()
    for port, (title, _, _, _, _) in enumerate(drivers):
        # What the kernel sends by itself when an interface comes up may be in it.
        received, sent = counters[port]
        run.ok(received >= NR_FRAMES and sent == received, f"{title}: testpmd counts them",
               counters[port])
        if nr_queues > 1:
            moved = [queue["packets"] for queue in backends[port].stats()["queues"]]
            run.ok(all(moved[:2 * nr_queues]), f"{title}: every queue had its share", moved)
    end(run, testpmd, backends, [title for title, _, _, _, _ in drivers])


def end(run, testpmd, backends, titles):
    run.ok(testpmd.quit(), f"testpmd with {len(titles)} ports ends well")
    for title, backend in zip(titles, backends):
        run.equal(backend.total("errors"), 0, f"{title}: belfry-net found no error")
        run.ok(backend.terminate(), f"{title}: belfry-net ends well")


class File:
    """A port of testpmd that reads one file and writes another."""

    def __init__(self, run, name, from_mac, to_mac):
        self.frames = [bytes([2, 0, 0, 0, 0, to_mac, 2, 0, 0, 0, 0, from_mac])
                       + make_frame(number)[12:] for number in range(200)]
        self.there, self.back = (run.folder / f"{name}-{way}.pcap" for way in ("there", "back"))
        write_pcap(self.there, self.frames)
        self.vdev = f"net_pcap_{name},rx_pcap={self.there},tx_pcap={self.back}"

    def compare(self, run, expected, title):
        try:
            wait_until("frames in a file", lambda: len(read_pcap(self.back)) >= len(expected), 5)
        except Failed:
            pass  # the comparison says it
        found = read_pcap(self.back)
        run.ok(found == expected, f"{title}: {len(expected)} frames, the same bytes in order",
               f"found {len(found)}")


def by_files(run):
    """Pairs of ports: a file, and a driver that sends what is in it and hands back what comes."""
    files = [File(run, name, number, number ^ 1) for number, name in enumerate(
        ("split", "packed", "left", "right", "sink"))]
    sockets = [run.folder / f"switch{number}.sock" for number in (0, 1)]
    loopbacks = [net.Net(run, sys.argv[1], "--loopback", notify="poll") for _ in range(2)]
    switch = net.Net(run, sys.argv[1], "--switch", f"--socket-path={sockets[1]}",
                     socket_path=sockets[0])
    sink = net.Net(run, sys.argv[1], "--sink", notify="poll")
    paths = [loopbacks[0].socket, loopbacks[1].socket, *sockets, sink.socket]
    vdevs = []
    for number, (file, path) in enumerate(zip(files, paths)):
        vdevs += [file.vdev, virtio_user(number, path, f"packed_vq={number % 2},in_order=0")]
    testpmd = Testpmd(run, vdevs, "paired")
    testpmd.tell("start", "packet forwarding")
    for number, title in enumerate(("--loopback, split", "--loopback, packed")):
        files[number].compare(run, files[number].frames, title)
    for number, title in ((2, "--switch, packed to split"), (3, "--switch, split to packed")):
        files[number].compare(run, files[number ^ 1].frames, title)
    wait_until("frames in the sink", lambda: sink.total("packets") >= 200)
    run.equal(sink.total("packets"), 200, "--sink: every frame is counted")
    end(run, testpmd, [*loopbacks, switch, sink], ["--loopback", "--loopback", "--switch", "--sink"])


def test(run):
    by_tap(run, DRIVERS, 1)
    by_tap(run, TWO_QUEUES, 2)
    by_files(run)


if __name__ == "__main__":
    sys.exit(net.main_in_namespace(test, [NAME, "ip"]))
