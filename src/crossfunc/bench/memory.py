"""Memory of a training run on a dataset of the paper's size: made up, streamed to disk, trained on for a while.

Labels and structures are invented (atoms on a jittered grid), because only their number matters here.
"""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import numpy as np

from crossfunc.bench.progress import in_fresh_process, scratch_folder, tell

N_ATOMS = 31
"""Atoms of every frame: the mean of MP-r2SCAN."""
_CHUNK_FRAMES = 2_000
_STATUS = Path("/proc/self/status")
_SPACING_A = 2.4  # of the grid of atoms: about as dense as an oxide
_ELEMENTS = (3, 8, 12, 14, 22, 26)


class BenchError(ValueError):
    """A benchmark that cannot be run here; the message says what it needs."""


def write_frames(path: str | os.PathLike, n_frames: int, *, n_atoms: int = N_ATOMS, seed: int = 0) -> Path:
    """Write a dataset of made-up frames, a few thousand at a time.

    Parameters
    ----------
    path : str or path
        Folder to make.
    n_frames : int
        Seven of them share a material.
    n_atoms : int
        Atoms of each, on a grid of 2.4 Å with jitter; elements drawn from six.
    seed : int

    Returns
    -------
    Path
        The folder, which `open_dataset` opens: r2SCAN frames with energies, forces, stresses and moments.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from crossfunc.datasets.functionals import describe_functionals
    from crossfunc.datasets.schema import FRAMES

    path = Path(path)
    path.mkdir(parents=True)
    schema = pa.schema([column.field for column in FRAMES])
    file = path / "frames.parquet"
    rng = np.random.default_rng(seed)
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for start in range(0, n_frames, _CHUNK_FRAMES):
            writer.write_table(_chunk(range(start, min(n_frames, start + _CHUNK_FRAMES)), n_atoms, rng, schema))
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    meta = {
        "name": path.name,
        "version": "0",
        "licence": "CC0-1.0",
        "citation": "made up by crossfunc bench memory",
        "provenance": "random numbers",
        "functionals": describe_functionals("none", "made up", keys=("none", "r2scan")),
        "label_notice": "random numbers, no labels",
        "files": {"frames.parquet": {"sha256": digest, "rows": n_frames}},
    }
    (path / "dataset.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return path


def _chunk(frames: range, n_atoms: int, rng: np.random.Generator, schema):
    """Record batch of some frames, as a table."""
    import pyarrow as pa

    n, side = len(frames), int(np.ceil(n_atoms ** (1 / 3)))
    layers = -(-n_atoms // side**2)
    grid = np.stack(np.meshgrid(*map(np.arange, (side, side, layers)), indexing="ij"), axis=-1).reshape(-1, 3)[:n_atoms]
    shape = np.array([side, side, layers])
    coords = (grid + 0.5 + rng.uniform(-0.1, 0.1, (n, n_atoms, 3))) / shape
    lattices = np.eye(3) * (shape * _SPACING_A) + rng.normal(0, 0.05, (n, 3, 3))

    def lists(values, width):
        return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * width), pa.array(values.ravel()))

    columns = {
        "frame_id": [f"f{k}" for k in frames],
        "material_id": [f"m{k // 7}" for k in frames],
        "functional": ["r2scan"] * n,
        "energy_kind": ["raw"] * n,
        "atomic_numbers": lists(rng.choice(np.array(_ELEMENTS, dtype=np.int16), (n, n_atoms)), n_atoms),
        "lattice_a": pa.FixedSizeListArray.from_arrays(pa.array(lattices.ravel()), 9),
        "frac_coords": lists(coords, 3 * n_atoms),
        "energy_per_atom_ev": rng.normal(-10, 1, n),
        "forces_ev_per_a": lists(rng.normal(0, 0.3, (n, n_atoms, 3)), 3 * n_atoms),
        "stress_gpa": lists(rng.normal(0, 3, (n, 9)), 9),
        "magmoms_mub": lists(rng.uniform(0, 1, (n, n_atoms)), n_atoms),
        "source": ["made up"] * n,
    }
    return pa.table(columns, schema=schema)


def run(n_frames: int = 200_000, n_steps: int = 20, *, batch_size: int = 16, folder: str | os.PathLike | None = None):
    """Measure the memory of `finetune` on made-up frames, in a fresh process.

    Parameters
    ----------
    n_frames : int
    n_steps : int
        Optimiser steps; memory does not grow after the first few.
    batch_size : int
    folder : str or path, optional
        Where to make the dataset (about 2.2 kB per frame); by default a temporary folder. It is deleted afterwards.

    Returns
    -------
    dict
        `peak_gb`: the most that the process held besides the page cache (RssAnon + RssShmem) from its start to the end
        of the run; `imports_gb`: what the libraries alone take; `frames_gb`: what the arrays of the frames hold;
        `file_gb`: size of the dataset on disk. Also `n_frames`, `n_atoms_per_frame`, `n_steps`, `batch_size`,
        seconds of each part, and `bar_gb`, the 2 GB this project promises.

    Raises
    ------
    BenchError
        The system does not tell (Linux does, in /proc).
    """
    if not _STATUS.exists():
        raise BenchError(f"{_STATUS} does not exist: memory is measured on Linux only.")
    with scratch_folder(folder) as scratch:
        clock = time.perf_counter()
        path = write_frames(scratch / "made-up", n_frames)
        seconds_write = time.perf_counter() - clock
        tell(f"{n_frames:,} frames written in {seconds_write:.1f} s; {n_steps} steps of training on them")
        file_gb = (path / "frames.parquet").stat().st_size / 1e9
        measured = in_fresh_process(_train, str(path), n_steps, batch_size)
    sizes = {"n_frames": n_frames, "n_atoms_per_frame": N_ATOMS, "n_steps": n_steps, "batch_size": batch_size}
    return {**sizes, **measured, "file_gb": file_gb, "seconds_write": seconds_write, "bar_gb": 2.0}


def _train(path: str, n_steps: int, batch_size: int) -> dict:
    """In the fresh process: open the dataset, train, and report the peak of what it held."""
    with _PeakMemory() as memory:
        import crossfunc as xf
        from crossfunc.training.labels import LabelledFrames

        xf.load_model("0.3.0")
        import lightning.pytorch  # noqa: F401, so that it counts among the imports

        imports_gb = memory.now_gb()
        clock = time.perf_counter()
        frames = LabelledFrames.from_dataset(path)
        seconds_read = time.perf_counter() - clock
        arrays = [*vars(frames.crystals).values(), *vars(frames).values()]
        frames_gb = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) / 1e9
        n_validation = max(1, min(64, len(frames) // 10))
        order = np.arange(len(frames))
        split = {"train": order[n_validation:], "validation": order[:n_validation]}
        clock = time.perf_counter()
        xf.finetune(4, frames, split=split, max_steps=n_steps, batch_size=batch_size, progress=False)
        seconds_train = time.perf_counter() - clock
    return {
        "peak_gb": memory.peak_gb,
        "imports_gb": imports_gb,
        "frames_gb": frames_gb,
        "seconds_read": seconds_read,
        "seconds_train": seconds_train,
    }


class _PeakMemory:
    """The most that this process held besides the page cache while the block ran, looked at every 10 ms."""

    def __enter__(self):
        self.peak_gb = self.now_gb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.01):
            self.peak_gb = max(self.peak_gb, self.now_gb())

    @staticmethod
    def now_gb() -> float:
        """RssAnon + RssShmem: what the process itself has filled, without the files that it has mapped."""
        status = _STATUS.read_text(encoding="ascii")
        kilobytes = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))]
        return sum(kilobytes) * 1024 / 1e9


def format_report(report: dict) -> str:
    """The measurements as a table for the terminal."""
    lines = {
        "frames": f"{report['n_frames']:,} of {report['n_atoms_per_frame']} atoms, {report['file_gb']:.2f} GB on disk",
        "written in": f"{report['seconds_write']:.1f} s",
        "read in": f"{report['seconds_read']:.1f} s, {report['frames_gb']:.2f} GB of arrays",
        "trained": f"{report['n_steps']} steps of {report['batch_size']} frames, {report['seconds_train']:.1f} s",
        "libraries": f"{report['imports_gb']:.2f} GB",
        "peak": f"{report['peak_gb']:.2f} GB besides the page cache (at most {report['bar_gb']:g} GB is the aim)",
    }
    return "\n".join(f"{name:<14}{value}" for name, value in lines.items())
