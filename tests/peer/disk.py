# SPDX-License-Identifier: BSD-3-Clause
"""What a guest does with its disk in every test: reads what is ours, writes, rings."""

from peer import KIB, MIB, ROOT, make_image, sha256, wait_until

SIZE = 8 * MIB
GIVEN = 4 * MIB  # the guest reads this
WRITTEN = 1 * MIB  # each CPU writes as much behind it
NR_RINGS = 256  # requests of 4 KiB, one at a time


def image(run, name="disk.img"):
    return make_image(run.folder / name, SIZE, GIVEN)


def dd(bs, count, more):
    return f"dd bs={bs} count={count} {more} 2>/dev/null"


def read(run, guest, path, title, device="/dev/vda"):
    """The guest's sum of what it read against ours."""
    found = guest.sha256_of(dd(64 * KIB, GIVEN // (64 * KIB), f"if={device} iflag=direct"))
    run.equal(found, sha256(path, 0, GIVEN), f"{title}: the guest reads what is in the image")


def write(run, guest, path, title, nr_cpus=2, device="/dev/vda"):
    """Each CPU, and so each queue, writes random bytes of the guest's own; flushed at the end."""
    for cpu in range(nr_cpus):
        guest.run(dd(64 * KIB, WRITTEN // (64 * KIB), "if=/dev/urandom of=/data"))
        sum_of_guest = guest.sha256_of("cat /data")
        offset = GIVEN + cpu * WRITTEN
        guest.run(f"taskset {1 << cpu:x} " + dd(
            64 * KIB, WRITTEN // (64 * KIB), f"if=/data of={device} seek={offset // (64 * KIB)}"
            " oflag=direct conv=notrunc,fsync"))
        run.equal(sha256(path, offset, WRITTEN), sum_of_guest,
                  f"{title}: what CPU {cpu} of the guest wrote is in the image")


def ring_from(guest, cpu):
    """Requests one at a time: each needs a notification of its own."""
    guest.run(f"taskset {1 << cpu:x} " + dd(4 * KIB, NR_RINGS,
                                            "if=/dev/vda of=/dev/null iflag=direct"))


def ring(guest, nr_cpus=2):
    for cpu in range(nr_cpus):
        ring_from(guest, cpu)


def difference(before, after, counter):
    """By queue."""
    return [a[counter] - b[counter] for a, b in zip(after["queues"], before["queues"])]


LOAD = ROOT / "tests/peer/guest_load.sh"
LOAD_SIZE = 2 * MIB


class Load:
    """guest_load.sh on a disk, in the background."""

    def __init__(self, run, guest, what, name, device, argument):
        self.run, self.guest, self.name = run, guest, name
        guest.run(f"{LOAD.name} {what} {name} {device} {argument} >/dev/null 2>&1 &")

    def rounds(self):
        return int(self.guest.run(f"cat /load.{self.name} 2>/dev/null || echo 0").split()[-1])

    def wait_rounds(self, number):
        """So many more; fails the test if the guest hangs."""
        start = self.rounds()
        wait_until(f"{number} rounds of load on {self.name}",
                   lambda: self.rounds() >= start + number, 60)

    def end(self):
        """After touch /stop."""
        wait_until(f"the end of the load on {self.name}", lambda: "there" in self.guest.run(
            f"[ ! -e /end.{self.name} ] || echo there"), 60)
        bad = self.guest.run(f"cat /bad.{self.name} 2>/dev/null || true").strip()
        self.run.equal(bad, "", f"{self.name}: under load nothing failed and nothing came back wrong")
