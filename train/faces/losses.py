"""Losses of the face networks."""

from edgefer.faces import BOX_GAIN
from edgefer.train.backend import tensorflow

ROLL_WEIGHT = 3.0  # of a box it is 1.0: with as little, a roll of 25 degrees in one portrait was predicted as 17


def finder_loss(maps, targets, grid):
    """maps: float32 [n, h, w, 5] for each stride; targets: [n, cells, 6] of `finder_targets`; grid: of `cell_grid`.
    Scalar.

    Scores by quality focal loss (Li et al. 2020, arXiv:2006.04388), whose target is the IoU of a cell's box. Boxes by
    GIoU (Rezatofighi et al. 2019, arXiv:1902.09630), with a little L1, which helps while they do not overlap.
    """
    tf = tensorflow()
    outputs = tf.concat([tf.reshape(one, [tf.shape(one)[0], -1, 5]) for one in maps], axis=1)
    logit, code = outputs[..., 0], outputs[..., 1:] / BOX_GAIN
    target, weight, box = targets[..., 0], targets[..., 1], targets[..., 2:]
    centre = grid[:, :2] + code[..., :2] * grid[:, 2:3]
    size = grid[:, 3:4] * tf.exp(tf.clip_by_value(code[..., 2:], -4.0, 4.0))
    iou, giou = overlap(centre, size, box[..., :2], box[..., 2:])
    quality = target * tf.stop_gradient(tf.clip_by_value(iou, 0.3, 1.0))
    score = tf.sigmoid(logit)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=quality, logits=logit)
    positive = tf.cast(target > 0, tf.float32)
    count = tf.maximum(tf.reduce_sum(positive), 1.0)
    score_loss = tf.reduce_sum(weight * entropy * tf.square(quality - score)) / count
    exact = tf.concat([(box[..., :2] - grid[:, :2]) / grid[:, 2:3], tf.math.log(box[..., 2:] / grid[:, 3:4])], -1)
    l1 = tf.reduce_sum(tf.minimum(tf.abs(code - exact), 2.0), axis=-1)
    box_loss = tf.reduce_sum(positive * ((1 - giou) + 0.2 * l1)) / count
    return 2.0 * score_loss + box_loss


def overlap(centre, size, other_centre, other_size):
    """IoU and generalized IoU [...] of boxes, by their centres and sizes [..., 2]."""
    tf = tensorflow()
    low, high = centre - size / 2, centre + size / 2
    other_low, other_high = other_centre - other_size / 2, other_centre + other_size / 2
    both = tf.reduce_prod(tf.maximum(tf.minimum(high, other_high) - tf.maximum(low, other_low), 0.0), axis=-1)
    union = tf.reduce_prod(size, axis=-1) + tf.reduce_prod(other_size, axis=-1) - both
    hull = tf.reduce_prod(tf.maximum(high, other_high) - tf.minimum(low, other_low), axis=-1)
    iou = both / tf.maximum(union, 1e-6)
    return iou, iou - (hull - union) / tf.maximum(hull, 1e-6)


def refiner_loss(outputs, targets):
    """outputs: [n, 17]; targets: [n, 19]: score, its weight, 16 numbers of `encode_refined` (NaN where unknown), their
    weight. Scalar.

    Scores by a focal loss, the others by Huber loss.
    """
    tf = tensorflow()
    logit = outputs[:, 0]
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets[:, 0], logits=logit)
    focus = 0.25 + tf.abs(targets[:, 0] - tf.sigmoid(logit))
    score_loss = tf.reduce_mean(targets[:, 1] * entropy * focus)
    known = tf.math.is_finite(targets[:, 2:18])
    expected = tf.where(known, targets[:, 2:18], 0.0)
    error = tf.where(known, tf.abs(outputs[:, 1:17] - expected), 0.0)
    huber = tf.where(error < 0.5, error * error, error - 0.25)
    weights = tf.constant([1.0] * 4 + [0.5] * 10 + [ROLL_WEIGHT] * 2)
    box_loss = tf.reduce_sum(huber * weights, axis=-1) * targets[:, 18]
    return 4.0 * score_loss + 0.5 * tf.reduce_sum(box_loss) / tf.maximum(tf.reduce_sum(targets[:, 18]), 1.0)
