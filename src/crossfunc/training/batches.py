"""Frames to optimiser steps: who sees which frame when, and graphs of bounded size with their labels.

The frames of a step are a pure function of (seed, epoch, step), whatever the number of devices or of workers, so that
a run resumes without the state of any random generator.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from crossfunc.datasets import DatasetError
from crossfunc.errors import InputError
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.graphs import ATOM_CUTOFF_A, Bonds, GraphBatch, GraphError, build_graphs, find_bonds
from crossfunc.training.labels import TARGETS, LabelledFrames

_NAMED_AT_MOST = 3
_DIGITS_OF_SHARE = 6  # 0.29 times 100 frames are 29, which floating point misses
_DIGITS_OF_WEIGHT = 12  # 1 where the share is a whole number
_KEPT_BONDS = 500_000  # 72 bytes each
_CONTACT_A = 0.5  # closer pairs get the full look that decides whether there is a graph


@dataclass(frozen=True)
class MicroBatch:
    """Graphs that fit into memory together, with their labels.

    Attributes
    ----------
    graphs : GraphBatch
    labels : dict of Tensor
        One entry for each of `TARGETS`, in the shape and order of the predictions; NaN where there is no label, |m| for
        moments.
    indices : ndarray of int64
        The frames, in the order of `graphs`.
    is_source : bool
        Whether they are source frames, for a readout of their own; see `step_loader`.
    """

    graphs: GraphBatch
    labels: dict[str, torch.Tensor]
    indices: np.ndarray
    is_source: bool = False

    def to(self, device=None, dtype=None) -> "MicroBatch":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        labels = {target: label.to(device=device, dtype=dtype) for target, label in self.labels.items()}
        return MicroBatch(self.graphs.to(device, dtype), labels, self.indices, self.is_source)


@dataclass(frozen=True)
class StepBatch:
    """One process's share of one optimiser step.

    Attributes
    ----------
    micro : list of MicroBatch
        Empty where a small last step has no frame for this process.
    n_labels : dict of int
        Numbers labelled in the whole step, all processes together, for each of `TARGETS`.
    n_frames : int
        Frames in the whole step.
    weight : float
        Factor on the step's gradient: frames in the step over those of a step with its exact share of source frames,
        so that every frame counts the same where that share is no whole number.
    """

    micro: list[MicroBatch]
    n_labels: dict[str, int]
    n_frames: int
    weight: float = 1.0

    def to(self, device=None, dtype=None) -> "StepBatch":
        """Return a copy on another device; `dtype` applies to the floating-point tensors."""
        return replace(self, micro=[part.to(device, dtype) for part in self.micro])


class StepLoader(DataLoader):
    """A DataLoader of `StepBatch`; `set_epoch` decides the order of the next iteration."""

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from the next iteration on."""
        self.sampler.set_epoch(epoch)


def step_order(n_frames: int, *, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """Return the order of an epoch: a permutation drawn from `np.random.default_rng([seed, epoch])`."""
    return np.random.default_rng([seed, epoch]).permutation(n_frames) if shuffle else np.arange(n_frames)


def step_loader(
    frames: LabelledFrames,
    indices: Sequence[int] | np.ndarray,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
    max_angles: int | None = None,
    n_parts: int = 1,
    n_workers: int = 0,
    source: np.ndarray | None = None,
    source_share: float = 0.0,
    source_apart: bool = False,
    keep_bonds: bool = False,
    with_incidences: bool = False,
) -> StepLoader:
    """Load one process's share of every optimiser step of an epoch.

    Parameters
    ----------
    frames : LabelledFrames
    indices : array_like of int
        The frames to use, for example the training part of a split.
    batch_size : int
        Frames of a step, over all processes together; a smaller last step is kept.
    seed, shuffle
        See `step_order`; the epoch is set by `set_epoch` and starts at 0.
    rank, world_size : int
        Which process this is, of how many. Of each step it gets every `world_size`-th frame.
    max_angles : int, optional
        Bound on one micro-batch; see `build_graphs`.
    n_parts : int
        Make a multiple of this many micro-batches, to be computed side by side.
    n_workers : int
        Processes that build graphs ahead; 0 builds them in this one.
    source : array_like of int, optional
        Frames that join the steps beside those of `indices`.
    source_share : float
        How many of them join for each frame of `indices`, in an order drawn from the seed, over and over again. A step
        gets what is due after its frames and was not before it: none in most steps of one frame.
    source_apart : bool
        Put them into micro-batches of their own, marked `is_source`, for a readout of their own.
    keep_bonds : bool
        Look for the neighbours in each frame once, not in every epoch: for as many frames as fit into 40 MB.
    with_incidences : bool
        Make what PyTorch's operations need of the graphs here, where workers can do it, not when it is asked for.

    Returns
    -------
    StepLoader
        Yields `StepBatch`, its tensors on the CPU.

    Raises
    ------
    InputError
        A batch size or number of processes below 1, a rank that is not below `world_size`.
    """
    if batch_size < 1 or not 0 <= rank < world_size:
        raise InputError(
            f"batch_size={batch_size}, rank={rank}, world_size={world_size}: give a batch of at least 1 frame and a "
            "rank from 0 to world_size - 1."
        )
    options = {"n_parts": n_parts} | ({} if max_angles is None else {"max_angles": max_angles})
    options |= {"keep_bonds": keep_bonds, "with_incidences": with_incidences}
    steps = _Steps(frames, np.asarray(indices, dtype=np.int64), batch_size, seed, shuffle, rank, world_size, options)
    if source is not None and len(source):
        steps.add_source(np.asarray(source, dtype=np.int64), source_share, source_apart)
    return StepLoader(
        steps,
        batch_size=None,
        sampler=_StepSampler(steps),
        collate_fn=_as_it_is,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
        generator=torch.Generator(),  # PyTorch would draw its workers' seeds from the global one
    )


class _Steps(Dataset):
    """Item (epoch, step) is this process's share of that step."""

    def __init__(self, frames, indices, batch_size, seed, shuffle, rank, world_size, options):
        self.frames, self.indices, self.batch_size = frames, indices, batch_size
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.with_incidences = options.pop("with_incidences")
        self.kept = {} if options.pop("keep_bonds") else None
        self.n_kept = 0
        self.options = options  # of build_graphs
        self.counts = np.stack([frames.label_counts[target] for target in TARGETS])
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)
        self.source, self.source_share, self.source_apart = np.empty(0, dtype=np.int64), 0.0, False

    def add_source(self, source: np.ndarray, share: float, apart: bool) -> None:
        self.source, self.source_share, self.source_apart = source, share, apart

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, key: tuple[int, int]) -> StepBatch:
        epoch, step = key
        if epoch != self.epoch:
            order = step_order(len(self.indices), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
            self.epoch, self.order = epoch, self.indices[order]
        chosen = self.order[step * self.batch_size : (step + 1) * self.batch_size]
        replayed = self._replayed(epoch * len(self.order) + step * self.batch_size, len(chosen))
        counts = self.counts[:, np.concatenate([chosen, replayed])].sum(axis=1)
        n_labels = {target: int(count) for target, count in zip(TARGETS, counts, strict=True)}
        shares = [rows[self.rank :: self.world_size] for rows in (chosen, replayed)]
        if self.source_apart:
            micro = self._micro_batches(shares[0], False) + self._micro_batches(shares[1], True)
        else:
            micro = self._micro_batches(np.concatenate(shares), False)
        n_frames = len(chosen) + len(replayed)
        weight = round(n_frames / (len(chosen) * (1 + self.source_share)), _DIGITS_OF_WEIGHT)
        return StepBatch(micro, n_labels, n_frames, weight)

    def _replayed(self, n_before: int, n_chosen: int) -> np.ndarray:
        """Source frames of a step, the next of an endless row of permutations, from the target frames before it."""
        n = len(self.source)
        places = np.arange(*(self._n_due(n_target) for n_target in (n_before, n_before + n_chosen)))
        rounds = np.unique(places // max(n, 1))
        orders = {r: np.random.default_rng([self.seed, int(r), n]).permutation(n) for r in rounds}
        return self.source[[orders[p // n][p % n] for p in places]]

    def _n_due(self, n_target: int) -> int:
        """Source frames that are due after so many of the target."""
        return math.floor(round(self.source_share * n_target, _DIGITS_OF_SHARE))

    def _micro_batches(self, share: np.ndarray, is_source: bool) -> list[MicroBatch]:
        if not len(share):
            return []
        frames = self.frames.take(share)

        def find(crystals: Crystals, k: int) -> Bonds:
            return self._bonds_of(int(share[k]), crystals, k)

        micro = []
        for local, graphs in build_graphs(frames.crystals, find=find, **self.options):
            if self.with_incidences:
                _ = graphs.incidences
            chosen = frames if len(local) == len(share) else frames.take(local)
            micro.append(MicroBatch(graphs, labels_of(chosen), share[local], is_source))
        return micro

    def _bonds_of(self, frame: int, crystals: Crystals, k: int) -> Bonds:
        """Bonds of a frame, which is the k-th of these crystals."""
        if self.kept is None:
            return find_bonds(crystals, k)
        if frame in self.kept:
            return self.kept[frame]
        bonds = find_bonds(crystals, k)
        if self.n_kept + len(bonds.atoms) <= _KEPT_BONDS:
            self.kept[frame] = bonds
            self.n_kept += len(bonds.atoms)
        return bonds


class _StepSampler(Sampler):
    """Yields (epoch, step), so that workers which live through all epochs know which one it is."""

    def __init__(self, steps: _Steps):
        self.n_steps, self.epoch = len(steps), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, step) for step in range(self.n_steps)])


def _as_it_is(item):
    return item


def labels_of(frames: LabelledFrames) -> dict[str, torch.Tensor]:
    """The labels as `batch_loss` takes them, target to tensor; moments without their sign."""
    return {
        "energy": torch.from_numpy(frames.energy_per_atom_ev),
        "forces": torch.from_numpy(frames.forces_ev_per_a),
        "stress": torch.from_numpy(frames.stress_gpa),
        "magmoms": torch.from_numpy(np.abs(frames.magmoms_mub)),
    }


def refuse_untrainable(frames: LabelledFrames) -> None:
    """Refuse frames that cannot be trained on before the first epoch, not in the third.

    Parameters
    ----------
    frames : LabelledFrames

    Raises
    ------
    GraphError
        Frames that CHGNet has no graph for, such as an isolated atom; names them with the reason.
    DatasetError
        A label that is infinite; names the frame.

    Notes
    -----
    Takes 0.1 to 0.3 ms per frame: a cell with a lattice vector below 6 Å cannot hold an isolated atom, so most frames
    need no search for neighbours but a short one for atoms on one spot.
    """
    _refuse_infinite_labels(frames)
    doubtful = np.flatnonzero(_is_doubtful(frames.crystals))
    refused: dict[int, str] = {}
    for k in doubtful:
        reasons: dict[int, str] = {}
        for _ in build_graphs(frames.crystals.take([k]), refused=reasons):
            pass
        refused |= {int(k): reason for reason in reasons.values()}
    if refused:
        named = [
            f"frame {frames.frame_ids[k]} {re.sub(r'^crystal [0-9]+ ', '', reason)}"
            for k, reason in list(refused.items())[:_NAMED_AT_MOST]
        ]
        more = f"\n... and {len(refused) - len(named)} more" if len(refused) > len(named) else ""
        raise GraphError(
            f"{len(refused)} of {len(frames)} frames cannot be trained on; leave them out.\n" + "\n".join(named) + more
        )


def _refuse_infinite_labels(frames: LabelledFrames) -> None:
    per_frame = {"energy_per_atom_ev": frames.energy_per_atom_ev, "stress_gpa": frames.stress_gpa}
    per_atom = {"forces_ev_per_a": frames.forces_ev_per_a, "magmoms_mub": frames.magmoms_mub}
    for name, values in {**per_frame, **per_atom}.items():
        wrong = np.flatnonzero(np.isinf(values).reshape(len(values), -1).any(axis=1))
        if len(wrong):
            frame = frames.crystals.owners[wrong[0]] if name in per_atom else wrong[0]
            raise DatasetError(
                f"frame {frames.frame_ids[frame]}: {name} is infinite ({len(wrong)} such rows). Correct it, or write "
                "NaN for a label that is missing."
            )


def _is_doubtful(crystals: Crystals) -> np.ndarray:
    """Which crystals need the full look: all that may have an isolated atom, two on one spot, or no proper cell."""
    from vesin import NeighborList

    finite = np.isfinite(crystals.lattices_a).all(axis=(1, 2))
    finite &= np.bincount(crystals.owners, ~np.isfinite(crystals.frac_coords).all(axis=1), len(crystals)) == 0
    doubtful = ~finite | (np.abs(np.linalg.det(np.nan_to_num(crystals.lattices_a))) < 1e-3)
    shortest = np.linalg.norm(np.nan_to_num(crystals.lattices_a), axis=2).min(axis=1)
    starts = crystals.starts
    for k in np.flatnonzero(~doubtful):
        n_atoms, lattice = crystals.n_atoms[k], crystals.lattices_a[k]
        may_be_isolated = shortest[k] >= ATOM_CUTOFF_A
        if n_atoms == 1 and not may_be_isolated:
            continue
        points = crystals.frac_coords[starts[k] : starts[k] + n_atoms] @ lattice
        search = NeighborList(cutoff=ATOM_CUTOFF_A if may_be_isolated else _CONTACT_A, full_list=False)
        i, j, distances = search.compute(points=points, box=lattice, periodic=True, quantities="ijd")
        linked = np.zeros(n_atoms, dtype=bool)
        linked[i] = linked[j] = True
        is_close = len(distances) > 0 and distances.min() < _CONTACT_A
        doubtful[k] = is_close or (may_be_isolated and not linked.all())
    return doubtful
