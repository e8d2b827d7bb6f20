"""Writes TFLite Metadata into a .tflite file: the meaning of its input and output, for Android Studio, ML Kit and MediaPipe.

It follows metadata_schema.fbs (identifier M001, parser version 1.0.0) using only the flatbuffers library, because the
packages for it do not suit a training host: tflite-support 0.4.4 needs protobuf below 4, and mediapipe 1.2.2 brings
another OpenCV and a writer that cannot be imported. Runtimes ignore the metadata.
"""

import io
import zipfile

import numpy as np

from edgefer import __version__
from edgefer.card import InputSpec, ModelCard

ENTRY = b"TFLITE_METADATA"
IDENTIFIER, PARSER = b"M001", "1.0.0"
LABELS = "labels.txt"
# The schema's tables: the fields in order, which gives their number in the file. A union takes two, its type first.
FIELDS = {
    "ModelMetadata": (
        "name", "description", "version", "subgraph_metadata", "author", "license", "associated_files",
        "min_parser_version",
    ),
    "SubGraphMetadata": ("name", "description", "input_tensor_metadata", "output_tensor_metadata"),
    "TensorMetadata": (
        "name", "description", "dimension_names", "content", "process_units", "stats", "associated_files",
    ),
    "Content": ("content_properties_type", "content_properties", "range"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "Stats": ("max", "min"),
    "AssociatedFile": ("name", "description", "type"),
}  # fmt: skip
FEATURE, IMAGE, NORMALIZATION, RGB, GRAYSCALE, AXIS_LABELS = map(np.uint8, (1, 2, 1, 1, 2, 2))
COLORS = {"RGB": RGB, "GRAY": GRAYSCALE, "BGR": np.uint8(0)}  # 0: unknown, since the schema has no BGR
SUBJECTS = {"human": "a picture of a face", "cat": "a picture of a cat's face", "frame": "a picture"}
RANGES = {"FLOAT32": (0, 1), "INT8": (-128, 127), "UINT8": (0, 255)}  # of an input's values, by its type


def with_metadata(content: bytes, card: ModelCard) -> bytes:
    """The .tflite with metadata from its card and labels.txt at its end, where `unzip -l` finds it.

    Existing metadata is replaced. The network is unchanged, except that its constants now begin at multiples of 16. A face
    detector's file stays as it is: the schema has no words for its answers.
    """
    if card.task != "read":
        return content
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    types = {value: name for name, value in vars(schema.TensorType).items()}
    (image,), (answer,) = ([graph.tensors[number] for number in ends] for ends in (graph.inputs, graph.outputs))
    described = _model(card, tuple(image.shape), types[image.type], mediapipe=types[answer.type] == "UINT8")
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, described), IDENTIFIER)
    entries = {entry.name: entry for entry in model.metadata or ()}
    if ENTRY not in entries:
        entries[ENTRY] = entry = schema.MetadataT()
        entry.name, entry.buffer = ENTRY, len(model.buffers)
        model.buffers.append(schema.BufferT())
    model.buffers[entries[ENTRY].buffer].data = np.frombuffer(bytes(builder.Output()), np.uint8)
    model.metadata = list(entries.values())
    out = io.BytesIO(packed(model, len(content)))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:  # readers expect it uncompressed
        archive.writestr(zipfile.ZipInfo(LABELS), "\n".join(card.labels) + "\n")
    return out.getvalue()


def packed(model, size: int) -> bytes:
    """A schema.ModelT as the bytes of a .tflite, about `size` of them."""
    import flatbuffers

    class Aligned(flatbuffers.Builder):
        # The schema requires it (force_align: 16), but Python's generated code does not do it.
        def StartVector(self, elemSize, numElems, alignment):
            return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    builder = Aligned(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _model(card: ModelCard, shape: tuple[int, ...], dtype: str, *, mediapipe: bool) -> dict:
    height, width, channels = (*shape[1:], 1)[:3]  # a gray one's may be without channels
    least, most = RANGES[dtype]
    probabilities = mediapipe or card.output.values == "probabilities"
    size = _table("ImageSize", width=np.uint32(width), height=np.uint32(height))
    order = "RGB" if mediapipe else card.input.color.upper()  # MediaPipe's form takes RGB, whatever the card's takes
    color = _table("ImageProperties", color_space=COLORS[order], default_size=size)
    mean, std = _normalization(card.input)
    norm = _table("NormalizationOptions", mean=mean, std=std)
    stats = {"max": np.full(1, most, np.float32), "min": np.full(1, least, np.float32)}
    takes = f"values {least} to {most} for pixels 0 to 255"
    if card.input.stated:
        stats, takes = {}, "values (pixel - mean) / std, quantized by the tensor's scale and zero point"
    image = _table(
        "TensorMetadata",
        name="image",
        description=f"{SUBJECTS[card.faces].capitalize()}, {width}x{height}, {order if channels == 3 else 'gray'}; {takes}.",
        content=_table("Content", content_properties_type=IMAGE, content_properties=color),
        process_units=[_table("ProcessUnit", options_type=NORMALIZATION, options=norm)],
        stats=_table("Stats", **stats),
    )
    labels = _table("AssociatedFile", name=LABELS, description="A label for each answer, in order.", type=AXIS_LABELS)
    limits = {"max": np.full(1, 255, np.float32), "min": np.zeros(1, np.float32)} if mediapipe else {}
    answer = _table(
        "TensorMetadata",
        name="probability" if probabilities else "logits",
        description="Probabilities of the labels."
        if probabilities
        else f"Logits of the labels; softmax(logits / {card.temperature:.4g}) are their probabilities.",
        content=_table("Content", content_properties_type=FEATURE, content_properties=_table("FeatureProperties")),
        stats=_table("Stats", **limits),
        associated_files=[labels],
    )
    described = {"author": card.author, "license": card.license}
    return _table(
        "ModelMetadata",
        name=card.name,
        description=f"Classifies {SUBJECTS[card.faces]} as {', '.join(card.labels)}. Trained on {card.provenance.data}.",
        version=f"edgefer {__version__}",
        subgraph_metadata=[_table("SubGraphMetadata", input_tensor_metadata=[image], output_tensor_metadata=[answer])],
        min_parser_version=PARSER,
        **{field: text for field, text in described.items() if text},
    )


def _normalization(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """mean, std: float32, a number for each channel, or one for all: a network takes (pixel - mean) / std."""
    pairs = list(dict.fromkeys(spec.per_channel())) if spec.stated else [(1 / 255, 0.0)]
    numbers = spec.per_channel() if len(pairs) > 1 else pairs
    scale, offset = np.array(numbers).T
    return ((0 - offset) / scale).astype(np.float32), (1 / scale).astype(np.float32)


def _table(kind: str, **fields: object) -> dict[int, object]:
    """One of the schema's tables: the number of a field -> its value."""
    return {FIELDS[kind].index(name): value for name, value in fields.items()}


def _write(builder, value) -> int:
    """Write a table (dict), a vector of them (list), a vector of numbers or a text; returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        places = [_write(builder, one) for one in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    # Objects that a table refers to must be written before it is started.
    fields = {number: part if isinstance(part, np.generic) else _write(builder, part) for number, part in value.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, part in fields.items():
        if isinstance(part, np.uint8):
            builder.PrependUint8Slot(number, int(part), 0)
        elif isinstance(part, np.uint32):
            builder.PrependUint32Slot(number, int(part), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, part, 0)
    return builder.EndObject()
