"""How much of what the machine can do a step of training gets done: the matrix products that no dense output can do
without, alone and as fast as the machine has them, beside the whole step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from benchmarks.pairs import Question, Row, SideSpec, compare
from benchmarks.scale import Scale
from benchmarks.step import published_network, sample_network
from benchmarks.training import Training


def necessary(training: Training) -> list[tuple[int, int, int]]:
    """Shapes (m, k, n) of the products of a step whose input is sparse: for each matrix but the first one forward and
    two backward, so 6 · batch · from · to flops.
    """
    batch = training.batch
    pairs = zip(training.widths[1:], training.widths[2:], strict=False)
    return [shape for k, n in pairs for shape in ((batch, k, n), (k, batch, n), (batch, n, k))]


def rows(scale: Scale) -> Iterator[Row]:
    """The ratio is the share of the machine's own rate; flops that are not necessary do not count."""
    for name, training, bar in (
        ("published", published_network(scale), 0.8),
        ("sample", sample_network(scale), 0.6),
    ):
        yield _share(f"flops/{name}", training, scale, bar)


def _share(name: str, training: Training, scale: Scale, bar: float) -> Row:
    samples = training.batch * training.steps
    limit = {"shapes": necessary(training), "times": training.steps, "counts": samples}
    return compare(
        Question(name, f"samples/s; {_gigaflops(necessary(training)):.4g} Gflop a step", bar),
        SideSpec("trainer_side", "train", asdict(training)),
        SideSpec("limits", "products", limit),
        runs=scale.runs,
    )


def _gigaflops(shapes: Sequence[tuple[int, int, int]]) -> float:
    return sum(2 * m * k * n for m, k, n in shapes) / 1e9
