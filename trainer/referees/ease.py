"""EASE: ridge regression of every feature on all others, in closed form (Steck 2019, *Embarrassingly Shallow
Autoencoders for Sparse Data*).

With P = (XᵀX + λI)⁻¹ the weights are B_ij = -P_ij / P_jj off the diagonal and 0 on it, so a sample x scores
-(xP)_j / P_jj for a feature it has not. Where there are fewer samples than features, with W = (XXᵀ + λI)⁻¹,
λP = I - XᵀWX (Woodbury), so the same score is (xXᵀWX)_j / (1 - x_jᵀWx_j), `x_j` being column j of X: nothing of
[features, features] is ever held. The inverse, float32, is made in place by Cholesky; while λ is chosen the Gram
matrix is kept beside it and factored anew for each: an eigendecomposition would cost as much as seven of these and
twice the products for every score.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import get_lapack_funcs

from trainer.errors import TrainerError
from trainer.referees.choosing import Choosing
from trainer.referees.ranking import Referee, Scorer, Scores, rows_at_once

Floats = npt.NDArray[np.float32]

_LAMBDAS = (1.0, 2.0, 4.0, 8.0, 17.0, 35.0, 70.0, 140.0, 290.0, 600.0, 1200.0, 2500.0, 5000.0)
_DEFAULT = 200.0
_LARGE = 6000
"""From so many rows of the Gram matrix on, every second λ is tried."""
_ROUNDING = 1e-6
"""A λ below this share of the largest eigenvalue drowns in what float32 rounds."""


def fit(matrix: Any, choosing: Choosing, _seed: int) -> Referee:
    """From the CSR matrix [samples, live]: λ of 1 to 5000, each twice the one before; without validation 200."""
    samples, live = matrix.shape
    dual = samples < live
    gram = gram_of(matrix if dual else matrix.T.tocsr())
    least = _ROUNDING * float(gram.sum(axis=1).max())
    tried = _LAMBDAS if len(gram) <= _LARGE else _LAMBDAS[::2]
    grid = sorted({max(strength, least) for strength in tried})
    scores = dual_scores if dual else primal_scores

    def fitted(strength: float) -> Scorer:
        return Scorer(f"λ {strength:g}", live, scores(matrix, gram, strength))

    return choosing.fitted(grid, max(_DEFAULT, least), fitted)


def primal_scores(_matrix: Any, gram: Floats, strength: float) -> Scores:
    """By (XᵀX + λI)⁻¹, from XᵀX [live, live]."""
    inverse = _inverse(gram, strength)
    scale = -1 / np.diag(inverse)
    return lambda known: (known @ inverse) * scale


def dual_scores(matrix: Any, gram: Floats, strength: float) -> Scores:
    """The same by (XXᵀ + λI)⁻¹, from the CSR matrix X [samples, live] and XXᵀ [samples, samples]."""
    inverse = _inverse(gram, strength)
    samples, live = matrix.shape
    columns = matrix.T.tocsr()  # [samples, live] -> [live, samples]
    scale = np.empty(live, np.float32)
    step = rows_at_once(samples)
    for start in range(0, live, step):
        block = columns[start : start + step]
        scale[start : start + step] = 1 / (1 - block.multiply(block @ inverse).sum(axis=1))

    def scores(known: Any) -> Floats:
        alike = (known @ columns).toarray()  # [rows, live] -> [rows, samples]
        return ((alike @ inverse) @ matrix) * scale  # [rows, samples] -> [rows, live]

    return scores


def gram_of(rows: Any) -> Floats:
    """Products [rows, rows] of the rows of a CSR matrix with each other, made a block at a time."""
    count = rows.shape[0]
    gram = np.empty((count, count), np.float32)
    other = rows.T.tocsr()
    step = rows_at_once(count)
    for start in range(0, count, step):
        gram[start : start + step] = (rows[start : start + step] @ other).toarray()
    return gram


def _inverse(gram: Floats, strength: float) -> Floats:
    """(gram + strength · I)⁻¹, by Cholesky in the one copy that is made."""
    inverse = gram.copy()
    inverse[np.diag_indices_from(inverse)] += np.float32(strength)
    # LAPACK counts columns first: the transpose lies as it wants, and its lower triangle is our upper one.
    potrf, potri = get_lapack_funcs(("potrf", "potri"), dtype=np.float32)
    factor, failed = potrf(inverse.T, lower=1, overwrite_a=1, clean=0)
    if not failed:
        inverted, failed = potri(factor, lower=1, overwrite_c=1)
        inverse = inverted.T
    if failed:
        raise TrainerError(f"baseline ease: with λ {strength:g} the Gram matrix cannot be inverted in float32")
    step = rows_at_once(len(inverse))
    for start in range(0, len(inverse), step):
        stop = start + step
        inverse[start:stop, :start] = inverse[:start, start:stop].T
        corner = np.triu(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = corner + np.triu(corner, 1).T
    return inverse
