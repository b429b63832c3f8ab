"""ComfyUI nodes for null texts of nulltta: in ComfyUI's schema V3 where it has that, else in the classic one."""

from __future__ import annotations

from typing import Any

from .nodes import NODES
from .schemas import classic, v3

WEB_DIRECTORY = "./web"

try:
    from comfy_api.latest import ComfyExtension, io
except ImportError:  # a ComfyUI before the schema V3
    NODE_CLASS_MAPPINGS = {node.name: classic(node) for node in NODES}
    NODE_DISPLAY_NAME_MAPPINGS = {node.name: node.title for node in NODES}
else:
    from .align import ALIGN

    class NullTexts(ComfyExtension):  # type: ignore[misc]  # ComfyUI has no types
        """The nodes, as ComfyUI asks for them."""

        async def get_node_list(self) -> list[type]:
            """Return the nodes."""
            return [v3(node, io) for node in (*NODES, ALIGN)]

    async def comfy_entrypoint() -> Any:
        """Return the extension."""
        return NullTexts()
