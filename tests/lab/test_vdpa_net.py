#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A network accelerator of the lab given to a stock kernel by belfry-vdpa and belfry-vmm: split and packed rings, one and two
queue pairs, and the doorbells that could be left behind.

usage: test_vdpa_net.py BELFRY_VMM BELFRY_VDPA GUEST_TOOL
"""

import pathlib
import sys
import time

import lab
import vdpa
from observe import DeviceTrace

SLOT = "0000:00:01.0"  # in the guest
# By number, from 1; without ioeventfd the device's trace counts stores.
ACCELERATORS = ["net,ioeventfd=off", "net,packed=on,ioeventfd=off"]
TWO_PAIRS = ["net,queues=2,ioeventfd=off", "net,queues=2,packed=on,ioeventfd=off"]


class Case:
    def __init__(self, tap, kernel, initrd, vmm, vdpa_path, work):
        self.tap, self.vmm_path, self.vdpa_path = tap, vmm, vdpa_path
        self.kernel, self.initrd, self.work = kernel, initrd, work
        self.trace = DeviceTrace()

    def vdpa(self, number):
        return vdpa.Vdpa(self.vdpa_path, self.work, number)

    def guest(self, backend, queues=1, notify="auto"):
        device = f"net,socket={backend.socket},queues={queues},notify={notify}"
        return lab.Guest(self.vmm_path, self.work, self.kernel, self.initrd, [device], queues)

    def rung(self, action, nr_queues=2):
        """How often the device was notified meanwhile, by queue."""
        before = self.trace.queues()
        action()
        time.sleep(0.5)
        after = self.trace.queues()
        return [after.get(queue, 0) - before.get(queue, 0) for queue in range(nr_queues)]


def boots(case, backend, net, packed):
    tap = case.tap
    net.up()
    net.wait_mapped()
    tap.equal(net.has_feature(vdpa.PACKED), packed, f"the rings are {'packed' if packed else 'split'}")
    tap.equal([queue["doorbell_reason"] for queue in net.queues()], [""] * net.nr_queues,
              "all doorbells are mapped, and no reason says otherwise")
    tap.equal(net.carrier(), "1", "the link is up")


def direct(case, backend, net):
    vdpa.direct(case.tap, backend, net, "direct")
    said, _ = vdpa.cost_of(backend, lambda: net.guest.must("grep virtio0 /proc/interrupts"))
    case.tap.matches(said, r"virtio0-input\.0", "the guest has an interrupt for each queue")


def stop(case, backend, net):
    vdpa.survives_stop(case.tap, backend, net, "SIGSTOP")


def ways_to_notify(case, backend, net):
    """By the PCI configuration window, with the page mapped and without; by a store, without."""
    tap, guest = case.tap, net.guest
    tap.equal(case.rung(lambda: guest.must(f"guest-tool window {SLOT} 1 10")), [0, 10],
              "the configuration window rings the mapped doorbell")
    pci = "/sys/bus/pci/drivers/virtio-pci"
    guest.must(f"echo {SLOT} >{pci}/unbind")
    lab.wait_until(lambda: not any(net.mapped()), "withdrawal")
    tap.equal(case.rung(lambda: guest.must(f"guest-tool window {SLOT} 1 10")), [0, 0],
              "after a reset the window rings nothing")
    tap.equal(case.rung(lambda: guest.must(f"guest-tool store {SLOT} 1 10")), [0, 0],
              "nor does a store to where the doorbell was")
    guest.must(f"echo {SLOT} >{pci}/bind")
    net.wait_mapped("doorbells after bind")
    net.talk_up()
    tap.matches(net.talk(), "talk: whole", "the driver comes back: data is whole")


def queue_reset(case, backend, net):
    """The driver changes the size of its rings: VIRTIO_F_RING_RESET, a queue at a time."""
    tap, before = case.tap, net.queues()
    said = net.guest.must("guest-tool rings eth0 64")
    tap.matches(said, r"rings: \d+ \d+ of \d+", "the driver resets its queues one by one")
    net.wait_mapped("doorbells after the queues' reset")
    after = net.queues()
    tap.equal([queue["size"] for queue in after], [64] * net.nr_queues, "with another size")
    tap.equal([queue["doorbells_withdrawn"] for queue in after],
              [queue["doorbells_withdrawn"] + 1 for queue in before], "each doorbell was withdrawn")
    tap.equal([queue["doorbells_mapped"] for queue in after],
              [queue["doorbells_mapped"] + 1 for queue in before], "and registered anew")
    tap.matches(net.talk(), "talk: whole", "data is whole with the new rings")


def unbind_under_traffic(case, backend, net):
    tap = case.tap
    before = net.queues()
    for _ in range(3):
        net.talk_in_background(16)
        time.sleep(1)
        net.driver("unbind")
        net.end_talk()
        net.driver("bind")
        net.talk_up()
    net.wait_mapped("doorbells after bind")
    tap.equal([queue["doorbells_mapped"] for queue in net.queues()],
              [queue["doorbells_mapped"] + 3 for queue in before],
              "three resets under traffic: doorbells registered anew each time")
    tap.matches(net.talk(), "talk: whole", "and data is whole")


def set_memory(net, on):
    path = f"/sys/bus/pci/devices/{SLOT}/config"
    old = int(net.guest.must(f"hexdump -s 4 -n 1 -e '1/1 \"%d\"' {path}"))
    new = old | 2 if on else old & ~2
    net.guest.must(f"printf '\\x{new:02x}' | dd of={path} bs=1 seek=4 conv=notrunc 2>/dev/null")


def withdrawn(case, net, before, what):
    tap, queues = case.tap, net.queues()
    tap.equal([queue["doorbell_mapped"] for queue in queues], [False] * net.nr_queues,
              f"{what}: doorbells withdrawn")
    tap.ok(all(queue["doorbell_reason"] for queue in queues), f"{what}: with a reason", queues)
    tap.equal([queue["doorbells_withdrawn"] for queue in queues],
              [queue["doorbells_withdrawn"] + 1 for queue in before], f"{what}: each once")


def comes_back_by_relay(case, backend, net, what):
    vdpa.relayed(case.tap, backend, net, what)
    case.tap.equal(net.mapped(), [False] * net.nr_queues, f"{what}: no page came back by itself")
    net.driver("unbind")
    net.driver("bind")
    net.wait_mapped("doorbells after bind")
    net.talk_up()


def bar_disabled(case, backend, net):
    """Memory decoding off and on again, under a driver that does not know."""
    before = net.queues()
    set_memory(net, False)
    withdrawn(case, net, before, "memory decoding off")
    set_memory(net, True)
    comes_back_by_relay(case, backend, net, "memory decoding on again")


def bar_moved(case, backend, net):
    """The BAR elsewhere and back, under a driver that does not know."""
    before, offset = net.queues(), 0x1000000
    net.guest.must(f"guest-tool move {SLOT} {offset}")
    withdrawn(case, net, before, "BAR moved")
    case.tap.equal([queue["notify_gpa"] for queue in net.queues()],
                   [queue["notify_gpa"] + offset for queue in before], "it is where it was put")
    net.guest.must(f"guest-tool move {SLOT} -{offset}")
    comes_back_by_relay(case, backend, net, "BAR moved back")


def reboots(case, backend, net):
    """At rest: Linux 6.1 breaks its queues at shutdown, and then may poll a busy one for ever."""
    tap, before = case.tap, net.queues()
    net.guest.tell("reboot -f -n")
    net.up()
    tap.equal(net.guest.stats()["start"]["resets"], 1, "the guest reboots in the same VMM")
    net.wait_mapped("doorbells after the reboot")
    tap.equal([queue["doorbells_mapped"] for queue in net.queues()],
              [queue["doorbells_mapped"] + 1 for queue in before], "doorbells registered anew")
    tap.matches(net.talk(), "talk: whole", "data is whole after the reboot")


def interrupts(net):
    said = net.guest.must("grep virtio0- /proc/interrupts")
    found = {}
    for line in said.splitlines():
        word = line.split()
        if len(word) > 3 and word[-1].startswith("virtio0-"):
            found[word[-1]] = sum(int(n) for n in word[1:] if n.isdigit())
    return found


def both_pairs(case, backend, net):
    """A processor sends by the pair of its own, and what is sent back comes by the same pair."""
    tap = case.tap
    tap.equal(backend.stats()["pairs"], 2, "the device uses two queue pairs")
    for pair in range(2):
        before = interrupts(net)
        rung = case.rung(lambda: net.guest.must(  # pylint: disable=cell-var-from-loop
            f"taskset {1 << pair} talk 4", 120), 4)
        after = interrupts(net)
        tap.ok(rung[2 * pair + 1] > rung[2 * (1 - pair) + 1],
               f"processor {pair} rings the doorbell of pair {pair}", rung)
        name = f"virtio0-input.{pair}"
        tap.ok(after[name] > before[name], f"pair {pair} interrupts the guest", (before, after))


def fewer_pairs(case, backend, net):
    tap = case.tap
    for pairs in (1, 2):
        net.guest.must(f"guest-tool pairs eth0 {pairs}")
        tap.equal(backend.stats()["pairs"], pairs, f"the guest wants {pairs} of 2: so does the device")
        tap.matches(net.talk(), "talk: whole", f"data is whole with {pairs}")


# What ends under traffic leaves connections that are tried again and again: those come last.
ONE_PAIR = (direct, stop, ways_to_notify, queue_reset, bar_disabled, bar_moved, unbind_under_traffic,
            reboots)
PACKED = (direct, stop, queue_reset, bar_disabled, unbind_under_traffic, reboots)
PAIRS = (direct, both_pairs, fewer_pairs, queue_reset, unbind_under_traffic, reboots)


def life(case, number, parts, packed, pairs=1):
    with case.vdpa(number) as backend, case.guest(backend, pairs) as guest:
        net = vdpa.Net(guest, number, 2 * pairs)
        boots(case, backend, net, packed)
        for part in parts:
            with case.tap.part(part.__name__):
                part(case, backend, net)
        vdpa.ends_well(case.tap, guest, backend, "power-off")


def by_relay(case, number, pairs=1):
    with case.vdpa(number) as backend, case.guest(backend, pairs, "eventfd") as guest:
        net = vdpa.Net(guest, number, 2 * pairs)
        net.up()
        vdpa.relayed(case.tap, backend, net, "notify=eventfd")
        case.tap.equal(net.mapped(), [False] * net.nr_queues, "notify=eventfd: no doorbell is mapped")
        vdpa.ends_well(case.tap, guest, backend, "notify=eventfd")


def main():
    if sys.argv[1] != "--inside":
        kinds = ACCELERATORS + (TWO_PAIRS if vdpa.can_tap() else [])
        lab.run_in_lab(__file__, sys.argv[1:], 420,
                       [f"--accelerator={kind}" for kind in kinds] + vdpa.TRACE,
                       [vdpa.TALK, sys.argv[3]])
    kernel, initrd = sys.argv[2:4]
    vmm, path = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    only = sys.argv[7:]  # by hand: what to run, as below
    tap = lab.Tap()
    runs = {"split": lambda case: life(case, 1, ONE_PAIR, False),
            "packed": lambda case: life(case, 2, PACKED, True),
            "relay": lambda case: by_relay(case, 2),
            "split2": lambda case: life(case, 3, PAIRS, False, 2),
            "packed2": lambda case: life(case, 4, PAIRS, True, 2),
            "relay2": lambda case: by_relay(case, 3, 2)}
    with lab.folder() as work:
        case = Case(tap, kernel, initrd, vmm, path, work)
        for name, run in runs.items():
            if name.endswith("2") and not vdpa.is_there(3):
                tap.ok(True, f"{name} # SKIP two queue pairs need /dev/net/tun")
            elif not only or name in only:
                print(f"# {name}", flush=True)
                with tap.part(name):
                    run(case)
    tap.equal(lab.left_over(vmm, path), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
