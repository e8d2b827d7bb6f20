"""What `edgefer run` does with a network, for the exported page to do the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefer.card import ModelCard
    from edgefer.convert.web.site import Device

SMOOTH, REJECT = "responsive", 0.45  # what `edgefer run` begins with


def device_of(card: "ModelCard") -> "Device":
    """What `edgefer run` does with this card's network, for a page to do the same."""
    from dataclasses import asdict

    from edgefer.convert.web.site import Device
    from edgefer.devices.faces import quality, smoothing, tracking
    from edgefer.devices.faces.detectors import HaarDetector
    from edgefer.devices.outputs.overlay import color_of

    rules = {
        "presets": {name: asdict(preset) for name, preset in smoothing.PRESETS.items()},
        "smooth": SMOOTH,
        "reject": REJECT,
        "ease": smoothing.EASE,
        "unsure_lead": smoothing.UNSURE_LEAD,
        "min_iou": tracking.MIN_IOU,
        "min_hits": tracking.MIN_HITS,
        "max_misses": tracking.MAX_MISSES,
        "forget_s": tracking.FORGET_S,
        "side": quality.SIDE,
        "min_side": quality.MIN_SIDE,
        "min_light": quality.MIN_LIGHT,
        "max_light": quality.MAX_LIGHT,
        "min_sharpness": quality.MIN_SHARPNESS,
    }
    return Device(
        rules=rules,
        colors={label: "#{:02x}{:02x}{:02x}".format(*reversed(color_of(label, card.labels))) for label in card.labels},
        cascade=HaarDetector.CASCADES.get(card.faces, ""),
        detector={"human": "haar", "cat": "haar-cat"}.get(card.faces, "frame"),
    )
