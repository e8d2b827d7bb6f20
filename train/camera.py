"""Camera effects as augmentation: exposure, blur, low resolution, motion blur, noise and JPEG.

Images are float32 [n, h, w, c] in 0..1; every function keeps the shape. Random numbers are stateless, as in
edgefer.train.augment, and effects come in the order of a real camera: exposure, optics and motion, sensor, file.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from edgefer.train.recipe_fields import Augment

if TYPE_CHECKING:
    from edgefer.train.augment import Draws

MAX_SIGMA, MIN_SIGMA = 2.2, 0.5  # of the blur, in pixels of the network's input
MIN_MOTION, MAX_MOTION = 3.0, 8.0  # length of the motion blur in pixels
MIN_SIDE_SHARE = 0.3  # of the input's side: the smallest face before it is enlarged
DARK, BRIGHT, FLAT = (0.2, 0.8), (1.2, 1.8), (0.3, 0.8)  # factors of light and of contrast
JPEG_QUALITY = (8, 60)


def camera_effects(images, recipe: Augment, draws: "Draws", selected):
    """The recipe's effects on the images where `selected`, bool [n]; each effect has a probability of its own."""
    import tensorflow as tf

    def chosen(stream: int, probability: float):
        return selected & (draws.uniform(stream, 0, 1) < probability)

    if recipe.dark or recipe.flat:
        images = _exposure(images, chosen(20, recipe.dark), chosen(21, recipe.flat), draws)
    if recipe.blur or recipe.pixels:
        images = _resolution(images, chosen(14, recipe.blur), chosen(24, recipe.pixels), draws)
    if recipe.motion:
        images = _only(images, chosen(27, recipe.motion), lambda some, rows: _motion(some, rows, draws))
    if recipe.noise:
        level = tf.where(selected, draws.uniform(16, 0, recipe.noise), 0.0)[:, None, None, None]
        images = tf.clip_by_value(images + level * draws.normal(17, tf.shape(images)[1:]), 0, 1)
    if recipe.jpeg:
        images = _only(images, chosen(30, recipe.jpeg), lambda some, rows: _jpeg(some, rows, draws))
    return images


def _only(images, selected, effect):
    """`effect(images, rows)` on the images where `selected`; the others stay as they are."""
    import tensorflow as tf

    rows = tf.where(selected)[:, 0]

    def updated():
        return tf.tensor_scatter_nd_update(images, rows[:, None], effect(tf.gather(images, rows), rows))

    return tf.cond(tf.size(rows) > 0, updated, lambda: images)


def _exposure(images, dark, flat, draws: "Draws"):
    """Underexposure where `dark`; where `flat` either glare (overexposure) or low contrast."""
    import tensorflow as tf

    gain = tf.where(dark, draws.uniform(22, *DARK), 1.0)
    glare = draws.uniform(23, -1, 1) > 0
    gain = tf.where(flat & glare & ~dark, draws.uniform(31, *BRIGHT), gain)[:, None, None, None]
    contrast = tf.where(flat & ~glare, draws.uniform(32, *FLAT), 1.0)[:, None, None, None]
    mean = tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
    return tf.clip_by_value(((images - mean) * contrast + mean) * gain, 0, 1)


def _resolution(images, blurred, small, draws: "Draws"):
    """Gaussian blur where `blurred`, and downsampling and back where `small`: one matrix product per axis."""
    import tensorflow as tf

    sigma = tf.where(blurred, draws.uniform(15, MIN_SIGMA, MAX_SIGMA), 0.01)
    share = tf.where(small, draws.uniform(25, MIN_SIDE_SHARE, 0.9), 1.0)
    for axis, side in ((1, images.shape[1]), (2, images.shape[2])):
        resampling = tf.constant(resampling_matrices(side))
        index = tf.cast(tf.round(share * side), tf.int32) - 1
        matrix = tf.matmul(tf.gather(resampling, index), _gaussian(sigma, side))
        images = tf.einsum("nyk,nkxc->nyxc" if axis == 1 else "nxk,nykc->nyxc", matrix, images)
    return images


def _gaussian(sigma, side: int):
    """float32 [n, side, side]: matrices that blur a line of `side` pixels by `sigma` [n] pixels, its ends replicated."""
    import tensorflow as tf

    radius = math.ceil(2.5 * MAX_SIGMA)
    offsets = np.arange(-radius, radius + 1)
    weights = tf.exp(-((tf.constant(offsets, tf.float32) / sigma[:, None]) ** 2) / 2)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    source = np.clip(np.arange(side)[:, None] + offsets, 0, side - 1)  # [side, taps]
    taps = np.eye(side, dtype=np.float32)[source]  # [side, taps, side]
    return tf.einsum("nt,yts->nys", weights, tf.constant(taps))


def resampling_matrices(side: int) -> np.ndarray:
    """float32 [side, side, side]: at k - 1 the matrix that downsamples a line to k pixels by area and upsamples it
    linearly."""
    matrices = np.empty((side, side, side), np.float32)
    for small in range(1, side + 1):
        edges = np.arange(small + 1) * side / small
        pixel = np.arange(side)
        overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        down = np.maximum(overlap, 0) * small / side
        source = np.clip((pixel + 0.5) * small / side - 0.5, 0, small - 1)
        up = np.maximum(0, 1 - np.abs(source[:, None] - np.arange(small)))
        matrices[small - 1] = up @ down
    return matrices


def _motion(images, rows, draws: "Draws"):
    """Motion blur along a line of random length and direction."""
    import tensorflow as tf

    length = tf.gather(draws.uniform(28, MIN_MOTION, MAX_MOTION), rows)[:, None, None]
    angle = tf.gather(draws.uniform(29, 0, math.pi), rows)[:, None, None]
    radius = math.ceil(MAX_MOTION / 2)
    y, x = (tf.constant(part, tf.float32)[None] for part in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    along, across = x * tf.cos(angle) + y * tf.sin(angle), y * tf.cos(angle) - x * tf.sin(angle)
    kernel = tf.clip_by_value(length / 2 + 0.5 - tf.abs(along), 0, 1) * tf.maximum(0.0, 1 - tf.abs(across))
    kernel /= tf.reduce_sum(kernel, axis=[1, 2], keepdims=True)
    # One depthwise convolution, with each channel of each image as a channel of its own.
    height, width, colors = images.shape[1:]
    channels = tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, height, width, -1])
    filters = tf.repeat(tf.transpose(kernel, [1, 2, 0]), colors, axis=2)[..., None]
    padded = tf.pad(channels, [[0, 0], [radius, radius], [radius, radius], [0, 0]], "SYMMETRIC")
    blurred = tf.nn.depthwise_conv2d(padded, filters, [1] * 4, "VALID")
    return tf.transpose(tf.reshape(blurred, [height, width, -1, colors]), [2, 0, 1, 3])


def _jpeg(images, rows, draws: "Draws"):
    """JPEG compression of random quality."""
    import tensorflow as tf

    quality = tf.cast(tf.gather(draws.uniform(33, *JPEG_QUALITY), rows), tf.int32)

    def compress(one):
        image, image_quality = one
        return tf.image.adjust_jpeg_quality(image, image_quality)

    return tf.ensure_shape(tf.map_fn(compress, (images, quality), fn_output_signature=tf.float32), images.shape)
