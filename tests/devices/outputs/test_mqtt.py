"""MQTT against a real Mosquitto: what is published and how often, a broker that goes and comes back, one that refuses."""

import itertools
import json
import queue
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from conftest import MOSQUITTO

from edgefer.devices.outputs.broker import answer_problem, connection_problem, parse_broker
from edgefer.devices.outputs.feeds import Feed
from edgefer.devices.outputs.homeassistant import discovery, node_id
from edgefer.devices.outputs.stats import RunStats
from edgefer.errors import EdgeferError, InputError

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
        made.append(mqtt.Mqtt(parse_broker(f"mqtt://{user}@127.0.0.1:{port}/home/desk"), LABELS, **settings))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


def test_addresses_and_passwords():
    broker = parse_broker("mqtt://pi@broker.local/home/desk/", "from the environment")
    assert (broker.host, broker.port, broker.prefix, broker.user) == ("broker.local", 1883, "home/desk", "pi")
    assert broker.password == "from the environment" and "environment" not in repr(broker)
    broker = parse_broker("mqtts://pi:p%40ss@[::1]:9999/desk", "other")
    assert (broker.host, broker.port, broker.tls, broker.password) == ("::1", 9999, True, "p@ss")


@pytest.mark.parametrize(
    "url", ["mqtt://broker", "mqtt://broker/a/#", "mqtt://broker/a b", "http://broker/a", "broker/a", "mqtt://b:x/a", "mqtt:///a", "mqtt://home..lan/a", "mqtt://me:secret/1@b/a"]
)  # fmt: skip
def test_no_mqtt_address(url):
    with pytest.raises(InputError, match="mqtt://host/topic-prefix") as refused:
        parse_broker(url)
    assert "secret" not in str(refused.value)


def test_news_is_another_face_or_label_or_a_score_that_moved(make_frame):
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
def test_what_is_published(broker, sinks, make_frame):
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
    sink = sinks(broker.port, rate=1000, log=said.append)
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
    assert sink.errors == len(said) - 1 and "Trying again" in said[0] and "connected again" in said[-1]
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
        broker = parse_broker(f"mqtt://127.0.0.1:{server.getsockname()[1]}/home/desk")
        sink = mqtt.Mqtt(broker, LABELS, log=said.append)
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
    sink = sinks(broker.port, user="pi:wrong", log=said.append)
    wait_for(lambda: sink.trouble)
    time.sleep(1.5)  # for a second attempt
    assert len(said) == 1 and "Not authorized" in said[0] and "wrong" not in said[0]


def test_no_broker_at_all_holds_nothing_up(sinks, make_frame):
    said = []
    sink = sinks(1, log=said.append)
    feed = Feed(sink)
    for number in range(100):
        feed.write(make_frame(number, "happy"))
    wait_for(lambda: said)
    began = time.monotonic()
    feed.close()
    assert time.monotonic() - began < 1.5
    assert said == ["MQTT 127.0.0.1:1 refuses connections: nothing listens at port 1. Trying again until it is there."]


# ---- why a connection does not come about ----


class Server:
    """A TCP server on loopback: `answer(connection)` for each who connects, behind TLS where there is a certificate."""

    def __init__(self, answer, certificate=None):
        self._answer, self._context = answer, None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with self._context.wrap_socket(connection, server_side=True) if self._context else connection as speaking:
                self._answer(speaking)
        except OSError:
            pass

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def accepts(connection):
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x00")
    while connection.recv(1024):
        pass


def refuses(connection):
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x05")


def keeps_silent(connection):
    while connection.recv(1024):
        pass


def closes(connection):
    pass


def is_a_web_server(connection):
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def speaks_ssh(connection):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.recv(1024)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates for 127.0.0.1 and for another name: (certificate, key) by name."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    folder, made = tmp_path_factory.mktemp("tls"), {}
    for name, subject in (("right", "IP:127.0.0.1"), ("other", "DNS:broker.elsewhere")):
        made[name] = folder / f"{name}.pem", folder / f"{name}.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        command += ["-addext", f"subjectAltName={subject}", "-out", made[name][0], "-keyout", made[name][1]]
        subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.mark.parametrize(
    ("scheme", "answer", "certificate", "ca", "reason"),
    [
        ("mqtt", keeps_silent, None, None, "gives no answer to MQTT (no CONNACK)"),
        ("mqtt", closes, None, None, "closes the connection without an answer to MQTT (no CONNACK)"),
        ("mqtt", is_a_web_server, None, None, "is a web server at this port"),
        ("mqtt", speaks_ssh, None, None, "answers, but not in MQTT (it begins with 53 53 48"),
        ("mqtt", refuses, None, None, "refuses the connection (Not authorized)"),
        ("mqtt", accepts, "right", None, "speaks TLS at this port: write mqtts://"),
        ("mqtts", accepts, None, None, "TLS"),
        ("mqtts", is_a_web_server, None, None, "does not speak TLS at this port: write mqtt://"),
        ("mqtts", accepts, "right", None, "certificate that is not trusted here (self-signed certificate): name its authority's file with --mqtt-ca"),
        ("mqtts", accepts, "right", "other", "did not sign"),
        ("mqtts", accepts, "other", "other", "certificate for another name"),
        ("mqtts", keeps_silent, "right", "right", "gives no answer to MQTT (no CONNACK)"),
    ],
)  # fmt: skip
def test_the_real_reason_is_given_and_counted_and_frames_go_on(
    certificates, make_frame, monkeypatch, scheme, answer, certificate, ca, reason
):
    monkeypatch.setattr(mqtt, "RETRY_S", (1, 1))
    monkeypatch.setattr(mqtt, "CONNACK_S", 0.3)
    monkeypatch.setattr("edgefer.devices.outputs.broker.PROBE_S", 0.5)
    server = Server(answer, certificates[certificate] if certificate else None)
    log = []
    broker = parse_broker(f"{scheme}://pi:raspberry@127.0.0.1:{server.port}/desk", ca=ca and certificates[ca][0])
    feed = Feed(mqtt.Mqtt(broker, LABELS, log=log.append))
    wait_for(lambda: feed.trouble, 20)
    began = time.monotonic()
    for number in range(50):
        feed.write(make_frame(number, "happy"))
    assert time.monotonic() - began < 1
    assert (
        reason in feed.trouble
        and feed.errors == 1
        and log == [f"{feed.name} {feed.trouble}. Trying again until it is there."]
    )
    assert "raspberry" not in log[0]
    feed.close()
    server.close()


def test_a_broker_with_its_own_authority_is_trusted_with_its_file(certificates, monkeypatch):
    server = Server(accepts, certificates["right"])
    sink = mqtt.Mqtt(parse_broker(f"mqtts://127.0.0.1:{server.port}/desk", ca=certificates["right"][0]), LABELS)
    wait_for(lambda: sink._connected)
    assert not sink.trouble and not sink.errors
    sink.close()
    server.close()


def test_an_authority_file_that_is_none_is_said_at_once(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for file, reason in (("ca.pem", "no certificate in PEM"), ("none.pem", "No such file")):
        with pytest.raises(InputError, match=reason):
            parse_broker("mqtts://broker/desk", ca=tmp_path / file)
    with pytest.raises(InputError, match="write mqtts://"):
        parse_broker("mqtt://broker/desk", ca=tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "not known by that name"),
        (TimeoutError("timed out"), "does not answer"),
        (OSError(113, "No route to host"), "cannot be reached (No route to host)"),
        (None, "no reason given"),
    ],
)
def test_every_error_has_a_sentence(error, reason):
    assert reason in connection_problem(error, parse_broker("mqtt://broker/desk"))
    assert "refuses connections" in answer_problem(parse_broker("mqtt://127.0.0.1:1/desk"))


# ---- Home Assistant ----


def test_no_two_prefixes_are_one_device():
    prefixes = [
        "a/b",
        "a_b",
        "a-b",
        "a-5f-b",
        "küche",
        "küche2",
        "キッチン",
        "寝室",
        "a_/b",
        "a/_b",
        "a",
        "A",
        "x.y",
        "x y",
    ]
    nodes = [node_id(prefix) for prefix in prefixes]
    assert len(set(nodes)) == len(prefixes) and all(node.replace("_", "").replace("-", "").isalnum() for node in nodes)
    assert all(node.isascii() for node in nodes) and node_id("home/desk") == "home_desk"
    ids = [config["unique_id"] for prefix in prefixes for config in discovery(prefix, LABELS).values()]
    topics = [topic for prefix in prefixes for topic in discovery(prefix, LABELS)]
    assert len(set(ids)) == len(ids) and len(set(topics)) == len(topics)


def test_labels_that_are_called_as_edgefers_own_words(make_frame):
    labels = ("none", "unsure", "(none)")
    options = discovery("desk", labels)["homeassistant/sensor/desk/expression/config"]["options"]
    assert options == ["none", "unsure", "(none)", "(unsure)", "((none))"]
    assert mqtt.state_of(make_frame(0), labels)["label"] == "((none))"
    assert mqtt.state_of(make_frame(0, ("unsure", "dark"), known=labels), labels)["label"] == "(unsure)"
    assert mqtt.state_of(make_frame(0, "none"), labels)["label"] == "none"


def test_home_assistant_gets_presence_diagnostics_and_small_attributes():
    configs = discovery("home/desk", LABELS, "http://pi:8000/")
    presence = configs["homeassistant/binary_sensor/home_desk/presence/config"]
    assert presence["device_class"] == "occupancy" and "value_json.count" in presence["value_template"]
    diagnostics = [config for config in configs.values() if config.get("entity_category") == "diagnostic"]
    assert {config["state_topic"] for config in diagnostics} == {"home/desk/diagnostics"} and len(diagnostics) == 4
    for config in configs.values():
        assert config["device"]["manufacturer"] and config["device"]["configuration_url"] == "http://pi:8000/"
        assert (
            "box" not in json.dumps(config) and "json_attributes_topic" not in config
        ) or "json_attributes_template" in config
    attributes = configs["homeassistant/sensor/home_desk/expression/config"]["json_attributes_template"]
    assert "score" not in attributes and "box" not in attributes, "they would be recorded at every change"


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
    told = mqtt.diagnostics_of(stats, "MQTT broker:1883")
    assert told["problem"] == "out.csv: the disk is full" and told["fps"] > 0 and told["memory_mb"] > 10
    assert mqtt.diagnostics_of(stats, "out.csv")["problem"] == "none"


@pytest.mark.mosquitto
def test_two_runs_do_not_mix_under_one_prefix(broker, sinks, make_frame):
    log = []
    first = sinks(broker.port)
    wait_for(lambda: first._connected)
    second = sinks(broker.port, log=log.append)
    wait_for(lambda: second.trouble)
    with pytest.raises(EdgeferError, match="another edgefer run publishes to home/desk already"):
        second.write(make_frame(0, "happy"))
    listener = Listener(broker.port)
    second.close()
    first.write(make_frame(0, "sad"))
    assert json.loads(listener.next("home/desk/state"))["label"] == "sad" and not first.trouble
    assert listener.next("home/desk/availability") == "online" and listener.box("home/desk/availability").empty()
    assert "has another edgefer run under home/desk" in log[0]
    listener.close()


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"[" * 290, b'{"run": 1}', b'{"run": "a", "since": "x"}', b"\xff", b'{"run":"a","since":1,"x":"' + b"y" * 400 + b'"}'])  # fmt: skip
def test_what_is_no_claim_is_nothing(payload):
    assert mqtt._parse_claim(payload) is None


@pytest.mark.mosquitto
def test_a_run_that_is_over_at_once_waits_for_the_broker(broker, sinks, make_frame):
    """One photo is read sooner than a broker accepts: its state is published all the same."""
    listener = Listener(broker.port)
    feed = Feed(sinks(broker.port))
    feed.write(make_frame(0, "happy"))
    feed.close()
    assert json.loads(listener.next("home/desk/state"))["label"] == "happy"
    assert not feed.unsent
    listener.close()


def test_a_photo_whose_state_reaches_no_broker_is_a_failure(edgefer, tmp_path):
    import cv2

    from edgefer import drawn

    cv2.imwrite(str(tmp_path / "photo.png"), next(drawn.scene())[0].image_bgr)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    order = ("run", "fer-nano", tmp_path / "photo.png", "--headless", "--csv", tmp_path / "out.csv")
    done = edgefer(*order, "--mqtt", f"mqtt://127.0.0.1:{port}/home", expect=1)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgefer: Not all was written: MQTT 127.0.0.1:") and "nothing listens" in last
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3  # the other outputs are whole: two faces
