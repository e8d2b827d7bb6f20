"""Checks: their statuses, table, JSON and exit codes."""

import json

import pytest
import typer

from edgefer import checks, console
from edgefer.checks import Check, Status
from edgefer.commands.check_report import report
from edgefer.text import json_text, printable, unprintable

EVIL = "a\x1b[31mb\x9b2J\x7f\u202ec\u2066\u200b\ud800d\n"


def of(*statuses: Status) -> list[Check]:
    return [Check(subject=f"check {n}", status=status, detail="found") for n, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "code", "verdict"),
    [
        ((Status.PASS, Status.PASS), 0, "pass: 2 of 2 checks passed."),
        ((Status.PASS, Status.WARN, Status.DOUBTFUL, Status.NOT_CHECKED), 0, "pass: 1 of 4 checks passed, 1 not checked, 1 doubtful, 1 warn."),
        ((Status.PASS, Status.FAIL), 1, "FAIL: 1 of 2 checks passed, 1 fail."),
        ((Status.NOT_CHECKED,), 2, "NOT CHECKED: 0 of 1 checks passed, 1 not checked."),
        ((), 0, "pass: 0 of 0 checks passed."),
    ],
)  # fmt: skip
def test_the_exit_code_and_the_verdict_follow_from_the_statuses(statuses, code, verdict):
    assert checks.exit_code(of(*statuses)) == code
    assert checks.summary(of(*statuses)) == verdict
    assert checks.to_json(of(*statuses))["passed"] == (code == 0)


def test_the_table_shows_every_check_and_every_fix_can_be_copied(capsys):
    fix = "pip install " + "'a-long-name<2' " * 20
    found = [
        Check(subject="cameras", status=Status.WARN, detail="none", fix=fix.strip(), group="board"),
        Check(subject="leaks", status=Status.FAIL, detail="7 pairs", examples=tuple(f"pair {n}" for n in range(7))),
        Check(subject="answers", status=Status.NOT_CHECKED, detail="no runtime", question=3),
    ]
    with pytest.raises(typer.Exit) as end:
        report("title", found)
    assert end.value.exit_code == 1
    shown = capsys.readouterr().out
    assert f"board cameras: {fix.strip()}" in shown.splitlines()
    assert "leaks: pair 4" in shown and "pair 5" not in shown and "2 more (--json lists all)" in shown
    assert "3 answers" in shown and "not checked: it was not run here" in shown
    assert checks.table(found)[0] == ("question", "for", "check", "", "found")
    assert checks.table(of(Status.PASS))[0] == ("check", "", "found")


def test_json_begins_with_the_facts_and_holds_every_example(capsys):
    found = [Check(subject="leaks", status=Status.WARN, detail="", examples=tuple("abcdefgh"))]
    report("title", found, as_json=True, bundle="abc")
    result = json.loads(capsys.readouterr().out)
    assert list(result) == ["bundle", "passed", "counts", "checks"]
    assert result["counts"] == {"pass": 0, "warn": 1, "doubtful": 0, "not checked": 0, "fail": 0}
    assert result["checks"] == [
        {"subject": "leaks", "status": "warn", "passed": True, "detail": "", "examples": list("abcdefgh")}
    ]


def test_a_check_that_was_not_made_has_not_passed_in_json():
    answers = [check["passed"] for check in checks.to_json(of(*Status))["checks"]]
    assert answers == [True, True, True, None, False]


def test_untrusted_text_is_escaped_for_the_terminal(capsys):
    console.show(EVIL)
    console.log(EVIL)
    console.show_table(EVIL, (EVIL, ""), [(EVIL, 1)])
    console.show_json({EVIL: EVIL})
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert unprintable(text.replace("\n", "")) == "" and "\\x1b[31mb\\x9b2J" in text.replace("\\u00", "\\x")
    assert json.loads(json_text({"x": EVIL})) == {"x": EVIL}
    assert json_text({"é": "日本"}) == '{"é": "日本"}' and printable("é日本 x") == "é日本 x"
