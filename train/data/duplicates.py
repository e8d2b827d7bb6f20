"""Finds images that are nearly the same, by perceptual hash: recompressed, resized, a little recut or relit, mirrored."""

import cv2
import numpy as np

THUMB = 32  # pixels of the thumbnail's side
# Of 2,883 pairs of FER2013 that are alike by 0.97 within 10 bits, 2,761 lie within 6, and the 40 least alike were all
# the same photograph. By the hash alone, faces in the same pose come close.
BITS = 6
ALIKE = 0.97
CHUNK = 2048


def fingerprint(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image (uint8 [h, w] or BGR [h, w, 3]) as (hash, thumbnail): what near_duplicates compares.

    hash: int8 [64] of -1 and 1, whether each of the lowest frequencies but the mean lies above their median (pHash,
    Zauner 2010). thumbnail: uint8 [32, 32] gray.
    """
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    thumb = cv2.resize(gray, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return _hash(thumb), thumb


def _hash(thumb: np.ndarray) -> np.ndarray:
    low = cv2.dct(thumb.astype(np.float32))[:9, :9].ravel()[1:65]
    return np.where(low > np.median(low), 1, -1).astype(np.int8)


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i < j) of images that are nearly the same or mirrored, from stacked fingerprints.

    hashes: int8 [n, 64]; thumbs: uint8 [n, 32, 32]. A pair differs in at most 6 of 64 bits, and its thumbnails
    correlate by at least 0.97.
    """
    flipped = np.ascontiguousarray(thumbs[:, :, ::-1])
    mirrored = np.stack([_hash(thumb) for thumb in flipped]) if len(flipped) else hashes
    found = set()
    for left, own_hashes in ((thumbs, hashes), (flipped, mirrored)):
        pairs = _close(own_hashes, hashes)
        for part in np.array_split(pairs, len(pairs) // CHUNK + 1):  # a thousand frames alike make half a million pairs
            alike = _correlations(left[part[:, 0]], thumbs[part[:, 1]]) >= ALIKE
            found |= {(int(i), int(j)) for i, j in part[alike]}
    return sorted(found)


def _close(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pairs i < j whose hashes differ in at most BITS bits, int64 [m, 2]: by products of matrices, in which equal bits
    count 1 and others -1, 30,000 images take seconds."""
    a, b = left.astype(np.float32), right.astype(np.float32)
    pairs = [np.empty((0, 2), np.int64)]
    for at in range(0, len(a), CHUNK):
        rows, columns = np.nonzero(a[at : at + CHUNK] @ b[at:].T >= a.shape[1] - 2 * BITS)
        pairs.append(np.column_stack([rows, columns])[columns > rows] + at)
    return np.concatenate(pairs)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each thumbnail of `a` with its fellow in `b`, float32 [n]; 1 for two that are flat."""
    left, right = (side.reshape(len(side), THUMB * THUMB).astype(np.float32) for side in (a, b))
    left, right = (side - side.mean(axis=1, keepdims=True) for side in (left, right))
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.where(scale > 0, (left * right).sum(axis=1) / np.maximum(scale, 1e-9), 1.0)


def clusters(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The pairs joined to sets of images that hang together, each sorted, the largest first."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while parent.setdefault(one, one) != one:
            one = parent[one]
        return one

    for i, j in pairs:
        parent[root(i)] = root(j)
    found: dict[int, list[int]] = {}
    for one in sorted(parent):
        found.setdefault(root(one), []).append(one)
    return sorted(found.values(), key=lambda members: (-len(members), members))
