"""The look of the page: Gradio's default theme in the fonts of the visitor's system, and some CSS."""

from __future__ import annotations

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Return a theme that loads nothing from other servers."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", spacing_size="sm", font=FONTS, font_mono=MONOSPACE_FONTS
    )


CSS = """
.gradio-container { width: 100%; max-width: 1320px !important; margin: auto; }
.html-container { padding: 0 !important; }
#live:not(:has(.live)) { display: none; }
.welcome { margin: 0; padding: 48px 24px; border: 1px dashed var(--border-color-primary); border-radius: 6px;
  text-align: center; color: var(--body-text-color-subdued); }
#title h1 { margin: 0; font-size: 1.35rem; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
.settings .container { display: flex; flex-direction: column; height: 100%; }
.settings .container > :last-child { margin-top: auto; }
.status p { margin: 0; overflow-wrap: anywhere; }
.status.error p { color: #b42318; font-weight: 600; }
.dark .status.error p { color: #ff8b7d; }
.status progress { appearance: none; display: block; width: 100%; height: 6px; margin-top: 6px; border: 0;
  border-radius: 3px; overflow: hidden; background: var(--border-color-primary); }
.status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--color-accent); }
.status progress::-moz-progress-bar { background: var(--color-accent); }
.live { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 16px; align-items: start; }
.previews { display: flex; flex-wrap: wrap; gap: 6px; }
.previews img { flex: 1 1 96px; min-width: 0; max-width: 340px; margin: 0; border-bottom: 4px solid var(--c);
  border-radius: 4px; }
.previews img:only-child { border-bottom: 0; width: 100%; }
.curve { position: relative; margin: 0; padding-left: 3.4em; font-size: 0.8rem; }
.curve .ends { position: absolute; inset: 0 auto 1.6em 0; width: 3.2em; display: flex; flex-direction: column;
  justify-content: space-between; text-align: right; color: var(--body-text-color-subdued); }
.curve svg { display: block; width: 100%; height: 220px; border-left: 1px solid var(--border-color-primary);
  border-bottom: 1px solid var(--border-color-primary); overflow: visible; }
.curve path { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.curve path.spots { stroke: var(--neutral-400); stroke-width: 4px; stroke-linecap: round; }
.curve path.plain { stroke-width: 1.5px; stroke-dasharray: 5 4; }
.curve figcaption { display: flex; justify-content: space-between; gap: 8px; margin-top: 4px;
  color: var(--body-text-color-subdued); }
.legend { margin: 6px 0 0; padding: 0; list-style: none; font-size: 0.8rem; }
.legend li::before { content: ""; display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em;
  border-radius: 2px; background: var(--c); }
.candidates { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 8px; }
.replays { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 8px; }
:is(.candidates, .replays) figure { margin: 0; text-align: center; font-size: 0.8rem; }
:is(.candidates, .replays) img { width: 100%; margin: 0; border-radius: 4px; }
.said { margin: 0 0 4px; font-size: 0.8rem; color: var(--body-text-color-subdued); }
#history .grid-wrap { min-height: 0; max-height: 300px; }
#history .grid-container { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); grid-template-rows: none;
  grid-auto-rows: auto; }
.gradio-container table.scores { width: 100%; margin: 0; border: 0; border-collapse: collapse; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
.scores caption { padding-bottom: 4px; text-align: left; font-weight: 600; overflow-wrap: anywhere; }
.gradio-container table.scores :is(tr, thead, tbody) { border: 0; }
.gradio-container table.scores :is(th, td) { padding: 3px 5px; border: 0;
  border-bottom: 1px solid var(--border-color-primary); text-align: right; font-weight: 400; }
.gradio-container table.scores th:first-child { padding-left: 0; text-align: left; overflow-wrap: break-word; }
.gradio-container table.scores tr.target th { font-weight: 600; }
.gradio-container table.scores tr.component th:first-child { padding-left: 1em; }
table.scores small { color: var(--body-text-color-subdued); font-weight: 400; }
table.scores .up { color: #1a7f37; }
table.scores .down { color: #b42318; }
.dark table.scores .up { color: #56d364; } .dark table.scores .down { color: #ff8b7d; }
@media (max-width: 640px) {
  #answers:has(.status) { min-height: 100svh; }  /* room to scroll to their top */
  .live { grid-template-columns: minmax(0, 1fr); }
  .replays { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .curve svg { height: 160px; }
  .gradio-container { padding: 8px !important; }
}
"""
