"""Killed twenty times at random, a run still ends at the very weights of a run that was left in peace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

N_KILLS = 20

# One process imports everything and forks a child for every attempt, so that a kill costs a second, not an import.
SCRIPT = """
import json, math, os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import pandas as pd, torch
torch.set_num_threads(1)
import lightning.pytorch
import crossfunc as xf
from crossfunc.training import finetune
from crossfunc.vendor import import_chgnet
from small_frames import small_frames
import_chgnet("chgnet.model")

folder, n_kills = sys.argv[2], int(sys.argv[3])
frames = small_frames(10, max_atoms=2)
split = {"train": [0, 1, 2, 3, 4, 5], "validation": [6, 7], "test": [8, 9]}

def fork(out):
    child = os.fork()
    if child:
        return child
    try:
        finetune(4, frames, split=split, out=out, n_epochs=40, batch_size=2, ema_decay=0.9, progress=False)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

def still_runs(child):
    assert os.waitpid(child, os.WNOHANG)[0] == 0, f"the run ended by itself before kill {len(written) + 1}"
    return True

def last_epoch(out):
    try:
        return int(pd.read_csv(f"{out}/history.csv")["epoch"].iloc[-1])
    except FileNotFoundError:
        return -1

clock = time.monotonic()
assert os.waitstatus_to_exitcode(os.waitpid(fork(f"{folder}/peace"), 0)[1]) == 0
seconds = pd.read_csv(f"{folder}/peace/history.csv")["seconds"]
start, epoch = time.monotonic() - clock - seconds.sum(), seconds.median()
random.seed(0)
out, written = f"{folder}/killed", []
# A kill waits for an epoch to be written, not for a clock: a machine may be slower at one time than at another.
for moment in [31 * (k + random.random()) / n_kills - 1 for k in range(n_kills)]:
    goal = math.floor(moment)
    # Most fall into the epoch after their goal; where an earlier attempt has reached it, between start and next epoch.
    delay = (moment - goal) * (start if last_epoch(out) >= goal else epoch)
    child = fork(out)
    while still_runs(child) and last_epoch(out) < goal:
        time.sleep(0.005)
    reached, deadline = last_epoch(out), time.monotonic() + delay
    while still_runs(child) and last_epoch(out) <= reached and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    written.append(last_epoch(out))
assert os.waitstatus_to_exitcode(os.waitpid(fork(out), 0)[1]) == 0
print(json.dumps(written))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(folder), str(N_KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_it_was_killed_twenty_times_in_many_epochs(killed):
    written = killed[1]
    assert len(written) == N_KILLS
    assert len(set(written)) >= 12, written


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_the_final_weights_are_bit_identical(killed, name):
    import torch

    peace, other = (torch.load(killed[0] / run / name, weights_only=True) for run in ("peace", "killed"))
    for key, tensor in peace["model"]["state_dict"].items():
        assert torch.equal(tensor, other["model"]["state_dict"][key]), key


def test_the_history_has_neither_holes_nor_repeats(killed):
    import pandas as pd

    peace, other = (pd.read_csv(killed[0] / run / "history.csv").drop(columns="seconds") for run in ("peace", "killed"))
    assert other["epoch"].tolist() == list(range(41))
    pd.testing.assert_frame_equal(other, peace, check_exact=True)


def test_the_metrics_are_the_same(killed):
    peace, other = (json.loads((killed[0] / run / "run.json").read_text()) for run in ("peace", "killed"))
    assert peace["metrics"] == other["metrics"]
