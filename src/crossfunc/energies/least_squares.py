"""Weighted least squares with a pull towards a prior, for columns that may depend on each other.

The rows of X are sparse compositions. A well-conditioned X is solved from its column-scaled normal equations, refined
against X itself; any other by QR in blocks of rows and the SVD of the triangle.
"""

from dataclasses import dataclass

import numpy as np

from crossfunc.symbols import N_ELEMENTS

#: Smallest eigenvalue of the column-scaled normal matrix for which it is still safe: condition of X below 1e4.
_WELL_CONDITIONED = 1e-8


@dataclass(frozen=True)
class Solution:
    """What `solve` found; arrays have one entry per column of X."""

    change: np.ndarray  # c - prior
    unit_variance: np.ndarray  # diagonal of (XᵀWX + ridge)⁺ on the determined space
    determined: np.ndarray  # bool: the column takes no part in the null space
    null_space: np.ndarray  # (n_columns - rank, n_columns): orthonormal changes of c that X cannot see
    rank: int
    degrees_of_freedom: float  # effective number of fitted parameters


def solve(X, y, w, ridge, prior_ev):
    """Weighted ridge least squares about a prior, c = argmin Σ w (X c - y)² + ridge |c - prior|².

    Parameters
    ----------
    X : scipy.sparse.csr_array, shape (n_rows, n_columns)
        No column and no row without an entry, indices sorted.
    y : ndarray, shape (n_rows,)
        eV/atom.
    w : ndarray, shape (n_rows,)
        Positive.
    ridge : float
        In units of rows of weight 1.
    prior_ev : ndarray, shape (n_columns,)
        Directions of c that X cannot see stay here.

    Returns
    -------
    Solution
    """
    X, y, w = _merge_equal_rows(X, y, w)
    target = y - X @ prior_ev
    weighted = X.multiply(w[:, None]).tocsr() if np.ptp(w) else X * w[0]
    gram = (weighted.T @ X).toarray()
    scale = 1 / np.sqrt(np.diagonal(gram))
    if np.linalg.eigvalsh(gram * scale * scale[:, None])[0] > _WELL_CONDITIONED:
        return _solve_refined(X, weighted, target, gram, scale, ridge)
    return _solve_by_qr(X, target, w, ridge)


def _merge_equal_rows(X, y, w):
    """Join each row to the one before if their compositions are equal: the weighted mean has the same minimiser."""
    n_entries = np.diff(X.indptr)
    before = np.concatenate([[0], n_entries[:-1]])
    entry_before = np.arange(X.nnz) - np.repeat(before, n_entries)  # same place in the row before, if equally long
    differs = (X.indices != X.indices[entry_before]) | (X.data != X.data[entry_before])
    is_first = np.logical_or.reduceat(differs, X.indptr[:-1]) | (n_entries != before)
    first = np.flatnonzero(is_first)
    if len(first) == len(y):
        return X, y, w
    weight = np.add.reduceat(w, first)
    return X[first], np.add.reduceat(w * y, first) / weight, weight


def _solve_refined(X, weighted, target, gram, scale, ridge):
    """Full rank and well conditioned: scaled normal equations, then steps with the residual taken from X itself."""
    n_columns = len(gram)
    inverse = np.linalg.inv((gram + ridge * np.eye(n_columns)) * scale * scale[:, None]) * scale * scale[:, None]
    change = np.zeros(n_columns)
    for _ in range(3):  # each step shrinks the error by at least 1e-6: the third is rounding
        change += inverse @ (weighted.T @ (target - X @ change) - ridge * change)
    return Solution(
        change=change,
        unit_variance=np.diagonal(inverse),
        determined=np.ones(n_columns, dtype=bool),
        null_space=np.zeros((0, n_columns)),
        rank=n_columns,
        degrees_of_freedom=float(np.sum(inverse * gram)) if ridge else float(n_columns),
    )


def _solve_by_qr(X, target, w, ridge, block=8192):
    """Any rank: R and Qᵀy from blocks of rows, then the SVD of R; never forms XᵀX."""
    n_rows, n_columns = X.shape
    root = np.sqrt(w)
    triangle = np.zeros((0, n_columns + 1))
    for first in range(0, n_rows, block):
        rows = slice(first, first + block)
        dense = np.column_stack([X[rows].toarray(), target[rows]]) * root[rows, None]
        triangle = np.linalg.qr(np.vstack([triangle, dense]), mode="r")[: n_columns + 1]
    u, singular, vt = np.linalg.svd(triangle[:, :n_columns])
    rank = int(np.sum(singular > np.finfo(float).eps * max(n_rows, N_ELEMENTS) * singular[0]))
    s, v = singular[:rank], vt[:rank].T
    null_space = vt[rank:]
    determined = (np.abs(null_space) < 1e-6).all(axis=0)
    return Solution(
        change=v @ (s / (s**2 + ridge) * (u[:, :rank].T @ triangle[:, n_columns])),
        unit_variance=(v**2 / (s**2 + ridge)).sum(axis=1),
        determined=determined,
        null_space=null_space,
        rank=rank,
        degrees_of_freedom=float(np.sum(s**2 / (s**2 + ridge))),
    )


def residual_variance(residual, w, group, n_groups, degrees_of_freedom):
    """Scatter of rows (materials) of weight 1 about the fit, s² = Σ w r² / (n - degrees of freedom), in eV²/atom².

    Parameters
    ----------
    residual, w : ndarray, shape (n_rows,)
        y - X c in eV/atom, and the weights.
    group : ndarray of int, shape (n_rows,), or None
        Material number of each row; the sum then goes over materials, each with its mean residual and total weight.
    n_groups : int
    degrees_of_freedom : float
        That the fit used up; NaN is returned when none is left.
    """
    if group is not None:
        total = np.bincount(group, w, minlength=n_groups)
        residual, w = np.bincount(group, w * residual, minlength=n_groups) / total, total
    left = len(residual) - degrees_of_freedom
    return float(np.sum(w * residual**2) / left) if left > 0.5 else float("nan")
