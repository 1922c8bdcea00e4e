"""Running sums of losses and errors: kept on the device, read once per epoch, added up over processes."""

import math

import torch

from crossfunc.training.labels import METRIC_SCALES, METRICS, TARGETS


class Tally:
    """Sums over many batches of each target's weighted loss and absolute errors.

    Losses of a batch are means over its labels. Here they are turned back into sums, so that the result is the mean
    over all labels seen, however these were cut into batches or dealt out to processes.
    """

    def __init__(self, device: torch.device | str):
        self.sums = torch.zeros(2, len(TARGETS), dtype=torch.float64, device=device)  # losses, absolute errors
        self.n_labels = dict.fromkeys(TARGETS, 0)

    def add(self, parts: dict, abs_errors: dict, n_labels: dict[str, int]) -> None:
        """Add what `batch_loss` returned for one micro-batch of a batch with `n_labels` labels."""
        self.sums += torch.stack(
            [parts[t].detach().double() * n_labels[t] for t in TARGETS] + [abs_errors[t].double() for t in TARGETS]
        ).view(2, -1)

    def count(self, n_labels: dict[str, int]) -> None:
        """Count the labels of one whole batch, those of other processes included."""
        for target in TARGETS:
            self.n_labels[target] += n_labels[target]

    def read(self, n_processes: int = 1) -> tuple[float, dict[str, float], dict[str, float | None]]:
        """Return the loss, the share of each target in it, and the mean absolute errors by metric name.

        With several processes all of them have to call this, once: the sums are added up over them.
        """
        if n_processes > 1:
            torch.distributed.all_reduce(self.sums)
        losses, errors = self.sums.tolist()
        means = {t: s / self.n_labels[t] if self.n_labels[t] else 0.0 for t, s in zip(TARGETS, losses, strict=True)}
        loss = sum(means.values()) if any(self.n_labels.values()) else math.nan
        shares = {t: part / loss if loss else 0.0 for t, part in means.items()}
        metrics = {
            METRICS[t]: s / self.n_labels[t] * METRIC_SCALES[t] if self.n_labels[t] else None
            for t, s in zip(TARGETS, errors, strict=True)
        }
        return loss, shares, metrics

    def peek(self, n_processes: int = 1) -> dict[str, float]:
        """Return energy and force errors so far, for a progress bar: this process's own, taken for all of them."""
        errors = (self.sums[1] * n_processes).tolist()
        return {
            METRICS[t]: errors[k] / self.n_labels[t] * METRIC_SCALES[t]
            for k, t in enumerate(TARGETS[:2])
            if self.n_labels[t]
        }
