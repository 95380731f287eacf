# SPDX-License-Identifier: BSD-3-Clause
"""What the lab's tests share: TAP, programs that write statistics, a guest that obeys.

A test is started twice: on this machine, where it packs the guest's initrd, and by lab/run where KVM works.
"""

import contextlib
import faulthandler
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Failed(Exception):
    pass


class Tap:
    """Test points in the order they come; the plan at the end. A failed one does not end the test."""

    def __init__(self):
        self.count = self.failed = 0
        limit = os.environ.get("BELFRY_TEST_LIMIT")
        if limit:  # where it hangs, if it does, before lab/run ends it
            faulthandler.dump_traceback_later(int(limit) * 3 // 4, file=sys.stdout)

    def ok(self, passed, name, detail=""):
        self.count += 1
        print(f"{'ok' if passed else 'not ok'} {self.count} - {name}", flush=True)
        if not passed:
            self.failed += 1
            for line in str(detail).splitlines():
                print(f"# {line}", flush=True)
        return passed

    def equal(self, found, expected, name):
        return self.ok(found == expected, name, f"expected {expected!r}\nfound    {found!r}")

    def matches(self, text, pattern, name):
        return self.ok(re.search(pattern, text), name, f"expected {pattern!r}\nfound:\n{text}")

    @contextlib.contextmanager
    def part(self, name):
        """What goes wrong inside fails this test point and leaves the part."""
        try:
            yield
        except Exception as error:  # pylint: disable=broad-except
            self.ok(False, name, f"{error}\n{traceback.format_exc()}")

    def end(self):
        print(f"1..{self.count}", flush=True)
        return 1 if self.failed else 0


def run_in_lab(script, arguments, timeout, options=(), files=()):
    """On this machine: pack the initrd with @files, and run the script again where KVM works.

    @options: of lab/run. The script's own arguments follow "--inside KERNEL INITRD".
    """
    initrd = ROOT / "out/lab" / f"test-{pathlib.Path(script).stem if files else 'initrd'}.cpio"
    initrd.parent.mkdir(parents=True, exist_ok=True)
    kernel = subprocess.check_output(
        [ROOT / "lab/guest-initrd", initrd, ROOT / "tests/lab/guest.sh", *files], text=True).strip()
    command = [str(ROOT / "lab/run"), "--again", "--timeout", str(timeout), *options, "--",
               sys.executable, script, "--inside", kernel, str(initrd), *arguments]
    os.environ["BELFRY_TEST_LIMIT"] = str(timeout)
    os.execv(command[0], command)


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="belfry-lab-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def wait_until(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Process:
    """Ended when the block is left, whatever happens in it. What it says is kept in a file."""

    def __init__(self, path, arguments, work, name, **popen):
        self.name, self.log = name, work / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(path), *map(str, arguments)],
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **popen})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def said(self):
        return self.log.read_text(errors="replace")

    def ends(self, seconds):
        """Its exit status, or None if it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Program(Process):
    """One of ours, with --stats."""

    def __init__(self, path, arguments, work, name, **popen):
        self.stats_path = work / f"{name}.json"
        super().__init__(path, [*arguments, "--stats", self.stats_path], work, name, **popen)

    def stats(self):
        """The file that the signal makes; programs write beside it and rename, so it is whole."""
        self.stats_path.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: self.stats_path.exists() or self.process.poll() is not None,
                   f"statistics of {self.name}")
        if not self.stats_path.exists():
            raise Failed(f"{self.name} ended with {self.process.returncode}: {self.said()}")
        return json.loads(self.stats_path.read_text())


class Blk(Program):
    def __init__(self, path, work, image, queues=1, notify="doorbell", name="blk"):
        self.socket = work / f"{name}.sock"
        super().__init__(path, ["--socket-path", self.socket, "--blk-file", image, "--one-off",
                                "--num-queues", queues, "--notify", notify], work, name)
        wait_until(lambda: self.socket.exists() or self.process.poll() is not None, "its socket")
        if self.process.poll() is not None:
            raise Failed(f"{name} ended: {self.said()}")

    def total(self, counter):
        return [queue[counter] for queue in self.stats()["queues"]]


class Console:
    """The guest of a VMM, spoken to over the console (guest.sh); for a Process with pipes."""

    output, at = "", 0

    def wait(self, pattern, seconds):
        """Read the console until @pattern comes; the match, and what came before it."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.output[self.at:])
            if match:
                before = self.output[self.at:self.at + match.start()]
                self.at += match.end()
                return match, before
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            data = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise Failed(f"the guest did not say {pattern!r} within {seconds} s; it said\n"
                             f"{self.output[-2000:]}\nand the VMM\n{self.said()}")
            self.output += data.decode(errors="replace")

    def up(self, seconds=60):
        self.wait("guest: up", seconds)

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def run(self, command, seconds=30):
        """Status and output of a command."""
        self.tell(command)
        match, before = self.wait(r"guest: status (\d+)\.", seconds)
        return int(match.group(1)), before

    def must(self, command, seconds=30):
        status, output = self.run(command, seconds)
        if status:
            raise Failed(f"in the guest, {command!r}: status {status}\n{output}")
        return output


class Guest(Program, Console):
    """belfry-vmm and the guest in it."""

    def __init__(self, path, work, kernel, initrd, devices, cpus=1, name="vmm", words=""):
        self.errors = open(work / f"{name}.errors", "w+b")
        arguments = ["--kernel", pathlib.Path(kernel) / "vmlinuz", "--initrd", initrd,
                     "--memory", "192M", "--cpus", cpus,
                     "--cmdline", f"console=ttyS0 quiet panic=-1 reboot=k {words}"]
        for device in devices:
            arguments += ["--device", device]
        super().__init__(path, arguments, work, name, stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=self.errors)

    def __exit__(self, *_):
        super().__exit__()
        self.errors.close()

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def queues(self):
        return self.stats()["devices"][0]["queues"]

    def mapped(self):
        return [queue["doorbell_mapped"] for queue in self.queues()]


def left_over(*programs):
    """Processes of these programs that are still there."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "exe") in [str(program) for program in programs]:
                found.append(process.name)
    return found
