# SPDX-License-Identifier: BSD-3-Clause
"""Debian's QEMU on its emulated CPU, with any vhost-user devices, and its monitor."""

import json
import re
import socket
import subprocess

from peer import SOON_S, Failed, Guest, Program, listens, wait_until

MEMORY = "192M"
APPEND = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check"
# Without iommu_platform=on a device goes past the IOMMU.
IOMMU = ("-device", "intel-iommu,intremap=on,device-iotlb=on")
BEHIND_IOMMU = ",iommu_platform=on,ats=on,disable-legacy=on"
IOMMU_APPEND = " intel_iommu=on,sm_off iommu.strict=1"


def blk_device(number, socket_path, options="", nr_queues=2, reconnect=""):
    """Arguments for a disk; disks appear in the guest in the order of the command line."""
    return ["-chardev", f"socket,id=blk{number},path={socket_path}{reconnect}",
            "-device", f"vhost-user-blk-pci,chardev=blk{number},num-queues={nr_queues}{options}"]


def net_device(number, socket_path, options="", pairs=1, reconnect=""):
    """Arguments for a network card, 52:54:00:00:00:NUMBER; the first one is eth0.

    Without MSI-X: without KVM, QEMU 7.2 crashes when a vhost-user card uses it (docs/peers.md).
    """
    mq = ",mq=on" if pairs > 1 else ""
    return ["-chardev", f"socket,id=net{number},path={socket_path}{reconnect}",
            "-netdev", f"vhost-user,id=n{number},chardev=net{number},queues={pairs}",
            "-device", f"virtio-net-pci,netdev=n{number},romfile=,mac=52:54:00:00:00:{number:02x}"
            f",vectors=0{mq}{options}"]


class Monitor:
    """QEMU's monitor as QMP on a UNIX socket; hmp() is what a person would type."""

    def __init__(self, path, qemu):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SOON_S)
        wait_until("QEMU's monitor", lambda: listens(path) or not qemu.alive())
        if not qemu.alive():
            raise Failed(f"{qemu.name} ended by itself: {qemu.said()}")
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")
        self.events = []
        self.receive()
        self.call("qmp_capabilities")

    def receive(self):
        try:
            line = self.lines.readline()
        except OSError as error:
            raise Failed(f"QEMU's monitor: {error}") from None
        if not line:
            raise Failed("QEMU's monitor was closed")
        return json.loads(line)

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode())
        while True:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise Failed(f"QEMU's monitor: {command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def hmp(self, line):
        return self.call("human-monitor-command", **{"command-line": line})

    def wait_event(self, name):
        """Events before the call count too; each once."""
        while name not in self.events:
            answer = self.receive()
            if "event" in answer:
                self.events.append(answer["event"])
        self.events.remove(name)


class Qemu(Program):
    """QEMU with guest.sh in its guest. @devices: lists of arguments, see blk_device(), net_device()."""

    def __init__(self, run, kernel, initrd, devices, more=(), append="", name="qemu"):
        monitor = run.folder / f"monitor{len(run.programs)}.sock"
        super().__init__(
            run, name,
            ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
             "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY,
             "-machine", "q35,memory-backend=mem",
             "-object", f"memory-backend-memfd,id=mem,size={MEMORY},share=on",
             "-kernel", kernel / "vmlinux", "-initrd", initrd, "-append", APPEND + append,
             "-action", "shutdown=pause",
             "-serial", "stdio", "-qmp", f"unix:{monitor},server=on,wait=off",
             *more, *(word for device in devices for word in device)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.guest = Guest(self)
        self.monitor = Monitor(monitor, self)

    def doorbell_pages(self, kind="blk"):
        """Pages over the notify region, as {slot: type}; slot 0 belongs to queue 0."""
        region = r"([0-9a-f]{16})-([0-9a-f]{16}) \(prio (\d+), ([\w/]+)\): "
        tree = self.monitor.hmp("info mtree")
        notify = re.search(region + f"virtio-pci-notify-virtio-{kind}", tree)
        if not notify and "host-notifier" not in tree:
            return {}  # the BAR has no address: after a reset
        if not notify:
            raise Failed(f"'info mtree' shows no notify region of a virtio-{kind} device")
        first, last = int(notify[1], 16), int(notify[2], 16)
        pages = {}
        for page in re.finditer(region + "vhost-user/host-notifier", tree):
            start, end = int(page[1], 16), int(page[2], 16)
            if start < first or end > last or end - start != 4095 or (start - first) % 4096:
                raise Failed(f"not one page inside the notify region {notify[0]}: {page[0]}")
            if int(page[3]) <= int(notify[3]):
                raise Failed(f"{page[0]} lies under {notify[0]}")
            pages[(start - first) // 4096] = page[4]
        return pages

    def quit(self):
        """Its way to end; true if it was a good one."""
        self.monitor.call("quit")
        return self.wait() == 0
