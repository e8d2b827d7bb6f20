"""Third-party networks, as files that tests make."""

from pathlib import Path

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.convert.contract import Stated
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.tflite.metadata import with_metadata


def int8_file() -> bytes:
    """fer-nano's int8 network."""
    return Bundle.open(shipped_bundles()["fer-nano"]).read("int8")


def changed(change) -> bytes:
    """The same with `change` applied to (input tensor, output tensor)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(int8_file(), 0))
    graph = model.subgraphs[0]
    change(graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]])
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def labelled(folder: Path, **origin: str) -> Path:
    """A .tflite with labels, and metadata that names this author and licence."""
    card = Bundle.open(shipped_bundles()["fer-nano"]).card.model_copy(update=origin)
    (folder / "theirs.tflite").write_bytes(with_metadata(int8_file(), card))
    return folder / "theirs.tflite"


def import_file(path, out, **stated):
    return import_network(Request(path=path, stated=Stated(**stated)), out)
