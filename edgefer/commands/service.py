"""The commands of a board that is left running: service install, uninstall, status."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefer.errors import EdgeferError, InputError

NO_SYSTEMD = "systemd does not run this computer: `edgefer service install --print` shows the unit."
app = typer.Typer(no_args_is_help=True, help="Leave `edgefer run` running under systemd.", rich_markup_mode=None)


@app.command()
def install(
    arguments: Annotated[
        list[str], typer.Argument(metavar="-- RUN-ARGUMENTS", help="Those of `edgefer run`, such as -- --camera 0.")
    ],
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Run as this user; by default as one that systemd makes up.")
    ] = "",
    print_only: Annotated[bool, typer.Option("--print", help="Show the unit and change nothing.")] = False,
) -> None:
    """Start `edgefer run` now and whenever this computer starts.

    It is restarted when it fails or hangs. Relative output files lie in /var/lib/edgefer. Needs root.
    """
    import grp
    import pwd
    import sys

    from edgefer import console
    from edgefer.bundle import write_file
    from edgefer.devices.board import service
    from edgefer.devices.board.boards import this_board

    words = _run_arguments(arguments)
    if user and user not in {known.pw_name for known in pwd.getpwall()}:
        raise InputError(f"There is no user {user!r} here: name one with --user, such as yours, or leave it out.")
    program = _program()
    names = {group.gr_name for group in grp.getgrall()}
    groups = [name for name in ("video", "render", "plugdev") if name in names]
    text = service.unit(program, ["run", *words], memory_mb=this_board().service_memory_mb, user=user, groups=groups)
    if print_only:
        console.show(text.rstrip())
        return
    needed = [Path(sys.executable), Path(program[0]), *(Path(word) for word in words if word.startswith("/"))]
    shut = next(
        (folder for file in needed if not user and file.exists() and (folder := service.shut_folder(file))), None
    )
    if shut:
        raise InputError(
            f"A service's own user cannot enter {shut}: name yours with --user, or install edgefer and keep the bundle "
            "under /opt."
        )
    _check_root("install")
    write_file(service.FILE, text.encode())
    service.FILE.chmod(0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", service.NAME)
    _systemctl("restart", service.NAME)
    console.say(
        f"Installed {service.FILE} and started it. See: edgefer service status; journalctl -u {service.NAME} -f"
    )


@app.command()
def uninstall() -> None:
    """Stop the service and remove it. What it saved under /var/lib/edgefer stays. Needs root."""
    from edgefer import console
    from edgefer.devices.board import service

    if not service.FILE.exists():
        raise InputError(f"There is no service to remove: {service.FILE} is not there.")
    _check_root("uninstall")
    _systemctl("disable", "--now", service.NAME)
    service.FILE.unlink()
    _systemctl("daemon-reload")
    console.say(f"Removed {service.FILE}.")


@app.command()
def status() -> None:
    """Say how the service is. Exit code 1 when it does not run."""
    from edgefer import console
    from edgefer.devices.board import service

    wanted = ("ActiveState", "SubState", "StatusText", "NRestarts", "MemoryCurrent", "ActiveEnterTimestamp")
    lines = _systemctl("show", service.NAME, *(f"--property={name}" for name in wanted)).splitlines()
    told = dict(line.split("=", 1) for line in lines if "=" in line)
    memory = told.get("MemoryCurrent", "")
    console.show(
        f"{service.NAME} is {told.get('ActiveState')} ({told.get('SubState')}), {told.get('StatusText') or 'says nothing'}"
    )
    console.show(
        f"since {told.get('ActiveEnterTimestamp') or 'never'}, restarted {told.get('NRestarts', '0')} times"
        + (f", {int(memory) / 1e6:.0f} MB" if memory.isdigit() else "")
    )
    if told.get("ActiveState") != "active":
        console.show(f"Why: journalctl -u {service.NAME} -n 30")
        raise typer.Exit(1)


def _run_arguments(arguments: list[str]) -> list[str]:
    """The arguments of `edgefer run`, seen to be right. What they read is named from the root, as the service runs in a
    folder of its own; what they write lies there."""
    from edgefer.bundle import newest_bundle
    from edgefer.commands.run import run
    from edgefer.devices.board import service

    one = typer.Typer(add_completion=False)
    one.command()(run)
    command = typer.main.get_command(one)
    given = arguments[1:] if arguments[:1] == ["run"] else arguments
    words: list[str] = []
    with command.make_context("edgefer run", list(given)) as context:
        params = context.params
        for param in command.get_params(context):
            name = str(param.name)
            value: Any = params.get(name)
            source = context.get_parameter_source(name)
            if source is None or source.name != "COMMANDLINE":
                continue
            if name in ("bundle", "source", "detector_file") and Path(value).exists():
                value = Path(value).absolute()
            if name == "bundle":
                words.insert(0, str(value))
            elif isinstance(value, bool):
                words.append((param.opts if value else param.secondary_opts)[0])
            else:
                words += [param.opts[0], str(value)]
    if (params["camera"] is None) == (not params["source"]):
        raise InputError("Name one input after --: --camera 0, or --source with a stream, such as `-- --camera 0`.")
    if params["save"]:
        raise InputError("A service that is started again would find its --save file there and stop: use --csv.")
    if params["csv"] and len(params["csv"].parts) > 1:
        raise InputError(
            f"A service may write nowhere but in /var/lib/{service.NAME}, where its --csv lies: give it a name alone, "
            f"such as {params['csv'].name}."
        )
    if "--token" in words or any(re.search(r"//\S*:\S*@", params[name]) for name in ("mqtt", "source")):
        raise InputError(
            "All users can read a service's command line: put EDGEFER_TOKEN=..., EDGEFER_MQTT_PASSWORD=... and "
            f"EDGEFER_SOURCE_PASSWORD=... into {service.SECRETS}, for root alone (chmod 600), and leave them out here."
        )
    if params["bundle"] is None and (newest := newest_bundle()):
        words = [str(newest.absolute()), *words]
    live = params["camera"] is not None or "://" in params["source"] or params["source"].startswith("gst:")
    return words + ["--headless"] * (not params["headless"]) + ["--wait"] * (live and not params["wait"])


def _program() -> list[str]:
    """How this very edgefer is started, by its whole path: neither systemd nor sudo looks into a venv."""
    import shutil
    import sys

    script = Path(sys.argv[0]).absolute()
    found = str(script) if script.name == "edgefer" else shutil.which("edgefer")
    return [found] if found else [sys.executable, "-m", "edgefer.cli"]


def _check_root(verb: str) -> None:
    import os

    from edgefer.devices.board import service

    if os.geteuid() != 0:
        raise EdgeferError(
            f"To {verb} a service one must be root: sudo {' '.join(_program())} service {verb} ... (install --print only shows it)."
        )
    if not service.systemd_is_here():
        raise EdgeferError(NO_SYSTEMD)


def _systemctl(*arguments: str) -> str:
    import subprocess

    from edgefer.devices.board.service import systemd_is_here

    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise EdgeferError("There is no systemctl here: a service needs systemd.") from None
    except subprocess.TimeoutExpired:
        raise EdgeferError(
            f"systemctl {' '.join(arguments)} gave no answer in 60 s: journalctl -u edgefer -n 30"
        ) from None
    if done.returncode:
        if not systemd_is_here():
            raise EdgeferError(NO_SYSTEMD)
        raise EdgeferError(
            f"systemctl {' '.join(arguments)} failed: {' '.join(done.stderr.split()) or done.returncode}."
        )
    return done.stdout
