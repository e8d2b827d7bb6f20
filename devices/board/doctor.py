"""Checks the computer for known problems, and gives the command that fixes each.

It works offline and never raises: a check that cannot be made is a row that says so. What may crash runs in a separate
process.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from edgefer.checks import Check, Status
from edgefer.devices.board import software
from edgefer.devices.board.probes import LITERT, PIP, ROOT
from edgefer.runtimes import installed_runtimes


def examine(root: Path = ROOT) -> list[Check]:
    """Run every check, software first. root: the root of the file system."""
    from edgefer.devices.board import hardware

    runtimes = installed_runtimes()
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("system", partial(software.check_system, root)),
        ("python", software.check_python),
        ("numpy", partial(software.check_numpy, root, runtimes)),
        *((f"runtime {name}", partial(software.check_runtime, name, first=name == runtimes[0])) for name in runtimes),
        ("opencv", software.check_opencv),
        ("gstreamer", software.check_gstreamer),
        ("usb cameras", partial(hardware.check_usb_cameras, root)),
        ("csi camera", partial(hardware.check_csi_camera, root)),
        ("coral", partial(hardware.check_coral, root)),
        ("power", partial(hardware.check_power, root)),
        ("temperature", partial(hardware.check_temperature, root)),
        ("memory", partial(hardware.check_memory, root)),
        ("disk", hardware.check_disk),
        ("display", hardware.check_display),
    ]
    if not runtimes:
        missing = Check(subject="runtime", status=Status.FAIL, detail="none installed", fix=f"{PIP} install '{LITERT}'")
        checks.insert(3, ("runtime", lambda: missing))
    with ThreadPoolExecutor() as pool:  # most of the time is spent waiting for child processes
        return list(pool.map(lambda named: _caught(*named), checks))


def _caught(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # one failing check must not end the others
        return Check(subject=name, status=Status.NOT_CHECKED, detail=f"{type(error).__name__}: {error}")
