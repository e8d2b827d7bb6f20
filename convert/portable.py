"""The second step of question 3 without an export: each target's self-test against the C code proven on this host."""

import tempfile
from pathlib import Path

from edgefer.bundle import Bundle, Form
from edgefer.c.subject import Subject, read_subject
from edgefer.checks import Check, Status
from edgefer.convert.c.project import export_c
from edgefer.convert.c.targets import TARGETS, prove_page, prove_targets
from edgefer.convert.web.device import Device
from edgefer.convert.web.site import export_web
from edgefer.errors import EdgeferError
from edgefer.tflite.int8_network import UnsupportedNetwork

BROWSER = "browser"


def check_targets(bundle: Bundle, device: Device) -> list[Check]:
    """One row per target, from temporary exports; takes minutes. A row says why if an export is not possible."""
    if not bundle.has(Form.INT8):
        return []
    try:
        subject = read_subject(bundle)
    except UnsupportedNetwork as error:
        return unchecked_targets(bundle, str(error))
    with tempfile.TemporaryDirectory(prefix="edgefer-targets-") as folder:
        project = Path(folder) / "c"
        export_c(subject, project)
        return [*prove_targets(project), _check_page(subject, device, Path(folder) / "web")]


def _check_page(subject: Subject, device: Device, folder: Path) -> Check:
    try:
        export_web(subject, device, folder)
    except EdgeferError as error:  # such as a network that reads nothing
        return Check(question=3, subject=BROWSER, status=Status.NOT_CHECKED, detail=str(error))
    return prove_page(folder)


def unchecked_targets(bundle: Bundle, reason: str, fix: str = "") -> list[Check]:
    """The same rows when no target was run."""
    if not bundle.has(Form.INT8):
        return []
    names = [*(target.title for target in TARGETS), BROWSER]
    return [
        Check(question=3, subject=name, status=Status.NOT_CHECKED, detail=reason, fix=fix if name is names[0] else "")
        for name in names
    ]
