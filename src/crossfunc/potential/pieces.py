"""Crystals as prediction works on them: bonds and pairs of bonds, each walked both ways, cut into pieces.

A directed edge of CHGNet's atom graph is a bond walked one way, an angle of its bond graph a pair of bonds walked one
way. Both ways of a bond or pair stand in the same piece, so that what belongs to the bond or pair itself is read and
summed where it lies. Pieces can be worked on in any order, by any number of threads, and give the same numbers.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch

from crossfunc.potential.crystals import Crystals, concatenate_ranges
from crossfunc.potential.graphs import BOND_CUTOFF_A, Bonds

_ROWS = 640  # bonds or pairs of a piece: what is computed for them stays in the caches of a core
_ROWS_ON_GPU = 200_000


@dataclass(frozen=True)
class Sums:
    """Which rows of a table are added up into which rows of the result.

    Attributes
    ----------
    rows, offsets : int32
        Result row k is the sum of `table[rows[offsets[k]:offsets[k + 1]]]`.
    """

    rows: torch.Tensor
    offsets: torch.Tensor

    def to(self, device) -> "Sums":
        """Return a copy on another device."""
        return Sums(self.rows.to(device), self.offsets.to(device))

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        """Add up rows of a table."""
        arguments = (self.rows, self.offsets, False, 0, False, None, True)
        return torch._embedding_bag_forward_only(table, *arguments)[0]  # the fastest sum over rows on a CPU


@dataclass(frozen=True)
class Piece:
    """Bonds or pairs `start` to `stop`, n of them; walked one way in rows 0 to n - 1, the other way in the next n.

    Attributes
    ----------
    start, stop : int
    whole : bool
        All bonds or pairs there are.
    gather : Sums
        From the table of all features that take part to the first layer of each row.
    receivers : int32, (2 n,)
        Where the message of each row goes: an atom, or a short bond.
    receive : Sums
        Messages to `received` rows of partial sums.
    scatter : Sums
        From gradients of rows to `scattered` rows of partial sums.
    received, scattered : slice
    """

    start: int
    stop: int
    whole: bool
    gather: Sums
    receivers: torch.Tensor
    receive: Sums
    scatter: Sums
    received: slice
    scattered: slice

    def to(self, device) -> "Piece":
        """Return a copy on another device."""
        return Piece(*(v.to(device) if hasattr(v, "to") else v for v in (getattr(self, f.name) for f in fields(self))))


@dataclass(frozen=True)
class Walks:
    """All pieces, and how their partial sums add up; None where there is one piece, whose sums are the result."""

    pieces: list[Piece]
    add_received: Sums | None
    add_scattered: Sums | None

    @property
    def n_rows(self) -> int:
        """How many bonds or pairs there are."""
        return self.pieces[-1].stop if self.pieces else 0

    def to(self, device) -> "Walks":
        """Return a copy on another device."""
        added = (None if s is None else s.to(device) for s in (self.add_received, self.add_scattered))
        return Walks([piece.to(device) for piece in self.pieces], *added)


@dataclass(frozen=True)
class CutCrystals:
    """Several crystals, the short bonds (at most 3 Å) before the others.

    Attributes
    ----------
    atomic_numbers : int64, (n_atoms,)
    volumes_a3 : float, (n_crystals,)
    vectors : float, (n_bonds, 3)
        From the second atom of each bond to its first, Å.
    n_short : int
        Those of exactly 3 Å send no messages in chgnet; here they send them with a weight and a slope of zero.
    pair_bonds : two of int32, (n_pairs,)
        Each two short bonds with a common atom.
    pair_signs : float, (n_pairs,)
        +1 where both bonds are walked the same way from that atom, else -1.
    edges : Walks
        Over bonds, for tables of the centre's and the neighbour's products, (2 n_atoms, ...).
    angles : Walks
        Over pairs, for tables of the first bond's, the second bond's and the atom's products.
    crystals : Sums
        Sums over the atoms of each crystal.
    n_atoms : int64, (n_crystals,)
    """

    atomic_numbers: torch.Tensor
    volumes_a3: torch.Tensor
    vectors: torch.Tensor
    n_short: int
    pair_bonds: tuple[torch.Tensor, torch.Tensor]
    pair_signs: torch.Tensor
    edges: Walks
    angles: Walks
    crystals: Sums
    n_atoms: torch.Tensor

    def to(self, device, dtype) -> "CutCrystals":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        moved = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, torch.Tensor):
                value = value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            elif isinstance(value, tuple):
                value = tuple(part.to(device) for part in value)
            elif isinstance(value, Sums | Walks) and device.type != "cpu":
                value = value.to(device)
            moved[f.name] = value
        return CutCrystals(**moved)


def n_rows_on(device: torch.device) -> int:
    """Return the size of pieces that suits a device."""
    return _ROWS if device.type == "cpu" else _ROWS_ON_GPU


def cut_crystals(chosen: Crystals, parts: list[Bonds], *, n_rows: int = _ROWS) -> CutCrystals:
    """Number bonds and pairs of all crystals and cut them.

    Parameters
    ----------
    chosen : Crystals
    parts : list of Bonds
        The bonds of each.
    n_rows : int
        Bonds or pairs of a piece, at most.

    Returns
    -------
    CutCrystals
        On the CPU, in float64.
    """
    atoms = np.concatenate([p.atoms + start for p, start in zip(parts, chosen.starts, strict=True)])
    lengths = np.concatenate([p.lengths_a for p in parts])
    n_atoms, n_short = len(chosen.atomic_numbers), int((lengths <= BOND_CUTOFF_A).sum())
    order = np.lexsort((atoms[:, 0], lengths > BOND_CUTOFF_A))
    atoms = atoms[order]
    ends = np.stack([atoms, atoms[:, ::-1] + n_atoms], axis=2)  # (n, 2 ways, centre and neighbour)
    centres, bonds, signs = _find_pairs(atoms[:n_short], n_atoms)
    walked = np.stack([bonds, bonds[:, ::-1] + n_short, np.repeat(centres[:, None] + 2 * n_short, 2, axis=1)], axis=2)
    offsets = np.concatenate([[0], np.cumsum(chosen.n_atoms)])
    return CutCrystals(
        atomic_numbers=torch.from_numpy(chosen.atomic_numbers),
        volumes_a3=torch.from_numpy(np.abs(np.linalg.det(chosen.lattices_a))),
        vectors=torch.from_numpy(-np.concatenate([p.vectors_a for p in parts])[order]),
        n_short=n_short,
        pair_bonds=(_int32(bonds[:, 0]), _int32(bonds[:, 1])),
        pair_signs=torch.from_numpy(signs),
        edges=_walks(ends, 2 * n_atoms, n_atoms, cut_rows(len(atoms), n_rows)),
        angles=_walks(walked, 2 * n_short + n_atoms, n_short, cut_rows(len(bonds), n_rows)),
        crystals=Sums(torch.arange(n_atoms, dtype=torch.int32), _int32(offsets)),
        n_atoms=torch.from_numpy(chosen.n_atoms),
    )


def _find_pairs(ends: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (n,), the two bonds (n, 2) and the sign (n,) of each two short bonds that leave the same atom."""
    centre = ends.T.ravel()  # forwards bonds leave their first atom, backwards ones their second
    order = np.argsort(centre, kind="stable")
    stops = np.cumsum(np.bincount(centre, minlength=n_atoms))[centre[order]]
    later = stops - np.arange(len(order)) - 1
    one = np.repeat(np.arange(len(order)), later)
    edges = np.stack([order[one], order[concatenate_ranges(np.arange(len(order)) + 1, later)]], axis=1)
    backwards = edges >= len(ends)
    signs = np.where(backwards[:, 0] == backwards[:, 1], 1.0, -1.0)
    return centre[edges[:, 0]], edges - len(ends) * backwards, signs


def cut_rows(n: int, n_rows: int = _ROWS) -> list[tuple[int, int]]:
    """Equal parts of at most `n_rows`; an even number of them if it is not one, to go round among two threads."""
    count = -(-n // n_rows)
    count += count > 1 and count % 2
    return list(pairwise(n * k // count for k in range(count + 1))) if count else []


def _walks(entries: np.ndarray, n_table: int, n_receivers: int, cuts: list[tuple[int, int]]) -> Walks:
    """Pieces from the table rows of each bond or pair, (n, 2 ways, k), of which the first is its receiver."""
    k = entries.shape[2]
    longest = max((stop - start for start, stop in cuts), default=0)
    starts = torch.arange(0, 2 * k * longest + 1, k, dtype=torch.int32)
    pieces, received, scattered = [], [np.zeros(0, int)], [np.zeros(0, int)]
    n_received = n_scattered = 0
    for start, stop in cuts:
        rows = entries[start:stop].transpose(1, 0, 2).reshape(-1, k)
        ids, order, offsets = _transpose(rows.ravel(), n_table, whole=len(cuts) == 1)
        n_heard = int(np.searchsorted(ids, n_receivers))
        scatter = Sums(_int32(order // k), _int32(offsets))
        receive = Sums(scatter.rows[: offsets[n_heard]], scatter.offsets[: n_heard + 1])
        places = slice(n_received, n_received + n_heard), slice(n_scattered, n_scattered + len(ids))
        gather = Sums(_int32(rows.ravel()), starts[: len(rows) + 1])
        pieces.append(Piece(start, stop, len(cuts) == 1, gather, _int32(rows[:, 0]), receive, scatter, *places))
        received.append(ids[:n_heard])
        scattered.append(ids)
        n_received, n_scattered = places[0].stop, places[1].stop
    if len(cuts) == 1:
        return Walks(pieces, None, None)
    return Walks(pieces, _add_up(received, n_receivers), _add_up(scattered, n_table))


def _add_up(ids: list[np.ndarray], n_table: int) -> Sums:
    _, order, offsets = _transpose(np.concatenate(ids), n_table, whole=True)
    return Sums(_int32(order), _int32(offsets))


def _transpose(keys: np.ndarray, n_keys: int, *, whole: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys that occur (or all), the places of each one after another, and where in them each begins."""
    order = np.argsort(keys.astype(np.uint16) if n_keys <= 2**16 else keys, kind="stable")  # by radix if small
    if whole:
        counts = np.bincount(keys, minlength=n_keys)
        return np.arange(n_keys), order, np.concatenate([[0], np.cumsum(counts)])
    ids, counts = np.unique(keys, return_counts=True)
    return ids, order, np.concatenate([[0], np.cumsum(counts)])


def _int32(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int32))
