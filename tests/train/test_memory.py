"""What a network would take of memory is known before it is taken."""

import tracemalloc

import numpy as np
import pytest

from edgefer.card import InputSpec
from edgefer.errors import InputError
from edgefer.train import memory
from edgefer.train.data import load
from edgefer.train.data.rows import Row, Rows


@pytest.fixture
def network(keras):
    layers = keras.layers
    return keras.Sequential([keras.Input((48, 48, 1)), layers.Conv2D(8, 3, padding="same"), layers.ReLU()])


@pytest.fixture
def keras():
    from edgefer.train.backend import tensorflow

    tensorflow()
    import tf_keras

    return tf_keras


def test_activations_are_counted_at_every_call(keras, network):
    conv = 48 * 48 * 8
    assert memory.activations(iter(network.layers)) == (conv, 2 * conv)
    pixels, shared = keras.Input((48, 48, 1)), keras.layers.ReLU()
    twice = keras.Model(pixels, shared(shared(pixels)))
    assert memory.activations(iter(twice.layers))[1] == 3 * 48 * 48  # the input itself is one


def test_a_batch_that_no_memory_holds_is_refused_with_one_that_fits(network, monkeypatch):
    monkeypatch.setattr(memory, "installed_bytes", lambda: 10_000_000)
    memory.check_training(network, 64)
    with pytest.raises(InputError, match=r"--batch-size 3\d,") as refused:
        memory.check_training(network, 128)
    assert "128 images" in str(refused.value)


def test_a_large_network_gets_smaller_batches(network, monkeypatch):
    assert memory.batch_for(network) == 256
    monkeypatch.setattr(memory, "MAX_BATCH_ACTIVATIONS", 10 * 2 * 48 * 48 * 8)
    assert memory.batch_for(network) == 10


@pytest.mark.parametrize("texts", [("200000000\n", None), (None, "200000000\n"), ("max\n", "200000000\n")])
def test_a_container_s_memory_is_its_limit(tmp_path, monkeypatch, texts):
    """In either version of cgroups; without a limit version 1 has a number that no machine reaches."""
    files = [tmp_path / name for name in ("memory.max", "memory.limit_in_bytes")]
    monkeypatch.setattr(memory, "CGROUPS", files)
    for file, text in zip(files, texts, strict=True):
        if text:
            file.write_text(text)
    assert memory.installed_bytes() == 200_000_000
    files[0].write_text("max\n")
    files[1].write_text("9223372036854771712\n")
    assert memory.installed_bytes() > 200_000_000


def test_there_is_memory_here():
    assert memory.installed_bytes() > 100_000_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A cache for the faces that both of these trainings load."""
    return tmp_path_factory.mktemp("drawn")


@pytest.mark.parametrize("layers", ["C99999999", "C512 C512 C512"])
def test_a_recipe_of_an_absurd_network_is_refused_before_it_is_made(tmp_path, drawn, layers, monkeypatch):
    from edgefer.train.config import TrainConfig
    from edgefer.train.pipeline import train
    from edgefer.train.recipes import load_recipe

    changes = (f"model.layers={layers}", "fit.batch_size=65536", "input.height=128", "input.width=128")
    monkeypatch.setattr("edgefer.train.data.load.PER_CLASS", 40)
    with pytest.raises(InputError, match="GB"):
        train(TrainConfig(recipe=load_recipe("demo", changes), data="builtin"), tmp_path / "run", cache=drawn)
    assert not (tmp_path / "run").exists()


def test_images_are_held_once_while_they_are_read(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (4000, 64, 64), np.uint8)
    stream = (
        Row(id=f"row {number}", split="train" if number % 5 else "valid", label="ab"[number % 2], image=image)
        for number, image in enumerate(images)
    )
    rows = Rows(name="many", classes=lambda found: ("a", "b"), total=1, stream=stream, fingerprint=[])
    monkeypatch.setattr(load, "open_rows", lambda path, options: rows)
    tracemalloc.start()
    dataset = load.load_dataset("many", InputSpec(height=64, width=64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * images.nbytes
    of_valid = np.arange(len(images)) % 5 == 0
    for name, mask in (("train", ~of_valid), ("valid", of_valid)):
        assert np.array_equal(dataset.split(name).images[..., 0], images[mask])
