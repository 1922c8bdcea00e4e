"""A few small frames of the embedded dataset, and some without angles: what the tests of training train on."""

from functools import lru_cache

import numpy as np

from crossfunc.datasets import open_dataset
from crossfunc.potential import Crystals
from crossfunc.training.labels import LabelledFrames


@lru_cache
def small_frames(n_frames=24, max_atoms=4):
    """Frames of 2 to 4 atoms with all labels, of many materials."""
    frames = LabelledFrames.from_dataset(open_dataset("surrogate", verify=False))
    n_atoms = frames.crystals.n_atoms
    small = np.flatnonzero(frames.labelled("forces") & (n_atoms > 1) & (n_atoms <= max_atoms))
    return frames.take(small[np.linspace(0, len(small) - 1, n_frames).astype(int)])


def frames_without_angles(n_frames=8):
    """Body-centred metals so wide that no bond is below 3 Å, with labels at random."""
    rng = np.random.default_rng(0)
    numbers = rng.choice([11, 19, 37, 55], n_frames)
    coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    cells = [5.0 * (np.eye(3) + rng.normal(0, 0.02, (3, 3))) for _ in range(n_frames)]
    crystals = Crystals.from_arrays(
        ([z, z], coords + rng.normal(0, 0.02, (2, 3)), c) for z, c in zip(numbers, cells, strict=True)
    )
    ids = np.array([f"wide-{k}" for k in range(n_frames)])
    return LabelledFrames(
        crystals,
        rng.normal(-2, 0.5, n_frames),
        rng.normal(0, 0.1, (2 * n_frames, 3)).astype(np.float32),
        rng.normal(0, 1, (n_frames, 3, 3)).astype(np.float32),
        rng.uniform(0, 0.1, 2 * n_frames).astype(np.float32),
        ids,
        ids,
    )


def joined(*several):
    """Frames of several sets in one."""
    crystals = Crystals(*(np.concatenate([getattr(f.crystals, n) for f in several]) for n in _crystal_fields()))
    names = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub", "frame_ids", "material_ids")
    return LabelledFrames(crystals, *(np.concatenate([getattr(f, n) for f in several]) for n in names))


def _crystal_fields():
    return Crystals.__dataclass_fields__


def with_labels(frames, **changed):
    """The same frames with other labels."""
    values = {name: getattr(frames, name) for name in LabelledFrames.__dataclass_fields__} | changed
    return LabelledFrames(**values)


def thirds(n_frames):
    """A split in turns: of every six frames four to train, one to validate, one to test."""
    k = np.arange(n_frames)
    return {"train": k[k % 6 < 4], "validation": k[k % 6 == 4], "test": k[k % 6 == 5]}
