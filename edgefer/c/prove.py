"""The first of two steps of proof: the C code, compiled on this host, against the stored pixels and answers, bit-exact.

The second step is each target against the C code, by its own self-test with the same vectors.
"""

from itertools import cycle

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.c.host import FLAGS, HostNetwork, compiler, program_version
from edgefer.c.pixels import HostPixels
from edgefer.c.subject import Subject, read_subject
from edgefer.checks import Check, Status, status_if
from edgefer.tflite import arithmetic
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.vectors import ROLLS_DEG

IN_C, NUMPY = "int8 in C", "int8 in numpy"  # verify runs numpy itself
NUMPY_IMAGES = 12  # of the stored ones: numpy takes 0.2 s per image


def check_in_c(bundle: Bundle) -> list[Check]:
    """The checks for `edgefer verify`: a row says why if the C code does not support the network."""
    if not bundle.has(Form.INT8):
        return []
    try:
        return [check for check in prove_on_host(read_subject(bundle)) if check.subject != NUMPY]
    except UnsupportedNetwork as error:
        return [Check(question=3, subject=IN_C, status=Status.NOT_CHECKED, detail=str(error))]


def prove_on_host(subject: Subject) -> list[Check]:
    """Rows of questions 1 and 3. Without a compiler they say so, and numpy checks question 3 on some of the images."""
    vectors, program = subject.vectors, compiler()
    if program is None:
        reason = "no C compiler on this host (cc, gcc, clang)"
        missing = [
            Check(question=question, subject=name, status=Status.NOT_CHECKED, detail=reason, fix="sudo apt install gcc")
            for question, name in ((1, "pixels in C"), (3, IN_C))
        ]
        return [*missing, _against_numpy(subject)]
    version = program_version(program)
    method = f"{version}, {' '.join(FLAGS)}"
    answers = HostNetwork(subject.program).answers(vectors.pixels)
    return [
        _row(1, "pixels in C", "pixels", *_crops(subject), method),
        _row(3, IN_C, "answers", answers, vectors.answers, method),
    ]


def _crops(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The C code's crops, and the stored ones: uint8 [n, h, w, c]; the levelled ones too, where they are stored."""
    vectors, spec, pixels = subject.vectors, subject.bundle.card.input, HostPixels()
    stored = [(vectors.crops, (0.0,))] + ([] if vectors.levelled is None else [(vectors.levelled, ROLLS_DEG)])
    crops = [
        pixels.face(frame, tuple(box), vectors.crop, spec, roll)
        for _, rolls_deg in stored
        for frame, box, roll in zip(vectors.frames, vectors.boxes, cycle(rolls_deg), strict=False)
    ]
    return np.stack(crops), np.concatenate([expected for expected, _ in stored])


def _against_numpy(subject: Subject) -> Check:
    vectors = subject.vectors
    some = slice(None, None, max(1, len(vectors.pixels) // NUMPY_IMAGES))
    answers = arithmetic.answers(subject.network, vectors.pixels[some])
    return _row(3, NUMPY, "answers", answers, vectors.answers[some], "")


def _row(question: int, subject: str, unit: str, got: np.ndarray, expected: np.ndarray, method: str) -> Check:
    wrong = int((got != expected).sum())
    detail = f"{wrong:,} of {expected.size:,} {unit} differ" + (f" ({method})" if method else "")
    return Check(question=question, subject=subject, status=status_if(wrong == 0), detail=detail)
