"""The outputs of `edgefer run`: several at once, errors reported in one sentence."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import cv2
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.commands.opening import RunFacts, open_outputs, parse_address
from edgefer.commands.outputs import OutputFlags
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.sources.cameras import open_source
from edgefer.errors import EdgeferError, InputError, MissingDependency
from edgefer.quiet import quiet

RUN = ("run", "fer-small", "--source", "builtin", "--headless")


@pytest.mark.parametrize(
    ("text", "address"),
    [("8000", ("127.0.0.1", 8000)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:80", ("::1", 80)), ("pi:0", ("pi", 0))],
)
def test_address_without_a_host_means_loopback(text, address):
    assert parse_address(text, "--serve") == address


@pytest.mark.parametrize("text", ["", "pi", "pi:", "::1:80", "99999", "-1", "80 ", "²", "pi..lan:80", "1" * 5000])
def test_invalid_address_is_refused(text):
    with pytest.raises(InputError, match=r"--serve .*0\.0\.0\.0:8000"):
        parse_address(text, "--serve")


def test_all_outputs_work_at_once(edgefer, tmp_path):
    pytest.importorskip("starlette")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("paho")
    files = {"--csv": tmp_path / "out.csv", "--save": tmp_path / "out.mp4"}
    done = edgefer(
        *RUN, "--frames", 4, "--json", *(part for option in files.items() for part in option),
        "--serve", "0", "--metrics", "0", "--mqtt", "mqtt://pi@127.0.0.1:1/desk", EDGEFER_MQTT_PASSWORD="secret",
        expect=1,  # nothing listens there
    )  # fmt: skip
    faces = [face for line in done.stdout.splitlines() for face in json.loads(line)["faces"]]
    rows = list(csv.DictReader(files["--csv"].open()))
    assert len(done.stdout.splitlines()) == 4 and len(faces) == 8
    assert [row["label"] for row in rows] == [face["label"] for face in faces]
    assert "The page is at http://127.0.0.1:" in done.stderr and "Metrics at http://127.0.0.1:" in done.stderr
    assert (
        "MQTT 127.0.0.1:1 refuses connections: nothing listens on port 1." in done.stderr
        and f"Saved {files['--save']}" in done.stderr
    )
    assert (
        "secret" not in done.stderr
        and "Not all results were written: MQTT 127.0.0.1:1 (refuses connections" in done.stderr
    )


@pytest.mark.parametrize(
    ("wanted", "module", "library", "line"),
    [
        ({"serve": "0"}, "web", "uvicorn", "--serve needs uvicorn: pip install 'edgefer[web]'"),
        ({"metrics": "0"}, "prometheus", "prometheus_client", "--metrics needs prometheus_client: pip install 'edgefer[metrics]'"),
        ({"mqtt": "mqtt://x/y"}, "mqtt", "paho.mqtt", "--mqtt needs paho: pip install 'edgefer[mqtt]'"),
    ],
)  # fmt: skip
def test_missing_library_gives_a_one_sentence_error(monkeypatch, wanted, module, library, line):
    loaded = (f"{library}.", f"edgefer.devices.outputs.{module}.", "edgefer.devices.outputs.server.")
    for name in [name for name in sys.modules if f"{name}.".startswith(loaded)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    with open_source("builtin") as source, pytest.raises(MissingDependency) as caught:
        open_outputs(
            OutputFlags(**wanted),
            RunFacts(source=source, card=card, runtime="litert", bundle_hash="", stats=RunStats()),
        )
    assert str(caught.value) == line


@pytest.mark.parametrize(("streams", "stills", "refused"), [(1, False, False), (2, False, True), (2, True, False)])
def test_mqtt_takes_one_source_since_each_would_overwrite_the_state_of_the_other(streams, stills, refused):
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    source = SimpleNamespace(streams=streams, stills=stills, live=False)
    facts = RunFacts(source=source, card=card, runtime="litert", bundle_hash="", stats=RunStats())
    wanted = OutputFlags(mqtt="no address", headless=True)
    with pytest.raises(InputError, match="run it once for each, with its own" if refused else "not an MQTT address"):
        open_outputs(wanted, facts)


def test_many_frames_saved_to_one_image_leave_the_last(edgefer, tmp_path):
    done = edgefer(*RUN, "--frames", 3, "--save", tmp_path / "out.png")
    assert f"Saved {tmp_path / 'out.png'}, the last of 3 frames" in done.stderr


def test_a_folder_keeps_every_frame_as_an_image(edgefer, tmp_path):
    done = edgefer(*RUN, "--frames", 3, "--save", tmp_path / "out")
    assert f"Saved {tmp_path / 'out'}, 3 images" in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [f"00000{n}-builtin.jpg" for n in range(3)]
    again = edgefer(*RUN, "--frames", 3, "--save", tmp_path / "out", expect=2)
    assert "holds files already: choose another folder, or empty it first" in again.stderr


def test_an_output_that_failed_is_not_called_saved(monkeypatch, tmp_path, make_frame, capsys):
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    facts = RunFacts(source=open_source("builtin"), card=card, runtime="litert", bundle_hash="", stats=RunStats())
    outputs = open_outputs(OutputFlags(save=tmp_path / "out", headless=True), facts)
    free = iter([10**9, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=1 << 40, free=next(free)))
    for number in range(2):
        outputs.sinks[0].write(make_frame(number))
    outputs.sinks[0].close()
    with pytest.raises(EdgeferError, match=r"Not all results were written: \S+out \(the disk is full"):
        outputs.conclude()
    shown = capsys.readouterr().err
    assert "1 image is in it" in shown and "Saved" not in shown


def test_quiet_works_without_a_usable_temporary_directory(monkeypatch, capfd):
    def full(*arguments, **options):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ValueError, match="at last"), quiet():
        os.write(2, b"held back, then shown")
        raise ValueError("at last")
    assert capfd.readouterr().err == "held back, then shown"


def test_full_disk_ends_one_output_but_not_the_run(tmp_path):
    command = [sys.executable, "-c", "from edgefer.cli import main; main()", *RUN, "--frames", "4", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, "--csv", tmp_path / "out.csv"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.count("stdout has ended: the disk is full.") == 1 and "4 frames in" in done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 9


def test_a_run_whose_only_output_has_failed_ends(tmp_path):
    """A camera would else be read for as long as it runs, for nothing."""
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "out.csv"
    command = [sys.executable, "-c", "from edgefer.cli import main; main()", *RUN, "--loop", "--csv", str(file)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (file.exists() and file.read_bytes().count(b"\n") > 1):
        assert run.poll() is None
        time.sleep(0.05)
    (tmp_path / "sub").rename(tmp_path / "gone")
    _, logged = run.communicate(timeout=60)
    assert run.returncode == 1 and "Traceback" not in logged
    assert f"{file} has ended: No such file or directory. Other outputs continue." in logged, "no rows are kept"
    assert f"Not all results were written: {file} (No such file or directory)." in logged


def test_outputs_of_one_option_have_their_own_series_in_the_metrics():
    """Prometheus refuses two samples of one series; its own parser reads what is served."""
    prometheus = pytest.importorskip("edgefer.devices.outputs.prometheus")
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    card, stats = Bundle.open(shipped_bundles()["fer-small"]).card, RunStats()
    facts = RunFacts(source=open_source("builtin"), card=card, runtime="litert", bundle_hash="", stats=stats)
    outputs = open_outputs(OutputFlags(on=["happy=true a", "happy=true b", "sad=true"], headless=True), facts)
    registry = CollectorRegistry()
    registry.register(prometheus.StatsCollector(stats, ("happy", "sad"), {}))
    text = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    series = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
    assert len(set(series)) == len(series)
    sinks = {sample.labels["sink"] for sample in samples if sample.name == "edgefer_sink_up"}
    assert sinks == {"--on happy", "--on happy #2", "--on sad"}
    for sink in outputs.sinks:
        sink.close()


def test_snapshot_on_saves_a_single_image_without_a_hold_time(edgefer, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), next(drawn.scene())[0].image_bgr)
    shown = json.loads(edgefer("run", "fer-nano", tmp_path / "photo.png", "--json", "--headless").stdout)
    label = shown["faces"][0]["label"]
    edgefer("run", "fer-nano", tmp_path / "photo.png", "--headless", "--snapshot-on", f"{label}={tmp_path}/out")
    assert len([*(tmp_path / "out").iterdir()]) == 1


@pytest.fixture
def photo(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), next(drawn.scene())[0].image_bgr)
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    "output", [("--save", "out.png"), ("--csv", "my out.csv"), ("--csv", "a.csv", "--save", "b.jpg")]
)
def test_the_faces_of_one_image_are_shown_whatever_is_saved(output, edgefer, photo):
    done = edgefer("run", "fer-nano", photo.name, "--headless", *output, cwd=photo.parent)
    assert done.stdout.count("photo.png: ") == 2 and " pixels at " in done.stdout
    for file in output[1::2]:
        then = f", 2 rows of this run; next: edgefer report {shlex.quote(file)}" if file.endswith(".csv") else ""
        assert f"Saved {file}{then}\n" in done.stderr
    shown = edgefer("run", "fer-nano", photo.name, "--headless", "--json", "--save", "c.png", cwd=photo.parent).stdout
    assert len(json.loads(shown)["faces"]) == 2, "one object and no other line"


def test_overwrite_replaces_a_saved_file_but_never_what_is_read(edgefer, photo):
    def run(*arguments, expect=0):
        return edgefer("run", "fer-nano", *arguments, "--headless", cwd=photo.parent, expect=expect).stderr

    run("photo.png", "--save", "out.png")
    out = photo.with_name("out.png")
    out.write_bytes(b"older")
    assert "is there already: choose another name, or replace the file with --overwrite" in run(
        "photo.png", "--save", "out.png", expect=2
    )
    assert out.read_bytes() == b"older"
    run("photo.png", "--save", "out.png", "--overwrite")
    assert cv2.imread(str(out)) is not None
    photo.with_name("link.png").symlink_to("photo.png")
    before = photo.read_bytes()
    for source, saved in (
        ("photo.png", "photo.png"),
        ("photo.png", "link.png"),
        (".", "photo.png"),
        ("link.png", "photo.png"),
    ):
        assert "would overwrite what is read" in run(source, "--save", saved, "--overwrite", expect=2)
    assert "--overwrite is for --save FILE" in run("photo.png", "--csv", "a.csv", "--overwrite", expect=2)
    assert photo.read_bytes() == before
