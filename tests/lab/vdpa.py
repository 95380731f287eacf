# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of belfry-vdpa share: the program at an accelerator of the lab, a network card in a guest,
and what both did in a transfer.

In the lab, accelerator N is 0000:00:0N.0, and its network 10.0.N.0/24 (lab/README.md).
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import lab

sys.path.insert(0, str(lab.ROOT / "lab/demos"))
# pylint: disable=wrong-import-position
from observe import DeviceTrace, process_cost, process_state  # noqa: E402

TALK = lab.ROOT / "lab/guest/talk"
PACKED = 34  # VIRTIO_F_RING_PACKED
TRACE = DeviceTrace.OPTIONS


def bdf(number):
    return f"0000:00:{number:02x}.0"


def can_tap():
    """Several queue pairs need a tap device in a name space: lab/accelerators."""
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    return os.access("/dev/net/tun", os.R_OK | os.W_OK) and subprocess.call(
        [*unshare, "true"], stderr=subprocess.DEVNULL) == 0


def is_there(number):
    return pathlib.Path("/sys/bus/pci/devices", bdf(number)).exists()


class Vdpa(lab.Program):
    """belfry-vdpa, listening."""

    def __init__(self, path, work, number=1, arguments=("--one-off",), name="vdpa", caps=()):
        self.socket = work / f"{name}.sock"
        self.socket.unlink(missing_ok=True)  # of one that was killed: it would look like readiness
        command = [*caps, path, "--device", bdf(number), "--socket-path", self.socket, *arguments]
        super().__init__(command[0], command[1:], work, name)
        try:
            lab.wait_until(lambda: self.socket.exists() or self.process.poll() is not None,
                           "its socket")
            if self.process.poll() is not None:
                raise lab.Failed(f"{name} ended with {self.process.returncode}: {self.said()}")
        except lab.Failed:
            self.__exit__()
            raise

    def doorbells(self):
        return [queue["doorbell"] for queue in self.stats()["queues"]]

    def relayed(self, stats=None):
        return sum(queue["relayed"] for queue in (stats or self.stats())["queues"])

    def held(self):
        """What a leak would make grow."""
        root = pathlib.Path(f"/proc/{self.process.pid}")
        status = (root / "status").read_text()
        return {"fds": len(list((root / "fd").iterdir())),
                "maps": len((root / "maps").read_text().splitlines()),
                "threads": len(list((root / "task").iterdir())),
                **{name: int(re.search(rf"{name}:\s*(\d+) kB", status)[1])
                   for name in ("VmPin", "VmLck")}}


class Net:
    """The network card of a guest that has talk and guest-tool."""

    def __init__(self, guest, number, nr_queues=2):
        self.guest, self.number, self.nr_queues = guest, number, nr_queues

    def up(self, seconds=60):
        self.guest.up(seconds)
        self.talk_up()

    def talk_up(self):
        self.guest.must(f"talk up {self.number}")

    def talk(self, mib=2, seconds=120):
        return self.guest.must(f"talk {mib}", seconds)

    def talk_in_background(self, mib, times=1):
        """Data is made first, so that what follows is traffic alone."""
        self.guest.must(f"talk prepare {mib} {times}")
        self.guest.must(f"setsid talk {mib} {times} >/tmp/said 2>&1 & talk=$!")

    def hear_talk(self, seconds=120):
        return self.guest.must("wait; cat /tmp/said", seconds)

    def end_talk(self):
        """In the middle, with all that it started."""
        self.guest.must("kill -9 -$talk; wait; true")

    def rx_bytes(self):
        return int(re.search(r"(\d+)", self.guest.must(
            "cat /sys/class/net/eth0/statistics/rx_bytes"))[1])

    def carrier(self):
        return self.guest.must("cat /sys/class/net/eth0/carrier").strip()

    def has_feature(self, bit):
        name = "/sys/class/net/eth0/device/features"
        return re.search(r"[01]{64}", self.guest.must(f"cat {name}"))[0][bit] == "1"

    def driver(self, what):
        """bind or unbind virtio_net, the first virtio device."""
        self.guest.must(f"echo virtio0 >/sys/bus/virtio/drivers/virtio_net/{what}", 60)

    def queues(self):
        """The data queues: the control queue is served in the VMM."""
        return self.guest.queues()[:self.nr_queues]

    def mapped(self):
        return [queue["doorbell_mapped"] for queue in self.queues()]

    def wait_mapped(self, what="doorbells of all queues"):
        lab.wait_until(lambda: all(self.mapped()), what, 30)


def cost_of(vdpa, action):
    """What @action returned, and what belfry-vdpa did meanwhile. It is at rest before and after."""
    before = vdpa.stats()
    time.sleep(0.5)
    cost = process_cost(vdpa.process.pid)
    result = action()
    after_cost = process_cost(vdpa.process.pid)
    after = vdpa.stats()
    return result, {"cpu_ns": after_cost["cpu_ns"] - cost["cpu_ns"],
                    "switches": after_cost["switches"] - cost["switches"],
                    "relayed": vdpa.relayed(after) - vdpa.relayed(before)}


def direct(tap, vdpa, net, title, mib=4):
    """Doorbells and interrupts without our process: it does nothing in a transfer."""
    net.wait_mapped()
    tap.equal(vdpa.doorbells()[:net.nr_queues], ["mapped"] * net.nr_queues,
              f"{title}: belfry-vdpa knows that all doorbells are mapped")
    net.guest.must(f"talk prepare {mib}")
    said, cost = cost_of(vdpa, lambda: net.talk(mib))
    tap.matches(said, "talk: whole", f"{title}: data there and back is whole (sha256)")
    tap.equal(cost, {"cpu_ns": 0, "switches": 0, "relayed": 0},
              f"{title}: belfry-vdpa did nothing meanwhile")


def relayed(tap, vdpa, net, title, mib=2):
    """Notifications by eventfd; interrupts are direct all the same."""
    said, cost = cost_of(vdpa, lambda: net.talk(mib))
    tap.matches(said, "talk: whole", f"{title}: data there and back is whole (sha256)")
    tap.ok(cost["relayed"] > 50, f"{title}: by relay", cost)


@contextlib.contextmanager
def stopped(vdpa):
    """SIGSTOP for the time of the block."""
    os.kill(vdpa.process.pid, signal.SIGSTOP)
    try:
        lab.wait_until(lambda: process_state(vdpa.process.pid) == "T", "SIGSTOP")
        yield
    finally:
        os.kill(vdpa.process.pid, signal.SIGCONT)


def survives_stop(tap, vdpa, net, title):
    net.talk_in_background(8, 2)
    start = net.rx_bytes()
    lab.wait_until(lambda: net.rx_bytes() > start + (2 << 20), "the transfer's beginning", 60)
    with stopped(vdpa):
        at = net.rx_bytes() - start
        said = net.hear_talk()
        tap.equal(process_state(vdpa.process.pid), "T", f"{title}: belfry-vdpa is stopped")
    tap.ok(at < 16 << 20, f"{title}: since the middle of the transfer", at)
    tap.matches(said, "talk: whole", f"{title}: which ended well without it (sha256)")


def ends_well(tap, guest, vdpa, title):
    guest.tell("poweroff -f")
    tap.equal(guest.ends(30), 0, f"{title}: the guest powers off, the VMM ends with 0")
    tap.equal(vdpa.ends(10), 0, f"{title}: belfry-vdpa ends with 0")
    tap.ok(not vdpa.socket.exists(), f"{title}: no socket is left")
