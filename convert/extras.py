"""What a conversion adds for other runtimes: compiled networks, ONNX, and the proof that the network's C answers alike."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from edgefer import checks
from edgefer.bundle import Bundle, write_file
from edgefer.c.prove import check_in_c
from edgefer.checks import Check
from edgefer.convert import edgetpu, ethosu, onnx
from edgefer.errors import EdgeferError, InputError


@dataclass(frozen=True, kw_only=True)
class Extras:
    """edgetpu: compile for a Coral Edge TPU. ethosu: for this accelerator of Arm's, "" for none. onnx: write int8.onnx."""

    edgetpu: bool = False
    ethosu: str = ""
    onnx: bool = False

    def check(self) -> None:
        """InputError or MissingDependency before any work, where something cannot be added."""
        if self.edgetpu:
            edgetpu.find_compiler()
        if self.ethosu:
            ethosu.check_accelerator(self.ethosu)
        if self.onnx:
            onnx.find_tf2onnx()

    def need_int8(self) -> None:
        """InputError where there will be no int8 network to add anything of."""
        for option, asked in (("--edgetpu", self.edgetpu), ("--ethosu", self.ethosu), ("--onnx", self.onnx)):
            if asked:
                raise InputError(f"{option} is about the int8 network: leave --no-int8 out.")


@dataclass(frozen=True, kw_only=True)
class Added:
    """What came of one of them: a table, a line below it, and what does not hold, "" where all does."""

    title: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    line: str = ""
    complaint: str = ""


def add_extras(bundle: Bundle, extras: Extras) -> tuple[Bundle, tuple[Added, ...]]:
    """The bundle with all of them, and what came of each. One that fails stops none of the others."""
    steps: list[Callable[[Bundle], tuple[Bundle, Added]]] = []
    if extras.edgetpu:
        steps.append(_add_edgetpu)
    if extras.ethosu:
        steps.append(lambda before: _add_ethosu(before, extras.ethosu))
    if extras.onnx:
        steps.append(_add_onnx)
    found = []
    for step in (*steps, _prove_in_c):
        try:
            bundle, added = step(bundle)
        except EdgeferError as error:
            added = Added(complaint=str(error))
        found.append(added)
    return bundle, tuple(found)


def _add_edgetpu(bundle: Bundle) -> tuple[Bundle, Added]:
    try:
        made, log = edgetpu.add_compiled(bundle)
    except EdgeferError as error:
        line = f"Not compiled for the Edge TPU. {edgetpu.predicted(bundle)}"
        return bundle, Added(line=line, complaint=str(error))
    rows = tuple((outcome.operator, str(outcome.count), outcome.status) for outcome in log.outcomes)
    title = f"Edge TPU compiler {log.version}"
    return made, Added(title=title, columns=("operator", "count", "status"), rows=rows, line=log.summary)


def _add_ethosu(bundle: Bundle, accelerator: str) -> tuple[Bundle, Added]:
    made, report = ethosu.add_compiled(bundle, accelerator)
    title = f"Vela {report.version} for Ethos-{accelerator.upper()}, {report.system}, {report.memory}"
    return made, Added(title=title, columns=("", ""), rows=tuple(report.rows))


def _add_onnx(bundle: Bundle) -> tuple[Bundle, Added]:
    made, rows = onnx.add_onnx(bundle)
    return made, _table("As ONNX", rows, "int8.onnx stays in the bundle; do not use it.")


def _prove_in_c(bundle: Bundle) -> tuple[Bundle, Added]:
    """What the C gives on this host, kept in report/c.json."""
    rows = check_in_c(bundle)
    if rows:
        listed = json.dumps(checks.to_json(rows, bundle=bundle.hash), indent=2)
        write_file(bundle.path / "report" / "c.json", listed.encode() + b"\n")
    return bundle, _table("As C, which is what `edgefer export` writes", rows, "Do not export it, and report this.")


def _table(title: str, rows: list[Check], advice: str) -> Added:
    if not rows:
        return Added()
    columns, cells = checks.table(rows)
    failed = [f"{row.subject}: {row.detail}" for row in rows if not row.passed]
    complaint = f"It is another network there ({'; '.join(failed)}). {advice}" if failed else ""
    return Added(title=title, columns=columns, rows=tuple(cells), complaint=complaint)
