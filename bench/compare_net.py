# SPDX-License-Identifier: BSD-3-Clause
"""64-byte packets: belfry-net beside DPDK's net_vhost, testpmd's virtio_user as the driver of both.

One core drives, the other serves. Every measurement starts a driver of its own; the rate is what the driver
counts.
"""

import pathlib
import re
import statistics
import time

from peer import Backend, Failed
from testpmd import Testpmd, huge_pages, virtio_user

# belfry-net's port: testpmd's mode as back end, as driver, what the driver counts, how it starts
MODES = {
    "loopback": ("io", "io", "Rx-pps", "start tx_first 8"),
    "sink": ("rxonly", "txonly", "Tx-pps", "start"),
    "drop": ("rxonly", "txonly", "Tx-pps", "start"),
}
# Ports that stand beside the same mode of the peer's.
GROUPS = (("loopback",), ("sink", "drop"))
RINGS = {"split": 0, "packed": 1}
DRIVER_OPTIONS = "queues=1,queue_size=256,in_order=1,mrg_rxbuf=0,packed_vq={}"
PACKET = 64


class Net(Backend):
    """On the same core as testpmd's forwarding as a back end."""

    def __init__(self, run, build, port):
        self.socket = run.folder / f"net{len(run.programs)}.sock"
        super().__init__(run, "belfry-net", [
            "taskset", "-c", "1", pathlib.Path(build) / "devices/net/belfry-net",
            f"--socket-path={self.socket}", f"--{port}", "--notify=poll", "--log-level=warn"])


def prepare(testpmd, mode):
    testpmd.tell(f"set fwd {mode}", "packet forwarding mode")
    testpmd.tell(f"set txpkts {PACKET}")


def packets_per_second(testpmd, counter, seconds):
    """testpmd counts from one question to the next."""
    last = r"Tx-pps: +\d+"
    testpmd.tell("show port stats all", last)
    time.sleep(seconds)
    said = testpmd.tell("show port stats all", last)
    return int(re.search(counter + r": +(\d+)", said)[1])


def drive(run, path, mode, ring, seconds, huge):
    _, mine, counter, start = MODES[mode]
    driver = Testpmd(run, [virtio_user(0, path, DRIVER_OPTIONS.format(RINGS[ring]))], "loop",
                     main_core=1, huge=huge)
    prepare(driver, mine)
    driver.tell(start, "packet forwarding")
    time.sleep(0.4)
    rate = packets_per_second(driver, counter, seconds)
    driver.stop()
    driver.quit()
    if not rate:
        raise Failed(f"no packets in {mode}, {ring}")
    return rate


def their_round(run, mode, ring, seconds, huge):
    path = run.folder / f"vhost{len(run.programs)}.sock"
    backend = Testpmd(run, [f"net_vhost0,iface={path},queues=1"], "loop", descriptors=1024,
                      main_core=0, huge=huge)
    prepare(backend, MODES[mode][0])
    backend.tell("start", "packet forwarding")
    rate = drive(run, path, mode, ring, seconds, huge)
    backend.stop()
    backend.quit()
    return rate


def measure(run, build, quick):
    rounds, seconds = (1, 0.5) if quick else (5, 1.2)
    huge = huge_pages()
    print("  net: the driver's memory is in", "huge pages" if huge else "pages of 4 KiB", flush=True)
    rows = []
    for ports in GROUPS:
        ours = {port: Net(run, build, port) for port in ports}
        for ring in RINGS:
            results = {who: [] for who in ("peer", *ports)}
            for _ in range(rounds):
                results["peer"].append(their_round(run, ports[0], ring, seconds, huge) / 1e6)
                for port, net in ours.items():
                    results[port].append(drive(run, net.socket, port, ring, seconds, huge) / 1e6)
            their = statistics.median(results["peer"])
            for port in ports:
                our = statistics.median(results[port])
                rows.append({"name": f"net, {port}, {ring}", "ours": round(our, 3),
                             "peer": round(their, 3), "ratio": round(our / their, 3),
                             "unit": "Mpps", "higher_is_better": True})
        for net in ours.values():
            net.terminate()
    return rows
