"""Steps: who sees which frame when, labels that follow their graphs, frames without a graph refused by name."""

import numpy as np
import pytest
import torch

from crossfunc.datasets import DatasetError
from crossfunc.potential import Crystals, load_model
from crossfunc.potential.forward import forward
from crossfunc.potential.graphs import GraphError, find_bonds
from crossfunc.training import batches
from crossfunc.training.batches import refuse_untrainable, step_loader, step_order
from crossfunc.training.labels import TARGETS, LabelledFrames
from crossfunc.training.loss import LossSettings, batch_loss


def make_frames(n=10, seed=0):
    """Rock salt cells of 2 atoms, every third doubled; energies are the frame numbers, some labels missing."""
    rng = np.random.default_rng(seed)
    crystals = []
    for k in range(n):
        coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) + rng.normal(0, 0.01, (2, 3))
        lattice = 0.5 * (4.2 + 0.02 * k) * (np.ones((3, 3)) - np.eye(3))
        numbers = [12, 8]
        if k % 3 == 0:
            coords = np.concatenate([coords / [2, 1, 1], coords / [2, 1, 1] + [0.5, 0, 0]])
            lattice, numbers = lattice * [[2], [1], [1]], numbers * 2
        crystals.append((numbers, coords, lattice))
    crystals = Crystals.from_arrays(crystals)
    owners = crystals.owners
    forces = (owners[:, None] + np.zeros(3)).astype(np.float32)
    stress = (np.arange(n)[:, None, None] + np.zeros((3, 3))).astype(np.float32)
    forces[np.isin(owners, [1, 4])], stress[2:3] = np.nan, np.nan
    magmoms = -owners.astype(np.float32)
    ids = np.array([f"f{k}" for k in range(n)])
    return LabelledFrames(crystals, np.arange(float(n)), forces, stress, magmoms, ids, ids)


@pytest.fixture(scope="module")
def frames():
    return make_frames()


def seen(loader):
    return [[int(k) for part in step.micro for k in part.indices] for step in loader]


# --- order ---


def test_the_order_is_a_pure_function_of_seed_and_epoch(frames):
    np.random.seed(1)  # noqa: NPY002, the global state must not matter
    torch.manual_seed(1)
    loader = step_loader(frames, np.arange(10), batch_size=3, seed=5)
    epochs = []
    for epoch in (0, 1, 2):
        loader.set_epoch(epoch)
        epochs.append(seen(loader))
    resumed = step_loader(frames, np.arange(10), batch_size=3, seed=5)
    resumed.set_epoch(2)
    assert seen(resumed) == epochs[2]
    assert epochs[0] != epochs[1] != epochs[2]
    other = step_loader(frames, np.arange(10), batch_size=3, seed=6)
    assert seen(other) != epochs[0]


def test_loading_does_not_touch_the_global_random_state(frames):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    seen(step_loader(frames, np.arange(4), batch_size=2))
    assert torch.equal(torch.rand(2), expected)


def test_every_frame_comes_once_an_epoch_and_the_small_last_step_is_kept(frames):
    loader = step_loader(frames, [9, 3, 5, 7, 1], batch_size=2, seed=0)
    steps = seen(loader)
    assert [len(step) for step in steps] == [2, 2, 1]
    assert len(loader) == 3
    assert sorted(k for step in steps for k in step) == [1, 3, 5, 7, 9]


def test_without_shuffling_the_order_is_the_one_given(frames):
    loader = step_loader(frames, [9, 3, 5], batch_size=1, shuffle=False)
    loader.set_epoch(4)
    assert seen(loader) == [[9], [3], [5]]


def test_the_order_of_an_epoch_is_a_permutation():
    order = step_order(1000, seed=0, epoch=3)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, step_order(1000, seed=0, epoch=3))
    np.testing.assert_array_equal(step_order(4, seed=0, epoch=3, shuffle=False), np.arange(4))


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_shares_of_several_processes_partition_each_step(frames, world_size):
    options = {"batch_size": 4, "seed": 2}
    alone = list(step_loader(frames, np.arange(10), **options))
    shares = [
        list(step_loader(frames, np.arange(10), rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    for step, parts in zip(alone, zip(*shares, strict=True), strict=True):
        together = [k for part in parts for micro in part.micro for k in micro.indices]
        assert sorted(together) == sorted(k for micro in step.micro for k in micro.indices)
        assert all(part.n_labels == step.n_labels and part.n_frames == step.n_frames for part in parts)


def test_a_process_without_a_frame_in_the_last_step_gets_an_empty_share(frames):
    last = list(step_loader(frames, np.arange(5), batch_size=4, rank=1, world_size=2))[-1]
    assert last.micro == []
    assert last.n_frames == 1
    assert last.n_labels["energy"] == 1


def test_workers_give_the_same_steps_in_every_epoch(frames):
    here = step_loader(frames, np.arange(6), batch_size=2, seed=1)
    there = step_loader(frames, np.arange(6), batch_size=2, seed=1, n_workers=1)
    for epoch in (0, 3):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        assert seen(there) == seen(here)


def test_impossible_shares_are_refused(frames):
    for wrong in ({"batch_size": 0}, {"batch_size": 2, "rank": 2, "world_size": 2}):
        with pytest.raises(ValueError, match="give a batch of at least 1 frame and a rank from 0"):
            step_loader(frames, np.arange(4), **wrong)


# --- labels and graphs ---


def test_labels_follow_the_graphs_in_whatever_order_these_are_built(frames):
    for step in step_loader(frames, np.arange(10), batch_size=10, max_angles=200):
        assert len(step.micro) > 1
        for part in step.micro:
            owners = part.indices[part.graphs.owners.numpy()]
            np.testing.assert_array_equal(part.graphs.n_atoms, frames.crystals.n_atoms[part.indices])
            np.testing.assert_array_equal(part.labels["energy"], part.indices)
            np.testing.assert_array_equal(part.labels["magmoms"], owners)  # absolute values
            there = ~np.isin(owners, [1, 4])
            np.testing.assert_array_equal(part.labels["forces"][there, 0], owners[there])
            assert torch.isnan(part.labels["forces"][~there]).all()
            np.testing.assert_array_equal(
                part.labels["stress"][:, 0, 0], np.where(part.indices == 2, np.nan, part.indices)
            )


def test_label_counts_are_those_of_the_whole_step(frames):
    (step,) = step_loader(frames, np.arange(10), batch_size=10, max_angles=200)
    assert step.n_frames == 10
    n_atoms = frames.crystals.n_atoms
    assert step.n_labels == {
        "energy": 10,
        "forces": 3 * int(n_atoms.sum() - n_atoms[1] - n_atoms[4]),
        "stress": 81,
        "magmoms": int(n_atoms.sum()),
    }
    for target in TARGETS:
        assert step.n_labels[target] == sum(int((~torch.isnan(p.labels[target])).sum()) for p in step.micro)


def test_moving_a_step_converts_what_is_floating_point(frames):
    step = next(iter(step_loader(frames, np.arange(2), batch_size=2))).to("cpu", torch.float64)
    assert {label.dtype for part in step.micro for label in part.labels.values()} == {torch.float64}
    assert step.micro[0].graphs.lattices.dtype == torch.float64
    assert step.micro[0].graphs.atomic_numbers.dtype == torch.int64


def test_a_step_in_small_parts_has_the_gradient_of_the_whole_step(frames):
    model, found = load_model("0.3.0").double(), []
    for max_angles in (None, 100):
        model.zero_grad()
        (step,) = step_loader(frames, np.arange(6), batch_size=6, max_angles=max_angles)
        step = step.to(dtype=torch.float64)
        for part in step.micro:
            output = forward(model, part.graphs, create_graph=True)
            batch_loss(output, part.labels, step.n_labels, LossSettings())[0].backward()
        found.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]))
    assert len(step.micro) > 1
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


# --- frames that cannot be trained on ---


def broken(kind):
    frames = make_frames(4)
    crystals = frames.crystals
    if kind == "isolated":
        crystals.lattices_a[1] *= 5
    elif kind == "one spot":
        crystals.frac_coords[5] = crystals.frac_coords[4] + [1, 0, 0]
    elif kind == "flat":
        crystals.lattices_a[2, 2] = crystals.lattices_a[2, 1]
    elif kind == "nan":
        crystals.frac_coords[6, 0] = np.nan
    return frames


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("isolated", r"1 of 4 frames.*\nframe f1 \(OMg\): atom 0 is isolated"),
        ("one spot", r"frame f1 \(OMg\): two atoms lie on one spot"),
        ("flat", r"frame f2 \(OMg\): its cell has no volume"),
        ("nan", r"frame f2 \(OMg\): a coordinate is NaN"),
    ],
)
def test_frames_without_a_graph_are_refused_by_name_before_training(kind, message):
    with pytest.raises(GraphError, match=message):
        refuse_untrainable(broken(kind))


def test_many_refused_frames_are_counted():
    frames = make_frames(8)
    frames.crystals.lattices_a[:] *= 6
    with pytest.raises(GraphError, match=r"8 of 8 frames(.|\n)*frame f2 .*\n\.\.\. and 5 more"):
        refuse_untrainable(frames)


def test_good_frames_pass_large_cells_and_small_ones(frames):
    refuse_untrainable(frames)
    wide = make_frames(1)
    wide.crystals.lattices_a[:] = 7 * np.eye(3)
    wide.crystals.frac_coords[:] = [[0, 0, 0], [0.3, 0, 0], [0.3, 0.3, 0], [0, 0.3, 0]]
    refuse_untrainable(wide)


def test_infinite_labels_are_refused_by_name():
    for name, row, frame in (("forces_ev_per_a", 5, "f1"), ("energy_per_atom_ev", 3, "f3"), ("stress_gpa", 0, "f0")):
        frames = make_frames(4)
        getattr(frames, name)[row] = np.inf
        with pytest.raises(DatasetError, match=rf"frame {frame}: {name} is infinite"):
            refuse_untrainable(frames)


def test_kept_bonds_give_the_same_graphs_in_every_epoch(frames, monkeypatch):
    found = []
    monkeypatch.setattr(batches, "find_bonds", lambda *args: found.append(args) or find_bonds(*args))
    once, anew = (step_loader(frames, np.arange(10), batch_size=3, keep_bonds=kept) for kept in (True, False))
    for epoch in (0, 1):
        for loader in (once, anew):
            loader.set_epoch(epoch)
        n_before = len(found)
        kept = list(once)
        assert len(found) - n_before == (0 if epoch else 10)
        for ours, theirs in zip(kept, anew, strict=True):
            for one, other in zip(ours.micro, theirs.micro, strict=True):
                assert torch.equal(one.graphs.bond_vectors, other.graphs.bond_vectors)
                assert torch.equal(one.graphs.bond_atoms, other.graphs.bond_atoms)
    monkeypatch.setattr(batches, "_KEPT_BONDS", 0)
    for _ in range(2):
        n_before = len(found)
        list(step_loader(frames, np.arange(10), batch_size=3, keep_bonds=True))
        assert len(found) - n_before == 10
