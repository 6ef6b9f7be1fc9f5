"""PixelCNN: it sees all that was drawn earlier and nothing else, and draws by cache what the full forward states."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig
from worldmodel.sampling import invert_cdf

ORDERS = ["raster", "diagonal"]
CONDITIONS: dict[str, dict[str, int]] = {
    "unconditional": {},
    "label": {"classes": 3},
    "vector": {"vector": 4},
    "spatial": {"spatial": 2},
    "all": {"classes": 3, "vector": 4, "spatial": 2},
}
K = 5

seeds = st.integers(0, 10**6)


def pixelcnn(
    order: str,
    shape: tuple[int, int],
    maps: int = 1,
    num_codes: int = K,
    layers: int = 2,
    width: int = 8,
    **conditions: int,
) -> PixelCNN:
    """A float64 model with weights of its own, large enough that whatever it sees shows."""
    torch.manual_seed(0)
    config = PixelCNNConfig(shape, num_codes, maps, width, layers, order, **conditions)  # type: ignore[arg-type]
    model = PixelCNN(config).double().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def conditions_for(model: PixelCNN, batch: int) -> dict[str, Any]:
    config, given = model.config, dict[str, Any]()
    if config.classes:
        given["label"] = torch.randint(config.classes, (batch,))
    if config.vector:
        given["vector"] = torch.randn(batch, config.vector, dtype=torch.float64)
    if config.spatial:
        given["spatial"] = torch.randn(batch, config.spatial, *config.code_shape, dtype=torch.float64)
    return given


def uniforms_for(model: PixelCNN, batch: int, seed: int = 0) -> Tensor:
    shape = batch, model.config.maps, *model.config.code_shape
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def every_grid(model: PixelCNN) -> Tensor:
    """All there are, int64 [K^(M*h*w), M, h, w], in the order of the numbers that they spell."""
    shape = model.config.maps, *model.config.code_shape
    return torch.cartesian_prod(*[torch.arange(model.config.num_codes)] * int(np.prod(shape))).view(-1, *shape)


def naive_sample(model: PixelCNN, uniforms: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and their log-probability by one full forward pass for each map of each place."""
    codes, log_prob = torch.zeros(uniforms.shape, dtype=torch.int64), torch.zeros(len(uniforms), dtype=torch.float64)
    places = list(np.ndindex(*model.config.code_shape))
    if model.config.order == "diagonal":
        places.sort(key=sum)
    for i, j in places:
        for m in range(model.config.maps):
            logits = model(codes, **given)[:, m, :, i, j]
            code, probability = invert_cdf(logits, uniforms[:, m, i, j, None])
            codes[:, m, i, j] = code[:, 0]
            log_prob += probability[:, 0].log()
    return codes, log_prob


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=30)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), maps=st.integers(1, 3), layers=st.integers(1, 3), seed=seeds)
def test_a_code_is_seen_by_every_later_one_within_reach_and_by_no_other(
    order: str, conditions: str, rows: int, columns: int, maps: int, layers: int, seed: int
) -> None:
    """No look ahead and no blind spot: in a square around it, 2 places from the first layer and 1 from each other."""
    model = pixelcnn(order, (rows, columns), maps, layers=layers, width=32, **CONDITIONS[conditions])
    torch.manual_seed(seed)
    tries = 2  # grids, and many channels, for rectifiers may hide a code
    grids = torch.randint(K, (tries, maps, rows, columns))
    m, i, j = (x.flatten() for x in torch.meshgrid(*map(torch.arange, (maps, rows, columns)), indexing="ij"))
    every = torch.arange(len(m))
    others = grids[:, None].repeat(1, len(m), 1, 1, 1)  # [tries, changed, M, h, w]
    others[:, every, m, i, j] = (others[:, every, m, i, j] + 1) % K
    given = conditions_for(model, tries)
    logits = model(grids, **given)
    again = model(others.flatten(0, 1), **{name: x.repeat_interleave(len(m), 0) for name, x in given.items()})
    saw = ((again.unflatten(0, (tries, -1)) - logits[:, None]).abs() > 1e-12).any(3).any(0).flatten(1)

    reach = torch.maximum((i[:, None] - i).abs(), (j[:, None] - j).abs())  # from the changed code to the one that sees
    turn = i + j if order == "diagonal" else i * columns + j
    earlier = (turn[:, None] < turn) | ((reach == 0) & (m[:, None] < m))
    assert torch.equal(saw, earlier & (reach <= 2 + layers))


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    maps=st.integers(1, 3),
    conditions=st.sampled_from(list(CONDITIONS)),
    seed=seeds,
)
def test_drawing_by_cache_gives_the_codes_of_naive_drawing(
    order: str, shape: tuple[int, int], maps: int, conditions: str, seed: int
) -> None:
    model = pixelcnn(order, shape, maps, **CONDITIONS[conditions])
    torch.manual_seed(seed)
    given, uniforms = conditions_for(model, 3), uniforms_for(model, 3, seed)
    codes, log_prob = model.sample(uniforms, **given)
    expected, expected_log_prob = naive_sample(model, uniforms, **given)
    assert codes.dtype == torch.int64 and torch.equal(codes, expected)
    torch.testing.assert_close(log_prob, expected_log_prob, rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_a_draw_has_the_log_probability_that_the_full_forward_gives_its_codes(
    order: str, maps: int, conditions: str, temperature: float
) -> None:
    model = pixelcnn(order, (7, 9), maps, **CONDITIONS[conditions])
    given = conditions_for(model, 4)
    codes, log_prob = model.sample(uniforms_for(model, 4), temperature=temperature, **given)
    logits = model(codes, **given)
    assert logits.shape == (4, maps, K, 7, 9)
    stated = (logits / temperature).log_softmax(2).gather(2, codes[:, :, None]).sum((1, 2, 3, 4))
    torch.testing.assert_close(log_prob, stated, rtol=0, atol=1e-9)
    if temperature == 1:
        torch.testing.assert_close(model.log_prob(codes, **given), stated, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_a_low_temperature_draws_the_likeliest_codes(order: str) -> None:
    model = pixelcnn(order, (4, 5), 2)
    codes, _ = model.sample(uniforms_for(model, 3), temperature=1e-4)
    assert torch.equal(model(codes).argmax(2), codes)


@pytest.mark.parametrize("order", ORDERS)
def test_every_feature_is_computed_once(order: str) -> None:
    """A layer runs on each place once: on a row, a diagonal or a place at a time."""
    model, (rows, columns), batch = pixelcnn(order, (5, 7)), (5, 7), 2
    calls: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if name.endswith(".out"):
            places = calls.setdefault(name, [])
            module.register_forward_hook(lambda _m, _x, y, places=places: places.append(y[..., 0].numel() // batch))
    model.sample(uniforms_for(model, batch))
    assert calls and all(sum(places) == rows * columns for places in calls.values())
    passes = {len(places) for places in calls.values()}
    assert passes == ({rows, rows * columns} if order == "raster" else {rows + columns - 1})


@pytest.mark.parametrize("order", ORDERS)
def test_each_row_of_a_batch_is_what_it_would_be_alone(order: str) -> None:
    model = pixelcnn(order, (5, 4), 2, **CONDITIONS["all"])
    given, uniforms = conditions_for(model, 6), uniforms_for(model, 6)
    codes, log_prob = model.sample(uniforms, **given)
    for n in range(6):
        alone, its_log_prob = model.sample(uniforms[n : n + 1], **{k: v[n : n + 1] for k, v in given.items()})
        assert torch.equal(alone[0], codes[n])
        torch.testing.assert_close(its_log_prob[0], log_prob[n], rtol=0, atol=1e-9)
    assert len(codes.flatten(1).unique(dim=0)) == 6


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("shape", "maps", "num_codes"), [((2, 2), 1, 4), ((1, 3), 2, 2), ((3, 1), 2, 2)])
@pytest.mark.parametrize("conditions", ["unconditional", "all"])
def test_the_probabilities_of_all_grids_sum_to_one(
    order: str, shape: tuple[int, int], maps: int, num_codes: int, conditions: str
) -> None:
    model = pixelcnn(order, shape, maps, num_codes, **CONDITIONS[conditions])
    every, given = every_grid(model), conditions_for(model, 1)
    log_prob = model.log_prob(every, **{name: x.expand(len(every), *x.shape[1:]) for name, x in given.items()})
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("shape", "maps"), [((2, 2), 1), ((1, 2), 2)])
def test_drawn_frequencies_match_the_stated_probabilities(order: str, shape: tuple[int, int], maps: int) -> None:
    """All 3^4 grids, 20,000 draws: chi-squared at the 0.1% level."""
    model, n = pixelcnn(order, shape, maps, num_codes=3), 20_000
    stated = model.log_prob(every_grid(model)).exp()
    drawn, log_prob = model.sample(uniforms_for(model, n))
    index = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    torch.testing.assert_close(log_prob.exp(), stated[index], rtol=1e-9, atol=0)
    counts, expected = torch.bincount(index, minlength=81).double(), stated * n
    rare = expected < 5
    counts, expected = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, expected))
    keep = expected > 0
    assert chisquare(counts[keep], expected[keep]).pvalue > 0.001


@pytest.mark.parametrize("order", ORDERS)
def test_every_condition_reaches_the_first_code_and_its_gradient_the_condition(order: str) -> None:
    model = pixelcnn(order, (3, 4), **CONDITIONS["all"])
    codes, given = torch.randint(K, (1, 1, 3, 4)), conditions_for(model, 1)
    given["label"] = torch.tensor([1])
    leaves = [given["vector"].requires_grad_(), given["spatial"].requires_grad_()]
    leaves.append(model.label.weight.requires_grad_())  # type: ignore[union-attr]
    first = model(codes, **given)[0, 0, 0, 0, 0]
    vector, spatial, labels = torch.autograd.grad(first, leaves)
    assert (vector != 0).all()
    assert (spatial[..., 0, 0] != 0).all()
    assert (labels[1] != 0).all() and labels[[0, 2]].abs().max() == 0
    last = model(codes, **given)[0, 0, 0, 2, 3]
    (spatial,) = torch.autograd.grad(last, leaves[1])
    assert (spatial[..., 2, 3] != 0).all() and (spatial[..., 2, 2] != 0).all()  # its own and its neighbour's


@pytest.mark.parametrize("condition", ["label", "vector", "spatial"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_is_drawn_comes_to_follow_the_condition(order: str, condition: str) -> None:
    """Grids all of one code, and a condition that tells which: a few steps of training and it is obeyed."""
    torch.manual_seed(0)
    config = PixelCNNConfig((3, 4), 4, width=16, layers=2, order=order, **CONDITIONS[condition])  # type: ignore[arg-type]
    model, which = PixelCNN(config), torch.arange(24) % 2
    sign = (which * 2 - 1).float()
    every = {
        "label": which,
        "vector": sign[:, None].expand(-1, 4),
        "spatial": sign[:, None, None, None].expand(-1, 2, 3, 4),
    }
    given: dict[str, Any] = {condition: every[condition]}
    codes = which.view(-1, 1, 1, 1).expand(-1, 1, 3, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        loss = -model.log_prob(codes, **given).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn, _ = model.sample(torch.rand(24, 1, 3, 4), **given)
    assert (drawn == codes).float().mean() > 0.9


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("order", ORDERS)
def test_training_reaches_every_parameter(order: str, maps: int) -> None:
    torch.manual_seed(0)
    config = PixelCNNConfig((4, 4), K, maps, width=8, layers=2, order=order, **CONDITIONS["all"])  # type: ignore[arg-type]
    model = PixelCNN(config)
    given = {name: x if name == "label" else x.float() for name, x in conditions_for(model, 8).items()}
    (-model.log_prob(torch.randint(K, (8, maps, 4, 4)), **given).mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_half_precision_draws_nearly_as_it_states() -> None:
    model = pixelcnn("raster", (4, 4), 2, **CONDITIONS["all"]).bfloat16()
    given = conditions_for(model, 8)
    codes, log_prob = model.sample(uniforms_for(model, 8).float(), **given)
    stated = model.log_prob(codes, **given)
    assert stated.dtype == torch.float32
    torch.testing.assert_close(log_prob, stated, rtol=0.02, atol=0.1)


CODES, LABEL, VECTOR = torch.zeros(2, 1, 3, 4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 4)
SPATIAL = torch.zeros(2, 2, 3, 4)


@pytest.mark.parametrize(
    ("conditions", "given", "says"),
    [
        ("unconditional", {"label": LABEL}, "takes no label"),
        ("unconditional", {"vector": VECTOR}, "takes no vector"),
        ("unconditional", {"spatial": SPATIAL}, "takes no spatial condition"),
        ("label", {}, "needs a label"),
        ("vector", {}, "needs a vector"),
        ("spatial", {}, "needs a spatial condition"),
        ("label", {"label": LABEL + 3}, "from 0 to 2, not 3 to 3"),
        ("label", {"label": LABEL - 1}, "from 0 to 2"),
        ("label", {"label": LABEL.float()}, "int64, not float32"),
        ("label", {"label": LABEL[:1]}, r"shape \[2\], not \[1\]"),
        ("vector", {"vector": VECTOR[:, :3]}, r"shape \[2, 4\], not \[2, 3\]"),
        ("spatial", {"spatial": SPATIAL.mT}, r"shape \[2, 2, 3, 4\]"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions: str, given: dict[str, Any], says: str) -> None:
    model = pixelcnn("raster", (3, 4), **CONDITIONS[conditions])
    with pytest.raises(UserError, match=says):
        model(CODES, **given)
    with pytest.raises(UserError, match=says):
        model.log_prob(CODES, **given)
    with pytest.raises(UserError, match=says):
        model.sample(uniforms_for(model, 2), **given)


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (CODES + K, "from 0 to 4, not 5 to 5"),
        (CODES - 1, "from 0 to 4, not -1 to -1"),
        (CODES.int(), "int64, not int32"),
        (CODES[:, 0], r"shape \[B, 1, 3, 4\], not \[2, 3, 4\]"),
        (CODES.mT, r"shape \[B, 1, 3, 4\], not \[2, 1, 4, 3\]"),
        (CODES.expand(-1, 2, -1, -1), r"shape \[B, 1, 3, 4\], not \[2, 2, 3, 4\]"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Tensor, says: str) -> None:
    model = pixelcnn("raster", (3, 4))
    for method in (model, model.log_prob):
        with pytest.raises(UserError, match=says):
            method(codes)


def test_uniform_numbers_and_temperatures_that_do_not_fit_are_refused() -> None:
    model = pixelcnn("raster", (3, 4))
    with pytest.raises(UserError, match=r"shape \[B, 1, 3, 4\], not \[2, 12\]"):
        model.sample(torch.rand(2, 12))
    for temperature in (0.0, -1.0, float("nan"), 1e-40, float("inf")):
        with pytest.raises(UserError, match="temperature is from 1e-6"):
            model.sample(uniforms_for(model, 2), temperature=temperature)


@pytest.mark.parametrize(
    "wrong",
    [{"order": "spiral"}, {"classes": -1}, {"vector": -2}, {"spatial": -1}]
    + [{name: 0} for name in ("num_codes", "maps", "width", "layers")]
    + [{"code_shape": (0, 4)}, {"code_shape": (4, 0)}],
)
def test_shapes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        PixelCNNConfig(**{"code_shape": (4, 4), "num_codes": K, **wrong})
