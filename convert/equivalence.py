"""Makes a bundle's files from an imported network, and proves that they give the same answers as the original."""

from typing import TYPE_CHECKING

import numpy as np

from edgefer import drawn
from edgefer.card import InputSpec, ModelCard
from edgefer.checks import Check, status_if
from edgefer.convert.contract import Contract
from edgefer.convert.foreign import Foreign
from edgefer.convert.outputs import check_answers
from edgefer.convert.quantize import to_float32
from edgefer.convert.scaling import First, affine_of
from edgefer.interpreter import INTEGER_DTYPES, Network, softmax
from edgefer.preprocess import prepare
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import keras_bytes

if TYPE_CHECKING:
    import tf_keras

MAX_DIFFERENCE = 1e-3  # in a probability, between the original and the imported network


def adapt_keras(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """Rebuild the network to take pixels / 255 and give logits; returns its files, and the proof."""
    images = _images(card.input)
    # Must be first: the rebuilt network shares its layers, and removes the softmax from the last one.
    original = foreign.logits(images, contract.spec(*foreign.shape[:2]), contract.output)
    check_answers(original, contract.output, foreign.path)
    model = adapted_network(foreign, contract)
    content = keras_bytes(model)
    float32 = to_float32(model)
    network = Network(float32, card.input, len(card.labels))
    checks = [
        _same("rebuilt against the original", softmax(original), softmax(keras_logits(model, images))),
        _same(
            f"float32.tflite on {network.runtime} against the original",
            softmax(original),
            softmax(network.logits(images)),
        ),
        _varied(f"original {foreign.kind}", softmax(original)),
    ]
    return {"keras": content, "float32": float32}, checks


def adapt_tflite(foreign: Foreign, contract: Contract, card: ModelCard) -> tuple[dict[str, bytes], list[Check]]:
    """Keep the .tflite unchanged; returns its file, and the proof."""
    spec = contract.spec(*foreign.shape[:2])
    network = Network(foreign.content, spec, foreign.classes, output=contract.output)
    variant = "int8" if network.answer_dtype in INTEGER_DTYPES else "float32"
    logits, again = (network.logits(_images(card.input)) for _ in range(2))
    subject = f"original {foreign.kind}, {foreign.computes}"
    repeated = _repeated(f"{subject}: the same images again", logits, again)
    if repeated.passed:
        check_answers(logits, contract.output, foreign.path)
    return {variant: foreign.content}, [repeated, _varied(subject, softmax(logits))]


def _repeated(subject: str, first: np.ndarray, second: np.ndarray) -> Check:
    same = bool((first == second).all())
    detail = "it gives the same answers to the same images again"
    if not same:
        detail = "it gives other answers to the same images again, as with dropout that is called with training=True: build it without"
    return Check(subject=subject, status=status_if(same), detail=detail)


def _varied(subject: str, answers: np.ndarray) -> Check:
    varied = bool((answers.std(axis=0) > 1e-6).any())
    detail = "it answers differently to different images" if varied else "it gives the same answer to every image"
    return Check(subject=f"{subject}: different images", status=status_if(varied), detail=detail)


def adapted_network(foreign: Foreign, contract: Contract) -> "tf_keras.Model":
    """The Keras network with edgefer's own contract: pixels / 255 in, logits out.

    One 1x1 convolution in front, depthwise unless it reorders channels, replaces the network's own scaling layers; it is
    left out if the combined scaling changes nothing. A final softmax is removed.
    """
    import tf_keras

    from edgefer.train.keras_build import connect

    assert foreign.layers
    built, architecture = foreign.layers
    front = _front(foreign, contract)
    pixels = x = tf_keras.Input(foreign.shape, name="pixels")
    if not (front.in_order and np.allclose(front.scale, 1, atol=1e-6) and np.allclose(front.offset, 0, atol=1e-6)):
        if front.in_order:
            kernel = front.scale.reshape(1, 1, -1, 1)
            adapter = tf_keras.layers.DepthwiseConv2D(1, name="edgefer_scaling")
        else:
            kernel = (np.eye(len(front.order))[front.order] * front.scale[:, None]).T[None, None]
            adapter = tf_keras.layers.Conv2D(len(front.order), 1, name="edgefer_scaling")
        x = adapter(x)
        adapter.set_weights([kernel, front.offset])
    passes = set(foreign.passes)
    if (last := foreign.end.softmax) is not None:
        if type(last).__name__ in ("Softmax", "Activation"):
            passes.add(last)
        else:
            last.activation = tf_keras.activations.linear
    (logits,) = connect(built, architecture, [x], skip=frozenset(passes))
    return tf_keras.Model(pixels, logits, name="imported")


def _front(foreign: Foreign, contract: Contract) -> First:
    """What the network's other layers take, of pixels / 255."""
    scale, offset = (np.broadcast_to(np.asarray(part, float), (foreign.shape[2],)) for part in contract.values)
    own = affine_of(list(foreign.passes), foreign.shape[2])
    return First(255 * scale[own.order] * own.scale, offset[own.order] * own.scale + own.offset, own.order)


def _same(subject: str, original: np.ndarray, imported: np.ndarray) -> Check:
    off = float(np.abs(original - imported).max())
    detail = f"probabilities differ by at most {off:.2g} over {len(original)} images (allowed {MAX_DIFFERENCE:g})"
    return Check(subject=subject, status=status_if(off <= MAX_DIFFERENCE), detail=detail)


def _images(spec: InputSpec, count: int = 24) -> np.ndarray:
    """Drawn faces and noise: uint8 [count, h, w, c]."""
    faces, _ = drawn.face_set(count // 2, seed=3)
    noise = np.random.default_rng(3).integers(0, 256, (count - count // 2, *spec.shape), dtype=np.uint8)
    return np.concatenate([np.stack([prepare(face, spec) for face in faces]), noise])
