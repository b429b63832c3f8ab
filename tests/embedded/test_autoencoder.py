"""The patch autoencoder: its linear initialisation, whitening, and diffusers' interface."""

from __future__ import annotations

import random

import torch

from nulltta.embedded.autoencoder import PatchAutoencoder
from nulltta.embedded.train.autoencoder import scenes


def fitted() -> tuple[PatchAutoencoder, torch.Tensor]:
    torch.manual_seed(0)
    model, images = PatchAutoencoder(width=16, blocks=1), scenes(random.Random(0), 128, "cpu")
    model.fit_linear(images)
    return model, images


def test_principal_components_alone_reconstruct_a_scene() -> None:
    model, images = fitted()
    with torch.no_grad():
        assert (model(images) - images).abs().mean() < 0.07


def test_whitening_keeps_the_interior_and_normalises_the_latents() -> None:
    model, images = fitted()
    with torch.no_grad():
        for layer in (model.encoder[-1], model.decoder[-1]):
            layer.weight.normal_(std=0.02)
        before = model(images)
        model.whiten(images)
        z = model.latents(images)
        assert z.mean((0, 2, 3)).abs().max() < 1e-4
        assert (z.std((0, 2, 3)) - 1).abs().max() < 1e-4
        inner = slice(24, -24)  # away from the zero padding
        torch.testing.assert_close(model(images)[..., inner, inner], before[..., inner, inner])


def test_it_decodes_as_diffusers_expects_with_a_gradient() -> None:
    model, images = fitted()
    z = model.encode(images[:2]).latent_dist.mode()
    assert z.shape == (2, 16, 8, 8)
    z = z.detach().requires_grad_()
    image = model.decode(z, return_dict=False)[0]
    torch.testing.assert_close(image, model.decode(z).sample)
    image.sum().backward()
    assert z.grad is not None
    assert model.config.scaling_factor == 1.0
