"""Settings of a training run: defaults of the paper, clear refusals, and a schedule that ends where it should."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossfunc.training.module import GivenRates
from crossfunc.training.settings import Settings, SettingsError, chgnet_learning_rates, learning_rate_at


def test_defaults_are_the_papers_fine_tuning():
    settings = Settings()
    assert (settings.n_epochs, settings.learning_rate, settings.optimizer) == (50, 1e-3, "adam")
    assert (settings.loss, settings.huber_delta) == ("huber", 0.1)
    assert settings.weights == {"energy": 3.0, "forces": 1.0, "stress": 0.1, "magmoms": 1.0}


def test_settings_survive_the_way_through_plain_values():
    settings = Settings(n_epochs=3, gradient_clip=1.5, precision="64", devices="auto")
    assert Settings.from_dict(settings.to_dict()) == settings


def test_a_precision_given_as_a_number_is_taken():
    assert Settings(precision=64).precision == "64"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_epochs": -1}, r"n_epochs: expected a whole number >= 0, got -1"),
        ({"n_epochs": 2.5}, r"n_epochs: expected a whole number >= 0, got 2\.5"),
        ({"n_epochs": None}, "n_epochs: expected a whole number"),
        ({"batch_size": 0}, "batch_size: expected a whole number >= 1"),
        ({"batch_size": True}, "batch_size: expected a whole number"),
        ({"learning_rate": math.nan}, "learning_rate: expected a number"),
        ({"learning_rate": math.inf}, "learning_rate: expected a number"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number"),
        ({"final_learning_rate_fraction": 1.5}, "from 0 to 1, got 1.5"),
        ({"gradient_clip": 0}, "gradient_clip: expected a number"),
        ({"ema_decay": 1.2}, "ema_decay"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is none of adam, adamw"),
        ({"loss": "l2"}, "loss: 'l2' is none of huber, mse, mae"),
        ({"precision": "16"}, "precision: '16' is none of 32, 64, tf32"),
        ({"logger": "wandb"}, "logger: 'wandb' is none of csv, tensorboard"),
        ({"accelerator": "mps"}, "accelerator: 'mps' is none of auto, cpu, gpu"),
        ({"devices": 0}, "devices: expected a whole number >= 1"),
        ({"devices": "all"}, "devices: expected a whole number"),
        ({"compile": "yes"}, "compile: expected true or false, got 'yes'"),
        (
            {"energy_weight": 0, "force_weight": 0, "stress_weight": 0, "magmom_weight": 0},
            "all four loss weights are 0",
        ),
        ({"learning_rat": 1}, r"no setting 'learning_rat'; did you mean learning_rate\?"),
        ({"epochs": 1, "zzz": 2}, r"no setting 'epochs'; did you mean n_epochs\?"),
        ({"zzz": 2}, "no setting 'zzz'; there are: n_epochs"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values, message):
    with pytest.raises(SettingsError, match=message):
        Settings.from_dict(values)


# --- schedule ---


@pytest.mark.parametrize("n_steps", [2, 3, 7, 10, 1000])
def test_the_last_step_has_the_lowest_rate_however_few_there_are(n_steps):
    settings = Settings(learning_rate=2e-3, final_learning_rate_fraction=0.05)
    rates = [learning_rate_at(k, n_steps, settings) for k in range(n_steps)]
    assert rates[0] == pytest.approx(2e-3)
    assert rates[-1] == pytest.approx(1e-4)
    assert rates == sorted(rates, reverse=True)


def test_halfway_the_cosine_is_halfway():
    settings = Settings(learning_rate=1.0, final_learning_rate_fraction=0.0)
    assert learning_rate_at(50, 101, settings) == pytest.approx(0.5)
    assert learning_rate_at(25, 101, settings) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_a_fraction_of_one_keeps_the_rate_constant():
    settings = Settings(learning_rate=1e-3, final_learning_rate_fraction=1)
    assert {learning_rate_at(k, 9, settings) for k in range(9)} == {1e-3}


def test_warm_up_rises_in_a_line_and_the_cosine_follows():
    settings = Settings(learning_rate=1.0, final_learning_rate_fraction=0.0, warmup_steps=4)
    rates = [learning_rate_at(k, 10, settings) for k in range(10)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[-1] == pytest.approx(0)


@pytest.mark.parametrize("warmup_steps", [0, 1, 5])
def test_a_single_step_is_taken_at_the_full_rate(warmup_steps):
    assert learning_rate_at(0, 1, Settings(warmup_steps=warmup_steps)) == 1e-3


@pytest.mark.parametrize("n_batches", [1, 2, 3, 8, 10, 23])
def test_chgnets_rates_are_those_of_its_calls_of_pytorchs_scheduler(n_batches):
    """Its Trainer steps the scheduler after these batches of an epoch, counted from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10 * 4, eta_min=0.01)
    found = []
    for _ in range(4):
        for batch in range(n_batches):
            found.append(scheduler.get_last_lr()[0])
            optimizer.step()
            if batch + 1 in np.arange(1, 11) * n_batches // 10:
                scheduler.step()
    np.testing.assert_allclose(chgnet_learning_rates(n_batches, 4), found)


def test_given_rates_are_set_before_each_step_and_the_last_one_stays():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    given = GivenRates([0.5, 0.25])
    for step, rate in ((0, 0.5), (1, 0.25), (7, 0.25)):
        module = SimpleNamespace(n_steps_done=step)
        given.on_before_optimizer_step(None, module, optimizer)
        assert (optimizer.param_groups[0]["lr"], module.rate) == (rate, rate)
    optimizer.param_groups[0]["factor"] = 0.5
    given.on_before_optimizer_step(None, module, optimizer)
    assert (optimizer.param_groups[0]["lr"], module.rate) == (0.125, 0.25)
