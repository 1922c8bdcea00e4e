"""Any ASE calculator as a model: the same numbers, frame by frame or in several processes, and what goes wrong."""

import json
import sys
import threading
import time

import calculators
import numpy as np
import pytest
from ase.build import bulk
from small_frames import small_frames, with_labels
from typer.testing import CliRunner

import crossfunc as xf
from crossfunc.cli import app
from crossfunc.datasets import open_dataset, write_dataset
from crossfunc.potential import AseModel, CalculatorError, as_model, load_calculator, predict
from crossfunc.potential.calculator_source import parse_arguments, without_network
from crossfunc.stability import HullError, entries_by_model
from crossfunc.training.evaluate import EvaluationError

TOY = "calculators:Toy"


@pytest.fixture(scope="module")
def crystals():
    """Six small crystals, one with iron, one with oxygen, one with copper; slightly off their minima."""
    rng = np.random.default_rng(0)
    found = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("MgO", "rocksalt", a=4.2),
        bulk("Fe", "bcc", a=2.8, cubic=True),
        bulk("Cu", "fcc", a=3.6, cubic=True),
        bulk("LiCl", "rocksalt", a=5.1),
        bulk("Al", "fcc", a=4.0, cubic=True),
    ]
    for atoms in found:
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    return found


def direct(calculator, atoms):
    """What ASE itself gets: eV/atom, eV/Å, and stress as a 3 x 3 matrix in GPa."""
    atoms = atoms.copy()
    atoms.calc = calculator
    stress = atoms.get_stress(voigt=False) * 160.21766208
    return atoms.get_potential_energy() / len(atoms), atoms.get_forces(), stress


# --- the same numbers ---


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_predictions_are_those_of_ase_in_our_units(crystals, n_jobs):
    found = predict(load_calculator(TOY, {"shift": 0.5}, n_jobs=n_jobs), crystals)
    for k, atoms in enumerate(crystals):
        energy, forces, stress = direct(calculators.Toy(shift=0.5), atoms)
        assert found["energy_per_atom_ev"][k] == pytest.approx(energy, abs=1e-12)
        np.testing.assert_allclose(found["forces_ev_per_a"][k], forces, atol=1e-12)
        np.testing.assert_allclose(found["stress_gpa"][k], stress, atol=1e-10)
    assert found["refused"] == {}
    assert found["absent"] == ("magmoms",)


def test_a_calculator_object_is_a_model_as_it_is(crystals):
    by_object = predict(calculators.Toy(), crystals)
    by_path = predict(load_calculator(TOY), crystals)
    by_function = predict(load_calculator(calculators.make_toy), crystals)
    for other in (by_path, by_function):
        np.testing.assert_array_equal(by_object["energy_per_atom_ev"], other["energy_per_atom_ev"])


def test_the_route_over_a_calculator_gives_chgnets_own_numbers():
    frames = small_frames(8)
    model = xf.load_model("r2scan")
    flat, routed = (predict(m, frames.crystals) for m in (model, xf.CHGNetCalculator(model)))
    # float32: the route is the same function, in batches of another size
    np.testing.assert_allclose(routed["energy_per_atom_ev"], flat["energy_per_atom_ev"], atol=2e-6)
    for one, other in zip(routed["forces_ev_per_a"], flat["forces_ev_per_a"], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    np.testing.assert_allclose(routed["stress_gpa"], flat["stress_gpa"], atol=2e-3)
    for one, other in zip(routed["magmoms_mub"], flat["magmoms_mub"], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_chgnets_own_calculator_is_taken_too():
    frames = small_frames(4)
    stock = load_calculator("chgnet.model.dynamics:CHGNetCalculator", {"use_device": "cpu"})
    ours = predict(xf.load_model("0.3.0"), frames.crystals)
    theirs = predict(stock, frames.crystals)
    np.testing.assert_allclose(theirs["energy_per_atom_ev"], ours["energy_per_atom_ev"], atol=5e-6)
    for one, other in zip(theirs["magmoms_mub"], ours["magmoms_mub"], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5)
    assert theirs["absent"] == ()


@pytest.mark.parametrize(
    ("module", "path", "arguments"),
    [
        ("sevenn", "sevenn.calculator:SevenNetCalculator", {"model": "7net-mf-0", "modal": "R2SCAN", "device": "cpu"}),
        ("diep", "diep.pretrained:make_calculator", {}),
    ],
)
def test_other_potentials_where_they_are_installed(module, path, arguments, crystals):
    pytest.importorskip(module, reason=f"{module} is no dependency: its wheel is needed for this test alone")
    model = load_calculator(path, arguments)
    found = predict(model, crystals[:2])
    energy, forces, stress = direct(model.calculator, crystals[0])
    assert found["refused"] == {}
    assert found["energy_per_atom_ev"][0] == pytest.approx(energy, abs=1e-5)
    np.testing.assert_allclose(found["forces_ev_per_a"][0], forces, atol=1e-4)
    np.testing.assert_allclose(found["stress_gpa"][0], stress, atol=1e-3)
    assert -15 < energy < -2  # eV/atom of rock salt


def test_one_by_one_costs_what_ase_costs():
    frames = small_frames(12)
    calculator = xf.CHGNetCalculator("0.3.0")
    atoms = [s.to_ase_atoms() for s in frames.crystals.to_structures()]
    model = as_model(calculator)

    def by_hand():
        for one in atoms:
            calculator.reset()
            direct(calculator, one)

    seconds = {}
    for name, work in (("ase", by_hand), ("route", lambda: predict(model, frames.crystals))):
        runs = []
        for _ in range(3):
            clock = time.process_time()
            work()
            runs.append(time.process_time() - clock)
        seconds[name] = min(runs)
    assert seconds["route"] < 1.5 * seconds["ase"]


# --- evaluate, relax ---


def labelled_by(calculator, frames):
    """The frames with another model's predictions for labels."""
    found = predict(calculator, frames.crystals)
    return with_labels(
        frames,
        energy_per_atom_ev=found["energy_per_atom_ev"],
        forces_ev_per_a=np.concatenate(found["forces_ev_per_a"]).astype(np.float32),
        stress_gpa=found["stress_gpa"].astype(np.float32),
    )


def test_evaluate_takes_a_calculator():
    frames = labelled_by(calculators.Toy(), small_frames(10))
    measured = xf.evaluate(load_calculator(TOY, {"shift": 0.25}), frames)
    assert measured["energy_mae_mev_per_atom"] == pytest.approx(250)
    assert measured["force_mae_mev_per_a"] == pytest.approx(0, abs=1e-3)
    assert measured["stress_mae_gpa"] == pytest.approx(0, abs=1e-4)
    assert measured["magmom_mae_mub"] is None  # it has no moments, though the frames are labelled
    assert measured["refused"] == {}


def test_evaluate_without_stress_measures_the_rest():
    frames = labelled_by(calculators.Toy(), small_frames(6))
    measured = xf.evaluate(calculators.NoStress(), frames)
    assert measured["stress_mae_gpa"] is None
    assert measured["not_predicted"] == ["stress_mae_gpa", "magmom_mae_mub"]
    assert measured["force_mae_mev_per_a"] == pytest.approx(0, abs=1e-3)


def test_a_frame_that_failed_does_not_spoil_the_next_of_the_same_elements():
    frames = small_frames(20)
    with_iron = [int(k) for k in frames.frames_with("Fe")]
    twice = frames.crystals.take(np.repeat(with_iron, 2))
    found = predict(calculators.Remembers(), twice, strict=False)
    assert sorted(found["refused"]) == list(range(len(twice)))
    assert all("KeyError: 'Fe'" in reason for reason in found["refused"].values())


def test_a_frame_that_fails_is_told_and_the_others_count():
    frames = labelled_by(calculators.Toy(), small_frames(20))
    with_iron = set(frames.frame_ids[frames.frames_with("Fe")])
    assert 0 < len(with_iron) < 20
    measured = xf.evaluate(load_calculator("calculators:KnowsNoIron"), frames)
    assert set(measured["refused"]) == with_iron
    assert all("KeyError: 'Fe'" in reason for reason in measured["refused"].values())
    assert measured["n_frames"] == 20 - len(with_iron)
    assert measured["energy_mae_mev_per_atom"] == pytest.approx(0, abs=1e-6)


def test_a_calculator_that_fails_everywhere_is_an_error_with_the_first_reason():
    frames = small_frames(4)
    with pytest.raises(EvaluationError, match=r"none of 4 frames .* not what ASE calculators return: ValueError"):
        xf.evaluate(calculators.WrongShape(), frames)


def test_relax_takes_a_calculator_and_follows_ase(crystals):
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = crystals[0].copy()
    relaxed = xf.relax(load_calculator(TOY), [atoms], fmax=0.005)
    assert relaxed.status.tolist() == ["converged"]
    atoms.calc = calculators.Toy()
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=500)
    assert relaxed.energy_per_atom_ev[0] == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-5)


def test_relaxing_without_stress_keeps_the_cell_or_says_so(crystals):
    with pytest.raises(CalculatorError, match=r"NoStress has no stress: keep the cells as they are \(cell=False\)"):
        xf.relax(calculators.NoStress(), crystals[:1])
    relaxed = xf.relax(calculators.NoStress(), crystals[:1], cell=False)
    np.testing.assert_array_equal(relaxed.crystals.lattices_a[0], crystals[0].cell.array)


# --- several processes ---


def test_a_process_that_dies_costs_one_frame(crystals):
    model = load_calculator("calculators:Dies", n_jobs=2)
    found = predict(model, crystals, strict=False)
    assert list(found["refused"]) == [3]
    assert "crystal 3 (Cu4): the calculator's process ended without an answer" in found["refused"][3]
    expected = predict(calculators.Toy(), crystals)["energy_per_atom_ev"]
    others = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(found["energy_per_atom_ev"][others], expected[others], atol=1e-12)


def test_several_processes_need_a_calculator_that_can_be_sent(crystals):
    given = as_model(calculators.Unpicklable()).with_jobs(2)
    with pytest.raises(CalculatorError, match=r"cannot be sent to other processes .*: use one process, or give its"):
        predict(given, crystals)
    model = load_calculator("calculators:Unpicklable", n_jobs=2)  # its path can
    assert np.isfinite(predict(model, crystals)["energy_per_atom_ev"]).all()


def test_threads_take_turns(crystals):
    model = load_calculator("calculators:OneThread")
    found = {}

    def work(k):
        found[k] = predict(model, crystals)["energy_per_atom_ev"]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(3):
        np.testing.assert_array_equal(found[k], found[0])
        assert (np.abs(found[k]) < 1e3).all()


# --- what cannot be used ---


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("no_such_package.calc:Calc", {}, r"no module 'no_such_package' here; install the package that has it"),
        ("calculators:Nothing", {}, r"calculators has no 'Nothing'; mend the name"),
        ("calculators:not_callable", {}, r"a int, not a class or function"),
        ("calculators:make_toy", {"a": 1}, r"cannot be built: TypeError: make_toy\(\)"),
        ("calculators:NoEnergy", {}, r"has no energy"),
        ("collections:OrderedDict", {}, r"makes a OrderedDict, which is no ASE calculator"),
        ("my_folder/calc.py:Calc", {}, r"write package.module:name"),
        ("calculators", {}, r"write package.module:name"),
        ("calculators:Downloads", {}, r"wants to download from weights.example.invalid: fetch its files first"),
    ],
)
def test_a_calculator_that_cannot_be_used_says_so_in_one_sentence(path, arguments, message):
    with pytest.raises(CalculatorError, match=message) as caught:
        load_calculator(path, arguments)
    assert "\n" not in str(caught.value)


def test_an_import_that_lacks_another_package_names_that_one(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import a_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CalculatorError, match=r"no module 'a_missing_dependency' here; half_installed needs it"):
        load_calculator("half_installed:Calc")


def test_a_download_in_the_middle_is_refused_too(crystals):
    found = predict(load_calculator("calculators:Downloads", {"when": "later"}), crystals[:1], strict=False)
    assert "it wants to reach weights.example.invalid (allow it with --allow-download)" in found["refused"][0]


def test_only_the_thread_that_builds_is_off_the_network():
    import socket

    def look_up():
        try:
            socket.getaddrinfo("weights.example.invalid", 80)
        except ConnectionRefusedError:
            seen.append("refused")
        except OSError:
            seen.append("asked")

    for allowed, expected in ((False, ["refused", "asked"]), (True, ["asked", "asked"])):
        seen = []
        with without_network(allowed):
            look_up()
            other = threading.Thread(target=look_up)
            other.start()
            other.join()
        assert seen == expected
    seen = []
    look_up()
    assert seen == ["asked"]


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[1]", "not a JSON object"), ("3", "not a JSON")])
def test_arguments_are_a_json_object(text, message):
    with pytest.raises(CalculatorError, match=message):
        parse_arguments(text)
    assert parse_arguments(None) == {}


def test_values_that_are_not_finite_refuse_the_frame(crystals):
    found = predict(calculators.NotFinite(), crystals, strict=False)
    assert list(found["refused"]) == [1]
    assert "(OMg): forces not finite" in found["refused"][1]
    assert np.isnan(found["energy_per_atom_ev"][1])
    with pytest.raises(CalculatorError, match=r"NotFinite: crystal 1 \(OMg\): forces not finite"):
        predict(calculators.NotFinite(), crystals)


def test_a_model_is_built_when_it_is_named_and_once(monkeypatch):
    built = []
    monkeypatch.setattr(calculators.Toy, "__init__", _counting(calculators.Toy.__init__, built))
    model = load_calculator(TOY)
    predict(model, [bulk("Cu", "fcc", a=3.6)])
    predict(model.with_jobs(1), [bulk("Cu", "fcc", a=3.6)])
    assert len(built) == 1


def _counting(original, built):
    def init(self, *args, **kwargs):
        built.append(1)
        original(self, *args, **kwargs)

    return init


def test_crossfunc_is_imported_without_the_other_potentials():
    import subprocess

    code = "import sys, crossfunc.potential; print([m for m in ('sevenn', 'diep', 'ase') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the command line ---


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def small_dataset(tmp_path_factory):
    """A dataset of two dozen strained crystals of the embedded one."""
    surrogate = open_dataset("surrogate", verify=False)
    table = surrogate.frames
    columns = (table[name].to_pylist() for name in ("atomic_numbers", "source", "functional"))
    rows = [
        k
        for k, (numbers, source, functional) in enumerate(zip(*columns, strict=True))
        if len(numbers) <= 4 and source == "dense: strained" and functional == "r2scan"
    ]
    meta = {k: v for k, v in surrogate.meta.items() if k not in ("files", "generator")}
    out = tmp_path_factory.mktemp("data") / "few"
    write_dataset(out, meta=meta | {"name": "few"}, frames=table.take(rows[:24]))
    return out


def test_evaluate_on_the_command_line(small_dataset):
    done = run("evaluate", "--calculator", "calculators:Talks", "--calculator-args", "{}", "--dataset",
               str(small_dataset), "--functional", "r2scan", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    measured = json.loads(done.stdout)  # what the calculator prints stays out of it
    assert measured["model"] == "calculators:Talks {}"
    assert measured["n_frames"] > 0


def test_the_command_line_wants_one_model(small_dataset):
    for given, message in (
        ((), "give one model"),
        (("--model", "0.3.0", "--calculator", TOY), "give one model"),
        (("--model", "0.3.0", "--calculator-args", "{}"), "--calculator-args belongs to --calculator"),
        (("--calculator", "no_such:Thing"), "no module 'no_such'"),
        (("--calculator", TOY, "--calculator-args", "{"), "not JSON"),
    ):
        done = run("evaluate", "--dataset", str(small_dataset), *given)
        assert done.exit_code == 1
        assert message in done.output


def test_data_check_compares_labels_with_a_calculator(small_dataset):
    chgnet = ("--calculator", "crossfunc.potential.calculator:CHGNetCalculator")
    done = run("data", "check", str(small_dataset), *chgnet, "--calculator-args", '{"model": "r2scan"}')
    assert done.exit_code == 0, done.output
    assert "r2scan stress_gpa: GPa, tension positive, as measured: 1 x the model's" in done.output
    refused = run("data", "check", str(small_dataset), "--calculator", TOY, "--no-model")
    assert refused.exit_code == 1
    assert "leave --no-model and --no-labels out" in refused.output


def test_an_ase_model_says_what_it_can():
    model = AseModel(calculators.NoStress, "mine")
    assert model.can("forces")
    assert not model.can("stress")


# --- element references and hulls of a calculator ---


def test_atomref_of_a_model_are_offsets_by_least_squares(small_dataset):
    done = run("atomref", str(small_dataset), "--calculator", TOY, "--functional", "r2scan", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    frames = xf.LabelledFrames.from_dataset(small_dataset, "r2scan")
    difference = frames.energy_per_atom_ev - predict(calculators.Toy(), frames.crystals)["energy_per_atom_ev"]
    expected = xf.fit_atomref(frames.composition, difference, material_ids=frames.material_ids).report()
    assert len(expected) > 5
    for symbol, value in zip(expected.index, expected["energy_ev"], strict=True):
        assert found["elements"][symbol]["energy_ev"] == pytest.approx(value, abs=1e-6)


@pytest.fixture
def entries_file(tmp_path):
    """Three crystals as pymatgen entries with structures; their own energies are nonsense."""
    from pymatgen.entries.computed_entries import ComputedStructureEntry
    from pymatgen.io.ase import AseAtomsAdaptor

    made = [bulk("Na", "bcc", a=4.2), bulk("Al", "fcc", a=4.0), bulk("NaAl", "cesiumchloride", a=3.4)]
    rows = [
        ComputedStructureEntry(AseAtomsAdaptor.get_structure(atoms), 99.0, entry_id=f"e{k}").as_dict()
        for k, atoms in enumerate(made)
    ]
    file = tmp_path / "entries.json"
    file.write_text(json.dumps(rows, default=float))
    return file, made


def test_a_hull_of_a_calculators_own_energies(entries_file):
    file, made = entries_file
    done = run("hull", str(file), "--calculator", TOY, "--json")
    assert done.exit_code == 0, done.output
    sodium, aluminium, alloy = (direct(calculators.Toy(), atoms)[0] for atoms in made)
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    by_hand = alloy - (sodium + aluminium) / 2
    assert rows["e2"]["decomposition_energy_ev_per_atom"] == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("option", [("--functional", "gga"), ("--energy-kind", "mp2020")])
def test_a_hull_of_a_models_own_energies_takes_none_of_the_file(entries_file, option):
    done = run("hull", str(entries_file[0]), "--calculator", TOY, *option)
    assert done.exit_code == 1
    assert "--functional and --energy-kind say which energies of the files to take" in done.output


def test_arguments_of_a_calculator_without_one_are_refused(entries_file, small_dataset):
    for command in (("hull", str(entries_file[0])), ("advise", "PBE", "r2SCAN"), ("data", "check", str(small_dataset))):
        done = run(*command, "--calculator-args", "{}")
        assert done.exit_code == 1
        assert "--calculator-args belongs to --calculator, which is not given" in done.output


def test_advice_on_a_calculator_is_told_its_functional_and_no_second_model(monkeypatch, tmp_path):
    from crossfunc import advice

    asked = []
    monkeypatch.setattr(advice, "advise", lambda *args, **options: asked.append((args, options)) or "done")
    assert run("advise", "PBE", "r2SCAN", "--calculator", TOY).output.strip() == "done"
    (model, high), options = asked.pop()
    assert (type(model), high, options["low_functional"]) == (AseModel, "r2SCAN", "PBE")
    assert run("advise", "PBE", "r2SCAN").exit_code == 0
    assert asked.pop()[1]["low_functional"] is None
    (tmp_path / "model.pt").touch()
    for low, more, message in (
        ("0.3.0", (), "0.3.0 is a model, and so is --calculator"),
        (str(tmp_path / "model.pt"), (), "is a model, and so is --calculator"),
        ("PBE", ("--pilot", "2"), "--pilot fine-tunes a CHGNet"),
    ):
        done = run("advise", low, "r2SCAN", "--calculator", TOY, *more)
        assert done.exit_code == 1
        assert message in " ".join(done.output.split())
    assert asked == []


def test_entries_without_a_structure_are_named(entries_file):
    file, _ = entries_file
    rows = json.loads(file.read_text())
    del rows[1]["structure"]
    file.write_text(json.dumps(rows))
    done = run("hull", str(file), "--calculator", TOY)
    assert done.exit_code == 1
    assert "e1 has no ordered structure, so no model can predict its energy" in done.output


def test_an_entry_whose_structure_is_of_another_composition_is_named(entries_file):
    file, _ = entries_file
    rows = json.loads(file.read_text())
    rows[1]["structure"], rows[2]["composition"] = rows[0]["structure"], {"Na": 3.00001, "Al": 3.0}
    file.write_text(json.dumps(rows))
    done = run("hull", str(file), "--calculator", TOY)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "e1 says another composition than its structure has (the first: Al1" in said
    assert "the structure is Na1" in said
    rows[1]["composition"] = {"Na": 4.0}
    file.write_text(json.dumps(rows))
    table, _ = entries_by_model(calculators.Toy(), file, name="toy")
    assert table.ids.tolist() == ["e0", "e1", "e2"]


def test_entries_that_a_calculator_fails_on_are_left_out_and_named(entries_file):
    file, made = entries_file
    table, refused = entries_by_model(calculators.KnowsNoSodium(), file, name="toy")
    assert table.ids.tolist() == ["e1"]
    assert set(table.functional) == {"predicted by toy"}
    assert table.energy_per_atom_ev[0] == pytest.approx(direct(calculators.Toy(), made[1])[0])
    assert list(refused) == ["e0", "e2"]
    assert "KeyError: 'Na'" in refused["e0"]
    with pytest.raises(HullError, match="toy can predict none of 3 entries; the first, e0"):
        entries_by_model(calculators.WrongShapeEnergy(), file, name="toy")
