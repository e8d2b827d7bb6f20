"""Opens the two networks of edgefer's own detector: the shipped pair, or bundles named by the user."""

from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import FACE_NETWORKS, Bundle, Form, path_or_shipped, shipped_networks
from edgefer.card import InputSpec, Task
from edgefer.devices.faces.canvas import MapNetwork
from edgefer.errors import BundleError, InputError
from edgefer.faces import FINDER_LABELS, FINDER_SIDE, REFINER_LABELS, REFINER_SIDE, map_shapes
from edgefer.files import mode_of
from edgefer.interpreter import ANY_RUNTIME, Network, RuntimeOptions
from edgefer.options import DetectorFiles
from edgefer.parity import check_at_load
from edgefer.text import printable

TASKS: dict[str, Task] = {"face-finder": "find-faces", "face-refiner": "refine-faces"}  # by shipped name
MAX_STEP = 8.0  # of an answer's scale: larger ones could overflow boxes


@dataclass(frozen=True)
class PairNetwork:
    """An opened network of the pair. name: its card's name and its bundle's hash, for traceable recordings."""

    network: MapNetwork
    name: str


@dataclass(frozen=True)
class PairOptions:
    """How the pair's networks run: on which runtime, and whether a user's network is verified against its stored answers."""

    runtime: RuntimeOptions = ANY_RUNTIME
    check: bool = True


DEFAULT_OPTIONS = PairOptions()


def has_shipped_pair() -> bool:
    """Whether this installation has the pair."""
    return all(name in shipped_networks() for name in FACE_NETWORKS)


def has_pair(files: DetectorFiles) -> bool:
    """Whether a pair is available: both networks are named, or this installation has the shipped ones."""
    return bool(files.finder and files.refiner) or has_shipped_pair()


def refuse_pair(files: DetectorFiles, faces: str, reader: str = "the network") -> None:
    """InputError if a network of a pair is named, but `reader` reads other faces than human ones."""
    if files.finder or files.refiner:
        raise InputError(f"--finder and --refiner are for human faces, but {reader} reads {faces}: leave them out.")


def open_finder(named: Path | None, options: PairOptions) -> PairNetwork:
    """The finder in a bundle's folder, or with a shipped bundle's name; None: the shipped one.

    BundleError, InputError or RuntimeFault for a bundle that is missing, damaged, of another task, not converted, or has
    other outputs than a finder.
    """
    return _open(named, "face-finder", options)


def open_refiner(named: Path | None, options: PairOptions) -> PairNetwork:
    """The refiner; otherwise as open_finder."""
    return _open(named, "face-refiner", options)


def pair_bundles(files: DetectorFiles) -> tuple[Bundle, Bundle]:
    """The bundles of finder and refiner, by default the shipped ones; raises as open_finder, but runs nothing."""
    return _bundle(files.finder, "face-finder"), _bundle(files.refiner, "face-refiner")


def _bundle(named: Path | None, which: str) -> Bundle:
    shipped = shipped_networks()
    path = shipped[which] if named is None else path_or_shipped(named, shipped)
    if not mode_of(path):
        raise InputError(
            f"--{which.removeprefix('face-')} {printable(str(path))} does not exist: name a bundle that `edgefer convert` wrote, or {which}."
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


def _open(named: Path | None, which: str, options: PairOptions) -> PairNetwork:
    bundle = _bundle(named, which)
    if named is not None:
        network = Network.open(bundle, Form.INT8, options.runtime)
        if options.check:
            check_at_load(bundle, network, Form.INT8)
    maps = MapNetwork.open(bundle, options.runtime)
    if named is not None:
        _check_ends(bundle, maps)
    return PairNetwork(maps, f"{bundle.card.name} {bundle.hash[:12]}")


def _check_card(bundle: Bundle) -> None:
    """BundleError unless the card's input and labels are those of the detector."""
    card, finds = bundle.card, bundle.card.task == "find-faces"
    side = FINDER_SIDE if finds else REFINER_SIDE
    if card.input != InputSpec(height=side, width=side):
        raise BundleError(
            f"{bundle.path} does not take gray images of {side}x{side} pixels in edgefer's own format: train one with its recipe."
        )
    if card.labels != (FINDER_LABELS if finds else REFINER_LABELS):
        raise BundleError(f"{bundle.path} has other outputs than the detector reads: {', '.join(card.labels)}.")


def _check_ends(bundle: Bundle, network: MapNetwork) -> None:
    """BundleError unless the network's outputs are those that the detector reads."""
    shapes = map_shapes(*network.shape[:2]) if bundle.card.task == "find-faces" else ((len(REFINER_LABELS),),)
    steps = [network.step(index)[0] for index in range(len(network.maps))]
    if network.maps != shapes:
        raise BundleError(
            f"{bundle.path} outputs maps of {network.maps}, not {shapes}: train it with edgefer's recipe."
        )
    if not all(0 < step <= MAX_STEP for step in steps):
        raise BundleError(
            f"{bundle.path} has output scales of {steps}, with which no face can be found: convert it again."
        )
