"""What a network or a layer is made to be, from its JSON: error functions, and the penalties beside them."""

from dataclasses import dataclass

from trainer.jsontree import Node
from trainer.loss_parameters import PLAIN, Contrast, Divergence
from trainer.network_names import ERROR_FUNCTIONS, MULTINOMIAL, SPEAKER
from trainer.network_types import ErrorFunction, Sparseness

_MOST_STEPS = 2**31 - 1
_LEAST_TEMPERATURE = 1e-3
_LOSS_KEYS = ("Name", "Weight", "NegativeWeight")
_OWNERS = {
    "Margin": (ErrorFunction.COSINE_CONTRASTIVE, "CosineContrastive"),
    "Temperature": (ErrorFunction.CROSS_ENTROPY, MULTINOMIAL),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """An error function as written; `error` is `None` where none is named."""

    error: ErrorFunction | None = None
    multinomial: bool = False
    weight: float = 1.0
    negative_weight: float = 1.0
    contrast: Contrast = PLAIN


def read_loss(node: Node | None) -> Loss:
    """An error function: its name, or {Name, Weight, NegativeWeight, Margin, Temperature}."""
    if node is None:
        return Loss()
    if not isinstance(node.value, dict):
        return _named_loss(node)
    members = node.members([*_LOSS_KEYS, *_OWNERS], {"Function": "Name"})
    name = members.get("Name")
    loss = Loss() if name is None else _named_loss(name)
    weight, negative = (members.number(key, 1.0, low=0.0) for key in ("Weight", "NegativeWeight"))
    for key, (owner, name_of_owner) in _OWNERS.items():
        if members.get(key) is not None and loss.error is not owner:
            raise members.nodes[key].fail(f"only {name_of_owner}, named beside it, has a {key}")
    contrast = Contrast(
        margin=members.number("Margin", PLAIN.margin, low=-1.0, high=1.0),
        temperature=members.number("Temperature", 1.0, low=_LEAST_TEMPERATURE, high=1.0 / _LEAST_TEMPERATURE),
    )
    return Loss(loss.error, loss.multinomial, weight, negative, contrast)


def read_sparseness(node: Node | None, owner: str = "SparsenessPenalty parameter") -> Sparseness:
    """The penalty {p, beta}; none where there is no node. `owner` is named where a member is unknown."""
    if node is None:
        return Sparseness()
    members = node.members(["p", "beta"], unknown=f"{SPEAKER}Invalid {owner}: {{key}}")
    return Sparseness(p=members.number("p", 0.0, low=0.0, high=1.0), beta=members.number("beta", 0.0))


def read_divergence(node: Node | None, *, is_gaussian: bool) -> Divergence:
    """The penalty {Weight, Anneal, PerFeature} of a Gaussian layer."""
    if node is None:
        return Divergence()
    if not is_gaussian:
        raise node.fail("only a layer of Type Gaussian has a divergence")
    members = node.members(["Weight", "Anneal", "PerFeature"])
    return Divergence(
        weight=members.number("Weight", 1.0, low=0.0),
        anneal=int(members.number("Anneal", 0, low=0, high=_MOST_STEPS)),
        per_feature=members.flag("PerFeature", False),
    )


def _named_loss(node: Node) -> Loss:
    error = node.choice(
        {**ERROR_FUNCTIONS, MULTINOMIAL: ErrorFunction.CROSS_ENTROPY}, f"{SPEAKER}Invalid error function: {{value}}"
    )
    return Loss(error, node.text().lower() == MULTINOMIAL.lower())
