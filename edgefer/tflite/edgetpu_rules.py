"""What would not run on a Coral Edge TPU, as predicted for edgetpu_compiler 16.0."""

from collections.abc import Iterator, Sequence

from edgefer.bundle import EDGETPU_OPERATOR
from edgefer.text import counted
from edgefer.tflite.findings import Finding, Severity, at, tally, times
from edgefer.tflite.flatbuffer import CONVERTING, Model, compiled, parameter_bytes, quantization
from edgefer.tflite.placement import AFTER, DTYPE, HEAVY, Placement, place

EDGETPU_MEMORY = 8 * 2**20  # bytes of on-chip memory for parameters; the compiler keeps a little for itself
INSTEAD = {
    "HARD_SWISH": "use ReLU6, or SiLU, which becomes LOGISTIC and MUL",
    "LEAKY_RELU": "use ReLU, or PReLU with one slope per channel (shared_axes=[1, 2])",
    "DEQUANTIZE": "convert with int8 or uint8 output",
    "QUANTIZE": "convert with int8 or uint8 input",
}


def edgetpu(model: Model, target: str) -> Iterator[Finding]:
    """Which operators would not run on the Edge TPU, and how many would."""
    if compiled(model):
        yield _compiled_already(model)
        return
    if quantization(model) not in ("int8", "mixed") or any(tensor.dynamic for tensor in model.main.tensors):
        return  # the compiler rejects it as a whole, and another finding says so
    placements = place(model.main)
    yield from _on_the_cpu(placements)
    yield from _behind(placements)
    yield from _too_large(model)
    yield from _doubtful(placements)
    yield from _summary(model, placements)


def _compiled_already(model: Model) -> Finding:
    rest = [op for op in model.operators if op.name != EDGETPU_OPERATOR]
    return Finding(
        severity="note",
        rule="edgetpu-compiled",
        what=f"it is compiled already; {counted(len(rest), 'operator of it runs', 'operators of it run')} on the CPU"
        + (f" ({tally(rest)})" if rest else ""),
        next="run it with --device coral",
    )


def _severity(placements: Sequence[Placement]) -> Severity:
    """An operator on the CPU is an error if it keeps a heavy one there."""
    return "error" if any(not p.mapped and p.operator.name in HEAVY for p in placements) else "warning"


def _on_the_cpu(placements: Sequence[Placement]) -> Iterator[Finding]:
    """One finding per kind of operator, and reason, that the Edge TPU does not run."""
    reasons: dict[tuple, list[Placement]] = {}
    for p in placements:
        if not p.mapped and p.status != AFTER:
            reasons.setdefault((p.operator.name, p.status), []).append(p)
    first_mapped = next((p.operator.index for p in placements if p.mapped), None)
    for (name, status), group in reasons.items():
        first = group[0]
        harmless = (status == DTYPE and name in CONVERTING) or (
            first_mapped is not None and all(p.operator.index < first_mapped for p in group)
        )
        yield Finding(
            severity="warning" if harmless else _severity(placements),
            rule="edgetpu-cpu",
            what=times([p.operator for p in group])
            + f"{name} would run on the CPU: {first.status}"
            + (f" ({first.detail})" if first.detail else ""),
            next=INSTEAD.get(name, "replace it, or move it to the end of the network"),
            **at(first.operator),
        )


def _behind(placements: Sequence[Placement]) -> Iterator[Finding]:
    """Operators that the Edge TPU could run, after one that it cannot."""
    if behind := [p.operator for p in placements if p.status == AFTER]:
        yield Finding(
            severity=_severity(placements),
            rule="edgetpu-partition",
            what=f"{counted(len(behind), 'operator')} would run on the CPU, after one that must ({tally(behind)})",
            next="see the findings for edgetpu-cpu: the Edge TPU takes one unbroken run of operators",
            **at(behind[0]),
        )


def _too_large(model: Model) -> Iterator[Finding]:
    size = parameter_bytes(model)
    if size > EDGETPU_MEMORY:
        yield Finding(
            severity="warning",
            rule="edgetpu-memory",
            what=f"its parameters take {size:,} bytes, more than the Edge TPU's {EDGETPU_MEMORY:,}: the rest is fetched again for every image",
            next="make the network smaller",
        )


def _doubtful(placements: Sequence[Placement]) -> Iterator[Finding]:
    """Operators for which only the compiler knows whether the Edge TPU runs them."""
    for p in placements:
        if p.mapped and p.detail:
            yield Finding(
                severity="warning",
                rule="edgetpu-maybe",
                what=f"{p.operator.name} may stay on the CPU, and all that follow with it: {p.detail}",
                next="edgefer convert --edgetpu asks the compiler itself",
                **at(p.operator),
            )


def _summary(model: Model, placements: Sequence[Placement]) -> Iterator[Finding]:
    mapped, size = sum(p.mapped for p in placements), parameter_bytes(model)
    if not mapped:
        yield Finding(
            severity="error",
            rule="edgetpu-nothing",
            what=f"none of its {len(placements)} operators would run on the Edge TPU",
            next="see the other findings, or run it on the CPU",
        )
    yield Finding(
        severity="note",
        rule="edgetpu-map",
        what=f"{mapped} of {len(placements)} operators would run on the Edge TPU; parameters {size:,} of {EDGETPU_MEMORY:,} bytes",
        next="edgefer convert --edgetpu asks the compiler itself",
    )
