"""Minima of solids that the dataset does not have, computed as its own are, for values that others published."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from crossfunc.datasets.schema import DatasetError
from crossfunc.dft.engine import compute_frame
from crossfunc.dft.labels import EOS_KINDS, fit_minimum
from crossfunc.dft.plan import Frame, Material, frames_of
from crossfunc.dft.run import labelled
from crossfunc.dft.settings import FUNCTIONALS

__all__ = ["SOLIDS", "compute_minima", "solid_frames"]

SOLIDS: Mapping[str, Material] = {
    f"{symbol}-{structure}": Material(f"{symbol}-{structure}", structure, (symbol,), "metal")
    for structure, symbols in (("fcc", "Cu Pd Ag"), ("bcc", "V Nb Mo W"))
    for symbol in symbols.split()
}
"""Transition metals without a magnetic moment whose bulk modulus in r2SCAN is published, and no frame of the dataset.
Chromium, iron and nickel are published, too; they are magnetic, and the plan's settings have no spin."""
ATOMS_PER_CUBE = {"fcc": 4, "bcc": 2}


def solid_frames(material_id: str) -> list[Frame]:
    """Return the frames that fix E(V) of one of `SOLIDS`: the volume of all-electron PBE, and 3 % in length around it.

    Parameters
    ----------
    material_id : str
        Key of `SOLIDS`.

    Returns
    -------
    list of Frame
        As the plan has them: settings, steps and rounding are its own.

    Raises
    ------
    DatasetError
        There is no such solid.

    Notes
    -----
    Volumes where they start: K. Lejaeghere et al., Science 351, aad3000 (2016); `ase.collections.dcdft`.
    """
    from ase.build import bulk
    from ase.collections import dcdft

    material = SOLIDS.get(material_id)
    if material is None:
        raise DatasetError(f"no solid {material_id!r}: choose from {', '.join(SOLIDS)}.")
    (symbol,) = material.elements
    side_a = float(np.cbrt(ATOMS_PER_CUBE[material.prototype] * dcdft.data[symbol]["wien2k_volume"]))
    return frames_of(material, bulk(symbol, material.prototype, a=side_a), EOS_KINDS)


def compute_minima(material_id: str) -> pd.DataFrame:
    """Compute the minimum of E(V) of one of `SOLIDS` in both functionals, as that of a crystal of the dataset.

    Parameters
    ----------
    material_id : str

    Returns
    -------
    pandas.DataFrame
        `material_id, functional, volume_a3_per_atom, bulk_modulus_gpa, derivative` (of the modulus with pressure).

    Raises
    ------
    DatasetError
        There is no such solid, or its minimum lies outside the volumes that were computed.
    """
    frames = solid_frames(material_id)
    records = [labelled(compute_frame(frame), frame) for frame in frames]
    rows = []
    for name in FUNCTIONALS:
        fit = fit_minimum(records, name)
        if not fit.inside:
            raise DatasetError(f"{material_id}: the minimum in {name} lies outside the volumes that were computed.")
        rows.append(
            {
                "material_id": material_id,
                "functional": name,
                "volume_a3_per_atom": fit.volume_a3 / len(frames[0].atomic_numbers),
                "bulk_modulus_gpa": fit.bulk_modulus_gpa,
                "derivative": fit.derivative,
            }
        )
    return pd.DataFrame(rows)
