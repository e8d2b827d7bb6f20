"""Compiles an int8 network for the Edge TPU with Coral's edgetpu_compiler, and reads its log.

The compiler is closed and runs on x86-64 Linux only; lint (edgefer.tflite.placement) predicts its answer elsewhere.
"""

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from edgefer.bundle import Bundle, Form, write_bundle
from edgefer.errors import BundleError, MissingDependency, RuntimeFault
from edgefer.tflite.flatbuffer import compiled, ends, read_model
from edgefer.tflite.metadata import with_metadata
from edgefer.tflite.placement import MAPPED, place

COMPILER = "edgetpu_compiler"
TIMEOUT_S = 600  # the compiler gives up on its own after 180 s
# Lines of a failed log that do not say why.
NO_REASON = re.compile(
    r"Edge TPU Compiler version |Started a compilation timeout timer|Compilation child process completed|"
    r"Compilation failed!|ERROR: Restored original execution plan"
)
START_S = 60
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One line of the compiler's table: `count` operators of a kind, mapped (MAPPED) or the reason why not."""

    operator: str
    count: int
    status: str


@dataclass(frozen=True, kw_only=True)
class CompilerLog:
    """The log of edgetpu_compiler. Bytes are of the network's parameters; None if the log does not say."""

    version: str
    outcomes: tuple[Outcome, ...]
    cached_bytes: int | None
    cache_left_bytes: int | None
    streamed_bytes: int | None  # fetched again for every image

    @property
    def mapped(self) -> int:
        return sum(outcome.count for outcome in self.outcomes if outcome.status == MAPPED)

    @property
    def on_cpu(self) -> int:
        return sum(outcome.count for outcome in self.outcomes) - self.mapped

    @property
    def summary(self) -> str:
        """Where operators run and parameters are stored, in one line."""
        figures = (self.cached_bytes, self.cache_left_bytes, self.streamed_bytes)
        cached, left, streamed = ("?" if figure is None else f"{figure:,}" for figure in figures)
        return (
            f"{self.mapped} operators mapped to the Edge TPU, {self.on_cpu} on the CPU. Parameters: {cached} bytes cached on "
            f"the chip ({left} left), {streamed} fetched again for every image."
        )


def parse_log(text: str) -> CompilerLog:
    """Parse the output of `edgetpu_compiler -s` (tested with version 16.0); RuntimeFault for any other text."""
    version = re.search(r"^Edge TPU Compiler version (\S+)", text, re.MULTILINE)
    if not version:
        raise RuntimeFault(f"{COMPILER} wrote no log that edgefer can read; it begins {text[:60]!r}.")
    table = re.findall(r"^([A-Z][A-Z0-9_]*|\S+-custom-op)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", text, re.MULTILINE)
    return CompilerLog(
        version=version[1],
        outcomes=tuple(Outcome(operator=name, count=int(count), status=status) for name, count, status in table),
        cached_bytes=_bytes(text, "On-chip memory used for caching model parameters"),
        cache_left_bytes=_bytes(text, "On-chip memory remaining for caching model parameters"),
        streamed_bytes=_bytes(text, "Off-chip memory used for streaming uncached model parameters"),
    )


def find_compiler() -> str:
    """The compiler's path; MissingDependency if it is not installed, or cannot run on this machine."""
    program = shutil.which(COMPILER)
    if program is None:
        raise MissingDependency(
            f"{COMPILER} is not on PATH; it runs on x86-64 Linux only (not on a Raspberry Pi): get it from Coral's apt "
            "repository, https://coral.ai/docs/edgetpu/compiler, and convert there, or leave --edgetpu out and see "
            "`edgefer lint BUNDLE --target edgetpu` for what it would do."
        )
    try:
        subprocess.run([program, "--version"], capture_output=True, timeout=START_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or f"it does not answer in {START_S} s"
        raise MissingDependency(
            f"{program} cannot be run ({reason}): it needs x86-64 Linux; convert there, or leave --edgetpu out."
        ) from None
    return program


def compile_int8(content: bytes) -> tuple[bytes, CompilerLog, str]:
    """An int8 .tflite compiled for the Edge TPU, with the compiler's log, parsed and as text.

    MissingDependency without a compiler; RuntimeFault when it fails, or maps no operator.
    """
    program = find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "int8.tflite", Path(folder) / "int8_edgetpu.tflite"
        source.write_bytes(content)
        command = [program, "-s", "-o", folder, str(source)]
        try:
            done = subprocess.run(
                command, cwd=folder, timeout=TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFault(f"{COMPILER} did not finish in {TIMEOUT_S} s: the network may be too large.") from None
        text = done.stdout.decode(errors="replace").replace(folder, ".")
        if done.returncode or not target.is_file():
            raise RuntimeFault(f"{COMPILER} failed (exit code {done.returncode}): {_complaint(text)}.")
        result = target.read_bytes()
    log = parse_log(text)
    model = read_model(result, target.name)
    if not compiled(model):
        reasons = ", ".join(f"{o.count} {o.operator} {o.status}" for o in log.outcomes) or _complaint(text)
        raise RuntimeFault(f"{COMPILER} mapped no operator to the Edge TPU: {reasons}.")
    if ends(model) != ends(read_model(content, source.name)):
        raise RuntimeFault(f"{COMPILER} {log.version} wrote a network with another input or output.")
    return result, log, text


def add_compiled(bundle: Bundle) -> tuple[Bundle, CompilerLog]:
    """Compile the bundle's int8 network and add it to the bundle, with the compiler's log in its report."""
    if not bundle.has(Form.INT8):
        raise BundleError(
            f"{bundle.path} holds no int8 network, and the Edge TPU runs nothing else: convert with --int8."
        )
    content, log, text = compile_int8(bundle.read(Form.INT8))
    content = with_metadata(content, bundle.card)  # the compiler may drop it
    files = {variant: bundle.read(variant) for variant in bundle.card.variants}
    files |= {Form.INT8_EDGETPU: content}
    figures = asdict(log) | {"mapped": log.mapped, "on_cpu": log.on_cpu}
    report = {"edgetpu.log": text.encode(), "edgetpu.json": json.dumps(figures, indent=2).encode() + b"\n"}
    return write_bundle(bundle.path, bundle.card, files, report), log


def predicted(bundle: Bundle) -> str:
    """Lint's prediction for the bundle's int8 network, in one line, for when the compiler did not run."""
    placements = place(read_model(bundle.read(Form.INT8), str(bundle.file(Form.INT8))).main)
    return (
        f"lint predicts that {sum(p.mapped for p in placements)} of {len(placements)} operators would run on it: "
        f"edgefer lint {bundle.path} --target edgetpu"
    )


def _bytes(text: str, what: str) -> int | None:
    found = re.search(rf"^{re.escape(what)}: ([\d.]+)({'|'.join(UNITS)})\b", text, re.MULTILINE)
    return round(float(found[1]) * UNITS[found[2]]) if found else None


def _complaint(text: str) -> str:
    """Why it failed: the last two lines of its log that say anything."""
    lines = [line.strip().rstrip(".!") for line in text.splitlines() if line.strip() and not NO_REASON.match(line)]
    return "; ".join(lines[-2:]) or "it gives no reason"
