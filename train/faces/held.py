"""The pictures with marked heads that the face networks are not trained on."""

from edgefer.train.faces.gallery import Picture, gallery, same_photographs, split
from edgefer.train.faces.scenes import Source

SHARE, SEED = 0.32, 5


def parts(sources: list[Source]) -> tuple[list[Picture], list[Picture]]:
    """Pictures to train on, and those held apart: of the first source in which people marked heads of news pictures (fddb), with
    what shares a photograph with them (there and in lfw) out of both."""
    pictures = gallery(sources)
    news = [picture for picture in pictures if picture.source in ("fddb", "lfw150")]
    if not any(picture.source == "fddb" for picture in news):
        return pictures, []
    side = split(news, same_photographs(news), source="fddb", share=SHARE, seed=SEED)
    rest = [picture for picture in pictures if picture.source not in ("fddb", "lfw150")]
    chosen = [[picture for picture, one in zip(news, side, strict=True) if one == part] for part in (0, 1)]
    return chosen[0] + rest, chosen[1]
