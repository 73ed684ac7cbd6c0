"""The application on a running Ray Serve: started beside whatever is served there, updated in place, ended alone."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from boneage_ray.errors import BoneageError, UsageError, last_line
from boneage_ray.runtime import autoscaler
from boneage_ray.runtime.runs import say
from boneage_ray.serving.app import APP, Built, deployed
from boneage_ray.serving.placement import ModelPlace, inspect_models
from boneage_ray.serving.tls import TlsFiles

DEPLOY_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 30.0
_POLL_S = 0.2


@contextmanager
def serve_at(host: str, port: int, tls: TlsFiles | None = None) -> Iterator[None]:
    """Ray Serve listens at this address; at the end the application is gone, and Serve too if this started it for nobody else.

    Raises `UsageError` where Serve runs already at another address, or with this application.
    """
    joined = is_running()
    if joined:
        _check_joined(host, port, tls)
    try:
        if not joined:
            secure = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.key} if tls else {}
            serve.start(proxy_location=ProxyLocation.HeadOnly, http_options=HTTPOptions(host=host, port=port, **secure))
        yield
    finally:
        stop(keep_serve=joined)


def is_running() -> bool:
    """Whether some Ray Serve runs on the connected cluster already."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def _check_joined(host: str, port: int, tls: TlsFiles | None) -> None:
    """Raise `UsageError` unless the running Serve listens as asked, and serves no application of ours yet."""
    if APP in serve.status().applications:
        raise UsageError(
            f"application {APP} is served on this cluster already: `boneage serve --update --model MODEL` changes its models; "
            "it ends where it was started, or by `serve shutdown`"
        )
    found = _get_global_client().http_config
    certificate = tls.certificate if tls else None
    if (found.host, found.port, found.ssl_certfile) != (host, port, certificate):
        how = f"--host {found.host} --port {found.port}" + (
            " and its TLS files" if found.ssl_certfile else " without TLS"
        )
        raise UsageError(f"Ray Serve runs on this cluster already and listens elsewhere: give {how}")


def start(application: serve.Application, stopped: Callable[[], bool] = lambda: False) -> None:
    """Deploy and return once every model has predicted. Raises `UsageError` when there is no room or the place is taken.

    `stopped` is asked all the time; once it says so, the wait ends early.
    """
    try:
        serve.run_many(
            [serve.RunTarget(application, name=APP, route_prefix="/")],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
    except (RayServeException, RayError) as error:  # such as of another application that has this route
        raise UsageError(f"Ray Serve does not take the application: {last_line(str(error))}") from error
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    while not stopped():
        state = serve.status().applications[APP]
        if state.status == ApplicationStatus.RUNNING:
            return
        if state.status == ApplicationStatus.DEPLOY_FAILED:
            raise BoneageError(f"the service did not start: {last_line(_said(state))}")
        if time.monotonic() > deadline:
            raise UsageError(f"the service did not start within {DEPLOY_TIMEOUT_S:g} s: {_said(state)}")
        time.sleep(_POLL_S)


def _said(state: ApplicationStatusOverview) -> str:
    """What Serve says of the first deployment that has a message."""
    return str(next((d.message for d in state.deployments.values() if d.message), state.message))


def stop(keep_serve: bool = False) -> None:
    """End the application, and all of Serve unless it is to be kept or serves others."""
    # Ray reports on stdout that it killed its own controller; stdout is for answers.
    with redirect_stdout(io.StringIO()):
        if not is_running():
            return
        others = serve.status().applications.keys() - {APP}
        if keep_serve or others:
            serve.delete(APP)
        else:
            serve.shutdown()


def running() -> Built:
    """What the running application was built from. Raises `UsageError` where there is none."""
    if not is_running() or APP not in serve.status().applications:
        raise UsageError(
            f"no application {APP} is served on this cluster: start it without --update, or join its cluster (RAY_ADDRESS)"
        )
    try:
        built: Built = serve.get_app_handle(APP).built.remote().result(timeout_s=ANSWER_TIMEOUT_S)
    except (RayServeException, RayError, TimeoutError) as error:
        raise BoneageError(
            f"the running service does not answer: {last_line(str(error)) or type(error).__name__}"
        ) from error
    if built.by_file:
        raise UsageError("the service was started by `serve deploy`: change `models` in its file and deploy that again")
    return built


def update(models: list[str], stopped: Callable[[], bool] = lambda: False) -> list[ModelPlace]:
    """Change the models of the running application, and nothing else of it; returns what it serves then.

    New replicas start beside the old ones, which answer until those are ready. Where they do not get ready, or `stopped` says so,
    the old models are deployed again. Raises `UsageError` where there is no room for them, before anything is changed.
    """
    before = running()
    arguments = before.arguments.model_copy(update={"models": models})
    after = replace(before, arguments=arguments, places=inspect_models(models, arguments.coverage))
    _check_room(after)
    try:
        start(deployed(after), stopped)
        if not stopped():
            return after.places
        raise KeyboardInterrupt
    except BaseException:
        say("the update did not succeed: going back to the models before")
        start(deployed(before))
        raise


def _check_room(built: Built) -> None:
    """One new replica at least has to fit beside the old ones. Raises `UsageError`; a cluster that grows is left to grow."""
    if autoscaler.is_there():
        return
    free = ray.available_resources()
    placement = built.placement
    for name, needed in (("CPU", max(placement.cpus, placement.ingress_cpus)), ("GPU", placement.gpus)):
        if needed > free.get(name, 0.0) + 1e-6:
            raise UsageError(
                f"an update starts each new replica before it ends the old one, which needs {needed:g} {name} more; the cluster "
                f"has {free.get(name, 0.0):g} free: end other work on it, add a node, or stop the service and start it anew"
            )
