"""Runs a TFLite network on an installed runtime, and converts its outputs to probabilities."""

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from edgefer.bundle import EDGETPU_OPERATOR, Bundle, Form
from edgefer.card import InputSpec, ModelCard, OutputSpec
from edgefer.errors import BundleError, EdgeferError, InputError, MissingDependency, RuntimeFault
from edgefer.options import DeviceName, choice
from edgefer.preprocess import float_table, look_up, quantized_table, to_float, to_int8
from edgefer.quiet import quiet
from edgefer.runtimes import RUNTIMES, installed_runtimes
from edgefer.shortage import shortage_of
from edgefer.timeouts import TimedOut, run_with_timeout

EDGETPU_LIBRARY = "libedgetpu.so.1"
INT8_SCALE, INT8_ZERO = 1 / 255, -128  # of the input of edgefer's own int8 networks
LOGITS = OutputSpec()
INTEGER_DTYPES = (np.int8, np.uint8, np.int16)  # of inputs and outputs
MIN_LEVELS = 128  # of 256: a quantized input that distinguishes fewer pixel values does not match the card
MAX_IMAGE_S = 20.0  # time limit for one image
MIN_PROBABILITY = 1e-7  # replaces a float probability of 0; a quantized one is replaced by half a step

Images = np.ndarray | Sequence[np.ndarray]  # uint8 [n, h, w, c], or a list of [h, w, c]: it need not be stacked


def _runtime_module(runtime: str) -> ModuleType:
    if runtime not in RUNTIMES:
        raise InputError(f"There is no runtime {runtime!r}: choose {', '.join(RUNTIMES)}, or auto.")
    module, package, needs = RUNTIMES[runtime]
    fix = f"pip install {package}"
    if runtime == "tflite-runtime":  # the extra asks for numpy and OpenCV as old as it needs, too
        fix = "pip install 'edgefer[tflite-runtime]' on Python 3.11, or use --runtime litert"
    if runtime == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
        raise MissingDependency(f"tflite-runtime cannot work with numpy {np.__version__}: {fix}.")
    try:
        with quiet():
            import_module(needs)
            return import_module(module)
    except ImportError as error:
        if sentence := shortage_of(error):
            raise EdgeferError(sentence) from None
        raise MissingDependency(f"The {runtime} runtime cannot be loaded ({error}): {fix}.") from None


def _edgetpu_delegate(load_delegate: Callable, library: str):
    """The runtime's delegate for a Coral Edge TPU. MissingDependency without its library, RuntimeFault without the device."""
    try:
        # The library first: load_delegate does not say which of the two is missing, and prints a traceback.
        _ = ctypes.CDLL(library).tflite_plugin_create_delegate
    except (OSError, AttributeError) as error:
        raise MissingDependency(
            f"Coral's runtime {library} cannot be loaded ({error}): install libedgetpu1-std, or run with --device cpu."
        ) from None
    try:
        return load_delegate(library)
    except ValueError as error:
        reason = " ".join(str(error).removeprefix(f"Failed to load delegate from {library}").split())
        raise RuntimeFault(
            f"{library} found no Edge TPU it can use{f' ({reason})' if reason else ''}: plug it in, check that this user "
            "may open it (group plugdev), or run with --device cpu."
        ) from None


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """The runtime of a .tflite.

    runtime: "litert", "tflite-runtime", "tensorflow", "openvino", or "auto" for the first installed one.
    kernels, on the CPU: "optimized", or "reference", TFLite's plain C++, slow and the same everywhere.
    device: "cpu", or "coral" for an Edge TPU, which needs a network compiled for it and never falls back to the CPU.
    """

    runtime: str = "auto"
    threads: int = 1
    kernels: str = "optimized"
    device: str = "cpu"
    edgetpu_library: str = EDGETPU_LIBRARY


ANY_RUNTIME = RuntimeOptions()
THE_NETWORK = "The network"  # the name of one without a file


def open_interpreter(
    content: bytes, options: RuntimeOptions = ANY_RUNTIME, *, name: str = THE_NETWORK, keep_all: bool = False
) -> tuple[str, Any]:
    """Open a .tflite on a runtime and allocate its tensors: the runtime's name and its interpreter.

    name: the network's, for error messages. keep_all: every tensor can be read after a run, which makes it slower.
    """
    runtime = options.runtime
    if runtime == "auto":
        installed = installed_runtimes()
        if not installed:
            raise MissingDependency("No TFLite runtime is installed: pip install ai-edge-litert.")
        runtime = installed[0]
    module = _runtime_module(runtime)
    delegates = None
    if options.device == "coral":
        if EDGETPU_OPERATOR.encode() not in content:  # the delegate would accept it, and leave all of it on the CPU
            raise BundleError(f"{name} is not compiled for the Edge TPU: run `edgefer convert --edgetpu` first.")
        if not hasattr(module, "load_delegate"):
            raise InputError(f"--device coral needs a TFLite runtime, and {runtime} is none: use --runtime litert.")
        delegates = [_edgetpu_delegate(module.load_delegate, options.edgetpu_library)]
    resolver = module.OpResolverType.BUILTIN_REF if options.kernels == "reference" else module.OpResolverType.AUTO
    try:
        with quiet():
            interpreter = module.Interpreter(
                model_content=content,
                num_threads=options.threads,
                experimental_delegates=delegates,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=keep_all,
            )
            interpreter.allocate_tensors()
            interpreter.get_input_details(), interpreter.get_output_details()
    except (ValueError, RuntimeError, SystemError) as error:
        raise RuntimeFault(f"{name} cannot be loaded by {runtime}: {' '.join(str(error).split())}") from None
    return runtime, interpreter


class Network:
    """One .tflite network on one runtime: uint8 pixels in, logits out.

    content: the .tflite file. spec, classes: the required input and output; BundleError if they differ.
    output: whether it returns logits or probabilities, whose logarithms `logits` then gives; its own `output` is one of
    "logits", "probabilities" and "log-probabilities".
    maps: whether it returns several maps, which are concatenated, the largest first. options: its runtime.
    name: for error messages.
    """

    def __init__(
        self,
        content: bytes,
        spec: InputSpec,
        classes: int,
        *,
        output: OutputSpec = LOGITS,
        maps: bool = False,
        options: RuntimeOptions = ANY_RUNTIME,
        name: str = THE_NETWORK,
    ):
        self.name = name
        self.runtime, self._interpreter = open_interpreter(content, options, name=name)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or (len(outputs) != 1 and not maps):
            raise BundleError(
                f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; edgefer runs networks of one image "
                "in and one row of answers out."
            )
        if maps:
            outputs = sorted(outputs, key=lambda one: -math.prod(one["shape"]))
            _check_maps(outputs, classes, name)
        self.spec, self.classes = spec, classes
        self.dtype, self.answer_dtype = inputs[0]["dtype"], outputs[0]["dtype"]
        self.output = output.of(quantized=self.quantized)
        self._in, self._outs = inputs[0]["index"], [one["index"] for one in outputs]
        self._shape = tuple(inputs[0]["shape"])
        self.scale, self.zero = outputs[0]["quantization"]
        if maps:  # each has its own scale
            counts = [math.prod(one["shape"]) for one in outputs]
            self.scale = np.repeat([one["quantization"][0] for one in outputs], counts).astype(np.float32)
            self.zero = np.repeat([one["quantization"][1] for one in outputs], counts)
        self.check_contract(inputs[0], {**outputs[0], "shape": (1, classes)} if maps else outputs[0], spec, classes)
        self._table = _input_table(inputs[0], spec, name) if spec.stated else None

    @classmethod
    def open(cls, bundle: Bundle, variant: str, options: RuntimeOptions = ANY_RUNTIME) -> "Network":
        """A bundle's network, named by the path of its file."""
        return cls.of(bundle.read(variant), bundle.card, options, name=str(bundle.file(variant)))

    @classmethod
    def of(
        cls, content: bytes, card: ModelCard, options: RuntimeOptions = ANY_RUNTIME, *, name: str = THE_NETWORK
    ) -> "Network":
        """A network that belongs to a card."""
        maps = card.task == "find-faces"
        return cls(content, card.input, card.answers, output=card.output, maps=maps, options=options, name=name)

    def check_contract(self, inputs: dict, outputs: dict, spec: InputSpec, classes: int) -> None:
        """BundleError unless the interpreter's input and output details are those of a supported network."""
        _check_contract(inputs, outputs, spec, classes, self.name)

    @property
    def quantized(self) -> bool:
        """Whether its output is quantized."""
        return self.answer_dtype in INTEGER_DTYPES

    def feed(self, pixels: np.ndarray) -> np.ndarray:
        """One image's uint8 pixels [h, w, c] as the network's input."""
        if self._table is not None:
            return look_up(pixels, self._table)
        return to_int8(pixels) if self.dtype == np.int8 else to_float(pixels)

    def raw(self, pixels: Images, *, total_s: float = math.inf, watched: bool = False) -> np.ndarray:
        """uint8 [n, h, w, c] -> the network's own output [n, classes]: int8 or uint8 quanta, or float32.

        Several images have a time limit of MAX_IMAGE_S each and total_s in all: RuntimeFault if exceeded. One image
        without a limit, and any number if `watched`, run in this thread: a running loop has its own watchdog.
        """
        answers: list[np.ndarray] = []
        if watched or (len(pixels) == 1 and math.isinf(total_s)):
            answers += [self._answer(one) for one in pixels]
        elif len(pixels):
            self._answer_all(pixels, answers, total_s)
        return np.stack(answers) if answers else np.empty((0, 0), np.float32)

    def _answer_all(self, pixels: Images, answers: list[np.ndarray], total_s: float) -> None:
        def work() -> None:
            for one in pixels:
                answers.append(self._answer(one))

        try:
            run_with_timeout(work, lambda: len(answers), step_s=MAX_IMAGE_S, total_s=total_s)
        except TimedOut as late:
            raise RuntimeFault(
                f"{self.name} has processed {len(answers)} of {len(pixels)} images in {late.seconds:.0f} s on {self.runtime}: "
                "it is too slow for this machine, or was made to hang."
            ) from None

    def _answer(self, one: np.ndarray) -> np.ndarray:
        try:
            self._interpreter.set_tensor(self._in, self.feed(one).reshape(self._shape))
            self._interpreter.invoke()
            parts = [self._interpreter.get_tensor(index).reshape(-1) for index in self._outs]
        except (ValueError, RuntimeError) as error:
            raise RuntimeFault(f"{self.name} failed on {self.runtime}: {error}") from None
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def dequantize(self, raw: np.ndarray) -> np.ndarray:
        """The network's own output as float32 logits, using the scale and zero point in the .tflite; for probabilities,
        their logarithms, whose softmax gives them back."""
        values = ((raw.astype(np.float32) - self.zero) * self.scale).astype(np.float32) if self.quantized else raw
        if self.output != "probabilities":
            return values
        return np.log(np.maximum(values, self.scale / 2 if self.quantized else MIN_PROBABILITY)).astype(np.float32)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [n, h, w, c] -> float32 logits [n, classes]."""
        return self.dequantize(self.raw(pixels))


def _check_maps(outputs: list[dict], classes: int, name: str) -> None:
    counts = [math.prod(int(size) for size in one["shape"]) for one in outputs]
    if sum(counts) != classes or len({one["dtype"] for one in outputs}) != 1:
        raise BundleError(
            f"{name} answers with {sum(counts):,} numbers in {len(outputs)} maps but its card says {classes:,}: they do "
            "not belong together."
        )


def _check_contract(inputs: dict, outputs: dict, spec: InputSpec, classes: int, name: str = THE_NETWORK) -> None:
    shape = tuple(int(size) for size in inputs["shape"])
    if shape != (1, *spec.shape) and not (spec.stated and shape == (1, *spec.shape[: 2 if spec.channels == 1 else 3])):
        raise BundleError(
            f"{name} takes {shape} pixels but its card says {(1, *spec.shape)}: they do not belong together."
        )
    answers = tuple(int(size) for size in outputs["shape"])
    if answers != (1, classes) and not (spec.stated and answers[-1:] == (classes,) and set(answers[:-1]) <= {1}):
        raise BundleError(
            f"{name} gives {answers} answers but its card has {classes} labels: they do not belong together."
        )
    dtypes = inputs["dtype"], outputs["dtype"]
    if dtypes == (np.float32, np.float32):
        return
    names = " in and ".join(np.dtype(dtype).name for dtype in dtypes)
    if spec.stated:
        if not all(dtype in (np.float32, *INTEGER_DTYPES) for dtype in dtypes):
            raise BundleError(f"{name} is {names} out; edgefer runs float32, int8, uint8 and int16 ends.")
        for end in (inputs, outputs):
            if end["dtype"] in INTEGER_DTYPES and not end["quantization"][0] > 0:
                raise BundleError(f"{name} is {names} out, but without the scale that says what its integers mean.")
        return
    if dtypes != (np.int8, np.int8):
        raise BundleError(f"{name} is {names} out; edgefer runs float32 or int8 in and out.")
    scale, zero = inputs["quantization"]
    if not is_own_int8_input(scale, zero):
        raise BundleError(
            f"{name} has an int8 input of scale {scale:.6g} and zero point {zero}, not 1/255 and -128: "
            "it would see other pixels than it was trained on; convert it again with `edgefer convert`."
        )


def is_own_int8_input(scale: float, zero: int) -> bool:
    """Whether this is the quantization of the input of edgefer's own int8 networks: pixel - 128."""
    return zero == INT8_ZERO and abs(scale / INT8_SCALE - 1) <= 1e-4


def _input_table(inputs: dict, spec: InputSpec, name: str) -> np.ndarray:
    """The input of a network with a stated contract for each pixel value: [256, c] in its input's dtype."""
    if inputs["dtype"] == np.float32:
        return float_table(spec)
    scale, zero = inputs["quantization"]
    table = quantized_table(spec, inputs["dtype"], scale, zero)
    if (found := levels(table)) < MIN_LEVELS:
        raise BundleError(
            f"{name} has a {np.dtype(inputs['dtype']).name} input (scale {scale:.6g}, zero point {zero}) that distinguishes only "
            f"{found} of the 256 pixel values under the scale and offset of its card: they do not belong together."
        )
    return table


def levels(table: np.ndarray) -> int:
    """How many of the 256 pixel values a `quantized_table` distinguishes, in its worst channel."""
    return min(len(np.unique(channel)) for channel in table.T)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of logits [..., classes], in float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class Classifier:
    """A bundle's network, loaded: pixels in, labelled probabilities out. `variant`: which of its files it is."""

    def __init__(self, network: Network, card: ModelCard, variant: str):
        self.network, self.card, self.variant = network, card, variant

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        variant: str | None = None,
        runtime: str = "auto",
        threads: int = 1,
        device: str = "cpu",
    ) -> "Classifier":
        """The bundle's network on the best installed runtime: its best TFLite form; on "coral" the compiled one."""
        device = choice(DeviceName, device, "device")
        if bundle.card.task != "read":
            raise BundleError(
                f"{bundle.path} detects faces and does not classify them: name a network that reads expressions, and this one with "
                f"--{'finder' if bundle.card.task == 'find-faces' else 'refiner'}."
            )
        variant = variant or (Form.INT8_EDGETPU if device is DeviceName.CORAL else bundle.best_tflite())
        options = RuntimeOptions(runtime=runtime, threads=threads, device=device)
        return cls(Network.open(bundle, variant, options), bundle.card, variant)

    def predict(self, pixels: Images) -> np.ndarray:
        """uint8 [n, h, w, c], as from edgefer.preprocess -> probabilities, float64 [n, labels], in the card's order."""
        if not len(pixels):
            return np.empty((0, len(self.card.labels)))
        logits = self.network.dequantize(self.network.raw(pixels, watched=True))
        return softmax(logits, self.card.temperature)
