"""edgefer export: the network for the browser and for microcontrollers."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import bundle_path

app = typer.Typer(
    help="Write a network for the browser or for a microcontroller, with the proof that it is the same one.",
    no_args_is_help=True,
)
Bundle_ = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory or the name of a shipped one.")]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write: new, empty, or an earlier export.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def c(bundle: Bundle_, out: Folder, as_json: AsJson = False) -> None:
    """Write a network as portable C99 with its self-test.

    No heap, no libc. `make test`, `make arm` and `make riscv` in OUT prove it on this host, on a Cortex-M4 and on
    RV32IMC in QEMU. Exit code 1 when the C does not give the stored answers.
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.checks import report
    from edgefer.convert.c.project import export_c
    from edgefer.convert.c.subject import read_subject
    from edgefer.convert.exported import check_folder

    check_folder(out)
    opened = Bundle.open(bundle_path(bundle))
    subject = read_subject(opened)
    checks = export_c(subject, out)
    if not as_json:
        flash, ram = 4 * len(subject.program.words), subject.program.plan.size
        console.show(
            f"{out}: {flash:,} bytes of constants, {ram:,} bytes of arena, {subject.network.macs:,} multiply-adds"
        )
        console.show(f"Next: make -C {out} test")
    report(f"{opened.path} in C", checks, as_json=as_json, bundle=opened.hash, out=str(out))
