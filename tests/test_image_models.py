"""The image VQ-VAE and the baselines of §4.1: equations against enumeration, shapes, and bounds that are bounds."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.baselines import ImageVAE, ImageVIMCO, log_mean_exp, vimco_signal
from worldmodel.errors import UserError
from worldmodel.image import PRESETS, ImageConfig, ImageVQVAE
from worldmodel.two_stage import GlobalConfig

TINY = ImageConfig((2, 2), width=4, downsamplings=1, blocks=1, maps=2, num_codes=3, code_dim=2, likelihood="logistic")
IMAGE = torch.tensor([[[[10, 200, 3], [20, 30, 90]], [[255, 0, 7], [128, 64, 32]]]], dtype=torch.uint8)  # [1, 2, 2, 3]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("preset", "codes"), [("cifar10", (10, 8, 8)), ("imagenet", (1, 32, 32)), ("dmlab", (1, 21, 21))]
)
def test_the_presets_have_the_papers_latents(preset: str, codes: tuple[int, int, int]) -> None:
    config = PRESETS[preset]
    model = ImageVQVAE(config)
    images = torch.randint(256, (1, *config.image_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        encoded = model.encode(images)
        assert encoded.shape == (1, *codes)
        assert model.decode(encoded).shape == images.shape
        assert model.decode(encoded).dtype == torch.uint8


def test_the_imagenet_codes_take_42_times_fewer_bits() -> None:
    rows, columns = PRESETS["imagenet"].code_shape
    assert 128 * 128 * 3 * 8 / (rows * columns * math.log2(512)) == pytest.approx(42.6, abs=0.1)


def test_the_loss_is_nats_a_sub_pixel_and_the_codebooks_terms() -> None:
    model = ImageVQVAE(TINY).double().eval()
    out = model(IMAGE)
    outputs = model.decode_outputs(model.encode(IMAGE))
    distortion = model.likelihood.nats(outputs, IMAGE)
    torch.testing.assert_close(out.distortion, distortion)
    latents = model.encoder(IMAGE).detach()
    chosen = torch.cat([q.lookup(model.encode(IMAGE)[:, m]) for m, q in enumerate(model.quantizers)], 1)
    commitment = 0.25 * (latents - chosen).square().sum()  # one place: the sum over channels and maps
    torch.testing.assert_close(out.total, distortion.mean() / 12 + commitment)
    assert out.rate.item() == pytest.approx(2 * math.log(3))


def test_each_map_has_a_codebook_of_its_own() -> None:
    model = ImageVQVAE(TINY).eval()
    codes = torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    before = model.decode_outputs(codes)
    with torch.no_grad():
        model.quantizers[1].embedding[0] += 1
    assert not torch.equal(model.decode_outputs(codes), before)
    other = codes.clone()
    other[:, 0] = 1
    assert not torch.equal(model.decode_outputs(other), model.decode_outputs(codes))


def test_images_that_do_not_divide_are_refused() -> None:
    for size in ((30, 32), (0, 0), (-4, 4), (4, 4, 4)):
        with pytest.raises(UserError, match=f"patches of side 4, not {'x'.join(map(str, size))}"):
            ImageConfig(size, downsamplings=2)  # type: ignore[arg-type]


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match='likelihoods are .*, not "exact"'):
        ImageConfig((8, 8), likelihood="exact")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one channel, layer"):
        ImageConfig((8, 8), maps=0)
    with pytest.raises(UserError, match="two samples at least"):
        ImageVIMCO(ImageConfig((8, 8), width=4), samples=1)
    with pytest.raises(UserError, match="one row, column, latent"):
        GlobalConfig((3, 3), 8, latents=0)


def test_what_is_no_image_of_the_models_is_refused() -> None:
    model = ImageVQVAE(ImageConfig((8, 8), width=4, num_codes=8)).eval()
    for images in (torch.zeros(1, 8, 8, 3), torch.zeros(1, 9, 8, 3).byte(), torch.zeros(1, 3, 8, 8).byte()):
        with pytest.raises(UserError, match=r"uint8 images \[B, 8, 8, 3\], not"):
            model.reconstruct(images)


def _enumerated(model: ImageVIMCO, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Over all 9 values of the two codes: log q(z|x), log p(x, z), and the codes."""
    codes = torch.tensor(list(itertools.product(range(3), repeat=2)))[:, :, None, None]  # [9, 2, 1, 1]
    log_q = F.log_softmax(model.encoder(image).view(2, 3), -1)
    of_each = log_q[0, codes[:, 0, 0, 0]] + log_q[1, codes[:, 1, 0, 0]]
    log_p = -model.likelihood.nats(model._decode(codes), image.expand(9, -1, -1, -1))
    return of_each, log_p - 2 * math.log(3), codes


def test_vimcos_gradient_is_that_of_its_bound_by_enumeration() -> None:
    """The expected estimate over all pairs of samples, weighted by their probability, is the bound's own gradient."""
    model = ImageVIMCO(TINY, samples=2).double()
    parameters = list(model.parameters())
    log_q, log_joint, _ = _enumerated(model, IMAGE)
    pairs = torch.tensor(list(itertools.product(range(9), repeat=2)))  # [81, 2]
    log_weight = log_joint[pairs] - log_q[pairs]
    chance = log_q[pairs].sum(1).exp()
    bound = (chance * log_mean_exp(log_weight)).sum()
    expected = torch.autograd.grad(bound, parameters, retain_graph=True)
    signal = vimco_signal(log_weight.detach())
    estimate = (chance.detach() * (log_mean_exp(log_weight) + (signal * log_q[pairs]).sum(1))).sum()
    for given, wanted in zip(torch.autograd.grad(estimate, parameters), expected, strict=True):
        torch.testing.assert_close(given, wanted)


def test_vimcos_loss_has_the_enumerated_gradient_on_average() -> None:
    model = ImageVIMCO(TINY, samples=3).double()
    with torch.no_grad():
        for embedding in model.embeddings:
            embedding.weight *= 4  # codes that matter
    bias = model.encoder.layers[-1].bias
    log_q, log_joint, _ = _enumerated(model, IMAGE)
    triples = torch.tensor(list(itertools.product(range(9), repeat=3)))
    bound = (log_q[triples].sum(1).exp() * log_mean_exp(log_joint[triples] - log_q[triples])).sum()
    (expected,) = torch.autograd.grad(-bound / 12, bias)
    batch, batches = IMAGE.expand(400, -1, -1, -1), 60
    losses = [model(batch).total for _ in range(batches)]
    gradients = torch.stack([torch.autograd.grad(loss, bias)[0] for loss in losses])
    for given, wanted in ((gradients, expected), (torch.stack(losses).detach(), -bound.detach() / 12)):
        error = given.std(0) / math.sqrt(batches)
        assert ((given.mean(0) - wanted).abs() < 5 * error).all()
    assert (expected.abs() > 5 * gradients.std(0) / math.sqrt(batches)).any()  # or this test could not fail


def test_no_bound_exceeds_the_enumerated_log_likelihood() -> None:
    model = ImageVIMCO(TINY, samples=2).double()
    with torch.no_grad():
        log_q, log_joint, _ = _enumerated(model, IMAGE)
        evidence = log_joint.logsumexp(0)
        for samples in (1, 2, 3):
            draws = torch.tensor(list(itertools.product(range(9), repeat=samples)))
            log_weight = log_joint[draws] - log_q[draws]
            assert (log_q[draws].sum(1).exp() * log_mean_exp(log_weight)).sum() < evidence
        # A VQ-VAE's: one code alone, at its prior's price.
        assert log_joint.max() < evidence


def test_the_samples_are_drawn_from_the_posterior() -> None:
    model = ImageVIMCO(TINY, samples=50).double()
    with torch.no_grad():
        log_q, _, _ = _enumerated(model, IMAGE)
        codes, _, _ = model.sample(IMAGE.expand(400, -1, -1, -1))
    value = codes[..., 0, 0].flatten(0, 1) @ torch.tensor([3, 1])
    count = torch.bincount(value, minlength=9).double()
    expected = log_q.exp() * len(value)
    assert ((count - expected).square() / expected).sum() < 26.1  # chi-squared, 8 degrees: one in a thousand


def test_the_vaes_rate_is_its_kl_divergence() -> None:
    model = ImageVAE(TINY).double()
    mean, log_std = model.posterior(IMAGE)
    q = torch.distributions.Normal(mean, log_std.exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(model(IMAGE).rate, kl.flatten(1).sum(1))


def test_all_three_learn_to_describe_an_image() -> None:
    images = torch.randint(256, (8, 4, 4, 3), dtype=torch.uint8)
    config = ImageConfig(
        (4, 4), width=32, downsamplings=1, blocks=1, maps=2, num_codes=16, code_dim=4, likelihood="logistic"
    )
    for model in (ImageVQVAE(config), ImageVAE(config), ImageVIMCO(config, samples=4)):
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        losses = []
        for _ in range(150):
            loss = model(images)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            losses.append((loss.distortion + loss.rate).mean().item())
        assert sum(losses[-10:]) < 0.85 * sum(losses[:10]), type(model)
