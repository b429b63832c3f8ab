"""One declaration of a node for both of ComfyUI's schemas: the classic one, and V3 where ComfyUI has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDGETS: Mapping[str, str] = {"INT": "Int", "FLOAT": "Float", "STRING": "String", "BOOLEAN": "Boolean"}
"""What V3 calls the inputs that are written into the node; every other one is connected."""


@dataclass(frozen=True)
class Input:
    """An input.

    Attributes:
        name: the argument of the node's function.
        kind: ComfyUI's type, such as "MODEL" or "INT"; or a function that lists the choices of a menu.
        about: what it is, in one sentence.
        optional: whether it may be left unconnected.
        options: of a widget, "default", "min", "max", "step", "multiline".
    """

    name: str
    kind: str | Callable[[], Sequence[str]]
    about: str
    optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: the identifier that workflows are saved with.
        title: the name that users see.
        about: what it does, in one sentence.
        inputs: its inputs.
        outputs: ComfyUI's type by the output's name.
        run: the function: named inputs -> a tuple of the outputs.
        changed: of the same inputs, a value that differs when the node must run again; None if the inputs say it.
    """

    name: str
    title: str
    about: str
    inputs: Sequence[Input]
    outputs: Mapping[str, str]
    run: Callable[..., tuple[Any, ...]]
    changed: Callable[..., Any] | None = None


CATEGORY = "conditioning/null text"


def classic(node: Node) -> type:
    """Return a node's class in the classic schema."""

    def input_types(cls: type) -> dict[str, Any]:  # noqa: ARG001 - a class method
        found: dict[str, Any] = {"required": {}, "optional": {}}
        for each in node.inputs:
            kind = each.kind if isinstance(each.kind, str) else list(each.kind())
            declared = (kind, {**each.options, "tooltip": each.about})
            found["optional" if each.optional else "required"][each.name] = declared
        return found

    members: dict[str, Any] = {
        "RETURN_TYPES": tuple(node.outputs.values()), "RETURN_NAMES": tuple(node.outputs), "FUNCTION": "run",
        "CATEGORY": CATEGORY, "DESCRIPTION": node.about, "INPUT_TYPES": classmethod(input_types),
        "run": staticmethod(node.run),
    }  # fmt: skip
    if node.changed is not None:
        members["IS_CHANGED"] = staticmethod(node.changed)
    return type(node.name, (), members)


def v3(node: Node, io: Any) -> type:
    """Return a node's class in the schema V3, from ComfyUI's own `comfy_api.latest.io`."""

    def declared(each: Input) -> Any:
        common = {"optional": each.optional, "tooltip": each.about, **each.options}
        if not isinstance(each.kind, str):
            return io.Combo.Input(each.name, options=list(each.kind()), **common)
        kind = getattr(io, WIDGETS[each.kind]) if each.kind in WIDGETS else io.Custom(each.kind)
        return kind.Input(each.name, **common)

    def define_schema(cls: type) -> Any:  # noqa: ARG001 - a class method
        return io.Schema(
            node_id=node.name, display_name=node.title, category=CATEGORY, description=node.about,
            inputs=[declared(each) for each in node.inputs],
            outputs=[io.Custom(kind).Output(display_name=name) for name, kind in node.outputs.items()],
        )  # fmt: skip

    def execute(cls: type, **inputs: Any) -> Any:  # noqa: ARG001 - a class method
        return io.NodeOutput(*node.run(**inputs))

    members: dict[str, Any] = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    if (changed := node.changed) is not None:
        members["fingerprint_inputs"] = classmethod(lambda cls, **inputs: changed(**inputs))  # noqa: ARG005
    return type(node.name, (io.ComfyNode,), members)
