"""OpenVINO with the interface of a TFLite interpreter; it reads .tflite files directly.

Its int8 kernels compute in float and round differently, so they count as foreign ones: see edgefer.parity.
"""

import tempfile
from enum import Enum
from pathlib import Path

import numpy as np

from edgefer.tflite.flatbuffer import Tensor, read_model


class OpResolverType(Enum):
    """The kernels, with the names of TFLite's runtimes; there are no reference ones."""

    AUTO = 0
    BUILTIN_REF = 1


class Interpreter:
    """One network. ValueError for features that OpenVINO lacks; RuntimeError from OpenVINO itself."""

    def __init__(
        self,
        *,
        model_content: bytes,
        num_threads: int = 1,
        experimental_delegates: list | None = None,
        experimental_op_resolver_type: OpResolverType = OpResolverType.AUTO,
        experimental_preserve_all_tensors: bool = False,
    ):
        import openvino

        if experimental_delegates or experimental_preserve_all_tensors:
            raise ValueError("OpenVINO supports no TFLite delegates and keeps no inner tensors: use --runtime litert")
        if experimental_op_resolver_type is not OpResolverType.AUTO:
            raise ValueError("OpenVINO has no reference kernels")
        graph = read_model(model_content, "the network").main
        self._tensors = {tensor.index: tensor for tensor in (*graph.inputs, *graph.outputs)}
        self._inputs = [tensor.index for tensor in graph.inputs]
        self._outputs = [tensor.index for tensor in graph.outputs]
        self._core = openvino.Core()
        self._options = {"INFERENCE_NUM_THREADS": num_threads, "PERFORMANCE_HINT": "LATENCY"}
        with tempfile.TemporaryDirectory(prefix="edgefer-openvino-") as folder:  # it reads .tflite only from a file
            file = Path(folder) / "network.tflite"
            file.write_bytes(model_content)
            self._model = self._core.read_model(str(file))

    def allocate_tensors(self) -> None:
        self._compiled = self._core.compile_model(self._model, "CPU", self._options)
        self._request = self._compiled.create_infer_request()

    def resize_tensor_input(self, index: int, shape: tuple[int, ...]) -> None:
        self._model.reshape({self._tensors[index].name: list(shape)})

    def get_input_details(self) -> list[dict]:
        return [self._details(self._tensors[index], self._compiled.input) for index in self._inputs]

    def get_output_details(self) -> list[dict]:
        return [self._details(self._tensors[index], self._compiled.output) for index in self._outputs]

    def _details(self, tensor: Tensor, port) -> dict:
        quantization = (tensor.steps[0], tensor.zero) if tensor.scales == 1 else (0.0, 0)
        return {
            "name": tensor.name,
            "index": tensor.index,
            "shape": np.array(port(tensor.name).shape, np.int32),
            "dtype": port(tensor.name).get_element_type().to_dtype().type,
            "quantization": quantization,
        }

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        place = self._request.get_tensor(self._tensors[index].name).data
        if value.shape != place.shape or value.dtype != place.dtype:
            raise ValueError(f"it takes {place.dtype} {place.shape}, not {value.dtype} {value.shape}")
        place[...] = value

    def invoke(self) -> None:
        self._request.infer()

    def get_tensor(self, index: int) -> np.ndarray:
        return self._request.get_tensor(self._tensors[index].name).data.copy()
