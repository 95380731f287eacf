#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A small run of the demo: what demo.json holds, and that KVM and the device agree with it.

usage: test_demo.py BUILD_FOLDER
The demo takes the programs from there, and starts the lab by itself.
"""

import json
import subprocess
import sys

import lab

BLOCKS = 500
REQUESTS = 2 * BLOCKS
FRAMES = 2 * (16 << 20) // 1514  # of one piece, there and back
SCHEMA = {"requests": int, "notifications": int, "vm_exits": int,
          "vm_exits_per_notification": (int, float), "backend_wakeups": int, "sha256_ok": bool}
VDPA_SCHEMA = {**SCHEMA, "backend_cpu_ms": (int, float), "backend_context_switches": int}


def fields(tap, runs, names, wanted):
    tap.equal(sorted(runs), names, "two runs")
    for mode, run in runs.items():
        tap.ok(run.keys() == wanted.keys() and all(
            isinstance(run[key], kind) for key, kind in wanted.items()), f"fields of {mode}", run)


def schema(tap, report):
    tap.equal(sorted(report),
              ["guest_kernel", "mode", "runs", "transfer_survives_sigstop", "vdpa-net"],
              "demo.json has five parts")
    tap.ok(report["mode"] in ("kvm", "lab"), "mode is kvm or lab", report["mode"])
    tap.ok(isinstance(report["guest_kernel"], str) and report["guest_kernel"],
           "the guest's kernel is named", report["guest_kernel"])
    fields(tap, report["runs"], ["doorbell", "eventfd"], SCHEMA)
    fields(tap, report["vdpa-net"], ["doorbell", "relay"], VDPA_SCHEMA)


def disk(tap, runs):
    for mode, run in runs.items():
        tap.ok(run["sha256_ok"] is True, f"{mode}: the data arrived whole")
        tap.ok(REQUESTS <= run["requests"] <= REQUESTS + 50, f"{mode}: the requests of a copy",
               run["requests"])
    eventfd, doorbell = runs["eventfd"], runs["doorbell"]
    tap.equal(eventfd["vm_exits_per_notification"], 1, "eventfd: one exit for a notification")
    tap.equal(doorbell["vm_exits_per_notification"], 0, "doorbell: none")
    # A processor that is held up between index and ring is served before it rings, and then its next
    # ring may be seen as one with that.
    tap.ok(REQUESTS // 2 < doorbell["notifications"] <= doorbell["requests"],
           "doorbell: requests were rung for", doorbell["notifications"])
    tap.ok(0 < eventfd["notifications"] <= eventfd["requests"], "eventfd: not more than requests",
           eventfd["notifications"])
    tap.ok(eventfd["backend_wakeups"] > 0, "eventfd: the back end slept")
    tap.ok(doorbell["backend_wakeups"] <= 2, "doorbell: the back end did not",
           doorbell["backend_wakeups"])
    tap.ok(eventfd["vm_exits"] >= eventfd["notifications"], "eventfd: exits of all reasons are more")


def disk_second_opinion(tap, detail):
    """Exits that KVM traced at the notify register's address, and what the eventfd added up."""
    tap.equal([detail[mode]["doorbell_mapped"] for mode in ("eventfd", "doorbell")],
              [[False], [True]], "where a page was mapped")
    tap.equal(detail["eventfd"]["notify_exits"], detail["eventfd"]["device"]["kicks"],
              "eventfd: as many exits traced as signals counted")
    tap.equal(detail["doorbell"]["notify_exits"], 0, "doorbell: none traced")
    tap.equal(detail["doorbell"]["device"]["kicks"], 0, "doorbell: no signal either")
    tap.equal([detail[mode]["kvm"]["mmio_exits"] for mode in ("eventfd", "doorbell")], [0, 0],
              "no notification was emulated by the VMM")


def vdpa(tap, report):
    relay, doorbell = report["vdpa-net"]["relay"], report["vdpa-net"]["doorbell"]
    for mode, run in report["vdpa-net"].items():
        tap.ok(run["sha256_ok"] is True, f"vdpa {mode}: the data came back whole")
        # Those that carry data one way are as long as can be, or longer with offloads.
        tap.ok(run["requests"] > FRAMES // 2, f"vdpa {mode}: the frames of a transfer",
               run["requests"])
        tap.ok(run["notifications"] > 100, f"vdpa {mode}: notifications", run["notifications"])
    tap.equal(relay["vm_exits_per_notification"], 1, "vdpa relay: one exit for a notification")
    tap.ok(relay["backend_wakeups"] > 0 and relay["backend_context_switches"] > 0
           and relay["backend_cpu_ms"] > 0, "vdpa relay: the back end works", relay)
    tap.equal([doorbell[key] for key in ("vm_exits_per_notification", "backend_wakeups",
                                         "backend_context_switches", "backend_cpu_ms")],
              [0, 0, 0, 0], "vdpa doorbell: no exit, no wake-up, no context switch, no CPU time")
    tap.equal(report["transfer_survives_sigstop"], True, "a transfer survives SIGSTOP")


def vdpa_second_opinion(tap, detail):
    """What KVM traced and what the device took."""
    tap.equal([detail[mode]["doorbell_mapped"] for mode in ("relay", "doorbell")],
              [[False, False], [True, True]], "vdpa: where pages were mapped")
    relay, doorbell = detail["relay"], detail["doorbell"]
    tap.equal(relay["notify_exits"], relay["relayed"],
              "vdpa relay: as many exits traced as signals counted")
    tap.ok(0 < relay["rung"] <= relay["relayed"], "vdpa relay: the device heard of them", relay)
    tap.equal((doorbell["notify_exits"], doorbell["relayed"]), (0, 0), "vdpa doorbell: neither")
    tap.ok(doorbell["rung"] > 100, "vdpa doorbell: the device was rung", doorbell)


def main():
    tap = lab.Tap()
    with lab.folder() as work, tap.part("the demo"):
        done = subprocess.run(
            [lab.ROOT / "lab/demo", "--blocks", str(BLOCKS), "--pieces", "1", "--out", work,
             sys.argv[1]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False)
        tap.ok(done.returncode == 0, "the demo ends with 0", done.stdout)
        tap.matches(done.stdout, "data arrived whole.* yes +yes", "the disk's table")
        tap.matches(done.stdout, "data came back whole.* yes +yes", "the network card's table")
        tap.ok(done.stdout.index("came back") < done.stdout.index("arrived"), "which comes first")
        report = json.loads((work / "demo.json").read_text())
        schema(tap, report)
        vdpa(tap, report)
        vdpa_second_opinion(tap, json.loads((work / "demo/vdpa/result.json").read_text())["detail"])
        disk(tap, report["runs"])
        disk_second_opinion(tap, json.loads((work / "demo/disk/result.json").read_text())["detail"])
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
