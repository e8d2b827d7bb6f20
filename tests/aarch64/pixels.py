"""Prints a hash of the output of `prepare` and `crop_square` for many images, one line per code path, to compare two machines."""

import hashlib

import numpy as np

from edgefer.card import CropSpec, InputSpec
from edgefer.preprocess import crop_square, prepare

RNG = np.random.default_rng(3)
for size in (48, 64, 112):
    for color in ("gray", "rgb"):
        for way, low, high in (("enlarge", 16, size), ("shrink", size + 1, size * 6)):
            for channels in (1, 3):
                seen = hashlib.sha256()
                for _ in range(15):
                    height, width = RNG.integers(low, high, 2)
                    image = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
                    seen.update(prepare(image, InputSpec(height=size, width=size, color=color)).tobytes())
                print(size, color, way, channels, seen.hexdigest()[:16])
frame = RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8)
for way, image in (("gray", np.ascontiguousarray(frame[..., 0])), ("bgr", frame)):
    seen = hashlib.sha256()
    for roll_deg in np.linspace(-90, 90, 31):
        left, top, side = map(int, RNG.integers((-20, -20, 20), (300, 220, 200)))
        seen.update(crop_square(image, (left, top, left + side, top + side), CropSpec(scale=1.1), roll_deg).tobytes())
    print("level", way, seen.hexdigest()[:16])
