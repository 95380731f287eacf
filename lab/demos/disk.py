# SPDX-License-Identifier: BSD-3-Clause
"""The disk: a guest copies it, once by ioeventfds and once by doorbells, and VM exits are counted."""

import hashlib
import os
import time

from common import Program, Progress, Vmm, end_all, kvm_difference, queue_sum, table, wait_for
from observe import NotifyExits

NAME = "disk"
GUEST = ["lab/guest/copy.sh"]
MODES = ("eventfd", "doorbell")


def half_sha256(image, second):
    size = image.stat().st_size // 2
    with open(image, "rb") as file:
        file.seek(size if second else 0)
        return hashlib.sha256(file.read(size)).hexdigest()


def copy(vmm, blk, mode, requests):
    """The measured part: counters at rest, the copy, counters at rest."""
    vmm.wait_line("guest: ready")
    time.sleep(0.5)
    before_vmm, before_blk = vmm.snapshot(), blk.snapshot()
    exits = NotifyExits([before_vmm["devices"][0]["queues"][0]["notify_gpa"]])
    try:
        copy_blocks(vmm, blk, mode, requests, before_blk)
        time.sleep(0.2)
        after_vmm, after_blk = vmm.snapshot(), blk.snapshot()
        return (before_vmm, after_vmm), (before_blk, after_blk), exits.count()
    finally:
        exits.end()


def copy_blocks(vmm, blk, mode, requests, before):
    """Start the copy and wait for its end; the guest hears nothing meanwhile."""
    vmm.tell("go")
    progress = Progress(mode, requests, "requests")
    while "guest: done" not in vmm.hear():
        time.sleep(0.5)
        progress.show(queue_sum(blk.snapshot(), "requests") - queue_sum(before, "requests"))
    progress.end()


def figures(vmm, blk, notify_exits, mode, sha256_ok):
    kvm = kvm_difference(*vmm)
    device = {name: queue_sum(blk[1], name) - queue_sum(blk[0], name)
              for name in ("requests", "kicks", "doorbells", "suppressed", "wakeups")}
    notifications = device["doorbells"] if mode == "doorbell" else device["kicks"]
    state = [queue["doorbell_mapped"] for device in vmm[1]["devices"] for queue in device["queues"]]
    return {
        "requests": device["requests"],
        "notifications": notifications,
        "vm_exits": kvm["exits"],
        "vm_exits_per_notification": (round(notify_exits / notifications, 4)
                                      if notifications else None),
        "backend_wakeups": device["wakeups"],
        "sha256_ok": sha256_ok,
    }, {"notify_exits": notify_exits, "kvm": kvm, "device": device, "doorbell_mapped": state}


def run(mode, folder, build, kernel, initrd, blocks):
    image, socket = folder / f"{mode}.img", folder / f"{mode}.sock"
    with open(image, "wb") as file:
        file.write(os.urandom(blocks * 4096))
        file.truncate(2 * blocks * 4096)
    expected = half_sha256(image, second=False)
    blk = vmm = None
    try:
        blk = Program(folder, f"blk-{mode}", [
            build / "devices/blk/belfry-blk", "--socket-path", socket, "--blk-file", image,
            "--notify", mode, "--one-off"])
        wait_for(socket, blk.process)
        vmm = Vmm(folder, f"vmm-{mode}", build, kernel, initrd,
                  f"blk,socket={socket},notify={'auto' if mode == 'doorbell' else mode}",
                  f"belfry.blocks={blocks}")
        of_vmm, of_blk, notify_exits = copy(vmm, blk, mode, 2 * blocks)
        vmm.power_off()
        blk.end(10)
        ok = half_sha256(image, second=True) == expected == half_sha256(image, second=False)
        return figures(of_vmm, of_blk, notify_exits, mode, ok)
    finally:
        end_all(vmm, blk)
        image.unlink(missing_ok=True)


def inside(folder, build, kernel, initrd, args):
    result = {"runs": {}, "detail": {}}
    for mode in MODES:
        result["runs"][mode], result["detail"][mode] = run(mode, folder, build, kernel, initrd,
                                                           args.blocks)
    return result


def lab_options():
    return []


def show(result):
    table({"eventfd": "ioeventfd", "doorbell": "doorbell"},
          [("requests (4 KiB, one at a time)", "requests"),
           ("notifications by the guest", "notifications"),
           ("VM exits for each notification", "vm_exits_per_notification"),
           ("VM exits, all reasons", "vm_exits"),
           ("wake-ups of the back end", "backend_wakeups"),
           ("data arrived whole (sha256)", "sha256_ok")], result["runs"])


def verdict(result, args):
    eventfd, doorbell = (result["runs"][mode] for mode in MODES)
    requests = 2 * args.blocks
    wrong = []
    for mode in MODES:
        one = result["runs"][mode]
        if one["requests"] < requests:
            wrong.append(f"{mode}: {one['requests']} requests, at least {requests} expected")
        if not one["sha256_ok"]:
            wrong.append(f"{mode}: the copy differs from the original")
        if one["notifications"] < requests // 2:
            wrong.append(f"{mode}: fewer notifications than half of the requests")
    if eventfd["vm_exits_per_notification"] != 1:
        wrong.append("eventfd: one VM exit for each notification expected")
    if doorbell["vm_exits_per_notification"] != 0:
        wrong.append("doorbell: no VM exit for any notification expected")
    return wrong


def report(result, _mode):
    return {"runs": result["runs"]}
