"""Reports, before anything is compiled or copied, what a target would reject, run slowly or get wrong in a .tflite network.

It needs no TensorFlow, only the file. If a rule was measured, its comment says on what.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgefer.bundle import COMPILED_FOR, EDGETPU_OPERATOR
from edgefer.text import counted
from edgefer.tflite.edgetpu_rules import edgetpu
from edgefer.tflite.findings import ORDER, Finding, at, tally, times
from edgefer.tflite.flatbuffer import Model, Operator, arithmetic, compiled, float_operators, quantization
from edgefer.tflite.layers import HINTS
from edgefer.tflite.mediapipe_rules import mediapipe
from edgefer.tflite.operators import BUILT_IN_CUSTOM, EDGETPU, LITERT, LITERT_2_2, TFLITE_RUNTIME, XNNPACK_CUSTOM
from edgefer.tflite.placement import HEAVY, place
from edgefer.tflite.portable import PORTABLE, portable
from edgefer.tflite.soundness import NOT_COMPUTED, uncomputed, unsound
from edgefer.tflite.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Target:
    """A runtime or compiler: its operators with the newest version of each, and the TFLite release it corresponds to."""

    title: str
    operators: Mapping[str, int]
    release: tuple[int, int]


TARGETS = {
    "litert": Target(title="ai-edge-litert 2.1 to 2.3", operators=LITERT, release=(2, 21)),
    "tflite-runtime": Target(title="tflite-runtime 2.14", operators=TFLITE_RUNTIME, release=(2, 14)),
    "mediapipe": Target(title="MediaPipe ImageClassifier", operators=LITERT, release=(2, 21)),
    "edgetpu": Target(title="Edge TPU (compiler 16.0)", operators=EDGETPU, release=(2, 5)),
}
TITLES = {name: target.title for name, target in TARGETS.items()} | PORTABLE
UNKNOWN = ("operator-unknown", "operator-version")


def lint(model: Model, target: str) -> tuple[Finding, ...]:
    """Every finding for one of TARGETS or PORTABLE from the file alone, errors first."""
    if target in PORTABLE:
        return _sorted([*portable(model, target), *uncomputed(model)])
    checks: tuple[Callable[[Model, str], Iterator[Finding]], ...] = (
        unsound,
        _release,
        _shapes,
        _numbers,
        _dense,
        _shifted,
        _left_on_the_cpu if target == "edgetpu" else _operators,
    )
    if target == "mediapipe":
        checks += (mediapipe,)
    if target == "edgetpu":
        checks += (edgetpu,)
    found = (finding for check in checks for finding in check(model, target))
    return _sorted([*found, *uncomputed(model)])


def with_trial(findings: Sequence[Finding], target: str, runtime: str, trial: Trial) -> tuple[Finding, ...]:
    """The findings of `target`, corrected by running the file on `runtime`, a name of edgefer.runtimes.

    The target's own runtime decides: an error by the rules that runs is only a warning. Other runtimes load files in the
    same way, so what they reject the target rejects too, except for operators, which differ between runtimes.
    """
    if target in PORTABLE:  # running it on a runtime says nothing about C
        return tuple(findings)
    if trial.runs is None:
        finding = Finding(
            severity="warning",
            rule="not-tried",
            what=f"the installed {runtime} did not decide whether it runs: {trial.reason}",
            next="try it on the device",
        )
        return _sorted([*findings, finding]) if runtime == target else tuple(findings)
    if trial.runs:
        if runtime != target:
            return tuple(findings)
        lighter = [
            replace(one, severity="warning") if one.severity == "error" and one.rule != NOT_COMPUTED else one
            for one in findings
        ]
        return _sorted(lighter)
    if runtime != target and any(finding.rule in UNKNOWN or finding.rule == "edgetpu-compiled" for finding in findings):
        return tuple(findings)
    finding = Finding(
        severity="error",
        rule="does-not-run",
        what=f"the installed {runtime} rejects it: {trial.reason}"
        + ("" if runtime == target else "; it loads a file as this target does"),
        next="convert or copy it again",
    )
    return _sorted([*findings, finding])


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity)))


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
        # Measured: MediaPipe 1.2.2 and both runtimes treat a dynamic batch dimension as 1.
        yield Finding(
            severity="error" if target == "edgetpu" else "warning",
            rule="dynamic-shape",
            what=f"{counted(len(dynamic), 'tensor has', 'tensors have')} a dimension that is not fixed, the first is {dynamic[0].signature}",
            next="convert with a fixed input shape and batch size 1",
            tensor=dynamic[0].name,
        )
    for tensor in model.main.inputs:
        if len(tensor.shape) > 1 and tensor.shape[0] > 1:
            yield Finding(
                severity="warning" if target in ("litert", "tflite-runtime") else "error",
                rule="batch-size",
                what=f"the input {tensor.shape} takes {tensor.shape[0]} images at once",
                next="convert with batch size 1",
                tensor=tensor.name,
            )


def _numbers(model: Model, target: str) -> Iterator[Finding]:
    kind = quantization(model)
    if compiled(model):
        return
    if kind == "mixed":
        islands = float_operators(model)
        yield Finding(
            severity="error" if target == "edgetpu" and _heavy_on_the_cpu(model) else "warning",
            rule="float-island",
            what=f"{counted(len(islands), 'operator of an int8 network computes', 'operators of an int8 network compute')} in float ({tally(islands)})",
            next="give the converter representative data and TFLITE_BUILTINS_INT8 alone, or replace the operator",
            **at(islands[0]),
        )
    elif kind != "int8" and target == "edgetpu":
        yield Finding(
            severity="error",
            rule="not-quantized",
            what=f"the network computes in {kind if kind == 'int16x8' else f'float ({kind})'}; the Edge TPU runs nothing but int8",
            next="quantize it: edgefer convert --int8",
        )
    if kind == "dynamic-range" and target == "tflite-runtime":
        # One such network gave all zeros on tflite-runtime 2.14 under XNNPACK, eight others did not.
        yield Finding(
            severity="warning",
            rule="dynamic-range",
            what="int8 weights with float arithmetic: on tflite-runtime 2.14 such networks have loaded and returned zeros",
            next="use int8 or float32 there; if not, check its answers on the device first",
        )


def _dense(model: Model, target: str) -> Iterator[Finding]:
    dense = [op for op in model.operators if op.name == "FULLY_CONNECTED" and arithmetic(op) == "integer"]
    dense = [op for op in dense if any(tensor.constant and tensor.scales > 1 for tensor in op.inputs[1:2])]
    if not dense or target in ("litert", "mediapipe"):
        return
    # Measured: tflite-runtime 2.14 gives the same answers as ai-edge-litert. TFLM and NNAPI reject such layers.
    yield Finding(
        severity="warning" if target == "edgetpu" else "note",
        rule="per-channel-dense",
        what=f"{counted(len(dense), 'dense layer has', 'dense layers have')} one scale per channel, which runtimes before 2024 do not expect and may read as one",
        next="convert with _experimental_disable_per_channel_quantization_for_dense_layers, as edgefer convert does",
        **at(dense[0]),
    )


# Measured on 600 random networks of one operator (sizes, windows, strides): ai-edge-litert 2.1.6 is wrong, by up to 255
# quanta, in exactly these cases, int8 and float32; 2.2.0 and 2.3.0 are right; tflite-runtime 2.14 is wrong for float32 only.
SHIFTED = {"litert": ("INT8", "FLOAT32"), "tflite-runtime": ("FLOAT32",)}


def _shifted(model: Model, target: str) -> Iterator[Finding]:
    """Convolutions that XNNPACK computes as if the image were shifted: with padding SAME, if the windows do not reach the
    image's edge in one direction, unless they are one pixel in size."""
    wrong = [op for op in model.operators if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D") and _falls_short(op)]
    wrong = [op for op in wrong if op.inputs[0].dtype in SHIFTED.get(target, ())]
    if not wrong:
        return
    fix = "replace its padding by a PAD and VALID, or its stride by one that is no larger than the window"
    if target == "litert":
        fix = f"pip install 'ai-edge-litert>=2.2', which does not, or {fix}"
    yield Finding(
        severity="warning",
        rule="same-padding",
        what=f"{times(wrong)}the window of {wrong[0].name} is smaller than its stride: with padding SAME {TARGETS[target].title} on XNNPACK "
        "answers as if the image were shifted",
        next=fix,
        **at(wrong[0]),
    )


def _falls_short(operator: Operator) -> bool:
    if operator.padding != "SAME" or len(operator.inputs) < 2 or not all(step > 0 for step in operator.strides):
        return False
    sizes, windows = operator.inputs[0].shape[1:3], operator.inputs[1].shape[1:3]
    if len(sizes) != 2 or len(windows) != 2 or tuple(windows) == (1, 1) or min(sizes) < 1:
        return False
    reaches = [(window - 1) * step + 1 for window, step in zip(windows, operator.dilation, strict=True)]
    return any(
        (-(-size // stride) - 1) * stride + reach < size
        for size, stride, reach in zip(sizes, operator.strides, reaches, strict=True)
    )


def _heavy_on_the_cpu(model: Model) -> bool:
    """Whether an operator that does much of the work would not run on the Edge TPU: a float tail of others is fine."""
    return any(not p.mapped and p.operator.name in HEAVY for p in place(model.main))


def _operators(model: Model, target: str) -> Iterator[Finding]:
    yield from _unknown(model.operators, target)


def _left_on_the_cpu(model: Model, target: str) -> Iterator[Finding]:
    """Operators that stay on the CPU run on the board's TFLite runtime, which must support them."""
    if compiled(model):
        left = [op for op in model.operators if op.name != EDGETPU_OPERATOR]
    else:
        left = [p.operator for p in place(model.main) if not p.mapped]
        left += [op for graph in model.subgraphs[1:] for op in graph.operators]
    yield from _unknown(left, "litert")


def _unknown(operators: Sequence[Operator], target: str) -> Iterator[Finding]:
    """Operators and versions that the target's runtime does not support."""
    runtime = TARGETS[target]
    for (name, version, custom), group in _groups(operators).items():
        newest = runtime.operators.get(name, 0)
        if (custom and name in BUILT_IN_CUSTOM) or (not custom and version <= newest):
            continue
        if target == "litert" and not custom and version <= LITERT_2_2.get(name, 0):
            what = f"{runtime.title} knows {name} up to version {newest}; this is version {version}, which 2.2 and 2.3 know"
            fix = "pip install 'ai-edge-litert>=2.2', or convert to int8 or float32"
            yield Finding(
                severity="warning", rule="operator-version", what=times(group) + what, next=fix, **at(group[0])
            )
            continue
        if custom and name in XNNPACK_CUSTOM and target != "tflite-runtime":
            if target == "litert":
                yield Finding(
                    severity="warning",
                    rule="operator-xnnpack",
                    what=times(group)
                    + f"{name} runs on XNNPACK, the default of {runtime.title}, and on no reference kernels",
                    next="leave XNNPACK on, and give it float tensors of a fixed size",
                    **at(group[0]),
                )
            continue
        if custom and name in COMPILED_FOR:
            what = f"it is compiled for {COMPILED_FOR[name]}, and nothing else runs it"
            hint = HINTS[name]
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
        yield Finding(severity="error", rule=rule, what=times(group) + what, next=hint, **at(group[0]))


def _groups(operators: Sequence[Operator]) -> dict[tuple[str, int, bool], list[Operator]]:
    groups: dict[tuple[str, int, bool], list[Operator]] = {}
    for operator in operators:
        groups.setdefault((operator.name, operator.version, operator.custom), []).append(operator)
    return groups
