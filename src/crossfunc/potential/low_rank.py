"""Linear layers whose weight is a frozen matrix plus one of low rank (LoRA)."""

import math

import torch
from torch import nn


class LowRankLinear(nn.Linear):
    """A linear layer with weight W_0 + B A, of which only A and B are trained.

    Parameters
    ----------
    layer : Linear
        Its weight becomes W_0, and both it and the bias are frozen.
    rank : int
        At most; no more than inputs or outputs.
    generator : torch.Generator
        Draws A, (rank, inputs), from a normal distribution of variance 1/inputs; B, (outputs, rank), is zero.
    """

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator):
        nn.Module.__init__(self)  # not Linear's, which would make a weight of its own
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach()
        rank = min(rank, *weight.shape)
        drawn = torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features)
        self.original = nn.Parameter(weight, requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
        self.a = nn.Parameter(drawn.to(weight))
        self.b = nn.Parameter(weight.new_zeros(layer.out_features, rank))

    @property
    def weight(self) -> torch.Tensor:
        """W_0 + B A."""
        return self.original + self.b @ self.a

    def merged(self) -> nn.Linear:
        """Return a plain layer with the same weight and bias."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None).to(self.original)
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer


def share_of_low_rank(before, after, rank: int):
    """Share of the change of each layer's weight, in squared length, that the best matrix of a rank holds.

    Parameters
    ----------
    before, after : Module
        Networks of one architecture.
    rank : int

    Returns
    -------
    pandas.Series
        Between 0 and 1, by the name of the linear layer; those that have not moved, and those with no more inputs or
        outputs than the rank, are left out.
    """
    import pandas as pd

    others, shares = dict(after.named_modules()), {}
    for name, layer in before.named_modules():
        if not isinstance(layer, nn.Linear) or min(layer.weight.shape) <= rank:
            continue
        change = (others[name].weight - layer.weight).detach().double()
        squares = torch.linalg.svdvals(change) ** 2
        if squares.sum() > 0:
            shares[name] = float(squares[:rank].sum() / squares.sum())
    return pd.Series(shares, name=f"share of rank {rank}", dtype=float)
