#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The example back end gives a guest of QEMU's its random bytes.

qemu_rng.py BACKEND
"""

import sys

from peer import KIB, Failed, Program, guest_kernel, main, wait_until
from qemu import Qemu

SIZE = 256 * KIB


def test(run):
    kernel, initrd = guest_kernel(run)
    socket = run.folder / "rng.sock"
    backend = Program(run, "example", [sys.argv[1], socket])
    wait_until("the example's socket", socket.exists)
    qemu = Qemu(run, kernel, initrd, [[
        "-chardev", f"socket,id=rng,path={socket}", "-device", "vhost-user-rng-pci,chardev=rng"]])
    guest = qemu.guest
    guest.wait_ready()
    run.equal(guest.run("cat /sys/class/misc/hw_random/rng_current").strip(), "virtio_rng.0",
              "the guest has a random number generator of virtio's")
    sums = [guest.sha256_of(f"dd if=/dev/hwrng bs=4096 count={SIZE // 4096} 2>/dev/null | tee /bytes")
            for _ in range(2)]
    run.ok(sums[0] != sums[1], f"it reads {SIZE // KIB} KiB from it, and others the next time")
    run.equal(int(guest.run("wc -c </bytes")), SIZE, "as many as it asked for")
    packed = int(guest.run("gzip -c </bytes | wc -c"))
    run.ok(packed >= SIZE, "gzip finds no pattern in them", f"{packed} of {SIZE} bytes are left")
    if not qemu.quit():
        raise Failed("QEMU did not end well")
    run.equal(qemu.said(), "", "QEMU had nothing to complain of")
    run.ok(backend.alive() and not backend.said(), "the example had nothing to complain of",
           backend.said())


if __name__ == "__main__":
    sys.exit(main(test, ["qemu-system-x86_64"]))
