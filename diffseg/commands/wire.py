"""Values of a process that is not trusted, as text: plain data and nothing that could run when it is read.

Not pickle, which runs what it reads; not JSON alone, which has no arrays.
"""

import base64
import json
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LARGEST = 2**63  # whole numbers from here on are none that a check could expect
_DTYPES = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
_SHORT = 80  # signs of a text or a type's name that are handed on
_DEPTH = 20  # lists in lists


class Foreign:
    """Stands for a value that cannot be sent; only the name of its type and the beginning of its text are known."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def pack(value: Any, depth: int = _DEPTH) -> Any:
    """A value as what JSON can hold. What is no number, text, list, tuple, array or tensor is named and left out."""
    if value is None or isinstance(value, (bool, str)):
        return value[:_SHORT] if isinstance(value, str) else value
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() and value.dtype == torch.bfloat16 else value
        return _pack_array("tensor", value.contiguous().numpy())
    if isinstance(value, np.ndarray):
        return _pack_array("array", value)
    if isinstance(value, np.generic):
        return pack(value.item(), depth)
    if isinstance(value, int) and abs(value) < _LARGEST:
        return int(value)
    if isinstance(value, Number) and not isinstance(value, (int, complex)):
        return {"kind": "float", "value": float(value).hex()}
    if isinstance(value, (list, tuple)) and depth:
        return {"kind": type(value).__name__, "entries": [pack(each, depth - 1) for each in value]}
    return {"kind": "other", "type": type(value).__name__[:_SHORT], "text": repr(value)[:_SHORT]}


def unpack(packed: Any) -> Any:
    """The value of something packed.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: for what `pack` never makes.
    """
    if packed is None or isinstance(packed, bool):
        return packed
    if isinstance(packed, int) and abs(packed) < _LARGEST:
        return packed
    if isinstance(packed, str):
        return packed[:_SHORT]
    if not isinstance(packed, Mapping):
        raise TypeError(f"a {type(packed).__name__} is nothing that was packed")
    kind = packed["kind"]
    if kind in ("tensor", "array"):
        return _unpack_array(kind, packed)
    if kind == "float":
        return float.fromhex(packed["value"])
    if kind == "other":
        # A class of its own, since messages name the class of a result.
        return type(str(packed["type"])[:_SHORT].replace("\0", ""), (Foreign,), {})(str(packed["text"])[:_SHORT])
    entries = [unpack(each) for each in packed["entries"]]
    return tuple(entries) if kind == "tuple" else entries


def read(line: bytes) -> dict[str, Any]:
    """One message of the process; {} for what is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _pack_array(kind: str, values: np.ndarray) -> dict[str, Any]:
    if values.dtype.name not in _DTYPES:
        return {"kind": "other", "type": f"{kind} of {values.dtype.name}"[:_SHORT], "text": ""}
    little = values.astype(values.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"kind": kind, "dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def _unpack_array(kind: str, packed: Mapping[str, Any]) -> np.ndarray | Tensor:
    if packed["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {packed['dtype']!r}")
    data = base64.b64decode(packed["data"], validate=True)
    shape = tuple(map(int, packed["shape"]))
    if len(shape) > _DEPTH or any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    # frombuffer takes no more memory than was sent, whatever the shape claims.
    flat = (
        np.frombuffer(data, dtype=np.dtype(packed["dtype"]).newbyteorder("<")) if data else np.empty(0, packed["dtype"])
    )
    values = flat.reshape(shape).astype(packed["dtype"])
    if kind == "array":
        return values
    return torch.from_numpy(values.astype(np.int64) if values.dtype.name in ("uint16", "uint32", "uint64") else values)
