"""`convert --ethosu`: Vela's report, the compiled network in the bundle, and what is refused before the work."""

import json
from dataclasses import replace

import pytest

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.convert import ethosu
from edgefer.convert.ethosu import add_compiled, check_accelerator, compile_int8, parse_report
from edgefer.errors import InputError, MissingDependency, RuntimeFault
from edgefer.tflite.flatbuffer import Operator, read_model
from edgefer.tflite.lint import lint

BEFORE, AFTER = ["CONV_2D", "ADD", "CONV_2D", "MEAN", "CUSTOM"], ["ethos-u", "CUSTOM", "ethos-u"]
SUMMARY = """experiment,network,system_config,memory_mode,core_clock,inference_time,sram_memory_used,dram_memory_used,\
on_chip_flash_memory_used,off_chip_flash_memory_used,cycles_total
default,int8,Ethos_U55_High_End_Embedded,Shared_Sram,500000000.0,0.00041661,25.765625,0.0,1.0,164.875,208305
"""


def test_vela_report_is_parsed(monkeypatch):
    monkeypatch.setattr(ethosu, "version", lambda name: "5.2.0")
    report = parse_report("u55-128", SUMMARY, BEFORE, AFTER)
    assert (report.on_npu, report.cpu_operators, report.cycles, report.clock_mhz) == (4, ("CUSTOM",), 208305, 500)
    assert (report.sram_bytes, report.flash_bytes, report.dram_bytes) == (26384, 169856, 0)
    assert report.inference_ms == pytest.approx(0.41661)
    assert all("an estimate" in name for name, _ in report.rows if "cycles" in name or "ms" in name)
    for summary in ("a,b\n1,2\n", "", SUMMARY.replace("208305", "many")):
        with pytest.raises(RuntimeFault, match="summary that edgefer cannot read"):
            parse_report("u55-128", summary, BEFORE, AFTER)
    assert parse_report("u55-128", SUMMARY, BEFORE, BEFORE).on_npu == 0


def test_unknown_accelerator_and_missing_compiler_give_clear_errors(edgefer, monkeypatch, tmp_path):
    with pytest.raises(InputError, match="--ethosu 'u99' is none of u55-32, "):
        check_accelerator("u99")
    monkeypatch.setattr(ethosu, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install ethos-u-vela"):
        check_accelerator("u55-128")


@pytest.mark.parametrize("target", ["litert", "c"])
def test_lint_knows_a_compiled_file(target):
    shipped = Bundle.open(shipped_bundles()["fer-nano"])
    model = read_model(shipped.read("int8"), "int8.tflite")
    (source,), (answer,) = model.main.inputs, model.main.outputs
    scratch = replace(source, index=len(model.main.tensors), name="scratch")
    npu = Operator(index=0, name="ethos-u", version=1, custom=True, inputs=(source, scratch), outputs=(answer,))
    graph = replace(model.main, operators=(npu,), tensors=(*model.main.tensors, scratch))
    (finding,) = lint(replace(model, subgraphs=(graph,)), target)
    assert finding.rule == "operator-unknown" and finding.next == "use the file it was compiled from"


@pytest.mark.vela
def test_the_compiled_network_and_the_report_are_in_the_bundle(tmp_path):
    shipped = Bundle.open(shipped_bundles()["fer-nano"])
    own = write_bundle(tmp_path / "own", shipped.card, {name: shipped.read(name) for name in shipped.card.variants})
    bundle, report = add_compiled(own, "u55-128")
    model = read_model(bundle.read("int8_ethosu"), "compiled")
    assert [operator.name for operator in model.operators] == ["ethos-u"]
    assert report.cpu_operators == () and report.on_npu == 13 and report.cycles > 10_000 and report.sram_bytes > 10_000
    written = json.loads((bundle.path / "report" / "ethosu.json").read_text())
    assert written["cycles"] == report.cycles and written["cycles_are"] == "an estimate by Vela"
    assert "NPU operators" in (bundle.path / "report" / "ethosu.log").read_text()
    assert Bundle.open(bundle.path).best_tflite() == "int8"


@pytest.mark.vela
def test_a_vela_compile_failure_is_a_one_sentence_error():
    with pytest.raises(RuntimeFault, match=r"Vela failed \(exit code 1\): ") as raised:
        compile_int8(b"no network", "u55-128")
    assert "\n" not in str(raised.value)
