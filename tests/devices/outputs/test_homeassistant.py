"""MQTT discovery for Home Assistant: the devices and entities that a run announces."""

import json

from edgefer.devices.outputs.homeassistant import discovery, node_id

LABELS = ("happy", "sad", "neutral")


def test_different_prefixes_give_different_devices():
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
