"""int8 from a float .tflite, for imported networks that have no Keras file: TensorFlow Lite's own quantizer, which is also
the second half of its converter.

As a program (python -m edgefer.convert.requantize FOLDER OUT) it works in a separate process, which isolates what TensorFlow
does with an untrusted file.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgefer.card import InputSpec
from edgefer.convert.child import Failed, made_apart, serve
from edgefer.convert.quantize import with_extremes
from edgefer.errors import RuntimeFault
from edgefer.preprocess import float_table, look_up
from edgefer.tflite.flatbuffer import Model, Operator, Tensor, float_operators, read_model
from edgefer.tflite.metadata import packed
from edgefer.tflite.rewrite import MADE_HERE, rewritten
from edgefer.tflite.widen import widened

SOURCE, IMAGES, TABLE, DEBUG = "float.tflite", "images.npy", "table.npy", "debug"
TIMEOUT_S = 3600


def tflite_to_int8(content: bytes, spec: InputSpec, calibration: np.ndarray, *, debug: bool = False) -> bytes:
    """The float .tflite, float16 weights included, with int8 input, output and arithmetic: per channel for convolutions, per
    tensor for dense layers, as edgefer.convert.quantize.to_int8 makes it. A softmax at its end is left out
    (edgefer.tflite.rewrite).

    calibration: uint8 [n, h, w, c], images as the network will see them. debug: instead the network for TFLite's
    QuantizationDebugger. RuntimeFault if TensorFlow cannot quantize it, or leaves part of it in float.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SOURCE).write_bytes(content)
        np.save(folder / IMAGES, with_extremes(calibration))
        np.save(folder / TABLE, float_table(spec))
        if debug:
            (folder / DEBUG).touch()
        try:
            made = made_apart("edgefer.convert.requantize", folder, folder, TIMEOUT_S)
        except TimeoutError:
            raise RuntimeFault(f"TensorFlow did not quantize the network within {TIMEOUT_S} s.") from None
        except Failed as failed:
            raise RuntimeFault(f"TensorFlow could not quantize the network: {failed}") from None
    left = dict.fromkeys(operator.name for operator in float_operators(read_model(made, "int8.tflite")))
    if left and not debug:
        raise RuntimeFault(
            f"TensorFlow leaves {', '.join(left)} in float32, so the network would not be int8: replace {'it' if len(left) == 1 else 'them'} "
            "in the network, or run it in float32."
        )
    return made


def for_int8(content: bytes) -> bytes:
    """The float .tflite in float32, with the changes of edgefer.tflite.rewrite, and without metadata: TensorFlow would
    quantize no constant of a file whose metadata is litert-torch's "keep_stablehlo_constant"."""
    from ai_edge_litert import schema_py_generated as schema

    content = widened(content)
    parsed = read_model(content, "float32.tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.metadata = []
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = None  # -1 where the batch size is open
    _apply(model, parsed.main.operators, rewritten(parsed))
    return packed(model, len(content))


def _apply(model: Any, before: Sequence[Operator], changed: Model) -> None:
    """Make a schema.ModelT what `changed` says; before: the operators that it has."""
    graph = model.subgraphs[0]
    for new in changed.main.operators:
        old, numbers = before[new.index], list(graph.operators[new.index].inputs)
        if new.name != old.name:
            _rename(model, graph.operators[new.index], new)
            numbers = numbers[: len(new.inputs)]
        for place, tensor in enumerate(new.inputs):
            if place >= len(old.inputs) or tensor is not old.inputs[place]:
                numbers[place : place + 1] = [_number(model, tensor)]
        graph.operators[new.index].inputs = numbers
    graph.operators = [graph.operators[one.index] for one in changed.main.operators]
    last = {one.tensorIndex: one for signature in model.signatureDefs or () for one in signature.outputs or ()}
    for number, tensor in zip(graph.outputs, changed.main.outputs, strict=True):
        if number in last:
            last[number].tensorIndex = tensor.index
    graph.outputs = [tensor.index for tensor in changed.main.outputs]
    _drop_unused_codes(model)


def _drop_unused_codes(model: Any) -> None:
    """TensorFlow's calibrator refuses a file that lists an operator, or a version of one, that it lacks, even if it is unused."""
    operators = [operator for one in model.subgraphs for operator in one.operators]
    listed = sorted({operator.opcodeIndex for operator in operators})
    model.operatorCodes = [model.operatorCodes[number] for number in listed]
    for operator in operators:
        operator.opcodeIndex = listed.index(operator.opcodeIndex)


def _rename(model: Any, operator: Any, new: Operator) -> None:
    """Make the schema.OperatorT one of another kind, without options."""
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, new.name)
    code.version, operator.opcodeIndex = new.version, len(model.operatorCodes)
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.NONE, None
    model.operatorCodes.append(code)


def _number(model: Any, tensor: Tensor) -> int:
    """The number of a tensor in the file; a constant that was made here is added to it."""
    if tensor.index != MADE_HERE:
        return tensor.index
    from ai_edge_litert import schema_py_generated as schema

    tensors, constant, buffer = model.subgraphs[0].tensors, schema.TensorT(), schema.BufferT()
    buffer.data = np.frombuffer(tensor.data, np.uint8)
    constant.name, constant.shape, constant.buffer = tensor.name, list(tensor.shape), len(model.buffers)
    constant.type = getattr(schema.TensorType, tensor.dtype)
    model.buffers.append(buffer)
    tensors.append(constant)
    return len(tensors) - 1


def _quantize(source: str) -> bytes:
    from edgefer.train.backend import tensorflow

    tf = tensorflow()
    # What tf.lite.TFLiteConverter does after it has made a float .tflite; there is no public name for it.
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

    folder = Path(source)
    images, table = np.load(folder / IMAGES), np.load(folder / TABLE)
    content = for_int8((folder / SOURCE).read_bytes())
    shape = read_model(content, SOURCE).main.inputs[0].shape  # a gray one's may be without channels
    calibrator = Calibrator(add_intermediate_tensors(content))
    calibrated = calibrator.calibrate(lambda: ([look_up(one, table).reshape(shape)] for one in images))
    debug = (folder / DEBUG).exists()
    return mlir_quantize(
        calibrated,
        input_data_type=tf.float32 if debug else tf.int8,
        output_data_type=tf.float32 if debug else tf.int8,
        disable_per_channel_for_dense_layers=True,
        enable_numeric_verify=debug,
    )


if __name__ == "__main__":
    serve(_quantize)
