"""The board's health: temperature, power and throttling, memory; read from Linux and the Raspberry Pi's firmware.

Every function takes the root of the file system, so that a test can pass a fake one.
"""

import subprocess
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
        if self.now:
            return f"now: {', '.join(self.now)}"
        return f"since boot: {', '.join(self.since_boot)}" if self.since_boot else "none"


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


def available_memory_mb(root: Path = ROOT) -> float | None:
    """Memory available without swapping, in MB (10^6 bytes), or None if unknown."""
    return _kilobytes(root / "proc/meminfo", "MemAvailable")


def memory_mb(root: Path = ROOT) -> float | None:
    """This process's current memory, in MB, or None if unknown."""
    return _kilobytes(root / "proc/self/status", "VmRSS")


def peak_memory_mb(root: Path = ROOT) -> float | None:
    """This process's peak memory, in MB, or None if unknown.

    Not getrusage's ru_maxrss, which starts at the parent's memory when it started this process.
    """
    return _kilobytes(root / "proc/self/status", "VmHWM")


def _kilobytes(file: Path, field: str) -> float | None:
    """A `Field:   123 kB` line of a /proc file, in MB."""
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1.024e-3
    except (OSError, ValueError, IndexError):
        pass
    return None
