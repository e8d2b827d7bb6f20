"""Settings that change during a run."""

import threading
import time
from types import SimpleNamespace

import pytest

from edgefer.devices.outputs.settings import Controls, LiveSettings, RunSettings
from edgefer.errors import EdgeferError


@pytest.fixture
def controls():
    """Makes Controls that are asked to switch from the detector `own` to `other`, which a function opens."""

    def make(opens):
        settings = LiveSettings(
            RunSettings(smooth="off", reject=0.0, detector="own"), smooths=("off",), detectors=("own", "other")
        )
        used, log, waited, stop = [], [], [], threading.Event()
        session = SimpleNamespace(change=lambda *rules: None, use=used.append)
        made = Controls(
            settings, session, {"other": opens}, stop=stop, waiting=lambda: waited.append(1), log=log.append
        )
        settings.change({"detector": "other"})
        return SimpleNamespace(write=made.write, settings=settings, used=used, log=log, waited=waited, stop=stop)

    return make


def test_detector_is_changed_unless_the_new_one_cannot_be_opened(controls, make_frame):
    good = controls(lambda: "detector")
    good.write(make_frame(0))
    assert good.used == ["detector"]

    def fails():
        raise EdgeferError("YuNet could not be downloaded.")

    bad = controls(fails)
    bad.write(make_frame(0))
    assert not bad.used and bad.log == ["YuNet could not be downloaded. Continuing with own."]
    assert bad.settings.read().detector == "own"


def test_detector_download_serves_the_watchdog_and_can_be_stopped(controls, make_frame):
    slow = controls(lambda: time.sleep(0.5) or "detector")
    slow.write(make_frame(0))
    assert slow.used == ["detector"] and len(slow.waited) >= 2
    go = threading.Event()
    hung = controls(lambda: go.wait(20))
    threading.Timer(0.1, hung.stop.set).start()
    began = time.monotonic()
    hung.write(make_frame(0))
    assert time.monotonic() - began < 5 and not hung.used
    go.set()
