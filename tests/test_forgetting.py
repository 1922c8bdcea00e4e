"""What counts as forgotten: not references, but what a refit of them leaves; on frames that training has not seen."""

import copy
import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from small_frames import small_frames
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.datasets import DatasetError
from crossfunc.errors import InputError
from crossfunc.potential import Crystals, element_references, load_model, set_element_references
from crossfunc.training import LabelledFrames, finetune
from crossfunc.training.dimers import read_dimers
from crossfunc.training.forgetting import COLUMNS, COUNTS, DIMERS, Forgetting, _refitted, forgetting, measure_forgetting
from crossfunc.training.run_folder import find_model_file, read_start
from crossfunc.training.source import (
    FORMS,
    KINDS,
    find_prototypes,
    has_labels,
    label_with_model,
    other_functional,
    replace_labels,
    split_source,
    without_labels,
)


@pytest.fixture(scope="module")
def start():
    return load_model("0.3.0")


@pytest.fixture(scope="module")
def labelled():
    """Frames with labels that are not the starting model's: the published r2SCAN model's."""
    return label_with_model(load_model("r2scan"), small_frames(18, max_atoms=2))


def bent(model, size=0.02):
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in other.named_parameters():
            if not name.startswith("composition_model"):
                p += size * p.abs().mean() * torch.randn(p.shape, generator=generator)
    return other


# --- the measure ---


def test_other_references_are_not_forgetting(start, labelled):
    moved = copy.deepcopy(start)
    shift = np.random.default_rng(0).normal(0, 10, 94)
    set_element_references(moved, np.nan_to_num(element_references(start)) + shift)
    table = measure_forgetting(moved, start, {KINDS[0]: labelled}).table
    row = table.loc[KINDS[0]]
    assert row["labels"] == "data"
    assert row[f"{COLUMNS[0]}_before"] > 1
    for name in COLUMNS[1:]:
        assert row[f"{name}_before"] == row[f"{name}_after"]
    # float32 energies of tens of eV/atom on other references
    assert row[f"{COLUMNS[0]}_after"] == pytest.approx(row[f"{COLUMNS[0]}_before"], abs=0.05)


def test_a_network_that_was_bent_has_forgotten(start):
    frames = label_with_model(start, small_frames(18, max_atoms=2))
    row = measure_forgetting(bent(start), start, {KINDS[0]: frames}).table.loc[KINDS[0]]
    assert row[f"{COLUMNS[0]}_before"] == pytest.approx(0, abs=1e-3)
    assert row[f"{COLUMNS[0]}_after"] > 1
    assert row[f"{COLUMNS[1]}_after"] > 1
    assert 0 < row["force_cosine_after"] < 0.99  # still the way of the labels on the whole


def test_a_refit_takes_out_what_is_linear_in_composition_and_is_not_fitted_where_it_is_measured():
    rng = np.random.default_rng(0)
    X = rng.dirichlet([1, 1, 1], 300) @ np.eye(94)[[3, 7, 25]]
    materials = np.repeat(np.arange(100), 3).astype(str)
    linear = X @ rng.normal(0, 3, 94)
    left = linear - _refitted(csr_array(X), linear, materials, within=False, seed=0)
    assert np.abs(left).max() < 2e-3  # a pull of a thousandth of a material to nothing
    noise = rng.normal(0, 1, 300)
    rest = noise - _refitted(csr_array(X), noise, materials, within=False, seed=0)
    assert (rest**2).mean() > (noise**2).mean()  # a fit where it is measured would lower it
    within = noise - _refitted(csr_array(X), noise, materials, within=True, seed=0)
    assert (within**2).mean() < (noise**2).mean()


def test_a_kind_of_one_material_takes_its_refit_from_the_other_kinds(start, labelled):
    """By itself it could fix no reference, and what is no forgetting would count as much."""
    shifted = copy.deepcopy(start)
    with torch.no_grad():
        shifted.mlp.layers[-1].bias += 2.0  # a shift of every atom in the network, which references take up
    rows = np.arange(len(labelled))
    one = labelled.material_ids == labelled.material_ids[0]
    held_out = {KINDS[0]: labelled.take(rows[~one]), KINDS[1]: labelled.take(rows[one])}
    found = {
        name: measure_forgetting(m, start, held_out).table for name, m in (("as it is", start), ("moved", shifted))
    }
    raw = xf.evaluate(shifted, labelled)[COLUMNS[0]] - xf.evaluate(start, labelled)[COLUMNS[0]]
    assert abs(raw) > 500
    for kind in held_out:
        before, after = (table.loc[kind, f"{COLUMNS[0]}_after"] for table in found.values())
        assert after == pytest.approx(before, abs=1.0)


def test_frames_far_from_equilibrium_take_the_refit_without_a_part_in_it():
    X = csr_array(np.tile(np.eye(94)[[3, 7]], (10, 1)))
    left = np.tile([1.0, -2.0], 10)
    is_far = np.arange(20) >= 16
    left[is_far] += 100.0
    materials = np.arange(20).astype(str)
    rest = left - _refitted(X, left, materials, ~is_far, within=False, seed=0)
    assert np.abs(rest[~is_far]).max() < 1e-2
    assert np.abs(rest[is_far] - 100).max() < 1e-2
    alone = _refitted(X[is_far], left[is_far], materials[is_far], np.zeros(4, bool), within=False, seed=0)
    assert np.abs(alone).min() > 50  # where there are no others, they are fitted to


def test_labels_of_the_starting_model_are_called_degenerate(start, labelled):
    held_out = {KINDS[0]: without_labels(labelled), KINDS[1]: labelled}
    found = measure_forgetting(bent(start), start, held_out)
    assert found.table["labels"].tolist() == ["starting model", "data"]
    assert found.table[f"{COLUMNS[1]}_before"].iloc[0] == 0
    degenerate, absent = found.notes
    assert degenerate.startswith("Degenerate: held-out materials carry the starting model's own labels")
    assert (
        absent == "No source frames of these kinds: other prototype, other stoichiometry, far from equilibrium, dimers."
    )


def test_at_most_so_many_frames_of_a_kind_are_drawn(start, labelled):
    table = measure_forgetting(start, start, {KINDS[0]: labelled}, max_frames=5).table
    assert table["n_frames"].tolist() == [5]


def test_it_survives_json(start, labelled):
    found = measure_forgetting(bent(start), start, {KINDS[0]: labelled, DIMERS: labelled.take([0, 1])})
    back = Forgetting.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    pd.testing.assert_frame_equal(back.table, found.table, check_dtype=False)
    assert back.notes == found.notes
    assert "source functional, after a refit of references" in back.report()


# --- which frames ---


def crystals_of(*compositions):
    return Crystals.from_arrays(
        (z, np.linspace(0, 1, len(z), endpoint=False)[:, None] * [1, 0, 0], np.diag([2.5 * len(z), 3, 3]))
        for z in compositions
    )


def plain(materials, compositions, forces=None, stress=None):
    crystals = crystals_of(*compositions)
    n, n_atoms = len(crystals), len(crystals.atomic_numbers)
    f, s = np.zeros((n_atoms, 3), np.float32), np.zeros((n, 3, 3), np.float32)
    for k, value in (forces or {}).items():
        f[crystals.starts[k], 0] = value
    for k, value in (stress or {}).items():
        s[k, 0, 0] = value
    ids = np.array([f"{m}/{k}" for k, m in enumerate(materials)])
    return LabelledFrames(crystals, np.zeros(n), f, s, np.zeros(n_atoms, np.float32), ids, np.array(materials))


def test_source_frames_are_parted_by_what_the_target_trains_on():
    target = plain(["MgO", "NaCl", "Fe"], [[12, 8], [11, 17], [26]])
    parts = {"train": np.array([0]), "validation": np.array([1]), "test": np.array([2])}
    new = [(f"new-{k}", [30 + k, 8]) for k in range(8)]  # other elements
    forms = [(f"form-{k}", [12, 8, 8]) for k in range(8)]  # the target's elements in another ratio
    names, compositions = zip(
        ("MgO", [12, 8]), ("NaCl", [11, 17]), ("Fe", [26]), ("Fe", [26]), *new, *forms, strict=True
    )
    source = plain(names, compositions, forces={3: 5.0})
    found = split_source(source, target, "r2scan", target, parts)
    assert found.functional is None
    held = {kind: set(frames.material_ids) for kind, frames in found.held_out.items()}
    assert set(held) == set(KINDS) - {FORMS[0]}  # no prototype is named
    assert held["held-out materials"] == {"NaCl", "Fe"}
    assert held["far from equilibrium"] == {"Fe"}
    assert held["other chemistry"] < {name for name, _ in new}
    assert held["other stoichiometry"] < {name for name, _ in forms}
    assert sum(map(len, found.held_out.values())) + len(found.pool) == len(source)
    assert not set(found.pool.material_ids) & set.union(*held.values())
    assert {"MgO"} < set(found.pool.material_ids)
    again = split_source(source, target, "r2scan", target, parts)
    assert list(again.pool.frame_ids) == list(found.pool.frame_ids)


def test_a_structure_type_that_training_lacks_goes_before_a_chemistry_that_it_lacks():
    target = plain(["MgO", "NaCl", "Fe"], [[12, 8], [11, 17], [26]])
    parts = {"train": np.array([0]), "validation": np.array([1]), "test": np.array([2])}
    known = [(f"known-{k}", [30 + k, 8]) for k in range(4)]  # other elements in the structure of MgO
    other = [(f"other-{k}", [40 + k, 8]) for k in range(4)]
    forms = [(f"form-{k}", [12, 8, 8]) for k in range(4)]  # the target's elements in another structure
    blank = [(f"blank-{k}", [50 + k, 8]) for k in range(4)]  # no name for the structure
    names, compositions = zip(("MgO", [12, 8]), ("NaCl", [11, 17]), *known, *other, *forms, *blank, strict=True)
    source = plain(names, compositions)
    prototypes = {"MgO": "rock-salt", "NaCl": "cesium-chloride"}
    prototypes |= {name: "rock-salt" for name, _ in known} | {name: "wurtzite" for name, _ in (*other, *forms)}
    found = split_source(source, target, None, target, parts, prototypes=prototypes)
    held = {kind: sorted({name.split("-")[0] for name in f.material_ids}) for kind, f in found.held_out.items()}
    assert held == {
        "held-out materials": ["NaCl"],
        "other chemistry": ["blank", "known"],
        "other prototype": ["form", "other"],
    }
    assert len(found.held_out["other chemistry"]) == len(found.held_out["other prototype"]) == 4  # half of each
    assert split_source(found, target, None, target, parts) is found
    unknown = {name: p for name, p in prototypes.items() if name != "MgO"}  # nothing to compare with
    again = split_source(source, target, None, target, parts, prototypes=unknown)
    assert set(again.held_out) == {"held-out materials", "other chemistry", "other stoichiometry"}


def test_prototypes_are_those_that_a_dataset_names(dataset):
    target = xf.open_dataset("pbe-r2scan")
    named = find_prototypes(target)
    assert named["SrTiO3-perovskite"] == "perovskite"
    assert find_prototypes(dataset) == {}
    assert find_prototypes(dataset, target) == named
    frames = LabelledFrames.from_dataset(target, "high")
    parts = xf.split_by_material(frames.material_ids)
    for given in (target, "pbe-r2scan"):
        found = split_source(target, given, "high", frames, parts)
        assert "other stoichiometry" not in found.held_out


def test_without_source_frames_the_targets_own_structures_stand_in_without_their_labels(labelled):
    parts = xf.split_by_material(labelled.material_ids, (0.6, 0.2, 0.2))
    found = split_source(None, labelled, "r2scan", labelled, parts)
    assert set(found.pool.material_ids) == set(labelled.material_ids[parts["train"]])
    assert not has_labels(found.pool)
    assert set(found.held_out) == {"held-out materials"}


def test_a_source_of_held_out_materials_only_is_refused(labelled):
    parts = xf.split_by_material(labelled.material_ids, (0.6, 0.2, 0.2))
    with pytest.raises(DatasetError, match=r"all of its .* frames are of materials that the split keeps"):
        split_source(labelled.take(parts["test"]), labelled, "r2scan", labelled, parts)


# --- dimers ---


def curve(distances, energies, force):
    forces = [[[-f, 0, 0], [f, 0, 0]] for f in force]
    return {"distances": distances, "energies": energies, "forces": forces, "magmoms": [None, [1, 1], [0, 0], [0, 0]]}


def write_dimers(path, **curves):
    path.write_bytes(gzip.compress(json.dumps({"PBE": {k.replace("_", "-"): v for k, v in curves.items()}}).encode()))
    return path


def test_dimers_are_frames_of_two_atoms_below_six_angstrom(tmp_path):
    path = write_dimers(
        tmp_path / "d.json.gz", O_O=curve([0.9, 1.2, 2.0, 6.0], [-4.0, -10.0, -6.0, -3.0], [59, 1, -2, 0])
    )
    frames = read_dimers(path)
    assert len(frames) == 2  # one repels by more than 10 eV/Å, one is where CHGNet has no bond
    assert frames.energy_per_atom_ev.tolist() == [-5, -3]
    assert frames.forces_ev_per_a[:, 0].tolist() == [-1, 1, 2, -2]
    assert np.isnan(frames.stress_gpa).all()
    positions = frames.crystals.positions_a.reshape(2, 2, 3)
    np.testing.assert_allclose(np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1), [1.2, 2.0])
    # a force that points away from the other atom is repulsive
    assert frames.forces_ev_per_a[0] @ (positions[0, 1] - positions[0, 0]) < 0
    assert np.isnan(read_dimers(path, max_force_ev_per_a=100).magmoms_mub[:2]).all()


def test_what_is_no_file_of_dimers_is_named(tmp_path):
    path = write_dimers(tmp_path / "d.json.gz", O_O=curve([0.9, 1.2, 2.0, 6.0], [0, 0, 0, 0], [0, 0, 0, 0]))
    with pytest.raises(DatasetError, match="no dimers of 'HSE06'; it has PBE"):
        read_dimers(path, "HSE06")
    path.write_bytes(b"\x1f\x8bno gzip")
    with pytest.raises(DatasetError, match="not readable as JSON of dimers"):
        read_dimers(path)
    path = write_dimers(tmp_path / "e.json.gz", O_O={"distances": [1.0]})
    with pytest.raises(DatasetError, match="O-O is no curve of distances"):
        read_dimers(path)
    path = write_dimers(tmp_path / "f.json.gz", Fe_O=curve([0.9, 1.2, 2.0, 6.0], [0, 0, 0, 0], [0, 0, 0, 0]))
    with pytest.raises(DatasetError, match=r"Fe-O is no curve .*expected one element twice, as O-O"):
        read_dimers(path)


@pytest.mark.real_data
def test_the_published_model_knows_real_dimers_by_their_shape(real_data_folder, start):
    frames = read_dimers(real_data_folder / "dimers_pbe_r2scan.json.gz", elements=["O", "Cu", "Na"])
    assert set(frames.material_ids) == {"O-O", "Cu-Cu", "Na-Na"}
    row = measure_forgetting(start, start, {DIMERS: frames}).table.loc[DIMERS]
    assert row["labels"] == "data"
    assert 10 < row[f"{COLUMNS[0]}_before"] < 2000
    assert row["force_cosine_after"] > 0.5
    repulsive = frames.forces_ev_per_a[::2, 0] < 0
    assert repulsive.any()
    assert not repulsive.all()


# --- in finetune and on the command line ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Frames of the packaged dataset in both functionals, of six materials."""
    surrogate = xf.open_dataset("surrogate")
    table = surrogate.frames
    dense = np.array([s.startswith(("dense: r", "dense: s")) for s in table["source"].to_pylist()])
    sizes = table["atomic_numbers"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    rows = table.filter(pa.array(dense & (sizes <= 2)))
    some = np.unique(rows["material_id"].to_numpy(zero_copy_only=False))[::12][:12]
    rows = rows.filter(pa.array(np.isin(rows["material_id"].to_numpy(zero_copy_only=False), some)))
    folder = tmp_path_factory.mktemp("data") / "both"
    return xf.write_dataset(folder, meta=surrogate.meta, frames=rows)


def test_the_other_functional_of_a_dataset_is_found(dataset):
    names = set(dataset.frames["functional"].to_pylist())
    assert len(names) == 2
    for name in names:
        assert {name, other_functional(dataset, name)} == names


def test_the_command_reports_what_was_forgotten_and_each_readout_is_evaluated(dataset, tmp_path, monkeypatch):
    from crossfunc.cli import app

    monkeypatch.delenv("CROSSFUNC_DATA", raising=False)  # no dimers

    out = tmp_path / "run"
    where = ["--dataset", str(dataset.path)]
    command = ["finetune", "--method", "two-readouts", "--out", str(out), "--epochs", "1", "--option", "share=0.5"]
    done = CliRunner().invoke(app, [*command, *where])
    assert done.exit_code == 0, done.output
    assert "source functional, after a refit of references" in done.output
    assert "Degenerate: held-out materials" in done.output
    about = json.loads((out / "run.json").read_text())
    assert about["options"]["share"] == 0.5
    assert about["forgetting"]["kinds"]["held-out materials"]["n_frames"] > 0
    source = about["source"]["functional"]
    assert source == other_functional(dataset, about["functional"])
    assert find_model_file(out, source).name == "best-source.pt"
    command = ["evaluate", "--model", str(out), "--functional", about["functional"], "--source", "auto", "--json"]
    printed = json.loads(CliRunner().invoke(app, [*command, *where]).stdout)
    assert set(printed["forgetting"]["kinds"]) == {"held-out materials"}
    errors = {}
    for functional in (source, about["functional"]):
        model = load_model(find_model_file(out, functional))
        frames = LabelledFrames.from_dataset(dataset, source)
        errors[functional] = xf.evaluate(model, frames)["energy_mae_mev_per_atom"]
    assert errors[source] < errors[about["functional"]] / 10  # each has references of its own functional


def test_the_command_measures_from_the_model_and_the_split_that_the_run_started_with(dataset, tmp_path, monkeypatch):
    """Not from 0.3.0 and the split of seed 0, which are what a run starts with by default."""
    from crossfunc.cli import app

    monkeypatch.delenv("CROSSFUNC_DATA", raising=False)
    settings = {"n_epochs": 0, "progress": False, "source": "auto", "split_seed": 3}
    other = tmp_path / "other.pt"
    xf.save_model(bent(load_model("0.3.0")), other)
    runs = {"published": finetune("references-only", dataset, out=tmp_path / "a", pretrained="r2scan", **settings)}
    runs["file"] = finetune("references-only", dataset, out=tmp_path / "b", pretrained=str(other), **settings)

    def evaluate(run, *more):
        command = ["evaluate", "--model", str(run.out), "--dataset", str(dataset.path), "--source", "auto", "--json"]
        return CliRunner().invoke(app, [*command, *more])

    def is_of(done, run):
        assert done.exit_code == 0, done.output
        row = json.loads(done.stdout)["forgetting"]["kinds"]["held-out materials"]
        expected = run.forgetting.table.loc["held-out materials"]
        names = ("n_frames", "n_force_components", f"{COLUMNS[0]}_after", f"{COLUMNS[1]}_after", f"{COLUMNS[1]}_zero")
        return all(row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-3) for name in names)

    assert is_of(evaluate(runs["published"]), runs["published"])
    for other_than_recorded in (["--start", "0.3.0"], ["--split-seed", "0"]):
        assert not is_of(evaluate(runs["published"], *other_than_recorded), runs["published"])
    nameless = evaluate(runs["file"])
    assert nameless.exit_code != 0
    assert "the run started from a file of its own, of which run.json has a hash alone" in nameless.output
    assert is_of(evaluate(runs["file"], "--start", str(other)), runs["file"])
    wrong = evaluate(runs["file"], "--start", str(runs["published"].out / "best.pt"))
    assert "the run started from another file" in wrong.output
    seeds = [read_start(run.out).split_seed for run in runs.values()]
    assert seeds == [3, 3]


def test_a_run_on_another_split_or_other_frames_is_not_judged_by_this_one(dataset, tmp_path):
    """Frames that it was trained on would count as held out, without a word."""
    from crossfunc.cli import app

    frames = LabelledFrames.from_dataset(dataset, "high")
    rows = np.arange(len(frames))
    own = {"train": rows[:-4], "validation": rows[-4:-2], "test": rows[-2:]}
    settings = {"n_epochs": 0, "progress": False}
    runs = {"own": finetune("references-only", dataset, split=own, out=tmp_path / "own", **settings)}
    runs["usual"] = finetune("references-only", dataset, out=tmp_path / "usual", **settings)

    def evaluate(run, *more, of=dataset.path):
        return CliRunner().invoke(app, ["evaluate", "--model", str(run.out), "--dataset", str(of), "--json", *more])

    for more in (["--by-split"], ["--source", "auto"]):
        refused = evaluate(runs["own"], *more)
        assert refused.exit_code != 0
        assert "was not split 8:1:1 by material with seed 0" in refused.output
    assert evaluate(runs["own"]).exit_code == 0
    assert evaluate(runs["usual"], "--by-split").exit_code == 0
    other = evaluate(runs["usual"], "--by-split", of="pbe-r2scan")
    assert other.exit_code != 0
    assert "trained on other frames than those of this dataset" in other.output


def test_a_finished_run_is_judged_anew_on_another_source(dataset, start, tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSFUNC_DATA", raising=False)  # dimers are judged by as well where they are
    frames = LabelledFrames.from_dataset(dataset, "high")
    low = label_with_model(start, LabelledFrames.from_dataset(dataset, "low"))
    off = replace_labels(low, forces_ev_per_a=low.forces_ev_per_a + 5)
    settings = {"n_epochs": 0, "progress": False, "out": tmp_path / "run"}
    of_low, of_off, again = (
        finetune("references-only", frames, source=source, **settings).forgetting.table[f"{COLUMNS[1]}_after"]
        for source in (low, off, low)
    )
    assert (of_off > 1000).all()
    assert (of_low < 1000).all()
    assert again.tolist() == of_low.tolist()


def test_a_run_can_be_asked_later_what_it_forgot(dataset, tmp_path):
    settings = {"n_epochs": 0, "progress": False, "out": tmp_path / "run"}
    first = finetune("references-only", dataset, **settings)
    assert first.forgetting is None
    later = finetune("references-only", dataset, source="auto", **settings)
    row = later.forgetting.table.loc["held-out materials"]
    assert row[f"{COLUMNS[1]}_after"] == 0  # references know nothing of forces
    assert row[f"{COLUMNS[0]}_after"] == pytest.approx(0, abs=0.05)
    alone = forgetting(first.model, dataset)
    pd.testing.assert_frame_equal(alone.table, later.forgetting.table)


def test_errors_of_each_frame_have_the_means_of_the_table(start, labelled):
    found = measure_forgetting(start, start, {KINDS[0]: labelled})
    each = found.frame_errors
    assert set(each["kind"]) == {KINDS[0]}
    assert each["material_id"].tolist() == labelled.material_ids.tolist()
    assert each[COLUMNS[0]].mean() == pytest.approx(found.table.loc[KINDS[0], f"{COLUMNS[0]}_after"])
    assert each["n_force_components"].tolist() == (3 * labelled.crystals.n_atoms).tolist()
    for name, count in COUNTS.items():
        weighted = np.average(each[name], weights=each[count])
        assert weighted == pytest.approx(found.table.loc[KINDS[0], f"{name}_after"])
        assert each[count].sum() == found.table.loc[KINDS[0], count]
    assert Forgetting.from_dict(found.to_dict()).frame_errors is None
    whole = json.loads(json.dumps(found.to_dict(with_frames=True)))
    pd.testing.assert_frame_equal(Forgetting.from_dict(whole).frame_errors, each.round(4), check_dtype=False)
    for of_version in (whole["frames"], whole["kinds"][KINDS[0]]):  # one that counted no labels
        count = of_version.pop("n_force_components")
        with pytest.raises(InputError, match="earlier version, which kept no counts of labels; delete the file"):
            Forgetting.from_dict(whole)
        of_version["n_force_components"] = count


def test_a_run_of_a_version_that_counted_no_labels_is_measured_again(dataset, tmp_path):
    settings = {"n_epochs": 0, "progress": False, "out": tmp_path / "run", "source": "auto"}
    first = finetune("references-only", dataset, **settings)
    file = tmp_path / "run" / "run.json"
    about = json.loads(file.read_text())
    del about["forgetting"]["frames"]["n_energies"]
    file.write_text(json.dumps(about))
    again = finetune("references-only", dataset, **settings)
    pd.testing.assert_frame_equal(again.forgetting.frame_errors, first.forgetting.frame_errors)
