"""Untrusted SavedModel folders: a graph can read and write files, so its operators are checked before it is loaded.

As a program (python -m edgefer.convert.saved_model FOLDER OUT) it converts in a separate process, which isolates what
TensorFlow does with an untrusted file.
"""

from pathlib import Path
from typing import Any

from edgefer.convert.child import float_tflite, serve, tflite_of
from edgefer.errors import InputError
from edgefer.text import counted, printable

MAX_GRAPH_BYTES = 256 << 20
# The operators of image networks.
OPERATORS = {
    "Add", "AddN", "AddV2", "All", "ArgMax", "Assert", "AssignVariableOp", "AvgPool", "BatchMatMulV2", "BiasAdd",
    "Cast", "Concat", "ConcatV2", "Const", "Conv2D", "DepthwiseConv2dNative", "Div", "Einsum", "Elu", "Enter",
    "Equal", "Exp", "ExpandDims", "Fill", "Floor", "FloorDiv", "FloorMod", "FusedBatchNorm", "FusedBatchNormV2",
    "FusedBatchNormV3", "GatherV2", "Gelu", "Greater", "GreaterEqual", "HardSwish", "Identity", "IdentityN",
    "LeakyRelu", "Less", "LessEqual", "Log", "LogicalAnd", "LogicalNot", "LogicalOr", "MatMul", "Max", "MaxPool",
    "Maximum", "Mean", "Min", "Minimum", "MirrorPad", "Mul", "Neg", "NoOp", "NotEqual", "Pack", "Pad", "PadV2",
    "PartitionedCall", "Placeholder", "Pow", "Prod", "RandomUniform", "Range", "Rank", "ReadVariableOp", "RealDiv",
    "Relu", "Relu6", "Reshape", "ResizeBilinear", "ResizeNearestNeighbor", "Round", "Rsqrt", "Select", "SelectV2",
    "Selu", "Shape", "Sigmoid", "Sign", "Slice", "Softmax", "Softplus", "SpaceToBatchND", "BatchToSpaceND", "Split",
    "SplitV", "Sqrt", "Square", "SquaredDifference", "Squeeze", "StatefulPartitionedCall", "StopGradient",
    "StridedSlice", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unpack", "VarHandleOp", "VarIsInitializedOp",
    "VariableV2", "Assign", "Where", "ZerosLike", "DisableCopyOnRead",
}  # fmt: skip
# Of the functions that save and restore variables, which every SavedModel contains and nothing here calls.
KINDS = {"user_object", "variable", "function", "bare_concrete_function", "constant", "captured_tensor"}
SAVERS = {"SaveV2", "MergeV2Checkpoints", "ShardedFilename", "StringJoin", "RestoreV2", "StaticRegexFullMatch"}


def check_saved_model(folder: Path) -> None:
    """InputError unless the folder is a SavedModel whose graphs hold only arithmetic."""
    from edgefer.files import MAX_NETWORK, read_regular, regular_size
    from edgefer.train.backend import tensorflow

    file = folder / "saved_model.pb"
    if not file.is_file():
        raise InputError(
            f"{folder} is not a SavedModel: it has no saved_model.pb. Name a folder that model.export() wrote, or a file."
        )
    for part in (*folder.glob("*"), *folder.glob("variables/*")):  # TensorFlow would wait for a FIFO
        if not part.is_dir():
            regular_size(part, MAX_NETWORK)
    content = read_regular(file, MAX_GRAPH_BYTES, error=InputError)
    tensorflow()
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel()
    try:
        saved.ParseFromString(content)
    except DecodeError:
        raise InputError(f"{file} cannot be read: save the network again.") from None
    if not saved.meta_graphs:
        raise InputError(f"{file} holds no network.")
    for meta in saved.meta_graphs:
        _check_graph(meta, str(folder))


def _check_graph(meta: Any, where: str) -> None:
    if not meta.object_graph_def.nodes:
        raise InputError(
            f"{where} was saved by TensorFlow 1: save the network again with TensorFlow 2, or make a .tflite."
        )
    if odd := {node.WhichOneof("kind") for node in meta.object_graph_def.nodes} - KINDS:
        raise InputError(
            f"{where} contains {', '.join(sorted(map(str, odd)))}, which runs code on loading: edgefer does not load it."
        )
    functions = {function.signature.name: function.node_def for function in meta.graph_def.library.function}
    left, called = list(meta.object_graph_def.concrete_functions), set()
    while left:  # everything reachable by loading or running the network
        if (name := left.pop()) in called or name not in functions:
            continue
        called.add(name)
        for node in functions[name]:
            for value in node.attr.values():
                left += [one.name for one in (value.func, *value.list.func) if one.name]
    for name, nodes in (("", meta.graph_def.node), *functions.items()):
        for node in nodes:
            if node.op not in (OPERATORS if name in called else OPERATORS | SAVERS) and node.op not in functions:
                raise InputError(
                    f"{where} holds the operator {printable(node.op)!r:.60}, which edgefer does not load: it may have side effects, or is "
                    "not for images. Save the network as .keras, or convert it to .tflite."
                )


def to_tflite(folder: Path) -> bytes:
    """The float32 .tflite of a checked SavedModel. InputError if TensorFlow cannot convert it."""
    return tflite_of(folder, "edgefer.convert.saved_model", "TensorFlow")


def _convert(folder: str) -> bytes:
    from edgefer.train.backend import tensorflow

    tf = tensorflow()
    loaded = tf.saved_model.load(folder)
    if "serving_default" not in loaded.signatures:
        named = f", but {', '.join(loaded.signatures)}" if loaded.signatures else ""
        raise ValueError(f"it has no signature serving_default{named}: save it with model.export(), which writes one")
    signature = loaded.signatures["serving_default"]
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"its serving_default takes {counted(len(inputs), 'input')} and gives {counted(len(outputs), 'output')}, not one each: "
            "save a network of the one output with the labels"
        )
    ((name, spec),) = inputs.items()
    if spec.shape.rank is None or spec.shape[0] not in (None, 1) or None in spec.shape[1:]:
        raise ValueError(
            f"it takes {spec.shape}, not one image of a known size, or any number of them: save it with a fixed input size"
        )
    image = tf.TensorSpec((1, *spec.shape[1:]), spec.dtype)
    return float_tflite(image, lambda pixels: next(iter(signature(**{name: pixels}).values())))


if __name__ == "__main__":
    serve(_convert)
