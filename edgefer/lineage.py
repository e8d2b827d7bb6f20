"""The trained network that a bundle's network came from, however many conversions ago, and whether the bundle holds it.

Slimming, pruning and quantization-aware training change the weights. An int8 network agrees well with the float network
that such a step produced, so everything is compared with the trained network instead. The bundle holds it as `keras`, or
as `origin` if slimming replaced it with a smaller one, or as `float32` if it was imported as a .tflite, and the card has its
hash.
"""

from edgefer.bundle import Bundle, Form, is_shipped
from edgefer.card import ModelCard
from edgefer.checks import Check, Status
from edgefer.options import MAX_DROP

SUBJECT, COST = "file of the trained network", "recorded cost of conversion"
FIX = "convert again from the bundle that was trained"
MIN_RETRAINED_AGREEMENT = 0.90  # MIN_AGREEMENT of a network whose weights were trained in between


def origin_form(card: ModelCard) -> Form | None:
    """The file with the trained network; None if the bundle does not hold it, or its card contradicts itself about it."""
    if contradiction(card):
        return None
    if card.lineage is None:
        if Form.KERAS in card.variants:
            return None if _slimmed(card) else Form.KERAS
        return Form.FLOAT32 if Form.FLOAT32 in card.variants and _came_as_tflite(card) else None
    forms = (Form.ORIGIN, Form.KERAS, Form.FLOAT32)
    return next((f for f in forms if f in card.variants and card.variants[f].sha256 == card.lineage.sha256), None)


def contradiction(card: ModelCard) -> str:
    """A contradiction in the card, as after a manual change; "" for a card written by a conversion."""
    named = card.lineage.sha256 if card.lineage else ""
    if Form.ORIGIN in card.variants and card.variants[Form.ORIGIN].sha256 != named:
        return "origin.keras is not the network that the card's lineage names"
    if named and _slimmed(card) and Form.KERAS in card.variants and card.variants[Form.KERAS].sha256 == named:
        return "model.keras was slimmed by a step of the card, whose lineage names it as the one that was trained"
    if Form.FLOAT32 in card.variants and card.variants[Form.FLOAT32].sha256 == named and not _came_as_tflite(card):
        return (
            "the card's lineage names float32.tflite, which was made from a Keras network, as the one that was trained"
        )
    return ""


def _came_as_tflite(card: ModelCard) -> bool:
    """Whether its float32 form can be the network as it was imported: no Keras network is there, and no weights were trained."""
    return card.input.stated and Form.KERAS not in card.variants and not is_retrained(card)


def _slimmed(card: ModelCard) -> bool:
    """Whether a conversion slimmed it. Versions before 0.2 wrote no lineage, only this step."""
    return any(step.startswith("slim to ") for step in card.provenance.steps)


def is_retrained(card: ModelCard) -> bool:
    """Whether weights were removed or trained after training: by the card, or by the files that this leaves."""
    kept = Form.TUNED in card.variants or Form.ORIGIN in card.variants
    return kept or _slimmed(card) or (card.lineage is not None and card.lineage.retrained)


def check_origin(bundle: Bundle) -> Check:
    """Whether the trained network is available. A row of question 2, so that another comparison is not mistaken for it."""
    card = bundle.card
    form, status, fix = origin_form(card), Status.NOT_CHECKED, _fix(bundle)
    if form is not None:
        name, status, fix = card.variants[form].file, Status.PASS, ""
        detail = (
            f"{name}, by its hash in the card's lineage"
            if card.lineage
            else f"{name}, which no step of the card replaced"
        )
    elif detail := contradiction(card):
        status = Status.FAIL
    elif not any(variant in card.variants for variant in (Form.KERAS, Form.ORIGIN)):
        detail = "the bundle holds no Keras network: its forms can be compared with each other only"
        fix = fix and f"{fix}, or import the network's .keras or .h5 file"
    elif card.lineage is not None and card.lineage.sha256:
        detail = f"the bundle no longer holds it ({card.lineage.sha256:.12}…): what conversion cost is not known"
    else:
        detail = (
            "the network was slimmed, and the bundle does not hold the one it came from: what that cost is not known"
        )
    return Check(question=2, subject=SUBJECT, status=status, detail=detail, fix=fix)


def _fix(bundle: Bundle) -> str:
    """What its user can do; nothing for a shipped one, whose trained network is not part of edgefer."""
    return "" if is_shipped(bundle) else FIX


def check_recorded_cost(bundle: Bundle) -> Check | None:
    """A retrained network's loss according to the card, for a machine without data; None for one that was only rounded."""
    card = bundle.card
    if not is_retrained(card):
        return None
    if card.lineage is None or card.lineage.cost is None:
        detail = "it was retrained or slimmed, and the card does not say what that cost"
        return Check(question=2, subject=COST, status=Status.NOT_CHECKED, detail=detail, fix=_fix(bundle))
    cost = card.lineage.cost
    low, high = cost.drop_interval
    over = cost.drop > MAX_DROP or cost.agreement < MIN_RETRAINED_AGREEMENT
    detail = (
        f"when it was converted, {cost.variant} lost {cost.drop:+.2f} points [{low:+.2f}, {high:+.2f}] against "
        f"{card.lineage.name} and agreed on {cost.agreement:.2%} of {cost.count:,} images ({cost.split})"
    )
    return Check(question=2, subject=COST, status=Status.WARN if over else Status.PASS, detail=detail)
