"""Telling models apart by what can change a number: the weights, the configuration and the vocabulary of every part."""

import inspect
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

LENGTH = 12  # hexadecimal digits of a fingerprint: 48 bits

#: What a configuration says of the program that wrote it, and not of the model.
_OF_THE_WRITER = {"architectures", "dtype", "torch_dtype", "transformers_version"}

_digests: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def fingerprint(model: Any) -> str:
    """A short name for a model's behaviour: equal for equal models, and in practice never for different ones.

        fingerprint(DiffSegPipeline.from_pretrained("pocket"))    # "1f0c5a93d2be", for example

    It covers the weights (as float32, so that the precision they are held in counts, and that of the file does not),
    the settings that differ from the defaults of their class, and the vocabularies. It covers neither the folder, nor
    the device, nor the threshold: who writes it down writes the threshold beside it. The weights of a part are read
    once; changes of them that PyTorch notices (not those made through `.data`) are noticed later, too.

    Args:
        model: a `DiffSegPipeline` or another pipeline of diffusers; a `DinoSegPipeline` or a `Captioner`; a module.

    Raises:
        TypeError: for anything else.
    """
    parts = _parts(model)
    if not any(isinstance(part, nn.Module) for part in parts.values()):
        raise TypeError(f"model has the type {type(model).__name__}; pass a loaded pipeline, captioner or module.")
    lines = [f"{name} {_describe(part)}" for name, part in sorted(parts.items()) if part is not None]
    return sha256("\n".join(lines).encode()).hexdigest()[:LENGTH]


def _parts(model: Any) -> Mapping[str, Any]:
    """The parts of a model by name."""
    if isinstance(model, nn.Module):
        return {"model": model}
    if isinstance(components := getattr(model, "components", None), Mapping):
        return components
    return {name: getattr(model, name, None) for name in ("model", "processor")}


def _describe(part: Any) -> str:
    """A module, a scheduler, a tokenizer or a processor, as text."""
    inner = {name: getattr(part, name) for name in ("image_processor", "tokenizer") if hasattr(part, name)}
    if isinstance(part, nn.Module):
        known: Any = [type(part).__name__, _settings(part), _digest(part)]
    elif inner:
        known = {name: _describe(each) for name, each in inner.items()}
    elif hasattr(part, "get_vocab"):
        known = [_vocabulary(part), part.model_max_length]
    elif isinstance(getattr(part, "config", None), Mapping):
        known = [type(part).__name__, _settings(part)]
    else:
        known = _settings(part)
    return json.dumps(known, sort_keys=True, default=str)


def _settings(part: Any) -> dict[str, Any]:
    """What is configured and differs from the defaults, so that a setting that a later version adds changes nothing."""
    config = getattr(part, "config", None)
    if hasattr(config, "to_diff_dict"):  # a model of transformers
        found, defaults = config.to_diff_dict(), {}
    elif isinstance(config, Mapping):  # a model or a scheduler of diffusers
        found, defaults = config, inspect.signature(type(part).__init__).parameters
        defaults = {name: parameter.default for name, parameter in defaults.items()}
    elif hasattr(part, "to_dict"):  # a processor
        found, defaults = part.to_dict(), {}
        found = {name: value for name, value in found.items() if not name.endswith(("_type", "_class"))}
    else:
        return {}
    absent = object()
    kept = {name: value for name, value in found.items() if _plain(value) != _plain(defaults.get(name, absent))}
    return _plain(kept)


def _plain(value: Any) -> Any:
    """A setting as a file would hold it: tuples as lists, and nothing about the program that wrote it."""
    if isinstance(value, Mapping):
        kept = {name: each for name, each in value.items() if not str(name).startswith("_") and each is not None}
        return {name: _plain(each) for name, each in kept.items() if name not in _OF_THE_WRITER}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _vocabulary(tokenizer: Any) -> str:
    """A digest of the words and of the rules that join them; not of padding and truncation, which calls change."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend is not None else {}
    known = [tokenizer.get_vocab(), model.get("merges")]
    return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _digest(module: nn.Module) -> str:
    """A digest of the weights, in the order of the module's parts: names may change between versions."""
    state = tuple((tensor.data_ptr(), tensor._version, tensor.dtype, tensor.shape) for tensor in _weights(module))
    before, digest = _digests.get(module, (None, ""))
    if state != before:
        hashed = sha256()
        for tensor in _weights(module):
            hashed.update(str(tuple(tensor.shape)).encode())
            hashed.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
        digest = hashed.hexdigest()
        _digests[module] = (state, digest)
    return digest


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers that hold numbers; the others only count positions."""
    return (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
