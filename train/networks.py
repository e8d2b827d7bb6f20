"""The networks, built from a recipe's [model] section, and their .keras files. All take pixels / 255 and return logits."""

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.errors import BundleError, EdgeferError, InputError, RecipeError
from edgefer.quiet import quiet
from edgefer.train import older
from edgefer.train.backbones import mobilenet_v2
from edgefer.train.backend import batch_norm
from edgefer.train.data.dataset import Dataset
from edgefer.train.keras_file import read_keras
from edgefer.train.recipe_fields import LAYER, Model, Recipe

if TYPE_CHECKING:
    import tf_keras

LOGITS = "logits"  # the name of the last layer of every network that is built here


def build(model: Model, spec: InputSpec, classes: int, statistics: older.Statistics | None = None) -> "tf_keras.Model":
    """The untrained network: float32 [n, height, width, channels] in 0..1 -> float32 logits [n, classes].

    statistics: `older.pixel_statistics` of the training split, for a recipe with zscore.
    """
    import tf_keras

    if model.family == "imported":
        raise RecipeError(
            "A network that was imported cannot be trained from nothing: begin a recipe of its own with it."
        )
    x = pixels = tf_keras.Input(spec.shape, name="pixels")
    if model.zscore:
        x = older.zscore(model, x, statistics)
    families = {
        "plain": _plain,
        "four-block": older.four_block,
        "cnn-mlp": older.cnn_mlp,
        "keras-applications": _keras_applications,
    }
    try:
        features = families[model.family](model, x)
    except ValueError:
        raise RecipeError(
            f"The layers of this {model.family} network shrink images of {spec.width}x{spec.height} pixels to nothing: set a "
            "larger input.width and input.height."
        ) from None
    # float32 even under mixed precision: a bfloat16 logit has three significant digits.
    logits = tf_keras.layers.Dense(classes, dtype="float32", name=LOGITS)(features)
    network = tf_keras.Model(pixels, logits, name=model.family.replace("-", "_"))
    if model.freeze:
        pooled = [isinstance(layer, tf_keras.layers.GlobalAveragePooling2D) for layer in network.layers]
        for layer in network.layers[: pooled.index(True) if any(pooled) else -1]:
            layer.trainable = False
    return network


def build_for(recipe: Recipe, dataset: Dataset, *, pretrained: bool = True) -> "tf_keras.Model":
    """The recipe's untrained network for the data set's labels, with the statistics of its training split if it wants them.

    pretrained: with the backbone's weights; False where others are loaded next, so that their file need not be there.
    """
    statistics = older.pixel_statistics(dataset.split("train").images) if recipe.model.zscore else None
    model = recipe.model if pretrained else recipe.model.model_copy(update={"weights": ""})
    return build(model, recipe.input, len(dataset.labels), statistics)


def _plain(model: Model, pixels):
    """A straight line of 3x3 Conv-BN-ReLU with a few residual blocks: every operator is int8-native in XNNPACK and on
    the Edge TPU, and batch norm folds into the convolution."""
    from tf_keras import layers

    # momentum 0.9, as in most published recipes: Keras's 0.99 leaves the statistics far behind on small data sets,
    # where an epoch has few steps, and validation then sees another network than training does.
    def conv(x, filters, stride=1, relu=True, padding="same"):
        x = layers.Conv2D(filters, 3, strides=stride, padding=padding, use_bias=False)(x)
        x = batch_norm(momentum=0.9)(x)
        return layers.ReLU()(x) if relu else x

    x = pixels
    for number, word in enumerate(model.layers.split()):
        match = LAYER.fullmatch(word)
        assert match  # the recipe has been validated
        filters, stride, residual = match.groups()
        if residual:
            # layers.Add, not "+": tfmot quantizes only named layers.
            branch = conv(conv(x, int(residual)), int(residual), relu=False)
            x = layers.ReLU()(layers.Add()([x, branch]))
        else:
            x = conv(x, int(filters), stride=2 if stride else 1, padding=older.first_padding(model, number == 0))
    x = layers.GlobalAveragePooling2D()(x)
    if model.freeze:  # features that were not learned here are small and uneven, which weight decay would punish
        x = batch_norm(momentum=0.9, center=False, scale=False)(x)
    return layers.Dropout(model.dropout)(x) if model.dropout else x


def _keras_applications(model: Model, pixels):
    from tf_keras import layers

    x = mobilenet_v2(model, pixels)
    return layers.Dropout(model.dropout)(x) if model.dropout else x


def load_keras(bundle: Bundle, variant: str) -> "tf_keras.Model":
    """The bundle's "keras" or "tuned" network as a tf_keras model, rebuilt from a closed list of layers.

    Raises BundleError for a file that holds anything else: see edgefer.train.keras_file.
    """
    where = str(bundle.file(variant))
    content = bundle.read(variant)
    if not content.startswith(b"PK"):
        raise BundleError(
            f"{where} is not a .keras file: a bundle holds no other kind. Take one in with `edgefer import FILE`."
        )
    try:
        return read_keras(content, where)
    except InputError as error:
        raise BundleError(str(error)) from None


def initialize(model: "tf_keras.Model", labels: tuple[str, ...], source: Bundle) -> int:
    """Give a network of `labels` the weights of the bundle's, from the first layer on while their shapes agree.

    A residual block that the bundle's network lacks begins as identity, so that a larger network begins where the smaller
    one ended (Chen et al. 2016, arXiv:1511.05641).
    A kernel for gray images serves RGB ones spread over the channels by the weights that make gray of them (ITU-R
    BT.601). The logits' columns are matched by label; those of labels that the bundle does not know stay as they are.
    Returns how many layers got weights; InputError when not even the first agrees, or one that is frozen does not.
    """
    donor = load_keras(source, "keras")
    layers, count = _weighted(model), 0
    for given in _weighted(donor):
        weights = given.get_weights()
        while count and _is_block(layers[count : count + 4]) and not _fits(layers[count], given, weights):
            _make_identity(layers[count : count + 4])
            count += 4
        if count == len(layers):
            break
        layer, own = layers[count], layers[count].get_weights()
        if not count and weights[0].shape[2:3] == (1,) and own[0].shape[2:3] == (3,):
            weights[0] = weights[0] * np.array([0.299, 0.587, 0.114], np.float32)[None, None, :, None]
        if layer.name == given.name == LOGITS and weights[0].shape[0] == own[0].shape[0]:
            for index, label in enumerate(labels):
                if label in source.card.labels:
                    column = source.card.labels.index(label)
                    own[0][:, index], own[1][index] = weights[0][:, column], weights[1][column]
            weights = own
        if not _fits(layer, given, weights):
            break
        layer.set_weights(weights)
        count += 1
    if not count:
        raise InputError(f"{source.path} does not begin like this recipe's network: nothing of it can be taken over.")
    if frozen := [layer.name for layer in _weighted(model)[count:] if not layer.trainable]:
        raise InputError(
            f"{source.path} fits only the first {count} layers of this recipe's network, and {frozen[0]} would stay frozen with "
            "random weights: begin with a network of the same layers, or --set model.freeze=false."
        )
    return count


def _fits(layer, given, weights: list[np.ndarray]) -> bool:
    return type(layer) is type(given) and [w.shape for w in layer.get_weights()] == [w.shape for w in weights]


def _is_block(layers: list) -> bool:
    """Whether these are the weighted layers of one residual block: two convolutions, the second norm being added."""
    import tf_keras

    kinds = [tf_keras.layers.Conv2D, tf_keras.layers.BatchNormalization] * 2
    if [type(layer) for layer in layers] != kinds:
        return False
    return [type(node.outbound_layer) for node in layers[-1].outbound_nodes] == [tf_keras.layers.Add]


def _make_identity(block: list) -> None:
    """Let a residual block add nothing yet: its last norm's scale is 0."""
    gamma, *others = block[-1].get_weights()
    block[-1].set_weights([np.zeros_like(gamma), *others])


def _weighted(model: "tf_keras.Model") -> list:
    """The layers that were trained, in order; a normalization of the data is the data's own."""
    import tf_keras

    return [layer for layer in model.layers if layer.weights and not isinstance(layer, tf_keras.layers.Normalization)]


def keras_bytes(model: "tf_keras.Model") -> bytes:
    """A tf_keras model as the bytes of a .keras file; EdgeferError where there is no room for temporary files."""
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            quiet(show_on_failure=False),
        ):  # HDF5 dumps its own stack of errors
            file = Path(folder) / "model.keras"
            model.save(file)
            return file.read_bytes()
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError when it cannot flush a file
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise EdgeferError(
            f"The network could not be written as a Keras file in {tempfile.gettempdir()} ({reason:.120}): make room there, "
            "or set TMPDIR to a place with room."
        ) from None


def weights_bytes(model: "tf_keras.Model") -> bytes:
    """What model.save_weights("*.weights.h5") writes, made in memory: HDF5 crashes on any later file of a process in which it
    could not write one, on a full disk for instance."""
    from tf_keras.src.saving import saving_lib

    content = io.BytesIO()
    store = saving_lib.H5IOStore(content, mode="w")
    saving_lib._save_state(model, weights_store=store, assets_store=None, inner_path="", visited_trackables=set())
    store.close()
    return content.getvalue()
