# SPDX-License-Identifier: Apache-2.0
"""One measured move of the guest: by plain QEMU or by Godwit, timed by the outside observer.

The source is whatever QEMU runs the guest now; the destination is a new QEMU on the other side of the cable. After the
move the destination is the next move's source, so a guest boots once and then goes back and forth.
"""

import dataclasses
import json
import os
import select
import signal
import subprocess
import time
from typing import Any, Optional

from rig import ADDRESS, BenchError, Qemu, Rig

NS = 1e9
MS = 1e6
SAMPLE_S = 0.01
TICK_MS = 1.0
AFTER_S = 0.15


@dataclasses.dataclass(frozen=True)
class Mode:
    """Who moves the guest, and how the destination is prepared."""

    name: str
    godwit: bool
    tls: bool
    prealloc: bool
    downtime_limit_ms: int = 300


@dataclasses.dataclass
class Sample:
    """What one move cost. Times in ms, None where it does not apply or was not seen."""

    result: str = "failed"
    why: str = ""
    total_ms: Optional[float] = None
    whole_ms: Optional[float] = None
    tick_pause_ms: Optional[float] = None
    qmp_pause_ms: Optional[float] = None
    stall_ms: Optional[float] = None
    wire_mb: Optional[float] = None
    cpu_s: Optional[float] = None
    foreign_cpu_s: float = 0.0
    rss_src_mib: Optional[float] = None
    rss_dst_mib: Optional[float] = None
    own: dict[str, Any] = dataclasses.field(default_factory=dict)
    eta_error: Optional[float] = None
    progress_back: bool = False
    ticks_wrong: int = 0


class Observer:
    """The C program that stamps ticks and events of both sides."""

    def __init__(self, rig: Rig, src: Qemu, dst: Qemu, program: str) -> None:
        self.rig = rig
        self.events: dict[tuple[str, str], int] = {}
        command = [program] + [f"{q.base}.{kind}" for q in (src, dst) for kind in ("tick", "observe")]
        self.process = rig.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline().strip() != "ready":
            raise BenchError("the observer did not start")
        os.set_blocking(self.process.stdout.fileno(), False)
        self.rest = ""

    def poll(self, seconds: float) -> None:
        """Take what came by then; the first STOP of the source and the first RESUME of the destination count."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return
        self.rest += os.read(self.process.stdout.fileno(), 65536).decode()
        *lines, self.rest = self.rest.split("\n")
        for line in lines:
            _, side, name, stamp = line.split()
            self.events.setdefault((side, name), int(stamp))

    def ticks(self) -> list[tuple[str, int, int]]:
        """End the observer; its ticks as (side, sequence, ns)."""
        os.set_blocking(self.process.stdout.fileno(), True)
        text, _ = self.process.communicate(timeout=60)
        self.rig.reap(self.process)
        rows = [line.split() for line in (self.rest + text).split("\n") if line.startswith("tick ")]
        return [(row[1], int(row[2]), int(row[3])) for row in rows]


def busy_seconds() -> float:
    """CPU time that anything on this host used so far, stolen time included."""
    with open("/proc/stat", encoding="utf-8") as file:
        fields = [int(n) for n in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own_memory_mib(pid: int) -> float:
    """Anonymous memory of a process now: without the guest RAM that it maps from a file."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


class Engine:
    """A godwit-migrate process: its JSON lines, its memory, its CPU time."""

    def __init__(self, rig: Rig, side: int, arguments: list[str]) -> None:
        self.rig = rig
        path = os.path.join(rig.dir, f"engine{rig.next_number()}")
        self.path = path
        self.peak_mib = 0.0
        self.cpu_s = 0.0
        with open(path, "w", encoding="utf-8") as out, open(f"{path}.err", "w", encoding="utf-8") as err:
            self.process = rig.spawn(arguments, side, stdout=out, stderr=err)

    def sample(self) -> None:
        """Look at the memory it uses now."""
        self.peak_mib = max(self.peak_mib, own_memory_mib(self.process.pid))

    def finish(self, seconds: float) -> int:
        """Wait for its end, kill it when it does not; its exit code. Takes the CPU time from the kernel's account."""
        until = time.monotonic() + seconds
        while self.process.returncode is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.cpu_s = usage.ru_utime + usage.ru_stime
                self.process.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                self.process.kill()
            else:
                time.sleep(0.005)
        self.rig.reap(self.process)
        return self.process.returncode

    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects it printed, whole lines only."""
        rows = []
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    rows.append(row)
        return rows

    def last_words(self) -> str:
        """How it ended, for a sentence about a failure."""
        return f"exit code {self.process.poll()}, {self.lines()[-1:]} {self.complaint()}"

    def complaint(self) -> str:
        """Its last line on standard error."""
        with open(f"{self.path}.err", encoding="utf-8") as file:
            lines = file.read().strip().splitlines()
        return lines[-1] if lines else ""


class Mover:
    """Moves one guest back and forth and measures each move."""

    def __init__(self, rig: Rig, shared: bool, observer: str, godwit: str) -> None:
        self.rig = rig
        self.shared = shared
        self.observer = observer
        self.godwit = godwit
        self.source = Qemu(rig, 0, shared)
        self.source.wait_ready()

    def close(self) -> None:
        """End the guest."""
        self.source.end()

    def move(self, mode: Mode, limit_s: float) -> Sample:
        """One move. The guest runs at the source afterwards when the result is not `moved`."""
        port = 20000 + self.rig.next_number() % 10000
        side = 1 - self.source.side
        started = time.monotonic_ns()
        destination = Qemu(self.rig, side, self.shared, prealloc=mode.prealloc, extra=self.incoming(mode, side))
        start_ms = (time.monotonic_ns() - started) / MS
        sample = Sample()
        moved = False
        try:
            self.source.reset_migration()
            run = Run(self, destination, mode, port, limit_s)
            moved = run.measure(sample)
            if sample.total_ms is not None:
                # Preparing is QEMU's start (with `prealloc` it populates its memory there) and what Godwit prepares.
                prepare_ms = float(sample.own.get("prepare_ms", 0))
                sample.whole_ms = start_ms + sample.total_ms
                sample.total_ms -= prepare_ms
        finally:
            if moved:
                self.source.end()
                self.source = destination
            else:
                destination.end()
        return sample

    def incoming(self, mode: Mode, side: int) -> tuple[str, ...]:
        """How the destination QEMU waits. Plain QEMU runs the guest by itself; Godwit says when."""
        if mode.godwit:
            return ("-S", "-incoming", "defer")
        if not mode.tls:
            return ("-incoming", "defer")
        creds = f"tls-creds-x509,id=tls-in,dir={self.rig.tls_dir(side)},endpoint=server,verify-peer=yes"
        return ("-incoming", "defer", "-object", creds)


class Run:
    """The state of one move while it is measured."""

    def __init__(self, mover: Mover, destination: Qemu, mode: Mode, port: int, limit_s: float) -> None:
        self.mover = mover
        self.rig = mover.rig
        self.src = mover.source
        self.dst = destination
        self.mode = mode
        self.port = port
        self.limit_s = limit_s
        self.engines: list[Engine] = []
        self.token = ""
        self.ask_after = 0.0

    def measure(self, sample: Sample) -> bool:
        """Prepare, start the clock, move, read all counters. True: the guest runs at the destination."""
        self.prepare()
        observer = Observer(self.rig, self.src, self.dst, self.mover.observer)
        time.sleep(AFTER_S)
        cpu = self.src.cpu_seconds() + self.dst.cpu_seconds()
        wire = self.rig.wire_bytes()
        busy = busy_seconds()
        begin = time.monotonic_ns()
        self.start()
        resumed = self.wait(observer, begin)
        sample.cpu_s = self.src.cpu_seconds() + self.dst.cpu_seconds() - cpu
        busy = busy_seconds() - busy
        moved = self.finish(sample, resumed is not None)
        time.sleep(AFTER_S)
        sample.cpu_s += sum(engine.cpu_s for engine in self.engines)
        sample.foreign_cpu_s = max(0.0, busy - sample.cpu_s)
        sample.wire_mb = (self.rig.wire_bytes() - wire) / 1e6
        ticks = observer.ticks()
        if resumed is not None:
            sample.total_ms = (resumed - begin) / MS
            stop = observer.events.get(("src", "STOP"))
            sample.qmp_pause_ms = (resumed - stop) / MS if stop else None
            self.read_ticks(sample, ticks, begin)
        if self.engines:
            self.read_engines(sample)
        return moved

    def prepare(self) -> None:
        """Everything before the clock starts: parameters, TLS, the destination listens."""
        there = ADDRESS[self.dst.side]
        if self.mode.godwit:
            self.prepare_godwit(there)
        else:
            self.prepare_plain(there)
        until = time.monotonic() + 20
        while not self.rig.listening(self.dst.side, self.port):
            if time.monotonic() > until or any(e.process.poll() is not None for e in self.engines):
                raise BenchError("the destination does not listen: "
                                 f"{self.engines[0].last_words() if self.engines else 'QEMU'}")
            time.sleep(0.01)

    def prepare_plain(self, there: str) -> None:
        """Parameters of both QEMUs; `there` is the destination's address."""
        limits = {"max_bandwidth": 0, "downtime_limit": self.mode.downtime_limit_ms}
        if self.mode.tls:
            creds = f"tls-out{self.rig.next_number()}"
            self.src.qmp.call("object-add", qom_type="tls-creds-x509", id=creds,
                              dir=self.rig.tls_dir(self.src.side), endpoint="client", verify_peer=True)
            self.src.qmp.call("migrate-set-parameters", tls_creds=creds, tls_hostname=there)
            self.dst.qmp.call("migrate-set-parameters", tls_creds="tls-in")
        self.src.qmp.call("migrate-set-parameters", **limits)
        self.dst.qmp.call("migrate-incoming", uri=f"tcp:{there}:{self.port}")

    def prepare_godwit(self, there: str) -> None:
        """The receiving engine, with its token."""
        self.token = os.path.join(self.rig.dir, f"token{self.port}")
        with open(self.token, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            file.write(os.urandom(32).hex() + "\n")
        self.engines.append(Engine(self.rig, self.dst.side, [
            self.mover.godwit, "receive", "--qmp", f"{self.dst.base}.engine", "--listen", f"{there}:{self.port}",
            *self.security(self.dst.side), "--token-file", self.token, "--json"]))

    def security(self, side: int) -> list[str]:
        """Godwit's choice of wire."""
        return ["--tls", self.rig.tls_dir(side)] if self.mode.tls else ["--plaintext"]

    def start(self) -> None:
        """The move begins."""
        there = f"{ADDRESS[self.dst.side]}:{self.port}"
        if not self.mode.godwit:
            self.src.qmp.call("migrate", uri=f"tcp:{there}")
            return
        # --keep-source: the old QEMU's CPU time is read after its end otherwise. The bench ends it.
        self.engines.append(Engine(self.rig, self.src.side, [
            self.mover.godwit, "send", "--keep-source", "--qmp", f"{self.src.base}.engine", "--to", there,
            *self.security(self.src.side), "--token-file", self.token, "--json"]))

    def wait(self, observer: Observer, begin: int) -> Optional[int]:
        """Until the destination runs the guest, or the time is up, or an engine ended; the RESUME's stamp or None."""
        while True:
            observer.poll(SAMPLE_S)
            for engine in self.engines:
                engine.sample()
            resumed = observer.events.get(("dst", "RESUME"))
            if resumed or time.monotonic_ns() - begin > self.limit_s * NS:
                return resumed
            if self.src.process.poll() is not None or self.dst.process.poll() is not None:
                raise BenchError(f"a QEMU ended during the move by {self.mode.name}; {self.qemu_words()}")
            if any(engine.process.poll() is not None for engine in self.engines[1:]):
                observer.poll(0.5)
                return observer.events.get(("dst", "RESUME"))
            if self.src_failed():
                return None

    def qemu_words(self) -> str:
        """What both QEMUs and the engines said, for a sentence about a failure."""
        words = []
        for name, qemu in (("source", self.src), ("destination", self.dst)):
            with open(f"{qemu.base}.log", encoding="utf-8", errors="replace") as log:
                words.append(f"{name}: {qemu.process.poll()} {log.read().strip()[-300:]}")
        return "; ".join(words + [engine.last_words() for engine in self.engines])

    def src_failed(self) -> bool:
        """Plain QEMU only: whether the source gave up. Asked rarely, because the monitor costs the guest time."""
        if self.mode.godwit or time.monotonic() < self.ask_after:
            return False
        self.ask_after = time.monotonic() + 1.0
        return self.src.qmp.call("query-migrate").get("status") in ("failed", "cancelled")

    def finish(self, sample: Sample, resumed: bool) -> bool:
        """End the move on both sides, cancel it when the time was up; fills the result."""
        if self.mode.godwit:
            moved = self.finish_godwit(sample, resumed)
        else:
            moved = self.finish_plain(sample, resumed)
        if moved != resumed:
            raise BenchError(f"{self.mode.name}: the move says {sample.result} ({sample.why}) but the destination "
                             f"{'runs' if resumed else 'does not run'} the guest; {self.qemu_words()}")
        return moved

    def finish_plain(self, sample: Sample, resumed: bool) -> bool:
        """Wait until the source says how it ended."""
        status = self.src.qmp.call("query-migrate")
        if not resumed and status.get("status") not in ("failed", "cancelled", "completed"):
            sample.why = f"not converged in {self.limit_s:.0f} s"
            self.src.qmp.call("migrate_cancel")
        until = time.monotonic() + 20
        while status.get("status") not in ("failed", "cancelled", "completed") or \
                (status["status"] == "completed" and not status.get("total-time")):
            if time.monotonic() > until:
                raise BenchError("plain QEMU does not end its migration")
            time.sleep(0.02)
            status = self.src.qmp.call("query-migrate")
        sample.own = {"total_ms": status.get("total-time"), "pause_ms": status.get("downtime"),
                      "passes": status.get("ram", {}).get("dirty-sync-count")}
        if status["status"] == "completed":
            sample.result = "moved"
            return True
        sample.result = "never" if status["status"] == "cancelled" else "failed"
        sample.why = sample.why or status.get("error-desc", "")
        return False

    def finish_godwit(self, sample: Sample, resumed: bool) -> bool:
        """Wait for both engines; interrupt the sender when the time was up."""
        send = self.engines[1]
        if not resumed and send.process.poll() is None:
            sample.why = f"not converged in {self.limit_s:.0f} s"
            send.process.send_signal(signal.SIGINT)
        code = send.finish(20)
        self.engines[0].finish(20)
        rows = send.lines()
        sample.own = {key: value for key, value in (rows[-1] if rows else {}).items() if value not in (-1, None)}
        if code == 0:
            sample.result = "moved"
            return True
        error = (sample.own.get("error") or {}).get("text") or send.complaint() or f"exit code {code}"
        sample.result = "never" if code == 3 or "converge" in error else "failed"
        sample.why = f"{sample.why}: {error}" if sample.why else error
        return False

    def read_ticks(self, sample: Sample, ticks: list[tuple[str, int, int]], begin: int) -> None:
        """The pause as the guest had it, the longest stall before it, and ticks lost or seen twice."""
        first_dst = next((i for i, tick in enumerate(ticks) if tick[0] == "dst"), None)
        if not first_dst:
            return
        sample.tick_pause_ms = (ticks[first_dst][2] - ticks[first_dst - 1][2]) / MS
        gaps = [(b[2] - a[2]) / MS for a, b in zip(ticks[:first_dst], ticks[1:first_dst]) if a[2] >= begin]
        sample.stall_ms = max(gaps, default=None)
        sample.ticks_wrong = sum(1 for a, b in zip(ticks, ticks[1:]) if b[1] != a[1] + 1)

    def read_engines(self, sample: Sample) -> None:
        """Memory of both engines, and how good the forecast on the way was."""
        reported = [max((float(row.get("engine_rss_kib", 0)) / 1024 for row in engine.lines()), default=0.0)
                    for engine in self.engines]
        sample.rss_dst_mib = max(self.engines[0].peak_mib, reported[0])
        if len(self.engines) < 2:
            return
        sample.rss_src_mib = max(self.engines[1].peak_mib, reported[1])
        read_progress(sample, self.engines[1].lines())


def read_progress(sample: Sample, rows: list[dict[str, Any]]) -> None:
    """From a quarter of the copy on: the largest error of the ETA as a share of the whole; and progress going back."""
    start = next((row["ms"] for row in rows if row.get("phase") == "copying"), None)
    progress = [row for row in rows if row.get("event") == "progress"]
    sample.progress_back = any(b["progress"] < a["progress"] for a, b in zip(progress, progress[1:]))
    if start is None or rows[-1].get("event") != "result":
        return
    end = rows[-1]["ms"]
    errors = [abs(row["ms"] + row["eta_ms"] - end) / (end - start) for row in progress
              if row["eta_ms"] >= 0 and row["ms"] - start >= (end - start) / 4]
    sample.eta_error = max(errors, default=None)
