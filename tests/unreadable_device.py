"""A pretended GPU whose values cannot be read: what would make the host wait for a device raises, without having one."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda", 0)


def on_device(module, mode):
    """A module moved to `DEVICE`."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    mode.building = True
    try:
        return module.to(DEVICE)
    finally:
        mode.building = False
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class HostWaitsError(Exception):
    """The host would wait until the device has done all that it was given."""


class UnreadableDevice(FakeTensorMode):
    """Within, tensors on `DEVICE` have shapes only, while those on the host are real.

    Reading a value, or a shape that depends on values, raises; so does a copy to the device from memory that is not pinned, or
    that does not say `non_blocking`: such a copy waits for everything before it (CUDA, cudaMemcpy). `launches` counts what was
    given to the device. While `building`, copies may wait.
    """

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.launches, self.building = 0, False
        self._given = False

    def dispatch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        fake = any(isinstance(tensor, FakeTensor) for tensor in tensors)
        onto = torch.device(kwargs.get("device") or "cpu").type == DEVICE.type
        if not (fake or onto or self._given):
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        if (
            func is torch.ops.aten._to_copy.default
            and onto
            and not (fake or self.building)
            and not kwargs.get("non_blocking")
        ):
            raise HostWaitsError(f"a copy to the device that waits: {tuple(args[0].shape)}")
        before, self._given = self._given, True  # what an operation on the device is made of belongs there too
        self.launches += not before
        try:
            return super().dispatch(func, types, args, kwargs)
        finally:
            self._given = before
