"""How the board feels: temperature, power and throttling, memory; read from where Linux and the Raspberry Pi keep them.

Every function takes the root of the file system, so that a test can hand it a made-up one.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
# Bits of `vcgencmd get_throttled` (Raspberry Pi documentation, vcgencmd): now, and 16 higher since the board started.
THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}


@dataclass(frozen=True)
class Throttling:
    """What the Raspberry Pi's firmware holds back: `now`, and at some time `since_boot`."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]

    def __str__(self) -> str:
        if self.now:
            return f"now: {', '.join(self.now)}"
        return f"since boot: {', '.join(self.since_boot)}" if self.since_boot else "none"


def parse_throttled(answer: str) -> Throttling:
    """`throttled=0x50005`, as vcgencmd prints it. ValueError when it is something else."""
    name, _, value = answer.strip().partition("=")
    if name != "throttled":
        raise ValueError(f"vcgencmd said {answer.strip()[:80]!r}, not throttled=0x...")
    bits = int(value, 16)
    return Throttling(
        tuple(text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1),
        tuple(text for bit, text in THROTTLE_BITS.items() if bits >> bit + 16 & 1),
    )


def throttling() -> Throttling | None:
    """What the firmware says now, or None where there is no vcgencmd or it cannot ask the firmware."""
    try:
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=3)
        return parse_throttled(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def cpu_temperature_c(root: Path = ROOT) -> float | None:
    """The hottest thermal zone in degrees Celsius, or None where the kernel shows none."""
    readings = []
    for file in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            readings.append(int(file.read_text()) / 1000)
        except (OSError, ValueError):
            continue  # a zone whose sensor is off gives an error or nothing
    return max((value for value in readings if 0 < value < 150), default=None)


def available_memory_mb(root: Path = ROOT) -> float | None:
    """Memory that programs can still get without swapping, in MB (10^6 bytes), or None where it is not known."""
    return _kilobytes(root / "proc/meminfo", "MemAvailable")


def memory_mb(root: Path = ROOT) -> float | None:
    """The memory this process holds now, in MB, or None where it is not known."""
    return _kilobytes(root / "proc/self/status", "VmRSS")


def peak_memory_mb(root: Path = ROOT) -> float | None:
    """The most memory this process has held at once, in MB, or None where it is not known.

    Not getrusage's ru_maxrss: that one starts at what the parent held when it started this process.
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
