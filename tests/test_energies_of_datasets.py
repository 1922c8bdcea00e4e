"""Energies and compositions of a dataset for a fit of references, and the advice that goes with them."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.energies.of_datasets import advise_refit, energies_of


@pytest.fixture(scope="module")
def dft():
    return open_dataset("pbe-r2scan")


def test_pairs_go_first_and_frames_where_they_are_asked_for(dft):
    high = dft.functional("high")
    X, energy, materials = energies_of(dft, high)
    assert X.shape == (len(dft.pairs), 94)
    np.testing.assert_array_equal(energy, dft.pairs[high.column()])
    assert len(set(materials)) == len(materials)
    X, energy, materials = energies_of(dft, high, from_frames=True)
    assert X.shape[0] == len(energy) == len(materials) > len(set(materials))


def test_without_energies_there_is_nothing_to_fit(dft):
    empty = SimpleNamespace(pairs=None, frames=None, path="somewhere")
    assert advise_refit(empty) is None
    with pytest.raises(DatasetError, match="somewhere: neither pairs nor frames"):
        energies_of(empty, dft.functional("high"))
    other = SimpleNamespace(pairs=None, frames=dft.frames, path="somewhere")
    with pytest.raises(DatasetError, match="no HSE06 frames; choose the other --functional"):
        energies_of(other, SimpleNamespace(key="hse06", name="HSE06"))


def test_advice_is_plain_and_says_between_what(dft):
    advice = advise_refit(dft)
    assert (advice["from"], advice["to"]) == tuple(functional.full_name for functional in dft.functionals)
    assert advice["refit"] is True
    assert advice["n_materials"] == dft.pairs["material_id"].nunique()
    assert advice["refitted_mae_ev_per_atom"] < advice["initial_mae_ev_per_atom"]


def test_frames_of_two_kinds_of_energy_are_not_fitted_together(dft):
    """References of raw and corrected energies together are those of neither."""
    high = dft.functional("high")
    kinds = ["mp2020" if k == 3 else "raw" for k in range(dft.frames.num_rows)]
    column = dft.frames.column_names.index("energy_kind")
    own = (pc.equal(dft.frames["functional"], high.key)).to_pylist().index(True)
    kinds[own] = "mp2020"
    mixed = dft.frames.set_column(column, "energy_kind", pa.array(kinds))
    with pytest.raises(DatasetError, match=r"kind mp2020 \(.*\) and raw \(.*\), and dataset.json says raw"):
        energies_of(SimpleNamespace(pairs=None, frames=mixed, path="somewhere"), high)
