"""The operations that CHGNet's training step spends its time in, with first and second derivatives by hand.

Forces are a derivative of the energy and training differentiates them once more, so every operation needs two
backward passes. Autograd can derive both, but writes many large intermediates on the way; the formulas below keep
what is shared, and in the pass that makes the forces leave out the gradients of the parameters, which nobody reads.

Each operation is an `autograd.Function` for the value and one for its backward pass. The arithmetic itself is in plain
functions (`_gate`, `_gate_backward`, `_gate_twice`, ...), which `torch.compile` fuses if asked to.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch.autograd import Function

_EPS = 1e-5  # of CHGNet's layer norms


# --- gathers and sums ---


@dataclass(frozen=True)
class Incidence:
    """A sparse 0/1 matrix: which rows of a table are added up into which rows of the result, and the transpose.

    Attributes
    ----------
    rows, offsets : int32
        Result row k is the sum of `table[rows[offsets[k]:offsets[k + 1]]]`.
    transposed_rows, transposed_offsets : int32
        The same for the transpose.
    """

    rows: torch.Tensor
    offsets: torch.Tensor
    transposed_rows: torch.Tensor
    transposed_offsets: torch.Tensor

    def to(self, device) -> "Incidence":
        """Return a copy on another device."""
        return Incidence(*(getattr(self, f.name).to(device=device) for f in fields(self)))

    @property
    def transposed(self) -> "Incidence":
        """The transpose."""
        return Incidence(self.transposed_rows, self.transposed_offsets, self.rows, self.offsets)

    def column(self, index: int, start: int, stop: int) -> "Incidence":
        """The part that reads table rows start to stop: entry `index` of every result row, of as many as it has."""
        n_rows = len(self.offsets) - 1
        per_row = len(self.rows) // max(n_rows, 1)
        rows = self.rows[index::per_row] - start
        offsets = self.transposed_offsets[start : stop + 1]
        transposed_rows = self.transposed_rows[index * n_rows : (index + 1) * n_rows]
        return Incidence(rows, self.offsets[: n_rows + 1] // per_row, transposed_rows, offsets - index * n_rows)

    def leading(self, n_columns: int, n_table: int) -> "Incidence":
        """The part that reads the first `n_table` rows of the table: the first entries of every result row."""
        n_rows = len(self.offsets) - 1
        per_row = len(self.rows) // max(n_rows, 1)
        rows = self.rows.view(n_rows, per_row)[:, :n_columns].reshape(-1)
        offsets = self.transposed_offsets[: n_table + 1]
        return Incidence(rows, self.offsets // per_row * n_columns, self.transposed_rows[: n_columns * n_rows], offsets)

    def __call__(self, table: torch.Tensor) -> torch.Tensor:
        """Multiply the matrix with a table, differentiable to any order."""
        return _Sum.apply(table, self)


class _Sum(Function):
    @staticmethod
    def forward(ctx, table, incidence):
        ctx.incidence = incidence
        # a bag of embeddings is the fastest sum over rows that PyTorch has on a CPU, and is deterministic everywhere
        return torch.embedding_bag(table.contiguous(), incidence.rows, incidence.offsets, include_last_offset=True)[0]

    @staticmethod
    def backward(ctx, grad):
        return _Sum.apply(grad, ctx.incidence.transposed), None


# --- the second linear layer: core and gate stand side by side, (n, 128), until here ---


def _silu(hidden):
    """Value h s, slope s + h s (1 - s), and s = sigmoid(h): exponentials cost more than anything else, so once."""
    s = torch.sigmoid(hidden)
    activated = hidden * s
    return activated, torch.addcmul(s, activated, 1 - s), s


def _silu_twice(q, grad, hidden, s, slope):
    """Backward of `grad * slope` for the cotangent q: to grad, to hidden; silu'' = (1 - s)(2 s + h s (1 - 2 s))."""
    curvature = torch.rsub(s, 1, alpha=2).mul_(hidden).add_(2).mul_(s).mul_(1 - s)
    return q * slope, curvature.mul_(q).mul_(grad)


def _side_by_side(core, core_matrix, gate, gate_matrix):
    """[core @ core_matrix, gate @ gate_matrix], without a copy of either."""
    width = core_matrix.shape[1]
    both = core.new_empty(len(core), 2 * width)
    torch.mm(core, core_matrix, out=both[:, :width])
    torch.mm(gate, gate_matrix, out=both[:, width:])
    return both


class _SecondLayer(Function):
    """silu, then a linear layer for each half."""

    @staticmethod
    def forward(ctx, hidden, core_weight, core_bias, gate_weight, gate_bias, kernels):
        activated, slope, s = kernels.arithmetic.silu(hidden)
        left, right = activated.chunk(2, dim=1)
        ctx.save_for_backward(hidden, s, slope, core_weight, gate_weight)
        ctx.kernels = kernels
        return torch.addmm(core_bias, left, core_weight.t()), torch.addmm(gate_bias, right, gate_weight.t())

    @staticmethod
    def backward(ctx, to_core, to_gate):
        hidden, s, slope, core_weight, gate_weight = ctx.saved_tensors
        if ctx.kernels.pass_makes_forces():
            return _SecondLayerBackward.apply(to_core, to_gate, *ctx.saved_tensors, ctx.kernels), *[None] * 5
        to_hidden = _side_by_side(to_core, core_weight, to_gate, gate_weight).mul_(slope)
        left, right = (hidden * s).chunk(2, dim=1)
        return to_hidden, to_core.t() @ left, to_core.sum(dim=0), to_gate.t() @ right, to_gate.sum(dim=0), None


class _SecondLayerBackward(Function):
    @staticmethod
    def forward(ctx, to_core, to_gate, hidden, s, slope, core_weight, gate_weight, kernels):
        grad = _side_by_side(to_core, core_weight, to_gate, gate_weight)
        ctx.save_for_backward(to_core, to_gate, hidden, s, slope, core_weight, gate_weight, grad)
        ctx.kernels = kernels
        return grad * slope

    @staticmethod
    def backward(ctx, q):
        to_core, to_gate, hidden, s, slope, core_weight, gate_weight, grad = ctx.saved_tensors
        scaled, to_hidden = ctx.kernels.arithmetic.silu_twice(q, grad, hidden, s, slope)
        left, right = scaled.chunk(2, dim=1)
        to_weights = to_core.t() @ left, to_gate.t() @ right
        return left @ core_weight.t(), right @ gate_weight.t(), to_hidden, None, None, *to_weights, None


# --- the gate: silu(norm(core)) x sigmoid(norm(gate)) x weights ---
# u = norm(core), v = norm(gate), s = sigmoid(u), b = sigmoid(v), value m = u s b with slopes m_u, m_v; message m w.


def _normalise_backward(grad, hidden, mean, inverse_std, gamma, beta, *, parameters=False):
    """Backward of layer normalisation; without gamma also its forward derivative, because it is symmetric."""
    wanted = [True, parameters, parameters]
    width = [int(hidden.shape[1])]  # a constant, for the compiler
    return torch.ops.aten.native_layer_norm_backward(grad, hidden, width, mean, inverse_std, gamma, beta, wanted)


def _gate(core, gate, gamma_u, beta_u, gamma_v, beta_v, weights):
    width = [core.shape[1]]
    u, *moments_u = torch.native_layer_norm(core, width, gamma_u, beta_u, _EPS)
    v, *moments_v = torch.native_layer_norm(gate, width, gamma_v, beta_v, _EPS)
    return _gate_of_normalised(u, v, weights, (*moments_u, *moments_v))


def _gate_for_compiler(core, gate, gamma_u, beta_u, gamma_v, beta_v, weights):
    """The same with the moments as plain sums, which a compiler fuses; it makes a slow scan of the layer norm."""
    u, *moments_u = _normalise_by_sums(core, gamma_u, beta_u)
    v, *moments_v = _normalise_by_sums(gate, gamma_v, beta_v)
    return _gate_of_normalised(u, v, weights, (*moments_u, *moments_v))


def _normalise_by_sums(x, gamma, beta):
    per_row = 1 / int(x.shape[1])
    mean = x.sum(dim=1, keepdim=True) * per_row
    centred = x - mean
    inverse_std = torch.rsqrt((centred * centred).sum(dim=1, keepdim=True) * per_row + _EPS)
    return torch.addcmul(beta, centred * inverse_std, gamma), mean, inverse_std


def _gate_of_normalised(u, v, weights, moments):
    s, b = torch.sigmoid(u), torch.sigmoid(v)
    activated = u.mul_(s)
    m = activated * b
    m_u = torch.addcmul(s, activated, 1 - s).mul_(b)
    m_v = torch.addcmul(m, m, b, value=-1)
    messages = m if weights is None else m * weights
    return messages, (*moments, s, b, m, m_u, m_v)


def _gate_backward(grad, core, gate, gamma_u, gamma_v, weights, saved):
    u_mean, u_inverse_std, v_mean, v_inverse_std, _, _, m, m_u, m_v = saved
    scaled = grad if weights is None else grad * weights
    to_core = _normalise_backward(scaled * m_u, core, u_mean, u_inverse_std, gamma_u, None)[0]
    to_gate = _normalise_backward(scaled * m_v, gate, v_mean, v_inverse_std, gamma_v, None)[0]
    return to_core, to_gate, None if weights is None else grad * m


def _gate_backward_full(grad, core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, saved):
    u_mean, u_inverse_std, v_mean, v_inverse_std, _, _, m, m_u, m_v = saved
    scaled = grad if weights is None else grad * weights
    to_u = _normalise_backward(scaled * m_u, core, u_mean, u_inverse_std, gamma_u, beta_u, parameters=True)
    to_v = _normalise_backward(scaled * m_v, gate, v_mean, v_inverse_std, gamma_v, beta_v, parameters=True)
    return to_u[0], to_v[0], *to_u[1:], *to_v[1:], None if weights is None else grad * m


def _normalise_twice(q, q_dot, p, back, x, inverse_std, gamma):
    """Gradient of p gamma . J q with respect to the normalised rows' input and gamma, J = r (C - x x^T / n).

    `q_dot` = J q and `back` = J (gamma p) are known already:
    grad = -(r / n) [x (p gamma . q_dot) + back (q . x) + q_dot (p gamma . x)].
    """
    to_gamma = p * q_dot
    scaled = p * gamma
    along = (scaled * q_dot).sum(dim=1, keepdim=True)
    q_x = (q * x).sum(dim=1, keepdim=True)
    p_x = scaled.mul_(x).sum(dim=1, keepdim=True)
    factor = inverse_std * (-1 / x.shape[1])
    grad = torch.addcmul(torch.addcmul((factor * along) * x, back, factor * q_x), q_dot, factor * p_x)
    return grad, to_gamma.sum(dim=0)


def _gate_twice(
    q_core, q_gate, q_weights, grad, core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, back_core, back_gate, saved
):
    """Backward of `_gate_backward` for cotangents of its results: to grad, core, gate, the four parameters, weights."""
    u_mean, u_inverse_std, v_mean, v_inverse_std, s, b, m, m_u, m_v = saved
    core_dot = _normalise_backward(q_core, core, u_mean, u_inverse_std, None, None)[0]
    gate_dot = _normalise_backward(q_gate, gate, v_mean, v_inverse_std, None, None)[0]
    u_dot, v_dot = core_dot * gamma_u, gate_dot * gamma_v
    rest = 1 - b
    # second slopes of m = silu(u) sigmoid(v); m_uu = silu'' b with silu'' = (1 - s)(2 s + u s (1 - 2 s))
    flip = 1 - 2 * s
    m_uu = torch.addcmul(m * flip, s, b, value=2).mul_(1 - s)
    m_uv = m_u * rest
    m_vv = (rest - b).mul_(m_v)
    change = torch.addcmul(m_u * u_dot, m_v, v_dot)
    to_u = (m_uu.mul_(u_dot)).addcmul_(m_uv, v_dot)
    to_v = (m_uv.mul_(u_dot)).addcmul_(m_vv, v_dot)
    if weights is None:
        to_weights, to_grad, scaled = None, change, grad
        to_u.mul_(grad)
        to_v.mul_(grad)
    else:
        to_weights = grad * change
        to_grad = change.mul_(weights).addcmul_(m, q_weights)
        scaled, along = grad * weights, grad * q_weights
        to_u.mul_(scaled).addcmul_(along, m_u)
        to_v.mul_(scaled).addcmul_(along, m_v)
    to_core, to_gamma_u, to_beta_u = _normalise_backward(
        to_u, core, u_mean, u_inverse_std, gamma_u, beta_u, parameters=True
    )
    to_gate, to_gamma_v, to_beta_v = _normalise_backward(
        to_v, gate, v_mean, v_inverse_std, gamma_v, beta_v, parameters=True
    )
    x_u, x_v = (core - u_mean).mul_(u_inverse_std), (gate - v_mean).mul_(v_inverse_std)
    core_twice, gamma_u_twice = _normalise_twice(q_core, core_dot, scaled * m_u, back_core, x_u, u_inverse_std, gamma_u)
    gate_twice, gamma_v_twice = _normalise_twice(q_gate, gate_dot, scaled * m_v, back_gate, x_v, v_inverse_std, gamma_v)
    return (
        to_grad,
        to_core + core_twice,
        to_gate + gate_twice,
        to_gamma_u + gamma_u_twice,
        to_beta_u,
        to_gamma_v + gamma_v_twice,
        to_beta_v,
        to_weights,
    )


class _Gate(Function):
    @staticmethod
    def forward(ctx, core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, kernels):
        messages, saved = kernels.arithmetic.gate(core, gate, gamma_u, beta_u, gamma_v, beta_v, weights)
        ctx.kernels = kernels
        ctx.save_for_backward(core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, *saved)
        return messages

    @staticmethod
    def backward(ctx, grad):
        inputs, saved = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        if ctx.kernels.pass_makes_forces():
            to_core, to_gate, to_weights = _GateBackward.apply(grad, *inputs, ctx.kernels, *saved)
            return to_core, to_gate, None, None, None, None, to_weights, None
        return *ctx.kernels.arithmetic.gate_backward_full(grad, *inputs, saved), None


class _GateBackward(Function):
    @staticmethod
    def forward(ctx, grad, core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, kernels, *saved):
        ctx.kernels = kernels
        back = kernels.arithmetic.gate_backward(grad, core, gate, gamma_u, gamma_v, weights, saved)
        ctx.save_for_backward(grad, core, gate, gamma_u, beta_u, gamma_v, beta_v, weights, back[0], back[1], *saved)
        return back

    @staticmethod
    def backward(ctx, q_core, q_gate, q_weights):
        inputs, saved = ctx.saved_tensors[:10], ctx.saved_tensors[10:]
        results = ctx.kernels.arithmetic.gate_twice(q_core, q_gate, q_weights, *inputs, saved)
        return *results, None, *([None] * len(saved))


# --- what the forward pass calls ---


class CompilerError(ValueError):
    """There is nothing to compile kernels with."""


@dataclass(frozen=True)
class _Arithmetic:
    """The plain functions above, as they are or compiled."""

    silu: Callable = _silu
    silu_twice: Callable = _silu_twice
    gate: Callable = _gate
    gate_backward: Callable = _gate_backward
    gate_backward_full: Callable = _gate_backward_full
    gate_twice: Callable = _gate_twice


@cache
def _compiled(device: str) -> _Arithmetic:
    """The same functions through `torch.compile`, each for all sizes at once."""
    if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
        raise CompilerError("compile=True needs a C++ compiler: install g++ or clang++, or leave compile out.")
    # one thread each, and the interpreter released: batches run side by side (potential/parallel.py)
    options = {"cpp.threads": 1, "cpp_wrapper": True} if device == "cpu" else {}
    plain = replace(_Arithmetic(), gate=_gate_for_compiler)
    return _Arithmetic(
        **{
            f.name: torch.compile(getattr(plain, f.name), dynamic=True, fullgraph=True, options=options)
            for f in fields(plain)
        }
    )


class Kernels:
    """The kernels of one forward pass: they know whether its forces are being made.

    Parameters
    ----------
    compile : bool
        Fuse the arithmetic with `torch.compile`; needs a C++ compiler, and minutes the first time.
    device : str
        What it is compiled for: "cpu" or "cuda".
    """

    def __init__(self, compile: bool = False, device: str = "cpu"):  # noqa: A002, as torch calls it
        self.arithmetic = _compiled(device) if compile else _Arithmetic()
        self._making_forces = False

    @contextmanager
    def making_forces(self) -> Iterator[None]:
        """Around the backward pass from energy to positions: no gradient of a parameter is wanted in it."""
        self._making_forces = True
        try:
            yield
        finally:
            self._making_forces = False

    def pass_makes_forces(self) -> bool:
        """Whether the backward pass under way makes forces; it is the only one that may be differentiated again.

        Raises
        ------
        RuntimeError
            Someone differentiates the energy twice in another way than for forces.
        """
        if torch.is_grad_enabled() and not self._making_forces:
            raise RuntimeError("CHGNet's kernels know two derivatives: positions first, then parameters, not a third.")
        return self._making_forces

    def gated(self, hidden: torch.Tensor, mlp: torch.nn.Module, weights: torch.Tensor | None) -> torch.Tensor:
        """Finish a gated MLP from its first linear layers, core and gate side by side (n, 128), to messages (n, 64)."""
        core_layers, gate_layers = linears(mlp.mlp_core), linears(mlp.mlp_gate)
        if len(core_layers) == 2:
            second = (p for layer in (core_layers[1], gate_layers[1]) for p in (layer.weight, layer.bias))
            core, gate = _SecondLayer.apply(hidden, *second, self)
        else:
            core, gate = (half.contiguous() for half in hidden.chunk(2, dim=1))
        norms = mlp.bn1.weight, mlp.bn1.bias, mlp.bn2.weight, mlp.bn2.bias
        return _Gate.apply(core, gate, *norms, weights, self)


def linears(mlp: torch.nn.Module) -> list[torch.nn.Linear]:
    """The linear layers of one of chgnet's MLPs."""
    return [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]
