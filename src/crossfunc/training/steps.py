"""Gradients of one optimiser step: all its parts, side by side on the CPU, added up by whoever takes the step."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from crossfunc.potential.forward import forward
from crossfunc.potential.parallel import map_batches, n_batches_at_a_time
from crossfunc.training.batches import StepBatch
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.strategies import readout_for


class PartGradients(NamedTuple):
    """What one micro-batch adds to a step; see `batch_loss` for the first three."""

    loss: torch.Tensor
    terms: dict[str, torch.Tensor]
    abs_errors: dict[str, torch.Tensor]
    gradients: tuple[torch.Tensor | None, ...]
    """Gradient of each parameter; None for those of the angles in a part without angles."""


def differentiate_parts(
    model: torch.nn.Module,
    batch: StepBatch,
    parameters: Sequence[torch.nn.Parameter],
    settings: LossSettings,
    *,
    derivatives: bool = True,
    compile: bool = False,  # noqa: A002, as in forward
) -> Iterator[PartGradients]:
    """Yield loss and gradients of every micro-batch of a step, in order.

    Parameters
    ----------
    model : CHGNet
    batch : StepBatch
        On the model's device.
    parameters : sequence of Parameter
        Differentiate by these.
    settings : LossSettings
    derivatives : bool
        Whether forces and stresses count in the loss.
    compile : bool
        See `forward`.
    """

    def differentiate(part) -> PartGradients:
        reader = readout_for(model, part)
        output = forward(reader, part.graphs, derivatives=derivatives, create_graph=True, compile=compile)
        loss, terms, abs_errors = batch_loss(output, part.labels, batch.n_labels, settings)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        terms = {target: term.detach() for target, term in terms.items()}
        return PartGradients(loss.detach(), terms, abs_errors, gradients)

    yield from map_batches(differentiate, batch.micro, n_threads=n_batches_at_a_time(parameters[0].device))
