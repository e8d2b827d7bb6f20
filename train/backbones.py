"""Trunks from keras.applications. Their weights are never part of edgefer: a local file, or the user's own download."""

from edgefer.errors import InputError
from edgefer.train.recipe_fields import Model

IMAGENET = "imagenet"


def mobilenet_v2(model: Model, pixels):
    """MobileNetV2 (Sandler et al. 2018) without its classifier: pixels / 255 -> pooled features [n, m].

    Raises InputError when the weights cannot be had or do not fit.
    """
    import tf_keras
    from tf_keras import layers

    scaled = layers.Rescaling(2.0, offset=-1.0)(pixels)  # it was trained on pixels of -1..1
    named = IMAGENET if model.weights == IMAGENET else None
    try:
        trunk = tf_keras.applications.MobileNetV2(
            input_tensor=scaled, alpha=model.alpha, include_top=False, weights=named
        )
    except Exception as error:  # the download raises whatever is in its way, as a bare Exception
        raise InputError(
            f"{model.backbone} with alpha {model.alpha:g} and weights {model.weights or 'random'!r} cannot be made: "
            f"{_short(error)}. Offline, fetch Keras's file for include_top=False elsewhere and name it: "
            "--set model.weights=FILE.h5."
        ) from None
    if model.weights and not named:
        try:
            trunk.load_weights(model.weights)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{model.weights} does not fit {model.backbone} with alpha {model.alpha:g}: {_short(error)}. Name Keras's "
                "file for include_top=False (.h5) of that alpha."
            ) from None
    return layers.GlobalAveragePooling2D()(trunk.output)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
