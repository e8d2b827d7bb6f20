"""Reads Keras networks from untrusted files.

A Keras file can name any Python class, contain bytecode (Lambda) or TensorFlow operators that write files (TFOpLambda),
and declare layers of any size, and Keras acts on all of it while loading. So Keras never loads the file: its
architecture is read as data, rebuilt from an allowlist of layers with plain settings, and the stored arrays are
assigned to it.
"""

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.errors import InputError
from edgefer.files import read_member
from edgefer.npz import check_end
from edgefer.train.backend import tensorflow
from edgefer.train.keras_build import Built, build, connect, first_line
from edgefer.train.keras_layers import Architecture

if TYPE_CHECKING:
    import h5py
    import tf_keras

MAX_CONFIG_BYTES = 16 << 20
MAX_WEIGHT_BYTES = 1 << 30


@dataclass(frozen=True)
class KerasFile:
    """The parts of a Keras file: its architecture, parsed from JSON, and its weights as an HDF5 file."""

    config: dict
    weights: bytes
    generation: int  # 1: HDF5 with the architecture inside (.h5), 2: .keras of Keras 2, 3: .keras of Keras 3
    keras_3: bool  # written by Keras 3, in either form


def read_keras(content: bytes, where: str) -> "tf_keras.Model":
    """The network in a Keras file (.keras of Keras 2 or 3, or .h5), rebuilt without running anything in it.

    where: the file's name in messages. InputError names the first thing that is not on the allowlist.
    """
    return _flat(*read_layers(content, where))


def read_layers(content: bytes, where: str) -> tuple[Built, dict]:
    """The same as layers with their weights, and the architecture that connects them
    (edgefer.train.keras_build.connect)."""
    tensorflow()
    file = open_keras(content, where)
    architecture = Architecture(where, file.keras_3).network(file.config)
    with open_weights(file.weights, where) as weights:
        stored = sum(dataset.size for dataset in _datasets(weights))
        built = build(architecture, stored, where)
        try:
            _fill(built, weights, file.generation)
        except (ValueError, KeyError, TypeError, OSError, IndexError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{where}: its weights do not fit its layers ({first_line(error)}): save it again."
            ) from None
    if not all(np.isfinite(array).all() for array in built.layer.get_weights()):
        raise InputError(f"{where} holds weights that are not numbers (NaN or infinite): train it again.")
    return built, architecture


def _flat(built: Built, architecture: dict) -> "tf_keras.Model":
    """The network with nested networks flattened: pruning and quantization take no others."""
    import tf_keras

    network = built.layer
    if not any(part.parts for part in built.parts):
        return network
    pixels = [
        tf_keras.Input(one.shape[1:], name=f"pixels_{number}" if number else "pixels")
        for number, one in enumerate(network.inputs)
    ]
    outputs = connect(built, architecture, pixels)
    return tf_keras.Model(
        pixels if len(pixels) > 1 else pixels[0], outputs if len(outputs) > 1 else outputs[0], name=network.name
    )


def open_keras(content: bytes, where: str) -> KerasFile:
    """The parts of a Keras file. InputError for anything else, and for parts that are too large."""
    if content.startswith(b"\x89HDF\r\n\x1a\n"):
        return _open_hdf5(content, where)
    try:
        check_end(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = _member(archive, "config.json", MAX_CONFIG_BYTES, where)
            metadata = json.loads(_member(archive, "metadata.json", MAX_CONFIG_BYTES, where))
            weights = _member(archive, "model.weights.h5", MAX_WEIGHT_BYTES, where)
        parsed = json.loads(config)
        version = str(metadata["keras_version"])
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        OSError,
    ) as error:
        raise InputError(f"{where} is not a Keras file ({first_line(error)}): name a .keras or .h5 file.") from None
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or an unknown compression
        raise InputError(f"{where} cannot be unpacked ({first_line(error)}).") from None
    keras_3 = version.startswith("3.")
    return KerasFile(parsed, weights, 3 if keras_3 else 2, keras_3)


def _member(archive: zipfile.ZipFile, name: str, limit: int, where: str) -> bytes:
    try:
        return read_member(archive, name, limit)
    except ValueError as error:
        raise InputError(f"{where}: {name} {error}.") from None


def _open_hdf5(content: bytes, where: str) -> KerasFile:
    if len(content) > MAX_WEIGHT_BYTES:
        raise InputError(f"{where} has {len(content):,} bytes, more than {MAX_WEIGHT_BYTES:,}.")
    with open_weights(content, where) as file:
        try:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{where}: its architecture cannot be read ({first_line(error)}).") from None
        if config is None:
            raise InputError(
                f"{where} holds weights without an architecture (save_weights): save the whole network with model.save()."
            )
        if not isinstance(config, str | bytes):
            raise InputError(f"{where}: its architecture cannot be read (it is not text).")
        if len(config) > MAX_CONFIG_BYTES:
            raise InputError(f"{where}: its architecture has {len(config):,} bytes, more than {MAX_CONFIG_BYTES:,}.")
        try:
            parsed = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: its architecture cannot be read ({first_line(error)}).") from None
    return KerasFile(parsed, content, 1, re.match(r"(b')?3\.", str(version)) is not None)


@contextmanager
def open_weights(content: bytes, where: str) -> "Iterator[h5py.File]":
    """An HDF5 file in memory. InputError where it refers to other files, or is too large."""
    import h5py

    # As a file image: h5py crashes on Python file objects that are left open.
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(content)
    try:
        file = h5py.File(h5py.h5f.open(b"weights", h5py.h5f.ACC_RDONLY, fapl=access))
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{where}: its weights cannot be read ({first_line(error)}).") from None
    with file:
        try:
            _check_weights(file, len(content), where)
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{where}: its weights cannot be read ({first_line(error)}).") from None
        yield file


def _check_weights(file: "h5py.File", size: int, where: str) -> None:
    import h5py

    total = 0
    for group, name in _links(file):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{where}: {name!r} is a link to something else (a {type(link).__name__}): refused.")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise InputError(f"{where}: {name!r} stores its numbers in another file: refused.")
            if item.dtype.kind not in "fiu" or item.dtype.itemsize > 8:
                raise InputError(f"{where}: {name!r} holds {item.dtype}, not numbers: refused.")
            total += item.size * item.dtype.itemsize
    if total > min(MAX_WEIGHT_BYTES, 32 * size + (1 << 20)):
        raise InputError(f"{where} claims {total:,} bytes of weights in {size:,}: refused.")


def _links(group: "h5py.Group", limit: int = 100_000) -> "Iterator[tuple[h5py.Group, str]]":
    """(group, name) of every link; each group is visited once, since groups may contain themselves."""
    import h5py

    visited, pending = {hash(group.id)}, [group]
    while pending:
        current = pending.pop()
        for name in current:
            limit -= 1
            if limit < 0:
                raise ValueError("more than 100,000 objects")
            yield current, name
            item = current[name]
            if isinstance(item, h5py.Group) and (key := hash(item.id)) not in visited:
                visited.add(key)
                pending.append(item)


def every_item(group: "h5py.Group") -> "Iterator[h5py.Group | h5py.Dataset]":
    """The groups and datasets of a checked file; one with several names as often."""
    return (parent[name] for parent, name in _links(group))


def _datasets(group: "h5py.Group") -> "Iterator[h5py.Dataset]":
    import h5py

    return (item for item in every_item(group) if isinstance(item, h5py.Dataset))


def _fill(built: Built, weights: "h5py.File", generation: int) -> None:
    """Assign the file's arrays to a network. ValueError or KeyError where they do not fit."""
    if generation == 1:
        from tf_keras.src.saving.legacy import hdf5_format

        group = weights.get("model_weights", weights)
        hdf5_format.load_weights_from_hdf5_group(group, built.layer)
    else:
        _fill_parts(built.parts, weights)


def _fill_parts(parts: "tuple[Built, ...]", group: "h5py.Group") -> None:
    """Assign the arrays of a .keras file."""
    layers = next((group[name] for name in ("_layer_checkpoint_dependencies", "layers") if name in group), None)
    if layers is None:
        raise KeyError("no layers in its weights")
    for part, name in zip(parts, _group_names(parts, layers), strict=True):
        if part.parts:
            _fill_parts(part.parts, layers[name])
        elif part.layer.weights:
            _assign(part.layer, layers[name])


def _group_names(parts: "tuple[Built, ...]", layers: "h5py.Group") -> list[str]:
    """The group of each layer's arrays.

    Keras numbers groups by class (dense, dense_1), and these may be the names of other layers: the first Dense may be
    called dense_1. Keras 3 also stores each layer's own name.
    """
    numbered, used = [], Counter[str]()
    for part in parts:
        kind = _snake_case(part.kind)
        numbered.append(f"{kind}_{used[kind]}" if used[kind] else kind)
        used[kind] += 1
    stored = {}
    for name in layers:
        own = layers[name]["vars"].attrs.get("name") if "vars" in layers[name] else None
        if isinstance(own, str):
            stored[own] = name
    names = [part.layer.name for part in parts]
    needed = [number for number, part in enumerate(parts) if part.layer.weights]
    if all(names[number] in stored for number in needed):
        return [stored.get(name, "") for name in names]
    return numbered if all(numbered[number] in layers for number in needed) else names


def _assign(layer: Any, group: "h5py.Group") -> None:
    stored = group.get("vars", {})
    arrays = [stored[key][()] for key in sorted(stored, key=int)]
    shapes, expected = [array.shape for array in arrays], [tuple(weight.shape) for weight in layer.weights]
    if shapes != expected:
        raise ValueError(f"{layer.name} has {shapes} where {expected} belong")
    layer.set_weights(arrays)


def _snake_case(name: str) -> str:
    """A class name as Keras converts it.

    >>> _snake_case("BatchNormalization"), _snake_case("ReLU")
    ('batch_normalization', 're_lu')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
