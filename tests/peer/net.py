# SPDX-License-Identifier: BSD-3-Clause
"""What the tests with network cards share: a name space, TAPs in it, servers that sum up what they get.

Network N is 10.0.N.0/24: the guest is 10.0.N.15, this side 10.0.N.2. Nothing outside of the test's own
name space is touched.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

from peer import SOON_S, Backend, Failed, main, wait_until

INSIDE = "BELFRY_PEER_NAMESPACE"
SINK, SOURCE, PACED = 5001, 5002, 5003
IPERF3 = 5201
LOADER = "ld-linux-x86-64.so.2"
FRAME = 1514
ETH_P_ALL = 3
RX, TX = 0, 1  # of a pair: what the guest receives by, what it sends by


def main_in_namespace(test, needs=()):
    """As peer.main(), in a network name space of the test's own; skipped where there can be none."""
    if INSIDE in os.environ:
        ip("link set lo up")
        pathlib.Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        return main(test, needs)
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--user", "--map-root-user"])
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK) or subprocess.call(
            [*unshare, "true"], stderr=subprocess.DEVNULL):
        print("1..0 # SKIP needs /dev/net/tun and a network name space", flush=True)
        return 0
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])
    return 1


def ip(arguments):
    done = subprocess.run(["ip", *arguments.split()], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Failed(f"ip {arguments}: {done.stdout}")


def add_tap(number, pairs=1, address=True):
    """It outlives the programs that use it."""
    name = f"tap{number}"
    ip(f"tuntap add dev {name} mode tap vnet_hdr {'multi_queue' if pairs > 1 else ''}")
    if address:
        ip(f"addr add 10.0.{number}.2/24 dev {name}")
    ip(f"link set {name} up")
    return name


def packet_socket(interface):
    """Every frame on the interface, before a bridge takes it."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((interface, 0))
    return opened


class Sniffer:
    """The largest frames on an interface while the block runs: what the guest sent and received."""

    def __init__(self, name):
        self.socket = packet_socket(name)
        self.socket.settimeout(0.2)
        self.sent = self.received = 0
        self.end = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        while not self.end.is_set():
            try:
                length, _, _, where = self.socket.recvmsg_into([bytearray(64)], 0,
                                                               socket.MSG_TRUNC)
            except TimeoutError:
                continue
            if where[2] == socket.PACKET_OUTGOING:
                self.received = max(self.received, length)
            else:
                self.sent = max(self.sent, length)

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self.socket.close()


class Net(Backend):
    """belfry-net, listening (or coming, with --client). @ports: --tap=..., --slirp and so on."""

    def __init__(self, run, program, *ports, notify="eventfd", pairs=1, socket_path=None,
                 options=()):
        self.socket = socket_path or run.folder / f"net{len(run.programs)}.sock"
        super().__init__(run, "belfry-net",
                         [program, f"--socket-path={self.socket}", *ports, f"--notify={notify}",
                          f"--queues={pairs}", "--log-level=debug", *options])


class Host:
    """Servers of this side, each connection in a thread of its own."""

    def __init__(self, given):
        self.given = given  # what SOURCE sends
        self.came = []      # sums of what SINK got, by connection
        self.paced = hashlib.sha256()
        self.end_pace = threading.Event()
        self.paced_bytes = 0
        for port, serve in ((SINK, self.sink), (SOURCE, self.source), (PACED, self.pace)):
            listener = socket.create_server(("", port), backlog=16)
            threading.Thread(target=self.accept, args=(listener, serve), daemon=True).start()

    @staticmethod
    def accept(listener, serve):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=Host.serve, args=(connection, serve), daemon=True).start()

    @staticmethod
    def serve(connection, serve):
        with connection, contextlib.suppress(OSError):  # a guest may be killed
            serve(connection)

    def sink(self, connection):
        digest = hashlib.sha256()
        while data := connection.recv(1 << 16):
            digest.update(data)
        self.came.append(digest.hexdigest())

    def source(self, connection):
        connection.sendall(self.given)

    def pace(self, connection):
        """A stream of random data without a break, until it is told to end."""
        while not self.end_pace.is_set():
            data = os.urandom(1 << 14)
            connection.sendall(data)
            self.paced.update(data)
            self.paced_bytes += len(data)
            time.sleep(0.02)

    def wait_came(self, expected):
        """Has a connection brought what this is the sum of?"""
        with contextlib.suppress(Failed):
            wait_until("what the guest sent", lambda: expected in self.came, SOON_S)
        return expected in self.came


def up(guest, number, interface):
    guest.run(f"ip link set {interface} up && ip addr add 10.0.{number}.15/24 dev {interface}")


def send(run, guest, host, address, title, mib=2, cpu=None):
    """The guest's random bytes, summed up on both sides."""
    guest.run(f"head -c {mib << 20} /dev/urandom >/data")
    expected = guest.sha256_of("cat /data")
    taskset = "" if cpu is None else f"taskset {1 << cpu:x} "
    guest.run(f"{taskset}nc {address} {SINK} </data")
    run.ok(host.wait_came(expected), f"{title}: what the guest sent arrives (sha256 of {mib} MiB)",
           expected, host.came)


def receive(run, guest, host, address, title, cpu=None):
    taskset = "" if cpu is None else f"taskset {1 << cpu:x} "
    found = guest.sha256_of(f"{taskset}nc {address} {SOURCE} </dev/null")
    run.equal(found, hashlib.sha256(host.given).hexdigest(),
              f"{title}: the guest gets what was sent (sha256 of {len(host.given) >> 20} MiB)")


def iperf3_files():
    """The program with its libraries, for guest_kernel()."""
    program = shutil.which("iperf3")
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [program, *re.findall(r"/\S+", listed)]


def iperf3(run, guest, number, title, reverse=False):
    """One second of TCP. Reverse: the guest receives."""
    with subprocess.Popen(["iperf3", "--server", "--one-off", "--json"], stdout=subprocess.PIPE,
                          text=True) as server:
        try:
            wait_until("iperf3's server", lambda: subprocess.run(
                ["ss", "-Hltn", f"sport = :{IPERF3}"], stdout=subprocess.PIPE, check=True).stdout)
            guest.run(f"/bin/{LOADER} --library-path /:/bin /bin/iperf3 --client 10.0.{number}.2"
                      f" --time 1 {'--reverse' if reverse else ''} >/dev/null")
            said = server.communicate(timeout=SOON_S)[0]
        finally:
            server.kill()
    total = json.loads(said)["end"]["sum_sent" if reverse else "sum_received"]
    run.ok(server.returncode == 0 and total["bytes"] > 1 << 20,
           f"{title}: iperf3, the guest {'receives' if reverse else 'sends'} "
           f"{total['bits_per_second'] / 1e9:.2f} Gbit/s", said)
