"""Runs on the page: progress, stopping and limits."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import nulltta
from nulltta import NullTTAConfig, NullTTAError
from nulltta.evaluation.evidence import pixel_features
from nulltta.runs.call import CallSettings
from nulltta.runs.request import AlignRequest
from nulltta.ui.engine import MAX_PICTURES, PageEngine
from nulltta.ui.form import call_settings
from nulltta.ui.run import PageRun, diversity

RequestOf = Callable[..., AlignRequest]


def test_a_page_shows_every_step_of_the_run_that_align_makes(engine: PageEngine, request_of: RequestOf) -> None:
    asked = request_of(prompts=["a cat", "a dog"])
    page_run = PageRun(engine, asked, threading.Event())
    seen = list(page_run)
    finished = page_run.finished
    shared = asked.settings
    result = nulltta.align(
        engine.model(shared.model), asked.prompts, "brightness", config=shared.config, seed=asked.seed
    )
    assert [len(progress.trace) for progress in seen] == [1, 2, 3]
    assert all(torch.equal(p.trace[-1].candidate_rewards, s.candidate_rewards)
               for p, s in zip(seen, result.trace, strict=True))  # fmt: skip
    assert seen[0].preview.shape == result.images.shape
    assert not torch.equal(seen[0].preview, seen[1].preview)
    assert [c.aligned.tolist() for c in finished.comparisons] == result.images.tolist()
    assert [c.plain.tolist() for c in finished.comparisons] == result.baseline.tolist()
    assert torch.equal(finished.candidates, result.candidates)
    assert finished.stopped_after is None
    assert all(comparison.null_text for comparison in finished.comparisons)


def test_a_size_and_an_uploaded_picture_are_those_of_the_models_call(
    engine: PageEngine, request_of: RequestOf, config: NullTTAConfig
) -> None:
    config = replace(config, num_inference_steps=2)
    file = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(file, "PNG")
    of_call = call_settings([24.0, 16, None, 1.0, file.getvalue(), None])
    assert of_call == {"width": 24, "height": 16, "strength": 1, "image": file.getvalue()}
    of_call = {name: value for name, value in of_call.items() if name not in ("width", "height")}
    for settings, size in (({"width": 24, "height": 16}, (16, 24)), (of_call, (16, 24))):
        page_run = PageRun(engine, request_of(**settings, config=config), threading.Event())
        list(page_run)
        shown = page_run.finished.comparisons[0].aligned
        assert shown.shape[-2:] == size
        model = engine.model(engine.models[0]).called(**CallSettings(**settings).arguments())
        expected = nulltta.align(model, "a cat", "brightness", config=config, seed=4).images[0]
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-6)
        assert "PNG" not in " ".join(page_run.finished.request.command())


def test_a_visitor_cannot_name_a_file_or_ask_for_a_poster(engine: PageEngine, request_of: RequestOf) -> None:
    with pytest.raises(NullTTAError, match="image must be an uploaded picture"):
        call_settings([None, None, None, None, "/etc/passwd", None])
    poster = io.BytesIO()
    Image.new("1", (3000, 3000)).save(poster, "PNG")
    for settings, said in (
        ({"width": 10_000, "height": 10_000}, "100,000,000 pixels are too many for a page"),
        ({"num_frames": 3}, "num_frames is not an argument of"),
        ({"image": b"no picture"}, "image must be a picture"),
        ({"image": poster.getvalue()}, "9,000,000 pixels are too many for a page"),
        ({"height": 17, "width": 16}, "divisible by 8"),
    ):
        with pytest.raises(NullTTAError, match=said):
            list(PageRun(engine, request_of(**settings), threading.Event()))


def test_progress_follows_the_work_and_leaves_some_for_plain_sampling(
    engine: PageEngine, request_of: RequestOf
) -> None:
    seen = list(PageRun(engine, request_of(), threading.Event()))
    shares = [progress.share for progress in seen]
    assert 0 < shares[0] < shares[-1] < 1
    assert seen[0].seconds_left > seen[-1].seconds_left > 0


def test_a_prompt_that_was_cut_is_noted(engine: PageEngine, request_of: RequestOf) -> None:
    page_run = PageRun(engine, request_of(prompts=["cat " * 100]), threading.Event())
    assert "cut off" in next(iter(page_run)).notes[0]


def test_several_seeds_of_a_prompt_have_a_diversity(engine: PageEngine, request_of: RequestOf) -> None:
    several = request_of(prompts=["a cat", "a cat", "a dog"], own_seeds=[0, 1, 0])
    page_run = PageRun(engine, several, threading.Event())
    list(page_run)
    assert list(page_run.finished.diversity) == ["a cat"]
    assert all(1 <= score <= 2 for score in page_run.finished.diversity["a cat"])
    same = [page_run.finished.comparisons[0]] * 2
    assert diversity(same, pixel_features)["a cat"] == pytest.approx((1, 1))


def test_stop_keeps_each_prompts_best_clean_estimate(engine: PageEngine, request_of: RequestOf) -> None:
    stop, seen = threading.Event(), []
    page_run = PageRun(engine, request_of(prompts=["a cat", "a dog"]), stop)
    for progress in page_run:
        seen.append(progress)
        if len(seen) == 2:
            stop.set()
    finished = page_run.finished
    assert finished.stopped_after == 2
    rewards = torch.stack([s.candidate_rewards.gather(1, s.selected[:, None])[:, 0] for s in seen[-1].trace])  # (2, B)
    best = rewards.argmax(0)
    for b, comparison in enumerate(finished.comparisons):
        assert torch.equal(comparison.aligned, seen[int(best[b])].preview[b])
        assert comparison.scores["brightness"].aligned == pytest.approx(float(rewards[best[b], b]))
        assert comparison.null_text is None
        assert len(comparison.trace) == 2


def test_a_run_stopped_before_its_first_step_keeps_nothing(engine: PageEngine, request_of: RequestOf) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(NullTTAError, match="nothing to keep"):
        list(PageRun(engine, request_of(), stop))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompts": ["a cat"] * (MAX_PICTURES + 1)}, "too many"), ({"prompts": ["a" * 5000]}, "too long"),
        ({"model": "/etc"}, "not offered"), ({"reward": "os:system"}, "not offered"),
        ({"reward": "hpsv3"}, "not offered"), ({"reward": "brightness + clip"}, "does not know the pictures of"),
        ({"config": NullTTAConfig(num_inference_steps=9_999)}, "num_inference_steps must be 1000 at most"),
        ({"config": NullTTAConfig(num_particles=10_000)}, "num_particles must be 64 at most"),
        ({"config": NullTTAConfig(inner_steps=(1, 9_999))}, "inner_steps must be 1000 at most"),
        ({"config": NullTTAConfig(num_inference_steps=1000, inner_steps=(900, 900))}, "evaluations are too many"),
    ],
)  # fmt: skip
def test_requests_beyond_the_offer_or_the_limits_are_refused_before_sampling(
    engine: PageEngine, request_of: RequestOf, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(NullTTAError, match=says):
        list(PageRun(engine, request_of(**changes), threading.Event()))


def test_rewards_are_offered_if_their_files_are_here_and_they_know_the_model(engine: PageEngine) -> None:
    offered = {row.name for row in engine.offered(engine.models[0])}
    assert {"brightness", "colourfulness"} <= offered
    assert offered.isdisjoint({"hpsv3", "clip", "clip-b"})  # 16.6 GB; the embedded model's scorers
    assert {"clip", "clip-b"} <= {row.name for row in engine.offered("embedded")}


def test_a_page_that_cannot_sample_does_not_start(checkpoint: Path) -> None:
    with pytest.raises(NullTTAError, match="unknown model"):
        PageEngine(["no such model"], "brightness", device="cpu")
    with pytest.raises(NullTTAError, match="did you mean 'clip'"):
        PageEngine([str(checkpoint)], "clipp", device="cpu")
