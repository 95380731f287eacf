# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of live migration share: back ends of two machines, QEMU's part, a guest that counts."""

import net
from peer import MIB, Blk, Failed, wait_until
from qemu import blk_device, net_device

SLOW, FAST = 1 * MIB, 400 * MIB  # bytes a second
KINDS = (("split", "/dev/vda", ""), ("packed", "/dev/vdb", ",packed=on"))
SHARED = "/dev/vdc"  # one image for both sides
# Or the guest's processor would write the pages of its cache before the device does, by zeroing them.
APPEND = " init_on_alloc=0"
COUNT_SECTOR = 8192  # of the shared disk: the guest counts there


class Side:
    """Back ends of one of the two machines: a disk of each kind, one that is shared, a network card.

    @io: of the disks, what --io is to say; @options: of all back ends.
    """

    def __init__(self, run, belfry_blk, belfry_net, number, images, io=(), options=()):
        self.blks = []
        for index, image in enumerate(images):
            more = [*options, *(["--locking=off"] if index == len(KINDS) else []),
                    *([f"--io={io[index]}"] if io else [])]
            self.blks.append(Blk(run, belfry_blk, image, "eventfd", options=more))
        tap = net.add_tap(number, address=False)
        net.ip(f"link set {tap} master br0")
        self.tap = tap
        self.net = net.Net(run, belfry_net, f"--tap={tap}", options=options)
        rings = [options for _, _, options in KINDS] + [""]
        self.devices = [blk_device(index, blk.socket, rings[index])
                        for index, blk in enumerate(self.blks)]
        self.devices.append(net_device(1, self.net.socket, ",guest_announce=off"))

        self.backends = [*self.blks, self.net]

    def no_errors(self, run, title):
        for backend in self.backends:
            run.equal(backend.total("errors"), 0, f"{title}: {backend.name} found no error")

    def end(self, run, title):
        self.no_errors(run, title)
        self.terminate(run, title)

    def terminate(self, run, title):
        for backend in self.backends:
            run.ok(backend.terminate(), f"{title}: {backend.name} ends well")


def bridge():
    net.ip("link add br0 type bridge")
    net.ip("addr add 10.0.1.2/24 dev br0")
    net.ip("link set br0 up")


def count_up(guest):
    """Written again and again, each number after the other."""
    guest.run(f"{{ while [ ! -e /stop ]; do n=$((n + 1)); printf '%-512d' $n | dd of={SHARED} bs=512"
              f" seek={COUNT_SECTOR} oflag=direct conv=notrunc; echo $n >/counted; usleep 10000;"
              " done; touch /end.count; } >/dev/null 2>&1 &")


def counted(image):
    with open(image, "rb") as file:
        file.seek(COUNT_SECTOR * 512)
        return int(file.read(512).split()[0])


def wait_counting(image):
    """Returns how far it was."""
    written = counted(image)
    wait_until("the guest to write on", lambda: counted(image) > written)
    return written


def end_count(run, guest, image, title):
    """After touch /stop."""
    wait_until("the last number", lambda: "there" in guest.run("[ ! -e /end.count ] || echo there"))
    run.equal(counted(image), int(guest.run("cat /counted")), title)


def start_pace(guest):
    guest.run(f"nc 10.0.1.2 {net.PACED} </dev/null | sha256sum >/paced &")


def end_pace(run, guest, host):
    host.end_pace.set()
    wait_until("the sum of the connection", lambda: guest.run("cat /paced").strip())
    run.ok(host.paced.hexdigest() in guest.run("cat /paced"),
           f"one TCP connection through it all: {host.paced_bytes >> 10} KiB (sha256)")


def set_parameters(qemu, bandwidth, downtime_ms, **more):
    qemu.monitor.call("migrate-set-parameters", **{"max-bandwidth": bandwidth,
                                                   "downtime-limit": downtime_ms, **more})


def status(qemu):
    return qemu.monitor.call("query-migrate")


def wait_status(qemu, expected):
    def reached():
        found = status(qemu)
        if found["status"] == "failed":
            raise Failed(f"migration failed: {found.get('error-desc', '')}")
        return found["status"] == expected

    wait_until(f"migration '{expected}'", reached)
