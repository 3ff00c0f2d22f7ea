# SPDX-License-Identifier: Apache-2.0
"""What the bench measures on: two network namespaces and a veth pair, QEMUs, certificates, the guest's console.

Nothing here outlives the bench: namespaces have no name and end with their holders, every child is killed with its
parent (PDEATHSIG), and Rig.close() runs on every way out.
"""

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Optional

PR_SET_CHILD_SUBREAPER = 36
F_ADD_SEALS = 1033
SEAL_SEAL_SHRINK_GROW = 0x1 | 0x2 | 0x4
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ADDRESS = ("10.78.0.1", "10.78.0.2")
MIB = 1 << 20
# Not a multiple of 256 KiB: then QEMU 7.2 loses no writes of a TCG guest (tests/guest/README.md).
GUEST_KIB = 1280 * 1024 + 128
FILL_MIB = 1024


class BenchError(Exception):
    """A sentence for the person at the terminal."""


def output(command: list[str]) -> str:
    """Run a command to its end; its standard output, or a BenchError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Qmp:
    """One monitor: commands in order, events dropped (the observer times them)."""

    def __init__(self, path: str) -> None:
        self.sock = unix_connect(path)
        self.file = self.sock.makefile("rw", encoding="utf-8")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command; its "return", or a BenchError with QEMU's words."""
        names = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.file.write(json.dumps({"execute": command, "arguments": names}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise BenchError(f"{command}: QEMU ended")
            reply = json.loads(line)
            if "error" in reply:
                raise BenchError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]


def unix_connect(path: str) -> socket.socket:
    """Connect to a unix socket that a program just started is about to make."""
    until = time.monotonic() + 60
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            sock.settimeout(120)
            return sock
        except OSError as error:
            sock.close()
            if time.monotonic() > until:
                raise BenchError(f"nobody listens on {path}: {error}") from error
            time.sleep(0.01)


class Qemu:
    """One QEMU, in the namespace of its side."""

    def __init__(self, rig: "Rig", side: int, shared: bool, *, prealloc: bool = False, extra: tuple[str, ...] = ()):
        self.rig = rig
        self.side = side
        self.base = os.path.join(rig.dir, f"q{rig.next_number()}")
        self.memory_fd = -1
        self.console: Optional[Any] = None
        command = [rig.qemu, "-accel", rig.accel, "-smp", str(rig.vcpus), "-nodefaults", "-no-user-config", "-display",
                   "none", "-kernel", f"{ROOT}/build/guest/vmlinuz", "-initrd",
                   f"{ROOT}/build/guest/initramfs.cpio.gz", "-append", "console=ttyS0 quiet panic=1 mitigations=off "
                   f"nokaslr godwit.fill={FILL_MIB} godwit.tick=1"]
        command += self.memory_arguments(shared, prealloc)
        for monitor in ("engine", "control", "observe"):
            command += ["-qmp", f"unix:{self.base}.{monitor},server=on,wait=off"]
        command += ["-chardev", f"socket,id=ser,path={self.base}.serial,server=on,wait=off", "-serial", "chardev:ser"]
        command += ["-chardev", f"socket,id=tick,path={self.base}.tick,server=on,wait=off"]
        command += ["-device", "isa-debugcon,iobase=0xe9,chardev=tick", *extra]
        with open(f"{self.base}.log", "w", encoding="utf-8") as log:
            self.process = rig.spawn(command, side, (self.memory_fd,) if self.memory_fd >= 0 else (), stderr=log)
        try:
            self.qmp = Qmp(f"{self.base}.control")
        except BenchError as error:
            self.end()
            with open(f"{self.base}.log", encoding="utf-8") as log:
                raise BenchError(f"{error}; QEMU says: {log.read().strip() or 'nothing'}") from error

    def memory_arguments(self, shared: bool, prealloc: bool) -> list[str]:
        """Private: what `-m` alone gives. Shared: a sealed memfd that the bench makes, as hv does."""
        machine = "pc,suppress-vmdesc=on"
        if not shared:
            return ["-machine", machine, "-m", f"{GUEST_KIB}K"] + (["-mem-prealloc"] if prealloc else [])
        self.memory_fd = os.memfd_create("guest-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory_fd, GUEST_KIB * 1024)
        fcntl.fcntl(self.memory_fd, F_ADD_SEALS, SEAL_SEAL_SHRINK_GROW)
        backend = (f"memory-backend-file,id=ram0,share=on,mem-path=/proc/self/fd/{self.memory_fd},"
                   f"size={GUEST_KIB}K,prealloc={'on' if prealloc else 'off'}")
        return ["-machine", f"{machine},memory-backend=ram0", "-m", f"{GUEST_KIB}K", "-object", backend]

    def say(self, line: str, timeout: float = 120) -> str:
        """One line to the guest's console, its answer back."""
        if self.console is None:
            self.console = unix_connect(f"{self.base}.serial").makefile("rw", encoding="utf-8", newline="\n")
        self.console.write(line + "\n")
        self.console.flush()
        answer = self.hear()
        while answer == "guest ready":
            answer = self.hear()
        return answer

    def hear(self) -> str:
        """The next line of the guest's console."""
        assert self.console is not None
        try:
            line = self.console.readline()
        except TimeoutError as error:
            raise BenchError("the guest does not answer on its console") from error
        if not line:
            raise BenchError("the guest's console is gone: QEMU ended")
        return line.strip()

    def wait_ready(self) -> None:
        """Wait until a freshly booted guest has filled its memory."""
        if self.console is None:
            self.console = unix_connect(f"{self.base}.serial").makefile("rw", encoding="utf-8", newline="\n")
        while self.hear() != "guest ready":
            pass

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads, also those that ended."""
        try:
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_migration(self) -> None:
        """Parameters and capabilities as a fresh QEMU has them: an earlier move may have left others."""
        on = [c["capability"] for c in self.qmp.call("query-migrate-capabilities") if c["state"]]
        if on:
            off = [{"capability": name, "state": False} for name in on]
            self.qmp.call("migrate-set-capabilities", capabilities=off)
        self.qmp.call("migrate-set-parameters", max_bandwidth=128 * MIB, downtime_limit=300, tls_creds="",
                      tls_hostname="")

    def end(self) -> None:
        """Kill it and forget its memory."""
        self.rig.reap(self.process)
        if self.memory_fd >= 0:
            os.close(self.memory_fd)
            self.memory_fd = -1


class Rig:
    """The two sides and everything started on them."""

    def __init__(self, qemu: str, accel: str, vcpus: int) -> None:
        if os.geteuid() != 0:
            raise BenchError("the bench makes network namespaces and shapes a veth pair: run it as root")
        self.qemu = qemu
        self.accel = accel
        self.vcpus = vcpus
        self.number = 0
        self.children: list[subprocess.Popen[str]] = []
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # pylint: disable-next=consider-using-with
        self.tmp = tempfile.TemporaryDirectory(prefix="godwit-bench-")
        self.dir = self.tmp.name
        self.holders: list[subprocess.Popen[str]] = []
        try:
            self.network_up()
            self.make_certificates()
        except BaseException:
            self.close()
            raise

    def next_number(self) -> int:
        """A number for a name or a port that no earlier one had."""
        self.number += 1
        return self.number

    def spawn(self, command: list[str], side: int = -1, fds: tuple[int, ...] = (), **popen: Any) -> Any:
        """Start a child that dies with the bench; side 0 or 1: in that side's network namespace."""
        wrapped = ["setpriv", "--pdeathsig", "KILL"]
        if side >= 0:
            wrapped += ["nsenter", f"--net=/proc/{self.holders[side].pid}/ns/net"]
        popen.setdefault("stdin", subprocess.DEVNULL)
        # pylint: disable-next=consider-using-with
        child = subprocess.Popen(wrapped + command, pass_fds=fds, text=True, **popen)
        self.children.append(child)
        return child

    def reap(self, child: Any) -> None:
        """Kill a child of ours and wait for it."""
        if child.returncode is None and child.poll() is None:
            child.kill()
            child.wait()
        if child in self.children:
            self.children.remove(child)

    def network_up(self) -> None:
        """Two namespaces without a name, a cable between them."""
        here = os.stat("/proc/self/ns/net").st_ino
        for _ in ADDRESS:
            holder = self.spawn(["unshare", "--net", "sleep", "infinity"])
            self.holders.append(holder)
            until = time.monotonic() + 10
            while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == here:
                if holder.poll() is not None or time.monotonic() > until:
                    raise BenchError("unshare --net makes no network namespace here: a privileged host is needed")
                time.sleep(0.01)
        output(["ip", "link", "add", "wire0", "netns", str(self.holders[0].pid), "type", "veth", "peer", "name",
                "wire1", "netns", str(self.holders[1].pid)])
        for side, address in enumerate(ADDRESS):
            self.inside(side, ["ip", "address", "add", f"{address}/24", "dev", f"wire{side}"])
            self.inside(side, ["ip", "link", "set", "lo", "up"])
            self.inside(side, ["ip", "link", "set", f"wire{side}", "up"])

    def inside(self, side: int, command: list[str]) -> str:
        """Run a command in the namespace of @side."""
        return output(["nsenter", f"--net=/proc/{self.holders[side].pid}/ns/net"] + command)

    def shape(self, gigabit: bool) -> None:
        """A 1 Gbit/s link by tbf at both ends, or the bare veth pair."""
        for side in (0, 1):
            queue = ["tc", "qdisc", "replace" if gigabit else "del", "dev", f"wire{side}", "root"]
            if gigabit:
                self.inside(side, queue + ["tbf", "rate", "1gbit", "burst", "128kb", "latency", "10ms"])
            elif "tbf" in self.inside(side, ["tc", "qdisc", "show", "dev", f"wire{side}"]):
                self.inside(side, queue)

    def wire_bytes(self) -> int:
        """Bytes that crossed the cable so far, both directions."""
        with open(f"/proc/{self.holders[0].pid}/net/dev", encoding="utf-8") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name.strip() == "wire0":
                    fields = rest.split()
                    return int(fields[0]) + int(fields[8])
        raise BenchError("the veth pair is gone")

    def listening(self, side: int, port: int) -> bool:
        """Whether somebody listens on TCP @port of @side."""
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self.holders[side].pid}/net/{table}", encoding="utf-8") as file:
                for line in file:
                    fields = line.split()
                    if fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
                        return True
        return False

    def make_certificates(self) -> None:
        """One CA and a certificate per side, under the names that Godwit and QEMU look for."""
        ca = os.path.join(self.dir, "ca")
        new_key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                   "-days", "2"]
        output(new_key + ["-x509", "-subj", "/CN=bench CA", "-keyout", f"{ca}.key", "-out", f"{ca}.pem",
                          "-addext", "keyUsage=critical,keyCertSign"])
        for side, address in enumerate(ADDRESS):
            folder = self.tls_dir(side)
            os.mkdir(folder, 0o700)
            ext = os.path.join(folder, "ext")
            with open(ext, "w", encoding="utf-8") as file:
                file.write(f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth,clientAuth\n"
                           "keyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n")
            output(new_key + ["-subj", f"/CN=bench side {side}", "-keyout", f"{folder}/key.pem", "-out",
                              f"{folder}/csr"])
            output(["openssl", "x509", "-req", "-in", f"{folder}/csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
                    "-CAcreateserial", "-days", "2", "-extfile", ext, "-out", f"{folder}/cert.pem"])
            output(["cp", f"{ca}.pem", f"{folder}/ca.pem"])
            for theirs, ours in (("ca-cert", "ca"), ("server-cert", "cert"), ("server-key", "key"),
                                 ("client-cert", "cert"), ("client-key", "key")):
                os.symlink(f"{ours}.pem", f"{folder}/{theirs}.pem")

    def tls_dir(self, side: int) -> str:
        """The folder with the certificates of @side."""
        return os.path.join(self.dir, f"tls{side}")

    def close(self) -> None:
        """End every child, the namespaces and the cable with them, and remove the files."""
        for child in list(reversed(self.children)):
            self.reap(child)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                for orphan in own_children():
                    os.kill(orphan, signal.SIGKILL)
                time.sleep(0.01)
        self.tmp.cleanup()


def own_children() -> list[int]:
    """The processes whose parent this is: ours, or orphans that we inherited as subreaper."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="utf-8") as file:
        return [int(pid) for pid in file.read().split()]
