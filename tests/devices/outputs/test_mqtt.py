"""MQTT against a real Mosquitto: what is published and how often, a broker that disappears and returns, one that refuses."""

import itertools
import json
import socket
import threading
import time

import pytest
from brokers import Listener, Mosquitto, wait_for

from edgefer.devices.outputs.broker import parse_broker
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.homeassistant import discovery
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.sources.state import SourceState, SourceStatus
from edgefer.errors import EdgeferError, InputError

mqtt = pytest.importorskip("edgefer.devices.outputs.mqtt", reason="paho-mqtt is not installed")
LABELS = ("happy", "sad", "neutral")


@pytest.fixture
def broker(tmp_path):
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.stop()


@pytest.fixture
def sinks(monkeypatch):
    """Makes sinks, and closes them."""
    monkeypatch.setattr(mqtt, "RETRY_S", (1, 1))
    made = []

    def make(port, user="pi:raspberry", **settings):
        made.append(mqtt.Mqtt(parse_broker(f"mqtt://{user}@127.0.0.1:{port}/home/desk"), LABELS, **settings))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def test_only_a_changed_face_label_or_score_is_news(make_frame):
    calm = mqtt.state_of(make_frame(0, "happy", "sad"))
    assert calm["count"] == 2 and calm["label"] == "happy" and calm["score"] == 0.8
    assert not mqtt.is_news(calm, mqtt.state_of(make_frame(1, "happy", "sad")))
    assert not mqtt.is_news(calm, mqtt.state_of(make_frame(1, "happy", "sad", score=0.83)))
    for other in [("happy",), ("sad", "happy"), ("happy", ("unsure", "dark")), ()]:
        assert mqtt.is_news(calm, mqtt.state_of(make_frame(1, *other)))
    assert mqtt.is_news(calm, mqtt.state_of(make_frame(1, "happy", "sad", score=0.7)))
    assert mqtt.is_news(None, calm)
    assert mqtt.state_of(make_frame(0)) == {"count": 0, "label": "none", "score": 0.0, "faces": []}


@pytest.mark.mosquitto
def test_state_discovery_and_availability_are_published(broker, sinks, make_frame):
    listener = Listener(broker.port)
    sink = sinks(broker.port, rate=1000)
    assert listener.next("home/desk/availability") == "online"
    wait_for(lambda: sink._connected)
    sink.write(make_frame(0, "happy", ("unsure", "dark")))
    state = json.loads(listener.next("home/desk/state"))
    assert state == {
        "count": 2,
        "label": "happy",
        "score": 0.8,
        "faces": [
            {"id": 1, "box_xyxy": [0, 5, 16, 25], "label": "happy", "score": 0.8},
            {"id": 2, "box_xyxy": [20, 5, 35, 25], "label": "unsure", "score": 0.8, "unsure": "dark"},
        ],
    }
    config = json.loads(listener.next("homeassistant/sensor/home_desk/expression/config"))
    assert config["state_topic"] == "home/desk/state" and config["options"] == [*LABELS, "unsure", "none"]
    assert config["availability_topic"] == "home/desk/availability" and config["expire_after"] == 30
    configs = [json.loads(listener.next(f"homeassistant/sensor/home_desk/{key}/config")) for key in ("score", "faces")]
    ids = {config["unique_id"] for config in configs}
    assert ids == {"edgefer-home_desk-score", "edgefer-home_desk-faces"}
    sink.close()
    assert listener.next("home/desk/availability") == "offline"
    listener.close()


@pytest.mark.mosquitto
def test_only_changes_are_published_at_a_limited_rate(broker, sinks, make_frame):
    listener = Listener(broker.port)
    sink = sinks(broker.port, rate=5)
    wait_for(lambda: sink._connected)
    began, number = time.monotonic(), 0
    while time.monotonic() - began < 1:  # a face that flickers, and then a face that does not
        sink.write(make_frame(number, ("happy", "sad")[number % 2]))
        number += 1
        time.sleep(0.005)
    sink.write(make_frame(0, "neutral"))
    sink.close()
    states = [json.loads(listener.next("home/desk/state"))["label"]]
    while states[-1] != "neutral":  # the last state is published at the end
        states.append(json.loads(listener.next("home/desk/state"))["label"])
    assert 2 <= len(states) <= 7 and number > 20
    listener.close()


@pytest.mark.mosquitto
def test_publishing_resumes_when_the_broker_returns(broker, sinks, make_frame, monkeypatch):
    logged = []
    sink = sinks(broker.port, rate=1000, log=logged.append)
    feed = Feed(sink)
    wait_for(lambda: sink._connected)
    broker.stop()
    wait_for(lambda: sink.trouble)
    for number in range(50):
        feed.write(make_frame(number, "happy"))
    broker.start()
    listener = Listener(broker.port)
    wait_for(lambda: sink._connected)
    feed.write(make_frame(99, "sad"))
    assert json.loads(listener.next("home/desk/state"))["label"] == "sad" and sink.trouble
    monkeypatch.setattr(mqtt, "LASTING_S", 0)
    feed.write(make_frame(100, "sad"))
    wait_for(lambda: not sink.trouble)
    assert sink.errors == len(logged) - 1 and "Retrying" in logged[0] and "connected again" in logged[-1]
    listener.close()


def test_reconnecting_to_a_failing_broker_backs_off(monkeypatch, make_frame):
    """As a broker that disconnects a client which writes to a forbidden topic."""
    monkeypatch.setattr(mqtt, "RETRY_S", (0.1, 60))
    logged, met = [], []

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                met.append(time.monotonic())
                connection.recv(1024)
                connection.sendall(b"\x20\x02\x00\x00")  # CONNACK, accepted
                connection.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        broker = parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}/home/desk")
        sink = mqtt.Mqtt(broker, LABELS, log=logged.append)
        wait_for(lambda: len(met) == 5)
        kept = len(sink._client._out_messages)
        sink.close()
        server.shutdown(socket.SHUT_RDWR)
    pauses = [after - before for before, after in itertools.pairwise(met)]
    assert pauses[3] > 2 * pauses[1] and kept == 0
    assert len(logged) == 1 and "may this user write to home/desk/# and homeassistant/#?" in logged[0]


@pytest.mark.mosquitto
def test_a_killed_program_leaves_its_last_will(broker, sinks, make_frame):
    listener = Listener(broker.port)
    sink = sinks(broker.port)
    assert listener.next("home/desk/availability") == "online"
    sink._client._sock.shutdown(socket.SHUT_RDWR)  # as the kernel does with a killed program's
    assert listener.next("home/desk/availability") == "offline"
    listener.close()


@pytest.mark.mosquitto
def test_a_late_last_will_of_an_earlier_run_is_corrected(broker, sinks):
    """As after a power cut: the board is back before the broker notices that the earlier connection is gone."""
    listener = Listener(broker.port)
    earlier = sinks(broker.port)
    assert listener.next("home/desk/availability") == "online"
    earlier._client.disable_logger()
    earlier._client.loop_stop()  # it answers no more
    sink = sinks(broker.port)
    assert listener.next("home/desk/availability") == "online"
    wait_for(lambda: sink._connected)
    earlier._client._sock.shutdown(socket.SHUT_RDWR)
    assert listener.next("home/desk/availability") == "offline"
    assert listener.next("home/desk/availability") == "online"
    assert not sink.trouble
    listener.close()


@pytest.mark.mosquitto
def test_a_wrong_password_is_reported_once(broker, sinks):
    logged = []
    sink = sinks(broker.port, user="pi:wrong", log=logged.append)
    wait_for(lambda: sink.trouble)
    time.sleep(1.5)  # for a second attempt
    assert len(logged) == 1 and "Not authorized" in logged[0] and "wrong" not in logged[0]


@pytest.mark.mosquitto
@pytest.mark.parametrize(("allowed", "messages"), [("readwrite home/#", 0), ("write other/#", 1), ("write home/#", 1)])
def test_a_broker_that_drops_messages_in_silence_is_reported_once(
    broker, sinks, tmp_path, monkeypatch, allowed, messages
):
    monkeypatch.setattr(mqtt, "LASTING_S", 0.5)
    (tmp_path / "acl").write_text(f"user pi\ntopic {allowed}\n")
    broker.conf.write_text(broker.conf.read_text() + f"acl_file {tmp_path}/acl\n")
    broker.stop()
    broker.start()
    logged = []
    sink = sinks(broker.port, log=logged.append)
    wait_for(lambda: sink._connected)
    time.sleep(1)
    assert len(logged) == messages and all("let this user write and read home/desk/#" in line for line in logged)


def test_missing_broker_does_not_block_the_run(sinks, make_frame):
    logged = []
    sink = sinks(1, log=logged.append)
    feed = Feed(sink)
    for number in range(100):
        feed.write(make_frame(number, "happy"))
    wait_for(lambda: logged)
    began = time.monotonic()
    feed.close()
    assert time.monotonic() - began < 1.5
    assert logged == [
        "MQTT 127.0.0.1:1 refuses connections: nothing listens on port 1. Retrying until it is available."
    ]


def test_edgefers_own_states_are_bracketed_if_a_label_has_their_name(make_frame):
    labels = ("none", "unsure", "(none)")
    options = discovery("desk", labels)["homeassistant/sensor/desk/expression/config"]["options"]
    assert options == ["none", "unsure", "(none)", "(unsure)", "((none))"]
    assert mqtt.state_of(make_frame(0), labels)["label"] == "((none))"
    assert mqtt.state_of(make_frame(0, ("unsure", "dark"), known=labels), labels)["label"] == "(unsure)"
    assert mqtt.state_of(make_frame(0, "none"), labels)["label"] == "none"


def test_control_characters_reach_no_topic_and_no_state(make_frame):
    with pytest.raises(InputError, match="topic prefix"):
        parse_broker("mqtt://broker/desk%1b[31m")
    frame = make_frame(0, "sad\x1b[31m")
    assert mqtt.state_of(frame, tuple(frame.faces[0].scores))["label"] == "sad\\x1b[31m"


def test_diagnostics_of_a_run(make_frame):
    stats = RunStats()
    stats.add(make_frame(0, "happy"), {})
    sink = mqtt.Sink()
    sink.name, sink.trouble = "out.csv", "the disk is full"
    stats.sinks = [sink]
    reported = mqtt.diagnostics_of(stats, "MQTT broker:1883")
    assert reported["problem"] == "out.csv: the disk is full" and reported["fps"] > 0 and reported["memory_mb"] > 10
    assert mqtt.diagnostics_of(stats, "out.csv")["problem"] == "none"
    lost = SourceState(name="0", state=SourceStatus.LOST, trouble="Camera 0 stopped giving images: retrying.")
    stats.sources = lambda: (lost,)
    assert mqtt.diagnostics_of(stats, "out.csv")["problem"] == "Camera 0 stopped giving images: retrying"


@pytest.mark.mosquitto
def test_two_runs_do_not_mix_under_one_prefix(broker, sinks, make_frame):
    log = []
    listener = Listener(broker.port)
    first = sinks(broker.port)
    assert listener.next("home/desk/availability") == "online"
    wait_for(lambda: first._connected)
    second = sinks(broker.port, log=log.append)
    wait_for(lambda: second.trouble)
    with pytest.raises(EdgeferError, match="another edgefer run already publishes to home/desk"):
        second.write(make_frame(0, "happy"))
    second.close()
    first.write(make_frame(0, "sad"))
    assert json.loads(listener.next("home/desk/state"))["label"] == "sad" and not first.trouble
    assert listener.box("home/desk/availability").empty()
    assert "has another edgefer run under home/desk" in log[0]
    listener.close()


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"[" * 290, b'{"run": 1}', b'{"run": "a", "since": "x"}', b'{"run": "a", "since": NaN}', b'{"run": "a", "since": -1e999}', b"\xff", b'{"run":"a","since":1,"x":"' + b"y" * 400 + b'"}'])  # fmt: skip
def test_invalid_claim_is_ignored(payload):
    assert mqtt._parse_claim(payload) is None


def test_retained_claim_is_ignored(sinks):
    sink = sinks(9)  # where nothing listens
    message = mqtt.paho.MQTTMessage(topic=b"home/desk/run")
    message.payload, message.retain = b'{"run": "other", "since": 1, "established": true}', True
    sink._on_claim(sink._client, None, message)
    assert not sink._rival
    message.retain = False
    sink._on_claim(sink._client, None, message)
    assert sink._rival


@pytest.mark.mosquitto
def test_short_run_waits_for_the_broker(broker, sinks, make_frame):
    """A photo is read before the broker has accepted the connection; its state is published anyway."""
    listener = Listener(broker.port)
    feed = Feed(sinks(broker.port))
    feed.write(make_frame(0, "happy"))
    feed.close()
    assert json.loads(listener.next("home/desk/state"))["label"] == "happy"
    assert not feed.unsent
    listener.close()


def test_run_fails_if_the_state_of_a_photo_reaches_no_broker(edgefer, tmp_path):
    import cv2

    from edgefer import drawn

    cv2.imwrite(str(tmp_path / "photo.png"), next(drawn.scene())[0].image_bgr)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    order = ("run", "fer-nano", tmp_path / "photo.png", "--headless", "--csv", tmp_path / "out.csv")
    done = edgefer(*order, "--mqtt", f"mqtt://127.0.0.1:{port}/home", expect=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgefer: Not all results were written: MQTT 127.0.0.1:") and "nothing listens" in last
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3  # the other outputs are complete: two faces
