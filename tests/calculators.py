"""Stand-ins for other potentials: cheap ASE calculators that are right, or wrong in one way."""

import os
import sys
import threading
import time

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

ELEMENT_EV = {11: -1.3, 17: -1.9, 12: -1.6, 8: -4.9, 3: -1.9, 26: -8.3, 29: -3.7, 13: -3.4}


class Toy(LennardJones):
    """Lennard-Jones, plus an energy for each atom of an element: right in every way."""

    def __init__(self, shift=0.0, scale=1.0, **kwargs):
        super().__init__(sigma=2.2, epsilon=0.05, rc=6.0, smooth=True, **kwargs)
        self.shift, self.factor = shift, scale

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        elements = sum(ELEMENT_EV.get(int(z), -0.05 * float(z)) + self.shift for z in atoms.numbers)
        for name in ("energy", "free_energy"):
            self.results[name] = self.factor * (self.results[name] + elements)
        self.results["energies"] = self.factor * (
            self.results["energies"] + np.array([ELEMENT_EV.get(int(z), -0.05 * float(z)) for z in atoms.numbers])
        )
        for name in ("forces", "stress"):
            self.results[name] = self.factor * self.results[name]


class NoStress(Toy):
    implemented_properties = ("energy", "forces")


class NoForces(Toy):
    implemented_properties = ("energy",)


class NoEnergy(Calculator):
    implemented_properties = ("forces",)


class KnowsNoIron(Toy):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if 26 in atoms.numbers:
            raise KeyError("Fe")
        super().calculate(atoms, properties, system_changes)


class KnowsNo(Toy):
    def __init__(self, symbol, **kwargs):
        super().__init__(**kwargs)
        self.unknown = symbol

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if self.unknown in atoms.get_chemical_symbols():
            raise KeyError(self.unknown)
        super().calculate(atoms, properties, system_changes)


class Remembers(Toy):
    """As ASE's EMT: what depends on elements is made when these change, and is half made where one is unknown."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if "numbers" in system_changes:
            self.known = 0.0
            self.atoms = atoms.copy()
            if 26 in atoms.numbers:
                raise KeyError("Fe")
            self.known = 1.0
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] *= self.known


class KnowsNoSodium(Toy):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if 11 in atoms.numbers:
            raise KeyError("Na")
        super().calculate(atoms, properties, system_changes)


class NotFinite(Toy):
    """NaN forces for whatever holds oxygen."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if 8 in atoms.numbers:
            self.results["forces"] = self.results["forces"] * np.nan


class StressInGpa(Toy):
    """Stress in GPa where ASE has eV/Å³, the usual mistake."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["stress"] = self.results["stress"] * 160.21766208


class WrongShape(Toy):
    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["forces"] = self.results["forces"][:-1]


class WrongShapeEnergy(Toy):
    """An energy for each atom where that of the cell belongs."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["energy"] = np.full(len(atoms) + 1, self.results["energy"])


class Dies(Toy):
    """Ends its process without a word on whatever holds copper."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if 29 in atoms.numbers:
            os._exit(11)
        super().calculate(atoms, properties, system_changes)


class OneThread(Toy):
    """Gives wrong energies when two threads are in it, as calculators with state do."""

    inside = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        OneThread.inside += 1
        time.sleep(0.002)
        super().calculate(atoms, properties, system_changes)
        if OneThread.inside != 1:
            self.results["energy"] = 1e6
        OneThread.inside -= 1


class Downloads(Toy):
    """Fetches its weights when it is made, or later."""

    def __init__(self, when="now", **kwargs):
        super().__init__(**kwargs)
        self.when = when
        if when == "now":
            self.fetch()

    def fetch(self):
        import urllib.request

        try:
            urllib.request.urlopen("http://weights.example.invalid/model.pt", timeout=5)
        except OSError as error:
            raise RuntimeError("could not load the model") from error

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        if self.when == "later":
            self.fetch()
        super().calculate(atoms, properties, system_changes)


class Talks(Toy):
    """Prints when it is made and at each calculation."""

    def __init__(self, **kwargs):
        sys.stdout.write("a banner\n")
        super().__init__(**kwargs)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        sys.stdout.write("working\n")
        super().calculate(atoms, properties, system_changes)


class Unpicklable(Toy):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lock = threading.Lock()


def make_toy():
    return Toy()


not_callable = 3
