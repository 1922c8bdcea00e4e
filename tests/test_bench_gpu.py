"""The benchmark for a GPU, every part of it on the CPU, at a size for tests."""

import json
import math

import pytest
import torch

from crossfunc.bench import gpu
from crossfunc.bench.train import Step, frames_of

SMALL = gpu.Sizes(
    batches={"MgO": 2},
    batch_sizes=(1, 2),
    n_parity=3,
    n_predicted=4,
    n_chgnets=2,
    n_relaxed=2,
    relax_steps=3,
    n_atoms=64,
    copied_bytes=2**20,
    repeats=1,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    found = gpu.run("cpu", sizes=SMALL, out=out)
    assert json.loads(out.read_text()) == {key: value for key, value in found.items() if key != "seconds"}
    return found


def test_every_part_is_measured(report):
    assert report["device"] == "cpu"
    for part in gpu.PARTS:
        assert "not_measured" not in report[part], (part, report[part])
    said = gpu.format_report(report)
    assert "share of device" in said
    assert "chgnet" in said


def test_numbers_agree_to_the_rounding_of_their_type(report):
    assert all(error < 1e-9 for error in report["parity"]["cpu float64"].values())
    assert all(0 < error < 1e-2 for error in report["parity"]["cpu float32"].values())


def test_every_variant_of_a_step_is_timed_or_has_a_reason(report):
    step = report["training_step"]
    for variant in gpu.VARIANTS:
        assert variant in step["speedup"] or step["left_out"][variant], variant
    assert {"float32", "tf32"} <= step["speedup"].keys()
    assert step["left_out"]["graphs"] == "RuntimeError: only a GPU replays"
    assert step["as_good_as_float32"]["float32"]
    for name, n_frames in SMALL.batches.items():
        assert step["frames"][name] == n_frames
        assert all(ms > 0 for ms in step["ms_per_frame"][name].values())
    ratios = [ms["chgnet"] / ms["float32"] for ms in step["ms_per_frame"].values()]
    assert step["speedup"]["float32"] == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))


def test_a_part_that_fails_leaves_its_reason_and_the_others(monkeypatch):
    def fails(device, sizes):
        raise torch.cuda.OutOfMemoryError("no memory left\nand more")

    monkeypatch.setattr(gpu, "PARTS", {"parity": fails, "large_cell": gpu.large_cell})
    found = gpu.run("cpu", sizes=SMALL)
    assert found["parity"] == {"not_measured": "OutOfMemoryError: no memory left"}
    assert found["large_cell"]["n_atoms"] == 64
    assert gpu.run("cpu", sizes=SMALL, limit_s=-1)["large_cell"] == {"not_measured": "no time was left"}


def test_bytes_are_those_that_operations_read_and_write():
    a, b = torch.ones(1000), torch.ones(1000)
    assert gpu._count_bytes(lambda: a + b) == 3 * 4000
    assert gpu._count_bytes(lambda: a.view(10, 100)) == 0


def test_a_step_on_a_batch_that_is_kept_is_the_step():
    frames = frames_of("MgO", 2)
    fresh, kept = Step(frames), Step(frames, keep_batch=True)
    assert [fresh() for _ in range(3)] == [kept() for _ in range(3)]
