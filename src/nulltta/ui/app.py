"""Building the page and serving it, by default to this machine only."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from nulltta.errors import InvalidValue
from nulltta.ui import events, history, page
from nulltta.ui.engine import PageEngine
from nulltta.ui.security_headers import SecurityHeaders
from nulltta.ui.theme import CSS, theme

LARGEST_UPLOAD = "1gb"
USER = "nulltta"
"""The user name that goes with the password."""


def serve(engine: PageEngine, *, host: str, port: int, password: str | None) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then delete the files of all runs.

    Args:
        engine: the models and rewards.
        host: the address to listen on.
        port: the port to listen on.
        password: asked for along with the user name `USER`; None for a page without a login.

    Raises:
        InvalidValue: if the port is taken.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="nulltta-ui-") as folder:
        made = launch(engine, Path(folder), host, port, password)
        print(f"open {made.local_url} in a browser; Ctrl-C stops the server", flush=True)
        made.block_thread()


def launch(engine: PageEngine, folder: Path, host: str, port: int, password: str | None = None) -> gr.Blocks:
    """Serve the page in a thread and return it.

    Args:
        engine: the models and rewards.
        folder: where the runs and Gradio keep their files.
        host: the address to listen on.
        port: the port to listen on.
        password: None for a page without a login.

    Raises:
        InvalidValue: if the port is taken.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder), "HF_HUB_DISABLE_TELEMETRY": "1"}
    made = build(engine, folder)
    try:
        made.launch(
            server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, share=False, ssr_mode=False,
            auth=None if password is None else (USER, password), max_file_size=LARGEST_UPLOAD, footer_links=[],
            run_history=False, enable_monitoring=False, theme=theme(), css=CSS,
            app_kwargs={"middleware": [Middleware(SecurityHeaders)], "docs_url": None, "redoc_url": None},
        )  # fmt: skip
    except OSError as error:
        raise InvalidValue(
            f"cannot listen on {host}, port {port}: another program may use it, so give another port"
        ) from error
    return made


def build(engine: PageEngine, folder: Path) -> gr.Blocks:
    """Return the page; folder: where runs keep their files."""
    with gr.Blocks(title="nulltta", analytics_enabled=False, delete_cache=(3600, 86400)) as made:
        gr.HTML("<h1>nulltta</h1><p>Better pictures by your own measure of better.</p>", elem_id="title")
        runs = gr.State([], delete_callback=history.forget)
        with gr.Tab("Align"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                ask = page.request_panel(engine.models, engine.reward)
            with gr.Column(scale=3, min_width=300, elem_id="answers"):
                outcome = page.result_panel()
        with gr.Tab("Replay"):
            replay = page.replay_panel(engine.models)
        stops = events.wire_run(engine, folder, ask, outcome, runs)
        events.wire_reward(ask)
        events.wire_model(ask)
        events.wire_results(outcome, runs)
        events.wire_replay(engine, replay)
        made.unload(stops.close)
    return made
