"""Sharing null texts through the Hugging Face Hub: a repository of the file, its pictures and a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from nulltta import hub
from nulltta.errors import InvalidValue, first_line
from nulltta.images import save_png, to_pil
from nulltta.null_text.sources import NAME

if TYPE_CHECKING:
    from PIL.Image import Image

    from nulltta.null_text.fitted import FittedNullText
    from nulltta.null_text.value import NullText

    Shared: TypeAlias = NullText | FittedNullText


class Shareable:
    """A null text that can be uploaded."""

    __slots__ = ()

    def push_to_hub(
        self, repo: str, *, licence: str = "", pictures: Mapping[str, Image] | None = None, private: bool = False
    ) -> str:
        """Upload it to the Hugging Face Hub, with a model card that says how it was made and what is known of its gain.

        Args:
            repo: the repository, as in "user/repo"; it is made if there is none.
            licence: the licence under which it may be used, such as "cc0-1.0"; what `about` says by default.
            pictures: pictures for the card, by what they show; its own, where it holds one, is shown without asking.
            private: whether only its owner can see the repository, where it is made.

        Returns:
            The repository's address.

        Raises:
            InvalidValue: if the repository's name is not of that form, or the hub refuses.
        """
        return _push(cast("Shared", self), repo, licence=licence, pictures=pictures or {}, private=private)


def _push(null_text: Shared, repo: str, *, licence: str, pictures: Mapping[str, Image], private: bool) -> str:
    """Upload a null text with its model card and return the repository's address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not hub.is_hub_id(repo):
        raise InvalidValue(f"must be of the form user/repo, not '{repo}'", "repo")
    if not hub.reachable():
        raise InvalidValue(f"the null text cannot be uploaded to '{repo}': the hub does not answer (offline)")
    with TemporaryDirectory() as folder:
        prepare(null_text, Path(folder), repo, licence=licence, pictures=pictures)
        api = HfApi()
        try:
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a null text")
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise InvalidValue(f"the null text cannot be uploaded to '{repo}': {first_line(error)}") from error
    return str(address)


def prepare(
    null_text: Shared, folder: Path, repo: str, *, licence: str = "", pictures: Mapping[str, Image] | None = None
) -> None:
    """Write what a repository holds into an empty folder: the file, the pictures and the model card.

    Args:
        null_text: the null text; of one prompt, its own picture is shown too, where it holds one.
        folder: the folder.
        repo: the repository's name, for the card.
        licence: the licence under which it may be used; what the null text says by default.
        pictures: pictures by what they show.
    """
    licence = licence or str(null_text.about.get("licence", ""))
    null_text.save(folder / NAME, licence=licence)
    shown = dict(pictures or {})
    if null_text.image is not None:
        shown.setdefault(null_text.prompt, to_pil(null_text.image[None])[0])
    names = {f"picture-{i}.png": caption for i, caption in enumerate(shown)}
    for name, caption in names.items():
        save_png(shown[caption], folder / name)
    (folder / "README.md").write_text(card(null_text, repo, licence, names), encoding="utf-8")


def card(null_text: Shared, repo: str, licence: str, pictures: Mapping[str, str]) -> str:
    """Return the model card: what the null text raises, how it was measured, how to use it.

    Args:
        null_text: the null text.
        repo: the repository's name.
        licence: an identifier that the hub knows, such as "cc0-1.0", or other words; may be empty.
        pictures: by file name, what they show.
    """
    about = null_text.about
    model, reward = str(about.get("model_name", "")), _code(about.get("reward") or "not recorded")
    for_what = f"the prompt {_code(null_text.prompt)}" if null_text.prompt else "any prompt"
    kind = f"of the form {_code(about['form'])}" if "form" in about else "with one embedding per recorded step"
    sections = [
        _front_matter(model, licence),
        f"# {repo.split('/')[-1]}",
        f"A null text {kind} for {for_what}: it takes the place of the empty negative prompt in classifier-free "
        "guidance, at the cost of plain sampling.",
        f"- **Raises:** {reward}\n- **Model:** {_code(model or 'not recorded')}"
        f"\n- **Licence:** {_plain(licence) or 'none was stated'}",
        "## Use\n```python\nimport nulltta\nfrom nulltta.null_text import loading\n\n"
        f'null_text = loading.load("{repo}")\nwith null_text.apply(pipe):  # a diffusers pipeline of that model\n'
        '    image = pipe("a cat").images[0]\n```',
        _measures(about),
        "\n\n".join(f"![{_plain(caption)}]({name})" for name, caption in pictures.items()),
        "Made with [nulltta](https://github.com/nulltta/nulltta).",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(model: str, licence: str) -> str:
    from huggingface_hub import ModelCardData

    known: dict[str, Any] = {"library_name": "nulltta", "tags": ["null-text", "diffusers", "text-to-image"]}
    if re.fullmatch(r"[a-z0-9.-]+", licence.lower()):
        known["license"] = licence.lower()
    if hub.is_hub_id(model) and not Path(model).exists():
        known["base_model"] = model
    return f"---\n{ModelCardData(**known).to_yaml()}\n---"


def _measures(about: Mapping[str, Any]) -> str:
    """Return the table of a fit's validation; without one, what is to be said about that."""
    validation = about.get("validation")
    if not isinstance(validation, Mapping):
        return "No measures of pictures sampled with it are recorded in the file."
    lines = [f"## Measures\nOn {validation['prompts']} validation prompts, none of them used to learn it, paired with "
             "plain sampling by prompt and noise; 95% bootstrap intervals over prompts. The state of the fit that was "
             "kept is the one with the largest gain of its reward on these prompts.", "",
             "| measure | plain | with it | gain | 95% interval |", "|---|---|---|---|---|"]  # fmt: skip
    for name, gain in validation["gains"].items():
        lines.append(
            f"| {_code(name)} | {gain['plain']:.4g} | {gain['aligned']:.4g} | {gain['mean']:+.4g} "
            f"| {gain['low']:+.4g} to {gain['high']:+.4g} |"
        )
    return "\n".join(lines)


def _code(text: Any) -> str:
    """Return a text as Markdown code on one line, which nothing in it can end."""
    return f"`{' '.join(str(text).split()).replace('`', chr(39)).replace('|', '/')}`"


def _plain(text: str) -> str:
    """Return a text on one line, without the characters that Markdown reads."""
    return re.sub(r"[\[\]()<>`*_|#!]", " ", " ".join(text.split())).strip()
