"""The folder of a training run: what it holds, when each file is written, and what may be resumed."""

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossfunc.potential.checkpoints import save_model, write_bytes
from crossfunc.training.settings import MAY_CHANGE

RUN_FILE = "run.json"
HISTORY_FILE = "history.csv"
CHECKPOINT_FILE = "last.ckpt"
BEST_FILE, BEST_TENSORS_FILE, LAST_FILE = "best.pt", "best.safetensors", "last.pt"
REFERENCES_FILE = "references.json"
_COMPARED = ("method", "functional", "pretrained", "references", "prior", "data", "split", "settings")


class RunError(ValueError):
    """A run folder that cannot be written, read or resumed; the message names the file and the remedy."""


class RunFolder:
    """One run on disk.

    `run.json` says what the run is (method, settings, fingerprints of data and split, versions) and, when it has
    finished, its metrics. At every row of the history `history.csv`, `best.pt` and `best.safetensors` (where the row
    is the best so far) and `last.pt` are written, each by replacing the former file, and `last.ckpt` after all of them:
    a run that is killed in between goes on from the checkpoint before and writes the same files again.

    Parameters
    ----------
    path : path
    description : dict
        What makes the run this one, from `describe_run`.
    """

    def __init__(self, path: str | os.PathLike, description: dict[str, Any]):
        self.path = Path(path)
        self.description = description
        self._spare = None  # a model to write weights from: copying one takes longer than writing it

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        return self.path / CHECKPOINT_FILE if (self.path / CHECKPOINT_FILE).exists() else None

    def open(self, *, resume: bool) -> dict[str, Any] | None:
        """Make the folder, or check that the run in it is this one; return its `run.json` if it has finished.

        Raises
        ------
        RunError
            The folder holds something else, a run of other data or settings (all differences are listed), any run
            with `resume=False`, or cannot be written.
        """
        if (self.path / RUN_FILE).exists():
            found = self._read()
            if not resume:
                raise RunError(f"{self.path}: holds a run already; choose another folder, or go on with resume=True.")
            self._compare(found)
            if found.get("metrics") is not None:
                return found
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(f"{self.path}: exists and holds no {RUN_FILE}; choose another folder for the run.")
        write_bytes(self.path / RUN_FILE, _to_json(self.description))
        return None

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the state that a killed run left, None if it left none."""
        import torch

        if self.checkpoint is None:
            return None
        try:
            return torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise RunError(
                f"{self.checkpoint}: cannot be read ({type(error).__name__}: {error}). Delete it to start the run "
                f"anew; {BEST_FILE} and {LAST_FILE} beside it are models of their own."
            ) from error

    def save(self, trainer, module) -> None:
        """Write a row's models and, last of all, the checkpoint. Every process has to call this."""
        if trainer.is_global_zero:
            if module.n_without_gain == 0 or not (self.path / BEST_TENSORS_FILE).exists():
                self.save_model(module.model, module.best_state, (BEST_FILE, BEST_TENSORS_FILE))
            self.save_model(module.model, module.validated_model.state_dict(), (LAST_FILE,))
        trainer.save_checkpoint(self.path / CHECKPOINT_FILE)

    def save_model(self, model, weights: Mapping, names: tuple[str, ...]) -> None:
        """Write a model of these weights, the architecture and references of `model`, to each of the names."""
        if self._spare is None:
            self._spare = copy.deepcopy(model).cpu()
        self._spare.load_state_dict(weights)
        provenance = {key: self.description[key] for key in ("method", "functional", "pretrained", "data")}
        for name in names:
            save_model(self._spare, self.path / name, provenance=provenance)

    def save_history(self, rows: list[dict]) -> None:
        """Write `history.csv`, one row a validation."""
        import pandas as pd

        write_bytes(self.path / HISTORY_FILE, pd.DataFrame(rows).to_csv(index=False).encode())

    def finish(self, references, **results: Any) -> None:
        """Write the fitted references, then metrics and notes into `run.json`: the run is complete."""
        if references is not None:
            write_bytes(self.path / REFERENCES_FILE, references.to_json().encode())
        write_bytes(self.path / RUN_FILE, _to_json(self.description | results))

    def _read(self) -> dict[str, Any]:
        file = self.path / RUN_FILE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: not readable ({error}); choose another folder for the run.") from error
        if not isinstance(found, dict):
            raise RunError(f"{file}: describes no run; choose another folder.")
        return found

    def _compare(self, found: Mapping[str, Any]) -> None:
        theirs, ours = _flatten(found), _flatten(json.loads(_to_json(self.description)))
        differs = [
            f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} now"
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)
        ]
        if differs:
            raise RunError(
                f"{self.path}: holds another run, which cannot go on as this one. It differs in\n  "
                + "\n  ".join(differs)
                + "\nChoose another folder, or call it with what it was started with."
            )


def describe_run(
    method, settings, frames, split, *, functional, pretrained, references, name, prior="auto"
) -> dict[str, Any]:
    """Return what makes a run this one, in plain values: two runs with equal descriptions give equal weights."""
    return {
        "method": method.key,
        "functional": functional,
        "pretrained": _identify(pretrained),
        "references": _identify(references),
        "prior": _identify(prior),
        "data": {"name": name, "n_frames": len(frames), "fingerprint": frames.fingerprint()},
        "split": {part: {"n_frames": len(rows), "sha256": _hash(rows)} for part, rows in split.items()},
        "settings": settings.to_dict(),
        "versions": _versions(),
        "metrics": None,
    }


def _identify(given) -> str | None:
    """Name of a published model or table; hash of a file, a model or references."""
    if given is None:
        return None
    if hasattr(given, "state_dict"):
        arrays = [np.ascontiguousarray(t.detach().cpu().numpy()) for t in given.state_dict().values()]
        return f"model {_hash(*arrays)}"
    if hasattr(given, "energies_ev"):
        return f"references {_hash(given.energies_ev)}"
    if isinstance(given, np.ndarray | list | tuple):
        return f"references {_hash(np.asarray(given, dtype=float))}"
    if Path(given).is_file():
        return f"file {hashlib.sha256(Path(given).read_bytes()).hexdigest()}"
    return str(given)


def _hash(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("crossfunc", "torch", "lightning", "chgnet", "numpy")}


def _flatten(description: Mapping[str, Any]) -> dict[str, Any]:
    """Name to value of all that two runs have to share."""
    flat: dict[str, Any] = {}
    for key in _COMPARED:
        value = description.get(key)
        flat |= {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
    # the same data under another name, or on other devices, is the same run
    ignored = {"data.name", *(f"settings.{name}" for name in MAY_CHANGE)}
    return {name.removeprefix("settings."): value for name, value in flat.items() if name not in ignored}


def _to_json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
