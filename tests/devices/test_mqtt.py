"""MQTT against a real Mosquitto: what is published and how often, a broker that goes and comes back, one that refuses."""

import itertools
import json
import queue
import socket
import subprocess
import threading
import time

import pytest
from conftest import MOSQUITTO

from edgefer.devices.outputs.feeds import Feed
from edgefer.errors import InputError

mqtt = pytest.importorskip("edgefer.devices.outputs.mqtt", reason="paho-mqtt is not installed")
LABELS = ("happy", "sad", "neutral")


class Mosquitto:
    """A broker on a free port of loopback, for the user `pi` with the password `raspberry`."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "passwords").write_text("pi:raspberry\n")
        (folder / "passwords").chmod(0o644)
        subprocess.run(["mosquitto_passwd", "-U", folder / "passwords"], check=True, capture_output=True)
        (folder / "passwords").chmod(0o644)
        folder.chmod(0o755)
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\nuser root\n"
        )
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", self.conf], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        wait_for(self.answers)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Listener:
    """Hears everything: `next(topic)` waits for the next message of a topic."""

    def __init__(self, port):
        self.heard = {}
        self.client = mqtt.paho.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.username_pw_set("pi", "raspberry")
        self.client.on_message = lambda client, userdata, m: self.box(m.topic).put(m.payload.decode())
        subscribed = queue.Queue()
        self.client.on_subscribe = lambda *about: subscribed.put(True)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#")
        self.client.loop_start()
        subscribed.get(timeout=10)

    def box(self, topic):
        return self.heard.setdefault(topic, queue.Queue())

    def next(self, topic):
        return self.box(topic).get(timeout=10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(what, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


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
        made.append(mqtt.Mqtt(mqtt.parse_broker(f"mqtt://{user}@127.0.0.1:{port}/home/desk"), LABELS, **settings))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def test_addresses_and_passwords():
    broker = mqtt.parse_broker("mqtt://pi@broker.local/home/desk/", "from the environment")
    assert (broker.host, broker.port, broker.prefix, broker.user) == ("broker.local", 1883, "home/desk", "pi")
    assert broker.password == "from the environment" and "environment" not in repr(broker)
    broker = mqtt.parse_broker("mqtts://pi:p%40ss@[::1]:9999/desk", "other")
    assert (broker.host, broker.port, broker.tls, broker.password) == ("::1", 9999, True, "p@ss")


@pytest.mark.parametrize(
    "url", ["mqtt://broker", "mqtt://broker/a/#", "mqtt://broker/a b", "http://broker/a", "broker/a", "mqtt://b:x/a", "mqtt:///a", "mqtt://home..lan/a", "mqtt://me:secret/1@b/a"]
)  # fmt: skip
def test_no_mqtt_address(url):
    with pytest.raises(InputError, match="mqtt://host/topic-prefix") as refused:
        mqtt.parse_broker(url)
    assert "secret" not in str(refused.value)


def test_news_is_another_face_or_label_or_a_score_that_moved(make_frame):
    calm = mqtt.state_of(make_frame(0, "happy", "sad"))
    assert calm["count"] == 2 and calm["label"] == "happy" and calm["score"] == 0.8
    assert not mqtt.news(calm, mqtt.state_of(make_frame(1, "happy", "sad")))
    assert not mqtt.news(calm, mqtt.state_of(make_frame(1, "happy", "sad", score=0.83)))
    for other in [("happy",), ("sad", "happy"), ("happy", ("unsure", "dark")), ()]:
        assert mqtt.news(calm, mqtt.state_of(make_frame(1, *other)))
    assert mqtt.news(calm, mqtt.state_of(make_frame(1, "happy", "sad", score=0.7)))
    assert mqtt.news(None, calm)
    assert mqtt.state_of(make_frame(0)) == {"count": 0, "label": "none", "score": 0.0, "faces": []}


@pytest.mark.mosquitto
def test_what_is_told(broker, sinks, make_frame):
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
    ids = {json.loads(listener.next(f"homeassistant/sensor/home_desk/{key}/config"))["unique_id"] for key in ("score", "faces")}  # fmt: skip
    assert ids == {"edgefer-home_desk-score", "edgefer-home_desk-faces"}
    sink.close()
    assert listener.next("home/desk/availability") == "offline"
    listener.close()


@pytest.mark.mosquitto
def test_only_changes_are_told_and_not_too_often(broker, sinks, make_frame):
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
    while states[-1] != "neutral":  # what was held back is told at the end
        states.append(json.loads(listener.next("home/desk/state"))["label"])
    assert 2 <= len(states) <= 7 and number > 20
    listener.close()


@pytest.mark.mosquitto
def test_a_broker_may_go_and_come_back(broker, sinks, make_frame, monkeypatch):
    said = []
    sink = sinks(broker.port, rate=1000, say=said.append)
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
    assert sink.errors == 1 and len(said) == 2 and "trying again" in said[0] and "connected again" in said[1]
    listener.close()


def test_a_broker_that_ends_every_connection_is_asked_less_and_less_often(monkeypatch, make_frame):
    """As some do with who writes to a topic that is not theirs."""
    monkeypatch.setattr(mqtt, "RETRY_S", (0.1, 60))
    said, met = [], []

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
        broker = mqtt.parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}/home/desk")
        sink = mqtt.Mqtt(broker, LABELS, say=said.append)
        wait_for(lambda: len(met) == 5)
        kept = len(sink._client._out_messages)
        sink.close()
        server.shutdown(socket.SHUT_RDWR)
    pauses = [after - before for before, after in itertools.pairwise(met)]
    assert pauses[3] > 2 * pauses[1] and kept == 0
    assert len(said) == 1 and "may this user write to home/desk/# and homeassistant/#?" in said[0]


@pytest.mark.mosquitto
def test_a_killed_program_leaves_its_last_will(broker, sinks, make_frame):
    listener = Listener(broker.port)
    sink = sinks(broker.port)
    assert listener.next("home/desk/availability") == "online"
    sink._client._sock.shutdown(socket.SHUT_RDWR)  # as the kernel does with a killed program's
    assert listener.next("home/desk/availability") == "offline"
    listener.close()


@pytest.mark.mosquitto
def test_a_wrong_password_is_said_once(broker, sinks):
    said = []
    sink = sinks(broker.port, user="pi:wrong", say=said.append)
    wait_for(lambda: sink.trouble)
    time.sleep(1.5)  # for a second attempt
    assert len(said) == 1 and "Not authorized" in said[0] and "wrong" not in said[0]


def test_no_broker_at_all_holds_nothing_up(sinks, make_frame):
    said = []
    sink = sinks(1, say=said.append)
    feed = Feed(sink)
    for number in range(100):
        feed.write(make_frame(number, "happy"))
    wait_for(lambda: said)
    began = time.monotonic()
    feed.close()
    assert time.monotonic() - began < 1.5
    assert said == ["MQTT 127.0.0.1:1 does not answer: trying again until it is there."]
