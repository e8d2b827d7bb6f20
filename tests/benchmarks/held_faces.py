"""The images with marked heads that are held out of the training of the face networks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefer.faces import overlaps
from edgefer.images import decode_image
from edgefer.train.faces.gallery import Faces
from edgefer.train.faces.holdout import split_sources
from edgefer.train.faces.scenes import entries, open_entry, read_scenes, shrunk

REAL_SCORE = 0.5  # from this score of the teacher, an unmarked detection may be a face


@dataclass(frozen=True)
class Held:
    """An image uint8 BGR; the heads marked by people, float32 [n, 4]; the faces as training would get them; the teacher's rows."""

    image_bgr: np.ndarray
    heads: np.ndarray
    faces: Faces
    taught: np.ndarray

    def is_face(self, box) -> bool:
        """Whether the teacher finds a face in the box."""
        sure = self.taught[self.taught[:, 15] >= REAL_SCORE, 1:5]
        return bool(len(sure) and overlaps(np.array(box, float), sure).max() > 0.3)


def held_out_images(
    folder: Path,
    cache: Path,
    teacher_file: Path,
    track: Callable[[Iterable, int, str], Iterable] = lambda items, total, description: items,
) -> list[Held]:
    sources = read_scenes(folder, cache, teacher_file, track)
    held = split_sources(sources).holdout
    if not held:
        raise SystemExit(f"{folder} holds no fddb.zip and no folder fddb: only of its pictures some are held out.")
    source = next(one for one in sources if one.name == "fddb")
    files = open_entry(entries(folder)["fddb"])
    index_of = {name: index for index, name in enumerate(source.names)}
    out = []
    for picture in held:
        image = shrunk(decode_image(files.read(picture.name)))
        index = index_of[picture.name]
        heads = source.marked[source.marked[:, 0] == index, 1:]
        out.append(Held(image, heads, picture.faces, source.taught[source.taught[:, 0] == index]))
    return out
