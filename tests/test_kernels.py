"""The hand-written derivatives against autograd's own, through the same formula in plain operations."""

import shutil

import pytest
import torch
from torch.nn import functional

from crossfunc.potential import kernels
from crossfunc.potential.graphs import _make_incidence
from crossfunc.potential.kernels import Kernels

ROWS, WIDTH = 7, 64


def plain_gated(hidden, gamma_u, beta_u, gamma_v, beta_v, *second, weights=None):
    core, gate = hidden.chunk(2, dim=1)
    if second:
        core = functional.linear(functional.silu(core), *second[:2])
        gate = functional.linear(functional.silu(gate), *second[2:])
    u = functional.layer_norm(core, [WIDTH], gamma_u, beta_u)
    v = functional.layer_norm(gate, [WIDTH], gamma_v, beta_v)
    messages = functional.silu(u) * torch.sigmoid(v)
    return messages if weights is None else messages * weights


def gated(kernel):
    return lambda hidden, *parameters, weights=None: kernels._Gated.apply(hidden, weights, kernel, *parameters)[0]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def draw_inputs(*, second=True, weighted=True):
    """Hidden features, parameters, and weights of the messages."""
    torch.manual_seed(0)
    parameters = [draw(WIDTH) for _ in range(4)]
    if second:
        parameters += [draw(WIDTH, WIDTH), draw(WIDTH), draw(WIDTH, WIDTH), draw(WIDTH)]
    return [draw(ROWS, 2 * WIDTH), *parameters], draw(ROWS, WIDTH) if weighted else None


def all_gradients(function, inputs, weights, during=None):
    """Gradients of a random functional of the value and of its first derivatives by the features: as forces are used.

    The features are the hidden ones and the weights; parameters get gradients in the second pass.
    """
    torch.manual_seed(1)
    value = function(*inputs, weights=weights)
    features = [x for x in [inputs[0], weights] if x is not None]
    with during() if during else torch.enable_grad():
        slopes = torch.autograd.grad((value * torch.randn_like(value)).sum(), features, create_graph=True)
    loss = (value * torch.randn_like(value)).sum() + sum((s * torch.randn_like(s)).sum() for s in slopes)
    leaves = [*inputs, *features[1:]]
    return [value.detach(), *(s.detach() for s in slopes), *torch.autograd.grad(loss, leaves)]


def assert_all_close(ours, theirs, rtol=1e-11):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


KINDS = pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
DEPTHS = pytest.mark.parametrize("second", [True, False], ids=["two layers", "one layer"])


@KINDS
@DEPTHS
def test_gated_mlp_has_autograds_value_forces_and_second_derivatives(weighted, second):
    one, inputs = Kernels(), draw_inputs(second=second, weighted=weighted)
    ours = all_gradients(gated(one), *inputs, one.making_forces)
    assert_all_close(ours, all_gradients(plain_gated, *inputs))


@KINDS
@DEPTHS
def test_gated_mlp_has_autograds_first_derivatives_of_the_parameters_too(weighted, second):
    inputs, weights = draw_inputs(second=second, weighted=weighted)
    leaves = [*inputs, weights] if weighted else inputs
    torch.manual_seed(2)
    seed = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    ours = torch.autograd.grad(gated(Kernels())(*inputs, weights=weights), leaves, seed)
    assert_all_close(ours, torch.autograd.grad(plain_gated(*inputs, weights=weights), leaves, seed))


@pytest.mark.parametrize("extreme", [-700.0, 700.0])
def test_gated_mlp_stays_finite_where_activations_are_extreme(extreme):
    inputs, weights = draw_inputs()
    inputs[0] = torch.full_like(inputs[0], extreme, requires_grad=True)
    one = Kernels()
    assert all(x.isfinite().all() for x in all_gradients(gated(one), inputs, weights, one.making_forces))


def test_a_third_kind_of_derivative_is_refused_instead_of_wrong():
    inputs, weights = draw_inputs()
    value = gated(Kernels())(*inputs, weights=weights).sum()
    with pytest.raises(RuntimeError, match="positions first, then parameters"):
        torch.autograd.grad(value, inputs[0], create_graph=True)


def test_incidence_adds_up_the_rows_it_names_and_its_transpose_is_the_transpose():
    torch.manual_seed(0)
    rows = torch.tensor([[0, 2], [1, 2], [0, 0], [3, 1]])
    incidence = _make_incidence(rows.numpy(), 5)
    table, other = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(incidence(table), table[rows].sum(dim=1))
    torch.testing.assert_close((incidence(table) * other).sum(), (table * incidence.transposed(other)).sum())
    assert incidence.transposed(other)[4].abs().sum() == 0  # a row that nobody reads


def test_a_column_of_an_incidence_reads_only_its_part_of_the_table():
    table = torch.arange(12.0).view(6, 2)
    incidence = _make_incidence(torch.tensor([[0, 4], [1, 3], [0, 3]]).numpy(), 6)
    first, second = incidence.column(0, 0, 3), incidence.column(1, 3, 6)
    assert torch.equal(first(table[:3]), table[[0, 1, 0]])
    assert torch.equal(second(table[3:]), table[[4, 3, 3]])
    assert torch.equal(first.transposed(torch.ones(3, 1)), torch.tensor([[2.0], [1.0], [0.0]]))


def test_the_leading_columns_of_an_incidence_read_the_start_of_the_table():
    table = torch.arange(12.0).view(6, 2)
    incidence = _make_incidence(torch.tensor([[0, 2, 4], [1, 3, 4], [0, 3, 5]]).numpy(), 6)
    leading = incidence.leading(2, 4)
    assert torch.equal(leading(table[:4]), table[[0, 1, 0]] + table[[2, 3, 3]])
    assert torch.equal(leading.transposed(torch.ones(3, 1)), torch.tensor([[2.0], [1.0], [1.0], [2.0]]))


def test_an_incidence_without_rows_gives_an_empty_result_and_zero_gradients():
    table = torch.ones(3, 2, requires_grad=True)
    result = _make_incidence(torch.zeros(0, 3, dtype=torch.int64).numpy(), 3)(table)
    assert result.shape == (0, 2)
    assert torch.equal(torch.autograd.grad(result.sum(), table)[0], torch.zeros(3, 2))


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@DEPTHS
def test_compiled_kernels_give_the_same_derivatives(second):
    def derivatives(one):
        return all_gradients(gated(one), *draw_inputs(second=second, weighted=second), one.making_forces)

    assert_all_close(derivatives(Kernels(compile=True)), derivatives(Kernels()))


def test_compiling_without_a_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(kernels.CompilerError, match="install g\\+\\+ or clang"):
        kernels._compiled.__wrapped__("cpu")
