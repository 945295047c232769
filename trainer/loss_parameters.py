"""Numbers that extensions of losses and penalties are tuned with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contrast:
    """Extension: how sharply an Output layer's error function tells stored features from others."""

    margin: float = 0.5
    """CosineContrastive: outputs of other features up to here cost nothing."""
    temperature: float = 1.0
    """SoftMax: sums are divided by it."""


PLAIN = Contrast()


@dataclass(frozen=True, slots=True)
class Divergence:
    """Extension: what straying from the standard normal costs a Gaussian layer, fully so after `anneal` updates."""

    weight: float = 1.0
    anneal: int = 0
    per_feature: bool = False
    """The weight is that of each stored feature of a sample."""


WHOLE = Divergence()
