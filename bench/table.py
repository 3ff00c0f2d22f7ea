# SPDX-License-Identifier: Apache-2.0
"""The bench's figures: medians and spreads of the samples, the table, and which targets are reached. Pure."""

import dataclasses
import math
import statistics
from typing import Callable, Optional

from move import Sample

ENGINE_MIB = 32.0


@dataclasses.dataclass
class CaseResult:
    """All samples of one case, by mode."""

    name: str
    link: str
    ram: str
    load: str
    tls: bool
    busy_cores: float
    cores: int
    verified: str = ""
    samples: dict[str, list[Sample]] = dataclasses.field(default_factory=dict)


Getter = Callable[[Sample], Optional[float]]

COLUMNS: list[tuple[str, Getter, int]] = [
    ("total ms", lambda s: s.total_ms, 0),
    ("with preparing ms", lambda s: s.whole_ms, 0),
    ("pause, ticks ms", lambda s: s.tick_pause_ms, 1),
    ("pause, STOP-RESUME ms", lambda s: s.qmp_pause_ms, 1),
    ("stall in copy ms", lambda s: s.stall_ms, 1),
    ("wire MB", lambda s: s.wire_mb, 0),
    ("CPU s", lambda s: s.cpu_s, 2),
]


def values(samples: list[Sample], get: Getter) -> list[float]:
    """What moves that ended as they should have to say about one column."""
    return [v for s in samples if s.result == "moved" and (v := get(s)) is not None]


def median(samples: list[Sample], get: Getter) -> Optional[float]:
    """None where no move has a value."""
    found = values(samples, get)
    return statistics.median(found) if found else None


def percentile(found: list[float], share: float) -> float:
    """Nearest rank: with under 100 samples p99 is the largest."""
    ordered = sorted(found)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(samples: list[Sample], get: Getter, digits: int, p99: bool) -> str:
    """`median (min-max)`, with p99 where asked."""
    found = values(samples, get)
    if not found:
        return "-"
    text = f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f}-{max(found):.{digits}f}"
    return text + (f", p99 {percentile(found, 0.99):.{digits}f})" if p99 else ")")


def ratio(case: CaseResult, mode: str, other: str, get: Getter) -> Optional[float]:
    """Median of @mode over median of @other; None where one is missing or nothing."""
    a, b = median(case.samples.get(mode, []), get), median(case.samples.get(other, []), get)
    return a / b if a is not None and b else None


def rows(case: CaseResult) -> list[list[str]]:
    """The table's lines for one case, Godwit's own first, ratios (godwit / this line) in the others."""
    lines = []
    ours = "godwit-tls" if case.tls else "godwit"
    for mode, samples in case.samples.items():
        moved = sum(1 for s in samples if s.result == "moved")
        line = [case.name, mode, f"{moved}/{len(samples)}"]
        for title, get, digits in COLUMNS:
            cell = spread(samples, get, digits, title.startswith("pause"))
            share = ratio(case, ours, mode, get) if mode != ours else None
            line.append(cell + (f" **{share:.2f}x**" if share is not None else ""))
        line += [own_cell(samples), memory_cell(samples)]
        lines.append(line)
    return lines


def own_cell(samples: list[Sample]) -> str:
    """What the mover itself says: total, preparation and pause."""
    parts = []
    for key in ("total_ms", "prepare_ms", "pause_ms", "passes"):
        found = [float(s.own[key]) for s in samples if s.result == "moved" and s.own.get(key) is not None]
        parts.append(f"{statistics.median(found):.0f}" if found else "-")
    return " / ".join(parts)


def memory_cell(samples: list[Sample]) -> str:
    """Largest memory of the engines, source and destination."""
    src = [s.rss_src_mib for s in samples if s.rss_src_mib is not None]
    dst = [s.rss_dst_mib for s in samples if s.rss_dst_mib is not None]
    return f"{max(src):.1f} / {max(dst):.1f}" if src and dst else "-"


HEADER = ["case (link, RAM, guest)", "moved by", "n"] + [c[0] for c in COLUMNS] + \
    ["own total / prepare / pause ms / passes", "engine MiB src / dst"]


def markdown(results: list[CaseResult]) -> str:
    """The one table."""
    table = [HEADER] + [row for case in results for row in rows(case)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


@dataclasses.dataclass
class Check:
    """One target of one case."""

    case: str
    text: str
    value: Optional[float]
    limit: float

    @property
    def reached(self) -> bool:
        """Not measured is not reached."""
        return self.value is not None and self.value <= self.limit

    def line(self) -> str:
        """For the terminal."""
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{'reached    ' if self.reached else 'NOT reached'}  {self.case}: {self.text} {value} <= {self.limit:g}"


def total(s: Sample) -> Optional[float]:
    """Getter."""
    return s.total_ms


def pause(s: Sample) -> Optional[float]:
    """Getter: as the guest had it."""
    return s.tick_pause_ms


def wire(s: Sample) -> Optional[float]:
    """Getter."""
    return s.wire_mb


def case_checks(case: CaseResult, plaintext: Optional[CaseResult]) -> list[Check]:
    """The targets that apply to one case; @plaintext is the same case without TLS, for TLS cases."""
    ours = case.samples.get("godwit-tls" if case.tls else "godwit", [])
    if not ours:
        return []
    if case.tls:
        checks = tls_checks(case, plaintext)
    elif case.link == "1g":
        checks = gigabit_checks(case)
    else:
        checks = unshaped_checks(case)
    return checks + common_checks(case, ours)


def unshaped_checks(case: CaseResult) -> list[Check]:
    """Against plain QEMU at its strongest and at its defaults, on the bare veth pair."""
    limit = 1.10 if case.busy_cores > 0.9 * case.cores else 1.05
    checks = [
        Check(case.name, "total / plain-strong", ratio(case, "godwit", "plain-strong", total), limit),
        Check(case.name, "total / plain-default", ratio(case, "godwit", "plain-default", total), 0.7),
        Check(case.name, "pause / plain-strong", ratio(case, "godwit", "plain-strong", pause), 1.1),
    ]
    if case.load.startswith("hot"):
        checks.append(Check(case.name, "pause / plain-default", ratio(case, "godwit", "plain-default", pause), 0.05))
    return checks


def gigabit_checks(case: CaseResult) -> list[Check]:
    """Bytes and total at 1 Gbit/s; against plain's defaults where its strongest never ends."""
    other = "plain-strong" if median(case.samples.get("plain-strong", []), total) is not None else "plain-default"
    return [Check(case.name, f"bytes / {other}", ratio(case, "godwit", other, wire), 1.0),
            Check(case.name, f"total / {other}", ratio(case, "godwit", other, total), 1.0)]


def tls_checks(case: CaseResult, plaintext: Optional[CaseResult]) -> list[Check]:
    """Against our own plaintext and QEMU's TLS."""
    checks = [Check(case.name, "total / plain-tls", ratio(case, "godwit-tls", "plain-tls", total), 0.67)]
    if plaintext:
        own = median(plaintext.samples.get("godwit", []), total)
        mine = median(case.samples["godwit-tls"], total)
        checks.append(Check(case.name, "total / own plaintext", mine / own if mine and own else None, 1.25))
    return checks


def common_checks(case: CaseResult, ours: list[Sample]) -> list[Check]:
    """What holds on every link: the tail of the pause, memory, the forecast, and that every move ended well."""
    pauses = values(ours, pause)
    tail = percentile(pauses, 0.99) / statistics.median(pauses) if pauses else None
    etas = [s.eta_error for s in ours if s.eta_error is not None]
    checks = [Check(case.name, "moves that did not end well", sum(s.result != "moved" for s in ours), 0),
              Check(case.name, "ticks lost or doubled", sum(s.ticks_wrong for s in ours), 0),
              Check(case.name, "p99 of the pause / median", tail, 4.0),
              Check(case.name, "progress that went back", sum(s.progress_back for s in ours), 0)]
    if etas:
        checks.append(Check(case.name, "error of the ETA from a quarter on, worst", max(etas), 0.2))
    for side, found in (("source", [s.rss_src_mib for s in ours]), ("destination", [s.rss_dst_mib for s in ours])):
        window = max((float(s.own.get("window_kib", 0)) / 1024 for s in ours), default=0.0)
        peak = max((m for m in found if m is not None), default=None)
        checks.append(Check(case.name, f"engine MiB, {side}", peak, ENGINE_MIB + window))
    return checks


def all_checks(results: list[CaseResult]) -> list[Check]:
    """Every target of every case that was run."""
    plain = {(c.link, c.ram, c.load): c for c in results if not c.tls}
    return [check for case in results for check in case_checks(case, plain.get((case.link, case.ram, case.load)))]
