"""The watchdog of an endpoint evaluation: runs the job, tells slow from stuck, and saves what there is.

Signs of life are rows in the job's files and tokens that the server generated. Only when neither grows
is it a hang: an answer that runs on and on is the model's doing and ends at its token limit. After a
hang or the death of the server the job goes on once, with the server restarted where it can be; stored
answers are not asked again. The second time it ends, and what was answered is kept as partial.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from rdagent_ft.errors import JobError
from rdagent_ft.evaluation.endpoint.client import Client, dump_stack, last_words, start_client, stop_client
from rdagent_ft.evaluation.endpoint.ends import EXIT_CODES, EndKind, kind_of_os_error
from rdagent_ft.evaluation.endpoint.harness import EndpointHarness, parse_partial
from rdagent_ft.evaluation.endpoint.partial import PARTIAL_NAME
from rdagent_ft.evaluation.endpoint.request import EndpointRequest
from rdagent_ft.values import Frozen

PROGRESS_NAME = "progress.jsonl"
MAX_RESTARTS = 1
DEAD_LOOKS = 2
"""Looks in a row at which a server must be dead: one may fall into a moment of its own."""


class ServerProbe(Protocol):
    """The server as far as the watchdog needs it."""

    def alive(self) -> bool:
        """Return whether the server's process runs and it answers."""
        ...

    def generated_tokens(self) -> int | None:
        """Return the tokens generated since its start; None when it does not say."""
        ...

    def restart(self) -> None:
        """Stop the server if it runs, start it at the same address, and return when it is ready."""
        ...


class ClientEnd(Frozen):
    """How an evaluation ended.

    Attributes:
        status: `ok` (everything answered) and `partial` (complete; some questions have a reason instead
            of an answer) parse as a whole. After any other, `parse_partial` has what there is.
        message: for people; "" when there is nothing to say.
        n_answered, n_unanswered, n_expected: questions, an item counting once a repeat.
        restarts: how often the job was started again.
        seconds: wall clock of all of it.
    """

    status: EndKind
    message: str
    n_answered: int
    n_unanswered: int
    n_expected: int
    restarts: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Whether `EndpointHarness.parse` succeeded."""
        return self.status in ("ok", "partial")


class WatchRules(Frozen):
    """The watchdog's times, in seconds.

    Attributes:
        timeout_s: wall clock of the whole evaluation; None means no limit.
        stall_s: without any sign of life for this long it is a hang.
        startup_s: the same until the job asks its first question: imports are silent.
        warn_after_s: without output for this long one warning is given.
        progress_every_s: between two progress lines.
        grace_s: between SIGTERM and SIGKILL.
        poll_s: between two looks.
    """

    timeout_s: float | None = None
    stall_s: float = 300.0
    startup_s: float = 120.0
    warn_after_s: float = 60.0
    progress_every_s: float = 30.0
    grace_s: float = 30.0
    poll_s: float = 0.5


class _Verdict(NamedTuple):
    """`status` is None when the job ended by itself."""

    status: EndKind | None
    message: str


def run_client(
    request: EndpointRequest,
    out_dir: Path,
    *,
    timeout_s: float | None,
    stall_s: float = 300.0,
    warn_after_s: float = 60.0,
    notice: Callable[[str], None],
    server: ServerProbe | None,
    should_stop: Callable[[], bool],
    progress_every_s: float = 30.0,
    grace_s: float = 30.0,
    poll_s: float = 0.5,
) -> ClientEnd:
    """Run the endpoint job to its end and return how it ended; the job never outlives the call.

    Times are those of `WatchRules`. Raises what `EndpointHarness.prepare` raises for a wrong request;
    whatever goes wrong after that is a `ClientEnd`.
    """
    rules = WatchRules(
        timeout_s=timeout_s,
        stall_s=stall_s,
        warn_after_s=warn_after_s,
        progress_every_s=progress_every_s,
        grace_s=grace_s,
        poll_s=poll_s,
    )
    watch = _Watch(request, out_dir, rules, notice, server, should_stop)
    try:
        argv = EndpointHarness().prepare(request, out_dir)
        return watch.run(argv)
    except OSError as error:
        kind = kind_of_os_error(error)
        if kind is None:
            raise
        return watch.end(kind, f"{error.filename or out_dir}: {error.strerror}")


class _Watch:
    """One evaluation being watched."""

    def __init__(
        self,
        request: EndpointRequest,
        out_dir: Path,
        rules: WatchRules,
        notice: Callable[[str], None],
        server: ServerProbe | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._request = request
        self._out_dir = out_dir
        self._rules = rules
        self._notice = notice
        self._server = server
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._n_expected = sum(task.n_items * task.repeats for _, task in request.pairs())
        self._restarts = 0

    def run(self, argv: tuple[str, ...]) -> ClientEnd:
        while True:
            (self._out_dir / "aggregate.json").unlink(missing_ok=True)  # of an earlier job in this folder
            client = start_client(argv, self._out_dir)
            try:
                verdict = self._follow(client)
                if verdict.status in ("hang", "timeout"):
                    dump_stack(client)
            finally:
                code = stop_client(client, self._rules.grace_s)
            status, message = self._judge(verdict, code, client)
            if status in ("hang", "server_gone") and self._may_restart(status):
                self._restart(message)
                continue
            return self.end(status, message)

    def end(self, status: EndKind, message: str) -> ClientEnd:
        """Count what is on disk and return the end."""
        answers = [
            answer for found in parse_partial(self._request, self._out_dir).values() for answer in found
        ]
        n_answered = sum(answer.unanswered is None for answer in answers)
        return ClientEnd(
            status=status,
            message=message,
            n_answered=n_answered,
            n_unanswered=len(answers) - n_answered,
            n_expected=self._n_expected,
            restarts=self._restarts,
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _may_restart(self, status: EndKind) -> bool:
        # Without a hand on the server only a stuck client can be helped by starting it again.
        return self._restarts < MAX_RESTARTS and (self._server is not None or status == "hang")

    def _restart(self, message: str) -> None:
        self._restarts += 1
        what = "the evaluation" if self._server is None else "the server and the evaluation"
        self._notice(f"{message}; starting {what} again, stored answers are kept")
        if self._server is not None:
            self._server.restart()

    def _judge(self, verdict: _Verdict, code: int, client: Client) -> tuple[EndKind, str]:
        if verdict.status is not None:
            return verdict.status, verdict.message
        for kind, number in EXIT_CODES.items():
            if code == number:
                return kind, last_words(client)
        if code != 0:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return "crash", f"the evaluation ended with {how}: {last_words(client)}"
        try:
            parsed = EndpointHarness().parse(self._request, self._out_dir)
        except JobError as error:
            return "crash", f"the evaluation ended without complete answers: {error.message}"
        unanswered = [a.unanswered for found in parsed.values() for a in found if a.unanswered is not None]
        if unanswered:
            return "partial", f"{len(unanswered)} questions have no answer, the first: {unanswered[0]}"
        return "ok", ""

    def _follow(self, client: Client) -> _Verdict:
        """Look at the job until it ends or must be ended."""
        rules = self._rules
        now = time.monotonic()
        signs, tokens = self._output(), self._tokens()
        output_at, alive_at, told_at, n_dead, warned = now, now, now, 0, False
        at_start = _size(self._out_dir / PROGRESS_NAME)
        while client.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.process.wait(rules.poll_s)  # its end is seen at once, not at the next look
            now = time.monotonic()
            if self._should_stop():
                return _Verdict("stopped", "a stop was asked for")
            if rules.timeout_s is not None and now - self._started > rules.timeout_s:
                return _Verdict("timeout", f"not finished after {_clock(rules.timeout_s)}")
            found_signs, found_tokens = self._output(), self._tokens()
            if found_signs != signs:
                output_at, warned = now, False
            if found_signs != signs or found_tokens != tokens:
                alive_at = now
            signs, tokens = found_signs, found_tokens
            n_dead = 0 if self._server is None or self._server.alive() else n_dead + 1
            if n_dead >= DEAD_LOOKS:
                return _Verdict("server_gone", "the server died")
            is_asking = _size(self._out_dir / PROGRESS_NAME) != at_start
            limit = rules.stall_s if is_asking else max(rules.stall_s, rules.startup_s)
            if now - alive_at > limit:
                return _Verdict("hang", f"no answer and no new token for {_clock(limit)}")
            if now - output_at > rules.warn_after_s and not warned:
                warned = True
                busy = "the server still generates" if alive_at > output_at else "no sign of life"
                self._notice(f"warning: no answer for {_clock(now - output_at)}; {busy}")
            if now - told_at >= rules.progress_every_s:
                told_at = now
                self._notice(self._progress(now))
        return _Verdict(None, "")

    def _output(self) -> tuple[int, int, int]:
        """What the job has written, as sizes: new rows, and a file that was written anew, show."""
        names = (PARTIAL_NAME, PROGRESS_NAME, "aggregate.json")
        first, second, third = (_size(self._out_dir / name) for name in names)
        return first, second, third

    def _tokens(self) -> int | None:
        return None if self._server is None else self._server.generated_tokens()

    def _progress(self, now: float) -> str:
        path = self._out_dir / PARTIAL_NAME
        n_rows = path.read_bytes().count(b"\n") if path.is_file() else 0
        elapsed = now - self._started
        line = f"{n_rows}/{self._n_expected} answered, {_clock(elapsed)} elapsed"
        if self._rules.timeout_s is None:
            return line
        return f"{line}, {_clock(max(0.0, self._rules.timeout_s - elapsed))} remaining"


def _clock(seconds: float) -> str:
    """Return `45 s`, `2:05` or `1:00:00`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
