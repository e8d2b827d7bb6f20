"""edgefer export: the network for the browser and for microcontrollers."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefer.commands.app import App
from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import AsJson, PairFlags, bundle_path
from edgefer.commands.page_rules import device_of
from edgefer.options import DetectorFiles, ReaderOptions, Smoothing

app = App(
    help="Write a network for the browser or for a microcontroller, with the proof that it is the same one.",
)
Bundle_ = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of a shipped one.")]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write: new, empty, or an earlier export.")]
Prove = Annotated[
    bool, typer.Option("--prove", help="Also run the self-test of every target whose tools are installed.")
]
Serve = Annotated[bool, typer.Option("--serve", help="Then serve it to this machine's browser, until Ctrl-C.")]
ProvePage = Annotated[bool, typer.Option("--prove", help="Also run the page's self-test in Chromium, if installed.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port for --serve; 0 takes any free one.")]
Labels = Annotated[
    str,
    typer.Option(
        metavar="A,B,...", help="Labels to show instead of the network's, in their order, such as in your language."
    ),
]
Smooth = Annotated[Smoothing, typer.Option(help="Initial smoothing of the page, as in `edgefer run`.")]
Reject = Annotated[
    float,
    typer.Option(min=0, max=0.9, metavar="SCORE", help="Initial threshold of the page: unsure below this score."),
]


@app.command()
def c(bundle: Bundle_, out: Folder, prove: Prove = False, as_json: AsJson = False) -> None:
    """Write a network as portable C99 with its self-test.

    No heap, no libc. `make test`, `make arm` and `make riscv` in OUT test it on this host, on a Cortex-M4 and on
    RV32IMC in QEMU. Exit code 1 if the C code does not give the stored answers.

    - `edgefer export c fer-nano out/`
    - `edgefer export c fer-nano out/ --prove`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.c.subject import read_subject
    from edgefer.commands.check_report import report
    from edgefer.convert.c.project import export_c
    from edgefer.convert.c.targets import prove_targets
    from edgefer.convert.exported import check_folder, record

    check_folder(out)
    opened = Bundle.open(bundle_path(bundle))
    subject = read_subject(opened)
    checks = export_c(subject, out)
    if prove:
        checks += prove_targets(out)
        record(out, checks)
    facts: dict[str, Any] = {
        "network_bytes": 4 * len(subject.program.words),
        "arena_bytes": subject.program.plan.size,
        "multiply_adds": subject.network.macs,
    }
    if not as_json:
        flash, ram, macs = facts.values()
        console.show(
            f"{out}: {flash:,} bytes of flash for the network, {ram:,} bytes of RAM for its arena, {macs:,} multiply-adds"
        )
        console.show(f"Next: make -C {shlex.quote(str(out))} test; then {out / 'README.md'}")
    report(f"{opened.path} in C", checks, as_json=as_json, bundle=opened.hash, out=str(out), **facts)


@dataclass(frozen=True, kw_only=True)
class PageFlags:
    """What the page shows at first, and whether it is served and tested."""

    serve: Serve = False
    prove: ProvePage = False
    port: Port = 8080
    labels: Labels = ""
    smooth: Smooth = ReaderOptions.smooth
    reject: Reject = ReaderOptions.reject


@app.command()
@grouped
def web(bundle: Bundle_, out: Folder, *, page: PageFlags, pair: PairFlags, as_json: AsJson = False) -> None:
    """Write a network as a static web page that works offline.

    Camera, photos, labels; images never leave the browser. It runs its self-test before it enables the camera. Any static
    server will do; phones need https for the camera. Exit code 1 if the C code does not give the stored answers.

    - `edgefer export web ferplus-small site/ --serve`
    - `edgefer export web fer-nano site/ --labels wütend,Ekel,Angst,froh,traurig,überrascht,neutral --reject 0.6`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.c.subject import read_subject
    from edgefer.commands.check_report import report
    from edgefer.convert.c.targets import prove_page
    from edgefer.convert.exported import check_folder, record
    from edgefer.convert.web.serve import serve as serve_folder
    from edgefer.convert.web.site import download_bytes, export_web

    check_folder(out)
    opened = Bundle.open(bundle_path(bundle))
    files = DetectorFiles(**vars(pair))
    device = device_of(opened.card, labels=page.labels, smooth=page.smooth, reject=page.reject, files=files)
    checks = export_web(read_subject(opened), device, out)
    if page.prove:
        checks.append(prove_page(out))
        record(out, checks)
    size = download_bytes(out)
    if not as_json:
        console.show(
            f"{out}: {size:,} bytes to download, compressed. {out / 'README.md'} explains how to get it onto a phone."
            + ("" if page.serve else " Try it here with --serve.")
        )
    report(f"{opened.path} as a page", checks, as_json=as_json, bundle=opened.hash, out=str(out), gzip_bytes=size)
    if page.serve:
        say = console.log if as_json else console.show
        serve_folder(out, page.port, lambda address: say(f"{address} (this machine only; Ctrl-C ends)"))
