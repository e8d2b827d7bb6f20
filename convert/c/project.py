"""The files of `edgefer export c`: kernels, the network as a constant, its self-test, a Makefile and a README."""

import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from edgefer import __version__
from edgefer.c.pixels import COLORS
from edgefer.c.prove import prove_on_host
from edgefer.c.subject import Subject
from edgefer.card import CropSpec
from edgefer.checks import Check, table
from edgefer.convert.c import text, tflm
from edgefer.convert.exported import check_folder, write_folder
from edgefer.options import ReaderOptions
from edgefer.tflite.int8_network import Int8Network

SOURCES = (
    "edgefer_net.h", "edgefer_net.c", "edgefer_pixels.h", "edgefer_pixels.c", "selftest.c", "platform.h",
    "platform_host.c", "platform_arm.c", "platform_riscv.c", "memory.c", "stm32f405.ld", "riscv.ld", "Makefile",
)  # fmt: skip
SELF_TESTS = """Each target runs the same self-test, bit for bit, and detects a changed bit in the network, its labels or
its settings by their CRC-32; `edgefer verify` of this folder compares the hashes of all files:

    make test     # this host
    make arm      # STM32F405 (Cortex-M4, 1 MB flash, 128 KB RAM) in QEMU
    make riscv    # RV32IMC in QEMU

Each prints the label of each stored image, if the network reads faces, how many settings, pixels and answers differ
(0), and PASS, and exits with 0. On a board, write a `platform_print` that prints to its UART. With QEMU's
`-icount shift=0` an instruction takes one nanosecond and the Cortex-M4's ticks are of a 168 MHz clock: instructions =
ticks / 0.168. On hardware they are cycles. QEMU proves answers; it does not measure a board's time.

"""
USE = """## Use

```c
#include "edgefer_net.h"
#include "edgefer_pixels.h"
#include "network.h"

static uint8_t arena[EDGEFER_ARENA_BYTES] __attribute__((aligned(16)));
static uint8_t face[EDGEFER_INPUT_BYTES];

int read_face(const EdgeferFrame *frame, const int32_t box[4], const EdgeferCrop *crop) {
  int8_t answers[EDGEFER_ANSWERS];
  int32_t square[3], best = 0, i;
  edgefer_square(box, crop, square); /* crop: EDGEFER_CROP_<your detector> of network.h */
  edgefer_face(frame, square, 0, EDGEFER_INPUT_HEIGHT, EDGEFER_INPUT_WIDTH, EDGEFER_INPUT_COLOR, face);
  edgefer_run(edgefer_network, face, arena, answers);
  for (i = 1; i < EDGEFER_LABELS; i++)
    if (answers[i] > answers[best]) best = i;
  return best; /* edgefer_labels[best] */
}
```

A frame is uint8, without padding between rows: `EDGEFER_GRAY` (a gray sensor, or a camera's Y plane), `EDGEFER_BGR` or
`EDGEFER_RGBA`; convert other formats into one of these first.

    EdgeferFrame frame = {camera_buffer, 240, 320, EDGEFER_GRAY};

The box (left, top, right, bottom, in pixels) is your face detector's; this folder has none. `network.h` says how the boxes
of edgefer's detectors are cropped for this network. Without a detector, have the user's face fill a square in the middle:

    const int32_t box[4] = {40, 0, 280, 240};
    const EdgeferCrop crop = {1.0, 0.0, 0.0};

The softmax of the answers, as in `network.h`, is the probability; `edgefer run` also shows "unsure" below @REJECT@ and averages
over time, which this code does not. Expressions are not feelings.

"""
DETECTOR_USE = """## Use

`edgefer_run(edgefer_network, pixels, arena, answers)` writes the answers that `network.h` describes. Decoding them to boxes
is not part of this folder; edgefer does it in `edgefer.devices.faces`.

"""
COMPILE = """Compile `edgefer_net.c` with `-O2`, and without `-ffast-math`; `edgefer_pixels.c` also with
`-ffp-contract=off`. Cortex-M4 and M7 use SMLAD, WebAssembly SIMD128 if enabled; the answers are the same. The headers
can be included from C++; compile the `.c` files as C.

"""
TAKEN = ("edgefer_net.c", "edgefer_pixels.c", "network.c")


def export_c(subject: Subject, out: Path) -> list[Check]:
    """Write the project at `out`, and return the checks made on this host."""
    check_folder(out)
    checks = prove_on_host(subject)
    write_folder(out, "c", subject.bundle, make_project(subject, checks), checks)
    return checks


def make_project(subject: Subject, checks: Sequence[Check]) -> dict[str, bytes]:
    """Every file by name. checks: for the README's proof."""
    folder = resources.files("edgefer.c").joinpath("source")
    files = {name: folder.joinpath(name).read_bytes() for name in SOURCES}
    made = {
        "network.h": _network_header(subject),
        "network.c": _network_source(subject),
        "vectors.h": _vectors_header(subject),
        "model.h": tflm.model_header(subject.content),
        "README.md": _readme(subject, checks),
    }
    return files | {name: content.encode() for name, content in made.items()}


def _title(subject: Subject) -> str:
    return f"{text.comment(subject.bundle.card.name)}, bundle {subject.bundle.hash}, by edgefer {__version__}"


def _network_header(subject: Subject) -> str:
    card, program, network = subject.bundle.card, subject.program, subject.network
    values = {
        "NETWORK_WORDS": len(program.words),
        "NETWORK_CRC": f"0x{program.crc:08x}u",
        "ARENA_BYTES": program.plan.size,
        "INPUT_HEIGHT": card.input.height,
        "INPUT_WIDTH": card.input.width,
        "INPUT_CHANNELS": card.input.channels,
        "INPUT_COLOR": f"{COLORS[card.input.color]} /* {card.input.color} */",
        "INPUT_BYTES": network.input.size,
        "LABELS": len(card.labels),
        "ANSWERS": network.answers,
        "OUTPUT_SCALE": f"{text.double(float(network.output.scale))}f",
        "OUTPUT_ZERO": network.output.zero,
        "TEMPERATURE": text.double(card.temperature),
    }
    if card.task == "read":
        values["READS"] = "1 /* its largest answer is a label; other networks detect or refine faces */"
    defines = "\n".join(f"#define EDGEFER_{name} {value}" for name, value in values.items())
    crops = "".join(
        f"\n#define EDGEFER_CROP_{macro} {_crop(card.crops[name])} /* {text.comment(name)} */"
        for name, macro in text.macros(card.crops).items()
    )
    if crops:
        crops = f"\n/* EdgeferCrop: turns a detector's box into the square that the network was trained on. */{crops}"
    return f"""/* {_title(subject)}
 *
{_meaning(network)}
 */
#ifndef EDGEFER_NETWORK_H
#define EDGEFER_NETWORK_H

#include <stdint.h>

{defines}{crops}

#ifdef __cplusplus
extern "C" {{
#endif

extern const uint32_t edgefer_network[EDGEFER_NETWORK_WORDS];
extern const char *const edgefer_labels[EDGEFER_LABELS]; /* UTF-8 */

#ifdef __cplusplus
}}
#endif

#endif
"""


def _crop(crop: CropSpec) -> str:
    return f"{{{text.double(crop.scale)}, {text.double(crop.dx)}, {text.double(crop.dy)}}}"


def _meaning(network: Int8Network) -> str:
    if network.answers == network.output.size and len(network.output.shape) == 1:
        return " * Probability of label i: softmax of EDGEFER_OUTPUT_SCALE * (answers[i] - EDGEFER_OUTPUT_ZERO) / EDGEFER_TEMPERATURE."
    lines, place = [], 0
    for value in network.outputs:
        shape, scale = " x ".join(map(str, value.shape)), text.double(float(value.scale))
        lines.append(f" * answers[{place}...]: {shape}, each {scale} * (answer - {value.zero})")
        place += value.size
    return "\n".join(lines)


def _network_source(subject: Subject) -> str:
    labels = ",\n".join(f"    {text.string(label)}" for label in subject.bundle.card.labels)
    return f"""/* {_title(subject)} */
#include "network.h"

const char *const edgefer_labels[EDGEFER_LABELS] = {{
{labels}}};

const uint32_t edgefer_network[EDGEFER_NETWORK_WORDS] __attribute__((aligned(16))) = {{
{text.words(subject.program.words)}}};
"""


def _vectors_header(subject: Subject) -> str:
    vectors, card, output = subject.vectors.small(), subject.bundle.card, subject.network.output
    crop = vectors.crop
    macros = text.macros(card.crops)
    crops = "".join(f",\nEDGEFER_CROP_{macro}" for macro in macros.values())
    settings = [[float(output.scale), output.zero, card.temperature]]
    settings += [[card.crops[name].scale, card.crops[name].dx, card.crops[name].dy] for name in macros]
    labels = [zlib.crc32(label.encode()) for label in card.labels]
    return f"""/* The self-test's inputs, and the host's answers. */
#define VECTOR_FRAMES {len(vectors.frames)}
#define VECTOR_FRAME_HEIGHT {vectors.frames.shape[1]}
#define VECTOR_FRAME_WIDTH {vectors.frames.shape[2]}
#define VECTOR_CROP_SCALE {text.double(crop.scale)}
#define VECTOR_CROP_DX {text.double(crop.dx)}
#define VECTOR_CROP_DY {text.double(crop.dy)}
#define VECTORS {len(vectors.pixels)}
#define VECTOR_SETTINGS_CRC 0x{zlib.crc32(np.array(settings, "<f8").tobytes()):08x}u

/* The settings of network.h, and the CRC-32 of each label. */
static const double vector_settings[][3] = {{
{{EDGEFER_OUTPUT_SCALE, EDGEFER_OUTPUT_ZERO, EDGEFER_TEMPERATURE}}{crops}}};
static const uint32_t vector_label_crcs[EDGEFER_LABELS] = {{
{text.words(np.array(labels, np.uint32))}}};

static const uint8_t vector_frames[VECTOR_FRAMES][VECTOR_FRAME_HEIGHT * VECTOR_FRAME_WIDTH * 3] = {{
{text.rows(vectors.frames)}}};
static const int32_t vector_boxes[VECTOR_FRAMES][4] = {{
{text.rows(vectors.boxes)}}};
static const uint8_t vector_crops[VECTOR_FRAMES][EDGEFER_INPUT_BYTES] = {{
{text.rows(vectors.crops)}}};
static const uint8_t vector_pixels[VECTORS][EDGEFER_INPUT_BYTES] = {{
{text.rows(vectors.pixels)}}};
static const int8_t vector_answers[VECTORS][EDGEFER_ANSWERS] = {{
{text.rows(vectors.answers)}}};
"""


def _logits(subject: Subject) -> str:
    if len(subject.network.outputs) > 1:
        return "`network.h` has the scale and zero point of each output"
    output = subject.network.output
    temperature = f"temperature {subject.bundle.card.temperature:.6g}"
    return f"real logit = {float(output.scale):.9g} * (answer - {output.zero}), {temperature}"


def _readme(subject: Subject, checks: Sequence[Check]) -> str:
    card, program, network = subject.bundle.card, subject.program, subject.network
    columns, rows = table(checks)
    proven = "\n".join(f"| {' | '.join(row)} |" for row in [columns, tuple("---" for _ in columns), *rows])
    small = subject.vectors.small()
    constants = 4 * len(program.words)
    vectors = sum(a.nbytes for a in (small.frames, small.crops, small.pixels, small.answers)) + 4 * small.boxes.size
    largest = max(network.layers, key=lambda layer: layer.macs)
    use = USE.replace("@REJECT@", str(ReaderOptions.reject)) if card.task == "read" else DETECTOR_USE
    return f"""# {text.readable(card.name)} in C99

Bundle `{subject.bundle.hash}`, {text.credit(card)}; written by edgefer {__version__}, whose C is Apache-2.0.
No heap, no libc. The network's kernels divide no floating-point numbers; `edgefer_pixels.c` computes in double.

| | |
|---|---|
| input | {card.input.height} x {card.input.width} {card.input.color}, uint8 |
| labels | {len(card.labels)}: {", ".join(text.readable(label) for label in card.labels)} |
| flash: the network | {constants:,} bytes |
| flash: the self-test's vectors, not needed afterwards | {vectors:,} bytes |
| flash: code | `make size`: {", ".join(f"`{name}`" for name in TAKEN)} are what firmware needs |
| RAM: arena, known at compile time | {program.plan.size:,} bytes |
| RAM: the input's pixels and the answers | {network.input.size + network.answers:,} bytes |
| multiply-adds per image | {network.macs:,}; most in {largest.kind} {largest.number + 1} ({largest.macs:,}) |
| answers | int8; {_logits(subject)} |

## Proof

{proven}

{SELF_TESTS}{use}{COMPILE}## TensorFlow Lite Micro instead

{tflm.readme(subject)}
"""
