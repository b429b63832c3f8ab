"""Building the page and serving it, by default to this machine only."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from nulltta.embedded.worlds import draws_emoji
from nulltta.errors import InvalidValue
from nulltta.runs.network import is_loopback
from nulltta.ui import events, form_events, page
from nulltta.ui.ending import end_on_signals
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import RunLibrary
from nulltta.ui.run import warm_up
from nulltta.ui.security import Guarded
from nulltta.ui.templates import asset
from nulltta.ui.theme import theme
from nulltta.ui.wiring import PageWiring

LARGEST_UPLOAD = "512mb"
"""Null texts of the largest models, with their noise, are smaller."""
PHONE = "@media (max-width: 700px) { .gradio-container .app { padding: 8px !important; } }"
"""A rule for what surrounds the page, which Gradio would restrict to what is inside."""
USER = "nulltta"
"""The user name that goes with the password."""


@dataclass(frozen=True, kw_only=True)
class PageAccess:
    """Who may reach the page, and how.

    Attributes:
        host: the address to listen on.
        port: the port to listen on.
        password: asked for along with the user name `USER`; None for a page without a login.
        allowed_hosts: further names under which the page may be reached; "*" for any name.
        frame_ancestors: which pages may embed this one, as in a content security policy.
        open_browser: whether to open the page in a browser of this machine.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    allowed_hosts: Sequence[str] = ()
    frame_ancestors: str = "'none'"
    open_browser: bool = False

    def names(self) -> tuple[str, ...]:
        """Return the names under which the page may be reached, beside those of this machine."""
        own = () if is_loopback(self.host) else ("*",)  # the password protects it, under whatever name it is reached
        return (*own, self.host, *self.allowed_hosts)


def serve(engine: PageEngine, access: PageAccess) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then delete the files of all runs.

    Args:
        engine: the models and rewards.
        access: where the page is served.

    Raises:
        InvalidValue: if the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="nulltta-ui-") as folder:
        end_on_signals(Path(folder))
        made = launch(engine, Path(folder), access)
        print(f"open {made.local_url} in a browser; Ctrl-C stops the server", flush=True)
        made.block_thread()


def launch(engine: PageEngine, folder: Path, access: PageAccess) -> gr.Blocks:
    """Serve the page in a thread and return it.

    Args:
        engine: the models and rewards.
        folder: where the runs and Gradio keep their files.
        access: where the page is served.

    Raises:
        InvalidValue: if the port is taken.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
    made = build(engine, folder)
    guard = Middleware(Guarded, hosts=access.names(), frame_ancestors=access.frame_ancestors)
    try:
        made.launch(
            server_name=access.host, server_port=access.port, quiet=True, prevent_thread_lock=True, share=False,
            inbrowser=access.open_browser,
            ssr_mode=False, auth=None if access.password is None else (USER, access.password),
            auth_message=f"The user name is {USER}.", max_file_size=LARGEST_UPLOAD, footer_links=[], run_history=False,
            enable_monitoring=False, theme=theme(), css=asset("page.css"),
            head=f"<style>{PHONE}</style><script>{asset('page.js')}</script>",
            app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None},
        )  # fmt: skip
    except OSError as error:
        raise InvalidValue(
            f"cannot listen on {access.host}, port {access.port}: another program may use it, so give another port"
        ) from error
    return made


def build(engine: PageEngine, folder: Path) -> gr.Blocks:
    """Return the page; folder: where runs keep their files."""
    if draws_emoji(engine.models[0]):
        warm_up(engine)
    with gr.Blocks(title="nulltta", analytics_enabled=False, delete_cache=(3600, 86400)) as made:
        gr.HTML("<h1>nulltta</h1><p>Better pictures by your own measure of better.</p>", elem_id="title")
        secret = secrets.token_hex(8)
        browser = gr.BrowserState(None, storage_key="nulltta-browser", secret=secret)
        # A gr.State would be kept by the server, for which Gradio holds a connection of every tab open.
        shown = gr.BrowserState(None, storage_key="nulltta-shown", secret=secret)
        form = gr.BrowserState(None, storage_key="nulltta-form", secret=secret)
        with gr.Tabs() as tabs:
            with gr.Tab("Align", id="align"), gr.Row(elem_id="columns"):
                with gr.Column(scale=2, min_width=320, elem_id="ask"):
                    ask = page.request_panel(engine)
                with gr.Column(scale=4, min_width=320, elem_id="answers"):
                    outcome = page.result_panel(engine)
            with gr.Tab("Replay", id="replay"):
                replay = page.replay_panel(engine)
        wiring = PageWiring(engine, RunLibrary(folder), ask, outcome, browser, shown, form)
        events.wire_run(wiring)
        form_events.wire_form(wiring)
        form_events.wire_history(wiring, made.load)
        events.wire_replay(wiring, replay, tabs)
    return made
