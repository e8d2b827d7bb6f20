"""Publishes results to an MQTT broker, also for Home Assistant. Needs paho-mqtt (the extra `mqtt`)."""

import json
import math
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgefer.devices.outputs.broker import Broker, answer_problem, connection_problem, tls_context
from edgefer.devices.outputs.homeassistant import NO_FACE, discovery
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.outputs.stats import RunStats
from edgefer.errors import EdgeferError
from edgefer.records import Frame
from edgefer.text import own_word, printable

MIN_CHANGE = 0.05  # a smaller change of a score is not published
REPEAT_S = 10.0  # interval of publishing an unchanged state, so that subscribers know it is current
DIAGNOSTICS_S = 60.0
RETRY_S = (1, 60)  # the first and the longest pause between two attempts to connect; paho doubles it
LASTING_S = 5.0  # a connection that ends sooner counts as failed: brokers close it at a message to a forbidden topic
CONNACK_S = 5.0  # time limit for the broker to accept
ACCEPT_S = 2.0  # how long a finished run waits for the broker to accept
CLAIM_S = 0.5  # time limit for the reply of another run on the same topic prefix
MAX_CLAIM_BYTES = 300


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run that publishes under a topic prefix, as in PREFIX/run. established: it has already published."""

    run: str
    since: float
    established: bool = False

    def before(self, other: "Claim") -> bool:
        """Whether this run keeps the prefix, and the other one gives it up."""
        return (not self.established, self.since, self.run) < (not other.established, other.since, other.run)


class Mqtt(Sink):
    """Publishes PREFIX/state as JSON when it changes, at most `rate` times per second: count, label, score, faces.

    PREFIX/availability is online or offline (also as last will), PREFIX/diagnostics has the run's health, and Home Assistant
    gets its discovery. `label` and `score` are those of the largest face. An unreachable broker is retried forever.
    Two runs cannot share a prefix: one that finds another publishing under it ends with EdgeferError at the next frame.
    A run that ends before the broker has accepted it, as for one photo, waits for that.
    page_url: of --serve, for Home Assistant's link. log: receives a message about each kind of trouble, and when it is over.
    """

    close_s = ACCEPT_S + 1.0

    def __init__(
        self,
        broker: Broker,
        labels: tuple[str, ...],
        *,
        rate: float = 5,
        stats: RunStats | None = None,
        page_url: str = "",
        log: Callable[[str], None] = lambda text: None,
    ):
        self.name = f"MQTT {broker.host}:{broker.port}"
        self._broker, self._labels, self._min_pause_s, self._log = broker, labels, 1 / rate, log
        self._stats, self._page_url = stats, page_url
        self._published: dict | None = None  # the last published state, and a pending one
        self._waiting: dict | None = None
        self._published_s = self._diagnostics_s = 0.0
        self._claim = Claim(run=secrets.token_hex(6), since=time.time())
        self._rival = self._written = False
        self._echoed = self._echo_missed = False  # whether this run's own claim came back
        self._attempt = 0  # counts connections, so that a timer knows whether its own is still open
        self._accepted_s: float | None = None  # when the broker accepted this connection
        self._connected = self._refused = False
        self._logged: set[str] = set()  # problems since the last connection that lasted
        self._retry_s = RETRY_S[0]
        self._client = self._make_client()
        self._client.loop_start()

    def _make_client(self) -> paho.Client:
        broker = self._broker
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"edgefer-{self._claim.run}")
        if broker.user:
            client.username_pw_set(broker.user, broker.password or None)
        if broker.tls:
            client.tls_set_context(tls_context(broker))
        client.will_set(self._topic("availability"), "offline", qos=1, retain=True)
        client.reconnect_delay_set(*RETRY_S)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.message_callback_add(self._topic("run"), self._on_claim)
        client.message_callback_add(self._topic("availability"), self._on_availability)
        client.connect_async(broker.host, broker.port, keepalive=30)
        return client

    def write(self, frame: Frame) -> None:
        if self._rival:
            raise EdgeferError(
                f"another edgefer run already publishes to {self._broker.prefix}: give each run its own topic prefix"
            )
        self._written = True
        state = state_of(frame, self._labels)
        now = time.monotonic()
        if self.trouble and self._connected and self._lasts():
            self.trouble = ""
            self._logged.clear()
            self._log(f"{self.name} is connected again.")
        due = is_news(self._published, state) or now - self._published_s >= REPEAT_S
        self._waiting = state if due else None
        if self._connected and due and now - self._published_s >= self._min_pause_s:
            self._publish_state(state)
        if self._connected and self._stats and now - self._diagnostics_s >= DIAGNOSTICS_S:
            self._diagnostics_s = now
            self._publish("diagnostics", diagnostics_of(self._stats, self.name))

    @property
    def unsent(self) -> bool:  # type: ignore[override]
        """Whether the state after the last frame was not published, or nothing ever was."""
        return self._written and (self._waiting is not None or self._published is None)

    def close(self) -> None:
        until = time.monotonic() + ACCEPT_S
        while self.unsent and not (self._connected or self.trouble or self._rival) and time.monotonic() < until:
            time.sleep(0.02)
        connected, self._connected = self._connected, False
        self._attempt += 1
        self._client.on_disconnect = None
        if connected and not self._rival:
            if self._waiting:
                self._publish_state(self._waiting)
            sent = self._client.publish(self._topic("availability"), "offline", qos=1, retain=True)
            if sent.rc == paho.MQTT_ERR_SUCCESS:
                sent.wait_for_publish(0.5)
        self._client.disconnect()  # without the last will
        if connected:  # else paho may be waiting for a broker; its thread ends on its own or with the program
            self._client.loop_stop()

    def _topic(self, name: str) -> str:
        return f"{self._broker.prefix}/{name}"

    def _publish(self, name: str, value: dict) -> None:
        # QoS 0, since everything is published again at the next connection; paho would keep unacknowledged messages forever.
        self._client.publish(self._topic(name), json.dumps(value))

    def _publish_state(self, state: dict) -> None:
        self._publish("state", state)
        self._published, self._waiting, self._published_s = state, None, time.monotonic()

    # ---- in paho's thread ----

    def _on_socket_open(self, client: paho.Client, userdata: Any, sock: Any) -> None:
        self._attempt += 1
        self._accepted_s, self._refused = None, False
        _later(CONNACK_S, self._not_accepted, self._attempt)

    def _not_accepted(self, attempt: int) -> None:
        """The connection was not accepted in time."""
        if attempt == self._attempt and self._accepted_s is None and not self._refused:
            problem = answer_problem(self._broker)
            if attempt == self._attempt and self._accepted_s is None:
                self._failed(problem)

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = True
            self._failed(f"refuses the connection ({reason})")
            return
        self._accepted_s = time.monotonic()
        client.subscribe([(self._topic(name), 0) for name in ("run", "availability")])
        self._publish("run", asdict(self._claim))
        _later(CLAIM_S, self._establish, self._attempt)

    def _establish(self, attempt: int) -> None:
        """No other run publishes under the prefix: take it."""
        if attempt != self._attempt or self._accepted_s is None or self._rival:
            return
        self._claim = Claim(run=self._claim.run, since=self._claim.since, established=True)
        for topic, config in discovery(self._broker.prefix, self._labels, self._page_url).items():
            self._client.publish(topic, json.dumps(config), retain=True)
        self._say_online()
        self._published, self._diagnostics_s, self._connected = None, 0.0, True
        _later(LASTING_S, self._check_echo, attempt)

    def _check_echo(self, attempt: int) -> None:
        """Log, once, that a message of this run did not come back: some brokers drop forbidden ones in silence."""
        if attempt != self._attempt or self._echoed or self._echo_missed:
            return
        self._echo_missed = True
        prefix = self._broker.prefix
        self._log(
            f"{self.name} did not return a message of this run on {prefix}/run: if none arrive, let this user write and read "
            f"{prefix}/#, and write homeassistant/#."
        )

    def _on_claim(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if message.retain:  # claims are never retained, so this is not from a current run
            return
        other = _parse_claim(bytes(message.payload))
        if other is None:
            return
        if other.run == self._claim.run:
            self._echoed = True
            return
        if not other.before(self._claim):
            self._publish("run", asdict(self._claim))
        elif not self._rival:
            self._rival, self._connected = True, False
            self._failed(f"has another edgefer run under {self._broker.prefix}: give each run its own topic prefix")

    def _on_availability(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        """Correct the last will of an earlier run, whose end a broker notices a minute late after a power cut."""
        if self._connected and not message.retain and message.payload == b"offline":
            self._say_online()

    def _say_online(self) -> None:
        self._client.publish(self._topic("availability"), "online", retain=True)

    def _on_connect_fail(self, client: paho.Client, userdata: Any) -> None:
        self._failed(connection_problem(sys.exception(), self._broker))  # paho calls this while it handles the error

    def _on_disconnect(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        attempt, self._attempt = self._attempt, self._attempt + 1
        self._connected = False
        if self._accepted_s is not None:
            lasted = self._lasts()
            self._retry_s = RETRY_S[0] if lasted else min(2 * self._retry_s, RETRY_S[1])
            client.reconnect_delay_set(self._retry_s, RETRY_S[1])  # paho resets it after each connection
            topics = f"{self._broker.prefix}/# and homeassistant/#"
            self._failed(
                "has disconnected" if lasted else f"closes the connection at once (may this user write to {topics}?)"
            )
        elif not self._refused and attempt:
            self._failed(answer_problem(self._broker))

    def _lasts(self) -> bool:
        return self._accepted_s is not None and time.monotonic() - self._accepted_s >= LASTING_S

    def _failed(self, problem: str) -> None:
        if problem not in self._logged:
            self._logged.add(problem)
            self.errors += 1
            end = "" if problem.endswith("?") else "."
            self._log(f"{self.name} {problem}{end}" + ("" if self._rival else " Retrying until it is available."))
        self.trouble = problem


def state_of(frame: Frame, labels: tuple[str, ...] = ()) -> dict:
    """The state to publish for a frame: count, label and score of the largest face, and the faces without their scores.

    labels: the network's. If one is called "none" it keeps its name, and edgefer's own "none" is put in brackets.
    """

    def area(face) -> int:
        left, top, right, bottom = face.box_xyxy
        return (right - left) * (bottom - top)

    faces = sorted(frame.faces, key=area, reverse=True)
    listed = []
    for face in faces:
        values = {key: value for key, value in face.to_dict().items() if key != "scores"}
        listed.append(values | {"label": printable(face.label)})
    return {
        "count": len(faces),
        "label": listed[0]["label"] if faces else own_word(NO_FACE, labels),
        "score": listed[0]["score"] if faces else 0.0,
        "faces": listed,
    }


def is_news(old: dict | None, new: dict) -> bool:
    """Whether a state is worth publishing: other faces or labels, or a score that changed by MIN_CHANGE."""

    def faces_in(state: dict) -> list[tuple]:
        return sorted((face["id"], face["label"], face.get("unsure", "")) for face in state["faces"])

    if old is None or faces_in(old) != faces_in(new):
        return True
    before = {face["id"]: face["score"] for face in old["faces"]}
    return any(abs(face["score"] - before[face["id"]]) >= MIN_CHANGE for face in new["faces"])


def diagnostics_of(stats: RunStats, own_name: str) -> dict:
    """The run's health: fps, temperature_c, memory_mb, and the problem of its source or another output, "none" if there is
    none."""
    now = stats.read()
    problems = [source.trouble.rstrip(".") for source in now.sources if source.trouble]
    problems += [f"{sink.name}: {sink.trouble}" for sink in now.sinks if sink.trouble and sink.name != own_name]
    return {
        "fps": round(now.fps, 1),
        "temperature_c": now.temperature_c and round(now.temperature_c),
        "memory_mb": now.memory_mb and round(now.memory_mb),
        "problem": "; ".join(problems)[:250] or "none",  # Home Assistant keeps 255 characters of a state
    }


def _parse_claim(payload: bytes) -> Claim | None:
    """Another run's claim, or None if invalid: anyone may write to the topic."""
    if len(payload) > MAX_CLAIM_BYTES:
        return None
    try:
        value = json.loads(payload)
        since = float(value["since"])
        if not math.isfinite(since):
            return None
        return Claim(run=str(value["run"]), since=since, established=value.get("established") is True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _later(seconds: float, function: Callable[[int], None], attempt: int) -> None:
    timer = threading.Timer(seconds, function, (attempt,))
    timer.daemon = True
    timer.start()
