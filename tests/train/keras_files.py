"""Keras files for tests: saved, and with another architecture."""

import io
import json
import zipfile


def saved(model, tmp_path, name="model.keras") -> bytes:
    model.save(tmp_path / name)
    return (tmp_path / name).read_bytes()


def changed(content: bytes, change) -> bytes:
    """A .keras file with `change` applied to its architecture."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()
