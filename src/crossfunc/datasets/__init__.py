"""Where frames come from: datasets as folders of typed, checked tables."""

from crossfunc.datasets.fetch import Fetched, fetch_dataset
from crossfunc.datasets.functionals import Functional, describe_functionals
from crossfunc.datasets.registry import public_datasets
from crossfunc.datasets.report import CheckReport, Finding, check_dataset
from crossfunc.datasets.schema import DatasetError, validate_table
from crossfunc.datasets.splits import (
    leave_composition_out,
    leave_prototype_out,
    nested_subsets,
    split_by_group,
    split_by_material,
)
from crossfunc.datasets.store import (
    Dataset,
    dataset_fingerprint,
    find_dataset,
    list_datasets,
    open_dataset,
    write_dataset,
)
from crossfunc.datasets.twins import find_twin_materials, find_twins

__all__ = [
    "CheckReport",
    "Dataset",
    "DatasetError",
    "Fetched",
    "Finding",
    "Functional",
    "check_dataset",
    "dataset_fingerprint",
    "describe_functionals",
    "fetch_dataset",
    "find_dataset",
    "find_twin_materials",
    "find_twins",
    "leave_composition_out",
    "leave_prototype_out",
    "list_datasets",
    "nested_subsets",
    "open_dataset",
    "public_datasets",
    "split_by_group",
    "split_by_material",
    "validate_table",
    "write_dataset",
]
