"""What a GPU makes of this library, in one command of at most eight minutes.

Each part stands alone: one that fails, or that no time is left for, is reported with the reason, and the others go on.
All of them run on a CPU, too, by the same PyTorch operations, so that tests can vouch for them.
"""

import contextlib
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from crossfunc.bench.graphs import perovskite, rattled_crystals, time_in_turns
from crossfunc.bench.predict import rock_salt
from crossfunc.bench.progress import tell
from crossfunc.bench.train import (
    BATCHES,
    Step,
    chgnet_step,
    count_flop,
    frames_of,
    matmul_gflop_per_s,
    mean_ratio,
    peak_memory_gb,
    synchronizer,
)
from crossfunc.files import check_writable, write_atomically

LIMIT_S = 480.0
VARIANTS = ("float32", "tf32", "bf16", "compiled", "graphs")
"""Of our training step: as it is, with 10 bits of mantissa in products, with 16-bit floats where autocast takes them,
fused by `torch.compile`, and recorded once and replayed (CUDA graphs)."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured; those of the tests are small."""

    batches: dict[str, int] = field(default_factory=lambda: {name: 2 * n for name, n in BATCHES.items()})
    batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    n_parity: int = 32
    n_predicted: int = 2_000
    n_chgnets: int = 128
    n_relaxed: int = 1_000
    relax_steps: int = 100
    n_atoms: int = 10_000
    copied_bytes: int = 2**29
    repeats: int = 7


def run(
    device: str = "cuda",
    *,
    sizes: Sizes | None = None,
    limit_s: float = LIMIT_S,
    out: str | os.PathLike | None = None,
) -> dict:
    """Measure every part on a device.

    Parameters
    ----------
    device : str
        "cuda", or "cpu" to try the command.
    sizes : Sizes, optional
    limit_s : float
        A part that would begin later than this is left out.
    out : str or path, optional
        JSON that is written anew after every part, so that a command which is stopped leaves what it has.

    Returns
    -------
    dict
        `device`, `torch`, and a dict for each of `PARTS`: what it measured, or `not_measured` with the reason.
    """
    import torch

    from crossfunc.potential.native import without_native

    if out is not None:
        check_writable(out)
    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    report: dict = {"device": name, "torch": torch.__version__}
    began = time.perf_counter()
    with without_native(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # chgnet's, one per step
        for part, measure in PARTS.items():
            clock = time.perf_counter()
            tell(f"{part} ({clock - began:.0f} s so far)")
            late = clock - began > limit_s
            report[part] = (
                {"not_measured": "no time was left"} if late else _or_reason(measure, device, sizes or Sizes())
            )
            tell(f"{part}: {json.dumps(report[part])[:200]}")
            if out is not None:
                write_atomically(out, json.dumps(report, indent=1) + "\n")
    return report | {"seconds": time.perf_counter() - began}


def _or_reason(measure: Callable, *arguments) -> dict:
    try:
        return measure(*arguments)
    except Exception as error:
        return {"not_measured": f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"}


# --- the same numbers ---


def parity(device: str, sizes: Sizes) -> dict:
    """Differences from float64 on the CPU, relative to the root mean square of each output and of the gradient."""
    import torch

    batch = _parity_batch(sizes.n_parity)
    found: dict[str, dict] = {}
    reference = _outputs_and_gradient(batch, "cpu", torch.float64)
    for where, dtype in (("cpu", torch.float32), (device, torch.float32), (device, torch.float64)):
        name = f"{where} {str(dtype).removeprefix('torch.')}"
        found[name] = _relative(_outputs_and_gradient(batch, where, dtype), reference)
    return found


def _parity_batch(n_frames: int):
    from crossfunc.potential.graphs import build_graphs

    ((_, batch),) = build_graphs(frames_of("surrogate", n_frames).crystals, max_angles=10**9)
    return batch


def _outputs_and_gradient(batch, device: str, dtype, context: Callable = contextlib.nullcontext) -> dict:
    import torch

    from crossfunc.potential import load_model
    from crossfunc.potential.forward import forward

    model = load_model("0.3.0").to(device, dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    with context():
        output = forward(model, batch.to(device, dtype), create_graph=True)
        loss = sum((values**2).mean() for values in output.values())
        gradient = torch.autograd.grad(loss, trained, allow_unused=True)
    flat = torch.cat([g.flatten() for g in gradient if g is not None])
    values = {key: v.detach() for key, v in output.items()} | {"gradient": flat}
    return {key: v.to("cpu", torch.float64).numpy() for key, v in values.items()}


def _relative(values: dict, reference: dict) -> dict[str, float]:
    return {key: float(np.linalg.norm(values[key] - r) / np.linalg.norm(r)) for key, r in reference.items()}


# --- a training step ---


def training_step(device: str, sizes: Sizes) -> dict:
    """Milliseconds per frame of chgnet's Trainer and of our step in all variants, and errors of its gradient."""
    import torch

    own = _parity_batch(sizes.n_parity)
    reference = _outputs_and_gradient(own, device, torch.float64)
    errors, left_out, by_batch = {}, {}, {}
    for variant in ("float32", "tf32", "bf16"):
        found = _or_reason(
            lambda v=variant: _relative(_outputs_and_gradient(own, device, torch.float32, _CONTEXTS[v]), reference)
        )
        if "not_measured" in found:
            left_out[variant] = found["not_measured"]
        else:
            errors[variant] = found["gradient"]
    for name, n_frames in sizes.batches.items():
        frames = frames_of(name, n_frames)
        calls = {"chgnet": chgnet_step(frames, device=device)}
        for variant in VARIANTS:
            made = _or_reason(lambda f=frames, v=variant: {"step": _tried(_step_of(v, f, device))})
            if "step" in made:
                calls[variant] = made["step"]
            else:
                left_out[variant] = made["not_measured"]
        seconds = time_in_turns(calls, sizes.repeats, synchronizer(device), about=name)
        by_batch[name] = {step: 1e3 * statistics.median(values) / n_frames for step, values in seconds.items()}
    timed = [step for step in VARIANTS if all(step in ms for ms in by_batch.values())]
    return {
        "ms_per_frame": by_batch,
        "frames": sizes.batches,
        "speedup": {step: mean_ratio(by_batch, "chgnet", step) for step in timed},
        "gradient_error": errors,
        "as_good_as_float32": {variant: error <= 2 * errors["float32"] for variant, error in errors.items()},
        "left_out": left_out,
    }


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _bf16():
    import torch

    return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", dtype=torch.bfloat16)


_CONTEXTS: dict[str, Callable] = {"float32": contextlib.nullcontext, "tf32": _tf32, "bf16": _bf16}


def _step_of(variant: str, frames, device: str) -> Callable:
    if variant == "graphs":
        return _replayed_step(frames, device)
    step = Step(frames, device=device, compile=variant == "compiled")
    context = _CONTEXTS.get(variant, contextlib.nullcontext)

    def call() -> float:
        with context():
            return step()

    return call


def _tried(step: Callable) -> Callable:
    """A step that was taken once: it works, and what it compiles is compiled."""
    if not math.isfinite(step()):
        raise FloatingPointError("the loss is not finite")
    return step


def _replayed_step(frames, device: str) -> Callable:
    """Our step on a batch that stays where it is: recorded once as a CUDA graph, then replayed."""
    import torch

    if device == "cpu":
        raise RuntimeError("only a GPU replays")
    step = Step(frames, device=device, keep_batch=True)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # as PyTorch asks for, before a recording
        for _ in range(3):
            step.accumulate()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.accumulate()

    def replay() -> float:
        graph.replay()
        return step.finish()

    return replay


# --- how much at a time, and what it holds ---


def batch_sizes(device: str, sizes: Sizes) -> dict:
    """Frames per second and peak memory of a step that is not cut into parts, until the memory is full."""
    import torch

    rows: list[dict] = []
    for n_frames in sizes.batch_sizes:
        step = Step(frames_of("MgAl2O4", n_frames), device=device, max_angles=10**9)
        try:
            (seconds,) = time_in_turns({"step": step}, 3, synchronizer(device)).values()
        except torch.cuda.OutOfMemoryError:
            return {"rows": rows, "out_of_memory_at_frames": n_frames}
        row = {"n_frames": n_frames, "frames_per_s": n_frames / statistics.median(seconds)}
        rows.append(row | {"peak_memory_gb": _peak(step, device)})
    return {"rows": rows, "out_of_memory_at_frames": None}


def _peak(call: Callable, device: str) -> float | None:
    return peak_memory_gb(call) if device != "cpu" else None


def prediction(device: str, sizes: Sizes) -> dict:
    """Crystals per second with forces and stress, beside chgnet's `predict_structure` on the same device."""
    from crossfunc.potential import load_model, predict

    crystals = frames_of("surrogate", sizes.n_predicted).crystals
    model = load_model("0.3.0", device=device)
    part = crystals.take(np.arange(min(sizes.n_chgnets, len(crystals)))).to_structures()
    predict(model, crystals.take(np.arange(min(8, len(crystals)))))
    clock = time.perf_counter()
    predict(model, crystals)
    ours = len(crystals) / (time.perf_counter() - clock)
    model.predict_structure(part[:8], batch_size=8)
    clock = time.perf_counter()
    model.predict_structure(part, batch_size=64)
    theirs = len(part) / (time.perf_counter() - clock)
    return {
        "n_crystals": len(crystals),
        "crystals_per_s": ours,
        "n_crystals_of_chgnet": len(part),
        "chgnet_crystals_per_s": theirs,
        "ratio": ours / theirs,
        "peak_memory_gb": _peak(lambda: predict(model, crystals), device),
    }


def relaxation(device: str, sizes: Sizes) -> dict:
    """Seconds to relax crystals of five atoms together."""
    from crossfunc.potential import load_model
    from crossfunc.stability.relax import CONVERGED, relax

    crystals, model = rattled_crystals(perovskite(), sizes.n_relaxed), load_model("0.3.0", device=device)
    clock = time.perf_counter()
    ended = relax(model, crystals, fmax=0.05, max_steps=sizes.relax_steps)
    seconds = time.perf_counter() - clock
    return {
        "n_crystals": len(crystals),
        "seconds": seconds,
        "n_steps": int(ended.n_steps.sum()),
        "steps_per_s": int(ended.n_steps.sum()) / seconds,
        "n_converged": int((ended.status == CONVERGED).sum()),
    }


def large_cell(device: str, sizes: Sizes) -> dict:
    """Seconds and peak memory of energy, forces and stress of one large crystal."""
    from crossfunc.potential import load_model, predict

    model, atoms = load_model("0.3.0", device=device), [rock_salt(sizes.n_atoms)]
    predict(model, atoms)
    clock = time.perf_counter()
    predict(model, atoms)
    seconds = time.perf_counter() - clock
    return {
        "n_atoms": sizes.n_atoms,
        "seconds": seconds,
        "peak_memory_gb": _peak(lambda: predict(model, atoms), device),
    }


# --- what the device could do ---


def share_of_device(device: str, sizes: Sizes) -> dict:
    """Rates of plain products and copies, and the share of them that a training step reaches."""
    import torch

    values = torch.ones(sizes.copied_bytes // 4, device=device)
    target = torch.empty_like(values)
    copies = time_in_turns({"copy": lambda: target.copy_(values)}, 5, synchronizer(device))["copy"]
    gb_per_s = 2 * values.nbytes / min(copies) / 1e9
    rates = matmul_gflop_per_s(device)
    with _tf32():
        rates |= {f"{name}_tf32": rate for name, rate in matmul_gflop_per_s(device).items()}
    name, n_frames = next(iter(sizes.batches.items()))
    step = Step(frames_of(name, n_frames), device=device)
    step()
    (seconds,) = time_in_turns({"step": step}, sizes.repeats, synchronizer(device)).values()
    time_s, gflop, touched_gb = statistics.median(seconds), count_flop(step) / 1e9, _count_bytes(step) / 1e9
    return {
        "copy_gb_per_s": gb_per_s,
        "matmul_gflop_per_s": rates,
        "step_gflop_per_s": gflop / time_s,
        "step_gb_per_s": touched_gb / time_s,
        "share_of_products": gflop / time_s / rates["large"],
        "share_of_bandwidth": touched_gb / time_s / gb_per_s,
    }


def _count_bytes(call: Callable) -> int:
    """Bytes of the tensors that PyTorch's operations read and write in a call, each time that one does."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        n_bytes = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if not function.is_view:
                leaves = tree_leaves((args, kwargs, result))
                self.n_bytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
            return result

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a mode sees only what its own thread does
    try:
        with Counter() as counter:
            call()
    finally:
        torch.set_num_threads(n_threads)
    return counter.n_bytes


PARTS: dict[str, Callable[[str, Sizes], dict]] = {
    "parity": parity,
    "training_step": training_step,
    "large_cell": large_cell,
    "prediction": prediction,
    "relaxation": relaxation,
    "batch_sizes": batch_sizes,
    "share_of_device": share_of_device,
}


def format_report(report: dict) -> str:
    """The measurements as lines for the terminal."""
    lines = [f"{report['device']}, torch {report['torch']}"]
    for name in PARTS:
        lines.append(name.replace("_", " "))
        lines += [f"  {key.replace('_', ' '):<26}{_short(value)}" for key, value in report[name].items()]
    return "\n".join(lines)


def _short(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(_short, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
