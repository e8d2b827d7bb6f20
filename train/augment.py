"""Augmentation of training batches: one fused affine transform, brightness and contrast, camera effects, erasing,
mixup.

Every random number is stateless, a function of (seed, step), so that a resumed run sees the same images.
"""

import math
from dataclasses import dataclass
from typing import Any

from edgefer.train.camera import camera_effects
from edgefer.train.recipe_fields import Augment


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers for the images at positions `rows` in a batch of `count`. seed: int64 [2].

    They are drawn for the whole batch, so that replicas augment their parts as a single one would the whole.
    """

    seed: Any
    count: int
    rows: Any

    def uniform(self, stream: int, low: float, high: float):
        """float32 [rows]."""
        import tensorflow as tf

        return tf.gather(tf.random.stateless_uniform([self.count], self._seed(stream), low, high), self.rows)

    def normal(self, stream: int, shape):
        """float32 [rows, *shape], of mean 0 and standard deviation 1."""
        import tensorflow as tf

        whole = tf.concat([[self.count], shape], axis=0)
        return tf.gather(tf.random.stateless_normal(whole, self._seed(stream)), self.rows)

    def beta(self, first: int, second: int, alpha: float):
        """float32 [rows], of Beta(alpha, alpha)."""
        import tensorflow as tf

        a, b = (tf.random.stateless_gamma([self.count], self._seed(stream), alpha) for stream in (first, second))
        return tf.gather(tf.maximum(a, 1e-9) / tf.maximum(a + b, 1e-9), self.rows)

    def _seed(self, stream: int):
        import tensorflow as tf

        return tf.random.experimental.stateless_fold_in(self.seed, stream)


def augment_batch(images, recipe: Augment, draws: Draws):
    """Augment images, gray or RGB: float32 [n, h, w, c] in 0..1 -> the same."""
    import tensorflow as tf

    uniform = draws.uniform
    through_camera = uniform(19, 0, 1) < recipe.camera
    if recipe.flip or recipe.rotate_deg or recipe.zoom or recipe.shift or recipe.tilt_deg or recipe.framing:
        max_angle = tf.where(through_camera, float(max(recipe.rotate_deg, recipe.tilt_deg)), float(recipe.rotate_deg))
        max_zoom = tf.where(through_camera, float(max(recipe.zoom, recipe.framing)), float(recipe.zoom))
        angle = uniform(0, -1, 1) * max_angle * math.pi / 180
        scale = 1 / (1 + uniform(1, -1, 1) * max_zoom)
        mirror = tf.sign(uniform(2, -1, 1)) if recipe.flip else tf.ones_like(scale)
        images = _affine(
            images, angle, scale, mirror, uniform(3, -1, 1) * recipe.shift, uniform(4, -1, 1) * recipe.shift
        )
    if recipe.contrast or recipe.brightness:
        factor = uniform(5, 1 - recipe.contrast, 1 + recipe.contrast)[:, None, None, None]
        offset = uniform(6, -recipe.brightness, recipe.brightness)[:, None, None, None]
        mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
        images = tf.clip_by_value((images - mean) * factor + mean + offset, 0, 1)
    if recipe.saturation and images.shape[-1] == 3:
        factor = uniform(18, 1 - recipe.saturation, 1 + recipe.saturation)[:, None, None, None]
        gray = tf.image.rgb_to_grayscale(images)
        images = tf.clip_by_value(gray + (images - gray) * factor, 0, 1)
    images = camera_effects(images, recipe, draws, through_camera)
    if recipe.erase:
        images = _erase(images, recipe.erase, uniform)
    return images


def _affine(images, angle, scale, mirror, shift_x, shift_y):
    """Rotate, scale, mirror and shift each image about its centre in one resampling; the border is replicated."""
    import tensorflow as tf

    size = tf.shape(images)[1:3]
    height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    a0, a1 = tf.cos(angle) * scale * mirror, -tf.sin(angle) * scale
    b0, b1 = tf.sin(angle) * scale * mirror, tf.cos(angle) * scale
    a2 = centre_x - a0 * centre_x - a1 * centre_y + shift_x * width
    b2 = centre_y - b0 * centre_x - b1 * centre_y + shift_y * height
    zeros = tf.zeros_like(a0)
    # The op maps each output pixel (x, y) to the input (a0 x + a1 y + a2, b0 x + b1 y + b2).
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zeros, zeros], axis=1),
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.ensure_shape(transformed, images.shape)


def _erase(images, probability: float, uniform):
    """Random erasing (Zhong et al. 2017, arXiv:1708.04896): one rectangle of 0.2 to 0.4 of each side gets the image's
    mean."""
    import tensorflow as tf

    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    selected = uniform(7, 0, 1) < probability

    def band(stream: int, side):
        length = uniform(stream, 0.2, 0.4) * side
        start = uniform(stream + 1, 0, 1) * (side - length)
        position = tf.range(side)[None, :]
        return (position >= start[:, None]) & (position < (start + length)[:, None])

    hole = band(8, size[0])[:, :, None] & band(10, size[1])[:, None, :] & selected[:, None, None]
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return tf.where(hole[..., None], mean, images)


def mix(images, targets, alpha: float, draws: Draws):
    """mixup (Zhang et al. 2018, arXiv:1710.09412): each image and target blended with the previous one.

    One weight per image from Beta(alpha, alpha). images: [n + 1, h, w, c], of which the first is only blended into the
    second; targets: [n + 1, classes]. Returns n of each.
    """
    import tensorflow as tf

    weight = draws.beta(12, 13, alpha)[1:]
    weight = tf.maximum(weight, 1 - weight)  # the image's own weight is the larger one
    pixel_weight, target_weight = weight[:, None, None, None], weight[:, None]
    return (
        images[1:] * pixel_weight + images[:-1] * (1 - pixel_weight),
        targets[1:] * target_weight + targets[:-1] * (1 - target_weight),
    )
