#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Bad input for belfry-vmm where KVM works: truncated files, sockets and back ends that cannot be used.

usage: test_bad_input.py BELFRY_VMM BELFRY_BLK
What fails before KVM is opened is in tests/integration/test_bad_input.py.
"""

import contextlib
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

import lab

PROTOCOL_FEATURES = 1 << 30
VERSION_1 = 1 << 32
MQ, REPLY_ACK, CONFIG = 1 << 0, 1 << 3, 1 << 9
SET_OWNER, GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 3, 1, 15, 17


class Fake:
    """A back end of a few lines: answers with a u64 each, and misbehaves at one request."""

    def __init__(self, path, answers=(), bad=None, misdeed=None):
        self.answers = {GET_FEATURES: VERSION_1 | PROTOCOL_FEATURES,
                        GET_PROTOCOL_FEATURES: MQ | REPLY_ACK | CONFIG, GET_QUEUE_NUM: 1,
                        **dict(answers)}
        self.bad, self.misdeed = bad, misdeed
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with contextlib.suppress(OSError):
            connection = self.listener.accept()[0]
            with connection:
                while self.answer(connection):
                    pass

    def answer(self, connection):
        header = connection.recv(12, socket.MSG_WAITALL)
        if len(header) < 12:
            return False
        request, flags, size = struct.unpack("<III", header)
        connection.recv(size, socket.MSG_WAITALL)
        if request == self.bad:
            return self.misdeed(connection, request)
        if request in self.answers or flags & 8:
            connection.sendall(struct.pack("<IIIQ", request, 5, 8, self.answers.get(request, 0)))
        return True

    def end(self):
        self.listener.close()
        self.thread.join(5)


def other_version(connection, request):
    connection.sendall(struct.pack("<IIIQ", request, 2 | 4, 8, 0))
    return True


def close(_connection, _request):
    return False


def close_in_the_middle(connection, request):
    connection.sendall(struct.pack("<III", request, 5, 8) + b"123")
    return False


def say_nothing(connection, _request):
    connection.recv(1)
    return True


FAKES = (
    # name, answers, the request to misbehave at, how, what the VMM says
    ("speaks another version", {}, GET_FEATURES, other_version, "version"),
    ("closes at once", {}, SET_OWNER, close, "closed"),
    ("closes instead of an answer", {}, GET_QUEUE_NUM, close, "closed"),
    ("closes in the middle of one", {}, GET_FEATURES, close_in_the_middle, "closed|middle"),
    ("never answers", {}, GET_FEATURES, say_nothing, "did not answer GET_FEATURES within 10000 ms"),
    ("is of the old kind", {GET_FEATURES: PROTOCOL_FEATURES}, None, None, "VERSION_1"),
    ("has no queue", {GET_QUEUE_NUM: 0}, None, None, "at least 1 queue"),
    ("has no configuration", {GET_PROTOCOL_FEATURES: MQ | REPLY_ACK}, None, None, "configuration"),
)


class Case:
    def __init__(self, tap, vmm, blk, kernel, initrd, work):
        self.tap, self.vmm, self.blk, self.work = tap, vmm, blk, work
        self.kernel, self.initrd = pathlib.Path(kernel) / "vmlinuz", initrd

    def refuses(self, name, pattern, kernel=None, initrd=None, device=None, limit=20):
        before = set(self.work.iterdir())
        command = [self.vmm, "--kernel", kernel or self.kernel, "--initrd", initrd or self.initrd,
                   "--memory", "64M", "--stats", self.work / "stats.json"]
        if device:
            command += ["--device", device]
        began = time.monotonic()
        try:
            done = subprocess.run([str(a) for a in command], stdin=subprocess.DEVNULL, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit,
                                  check=False)
            status, said = done.returncode, done.stdout
        except subprocess.TimeoutExpired as expired:
            status, said = None, str(expired.stdout)
        self.tap.equal(status, 1, f"{name}: status 1, after {time.monotonic() - began:.1f} s")
        self.tap.matches(said, pattern, "  it says so")
        self.tap.equal(set(self.work.iterdir()), before, "  nothing is left")


def files(case):
    cut = case.work / "cut"
    cut.write_bytes(case.kernel.read_bytes()[:100000])
    empty = case.work / "empty"
    empty.touch()
    case.refuses("a kernel that is cut off", "cut.*truncated", kernel=cut)
    case.refuses("an initrd that is not there", "initrd.*No such file", initrd="/nonexistent")
    case.refuses("an initrd that is a folder", "not a regular file", initrd=case.work)
    case.refuses("an initrd that is empty", "empty", initrd=empty)
    huge = case.work / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 30)
    case.refuses("an initrd larger than memory", "huge", initrd=huge)


def sockets(case):
    device = f"blk,socket={case.work}/s"
    case.refuses("no socket", "no socket .*start the back end", device=device)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(case.work / "s"))
    dead.close()
    case.refuses("a socket nobody listens on", "nobody listens", device=device)
    (case.work / "s").unlink()
    (case.work / "s").touch()
    case.refuses("a file that is no socket", "/s", device=device)
    (case.work / "s").unlink()


def fakes(case):
    for name, answers, bad, misdeed, pattern in FAKES:
        path = case.work / "fake"
        fake = Fake(path, answers, bad, misdeed)
        case.refuses(f"a back end that {name}", pattern, device=f"blk,socket={path}")
        fake.end()
        path.unlink()


def too_few_queues(case):
    image = case.work / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with lab.Program(case.blk, ["--socket-path", case.work / "blk.sock", "--blk-file", image,
                                "--num-queues", 2, "--notify", "doorbell"], case.work, "blk") as blk:
        lab.wait_until((case.work / "blk.sock").exists, "its socket")
        for _ in range(2):  # the second time: the back end serves on
            case.refuses("more queues than offered", "3 queues asked for, but .* has 2: .*num-queues=",
                         device=f"blk,socket={case.work}/blk.sock,num-queues=3")
        case.tap.equal(blk.process.poll(), None, "the back end lives")
        blk.process.terminate()
        case.tap.equal(blk.ends(10), 0, "and ends well")
        case.tap.ok(not (case.work / "blk.sock").exists(), "no socket is left")


def main():
    if sys.argv[1] != "--inside":
        lab.run_in_lab(__file__, sys.argv[1:], 150)
    kernel, initrd = sys.argv[2:4]
    vmm, blk = (pathlib.Path(path).resolve() for path in sys.argv[4:6])
    tap = lab.Tap()
    with lab.folder() as work:
        case = Case(tap, vmm, blk, kernel, initrd, work)
        for test in (files, sockets, fakes, too_few_queues):
            with tap.part(test.__name__):
                test(case)
    tap.equal(lab.left_over(vmm, blk), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
