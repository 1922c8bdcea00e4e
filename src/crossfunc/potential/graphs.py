"""Crystals to flat batches of CHGNet's atom graph (6 Å) and bond graph (angles between bonds below 3 Å).

Every undirected bond is stored once. A directed edge is a bond walked forwards or backwards: edges 0 to n_bonds - 1
are the bonds forwards, the next n_bonds the same bonds backwards, so no table from directed to undirected is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch

from crossfunc.potential.crystals import Crystals, concatenate_ranges

ATOM_CUTOFF_A = 6.0
BOND_CUTOFF_A = 3.0
MAX_ANGLES = 12_000  # keeps the working set near the caches; larger batches are not faster on a CPU
MAX_EDGES = 60_000


class GraphError(ValueError):
    """A crystal that CHGNet has no graph for; the message names it."""


@dataclass(frozen=True)
class GraphBatch:
    """Graphs of several crystals in one set of tensors.

    Attributes
    ----------
    atomic_numbers, owners : int64, (n_atoms,)
        Element, and crystal each atom belongs to.
    frac_coords : float, (n_atoms, 3)
    lattices : float, (n_crystals, 3, 3)
    bond_atoms : int64, (n_bonds, 2)
        Atom at either end; the second one lies in cell `bond_images`.
    bond_images : float, (n_bonds, 3)
    bond_owners : int64, (n_bonds,)
    short_bonds : int64, (n_short,)
        The bonds below 3 Å that take part in an angle.
    angle_centres : int64, (n_angles,)
        The atom both bonds of an angle share.
    angle_bonds : int64, (n_angles, 2)
        Positions in `short_bonds`; messages go to the first.
    angle_signs : float, (n_angles,)
        +1 where both bonds are walked the same way (both forwards or both backwards) from the centre, else -1.
    n_atoms : int64, (n_crystals,)
    """

    atomic_numbers: torch.Tensor
    owners: torch.Tensor
    frac_coords: torch.Tensor
    lattices: torch.Tensor
    bond_atoms: torch.Tensor
    bond_images: torch.Tensor
    bond_owners: torch.Tensor
    short_bonds: torch.Tensor
    angle_centres: torch.Tensor
    angle_bonds: torch.Tensor
    angle_signs: torch.Tensor
    n_atoms: torch.Tensor

    def to(self, device=None, dtype=None) -> "GraphBatch":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        moved = {}
        for f in fields(self):
            tensor = getattr(self, f.name)
            moved[f.name] = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        return GraphBatch(**moved)


@dataclass(frozen=True)
class _Bonds:
    """Undirected bonds of one crystal, atoms counted within it."""

    atoms: np.ndarray  # (n_bonds, 2)
    images: np.ndarray  # (n_bonds, 3)
    lengths_a: np.ndarray  # (n_bonds,)
    n_angles: int


def build_graphs(
    crystals: Crystals,
    *,
    max_angles: int = MAX_ANGLES,
    max_edges: int = MAX_EDGES,
    refused: dict[int, str] | None = None,
) -> Iterator[tuple[np.ndarray, GraphBatch]]:
    """Build graphs in batches of bounded size, crystals of similar cost together.

    Parameters
    ----------
    crystals : Crystals
    max_angles, max_edges : int
        Bounds on one batch; a single crystal above them gets a batch of its own.
    refused : dict, optional
        Collects crystals that have no graph, with the reason, instead of raising.

    Yields
    ------
    indices : ndarray
        The crystals of this batch.
    batch : GraphBatch
        On the CPU, in float64.

    Raises
    ------
    GraphError
        An isolated atom (no neighbour within 6 Å), two atoms on one spot, or a cell without volume.
    """
    bonds = [_try_bonds(crystals, k, refused) for k in range(len(crystals))]
    angles = np.array([b.n_angles if b else 0 for b in bonds])
    edges = np.array([2 * len(b.atoms) if b else 0 for b in bonds])
    pending, n_angles, n_edges = [], 0, 0
    for k in np.argsort(angles, kind="stable"):
        if bonds[k] is None:
            continue
        if pending and (n_angles + angles[k] > max_angles or n_edges + edges[k] > max_edges):
            yield _assemble(crystals, bonds, np.array(pending))
            pending, n_angles, n_edges = [], 0, 0
        pending.append(k)
        n_angles += angles[k]
        n_edges += edges[k]
    if pending:
        yield _assemble(crystals, bonds, np.array(pending))


def _try_bonds(crystals: Crystals, index: int, refused: dict[int, str] | None) -> _Bonds | None:
    try:
        return _find_bonds(crystals, index)
    except GraphError as error:
        if refused is None:
            raise
        refused[index] = str(error)
        return None


def _find_bonds(crystals: Crystals, index: int) -> _Bonds:
    from vesin import NeighborList

    start, n_atoms = crystals.starts[index], crystals.n_atoms[index]
    lattice = crystals.lattices_a[index]
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-3:
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): its cell has no volume.")
    if not np.isfinite(crystals.frac_coords[start : start + n_atoms]).all():
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): a coordinate is NaN or infinite.")
    positions = crystals.frac_coords[start : start + n_atoms] @ lattice
    search = NeighborList(cutoff=ATOM_CUTOFF_A, full_list=False)
    i, j, images, lengths = search.compute(points=positions, box=lattice, periodic=True, quantities="ijSd")
    atoms = np.stack([i, j], axis=1).astype(np.int64)
    isolated = np.setdiff1d(np.arange(n_atoms), atoms)
    if len(isolated):
        raise GraphError(
            f"crystal {index} ({crystals.formula(index)}): atom {isolated[0]} is isolated, no neighbour within "
            f"{ATOM_CUTOFF_A:g} Å; CHGNet has no message to pass there. Use a smaller cell."
        )
    if lengths.min() < 1e-3:
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): two atoms lie on one spot.")
    ends = np.bincount(atoms[lengths < BOND_CUTOFF_A].ravel(), minlength=n_atoms)
    return _Bonds(atoms, np.asarray(images, dtype=float), lengths, int((ends * (ends - 1)).sum()))


def _assemble(crystals: Crystals, bonds: list[_Bonds], indices: np.ndarray) -> tuple[np.ndarray, GraphBatch]:
    chosen = crystals.take(indices)
    parts = [bonds[k] for k in indices]
    counts = np.array([len(p.atoms) for p in parts])
    atoms = np.concatenate([p.atoms + start for p, start in zip(parts, chosen.starts, strict=True)])
    short = np.flatnonzero(np.concatenate([p.lengths_a for p in parts]) < BOND_CUTOFF_A)
    centres, pairs, signs = _find_angles(atoms[short], int(chosen.n_atoms.sum()))
    batch = GraphBatch(
        atomic_numbers=torch.from_numpy(chosen.atomic_numbers),
        owners=torch.from_numpy(chosen.owners),
        frac_coords=torch.from_numpy(chosen.frac_coords),
        lattices=torch.from_numpy(chosen.lattices_a),
        bond_atoms=torch.from_numpy(atoms),
        bond_images=torch.from_numpy(np.concatenate([p.images for p in parts])),
        bond_owners=torch.from_numpy(np.repeat(np.arange(len(parts)), counts)),
        short_bonds=torch.from_numpy(short),
        angle_centres=torch.from_numpy(centres),
        angle_bonds=torch.from_numpy(pairs),
        angle_signs=torch.from_numpy(signs),
        n_atoms=torch.from_numpy(chosen.n_atoms),
    )
    return indices, batch


def _find_angles(ends: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair every short directed edge with every other one that leaves the same atom."""
    n_short = len(ends)
    centre = ends.T.ravel()  # forwards edges leave their first atom, backwards ones their second
    order = np.argsort(centre, kind="stable")
    degree = np.bincount(centre, minlength=n_atoms)
    first_edge = np.cumsum(degree) - degree
    partners = degree[centre[order]]
    edge_1 = np.repeat(order, partners)
    edge_2 = order[concatenate_ranges(first_edge[centre[order]], partners)]
    other = edge_1 != edge_2
    edge_1, edge_2 = edge_1[other], edge_2[other]
    signs = np.where((edge_1 < n_short) == (edge_2 < n_short), 1.0, -1.0)
    pairs = np.stack([edge_1 % max(n_short, 1), edge_2 % max(n_short, 1)], axis=1)
    return centre[edge_1], pairs, signs
