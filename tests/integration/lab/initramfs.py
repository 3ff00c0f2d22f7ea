# SPDX-License-Identifier: Apache-2.0
"""Packs the initramfs of a lab host: busybox, the agent, host-init and the modules that a root file system over 9p needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net", "virtio_console", "virtio_rng", "virtio_blk", "ext4", "bridge", "tun",
           "kvm-amd"]
BUSYBOX = Path("/bin/busybox")
S_IFDIR, S_IFREG = 0o040000, 0o100000


class PackError(Exception):
    """Something that the initramfs needs is missing; the text says what to do."""


def module_files(kernel_root: Path, version: str) -> list[Path]:
    """The files of MODULES and all that they need, in the order in which they load."""
    files: list[Path] = []
    for name in MODULES:
        out = subprocess.run(["/sbin/modprobe", "-d", str(kernel_root), "-S", version, "--show-depends", name],
                             capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise PackError(f"kernel {version} has no module {name}: {out.stderr.strip()}")
        for line in out.stdout.splitlines():
            word = line.split()
            if word and word[0] == "insmod" and Path(word[1]) not in files:
                files.append(Path(word[1]))
    return files


def cpio_entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One entry of a `newc` archive: fixed-width hexadecimal header, name and data each padded to four bytes."""
    raw = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0]
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def busybox_read() -> bytes:
    try:
        data = BUSYBOX.read_bytes()
    except OSError as e:
        raise PackError(f"{BUSYBOX}: {e.strerror}; install the package busybox-static") from e
    if b"/ld-linux" in data[:8192]:
        raise PackError(f"{BUSYBOX} is dynamically linked; install the package busybox-static")
    return data


def shell_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def pack(modules: list[Path], init: Path, agent: Path, conf: dict[str, str], hosts: str) -> bytes:
    """The archive as bytes, not compressed: it is read once, from the page cache."""
    entries: list[tuple[str, int, bytes]] = [(d, S_IFDIR | 0o755, b"") for d in
                                             ("bin", "dev", "proc", "sys", "layer", "lower", "root", "modules")]
    entries += [(f"modules/{m.name}", S_IFREG | 0o644, m.read_bytes()) for m in modules]
    entries += [
        ("modules/order", S_IFREG | 0o644, "".join(f"{m.name}\n" for m in modules).encode()),
        ("init", S_IFREG | 0o755, init.read_bytes()),
        ("agent", S_IFREG | 0o755, agent.read_bytes()),
        ("bin/busybox", S_IFREG | 0o755, busybox_read()),
        ("hosts", S_IFREG | 0o644, hosts.encode()),
        ("lab.conf", S_IFREG | 0o644, "".join(f"{k}={shell_quote(v)}\n" for k, v in conf.items()).encode()),
    ]
    archive = b"".join(cpio_entry(i + 1, *e) for i, e in enumerate(entries))
    return archive + cpio_entry(0, "TRAILER!!!", 0, b"")


def write_private(path: Path, data: bytes) -> None:
    """Writes a file that only its owner reads, whole or not at all."""
    scratch = path.with_name(path.name + ".new")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
    scratch.rename(path)
