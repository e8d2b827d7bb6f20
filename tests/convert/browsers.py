"""The browsers that an exported page is tried in, each opened by its own command, without a driver."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from conftest import CHROMIUM, FIREFOX, MINIBROWSER

ENGINES = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("chromium", "firefox", "webkit")]
FIREFOX_PREFS = {  # its camera shows changing images without a face; nothing but the page is downloaded
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "services.settings.server": "data:,",
    "app.normandy.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}


@contextmanager
def opened(engine: str, address: str, profile: Path, *flags: str):
    """The engine's browser at an address, with a new profile, until the block ends; flags are of its command line."""
    profile.mkdir()
    with screen() if engine == "webkit" else nullcontext({}) as display:
        command = {"chromium": _chromium, "firefox": _firefox, "webkit": _webkit}[engine](profile)
        environment = os.environ | {"HOME": str(profile)} | display
        browser = subprocess.Popen(
            [*command, *flags, address],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            yield
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()


@contextmanager
def screen():
    """An X server without a screen, as the environment that names it: WebKitGTK opens no page without a display."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1400x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield {"DISPLAY": f":{server.stdout.readline().strip()}", "GDK_BACKEND": "x11"}
    finally:
        server.terminate()
        server.wait()


def _chromium(profile: Path) -> list[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    return [CHROMIUM, *flags, f"--user-data-dir={profile}"]


def _firefox(profile: Path) -> list[str]:
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in FIREFOX_PREFS.items())
    (profile / "user.js").write_text("\n".join(lines))
    return [FIREFOX, "--headless", "--no-remote", "--profile", str(profile)]


def _webkit(profile: Path) -> list[str]:
    return [MINIBROWSER]
