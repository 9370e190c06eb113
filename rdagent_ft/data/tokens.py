"""Render prompts exactly as the model will see them, and count tokens, without torch.

Reads `tokenizer.json`, `tokenizer_config.json` and the chat template of a local model directory. What
is counted here is what TRL trains on: in `plain`, prompt text, a newline, the answer and the end token;
in `chat`, the template's text with no special tokens added by the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from rdagent_ft.data.rows import Row
from rdagent_ft.errors import PreflightError, UserError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

PromptFormat = Literal["plain", "chat"]
PLAIN_PROMPT_END = "\n"
_MAX_JSON_BYTES = 256 << 20
_BATCH = 2048
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class RowTokens(NamedTuple):
    """Token counts of one row.

    `n_context` tokens come before the trained part; it is less than `n_prompt` where the prompt alone is
    rendered or tokenised differently than inside the whole. `has_end`: the trained part has an end token.
    """

    n_context: int
    n_prompt: int
    n_total: int
    has_end: bool


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A model's tokenizer and chat template.

    Attributes:
        tokenizer: the fast tokenizer; truncation and padding are off.
        template: compiled chat template, None where the model has none.
        special_tokens: name -> text, e.g. `eos_token`; what the template may use.
        end_token_ids: ids that end a generation: the end token and those of generation_config.json.
        measured: counts of the rows that were measured, by item id and format.
    """

    tokenizer: Tokenizer
    template: Template | None
    special_tokens: dict[str, str]
    end_token_ids: frozenset[int]
    measured: dict[tuple[str, PromptFormat], RowTokens] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def eos_token(self) -> str | None:
        """The text of the end-of-sequence token."""
        return self.special_tokens.get("eos_token")

    @property
    def begin_text(self) -> str:
        """The text of the beginning token where the tokenizer puts one before every text, else empty."""
        whole = self.tokenizer.encode("a").tokens
        bare = self.tokenizer.encode("a", add_special_tokens=False).tokens
        return whole[0] if len(whole) > len(bare) and whole[0] == self.special_tokens.get("bos_token") else ""

    def render_prompt(self, row: Row, prompt_format: PromptFormat) -> str:
        """Return the text from which the model has to answer.

        Raises `UserError` for `chat` without a template, `DataError` when the template refuses the row.
        """
        if prompt_format == "plain":
            return row.prompt_text + PLAIN_PROMPT_END
        return self._chat(row, whole=False)

    def render_whole(self, row: Row, prompt_format: PromptFormat) -> str:
        """Return prompt and answer as they are trained, end token included."""
        if prompt_format == "chat":
            return self._chat(row, whole=True)
        text = row.prompt_text + PLAIN_PROMPT_END + row.completion
        end = self.eos_token or ""
        return text if end and row.completion.endswith(end) else text + end

    def count(self, text: str) -> int:
        """Return the number of tokens of `text`, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def row_tokens(self, row: Row, prompt_format: PromptFormat) -> tuple[int, int]:
        """Return (prompt tokens, completion tokens with the end token)."""
        return self.rows_tokens([row], prompt_format)[0]

    def rows_tokens(self, rows: Sequence[Row], prompt_format: PromptFormat) -> list[tuple[int, int]]:
        """Return (prompt, completion) tokens for every row, in order."""
        return [
            (found.n_context, found.n_total - found.n_context) for found in self.measure(rows, prompt_format)
        ]

    def measure(self, rows: Sequence[Row], prompt_format: PromptFormat) -> list[RowTokens]:
        """Return the token counts of every row, in order.

        About 0.5 million tokens a second on two cores; a row that was measured before costs nothing.
        """
        new = {row.item_id: row for row in rows if (row.item_id, prompt_format) not in self.measured}
        pending = list(new.values())
        for start in range(0, len(pending), _BATCH):
            part = pending[start : start + _BATCH]
            for row, (n_context, prompt, whole) in zip(
                part, self.row_token_ids(part, prompt_format), strict=True
            ):
                self.measured[row.item_id, prompt_format] = RowTokens(
                    n_context=n_context,
                    n_prompt=len(prompt),
                    n_total=len(whole),
                    has_end=not self.end_token_ids.isdisjoint(whole[n_context:]),
                )
        return [self.measured[row.item_id, prompt_format] for row in rows]

    def row_token_ids(
        self, rows: Sequence[Row], prompt_format: PromptFormat
    ) -> list[tuple[int, list[int], list[int]]]:
        """Return (tokens before the trained part, prompt ids, ids of prompt + completion) for every row.

        The trained part starts where both sequences differ (TRL's rule), which is before the end of the
        prompt when a token spans the border or the template renders the prompt alone differently.
        """
        special = prompt_format == "plain"
        prompts = self._ids([self.render_prompt(row, prompt_format) for row in rows], special)
        wholes = self._ids([self.render_whole(row, prompt_format) for row in rows], special)
        return [
            (_n_shared(prompt, whole), prompt, whole) for prompt, whole in zip(prompts, wholes, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens shown."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def _ids(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def _chat(self, row: Row, *, whole: bool) -> str:
        from rdagent_ft.data.chat_template import render_chat

        if self.template is None:
            raise UserError("the model has no chat template", hint="use the plain prompt format")
        messages = row.messages if whole else row.prompt
        return render_chat(self.template, messages, self.special_tokens, add_generation_prompt=not whole)


def _n_shared(prompt: list[int], whole: list[int]) -> int:
    """Return the length of the common beginning, which nearly always is the whole prompt."""
    if whole[: len(prompt)] == prompt:
        return len(prompt)
    pairs = zip(prompt, whole, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def load_encoder(model_path: Path) -> TextEncoder:
    """Return the encoder of a local model directory.

    Raises `UserError` when there is no `tokenizer.json`, `PreflightError` when a file is damaged.
    """
    from tokenizers import Tokenizer

    path = model_path / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{str(model_path)!r} has no tokenizer.json",
            hint="save the model's fast tokenizer there: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    text = _read_text(path)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001  the Rust binding raises bare Exception
        raise PreflightError(f"{str(path)!r} is not a tokenizer this program can read: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = _read_json(model_path / "tokenizer_config.json")
    special = _special_tokens(config, _read_json(model_path / "special_tokens_map.json"))
    source = chat_template_text(model_path)
    template = None
    if source is not None:
        from rdagent_ft.data.chat_template import compile_chat_template

        template = compile_chat_template(source)
    ends = _end_token_ids(tokenizer, special, _read_json(model_path / "generation_config.json"))
    return TextEncoder(tokenizer=tokenizer, template=template, special_tokens=special, end_token_ids=ends)


def chat_template_text(model_path: Path) -> str | None:
    """Return the model's default chat template, or None. `chat_template.jinja` wins, as in transformers."""
    own_file = model_path / "chat_template.jinja"
    if own_file.is_file():
        return _read_text(own_file)
    found = _read_json(model_path / "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = [cast("dict[str, Any]", item) for item in cast("list[Any]", found) if isinstance(item, dict)]
        found = next((item.get("template") for item in named if item.get("name") == "default"), None)
    return found if isinstance(found, str) and found.strip() else None


def _special_tokens(*configs: dict[str, Any]) -> dict[str, str]:
    """Return name -> text of the special tokens; the first file that names one wins."""
    found: dict[str, str] = {}
    for config in configs:
        for name in _TOKEN_NAMES:
            value = config.get(name)
            if isinstance(value, dict):
                value = cast("dict[str, Any]", value).get("content")
            if isinstance(value, str) and value:
                found.setdefault(name, value)
    return found


def _end_token_ids(tokenizer: Tokenizer, special: dict[str, str], config: dict[str, Any]) -> frozenset[int]:
    own = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    listed = config.get("eos_token_id")
    values = cast("list[Any]", listed) if isinstance(listed, list) else [listed]
    return frozenset(value for value in (own, *values) if isinstance(value, int))


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise PreflightError(f"{str(path)!r} is larger than {_MAX_JSON_BYTES >> 20} MiB")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PreflightError(f"{str(path)!r} cannot be read: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty where the file does not exist."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise PreflightError(f"{str(path)!r} is not valid JSON: {error}") from None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
