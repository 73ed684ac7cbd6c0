"""Networks computed by ONNX Runtime instead of torch, on the CPU and in float32: `--runtime onnx`.

Only the networks of a model are handed over (`Model.network`); everything around them, as the mirror image, the second look at
the neck or the heads, stays what it is. Each process exports a network once for each size of its images, which takes seconds.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from boneage_ray.errors import UsageError

if TYPE_CHECKING:
    from boneage_ray.models.model import Model

_OPSET = 18


class OnnxRuntime:
    """Computes the networks of one model (`Model.runtime`) with as many threads as torch has when it is made."""

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self.sessions: dict[tuple[str, torch.Size], Any] = {}

    def __call__(self, model: Model, name: str, image_BCHW: Tensor) -> Tensor:
        """What `model.network(name, image_BCHW)` gives, to about 1e-5."""
        key = (name, image_BCHW.shape[1:])
        if key not in self.sessions:
            self.sessions[key] = _session(_exported(model, name, image_BCHW), self.threads)
        session = self.sessions[key]
        (given,) = session.get_inputs()
        (found,) = session.run(None, {given.name: image_BCHW.contiguous().numpy()})
        return torch.from_numpy(found)


class _Network(nn.Module):
    """One network of a model, as a module of its own."""

    def __init__(self, model: Model, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.model.network(self.name, image_BCHW)


def _exported(model: Model, name: str, image_BCHW: Tensor) -> bytes:
    """The network as an ONNX file, for any number of images of this size. Raises `UsageError` where torch cannot translate it."""
    example = torch.zeros(2, *image_BCHW.shape[1:])  # of one image the exporter would make a constant
    sizes = {"image_BCHW": {0: torch.export.Dim("images")}}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own use of torch
        try:
            program = torch.onnx.export(
                _Network(model, name).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=sizes,
                opset_version=_OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            said = str(error).partition("\n")[0]
            raise UsageError(f"--runtime onnx cannot compute this network ({said}): give --runtime torch") from error
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        program.save(file)
        return file.read_bytes()


def _session(file: bytes, threads: int) -> Any:  # noqa: ANN401  onnxruntime has no types
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
