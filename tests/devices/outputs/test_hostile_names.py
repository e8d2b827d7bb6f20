"""Labels, sources and file names from strangers: in no output may one act, or look like something else."""

import csv
import io
import json
import re
import shlex
import sys
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgefer.devices.outputs import mqtt
from edgefer.devices.outputs.actions import CommandOn, SnapshotOn, Timing, facts_of
from edgefer.devices.outputs.csvfile import COLUMNS, Csv
from edgefer.devices.outputs.homeassistant import discovery
from edgefer.devices.outputs.lines import Changes, FaceLines, JsonLines
from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.prometheus import StatsCollector
from edgefer.devices.outputs.recorded import read_report
from edgefer.devices.outputs.report import to_html
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.outputs.video import ImageFolder
from edgefer.records import Face, Frame
from edgefer.text import unprintable

NAMES = (
    "=HYPERLINK(\"http://x\")", "+1,2", "-1;=1", "@SUM(1)", " =1", "\uff1dcmd|x", "a \"quoted\", name", "it's", "$(touch x)`y`",
    "<img src=x onerror=alert(1)>", "</script>", "&amp;", "{{ 7 * 7 }}", "../../etc/passwd", "-rf", "a\\nb", "a}\n# HELP b c", "a\nb",
    "a\rb", "\x1b[31mred\x1b]0;title\x07", "\x9b31m", "\u202egpj.exe", "\ud800",
)  # fmt: skip
FORMULA_BEGINS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


@pytest.fixture(params=NAMES, ids=range(len(NAMES)))
def name(request) -> str:
    return request.param


@pytest.fixture
def frame(name) -> Frame:
    face = Face(box_xyxy=(8, 8, 40, 40), scores={name: 0.75, "other": 0.25}, id=1)
    return Frame(index=0, time_s=0.0, image_bgr=np.zeros((64, 64, 3), np.uint8), source=name, faces=(face,))


def written(sink_type, frame, **options) -> str:
    out = io.StringIO()
    sink_type(out, **options).write(frame)
    return out.getvalue()


def test_csv_and_report(frame, name, tmp_path):
    sink = Csv(tmp_path / "a.csv", (name, "other"))
    sink.write(frame)
    sink.close()
    text = (tmp_path / "a.csv").read_text("utf-8")
    assert unprintable(text.replace("\n", "")) == ""
    header, row = csv.reader(io.StringIO(text))
    assert len(header) == len(row) == len(COLUMNS) + 2
    for separated in (row, header, text.replace('"', "").split(";")):
        assert not [one for one in separated if one.lstrip().startswith(tuple(FORMULA_BEGINS))]
    page = to_html(read_report(tmp_path / "a.csv"), name)
    assert unprintable(page.replace("\n", "")) == ""
    body = page.partition("<body>")[2]
    assert "<img" not in body and "</script" not in body and not re.search(r"&(?!(amp|lt|gt|quot|nbsp|#x27);)", body)


def test_json_and_text_lines(frame, name):
    line = written(JsonLines, frame, network=name, clock=True)
    assert line.isascii() and line.isprintable() is False and line.count("\n") == 1
    value = json.loads(line)
    assert value["source"] == name and value["faces"][0]["label"] == name
    for shown in (written(Changes, frame, named=True), written(FaceLines, frame)):
        assert shown.count("\n") == 1 and unprintable(shown[:-1]) == ""


def test_mqtt_and_home_assistant(frame, name):
    state = mqtt.state_of(frame, (name, "other"))
    payload = json.dumps(state)
    assert payload.isascii() and unprintable(json.loads(payload)["label"]) == ""
    topics = discovery("home/desk", (name, "other"))
    assert all(re.fullmatch(r"[a-z_]+/[a-z_]+/home_desk/[a-z_]+/config", topic) for topic in topics)
    options = topics["homeassistant/sensor/home_desk/expression/config"]["options"]
    assert state["label"] in options, "Home Assistant refuses a state that is not one of them"
    templates = [value for config in topics.values() for key, value in config.items() if key.endswith("template")]
    assert templates and not any(name in template for template in templates), "which Home Assistant would evaluate"


def test_prometheus(frame, name):
    stats = RunStats()
    stats.start()
    stats.add(frame, {})
    registry = CollectorRegistry()
    registry.register(StatsCollector(stats, (name, "other"), {"network": name}))
    text = generate_latest(registry).decode()
    assert unprintable(text.replace("\n", "")) == ""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    faces = {
        sample.labels["label"]: sample.value
        for sample in families["edgefer_faces"].samples
        if sample.name.endswith("total")
    }
    assert len(faces) == 2 and sorted(faces.values()) == [0, 1] and "b" not in families


def test_command_gets_it_in_its_environment_only(frame, name, tmp_path):
    facts = facts_of(frame, frame.faces[0])
    assert all(unprintable(value) == "" for value in facts.values())
    program = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['EDGEFER_LABEL'] + str(len(sys.argv)))"
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    sink = CommandOn(name, command, Timing(stills=True))
    assert unprintable(sink.name) == "" and command == shlex.split(shlex.join(command))
    sink.write(frame)
    until = time.monotonic() + 20
    while not ((tmp_path / "out").exists() and (tmp_path / "out").read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "out").read_text("utf-8") == facts["EDGEFER_LABEL"] + "2"


def test_files_named_after_it_stay_in_their_folder(frame, name, tmp_path):
    folder = tmp_path / "inner"
    snapshots, images = SnapshotOn(name, folder, Timing(stills=True)), ImageFolder(folder)
    for sink in (snapshots, images):
        sink.write(frame)
        sink.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) == 2 and {file.parent for file in files} == {folder}
    assert all(unprintable(file.name) == "" and not file.name.startswith((".", "-")) for file in files)


def test_overlay(frame):
    assert View().annotated(frame).any()
