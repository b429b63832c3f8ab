"""The web page: `nulltta ui`. It shows the same stream of steps as every other surface; only `app`, `page`, `events`
and `theme` know Gradio."""
