"""A CUDA device that is not there: shapes, dtypes and devices of operations are worked out, and nothing is computed.

torch's fake tensors know which operation would fail because its tensors lie on different devices, and which would wait
for the device because its result depends on values. Streams, events and free memory are stand-ins.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda:0")
_NO_LAUNCH = ("prim.device.default", "aten.lift_fresh.default", "aten.empty.memory_format")


class _Event:
    def synchronize(self) -> None: ...


class _Stream:
    def wait_event(self, event: _Event) -> None: ...

    def record_event(self) -> _Event:
        return _Event()


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch, free: int = 80 << 30) -> Iterator[None]:
    stream = _Stream()
    for owner, name, stand_in in (
        (torch.cuda, "Stream", lambda *_: stream),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (torch.cuda, "current_stream", lambda *_: stream),
        (torch.cuda, "mem_get_info", lambda *_: (free, free)),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.Tensor, "record_stream", lambda *_: None),
        (torch.Tensor, "pin_memory", lambda self: self),
    ):
        monkeypatch.setattr(owner, name, stand_in)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def move(module: nn.Module) -> None:
    """Bring a module to the device; without CUDA, `Module.to` cannot."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach().to(DEVICE), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(DEVICE)


class Watch(TorchDispatchMode):
    """Notes what is asked of the device while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        """Operations that write something, by name."""
        self.mixed: list[str] = []
        """Operations on tensors of different devices, other than copies."""
        self.attention: list[tuple[tuple[int, ...], bool]] = []
        """Shape of the queries, and whether there was a mask."""
        self.peak = 0
        """Bytes on the device at once, at most, of what was made meanwhile."""
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        name = str(func)
        if "copy" not in name and len({x.device.type for x in given if x.dim()}) > 1:
            self.mixed.append(name)
        before = {_storage(x) for x in given}
        written = func._schema.is_mutable or any(_storage(x) not in before for x in made)
        if written and name not in _NO_LAUNCH and any(x.device.type == "cuda" for x in made):
            self.launches[name] += 1
        if "scaled_dot_product_attention" in name:
            mask = (kwargs or {}).get("attn_mask", args[3] if len(args) > 3 else None)
            self.attention.append((tuple(given[0].shape), mask is not None))
        for tensor in made:
            self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if tensor.device.type != "cuda" or key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self._held += size
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
