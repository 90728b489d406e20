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
copy it again. Read to the end of `Client` to use it; what follows is the way of a request, the way
of its answer, and the command line.
"""
from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import json
import os
import random
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field, fields, is_dataclass

try:
    import ssl
except ImportError:  # a Python built without it can still reach a local server
    ssl = None  # type: ignore[assignment]
TYPE_CHECKING = False  # typing's own would cost its import
if TYPE_CHECKING:
    import argparse
    from typing import Any, Callable, Generator, Iterable, Iterator, Mapping, NoReturn, TypeVar
    from urllib.request import HTTPSHandler

    Messages = str | Iterable[Mapping[str, Any] | "Message"]
    T = TypeVar("T")
else:
    HTTPSHandler = getattr(urllib.request, "HTTPSHandler", object)

__all__ = [
    "DEFAULT_BASE_URL", "DEFAULT_MODEL", "APIConnectionError", "APIError", "APIResponseError",
    "APITimeoutError", "AuthenticationError", "ChatCompletion", "ChatCompletionChunk", "Choice",
    "ChunkChoice", "Client", "ConfigurationError", "DeepInfraError", "Function", "KeepAliveHandler",
    "Message", "Model", "RateLimitError", "ServerError", "ServerSentEvent",
    "StreamInterruptedError", "ToolCall", "Usage", "collect", "iter_sse",
]
__version__ = "1.0.0"

DEFAULT_BASE_URL = "https://api.deepinfra.com/v1/openai"
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1"
_MAX_BYTES = 64 * 1024 * 1024  # of a body, or of an event
_NEVER = float("inf")
_TOKEN_VARIABLES = ("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN")
_TOKEN_HINT = "set DEEPINFRA_TOKEN to a token from https://deepinfra.com/dash/api_keys"
_NOT_THE_API = "a proxy or captive portal answered, or the base URL is not an API's"
_WIRE_ERRORS = (OSError, http.client.HTTPException, ValueError, OverflowError)
_URL_SAFE = "/?&=%:;,+@!$'()*~"
_LOOPBACK = r"localhost|127(\.\d{1,3}){3}|::1"
_DECODER = json.JSONDecoder()
_TEXT, _NONE = {str, type(None)}, (None,) * 4


# ---- Errors --------------------------------------------------------------------------------------


class DeepInfraError(Exception):
    """The base of every error that a server, a network or a setting causes.

    `hint` says what to do; `partial` is the answer so far, where `collect` raised the error.
    """
    hint = ""
    partial: ChatCompletion | None = None
    _is_retryable = False

    def __init__(self, summary: str = "", **attributes: Any) -> None:
        super().__init__(summary)
        vars(self).update(attributes)

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.hint})" if self.hint else str(self.args[0])


class ConfigurationError(DeepInfraError, ValueError):
    """A setting, named by `setting`, is missing or malformed. Nothing was sent."""
    setting = ""


class APIConnectionError(DeepInfraError):
    """No complete answer arrived: DNS, TCP, TLS, a proxy, a cut connection. See `__cause__`."""


class APITimeoutError(APIConnectionError, TimeoutError):
    """The server was silent for `timeout`, or `connect_timeout` or `deadline` ran out."""


class StreamInterruptedError(APIConnectionError):
    """A stream ended before it proved complete: what it yielded is a part of the answer."""


class APIResponseError(DeepInfraError):
    """The answer is not what the API promises. `body` holds its first 200 characters."""
    body = ""

    def __str__(self) -> str:
        return super().__str__() + (f"; it begins {self.body!r}" if self.body else "")


class APIError(DeepInfraError):
    """The API answered with an error. `message` is its own words, `body` decoded JSON or text.

    `status` is the HTTP status, or the numeric code of an error inside a 200, else None; `headers`
    has names in lower case; `retry_after` is the seconds that the server asks to wait.
    """
    status: int | None = None
    message = ""
    code: Any = None
    param: Any = None
    type: Any = None
    body: Any = None
    headers: Mapping[str, str] = {}
    request_id: str | None = None
    retry_after: float | None = None


class AuthenticationError(APIError):
    """The token was refused (401, 403)."""


class RateLimitError(APIError):
    """Too many requests at once, or the model is busy (429)."""


class ServerError(APIError):
    """The service failed (5xx)."""


_HINTS = {
    3: "redirects are refused: set the base URL to where the API is",
    5: "the service failed: try again later",
    400: "check the parameters; if the messages are too long for the model, shorten them",
    402: "add a payment method or raise the spending limit on https://deepinfra.com/dash",
    404: "check the base URL's path, and the model (-m) against the list of models() or --models",
    405: "this model can't do that: choose another with model= or -m",
    429: "send fewer requests at once, or raise max_retries= or --retries",
}


def _api_error(payload: Any, status: int, headers: Mapping[str, str]) -> APIError:
    """Return the error for an error payload, be it from an error's body, a 200 or a stream."""
    headers = {name.lower(): str(value) for name, value in headers.items()}
    kinds = {401: AuthenticationError, 403: AuthenticationError, 429: RateLimitError}
    message = _human_message(payload) or http.client.responses.get(status, "no message")
    if 300 <= status < 400:
        message += f", to {headers.get('location')}"
    error = payload.get("error") if isinstance(payload, dict) else None
    error = error if isinstance(error, dict) else {}
    return kinds.get(status, ServerError if status >= 500 else APIError)(
        f"HTTP {status}: {message}" if status else f"the API answered with an error: {message}",
        hint=_HINTS.get(status, _HINTS.get(status // 100, "")), status=status or None,
        message=message, code=error.get("code"), param=error.get("param"), type=error.get("type"),
        body=payload, headers=headers, request_id=headers.get("x-request-id"),
        retry_after=_retry_after(headers),
        _is_retryable=status in (408, 409, 429) or status >= 500)


def _human_message(payload: Any) -> str:
    """Return the words in an error payload: its `error`, `detail` or `message`, however nested."""
    while isinstance(payload, dict):
        payload = next((payload[k] for k in ("error", "detail", "message") if payload.get(k)), "")
    if isinstance(payload, list):  # validation errors, each with its place
        items = [item if isinstance(item, dict) else {"msg": item} for item in payload]
        places = [item["loc"] if isinstance(item.get("loc"), list) else () for item in items]
        payload = "; ".join(".".join(map(str, place)) + f": {item.get('msg')}"
                            for place, item in zip(places, items)).lstrip(": ")
    text = str(payload).strip()
    return "an HTML page, from a proxy or gateway" if text.startswith("<") else text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, by RFC 9110, 10.2.3, or in milliseconds."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if re.fullmatch(r"\d+(\.\d*)?", headers.get(name, "")):
            return float(headers[name]) / unit
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):  # each raised by some Python
        return None


# ---- Data ----------------------------------------------------------------------------------------


class _Parsed:
    """What is parsed from a mapping, which `raw` keeps, out of repr and comparison.

    Both are written here once: @dataclass would compile them for each class, at every import.
    """
    raw: Mapping[str, Any] = {}

    def __repr__(self: Any) -> str:
        shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self))
        return f"{type(self).__name__}({shown})"

    def __eq__(self: Any, other: Any) -> bool:
        return type(self) is type(other) and all(
            getattr(self, item.name) == getattr(other, item.name)
            for item in fields(self) if item.compare)


def _of(kind: Any, default: Any = None, **options: Any) -> Any:
    """Declare a field of a checked kind: str, int, dict, a class of these, or a list of one."""
    options = options if "default_factory" in options else {"default": default, **options}
    return field(metadata={"kind": kind}, **options)


@dataclass(repr=False, eq=False)
class Function(_Parsed):
    """What a tool call calls. `arguments` is the string as it came, valid JSON or not."""
    name: str | None = _of(str)
    arguments: str = _of(str, "")


@dataclass(repr=False, eq=False)
class ToolCall(_Parsed):
    """A call that the model asks for. `index` is its place in a streamed answer."""
    id: str | None = _of(str)
    type: str = "function"
    function: Function = _of(Function, default_factory=Function)
    index: int | None = _of(int, compare=False)


@dataclass(repr=False, eq=False)
class Message(_Parsed):
    """A message of a conversation or, in a stream, what a chunk adds to one.

    `content` is a string; None beside tool calls; in a request also a list of parts.
    """
    role: str | None = None
    content: Any = _of(str)
    reasoning_content: str | None = _of(str)
    tool_calls: tuple[ToolCall, ...] = _of([ToolCall], ())
    name: str | None = None
    tool_call_id: str | None = None


@dataclass(repr=False, eq=False)
class Usage(_Parsed):
    """Tokens counted, and their cost in US dollars."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated_cost: float | None = None
    prompt_tokens_details: Mapping[str, Any] | None = _of(dict)
    completion_tokens_details: Mapping[str, Any] | None = _of(dict)


@dataclass(repr=False, eq=False, frozen=True)
class Choice(_Parsed):
    """One of the answers. `finish_reason` is `stop`, `length`, `tool_calls` or another word."""
    index: int = _of(int, 0)
    message: Message = _of(Message, default_factory=lambda: Message("assistant"))
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = _of(dict)


@dataclass(repr=False, eq=False)
class ChunkChoice(_Parsed):
    """One choice's part of a chunk. `finish_reason` is None until the last."""
    index: int = _of(int, 0)
    delta: Message = _of(Message, default_factory=Message)
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = _of(dict)


@dataclass(repr=False, eq=False, frozen=True)
class ChatCompletion(_Parsed):
    """A whole answer. `created` is in seconds since 1970."""
    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = _of([Choice], ())
    usage: Usage | None = _of(Usage)
    service_tier: str | None = None

    @property
    def message(self) -> Message:
        """The first choice's message, ready to go back as a part of the conversation."""
        return self.choices[0].message if self.choices else Message("assistant", "")

    @property
    def text(self) -> str:
        """The first choice's content, `""` where there is none."""
        return self.message.content or ""


@dataclass(repr=False, eq=False)
class ChatCompletionChunk(_Parsed):
    """One event of a streamed answer."""
    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: tuple[ChunkChoice, ...] = _of([ChunkChoice], ())
    usage: Usage | None = _of(Usage)
    service_tier: str | None = None

    @property
    def text(self) -> str:
        """The first choice's new content, `""` where there is none."""
        return (self.choices[0].delta.content or "") if self.choices else ""


@dataclass(repr=False, eq=False)
class Model(_Parsed):
    """A model on offer, with what its `metadata` says. `pricing` is the API's own mapping."""
    id: str = ""
    context_length: int | None = None
    max_tokens: int | None = None
    pricing: Mapping[str, Any] | None = _of(dict)


@dataclass
class ServerSentEvent:
    """An event of a `text/event-stream`."""
    event: str = "message"
    data: str = ""


_KINDS: dict[Any, dict[str, Any]] = {
    cls: {item.name: item.metadata.get("kind") for item in fields(cls)}
    for cls in (Function, ToolCall, Message, Usage, Choice, ChunkChoice, ChatCompletion,
                ChatCompletionChunk, Model)}
_SHAPES = {dict: "an object", list: "an array", str: "a string", int: "an integer"}


def _parse(kind: Any, value: Any, place: str = "") -> Any:
    """Return decoded JSON as its kind; missing, null and unknown fields are fine."""
    shape: Any = list if isinstance(kind, list) else dict if kind in _KINDS else kind
    if not isinstance(value, shape):
        what = f"expected {_SHAPES[shape]}, got {type(value).__name__}"
        raise APIResponseError(f"{place or 'the answer'}: {what}", hint=_NOT_THE_API)
    if shape is list:
        return tuple([_parse(kind[0], item, f"{place}[{i}]") for i, item in enumerate(value)])
    if shape is kind:
        return value
    parsed = kind()
    values = vars(parsed)  # set here, for speed and for the frozen ones
    values["raw"] = value
    for name, its_kind in _KINDS[kind].items():
        item = value.get(name)
        if item is not None:
            at = f"{place}.{name}" if place else name
            values[name] = item if its_kind is None else _parse(its_kind, item, at)
    return parsed


def _parse_completion(raw: Any) -> ChatCompletion:
    answer: ChatCompletion = _parse(ChatCompletion, raw)
    for choice in answer.choices:
        choice.message.role = choice.message.role or "assistant"
    return answer


def _parse_models(raw: Any) -> list[Model]:
    data = _parse(dict, raw).get("data")
    models: list[Model] = list(_parse([Model], [] if data is None else data, "data"))
    for i, model in enumerate(models):
        metadata = _parse(Model, model.raw.get("metadata") or {}, f"data[{i}].metadata")
        vars(model).update(vars(metadata), id=model.id, raw=model.raw)
    return models


def _to_wire(value: Any) -> Any:
    """Return Messages and what they hold as JSON: the fields that they have, but for `index`."""
    if isinstance(value, (list, tuple)):
        return [_to_wire(item) for item in value]
    if not is_dataclass(value):
        return value
    wire = {f.name: _to_wire(getattr(value, f.name)) for f in fields(value) if f.name != "index"}
    has_calls = bool(wire.get("tool_calls"))
    return {name: item for name, item in wire.items()
            if item not in (None, []) or (has_calls and name == "content")}


# ---- Client --------------------------------------------------------------------------------------


class Client:
    """A client of one API. Threads may share it; it may be forked and pickled (with its token).

    `api_key` is the token, else DEEPINFRA_TOKEN, DEEPINFRA_API_KEY or DEEPINFRA_API_TOKEN; `""`
    sends none. `base_url`: else DEEPINFRA_BASE_URL, else DEFAULT_BASE_URL. In seconds, None for no
    limit: `connect_timeout` to connect (TCP, proxy, TLS), `timeout` for silence, `deadline` for a
    call with its retries, a stream to its last event. `max_retries`: further attempts, where they
    are safe. `headers` go out with every request. `ssl_context`: for a private CA or a client
    certificate. `opener`: in place of ours, with its proxies and redirects; build it with a
    KeepAliveHandler. Raises ConfigurationError.
    """
    _own_opener: Any = None

    def __init__(self, api_key: str | None = None, *, base_url: str | None = None,
                 timeout: float | None = 600.0, connect_timeout: float | None = 10.0,
                 deadline: float | None = None, max_retries: int = 2,
                 headers: Mapping[str, str] | None = None,
                 ssl_context: ssl.SSLContext | None = None,
                 opener: urllib.request.OpenerDirector | None = None) -> None:
        base_url = base_url or os.environ.get("DEEPINFRA_BASE_URL") or DEFAULT_BASE_URL
        self.base_url = _clean_base_url(base_url)
        self.timeout, self.connect_timeout, self.deadline = timeout, connect_timeout, deadline
        self.max_retries = max_retries
        self._token, self._token_source = _find_token(api_key, self.base_url)
        self._headers = _clean_headers(headers or {}, self._token)
        self._ssl_context, self._opener = ssl_context, opener
        self.__setstate__({})

    def chat(self, messages: Messages, *, model: str | None = None,
             **params: Any) -> ChatCompletion:
        """Send a conversation and return the whole answer.

        `messages` is a string (one user turn) or a sequence of mappings and Messages. `params` are
        the API's own (`temperature=`, `tools=`, ...), passed through, but for those that are None.
        Raises APIConnectionError, APIResponseError or APIError, or a class below them.
        Source: https://deepinfra.com/docs/openai_api
        """
        payload = _chat_payload(messages, model, params)
        return self._call("POST", "/chat/completions", payload, _parse_completion)

    def stream(self, messages: Messages, *, model: str | None = None,
               **params: Any) -> Generator[ChatCompletionChunk, None, None]:
        """Send a conversation and return a generator of the answer's chunks, as they arrive.

        Takes what `chat` takes, and raises the request's errors at once. Iterating raises
        StreamInterruptedError unless the stream proves complete, and what `chat` raises. Leaving
        the loop closes the connection.
        """
        chunks = self._stream(dict(_chat_payload(messages, model, params), stream=True))
        next(chunks)  # sends the request, and enters the `with` that close() has to leave
        return chunks

    def models(self) -> list[Model]:
        """Return the models on offer. Raises what `chat` raises."""
        return self._call("GET", "/models", None, _parse_models)

    def request(self, method: str, path: str, payload: Any = None) -> Any:
        """Send JSON to another endpoint, say "POST", "/embeddings", and return the JSON it answers.

        None stands for no body, both ways. Raises what `chat` raises.
        """
        return self._call(method, path, payload, lambda answer: answer)

    def close(self) -> None:
        """Close the idle connections; an opener that was handed in is its owner's to close."""
        for handler in getattr(self._own_opener, "handlers", ()):
            handler.close()

    __del__ = close

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}, token: {self._token_source or 'none'}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_own_opener"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._opener is None:
            self._own_opener = urllib.request.build_opener(
                KeepAliveHandler(self._ssl_context), _ProxyHandler(), _RedirectHandler())

    def _call(self, method: str, path: str, payload: Any, parse: Callable[[Any], T]) -> T:
        """Return the parsed answer to a request: the way of everything but a stream."""
        with self._guard():
            with contextlib.closing(self._open(method, path, payload)) as exchange:
                body = b"".join(exchange.blocks())
            return _read_json(body or b"null", parse, exchange.headers)

    def _stream(self, payload: Any) -> Generator[ChatCompletionChunk, None, None]:
        with self._guard():
            with contextlib.closing(self._open("POST", "/chat/completions", payload)) as exchange:
                yield ChatCompletionChunk()  # taken by stream(), not by the caller
                blocks = exchange.blocks(StreamInterruptedError, _NEVER)
                yield from _iter_chunks(blocks, exchange.headers)
                exchange.finish()

    def _open(self, method: str, path: str, payload: Any) -> _Exchange:
        """Return an exchange whose answer has begun with a 2xx; try again where that is safe."""
        url = f"{self.base_url}/{urllib.parse.quote(path.lstrip('/'), safe=_URL_SAFE)}"
        body = None if payload is None else json.dumps(payload).encode()
        started, attempt = time.monotonic(), 0
        while True:
            request = urllib.request.Request(url, body, method=method)
            for name, value in self._headers.items():  # none of which urllib takes to a redirect
                request.add_unredirected_header(name, value)
            limits = _Limits(self.connect_timeout, self.timeout, self.deadline, started)
            try:
                return _Exchange(request, limits, self._opener or self._own_opener)
            except DeepInfraError as error:
                wait = _retry_wait(error, attempt)
                if attempt >= self.max_retries or time.monotonic() + wait >= limits.end:
                    raise
                cause = _mask(str(error), self._token)
            attempt += 1
            _log("info", "retry %d of %d in %.2f s: %s", attempt, self.max_retries, wait, cause)
            time.sleep(wait)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Let no error out that shows the token, nor one about a token that does not say which."""
        try:
            yield
        except DeepInfraError as error:
            if isinstance(error, AuthenticationError):
                source = self._token_source
                error.hint = f"check the token, from {source}" if source else _TOKEN_HINT
            _mask_error(error, self._token)
            raise


# ---- Request to wire -----------------------------------------------------------------------------


def _find_token(api_key: str | None, base_url: str) -> tuple[str, str]:
    """Return the token and where it came from, or two empty strings."""
    url, source = urllib.parse.urlsplit(base_url), "api_key"
    is_local = bool(re.fullmatch(_LOOPBACK, url.hostname or ""))
    if api_key is None:
        source = next((name for name in _TOKEN_VARIABLES if os.environ.get(name, "").strip()), "")
        api_key = os.environ.get(source, "")
        if not api_key and not is_local:
            raise ConfigurationError("no token", hint=_TOKEN_HINT, setting="api_key")
    if api_key and url.scheme == "http" and not is_local:
        raise ConfigurationError(
            f"the token would go to {url.netloc} over plain http, for all to read",
            hint='use an https base URL, or api_key="" to send no token', setting="base_url")
    return (_clean_token(api_key, source), source) if api_key else ("", "")


def _clean_token(text: str, source: str) -> str:
    token = text.strip().strip("\"'").strip()
    if not re.fullmatch("[!-~]+", token):
        raise ConfigurationError(
            f"the token from {source} is empty, or holds white space or a non-ASCII character",
            hint="copy it again, or " + _TOKEN_HINT, setting="api_key")
    return token


def _clean_base_url(url: str) -> str:
    """Return the URL without its last slash; it has no place for credentials or a query."""
    url = url.strip().rstrip("/")
    pattern = r"(?i)https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?(/[!\"$->A-~]*)?"
    try:
        if re.fullmatch(pattern, url, re.ASCII) and urllib.parse.urlsplit(url).port != 0:
            return url
    except ValueError:  # a port or an IPv6 address that can't be
        pass
    raise ConfigurationError(
        "the base URL is not http[s]://host[:port][/path]", setting="base_url",
        hint=f"check base_url= or DEEPINFRA_BASE_URL; the default is {DEFAULT_BASE_URL}")


def _clean_headers(headers: Mapping[str, str], token: str) -> dict[str, str]:
    """Return all headers of a request, the caller's in place of ours."""
    for name, value in headers.items():
        if (not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+:[\t -~\xa0-\xff]*", f"{name}:{value}", re.ASCII)
                or name.lower() == "authorization"):
            raise ConfigurationError(
                f"the header {name!r} can't be sent", setting="headers",
                hint="a value is one line of Latin-1 text; Authorization is made from api_key")
    agent = "deepinfra_min/{} Python/{}.{}.{}".format(__version__, *sys.version_info[:3])
    return {"Content-Type": "application/json", "User-Agent": agent,
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **{name.title(): value for name, value in headers.items()}}


def _chat_payload(messages: Messages, model: str | None, params: Any) -> dict[str, Any]:
    if params.get("stream") is not None:
        raise TypeError("stream= can't be set: stream() streams the answer, chat() waits for it")
    if isinstance(messages, (dict, Message)):
        raise TypeError("messages must be a string or a list of messages, not one message")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    wire = [_to_wire(m) if isinstance(m, Message) else dict(m) for m in messages]
    payload = {"model": model or DEFAULT_MODEL, "messages": wire, **params}
    return {name: value for name, value in payload.items() if value is not None}


def _retry_wait(error: DeepInfraError, attempt: int) -> float:
    """Return the seconds to wait before another attempt: endless where it is unsafe or too long."""
    wait: float | None = getattr(error, "retry_after", None)
    if wait is None:
        wait = min(0.5 * 2**attempt, 8.0) * random.uniform(0.75, 1.0)
    return wait if error._is_retryable and wait <= 60 else _NEVER


def _log(level: str, message: str, *args: Any) -> None:
    logging = sys.modules.get("logging")  # who has not imported it does not listen
    if logging:
        getattr(logging.getLogger(__name__), level)(message, *args)


class _Limits:
    """The time limits of one attempt, and how far it has come."""
    is_connecting = is_answered = False  # the latter: a byte of the answer has come
    connect_end = 0.0

    def __init__(self, connect: float | None, silence: float | None,
                 deadline: float | None = None, started: float = 0.0) -> None:
        times = [_NEVER if seconds is None else seconds for seconds in (connect, silence, deadline)]
        self.connect, self.silence, self.deadline = times
        self.end = started + self.deadline

    def left(self) -> float | None:
        """Return how long the next wait for the network may last; raise once time is up."""
        now = time.monotonic()
        left = min(self.connect_end - now if self.is_connecting else self.silence, self.end - now)
        if left <= 0:
            raise socket.timeout("timed out")
        return None if left == _NEVER else left

    def error(self, place: str) -> APITimeoutError:
        """Return the error for the limit that has run out."""
        if time.monotonic() >= self.end - 0.01:
            return APITimeoutError(f"the call passed its deadline of {self.deadline:g} s",
                                   hint="raise deadline=")
        if self.is_connecting:
            return APITimeoutError(
                f"connecting to {place} took longer than connect_timeout, {self.connect:g} s",
                hint="check the base URL, the network and the proxy, or raise connect_timeout=",
                _is_retryable=True)
        return APITimeoutError(f"{place} was silent for the timeout of {self.silence:g} s",
                               hint="raise timeout= or --timeout: a model may think for minutes")


class _Exchange:
    """One request and its answer. Whatever urllib raises on the way leaves as one of our errors."""

    def __init__(self, request: urllib.request.Request, limits: _Limits, opener: Any) -> None:
        self._request, self._limits, started = request, limits, time.monotonic()
        request.limits = limits  # type: ignore[attr-defined]  # for KeepAliveHandler
        try:
            self._response = opener.open(request, timeout=limits.left())
        except DeepInfraError:
            raise
        except urllib.error.HTTPError as error:
            self._response = error  # an answer like any other
        except _WIRE_ERRORS as error:
            raise _explain(error, request, limits) from error
        self.headers = self._response.headers
        status, seconds = self._response.getcode(), time.monotonic() - started
        _log("debug", "%s %s: HTTP %s in %.3f s", request.method, request.full_url, status, seconds)
        if not 200 <= status < 300:
            raise self._refusal(status)

    def _refusal(self, status: int) -> DeepInfraError:
        """Return the error that the answer stands for, from as much of its body as arrives."""
        body = bytearray()
        with contextlib.closing(self), contextlib.suppress(DeepInfraError):
            for block in self.blocks():
                body += block
        if status == 407:
            return _proxy_error(self._request.host, "407 Proxy Authentication Required")
        payload = body.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, RecursionError):
            payload = json.loads(payload)
        return _api_error(payload, status, self.headers)

    def blocks(self, cut: Any = APIConnectionError, most: float = _MAX_BYTES) -> Iterator[bytes]:
        """Yield the body as it arrives, block by block; raise a `cut` error where it breaks off."""
        block, size, is_chunked = b"-", 0, getattr(self._response, "chunked", True)
        while block:
            try:
                block = self._response.read1(16384)
                missing = getattr(self._response, "length", 0)  # None: up to the server's end
                if not block and (missing or (missing is None and not is_chunked and not size)):
                    raise http.client.IncompleteRead(b"", missing)  # http.client passes over both
            except _WIRE_ERRORS as error:
                raise _explain(error, self._request, self._limits, cut) from error
            size += len(block)
            if size > most:
                raise _too_large("the body")
            yield block

    def finish(self) -> None:
        """Read the end of a body that [DONE] has completed, so that its connection can be kept."""
        if isinstance(self._response, _Response) and not self._response.will_close:
            self._limits.end = min(self._limits.end, time.monotonic() + 0.25)
            with contextlib.suppress(DeepInfraError):
                for _ in self.blocks():
                    pass

    def close(self) -> None:
        with contextlib.suppress(*_WIRE_ERRORS):
            self._response.close()


def _explain(error: Exception, request: Any, limits: _Limits,
             cut: Any = APIConnectionError) -> DeepInfraError:
    """Return our error for one of urllib's: which layer failed, where, why, and what to do."""
    is_connecting = limits.is_connecting or isinstance(error, urllib.error.URLError)
    while isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason  # which urllib's own handlers wrap while they connect and send
    target = urllib.parse.urlsplit(request.full_url).netloc
    is_beyond = request._tunnel_host and not is_connecting  # the proxy, which is out of it then
    place = target if is_beyond or request.host == target else f"the proxy {request.host}"
    reason, retry = getattr(error, "strerror", None) or str(error), not limits.is_answered
    if isinstance(error, socket.timeout) and error.errno is None:
        return limits.error(place)
    if reason.startswith("Tunnel connection failed"):
        return _proxy_error(request.host, reason.partition(": ")[2])
    if isinstance(error, getattr(ssl, "SSLCertVerificationError", ())):
        return _certificate_error(error, target)
    if isinstance(error, getattr(ssl, "SSLError", ())):
        what = f"TLS with {target} failed: {reason}"
        hint = "check that the port speaks https, and that no firewall or proxy breaks in"
    elif isinstance(error, socket.gaierror):
        what = f"DNS can't resolve {place}: {reason}"
        hint = "check the host in the base URL and the proxy's address, and the network"
    elif is_connecting:
        what = f"TCP can't connect to {place}: {reason}"
        hint = "check that a server listens there, the base URL and the proxy's address"
    elif isinstance(error, (OSError, http.client.IncompleteRead)):
        what = f"{place} cut the connection {'before' if retry else 'within'} the answer"
        hint = "ask again" if retry else "what arrived is incomplete: ask again"
    else:
        return APIResponseError(f"{place} does not answer in HTTP: {reason}", hint=_NOT_THE_API)
    return cut(what, hint=hint, _is_retryable=retry)  # type: ignore[no-any-return]


def _proxy_error(place: str, reason: str) -> APIConnectionError:
    return APIConnectionError(
        f"the proxy {place} refused the connection: {reason}",
        hint="check HTTPS_PROXY=http://user:password@host:port, or set NO_PROXY")


def _certificate_error(error: Any, place: str) -> APIConnectionError:
    hint = "set SSL_CERT_FILE to the CA's PEM file, or pass ssl_context="
    if sys.version_info >= (3, 13) and 79 < error.verify_code < 95:  # what X509_STRICT adds
        hint = ("Python 3.13 checks certificates more strictly: have a standard one issued, or "
                "pass an ssl_context= without ssl.VERIFY_X509_STRICT (SSL_CERT_FILE does not help)")
    return APIConnectionError(
        f"TLS: the certificate of {place} is not trusted: {error.verify_message}", hint=hint)


def _mask_error(error: DeepInfraError, token: str) -> None:
    """Take the token out of an error and its causes, and only then cut what is long."""
    error.args = (_mask(str(error.args[0]), token)[:1000],)
    for name, value in vars(error).items():
        vars(error)[name] = _mask(value, token)
    if isinstance(error, APIResponseError):
        error.body = error.body[:200]
    cause: BaseException | None = error.__cause__ or error.__context__
    while cause is not None:
        shown = f"{cause} {(cause.args, vars(cause))!r}"
        if token and (token in shown or repr(token)[1:-1] in shown):
            error.__cause__ = error.__context__ = None
        cause = cause.__cause__ or cause.__context__


def _mask(value: Any, token: str) -> Any:
    """Return decoded JSON without the token, nor its spellings inside a JSON text."""
    if len(token) < 4:  # a local server's, and a part of many a word
        return value
    try:
        text = json.dumps(value)
        for spelling in (json.dumps(token)[1:-1], token.replace("/", "\\/"), token):
            text = text.replace(json.dumps(spelling)[1:-1], "***")
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):  # say, a token that looks like a number in it
        return "***"


class _ProxyHandler(urllib.request.ProxyHandler):
    """urllib's, but it keeps local calls local, and refuses proxies that it can't speak to."""

    def proxy_open(self, req: Any, proxy: str, type: str) -> Any:  # urllib's name for the scheme
        host = urllib.parse.urlsplit(req.full_url).hostname or ""
        if re.fullmatch(_LOOPBACK, host) or urllib.request.proxy_bypass(req.host):
            return None
        if not re.fullmatch("(?i)(http://)?([^/]*@)?[^/@]+/?", proxy):
            scheme, address = proxy.partition(":")[0], proxy.rpartition("@")[2].rpartition("//")[2]
            raise ConfigurationError(
                f"the proxy {scheme}://{address} is not of the form http://host:port",
                hint=f"set {type.upper()}_PROXY to an http:// proxy", setting="proxy")
        return super().proxy_open(req, proxy, type)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """Follow none: urllib would make a POST a GET."""


class KeepAliveHandler(urllib.request.HTTPHandler, HTTPSHandler):
    """urllib's handler of http and https, but one that keeps connections alive.

    For `urllib.request.build_opener`. A response that is read to its end gives its connection back,
    one that is closed before closes it. `context` is an `ssl.SSLContext`.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)
        self._context = context
        self._idle: dict[Any, list[_Connection]] = {}
        self._locks: dict[int, Any] = {}  # by process, since a fork may copy one that is held

    def http_open(self, req: Any) -> Any:
        """Send a request on a kept connection or, if that fails before an answer, on a new one."""
        headers = {name.title(): value for name, value in req.header_items()}
        tunnel_headers = {name: headers.pop(name) for name in list(headers)
                          if req._tunnel_host and name == "Proxy-Authorization"}
        key = (os.getpid(), req.type, req.host, req._tunnel_host, *tunnel_headers.values())
        seconds = req.timeout if isinstance(req.timeout, (int, float)) else None
        limits = getattr(req, "limits", None) or _Limits(seconds, seconds)
        connection = self._take_idle(key)
        if connection is not None:
            try:
                return self._send(req, headers, key, connection, limits)
            except OSError as error:
                if limits.is_answered or isinstance(error, socket.timeout):
                    raise
        connection = _Connection(req.host, self._tls_context() if req.type == "https" else None)
        if req._tunnel_host:
            connection.set_tunnel(req._tunnel_host, headers=tunnel_headers)
        return self._send(req, headers, key, connection, limits)

    https_open = http_open

    def close(self) -> None:
        """Close the idle connections."""
        for key in list(self._idle):
            for connection in self._idle.pop(key, []):
                connection.close()

    __del__ = close

    def _take_idle(self, key: Any) -> _Connection | None:
        """Return a kept connection on which nothing has arrived, neither bytes nor the end."""
        idle = self._idle.get(key, [])
        with contextlib.suppress(IndexError):  # none is left
            while True:
                connection = idle.pop()  # no lock: a list's pop and append are atomic
                try:
                    connection.sock.settimeout(0)
                    socket.socket.recv(connection.sock, 1, socket.MSG_PEEK)  # TLS itself can't peek
                except BlockingIOError:
                    return connection
                except OSError:
                    pass  # it was reset
                connection.close()
        return None

    def _tls_context(self) -> ssl.SSLContext:
        if ssl is None:
            raise ConfigurationError(
                "https needs the ssl module, and this Python was built without it", setting="ssl",
                hint="use another Python, or a local server over plain http")
        import threading  # here, since a plain start does without it

        with self._locks.setdefault(os.getpid(), threading.Lock()):
            self._context = self._context or ssl.create_default_context()
        return self._context

    def _send(self, req: Any, headers: Any, key: Any, connection: Any, limits: _Limits) -> Any:
        connection.limits, connection.response_class = limits, functools.partial(_Response, limits)
        try:
            with contextlib.suppress(BrokenPipeError):  # an early answer, say 413, may be there
                connection.request(req.get_method(), req.selector, req.data, headers,
                                   encode_chunked=req.has_header("Transfer-encoding"))
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        response.url, response.msg = req.full_url, response.reason  # as urllib has them
        response.on_close = functools.partial(self._give_back, key, connection)
        vars(connection)["_HTTPConnection__response"] = None  # a cycle: dropping it has to close it
        return response

    def _give_back(self, key: Any, connection: _Connection, is_reusable: bool) -> None:
        if is_reusable:
            self._idle.setdefault(key, []).append(connection)
        else:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """http.client's connection, with TLS if it has a context, under the limits of its request."""
    limits: _Limits
    response_class: Any

    def __init__(self, host: str, context: ssl.SSLContext | None) -> None:
        self.default_port = 443 if context else 80
        super().__init__(host)
        self._context = context

    def connect(self) -> None:
        limits: Any = self.limits
        limits.is_connecting, limits.connect_end = True, time.monotonic() + limits.connect
        self.sock: Any = _dial(self.host, self.port, limits)
        tunnel: Any = vars(self)["_tunnel_host"]
        if tunnel:
            with contextlib.ExitStack() as stack:  # closes the proxy's answer; so does Python 3.11
                self.response_class = lambda *args, **options: stack.enter_context(
                    _Response(limits, *args, **options))
                self._tunnel()  # type: ignore[attr-defined]
            self.response_class = functools.partial(_Response, limits)
        if self._context:
            self.sock.settimeout(limits.left())
            server = tunnel or self.host
            self.sock = self._context.wrap_socket(self.sock, server_hostname=server)
        limits.is_connecting = limits.is_answered = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        for start in range(0, len(data), 65536):  # since sendall() has one timeout for all of it
            self.sock.settimeout(self.limits.left())
            super().send(data[start : start + 65536])


class _Response(http.client.HTTPResponse):
    """http.client's response, read under limits; `on_close` learns whether it was read whole."""
    on_close: Callable[[bool], None] | None = None
    _is_last_chunk = False

    def __init__(self, limits: _Limits, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)

        def readinto(buffer: Any) -> int:
            sock.settimeout(limits.left())
            count: int = sock.recv_into(buffer)
            limits.is_answered = limits.is_answered or count > 0
            return count

        self.fp: Any
        self.fp.raw.readinto = readinto  # whence all bytes of the answer come

    def _read_and_discard_trailer(self) -> None:
        super()._read_and_discard_trailer()  # type: ignore[misc]
        self._is_last_chunk = True  # http.client ends a body at a malformed chunk as well

    def _close_conn(self) -> None:  # which http.client calls at a body's end, its cut, and close()
        super()._close_conn()  # type: ignore[misc]
        on_close, self.on_close = self.on_close, None
        if on_close:
            on_close((self.length == 0 or self._is_last_chunk) and not self.will_close)


def _dial(host: str, port: int, limits: _Limits) -> socket.socket:
    """Connect to one of the host's addresses, which share the time that is left."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for n, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            left = limits.left()
            sock.settimeout(left and left / (len(addresses) - n))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0x10))
            with contextlib.suppress(OSError):  # 0x10: macOS, unnamed before Python 3.10
                sock.setsockopt(socket.IPPROTO_TCP, idle, 60)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


# ---- Wire to answer ------------------------------------------------------------------------------


def iter_sse(blocks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream that comes as blocks of bytes, each once its last byte is there.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html and does no I/O. Raises
    APIResponseError for an event of more than 64 MiB.
    """
    event, size = "", 0
    data: list[bytes] = []
    for line in _iter_lines(blocks):
        if not line:
            if data:
                text = data[0] if len(data) == 1 else b"\n".join(data)
                yield ServerSentEvent(event or "message", text.decode("utf-8", "replace"))
            event, data, size = "", [], 0
            continue
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            data.append(value)
            size += len(line) + 1
            if size > _MAX_BYTES:
                raise _too_large("an event")
        elif name == b"event":
            event = value.decode("utf-8", "replace")


def _iter_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their CR, LF or CRLF; drop a BOM, and a last line that has no end."""
    begun, after_cr, bom = bytearray(), False, b"\xef\xbb\xbf"
    for block in blocks:
        if after_cr and block[:1] == b"\n":
            block, after_cr = block[1:], False  # the rest of a CRLF whose line is out already
        if not block:
            continue
        lines = block.splitlines()  # of bytes: at CR, LF and CRLF alone
        after_cr = block.endswith(b"\r")
        rest = b"" if after_cr or block.endswith(b"\n") else lines.pop()
        if lines:
            lines[0] = bytes(begun + lines[0]) if begun else lines[0]
            begun.clear()
            if bom:
                lines[0], bom = lines[0][3:] if lines[0].startswith(bom) else lines[0], b""
            yield from lines
        begun += rest
        if len(begun) > _MAX_BYTES:
            raise _too_large("a line")


def _too_large(what: str) -> APIResponseError:
    return APIResponseError(f"{what} of the answer is larger than {_MAX_BYTES >> 20} MiB",
                            hint=_NOT_THE_API)


def _iter_chunks(blocks: Iterable[bytes], headers: Any) -> Iterator[ChatCompletionChunk]:
    """Yield the chunks of a stream; raise unless it proves complete."""
    head = bytearray()
    finished: dict[int, bool] = {}
    for event in iter_sse(_copy(blocks, head)):
        head.clear()
        chunk = _parse_plain_chunk(event.data)
        if chunk is None or event.event == "error":
            data = event.data.strip()
            if data == "[DONE]":
                return
            if event.event == "error":
                raise _payload_error(data, headers)
            chunk = _read_json(data, _parse_chunk, headers) if data else None
        if chunk is not None:
            for choice in chunk.choices:
                if choice.finish_reason is not None or choice.index not in finished:
                    finished[choice.index] = choice.finish_reason is not None
            yield chunk
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[", b"<")):
        _read_json(head, _refuse_whole_answer, headers)
    if not finished and "event-stream" not in headers.get("content-type", "").lower():
        raise APIResponseError("the answer is no event stream", hint=_NOT_THE_API,
                               body=head.decode("utf-8", "replace"))
    if not finished or not all(finished.values()):
        raise StreamInterruptedError("the stream ended before the answer was complete",
                                     hint="what arrived is a part of the answer: ask again")


def _copy(blocks: Iterable[bytes], head: bytearray) -> Iterator[bytes]:
    for block in blocks:
        if len(head) < 1 << 20:
            head += block
        yield block


def _refuse_whole_answer(payload: Any) -> None:
    raise APIResponseError("the server ignores `stream`: it sent JSON, no event stream",
                           hint="use chat() or --no-stream")


def _parse_plain_chunk(text: str) -> ChatCompletionChunk | None:
    """Return a chunk of plain text or reasoning, in a third of the time; None for any other."""
    try:
        raw, end = _DECODER.raw_decode(text)
        (choice,) = raw["choices"]
        delta, index = choice["delta"], choice["index"]
        content, reasoning = delta.get("content"), delta.get("reasoning_content")
        rest = (delta.get("tool_calls"), choice.get("logprobs"), raw.get("usage"), raw.get("error"))
        head = raw["id"], raw["object"], raw["created"], raw["model"]
        if (type(content) in _TEXT and type(reasoning) in _TEXT and type(index) is int
                and rest == _NONE and None not in head and end == len(text)):
            names = delta.get("name"), delta.get("tool_call_id")
            message = Message(delta.get("role"), content, reasoning, (), *names)
            part = ChunkChoice(index, message, choice.get("finish_reason"))
            chunk = ChatCompletionChunk(*head, (part,), None, raw.get("service_tier"))
            message.raw, part.raw, chunk.raw = delta, choice, raw
            return chunk
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        pass
    return None


def _parse_chunk(raw: Any) -> ChatCompletionChunk | None:
    if isinstance(raw, dict) and raw.get("choices", ()) is None and raw.get("usage") is None:
        return None  # one of the keepalives
    chunk: ChatCompletionChunk = _parse(ChatCompletionChunk, raw)
    return chunk


def _read_json(text: Any, parse: Callable[[Any], T], headers: Mapping[str, str]) -> T:
    """Return what `parse` makes of a JSON text that is no error payload; errors show the text."""
    try:
        payload = json.loads(text)
        if isinstance(payload, dict) and (
                payload.get("error") or ("detail" in payload and "choices" not in payload)):
            raise _payload_error(payload, headers)
        return parse(payload)
    except APIResponseError as error:
        failure = error
    except (ValueError, RecursionError) as error:
        failure = APIResponseError(f"the answer is not JSON: {error}", hint=_NOT_THE_API)
    failure.body = text if isinstance(text, str) else text.decode("utf-8", "replace")
    raise failure  # here, so that its context is no error that holds the text


def _payload_error(payload: Any, headers: Mapping[str, str]) -> APIError:
    """Return the error for an error payload inside a 200; the status is its numeric code."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        payload = json.loads(payload)
    error = payload.get("error", payload) if isinstance(payload, dict) else {}
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return _api_error(payload, int(code) if re.fullmatch(r"[45]\d\d", code) else 0, headers)


def collect(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Return the whole answer that a stream's chunks add up to.

    Raises what iterating the chunks raises, with the answer so far as the error's `partial`. `raw`
    holds what the chunks have beside their choices.
    """
    last: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    choices: dict[int, _ChoiceParts] = {}

    def fold() -> ChatCompletion:
        folded = tuple([choices[index].fold(index) for index in sorted(choices)])
        answer = ChatCompletion(choices=folded, **last)
        vars(answer)["raw"] = {name: value for name, value in raw.items() if name != "choices"}
        return answer

    try:
        for chunk in chunks:
            _keep_last(last, chunk, "id", "created", "model", "usage", "service_tier")
            raw.update(chunk.raw)
            for choice in chunk.choices:
                if choice.index not in choices:
                    choices[choice.index] = _ChoiceParts()
                choices[choice.index].add(choice)
    except DeepInfraError as error:
        error.partial = fold()
        raise
    return fold()


def _keep_last(last: dict[str, Any], item: Any, *names: str) -> None:
    for name in names:
        value = getattr(item, name)
        if value:
            last[name] = value


class _ChoiceParts:
    """What the deltas of one choice bring, in pieces that are joined once, at the end."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {"role": "assistant"}
        self.texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
        self.finish_reason: str | None = None
        self.logprobs: dict[str, Any] = {}
        self.calls: list[list[ToolCall]] = []
        self.calls_by: dict[Any, list[ToolCall]] = {}  # index or id

    def add(self, choice: ChunkChoice) -> None:
        _keep_last(self.last, choice.delta, "role", "name", "tool_call_id")
        for name, pieces in self.texts.items():
            piece = getattr(choice.delta, name)
            if piece is not None:
                pieces.append(piece)
        for call in choice.delta.tool_calls:
            self.add_call(call)
        for name, items in (choice.logprobs or {}).items():
            known = self.logprobs.get(name)
            if isinstance(known, list) and isinstance(items, list):
                known.extend(items)
            elif known is None:
                self.logprobs[name] = list(items) if isinstance(items, list) else items
        self.finish_reason = choice.finish_reason or self.finish_reason

    def add_call(self, call: ToolCall) -> None:
        """Add a piece of a tool call to the call of its index, else of its id, else to the last."""
        keys = [key for key in (call.index, call.id) if key is not None]
        known = [self.calls_by[key] for key in keys if key in self.calls_by]
        if not (known or (self.calls and not keys)):
            self.calls.append([])
        pieces = known[0] if known else self.calls[-1]
        pieces.append(call)
        for key in keys:
            self.calls_by.setdefault(key, pieces)

    def fold(self, index: int) -> Choice:
        texts: Any = {name: _join(pieces) for name, pieces in self.texts.items() if pieces}
        calls = tuple([_join_call(pieces) for pieces in self.calls])
        message = Message(tool_calls=calls, **texts, **self.last)
        return Choice(index, message, self.finish_reason, self.logprobs or None)


def _join_call(pieces: list[ToolCall]) -> ToolCall:
    names = [piece.function.name for piece in pieces if piece.function.name]
    arguments = _join([piece.function.arguments for piece in pieces])
    return ToolCall(next((piece.id for piece in pieces if piece.id), None), pieces[0].type,
                    Function(names[0] if names else None, arguments), pieces[0].index)


def _join(pieces: list[str]) -> str:
    """Return the joined text, surrogates that were cut apart made one character again."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


# ---- Command line --------------------------------------------------------------------------------

_EPILOG = """\
examples:
  python -m deepinfra_min "Why is the sky blue?"
  git diff | python -m deepinfra_min "Review this change."
  python -m deepinfra_min -i -s "You are a patient teacher."
  python -m deepinfra_min --json -o seed=1 -o response_format=@f.json "3 trees?"

environment:
  DEEPINFRA_TOKEN (else DEEPINFRA_API_KEY, DEEPINFRA_API_TOKEN),
  DEEPINFRA_TOKEN_FILE, DEEPINFRA_MODEL, DEEPINFRA_BASE_URL;
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


def _make_parser() -> argparse.ArgumentParser:
    import argparse  # here, since whoever imports this module may have no command line

    class Parser(argparse.ArgumentParser):
        color = False  # which Python 3.14 would turn on

        def error(self, message: str) -> NoReturn:
            raise _usage_error(message)

        def _get_option_tuples(self, option_string: str) -> Any:
            # allow_abbrev=False takes joined short flags along, on Python 3.7
            parent: Any = super()
            return [] if option_string[:2] == "--" else parent._get_option_tuples(option_string)

        def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
            sys.stdout.flush()  # here, where main() sees what is wrong with it
            super().exit(status, message)

    parser = Parser(
        "deepinfra_min", description="Ask a model on DeepInfra and stream its answer to stdout.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_arguments(parser.add_argument, os.environ.get)
    return parser


def _add_arguments(add: Any, env: Any) -> None:
    add("prompt", nargs="?", metavar="PROMPT", help="what to ask, one argument; - is stdin")
    add("-m", "--model", metavar="NAME", default=env("DEEPINFRA_MODEL") or DEFAULT_MODEL,
        help=f"default: {DEFAULT_MODEL}")
    add("-s", "--system", metavar="TEXT", help="system prompt")
    add("-o", "--option", metavar="KEY=VALUE", action="append", default=[],
        help="any parameter of the API; VALUE is JSON, else a string; @FILE reads it")
    add("--messages", metavar="FILE", help="JSON array of messages to begin from; - is stdin")
    add("-i", "--interactive", action="store_true", help="a conversation; Ctrl-D ends it")
    add("--json", action="store_true", help="the whole answer as one JSON object")
    add("--no-stream", action="store_true", help="wait for the whole answer")
    add("-r", "--reasoning", action="store_true", help="show the reasoning, on stderr")
    add("-u", "--usage", action="store_true", help="show tokens, cost and seconds, on stderr")
    add("--models", action="store_true", help="list the models, one a line")
    add("--key-file", metavar="FILE", default=env("DEEPINFRA_TOKEN_FILE"), help="token from a file")
    add("--base-url", metavar="URL", help=f"default: {DEFAULT_BASE_URL}")
    add("--timeout", metavar="SECONDS", type=float, default=600, help="of silence; default: 600")
    add("--retries", metavar="N", type=int, default=2, help="default: 2")
    add("-n", "--no-stdin", action="store_true", help="do not read stdin")
    add("-v", "--verbose", action="store_true", help="show requests, retries and tracebacks")
    add("-V", "--version", action="version", version=f"deepinfra_min {__version__}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `--help` lists both."""
    args: Any = None
    try:
        _prepare_streams()
        args = _parse_arguments(argv)
        return _run(args)
    except KeyboardInterrupt:
        return _die_of_interrupt()
    except DeepInfraError as error:
        failure, code = error, _exit_code(error)
    except OSError as error:
        _abandon_stdout()
        if isinstance(error, BrokenPipeError):
            return 141
        failure, code = DeepInfraError(f"stdout can't be written: {error.strerror}"), 1
        failure.hint = "see that it is open and that its disk has room"
    except Exception as error:
        failure, code = DeepInfraError(f"{type(error).__name__}: {error}", hint="see it with -v"), 1
        failure.__traceback__ = error.__traceback__
    return _report(failure, code, bool(args and args.verbose))


def _prepare_streams() -> None:
    """Make stdout UTF-8 unless it is a terminal, and let no character be one too many for it."""
    if not sys.stdout:
        raise OSError(0, "it is closed")
    for stream in (sys.stdin, sys.stdout):
        reconfigure: Any = getattr(stream, "reconfigure", None)  # a test's own stream has none
        if reconfigure:
            reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def _usage_error(what: str, hint: str = "see --help", setting: str = "usage") -> DeepInfraError:
    return ConfigurationError(what, hint=hint, setting=setting)


def _parse_arguments(argv: list[str] | None) -> Any:
    parser = _make_parser()
    args, extra = parser.parse_known_args(argv)
    if extra:
        hint = "see --help" if extra[0][:1] == "-" else 'quote your prompt: "..."'
        raise _usage_error(f"unexpected argument {extra[0]!r}", hint)
    if (args.prompt, args.messages).count("-") > (not (args.interactive or args.no_stdin)):
        raise _usage_error("stdin can't be both read and not, or read twice", "see -, -i and -n")
    if not 0 < args.timeout < _NEVER:
        raise _usage_error(f"--timeout: {args.timeout} is no number of seconds above 0")
    args.params = dict(_parse_option(option) for option in args.option)
    args.history = _read_messages(args)
    if not (args.history or args.interactive or args.models):
        _note(parser.format_usage(), end="")
        raise _usage_error("nothing to send", "give a prompt, or pipe one in; see --help")
    if args.system is not None:
        args.history.insert(0, {"role": "system", "content": _repair(args.system)})
    return args


def _parse_option(option: str) -> tuple[str, Any]:
    name, equals, text = option.partition("=")
    if not equals or name in ("", "messages", "model", "stream"):
        raise _usage_error(f"-o {option}: not KEY=VALUE, or a KEY that has its own flag")
    text = _read_file(text[1:]) if text[:1] == "@" else text
    with contextlib.suppress(ValueError, RecursionError):
        return name, json.loads(text)
    return name, text


def _read_file(path: str, setting: str = "usage") -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, ValueError) as error:
        what = f"can't read {path}: {getattr(error, 'strerror', error)}"
        raise _usage_error(what, setting=setting) from None


def _read_messages(args: Any) -> list[Any]:
    """Return the messages of --messages, then one of the prompt and of what stdin holds."""
    unread = args.no_stdin or args.interactive or args.models or not sys.stdin or sys.stdin.isatty()
    text = _read_stdin() if "-" in (args.prompt, args.messages) or not unread else ""
    messages: list[Any] = []
    if args.messages:
        source, text = (text, "") if args.messages == "-" else (_read_file(args.messages), text)
        with contextlib.suppress(ValueError, RecursionError):
            messages = json.loads(source)
        if not isinstance(messages, list) or {type(item) for item in messages} != {dict}:
            raise _usage_error(f"--messages {args.messages} holds no JSON array of messages")
    prompt = "" if args.prompt in (None, "-") else _repair(args.prompt)
    turn = "\n\n".join(part for part in (prompt, text) if part.strip())
    return messages + ([{"role": "user", "content": turn}] if turn else [])


def _repair(text: str) -> str:
    """Return an argument as UTF-8 has it, where the locale could not decode it."""
    return text.encode("utf-8", sys.getfilesystemencodeerrors()).decode("utf-8", "replace")


def _read_stdin() -> str:
    if not sys.stdin:  # closed
        return ""
    import threading

    notice = "deepinfra_min: stdin has no end yet; to go without it: -n or </dev/null"
    timer = threading.Timer(3.0, _note, [notice])
    timer.daemon = True
    timer.start()
    try:
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise _usage_error(f"can't read stdin: {error.strerror}") from None
    finally:
        timer.cancel()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _note("deepinfra_min: warning: stdin is not UTF-8; what is not was replaced")
        return data.decode("utf-8-sig", "replace")


def _run(args: Any) -> int:
    if args.verbose:
        import logging

        logging.getLogger(__name__).addHandler(logging.StreamHandler())
        logging.getLogger(__name__).setLevel(logging.DEBUG)
    token, source = None, f"the file {args.key_file}"
    if args.key_file:
        token = _clean_token(_read_file(args.key_file, "api_key"), source)
    with Client(token, base_url=args.base_url, timeout=args.timeout,
                max_retries=args.retries) as client:
        client._token_source = source if token else client._token_source
        _log("debug", "model %s, token from %s", args.model, client._token_source or "nowhere")
        if args.interactive:
            return _converse(client, args)
        return _answer(client, args, args.history)[0]


def _converse(client: Client, args: Any) -> int:
    """Hold a conversation until stdin ends; return the code of its last turn."""
    code, history = 0, args.history
    while True:
        if not history or history[-1].get("role") != "user":
            try:
                turn = _read_turn()
            except KeyboardInterrupt:
                _note("")
                continue
            except EOFError:
                return code
            if not turn.strip():
                continue
            history.append({"role": "user", "content": turn})
        code, message = _answer(client, args, history)
        if message.content or message.tool_calls:
            history.append(_to_wire(message))
        else:
            history.pop()  # a turn that has no answer is no part of the conversation


def _read_turn() -> str:
    if not sys.stdin:  # closed
        raise EOFError
    is_terminal = sys.stdin.isatty()
    if is_terminal and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits lines with it)
        return input("> ")
    _note("> " if is_terminal else "", end="")  # for input() would write it to stdout
    return input()


def _answer(client: Client, args: Any, messages: list[Any]) -> tuple[int, Message]:
    """Show the answer to a conversation; return the exit code and the message, or its beginning."""
    started, answer = time.monotonic(), ChatCompletion()
    failure: DeepInfraError | None = None
    with _Screen(args.reasoning) as screen:
        try:
            answer = _ask(client, args, messages, screen)
            failure = None if args.models else _find_fault(answer)
        except DeepInfraError as error:
            failure, answer = error, error.partial or answer
        except KeyboardInterrupt:
            if not args.interactive:
                raise
            said = Message("assistant", "".join(screen.shown))
            answer = ChatCompletion(choices=(Choice(message=said),))
        screen.end_line()
    if args.usage and (answer.usage or not failure):
        _note(_describe_usage(answer.usage) + f", {time.monotonic() - started:.1f} s")
    if failure is None:
        return 0, answer.message
    code = 7 if screen.shown and not args.json else _exit_code(failure)
    return _report(failure, vars(failure).get("_exit_code", code), args.verbose), answer.message


def _ask(client: Client, args: Any, messages: list[Any], screen: _Screen) -> ChatCompletion:
    """Get what was asked for, and show it."""
    answer, options = ChatCompletion(), {"model": args.model, **args.params}
    if args.models:
        listed = _dump(client.request("GET", "/models")) if args.json else "\n".join(
            f"{model.id}\t{model.context_length or ''}".rstrip() for model in client.models())
        screen.write(listed)
    elif args.json or args.no_stream:
        answer = client.chat(messages, **options)
        screen.think(answer.message.reasoning_content or "")
        screen.write(_dump(answer.raw) if args.json else answer.text)
    else:
        if args.usage:
            options.setdefault("stream_options", {"include_usage": True})
        answer = collect(screen.show(client.stream(messages, **options)))
    for call in () if args.json else answer.message.tool_calls:
        screen.end_line()
        screen.write(_dump(_to_wire(call)))
    return answer


def _find_fault(answer: ChatCompletion) -> DeepInfraError | None:
    """Return what keeps a whole answer from being a good one."""
    if not answer.choices:
        return DeepInfraError("the answer holds no choice", hint="ask again", _exit_code=1)
    reason = answer.choices[0].finish_reason
    if reason in ("stop", "tool_calls", None):
        return None
    if reason not in ("length", "content_filter"):
        return DeepInfraError(f"the answer ended with {reason!r}", _exit_code=1)
    hint = "for a longer answer: -o max_tokens=..." if reason == "length" else "ask differently"
    what = f"the answer is partial: it ended with {reason!r}"
    return DeepInfraError(what, hint=hint, _exit_code=7)


def _describe_usage(usage: Usage | None) -> str:
    if usage is None:
        return "no usage reported"
    text = f"{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens"
    if usage.estimated_cost is not None:
        text += f", ${usage.estimated_cost:.10f}".rstrip("0").rstrip(".")
    return text


class _Screen:
    """Where an answer is shown: on stdout, with the reasoning and a status line on stderr."""
    _ticker: Any = None

    def __init__(self, shows_reasoning: bool) -> None:
        self.shown: list[str] = []
        self._shows_reasoning, self._status = shows_reasoning, "waiting"
        self._held = self._thought = ""

    def __enter__(self) -> _Screen:
        if sys.stderr and sys.stderr.isatty():
            import threading

            self._stop = threading.Event()
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Wipe the status line."""
        if self._ticker:
            self._stop.set()
            self._ticker.join()
            self._ticker = None

    def _tick(self) -> None:
        started, line = time.monotonic(), ""
        while not self._stop.wait(0.1 if line else 0):
            line = f"\r{self._status} {time.monotonic() - started:.0f} s "
            _note(line, end="")
        _note("\r" + " " * len(line) + "\r", end="")

    def show(self, chunks: Iterable[ChatCompletionChunk]) -> Iterator[ChatCompletionChunk]:
        """Hand the chunks on, showing the first choice of each."""
        for chunk in chunks:
            for choice in chunk.choices:
                if choice.index == 0:
                    self.think(choice.delta.reasoning_content or "")
                    self.write(choice.delta.content or "")
            yield chunk

    def think(self, text: str) -> None:
        self._status = "thinking" if text else self._status
        if text and self._shows_reasoning:
            self.__exit__()
            _note(text, end="")
            self._thought = text

    def write(self, text: str) -> None:
        """Write to stdout at once, but for half a character that waits for its other half."""
        text, self._held = _join([self._held, text]), ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if text:
            self.__exit__()
            _note("" if self.shown or not self._thought else "\n", end="")
            self.shown.append(text)
            sys.stdout.write(text)
            sys.stdout.flush()

    def end_line(self) -> None:
        self._held = self._held and "\ufffd"  # its other half does not come
        self.write("")
        if self.shown and not self.shown[-1].endswith("\n"):
            self.write("\n")


def _dump(value: Any) -> str:
    """Return JSON with escapes only where stdout needs them."""
    text = json.dumps(value, ensure_ascii=False)
    with contextlib.suppress(UnicodeEncodeError):
        text.encode(sys.stdout.encoding or "utf-8")
        return text
    return json.dumps(value)


def _note(text: str, end: str = "\n") -> None:
    if sys.stderr:
        with contextlib.suppress(OSError):
            print(text, end=end, file=sys.stderr, flush=True)


def _report(error: DeepInfraError, code: int, is_verbose: bool) -> int:
    """Print an error in two lines, without control characters; return the code."""
    if is_verbose:
        import traceback

        _note("".join(traceback.format_exception(type(error), error, error.__traceback__)), end="")
    hint = error.hint or "see what -v shows"
    for line in (f"deepinfra_min: error: {error.args[0]}", f"  hint: {hint}"):
        _note("".join(c if c.isprintable() else " " for c in line))
    return code


def _exit_code(error: DeepInfraError) -> int:
    if isinstance(error, ConfigurationError):
        return {"api_key": 3, "proxy": 6, "ssl": 6}.get(error.setting, 2)
    if isinstance(error, APIError):
        codes = {401: 3, 402: 3, 403: 3, 429: 5}
        return codes.get(error.status or 0, {3: 4, 4: 4, 5: 6}.get((error.status or 0) // 100, 1))
    return 6


def _die_of_interrupt() -> int:
    """End as Ctrl-C ends a program, so that a shell's loop ends, too."""
    if os.name == "posix":
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)  # pragma: no cover  (nobody is left to tell of it)
    return 130  # pragma: no cover  (Windows)


def _abandon_stdout() -> None:
    """Point stdout elsewhere, so that Python's own flush at exit does not fail once more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
