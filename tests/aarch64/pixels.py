"""Prints a hash of the output of `prepare` for many images, one line per code path, to compare two machines."""

import hashlib

import numpy as np

from edgefer.card import InputSpec
from edgefer.preprocess import prepare

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
