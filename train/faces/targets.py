"""What the networks should answer: targets for every cell of a finder's maps, and for a refiner's crops."""

import numpy as np

from edgefer.faces import ANCHORS, STRIDES
from edgefer.train.faces.gallery import Faces

RANGES = ((0.0, 30.0), (22.0, 64.0), (50.0, 1e9))  # sides of faces, in pixels, that each map is for; they overlap
BLUR = 1.5  # a face within this factor of a map's range is neither demanded of it nor forbidden
REACH = 0.75  # strides from a face's centre to the centres of the cells that answer for it
FORBID_SHARE = 0.3  # of a face's side around its centre in which no other cell is taught to be empty


def finder_targets(faces: Faces, size: int) -> np.ndarray:
    """float32 [cells, 6] for the cells of all maps of a square image, row by row: score target (0: no face), weight (0: teaches
    nothing), and the box's centre x, y, width, height in pixels."""
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
        order = np.argsort(-sides)  # the smaller face has the last word
        for face in order:
            apart = np.stack(np.meshgrid(grid, grid), -1) - centres[face]
            near = np.abs(apart).max(axis=-1)
            fits = low <= sides[face] < high and not np.isnan(faces.target[face])
            if not fits:
                if np.isnan(faces.target[face]):
                    inside = (np.abs(apart) < sizes[face] / 2).all(axis=-1)
                    out[..., 1][inside | (near <= REACH * stride)] = 0
                elif low / BLUR <= sides[face] < high * BLUR:
                    out[..., 1][near <= max(REACH * stride, FORBID_SHARE * sides[face])] = 0
                continue
            out[..., 1][(near <= max(stride, FORBID_SHARE * sides[face])) & (out[..., 0] == 0)] = 0
            cells = near <= REACH * stride
            out[cells] = [faces.target[face], 1.0, *centres[face], *sizes[face]]
        maps.append(out.reshape(-1, 6))
    return np.concatenate(maps)


def cell_grid(size: int) -> np.ndarray:
    """float32 [cells, 4] in the same order: centre x, y, stride, and the side of a face whose size answer is 0."""
    parts = []
    for stride, anchor in zip(STRIDES, ANCHORS, strict=True):
        grid = (np.arange(size // stride) + 0.5) * stride
        x, y = np.meshgrid(grid, grid)
        parts.append(np.stack([x, y, np.full_like(x, stride), np.full_like(x, anchor)], -1).reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)
