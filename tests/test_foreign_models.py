"""Models from elsewhere in a benchmark: told apart by what they hold, and what goes wrong in them stays with them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.panorama import Turning, make_store
from worldmodel.benchmark.benchmark import run_benchmark
from worldmodel.benchmark.predictors import Prediction
from worldmodel.benchmark.protocols import PROTOCOLS, Protocol
from worldmodel.errors import UserError


@pytest.mark.parametrize("held", ["noise", "weight", "array", "module", "_module", "modules"])
def test_a_foreign_model_that_holds_something_else_is_another(held: str, tmp_path: Path) -> None:
    store = make_store(f"memory://benchmark-foreign-{held}", episodes=2, steps=40, seed=1)

    def benchmark(value: int) -> None:
        model: Any = Turning("turning")
        model.weight, model.array = torch.zeros(2), np.zeros(2)
        model.module, model._module = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
        model.modules = [torch.nn.BatchNorm1d(1), {"scale": torch.ones(1)}]
        # These tell nothing, and do no harm.
        model.other, model.sparse, model.calls = object(), torch.eye(2).to_sparse(), itertools.count()
        model.backwards, model._cache = np.arange(3)[::-1], np.random.default_rng().random()
        if held == "noise":
            model.noise = value
        elif held == "modules":
            model.modules[1]["scale"][0] = value + 1
        elif "module" in held:
            torch.nn.init.constant_(getattr(model, held).bias, value)
        else:
            getattr(model, held)[1] = value
        run_benchmark([model], store, Protocol("test", given=2, imagined=3), tmp_path / "out", samples=1, contexts=2)

    benchmark(0)
    benchmark(0)
    with pytest.raises(UserError, match="holds a benchmark of other models"):
        benchmark(1)


def test_a_foreign_model_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    class Failing(Turning):
        def predict(self, frames: Any, actions: Any, *args: Any) -> Any:
            if actions is None:
                raise UserError("I cannot do without actions.")
            return super().predict(frames, actions, *args)

    class Broken(Turning):
        def predict(self, *args: Any) -> Any:
            return Prediction(super().predict(*args).frames, rewards=torch.zeros(3))

    class Bare(Turning):
        def predict(self, *args: Any) -> Any:
            return super().predict(*args).frames

    class Arrays(Turning):
        def predict(self, *args: Any) -> Any:
            return Prediction(super().predict(*args).frames.numpy())

    class Vague(Turning):
        def predict(self, *args: Any) -> Any:
            prediction = super().predict(*args)
            return Prediction(prediction.frames, rewards=torch.full(prediction.frames.shape[:2], torch.nan))

    class Certain(Turning):
        def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
            return torch.full((len(frames), frames.shape[1] - 1), torch.inf)

    class Hopeful(Turning):
        def predict(self, *args: Any) -> Any:
            frames = super().predict(*args).frames
            return Prediction(frames, terminated=torch.full(frames.shape[:2], 0.01))

    class Brief(Turning):
        def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
            return torch.ones(len(frames), frames.shape[1] - 3)

    store = make_store("memory://benchmark-failing", episodes=2, steps=40)
    models = [Failing("failing"), Broken("broken"), Vague("vague"), Certain("certain"), Bare("bare"), Arrays("arrays")]
    models += [Hopeful("hopeful"), Brief("brief")]
    report = run_benchmark(models, store, PROTOCOLS["paper"], tmp_path, contexts=2).report
    assert report["skipped"]["bare"] == "bare must return a Prediction of its frames, not a Tensor."
    assert report["skipped"]["arrays"] == "arrays must predict frames as a tensor, not as a ndarray."
    assert report["skipped"]["hopeful"] == "hopeful must predict terminated as bools, not as float32 [8, 10]."
    assert report["skipped"]["brief"] == "brief must give bits per code [1, 15], not float32 [1, 13]."
    assert report["skipped"]["vague"] == "vague must predict finite rewards."
    assert report["skipped"]["certain"] == "certain must give finite bits per code."
    assert report["skipped"]["failing, no actions"] == "I cannot do without actions."
    assert "must predict rewards [8, 10], not [3]" in report["skipped"]["broken"]
    assert {"failing", "repeat last", "truth"} <= report["predictors"].keys()


def test_models_that_all_fail_are_one_sentence(tmp_path: Path) -> None:
    class Failing(Turning):
        def predict(self, *args: Any) -> Any:
            raise RuntimeError("no memory")

    store = make_store("memory://benchmark-all-failing", episodes=2, steps=40)
    with pytest.raises(UserError, match="one: RuntimeError: no memory"):
        run_benchmark([Failing("one"), Failing("other")], store, PROTOCOLS["paper"], tmp_path, contexts=2)
