"""The result of edgefer.verify: every check, whether all passed, and the certificate if there was data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgefer import __version__
from edgefer.bundle import Bundle
from edgefer.checks import Check, exit_code, summary, table, to_json
from edgefer.errors import InputError
from edgefer.files import write_file
from edgefer.runtimes import machine

JSON_START = '{\n  "edgefer": '  # of every certificate, by which it is recognized


class Certificate(Protocol):
    """The results on labelled images, made by edgefer.convert.certificate."""

    def to_json(self) -> dict[str, Any]: ...

    def to_html(self) -> str: ...

    def figures_html(self) -> str: ...


def certificate_page(named: Path) -> Path:
    """The path of a certificate's page: the named file, or parity.html in the named directory."""
    return named if named.suffix.lower() in (".html", ".htm") else named / "parity.html"


def check_certificate_replaceable(page: Path, option: str) -> None:
    """InputError if the page, or the .json beside it, is not one of edgefer: it would be lost."""
    from edgefer.html import check_replaceable

    check_replaceable(page, option)
    check_replaceable(page.with_suffix(".json"), option, start=JSON_START, kind="certificate")


def verify_alone(bundle: Bundle, runtimes: Sequence[str] = ()) -> "Verification":
    """All checks of a bundle without data, with question 3 on each runtime (none: the first installed one)."""
    from edgefer.c.prove import check_in_c
    from edgefer.parity import check_bundle

    names = tuple(dict.fromkeys(runtimes)) or ("auto",)
    return Verification(bundle=bundle, checks=(*check_bundle(bundle, names), *check_in_c(bundle)), runtimes=names)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The checks of one bundle on this machine, as a sequence. It renders in notebooks.

    runtimes: those that were tested. certificate: with labelled images, the figures of question 2; else None.

    >>> import edgefer
    >>> proof = edgefer.verify("fer-nano")
    >>> len(proof) == len(proof.rows()) and {check.question for check in proof} == {1, 2, 3}
    True
    """

    bundle: Bundle
    checks: tuple[Check, ...]
    runtimes: tuple[str, ...] = ("auto",)
    certificate: Certificate | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed, as in exit code 0 of the command."""
        return exit_code(self.checks) == 0

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __len__(self) -> int:
        return len(self.checks)

    def __getitem__(self, place: int) -> Check:
        return self.checks[place]

    def __repr__(self) -> str:
        return f"<edgefer.Verification of {self.bundle.card.name}: {self}>"

    def __str__(self) -> str:
        return summary(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `edgefer verify --json` prints them; with data the whole certificate, every flip included."""
        if self.certificate:
            return self.certificate.to_json()
        return to_json(self.checks, **self.facts())

    def facts(self) -> dict[str, Any]:
        """The bundle's hash, edgefer's version, the machine and its runtimes."""
        return {"bundle": self.bundle.hash, "edgefer": __version__, "machine": machine(self.runtimes)}

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict per check, for `pandas.DataFrame(verification.rows())`: subject, question, status, passed, detail,
        fix."""
        return [
            {
                "subject": check.subject, "question": check.question, "status": check.status.value,
                "passed": check.answer, "detail": check.detail, "fix": check.fix,
            }
            for check in self.checks
        ]  # fmt: skip

    def save(self, page: str | Path) -> Path:
        """Write the certificate as one HTML page, and beside it the .json for `edgefer verify --certificate`.

        Returns the page's path. InputError if there is no certificate, since there was no data, or if a file that
        is not one of edgefer would be replaced.
        """
        import json

        if self.certificate is None:
            raise InputError("There is no certificate without labelled images: edgefer.verify(bundle, data=PATH).")
        path = certificate_page(Path(page))
        check_certificate_replaceable(path, "save(PAGE)")
        write_file(path.with_suffix(".json"), json.dumps(self.to_dict(), indent=2).encode() + b"\n")
        write_file(path, self.certificate.to_html().encode())
        return path

    def _repr_html_(self) -> str:
        from edgefer.html import heading, paragraph
        from edgefer.html import table as html_table

        parts = [
            heading(f"Verification of {self.bundle.card.name}", 3),
            paragraph(str(self)),
            html_table(*table(self.checks)),
        ]
        if self.certificate:
            parts.append(self.certificate.figures_html())
        return "".join(parts)
