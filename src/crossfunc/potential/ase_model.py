"""Any ASE calculator as a model: `predict`, `relax` and `evaluate` take one wherever they take a CHGNet.

One frame after another through ASE's own interface, or several processes side by side, each with a calculator of its
own. What a calculator cannot do with a frame is told beside the frame; the others keep their results.
"""

import contextlib
import pickle
import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

import numpy as np

from crossfunc.potential.calculator_source import CalculatorError, CalculatorSource, first_line, without_network
from crossfunc.potential.crystals import Crystals
from crossfunc.potential.direct import DirectModel
from crossfunc.units import gpa_from_ev_per_a3

__all__ = ["AseModel", "as_model", "load_calculator", "to_atoms"]

PROPERTIES = ("stress", "forces", "energy", "magmoms")
"""In the order they are asked for: what makes a calculator compute most comes first, the rest is then there already."""
_FRAMES_PER_TASK = 16
_DIED = "the calculator's process ended without an answer (a crash in compiled code, or too little memory)"


@dataclass(frozen=True, eq=False)
class AseModel(DirectModel):
    """A model behind ASE's calculator interface.

    Attributes
    ----------
    make : callable
        Without arguments, returns a calculator; must be picklable for `n_jobs` other than 1.
    name : str
        For messages and results.
    n_jobs : int
        Processes that predict side by side, each with a calculator of its own; -1: one per core.
    allow_download : bool
        Whether calculations may reach the network.
    """

    make: Callable
    name: str
    n_jobs: int = 1
    allow_download: bool = False
    key: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    @property
    def calculator(self):
        """The calculator of this process, built when it is first asked for."""
        return _calculator_of(self)

    def can(self, name: str) -> bool:
        """Whether the calculator says that it has a property ("stress", "forces", "magmoms")."""
        return name in self.calculator.implemented_properties

    def require(self, *names: str, remedy: str) -> None:
        """Raise CalculatorError unless the calculator has all of these properties."""
        lacking = [name for name in names if not self.can(name)]
        if lacking:
            raise CalculatorError(f"{self.name} has no {' and no '.join(lacking)}: {remedy}.")

    def with_jobs(self, n_jobs: int) -> "AseModel":
        """Return this model over another number of processes."""
        return replace(self, n_jobs=n_jobs)

    def predict(
        self, crystals: Crystals, *, derivatives: bool = True, strict: bool = True, progress: bool = False
    ) -> dict:
        """As `crossfunc.potential.predict`, and `absent`: what the calculator does not have (NaN in the arrays).

        Raises
        ------
        CalculatorError
            The calculator cannot be built or sent to other processes; with `strict`, also where it fails on a crystal
            or returns what is not finite (names it).
        """
        from tqdm import tqdm

        wanted = [name for name in PROPERTIES if derivatives or name not in ("stress", "forces")]
        asked = [name for name in wanted if self.can(name)]
        n = len(crystals)
        energy, stress = np.full(n, np.nan), np.full((n, 3, 3), np.nan)
        forces = [np.full((k, 3), np.nan) for k in crystals.n_atoms]
        magmoms = [np.full(k, np.nan) for k in crystals.n_atoms]
        refused: dict[int, str] = {}
        with tqdm(total=n, desc="predict", disable=not progress) as bar:
            for k, found in self._run(crystals, asked):
                bar.update()
                if isinstance(found, str):
                    refused[k] = f"crystal {k} ({crystals.formula(k)}): {found}"
                    if strict:
                        raise CalculatorError(f"{self.name}: {refused[k]}")
                    continue
                energy[k] = found["energy"] / crystals.n_atoms[k]
                stress[k] = found.get("stress", np.nan)
                forces[k], magmoms[k] = found.get("forces", forces[k]), found.get("magmoms", magmoms[k])
        result = {"energy_per_atom_ev": energy, "magmoms_mub": magmoms}
        if derivatives:
            result |= {"stress_gpa": stress, "forces_ev_per_a": forces}
        absent = tuple(name for name in wanted if name not in asked)
        return result | {"refused": dict(sorted(refused.items())), "absent": absent}

    def _run(self, crystals: Crystals, asked: list[str]) -> Iterator[tuple[int, dict | str]]:
        """Results, or the reason why there are none, by number of the crystal."""
        if self.n_jobs == 1 or len(crystals) < 2:
            for k in range(len(crystals)):
                (found,) = _predict_some(self, crystals.take([k]), asked)
                yield k, found
            return
        self._check_picklable()
        size = int(np.clip(len(crystals) // 16, 1, _FRAMES_PER_TASK))
        parts = [np.arange(a, min(a + size, len(crystals))) for a in range(0, len(crystals), size)]
        yield from self._spread(crystals, parts, asked)

    def _spread(self, crystals: Crystals, parts: list, asked: list[str]) -> Iterator[tuple[int, dict | str]]:
        """Parts side by side; when a process dies, one after another until the part it died of is found."""
        from joblib import Parallel, delayed

        alone, done = self.with_jobs(1), 0

        def tasks(some):
            return (delayed(_predict_some)(alone, crystals.take(rows), asked) for rows in some)

        try:
            for found in Parallel(n_jobs=self.n_jobs, return_as="generator")(tasks(parts)):
                yield from zip(parts[done].tolist(), found, strict=True)
                done += 1
            return
        except BrokenProcessPool:
            pass
        while done < len(parts):
            rows = parts[done]
            done += 1
            try:
                (found,) = Parallel(n_jobs=2)(tasks([rows]))  # 2: in a process of its own
            except BrokenProcessPool:
                if len(rows) == 1:
                    yield int(rows[0]), _DIED
                else:
                    yield from self._spread(crystals, [rows[k : k + 1] for k in range(len(rows))], asked)
                break
            yield from zip(rows.tolist(), found, strict=True)
        if done < len(parts):
            yield from self._spread(crystals, parts[done:], asked)

    def _check_picklable(self) -> None:
        try:
            pickle.dumps(self.make)
        except Exception as error:
            raise CalculatorError(
                f"{self.name} cannot be sent to other processes ({first_line(error)}): use one process, or give its "
                "import path and arguments, or a function that makes it."
            ) from error


def load_calculator(
    source: str | Callable, arguments: dict | None = None, *, n_jobs: int = 1, allow_download: bool = False
) -> AseModel:
    """Make a model of an ASE calculator that is named by its import path, or made by a function.

    Parameters
    ----------
    source : str or callable
        "package.module:name" of a class or function; or a function without arguments that returns a calculator.
    arguments : dict, optional
        Keyword arguments of what the path names.
    n_jobs : int
        Processes that predict side by side; each builds its own.
    allow_download : bool
        Whether it may reach the network.

    Returns
    -------
    AseModel
        For `predict`, `relax`, `evaluate` and `verdict`; the calculator is `.calculator`.

    Raises
    ------
    CalculatorError
        It cannot be imported or built, wants to download what is not allowed, or is no ASE calculator.

    Examples
    --------
    >>> import crossfunc as xf
    >>> model = xf.load_calculator("ase.calculators.emt:EMT")
    """
    made: Callable
    if isinstance(source, str):
        described = CalculatorSource(source, dict(arguments or {}), allow_download)
        made, name = described, described.name
    elif callable(source) and not arguments and not hasattr(source, "get_property"):
        made, name = source, getattr(source, "__qualname__", type(source).__name__)
    else:
        raise CalculatorError("give an import path (with arguments), or a function without arguments that makes one.")
    model = AseModel(made, name, n_jobs, allow_download)
    _ = model.calculator  # now, not after the data have been read
    return model


def as_model(model):
    """Return an AseModel for an ASE calculator; anything else (a CHGNet, an AseModel) as it is."""
    if isinstance(model, AseModel) or not hasattr(model, "get_property"):
        return model
    given = AseModel(_Given(model), type(model).__name__)
    _ = given.calculator  # refuses what has no energy
    return given


@dataclass(frozen=True)
class _Given:
    """Makes a calculator that exists already."""

    calculator: object

    def __call__(self):
        return self.calculator


_BUILT: OrderedDict[str, object] = OrderedDict()
_KEPT = 4  # calculators in memory at a time; one that was dropped is built again
_ONE_AT_A_TIME = threading.RLock()  # calculators keep state: none is made for two threads


def _calculator_of(model: AseModel):
    """The calculator of this process."""
    if isinstance(model.make, _Given):
        return _checked(model.make.calculator, model.name)
    with _ONE_AT_A_TIME:
        if model.key not in _BUILT:
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    made = model.make()
            except CalculatorError:
                raise
            except Exception as error:
                raise CalculatorError(f"{model.name} cannot be built: {first_line(error)}") from error
            _BUILT[model.key] = _checked(made, model.name)
        _BUILT.move_to_end(model.key)
        while len(_BUILT) > _KEPT:
            _BUILT.popitem(last=False)
        return _BUILT[model.key]


def _checked(calculator, name: str):
    """Return the calculator; raise for what is none, or has no energy."""
    if not hasattr(calculator, "get_property") or not hasattr(calculator, "implemented_properties"):
        raise CalculatorError(f"{name} makes a {type(calculator).__name__}, which is no ASE calculator.")
    if "energy" not in calculator.implemented_properties:
        raise CalculatorError(f"{name} has no energy: nothing here can be done without.")
    return calculator


def _predict_some(model: AseModel, crystals: Crystals, asked: list[str]) -> list[dict | str]:
    """Properties of a few crystals in our units, or for each the reason why there are none."""
    with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr):
        calculator = model.calculator
        return [_predict_one(model, calculator, atoms, asked) for atoms in to_atoms(crystals)]


def _predict_one(model: AseModel, calculator, atoms, asked: list[str]) -> dict | str:
    with without_network(model.allow_download) as offline:
        try:
            raw = {name: _property(calculator, name, atoms) for name in asked}
        except Exception as error:  # whatever it is: the other frames keep their results
            _forget(calculator)
            wants = f"; it wants to reach {offline.wanted} (allow it with --allow-download)" if offline.wanted else ""
            return f"{first_line(error)}{wants}"
    try:
        found = _in_our_units(raw, len(atoms))
    except (TypeError, ValueError) as error:
        return f"not what ASE calculators return: {first_line(error)}"
    wrong = [name for name, value in found.items() if not np.isfinite(value).all()]
    return f"{' and '.join(wrong)} not finite" if wrong else found


def _forget(calculator) -> None:
    """Take a failed crystal out of a calculator: the next of the same elements would be given what was half made of it.

    ASE compares a crystal with the one before, and leaves out what depends on elements where these are the same.
    """
    reset = getattr(calculator, "reset", None)
    if callable(reset):
        with contextlib.suppress(Exception):  # the failure before is what the user is told
            reset()
    calculator.atoms, calculator.results = None, {}


def _property(calculator, name: str, atoms):
    """One property; None for moments that a calculator lists but does not have for these atoms."""
    from ase.calculators.calculator import PropertyNotImplementedError

    try:
        return calculator.get_property(name, atoms)
    except PropertyNotImplementedError:
        if name == "magmoms":
            return None
        raise


def _in_our_units(raw: dict, n_atoms: int) -> dict:
    """Energy in eV, forces in eV/Å, stress in GPa (3 x 3), absolute moments; raise ValueError for other shapes."""
    raw = {name: value for name, value in raw.items() if value is not None}
    found = {"energy": float(np.asarray(raw["energy"], dtype=np.float64).reshape(()))}
    if "forces" in raw:
        found["forces"] = np.array(raw["forces"], dtype=np.float64).reshape(n_atoms, 3)
    if "magmoms" in raw:
        found["magmoms"] = np.abs(np.array(raw["magmoms"], dtype=np.float64).reshape(n_atoms))
    if "stress" in raw:
        stress = np.asarray(raw["stress"], dtype=np.float64)
        full = stress[_VOIGT] if stress.shape == (6,) else stress.reshape(3, 3)
        found["stress"] = gpa_from_ev_per_a3(full)
    return found


_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # xx, yy, zz, yz, xz, xy


def to_atoms(crystals: Crystals) -> Iterator:
    """ASE Atoms, one crystal after another."""
    from ase import Atoms

    atoms = zip(crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords), strict=True)
    for lattice, (numbers, coords) in zip(crystals.lattices_a, atoms, strict=True):
        yield Atoms(numbers=numbers, scaled_positions=coords, cell=lattice, pbc=True)
