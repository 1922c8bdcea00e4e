"""Two processes against one with the joined batch: the same losses and weights, whatever each of them gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import numpy as np
from small_frames import frames_without_angles, joined, small_frames, thirds
from crossfunc.training import finetune
from crossfunc.training.fit import is_first_process

folder, devices = sys.argv[2], int(sys.argv[3])
frames = joined(small_frames(13), frames_without_angles(9))
order = np.random.default_rng(0).permutation(22)
# 14 to train: steps of 4 leave 2; steps of 3 give shares of 2 and 1; a last step of 1 leaves one process with nothing
split = {"train": order[:14], "validation": order[14:19], "test": order[19:]}
for name, settings in {
    "double": {"precision": "64", "batch_size": 4},
    "uneven": {"precision": "64", "batch_size": 13, "gradient_clip": 0.5, "ema_decay": 0.5},
    "one-each": {"precision": "64", "batch_size": 2, "max_steps": 9},
    "single": {"precision": "32", "batch_size": 3},
}.items():
    settings = {"n_epochs": 2, "devices": devices, "accelerator": "cpu", "progress": False, **settings}
    result = finetune(2, frames, split=split, out=f"{folder}/{name}", **settings)
    if is_first_process():
        torch.save(result.last_model.state_dict(), f"{folder}/{name}.weights")
again = finetune(2, frames, split=split, out=f"{folder}/{name}", **settings)
assert again.metrics == result.metrics
"""

TIMELESS = ["train_loss", "validation_loss", "gradient_norm", "train_energy_mae_mev_per_atom", "train_stress_mae_gpa"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same runs with one process and with two, which Lightning starts."""
    folders = []
    for devices in (1, 2):
        folder = tmp_path_factory.mktemp(f"devices-{devices}")
        script = folder / "train.py"
        script.write_text(SCRIPT)
        command = [sys.executable, str(script), str(Path(__file__).parent), str(folder), str(devices)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        folders.append(folder)
    return folders


def history(folder, name):
    import pandas as pd

    return pd.read_csv(folder / name / "history.csv")


def largest_difference(runs, name):
    import torch

    one, two = (torch.load(folder / f"{name}.weights", weights_only=True) for folder in runs)
    return max((one[key] - two[key]).abs().max().item() for key in one)


@pytest.mark.parametrize("name", ["double", "uneven", "one-each"])
def test_in_double_precision_two_processes_are_one(runs, name):
    one, two = (history(folder, name) for folder in runs)
    np.testing.assert_allclose(two[TIMELESS], one[TIMELESS], rtol=1e-9)
    assert largest_difference(runs, name) < 1e-9


def test_in_single_precision_they_differ_by_rounding(runs):
    one, two = (history(folder, "single") for folder in runs)
    np.testing.assert_allclose(two[TIMELESS], one[TIMELESS], rtol=1e-4)
    assert largest_difference(runs, "single") < 1e-4


@pytest.mark.parametrize("name", ["double", "uneven", "one-each", "single"])
def test_metrics_count_every_frame_once(runs, name):
    one, two = (json.loads((folder / name / "run.json").read_text())["metrics"] for folder in runs)
    for part in ("validation", "test"):
        assert two[part] == pytest.approx(one[part], rel=1e-4)


def test_only_the_first_process_writes_and_nothing_else_appears(runs):
    names = {"run.json", "history.csv", "last.ckpt", "best.pt", "best.safetensors", "last.pt"}
    for folder in runs:
        assert {file.name for file in (folder / "double").iterdir()} == names
        assert {file.name for file in folder.iterdir() if file.is_dir()} == {"double", "uneven", "one-each", "single"}
