#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Records migration streams of the installed QEMU and cuts them small enough for the tree.

Usage: record.py OUTDIR [NAME...]     (no guest code needed: the firmware's own run is the guest)

A cut stream is what QEMU wrote, with some page records of each RAM section left out, the first of the rest naming its
block again where needed, and device state shortened to its first bytes. Everything else is byte for byte QEMU's.
"""
from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO

PAGE = 4096
RP_SHUT = 1  # return path: the destination has finished, be32 0 says well
KEEP_PAGES = 8  # page records kept of a stream: a golden file stays small
KEEP_EACH = {PAGE: 1, 1: 5}  # page and zero records kept of one block in one section, so that all of them are there
KEEP_TAIL = 256  # bytes kept behind the END section of ram

MEMFD = ["-object", "memory-backend-memfd,id=ram0,size={size}M,share=on"]
CASES: dict[str, dict[str, Any]] = {
    "i440fx": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1"]},
    "i440fx-shared": {"args": ["-machine", "pc-i440fx-7.2,memory-backend=ram0", "-m", "2"], "memfd": 2},
    "i440fx-ignore-shared": {"args": ["-machine", "pc-i440fx-7.2,memory-backend=ram0", "-m", "2"], "memfd": 2,
                             "caps": ["x-ignore-shared"]},
    "i440fx-return-path": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1"], "caps": ["return-path"]},
    "i440fx-postcopy": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1"], "caps": ["postcopy-ram"]},
    "i440fx-2.12": {"args": ["-machine", "pc-i440fx-2.12", "-m", "2"]},
    "i440fx-uuid": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1", "-uuid", "b5a0a0e5-3bd5-4d5f-9d6c-4a7b8d7f5a01"],
                    "caps": ["validate-uuid"]},
    "no-footer": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1", "-global", "migration.send-section-footer=off"]},
    "no-configuration": {"args": ["-machine", "pc-i440fx-7.2", "-m", "1", "-global",
                                  "migration.send-configuration=off"]},
    "q35": {"args": ["-machine", "q35", "-m", "2"]},
    "microvm": {"args": ["-machine", "microvm", "-m", "2"]},
    "vga": {"args": ["-machine", "pc", "-m", "2", "-device", "VGA,vgamem_mb=1"]},
    "no-vmdesc": {"args": ["-machine", "pc,suppress-vmdesc=on", "-m", "1"]},
    "running": {"args": ["-machine", "pc", "-m", "8"], "running": True},
}


# A boot sector that counts every word of 64 KiB up, for ever.
WRITER = bytes.fromhex("b80010 8ec0 31ff b90080 26ff05 83c702 e2f8 ebf1").ljust(510, b"\0") + b"\x55\xaa"


class Qmp:
    """A QMP client that knows just enough: one command at a time, events skipped."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        for _ in range(200):
            try:
                self.sock.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        self.file = self.sock.makefile("r")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, command: str, fds: tuple[int, ...] = (), **args: Any) -> Any:
        text = json.dumps({"execute": command, "arguments": args}).encode()
        if fds:
            socket.send_fds(self.sock, [text], list(fds))
        else:
            self.sock.sendall(text)
        while True:
            reply = json.loads(self.file.readline())
            if "error" in reply:
                raise RuntimeError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]


class Guest:
    """A QEMU under TCG with a QMP socket in a folder of its own."""

    def __init__(self, args: list[str], memfd: int = 0, running: bool = False) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="stream-")
        path = f"{self.folder.name}/qmp"
        memory = [a.format(size=memfd) for a in MEMFD] if memfd else []
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-nographic", "-qmp", f"unix:{path},server=on",
                "-no-user-config", *memory, *args, *([] if running else ["-S"])]
        if running:
            write_file(f"{self.folder.name}/boot", WRITER)
            argv += ["-drive", f"if=floppy,format=raw,readonly=on,file={self.folder.name}/boot"]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        self.qmp = Qmp(path)

    def set_capabilities(self, caps: list[str]) -> None:
        if caps:
            self.qmp.run("migrate-set-capabilities", capabilities=[{"capability": c, "state": True} for c in caps])

    def status(self) -> str:
        return self.qmp.run("query-migrate").get("status", "none")

    def wait(self, seconds: float = 20, state: str = "completed") -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status()
            if status in (state, "failed", "cancelled"):
                return status
            time.sleep(0.02)
        return f"{self.status()} after {seconds} s"

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()


def record(case: dict[str, Any]) -> bytes:
    """What QEMU writes for @case, whole. The return path, when on, is answered with a SHUT."""
    guest = Guest(case["args"], case.get("memfd", 0), case.get("running", False))
    ours, theirs = socket.socketpair()
    stream = bytearray()
    try:
        guest.set_capabilities(case.get("caps", []))
        if case.get("running"):
            time.sleep(2)
            guest.qmp.run("migrate-set-parameters", **{"downtime-limit": 1, "max-bandwidth": 4 << 20})
        guest.qmp.run("getfd", fds=(theirs.fileno(),), fdname="out")
        theirs.close()
        drain = threading.Thread(target=read_all, args=(ours, stream))
        drain.start()
        guest.qmp.run("migrate", uri="fd:out")
        if {"return-path", "postcopy-ram"} & set(case.get("caps", [])):
            guest.wait(5, "device")  # everything is written, QEMU waits for the answer
            ours.sendall(struct.pack(">HHI", RP_SHUT, 4, 0))
        status = guest.wait()
        if status != "completed":
            raise RuntimeError(f"the migration is {status}")
        ours.shutdown(socket.SHUT_WR)
    finally:
        guest.close()
    drain.join(10)
    ours.close()
    return bytes(stream)


def read_all(sock: socket.socket, into: bytearray) -> None:
    while data := sock.recv(1 << 16):
        into += data


class Cutter:
    """Walks a stream as QEMU writes it and keeps some of its page records."""

    def __init__(self, stream: bytes, ignore_shared: bool, footers: bool) -> None:
        self.data, self.at, self.out = stream, 0, bytearray()
        self.ignore_shared, self.footers = ignore_shared, footers
        self.pages = 0
        self.block = self.sent = b""

    def copy(self, n: int) -> bytes:
        chunk = self.data[self.at : self.at + n]
        self.out += chunk
        self.at += n
        return chunk

    def configuration(self) -> None:
        (length,) = struct.unpack_from(">I", self.data, self.at + 1)
        self.copy(5 + length)
        while self.data[self.at] == 5:
            length = self.data[self.at + 1]
            name = self.data[self.at + 2 : self.at + 2 + length]
            self.copy(2 + length + 4)
            if name.endswith(b"uuid"):
                self.copy(16)
            elif name.endswith(b"bits"):
                self.copy(4)
            else:
                for _ in range(struct.unpack(">I", self.copy(4))[0]):
                    self.copy(self.copy(1)[0])

    def blocks(self, total: int) -> None:
        while total > 0:
            self.copy(self.copy(1)[0])
            total -= struct.unpack(">Q", self.copy(8))[0]
            self.copy(8 if self.ignore_shared else 0)

    def page(self, record: int, kept: dict[tuple[bytes, int], int]) -> None:
        flags, self.at = record & (PAGE - 1), self.at + 8
        if not flags & 0x20:
            length = self.data[self.at]
            self.block = self.data[self.at + 1 : self.at + 1 + length]
            self.at += 1 + length
        size = 1 if flags & 2 else PAGE
        count = kept.get((self.block, size), 0)
        if count < KEEP_EACH[size] and (size == 1 or self.pages < KEEP_PAGES):
            kept[self.block, size] = count + 1
            record = record & ~0x20 | (0x20 if self.sent == self.block else 0)
            self.out += struct.pack(">Q", record)
            self.out += b"" if record & 0x20 else bytes([len(self.block)]) + self.block
            self.out += self.data[self.at : self.at + size]
            self.sent = self.block
            self.pages += size == PAGE
        self.at += size

    def records(self) -> None:
        kept: dict[tuple[bytes, int], int] = {}
        while True:
            (record,) = struct.unpack_from(">Q", self.data, self.at)
            flags = record & (PAGE - 1)
            if flags == 0x10:
                self.copy(8)
                return
            if flags == 4:
                self.copy(8)
                self.blocks(record - 4)
            else:
                self.page(record, kept)

    def run(self) -> bytes:
        self.copy(8)
        while True:
            kind = self.data[self.at]
            if kind == 7:
                self.configuration()
                continue
            if kind == 8:
                self.copy(5 + struct.unpack_from(">H", self.data, self.at + 3)[0])
                continue
            self.copy(5 + (self.data[self.at + 5] + 9 if kind == 1 else 0))
            self.records()
            self.copy(5 if self.footers else 0)
            if kind == 3:
                self.copy(KEEP_TAIL)
                return bytes(self.out)


def write_file(path: str, data: bytes) -> None:
    out: BinaryIO
    with open(path, "wb") as out:
        out.write(data)


def main() -> None:
    folder, names = sys.argv[1], sys.argv[2:] or list(CASES)
    os.makedirs(folder, exist_ok=True)
    for name in names:
        case = CASES[name]
        whole = record(case)
        cut = Cutter(whole, "x-ignore-shared" in case.get("caps", []), name != "no-footer").run()
        write_file(f"{folder}/{name}.bin", cut)
        print(f"{name}: {len(whole)} bytes recorded, {len(cut)} kept")


if __name__ == "__main__":
    main()
