"""The surrogate's crystals labelled by a second teacher: how they are made, what is shipped, how far the two differ."""

import importlib.util
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.datasets import check_dataset
from crossfunc.datasets.store import PACKAGED
from crossfunc.energies import composition_matrix, published_atomref
from crossfunc.errors import InputError
from crossfunc.potential.crystals import Crystals
from crossfunc.surrogate import teachers, third_teacher
from crossfunc.surrogate.spread import teacher_spread
from crossfunc.symbols import ELEMENT_SYMBOLS

MEGABYTE = 1e6
TOY = teachers.Teacher(
    name="toy",
    package="ase",
    calculator="calculators:Toy",
    low={"shift": 0.0},
    high={"shift": 0.5},
    licence="none",
    citation="none",
)


@pytest.fixture(scope="module")
def surrogate():
    return xf.open_dataset(PACKAGED / "surrogate")


@pytest.fixture(scope="module")
def shipped():
    return xf.open_dataset(PACKAGED / "surrogate-sevennet")


@pytest.fixture(scope="module")
def small(tmp_path_factory, surrogate):
    """Twelve materials of the surrogate with all their frames."""
    symbols = ["Na", "Cl", "Mg", "O", "Li"]
    X = composition_matrix(surrogate.pairs)
    inside = np.asarray(X[:, [ELEMENT_SYMBOLS.index(s) for s in symbols]].sum(axis=1)).ravel() > 0.999
    chosen = surrogate.pairs[inside & (surrogate.pairs["n_atoms"] <= 4)]
    frames = surrogate.frames.filter(pc.is_in(surrogate.frames["material_id"], list_of(chosen["material_id"])))
    elements = surrogate.elements[surrogate.elements["element"].isin(symbols)]
    meta = {key: value for key, value in surrogate.meta.items() if key != "files"}
    path = tmp_path_factory.mktemp("teachers") / "small"
    return xf.write_dataset(path, meta=meta, frames=frames, pairs=chosen, elements=elements)


def list_of(values):
    import pyarrow as pa

    return pa.array(list(values))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(teachers.TEACHERS, "toy", TOY)
    monkeypatch.setattr(teachers, "_LOADED", {})
    monkeypatch.setattr(teachers, "CHUNK", 10)


def test_labels_are_the_teachers_with_corrections_where_the_source_has_them(toy, small, tmp_path):
    made = teachers.label_again(tmp_path / "toy", "toy", source=small, progress=False)
    assert made.labelled_by == "model, toy"
    assert made.is_surrogate
    assert made.frames["frame_id"].equals(small.frames["frame_id"])
    assert made.frames["frac_coords"].equals(small.frames["frac_coords"])
    assert made.frames["magmoms_mub"].null_count == made.frames.num_rows
    low, high = (xf.LabelledFrames.from_dataset(made, side) for side in ("low", "high"))
    for frames, shift in ((low, 0.0), (high, 0.5)):
        model = xf.load_calculator("calculators:Toy", {"shift": shift})
        predicted = xf.predict(model, frames.crystals)
        energy = predicted["energy_per_atom_ev"]
        if shift == 0:
            pairs = small.pairs.set_index("material_id")
            correction = pairs["low_energy_per_atom_ev"] - pairs["low_uncorrected_energy_per_atom_ev"]
            energy = energy + correction.reindex(frames.material_ids).to_numpy()
        assert np.allclose(frames.energy_per_atom_ev, energy, atol=1e-5)
        there = np.isfinite(frames.forces_ev_per_a)
        assert np.abs(frames.forces_ev_per_a - np.concatenate(predicted["forces_ev_per_a"]))[there].max() < 6e-4
    dense = pc.starts_with(made.frames["source"], "dense")
    assert made.frames.filter(dense)["forces_ev_per_a"].null_count == 0
    assert made.frames.filter(pc.invert(dense))["forces_ev_per_a"].null_count == pc.sum(pc.invert(dense)).as_py()
    formation = made.pairs["high_formation_energy_per_atom_ev"]
    spread = (formation - small.pairs["high_formation_energy_per_atom_ev"]).abs()
    assert np.allclose(made.pairs[teachers.SPREAD], spread, atol=2e-6, equal_nan=True)
    elemental = made.pairs[made.pairs["composition"].isin(ELEMENT_SYMBOLS)]
    lowest = elemental.groupby("composition")["high_formation_energy_per_atom_ev"].min()
    assert np.allclose(lowest, 0, atol=2e-6)
    assert check_dataset(made.path).ok
    assert not list(tmp_path.glob(".*-parts-*"))


def test_a_killed_run_goes_on_where_it_stopped(toy, small, tmp_path, monkeypatch):
    label, calls = teachers._label, []

    def dies_at_the_third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label(*given)

    monkeypatch.setattr(teachers, "_label", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        teachers.label_again(tmp_path / "toy", "toy", source=small, progress=False)
    assert not (tmp_path / "toy").exists()
    resumed = teachers.label_again(tmp_path / "toy", "toy", source=small, progress=False)
    n_chunks = len(calls) - 1
    monkeypatch.setattr(teachers, "_label", label)
    calls_of_a_whole_run = teachers.label_again(tmp_path / "again", "toy", source=small, progress=False)
    assert resumed.frames.equals(calls_of_a_whole_run.frames)
    low, high = (pc.sum(pc.equal(small.frames["functional"], key)).as_py() for key in ("gga", "r2scan"))
    assert n_chunks == -(-low // 10) + -(-high // 10)


def test_a_frame_that_the_teacher_fails_on_is_in_the_ledger(toy, small, tmp_path, monkeypatch):
    without = replace(TOY, name="no sodium", calculator="calculators:KnowsNoSodium")
    monkeypatch.setitem(teachers.TEACHERS, "toy", without)
    made = teachers.label_again(tmp_path / "toy", "toy", source=small, progress=False)
    assert set(made.rejected["table"]) == {"frames"}
    assert all("Na" in name for name in made.rejected["id"])
    assert not any("Na" in formula for formula in made.pairs["composition"])
    assert made.pairs["high_formation_energy_per_atom_ev"].notna().any()


def test_what_cannot_be_labelled_is_one_sentence(small, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"choose chgnet .* or sevennet"):
        teachers.label_again(tmp_path / "a", "mace", source=small)
    monkeypatch.setitem(teachers.TEACHERS, "sevennet", replace(teachers.TEACHERS["sevennet"], package="not_there"))
    result = CliRunner().invoke(app, ["data", "make-surrogate", "--labels", "sevennet", "--out", str(tmp_path / "a")])
    assert result.exit_code == 1
    assert "needs the package not_there, which is not installed (pip install not_there)" in result.stderr
    assert not list(tmp_path.iterdir())


# --- what is shipped ---


def test_the_shipped_crystals_are_those_of_the_surrogate(surrogate, shipped):
    assert check_dataset(shipped.path).ok
    assert sum(file.stat().st_size for file in shipped.path.iterdir()) <= 3 * MEGABYTE
    assert shipped.labelled_by == "model, SevenNet-MF-0"
    assert "not DFT" in shipped.label_notice
    assert "MIT" in shipped.meta["licence"]
    left_out = set(shipped.rejected["id"]) if len(shipped.rejected) else set()
    kept = [k for k, name in enumerate(surrogate.frames["frame_id"].to_pylist()) if name not in left_out]
    for column in ("frame_id", "lattice_a", "frac_coords", "atomic_numbers", "energy_kind"):
        assert shipped.frames[column].equals(surrogate.frames.take(kept)[column])
    assert [one.full_name for one in shipped.functionals] == [one.full_name for one in surrogate.functionals]
    assert shipped.frames["magmoms_mub"].null_count == shipped.frames.num_rows


def test_the_dense_tier_has_forces_in_both_functionals(shipped):
    dense = shipped.frames.filter(pc.starts_with(shipped.frames["source"], "dense"))
    assert set(dense["functional"].to_pylist()) == {"gga", "r2scan"}
    assert dense["forces_ev_per_a"].null_count == dense["stress_gpa"].null_count == 0


def test_the_second_teacher_has_the_references_of_the_materials_project(shipped):
    """Its energies less the published tables are bonding: a few eV/atom, not tens."""
    X = composition_matrix(shipped.pairs)
    for column, name in (("low_energy_per_atom_ev", "MPtrj"), ("high_energy_per_atom_ev", "MP-r2SCAN")):
        table = np.nan_to_num(published_atomref(name).energies_ev)
        left = shipped.pairs[column] - X @ table
        assert np.abs(left).median() < 1.0


def test_the_teachers_agree_on_bonding_better_than_the_functionals_differ(surrogate, shipped):
    table = teacher_spread(surrogate, shipped).set_index("property")
    shift = (surrogate.pairs["high_energy_per_atom_ev"] - surrogate.pairs["low_energy_per_atom_ev"]).abs().median()
    assert table.loc["r²SCAN energy after offsets per element", "median"] < 0.1 * shift
    forces = table.loc["r²SCAN force component"]
    assert forces["mean"] < forces["size"]
    assert 0.5 < forces["slope"] < 2


def test_spread_of_a_dataset_with_itself_is_nothing(small):
    table = teacher_spread(small, small)
    assert np.allclose(table["mean"], 0)
    assert np.allclose(table["slope"].dropna(), 1)


def test_a_third_opinion_adds_formation_energies_and_widens_the_spread(toy, small, tmp_path, monkeypatch):
    made = teachers.label_again(tmp_path / "toy", "toy", source=small, progress=False)
    before = made.pairs[teachers.SPREAD].to_numpy()
    third = replace(TOY, name="third", low=None, high={"shift": 0.25, "scale": 1.5})
    monkeypatch.setitem(teachers.TEACHERS, "third", third)
    added = third_teacher.add_teacher(tmp_path / "toy", "third", source=small, progress=False)
    assert added.frames.equals(made.frames)
    relaxed = added.frames.filter(pc.match_substring(added.frames["source"], ": relaxed"))
    relaxed = relaxed.filter(pc.equal(relaxed["functional"], "r2scan"))
    relaxed = relaxed.filter(pc.invert(pc.match_substring(relaxed["source"], "relaxed-gga")))
    model = xf.load_calculator("calculators:Toy", {"shift": 0.25, "scale": 1.5})
    energies = xf.predict(model, Crystals.from_frames(relaxed))["energy_per_atom_ev"]
    total = dict(zip(relaxed["material_id"].to_pylist(), energies, strict=True))
    pairs = added.pairs.assign(e=added.pairs["material_id"].map(total))
    elements = pairs[pairs["composition"].isin(ELEMENT_SYMBOLS)].groupby("composition")["e"].min()
    X = composition_matrix(list(pairs["composition"]))
    zero = np.array([elements.get(s, np.nan) for s in ELEMENT_SYMBOLS])
    expected = pairs["e"] - [row.data @ zero[row.indices] for row in X]
    own = added.pairs["third_formation_energy_per_atom_ev"]
    assert np.allclose(own, expected, atol=1e-4, equal_nan=True)
    after = added.pairs[teachers.SPREAD].to_numpy()
    there = np.isfinite(before) & np.isfinite(after)
    assert (after >= before - 2e-6)[there].all()
    assert (after > before + 1e-3)[there].any()
    about = added.meta["generator"]["third"]
    assert about["forces_beside"]["model, toy"]["slope"] == pytest.approx(1.5, abs=0.01)
    table = teacher_spread(small, added)
    assert table["property"].str.contains("third against toy").sum() == 2
    assert check_dataset(added.path).ok


def test_who_speaks_two_functionals_adds_no_opinion_and_who_speaks_one_makes_no_dataset(
    toy, small, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match="toy speaks both functionals"):
        third_teacher.add_teacher(small, "toy", source=small, progress=False)
    monkeypatch.setitem(teachers.TEACHERS, "third", replace(TOY, name="third", low=None))
    with pytest.raises(InputError, match="no second teacher's dataset"):
        third_teacher.add_teacher(small, "third", source=small, progress=False)
    with pytest.raises(InputError, match="speaks the high functional alone"):
        teachers.label_again(tmp_path / "x", "third", source=small, progress=False)


def test_the_shipped_spread_is_that_of_three_teachers(surrogate, shipped):
    names = ["high_formation_energy_per_atom_ev", "diep_formation_energy_per_atom_ev"]
    of_first = surrogate.pairs.set_index("material_id")[names[0]].reindex(shipped.pairs["material_id"]).to_numpy()
    opinions = np.column_stack([of_first, *(shipped.pairs[name] for name in names)])
    assert np.allclose(shipped.pairs[teachers.SPREAD], np.ptp(opinions, axis=1), atol=2e-6, equal_nan=True)


def test_labels_made_again_are_the_shipped_ones(shipped):
    if importlib.util.find_spec("sevenn") is None:
        pytest.skip("sevenn is not installed")
    teacher = teachers.TEACHERS["sevennet"]
    rows = np.random.default_rng(0).permutation(shipped.frames.num_rows)[:12]
    for side, functional in zip(("low", "high"), shipped.functionals, strict=True):
        frames = shipped.frames.take(rows)
        frames = frames.filter(pc.equal(frames["functional"], functional.key))
        found = teachers._label(teacher, side, frames)
        correction = teachers._corrections(xf.open_dataset("surrogate")) if side == "low" else {}
        for row in frames.to_pylist():
            made = found[row["frame_id"]]["energy_per_atom_ev"][0] + correction.get(row["material_id"], 0.0)
            assert made == pytest.approx(row["energy_per_atom_ev"], abs=2e-5)
