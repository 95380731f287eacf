# SPDX-License-Identifier: BSD-3-Clause
"""What a guest does with its disk in every test: reads what is ours, writes, rings."""

from peer import KIB, MIB, make_image, sha256

SIZE = 8 * MIB
GIVEN = 4 * MIB  # the guest reads this
WRITTEN = 1 * MIB  # each CPU writes as much behind it
NR_RINGS = 256  # requests of 4 KiB, one at a time


def image(run, name="disk.img"):
    return make_image(run.folder / name, SIZE, GIVEN)


def dd(bs, count, more):
    return f"dd bs={bs} count={count} {more} 2>/dev/null"


def read(run, guest, path, title):
    """The guest's sum of what it read against ours."""
    found = guest.sha256_of(dd(64 * KIB, GIVEN // (64 * KIB), "if=/dev/vda iflag=direct"))
    run.equal(found, sha256(path, 0, GIVEN), f"{title}: the guest reads what is in the image")


def write(run, guest, path, title, nr_cpus=2):
    """Each CPU, and so each queue, writes random bytes of the guest's own; flushed at the end."""
    for cpu in range(nr_cpus):
        guest.run(dd(64 * KIB, WRITTEN // (64 * KIB), "if=/dev/urandom of=/data"))
        sum_of_guest = guest.sha256_of("cat /data")
        offset = GIVEN + cpu * WRITTEN
        guest.run(f"taskset {1 << cpu:x} " + dd(
            64 * KIB, WRITTEN // (64 * KIB), f"if=/data of=/dev/vda seek={offset // (64 * KIB)}"
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
