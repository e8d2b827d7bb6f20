"""Settings that make training quick on this machine."""

import re

import pytest

from edgefer.errors import MissingDependency
from edgefer.train import backend


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        ("fpu avx512f avx512_bf16", "mixed_bfloat16"),
        ("fpu avx512f amx_bf16 amx_tile", "mixed_bfloat16"),
        ("fpu avx2 avx512f avx512_vnni", "float32"),
    ],
)
def test_bfloat16_is_used_if_the_cpu_multiplies_it_natively(flags, policy, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(backend, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(backend.tensorflow().config, "list_physical_devices", lambda kind: [])
    assert backend.precision() == policy
    monkeypatch.setattr(backend, "CPUINFO", tmp_path / "absent")
    assert backend.precision() == "float32"


@pytest.mark.parametrize(
    ("python", "advice"),
    [((3, 13, 0), "pip install 'edgefer[train]'"), ((3, 14, 1), "no package for Python 3.14, so train and convert in")],
)
def test_missing_tensorflow_is_reported_with_what_this_python_can_install(monkeypatch, python, advice):
    def missing(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(backend, "import_module", missing)
    monkeypatch.setattr(backend.sys, "version_info", python)
    with pytest.raises(MissingDependency, match=re.escape(advice)):
        backend.tensorflow()
