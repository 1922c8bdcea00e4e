"""What a training run leaves: models, history, metrics, as values and as text; also read back from a run folder."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossfunc.energies.atomref import AtomRefFit
from crossfunc.training.forgetting import Forgetting
from crossfunc.training.methods import Method
from crossfunc.training.run_folder import HISTORY_FILE, REFERENCES_FILE, SOURCE_FILE, RunError, RunFolder
from crossfunc.training.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What a training run leaves.

    Attributes
    ----------
    model : CHGNet
        The weights with the lowest validation loss (epoch 0, the model before training, takes part), on the CPU.
    last_model : CHGNet
        The weights at the end.
    history : pandas.DataFrame
        One row a validation, the first of them (epoch 0) before training: `epoch`, `step`, `learning_rate`,
        `train_loss`, `validation_loss`, `train_...` and `validation_...` errors (see `metrics`), each target's share
        of the training loss (`energy_loss_share` ...), `gradient_norm` (mean, before clipping), `seconds`. Errors and
        losses of training are running means over the epoch, during which the weights change.
    metrics : dict
        `validation` and, if there are test frames, `test`, of `model`: `n_frames`, `loss`, `energy_mae_mev_per_atom`,
        `force_mae_mev_per_a` and `stress_mae_gpa` (means over components), `magmom_mae_mub`; None where no labels are.
    references : AtomRefFit or None
        Element references that the method fitted.
    seconds : float
        Spent on this run, all resumed parts of it together.
    out : Path or None
    notes : tuple of str
        What a reader of the metrics should know, for example elements that the training frames do not have.
    method : Method
    settings : Settings
    split : dict of str to ndarray
        Indices of the frames of each part.
    forgetting : Forgetting or None
        Errors in the source functional before and after, where there were source frames to measure them on.
    source_model : CHGNet or None
        The best weights read by the readout of the source functional, for the method "two-readouts".
    seconds_in_all : float or None
        Time of a unit: from the call to the end, with the start and what was measured afterwards.
    """

    model: Any
    last_model: Any
    history: "pd.DataFrame"
    metrics: dict[str, dict]
    references: AtomRefFit | None
    seconds: float
    out: Path | None
    notes: tuple[str, ...]
    method: Method
    settings: Settings
    split: dict[str, np.ndarray]
    forgetting: Forgetting | None = None
    source_model: Any = None
    seconds_in_all: float | None = None

    @property
    def best_epoch(self) -> int:
        """Epoch of `model`; 0 if training has not lowered the validation loss."""
        return int(self.history["epoch"][self.history["validation_loss"].idxmin()])

    def summary(self) -> dict[str, Any]:
        """Return what a run comes to, in plain values."""
        return {
            "method": self.method.key,
            "n_epochs": int(self.history["epoch"].iloc[-1]),
            "n_steps": int(self.history["step"].iloc[-1]),
            "best_epoch": self.best_epoch,
            "n_train_frames": len(self.split["train"]),
            "seconds": self.seconds,
            "metrics": self.metrics,
            "notes": list(self.notes),
            "forgetting": self.forgetting and self.forgetting.to_dict(),
            "out": None if self.out is None else str(self.out),
        }

    def report(self) -> str:
        """Return the same as text, errors in a table with a row for each part of the split."""
        import pandas as pd

        s = self.summary()
        head = (
            f"method {s['method']}: {self.method.name}\n{s['n_train_frames']} training frames, {s['n_epochs']} epochs, "
            f"{s['n_steps']} steps, {s['seconds']:.0f} s; best epoch {s['best_epoch']}\n"
        )
        table = pd.DataFrame(self.metrics).T.drop(columns="loss").astype({"n_frames": int})
        lines = [head, table.to_string(float_format="{:.4g}".format, na_rep="no labels"), *self.notes]
        lines += ["", self.forgetting.report()] if self.forgetting else []
        return "\n".join([*lines, f"\nmodels, history and settings: {s['out']}"] if self.out else lines)


def read_back(folder: RunFolder, finished: dict, method: Method, settings: Settings, split: dict) -> FinetuneResult:
    """Return the result of a run that is complete on disk."""
    path = folder.path
    (best, *_), (last, *_) = folder.best_files, folder.last_files
    source = path / SOURCE_FILE
    kept = finished.get("forgetting")
    forgetting = kept if kept and Forgetting.is_counted(kept) else None  # an earlier version's is measured again
    references = AtomRefFit.from_json(path / REFERENCES_FILE) if (path / REFERENCES_FILE).exists() else None
    return FinetuneResult(
        _read_model(path / best),
        _read_model(path / last),
        _read_history(path / HISTORY_FILE),
        finished["metrics"],
        references,
        finished["seconds"],
        path,
        tuple(finished["notes"]),
        method,
        settings,
        split,
        forgetting and Forgetting.from_dict(forgetting),
        _read_model(source) if source.exists() else None,
    )


def _read_model(path: Path):
    """A model of a complete run."""
    from crossfunc.potential import load_model

    try:
        return load_model(path)
    except ValueError as error:
        raise RunError(f"{path}: {_DAMAGED}") from error


_DAMAGED = "missing or damaged; delete the folder to train again, or choose another one."


def _read_history(path: Path) -> "pd.DataFrame":
    """Rows of the history, one a validation, of a file that was not cut off."""
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8")
        history = pd.read_csv(io.StringIO(text), engine="python")
        is_whole = text.endswith("\n") and len(history) > 0 and {"epoch", "step", "validation_loss"} <= {*history}
    except (OSError, ValueError, csv.Error):
        is_whole = False
    if not is_whole:
        raise RunError(f"{path}: {_DAMAGED}")
    return history
