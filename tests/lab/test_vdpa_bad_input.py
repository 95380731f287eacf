#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Devices that belfry-vdpa cannot have, limits that are too low, front ends that cannot be served: the cause and the command that
mends it. Where the mending command is printed, it is run, and then it has to work.

usage: test_vdpa_bad_input.py [--no-iommu] BELFRY_VMM BELFRY_VDPA
"""

import os
import pathlib
import re
import socket
import struct
import subprocess
import sys

import lab
import vdpa

MODERN = "virtio-net-pci,disable-legacy=on,iommu_platform=on,page-per-vq=on,romfile="
ODD = (f"-device edu,addr=0x4 -device virtio-net-pci,disable-modern=on,romfile=,addr=0x5"
       f" -device {MODERN},vectors=0,addr=0x6 -device {MODERN},addr=0x7"
       f" -device pcie-pci-bridge,id=bridge,addr=0x8 -device {MODERN},bus=bridge,addr=0x1"
       f" -device {MODERN},bus=bridge,addr=0x2")
NO_IOMMU = "-device virtio-net-pci,disable-legacy=on,romfile=,addr=0x1"
SYSTEM = pathlib.Path("/sys/bus/pci")
FREE, USED = "0000:00:07.0", "0000:00:01.0"
SHARED, BESIDE = "0000:01:01.0", "0000:01:02.0"
SOON_S = 20


def bind(bdf, driver="vfio-pci"):
    device = SYSTEM / "devices" / bdf
    (device / "driver_override").write_text(driver + "\n")
    if (device / "driver").exists():
        (device / "driver/unbind").write_text(bdf)
    (SYSTEM / "drivers_probe").write_text(bdf)


class Case:
    def __init__(self, tap, path, work):
        self.tap, self.path, self.work = tap, path, work
        self.socket = work / "s"

    def command(self, bdf):
        return [str(self.path), "--device", bdf, "--socket-path", str(self.socket)]

    def refuses(self, title, bdf, *patterns, before=(), status=1):
        """It ends at once and says all of @patterns; what it said."""
        done = subprocess.run([*before, *self.command(bdf)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=SOON_S, check=False)
        self.tap.equal(done.returncode, status, f"{title}: status {status}")
        for pattern in patterns:
            self.tap.matches(done.stdout, pattern, f"{title}: says {pattern!r}")
        self.tap.ok(not self.socket.exists(), f"{title}: no socket")
        return done.stdout

    def accepts(self, title, bdf, before=()):
        """It listens, and ends with 0 on SIGTERM."""
        with lab.Process(*self.split([*before, *self.command(bdf)]), self.work, "ok") as process:
            lab.wait_until(lambda: self.socket.exists() or process.process.poll() is not None,
                           "its socket")
            self.tap.ok(process.process.poll() is None, f"{title}: it listens", process.said())
            process.process.terminate()
            self.tap.equal(process.ends(10), 0, f"{title}: and ends with 0")

    @staticmethod
    def split(command):
        return command[0], command[1:]

    def mends(self, title, said, bdf):
        """The command after "as root:" is what mends it."""
        command = re.search(r"as root: (.*?)(; otherwise.*)?\s*$", said, re.MULTILINE)
        if not self.tap.ok(command, f"{title}: a command to mend it", said):
            return
        done = subprocess.run(["sh", "-c", command[1]], stderr=subprocess.PIPE, text=True, check=False)
        self.tap.equal((done.returncode, done.stderr), (0, ""), f"{title}: the command works")
        self.accepts(f"{title}: then", bdf)


def not_there(case):
    case.refuses("no such device", "0000:00:0f.0", "no such PCI device", "lspci")
    case.refuses("not a PCI address", "eth0", "expected a PCI address", status=2)


def not_virtio(case):
    case.refuses("not a virtio device", "0000:00:04.0", "expected a virtio device", "1234:11e8")


def not_bound(case):
    said = case.refuses("bound to another driver", FREE, "vfio-pci", "driver virtio-pci holds it",
                        f"{FREE}")
    case.mends("bound to another driver", said, FREE)
    (SYSTEM / "devices" / FREE / "driver/unbind").write_text(FREE)
    said = case.refuses("bound to no driver", FREE, "no driver holds it")
    case.mends("bound to no driver", said, FREE)


def shared_group(case):
    bind(SHARED)
    said = case.refuses("group shared", SHARED, f"shared with {BESIDE}", "virtio-pci holds")
    case.mends("group shared", said, SHARED)


def legacy_only(case):
    bind("0000:00:05.0")
    case.refuses("legacy only", "0000:00:05.0", "[Ll]egacy", "disable-modern|modern")


def no_msix(case):
    bind("0000:00:06.0")
    case.refuses("no MSI-X", "0000:00:06.0", "MSI-X", "vectors|expected")


def in_use(case):
    with vdpa.Vdpa(case.path, case.work, 1, ()) as other:
        case.refuses("in use", USED, f"belfry-vdpa \\(process {other.process.pid}\\)", "end")
        other.process.terminate()
        other.ends(10)
    case.accepts("no longer in use", USED)


def no_permission(case):
    before = ["setpriv", "--reuid", "65534", "--clear-groups"]
    os.chmod(case.work, 0o777)
    said = case.refuses("no permission", USED, "no permission", "chown", before=before)
    command = re.search(r"as root: (chown \S+ \S+)", said)
    if case.tap.ok(command, "no permission: a command to mend it", said):
        subprocess.run(["sh", "-c", command[1]], check=True)
        case.accepts("no permission: mended", USED, before)


class FrontEnd:
    """A front end of a few lines: up to the memory table, with acknowledgements."""

    FEATURES, SET_FEATURES, OWNER, MEM_TABLE, PROTOCOL, SET_PROTOCOL = 1, 2, 3, 5, 15, 16
    REPLY_ACK = 1 << 3

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SOON_S)
        self.socket.connect(str(path))

    def send(self, request, payload=b"", fds=(), ack=False):
        message = struct.pack("<III", request, 9 if ack else 1, len(payload)) + payload
        socket.send_fds(self.socket, [message], list(fds))

    def answer(self):
        """The u64 of a reply; None if the connection is gone."""
        reply = self.socket.recv(20, socket.MSG_WAITALL)
        return struct.unpack("<Q", reply[12:])[0] if len(reply) == 20 else None

    def u64(self, request):
        self.send(request)
        return self.answer()

    def negotiate(self):
        self.send(self.OWNER)
        features = self.u64(self.FEATURES)
        self.u64(self.PROTOCOL)
        self.send(self.SET_PROTOCOL, struct.pack("<Q", self.REPLY_ACK))
        self.send(self.SET_FEATURES, struct.pack("<Q", features & (1 << 30 | 1 << 32)))

    def memory(self, gpa, size, fd):
        """What is answered to a table of one region."""
        self.send(self.MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, gpa, size, 0x10000000, 0), [fd], True)
        return self.answer()


def memory_limit(case):
    """As another user would: without CAP_IPC_LOCK, with 1 MiB."""
    limit = ["prlimit", "--memlock=1048576:1048576", "setpriv", "--bounding-set", "-ipc_lock",
             "--inh-caps", "-ipc_lock"]
    with vdpa.Vdpa(case.path, case.work, 1, (), caps=limit) as backend:
        fd = os.memfd_create("ram")
        os.ftruncate(fd, 16 << 20)
        front = FrontEnd(backend.socket)
        front.negotiate()
        answer = front.memory(0, 16 << 20, fd)
        case.tap.ok(answer != 0, "memory limit: refused", answer)
        case.tap.matches(backend.said(), r"memory|memlock", "memory limit: says so")
        case.tap.matches(backend.said(), r"ulimit -l|LimitMEMLOCK|prlimit",
                         "memory limit: says how to raise it")
        front.socket.close()
        lab.wait_until(lambda: backend.stats()["dma"]["mappings"] == 0, "nothing mapped")
        case.tap.equal(backend.process.poll(), None, "memory limit: it serves on")
        backend.process.terminate()
        case.tap.equal(backend.ends(10), 0, "memory limit: ends with 0")


def memory_that_cannot_be_mapped(case):
    """Beyond what the IOMMU translates; and a file that ends before the region does."""
    with vdpa.Vdpa(case.path, case.work, 1, ()) as backend:
        fd = os.memfd_create("ram")
        os.ftruncate(fd, 16 << 20)
        front = FrontEnd(backend.socket)
        front.negotiate()
        answer = front.memory(1 << 50, 16 << 20, fd)
        case.tap.ok(answer != 0, "memory out of the IOMMU's reach: refused", answer)
        case.tap.matches(backend.said(), r"4000000000000|IOMMU",
                         "memory out of the IOMMU's reach: says which and why")
        front.socket.close()
        front = FrontEnd(backend.socket)
        front.negotiate()
        case.tap.equal(front.memory(0, 16 << 20, fd), 0, "the next front end's memory is mapped")
        case.tap.equal(backend.stats()["dma"], {"mappings": 1, "bytes": 16 << 20},
                       "once, and all of it")
        front.socket.close()
        lab.wait_until(lambda: backend.stats()["dma"]["mappings"] == 0, "nothing mapped")
        backend.process.terminate()
        case.tap.equal(backend.ends(10), 0, "ends with 0")


def no_iommu(case):
    subprocess.run(["modprobe", "-a", "vfio-pci", "vfio_iommu_type1"], check=True)
    case.refuses("no IOMMU", USED, "IOMMU", "intel_iommu=on")
    unsafe = pathlib.Path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")
    if unsafe.exists():
        unsafe.write_text("1")
        bind(USED)
        case.refuses("VFIO's mode without IOMMU", USED, "no-IOMMU|IOMMU", "intel_iommu=on")


MAIN = (not_there, not_virtio, not_bound, shared_group, legacy_only, no_msix, in_use, no_permission,
        memory_limit, memory_that_cannot_be_mapped)


def main():
    arguments = sys.argv[1:]
    if arguments[0] != "--inside":
        without = arguments[0] == "--no-iommu"
        options = ["--qemu", NO_IOMMU] if without else ["--accelerator", "--qemu", ODD]
        lab.run_in_lab(__file__, arguments, 150, options)
    without = arguments[3] == "--no-iommu"
    path = pathlib.Path(arguments[-1]).resolve()
    tap = lab.Tap()
    with lab.folder() as work:
        for test in (no_iommu,) if without else MAIN:
            with tap.part(test.__name__):
                test(Case(tap, path, work))
    tap.equal(lab.left_over(path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
