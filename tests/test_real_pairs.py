"""Real crystals in lessons: what is read, what is refused, and comparisons with known answers."""

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from crossfunc.datasets import DatasetError
from crossfunc.energies import composition_matrix, published_shift
from crossfunc.lessons.real_pairs import (
    FROZEN_STARTS,
    PairedCrystals,
    compare_few_materials,
    compare_frozen_starts,
    find_file,
    read_paired_crystals,
)
from crossfunc.potential import load_model


def made_up(n=120, noise=0.05):
    """Binary oxides whose r²SCAN energies are a model's plus the published shift and a little noise."""
    rng = np.random.default_rng(0)
    metals = ["Li", "Mg", "Al", "Ti", "Fe", "Zr", "W", "La"]
    formulas = [f"{metals[k % 8]}{k % 3 + 1}O{k % 4 + 1}" for k in range(n)]
    X = composition_matrix(formulas)
    predicted = rng.normal(-6, 1, n)
    high = predicted + X @ published_shift().shift_ev + rng.normal(0, noise, n)
    ids = np.array([f"m{k}" for k in range(n)])
    return PairedCrystals(ids, X, high, predicted, predicted, rng.normal(size=(n, 5)), np.full(94, -3.0))


def test_a_known_shift_needs_few_materials_and_an_unknown_one_many():
    table = compare_few_materials(made_up(), [5, 60], n_draws=4, n_test=40)
    mean = table.groupby("n")[["trend", "published", "table"]].mean()
    assert len(table) == 8
    assert mean.loc[5, "published"] < 70  # the noise is 50 meV/atom
    assert mean.loc[5, "trend"] > 3 * mean.loc[5, "published"]
    assert mean.loc[60, "trend"] < 100
    assert np.allclose(mean["table"], mean["table"].iloc[0])


def test_frozen_starts_are_all_judged_on_the_same_crystals():
    found = compare_frozen_starts(made_up(n=60), n_splits=3)
    assert list(found) == list(FROZEN_STARTS)
    assert all(len(row["error"]) == 60 for row in found.values())
    assert found["3: GGA references"]["before"] > 1000
    assert found["model-aware, published shift as prior"]["before"] < 100
    assert found["3: GGA references"]["after"] > found["4: published table"]["after"]


def test_a_file_is_read_and_large_cells_are_left_out(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    energies = {"r2scan_energy_per_atom_ev": -5.0, "gga_mp2020_energy_per_atom_ev": -3.4}
    rows = [
        {"material_id": name, "structure": s.as_dict(), **energies}
        for name, s in (("cube", salt), ("cell", salt.get_primitive_structure()))
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    model = load_model("0.3.0")
    both, one = read_paired_crystals(file, model), read_paired_crystals(file, model, max_atoms=2)
    assert both.material_ids.tolist() == ["cube", "cell"]
    assert one.material_ids.tolist() == ["cell"]
    assert both.predicted_ev[0] == pytest.approx(both.predicted_ev[1], abs=1e-4)
    np.testing.assert_allclose(both.features[0], both.features[1], atol=1e-4)
    np.testing.assert_allclose(both.left(both.base_ev), both.high_ev - both.predicted_ev)
    file.write_text(json.dumps({**rows[0], "r2scan_energy_per_atom_ev": None}))
    with pytest.raises(DatasetError, match=r"pairs\.jsonl, line 1: no r2scan_energy_per_atom_ev"):
        read_paired_crystals(file, model)


def test_files_are_looked_for_where_the_data_are(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    assert find_file("pairs.jsonl") is None
    (tmp_path / "pairs.jsonl").write_text("")
    assert find_file("pairs.jsonl") == tmp_path / "pairs.jsonl"
    monkeypatch.setenv("CROSSFUNC_DATA", "")
    assert find_file("pairs.jsonl") is None
