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
    "StreamInterruptedError", "ToolCall", "Usage", "collect", "iter_sse"]
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
_TEXT = {str, type(None)}


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
    """Return the error for an error payload, a text or decoded; inside a 200 its status is 0."""
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        payload = json.loads(payload)
    outer = payload if isinstance(payload, dict) else {}
    error = outer["error"] if isinstance(outer.get("error"), dict) else outer
    code, headers = error.get("code"), {name.lower(): str(headers[name]) for name in headers}
    if not status and isinstance(code, (int, str)) and re.fullmatch(r"[45]\d\d", str(code)):
        status = int(code)
    message = _human_message(payload) or http.client.responses.get(status, "no message")
    if 300 <= status < 400:
        message += f", to {headers.get('location')}"
    kinds = {401: AuthenticationError, 403: AuthenticationError, 429: RateLimitError}
    return kinds.get(status, ServerError if status >= 500 else APIError)(
        f"HTTP {status}: {message}" if status else f"the API answered with an error: {message}",
        hint=_HINTS.get(status, _HINTS.get(status // 100, "")), status=status or None,
        message=message, code=code, param=error.get("param"), type=error.get("type"), body=payload,
        headers=headers, request_id=headers.get("x-request-id"), retry_after=_retry_after(headers),
        _is_retryable=status in (408, 409, 429) or status >= 500)


def _human_message(payload: Any) -> str:
    """Return the words in an error payload: its `error`, `detail` or `message`, however nested."""
    while isinstance(payload, dict):
        payload = next((payload[k] for k in ("error", "detail", "message") if payload.get(k)), "")
    with contextlib.suppress(KeyError, TypeError):  # validation errors, each with its place
        payload = "; ".join([".".join(map(str, e["loc"])) + f": {e['msg']}" for e in payload])
    text = str(payload or "").strip()
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
            getattr(self, f.name) == getattr(other, f.name) for f in fields(self) if f.compare)


@dataclass(repr=False, eq=False)
class Function(_Parsed):
    """What a tool call calls. `arguments` is the string as it came, valid JSON or not."""
    name: str | None = None
    arguments: str = ""


@dataclass(repr=False, eq=False)
class ToolCall(_Parsed):
    """A call that the model asks for. `index` is its place in a streamed answer."""
    id: str | None = None
    type: str = "function"
    function: Function = field(default_factory=Function)
    index: int | None = field(default=None, compare=False)


@dataclass(repr=False, eq=False)
class Message(_Parsed):
    """A message of a conversation or, in a stream, what a chunk adds to one.

    `content` is a string; None beside tool calls; in a request also a list of parts.
    """
    role: str | None = None
    content: Any = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None


@dataclass(repr=False, eq=False)
class Usage(_Parsed):
    """Tokens counted, and their cost in US dollars."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated_cost: float | None = None
    prompt_tokens_details: Mapping[str, Any] | None = None
    completion_tokens_details: Mapping[str, Any] | None = None


@dataclass(repr=False, eq=False, frozen=True)
class Choice(_Parsed):
    """One of the answers. `finish_reason` is `stop`, `length`, `tool_calls` or another word."""
    index: int = 0
    message: Message = field(default_factory=lambda: Message("assistant"))
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(repr=False, eq=False)
class ChunkChoice(_Parsed):
    """One choice's part of a chunk. `finish_reason` is None until the last."""
    index: int = 0
    delta: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(repr=False, eq=False, frozen=True)
class ChatCompletion(_Parsed):
    """A whole answer. `created` is in seconds since 1970."""
    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
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
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
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
    pricing: Mapping[str, Any] | None = None


@dataclass
class ServerSentEvent:
    """An event of a `text/event-stream`."""
    event: str = "message"
    data: str = ""


_KINDS: dict[str, Any] = {  # what a field has to hold, by its name; the others may hold anything
    "content": str, "reasoning_content": str, "arguments": str, "index": int, "function": Function,
    "tool_calls": [ToolCall], "message": Message, "delta": Message, "choices": [Choice],
    "usage": Usage, "prompt_tokens_details": dict, "completion_tokens_details": dict,
    "logprobs": dict, "pricing": dict}
_CHUNK_KINDS = {**_KINDS, "choices": [ChunkChoice]}
_SHAPES = {dict: "an object", list: "an array", str: "a string", int: "an integer"}


def _parse(kind: Any, value: Any, place: str = "", parsed: Any = None) -> Any:
    """Return decoded JSON as its kind; what is missing or null stays as it is in `parsed`."""
    shape: Any = list if isinstance(kind, list) else kind if kind in _SHAPES else dict
    if not isinstance(value, shape):
        got = type(value).__name__
        raise APIResponseError(f"{place or 'the answer'}: expected {_SHAPES[shape]}, got {got}")
    if shape is list:
        return tuple([_parse(kind[0], item, f"{place}[{i}]") for i, item in enumerate(value)])
    if shape is kind:
        return value
    parsed, kinds = parsed or kind(), _CHUNK_KINDS if kind is ChatCompletionChunk else _KINDS
    values = vars(parsed)  # set here, for speed and for the frozen ones
    for name in [name for name in values if value.get(name) is not None]:
        its_kind, at = kinds.get(name), f"{place}.{name}".lstrip(".")
        values[name] = _parse(its_kind, value[name], at, values[name]) if its_kind else value[name]
    values["raw"] = value
    return parsed


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
    return {name: item for name, item in wire.items()
            if item not in (None, []) or (name == "content" and wire["tool_calls"])}


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
        self.max_retries, self._ssl_context, self._opener = max_retries, ssl_context, opener
        self._token, self._token_source = _find_token(api_key, self.base_url)
        self._headers = _clean_headers(headers or {}, self._token)
        self.__setstate__({})  # which makes the opener

    def chat(self, messages: Messages, *, model: str | None = None,
             **params: Any) -> ChatCompletion:
        """Send a conversation and return the whole answer.

        `messages` is a string (one user turn) or a sequence of mappings and Messages. `params` are
        the API's own (`temperature=`, `tools=`, ...), passed through, but for those that are None.
        Raises APIConnectionError, APIResponseError or APIError, or a class below them.
        Source: https://deepinfra.com/docs/openai_api
        """
        payload = _chat_payload(messages, model, params)
        parse: Callable[[Any], ChatCompletion] = functools.partial(_parse, ChatCompletion)
        return self._call("POST", "/chat/completions", payload, parse)

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
        with self._exchange(method, path, payload) as exchange:
            text = b"".join(exchange.blocks()).decode("utf-8-sig", "replace")
            return _read_json(text or "null", parse, exchange.headers)

    def _stream(self, payload: Any) -> Generator[ChatCompletionChunk, None, None]:
        with self._exchange("POST", "/chat/completions", payload) as exchange:
            yield ChatCompletionChunk()  # taken by stream(), not by the caller
            blocks = exchange.blocks(StreamInterruptedError, _NEVER)
            yield from _iter_chunks(blocks, exchange.headers)
            exchange.finish()

    @contextlib.contextmanager
    def _exchange(self, method: str, path: str, payload: Any) -> Iterator[_Exchange]:
        """Send a request; let no error show the token, and say which one was refused."""
        try:
            with contextlib.closing(self._open(method, path, payload)) as exchange:
                yield exchange
        except DeepInfraError as error:
            if isinstance(error, AuthenticationError):
                source = self._token_source
                error.hint = f"check the token, from {source}" if source else _TOKEN_HINT
            _mask_error(error, self._token)
            raise

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
                attempt += 1
                if attempt > self.max_retries or time.monotonic() + wait >= limits.end:
                    raise
                _log("info", "retry %d of %d in %.2f s: %s", attempt, self.max_retries, wait,
                     _mask(str(error), self._token))
            time.sleep(wait)


# ---- Request to wire -----------------------------------------------------------------------------

def _find_token(api_key: str | None, base_url: str) -> tuple[str, str]:
    """Return the token and where it came from, or two empty strings."""
    url, source = urllib.parse.urlsplit(base_url), "api_key"
    is_local = re.fullmatch(_LOOPBACK, url.hostname or "")
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
    with contextlib.suppress(ValueError):  # a port or an IPv6 address that can't be
        if re.fullmatch(pattern, url, re.ASCII) and urllib.parse.urlsplit(url).port != 0:
            return url
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
    connect_end: float | None = None  # while it connects
    is_answered = False  # a byte of the answer has come

    def __init__(self, connect: float | None, silence: float | None,
                 deadline: float | None = None, started: float = 0.0) -> None:
        times = [_NEVER if seconds is None else seconds for seconds in (connect, silence, deadline)]
        self.connect, self.silence, self.deadline = times
        self.end = started + self.deadline

    def left(self) -> float | None:
        """Return how long the next wait for the network may last; raise once time is up."""
        now = time.monotonic()
        left = min(self.connect_end - now if self.connect_end else self.silence, self.end - now)
        if left <= 0:
            raise socket.timeout("timed out")
        return None if left == _NEVER else left

    def error(self, place: str) -> APITimeoutError:
        """Return the error for the limit that has run out."""
        if time.monotonic() >= self.end - 0.01:
            what, hint = f"the call passed its deadline of {self.deadline:g} s", "raise deadline="
        elif self.connect_end:
            what = f"connecting to {place} took longer than connect_timeout, {self.connect:g} s"
            hint = "check the base URL, the network and the proxy, or raise connect_timeout="
        else:
            what = f"{place} was silent for the timeout of {self.silence:g} s"
            hint = "raise timeout= or --timeout: a model may think for minutes"
        return APITimeoutError(what, hint=hint, _is_retryable=bool(self.connect_end))


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
            _fail(error, request, limits)
        self.headers, self.close = self._response.headers, self._response.close
        status, seconds = self._response.getcode(), time.monotonic() - started
        _log("debug", "%s %s: HTTP %s in %.3f s", request.method, request.full_url, status, seconds)
        if 200 <= status < 300:
            return
        body = bytearray()  # as much of it as arrives
        with contextlib.closing(self), contextlib.suppress(DeepInfraError):
            for block in self.blocks():
                body += block
        if status == 407:  # in http.client's words for a proxy that opens no tunnel
            refusal = OSError("Tunnel connection failed: 407 Proxy Authentication Required")
            _fail(refusal, request, limits)
        raise _api_error(body.decode("utf-8", "replace"), status, self.headers)

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
                _fail(error, self._request, self._limits, cut)
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


def _fail(error: Any, request: Any, limits: _Limits, cut: Any = APIConnectionError) -> NoReturn:
    """Raise our error for one of urllib's: which layer failed, where, why, and what to do."""
    is_connecting = limits.connect_end or isinstance(error, urllib.error.URLError)
    while isinstance(getattr(error, "reason", ""), Exception):
        error = error.reason  # urllib wraps what goes wrong while it connects and sends
    error.__traceback__ = None  # whose frames keep a proxy's answer open, before Python 3.11
    target = urllib.parse.urlsplit(request.full_url).netloc
    is_beyond = request._tunnel_host and not is_connecting  # the proxy, which is out of it then
    place = target if is_beyond or request.host == target else f"the proxy {request.host}"
    reason, retry = getattr(error, "strerror", None) or str(error), not limits.is_answered
    if isinstance(error, socket.timeout) and error.errno is None:
        raise limits.error(place) from error
    if reason.startswith("Tunnel connection failed"):
        what = f"the proxy {request.host} refused the connection: {reason.partition(': ')[2]}"
        hint, retry = "check HTTPS_PROXY=http://user:password@host:port, or set NO_PROXY", False
    elif hasattr(error, "verify_message"):  # an SSLCertVerificationError, where there is ssl
        what = f"TLS: the certificate of {target} is not trusted: {error.verify_message}"
        hint, retry = "set SSL_CERT_FILE to the CA's PEM file, or pass ssl_context=", False
        if sys.version_info >= (3, 13) and 79 < error.verify_code < 95:  # what X509_STRICT adds
            hint = ("Python 3.13 checks certificates more strictly: have a standard one issued, or "
                    "pass an ssl_context= without ssl.VERIFY_X509_STRICT; SSL_CERT_FILE is no help")
    elif isinstance(error, getattr(ssl, "SSLError", ())):
        what = f"TLS with {target} failed: {reason}"
        hint = "check that the port speaks https, and that no firewall or proxy breaks in"
    elif is_connecting:
        how = "DNS can't resolve" if isinstance(error, socket.gaierror) else "TCP can't connect to"
        what = f"{how} {place}: {reason}"
        hint = "check the base URL, the proxy's address, the network, and that a server is there"
    elif isinstance(error, (OSError, http.client.IncompleteRead)):
        what = f"{place} cut the connection {'before' if retry else 'within'} the answer"
        hint = "ask again" if retry else "what arrived is incomplete: ask again"
    else:
        what = f"{place} does not answer in HTTP: {reason}"
        cut, hint, retry = APIResponseError, _NOT_THE_API, False
    raise cut(what, hint=hint, _is_retryable=retry) from error


def _mask_error(error: DeepInfraError, token: str) -> None:
    """Take the token out of an error and its causes, and only then cut what is long."""
    error.args = (_mask(str(error.args[0]), token)[:1000],)
    vars(error).update({name: _mask(value, token) for name, value in vars(error).items()})
    if isinstance(error, APIResponseError):
        error.body = error.body[:200]
    cause = error.__cause__ or error.__context__
    while cause is not None:
        shown = f"{cause} {cause.args} {vars(cause)}"
        if _mask(shown, token) != shown:
            error.__cause__ = error.__context__ = None
        cause = cause.__cause__ or cause.__context__


def _mask(value: Any, token: str) -> Any:
    """Return decoded JSON without the token, nor its spellings inside a text."""
    if len(token) < 4:  # a local server's, and a part of many a word
        return value
    escaped = json.dumps(token)[1:-1], repr(token)[1:-1], token.replace("/", "\\/")
    try:
        text = json.dumps(value)
        for spelling in (*escaped, token):
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
        self._idle: dict[Any, list[socket.socket]] = {}
        self._locks: dict[int, Any] = {}  # by process, since a fork may copy one that is held

    def http_open(self, req: Any) -> Any:
        """Send a request on a kept connection or, if that fails before an answer, on a new one."""
        login = req.get_header("Proxy-authorization")
        key = (os.getpid(), req.type, req.host, req._tunnel_host, login)
        seconds = req.timeout if isinstance(req.timeout, (int, float)) else None
        limits = getattr(req, "limits", None) or _Limits(seconds, seconds)
        connect = functools.partial(
            _Connection, context=self._tls_context() if req.type == "https" else None,
            limits=limits, keep=lambda sock: self._idle.setdefault(key, []).append(sock))
        kept = self._take_idle(key)
        if kept:
            try:
                return self.do_open(functools.partial(connect, kept=kept), req)
            except OSError as error:
                reason = getattr(error, "reason", error)  # which urllib wraps while it sends
                if limits.is_answered or isinstance(reason, socket.timeout):
                    raise
        return self.do_open(connect, req)

    https_open = http_open

    def close(self) -> None:
        """Close the idle connections."""
        for key in list(self._idle):
            for sock in self._idle.pop(key, []):
                sock.close()

    __del__ = close

    def _take_idle(self, key: Any) -> socket.socket | None:
        """Return a kept socket on which nothing has arrived, neither bytes nor the end."""
        with contextlib.suppress(LookupError):  # none is left
            while True:
                sock = self._idle[key].pop()  # no lock: a list's pop and append are atomic
                try:
                    sock.settimeout(0)
                    socket.socket.recv(sock, 1, socket.MSG_PEEK)  # TLS itself can't peek
                except BlockingIOError:
                    return sock
                except OSError:
                    pass  # it was reset
                sock.close()
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


class _Connection(http.client.HTTPConnection):
    """http.client's connection for one request, on a kept socket or a new one, under limits."""

    def __init__(self, host: str, *, limits: _Limits, context: ssl.SSLContext | None, keep: Any,
                 kept: Any = None, timeout: Any = None) -> None:
        self.default_port = 443 if context else 80
        super().__init__(host)
        self._limits, self._context, self._keep, self._kept = limits, context, keep, kept
        self._create_connection = functools.partial(_dial, limits)

    def connect(self) -> None:
        self.sock: Any = self._kept
        if self._kept:
            return
        self._limits.connect_end = time.monotonic() + self._limits.connect
        super().connect()  # by _dial, and through a tunnel
        if self._context:
            self.sock.settimeout(self._limits.left())
            server = vars(self)["_tunnel_host"] or self.host
            self.sock = self._context.wrap_socket(self.sock, server_hostname=server)
        self._limits.connect_end, self._limits.is_answered = None, False

    def putheader(self, header: Any, *values: Any) -> None:
        if header != "Connection":  # urllib's "close"
            super().putheader(header, *values)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        with contextlib.suppress(ConnectionError):  # an early answer, say 413, may be there
            for start in range(0, len(data), 65536):  # sendall() has one timeout for all of it
                self.sock.settimeout(self._limits.left())
                super().send(data[start : start + 65536])

    def response_class(self, sock: Any, *args: Any, **options: Any) -> Any:  # type: ignore
        """Hand the socket over to its answer, unless that is a proxy's, which opens a tunnel."""
        is_proxy = self._limits.connect_end
        self.sock = sock if is_proxy else None
        return _Response(self._limits, None if is_proxy else self._keep, sock, *args, **options)


class _Response(http.client.HTTPResponse):
    """http.client's response, under limits; if read to its end, it hands its socket to `keep`."""
    _is_last_chunk = False

    def __init__(self, limits: _Limits, keep: Any, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._keep, self._sock = keep, sock

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
        if (self.length == 0 or self._is_last_chunk) and not self.will_close:
            self._keep(self._sock)
        elif self._keep:
            self._sock.close()


def _dial(limits: _Limits, address: tuple[str, int], *unused: object) -> socket.socket:
    """Connect to one of the host's addresses, which share the time that is left."""
    found: Any = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for n, (*_, sockaddr) in enumerate(found):
        try:
            left = limits.left()
            sock = socket.create_connection(sockaddr[:2], left and left / (len(found) - n))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0x10))
            with contextlib.suppress(OSError):  # 0x10: macOS, unnamed before Python 3.10
                sock.setsockopt(socket.IPPROTO_TCP, idle, 60)
            return sock
        except OSError as error:
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
                text = b"\n".join(data).decode("utf-8", "replace")
                yield ServerSentEvent(event or "message", text)
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
    begun, end, bom = bytearray(), b"", b"\xef\xbb\xbf"
    for block in filter(None, blocks):
        if end == b"\r" and block[:1] == b"\n":
            block = block[1:]  # the rest of a CRLF whose line is out already
        lines, end = block.splitlines(), block[-1:]  # of bytes: at CR, LF and CRLF alone
        rest = b"" if end in b"\r\n" else lines.pop()
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
    head = bytearray()  # what came since the last event
    reasons: dict[int, Any] = {}  # for which each choice ended

    def copied() -> Iterator[bytes]:
        for block in blocks:
            head.extend(block if len(head) < 1 << 20 else b"")
            yield block

    for event in iter_sse(copied()):
        head.clear()
        chunk = _parse_plain_chunk(event.data)
        if chunk is None or event.event == "error":
            data = event.data.strip()
            if data == "[DONE]":
                return
            if event.event == "error":
                raise _api_error(data, 0, headers)
            if not data:
                continue
            chunk = _read_json(data, lambda raw: _parse(ChatCompletionChunk, raw), headers)
            if chunk.usage is None and chunk.raw.get("choices", ()) is None:
                continue  # one of the keepalives
        for choice in chunk.choices:
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
        yield chunk
    text = head.decode("utf-8-sig", "replace")
    is_stream = reasons or "event-stream" in headers.get("content-type", "").lower()
    if text.lstrip().startswith(("{", "[", "<")) or not is_stream:
        _read_json(text, bool, headers)  # raises for what is no JSON, or an error payload
        raise APIResponseError("the server ignores `stream`: it sent JSON, no event stream",
                               hint="use chat() or --no-stream", body=text)
    if not reasons or not all(reasons.values()):
        raise StreamInterruptedError("the stream ended before the answer was complete",
                                     hint="what arrived is a part of the answer: ask again")


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
                and rest == (None, None, None, None) and None not in head and end == len(text)):
            names = delta.get("name"), delta.get("tool_call_id")
            message = Message(delta.get("role"), content, reasoning, (), *names)
            part = ChunkChoice(index, message, choice.get("finish_reason"))
            chunk = ChatCompletionChunk(*head, (part,), None, raw.get("service_tier"))
            message.raw, part.raw, chunk.raw = delta, choice, raw
            return chunk
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        pass
    return None


def _read_json(text: str, parse: Callable[[Any], T], headers: Mapping[str, str]) -> T:
    """Return what `parse` makes of a JSON text that is no error payload; errors show the text."""
    try:
        payload = json.loads(text)
        if isinstance(payload, dict) and (
                payload.get("error") or ("detail" in payload and "choices" not in payload)):
            raise _api_error(payload, 0, headers)
        return parse(payload)
    except APIResponseError as error:
        what = error.args[0]
    except (ValueError, RecursionError) as error:
        what = f"the answer is not JSON: {error}"
    # raised here, so that its context is no error that holds the text
    raise APIResponseError(what, hint=_NOT_THE_API, body=text)


_DELTA = ("role", "content", "reasoning_content", "tool_calls", "name", "tool_call_id")
_ENDING = ("finish_reason", "logprobs")  # these and the former are what a choice's parts bring


def collect(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Return the whole answer that a stream's chunks add up to.

    Raises what iterating the chunks raises, with the answer so far as the error's `partial`. `raw`
    holds what the chunks have beside their choices.
    """
    answer = ChatCompletion()
    values, raw = vars(answer), vars(answer).setdefault("raw", {})
    parts: dict[int, dict[str, list[Any]]] = {}
    try:
        for chunk in chunks:
            raw.update(chunk.raw)
            for name in ("id", "created", "model", "usage", "service_tier"):
                values[name] = getattr(chunk, name) or values[name]
            for choice in chunk.choices:
                if choice.index not in parts:
                    parts[choice.index] = {name: [] for name in (*_DELTA, *_ENDING)}
                for source, names in (choice.delta, _DELTA), (choice, _ENDING):
                    for name in names:
                        value = getattr(source, name)
                        if value is not None:
                            parts[choice.index][name].append(value)
    except DeepInfraError as error:
        error.partial = answer
        raise
    finally:  # of a part, too
        raw.pop("choices", None)
        values["choices"] = tuple([_fold(index, parts[index]) for index in sorted(parts)])
    return answer


def _fold(index: int, parts: dict[str, list[Any]]) -> Choice:
    """Return the choice that its parts add up to."""
    logprobs: dict[str, Any] = {}
    for part in parts["logprobs"]:
        for name, items in part.items():
            known = logprobs.get(name)
            if isinstance(known, list) and isinstance(items, list):
                known.extend(items)
            elif known is None:
                logprobs[name] = list(items) if isinstance(items, list) else items
    message = Message(
        _first(parts["role"]) or "assistant", _join(parts["content"]),
        _join(parts["reasoning_content"]), _join_calls(parts["tool_calls"]),
        _first(parts["name"]), _first(parts["tool_call_id"]))
    return Choice(index, message, _first(reversed(parts["finish_reason"])), logprobs or None)


def _join_calls(parts: Iterable[tuple[ToolCall, ...]]) -> tuple[ToolCall, ...]:
    """Join the pieces of each tool call: those of its index, else of its id, else what follows."""
    calls: list[list[ToolCall]] = []
    known: dict[Any, list[ToolCall]] = {}  # by index and by id
    same: list[ToolCall] = []
    for call in [call for part in parts for call in part]:
        keys = [key for key in (call.index, call.id) if isinstance(key, (int, str))]
        same = next((known[key] for key in keys if key in known), [] if keys else same)
        if not same:
            calls.append(same)
        same.append(call)
        for key in keys:
            known.setdefault(key, same)
    return tuple([ToolCall(
        _first(call.id for call in same), same[0].type,
        Function(_first(call.function.name for call in same),
                 _join([call.function.arguments for call in same])), same[0].index)
        for same in calls])


def _first(values: Iterable[Any]) -> Any:
    return next(filter(None, values), None)


def _join(pieces: list[str]) -> Any:
    """Return the joined text, surrogates that were cut apart made one character; None for none."""
    wide = "".join(pieces).encode("utf-16", "surrogatepass")
    return wide.decode("utf-16", "surrogatepass") if pieces else None


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
_EXIT_CODES: Any = {  # by an error's setting, its HTTP status, the hundreds of that, its class
    "api_key": 3, 401: 3, 402: 3, 403: 3, 429: 5, 3: 4, 4: 4, 5: 6, "proxy": 6, "ssl": 6,
    ConfigurationError: 2, APIError: 1, DeepInfraError: 6, Exception: 1}


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `--help` lists both."""
    try:
        sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  (for one that is closed)
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        if not sys.stdout:
            raise OSError(0, "it is closed")
        for stream in (sys.stdin, sys.stdout):  # no character may be one too many for them
            if hasattr(stream, "reconfigure"):  # a test's own stream has none
                stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
        return _run(_parse_arguments(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        if os.name == "posix":  # end as it ends a program, so that a shell's loop ends, too
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)  # pragma: no cover  (nobody is left to tell of it)
        return 130  # pragma: no cover  (Windows)
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, DeepInfraError):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # Python will flush it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141 if isinstance(error, BrokenPipeError) else _report(error)


def _parse_arguments(argv: list[str]) -> Any:
    """Return the arguments, with what -o says as `params`, and the messages as `history`."""
    errors = sys.getfilesystemencodeerrors()  # what the locale could not decode, as UTF-8 has it:
    argv = [word.encode("utf-8", errors).decode("utf-8", "replace") for word in argv]
    parser = _make_parser()
    try:
        args, extra = parser.parse_known_args(argv)
    except SystemExit:
        sys.stdout.flush()  # after --help, while main() can see what is wrong with it
        raise
    if extra:
        hint = "see --help" if extra[0][:1] == "-" else 'quote your prompt: "..."'
        raise ConfigurationError(f"unexpected argument {extra[0]!r}", hint=hint)
    if (args.prompt, args.messages).count("-") > (not (args.interactive or args.no_stdin)):
        raise ConfigurationError("stdin can't be both read and not, or twice: see -, -i and -n")
    if not 0 < args.timeout < _NEVER:
        raise ConfigurationError(f"--timeout: {args.timeout} is no number of seconds above 0")
    args.params = {}
    for option in args.option:
        name, equals, text = option.partition("=")
        if not equals or name in ("", "messages", "model", "stream"):
            raise ConfigurationError(f"-o {option}: not KEY=VALUE, or a KEY that has its own flag")
        args.params[name] = _parse_value(_read(text[1:]) if text[:1] == "@" else text)
    args.history = _read_messages(args)
    if not (args.history or args.interactive or args.models):
        _note(parser.format_usage(), end="")
        raise ConfigurationError("nothing to send", hint="give a prompt or pipe one in; see --help")
    if args.system is not None:
        args.history.insert(0, {"role": "system", "content": args.system})
    return args


def _make_parser() -> Any:
    import argparse  # here, since whoever imports this module may have no command line

    def fail(message: str) -> NoReturn:
        raise ConfigurationError(message)

    parser: Any = argparse.ArgumentParser(
        "deepinfra_min", description="Ask a model on DeepInfra and stream its answer to stdout.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error, parser.color = fail, False  # Python 3.14 would turn colour on
    match = parser._get_option_tuples  # allow_abbrev=False takes joined short flags along, on 3.7
    parser._get_option_tuples = lambda word: [] if word[:2] == "--" else match(word)
    add, env = parser.add_argument, os.environ.get
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
    return parser


def _read_messages(args: Any) -> list[Any]:
    """Return the messages of --messages, then one of the prompt and of what stdin holds."""
    messages = _parse_value(_read(args.messages)) if args.messages else []
    if args.messages and (type(messages) is not list or set(map(type, messages)) != {dict}):
        raise ConfigurationError(f"--messages {args.messages} holds no JSON array of messages")
    parts = ["" if args.prompt in (None, "-") else args.prompt]
    is_stdin_left = not (args.messages == "-" or args.no_stdin or args.interactive or args.models)
    if args.prompt == "-" or (is_stdin_left and not sys.stdin.isatty()):
        parts.append(_read("-"))
    turn = "\n\n".join(part for part in parts if part.strip())
    return [*messages, {"role": "user", "content": turn}] if turn else messages


def _parse_value(text: str) -> Any:
    """Return decoded JSON, or the text if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _read(path: str, setting: str = "") -> str:
    """Return the text of a file, "-" being stdin, with a warning if it is not UTF-8."""
    import threading

    name = "stdin" if path == "-" else path
    notice = "deepinfra_min: stdin has no end yet; to go without it: -n or </dev/null"
    timer = threading.Timer(3.0, _note, [notice])
    try:
        if path == "-":
            timer.start()
        with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigurationError(f"can't read {name}: {error.strerror}", setting=setting) from None
    finally:
        timer.cancel()
    text = data.decode("utf-8-sig", "replace")
    if text.encode() not in (data, data[3:]):  # data[3:]: what follows a BOM
        _note(f"deepinfra_min: warning: {name} is not UTF-8; what is not was replaced")
    return text


def _run(args: Any) -> int:
    """Send what there is to send, and with -i what stdin brings; return the last exit code."""
    if args.verbose:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    source = f"the file {args.key_file}"
    token = _clean_token(_read(args.key_file, "api_key"), source) if args.key_file else None
    with Client(token, base_url=args.base_url, timeout=args.timeout,
                max_retries=args.retries) as client:
        client._token_source = source if token else client._token_source
        _log("debug", "model %s, token from %s", args.model, client._token_source or "nowhere")
        code = 0 if args.interactive else _answer(client, args)
        while args.interactive and _add_turn(args.history):
            code = _answer(client, args)
    return code


def _add_turn(history: list[Any]) -> bool:
    """Have the history end with a turn of the user; return False if stdin brings none."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() edits lines with it)
    while not history or history[-1].get("role") != "user":
        try:  # input() writes its prompt to stdout, which may be for the answers alone
            with contextlib.redirect_stdout(sys.stdout if sys.stdout.isatty() else sys.stderr):
                turn = input("> " if sys.stdin.isatty() else "")
        except KeyboardInterrupt:
            _note("")
            continue
        except EOFError:
            return False
        if turn.strip():
            history.append({"role": "user", "content": turn})
    return True


def _answer(client: Client, args: Any) -> int:
    """Show the answer to the history, and add it there, or its beginning; return the exit code."""
    started, answer = time.monotonic(), ChatCompletion()
    failure: DeepInfraError | None = None
    with contextlib.closing(_Screen(args.reasoning)) as screen:
        try:
            answer = _ask(client, args, screen)
        except DeepInfraError as error:
            failure, answer = error, error.partial or answer
        except KeyboardInterrupt:
            if not args.interactive:
                raise
        screen.end_line()
    message = answer.message if answer.choices else Message("assistant", "".join(screen.shown))
    if message.content or message.tool_calls:
        args.history.append(_to_wire(message))
    else:
        del args.history[-1:]  # a turn that has no answer is no part of the conversation
    usage, text = answer.usage, "no usage reported"
    if usage:
        text = f"{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens"
    if usage and usage.estimated_cost is not None:
        text += f", ${usage.estimated_cost:.10f}".rstrip("0").rstrip(".")
    if args.usage and (usage or not failure):
        _note(f"{text}, {time.monotonic() - started:.1f} s")
    return _report(failure, 7 if screen.shown else 0) if failure else 0


def _ask(client: Client, args: Any, screen: _Screen) -> ChatCompletion:
    """Show what was asked for, and return it; raise what keeps it from being a good answer."""
    options = {"model": args.model, **args.params}
    if args.models:
        screen.show(_dump(client.request("GET", "/models")) if args.json else "\n".join(
            f"{model.id}\t{model.context_length or ''}".rstrip() for model in client.models()))
        return ChatCompletion()
    if args.json or args.no_stream:
        answer = client.chat(args.history, **options)
        screen.show(_dump(answer.raw) if args.json else answer.text,
                    answer.message.reasoning_content)
    else:
        if args.usage:
            options.setdefault("stream_options", {"include_usage": True})
        answer = collect(map(screen.follow, client.stream(args.history, **options)))
    for call in () if args.json else answer.message.tool_calls:
        screen.end_line()
        screen.show(_dump(_to_wire(call)))
    if not answer.choices:
        raise DeepInfraError("the answer holds no choice", hint="ask again", _exit_code=1)
    reason = answer.choices[0].finish_reason
    if reason in ("length", "content_filter"):
        hint = "for a longer answer: -o max_tokens=..." if reason == "length" else "ask differently"
        what = f"the answer is partial: it ended with {reason!r}"
        raise DeepInfraError(what, hint=hint, partial=answer, _exit_code=7)
    if reason not in ("stop", "tool_calls", None):
        raise DeepInfraError(f"the answer ended with {reason!r}", partial=answer, _exit_code=1)
    return answer


def _dump(value: Any) -> str:
    """Return JSON for people, too: with no escapes but for halves of characters."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class _Screen:
    """Where an answer is shown: on stdout, with the reasoning and a status line on stderr."""
    _ticker: Any = None
    _status, _gap, _held = "waiting", "", ""

    def __init__(self, shows_reasoning: bool) -> None:
        self.shown: list[str] = []
        self._shows_reasoning = shows_reasoning
        if sys.stderr.isatty():
            import threading

            self._stop = threading.Event()
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        started, line = time.monotonic(), ""
        while not self._stop.wait(0.1):
            line = f"\r{self._status} {time.monotonic() - started:.0f} s "
            _note(line, end="")
        _note("\r" + " " * len(line) + "\r", end="")

    def close(self) -> None:
        """Wipe the status line, or end the last line of the reasoning."""
        if self._ticker:
            self._stop.set()
            self._ticker.join()
        _note(self._gap, end="")
        self._gap = ""

    def follow(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        """Show the first choice's part of a chunk; hand the chunk on."""
        for choice in chunk.choices:
            if choice.index == 0:
                self.show(choice.delta.content, choice.delta.reasoning_content)
        return chunk

    def show(self, content: str | None, reasoning: str | None = None) -> None:
        """Write to stdout at once, but for half a character that waits for its other half."""
        self._status = "thinking" if reasoning else self._status
        if reasoning and self._shows_reasoning:
            if not self._gap:
                self.close()
            _note(reasoning, end="")
            self._gap = "\n"
        text, self._held = _join([self._held, content or ""]), ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        if text:
            self.close()
            self.shown.append(text)
            sys.stdout.write(text)
            sys.stdout.flush()

    def end_line(self) -> None:
        if self._held or (self.shown and not self.shown[-1].endswith("\n")):
            self.show("\n")  # after half a character whose other half does not come


def _note(text: str, end: str = "\n") -> None:
    with contextlib.suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


def _report(error: Exception, code: int = 0) -> int:
    """Print an error in two lines, without control characters; return its exit code."""
    import traceback

    trace = traceback.format_exception(type(error), error, error.__traceback__)
    _log("debug", "%s", "".join(trace))
    status = getattr(error, "status", None) or 0
    keys = getattr(error, "setting", ""), status, status // 100, *type(error).__mro__
    code = vars(error).get("_exit_code") or code or next(
        _EXIT_CODES[key] for key in keys if key in _EXIT_CODES)
    what, hint = f"{type(error).__name__}: {error}", ""
    if isinstance(error, DeepInfraError):
        what, hint = str(error.args[0]), error.hint
    elif isinstance(error, OSError):
        what = f"stdout can't be written: {error.strerror}"
        hint = "see that it is open and that its disk has room"
    hint = hint or ("see --help" if code == 2 else "see what -v shows")
    for line in (f"deepinfra_min: error: {what}", f"  hint: {hint}"):
        _note("".join(c if c.isprintable() else " " for c in line))
    return code


if __name__ == "__main__":
    sys.exit(main())
