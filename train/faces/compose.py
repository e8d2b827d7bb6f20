"""Composes training images: mosaics of pictures with faces of every size, rotated, relit, blurred, noisy and occluded.

Boxes are x0, y0, x1, y1 in pixels, angles in degrees clockwise in the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from edgefer.train.faces.gallery import MIN_SIDE, Faces, Picture
from edgefer.train.faces.geometry import warp_affine

# Shares of a face's box inside the image: a face above VISIBLE, an unknown target above PARTLY_VISIBLE, none below.
VISIBLE, PARTLY_VISIBLE = 0.7, 0.25
GRIDS, GRID_PROBABILITIES = (1, 2, 3, 4), (0.42, 0.3, 0.18, 0.1)  # cells per side of a mosaic


@dataclass(frozen=True)
class Pool:
    """Pictures to sample from: (weight, pictures) of each kind."""

    kinds: tuple[tuple[float, tuple[Picture, ...]], ...]

    def sample(self, rng: np.random.Generator) -> Picture:
        """A random picture of a random kind."""
        weights = np.array([weight for weight, _ in self.kinds])
        pictures = self.kinds[rng.choice(len(weights), p=weights / weights.sum())][1]
        return pictures[rng.integers(len(pictures))]


def compose(pool: Pool, rng: np.random.Generator, size: int) -> tuple[np.ndarray, Faces]:
    """A random training image, uint8 [size, size], and its faces."""
    grid = int(rng.choice(GRIDS, p=GRID_PROBABILITIES))
    canvas, parts = np.empty((size, size), np.uint8), []
    edges = np.linspace(0, size, grid + 1).round().astype(int)
    for top, bottom in pairwise(edges):
        for left, right in pairwise(edges):
            cell, faces = _cell(pool.sample(rng), pool, rng, (right - left, bottom - top))
            canvas[top:bottom, left:right] = cell
            parts.append(transformed(faces, np.array([[1, 0, left], [0, 1, top]], np.float32)))
    return degrade(canvas, rng), concatenate(parts)


def concatenate(parts: Sequence[Faces]) -> Faces:
    """The faces of all parts."""
    names = ("boxes", "points", "roll_deg", "target")
    return Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _cell(picture: Picture, pool: Pool, rng, size: tuple[int, int]) -> tuple[np.ndarray, Faces]:
    """One cell of a mosaic, uint8 [height, width] for size (width, height), and its faces."""
    width, height = size
    matrix, flip, tilt_deg = _placement(picture, rng, width, height)
    gray, faces = picture.gray, picture.faces
    if flip:
        gray, faces = np.ascontiguousarray(gray[:, ::-1]), mirrored(faces, gray.shape[1])
    gray, faces = warp(gray, matrix, size, rng), transformed(faces, matrix, tilt_deg)
    for box, target in zip(faces.boxes, faces.target, strict=True):
        if target > 0 and rng.random() < 0.15:
            occlude(gray, box, rng, pool)
    return relight(gray, rng), visible(faces, width, height)


def _placement(picture: Picture, rng, width: int, height: int) -> tuple[np.ndarray, bool, float]:
    """A random affine matrix [2, 3] from the picture to the cell, whether the picture is mirrored first, and the
    rotation in degrees."""
    h, w = picture.gray.shape
    flip = bool(rng.random() < 0.5)
    tilt_deg = float(np.clip(rng.normal(0, 14), -38, 38)) if rng.random() < 0.65 else 0.0
    known = np.flatnonzero(~np.isnan(picture.faces.target))
    fill = max(width / w, height / h)
    if len(known):
        x0, y0, x1, y1 = picture.faces.boxes[rng.choice(known)]
        side = max(1.0, (x1 - x0 + y1 - y0) / 2)
        target_side = np.exp(rng.uniform(np.log(11), np.log(0.95 * min(width, height))))
        scale = float(np.clip(target_side / side, 0.75 * fill, max(2.5, 0.75 * fill)))
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        if flip:
            centre[0] = w - centre[0]
        place = np.array([rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height])
        # Keep a large face mostly inside.
        margin = np.minimum(0.45 * side * scale, [0.5 * width, 0.5 * height])
        place = np.clip(place, margin, np.array([width, height]) - margin)
        # Shift a small picture to cover as much of the cell as it can.
        if tilt_deg == 0:
            low, high = np.array([width, height]) - (np.array([w, h]) - centre) * scale, centre * scale
            fits = low <= high
            place = np.where(fits, np.clip(place, low, np.maximum(low, high)), place)
    else:
        scale = float(fill * np.exp(rng.uniform(np.log(0.9), np.log(2.0))))
        centre, place = np.array([w / 2, h / 2]), np.array([width / 2, height / 2])
        place = place + rng.uniform(-0.5, 0.5, 2) * np.maximum(0, np.array([w, h]) * scale - [width, height])
    matrix = cv2.getRotationMatrix2D(centre.tolist(), -tilt_deg, scale)
    matrix[:, 2] += place - centre
    return matrix.astype(np.float32), flip, tilt_deg


def warp(gray: np.ndarray, matrix: np.ndarray, size: tuple[int, int], rng) -> np.ndarray:
    """The picture under an affine matrix [2, 3], outside of it one gray or its border replicated: uint8 of `size`
    (width, height).

    Shrinking is mostly antialiased, as cameras do; at random it is not, as some software.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.7 and rng.random() < 0.75:
        h, w = gray.shape
        small = max(1, round(w * scale)), max(1, round(h * scale))
        gray = cv2.resize(gray, small, interpolation=cv2.INTER_AREA)
        enlarge = np.array([[w / small[0], 0, 0], [0, h / small[1], 0]], np.float32)
        matrix = np.concatenate([matrix[:, :2] @ enlarge[:, :2], matrix[:, 2:]], axis=1)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.4 else cv2.BORDER_CONSTANT
    fill = int(rng.integers(256))
    return warp_affine(gray, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=fill)


def mirrored(faces: Faces, width: int) -> Faces:
    """The faces in the mirror image of a picture of that width in pixels; left and right points are exchanged."""
    boxes = faces.boxes.copy()
    boxes[:, [0, 2]] = width - faces.boxes[:, [2, 0]]
    points = faces.points[:, [1, 0, 2, 4, 3]].copy()
    points[..., 0] = width - points[..., 0]
    return Faces(boxes, points, -faces.roll_deg, faces.target)


def transformed(faces: Faces, matrix: np.ndarray, tilt_deg: float = 0.0) -> Faces:
    """The faces under an affine matrix that rotates by `tilt_deg` clockwise; each box becomes that of its rotated
    ellipse."""
    linear, shift = matrix[:, :2], matrix[:, 2]
    scale = np.sqrt(abs(np.linalg.det(linear)))
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 @ linear.T + shift
    half = (faces.boxes[:, 2:] - faces.boxes[:, :2]) / 2 * scale
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    half = np.sqrt(half**2 @ np.array([[cos**2, sin**2], [sin**2, cos**2]]))
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    values = boxes, faces.points @ linear.T + shift, faces.roll_deg + tilt_deg, faces.target
    return Faces(*(value.astype(np.float32) for value in values))


def visible(faces: Faces, width: int, height: int) -> Faces:
    """The faces in an image of that size: those that its border cuts, and small ones, get an unknown target (NaN)."""
    inside = np.clip(faces.boxes, 0, [width, height, width, height])
    area = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
    share = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / np.maximum(area, 1e-6)
    target = np.where((share < VISIBLE) | (np.sqrt(area) < MIN_SIDE), np.nan, faces.target).astype(np.float32)
    kept = share > PARTLY_VISIBLE
    return Faces(faces.boxes[kept], faces.points[kept], faces.roll_deg[kept], target[kept])


def occlude(gray: np.ndarray, box: np.ndarray, rng, pool: Pool | None = None) -> None:
    """Cover up to half of a face in place, from one of its sides, with one gray or another picture."""
    x0, y0, x1, y1 = (int(edge) for edge in box)
    w, h, share = x1 - x0, y1 - y0, rng.uniform(0.15, 0.5)
    side = rng.integers(4)
    if side == 0:
        x1 = x0 + int(w * share)
    elif side == 1:
        x0 = x1 - int(w * share)
    elif side == 2:
        y1 = y0 + int(h * share)
    else:
        y0 = y1 - int(h * share)
    x0, y0, x1, y1 = max(0, x0), max(0, y0), min(gray.shape[1], x1), min(gray.shape[0], y1)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    if pool is None or rng.random() < 0.5:
        gray[y0:y1, x0:x1] = rng.integers(256)
        return
    other = pool.sample(rng)
    if not len(other.faces):
        gray[y0:y1, x0:x1] = cv2.resize(other.gray, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)


def relight(gray: np.ndarray, rng) -> np.ndarray:
    """Random gamma, contrast and brightness; one image in ten is dark."""
    if rng.random() < 0.2:
        return gray
    gamma = np.exp(rng.normal(0, 0.3))
    gain, offset = np.exp(rng.normal(0, 0.25)), rng.normal(0, 20)
    if rng.random() < 0.12:
        gain, offset = rng.uniform(0.12, 0.4), rng.uniform(0, 15)
    table = np.clip(255 * (np.arange(256) / 255) ** gamma * gain + offset, 0, 255).astype(np.uint8)
    return cv2.LUT(gray, table)


def degrade(gray: np.ndarray, rng) -> np.ndarray:
    """Random blur or motion blur, noise and JPEG compression."""
    drawn = rng.random(4)
    if drawn[0] < 0.15:
        gray = cv2.GaussianBlur(gray, (0, 0), float(rng.uniform(0.4, 1.8)))
    elif drawn[0] < 0.2:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        gray = cv2.filter2D(gray, -1, kernel if rng.random() < 0.7 else kernel.T)
    if drawn[1] < 0.2:
        noise = np.empty(gray.shape, np.int16)
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(noise, np.zeros(1), np.full(1, rng.uniform(2, 16)))
        gray = cv2.add(gray, noise, dtype=cv2.CV_8U)
    if drawn[2] < 0.25:
        _, encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 85))])
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        gray = decoded
    return gray
