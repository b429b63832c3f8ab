"""Normalized attention guidance (arXiv 2505.21179): against independent computations, and in whole models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nulltta import DoesNotFit, EncodedPrompt, NullTTAConfig, NullTTAError, align, load_model
from nulltta.algorithm.budget import spent
from nulltta.benchmark.counting import counted
from nulltta.models.attention import AttentionGuidance, guided
from nulltta.models.nag import tokens_of, with_guidance
from nulltta.null_text.replay import replay
from nulltta.testing import ModelContract

from ..derived_diffusions import DIFFUSIONS
from ..tiny_families import FAMILIES
from ..tiny_pipelines import PIPELINES

NAG = NullTTAConfig(
    guidance="nag", nag_scale=3.0, nag_alpha=0.5, num_inference_steps=2, inner_steps=(1, 1), num_particles=1
)


def _expected(plus: Any, minus: Any, scale: float, tau: float, alpha: float, order: int) -> Any:
    """Return Z by the paper's formula, in NumPy."""
    moved = plus + scale * (plus - minus)
    sizes = [np.linalg.norm(each, ord=order, axis=-1, keepdims=True) for each in (moved, plus)]
    ratio = sizes[0] / sizes[1]
    return alpha * np.where(ratio > tau, moved * tau / ratio, moved) + (1 - alpha) * plus


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
def test_z_is_the_papers_formula_on_both_sides_of_the_bound(norm: str, order: int) -> None:
    plus, minus = _random(2, 50, 8), _random(2, 50, 8, seed=1)
    found = AttentionGuidance(0.8, 1.8, 0.4, norm)(plus, minus)
    expected = _expected(plus.numpy(), minus.numpy(), 0.8, 1.8, 0.4, order)
    ratio = np.linalg.norm((1.8 * plus - 0.8 * minus).numpy(), ord=order, axis=-1)
    bounded = ratio / np.linalg.norm(plus.numpy(), ord=order, axis=-1) > 1.8
    assert 0 < bounded.mean() < 1
    torch.testing.assert_close(found, torch.tensor(expected))


def test_equal_texts_and_a_scale_of_zero_leave_z_as_it_is_to_the_bit() -> None:
    plus, minus = _random(2, 5, 8), _random(2, 5, 8, seed=1)
    assert torch.equal(AttentionGuidance(3.0, 2.0, 0.3)(plus, plus), plus)
    assert torch.equal(AttentionGuidance(0.0, 1.0, 0.3)(plus, minus), plus)


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return multi-head attention of projected (B, tokens, channels), head by head."""
    parts = []
    for q, k, v in zip(*(each.chunk(heads, -1) for each in (query, key, value)), strict=True):
        parts.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return torch.cat(parts, -1)


def test_a_cross_attention_block_is_an_independent_computation() -> None:
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attention = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4).eval()
    image, prompt, null = _random(2, 5, 8), _random(2, 7, 6, seed=1), _random(2, 7, 6, seed=2)
    z = [
        _attended(attention.to_q(image), attention.to_k(text), attention.to_v(text), 2).detach().numpy()
        for text in (prompt, null)
    ]
    expected = attention.to_out[0](torch.tensor(_expected(*z, 3.0, 1.5, 0.5, 1)))
    tokens = {attention: torch.ones(5, dtype=torch.bool)}
    with guided([attention], tokens, AttentionGuidance(3.0, 1.5, 0.5)):
        found = attention(torch.cat([image, image]), encoder_hidden_states=torch.cat([prompt, null]))
    torch.testing.assert_close(found, torch.cat([expected, expected]))


def test_a_joint_attention_block_guides_the_image_and_keeps_two_text_streams() -> None:
    from diffusers.models.embeddings import apply_rotary_emb
    from diffusers.models.transformers.transformer_flux import FluxAttention

    torch.manual_seed(0)
    attention = FluxAttention(query_dim=8, heads=2, dim_head=4, added_kv_proj_dim=8, out_dim=8).eval()
    angles = _random(8, 4, seed=3)
    rotary = angles.cos(), angles.sin()
    image, texts = _random(2, 5, 8), [_random(2, 3, 8, seed=seed) for seed in (1, 2)]

    def turned(tokens: Tensor, norm: Any, heads: Any) -> Tensor:
        return torch.as_tensor(norm(heads(tokens).unflatten(-1, (2, 4))))

    streams = []
    for text in texts:
        query = torch.cat(
            [
                turned(text, attention.norm_added_q, attention.add_q_proj),
                turned(image, attention.norm_q, attention.to_q),
            ],
            1,
        )
        key = torch.cat(
            [
                turned(text, attention.norm_added_k, attention.add_k_proj),
                turned(image, attention.norm_k, attention.to_k),
            ],
            1,
        )
        query, key = (apply_rotary_emb(each, rotary, sequence_dim=1).flatten(2) for each in (query, key))
        value = torch.cat([attention.add_v_proj(text), attention.to_v(image)], 1)
        streams.append(_attended(query, key, value, 2).detach())
    z = torch.tensor(_expected(streams[0][:, 3:].numpy(), streams[1][:, 3:].numpy(), 3.0, 1.5, 0.5, 1))
    with guided([attention], {attention: torch.ones(5, dtype=torch.bool)}, AttentionGuidance(3.0, 1.5, 0.5)):
        found, beside = attention(torch.cat([image, image]), torch.cat(texts), image_rotary_emb=rotary)
    expected = attention.to_out[0](z)
    torch.testing.assert_close(found, torch.cat([expected, expected]))
    torch.testing.assert_close(beside, attention.to_add_out(torch.cat([stream[:, :3] for stream in streams])))


@pytest.fixture(scope="module")
def sd(checkpoint: Path) -> Any:
    return load_model(checkpoint, device="cpu")


def _inputs(model: Any, batch: int = 2) -> tuple[Any, Any, Tensor, Any]:
    cond, null = model.encode(["a cat", "two red dogs"][:batch], ["", "ugly"][:batch])
    return cond, null, _random(batch, *model.latent_shape), model.schedule(4)[1]


def test_a_scale_of_zero_is_the_stock_picture_without_guidance(sd: Any) -> None:
    from nulltta.testing.stock import stock_images

    config = NullTTAConfig(
        guidance="nag", nag_scale=0.0, inner_steps=(0, 0), num_inference_steps=3, num_particles=1, eta=0.0
    )
    ours = align(sd, "a cat", "brightness", config=config, seed=2, method="plain").images
    assert torch.equal(ours, stock_images(sd, "a cat", "", config, seed=2))


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_the_gradient_with_respect_to_the_null_text_is_that_of_finite_differences(family: str, tmp_path: Path) -> None:
    """In float64, in a random direction, away from φ, with Z̃ bounded at some tokens and free at others."""
    model: Any = FAMILIES[family].load(FAMILIES[family].save(tmp_path / "model"))
    nag = with_guidance(model, NAG)
    _, null, x, step = _inputs(nag, batch=1)
    name = "encoder_hidden_states"
    start = null[name] + 0.05 * _random(*null[name].shape, seed=1)
    direction, weights = _random(*start.shape, seed=2), _random(*x.shape, seed=3)

    def value(tokens: Tensor) -> Tensor:
        return (nag.predict(x, step, {**null, name: tokens}).double() * weights).sum()

    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    h = 2e-3
    with torch.no_grad():
        slope = (value(start + h * direction) - value(start - h * direction)) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=2e-2)


def test_recomputed_activations_are_guided_as_the_first_ones(sd: Any) -> None:
    nag: Any = with_guidance(sd, NAG)
    _, null, x, step = _inputs(nag)
    leaf = null["encoder_hidden_states"].clone().requires_grad_()
    gradients = []
    for recompute in (False, True):
        sd.recompute = recompute
        prediction = nag.predict(x, step, {**null, "encoder_hidden_states": leaf})
        gradients.append(torch.autograd.grad(prediction.square().sum(), leaf)[0])
    sd.recompute = False
    torch.testing.assert_close(*gradients)


def test_the_pipeline_is_left_as_it_was_also_by_a_prediction_that_fails(sd: Any) -> None:
    def state() -> Any:
        modules = [(m, dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in sd.pipeline.unet.modules()]
        return modules, dict(sd.pipeline.unet.attn_processors)

    nag, before = with_guidance(sd, NAG), state()
    _, null, x, step = _inputs(nag)
    nag.predict(x, step, null)
    assert state() == before
    with pytest.raises(RuntimeError):
        nag.predict(x, step, {**null, "encoder_hidden_states": null["encoder_hidden_states"][..., :-1]})
    assert state() == before


@pytest.mark.parametrize("family", ["qwen", "ZImagePipeline"])
def test_texts_of_different_lengths_share_a_call(family: str, tmp_path: Path) -> None:
    if family == "qwen":
        model: Any = FAMILIES[family].load(FAMILIES[family].save(tmp_path / "model"))
    else:
        pipeline, call = next(case for case in PIPELINES if case.name == family).load(tmp_path)
        model = load_model(pipeline, **call)
    texts, _ = model.encode(["a cat", "a long prompt about two red dogs on a green hill"], ["", ""])
    x, step = _random(2, *model.latent_shape), model.schedule(4)[1]
    torch.testing.assert_close(
        model.predict_together(x, step, texts), model.predict(x, step, texts), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"guidance": "pag"}, "guidance"), ({"nag_tau": 0.9}, "nag_tau"), ({"nag_alpha": 1.1}, "nag_alpha"),
        ({"nag_scale": -1.0}, "nag_scale"), ({"nag_norm": "l3"}, "nag_norm"), ({"nag_scale": 0.0}, "nag_scale"),
        ({"conventions": "release"}, "conventions"), ({"guidance": "cfg+nag", "guidance_scale": 1.0}, "guidance_scale"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(NullTTAError) as caught:
        NullTTAConfig(**{"guidance": "nag", **changes})
    assert caught.value.field == field


def test_models_whose_text_reaches_the_image_elsewhere_are_refused(tmp_path: Path) -> None:
    for name, reason in (("HunyuanDiTPipeline", "another way than through attention"), ("cogview4", "not\nknown")):
        if name in FAMILIES:
            model: Any = FAMILIES[name].load(FAMILIES[name].save(tmp_path / name))
        else:
            pipeline, call = next(case for case in (*PIPELINES, *DIFFUSIONS) if case.name == name).load(tmp_path)
            model = load_model(pipeline, **call)
        with pytest.raises(NullTTAError, match=reason.replace("\n", " ")) as caught:
            align(model, "a cat", "brightness", config=NAG)
        assert caught.value.field == "guidance"


def test_classifier_free_guidance_goes_on_top_with_the_same_null_text(sd: Any) -> None:
    config = NullTTAConfig(guidance="cfg+nag", guidance_scale=3.0, nag_scale=2.0)
    both, inside = with_guidance(sd, config), with_guidance(sd, NullTTAConfig(guidance="nag", nag_scale=2.0))
    _, null, x, step = _inputs(both)
    own, expected = (
        sd.predict(x, step, {"encoder_hidden_states": null["encoder_hidden_states"]}),
        inside.predict(x, step, null),
    )
    torch.testing.assert_close(both.predict(x, step, null), own + 3.0 * (expected - own))


@pytest.mark.parametrize("guidance", ["nag", "cfg+nag"])
def test_a_run_costs_the_evaluations_that_its_budget_counts(sd: Any, guidance: Any) -> None:
    config = replace(NAG, guidance=guidance, num_particles=2, inner_steps=(1, 2), kl_weight=0.0)
    align(sd, "a cat", "brightness", config=config)  # the first run also finds out where the image is
    with counted(sd) as found:
        align(sd, "a cat", "brightness", config=config)
    assert found.total == spent(config, crossed=True) < spent(config)


def _loaded(name: str, folder: Path) -> Any:
    if name in FAMILIES:
        return FAMILIES[name].load(FAMILIES[name].save(folder / name))
    pipeline, call = next(case for case in (*PIPELINES, *DIFFUSIONS) if case.name == name).load(folder)
    return load_model(pipeline, **call)


@pytest.mark.parametrize(
    ("name", "crossed"),
    [("sd", True), ("sdxl", True), ("StableDiffusionControlNetPipeline", True), ("pixart", False), ("flux", False)],
)
def test_where_cross_attention_alone_reads_texts_one_branch_gives_what_two_halves_give(
    name: str, crossed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prediction and gradient; a model with text streams, or that changes the text first, takes two halves."""
    model = _loaded(name, tmp_path)
    nag = with_guidance(model, NAG)
    _, null, x, step = _inputs(nag, batch=1)
    assert nag.crossed(null) is crossed
    text = next(iter(tokens_of(null)))
    leaf = (null[text] + 0.05 * _random(*null[text].shape, seed=1)).requires_grad_()
    found = []
    for halves in (False, True):
        if halves:
            monkeypatch.setattr("nulltta.models.attention._reads", lambda *_: False)
            model.attended.clear()
        with counted(model) as evaluations:
            prediction = nag.predict(x, step, {**null, text: leaf})
        # Two halves first find the image's tokens anew, by two evaluations of two rows.
        assert evaluations.forward == (6 if halves else 1 if crossed else 2)
        found.append((prediction, torch.autograd.grad(prediction.square().sum(), leaf)[0]))
    (ours, gradient), (expected, slope) = found
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.filterwarnings("ignore:The configuration file of the vae:FutureWarning")
def test_a_call_of_one_prompt_is_guided_row_by_row(tmp_path: Path) -> None:
    nag: Any = with_guidance(_loaded("StableDiffusionUpscalePipeline", tmp_path), NAG)
    _, null, x, step = _inputs(nag)
    assert nag.model.found.singly
    assert nag.crossed(null)
    one_by_one = [nag.predict(x[i : i + 1], step, {n: t[i : i + 1] for n, t in null.items()}) for i in range(2)]
    torch.testing.assert_close(nag.predict(x, step, null), torch.cat(one_by_one))


def test_a_null_text_of_another_length_is_refused_where_texts_have_one_length(sd: Any) -> None:
    null_text = align(sd, "a cat", "brightness", config=NAG).null_text[0]
    tokens = sd.pipeline.encode_prompt("a cat", "cpu", 1, False)[0]
    long = EncodedPrompt("a cat and more", prompt_embeds=torch.cat([tokens, tokens], 1))
    with pytest.raises(DoesNotFit, match=r"has shape \(154, 32\), the null text \(77, 32\)"):
        replay(sd, null_text, prompt=long)


@pytest.mark.parametrize(
    ("method", "reason"),
    [("prompt-embedding", "exchanges the two branches"), ("date", "moves the prompt's own branch")],
)
def test_a_method_that_needs_the_prompts_own_branch_is_refused(sd: Any, method: str, reason: str) -> None:
    with pytest.raises(NullTTAError, match=reason) as caught:
        align(sd, "a cat", "brightness", config=NAG, method=method)
    assert caught.value.field == "guidance"


class TestAttentionGuided(ModelContract):
    """The contract of models, one prediction being guided already."""

    @pytest.fixture
    def model(self, sd: Any) -> Any:
        return with_guidance(sd, NAG)
