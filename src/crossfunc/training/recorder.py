"""What watches a run: rows that are kept at even times of an epoch, in the run's checkpoint too."""

from lightning.pytorch.callbacks import Callback


class Recorder(Callback):
    """Lightning callback that keeps rows, so that a run that goes on, or is read back, has neither holes nor repeats.

    Parameters
    ----------
    per_epoch : int
        How many times in an epoch, evenly spaced from before its first batch on; at most once per batch.

    Attributes
    ----------
    rows : list of dict
        Plain values.
    """

    def __init__(self, per_epoch: int):
        self.per_epoch = per_epoch
        self.rows: list[dict] = []

    def setup(self, trainer, pl_module, stage: str) -> None:  # noqa: ARG002
        """Forget the rows of an earlier run; Lightning calls this before it takes back those of a checkpoint."""
        self.rows = []

    def is_due(self, trainer, batch_idx: int) -> bool:
        """Whether the batch is one of those before which to record."""
        return batch_idx in {k * trainer.num_training_batches // self.per_epoch for k in range(self.per_epoch)}

    def read_back(self, checkpoint: dict | None) -> None:
        """Take the rows of a run that is not trained again from its checkpoint; none where it kept none."""
        kept = (checkpoint or {}).get("callbacks", {}).get(self.state_key)
        self.rows = []
        if kept is not None:
            self.load_state_dict(kept)

    def state_dict(self) -> dict:
        """Rows so far, for the checkpoint: plain values."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take them back."""
        self.rows = list(state_dict["rows"])
