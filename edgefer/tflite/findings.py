"""What lint finds: one record for the rules that look at a file, and for the runtimes that try it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgefer.tflite.flatbuffer import Operator

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a target would stumble over. `operator` is an index in execution order, `tensor` a name; None and "" where it is about the file."""

    severity: Severity
    rule: str
    what: str
    next: str
    operator: int | None = None
    tensor: str = ""


def at(operator: Operator) -> dict:
    """Where a finding about an operator is: its index, and the tensor that it writes."""
    return {"operator": operator.index, "tensor": operator.outputs[0].name if operator.outputs else ""}


def times(group: Sequence[Operator]) -> str:
    """ "3 times: ", or "" for one operator."""
    return f"{len(group)} times: " if len(group) > 1 else ""


def tally(operators: Sequence[Operator]) -> str:
    """The names of operators with how many there are of each, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(op.name for op in operators).most_common(4))
