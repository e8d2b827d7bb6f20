"""Lint's findings, from rules on the file and from runtimes that run it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgefer.tflite.flatbuffer import Operator

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem for a target. operator: an index in execution order; tensor: a name; None and "" if it concerns the file.

    what: the problem. next: what to do about it.
    """

    severity: Severity
    rule: str
    what: str
    next: str
    operator: int | None = None
    tensor: str = ""


def at(operator: Operator) -> dict:
    """The location of a finding about an operator: its index, and its output tensor."""
    return {"operator": operator.index, "tensor": operator.outputs[0].name if operator.outputs else ""}


def times(group: Sequence[Operator]) -> str:
    """ "3 times: ", or "" for one operator."""
    return f"{len(group)} times: " if len(group) > 1 else ""


def tally(operators: Sequence[Operator]) -> str:
    """The names of operators with their counts, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in Counter(op.name for op in operators).most_common(4))
