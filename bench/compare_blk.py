# SPDX-License-Identifier: BSD-3-Clause
"""Random reads of 4 KiB: belfry-blk beside qemu-storage-daemon's export, the same driver for both."""

import json
import os
import pathlib
import statistics
import subprocess

from peer import MIB, Backend, Failed, StorageDaemon

SIZE = 256 * MIB
DEPTHS = (1, 32, 128)
WAYS = ("eventfd", "doorbell", "poll")
DRIVER_CPU, BACKEND_CPU = "0", "1"
PIN = ("taskset", "-c", BACKEND_CPU)


class Blk(Backend):
    def __init__(self, run, program, notify, *disk):
        self.socket = run.folder / f"blk{len(run.programs)}.sock"
        super().__init__(run, "belfry-blk", [*PIN, program, f"--socket-path={self.socket}", *disk,
                                             f"--notify={notify}", "--queue-size=1024",
                                             "--log-level=warn"])


def load(build, backend, depth, seconds, doorbell):
    """Requests a second."""
    done = subprocess.run(
        ["taskset", "-c", DRIVER_CPU, build / "bench/bench-blk-load", "--socket", backend.socket,
         "--depth", str(depth), "--size", str(SIZE), "--seconds", str(seconds)]
        + (["--doorbell"] if doorbell else []),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed(f"bench-blk-load at {backend.name}: {done.stderr}{backend.said()}")
    iops = json.loads(done.stdout)["iops"]
    if not iops:
        raise Failed(f"{backend.name} served nothing: is the machine busy?")
    return iops


def image(run):
    path = run.folder / "bench.img"
    with open(path, "wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    os.sync()  # nothing is written back while it is read
    return path


def open_target(run, build, target, path):
    """Their export first, then ours in each way. Who is not connected sleeps."""
    program = pathlib.Path(build) / "devices/blk/belfry-blk"
    if target == "null":
        blockdev, disk = f"driver=null-co,size={SIZE},read-zeroes=off", (f"--null={SIZE}",)
    else:
        # All read the same file at the same time.
        blockdev = "driver=file,aio=io_uring,locking=off,filename={}"
        disk = (f"--blk-file={path}", "--read-only")
    return (StorageDaemon(run, path, 1, blockdev, PIN),
            {way: Blk(run, program, way, *disk) for way in WAYS})


def measure(run, build, quick):
    rounds, seconds = (1, 0.2) if quick else (3, 0.5)
    rows, path = [], image(run)
    for target in ("null", "file"):
        peer, ours = open_target(run, build, target, path)
        for depth in DEPTHS:
            results = {way: [] for way in ("peer", *WAYS)}
            for _ in range(rounds):
                results["peer"].append(load(build, peer, depth, seconds, False))
                for way, backend in ours.items():
                    results[way].append(load(build, backend, depth, seconds, way == "doorbell"))
            theirs = statistics.median(results["peer"])
            for way in WAYS:
                iops = statistics.median(results[way])
                rows.append({"name": f"blk, {target}, depth {depth}, {way}", "ours": round(iops),
                             "peer": round(theirs), "ratio": round(iops / theirs, 3),
                             "unit": "IOPS", "higher_is_better": True})
        for backend in (peer, *ours.values()):
            backend.terminate()
    return rows
