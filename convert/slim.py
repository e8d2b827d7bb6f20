"""Structured filter pruning: whole filters are removed, so the network is faster on every runtime.

Filters are ranked by |gamma| * ||W||: their batch norm's factor (Network Slimming, Liu et al. 2017, arXiv:1708.06519)
times the norm of their weights (Li et al. 2017, arXiv:1608.08710). The result needs fine-tuning.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefer.errors import InputError
from edgefer.train.backend import tensorflow
from edgefer.train.networks import LOGITS, build
from edgefer.train.recipe_fields import LAYER, Recipe
from edgefer.train.zscore import ZSCORE, Statistics

if TYPE_CHECKING:
    import tf_keras

MULTIPLE = 8  # of filters: int8 kernels compute so many at once
Widths = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Slim:
    """A network with fewer filters, not fine-tuned yet, its recipe, and the multiply-adds per image, before and after."""

    network: "tf_keras.Model"
    recipe: Recipe
    multiply_adds_before: int
    multiply_adds: int


def why_not(recipe: Recipe, share: float) -> str:
    """One sentence on why a network of that recipe cannot lose `share` (0..1) of its multiply-adds; "" if it can."""
    if recipe.model.family != "plain":
        return f"--slim supports networks of the plain family only; this one is {recipe.model.family}: leave --slim out, or use --prune."
    if recipe.model.freeze:
        return f"--slim does not support the frozen layers of {recipe.name}: slim the bundle that it started from."
    if _narrowed(recipe, share) is not None:
        return ""
    words, widths = _plain(recipe)
    least = multiply_adds(words, tuple(min(MULTIPLE, width) for width in widths), recipe)
    most = 1 - least / multiply_adds(words, widths, recipe)
    named = f"--slim {share:g}: {recipe.name} ({' '.join(words)})"
    if not most:
        return f"{named} has no more than {MULTIPLE} filters per layer, the minimum: leave --slim out."
    return f"{named} can lose at most {int(100 * most)}% of its multiply-adds, with {MULTIPLE} filters left in each layer: choose a smaller share."


def slim(model: "tf_keras.Model", recipe: Recipe, share: float) -> Slim:
    """Remove at least `share` (0..1) of the multiply-adds of a network of the plain family.

    Every width shrinks by the same factor, to a multiple of 8; the filters with the highest scores stay. A residual
    block's input and output must keep the same filters, so those are ranked together. InputError if it cannot be
    slimmed that much: see why_not.
    """
    if reason := why_not(recipe, share):
        raise InputError(reason)
    tensorflow()
    (words, widths), narrow = _plain(recipe), _narrowed(recipe, share)
    assert narrow  # or there would be a reason
    layers = " ".join(word.replace(str(old), str(new), 1) for word, old, new in zip(words, widths, narrow, strict=True))
    smaller = recipe.model_copy(update={"model": recipe.model.model_copy(update={"layers": layers})})
    network = build(
        smaller.model, recipe.input, model.output_shape[-1], _statistics(model) if recipe.model.zscore else None
    )
    _copy_filters(model, network, words, narrow)
    return Slim(
        network=network,
        recipe=smaller,
        multiply_adds_before=multiply_adds(words, widths, recipe),
        multiply_adds=multiply_adds(words, narrow, recipe),
    )


def multiply_adds(words: list[str], widths: Widths, recipe: Recipe) -> int:
    """The multiply-adds per image of the convolutions of a plain network."""
    total, before = 0, recipe.input.channels
    height, width = recipe.input.height, recipe.input.width
    for word, filters in zip(words, widths, strict=True):
        if word.endswith("/2"):
            height, width = -(-height // 2), -(-width // 2)
        total += height * width * 9 * filters * (2 * filters if word.startswith("R") else before)
        before = filters
    return total


def _filters(word: str) -> int:
    match = LAYER.fullmatch(word)
    assert match  # the recipe has been validated
    return int(match[1] or match[3])


def _plain(recipe: Recipe) -> tuple[list[str], Widths]:
    """The layers of a plain network, and the number of filters of each."""
    words = recipe.model.layers.split()
    return words, tuple(_filters(word) for word in words)


def _narrowed(recipe: Recipe, share: float) -> Widths | None:
    """The largest widths that lose at least `share` of the multiply-adds; None if none do."""
    words, widths = _plain(recipe)
    most = (1 - share) * multiply_adds(words, widths, recipe)
    for percent in range(99, 0, -1):
        narrow = tuple(min(w, max(MULTIPLE, MULTIPLE * round(w * percent / 100 / MULTIPLE))) for w in widths)
        if multiply_adds(words, narrow, recipe) <= most:
            return narrow
    return None


def _copy_filters(model: "tf_keras.Model", network: "tf_keras.Model", words: list[str], narrow: Widths) -> None:
    """Copy the kept filters, with their batch norms, into the narrower network."""
    kept = _kept(model, words, narrow)
    inputs = np.arange(model.input_shape[-1])
    pairs = zip(_convolutions(model), _convolutions(network), kept, strict=True)
    for (conv, norm), (new_conv, new_norm), outputs in pairs:
        new_conv.set_weights([conv.get_weights()[0][:, :, inputs][..., outputs]])
        new_norm.set_weights([weight[outputs] for weight in norm.get_weights()])
        inputs = outputs
    kernel, bias = model.get_layer(LOGITS).get_weights()
    network.get_layer(LOGITS).set_weights([kernel[inputs], bias])


def _statistics(model: "tf_keras.Model") -> Statistics:
    """The statistics of the network's z-score."""
    zscore = model.get_layer(ZSCORE)
    mean, variance = (tuple(np.ravel(part).tolist()) for part in (zscore.mean, zscore.variance))
    return mean, variance


def _convolutions(model: "tf_keras.Model") -> list[tuple]:
    """Each convolution with its batch norm, in their order."""
    import tf_keras

    convolutions = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    return list(zip(convolutions, norms, strict=True))


def _kept(model: "tf_keras.Model", words: list[str], narrow: Widths) -> list[np.ndarray]:
    """The kept filters of each convolution, int64, ascending."""
    groups: list[list[int]] = []  # convolutions whose outputs are added, so they must keep the same filters
    sizes: list[int] = []
    stem = 0  # the group that residual blocks add to
    for word, size in zip(words, narrow, strict=True):
        at = sum(map(len, groups))
        groups.append([at])
        sizes.append(size)
        if word.startswith("R"):
            groups[stem].append(at + 1)
        else:
            stem = len(groups) - 1
    scores = []
    for conv, norm in _convolutions(model):
        kernel, gamma = conv.get_weights()[0], norm.get_weights()[0]
        score = np.abs(gamma) * np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
        scores.append(score / score.mean())
    kept: dict[int, np.ndarray] = {}
    for group, size in zip(groups, sizes, strict=True):
        best = np.argsort(-sum(scores[number] for number in group), kind="stable")[:size]
        kept |= dict.fromkeys(group, np.sort(best))
    return [kept[number] for number in range(len(scores))]
