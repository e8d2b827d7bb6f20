"""The images of a face training: those to train on, and those with marked heads that are held out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgefer.train.faces.gallery import Picture, gallery, same_photographs, split
from edgefer.train.faces.scenes import Source

HOLDOUT_SHARE, SEED = 0.32, 5


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
        """A line per source, and one on the held-out images."""
        lines = []
        for source in dict.fromkeys(picture.source for picture in self.train):
            pictures = [picture for picture in self.train if picture.source == source]
            faces = sum(bool((picture.faces.target > 0).any()) for picture in pictures)
            marked = pictures[0].has_marks
            kind = ", marked by people" if marked else "" if faces else ": taken for a source without any"
            lines.append(f"{source}: {len(pictures):,} pictures to train on, {faces:,} with faces{kind}")
        return [*lines, *([f"{len(self.holdout):,} pictures of fddb are held out"] if self.holdout else [])]

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


def split_sources(sources: Sequence[Source]) -> FaceData:
    """Hold out part of the news pictures with marked heads (source fddb).

    What shares a photograph with a held-out image, in fddb or lfw150, is neither trained on nor held out.
    """
    pictures = gallery(sources)
    news = [picture for picture in pictures if picture.source in ("fddb", "lfw150")]
    if not any(picture.source == "fddb" for picture in news):
        return FaceData(pictures, [])
    part = split(news, same_photographs(news), source="fddb", share=HOLDOUT_SHARE, seed=SEED)
    train, holdout = ([picture for picture, one in zip(news, part, strict=True) if one == wanted] for wanted in (0, 1))
    return FaceData(train + [picture for picture in pictures if picture.source not in ("fddb", "lfw150")], holdout)
