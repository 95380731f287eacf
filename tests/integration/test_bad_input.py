#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Bad input for belfry-vmm and belfry-blk, as far as no KVM is needed: a clear sentence, a status, nothing left.

usage: test_bad_input.py BELFRY_VMM BELFRY_BLK
What comes after KVM is opened is in tests/lab/test_bad_input.py.
"""

import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lab"))
import lab  # pylint: disable=wrong-import-position

NOBODY = 65534


def run(arguments, **more):
    """Status and what it says; it must end by itself, and soon."""
    try:
        done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20,
                              check=False, **more)
    except subprocess.TimeoutExpired as expired:
        return None, str(expired.stdout)
    return done.returncode, done.stdout


class Case:
    def __init__(self, tap, vmm, blk, work):
        self.tap, self.vmm, self.blk, self.work = tap, vmm, blk, work
        self.image, self.socket = work / "disk.img", work / "blk.sock"
        self.image.write_bytes(bytes(1 << 20))

    def refuses(self, name, program, arguments, status, pattern, **more):
        """One sentence that says what is wrong, the status, and no file more than before."""
        before = set(self.work.iterdir())
        found, said = run([program, *arguments], **more)
        self.tap.ok(found == status and said.startswith(program.name + ": "), name,
                    f"expected status {status}, found {found}: {said}")
        self.tap.matches(said, pattern, "  it says so")
        self.tap.equal(set(self.work.iterdir()), before, "  nothing is left")

    def image_of(self, name, size, mode=0o600):
        path = self.work / name
        path.write_bytes(bytes(size))
        path.chmod(mode)
        return path


def vmm_usage(case):
    kernel = ["--kernel", case.image]
    for name, arguments, pattern in (
            ("no kernel", [], "--kernel FILE is required"),
            ("an option that does not exist", ["--bogus"], "--bogus"),
            ("too little memory", [*kernel, "--memory", "1M"], "--memory 1M: expected"),
            ("no processor", [*kernel, "--cpus", "0"], "--cpus 0: expected"),
            ("a device of no known kind", [*kernel, "--device", "tape,socket=/s"], "tape"),
            ("a device without a socket", [*kernel, "--device", "blk"], "expected blk,socket=PATH"),
            ("an empty socket", [*kernel, "--device", "blk,socket="], "socket= is empty"),
            ("257 queues", [*kernel, "--device", "blk,socket=/s,num-queues=257"], "from 1 to 256"),
            ("a key that does not exist", [*kernel, "--device", "blk,socket=/s,cache=on"], "cache"),
            ("a way to notify that does not exist",
             [*kernel, "--device", "blk,socket=/s,notify=pigeon"], "expected auto or eventfd")):
        case.refuses(f"belfry-vmm: {name}", case.vmm, arguments, 2, pattern)


def vmm_kernel(case):
    text = case.work / "text"
    text.write_text("not a kernel\n" * 1000)
    empty = case.image_of("empty-kernel", 0)
    for name, path, pattern in (
            ("a kernel that is not there", "/nonexistent/vmlinuz", "vmlinuz.*No such file"),
            ("a kernel that is a folder", case.work, "not a regular file"),
            ("a kernel that is a text", text, "not a bzImage"),
            ("a kernel that is empty", empty, "empty")):
        case.refuses(f"belfry-vmm: {name}", case.vmm, ["--kernel", path], 1, pattern)


def blk_image(case):
    for name, path, pattern in (
            ("an image that is not there", "/nonexistent/disk", "disk: .*No such file"),
            ("an image that is a folder", case.work, "expected a regular file or a block device"),
            ("an image that is a character device", "/dev/null", "expected a regular file"),
            ("an image of 1000 bytes", case.image_of("odd", 1000), "multiple of 512.*1000 bytes"),
            ("an image of 0 bytes", case.image_of("empty", 0), "0 bytes")):
        case.refuses(f"belfry-blk: {name}", case.blk,
                     ["--socket-path", case.socket, "--blk-file", path], 1, pattern)


def blk_as_nobody(case):
    path = case.image_of("secret", 512, 0)
    case.work.chmod(0o777)
    more = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        case.refuses("belfry-blk: an image that may not be read", case.blk,
                     ["--socket-path", case.socket, "--blk-file", path], 1,
                     "secret: .*Permission denied", **more)
        if userfaultfd_is_restricted():
            case.refuses("belfry-blk: --postcopy without the right to it", case.blk,
                         ["--socket-path", case.socket, "--null=1M", "--postcopy"], 1,
                         "--postcopy: .*Operation not permitted.*CAP_SYS_PTRACE", **more)
    except PermissionError:
        print("# the build folder is closed to other users: what they may not is left out")
    case.work.chmod(0o700)


def userfaultfd_is_restricted():
    sysctl = pathlib.Path("/proc/sys/vm/unprivileged_userfaultfd")
    node = pathlib.Path("/dev/userfaultfd")
    return (sysctl.exists() and sysctl.read_text().strip() == "0"
            and not (node.exists() and node.stat().st_mode & 0o006))


def blk_socket(case):
    image = ["--blk-file", case.image]
    regular = case.image_of("regular", 3)
    case.refuses("belfry-blk: a socket in no folder", case.blk,
                 ["--socket-path", "/nonexistent/s", *image], 1, "/nonexistent/s.*No such file")
    case.refuses("belfry-blk: a socket where a file is", case.blk,
                 ["--socket-path", regular, *image], 1, "regular")
    case.tap.equal(regular.stat().st_size, 3, "  the file is as it was")
    case.refuses("belfry-blk: a socket path that is too long", case.blk,
                 ["--socket-path", "/tmp/" + "x" * 200, *image], 1, "at most 107 bytes")


@contextlib.contextmanager
def serving(case, *arguments):
    """belfry-blk, listening; it is not connected to for that, since one connection may be all."""
    ready, its_end = os.pipe()
    process = subprocess.Popen(
        [str(a) for a in (case.blk, "--socket-path", case.socket, "--blk-file", case.image,
                          f"--ready-fd={its_end}", *arguments)], pass_fds=[its_end],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.close(its_end)
    try:
        os.read(ready, 1)  # nothing comes if it ended
        os.close(ready)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def connect(case):
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(10)
    end.connect(str(case.socket))
    return end


def is_served(case):
    """GET_FEATURES is answered with a u64."""
    with connect(case) as end:
        end.sendall(struct.pack("<III", 1, 1, 0))
        return struct.unpack("<III", end.recv(12, socket.MSG_WAITALL)) == (1, 5, 8)


def blk_live_socket(case):
    with serving(case) as process:
        case.refuses("belfry-blk: a socket on which another one listens", case.blk,
                     ["--socket-path", case.socket, "--blk-file", case.image], 1,
                     "in use|another")
        case.tap.ok(is_served(case), "  that one serves on")
        process.kill()
        process.wait()
    with serving(case) as process:
        case.tap.ok(is_served(case), "belfry-blk: a socket left by a dead one is taken over")
        process.terminate()
        case.tap.equal(process.wait(10), 0, "  SIGTERM ends it with 0")
    case.tap.ok(not case.socket.exists(), "  and its socket is gone")


def last_words(end):
    """What comes until the other side closes, which is a reset where it did not read all of ours."""
    try:
        return end.recv(64)
    except ConnectionResetError:
        return b""


FRONT_ENDS = (
    ("that speaks another version", struct.pack("<III", 1, 2, 0), "version"),
    ("that says it has 4 GiB to say", struct.pack("<III", 2, 1, 0xffffffff), "payload|bytes"),
    ("with a request that does not exist", struct.pack("<III", 4711, 1, 0), "no such request"),
    ("that closes in the middle of a header", struct.pack("<II", 1, 1), "closed|middle"),
    ("that closes in the middle of a message", struct.pack("<III", 2, 1, 8) + b"123",
     "closed|middle"),
    ("of another protocol", b"GET / HTTP/1.1\r\nHost: belfry\r\n\r\n", "expected|version|flags"))


def blk_front_ends(case):
    for name, said, pattern in FRONT_ENDS:
        with serving(case) as process:
            with connect(case) as end:
                end.sendall(said)
                end.shutdown(socket.SHUT_WR)
                case.tap.equal(last_words(end), b"", f"belfry-blk: a front end {name} is cut off")
            case.tap.ok(is_served(case), "  the next one is served")
            process.terminate()
            output = process.communicate(timeout=10)[0]
            case.tap.equal(process.returncode, 0, "  it ends well")
            case.tap.matches(output, f"connection ended: .*{pattern}", "  it says why")
        with serving(case, "--one-off") as process:
            with connect(case) as end:
                end.sendall(said)
            case.tap.equal(process.wait(10), 1, "  with --one-off it ends with 1")
        case.tap.ok(not case.socket.exists(), "  no socket is left")


def main():
    vmm, blk = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
    tap = lab.Tap()
    with lab.folder() as work:
        case = Case(tap, vmm, blk, work)
        for test in (vmm_usage, vmm_kernel, blk_image, blk_as_nobody, blk_socket, blk_live_socket,
                     blk_front_ends):
            with tap.part(test.__name__):
                test(case)
    tap.equal(lab.left_over(vmm, blk), [], "no process is left")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
