"""What a model predicts for held-out frames, several times in a run: a parity plot that can be watched."""

import numpy as np

from crossfunc.errors import InputError
from crossfunc.training.evaluate import predict_frames
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.recorder import Recorder

__all__ = ["ParityRecorder"]


class ParityRecorder(Recorder):
    """Lightning callback for `finetune`: energies and forces that the model predicts, at even times and at the end.

    Parameters
    ----------
    frames : LabelledFrames
        Frames that training does not show.
    per_epoch : int
        How many times in an epoch, evenly spaced from before its first batch on; at most once per batch.

    Attributes
    ----------
    labels : dict of str to ndarray
        "energy" (n_frames,) in eV/atom and "forces" (n_components,) in eV/Å, where there are labels.
    rows : list of dict
        For each time `epoch` (in passes over the frames), and predictions in the order of `labels`.

    Raises
    ------
    InputError
        Fewer than once per epoch.

    Notes
    -----
    Predictions are made beside the training step, which stays as it is to the last bit. Rows are in the checkpoint, so
    a run that goes on has neither holes nor repeats.

    Examples
    --------
    >>> recorder = ParityRecorder(held_out)
    >>> finetune("3", frames, split=split, callbacks=[recorder], n_epochs=4)
    >>> recorder.rows[-1]["forces"]
    """

    def __init__(self, frames: LabelledFrames, per_epoch: int = 1):
        if per_epoch < 1:
            raise InputError(f"per_epoch={per_epoch}: record once per epoch at least.")
        super().__init__(per_epoch)
        self.frames = frames
        every = {"energy": frames.energy_per_atom_ev, "forces": frames.forces_ev_per_a}
        self.labels = {kind: values[~np.isnan(values)] for kind, values in every.items()}

    @property
    def state_key(self) -> str:
        """What its rows are called in a checkpoint; recorders that differ do not share them."""
        return self._generate_state_key(per_epoch=self.per_epoch, frames=list(map(str, self.frames.frame_ids)))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:  # noqa: ARG002
        """Record, where the batch is one of those due; Lightning calls this before the training step."""
        if self.is_due(trainer, batch_idx):
            self._record(pl_module, trainer.current_epoch + batch_idx / trainer.num_training_batches)

    def on_train_end(self, trainer, pl_module) -> None:  # noqa: ARG002
        """Record what training ends with."""
        self._record(pl_module, float(pl_module.n_epochs_done))

    def _record(self, pl_module, epoch: float) -> None:
        if self.rows and self.rows[-1]["epoch"] >= epoch:  # a run that goes on after its last record
            return
        seen = predict_frames(pl_module.validated_model, self.frames)
        if seen.refused:
            named = ", ".join(seen.refused)
            raise InputError(f"no graph for {named}: leave these frames out of those that are recorded.")
        self.rows.append({"epoch": float(epoch)} | {kind: seen.parity(kind)[1].tolist() for kind in self.labels})
