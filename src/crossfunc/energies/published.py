"""Element references that chgnet publishes: three tables in its source, and those inside its two checkpoints."""

import functools
from importlib import metadata

import numpy as np

from crossfunc.energies.atomref import AtomRefError, AtomRefFit
from crossfunc.symbols import ATOMIC_NUMBERS, N_ELEMENTS

#: chgnet's tables hold ~1e-14 eV for elements that were not in its r2SCAN data; no real reference is this small.
_ABSENT_BELOW_EV = 1e-6
#: Po, At, Rn, Fr, Ra: not in MPtrj (89 elements) or MPF, yet chgnet's tables hold a small number for them.
_NEVER_IN_GGA_DATA = ("Po", "At", "Rn", "Fr", "Ra")

_PUBLISHED = {
    "MPtrj": "GGA/GGA+U, MP2020-corrected energies of MPtrj, eV/atom",
    "MPF": "GGA/GGA+U of MPF.2021.2.8, fitted to total energies (is_intensive False), eV per atom all the same",
    "MP-r2SCAN": "uncorrected r2SCAN energies of MP-r2SCAN, eV/atom",
    "0.3.0": "GGA/GGA+U checkpoint, MP2020-corrected energies, eV/atom",
    "r2scan": "r2SCAN checkpoint, uncorrected energies, eV/atom",
}


def published_atomref(name: str) -> AtomRefFit:
    """Element references that chgnet publishes, in eV/atom, float32 values as shipped.

    Parameters
    ----------
    name : str
        A table in chgnet's source: "MPtrj" (alias "MPtrj_e"; GGA/GGA+U with MP2020 corrections), "MPF" or
        "MP-r2SCAN"; or a checkpoint: "0.3.0" or "r2scan", read from the weights inside the file.

    Returns
    -------
    AtomRefFit
        Entries below 1e-6 eV are NaN: chgnet stores ~1e-14 for elements that were not in its data (in r2SCAN: Yb, Po,
        At, Rn, Fr, Ra). No standard errors. Po to Ra of the GGA tables are kept as published but not `determined`.

    Raises
    ------
    AtomRefError
        Unknown name, or a chgnet that does not hold what is expected.

    Notes
    -----
    chgnet applies "MPF" to atom counts and the others to atomic fractions (`is_intensive`): MPF then gives a total
    energy where the others give one per atom. The entries are eV per atom in both cases, so here all are used with
    fractions.
    """
    if name == "MPtrj_e":
        name = "MPtrj"
    if name not in _PUBLISHED:
        raise AtomRefError(f"no published element references {name!r}: choose one of {', '.join(_PUBLISHED)}")
    return _published(name)


def published_tables_apply(dataset) -> bool:
    """Say whether chgnet's tables "MPtrj" and "MP-r2SCAN" are on the scale of a dataset's energies.

    They count from the atoms of VASP's pseudopotentials as the Materials Project uses them, so they hold for labels of
    that code, and of networks that learned from it, from a GGA to r2SCAN. Another code, or an unknown one, has another
    zero of energy: its references are fitted.

    Parameters
    ----------
    dataset : Dataset
        Judged by its functionals and by `labelled_by`.

    Returns
    -------
    bool
    """
    low, high = (functional.key for functional in dataset.functionals)
    code = dataset.labelled_by.rpartition(", ")[2]
    return low in ("gga", "pbe") and high == "r2scan" and code in ("VASP", "CHGNet", "SevenNet-MF-0")


@functools.cache
def _published(name):
    """Read one published table from chgnet."""
    from crossfunc.vendor import chgnet_checkpoint_path, import_chgnet

    if name in ("0.3.0", "r2scan"):
        import torch

        path = chgnet_checkpoint_path(name)
        state = torch.load(path, map_location="cpu", weights_only=True)
        weight = state["model"]["state_dict"]["composition_model.fc.weight"]
        origin = f"checkpoint {path.name}"
    else:
        composition_model = import_chgnet("chgnet.model.composition_model").AtomRef()
        composition_model.initialize_from(name)
        weight = composition_model.fc.weight
        origin = f"AtomRef table {name}"
    energies = weight.detach().numpy().astype(np.float64).ravel()
    if energies.shape != (N_ELEMENTS,):
        raise AtomRefError(f"chgnet's {origin} has {energies.size} entries, not {N_ELEMENTS}: use chgnet 0.4.x")
    energies[np.abs(energies) < _ABSENT_BELOW_EV] = np.nan
    determined = np.isfinite(energies)
    determined[[ATOMIC_NUMBERS[symbol] - 1 for symbol in _NEVER_IN_GGA_DATA]] = False
    return AtomRefFit(
        energies_ev=energies,
        std_error_ev=np.full(N_ELEMENTS, np.nan),
        determined=determined,
        frames_per_element=None,
        materials_per_element=None,
        null_space=np.zeros((0, N_ELEMENTS)),
        rank=None,
        n_frames=None,
        n_materials=None,
        rmse_ev_per_atom=float("nan"),
        mae_ev_per_atom=float("nan"),
        source=f"chgnet {metadata.version('chgnet')} {origin}: {_PUBLISHED[name]}",
    )
