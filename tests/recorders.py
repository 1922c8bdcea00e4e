"""What the tests of recorders share: frames of few materials, their split, and a run that is cut."""

from functools import lru_cache

import numpy as np
from lightning.pytorch.callbacks import Callback

import crossfunc as xf
from crossfunc.training.labels import LabelledFrames


@lru_cache
def frames_of_ten_materials():
    """Twenty small frames with every label, of ten materials."""
    everything = LabelledFrames.from_dataset("surrogate", "r2scan")
    small = everything.labelled("forces") & (everything.crystals.n_atoms <= 4)
    return everything.take(np.flatnonzero(small)[:300:15])


def split_of(frames):
    """Three fifths of the materials to train, the others to validate."""
    return xf.split_by_material(frames.material_ids, (0.6, 0.4, 0.0), seed=0)


class PowerCut(Callback):
    """Ends a run in its second epoch, before the third batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise KeyError("power cut")
