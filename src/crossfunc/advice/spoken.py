"""Which functional a model speaks, from its predictions and labels of several functionals of the same crystals.

Offsets per element say nothing certain: they come from pseudopotentials and from the zero of energy, too. What is left
after *each* functional's own offsets are fitted, on materials not fitted, is bonding; the functional of which least is
left is the one the model was taught.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from crossfunc.advice.offsets import (
    N_FOLDS,
    Sample,
    fit_offsets,
    judged_residuals,
    material_means,
    published_zeros,
)
from crossfunc.energies import material_folds, published_tables_apply
from crossfunc.training.labels import LabelledFrames

N_BOOTSTRAP = 1000
SURE = 0.95
"""Share of bootstrap samples of the materials in which a functional must be the nearest."""
TIE_EV_PER_ATOM = 1e-6
"""What leads by no more than this is a tie, which rounding would decide: labels are not known so well."""
_MIN_MATERIALS = 8
_NAMES = {"gga": "GGA/GGA+U", "r2scan": "r²SCAN", "pbe": "PBE", "pbesol": "PBEsol", "scan": "SCAN", "lda": "LDA"}


@dataclass(frozen=True)
class LabelSet:
    """Energies of one functional and kind for the frames that are judged.

    Attributes
    ----------
    functional : str
        Key, as in the frames table.
    energy_kind : str
        "raw" or "mp2020".
    energy_per_atom_ev : ndarray, shape (n_frames,)
        NaN where this functional has no label of the same crystal.
    has_published_zero : bool
        Whether the energies count from the atoms that published tables count from; see `published_tables_apply`.
    """

    functional: str
    energy_kind: str
    energy_per_atom_ev: np.ndarray
    has_published_zero: bool = True

    @property
    def name(self) -> str:
        """In prose: "GGA/GGA+U, MP2020-corrected"."""
        raw = ", uncorrected" if self.functional == "gga" else ""  # its energies are mostly met with corrections
        kind = {"raw": raw, "mp2020": ", MP2020-corrected"}.get(self.energy_kind, f", {self.energy_kind}")
        return _NAMES.get(self.functional, self.functional) + kind

    @property
    def zeros(self) -> dict[str, np.ndarray]:
        """What `published_zeros` lets one expect; nothing for labels of another code, whose zero is another one."""
        return published_zeros(self.functional, self.energy_kind) if self.has_published_zero else {}


def label_sets(dataset, frames: LabelledFrames) -> list[LabelSet]:
    """Labels that a dataset has for the same crystals, those of the frames themselves first.

    MP2020-corrected energies are also given with the corrections taken off again, where that can be done.
    """
    table = dataset.frames
    columns = (table[name].to_pylist() for name in ("frame_id", "functional", "energy_kind"))
    kinds = {frame_id: (functional, kind) for frame_id, functional, kind in zip(*columns, strict=True)}
    own = kinds[str(frames.frame_ids[0])]
    applies = published_tables_apply(dataset)
    sets = [LabelSet(*own, frames.energy_per_atom_ev, applies)]
    keys = _crystal_keys(frames)
    for functional in sorted({functional for functional, _ in kinds.values()} - {own[0]}):
        other = LabelledFrames.from_dataset(dataset, functional)
        energies = dict(zip(_crystal_keys(other), other.energy_per_atom_ev, strict=True))
        found = np.array([energies.get(key, np.nan) for key in keys])
        if np.isfinite(found).any():
            sets.append(LabelSet(functional, kinds[str(other.frame_ids[0])][1], found, applies))
    return sets + [_uncorrected(one, frames) for one in sets if one.energy_kind == "mp2020"]


def _crystal_keys(frames: LabelledFrames) -> list[tuple]:
    """What two frames of the same crystal share: material, cell and places of the atoms, rounded."""
    coords = frames.crystals.split(np.round(frames.crystals.frac_coords, 4) % 1.0)
    numbers = frames.crystals.split(frames.crystals.atomic_numbers)
    return [
        (str(material), np.round(cell, 3).tobytes(), z.tobytes(), (xyz + 0.0).tobytes())
        for material, cell, z, xyz in zip(frames.material_ids, frames.crystals.lattices_a, numbers, coords, strict=True)
    ]


def _uncorrected(corrected: LabelSet, frames: LabelledFrames) -> LabelSet:
    """Return the energies without MP2020 corrections; NaN for materials that the scheme cannot tell."""
    from crossfunc.energies import mp2020_correction_per_atom_ev

    formulas = [re.sub(r"\s", "", frames.crystals.formula(k)) for k in range(len(frames))]
    correction = mp2020_correction_per_atom_ev(formulas, on_error="nan")
    return replace(corrected, energy_kind="raw", energy_per_atom_ev=corrected.energy_per_atom_ev - correction)


def spoken_functional(
    X, predicted_ev: np.ndarray, material_ids: np.ndarray, sets: list[LabelSet], *, seed: int = 0
) -> dict:
    """Compare the model with each set of labels, as it is and after the set's own offsets (held out by material).

    Parameters
    ----------
    X : csr array, shape (n_rows, 94)
    predicted_ev : ndarray, shape (n_rows,)
        eV/atom.
    material_ids : ndarray of str
    sets : list of LabelSet
    seed : int
        Seed of folds and bootstrap.

    Returns
    -------
    dict
        `candidates` (for each set its name, errors, `support`: the share of bootstrap samples in which least is left of
        it, by more than `TIE_EV_PER_ATOM`), `tied` (names of the nearest where several leave the same), `knows_bonding`
        (whether less is left of the nearest than references alone leave of its labels), `spoken` (name of the nearest,
        None if that is not sure, or the model knows nothing but composition), `zeros` (mean absolute error of the first
        set with each published zero of energy in the model's place) and `zero` (name of the one it has, None if none).
    """
    there = np.isfinite(np.stack([one.energy_per_atom_ev for one in sets])).all(axis=0)
    rows = np.flatnonzero(there if there.any() else np.isfinite(sets[0].energy_per_atom_ev))
    used = sets if there.any() else sets[:1]
    samples = [Sample(X[rows], one.energy_per_atom_ev[rows], predicted_ev[rows], material_ids[rows]) for one in used]
    enough = samples[0].n_materials >= _MIN_MATERIALS
    left = [_left_after_offsets(sample, seed) for sample in samples] if enough else []
    candidates = []
    for k, (one, sample) in enumerate(zip(used, samples, strict=True)):
        raw = material_means(np.abs(sample.difference_ev), sample.material_ids)
        candidates.append(
            {
                "functional": one.functional,
                "energy_kind": one.energy_kind,
                "name": one.name,
                "mae_as_it_is_ev_per_atom": float(raw.mean()),
                "mae_after_offsets_ev_per_atom": None,
                "support": None,
                "n_materials": sample.n_materials,
            }
        )
        if enough and len(left[k]):
            candidates[k]["mae_after_offsets_ev_per_atom"] = float(left[k].mean())
    spoken, knows, tied = None, None, []
    if len(left) > 1 and len(left[0]) >= _MIN_MATERIALS:
        support = _support(np.stack(left), seed)
        for row, share in zip(candidates, support, strict=True):
            row["support"] = float(share)
        means = [one.mean() for one in left]
        best = int(np.argmin(means))
        alike = [k for k, mean in enumerate(means) if mean - means[best] <= TIE_EV_PER_ATOM]
        tied = [candidates[k]["name"] for k in alike] if len(alike) > 1 else []
        knows = _beats_composition(samples[best], left[best], seed)
        spoken = candidates[best]["name"] if support[best] >= SURE and knows else None
    rows = np.flatnonzero(np.isfinite(sets[0].energy_per_atom_ev))
    whole = Sample(X[rows], sets[0].energy_per_atom_ev[rows], predicted_ev[rows], material_ids[rows])
    found = {"spoken": spoken, "tied": tied, "knows_bonding": knows, "candidates": candidates}
    return found | _zero_of_energy(sets[0], whole, seed)


def _left_after_offsets(sample: Sample, seed: int) -> np.ndarray:
    """|residual| of each material after offsets fitted to the others; the same materials whatever the labels."""
    folds = material_folds(sample.material_ids, min(N_FOLDS, sample.n_materials), seed)
    residual = np.full(len(folds), np.nan)
    for k in np.unique(folds):
        test = sample.take(folds == k)
        residual[folds == k] = judged_residuals(fit_offsets(sample.take(folds != k)), test.X, test.difference_ev)
    there = np.isfinite(residual)
    return material_means(np.abs(residual[there]), sample.material_ids[there])


def _beats_composition(sample: Sample, left: np.ndarray, seed: int) -> bool:
    """Whether a model leaves less of the labels than references alone do: else it has no bonding to tell by."""
    nothing = Sample(sample.X, sample.label_ev, np.zeros_like(sample.predicted_ev), sample.material_ids)
    alone = _left_after_offsets(nothing, seed)
    return bool(len(alone) == len(left) and _support(np.stack([left, alone]), seed)[0] >= SURE)


def _support(left: np.ndarray, seed: int) -> np.ndarray:
    """Share of bootstrap samples of the materials in which each row has the smallest mean; a tie counts for none."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(left.shape[1], size=(N_BOOTSTRAP, left.shape[1]))
    means = left[:, drawn].mean(axis=2)
    first, second = np.sort(means, axis=0)[:2]
    best = means.argmin(axis=0)[second - first > TIE_EV_PER_ATOM]
    return np.bincount(best, minlength=len(left)) / N_BOOTSTRAP


def _zero_of_energy(labels: LabelSet, sample: Sample, seed: int) -> dict:
    """Which published element references the model has in it, by the offsets that each would give."""
    zeros = labels.zeros
    if not zeros:
        return {"zero": None, "zeros": {}}
    left = np.stack(
        [material_means(np.abs(sample.difference_ev - sample.X @ z), sample.material_ids) for z in zeros.values()]
    )
    means = dict(zip(zeros, left.mean(axis=1).tolist(), strict=True))
    best, second = sorted(means, key=means.__getitem__)[:2]
    sure = _support(left, seed)[list(means).index(best)] >= SURE and means[best] < 0.5 * means[second]
    return {"zero": best if sure else None, "zeros": means}
