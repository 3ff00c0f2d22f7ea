# SPDX-License-Identifier: Apache-2.0
"""QEMUs for the tests of moves: a guest that is booted once, kept as a file, and woken from it whenever one was lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
FILL_MIB = 24
# No multiple of 256 KiB: QEMU 7.2 under TCG then clears its dirty log in a way that loses no write (tests/guest/README.md).
MEMORY_KIB = 192 * 1024 + 128
BOOT_SECONDS = 90.0


class Dead(Exception):
    """This QEMU does not answer any more."""


class Silent(Exception):
    """Its monitor does not answer at the moment."""


class Ticks:
    """Every byte that the guest wrote to port 0xe9 of one QEMU."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.data = bytearray()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                more = self.socket.recv(65536)
            except OSError:
                return
            if not more:
                return
            self.data += more

    def close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(2)
        self.socket.close()


def tick_numbers(data: bytes) -> list[int]:
    """Sequence numbers in @data; a record that is not whole at either end is left out."""
    numbers = []
    start = next((i for i, b in enumerate(data) if b & 0x80), len(data))
    for i in range(start, len(data) - 3, 4):
        a, b, c, d = data[i : i + 4]
        if not a & 0x80 or (b | c | d) & 0x80:
            raise AssertionError(f"the ticks are torn at byte {i}: {data[i:i+8].hex()}")
        numbers.append((a & 0x7F) << 21 | b << 14 | c << 7 | d)
    return numbers


def connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(str(path))
            return s
        except OSError:
            s.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


class Qemu:
    """One QEMU process with three things of ours on it: a monitor, the console, the ticks. Another monitor is the engine's."""

    count = 0

    def __init__(self, folder: Path, incoming: str | None, private: bool = False) -> None:
        Qemu.count += 1
        self.name = f"q{Qemu.count}"
        base = folder / self.name
        self.engine_socket = Path(f"{base}.engine")
        self.memory = Path(f"{base}.ram")
        self.files = [Path(f"{base}.{x}") for x in ("engine", "qmp", "console", "tick", "ram", "log")]
        append = f"console=ttyS0 quiet panic=1 mitigations=off nokaslr godwit.fill={FILL_MIB} godwit.tick=1"
        args = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "pc,memory-backend=ram0,suppress-vmdesc=on", "-m", f"{MEMORY_KIB}K"]
        shared = f"memory-backend-file,id=ram0,share=on,mem-path={self.memory},size={MEMORY_KIB}K"
        args += ["-object", f"memory-backend-ram,id=ram0,size={MEMORY_KIB}K" if private else shared]
        args += ["-nodefaults", "-display", "none", "-smp", "1", "-kernel", str(ROOT / "build/guest/vmlinuz")]
        args += ["-initrd", str(ROOT / "build/guest/initramfs.cpio.gz"), "-append", append]
        args += ["-qmp", f"unix:{base}.qmp,server=on,wait=off", "-qmp", f"unix:{self.engine_socket},server=on,wait=off"]
        args += ["-serial", f"unix:{base}.console,server=on,wait=off"]
        args += ["-chardev", f"socket,id=tick,path={base}.tick,server=on,wait=off", "-device", "isa-debugcon,iobase=0xe9,chardev=tick"]
        args += ["-S", "-incoming", incoming] if incoming else []
        with open(f"{base}.log", "wb") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.ticks = Ticks(Path(f"{base}.tick"))
        self.console = connect(Path(f"{base}.console"))
        self.monitor = connect(Path(f"{base}.qmp"))
        self.monitor_rest = b""
        self.asked = 0
        self.console_rest = b""
        self.monitor_line(time.monotonic() + 10)
        self.qmp("qmp_capabilities")

    def monitor_line(self, deadline: float) -> bytes:
        """The next line of the monitor."""
        while b"\n" not in self.monitor_rest:
            self.monitor.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                more = self.monitor.recv(65536)
            except TimeoutError:
                raise Silent(self.name) from None
            except OSError as e:
                raise Dead(self.name) from e
            if not more:
                raise Dead(self.name)
            self.monitor_rest += more
        line, self.monitor_rest = self.monitor_rest.split(b"\n", 1)
        return line

    def qmp(self, command: str, seconds: float = 10, **arguments: Any) -> Any:
        """Run @command; Dead when nobody is there. The answer to an earlier one that was not waited for is passed over."""
        deadline = time.monotonic() + seconds
        self.asked += 1
        try:
            self.monitor.sendall(json.dumps({"execute": command, "arguments": arguments, "id": self.asked}).encode() + b"\n")
        except OSError as e:
            raise Dead(self.name) from e
        while True:
            answer = json.loads(self.monitor_line(deadline))
            if answer.get("id") != self.asked:
                continue
            if "error" in answer:
                raise AssertionError(f"{self.name}: {command}: {answer['error']}")
            return answer["return"]

    def state(self, seconds: float = 10) -> str:
        """QEMU's run state, "gone", or "silent": a QEMU that writes the end of its stream to nobody does not answer."""
        if self.process.poll() is not None:
            return "gone"
        try:
            return str(self.qmp("query-status", seconds)["status"])
        except Dead:
            return "gone"
        except Silent:
            return "silent"

    def line(self, prefix: str, seconds: float) -> str:
        """The next line of the console that begins with @prefix."""
        deadline = time.monotonic() + seconds
        while True:
            while b"\n" not in self.console_rest:
                self.console.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    more = self.console.recv(65536)
                except TimeoutError:
                    raise AssertionError(f"{self.name}: the guest did not say \"{prefix}\" within {seconds} s") from None
                if not more:
                    raise Dead(self.name)
                self.console_rest += more
            text, self.console_rest = self.console_rest.split(b"\n", 1)
            if text.startswith(prefix.encode()):
                return text.decode(errors="replace").strip()

    def ask(self, question: str, prefix: str, seconds: float = 20) -> str:
        """One line to the guest, its answer."""
        self.console.sendall(question.encode() + b"\n")
        return self.line(prefix, seconds)

    def kill(self) -> None:
        """SIGKILL, also when stopped. Not reaped here."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End it, reap it, remove its files."""
        self.kill()
        self.process.wait()
        self.ticks.close()
        self.console.close()
        self.monitor.close()
        for f in self.files:
            f.unlink(missing_ok=True)


def boot_to_file(folder: Path) -> Path:
    """Boot the guest, let it settle, and keep it as a file."""
    file = folder / "guest.saved"
    q = Qemu(folder, None)
    try:
        q.line("guest ready", BOOT_SECONDS)
        assert q.ask("verify", "verify").startswith("verify ok")
        q.qmp("stop")
        q.qmp("migrate-set-parameters", **{"max-bandwidth": 0})
        q.qmp("migrate", uri=f"exec:cat > {file}")
        while q.qmp("query-migrate")["status"] != "completed":
            time.sleep(0.02)
    finally:
        q.close()
    return file


def wake(folder: Path, file: Path, private: bool = False) -> Qemu:
    """A guest that runs, from the file."""
    q = Qemu(folder, f"exec:cat {file}", private)
    deadline = time.monotonic() + 30
    while q.state() == "inmigrate":
        assert time.monotonic() < deadline, "the saved guest was not loaded"
        time.sleep(0.02)
    q.qmp("cont")
    q.ask("ping", "pong")
    return q


def waiting(folder: Path, private: bool = False) -> Qemu:
    """A QEMU that waits for a guest."""
    return Qemu(folder, "defer", private)


def strays(known: set[int]) -> list[int]:
    """Reap our children that nobody else waits for (guards come to us when their engine died). Returns those still alive."""
    alive = []
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text(encoding="ascii").split()
        except OSError:
            continue
        for pid in map(int, children):
            if pid not in known:
                done, _ = os.waitpid(pid, os.WNOHANG)
                if not done:
                    alive.append(pid)
    return alive
