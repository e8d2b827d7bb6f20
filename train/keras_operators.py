"""Operators in Keras networks, such as `x / 127.5 - 1` and `x + shortcut`, as the layers that compute the same.

Keras 2 stores each as a TFOpLambda that names any function of TensorFlow, Keras 3 as an object of keras.ops. The few that
are arithmetic become layers here, described as a file of Keras 2 describes them; the allowlist refuses the others.
"""

from typing import Any

KERAS_2 = {
    "math.add": "Add", "__operators__.add": "Add", "math.subtract": "Subtract", "math.multiply": "Multiply",
    "math.truediv": "Divide", "math.divide": "Divide",
}  # fmt: skip
KERAS_3 = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "TrueDivide": "Divide", "Divide": "Divide"}
CONSTANT = "_CONSTANT_VALUE"  # stands for the name of a layer


def as_layer(config: dict) -> dict | None:
    """The layer in place of an arithmetic operator: Rescaling where one operand is a number. None for everything else."""
    settings, nodes = config.get("config"), config.get("inbound_nodes")
    if not isinstance(settings, dict) or not isinstance(nodes, list) or len(nodes) != 1:
        return None
    if config.get("class_name") == "TFOpLambda":
        kind, operands = KERAS_2.get(str(settings.get("function"))), _of_keras_2(nodes[0])
    else:  # the layers Add, Subtract and Multiply are called with one list
        kind, operands = KERAS_3.get(str(config.get("class_name"))), _of_keras_3(nodes[0])
    if kind is None or len(operands) != 2:
        return None
    tensors = [one for one in operands if not _is_number(one)]
    options: dict[str, Any] = {"name": config.get("name", settings.get("name"))}
    if len(tensors) == 1:
        affine = _affine(kind, *operands)
        if affine is None:
            return None
        kind, options = "Rescaling", options | dict(zip(("scale", "offset"), affine, strict=True))
    elif len(tensors) != 2 or kind == "Divide":
        return None
    return {"class_name": kind, "config": options, "name": options["name"], "inbound_nodes": [tensors]}


def _affine(kind: str, left: Any, right: Any) -> tuple[float, float] | None:
    """Scale and offset of an operator with a number on one side; None where it is not affine."""
    number = left if _is_number(left) else right
    if kind == "Add":
        return 1.0, number
    if kind == "Multiply":
        return number, 0.0
    if kind == "Subtract":
        return (-1.0, number) if number is left else (1.0, -number)
    return None if number is left or number == 0 else (1 / number, 0.0)


def _is_number(operand: Any) -> bool:
    return isinstance(operand, int | float) and not isinstance(operand, bool)


def _of_keras_2(node: Any) -> list:
    """The operands of [layer, call, output, {"y": other}], each a number or [layer, call, output]."""
    node = node[0] if isinstance(node, list) and len(node) == 1 else node
    if not isinstance(node, list) or len(node) != 4 or not isinstance(node[3], dict) or set(node[3]) - {"y", "name"}:
        return []
    first = node[2] if node[0] == CONSTANT else node[:3]
    return [first, node[3].get("y")]


def _of_keras_3(node: Any) -> list:
    """The operands of {"args": [one, other]}."""
    arguments = node.get("args") if isinstance(node, dict) and not node.get("kwargs") else None
    return [one if _is_number(one) else keras_history(one) for one in arguments] if isinstance(arguments, list) else []


def keras_history(tensor: Any) -> Any:
    """The [layer, call, output] of a Keras 3 tensor, {"config": {"keras_history": [...]}}."""
    config = tensor.get("config") if isinstance(tensor, dict) else None
    return config.get("keras_history") if isinstance(config, dict) else tensor
