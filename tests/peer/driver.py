#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Our driver library with qemu-storage-daemon's export, and with belfry-blk both ways.

driver.py DRIVER_BLK BELFRY_BLK: the driver copies the first half of the disk onto the second; here
the halves are compared.
"""

import re
import sys

from peer import MIB, Blk, Program, StorageDaemon, main, make_image, sha256

NR_QUEUES = 4
SIZE = 16 * MIB
LIMIT_S = 120


def drive(run, socket, image, notify, title):
    """The driver's results become ours."""
    driver = Program(run, f"driver-{notify}", [
        sys.argv[1], "--socket", socket, "--sectors", SIZE // 512, "--queues", NR_QUEUES,
        "--notify", notify])
    status = driver.wait(LIMIT_S)
    run.adopt(driver.said(), f"{title}: ")
    run.equal(status, 0, f"{title}: the driver ends well")
    half = SIZE // 2
    run.equal(image.stat().st_size, SIZE, f"{title}: the image is as long as it was")
    run.equal(sha256(image, half, half), sha256(image, 0, half),
              f"{title}: the second half of the image is the first")
    rung = re.findall(r"^# queue \d+: (\d+) doorbells", driver.said(), re.MULTILINE)
    return [int(number) for number in rung]


def storage_daemon(run):
    image = make_image(run.folder / "daemon.img", SIZE, SIZE // 2)
    before = sha256(image, 0, SIZE // 2)
    daemon = StorageDaemon(run, image, NR_QUEUES)
    drive(run, daemon.socket, image, "eventfd", "qemu-storage-daemon")
    run.equal(sha256(image, 0, SIZE // 2), before,
              "qemu-storage-daemon: the first half is as it was")
    run.ok(daemon.terminate(), "qemu-storage-daemon ends well")


def belfry_blk(run, notify):
    image = make_image(run.folder / f"{notify}.img", SIZE, SIZE // 2)
    before = sha256(image, 0, SIZE // 2)
    blk = Blk(run, sys.argv[2], image, notify, NR_QUEUES)
    title = f"belfry-blk by {notify}"
    rung = drive(run, blk.socket, image, notify, title)
    run.equal(sha256(image, 0, SIZE // 2), before, f"{title}: the first half is as it was")
    stats = blk.stats()
    heard = [queue["doorbells"] for queue in stats["queues"]]
    # Rings that come between two looks of the back end are heard as one.
    run.ok(len(rung) == NR_QUEUES and all(r // 2 <= h <= r for r, h in zip(rung, heard)),
           f"{title}: each queue heard its own doorbell", f"rung {rung}", f"heard {heard}")
    run.equal(blk.total("errors", stats), 0, f"{title}: belfry-blk found no error")
    run.ok(blk.terminate(), f"{title}: belfry-blk ends well and removes its socket")


def test(run):
    storage_daemon(run)
    for notify in ("eventfd", "doorbell"):
        belfry_blk(run, notify)


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-storage-daemon"]))
