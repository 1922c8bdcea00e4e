"""The folder of a training run: what it holds, when each file is written, and what may be resumed."""

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crossfunc.energies.atomref import AtomRefFit
from crossfunc.files import DRAFT_SUFFIX, LOCK_FILE, locked_folder, remove_drafts
from crossfunc.potential.checkpoints import first_line, save_model, write_bytes
from crossfunc.potential.native import is_available
from crossfunc.potential.parallel import n_batches_at_a_time
from crossfunc.training.settings import MAY_CHANGE
from crossfunc.training.strategies import Strategy, source_view

if TYPE_CHECKING:
    import torch

RUN_FILE = "run.json"
HISTORY_FILE = "history.csv"
CHECKPOINT_FILE = "last.ckpt"
BEST_FILE, BEST_TENSORS_FILE, LAST_FILE = "best.pt", "best.safetensors", "last.pt"
LAST_TENSORS_FILE = "last.safetensors"
SOURCE_FILE, SOURCE_TENSORS_FILE = "best-source.pt", "best-source.safetensors"
REFERENCES_FILE = "references.json"
_COMPARED = (
    *("method", "options", "functional", "pretrained", "references", "prior", "source", "data", "split", "settings"),
    "learning_rates",
)


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
    strategy : Strategy, optional
        The method's: it makes plain models of what is trained.
    """

    def __init__(self, path: str | os.PathLike, description: dict[str, Any], strategy: Strategy | None = None):
        self.path = Path(path)
        self.description = description
        self.strategy = strategy or Strategy()
        self.best_files, self.last_files = model_files(self.strategy)
        # A model to write weights from: copying one takes longer than writing it.
        self._spare: torch.nn.Module | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        return self.path / CHECKPOINT_FILE if (self.path / CHECKPOINT_FILE).exists() else None

    def read_finished(self, *, resume: bool) -> dict[str, Any] | None:
        """Check that the run in the folder, if any, is this one; return its `run.json` if it has finished.

        Raises
        ------
        RunError
            The folder holds something else, a run of other data or settings (all differences are listed), or any run
            with `resume=False`.
        """
        if (self.path / RUN_FILE).exists():
            found = self._read()
            if not resume:
                raise RunError(f"{self.path}: holds a run already; choose another folder, or go on with resume=True.")
            if found.get("metrics") is None and not self._has_begun():
                return None  # it was refused, or stopped, before anything was computed
            self._compare(found)
            if found.get("metrics") is not None:
                return found
            self._take_over(found)
        elif self.path.exists() and (not self.path.is_dir() or any(_not_ours(self.path))):
            raise RunError(f"{self.path}: exists and holds no {RUN_FILE}; choose another folder for the run.")
        return None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder while the run goes on: make it, remove what killed writes left, say what the run is.

        Raises
        ------
        FolderInUse
            Another process runs in it.
        CheckpointError
            It cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.path}: no folder can be made there ({error.strerror or error}); choose another one for the run."
            ) from error
        with locked_folder(self.path):
            remove_drafts(self.path)
            write_bytes(self.path / RUN_FILE, _to_json(self.description))
            yield

    def _has_begun(self) -> bool:
        names = (CHECKPOINT_FILE, HISTORY_FILE, BEST_FILE, BEST_TENSORS_FILE, LAST_FILE, LAST_TENSORS_FILE)
        return any((self.path / name).exists() for name in names)

    @property
    def computed_with(self) -> dict[str, Any]:
        """What decides the order in which numbers are added up, and so the last bits of the result."""
        return self.description["computed_with"]

    def _take_over(self, found: Mapping[str, Any]) -> None:
        """Go on with the parts that the run was started with; where that cannot be, note it."""
        before, now = found.get("computed_with") or {}, self.computed_with
        differs = [name for name in now if name != "n_parts" and before.get(name) != now[name]]
        if differs:
            changes = ", ".join(f"{name} {before.get(name)} before, {now[name]} now" for name in differs)
            note = f"Gone on with ({changes}): the same run but for the rounding of numbers."
            self.description["resumed"] = [*found.get("resumed", []), note]
        else:
            self.description |= {"computed_with": before, "resumed": found.get("resumed", [])}

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Read the state that a killed run left, None if it left none."""
        import torch

        if self.checkpoint is None:
            return None
        try:
            return torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # what a reader makes of arbitrary bytes can be anything
            raise RunError(
                f"{self.checkpoint}: cannot be read ({first_line(error)}). Delete it to start the run "
                f"anew; {BEST_FILE} and {LAST_FILE} beside it are models of their own."
            ) from error

    def save(self, trainer, module) -> None:
        """Write a row's models and, last of all, the checkpoint. Every process has to call this."""
        if trainer.is_global_zero:
            if module.n_without_gain == 0 or not (self.path / BEST_TENSORS_FILE).exists():
                self.save_model(module.model, module.best_state, self.best_files)
            self.save_model(module.model, module.validated_model.state_dict(), self.last_files)
        trainer.save_checkpoint(self.path / CHECKPOINT_FILE)

    def save_model(self, model, weights: Mapping, names: tuple[str, ...]) -> None:
        """Write a model of these weights, the architecture and references of `model`, to each of the names."""
        if self._spare is None:
            self._spare = copy.deepcopy(model).cpu()
        self._spare.load_state_dict(weights)
        provenance = {key: self.description[key] for key in ("method", "functional", "pretrained", "data")}
        target, source = plain_models(self._spare, self.strategy)
        for name in names:
            save_model(target, self.path / name, provenance=provenance)
        if source is not None and names == self.best_files:
            provenance["functional"] = self.description["source"]["functional"]
            for name in (SOURCE_FILE, SOURCE_TENSORS_FILE):
                save_model(source, self.path / name, provenance=provenance)

    def save_history(self, rows: list[dict]) -> None:
        """Write `history.csv`, one row a validation."""
        import pandas as pd

        write_bytes(self.path / HISTORY_FILE, pd.DataFrame(rows).to_csv(index=False).encode())

    def keep_references(self, references):
        """Write the fitted references, or return those that the run was started with: a second fit may round."""
        if references is None:
            return None
        if self.checkpoint is not None and (self.path / REFERENCES_FILE).exists():
            return AtomRefFit.from_json(self.path / REFERENCES_FILE)
        write_bytes(self.path / REFERENCES_FILE, references.to_json().encode())
        return references

    def finish(self, **results: Any) -> None:
        """Write metrics and notes into `run.json`: the run is complete."""
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


def model_files(strategy: Strategy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files of the best and of the last model; stock chgnet's format where it has a place for them."""
    if strategy.stock:
        return (BEST_FILE, BEST_TENSORS_FILE), (LAST_FILE,)
    return (BEST_TENSORS_FILE,), (LAST_TENSORS_FILE,)


def plain_models(model, strategy: Strategy) -> tuple:
    """Return plain models of the target and, where it has a readout of its own (else None), of the source functional.

    The model given stays as it is, unless it is plain already: then it is the first of the two.
    """
    if type(strategy).export is Strategy.export:
        return model, None
    source = copy.deepcopy(source_view(model)) if strategy.has_source_readout else None
    target = copy.deepcopy(model)
    strategy.export(target)
    return target, source


class RunStart(NamedTuple):
    """What a run started from."""

    pretrained: str
    """Name of a published model; of a file or a model in memory a hash, "file ..." or "model ..."."""
    split_seed: int
    """Seed of its split by material."""

    functional: str | None = None
    """Whose frames it was trained on, None where it was given frames."""

    fingerprint: str = ""
    """Fingerprint of all its frames; empty where no run says."""

    parts: Mapping[str, str] = {}
    """Part of its split to the hash of the rows."""

    def refuse_other_split(self, frames, parts: Mapping[str, np.ndarray]) -> None:
        """Refuse frames, or parts of them, that are not those of the run.

        Parameters
        ----------
        frames : LabelledFrames
            Those of the run's functional.
        parts : dict of str to ndarray
            Rows of each part.

        Raises
        ------
        RunError
            Trained on other frames, whose split says nothing of these; or the run split them otherwise.
        """
        if frames.fingerprint() != self.fingerprint:
            raise RunError(
                "the run was trained on other frames than those of this dataset, so its split says nothing of them; "
                "name its own with --dataset, or a split with --split-seed."
            )
        if any(_hash(rows) != self.parts.get(part) for part, rows in parts.items()):
            raise RunError(
                f"the run was not split 8:1:1 by material with seed {self.split_seed} as here, so frames that it was "
                "trained on would count as held out; judge it in Python, where its split is: "
                "xf.evaluate(model, frames, split=split)."
            )

    def find_model(self, given: str | None = None) -> str:
        """Name or path of the model before training.

        Parameters
        ----------
        given : str, optional
            A name or path in place of the recorded one.

        Raises
        ------
        RunError
            A hash alone is recorded and nothing is given, or another file.
        """
        kind = self.pretrained.partition(" ")[0]
        if given is None and kind in ("file", "model"):
            raise RunError(
                f"the run started from a {kind} of its own, of which {RUN_FILE} has a hash alone; name it with --start."
            )
        if given is not None and kind == "file" and identify_given(given) != self.pretrained:
            raise RunError(f"{given}: the run started from another file; name that one with --start.")
        return self.pretrained if given is None else given


def read_start(run: str | os.PathLike) -> RunStart:
    """What the run in a folder started from.

    Raises
    ------
    RunError
        No run in this folder.
    """
    about = _read_run(run)
    parts = {part: found["sha256"] for part, found in about["split"].items()}
    origin = about["pretrained"], about["settings"]["split_seed"]
    return RunStart(*origin, about.get("functional"), about["data"]["fingerprint"], parts)


def _read_run(run: str | os.PathLike) -> dict[str, Any]:
    """What a run's folder says of it."""
    folder = RunFolder(run, {})
    if not (folder.path / RUN_FILE).is_file():
        raise RunError(
            f"{folder.path}: no folder of a run, {RUN_FILE} is missing; give a model's file, or what --out of "
            "`crossfunc finetune` named."
        )
    return folder._read()


def find_model_file(run: str | os.PathLike, functional: str) -> Path:
    """Path of the best model that a run has for a functional.

    Raises
    ------
    RunError
        No run in this folder, or none that has a model for the functional (names those it has).
    """
    about, folder = _read_run(run), RunFolder(run, {})
    files: dict[str | None, tuple[str, ...]] = {about.get("functional"): (BEST_FILE, BEST_TENSORS_FILE)}
    if (folder.path / SOURCE_FILE).exists():
        files[(about.get("source") or {}).get("functional")] = (SOURCE_FILE,)
    there = [folder.path / name for name in files.get(functional, ()) if (folder.path / name).exists()]
    if not there:
        raise RunError(f"{folder.path}: no model for {functional!r}; the run has {', '.join(map(str, files))}.")
    return there[0]


def describe_run(
    method,
    settings,
    frames,
    split,
    *,
    functional,
    pretrained,
    references,
    name,
    prior="auto",
    source=None,
    learning_rates=None,
) -> dict[str, Any]:
    """Return what makes a run this one, in plain values: two runs with equal descriptions give equal weights.

    Learning rates that are given step by step are named by a hash, and only where they are: a run that follows the
    schedule of its settings is described as it was before rates could be given.
    """
    rates = {} if learning_rates is None else {"learning_rates": _hash(np.asarray(learning_rates, dtype=np.float64))}
    return {
        "method": method.key,
        "options": method.strategy and method.strategy.describe(),
        "functional": functional,
        "pretrained": identify_given(pretrained),
        "references": identify_given(references),
        "prior": identify_given(prior),
        "source": source and {"functional": source.functional, "fingerprint": source.pool.fingerprint()},
        "data": {"name": name, "n_frames": len(frames), "fingerprint": frames.fingerprint()},
        "split": {part: {"n_frames": len(rows), "sha256": _hash(rows)} for part, rows in split.items()},
        "settings": settings.to_dict(),
        **rates,
        "computed_with": _describe_computing(settings),
        "versions": _versions(),
        "resumed": [],
        "metrics": None,
    }


def _describe_computing(settings) -> dict[str, Any]:
    """What decides how sums are cut into parts: of these a run that goes on has to know."""
    import torch

    gpu = settings.accelerator == "gpu" or (settings.accelerator == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    names = ("devices", "n_nodes", "compile", "max_angles")
    chosen = {name: getattr(settings, name) for name in names}
    native = device.type == "cpu" and is_available(torch.float64 if settings.precision == "64" else torch.float32)
    return {"n_parts": n_batches_at_a_time(device), "device": device.type, "native": native} | chosen


def _not_ours(folder: Path) -> Iterator[Path]:
    """What lies in a folder besides the lock and the half-written file that a killed start leaves."""
    for path in folder.iterdir():
        if path.name != LOCK_FILE and not (path.name.startswith(".") and path.suffix == DRAFT_SUFFIX):
            yield path


def identify_given(given) -> str | None:
    """Name of a published model or table; hash of a file, a model or references; of such a hash, itself."""
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
