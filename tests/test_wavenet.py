"""What a WaveNet sees, and that drawing sample by sample is the full forward pass."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel.audio import PRESETS
from worldmodel.errors import UserError
from worldmodel.wavenet import WaveNet, WaveNetConfig

SMALL = {"classes": 7, "width": 6, "skip": 16, "stacks": 2, "layers": 3}
CONDITIONS: list[dict[str, int]] = [{}, {"local": 3, "hop": 4}, {"vector": 2}, {"local": 3, "hop": 1, "vector": 2}]


def model_of(**config: int) -> WaveNet:
    """A WaveNet in double precision, with weights large enough for all to matter."""
    torch.manual_seed(0)
    model = WaveNet(WaveNetConfig(**{**SMALL, **config})).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def conditions_for(model: WaveNet, batch: int, length: int) -> dict[str, Tensor]:
    config, given = model.config, {}
    if config.local:
        given["local"] = torch.randn(batch, config.local, -(-length // config.hop)).double()
    if config.vector:
        given["vector"] = torch.randn(batch, config.vector).double()
    return given


@pytest.mark.parametrize(("stacks", "layers"), [(1, 1), (2, 3), (1, 4)])
@torch.no_grad()
def test_a_sample_depends_on_the_receptive_field_before_it_and_on_nothing_else(stacks: int, layers: int) -> None:
    model = model_of(stacks=stacks, layers=layers)
    field, length = 1 + stacks * (2**layers - 1), 24
    samples = torch.randint(7, (1, length))
    before = model(samples)
    for t in range(length):
        other = samples.clone()
        other[0, t] = (other[0, t] + 1) % 7
        changed = (model(other) != before).any(2)[0].nonzero()[:, 0].tolist()
        assert changed == list(range(t + 1, min(t + 1 + field, length)))


@torch.no_grad()
def test_no_sample_depends_on_a_hidden_one() -> None:
    model = model_of()
    samples, hidden = torch.randint(7, (1, 24)), torch.zeros(1, 24, dtype=torch.bool)
    hidden[0, 5:9] = True
    before = model(samples, hidden=hidden)
    other = torch.where(hidden, (samples + 1) % 7, samples)
    assert torch.equal(model(other, hidden=hidden), before)
    assert torch.equal(model(samples)[:, :6], before[:, :6])
    assert not torch.equal(model(samples)[:, 6:], before[:, 6:])


@torch.no_grad()
def test_a_column_of_the_local_condition_is_heard_from_its_hop_on_and_a_vector_throughout() -> None:
    model = model_of(local=3, hop=4, vector=2)
    samples, given = torch.randint(7, (1, 18)), conditions_for(model, 1, 18)
    before = model(samples, **given)
    local = given["local"].clone()
    local[0, :, 2] += 1
    changed = (model(samples, local=local, vector=given["vector"]) != before).any(2)[0]
    assert not changed[:8].any()
    assert changed[8:].all()
    assert (model(samples, local=given["local"], vector=given["vector"] + 1) != before).any(2).all()


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_drawing_with_memory_gives_what_the_full_forward_pass_gives(
    conditions: dict[str, int], temperature: float
) -> None:
    model = model_of(**conditions)
    uniforms, given = torch.rand(3, 37).double(), conditions_for(model, 3, 37)
    samples, log_prob = model.sample(uniforms, temperature=temperature, **given)
    logp = (model(samples, **given) / temperature).log_softmax(2)
    assert torch.allclose(log_prob, logp.gather(2, samples[..., None]).sum((1, 2)), atol=1e-10, rtol=0)
    # The uniform number lies in the stretch of the distribution that is the sample's, as the full pass has it.
    end = logp.exp().cumsum(2).gather(2, samples[..., None])[..., 0]
    begin = end - logp.exp().gather(2, samples[..., None])[..., 0]
    assert ((begin - 1e-10 <= uniforms) & (uniforms <= end + 1e-10)).all()
    if temperature == 1:
        assert torch.allclose(log_prob, model.log_prob(samples, **given), atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_row_of_a_batch_is_what_it_would_be_alone() -> None:
    model = model_of(local=3, hop=4, vector=2)
    uniforms, given = torch.rand(3, 21).double(), conditions_for(model, 3, 21)
    samples, _ = model.sample(uniforms, **given)
    alone, _ = model.sample(uniforms[1:2], **{name: value[1:2] for name, value in given.items()})
    assert torch.equal(alone, samples[1:2])
    assert torch.equal(model.sample(uniforms, **given)[0], samples)


@torch.no_grad()
def test_a_second_is_drawn_a_hundred_times_faster_than_without_memory() -> None:
    second = 16_000
    model = WaveNet(PRESETS["64x"].decoder).eval()
    given = {"local": torch.randn(1, model.config.local, 250), "vector": torch.randn(1, model.config.vector)}
    samples = torch.randint(256, (1, second // 2))  # what is there on average
    half = {**given, "local": given["local"][:, :, :125]}
    model(samples, **half)
    begin = time.perf_counter()
    model(samples, **half)
    naive = (time.perf_counter() - begin) * second
    part = {**given, "local": given["local"][:, :, :16]}
    begin = time.perf_counter()
    model.sample(torch.rand(1, 1_000), **part)
    assert naive > 100 * (time.perf_counter() - begin) * second / 1_000


@pytest.mark.parametrize(
    ("config", "given", "sentence"),
    [
        ({"vector": 2}, {}, "needs a vector"),
        ({}, {"vector": torch.zeros(1, 2)}, "takes no vector"),
        ({"local": 3, "hop": 4}, {"local": torch.zeros(1, 3, 2)}, r"shape \[1, 3, 3\], not \[1, 3, 2\]"),
    ],
)
def test_conditions_that_do_not_fit_are_named(config: dict[str, int], given: dict[str, Any], sentence: str) -> None:
    model = WaveNet(WaveNetConfig(**SMALL, **config))
    with pytest.raises(UserError, match=sentence):
        model(torch.zeros(1, 9, dtype=torch.int64), **given)
    with pytest.raises(UserError, match=sentence):
        model.sample(torch.rand(1, 9), **given)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="at least"):
        WaveNetConfig(classes=2, layers=0)
    with pytest.raises(UserError, match="positive size"):
        WaveNetConfig(classes=2, vector=-1)
    model = WaveNet(WaveNetConfig(**SMALL))
    with pytest.raises(UserError, match="temperature is from 1e-6"):
        model.sample(torch.rand(1, 3), temperature=0)
    with pytest.raises(UserError, match="have shape"):
        model.sample(torch.rand(3))
