"""CHGNet files: written so that stock chgnet reads them, read without running code; and the references inside."""

import contextlib
import inspect
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np

from crossfunc.energies import AtomRefError
from crossfunc.files import write_atomically
from crossfunc.potential.direct import DirectModel
from crossfunc.potential.drawing import drawn_from
from crossfunc.symbols import ELEMENT_SYMBOLS, N_ELEMENTS
from crossfunc.vendor import import_chgnet

SUFFIXES = (".pt", ".pth", ".tar", ".safetensors")

_ABSENT_BELOW_EV = 1e-6  # chgnet stores ~1e-14 eV for elements that were not in its data
_INTENSIVE_TABLES = ("MPtrj", "MPtrj_e", "MP-r2SCAN")  # names chgnet knows whose references count fractions, not atoms
_MAX_WIDTH = 1024  # of a correction network: a file decides how much memory is asked for
_HIDDEN_DEFAULTS = {"conv_norm": None, "mlp_out_bias": False, "final_mlp": "MLP"}  # chgnet takes them from **kwargs


class CheckpointError(ValueError):
    """A model file that cannot be written or used; the message names the file and the remedy."""


def save_model(model, path: str | os.PathLike, *, provenance: dict | None = None) -> None:
    """Write a model: all of it, or nothing; a former file of that name stays until the new one is complete.

    Parameters
    ----------
    model : CHGNet
    path : str or path
        ".pt", ".pth" or ".pth.tar": a file that stock `chgnet.model.CHGNet.from_file` loads. ".safetensors": the
        weights, with the constructor's arguments and the provenance as JSON in the metadata. Weights are stored in
        float32, which is what chgnet computes in.
    provenance : dict, optional
        What JSON can hold, for `read_provenance`; the versions of crossfunc, chgnet and torch are added.

    Raises
    ------
    CheckpointError
        Another suffix, provenance that is no JSON, a folder that cannot be written to, or a full disk.
    """
    import torch

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: a model file ends in .pt, .pth.tar or .safetensors; choose one of them.")
    _check_parts(path, model)
    state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    args, provenance = _plain_args(model), _plain_provenance(path, provenance)
    if path.suffix == ".safetensors":
        texts = {"format": "pt", "model_args": json.dumps(args), "provenance": json.dumps(provenance)}
        data = _sort_header(_import_safetensors(path).torch.save(state, metadata=texts))
    else:
        stream = io.BytesIO()
        torch.save({"model": {"state_dict": state, "model_args": args}, "provenance": provenance}, stream)
        data = stream.getvalue()
    write_bytes(path, data)


def _sort_header(data: bytes) -> bytes:
    """Sort the header of a safetensors file, whose metadata the library writes in an order drawn by chance."""
    (n_bytes,) = struct.unpack("<Q", data[:8])
    header = json.dumps(json.loads(data[8 : 8 + n_bytes]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants the tensors aligned
    return struct.pack("<Q", len(header)) + header + data[8 + n_bytes :]


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, also after a crash or on a full disk.

    Raises
    ------
    CheckpointError
        The file cannot be written; names it, and says what to do.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or choose another folder; "
            "what was there before is unchanged."
        ) from error


def read_model(path: str | os.PathLike):
    """Build the CHGNet in a file written by `save_model` or by chgnet itself, on the CPU; see `load_model`."""
    path = Path(path)
    state, args, _ = _read(path)
    model = _construct(_check_args(path, args))
    width = args.get("correction_width") if isinstance(args, dict) else None
    if width is not None:
        _build_correction(path, model, width)
    _check_state(path, state, model.state_dict())
    model.load_state_dict(state)
    return model


def read_provenance(path: str | os.PathLike) -> dict:
    """Return what `save_model` was told about a model file; empty for files that others wrote."""
    return _read(Path(path))[2]


def scratch_model(seed: int = 0):
    """Build a CHGNet of the 0.3.0 architecture with fresh weights: a function of the seed alone.

    Parameters
    ----------
    seed : int
        The process's random state is left as it was.

    Returns
    -------
    CHGNet
        float32, on the CPU, in evaluation mode; with the element references of MPtrj, which a method replaces.
    """
    with drawn_from(seed):
        model = _construct({})
    return model.float().eval()


def element_references(model) -> np.ndarray:
    """Return the element references that a model adds to its energies, eV/atom, float64 of shape (94,).

    NaN where it has none: chgnet stores 0 or about 1e-14 for elements that were not in its data.
    """
    if isinstance(model, DirectModel):
        return model.references_ev
    if model.composition_model is None:
        return np.full(N_ELEMENTS, np.nan)
    energies = model.composition_model.fc.weight.detach().cpu().numpy()[0].astype(np.float64)
    energies[np.abs(energies) < _ABSENT_BELOW_EV] = np.nan
    return energies


def set_element_references(
    model, energies_ev, *, absent: str = "keep", trainable: bool = False, source: str = "given"
) -> None:
    """Replace the element references inside a model; everything else in it stays as it is.

    Parameters
    ----------
    model : CHGNet
        Changed in place.
    energies_ev : array_like, shape (94,)
        eV/atom, element Z at index Z - 1; NaN where there is none.
    absent : "keep" or "raise"
        Elements with NaN keep what the model has, or are an error.
    trainable : bool
        Whether the optimiser may move them.
    source : str
        Where they come from; stored beside the weights (`model_args["element_references"]`), because chgnet's own
        entry names one of its tables whatever the weights are.

    Raises
    ------
    AtomRefError
        Another shape, an infinite energy, or (absent="raise") a NaN; names the elements.
    """
    import torch

    energies = np.asarray(getattr(energies_ev, "energies_ev", energies_ev), dtype=np.float64)
    if energies.shape != (N_ELEMENTS,) or np.isinf(energies).any():
        raise AtomRefError(
            f"element references have shape {energies.shape}: give {N_ELEMENTS} energies or NaN, H to Pu"
        )
    if absent not in ("keep", "raise"):
        raise AtomRefError(f"absent={absent!r}: choose 'keep' or 'raise'")
    missing = np.isnan(energies)
    if absent == "raise" and missing.any():
        names = ", ".join(ELEMENT_SYMBOLS[k] for k in np.flatnonzero(missing))
        raise AtomRefError(f"no element reference for {names}: give them energies, or absent='keep'")
    parameter = next(model.parameters())
    if model.composition_model is None:
        model.composition_model = import_chgnet("chgnet.model.composition_model").AtomRef().to(parameter)
        model.composition_model.fc.weight.data.zero_()
    references = model.composition_model
    with torch.no_grad():
        given = torch.from_numpy(np.nan_to_num(energies)).to(references.fc.weight)
        references.fc.weight[0] = torch.where(
            torch.from_numpy(missing).to(given.device), references.fc.weight[0], given
        )
    references.fc.weight.requires_grad_(trainable)
    references.fitted = references.is_intensive = True  # plain attributes: no state_dict carries them
    if model.model_args.get("composition_model") not in _INTENSIVE_TABLES:
        model.model_args["composition_model"] = "MPtrj"
    model.model_args["element_references"] = source


def _check_parts(path: Path, model) -> None:
    """Refuse to write what a reader of the file would leave out or could not build."""
    if hasattr(model, "source_readout") or any(hasattr(module, "merged") for module in model.modules()):
        raise CheckpointError(
            f"{path}: this model is one in training, with parts that no file holds; save what `finetune` returns, or "
            "export it first with `export` of the method's strategy."
        )
    correction = getattr(model, "correction", None)
    if correction is None:
        return
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: stock chgnet has no place for a correction network; save as .safetensors.")
    if not hasattr(correction, "width"):
        raise CheckpointError(f"{path}: a file can hold a SmallNetwork as correction, not {type(correction).__name__}.")


def _plain_args(model) -> dict:
    """Constructor arguments that chgnet takes back and that JSON and `weights_only` can hold."""
    args = {key: list(value) if isinstance(value, tuple) else value for key, value in model.model_args.items()}
    if model.composition_model is None:
        args["composition_model"] = None
    elif args.get("composition_model") not in _INTENSIVE_TABLES:  # a module, as chgnet also accepts
        args["composition_model"] = "MPtrj"
    if getattr(model, "correction", None) is not None:
        args["correction_width"] = model.correction.width
    return args


def _plain_provenance(path: Path, provenance: dict | None) -> dict:
    versions = {name: metadata.version(name) for name in ("crossfunc", "chgnet", "torch")}
    try:
        return json.loads(json.dumps({**(provenance or {}), "versions": versions}))
    except TypeError as error:
        raise CheckpointError(f"{path}: provenance must be plain values, for JSON ({error}).") from error


def _import_safetensors(path: Path):
    try:
        import safetensors.torch
    except ImportError as error:
        raise CheckpointError(f"{path}: needs safetensors; pip install 'crossfunc[train]', or use .pt.") from error
    return safetensors


def _read(path: Path) -> tuple[dict, dict, dict]:
    """State, constructor arguments and provenance of a model file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
        if not head:
            raise CheckpointError(f"{path}: the file is empty; copy or write it again.")
        if other := _recognise(head):
            raise CheckpointError(f"{path}: not a CHGNet checkpoint: this is {other}.")
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: not a CHGNet checkpoint: its content is nested too deeply.") from error


_POINTER = "a pointer of {}, not the file it stands for; get that with {} where the file comes from"
_KNOWN_BEGINNINGS = (
    (b"version https://git-lfs", _POINTER.format("a large-file store (Git LFS)", "`git lfs pull`")),
    (b"/annex/objects/", _POINTER.format("git-annex", "`git annex get`")),
    (b"../.git/annex/", _POINTER.format("git-annex", "`git annex get`")),
    (b"\x89HDF", "an HDF5 file; convert it to a state_dict and write it with crossfunc.save_model"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"\x93NUMPY", "an array of NumPy; a model is a file of chgnet or of crossfunc.save_model"),
    (b"PAR1", "a parquet table; a model is a file of chgnet or of crossfunc.save_model"),
    (b"%PDF", "a PDF document; download the model itself"),
    (b"<?xml", "an XML document, often an error message of a server; download the file again"),
)


def _recognise(head: bytes) -> str | None:
    """Say what a file is that begins so and is no model; None where it may be one."""
    for beginning, what in _KNOWN_BEGINNINGS:
        if head.startswith(beginning):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<!--")):
        return "a web page, perhaps one that asks to log in; download the file again"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first (chgnet's own .pth.tar files are none)"
    if text.startswith((b"{", b"[")):
        return "a JSON document, perhaps a server's error message; download the file again"
    return None


def _read_safetensors(path: Path) -> tuple[dict, dict, dict]:
    library = _import_safetensors(path)
    try:
        with library.safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
    except library.SafetensorError as error:
        raise CheckpointError(f"{path}: truncated, or not a safetensors file ({error}); copy it again.") from error
    try:
        args, provenance = json.loads(texts["model_args"]), json.loads(texts.get("provenance", "{}"))
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a CHGNet checkpoint: its metadata hold no model_args. Write it with crossfunc.save_model."
        ) from error
    return state, args, provenance


def _read_torch(path: Path) -> tuple[dict, dict, dict]:
    import torch

    with path.open("rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"
    if is_archive and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated: the end of the archive is missing; copy or write it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles by other programs
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose text advises to read it without that protection
        hint = "it holds Python objects, which could run code. Of a training run, load best.pt or last.pt"
        raise CheckpointError(
            f"{path}: not a CHGNet checkpoint: {hint if is_archive else 'no file of PyTorch; copy or write it again'}."
        ) from error
    except RecursionError:
        raise
    except Exception as error:  # what a reader makes of arbitrary bytes can be anything
        raise CheckpointError(
            f"{path}: not a CHGNet checkpoint, or damaged ({first_line(error)}); copy or write it again."
        ) from error
    try:
        state, args = content["model"]["state_dict"], content["model"]["model_args"]
    except (KeyError, TypeError, IndexError) as error:
        keys = ", ".join(str(key)[:40] for key in content) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path}: not a CHGNet checkpoint: no entry 'model' with 'state_dict' and 'model_args' in it (it holds "
            f"{keys[:200]}). Of a training run, load best.pt or last.pt."
        ) from error
    provenance = content.get("provenance")
    return state, args, provenance if isinstance(provenance, dict) else {}


def first_line(error: Exception) -> str:
    """Return an error's kind and the first line of its text, as it may be passed on."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    # no message of ours passes on the advice to turn a protection off
    return type(error).__name__ if not text or "weights_only" in text else f"{type(error).__name__}: {text}"


def _check_args(path: Path, given) -> dict:
    """Refuse another architecture before it is built: the arguments decide how much memory that takes."""
    try:
        args = json.loads(json.dumps(given))  # plain values, lists for tuples
        differs = {name: args[name] for name, value in _architecture().items() if args.get(name, value) != value}
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a CHGNet checkpoint: its model_args are no plain values.") from error
    if differs:
        named = ", ".join(f"{name}={str(value)[:40]}" for name, value in differs.items())
        raise CheckpointError(
            f"{path}: this CHGNet differs from 0.3.0 in {named}; only the 0.3.0 architecture is supported."
        )
    table = args.get("composition_model", "MPtrj")
    if table not in (None, *_INTENSIVE_TABLES):
        raise CheckpointError(
            f"{path}: its element references {str(table)[:40]!r} are none of {', '.join(_INTENSIVE_TABLES)}; only "
            "references per atom are supported."
        )
    return {"composition_model": table} | {k: str(args[k]) for k in ("element_references", "version") if args.get(k)}


def _build_correction(path: Path, model, width) -> None:
    from crossfunc.potential.correction import SmallNetwork, add_correction

    if not isinstance(width, int) or not 1 <= width <= _MAX_WIDTH:
        raise CheckpointError(f"{path}: its correction has width {str(width)[:40]}; expected 1 to {_MAX_WIDTH}.")
    add_correction(model, SmallNetwork(width))


def _architecture() -> dict:
    """Arguments of chgnet's constructor that decide the architecture, at the values of 0.3.0: its defaults."""
    signature = inspect.signature(import_chgnet("chgnet.model").CHGNet.__init__).parameters
    names = signature.keys() - {"self", "kwargs", "composition_model", "version", "graph_converter_algorithm"}
    return json.loads(json.dumps({name: signature[name].default for name in names} | _HIDDEN_DEFAULTS))


def _check_state(path: Path, state, expected: dict) -> None:
    import torch

    tensors = isinstance(state, dict) and all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    if not tensors or not all(isinstance(name, str) for name in state):
        raise CheckpointError(f"{path}: not a CHGNet checkpoint: its state_dict does not hold tensors only.")
    wrong = [name for name in expected if name not in state] + [name for name in state if name not in expected]
    wrong += [name for name in expected if name in state and state[name].shape != expected[name].shape]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{path}: its weights are not those of CHGNet 0.3.0's architecture: "
            f"{', '.join(name[:80] for name in wrong[:3])}{more} missing, unknown or of another shape."
        )
    odd = [name for name, tensor in state.items() if not _holds_numbers(tensor)]
    if odd:
        raise CheckpointError(
            f"{path}: {len(odd)} of its weights are no plain floating-point numbers, {odd[0]} first "
            f"({_kind_of(state[odd[0]])}); write them as float32."
        )
    # after the conversion to the model's float32, in which large numbers of float64 are infinite
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor.to(expected[name].dtype)).all()]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} of its weights hold NaN or infinity, {broken[0]} first (read as "
            f"{_kind_of(expected[broken[0]])}): the training diverged. Use an earlier checkpoint."
        )


def _holds_numbers(tensor) -> bool:
    import torch

    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return plain and tensor.is_floating_point()


def _kind_of(tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if str(tensor.layout) != "torch.strided":
        return f"{kind}, sparse"
    return f"{kind} without values" if tensor.device.type == "meta" else kind


def _construct(args: dict):
    import torch

    # its constructor prints, and draws weights from the global generator
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(devices=[]):
        return import_chgnet("chgnet.model").CHGNet(**args)
