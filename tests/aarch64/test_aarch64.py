"""The boards' processors, emulated: what `edgefer verify` says there, with the real aarch64 wheels.

qemu-user runs every instruction of the wheels' own code, kernels included, on the instruction set of the named core; it
is no measure of speed. Measured with qemu 7.2, numpy 2.4.6, opencv-python 4.14.0 and ai-edge-litert 2.1.6, 2.2.0 and 2.3.0:
all pixels equal, and all int8 answers equal to those of x86-64, not one quantum off.
"""

import json
import subprocess
import sys

import pytest
from boards import AARCH64, CORES, ROOT, SYSTEMS, python_on

pytestmark = pytest.mark.aarch64
PIXELS = ["pixels of haar's crop", "pixels of own's crop", "pixels of yunet's crop", "pixels of levelled heads"]
ROWS = [*PIXELS, "faces", "int8 on litert"]


def verify_on(core, **where) -> dict[str, dict]:
    """The rows of `edgefer verify` by subject. There is no compiler there, which the rows of the C code state."""
    done = python_on(core, "-m", "edgefer.cli", "verify", "fer-small", "--json", **where)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {check["subject"]: check for check in json.loads(done.stdout)["checks"]}
    assert set(ROWS) <= set(checks) and all(check["passed"] is not False for check in checks.values())
    return checks


def test_emulated_machine_is_aarch64():
    done = python_on("cortex-a72", "-c", "import platform, cv2; print(platform.machine(), cv2.__file__)")
    machine, cv2 = done.stdout.split()
    assert machine == "aarch64" and cv2.startswith(str(AARCH64)), done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_python_version_is_that_of_the_system(system):
    done = python_on("cortex-a72", "-c", "import sys; print(*sys.version_info[:2], sep='.')", system=system)
    assert done.stdout.strip() == SYSTEMS[system], done.stderr


def same_as_on_the_host(checks: dict[str, dict]) -> None:
    for row in PIXELS:
        assert checks[row]["status"] == "pass" and checks[row]["detail"].startswith("0 of "), checks[row]
    # More than the budget asks.
    assert "off by 0.00 quanta on average, 0 at worst" in checks["int8 on litert"]["detail"]


@pytest.mark.parametrize(("core", "system"), [*((core, "bookworm") for core in CORES), ("cortex-a76", "trixie")])
def test_pixels_and_answers_are_the_same_as_on_the_host(core, system):
    same_as_on_the_host(verify_on(core, system=system))


@pytest.mark.parametrize("version", ["2.2.0", "2.3.0"])
def test_newer_runtimes_give_the_same_answers(version):
    same_as_on_the_host(verify_on("cortex-a72", wheels=f"litert-{version}"))


def test_every_preprocessing_path_is_bit_exact():
    script = ROOT / "tests" / "aarch64" / "pixels.py"
    here = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.splitlines()
    there = python_on("cortex-a72", script).stdout.splitlines()
    assert len(here) == 26 and there == here
