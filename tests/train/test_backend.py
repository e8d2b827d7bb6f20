"""Settings that make training quick on this machine."""

import pytest

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
