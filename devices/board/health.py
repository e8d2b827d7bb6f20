"""The board's health: temperature, power and throttling, memory; read from Linux and the Raspberry Pi's firmware.

Every function takes the root of the file system, so that a test can pass a fake one.
"""

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
# Bits of `vcgencmd get_throttled` (Raspberry Pi documentation, vcgencmd): now, and 16 bits higher since boot.
THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


@dataclass(frozen=True)
class Throttling:
    """How the Raspberry Pi's firmware throttles: `now`, and at some time `since_boot`."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]

    def __str__(self) -> str:
        before = [one for one in self.since_boot if one not in self.now]
        parts = [f"{when}: {', '.join(held)}" for when, held in (("now", self.now), ("since boot", before)) if held]
        return "; ".join(parts) or "none"


def parse_throttled(answer: str) -> Throttling:
    """Parse vcgencmd's `throttled=0x50005`. ValueError for anything else."""
    name, _, value = answer.strip().partition("=")
    if name != "throttled":
        raise ValueError(f"vcgencmd printed {answer.strip()[:80]!r}, not throttled=0x...")
    bits = int(value, 16)
    return Throttling(
        tuple(text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1),
        tuple(text for bit, text in THROTTLE_BITS.items() if bits >> bit + 16 & 1),
    )


def throttling() -> Throttling | None:
    """The firmware's current state, or None without vcgencmd or if it cannot reach the firmware."""
    try:
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=3)
        return parse_throttled(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def cpu_temperature_c(root: Path = ROOT) -> float | None:
    """The hottest thermal zone in degrees Celsius, or None if the kernel has none."""
    readings = []
    for file in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            readings.append(int(file.read_text()) / 1000)
        except (OSError, ValueError):
            continue  # a zone whose sensor is off raises an error or is empty
    return max((value for value in readings if 0 < value < 150), default=None)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


def core_limit(root: Path = ROOT) -> float | None:
    """The processor time that the cgroups (version 2) allow, in cores; None if unlimited or unknown."""
    limits = []
    for folder in _cgroups(root):
        with suppress(OSError, ValueError):  # "max 100000" is no limit
            quota, period = (folder / "cpu.max").read_text().split()
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def available_memory_mb(root: Path = ROOT) -> float | None:
    """Memory available without swapping, in MB (10^6 bytes), or None if unknown. Within the limits of the cgroups."""
    free = [_megabytes(root / "proc/meminfo", "MemAvailable")]
    for folder in _cgroups(root):
        with suppress(OSError, ValueError):  # "max" is no limit
            limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
            cached = re.search(r"^inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
            free.append((limit - used + int(cached[1] if cached else 0)) / 1e6)  # cached file pages are freed on demand
    return min((one for one in free if one is not None), default=None)


def _cgroups(root: Path) -> list[Path]:
    """The folders of this process's cgroup (version 2) and of those around it; each may have a limit."""
    try:
        found = re.search(r"^0::/(.*)$", (root / "proc/self/cgroup").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return []
    top = root / "sys/fs/cgroup"
    own = top / (found[1] if found else "")
    return [own, *(one for one in own.parents if one.is_relative_to(top))]


def memory_mb(root: Path = ROOT) -> float | None:
    """This process's current memory, in MB, or None if unknown."""
    return _megabytes(root / "proc/self/status", "VmRSS")


def peak_memory_mb(root: Path = ROOT) -> float | None:
    """This process's peak memory, in MB, or None if unknown.

    Not getrusage's ru_maxrss, which starts at the parent's memory when it started this process.
    """
    return _megabytes(root / "proc/self/status", "VmHWM")


def _megabytes(file: Path, field: str) -> float | None:
    """A `Field:   123 kB` line of a /proc file, in MB."""
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1.024e-3
    except (OSError, ValueError, IndexError):
        pass
    return None
