"""The description of the routes at /openapi.json: what they answer with, and what they require."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from nulltta import __version__
from nulltta.server.middleware import PUBLIC_PATHS
from nulltta.server.settings import ServerSettings

EDIT_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object", "required": ["prompt", "image"],
                    "properties": {
                        "prompt": {"type": "string"}, "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                        "nulltta": {"type": "string", "description": "the options of this package, as JSON"},
                    },
                    "description": "the fields of a generation, and files",
                }
            }
        },
    }
}  # fmt: skip
"""The body of `POST /v1/images/edits`, as `openapi_extra` takes it."""
_EVENT = {
    "type": "object", "required": ["event", "data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "description": "one event of the stream",
}  # fmt: skip
IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the images; events where `stream` is true",
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["created", "data"]}},
            "text/event-stream": {"schema": _EVENT},
        },
    }
}
"""What the routes that sample images answer with, as `responses` takes it."""
_ERROR = {
    "type": "object", "required": ["error"],
    "properties": {
        "error": {
            "type": "object", "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"}, "type": {"type": "string"},
                "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
            },
        }
    },
}  # fmt: skip


def describe(app: FastAPI, settings: ServerSettings) -> None:
    """Have an application describe its errors in OpenAI's form, and its keys."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, settings)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's guide does


def _described(app: FastAPI, settings: ServerSettings) -> dict[str, Any]:
    schema = get_openapi(title="nulltta", version=__version__, routes=app.routes)
    components = schema.setdefault("components", {})
    components["schemas"] = {
        name: found for name, found in components.get("schemas", {}).items()
        if name not in ("HTTPValidationError", "ValidationError")
    } | {"Error": _ERROR}  # fmt: skip
    if settings.keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "an error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }  # fmt: skip
            if settings.keys and not path.startswith(PUBLIC_PATHS):
                operation["security"] = [{"key": []}]
    return schema
