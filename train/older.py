"""The networks of the older systems that edgefer replaces, layer by layer as they were."""

from edgefer.train.backend import batch_norm
from edgefer.train.recipe_fields import Model
from edgefer.train.zscore import conv_padding


def four_block(model: Model, pixels):
    """Features [n, dense] of four blocks, with ReLU before batch norm."""
    from tf_keras import layers

    x = pixels
    for number, filters in enumerate(model.widths):
        x = layers.Conv2D(filters, 3, padding=conv_padding(model, number == 0), activation="relu")(x)
        x = batch_norm()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(model.dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(model.dense, activation="relu")(x)
    x = batch_norm()(x)
    return layers.Dropout(min(0.9, 2 * model.dropout))(x)


def cnn_mlp(model: Model, x):
    """Features [n, dense / 2] of a CNN and an MLP; with global pooling they hold nothing of where things are in the
    image."""
    from tf_keras import layers

    for number, filters in enumerate(model.widths):
        x = layers.Conv2D(filters, 3, padding=conv_padding(model, number == 0), activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    if model.pooling == "grid":
        x = layers.AveragePooling2D(tuple(max(1, side // 4) for side in x.shape[1:3]))(x)
        x = layers.Flatten()(x)
    else:
        x = layers.GlobalAveragePooling2D()(x)
    for units in (model.dense, model.dense // 2):
        x = layers.Dense(units, activation="relu")(x)
        x = layers.Dropout(model.dropout)(x) if model.dropout else x
    return x
