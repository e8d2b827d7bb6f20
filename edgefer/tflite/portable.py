"""What `edgefer export c` and `export web` would reject in a network, and what does not fit a microcontroller."""

from collections.abc import Iterator

from edgefer.c.program import make_program
from edgefer.tflite.findings import Finding, at, times
from edgefer.tflite.flatbuffer import Model, Operator, quantization
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import OPERATORS, hint, model_layers
from edgefer.tflite.rewrite import rewritten

PORTABLE = {"c": "export c", "web": "export web", "micro": "microcontroller"}  # with titles
FLASH, RAM = 2**20, 2**17  # bytes of the self-test's microcontroller, an STM32F405
CODE, STACK = 16 * 1024, 8 * 1024  # of these, for everything but the network


def unsupported(model: Model) -> dict[str, list[Operator]]:
    """The operators, by name, for which there is no C code; of a float32 network those that its int8 form would have."""
    groups: dict[str, list[Operator]] = {}
    for operator in (rewritten(model) if quantization(model) == "float32" else model).operators:
        if operator.custom or operator.name not in OPERATORS:
            groups.setdefault(operator.name, []).append(operator)
    return groups


def portable(model: Model, target: str) -> Iterator[Finding]:
    """Every finding of one of PORTABLE."""
    groups = unsupported(model)
    for name, group in groups.items():
        yield Finding(
            severity="error",
            rule="operator-unknown",
            what=f"{times(group)}the C code has no operator {name}",
            next=hint(name),
            **at(group[0]),
        )
    if groups:
        return
    try:
        program = make_program(model_layers(model, "it"))
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
    network = program.network
    memory = program.plan.size + network.input.size + network.answers  # the pixels and answers are the caller's
    sizes = {"RAM": (memory, RAM - STACK), "flash": (program.words.nbytes, FLASH - CODE)}
    for kind, (size, room) in sizes.items():
        if size > room:
            yield Finding(
                severity="warning",
                rule=f"micro-{kind.lower()}",
                what=f"it needs {size:,} bytes of {kind}; an STM32F405 has {room:,} for it",
                next="take a larger microcontroller, or a network with fewer channels or a smaller input",
            )
