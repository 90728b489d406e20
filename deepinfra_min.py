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

The token comes from DEEPINFRA_TOKEN. To vendor this file, copy it under any name; to update it,
copy it again. Its sections: errors, data, client, connections, streams, command line. A user needs
to read as far as the public methods of `Client`, and the docstrings of `collect` and `iter_sse`.
"""

from __future__ import annotations

import codecs
import itertools
import os
import random
import re
import socket
import ssl
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, responses
from json import JSONDecoder, dumps, loads
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

TYPE_CHECKING = False  # importing typing takes longer than this module's own code
if TYPE_CHECKING:
    from typing import Any, NoReturn

    JSON = dict[str, Any]
    Messages = str | Iterable[Mapping[str, Any] | "Message"]

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
__version__ = "2.0.0"

DEFAULT_BASE_URL = "https://api.deepinfra.com/v1/openai"
DEFAULT_MODEL = "deepseek-ai/DeepSeek-R1"


# ---- Errors --------------------------------------------------------------------------------------


class DeepInfraError(Exception):
    """The base of all errors that a server, a network or a setting causes.

    `is_retryable` says whether the same request may be sent again. `partial` is the answer so far
    if `collect` raised the error, else None.
    """

    is_retryable = False
    retry_after: float | None = None
    partial: ChatCompletion | None = None


class ConfigurationError(DeepInfraError, ValueError):
    """A setting is missing or malformed. Nothing was sent."""


class APIConnectionError(DeepInfraError):
    """No complete answer arrived: DNS, TCP, TLS, a proxy, a cut connection. See `__cause__`."""


class APITimeoutError(APIConnectionError):
    """The server was silent for `timeout`, or `connect_timeout` or `deadline` ran out."""


class StreamInterruptedError(APIConnectionError):
    """A stream ended before it was complete: the chunks that came are a part of the answer."""


class APIResponseError(DeepInfraError):
    """The answer is not what the API promises.

    `body` holds the first 200 characters of a text that can't be decoded, else it is empty.
    """

    body = ""


class APIError(DeepInfraError):
    """The API answered with an error.

    `status` is the HTTP status, or the numeric code of an error inside a 200, else None. `message`
    is the API's own text, on one line and at most 1,000 characters long. `body` is decoded JSON or
    text; `code` is the body's own code, if any. `headers` has names in lower case; `request_id` and
    `retry_after`, the seconds that the server asks to wait, come from there.
    """

    status: int | None
    message: str
    body: Any
    code: Any
    headers: Mapping[str, str]
    request_id: str | None


class AuthenticationError(APIError):
    """The token was refused (401, 403)."""


class RateLimitError(APIError):
    """Too many requests at once, or the model is busy (429)."""


class ServerError(APIError):
    """The service failed (5xx)."""


def _find_error(payload: Any) -> Any:
    """Return the object that tells of an error, None if a payload is not that of an error."""
    if isinstance(payload, list):
        return next(filter(None, map(_find_error, payload)), None)
    if isinstance(payload, dict):
        error = payload.get("error") or payload.get("errors")
        if payload.get("choices") and not error:
            return _find_error(payload["choices"])
        is_text = isinstance(payload.get("message") or payload.get("msg"), str)
        if error or is_text or payload.get("detail") or payload.get("finish_reason") == "error":
            return _find_error(error) or payload
    return None


def _find_text(error: Any) -> str:
    """Return the text in an error of any shape, "" if there is none."""
    if isinstance(error, str):
        return error.strip()
    if isinstance(error, list):
        return "; ".join(filter(None, map(_find_text, error)))
    if not isinstance(error, dict):
        return ""
    names = ("message", "msg", "detail", "error", "errors")
    text = next(filter(None, map(_find_text, map(error.get, names))), "")
    place = error.get("loc")  # in a 422's list
    if isinstance(place, list):
        text = f"{'.'.join(map(str, place))}: {text}"
    return text


def _clean(text: str) -> str:
    """Return a server's text on one line, cut, without control characters: it goes into logs."""
    return "".join(char if char.isprintable() else " " for char in text[:1000]).strip()


# ---- Data ----------------------------------------------------------------------------------------

_JSON_TYPES = {"str": [str], "int": [int], "float": [int, float], "tuple": [list]}
_RAW: JSON = field(default_factory=dict, repr=False, compare=False)  # the original JSON


class _Object:
    """The base of the data classes: builds them from JSON and gives it back."""

    raw: JSON
    _kinds: Any

    def __init_subclass__(cls) -> None:
        """Read from the annotations which JSON types a field takes, and the class of objects."""
        cls._kinds = {}
        for name, annotation in cls.__annotations__.items():
            # "str | None" gives ("", "str"), "tuple[Choice, ...]" gives ("tuple", "Choice").
            outer, item = re.findall(r"(tuple)?\W*(\w+)", annotation)[0]
            cls._kinds[name] = _JSON_TYPES.get(outer or item, [dict]), globals().get(item)

    @classmethod
    def _parse(cls, raw: Any) -> Any:
        """Return the object that JSON describes; a value of the wrong type counts as missing."""
        if not isinstance(raw, dict):
            raw = {}
        values: JSON = {}
        kinds = cls._kinds
        for name, value in raw.items():
            types, item_class = kinds.get(name, ((), None))
            if type(value) in types:
                if item_class:
                    if type(value) is dict:
                        value = item_class._parse(value)
                    else:
                        value = tuple(
                            [item_class._parse(item) for item in value if isinstance(item, dict)]
                        )
                values[name] = value
        values["raw"] = raw
        return cls(**values)

    def to_dict(self) -> JSON:
        """Return the JSON to send: known and unknown fields, without those that are None or ()."""
        values = {**self.raw, **vars(self)}
        del values["raw"]
        if values.get("reasoning"):  # of a message: goes back under the name that it came with
            values.pop("reasoning_content", None)
        return {
            name: _to_json(value)
            for name, value in values.items()
            if value not in (None, ()) or name == "content"  # null beside tool calls
        }


def _to_json(value: Any) -> Any:
    """Return a field of ours as JSON."""
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, _Object):
        return value.to_dict()
    return value


@dataclass
class Function(_Object):
    """What a tool call calls. `arguments` is JSON text as it came, valid or not."""

    name: str | None = None
    arguments: str = ""
    raw: JSON = _RAW

    def __post_init__(self) -> None:
        # Some servers send the object itself.
        if isinstance(self.raw.get("arguments"), (dict, list)):
            self.arguments = dumps(self.raw["arguments"])


@dataclass
class ToolCall(_Object):
    """A call that the model asks for. `index` is its place in a streamed answer."""

    id: str | None = None
    type: str = "function"
    function: Function = field(default_factory=Function)
    index: int | None = None
    raw: JSON = _RAW


@dataclass
class Message(_Object):
    """A message of a conversation or, in a stream, what a chunk adds to one.

    `content` may be None beside tool calls. In a request it may also be a list of parts; in an
    answer it is the text of all parts, or the words of a refusal.
    """

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    raw: JSON = _RAW

    def __post_init__(self) -> None:
        raw = self.raw
        # Content in parts, a refusal, or reasoning under its other name; few messages need this.
        if not self.content or "reasoning" in raw:
            content = raw.get("content") or raw.get("refusal")
            self.content = _join_parts(content) or self.content
            thinking = _join_parts(raw.get("reasoning")) or _join_parts(content, is_thinking=True)
            self.reasoning_content = self.reasoning_content or thinking or None


def _join_parts(content: Any, is_thinking: bool = False) -> str:
    """Return the text, or the thinking, in a content: a string, a part or a list of parts."""
    if isinstance(content, list):
        return "".join(_join_parts(part, is_thinking) for part in content)
    if isinstance(content, dict):
        text = content.get("text") or content.get("thinking") or content.get("content")
        if not text and "type" not in content:  # an answer that is JSON itself
            text = dumps(content)
        if is_thinking == (content.get("type") == "thinking"):
            return _join_parts(text)
    if isinstance(content, str) and not is_thinking:
        return content
    return ""


@dataclass
class Usage(_Object):
    """Tokens counted, and their cost in US dollars."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    estimated_cost: float | None = None
    prompt_tokens_details: JSON | None = None
    completion_tokens_details: JSON | None = None
    raw: JSON = _RAW


@dataclass
class Choice(_Object):
    """One of the answers. `finish_reason` is `stop`, `length`, `tool_calls` or another word."""

    index: int = 0
    message: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: JSON | None = None
    raw: JSON = _RAW

    def __post_init__(self) -> None:
        self.message.role = self.message.role or "assistant"  # else it can't be sent back


@dataclass
class ChunkChoice(_Object):
    """One choice's part of a chunk. `finish_reason` is None until the last."""

    index: int = 0
    delta: Message = field(default_factory=Message)
    finish_reason: str | None = None
    logprobs: JSON | None = None
    raw: JSON = _RAW

    def __post_init__(self) -> None:
        if self.raw and not self.raw.get("delta"):  # some servers send a message
            self.delta = Message._parse(self.raw.get("message"))


@dataclass
class ChatCompletion(_Object):
    """A whole answer. `created` is in seconds since 1970."""

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    service_tier: str | None = None
    raw: JSON = _RAW

    @property
    def message(self) -> Message:
        """The first choice's message, ready to go back as a part of the conversation."""
        if self.choices:
            return self.choices[0].message
        return Message("assistant", "")

    @property
    def text(self) -> str:
        """The first choice's content, `""` where there is none."""
        return self.message.content or ""


@dataclass
class ChatCompletionChunk(_Object):
    """One event of a streamed answer."""

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    service_tier: str | None = None
    raw: JSON = _RAW

    @property
    def text(self) -> str:
        """The new content of the first choice, `""` where there is none."""
        return "".join([part.delta.content or "" for part in self.choices if part.index == 0])


@dataclass
class Model(_Object):
    """A model on offer. `raw` has the rest of what the API says of it, such as `metadata`."""

    id: str = ""
    raw: JSON = _RAW


@dataclass
class ServerSentEvent:
    """An event of a `text/event-stream`."""

    event: str = "message"
    data: str = ""


# ---- Client --------------------------------------------------------------------------------------


class Client:
    """A client of one API. Threads may share it. It may be forked, and pickled (with its token).

    `api_key`: the token; defaults to DEEPINFRA_TOKEN, DEEPINFRA_API_KEY or DEEPINFRA_API_TOKEN;
        `""` sends none.
    `base_url`: defaults to DEEPINFRA_BASE_URL, then to DEFAULT_BASE_URL.
    `timeout`: seconds of silence, None for no limit, as for the next two.
    `connect_timeout`: seconds for TCP (for each address of the host), for a proxy and for TLS.
    `deadline`: seconds for a call with its retries, and for a stream to its last event; it is
        checked when a block of the answer has come, or `timeout` would pass it.
    `max_retries`: further requests, after failures before an answer has begun.
    `headers`: go out with every request.
    `ssl_context`: for a private CA or a client certificate; such a client can't be pickled.
    `proxy`: `http://[user:password@]host[:port]`, `""` for none; defaults to what HTTPS_PROXY,
        HTTP_PROXY and NO_PROXY say.

    Raises ConfigurationError.
    """

    _idle: Any = ()  # for __del__, if the arguments are wrong

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
        self._idle = []
        for limit in (timeout, connect_timeout, deadline, max_retries + 1):
            if limit is not None and not limit > 0:
                raise ConfigurationError(
                    "timeout, connect_timeout and deadline must be above 0, or None, and "
                    "max_retries must not be negative"
                )
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.deadline = deadline
        self.max_retries = max_retries
        url = _parse_base_url(base_url or os.environ.get("DEEPINFRA_BASE_URL") or DEFAULT_BASE_URL)
        self.base_url = url.geturl()
        self._url = url
        self._target = url.path
        self._peer = url.netloc  # for messages
        self._headers, self._token_note = _make_headers(api_key, headers or {})
        self._proxy, self._proxy_headers = _find_proxy(url, proxy)
        self._ssl_context = self._given_context = ssl_context
        if self._proxy:
            self._peer += f" through the proxy {self._proxy}"
            if url.scheme == "http":  # the proxy is asked for the whole URL
                self._target = self.base_url
                self._headers.update(self._proxy_headers)
        if "Authorization" in self._headers:
            if url.scheme == "http" and (self._proxy or not _is_private(url.hostname)):
                raise ConfigurationError(f"the token would go to {self._peer} over plain http")
        elif api_key != "" and self.base_url == DEFAULT_BASE_URL:
            raise ConfigurationError(f"there is no token: {self._token_note}")

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
        payload = _make_payload(messages, model, params)
        with self._open("POST", "/chat/completions", payload) as response:
            completion: ChatCompletion = response.read_json(ChatCompletion._parse)
            if not completion.choices:
                response.is_complete = False  # it may be the answer to something else
                raise APIResponseError("the answer has no choices")
            return completion

    def stream(
        self, messages: Messages, *, model: str | None = None, **params: Any
    ) -> Generator[ChatCompletionChunk, None, None]:
        """Send a conversation and return a generator of the answer's chunks, as they arrive.

        Takes what `chat` takes, and raises the request's errors at once. Iterating raises what
        `chat` raises, and StreamInterruptedError if the stream ends before it is complete. Leaving
        the loop closes the connection.
        """
        payload = {**_make_payload(messages, model, params), "stream": True}
        request = self._open("POST", "/chat/completions", payload)
        chunks = _iter_chunks(request, payload.get("n", 1))
        next(chunks)  # sends the request; from now on closing the generator closes the connection
        return chunks

    def models(self) -> list[Model]:
        """Return the models on offer. Raises what `chat` raises."""
        with self._open("GET", "/models") as response:
            return list(response.read_json(_parse_models))

    def request(self, method: str, path: str, payload: Any = None) -> Any:
        """Send JSON to another endpoint, say "POST", "/embeddings", and return the JSON it answers.

        None stands for no body, both ways. Raises what `chat` raises.
        """
        with self._open(method, path, payload) as response:
            return response.read_json()

    def close(self) -> None:
        """Close the idle connections; those in use are closed at the end of their calls."""
        idle, self._idle = self._idle, []
        for connection, _, _ in idle:
            connection.close()

    __del__ = close

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> JSON:
        return {**vars(self), "_idle": [], "_ssl_context": self._given_context}

    @contextmanager
    def _open(self, method: str, path: str, payload: Any = None) -> Iterator[_Response]:
        """Send a request, again where that is safe; yield the response once a 2xx has begun."""
        body = None
        if payload is not None:
            body = dumps(payload, default=lambda item: dict(_to_json(item))).encode()
        request = method, f"{self._target}/{path.lstrip('/')}", body, self._headers
        end = time.monotonic() + (self.deadline or 1e9)  # 30 years
        retries = 0
        while True:
            response = None
            try:
                with self._exchange(request, end) as response:
                    yield response
                return
            except DeepInfraError as error:
                wait = error.retry_after
                if wait is None:
                    wait = 0.5 * 2 ** min(retries, 4) * random.uniform(0.75, 1)
                # With a response, a 2xx has begun.
                is_last = response or retries >= self.max_retries or not error.is_retryable
                if is_last or wait > 60 or time.monotonic() + wait >= end:
                    raise
                logging = sys.modules.get("logging")  # a program without it does not log
                if logging:
                    logging.getLogger("deepinfra_min").info(
                        f"retry {retries + 1} in {wait:.2f} s: {error}"
                    )
            retries += 1
            time.sleep(wait)

    @contextmanager
    def _exchange(self, request: Any, end: float) -> Iterator[_Response]:
        """Send a request on a connection that no other call uses meanwhile; yield the response."""
        idle = self._idle
        response: Any = None
        doing = "connecting to"
        connection = self._take_connection()
        try:
            try:
                if not connection:
                    connection = self._make_connection()
                    connection.timeout = _time_left(end, self.connect_timeout)
                    connection.connect()
                    with suppress(OSError, AttributeError):  # probe a peer that is silent
                        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
                doing = "waiting for"
                sock = connection.sock  # http.client drops it if the answer ends the connection
                sock.settimeout(_time_left(end, self.timeout))
                with suppress(ConnectionError, ssl.SSLError):  # it may have answered, say 413
                    connection.request(*request)
                response = connection.getresponse()
                response.client = self
                response.sock = sock
                response.end = end
            except Exception as error:  # the email package's parser raises nearly anything
                self._raise_network_error(error, doing, end)
            with response:
                response.check()
                yield response
        finally:
            if response and response.is_complete and idle is self._idle and len(idle) < 32:
                response.client = None  # the connection keeps the response, not the client
                idle.append((connection, time.monotonic(), os.getpid()))
            elif connection:
                connection.close()

    def _take_connection(self) -> Any:
        """Return the connection that has been idle for longest, None if there is none."""
        with suppress(IndexError):  # the list is empty
            while True:
                connection, since, pid = self._idle.pop(0)
                if time.monotonic() - since < 60 and pid == os.getpid():
                    try:
                        connection.sock.settimeout(0)
                        connection.sock.recv(1)
                    except (BlockingIOError, ssl.SSLWantReadError):  # nothing has come
                        return connection
                    except OSError:
                        pass
                connection.close()  # it is old, or bytes, an end or an error have come
        return None

    def _make_connection(self) -> Any:
        """Return a connection that is still to be made, through the proxy if there is one."""
        url = self._url
        hop = self._proxy or url.netloc
        connection: Any = HTTPConnection(hop)
        if url.scheme == "https":
            self._ssl_context = self._ssl_context or ssl.create_default_context()  # takes 20 ms
            connection = HTTPSConnection(hop, context=self._ssl_context)
            if self._proxy:
                host = re.sub(r":\d+$", "", url.netloc)  # an IPv6 address keeps its brackets
                port = url.port or 443
                connection.set_tunnel(host, port, {"Host": f"{host}:{port}", **self._proxy_headers})
        connection.response_class = _Response
        return connection

    def _raise_network_error(
        self, error: Any, doing: str, end: float, error_class: Any = APIConnectionError
    ) -> NoReturn:
        """Raise our error for one of socket, ssl, http.client, zlib or the email package."""
        problem = f"failed: {_clean(self._mask(str(error)))}"
        cause = None  # http.client's own errors may quote the server
        if isinstance(error, OSError):
            cause = error.with_traceback(None)  # http.client's frames hold the token
        is_retryable = cause is not None and doing != "reading from"
        if isinstance(error, ssl.SSLCertVerificationError):
            problem += "; for a private CA, set SSL_CERT_FILE or pass ssl_context="
            is_retryable = False
        elif "Tunnel connection failed" in problem:  # the proxy refuses
            is_retryable = False
        elif isinstance(error, socket.timeout) and not error.errno:  # ours, not the system's
            is_retryable = doing == "connecting to"
            name = "connect_timeout" if is_retryable else "timeout"
            if time.monotonic() + 0.01 >= end:  # a socket may be early
                name = "deadline"
            error_class = APITimeoutError
            problem = f"took longer than {getattr(self, name)} s ({name})"
        failure = error_class(f"{doing} {self._peer} {problem}")
        failure.is_retryable = is_retryable
        raise failure from cause

    def _mask(self, text: str) -> str:
        """Return a server's text without the token, if that is long enough to be none by chance."""
        token = self._headers.get("Authorization", "").split(" ")[-1]
        if len(token) >= 8:
            text = text.replace(token, "***")
        return text


def _parse_base_url(url: str) -> Any:
    """Return the parts of the URL, which has no place for credentials or a query."""
    pattern = r"(?ai)https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?(/[!\"$->A-~]*)?"
    with suppress(ValueError):  # a port or an IPv6 address that can't be
        parts = urlsplit(url.strip().rstrip("/"))
        if re.fullmatch(pattern, parts.geturl()) and parts.port != 0:
            return parts
    raise ConfigurationError(
        "the base URL (base_url= or DEEPINFRA_BASE_URL) is not http[s]://host[:port][/path]"
    )


def _make_headers(api_key: Any, others: Any) -> Any:
    """Return the headers of every request, and where the token came from, for messages."""
    names = ("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN")
    found = {name: os.environ.get(name, "") for name in names}
    if api_key is not None:
        found = {"api_key": api_key}
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"deepinfra_min/{__version__} Python/{sys.version.split()[0]}",
    }
    note = "set DEEPINFRA_TOKEN to a token from https://deepinfra.com/dash/api_keys"
    for source, value in found.items():
        token = value.strip().strip("\"' \t\r\n")  # as copied from a .env file
        if not re.fullmatch("[!-~]*", token):
            raise ConfigurationError(f"the token from {source} has white space or odd characters")
        if token:
            headers["Authorization"] = f"Bearer {token}"
            note = f"the token came from {source}"
            break
    for name, value in others.items():
        if not re.fullmatch(r"(?a)[!#-'*+.^-z|~\w-]+:[\t -~\xa0-\xff]*", f"{name}:{value}"):
            raise ConfigurationError(f"the header {name!r} can't be sent")
        headers[name.title()] = value
    return headers, note


def _find_proxy(url: Any, setting: Any) -> tuple[str, JSON]:
    """Return the proxy's host:port, "" if there is no proxy, and the headers for it."""
    is_loopback = url.hostname in ("localhost", "127.0.0.1", "::1")
    if setting is None and not (is_loopback or proxy_bypass(url.netloc)):
        setting = getproxies().get(url.scheme)
    if not setting:
        return "", {}
    pattern = r"(?ai)(?:http://)?(?:([!-.0-~]*)@)?([\w.-]+|\[[\da-f:.]+\])(?::(\d{1,5}))?/?"
    match = re.fullmatch(pattern, setting)
    if not match:
        raise ConfigurationError(  # without the password
            f"the proxy (HTTPS_PROXY or proxy=) is not http://...: {setting.rpartition('@')[2]!r}"
        )
    login, host, port = match.groups()
    headers = {}
    if login:
        headers["Proxy-Authorization"] = f"Basic {b64encode(unquote_to_bytes(login)).decode()}"
    return f"{host}:{port or 80}", headers


def _is_private(host: Any) -> bool:
    """Return True if a host is this machine or on a private network."""
    import ipaddress  # here, since few need it

    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host  # a name that only the local network knows


def _make_payload(messages: Messages, model: str | None, params: JSON) -> JSON:
    if isinstance(messages, (Mapping, Message)) or params.get("stream") is not None:
        raise TypeError("messages must be a string or a list, and stream= can't be set")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    payload = {"model": model or DEFAULT_MODEL, "messages": list(messages), **params}
    return {name: value for name, value in payload.items() if value is not None}


def _parse_models(payload: Any) -> list[Model]:
    if isinstance(payload, dict):
        payload = payload.get("data") or []
    return [Model._parse(item) for item in payload if isinstance(item, dict)]


# ---- Connections ---------------------------------------------------------------------------------
#
# `_open` makes at most 1 + `max_retries` requests, each by `_exchange`, which alone owns a
# connection: it takes one that is idle or makes one, sends, lets the caller read the answer, and
# then gives the connection back or closes it. Idle connections are http.client's own, in a list,
# the longest idle first; one that was idle for a minute, came through a fork, or has received
# anything is closed. A connection is kept after a complete answer with a body, unless the server
# ends it or close() was called meanwhile.
#
# Sent again is a request whose connection failed before an answer began (but not for a certificate
# or a proxy's refusal), and one answered by 408, 409, 429 or 5xx. A server that is silent, or that
# has begun to answer with a 2xx, is not asked again.
#
# `connect_timeout` limits each step of connecting, `timeout` each wait for bytes, `deadline` all.
# The last is checked before each wait for a block of the body. What can bring little more (the body
# of an error, a stream whose choices have ended or that is done) ends earlier.

_decode_json = JSONDecoder().decode  # loads() takes longer, for each chunk


def _time_left(end: float, seconds: float | None) -> float:
    """Return how long a socket may wait."""
    left = min(end - time.monotonic(), seconds or 1e6, 1e6)  # a socket takes no more
    if left <= 0:
        raise socket.timeout
    return left


class _Response(HTTPResponse):
    """An answer that is being read."""

    client: Any
    sock: Any
    end: float
    is_complete = False

    def check(self) -> None:
        """Raise unless the head of the answer is in order and its status a 2xx."""
        # The header that the email parser could not read may hide the length.
        if self.headers.defects and self.length is None and not self.chunked:
            raise APIConnectionError(f"{self.client._peer} sent headers that can't be read")
        if not 200 <= self.status < 300:
            self.end = min(self.end, time.monotonic() + 10)
            body: Any = []
            try:
                body.extend(self.iter_blocks())
            except DeepInfraError as error:
                body = body or [str(error).encode()]  # a part of a body tells more
            self.raise_api_error(_decode(body), self.status)

    def iter_blocks(self, cut_error: Any = APIConnectionError) -> Iterator[bytes]:
        """Yield the body as it arrives, inflated; raise `cut_error` if it breaks off."""
        encoding = self.headers.get("Content-Encoding", "identity").strip()
        inflater: Any = None
        if encoding.lower() in ("gzip", "x-gzip", "deflate"):  # though nobody asked for it
            inflater = zlib.decompressobj(47)  # either format
        elif encoding.lower() != "identity":
            raise APIResponseError(f"the answer is encoded as {self.client._mask(encoding)!r}")
        is_empty = True
        try:
            while self.length != 0 and not self.isclosed():
                self.sock.settimeout(_time_left(self.end, self.client.timeout))
                block = self.read1(65536)
                if not block:
                    break
                is_empty = False
                if inflater:
                    block = inflater.decompress(block)
                yield block
            if self.length or (is_empty and self.length is None and not self.chunked):
                raise ConnectionError("the connection was cut")  # http.client ends quietly
        except Exception as error:
            self.client._raise_network_error(error, "reading from", self.end, cut_error)
        self.is_complete = not (is_empty or self.will_close)

    def read_json(self, parse: Any = None) -> Any:
        """Return the JSON of the whole answer, parsed; None for no body if `parse` is None."""
        text = _decode(self.iter_blocks())
        if text.strip() or parse:
            return self.decode(text, parse)
        return None

    def decode(self, text: str, parse: Any) -> Any:
        """Return decoded JSON, parsed.

        Raises APIError for an error payload, APIResponseError for what is not as the API promises.
        """
        try:
            payload = _decode_json(text)
            # Most chunks show neither sign of an error. Without `parse`, the caller judges.
            is_suspect = parse and ('"error' in text or "choices" not in text)
            if is_suspect and _find_error(payload):
                self.raise_api_error(text)
            if parse:
                return parse(payload)
            return payload
        except (ValueError, TypeError, RecursionError) as error:
            problem = f"the answer can't be used: {error}"
            if re.match(r"\s*(data|event|id|retry)?:", text):
                problem = "an event stream came, which was not asked for: use stream()"
            body = self.client._mask(text)[:200]
            failure = APIResponseError(f"{problem}; it begins {body!r}")
            failure.body = body
            raise failure from None

    def raise_api_error(self, text: str, status: int = 0) -> NoReturn:
        """Raise APIError for the text of an error payload; inside a 200, `status` is 0."""
        mask = self.client._mask
        headers = {name.lower(): mask(value) for name, value in self.headers.items()}
        text = mask(text)
        code = None
        try:
            body = loads(text)
            found = _find_error(body) or {}
            code = found.get("code")
            message = _find_text(found or body)
            if body and not message:
                message = text
        except (ValueError, RecursionError):  # not JSON, or nested too deeply
            body = message = text
            if re.match(r"\s*<", text):
                message = "an HTML page"
        if not status and re.fullmatch(r"[45]\d\d", str(code)):
            status = int(str(code))
        message = _clean(message) or responses.get(status, "no message")
        summary = f"HTTP {status}: {message}" if status else f"the API answered: {message}"
        error_class = ServerError if status >= 500 else APIError
        if status in (401, 403):
            error_class = AuthenticationError
            summary += f"; {self.client._token_note}"
        elif status == 429:
            error_class = RateLimitError
        elif "location" in headers:
            summary += f"; redirects are refused, this one to {headers['location']!r}"
        error = error_class(summary)
        error.status = status or None
        error.message = message
        error.body = body
        error.code = code
        error.headers = headers
        error.request_id = headers.get("x-request-id")
        seconds = headers.get("retry-after", "").strip()
        if seconds.isdecimal():
            error.retry_after = float(seconds)
        error.is_retryable = status in (408, 409, 429) or status >= 500
        raise error


def _decode(blocks: Iterable[bytes]) -> str:
    return b"".join(blocks).decode("utf-8-sig", "replace")


# ---- Streams -------------------------------------------------------------------------------------


def iter_sse(blocks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream that comes as blocks of bytes, each as soon as it is complete.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html, without `id` and
    `retry`, and does no I/O. A field `error`, which llama.cpp sends, makes an event of that name.
    """
    is_after_cr = False
    begun = ""  # a line whose end has not come
    event = ""
    data = []
    for text in codecs.iterdecode(blocks, "utf-8-sig", "replace"):
        if is_after_cr and text.startswith("\n"):  # the rest of a CRLF, whose CR ended the line
            text = text[1:]
        is_after_cr = text.endswith("\r")
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if lines:
            lines[0] = begun + lines[0]
            begun = ""
        begun += rest  # in place, since nothing else refers to it
        for line in lines:
            if line:
                name, _, value = line.partition(":")
                if value.startswith(" "):
                    value = value[1:]
                if name in ("data", "error"):
                    data.append(value)
                if name == "event":
                    event = value
                elif name == "error":
                    event = name
                continue
            if data:
                yield ServerSentEvent(event or "message", "\n".join(data))
            event = ""
            data = []


def _iter_chunks(request: Any, count: int) -> Generator[ChatCompletionChunk, None, None]:
    """Send a request and yield the chunks of the stream; raise unless it proves complete.

    [DONE] proves it, and so does the end, or 2 seconds without another chunk, once each choice has
    a finish reason. Who asked for one choice (`count`) gets one, whatever the index of its parts.
    """
    reasons: Any = {}  # the finish reason, or None, of each choice by its index
    is_finished = False
    with request as response:
        end = response.end
        yield ChatCompletionChunk()  # taken by stream(), not by the caller
        blocks = response.iter_blocks(StreamInterruptedError)
        first = next(blocks, b"")
        if re.match(rb"\s*[{\[<]", first):
            response.decode(_decode([first, *blocks]), ChatCompletion._parse)
            raise APIResponseError("a whole answer came instead of a stream: use chat()")
        try:
            for event in iter_sse(itertools.chain([first], blocks)):
                data = event.data.strip()
                if event.event == "error":
                    response.raise_api_error(data)
                if data == "[DONE]" and reasons:
                    break
                if event.event != "message" or data in ("", "null", "[DONE]"):
                    continue  # a sign of life
                chunk = response.decode(data, ChatCompletionChunk._parse)
                for choice in chunk.choices:
                    if count == 1:
                        choice.index = 0
                    reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
                if chunk.raw.get("choices", ()) is not None or chunk.usage:  # null: a sign of life
                    yield chunk
                # Of several choices, the first may end before the others begin.
                if reasons and all(reasons.values()) and (count == 1 or len(reasons) > 1):
                    is_finished = True
                    response.end = min(end, time.monotonic() + 2)  # for the usage and [DONE]
            else:
                if not is_finished:
                    raise StreamInterruptedError("the stream ended before the answer was complete")
        except APITimeoutError:
            if not is_finished:
                raise
        response.end = min(end, time.monotonic() + 0.25)
        with suppress(DeepInfraError):
            list(blocks)  # the end of the body, without which the connection can't be kept


def collect(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Return the whole answer that a stream's chunks add up to.

    Raises what iterating the chunks raises, with the answer so far as the error's `partial`. `raw`
    has the form of what `chat` receives.
    """
    raw: JSON = {}
    choices: Any = {}
    failure: Any = None
    try:
        for chunk in chunks:
            raw.update((name, value) for name, value in chunk.raw.items() if value is not None)
            for part in map(ChunkChoice.to_dict, chunk.choices):
                part["message"] = part.pop("delta")
                _merge(choices.setdefault(part["index"], {}), part)
    except DeepInfraError as error:
        failure = error
    for choice in choices.values():
        calls: Any = []
        for piece in choice["message"].get("tool_calls", ()):
            _merge(_find_call(calls, piece), piece)
        for call in calls:
            call.pop("index", None)  # which a call has only in a stream
        choice["message"]["tool_calls"] = calls
    raw.update(object="chat.completion", choices=[choices[index] for index in sorted(choices)])
    # Servers that cut strings by UTF-16 send halves of an emoji, which JSON joins.
    completion: ChatCompletion = ChatCompletion._parse(loads(dumps(raw)))
    if failure:
        failure.partial = completion
        raise failure
    return completion


def _merge(target: JSON, part: JSON) -> None:
    """Add a part of an object: texts, lists and some objects join; else the last one counts."""
    for name, value in part.items():
        known = target.pop(name, type(value)())
        is_whole = name.endswith(("id", "name", "reason", "role", "type"))
        if type(known) is type(value) is dict and name in ("message", "function", "logprobs"):
            _merge(known, value)
        elif type(known) is type(value) in (str, list) and not is_whole:
            known += value  # in place, since nothing else refers to it
        elif value or not known:
            known = value
        target[name] = known


def _find_call(calls: Any, piece: JSON) -> Any:
    """Return the call that a piece belongs to: that of its id, else of its index, else the last.

    Another id, or a name where the call has one, begins a new call: some servers give every call
    the index 0.
    """
    call_id = piece.get("id")
    index = piece.get("index")
    name = piece["function"].get("name")
    for call in calls:
        if call_id and call_id == call.get("id"):
            return call
    for call in reversed(calls):
        if index is None or index == call.get("index"):
            if (call_id and call.get("id")) or (name and call["function"].get("name")):
                break
            return call
    calls.append({"function": {}})
    return calls[-1]


# ---- Command line --------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; `--help` lists both."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull)  # it is closed; writing to this fails
        setattr(sys, name, stream)
        with suppress(AttributeError, OSError):  # a notebook's can't be changed
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        try:
            return _run(_make_parser().parse_args(argv))
        finally:
            sys.stdout.flush()  # what argparse has printed
    except ConfigurationError as error:
        return _fail(error, 2)
    except DeepInfraError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of stdin or stdout; none of the library's errors is one
        with suppress(OSError):  # Python flushes stdout at exit, which would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        return _fail(f"stdin or stdout failed: {error}", 1)


def _make_parser() -> Any:
    import argparse  # here, since a program that imports this module may have no command line

    parser = argparse.ArgumentParser(
        description="Ask a model on DeepInfra and stream its answer to stdout.",
        epilog="""The answer goes to stdout, all else to stderr. Environment: DEEPINFRA_TOKEN (else
        DEEPINFRA_API_KEY, DEEPINFRA_API_TOKEN), DEEPINFRA_MODEL, DEEPINFRA_BASE_URL; HTTPS_PROXY,
        NO_PROXY, SSL_CERT_FILE. Exit codes: 0 complete; 1 failed; 2 wrong usage or settings; 3 the
        answer on stdout is a part; 130 Ctrl-C; 141 the reader of stdout went away.""",
    )
    add = parser.add_argument
    add("prompt", nargs="?", default="", help="what to ask; what stdin holds is added")
    model = os.environ.get("DEEPINFRA_MODEL") or DEFAULT_MODEL
    add("-m", "--model", default=model, help=f"default: {DEFAULT_MODEL}")
    add("-s", "--system", help="system prompt")
    add(
        "-o",
        "--option",
        action="append",
        default=[],
        help="NAME=VALUE, any parameter of the API; VALUE is JSON, else a string",
    )
    add("--base-url", help=f"default: {DEFAULT_BASE_URL}")
    add("--timeout", type=float, default=600.0, help="seconds of silence; default: 600")
    add("--retries", type=int, default=2, help="default: 2")
    add("-V", "--version", action="version", version=f"deepinfra_min {__version__}")
    for names, text in (
        ("-i --interactive", "converse; Ctrl-D ends it"),
        ("--json", "wait, and print the whole answer as JSON"),
        ("-r --reasoning", "show the reasoning"),
        ("-u --usage", "show tokens, cost and seconds"),
        ("--models", "list the models"),
        ("-n --no-stdin", "do not read stdin"),
        ("-v --verbose", "show retries"),
    ):
        add(*names.split(), action="store_true", help=text)
    return parser


def _run(args: Any) -> int:
    """Do what the arguments say; return the exit code."""
    if args.verbose:
        import logging

        logging.basicConfig(level="INFO")
    with Client(base_url=args.base_url, timeout=args.timeout, max_retries=args.retries) as client:
        if args.models:
            for model in client.models():
                print(_make_safe(model.id, sys.stdout))
            return 0
        params = {"model": args.model}
        if args.usage and not args.json:
            params["stream_options"] = {"include_usage": True}
        for option in args.option:
            name, equals, text = option.partition("=")
            if not equals or name in ("", "self", "messages", "stream"):
                raise ConfigurationError(
                    f"-o {option}: not NAME=VALUE, or a NAME that can't be set"
                )
            params[name] = text
            with suppress(ValueError):
                params[name] = loads(text)
        args.params = params
        history = []
        if args.system:
            history.append(Message("system", args.system))
        prompt = args.prompt
        is_terminal = sys.stdin.isatty()
        if args.interactive or (is_terminal and not prompt):
            return _converse(client, args, history, prompt)
        if not (args.no_stdin or is_terminal):
            prompt = "\n\n".join(filter(str.strip, [prompt, _read_stdin()]))
        if not prompt.strip():
            raise ConfigurationError("there is nothing to send: give a prompt, or pipe one in")
        history.append(Message("user", prompt))
        return _answer(client, args, history)


def _read_stdin() -> Any:
    """Return what stdin holds; after 3 seconds without its end, say what is waited for."""
    import threading

    timer = threading.Timer(
        3, _fail, ["waiting for the end of stdin; to go without it, use -n or </dev/null", 0]
    )
    timer.start()
    try:
        data = getattr(sys.stdin, "buffer", sys.stdin).read()
    finally:
        timer.cancel()
    if isinstance(data, str):  # from a StringIO
        return data
    encoding = "utf-8-sig"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # PowerShell's
        encoding = "utf-16"
    return data.decode(encoding, "replace")


def _converse(client: Client, args: Any, history: Any, prompt: str) -> int:
    """Answer what the user types, turn by turn; return the last exit code."""
    code = 0
    mark = "> " if sys.stdin.isatty() else ""
    with suppress(ImportError):  # input() edits lines with it
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # pasted lines are one turn
    while True:
        try:
            if prompt.strip():
                history.append(Message("user", prompt))
                code = _answer(client, args, history)
            prompt = input(mark)
        except KeyboardInterrupt:
            prompt = ""
            _note("\n")
        except EOFError:
            if mark:
                _note("\n")
            return code


def _answer(client: Client, args: Any, history: Any) -> int:
    """Print the answer to a conversation, and add it there; return the exit code."""
    started = time.monotonic()
    texts: Any = []  # what is printed
    answer: Any = None
    code = 0
    _show_status("waiting")
    try:
        if args.json:
            answer = client.chat(history, **args.params)
            shown = [answer.raw]
        else:
            chunks = client.stream(history, **args.params)
            answer = collect(_show_chunks(chunks, args.reasoning, texts))
            shown = _to_json(answer.message.tool_calls)
        for item in shown:
            _show(dumps(item, ensure_ascii=False) + "\n", texts)
        reason = answer.choices[0].finish_reason or ""
        if not (answer.text or answer.message.tool_calls):
            code = _fail(f"the answer has no text; it ended with {reason!r}", 1)
        elif re.search("(?i)length|max|limit|exceed|filter|safety|abort|cancel", reason):
            code = _fail(f"the answer is a part; it ended with {reason!r}", 3)
    except DeepInfraError as error:
        answer = error.partial
        code = _fail(error, 3 if texts else 1)
    finally:
        if not texts:
            _show_status("")
        message = Message("assistant", "".join(texts))
        if answer:
            message = answer.message
        if message.content or message.tool_calls:
            history.append(message)
        else:
            history.pop()  # the turn that has no answer
    usage = answer and answer.usage
    if args.usage and usage:
        text = f"{usage.prompt_tokens} + {usage.completion_tokens} = {usage.total_tokens} tokens"
        if usage.estimated_cost:
            text += f", ${usage.estimated_cost:.7f}"
        _note(f"{text}, {time.monotonic() - started:.1f} s\n")
    return code


def _show_chunks(chunks: Any, shows_reasoning: bool, texts: Any) -> Any:
    """Yield chunks that are shown: text on stdout; reasoning, or a status, on stderr."""
    line_end = ""  # of the reasoning
    try:
        for chunk in chunks:
            for choice in chunk.choices:
                reasoning = choice.delta.reasoning_content
                if reasoning and shows_reasoning and not choice.index:
                    _note(_make_safe(reasoning, sys.stderr))
                    line_end = "\n"
                elif reasoning and not texts:
                    _show_status("thinking")
            if chunk.text:
                _note(line_end)
                line_end = ""
                _show(chunk.text, texts)
            yield chunk
    finally:
        _note(line_end)
        if texts and not texts[-1].endswith("\n"):
            print(flush=True)


def _show(text: str, texts: Any) -> None:
    """Print a part of the answer."""
    if not texts:
        _show_status("")
    texts.append(text)
    print(_make_safe(text, sys.stdout), end="", flush=True)


def _show_status(status: str) -> None:
    """Show a word on the terminal's current line, to be overwritten."""
    if sys.stderr.isatty():
        _note(f"\r{status:8}\r")


def _make_safe(text: str, stream: Any) -> str:
    """Return a text without control characters if a terminal shows it; CRLF is a line end."""
    if stream.isatty():
        text = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", text.replace("\r\n", "\n"))
    return text


def _fail(problem: object, code: int) -> int:
    """Say on stderr what is wrong; return the exit code."""
    _note(f"deepinfra_min: {problem}\n")
    return code


def _note(text: str) -> None:
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
