"""One network of several: the mean of their weights, which costs a device nothing.

It works for networks that began with the same weights, and then often is better than each (model soups: Wortsman et
al. 2022, arXiv:2203.05482); others have nothing to do with each other, and their mean is chance.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle, write_bundle, write_file
from edgefer.card import Scores
from edgefer.errors import InputError
from edgefer.train.backend import versions
from edgefer.train.datasets import Dataset, Track
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.fit import NORM_BATCHES, batches, steps_per_epoch
from edgefer.train.models import keras_bytes, load_keras
from edgefer.train.objective import measure_statistics
from edgefer.train.recipes import Recipe

if TYPE_CHECKING:
    import tf_keras


def average(members: Sequence[Bundle], dataset: Dataset, out: Path, track: Track) -> dict[str, Scores]:
    """Write the bundle `out` of the members' mean; the scores on "valid" of each member by its name, and of the mean.

    The card is the first member's but for where the network comes from. InputError as `averaged`.
    """
    first, valid = members[0], dataset.split("valid")
    model = averaged(members, dataset)
    names = [member.path.name for member in members]
    networks = {str(member.path): load_keras(member, "keras") for member in members} | {"their mean": model}
    found = {
        name: evaluate(valid, keras_logits(network, valid.images))
        for name, network in track(networks.items(), len(networks), "Measuring")
    }
    steps = (*first.card.provenance.steps, f"average the weights with {', '.join(names[1:])}")
    card = first.card.model_copy(
        update={
            "temperature": 1.0,
            "metrics": {"valid": {"keras": found["their mean"]}},
            "provenance": first.card.provenance.model_copy(update={"steps": steps, "versions": versions()}),
        }
    )
    order = first.path / "training" / "order.json"
    write_bundle(out, card, {"keras": keras_bytes(model)})
    if order.is_file():  # so that convert and evaluate find the data again
        write_file(out / "training" / "order.json", order.read_bytes())
    return found


def averaged(members: Sequence[Bundle], dataset: Dataset) -> "tf_keras.Model":
    """The first bundle's network with the mean of all their weights, and batch norm's statistics measured anew.

    They are measured on training pictures, augmented as the first's recipe says. InputError when the networks differ in
    labels, input or layers.
    """
    first = members[0]
    networks = [load_keras(member, "keras") for member in members]
    shapes = [[weight.shape for weight in network.get_weights()] for network in networks]
    for member, found in zip(members, shapes, strict=True):
        if member.card.labels != first.card.labels or member.card.input != first.card.input or found != shapes[0]:
            raise InputError(
                f"{member.path} and {first.path} differ in labels, input or layers: only networks of one recipe have a mean."
            )
    model = networks[0]
    weights = zip(*(network.get_weights() for network in networks), strict=True)
    model.set_weights([np.mean(parts, axis=0) for parts in weights])
    recipe, split = Recipe.model_validate(first.card.provenance.recipe), dataset.split("train")
    batch, steps = steps_per_epoch(recipe, split)
    stream = batches(recipe, split, len(dataset.labels), batch, steps, first_epoch=0, epochs=1)
    measure_statistics(model, itertools.islice(stream, NORM_BATCHES))
    return model
