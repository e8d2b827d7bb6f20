"""The settings of `edgefer run` for a network, for the exported page to work in the same way."""

from typing import TYPE_CHECKING

from edgefer.errors import InputError
from edgefer.options import AS_SHIPPED, DetectorFiles, ReaderOptions
from edgefer.text import printable

if TYPE_CHECKING:
    from edgefer.card import ModelCard
    from edgefer.convert.web.device import Device, FaceNetworks


def device_of(
    card: "ModelCard",
    *,
    labels: str = "",
    smooth: str = ReaderOptions.smooth,
    reject: float = ReaderOptions.reject,
    files: DetectorFiles = AS_SHIPPED,
) -> "Device":
    """The settings of `edgefer run` for this card's network, for a page. Human faces are detected by edgefer's own detector;
    for anything else it reads the centre of the frame, since the page has no other detector.

    labels: "A,B,...", shown instead of the card's; smooth, reject: initial settings of the page; files: the pair, if it is
    not the shipped one. InputError for labels of a wrong number, or that are not distinct.
    """
    from edgefer.convert.web.device import Device
    from edgefer.devices.faces.detectors import FrameDetector
    from edgefer.devices.faces.pair import has_pair, refuse_pair
    from edgefer.devices.outputs.overlay import web_color

    people = card.faces == "human" and has_pair(files)
    if not people:
        refuse_pair(files, card.faces, card.name)
    networks = _face_networks(files) if people else None
    shown = _shown(labels, card.labels) if labels else card.labels
    colors = [web_color(label, card.labels) for label in card.labels]
    return Device(
        rules={**_rules(people), **card.limits.model_dump(), "smooth": str(smooth), "reject": reject},
        labels=shown,
        colors=dict(zip(shown, colors, strict=True)),
        detector="own" if people else "frame",
        networks=networks,
        find=_detector(networks).find if networks else FrameDetector().find,
    )


def _rules(people: bool) -> dict[str, object]:
    """The parameters of `edgefer run` for tracking faces, smoothing labels, and rejecting unreadable faces."""
    from dataclasses import asdict

    from edgefer.devices.faces import own, quality, smoothing, tracking
    from edgefer.quality import SIDE

    return {
        "presets": {name: asdict(preset) for name, preset in smoothing.PRESETS.items()},
        "ease": smoothing.EASE,
        "unsure_lead": smoothing.UNSURE_LEAD,
        "min_iou": tracking.MIN_IOU,
        "min_hits": tracking.MIN_HITS,
        "max_misses": tracking.MAX_MISSES,
        "max_shift": tracking.MAX_SHIFT,
        "forget_s": tracking.FORGET_S,
        "forget_frames": tracking.FORGET_FRAMES,
        "gaps": tracking.GAPS,
        "follow_s": tracking.FOLLOW_S,
        "patch": tracking.PATCH,
        "reach": tracking.REACH,
        "min_correlation": tracking.MIN_CORRELATION,
        "min_contrast": tracking.MIN_CONTRAST,
        "level_s": tracking.LEVEL_S,
        "min_new_score": own.MIN_NEW_SCORE if people else 0,
        "side": SIDE,
        "min_side": quality.MIN_SIDE,
        "max_turn": quality.MAX_TURN,
    }


def _shown(text: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    shown = tuple(label.strip() for label in printable(text).split(","))
    if len(set(shown)) != len(labels) or len(shown) != len(labels) or not all(shown):
        raise InputError(
            f"--labels {printable(text)!r}: name {len(labels)} different labels, in the order of the network's: {','.join(labels)}."
        )
    return shown


def _face_networks(files: DetectorFiles) -> "FaceNetworks":
    """The finder and refiner, and the parameters with which `edgefer run` uses them."""
    from edgefer import faces
    from edgefer.c.subject import read_subject
    from edgefer.convert.web.device import FaceNetworks
    from edgefer.devices.faces import canvas, own
    from edgefer.devices.faces.pair import pair_bundles

    finder, refiner = map(read_subject, pair_bundles(files))
    numbers = {
        "side": own.SIDE,
        "multiple": canvas.MULTIPLE,
        "min_logit": canvas.logit(own.min_candidate_score(own.MIN_SCORE)),
        "min_score": own.MIN_SCORE,
        "max_roll_deg": own.MAX_ROLL_DEG,
        "candidates": own.MAX_CANDIDATES,
        "alike": own.MAX_CANDIDATE_IOU,
        "overlap": own.MAX_IOU,
        "nested": canvas.MAX_NESTED,
        "max_boxes": canvas.MAX_BOXES,
        "strides": faces.STRIDES,
        "anchors": faces.ANCHORS,
        "box_gain": faces.BOX_GAIN,
        "refiner_side": faces.REFINER_SIDE,
        "margin": faces.REFINER_MARGIN,
        "point_gain": faces.POINT_GAIN,
        "size_gain": faces.SIZE_GAIN,
    }
    return FaceNetworks(finder=finder, refiner=refiner, numbers=numbers)


def _detector(networks: "FaceNetworks"):
    """edgefer's own detector, bit-exact: runtimes other than the default one may round differently."""
    from edgefer.c.exact import ExactMaps
    from edgefer.devices.faces.own import OwnDetector

    return OwnDetector(ExactMaps(networks.finder.program), ExactMaps(networks.refiner.program))
