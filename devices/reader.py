"""The face reader: a bundle's network with its stored answers verified, a detector, and watchdogs for both.

`edgefer.load` makes one; `edgefer run`, `edgefer bench` and Python programs use it.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import ModelCard
from edgefer.devices.board.boards import this_board
from edgefer.devices.faces.choice import Choice, automatic, own, yunet
from edgefer.devices.faces.detectors import Detector, FrameDetector, HaarDetector, RegionDetector
from edgefer.devices.faces.pair import PairOptions, refuse_pair
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
from edgefer.devices.loop import captured_from, located_in
from edgefer.devices.session import Session
from edgefer.devices.sources.cameras import LiveOptions, is_camera, open_camera, open_source
from edgefer.devices.sources.captures import DEFAULT_CAPTURE, CaptureOptions
from edgefer.devices.sources.files import Source
from edgefer.devices.sources.playback import UNREADABLE, MergedSources, Playback, PlayedSource, Unreadable
from edgefer.devices.sources.urls import shown_address
from edgefer.devices.threads import HANG_S, Prefetch, Rules
from edgefer.devices.watchdogs import WatchedClassifier, WatchedDetector
from edgefer.errors import EdgeferError, InputError
from edgefer.images import from_pil, read_image
from edgefer.interpreter import Classifier, RuntimeOptions
from edgefer.options import DetectorName, DeviceName, FaceKind, ReaderOptions, Rotation, Smoothing, as_record, choice
from edgefer.parity import check_at_load
from edgefer.preprocess import prepare
from edgefer.records import Face, Frame
from edgefer.text import printable
from edgefer.words import with_keywords

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How sources are opened, by the names of `edgefer run`'s options.

    size: (width, height), fps and mjpg: settings of cameras, see CaptureOptions. loop, realtime, rotate: how files are played,
    see Playback. skip_bad: skip unreadable images of a folder. wait: wait for a camera that is not connected yet. trying:
    called at each attempt to connect.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    mjpg: bool | None = None
    loop: bool = False
    realtime: bool = False
    rotate: Rotation = Rotation.NONE
    skip_bad: bool = False
    wait: bool = False
    trying: Callable[[], None] = lambda: None

    @property
    def capture(self) -> CaptureOptions:
        return CaptureOptions(size=self.size, fps=self.fps, mjpg=self.mjpg)

    @property
    def playback(self) -> Playback:
        return Playback(loop=self.loop, realtime=self.realtime, rotate=self.rotate)


class Reader:
    """Finds the faces in images and says what each expresses. Made by `edgefer.load`.

    Call it with an image, or give `watch` a source. classifier: the network, with its watchdog. make_detector: makes the
    detector of a name. log: receives a message about any problem during a run. stop: when set, ends waiting for a source.

    >>> import edgefer
    >>> edgefer.load("fer-nano", check=False).labels
    ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
    """

    def __init__(
        self,
        classifier: Classifier,
        make_detector: Callable[[DetectorName], Detector],
        options: ReaderOptions | None = None,
        *,
        log: Log = lambda text: None,
        stop: threading.Event | None = None,
    ):
        self.options = options or ReaderOptions()
        self.classifier, self._make_detector = classifier, make_detector
        self._log, self._stop = log, stop or threading.Event()
        self.detector = make_detector(self.options.detector)
        self.reasons: dict[str, str] = {}  # detector's name -> which detector was chosen, and why

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        options: ReaderOptions,
        *,
        log: Log = lambda text: None,
        stop: threading.Event | None = None,
    ) -> "Reader":
        """Load the bundle's network with `options` and verify its stored answers; RuntimeFault if that fails."""
        rules = Rules(name="The network", log=log, stop=stop)
        reasons: dict[str, str] = {}
        make = detector_maker(options, bundle.card, log, reasons)

        def watched(name: DetectorName) -> Detector:
            detector: Detector = WatchedDetector(partial(make, name), rules)
            wanted = options.roi or options.min_face
            return RegionDetector(detector, options.roi, options.min_face) if wanted else detector

        reader = cls(load_classifier(bundle, options, rules), watched, options, log=log, stop=stop)
        reader.reasons = reasons
        return reader

    def __repr__(self) -> str:
        return f"<edgefer.Reader of {self.card.name}: {', '.join(self.labels)}>"

    @property
    def card(self) -> ModelCard:
        """The network's card."""
        return self.classifier.card

    @property
    def labels(self) -> tuple[str, ...]:
        """The network's labels, in its order."""
        return tuple(self.card.labels)

    def __call__(self, image: Any) -> Frame:
        """The faces of one image, the largest first, without smoothing.

        image: a path, a PIL image, or uint8 [h, w, 3] BGR or [h, w] gray. Returns a Frame, which is a sequence of Face
        records. Raises ImageError for a file that cannot be read, InputError for anything else.

        >>> import edgefer, numpy as np
        >>> frame = edgefer.load("fer-nano", faces="frame", reject=0)(np.full((60, 80, 3), 128, np.uint8))
        >>> len(frame), frame[0].box_xyxy
        (1, (10, 0, 70, 60))
        """
        pixels, name = as_image(image)
        frame = Frame(index=0, time_s=0.0, image_bgr=pixels, source=name)
        session = Session(self.classifier, self.detector, reject=self.options.reject)
        return session.read(session.detect(frame))

    def classify(self, crop: Any) -> Face:
        """The expression of an already cropped face, of any size: the network gets the whole image.

        crop: an image, as for calling the reader. Returns a Face whose box is the whole image. Raises ImageError for a file
        that cannot be read, InputError for anything else.

        >>> import edgefer, numpy as np
        >>> reader = edgefer.load("fer-nano")
        >>> face = reader.classify(np.full((60, 80), 128, np.uint8))
        >>> face.box_xyxy, tuple(face.scores) == reader.labels
        ((0, 0, 80, 60), True)
        """
        pixels, _ = as_image(crop)
        height, width = pixels.shape[:2]
        (row,) = self.classifier.predict(prepare(pixels, self.card.input)[None])
        smoother = LabelSmoother(PRESETS[Smoothing.OFF], reject=self.options.reject)
        scores, unsure = smoother.settle(0, 0.0, dict(zip(self.labels, row.tolist(), strict=True)))
        return Face(box_xyxy=(0, 0, width, height), scores=scores, unsure=unsure)

    def watch(self, source: Any, **settings: Any) -> Iterator[Frame]:
        """Yield the frames of a source in order, with tracked faces and temporally smoothed labels.

        source: a camera's number, "csi", a video, image or folder, a URL, "gst:PIPELINE" or "builtin"; or a list of them,
        read at once. settings: as on the command line: size=(640, 480), fps and mjpg of cameras; loop=True, realtime=True
        and rotate=90 of playback; skip_bad=True, wait=True: the fields of edgefer.devices.reader.SourceOptions.

        A live source gives its newest frame, a file every frame; they are read in a separate thread. The source is opened
        when the first frame is requested. Raises InputError for options that do not suit the source, SourceError if it
        cannot be opened, and IncompleteError after the last frame of a damaged video, of images of which some cannot be
        read or are outside of the region, or of several sources of which one cannot be read. A loop has no last frame: what
        is missing in it is logged once.

        >>> import edgefer
        >>> frames = edgefer.load("fer-nano").watch("builtin")
        >>> [(frame.index, frame.image_bgr.shape) for frame in (next(frames), next(frames))]
        [(0, (360, 480, 3)), (1, (360, 480, 3))]
        >>> frames.close()
        """
        try:
            yield from self._watch(source if isinstance(source, list | tuple) else [source], settings)
        except EdgeferError as error:
            error.args = (with_keywords(str(error)),)
            raise

    def _watch(self, sources: Sequence[Any], settings: dict[str, Any]) -> Iterator[Frame]:
        options = as_record(SourceOptions, settings)
        opened = self.open_sources([str(one) for one in sources], options)
        session = self.session(live=opened.live, stills=opened.stills)
        limit_s = None if opened.live or options.realtime else HANG_S
        with opened, closing(Prefetch(opened, limit_s=limit_s, name="The source")) as frames:
            for detected, _ in located_in(captured_from(frames), session):
                yield session.read(detected)

    def session(self, *, live: bool = False, stills: bool = False) -> Session:
        """The Session of one run. live: adapt the detection rate to this board's speed. stills: see Session."""
        return Session(
            self.classifier,
            self.detector,
            smooth=PRESETS[self.options.smooth],
            reject=self.options.reject,
            target_fps=self.options.target_fps or (this_board().target_fps if live else None),
            follow=self.options.follow,
            stills=stills,
        )

    def detectors(self) -> dict[str, Callable[[], Detector]]:
        """A function that opens each detector for this network's kind of faces, by name."""
        human = face_kind(self.options, self.card) is FaceKind.HUMAN
        names = list(DetectorName) if human else [self.options.detector]
        return {str(name): partial(self._make_detector, name) for name in names}

    def open_sources(self, names: Sequence[str], options: SourceOptions | None = None) -> Source:
        """One source for all that are named; opened by `with`. InputError for options that do not suit them."""
        options = options or SourceOptions()
        live = LiveOptions(stop=self._stop, log=self._log, trying=options.trying, wait=options.wait)
        return closed_source(names, options, live)


def closed_source(names: Sequence[str], options: SourceOptions, live: LiveOptions) -> Source:
    """One source for all that are named, to be opened by `with`. InputError for options that do not suit them."""
    if not names or "" in names:
        raise InputError("Name a source: a camera's number, a video, an image, a folder, a URL or builtin.")
    made: list[Source] = []
    live = replace(live, queue=max(0, sum("://" in name for name in names) - 1))
    for name in names:
        if not is_camera(name) and options.capture != DEFAULT_CAPTURE:
            raise InputError("--size, --fps and --mjpg are for cameras: a file or stream has its own.")
        source = _named_source(name, options, live, alone=len(names) == 1)
        if options.wait and not source.live:
            raise InputError(f"--wait is for cameras and streams: {source.name} is read immediately.")
        made.append(PlayedSource(source, options.playback, live.stop, live.log))
    return made[0] if len(made) == 1 else MergedSources(made, live.stop, live.log)


def _named_source(name: str, options: SourceOptions, live: LiveOptions, alone: bool) -> Source:
    """The source of a name. One that cannot be read is an error if it is `alone`; otherwise the others are read."""
    if is_camera(name):
        return open_camera(name, options.capture, live)
    password = os.environ.get("EDGEFER_SOURCE_PASSWORD", "")
    try:
        return open_source(name, password=password, skip_bad=options.skip_bad, live=live)
    except UNREADABLE as error:
        if alone:
            raise
        return Unreadable(shown_address(name), error)


def as_image(image: Any) -> tuple[np.ndarray, str]:
    """An image argument as uint8 BGR [h, w, 3], and its file's name or "". InputError if it is not an image."""
    if isinstance(image, str | os.PathLike) and image != "":
        if os.path.isdir(image):
            raise InputError(f"{printable(str(image))} is a folder: reader.watch(folder) reads the images in it.")
        path = Path(os.fsdecode(image))
        return read_image(path), printable(path.name)
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # a PIL image
        try:
            return from_pil(image), ""
        except ValueError as error:
            raise InputError(f"The PIL image {error}.") from None
    wanted = "give a path, a PIL image, or uint8 [height, width, 3] in BGR order or [height, width] in gray"
    if not isinstance(image, np.ndarray):
        raise InputError(f"{printable(repr(image)):.80} is not an image: {wanted}.")
    image = np.asarray(image)  # also for np.matrix
    if image.dtype != np.uint8:
        hint = ", such as (image * 255).astype('uint8') if it is 0..1" if image.dtype.kind == "f" else ""
        raise InputError(f"An image of {image.dtype} cannot be read: {wanted}{hint}.")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
        raise InputError(f"An image of shape {list(image.shape)} cannot be read: {wanted}.")
    return (np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else np.ascontiguousarray(image)), ""


def load_classifier(bundle: Bundle, options: ReaderOptions, rules: Rules) -> Classifier:
    """The bundle's network with a watchdog, its stored answers verified."""

    def load(device: DeviceName, check: bool) -> Classifier:
        threads = options.threads or this_board().threads
        loaded = Classifier.load(bundle, runtime=options.runtime, threads=threads, device=device)
        if check:
            check_at_load(bundle, loaded.network, loaded.variant)
        return loaded

    if options.device is not DeviceName.CORAL:
        return WatchedClassifier(
            load(options.device, options.check), lambda: load(options.device, options.check), rules
        )
    spare = load(DeviceName.CPU, check=True) if options.allow_cpu_fallback else None
    coral = replace(
        rules,
        name="The Edge TPU",
        then="continuing with the int8 network on the CPU",
        advice="replug it, or run with --allow-cpu-fallback",
    )
    return WatchedClassifier(
        load(options.device, options.check), (lambda: spare) if spare else None, coral, on_fault=spare is not None
    )


def face_kind(options: ReaderOptions, card: ModelCard) -> FaceKind:
    """The kind of faces that are found: the one of the options, else of the network."""
    return options.faces or choice(FaceKind, card.faces, "faces")


def check_detector(name: DetectorName, options: ReaderOptions, card: ModelCard) -> None:
    """InputError for a detector or its files that do not find the kind of faces. Opens nothing."""
    kind = face_kind(options, card)
    if kind is FaceKind.HUMAN:
        return
    refuse_pair(options.files, str(kind), card.name)
    if options.yunet is not None:
        raise InputError(f"--yunet is for human faces, but {card.name} reads {kind}: leave --yunet out.")
    if kind is not FaceKind.FRAME and name in (DetectorName.YUNET, DetectorName.OWN):
        raise InputError(f"--detector {name} finds human faces, but {card.name} reads {kind}: leave it out.")


def detector_maker(
    options: ReaderOptions,
    card: ModelCard,
    log: Log = lambda text: None,
    reasons: dict[str, str] | None = None,
) -> Callable[[DetectorName], Detector]:
    """A function that makes the detector of a name for a network's kind of faces; it may be called repeatedly.

    Downloads and messages happen only once. reasons: receives the chosen detector and the reason, by the given name.
    InputError for a detector that cannot find such faces.
    """
    reasons = {} if reasons is None else reasons
    kind = face_kind(options, card)
    logged: set[str] = set()
    board = this_board()
    on = RuntimeOptions(runtime=str(options.runtime), threads=options.threads or board.threads)
    pair_options = PairOptions(on, options.check)
    choose: dict[DetectorName, Callable[..., Choice]] = {DetectorName.OWN: own, DetectorName.YUNET: yunet}

    def named(name: DetectorName) -> Detector:
        if name is DetectorName.HAAR or kind is not FaceKind.HUMAN:  # for animals there are only cascades
            return HaarDetector(faces=str(kind), width=board.haar_width, min_face=options.min_face)
        choice = choose.get(name, automatic)(options.files, pair_options, min_face=options.min_face or 0)
        if reasons.get(name) != choice.reason:
            reasons[name] = choice.reason
            log(choice.reason)
        return choice.detector

    def make(name: DetectorName) -> Detector:
        check_detector(name, options, card)
        if kind is FaceKind.FRAME:
            return FrameDetector()
        detector = named(name)
        key = detector.name
        if not card.crop_for(key).faces and key not in logged:
            logged.add(key)
            log(
                f"{card.name} was not measured with the detector {key}: its boxes are used unchanged, which may cost accuracy. "
                f"{'Training with --yunet FILE' if key == DetectorName.YUNET else 'Training, or importing with --data,'} measures it."
            )
        return detector

    return make
