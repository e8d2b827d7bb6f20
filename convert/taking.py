"""Takes a network from elsewhere as edgefer's own, or as it is: its files, and the proof that they answer as it did."""

from typing import TYPE_CHECKING

import numpy as np

from edgefer import drawn
from edgefer.card import InputSpec, ModelCard
from edgefer.checks import Check, status_if
from edgefer.convert.contract import Contract
from edgefer.convert.foreign import Foreign, affine_of, flat_layers
from edgefer.convert.outputs import check_answers
from edgefer.convert.quantize import to_float32
from edgefer.interpreter import INTEGER_DTYPES, Network, softmax
from edgefer.preprocess import prepare
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import keras_bytes

if TYPE_CHECKING:
    import tf_keras

MAX_DIFFERENCE = 1e-3  # in a probability, between the network as it came and as it was taken in


def take_keras(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """The network made to take pixels / 255 and give logits; its files, and the proof."""
    images = _images(card.input)
    # First: the rebuilt network shares its layers, and takes the softmax off the last one.
    came = foreign.logits(images, contract.spec(*foreign.shape[:2]), contract.output)
    check_answers(came, contract.output, foreign.path)
    model = own_network(foreign, contract)
    content = keras_bytes(model)
    float32 = to_float32(model)
    network = Network(float32, card.input, len(card.labels))
    checks = [
        _same("rebuilt against what came", softmax(came), softmax(keras_logits(model, images))),
        _same(f"float32.tflite on {network.runtime} against what came", softmax(came), softmax(network.logits(images))),
        _varied(f"{foreign.kind} as it came", softmax(came)),
    ]
    return {"keras": content, "float32": float32}, checks


def take_tflite(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """The .tflite as it is."""
    spec = contract.spec(*foreign.shape[:2])
    network = Network(foreign.content, spec, foreign.classes, output=contract.output)
    variant = "int8" if network.answer_dtype in INTEGER_DTYPES else "float32"
    logits = network.logits(_images(card.input))
    check_answers(logits, contract.output, foreign.path)
    subject = f"{foreign.kind} as it came, {foreign.computes}"
    return {variant: foreign.content}, [_varied(subject, softmax(logits))]


def _varied(subject: str, answers: np.ndarray) -> Check:
    varied = bool((answers.std(axis=0) > 1e-6).any())
    detail = "it answers differently to different images" if varied else "it gives the same answer to every image"
    return Check(subject=subject, status=status_if(varied), detail=detail)


def own_network(foreign: Foreign, contract: Contract) -> "tf_keras.Model":
    """The Keras network with what edgefer's own contract asks for: pixels / 255 in, logits out.

    Scaling is one 1x1 depthwise convolution in front, together with the network's own first scaling layers, and is left
    out where the two together change nothing; a softmax at the end goes.
    """
    import tf_keras

    from edgefer.train.keras_build import connect

    assert foreign.layers
    built, architecture = foreign.layers
    channels = foreign.shape[2]
    scale, offset = (np.broadcast_to(np.asarray(part, float), (channels,)) for part in contract.values)
    skipped = [layer for layer in flat_layers(built) if layer.name in foreign.passes]
    own_scale, own_offset = affine_of(skipped, channels)
    scale, offset = 255 * scale * own_scale, offset * own_scale + own_offset
    pixels = x = tf_keras.Input(foreign.shape, name="pixels")
    if not (np.allclose(scale, 1, atol=1e-6) and np.allclose(offset, 0, atol=1e-6)):
        adapter = tf_keras.layers.DepthwiseConv2D(1, name="edgefer_scaling")
        x = adapter(x)
        adapter.set_weights([scale.reshape(1, 1, channels, 1), offset])
    passes = set(foreign.passes)
    if (last := foreign.end.softmax) is not None:
        if type(last).__name__ in ("Softmax", "Activation"):
            passes.add(last.name)
        else:
            last.activation = tf_keras.activations.linear
    (logits,) = connect(built, architecture, [x], skip=frozenset(passes))
    return tf_keras.Model(pixels, logits, name="imported")


def _same(subject: str, came: np.ndarray, taken: np.ndarray) -> Check:
    off = float(np.abs(came - taken).max())
    detail = f"off by {off:.2g} in a probability at worst over {len(came)} images (allowed {MAX_DIFFERENCE:g})"
    return Check(subject=subject, status=status_if(off <= MAX_DIFFERENCE), detail=detail)


def _images(spec: InputSpec, count: int = 24) -> np.ndarray:
    """Drawn faces and noise: uint8 [count, h, w, c]."""
    faces, _ = drawn.face_set(count // 2, seed=3)
    noise = np.random.default_rng(3).integers(0, 256, (count - count // 2, *spec.shape), dtype=np.uint8)
    return np.concatenate([np.stack([prepare(face, spec) for face in faces]), noise])
