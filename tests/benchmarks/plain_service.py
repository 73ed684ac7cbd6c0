"""The built-in hand model behind plain FastAPI and uvicorn: `python tests/benchmarks/plain_service.py PORT`.

What `serving.py --compare` measures against: the same decoding and the same predictor, one in each of as many threads as
there are cores, but no isolation, no limits, no batches, no problems, no metrics.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import torch
from fastapi import FastAPI, Request

from boneage_ray import builtin, bundle
from boneage_ray.archives.archive import Input
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction.predictor import Predictor
from boneage_ray.prediction.rows import load_input, score_rows
from boneage_ray.preparation.prepare import prepare_image

CORES = os.cpu_count() or 1


class Model:
    """Bytes of a file to its row, in one thread."""

    def __init__(self):
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.bundle = bundle.load(builtin.place_of("hand"))
        self.predictor, self.add = Predictor(self.bundle, "cpu"), findings_of(self.bundle.recipe).adder()

    def __call__(self, data):
        image = self.bundle.recipe.image
        case = load_input(Input("a", "a", sex="F"), data, lambda data: prepare_image(data, image))
        (row,) = score_rows([case], self.predictor, self.add)
        return {"age_months": row["age_months"], "reason": row["reason"]}


def serve(port):
    """One process, a thread and a predictor a core."""
    import asyncio

    import uvicorn

    app, own = FastAPI(), threading.local()
    threads = ThreadPoolExecutor(CORES, initializer=lambda: setattr(own, "model", Model()))

    @app.post("/v1/predict")
    async def predict(request: Request):
        data = await request.body()
        return await asyncio.get_running_loop().run_in_executor(threads, lambda: own.model(data))

    @app.get("/readyz")
    async def ready():
        return {}

    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
