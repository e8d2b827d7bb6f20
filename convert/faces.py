"""Converts a face-detection network to TFLite: float32, and int8 calibrated on its training images."""

from pathlib import Path

import numpy as np

from edgefer.bundle import PARITY, Bundle, Form, write_bundle
from edgefer.convert.quantize import to_float32, to_int8
from edgefer.train.keras_file import read_keras
from edgefer.vectors import make_vectors


def convert_faces(
    source: Bundle, calibration: np.ndarray, out: Path, *, author: str = "", license_: str = ""
) -> Bundle:
    """Write the bundle with float32, int8 and parity vectors at `out`.

    calibration: uint8 [n, h, w, 1]. Accuracy, and what int8 costs, is measured on finder and refiner together
    (tests/benchmarks/compare_detectors.py), not on the labels of a split.
    """
    content = source.read(Form.KERAS)
    model = read_keras(content, str(source.file(Form.KERAS)))
    networks = {Form.FLOAT32: to_float32(model), Form.INT8: to_int8(model, calibration)}
    provenance = source.card.provenance
    card = source.card.model_copy(
        update={
            "author": author or source.card.author,
            "license": license_ or source.card.license,
            "provenance": provenance.model_copy(
                update={"conversion": (f"quantize to int8, calibrated on {len(calibration)} images",)}
            ),
        }
    )
    vectors = make_vectors(card, {str(form): network for form, network in networks.items()})
    return write_bundle(
        out,
        card,
        {str(form): content for form, content in ((Form.KERAS, content), *networks.items(), (PARITY, vectors))},
    )
