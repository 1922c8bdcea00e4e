"""CHGNet compiled for this machine: energies, forces, stress and gradients of a batch in one call, on a CPU.

A step on two crystals of a few atoms has so little arithmetic in it that most of its time went into calling PyTorch's
operations. `native.cpp` writes the network and its derivatives out; a C++ compiler makes a library of it when it is
first needed, kept for later. Where there is no compiler, a sentence says so, and PyTorch's operations give the same
numbers.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from crossfunc.files import write_atomically
from crossfunc.potential.graphs import GraphBatch
from crossfunc.potential.kernels import linears
from crossfunc.potential.watch import KeptWith, Structure

_SOURCE = Path(__file__).with_name("native.cpp")
_OPTIONS = (
    "-std=c++20",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-pthread",
)
_NAMES = {torch.float32: "float", torch.float64: "double"}
_COMPILERS = ("g++", "clang++")
_SECONDS_TO_COMPILE = 300
_OTHERS_WRITE = 0o022
_BONDS_FOR_THREADS = 400  # with fewer, starting a thread takes longer than what it could do

_allowed = True


@contextmanager
def without_native() -> Iterator[None]:
    """Compute with PyTorch's operations inside, as on a machine without a compiler."""
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before


def is_available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether there is a library for numbers of a type; compiles it if nobody has yet."""
    return _allowed and dtype in _NAMES and _library(dtype) is not None


def is_native(model: nn.Module) -> bool:
    """Whether the compiled library computes this network, apart from any correction; makes the library if need be."""
    parameter = next(model.parameters())
    return parameter.device.type == "cpu" and is_available(parameter.dtype) and _IS_COVERED(model)


def _covers(model: nn.Module) -> bool:
    """Whether the library knows all parts of this network."""
    if model.n_conv != 4:
        return False
    cutoffs = [f.smooth_cutoff for f in _radial_functions(model)]
    if any(cutoff is None or cutoff.p < 1 or cutoff.p != int(cutoff.p) for cutoff in cutoffs):
        return False
    outs = [linears(layer.mlp_out)[-1] for layer in (*model.atom_conv_layers, *model.bond_conv_layers)]
    return all(out.bias is None for out in outs)


_IS_COVERED = KeptWith(_covers, Structure)


def _radial_functions(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return model.bond_basis_expansion.rbf_expansion_ag, model.bond_basis_expansion.rbf_expansion_bg


# --- the library ---


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for numbers of a type; None, and a sentence, where it cannot be made."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "", *_COMPILERS))), None)
    try:
        if compiler is None:
            raise OSError("no C++ compiler was found; install g++ or clang++")
        return _open(_made(compiler, _NAMES[dtype]))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger("crossfunc").warning(
            "CHGNet runs on PyTorch's operations, several times slower for small cells and in training, because its "
            "library could not be compiled: %s.",
            error,
        )
        return None


def _made(compiler: str, number: str) -> Path:
    """The library's file: from an earlier run, or compiled now."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    identity = "\n".join([version, number, *_OPTIONS, _processor()]).encode() + _SOURCE.read_bytes()
    name = f"chgnet-{number}-{hashlib.sha256(identity).hexdigest()[:16]}.so"
    path = _own_folder() / name
    if not path.is_file():
        write_atomically(path, _compile(compiler, number))
    return path


def _compile(compiler: str, number: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "chgnet.so"
        command = [compiler, *_OPTIONS, f"-DREAL={number}", "-o", str(target), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_COMPILE)  # noqa: S603
        if done.returncode:
            raise OSError(f"{compiler} failed: {(done.stderr.strip() or 'no message').splitlines()[0]}")
        return target.read_bytes()


def _own_folder() -> Path:
    """Where libraries are kept: a folder that nobody else can write to, for what lies there is run."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (cache / "crossfunc", Path(tempfile.gettempdir()) / f"crossfunc-{user}"):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = folder.stat()
            if about.st_uid == user and not about.st_mode & _OTHERS_WRITE and os.access(folder, os.W_OK):
                return folder
    raise OSError(f"neither {cache} nor {tempfile.gettempdir()} can hold a folder that is this user's alone")


def _processor() -> str:
    """What -march=native depends on: a folder may be shared by machines of several kinds."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.machine()} {platform.processor()} {platform.version()}"


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.make_network.restype, library.make_network.argtypes = pointer, [pointer] * 3
    library.holds.restype, library.holds.argtypes = number, [pointer] * 2
    library.forget_network.restype, library.forget_network.argtypes = None, [pointer]
    library.evaluate.restype, library.evaluate.argtypes = pointer, [pointer, *[number] * 6, *[pointer] * 9]
    library.differentiate.restype, library.differentiate.argtypes = None, [pointer] * 6
    library.forget_batch.restype, library.forget_batch.argtypes = None, [pointer]
    return library


# --- a model's parameters, in the order of native.cpp ---


def _parameters_of(model: nn.Module) -> list[torch.Tensor]:
    """What the library reads; a layer whose weight is made of others gives it as it is now, with its graph."""
    return [
        p if (p := module._parameters.get(name)) is not None else getattr(module, name)
        for module, name in _OWNERS(model)
    ]


def _owners(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Module and name of every parameter."""
    long_radial, short_radial = _radial_functions(model)
    yield model.atom_embedding.embedding, "weight"
    yield from ((radial, "frequencies") for radial in (long_radial, short_radial))
    yield from ((layer, "weight") for layer in (model.bond_embedding, model.bond_weights_ag, model.bond_weights_bg))
    yield model.angle_basis_expansion.fourier_expansion, "frequencies"
    yield model.angle_embedding, "weight"
    for layer in model.atom_conv_layers:
        yield from _gate(layer.twoBody_atom, layer.mlp_out)
    for layer in model.bond_conv_layers:
        yield from _gate(layer.twoBody_bond, layer.mlp_out)
    for layer in model.angle_layers[:2]:  # what the third makes reaches no output
        yield from _gate(layer.twoBody_bond, None)
    for layer in (model.site_wise, model.readout_norm, *linears(model.mlp)):
        yield from ((layer, "weight"), (layer, "bias"))


def _gate(mlp: nn.Module, out: nn.Module | None) -> Iterator[tuple[nn.Module, str]]:
    layers = (*linears(mlp.mlp_core), *linears(mlp.mlp_gate), mlp.bn1, mlp.bn2)
    yield from ((layer, name) for layer in layers for name in ("weight", "bias"))
    if out is not None:
        yield linears(out)[-1], "weight"


_OWNERS = KeptWith(lambda model: list(_owners(model)), Structure)


# --- calls ---


class Network:
    """Parameters as the library multiplies them: a copy, which does not follow the model's."""

    def __init__(self, model: nn.Module, parameters: Sequence[torch.Tensor]):
        dtype = parameters[0].dtype
        library: Any = _library(dtype)
        given = [parameter.detach().contiguous() for parameter in parameters]
        sizes = (ctypes.c_int64 * len(given))(*map(torch.Tensor.numel, given))
        cutoffs = [x for f in _radial_functions(model) for x in (f.smooth_cutoff.cutoff, f.smooth_cutoff.p)]
        self.library = library
        self.handle = library.make_network(_addresses(given), sizes, (ctypes.c_double * 4)(*cutoffs))
        self.dtype, self.sizes = dtype, [*sizes]
        finalize(self, library.forget_network, self.handle)

    def holds(self, parameters: Sequence[torch.Tensor]) -> bool:
        """Whether it was made from parameters of just these bits."""
        if parameters[0].dtype != self.dtype or [p.numel() for p in parameters] != self.sizes:
            return False
        given = [p if p.is_contiguous() else p.contiguous() for p in parameters]
        return bool(self.library.holds(self.handle, _addresses(given)))


def network_of(model: nn.Module) -> Network:
    """Return the `Network` of a model as it is now: made again where one bit of it has changed."""
    parameters = _parameters_of(model)
    network = _NETWORKS.get(model)
    if network is None or not network.holds(parameters):
        network = _NETWORKS[model] = Network(model, parameters)
    return network


_NETWORKS: WeakKeyDictionary = WeakKeyDictionary()


class _Evaluated:
    """A batch with all that its derivatives need; the library's memory for it goes with this object."""

    def __init__(self, network: Network, batch: GraphBatch, n_threads: int, *, derivatives: bool, keep: bool):
        self.network, n_atoms, n_crystals = network, len(batch.owners), len(batch.n_atoms)
        vectors = batch.bond_vectors
        self.read = (
            batch.atomic_numbers,
            batch.owners,
            batch.bond_atoms,
            vectors,
            torch.linalg.vector_norm(vectors, dim=1),
        )
        new = vectors.new_empty
        self.results = new(n_atoms), new(n_atoms), new(n_atoms, 3), new(n_crystals, 3, 3)
        n_threads = n_threads if len(batch.bond_atoms) >= _BONDS_FOR_THREADS else 1
        numbers = n_threads, derivatives, keep, n_atoms, len(batch.bond_atoms), n_crystals
        addresses = map(torch.Tensor.data_ptr, (*self.read, *self.results))
        self.handle = network.library.evaluate(network.handle, *numbers, *addresses)
        if keep:
            finalize(self, network.library.forget_batch, self.handle)


def evaluate(
    network: Network, batch: GraphBatch, n_threads: int = 1, *, derivatives: bool = True
) -> tuple[torch.Tensor, ...]:
    """Energy of each atom, moment of each atom with its sign, forces, and virials dE/dstrain of each crystal."""
    return _Evaluated(network, batch, n_threads, derivatives=derivatives, keep=False).results


def evaluate_to_train(model: nn.Module, batch: GraphBatch) -> tuple[torch.Tensor, ...]:
    """Return the results of `evaluate` with a graph: a loss of them has a gradient by every parameter of the model."""
    return _Evaluate.apply(model, batch, *_parameters_of(model))


class _Evaluate(Function):
    @staticmethod
    def forward(ctx, model, batch, *parameters):
        ctx.evaluated = evaluated = _Evaluated(Network(model, parameters), batch, 1, derivatives=True, keep=True)
        ctx.shapes = [parameter.shape for parameter in parameters]
        results, evaluated.results = evaluated.results, ()  # held here, they would hold themselves, and their memory
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        evaluated = ctx.evaluated
        gradients = [gradient.contiguous() for gradient in gradients]
        sizes = [shape.numel() for shape in ctx.shapes]
        slopes = gradients[0].new_zeros(sum(sizes)).split(sizes)
        addresses = map(torch.Tensor.data_ptr, gradients)
        evaluated.network.library.differentiate(evaluated.handle, *addresses, _addresses(slopes))
        return None, None, *(slope.view(shape) for slope, shape in zip(slopes, ctx.shapes, strict=True))


def _addresses(tensors: Sequence[torch.Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*map(torch.Tensor.data_ptr, tensors))
