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


def draws(seed: int, epoch: int, rank: int, step: int = 0) -> int:
    """The seed of a worker's draws in an epoch, or of what is left of it after `step` steps of another number of workers."""
    return (seed * 1_000_003 + epoch) * 1_009 + rank + 1_000_000_007 * step


@torch.no_grad()
def continued(
    learner: Learner, progress: checkpoint.TrainingProgress, tensors: dict[str, Tensor], seed: int, rank: int, size: int
) -> EpochSums:
    """The epoch of worker `rank` of `size` after `progress.step` steps, from what `worker_state` found on each.

    Another number of workers shares their sums equally, takes the statistics of the first one, as at the end of an epoch, and
    draws anew; so does a worker on a GPU after one on a CPU.
    """
    own = _own(progress, tensors, rank, size)
    sums = EpochSums(learner.device, float(own["seconds"]))
    sums.loss += own["loss"].to(learner.device)
    sums.cases, sums.steps = int(own["cases"]), progress.step
    for kind, network in _networks(learner):
        saved = checkpoint.part_of(own, f"{kind}.")
        for name, buffer in network.named_buffers():
            buffer.copy_(saved[name])
    on_gpu = learner.device.type == "cuda"
    if size != progress.workers or (on_gpu and "rng_device" not in own):
        torch.manual_seed(draws(seed, progress.epoch, rank, progress.step))
        return sums
    torch.set_rng_state(own["rng"])
    if on_gpu:
        torch.cuda.set_rng_state(own["rng_device"], learner.device)
    return sums


def _own(progress: checkpoint.TrainingProgress, tensors: dict[str, Tensor], rank: int, size: int) -> dict[str, Tensor]:
    if size == progress.workers:
        return checkpoint.worker_tensors(tensors, rank)
    before = [checkpoint.worker_tensors(tensors, each) for each in range(progress.workers)]
    cases = sum(int(one["cases"]) for one in before)
    ours = cases // size + (rank < cases % size)
    loss = torch.stack([one["loss"] for one in before]).sum() * (ours / max(cases, 1))
    return before[0] | {"cases": torch.tensor(ours), "loss": loss}


def _networks(learner: Learner) -> list[tuple[str, nn.Module]]:
    return [("raw", learner.raw), *([] if learner.average is None else [("average", learner.average)])]
