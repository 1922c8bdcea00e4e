"""What makes a run this one, which files its models have, and a result read back from them."""

import dataclasses
import json
import types

import numpy as np
import pandas as pd
import pytest
from small_frames import small_frames, thirds, with_labels

from crossfunc.potential import Crystals
from crossfunc.training import LabelledFrames, result
from crossfunc.training.forgetting import COUNTS, Forgetting
from crossfunc.training.methods import METHODS
from crossfunc.training.run_folder import RunError, describe_run, model_files
from crossfunc.training.settings import Settings
from crossfunc.training.source import join_frames
from crossfunc.training.strategies import Strategy

SPLIT = thirds(6)
DEFAULTS = Settings()


def test_models_have_a_file_for_stock_chgnet_where_it_can_hold_them():
    assert model_files(Strategy()) == (("best.pt", "best.safetensors"), ("last.pt",))
    assert not METHODS["delta"].strategy.stock
    assert model_files(METHODS["delta"].strategy) == (("best.safetensors",), ("last.safetensors",))


def describe(method="4", frames=None, split=SPLIT, settings=DEFAULTS, **changed):
    about = {"functional": "r2scan", "pretrained": "0.3.0", "references": None, "name": "toy"} | changed
    return describe_run(METHODS[method], settings, frames or small_frames(6), split, **about)


def test_a_run_is_described_in_plain_values():
    about = describe()
    assert json.loads(json.dumps(about)) == about
    given = ("method", "options", "functional", "pretrained", "references", "prior", "source", "resumed", "metrics")
    assert [about[key] for key in given] == ["4", None, "r2scan", "0.3.0", None, "auto", None, [], None]
    assert about["data"] == {"name": "toy", "n_frames": 6, "fingerprint": small_frames(6).fingerprint()}
    assert {part: rows["n_frames"] for part, rows in about["split"].items()} == {"train": 4, "validation": 1, "test": 1}
    assert about["settings"] == DEFAULTS.to_dict()
    assert "learning_rates" not in about  # a folder from before they were written down is the same run
    one, same, other = (describe(learning_rates=rates)["learning_rates"] for rates in ([1, 2], [1.0, 2.0], [1, 3]))
    assert one == same != other
    assert describe("lora")["options"] == METHODS["lora"].strategy.describe()


def differing(*changed):
    """Keys that two descriptions do not share."""
    one, other = changed
    return {key for key in one | other if one.get(key) != other.get(key)}


def test_a_run_is_another_one_by_what_differs_and_by_nothing_else():
    frames, references = small_frames(6), types.SimpleNamespace(energies_ev=np.arange(94.0))
    first = describe()
    assert differing(first, describe()) == set()
    assert differing(first, describe("3")) == {"method"}
    assert differing(first, describe(functional="pbe")) == {"functional"}
    assert differing(first, describe(pretrained="r2scan")) == {"pretrained"}
    assert differing(first, describe(prior="none")) == {"prior"}
    assert differing(first, describe(references=references)) == {"references"}
    assert describe(references=references)["references"] == describe(references=references.energies_ev)["references"]
    assert differing(first, describe(settings=dataclasses.replace(DEFAULTS, batch_size=3))) == {"settings"}
    turned = describe(split={**SPLIT, "train": SPLIT["train"][::-1]})
    assert differing(first, turned) == {"split"}
    assert differing(first["split"], turned["split"]) == {"train"}
    moved = describe(frames=with_labels(frames, energy_per_atom_ev=frames.energy_per_atom_ev + 1))
    assert differing(first["data"], moved["data"]) == {"fingerprint"}
    source = types.SimpleNamespace(functional="pbe", pool=frames.take([0]))
    expected = {"functional": "pbe", "fingerprint": frames.take([0]).fingerprint()}
    assert describe(source=source)["source"] == expected


# --- a result read back ---


HISTORY = "epoch,step,validation_loss\n0,0,3.0\n1,2,1.0\n2,4,2.0\n"
FINISHED = {"metrics": {"test": {"n_frames": 1}}, "seconds": 7.5, "notes": ["one", "two"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(result, "_read_model", lambda path: f"model of {path.name}")
    (tmp_path / "history.csv").write_text(HISTORY)
    names = {"best_files": ("best.pt", "best.safetensors"), "last_files": ("last.pt",)}
    return types.SimpleNamespace(path=tmp_path, **names)


def test_a_result_is_read_back_from_its_files(folder):
    found = result.read_back(folder, FINISHED, METHODS["4"], DEFAULTS, SPLIT)
    assert (found.model, found.last_model, found.source_model) == ("model of best.pt", "model of last.pt", None)
    assert (found.metrics, found.seconds, found.notes) == (FINISHED["metrics"], 7.5, ("one", "two"))
    assert (found.out, found.references, found.forgetting) == (folder.path, None, None)
    assert (found.method, found.settings, found.split) == (METHODS["4"], DEFAULTS, SPLIT)
    assert found.history["validation_loss"].tolist() == [3.0, 1.0, 2.0]
    assert found.best_epoch == 1


def test_what_a_run_has_beside_its_models_is_read_back_too(folder):
    (folder.path / "best-source.pt").touch()
    counts = {column: [3] for column in COUNTS.values()}
    forgotten = Forgetting(pd.DataFrame({"n_frames": [3], **counts}, index=["near"]), ("a note",)).to_dict()
    found = result.read_back(folder, FINISHED | {"forgetting": forgotten}, METHODS["4"], DEFAULTS, SPLIT)
    assert found.source_model == "model of best-source.pt"
    assert found.forgetting.to_dict() == forgotten


@pytest.mark.parametrize("text", [None, "", HISTORY[:-1], HISTORY.replace("step", "steps"), HISTORY.split("0")[0]])
def test_a_history_that_is_not_whole_is_named(folder, text):
    file = folder.path / "history.csv"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(RunError, match=r"history\.csv: missing or damaged; delete the folder"):
        result.read_back(folder, FINISHED, METHODS["4"], DEFAULTS, SPLIT)


# --- frames of several sets ---


def test_frames_of_several_sets_stand_one_after_another():
    frames = small_frames(6)
    joined = join_frames(frames.take([4, 0]), frames.take([5]), frames.take([1, 2]))
    assert joined.fingerprint() == frames.take([4, 0, 5, 1, 2]).fingerprint()
    assert isinstance(joined, LabelledFrames)
    assert isinstance(joined.crystals, Crystals)
    assert joined.frame_ids.tolist() == frames.frame_ids[[4, 0, 5, 1, 2]].tolist()
    assert join_frames(frames).fingerprint() == frames.fingerprint()
