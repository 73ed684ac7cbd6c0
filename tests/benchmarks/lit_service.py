"""The built-in hand model behind LitServe: `python tests/benchmarks/lit_service.py PORT` (`pip install litserve`; no dependency).

What `serving.py --compare litserve` measures against: the same decoding and the same predictor, one in each of as many processes
as there are cores. LitServe takes no plain bytes as a body: files come as base64 in JSON.
"""

from __future__ import annotations

import base64
import sys

import litserve
from plain_service import CORES, Model


class Hands(litserve.LitAPI):
    """Base64 of a file to its row."""

    def setup(self, device):
        self.model = Model()

    def decode_request(self, request):
        return base64.b64decode(request["image"])

    def predict(self, data):
        return self.model(data)

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Hands(api_path="/v1/predict"),
        accelerator="cpu",
        workers_per_device=CORES,
        healthcheck_path="/readyz",
        timeout=False,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
