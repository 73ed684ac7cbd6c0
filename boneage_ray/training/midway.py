"""An epoch that is continued in its middle: what each worker had summed up, drawn and averaged by then."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boneage_ray.training import checkpoint
from boneage_ray.training.step import EpochSums, Learner


def worker_state(learner: Learner, sums: EpochSums) -> dict[str, Tensor]:
    """What differs between workers in mid-epoch: sums, random states, and the kept statistics of batch normalisation."""
    sums.losses.finish()  # raises for one that is not finite, which no checkpoint holds
    found = {"loss": sums.loss.cpu(), "cases": torch.tensor(sums.cases), "rng": torch.get_rng_state()}
    found["seconds"] = torch.tensor(sums.seconds)
    if learner.device.type == "cuda":
        found["rng_device"] = torch.cuda.get_rng_state(learner.device)
    for kind, network in _networks(learner):
        found |= {f"{kind}.{name}": buffer.detach().cpu().clone() for name, buffer in network.named_buffers()}
    return found


@torch.no_grad()
def continued(learner: Learner, steps: int, own: dict[str, Tensor]) -> EpochSums:
    """The epoch of a worker after so many steps, with the state that `worker_state` found."""
    sums = EpochSums(learner.device, float(own["seconds"]))
    sums.loss += own["loss"].to(learner.device)
    sums.cases, sums.steps = int(own["cases"]), steps
    for kind, network in _networks(learner):
        saved = checkpoint.part_of(own, f"{kind}.")
        for name, buffer in network.named_buffers():
            buffer.copy_(saved[name])
    torch.set_rng_state(own["rng"])
    if learner.device.type == "cuda":
        torch.cuda.set_rng_state(own["rng_device"], learner.device)
    return sums


def _networks(learner: Learner) -> list[tuple[str, nn.Module]]:
    return [("raw", learner.raw), *([] if learner.average is None else [("average", learner.average)])]
