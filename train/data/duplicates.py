"""Near-duplicate images by perceptual hash: recompressed, resized, slightly cropped or relit, mirrored."""

from collections.abc import Iterator

import cv2
import numpy as np

THUMB_SIDE = 32  # pixels
# Of 2,883 pairs in FER2013 with a correlation of 0.97 within 10 bits, 2,761 are within 6, and the 40 with the lowest
# correlation were all the same photograph. By the hash alone, faces in the same pose come close.
MAX_BITS = 6
MIN_CORRELATION = 0.97
CHUNK = 2048
MAX_SET = 100  # images of a set of which all pairs are listed


def fingerprint(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hash, thumbnail) of an image, uint8 [h, w] or BGR [h, w, 3], for near_duplicates to compare.

    hash: int8 [64] of -1 and 1, whether each of the lowest DCT coefficients but the DC is above their median (pHash,
    Zauner 2010). thumbnail: uint8 [32, 32] gray.
    """
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    thumb = cv2.resize(gray, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA)
    return _hash(thumb), thumb


def _hash(thumb: np.ndarray) -> np.ndarray:
    coefficients = cv2.dct(thumb.astype(np.float32))[:9, :9].ravel()[1:65]
    return np.where(coefficients > np.median(coefficients), 1, -1).astype(np.int8)


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i < j) of near-duplicate or mirrored images, from stacked fingerprints.

    hashes: int8 [n, 64]; thumbs: uint8 [n, 32, 32]. The hashes of a pair differ in at most 6 of 64 bits, and its
    thumbnails have a correlation of at least 0.97. All pairs of thousands of frames of a video would take hours: of images
    with equal thumbnails only the first is compared with others, and each of the rest makes one pair, with the first; of
    more than MAX_SET similar images only pairs that connect them are listed. So the sets are complete, and one whose
    images differ in any property, such as their split, has a pair that does.
    """
    rows = np.ascontiguousarray(thumbs).reshape(len(thumbs), THUMB_SIDE**2)
    _, firsts, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    first = firsts[inverse.ravel()].tolist()
    kept = np.sort(firsts)
    equal = [(i, j) for j, i in enumerate(first) if i != j]
    similar = _similar_pairs(hashes[kept], thumbs[kept])
    return sorted([*equal, *((int(kept[i]), int(kept[j])) for i, j in similar)])


def _similar_pairs(hashes: np.ndarray, thumbs: np.ndarray) -> set[tuple[int, int]]:
    flipped = np.ascontiguousarray(thumbs[:, :, ::-1])
    mirrored = np.stack([_hash(thumb) for thumb in flipped]) if len(flipped) else hashes
    sets, found = _Sets(len(thumbs)), set()
    for left, left_hashes in ((thumbs, hashes), (flipped, mirrored)):
        for i, close in _close_rows(left_hashes, hashes):
            for chunk in np.array_split(close, len(close) // CHUNK + 1):
                chunk = chunk[sets.unlisted(i, chunk)]
                similar = chunk[_correlations(left[i : i + 1], thumbs[chunk]) >= MIN_CORRELATION]
                found |= {(i, j) for j in similar.tolist()}
                sets.join(i, similar)
    return found


class _Sets:
    """Which of `count` images are connected by pairs so far."""

    def __init__(self, count: int):
        self._set_of, self._size = np.arange(count), np.ones(count, np.int64)

    def unlisted(self, i: int, others: np.ndarray) -> np.ndarray:
        """bool [n], which images would make a pair with i that is to be listed."""
        own = self._set_of[i]
        return (self._set_of[others] != own) | (self._size[own] <= MAX_SET)

    def join(self, i: int, others: np.ndarray) -> None:
        own = self._set_of[i]
        if (self._set_of[others] != own).any():
            joined = np.isin(self._set_of, self._set_of[others]) | (self._set_of == own)
            self._set_of[joined], self._size[own] = own, joined.sum()


def _close_rows(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(i, every j > i whose hash differs from that of i in at most MAX_BITS bits, int64 [m]), where there are any.

    The dot product of two hashes is 64 less twice the bits that differ: as matrix products 30,000 images take seconds.
    """
    a, b = left.astype(np.float32), right.astype(np.float32)
    for at in range(0, len(a), CHUNK):
        close = np.triu(a[at : at + CHUNK] @ b[at:].T >= a.shape[1] - 2 * MAX_BITS, k=1)
        for row in np.flatnonzero(close.any(axis=1)).tolist():
            yield at + row, at + np.flatnonzero(close[row])


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each thumbnail in `a`, or of its only one, with the one in `b`, float32 [n].

    It is 1 where both are constant.
    """
    left, right = (thumbs.reshape(len(thumbs), THUMB_SIDE**2).astype(np.float32) for thumbs in (a, b))
    left, right = (rows - rows.mean(axis=1, keepdims=True) for rows in (left, right))
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.where(scale > 0, (left * right).sum(axis=1) / np.maximum(scale, 1e-9), 1.0)


def clusters(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The connected components of the pairs, each sorted, the largest first (union-find).

    >>> clusters([(0, 1), (5, 7), (1, 3)])
    [[0, 1, 3], [5, 7]]
    """
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
