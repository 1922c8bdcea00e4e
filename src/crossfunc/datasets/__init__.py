"""Where frames come from: datasets as folders of typed, checked tables."""

from crossfunc.datasets.report import CheckReport, check_dataset
from crossfunc.datasets.schema import DatasetError, validate_table
from crossfunc.datasets.splits import nested_subsets, split_by_material
from crossfunc.datasets.store import (
    Dataset,
    dataset_fingerprint,
    find_dataset,
    list_datasets,
    open_dataset,
    write_dataset,
)

__all__ = [
    "CheckReport",
    "Dataset",
    "DatasetError",
    "check_dataset",
    "dataset_fingerprint",
    "find_dataset",
    "list_datasets",
    "nested_subsets",
    "open_dataset",
    "split_by_material",
    "validate_table",
    "write_dataset",
]
