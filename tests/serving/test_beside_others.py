"""Ray Serve with another application: ours comes and goes beside it. In a process and a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from s3server import free_port

PROGRAM = """
import json, sys
import httpx
from ray import serve
from boneage_ray.errors import UsageError
from boneage_ray.runtime import cluster
from boneage_ray.serving.running import is_running, serve_at, start

PORT, FREE = map(int, sys.argv[1:])
found = []


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Word:
    def __init__(self, word):
        self.word = word

    async def __call__(self):
        return self.word


def told(place):
    answer = httpx.get(f"http://127.0.0.1:{PORT}{place}", timeout=120)
    found.append((place, answer.status_code, answer.text if answer.is_success else ""))


cluster.connect(num_cpus=2)
with serve_at("127.0.0.1", PORT):  # started here, and ended here although another application came meanwhile
    start(Word.bind("ours"))
    serve.run(Word.bind("theirs"), name="other", route_prefix="/other")
    told("/")
    told("/other")
told("/other")
told("/gone")
with serve_at("127.0.0.1", PORT):  # joined
    start(Word.bind("again"))
    told("/")
told("/other")
try:
    with serve_at("127.0.0.1", FREE):
        pass
except UsageError as error:
    found.append(str(error))
serve.delete("other")
with serve_at("127.0.0.1", PORT):
    pass
found.append(is_running())  # it was not ours to end
print(json.dumps(found))
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("serve-beside-others")
def test_the_end_of_ours_leaves_others_and_their_serve_alone():
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(port), str(free_port())],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *seen, elsewhere, still_there = json.loads(done.stdout.splitlines()[-1])
    assert [tuple(answer) for answer in seen] == [
        ("/", 200, "ours"),
        ("/other", 200, "theirs"),
        ("/other", 200, "theirs"),
        ("/gone", 404, ""),
        ("/", 200, "again"),
        ("/other", 200, "theirs"),
    ]
    assert f"give --host 127.0.0.1 --port {port} without TLS" in elsewhere
    assert still_there is True
