"""Crystals to flat batches of CHGNet's atom graph (6 Å) and bond graph (angles between bonds below 3 Å).

Every undirected bond is stored once. A directed edge is a bond walked forwards or backwards: edges 0 to n_bonds - 1
are the bonds forwards, the next n_bonds the same bonds backwards, so no table from directed to undirected is needed.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_array

from crossfunc.potential.crystals import Crystals, concatenate_ranges
from crossfunc.potential.kernels import Incidence

ATOM_CUTOFF_A = 6.0
BOND_CUTOFF_A = 3.0
MAX_ANGLES = 9_000  # near the caches of a CPU; smaller batches pay more for each operation than for its numbers
_EDGE_COST = 0.75  # of an edge in angles: four gated MLPs against five, not all of the same depth
_BLOCK = 512  # crystals whose neighbours are held at a time, fewer of large ones
_BLOCK_ATOMS = 2**15


class GraphError(ValueError):
    """A crystal that CHGNet has no graph for; the message names it."""


@dataclass(frozen=True)
class Incidences:
    """What PyTorch's operations are told of a batch's edges and angles.

    Attributes
    ----------
    short_bonds : int64, (n_short,)
        The bonds below 3 Å that take part in an angle.
    pair_signs : float, (n_pairs,)
        Sign of each pair of bonds with a common atom, the angle from one to the other being that back: +1 where both
        are walked the same way (both forwards or both backwards) from it, else -1.
    edges : Incidence, (2 n_bonds, n_atoms + n_bonds + n_atoms)
        Centre, bond and neighbour of every directed edge, for tables stacked in this order.
    angles : Incidence, (n_angles, n_short + n_short + n_atoms + n_pairs)
        First bond, second bond, centre and pair of every angle; messages go to the first bond.
    pairs : Incidence, (n_pairs, n_short + n_short)
        The two bonds of every pair.
    """

    short_bonds: torch.Tensor
    pair_signs: torch.Tensor
    edges: Incidence
    angles: Incidence
    pairs: Incidence

    def to(self, device=None, dtype=None) -> "Incidences":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        moved = (incidence.to(device) for incidence in (self.edges, self.angles, self.pairs))
        return Incidences(self.short_bonds.to(device), self.pair_signs.to(device=device, dtype=dtype), *moved)


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
    bond_vectors : float, (n_bonds, 3)
        From the second atom to the first, Å.
    bond_kinds : int8, (n_bonds,)
        0 above 3 Å, 1 below, 2 at exactly 3 Å: chgnet lets such a bond receive messages but send none.
    bond_owners : int64, (n_bonds,)
    n_atoms : int64, (n_crystals,)
    """

    atomic_numbers: torch.Tensor
    owners: torch.Tensor
    frac_coords: torch.Tensor
    lattices: torch.Tensor
    bond_atoms: torch.Tensor
    bond_images: torch.Tensor
    bond_vectors: torch.Tensor
    bond_kinds: torch.Tensor
    bond_owners: torch.Tensor
    n_atoms: torch.Tensor

    @cached_property
    def incidences(self) -> Incidences:
        """Edges and angles as PyTorch's operations take them; the compiled library finds them by itself."""
        return _find_incidences(self).to(self.lattices.device, self.lattices.dtype)

    @property
    def n_angles(self) -> int:
        """How many angles there are, each way between two bonds counted for itself."""
        return len(self.incidences.angles.offsets) - 1

    def to(self, device=None, dtype=None) -> "GraphBatch":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        values = [getattr(self, f.name) for f in fields(self)]
        moved = GraphBatch(*(v.to(device=device, dtype=dtype if v.is_floating_point() else None) for v in values))
        if "incidences" in vars(self):
            vars(moved)["incidences"] = self.incidences.to(device, dtype)
        return moved


@dataclass(frozen=True)
class Bonds:
    """Undirected bonds of one crystal, atoms counted within it."""

    atoms: np.ndarray  # (n_bonds, 2)
    images: np.ndarray  # (n_bonds, 3)
    vectors_a: np.ndarray  # (n_bonds, 3), from the first atom to the second
    lengths_a: np.ndarray  # (n_bonds,)
    n_angles: int

    @property
    def n_rows(self) -> int:
        """Bonds, and pairs of short ones."""
        return len(self.atoms) + self.n_angles // 2


def build_graphs(
    crystals: Crystals,
    *,
    max_angles: int = MAX_ANGLES,
    n_parts: int = 1,
    refused: dict[int, str] | None = None,
    assemble: Callable | None = None,
    find: Callable | None = None,
) -> Iterator[tuple[np.ndarray, GraphBatch]]:
    """Build graphs in batches of bounded size and about equal cost.

    Parameters
    ----------
    crystals : Crystals
    max_angles : int
        Bound on the mean size of a batch, an edge counted as 3/4 of an angle; a crystal above it gets its own batch.
    n_parts : int
        Make the number of batches a multiple of this where there are enough crystals: one for each thread.
    refused : dict, optional
        Collects crystals that have no graph, with the reason, instead of raising.
    assemble : callable, optional
        Makes the batch from `Crystals` and a list of `Bonds`; a GraphBatch if not given.
    find : callable, optional
        Finds the `Bonds` of a crystal in place of `find_bonds`, from the same arguments.

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
    for numbers in _blocks(crystals.n_atoms):  # neighbours of a whole dataset would not fit into memory
        found = {k: bonds for k in numbers if (bonds := _try(find or find_bonds, crystals, k, refused)) is not None}
        costs = np.array([bonds.n_angles + 2 * len(bonds.atoms) * _EDGE_COST for bonds in found.values()])
        for members in _share_out(costs, max_angles, n_parts):
            indices = np.fromiter(found, dtype=np.int64)[members]
            yield indices, (assemble or assemble_graphs)(crystals.take(indices), [found[k] for k in indices])


def _blocks(n_atoms: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive crystals, so few at a time that their neighbours fit into memory; a huge one comes alone."""
    ends, start = np.cumsum(n_atoms), 0
    while start < len(n_atoms):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + _BLOCK_ATOMS, side="right"))
        stop = min(max(stop, start + 1), start + _BLOCK)
        yield np.arange(start, stop)
        start = stop


def _share_out(costs: np.ndarray, bound: int, n_parts: int) -> list[np.ndarray]:
    """Batches of about equal cost, below the bound on average: the costliest first, each to the emptiest batch."""
    if not len(costs):
        return []
    n_batches = min(len(costs), -(-math.ceil(costs.sum() / bound) // n_parts) * n_parts)
    batches: list[list[int]] = [[] for _ in range(n_batches)]
    loads = [(0.0, k) for k in range(n_batches)]
    for k in np.argsort(-costs, kind="stable"):
        load, emptiest = heapq.heappop(loads)
        batches[emptiest].append(k)
        heapq.heappush(loads, (load + costs[k], emptiest))
    return [np.sort(members) for members in batches]


def _try(find: Callable, crystals: Crystals, index: int, refused: dict[int, str] | None) -> Bonds | None:
    try:
        return find(crystals, index)
    except GraphError as error:
        if refused is None:
            raise
        refused[index] = str(error)
        return None


_MOST_ATOMS_PER_A3 = 2.0  # ten times diamond: angles, and memory, grow with the square of it


def find_bonds(crystals: Crystals, index: int) -> Bonds:
    """Return the bonds below 6 Å of one crystal; raise GraphError where CHGNet has no graph for it."""
    from vesin import NeighborList

    start, n_atoms = crystals.starts[index], crystals.n_atoms[index]
    lattice = crystals.lattices_a[index]
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-3:
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): its cell has no volume.")
    if not np.isfinite(crystals.frac_coords[start : start + n_atoms]).all():
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): a coordinate is NaN or infinite.")
    volume_a3 = abs(np.linalg.det(lattice))
    if n_atoms > _MOST_ATOMS_PER_A3 * volume_a3:
        raise GraphError(
            f"crystal {index} ({crystals.formula(index)}): {n_atoms} atoms in {volume_a3:.3g} Å³ are denser than any "
            "crystal; is its cell in Å?"
        )
    positions = crystals.frac_coords[start : start + n_atoms] @ lattice
    search = NeighborList(cutoff=ATOM_CUTOFF_A + 1e-6, full_list=False)  # it drops bonds of exactly its cutoff
    i, j, images, lengths = search.compute(points=positions, box=lattice, periodic=True, quantities="ijSd")
    kept = lengths**2 < ATOM_CUTOFF_A**2 + 1e-8  # as pymatgen's search has it, and so chgnet
    atoms = np.stack([i[kept], j[kept]], axis=1).astype(np.int64)
    images, lengths = np.asarray(images[kept], dtype=float), lengths[kept]
    # rounded as chgnet rounds it: what a straight angle gives its bonds is 10⁶ times as sensitive
    vectors = images @ lattice - (positions[atoms[:, 0]] - positions[atoms[:, 1]])
    isolated = np.flatnonzero(np.bincount(atoms.ravel(), minlength=n_atoms) == 0)
    if len(isolated):
        raise GraphError(
            f"crystal {index} ({crystals.formula(index)}): atom {isolated[0]} is isolated, no neighbour within "
            f"{ATOM_CUTOFF_A:g} Å; CHGNet has no message to pass there. Use a smaller cell."
        )
    if lengths.min() < 1e-3:
        raise GraphError(f"crystal {index} ({crystals.formula(index)}): two atoms lie on one spot.")
    ends = np.bincount(atoms[lengths <= BOND_CUTOFF_A].ravel(), minlength=n_atoms)
    return Bonds(atoms, images, vectors, lengths, int((ends * (ends - 1)).sum()))


def assemble_graphs(chosen: Crystals, parts: list[Bonds]) -> GraphBatch:
    """Join crystals and the bonds of each into one batch."""
    counts = np.array([len(p.atoms) for p in parts])
    lengths = np.concatenate([p.lengths_a for p in parts])
    kinds = (lengths <= BOND_CUTOFF_A).astype(np.int8) + (lengths == BOND_CUTOFF_A)
    return GraphBatch(
        atomic_numbers=torch.from_numpy(chosen.atomic_numbers),
        owners=torch.from_numpy(chosen.owners),
        frac_coords=torch.from_numpy(chosen.frac_coords),
        lattices=torch.from_numpy(chosen.lattices_a),
        bond_atoms=torch.from_numpy(
            np.concatenate([p.atoms + start for p, start in zip(parts, chosen.starts, strict=True)])
        ),
        bond_images=torch.from_numpy(np.concatenate([p.images for p in parts])),
        bond_vectors=torch.from_numpy(-np.concatenate([p.vectors_a for p in parts])),
        bond_kinds=torch.from_numpy(kinds),
        bond_owners=torch.from_numpy(np.repeat(np.arange(len(parts)), counts)),
        n_atoms=torch.from_numpy(chosen.n_atoms),
    )


def _find_incidences(batch: GraphBatch) -> Incidences:
    atoms, kinds = batch.bond_atoms.cpu().numpy(), batch.bond_kinds.cpu().numpy()
    short = np.flatnonzero(kinds)
    n_atoms, n_bonds, n_short = len(batch.owners), len(atoms), len(short)
    centres, bonds, pairs, is_first = _find_angles(atoms[short], n_atoms)
    pair_bonds, signs = bonds[is_first] % max(n_short, 1), _walked_alike(bonds[is_first], n_short)
    bonds %= max(n_short, 1)
    sends = kinds[short][bonds[:, 1]] == 1
    if not sends.all():  # a pair of two such bonds stays, unread
        centres, bonds, pairs = centres[sends], bonds[sends], pairs[sends]
    ends = np.concatenate([atoms, atoms[:, ::-1]])
    edges = np.stack([ends[:, 0], np.tile(np.arange(n_bonds), 2) + n_atoms, ends[:, 1] + n_atoms + n_bonds], axis=1)
    n_tables = 2 * n_short + n_atoms
    angles = np.stack([bonds[:, 0], bonds[:, 1] + n_short, centres + 2 * n_short, pairs + n_tables], axis=1)
    return Incidences(
        short_bonds=torch.from_numpy(short),
        pair_signs=torch.from_numpy(signs),
        edges=_make_incidence(edges, 2 * n_atoms + n_bonds),
        angles=_make_incidence(angles, n_tables + len(signs)),
        pairs=_make_incidence(pair_bonds + np.array([0, n_short]), 2 * n_short),
    )


def _make_incidence(rows: np.ndarray, n_table: int) -> Incidence:
    """Incidence with the table rows `rows` (n, k), k in each row of the result; its transpose by counting sort."""
    n, k = rows.shape
    offsets = np.arange(0, n * k + 1, k)
    matrix = csr_array((np.ones(n * k, dtype=np.int8), rows.ravel(), offsets), shape=(n, n_table)).tocsc()
    arrays = rows.ravel(), offsets, matrix.indices, matrix.indptr
    return Incidence(*(torch.from_numpy(np.ascontiguousarray(a, dtype=np.int32)) for a in arrays))


def _find_angles(ends: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pair every short directed edge with every other one that leaves the same atom.

    Returns centre (n,) and the two edges (n, 2) of every angle; the number of its pair (n,), the same for the angle
    from the second edge to the first; and which angles come first in their pair (n,), one for each pair.
    """
    centre = ends.T.ravel()  # forwards edges leave their first atom, backwards ones their second
    order = np.argsort(centre, kind="stable")
    degree = np.bincount(centre, minlength=n_atoms)
    first_edge = np.cumsum(degree) - degree
    partners = degree[centre[order]]
    rank = np.arange(len(order)) - first_edge[centre[order]]
    place_1 = np.repeat(np.arange(len(order)), partners)  # in `order`, as place_2
    place_2 = concatenate_ranges(first_edge[centre[order]], partners)
    is_first = place_1 < place_2
    mirrored = (np.cumsum(partners) - partners)[place_2] + rank[place_1]  # where the angle back is
    number = np.cumsum(is_first) - 1
    pair = np.where(is_first, number, number[mirrored])
    other = place_1 != place_2
    edges = np.stack([order[place_1[other]], order[place_2[other]]], axis=1)
    return centre[edges[:, 0]], edges, pair[other], is_first[other]


def _walked_alike(edges: np.ndarray, n_short: int) -> np.ndarray:
    """+1 where both of two directed edges are walked forwards or both backwards, else -1."""
    forwards = edges < n_short
    return np.where(forwards[:, 0] == forwards[:, 1], 1.0, -1.0)
