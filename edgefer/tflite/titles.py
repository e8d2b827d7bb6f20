"""What a .tflite is called where networks are listed: what it computes in, and its ends where those are something else."""

from edgefer.bundle import Bundle, Form
from edgefer.tflite.flatbuffer import Model, quantization, read_model


def described(model: Model) -> str:
    """Such as "float32", "int8", "dynamic-range", "int8 with float32 ends"."""
    inside = quantization(model)
    ends = [[one.dtype.lower() for one in some] for some in (model.main.inputs, model.main.outputs)]
    if not inside.startswith("int") or {inside} == {*ends[0], *ends[1]}:
        return inside
    first, last = ("/".join(dict.fromkeys(some)) for some in ends)
    return f"{inside} with {first} ends" if first == last else f"{inside} with {first} in and {last} out"


def form_title(form: str, content: bytes, *, stated: bool) -> str:
    """What a form of a network is called. stated: it comes from elsewhere and its card states its input: a bundle keeps as float32
    whatever answers in floats, so its file says what it is."""
    return described(read_model(content, form)) if stated and form in (Form.FLOAT32, Form.INT8) else str(form)


def title(bundle: Bundle, form: str) -> str:
    """The same of a bundle's form."""
    stated = bundle.card.input.stated
    return form_title(form, bundle.read(form) if stated else b"", stated=stated)
