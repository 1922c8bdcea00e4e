"""CHGNet models: load the published checkpoints or a file, and predict for many crystals at once."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from crossfunc.potential.crystals import Crystals
from crossfunc.potential.direct import DirectModel
from crossfunc.vendor import chgnet_checkpoint_path

CHECKPOINTS = ("0.3.0", "r2scan")
"""Published CHGNet checkpoints inside the chgnet package: GGA/GGA+U (MP2020-corrected) and r2SCAN (raw energies)."""


def load_model(name_or_path: str | os.PathLike, *, device: str = "cpu"):
    """Load a CHGNet: "0.3.0", "r2scan", or a file written by `save_model` or by chgnet.

    Parameters
    ----------
    name_or_path : str or path
        A file that ends in .safetensors, or any file with chgnet's layout (also a checkpoint of its trainer).
    device : str

    Returns
    -------
    chgnet.model.CHGNet
        In float32 and in evaluation mode.

    Raises
    ------
    CheckpointError
        A ValueError that names the file: unknown name, missing or truncated file, no CHGNet checkpoint, an architecture
        other than 0.3.0's, or weights that are not finite.

    Notes
    -----
    Files are read with `weights_only=True`: a checkpoint cannot run code.
    """
    from crossfunc.potential.checkpoints import CheckpointError, read_model
    from crossfunc.potential.forward import check_architecture

    name = str(name_or_path)
    path = chgnet_checkpoint_path(name) if name in CHECKPOINTS else Path(name)
    if path.is_dir():
        raise CheckpointError(f"{name}: a folder; give a model's file in it (of a training run best.pt).")
    if not path.is_file():
        raise CheckpointError(f"{name}: neither one of {', '.join(CHECKPOINTS)} nor a checkpoint file.")
    model = read_model(path)
    check_architecture(model)
    return model.to(device).eval()


def predict(model, structures, *, derivatives: bool = True, strict: bool = True, progress: bool = False) -> dict:
    """Predict energies, forces, stresses and magnetic moments of many structures in flat batches.

    Parameters
    ----------
    model : CHGNet, DirectModel or ASE Calculator
        From `load_model`, or from `load_calculator`.
    structures : Crystals, or sequence of pymatgen Structure or ASE Atoms
    derivatives : bool
        False leaves forces and stresses out, and saves their backward pass.
    strict : bool
        False: crystals without a graph get NaN and are listed under `refused` instead of raising.
    progress : bool
        Show a bar.

    Returns
    -------
    dict
        In the order given: `energy_per_atom_ev` (n,), `forces_ev_per_a` (list of (n_atoms, 3)), `stress_gpa`
        (n, 3, 3; tension positive), `magmoms_mub` (list of (n_atoms,)), `refused` (dict of index to reason). Of a
        calculator also `absent`: what it does not have, NaN in the arrays.

    Raises
    ------
    GraphError
        Names a crystal that has no graph, for example one with an isolated atom.
    CalculatorError
        A calculator that fails on a crystal (names it), or cannot be used at all.
    """
    from tqdm import tqdm

    from crossfunc.potential.ase_model import as_model

    model = as_model(model)
    if isinstance(model, DirectModel):
        crystals = structures if isinstance(structures, Crystals) else Crystals.from_structures(structures)
        return model.predict(crystals, derivatives=derivatives, strict=strict, progress=progress)

    crystals = structures if isinstance(structures, Crystals) else Crystals.from_structures(structures)
    refused: dict[int, str] = {}
    n, n_atoms = len(crystals), len(crystals.atomic_numbers)
    shapes: dict[str, tuple[int, ...]] = {"energy_per_atom_ev": (n,), "magmoms_mub": (n_atoms,)}
    if derivatives:
        shapes |= {"stress_gpa": (n, 3, 3), "forces_ev_per_a": (n_atoms, 3)}
    result = {key: np.full(shape, np.nan) for key, shape in shapes.items()}
    with tqdm(total=len(crystals), desc="predict", disable=not progress) as bar:
        for indices, output in _outputs(model, crystals, derivatives, None if strict else refused):
            atoms = crystals.atom_indices(indices)
            for key in result:
                result[key][indices if key in _PER_CRYSTAL else atoms] = output[key].cpu().numpy()
            bar.update(len(indices))
    ragged = {key: values if key in _PER_CRYSTAL else crystals.split(values) for key, values in result.items()}
    return ragged | {"refused": refused}


_PER_CRYSTAL = ("energy_per_atom_ev", "stress_gpa")
_NATIVE_BYTES = 3.2e9  # of the compiled library's memory; a crystal that needs more is worked on in pieces
_ROW_VALUES = 2000  # it keeps of each bond and pair


def _outputs(model, crystals: Crystals, derivatives: bool, refused: dict[int, str] | None) -> Iterator[tuple]:
    """Indices and output of each batch: batches side by side, or one after another on all threads if they are few."""
    from crossfunc.potential.forward import correct, forward, forward_natively
    from crossfunc.potential.graphs import assemble_graphs, build_graphs
    from crossfunc.potential.inference import covers, evaluate
    from crossfunc.potential.native import is_native
    from crossfunc.potential.parallel import for_each, map_batches, max_angles_on, n_batches_at_a_time, one_thread
    from crossfunc.potential.pieces import cut_crystals, n_rows_on

    parameter = next(model.parameters())
    n_threads, flat, native = n_batches_at_a_time(parameter.device), covers(model), is_native(model)
    corrected = getattr(model, "correction", None) is not None
    n_rows = n_rows_on(parameter.device)

    def make(crystals, bonds):
        if native and sum(part.n_rows for part in bonds) * _ROW_VALUES * parameter.element_size() <= _NATIVE_BYTES:
            return None, assemble_graphs(crystals, bonds)
        graph = assemble_graphs(crystals, bonds) if corrected or not flat else None
        return cut_crystals(crystals, bonds, n_rows=n_rows) if flat else None, graph

    max_angles = max_angles_on(parameter.device)
    batches = build_graphs(crystals, n_parts=n_threads, max_angles=max_angles, refused=refused, assemble=make)
    first = list(islice(batches, n_threads))
    few = len(first) < n_threads
    run = partial(for_each, n_threads=n_threads) if few else None

    def compute(part):
        indices, batches = part
        pieces, graph = (one and one.to(parameter.device, parameter.dtype) for one in batches)
        if pieces is not None:
            with one_thread():
                output = evaluate(model, pieces, run, derivatives=derivatives)
        elif native:
            output = forward_natively(model, graph, derivatives=derivatives, n_threads=n_threads if few else 1)
        else:
            return indices, forward(model, graph, derivatives=derivatives)
        return indices, correct(model, graph, output, derivatives=derivatives) if corrected else output

    yield from map_batches(compute, chain(first, batches), n_threads=1 if few else n_threads)
