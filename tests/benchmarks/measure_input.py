"""Measures the input pipeline against Keras's ImageDataGenerator: `python tests/benchmarks/measure_input.py`. Not
a test: it takes a few minutes and prints a table.

The same images, the same changes (rotation, shifts, zoom, flip, brightness) and the same network for both, alternating in
one process. On a busy machine, images per second of CPU time are more reliable than images per second of wall-clock time.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np

from edgefer.train.backend import tensorflow
from edgefer.train.batches import EpochSize, batches
from edgefer.train.data.dataset import Split
from edgefer.train.networks import build
from edgefer.train.objective import make_loss, make_optimizer
from edgefer.train.recipe_fields import Augment, Recipe
from edgefer.train.recipes import load_recipe

CLASSES = 7
WARM = 4  # steps before the measurement: tracing, and filling of buffers
Feed = Callable[[int], Iterable]  # number of batches -> the batches


def feeds(recipe: Recipe, split: Split) -> dict[str, Feed]:
    import tf_keras

    batch, augment = recipe.fit.batch_size, recipe.augment

    def edgefer(changes: Augment) -> Feed:
        changed = recipe.model_copy(update={"augment": changes})
        # More epochs than are read, since the buffers of a stream run empty at its end.
        return lambda steps: batches(changed, split, CLASSES, EpochSize(batch, steps), epochs=range(1000))

    def keras(steps: int):
        generator = tf_keras.preprocessing.image.ImageDataGenerator(
            rotation_range=augment.rotate_deg,
            width_shift_range=augment.shift,
            height_shift_range=augment.shift,
            zoom_range=augment.zoom,
            horizontal_flip=augment.flip,
            brightness_range=(1 - augment.brightness, 1 + augment.brightness),
            rescale=1 / 255,
        )
        return generator.flow(split.images, split.soft_labels(CLASSES), batch_size=batch, seed=0)

    named = {name: getattr(augment, name) for name in ("flip", "rotate_deg", "zoom", "shift", "brightness")}
    return {
        "ImageDataGenerator": keras,
        "edgefer, the same changes": edgefer(Augment(**named)),
        "edgefer, all of the recipe's": edgefer(augment),
    }


def time_alone(feed: Feed, steps: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds of `steps` batches."""
    source = iter(feed(WARM + steps))
    for _ in itertools.islice(source, WARM):
        pass
    began, busy = time.perf_counter(), time.process_time()
    count = sum(1 for _ in itertools.islice(source, steps))
    assert count == steps
    return time.perf_counter() - began, time.process_time() - busy


def time_training(model, feed: Feed, steps: int) -> tuple[float, float]:
    """The same while the network is trained on them."""
    import tf_keras

    marks = []

    class Clock(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            marks.append((time.perf_counter(), time.process_time()))

    model.fit(feed(WARM + steps), steps_per_epoch=WARM + steps, verbose=0, callbacks=[Clock()])
    return marks[-1][0] - marks[WARM - 1][0], marks[-1][1] - marks[WARM - 1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--recipe", default="fer-small")
    parser.add_argument("--steps", type=int, default=16, help="batches in each of the rounds")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tensorflow()
    recipe = load_recipe(args.recipe)
    rng, count = np.random.default_rng(0), (WARM + 2 * args.steps) * recipe.fit.batch_size
    shape = recipe.input.shape
    split = Split(
        images=rng.integers(0, 256, (count, *shape), np.uint8),
        labels=rng.integers(0, CLASSES, count),
        ids=np.arange(count).astype(str),
    )
    model = build(recipe.model, recipe.input, CLASSES)
    model.compile(make_optimizer(recipe, args.steps), make_loss(recipe, split, CLASSES), metrics=["accuracy"])

    sources = feeds(recipe, split)
    batch = next(iter(sources["edgefer, all of the recipe's"](1)))
    measurements = {
        ("alone", name): lambda steps, feed=feed: time_alone(feed, 2 * steps) for name, feed in sources.items()
    }
    sources["the same batch again and again"] = lambda steps: (
        tensorflow().data.Dataset.from_tensors(batch).repeat(steps)
    )
    measurements |= {
        (recipe.name, name): lambda steps, feed=feed: time_training(model, feed, steps)
        for name, feed in sources.items()
    }
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in measurements}
    for _ in range(args.rounds):
        for key, run in measurements.items():
            times[key].append(run(args.steps))

    print(
        f"{recipe.fit.batch_size} pictures of {shape} a batch, {args.rounds} rounds of {args.steps} batches (alone: twice that), medians"
    )
    print("| network | fed by | images/s | images per processor second |")
    print("|---|---|---|---|")
    for (network, name), seconds in times.items():
        clock, busy = (statistics.median(part) for part in zip(*seconds, strict=True))
        images = recipe.fit.batch_size * args.steps * (2 if network == "alone" else 1)
        print(f"| {network} | {name} | {images / clock:,.0f} | {images / busy:,.0f} |")


if __name__ == "__main__":
    main()
