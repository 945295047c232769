"""The spectrum of a samples × features matrix, from which linear layers are fitted in closed form. NumPy and SciPy, no
JAX.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

Floats = npt.NDArray[np.float32]

_MORE, _ROUNDS, _SEED = 32, 3, 0
"""Of the randomised decomposition: directions beside those wanted, rounds of power iteration, and its seed."""
_RESOLVED = 1e-3
"""Share of the largest singular value below which float32, in which they are squared, cannot tell one from rounding."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest singular values of a matrix whose rows and columns were divided by powers of their sums, with what
    leads from features to their directions and back.
    """

    down: Floats
    """[features, rank], rows divided by the power of the column sums; zeros in columns beyond the matrix's own rank."""
    energy: Floats
    """[rank] squares of the singular values as shares of the largest, in descending order."""
    up: Floats
    """[rank, features], columns multiplied by the power of the column sums."""

    def weights(self, ridge: float) -> tuple[Floats, Floats]:
        """[features, rank] and [rank, features]: what scores a sample when it goes through both."""
        shrunk = self.energy / np.maximum(self.energy + ridge, np.finfo(np.float32).tiny)
        return self.down, shrunk[:, None].astype(np.float32) * self.up


def spectrum(matrix: Any, *, rank: int, item_power: float, user_power: float) -> Spectrum:
    """Of a CSR matrix [samples, features]; `rank` directions at most."""
    rows, columns = (np.maximum(np.asarray(matrix.sum(axis=axis)).ravel(), 1.0) for axis in (1, 0))
    before, after = (sparse.diags_array(sums**-power) for sums, power in ((rows, user_power), (columns, item_power)))
    scaled = sparse.csr_array(before @ matrix @ after, dtype=np.float32)
    directions, values = _right_singular(scaled, min(rank, *matrix.shape))
    kept = values > _RESOLVED * values[0]
    directions, values = directions[:, kept], values[kept]
    missing = rank - len(values)
    directions = np.pad(directions, ((0, 0), (0, missing)))
    power = (columns**item_power).astype(np.float32)
    energy = np.pad((values / values[0]) ** 2, (0, missing)).astype(np.float32)
    return Spectrum(directions / power[:, None], energy, directions.T * power)


def _right_singular(matrix: Any, rank: int) -> tuple[Floats, Floats]:
    """[features, rank] right singular vectors and their values, the largest first."""
    samples, features = matrix.shape
    if min(samples, features) <= 2 * (rank + _MORE):
        values, vectors = _eigen(matrix @ matrix.T if samples <= features else matrix.T @ matrix)
        values, vectors = values[:rank], vectors[:, :rank]
        if samples <= features:
            vectors = (matrix.T @ vectors) / np.maximum(values, np.finfo(np.float32).tiny)
        return vectors, values
    # Randomised subspace iteration (Halko, Martinsson and Tropp 2011).
    drawn = np.random.default_rng(_SEED).standard_normal((features, rank + _MORE), dtype=np.float32)
    basis = _orthonormal(matrix.T @ (matrix @ drawn))
    for _ in range(_ROUNDS - 1):
        basis = _orthonormal(matrix.T @ (matrix @ basis))
    seen = matrix @ basis
    values, vectors = _eigen(seen.T @ seen)
    return (basis @ vectors)[:, :rank], values[:rank]


def _orthonormal(columns: Floats) -> Floats:
    """A basis of what the columns span; columns of zeros where they span less."""
    # By the eigenvectors of their products, several times faster than Householder's, and exact enough between rounds.
    values, vectors = _eigen(columns.T @ columns)
    kept = values > _RESOLVED * values[0]
    basis: Floats = columns @ (vectors * np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0))
    return basis.astype(np.float32)


def _eigen(gram: Any) -> tuple[Floats, Floats]:
    """Roots of the eigenvalues of a symmetric matrix, the largest first, and their vectors by column."""
    dense = gram.toarray() if sparse.issparse(gram) else gram
    found: Any = linalg.eigh(dense, overwrite_a=True, check_finite=False)
    values, vectors = found
    return np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1]
