# /// script
# requires-python = ">=3.7"
# ///
# SPDX-License-Identifier: MIT-0
# Copyright 2026 the deepinfra_min developers. Anyone may use, copy, change and sell this file for
# any purpose, without keeping this notice. It is provided "as is", without warranty of any kind.
"""A client for DeepInfra's chat API in one file, on the standard library alone.

    from deepinfra_min import Client

    for chunk in Client().stream("Hello!"):
        print(chunk.text, end="", flush=True)

The token comes from DEEPINFRA_TOKEN. To vendor this file, copy it, under any name; to update it,
copy it again. To use it, read as far as the end of `Client`, and the docstrings of `collect` and
`iter_sse`. The rest is the implementation, in the order that a call passes through it: request,
connection, answer, and the command line.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import errno
import http.client
import io
import json
import math
import os
import random
import re
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

try:
    import ssl
except ImportError:  # a Python built without it still reaches a local server
    ssl = None  # type: ignore[assignment]

TYPE_CHECKING = False  # importing typing takes longer than this module's own code
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")
    _Object = dict[str, Any]  # a JSON object
    Messages = str | Iterable[Mapping[str, Any] | "Message"]
    _Parse = Callable[[_Object], T]
else:
    Any = Messages = T = object  # typing.get_type_hints() looks for these names

__all__ = [
    "DEFAULT_BASE_URL",
    "DEFAULT_MODEL",
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APITimeoutError",
    "AuthenticationError",
    "ChatCompletion",
    "ChatCompletionChunk",
    "Choice",
    "ChunkChoice",
    "Client",
    "ConfigurationError",
    "DeepInfraError",
    "Function",
    "Message",
    "Model",
    "RateLimitError",
    "ServerError",
    "ServerSentEvent",
    "StreamInterruptedError",
    "ToolCall",
    "Usage",
    "collect",
    "iter_sse",
]
__version__ = "1.0.0"

DEFAULT_BASE_URL = "https://api.deepinfra.com/v1/openai"
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1"

_MIB = 1024 * 1024
_MAX_BODY = 64 * _MIB  # of a body, or of an event of a stream
_MAX_ITEMS = 10_000  # of a list: `{}` is 3 bytes of JSON, but 400 as an object
_decode_json = json.JSONDecoder().decode  # json.loads() takes longer, for each chunk
_TOKEN_HINT = "set DEEPINFRA_TOKEN to a token from https://deepinfra.com/dash/api_keys"


# ---- Errors --------------------------------------------------------------------------------------


class DeepInfraError(Exception):
    """The base of all errors that a server, a network or a setting causes.

    `hint` says what to do. `is_retryable` tells whether the same request may be sent again.
    `partial` is the answer so far if `collect` raised the error, else None.
    """

    is_retryable = False
    partial: ChatCompletion | None = None

    def __init__(self, summary: str = "", *, hint: str = "") -> None:
        super().__init__(summary)
        self.hint = hint

    def __str__(self) -> str:
        summary = str(self.args[0])
        return f"{summary} ({self.hint})" if self.hint else summary


class ConfigurationError(DeepInfraError, ValueError):
    """A setting is missing or malformed; `setting` is its name. Nothing was sent."""

    def __init__(
        self,
        summary: str = "",
        *,
        setting: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.setting = setting


class APIConnectionError(DeepInfraError):
    """No complete answer arrived: DNS, TCP, TLS, a proxy, a cut connection. See `__cause__`."""


class APITimeoutError(APIConnectionError, TimeoutError):
    """The server was silent for `timeout`, or `connect_timeout` or `deadline` ran out."""


class StreamInterruptedError(APIConnectionError):
    """A stream ended before it was complete: the chunks that came are a part of the answer."""


class APIResponseError(DeepInfraError):
    """The answer is not what the API promises. `body` holds its first 200 characters."""

    def __init__(
        self,
        summary: str = "",
        *,
        body: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.body = body

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; it begins {self.body!r}" if self.body else text


class APIError(DeepInfraError):
    """The API answered with an error.

    `status` is the HTTP status, or the numeric code of an error inside a 200, else None. `message`
    is the API's own text, on one line and at most 1,000 characters long. `body` is decoded JSON or
    text; `code`, `param` and `type` are what it says. `headers` has names in lower case;
    `request_id` and `retry_after`, the seconds that the server asks to wait, come from there.
    """

    def __init__(
        self,
        summary: str = "",
        *,
        status: int | None = None,
        message: str = "",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.status = status
        self.message = message
        self.body = body
        error = _find_error(body)
        self.code: Any = error.get("code")
        self.param: Any = error.get("param")
        self.type: Any = error.get("type")
        self.headers = headers or {}
        self.request_id = self.headers.get("x-request-id")
        self.retry_after = _parse_retry_after(self.headers.get("retry-after", ""))


class AuthenticationError(APIError):
    """The token was refused (401, 403)."""


class RateLimitError(APIError):
    """Too many requests at once, or the model is busy (429)."""


class ServerError(APIError):
    """The service failed (5xx)."""


_STATUS_CLASSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: RateLimitError,
}
_STATUS_HINTS = {
    400: "check the parameters; if the messages are too long for the model, shorten them",
    402: "add a payment method or raise the spending limit on https://deepinfra.com/dash",
    404: "check the base URL's path, and the model (-m) against the list of models() or --models",
    405: "this model can't do that: choose another with model= or -m",
    413: "the request is too large: shorten the messages, or send smaller pictures",
    422: "correct the parameters that the message names",
    429: "send fewer requests at once, or raise max_retries= or --retries",
    501: "the server can't do this: check the base URL and the model",
}


def _api_error(text: str, status: int | None, exchange: _Exchange) -> APIError:
    """Return the error for the text of an error payload; inside a 200, `status` is None."""
    text = exchange.mask(text[:_MIB])
    try:
        payload = json.loads(text)
        message = _human_message(payload)
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        payload = text
        message = _human_message(text)
    code = str(_find_error(payload).get("code"))
    if status is None and re.fullmatch(r"[45]\d\d", code):
        status = int(code)
    number = status or 0
    message = message or http.client.responses.get(number, "no message")
    headers = {}
    for name, value in exchange.headers.items():
        headers[exchange.mask(name).lower()] = exchange.mask(value)
    if number // 100 == 3 and "location" in headers:
        message = _clean(f"{message}, to {headers['location']}")
    summary = f"the API answered with an error: {message}"
    if status:
        summary = f"HTTP {status}: {message}"
    error_class = _STATUS_CLASSES.get(number, APIError)
    if number >= 500:
        error_class = ServerError
    error = error_class(summary, status=status, message=message, body=payload, headers=headers)
    error.hint = _status_hint(error, exchange.token_source)
    error.is_retryable = number in (408, 409, 429) or number >= 500
    return error


def _status_hint(error: APIError, token_source: str) -> str:
    status = error.status or 0
    if isinstance(error, AuthenticationError) and token_source:
        return f"check the token, from {token_source}"
    if isinstance(error, AuthenticationError):
        return _TOKEN_HINT
    if error.retry_after and error.retry_after > _MAX_WAIT:
        return f"the server asks to wait {error.retry_after:.0f} s"
    is_html = isinstance(error.body, str) and error.body.lstrip().startswith("<")
    if is_html and status in (400, 404, 405, 422):
        return "a proxy or gateway answered, not the API: check the base URL"
    if status // 100 == 3:
        return "redirects are refused: set the base URL to where the API is"
    if status >= 500 and status != 501:
        return "the service failed: try again later"
    return _STATUS_HINTS.get(status, "")


def _find_error(payload: Any) -> dict[str, Any]:
    """Return the object that holds the error's `code`, `param` and `type`."""
    if not isinstance(payload, dict):
        return {}
    error = payload.get("error")
    return error if isinstance(error, dict) else payload


def _human_message(payload: Any) -> str:
    """Return the text in an error payload: its `error`, `detail` or `message`, however nested."""
    while isinstance(payload, dict):
        texts = [payload.get(name) for name in ("error", "detail", "message")]
        payload = next(filter(None, texts), "")
    if isinstance(payload, list):
        payload = "; ".join(map(_validation_message, payload))
    text = str(payload or "").strip()
    if not text.startswith("<"):
        return _clean(text)
    title = re.search(r"(?i)<title[^>]*>\s*([^<\s][^<]*)", text[:10_000])
    return _clean(f"an HTML page: {title.group(1)}") if title else "an HTML page"


def _validation_message(item: Any) -> str:
    """Return the place and the text of an item of a 422's `detail`."""
    try:
        return ".".join(map(str, item["loc"])) + f": {item['msg']}"
    except (KeyError, TypeError):
        return str(item)


def _clean(text: str) -> str:
    """Return a server's text on one line, cut, without control characters: it goes into logs."""
    printable = [char if char.isprintable() else " " for char in text.strip()[:1000]]
    return "".join(printable).strip()


def _parse_retry_after(value: str) -> float | None:
    """Return the seconds that a server asks to wait: a number or a date (RFC 9110, 10.2.3)."""
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d*)?", value, re.ASCII):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):  # each raised by some Python
        return None


# ---- Data ----------------------------------------------------------------------------------------
# Each `_parse` builds its class from a JSON object. Missing and null fields keep their defaults;
# fields that the client works with have their shape checked, the others pass as they came.

# `raw` is the original JSON object; repr and == ignore it. Classes may share a dataclasses field.
_RAW: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass
class Function:
    """What a tool call calls. `arguments` is the string as it came, valid JSON or not."""

    name: str | None = None
    arguments: str = ""
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> Function:
        return cls(raw.get("name"), _get(raw, "arguments", str) or "", raw)


@dataclass
class ToolCall:
    """A call that the model asks for. `index` is its place in a streamed answer."""

    id: str | None = None
    type: str = "function"
    function: Function = field(default_factory=Function)
    index: int | None = field(default=None, compare=False)
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> ToolCall:
        return cls(
            raw.get("id"),
            raw.get("type") or "function",
            _get_object(raw, "function", Function._parse) or Function(),
            _get(raw, "index", int),
            raw,
        )


@dataclass
class Message:
    """A message of a conversation or, in a stream, what a chunk adds to one.

    `content` is None beside tool calls. In a request it may also be a list of parts.
    """

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> Message:
        return cls(
            raw.get("role"),
            _get(raw, "content", str),
            _get(raw, "reasoning_content", str),
            _get_list(raw, "tool_calls", ToolCall._parse),
            raw.get("name"),
            raw.get("tool_call_id"),
            raw,
        )


@dataclass
class Usage:
    """Tokens counted, and their cost in US dollars."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated_cost: float | None = None
    prompt_tokens_details: Mapping[str, Any] | None = None
    completion_tokens_details: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> Usage:
        return cls(
            raw.get("prompt_tokens"),
            raw.get("completion_tokens"),
            raw.get("total_tokens"),
            raw.get("estimated_cost"),
            _get(raw, "prompt_tokens_details", dict),
            _get(raw, "completion_tokens_details", dict),
            raw,
        )


@dataclass
class Choice:
    """One of the answers. `finish_reason` is `stop`, `length`, `tool_calls` or another word."""

    index: int = 0
    message: Message = field(default_factory=lambda: Message("assistant"))
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> Choice:
        message = _get_object(raw, "message", Message._parse) or Message()
        message.role = message.role or "assistant"
        return cls(
            _get(raw, "index", int) or 0,
            message,
            raw.get("finish_reason"),
            _get(raw, "logprobs", dict),
            raw,
        )


@dataclass
class ChunkChoice:
    """One choice's part of a chunk. `finish_reason` is None until the last."""

    index: int = 0
    delta: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> ChunkChoice:
        return cls(
            _get(raw, "index", int) or 0,
            _get_object(raw, "delta", Message._parse) or Message(),
            raw.get("finish_reason"),
            _get(raw, "logprobs", dict),
            raw,
        )


@dataclass
class ChatCompletion:
    """A whole answer. `created` is in seconds since 1970."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    service_tier: str | None = None
    raw: Mapping[str, Any] = _RAW

    @property
    def message(self) -> Message:
        """The first choice's message, ready to go back as a part of the conversation."""
        return self.choices[0].message if self.choices else Message("assistant", "")

    @property
    def text(self) -> str:
        """The first choice's content, `""` where there is none."""
        return self.message.content or ""

    @classmethod
    def _parse(cls, raw: _Object) -> ChatCompletion:
        return cls(
            raw.get("id") or "",
            raw.get("object") or cls.object,
            raw.get("created") or 0,
            raw.get("model") or "",
            _get_list(raw, "choices", Choice._parse),
            _get_object(raw, "usage", Usage._parse),
            raw.get("service_tier"),
            raw,
        )


@dataclass
class ChatCompletionChunk:
    """One event of a streamed answer."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    service_tier: str | None = None
    raw: Mapping[str, Any] = _RAW

    @property
    def text(self) -> str:
        """The new content of the choice with index 0, `""` where there is none."""
        choice = _first_choice(self.choices)
        return choice.delta.content or "" if choice else ""

    @classmethod
    def _parse(cls, raw: _Object) -> ChatCompletionChunk:
        return cls(
            raw.get("id") or "",
            raw.get("object") or cls.object,
            raw.get("created") or 0,
            raw.get("model") or "",
            _get_list(raw, "choices", ChunkChoice._parse),
            _get_object(raw, "usage", Usage._parse),
            raw.get("service_tier"),
            raw,
        )


@dataclass
class Model:
    """A model on offer. `raw` has the rest of what the API says of it, such as `metadata`."""

    id: str = ""
    raw: Mapping[str, Any] = _RAW

    @classmethod
    def _parse(cls, raw: _Object) -> Model:
        return cls(raw.get("id") or "", raw)


@dataclass
class ServerSentEvent:
    """An event of a `text/event-stream`."""

    event: str = "message"
    data: str = ""


class _ShapeError(Exception):
    """JSON of another shape than the API promises; the message begins with the place."""


def _wrong_shape(place: str, value: Any, shape: type) -> _ShapeError:
    shapes = {dict: "an object", list: "an array", str: "a string", int: "an integer"}
    return _ShapeError(f"{place}: expected {shapes[shape]}, got {type(value).__name__}")


def _get(raw: _Object, name: str, shape: type) -> Any:
    """Return a field, None if it is missing or null; raise _ShapeError if it has another shape."""
    value = raw.get(name)
    if value is None or isinstance(value, shape):
        return value
    raise _wrong_shape(name, value, shape)


def _get_object(raw: _Object, name: str, parse: _Parse[T]) -> T | None:
    """Return a field that holds an object, parsed; None if it is missing or null."""
    value = raw.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong_shape(name, value, dict)
    try:
        return parse(value)
    except _ShapeError as error:
        raise _ShapeError(f"{name}.{error}") from None


def _get_list(raw: _Object, name: str, parse: _Parse[T]) -> tuple[T, ...]:
    """Return the objects of a field that holds a list of them, parsed; () if there are none."""
    items = raw.get(name)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise _wrong_shape(name, items, list)
    if len(items) > _MAX_ITEMS:
        raise _ShapeError(f"{name}: more than {_MAX_ITEMS} items")
    parsed: list[T] = []
    for item in items:
        if not isinstance(item, dict):
            raise _wrong_shape(f"{name}[{len(parsed)}]", item, dict)
        try:
            parsed.append(parse(item))
        except _ShapeError as error:
            raise _ShapeError(f"{name}[{len(parsed)}].{error}") from None
    return tuple(parsed)


def _first_choice(choices: Iterable[Any]) -> Any:
    """Return the choice with index 0, None if there is none."""
    for choice in choices:
        if choice.index == 0:
            return choice
    return None


def _to_json(value: Any) -> _Object:
    """Return a dict for what json.dumps() can't encode: one of our objects, or a mapping."""
    if isinstance(value, (Message, ToolCall, Function)):
        return _to_dict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be sent as JSON")


def _to_dict(value: Any) -> _Object:
    """Return the fields of an object, with those of its `raw` that the class doesn't know.

    Null and empty fields are left out, except `content`, which the API requires; so is `index`,
    which a tool call has only in a stream.
    """
    named = {**value.raw, **vars(value)}
    del named["raw"]
    named.pop("index", None)
    for name in list(named):
        if named[name] in (None, ()) and name != "content":
            del named[name]
    return named


# ---- Client --------------------------------------------------------------------------------------


class Client:
    """A client of one API. Threads may share it. It may be forked, and pickled (with its token).

    `api_key`: the token; defaults to DEEPINFRA_TOKEN, DEEPINFRA_API_KEY or DEEPINFRA_API_TOKEN;
        `""` sends none.
    `base_url`: defaults to DEEPINFRA_BASE_URL, then to DEFAULT_BASE_URL.
    `timeout`: seconds of silence, None for no limit, as for the next two.
    `connect_timeout`: seconds for TCP (for each address of the host), for a proxy and for TLS.
    `deadline`: seconds for a call with its retries, and for a stream to its last event.
    `max_retries`: further attempts, where they are safe.
    `headers`: go out with every request.
    `ssl_context`: for a private CA or a client certificate; such a client can't be pickled.
    `proxy`: `http://[user:password@]host[:port]`, `""` for none; defaults to what HTTPS_PROXY,
        HTTP_PROXY and NO_PROXY say.

    Raises ConfigurationError.
    """

    base_url = _token = _token_source = ""  # for the repr of a client that can't be made
    _pool: Any = None

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = 600.0,
        connect_timeout: float | None = 10.0,
        deadline: float | None = None,
        max_retries: int = 2,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.deadline = deadline
        self.max_retries = max_retries
        self._ssl_context = ssl_context
        self._proxy = proxy
        try:
            self._token, self._token_source = _find_token(api_key)
            self._headers = dict(headers or {})
            self._check_settings(base_url)
            self.__setstate__({})
            self._check_token()
        except Exception as error:
            del api_key, headers, proxy
            _cut_frames(error)
            raise error

    def chat(
        self, messages: Messages, *, model: str | None = None, **params: Any
    ) -> ChatCompletion:
        """Send a conversation and return the whole answer.

        `messages` is a string (one user turn) or an iterable of mappings and Messages. `params` are
        the API's own (`temperature=`, `tools=`, ...), passed through, but for those that are None.
        Raises APIConnectionError, APIResponseError or APIError, or a class below them; TypeError
        for arguments that can't be sent.
        Source: https://deepinfra.com/docs/openai_api
        """
        payload = _chat_payload(messages, model, params)
        return self._call("POST", "/chat/completions", payload, _parse_completion)

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Any
    ) -> Generator[ChatCompletionChunk, None, None]:
        """Send a conversation and return a generator of the answer's chunks, as they arrive.

        Takes what `chat` takes, and raises the request's errors at once. Iterating raises
        StreamInterruptedError unless the stream proves complete, and what `chat` raises. Leaving
        the loop closes the connection.
        """
        chunks = self._stream({**_chat_payload(messages, model, params), "stream": True})
        next(chunks)  # sends the request; from now on closing the generator closes the connection
        return chunks

    def models(self) -> list[Model]:
        """Return the models on offer. Raises what `chat` raises."""
        return self._call("GET", "/models", None, _parse_models)

    def request(self, method: str, path: str, payload: Any = None) -> Any:
        """Send JSON to another endpoint, say "POST", "/embeddings", and return the JSON it answers.

        None stands for no body, both ways. Raises what `chat` raises.
        """
        return self._call(method, path, payload, None)

    def close(self) -> None:
        """Close the idle connections; those in use are closed at the end of their calls."""
        if self._pool:
            self._pool.close()

    __del__ = close

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}, token: {self._token_source or 'none'}>"

    def __getstate__(self) -> _Object:
        return {name: value for name, value in vars(self).items() if name != "_pool"}

    def __setstate__(self, state: _Object) -> None:
        vars(self).update(state)
        self._pool = _Pool(self)

    def _call(self, method: str, path: str, payload: Any, parse: _Parse[T] | None) -> T:
        """Send a request and return its whole answer, parsed, or as it is if `parse` is None."""
        try:
            with contextlib.closing(self._open(method, path, payload)) as exchange:
                # No local variable may hold the body: it can quote the token.
                answer: T = _read_json(_decode(b"".join(exchange.read_blocks())), parse, exchange)
                return answer
        except DeepInfraError as error:
            _cut_frames(error)
            raise error

    def _stream(self, payload: _Object) -> Generator[ChatCompletionChunk, None, None]:
        try:
            with contextlib.closing(self._open("POST", "/chat/completions", payload)) as exchange:
                yield ChatCompletionChunk()  # taken by stream(), not by the caller
                exchange.cut_error = StreamInterruptedError
                yield from _iter_chunks(exchange.read_blocks(limit=math.inf), exchange)
                exchange.read_end()
        except DeepInfraError as error:
            _cut_frames(error)
            raise error

    def _open(self, method: str, path: str, payload: Any) -> _Exchange:
        """Send a request, again where that is safe; return the exchange once a 2xx has begun."""
        request = self._make_request(method, path, payload)
        started = time.monotonic()
        retries = 0
        while True:
            exchange = _Exchange(self, started)
            try:
                exchange.begin(request)
                return exchange
            except DeepInfraError as error:
                wait = exchange.retry_wait(error, retries)
                left = started + _as_seconds(self.deadline) - time.monotonic()
                is_last = retries >= self.max_retries or not error.is_retryable
                if is_last or wait > _MAX_WAIT or wait >= left:
                    raise
                if exchange.has_lost_kept_connection(error):
                    self._pool.close()  # the server may have closed the others, too
                retries += 1
                _log("info", "retry %d of %d in %.2f s: %s", retries, self.max_retries, wait, error)
            time.sleep(wait)

    def _make_request(self, method: str, path: str, payload: Any) -> urllib.request.Request:
        if not re.fullmatch("[A-Z]+", method):
            raise ValueError(f"method: expected capital letters, got {method!r}")
        body = None
        if payload is not None:
            body = json.dumps(payload, default=_to_json).encode()
        path = urllib.parse.quote(path.lstrip("/"), safe="/?&=%:;,+@!$'()*~")
        request = urllib.request.Request(f"{self.base_url}/{path}", body, method=method)
        request.add_header("Host", request.host)  # before route() may change it
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", _USER_AGENT)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        for name, value in self._headers.items():
            request.add_header(name, value)
        self._pool.route(request)
        return request

    def _mask(self, text: str) -> str:
        """Return a server's text without the token, whichever way its characters are escaped.

        A beginning of the token at the end of the text goes, too: the answer may be cut there.
        """
        login = self._headers.get("Authorization", "").split()
        secret = self._token or "".join(login[-1:])
        if len(secret) < 4:  # too short to mask: it would be a part of many words
            return text
        pattern = ""
        for index, char in enumerate(secret):
            code = f"{ord(char):02x}"
            forms = rf"\\?{re.escape(char)}|\\u00{code}|%{code}"
            pattern += rf"({forms}|\Z)" if index >= 8 else f"({forms})"
        return re.sub(pattern, "***", text, flags=re.IGNORECASE)

    def _check_settings(self, base_url: str | None) -> None:
        """Check the settings but for the token and the proxy; raise ConfigurationError."""
        base_url = base_url or os.environ.get("DEEPINFRA_BASE_URL") or DEFAULT_BASE_URL
        self.base_url = _check_base_url(base_url)
        for name in ("timeout", "connect_timeout", "deadline"):
            seconds = getattr(self, name)
            is_limit = isinstance(seconds, (int, float)) and seconds > 0
            hint = "give a number of seconds above 0, or None; on the command line: --timeout"
            _require(seconds is None or is_limit, name, f"{name} is {seconds!r}", hint)
        count = self.max_retries
        hint = "give a whole number from 0 up (max_retries=, --retries)"
        is_count = isinstance(count, int) and count >= 0
        _require(is_count, "max_retries", f"max_retries is {count!r}", hint)
        for name, value in self._headers.items():
            hint = "its name is one word, its value one line of Latin-1 text"
            _require(_is_header(name, value), "headers", f"the header {name!r} can't be sent", hint)
        self._headers = {name.title(): value for name, value in self._headers.items()}

    def _check_token(self) -> None:
        """Raise ConfigurationError unless the token is well-formed, and goes where it is safe."""
        url = urllib.parse.urlsplit(self.base_url)
        is_local = _is_loopback(url.hostname)
        _require(self._token_source or is_local, "api_key", "no token", _TOKEN_HINT)
        problem = f"the token from {self._token_source} holds white space or a non-ASCII character"
        is_token = re.fullmatch("[!-~]*", self._token)
        _require(is_token, "api_key", problem, f"copy it again, or {_TOKEN_HINT}")
        has_login = "Authorization" in self._headers
        problem = "the header Authorization is made from the token"
        hint = 'to send your own, pass api_key="" as well'
        _require(not (has_login and self._token), "headers", problem, hint)
        is_safe = url.scheme == "https" or (is_local and not self._pool.proxy)
        problem = f"the token would go to {url.netloc} over plain http, for all to read"
        hint = 'use an https base URL, or api_key="" to send no token'
        if has_login:
            self._token_source = "headers"
        elif not self._token:
            self._token_source = ""
        _require(is_safe or not self._token_source, "base_url", problem, hint)


# ---- Request -------------------------------------------------------------------------------------

_MAX_WAIT = 60  # seconds between two attempts
_USER_AGENT = "deepinfra_min/{} Python/{}.{}.{}".format(__version__, *sys.version_info[:3])


def _cut_frames(error: Exception) -> None:
    """Drop the traceback and the context of an error and of its cause.

    Error reporters show the local variables of every frame. The token stands in some of them, in
    http.client's as well, and so do answers, which may quote it.
    """
    error.__traceback__ = error.__context__ = None
    if error.__cause__:
        error.__cause__.__traceback__ = error.__cause__.__context__ = None


def _require(
    condition: object,
    setting: str,
    problem: str,
    hint: str,
) -> None:
    if not condition:
        raise ConfigurationError(problem, setting=setting, hint=hint)


def _find_token(api_key: str | None) -> tuple[str, str]:
    """Return the token and where it came from, two empty strings if there is none."""
    if api_key is not None:  # "" means none; white space or quotes alone are a mistake
        return _strip_quotes(api_key) or api_key, "api_key"
    for name in ("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN"):
        token = _strip_quotes(os.environ.get(name, ""))
        if token:
            return token, name
    return "", ""


def _strip_quotes(text: str) -> str:
    """Return a value without the quotes and CRs that copying from a .env file leaves."""
    return text.strip().strip("\"'").strip()


def _check_base_url(url: str) -> str:
    """Return the URL without its last slash; it has no place for credentials or a query."""
    pattern = r"(?i)https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?(/[!\"$->A-~]*)?"
    with contextlib.suppress(ValueError):  # a port or an IPv6 address that can't be
        parts = urllib.parse.urlsplit(url.strip().rstrip("/"))
        if re.fullmatch(pattern, parts.geturl(), re.ASCII) and parts.port != 0:
            return parts.geturl()
    problem = "the base URL is not http[s]://host[:port][/path]"
    hint = f"check base_url= or DEEPINFRA_BASE_URL; the default is {DEFAULT_BASE_URL}"
    raise ConfigurationError(problem, setting="base_url", hint=hint)


def _is_header(name: str, value: str) -> bool:
    """Tell whether a header can be sent as it is; the framing of the request is http.client's."""
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    is_framing = name.lower() in ("content-length", "transfer-encoding")
    is_name = re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) and not is_framing
    return bool(is_name and re.fullmatch(r"[\t -~\xa0-\xff]*", value))


def _is_loopback(host: str | None) -> bool:
    """Tell whether a host is this machine, so that nothing leaves it."""
    try:
        return socket.inet_pton(socket.AF_INET, host or "")[0] == 127
    except OSError:  # it is no IPv4 address
        return host in ("localhost", "::1")


def _chat_payload(messages: Messages, model: str | None, params: _Object) -> _Object:
    if params.get("stream") is not None:
        raise TypeError("stream= can't be set: stream() streams the answer, chat() waits for it")
    if isinstance(messages, (Mapping, Message)):
        raise TypeError("messages must be a string or a list of messages, not one message")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    payload = {"model": model or DEFAULT_MODEL, "messages": list(messages), **params}
    return {name: value for name, value in payload.items() if value is not None}


def _log(level: str, message: str, *args: object) -> None:
    logging = sys.modules.get("logging")  # a program that has not imported it does not log
    if logging:
        getattr(logging.getLogger("deepinfra_min"), level)(message, *args)


# ---- Connection ----------------------------------------------------------------------------------

# ValueError comes from an odd host name, or a header that the email package can't parse;
# RuntimeError from an ssl module without TLS (Pyodide).
_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError, RuntimeError)
_WOULD_BLOCK = (BlockingIOError, getattr(ssl, "SSLWantReadError", BlockingIOError))
_SSL_ERROR = getattr(ssl, "SSLError", ())
_SSL_EOF_ERROR = getattr(ssl, "SSLEOFError", ())
_MAX_IDLE = 32  # connections
_MAX_INTERIM = 16  # answers with a status below 200, before the one that counts


class _Exchange:
    """One attempt to send a request and read the answer, on a connection that no other call uses.

    Each step (TCP, a proxy's tunnel, TLS, a part of the request or of the answer) has a time limit.
    """

    cut_error: type[DeepInfraError] = APIConnectionError  # for an answer that breaks off
    _wire: Any = None
    _response: Any = None
    _is_complete = False

    def __init__(self, client: Client, started: float) -> None:
        self.mask = client._mask
        self.token_source = client._token_source
        self._pool = client._pool
        names = ("timeout", "connect_timeout", "deadline")
        self._limits = {name: _as_seconds(getattr(client, name)) for name in names}
        self._end = started + self._limits["deadline"]
        self.enter("TCP")

    def enter(self, layer: str) -> None:
        """Note which layer acts next: "TCP", "proxy", "TLS" or "answer"."""
        self._layer = layer
        self.start_step()

    def start_step(self) -> None:
        """Start the clock for a layer, or for the next part of the request or the answer."""
        name = "timeout"
        if self._layer != "answer" and self._limits["connect_timeout"] < self._limits[name]:
            name = "connect_timeout"
        self._limit_name = name
        self._step_end = time.monotonic() + self._limits[name]
        if self._end < self._step_end:
            self._limit_name = "deadline"
            self._step_end = self._end

    def time_left(self) -> float:
        """Return how long the next wait may take, for a socket's timeout."""
        left = self._step_end - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return min(left, 1e6)  # a socket takes no more

    def begin(self, request: urllib.request.Request) -> None:
        """Send the request; raise unless the answer is a 2xx."""
        try:
            status = self._send_request(request)
            if not 200 <= status < 300:
                self._raise_for_status(status)
        except BaseException:
            self.close()
            raise

    def _send_request(self, request: urllib.request.Request) -> int:
        method = request.get_method()
        started = time.monotonic()
        self._wire = self._pool.take()
        self._is_on_kept_connection = self._wire is not None
        if self._wire is None:
            self._wire = self._run(self._pool.dial, self)
        self._wire.compose(request)
        self.enter("answer")
        self._response = self._run(self._wire.fetch, method, self)
        status: int = self._response.status
        self.headers = self._response.headers
        self._has_body = method != "HEAD" and status not in (101, 204, 304)
        names = [name.lower() for name in self.headers]
        self._lengths = names.count("content-length") + names.count("transfer-encoding")
        self._is_surely_empty = method != "HEAD" and status == 204 and self._lengths == 0
        seconds = time.monotonic() - started
        _log("debug", "%s %s: HTTP %d in %.3f s", method, request.full_url, status, seconds)
        return status

    def _raise_for_status(self, status: int) -> None:
        """Raise the error for a status, with as much of the body as comes soon."""
        self._end = min(self._end, time.monotonic() + 10)
        body = bytearray()
        with contextlib.suppress(DeepInfraError):
            for block in self.read_blocks(_MIB):
                body += block
        if status == 407 and self._pool.proxy and not self._pool.is_tls:
            raise self._pool.refusal(status)
        raise _api_error(_decode(body), status, self)

    def read_blocks(self, limit: float = _MAX_BODY) -> Iterator[bytes]:
        """Yield the body as it arrives, block by block; raise `cut_error` if it breaks off."""
        size = 0
        block = self._read_block(size)
        while block:
            size += len(block)
            if size > limit:
                raise _too_large("the body")
            yield block
            block = self._read_block(size)

    def _read_block(self, size: int) -> bytes:
        """Return the next block of a body of which `size` bytes are read, b"" at its end."""
        response = self._response
        if not self._has_body:
            # A server may send one anyway, so late that the next call would read it.
            self._is_complete = self._is_surely_empty
            return b""
        self.start_step()
        block = b""
        if response.length != 0:
            block = self._run(response.read1, 65536)
        if not block:
            is_until_closed = response.length is None and not response.chunked
            if response.length or (is_until_closed and size == 0):
                raise self._failure(http.client.IncompleteRead(b""))  # http.client ends quietly
            # Where the head gives two lengths, the rest of the answer may still come.
            self._is_complete = not response.will_close and self._lengths == 1
        return block

    def read_end(self) -> None:
        """Read the end of a body after [DONE], if it comes soon, so as to keep the connection."""
        self._end = min(self._end, time.monotonic() + 0.25)
        with contextlib.suppress(DeepInfraError):
            while not self._response.will_close and self._read_block(1):
                pass

    def close(self) -> None:
        """Let the pool keep the connection if the whole answer was read, else close it."""
        if self._wire is None:
            return
        self._wire.leave()
        if self._is_complete:
            self._pool.keep(self._wire)
        else:
            self._wire.disconnect()
        self._wire = None

    def retry_wait(self, error: DeepInfraError, retries: int) -> float:
        """Return the seconds to wait before another attempt."""
        if self.has_lost_kept_connection(error):
            return 0.0
        wait: float | None = getattr(error, "retry_after", None)
        if wait is None:
            wait = 0.5 * 2.0 ** min(retries, 4)  # up to 8 seconds
            wait *= random.uniform(0.75, 1.0)
        return wait

    def has_lost_kept_connection(self, error: DeepInfraError) -> bool:
        """Tell whether the server closed the connection while it was idle."""
        return self._is_on_kept_connection and isinstance(error, APIConnectionError)

    def _run(self, action: Callable[..., Any], *args: Any) -> Any:
        """Return `action(*args)`; raise one of our errors for one of the network's."""
        try:
            return action(*args)
        except DeepInfraError:  # an APITimeoutError is an OSError, too
            raise
        except _NETWORK_ERRORS as error:
            if _is_timeout(error) and not self._is_time_up() and sys.platform != "emscripten":
                raise  # A signal handler raised it. Emscripten reports other failures as timeouts.
            cause = error if isinstance(error, OSError) else None  # others can quote the server
            raise self._failure(error) from cause

    def _is_time_up(self) -> bool:
        return time.monotonic() >= self._step_end - 0.01

    def _failure(self, error: Any) -> DeepInfraError:
        """Return our error for one of the network's: what failed, where, and what to do."""
        place = self._pool.place(self._layer)
        if _is_timeout(error) and self._is_time_up():
            return self._timeout_error(place)
        reason = getattr(error, "strerror", None) or str(error)
        reason = _clean(self.mask(reason))
        error_class: type[DeepInfraError] = APIConnectionError
        is_retryable = self._wire is None or self._wire.status_lines == 0
        hint = "check the base URL, the proxy's address, the network, and that a server is there"
        if isinstance(error, (socket.gaierror, UnicodeError)):
            what = f"DNS can't resolve {place}: {reason}"
        elif self._layer == "TCP":
            what = f"TCP can't connect to {place}: {reason}"
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                hint = "close files and connections, or raise the limit of open ones (ulimit -n)"
        elif hasattr(error, "verify_code"):
            self._pool.forget_context()
            what = f"TLS: the certificate of {place} is not trusted: {error.verify_message}"
            hint = _certificate_hint(error.verify_code)
            is_retryable = False
        elif self._layer == "TLS" or (isinstance(error, _SSL_ERROR) and not _is_cut(error)):
            what = f"TLS with {place} failed: {reason}"
            hint = "check that the port speaks https, and that no firewall or proxy breaks in"
        elif _is_cut(error):
            error_class = self.cut_error
            what = f"{place} cut the connection before the answer"
            if not is_retryable:
                what = f"{place} cut the connection within the answer"
            hint = "ask again"
        else:
            error_class = APIResponseError
            is_retryable = False
            what = f"{place} does not answer in HTTP: {reason}"
            hint = "check the base URL and its port"
        failure = error_class(what, hint=hint)
        failure.is_retryable = is_retryable
        return failure

    def _timeout_error(self, place: str) -> APITimeoutError:
        """Return the error for the limit that has run out."""
        name = self._limit_name
        limit = f"{self._limits[name]:g} s"
        if name == "deadline":
            error = APITimeoutError(f"the call passed its deadline of {limit}")
            error.hint = "raise deadline="
        elif self._layer == "answer":
            error = APITimeoutError(f"{place} was silent for the timeout of {limit}")
            error.hint = "raise timeout= or --timeout: a model may think for minutes"
        else:
            error = APITimeoutError(f"connecting to {place} took longer than {name}, {limit}")
            error.hint = f"check the base URL, the network and the proxy, or raise {name}="
            error.is_retryable = True
        return error


def _as_seconds(limit: float | None) -> float:
    """Return a limit as a number that can be added to a time."""
    return 1e9 if limit is None else float(min(limit, 1e9))


def _is_timeout(error: Exception) -> bool:
    """Tell whether an error is a socket's timeout, or what a signal handler raises to look so."""
    is_timeout = isinstance(error, (socket.timeout, TimeoutError))  # one class from 3.10 on
    return is_timeout and getattr(error, "errno", None) is None


def _is_cut(error: Exception) -> bool:
    """Tell whether a connection ended, rather than brought something that is no HTTP."""
    if isinstance(error, _SSL_ERROR):
        return isinstance(error, _SSL_EOF_ERROR)
    if isinstance(error, (OSError, http.client.IncompleteRead)):
        return True
    line = getattr(error, "line", "\n")  # a status line that http.client can't read
    return "HTTP/".startswith(line[:5]) and not line.endswith("\n")


def _certificate_hint(verify_code: int) -> str:
    """Return what to do about a certificate, by OpenSSL's X509_V_ERR code."""
    if verify_code in (9, 10):  # not yet valid, or expired
        return "check this machine's clock; if it is right, the server needs a new certificate"
    if verify_code in (62, 64):  # another host's name, or another IP address
        return "check the host name in the base URL"
    file = os.environ.get("SSL_CERT_FILE")
    if file and not os.access(file, os.R_OK):
        return f"SSL_CERT_FILE is a file that can't be read: {file}"
    paths = ssl.get_default_verify_paths()
    certificates: Any = paths.cafile
    with contextlib.suppress(OSError):
        certificates = certificates or os.listdir(paths.capath or "")
    if not certificates:
        return "this machine has no CA certificates: install ca-certificates"
    return "set SSL_CERT_FILE to the CA's PEM file, or pass ssl_context="


class _Pool:
    """The way to a server, through a proxy or not, and the idle connections to it."""

    def __init__(self, client: Client) -> None:
        url = urllib.parse.urlsplit(client.base_url)
        self.is_tls = url.scheme == "https"
        self.target = url.netloc
        self._host = url.hostname or ""
        self._port = url.port or (443 if self.is_tls else 80)
        self._given_context = self._context = client._ssl_context
        self._next_hop = (self._host, self._port)
        self.proxy = _find_proxy(url, client._proxy)
        if self.proxy:
            self._next_hop = (self.proxy.hostname, self.proxy.port or 80)
        self._idle: list[_Wire] = []
        self._closings = 0
        self._locks: dict[int, Any] = {}

    def place(self, layer: str) -> str:
        """Return the host that a layer speaks to, for messages."""
        if self.proxy and (layer in ("TCP", "proxy") or not self.is_tls):
            return "the proxy {}:{}".format(*self._next_hop)
        return self.target

    def route(self, request: urllib.request.Request) -> None:
        """Have a plain http request ask the proxy, if there is one, for the whole URL."""
        if self.proxy and not self.is_tls:
            request.set_proxy("{}:{}".format(*self._next_hop), "http")
            _add_login(request, self.proxy)

    def take(self) -> _Wire | None:
        """Return an idle connection, None if there is none."""
        with self._lock():
            self._close_unusable()
            return self._idle.pop() if self._idle else None

    def keep(self, wire: _Wire) -> None:
        """Take a connection back for another call, unless close() was called meanwhile."""
        with self._lock():
            self._close_unusable()
            if wire.generation == self._generation() and len(self._idle) < _MAX_IDLE:
                self._idle.append(wire)
            else:
                wire.disconnect()

    def close(self) -> None:
        """Close the idle connections, and have `keep` close those that were dialled until now."""
        with self._lock():
            self._closings += 1
            self._close_unusable()

    def _lock(self) -> Any:
        """Return this process's lock: a fork may have copied one that is held."""
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def _generation(self) -> tuple[int, int]:
        """Return what changes with a fork and with close(): connections of before are not used."""
        return os.getpid(), self._closings

    def _close_unusable(self) -> None:
        """Close the idle connections that have ended, or that can't be used again.

        Each is out of the list meanwhile, since a signal handler may use the client as well.
        """
        usable: list[_Wire] = []
        generation = self._generation()
        while self._idle:
            wire = self._idle.pop(0)
            if wire.generation == generation and wire.is_idle():
                usable.append(wire)
            else:
                wire.disconnect()
        self._idle.extend(usable)

    def dial(self, exchange: _Exchange) -> _Wire:
        """Return a new connection: TCP, then the proxy's tunnel, then TLS."""
        generation = self._generation()
        context = None
        if self.is_tls:
            exchange.enter("TLS")
            context = self._tls_context()
            exchange.enter("TCP")
        sock = socket.create_connection(self._next_hop, exchange.time_left())
        try:
            _set_options(sock)
            if context and self.proxy:
                exchange.enter("proxy")
                self._open_tunnel(_Wire(sock, generation), exchange)
            if context:
                exchange.enter("TLS")
                sock.settimeout(exchange.time_left())
                sock = context.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise
        return _Wire(sock, generation)

    def _open_tunnel(self, wire: _Wire, exchange: _Exchange) -> None:
        """Ask the proxy for a connection to the server."""
        request = urllib.request.Request("https://" + self.target, method="CONNECT")
        request.selector = f"{self._host}:{self._port}"
        if ":" in self._host:  # an IPv6 address
            request.selector = f"[{self._host}]:{self._port}"
        request.add_header("Host", request.selector)
        _add_login(request, self.proxy)
        wire.compose(request)
        status = wire.fetch("CONNECT", exchange).status
        if not 200 <= status < 300:
            raise self.refusal(status)

    def refusal(self, status: int) -> APIConnectionError:
        """Return the error for a proxy that answers instead of the server."""
        place = self.place("proxy")
        what = f"{place} refused the connection: {status} {http.client.responses.get(status, '')}"
        hint = "check the base URL, HTTPS_PROXY=http://user:password@host:port or proxy=, NO_PROXY"
        return APIConnectionError(what, hint=hint)

    def forget_context(self) -> None:
        """Have a context of ours made anew: one made without free file descriptors has no CAs."""
        self._context = self._given_context

    def _tls_context(self) -> Any:
        """Return the context for TLS; making it takes 20 ms, so it is made once."""
        with self._lock():
            if self._context is None:
                with contextlib.suppress(AttributeError, NotImplementedError):
                    self._context = ssl.create_default_context()
        problem = "https needs the ssl module, which this Python lacks"  # or (Pyodide) its TLS
        hint = "use another Python, or a local server over plain http"
        _require(self._context, "ssl_context", problem, hint)
        return self._context


def _find_proxy(url: Any, setting: str | None) -> Any:
    """Return the parts of the proxy's URL, that of the environment if the setting is None."""
    if setting is None:
        if _is_loopback(url.hostname) or urllib.request.proxy_bypass(url.netloc):
            return None
        setting = urllib.request.getproxies().get(url.scheme)
    if not setting:
        return None
    if "://" not in setting:
        setting = f"http://{setting}"
    with contextlib.suppress(ValueError):  # a port or an IPv6 address that can't be
        setting.encode()  # fails for bytes of the environment that are not UTF-8
        proxy = urllib.parse.urlsplit(setting)
        has_address = proxy.hostname and proxy.port != 0
        ends_with_address = setting.rstrip("/").endswith(proxy.netloc)
        if proxy.scheme == "http" and has_address and ends_with_address:
            return proxy
    shown = re.sub("(?s)//.*@", "//", setting)  # without a password
    problem = f"the proxy {shown} is not of the form http://host:port"
    hint = "set HTTPS_PROXY, HTTP_PROXY or proxy= to an http:// proxy"
    raise ConfigurationError(problem, setting="proxy", hint=hint)


def _add_login(request: urllib.request.Request, proxy: Any) -> None:
    if proxy.username is not None:
        login = urllib.parse.unquote(f"{proxy.username}:{proxy.password or ''}")
        basic = base64.b64encode(login.encode()).decode()
        request.add_header("Proxy-Authorization", f"Basic {basic}")


def _set_options(sock: socket.socket) -> None:
    """Send without delay, and probe a silent peer after a minute, where the system allows it."""
    idle = getattr(socket, "TCP_KEEPIDLE", 0x10)  # macOS's TCP_KEEPALIVE, named since 3.10
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, idle, 60),
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)


class _SocketReader(io.RawIOBase):
    """Reads a connection's bytes; the exchange says how long to wait, None not to wait."""

    exchange: _Exchange | None = None

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(self.exchange.time_left() if self.exchange else 0.0)
        count: int = self.sock.recv_into(buffer)
        return count


class _Wire(io.BufferedReader):
    """A connection as http.client uses it: the socket that it writes to, the file that it reads.

    All answers come through this one reader, so what follows an answer is not lost with it.
    """

    def __init__(self, sock: socket.socket, generation: tuple[int, int]) -> None:
        self._socket = _SocketReader(sock)
        super().__init__(self._socket)
        self.generation = generation
        self.status_lines = 0  # of the answer that is being read
        self._outbox = bytearray()

    def compose(self, request: urllib.request.Request) -> None:
        """Have http.client write a request into the outbox, which `fetch` sends.

        So head and body leave together, and errors of the network don't pass through http.client,
        whose frames hold the token.
        """
        connection = http.client.HTTPConnection(request.host)
        connection.sock = self
        try:
            connection.request(
                request.get_method(),
                request.selector,
                request.data,
                dict(request.header_items()),
            )
        except BaseException as error:  # pragma: no cover  (Ctrl-C: the frames hold the token)
            raise error.with_traceback(None)  # noqa: B904

    def sendall(self, data: bytes) -> None:
        self._outbox += data

    def makefile(self, mode: str) -> _Wire:
        return self

    def close(self) -> None:
        """Do nothing: http.client flushes and closes its file at the end of every answer."""

    flush = close

    def fetch(self, method: str, exchange: _Exchange) -> http.client.HTTPResponse:
        """Send the request; return the answer once its head has come, past all interim ones."""
        self._socket.exchange = exchange
        self.status_lines = 0
        try:
            self._send(exchange)
        except OSError as error:
            if _is_timeout(error):
                raise
            # An early answer may be there, such as a 413.
        exchange.start_step()
        while True:
            response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
            response.begin()
            if response.status >= 200 or response.status == 101:
                return response

    def _send(self, exchange: _Exchange) -> None:
        data = memoryview(self._outbox)
        self._outbox = bytearray()
        for start in range(0, len(data), 65536):
            exchange.start_step()
            self._socket.sock.settimeout(exchange.time_left())
            self._socket.sock.sendall(data[start : start + 65536])

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line, and count the status lines: http.client skips any number of 100s."""
        line = super().readline(size)
        if line.startswith(b"HTTP/") and line.endswith(b"\n"):
            self.status_lines += 1
            if self.status_lines > _MAX_INTERIM + 1:
                raise http.client.HTTPException(f"more than {_MAX_INTERIM} interim answers")
        return line

    def is_idle(self) -> bool:
        """Tell whether nothing has come since `leave`, neither bytes nor the end. Don't wait."""
        try:
            self.peek(1)
        except _WOULD_BLOCK:
            return True
        except OSError:  # it was reset
            pass
        return False

    def leave(self) -> None:
        """Let go of the exchange, which refers to the client; reading does not wait any more."""
        self._socket.exchange = None

    def disconnect(self) -> None:
        self._socket.sock.close()


# ---- Answer --------------------------------------------------------------------------------------


def iter_sse(blocks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream that comes as blocks of bytes, each as soon as it is complete.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html, without `id` and
    `retry`, and does no I/O. Raises APIResponseError for an event of more than 64 MiB.
    """
    event = ""
    data: list[bytes] = []
    size = 0
    for line in _iter_lines(blocks):
        if not line:
            if data:
                text = b"\n".join(data).decode("utf-8", "replace")
                yield ServerSentEvent(event or "message", text)
            event, data, size = "", [], 0
            continue
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            data.append(value)
            size += len(line) + 1
            if size > _MAX_BODY:
                raise _too_large("an event")
        elif name == b"event":
            event = value.decode("utf-8", "replace")


def _iter_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their CR, LF or CRLF; drop a BOM, and a last line that has no end."""
    is_first = True
    begun = bytearray()  # a line whose end has not come
    is_after_cr = False
    for block in blocks:
        if is_after_cr and block.startswith(b"\n"):
            block = block[1:]  # the rest of a CRLF, whose CR has ended the line
            is_after_cr = False
        if not block:
            continue
        is_after_cr = block.endswith(b"\r")
        lines = block.splitlines()  # of bytes: at CR, LF and CRLF alone
        rest = b""
        if not block.endswith((b"\r", b"\n")):
            rest = lines.pop()
        if lines:
            lines[0] = bytes(begun) + lines[0]
            begun.clear()
            if is_first and lines[0].startswith(b"\xef\xbb\xbf"):
                lines[0] = lines[0][3:]
            is_first = False
            yield from lines
        begun += rest
        if len(begun) > _MAX_BODY:
            raise _too_large("a line")


def _decode(body: bytes | bytearray) -> str:
    return body.decode("utf-8-sig", "replace")


def _too_large(what: str) -> APIResponseError:
    return APIResponseError(
        f"{what} of the answer is larger than {_MAX_BODY // _MIB} MiB",
        hint="check that the base URL is that of a chat API",
    )


def _iter_chunks(
    blocks: Iterable[bytes], exchange: _Exchange
) -> Generator[ChatCompletionChunk, None, None]:
    """Yield the chunks of a stream; raise unless it proves complete."""
    beginning = bytearray()  # of the body, until an event comes
    has_event = False
    is_done = False
    reasons: dict[int, str | None] = {}  # why each choice ended
    halves: dict[tuple[int, str], str] = {}  # of characters, by choice and field

    def copy_beginning() -> Iterator[bytes]:
        for block in blocks:
            if not has_event and len(beginning) < _MIB:
                beginning.extend(block)
            yield block

    for event in iter_sse(copy_beginning()):
        has_event = True
        data = event.data.strip()
        if data == "[DONE]":
            is_done = True
            break
        if event.event == "error":
            raise _api_error(data, None, exchange)
        if not data:
            continue
        chunk = _read_json(data, ChatCompletionChunk._parse, exchange)
        for choice in chunk.choices:
            if choice.finish_reason or choice.index not in reasons:
                reasons[choice.index] = choice.finish_reason
            if halves or "\\u" in data:  # JSON can hold half a character only as an escape
                _join_halves(choice, halves)
        is_keepalive = chunk.raw.get("choices", ()) is None and not chunk.usage
        if not is_keepalive:
            yield chunk
    for index, name in halves:
        delta = Message()
        setattr(delta, name, "\ufffd")
        yield ChatCompletionChunk(choices=(ChunkChoice(index, delta),))
    if not has_event:
        _check_beginning(_decode(beginning), exchange)
    _check_end(is_done, reasons)


def _check_end(is_done: bool, reasons: dict[int, str | None]) -> None:
    """Raise unless [DONE], or a finish reason of each choice, proves that a stream is complete."""
    if reasons and (is_done or all(reasons.values())):
        return
    hint = "nothing arrived: chat() or --no-stream may show why"
    if is_done:
        raise APIResponseError("the stream has no choices", hint=hint)
    if reasons:
        hint = "what arrived is a part of the answer: ask again"
    problem = "the stream ended before the answer was complete"
    raise StreamInterruptedError(problem, hint=hint)


def _join_halves(choice: ChunkChoice, halves: dict[tuple[int, str], str]) -> None:
    """Move half a character from the end of a text to the front of the choice's next one.

    Servers that cut strings by UTF-16 send half an emoji a chunk, which can't be printed.
    """
    for name in ("content", "reasoning_content"):
        text = getattr(choice.delta, name) or ""
        if text or choice.finish_reason:
            text = halves.pop((choice.index, name), "") + text
        if "\ud800" <= text[-1:] <= "\udbff" and not choice.finish_reason:
            halves[choice.index, name] = text[-1]
            text = text[:-1]
        if getattr(choice.delta, name) or text:
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            setattr(choice.delta, name, text)


def _check_beginning(text: str, exchange: _Exchange) -> None:
    """Raise for a body without events, unless it is the beginning of an event stream."""
    content_type = exchange.headers.get("Content-Type", "").lower()
    is_stream = "event-stream" in content_type or re.match("(data|event|id|retry)?:", text)
    if not is_stream or text.lstrip().startswith(("{", "[", "<")):
        _read_json(text, dict, exchange)
        error = _response_error("the server ignores `stream`: it sent JSON", text, exchange)
        error.hint = "use chat() or --no-stream"
        raise error


def _read_json(text: str, parse: _Parse[Any] | None, exchange: _Exchange) -> Any:
    """Return decoded JSON, parsed, or as it is if `parse` is None.

    Raises APIError for an error payload, APIResponseError for what is not as the API promises.
    """
    try:
        payload = _decode_json(text)
        is_object = isinstance(payload, dict)
        if is_object and ("error" in payload or "detail" in payload):
            _raise_for_error(payload, text, parse is None, exchange)
        if parse is None:
            return payload
        if not is_object:
            raise _wrong_shape("the answer", payload, dict)
        return parse(payload)
    except _ShapeError as error:
        problem = str(error)
    except (ValueError, RecursionError) as error:
        problem = f"the answer is not JSON: {error}"
        if not text.strip():
            problem = "the answer is empty"
            if parse is None:
                return None
    raise _response_error(problem, text, exchange)


def _response_error(problem: str, text: str, exchange: _Exchange) -> APIResponseError:
    hint = "check that the base URL is that of a chat API, or ask again"
    if text.lstrip().startswith("<"):
        hint = "a proxy or captive portal answered: check the base URL"
    beginning = exchange.mask(text[:5000])
    return APIResponseError(problem, hint=hint, body=beginning[:200])


def _raise_for_error(
    payload: _Object, text: str, is_any_endpoint: bool, exchange: _Exchange
) -> None:
    """Raise an APIError if JSON in a 200 is an error payload.

    A job of another endpoint may have an `error` of its own, beside other fields.
    """
    has_detail = payload.get("detail") and "choices" not in payload
    is_job = is_any_endpoint and len(payload) > 1
    if (payload.get("error") or has_detail) and not is_job:
        raise _api_error(text, None, exchange)


def _parse_completion(raw: _Object) -> ChatCompletion:
    completion = ChatCompletion._parse(raw)
    if not completion.choices:
        raise _ShapeError("the answer has no choices")
    return completion


def _parse_models(raw: _Object) -> list[Model]:
    return list(_get_list(raw, "data", Model._parse))


def collect(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Return the whole answer that a stream's chunks add up to.

    Raises what iterating the chunks raises, with the answer so far as the error's `partial`. `raw`
    is the JSON that `chat` would have received.
    """
    raw: _Object = {}
    choices: dict[int, list[ChunkChoice]] = {}
    try:
        for chunk in chunks:
            for choice in chunk.choices:
                choices.setdefault(choice.index, []).append(choice)
            for name, value in _to_dict(chunk).items():
                if value or (name in chunk.raw and name not in raw):
                    raw[name] = value
    except DeepInfraError as error:
        error.partial = _build_completion(raw, choices)
        raise
    return _build_completion(raw, choices)


def _build_completion(raw: _Object, choices: dict[int, list[ChunkChoice]]) -> ChatCompletion:
    raw.update(object="chat.completion", choices=[])
    if "usage" in raw:
        raw["usage"] = _to_dict(raw["usage"])
    for index in sorted(choices):
        choice = {"index": index, **_join_objects(choices[index])}
        message = {"role": "assistant", "content": None, **choice.pop("delta")}
        raw["choices"].append({**choice, "message": message})
    try:
        return ChatCompletion._parse(raw)
    except _ShapeError as error:  # too many choices or tool calls
        raise APIResponseError(str(error)) from None


def _join_objects(parts: Iterable[Any]) -> _Object:
    """Return as JSON what the parts of an object add up to."""
    values: dict[str, list[Any]] = {}
    for part in parts:
        for name, value in _to_dict(part).items():
            values.setdefault(name, []).append(value)
    return {name: _join_values(name, values[name]) for name in values}


def _join_values(name: str, values: list[Any]) -> Any:
    """Return what the parts of a field add up to: strings and lists joined, else the last one."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    if name in ("role", "name", "tool_call_id", "id", "type"):
        return next(filter(None, values), None)
    if name == "finish_reason":
        return next(filter(None, reversed(values)), None)
    kinds = set(map(type, values))
    if name == "logprobs" and kinds == {dict}:
        return _join_logprobs(values)
    if kinds == {str}:
        return "".join(values)
    if kinds == {list}:
        return [item for value in values for item in value]
    if kinds == {tuple}:
        return _join_calls(call for calls in values for call in calls)
    if kinds <= {Message, Function}:
        return _join_objects(values)
    return values[-1]


def _join_logprobs(values: list[_Object]) -> _Object:
    """Return one object of lists, for the tokens of all chunks."""
    joined: _Object = {}
    for value in values:
        for name, items in value.items():
            known = joined.get(name)
            if isinstance(known, list) and isinstance(items, list):
                known.extend(items)
            elif known is None:
                joined[name] = list(items) if isinstance(items, list) else items
    return joined


def _join_calls(pieces: Iterable[ToolCall]) -> list[_Object]:
    """Return as JSON the tool calls that the pieces add up to.

    A piece belongs to the call of its id, else of its index, else to the last one.
    """
    calls: list[list[ToolCall]] = []
    known: dict[tuple[str, object], list[ToolCall]] = {}
    call: list[ToolCall] = []
    for piece in pieces:
        by_id = ("id", str(piece.id))
        by_index = ("index", piece.index)
        if piece.id and by_id in known:
            call = known[by_id]
        elif piece.index is not None:
            call = known.get(by_index, [])
            is_named = piece.id and piece.function.name
            if is_named and any(other.id for other in call):
                call = []  # some servers give every call the index 0
        elif piece.id:
            call = []
        if not call:
            calls.append(call)
        call.append(piece)
        if piece.id:
            known[by_id] = call
        if piece.index is not None:
            known[by_index] = call
    return [_join_objects(call) for call in calls]


# ---- Command line --------------------------------------------------------------------------------

_EPILOG = """\
examples:
  python -m deepinfra_min "Why is the sky blue?"
  git diff | python -m deepinfra_min "Review this change."
  python -m deepinfra_min -i -s "You are a patient teacher."
  python -m deepinfra_min --json -o seed=1 -o response_format=@f.json "3 trees?"

environment:
  DEEPINFRA_TOKEN (else DEEPINFRA_API_KEY, DEEPINFRA_API_TOKEN),
  DEEPINFRA_MODEL, DEEPINFRA_BASE_URL;
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE as everywhere

exit codes:
  0    complete
  1    anything else, stdout that can't be written
  2    usage, nothing to send
  3    token missing, malformed or refused; payment
  4    the request was refused
  5    too many requests, after the retries
  6    could not reach or finish: DNS, TLS, proxy, timeout, 5xx, no API
  7    the answer on stdout is partial, whatever the cause
  130  Ctrl-C
  141  the reader of stdout went away"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `--help` lists both."""
    try:
        _prepare_streams()
        if argv is None:
            argv = sys.argv[1:]
        return _run(_parse_arguments(argv))
    except KeyboardInterrupt:  # pragma: no cover  (a process that a signal ends reports nothing)
        return _die_of_ctrl_c()
    except Exception as error:
        return _report(error)


def _prepare_streams() -> None:
    """Replace closed streams; make pipes UTF-8, whatever the locale; let stdin wait for input."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", errors="replace")  # noqa: SIM115
    if not sys.stdout:
        raise OSError(errno.EBADF, "it is closed")
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.set_blocking(sys.stdin.fileno(), True)
    for stream in (sys.stdin, sys.stdout):
        if not stream.isatty() and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _die_of_ctrl_c() -> int:  # pragma: no cover
    """End as Ctrl-C ends a program, so that a shell's loop ends, too."""
    if os.name == "posix":
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 130  # where there are no signals


def _parse_arguments(argv: list[str]) -> Any:
    """Return the arguments, with what -o says as `params`."""
    errors = sys.getfilesystemencodeerrors()  # what the locale could not decode is UTF-8:
    argv = [word.encode("utf-8", errors).decode("utf-8", "replace") for word in argv]
    parser = _make_parser()
    args = parser.parse_args(argv)
    args.parser = parser
    readers = (args.prompt, args.messages).count("-")
    if readers == 2 or (readers and (args.interactive or args.no_stdin)):
        raise ConfigurationError("stdin can't be both read and not, or twice: see -, -i and -n")
    if args.models and args.interactive:
        raise ConfigurationError("--models and -i can't be combined")
    args.params = dict(map(_parse_option, args.option))
    return args


def _parse_option(option: str) -> tuple[str, Any]:
    name, equals, text = option.partition("=")
    if not equals or name in ("", "messages", "model", "stream"):
        raise ConfigurationError(f"-o {option}: not KEY=VALUE, or a KEY that has its own flag")
    if text.startswith("@"):
        text = _read_file(text[1:])
    return name, _parse_value(text)


def _parse_value(text: str) -> Any:
    """Return decoded JSON, or the text if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _make_parser() -> Any:
    import argparse  # here, since a program that imports this module may have no command line

    def fail(message: str) -> None:
        raise ConfigurationError(message, hint='see --help, and quote your prompt: "..."')

    parser: Any = argparse.ArgumentParser(
        "deepinfra_min",
        description="Ask a model on DeepInfra and stream its answer to stdout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=sys.version_info < (3, 8),  # 3.7 would not take joined short flags either
    )
    parser.error = fail
    parser.color = False  # Python 3.14 would turn colour on
    model = os.environ.get("DEEPINFRA_MODEL") or DEFAULT_MODEL
    add = parser.add_argument
    add("prompt", nargs="?", metavar="PROMPT", help="what to ask, one argument; - is stdin")
    add("-m", "--model", metavar="NAME", default=model, help=f"default: {DEFAULT_MODEL}")
    add("-s", "--system", metavar="TEXT", help="system prompt")
    text = "any parameter of the API; VALUE is JSON, else a string; @FILE reads it"
    add("-o", "--option", metavar="KEY=VALUE", action="append", default=[], help=text)
    add("--messages", metavar="FILE", help="JSON array of messages to begin from; - is stdin")
    add("--base-url", metavar="URL", help=f"default: {DEFAULT_BASE_URL}")
    add("--timeout", metavar="SECONDS", type=float, default=600, help="of silence; default: 600")
    add("--retries", metavar="N", type=int, default=2, help="default: 2")
    for names, text in (
        ("-i --interactive", 'a conversation; """ begins and ends a turn of several lines'),
        ("--json", "the whole answer as one JSON object"),
        ("--no-stream", "wait for the whole answer"),
        ("-r --reasoning", "show the reasoning, on stderr"),
        ("-u --usage", "show tokens, cost and seconds, on stderr"),
        ("--models", "list the models, one a line"),
        ("-n --no-stdin", "do not read stdin"),
        ("-v --verbose", "show requests, retries and tracebacks"),
        ("-V --version", "show the version"),
        ("-h --help", "show this help"),
    ):
        add(*names.split(), action="store_true", help=text)
    return parser


def _run(args: Any) -> int:
    """Do what the arguments say; return the exit code."""
    if args.help:
        _write(args.parser.format_help())
        return 0
    if args.version:
        _write(f"deepinfra_min {__version__}\n")
        return 0
    if args.verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    history = _read_history(args)
    turn = _read_first_turn(args)
    if not (turn or args.messages or args.models or args.interactive):
        _note(args.parser.format_usage(), end="")
        raise ConfigurationError("nothing to send", hint="give a prompt or pipe one in; see --help")
    options = {"timeout": args.timeout, "max_retries": args.retries}
    with Client(base_url=args.base_url, **options) as client:
        source = client._token_source or "nowhere"
        _log("debug", "model %s, token from %s", args.model, source)
        if args.models:
            return _print_models(client, args)
        if args.interactive:
            return _converse(client, args, history, turn)
        if turn:
            history.append({"role": "user", "content": turn})
        return _answer(client, args, history)


def _read_history(args: Any) -> list[Any]:
    """Return the messages of --messages, with -s as the system message."""
    history = _parse_value(_read_file(args.messages)) if args.messages else []
    is_array = isinstance(history, list)
    if not is_array or not all(isinstance(item, dict) for item in history):
        raise ConfigurationError(f"--messages {args.messages} holds no JSON array of messages")
    if args.system is None:
        return history
    history = [message for message in history if message.get("role") != "system"]
    return [{"role": "system", "content": args.system}, *history]


def _read_first_turn(args: Any) -> str:
    """Return the prompt, followed by what stdin holds."""
    parts = [args.prompt or ""]
    leave_stdin = args.messages == "-" or args.no_stdin or args.interactive or args.models
    if args.prompt == "-":
        parts = [_read_file("-")]
    elif not leave_stdin and not sys.stdin.isatty():
        parts.append(_read_file("-"))
    return "\n\n".join(part for part in parts if part.strip())


def _read_file(path: str) -> str:
    """Return the text of a file, "-" being stdin, with a warning if it is not UTF-8."""
    name = "stdin" if path == "-" else path
    try:
        if path == "-":
            data = _read_stdin()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise ConfigurationError(f"can't read {name}: {error.strerror}") from None
    text = data.decode("utf-8-sig", "replace")
    if text.encode() not in (data, data[3:]):  # data[3:]: what follows a BOM
        _note(f"deepinfra_min: warning: {name} is not valid UTF-8; invalid bytes were replaced")
    return text


def _read_stdin() -> bytes:
    """Return what stdin holds; after 3 seconds without its end, say what is waited for."""
    notice = "deepinfra_min: waiting for the end of stdin; to go without it: -n or </dev/null"
    timer = threading.Timer(3.0, _note, [notice])
    with contextlib.suppress(RuntimeError):  # no thread can be started
        timer.start()
    try:
        return sys.stdin.buffer.read()
    finally:
        timer.cancel()


def _print_models(client: Client, args: Any) -> int:
    if args.json:
        _write(_dump(client.request("GET", "/models")) + "\n")
    else:
        _write("".join(f"{model.id}\n" for model in client.models()))
    return 0


def _converse(
    client: Client,
    args: Any,
    history: list[Any],
    turn: str | None,
) -> int:
    """Answer the turns that stdin brings; return the last exit code."""
    code = 0
    turn = turn or _read_turn()
    while turn is not None:
        if turn.strip():
            history.append({"role": "user", "content": turn})
            code = _answer(client, args, history)
        turn = _read_turn()
    return code


def _read_turn() -> str | None:
    """Return the next turn of stdin, None at its end, "" for Ctrl-C.

    A turn is a line, or the lines from three quotes to the next three quotes.
    """
    turn = None
    try:
        turn = _read_line("> ")
        if not turn.startswith('"""'):
            return turn
        turn = turn[3:]
        while not turn.rstrip().endswith('"""'):
            turn += "\n" + _read_line(". ")
        return turn.rstrip()[:-3].strip("\n")
    except KeyboardInterrupt:
        _note("")
        return ""
    except OSError as error:
        raise ConfigurationError(f"can't read stdin: {error.strerror}") from None
    except EOFError:
        if sys.stdin.isatty():
            _note("")  # so that the shell's prompt stands on a line of its own
    if turn is not None:
        raise ConfigurationError('a turn that began with """ does not end with """')
    return None


def _read_line(prompt: str) -> str:
    if not sys.stdin.isatty():
        prompt = ""
    else:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits lines with it)
    if sys.stdout.isatty():
        return input(prompt)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers alone
        return input(prompt)


def _answer(client: Client, args: Any, history: list[Any]) -> int:
    """Print the answer to the history, and add it there; return the exit code."""
    args.started = time.monotonic()
    answer = None
    printed: list[str] = []
    code = 0
    try:
        answer = _ask(client, args, history, printed)
        code = _check_ending(answer)
    except DeepInfraError as error:
        answer = error.partial
        _end_line(printed)
        code = _report(error)
        if printed:
            code = 7
    except KeyboardInterrupt:
        if not args.interactive:
            raise  # pragma: no cover
        _end_line(printed)
    _remember(history, answer, "".join(printed))
    if args.usage and answer and (answer.usage or code == 0):
        _note(_describe_usage(answer.usage, time.monotonic() - args.started))
    return code


def _ask(
    client: Client,
    args: Any,
    history: list[Any],
    printed: list[str],
) -> ChatCompletion:
    """Print the answer, as it arrives or at once, and return it."""
    params = {"model": args.model, **args.params}
    is_whole = args.json or args.no_stream
    _draw_status("waiting")
    try:
        if is_whole:
            answer = client.chat(history, **params)
        else:
            if args.usage:
                params.setdefault("stream_options", {"include_usage": True})
            chunks = client.stream(history, **params)
            answer = collect(_print_chunks(chunks, args, printed))
    finally:
        if not printed:
            _draw_status("")
    if args.json:
        _print(_dump(answer.raw), printed)
        _end_line(printed)
        return answer
    message = _find_message(answer)
    if is_whole and args.reasoning and message.reasoning_content:
        _note(message.reasoning_content)
    if is_whole:
        _print(message.content or "", printed)
    _end_line(printed)
    for call in message.tool_calls:
        _print(_dump(call) + "\n", printed)
    return answer


def _find_message(answer: ChatCompletion) -> Message:
    """Return the message of the choice with index 0, which is the one that is printed."""
    choice = _first_choice(answer.choices)
    return choice.message if choice else Message()


def _print_chunks(
    chunks: Iterable[ChatCompletionChunk], args: Any, printed: list[str]
) -> Iterator[ChatCompletionChunk]:
    """Yield the chunks, each once choice 0's part of it is printed."""
    is_thinking = False
    try:
        for chunk in chunks:
            choice = _first_choice(chunk.choices)
            if choice:
                is_thinking = _print_delta(choice.delta, args, printed, is_thinking)
            yield chunk
    finally:
        if is_thinking:
            _note("")


def _print_delta(
    delta: Message,
    args: Any,
    printed: list[str],
    is_thinking: bool,
) -> bool:
    """Print a part of an answer; return whether stderr's last line is unfinished reasoning."""
    if delta.reasoning_content and args.reasoning:
        if not printed and not is_thinking:
            _draw_status("")
        is_thinking = True
        _note(delta.reasoning_content, end="")
    elif delta.reasoning_content and not printed:
        _draw_status(f"thinking {time.monotonic() - args.started:.0f} s")
    if delta.content:
        if is_thinking:
            _note("")
        is_thinking = False
        _print(delta.content, printed)
    return is_thinking


def _check_ending(answer: ChatCompletion) -> int:
    """Return the exit code for a whole answer; say what is wrong with it."""
    choice = _first_choice(answer.choices)
    if choice is None:
        return _complain("only other choices than 0 came", "--json shows them", 1)
    reason = choice.finish_reason
    if reason in ("stop", "tool_calls", None):
        return 0
    hints = {
        "length": "for a longer answer: -o max_tokens=...",
        "content_filter": "ask differently",
    }
    hint = hints.get(str(reason))
    if hint:
        return _complain(f"the answer is partial: it ended with {reason!r}", hint, 7)
    return _complain(f"the answer ended with {reason!r}", "see what -v shows", 1)


def _remember(
    history: list[Any],
    answer: ChatCompletion | None,
    printed: str,
) -> None:
    """Add what the model said to the history; remove a turn that has no answer."""
    message = Message(content=printed.rstrip("\n") or None)  # all there is of an interrupted one
    if answer:
        message = _find_message(answer)
    if message.content or message.tool_calls:
        message.role = "assistant"  # whatever the server calls it
        history.append(message)
    else:
        del history[-1:]


def _describe_usage(usage: Usage | None, seconds: float) -> str:
    if usage is None:
        return f"no usage reported, {seconds:.1f} s"
    text = f"{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens"
    cost: Any = usage.estimated_cost
    if cost is not None:
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # it may be any JSON
            cost = f"{float(cost):.10f}".rstrip("0").rstrip(".")
        text += f", ${cost}"
    return _clean(f"{text}, {seconds:.1f} s")


def _dump(value: Any) -> str:
    """Return JSON as people read it, without escapes but for halves of characters."""
    text = json.dumps(value, default=_to_json, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _print(text: str, printed: list[str]) -> None:
    """Write a part of the answer to stdout; wipe the status line before the first one."""
    if text:
        if not printed:
            _draw_status("")
        printed.append(text)
        _write(text)


def _end_line(printed: list[str]) -> None:
    if printed and not printed[-1].endswith("\n"):
        _print("\n", printed)


def _write(text: str) -> None:
    """Write all of a text to stdout, now."""
    stream: Any = sys.stdout
    text = _make_safe(text, stream)
    data = memoryview(text.encode(stream.encoding, "replace"))
    while data:
        count = stream.buffer.write(data)  # PYTHONUNBUFFERED's stdout may take a part
        if not count:
            raise BlockingIOError(errno.EAGAIN, "it would block")
        data = data[count:]
    stream.buffer.flush()


def _note(text: str, end: str = "\n") -> None:
    text = _make_safe(text, sys.stderr)
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


def _make_safe(text: str, stream: Any) -> str:
    """Replace control characters, with which a model or a server could drive a terminal."""
    if stream.isatty():
        text = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", text)
    return text


def _draw_status(text: str) -> None:
    """Show a status on the terminal's current line; "" wipes it."""
    if sys.stderr.isatty():
        with contextlib.suppress(OSError):
            print(f"\r{text:20}\r", end="", file=sys.stderr, flush=True)


def _report(error: Exception) -> int:
    """Print an error; return its exit code."""
    import traceback

    trace = traceback.format_exception(type(error), error, error.__traceback__)
    _log("debug", "%s", "".join(trace))
    if isinstance(error, DeepInfraError):
        hint = error.hint or "see --help"
        return _complain(str(error.args[0]), hint, _exit_code(error))
    if not isinstance(error, OSError):
        return _complain(f"{type(error).__name__}: {error}", "see what -v shows", 1)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # Python flushes stdout at exit, which would fail again.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141
    hint = "see that it is open and that its disk has room"
    return _complain(f"stdout can't be written: {error.strerror}", hint, 1)


def _exit_code(error: DeepInfraError) -> int:
    if isinstance(error, ConfigurationError):
        return {"api_key": 3, "proxy": 6, "ssl_context": 6}.get(error.setting, 2)
    if not isinstance(error, APIError):
        return 6
    status = error.status or 0
    if status >= 500:
        return 6
    codes = {0: 1, 401: 3, 402: 3, 403: 3, 429: 5}
    return codes.get(status, 4)


def _complain(what: str, hint: str, code: int) -> int:
    """Print what is wrong and what to do about it; return the exit code."""
    _note(f"deepinfra_min: error: {_clean(what)}")
    _note(f"  hint: {_clean(hint)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
