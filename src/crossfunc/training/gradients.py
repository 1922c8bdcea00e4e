"""Gradients under the lens: how hard each term of the loss pulls at each layer, and whether two of them agree."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from crossfunc.potential.forward import forward
from crossfunc.training.batches import StepBatch
from crossfunc.training.labels import TARGETS
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.recorder import Recorder
from crossfunc.training.strategies import readout_for

if TYPE_CHECKING:
    import pandas as pd

# A gated MLP of chgnet is two `nn.Sequential`s, core and gate, each Linear (0), SiLU (1), Dropout (2), Linear (3): W0
# and W3 are the weights at these indices, here of the core, which makes the message that the gate scales to 0 ... 1.
PAPER_LAYERS = {
    "AtomEmb": "atom_embedding.embedding.weight",  # one row of 64 features per element
    "BondEmb": "bond_embedding.weight",  # 31 radial basis functions -> 64; the two bond_weights_* only smooth
    "AngleEmb": "angle_embedding.weight",  # 31 Fourier functions of the angle -> 64
    "AtomConv0_W0": "atom_conv_layers.0.twoBody_atom.mlp_core.layers.0.weight",  # first layer of the first convolution
    "AtomConv3_W3": "atom_conv_layers.3.twoBody_atom.mlp_core.layers.3.weight",  # last layer of the last convolution
    "BondConv0_W0": "bond_conv_layers.0.twoBody_bond.mlp_core.layers.0.weight",  # first layer of the first bond update
    "BondConv2_W3": "bond_conv_layers.2.twoBody_bond.mlp_core.layers.3.weight",  # last layer of the last bond update
    "MLP_Layer0": "mlp.layers.0.weight",  # first of the readout's layers (0, 2, 4, 7), from features to site energy
}
"""The eight layers of the paper's Fig. 3a, and the parameter of CHGNet 0.3.0 that each is taken to be."""

DEAD_LAYERS = ("angle_layers.2.",)
"""Beginnings of the names of parameters that reach no output: the last angle update feeds nothing, in chgnet too."""

NETWORK, REFERENCES, TOTAL = "network", "references", "total"
_REFERENCE_PREFIX = "composition_model."

Gradients = dict[str, dict[str, torch.Tensor]]
"""Term ("energy", "forces", "stress", "magmoms") to parameter name to gradient."""


class GradientError(ValueError):
    """A layer whose gradient cannot be looked at; the message names it."""


def term_gradients(model, batch: StepBatch, settings: LossSettings) -> Gradients:
    """Gradient of every weighted term of the loss, ∂(w_t L_t)/∂θ, for every trainable parameter θ.

    Parameters
    ----------
    model : CHGNet
        Its `.grad` stay as they are.
    batch : StepBatch
        On the model's device, in its dtype.
    settings : LossSettings

    Returns
    -------
    dict of str to dict of str to Tensor
        For each of `TARGETS`, parameter name to gradient. They add up to the gradient of the loss. Zero where a term
        does not depend on a parameter: the last angle update gets none from any term (`DEAD_LAYERS`), the moments,
        read before the last convolution, give none to it, to the last bond update or to the readout.

    Raises
    ------
    GradientError
        No parameter is trainable.

    Notes
    -----
    One backward pass per term: together the time of about two training steps. Fig. 3a has the sum; lesson 5 takes it
    apart.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise GradientError("the model has no trainable parameter, so no gradient; give a method that trains.")
    gradients = {term: {name: torch.zeros_like(p) for name, p in parameters.items()} for term in TARGETS}
    derivatives = any(batch.n_labels[term] and settings.weights[term] for term in ("forces", "stress"))
    with torch.enable_grad():
        for part in batch.micro:
            output = forward(readout_for(model, part), part.graphs, derivatives=derivatives, create_graph=True)
            _, terms, _ = batch_loss(output, part.labels, batch.n_labels, settings)
            for term, value in terms.items():
                if batch.n_labels[term] and value.requires_grad:
                    _add_gradient(gradients[term], value, parameters)
    return gradients


def total_gradient(gradients: Gradients) -> dict[str, torch.Tensor]:
    """Gradient of the whole loss, the sum of those of its terms: parameter name to gradient."""
    first, *others = gradients.values()
    return {name: gradient + sum(term[name] for term in others) for name, gradient in first.items()}


def summarise_gradients(gradients: Gradients, layers: Mapping | None = None) -> "pd.DataFrame":
    """Size of each term's gradient in each layer, and its cosine with the energy's, g_t · g_E / (|g_t| |g_E|).

    Parameters
    ----------
    gradients : dict
        From `term_gradients`.
    layers : mapping of str to str or sequence of str, optional
        Name of a layer to the names of its parameters; default `PAPER_LAYERS`.

    Returns
    -------
    pandas.DataFrame
        One row per layer and term, the term "total" among them, with `norm` (Euclidean), `mean_abs` (mean |g| over the
        layer's parameters) and `cosine_with_energy` (NaN where either gradient is zero). Two more layers: "network",
        all parameters but the element references, and "references", these, where they are trained.

    Raises
    ------
    GradientError
        A layer names a parameter that the model lacks or does not train.
    """
    import pandas as pd

    named = _parameters_of(layers or PAPER_LAYERS, gradients)
    terms = gradients | {TOTAL: total_gradient(gradients)}
    rows = []
    for layer, names in named.items():
        flat = {term: torch.cat([g[name].flatten() for name in names]).double() for term, g in terms.items()}
        for term, g in flat.items():
            row = {"layer": layer, "term": term, "norm": g.norm().item(), "mean_abs": g.abs().mean().item()}
            rows.append(row | {"cosine_with_energy": _cosine(g, flat["energy"])})
    return pd.DataFrame(rows)


class GradientRecorder(Recorder):
    """Lightning callback for `finetune`: gradients per layer and term, ten times in the first epoch.

    Parameters
    ----------
    per_epoch : int
        How many times in an epoch, evenly spaced from its first batch on; at most once per batch.
    n_epochs : int
        How many epochs to record.
    layers : mapping, optional
        As for `summarise_gradients`; default the paper's eight.

    Notes
    -----
    Gradients are those of the batch about to be trained on, at the weights before its step, before any clipping, in
    the model's own precision, summed over processes. They are computed from the batch, beside the training step, which
    they leave as it is to the last bit; a record takes the time of about two steps. Records are in the checkpoint, so a
    resumed run has neither holes nor repeats.

    Examples
    --------
    >>> recorder = GradientRecorder()
    >>> finetune("4", "surrogate", callbacks=[recorder], n_epochs=1)
    >>> recorder.table()
    """

    def __init__(self, per_epoch: int = 10, n_epochs: int = 1, layers: Mapping | None = None):
        if per_epoch < 1 or n_epochs < 1:
            raise GradientError(f"per_epoch={per_epoch}, n_epochs={n_epochs}: record once in one epoch at least.")
        super().__init__(per_epoch)
        self.n_epochs = n_epochs
        self.layers = dict(PAPER_LAYERS if layers is None else layers)

    @property
    def state_key(self) -> str:
        """What its records are called in a checkpoint; recorders that differ do not share them."""
        return self._generate_state_key(per_epoch=self.per_epoch, n_epochs=self.n_epochs, layers=sorted(self.layers))

    def on_train_batch_start(self, trainer, pl_module, batch: StepBatch, batch_idx: int) -> None:
        """Record, where the batch is one of those due; Lightning calls this before the training step."""
        n_batches, epoch = trainer.num_training_batches, trainer.current_epoch
        if epoch >= self.n_epochs or not self.is_due(trainer, batch_idx):
            return
        gradients = term_gradients(pl_module.model, batch, pl_module.loss_settings)
        if trainer.world_size > 1:
            _sum_over_processes(gradients)
        when = {"step": epoch * n_batches + batch_idx, "epoch": epoch, "fraction": epoch + batch_idx / n_batches}
        summary = summarise_gradients(gradients, self.layers)
        self.rows += [when | row for row in summary.to_dict("records")]

    def table(self) -> "pd.DataFrame":
        """Return the records, a row for each time, layer and term.

        `step` is the number of optimiser steps before it, `fraction` the same in epochs; then the columns of
        `summarise_gradients`.
        """
        import pandas as pd

        measured = ("layer", "term", "norm", "mean_abs", "cosine_with_energy")
        return pd.DataFrame(self.rows, columns=["step", "epoch", "fraction", *measured])


def _add_gradient(gradient: dict[str, torch.Tensor], value: torch.Tensor, parameters: dict) -> None:
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    for name, g in zip(parameters, found, strict=True):
        if g is not None:
            gradient[name] += g


def _parameters_of(layers: Mapping, gradients: Gradients) -> dict[str, list[str]]:
    """Parameters of each layer, then of the network and of the element references."""
    trained = list(gradients[TARGETS[0]])
    named = {layer: [names] if isinstance(names, str) else list(names) for layer, names in layers.items()}
    for layer, names in named.items():
        missing = [name for name in names if name not in trained]
        if missing or not names:
            raise GradientError(
                f"layer {layer!r}: {missing[0] if missing else 'no parameter'} is not among the {len(trained)} trained "
                "parameters of this model; names are those of model.named_parameters()."
            )
    references = [name for name in trained if name.startswith(_REFERENCE_PREFIX)]
    network = [name for name in trained if name not in references]
    return named | {name: names for name, names in ((NETWORK, network), (REFERENCES, references)) if names}


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    scale = (a.norm() * b.norm()).item()
    return (a @ b).item() / scale if scale > 0 else float("nan")


def _sum_over_processes(gradients: Gradients) -> None:
    for term in gradients.values():
        for gradient in term.values():
            torch.distributed.all_reduce(gradient)
