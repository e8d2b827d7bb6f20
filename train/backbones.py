"""Backbones from keras.applications. Their weights do not ship: they are a local file, or Keras's own download."""

from pathlib import Path

from edgefer.errors import InputError
from edgefer.train.recipe_fields import Model

IMAGENET = "imagenet"


def mobilenet_v2(model: Model, pixels):
    """MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) without its classifier: pixels / 255 -> pooled features [n,
    m].

    InputError where the weights cannot be loaded.
    """
    import tf_keras
    from tf_keras import layers

    if model.weights and model.weights != IMAGENET and not Path(model.weights).is_file():
        raise _misfit(model, "there is no such file")
    scaled = layers.Rescaling(2.0, offset=-1.0)(pixels)  # it takes pixels in -1..1
    downloaded = IMAGENET if model.weights == IMAGENET else None
    try:
        backbone = tf_keras.applications.MobileNetV2(
            input_tensor=scaled, alpha=model.alpha, include_top=False, weights=downloaded
        )
    except Exception as error:  # a failed download is a bare Exception
        raise InputError(
            f"{model.backbone} with alpha {model.alpha:g} and weights {model.weights or 'random'!r} cannot be made: "
            f"{_short(error)}. Offline, fetch Keras's file for include_top=False elsewhere and name it: "
            "--set model.weights=FILE.h5."
        ) from None
    if model.weights and not downloaded:
        try:
            backbone.load_weights(model.weights)
        except (OSError, ValueError) as error:
            raise _misfit(model, _short(error)) from None
    return layers.GlobalAveragePooling2D()(backbone.output)


def _misfit(model: Model, reason: str) -> InputError:
    return InputError(
        f"{model.weights} does not fit {model.backbone} with alpha {model.alpha:g}: {reason}. Name Keras's file for "
        "include_top=False (.h5) of that alpha."
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
