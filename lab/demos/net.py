# SPDX-License-Identifier: BSD-3-Clause
"""The accelerator: data through it to the lab's network and back, by relay and by doorbells, and with the
back end stopped.

In doorbell mode no program of ours sees a notification: the device itself is asked, which here is the
lab's QEMU (its trace of virtio_queue_notify).
"""

import os
import re
import signal
import time

from common import Failed, Program, Progress, Vmm, end_all, kvm_difference, table, wait_for
from observe import DeviceTrace, NotifyExits, process_cost, process_state

NAME = "vdpa-net"
GUEST = ["lab/guest/net.sh", "lab/guest/talk"]
MODES = ("relay", "doorbell")
BDF = "0000:00:01.0"
DATA_QUEUES = 2
PIECE_MIB = 16
LIMIT_S = 240


class Transfer:
    """The guest sends and receives; it is asked how far it is over its console, which the device never sees."""

    def __init__(self, vmm, label, mib):
        self.vmm, self.bytes, self.label = vmm, mib << 20, label
        self.base = self.statistics()["rx_bytes"]

    def statistics(self):
        self.vmm.said = ""
        self.vmm.tell("?")
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            match = re.search(r"guest: rx_bytes (\d+) frames (\d+)\n", self.vmm.hear())
            if match:
                return {"rx_bytes": int(match[1]), "frames": int(match[2])}
            time.sleep(0.05)
        raise Failed("the guest does not answer")

    def run(self, mib_times, half_way=None):
        """True if all came back whole; @half_way is called once in the middle."""
        self.vmm.tell(f"go {mib_times}")
        progress = Progress(self.label, self.bytes >> 20, "MiB")
        deadline, said = time.monotonic() + LIMIT_S, ""
        while time.monotonic() < deadline:
            now = self.statistics()
            said += self.vmm.said
            moved = now["rx_bytes"] - self.base
            progress.show(min(moved, self.bytes) >> 20)
            if half_way and moved > self.bytes // 3:
                half_way()
                half_way = None
            if re.search("guest: (whole|broken)\n", said):
                progress.end()
                return "guest: whole\n" in said and half_way is None
            time.sleep(1)
        progress.end()
        return False


def measure(vmm, vdpa, trace, mode, pieces):
    """Counters at rest, the transfer, counters at rest. Asking the back end wakes it: before and after only."""
    before_vmm, before_vdpa = vmm.snapshot(), vdpa.snapshot()
    transfer = Transfer(vmm, mode, PIECE_MIB * pieces)
    frames = transfer.statistics()["frames"]
    pages = [queue["notify_gpa"] for queue in before_vmm["devices"][0]["queues"][:DATA_QUEUES]]
    exits = NotifyExits(pages)
    try:
        time.sleep(0.5)
        rung, cost = trace.count(DATA_QUEUES), process_cost(vdpa.process.pid)
        whole = transfer.run(f"{PIECE_MIB} {pieces}")
        after_cost = process_cost(vdpa.process.pid)
        time.sleep(0.5)
        rung = trace.count(DATA_QUEUES) - rung
        notify_exits = exits.count()
    finally:
        exits.end()
    frames = transfer.statistics()["frames"] - frames
    after_vmm, after_vdpa = vmm.snapshot(), vdpa.snapshot()
    return figures(mode, (before_vmm, after_vmm), (before_vdpa, after_vdpa), (cost, after_cost),
                   {"whole": whole, "frames": frames, "rung": rung, "notify_exits": notify_exits})


def figures(mode, vmm, vdpa, cost, seen):
    kvm = kvm_difference(*vmm)
    relayed = (sum(queue["relayed"] for queue in vdpa[1]["queues"][:DATA_QUEUES])
               - sum(queue["relayed"] for queue in vdpa[0]["queues"][:DATA_QUEUES]))
    notifications = relayed if mode == "relay" else seen["rung"]
    return {
        "requests": seen["frames"],
        "notifications": notifications,
        "vm_exits": kvm["exits"],
        "vm_exits_per_notification": (round(seen["notify_exits"] / notifications, 4)
                                      if notifications else None),
        "backend_wakeups": vdpa[1]["relay_wakeups"] - vdpa[0]["relay_wakeups"],
        "sha256_ok": seen["whole"],
        "backend_cpu_ms": round((cost[1]["cpu_ns"] - cost[0]["cpu_ns"]) / 1e6, 3),
        "backend_context_switches": cost[1]["switches"] - cost[0]["switches"],
    }, {"notify_exits": seen["notify_exits"], "kvm": kvm, "rung": seen["rung"], "relayed": relayed,
        "doorbell_mapped": [queue["doorbell_mapped"]
                            for queue in vmm[1]["devices"][0]["queues"][:DATA_QUEUES]]}


def survives_stop(vmm, vdpa, pieces):
    """The proof that a person remembers: the back end is stopped in the middle, and the transfer goes on."""
    pid = vdpa.process.pid
    transfer = Transfer(vmm, "stopped", PIECE_MIB * pieces)
    try:
        whole = transfer.run(f"{PIECE_MIB} {pieces}",
                             half_way=lambda: os.kill(pid, signal.SIGSTOP))
        return whole and process_state(pid) == "T"
    finally:
        os.kill(pid, signal.SIGCONT)


def run(mode, folder, build, kernel, initrd, pieces):
    socket = folder / f"{mode}.sock"
    trace = DeviceTrace()
    vdpa = vmm = survived = None
    try:
        vdpa = Program(folder, f"vdpa-{mode}", [
            build / "devices/vdpa/belfry-vdpa", "--device", BDF, "--socket-path", socket,
            "--one-off"])
        wait_for(socket, vdpa.process)
        vmm = Vmm(folder, f"vmm-{mode}", build, kernel, initrd,
                  f"net,socket={socket},notify={'auto' if mode == 'doorbell' else 'eventfd'}",
                  f"belfry.pieces={pieces}")
        vmm.wait_line("guest: ready")
        result, detail = measure(vmm, vdpa, trace, mode, pieces)
        if mode == "doorbell":
            survived = survives_stop(vmm, vdpa, max(pieces // 2, 1))
        vmm.power_off()
        vdpa.end(10)
        return result, detail, survived
    finally:
        end_all(vmm, vdpa)


def inside(folder, build, kernel, initrd, args):
    result = {"runs": {}, "detail": {}}
    for mode in MODES:
        (result["runs"][mode], result["detail"][mode],
         result["survives"]) = run(mode, folder, build, kernel, initrd, args.pieces)
    return result


def lab_options():
    return ["--accelerator=net,ioeventfd=off", *DeviceTrace.OPTIONS]


def show(result):
    table({"relay": "relay", "doorbell": "doorbell"},
          [("frames through the accelerator", "requests"),
           ("notifications by the guest", "notifications"),
           ("VM exits for each notification", "vm_exits_per_notification"),
           ("VM exits, all reasons", "vm_exits"),
           ("wake-ups of the back end", "backend_wakeups"),
           ("context switches of the back end", "backend_context_switches"),
           ("CPU time of the back end, ms", "backend_cpu_ms"),
           ("data came back whole (sha256)", "sha256_ok")], result["runs"])
    print(f"{'the same with the back end stopped':36}{'':12}"
          f"{'yes' if result['survives'] else 'NO':>12}", flush=True)


def verdict(result, _args):
    relay, doorbell = (result["runs"][mode] for mode in MODES)
    wrong = []
    for mode in MODES:
        if not result["runs"][mode]["sha256_ok"]:
            wrong.append(f"{mode}: the data did not come back whole")
        if not result["runs"][mode]["notifications"]:
            wrong.append(f"{mode}: no notification was seen")
    if relay["vm_exits_per_notification"] != 1:
        wrong.append("relay: one VM exit for each notification expected")
    for key in ("vm_exits_per_notification", "backend_context_switches", "backend_cpu_ms"):
        if doorbell[key] != 0:
            wrong.append(f"doorbell: {key} is {doorbell[key]}, 0 expected")
    if not result["survives"]:
        wrong.append("the transfer did not survive SIGSTOP of belfry-vdpa")
    return wrong


def report(result, _mode):
    return {NAME: result["runs"], "transfer_survives_sigstop": bool(result["survives"])}
