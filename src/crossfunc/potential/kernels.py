"""The operations that CHGNet's training step spends its time in, with first and second derivatives by hand.

Forces are a derivative of the energy and training differentiates them once more, so every operation needs two
backward passes. Autograd can derive both, but writes many large intermediates on the way; the formulas below keep
what is shared, and in the pass that makes the forces leave out the gradients of the parameters, which nobody reads.

Each operation is an `autograd.Function` for the value and one for its backward pass. The arithmetic itself is in plain
functions (`_forward`, `_backward`, `_backward_full`, `_twice`), which `torch.compile` fuses if asked to. Where compiled
arithmetic wants another form than PyTorch's own operations, a helper such as `_lerp` has both.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch.autograd import Function
from torch.utils._pytree import tree_leaves

_EPS = 1e-5  # of CHGNet's layer norms


def _lerp(a, b, s):
    """Return a + s (b - a): one pass over memory, where the compiler's own formula would branch."""
    return a + s * (b - a) if torch.compiler.is_compiling() else torch.lerp(a, b, s)


def _row_dots(rows, vector):
    """Return rows @ vector as a column; the compiler is given a sum that it can fuse."""
    return (rows * vector).sum(dim=1, keepdim=True) if torch.compiler.is_compiling() else rows @ vector[:, None]


# --- gathers and sums ---


@dataclass(frozen=True)
class Incidence:
    """A sparse 0/1 matrix: which rows of a table are added up into which rows of the result, and the transpose.

    Attributes
    ----------
    rows, offsets : int32
        Result row k is the sum of `table[rows[offsets[k]:offsets[k + 1]]]`.
    transposed_rows, transposed_offsets : int32
        Rows and offsets of the transposed matrix, used by the backward pass.
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
    """Value h s, and what its derivatives need: s = sigmoid(h), and the slope unless it is made again (compiled)."""
    s = torch.sigmoid(hidden)
    activated = hidden * s
    return activated, (s,) if torch.compiler.is_compiling() else (s, _silu_slope(activated, s))


def _silu_slope(activated, s):
    """Return s + h s (1 - s)."""
    return _lerp(activated, s.new_ones(()), s)


def _silu_saved(hidden, saved):
    return saved if len(saved) == 2 else (saved[0], _silu_slope(hidden * saved[0], saved[0]))


def _silu_backward(grad, hidden, saved):
    return grad * _silu_saved(hidden, saved)[1]


def _silu_backward_full(grad, hidden, saved):
    """SiLU's gradient times the incoming one, in place, and the value of SiLU once more."""
    s, slope = _silu_saved(hidden, saved)
    return grad.mul_(slope), hidden * s


def _silu_twice(q, grad, hidden, saved):
    """Backward of `grad * slope` for the cotangent q: to grad, to hidden; silu'' = slope + s (1 - 2 slope)."""
    s, slope = _silu_saved(hidden, saved)
    curvature = _lerp(slope, 1 - slope, s)
    return q * slope, curvature.mul_(q).mul_(grad)


# --- the gate: silu(norm(core)) x sigmoid(norm(gate)) x weights ---
# u = norm(core), v = norm(gate), s = sigmoid(u), b = sigmoid(v), value m = u s b with slopes m_u, m_v; message m w.


def _normalise_backward(grad, hidden, mean, inverse_std, gamma):
    """Backward of layer normalisation; without gamma also its forward derivative, because it is symmetric."""
    return _native_backward(grad, hidden, mean, inverse_std, gamma, None)[0]


def _normalise_backward_full(grad, hidden, mean, inverse_std, gamma, beta):
    """Backward pass of the layer norm with what goes to gamma and beta; see `_sum_columns`."""
    if torch.compiler.is_compiling():
        x = (hidden - mean) * inverse_std
        return _normalise_backward(grad, hidden, mean, inverse_std, gamma), grad * x, grad
    return _native_backward(grad, hidden, mean, inverse_std, gamma, beta)


def _native_backward(grad, hidden, mean, inverse_std, gamma, beta):
    with_parameters = beta is not None
    width, wanted = [hidden.shape[1]], [True, with_parameters, with_parameters]
    return torch.ops.aten.native_layer_norm_backward(grad, hidden, width, mean, inverse_std, gamma, beta, wanted)


def _sum_columns(rows):
    """Sum over rows; not in a compiled kernel, which would read all that goes into them once more."""
    return rows if torch.compiler.is_compiling() or rows.dim() == 1 else rows.sum(dim=0)


def _normalise(x, gamma, beta):
    """Layer normalisation, mean and inverse deviation; by plain sums for the compiler, which would make a slow scan."""
    if not torch.compiler.is_compiling():
        return torch.native_layer_norm(x, [x.shape[1]], gamma, beta, _EPS)
    mean = x.sum(dim=1, keepdim=True) / x.shape[1]
    centred = x - mean
    inverse_std = torch.rsqrt((centred * centred).sum(dim=1, keepdim=True) / x.shape[1] + _EPS)
    return torch.addcmul(beta, centred * inverse_std, gamma), mean, inverse_std


def _gate(core, gate, weights, norms):
    u, *moments_u = _normalise(core, *norms[:2])
    v, *moments_v = _normalise(gate, *norms[2:])
    s, b = torch.sigmoid(u), torch.sigmoid_(v)
    m = u.mul_(s).mul_(b)
    slopes = () if torch.compiler.is_compiling() else _gate_slopes(s, b, m)
    return m if weights is None else m * weights, (*moments_u, *moments_v, s, b, m, *slopes)


def _gate_slopes(s, b, m):
    """m_u = b (s + u s (1 - s)) and m_v = m (1 - b)."""
    return _lerp(m, b, s), torch.addcmul(m, m, b, value=-1)


def _gate_saved(saved):
    """Moments of core and gate, and s, b, m, m_u, m_v: slopes that were not saved are made again."""
    return saved[:4], saved[4:] if len(saved) == 9 else (*saved[4:], *_gate_slopes(*saved[4:]))


def _gate_backward(grad, core, gate, weights, norms, saved):
    moments, (_, _, m, m_u, m_v) = _gate_saved(saved)
    scaled = grad if weights is None else grad * weights
    to_core = _normalise_backward(scaled * m_u, core, *moments[:2], norms[0])
    to_gate = _normalise_backward(scaled * m_v, gate, *moments[2:], norms[2])
    return to_core, to_gate, None if weights is None else grad * m


def _gate_backward_full(grad, core, gate, weights, norms, saved):
    moments, (_, _, m, m_u, m_v) = _gate_saved(saved)
    scaled = grad if weights is None else grad * weights
    to_core, *to_norm_u = _normalise_backward_full(scaled * m_u, core, *moments[:2], *norms[:2])
    to_gate, *to_norm_v = _normalise_backward_full(scaled * m_v, gate, *moments[2:], *norms[2:])
    return to_core, to_gate, *to_norm_u, *to_norm_v, None if weights is None else grad * m


def _normalise_twice(to_x, q, q_dot, p, back, x, inverse_std, gamma):
    """Add the gradient of p gamma . J q with respect to the normalised rows' input, J = r (C - x x^T / n), to `to_x`.

    `q_dot` = J q and `back` = J (gamma p) are known already: the gradient is
    -(r / n) [x (p gamma . q_dot) + back (q . x) + q_dot (p gamma . x)]. Returns that to gamma; p and x are used up.
    """
    to_gamma = p * q_dot
    factor = inverse_std * (-1 / x.shape[1])
    to_x.addcmul_(q_dot, factor * _row_dots(p.mul_(x), gamma))
    to_x.addcmul_(back, factor * torch.mul(q, x, out=p).sum(dim=1, keepdim=True))
    to_x.addcmul_(x, factor * _row_dots(to_gamma, gamma))
    return _sum_columns(to_gamma)


def _gate_twice(q_core, q_gate, q_weights, grad, core, gate, weights, norms, saved, back_core, back_gate):
    """Backward of `_gate_backward` for cotangents of its results: to grad, core, gate, the four parameters, weights."""
    gamma_u, beta_u, gamma_v, beta_v = norms
    (u_mean, u_inverse_std, v_mean, v_inverse_std), (s, b, m, m_u, m_v) = _gate_saved(saved)
    core_dot = _normalise_backward(q_core, core, u_mean, u_inverse_std, None)
    gate_dot = _normalise_backward(q_gate, gate, v_mean, v_inverse_std, None)
    # u_dot and v_dot (here -v_dot) are the tangents of u and v, `change` is that of m; the slopes m_u and m_v change
    # by the second ones, m_uu = m_u + s (b - 2 m_u), m_uv = m_u (1 - b) and m_vv = m_v (1 - 2 b)
    u_dot, minus_v_dot = core_dot * gamma_u, gate_dot * -gamma_v
    by_u, minus_by_v = m_u * u_dot, m_v * minus_v_dot
    change = by_u - minus_by_v
    to_u = _lerp(m_u, b - m_u, s).mul_(u_dot)
    to_u.addcmul_(m_u, minus_v_dot.addcmul_(minus_v_dot, b, value=-1), value=-1)
    to_v = _lerp(change, minus_by_v, b)  # change - b (change + by_v)
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
    to_core, to_gamma_u, to_beta_u = _normalise_backward_full(to_u, core, u_mean, u_inverse_std, gamma_u, beta_u)
    to_gate, to_gamma_v, to_beta_v = _normalise_backward_full(to_v, gate, v_mean, v_inverse_std, gamma_v, beta_v)
    x_u, x_v = (core - u_mean).mul_(u_inverse_std), (gate - v_mean).mul_(v_inverse_std)
    to_gamma_u += _normalise_twice(to_core, q_core, core_dot, scaled * m_u, back_core, x_u, u_inverse_std, gamma_u)
    to_gamma_v += _normalise_twice(to_gate, q_gate, gate_dot, scaled * m_v, back_gate, x_v, v_inverse_std, gamma_v)
    return to_grad, to_core, to_gate, to_gamma_u, to_beta_u, to_gamma_v, to_beta_v, to_weights


# --- both together: from hidden, core and gate side by side (n, 128), to messages (n, 64) ---
# `norms` are gamma and beta of core and gate; `second` weight and bias of the second layer of core and gate, or empty.


def _forward(hidden, weights, norms, second):
    """Messages, core and gate before their norms, and what the derivatives need."""
    if second:
        core_weight, core_bias, gate_weight, gate_bias = second
        activated, silu = _silu(hidden)
        left, right = activated.chunk(2, dim=1)
        core, gate = torch.addmm(core_bias, left, core_weight.t()), torch.addmm(gate_bias, right, gate_weight.t())
    else:
        (core, gate), silu = _halves(hidden), ()
    messages, saved = _gate(core, gate, weights, norms)
    return messages, core, gate, saved, silu


def _backward(grad, hidden, core, gate, weights, norms, second, saved, silu):
    """To hidden and to weights; and, for the second derivative, to core, to gate and to the second layer's input."""
    to_core, to_gate, to_weights = _gate_backward(grad, core, gate, weights, norms, saved)
    to_activated = _side_by_side(to_core, to_gate, second)
    to_hidden = _silu_backward(to_activated, hidden, silu) if second else to_activated
    return to_hidden, to_weights, to_core, to_gate, to_activated


def _backward_full(grad, more_core, more_gate, hidden, core, gate, weights, norms, second, saved, silu):
    """To hidden, weights, norms and second layer; core and gate have been asked for `more` by the second derivative."""
    to_core, to_gate, *to_norms, to_weights = _gate_backward_full(grad, core, gate, weights, norms, saved)
    if more_core is not None:
        to_core, to_gate = to_core.add_(more_core), to_gate.add_(more_gate)
    to_hidden = _side_by_side(to_core, to_gate, second)
    if not second:
        return to_hidden, to_weights, to_norms, ()
    to_hidden, activated = _silu_backward_full(to_hidden, hidden, silu)
    left, right = activated.chunk(2, dim=1)
    to_second = to_core.t() @ left, _sum_columns(to_core), to_gate.t() @ right, _sum_columns(to_gate)
    return to_hidden, to_weights, to_norms, to_second


def _twice(q, q_weights, grad, hidden, core, gate, weights, norms, second, saved, silu, to_core, to_gate, to_activated):
    """Backward of `_backward` for cotangents of its results: to grad, the four inputs, norms and second layer."""
    if second:
        scaled, to_hidden = _silu_twice(q, to_activated, hidden, silu)
        left, right = scaled.chunk(2, dim=1)
        to_second = to_core.t() @ left, None, to_gate.t() @ right, None
        q_core, q_gate = left @ second[0].t(), right @ second[2].t()
    else:
        (q_core, q_gate), to_hidden, to_second = _halves(q), None, ()
    to_grad, more_core, more_gate, *to_norms, to_weights = _gate_twice(
        q_core, q_gate, q_weights, grad, core, gate, weights, norms, saved, to_core, to_gate
    )
    return to_grad, to_hidden, more_core, more_gate, to_weights, to_norms, to_second


def _halves(both):
    return tuple(half.contiguous() for half in both.chunk(2, dim=1))


def _side_by_side(core, gate, second):
    """[core, gate], or with a second layer each times its matrix, without a copy of either."""
    if not second:
        return torch.cat([core, gate], dim=1)
    if torch.compiler.is_compiling():
        return torch.cat([core @ second[0], gate @ second[2]], dim=1)
    width = core.shape[1]
    both = core.new_empty(len(core), 2 * width)
    torch.mm(core, second[0], out=both[:, :width])
    torch.mm(gate, second[2], out=both[:, width:])
    return both


class _Gated(Function):
    """Core and gate are results only so that the second derivative can ask more of them."""

    @staticmethod
    def forward(ctx, hidden, weights, kernels, *parameters):
        norms, second = parameters[:4], parameters[4:]
        messages, core, gate, saved, silu = kernels.arithmetic.forward(hidden, weights, norms, second)
        ctx.save_for_backward(hidden, core, gate, weights, *parameters, *saved, *silu)
        ctx.kernels, ctx.counts = kernels, (len(second), len(saved))
        ctx.set_materialize_grads(False)
        return messages, core, gate

    @staticmethod
    def backward(ctx, grad, more_core, more_gate):
        (hidden, core, gate, weights), norms, second, saved, silu = _sort(ctx)
        kernels = ctx.kernels
        if kernels.pass_makes_forces():
            state = saved, silu  # in tuples, because nothing flows back to them
            back = _GatedBackward.apply(grad, hidden, core, gate, weights, kernels, state, *norms, *second)
            return *back, None, *[None] * len(norms + second)
        inputs = hidden, core, gate, weights, norms, second, saved, silu
        results = kernels.arithmetic.backward_full(grad, more_core, more_gate, *inputs)
        to_hidden, to_weights, to_norms, to_second = results
        return to_hidden, to_weights, None, *map(_sum_columns, to_norms), *_sum_biases(to_second)


class _GatedBackward(Function):
    @staticmethod
    def forward(ctx, grad, hidden, core, gate, weights, kernels, state, *parameters):
        norms, second, (saved, silu) = parameters[:4], parameters[4:], state
        inputs = hidden, core, gate, weights, norms, second, saved, silu
        to_hidden, to_weights, *between = kernels.arithmetic.backward(grad, *inputs)
        ctx.save_for_backward(hidden, core, gate, weights, *parameters, *saved, *silu, grad, *between)
        ctx.kernels, ctx.counts = kernels, (len(second), len(saved), len(silu))
        return to_hidden, to_weights

    @staticmethod
    def backward(ctx, q, q_weights):
        inputs, norms, second, saved, silu, (grad, *between) = _sort(ctx)
        results = ctx.kernels.arithmetic.twice(q, q_weights, grad, *inputs, norms, second, saved, silu, *between)
        to_grad, to_hidden, more_core, more_gate, to_weights, to_norms, to_second = results
        to_inputs = to_hidden, more_core, more_gate, to_weights
        return to_grad, *to_inputs, None, None, *map(_sum_columns, to_norms), *to_second


def _sort(ctx) -> Iterator[tuple]:
    """What was saved: the four inputs, four norms, and groups of as many as counted."""
    tensors, start = ctx.saved_tensors, 0
    for count in (4, 4, *ctx.counts, len(tensors)):
        yield tensors[start : start + count]
        start += count


def _sum_biases(to_second):
    return [_sum_columns(to) if k % 2 else to for k, to in enumerate(to_second)]


# --- what the forward pass calls ---


class CompilerError(ValueError):
    """There is nothing to compile kernels with."""


@dataclass(frozen=True)
class _Arithmetic:
    """The plain functions above, as they are or compiled."""

    forward: Callable = _forward
    backward: Callable = _backward
    backward_full: Callable = _backward_full
    twice: Callable = _twice


@cache
def _compiled(device: str) -> _Arithmetic:
    """These functions through `torch.compile`, each for all sizes at once."""
    if not any(map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))):
        raise CompilerError("compile=True needs a C++ compiler: install g++ or clang++, or leave compile out.")
    # one thread each, and the interpreter released: batches run side by side (potential/parallel.py)
    options = {"cpp.threads": 1, "cpp_wrapper": True} if device == "cpu" else {}
    plain = _Arithmetic()
    return _Arithmetic(**{f.name: _compile(getattr(plain, f.name), options) for f in fields(plain)})


def _compile(function: Callable, options: dict) -> Callable:
    """Compile for any number of rows, but for the width they have: loops of known length are unrolled."""
    compiled = torch.compile(function, fullgraph=True, options=options)
    known = set()

    def call(*arguments):
        if arguments[0].dtype not in known:
            known.add(arguments[0].dtype)
            for tensor in tree_leaves(arguments):
                if tensor is not None and tensor.dim() == 2 and not isinstance(tensor, torch.nn.Parameter):
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*arguments)

    return call


class Kernels:
    """The kernels of one forward pass: they know whether its forces are being made.

    Parameters
    ----------
    compile : bool
        Fuse the arithmetic with `torch.compile`; needs a C++ compiler, and half a minute the first time.
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
        norms = mlp.bn1.weight, mlp.bn1.bias, mlp.bn2.weight, mlp.bn2.bias
        second = (p for layers in (mlp.mlp_core, mlp.mlp_gate) for p in linears(layers)[1:])
        second = (p for layer in second for p in (layer.weight, layer.bias))
        return _Gated.apply(hidden, weights, self, *norms, *second)[0]


def linears(mlp: torch.nn.Module) -> list[torch.nn.Linear]:
    """The linear layers of one of chgnet's MLPs."""
    return [layer for layer in mlp.layers if isinstance(layer, torch.nn.Linear)]
