"""The systemd unit for `edgefer run`: restarted when it fails or hangs, and sandboxed."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgefer.errors import InputError
from edgefer.text import printable

NAME = "edgefer"
FILE = Path(f"/etc/systemd/system/{NAME}.service")
SECRETS = Path(f"/etc/{NAME}.env")  # EDGEFER_TOKEN=..., EDGEFER_*_PASSWORD=...; systemd reads it as root
MAX_LINKS = 20
WATCHDOG_S = 30  # more than twice the time limit of a hung call (edgefer.devices.threads.HANG_S)

_UNIT = """\
# Written by `edgefer service install`.
[Unit]
Description=edgefer: facial expressions
After=network.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=on-failure
RestartSec=5
WatchdogSec={watchdog}
TimeoutStopSec=30
MemoryMax={memory}M
{user}
SupplementaryGroups={groups}
StateDirectory={name}
CacheDirectory={name}
WorkingDirectory=%S/{name}
Environment=XDG_CACHE_HOME=%C/{name}
EnvironmentFile=-{secrets}
UMask=0077
# A core dump would contain camera images.
LimitCORE=0

# Access only to the cameras, a Coral, the network and its own folder.
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=char-dma_heap rw
DeviceAllow=char-usb_device rw
DeviceAllow=char-apex rw
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(
    program: Sequence[str],
    arguments: Sequence[str],
    *,
    memory_mb: int,
    user: str = "",
    groups: Sequence[str],
    low_port: bool = False,
) -> str:
    """The unit's text. program, arguments: the command line. user: "" for a dynamic one (DynamicUser).

    groups: for access to devices, such as video. low_port: it serves on a port below 1024, which needs a capability.
    InputError for a command line that systemd cannot run.
    """
    return _UNIT.format(
        command=" ".join([executable(program[0]), *(quoted(word) for word in (*program[1:], *arguments))]),
        watchdog=WATCHDOG_S,
        memory=memory_mb,
        user=f"User={user}" if user else "DynamicUser=yes",
        groups=" ".join(groups),
        capabilities="CAP_NET_BIND_SERVICE" if low_port else "",
        name=NAME,
        secrets=SECRETS,
    )


# systemd.service(5) expands $ and %, and splits at spaces; a new line would begin another setting of the unit.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "%": "%%", "$": "$$"})


def quoted(word: str) -> str:
    """A word of ExecStart, quoted so that it reaches the program unchanged. InputError if it is not UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise InputError(f"{printable(word)} is not UTF-8, which systemd requires: rename it.") from None
    return f'"{word.translate(_ESCAPES)}"' if not word or set(word) & set(" \t\n\r;'\"\\") else word.translate(_ESCAPES)


def executable(path: str) -> str:
    """The first word of ExecStart, in which systemd expands no $, and accepts no quote or backslash: InputError."""
    if set(path) & set("'\"\\") or not path.isprintable():
        raise InputError(
            f"systemd cannot start {printable(path)}, whose path holds a quote, a backslash or a control character: "
            "install edgefer in another folder."
        )
    return quoted(path).replace("$$", "$")


def shut_folder(file: Path) -> Path | None:
    """The first folder on the path to `file` that others may not enter, or the file if they may not read it; else None.

    A dynamic user of systemd only has the permissions of others. Links are followed one by one: a venv's python links to
    an interpreter that may be in a home directory.
    """
    for step in _steps(file):
        mode = step.stat().st_mode
        if (stat.S_ISDIR(mode) and not mode & stat.S_IXOTH) or (stat.S_ISREG(mode) and not mode & stat.S_IROTH):
            return step
    return None


def in_private_folder(file: Path) -> bool:
    """Whether the service cannot see `file`, because PrivateTmp gives it folders of its own in that place."""
    return any(one.is_relative_to(folder) for one in (file, file.resolve()) for folder in ("/tmp", "/var/tmp"))


def _steps(file: Path, depth: int = 0) -> Iterator[Path]:
    """Every folder and file on the path to `file`, including the targets of links."""
    path = Path("/")
    for part in file.absolute().parts[1:]:
        path = path / part
        if path.is_symlink() and depth < MAX_LINKS:
            yield from _steps(path.parent / os.readlink(path), depth + 1)
        elif path.exists():
            yield path
        else:
            return


def interpreter_of(script: Path) -> Path | None:
    """The interpreter in a script's first line, None if there is none."""
    try:
        with script.open("rb") as opened:
            line = opened.readline(512)
    except OSError:
        return None
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    return Path(words[0]) if words and words[0].startswith("/") else None


def systemd_is_here() -> bool:
    """Whether systemd is the init system (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")
