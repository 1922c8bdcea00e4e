"""What a model has predicted, in its place: answers for crystals that it was asked about, and for no others.

A trained network is megabytes, what a lesson asks of it a few kilobytes. With these a comparison of many networks can
be kept, carried to another machine and looked at again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from crossfunc.errors import InputError
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.direct import DirectModel

__all__ = ["NotRecordedError", "RecordedModel"]

_STEPS = {"forces_ev_per_a": 1e-6, "stress_gpa": 1e-6, "magmoms_mub": 1e-6}
"""Derivatives are kept as multiples of these, far below any error of a potential; energies are kept whole."""
_NOTHING = np.iinfo(np.int32).min  # stands for NaN


class NotRecordedError(InputError):
    """Something that was not asked of the model while it was there; the message says what was."""


@dataclass(frozen=True, eq=False)
class RecordedModel(DirectModel):
    """Predictions of a model that is not there itself.

    Attributes
    ----------
    name : str
        For messages.
    keys : ndarray of uint64, shape (n,)
        From `crystal_keys`, of the crystals that were predicted.
    outputs : dict of str to ndarray
        `energy_per_atom_ev` (n,), `stress_gpa` (n, 3, 3), `forces_ev_per_a` and `magmoms_mub` with a row for each atom;
        NaN where nothing was predicted.
    n_atoms : ndarray of int, shape (n,)
    references_ev : ndarray, shape (94,)
        Element references that the model adds to its energies.
    weight_changes : dict of str to (float, float)
        For each of its parameters: the square of how far it moved from the start, and the square of its length there.
    """

    name: str
    keys: np.ndarray = field(repr=False)
    outputs: Mapping[str, np.ndarray] = field(repr=False)
    n_atoms: np.ndarray = field(repr=False)
    references_ev: np.ndarray = field(repr=False)
    weight_changes: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    def predict(
        self,
        crystals: Crystals,
        *,
        derivatives: bool = True,
        strict: bool = True,  # noqa: ARG002 - there is nothing to let pass
        progress: bool = False,  # noqa: ARG002
    ) -> dict:
        """As `crossfunc.potential.predict`.

        Raises
        ------
        NotRecordedError
            A crystal that the model was not asked about; names it.
        """
        place = {key: k for k, key in enumerate(self.keys.tolist())}
        rows = [place.get(key, -1) for key in crystal_keys(crystals).tolist()]
        if -1 in rows:
            k = rows.index(-1)
            raise NotRecordedError(
                f"{self.name} was not asked about crystal {k} ({crystals.formula(k)}): of this model there are "
                f"predictions for {len(self.keys)} crystals, and no weights; train it again to ask it more."
            )
        ends = np.cumsum(self.n_atoms)
        atoms = [slice(ends[k] - self.n_atoms[k], ends[k]) for k in rows]
        result = {"energy_per_atom_ev": self.outputs["energy_per_atom_ev"][rows]}
        result["magmoms_mub"] = [self.outputs["magmoms_mub"][of] for of in atoms]
        if derivatives:
            result["stress_gpa"] = self.outputs["stress_gpa"][rows]
            result["forces_ev_per_a"] = [self.outputs["forces_ev_per_a"][of] for of in atoms]
        return result | {"refused": {}}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the name as arrays that compress well."""
        arrays = {"keys": self.keys, "n_atoms": self.n_atoms.astype(np.int32), "references_ev": self.references_ev}
        arrays["energy_per_atom_ev"] = self.outputs["energy_per_atom_ev"]
        for name, step in _STEPS.items():
            scaled = np.rint(self.outputs[name] / step)
            arrays[name] = np.where(np.isfinite(scaled), scaled, _NOTHING).astype(np.int32)
        arrays["parameters"] = np.array(list(self.weight_changes), dtype=str)
        arrays["weight_changes"] = np.array(list(self.weight_changes.values()), float).reshape(-1, 2)
        return arrays

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, np.ndarray]) -> "RecordedModel":
        """Return the model of `to_arrays`."""
        outputs = {"energy_per_atom_ev": arrays["energy_per_atom_ev"]}
        for key, step in _STEPS.items():
            outputs[key] = np.where(arrays[key] == _NOTHING, np.nan, step * arrays[key])
        rows = zip(arrays["parameters"].tolist(), arrays["weight_changes"].tolist(), strict=True)
        changes = {parameter: (change, length) for parameter, (change, length) in rows}
        return cls(name, arrays["keys"], outputs, arrays["n_atoms"], arrays["references_ev"], changes)


def crystal_keys(crystals: Crystals) -> np.ndarray:
    """Return a number for each crystal that no other has: a digest of elements, lattice and positions."""
    atoms = zip(crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords), strict=True)
    keys = np.empty(len(crystals), dtype=np.uint64)
    for k, (lattice, (numbers, coords)) in enumerate(zip(crystals.lattices_a, atoms, strict=True)):
        digest = hashlib.sha256(np.ascontiguousarray(numbers, dtype=np.int64).tobytes())
        digest.update(np.ascontiguousarray(lattice, dtype=np.float64).tobytes())
        digest.update(np.ascontiguousarray(coords, dtype=np.float64).tobytes())
        keys[k] = int.from_bytes(digest.digest()[:8], "little")
    return keys
