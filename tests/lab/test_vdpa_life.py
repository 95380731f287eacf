#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Comings and goings of an accelerator's front end, back end, driver and device; what must not be left.

usage: test_vdpa_life.py BELFRY_VMM BELFRY_VDPA GUEST_TOOL
"""

import pathlib
import signal
import subprocess
import sys
import time

import lab
import vdpa

# The second one's doorbells are not a page apart. The third has packed rings.
ACCELERATORS = ["net", "net,page-per-vq=off", "net,packed=on"]
CYCLES = 200


class Case:
    def __init__(self, tap, kernel, initrd, vmm, vdpa_path, work):
        self.tap, self.vmm_path, self.vdpa_path = tap, vmm, vdpa_path
        self.kernel, self.initrd, self.work = kernel, initrd, work

    def vdpa(self, number=1, arguments=("--one-off",), name="vdpa"):
        return vdpa.Vdpa(self.vdpa_path, self.work, number, arguments, name)

    def guest(self, backend, options="", name="vmm"):
        return lab.Guest(self.vmm_path, self.work, self.kernel, self.initrd,
                         [f"net,socket={backend.socket}{options}"], name=name)


def idle(stats):
    return stats["device"]["state"] == "idle" and stats["dma"] == {"mappings": 0, "bytes": 0}


def front_end_killed(case):
    """Under traffic. The next one finds the device as new, and nothing pinned is left of the first."""
    tap = case.tap
    with case.vdpa(arguments=()) as backend:
        at_rest = backend.held()
        for round_ in ("first", "second"):
            with case.guest(backend, name=f"vmm-{round_}") as guest:
                net = vdpa.Net(guest, 1)
                net.up()
                net.wait_mapped()
                tap.matches(net.talk(), "talk: whole", f"{round_} front end: data is whole")
                tap.ok(backend.held()["VmPin"] >= 192 << 10 or
                       backend.stats()["dma"]["bytes"] >= 192 << 20, "guest memory is pinned",
                       (backend.held(), backend.stats()["dma"]))
                net.talk_in_background(16)
                time.sleep(1)
                guest.process.kill()
                guest.process.wait()
            lab.wait_until(lambda: idle(backend.stats()), "the device at rest, DMA unmapped")
            tap.equal(backend.held(), at_rest, f"{round_} front end killed: nothing of it is left")
        backend.process.terminate()
        tap.equal(backend.ends(10), 0, "belfry-vdpa ends with 0 on SIGTERM")


def goes_direct(tap, backend, net, before):
    """A device can only begin a ring at index 0, so belfry-vdpa takes part until the guest's comes round to it."""
    queues = backend.stats()["queues"]
    tap.ok(all(queue["mediated"] for queue in queues), "it goes on where the rings stand", queues)
    for _ in range(12):
        if all(net.mapped()):
            break
        tap.matches(net.talk(16), "talk: whole", "data is whole meanwhile")
    tap.equal([queue["doorbells_mapped"] for queue in net.queues()],
              [queue["doorbells_mapped"] + 1 for queue in before],
              "after at most 65,536 buffers: doorbells registered anew")
    vdpa.direct(tap, backend, net, "after that")


def back_end_killed(case):
    """The guest sees its link go down and up; traffic goes on where the rings stand."""
    tap = case.tap
    backend = case.vdpa()
    with case.guest(backend) as guest:
        net = vdpa.Net(guest, 1)
        with backend:
            net.up()
            net.wait_mapped()
            before = net.queues()
            tap.matches(net.talk(), "talk: whole", "data is whole")
            net.talk_in_background(8, 2)
            time.sleep(1)
            backend.process.kill()
            backend.process.wait()
        tap.equal(net.mapped(), [False, False], "killed: doorbells withdrawn")
        lab.wait_until(lambda: net.carrier() == "0", "link down in the guest")
        tap.ok(True, "killed: the link goes down in the guest")
        backend.socket.unlink(missing_ok=True)
        with case.vdpa(name="vdpa2") as second:
            second.socket.rename(backend.socket)
            lab.wait_until(lambda: net.carrier() == "1", "link up in the guest")
            tap.ok(True, "restarted: the link comes up in the guest")
            tap.equal(guest.stats()["devices"][0]["reconnections"], 1, "one reconnection")
            net.end_talk()
            tap.matches(net.talk(), "talk: whole", "traffic resumes, data is whole")
            goes_direct(tap, second, net, before)
            guest.process.terminate()
            tap.equal(guest.ends(10), 0, "the VMM ends with 0 on SIGTERM")


def back_end_killed_packed(case):
    """Where a packed ring stands is in nobody's memory but the dead one's: the driver has to begin anew."""
    tap = case.tap
    backend = case.vdpa(3)
    with case.guest(backend) as guest:
        net = vdpa.Net(guest, 3)
        with backend:
            net.up()
            net.wait_mapped()
            tap.matches(net.talk(), "talk: whole", "packed: data is whole")
            backend.process.kill()
            backend.process.wait()
        backend.socket.unlink(missing_ok=True)
        with case.vdpa(3, name="vdpa2") as second:
            second.socket.rename(backend.socket)
            lab.wait_until(lambda: guest.stats()["devices"][0]["connected"], "reconnection")
            tap.matches(guest.said(), "packed|reset", "packed: the VMM says that the guest must reset")
            net.driver("unbind")
            net.driver("bind")
            net.wait_mapped("doorbells after the driver's reset")
            net.talk_up()
            tap.matches(net.talk(), "talk: whole", "packed: after a reset by the driver data is whole")
            vdpa.ends_well(tap, guest, second, "packed")


def cycles(case):
    """The device is started and stopped, and holds what it held at first."""
    tap = case.tap
    with case.vdpa() as backend, case.guest(backend) as guest:
        net = vdpa.Net(guest, 1)
        net.up()
        for _ in range(2):
            net.driver("unbind")
            net.driver("bind")
        net.wait_mapped()
        start, held = backend.stats(), backend.held()
        vmm = len(list(pathlib.Path(f"/proc/{guest.process.pid}/fd").iterdir()))
        path = "/sys/bus/virtio/drivers/virtio_net"
        guest.must(f"for i in $(seq {CYCLES}); do echo virtio0 >{path}/unbind;"
                   f" echo virtio0 >{path}/bind; done", 300)
        net.wait_mapped()
        after = backend.stats()
        tap.equal(after["starts"] - start["starts"], CYCLES, f"{CYCLES} starts and stops")
        tap.equal(backend.held(), held, "no descriptor, mapping, thread or pinned page is left")
        tap.equal(after["dma"], start["dma"], "as many DMA mappings as at first")
        tap.equal(len(list(pathlib.Path(f"/proc/{guest.process.pid}/fd").iterdir())), vmm,
                  "the VMM holds no descriptor more")
        net.talk_up()
        tap.matches(net.talk(), "talk: whole", "data is whole after all of them")
        vdpa.ends_well(tap, guest, backend, "after cycles")


def too_close(case):
    """Doorbells that are not a page apart cannot be given away."""
    tap = case.tap
    with case.vdpa(2) as backend, case.guest(backend) as guest:
        net = vdpa.Net(guest, 2)
        net.up()
        vdpa.relayed(tap, backend, net, "page-per-vq=off")
        tap.equal(net.mapped(), [False, False], "page-per-vq=off: no doorbell is mapped")
        tap.equal(backend.said().count("relayed"), 1, "page-per-vq=off: which is said once")
        vdpa.ends_well(tap, guest, backend, "page-per-vq=off")


def device_requested(case):
    """Somebody unbinds the device from vfio-pci: service ends, and the kernel does not wait for long."""
    tap = case.tap
    driver = pathlib.Path("/sys/bus/pci/drivers/vfio-pci")
    backend = case.vdpa()
    with case.guest(backend) as guest:
        net = vdpa.Net(guest, 1)
        with backend:
            net.up()
            net.wait_mapped()
            with subprocess.Popen(["sh", "-c", f"echo {vdpa.bdf(1)} >{driver}/unbind"]) as unbind:
                tap.equal(backend.ends(20), 0, "VFIO asks for the device: belfry-vdpa ends with 0")
                tap.equal(unbind.wait(20), 0, "and the device is free")
        tap.matches(backend.said(), "wants .* back", "it says why")
        lab.wait_until(lambda: net.carrier() == "0", "link down in the guest")
        (driver / "bind").write_text(vdpa.bdf(1))
        with case.vdpa(name="vdpa2") as second:
            second.socket.rename(backend.socket)
            lab.wait_until(lambda: net.carrier() == "1", "link up in the guest")
            net.wait_mapped("doorbells anew")
            tap.matches(net.talk(), "talk: whole", "bound again: data is whole")
            vdpa.ends_well(tap, guest, second, "bound again")


def told_to_end(case):
    """SIGTERM and SIGINT under traffic; the guest lives."""
    tap = case.tap
    for number in (signal.SIGTERM, signal.SIGINT):
        backend = case.vdpa()
        with case.guest(backend) as guest, backend:
            net = vdpa.Net(guest, 1)
            net.up()
            net.talk_in_background(16)
            time.sleep(1)
            backend.process.send_signal(number)
            tap.equal(backend.ends(10), 0, f"{number.name} under traffic: belfry-vdpa ends with 0")
            tap.ok(not backend.socket.exists(), f"{number.name}: no socket is left")
            lab.wait_until(lambda: net.carrier() == "0", "link down")
            guest.tell("poweroff -f")
            tap.equal(guest.ends(20), 0, f"{number.name}: the guest can power off without back end")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 480,
                       [f"--accelerator={kind}" for kind in ACCELERATORS], [vdpa.TALK, sys.argv[3]])
    kernel, initrd = sys.argv[2:4]
    vmm, path = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    only = sys.argv[7:]  # by hand: the tests to run
    tap = lab.Tap()
    with lab.folder() as work:
        case = Case(tap, kernel, initrd, vmm, path, work)
        for test in (front_end_killed, back_end_killed, back_end_killed_packed, cycles, too_close,
                     device_requested, told_to_end):
            if not only or test.__name__ in only:
                print(f"# {test.__name__}", flush=True)
                with tap.part(test.__name__):
                    test(case)
    tap.equal(lab.left_over(vmm, path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
