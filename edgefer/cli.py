"""The `edgefer` command. Commands live in edgefer.commands and import what they need inside their bodies, so that `edgefer --help` is quick."""

import contextlib
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
    import_,
    lint,
    models,
    run,
    service,
    train,
    verify,
)
from edgefer.errors import EdgeferError
from edgefer.text import printable

app = typer.Typer(
    help="Facial expressions on small computers: train, convert to int8, prove parity, run on the device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an expected failure is one sentence and an exit code, never a traceback."""
    code = _run()
    if any(thread.name.startswith("edgefer-") for thread in threading.enumerate()):
        # A camera, detector or sink that is still at it. Python would end its thread in the midst of C++, which aborts the
        # process. All files are closed by now.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run() -> int:
    """The exit code."""
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except EdgeferError as error:
        print(f"edgefer: {printable(str(error), keep=chr(10))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgefer: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python does not complain again while it ends
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"edgefer: {printable(where)}{error.strerror or error}.", file=sys.stderr)
        return 1
    return 0


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


for command in (
    train.train,
    convert.convert,
    compare.compare,
    verify.verify,
    verify.parity,
    lint.lint,
    evaluate.evaluate,
    models.models,
    run.run,
    cameras.cameras,
    bench.bench,
    doctor.doctor,
    boards.boards,
    demo.demo,
):
    app.command()(command)
app.command("import")(import_.import_)
app.add_typer(data.data, name="data")
app.add_typer(service.app, name="service")


if __name__ == "__main__":
    main()
