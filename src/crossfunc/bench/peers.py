"""A training step of this library beside those of other toolkits, on the same frames, in turns.

chgnet is the network itself; matgl trains a CHGNet of its own, MACE another network of like size. Their weights are
random, which costs the same as trained ones. A toolkit that is not installed is left out, and said to be.
"""

import contextlib
import statistics
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from crossfunc.bench.graphs import time_in_turns
from crossfunc.bench.progress import tell
from crossfunc.bench.train import QUICK, Step, chgnet_step, frames_of, mean_ratio
from crossfunc.units import EV_PER_A3_TO_GPA

CUTOFF_A = 6.0
_LEARNING_RATE = 1e-3


def run(batches: dict[str, int] | None = None, repeats: int = 7, *, threads: int | None = None) -> dict:
    """Time a step of each toolkit that is installed: energies, forces and stresses, backward pass, Adam.

    Parameters
    ----------
    batches : dict of str to int, optional
        Frames of each batch of `bench train`.
    repeats : int
        Steps of each, in turns, after one that does not count; medians are reported.
    threads : int, optional
        Threads of PyTorch.

    Returns
    -------
    dict
        `ms_per_frame` by batch and toolkit, `ratio` (its time over ours, geometric mean over batches), `n_parameters`,
        `versions`, `not_installed`, `threads`.
    """
    from importlib.metadata import version

    import torch

    warnings.filterwarnings("ignore", category=UserWarning)  # theirs, one per step
    if threads is not None:
        torch.set_num_threads(threads)
    there = {name: make for name, (module, make) in PEERS.items() if find_spec(module)}
    absent = [name for name in PEERS if name not in there]
    if absent:
        tell(f"not installed: {', '.join(absent)}")
    by_batch, n_parameters = {}, {}
    for name, n_frames in (batches or QUICK).items():
        frames = frames_of(name, n_frames)
        ours = Step(frames)
        steps: dict[str, Callable] = {"crossfunc": ours, "chgnet": chgnet_step(frames)}
        with contextlib.redirect_stdout(sys.stderr):  # what they print would stand in the report
            for peer, make in there.items():
                steps[peer], n_parameters[peer] = make(frames)
        n_parameters["crossfunc"] = n_parameters["chgnet"] = _count(ours.model)
        seconds = time_in_turns(steps, repeats, about=f"{name}, {n_frames} frames")
        by_batch[name] = {step: 1e3 * statistics.median(values) / n_frames for step, values in seconds.items()}
    others = ("chgnet", *there)
    return {
        "ms_per_frame": by_batch,
        "ratio": {peer: mean_ratio(by_batch, peer, "crossfunc") for peer in others},
        "n_parameters": n_parameters,
        "frames": dict(batches or QUICK),
        "not_installed": absent,
        "threads": torch.get_num_threads(),
        "versions": {name: version(PACKAGES[name]) for name in (*others, "torch")},
    }


def _count(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _labelled(frames):
    """Structure, energy per atom, forces and stress of each frame."""
    crystals = frames.crystals
    forces = crystals.split(frames.forces_ev_per_a)
    return zip(crystals.to_structures(), frames.energy_per_atom_ev, forces, frames.stress_gpa, strict=True)


def matgl_step(frames) -> tuple[Callable, int]:
    """Step of matgl's own Lightning module on its CHGNet, graphs ready, and its number of parameters."""
    import torch
    from matgl.ext.pymatgen import Structure2Graph
    from matgl.graph.data import collate_fn_pes
    from matgl.models import CHGNet
    from matgl.utils.training import PotentialLightningModule

    elements = frames.elements()
    network = CHGNet(element_types=elements, max_n=31, max_f=15, cutoff=CUTOFF_A, normalization="layer")
    module = PotentialLightningModule(
        network, energy_weight=1.0, force_weight=1.0, stress_weight=0.1, loss="huber_loss", lr=_LEARNING_RATE
    )
    convert = Structure2Graph(element_types=elements, cutoff=CUTOFF_A).get_graph
    graphs = ((*convert(crystal), *labels) for crystal, *labels in _labelled(frames))
    parts = [
        (
            graph,
            lattice,
            torch.as_tensor(np.asarray(state), dtype=torch.float32),
            {
                "energies": float(energy) * len(forces),
                "forces": torch.tensor(forces, dtype=torch.float32),
                "stresses": torch.tensor(stress, dtype=torch.float32),
            },
        )
        for graph, lattice, state, energy, forces, stress in graphs
    ]
    batch = collate_fn_pes(parts)
    optimizer = torch.optim.Adam(module.parameters(), _LEARNING_RATE)

    def step() -> float:
        results, _ = module.step(batch)
        optimizer.zero_grad()
        results["Total_Loss"].backward()
        optimizer.step()
        return float(results["Total_Loss"])

    return step, _count(network)


def mace_step(frames) -> tuple[Callable, int]:
    """Step of a MACE of two layers and 96 channels, graphs ready, with its own loss, and its number of parameters."""
    import torch
    from mace import data, modules, tools

    o3 = modules.models.o3  # e3nn, which needs mace to be loaded first

    numbers = tools.AtomicNumberTable(sorted(set(frames.crystals.atomic_numbers.tolist())))
    graphs = [
        data.AtomicData.from_config(
            data.Configuration(
                atomic_numbers=np.array(crystal.atomic_numbers),
                positions=crystal.cart_coords,
                properties={"energy": energy * len(forces), "forces": forces, "stress": stress / EV_PER_A3_TO_GPA},
                property_weights={"energy": 1.0, "forces": 1.0, "stress": 1.0},
                cell=crystal.lattice.matrix,
                pbc=(True, True, True),
            ),
            z_table=numbers,
            cutoff=CUTOFF_A,
        )
        for crystal, energy, forces, stress in _labelled(frames)
    ]
    loader = tools.torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs), shuffle=False)
    batch = next(iter(loader))
    network = modules.ScaleShiftMACE(
        r_max=CUTOFF_A,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("96x0e + 96x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=float(batch.edge_index.shape[1] / len(frames.crystals.atomic_numbers)),
        atomic_numbers=numbers.zs,
        correlation=3,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    ).float()
    loss_of = modules.WeightedEnergyForcesStressLoss()
    optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE)
    batch = batch.apply(lambda values: values.float() if torch.is_floating_point(values) else values)

    def step() -> float:
        output = network(batch.to_dict(), training=True, compute_force=True, compute_stress=True)
        loss = loss_of(pred=output, ref=batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step, _count(network)


PEERS = {"matgl": ("matgl", matgl_step), "MACE": ("mace", mace_step)}
PACKAGES = {"chgnet": "chgnet", "matgl": "matgl", "MACE": "mace-torch", "torch": "torch"}


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    names = list(next(iter(report["ms_per_frame"].values())))
    lines = [f"{report['threads']} threads, ms per frame", f"{'batch':<12}" + "".join(f"{name:>12}" for name in names)]
    for batch, ms in report["ms_per_frame"].items():
        lines.append(f"{batch:<12}" + "".join(f"{ms[name]:>12.2f}" for name in names))
    lines.append(f"{'parameters':<12}" + "".join(f"{report['n_parameters'][name]:>12,}" for name in names))
    lines += [f"{name} takes {ratio:.2f} x the time of crossfunc" for name, ratio in report["ratio"].items()]
    return "\n".join(lines + [f"{name}: not installed" for name in report["not_installed"]])
