"""The form and the history: what controls do to each other, what the browser keeps, and what brings it back."""

from __future__ import annotations

from typing import Any

import gradio as gr

from nulltta.config import NullTTAConfig
from nulltta.embedded.worlds import draws_emoji
from nulltta.errors import NullTTAError
from nulltta.ui import page, presets, show
from nulltta.ui.form import UPLOADS, form_of_picture
from nulltta.ui.history import places, thumbnails
from nulltta.ui.wiring import IN_BROWSER, LIGHT, PageWiring, Updates, browser_of, chosen, filled, run_shown

DRAW_CHIPS = "() => window.nulltta.drawChips()"
DRAW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"
ALIGN = "() => document.querySelector('#align').click()"


def wire_form(on: PageWiring) -> None:
    """Connect the controls of the form with each other, and keep what they hold in the browser."""
    ask, fields = on.ask, on.ask.fields
    remembered = [component for name, component in fields.items() if name not in UPLOADS]

    def choose(name: str | None, model: str) -> list[Any]:
        config = presets.settings_of(name or presets.USUAL, model)
        return [control.value(config) for control in ask.controls]

    def another(model: str, pictures: Any) -> list[Any]:
        config = NullTTAConfig.preset(model)
        labels = presets.choices(model, on.engine.paces[model], int(pictures or 1))
        return [
            page.chips_of(on.engine, model), gr.HTML(visible=draws_emoji(model)),
            gr.Radio(choices=labels, value=presets.USUAL), *(control.value(config) for control in ask.controls),
        ]  # fmt: skip

    def predict(model: str, pictures: Any) -> gr.Radio:
        return gr.Radio(choices=presets.choices(model, on.engine.paces[model], int(pictures or 1)))

    def of_picture(path: str | None) -> Updates:
        if path is None:
            return {on.outcome.status: gr.skip()}
        try:
            form = form_of_picture(path, ask.controls)
            form = {name: value for name, value in form.items() if name != "model" or value in on.engine.models}
        except NullTTAError as error:
            return {on.outcome.status: show.status(str(error), "error")}
        words = "The settings of this picture are filled in: Align makes it again."
        return {on.outcome.status: show.status(words), **filled(on, form)}

    fields["preset"].input(choose, [fields["preset"], fields["model"]], ask.settings, **LIGHT)
    gr.on([control.input for control in ask.settings], None, js="() => [null]", outputs=fields["preset"], **IN_BROWSER)
    fields["model"].input(
        another, [fields["model"], fields["pictures"]], [ask.chips, ask.starters, fields["preset"], *ask.settings],
        **LIGHT,
    ).then(None, js=DRAW_CHIPS)  # fmt: skip
    fields["pictures"].input(predict, [fields["model"], fields["pictures"]], fields["preset"], **LIGHT)
    fields["reward"].change(None, js=DRAW_CHIPS, **IN_BROWSER)
    ask.dice.click(None, js=DRAW_SEED, outputs=fields["seed"], **IN_BROWSER)
    ask.picture.upload(of_picture, ask.picture, [on.outcome.status, *on.fields], **LIGHT)
    gr.on(
        [component.change for component in remembered], None, js="(...values) => [values]", inputs=remembered,
        outputs=on.form, **IN_BROWSER,
    )  # fmt: skip


def wire_history(on: PageWiring, opened: Any) -> None:
    """Show past runs again: after a reload, and when a thumbnail is clicked.

    Args:
        on: what the handlers refer to.
        opened: the event of the page's opening.
    """
    remembered = [name for name in on.ask.fields if name not in UPLOADS]

    def restore(kept: Any, values: Any) -> Updates:
        browser = browser_of(kept)
        entries = on.library.of_browser(browser)
        updates: Updates = {
            on.browser: browser, on.shown: {"listed": places(entries), "picture": None},
            on.outcome.past: gr.Gallery(thumbnails(entries), visible=bool(entries)),
        }  # fmt: skip
        if isinstance(values, list) and len(values) == len(remembered):
            updates |= filled(on, dict(zip(remembered, values, strict=True)))
        return updates

    def bring(kept: Any, shown: Any, event: gr.SelectData) -> Updates:
        entry, b = run_shown(on, shown, int(event.index))  # another tab may have made runs since
        return chosen(on, browser_of(kept), entry, b) | filled(on, entry.form)

    def choose(kept: Any, shown: Any, event: gr.SelectData) -> Updates:
        entry, _ = run_shown(on, shown)
        return chosen(on, browser_of(kept), entry, int(event.index))

    def reuse(shown: Any) -> Updates:
        return filled(on, run_shown(on, shown)[0].form)

    def vary(shown: Any) -> Updates:
        entry, b = run_shown(on, shown)
        seen = [picture.seed for picture in entry.pictures]
        changes = {"prompts": entry.pictures[b].prompt, "seed": max(seen) + 1, "pictures": 4}
        return filled(on, {**entry.form, **changes})

    out = on.outcome
    restored = [on.browser, on.shown, out.past, *on.fields]
    opened(restore, [on.browser, on.form], restored, **LIGHT).then(None, js=DRAW_CHIPS)
    changed = [*on.answers, out.status, *on.fields]
    out.past.select(bring, [on.browser, on.shown], changed, **LIGHT)
    out.grid.select(choose, [on.browser, on.shown], changed, **LIGHT)
    out.reuse.click(reuse, on.shown, on.fields, **LIGHT)
    out.vary.click(vary, on.shown, on.fields, **LIGHT).then(None, js=ALIGN)
