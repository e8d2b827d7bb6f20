"""The second of two steps of proof: each target's self-test, run with the installed compilers, emulators and browsers."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgefer.c.host import program_version
from edgefer.checks import Check, Status, status_if

TIMEOUT_S = 300
TRIES = 3  # on a busy machine, Chromium's virtual time does not wait for WebAssembly to compile
TOO_LARGE = ("overflowed by", "are left for the stack")  # the linker's message, and the linker script's
COUNTS = re.compile(r"^(settings|pixels|answers): (\d+) of (\d+) differ$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One way to run the self-test: `make name` in the project, with its compiler and emulator."""

    name: str
    title: str
    compiler: str
    emulator: str
    packages: str
    flags: str


TARGETS = (
    Target(
        name="arm",
        title="STM32F405 (Cortex-M4)",
        compiler="arm-none-eabi-gcc",
        emulator="qemu-system-arm",
        packages="gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
        flags="-O2 -mcpu=cortex-m4 -mfpu=fpv4-sp-d16",
    ),
    Target(
        name="riscv",
        title="RV32IMC",
        compiler="riscv64-unknown-elf-gcc",
        emulator="qemu-system-riscv32",
        packages="gcc-riscv64-unknown-elf qemu-system-misc",
        flags="-O2 -march=rv32imc -mabi=ilp32",
    ),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def prove_targets(project: Path) -> list[Check]:
    """One row per target for an exported C project; NOT_CHECKED if its compiler or emulator is missing."""
    return [_prove(target, project) for target in TARGETS]


def _prove(target: Target, project: Path) -> Check:
    tools = target.compiler, target.emulator, "make"
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return _not_checked(target.title, f"{', '.join(missing)} not found", f"sudo apt install {target.packages}")
    command = ["make", "-s", target.name]
    try:
        done = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _not_checked(target.title, f"no answer within {TIMEOUT_S} s", f"make {target.name} in an export")
    finally:
        subprocess.run(["make", "-s", "clean"], cwd=project, capture_output=True, timeout=TIMEOUT_S, check=False)
    how = f"{program_version(target.compiler)}, {target.flags}; {program_version(target.emulator)}"
    counts = {name: (wrong, total) for name, wrong, total in COUNTS.findall(done.stdout)}
    if set(counts) != {"settings", "pixels", "answers"}:
        if any(message in done.stderr for message in TOO_LARGE):
            return _not_checked(target.title, "it does not fit this target's memory", "a smaller network")
        reason = (done.stderr.strip() or "it printed no result").splitlines()[0]
        return Check(question=3, subject=target.title, status=Status.FAIL, detail=f"{reason} ({how})")
    parts = ", ".join(f"{wrong} of {int(total):,} {name} differ" for name, (wrong, total) in sorted(counts.items()))
    return Check(question=3, subject=target.title, status=status_if(done.returncode == 0), detail=f"{parts} ({how})")


def prove_page(page: Path) -> Check:
    """The row of a browser for an exported page; NOT_CHECKED without Chromium."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        return _not_checked("browser", "no Chromium found", "sudo apt install chromium")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=20000"]
    try:
        for _ in range(TRIES):
            done = subprocess.run(
                [*command, (page / "index.html").resolve().as_uri()],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            if 'data-state="starting"' not in done.stdout:
                break
    except subprocess.TimeoutExpired:
        return _not_checked("browser", f"no answer within {TIMEOUT_S} s", "open index.html of an export")
    version = program_version(browser)
    rows = re.findall(r"<th[^>]*>([^<]+)</th><td[^>]*>([\d,]+)</td><td[^>]*>([\d,]+)</td>", done.stdout)
    state = re.search(r'<body data-state="(\w+)"', done.stdout)
    if state is None or state[1] == "starting":  # such as Ubuntu's snap of Chromium, which cannot read /tmp
        reason = "it did not open the page" if state is None else f"its self-test did not finish in {TRIES} tries"
        return _not_checked(version, reason, "open index.html of an export")
    if len(rows) < 4:
        return Check(question=3, subject=version, status=Status.FAIL, detail="the page could not run its self-test")
    engine = re.search(r"WebAssembly (with|without) SIMD", done.stdout)
    parts = ", ".join(f"{wrong} of {total} {name.lower()} differ" for name, wrong, total in rows[1:])
    detail = f"{parts} (WebAssembly {engine[1] if engine else 'without'} SIMD)"
    return Check(question=3, subject=version, status=status_if(state[1] == "ready"), detail=detail)


def _not_checked(subject: str, reason: str, fix: str) -> Check:
    return Check(question=3, subject=subject, status=Status.NOT_CHECKED, detail=reason, fix=fix)
