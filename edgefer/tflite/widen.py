"""float32 from a .tflite with float16 weights, which TensorFlow's quantizer does not take."""

from typing import Any

import numpy as np

from edgefer.tflite.metadata import packed


def widened(content: bytes) -> bytes:
    """The .tflite with its float16 constants as float32, and without the DEQUANTIZE operators that widen them on loading;
    unchanged if it has none."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    changed = [_widen(graph, model, schema) for graph in model.subgraphs]
    if not any(changed):
        return content
    return packed(model, 2 * len(content))


def _widen(graph: Any, model: Any, schema: Any) -> bool:
    """Widen a graph's constants; whether it has any."""
    constants = set()
    for number, tensor in enumerate(graph.tensors):
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.FLOAT16 and data is not None and tensor.sparsity is None:
            constants.add(number)
            buffer = schema.BufferT()  # a new one, since tensors may share the old one
            buffer.data = np.frombuffer(bytes(data), "<f2").astype("<f4").view(np.uint8)
            tensor.type, tensor.buffer = schema.TensorType.FLOAT32, len(model.buffers)
            model.buffers.append(buffer)

    def widens(operator: Any) -> bool:
        code = model.operatorCodes[operator.opcodeIndex]
        return code.builtinCode == schema.BuiltinOperator.DEQUANTIZE and operator.inputs[0] in constants

    instead = {operator.outputs[0]: operator.inputs[0] for operator in graph.operators if widens(operator)}
    graph.operators = [operator for operator in graph.operators if not widens(operator)]
    for operator in graph.operators:
        operator.inputs = [instead.get(number, number) for number in operator.inputs]
    return bool(constants)
