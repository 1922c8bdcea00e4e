"""The flat forward pass gives chgnet's numbers and chgnet's gradients, on every kind of cell the book meets.

Scales. An energy is compared relative to itself; a force, stress or magnetic moment relative to the largest component
in its crystal, but at least to 1 eV/Å, 1 GPa or 1 µB (symmetry makes many of them zero); a parameter's gradient
relative to its own norm.
"""

import contextlib

import numpy as np
import pytest
import torch
from oracle import (
    OUTPUTS,
    as_crystals,
    chgnet_forward,
    chgnet_graphs,
    in_float64,
    in_other_basis,
    one_batch,
    random_crystals,
    supercell,
    take,
    triples_of,
    unimodular,
)

import crossfunc as xf
from crossfunc.potential import Crystals, load_model
from crossfunc.potential.forward import forward
from crossfunc.potential.native import without_native

TOLERANCE = 1e-10
FLOORS = {"energy_per_atom_ev": 0.0, "forces_ev_per_a": 1.0, "stress_gpa": 1.0, "magmoms_mub": 1.0}


def surrogate_crystals(rng, n_frames):
    """Frames of every source (both tiers) of the embedded dataset, changed in turn as training data vary."""
    table = xf.open_dataset("surrogate").frames
    sources = np.array(table["source"].to_pylist())
    sizes = np.array([len(z) for z in table["atomic_numbers"].to_pylist()])
    kinds = np.unique(np.stack([sources, sizes.astype(str)], axis=1), axis=0, return_inverse=True)[1].ravel()
    queue = [rng.permutation(np.flatnonzero(kinds == kind)) for kind in rng.permutation(kinds.max() + 1)]
    rows = [members[turn] for turn in range(4) for members in queue if turn < len(members)][:n_frames]
    changed = []
    for k, (z, x, lattice) in enumerate(triples_of(Crystals.from_frames(table.take(rows)))):
        if k % 5 == 1:
            lattice = lattice @ (np.eye(3) + rng.normal(0, 0.03, (3, 3)))
        elif k % 5 == 2:
            x = x + rng.normal(0, 0.08, x.shape) @ np.linalg.inv(lattice)
        elif k % 5 == 3:
            z, x, lattice = in_other_basis((z, x, lattice), unimodular(rng))
        elif k % 5 == 4 and len(z) <= 6:
            z, x, lattice = supercell((z, x, lattice), rng.permutation([1, 1, 2]))
            x = x + rng.normal(0, 0.03, x.shape) @ np.linalg.inv(lattice)
        changed.append((z, x, lattice))
    return changed


def one_atom_cells():
    """Simple cubic, fcc and bcc: with angles, and (rare gases, alkali metals) without any."""
    fcc, bcc = (1 - np.eye(3)) / 2, (1 - 2 * np.eye(3)) / 2
    metals = {"sc": (84, 3.35, np.eye(3)), "Cu": (29, 3.6, fcc), "Fe": (26, 2.87, bcc), "W": (74, 3.17, bcc)}
    no_angles = {"Xe": (54, 6.2, fcc), "Ar": (18, 5.4, fcc), "K": (19, 5.2, bcc), "Cs": (55, 6.1, bcc)}
    no_angles["lone"] = (11, 5.9, np.eye(3))  # six bonds, none of them short
    return [([z], [[0.1, 0.2, 0.3]], a * lattice) for z, a, lattice in (metals | no_angles).values()]


def large_cells(rng):
    """Distorted supercells of 48 to 60 atoms: perovskite, rock salt, CsCl."""
    perovskite = ([38, 22, 8, 8, 8], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], 3.9 * np.eye(3))
    salt = ([12, 8], [[0] * 3, [0.5] * 3], 4.2 * (1 - np.eye(3)) / 2)
    cesium = ([55, 17], [[0] * 3, [0.5] * 3], 4.1 * np.eye(3))
    cells = []
    for unit, repeats in ((perovskite, (2, 2, 3)), (salt, (2, 3, 4)), (cesium, (2, 3, 5))):
        z, x, lattice = supercell(unit, repeats)
        cells.append((z, x + rng.normal(0, 0.05, x.shape) @ np.linalg.inv(lattice), lattice))
    return cells


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(7)
    triples = surrogate_crystals(rng, 100) + random_crystals(7, 100, max_atoms=4) + one_atom_cells() + large_cells(rng)
    return as_crystals(triples)


@pytest.fixture(scope="module")
def groups(corpus):
    """Crystals of similar size together, the eight smallest and four in between alone."""
    order = np.argsort(corpus.n_atoms, kind="stable")
    alone = [*order[:8], *order[[50, 100, 150, 180]]]
    rest = [k for k in order if k not in alone]
    cuts = np.flatnonzero(np.diff(np.cumsum(corpus.n_atoms[rest]) // 90)) + 1
    return [np.array([k]) for k in alone] + np.split(np.array(rest), cuts)


def gradients(model, output, labels):
    """Gradient of a mean square loss on all four outputs, by parameter (None where the loss has no slope)."""
    model.zero_grad()
    sum(((output[key] - labels[key]) ** 2).mean() for key in OUTPUTS).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def labels_for(reference, seed):
    """Labels that scatter about a prediction by its own size, so that residuals are well conditioned."""
    generator = torch.Generator().manual_seed(seed)
    labels = {}
    for key, values in reference.items():
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        labels[key] = values.detach() + noise * values.detach().square().mean().sqrt().clamp(min=0.1)
    return labels


def compare_group(model, crystals):
    """Our outputs and gradients beside chgnet's: two dicts of relative differences, and parameters only we move.

    Ours are made both ways, by the compiled library where there is one and by PyTorch's operations; the worse counts.
    """
    indices, batch = one_batch(crystals)
    theirs = take(chgnet_forward(model, in_float64(chgnet_graphs(crystals), crystals)), crystals, indices)
    labels = labels_for(theirs, seed=len(crystals.atomic_numbers))
    expected = gradients(model, theirs, labels)
    moved = {name: g for name, g in expected.items() if not _is_zero(g)}
    outputs, slopes, ours_alone = dict.fromkeys(OUTPUTS, 0.0), dict.fromkeys(moved, 0.0), []
    for route in (contextlib.nullcontext, without_native):
        with route():
            ours = forward(model, batch, create_graph=True)
            found = gradients(model, ours, labels)
        ours_alone += [name for name, g in found.items() if name not in moved and not _is_zero(g)]
        for name, g in moved.items():
            slopes[name] = max(slopes[name], float((found[name] - g).norm() / g.norm()))
        for key in OUTPUTS:
            outputs[key] = max(outputs[key], _difference(key, ours[key], theirs[key], batch))
    return outputs, slopes, ours_alone


def _is_zero(gradient):
    return gradient is None or not gradient.norm()


def relative(key, differences, values, batch, floor=None):
    """Differences of one output, each relative to the scale of its crystal, shape (n_crystals or n_atoms,)."""
    largest, scale = (t.detach().double().reshape(len(t), -1).abs().amax(dim=1) for t in (differences, values))
    if key in ("forces_ev_per_a", "magmoms_mub"):
        per_crystal = scale.new_zeros(len(batch.n_atoms))
        scale = per_crystal.scatter_reduce(0, batch.owners, scale, "amax")[batch.owners]
    return largest / scale.clamp(min=FLOORS[key] if floor is None else floor)


def _difference(key, ours, theirs, batch):
    return float(relative(key, ours - theirs, theirs, batch).max())


@pytest.fixture(scope="module", params=["r2scan", "0.3.0"])
def compared(request, corpus, groups):
    """All groups by the one checkpoint, every fifth by the other."""
    model = load_model(request.param).double().requires_grad_(True)  # the element references too
    chosen = groups if request.param == "r2scan" else groups[::5]
    return [compare_group(model, corpus.take(group)) for group in chosen]


def test_the_corpus_holds_every_kind_of_cell(corpus):
    assert len(corpus) > 200
    assert corpus.n_atoms.min() == 1
    assert corpus.n_atoms.max() == 60
    graphs = chgnet_graphs(corpus.take(np.flatnonzero(corpus.n_atoms <= 6)))
    without_angles = sum(len(graph.bond_graph) == 0 for graph in graphs)
    assert without_angles >= 5
    lengths = np.linalg.norm(corpus.lattices_a, axis=2)
    skew = np.abs(np.linalg.det(corpus.lattices_a)) / lengths.prod(axis=1)
    assert (skew < 0.3).sum() >= 10


def test_outputs_are_chgnets_to_1e_10(compared):
    worst = {key: max(outputs[key] for outputs, _, _ in compared) for key in OUTPUTS}
    assert max(worst.values()) < TOLERANCE, worst


def test_every_parameter_gradient_is_chgnets_to_1e_10(compared):
    worst = {}
    for _, slopes, ours_alone in compared:
        assert not ours_alone
        for name, difference in slopes.items():
            worst[name] = max(worst.get(name, 0), difference)
    assert len(worst) == 128  # all but the third angle layer, whose result chgnet computes and drops
    assert max(worst.values()) < TOLERANCE, max(worst.items(), key=lambda item: item[1])


def test_chgnets_float32_composition_is_the_one_rounding_that_ours_lacks(corpus):
    model = load_model("r2scan").double()
    crystals = corpus.take(np.flatnonzero(corpus.n_atoms == 3)[:6])
    indices, batch = one_batch(crystals)
    ours = forward(model, batch, derivatives=False)["energy_per_atom_ev"]
    references, model.composition_model = model.composition_model, None
    ours = ours - forward(model, batch, derivatives=False)["energy_per_atom_ev"]
    weights = references.fc.weight[0].detach()
    fractions = references._assemble_graphs(chgnet_graphs(crystals.take(indices)))
    assert fractions.dtype == torch.float32
    thirds = (fractions.double() * 3).round() / 3
    torch.testing.assert_close(ours, thirds @ weights, rtol=1e-12, atol=0)
    shift = (fractions.double() - thirds) @ weights
    assert shift.abs().max() > 1e-9  # eV/atom
    assert (shift.abs() <= 2.0**-24 * (thirds @ weights.abs())).all()  # float32 rounds by half a unit in the 24th bit


def test_left_handed_cells_have_the_stress_of_their_right_handed_twin_which_chgnet_turns_round():
    model = load_model("r2scan").double()
    (crystal,) = random_crystals(3, 1)
    mirror = in_other_basis(crystal, np.diag([1, 1, -1]))
    crystals = as_crystals([crystal, mirror])
    indices, batch = one_batch(crystals)
    order = np.argsort(indices)
    ours = forward(model, batch)["stress_gpa"][order]
    theirs = chgnet_forward(model, in_float64(chgnet_graphs(crystals), crystals))["stress_gpa"].detach()
    torch.testing.assert_close(ours[1], ours[0], rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(theirs[0], ours[0], rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(theirs[1], -ours[0], rtol=1e-10, atol=1e-9)  # 1/V with a signed V


# --- float32 ---


def rounded_to_float32(crystals):
    """The same crystals at coordinates that float32 holds exactly, so that rounding the input costs nobody anything."""
    return Crystals(
        crystals.atomic_numbers,
        crystals.frac_coords.astype(np.float32).astype(float),
        crystals.lattices_a.astype(np.float32).astype(float),
        crystals.n_atoms,
    )


def test_our_float32_error_is_chgnets_float32_error(corpus):
    """Root mean square over 100 crystals of each one's float32 result minus its own float64 result, both our ways.

    Relative above 1 eV/atom and so on, absolute below: float32 rounds the sites' energies, some eV, and where the
    references happen to cancel them (SbAu: -0.007 eV/atom) one crystal's last bit would be the mean of all hundred.
    """
    crystals = rounded_to_float32(corpus.take(np.flatnonzero(corpus.n_atoms <= 6)[:100]))
    indices, batch = one_batch(crystals)
    single, double = load_model("0.3.0"), load_model("0.3.0").double()
    graphs = chgnet_graphs(crystals)
    theirs = take(chgnet_forward(single, graphs), crystals, indices)
    exact = take(chgnet_forward(double, in_float64(graphs, crystals)), crystals, indices)

    def rms(key, values, true):
        return relative(key, values[key] - true[key], exact[key], batch, floor=1.0).square().mean().sqrt()

    for route in (contextlib.nullcontext, without_native):
        with route():
            ours, ours_exact = forward(single, batch.to(dtype=torch.float32)), forward(double, batch)
        for key in OUTPUTS:
            error, chgnets = rms(key, ours, ours_exact), rms(key, theirs, exact)
            assert error < 1.5 * chgnets, f"{key}: rms {error:.1e}, chgnet {chgnets:.1e}"


def test_float32_forces_are_worst_near_180_degrees_because_acos_is():
    # the slope of acos(c (1 - 1e-6)) at c = -1 is -707, and its relative change 0.5 per 1e-6 of c: one float32 step
    # of the cosine (6e-8) moves the slope, and with it every force that runs through a straight angle, by 3 %
    def slope(cosine):
        cosine = cosine.clone().requires_grad_(True)
        return torch.autograd.grad(torch.acos(cosine * (1 - 1e-6)), cosine)[0]

    straight = torch.tensor(-1.0)
    one_step_off = torch.nextafter(straight, torch.tensor(0.0))
    assert abs(slope(one_step_off) / slope(straight) - 1) > 0.02
    right = torch.tensor(0.5)
    assert abs(slope(torch.nextafter(right, torch.tensor(0.0))) / slope(right) - 1) < 1e-6
