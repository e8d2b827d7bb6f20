"""YuNet on the TFLite runtime: the user's .onnx is converted to float32 and int8 .tflite, verified and cached."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgefer import drawn
from edgefer.devices.faces.canvas import (
    MAX_BOXES,
    MAX_SHAPES,
    Layout,
    MapNetwork,
    logit,
    non_max_suppression,
    shrunk,
    thinned,
)
from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.onnx import MAX_BYTES, read_onnx
from edgefer.devices.faces.yunet import MIN_SCORE
from edgefer.devices.faces.yunet_graph import ANSWERS, INPUT, STRIDES, Ranges, equalize, measure, read_layers, steps_of
from edgefer.errors import EdgeferError, RuntimeFault, SourceError
from edgefer.faces import overlaps
from edgefer.files import mode_of, read_regular, write_file
from edgefer.interpreter import ANY_RUNTIME, RuntimeOptions, open_interpreter
from edgefer.native import native_path
from edgefer.preprocess import to_int8
from edgefer.records import Box, Detection
from edgefer.runtimes import machine
from edgefer.text import printable
from edgefer.tflite.write import Layer, write_tflite

SIDE = 320  # pixels of the canvas's longer side
MIN_CANVAS_FACE = 20.0  # pixels of a face on the canvas: of real faces, 90% were found at 20, 5% at 10
MAX_IOU = 0.3  # for the NMS of faces, as in OpenCV
CALIBRATION_SCENES = 24
PROOF_SCENES = 12
MIN_IOU = {"float32": 0.98, "int8": 0.8}  # the minimum IoU of a box with OpenCV's
MAX_SCORE_GAP = {"float32": 0.002, "int8": 0.12}
VERSION = 1  # of the cache


@dataclass(frozen=True)
class Proof:
    """A .tflite's faces compared with OpenCV's on drawn scenes: the number of faces, the minimum IoU, the largest difference
    in score, and how many confident faces only one of the two found."""

    faces: int
    worst_iou: float
    worst_score_gap: float
    unmatched: int

    def passes(self, dtype: str) -> bool:
        return (
            self.faces > 0
            and self.unmatched == 0
            and self.worst_iou >= MIN_IOU[dtype]
            and self.worst_score_gap <= MAX_SCORE_GAP[dtype]
        )


class YuNetLite(Detector):
    """YuNet on a canvas with the frame's aspect ratio; it finds the same faces as OpenCV's, several times faster.

    file: YuNet's .onnx. cache: a folder for the converted networks; the first use converts and verifies, in a few seconds.
    dtype: "int8" or "float32". min_face: pixels of the frame; 0 uses a canvas of 320 pixels.
    """

    name = "yunet"
    looks_near = True

    def __init__(
        self,
        file: Path,
        cache: Path,
        *,
        dtype: str = "int8",
        min_face: int = 0,
        options: RuntimeOptions = ANY_RUNTIME,
    ):
        self._build = _Build(file, cache, options.runtime)
        self.dtype, self.min_face, self._options = dtype, min_face, options
        self.proof = self._build.proofs[dtype]
        self.networks = (f"{printable(file.name)} {self._build.key[:12]}",)
        self._networks: dict[tuple[int, int], MapNetwork] = {}

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        side = SIDE
        if self.min_face:
            side = max(SIDE, 32 * round(max(image_bgr.shape[:2]) * MIN_CANVAS_FACE / self.min_face / 32))
        rows = [self._rows(image_bgr, one, near) for one in {min(side, 2 * SIDE), side}]
        found = np.concatenate(rows)
        kept = non_max_suppression(found[:, :4].tolist(), found[:, 14].tolist(), MAX_IOU)
        return sorted((_detection(found[row]) for row in kept), key=lambda face: -face.side)

    def _rows(self, image_bgr: np.ndarray, side: int, near: Sequence[Box] | None) -> np.ndarray:
        """float32 [n, 15]: box, points and score, in pixels of the frame."""
        layout = Layout.of(image_bgr.shape, side)
        canvas = np.zeros((layout.canvas[0] + 1, layout.canvas[1] + 1, 3), np.uint8)
        canvas[1 : layout.size[1] + 1, 1 : layout.size[0] + 1] = shrunk(thinned(image_bgr, layout.size), layout.size)
        gains = self._build.gains if self.dtype == "int8" else None
        parts = [np.empty((0, 15), np.float32)]  # near no face there is no window
        for x0, y0, x1, y1 in layout.windows(near):
            part = decode(self._network((y1 - y0, x1 - x0)), canvas[y0 : y1 + 1, x0 : x1 + 1], gains, MIN_SCORE)
            part[:, :14] += np.tile(np.array([x0, y0], np.float32), 7)
            parts.append(part)
        rows = np.concatenate(parts)
        shrink = np.array(layout.size) / image_bgr.shape[1::-1]
        rows[:, :14] /= np.tile(shrink, 7).astype(np.float32)
        return rows

    def _network(self, canvas: tuple[int, int]) -> MapNetwork:
        if canvas not in self._networks:
            if len(self._networks) >= MAX_SHAPES:
                self._networks.clear()  # such as for a folder of images of many shapes
            content = self._build.tflite(self.dtype, canvas)
            self._networks[canvas] = MapNetwork(content, self._options, name=self._build.name)
        return self._networks[canvas]


def decode(
    network: MapNetwork, canvas: np.ndarray, gains: dict[str, np.ndarray] | None, min_score: float
) -> np.ndarray:
    """The faces on a canvas uint8 [h + 1, w + 1, 3]: float32 [n, 15] x0, y0, x1, y1, five points, score, in its pixels
    without the black row and column, after NMS."""
    image = to_int8(canvas) if network.quantized else canvas.astype(np.float32)
    parts = []
    for index, (answers, stride) in enumerate(zip(network.run(image), STRIDES, strict=True)):
        scale, zero = network.step(index)
        gain = np.ones(ANSWERS, np.float32) if gains is None else gains[f"faces_{stride}"]
        # The score is the root of two probabilities' product, so neither can be below the square of the minimum score.
        least = logit(min_score**2) * gain[:2] / scale + zero
        cells = np.nonzero((answers[..., 0] >= least[0]) & (answers[..., 1] >= least[1]))
        if not len(cells[0]):
            continue
        values = (answers[cells].astype(np.float32) - zero) * (scale / gain)
        score = np.sqrt(np.prod(1 / (1 + np.exp(-values[:, :2])), axis=1))
        corner = np.stack([cells[1], cells[0]], 1).astype(np.float32)
        centre = (corner + values[:, 2:4]) * stride
        half = np.exp(np.clip(values[:, 4:6], -8, 8)) * stride / 2
        points = (values[:, 6:].reshape(-1, 5, 2) + corner[:, None]) * stride
        rows = np.concatenate([centre - half, centre + half, points.reshape(-1, 10), score[:, None]], 1)
        parts.append(rows[score >= min_score])
    rows = np.concatenate(parts).astype(np.float32) if parts else np.empty((0, 15), np.float32)
    return rows[non_max_suppression(rows[:, :4].tolist(), rows[:, 14].tolist(), MAX_IOU, nested=2.0)]


def _detection(row: np.ndarray) -> Detection:
    points = [(float(x), float(y)) for x, y in row[4:14].reshape(5, 2)]
    first, second = sorted(points[:2])
    box = tuple(round(float(edge)) for edge in row[:4])
    return Detection(box_xyxy=box, score=float(row[14]), eyes_xy=(first, second), nose_xy=points[2])  # type: ignore[arg-type]


class _Build:
    """The networks made from one .onnx; the cache holds its int8 ranges and proofs."""

    def __init__(self, file: Path, cache: Path, runtime: str):
        if not mode_of(file, error=SourceError):
            raise SourceError(f"There is no file {file}: name YuNet's .onnx, or leave --yunet out to download it.")
        content = read_regular(file, MAX_BYTES, error=SourceError)
        self.layers = read_layers(read_onnx(content, str(file)), str(file))
        self.name, self.options = str(file), RuntimeOptions(runtime=runtime)
        self.key = hashlib.sha256(content).hexdigest()[:16]
        self.folder = cache / f"yunet-{self.key}"
        kept = self._kept()
        ranges, self.proofs = kept or (self._calibrate(), {})
        self.equal, scaled, self.gains = equalize(self.layers, ranges)
        self.steps = steps_of(self.equal, scaled)
        if not kept:
            self.proofs = {dtype: self._prove(file, dtype) for dtype in MIN_IOU}
            self._keep(ranges)

    def tflite(self, dtype: str, canvas: tuple[int, int]) -> bytes:
        """The network for a canvas (height, width)."""
        shape = canvas[0] + 1, canvas[1] + 1, 3
        outputs = [f"faces_{stride}" for stride in STRIDES]
        if dtype == "int8":
            return write_tflite(self.equal, INPUT, shape, outputs, self.steps)
        return write_tflite(self.layers, INPUT, shape, outputs)

    def _calibrate(self) -> Ranges:
        content = self.tflite("float32", (SIDE, SIDE))
        _, interpreter = open_interpreter(content, self.options, name=self.name, keep_all=True)
        (where,) = interpreter.get_input_details()
        names = {layer.output for layer in self.layers} | {INPUT}
        details = [one for one in interpreter.get_tensor_details() if one["name"] in names]

        def tensors() -> Iterator[dict[str, np.ndarray]]:
            for canvas in scenes(CALIBRATION_SCENES, seed=1):
                interpreter.set_tensor(where["index"], canvas[None].astype(np.float32))
                interpreter.invoke()
                yield {one["name"]: interpreter.get_tensor(one["index"])[0] for one in details}

        return measure(tensors())

    def _prove(self, file: Path, dtype: str) -> Proof:
        """Compare with OpenCV's results for the file; RuntimeFault if they differ."""
        network = MapNetwork(self.tflite(dtype, (SIDE, SIDE)), self.options, name=self.name)
        try:
            with native_path(file) as path:
                theirs = cv2.FaceDetectorYN.create(path, "", (SIDE, SIDE), MIN_SCORE, MAX_IOU)
            pairs = [
                (
                    theirs.detect(canvas[1:, 1:].copy())[1],
                    decode(network, canvas, self.gains if dtype == "int8" else None, 0.5),
                )
                for canvas in scenes(PROOF_SCENES, seed=2)
            ]
        except (cv2.error, AttributeError) as error:
            raise SourceError(
                f"{file} is not a YuNet that OpenCV {cv2.__version__} can run ({' '.join(str(error).split())[:120]})."
            ) from None
        proof = compared(pairs)
        if not proof.passes(dtype):
            raise RuntimeFault(
                f"YuNet as {dtype} .tflite does not find the same faces as OpenCV's on this machine ({proof.unmatched} of "
                f"{proof.faces} faces unmatched, minimum IoU {proof.worst_iou:.2f}): use --detector own."
            )
        return proof

    def _kept(self) -> tuple[Ranges, dict[str, Proof]] | None:
        try:
            facts = json.loads((self.folder / "proof.json").read_text())
            if facts["version"] != VERSION or facts["proven_on"] != self._here():
                return None
            with np.load(self.folder / "ranges.npz", allow_pickle=False) as arrays:
                pairs = {layer: arrays[layer.output] for layer in self.layers}
            proofs = {dtype: Proof(**facts["proofs"][dtype]) for dtype in MIN_IOU}
            intact = all(_are_ranges(pair, layer) for layer, pair in pairs.items())
            if not intact or not all(proof.passes(dtype) for dtype, proof in proofs.items()):
                return None
            return {layer.output: (pair[0], pair[1]) for layer, pair in pairs.items()}, proofs
        except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile):
            return None

    def _here(self) -> dict[str, str]:
        """What a proof holds for: the cache may be in a home folder that several machines share."""
        return machine([self.options.runtime]) | {"opencv": f"opencv {cv2.__version__}"}

    def _keep(self, ranges: Ranges) -> None:
        """Write the cache, ignoring a full disk: the next use then makes it again."""
        out = io.BytesIO()
        arrays: dict[str, Any] = {name: np.stack(pair) for name, pair in ranges.items()}
        np.savez(out, **arrays)
        facts = {
            "version": VERSION,
            "proven_on": self._here(),
            "proofs": {name: asdict(proof) for name, proof in self.proofs.items()},
        }
        try:
            write_file(self.folder / "ranges.npz", out.getvalue())
            write_file(self.folder / "proof.json", json.dumps(facts, indent=2).encode())
        except EdgeferError:
            return


def _are_ranges(pair: np.ndarray, layer: Layer) -> bool:
    """Whether a cached array is the minimum and maximum of each of a layer's channels."""
    fits = pair.ndim == 2 and len(pair) == 2 and pair.dtype.kind == "f"
    if not fits or (layer.bias is not None and pair.shape[1] != len(layer.bias)):
        return False
    return bool(np.isfinite(pair).all() and (pair[0] <= pair[1]).all())


def compared(pairs: Sequence[tuple[np.ndarray | None, np.ndarray]]) -> Proof:
    """pairs: OpenCV's confident faces [n, 15] (x, y, width, height, ...) and ours [m, 15] at a lower score, by image."""
    faces, worst, gap, unmatched = 0, 1.0, 0.0, 0
    for theirs, ours in pairs:
        sure = np.empty((0, 15), np.float32) if theirs is None else theirs[:MAX_BOXES].copy()
        sure[:, 2:4] += sure[:, :2]
        faces += len(sure)
        taken = set()
        for row in sure:
            shared = overlaps(row[:4], ours[:, :4])
            if not len(shared) or shared.max() < 0.5:
                unmatched += 1
                continue
            best = int(shared.argmax())
            taken.add(best)
            worst, gap = min(worst, float(shared[best])), max(gap, abs(float(row[14] - ours[best, 14])))
        unmatched += sum(index not in taken and row[14] >= MIN_SCORE + 0.1 for index, row in enumerate(ours))
    return Proof(faces, float(worst), float(gap), int(unmatched))


def scenes(count: int, seed: int) -> Iterator[np.ndarray]:
    """Canvases uint8 [321, 321, 3] of drawn faces, with varied light and sharpness, with a black row above and column left."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        people, zoom = 1 + number % 3, (160, 320, 480)[number % 3]
        (frame, _), *_ = drawn.scene(seconds=1, fps=1, size=(zoom, zoom), people=people, seed=seed * 1000 + number)
        image = cv2.resize(frame.image_bgr, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        gain, offset = (1.0, 0.0) if number % 4 == 0 else (rng.uniform(0.4, 1.6), rng.uniform(-40, 40))
        image = np.clip(image * gain + offset, 0, 255).astype(np.uint8)
        if number % 4 == 2:
            image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 2)))
        if number % 4 == 3:
            image = np.clip(image + rng.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
        canvas = np.zeros((SIDE + 1, SIDE + 1, 3), np.uint8)
        canvas[1:, 1:] = image
        yield canvas
