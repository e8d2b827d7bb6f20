"""The functions and layers that Keras 2 lacks, for networks of Keras 3 and with operators. A bundle's network names them as
edgefer>NAME, with plain settings. Imported only where a network is built, since it needs TensorFlow."""

from typing import Any

import tensorflow as tf  # noqa: TID253
import tf_keras  # noqa: TID253

REDUCTIONS = {"mean": tf.reduce_mean, "max": tf.reduce_max, "sum": tf.reduce_sum}
registered = tf_keras.saving.register_keras_serializable("edgefer")


@registered
def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """That of Keras 3; that of Keras 2 is clip(0.2 x + 0.5)."""
    return tf.nn.relu6(x + 3.0) * (1 / 6)


@registered
def hard_silu(x: tf.Tensor) -> tf.Tensor:
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)  # in this form TFLite's converter makes one HARD_SWISH of it


@registered
def gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=True)


@registered
class Reduce(tf_keras.layers.Layer):
    """The mean, the largest or the sum along axes, which may not be that of the batch."""

    def __init__(self, function: str = "mean", axis: Any = (-1,), keepdims: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.function, self.axis, self.keepdims = function, list(axis), keepdims

    def build(self, shape: Any) -> None:
        if any(axis % len(shape) == 0 for axis in self.axis):
            raise ValueError(f"{self.name} mixes the images of a batch")
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return REDUCTIONS[self.function](x, self.axis, keepdims=self.keepdims)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"function": self.function, "axis": self.axis, "keepdims": self.keepdims}


@registered
class TakeChannels(tf_keras.layers.Layer):
    """Channels in another order. order: their numbers; None: the reverse of all."""

    def __init__(self, order: list[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.order = order and list(order)

    def build(self, shape: Any) -> None:
        if not all(0 <= number < shape[-1] for number in self.order or ()):
            raise ValueError(f"{self.name} takes channels that are not there")
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.gather(x, self.order or list(range(x.shape[-1]))[::-1], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"order": self.order}


@registered
class ExpandDims(tf_keras.layers.Layer):
    """A dimension of size 1 more, not before that of the batch."""

    def __init__(self, axis: int = -1, **options: Any) -> None:
        super().__init__(**options)
        self.axis = axis

    def build(self, shape: Any) -> None:
        if self.axis % (len(shape) + 1) == 0:
            raise ValueError(f"{self.name} adds a dimension before that of the batch")
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.expand_dims(x, self.axis)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


@registered
class LayerScale(tf_keras.layers.Layer):
    """A factor for each channel: that of keras.applications' ConvNeXt, with its settings."""

    def __init__(self, init_values: float = 1.0, projection_dim: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.init_values, self.projection_dim = init_values, projection_dim

    def build(self, shape: Any) -> None:
        start = tf_keras.initializers.Constant(self.init_values)
        self.gamma = self.add_weight(name="gamma", shape=(self.projection_dim,), initializer=start)
        super().build(shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.gamma

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"init_values": self.init_values, "projection_dim": self.projection_dim}
