"""Time, arithmetic and memory of one training step, against the step of chgnet's own `Trainer`, on the same frames.

Ours is what `finetune` runs: graphs built from crystals, forward pass with energies, forces, stresses and moments,
loss, backward pass, Adam. chgnet's is `Trainer._train` on one batch whose graphs are ready, which spares it their cost.
"""

import contextlib
import io
import math
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np

from crossfunc.bench.graphs import perovskite, rattled_crystals, spinel, time_in_turns
from crossfunc.bench.progress import in_fresh_process, tell
from crossfunc.errors import InputError

BATCHES = {"MgO": 32, "SrTiO3": 32, "MgAl2O4": 16, "surrogate": 32}
"""Batches and their frames: 2, 5 and 14 atoms, rattled; and frames of the embedded dataset's dense tier as they are."""
QUICK = {"MgO": 12, "SrTiO3": 12, "MgAl2O4": 6, "surrogate": 12}
"""The same with fewer frames: figures within three minutes on two slow cores."""
_LEARNING_RATE = 1e-6  # Adam does its whole work, and the model stays where it is


def run(
    batches: dict[str, int] | None = None,
    repeats: int = 7,
    *,
    device: str = "cpu",
    threads: int | None = None,
    compile: bool = False,  # noqa: A002, named as in forward
) -> dict:
    """Measure both steps in turns, in a fresh process with the default allocator and in one without page faults.

    Parameters
    ----------
    batches : dict of str to int, optional
        Frames of each batch; default: `QUICK`. The book's figures are those of `BATCHES`.
    repeats : int
        Steps of each, taken alternately after one that does not count; medians are reported.
    device : str
        "cpu" or "cuda".
    threads : int, optional
        Threads of PyTorch, the same for both; default: PyTorch's own choice.
    compile : bool
        Measure PyTorch's operations under `torch.compile` as well: what is taken where there is no compiled library.

    Returns
    -------
    dict
        `speedup` (chgnet's time over ours, geometric mean over batches), `speedup_compiled` (None unless asked for),
        `ms_per_frame`, `mflop_per_frame` (of matrix products, backward passes included), `gflop_per_s` (those in that
        time) and `share` (of `matmul_gflop_per_s["thin"]`) by batch and by `chgnet`, `ours`, `ours_compiled`;
        `peak_memory_gb` likewise on cuda, else None; `matmul_gflop_per_s` (`thin`: n x 64 by 64 x 128, as in this
        model; `large`: square); `without_page_faults`, the same figures measured where freed memory stays with the
        process (None on cuda and where the C library is not glibc); `seconds_to_compile`; device, threads, versions.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device {device!r} is neither cpu nor cuda.")
    options = {
        "batches": dict(QUICK if batches is None else batches),
        "repeats": repeats,
        "device": device,
        "threads": threads,
        "compile": compile,
    }
    report = in_fresh_process(_measure, **options)
    kept = None if device != "cpu" else in_fresh_process(_measure, **options, keep_heap=True)
    shared = ("matmul_gflop_per_s", "device", "threads", "torch", "mflop_per_frame", "frames", "atoms_per_frame")
    return report | {
        "repeats": repeats,
        "without_page_faults": kept and {key: value for key, value in kept.items() if key not in shared},
    }


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    settings = {"default allocator": report, "without page faults": report["without_page_faults"]}
    lines = [f"{report['device']}, {report['threads']} threads, torch {report['torch']}, median of {report['repeats']}"]
    for title, measured in settings.items():
        if measured is None:
            continue
        compiled = measured["speedup_compiled"]
        lines.append(f"\n{title}: {measured['speedup']:.2f} x" + (f", compiled {compiled:.2f} x" if compiled else ""))
        lines.append(f"{'batch':<12}{'step':<16}{'ms/frame':>10}{'MFLOP/frame':>13}{'GFLOP/s':>10}{'share':>8}")
        for batch, by_step in measured["ms_per_frame"].items():
            for step, ms in by_step.items():
                rate, share = measured["gflop_per_s"][batch][step], measured["share"][batch][step]
                flop = report["mflop_per_frame"][batch][step]
                lines.append(f"{batch:<12}{step:<16}{ms:>10.2f}{flop:>13.0f}{rate:>10.1f}{share:>8.0%}")
    rates = report["matmul_gflop_per_s"]
    lines.append(f"\nmatrix products alone: {rates['thin']:.0f} GFLOP/s thin, {rates['large']:.0f} GFLOP/s large")
    if report["peak_memory_gb"]:
        lines += [f"peak memory, {batch}: {_as_gb(by_step)}" for batch, by_step in report["peak_memory_gb"].items()]
    return "\n".join(lines)


def _as_gb(by_step: dict) -> str:
    return ", ".join(f"{step} {gb:.2f} GB" for step, gb in by_step.items())


def frames_of(name: str, n_frames: int, seed: int = 0):
    """Labelled frames of one batch: made-up labels for rattled crystals, the dataset's own for `surrogate`.

    Parameters
    ----------
    name : str
        One of `BATCHES`.
    n_frames : int
    seed : int
        Draws displacements, labels, and the frames of the dataset.

    Returns
    -------
    LabelledFrames
    """
    from crossfunc.training.labels import LabelledFrames

    rng = np.random.default_rng(seed)
    if name == "surrogate":
        frames = LabelledFrames.from_dataset("surrogate")
        labelled = np.flatnonzero(frames.labelled("forces"))
        return frames.take(np.sort(rng.choice(labelled, n_frames, replace=False)))
    crystals = rattled_crystals(_structure(name), n_frames, seed)
    n_atoms = len(crystals.atomic_numbers)
    return LabelledFrames(
        crystals=crystals,
        energy_per_atom_ev=rng.normal(-8, 1, n_frames),
        forces_ev_per_a=rng.normal(0, 1, (n_atoms, 3)).astype(np.float32),
        stress_gpa=rng.normal(0, 3, (n_frames, 3, 3)).astype(np.float32),
        magmoms_mub=np.abs(rng.normal(0, 1, n_atoms)).astype(np.float32),
        frame_ids=np.array([f"{name}-{k}" for k in range(n_frames)]),
        material_ids=np.array([name] * n_frames),
    )


def _structure(name: str):
    from pymatgen.core import Lattice, Structure

    if name == "MgO":
        cube = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        return cube.get_primitive_structure()
    if name not in ("SrTiO3", "MgAl2O4"):
        raise InputError(f"no batch {name!r}; there are {', '.join(BATCHES)}.")
    return perovskite() if name == "SrTiO3" else spinel()


# --- the two steps ---


class Step:
    """One optimiser step on all frames, from crystals to new weights; a call returns the loss.

    Parameters
    ----------
    frames : LabelledFrames
    device : str
    compile : bool
        As `forward` takes it; to be called inside `without_native()`.
    max_angles : int, optional
        Bounds a part of the step; by default what suits the device.
    keep_batch : bool
        Build graphs once and leave them on the device, instead of at every call.
    """

    def __init__(self, frames, *, device="cpu", compile=False, max_angles=None, keep_batch=False):  # noqa: A002
        import torch

        from crossfunc.potential import load_model
        from crossfunc.potential.native import is_native
        from crossfunc.potential.parallel import max_angles_on, n_batches_at_a_time
        from crossfunc.training.batches import step_loader

        self.model, self.device, self.compile = load_model("0.3.0", device=device), device, compile
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.trainable, _LEARNING_RATE, fused=True)
        where = torch.device(device)
        max_angles = max_angles or max_angles_on(where, compiled=compile)
        parts = {"n_parts": n_batches_at_a_time(where), "max_angles": max_angles}
        parts |= {"with_incidences": compile or not is_native(self.model)}
        self.loader = step_loader(frames, range(len(frames)), batch_size=len(frames), **parts)
        self.kept = [batch.to(device, torch.float32) for batch in self.loader] if keep_batch else None
        self.loss = torch.zeros((), device=device)
        for parameter in self.trainable:
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self) -> float:
        """Take the step."""
        self.accumulate()
        return self.finish()

    def accumulate(self) -> None:
        """Add up loss and gradients of all parts, in the tensors that hold them."""
        import torch

        from crossfunc.training.loss import LossSettings
        from crossfunc.training.steps import differentiate_parts

        self.loss.zero_()
        for parameter in self.trainable:
            parameter.grad.zero_()
        for batch in self.kept or (batch.to(self.device, torch.float32) for batch in self.loader):
            for part in differentiate_parts(self.model, batch, self.trainable, LossSettings(), compile=self.compile):
                self.loss += part.loss
                for parameter, gradient in zip(self.trainable, part.gradients, strict=True):
                    if gradient is not None:
                        parameter.grad += gradient

    def finish(self) -> float:
        """Change the weights; return the loss."""
        self.optimizer.step()
        return float(self.loss)


def chgnet_step(frames, *, device: str = "cpu"):
    """Function that lets chgnet's Trainer take one optimiser step on all frames, graphs ready, and returns the loss."""
    import torch

    from crossfunc.potential import load_model
    from crossfunc.potential.graphs import ATOM_CUTOFF_A, BOND_CUTOFF_A
    from crossfunc.training.loss import LossSettings
    from crossfunc.vendor import import_chgnet

    weights = LossSettings()
    converter = import_chgnet("chgnet.graph").CrystalGraphConverter(
        atom_graph_cutoff=ATOM_CUTOFF_A, bond_graph_cutoff=BOND_CUTOFF_A
    )
    crystals = frames.crystals
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = import_chgnet("chgnet.trainer").Trainer(
            model=load_model("0.3.0", device=device),
            targets="efsm",
            energy_loss_ratio=weights.energy,
            force_loss_ratio=weights.forces,
            stress_loss_ratio=weights.stress,
            mag_loss_ratio=weights.magmoms,
            criterion="Huber",
            delta=weights.delta,
            learning_rate=_LEARNING_RATE,
            print_freq=10**9,
            use_device=device,
        )
    per_frame = zip(
        frames.energy_per_atom_ev,
        crystals.split(frames.forces_ev_per_a),
        frames.stress_gpa,
        crystals.split(np.abs(frames.magmoms_mub)),
        strict=True,
    )
    targets = [{key: torch.tensor(value) for key, value in zip("efsm", row, strict=True)} for row in per_frame]
    graphs = [converter(structure) for structure in crystals.to_structures()]
    batch = import_chgnet("chgnet.data.dataset").collate_graphs(list(zip(graphs, targets, strict=True)))

    losses = []
    trainer.criterion.register_forward_hook(
        lambda _module, _given, result: losses.append(float(result["loss"].detach()))
    )

    def step() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer._train([batch], 0)
        return losses.pop()

    return step


# --- one measurement, in a process of its own ---


def _measure(batches, repeats, device, threads, compile, keep_heap=False):  # noqa: A002
    """All figures under one allocator; None where the heap cannot be kept."""
    import torch

    from crossfunc.potential.parallel import keep_freed_memory

    if keep_heap and not keep_freed_memory():
        return None

    warnings.filterwarnings("ignore", category=UserWarning, module="chgnet")  # one per step; the process is ours
    if threads is not None:
        torch.set_num_threads(threads)
    tell("freed memory stays with the process" if keep_heap else "default allocator")
    rates = matmul_gflop_per_s(device)
    by_batch = {name: _measure_batch(name, n, repeats, device, compile) for name, n in batches.items()}

    def gather(key):
        return {name: measured[key] for name, measured in by_batch.items()}

    ms, mflop = gather("ms_per_frame"), gather("mflop_per_frame")
    rate = {name: {step: mflop[name][step] / ms[name][step] for step in ms[name]} for name in ms}
    return {
        "speedup": mean_ratio(ms, "chgnet", "ours"),
        "speedup_compiled": mean_ratio(ms, "chgnet", "ours_compiled") if compile else None,
        "ms_per_frame": ms,
        "mflop_per_frame": mflop,
        "gflop_per_s": rate,
        "share": {n: {step: value / rates["thin"] for step, value in steps.items()} for n, steps in rate.items()},
        "matmul_gflop_per_s": rates,
        "peak_memory_gb": gather("peak_memory_gb") if device != "cpu" else None,
        "seconds_to_compile": gather("seconds_to_compile") if compile else None,
        "frames": batches,
        "atoms_per_frame": gather("atoms_per_frame"),
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def mean_ratio(ms_per_frame: dict, one: str, other: str) -> float:
    """Time of one step over that of another, geometric mean over batches."""
    return math.exp(statistics.fmean(math.log(by[one] / by[other]) for by in ms_per_frame.values()))


def _measure_batch(name, n_frames, repeats, device, compile) -> dict:  # noqa: A002
    from crossfunc.potential.native import without_native

    tell(f"{name}: {n_frames} frames; graphs, and one step of each to count its operations")
    frames = frames_of(name, n_frames)
    steps = {"chgnet": chgnet_step(frames, device=device), "ours": Step(frames, device=device)}
    with without_native():  # the counter sees PyTorch's products; the compiled library takes the same ones
        mflop = {step: count_flop(call) / n_frames / 1e6 for step, call in steps.items()}
    seconds_to_compile = None
    if compile:
        steps["ours_compiled"] = _without_library(Step(frames, device=device, compile=True))
        tell(f"{name}: compiling, a minute or more the first time")
        clock = time.perf_counter()
        steps["ours_compiled"]()
        seconds_to_compile = time.perf_counter() - clock
        mflop["ours_compiled"] = mflop["ours"]  # the same products, fused with what stands around them
    seconds = time_in_turns(steps, repeats, synchronizer(device), about=f"{name}, {n_frames} frames")
    return {
        "ms_per_frame": {step: statistics.median(values) / n_frames * 1e3 for step, values in seconds.items()},
        "mflop_per_frame": mflop,
        "peak_memory_gb": {step: peak_memory_gb(call) for step, call in steps.items()} if device != "cpu" else None,
        "seconds_to_compile": seconds_to_compile,
        "atoms_per_frame": len(frames.crystals.atomic_numbers) / n_frames,
    }


def _without_library(step: Callable) -> Callable:
    """The step with PyTorch's operations in place of the compiled library."""
    from crossfunc.potential.native import without_native

    def call() -> float:
        with without_native():
            return step()

    return call


def count_flop(call) -> int:
    """Floating-point operations of all matrix products in a call, those of its backward passes included."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def in_place_addmm(self_shape, a_shape, b_shape, out_shape=None, **_) -> int:  # noqa: ARG001, the counter's signature
        return 2 * a_shape[0] * a_shape[1] * b_shape[1]

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place_addmm})
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees only what its own thread does
    try:
        with counter:
            call()
    finally:
        torch.set_num_threads(n_threads)
    return counter.get_total_flops()


def matmul_gflop_per_s(device: str) -> dict[str, float]:
    """Rate of plain matrix products: those of this model's shape, and large square ones (best of 5)."""
    import torch

    def rate(rows, inner, columns):
        a, b = torch.rand(rows, inner, device=device), torch.rand(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        seconds = time_in_turns({"mm": lambda: torch.mm(a, b, out=out)}, 5, synchronizer(device))["mm"]
        return 2 * rows * inner * columns / min(seconds) / 1e9

    return {"thin": rate(20_000, 64, 128), "large": rate(2_048, 2_048, 2_048)}


def peak_memory_gb(call) -> float:
    """Memory that PyTorch holds on the GPU at most during a call, the model and its optimiser included."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def synchronizer(device: str):
    """Return what waits until the device has done all that it was given."""
    import torch

    return torch.cuda.synchronize if device != "cpu" else lambda: None
