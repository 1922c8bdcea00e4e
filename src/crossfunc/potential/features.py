"""What a CHGNet knows about a crystal before its readout: features for regressions that leave the network as it is."""

import numpy as np

from crossfunc.potential.crystals import Crystals

N_FEATURES = 64


def crystal_features(model, structures) -> np.ndarray:
    """Mean over the atoms of what the energy readout gets, x = (1/n) Σ_a v_a.

    Parameters
    ----------
    model : CHGNet
        From `load_model`; nothing in it changes.
    structures : Crystals, or sequence of pymatgen Structure or ASE Atoms

    Returns
    -------
    ndarray of float64, shape (n_crystals, 64)
        In the order given.

    Raises
    ------
    GraphError
        Names a crystal that has no graph.

    Notes
    -----
    Neither the cell chosen nor the order of the atoms matters: a supercell has the features of its crystal.
    """
    crystals = structures if isinstance(structures, Crystals) else Crystals.from_structures(structures)
    sums = np.zeros((len(crystals), N_FEATURES))
    np.add.at(sums, crystals.owners, atom_features(model, crystals))
    return sums / crystals.n_atoms[:, None]


def atom_features(model, crystals: Crystals) -> np.ndarray:
    """What the energy readout gets for each atom, float64, shape (n_atoms, 64), in the order of the crystals."""
    from crossfunc.potential import forward
    from crossfunc.potential.graphs import build_graphs

    parameter = next(model.parameters())
    features = np.zeros((len(crystals.atomic_numbers), N_FEATURES))
    for indices, batch in build_graphs(crystals):
        per_atom = forward.atom_features(model, batch.to(parameter.device, parameter.dtype))
        features[crystals.atom_indices(indices)] = per_atom.double().cpu().numpy()
    return features
