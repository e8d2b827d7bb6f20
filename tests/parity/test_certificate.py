"""`edgefer verify` on the device, and the certificate of `edgefer verify --report` to compare it with."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from conftest import CHROMIUM

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.c.host import compiler
from edgefer.c.prove import check_in_c
from edgefer.card import OutputSpec
from edgefer.checks import Status
from edgefer.commands.page_rules import device_of
from edgefer.convert.certificate import NOT_ASKED, interval_plot
from edgefer.convert.portable import BROWSER, check_targets, unchecked_targets
from edgefer.errors import BundleError
from edgefer.train.data.dataset import Dataset, Split


@pytest.fixture(scope="module")
def certificate(edgefer, converted, tmp_path_factory):
    """The folder of a certificate of the converted bundle on drawn faces."""
    folder = tmp_path_factory.mktemp("certificate")
    edgefer("parity", converted.path, "--data", "builtin", "--runtime", "litert", "--report", folder)
    return folder


def test_verify_needs_only_the_bundle_and_states_its_hash(edgefer, converted, tmp_path):
    result = json.loads(edgefer("verify", converted.path, "--json", cwd=tmp_path).stdout)
    card = (converted.path / "card.json").read_bytes()
    assert result["passed"] and result["bundle"] == converted.hash == hashlib.sha256(card).hexdigest()
    own = [check for check in result["checks"] if not check["subject"].endswith(" in C")]  # those need a compiler
    assert [(check["question"], check["subject"]) for check in own] == [
        (1, "pixels of haar's crop"), (1, "pixels of own's crop"), (1, "pixels of levelled heads"), (1, "faces"), (3, "int8 on litert"), (3, "float32 on litert"),
        (3, "int8, computed exactly"), (2, "int8's weights against float32's"), (2, "int8's scales and zero points"),
    ]  # fmt: skip
    assert converted.hash in edgefer("verify", converted.path, "--runtime", "auto").stdout


@pytest.mark.parametrize(
    ("compiler", "outcome"),
    [
        pytest.param("cc", "8 of 11 checks passed, 3 fail.", marks=pytest.mark.gcc),
        ("none-here", "7 of 11 checks passed, 2 fail, 2 not checked."),
    ],
)
def test_verify_fails_on_a_changed_crop(edgefer, converted, tmp_path, monkeypatch, compiler, outcome):
    monkeypatch.setenv("CC", compiler)
    stale = shutil.copytree(converted.path, tmp_path / "stale")
    card = json.loads((stale / "card.json").read_text())
    card["crops"]["haar"]["scale"] *= 1.2
    (stale / "card.json").write_text(json.dumps(card))
    done = edgefer("verify", stale, expect=1)
    assert re.search(r"1 pixels .*haar's crop .*FAIL", done.stdout)
    assert f"FAIL: {outcome}" in done.stdout


def test_the_certificate_states_what_was_tested_and_found(certificate, converted):
    result = json.loads((certificate / "parity.json").read_text())
    assert result["passed"] and result["bundle"]["sha256"] == converted.hash
    assert result["made"] in (certificate / "parity.html").read_text()
    assert result["bundle"]["files"]["int8.tflite"] == converted.card.variants["int8"].sha256
    assert result["data"]["images"] == 280 and set(result["machine"]) == {"system", "python", "numpy", "litert"}
    compared = {one["candidate"]["name"]: one for one in result["comparisons"]}
    assert list(compared) == ["float32 on litert", "int8 on litert"]
    for variant, one in zip(("float32", "int8"), compared.values(), strict=True):
        assert one["reference"]["name"] == "keras" and (one["mean_quanta"] is None) == (variant == "float32")
        assert one["candidate"]["scores"]["accuracy"] == pytest.approx(
            converted.card.metrics["valid"][variant].accuracy
        )
        assert len(one["candidate"]["f1"]) == 7
    elsewhere = result["runtimes"]
    assert [one["candidate"]["name"] for one in elsewhere] == [f"{name}, reference kernels" for name in compared]
    for one in elsewhere:
        assert one["candidate"]["scores"]["count"] == one["reference"]["scores"]["count"] == 256
        assert one["agreement"] > 0.98 and (one["worst_quanta"] is None or one["worst_quanta"] <= 4)


def test_certificate_has_a_row_for_every_target_with_its_tools_or_the_reason(certificate):
    rows = {one["subject"]: one for one in json.loads((certificate / "parity.json").read_text())["checks"]}
    tools = {
        ("pixels in C", "int8 in C"): compiler() is not None,
        ("STM32F405 (Cortex-M4)",): all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm", "make"))),
        ("RV32IMC",): all(map(shutil.which, ("riscv64-unknown-elf-gcc", "qemu-system-riscv32", "make"))),
    }
    for names, here in tools.items():
        for name in names:
            assert rows[name]["status"] == ("pass" if here else "not checked")
            assert (" -O2 " in rows[name]["detail"]) if here else rows[name]["fix"].startswith("sudo apt install")
            assert not here or "0 of " in rows[name]["detail"]
    (browser,) = [one for name, one in rows.items() if "Chrom" in name or name == BROWSER]
    assert browser["status"] == ("pass" if CHROMIUM else "not checked")
    assert not CHROMIUM or re.search(r"0 of [\d,]+ answers differ.*\(WebAssembly with", browser["detail"])


def test_conversion_reports_whether_the_c_code_gives_the_stored_answers(converted):
    written = json.loads((converted.path / "report" / "c.json").read_text())
    assert written["bundle"] == converted.hash
    assert [one["subject"] for one in written["checks"]] == ["pixels in C", "int8 in C"]
    assert {one["status"] for one in written["checks"]} == {"pass" if compiler() else "not checked"}


def test_untested_and_untestable_targets_have_a_row_too(converted, tmp_path):
    rows = unchecked_targets(converted, NOT_ASKED, "verify it with --report")
    assert [row.subject for row in rows] == ["STM32F405 (Cortex-M4)", "RV32IMC", BROWSER]
    assert {(row.status, row.detail) for row in rows} == {(Status.NOT_CHECKED, NOT_ASKED)}
    card = converted.card.model_copy(update={"output": OutputSpec(values="probabilities")})
    other = write_bundle(tmp_path / "other", card, {name: converted.read(name) for name in card.variants})
    rows = [*check_in_c(other), *check_targets(other, device_of(card))]
    assert len(rows) == 4 and {row.status for row in rows} == {Status.NOT_CHECKED}
    assert all("answers with probabilities" in row.detail for row in rows)


def test_certificate_page_is_self_contained_and_shows_the_flips(certificate):
    page = (certificate / "parity.html").read_text()
    result = json.loads((certificate / "parity.json").read_text())
    flips = next(one for one in result["comparisons"] if one["candidate"]["name"] == "int8 on litert")["flips"]
    assert page.count("<figure") == min(64, len(flips))
    assert result["bundle"]["sha256"] in page and "<svg" in page
    assert "http://" not in page and "https://" not in page


def test_a_network_in_one_form_on_one_runtime_is_refused_before_the_work(monkeypatch):
    """Emulators and browsers take minutes. A runtime named twice is one."""
    from edgefer.convert import certificate

    bundle = Bundle.open(shipped_bundles()["pets-small"])
    monkeypatch.setattr(certificate, "check_bundle", lambda *_: pytest.fail("it began"))
    split = Split(
        images=np.zeros((1, *bundle.card.input.shape), np.uint8), labels=np.zeros(1, int), ids=np.array(["a"])
    )
    images = Dataset(name="images", labels=bundle.card.labels, splits={"valid": split})
    with pytest.raises(BundleError, match="holds only one form of its network"):
        certificate.certify(bundle, images, "valid", runtimes=["litert", "litert"])


def test_verify_distinguishes_the_proven_bundle_from_another(edgefer, certificate, converted, tmp_path):
    file = certificate / "parity.json"
    assert "as in" in edgefer("verify", converted.path, "--certificate", file).stdout
    card = converted.card.model_copy(update={"name": "other"})
    other = write_bundle(tmp_path / "other", card, {name: converted.read(name) for name in card.variants})
    assert "about another bundle" in edgefer("verify", other.path, "--certificate", file, expect=2).stderr
    (tmp_path / "no.json").write_text("{}")
    done = edgefer("verify", converted.path, "--certificate", tmp_path / "no.json", expect=2)
    assert "is not a parity certificate" in done.stderr
    assert Bundle.open(other.path).hash != converted.hash


def test_verify_says_that_a_bundle_s_plots_are_not_covered_by_its_hash(edgefer, tmp_path):
    bundle = shutil.copytree(shipped_bundles()["fer-nano"], tmp_path / "fer-nano")
    assert "Not covered" not in edgefer("verify", bundle).stdout
    (bundle / "report").mkdir()
    assert "Not covered by this hash, nor checked: the plots and tables in report/." in edgefer("verify", bundle).stdout


def test_certificate_with_the_older_field_pictures_is_accepted(edgefer, tmp_path):
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    older = {"passed": True, "bundle": {"sha256": bundle.hash}, "data": {"pictures": 280}}
    (tmp_path / "parity.json").write_text(json.dumps(older))
    assert "as in" in edgefer("verify", bundle.path, "--certificate", tmp_path / "parity.json").stdout


def drops(*points: float) -> list:
    """Comparisons with these drops, as the chart needs them."""
    from types import SimpleNamespace

    return [
        SimpleNamespace(
            drop=drop,
            drop_interval=(drop - 0.4, drop + 0.4),
            candidate=SimpleNamespace(name=f"int8 on runtime {drop}"),
            reference=SimpleNamespace(name="keras"),
        )
        for drop in points
    ]


@pytest.mark.parametrize("allowed", [0, 0.5, 1, 100])
def test_zero_and_the_budget_are_named_beside_each_other(allowed):
    chart = interval_plot(drops(-20, 0.1), allowed)
    found = re.findall(r'<text x="([\d.]+)" dx="(\d)" y="[\d.]+" text-anchor="(\w+)" class="faint">([^<]+)<', chart)
    (zero, _, left, _), (limit, gap, right, name) = found
    assert (left, right) == ("end", "start") and float(zero) <= float(limit)
    assert float(limit) + int(gap) + 8 * len(name) < 620


def test_no_line_of_the_chart_crosses_the_name_of_a_row():
    chart = interval_plot(drops(-0.3, 0.0, 0.2, 1.7), 1.0)
    names = [float(y) for y in re.findall(r'<text x="10" y="([\d.]+)">', chart)]
    lines = re.findall(r'<line x1="([\d.]+)" x2="\1" y1="([\d.]+)" y2="([\d.]+)"', chart)
    assert len(names) == 4 and len(lines) == 8  # zero and the budget, beside each interval
    for _, top, bottom in lines:
        assert not [y for y in names if float(top) < y + 3 and float(bottom) > y - 10]  # a letter's descent and ascent
