"""Targets for the cells of a finder's maps."""

import numpy as np

from edgefer.faces import ANCHORS, STRIDES
from edgefer.train.faces.gallery import Faces

RANGES = ((0.0, 30.0), (22.0, 64.0), (50.0, 1e9))  # sides in pixels of the faces of each map; they overlap
RANGE_MARGIN = 1.5  # factor beyond a map's range within which a face is ignored there, neither positive nor negative
RADIUS = 0.75  # strides from a face's centre within which cells are positive
IGNORE_RADIUS = 0.3  # sides of a face from its centre within which other cells are ignored


def finder_targets(faces: Faces, size: int) -> np.ndarray:
    """Targets of all maps' cells for a square image of `size` pixels, row by row: float32 [cells, 6].

    Score target (0: no face), its weight (0: ignored), and the box's centre x, y, width and height in pixels.
    """
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    sizes = faces.boxes[:, 2:] - faces.boxes[:, :2]
    sides = np.sqrt(sizes.prod(axis=1))
    maps = []
    for stride, (low, high) in zip(STRIDES, RANGES, strict=True):
        count = size // stride
        grid = (np.arange(count) + 0.5) * stride
        out = np.zeros((count, count, 6), np.float32)
        out[..., 1] = 1
        out[..., 4:] = stride
        for face in np.argsort(-sides):  # smaller faces overwrite larger ones
            offset = np.stack(np.meshgrid(grid, grid), -1) - centres[face]
            distance = np.abs(offset).max(axis=-1)
            if np.isnan(faces.target[face]):
                inside = (np.abs(offset) < sizes[face] / 2).all(axis=-1)
                out[..., 1][inside | (distance <= RADIUS * stride)] = 0
                continue
            if not low <= sides[face] < high:
                if low / RANGE_MARGIN <= sides[face] < high * RANGE_MARGIN:
                    out[..., 1][distance <= max(RADIUS * stride, IGNORE_RADIUS * sides[face])] = 0
                continue
            out[..., 1][(distance <= max(stride, IGNORE_RADIUS * sides[face])) & (out[..., 0] == 0)] = 0
            cells = distance <= RADIUS * stride
            out[cells] = [faces.target[face], 1.0, *centres[face], *sizes[face]]
        maps.append(out.reshape(-1, 6))
    return np.concatenate(maps)


def cell_grid(size: int) -> np.ndarray:
    """The cells in the same order, float32 [cells, 4]: centre x, y, stride, and the anchor (the side whose size is
    encoded as 0)."""
    parts = []
    for stride, anchor in zip(STRIDES, ANCHORS, strict=True):
        grid = (np.arange(size // stride) + 0.5) * stride
        x, y = np.meshgrid(grid, grid)
        parts.append(np.stack([x, y, np.full_like(x, stride), np.full_like(x, anchor)], -1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)
