"""Recommendations for all users: beside the matrix product alone, and beside implicit's."""

from collections.abc import Iterator

from benchmarks.pairs import Question, Row, SideSpec, compare
from benchmarks.scale import Scale

_K = 10
_AT_ONCE = 256


def rows(scale: Scale) -> Iterator[Row]:
    """Every user's best ten that the user does not have yet, from the sample network."""
    arguments = {
        "users": scale.users,
        "items": scale.items,
        "hidden": scale.narrow,
        "batch": _AT_ONCE,
        "k": _K,
    }
    ours = SideSpec("trainer_side", "recommendations", arguments)
    limit = SideSpec(
        "limits",
        "products",
        {
            "shapes": [(_AT_ONCE, scale.narrow, scale.items)],
            "times": -(-scale.users // _AT_ONCE),
            "counts": scale.users,
        },
    )
    runs = min(scale.runs, 3)
    yield compare(Question("topk/product-alone", "users/s", 0.7), ours, limit, runs=runs)
    peer = SideSpec("implicit_peer", "recommendations", arguments, scale.peers)
    yield compare(Question("topk/implicit", "users/s", None), ours, peer, runs=runs)
