"""edgefer models: the shipped networks."""

from edgefer.commands.inputs import AsJson


def models(as_json: AsJson = False) -> None:
    """List the networks shipped with edgefer.

    The accuracy and labels of each, and the path of its model card, with its training data and limitations.

    - `edgefer models`
    - `edgefer models --json`
    """
    from edgefer import console
    from edgefer.bundle import Bundle, Form, shipped_bundles

    bundles = {name: Bundle.open(path) for name, path in shipped_bundles().items()}
    if as_json:
        console.show_json({"models": [{"name": name, **bundle.to_dict()} for name, bundle in bundles.items()]})
        return
    rows = []
    for name, bundle in bundles.items():
        card = bundle.card
        scores = card.metrics[card.measured_on][Form.INT8]
        figures = (f"{scores.accuracy:.2%}", f"{scores.macro_recall:.3f}", f"{scores.macro_f1:.3f}")
        size = f"{card.variants[Form.INT8].bytes:,}"
        rows.append((name, f"{card.measured_on}, {scores.count:,}", *figures, size, bundle.hash[:12]))
    columns = ("name", "images", "accuracy", "macro recall", "macro F1", "bytes", "bundle")
    console.show_table("Shipped networks, int8; valid is the split they were chosen on", columns, rows)
    for name, bundle in bundles.items():
        console.show(f"{name}: {', '.join(bundle.card.labels)}. Model card: {bundle.path / 'README.md'}")
