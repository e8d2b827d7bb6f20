"""The `edgefer` command. Commands live in edgefer.commands and import lazily, so that `edgefer --help` is fast."""

import contextlib
import errno
import io
import os
import sys
import threading
from typing import Annotated

import typer

from edgefer import __version__
from edgefer.commands import (
    bench,
    boards,
    cameras,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    export,
    import_,
    lint,
    models,
    report,
    run,
    service,
    train,
    verify,
)
from edgefer.commands.app import App, without_passwords
from edgefer.errors import EdgeferError
from edgefer.shortage import shortage_of
from edgefer.text import printable

app = App(
    help="Facial expressions on small computers: train, convert to int8, prove parity, run on the device.",
    epilog="Exit codes: 0 success; 1 the command failed, or something that it checked did; 2 invalid input, or nothing could be "
    "checked; 130 interrupted by Ctrl-C. The help of each command has examples: `edgefer run --help`.",
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an expected failure is one sentence and an exit code, never a traceback."""
    if sys.platform == "win32":
        sys.exit("edgefer: Windows is not supported: use Linux, which WSL provides (wsl --install).")
    _repair_streams()
    code = _run()
    if any(thread.daemon for thread in threading.enumerate()):
        # A camera, detector or sink hangs. Python would end its thread in the middle of C++ code, which aborts the
        # process. All files are closed already.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _repair_streams() -> None:
    """Make stdout and stderr accept any text: characters outside their encoding are escaped, and if they were closed
    (`>&-`) output is discarded. Their descriptors are occupied then, or the next opened file would get what libraries print."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    """The exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except EdgeferError as error:
        _complain(f"edgefer: {printable(without_passwords(str(error)), keep=chr(10))}")
        return error.exit_code
    except KeyboardInterrupt:
        _complain("edgefer: stopped.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python does not report it again at exit
        return 1
    except Exception as error:
        return _report(error)
    return 0


def _complain(text: str) -> None:
    """Print to stderr, which may be a closed pipe or terminal: the exit code is the same then."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def _report(error: Exception) -> int:
    """The exit code, after a sentence about a shortage or an OSError; any other error is raised."""
    if sentence := shortage_of(error):
        _complain(f"edgefer: {sentence}")
        return 1
    if isinstance(error, OSError):
        where = without_passwords(f"{error.filename}: ") if error.filename else ""
        _complain(f"edgefer: {printable(where)}{error.strerror or error}.")
        return 2 if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1
    raise error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgefer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


PANELS = {
    "Read faces": (run.run, report.report, models.models),
    "Make a network": (train.train, import_.import_, convert.convert, compare.compare),
    "Prove it": (verify.verify, evaluate.evaluate, lint.lint),
    "The board": (doctor.doctor, cameras.cameras, bench.bench, boards.boards),
    "Try everything": (demo.demo,),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(command.__name__.strip("_"), rich_help_panel=panel)(command)
app.command(hidden=True)(verify.parity)  # names before 0.2
app.command("profiles", hidden=True)(compare.compare)
app.command("devices", hidden=True)(boards.boards)
app.add_typer(data.data, name="data", rich_help_panel="Make a network")
app.add_typer(export.app, name="export", rich_help_panel="Make a network")
app.add_typer(service.app, name="service", rich_help_panel="The board")


if __name__ == "__main__":
    main()
