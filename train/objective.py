"""Loss, class imbalance, optimizer, learning-rate schedule, dropout, averaged weights and batch-norm statistics."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgefer.preprocess import to_float
from edgefer.train.data.dataset import ExtraImages, Split
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tensorflow as tf

CLEAN_IMAGES = 16_384  # training images that batch-norm statistics are estimated on


def make_optimizer(recipe: Recipe, steps: int):
    """The recipe's tf_keras optimizer with its learning-rate schedule. steps: batches per epoch.

    A plateau schedule is a constant rate here: the fit lowers it.
    """
    from tf_keras import optimizers

    schedule, rate = recipe.schedule, recipe.optimizer.rate
    if schedule.name == "cosine":
        warmup = round(schedule.warmup_epochs * steps)
        rate = optimizers.schedules.CosineDecay(
            rate / 10 if warmup else rate,
            max(1, recipe.fit.epochs * steps - warmup),
            alpha=recipe.final_rate / recipe.optimizer.rate,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    elif schedule.name in ("exponential", "step"):
        rate = optimizers.schedules.ExponentialDecay(
            rate, max(1, round(schedule.every_epochs * steps)), schedule.factor, staircase=schedule.name == "step"
        )
    decay = recipe.optimizer.weight_decay or None
    ema = {"use_ema": True, "ema_momentum": recipe.fit.ema} if recipe.fit.ema else {}
    if recipe.optimizer.name == "sgd":
        momentum = recipe.optimizer.momentum
        optimizer = optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0, weight_decay=decay, **ema)
    else:
        # For adamw too: tf_keras's Adam decouples weight decay as its AdamW does, which requires one.
        optimizer = optimizers.Adam(rate, weight_decay=decay, **ema)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def make_loss(recipe: Recipe, split: Split, classes: int, extra: ExtraImages | None = None):
    """Cross-entropy on logits, with the recipe's label smoothing and logit adjustment: (targets [n, classes], logits [n,
    classes]) -> [n] or scalar."""
    from tf_keras import losses

    smoothing = recipe.fit.label_smoothing
    if recipe.fit.balance != "logit-adjustment":
        return losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    offset = logit_adjustment(recipe, split, classes, extra)

    def adjusted(targets, logits):
        return losses.categorical_crossentropy(targets, logits + offset, from_logits=True, label_smoothing=smoothing)

    return adjusted


def logit_adjustment(recipe: Recipe, split: Split, classes: int, extra: ExtraImages | None = None) -> np.ndarray:
    """What is added to each class's logit in training only: float32 [classes], zeros without logit adjustment.

    It is `fit.adjustment` times the log prior of the class (Menon et al. 2021, arXiv:2007.07314), so that with 1 the
    network predicts as if all classes were equally frequent.
    """
    if recipe.fit.balance != "logit-adjustment":
        return np.zeros(classes, np.float32)
    prior = class_prior(split, classes)
    if extra:
        extra_prior = np.bincount(extra.split.labels, minlength=classes) / len(extra.split)
        prior = (1 - extra.share) * prior + extra.share * extra_prior
    return (recipe.fit.adjustment * np.log(prior)).astype(np.float32)


def class_prior(split: Split, classes: int) -> np.ndarray:
    """The frequency of each class in the split, float64 [classes], summing to 1; none is 0."""
    counts = np.maximum(1, np.bincount(split.labels, minlength=classes))
    return counts / counts.sum()


def create_variables(model, targets: "tf.Tensor") -> None:
    """Create the variables of a compiled model's optimizer and metrics. targets: of one image, as the loss takes them.

    Where the first training step creates some, TensorFlow traces it twice.
    """
    model.optimizer.build(model.trainable_variables)
    model.compiled_loss.build(targets)
    model.compiled_metrics.build(targets, targets)


def make_dropout_resumable(model, seed: int) -> None:
    """Make each dropout mask of a compiled model a function of seed, step, layer and replica.

    Keras draws masks from a state that no checkpoint has: a resumed training would draw those of its first epochs again.
    """
    import tensorflow as tf
    from tf_keras.layers import Dropout

    fold_in = tf.random.experimental.stateless_fold_in

    def mask(number: int, inputs, rate: float, noise_shape=None):
        step = fold_in(tf.stack([tf.constant(seed, tf.int64), model.optimizer.iterations]), number)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.nn.experimental.stateless_dropout(inputs, rate, fold_in(step, replica), noise_shape=noise_shape)

    dropouts = (one for one in model.submodules if isinstance(one, Dropout))
    for number, layer in enumerate(dropouts):
        layer._random_generator.dropout = partial(mask, number)


def apply_ema(model, batches) -> None:
    """Replace a model's weights by their moving averages, and estimate batch-norm statistics for them on `batches`."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    estimate_batch_norm(model, batches)


def apply_clean_statistics(model, recipe: Recipe, split: Split) -> None:
    """Estimate batch-norm statistics on training images without augmentation, where the recipe has
    fit.clean_statistics."""
    if recipe.fit.clean_statistics:
        rows = np.random.default_rng(recipe.fit.seed).permutation(len(split))[:CLEAN_IMAGES]
        chunks = np.array_split(rows, -(-len(rows) // 256))
        estimate_batch_norm(model, ((to_float(split.images[chunk]),) for chunk in chunks))


def estimate_batch_norm(model, batches) -> None:
    """Set batch-norm statistics to their mean over `batches` (Izmailov et al. 2018, arXiv:1803.05407).

    batches: tuples of (pixels, ...), under a tf.distribute strategy already distributed. Frozen layers keep their
    statistics.
    """
    import tensorflow as tf
    from tf_keras.layers import BatchNormalization

    strategy = tf.distribute.get_strategy()
    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization) and layer.trainable]
    if not norms:  # after quantization-aware training a call in training mode would only move the ranges
        return
    momenta = [norm.momentum for norm in norms]
    for count, (pixels, *_) in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 - 1 / count  # makes the moving average the mean
        strategy.run(model, (pixels,), {"training": True})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
