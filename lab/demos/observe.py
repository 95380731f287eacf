# SPDX-License-Identifier: BSD-3-Clause
"""What can be seen of a machine from outside: VM exits by address, notifications as the device got them,
what a process costs. Used by the demonstrations and by the lab's tests; runs where KVM works.
"""

import os
import pathlib
import re
import subprocess


class CannotObserve(Exception):
    pass


def process_cost(pid):
    """CPU time and context switches of all threads that there are, so far."""
    cpu_ns = switches = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        switches += sum(int(n) for n in re.findall(r"ctxt_switches:\s*(\d+)",
                                                   (task / "status").read_text()))
    return {"cpu_ns": cpu_ns, "switches": switches}


def process_state(pid):
    """One letter: proc(5)."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class DeviceTrace:
    """Notifications that an accelerator got, by its queues, from what lab/run --trace wrote.

    Exact if the device has ioeventfd=off: then QEMU takes each store by itself.
    """

    EVENTS = ("virtio_queue_notify", "virtio_set_status")
    OPTIONS = [word for event in EVENTS for word in ("--trace", event)]

    def __init__(self):
        self.path = pathlib.Path(os.environ["BELFRY_LAB_DIR"]) / "qemu.trace"

    def queues(self):
        """Of the device whose status was written last: the lab's own ones are set up once."""
        # Reading makes it longer, since the file is shared by virtio: up to where it ends now.
        with open(self.path, "rb") as file:
            text = file.read(os.fstat(file.fileno()).st_size).decode(errors="replace")
        last = re.findall(r"virtio_set_status vdev (\S+) val [1-9]", text)[-1]
        queues = {}
        for queue in re.findall(rf"virtio_queue_notify vdev {last} n (\d+) ", text):
            queues[int(queue)] = queues.get(int(queue), 0) + 1
        return queues

    def count(self, nr_queues):
        queues = self.queues()
        return sum(queues.get(queue, 0) for queue in range(nr_queues))


class NotifyExits:
    """Counts the VM exits at pages of guest memory with KVM's own tracepoints: docs/demo.md."""

    TRACING = pathlib.Path("/sys/kernel/tracing")
    EVENTS = (("kvm_page_fault", "fault_address"), ("kvm_fast_mmio", "gpa"))

    def __init__(self, pages):
        if not (self.TRACING / "instances").exists():
            subprocess.run(["mount", "-t", "tracefs", "none", self.TRACING], check=False,
                           stderr=subprocess.DEVNULL)
        self.instance = self.TRACING / "instances" / f"belfry-{os.getpid()}"
        try:
            self.instance.mkdir()
            for event, field in self.EVENTS:
                folder = self.instance / "events/kvm" / event
                (folder / "filter").write_text(" || ".join(
                    f"({field} >= {gpa} && {field} < {gpa + 4096})" for gpa in pages))
                (folder / "enable").write_text("1")
        except OSError as error:
            self.end()
            raise CannotObserve(f"cannot count exits by address ({error}): needs root and tracefs, "
                                "on a machine with KVM") from None

    def count(self):
        seen = 0
        for stats in self.instance.glob("per_cpu/cpu*/stats"):
            for line in stats.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("entries", "overrun", "dropped events"):
                    seen += int(value)
        return seen

    def end(self):
        if self.instance.exists():
            self.instance.rmdir()
