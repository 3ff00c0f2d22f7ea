# SPDX-License-Identifier: Apache-2.0
"""The wire between two engines: a TCP proxy that can be cut, frozen, healed, cut short at a byte, and made to flip a bit.

One thread forwards everything with select(2). Connections are numbered in the order in which they were made: 0 is the
control connection of a move, the data channels follow, later ones are questions after a break.
"""

from __future__ import annotations

import select
import socket
import threading
from dataclasses import dataclass, field

CHUNK = 65536


@dataclass
class Pipe:
    """One direction of one connection."""

    src: socket.socket
    dst: socket.socket
    number: int
    forward: bool  # from the sender to the receiver
    passed: int = 0
    waiting: bytes = b""


@dataclass
class Plan:
    """What is to happen by itself: at byte @at of connection @number, sender to receiver."""

    number: int
    at: int
    what: str  # hold, cut, flip


@dataclass
class Wire:
    """Listens on a port of 127.0.0.1 and forwards to @target."""

    target: int
    plan: Plan | None = None
    pipes: list[Pipe] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.made = 0
        self.is_cut = False
        self.frozen: set[bool] = set()  # directions that carry nothing at the moment
        self.happened = threading.Event()  # the plan was carried out
        self.wake_read, self.wake_write = socket.socketpair()
        self.ending = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    # ---- commands, any thread ----

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        with self.lock:
            self.is_cut = True
            self._close_all()
        self._wake()

    def freeze(self, to_receiver: bool = True, to_sender: bool = True) -> None:
        """Carry nothing in these directions; connections stay open, and what is sent waits."""
        with self.lock:
            self.frozen = {d for d, on in ((True, to_receiver), (False, to_sender)) if on}
        self._wake()

    def lose_connections(self) -> None:
        """Close every connection, with what waits in them; new ones go through."""
        with self.lock:
            self._close_all()
        self._wake()

    def heal(self) -> None:
        """Carry everything again."""
        with self.lock:
            self.is_cut = False
            self.frozen = set()
            if self.plan and self.plan.what == "hold":
                self.plan = None
        self._wake()

    def close(self) -> None:
        """End the proxy and its thread."""
        self.ending = True
        self._wake()
        self.thread.join(5)
        with self.lock:
            self._close_all()
        for s in (self.listener, self.wake_read, self.wake_write):
            s.close()

    # ---- the thread ----

    def _wake(self) -> None:
        self.wake_write.send(b"x")

    def _close_all(self) -> None:
        for p in self.pipes:
            for s in (p.src, p.dst):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                s.close()
        self.pipes = []

    def _accept(self) -> None:
        near, _ = self.listener.accept()
        if self.is_cut:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            near.close()
            return
        for s in (near, far):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pipes += [Pipe(near, far, self.made, True), Pipe(far, near, self.made, False)]
        self.made += 1

    def _planned(self, p: Pipe, data: bytes) -> bytes:
        """Apply the plan to @data, about to pass; b"" when nothing may pass."""
        plan = self.plan
        if not plan or not p.forward or p.number != plan.number or p.passed + len(data) <= plan.at:
            return data
        keep = max(0, plan.at - p.passed)
        self.happened.set()
        if plan.what == "flip":
            self.plan = None
            return data[:keep] + bytes([data[keep] ^ 0x10]) + data[keep + 1 :]
        if plan.what == "cut":
            self.is_cut = True
        p.waiting = data[keep:]  # hold: it waits until the wire is healed
        return data[:keep]

    def _forward(self, p: Pipe) -> None:
        data, p.waiting = p.waiting, b""
        if not data:
            data = p.src.recv(CHUNK)
            if not data:
                self._drop(p.number)
                return
        data = self._planned(p, data)
        if data:
            p.passed += len(data)
            p.dst.settimeout(5)
            p.dst.sendall(data)
        if self.is_cut:
            self._close_all()

    def _drop(self, number: int) -> None:
        for p in [p for p in self.pipes if p.number == number]:
            for s in (p.src, p.dst):
                s.close()
            self.pipes.remove(p)

    def _held(self, p: Pipe) -> bool:
        if p.forward in self.frozen:
            return True
        plan = self.plan
        return bool(plan and plan.what == "hold" and p.forward and p.number == plan.number and p.passed >= plan.at and p.waiting)

    def _run(self) -> None:
        while not self.ending:
            with self.lock:
                open_pipes = [p for p in self.pipes if not self._held(p)]
            ready = [p for p in open_pipes if p.waiting]
            fds = [self.listener, self.wake_read, *(p.src for p in open_pipes)]
            try:
                readable, _, _ = select.select(fds, [], [], 0 if ready else 1)
            except (OSError, ValueError):
                continue  # closed under us by a command
            if self.wake_read in readable:
                self.wake_read.recv(4096)
                continue
            with self.lock:
                if self.listener in readable:
                    self._accept()
                for p in open_pipes:
                    if p in self.pipes and not self._held(p) and (p in ready or p.src in readable):
                        try:
                            self._forward(p)
                        except OSError:
                            self._drop(p.number)
