"""The training batches: one deterministic stream, which the replicas of a distributed training divide among them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgefer.train.augment import Draws, augment_batch, mix
from edgefer.train.backend import tensorflow, to_float_in_graph
from edgefer.train.data.dataset import ExtraImages, Split
from edgefer.train.objective import class_prior
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tensorflow as tf


class EpochSize(NamedTuple):
    """Images per batch, and batches per epoch."""

    batch: int
    steps: int


def epoch_size(recipe: Recipe, split: Split, extra: ExtraImages | None = None) -> EpochSize:
    """The batches of an epoch: each training image at most once, extra images as often as their share of each batch
    requires."""
    batch = min(recipe.fit.batch_size, len(split))
    return EpochSize(batch, len(split) // (batch - _extra_count(batch, extra)))


def _extra_count(batch: int, extra: ExtraImages | None) -> int:
    """How many images of a batch are extra ones: never all."""
    return min(round(batch * extra.share), batch - 1) if extra else 0


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The part of every batch that this process loads: that of the replicas first .. first + here - 1 of `replicas`."""

    first: int = 0
    here: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, context) -> "Shard":
        """Of a tf.distribute.InputContext."""
        here = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(first=context.input_pipeline_id * here, here=here, replicas=context.num_replicas_in_sync)


UNSHARDED = Shard()


def batches(
    recipe: Recipe,
    split: Split,
    classes: int,
    size: EpochSize,
    *,
    epochs: range,
    limit: int | None = None,
    shard: Shard = UNSHARDED,
    extra: ExtraImages | None = None,
) -> "tf.data.Dataset":
    """Augmented batches of these epochs, a pure function of seed, epoch and step.

    A tf.data.Dataset of (float32 pixels [batch, h, w, c] in 0..1, float32 targets [batch, classes]), with class weights
    also float32 weights [batch] of mean 1. With a shard each element is the part of one replica: together, the replicas
    see the images that a single one would. Extra images come last in each batch. limit: only so many batches of each
    epoch, its first.
    """
    images = _Images.of(split, extra, classes)
    sampler = _Sampler(recipe, images, size, shard, limit)
    load = _Loader(recipe, images, size.batch, size.batch // shard.replicas)
    tf = tensorflow()
    graph = tf.autograph.experimental.do_not_convert  # they branch on no tensor, and converting them takes seconds
    rows = (
        tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(graph(sampler.epoch)).flat_map(graph(sampler.shards))
    )
    return rows.map(graph(load), num_parallel_calls=2).prefetch(4)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """All images to sample from: the `count` of the split first, then the extra ones. weights: of mean 1 in either."""

    count: int
    extra: ExtraImages | None
    pixels: "tf.Tensor"
    targets: "tf.Tensor"
    weights: "tf.Tensor"

    @classmethod
    def of(cls, split: Split, extra: ExtraImages | None, classes: int) -> "_Images":
        tf = tensorflow()
        sources = [split, extra.split] if extra else [split]
        weights = [(1 / class_prior(source, classes))[source.labels] for source in sources]
        return cls(
            count=len(split),
            extra=extra,
            pixels=tf.constant(_joined([source.images for source in sources])),
            targets=tf.constant(_joined([source.soft_labels(classes) for source in sources])),
            weights=tf.constant(np.concatenate([weight / weight.mean() for weight in weights]), tf.float32),
        )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """The arrays, one after another; a single one is not copied, since it may be most of the memory."""
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


class _Sampler:
    """Chooses the rows of each batch, and divides a batch among replicas."""

    def __init__(self, recipe: Recipe, images: _Images, size: EpochSize, shard: Shard, limit: int | None):
        self._seed, self._oversamples = recipe.fit.seed, recipe.fit.balance == "oversample"
        self._images, self._size, self._shard, self._limit = images, size, shard, limit

    def epoch(self, epoch: "tf.Tensor") -> "tf.data.Dataset":
        """The batches of an epoch: (step, int32 rows [batch])."""
        tf, images = tensorflow(), self._images
        seed, extra = tf.stack([self._seed, epoch]), _extra_count(self._size.batch, images.extra)
        rows = self._sample(0, images.count, self._size.batch - extra, seed)
        if images.extra and extra:
            seed = tf.random.experimental.stateless_fold_in(seed, images.count)
            rows = tf.concat([rows, self._sample(images.count, len(images.extra.split), extra, seed)], axis=1)
        return tf.data.Dataset.from_tensor_slices(rows[: self._limit]).enumerate(start=epoch * self._size.steps)

    def shards(self, step: "tf.Tensor", rows: "tf.Tensor") -> "tf.data.Dataset":
        """(step, rows of the whole batch, start of the replica's part) for each replica of this process."""
        tf, shard = tensorflow(), self._shard
        part = self._size.batch // shard.replicas
        replicas = tf.data.Dataset.range(shard.first, shard.first + shard.here)
        return replicas.map(lambda replica: (step, rows, tf.cast(replica, tf.int32) * part))

    def _sample(self, first: int, count: int, per_batch: int, seed: "tf.Tensor") -> "tf.Tensor":
        """`per_batch` of the rows first .. first + count - 1 for each batch, int [steps, per_batch].

        Without oversampling no row is drawn again before all others were drawn as often.
        """
        tf, total = tensorflow(), self._size.steps * per_batch
        if self._oversamples:
            log_weights = tf.math.log(self._images.weights[first : first + count])
            rows = tf.random.stateless_categorical(log_weights[None], total, seed=seed, dtype=tf.int32)[0]
        else:
            seeds = tf.unstack(tf.random.split(seed, -(-total // count))) if total > count else [seed]
            shuffle = tf.random.experimental.stateless_shuffle
            rows = tf.concat([shuffle(tf.range(count), seed=each) for each in seeds], axis=0)
        return first + tf.reshape(rows[:total], [self._size.steps, per_batch])


class _Loader:
    """Loads one replica's part of a batch: augmented images, targets and, with class weights, weights."""

    def __init__(self, recipe: Recipe, images: _Images, batch: int, part: int):
        self._augment, self._seed = recipe.augment, recipe.fit.seed
        self._bgr = recipe.input.color == "bgr"
        self._weighted = recipe.fit.balance == "class-weights"
        self._images, self._batch, self._part, self._to_float = images, batch, part, to_float_in_graph()

    def __call__(self, step: "tf.Tensor", rows: "tf.Tensor", start: "tf.Tensor") -> tuple:
        tf, images, mixup = tensorflow(), self._images, self._augment.mixup
        # For mixup one more image, the one before the part's first, to blend the first with.
        positions = tf.math.floormod(tf.range(start - 1 if mixup else start, start + self._part), self._batch)
        draws = Draws(seed=tf.stack([self._seed, step]), count=self._batch, rows=positions)
        rows = tf.gather(rows, positions)
        pixels, targets = self._to_float(tf.gather(images.pixels, rows)), tf.gather(images.targets, rows)
        pixels = pixels[..., ::-1] if self._bgr else pixels
        pixels = augment_batch(pixels, self._augment, draws)
        pixels = pixels[..., ::-1] if self._bgr else pixels
        if self._weighted:  # before mixup: each part of a blend counts by its own class
            targets *= tf.gather(images.weights, rows)[:, None]
        if mixup:
            pixels, targets = mix(pixels, targets, mixup, draws)
        if self._weighted:
            weights = tf.reduce_sum(targets, axis=1)
            return pixels, targets / weights[:, None], weights
        return pixels, targets


def validation_batches(split: Split, classes: int) -> "tf.data.Dataset":
    """A split in order, without augmentation: (float32 pixels [n, h, w, c] in 0..1, float32 one-hot labels [n,
    classes])."""
    tf = tensorflow()
    pairs = tf.data.Dataset.from_tensor_slices((split.images, tf.one_hot(split.labels, classes)))
    to_float = to_float_in_graph()
    return pairs.batch(256).map(lambda images, labels: (to_float(images), labels))
