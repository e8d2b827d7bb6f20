"""What a page asks itself before its camera works: of stored frames and images, and of many more that it makes by itself.

Only the expected answers of the latter are stored; the page and this module make them by the same whole-number arithmetic
(page/questions.js), so that a proof of hundreds of images is a download of a few kilobytes.
"""

import zlib
from dataclasses import astuple, dataclass

import numpy as np

from edgefer.c.exact import ExactMaps, exact_answers
from edgefer.c.subject import Subject
from edgefer.convert.web.device import Device
from edgefer.preprocess import face_pixels

ROLLS_DEG = (0.0, 23.0, -41.0)  # by which the stored boxes are cut out of the stored frame
STORED_BYTES = 16_000  # of the bundle's stored images, whose answers the bundle has; one at least
READER_WORK = 4_000_000_000  # operations for the generated images: of a large network there are fewer
FINDER_SIZES = ((192, 192), (96, 192), (160, 128))  # canvases
REFINER_IMAGES = 12


@dataclass(frozen=True)
class View:
    """The stored frame as another one: its columns from `left`, `width` of them, mirrored, each pixel `times` times, and all of
    that `tiles` times side by side and one below the other."""

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


def noise(number: int, height: int, width: int, channels: int) -> np.ndarray:
    """Image `number` of those that are made of nothing: uint8 [height, width, channels], in squares of 1, 2, 4 or 8 pixels."""
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
    """Everything that is asked, as JSON but for the arrays, which are numpy's."""
    asked = {
        "views": [astuple(view) for view in VIEWS],
        "frame": subject.vectors.frames[0],
        **_crops(subject),
        **_images(subject),
        "faces": [_faces(subject, device, view.of(subject.vectors.frames[0])) for view in VIEWS],
    }
    if device.networks:
        finder, refiner = device.networks.finder.program, device.networks.refiner.program
        images = np.stack([noise(number, *refiner.network.input.shape) for number in range(REFINER_IMAGES)])
        maps = []
        for number, (height, width) in enumerate(FINDER_SIZES):
            answers = ExactMaps(finder).sized(height, width).run((noise(number, height, width, 1) ^ 0x80).view(np.int8))
            maps.append(_crc(np.concatenate([one.ravel() for one in answers])))
        asked["refiner"] = exact_answers(refiner, images)
        asked["finder"] = {"sizes": FINDER_SIZES, "crcs": maps}
    return asked


def _crops(subject: Subject) -> dict:
    """The stored boxes cut out of the stored frame, level and turned: a CRC-32 of the pixels of each."""
    vectors, spec = subject.vectors, subject.bundle.card.input
    crcs = [
        [_crc(face_pixels(vectors.frames[0], tuple(box), vectors.crop, spec, roll)) for roll in ROLLS_DEG]
        for box in vectors.boxes.tolist()
    ]
    return {"boxes": vectors.boxes.tolist(), "rolls_deg": ROLLS_DEG, "crops": crcs}


def _images(subject: Subject) -> dict:
    """Stored images with the bundle's own answers, and generated ones with those of its arithmetic."""
    vectors, shape = subject.vectors, subject.bundle.card.input.shape
    count = max(1, min(len(vectors.pixels), STORED_BYTES // vectors.pixels[0].nbytes))
    some = np.unique(np.linspace(0, len(vectors.pixels) - 1, count).round().astype(int))
    more = int(min(max(4, READER_WORK // subject.network.work), max(4, len(vectors.pixels) - len(some))))
    generated = np.stack([noise(number, *shape) for number in range(more)])
    answers = np.concatenate([vectors.answers[some], exact_answers(subject.program, generated)])
    return {"pixels": vectors.pixels[some], "generated": more, "answers": answers}


def _faces(subject: Subject, device: Device, frame: np.ndarray) -> list[dict]:
    """What is found in a frame: boxes, the pixels cut out of each by its roll, and the network's answers to them."""
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
