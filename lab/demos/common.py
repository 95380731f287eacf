# SPDX-License-Identifier: BSD-3-Clause
"""What both demonstrations share: programs with statistics, a guest to talk to, progress, a table.

Everything here but cell() and table() runs where KVM works.
"""

import json
import os
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOON_S = 20

# What follows "panic" saves instructions on an emulated CPU, above all nohz=off: the tick keeps
# running, so that going idle after each request reprograms no timer.
CMDLINE = "console=ttyS0 quiet panic=-1 nohz=off nowatchdog mitigations=off"


def say(text=""):
    print(text, flush=True)


class Failed(Exception):
    pass


class Progress:
    """One line that moves on a terminal; a line every tenth elsewhere."""

    def __init__(self, label, total, unit):
        self.label, self.total, self.unit, self.began = label, total, unit, time.monotonic()
        self.tty = os.environ.get("BELFRY_DEMO_TTY") == "1"
        self.tenth = 0

    def end(self):
        if self.tty:
            print()

    def show(self, done):
        seconds = max(time.monotonic() - self.began, 0.001)
        share = min(done / self.total, 1)
        text = (f"  {self.label:8} [{'#' * int(share * 30):30}] {share:4.0%}"
                f"  {done:6,} of {self.total:,} {self.unit}, {done / seconds:6,.0f}/s")
        if self.tty:
            print("\r" + text, end="", flush=True)
        elif int(share * 10) > self.tenth:
            self.tenth = int(share * 10)
            say(text)


class Program:
    """A program of ours that writes statistics to a file when it gets SIGUSR1."""

    def __init__(self, folder, name, arguments, **popen):
        self.name, self.stats = name, folder / f"{name}.json"
        self.process = subprocess.Popen(
            [str(a) for a in arguments] + ["--stats", str(self.stats)], **popen)

    def snapshot(self):
        """The file that the signal makes: programs write beside it and rename, so it is whole."""
        self.stats.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with status {self.process.returncode}")
            if self.stats.exists():
                return json.loads(self.stats.read_text())
            time.sleep(0.01)
        raise Failed(f"{self.name} wrote no statistics within {SOON_S} s of SIGUSR1")

    def end(self, seconds):
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failed(f"{self.name} did not end within {seconds} s") from None
        if status != 0:
            raise Failed(f"{self.name} ended with status {status}")


class Vmm(Program):
    """belfry-vmm with a guest that says "guest: ..." on its console and takes a word a line."""

    def __init__(self, folder, name, build, kernel, initrd, device, words=""):
        super().__init__(folder, name, [
            build / "vmm/belfry-vmm", "--kernel", kernel, "--initrd", initrd, "--memory", "256M",
            "--cpus", "1", "--cmdline", f"{CMDLINE} {words}", "--device", device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.said = ""

    def tell(self, word):
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self):
        """What the console has said and nobody waited for yet; does not block."""
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said += (self.process.stdout.read() or b"").decode(errors="replace").replace("\r", "")
        os.set_blocking(self.process.stdout.fileno(), True)
        if "guest: failed" in self.said or self.process.poll() is not None:
            raise Failed("the guest failed:\n" + self.said)
        return self.said

    def wait_line(self, wanted):
        """Blocks; what the guest says of itself meanwhile is shown."""
        for line in self.process.stdout:
            text = line.decode(errors="replace").strip()
            if text == wanted:
                return
            if "guest:" in text or "panic" in text.lower():
                say(f"    {text}")
            if "guest: failed" in text:
                break
        raise Failed(f"the guest never said '{wanted}'")

    def power_off(self):
        self.tell("off")
        self.process.stdout.read()
        self.end(30)


def wait_for(path, process, seconds=SOON_S):
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{path.name} did not appear: the back end did not come up")
        time.sleep(0.02)


def end_all(*programs):
    for program in programs:
        if program and program.process.poll() is None:
            program.process.kill()


KVM_COUNTERS = ("exits", "insn_emulation", "mmio_exits", "io_exits", "halt_exits")


def kvm_difference(before, after):
    return {name: sum(vcpu.get(name, 0) for vcpu in after["vcpus"])
            - sum(vcpu.get(name, 0) for vcpu in before["vcpus"]) for name in KVM_COUNTERS}


def queue_sum(snapshot, counter):
    return sum(queue[counter] for queue in snapshot["queues"])


def cell(value):
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(columns, rows, runs):
    """@columns: heading by run; @rows: (title, key)."""
    say(f"\n{'':36}" + "".join(f"{heading:>12}" for heading in columns.values()))
    for title, key in rows:
        say(f"{title:36}" + "".join(f"{cell(runs[run][key]):>12}" for run in columns))
