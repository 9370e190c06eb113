"""The one door to the Docker SDK: a connection to an engine, and the few calls we make of it.

Every call raises `EngineAwayError` when the engine does not answer and `EngineRefusedError` when it
says no, so that nothing above has to know the SDK's or its HTTP library's exceptions. Containers and
images are named by text and described by the engine's own JSON. Images are built by the `docker build`
command (`images`), because the SDK cannot speak to BuildKit.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import quote

from rdagent_ft.errors import EngineAwayError, EngineRefusedError, PreflightError
from rdagent_ft.execution.docker_ssh import SshBridge
from rdagent_ft.values import Frozen

CALL_TIMEOUT_S = 60.0
READ_BYTES = 1 << 18
NOT_REGULAR = 0x8F280000
"""The bits of the engine's file modes (those of Go) that say link, folder, device, FIFO or socket."""
LOCAL_HINT = (
    "start a Docker engine or set DOCKER_HOST; `--executor local` runs jobs as plain subprocesses instead"
)


class EngineInfo(Frozen):
    """What an engine says of itself. `n_cpus` and `memory_bytes` are those of its machine."""

    id: str
    version: str
    api_version: str
    n_cpus: int
    memory_bytes: int
    root_dir: str
    is_rootless: bool
    runtimes: tuple[str, ...]


class PathStatus(Frozen):
    """A path inside a container. `changed` is its time of change as the engine writes it (RFC 3339)."""

    is_file: bool
    n_bytes: int
    changed: str


class LogStream(Protocol):
    """An open log: an iterator of pieces, each `TIMESTAMP SPACE BYTES`, that another thread may close."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Engine:
    """A connected engine. `url` is its address; `is_remote` means that it does not see our files."""

    def __init__(self, client: Any, url: str, on_close: Callable[[], None] = lambda: None) -> None:
        self.client = client
        self.url = url
        self._on_close = on_close
        self.is_remote = not url.startswith(("unix://", "http+unix://"))
        self.info = _info(client, url)

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return the container's state as the engine tells it; None when there is no such container."""
        return _or_none(self.url, lambda: self.client.api.inspect_container(name))

    def create(self, name: str, image: str, command: list[str], options: dict[str, Any]) -> bool:
        """Create a container; False when the name is taken. That refusal is the exactly-once guard."""
        from docker.errors import APIError

        with _calling(self.url):
            try:
                self.client.containers.create(image, command, name=name, **options)
            except APIError as error:
                if error.status_code == 409:
                    return False
                raise
        return True

    def start(self, name: str) -> None:
        """Start a created container; one that runs or ran is left as it is."""
        with _calling(self.url):
            self.client.api.start(name)

    def signal(self, name: str, number: str) -> None:
        """Send a signal to the container's first process; a container that has ended is no error."""
        _quietly(self.url, lambda: self.client.api.kill(name, number), {404, 409})

    def remove(self, name: str) -> None:
        """Kill and remove the container with its anonymous volumes; one that is gone is no error."""
        _quietly(self.url, lambda: self.client.api.remove_container(name, v=True, force=True), {404, 409})

    def containers(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Return Names, Labels, State of all containers, running or not, that carry the labels."""
        wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
        with _calling(self.url):
            found: Any = self.client.api.containers(all=True, filters={"label": wanted})
            return list(found)

    def logs(self, name: str, *, since_unix: float | None, follow: bool) -> LogStream:
        """Open the container's log, with timestamps, from about `since_unix` on (a piece may repeat)."""
        with _calling(self.url):
            since: Any = since_unix
            stream: Any = self.client.api.logs(name, stream=True, follow=follow, timestamps=True, since=since)
            return stream

    def image_id(self, image: str) -> str | None:
        """Return the image's id (`sha256:…`); None when the engine has no such image."""
        found = _or_none(self.url, lambda: self.client.api.inspect_image(image))
        return None if found is None else str(found["Id"])

    def make_volume(self, name: str, labels: dict[str, str]) -> None:
        """Create a named volume; one that exists is kept."""
        with _calling(self.url):
            self.client.api.create_volume(name, labels=labels)

    def has_volume(self, name: str) -> bool:
        """Return whether a named volume exists."""
        return _or_none(self.url, lambda: self.client.api.inspect_volume(name)) is not None

    def volumes(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        """Return Name, Labels of the volumes that carry the labels."""
        wanted = [f"{key}={value}" if value else key for key, value in labels.items()]
        with _calling(self.url):
            found: Any = self.client.api.volumes(filters={"label": wanted})
            return list(found.get("Volumes") or [])

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone or in use is no error."""
        _quietly(self.url, lambda: self.client.api.remove_volume(name), {404, 409})

    def put_archive(self, name: str, folder: str, archive: Iterator[bytes] | bytes) -> None:
        """Unpack a tar into a folder of a container, running or not. A refusal may leave a part of it."""
        with _calling(self.url):
            self.client.api.put_archive(name, folder, archive)

    def get_archive(self, name: str, path: str) -> Generator[bytes] | None:
        """Return a path of a container, running or not, as a tar stream; None when it is not there.

        Whoever does not read it to its end must close it: the engine holds the container meanwhile.
        """
        # Not the SDK's own call: its stream cannot be closed.
        with _calling(self.url):
            answer = self._ask_archive("GET", name, path)
            if answer is None:
                return None
        return _stream(self.url, answer)

    def path_status(self, name: str, path: str) -> PathStatus | None:
        """Look at a path of a container, running or not; None when it is not there. Links stay links."""
        with _calling(self.url):
            answer = self._ask_archive("HEAD", name, path)
            if answer is None:
                return None
            found: Any = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
        return PathStatus(
            is_file=not int(found["mode"]) & NOT_REGULAR,
            n_bytes=int(found["size"]),
            changed=str(found["mtime"]),
        )

    def _ask_archive(self, method: str, name: str, path: str) -> Any:
        """Return the HTTP answer about a path of a container; None when it is not there."""
        from docker.errors import NotFound, create_api_error_from_http_exception
        from requests.exceptions import HTTPError

        api = self.client.api
        address = f"{api.base_url}/v{api.api_version}/containers/{quote(name)}/archive"
        answer: Any = api.request(
            method, address, params={"path": path}, stream=method == "GET", timeout=api.timeout,
            headers={"Accept-Encoding": "identity"},
        )  # fmt: skip
        try:
            answer.raise_for_status()
        except HTTPError as error:
            try:
                create_api_error_from_http_exception(error)
            except NotFound:
                return None
        return answer

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self._on_close()


def connect(*, timeout_s: float = CALL_TIMEOUT_S) -> Engine:
    """Connect to the engine of DOCKER_HOST or of the active docker context (unix, tcp or ssh).

    Raises `EngineAwayError` when none answers, naming the address and `--executor local`.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise PreflightError(
            "the package `docker` is missing", hint="pip install docker, or use --executor local"
        ) from None
    url = engine_url()
    if url.startswith("ssh://"):
        return _connect_through_ssh(url, timeout_s)
    try:
        return Engine(docker.from_env(timeout=int(timeout_s)), url)
    except (DockerException, OSError) as error:
        raise EngineAwayError(
            f"no Docker engine answers at {url}: {_brief(error)}", hint=LOCAL_HINT
        ) from None


def _connect_through_ssh(url: str, timeout_s: float) -> Engine:
    """Connect to a local socket that leads to the engine: the SDK's own ssh starts one for each call."""
    import docker
    from docker.errors import DockerException

    bridge = SshBridge(url)
    try:
        client: Any = docker.DockerClient(base_url=f"unix://{bridge.socket_path}", timeout=int(timeout_s))
        client.api.get_adapter(client.api.base_url).close()
        client.api.mount("http+docker://", _one_pool(f"http+unix://{bridge.socket_path}", int(timeout_s)))
        return Engine(client, url, bridge.close)
    except (DockerException, OSError, EngineAwayError) as error:
        said = bridge.complaint() or _brief(error)
        bridge.close()
        raise EngineAwayError(f"no Docker engine answers at {url}: {said}", hint=LOCAL_HINT) from None


def _one_pool(socket_url: str, timeout_s: int) -> Any:
    """Return an HTTP adapter that uses connections again. The SDK's own has a pool for each address."""
    from docker.transport import UnixHTTPAdapter

    class OnePool(UnixHTTPAdapter):
        def get_connection(self, url: Any, proxies: Any = None) -> Any:
            return super().get_connection("http+docker://localhost", proxies)

    return OnePool(socket_url, timeout_s)


def engine_url() -> str:
    """Return the engine's address: DOCKER_HOST, else that of the active context."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return host
    from docker import context
    from docker.errors import DockerException

    contexts: Any = context.ContextAPI
    try:
        found: Any = contexts.kwargs_from_context(environment=os.environ)
    except (DockerException, OSError, ValueError) as error:
        raise EngineAwayError(
            f"the docker context cannot be read: {_brief(error)}", hint=LOCAL_HINT
        ) from None
    return str(found.get("base_url") or "unix:///var/run/docker.sock")


def _info(client: Any, url: str) -> EngineInfo:
    with _calling(url):
        info: Any = client.info()
        version: Any = client.version()
    return EngineInfo(
        id=str(info.get("ID", "")),
        version=str(version.get("Version", "?")),
        api_version=str(version.get("ApiVersion", "?")),
        n_cpus=int(info.get("NCPU") or 1),
        memory_bytes=int(info.get("MemTotal") or 0),
        root_dir=str(info.get("DockerRootDir", "")),
        is_rootless=any("rootless" in option for option in list[str](info.get("SecurityOptions") or [])),
        runtimes=tuple(sorted(info.get("Runtimes") or {})),
    )


@contextmanager
def _calling(url: str) -> Generator[None]:
    """Turn the SDK's and its HTTP library's exceptions into ours."""
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ImageNotFound as error:
        raise EngineRefusedError(
            f"the engine has no such image: {error.explanation}", hint="rdagent-ft images build"
        ) from None
    except APIError as error:
        raise EngineRefusedError(f"the engine refused: {error.explanation or _brief(error)}") from None
    except (RequestException, HTTPError, DockerException, OSError) as error:
        raise EngineAwayError(
            f"the engine at {url} does not answer: {_brief(error)}", hint=LOCAL_HINT
        ) from None


def _stream(url: str, answer: Any) -> Generator[bytes]:
    try:
        with _calling(url):
            yield from answer.iter_content(READ_BYTES)
    finally:
        answer.close()


def _or_none(url: str, call: Callable[[], Any]) -> Any:
    from docker.errors import NotFound

    with _calling(url):
        try:
            return call()
        except NotFound:
            return None


def _quietly(url: str, call: Callable[[], Any], fine: set[int]) -> None:
    """Make a call for which the named HTTP answers mean that there is nothing left to do."""
    from docker.errors import APIError

    with _calling(url):
        try:
            call()
        except APIError as error:
            if error.status_code not in fine:
                raise


def _brief(error: BaseException) -> str:
    """Return the innermost reason of a chain of wrapped errors, as one line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
