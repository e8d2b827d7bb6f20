"""Magnitude pruning by tensorflow-model-optimization, with a short fine-tune (Zhu & Gupta 2017, arXiv:1710.01878).

It makes the file compress better. It does not make int8 inference faster: no int8 kernel skips zeros.
"""

from typing import TYPE_CHECKING

from edgefer.errors import MissingDependency
from edgefer.train.backend import tensorflow
from edgefer.train.datasets import Dataset
from edgefer.train.fit import Watcher, batches
from edgefer.train.recipes import Recipe

if TYPE_CHECKING:
    import tf_keras


def prune(
    model: "tf_keras.Model", recipe: Recipe, dataset: Dataset, *, sparsity: float, epochs: int, watcher: Watcher
) -> "tf_keras.Model":
    """The network with `sparsity` (0..1) of each convolution's and hidden dense layer's weights at zero.

    Sparsity rises over the first half of `epochs` on the training split and is held for the second half, at a tenth
    of the recipe's learning rate. `model` is changed in place and must not be used afterwards.
    """
    tensorflow()
    import tf_keras

    try:
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        raise MissingDependency(
            f"Pruning needs tensorflow-model-optimization ({error}): pip install 'edgefer[train]'."
        ) from None
    train = dataset.split("train")
    batch = min(recipe.fit.batch_size, len(train))
    steps = len(train) // batch
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=min(0.2, sparsity),
        final_sparsity=sparsity,
        begin_step=0,
        end_step=max(1, steps * epochs // 2),
        frequency=max(1, steps // 20),
    )

    def wrap(layer):  # returns the layer itself, bare or wrapped, so the weights stay the model's own
        if isinstance(layer, tf_keras.layers.Conv2D | tf_keras.layers.Dense) and layer.name != "logits":
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    wrapped = tf_keras.models.clone_model(model, clone_function=wrap)
    rate = recipe.optimizer.rate / 10
    decay = tf_keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    kind = tf_keras.optimizers.SGD if recipe.optimizer.name == "sgd" else tf_keras.optimizers.Adam
    extra = {"momentum": recipe.optimizer.momentum, "nesterov": True} if recipe.optimizer.name == "sgd" else {}
    loss = tf_keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.fit.label_smoothing)
    wrapped.compile(kind(decay, **extra), loss, metrics=["accuracy"])

    class Report(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            watcher.step(logs["loss"], logs["accuracy"])

    watcher.begin(0, epochs, steps)
    try:
        wrapped.fit(
            batches(recipe, train, len(dataset.labels), batch, steps, first_epoch=0, epochs=epochs),
            steps_per_epoch=steps,
            epochs=epochs,
            verbose=0,
            callbacks=[tfmot.sparsity.keras.UpdatePruningStep(), Report()],
        )
    finally:
        watcher.end()
    return tfmot.sparsity.keras.strip_pruning(wrapped)


def measured_sparsity(model: "tf_keras.Model") -> float:
    """The share of zeros among the kernels of convolutions and dense layers, without the logits."""
    kernels = [w.numpy() for w in model.trainable_weights if "kernel" in w.name and not w.name.startswith("logits")]
    return float(sum((kernel == 0).sum() for kernel in kernels) / sum(kernel.size for kernel in kernels))
