"""The two networks of edgefer's own detector: the pair that ships, or bundles that a user trained and names."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import FACE_NETWORKS, Bundle, Form, path_or_shipped, shipped_networks
from edgefer.card import InputSpec, Task
from edgefer.devices.faces.canvas import MapNetwork
from edgefer.errors import BundleError, InputError
from edgefer.faces import FINDER_LABELS, FINDER_SIDE, REFINER_LABELS, REFINER_SIDE, map_shapes
from edgefer.interpreter import ANY_RUNTIME, Network, RuntimeOptions
from edgefer.options import DetectorFiles
from edgefer.parity import check_at_load
from edgefer.text import printable

TASKS: dict[str, Task] = {"face-finder": "find-faces", "face-refiner": "refine-faces"}  # by shipped name
MAX_STEP = 8.0  # of an answer's scale: boxes stay numbers that can be computed with


@dataclass(frozen=True)
class Half:
    """One network of the pair, ready. name: its card's, and the hash of its bundle, by which a recording can be traced."""

    network: MapNetwork
    name: str


@dataclass(frozen=True)
class Running:
    """How the pair's networks run: on what, and whether one that a user names proves its stored answers first."""

    options: RuntimeOptions = ANY_RUNTIME
    check: bool = True


AS_USUAL = Running()


def has_shipped_pair() -> bool:
    """Whether this install has the pair."""
    return all(name in shipped_networks() for name in FACE_NETWORKS)


def has_pair(files: DetectorFiles) -> bool:
    """Whether there is a pair: both of its networks are named, or this install has those that ship."""
    return bool(files.finder and files.refiner) or has_shipped_pair()


def refuse_pair(files: DetectorFiles, faces: str, reader: str = "the network") -> None:
    """InputError where a network of a pair is named that cannot serve `reader`, which reads faces of that kind."""
    if files.finder or files.refiner:
        raise InputError(f"--finder and --refiner are for human faces, but {reader} reads {faces}: leave them out.")


def open_finder(named: Path | None, running: Running) -> Half:
    """The finder in a bundle's folder, or of a shipped name; None is the one that ships.

    BundleError, InputError or RuntimeFault, each with one sentence, for a bundle that is not there, is damaged, does something
    else, is not converted, or does not answer as a finder does.
    """
    return _open(named, "face-finder", running)


def open_refiner(named: Path | None, running: Running) -> Half:
    """The refiner, as open_finder."""
    return _open(named, "face-refiner", running)


def pair_bundles(files: DetectorFiles) -> tuple[Bundle, Bundle]:
    """The bundles of finder and refiner, those that ship where none is named; raises as open_finder, but nothing is run."""
    return _bundle(files.finder, "face-finder"), _bundle(files.refiner, "face-refiner")


def _bundle(named: Path | None, which: str) -> Bundle:
    shipped = shipped_networks()
    path = shipped[which] if named is None else path_or_shipped(named, shipped)
    if not os.path.exists(path):
        raise InputError(
            f"--{which.removeprefix('face-')} {printable(str(path))} is not there: name a bundle that `edgefer convert` wrote, or {which}."
        )
    bundle = Bundle.open(path)
    if bundle.card.task != TASKS[which]:
        raise InputError(
            f"--{which.removeprefix('face-')} {printable(str(path))} is a network of task {bundle.card.task!r}: name one of "
            f"{TASKS[which]!r}, as `edgefer train --recipe {which}` and `convert` make."
        )
    if named is not None:
        _check_card(bundle)
    return bundle


def _open(named: Path | None, which: str, running: Running) -> Half:
    bundle = _bundle(named, which)
    if named is not None:
        network = Network.open(bundle, Form.INT8, running.options)
        if running.check:
            check_at_load(bundle, network, Form.INT8)
    maps = MapNetwork.open(bundle, running.options)
    if named is not None:
        _check_ends(bundle, maps)
    return Half(maps, f"{bundle.card.name} {bundle.hash[:12]}")


def _check_card(bundle: Bundle) -> None:
    """BundleError unless the card promises what the detector asks for."""
    card, finds = bundle.card, bundle.card.task == "find-faces"
    side = FINDER_SIDE if finds else REFINER_SIDE
    if card.input != InputSpec(height=side, width=side):
        raise BundleError(
            f"{bundle.path} does not take gray images of {side}x{side} pixels in edgefer's own way: train one by its recipe."
        )
    if card.labels != (FINDER_LABELS if finds else REFINER_LABELS):
        raise BundleError(
            f"{bundle.path} answers with other numbers than the detector reads: {', '.join(card.labels)}."
        )


def _check_ends(bundle: Bundle, network: MapNetwork) -> None:
    """BundleError unless the network answers as the detector reads it."""
    shapes = map_shapes(*network.shape[:2]) if bundle.card.task == "find-faces" else ((len(REFINER_LABELS),),)
    steps = [network.step(index)[0] for index in range(len(network.maps))]
    if network.maps != shapes:
        raise BundleError(
            f"{bundle.path} answers with maps of {network.maps}, not {shapes}: train it by edgefer's recipe."
        )
    if not all(0 < step <= MAX_STEP for step in steps):
        raise BundleError(f"{bundle.path} answers in steps of {steps}, which no faces are found by: convert it again.")
