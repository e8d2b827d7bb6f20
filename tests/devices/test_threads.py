"""Stages that run ahead, and calls that hang: no item is lost or reordered, and nobody waits forever."""

import io
import json
import multiprocessing
import signal
import threading
import time
from _thread import interrupt_main

import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.devices import loop
from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.faces.smoothing import PRESETS
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.session import Session
from edgefer.devices.threads import Prefetch, Rules, Watchdog
from edgefer.devices.watchdogs import WatchedClassifier, WatchedDetector
from edgefer.errors import EdgeferError, RuntimeFault
from edgefer.interpreter import Classifier
from edgefer.records import Detection, Frame

LIMIT_S = 0.3


@pytest.fixture
def hang():
    """An event that a hung call waits for; set when the test is over."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def shipped():
    return Classifier.load(Bundle.open(shipped_bundles()["fer-small"]))


def frames(count, size=(120, 160)):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return [Frame(index=index, time_s=index / 15, image_bgr=noise) for index in range(count)]


class Scripted(Detector):
    """A detector that finds one face; its calls follow the script: None answers, anything else is called first."""

    name = "haar"

    def __init__(self, *script):
        self.script, self.calls = list(script), 0

    def find(self, image_bgr, near=None):
        self.calls += 1
        if self.script and (step := self.script.pop(0)):
            step()
        return [Detection(box_xyxy=(20, 20, 80, 80))]


# ---- prefetch ----


def test_prefetch_keeps_order_and_stays_within_its_room():
    made = []
    items = Prefetch((made.append(number) or number for number in range(50)), room=2)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(made) <= 4, "one used, two waiting, one in hand"
    assert [*items] == list(range(1, 50))


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = Prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_hung_source_is_named_and_abandoned(hang):
    ahead = Prefetch((hang.wait() for _ in range(1)), limit_s=LIMIT_S, name="The source")
    with pytest.raises(EdgeferError, match=r"The source has not responded for 0\.3 s"):
        next(ahead)


def test_closing_ends_the_thread_and_a_stop_ends_the_items(hang):
    before = set(threading.enumerate())
    ahead = Prefetch(iter(int, 1))
    next(ahead)
    ahead.close()
    assert before.issuperset(threading.enumerate())
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    assert list(Prefetch((hang.wait() for _ in range(1)), stop=stop)) == []
    assert time.monotonic() - began < 1


# ---- the loop ----


def results(shipped, overlap, count=12):
    out = io.StringIO()
    source = (frame for frame, _ in drawn.scene(seconds=count / 15, size=(320, 240)))
    summary = loop.run(
        source, Session(shipped, HaarDetector(), smooth=PRESETS["responsive"], reject=0.45), [JsonLines(out)],
        overlap=overlap,
    )  # fmt: skip
    return summary, out.getvalue()


def test_overlapping_stages_give_the_same_results_in_the_same_order(shipped):
    (one, alone), (other, overlapped) = results(shipped, False), results(shipped, True)
    assert alone == overlapped
    assert [json.loads(line)["frame"] for line in alone.splitlines()] == list(range(12))
    assert one.labels == other.labels and one.faces == other.faces == 24


def test_overlapping_stages_take_as_long_as_the_slowest_of_them(shipped):
    def source():
        for frame in frames(20):
            time.sleep(0.02)
            yield frame

    def seconds(overlap):
        detector = Scripted(*[lambda: time.sleep(0.02)] * 20)
        return loop.run(source(), Session(shipped, detector), [], overlap=overlap).seconds

    assert seconds(True) < 0.8 * seconds(False)


def test_loop_stops_after_the_current_frame(shipped):
    stop = threading.Event()
    out = io.StringIO()

    stats = RunStats(on_frame=stop.set)
    loop.run(frames(20), Session(shipped, Scripted()), [JsonLines(out)], stop=stop, stats=stats)
    assert set(stats.stage_ms()) == set(loop.STAGES)
    assert len(out.getvalue().splitlines()) == 1


# ---- watchdogs ----


def test_a_detector_that_hangs_is_replaced_and_the_frame_is_not_lost(shipped, hang):
    detectors = [Scripted(None, None, hang.wait), Scripted()]
    logged, out = [], io.StringIO()
    left = list(detectors)
    watched = WatchedDetector(lambda: left.pop(0), Rules(log=logged.append, limit_s=LIMIT_S))
    summary = loop.run(frames(8), Session(shipped, watched), [JsonLines(out)])
    assert summary.faces == 8 and [d.calls for d in detectors] == [3, 6]
    assert logged == ["The face detector has not responded for 0.3 s: it is replaced."]


def test_a_detector_whose_replacement_hangs_too_ends_the_run(shipped, hang):
    watched = WatchedDetector(lambda: Scripted(hang.wait), Rules(limit_s=LIMIT_S))
    with pytest.raises(EdgeferError, match=r"has not responded for 0\.3 s, and neither has its replacement"):
        loop.run(frames(3), Session(shipped, watched), [])


class Hanging(Classifier):
    def __init__(self, real, fault):
        super().__init__(real.network, real.card, real.variant)
        self.fault, self.calls = fault, 0

    def predict(self, pixels):
        self.calls += 1
        if self.calls == 3:
            self.fault()
        return super().predict(pixels)


def unplugged():
    raise RuntimeFault("litert failed while running the network: the device is gone.")


def test_hung_delegate_ends_the_run_if_no_cpu_fallback_is_allowed(shipped, hang):
    out = io.StringIO()
    coral = WatchedClassifier(
        Hanging(shipped, hang.wait), None, Rules(name="The Edge TPU", advice="replug it", limit_s=LIMIT_S)
    )
    with pytest.raises(EdgeferError, match=r"The Edge TPU has not responded for 0\.3 s: replug it"):
        loop.run(frames(6), Session(coral, Scripted()), [JsonLines(out)])
    assert len(out.getvalue().splitlines()) == 2, "what was done is kept"


def test_cpu_replaces_a_hung_or_failed_delegate_if_allowed(shipped, hang):
    for fault, reason in ((hang.wait, "has not responded"), (unplugged, "the device is gone")):
        logged = []
        coral = WatchedClassifier(
            Hanging(shipped, fault),
            lambda: shipped,
            Rules(name="The Edge TPU", log=logged.append, limit_s=LIMIT_S),
            on_fault=True,
        )
        assert loop.run(frames(6), Session(coral, Scripted()), []).faces == 6
        assert len(logged) == 1 and reason in logged[0] and logged[0].endswith(": it is replaced.")


def test_a_stop_is_not_held_up_by_a_call_that_hangs(shipped, hang):
    stop = threading.Event()
    coral = WatchedClassifier(Hanging(shipped, hang.wait), None, Rules(stop=stop))
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    assert loop.run(frames(6), Session(coral, Scripted()), [], stop=stop).frames == 2
    assert time.monotonic() - began < 3


def test_error_of_the_watched_call_is_raised():
    with pytest.raises(ZeroDivisionError):
        Watchdog(lambda x: 1 // x, None)(0)


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, even if these tests run in the background, where a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_after_an_interrupted_call_the_next_one_gets_its_own_answer(interruptible):
    watchdog = Watchdog(lambda seconds: time.sleep(seconds) or seconds, None)
    threading.Timer(0.05, interrupt_main).start()  # as when a notebook's cell is interrupted
    with pytest.raises(KeyboardInterrupt):
        watchdog(0.3)
    assert [watchdog(0.02), watchdog(0.01)] == [0.02, 0.01]


def test_each_of_several_threads_gets_its_own_answers():
    watchdog = Watchdog(lambda given: time.sleep(0.001) or given, None)
    wrong = []

    def call(thread):
        asked = [(thread, number) for number in range(50)]
        wrong.extend(given for given in asked if watchdog(given) != given)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []


def test_several_sources_are_read_concurrently_each_in_order():
    def slowly(numbers):
        for number in numbers:
            time.sleep(0.002)
            yield number

    items = list(Prefetch(slowly(range(0, 30)), slowly(range(100, 130)), room=2))
    assert [item for item in items if item < 100] == list(range(30))
    assert [item for item in items if item >= 100] == list(range(100, 130))
    assert items != sorted(items), "concurrently, not one after the other"


def test_the_thread_of_a_watchdog_ends_with_it():
    before = threading.active_count()
    for _ in range(5):
        watchdog = Watchdog(lambda given: given + 1, None)
        assert watchdog(1) == 2
    del watchdog
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_threads_that_wait_for_their_turn_do_not_count_as_hung():
    replaced, right = [], []
    watchdog = Watchdog(
        lambda given: time.sleep(LIMIT_S / 4) or given, lambda: replaced.append(1) or str, Rules(limit_s=LIMIT_S)
    )
    threads = [threading.Thread(target=lambda own=own: right.append(watchdog(own) == own)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8 and not replaced


@pytest.mark.parametrize("spare", [None, lambda: lambda given: given + 1])
def test_a_forked_process_needs_no_time_limit_to_notice_that_it_lacks_the_thread(spare):
    watchdog = Watchdog(lambda given: given + 1, spare, Rules(limit_s=60))
    assert watchdog(1) == 2
    answers = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=lambda: answers.put(watchdog(1)))
    child.start()
    child.join(10)
    hung = child.is_alive()
    child.kill()
    assert not hung and answers.get() == 2
