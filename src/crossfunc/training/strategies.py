"""What a method adds to the plain loop: which parameters move, how fast, and what pulls them back.

A strategy is a value. It prepares the model before the first step without changing a single prediction, names a
learning rate for each parameter, may add a quadratic pull to the loss, and turns what was trained into a plain model.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from crossfunc.training.labels import TARGETS

if TYPE_CHECKING:
    import torch

    from crossfunc.training.loss import LossSettings
    from crossfunc.training.source import Source

READOUT = ("readout_norm.", "mlp.", "site_wise.")
"""Beginnings of the names of parameters that turn atom features into energies and moments."""

_REFERENCES = "composition_model."
_N_CONVOLUTIONS = 4


class StrategyError(ValueError):
    """A strategy that cannot do its work with these settings, this model or these frames; the message says why."""


@dataclass(frozen=True)
class Strategy:
    """The plain loop: every parameter of the network moves at the same rate, and nothing pulls it back."""

    needs_source: ClassVar[bool] = False
    """Whether it reads frames of the source functional."""
    stock: ClassVar[bool] = True
    """Whether what it trains becomes a CHGNet that stock chgnet loads."""
    has_source_readout: ClassVar[bool] = False
    """Whether a second readout stays in the source functional."""

    def prepare(self, model, source: "Source | None" = None, *, seed: int = 0) -> None:
        """Freeze, add or copy parts of a model, in place; its predictions stay the same to the last bit."""

    def rate_factor(self, name: str) -> float:  # noqa: ARG002, of the subclasses
        """Factor on the learning rate of a parameter."""
        return 1.0

    def stiffness(self, model, source: "Source | None", loss: "LossSettings") -> "torch.Tensor | float | None":  # noqa: ARG002
        r"""Stiffness :math:`k` of the pull :math:`\frac12 \sum_i k_i (\theta_i - \theta_i^0)^2`: None, one, or all."""
        return None

    @property
    def source_share(self) -> float:
        """How many source frames join the steps for each frame of the target."""
        return 0.0

    def export(self, model) -> None:
        """Turn a trained model into a plain one, in place: what files hold and users get."""

    def describe(self) -> dict[str, Any]:
        """Return its fields, plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ReadoutOnly(Strategy):
    r"""Only the readouts move: :math:`\dot\theta_l = 0` for every layer that makes features."""

    def prepare(self, model, source=None, *, seed=0) -> None:  # noqa: ARG002
        """Freeze all but the readouts."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(READOUT))


@dataclass(frozen=True)
class SoftFreezing(Strategy):
    r"""Learning rates fall towards the input: :math:`\eta_l = \eta\,\gamma^{L - l}`.

    l is 0 for embeddings and bases, 1 to 4 for the convolutions and L = 5 for the readouts.

    Attributes
    ----------
    decay : float
        γ; 1 is the plain loop, 0 the readouts alone.
    """

    decay: float = 0.5

    def rate_factor(self, name: str) -> float:
        """γ to the power of the distance to the readouts."""
        return self.decay ** (_N_CONVOLUTIONS + 1 - depth(name))


def depth(name: str) -> int:
    """How deep in CHGNet a parameter sits: 0 for embeddings and bases, k + 1 for layer k, 5 for the readouts."""
    if name.startswith(READOUT):
        return _N_CONVOLUTIONS + 1
    part, _, rest = name.partition(".")
    return int(rest.split(".")[0]) + 1 if part in ("atom_conv_layers", "bond_conv_layers", "angle_layers") else 0


@dataclass(frozen=True)
class LoRA(Strategy):
    r"""Every linear layer changes by a matrix of low rank: :math:`W = W_0 + B A`, only A and B move.

    A is (rank, inputs), drawn from a normal distribution of variance 1/inputs; B is (outputs, rank) and starts at zero.

    Attributes
    ----------
    rank : int
        At most; layers with fewer inputs or outputs take as many.
    """

    rank: int = 8

    def prepare(self, model, source=None, *, seed=0) -> None:  # noqa: ARG002
        """Freeze everything and give each linear layer its A and B."""
        import torch

        from crossfunc.potential.low_rank import LowRankLinear

        _check(self.rank, "rank", 1, math.inf)
        generator = torch.Generator().manual_seed(seed)
        model.requires_grad_(False)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear) and not name.startswith(_REFERENCES):
                _replace_layer(model, name, LowRankLinear(layer, self.rank, generator))

    def export(self, model) -> None:
        """Merge each BA into its weight."""
        from crossfunc.potential.low_rank import LowRankLinear

        for name, layer in list(model.named_modules()):
            if isinstance(layer, LowRankLinear):
                _replace_layer(model, name, layer.merged())


def _replace_layer(model, name: str, layer) -> None:
    parent, _, last = name.rpartition(".")
    model.get_submodule(parent)._modules[last] = layer


@dataclass(frozen=True)
class PullToStart(Strategy):
    r"""L2-SP: the loss gains :math:`\frac\lambda2 |\theta - \theta^0|^2`, a pull to the pretrained weights.

    Attributes
    ----------
    strength : float
        λ.
    """

    strength: float = 1e-3

    def stiffness(self, model, source, loss) -> float:  # noqa: ARG002
        """λ for every parameter."""
        return self.strength


@dataclass(frozen=True)
class ElasticWeights(Strategy):
    r"""EWC: the loss gains :math:`\frac\lambda2 \sum_i F_i (\theta_i - \theta^0_i)^2`.

    F is the diagonal of the Gauss-Newton matrix of the loss on source frames,

    .. math:: F_i = \Big\langle \sum_t \frac{w_t}{N_t} \sum_k (\partial \hat y_{tk}/\partial\theta_i)^2 \Big\rangle,

    what the source loss costs when a parameter moves. Unlike the mean of squared gradients (the empirical Fisher) it
    needs no residuals, which are zero where the starting model itself labelled the source frames.

    Attributes
    ----------
    strength : float
        λ: 1 stands for a target loss and a source loss of equal weight, near the start.
    n_frames : int
        Source frames, one backward pass each.
    """

    needs_source: ClassVar[bool] = True
    strength: float = 1.0
    n_frames: int = 256

    def stiffness(self, model, source, loss) -> "torch.Tensor":
        """λF, flat, in the order of the trainable parameters."""
        import torch

        _check(self.n_frames, "n_frames", 1, math.inf)
        diagonal = gauss_newton_diagonal(model, source.frames, loss, seed=source.seed)
        return self.strength * torch.cat([values.flatten() for values in diagonal.values()])


@dataclass(frozen=True)
class Replay(Strategy):
    r"""Source frames join the steps: the loss is the mean over :math:`D_\mathrm{target} \cup D_\mathrm{source}`.

    Their energies are moved by composition to the references of the target, :math:`y + X(c_\mathrm{target} -
    c_\mathrm{source})`, so that one network with one set of references can fit both.

    Attributes
    ----------
    share : float
        Source frames for each frame of the target, whatever the size of a batch: training costs 1 + share times as
        much. Where a batch has fewer than 1 / share frames, a source frame joins one step in several.
    n_frames : int
        Source frames to draw from, over and over again.
    """

    needs_source: ClassVar[bool] = True
    share: float = 0.2
    n_frames: int = 1024

    @property
    def source_share(self) -> float:
        """The share."""
        _check(self.share, "share", 0, math.inf)
        return self.share


@dataclass(frozen=True)
class TwoReadouts(Replay):
    r"""One backbone :math:`h`, a readout and references for each functional: :math:`E^f = \sum_i g^f(h_i) + X c^f`.

    Source frames join the steps as in replay, and are read by a readout of their own, with the energies they have.
    That takes batches of their own, so a step can cost more than 1 + share times a plain one.
    """

    has_source_readout: ClassVar[bool] = True

    def prepare(self, model, source=None, *, seed=0) -> None:  # noqa: ARG002
        """Give the model a second readout, equal to the first, with the references of the source."""
        import torch

        from crossfunc.potential.checkpoints import set_element_references

        other = copy.deepcopy(model)
        set_element_references(other, source.references_ev, source=source.references_from)
        model.source_readout = torch.nn.ModuleDict({name: getattr(other, name) for name in _READ_BY})

    def export(self, model) -> None:
        """Keep the readout of the target."""
        if hasattr(model, "source_readout"):
            del model.source_readout


_READ_BY = ("readout_norm", "mlp", "site_wise", "composition_model")


def source_view(model):
    """The model that reads the same backbone by the readout of the source; the two share their parameters."""
    view = copy.copy(model)
    view.__dict__["_modules"] = {name: m for name, m in model._modules.items() if name != "source_readout"}
    view._modules.update(model.source_readout._modules)
    return view


def readout_for(model, part):
    """The model to compute a micro-batch with: its source view for source frames, where there is a second readout."""
    return source_view(model) if part.is_source and hasattr(model, "source_readout") else model


@dataclass(frozen=True)
class Delta(Strategy):
    r"""The pretrained model stays; a small network learns what it leaves: :math:`E = E_0 + \Delta E_\theta`.

    Attributes
    ----------
    width : int
        Width of `crossfunc.potential.correction.SmallNetwork`.
    """

    stock: ClassVar[bool] = False
    width: int = 32

    def prepare(self, model, source=None, *, seed=0) -> None:  # noqa: ARG002
        """Freeze the model and put a network beside it whose output is zero."""
        from crossfunc.potential.correction import SmallNetwork, add_correction

        _check(self.width, "width", 1, 1024)
        model.requires_grad_(False)
        add_correction(model, SmallNetwork(self.width, seed))


def change_strategy(strategy: Strategy | None, options: Mapping[str, Any]) -> Strategy | None:
    """Return a strategy with other values of its fields.

    Raises
    ------
    StrategyError
        A field that the strategy does not have (lists those it has), or a value of another kind.
    """
    if not options:
        return strategy
    known = {f.name: f for f in fields(strategy)} if strategy is not None else {}
    for name, value in options.items():
        if name not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            raise StrategyError(f"the method has no option {name!r}; {listed}.")
        kind = type(getattr(strategy, name))
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise StrategyError(f"{name}: expected {'a whole number' if kind is int else 'a number'}, got {value!r}.")
        _check(value, name, 0, math.inf)
    return None if strategy is None else replace(strategy, **options)


def _check(value, name: str, low: float, high: float) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise StrategyError(f"{name}: expected a number {bounds}, got {value!r}.")


_CURVATURES = {"huber": 1.0, "mse": 2.0}
"""Second derivative of each kind of loss where the error is zero."""


def gauss_newton_diagonal(model, frames, loss: "LossSettings", *, seed: int = 0, n_probes: int = 1) -> dict:
    r"""Diagonal of the Gauss-Newton matrix of the loss, averaged over frames, by random signs.

    For predictions :math:`\hat y_{tk}` of target t and random signs :math:`z_{tk}`, the square of
    :math:`\partial_\theta \sum_{tk} \sqrt{w_t/N_t}\, z_{tk}\, \hat y_{tk}` has :math:`\sum_{tk} \frac{w_t}{N_t}
    (\partial_\theta \hat y_{tk})^2` as its mean; it is multiplied by the loss's curvature at zero error.

    Parameters
    ----------
    model : CHGNet
    frames : LabelledFrames
        Their labels only say which predictions count; the values are not read.
    loss : LossSettings
        Weights w_t, and the kind, whose curvature at zero error counts: 1 for Huber's e²/2, 2 for squared errors e².
    seed : int
        Seed of the signs.
    n_probes : int
        Draws of signs per frame.

    Returns
    -------
    dict of str to Tensor
        Name of each trainable parameter to its entries; zero where no prediction depends on it.

    Raises
    ------
    StrategyError
        Not one label to weigh, or absolute errors, which have no curvature at zero.
    """
    import torch

    from crossfunc.potential.forward import forward
    from crossfunc.training.batches import step_loader

    if loss.kind not in _CURVATURES:
        raise StrategyError(
            f"EWC: the loss {loss.kind!r} has no curvature at zero error to weigh parameters by; choose one of "
            f"{', '.join(_CURVATURES)}."
        )
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    like = next(iter(parameters.values()))
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    used = [t for t in TARGETS if loss.weights[t] and frames.labelled(t).any()]
    if not used:
        raise StrategyError("EWC: none of the source frames has a label with a weight in the loss; label them first.")
    derivatives = "forces" in used or "stress" in used
    loader = step_loader(frames, range(len(frames)), batch_size=1, shuffle=False)
    for batch in loader:
        for part in batch.to(like.device, like.dtype).micro:
            for _ in range(n_probes):
                output = forward(model, part.graphs, derivatives=derivatives, create_graph=True)
                value = _signed_sum(output, part.labels, batch.n_labels, loss.weights, generator)
                if value is None:
                    continue
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                for name, g in zip(parameters, found, strict=True):
                    if g is not None:
                        total[name] += g.square()
    scale = _CURVATURES[loss.kind] / (len(frames) * n_probes)
    return {name: values * scale for name, values in total.items()}


def _signed_sum(output, labels, n_labels, weights, generator):
    """Σ sqrt(w_t / N_t) z ŷ over the predictions that have a label."""
    import torch

    from crossfunc.training.loss import OUTPUTS

    value = None  # for a frame without labels
    for target in TARGETS:
        predicted = output.get(OUTPUTS[target])
        if predicted is None or not weights[target] or not n_labels[target]:
            continue
        signs = torch.randint(0, 2, predicted.shape, generator=generator).to(predicted) * 2 - 1
        signs = torch.where(torch.isnan(labels[target]), 0, signs)
        term = math.sqrt(weights[target] / n_labels[target]) * (signs * predicted).sum()
        value = term if value is None else value + term
    return value


class Pull:
    r"""The quadratic pull :math:`\frac12 \sum_i k_i (\theta_i - \theta^0_i)^2` over flat parameters.

    Parameters
    ----------
    start : Tensor, (n,)
        θ⁰.
    stiffness : Tensor, (n,), or float
        k.
    """

    def __init__(self, start: "torch.Tensor", stiffness):
        self.start, self.stiffness = start, stiffness

    def value(self, parameters: "torch.Tensor") -> "torch.Tensor":
        """Return the pull's share of the loss."""
        return 0.5 * (self.stiffness * (parameters - self.start).square()).sum()

    def gradient(self, parameters: "torch.Tensor") -> "torch.Tensor":
        """Return k (θ - θ⁰)."""
        return self.stiffness * (parameters - self.start)
