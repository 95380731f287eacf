#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A small run of the demo: what demo.json holds, and that KVM agrees with it.

usage: test_demo.py BUILD_FOLDER
The demo takes the programs from there, and starts the lab by itself.
"""

import json
import subprocess
import sys

import lab

BLOCKS = 500
REQUESTS = 2 * BLOCKS
SCHEMA = {"requests": int, "notifications": int, "vm_exits": int,
          "vm_exits_per_notification": (int, float), "backend_wakeups": int, "sha256_ok": bool}


def schema(tap, report):
    tap.equal(sorted(report), ["guest_kernel", "mode", "runs"], "demo.json has three parts")
    tap.ok(report["mode"] in ("kvm", "lab"), "mode is kvm or lab", report["mode"])
    tap.ok(isinstance(report["guest_kernel"], str) and report["guest_kernel"],
           "the guest's kernel is named", report["guest_kernel"])
    tap.equal(sorted(report["runs"]), ["doorbell", "eventfd"], "two runs")
    for mode, run in report["runs"].items():
        tap.ok(run.keys() == SCHEMA.keys() and all(
            isinstance(run[key], kind) for key, kind in SCHEMA.items()), f"fields of {mode}", run)


def values(tap, runs):
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


def second_opinion(tap, result):
    """Exits that KVM traced at the notify register's address, and what the eventfd added up."""
    detail = result["detail"]
    tap.equal([detail[mode]["doorbell_mapped"] for mode in ("eventfd", "doorbell")],
              [[False], [True]], "where a page was mapped")
    tap.equal(detail["eventfd"]["notify_exits"], detail["eventfd"]["device"]["kicks"],
              "eventfd: as many exits traced as signals counted")
    tap.equal(detail["doorbell"]["notify_exits"], 0, "doorbell: none traced")
    tap.equal(detail["doorbell"]["device"]["kicks"], 0, "doorbell: no signal either")
    tap.equal([detail[mode]["kvm"]["mmio_exits"] for mode in ("eventfd", "doorbell")], [0, 0],
              "no notification was emulated by the VMM")


def main():
    tap = lab.Tap()
    with lab.folder() as work, tap.part("the demo"):
        done = subprocess.run(
            [lab.ROOT / "lab/demo", "--blocks", str(BLOCKS), "--out", work, sys.argv[1]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=170, check=False)
        tap.ok(done.returncode == 0, "the demo ends with 0", done.stdout)
        tap.matches(done.stdout, "data arrived whole.* yes +yes", "its table")
        report = json.loads((work / "demo.json").read_text())
        result = json.loads((work / "demo/result.json").read_text())
        schema(tap, report)
        values(tap, report["runs"])
        second_opinion(tap, result)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
