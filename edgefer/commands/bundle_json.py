"""The JSON of commands that write a bundle."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefer.bundle import Bundle


def bundle_json(bundle: "Bundle") -> dict[str, Any]:
    """Its hash as "bundle" and its folder as "out", as in `edgefer verify` and `edgefer export`; from its card the labels,
    the files with their hashes and bytes, the figures by split and form, and what conversion cost."""
    card = bundle.card.to_dict()
    kept = ("name", "labels", "variants", "metrics", "lineage")
    return {"bundle": bundle.hash, "out": str(bundle.path)} | {name: card[name] for name in kept if name in card}
