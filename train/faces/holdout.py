"""The images of a face training: those to train on, and those with marked heads that are held out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edgefer.train.faces.gallery import Picture, gallery, same_photographs, split
from edgefer.train.faces.scenes import Source

HOLDOUT_SHARE, SEED = 0.32, 5
MAX_LISTED = 20  # sources in the log
NEWS = ("fddb", "lfw150")  # sources of news pictures, which may have photographs in common


@dataclass(frozen=True)
class FaceData:
    """Images to train on, and the held-out ones."""

    train: list[Picture]
    holdout: list[Picture]

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each part has."""
        return {"train": len(self.train), "held out": len(self.holdout)}

    def summary(self) -> list[str]:
        """A line for each of the first sources, and one on the held-out images."""
        sources: dict[str, list[Picture]] = {}
        for picture in self.train:
            sources.setdefault(picture.source, []).append(picture)
        lines = [_summary(name, pictures) for name, pictures in islice(sources.items(), MAX_LISTED)]
        if len(sources) > MAX_LISTED:
            lines.append(f"and {len(sources) - MAX_LISTED:,} more sources")
        if self.holdout:
            lines.append(f"{len(self.holdout):,} pictures of fddb are held out")
        return lines

    @property
    def content_hash(self) -> str:
        """A hash of the names and pixels of all images."""
        content = hashlib.sha256()
        for name, pictures in (("train", self.train), ("held out", self.holdout)):
            for picture in pictures:
                content.update(
                    f"{name} {picture.source}/{picture.name} {picture.gray.shape}".encode(errors="surrogateescape")
                )
                content.update(np.ascontiguousarray(picture.gray).data)
        return content.hexdigest()[:32]

    def annotation_hash(self, candidates: Sequence[tuple[Picture, np.ndarray]]) -> str:
        """A hash of the faces in the training images, and of a finder's candidates (image, box) in them."""
        content = hashlib.sha256()
        for picture in self.train:
            content.update(f"{picture.has_marks} {len(picture.faces)}".encode())
            for part in (picture.faces.boxes, picture.faces.points, picture.faces.roll_deg, picture.faces.target):
                content.update(np.ascontiguousarray(part).data)
        for picture, box in candidates:
            content.update(f"{picture.source}/{picture.name}".encode(errors="surrogateescape"))
            content.update(np.ascontiguousarray(box, np.float64).data)
        return content.hexdigest()[:32]


def _summary(source: str, pictures: list[Picture]) -> str:
    faces = sum(bool((picture.faces.target > 0).any()) for picture in pictures)
    kind = ", marked by people" if pictures[0].has_marks else "" if faces else ": taken for a source without any"
    return f"{source}: {len(pictures):,} pictures to train on, {faces:,} with faces{kind}"


def split_sources(sources: Sequence[Source]) -> FaceData:
    """Hold out part of the news pictures with marked heads (source fddb).

    What shares a photograph with a held-out image, in fddb or lfw150, is neither trained on nor held out.
    """
    pictures = gallery(sources)
    news = [picture for picture in pictures if picture.source in NEWS]
    if not any(picture.source == "fddb" for picture in news):
        return FaceData(pictures, [])
    part = split(news, same_photographs(news), source="fddb", share=HOLDOUT_SHARE, seed=SEED)
    train, holdout = ([picture for picture, one in zip(news, part, strict=True) if one == wanted] for wanted in (0, 1))
    return FaceData(train + [picture for picture in pictures if picture.source not in NEWS], holdout)
