"""What a conversion adds for other runtimes: networks compiled for accelerators, ONNX, and the proof in C."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from edgefer.bundle import Bundle
from edgefer.c.prove import check_in_c
from edgefer.checks import Check, Status, table, to_json
from edgefer.convert import edgetpu, ethosu, onnx
from edgefer.errors import EdgeferError, InputError
from edgefer.files import write_file
from edgefer.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class Extras:
    """edgetpu: compile for a Coral Edge TPU. ethosu: for this Arm Ethos-U, "" for none. onnx: write int8.onnx."""

    edgetpu: bool = False
    ethosu: str = ""
    onnx: bool = False

    def check(self, int8: bool) -> None:
        """InputError or MissingDependency, before any work, if something cannot be added."""
        for option, asked in (("--edgetpu", self.edgetpu), ("--ethosu", self.ethosu), ("--onnx", self.onnx)):
            if asked and not int8:
                raise InputError(f"{option} is about the int8 network: leave --no-int8 out.")
        if self.edgetpu:
            edgetpu.find_compiler()
        if self.ethosu:
            ethosu.check_accelerator(self.ethosu)
        if self.onnx:
            onnx.find_tf2onnx()


@dataclass(frozen=True, kw_only=True)
class Added:
    """The result of one extra: a table, a note, its checks, and a sentence on what failed, "" if nothing did."""

    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = field(default=(), repr=False)
    note: str = ""
    checks: tuple[Check, ...] = ()
    failure: str = ""


def add_extras(extras: Extras, bundle: Bundle, progress: Progress = SILENT) -> tuple[Bundle, list[Added]]:
    """The bundle with each extra in turn; a failure does not stop the others."""
    steps: dict[str, Callable[[Bundle], tuple[Bundle, Added]]] = {}
    if extras.edgetpu:
        steps["Compiling it for the Edge TPU"] = _add_edgetpu
    if extras.ethosu:
        steps[f"Compiling it for Ethos-{extras.ethosu.upper()}"] = lambda bundle: _add_ethosu(bundle, extras.ethosu)
    if extras.onnx:
        steps["Writing it as ONNX and checking it with ONNX Runtime"] = _add_onnx
    steps["Proving it in C"] = _prove_in_c
    added = []
    for description, step in steps.items():
        try:
            with progress.stage(description):
                bundle, one = step(bundle)
        except EdgeferError as error:
            one = _failed(str(error))
        except OSError as error:  # such as a full /tmp
            one = _failed(f"{description} failed: {error.strerror or error}.")
        added.append(one)
    return bundle, added


def _add_edgetpu(bundle: Bundle) -> tuple[Bundle, Added]:
    try:
        compiled, log = edgetpu.add_compiled(bundle)
    except EdgeferError as error:
        note = f"Not compiled for the Edge TPU. {edgetpu.predicted(bundle)}"
        return bundle, replace(_failed(str(error)), note=note)
    rows = [(outcome.operator, outcome.count, outcome.status) for outcome in log.outcomes]
    title = f"Edge TPU compiler {log.version}"
    return compiled, Added(title=title, columns=("operator", "count", "status"), rows=rows, note=log.summary)


def _add_ethosu(bundle: Bundle, accelerator: str) -> tuple[Bundle, Added]:
    compiled, report = ethosu.add_compiled(bundle, accelerator)
    title = f"Vela {report.version} for Ethos-{accelerator.upper()}, {report.system}, {report.memory}"
    return compiled, Added(title=title, columns=("", ""), rows=report.rows)


def _add_onnx(bundle: Bundle) -> tuple[Bundle, Added]:
    written, rows = onnx.add_onnx(bundle)
    return written, _checked("As ONNX", rows, "It stays in the bundle; do not use it.")


def _prove_in_c(bundle: Bundle) -> tuple[Bundle, Added]:
    """Check that the network's C code gives the stored answers on this host; saved in report/c.json."""
    rows = check_in_c(bundle)
    if rows:
        listed = json.dumps(to_json(rows, bundle=bundle.hash), indent=2)
        write_file(bundle.path / "report" / "c.json", listed.encode() + b"\n")
    return bundle, _checked("As C, which is what `edgefer export` writes", rows, "Do not export it, and report this.")


def _failed(problem: str) -> Added:
    return Added(failure=problem, checks=(Check(subject="conversion", status=Status.FAIL, detail=problem),))


def _checked(title: str, rows: list[Check], advice: str) -> Added:
    failed = "; ".join(f"{row.subject}: {row.detail}" for row in rows if not row.passed)
    columns, cells = table(rows)
    failure = f"It gives other answers there ({failed}). {advice}" if failed else ""
    return Added(title=title, columns=columns, rows=cells, checks=tuple(rows), failure=failure)
