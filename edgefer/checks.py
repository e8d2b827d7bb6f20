"""Shared by verify, doctor, lint and data check: the record of a check, its table, its JSON and the exit code:

    0  nothing failed
    1  something was checked and failed
    2  nothing could be checked at all

What could not be checked is a row like any other, with the status NOT_CHECKED; it is never left out.

The fields of a check:

    subject   what was checked: "int8 on litert", "opencv", "leaks between splits", lint's rule "edgetpu-cpu"
    status    PASS; WARN: works, but worse than it could; DOUBTFUL: the figures do not settle it; NOT_CHECKED; FAIL
    detail    what was found, with its figures
    fix       the command (or the step) that fixes it; shown below the table, for copying
    question  1 pixels, 2 decisions, 3 answers, of the parity suite; 0 elsewhere
    group     for the checks of a run with several groups, such as lint's target; "" otherwise
    examples  files, rows or operators; the first few are shown, JSON has all of them
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

QUESTIONS = ("pixels", "decisions", "answers")


class Status(StrEnum):
    """The result of a check, from best to worst."""

    PASS = "pass"
    WARN = "warn"
    DOUBTFUL = "doubtful"
    NOT_CHECKED = "not checked"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check and its result. The fields are explained above."""

    subject: str
    status: Status
    detail: str
    fix: str = ""
    question: int = 0
    group: str = ""
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it did not fail: checks that were not made or are doubtful pass."""
        return self.status is not Status.FAIL

    @property
    def answer(self) -> bool | None:
        """Whether it passed, for programs; None if it was not made."""
        return None if self.status is Status.NOT_CHECKED else self.passed

    @property
    def doubtful(self) -> bool:
        return self.status is Status.DOUBTFUL

    def to_json(self) -> dict[str, object]:
        """Plain values; question, group, fix and examples only if present."""
        extra = {"fix": self.fix, "question": self.question, "group": self.group, "examples": list(self.examples)}
        base = {"subject": self.subject, "status": self.status.value, "passed": self.answer, "detail": self.detail}
        return base | {name: value for name, value in extra.items() if value}


def status_if(passed: bool) -> Status:
    """PASS or FAIL."""
    return Status.PASS if passed else Status.FAIL


def exit_code(checks: Iterable[Check]) -> int:
    """0 nothing failed, 1 something failed, 2 nothing could be checked."""
    seen = {check.status for check in checks}
    if Status.FAIL in seen:
        return 1
    return 2 if seen == {Status.NOT_CHECKED} else 0


def summary(checks: Sequence[Check]) -> str:
    """One line: the verdict, how many passed, and the count of each other status."""
    counts = Counter(check.status for check in checks)
    verdict = {0: "pass", 1: "FAIL", 2: "NOT CHECKED"}[exit_code(checks)]
    others = [
        f"{counts[status]} {status}" for status in reversed(Status) if status is not Status.PASS and counts[status]
    ]
    return (
        f"{verdict}: {counts[Status.PASS]} of {len(checks)} checks passed" + "".join(f", {one}" for one in others) + "."
    )


def table(checks: Sequence[Check]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns and rows for a terminal or a page, in the order of the questions, without empty columns."""
    ordered = sorted(checks, key=lambda check: check.question)
    numbered, grouped = any(check.question for check in checks), any(check.group for check in checks)
    columns = (*(["question"] * numbered), *(["for"] * grouped), "check", "", "found")
    rows = []
    for check in ordered:
        question = f"{check.question} {QUESTIONS[check.question - 1]}" if check.question else ""
        shown = "FAIL" if check.status is Status.FAIL else check.status.value
        rows.append(
            (*([question] * numbered), *([check.group] * grouped), check.subject, shown, check.detail),
        )
    return columns, rows


def to_json(checks: Sequence[Check], **facts: object) -> dict[str, object]:
    """Plain values: the facts, `passed`, `counts` by status, and every check."""
    counts = Counter(check.status.value for check in checks)
    return {
        **facts,
        "passed": exit_code(checks) == 0,
        "counts": {status.value: counts[status.value] for status in Status},
        "checks": [check.to_json() for check in checks],
    }
