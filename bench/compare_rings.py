# SPDX-License-Identifier: BSD-3-Clause
"""What has no peer outside: rings alone, doorbells beside eventfds, and the price of safety."""

import json
import re
import subprocess

from peer import Failed

CALLGRIND_ROUNDS = 20


def output(*argv):
    try:
        return subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE, text=True,
                              check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"{argv[0]}: {error}") from None


def row(name, ours, peer, unit):
    return {"name": name, "ours": ours, "peer": peer, "ratio": round(ours / peer, 3) if peer else None,
            "unit": unit, "higher_is_better": False}


def measure(run, build, quick):  # pylint: disable=unused-argument
    rows = []
    for one in json.loads(output(build / "bench/bench-rings", "--json", "--rounds",
                                 2000 if quick else 20000)):
        rows.append(row(one["name"].replace("rings ", "rings, "), one["ours"], None, one["unit"]))
    said = json.loads(output(build / "bench/bench-doorbells", "--json"))
    scans = {(one["queues"], one["place"]): one["ns"] for one in said["scan"]}
    for queues in sorted({queues for queues, _ in scans}):
        rows.append(row(f"doorbells, scan of {queues}, beside all at offset 0",
                        scans[queues, "staggered"], scans[queues, "offset 0"], "ns each"))
    ways = {one["way"]: one for one in said["notification"]}
    doorbell = next(one for way, one in ways.items() if way.startswith("doorbell"))
    for way, one in ways.items():
        if one is not doorbell:
            for what, key in (("sender's cost", "sender_ns"), ("latency", "latency_ns")):
                rows.append(row(f"doorbells, {what}, beside {way.replace(',', ':')}", doorbell[key],
                                one[key], "ns"))
    return rows


def instructions(run, build, engine, ring, batch):
    """For each request, counted by callgrind."""
    out = run.folder / "callgrind.out"
    requests = int(output("valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}",
                          "--toggle-collect=serve_*", build / "bench/bench-price", engine, ring,
                          batch, CALLGRIND_ROUNDS))
    counted = int(re.search(r"^summary: (\d+)", out.read_text(), re.MULTILINE)[1])
    if not counted:
        raise Failed("callgrind found no serve_* in bench-price")
    return counted / requests


def price(run, build, quick):  # pylint: disable=unused-argument
    rows = []
    for ring in ("split", "packed"):
        for batch in (1, 32):
            ours, trusting = (round(instructions(run, build, engine, ring, batch), 1)
                              for engine in ("ours", "trusting"))
            rows.append(row(f"price of safety, {ring}, batch {batch}", ours, trusting,
                            "instructions a request"))
    return rows
