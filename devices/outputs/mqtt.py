"""Tells an MQTT broker, and through it Home Assistant, what is seen. Needs paho-mqtt (the extra `mqtt`)."""

import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgefer import __version__
from edgefer.devices.outputs.sinks import Result, Sink, face_to_json
from edgefer.errors import InputError
from edgefer.records import UNSURE

PORTS = {"mqtt": 1883, "mqtts": 8883}
CHANGE = 0.05  # a score that moved by less is no news
AGAIN_S = 10.0  # the state is told again so often, so that a listener knows it is fresh
EXPIRE_S = 30  # Home Assistant shows "unavailable" when it has heard nothing for so long, as when a camera is lost
RETRY_S = (1, 60)  # the first and the longest pause between two attempts to connect; paho doubles it
LASTING_S = 5.0  # a connection that ends sooner was not one: brokers that forbid a topic end it at the first message
NO_FACE = "none"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where to: mqtt://user:password@host:port/topic/prefix, or mqtts:// for TLS."""

    host: str
    port: int
    prefix: str
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)


def parse_broker(url: str, password: str = "") -> Broker:
    """The parts of an mqtt:// URL; `password` is used where the URL has none. InputError when something is amiss."""
    shape = "write mqtt://host/topic-prefix or mqtt://user@host:1883/topic-prefix"
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the socket will, in a thread of paho's that would die of it
    except ValueError:  # not told on: it quotes what may be a password
        raise InputError(
            f"The MQTT address cannot be read: {shape}, with / # ? @ : of a password as %2F and so on."
        ) from None
    prefix = unquote(parts.path).strip("/")
    if parts.scheme not in PORTS or not parts.hostname or "?" in url or "#" in url:
        raise InputError(f"This is no MQTT address: {shape}.")  # not shown: it may hold a password
    if not prefix or re.search(r"[+#\0\s]|//", prefix):
        raise InputError(f"The MQTT address needs a topic prefix without blanks, + and #: {shape}.")
    return Broker(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        prefix=prefix,
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or password,
    )


class Mqtt(Sink):
    """Publishes PREFIX/state as JSON when it changes, at most `rate` times a second: count, label, score, faces.

    PREFIX/availability is online or offline (also as last will); three sensors are announced to Home Assistant.
    `label` and `score` are those of the largest face. A broker that is away is tried again for ever, by paho.
    """

    def __init__(
        self,
        broker: Broker,
        labels: tuple[str, ...],
        *,
        rate: float = 5,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.name = f"MQTT {broker.host}:{broker.port}"
        self._broker, self._labels, self._pause_s, self._say = broker, labels, 1 / rate, say
        self._sent: dict | None = None
        self._unsent: dict | None = None
        self._sent_s = 0.0
        self._connected, self._connected_s = False, 0.0
        self._retry_s = RETRY_S[0]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"edgefer-{secrets.token_hex(4)}")
        if broker.user:
            self._client.username_pw_set(broker.user, broker.password or None)
        if broker.tls:
            self._client.tls_set()
        self._client.will_set(self._topic("availability"), "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(*RETRY_S)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda client, userdata: self._failed("does not answer")
        self._client.on_disconnect = self._on_disconnect
        self._client.connect_async(broker.host, broker.port, keepalive=30)
        self._client.loop_start()

    def write(self, result: Result) -> None:
        state = state_of(result)
        now = time.monotonic()
        if self.trouble and self._connected and self._lasts():
            self.trouble = ""
            self._say(f"{self.name} is connected again.")
        self._unsent = state if news(self._sent, state) or now - self._sent_s >= AGAIN_S else None
        if self._unsent and self._connected and now - self._sent_s >= self._pause_s:
            self._send(state)

    def _send(self, state: dict) -> None:
        self._client.publish(self._topic("state"), json.dumps(state))
        self._sent, self._unsent, self._sent_s = state, None, time.monotonic()

    def close(self) -> None:
        connected, self._connected = self._connected, False
        self._client.on_disconnect = None
        if connected:
            if self._unsent:
                self._send(self._unsent)
            told = self._client.publish(self._topic("availability"), "offline", qos=1, retain=True)
            if told.rc == paho.MQTT_ERR_SUCCESS:
                told.wait_for_publish(0.5)
        self._client.disconnect()
        if connected:  # else paho may be waiting for a broker; its thread ends by itself, or with the program
            self._client.loop_stop()

    def _topic(self, name: str) -> str:
        return f"{self._broker.prefix}/{name}"

    def _on_connect(self, client, userdata, flags, reason, properties) -> None:
        if reason.is_failure:
            self._failed(f"refuses the connection ({reason})")
            return
        # With QoS 0, as all is told again at the next connection: paho would keep what is not acknowledged, for ever.
        for topic, config in discovery(self._broker.prefix, self._labels).items():
            client.publish(topic, json.dumps(config), retain=True)
        client.publish(self._topic("availability"), "online", retain=True)
        self._sent, self._connected, self._connected_s = None, True, time.monotonic()

    def _on_disconnect(self, client, userdata, flags, reason, properties) -> None:
        if self._connected:
            lasted = self._lasts()
            self._retry_s = RETRY_S[0] if lasted else min(2 * self._retry_s, RETRY_S[1])
            client.reconnect_delay_set(self._retry_s, RETRY_S[1])  # paho itself begins anew after each connection
            topics = f"{self._broker.prefix}/# and homeassistant/#"
            self._failed("is gone" if lasted else f"ends the connection at once (may this user write to {topics}?)")
        self._connected = False

    def _lasts(self) -> bool:
        return time.monotonic() - self._connected_s >= LASTING_S

    def _failed(self, why: str) -> None:
        if not self.trouble:
            self.errors += 1
            self._say(f"{self.name} {why}: trying again until it is there.")
        self.trouble = why


def state_of(result: Result) -> dict:
    """What is published of a result: count, label and score of the largest face, and the faces without their scores."""

    def area(face) -> int:
        left, top, right, bottom = face.box_xyxy
        return (right - left) * (bottom - top)

    faces = sorted(result.faces, key=area, reverse=True)
    listed = [{key: value for key, value in face_to_json(face).items() if key != "scores"} for face in faces]
    return {
        "count": len(faces),
        "label": faces[0].prediction.label if faces else NO_FACE,
        "score": listed[0]["score"] if faces else 0.0,
        "faces": listed,
    }


def news(old: dict | None, new: dict) -> bool:
    """Whether a state is worth telling: other faces or labels, or a score that moved by CHANGE."""

    def who(state: dict) -> list[tuple]:
        return sorted((face["id"], face["label"], face.get("unsure", "")) for face in state["faces"])

    if old is None or who(old) != who(new):
        return True
    before = {face["id"]: face["score"] for face in old["faces"]}
    return any(abs(face["score"] - before[face["id"]]) >= CHANGE for face in new["faces"])


def discovery(prefix: str, labels: tuple[str, ...]) -> dict[str, dict]:
    """Home Assistant's MQTT discovery (home-assistant.io/integrations/mqtt): a config by topic, of three sensors."""
    node = re.sub(r"[^a-zA-Z0-9_-]", "_", prefix)
    common = {
        "state_topic": f"{prefix}/state",
        "availability_topic": f"{prefix}/availability",
        "expire_after": EXPIRE_S,
        "device": {"identifiers": [f"edgefer-{node}"], "name": prefix, "model": "edgefer", "sw_version": __version__},
        "origin": {"name": "edgefer", "sw_version": __version__},
    }
    sensors: dict[str, dict] = {
        "expression": {
            "name": "Expression",
            "icon": "mdi:emoticon-outline",
            "value_template": "{{ value_json.label }}",
            "device_class": "enum",
            "options": [*labels, UNSURE, NO_FACE],
            "json_attributes_topic": f"{prefix}/state",
        },
        "score": {
            "name": "Score",
            "icon": "mdi:percent-outline",
            "value_template": "{{ (value_json.score * 100) | round }}",
            "unit_of_measurement": "%",
            "state_class": "measurement",
        },
        "faces": {
            "name": "Faces",
            "icon": "mdi:account-multiple-outline",
            "value_template": "{{ value_json.count }}",
            "state_class": "measurement",
        },
    }
    return {
        f"homeassistant/sensor/{node}/{key}/config": common | sensor | {"unique_id": f"edgefer-{node}-{key}"}
        for key, sensor in sensors.items()
    }
