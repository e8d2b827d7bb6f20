"""The title of a .tflite in lists of networks: its arithmetic, and the types of its input and output if they differ."""

from edgefer.bundle import Bundle, Form
from edgefer.tflite.flatbuffer import Model, quantization, read_model


def described(model: Model) -> str:
    """Such as "float32", "int8", "dynamic-range", "int8 with float32 input and output"."""
    inside = quantization(model)
    ends = [[one.dtype.lower() for one in some] for some in (model.main.inputs, model.main.outputs)]
    if not inside.startswith("int") or {inside} == {*ends[0], *ends[1]}:
        return inside
    first, last = ("/".join(dict.fromkeys(some)) for some in ends)
    return (
        f"{inside} with {first} input and output" if first == last else f"{inside} with {first} input and {last} output"
    )


def form_title(form: str, content: bytes, *, stated: bool) -> str:
    """The title of a form of a network. stated: it was imported and its card states its input: a bundle stores any network
    with float answers as float32, so the title comes from the file."""
    return described(read_model(content, form)) if stated and form in (Form.FLOAT32, Form.INT8) else str(form)


def title(bundle: Bundle, form: str) -> str:
    """The title of a bundle's form."""
    stated = bundle.card.input.stated
    return form_title(form, bundle.read(form) if stated else b"", stated=stated)
