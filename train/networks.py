"""Builds networks from a recipe's [model] section, and reads and writes .keras files. All take pixels / 255 and return
logits."""

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.card import InputSpec
from edgefer.errors import BundleError, EdgeferError, InputError, RecipeError
from edgefer.quiet import quiet
from edgefer.train.backbones import mobilenet_v2
from edgefer.train.backend import batch_norm
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.matching import matched
from edgefer.train.keras_file import read_keras
from edgefer.train.older import cnn_mlp, four_block
from edgefer.train.recipe_fields import LAYER, Model, Recipe
from edgefer.train.zscore import Statistics, conv_padding, normalize, pixel_statistics

if TYPE_CHECKING:
    import tf_keras

LOGITS = "logits"  # name of the last layer


def build(model: Model, spec: InputSpec, classes: int, statistics: Statistics | None = None) -> "tf_keras.Model":
    """The untrained network: float32 [n, height, width, channels] in 0..1 -> float32 logits [n, classes].

    statistics: `pixel_statistics` of the training split, for a recipe with zscore. RecipeError where it cannot be
    built.
    """
    import tf_keras

    if model.family == "imported":
        raise RecipeError(
            "A network that was imported cannot be trained from scratch: choose another recipe, with --init-from for its weights."
        )
    x = pixels = tf_keras.Input(spec.shape, name="pixels")
    if model.zscore:
        x = normalize(model, x, statistics)
    families = {
        "plain": _plain,
        "four-block": four_block,
        "cnn-mlp": cnn_mlp,
        "keras-applications": _keras_applications,
    }
    try:
        features = families[model.family](model, x)
    except ValueError:
        raise RecipeError(
            f"Images of {spec.width}x{spec.height} pixels are too small for the strides of this {model.family} network: set a "
            "larger input.width and input.height."
        ) from None
    # float32 also with mixed precision: a bfloat16 logit has three significant digits.
    logits = tf_keras.layers.Dense(classes, dtype="float32", name=LOGITS)(features)
    network = tf_keras.Model(pixels, logits, name=model.family.replace("-", "_"))
    if model.freeze:
        pooled = [isinstance(layer, tf_keras.layers.GlobalAveragePooling2D) for layer in network.layers]
        for layer in network.layers[: pooled.index(True) if any(pooled) else -1]:
            layer.trainable = False
    return network


def build_for(recipe: Recipe, dataset: Dataset, *, pretrained: bool = True) -> "tf_keras.Model":
    """The recipe's untrained network for the data set's labels, with the pixel statistics of its training split for
    zscore.

    pretrained: with the backbone's weights; False where other weights are loaded next, so that their file may be
    missing.
    """
    statistics = pixel_statistics(dataset.split("train").images) if recipe.model.zscore else None
    model = recipe.model if pretrained else recipe.model.model_copy(update={"weights": ""})
    return build(model, recipe.input, len(dataset.labels), statistics)


def _plain(model: Model, pixels):
    """Features [n, filters] of 3x3 Conv-BN-ReLU layers and residual blocks: every operator is native int8 in XNNPACK
    and on the Edge TPU, and batch norm folds into the convolution."""
    from tf_keras import layers

    # As in most published recipes: with Keras's 0.99 the statistics lag behind on small data sets, whose epochs have few
    # steps, and validation accuracy is that of another network than the trained one.
    def conv(x, filters, stride=1, relu=True, padding="same"):
        x = layers.Conv2D(filters, 3, strides=stride, padding=padding, use_bias=False)(x)
        x = batch_norm(momentum=0.9)(x)
        return layers.ReLU()(x) if relu else x

    x = pixels
    for number, word in enumerate(model.layers.split()):
        match = LAYER.fullmatch(word)
        assert match  # validated in Model
        filters, stride, residual = match.groups()
        if residual:
            # Not "+": tfmot quantizes layers only.
            branch = conv(conv(x, int(residual)), int(residual), relu=False)
            x = layers.ReLU()(layers.Add()([x, branch]))
        else:
            x = conv(x, int(filters), stride=2 if stride else 1, padding=conv_padding(model, number == 0))
    x = layers.GlobalAveragePooling2D()(x)
    if model.freeze:  # frozen features differ in scale, which weight decay would penalize unevenly
        x = batch_norm(momentum=0.9, center=False, scale=False)(x)
    return layers.Dropout(model.dropout)(x) if model.dropout else x


def _keras_applications(model: Model, pixels):
    from tf_keras import layers

    x = mobilenet_v2(model, pixels)
    return layers.Dropout(model.dropout)(x) if model.dropout else x


def load_keras(bundle: Bundle, variant: str) -> "tf_keras.Model":
    """The bundle's "keras" or "tuned" network, rebuilt from an allowlist of layers (edgefer.train.keras_file).

    BundleError for a file with anything else.
    """
    where = str(bundle.file(variant))
    content = bundle.read(variant)
    if not content.startswith(b"PK"):
        raise BundleError(
            f"{where} is not a .keras file: a bundle holds no other kind. Import others with `edgefer import FILE`."
        )
    try:
        return read_keras(content, where)
    except InputError as error:
        raise BundleError(str(error)) from None


def initialize(model: "tf_keras.Model", labels: tuple[str, ...], source: Bundle) -> int:
    """Copy a bundle's weights into a network of `labels`, layer by layer from the first while their shapes match.

    A residual block that the bundle's network lacks is initialized as identity, so that a larger network starts where
    the smaller one ended (Net2Net, Chen et al. 2016, arXiv:1511.05641). A kernel for gray images is spread over RGB by
    the luma weights (ITU-R BT.601). Columns of the logits are matched by label; those of new labels keep their initial
    weights.

    Returns how many layers got weights. InputError where not even the first matches, or a frozen one does not.
    """
    donor = load_keras(source, Form.KERAS)
    layers, count = _weighted(model), 0
    for donor_layer in _weighted(donor):
        weights = donor_layer.get_weights()
        while count and _is_block(layers[count : count + 4]) and not _fits(layers[count], donor_layer, weights):
            _make_identity(layers[count : count + 4])
            count += 4
        if count == len(layers):
            break
        layer, own = layers[count], layers[count].get_weights()
        if not count and weights[0].shape[2:3] == (1,) and own[0].shape[2:3] == (3,):
            weights[0] = weights[0] * np.array([0.299, 0.587, 0.114], np.float32)[None, None, :, None]
        if layer.name == donor_layer.name == LOGITS and weights[0].shape[0] == own[0].shape[0]:
            known = matched(labels, source.card.labels)
            for index, label in enumerate(labels):
                if label in known:
                    column = source.card.labels.index(known[label])
                    own[0][:, index], own[1][index] = weights[0][:, column], weights[1][column]
            weights = own
        if not _fits(layer, donor_layer, weights):
            break
        layer.set_weights(weights)
        count += 1
    if not count:
        raise InputError(f"{source.path} does not begin like this recipe's network: none of its weights fit.")
    if frozen := [layer.name for layer in _weighted(model)[count:] if not layer.trainable]:
        raise InputError(
            f"{source.path} fits only the first {count} layers of this recipe's network, and {frozen[0]} would stay frozen with "
            "random weights: name a network of the same layers, or --set model.freeze=false."
        )
    return count


def _fits(layer, donor_layer, weights: list[np.ndarray]) -> bool:
    return type(layer) is type(donor_layer) and [w.shape for w in layer.get_weights()] == [w.shape for w in weights]


def _is_block(layers: list) -> bool:
    """Whether these are the layers with weights of one residual block: Conv, BN, Conv, BN, then Add."""
    import tf_keras

    kinds = [tf_keras.layers.Conv2D, tf_keras.layers.BatchNormalization] * 2
    if [type(layer) for layer in layers] != kinds:
        return False
    return [type(node.outbound_layer) for node in layers[-1].outbound_nodes] == [tf_keras.layers.Add]


def _make_identity(block: list) -> None:
    """Zero the scale of a residual block's last batch norm, so that the block adds nothing."""
    gamma, *others = block[-1].get_weights()
    block[-1].set_weights([np.zeros_like(gamma), *others])


def _weighted(model: "tf_keras.Model") -> list:
    """The layers with weights, in order, but for pixel normalization, whose statistics are the data's."""
    import tf_keras

    return [layer for layer in model.layers if layer.weights and not isinstance(layer, tf_keras.layers.Normalization)]


def keras_bytes(model: "tf_keras.Model") -> bytes:
    """A network as the bytes of a .keras file. EdgeferError where temporary files cannot be written."""
    try:
        with tempfile.TemporaryDirectory() as folder, quiet(show_on_failure=False):  # HDF5 prints errors itself
            file = Path(folder) / "model.keras"
            model.save(file)
            return file.read_bytes()
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError where it cannot flush a file
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise EdgeferError(
            f"The network could not be written as a Keras file in {tempfile.gettempdir()} ({reason:.120}): make room there, "
            "or set TMPDIR to a place with room."
        ) from None


def weights_bytes(model: "tf_keras.Model") -> bytes:
    """The content of model.save_weights("*.weights.h5"), made in memory: once HDF5 could not write a file, such as on a
    full disk, it crashes on the next one in the same process."""
    from tf_keras.src.saving import saving_lib

    content = io.BytesIO()
    store = saving_lib.H5IOStore(content, mode="w")
    saving_lib._save_state(model, weights_store=store, assets_store=None, inner_path="", visited_trackables=set())
    store.close()
    return content.getvalue()
