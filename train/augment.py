"""Random changes of training images: one fused affine over the whole batch, light, and erasing.

Every draw is stateless, a function of (seed, step), so that a resumed run sees the images it would have seen.
"""

import math
from dataclasses import dataclass
from typing import Any

from edgefer.train.camera import camera_changes
from edgefer.train.recipe_fields import Augment


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random numbers for the images `rows` of a batch of `count`; a seed is int64 [2].

    They are drawn for the whole batch: each of several workers changes its share as one alone would have.
    """

    seed: Any
    count: int
    rows: Any

    def uniform(self, which: int, low: float, high: float):
        """float32 [rows]."""
        import tensorflow as tf

        return tf.gather(tf.random.stateless_uniform([self.count], self._seed(which), low, high), self.rows)

    def normal(self, which: int, shape):
        """float32 [rows, *shape], standard deviation 1."""
        import tensorflow as tf

        whole = tf.concat([[self.count], shape], axis=0)
        return tf.gather(tf.random.stateless_normal(whole, self._seed(which)), self.rows)

    def beta(self, first: int, second: int, alpha: float):
        """float32 [rows], of Beta(alpha, alpha)."""
        import tensorflow as tf

        a, b = (tf.random.stateless_gamma([self.count], self._seed(which), alpha) for which in (first, second))
        return tf.gather(tf.maximum(a, 1e-9) / tf.maximum(a + b, 1e-9), self.rows)

    def _seed(self, which: int):
        import tensorflow as tf

        return tf.random.experimental.stateless_fold_in(self.seed, which)


def augment_batch(images, recipe: Augment, draws: Draws):
    """Change images: float32 [n, h, w, c] in 0..1 -> float32 of the same shape in 0..1."""
    import tensorflow as tf

    uniform = draws.uniform
    seen = uniform(19, 0, 1) < recipe.camera  # through a camera
    if recipe.flip or recipe.rotate_deg or recipe.zoom or recipe.shift or recipe.tilt_deg or recipe.framing:
        turn = tf.where(seen, float(max(recipe.rotate_deg, recipe.tilt_deg)), float(recipe.rotate_deg))
        zoom = tf.where(seen, float(max(recipe.zoom, recipe.framing)), float(recipe.zoom))
        angle = uniform(0, -1, 1) * turn * math.pi / 180
        scale = 1 / (1 + uniform(1, -1, 1) * zoom)
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
    images = camera_changes(images, recipe, draws, seen)
    if recipe.erase:
        images = _erase(images, recipe.erase, uniform)
    return images


def _affine(images, angle, scale, mirror, shift_x, shift_y):
    """Rotate, scale, mirror and shift each image about its centre in one resampling; edges are repeated."""
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
    changed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a0, a1, a2, b0, b1, b2, zeros, zeros], axis=1),
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.ensure_shape(changed, images.shape)


def _erase(images, probability: float, uniform):
    """Blank one rectangle, a fifth to two fifths of each side, with the image's mean (Zhong et al. 2017)."""
    import tensorflow as tf

    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    drawn = uniform(7, 0, 1) < probability

    def band(which: int, side):
        length = uniform(which, 0.2, 0.4) * side
        start = uniform(which + 1, 0, 1) * (side - length)
        at = tf.range(side)[None, :]
        return (at >= start[:, None]) & (at < (start + length)[:, None])

    hole = band(8, size[0])[:, :, None] & band(10, size[1])[:, None, :] & drawn[:, None, None]
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return tf.where(hole[..., None], mean, images)


def mix(images, targets, alpha: float, draws: Draws):
    """mixup (Zhang et al. 2018, arXiv:1710.09412): each image and its target blended with those before it.

    The share of the blend is drawn from Beta(alpha, alpha), one per image. The first image is there only for the
    second: n + 1 go in, n come out.
    """
    import tensorflow as tf

    share = draws.beta(12, 13, alpha)[1:]
    share = tf.maximum(share, 1 - share)  # a blend belongs to the image it has more of
    pixels = share[:, None, None, None]
    return (
        images[1:] * pixels + images[:-1] * (1 - pixels),
        targets[1:] * share[:, None] + targets[:-1] * (1 - share[:, None]),
    )
