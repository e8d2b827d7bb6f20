"""Home Assistant's MQTT discovery (home-assistant.io/integrations/mqtt): a configuration per topic."""

import re

from edgefer import __version__
from edgefer.records import UNSURE
from edgefer.text import own_word, printable

EXPIRE_S = 30  # without an update for so long, as when a camera is lost, it shows "unavailable"
DIAGNOSTICS_EXPIRE_S = 300
NO_FACE = "none"


def node_id(prefix: str) -> str:
    """A topic prefix encoded for a discovery topic, reversibly, so that different prefixes are different devices.

    A slash becomes an underscore, and anything but ASCII letters and digits its code point between hyphens: a/b is a_b,
    and a_b is a-5f-b.
    """
    return re.sub(r"[^a-zA-Z0-9/]", lambda one: f"-{ord(one[0]):x}-", prefix).replace("/", "_")


def discovery(prefix: str, labels: tuple[str, ...], page_url: str = "") -> dict[str, dict]:
    """The configurations by topic: expression, score, number of faces, presence, and diagnostics. page_url: of --serve."""
    node = node_id(prefix)
    device = {
        "identifiers": [f"edgefer-{node}"],
        "name": prefix,
        "manufacturer": "edgefer",
        "model": "edgefer",
        "sw_version": __version__,
    } | ({"configuration_url": page_url} if page_url else {})
    common = {
        "availability_topic": f"{prefix}/availability",
        "device": device,
        "origin": {"name": "edgefer", "sw_version": __version__},
    }
    entities = {
        ("sensor", key): {"state_topic": f"{prefix}/state", "expire_after": EXPIRE_S} | entity
        for key, entity in _sensors(labels, prefix).items()
    }
    entities["binary_sensor", "presence"] = {
        "name": "Presence",
        "state_topic": f"{prefix}/state",
        "expire_after": EXPIRE_S,
        "device_class": "occupancy",
        "value_template": "{{ 'ON' if value_json.count > 0 else 'OFF' }}",
    }
    for key, entity in _DIAGNOSTICS.items():
        entities["sensor", key] = {
            "state_topic": f"{prefix}/diagnostics",
            "expire_after": DIAGNOSTICS_EXPIRE_S,
            "entity_category": "diagnostic",
            "value_template": f"{{{{ value_json.{key} }}}}",
        } | entity
    return {
        f"homeassistant/{kind}/{node}/{key}/config": common | entity | {"unique_id": f"edgefer-{node}-{key}"}
        for (kind, key), entity in entities.items()
    }


def _sensors(labels: tuple[str, ...], prefix: str) -> dict[str, dict]:
    shown = tuple(printable(label) for label in labels)
    return {
        "expression": {
            "name": "Expression",
            "icon": "mdi:emoticon-outline",
            "value_template": "{{ value_json.label }}",
            "device_class": "enum",
            "options": [*shown, own_word(UNSURE, shown), own_word(NO_FACE, shown)],
            # Only what changes as rarely as the label: each change is a new row in the recorder's database.
            "json_attributes_topic": f"{prefix}/state",
            "json_attributes_template": (
                "{{ {'labels': value_json.faces | map(attribute='label') | list | sort, "
                "'unsure': (value_json.faces | first | default({})).unsure | default('')} | tojson }}"
            ),
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


_DIAGNOSTICS: dict[str, dict] = {
    "fps": {"name": "Frames per second", "icon": "mdi:speedometer", "state_class": "measurement"},
    "temperature_c": {
        "name": "Temperature",
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
    },
    "memory_mb": {
        "name": "Memory",
        "device_class": "data_size",
        "unit_of_measurement": "MB",
        "state_class": "measurement",
    },
    "problem": {"name": "Problem", "icon": "mdi:alert-outline"},
}
