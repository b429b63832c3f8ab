"""OpenAI's own Python client, unmodified, with a real server."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types import Image as Answered
from torch import Tensor

import nulltta
from nulltta.contracts import ModelWrapper
from nulltta.images import to_pil

from .serving import KEY, SHORT, Running, assert_same, config, options, picture, running

PROMPT = "a [red] cat, größer"


def ours(**given: Any) -> dict[str, Any]:
    return {"nulltta": options(**given)}


def test_images_are_those_of_align(shared: Running, tiny: nulltta.GuidedModel) -> None:
    with shared.client() as client:
        answer = client.images.generate(model="tiny", prompt=PROMPT, n=2, extra_body=ours(seed=3, negative_prompt="b"))
    result = nulltta.align(tiny, [PROMPT] * 2, "brightness", config=config(), seed=[3, 4], negative_prompt="b")
    assert answer.size == "16x16"
    assert len(answer.data or ()) == 2
    for i, (found, expected) in enumerate(zip(answer.data or (), result.pil(), strict=True)):
        about = (found.model_extra or {})["nulltta"]
        assert about["seed"] == 3 + i
        assert about["score"] == pytest.approx(float(result.rewards[i]), abs=1e-5)
        shown = picture(found.b64_json)
        assert_same(shown, expected)
        assert shown.info["prompt"] == PROMPT
        made = json.loads(shown.info["nulltta"])
        assert (made["seed"], made["reward"], made["negative_prompt"]) == (3 + i, "brightness", "b")
        assert made["config"]["num_inference_steps"] == SHORT["num_inference_steps"]


def test_a_reward_may_read_latents(start: Callable[..., Running], tiny: nulltta.GuidedModel) -> None:
    """Its previews and images are decoded all the same."""
    name = "tests.rewards.latents:Redness"
    result = nulltta.align(tiny, PROMPT, name, config=config())
    with start(rewards=(name,)).client() as client:
        body = {"nulltta": {**SHORT, "reward": name}}
        stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body=body)
        *partial, last = list(stream)
    assert len(partial) == 3
    assert last.nulltta["score"] == pytest.approx(float(result.rewards[0]), abs=1e-5)
    assert_same(picture(last.b64_json), result.pil()[0])


def test_a_stream_sends_the_previews_and_the_image_of_align(shared: Running, tiny: nulltta.GuidedModel) -> None:
    previews = []
    result = nulltta.align(tiny, PROMPT, "brightness", config=config(), on_step=lambda s: previews.append(s.preview))
    with shared.client() as client:
        stream = client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body=ours())
        *partial, last = list(stream)
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    assert [event.partial_image_index for event in partial] == [0, 1, 2]
    assert [event.nulltta["step"] for event in partial] == [0, 1, 2]
    assert last.type == "image_generation.completed"
    assert last.usage.total_tokens == 0
    assert (last.size, last.output_format, last.nulltta["seed"]) == ("16x16", "png", 0)
    assert_same(picture(last.b64_json), result.pil()[0])
    for event, preview in zip(partial, previews[:3], strict=True):
        assert_same(picture(event.b64_json), to_pil(preview)[0])


def test_without_partial_images_a_stream_is_one_event(shared: Running) -> None:
    with shared.client() as client:
        events = list(client.images.generate(prompt=PROMPT, stream=True, extra_body=ours()))
    assert [event.type for event in events] == ["image_generation.completed"]


def test_a_preview_is_decoded_only_if_it_is_sent(tiny: nulltta.GuidedModel) -> None:
    class CountingDecoder(ModelWrapper):
        decoded = 0

        def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
            self.decoded += 1
            return self.model.decode(x0, detail)

    model = CountingDecoder(tiny)
    with running(model) as at, at.client() as client:
        for partial, decodes in ((0, 1), (2, 3)):
            model.decoded = 0
            streamed = {"stream": True, "partial_images": partial} if partial else {}
            list(client.images.generate(prompt=PROMPT, extra_body=ours(method="plain"), **streamed))  # type: ignore[call-overload]
            assert model.decoded == decodes  # the final image and the previews


def test_a_url_serves_the_picture_without_a_key(shared: Running) -> None:
    with shared.client() as client:
        [by_url] = client.images.generate(prompt=PROMPT, response_format="url", extra_body=ours()).data or ()
        [inline] = client.images.generate(prompt=PROMPT, extra_body=ours()).data or ()
    assert (by_url.url or "").startswith(f"{shared.url}/images/")
    assert by_url.b64_json is None
    with urllib.request.urlopen(str(by_url.url)) as response:
        assert response.headers["content-type"] == "image/png"
        assert response.read() == base64.b64decode(inline.b64_json or "")


def test_urls_begin_with_the_public_url(start: Any) -> None:
    with start(public_url="https://pictures.example/here/").client() as client:
        [answered] = client.images.generate(prompt="a", response_format="url", extra_body=ours()).data or ()
    assert str(answered.url).startswith("https://pictures.example/here/images/")


def test_a_drawn_seed_is_reported_and_repeats_the_image(shared: Running) -> None:
    def one(client: openai.OpenAI, **options: Any) -> tuple[int, Answered]:
        [answered] = client.images.generate(prompt="a", extra_body=ours(**options)).data or ()
        return (answered.model_extra or {})["nulltta"]["seed"], answered

    with shared.client() as client:
        seed, first = one(client, seed=None)
        other, _ = one(client, seed=None)
        again, repeated = one(client, seed=seed)
    assert seed != other
    assert again == seed
    assert_same(picture(repeated.b64_json), picture(first.b64_json))


def test_plain_sampling_is_a_method(shared: Running, tiny: nulltta.GuidedModel) -> None:
    with shared.client() as client:
        [answered] = client.images.generate(prompt="a", extra_body=ours(method="plain")).data or ()
    result = nulltta.align(tiny, "a", "brightness", config=config(), method="plain")
    assert_same(picture(answered.b64_json), result.pil()[0])


def test_reward_expressions(shared: Running, tiny: nulltta.GuidedModel) -> None:
    reward = "0.5*brightness + 2*(target-colour:#ff8800 - z(colourfulness, 0.1, 0.2))"
    with shared.client() as client:
        [answered] = client.images.generate(
            prompt="a", extra_body=ours(reward=reward)
        ).data or ()  # fmt: skip
    result = nulltta.align(tiny, "a", reward, config=config())
    assert (answered.model_extra or {})["nulltta"]["score"] == pytest.approx(float(result.rewards[0]), abs=1e-5)


def test_the_model_is_listed(shared: Running) -> None:
    with shared.client() as client:
        [model] = client.models.list().data
        assert client.models.retrieve("tiny") == model
        assert (model.id, model.object, model.owned_by) == ("tiny", "model", "nulltta")
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve("dall-e-9")
    assert refused.value.code == "model_not_found"


def test_openais_parameters_are_accepted_where_they_change_nothing(shared: Running) -> None:
    with shared.client() as client:
        answer = client.images.generate(
            model="tiny", prompt="a", size="16x16", quality="auto", background="opaque", output_format="png",
            moderation="low", user="someone", extra_body=ours(),
        )  # fmt: skip
    assert len(answer.data or ()) == 1


def test_every_answer_has_a_request_id(shared: Running) -> None:
    with shared.client() as client:
        models = client.models.list()
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(prompt="a", n=1000)
    assert str(models._request_id).startswith("req_")
    assert str(refused.value.request_id).startswith("req_")
    assert models._request_id != refused.value.request_id


def test_a_wrong_key_is_an_authentication_error(shared: Running) -> None:
    with shared.client(KEY[:-1] + "X") as client, pytest.raises(openai.AuthenticationError) as refused:
        client.models.list()
    assert refused.value.code == "invalid_api_key"
