"""What a dataset holds for element references: energies with their compositions, and whether a model needs a refit."""

from typing import Any

import numpy as np

from crossfunc.datasets import Dataset, DatasetError
from crossfunc.energies.composition import composition_matrix
from crossfunc.energies.shifts import refit_advice

_PASSED_ON = "refit reason initial_mae_ev_per_atom refitted_mae_ev_per_atom is_held_out n_materials n_judged".split()


def energies_of(dataset: Dataset, functional, *, from_frames: bool = False) -> tuple[Any, np.ndarray, np.ndarray]:
    """Composition matrix, energies per atom (eV) and material ids of one functional.

    Parameters
    ----------
    dataset : Dataset
    functional : Functional
        From `dataset.functional`.
    from_frames : bool
        Take frames also where there are pairs.

    Raises
    ------
    DatasetError
        Neither pairs nor frames, no frames of this functional, or frames with another kind of energies than its own.
    """
    if dataset.pairs is not None and not (from_frames and dataset.frames is not None):
        pairs = dataset.pairs
        return composition_matrix(pairs), pairs[functional.column()].to_numpy(), pairs["material_id"].to_numpy()
    if dataset.frames is None:
        raise DatasetError(f"{dataset.path}: neither pairs nor frames to fit element references to.")
    import pyarrow.compute as pc

    table = dataset.frames.filter(pc.field("functional") == functional.key)
    if table.num_rows == 0:
        raise DatasetError(f"{dataset.path}: no {functional.name} frames; choose the other --functional.")
    kinds = sorted(pc.unique(table["energy_kind"]).to_pylist())
    if kinds != [functional.energy_kind]:
        ids = [table["frame_id"][pc.index(table["energy_kind"], kind).as_py()].as_py() for kind in kinds]
        there = " and ".join(f"{kind} ({frame})" for kind, frame in zip(kinds, ids, strict=True))
        raise DatasetError(
            f"{dataset.path}: its {functional.name} frames have energies of kind {there}, and dataset.json says "
            f"{functional.energy_kind}: references of a mixture are those of neither. Keep frames of one kind."
        )
    energy_per_atom_ev = table["energy_per_atom_ev"].to_numpy()
    return composition_matrix(table), energy_per_atom_ev, table["material_id"].to_numpy()


def advise_refit(dataset: Dataset) -> dict[str, Any] | None:
    """Whether to refit when going from the low functional to the high one, as plain values with `from` and `to`.

    None unless materials have both.
    """
    if dataset.pairs is None:
        return None
    pairs = dataset.pairs
    low, high = dataset.functionals
    difference_per_atom_ev = (pairs[high.column()] - pairs[low.column()]).to_numpy()
    advice = refit_advice(
        composition_matrix(pairs), difference_per_atom_ev, material_ids=pairs["material_id"].to_numpy()
    )
    return {"from": low.full_name, "to": high.full_name, **{name: getattr(advice, name) for name in _PASSED_ON}}
