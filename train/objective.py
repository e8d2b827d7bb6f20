"""What a fit minimizes and how: loss, answers to class imbalance, optimizer, schedule and averaged weights."""

import numpy as np

from edgefer.preprocess import to_float
from edgefer.train.data.dataset import Further, Split
from edgefer.train.recipe_fields import Recipe

CLEAN_PICTURES = 16_384


def make_optimizer(recipe: Recipe, steps: int):
    """The tf_keras optimizer of a recipe, its schedule included; `steps` is batches an epoch.

    A plateau schedule starts at the full rate: the fit lowers it.
    """
    from tf_keras import optimizers

    schedule, rate = recipe.schedule, recipe.optimizer.rate
    if schedule.name == "cosine":
        warmup = round(schedule.warmup_epochs * steps)
        rate = optimizers.schedules.CosineDecay(
            rate / 10 if warmup else rate,
            max(1, recipe.fit.epochs * steps - warmup),
            alpha=schedule.final_rate / recipe.optimizer.rate,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    elif schedule.name in ("exponential", "step"):
        rate = optimizers.schedules.ExponentialDecay(
            rate, round(schedule.every_epochs * steps), schedule.factor, staircase=schedule.name == "step"
        )
    decay = recipe.optimizer.weight_decay or None
    average = {"use_ema": True, "ema_momentum": recipe.fit.ema} if recipe.fit.ema else {}
    if recipe.optimizer.name == "sgd":
        momentum = recipe.optimizer.momentum
        optimizer = optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0, weight_decay=decay, **average)
    else:
        # adamw too: tf_keras decouples Adam's decay as AdamW's, which refuses to go without one.
        optimizer = optimizers.Adam(rate, weight_decay=decay, **average)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def make_loss(recipe: Recipe, split: Split, classes: int, further: Further | None = None):
    """Cross-entropy of logits, with the recipe's label smoothing.

    Under logit adjustment (Menon et al. 2021, arXiv:2007.07314) each logit is raised by `fit.adjustment` times its class's
    log share while training, so that with 1 the network itself answers as if all classes were equally frequent.
    """
    from tf_keras import losses

    smoothing = recipe.fit.label_smoothing
    if recipe.fit.balance != "logit-adjustment":
        return losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    prior = class_shares(split, classes)
    if further:
        others = np.bincount(further.split.labels, minlength=classes) / len(further.split)
        prior = (1 - further.share) * prior + further.share * others
    prior = (recipe.fit.adjustment * np.log(prior)).astype(np.float32)

    def adjusted(targets, logits):
        return losses.categorical_crossentropy(targets, logits + prior, from_logits=True, label_smoothing=smoothing)

    return adjusted


def class_shares(split: Split, classes: int) -> np.ndarray:
    """The share of each class in the split, float64 [classes], summing to 1; none is 0."""
    counts = np.maximum(1, np.bincount(split.labels, minlength=classes))
    return counts / counts.sum()


def take_average(model, batches) -> None:
    """Give a model its optimizer's averaged weights, and batch norm the statistics that belong to them."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    measure_statistics(model, batches)


def take_clean_statistics(model, recipe: Recipe, split: Split) -> None:
    """Where the recipe wants it, give batch norm the statistics of the split's images as they are, not augmented."""
    if recipe.fit.clean_statistics:
        rows = np.random.default_rng(recipe.fit.seed).permutation(len(split))[:CLEAN_PICTURES]
        parts = np.array_split(rows, -(-len(rows) // 256))
        measure_statistics(model, ((to_float(split.images[part]),) for part in parts))


def measure_statistics(model, batches) -> None:
    """Measure batch norm's statistics again, as the mean over batches (Izmailov et al. 2018, arXiv:1803.05407).

    batches: of (pixels, ...). Under a tf.distribute strategy each is divided among its replicas. Frozen layers keep theirs.
    """
    import tensorflow as tf
    from tf_keras.layers import BatchNormalization

    strategy = tf.distribute.get_strategy()
    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization) and layer.trainable]
    if not norms:  # as after quantization-aware training, whose ranges another look would move
        return
    momenta = [norm.momentum for norm in norms]
    for count, (pixels, *_) in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 - 1 / count  # a plain mean over the batches
        strategy.run(model, (pixels,), {"training": True})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
