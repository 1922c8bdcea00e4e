"""Runs of the methods after the paper: killed they end at the same bits, and two processes are one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossfunc.training import METHODS, STARTS

LATER = [key for key in METHODS if key not in STARTS]

# One process imports everything and forks a child for every run, so that a kill costs a second, not an import.
KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import lightning.pytorch
from lightning.pytorch.callbacks import Callback
from crossfunc.training import finetune
from crossfunc.vendor import import_chgnet
from small_frames import small_frames
import_chgnet("chgnet.model")

folder, keys = sys.argv[2], sys.argv[3:]
frames = small_frames(10, max_atoms=2)
split = {"train": [0, 1, 2, 3, 4, 5], "validation": [6, 7], "test": [8, 9]}

class Kill(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 2 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)

def run(key, out, callbacks=()):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        settings = {"n_epochs": 4, "batch_size": 2, "ema_decay": 0.9, "progress": False}
        finetune(key, frames, split=split, out=out, callbacks=callbacks, **settings)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

codes = {key: [run(key, f"{folder}/{key}/peace"), run(key, f"{folder}/{key}/killed", [Kill()]),
               run(key, f"{folder}/{key}/killed")] for key in keys}
print(json.dumps(codes))
"""

PARALLEL = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import numpy as np
from small_frames import frames_without_angles, joined, small_frames
from crossfunc.training import finetune
from crossfunc.training.fit import is_first_process

folder, devices, keys = sys.argv[2], int(sys.argv[3]), sys.argv[4:]
frames = joined(small_frames(9, max_atoms=2), frames_without_angles(6))
order = np.random.default_rng(0).permutation(15)
split = {"train": order[:9], "validation": order[9:12], "test": order[12:]}
for key in keys:
    settings = {"n_epochs": 2, "batch_size": 4, "precision": "64", "accelerator": "cpu", "progress": False}
    result = finetune(key, frames, split=split, out=f"{folder}/{key}", devices=devices, **settings)
    if is_first_process():
        torch.save(result.last_model.state_dict(), f"{folder}/{key}.weights")
"""


def run_script(text, folder, *arguments):
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CROSSFUNC_DATA": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    return folder, json.loads(run_script(KILLED, folder, *LATER).splitlines()[-1])


@pytest.mark.parametrize("key", LATER)
def test_a_run_that_was_killed_ends_at_the_same_bits(killed, key):
    from crossfunc.potential import load_model

    folder, codes = killed
    assert codes[key] == [0, -9, 0]
    peace, other = (folder / key / name for name in ("peace", "killed"))
    names = {file.name for file in peace.iterdir() if file.suffix in (".pt", ".safetensors")}
    assert len(names) >= 2
    for name in names:
        one, two = (load_model(run / name).state_dict() for run in (peace, other))
        assert all((tensor == two[entry]).all() for entry, tensor in one.items()), name
    rows = [
        [line.rpartition(",")[0] for line in (run / "history.csv").read_text().splitlines()] for run in (peace, other)
    ]
    assert rows[0] == rows[1]  # all but the seconds


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """Weights and folders of the same runs by one process and by two, which Lightning starts."""
    folders = [tmp_path_factory.mktemp(f"devices-{n}") for n in (1, 2)]
    for n, folder in enumerate(folders, start=1):
        run_script(PARALLEL, folder, str(n), *LATER)
    return folders


@pytest.mark.parametrize("key", LATER)
def test_two_processes_are_one(parallel, key):
    import pandas as pd
    import torch

    one, two = (torch.load(folder / f"{key}.weights", weights_only=True) for folder in parallel)
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-9
    losses = [pd.read_csv(folder / key / "history.csv")["train_loss"].iloc[1:] for folder in parallel]
    assert losses[0].tolist() == pytest.approx(losses[1].tolist(), rel=1e-9)
