"""What `edgefer export c` and `export web` would reject in a network, and what does not fit a microcontroller."""

from collections.abc import Iterator

from edgefer.tflite.arena import plan
from edgefer.tflite.findings import Finding, at, times
from edgefer.tflite.flatbuffer import Model, Operator, parameter_bytes
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import OPERATORS, model_layers

PORTABLE = {"c": "export c", "web": "export web", "micro": "microcontroller"}  # with titles
FLASH, RAM = 2**20, 2**17  # bytes of the self-test's microcontroller, an STM32F405
CODE, STACK = 16 * 1024, 8 * 1024  # of these, for everything but the network


def portable(model: Model, target: str) -> Iterator[Finding]:
    """Every finding of one of PORTABLE."""
    groups: dict[str, list[Operator]] = {}
    for operator in model.operators:
        if operator.custom or operator.name not in OPERATORS:
            groups.setdefault(operator.name, []).append(operator)
    for name, group in groups.items():
        yield Finding(
            severity="error",
            rule="operator-unknown",
            what=f"{times(group)}the C code has no operator {name}; it has {', '.join(OPERATORS)}",
            next="replace the operator; int8 in and out, and logits without a softmax",
            **at(group[0]),
        )
    if groups:
        return
    try:
        network = model_layers(model, "it")
    except UnsupportedNetwork as error:
        yield Finding(
            severity="error",
            rule="not-covered",
            what=str(error).rstrip("."),
            next="convert it with int8 input and output, a fixed shape and batch size 1",
        )
        return
    if target != "micro":
        return
    ram = plan(network).size + network.input.size + network.answers  # the pixels and answers are the caller's
    sizes = {"RAM": (ram, RAM - STACK), "flash": (parameter_bytes(model), FLASH - CODE)}
    for memory, (size, room) in sizes.items():
        if size > room:
            yield Finding(
                severity="warning",
                rule=f"micro-{memory.lower()}",
                what=f"it needs {size:,} bytes of {memory}; an STM32F405 has {room:,} for it",
                next="take a larger microcontroller, or a network with fewer channels or a smaller input",
            )
