"""Near-duplicate images by perceptual hash: recompressed, resized, slightly cropped or relit, mirrored."""

import cv2
import numpy as np

THUMB_SIDE = 32  # pixels
# Of 2,883 pairs in FER2013 with a correlation of 0.97 within 10 bits, 2,761 are within 6, and the 40 with the lowest correlation
# were all the same photograph. By the hash alone, faces in the same pose come close.
MAX_BITS = 6
MIN_CORRELATION = 0.97
CHUNK = 2048


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
    thumbnails have a correlation of at least 0.97. Of images with equal thumbnails only the first is compared with
    others, and each of the rest makes one pair, with the first: all pairs of a thousand blank frames take minutes.
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
    found = set()
    for left, left_hashes in ((thumbs, hashes), (flipped, mirrored)):
        pairs = _close_pairs(left_hashes, hashes)
        for chunk in np.array_split(pairs, len(pairs) // CHUNK + 1):
            similar = _correlations(left[chunk[:, 0]], thumbs[chunk[:, 1]]) >= MIN_CORRELATION
            found |= {(int(i), int(j)) for i, j in chunk[similar]}
    return found


def _close_pairs(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pairs i < j whose hashes differ in at most MAX_BITS bits, int64 [m, 2].

    The dot product of two hashes is 64 less twice the bits that differ: as matrix products 30,000 images take seconds.
    """
    a, b = left.astype(np.float32), right.astype(np.float32)
    pairs = [np.empty((0, 2), np.int64)]
    for at in range(0, len(a), CHUNK):
        rows, columns = np.nonzero(a[at : at + CHUNK] @ b[at:].T >= a.shape[1] - 2 * MAX_BITS)
        pairs.append(np.column_stack([rows, columns])[columns > rows] + at)
    return np.concatenate(pairs)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson correlation of each thumbnail in `a` with the one in `b`, float32 [n]; 1 where both are constant."""
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
