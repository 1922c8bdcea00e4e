"""The compiled library gives the numbers of PyTorch's operations, and says so where it cannot be made."""

import copy
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import OUTPUTS, as_crystals
from test_inference import salt
from test_parity import TOLERANCE, one_atom_cells, random_crystals, surrogate_crystals

from crossfunc.datasets import open_dataset
from crossfunc.potential import load_model, native, predict
from crossfunc.potential.forward import forward, forward_natively
from crossfunc.potential.graphs import build_graphs
from crossfunc.potential.low_rank import LowRankLinear
from crossfunc.training.labels import LabelledFrames

HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def double():
    return load_model("0.3.0").double()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(3)
    crystals = as_crystals(surrogate_crystals(rng, 12) + random_crystals(5, 12, max_atoms=6) + one_atom_cells()[:4])
    ((_, graphs),) = build_graphs(crystals, max_angles=10**9)
    return graphs


def loss_of(output):
    """A number that depends on every number of an output, each in its own way."""
    generator = torch.Generator().manual_seed(0)
    terms = (output[key] * torch.randn(output[key].shape, generator=generator, dtype=torch.float64) for key in OUTPUTS)
    return sum(term.sum() for term in terms)


def gradients(model, batch):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss_of(forward(model, batch, create_graph=True)), named.values(), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None and g.norm() > 0}


def assert_alike(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        assert float((ours[key] - values).norm()) <= TOLERANCE * float(values.norm()), key


@needs_compiler
def test_outputs_and_gradients_are_those_of_pytorchs_operations(double, batch):
    assert native.is_native(double)
    ours, ours_back = forward(double, batch), gradients(double, batch)
    with native.without_native():
        assert not native.is_native(double)
        theirs, theirs_back = forward(double, batch), gradients(double, batch)
    assert len(theirs_back) == 127  # all but the references, which stay, and the third angle layer
    assert_alike(ours, theirs)
    assert_alike(ours_back, theirs_back)


@needs_compiler
def test_a_crystal_without_angles_has_all_gradients_but_those_of_angles(double):
    ((_, alone),) = build_graphs(as_crystals([([55], [[0.0] * 3], 5.5 * np.eye(3))]))
    assert alone.n_angles == 0
    ours = gradients(double, alone)
    with native.without_native():
        assert_alike(ours, gradients(double, alone))


@needs_compiler
def test_a_loss_can_be_differentiated_term_by_term(double, batch):
    output, (parameter, *_) = forward(double, batch, create_graph=True), double.atom_conv_layers[1].parameters()
    whole = torch.autograd.grad(loss_of(output), parameter, retain_graph=True)[0]
    generator = torch.Generator().manual_seed(0)
    parts = [
        torch.autograd.grad(
            (output[key] * torch.randn(output[key].shape, generator=generator, dtype=torch.float64)).sum(),
            parameter,
            retain_graph=True,
        )[0]
        for key in OUTPUTS
    ]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-10, atol=1e-10 * float(whole.abs().max()))


@needs_compiler
def test_a_layer_of_low_rank_is_trained_through_its_factors(double, batch):
    model = copy.deepcopy(double)
    layers = model.atom_conv_layers[0].twoBody_atom.mlp_core.layers
    forward(model, batch)  # the change below has to be noticed
    layers[3] = LowRankLinear(layers[3], 4, torch.Generator().manual_seed(1))
    ours = gradients(model, batch)
    with native.without_native():
        assert_alike(ours, gradients(model, batch))
    assert any(name.endswith("layers.3.b") for name in ours)


@needs_compiler
@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_change_no_bit(n_threads):
    model = load_model("0.3.0")
    ((_, graphs),) = build_graphs(salt((2, 2, 3)), max_angles=10**9)
    graphs = graphs.to(dtype=torch.float32)
    alone = forward_natively(model, graphs)
    for _ in range(5):
        together = forward_natively(model, graphs, n_threads=n_threads)
        for key in OUTPUTS:
            assert torch.equal(alone[key], together[key]), key


@needs_compiler
def test_rows_that_are_not_kept_are_made_once_more_to_the_same_bits(double):
    """To train everything is kept; to predict, a crystal of 576 atoms is beyond what is."""
    ((_, graphs),) = build_graphs(salt((6, 6, 8)), max_angles=10**9)
    assert len(graphs.owners) == 576
    made_again, kept = forward_natively(double, graphs), forward(double, graphs, create_graph=True)
    for key in OUTPUTS:
        assert torch.equal(made_again[key], kept[key].detach()), key


@needs_compiler
def test_large_cells_go_piece_by_piece_to_the_same_numbers(monkeypatch):
    from crossfunc.potential import chgnet

    model, crystals = load_model("0.3.0"), salt((2, 2, 2))
    ours = predict(model, crystals)
    monkeypatch.setattr(chgnet, "_NATIVE_BYTES", 10)
    theirs = predict(model, crystals)
    np.testing.assert_allclose(ours["energy_per_atom_ev"], theirs["energy_per_atom_ev"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(ours["forces_ev_per_a"][0], theirs["forces_ev_per_a"][0], rtol=0, atol=2e-5)


def test_without_a_compiler_a_sentence_says_what_is_missed(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with caplog.at_level(logging.WARNING, logger="crossfunc"):
        assert native._library.__wrapped__(torch.float32) is None
    assert "install g++ or clang++" in caplog.text
    assert len(caplog.records) == 1


@needs_compiler
def test_a_compiler_that_fails_is_quoted_and_leaves_no_file(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_OPTIONS", ("-no-such-option",))
    with caplog.at_level(logging.WARNING, logger="crossfunc"):
        assert native._library.__wrapped__(torch.float32) is None
    assert "no-such-option" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@needs_compiler
def test_the_library_is_compiled_once_and_kept(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_compile", lambda *args: calls.append(args) or b"library")
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++"))))
    first, second = native._made(compiler, "float"), native._made(compiler, "float")
    assert first == second
    assert first.read_bytes() == b"library"
    assert len(calls) == 1


@needs_compiler
def test_no_library_is_run_from_a_folder_that_others_can_write_to(monkeypatch, tmp_path):
    open_to_all, own = tmp_path / "cache" / "crossfunc", tmp_path / "temporary"
    for folder in (open_to_all, own):
        folder.mkdir(parents=True)
    open_to_all.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native.tempfile, "gettempdir", lambda: str(own))
    kept = native._own_folder()
    assert kept.parent == own
    assert kept.stat().st_mode & 0o777 == 0o700
    kept.chmod(0o777)
    with pytest.raises(OSError, match="this user's alone"):
        native._own_folder()


@needs_compiler
def test_what_a_step_keeps_goes_with_its_graph(double, batch):
    import gc

    loss = forward(double, batch, create_graph=True)["energy_per_atom_ev"].sum()
    loss.backward()
    del loss
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, native._Evaluated)]


def test_the_page_for_rerunners_names_the_folder_of_the_library(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    folder = native._own_folder().relative_to(tmp_path)
    page = (Path(__file__).resolve().parents[1] / "book" / "rerun.md").read_text(encoding="utf-8")
    assert f"| `~/{folder}`" in page


@needs_compiler
def test_numbers_next_to_zero_cost_nothing_and_the_callers_arithmetic_still_knows_them():
    """The published model's gates shut so far that products fall below 1e-38, where some processors are slow."""
    frames = LabelledFrames.from_dataset(open_dataset("surrogate"), "high")
    few = frames.take(np.flatnonzero(frames.crystals.n_atoms <= 4)[:30])
    model = load_model("0.3.0").requires_grad_(True)
    batches = [b.to("cpu", torch.float32) for _, b in build_graphs(few.crystals, max_angles=1)]
    tiny, seconds = torch.tensor([1e-40]), {False: [], True: []}
    for flush in (True, False) * 3:
        torch.set_flush_denormal(flush)
        started = time.perf_counter()
        for one in batches:
            found = forward(model, one, create_graph=True)
            torch.autograd.grad(found["forces_ev_per_a"].abs().sum(), list(model.parameters()), allow_unused=True)
        seconds[flush].append(time.perf_counter() - started)
        torch.set_flush_denormal(False)
        assert (tiny * 0.5).item() > 0
    assert min(seconds[False]) < 2 * min(seconds[True])  # fivefold where it is not seen to
