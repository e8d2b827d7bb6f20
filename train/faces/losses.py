"""What the face networks minimize."""

from edgefer.faces import BOX_GAIN
from edgefer.train.backend import tensorflow

ROLL_WEIGHT = 3.0  # against 1.0 of a box: with as little, 25 degrees in one portrait were answered by 17


def finder_loss(maps, targets, grid):
    """maps: float32 [n, h, w, 5] for each stride; targets: as from `finder_targets`, [n, cells, 6]; grid: `cell_grid`.

    Quality focal loss (Li et al. 2020, arXiv:2006.04388): a cell that finds a face should answer how well its box fits. Boxes by
    GIoU (Rezatofighi et al. 2019), with a little of the plain distance that helps while they do not overlap yet.
    """
    tf = tensorflow()
    answers = tf.concat([tf.reshape(one, [tf.shape(one)[0], -1, 5]) for one in maps], axis=1)
    logit, code = answers[..., 0], answers[..., 1:] / BOX_GAIN
    target, weight, box = targets[..., 0], targets[..., 1], targets[..., 2:]
    centre = grid[:, :2] + code[..., :2] * grid[:, 2:3]
    size = grid[:, 3:4] * tf.exp(tf.clip_by_value(code[..., 2:], -4.0, 4.0))
    iou, giou = overlap(centre, size, box[..., :2], box[..., 2:])
    wanted = target * tf.stop_gradient(tf.clip_by_value(iou, 0.3, 1.0))
    score = tf.sigmoid(logit)
    cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logit)
    found = tf.cast(target > 0, tf.float32)
    faces = tf.maximum(tf.reduce_sum(found), 1.0)
    classify = tf.reduce_sum(weight * cross * tf.square(wanted - score)) / faces
    exact = tf.concat([(box[..., :2] - grid[:, :2]) / grid[:, 2:3], tf.math.log(box[..., 2:] / grid[:, 3:4])], -1)
    apart = tf.reduce_sum(tf.minimum(tf.abs(code - exact), 2.0), axis=-1)
    place = tf.reduce_sum(found * ((1 - giou) + 0.2 * apart)) / faces
    return 2.0 * classify + place


def overlap(centre, size, other_centre, other_size):
    """IoU and generalized IoU of boxes [..., 2] and [..., 2]."""
    tf = tensorflow()
    low, high = centre - size / 2, centre + size / 2
    other_low, other_high = other_centre - other_size / 2, other_centre + other_size / 2
    both = tf.reduce_prod(tf.maximum(tf.minimum(high, other_high) - tf.maximum(low, other_low), 0.0), axis=-1)
    union = tf.reduce_prod(size, axis=-1) + tf.reduce_prod(other_size, axis=-1) - both
    hull = tf.reduce_prod(tf.maximum(high, other_high) - tf.minimum(low, other_low), axis=-1)
    iou = both / tf.maximum(union, 1e-6)
    return iou, iou - (hull - union) / tf.maximum(hull, 1e-6)


def refiner_loss(answers, targets):
    """answers: [n, 17]; targets: [n, 19]: score target, its weight, then what `encode_refined` gives, NaN where unknown, and a weight
    for those."""
    tf = tensorflow()
    logit = answers[:, 0]
    cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets[:, 0], logits=logit)
    focus = 0.25 + tf.abs(targets[:, 0] - tf.sigmoid(logit))  # the doubtful count more, and the easy still a little
    classify = tf.reduce_mean(targets[:, 1] * cross * focus)
    known = tf.math.is_finite(targets[:, 2:18])
    wanted = tf.where(known, targets[:, 2:18], 0.0)
    off = tf.where(known, tf.abs(answers[:, 1:17] - wanted), 0.0)
    huber = tf.where(off < 0.5, off * off, off - 0.25)
    weights = tf.constant([1.0] * 4 + [0.5] * 10 + [ROLL_WEIGHT] * 2)
    place = tf.reduce_sum(huber * weights, axis=-1) * targets[:, 18]
    return 4.0 * classify + 0.5 * tf.reduce_sum(place) / tf.maximum(tf.reduce_sum(targets[:, 18]), 1.0)
