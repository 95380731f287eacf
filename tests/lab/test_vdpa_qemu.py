#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Debian's QEMU as the front end of belfry-vdpa, in the lab with KVM: with a page for each queue it maps the accelerator's
doorbells, without it refuses them and all goes by relay.

usage: test_vdpa_qemu.py BELFRY_VDPA
"""

import pathlib
import re
import subprocess
import sys

import lab
import vdpa

sys.path.insert(0, str(lab.ROOT / "tests/peer"))
# pylint: disable=wrong-import-position
from qemu import Monitor  # noqa: E402

ACCELERATORS = ["net", "net,packed=on"]
REGION = r"([0-9a-f]{16})-([0-9a-f]{16}) \(prio (\d+), ([\w/]+)\): "


class Qemu(lab.Process, lab.Console):
    """The guest of lab.Guest, on QEMU."""

    def __init__(self, work, kernel, initrd, socket, options, name="qemu"):
        self.errors = open(work / f"{name}.errors", "w+b")
        monitor = work / f"{name}.monitor"
        super().__init__("qemu-system-x86_64", [
            "-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-cpu", "host",
            "-m", "192M", "-machine", "q35,memory-backend=mem",
            "-object", "memory-backend-memfd,id=mem,size=192M,share=on",
            "-kernel", pathlib.Path(kernel) / "vmlinux", "-initrd", initrd,
            "-append", "console=ttyS0 quiet panic=-1", "-serial", "stdio", "-no-reboot",
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-chardev", f"socket,id=c0,path={socket}",
            "-netdev", "vhost-user,id=n0,chardev=c0",
            "-device", f"virtio-net-pci,netdev=n0,disable-legacy=on,romfile={options}"],
            work, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.monitor = Monitor(monitor, self)

    def __exit__(self, *_):
        super().__exit__()
        self.errors.close()

    def alive(self):
        return self.process.poll() is None

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def doorbell_pages(self):
        """Pages over the notify region, as {slot: type}."""
        tree = self.monitor.hmp("info mtree")
        notify = re.search(REGION + "virtio-pci-notify-virtio-net", tree)
        first = int(notify[1], 16) if notify else 0
        pages = re.finditer(REGION + "vhost-user/host-notifier", tree)
        return {(int(page[1], 16) - first) // 4096: page[4] for page in pages}


def with_pages(tap, path, work, kernel, initrd, number, options):
    title = f"page-per-vq=on{options}"
    with vdpa.Vdpa(path, work, number, ()) as backend:
        for round_ in ("", ", next QEMU"):
            with Qemu(work, kernel, initrd, backend.socket, f",page-per-vq=on{options}") as qemu:
                net = vdpa.Net(qemu, number)
                net.up()
                lab.wait_until(lambda: backend.doorbells()[:2] == ["mapped"] * 2, "doorbells")
                tap.equal(qemu.doorbell_pages(), {0: "ramd", 1: "ramd"},
                          f"{title}{round_}: 'info mtree' shows a page for each queue")
                tap.equal(net.has_feature(vdpa.PACKED), "packed=on" in options,
                          f"{title}{round_}: rings are as they were asked for")
                net.guest.must("talk prepare 8")
                said, cost = vdpa.cost_of(backend, lambda: net.talk(8))
                tap.matches(said, "talk: whole", f"{title}{round_}: data is whole")
                tap.equal(cost, {"cpu_ns": 0, "switches": 0, "relayed": 0},
                          f"{title}{round_}: belfry-vdpa did nothing meanwhile")
                go_on = begin_anew if "packed=on" in options else stop_and_go
                go_on(tap, qemu, net, backend, f"{title}{round_}")
                net.talk_in_background(8)
                # The second time without a good-bye.
                qemu.process.kill()
            lab.wait_until(lambda: backend.stats()["device"]["state"] == "idle", "the device at rest")
        backend.process.terminate()
        tap.equal(backend.ends(10), 0, f"{title}: belfry-vdpa ends with 0")


def stop_and_go(tap, qemu, net, backend, title):
    """QEMU takes the queues back, asks where they stand, and starts them there."""
    net.talk_in_background(4, 2)
    qemu.monitor.call("stop")
    tap.equal(qemu.doorbell_pages(), {}, f"{title}: stopped by the monitor: the pages are gone")
    qemu.monitor.call("cont")
    tap.matches(net.hear_talk(), "talk: whole", f"{title}: continued: data is whole")


def begin_anew(tap, qemu, net, backend, title):
    """A device can be told where a split ring stands, a packed one only to begin: its driver has to."""
    qemu.monitor.call("stop")
    tap.equal(qemu.doorbell_pages(), {}, f"{title}: stopped by the monitor: the pages are gone")
    qemu.monitor.call("cont")
    lab.wait_until(lambda: "goes on with a packed ring" in backend.said(), "a sentence")
    net.driver("unbind")
    net.driver("bind")
    lab.wait_until(lambda: backend.doorbells()[:2] == ["mapped"] * 2, "doorbells")
    net.talk_up()
    tap.matches(net.talk(), "talk: whole", f"{title}: continued, reset by its driver: data is whole")


def without_pages(tap, path, work, kernel, initrd):
    title = "without page-per-vq"
    with vdpa.Vdpa(path, work) as backend, Qemu(work, kernel, initrd, backend.socket, "") as qemu:
        net = vdpa.Net(qemu, 1)
        net.up()
        lab.wait_until(lambda: backend.doorbells()[:2] == ["refused"] * 2, "refusal")
        tap.equal(qemu.doorbell_pages(), {}, f"{title}: 'info mtree' shows no page")
        tap.matches(backend.said(), "page-per-vq=on", f"{title}: belfry-vdpa says what to do")
        tap.equal(backend.said().count("relayed, not direct"), 1, f"{title}: once")
        vdpa.relayed(tap, backend, net, title)
        qemu.tell("poweroff -f")
        tap.equal(qemu.ends(30), 0, f"{title}: QEMU ends with 0")
        tap.equal(backend.ends(10), 0, f"{title}: belfry-vdpa ends with 0")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 300,
                       [f"--accelerator={kind}" for kind in ACCELERATORS], [vdpa.TALK])
    kernel, initrd = sys.argv[2:4]
    path = pathlib.Path(sys.argv[4]).resolve()
    tap = lab.Tap()
    with lab.folder() as work:
        with tap.part("page-per-vq=on"):
            with_pages(tap, path, work, kernel, initrd, 1, "")
        with tap.part("packed"):
            with_pages(tap, path, work, kernel, initrd, 2, ",packed=on")
        with tap.part("without page-per-vq"):
            without_pages(tap, path, work, kernel, initrd)
    tap.equal(lab.left_over(path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
