"""The training loop: interrupted and resumed it ends where it would have, and trouble is told early."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.files import read_tensors_and_metadata
from worldmodel.step import Batch
from worldmodel.training import FitConfig, fit, interrupts_deferred


class Items:
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def batch(self, first: int, size: int) -> Batch:
        return {"x": self.rows[first : first + size]}


class Regression:
    """Noisy on purpose: its loss draws random numbers, which resuming has to repeat."""

    name = "regression"

    def __init__(
        self,
        steps: int,
        breaks_at: float = float("inf"),
        interrupt_at: float = float("inf"),
        interrupt_pictures: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.dataset = Items(torch.randn(steps * 2, 3, generator=torch.Generator().manual_seed(1)))
        self.breaks_at, self.interrupt_at, self.calls = breaks_at, interrupt_at, 0
        self.interrupt_pictures = interrupt_pictures

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        noise = torch.randn(len(batch["x"]), 1)
        loss = (self.model(batch["x"]).float() - noise).square().mean()
        return loss / 0 if self.calls > self.breaks_at else loss, {"noise": noise.mean()}

    def pictures(self) -> dict[str, Tensor]:
        if self.interrupt_pictures:
            os.kill(os.getpid(), signal.SIGINT)
        return {"black": torch.zeros(4, 4, 3, dtype=torch.uint8)}

    def trouble(self) -> str | None:
        return None


def weights(objective: Regression) -> Tensor:
    return torch.cat([p.detach().flatten() for p in objective.model.parameters()])


def test_a_resumed_training_ends_bit_for_bit_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    config = FitConfig(steps=12, batch_size=2, learning_rate=1e-2)
    whole = Regression(12)
    fit(whole, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(12, interrupt_at=5), config, tmp_path / "parts")
    resumed = Regression(12)
    fit(resumed, config, tmp_path / "parts")
    assert resumed.calls == 12 - 5
    assert torch.equal(weights(resumed), weights(whole))


def test_a_second_interrupt_is_not_deferred() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_deferred() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it was")


def test_an_interrupt_while_pictures_are_drawn_loses_nothing(tmp_path: Path) -> None:
    config = FitConfig(steps=12, batch_size=2, learning_rate=1e-2, pictures_every=5)
    with pytest.raises(KeyboardInterrupt):
        fit(Regression(12, interrupt_pictures=True), config, tmp_path)
    assert read_tensors_and_metadata(tmp_path / "checkpoint.safetensors")[1]["step"] == "5"


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    config = FitConfig(steps=3, batch_size=2, learning_rate=1e-2)
    fit(Regression(3), config, tmp_path)
    again = Regression(3)
    fit(again, config, tmp_path)
    assert again.calls == 0


def test_a_training_that_has_had_more_steps_is_refused(tmp_path: Path) -> None:
    fit(Regression(3), FitConfig(steps=3, batch_size=2, learning_rate=1e-2), tmp_path)
    with pytest.raises(UserError, match="has had 3 steps: give it as many"):
        fit(Regression(2), FitConfig(steps=2, batch_size=2, learning_rate=1e-2), tmp_path)


def test_a_loss_that_is_not_finite_stops_in_one_sentence_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at step 4: train with a learning rate below") as caught:
        fit(Regression(9, breaks_at=4), FitConfig(9, 2, 1e-2, checkpoint_every=0), tmp_path)
    assert "\n" not in str(caught.value)
    tensors, metadata = read_tensors_and_metadata(tmp_path / "checkpoint.safetensors")
    assert metadata["step"] == "4" and all(t.isfinite().all() for t in tensors.values())


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    config = FitConfig(steps=3, batch_size=2, learning_rate=1e-2)
    fit(Regression(3), config, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        fit(Regression(3), config, tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config = FitConfig(steps=3, batch_size=2, learning_rate=1e-2)
    fit(Regression(3), config, tmp_path)
    other = Regression(3)
    other.model = nn.Sequential(nn.Linear(3, 1))
    with pytest.raises(UserError, match="another model"):
        fit(other, config, tmp_path)
