"""The commands for unattended boards: service install, uninstall, status."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from edgefer.commands.app import App, Command
from edgefer.commands.inputs import AsJson, newest_made
from edgefer.commands.outputs import OutputFlags
from edgefer.commands.run_flags import FaceFlags, RuntimeFlags, SourceFlags
from edgefer.errors import EdgeferError, InputError
from edgefer.files import is_regular

# The parameters of run that may name input files.
INPUT_FILES = ("inputs", "bundle", "source", "yunet", "finder", "refiner", "mqtt_ca", "config")
Flags = TypeVar("Flags", SourceFlags, FaceFlags, OutputFlags, RuntimeFlags)
NO_SYSTEMD = "systemd is not running on this computer: `edgefer service install --print` shows the unit."
app = App(help="Run `edgefer run` as a systemd service.")


@app.command(context_settings={"ignore_unknown_options": True})  # run's options are taken without "--", too
def install(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="-- RUN-ARGUMENTS", help="Arguments for `edgefer run`, such as -- --camera 0."),
    ],
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Run as this user; by default as a dynamic user that systemd creates.")
    ] = "",
    print_only: Annotated[bool, typer.Option("--print", help="Show the unit and change nothing.")] = False,
) -> None:
    """Start `edgefer run` now and at every boot.

    It is restarted when it fails or hangs. Its output files go to /var/lib/edgefer. Needs root.

    - `edgefer service install --print -- --camera 0 --serve 8000`
    - `sudo .venv/bin/edgefer service install -- ferplus-small --camera 0`
    """
    import pwd

    from edgefer import console
    from edgefer.devices.board import service
    from edgefer.files import write_file

    words = _run_arguments(arguments)
    commands = _check_run(words)
    if user:
        try:
            pwd.getpwnam(user)  # pwd.getpwall would not list the users of a directory service
        except (KeyError, ValueError):
            raise InputError(
                f"There is no user {user!r} here: name one with --user, such as yours, or leave it out."
            ) from None
    program = _program()
    text = _unit(program, words, user)
    if print_only:
        console.show(text.rstrip())
        return
    _check_files(program, [*words, *commands], user)
    _check_root("install")
    write_file(service.FILE, text.encode())
    service.FILE.chmod(0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", service.NAME)
    _systemctl("restart", service.NAME)
    console.log(
        f"Installed {service.FILE} and started it. See: edgefer service status; journalctl -u {service.NAME} -f"
    )


def _unit(program: list[str], words: list[str], user: str) -> str:
    import grp

    from edgefer.devices.board import service
    from edgefer.devices.board.boards import this_board

    names = {group.gr_name for group in grp.getgrall()}
    return service.unit(
        program,
        ["run", *words],
        memory_mb=this_board().service_memory_mb,
        user=user,
        groups=[name for name in ("video", "render", "plugdev") if name in names],
        low_port=_serves_low_port(words),
    )


def _check_files(program: list[str], words: list[str], user: str) -> None:
    """InputError if the service could not start the program, or read its input files."""
    import sys

    from edgefer.devices.board import service

    interpreter = service.interpreter_of(Path(program[0]))
    if interpreter and not interpreter.exists():
        raise InputError(
            f"{program[0]} is for {interpreter}, which does not exist: install edgefer again, in a new venv."
        )
    needed = [Path(sys.executable), Path(program[0]), *(Path(word) for word in words if word.startswith("/"))]
    needed += [Path(sys.base_prefix), *([interpreter] if interpreter else [])]
    needed = [file for file in needed if os.path.exists(file)]
    if hidden := next((file for file in needed if service.in_private_folder(file)), None):
        raise InputError(f"A service has its own /tmp and /var/tmp, without {hidden}: move it, such as to /opt.")
    if user:
        return
    if shut := next(filter(None, map(service.shut_folder, needed)), None):
        raise InputError(
            f"A service's own user cannot enter {shut}: name yours with --user, or install edgefer, its Python and the bundle "
            "under /opt."
        )


@app.command()
def uninstall() -> None:
    """Stop the service and remove it.

    What it saved under /var/lib/edgefer stays. Needs root.

    - `sudo .venv/bin/edgefer service uninstall`
    """
    from edgefer import console
    from edgefer.devices.board import service

    if not service.FILE.exists():
        raise InputError(f"There is no service to remove: {service.FILE} is not there.")
    _check_root("uninstall")
    _systemctl("disable", "--now", service.NAME)
    service.FILE.unlink()
    _systemctl("daemon-reload")
    console.log(f"Removed {service.FILE}.")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the state of the service.

    How long it has been running, how often it was restarted, its memory and frame rate. Exit code 1 when it is not running.

    - `edgefer service status`
    - `edgefer service status --json`
    """
    import shlex

    from edgefer import console
    from edgefer.devices.board import service

    figures = ("MemoryCurrent", "NRestarts", "StateChangeTimestamp")
    wanted = ("LoadState", "ActiveState", "SubState", "StatusText", *figures)
    lines = _systemctl("show", service.NAME, *(f"--property={name}" for name in wanted)).splitlines()
    state = dict(line.split("=", 1) for line in lines if "=" in line)
    installed, active = state.get("LoadState") != "not-found", state.get("ActiveState") == "active"
    memory, restarts, since = (state.get(name, "") for name in figures)
    if as_json:
        console.show_json(
            {
                "service": service.NAME,
                "passed": active,
                "installed": installed,
                "state": state.get("ActiveState", ""),
                "substate": state.get("SubState", ""),
                "status": state.get("StatusText", ""),
                "since": since,
                "restarts": int(restarts) if restarts.isdecimal() else 0,
                "memory_bytes": int(memory) if memory.isdecimal() else None,
            }
        )
        raise typer.Exit(0 if active else 1)
    if not installed:
        raise EdgeferError(
            f"The service {service.NAME} is not installed: sudo {shlex.join(_program())} service install -- --camera 0"
        )
    console.show(
        f"{service.NAME} is {state.get('ActiveState')} ({state.get('SubState')}), {state.get('StatusText') or 'no status'}"
    )
    console.show(
        f"since {since or 'an unknown time'}, restarted {restarts or 0} times"
        + (f", {int(memory) / 1e6:.0f} MB" if memory.isdecimal() else "")
    )
    if not active:
        console.show(f"Why: journalctl -u {service.NAME} -n 30")
        raise typer.Exit(1)


def _run_arguments(arguments: list[str]) -> list[str]:
    """The validated arguments of `edgefer run`. Input files get absolute paths, since the service runs in its own folder;
    output files are in that folder."""
    from edgefer.commands.run_flags import sort_inputs
    from edgefer.devices.sources.cameras import is_camera, open_source

    words, params = _words(arguments)
    bundle, sources = sort_inputs(params["inputs"] or [], params["bundle"])
    sources += [*(params["camera"] or []), *(params["source"] or [])]
    if not sources:
        raise InputError("Name one input after --: --camera 0, or --source with a stream, such as `-- --camera 0`.")
    _check_outputs(params)
    _check_secrets(words, [params["mqtt"], *sources])
    if bundle is None and (newest := newest_made(reads=True)):
        words = [str(newest.absolute()), *words]
    live = all(is_camera(source) or open_source(source).live for source in sources)
    return words + ["--headless"] * (not params["headless"]) + ["--wait"] * (live and not params["wait"])


def _check_run(words: list[str]) -> list[str]:
    """The programs of --on. InputError for what `edgefer run` would refuse at its start, as far as nothing need be opened."""
    from edgefer.bundle import Bundle, Form
    from edgefer.commands.opening import check_outputs
    from edgefer.commands.run import run_options
    from edgefer.devices.faces.pair import pair_bundles
    from edgefer.devices.outputs.actions import parse_command
    from edgefer.devices.reader import check_detector, closed_source, load_classifier
    from edgefer.devices.sources.cameras import LiveOptions
    from edgefer.devices.threads import Rules
    from edgefer.options import DeviceName

    _, params = _words(words)

    def flags(kind: type[Flags]) -> Flags:
        return kind(**{one.name: params[one.name] for one in fields(kind)})

    options = run_options(
        params["inputs"], flags(SourceFlags), flags(FaceFlags), flags(OutputFlags), flags(RuntimeFlags)
    )
    bundle = Bundle.open(options.bundle)
    if options.reader.device is DeviceName.CORAL:
        bundle.file(Form.INT8_EDGETPU)
    else:
        load_classifier(bundle, options.reader, Rules())
    check_detector(options.reader.detector, options.reader, bundle.card)
    files = options.reader.files
    if files.finder or files.refiner:
        pair_bundles(files)
    if files.yunet and not is_regular(files.yunet):
        raise InputError(f"There is no file {files.yunet}: name YuNet's .onnx, or leave --yunet out.")
    check_outputs(
        options.outputs, closed_source(options.sources, options.source_options, LiveOptions()), bundle.card.labels
    )
    for source in options.sources:
        _check_source(source)
    programs = [parse_command(text.partition("=")[2])[0] for text in options.outputs.on or ()]
    if relative := next((one for one in programs if "/" in one and not os.path.isabs(one)), None):
        raise InputError(f"A service runs in its own folder, not here: name {Path(relative).absolute()} in --on.")
    return programs


def _check_source(name: str) -> None:
    """SourceError or MissingDependency for a source that cannot be read here. Opens no camera and no address."""
    from edgefer.devices.sources.cameras import is_camera, is_csi, open_source
    from edgefer.devices.sources.captures import picamera2

    if is_csi(name):
        picamera2()
    elif not is_camera(name) and not name.lower().startswith(("http:", "https:")):
        source = open_source(name)
        if not source.live:
            with source:
                pass


def _words(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments with absolute paths, and the parameters that `edgefer run` parses from them."""
    from edgefer.commands.run import run

    one = typer.Typer(add_completion=False)
    one.command(cls=Command)(run)
    command = typer.main.get_command(one)
    given = arguments[1:] if arguments[:1] == ["run"] else arguments
    words: list[str] = []
    with command.make_context("edgefer run", list(given)) as context:
        params = context.params
        for param in command.get_params(context):
            name = str(param.name)
            value: Any = params.get(name)
            source = context.get_parameter_source(name)
            values = list(value) if isinstance(value, list | tuple) else [value]
            if source is not None and source.name == "DEFAULT_MAP" and name in INPUT_FILES:
                _check_in_config(params["config"], values)
            if source is None or source.name != "COMMANDLINE":
                continue
            if name in INPUT_FILES:
                values = [Path(one).absolute() if os.path.exists(one) else one for one in values]
            if name == "inputs":
                words = [*map(str, values), *words]
            elif isinstance(value, bool):
                words.append((param.opts if value else param.secondary_opts)[0])
            else:
                words += [word for one in values for word in (param.opts[0], str(one))]
    return words, params


def _check_in_config(config: Path, values: list[Any]) -> None:
    """InputError for a file that a config file names relative to the current folder, since a service runs in its own."""
    for value in values:
        if os.path.exists(value) and not os.path.isabs(value):
            raise InputError(f"A service runs in its own folder, not here: in {config}, name {Path(value).absolute()}.")


def _check_outputs(params: dict[str, Any]) -> None:
    """InputError for an output that a service cannot write, or that would end it after a restart."""
    from edgefer.devices.board import service

    if params["save"]:
        raise InputError("A restarted service would find its --save file in place and stop: use --csv.")
    for option in params["snapshot_on"] or ():
        if _is_elsewhere(Path(option.partition("=")[2])):
            raise InputError(f"A service may only write to /var/lib/{service.NAME}: give --snapshot-on a folder there.")
    if params["csv"] and _is_elsewhere(params["csv"]):
        raise InputError(
            f"A service may only write to /var/lib/{service.NAME}, where its --csv goes: give only a file name, "
            f"such as {params['csv'].name}."
        )


def _is_elsewhere(path: Path) -> bool:
    return len(path.parts) > 1 or path.parts in (("/",), ("..",))


def _check_secrets(words: list[str], addresses: list[str]) -> None:
    from edgefer.devices.board import service
    from edgefer.devices.sources.urls import holds_secret

    if "--token" in words or any(holds_secret(address) for address in addresses):
        raise InputError(
            "All users can read a service's command line: put EDGEFER_TOKEN=..., EDGEFER_MQTT_PASSWORD=... and "
            f"EDGEFER_SOURCE_PASSWORD=... into {service.SECRETS}, readable only by root (chmod 600), and leave them out here."
        )


def _serves_low_port(words: list[str]) -> bool:
    """Whether the page or the metrics use a port that needs root or a capability."""
    from edgefer.commands.opening import parse_address

    _, params = _words(words)  # again, since they may be in a --config
    addresses = [(params[name], f"--{name}") for name in ("serve", "metrics") if params[name]]
    return any(0 < parse_address(*address)[1] < 1024 for address in addresses)


def _program() -> list[str]:
    """The command that starts this edgefer, as an absolute path: neither systemd nor sudo searches a venv."""
    import sys

    script = Path(sys.argv[0]).absolute()
    return [str(script)] if script.name == "edgefer" else [sys.executable, "-m", "edgefer.cli"]


def _check_root(verb: str) -> None:
    import shlex

    from edgefer.devices.board import service

    if os.geteuid() != 0:
        raise EdgeferError(
            f"You must be root to {verb} a service: sudo {shlex.join(_program())} service {verb} ... (install --print only shows it)."
        )
    if not service.systemd_is_here():
        raise EdgeferError(NO_SYSTEMD)


def _systemctl(*arguments: str) -> str:
    import subprocess

    from edgefer.devices.board.service import systemd_is_here

    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    except FileNotFoundError:
        raise EdgeferError("systemctl was not found: a service needs systemd.") from None
    except subprocess.TimeoutExpired:
        raise EdgeferError(
            f"systemctl {' '.join(arguments)} did not respond within 60 s: journalctl -u edgefer -n 30"
        ) from None
    if done.returncode:
        if not systemd_is_here():
            raise EdgeferError(NO_SYSTEMD)
        raise EdgeferError(
            f"systemctl {' '.join(arguments)} failed: {' '.join(done.stderr.split()) or done.returncode}."
        )
    return done.stdout
