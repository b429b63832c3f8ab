"""Reading the weights of an ONNX file: the few fields of its protocol buffers that hold them, without a dependency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nulltta.errors import LoadError

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT = 1
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_FLOAT = 1


def read_onnx(path: Path) -> list[Tensor]:
    """Read the float32 tensors of an ONNX file, in the order in which its graph uses them.

    The names of tensors depend on the program that exported the file; their order is that of the computation.

    Raises:
        LoadError: if the file is truncated or of another format, or if it stores tensors outside its raw data.
    """
    try:
        (graph,) = (value for field, value in _fields(path.read_bytes()) if field == _MODEL_GRAPH)
        parts = list(_fields(_bytes(graph)))
        stored = dict(_tensor(_bytes(value)) for field, value in parts if field == _GRAPH_INITIALIZER)
        used = [
            _bytes(name).decode()
            for field, node in parts
            if field == _GRAPH_NODE
            for inner, name in _fields(_bytes(node))
            if inner == _NODE_INPUT
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LoadError(f"'{path}' is not an ONNX file, or is truncated") from error
    return [tensor for name in dict.fromkeys(used) if (tensor := stored.get(name)) is not None]


def _tensor(message: bytes) -> tuple[str, Tensor | None]:
    """Read a TensorProto as its name and its values; None for a tensor of another type than float32."""
    fields = list(_fields(message))
    found = dict(fields)
    shape = [value for field, value in fields if field == _TENSOR_DIMS]
    name = _bytes(found[_TENSOR_NAME]).decode()
    if found[_TENSOR_TYPE] != _FLOAT:
        return name, None
    values = np.frombuffer(_bytes(found[_TENSOR_RAW]), "<f4").reshape(shape)  # type: ignore[arg-type]
    return name, torch.from_numpy(values.copy())


def _bytes(value: int | bytes) -> bytes:
    """Return a field that must hold bytes."""
    if isinstance(value, int):
        raise TypeError("a number, not bytes")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protocol buffer's fields: a number for a varint, otherwise bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}[kind]
        if position + length > len(message):
            raise ValueError("truncated")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Read a number of seven bits per byte, the lowest first, and return it with the position after it."""
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, position
