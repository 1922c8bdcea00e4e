# What an editor and a type checker see of `xf.*`; written by `python tests/test_typed.py`.

from crossfunc.advice import advise as advise
from crossfunc.advice import verdict as verdict
from crossfunc.datasets import DatasetError as DatasetError
from crossfunc.datasets import fetch_dataset as fetch_dataset
from crossfunc.datasets import leave_composition_out as leave_composition_out
from crossfunc.datasets import leave_prototype_out as leave_prototype_out
from crossfunc.datasets import nested_subsets as nested_subsets
from crossfunc.datasets import open_dataset as open_dataset
from crossfunc.datasets import split_by_material as split_by_material
from crossfunc.datasets import write_dataset as write_dataset
from crossfunc.energies import AtomRefError as AtomRefError
from crossfunc.energies import AtomRefFit as AtomRefFit
from crossfunc.energies import composition_matrix as composition_matrix
from crossfunc.energies import fit_atomref as fit_atomref
from crossfunc.energies import fit_model_aware_atomref as fit_model_aware_atomref
from crossfunc.energies import published_atomref as published_atomref
from crossfunc.energies import published_shift as published_shift
from crossfunc.energies import refit_advice as refit_advice
from crossfunc.potential import AseModel as AseModel
from crossfunc.potential import CalculatorError as CalculatorError
from crossfunc.potential import CheckpointError as CheckpointError
from crossfunc.potential import crystal_features as crystal_features
from crossfunc.potential import element_references as element_references
from crossfunc.potential import load_calculator as load_calculator
from crossfunc.potential import load_model as load_model
from crossfunc.potential import predict as predict
from crossfunc.potential import save_model as save_model
from crossfunc.potential import set_element_references as set_element_references
from crossfunc.potential.calculator import CHGNetCalculator as CHGNetCalculator
from crossfunc.potential.references import with_references as with_references
from crossfunc.stability import EntryTable as EntryTable
from crossfunc.stability import decomposition_energy as decomposition_energy
from crossfunc.stability import formation_energy_per_atom_ev as formation_energy_per_atom_ev
from crossfunc.stability import hull_report as hull_report
from crossfunc.stability import read_entries as read_entries
from crossfunc.stability import relax as relax
from crossfunc.training import METHODS as METHODS
from crossfunc.training import LabelledFrames as LabelledFrames
from crossfunc.training import data_efficiency as data_efficiency
from crossfunc.training import evaluate as evaluate
from crossfunc.training import finetune as finetune
from crossfunc.training import fit_power_law as fit_power_law
from crossfunc.training import forgetting as forgetting
from crossfunc.training import start_model as start_model

__version__: str
