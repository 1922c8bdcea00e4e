r"""Which crystals to label next: those of which the labels at hand say least.

The difference between label and model is taken as a Gaussian process, :math:`k(x, x') = s_r^2\, c \cdot c' + a a'
\exp(-|v - v'|^2/2w^2)`: element references on the composition :math:`c`, and bonding on what the network knows of the
crystal, :math:`v`, with an amplitude :math:`a` that is larger where the available models disagree. Crystals are taken
one by one, each time the one whose difference is least known after the labels at hand and the crystals taken before.
"""

from dataclasses import dataclass

import numpy as np

from crossfunc.symbols import ELEMENT_SYMBOLS

__all__ = ["Pool", "choose_next"]

REFERENCE_EV = 1.0
"""Standard deviation of an element's shift before any label, where no table is known."""
FEW_MATERIALS = 3


@dataclass(frozen=True, eq=False)
class Pool:
    """Crystals as the choice sees them, a row each.

    Attributes
    ----------
    features : ndarray, shape (n, n_features)
    fractions : ndarray, shape (n, 94)
    material_ids : ndarray of str, shape (n,)
        Material of each crystal: several frames of one count once.
    """

    features: np.ndarray
    fractions: np.ndarray
    material_ids: np.ndarray


def choose_next(labelled: Pool, candidates: Pool, n: int, *, left_ev: float, disagreement=None) -> list[dict]:
    """Choose crystals to label, most wanted first.

    Parameters
    ----------
    labelled, candidates : Pool
    n : int
        How many.
    left_ev : float
        Error that references leave, eV/atom: the amplitude of bonding.
    disagreement : array_like, shape (n_candidates,), optional
        How far the available models differ on each candidate, in any unit.

    Returns
    -------
    list of dict
        `row` among the candidates, `unknown_ev_per_atom` (standard deviation before it is labelled) and `reason`.
    """
    amplitude = np.full(len(candidates.features), left_ev)
    if disagreement is not None:
        given = np.asarray(disagreement, float)
        amplitude = amplitude * np.clip(given / max(np.median(given), 1e-12), 0.5, 3.0)
    features = np.vstack([labelled.features, candidates.features])
    scale = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(scale < 1e-9, 1.0, scale)
    fractions = np.vstack([labelled.fractions, candidates.fractions])
    size = np.concatenate([np.full(len(labelled.features), left_ev), amplitude])
    width = _median_distance(features)
    noise = (0.1 * left_ev) ** 2
    known = _Known(features, fractions, size, width)
    for row in range(len(labelled.features)):
        known.add(row, noise)
    counts = _materials_per_element(labelled.fractions, labelled.material_ids)
    taken: list[dict] = []
    offset, rows = len(labelled.features), np.arange(len(candidates.features))
    for _ in range(min(n, len(rows))):
        variance = known.variance[offset:].copy()
        variance[[one["row"] for one in taken]] = -1.0
        row = int(np.argmax(variance))
        reason = _reason(candidates.fractions[row], counts, disagreement, row)
        taken.append({"row": row, "unknown_ev_per_atom": float(np.sqrt(max(variance[row], 0.0))), "reason": reason})
        known.add(offset + row, noise)
        rows_taken = [one["row"] for one in taken]
        counts = _materials_per_element(
            np.vstack([labelled.fractions, candidates.fractions[rows_taken]]),
            np.concatenate([labelled.material_ids, candidates.material_ids[rows_taken]]),
        )
    return taken


def _materials_per_element(fractions: np.ndarray, material_ids: np.ndarray) -> np.ndarray:
    """In how many materials each element is."""
    names, group = np.unique(material_ids, return_inverse=True)
    holds = np.zeros((len(names), fractions.shape[1]), dtype=bool)
    np.logical_or.at(holds, group, fractions > 0)
    return holds.sum(axis=0)


class _Known:
    """Variance of every crystal after those that were added, by a partial Cholesky factor."""

    def __init__(self, features, fractions, amplitude, width):
        self.features, self.fractions, self.amplitude, self.width = features, fractions, amplitude, width
        self.variance = REFERENCE_EV**2 * (fractions**2).sum(axis=1) + amplitude**2
        self.columns: list[np.ndarray] = []

    def add(self, row: int, noise: float) -> None:
        squared = ((self.features - self.features[row]) ** 2).sum(axis=1)
        column = REFERENCE_EV**2 * self.fractions @ self.fractions[row]
        column = column + self.amplitude * self.amplitude[row] * np.exp(-squared / (2 * self.width**2))
        for one in self.columns:
            column = column - one * one[row]
        column = column / np.sqrt(max(self.variance[row], 0.0) + noise)
        self.columns.append(column)
        self.variance = self.variance - column**2


def _reason(fractions, counts, disagreement, row: int) -> str:
    new = [ELEMENT_SYMBOLS[z] for z in np.flatnonzero((fractions > 0) & (counts == 0))]
    few = [ELEMENT_SYMBOLS[z] for z in np.flatnonzero((fractions > 0) & (counts > 0) & (counts < FEW_MATERIALS))]
    if new:
        return f"{', '.join(new)}: in nothing that is labelled"
    if few:
        return f"{', '.join(few)}: in fewer than {FEW_MATERIALS} labelled materials"
    if disagreement is not None and disagreement[row] > 2 * np.median(disagreement):
        return "the models disagree on it more than twice as much as on most"
    return "unlike what is labelled"


def _median_distance(x: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    distances = pdist(x[:: max(1, len(x) // 500)])
    return float(np.median(distances)) if len(distances) and np.median(distances) > 0 else 1.0
