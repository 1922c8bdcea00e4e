"""Model files: stock chgnet reads what we write, we read what it writes, and nothing damaged passes for a model."""

import contextlib
import io
import json
import os
import warnings

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crossfunc.energies import AtomRefError, published_atomref
from crossfunc.potential import (
    CheckpointError,
    checkpoints,
    element_references,
    load_model,
    predict,
    read_provenance,
    save_model,
    scratch_model,
    set_element_references,
)
from crossfunc.potential.checkpoints import write_bytes
from crossfunc.vendor import chgnet_checkpoint_path, import_chgnet

SUFFIXES = (".pt", ".pth.tar", ".safetensors")


@pytest.fixture(scope="module")
def crystal():
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0] * 3, [0.5] * 3])
    return structure.get_primitive_structure().perturb(0.05)


@pytest.fixture
def changed():
    """A model that no published file holds: other references, other weights."""
    model = load_model("0.3.0")
    set_element_references(model, np.linspace(-1, -90, 94), source="a test")
    with torch.no_grad():
        model.atom_embedding.embedding.weight += 0.01
    return model


def stock(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return import_chgnet("chgnet.model").CHGNet.from_file(str(path))


def assert_same_weights(first, second):
    one, two = first.state_dict(), second.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def edited(tmp_path, edit):
    """The r2SCAN checkpoint with its content changed by `edit`."""
    content = torch.load(chgnet_checkpoint_path("r2scan"), map_location="cpu", weights_only=True)
    content = edit(content) or content
    torch.save(content, tmp_path / "edited.pt")
    return tmp_path / "edited.pt"


# --- there and back ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, changed, suffix):
    path = tmp_path / "folder" / f"model{suffix}"
    save_model(changed, path, provenance={"method": 4})
    again = load_model(path)
    assert_same_weights(again, changed)
    assert again.model_args["element_references"] == "a test"
    assert not again.training
    assert read_provenance(path)["method"] == 4
    assert set(read_provenance(path)["versions"]) == {"crossfunc", "chgnet", "torch"}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_stock_chgnet_loads_what_we_save_and_predicts_the_same(tmp_path, changed, crystal):
    save_model(changed, tmp_path / "model.pth.tar")
    theirs = stock(tmp_path / "model.pth.tar")
    assert_same_weights(theirs, changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, after = (model.predict_structure(crystal) for model in (changed, theirs))
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])
    ours = predict(load_model(tmp_path / "model.pth.tar"), [crystal])
    assert ours["energy_per_atom_ev"][0] == pytest.approx(after["e"], abs=1e-5)
    np.testing.assert_allclose(ours["forces_ev_per_a"][0], after["f"], atol=2e-4)


def test_a_model_without_references_and_one_given_a_module_come_back(tmp_path, crystal):
    model = load_model("0.3.0")
    model.composition_model = None
    save_model(model, tmp_path / "none.pt")
    for again in (stock(tmp_path / "none.pt"), load_model(tmp_path / "none.pt")):
        assert again.composition_model is None
    model = load_model("r2scan")
    model.model_args["composition_model"] = model.composition_model  # as chgnet's constructor accepts it
    save_model(model, tmp_path / "module.pt")
    assert_same_weights(load_model(tmp_path / "module.pt"), model)
    assert_same_weights(stock(tmp_path / "module.pt"), model)


def test_a_float64_model_is_stored_in_the_float32_that_chgnet_reads(tmp_path):
    save_model(load_model("r2scan").double(), tmp_path / "model.pt")
    assert_same_weights(load_model(tmp_path / "model.pt"), load_model("r2scan"))


def test_files_of_others_have_no_provenance():
    assert read_provenance(chgnet_checkpoint_path("0.3.0")) == {}


def test_unknown_suffixes_and_provenance_beyond_json_are_refused(tmp_path, changed):
    with pytest.raises(CheckpointError, match=r"model\.ckpt: a model file ends in \.pt"):
        save_model(changed, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="provenance must be plain values"):
        save_model(changed, tmp_path / "model.pt", provenance={"frames": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


# --- a full disk ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_former_file_and_no_half_one(tmp_path, changed, suffix):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"model{suffix}"
    save_model(load_model("r2scan"), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # a write beyond it fails like one on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written .*what was there before is unchanged"):
            save_model(changed, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_crash_before_the_rename_leaves_the_former_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "file", b"old")

    def killed(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_a_file_is_named(tmp_path, changed):
    (tmp_path / "runs").write_text("")
    with pytest.raises(CheckpointError, match=r"runs/model\.pt: cannot be written"):
        save_model(changed, tmp_path / "runs" / "model.pt")


# --- files that are no model ---


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named_as_such(tmp_path, changed, suffix, share):
    path = tmp_path / f"model{suffix}"
    save_model(changed, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=rf"model\{suffix}.*(truncated|empty)"):
        load_model(path)


def test_other_files_are_no_checkpoint(tmp_path):
    (tmp_path / "text.pt").write_text("a letter")
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "lightning.ckpt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, reason in (
        ("text.pt", "not a CHGNet checkpoint"),
        ("lightning.ckpt", r"no entry 'model'.*it holds state_dict, epoch.*load best\.pt"),
        ("list.pt", "no entry 'model'.*it holds list"),
        ("nothing.pt", "neither one of 0.3.0, r2scan nor a checkpoint file"),
    ):
        with pytest.raises(CheckpointError, match=f"{name}.*{reason}"):
            load_model(tmp_path / name)


def test_weights_without_the_arguments_of_chgnets_constructor_are_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="its metadata hold no model_args"):
        load_model(tmp_path / "other.safetensors")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"model": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match="it holds Python objects, which could run code"):
        load_model(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


def test_another_architecture_is_named_before_it_is_built(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"0\.2\.0.*differs from 0\.3\.0 in .*num_radial=9"):
        load_model(chgnet_checkpoint_path("0.2.0"))

    def huge(content):
        content["model"]["model_args"] |= {"atom_fea_dim": 10**9}

    path = edited(tmp_path, huge)
    monkeypatch.setattr(checkpoints, "_construct", lambda args: pytest.fail("built"))
    with pytest.raises(CheckpointError, match=r"differs from 0\.3\.0 in atom_fea_dim=1000000000"):
        load_model(path)


def test_references_per_formula_unit_are_refused(tmp_path):
    def counted(content):
        content["model"]["model_args"]["composition_model"] = "MPF"

    with pytest.raises(CheckpointError, match="'MPF' are none of MPtrj"):
        load_model(edited(tmp_path, counted))


def test_wrong_missing_and_broken_weights_are_named(tmp_path):
    def missing(content):
        del content["model"]["state_dict"]["mlp.layers.0.weight"]

    def reshaped(content):
        content["model"]["state_dict"]["site_wise.weight"] = torch.zeros(1, 3)

    def diverged(content):
        content["model"]["state_dict"]["site_wise.bias"][0] = float("nan")

    def no_tensors(content):
        content["model"]["state_dict"] = [1]

    def odd_args(content):
        content["model"]["model_args"] = {"n_conv": torch.zeros(2)}

    for edit, reason in (
        (missing, r"not those of CHGNet 0\.3\.0's architecture: mlp\.layers\.0\.weight"),
        (reshaped, r"architecture: site_wise\.weight missing, unknown or of another shape"),
        (diverged, r"1 of its weights hold NaN or infinity, site_wise\.bias first"),
        (no_tensors, "its state_dict does not hold tensors only"),
        (odd_args, "its model_args are no plain values"),
    ):
        with pytest.raises(CheckpointError, match=rf"edited\.pt.*{reason}"):
            load_model(edited(tmp_path, edit))


# --- fresh weights ---


def test_fresh_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(7)
    first = scratch_model(3)
    torch.rand(5)
    assert_same_weights(first, scratch_model(3))
    assert not torch.equal(first.mlp.layers[0].weight, scratch_model(4).mlp.layers[0].weight)
    assert next(first.parameters()).dtype == torch.float32
    assert [tuple(p.shape) for p in first.parameters()] == [tuple(p.shape) for p in load_model("0.3.0").parameters()]


def test_fresh_weights_leave_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    scratch_model(3)
    assert torch.equal(torch.rand(3), expected)


# --- element references ---


def test_references_read_are_those_published():
    for name in ("0.3.0", "r2scan"):
        np.testing.assert_array_equal(element_references(load_model(name)), published_atomref(name).energies_ev)


def test_new_references_change_energies_by_composition_and_nothing_else(crystal):
    model = load_model("0.3.0")
    before, old = predict(model, [crystal]), element_references(model)
    set_element_references(model, old + np.arange(94))
    after = predict(model, [crystal])
    mean_shift = (11 + 7) / 2  # Mg has index 11, O has 7
    assert after["energy_per_atom_ev"][0] - before["energy_per_atom_ev"][0] == pytest.approx(mean_shift, abs=1e-5)
    np.testing.assert_array_equal(after["forces_ev_per_a"][0], before["forces_ev_per_a"][0])
    np.testing.assert_array_equal(after["stress_gpa"], before["stress_gpa"])
    np.testing.assert_array_equal(after["magmoms_mub"][0], before["magmoms_mub"][0])


def test_absent_references_stay_or_are_an_error():
    model = load_model("0.3.0")
    old, new = element_references(model), np.full(94, np.nan)
    new[7] = -5.0
    set_element_references(model, new)
    old[7] = -5.0
    np.testing.assert_array_equal(element_references(model), old)
    new[:] = -1.0
    new[[0, 69]] = np.nan
    with pytest.raises(AtomRefError, match="no element reference for H, Yb"):
        set_element_references(model, new, absent="raise")
    with pytest.raises(AtomRefError, match=r"shape \(3,\)"):
        set_element_references(model, np.zeros(3))
    with pytest.raises(AtomRefError, match="absent='drop'"):
        set_element_references(model, new, absent="drop")


def test_an_element_that_was_not_in_the_data_has_no_reference():
    references = element_references(load_model("r2scan"))
    assert np.isnan(references[69])  # Yb: 1e-14 in the file


def test_references_are_frozen_unless_asked_for_and_fit_for_stock_chgnet(crystal):
    model = load_model("0.3.0")
    model.composition_model = None
    assert np.isnan(element_references(model)).all()
    set_element_references(model, np.full(94, -2.0))
    assert not model.composition_model.fc.weight.requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model.predict_structure(crystal)["e"]  # needs .fitted and .is_intensive, which no state_dict carries
    assert theirs == pytest.approx(predict(model, [crystal])["energy_per_atom_ev"][0], abs=1e-5)
    set_element_references(model, np.full(94, -3.0), trainable=True)
    assert model.composition_model.fc.weight.requires_grad


def test_loading_a_model_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_model("0.3.0")
    assert torch.equal(torch.rand(2), expected)


# --- weights that nobody should compute with ---


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1650000\n"


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER.encode(), "a pointer of a large-file store .*git lfs pull"),
        (b"/annex/objects/SHA256E-s1--0", "a pointer of git-annex"),
        (b"\n <!DOCTYPE html><html>log in</html>", "a web page, perhaps one that asks to log in"),
        (b'{"error": "not found"}', "a JSON document, perhaps a server's error message"),
        (b"<?xml version='1.0'?><Error/>", "an XML document"),
        (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "an HDF5 file"),
        (b"\x1f\x8b\x08" + b"0" * 99, "a gzip archive; unpack it first"),
        (b"\x93NUMPY\x01" + b"0" * 99, "an array of NumPy"),
        (b"\x80\x04\x95 a pickle of another program", "not a CHGNet checkpoint|truncated, or not a safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(tmp_path, suffix, content, said):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_model(path)
    assert "weights_only" not in str(caught.value)


def change(edit):
    def of_weights(content):
        state = content["model"]["state_dict"]
        state["site_wise.bias"] = edit(state["site_wise.bias"])

    return of_weights


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.to(torch.int64), r"no plain floating-point numbers, site_wise\.bias first \(int64\)"),
        (lambda t: t > 0, r"site_wise\.bias first \(bool\)"),
        (lambda t: t.to(torch.complex64), r"site_wise\.bias first \(complex64\)"),
        (lambda t: t.to_sparse(), r"site_wise\.bias first \(float32, sparse\)"),
        (lambda t: t.to("meta"), r"site_wise\.bias first \(float32 without values\)"),
        (lambda t: t.double() + 1e300, r"hold NaN or infinity, site_wise\.bias first \(read as float32\)"),
        (lambda t: t.to(torch.float16) * 1e6, "hold NaN or infinity"),
        (lambda t: torch.zeros(()), r"site_wise\.bias missing, unknown or of another shape"),
        (lambda t: [1.0], "does not hold tensors only"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, edit, said):
    with pytest.raises(CheckpointError, match=said):
        load_model(edited(tmp_path, change(edit)))


def test_weights_in_other_precisions_are_converted(tmp_path):
    for kind in (torch.float64, torch.bfloat16):
        model = load_model(edited(tmp_path, change(lambda t, kind=kind: t.to(kind))))
        assert model.site_wise.bias.dtype == torch.float32


def test_deeply_nested_arguments_are_refused(tmp_path):
    import safetensors.torch

    state = load_model("0.3.0").state_dict()
    args = '{"version": ' + "[" * 100_000 + "]" * 100_000 + "}"
    safetensors.torch.save_file(state, tmp_path / "deep.safetensors", metadata={"model_args": args})
    with pytest.raises(CheckpointError, match=r"deep\.safetensors: not a CHGNet checkpoint: .* nested too deeply"):
        load_model(tmp_path / "deep.safetensors")
    with pytest.raises(CheckpointError, match="no plain values"):
        checkpoints._check_args(tmp_path, {"version": json.loads("[" * 900 + "]" * 900), "n_conv": {1: 2}.keys()})


def test_equal_models_give_equal_files(tmp_path):
    for suffix in SUFFIXES:
        written = []
        for k in range(3):
            save_model(load_model("r2scan"), tmp_path / f"{k}{suffix}", provenance={"b": 1, "a": {"z": 1, "y": 2}})
            written.append((tmp_path / f"{k}{suffix}").read_bytes())
        assert written[0] == written[1] == written[2], suffix
