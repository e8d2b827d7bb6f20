"""Compiles an int8 network for Arm's Ethos-U with Vela (ethos-u-vela), and reads its summary.

Vela's cycles are an estimate from its model of the NPU and its memories, not a measurement. The configuration is the
accelerator's default; a board's may differ.
"""

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from edgefer.bundle import ETHOSU_OPERATOR, Bundle, Form, write_bundle
from edgefer.errors import BundleError, InputError, MissingDependency, RuntimeFault
from edgefer.tflite.flatbuffer import Model, ends, read_model
from edgefer.tflite.metadata import with_metadata

ACCELERATORS = (
    "u55-32", "u55-64", "u55-128", "u55-256", "u65-256", "u65-512", "u85-128", "u85-256", "u85-512", "u85-1024", "u85-2048",
)  # fmt: skip
TIMEOUT_S = 600


@dataclass(frozen=True, kw_only=True)
class VelaReport:
    """Vela's report on a network. cycles, inference_ms: its estimate for one image at clock_mhz. system, memory: names of
    its configurations. on_npu: how many of the network's operators run there; cpu_operators: the names of the others."""

    version: str
    accelerator: str
    system: str
    memory: str
    on_npu: int
    cpu_operators: tuple[str, ...]
    cycles: int
    clock_mhz: float
    inference_ms: float
    sram_bytes: int
    flash_bytes: int
    dram_bytes: int

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Table rows: name, value."""
        return [
            ("operators on the NPU", f"{self.on_npu}"),
            ("operators on the CPU", ", ".join(self.cpu_operators) or "0"),
            ("cycles for one image, an estimate", f"{self.cycles:,}"),
            (f"ms at {self.clock_mhz:g} MHz, an estimate", f"{self.inference_ms:.3f}"),
            ("bytes of SRAM", f"{self.sram_bytes:,}"),
            ("bytes of flash", f"{self.flash_bytes:,}"),
            ("bytes of DRAM", f"{self.dram_bytes:,}"),
        ]


def check_accelerator(name: str) -> None:
    """InputError for an unknown accelerator, MissingDependency without Vela."""
    if name not in ACCELERATORS:
        raise InputError(f"--ethosu {name!r} is none of {', '.join(ACCELERATORS)}.")
    if find_spec("ethosu") is None:
        raise MissingDependency(
            "--ethosu needs Arm's compiler Vela, not installed here: pip install ethos-u-vela, or leave --ethosu out."
        )


def compile_int8(content: bytes, accelerator: str) -> tuple[bytes, VelaReport, str]:
    """An int8 .tflite compiled for the accelerator, with Vela's report, and its output as text.

    MissingDependency without Vela; RuntimeFault if it fails, or leaves every operator on the CPU.
    """
    check_accelerator(accelerator)
    with tempfile.TemporaryDirectory(prefix="edgefer-ethosu-") as folder:
        source = Path(folder) / "int8.tflite"
        source.write_bytes(content)
        command = [sys.executable, "-m", "ethosu.vela", str(source), "--show-cpu-operations"]
        command += ["--accelerator-config", f"ethos-{accelerator}", "--output-dir", folder]
        try:
            done = subprocess.run(
                command, cwd=folder, timeout=TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFault(f"Vela did not finish in {TIMEOUT_S} s: the network may be too large.") from None
        text = done.stdout.decode(errors="replace").replace(folder, ".")
        target, summaries = Path(folder) / "int8_vela.tflite", sorted(Path(folder).glob("int8_summary_*.csv"))
        if done.returncode or not target.is_file() or not summaries:
            lines = [line for line in text.splitlines() if line.strip()] or ["it wrote nothing"]
            raise RuntimeFault(f"Vela failed (exit code {done.returncode}): {lines[-1].strip().rstrip('.')}.")
        result = target.read_bytes()
        before, after = read_model(content, source.name), read_model(result, target.name)
        report = parse_report(accelerator, summaries[0].read_text(), _operators(before), _operators(after))
    if not report.on_npu:
        raise RuntimeFault(f"Vela leaves every operator on the CPU: {', '.join(report.cpu_operators)}.")
    if ends(before) != ends(after):
        raise RuntimeFault(f"Vela {report.version} wrote a network with another input or output.")
    return result, report, text


def _operators(model: Model) -> list[str]:
    return [operator.name for operator in model.operators]


def parse_report(accelerator: str, summary: str, before: Sequence[str], after: Sequence[str]) -> VelaReport:
    """Parse Vela's summary .csv (tested with 5.2). before, after: the operators' names before and after compiling, since
    Vela counts its own intermediate operators. RuntimeFault for any other .csv."""
    left = [name for name in after if name != ETHOSU_OPERATOR]
    try:
        (row,) = csv.DictReader(summary.splitlines())
        return VelaReport(
            version=version("ethos-u-vela"),
            accelerator=accelerator,
            system=row["system_config"],
            memory=row["memory_mode"],
            on_npu=max(0, len(before) - len(left)) if ETHOSU_OPERATOR in after else 0,
            cpu_operators=tuple(left),
            cycles=round(float(row["cycles_total"])),
            clock_mhz=float(row["core_clock"]) / 1e6,
            inference_ms=1000 * float(row["inference_time"]),
            sram_bytes=_bytes(row["sram_memory_used"]),
            flash_bytes=_bytes(row["off_chip_flash_memory_used"]) + _bytes(row["on_chip_flash_memory_used"]),
            dram_bytes=_bytes(row["dram_memory_used"]),
        )
    except (KeyError, ValueError) as error:
        raise RuntimeFault(f"Vela wrote a summary that edgefer cannot read ({error}): it supports Vela 5.2.") from None


def _bytes(kib: str) -> int:
    return round(1024 * float(kib))


def add_compiled(bundle: Bundle, accelerator: str) -> tuple[Bundle, VelaReport]:
    """Compile the bundle's int8 network and add it to the bundle, with Vela's report and output in its report."""
    if not bundle.has(Form.INT8):
        raise BundleError(f"{bundle.path} holds no int8 network, and Ethos-U runs nothing else: convert with --int8.")
    content, report, text = compile_int8(bundle.read(Form.INT8), accelerator)
    files = {variant: bundle.read(variant) for variant in bundle.card.variants}
    files |= {Form.INT8_ETHOSU: with_metadata(content, bundle.card)}
    figures = asdict(report) | {"cycles_are": "an estimate by Vela"}
    written = {"ethosu.log": text.encode(), "ethosu.json": json.dumps(figures, indent=2).encode() + b"\n"}
    return write_bundle(bundle.path, bundle.card, files, written), report
