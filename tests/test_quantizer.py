"""The codebook against a brute-force float64 implementation of eq. 1-3 and of the moving averages of §3.2."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.errors import UserError
from worldmodel.quantizer import VectorQuantizer, perplexity


def brute_force(z: np.ndarray, embedding: np.ndarray, beta: float, upstream: np.ndarray) -> dict[str, np.ndarray]:
    """Codes, outputs, loss and both gradients of loss + sum(upstream * output), one latent at a time.  z [N, D]"""
    codes, loss = [], 0.0
    z_gradient, e_gradient = upstream.copy(), np.zeros_like(embedding)
    for n, latent in enumerate(z):
        distances = [np.sum((latent - e) ** 2) for e in embedding]
        k = int(np.argmin(distances))
        codes.append(k)
        loss += (1 + beta) * distances[k] / len(z)
        z_gradient[n] += beta * 2 * (latent - embedding[k]) / len(z)  # commitment alone; e is behind a stop gradient
        e_gradient[k] += 2 * (embedding[k] - latent) / len(z)  # codebook term alone; z is behind a stop gradient
    return {"codes": np.array(codes), "output": embedding[codes], "loss": loss, "z": z_gradient, "e": e_gradient}


@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([(5,), (3, 4), (2, 3, 2)]), st.integers(0, 10**6))
def test_codes_loss_and_every_gradient_are_those_of_the_equations(
    num_codes: int, dim: int, shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    beta, batch = 0.25, 2
    z, upstream = rng.normal(size=(2, batch, dim, *shape))
    quantizer = VectorQuantizer(num_codes, dim, beta=beta).double().eval()
    encoder_output = torch.tensor(z, requires_grad=True)
    out = quantizer(encoder_output)
    (out.loss + (out.vectors * torch.tensor(upstream)).sum()).backward()

    def flat(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 1, -1).reshape(-1, dim)

    expected = brute_force(flat(z), quantizer.embedding.detach().numpy(), beta, flat(upstream))
    assert out.codes.shape == (batch, *shape) and out.codes.dtype == torch.int64
    np.testing.assert_array_equal(out.codes.flatten().numpy(), expected["codes"])
    np.testing.assert_allclose(flat(out.vectors.detach().numpy()), expected["output"], atol=1e-12)
    np.testing.assert_allclose(out.loss.item(), expected["loss"], rtol=1e-12)
    assert encoder_output.grad is not None and quantizer.embedding.grad is not None
    np.testing.assert_allclose(flat(encoder_output.grad.numpy()), expected["z"], atol=1e-12)
    np.testing.assert_allclose(quantizer.embedding.grad.numpy(), expected["e"], atol=1e-12)
    np.testing.assert_array_equal(quantizer.encode(encoder_output.detach()).numpy(), out.codes.numpy())
    np.testing.assert_allclose(quantizer.lookup(out.codes).detach().numpy(), out.vectors.detach().numpy(), atol=1e-12)


@given(st.integers(2, 6), st.integers(0, 10**6))
def test_the_rotation_trick_turns_and_scales_the_gradient_as_the_latent_is_turned_and_scaled(
    dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    quantizer = VectorQuantizer(5, dim, rotation=True).double().eval()
    z = torch.randn(1, dim, 1, dtype=torch.float64)
    e = quantizer(z).vectors[0, :, 0]
    assert torch.equal(e, quantizer.lookup(quantizer.encode(z))[0, :, 0])
    jacobian = torch.autograd.functional.jacobian(lambda z: quantizer(z).vectors, z).reshape(dim, dim)
    z = z[0, :, 0]
    turn = jacobian * (z.norm() / e.norm())
    torch.testing.assert_close(jacobian @ z, e)
    torch.testing.assert_close(turn @ turn.T, torch.eye(dim, dtype=torch.float64))
    assert turn.det() == pytest.approx(1)
    plane = torch.linalg.qr(torch.stack([z, e], 1))[0]
    outside = torch.randn(dim, dtype=torch.float64)
    outside -= plane @ (plane.T @ outside)
    torch.testing.assert_close(turn @ outside, outside)


def test_the_moving_average_dictionary_follows_its_assigned_vectors_and_takes_no_gradient() -> None:
    torch.manual_seed(0)
    gamma, num_codes, dim = 0.9, 4, 3
    quantizer = VectorQuantizer(num_codes, dim, ema_decay=gamma, restart_below=0)
    quantizer.initialised.fill_(True)
    size, total = np.ones(num_codes), quantizer.embedding.detach().numpy().astype(np.float64)
    for _ in range(5):
        z = torch.randn(2, dim, 6, requires_grad=True)
        before = quantizer.embedding.detach().clone()
        out = quantizer(z)
        flat, codes = z.detach().movedim(1, -1).reshape(-1, dim).numpy(), out.codes.flatten().numpy()
        # §3.2 with counts in units of an even share, N / K; the ratio m_i / N_i is the same in any unit.
        unit = len(codes) / num_codes
        size = gamma * size + (1 - gamma) * np.bincount(codes, minlength=num_codes) / unit
        total = gamma * total + (1 - gamma) * np.stack([flat[codes == k].sum(0) for k in range(num_codes)]) / unit
        np.testing.assert_allclose(quantizer.embedding.detach().numpy(), total / size[:, None], rtol=1e-4, atol=1e-5)
        commitment = 0.25 * ((flat - before.numpy()[codes]) ** 2).sum(1).mean()
        assert out.loss.item() == pytest.approx(commitment, rel=1e-5)
    out.loss.backward()
    assert quantizer.embedding.grad is None


def test_the_dictionary_starts_as_encoder_outputs() -> None:
    quantizer = VectorQuantizer(8, 2, ema_decay=None)
    z = torch.randn(1, 2, 50) + 100
    quantizer(z)
    assert all((e == z[0].T).all(1).any() for e in quantizer.embedding.detach())


def test_dead_codes_come_back_to_life() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 2, ema_decay=0.9)
    quantizer(torch.randn(1, 2, 100) * 1e-3 + 50)  # all codes start far from what comes next
    for _ in range(60):
        codes = quantizer(torch.randn(4, 2, 100)).codes
    assert quantizer.usage == 1.0
    assert perplexity(codes, 16) > 8


def test_batches_smaller_than_the_dictionary_fill_it_nevertheless() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(256, 16, ema_decay=0.98)
    for _ in range(400):
        quantizer(torch.randn(1, 16, 8))
    codes = quantizer.encode(torch.randn(1, 16, 4_000))
    assert codes.unique().numel() > 200


def test_a_collapsed_codebook_shows_in_its_usage() -> None:
    quantizer = VectorQuantizer(64, 2, ema_decay=0.9)
    for _ in range(60):
        quantizer(torch.ones(4, 2, 100))
    assert quantizer.usage < 0.05


def test_restarts_and_unit_norm_go_together_with_a_dictionary_learned_by_gradient() -> None:
    quantizer = VectorQuantizer(32, 3, unit_norm=True)
    for _ in range(300):
        z = (torch.randn(2, 3, 20) * 0.01 + 1).requires_grad_()
        quantizer(z).loss.backward()
    assert quantizer.embedding.grad is not None and quantizer.embedding.grad.isfinite().all()


def test_evaluation_moves_nothing() -> None:
    quantizer = VectorQuantizer(8, 2, ema_decay=0.9)
    quantizer(torch.randn(1, 2, 50))
    before = {k: v.clone() for k, v in quantizer.state_dict().items()}
    quantizer.eval()(torch.randn(1, 2, 50))
    assert all(torch.equal(v, before[k]) for k, v in quantizer.state_dict().items())


def test_unit_norm_compares_directions() -> None:
    quantizer = VectorQuantizer(8, 3, unit_norm=True).eval()
    z = torch.randn(2, 3, 10)
    out = quantizer(z)
    torch.testing.assert_close(out.vectors.norm(dim=1), torch.ones(2, 10))
    assert torch.equal(quantizer.encode(z * torch.rand(2, 1, 10).add(0.1)), out.codes)


@given(st.integers(1, 20))
def test_perplexity_of_evenly_used_codes_is_their_number(n: int) -> None:
    assert perplexity(torch.arange(n).repeat(3), 20).item() == pytest.approx(n, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_latents_may_be_of_another_precision_than_the_dictionary(dtype: torch.dtype) -> None:
    quantizer = VectorQuantizer(8, 3).to(dtype)
    z = torch.randn(2, 3, 50, dtype=torch.float64)
    codes = quantizer(z).codes
    assert (codes == quantizer.eval().encode(z)).float().mean() >= (0.9 if dtype == torch.bfloat16 else 1)
    assert quantizer.cluster_sum.dtype == quantizer.embedding.dtype == dtype and quantizer.usage > 0.5


def test_a_code_that_is_never_used_keeps_its_place_among_moving_averages() -> None:
    quantizer = VectorQuantizer(2, 1, ema_decay=0.5, restart_below=0.0)
    quantizer.initialised.fill_(True)
    with torch.no_grad():
        for embeddings in (quantizer.embedding, quantizer.cluster_sum):
            embeddings.copy_(torch.tensor([[0.0], [100.0]]))
    for _ in range(60):  # in which all that is known of the second fades to nothing
        quantizer(torch.rand(4, 1, 5))
    assert quantizer.cluster_size[1] < 1e-5
    assert 90 < float(quantizer.embedding[1]) <= 101


@pytest.mark.parametrize(
    "settings", [{"ema_decay": 1.5}, {"beta": -1.0}, {"num_codes": 0}, {"beta": float("nan")}, {"restart_below": 5.0}]
)
def test_a_codebook_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="A codebook"):
        VectorQuantizer(**{"num_codes": 4, "dim": 2, **settings})
