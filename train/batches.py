"""The batches of a training: one deterministic stream, which processes that train together divide among them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefer.train.augment import Draws, augment_batch, mix
from edgefer.train.backend import tensorflow, to_float_in_graph
from edgefer.train.data.dataset import Further, Split
from edgefer.train.objective import class_shares
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tensorflow as tf


def steps_per_epoch(recipe: Recipe, split: Split, further: Further | None = None) -> tuple[int, int]:
    """How many images a batch has, and how many batches an epoch: the split's images are seen once, the further ones as
    often as their share of the batches asks for."""
    batch = min(recipe.fit.batch_size, len(split))
    return batch, len(split) // (batch - _further_of(batch, further))


def _further_of(batch: int, further: Further | None) -> int:
    """How many images of a batch are further ones: their share of it, but never all."""
    return min(round(batch * further.share), batch - 1) if further else 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that this process takes: the replicas first .. first + here - 1 of `replicas`."""

    first: int = 0
    here: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, context) -> "Share":
        """Of a tf.distribute.InputContext."""
        here = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(first=context.input_pipeline_id * here, here=here, replicas=context.num_replicas_in_sync)


WHOLE = Share()


def batches(
    recipe: Recipe,
    split: Split,
    classes: int,
    batch: int,
    steps: int,
    *,
    first_epoch: int,
    epochs: int,
    share: Share = WHOLE,
    further: Further | None = None,
) -> "tf.data.Dataset":
    """Augmented batches of the epochs first_epoch .. epochs - 1, a pure function of seed, epoch and step.

    A tf.data.Dataset of (float32 pixels [batch, h, w, c] in 0..1, float32 targets [batch, classes]), and
    with class weights float32 weights [batch] of mean 1. With a share of it, each element is one replica's part of a
    batch: together, all replicas see the images that one alone would. Further images come last in each batch.
    """
    images = _Images.of(split, further, classes)
    order = _Order(recipe, images, batch, steps, share)
    load = _Loader(recipe, images, batch, batch // share.replicas)
    rows = tensorflow().data.Dataset.range(first_epoch, epochs).flat_map(order.rows_of).flat_map(order.parts_of)
    return rows.map(load, num_parallel_calls=2).prefetch(4)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """All that a batch is taken from: the split's images first, then the further ones. weights: of mean 1 in each."""

    count: int
    further: Further | None
    pixels: "tf.Tensor"
    targets: "tf.Tensor"
    weights: "tf.Tensor"

    @classmethod
    def of(cls, split: Split, further: Further | None, classes: int) -> "_Images":
        tf = tensorflow()
        sources = [split, further.split] if further else [split]
        rarities = [(1 / class_shares(source, classes))[source.labels] for source in sources]
        return cls(
            count=len(split),
            further=further,
            pixels=tf.constant(np.concatenate([source.images for source in sources])),
            targets=tf.constant(np.concatenate([source.soft_labels(classes) for source in sources])),
            weights=tf.constant(np.concatenate([rarity / rarity.mean() for rarity in rarities]), tf.float32),
        )


class _Order:
    """Which images each batch has, and which of them are this process's."""

    def __init__(self, recipe: Recipe, images: _Images, batch: int, steps: int, share: Share):
        self._seed, self._oversamples = recipe.fit.seed, recipe.fit.balance == "oversample"
        self._images, self._batch, self._steps, self._share = images, batch, steps, share

    def rows_of(self, epoch: "tf.Tensor") -> "tf.data.Dataset":
        """Of an epoch: (step, int32 rows [batch]) for each of its batches."""
        tf, images = tensorflow(), self._images
        draw, others = tf.stack([self._seed, epoch]), _further_of(self._batch, images.further)
        rows = self._columns(0, images.count, self._batch - others, draw)
        if images.further and others:
            draw = tf.random.experimental.stateless_fold_in(draw, images.count)
            rows = tf.concat([rows, self._columns(images.count, len(images.further.split), others, draw)], axis=1)
        return tf.data.Dataset.from_tensor_slices(rows).enumerate(start=epoch * self._steps)

    def parts_of(self, step: "tf.Tensor", rows: "tf.Tensor") -> "tf.data.Dataset":
        """Of a batch: (step, its rows, where the part of each replica here begins)."""
        tf, share = tensorflow(), self._share
        part = self._batch // share.replicas
        replicas = tf.data.Dataset.range(share.first, share.first + share.here)
        return replicas.map(lambda replica: (step, rows, tf.cast(replica, tf.int32) * part))

    def _columns(self, first: int, count: int, wide: int, draw: "tf.Tensor") -> "tf.Tensor":
        """`wide` of the `count` images from `first` on for each batch, int [steps, wide]: each once before any twice."""
        tf, wanted = tensorflow(), self._steps * wide
        if self._oversamples:
            rare = tf.math.log(self._images.weights[first : first + count])
            order = tf.random.stateless_categorical(rare[None], wanted, seed=draw, dtype=tf.int32)[0]
        else:
            rounds = tf.unstack(tf.random.split(draw, -(-wanted // count))) if wanted > count else [draw]
            shuffle = tf.random.experimental.stateless_shuffle
            order = tf.concat([shuffle(tf.range(count), seed=each) for each in rounds], axis=0)
        return first + tf.reshape(order[:wanted], [self._steps, wide])


class _Loader:
    """Makes the element of a batch's part: its images, augmented, with their targets and weights."""

    def __init__(self, recipe: Recipe, images: _Images, batch: int, part: int):
        self._augment, self._seed, self._weighted = (
            recipe.augment,
            recipe.fit.seed,
            recipe.fit.balance == "class-weights",
        )
        self._images, self._batch, self._part, self._floats = images, batch, part, to_float_in_graph()

    def __call__(self, step: "tf.Tensor", rows: "tf.Tensor", start: "tf.Tensor") -> tuple:
        tf, images, mixup = tensorflow(), self._images, self._augment.mixup
        # The image before the first is loaded too for mixup to blend the first with.
        chosen = tf.math.floormod(tf.range(start - 1 if mixup else start, start + self._part), self._batch)
        draws = Draws(seed=tf.stack([self._seed, step]), count=self._batch, rows=chosen)
        # Images and targets are gathered by the same rows, so they cannot get out of step.
        rows = tf.gather(rows, chosen)
        pixels, wanted = self._floats(tf.gather(images.pixels, rows)), tf.gather(images.targets, rows)
        pixels = augment_batch(pixels, self._augment, draws)
        if mixup:
            pixels, wanted = mix(pixels, wanted, mixup, draws)
        if self._weighted:
            return pixels, wanted, tf.gather(images.weights, rows[-self._part :])
        return pixels, wanted


def in_order(split: Split, classes: int) -> "tf.data.Dataset":
    """A split as it is, to measure on: (float32 pixels [n, h, w, c] in 0..1, float32 targets [n, classes])."""
    tf = tensorflow()
    pairs = tf.data.Dataset.from_tensor_slices((split.images, tf.one_hot(split.labels, classes)))
    floats = to_float_in_graph()
    return pairs.batch(256).map(lambda images, labels: (floats(images), labels))
