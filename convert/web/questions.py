"""The page's self-test, run before it enables the camera, on stored frames and images and on many generated ones.

Of the generated ones only the expected answers are stored: the page and this module generate them with the same integer
arithmetic (page/questions.js), so a proof over hundreds of images takes a few kilobytes of download.
"""

import zlib
from dataclasses import astuple, dataclass

import cv2
import numpy as np

from edgefer.c.exact import ExactMaps, exact_answers
from edgefer.c.subject import Subject
from edgefer.convert.web.device import Device
from edgefer.preprocess import face_pixels, to_int8

ROLLS_DEG = (0.0, 23.0, -41.0)  # of the crops of the stored boxes
STORED_BYTES = 5_000  # of the bundle's stored images, at least one
READER_WORK = 4_000_000_000  # operations for the generated images: a large network gets fewer
FINDER_SIZES = ((160, 160), (96, 160), (160, 128))  # canvases
REFINER_IMAGES = 12


@dataclass(frozen=True)
class View:
    """A frame derived from the stored one: `width` columns from `left`, mirrored, scaled up by `times`, and repeated
    `tiles` times in both directions."""

    mirrored: bool = False
    left: int = 0
    width: int = 0  # 0: up to the right border
    times: int = 1
    tiles: int = 1

    def of(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] -> uint8 [h', w', 3]."""
        height, whole = frame.shape[:2]
        width = self.width or whole - self.left
        rows = np.arange(height * self.times * self.tiles) // self.times % height
        columns = self.left + np.arange(width * self.times * self.tiles) // self.times % width
        return frame[np.ix_(rows, whole - 1 - columns if self.mirrored else columns)]


VIEWS = (View(), View(mirrored=True, tiles=2), View(left=30, width=96), View(times=4), View(mirrored=True, times=6))


def coarse(frame: np.ndarray) -> np.ndarray:
    """A stored frame for download: gray in 32 levels, uint8 [h, w], a tenth of its bytes."""
    return np.bitwise_and(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 0xF8)


def tinted(gray: np.ndarray) -> np.ndarray:
    """The frame for the self-test: uint8 BGR [h, w, 3], with different channels."""
    return np.dstack([gray - (gray >> 2), gray, gray + ((255 - gray) >> 2)])


def noise(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Generated image `number`: uint8 [height, width, channels], noise in squares of 1, 2, 4 or 8 pixels."""
    square = 1 << number % 4
    rows, columns = np.arange(height) // square, np.arange(width) // square
    places = (np.uint32(number << 22) + rows[:, None, None] * 2048 + columns[:, None] * 4 + np.arange(channels)).astype(
        np.uint32
    )
    mixed = places * np.uint32(0x9E3779B1)
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = (mixed ^ mixed >> np.uint32(15)) * np.uint32(factor)
    return (mixed >> np.uint32(24)).astype(np.uint8)


def make_questions(subject: Subject, device: Device) -> dict:
    """The whole self-test, as JSON except for its numpy arrays."""
    gray = coarse(subject.vectors.frames[0])
    frame = tinted(gray)
    asked = {
        "views": [astuple(view) for view in VIEWS],
        "frame": gray,
        **_crops(subject, frame),
        **_images(subject),
        "faces": [_faces(subject, device, view.of(frame)) for view in VIEWS],
    }
    if device.networks:
        finder, refiner = device.networks.finder.program, device.networks.refiner.program
        images = np.stack([noise(number, *refiner.network.input.shape) for number in range(REFINER_IMAGES)])
        maps = []
        for number, (height, width) in enumerate(FINDER_SIZES):
            answers = ExactMaps(finder).sized(height, width).run(to_int8(noise(number, height, width, 1)))
            maps.append(_crc(np.concatenate([one.ravel() for one in answers])))
        asked["refiner"] = exact_answers(refiner, images)
        asked["finder"] = {"sizes": FINDER_SIZES, "crcs": maps}
    return asked


def _crops(subject: Subject, frame: np.ndarray) -> dict:
    """Crops of the stored boxes from the stored frame, level and rotated: a CRC-32 of the pixels of each."""
    vectors, spec = subject.vectors, subject.bundle.card.input
    crcs = [
        [_crc(face_pixels(frame, tuple(box), vectors.crop, spec, roll)) for roll in ROLLS_DEG]
        for box in vectors.boxes.tolist()
    ]
    return {"boxes": vectors.boxes.tolist(), "rolls_deg": ROLLS_DEG, "crops": crcs}


def _images(subject: Subject) -> dict:
    """Stored images with the bundle's answers, and generated ones with computed answers."""
    vectors, shape = subject.vectors, subject.bundle.card.input.shape
    count = max(1, min(len(vectors.pixels), STORED_BYTES // vectors.pixels[0].nbytes))
    some = np.unique(np.linspace(0, len(vectors.pixels) - 1, count).round().astype(int))
    more = int(min(max(4, READER_WORK // subject.network.work), max(4, len(vectors.pixels) - len(some))))
    generated = np.stack([noise(number, *shape) for number in range(more)])
    answers = np.concatenate([vectors.answers[some], exact_answers(subject.program, generated)])
    return {"pixels": vectors.pixels[some], "generated": more, "answers": answers}


def _faces(subject: Subject, device: Device, frame: np.ndarray) -> list[dict]:
    """The faces in a frame: boxes, the levelled pixels of each, and the network's answers to them."""
    card = subject.bundle.card
    crop = card.crop_for(device.detector)
    found = []
    for face in device.find(frame):
        pixels = face_pixels(frame, face.box_xyxy, crop, card.input, face.roll_deg)
        answers = exact_answers(subject.program, pixels[None])[0]
        found.append({"box": list(face.box_xyxy), "pixels": _crc(pixels), "answers": answers.tolist()})
    return found


def _crc(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())
