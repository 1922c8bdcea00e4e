"""Weights that are drawn at random: functions of a seed alone, whatever else draws in the process."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Let the CPU's generator start from a seed, and give it its state back afterwards; GPUs' generators go on.

    Parameters
    ----------
    seed : int
    """
    import torch

    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs' generators too
        yield
    finally:
        torch.default_generator.set_state(before)
