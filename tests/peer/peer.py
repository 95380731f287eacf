# SPDX-License-Identifier: BSD-3-Clause
"""What the tests against other people's programs share: TAP, processes, a guest to command.

A test is a function of a Run. Everything it starts ends with it, also when it fails or is told to
stop; every wait has a limit; all files are in a folder that is removed. Nothing here knows what is
tested.
"""

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

ROOT = pathlib.Path(__file__).resolve().parents[2]
KIB, MIB = 1024, 1024 * 1024
BOOT_S = 120  # for the first line of a guest on an emulated CPU, of a machine that is shared
COMMAND_S = 60
SOON_S = 30  # for what takes no time on an idle machine
TEST_S = 420  # all of it; tests/peer/meson.build has more


class Failed(Exception):
    """The test cannot go on."""


def wait_until(what, probe, seconds=SOON_S):
    """The first true result of probe()."""
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def listens(path):
    """Bound is not enough: a connection is refused until listen(). Flag: __SO_ACCEPTCON."""
    for line in pathlib.Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split()
        if fields[-1] == str(path) and int(fields[3], 16) & 0x10000:
            return True
    return False


def sha256(path, offset=0, length=None):
    with open(path, "rb") as file:
        file.seek(offset)
        return hashlib.sha256(file.read() if length is None else file.read(length)).hexdigest()


def make_image(path, size, random):
    """A file whose first bytes are random, the rest zero."""
    with open(path, "wb") as file:
        file.write(os.urandom(random))
        file.truncate(size)
    return path


class Run:
    """One run of a test: its folder, its processes, its results as TAP."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="belfry-peer-"))
        self.programs = []
        self.nr = self.nr_failed = 0

    def ok(self, condition, name, *detail):
        self.nr += 1
        self.nr_failed += not condition
        print(f"{'ok' if condition else 'not ok'} {self.nr} - {name}", flush=True)
        if not condition:
            for one in detail:
                self.note(one)
        return bool(condition)

    def equal(self, found, expected, name):
        return self.ok(found == expected, name, f"expected {expected!r}", f"found    {found!r}")

    def adopt(self, said, prefix=""):
        """Results of another test, which said them as TAP."""
        for not_, name in re.findall(r"^(not )?ok \d+ - (.*)$", said, re.MULTILINE):
            self.ok(not not_, prefix + name)
        self.ok(re.search(r"^1\.\.\d+$", said, re.MULTILINE), prefix + "all of the test was run")

    @staticmethod
    def note(text):
        for line in str(text).splitlines():
            print(f"# {line}", flush=True)

    def show_programs(self):
        for program in self.programs:
            self.note(f"--- {program.name}: status {program.process.poll()}")
            self.note("\n".join(program.said().splitlines()[-25:]))

    def end(self):
        for program in reversed(self.programs):
            program.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Program:
    """A process that dies with us. What it says is kept in a file."""

    def __init__(self, run, name, arguments, **popen):
        self.run, self.name = run, name
        number = len(run.programs)
        self.log = run.folder / f"{number}-{name}.log"
        with open(self.log, "wb") as log:
            popen.setdefault("stdin", subprocess.DEVNULL)
            popen.setdefault("stdout", log)
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, arguments)], stderr=log, **popen)
        run.programs.append(self)

    def said(self):
        return self.log.read_text(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        if not self.alive():
            raise Failed(f"{self.name} ended by itself, status {self.process.returncode}")
        self.process.send_signal(number)

    def wait(self, seconds=SOON_S):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} did not end within {seconds} s") from None

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()


class WithStats(Program):
    """One of our programs: replaces the file of --stats on SIGUSR1."""

    def __init__(self, run, name, arguments, **popen):
        self.stats_path = run.folder / f"{len(run.programs)}-{name}.json"
        super().__init__(run, name, [*arguments, "--stats", self.stats_path], **popen)

    def stats(self):
        self.stats_path.unlink(missing_ok=True)
        self.signal(signal.SIGUSR1)
        wait_until(f"statistics of {self.name}",
                   lambda: self.stats_path.exists() or not self.alive())
        if not self.stats_path.exists():
            raise Failed(f"{self.name} ended by itself, status {self.process.returncode}")
        return json.loads(self.stats_path.read_text())


class Backend(WithStats):
    """One of our back ends, ready to be connected to."""

    def __init__(self, run, name, arguments, **popen):
        ready, ready_of_child = os.pipe()
        super().__init__(run, name, [*arguments, f"--ready-fd={ready_of_child}"],
                         pass_fds=(ready_of_child,), **popen)
        os.close(ready_of_child)
        try:
            if not select.select([ready], [], [], SOON_S)[0] or not os.read(ready, 16):
                raise Failed(f"{name} is not ready")
        finally:
            os.close(ready)

    def total(self, counter, stats=None):
        return sum(queue[counter] for queue in (stats or self.stats())["queues"])

    def doorbells(self):
        return [queue["doorbell"] for queue in self.stats()["queues"]]

    def wait_doorbells(self, state):
        wait_until(f"{self.name}: doorbell of every queue '{state}'",
                   lambda: set(self.doorbells()) == {state})

    def terminate(self):
        """Its way to end; true if it was a good one."""
        self.signal(signal.SIGTERM)
        return self.wait() == 0 and not self.socket.exists()


class Blk(Backend):
    """belfry-blk, listening. @socket: of one that was there before."""

    def __init__(self, run, program, image, notify, nr_queues=2, log_level="info",
                 socket_path=None, options=(), **popen):
        self.socket = socket_path or run.folder / f"blk{len(run.programs)}.sock"
        super().__init__(
            run, "belfry-blk",
            [program, f"--socket-path={self.socket}", f"--blk-file={image}", f"--notify={notify}",
             f"--num-queues={nr_queues}", f"--log-level={log_level}", *options],
            **popen)


class StorageDaemon(Program):
    """qemu-storage-daemon with a writable vhost-user-blk export, listening."""

    def __init__(self, run, image, nr_queues, blockdev="driver=file,filename={}", before=()):
        self.socket = run.folder / f"daemon{len(run.programs)}.sock"
        super().__init__(
            run, "qemu-storage-daemon",
            [*before, "qemu-storage-daemon",
             "--blockdev", f"{blockdev.format(image)},node-name=disk",
             "--export", "type=vhost-user-blk,id=export,node-name=disk,writable=on,"
             f"num-queues={nr_queues},addr.type=unix,addr.path={self.socket}"])
        wait_until("socket of qemu-storage-daemon",
                   lambda: listens(self.socket) or not self.alive())

    def terminate(self):
        """Its way to end; true if it was a good one."""
        self.signal(signal.SIGTERM)
        return self.wait() == 0


class Vmm(WithStats):
    """belfry-vmm with a disk and guest.sh in its guest."""

    def __init__(self, run, program, kernel, initrd, blk_socket, nr_queues):
        append = "console=ttyS0 quiet panic=-1 reboot=k"
        super().__init__(
            run, "belfry-vmm",
            [program, "--kernel", kernel / "vmlinuz", "--initrd", initrd, "--memory", "256M",
             "--cpus", nr_queues, "--cmdline", append,
             "--device", f"blk,socket={blk_socket},num-queues={nr_queues}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.guest = Guest(self)


class Guest:
    """The console of a guest that runs guest.sh: a command a line, its status at its end."""

    def __init__(self, program):
        self.program = program
        self.stdin, self.stdout = program.process.stdin, program.process.stdout
        os.set_blocking(self.stdout.fileno(), False)
        self.text = ""

    def until(self, pattern, seconds):
        """Text up to the pattern, and the match; both are taken off."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.text)
            if match:
                before, self.text = self.text[:match.start()], self.text[match.end():]
                return before, match
            if time.monotonic() > deadline:
                raise Failed(f"the guest did not say '{pattern}' within {seconds} s. "
                             f"Its last words:\n{self.text[-2000:]}")
            if select.select([self.stdout], [], [], 0.5)[0]:
                data = self.stdout.read()
                if not data:
                    raise Failed(f"{self.program.name} went away. The guest's last words:\n"
                                 + self.text[-2000:])
                self.text += data.decode(errors="replace").replace("\r", "")

    def wait_ready(self):
        self.until(r"guest: ready\n", BOOT_S)

    def send(self, command):
        self.stdin.write(command.encode() + b"\n")
        self.stdin.flush()

    def run(self, command, seconds=COMMAND_S):
        self.send(command)
        try:
            said, match = self.until(r"guest: status (\d+)\n", seconds)
        except Failed as failure:
            raise Failed(f"in the guest: {command}: {failure}") from None
        if match[1] != "0":
            raise Failed(f"in the guest: {command}: status {match[1]}: {said}")
        return said

    def sha256_of(self, command):
        match = re.search(r"\b[0-9a-f]{64}\b", self.run(command + " | sha256sum"))
        if not match:
            raise Failed(f"in the guest: {command}: no sum")
        return match[0]

    def power_off(self):
        self.send("off")


def guest_kernel(run, *files):
    """Kernel folder and initrd, built by the lab's own tools; @files are put into it."""
    initrd = run.folder / "initrd.cpio"
    made = subprocess.run([ROOT / "lab/guest-initrd", initrd, ROOT / "tests/peer/guest.sh", *files],
                          stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode != 0:
        raise Failed("lab/guest-initrd failed, see its message")
    return pathlib.Path(made.stdout.strip()), initrd


def stop_here(number, _frame):
    raise Failed("took longer than allowed" if number == signal.SIGALRM
                 else f"told to stop by signal {number}")


def main(test, needs=()):
    """Run the test; the exit status is for those who do not read TAP."""
    missing = [name for name in needs if not shutil.which(name)]
    if missing:
        print(f"1..0 # SKIP {', '.join(missing)} not installed: run lab/setup", flush=True)
        return 0
    run = Run()
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_here)
    signal.alarm(TEST_S)
    try:
        test(run)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        run.ok(False, "the test went through to its end", failure)
    finally:
        signal.alarm(0)
        if run.nr_failed or sys.exc_info()[0]:
            run.show_programs()
        run.end()
    print(f"1..{run.nr}", flush=True)
    return 1 if run.nr_failed else 0
