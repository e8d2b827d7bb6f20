"""Says before anything is compiled or copied what a target would refuse, slow down or get wrong in a .tflite network.

No TensorFlow: it looks at the file alone. Where a rule was measured, its comment says on what.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from edgefer.bundle import EDGETPU_OPERATOR
from edgefer.tflite.flatbuffer import Model, Operator, arithmetic, compiled, parameter_bytes, quantization
from edgefer.tflite.operators import BUILT_IN_CUSTOM, EDGETPU, LITERT, TFLITE_RUNTIME
from edgefer.tflite.placement import AFTER, DTYPE, HEAVY, Placement, place

EDGETPU_MEMORY = 8 * 2**20  # bytes of on-chip memory for parameters; the compiler keeps a little for itself

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a target would stumble over. `operator` is an index in execution order, `tensor` a name; None and "" where it is about the file."""

    severity: Severity
    rule: str
    what: str
    next: str
    operator: int | None = None
    tensor: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What runs the network: its operators with the newest version of each, and the TFLite release it corresponds to."""

    title: str
    operators: Mapping[str, int]
    release: tuple[int, int]


TARGETS = {
    "litert": Target(title="ai-edge-litert 2.1", operators=LITERT, release=(2, 21)),
    "tflite-runtime": Target(title="tflite-runtime 2.14", operators=TFLITE_RUNTIME, release=(2, 14)),
    "mediapipe": Target(title="MediaPipe ImageClassifier", operators=LITERT, release=(2, 21)),
    "edgetpu": Target(title="Edge TPU (compiler 16.0)", operators=EDGETPU, release=(2, 5)),
}
INSTEAD = {
    "HARD_SWISH": "use ReLU6, or SiLU, which becomes LOGISTIC and MUL",
    "LEAKY_RELU": "use ReLU, or PReLU with one slope a channel (shared_axes=[1, 2])",
    "DEQUANTIZE": "convert with int8 or uint8 output",
    "QUANTIZE": "convert with int8 or uint8 input",
}


def lint(model: Model, target: str) -> tuple[Finding, ...]:
    """Every finding for one of TARGETS, errors first."""
    checks: tuple[Callable[[Model, str], Iterator[Finding]], ...] = (
        _release,
        _shapes,
        _numbers,
        _dense,
        _edgetpu if target == "edgetpu" else _operators,
    )
    if target == "mediapipe":
        checks += (_mediapipe,)
    findings = [finding for check in checks for finding in check(model, target)]
    order = ("error", "warning", "note")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def _release(model: Model, target: str) -> Iterator[Finding]:
    numbers = [int(part) for part in model.min_runtime_version.split(".")[:2] if part.isdecimal()]
    runtime = TARGETS[target]
    if len(numbers) == 2 and tuple(numbers) > runtime.release:
        newest = ".".join(map(str, runtime.release))
        yield Finding(
            severity="warning",
            rule="runtime-version",
            what=f"its converter asks for a TFLite runtime of {model.min_runtime_version} or newer; {runtime.title} is {newest}",
            next="convert it with the TensorFlow of that release, or use a newer runtime",
        )


def _shapes(model: Model, target: str) -> Iterator[Finding]:
    dynamic = [tensor for tensor in model.main.tensors if tensor.dynamic]
    if dynamic:
        # Measured: MediaPipe 1.2.2 and both runtimes run a free batch dimension as 1.
        yield Finding(
            severity="error" if target == "edgetpu" else "warning",
            rule="dynamic-shape",
            what=f"{len(dynamic)} tensors have a dimension that is not fixed, the first is {dynamic[0].signature}",
            next="convert with a fixed input shape and batch size 1",
            tensor=dynamic[0].name,
        )
    for tensor in model.main.inputs:
        if len(tensor.shape) > 1 and tensor.shape[0] > 1:
            yield Finding(
                severity="warning" if target in ("litert", "tflite-runtime") else "error",
                rule="batch-size",
                what=f"the input {tensor.shape} takes {tensor.shape[0]} pictures at once",
                next="convert with batch size 1",
                tensor=tensor.name,
            )


def _numbers(model: Model, target: str) -> Iterator[Finding]:
    kind = quantization(model)
    if compiled(model):
        return
    if kind == "mixed":
        islands = [
            op for op in model.operators if op.name not in ("QUANTIZE", "DEQUANTIZE") and arithmetic(op) == "float"
        ]
        yield Finding(
            severity="error" if target == "edgetpu" else "warning",
            rule="float-island",
            what=f"{len(islands)} operators of an int8 network compute in float ({_tally(islands)})",
            next="give the converter representative data and TFLITE_BUILTINS_INT8 alone, or replace the operator",
            **_where(islands[0]),
        )
    elif kind != "int8" and target == "edgetpu":
        yield Finding(
            severity="error",
            rule="not-quantized",
            what=f"the network computes in float ({kind}); the Edge TPU runs nothing but int8",
            next="quantize it: edgefer convert --int8",
        )
    if kind == "dynamic-range" and target == "tflite-runtime":
        # One such network gave all zeros on tflite-runtime 2.14 under XNNPACK, eight others did not.
        yield Finding(
            severity="warning",
            rule="dynamic-range",
            what="int8 weights with float arithmetic: on tflite-runtime 2.14 such networks have been seen to load and answer zeros",
            next="use int8 or float32 there; if not, check its answers on the device first",
        )


def _dense(model: Model, target: str) -> Iterator[Finding]:
    dense = [op for op in model.operators if op.name == "FULLY_CONNECTED" and arithmetic(op) == "integer"]
    dense = [op for op in dense if any(tensor.constant and tensor.scales > 1 for tensor in op.inputs[1:2])]
    if not dense or target in ("litert", "mediapipe"):
        return
    # Measured: tflite-runtime 2.14 answers exactly as ai-edge-litert does. TFLM and NNAPI refuse such layers.
    yield Finding(
        severity="warning" if target == "edgetpu" else "note",
        rule="per-channel-dense",
        what=f"{len(dense)} dense layers have one scale a channel, which runtimes before 2024 do not expect and may read as one",
        next="convert with _experimental_disable_per_channel_quantization_for_dense_layers, as edgefer convert does",
        **_where(dense[0]),
    )


def _operators(model: Model, target: str) -> Iterator[Finding]:
    runtime = TARGETS[target]
    for (name, version, custom), group in _groups(model.operators).items():
        if custom and name in BUILT_IN_CUSTOM:
            continue
        newest = runtime.operators.get(name, 0)
        if not custom and version <= newest:
            continue
        if custom and name == EDGETPU_OPERATOR:
            what, hint = (
                "it is compiled for the Edge TPU, and nothing else runs it",
                "use the file it was compiled from",
            )
        elif custom:
            flex = name.startswith("Flex")
            what = f"{runtime.title} has no operator {name}" + (", which is TensorFlow's own" if flex else "")
            hint = "build the network from TFLite's own operators"
        elif newest:
            what = f"{runtime.title} knows {name} up to version {newest}; this is version {version}"
            hint = "use a newer runtime, or convert to int8 or float32"
        else:
            what, hint = f"{runtime.title} has no operator {name}", "use a newer runtime, or replace the operator"
        rule = "operator-version" if newest and not custom else "operator-unknown"
        yield Finding(severity="error", rule=rule, what=_times(group) + what, next=hint, **_where(group[0]))


def _mediapipe(model: Model, target: str) -> Iterator[Finding]:
    # All of it measured on MediaPipe 1.2.2's ImageClassifier.create_from_options.
    for tensor in model.main.inputs[:1]:
        if len(tensor.shape) != 4 or tensor.shape[3] not in (3, 4):
            yield Finding(
                severity="error",
                rule="mediapipe-input",
                what=f"it wants an RGB input [1, height, width, 3]; this one is {tensor.shape}",
                next="train with an RGB input",
                tensor=tensor.name,
            )
        if tensor.dtype == "FLOAT32" and "TFLITE_METADATA" not in model.metadata:
            yield Finding(
                severity="error",
                rule="mediapipe-metadata",
                what="a float input needs NormalizationOptions in TFLite metadata, and the file has none",
                next="write metadata, or convert with uint8 input",
                tensor=tensor.name,
            )
    for tensor in (*model.main.inputs, *model.main.outputs):
        if tensor.dtype not in ("UINT8", "FLOAT32"):
            yield Finding(
                severity="error",
                rule="mediapipe-dtype",
                what=f"it takes and gives uint8 or float32; this tensor is {tensor.dtype}",
                next="convert with uint8 input and output",
                tensor=tensor.name,
            )
    if "TFLITE_METADATA" not in model.metadata:
        yield Finding(
            severity="warning",
            rule="mediapipe-labels",
            what="the file has no TFLite metadata, so that its answers are numbers without names",
            next="write metadata with the labels",
        )


def _edgetpu(model: Model, target: str) -> Iterator[Finding]:
    size = parameter_bytes(model)
    if compiled(model):
        rest = [op for op in model.operators if op.name != EDGETPU_OPERATOR]
        yield Finding(
            severity="note",
            rule="edgetpu-compiled",
            what=f"it is compiled already; {len(rest)} operators of it run on the CPU"
            + (f" ({_tally(rest)})" if rest else ""),
            next="run it with --device coral",
        )
        return
    if quantization(model) not in ("int8", "mixed") or any(tensor.dynamic for tensor in model.main.tensors):
        return  # the compiler refuses it as a whole, and another finding says so
    placements = place(model.main)
    heavy_left = any(not p.mapped and p.operator.name in HEAVY for p in placements)
    reasons: dict[tuple, list[Placement]] = {}
    for p in placements:
        if not p.mapped and p.status != AFTER:
            reasons.setdefault((p.operator.name, p.status), []).append(p)
    for (name, status), group in reasons.items():
        first = group[0]
        edge = status == DTYPE and name in ("QUANTIZE", "DEQUANTIZE")
        yield Finding(
            severity="error" if heavy_left and not edge else "warning",
            rule="edgetpu-cpu",
            what=_times([p.operator for p in group])
            + f"{name} would run on the CPU: {first.status}"
            + (f" ({first.detail})" if first.detail else ""),
            next=INSTEAD.get(name, "replace it, or move it to the end of the network"),
            **_where(first.operator),
        )
    behind = [p.operator for p in placements if p.status == AFTER]
    if behind:
        yield Finding(
            severity="error" if heavy_left else "warning",
            rule="edgetpu-partition",
            what=f"{len(behind)} operators would run on the CPU for coming after one that must ({_tally(behind)})",
            next="see the findings for edgetpu-cpu: the Edge TPU takes one unbroken run of operators",
            **_where(behind[0]),
        )
    if size > EDGETPU_MEMORY:
        yield Finding(
            severity="warning",
            rule="edgetpu-memory",
            what=f"its parameters take {size:,} bytes, more than the Edge TPU's {EDGETPU_MEMORY:,}: the rest is fetched anew for every picture",
            next="make the network smaller",
        )
    mapped = sum(p.mapped for p in placements)
    yield Finding(
        severity="note",
        rule="edgetpu-map",
        what=f"{mapped} of {len(placements)} operators would run on the Edge TPU; parameters {size:,} of {EDGETPU_MEMORY:,} bytes",
        next="edgefer convert --edgetpu asks the compiler itself",
    )


def _groups(operators: tuple[Operator, ...]) -> dict[tuple[str, int, bool], list[Operator]]:
    groups: dict[tuple[str, int, bool], list[Operator]] = {}
    for operator in operators:
        groups.setdefault((operator.name, operator.version, operator.custom), []).append(operator)
    return groups


def _times(group: list[Operator]) -> str:
    return f"{len(group)} times: " if len(group) > 1 else ""


def _tally(operators: list[Operator]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(op.name for op in operators).most_common(4))


def _where(operator: Operator) -> dict:
    return {"operator": operator.index, "tensor": operator.outputs[0].name if operator.outputs else ""}
