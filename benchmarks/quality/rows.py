"""What is measured on what: the rows of the table, a data set and a protocol each, their models and their bars."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from trainer.referees import NAMES

NETWORKS = Path(__file__).resolve().parents[2] / "configs" / "networks"
CHANCE, CONTENT = "chance", "content"
"""Models of the rows of cold items, besides networks."""
LINEAR = "linear"
SAMPLE = "dsstne-movielens"
POPULARITY = "popularity"
_SEEDS = (0, 1, 2, 3, 4)
_STRONG_METRICS = ("ndcg@100", "recall@20", "recall@50")
_NO_VALUES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Model:
    """One that is measured: by its name a baseline, or the network of a file."""

    name: str
    network: Path | None = None
    batch_size: int | None = None
    """Where the network does not state its own; `None`: the trainer's default."""
    epochs: int | None = None
    """Likewise."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row's first model is to reach in the row's first metric: `times` the best of `over`, and `plus` more."""

    over: tuple[str, ...] = ()
    """Models; none: `plus` alone is the bar."""
    plus: float = 0.0
    times: float = 1.0

    def __str__(self) -> str:
        best = f"the best of {' and '.join(self.over)}" if len(self.over) > 1 else "".join(self.over)
        factor = f"{self.times:g} × " if self.times != 1 else ""
        if not best:
            return f"{self.plus:.4f}"
        return f"{factor}{best}" + (f" + {self.plus:.3f}" if self.plus else "")


@dataclass(frozen=True, slots=True)
class Row:
    """A data set, a protocol and who is measured there; the first model is held against the others."""

    name: str
    title: str
    folder: str
    """Of the data, in the folder of all data."""
    about: str
    """How data are split, in a sentence or two."""
    models: tuple[str, ...]
    bar: Bar
    more: tuple[str, ...] = ()
    """Models that are measured only if they are asked for."""
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = _STRONG_METRICS
    """The first one counts."""
    split: Mapping[str, str | float] = field(default_factory=dict[str, str | float])
    """Of `SplitSettings`, without the seed; none: items are hidden entirely."""
    is_joined: bool = False
    """Lists that others split are joined first, and split anew."""
    published: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    """What papers report, in the order of `metrics`."""
    notes: tuple[str, ...] = ()


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        **{name: Model(name) for name in (*NAMES, CONTENT, CHANCE)},
        **{
            model.name: replace(model, network=NETWORKS / f"{model.name}.json")
            for model in (
                Model("movielens"),
                Model("hybrid"),
                Model(SAMPLE, batch_size=256, epochs=10),
                Model("multi-dae", batch_size=128, epochs=50),
                Model("multi-vae", batch_size=128, epochs=50),
                Model(LINEAR, epochs=12),
            )
        },
    }
)
"""By name. Batch sizes and epochs are those that the comment in the network's file tells."""

_NETWORKS = ("movielens", SAMPLE, "multi-dae", "multi-vae")
_STRONG = "Whole users are held out; a fifth of what each of them has is to be found."

ROWS: tuple[Row, ...] = (
    Row(
        name="ml-1m-strong",
        title="MovieLens 1M, strong generalisation",
        folder="ml-1m",
        about=f"All ratings count as liked. {_STRONG} A tenth of the users is for the test, a tenth for validation.",
        models=(*_NETWORKS, *NAMES),
        bar=Bar(("ease",), plus=0.005),
        split={"protocol": "strong", "test_users": 0.1, "validation_part": 0.1},
        is_joined=True,
    ),
    Row(
        name="ml-100k",
        title="MovieLens 100K, strong generalisation",
        folder="ml-100k",
        about=f"Ratings of 4 and more count as liked. {_STRONG} 150 users are for the test, 150 for validation.",
        models=(*_NETWORKS, *NAMES),
        bar=Bar(("ease",), plus=0.010),
        more=(LINEAR,),
        seeds=_SEEDS,
        split={"protocol": "strong", "min_rating": 4.0, "test_users": 150, "validation_part": 150},
    ),
    Row(
        name="ml-latest-small",
        title="MovieLens latest-small, strong generalisation",
        folder="ml-latest-small",
        about=f"Ratings of 4 and more count as liked. {_STRONG} 100 users are for the test, 100 for validation.",
        models=(*_NETWORKS, *NAMES),
        bar=Bar(("ease",), plus=0.010),
        more=(LINEAR,),
        seeds=_SEEDS,
        split={"protocol": "strong", "min_rating": 4.0, "test_users": 100, "validation_part": 100},
    ),
    Row(
        name="ml-1m-weak",
        title="MovieLens 1M, weak generalisation",
        folder="ml-1m",
        about="train.txt and test.txt as they were given, four fifths and a fifth of what each user has. A tenth of "
        "what users have for training is kept to choose settings by; everything is learnt from in the end.",
        models=(*_NETWORKS, *NAMES),
        bar=Bar(("ease", "ials")),
        split={"protocol": "given", "validation_part": 0.1},
    ),
    Row(
        name="gowalla",
        title="Gowalla, as LightGCN split it",
        folder="gowalla",
        about="train.txt and test.txt as published. Settings are chosen on a tenth of what users have for training, by "
        "recall@20; all of train.txt is learnt from in the end.",
        models=("movielens", SAMPLE, POPULARITY, "itemknn", "ials"),
        bar=Bar(plus=0.1820),
        more=("multi-dae", "multi-vae", "ease", "bpr"),
        metrics=("recall@20", "ndcg@20"),
        split={"protocol": "given", "validation_part": 0.1},
        published={
            "EASE": (0.1765, 0.1467),
            "LightGCN": (0.1820, 0.1547),
            "UltraGCN": (0.1862, 0.1580),
            "SimpleX": (0.1872, 0.1557),
            "BSPM": (0.1920, 0.1597),
        },
        notes=(
            "Left out for what they cost here: EASE, which would invert a matrix of 30,000 rows, BPR, multi-dae and "
            "multi-vae; `--also` measures them all the same.",
        ),
    ),
    Row(
        name="cold-items",
        title="MovieLens latest-small, films that nobody has",
        folder="ml-latest-small",
        about="A twentieth of the films is hidden from training entirely; recall is among the hidden ones alone. "
        "`content` goes by tags, genres and decades without a network, `chance` draws 50 of the hidden films.",
        models=("hybrid", CONTENT, CHANCE),
        bar=Bar((CHANCE,), times=5.0),
        seeds=_SEEDS,
        metrics=("cold_recall@50",),
    ),
)
