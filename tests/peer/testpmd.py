# SPDX-License-Identifier: BSD-3-Clause
"""DPDK's testpmd, told what to do on standard input: virtio_user drivers, or a back end to compare with.

Memory is ordinary memory unless huge pages are free.
"""

import os
import pathlib
import re
import struct
import subprocess

from peer import Failed, Program, wait_until

NAME = "dpdk-testpmd"
START_S = 60
HUGE_PAGES = 300  # of 2 MiB, for two of them


def virtio_user(number, path, options):
    return f"net_virtio_user{number},path={path},{options}"


def huge_pages():
    """Are there enough of them?"""
    free = re.search(r"HugePages_Free: +(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return bool(free) and int(free[1]) >= HUGE_PAGES


class Testpmd(Program):
    """Its ports are @vdevs, in this order. @topology: loop (back out of the same port) or paired."""

    def __init__(self, run, vdevs, topology, queues=1, descriptors=256, main_core=0, huge=False):
        memory = ["--in-memory", "--single-file-segments"] if huge else ["--no-shconf", "--no-huge"]
        arguments = ["stdbuf", "-oL", NAME, "-l", "0,1", "--main-lcore", main_core, "-n", "1",
                     f"--file-prefix=belfry{os.getpid()}-{len(run.programs)}", "--no-pci",
                     "--no-telemetry", *memory, "-m", "256", "--force-max-simd-bitwidth=512",
                     "--log-level=lib.eal:error"]
        for vdev in vdevs:
            arguments += ["--vdev", vdev]
        super().__init__(run, NAME, [
            *arguments, "--", "-i", "--nb-cores=1", f"--port-topology={topology}",
            f"--rxq={queues}", f"--txq={queues}", f"--rxd={descriptors}", f"--txd={descriptors}",
            "--total-num-mbufs=16384", "--no-flush-rx", "--no-lsc-interrupt"], stdin=subprocess.PIPE)
        wait_until("testpmd's prompt", lambda: "testpmd> " in self.said() or not self.alive(),
                   START_S)
        if not self.alive():
            raise Failed(f"testpmd ended by itself: {self.said()[-2000:]}")

    def tell(self, command, answer=None):
        """What it says until @answer (an expression)."""
        start = len(self.said())
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        if answer:
            wait_until(f"testpmd's answer to '{command}'",
                       lambda: re.search(answer, self.said()[start:]))
        return self.said()[start:]

    def stop(self):
        """Packets it received and sent since start, by port."""
        said = self.tell("stop", r"Done\.")
        counters = {}
        for port, text in re.findall(r"statistics for port (\d+) +-+\n(.*?)\n  ----", said,
                                     re.DOTALL):
            counters[int(port)] = tuple(int(re.search(way + r"-packets: (\d+)", text)[1])
                                        for way in ("RX", "TX"))
        return counters

    def quit(self):
        """True if it ended well."""
        self.tell("quit")
        return self.wait() == 0


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def read_pcap(path):
    """Whole frames so far; the last may be half written."""
    data = path.read_bytes() if path.exists() else b""
    frames, at = [], 24
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        if at + 16 + length > len(data):
            break
        frames.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return frames
