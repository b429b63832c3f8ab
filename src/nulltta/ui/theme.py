"""The look of the page: Gradio's default theme in the fonts of the visitor's system."""

from __future__ import annotations

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Return a theme that loads nothing from other servers, and whose texts stand out from their background."""
    look = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", spacing_size="sm", font=FONTS, font_mono=MONOSPACE_FONTS
    )
    return look.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700", block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_600", input_placeholder_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_600",
        link_text_color="*primary_700", link_text_color_dark="*primary_300",
    )  # fmt: skip
