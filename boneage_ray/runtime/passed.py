"""Variables that `boneage submit` passes on to a job, kept out of what Ray logs.

Ray writes `env_vars` of a runtime environment, values and all, into a log on every node. So their values travel as a small
package of its own, `boneage_passed/values.json`, which Ray puts onto the path of every process of the job. The driver reads it
when the command starts, and each worker by Ray's `worker_process_setup_hook`, which is `HOOK`.
"""

from __future__ import annotations

import json
import os
import secrets
from importlib import resources
from pathlib import Path

PACKAGE, VALUES, HOOK = "boneage_passed", "values.json", "boneage_ray.runtime.passed.take_passed"
MARK = "BONEAGE_PASSED"  # set for a job to which something was passed: the names


def write_passed(folder: Path, values: dict[str, str]) -> Path:
    """Write the package below a folder and return it. Ray names it by a hash of its content, which a salt makes unguessable."""
    package = folder / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text('"""Variables of one job."""\n')
    (package / VALUES).write_text(json.dumps({"salt": secrets.token_hex(16), "values": values}))
    return package


def take_passed() -> None:
    """Put the passed variables into this process's environment, if the job has any."""
    if not os.environ.get(MARK):
        return
    found = json.loads((resources.files(PACKAGE) / VALUES).read_text("utf-8"))
    os.environ.update(found["values"])
