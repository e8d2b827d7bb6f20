"""Measures the input pipeline against Keras's ImageDataGenerator: `python tests/measure_input.py`. Not a test: it takes
a few minutes and prints a table.

The same pictures, the same changes (rotation, shifts, zoom, flip, brightness) and the same network for both, by turns in
one process. On a busy machine the images a second of processor time say more than those a second of the clock.
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
WARM = 4  # steps before the clock starts: tracing, and buffers that fill
Feed = Callable[[int], Iterable]  # how many batches -> them


def feeds(recipe: Recipe, split: Split) -> dict[str, Feed]:
    import tf_keras

    batch, augment = recipe.fit.batch_size, recipe.augment

    def edgefer(changes: Augment) -> Feed:
        changed = recipe.model_copy(update={"augment": changes})
        # More epochs than are read: a stream that ends would be measured with its buffers running empty.
        return lambda steps: batches(changed, split, CLASSES, EpochSize(batch, steps), first_epoch=0, epochs=1000)

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


def bare(feed: Feed, steps: int) -> tuple[float, float]:
    """Clock and processor seconds of `steps` batches."""
    source = iter(feed(WARM + steps))
    for _ in itertools.islice(source, WARM):
        pass
    began, busy = time.perf_counter(), time.process_time()
    count = sum(1 for _ in itertools.islice(source, steps))
    assert count == steps
    return time.perf_counter() - began, time.process_time() - busy


def fed(model, feed: Feed, steps: int) -> tuple[float, float]:
    """The same while the network learns from them."""
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
    asked = parser.parse_args()
    tensorflow()
    recipe = load_recipe(asked.recipe)
    rng, count = np.random.default_rng(0), (WARM + 2 * asked.steps) * recipe.fit.batch_size
    shape = recipe.input.shape
    split = Split(
        images=rng.integers(0, 256, (count, *shape), np.uint8),
        labels=rng.integers(0, CLASSES, count),
        ids=np.arange(count).astype(str),
    )
    model = build(recipe.model, recipe.input, CLASSES)
    model.compile(make_optimizer(recipe, asked.steps), make_loss(recipe, split, CLASSES), metrics=["accuracy"])

    sources = feeds(recipe, split)
    still = next(iter(sources["edgefer, all of the recipe's"](1)))
    ways = {("alone", name): lambda steps, feed=feed: bare(feed, 2 * steps) for name, feed in sources.items()}
    sources["the same batch again and again"] = lambda steps: (
        tensorflow().data.Dataset.from_tensors(still).repeat(steps)
    )
    ways |= {(recipe.name, name): lambda steps, feed=feed: fed(model, feed, steps) for name, feed in sources.items()}
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(asked.rounds):
        for way, run in ways.items():
            taken[way].append(run(asked.steps))

    print(
        f"{recipe.fit.batch_size} pictures of {shape} a batch, {asked.rounds} rounds of {asked.steps} batches (alone: twice that), medians"
    )
    print("| network | fed by | images/s | images per processor second |")
    print("|---|---|---|---|")
    for (network, name), seconds in taken.items():
        clock, busy = (statistics.median(part) for part in zip(*seconds, strict=True))
        pictures = recipe.fit.batch_size * asked.steps * (2 if network == "alone" else 1)
        print(f"| {network} | {name} | {pictures / clock:,.0f} | {pictures / busy:,.0f} |")


if __name__ == "__main__":
    main()
