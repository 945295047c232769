"""Factors by Bayesian personalised ranking: what a sample has shall score higher than what it has not (Rendle et al.
2009).

Each epoch goes once through all pairs of a sample and a feature it has, shuffled, in mini-batches; each pair meets a
feature drawn evenly, and is passed over where the sample has that one too. Steps are Adagrad's (Duchi et al. 2011).
Features have biases. A sample never seen learns its own factors, those of features standing still, by steps of the
same kind whose draws are the same for every sample: what it is recommended depends on nothing but itself and the seed.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from trainer.referees.choosing import Choosing
from trainer.referees.ranking import Referee, Scorer

Floats = npt.NDArray[np.float32]

_LEAST_SQUARE = np.float32(1e-8)


class Settings(NamedTuple):
    """What is chosen, and what is given."""

    regularisation: float
    factors: int = 64
    epochs: int = 100
    rate: float = 0.05
    batch: int = 2048
    """Pairs a step."""
    deviation: float = 0.1
    """Of the norm of initial factors."""
    unseen_steps: int = 100
    """Steps by which a sample learns its own factors."""
    unseen_pairs: int = 8
    """Pairs a sample in each of them."""

    def __str__(self) -> str:
        return f"{self.factors} factors, regularisation {self.regularisation:g}"


_GRID = tuple(Settings(regularisation) for regularisation in (0.003, 0.01, 0.03, 0.1))
_DEFAULT = Settings(0.01)


class _Pairs(NamedTuple):
    """Ids [pairs] of samples, of a feature each has and of one it has not."""

    sample: npt.NDArray[np.int64]
    has: npt.NDArray[np.int64]
    lacks: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Learning:
    """Factors and the sums of their squared gradients, both [rows, factors + 1]. The last column of features is their
    bias, that of samples is 1 and stays.
    """

    values: Floats
    squares: Floats

    def step(self, rows: npt.NDArray[np.int64], gradients: Floats, rate: float) -> None:
        """Goes up by `gradients` [pairs, factors + 1] of `rows` [pairs], which may repeat themselves."""
        order = np.argsort(rows, kind="stable")
        first = np.flatnonzero(np.diff(rows[order], prepend=-1))
        summed = np.add.reduceat(gradients[order], first)
        different = rows[order[first]]
        self.squares[different] += summed * summed
        self.values[different] += np.float32(rate) * summed / np.sqrt(self.squares[different])


def fit(matrix: Any, choosing: Choosing, seed: int) -> Referee:
    """From the CSR matrix [samples, live]: 64 factors, 100 epochs at rate 0.05; regularisation of 0.003, 0.01, 0.03 and
    0.1, without validation 0.01.
    """

    def fitted(settings: Settings) -> Scorer:
        features = learnt(matrix, settings, seed)

        def scores(known: Any) -> Floats:
            return unseen(features, known, settings, seed) @ features.T  # [rows, factors + 1] -> [rows, live]

        return Scorer(str(settings), matrix.shape[1], scores)

    return choosing.fitted(_GRID, _DEFAULT, fitted)


def learnt(matrix: Any, settings: Settings, seed: int) -> Floats:
    """Factors of features [live, factors + 1], the bias last, from the CSR matrix [samples, live]."""
    rng = np.random.default_rng(seed)
    count, live = matrix.shape
    samples = learning(_initial(rng, count, settings, last=1))
    features = learning(_initial(rng, live, settings, last=0))
    sample = np.repeat(np.arange(count), np.diff(matrix.indptr))
    feature = matrix.indices.astype(np.int64)
    pairs = sample * live + feature  # Ascending, as ids are inside a row.
    for _ in range(settings.epochs):
        order = rng.permutation(len(pairs))
        for start in range(0, len(pairs), settings.batch):
            step = order[start : start + settings.batch]
            drawn = rng.integers(0, live, len(step))
            met = sample[step] * live + drawn
            lacking = pairs[np.minimum(np.searchsorted(pairs, met), len(pairs) - 1)] != met
            if lacking.any():
                step, drawn = step[lacking], drawn[lacking]
                _learn(samples, features, _Pairs(sample[step], feature[step], drawn), settings)
    return features.values


def learning(values: Floats) -> Learning:
    """Factors that have not made a step."""
    return Learning(values, np.full_like(values, _LEAST_SQUARE))


def _initial(rng: np.random.Generator, rows: int, settings: Settings, *, last: float) -> Floats:
    drawn = rng.normal(0, settings.deviation / np.sqrt(settings.factors), (rows, settings.factors + 1))
    drawn[:, -1] = last
    return drawn.astype(np.float32)


def _learn(samples: Learning, features: Learning, pairs: _Pairs, settings: Settings) -> None:
    """Up the gradient of Σ ln σ(x_has - x_lacks), regularised at each factor a pair touches."""
    own, has, lacks = samples.values[pairs.sample], features.values[pairs.has], features.values[pairs.lacks]
    decay = np.float32(settings.regularisation)
    push = expit(-np.einsum("pf,pf->p", own, has - lacks))[:, None]
    towards = push * (has - lacks) - decay * own
    towards[:, -1] = 0
    both = np.concatenate([push * own - decay * has, -push * own - decay * lacks])
    features.step(np.concatenate([pairs.has, pairs.lacks]), both, settings.rate)
    samples.step(pairs.sample, towards, settings.rate)


def unseen(features: Floats, known: Any, settings: Settings, seed: int) -> Floats:
    """Factors [rows, factors + 1] of samples that have what is `known`, a CSR matrix [rows, live]."""
    rng = np.random.default_rng(seed)
    stored = known.toarray() > 0
    lengths = np.diff(known.indptr)[:, None]
    ids = np.append(known.indices, 0)
    own = np.zeros((len(lengths), features.shape[1]), np.float32)
    own[:, -1] = 1
    squares = np.full_like(own, _LEAST_SQUARE)
    for _ in range(settings.unseen_steps):
        which = known.indptr[:-1, None] + (rng.random(settings.unseen_pairs) * lengths).astype(np.int64)
        lacks = rng.integers(0, len(features), settings.unseen_pairs)
        apart = features[ids[which]] - features[lacks]  # [rows, pairs, factors + 1]
        lacking = (~stored[:, lacks] & (lengths > 0)).astype(np.float32)
        push = expit(-np.einsum("rf,rpf->rp", own, apart)) * lacking
        decay = np.float32(settings.regularisation) * lacking.sum(axis=1, keepdims=True)
        gradient = np.einsum("rp,rpf->rf", push, apart) - decay * own
        gradient[:, -1] = 0
        squares += gradient * gradient
        own += np.float32(settings.rate) * gradient / np.sqrt(squares)
    return own
