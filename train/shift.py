"""What a camera does to a face that a data set did not: where a network breaks, seen before it is deployed."""

from collections.abc import Callable

import cv2
import numpy as np

Change = Callable[[np.ndarray], np.ndarray]  # one picture, uint8 [h, w, c], to another of the same shape


def _warp(
    image: np.ndarray, *, angle_deg: float = 0.0, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> np.ndarray:
    """Rotate and scale about the centre and shift by shares of the side, repeating the border."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, scale)
    matrix[:, 2] += np.array([dx * width, dy * height])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _small(image: np.ndarray, side: int) -> np.ndarray:
    """As a face of `side` pixels looks once it is enlarged for the network."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "box 10% to the right": lambda image: _warp(image, dx=-0.1),
    "box 10% too low": lambda image: _warp(image, dy=-0.1),
    "box too wide: face at 0.8": lambda image: _warp(image, scale=0.8),
    "box too tight: face at 1.3": lambda image: _warp(image, scale=1.3),
    "head tilted 15 degrees": lambda image: _warp(image, angle_deg=15),
    "head tilted 30 degrees": lambda image: _warp(image, angle_deg=30),
    "dark: 35% of the light": lambda image: (image * 0.35).astype(np.uint8),
    "blurred: sigma 1.5 px": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    "JPEG quality 15": lambda image: _jpeg(image, 15),
    "a 24-pixel face": lambda image: _small(image, 24),
}


def changed(images: np.ndarray, change: Change) -> np.ndarray:
    """`change` done to each picture: uint8 [n, h, w, c] -> the same shape."""
    return np.stack([change(image).reshape(image.shape) for image in images])
