"""What `edgefer convert` adds to a converted bundle for other runtimes: compiled, written as ONNX, proven in C."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefer.errors import EdgeferError, InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.checks import Check


@dataclass(frozen=True, kw_only=True)
class Extras:
    """edgetpu: compile for a Coral Edge TPU. ethosu: for this accelerator of Arm's, "" for none. onnx: write int8.onnx."""

    edgetpu: bool = False
    ethosu: str = ""
    onnx: bool = False

    def check(self, int8: bool) -> None:
        """InputError or MissingDependency before any work, where something cannot be added."""
        from edgefer.convert.edgetpu import find_compiler
        from edgefer.convert.ethosu import check_accelerator
        from edgefer.convert.onnx import find_tf2onnx

        for option, asked in (("--edgetpu", self.edgetpu), ("--ethosu", self.ethosu), ("--onnx", self.onnx)):
            if asked and not int8:
                raise InputError(f"{option} is about the int8 network: leave --no-int8 out.")
        if self.edgetpu:
            find_compiler()
        if self.ethosu:
            check_accelerator(self.ethosu)
        if self.onnx:
            find_tf2onnx()

    def add(self, converted: "Bundle") -> str:
        """Add each to the bundle and show what came of it; what failed, in sentences, "" where nothing did."""
        steps = [
            add_edgetpu if self.edgetpu else None,
            (lambda bundle: add_ethosu(bundle, self.ethosu)) if self.ethosu else None,
            add_onnx if self.onnx else None,
            prove_in_c,
        ]
        failed = []
        for step in filter(None, steps):
            try:
                converted = step(converted)
            except EdgeferError as error:
                failed.append(str(error))
                converted = type(converted).open(converted.path)
        return " ".join(failed)


def add_edgetpu(converted: "Bundle") -> "Bundle":
    """Compile for the Edge TPU and show the compiler's table."""
    from edgefer import console
    from edgefer.convert.edgetpu import add_compiled, predicted

    try:
        added, log = add_compiled(converted)
    except EdgeferError:
        console.show(f"Not compiled for the Edge TPU. {predicted(converted)}")
        raise
    console.show_table(
        f"Edge TPU compiler {log.version}",
        ("operator", "count", "status"),
        [(outcome.operator, outcome.count, outcome.status) for outcome in log.outcomes],
    )
    console.show(log.summary)
    return added


def add_ethosu(converted: "Bundle", accelerator: str) -> "Bundle":
    """Compile for an Ethos-U and show Vela's report."""
    from edgefer import console
    from edgefer.convert.ethosu import add_compiled

    added, report = add_compiled(converted, accelerator)
    title = f"Vela {report.version} for Ethos-{accelerator.upper()}, {report.system}, {report.memory}"
    console.show_table(title, ("", ""), report.rows)
    return added


def add_onnx(converted: "Bundle") -> "Bundle":
    """Write int8.onnx and show what ONNX Runtime answers. EdgeferError where it is another network."""
    from edgefer.convert.onnx import add_onnx

    added, rows = add_onnx(converted)
    _show("As ONNX", rows, "It stays in the bundle; do not use it.")
    return added


def prove_in_c(converted: "Bundle") -> "Bundle":
    """Show whether the network's C gives the stored answers on this host, and keep that in report/c.json."""
    import json

    from edgefer import checks
    from edgefer.bundle import write_file
    from edgefer.c.prove import check_in_c
    from edgefer.commands.inputs import report_folder

    rows = check_in_c(converted)
    if rows:
        listed = json.dumps(checks.to_json(rows, bundle=converted.hash), indent=2)
        write_file(report_folder(converted) / "c.json", listed.encode() + b"\n")
    _show("As C, which is what `edgefer export` writes", rows, "Do not export it, and report this.")
    return converted


def _show(title: str, rows: "list[Check]", advice: str) -> None:
    from edgefer import checks, console

    if rows:
        console.show_table(title, *checks.table(rows))
    if failed := [f"{row.subject}: {row.detail}" for row in rows if not row.passed]:
        raise EdgeferError(f"It is another network there ({'; '.join(failed)}). {advice}")
