"""Asking a teacher many questions at once: paid answers are kept as they come, and an end is clean.

Shared by the teacher's samples and by the labelling of rows. An answer is on disk before it counts; the
run's ledger has it before that, so that a kill between the two pays nothing twice. Requests in flight when
asking has to stop are waited for, because they are paid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from rdagent_ft.data.teacher_cache import LOST_KINDS, Lost, StoredReply, TeacherCache, reply_key
from rdagent_ft.errors import LlmError
from rdagent_ft.evaluation.judge.turns import Turns
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.reply import strict_schema
from rdagent_ft.llm.teacher_endpoint import Teacher

N_PARALLEL = 4
_POLL_S = 0.2
T = TypeVar("T", bound=BaseModel)


class Question(NamedTuple):
    """One question; `salt` tells questions apart that are equal on purpose."""

    messages: tuple[LlmMessage, ...]
    salt: str


class Told(NamedTuple, Generic[T]):
    """One answer, or why there is none. `is_cached`: it was paid for before this call."""

    reply: T | None
    lost: Lost | None
    is_cached: bool


def ask_all(
    teacher: Teacher,
    cache: TeacherCache,
    questions: Sequence[Question],
    schema: type[T],
    *,
    check_stop: Callable[[], None],
) -> list[Told[T]]:
    """Return the answers in the order of the questions; equal questions are asked once.

    `check_stop` is called between answers and raises to end the asking. Raises what it raises, `BudgetError`
    when the next question cannot be paid, and `LlmError` when the endpoint fails for good. What was
    answered until then is kept.
    """
    keys = [_key(teacher, question, schema) for question in questions]
    found: dict[str, Told[T]] = {}
    open_questions: dict[str, Question] = {}
    for key, question in zip(keys, questions, strict=True):
        if key in found or key in open_questions:
            continue
        stored = _stored(cache, key, schema)
        if stored is None:
            open_questions[key] = question
        else:
            found[key] = stored
    halt, turns = threading.Event(), Turns()

    def work(key: str, question: Question) -> None:
        if halt.is_set():
            return
        try:
            found[key] = _ask(teacher, cache, key, question, schema, turns)
        except BaseException:
            halt.set()
            raise

    with ThreadPoolExecutor(N_PARALLEL, thread_name_prefix="teacher") as pool:
        futures = [pool.submit(work, key, question) for key, question in open_questions.items()]
        try:
            _follow(futures, check_stop)
        finally:
            halt.set()
    return [found[key] for key in keys]


def _follow(futures: list[Future[None]], check_stop: Callable[[], None]) -> None:
    """Wait for all; raise the first failure, or what `check_stop` raises."""
    waiting: set[Future[None]] = set(futures)
    while waiting:
        check_stop()
        done, waiting = wait(waiting, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()


def _ask(
    teacher: Teacher, cache: TeacherCache, key: str, question: Question, schema: type[T], turns: Turns
) -> Told[T]:
    try:
        reply, _ = turns.send(
            lambda: teacher.client.complete("teacher", question.messages, schema, salt=question.salt)
        )
    except LlmError as error:
        lost = LOST_KINDS.get(error.kind)
        if lost is None:
            raise
        cache.store(StoredReply(key=key, model=teacher.endpoint.model, reply=None, lost=lost))
        return Told(None, lost, is_cached=False)
    cache.store(StoredReply(key=key, model=teacher.endpoint.model, reply=reply.model_dump(mode="json")))
    return Told(reply, None, is_cached=False)


def _stored(cache: TeacherCache, key: str, schema: type[T]) -> Told[T] | None:
    stored = cache.find(key)
    if stored is None:
        return None
    if stored.reply is None:
        return Told(None, stored.lost, is_cached=True)
    try:
        return Told(schema.model_validate(stored.reply), None, is_cached=True)
    except ValidationError:  # somebody edited the file
        return None


def _key(teacher: Teacher, question: Question, schema: type[BaseModel]) -> str:
    messages = tuple((message.role, message.content) for message in question.messages)
    return reply_key(teacher.identity, messages, strict_schema(schema), question.salt)
