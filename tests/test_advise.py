"""`crossfunc advise` on embedded data, and its choice of crystals on made-up ones."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from calculators import KnowsNo, NoForces, Toy

import crossfunc as xf
from crossfunc.advice.advise import _cost, _force_task, _labelled, _method, _models_apart
from crossfunc.advice.curves import force_task
from crossfunc.advice.next_frames import Pool, choose_next
from crossfunc.datasets.store import PACKAGED
from crossfunc.errors import InputError
from crossfunc.symbols import ATOMIC_NUMBERS
from crossfunc.training.evaluate import predict_frames


def pool(features, fractions, material_ids=None):
    """Crystals of which each is a material of its own, unless said otherwise."""
    ids = [f"m{k}" for k in range(len(features))] if material_ids is None else material_ids
    return Pool(np.asarray(features), fractions, np.array(ids))


def fractions(*formulas):
    X = np.zeros((len(formulas), 94))
    for row, symbols in zip(X, formulas, strict=True):
        for symbol in symbols:
            row[ATOMIC_NUMBERS[symbol] - 1] += 1 / len(symbols)
    return X


def test_an_element_without_labels_comes_first_then_what_is_unlike_the_labelled():
    rng = np.random.default_rng(0)
    labelled = pool(rng.normal(size=(6, 3)), fractions(*[["Mg", "O"]] * 3, *[["Ca", "O"]] * 3))
    far = pool(np.vstack([labelled.features[0], labelled.features[0] + 9, labelled.features[0]]),
               fractions(["Mg", "O"], ["Mg", "O"], ["U", "O"]))  # fmt: skip
    chosen = choose_next(labelled, far, 3, left_ev=0.1)
    assert [one["row"] for one in chosen] == [2, 1, 0]
    assert chosen[0]["reason"] == "U: in nothing that is labelled"
    assert chosen[1]["reason"] == "unlike what is labelled"
    assert chosen[0]["unknown_ev_per_atom"] > chosen[1]["unknown_ev_per_atom"] > chosen[2]["unknown_ev_per_atom"]


@pytest.mark.parametrize(("n_materials", "is_few"), [(1, True), (2, True), (3, False)])
def test_few_labelled_materials_are_few_however_many_frames(n_materials, is_few):
    ids = [f"m{k % n_materials}" for k in range(30)]
    labelled = pool(np.zeros((30, 2)), fractions(*[["Mg", "O"]] * 30), ids)
    candidates = pool([[5.0, 0]], fractions(["Mg", "O"]), ["new"])
    (chosen,) = choose_next(labelled, candidates, 1, left_ev=0.1)
    assert (chosen["reason"] == "O, Mg: in fewer than 3 labelled materials") == is_few


def test_of_two_that_are_alike_only_one_is_chosen_first_and_disagreement_counts():
    labelled = pool(np.zeros((4, 2)), fractions(*[["Mg", "O"]] * 4))
    candidates = pool(np.array([[5.0, 0], [5.0, 0], [0, 5.0]]), fractions(*[["Mg", "O"]] * 3))
    assert {one["row"] for one in choose_next(labelled, candidates, 2, left_ev=0.1)} in ({0, 2}, {1, 2})
    chosen = choose_next(labelled, candidates, 1, left_ev=0.1, disagreement=[0.01, 0.01, 0.2])
    assert chosen[0]["row"] == 2
    assert "disagree" in chosen[0]["reason"]


def test_a_functional_stands_for_an_embedded_dataset_calculated_before_surrogates():
    assert _labelled("PBE", "r2SCAN").name == "pbe-r2scan"
    assert _labelled("GGA/GGA+U", PACKAGED / "surrogate").name == "surrogate"
    with pytest.raises(InputError, match="nor a functional"):
        _labelled("PBE", "HSE06")


def test_data_that_begin_with_the_functional_of_a_model_stand_in_first(monkeypatch):
    asked = []

    def labelled(low, high):
        asked.append((low, high))
        raise InputError("enough")

    monkeypatch.setattr(sys.modules[_labelled.__module__], "_labelled", labelled)
    model = NoForces()
    for options, low in (({}, model), ({"low_functional": "PBE"}, "PBE")):
        with pytest.raises(InputError, match="enough"):
            xf.advise(model, "r2SCAN", **options)
        assert asked.pop() == (low, "r2SCAN")


def test_the_method_follows_from_the_errors():
    judged = SimpleNamespace(functional={"spoken": None}, labels="r²SCAN")
    energy = {"needed": {"n_materials": {"middle": 100.0}}}
    refit = {"refit": True, "before_ev_per_atom": 2.0, "after_ev_per_atom": 0.05}
    assert _method(judged, refit, energy, 3.0)["key"] is None
    assert _method(judged, refit, energy, 0.06) == {
        "key": "model-aware", "reason": "new references alone reach it: no training", "train": False
    }  # fmt: skip
    assert _method(judged, refit, energy, 0.01)["train"]
    assert _method(judged, refit, energy, 0.01)["key"] == "model-aware-trained"
    assert _method(judged, refit, energy, 0.01, keep_source=True)["key"] == "replay"
    assert (
        _method(judged, refit, energy, 0.06, keep_source=True)["key"] == "model-aware"
    )  # what is not trained forgets nothing
    assert _method(judged, refit | {"refit": False}, energy, 0.01)["key"] == "3"


def test_hours_are_told_or_why_not():
    needed = {"n_frames": {"middle": 1.0, "low": 1.0, "high": 2.0}}
    calculator = xf.load_calculator("ase.calculators.emt:EMT")
    cost = _cost(calculator, xf.open_dataset("pbe-r2scan"), None, needed, None, 0)
    assert "own toolkit" in cost["why_not"]
    assert cost["label_hours_a_frame"] > 0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Thirty materials of the embedded dataset, and its other crystals without labels of the goal."""
    ds = xf.open_dataset("surrogate")
    frames = ds.frames
    keep = pc.is_in(frames["source"], pa.array(["dense: relaxed", "dense: rattled"]))
    frames = frames.filter(keep)
    names = np.unique(frames["material_id"].to_pylist())[::12]
    labelled = pc.or_(
        pc.is_in(frames["material_id"], pa.array(names[:30])),
        pc.and_(pc.is_in(frames["material_id"], pa.array(names[30:])), pc.equal(frames["functional"], "gga")),
    )
    meta = {k: v for k, v in ds.meta.items() if k != "files"}
    path = tmp_path_factory.mktemp("advise") / "small"
    return xf.write_dataset(path, meta=meta, frames=frames.filter(labelled))


@pytest.fixture
def quickly(monkeypatch):
    """Time training on four frames."""
    from crossfunc.advice import advise as home

    monkeypatch.setattr(sys.modules[home.__module__], "_TIMED_FRAMES", 4)


def test_advice_on_a_few_labels(small, quickly):
    advice = xf.advise("0.3.0", small, error_ev_per_atom=0.03, n_next=3)
    plain = json.loads(advice.to_json())
    assert plain["refit"]["refit"]
    assert plain["refit"]["after_ev_per_atom"] < 0.2 < plain["refit"]["before_ev_per_atom"]
    ahead = plain["forecasts"]["energy"]["ahead"]
    assert all(row["low"] < row["error"] < row["high"] for row in ahead)
    assert [row["n_materials"] for row in ahead] == [48, 96, 192]
    assert {"forces", "energy"} == set(plain["forecasts"])
    labelled = set(xf.LabelledFrames.from_dataset(small, "high").material_ids)
    assert len(plain["next_frames"]) == 3
    assert not labelled & {one["material_id"] for one in plain["next_frames"]}
    assert plain["cost"]["seconds_a_frame_and_epoch"] > 0
    text = str(advice)
    assert "label next" in text
    assert small.label_notice in text
    again = xf.advise("0.3.0", small, error_ev_per_atom=0.03, n_next=3)
    same = {k: v for k, v in again.to_dict().items() if k != "cost"}
    assert same == {k: v for k, v in advice.to_dict().items() if k != "cost"}


def test_bad_input_is_one_sentence(small):
    with pytest.raises(InputError, match="above zero"):
        xf.advise("0.3.0", small, error_ev_per_atom=0)


def test_forces_are_forecast_for_the_model_that_was_asked_about(small):
    reader, frames = xf.load_model("0.3.0"), xf.LabelledFrames.from_dataset(small, "high")
    found = predict_frames(reader, frames)
    own, nothing = _force_task(reader, found)
    assert nothing == {}
    np.testing.assert_allclose(own.model_ev_per_a, found.forces_ev_per_a, atol=1e-5)
    perfect = replace(found, forces_ev_per_a=frames.forces_ev_per_a.astype(float))
    materials = own.material_ids
    assert own.errors(materials[:20], materials[20:]).mean() > 1
    assert _force_task(reader, perfect)[0].errors(materials[:20], materials[20:]).max() < 1e-9


def test_atoms_without_a_prediction_are_in_no_force_curve(small):
    reader, frames = xf.load_model("0.3.0"), xf.LabelledFrames.from_dataset(small, "high")
    forces = np.full((len(frames.crystals.owners), 3), np.nan)
    known = np.isin(frames.material_ids, np.unique(frames.material_ids)[:5])[frames.crystals.owners]
    forces[known] = 0.1
    task = force_task(reader, frames, forces)
    assert task.material_ids.tolist() == np.unique(frames.material_ids)[:5].tolist()
    assert (task.model_ev_per_a == 0.1).all()
    found = predict_frames(Toy(), frames)
    assert "5 materials; a forecast needs 6" in _force_task(reader, replace(found, forces_ev_per_a=forces))[1]["forces"]


def test_without_forces_of_the_model_none_are_forecast_and_the_advice_says_so(small):
    advice = xf.advise(NoForces(), small, n_next=0)
    assert set(advice.forecasts) == {"energy"}
    assert advice.left_out == {"forces": "the model predicts none"}
    assert "forces: no forecast: the model predicts none" in str(advice)


def only_with(small, path, symbol, n_without):
    """The labelled materials of an element, and some of those that lack it."""
    frames = xf.LabelledFrames.from_dataset(small, "high")
    holds = frames.composition.toarray()[:, ATOMIC_NUMBERS[symbol] - 1] > 0
    names = [*np.unique(frames.material_ids[holds]), *np.unique(frames.material_ids[~holds])[:n_without]]
    table = small.frames.filter(pc.is_in(small.frames["material_id"], pa.array(names)))
    return xf.write_dataset(path, meta={k: v for k, v in small.meta.items() if k != "files"}, frames=table)


def test_refused_frames_and_their_materials_count_in_nothing(small, tmp_path):
    refusing = KnowsNo("O")
    frames = xf.LabelledFrames.from_dataset(small, "high")
    left = frames.composition.toarray()[:, ATOMIC_NUMBERS["O"] - 1] == 0
    advice = xf.advise(refusing, small, n_next=0).to_dict()
    n = len(np.unique(frames.material_ids[left]))
    assert (advice["n_frames"], advice["n_materials"]) == (left.sum(), n) != (len(frames), 30)
    needed = advice["forecasts"]["energy"]["needed"]
    assert needed["frames_per_material"] == pytest.approx(left.sum() / n)
    few = only_with(small, tmp_path / "few", "O", 5)
    with pytest.raises(InputError, match=r"predicts 5 of \d+ labelled materials; advice needs 6.*the first, "):
        xf.advise(refusing, few, n_next=0)


def test_models_that_differ_are_the_one_asked_about_and_another(small):
    crystals = xf.LabelledFrames.from_dataset(small, "high").take(np.arange(3)).crystals
    old, new = xf.load_model("0.3.0"), xf.load_model("r2scan")
    np.testing.assert_allclose(_models_apart(new, old, crystals), -_models_apart(old, old, crystals), atol=1e-5)
    assert np.abs(_models_apart(new, old, crystals)).max() > 0.1


@pytest.mark.slow
def test_a_pilot_scales_the_forecast(small, quickly):
    advice = xf.advise("0.3.0", small, n_next=0, pilot_epochs=1).to_dict()
    pilot = advice["forecasts"]["energy"]["pilot"]
    plain = xf.advise("0.3.0", small, n_next=0).to_dict()
    for row, other in zip(advice["forecasts"]["energy"]["ahead"], plain["forecasts"]["energy"]["ahead"], strict=True):
        assert row["error"] == pytest.approx(pilot["ratio"] * other["error"])
    assert advice["next_frames"] == []
