"""Which network a bundle's own came from: the trained one, however many conversions ago, and whether the bundle holds it.

Slimming, pruning and quantization-aware training change the weights. Compared with the float network that such a step left
behind, any int8 network would do well; so everything is compared with the network as it was trained. The bundle holds that
one as `keras`, or as `origin` where slimming has put a smaller one in its place, and the card has its hash.
"""

from edgefer.bundle import Bundle, Form
from edgefer.card import ModelCard
from edgefer.checks import Check, Status
from edgefer.options import MAX_DROP

SUBJECT = "the trained network"
FIX = "convert again from the bundle that was trained"
MIN_RETRAINED_AGREEMENT = 0.90  # MIN_AGREEMENT of a network whose weights were trained on the way


def origin_form(card: ModelCard) -> Form | None:
    """The file that holds the network as it was trained; None when the bundle does not hold it (any more), or its card
    contradicts itself about it."""
    if contradiction(card):
        return None
    if card.lineage is None:
        return Form.KERAS if Form.KERAS in card.variants and not _slimmed(card) else None
    forms = (Form.ORIGIN, Form.KERAS)
    return next((f for f in forms if f in card.variants and card.variants[f].sha256 == card.lineage.sha256), None)


def contradiction(card: ModelCard) -> str:
    """What in the card cannot be together, as after a change by hand; "" for a card as conversion writes it."""
    named = card.lineage.sha256 if card.lineage else ""
    if Form.ORIGIN in card.variants and card.variants[Form.ORIGIN].sha256 != named:
        return "origin.keras is not the network that the card's lineage names"
    if named and _slimmed(card) and Form.KERAS in card.variants and card.variants[Form.KERAS].sha256 == named:
        return "model.keras was slimmed by a step of the card, whose lineage names it as the one that was trained"
    return ""


def _slimmed(card: ModelCard) -> bool:
    """Whether a conversion slimmed it. An edgefer from before 0.2 wrote no lineage, only this step."""
    return any(step.startswith("slim to ") for step in card.provenance.steps)


def is_retrained(card: ModelCard) -> bool:
    """Whether weights were removed or trained after the training itself: by the card, or by the files that only that leaves."""
    kept = Form.TUNED in card.variants or Form.ORIGIN in card.variants
    return kept or _slimmed(card) or (card.lineage is not None and card.lineage.retrained)


def check_origin(bundle: Bundle) -> Check:
    """Is the trained network at hand? A row of question 2, so that a comparison with another one is never taken for it."""
    card = bundle.card
    form, status, fix = origin_form(card), Status.NOT_CHECKED, FIX
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
        fix = f"{FIX}, or import the network's .keras or .h5 file"
    elif card.lineage is not None and card.lineage.sha256:
        detail = f"the bundle does not hold it any more ({card.lineage.sha256:.12}…): what the way from it has cost is not known"
    else:
        detail = "the network was slimmed, and the bundle does not hold the one it came from: what that has cost is not known"
    return Check(question=2, subject=SUBJECT, status=status, detail=detail, fix=fix)


def check_recorded_cost(bundle: Bundle) -> Check | None:
    """What the card says a retrained network has lost, for a machine without data; None for one that was only rounded."""
    card = bundle.card
    if not is_retrained(card):
        return None
    if card.lineage is None or card.lineage.cost is None:
        detail = "it was trained on or slimmed, and the card does not say what that has cost"
        return Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=FIX)
    cost = card.lineage.cost
    low, high = cost.drop_interval
    over = cost.drop > MAX_DROP or cost.agreement < MIN_RETRAINED_AGREEMENT
    detail = (
        f"when it was converted, {cost.variant} lost {cost.drop:+.2f} points [{low:+.2f}, {high:+.2f}] against "
        f"{card.lineage.name} and agreed on {cost.agreement:.2%} of {cost.count:,} images ({cost.split})"
    )
    return Check(question=2, subject=SUBJECT, status=Status.WARN if over else Status.PASS, detail=detail)
