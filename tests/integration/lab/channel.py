# SPDX-License-Identifier: Apache-2.0
"""The machine's side of the command channel into a lab host; agent.c describes the protocol."""

from __future__ import annotations

import fcntl
import os
import selectors
import socket
import struct
import time
from pathlib import Path
from typing import BinaryIO, Callable

PORTS = 12
FRAME_MAX = 65536
HELLO_SECONDS = 3.0


class ChannelError(Exception):
    """The host is off, was reset, or does not answer."""


class Channel:
    """One session on one of a host's ports. Only one command runs on it at a time; the lock keeps others off."""

    def __init__(self, folder: Path, host: str, deadline: float) -> None:
        self.host = host
        self.pending = b""
        self.sock: socket.socket | None = None
        self.lock = self._claim(folder, deadline)
        path = folder / f"{host}.port{self.index}.sock"
        while not self._hello(path):
            if time.monotonic() > deadline:
                raise ChannelError(f"{host} does not answer; its console is {folder / (host + '.console')}")

    def _claim(self, folder: Path, deadline: float) -> BinaryIO:
        while True:
            for index in range(PORTS):
                f = open(folder / f"{self.host}.port{index}.lock", "ab")
                try:
                    fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    f.close()
                    continue
                self.index = index
                return f
            if time.monotonic() > deadline:
                raise ChannelError(f"{self.host} runs {PORTS} commands already: wait for one of them to end")
            time.sleep(0.1)

    def _hello(self, path: Path) -> bool:
        """Connects and waits for the agent's answer. False when there is none yet; raises when the host is off."""
        self.close_socket()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(path))
        except OSError as e:
            raise ChannelError(f"{self.host} is off") from e
        nonce = os.urandom(16)
        want = b"H" + struct.pack(">I", len(nonce)) + nonce
        self.sock.sendall(want)
        seen = b""
        end = time.monotonic() + HELLO_SECONDS
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(FRAME_MAX)
            except TimeoutError:
                break
            except OSError as e:
                raise ChannelError(f"{self.host} went off") from e
            if not data:
                raise ChannelError(f"{self.host} went off")
            seen += data
            if want in seen:
                self.pending = seen.split(want, 1)[1]
                return True
            seen = seen[-len(want):]
        return False

    def close_socket(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def close(self) -> None:
        self.close_socket()
        self.lock.close()

    def send(self, kind: bytes, data: bytes) -> None:
        assert self.sock is not None and len(data) <= FRAME_MAX
        self.sock.settimeout(None)
        try:
            self.sock.sendall(kind + struct.pack(">I", len(data)) + data)
        except OSError as e:
            raise ChannelError(f"{self.host} went off while the command ran") from e

    def write_some(self, data: bytes) -> int:
        """Sends what the socket takes at once, which may be nothing. Returns how much that was."""
        assert self.sock is not None
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as e:
            raise ChannelError(f"{self.host} went off while the command ran") from e

    def frames(self) -> list[tuple[bytes, bytes]]:
        """Waits for bytes and returns the whole frames in them."""
        assert self.sock is not None
        data = self.sock.recv(FRAME_MAX)
        if not data:
            raise ChannelError(f"{self.host} went off while the command ran")
        self.pending += data
        found = []
        while len(self.pending) >= 5:
            kind = self.pending[:1]
            (size,) = struct.unpack(">I", self.pending[1:5])
            if kind not in b"OEXHN" or size > FRAME_MAX or kind in b"HN":
                raise ChannelError(f"{self.host} was reset while the command ran")
            if len(self.pending) < 5 + size:
                break
            found.append((kind, self.pending[5:5 + size]))
            self.pending = self.pending[5 + size:]
            if kind == b"X":
                break  # what follows is the agent's idling
        return found

    def run(self, argv: list[str], out: Callable[[bytes], object], err: Callable[[bytes], object],
            stdin: BinaryIO | None = None, deadline: float | None = None) -> int:
        """Runs a command in the host, passes its output on as it comes, returns its exit status (128 + signal when killed)."""
        assert self.sock is not None
        request = b"\0".join(os.fsencode(a) for a in argv) + b"\0"
        if len(request) > FRAME_MAX:
            raise ChannelError("the command line is longer than 64 KiB: `lab put` a script and run that")
        self.send(b"R", request)
        if stdin is None:
            self.send(b"I", b"")
        to_send = b""
        with selectors.PollSelector() as sel:
            sel.register(self.sock, selectors.EVENT_READ)
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"{self.host}: the command did not end in time and was ended")
                # Input is read only when the last of it is on its way, and output is read meanwhile: nobody waits for the other.
                sel.modify(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if to_send else 0))
                if stdin is not None and not to_send:
                    sel.register(stdin, selectors.EVENT_READ)
                ready = sel.select(left)
                if stdin is not None and not to_send:
                    sel.unregister(stdin)
                for key, events in ready:
                    if key.fileobj is stdin and stdin is not None:
                        data = os.read(stdin.fileno(), FRAME_MAX)
                        to_send = b"I" + struct.pack(">I", len(data)) + data
                        if not data:
                            stdin = None
                        continue
                    if events & selectors.EVENT_WRITE:
                        to_send = to_send[self.write_some(to_send):]
                    if not events & selectors.EVENT_READ:
                        continue
                    for kind, data in self.frames():
                        if kind == b"X":
                            return int(struct.unpack(">I", data)[0])
                        (out if kind == b"O" else err)(data)
