"""Tests of deepinfra_min, against real servers on loopback; no outside network is used.

`python3 test_deepinfra_min.py "Hello!"` needs neither pytest nor a token nor a network: it runs the
command line against a stand-in on loopback that gives the documented answers.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import copy
import dataclasses
import email.utils
import functools
import gc
import http.client
import importlib
import inspect
import io
import itertools
import json
import logging
import os
import pickle
import platform
import queue
import random
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import tracemalloc
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import deepinfra_min
from deepinfra_min import Client, collect, iter_sse

# ---- The server on loopback ----------------------------------------------------------------------

TOKEN = "sk-test-0123456789abcdef"
JSON_TYPE, SSE_TYPE = "application/json", "text/event-stream"


class Request(NamedTuple):
    """What the server saw: `connection` counts the connections from 0."""

    method: str
    path: str
    headers: Dict[str, str]  # names in lower case
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# An answer is the bytes to send (the connection stays open unless they say `Connection: close`), or
# a function that is given the socket and the request and returns whether to keep the connection.
Answer = Union[bytes, Callable[[socket.socket, Request], Any]]


class Server:
    """An HTTP server on loopback that gives its answers in order, the last one again and again.

    `requests` are those seen, `connections` how many were accepted, `closed` how many of them the
    client has closed. With `context` it speaks TLS.
    """

    def __init__(self, *answers: Answer, context: Optional[ssl.SSLContext] = None) -> None:
        self.answers, self.context = list(answers), context
        self.requests: List[Request] = []
        self.connections = self.closed = 0
        self._lock = threading.Lock()
        self._sockets: List[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0)) if hasattr(
            socket, "create_server") else _listen()
        self.port: int = self._listener.getsockname()[1]
        scheme = "https" if context else "http"
        self.origin = f"{scheme}://127.0.0.1:{self.port}"
        self.url = self.origin + "/v1/openai"

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            _close(sock)

    def client(self, **options: Any) -> Client:
        """Return a client of this server; the token is TOKEN unless the options name another."""
        return Client(options.pop("api_key", TOKEN), base_url=self.url, **options)

    def wait_closed(self, count: int = 1, seconds: float = 1.0) -> bool:
        """Return whether the client has closed so many connections within so many seconds."""
        end = time.monotonic() + seconds
        while self.closed < count and time.monotonic() < end:
            time.sleep(0.005)
        return self.closed >= count

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self._sockets.append(sock)
                number, self.connections = self.connections, self.connections + 1
                threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            with sock.makefile("rb") as reader:
                while self._answer(sock, reader, number):
                    pass
        except (OSError, ValueError):
            pass
        finally:
            self.closed += 1
            _close(sock)

    def _answer(self, sock: socket.socket, reader: Any, number: int) -> bool:
        request = read_request(reader, number)
        if request is None:
            return False
        with self._lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            return bool(answer(sock, request))
        sock.sendall(answer)
        return b"connection: close" not in answer.lower()


def _listen() -> socket.socket:  # Python 3.7
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    return listener


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def read_request(reader: Any, number: int = 0) -> Optional[Request]:
    """Return the next request on a connection, None at its end."""
    line = reader.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    for header in iter(reader.readline, b"\r\n"):
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Request(line[0], line[1], headers, body, number)


def answer(body: Any, status: int = 200, *, type: str = JSON_TYPE, headers: Tuple[str, ...] = (),
           chunks: Optional[int] = None) -> bytes:
    """Return an HTTP answer; a body that is no bytes is JSON; `chunks` are so many bytes each."""
    text: bytes = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {type}", *headers]
    if chunks is None:
        head.append(f"Content-Length: {len(text)}")
    else:
        head.append("Transfer-Encoding: chunked")
        pieces = [text[i : i + chunks] for i in range(0, len(text), chunks)]
        text = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


def sse(*payloads: Any, done: bool = True) -> bytes:
    """Return payloads as the body of an event stream."""
    texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return "".join(f"data: {text}\n\n" for text in texts + ["[DONE]"] * done).encode()


def sse_answer(*payloads: Any, done: bool = True, **options: Any) -> bytes:
    """Return payloads as an HTTP answer that is a chunked event stream, a chunk an event."""
    return answer(sse(*payloads, done=done), type=SSE_TYPE, **{"chunks": 65536, **options})


def delta(content: Optional[str] = None, finish_reason: Optional[str] = None,
          **fields: Any) -> Dict[str, Any]:
    """Return a chunk as the API sends it."""
    part = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": {**part, **fields}, "finish_reason": finish_reason}
    return {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]}


def completion(content: Optional[str] = "Hi", finish_reason: str = "stop",
               **fields: Any) -> Dict[str, Any]:
    """Return a whole answer as the API sends it."""
    message = {"role": "assistant", "content": content, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 0.5}
    return {"id": "x1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice], "usage": usage}


# ---- The documented exchanges --------------------------------------------------------------------

# As DeepInfra's pages print them; they differ from model to model in the model's name, and in white
# space: `documented(text, model)` is the text of another model's page.
SEED_MODELS = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B")

SEED_HELLO_REQUEST: Dict[str, Any] = {
    "model": SEED_MODELS[0], "messages": [{"role": "user", "content": "Hello!"}]}

SEED_HELLO_ANSWER = """{
    "id": "chatcmpl-guMTxWgpFf",
    "object": "chat.completion",
    "created": 1694623155,
    "model": "deepseek-ai/DeepSeek-R1",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": " Hello! It's nice to meet you. Is there something I can help you with \
or would you like to chat for a bit?"
            },
            "finish_reason": "stop"
        }
    ],
    "usage": {
        "prompt_tokens": 15,
        "completion_tokens": 16,
        "total_tokens": 31,
        "estimated_cost": 0.0000268
    }
}"""

SEED_LAMB_REQUEST: Dict[str, Any] = {
    "model": SEED_MODELS[0],
    "messages": [
        {"role": "system", "content": "Respond like a michelin starred chef."},
        {"role": "user",
         "content": "Can you name at least two different techniques to cook lamb?"},
        {"role": "assistant",
         "content": "Bonjour! Let me tell you, my friend, cooking lamb is an art form, and "
                    "I'm more than happy to share with you not two, but three of my "
                    "favorite techniques to coax out the rich, unctuous flavors and tender "
                    'textures of this majestic protein. First, we have the classic "Sous '
                    'Vide" method. Next, we have the ancient art of "Sous le Sable". And '
                    'finally, we have the more modern technique of "Hot Smoking."'},
        {"role": "user", "content": "Tell me more about the second method."},
    ]}

SEED_LAMB_ANSWER = """{
    "id": "chatcmpl-b23a3fb60cde42ce8f24bb980b4dee87",
    "object": "chat.completion",
    "created": 1715688169,
    "model": "deepseek-ai/DeepSeek-R1",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Sous le Sable, my friend! It's an ancient technique that's been used \
for centuries in the Middle East and North Africa. The name itself..."
            },
            "finish_reason": "stop"
        }
    ],
    "usage": {
        "prompt_tokens": 149,
        "total_tokens": 487,
        "completion_tokens": 338,
        "estimated_cost": 0.00035493
    }
}"""

SEED_STREAM_REQUEST: Dict[str, Any] = {**SEED_HELLO_REQUEST, "stream": True}

SEED_STREAM_DELTAS = (" ", " Hi", "!", "", "</s>")
SEED_STREAM_LINES = [  # one page prints `data: [DONE]` after them, one does not
    'data: {"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk", '
    '"created": 1694623354, "model": "deepseek-ai/DeepSeek-R1", '
    f'"choices": [{{"index": 0, "delta": {part}, "finish_reason": {reason}}}]}}'
    for part, reason in [
        *((f'{{"role": "assistant", "content": "{text}"}}', "null") for text in SEED_STREAM_DELTAS),
        ("{}", '"stop"')]]


def documented(text: str, model: str) -> str:
    """Return a documented text as the page of the model has it."""
    if model == SEED_MODELS[1]:
        text = "\n".join(line.strip() for line in text.split("\n"))
    return text.replace(SEED_MODELS[0], model)


# ---- The offline try-out -------------------------------------------------------------------------

def stand_in(sock: socket.socket, request: Request) -> bool:
    """Answer as the API is documented to; a stream's events come one after the other."""
    question = request.json if request.body else {}
    model, path = question.get("model", SEED_MODELS[0]), request.path.partition("/openai")[2]
    if request.headers.get("authorization") != "Bearer " + TOKEN:
        reply = answer({"error": {"message": "Not authenticated"}}, 401)
    elif path == "/models":
        reply = answer({"data": [{"id": name} for name in SEED_MODELS]})
    elif path != "/chat/completions":
        reply = answer({"detail": "Not Found"}, 404)
    elif model not in SEED_MODELS:
        reply = answer({"detail": {"error": f"The model `{model}` does not exist"}}, 404)
    elif question.get("stream"):
        lines = documented("\n\n".join([*SEED_STREAM_LINES, "data: [DONE]", ""]), model)
        reply = answer(lines.encode(), type=SSE_TYPE)
    else:
        text = SEED_LAMB_ANSWER if len(question["messages"]) > 2 else SEED_HELLO_ANSWER
        reply = answer(documented(text, model).encode())
    for line in reply.splitlines(keepends=True):
        time.sleep(0.02 if line.startswith(b"data: {") else 0)
        sock.sendall(line)
    return True


def try_out(argv: List[str]) -> int:
    """Run the command line against the stand-in, whatever the environment says of other servers."""
    for name in [name for name in os.environ if name.startswith("DEEPINFRA_")]:
        del os.environ[name]
    with Server(stand_in) as server:
        os.environ.update(DEEPINFRA_TOKEN=TOKEN, DEEPINFRA_BASE_URL=server.url)
        print(f"a stand-in on {server.origin} answers, with the examples of DeepInfra's "
              "documentation; no model is asked", file=sys.stderr, flush=True)
        return deepinfra_min.main(argv)


if __name__ == "__main__":
    sys.exit(try_out(sys.argv[1:]))

import pytest  # noqa: E402  (the try-out above must run without it)

for name in list(os.environ):
    if name.upper().startswith("DEEPINFRA_") or name.upper().endswith("_PROXY"):
        del os.environ[name]
sys.setswitchinterval(0.0005)  # servers and clients take turns, in threads of this one process
# macOS can't ask for proxies in a fork, and coverage does not see what ends by os._exit.
FORKS = (hasattr(os, "fork") and sys.platform != "darwin"
         and not any(name.startswith("COVERAGE_") for name in os.environ))


def beside(test: Any) -> Any:
    """Have a slow test run beside the others, in one forked process, where a system can fork."""
    test.is_beside = FORKS
    return test


@contextlib.contextmanager
def running_beside(items: List[Any], folder: Path) -> Iterator[None]:
    """Start the tests that are to run beside others; let pytest come to them last, and wait.

    They have no fixture but the folder of the command's runs.
    """
    items[1:] = sorted(items[1:], key=lambda item: getattr(item.obj, "is_beside", False))
    items = [item for item in items if getattr(item.obj, "is_beside", False)]
    if len(items) < 20:  # chosen ones are easier to debug as they are
        yield
        return
    source, target = os.pipe()
    pid = os.fork()
    for item in items if not pid else ():
        failure = ""
        try:
            item.function(**{
                name: folder if name == "folder" else item.callspec.params[name]
                for name in inspect.signature(item.function).parameters})
        except BaseException:  # pytest's own are no Exceptions
            failure = traceback.format_exc()
        os.write(target, json.dumps([item.name, failure]).encode() + b"\n")
    if not pid:
        os._exit(0)
    os.close(target)
    lines = os.fdopen(source, encoding="utf-8")
    failures: Dict[str, str] = {}

    def look(*names: str, **options: Any) -> None:
        name, = names
        while name not in failures:
            line = lines.readline()
            assert line, "the process beside died"
            failures.update([json.loads(line)])
        assert failures[name] == ""

    for item in items:
        item.obj = functools.partial(look, item.name)
    with lines:
        yield
        os.kill(pid, signal.SIGKILL)  # where it is not done, nobody waits for it any more
        os.waitpid(pid, 0)


# ---- Errors and data objects ---------------------------------------------------------------------

DIM = deepinfra_min  # short, for the tables of error classes


@contextlib.contextmanager
def served(*answers: Answer, **options: Any) -> Iterator[Tuple[Server, Client]]:
    """Yield a server that gives the answers, and a client of it that tries once."""
    with Server(*answers) as server, server.client(**{"max_retries": 0, **options}) as client:
        yield server, client


def chat_error(wire: Answer, **options: Any) -> Any:
    """Return the error that chat() raises for an answer."""
    with served(wire, **options) as (_, client), pytest.raises(DIM.DeepInfraError) as caught:
        client.chat("Hi")
    return caught.value


def stream_error(wire: Answer, **options: Any) -> Any:
    """Return the error that collect() raises for a streamed answer."""
    with served(wire, **options) as (_, client), pytest.raises(DIM.DeepInfraError) as caught:
        collect(client.stream("Hi"))
    return caught.value


def named(table: Dict[str, Any]) -> List[Any]:
    """Return a table's rows as the parameters of a test, under their names."""
    return [pytest.param(*row, id=name) for name, row in table.items()]


def then_close(wire: bytes) -> Answer:
    """Return an answer after which the server closes the connection, whatever the bytes say."""
    return lambda sock, request: sock.sendall(wire)


def await_close(sock: socket.socket, request: Optional[Request] = None) -> bool:
    """Wait until the client closes the connection."""
    while sock.recv(65536):
        pass
    return False


def raise_configuration_error() -> None:
    Client("caf\u00e9")


def raise_connection_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        Client("", base_url=url, max_retries=0).chat("Hi")


def raise_rate_limit_error() -> None:
    error = {"message": "Model busy", "code": "engine_overloaded", "param": "model", "type": "busy"}
    headers = ("Retry-After: 7", "X-Request-Id: r-1")
    raise chat_error(answer({"error": error, "more": [1]}, 429, headers=headers))


RAISED: Dict[str, Callable[[], None]] = {
    "ConfigurationError": raise_configuration_error,
    "APIConnectionError": raise_connection_error,
    "APITimeoutError": lambda: _raise(chat_error(await_close, timeout=0.05)),
    "StreamInterruptedError": lambda: _raise(stream_error(sse_answer(delta("Hi"), done=False))),
    "APIResponseError": lambda: _raise(chat_error(answer(b"<html>" + b"x" * 300))),
    "APIError": lambda: _raise(chat_error(answer({"detail": "Not Found"}, 404))),
    "AuthenticationError": lambda: _raise(chat_error(answer({"detail": "Unauthorized"}, 401))),
    "RateLimitError": raise_rate_limit_error,
    "ServerError": lambda: _raise(chat_error(answer(b"<h1>Bad gateway</h1>", 502))),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("name", RAISED)
def test_error_survives_pickle_and_deepcopy(name: str) -> None:
    with pytest.raises(getattr(DIM, name)) as caught:
        RAISED[name]()
    error: Any = caught.value
    assert type(error) is getattr(DIM, name)
    travelled = [pickle.loads(pickle.dumps(error, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (*travelled, copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
        if error.partial is not None:
            assert other.partial.raw == error.partial.raw


@pytest.mark.parametrize("name, bases", {
    "DeepInfraError": (Exception,),
    "ConfigurationError": (DIM.DeepInfraError, ValueError),
    "APIConnectionError": (DIM.DeepInfraError,),
    "APITimeoutError": (DIM.APIConnectionError, TimeoutError),
    "StreamInterruptedError": (DIM.APIConnectionError,),
    "APIResponseError": (DIM.DeepInfraError,),
    "APIError": (DIM.DeepInfraError,),
    "AuthenticationError": (DIM.APIError,),
    "RateLimitError": (DIM.APIError,),
    "ServerError": (DIM.APIError,),
}.items(), ids=lambda value: value if isinstance(value, str) else "bases")
def test_error_classes(name: str, bases: Tuple[type, ...]) -> None:
    assert getattr(DIM, name).__bases__ == bases


@pytest.mark.parametrize("name, words", {
    "ConfigurationError": "api_key.*non-ASCII.*DEEPINFRA_TOKEN.*https://deepinfra.com",
    "APIConnectionError": r"TCP.*127\.0\.0\.1:\d+.*base URL",
    "APITimeoutError": r"127\.0\.0\.1:\d+.*silent.*0\.05 s.*raise timeout=",
    "StreamInterruptedError": "stream ended before.*ask again",
    "APIResponseError": "JSON.*proxy or captive portal.*<html>",
    "APIError": "HTTP 404: Not Found.*models",
    "AuthenticationError": "HTTP 401: Unauthorized.*check the token",
    "RateLimitError": "HTTP 429: Model busy.*fewer requests",
    "ServerError": "HTTP 502: an HTML page.*try again later",
}.items(), ids=lambda value: value.partition(".*")[0])
def test_error_names_the_layer_and_what_to_do(name: str, words: str) -> None:
    with pytest.raises(DIM.DeepInfraError) as caught:
        RAISED[name]()
    assert re.search(words, str(caught.value)), str(caught.value)


def test_connection_error_carries_its_cause() -> None:
    with pytest.raises(DIM.APIConnectionError) as caught:
        raise_connection_error()
    causes = [caught.value.__cause__]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__ or getattr(causes[-1], "reason", None))
    assert any(isinstance(cause, ConnectionRefusedError) for cause in causes)


def test_api_error_carries_what_the_answer_said() -> None:
    with pytest.raises(DIM.RateLimitError) as caught:
        raise_rate_limit_error()
    error = caught.value
    assert (error.status, error.message, error.code, error.param, error.type) == (
        429, "Model busy", "engine_overloaded", "model", "busy")
    assert error.body == {"error": {"message": "Model busy", "code": "engine_overloaded",
                                    "param": "model", "type": "busy"}, "more": [1]}
    assert (error.request_id, error.retry_after) == ("r-1", 7.0)
    headers = {name.lower(): value for name, value in error.headers.items()}
    assert (headers["x-request-id"], headers["content-type"]) == ("r-1", JSON_TYPE)


RICH_CALL: Dict[str, Any] = {"id": "c1", "type": "function",
                             "function": {"name": "f", "arguments": '{"a": 1}'}}
RICH_LOGPROBS: Dict[str, Any] = {"content": [{"token": "Hi", "logprob": -0.5}]}
RICH_USAGE: Dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
                              "estimated_cost": 0.5,
              "prompt_tokens_details": {"cached_tokens": 1},
              "completion_tokens_details": {"reasoning_tokens": 2}}
RICH_HEAD: Dict[str, Any] = {"id": "x1", "created": 7, "model": "m", "service_tier": "flex",
                             "usage": RICH_USAGE}
RICH_MESSAGE: Dict[str, Any] = {"role": "assistant", "content": "Hi", "reasoning_content": "hm",
                                "name": "n",
                "tool_calls": [RICH_CALL], "new": 1}
RICH_COMPLETION: Dict[str, Any] = {**RICH_HEAD, "object": "chat.completion", "newer": [2],
                                   "choices": [
    {"index": 0, "message": RICH_MESSAGE, "finish_reason": "stop", "logprobs": RICH_LOGPROBS}]}
RICH_CHUNK: Dict[str, Any] = {**RICH_HEAD, "object": "chat.completion.chunk", "choices": [
    {"index": 0, "delta": RICH_MESSAGE, "finish_reason": "stop", "logprobs": RICH_LOGPROBS}]}
RICH_MODELS: Dict[str, Any] = {"object": "list", "data": [
    {"id": "a/b", "owned_by": "a", "metadata": {"context_length": 9, "max_tokens": 5, "tags": ["t"],
                                                "pricing": {"input_tokens": 0.5}}},
    {"id": "a/c"}, {"id": "a/d", "metadata": None}, {"id": "a/e", "metadata": {}}]}


def data_objects() -> Dict[str, Any]:
    """Return one of each data object, as a client makes it."""
    wires = answer(RICH_COMPLETION), sse_answer(RICH_CHUNK), answer(RICH_MODELS)
    with served(*wires) as (_, client):
        reply, chunk, model = client.chat("Hi"), next(client.stream("Hi")), client.models()[0]
    call = reply.message.tool_calls[0]
    objects = (reply, chunk, reply.choices[0], chunk.choices[0], reply.message, call, call.function,
               reply.usage, model, next(iter_sse([b"event: e\ndata: d\n\n"])))
    return {type(item).__name__: item for item in objects}


def test_data_object_fields() -> None:
    names = {name: {k: v for k, v in vars(item).items() if k != "raw"}
             for name, item in data_objects().items()}
    function = DIM.Function("f", '{"a": 1}')
    call = DIM.ToolCall("c1", "function", function)
    message = DIM.Message("assistant", "Hi", "hm", (call,), "n", None)
    usage = DIM.Usage(1, 2, 3, 0.5, {"cached_tokens": 1}, {"reasoning_tokens": 2})
    choice = DIM.Choice(0, message, "stop", RICH_LOGPROBS)
    chunk_choice = DIM.ChunkChoice(0, message, "stop", RICH_LOGPROBS)
    head = {"id": "x1", "created": 7, "model": "m", "usage": usage, "service_tier": "flex"}
    choice_end = {"index": 0, "finish_reason": "stop", "logprobs": RICH_LOGPROBS}
    assert names == {
        "ChatCompletion": {**head, "object": "chat.completion", "choices": (choice,)},
        "ChatCompletionChunk": {**head, "object": "chat.completion.chunk",
                                "choices": (chunk_choice,)},
        "Choice": {**choice_end, "message": message},
        "ChunkChoice": {**choice_end, "delta": message},
        "Message": {"role": "assistant", "content": "Hi", "reasoning_content": "hm",
                    "tool_calls": (call,), "name": "n", "tool_call_id": None},
        "ToolCall": {"id": "c1", "type": "function", "function": function, "index": None},
        "Function": {"name": "f", "arguments": '{"a": 1}'},
        "Usage": RICH_USAGE,
        "Model": {"id": "a/b", "context_length": 9, "max_tokens": 5,
                  "pricing": {"input_tokens": 0.5}},
        "ServerSentEvent": {"event": "e", "data": "d"},
    }


def test_data_object_keeps_its_mapping_in_raw_out_of_repr_and_comparison() -> None:
    objects = data_objects()
    raws = {"ChatCompletion": RICH_COMPLETION, "ChatCompletionChunk": RICH_CHUNK,
            "Choice": RICH_COMPLETION["choices"][0], "ChunkChoice": RICH_CHUNK["choices"][0],
            "Message": RICH_MESSAGE, "ToolCall": RICH_CALL, "Function": RICH_CALL["function"],
            "Usage": RICH_USAGE, "Model": RICH_MODELS["data"][0]}
    for name, raw in raws.items():
        assert objects[name].raw == raw, name
        plain = dataclasses.replace(objects[name])  # made of its fields alone
        assert plain.raw != raw, name
        assert plain == objects[name], name
        assert repr(plain) == repr(objects[name]), name
        assert "raw" not in repr(plain), name


def test_data_object_differs_from_another_kind_and_from_other_values() -> None:
    assert DIM.Message("user", "a") == DIM.Message("user", "a")
    assert DIM.Message("user", "a") != DIM.Message("user", "b")
    assert DIM.Function() != DIM.ToolCall()
    assert DIM.Function() != "Function()"
    assert DIM.ToolCall("a", index=1) == DIM.ToolCall("a", index=2) != DIM.ToolCall("b", index=2)


def test_data_object_repr_makes_it_again() -> None:
    for item in data_objects().values():
        assert eval(repr(item), vars(DIM)) == item
    assert repr(DIM.Function("f", "{}")) == "Function(name='f', arguments='{}')"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, *(
    lambda item, n=n: pickle.loads(pickle.dumps(item, n))
    for n in range(pickle.HIGHEST_PROTOCOL + 1))])
def test_data_object_survives_pickle_and_deepcopy(copied: Callable[[Any], Any]) -> None:
    for name, item in data_objects().items():
        other = copied(item)
        assert (type(other), other, repr(other)) == (type(item), item, repr(item)), name
        assert getattr(other, "raw", None) == getattr(item, "raw", None), name


def test_data_object_defaults() -> None:
    assert DIM.ServerSentEvent() == DIM.ServerSentEvent(event="message", data="")
    assert DIM.Message().tool_calls == ()
    assert (DIM.ChatCompletion().text, DIM.ChatCompletionChunk().text) == ("", "")
    assert DIM.ChatCompletion().message.content in ("", None)


@pytest.mark.parametrize("choices, text", [
    ([], ""), (None, ""), ([{}], ""), ([{"message": None, "delta": None}], ""),
    ([{"message": {"content": None}, "delta": {"content": None}}], ""),
    ([{"message": {"content": "a"}, "delta": {"content": "a"}}, {"index": 1}], "a"),
], ids=["none", "null", "empty", "null message", "null content", "first of two"])
def test_text_is_the_first_content(choices: Any, text: str) -> None:
    chunk = {"choices": choices, "usage": {"total_tokens": 1}}
    with served(answer({"choices": choices}), sse_answer(chunk)) as (_, client):
        assert client.chat("Hi").text == text
        assert [chunk.text for chunk in client.stream("Hi")] == [text]


# ---- Requests ------------------------------------------------------------------------------------


class Canned(urllib.request.BaseHandler):
    """Gives answers to a client without a network, which is quick, and keeps the requests."""

    def __init__(self, wire: bytes = answer(completion())) -> None:
        self.wire = wire
        self.requests: List[Any] = []

    def http_open(self, request: Any) -> Any:
        self.requests.append(request)
        response = http.client.HTTPResponse(FakeSocket(self.wire))  # type: ignore[arg-type]
        response.begin()
        response.msg = response.reason  # type: ignore[assignment]  # as urllib has it
        return response

    https_open = http_open

    def client(self, token: Optional[str] = "t", **options: Any) -> Client:
        opener = urllib.request.OpenerDirector()  # without the TLS context of urllib's default one
        for handler in (self, urllib.request.HTTPErrorProcessor(),
                        urllib.request.HTTPDefaultErrorHandler()):
            opener.add_handler(handler)
        return Client(token, opener=opener, **{"max_retries": 0, **options})


class FakeSocket:
    """As much of a socket as http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self.makefile = lambda mode: io.BytesIO(data)


def sent(messages: Any, **params: Any) -> Any:
    """Return the JSON that chat() sends."""
    with served(answer(completion())) as (server, client):
        client.chat(messages, **params)
    return server.requests[0].json


def test_constants() -> None:
    assert DIM.DEFAULT_BASE_URL == "https://api.deepinfra.com/v1/openai"
    assert DIM.DEFAULT_MODEL == "deepseek-ai/DeepSeek-R1"
    assert re.fullmatch(r"\d+(\.\d+)+\S*", DIM.__version__)


def test_request_goes_to_the_default_url_with_the_default_model() -> None:
    canned = Canned()
    canned.client(TOKEN).chat("Hi")
    request, = canned.requests
    assert (request.get_method(), request.full_url, json.loads(request.data)) == (
        "POST", DIM.DEFAULT_BASE_URL + "/chat/completions",
        {"model": DIM.DEFAULT_MODEL, "messages": [{"role": "user", "content": "Hi"}]})
    assert request.get_header("Authorization") == f"Bearer {TOKEN}"


USER: Dict[str, Any] = {"role": "user", "content": "Hi"}
PARTS = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
CALL = DIM.ToolCall("c1", "function", DIM.Function("f", "{not JSON"))
WIRE_CALL: Dict[str, Any] = {"id": "c1", "type": "function",
                             "function": {"name": "f", "arguments": "{not JSON"}}


@pytest.mark.parametrize("messages, wire", named({
    "string": ("Hi", [USER]),
    "empty string": ("", [{"role": "user", "content": ""}]),
    "list": ([{"role": "system", "content": "S"}, USER],
             [{"role": "system", "content": "S"}, USER]),
    "tuple": ((USER,), [USER]),
    "no messages": ([], []),
    "mapping passed through": ([{"role": "x", "content": None, "new": [None, {"a": None}]}],
                               [{"role": "x", "content": None, "new": [None, {"a": None}]}]),
    "parts": ([{"role": "user", "content": PARTS}], [{"role": "user", "content": PARTS}]),
    "Message": ([DIM.Message("user", "Hi")], [USER]),
    "Message of parts": ([DIM.Message("user", PARTS)], [{"role": "user", "content": PARTS}]),
    "Message with all": (
        [DIM.Message("assistant", "Hi", "hm", (CALL,), "n", "c0")],
        [{"role": "assistant", "content": "Hi", "reasoning_content": "hm",
          "tool_calls": [WIRE_CALL],
          "name": "n", "tool_call_id": "c0"}]),
    "null beside tool calls": (
        [DIM.Message("assistant", tool_calls=(CALL,))],
        [{"role": "assistant", "content": None, "tool_calls": [WIRE_CALL]}]),
    "tool result": ([DIM.Message("tool", "4", tool_call_id="c1")],
                    [{"role": "tool", "content": "4", "tool_call_id": "c1"}]),
    "empty content stays": ([DIM.Message("assistant", "")], [{"role": "assistant", "content": ""}]),
    "mixed": ([USER, DIM.Message("assistant", "Yes"), USER],
              [USER, {"role": "assistant", "content": "Yes"}, USER]),
    "half a surrogate pair": ("\ud83d", [{"role": "user", "content": "\ud83d"}]),
}))
def test_messages_on_the_wire(messages: Any, wire: List[Any]) -> None:
    assert sent(messages)["messages"] == wire


def test_conversation_continues_with_the_reply_tool_calls_and_all() -> None:
    calls = completion(None, "tool_calls", tool_calls=[RICH_CALL], reasoning_content="hm",
                       name=None)
    streamed = sse_answer(
        delta(tool_calls=[{"index": 0, **RICH_CALL}], reasoning_content="hm"),
        delta(finish_reason="tool_calls"))
    wires = []
    for wire in (answer(calls), streamed):
        with served(wire, answer(completion("4"))) as (server, client):
            messages: List[Any] = [USER]
            reply = client.chat(messages) if wire != streamed else collect(client.stream(messages))
            messages += [reply.message, {"role": "tool", "content": "4", "tool_call_id": "c1"}]
            assert client.chat(messages).text == "4"
            wires.append(server.requests[1].json["messages"])
    assert wires[0] == [
        USER,
        {"role": "assistant", "content": None, "reasoning_content": "hm",
         "tool_calls": [RICH_CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"}]
    assert wires[1] == wires[0]


def test_params_pass_unchecked_and_none_is_left_out() -> None:
    params = {"temperature": 99, "stop": None, "seed": 0, "n": False, "nonsense": {"a": [None]},
              "max_tokens": None, "user": ""}
    assert sent("Hi", model="m", **params) == {
        "model": "m", "messages": [USER], "temperature": 99, "seed": 0, "n": False,
        "nonsense": {"a": [None]}, "user": ""}


def test_params_of_a_stream_pass_likewise() -> None:
    with served(sse_answer(delta("Hi", "stop"))) as (server, client):
        list(client.stream("Hi", model="m", stop=None, stream_options={"include_usage": True}))
    assert server.requests[0].json == {"model": "m", "messages": [USER], "stream": True,
                                       "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("value", [True, False])
def test_chat_refuses_stream_and_points_to_the_method(value: bool) -> None:
    with served(answer(completion())) as (server, client):
        with pytest.raises((TypeError, ValueError), match=r"stream\(\)"):
            client.chat("Hi", stream=value)
        assert server.requests == []


T1, T2, T3 = "DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN"
PRINTABLE = "".join(map(chr, range(33, 127)))


@pytest.mark.parametrize("api_key, environment, token", named({
    "argument": ("a", {T1: "b", T2: "c", T3: "d"}, "a"),
    "first variable": (None, {T1: "b", T2: "c", T3: "d"}, "b"),
    "second variable": (None, {T2: "c", T3: "d"}, "c"),
    "third variable": (None, {T3: "d"}, "d"),
    "set but empty is not set": (None, {T1: "", T2: "c"}, "c"),
    "none": (None, {}, None),
    "none on purpose": ("", {T1: "b", T2: "c"}, None),
    "white space": (" \t a\n", {}, "a"),
    "CR LF from a file": (None, {T1: "b\r\n"}, "b"),
    "double quotes": (None, {T1: '"b"'}, "b"),
    "single quotes": (None, {T1: "'b'"}, "b"),
    "white space within and around quotes": (None, {T1: ' " b "\r\n'}, "b"),
    "jwt": ("jwt:a.b-c_d~+/=", {}, "jwt:a.b-c_d~+/="),
    "all of ASCII": (PRINTABLE, {}, PRINTABLE),
}))
def test_token_source(api_key: Any, environment: Dict[str, str], token: Optional[str],
                      monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with served(answer(completion()), api_key=api_key) as (server, client):
        for name in environment:  # read when the client was made
            monkeypatch.setenv(name, "later")
        client.chat("Hi")
    expected = None if token is None else f"Bearer {token}"
    assert server.requests[0].headers.get("authorization") == expected


@pytest.mark.parametrize("source", ["api_key", T1, T2, T3])
def test_token_malformed_names_its_source_and_is_not_shown(
        source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in ("\u00e9", "\u2028", "\n", "\r\nX: y", "\t", "\x00", "\x7f", "\x1b", "\u20ac"):
        token = f"sk-secret{bad}0123"
        if source != "api_key":
            if bad == "\x00":  # which no environment can hold
                continue
            monkeypatch.setenv(source, token)
        with pytest.raises(DIM.ConfigurationError) as caught:
            Client(token if source == "api_key" else None)
        error: Any = caught.value
        assert source in str(error)
        seen = [error, error.__cause__, error.__context__]
        for text in map(repr, [str(error), vars(error), *seen, *(vars(e) for e in seen if e)]):
            assert "secret" not in text
            assert "0123" not in text


@pytest.mark.parametrize("url", [
    "https://api.deepinfra.com/v1/openai", "http://192.168.1.2/v1", "http://localhost.example.com",
    "http://127.0.0.1.example.com", "http://[2001:db8::1]", "http://0x7f.example"])
def test_token_missing_names_the_variable_and_where_to_get_one(url: str) -> None:
    with pytest.raises(DIM.ConfigurationError, match=r"DEEPINFRA_TOKEN.*https://deepinfra\.com/"):
        Client(base_url=url)
    with pytest.raises(DIM.ConfigurationError, match="DEEPINFRA_TOKEN"):
        Client()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "[::1]"])
def test_token_is_not_needed_on_loopback_and_may_go_there_over_http(host: str) -> None:
    for token, header in ((None, None), ("t", "Bearer t")):
        canned = Canned()
        canned.client(token, base_url=f"http://{host}:8000/v1").chat("Hi")
        assert canned.requests[0].get_header("Authorization") == header


@pytest.mark.parametrize("url", [
    "http://api.deepinfra.com/v1/openai", "HTTP://192.168.1.2", "http://localhost.example.com",
    "http://127.0.0.1.example.com", "http://128.0.0.1", "http://127.0.0.1@example.com",
    "http://example.com#@localhost", "http://example.com?@127.0.0.1", "http://[::2]",
    "http://\\127.0.0.1", "http://example.com\\@127.0.0.1"])
def test_token_goes_over_plain_http_nowhere_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DIM.ConfigurationError) as caught:
        Client(TOKEN, base_url=url)
    assert TOKEN not in repr(vars(caught.value)) + str(caught.value)
    monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)
    with pytest.raises(DIM.ConfigurationError):
        Client(base_url=url)


def test_plain_http_elsewhere_is_fine_without_a_token() -> None:
    canned = Canned()
    canned.client("", base_url="http://192.168.1.2:8000/v1").chat("Hi")
    assert canned.requests[0].full_url == "http://192.168.1.2:8000/v1/chat/completions"
    assert canned.requests[0].get_header("Authorization") is None


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "ftp://localhost/v1", "data:application/json,{}", "ws://localhost",
    "api.deepinfra.com/v1/openai", "localhost:8000", "//localhost", "/v1/openai", "https://",
    "https:///v1", "https:api.deepinfra.com", "http://[::1",
    "https://api.deepinfra.com:x",
    "https://api.deepinfra.com:99999", "https://a b.com", "https://a.com/\r\nX: y", "nonsense"])
def test_base_url_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DIM.ConfigurationError):
        Client(TOKEN, base_url=url)
    monkeypatch.setenv("DEEPINFRA_BASE_URL", url)
    with pytest.raises(DIM.ConfigurationError, match="DEEPINFRA_BASE_URL"):
        Client(TOKEN)


@pytest.mark.parametrize("host",
                         ["[1]", "[:::]", "[fe80::1%25eth0]", "a..b", "-", "x" * 64, "[v1.x]"])
def test_base_url_of_an_odd_host_is_refused_or_taken(host: str) -> None:
    with contextlib.suppress(DIM.ConfigurationError):  # each Python has a view of its own
        assert isinstance(Client(TOKEN, base_url=f"https://{host}/v1"), Client)


@pytest.mark.parametrize("argument, environment, expected", named({
    "default": (None, None, DIM.DEFAULT_BASE_URL),
    "variable": (None, "https://b.example/v1", "https://b.example/v1"),
    "argument": ("https://a.example/v1", "https://b.example/v1", "https://a.example/v1"),
    "slash at the end": ("https://a.example/v1/", None, "https://a.example/v1"),
    "no path": ("https://a.example", None, "https://a.example"),
    "port": ("http://localhost:8000", None, "http://localhost:8000"),
    "upper case": ("HTTPS://a.example", None, "https://a.example"),
}))
def test_base_url_source(argument: Any, environment: Any, expected: str,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    if environment:
        monkeypatch.setenv("DEEPINFRA_BASE_URL", environment)
    canned = Canned()
    client = canned.client(base_url=argument)
    monkeypatch.setenv("DEEPINFRA_BASE_URL", "https://later.example")
    client.chat("Hi")
    scheme, _, rest = canned.requests[0].full_url.partition(":")
    assert f"{scheme.lower()}:{rest}" == expected + "/chat/completions"


@pytest.mark.parametrize("path", [
    "http://127.0.0.1:{port}/x", "//127.0.0.1:{port}/x", "@127.0.0.1:{port}/x", ":{port}/x",
    "/../x", "\\\\127.0.0.1:{port}\\x"])
def test_request_path_leads_to_no_other_server(path: str) -> None:
    with Server(answer({})) as other, served(answer({"ok": 1})) as (server, client):
        with contextlib.suppress(DIM.DeepInfraError, ValueError):
            assert client.request("GET", path.format(port=other.port)) == {"ok": 1}
        assert other.requests == []
        assert all(request.path.startswith("/v1/openai/") for request in server.requests)


@pytest.mark.parametrize("method, path", [
    ("GET", "/x HTTP/1.1\r\nX-Evil: 1"), ("GET /x HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET", "/x"),
    ("GET", "/x\r\n\r\nGET /y"), ("GET", "/\u00e9 \x00\x7f")])
def test_request_line_takes_no_further_lines(method: str, path: str) -> None:
    with served(answer({"ok": 1})) as (server, client):
        with contextlib.suppress(DIM.DeepInfraError, ValueError):
            assert client.request(method, path) == {"ok": 1}
        assert all("x-evil" not in request.headers for request in server.requests)
        assert len(server.requests) <= 1


def test_request_of_any_endpoint() -> None:
    with served(answer({"data": [1, None]}), answer([2])) as (server, client):
        payload = {"input": "a", "x": None}
        assert client.request("POST", "/embeddings", payload) == {"data": [1, None]}
        assert client.request("DELETE", "files/a b?c=d&e=%20") == [2]
    first, second = server.requests
    assert (first.method, first.path, first.json) == (
        "POST", "/v1/openai/embeddings", payload)
    assert (second.method, second.path, second.body) == (
        "DELETE", "/v1/openai/files/a%20b?c=d&e=%20", b"")


def test_user_agent_is_our_own() -> None:
    with served(answer(completion())) as (server, client):
        client.chat("Hi")
    agent = server.requests[0].headers["user-agent"]
    assert agent.startswith(f"deepinfra_min/{DIM.__version__} ")
    assert f"Python/{platform.python_version()}".startswith(agent.split()[1])


def test_models() -> None:
    with served(answer(RICH_MODELS), answer({"data": None}), answer({})) as (server, client):
        models = client.models()
        assert client.models() == client.models() == []
    assert models == [DIM.Model("a/b", 9, 5, {"input_tokens": 0.5}), DIM.Model("a/c"),
                      DIM.Model("a/d"), DIM.Model("a/e")]
    assert [model.raw for model in models] == RICH_MODELS["data"]
    request = server.requests[0]
    assert (request.method, request.path, request.body) == ("GET", "/v1/openai/models", b"")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("close", [Client.close, lambda client: client.__exit__(None, None, None)],
                         ids=["close", "exit"])
def test_close_closes_the_connections_and_the_client_can_go_on(close: Any) -> None:
    with Server(answer(completion())) as server:
        client = server.client()
        client.chat("Hi")
        assert server.closed == 0
        close(client)
        assert server.wait_closed()
        assert client.chat("Hi").text == "Hi"
        with client as same:
            assert same is client
        assert server.wait_closed(2)


# ---- The documented exchanges, through a server --------------------------------------------------

both_models = pytest.mark.parametrize("model", SEED_MODELS)


def documented_request(request: Request, model: str, payload: Dict[str, Any]) -> bool:
    """Return whether a request is the documented curl line's."""
    headers = {name: request.headers.get(name) for name in ("content-type", "authorization")}
    return (request.method, request.path, request.json, headers) == (
        "POST", "/v1/openai/chat/completions", {**payload, "model": model},
        {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"})


@both_models
def test_documented_hello(model: str) -> None:
    text = documented(SEED_HELLO_ANSWER, model)
    with served(answer(text.encode())) as (server, client):
        reply = client.chat("Hello!", model=model)
    assert documented_request(server.requests[0], model, SEED_HELLO_REQUEST)
    content = (" Hello! It's nice to meet you. Is there something I can help you with or would you "
               "like to chat for a bit?")
    assert reply == DIM.ChatCompletion(
        "chatcmpl-guMTxWgpFf", "chat.completion", 1694623155, model,
        (DIM.Choice(0, DIM.Message("assistant", content), "stop"),),
        DIM.Usage(15, 16, 31, 0.0000268))
    assert (reply.text, reply.raw) == (content, json.loads(text))


@both_models
def test_documented_conversation(model: str) -> None:
    text = documented(SEED_LAMB_ANSWER, model)
    system, *turns = SEED_LAMB_REQUEST["messages"]
    with served(answer(text.encode())) as (server, client):
        reply = client.chat([system, *(DIM.Message(**turn) for turn in turns)], model=model)
    assert documented_request(server.requests[0], model, SEED_LAMB_REQUEST)
    content = ("Sous le Sable, my friend! It's an ancient technique that's been used for centuries "
               "in the Middle East and North Africa. The name itself...")
    assert reply == DIM.ChatCompletion(
        "chatcmpl-b23a3fb60cde42ce8f24bb980b4dee87", "chat.completion", 1715688169, model,
        (DIM.Choice(0, DIM.Message("assistant", content), "stop"),),
        DIM.Usage(149, 338, 487, 0.00035493))
    assert (reply.text, reply.raw) == (content, json.loads(text))


def documented_stream(model: str, done: bool) -> bytes:
    lines = [documented(line, model) for line in SEED_STREAM_LINES] + ["data: [DONE]"] * done
    return "".join(line + "\n\n" for line in lines).encode()


def documented_chunks(model: str) -> List[Any]:
    def chunk(part: Any, finish_reason: Optional[str]) -> Any:
        return DIM.ChatCompletionChunk(
            "Rc5hsIPHOSfMP3rNSFUw9tfR", "chat.completion.chunk", 1694623354, model,
            (DIM.ChunkChoice(0, part, finish_reason),))
    texts = [" ", " Hi", "!", "", "</s>"]
    return [*(chunk(DIM.Message("assistant", text), None) for text in texts),
            chunk(DIM.Message(), "stop")]


@both_models
@pytest.mark.parametrize("done", [True, False], ids=["with [DONE]", "without [DONE]"])
@pytest.mark.parametrize("chunks", [None, 1, 100, 65536],
                         ids=["whole", "bytes", "100", "one chunk"])
@beside
def test_documented_stream(model: str, done: bool, chunks: Optional[int]) -> None:
    wire = answer(documented_stream(model, done), type=SSE_TYPE, chunks=chunks)
    with served(wire) as (server, client):
        streamed = list(client.stream("Hello!", model=model))
        whole = collect(client.stream("Hello!", model=model))
    assert documented_request(server.requests[0], model, SEED_STREAM_REQUEST)
    assert streamed == documented_chunks(model)
    assert [chunk.text for chunk in streamed] == [" ", " Hi", "!", "", "</s>", ""]
    raws = [json.loads(documented(line, model)[6:]) for line in SEED_STREAM_LINES]
    assert [chunk.raw for chunk in streamed] == raws
    assert [chunk.choices[0].raw for chunk in streamed] == [raw["choices"][0] for raw in raws]
    assert [chunk.choices[0].delta.raw for chunk in streamed] == [
        raw["choices"][0]["delta"] for raw in raws]
    assert whole == DIM.ChatCompletion(
        "Rc5hsIPHOSfMP3rNSFUw9tfR", "chat.completion", 1694623354, model,
        (DIM.Choice(0, DIM.Message("assistant", "  Hi!</s>"), "stop"),))


# ---- Responses and errors ------------------------------------------------------------------------


def whole(*choices: Any, **fields: Any) -> Any:
    return DIM.ChatCompletion(choices=choices, **fields)


def one(content: Optional[str] = "Hi", **fields: Any) -> Any:
    """Return an answer with nothing but one message."""
    return whole(DIM.Choice(0, DIM.Message("assistant", content, **fields)))


def message(value: Any) -> Dict[str, Any]:
    return {"choices": [{"message": value}]}


@pytest.mark.parametrize("payload, expected", named({
    "nothing": ({}, whole()),
    "all null": (dict.fromkeys(["id", "object", "created", "model", "choices", "usage", "error",
                                "service_tier"]), whole()),
    "unknown fields": ({"new": {"a": 1},
                        "choices": [{"new": 1, "message": {"content": "Hi", "new": 2}}]},
                       one()),
    "no choices": ({"id": "x", "choices": []}, whole(id="x")),
    "empty choice": ({"choices": [{}]}, one(None)),
    "null message": (message(None), one(None)),
    "empty message": (message({}), one(None)),
    "null fields": (message({"role": None, "content": None, "tool_calls": None, "name": None,
                             "reasoning_content": None}), one(None)),
    "null in a choice": ({"choices": [{"index": None, "message": {"content": "Hi"},
                                       "finish_reason": None, "logprobs": None}]}, one()),
    "empty content": (message({"content": ""}), one("")),
    "no tool calls": (message({"content": "Hi", "tool_calls": []}), one()),
    "bare tool call": (message({"tool_calls": [{}]}), one(None, tool_calls=(DIM.ToolCall(),))),
    "tool call of nulls": (
        message({"tool_calls": [{"id": None, "type": None, "function": None}]}),
        one(None, tool_calls=(DIM.ToolCall(None, "function", DIM.Function(None, "")),))),
    "function of nulls": (
        message({"tool_calls": [{"function": {"name": None, "arguments": None}}]}),
        one(None, tool_calls=(DIM.ToolCall(),))),
    "invalid arguments": (message({"tool_calls": [WIRE_CALL]}), one(None, tool_calls=(CALL,))),
    "strange finish reason": ({"choices": [{"finish_reason": "tired", "index": 3}]}, whole(
        DIM.Choice(3, DIM.Message("assistant"), "tired"))),
    "empty usage": ({"usage": {}}, whole(usage=DIM.Usage())),
    "usage with nulls": ({"usage": {"prompt_tokens": None, "prompt_tokens_details": None,
                                    "new": 1}},
                         whole(usage=DIM.Usage())),
    "null error": ({"error": None, **message({"content": "Hi"})}, one()),
    "other model": ({"model": "n", "object": "new"}, whole(model="n", object="new")),
    "escapes": (message({"content": "\u2028\x00\ud83d\"\\"}), one("\u2028\x00\ud83d\"\\")),
}))
@beside
def test_response_is_parsed_tolerantly(payload: Any, expected: Any) -> None:
    with served(answer(payload)) as (_, client):
        reply = client.chat("Hi")
    assert (reply, reply.raw) == (expected, payload)


CALLS = "choices[0].message.tool_calls"
WRONG_SHAPES: Dict[str, Tuple[Any, str]] = {
    "array for the answer": ([], "the answer: expected an object, got list"),
    "string for the answer": ("Hi", "the answer: expected an object, got str"),
    "number for the answer": (1.5, "the answer: expected an object, got float"),
    "choices object": ({"choices": {}}, "choices: expected an array, got dict"),
    "choices string": ({"choices": "Hi"}, "choices: expected an array, got str"),
    "choice string": ({"choices": ["Hi"]}, "choices[0]: expected an object, got str"),
    "choice null": ({"choices": [None]}, "choices[0]: expected an object, got NoneType"),
    "second choice": ({"choices": [{}, []]}, "choices[1]: expected an object, got list"),
    "index string": ({"choices": [{"index": "0"}]},
                     "choices[0].index: expected an integer, got str"),
    "index array": ({"choices": [{"index": []}]},
                    "choices[0].index: expected an integer, got list"),
    "message string": (message("Hi"), "choices[0].message: expected an object, got str"),
    "message array": (message([]), "choices[0].message: expected an object, got list"),
    "message false": (message(False), "choices[0].message: expected an object, got bool"),
    "content object": (message({"content": {}}),
                       "choices[0].message.content: expected a string, got dict"),
    "content number": (message({"content": 0}),
                       "choices[0].message.content: expected a string, got int"),
    "reasoning array": (message({"reasoning_content": ["x"]}),
                        "choices[0].message.reasoning_content: expected a string, got list"),
    "tool calls object": (message({"tool_calls": {}}), CALLS + ": expected an array, got dict"),
    "tool call string": (message({"tool_calls": [{}, "f"]}),
                         CALLS + "[1]: expected an object, got str"),
    "function string": (message({"tool_calls": [{"function": "f"}]}),
                        CALLS + "[0].function: expected an object, got str"),
    "arguments object": (message({"tool_calls": [{"function": {"arguments": {"a": 1}}}]}),
                         CALLS + "[0].function.arguments: expected a string, got dict"),
    "logprobs array": ({"choices": [{"logprobs": [1]}]},
                       "choices[0].logprobs: expected an object, got list"),
    "usage array": ({"usage": [1]}, "usage: expected an object, got list"),
    "usage details": ({"usage": {"prompt_tokens_details": 1}},
                      "usage.prompt_tokens_details: expected an object, got int"),
}


@pytest.mark.parametrize("payload, place", named(WRONG_SHAPES))
@beside
def test_response_of_a_wrong_shape_says_where(payload: Any, place: str) -> None:
    error = chat_error(answer(payload))
    assert (type(error), error.args) == (DIM.APIResponseError, (place,))
    assert error.body == json.dumps(payload)[:200]


@pytest.mark.parametrize("payload, place", named(WRONG_SHAPES))
@beside
def test_chunk_of_a_wrong_shape_says_where(payload: Any, place: str) -> None:
    text = json.dumps(payload).replace('"message"', '"delta"')
    error = stream_error(sse_answer(delta("Hi"), text))
    place = place.replace(".message", ".delta")
    assert (type(error), error.args[0]) == (DIM.APIResponseError, place)
    assert error.partial.text == "Hi"


@pytest.mark.parametrize("payload, place", named({
    "answer": ([], "the answer: expected an object, got list"),
    "data": ({"data": {}}, "data: expected an array, got dict"),
    "model": ({"data": [{}, "m"]}, "data[1]: expected an object, got str"),
    "metadata": ({"data": [{"metadata": ["x"]}]}, "data[0].metadata: expected an object, got list"),
    "pricing": ({"data": [{"metadata": {"pricing": 1}}]},
                "data[0].metadata.pricing: expected an object, got int"),
}))
def test_models_of_a_wrong_shape_say_where(payload: Any, place: str) -> None:
    with served(answer(payload)) as (_, client), pytest.raises(DIM.APIResponseError) as caught:
        client.models()
    assert caught.value.args == (place,)


@pytest.mark.parametrize("body", [
    b"<html><body>Welcome to the hotel</body></html>" * 9, b"", b" ", b"Hi", b'{"id": "x"',
    b"{'id': 1}",
    b'{"a": 1} {"b": 2}', b"data: {}\n\n", b"\xff\xfe", b"\x1f\x8b\x08\x00", b"\x80" * 300, b"NULL",
    b'{"a":\x00}', b"null", b"true"], ids=repr)
def test_response_that_is_no_json_object_shows_its_first_characters(body: bytes) -> None:
    error = chat_error(answer(body))
    assert type(error) is DIM.APIResponseError
    assert error.body in (body.decode("utf-8", "replace")[:200], "null")
    assert error.body[:20] in str(error) or not error.body.isprintable()
    assert len(str(error)) < 2000


# The bodies that the API has been seen to send with an error, and the words in them.
ERROR_BODIES: Dict[str, Tuple[int, Any, str]] = {
    "not authenticated": (401, {"error": {"message": "Not authenticated", "param": None,
                                          "type": "invalid_request_error", "code": None}},
                          "Not authenticated"),
    "unauthorized": (401, {"detail": "Unauthorized"}, "Unauthorized"),
    "payment": (402, {"detail": {"error": "Add a payment method"}}, "Add a payment method"),
    "unknown model": (404, {"detail": {"error": "The model `x` does not exist"}},
                      "The model `x` does not exist"),
    "wrong path": (404, {"detail": "Not Found"}, "Not Found"),
    "no tools": (405, {"error": {"message": "Tool calling is not supported for model: x",
                                 "param": "tools"}}, "Tool calling is not supported for model: x"),
    "error string": (400, {"error": "context exceeded"}, "context exceeded"),
    "message alone": (400, {"message": "context exceeded"}, "context exceeded"),
    "busy": (429, {"error": {"message": "Model busy, retry later", "code": "engine_overloaded"}},
             "Model busy, retry later"),
    "plain text": (503, b" upstream timed out\n", "upstream timed out"),
    "JSON string": (500, b'"overloaded"', "overloaded"),
    "unicode": (400, {"error": {"message": "caf\u00e9 \u2028 \U0001f600"}},
                "caf\u00e9 \u2028 \U0001f600"),
}


@pytest.mark.parametrize("status, body, words", named(ERROR_BODIES))
def test_error_body_yields_its_human_message(status: int, body: Any, words: str) -> None:
    error = chat_error(answer(body, status))
    assert (error.status, error.message) == (status, words)
    assert words in str(error)
    assert f"HTTP {status}" in str(error)


def test_error_body_of_validation_yields_places_and_words() -> None:
    items = [{"loc": ["body", "temperature"], "msg": "too high", "type": "value_error"},
             {"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]
    error = chat_error(answer({"detail": items}, 422))
    assert re.search("temperature.*too high.*messages.*0.*field required", error.message)
    assert error.body == {"detail": items}


@pytest.mark.parametrize("body", [
    b"<!DOCTYPE html><html>\n<b>Bad gateway</b></html>", b" \n<html>"], ids=["doctype", "html"])
def test_error_body_of_html_is_named_not_shown(body: bytes) -> None:
    error = chat_error(answer(body, 502))
    assert "HTML" in error.message
    assert "<" not in error.message
    assert error.body == body.decode()


@pytest.mark.parametrize("body", [
    b"", b"{}", b"[]", b"null", b"0", b'{"error": null}', b'{"error": {}}', b'{"error": []}',
    b'{"error": 7}',
    b'{"detail": []}', b'{"detail": [null, [], "x", {"loc": 1}]}', b'{"error": {"message": {}}}',
    b'{"error": {"message": ["a"], "code": {}, "type": []}}', b'{"error": {"message": 5}}',
    b'{"detail": {"detail": {"error": {"error": "x"}}}}', b'{"error": true}', b"{", b"\xff\xfe\x00",
    b'{"error": "\\ud83d"}'], ids=repr)
@beside
def test_error_body_of_any_other_shape_is_still_the_error_of_its_status(body: bytes) -> None:
    for status, kind in ((400, DIM.APIError), (500, DIM.ServerError)):
        error = chat_error(answer(body, status))
        assert (type(error), error.status, type(error.message)) == (kind, status, str)
        assert error.message


@pytest.mark.parametrize("status, name", [
    (300, "APIError"), (304, "APIError"), (307, "APIError"), (400, "APIError"), (402, "APIError"),
    (401, "AuthenticationError"), (403, "AuthenticationError"), (404, "APIError"),
    (405, "APIError"),
    (408, "APIError"), (409, "APIError"), (413, "APIError"), (422, "APIError"), (499, "APIError"),
    (429, "RateLimitError"), (500, "ServerError"), (502, "ServerError"), (503, "ServerError"),
    (504, "ServerError"), (529, "ServerError"), (599, "ServerError")])
@beside
def test_error_class_goes_by_status(status: int, name: str) -> None:
    body = {"error": {"message": "m", "type": "rate_limit_error", "code": 418}}
    wire = answer(b"" if status == 304 else body, status)
    with served(wire) as (_, client):
        for call in (client.chat, client.stream, lambda text: client.request("POST", "/x", text),
                     lambda text: client.models()):
            with pytest.raises(DIM.APIError) as caught:
                call("Hi")
            assert (type(caught.value), caught.value.status) == (getattr(DIM, name), status)


@pytest.mark.parametrize("headers, seconds", named({
    "absent": ((), None),
    "seconds": (("Retry-After: 7",), 7.0),
    "zero": (("Retry-After: 0",), 0.0),
    "milliseconds": (("retry-after-ms: 1500",), 1.5),
    "milliseconds first": (("Retry-After: 7", "Retry-After-Ms: 250"), 0.25),
    "bad milliseconds": (("Retry-After: 7", "Retry-After-Ms: soon"), 7.0),
    "past date": (("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT",), 0.0),
    "long": (("Retry-After: 86400",), 86400.0),
    "words": (("Retry-After: soon",), None),
    "negative": (("Retry-After: -5",), None),
    "empty": (("Retry-After:",), None),
    "not a number": (("Retry-After: nan",), None),
    "bad date": (("Retry-After: Wed, 99 Oct 2015 07:28:00 GMT",), None),
    "date of year 0": (("Retry-After: Wed, 21 Oct 0000 07:28:00 GMT",), None),
    "letters": (("Retry-After: \xb2",), None),
}))
@beside
def test_error_retry_after(headers: Tuple[str, ...], seconds: Optional[float]) -> None:
    got = chat_error(answer({}, 503, headers=headers)).retry_after
    assert got == seconds or (seconds is None and got == 0.0 and "0000" in headers[0])


def test_error_retry_after_of_a_date_to_come() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 28 <= chat_error(answer({}, 429, headers=(f"Retry-After: {date}",))).retry_after <= 30


@pytest.mark.parametrize("payload, status, name, words", named({
    "object": ({"error": {"message": "m", "code": "c", "param": "p", "type": "t"}}, None,
               "APIError", "m"),
    "string": ({"error": "m"}, None, "APIError", "m"),
    "detail": ({"detail": "m"}, None, "APIError", "m"),
    "detail with an error": ({"detail": {"error": "m"}}, None, "APIError", "m"),
    "code 400": ({"error": {"message": "m", "code": 400}}, 400, "APIError", "m"),
    "code 401": ({"error": {"message": "m", "code": 401}}, 401, "AuthenticationError", "m"),
    "code 429": ({"error": {"message": "m", "code": 429}}, 429, "RateLimitError", "m"),
    "code 503": ({"error": {"message": "m", "code": 503}}, 503, "ServerError", "m"),
    "code 42": ({"error": {"message": "m", "code": 42}}, None, "APIError", "m"),
    "beside an answer": ({**completion(), "error": {"message": "m"}}, None, "APIError", "m"),
}))
@beside
def test_error_inside_a_200(payload: Any, status: Any, name: str, words: str) -> None:
    streamed = sse_answer(delta("Hi"), payload)
    for error in (chat_error(answer(payload)), stream_error(streamed),
                  stream_error(answer(payload))):
        assert (type(error), error.status, error.message, error.body) == (
            getattr(DIM, name), status, words, payload)
        if isinstance(payload.get("error"), dict):
            assert (error.code, error.param, error.type) == tuple(
                payload["error"].get(key) for key in ("code", "param", "type"))


def test_error_inside_a_200_has_the_headers_of_its_answer() -> None:
    headers = ("X-Request-Id: r-1", "Retry-After: 7")
    error = chat_error(answer({"error": {"message": "busy", "code": 429}}, headers=headers))
    assert (error.request_id, error.retry_after) == ("r-1", 7.0)


# ---- Server-sent events --------------------------------------------------------------------------

E_ACUTE, BOM = "\u00e9", b"\xef\xbb\xbf"


def says(*texts: str) -> Any:
    """Return the events of type "message" that await_close the texts."""
    return [("message", text) for text in texts]


SSE_CASES: Dict[str, Tuple[bytes, List[Tuple[str, str]]]] = {
    "LF": (b"data: a\n\ndata: b\n\n", says("a", "b")),
    "CR": (b"data: a\r\rdata: b\r\r", says("a", "b")),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", says("a", "b")),
    "CRLF ends one line, not two": (b"data: a\r\ndata: b\r\n\r\n", says("a\nb")),
    "LF CR ends two": (b"data: a\n\rdata: b\n\r", says("a", "b")),
    "CR CRLF ends two": (b"data: a\r\r\ndata: b\r\r\n", says("a", "b")),
    "CRLF CR ends two": (b"data: a\r\n\rdata: b\r\n\r", says("a", "b")),
    "CRLF LF ends two": (b"data: a\r\n\ndata: b\r\n\n", says("a", "b")),
    "all line ends": (b"data: a\rdata: b\ndata: c\r\ndata: d\r\n\r", says("a\nb\nc\nd")),
    "nothing": (b"", []),
    "line ends alone": (b"\n\r\r\n\n\r\n\r", []),
    "blank lines between": (b"\n\ndata: a\n\n\n\n\ndata: b\n\n\n", says("a", "b")),
    "BOM": (BOM + b"data: a\n\n", says("a")),
    "BOM before a comment": (BOM + b": x\ndata: a\n\n", says("a")),
    "BOM before a blank line": (BOM + b"\r\n\r\ndata: a\n\n", says("a")),
    "BOM alone": (BOM, []),
    "one BOM and no more": (BOM + BOM + b"data: a\n\ndata: b\n\n", says("b")),
    "BOM on a later line": (b"data: a\n\n" + BOM + b"data: b\n\n", says("a")),
    "BOM inside a value": (b"data: " + BOM + b"a\n\n", says("\ufeffa")),
    "half a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", says("b")),
    "comment": (b": ping - 2024-01-01\n\n", []),
    "comment of nothing": (b":\n\n:\ndata: a\n\n", says("a")),
    "comment that looks like data": (b":data: a\n\n", []),
    "comment inside an event": (b"data: a\n: ping\ndata: b\n\n", says("a\nb")),
    "space after the colon": (b"data: a\n\ndata:b\n\n", says("a", "b")),
    "only one space": (b"data:  a \n\n", says(" a ")),
    "only a space": (b"data:\ta\n\ndata:\xc2\xa0a\n\n", says("\ta", "\u00a0a")),
    "value of a space": (b"data: \n\ndata:  \n\n", says("", " ")),
    "colons in the value": (b"data: a: b:c\n\ndata::\n\n", says("a: b:c", ":")),
    "lines of data": (b"data: a\ndata:\ndata: b\n\n", says("a\n\nb")),
    "lines of empty data": (b"data:\ndata:\n\n", says("\n")),
    "last line of data empty": (b"data: a\ndata\n\n", says("a\n")),
    "empty data": (b"data:\n\n", says("")),
    "field without colon": (b"data\n\ndata\ndata\n\n", says("", "\n")),
    "event": (b"event: x\ndata: a\n\n", [("x", "a")]),
    "event after its data": (b"data: a\nevent: x\ndata: b\n\n", [("x", "a\nb")]),
    "event, the last counts": (b"event: x\nevent: y\ndata: a\n\n", [("y", "a")]),
    "event holds for one": (b"event: x\ndata: a\n\ndata: b\n\n", [("x", "a"), ("message", "b")]),
    "event of nothing": (b"event:\ndata: a\n\nevent: x\nevent\ndata: b\n\n", says("a", "b")),
    "event with spaces": (b"event:  x \ndata: a\n\n", [(" x ", "a")]),
    "event without data": (b"event: x\n\ndata: a\n\n", says("a")),
    "id": (b"id: 1\ndata: a\n\nid\ndata: b\n\nid: \x00\ndata: c\n\n", says("a", "b", "c")),
    "id alone": (b"id: 1\n\n", []),
    "retry": (b"retry: 10\ndata: a\n\nretry: soon\n\n", says("a")),
    "unknown fields": (b"x: 1\ndatax: b\ndat: c\nx\ndata: a\n\n", says("a")),
    "names are case-sensitive": (b"Data: a\nDATA: b\n\nEvent: x\ndata: c\n\n", says("c")),
    "space before the name": (b" data: a\n\n", []),
    "space after the name": (b"data : a\n\n", []),
    "unfinished line": (b"data: a\n\ndata: b", says("a")),
    "unfinished event": (b"data: a\n\ndata: b\n", says("a")),
    "unfinished event, CR": (b"data: a\r", []),
    "unfinished event, CRLF": (b"data: a\r\n", []),
    "invalid byte": (b"data: a\xffb\n\n", says("a\ufffdb")),
    "cut character": (b"data: \xe2\x82\ndata: \xf0\x9f\x98\n\n", says("\ufffd\n\ufffd")),
    "character cut by a line end": (b"data: \xe2\ndata: \x82\xac\n\n",
                                    says("\ufffd\n\ufffd\ufffd")),
    "overlong": (b"data: \xc0\xaf\n\n", says("\ufffd\ufffd")),
    "surrogate": (b"data: \xed\xa0\x80\n\n", says("\ufffd\ufffd\ufffd")),
    "beyond Unicode": (b"data: \xf4\x90\x80\x80\n\n", says("\ufffd" * 4)),
    "invalid byte in a name": (b"da\xffta: a\n\nevent: \xff\ndata: b\n\n", [("\ufffd", "b")]),
    "characters of 1 to 4 bytes": ("event: \u00e9\ndata: a\u00e9\u20ac\U0001f600\n\n".encode(),
                                   [("\u00e9", "a\u00e9\u20ac\U0001f600")]),
    "what splits no lines": ("data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
                             says("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei")),
    "NUL": (b"data: a\x00b\n\x00data: c\n\n", says("a\x00b")),
    "long line": (b"data: " + b"x" * 9999 + b"\n\n", says("x" * 9999)),
}


def blocks_of(data: bytes, size: int) -> List[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("data, expected", named(SSE_CASES))
@beside
def test_sse(data: bytes, expected: Any) -> None:
    for size in (1, 2, 3, 7, 65536):
        blocks = blocks_of(data, size)
        assert [(e.event, e.data) for e in iter_sse(blocks)] == expected, size
        spaced = [piece for block in blocks for piece in (b"", block, b"")]
        assert [(e.event, e.data) for e in iter_sse(spaced)] == expected, size


def test_sse_at_every_cut() -> None:
    data = BOM + "event: \u00e9\r\ndata: a\u20ac\r\rdata: \U0001f600\n\r\ndata: b\r\n\r\n".encode()
    expected = [DIM.ServerSentEvent("\u00e9", "a\u20ac"),
                *(DIM.ServerSentEvent("message", text) for text in ("\U0001f600", "b"))]
    for first, second in itertools.combinations(range(len(data) + 1), 2):
        assert list(iter_sse([data[:first], data[first:second], data[second:]])) == expected


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\r", b"\n\r"])
def test_sse_yields_an_event_as_soon_as_its_last_byte_is_there(end: bytes) -> None:
    data, taken = (b"data: a" + end) * 3, [0]

    def blocks() -> Iterator[bytes]:
        for n in range(len(data)):
            taken[0] = n + 1
            yield data[n : n + 1]

    last = len(b"data: a" + end) - end.endswith(b"\r\n")  # the CR ends a line, the LF is its rest
    got = [taken[0] for _ in iter_sse(blocks())]
    assert got == [last + n * len(b"data: a" + end) for n in range(3)]


def test_sse_takes_one_block_after_the_other() -> None:
    taken: List[int] = []

    def blocks() -> Iterator[bytes]:
        for n in range(3):
            taken.append(n)
            yield b"data: a\n\ndata: b\n\n"

    events = iter_sse(blocks())
    assert taken == []
    assert [(next(events).data, len(taken)) for _ in range(6)] == [
        ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]


def seconds(work: Callable[[], Any]) -> float:
    """Return the least processor time of three runs."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("make", named({
    "a line in single bytes": (lambda n: blocks_of(b"data: " + b"x" * n + b"\n\n", 1),),
    "a line in blocks": (lambda n: blocks_of(b"data: " + b"x" * (n * 100) + b"\n\n", 100),),
    "short lines in one block": (lambda n: [b"data\n" * n + b"\n"],),
    "events in one block": (lambda n: [b"data: a\n\n" * (n // 2)],),
    "events in single bytes": (lambda n: blocks_of(b"data: a\r\r" * (n // 8), 1),),
    "blank lines in one block": (lambda n: [b"\r\n" * n],),
    "a comment in single bytes": (lambda n: blocks_of(b":" * n, 1),),
}))
@beside
def test_sse_takes_linear_time(make: Callable[[int], List[bytes]]) -> None:
    few, many = make(1000), make(16000)  # 16 times the work: 256 times the time if it were squared
    assert seconds(lambda: sum(1 for _ in iter_sse(many))) < 0.02 + 64 * seconds(
        lambda: sum(1 for _ in iter_sse(few)))


@pytest.mark.parametrize("block", [b"x", b"data: x\n", b": x"], ids=repr)
@beside
def test_sse_refuses_an_event_over_64_mib_before_it_is_in_memory(block: bytes) -> None:
    taken = [0]

    def blocks() -> Iterator[bytes]:
        if block[-1:] != b"\n":
            yield b"data: "
        piece = block.replace(b"x", b"x" * (1 << 20))
        for _ in range(80):
            taken[0] += len(piece)
            yield piece

    with pytest.raises(DIM.APIResponseError, match="64 MiB"):
        list(iter_sse(blocks()))
    assert taken[0] < 66 << 20


# ---- Streams -------------------------------------------------------------------------------------


def texts(*, wire: Answer, **options: Any) -> List[str]:
    """Return the texts of the chunks of a streamed answer."""
    with served(wire, **options) as (_, client):
        return [chunk.text for chunk in client.stream("Hi")]


def event_stream(body: bytes, **options: Any) -> bytes:
    return answer(body, type=SSE_TYPE, **options)


KEEPALIVES: Dict[str, bytes] = {
    "comment": b": ping - 2024-01-01 00:00:00\n\n",
    "comment of nothing": b":\n\n",
    "comment in CRLF": b": ping\r\n\r\n",
    "comment in CR": b": ping\r\r",
    "blank lines": b"\r\n\r\n\n\n",
    "empty data": b"data:\n\n",
    "data of a space": b"data: \r\n\r\n",
    "data of spaces": b"data:  \n\n",
    "data without colon": b"data\n\n",
    "id": b"id: 7\n\n",
    "retry": b"retry: 3000\n\n",
    "event name": b"event: ping\n\n",
    "event name with empty data": b"event: ping\ndata:\n\n",
    "null choices": b'data: {"id": "x1", "choices": null}\n\n',
    "null everything": b'data: {"id": "", "choices": null, "usage": null, "error": null}\n\n',
}


@pytest.mark.parametrize("keepalive", [pytest.param(v, id=k) for k, v in KEEPALIVES.items()])
@beside
def test_stream_passes_over_keepalives(keepalive: bytes) -> None:
    events = [sse(part, done=False) for part in (delta("a"), delta("b"), delta(None, "stop"))]
    events += [b"data: [DONE]\n\n"]
    body = keepalive * 2 + b"".join(event + keepalive for event in events)
    for chunks in (None, 3, 65536):
        assert texts(wire=event_stream(body, chunks=chunks)) == ["a", "b", ""]
    cut_off = body[: body.index(b"data: [DONE]")]
    assert texts(wire=event_stream(cut_off)) == ["a", "b", ""]
    error = stream_error(event_stream(keepalive * 3))
    assert (type(error), error.partial) == (DIM.StreamInterruptedError, DIM.ChatCompletion())


@pytest.mark.parametrize("body, expected", named({
    "line ends in CRLF": (sse(delta("a"), delta("b")).replace(b"\n", b"\r\n"), ["a", "b"]),
    "line ends in CR": (sse(delta("a"), delta("b")).replace(b"\n", b"\r"), ["a", "b"]),
    "BOM": (BOM + sse(delta("a")), ["a"]),
    "no space after the colon": (sse(delta("a")).replace(b"data: ", b"data:"), ["a"]),
    "JSON over several lines": (b"data: " + json.dumps(delta("a"), indent=1).encode().replace(
        b"\n", b"\ndata: ") + b"\n\ndata: [DONE]\n\n", ["a"]),
    "named events": (b"event: message\n" + sse(delta("a")), ["a"]),
    "U+2028 in JSON": (b"data: " + json.dumps(delta("\u2028\u0085"), ensure_ascii=False).encode()
                       + b"\n\ndata: [DONE]\n\n", ["\u2028\u0085"]),
    "no choices": (sse({"choices": []}, {"usage": {}}, delta("a")), ["", "", "a"]),
    "null choices with usage": (sse({"choices": None, "usage": {"total_tokens": 1}}), [""]),
    "unknown fields": (sse({**delta("a"), "new": 1}), ["a"]),
    "null error": (sse({**delta("a"), "error": None}), ["a"]),
    "null delta": (sse({"choices": [{"index": 0, "delta": None}]}, delta("a")), ["", "a"]),
    "delta of nulls": (sse(delta("a", role=None, tool_calls=None, reasoning_content=None)), ["a"]),
    "end of sequence as content": (sse(delta("</s>"), delta("[DONE]")), ["</s>", "[DONE]"]),
    "half a surrogate pair": (sse(delta("\ud83d"), delta("\ude00")), ["\ud83d", "\ude00"]),
}))
@beside
def test_stream_yields_a_chunk_for_each_event_that_has_one(body: bytes,
                                                           expected: List[str]) -> None:
    for chunks in (None, 1, 65536):
        assert texts(wire=event_stream(body, chunks=chunks)) == expected


def test_stream_yields_each_chunk_before_more_is_sent() -> None:
    seen = threading.Semaphore(0)

    def drip(sock: socket.socket, request: Request) -> bool:
        sock.sendall(event_stream(b"", chunks=1)[:-5])
        for n in range(3):
            for piece in blocks_of(sse(delta(str(n)), done=False), 60):  # an event in pieces
                sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert seen.acquire(timeout=5)
        sock.sendall(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return True

    with served(drip, timeout=5) as (_, client):
        got = []
        for chunk in client.stream("Hi"):
            got.append(chunk.text)
            seen.release()
    assert got == ["0", "1", "2"]


@pytest.mark.parametrize("framing, after", [("chunked", b""), *(("none", after) for after in (
    b"", b"data: x\n\n", b"\xff\x00<html>", sse({"error": "late"}), sse(delta("late"))))])
@beside
def test_stream_ends_at_done_while_the_server_stays_open(framing: str, after: bytes) -> None:
    body = sse(delta("a"), delta("b")) + after
    head = {"chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body),
            "none": b"\r\n" + body}[framing]

    def stay(sock: socket.socket, request: Request) -> bool:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + head)
        return await_close(sock)

    with served(stay, timeout=5) as (server, client):
        start = time.monotonic()
        assert [chunk.text for chunk in client.stream("Hi")] == ["a", "b"]
        assert time.monotonic() - start < 1
        assert server.wait_closed()


def finishes(*reasons: Any) -> Dict[str, Any]:
    """Return a chunk with a finish reason for each choice; "-" for a choice that is not there."""
    return {"choices": [{"index": n, "delta": {"content": "a"}, "finish_reason": reason}
                        for n, reason in enumerate(reasons) if reason != "-"]}


@pytest.mark.parametrize("body, is_complete", named({
    "done": (sse(delta("a")), True),
    "done alone": (sse(), True),
    "finish reason": (sse(delta("a"), delta(None, "stop"), done=False), True),
    "finish reason and usage": (sse(finishes("stop"), {"choices": [], "usage": {}}, done=False),
                                True),
    "finish reason, then more": (sse(finishes("length"), finishes(None), done=False), True),
    "any finish reason": (sse(finishes("tired"), done=False), True),
    "finish reason and half of [DONE]": (sse(finishes("stop"), done=False) + b"data: [DO", True),
    "finish reason and [DONE] without its blank line": (
        sse(finishes("stop"), done=False) + b"data: [DONE]", True),
    "all choices": (sse(finishes(None, "stop"), finishes("stop", "-"), done=False), True),
    "nothing": (b"", False),
    "comments": (b": ping\n\n", False),
    "usage alone": (sse({"choices": [], "usage": {}}, done=False), False),
    "no finish reason": (sse(delta("a"), done=False), False),
    "empty finish reason chunk cut": (
        sse(delta("a"), done=False) + sse(delta(None, "stop"), done=False)[:-1], False),
    "one of two choices": (sse(finishes("stop", None), done=False), False),
    "the other of two choices": (sse(finishes(None, "stop"), done=False), False),
    "a choice begun late": (sse(finishes("stop"), finishes("-", None), done=False), False),
    "[DONE] without its blank line": (sse(delta("a"), done=False) + b"data: [DONE]\n", False),
    "[DONE] in a comment": (sse(delta("a"), done=False) + b": [DONE]\n\n", False),
}))
@pytest.mark.parametrize("framing", ["chunked", "length", "none"])
@beside
def test_stream_is_complete_or_interrupted(body: bytes, is_complete: bool, framing: str) -> None:
    wire = event_stream(body, chunks=50 if framing == "chunked" else None)
    if framing == "none":
        wire = event_stream(body).replace(b"Content-Length", b"X-Length")
    if is_complete:
        texts(wire=then_close(wire))
    else:
        error = stream_error(then_close(wire))
        assert type(error) is DIM.StreamInterruptedError
        assert isinstance(error.partial, DIM.ChatCompletion)


@pytest.mark.parametrize("wire", [
    event_stream(sse(finishes("stop"), done=False), chunks=99)[:-5],
    event_stream(sse(finishes("stop"), done=False), chunks=99)[:-40],
    event_stream(sse(finishes("stop")))[:-8]],
    ids=["last chunk missing", "within a chunk", "short of its length"])
def test_stream_is_interrupted_when_its_body_is_cut_even_after_a_finish_reason(wire: bytes) -> None:
    error = stream_error(then_close(wire))
    assert type(error) is DIM.StreamInterruptedError


@pytest.mark.parametrize("event, status, name, words", named({
    "object": (sse({"error": {"message": "m", "code": "overloaded"}}), None, "APIError", "m"),
    "object with code 400": (sse({"error": {"message": "m", "code": 400}}), 400, "APIError", "m"),
    "object with code 403": (
        sse({"error": {"message": "m", "code": 403}}), 403, "AuthenticationError", "m"),
    "object with code 429": (sse({"error": {"message": "m", "code": 429}}), 429, "RateLimitError",
                             "m"),
    "object with code 502": (sse({"error": {"message": "m", "code": 502}}), 502, "ServerError",
                             "m"),
    "object with code 0": (sse({"error": {"message": "m", "code": 0}}), None, "APIError", "m"),
    "string": (sse({"error": "m"}), None, "APIError", "m"),
    "detail": (sse({"detail": "m"}), None, "APIError", "m"),
    "detail with an error": (sse({"detail": {"error": "m"}}), None, "APIError", "m"),
    "beside choices": (sse({**delta("b"), "error": {"message": "m"}}), None, "APIError", "m"),
    "event of text": (b"event: error\ndata: m\n\n", None, "APIError", "m"),
    "event of lines": (b"event: error\ndata: m\ndata: n\n\n", None, "APIError", "m\nn"),
    "event of an error": (
        b"event: error\n" + sse({"error": {"message": "m", "code": 500}}), 500, "ServerError", "m"),
    "event of a message": (
        b"event: error\n" + sse({"message": "m", "code": 429}), 429, "RateLimitError", "m"),
    "event of a JSON string": (b'event: error\ndata: "m"\n\n', None, "APIError", "m"),
    "event of broken JSON": (b"event: error\ndata: {m\n\n", None, "APIError", "{m"),
}))
@beside
def test_stream_raises_an_error_inside_it(event: bytes, status: Any, name: str, words: str) -> None:
    for before in (b"", sse(delta("a"), done=False), sse(finishes("stop"), done=False)):
        error = stream_error(event_stream(before + event, chunks=65536))
        assert (type(error), error.status, error.message) == (getattr(DIM, name), status, words)
        assert error.partial.text == ("a" if before else "")


@pytest.mark.parametrize("body, type, words", named({
    "HTML": (b"<!DOCTYPE html><html><body>Log in</body></html>", "text/html", "<!DOCTYPE html>"),
    "HTML as an event stream": (b"\n <html><body>Log in</body></html>", SSE_TYPE, "<html>"),
    "prose": (b"Please log in.\nThank you.\n\n", "text/plain", "Please log in."),
    "prose without line end": (b"Please log in.", "text/plain", "Please log in."),
    "no body": (b"", JSON_TYPE, ""),
    "JSON array": (b"[1]", JSON_TYPE, "[1]"),
    "JSON string": (b'"hello"', JSON_TYPE, "hello"),
    "JSON of another kind": (b'{"hello": 1}', JSON_TYPE, '{"hello": 1}'),
    "JSON cut short": (b'{"id": "x1", "choices": [', JSON_TYPE, '{"id": "x1"'),
    "bytes": (bytes(range(128, 256)), "application/octet-stream", ""),
}))
@beside
def test_stream_refuses_what_is_no_event_stream(body: bytes, type: str, words: str) -> None:
    for chunks in (None, 1, 65536):
        error = stream_error(answer(body, type=type, chunks=chunks))
        assert error.__class__ is DIM.APIResponseError
        assert words in error.body
        assert words in str(error)


@pytest.mark.parametrize("type", [JSON_TYPE, SSE_TYPE, "text/plain"])
@pytest.mark.parametrize("body", [
    completion(), json.dumps(completion(), indent=2).encode(),
    b"\n" + json.dumps(completion()).encode()],
    ids=["compact", "indented", "after a line end"])
@beside
def test_stream_says_that_the_server_ignores_stream(body: Any, type: str) -> None:
    for chunks in (None, 1, 65536):
        error = stream_error(answer(body, type=type, chunks=chunks))
        assert error.__class__ is DIM.APIResponseError
        assert re.search("ignores `?stream", str(error))
        assert error.body.strip().startswith("{")


@pytest.mark.parametrize("data", [
    "Hi", "{", json.dumps(delta("b")) + "x", json.dumps(delta("b"))[:-1], "[DONE]x", "\x00", "NaN{",
    '{"id": "x1"} {"id": "x1"}', json.dumps(delta("b")) + "\ndata: {}"])
def test_stream_event_that_is_no_json_is_shown(data: str) -> None:
    error = stream_error(sse_answer(delta("a"), data))
    assert (type(error), error.partial.text) == (DIM.APIResponseError, "a")
    assert error.body == data.replace("\ndata: ", "\n")[:200]
    assert "JSON" in str(error)


def test_stream_that_is_a_json_error_is_an_api_error() -> None:
    for body in ({"error": {"message": "m", "code": 429}}, {"detail": "m"}, {"error": "m"}):
        for type in (JSON_TYPE, SSE_TYPE):
            assert stream_error(answer(body, type=type)).message == "m"


def test_stream_raises_errors_of_the_request_at_the_call() -> None:
    with served(answer({"detail": "Unauthorized"}, 401)) as (_, client):
        with pytest.raises(DIM.AuthenticationError):
            client.stream("Hi")
    with served(await_close, timeout=0.05) as (_, client), pytest.raises(DIM.APITimeoutError):
        client.stream("Hi")
    with served(then_close(b"")) as (_, client), pytest.raises(DIM.APIConnectionError):
        client.stream("Hi")


def test_stream_sends_its_request_at_the_call_and_is_a_generator() -> None:
    with served(sse_answer(delta("a"))) as (server, client):
        chunks = client.stream("Hi")
        assert len(server.requests) == 1
        assert iter(chunks) is chunks
        assert next(chunks).text == "a"
        with pytest.raises(StopIteration):
            next(chunks)
        with pytest.raises(StopIteration):
            next(chunks)
        chunks.close()


def flow(sock: socket.socket, request: Request) -> bool:
    """Begin a stream, and wait for the client to close the connection."""
    sock.sendall(event_stream(sse(delta("a"), delta("b"), done=False), chunks=65536)[:-5])
    return await_close(sock)


def break_off(client: Client) -> None:
    for _ in client.stream("Hi"):
        break


def close_early(client: Client) -> Any:
    chunks = client.stream("Hi")
    next(chunks)
    chunks.close()
    return chunks


def close_at_once(client: Client) -> Any:
    chunks = client.stream("Hi")
    chunks.close()
    return chunks


def drop_early(client: Client) -> None:
    chunks = client.stream("Hi")
    next(chunks)
    del chunks
    gc.collect()


def drop_at_once(client: Client) -> None:
    client.stream("Hi")
    gc.collect()


def fail_in_loop(client: Client) -> Any:
    chunks = client.stream("Hi")
    with pytest.raises(ZeroDivisionError), contextlib.closing(chunks):
        for _ in chunks:
            1 / 0  # noqa: B018
    return chunks


@pytest.mark.parametrize("leave", [
    break_off, close_early, close_at_once, drop_early, drop_at_once, fail_in_loop])
@beside
def test_stream_left_early_closes_the_connection(leave: Callable[[Client], Any]) -> None:
    with served(flow, timeout=5) as (server, client):
        kept = leave(client)
        assert server.wait_closed(1)
        assert server.connections == 1
        assert kept is None or list(kept) == []


# ---- Collecting ----------------------------------------------------------------------------------


def collected(*payloads: Any) -> Any:
    with served(sse_answer(*payloads)) as (_, client):
        return collect(client.stream("Hi"))


def part(index: int = 0, **fields: Any) -> Dict[str, Any]:
    """Return a chunk with a delta for one choice."""
    return {"choices": [{"index": index, "delta": fields}]}


def call(arguments: Optional[str] = None, *, name: Optional[str] = None,
         **fields: Any) -> Dict[str, Any]:
    """Return a chunk with a piece of a tool call."""
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    return part(tool_calls=[{**fields, "function": function}])


def tool_call(id: Optional[str], name: Optional[str], arguments: str) -> Any:
    return DIM.ToolCall(id, "function", DIM.Function(name, arguments))


@pytest.mark.parametrize("payloads, expected", named({
    "by index": (
        [call("", index=0, id="c0", type="function", name="f"),
         call("", index=1, id="c1", name="g"),
         call('{"a"', index=0), call("[", index=1), call(": 1}", index=0), call("]", index=1)],
        [tool_call("c0", "f", '{"a": 1}'), tool_call("c1", "g", "[]")]),
    "by index, several in a chunk": (
        [part(tool_calls=[{"index": 1, "id": "c1", "function": {"name": "g"}},
                          {"index": 0, "id": "c0", "function": {"name": "f"}}]),
         part(tool_calls=[{"index": 0, "function": {"arguments": "0"}},
                          {"index": 1, "function": {"arguments": "1"}}])],
        [tool_call("c1", "g", "1"), tool_call("c0", "f", "0")]),
    "by id": (
        [call("a", id="c0", name="f"), call("b", id="c1", name="g"), call("c", id="c0"),
         call("d", id="c1")], [tool_call("c0", "f", "ac"), tool_call("c1", "g", "bd")]),
    "onto the last": (
        [call("a", id="c0", name="f"), call("b"), call("c", id="c1", name="g"), call("d"),
         call("e")],
        [tool_call("c0", "f", "ab"), tool_call("c1", "g", "cde")]),
    "onto the last, after an index": (
        [call("a", index=0, id="c0", name="f"), call("b")], [tool_call("c0", "f", "ab")]),
    "by id, after an index": (
        [call("a", index=0, id="c0"), call("b", index=1, id="c1"), call("c", id="c0")],
        [tool_call("c0", None, "ac"), tool_call("c1", None, "b")]),
    "neither, at first": ([call("a", name="f"), call("b")], [tool_call(None, "f", "ab")]),
    "id on every piece": (
        [call("a", index=0, id="c0"), call("b", index=0, id="c0")], [tool_call("c0", None, "ab")]),
    "name and id late": (
        [call("a", index=0), call("b", index=0, id="c0", name="f")], [tool_call("c0", "f", "ab")]),
    "nulls": (
        [call("a", index=0, id="c0", name="f"),
         part(tool_calls=[{"index": 0, "id": None, "type": None, "function": None}]),
         part(tool_calls=[{"index": 0, "function": {"name": None, "arguments": None}}]),
         part(tool_calls=None), call("b", index=0)], [tool_call("c0", "f", "ab")]),
    "invalid JSON, as it is": (
        [call('{"a": \n', index=0), call("}} ", index=0)], [tool_call(None, None, '{"a": \n}} ')]),
    "no arguments": ([call(index=0, id="c0", name="f")], [tool_call("c0", "f", "")]),
    "another type": ([call("a", index=0, type="custom")],
                     [DIM.ToolCall(None, "custom", DIM.Function(None, "a"))]),
    "index from 1": ([call("a", index=1), call("b", index=1)], [tool_call(None, None, "ab")]),
}))
@beside
def test_collect_assembles_tool_calls(payloads: List[Any], expected: List[Any]) -> None:
    whole_answer = collected(*payloads)
    assert sorted(whole_answer.message.tool_calls, key=str) == sorted(expected, key=str)
    assert whole_answer.message.content is None
    if all(call["index"] is None for call in map(vars, whole_answer.message.tool_calls)):
        assert list(whole_answer.message.tool_calls) == expected  # in the order that they came


@pytest.mark.parametrize("payloads, expected", named({
    "content": ([part(role="assistant", content="a"), part(content=None), part(),
                 part(content="b")],
                DIM.Message("assistant", "ab")),
    "no content": ([part(role="assistant")], DIM.Message("assistant", None)),
    "empty content": ([part(content="")], DIM.Message("assistant", "")),
    "reasoning": ([part(reasoning_content="a"), part(reasoning_content="b"), part(content="c")],
                  DIM.Message("assistant", "c", "ab")),
    "name": ([part(name="n", content="a"), part(content="b")],
             DIM.Message("assistant", "ab", name="n")),
    "role of its own": ([part(role="tool", content="a"), part(role=None, content="b")],
                        DIM.Message("tool", "ab")),
    "surrogates cut apart": ([part(content="a\ud83d"), part(content="\ude00b")],
                             DIM.Message("assistant", "a\U0001f600b")),
    "surrogates with nothing between": (
        [part(content="\ud83d"), part(content=""), part(content=None), part(content="\ude00")],
        DIM.Message("assistant", "\U0001f600")),
    "surrogates in reasoning": ([part(reasoning_content="\ud83d"),
                                 part(reasoning_content="\ude00")],
                                DIM.Message("assistant", None, "\U0001f600")),
    "surrogates alone": ([part(content="\ude00a"), part(content="\ud83d"), part(content="b\ud83d")],
                         DIM.Message("assistant", "\ude00a\ud83db\ud83d")),
    "surrogates beside a pair": (
        [part(content="\ud83d"), part(content="\ud83d\ude00"), part(content="\ude00\U0001f600")],
        DIM.Message("assistant", "\ud83d\U0001f600\ude00\U0001f600")),
    "no trimming": ([part(content=" a\n"), part(content="\n ")],
                    DIM.Message("assistant", " a\n\n ")),
    "byte order marks": ([part(content="\ufeffa"), part(content="\ufeff\ud83d")],
                         DIM.Message("assistant", "\ufeffa\ufeff\ud83d")),
}))
@beside
def test_collect_joins_a_message(payloads: List[Any], expected: Any) -> None:
    assert collected(*payloads) == whole(DIM.Choice(0, expected))


def chosen(**fields: Any) -> Dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


@pytest.mark.parametrize("payloads, expected", named({
    "nothing": ([], whole()),
    "head": ([{"id": "x", "created": 5, "model": "m", "service_tier": "flex", "choices": []}],
             whole(id="x", created=5, model="m", service_tier="flex")),
    "head later null": ([{"id": "x", "model": "m"}, {"id": None, "model": None, "created": None}],
                        whole(id="x", model="m")),
    "choices apart": ([part(1, content="b"), part(0, content="a"), part(1, content="B"),
                       part(0, content="A")],
                      whole(DIM.Choice(0, DIM.Message("assistant", "aA")),
                            DIM.Choice(1, DIM.Message("assistant", "bB")))),
    "choices in one chunk": (
        [{"choices": [{"index": 1, "delta": {"content": "b"}},
                      {"index": 0, "delta": {"content": "a"}}]}],
        whole(DIM.Choice(0, DIM.Message("assistant", "a")),
              DIM.Choice(1, DIM.Message("assistant", "b")))),
    "choice without index": ([{"choices": [{"delta": {"content": "a"}}]}, part(content="b")],
                             whole(DIM.Choice(0, DIM.Message("assistant", "ab")))),
    "last finish reason": ([chosen(finish_reason="length"), chosen(finish_reason="stop"),
                            chosen(finish_reason=None)],
                           whole(DIM.Choice(0, DIM.Message("assistant"), "stop"))),
    "usage at the end": ([part(content="a"), {"choices": [], "usage": {"total_tokens": 3}}],
                         whole(DIM.Choice(0, DIM.Message("assistant", "a")),
                               usage=DIM.Usage(None, None, 3))),
    "usage on every chunk": ([{"usage": {"total_tokens": 1}}, {"usage": {"prompt_tokens": 2}},
                              {"usage": None}, {}], whole(usage=DIM.Usage(2))),
    "usage without choices": ([{"choices": None, "usage": {"total_tokens": 3}}],
                              whole(usage=DIM.Usage(None, None, 3))),
    "log-probabilities": (
        [chosen(logprobs={"content": [1], "refusal": None}), chosen(logprobs=None), chosen(),
         chosen(logprobs={"content": None, "refusal": [7]}), chosen(logprobs={"content": [2, 3]})],
        whole(DIM.Choice(0, DIM.Message("assistant"), None,
                         {"content": [1, 2, 3], "refusal": [7]}))),
}))
def test_collect_folds_the_rest(payloads: List[Any], expected: Any) -> None:
    assert collected(*payloads) == expected


def test_collect_equals_chat_for_one_answer() -> None:
    second = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "[2]"}}
    messages = [{**RICH_MESSAGE, "content": "Hi \U0001f600", "tool_calls": [RICH_CALL, second]},
                {"role": "assistant", "content": "Other"}]
    logprobs = {"content": [{"token": "Hi"}, {"token": "!"}], "refusal": None}
    reply = {**RICH_COMPLETION, "choices": [
        {"index": 0, "message": messages[0], "finish_reason": "tool_calls", "logprobs": logprobs},
        {"index": 1, "message": messages[1], "finish_reason": "stop"}]}
    head = {**RICH_HEAD, "object": "chat.completion.chunk", "usage": None}

    def chunk(index: int, fields: Any, **more: Any) -> Dict[str, Any]:
        choice = {"index": index, "delta": fields, "finish_reason": None, **more}
        return {**head, "choices": [choice]}

    pieces = [
        chunk(0, {"role": "assistant", "name": "n", "content": ""}),
        chunk(0, {"reasoning_content": "h"}), chunk(0, {"reasoning_content": "m"}),
        chunk(1, {"role": "assistant", "content": "Ot"}),
        chunk(0, {"content": "Hi \ud83d"},
              logprobs={"content": [{"token": "Hi"}], "refusal": None}),
        chunk(0, {"content": "\ude00"}, logprobs={"content": [{"token": "!"}], "refusal": None}),
        chunk(0, {"tool_calls": [{"index": 0, **RICH_CALL,
                                  "function": {"name": "f", "arguments": ""}}]}),
        chunk(0, {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]}),
        chunk(1, {"content": "her"}, finish_reason="stop"),
        chunk(0, {"tool_calls": [{"index": 1, **second}]}),
        chunk(0, {}, finish_reason="tool_calls"), {**head, "choices": [], "usage": RICH_USAGE}]
    with served(answer(reply), sse_answer(*pieces)) as (_, client):
        answered, streamed = client.chat("Hi"), collect(client.stream("Hi"))
    assert streamed == answered
    assert repr(streamed.usage) == repr(answered.usage)


def test_collect_raises_with_the_partial_answer() -> None:
    error = stream_error(sse_answer(
        {**delta("a"), "usage": RICH_USAGE}, delta("b\ud83d"), call("{", index=0, id="c", name="f"),
        done=False))
    assert type(error) is DIM.StreamInterruptedError
    message = DIM.Message("assistant", "ab\ud83d", tool_calls=(tool_call("c", "f", "{"),))
    assert error.partial == DIM.ChatCompletion(
        "x1", "chat.completion", 1, "m", (DIM.Choice(0, message),), DIM.Usage(**RICH_USAGE))


def test_collect_takes_any_iterable_and_leaves_the_chunks_as_they_are() -> None:
    with served(sse_answer(call("a", index=0, id="c"), call("b", index=0),
                           chosen(logprobs={"content": [1]}),
                           chosen(logprobs={"content": [2]}))) as (_, client):
        chunks = list(client.stream("Hi"))
    before = copy.deepcopy(chunks)
    assert collect(chunks) == collect(iter(chunks)) == collect(tuple(chunks))
    assert chunks == before
    assert [chunk.raw for chunk in chunks] == [chunk.raw for chunk in before]


@beside
def test_collect_takes_linear_time_for_200_000_chunks() -> None:
    few, many = 10_000, 200_000
    function = DIM.Function("f", "d")
    rich = DIM.Message(None, "a", "b", (DIM.ToolCall("c", function=function, index=0),))
    for message, logprobs, rate in ((DIM.Message(None, "a"), None, 1),
                                    (rich, {"content": [1]}, 20)):
        chunk = DIM.ChatCompletionChunk(choices=(DIM.ChunkChoice(0, message, None, logprobs),))
        start = time.process_time()
        collect(itertools.repeat(chunk, few // rate))
        middle = time.process_time()
        folded = collect(itertools.repeat(chunk, many // rate)).choices[0]
        assert time.process_time() - middle < 0.1 + 80 * (middle - start)
        assert folded.message.content == "a" * (many // rate)
    assert folded.message.tool_calls == (tool_call("c", "f", "d" * (many // rate)),)
    assert folded.message.reasoning_content == "b" * (many // rate)
    assert folded.logprobs == {"content": [1] * (many // rate)}


# ---- Any bytes -----------------------------------------------------------------------------------

FRAMINGS = ("chunked", "length", "none")


def framed(pieces: List[bytes], framing: str, type: str) -> List[Tuple[bytes, bool]]:
    """Return an answer in parts, the head first, each with whether it belongs to the body."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type}\r\n".encode()
    if framing == "chunked":
        chunks = [part for piece in pieces for part in (
            (b"%x\r\n" % len(piece), False), (piece, True), (b"\r\n", False))]
        head += b"Transfer-Encoding: chunked\r\n"
        return [(head + b"\r\n", False), *chunks, (b"0\r\n\r\n", False)]
    body = b"".join(pieces)
    head += b"Content-Length: %d\r\n" % len(body) if framing == "length" else b""
    return [(head + b"\r\n", False), (body, True)]


def every_cut(parts: List[Tuple[bytes, bool]], step: int = 1) -> Iterator[Tuple[bytes, Any, bool]]:
    """Yield beginnings of an answer, the body in each (None: no whole head), and if that ended."""
    wire = b"".join(part for part, _ in parts)
    full = b"".join(part for part, is_body in parts if is_body)
    for end in range(0, len(wire) + 1, step):
        body, start = b"", 0
        for part, is_body in parts:
            body += part[: max(0, end - start)] if is_body else b""
            start += len(part)
        is_chunked, has_length = len(parts) > 2, b"Content-Length" in parts[0][0]
        has_ended = end >= len(wire) - 4 if is_chunked else body == full or not has_length
        yield wire[:end], None if end < len(parts[0][0]) else body, has_ended


def check_cut_stream(client: Client, body: Optional[bytes], has_ended: bool, model: str) -> None:
    """Fail unless a cut stream gives what arrived, and an error unless it proved complete."""
    chunks, error = [], None
    try:
        for chunk in client.stream("Hello!"):
            chunks.append(chunk)
    except DIM.DeepInfraError as caught:
        error = caught
    if body is None:
        assert chunks == []
        assert isinstance(error, (DIM.APIConnectionError, DIM.APIResponseError))
        return
    count = body.count(b"\n\n")
    assert chunks == documented_chunks(model)[:count]
    is_complete = b"[DONE]\n\n" in body or (count >= 6 and has_ended)
    assert type(error) is (type(None) if is_complete else DIM.StreamInterruptedError)


def check_cut_answer(client: Client, body: Optional[bytes], has_ended: bool, text: bytes) -> None:
    """Fail unless an answer that was cut is an error, and a whole one the answer."""
    try:
        assert client.chat("Hello!").raw == json.loads(text)
        assert body == text
        assert has_ended
    except DIM.APIConnectionError:
        assert not body or not has_ended
    except DIM.APIResponseError:  # nothing tells the end of such an answer but its JSON
        assert body is None or (has_ended and body != text)


def check_cuts(client: Client, put: Callable[[bytes], Any], name: str, framing: str,
               step: int) -> None:
    model = SEED_MODELS["Distill" in name]
    if "stream" in name:
        stream = documented_stream(model, "done" in name)
        pieces = [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]
        for wire, body, has_ended in every_cut(framed(pieces, framing, SSE_TYPE), step):
            put(wire)
            check_cut_stream(client, body, has_ended, model)
        return
    text = documented(SEED_HELLO_ANSWER if "hello" in name else SEED_LAMB_ANSWER, model).encode()
    for wire, body, has_ended in every_cut(framed(blocks_of(text, 100), framing, JSON_TYPE), step):
        put(wire)
        check_cut_answer(client, body, has_ended, text)


EXCHANGES = ("stream", "stream done", "hello", "lamb",
             "Distill stream", "Distill stream done", "Distill hello", "Distill lamb")


@pytest.mark.parametrize("name, framing", [
    ("stream", "chunked"), ("Distill stream done", "none"), ("hello", "length"), ("lamb", "none"),
    ("Distill hello", "chunked"), ("Distill lamb", "length")])
@beside
def test_documented_exchange_cut_at_every_byte(name: str, framing: str) -> None:
    canned = Canned()
    check_cuts(canned.client(), lambda wire: setattr(canned, "wire", wire), name, framing, 1)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", EXCHANGES)
@beside
def test_documented_exchange_cut_on_the_wire(name: str, framing: str) -> None:
    with served(b"") as (server, client):
        check_cuts(client, lambda wire: server.answers.__setitem__(0, then_close(wire)), name,
                   framing, 131)


def head_and(body: bytes = b"", *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"", body])


OK = json.dumps(completion()).encode()
ANY_BYTES: Dict[str, Tuple[bytes, str]] = {
    "nothing": (b"", "APIConnectionError"),
    "line end": (b"\r\n", "DeepInfraError"),
    "zeros": (b"\x00" * 1000, "DeepInfraError"),
    "random bytes": (bytes(random.Random(1).getrandbits(8) for _ in range(5000)), "DeepInfraError"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "APIResponseError"),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x16", "APIResponseError"),
    "HTTP/0.9": (b"<html>Hello</html>", "APIResponseError"),
    "JSON alone": (OK, "APIResponseError"),
    "status word": (b"HTTP/1.1 OK 200\r\n\r\n", "APIResponseError"),
    "status missing": (b"HTTP/1.1\r\n\r\n", "APIResponseError"),
    "status of 4 digits": (b"HTTP/1.1 2000 OK\r\n\r\n", "APIResponseError"),
    "status negative": (b"HTTP/1.1 -20 OK\r\n\r\n", "APIResponseError"),
    "status 0": (b"HTTP/1.1 000 OK\r\n\r\n", "DeepInfraError"),
    "status 999": (b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n", "DeepInfraError"),
    "version": (b"HTTP/9.9 200 OK\r\n\r\n", "APIResponseError"),
    "status line without end": (b"HTTP/1.1 200 " + b"x" * 99999, "APIResponseError"),
    "header without end": (head_and(b"", b"X: " + b"x" * 99999), "APIResponseError"),
    "headers without end": (head_and(b"", *[b"X: x"] * 999), "APIResponseError"),
    "header without colon": (head_and(b"", b"X", b"Content-Length: 1") + b"{", "DeepInfraError"),
    "header of zeros": (head_and(b"{", b"X\x00: \x00\xff"), "DeepInfraError"),
    "length a word": (head_and(b"{", b"Content-Length: x"), "DeepInfraError"),
    "length negative": (head_and(b"{", b"Content-Length: -9"), "DeepInfraError"),
    "length too long": (head_and(OK, b"Content-Length: 99999"), "APIConnectionError"),
    "length beyond machines": (head_and(OK, b"Content-Length: " + b"9" * 40), "APIConnectionError"),
    "length of too many digits": (head_and(b"{", b"Content-Length: " + b"9" * 5000),
                                  "DeepInfraError"),
    "lengths that differ": (head_and(OK, b"Content-Length: 5", b"Content-Length: 9"),
                            "DeepInfraError"),
    "chunk size a word": (head_and(b"zz\r\n", b"Transfer-Encoding: chunked"), "APIConnectionError"),
    "chunk size empty": (head_and(b"\r\n{}", b"Transfer-Encoding: chunked"), "APIConnectionError"),
    "chunk size negative": (head_and(b"-5\r\n{}\r\n", b"Transfer-Encoding: chunked"),
                            "DeepInfraError"),
    "chunk size huge": (head_and(b"f" * 30 + b"\r\n{}", b"Transfer-Encoding: chunked"),
                        "APIConnectionError"),
    "chunk size without end": (head_and(b"1" * 99999, b"Transfer-Encoding: chunked"),
                               "DeepInfraError"),
    "chunk without its line end": (head_and(b"2\r\n{}zzzz", b"Transfer-Encoding: chunked"),
                                   "APIConnectionError"),
    "trailer without end": (head_and(b"2\r\n{\r\n0\r\n" + b"x" * 99999,
                                     b"Transfer-Encoding: chunked"),
                            "DeepInfraError"),
    "100 and no more": (b"HTTP/1.1 100 Continue\r\n\r\n", "DeepInfraError"),
    "101": (b"HTTP/1.1 101 Switching\r\n\r\n", "APIError"),
    "204": (b"HTTP/1.1 204 Nothing\r\n\r\n", "APIResponseError"),
    "302 to nowhere": (b"HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n", "APIError"),
    "302 to a file": (b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\n\r\n", "APIError"),
    "401 of a strange kind": (b"HTTP/1.1 401 No\r\nWWW-Authenticate: \x00\xff=\r\n\r\n",
                              "AuthenticationError"),
    "407": (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "DeepInfraError"),
    "500 cut short": (b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nOh", "ServerError"),
    "429 with a bad chunk": (b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\nzz",
                             "RateLimitError"),
    "compressed": (head_and(b"\x1f\x8b\x08\x00\x00", b"Content-Encoding: gzip"),
                   "APIResponseError"),
    "number of 9,999 digits": (head_and(b'{"created": [' + b"9" * 9999 + b"]}x"),
                               "APIResponseError"),
    "strings without end": (head_and(b'{"a": "\\ud83d'), "APIResponseError"),
    "two answers": (head_and(OK + OK), "APIResponseError"),
}


@pytest.mark.parametrize("wire, name", named(ANY_BYTES))
@beside
def test_any_bytes_give_one_of_our_errors(wire: bytes, name: str) -> None:
    with served(then_close(wire), timeout=5) as (_, client):
        with pytest.raises(getattr(DIM, name)):
            client.chat("Hi")
        with pytest.raises(DIM.DeepInfraError):
            list(client.stream("Hi"))
        with contextlib.suppress(DIM.DeepInfraError):
            client.request("GET", "/x")


@pytest.mark.parametrize("wire", [
    head_and(OK), head_and(b"\xef\xbb\xbf" + OK), head_and(OK, b"X: \xff\xfe\x00"),
    b"HTTP/1.0 200\r\n\r\n" + OK, b"HTTP/1.1 200 OK\n\n" + OK, b"HTTP/1.1 299 \xff\r\n\r\n" + OK,
    b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + head_and(OK),
    head_and(OK + b"zz", b"Content-Length: %d" % len(OK)),
    head_and(b"%x;x=y\r\n%s\r\n0\r\nX: y\r\n\r\nzz" % (len(OK), OK),
             b"Transfer-Encoding: chunked")],
    ids=["plain", "BOM", "strange header", "HTTP/1.0", "LF", "status 299", "100 first",
         "more than its length",
         "chunk extension and trailer"])
def test_odd_bytes_that_hold_an_answer_give_it(wire: bytes) -> None:
    with served(then_close(wire)) as (_, client):
        assert client.chat("Hi").text == client.chat("Hi").text == "Hi"


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Ty",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"])
def test_answer_cut_within_its_head_is_no_answer(head: bytes) -> None:
    with served(then_close(head)) as (_, client):
        for ask in (lambda: client.request("GET", "/x"), lambda: client.chat("Hi"), client.models,
                    lambda: list(client.stream("Hi"))):
            with pytest.raises((DIM.APIConnectionError, DIM.APIResponseError)):
                ask()


@beside
def test_mutated_answers_give_a_result_or_one_of_our_errors() -> None:
    chance = random.Random(1)
    texts = [documented_stream(SEED_MODELS[0], True), SEED_HELLO_ANSWER.encode(),
             b'{"error": {"code": 429}}',
             sse(call("{", index=0, id="c", name="f"), finishes("stop", None)),
             json.dumps(RICH_COMPLETION).encode()]
    wires = [answer(text, status, type=type, chunks=chunks)
             for text in texts for status in (200, 400)
             for type in (JSON_TYPE, SSE_TYPE) for chunks in (None, 99)]
    canned = Canned()
    client = canned.client()
    for n in range(320):
        wire = bytearray(wires[n % len(wires)])
        for _ in range(chance.choice([1, 1, 2, 5, 20])):
            at = chance.randrange(len(wire))
            other = bytes(chance.choices(b'\r\n:"[]{},0-9\xff\x00 nu', k=chance.randrange(4)))
            wire[at : at + chance.randrange(4)] = other
        canned.wire = bytes(wire)
        for ask in (client.chat, client.stream):
            with contextlib.suppress(DIM.DeepInfraError):
                for _ in ask("Hi") if ask == client.stream else [ask("Hi")]:
                    pass


@pytest.mark.parametrize("opening, end", [("[", "]"), ('{"a":', "}"), ('{"error":[', "]}")],
                         ids=repr)
@beside
def test_json_of_any_depth_gives_a_result_or_one_of_our_errors(opening: str, end: str) -> None:
    canned = Canned()
    client = canned.client()
    for depth in (480, 900, 50_000):
        deep = opening * depth + "1" + end * depth
        for text in (f'{{"error": {deep}}}', f'{{"error": {{"message": {deep}, "code": {deep}}}}}',
                     f'{{"choices": [{{"logprobs": {{"a": {deep}}}}}], "x": {deep}}}'):
            for wire in (answer(text.encode()), answer(text.encode(), 400), sse_answer(text)):
                canned.wire = wire
                try:
                    collect(client.stream("Hi")) if b"event-stream" in wire else client.chat("Hi")
                except DIM.DeepInfraError as error:
                    assert len(str(error)) < 3000


@beside
def test_stream_of_comments_alone_is_not_kept_in_memory() -> None:
    wire = event_stream((b": " + b"x" * 60_000 + b"\n\n") * 100)
    with served(lambda sock, request: sock.sendall(wire)) as (_, client):
        tracemalloc.start()
        try:
            with pytest.raises(DIM.StreamInterruptedError):
                list(client.stream("Hi"))
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()


@beside
def test_body_over_64_mib_is_refused_before_it_is_in_memory() -> None:
    sent, block = [0], b"x" * (1 << 20)

    def flood(sock: socket.socket, request: Request) -> bool:
        sock.sendall(head_and(b'{"a": "', b"Content-Type: application/json"))
        with contextlib.suppress(OSError):
            for _ in range(200):
                sock.sendall(block)
                sent[0] += len(block)
        return False

    error = chat_error(flood, timeout=5)
    assert type(error) is DIM.APIResponseError
    assert "64 MiB" in str(error)
    assert 64 << 20 <= sent[0] < 80 << 20


# ---- Connections, time, retries, safety ----------------------------------------------------------

# A CA; one with the same key that only a strict check refuses (its basic constraints are not
# critical); a certificate of the first for 127.0.0.1, localhost and api.example.test; its key.
# They are for these tests alone and hold from 2020 to 2120.
DER = {
    "CA": """
MIIBVjCB/aADAgECAgEBMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAx
MDEwMDAwMDBaMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASYdtXVFtDjhIwJiz+vhUEq
SIjTMburl1B2CmjeotXOrVdyWHP+N9LjuDbKahsutQgQFcBB/FigISv+GOQz0Rqmo0IwQDAPBgNVHRMBAf8EBTADAQH/MA4G
A1UdDwEB/wQEAwICBDAdBgNVHQ4EFgQUTKOv8l3EfywbSSNNH7FxHeQJnjYwCgYIKoZIzj0EAwIDSAAwRQIhAOW6Tsf9y0CR
nxkcl607ZZxUsR/EiWPG/hdTc1Pdqcf6AiBQHbSCY4iFcmdGSzPrJnKlgshRXj/k8lW54MqDpxJ4hg==""",
    "LAX_CA": """
MIIBTzCB96ADAgECAgECMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAx
MDEwMDAwMDBaMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASYdtXVFtDjhIwJiz+vhUEq
SIjTMburl1B2CmjeotXOrVdyWHP+N9LjuDbKahsutQgQFcBB/FigISv+GOQz0RqmozwwOjAMBgNVHRMEBTADAQH/MAsGA1Ud
DwQEAwICBDAdBgNVHQ4EFgQUTKOv8l3EfywbSSNNH7FxHeQJnjYwCgYIKoZIzj0EAwIDRwAwRAIgXlVra/vThZnuqqK3xBJ0
KFLg+0XYdIi0sWv6hQ+c5U4CIDD0u+V3rTnIIKnGVfJvEfKHTdMM2sLTEfLlTaX2Oau2""",
    "LEAF": """
MIIBgjCCASigAwIBAgIBAzAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdUZXN0IENBMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAw
MTAxMDAwMDAwWjAPMQ0wCwYDVQQDDARsZWFmMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjCGsOXZLDZyioDMNVwjQFspp
nTAVbbdGX1CnWPYqw1Kgh8qjt0948HnV+zCuGmlU7SxEdWKkoQmm9Yl+yIZ7b6NwMG4wLAYDVR0RBCUwI4cEfwAAAYIJbG9j
YWxob3N0ghBhcGkuZXhhbXBsZS50ZXN0MB8GA1UdIwQYMBaAFEyjr/JdxH8sG0kjTR+xcR3kCZ42MB0GA1UdDgQWBBRaksfP
F6XiqEeBEVgz6VBGr/2CJzAKBggqhkjOPQQDAgNIADBFAiAzIWg/aacnmPsHf7mo3Qs0NV57JfDPcMPvxrSFjk3dFgIhAP5m
FEfQmI1pCOlocPuxVnIEhgUVldrOjeDzOR/Z5ILN""",
    "LEAF_KEY": """
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZ2Qyz9zApc7MgPw4BZW3o9cfm7FRQWKmYy7LCMFWnvKhRANC
AASMIaw5dksNnKKgMw1XCNAWymmdMBVtt0ZfUKdY9irDUqCHyqO3T3jwedX7MK4aaVTtLER1YqShCab1iX7Ihntv""",
}

EXAMPLE = "https://api.example.test/v1/openai"


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ca.pem, lax_ca.pem and leaf.pem, which holds the key, too."""
    folder = tmp_path_factory.mktemp("pems")
    texts = {}
    for name, der in DER.items():
        kind = "PRIVATE KEY" if name.endswith("KEY") else "CERTIFICATE"
        lines = textwrap.wrap(der.replace("\n", ""), 64)
        texts[name] = "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])
    (folder / "ca.pem").write_text(texts["CA"])
    (folder / "lax_ca.pem").write_text(texts["LAX_CA"])
    (folder / "leaf.pem").write_text(texts["LEAF"] + texts["LEAF_KEY"])
    return folder


@pytest.fixture()
def tls(pems: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return a server's context; make clients trust it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pems / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pems / "leaf.pem"))
    return context


@pytest.fixture(params=["http", "https"])
def serve(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> Callable[..., Server]:
    """Return Server for plain connections, then for TLS."""
    return functools.partial(Server, context=tls if request.param == "https" else None)


@pytest.fixture()
def waits(monkeypatch: pytest.MonkeyPatch) -> List[float]:
    """Let no time pass between attempts, but note how long it should be."""
    noted: List[float] = []
    sleep, here = time.sleep, threading.current_thread()
    monkeypatch.setattr(time, "sleep", lambda seconds: (
        noted.append if threading.current_thread() is here else sleep)(seconds))
    return noted


@pytest.fixture()
def names_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve the names below example.test to 127.0.0.1."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **options: resolve(
        "127.0.0.1" if str(host).endswith(".example.test") else host, *args, **options))


def cut(data: bytes) -> Answer:
    """Return an answer that is cut after these bytes."""
    return lambda sock, request: sock.sendall(data)


def reset(data: bytes = b"") -> Answer:
    """Return an answer that ends in a RST after these bytes."""
    def send(sock: socket.socket, request: Request) -> None:
        if data:
            sock.sendall(data)
            threading.Event().wait(0.02)  # for the client to read them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    return send


def drip(head: bytes, again: bytes, size: int = 1) -> Answer:
    """Return an answer that goes on for ever, so many bytes each 0.02 s."""
    def send(sock: socket.socket, request: Request) -> None:
        sock.sendall(head)
        for start in itertools.cycle(range(0, len(again), size)):
            time.sleep(0.02)
            sock.sendall(again[start : start + size])
    return send


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(*pieces: bytes, type: str = JSON_TYPE) -> bytes:
    """Return an answer in chunks, without its end."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(map(chunk, pieces))


def connections_of(server: Server) -> List[int]:
    """Return on which connection each request came."""
    return [request.connection for request in server.requests]


def text_of(request: Request) -> str:
    return str(request.json["messages"][-1]["content"])


@contextlib.contextmanager
def deaf_port(is_full: bool = False) -> Iterator[int]:
    """Give a port where nothing answers; a full one takes no connection either."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if is_full else 16)
        while is_full:
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.02)
            try:
                sock.connect(listener.getsockname())
            except OSError:
                break
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Give a port that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def closes(server: Server) -> bool:
    """Return whether a client closes its connection soon, with time.sleep patched, too."""
    pause = threading.Event()
    return any(server.closed or pause.wait(0.005) for _ in range(200))


def run_python(code: str, *args: str) -> str:
    """Return what a program that imports deepinfra_min prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args], timeout=20, check=False,
        cwd=os.path.dirname(os.path.abspath(deepinfra_min.__file__)), capture_output=True)
    assert (done.stderr.decode(), done.returncode) == ("", 0)
    return done.stdout.decode()


def check_all(check: Callable[..., Any], cases: Dict[str, Any]) -> None:
    """Check all cases of a table at once, since each mostly waits, and name those that fail."""
    def run(case: Any) -> str:
        try:
            check(*case)
        except BaseException:  # pytest's own are no Exceptions
            return traceback.format_exc()
        return ""

    with ThreadPoolExecutor(len(cases)) as pool:
        results = dict(zip(cases, pool.map(run, cases.values())))
    assert "\n".join(f"{name}: {text}" for name, text in results.items() if text) == ""


def shown(error: Optional[BaseException]) -> str:
    """Return all that an error shows: its traceback, and it and its causes with all attributes."""
    assert error is not None
    texts = traceback.format_exception(type(error), error, error.__traceback__)
    seen: List[BaseException] = []
    todo: List[Optional[BaseException]] = [error]
    while todo:
        item = todo.pop()
        if item is not None and item not in seen:
            seen.append(item)
            todo += [item.__cause__, item.__context__]
            values = [getattr(item, name, None) for name in dir(item) if not name.startswith("__")]
            texts += [repr(item), str(item), repr(item.args), *map(str, item.args)]
            texts += [f"{value!r} {value}" for value in values if not callable(value)]
    return "\n".join(texts)


# Connections


def test_connection_is_kept_after_every_whole_answer(serve: Callable[..., Server]) -> None:
    not_found = answer({"error": {"message": "no"}}, 404)
    stream, empty = sse(delta("Hi", "stop")), b"HTTP/1.1 204 No Content\r\n\r\n"
    with serve(answer(completion()), answer(completion(), chunks=7), not_found, sse_answer(),
               answer(stream, type=SSE_TYPE), answer(stream, type=SSE_TYPE, chunks=7), empty,
               answer({"data": []}), answer({"embedding": []})) as server:
        with server.client() as client:
            assert [client.chat("1").text, client.chat("2").text] == ["Hi", "Hi"]
            with pytest.raises(deepinfra_min.APIError):
                client.chat("3")
            assert list(client.stream("4")) == []
            assert collect(client.stream("5")).text == collect(client.stream("6")).text == "Hi"
            assert client.request("DELETE", "/7") is None
            assert client.models() == []
            assert client.request("POST", "/embeddings", {"input": "9"}) == {"embedding": []}
            assert server.closed == 0
        assert (connections_of(server), server.connections) == ([0] * 9, 1)
        assert server.wait_closed()


@pytest.mark.parametrize("first", [
    pytest.param(answer(completion(), headers=("Connection: close",)), id="connection: close"),
    pytest.param(cut(b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(completion()).encode()),
                 id="until closed"),
    pytest.param(cut(answer(completion()).replace(b"HTTP/1.1", b"HTTP/1.0")), id="HTTP/1.0")])
def test_connection_is_not_kept_where_the_answer_says_so(first: Answer) -> None:
    with Server(first, answer(completion())) as server, server.client(max_retries=0) as client:
        assert [client.chat("1").text, client.chat("2").text] == ["Hi", "Hi"]
        assert connections_of(server) == [0, 1]


@pytest.mark.parametrize("read", [
    pytest.param(lambda response: response.read(), id="read()"),
    pytest.param(lambda response: b"".join(iter(lambda: response.read(5), b"")), id="read(5)"),
    pytest.param(lambda response: b"".join(iter(lambda: response.read1(5), b"")), id="read1(5)"),
    pytest.param(lambda response: b"".join(response), id="lines")])
@pytest.mark.parametrize("reply", [
    pytest.param(answer(b"one\ntwo\n"), id="length"),
    pytest.param(answer(b"one\ntwo\n", chunks=3), id="chunked")])
def test_handler_keeps_the_connection_of_a_response_read_to_its_end(
        serve: Callable[..., Server], pems: Path, read: Callable[[Any], bytes],
        reply: bytes) -> None:
    context = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    handler = deepinfra_min.KeepAliveHandler(context)
    opener = urllib.request.build_opener(handler)
    with serve(reply) as server:
        for _ in range(2):
            with opener.open(server.url, timeout=5) as response:
                assert (response.status, response.geturl()) == (200, server.url)
                assert response.headers["Content-Type"] == JSON_TYPE
                assert read(response) == b"one\ntwo\n"
        assert read(opener.open(server.url, b"not closed", timeout=5)) == b"one\ntwo\n"
        assert read(opener.open(server.url, timeout=5)) == b"one\ntwo\n"
        assert connections_of(server) == [0, 0, 0, 0]
        handler.close()
        assert server.wait_closed()


def test_handler_closes_the_connection_of_a_response_left_early(serve: Callable[..., Server],
                                                                pems: Path) -> None:
    context = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    opener = urllib.request.build_opener(deepinfra_min.KeepAliveHandler(context=context))
    with serve(answer(b"one\ntwo\n")) as server:
        with opener.open(server.url, timeout=5) as response:
            assert response.read(4) == b"one\n"
        assert server.wait_closed()


def test_handler_works_with_the_other_handlers_of_urllib() -> None:
    login = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    opener = urllib.request.build_opener(
        deepinfra_min.KeepAliveHandler(), urllib.request.HTTPCookieProcessor(),
        urllib.request.HTTPBasicAuthHandler(login))
    moved = answer(b"", 302, headers=("Location: /there",))
    asked = answer(b"", 401, headers=('WWW-Authenticate: Basic realm="here"', "Set-Cookie: a=b"))
    with Server(moved, asked, answer(b"one"), answer(b"two", 404)) as server:
        login.add_password(None, server.origin, "me", "hunter2")
        with opener.open(server.origin + "/here", timeout=5) as response:
            assert (response.read(), response.geturl()) == (b"one", server.origin + "/there")
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(server.origin, timeout=5)
        with caught.value:
            assert (caught.value.code, caught.value.read()) == (404, b"two")
        assert [request.path for request in server.requests] == ["/here", "/there", "/there", "/"]
        assert server.requests[2].headers["authorization"] == "Basic bWU6aHVudGVyMg=="
        assert server.requests[3].headers["cookie"] == "a=b"
    with dead_port() as port, pytest.raises(OSError):
        opener.open(f"http://127.0.0.1:{port}", timeout=5)


@pytest.mark.parametrize("handlers, connections", [
    pytest.param([], [0, 1, 2], id="urllib's own"),
    pytest.param([deepinfra_min.KeepAliveHandler], [0, 0, 0], id="KeepAliveHandler")])
def test_client_takes_an_opener(handlers: List[Any], connections: List[int]) -> None:
    opener: Any = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), *handlers)
    busy = answer({"error": "busy"}, 429, headers=("Set-Cookie: a=b", "Retry-After-Ms: 1"))
    with Server(busy, answer(completion()), sse_answer(delta("Hi", "stop"))) as server:
        with server.client(opener=opener) as client:
            assert client.chat("1").text == collect(client.stream("2")).text == "Hi"
            assert connections_of(server) == connections
            assert [request.headers.get("cookie") for request in server.requests] == [
                None, "a=b", "a=b"]
        assert not handlers or server.closed == 0  # the opener is its owner's to close
        for handler in opener.handlers:
            handler.close()
        assert server.wait_closed(connections[-1] + 1)


def test_client_certificate_is_shown(tls: ssl.SSLContext, pems: Path) -> None:
    tls.load_verify_locations(str(pems / "ca.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED
    context = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    with Server(answer(completion()), context=tls) as server:
        with pytest.raises(deepinfra_min.APIConnectionError):
            server.client(ssl_context=context, max_retries=0).chat("Hi")
        context.load_cert_chain(str(pems / "leaf.pem"))
        with server.client(ssl_context=context) as client:
            assert client.chat("Hi").text == "Hi"


def test_default_context_is_made_once_and_only_when_needed(tls: ssl.SSLContext, pems: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], ssl.create_default_context
    ours = make(cafile=str(pems / "ca.pem"))

    def count(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(1)
        time.sleep(0.05)  # for the other threads to come as well
        return make(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", count)
    together = threading.Barrier(4)

    def meet(sock: socket.socket, request: Request) -> bool:
        together.wait(5)
        sock.sendall(answer(completion()))
        return True

    with Server(answer(completion())) as plain, Server(meet, context=tls) as server:
        with plain.client() as client:
            client.chat("Hi")
        with server.client() as client:
            assert made == []
            with ThreadPoolExecutor(4) as pool:
                assert [reply.text for reply in pool.map(client.chat, "abcd")] == ["Hi"] * 4
            assert (len(made), server.connections) == (1, 4)
        with server.client(ssl_context=ours) as client, ThreadPoolExecutor(4) as pool:
            list(pool.map(client.chat, "abcd"))
        assert len(made) == 1


ENDS: Dict[str, Tuple[float, List[bytes], bool]] = {  # what follows [DONE]
    "terminator there": (0.0, [chunk(sse(delta("Hi"))) + b"0\r\n\r\n"], True),
    "terminator later": (0.1, [chunk(sse(delta("Hi"))), b"0\r\n\r\n"], True),
    "terminator in two": (0.05, [chunk(sse(delta("Hi"))) + b"0\r\n", b"\r\n"], True),
    "no terminator": (0.0, [chunk(sse(delta("Hi")))], False),
    "more and more": (0.05, [chunk(sse(delta("Hi"))), *[chunk(b": more\n\n")] * 100], False),
    "no chunk size": (0.0, [chunk(sse(delta("Hi"))) + b"x\r\n\r\n"], False)}


def test_stream_gives_its_connection_back_at_done(serve: Callable[..., Server]) -> None:
    def check(pause: float, parts: List[bytes], is_kept: bool) -> None:
        def send(sock: socket.socket, request: Request) -> bool:
            sock.sendall(chunked(type=SSE_TYPE) + parts[0])
            for part in parts[1:]:
                time.sleep(pause)
                sock.sendall(part)
            return True

        with serve(send, answer(completion())) as server, server.client(max_retries=0) as client:
            started = time.monotonic()
            assert "".join(part.text for part in client.stream("1")) == "Hi"
            assert time.monotonic() - started < 2
            assert is_kept or server.wait_closed()
            assert client.chat("2").text == "Hi"
            assert connections_of(server) == [0, 0 if is_kept else 1]

    check_all(check, ENDS)


@pytest.mark.parametrize("leave", [
    pytest.param(lambda stream: stream.close(), id="close before the first chunk"),
    pytest.param(lambda stream: next(stream) and stream.close(), id="close"),
    pytest.param(lambda stream: next(stream) and None, id="drop"),
    pytest.param(lambda stream: [part.text for part in stream if 1 / 0], id="raise")])
@pytest.mark.parametrize("is_busy", [False, True], ids=["silent server", "busy server"])
def test_stream_left_early_closes_at_once(serve: Callable[..., Server], is_busy: bool,
                                          leave: Callable[[Any], Any]) -> None:
    def send(sock: socket.socket, request: Request) -> bool:
        event = f"data: {json.dumps(delta('Hi'))}\n\n".encode()
        sock.sendall(chunked(event, type=SSE_TYPE))
        while is_busy:
            sock.sendall(chunk(event))
        return True

    with serve(send) as server, server.client() as client:
        with contextlib.suppress(ZeroDivisionError):
            leave(client.stream("Hi"))
        assert server.wait_closed()


@pytest.mark.parametrize("farewell", [b"", answer({"error": "idle for too long"}, 408)],
                         ids=["close", "408 and close"])
def test_idle_connection_that_the_server_closed_is_not_used(serve: Callable[..., Server],
                                                            farewell: bytes) -> None:
    half_closed = threading.Event()

    def send(sock: socket.socket, request: Request) -> bool:
        sock.sendall(answer(completion("one")))
        if farewell:
            time.sleep(0.05)
            sock.sendall(farewell)
        socket.socket.shutdown(sock, socket.SHUT_WR)  # still reads what the client may send
        half_closed.set()
        return True

    with serve(send, answer(completion("two"))) as server, server.client(max_retries=0) as client:
        assert client.chat("1").text == "one"
        assert half_closed.wait(1)
        assert client.chat("2").text == "two"
        assert connections_of(server) == [0, 1]
        assert server.wait_closed(1)


@pytest.mark.parametrize("die", [cut(b""), reset()], ids=["closed", "reset"])
def test_request_goes_out_again_when_its_kept_connection_dies(
        serve: Callable[..., Server], die: Answer, waits: List[float],
        caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serve(answer(completion("one")), die, answer(completion("two")), die, die) as server:
        with server.client(max_retries=0) as client:
            assert [client.chat("1").text, client.chat("2").text] == ["one", "two"]
            assert connections_of(server) == [0, 0, 1]
            with pytest.raises(deepinfra_min.APIConnectionError):
                client.chat("3")  # once more, and no more
            assert connections_of(server) == [0, 0, 1, 1, 2]
    first, again = server.requests[1:3]
    assert first[:4] == again[:4]
    assert (waits, caplog.records) == ([], [])


@pytest.mark.parametrize("die", [cut(b"H"), reset(b"HTTP/1.1 200 OK\r\n")], ids=["closed", "reset"])
def test_request_does_not_go_out_again_once_an_answer_began(serve: Callable[..., Server],
                                                            die: Answer) -> None:
    with serve(answer(completion()), die) as server, server.client() as client:
        client.chat("1")
        with pytest.raises(deepinfra_min.DeepInfraError):
            client.chat("2")
        assert connections_of(server) == [0, 0]


def test_request_that_met_silence_does_not_go_out_again() -> None:
    with Server(answer(completion()), b"") as server, server.client(timeout=0.2) as client:
        client.chat("1")
        with pytest.raises(deepinfra_min.APITimeoutError):
            client.chat("2")
        assert connections_of(server) == [0, 0]


def sockets_to(port: int) -> List[socket.socket]:
    found = []
    for item in gc.get_objects():
        if type(item) in (socket.socket, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                if item.getpeername()[1] == port:
                    found.append(item)
    return found


def test_sockets_probe_a_silent_peer_and_send_without_delay(serve: Callable[..., Server]) -> None:
    with serve(chunked(sse(delta("Hi"), done=False), type=SSE_TYPE)) as server:
        with server.client() as client, contextlib.closing(client.stream("Hi")):
            sock, = sockets_to(server.port)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0x10))
            assert 30 <= sock.getsockopt(socket.IPPROTO_TCP, idle) <= 90


@beside
def test_client_serves_200_threads_at_once() -> None:
    together = threading.Barrier(200)

    def meet(sock: socket.socket, request: Request) -> bool:
        together.wait(10)
        sock.sendall(answer(completion(text_of(request))))
        return True

    server = Server(meet)
    server._listener.listen(256)
    names = [str(number) for number in range(200)]
    with server, server.client(max_retries=0) as client, ThreadPoolExecutor(200) as pool:
        assert [reply.text for reply in pool.map(client.chat, names)] == names
        assert (len(server.requests), server.connections) == (200, 200)


FORK = """
import os, sys
from deepinfra_min import Client, collect
for url in sys.argv[1:]:
    client = Client(base_url=url)
    stream = client.stream("parent streams")
    first = next(stream)
    print(client.chat("parent").text, flush=True)
    pid = os.fork()
    if not pid:
        print(client.chat("child").text, client.chat("child").text)
        client.close()
        sys.exit()
    assert os.waitpid(pid, 0) == (pid, 0)
    print(client.chat("parent").text, first.text + collect(stream).text, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_child_of_a_fork_uses_none_of_the_sockets_of_its_parent(tls: ssl.SSLContext) -> None:
    def send(sock: socket.socket, request: Request) -> bool:
        if "streams" in text_of(request):
            sock.sendall(chunked(sse(delta("so"), done=False), type=SSE_TYPE))
            child_came.wait(5)
            sock.sendall(chunk(sse(delta(" far"))) + b"0\r\n\r\n")
        else:
            sock.sendall(answer(completion(f"{text_of(request)} on {request.connection}")))
        if request.connection == 2:
            child_came.set()
        return True

    for context in (None, tls):
        child_came = threading.Event()
        with Server(send, context=context) as server:
            assert run_python(FORK, server.url).splitlines() == [
                "parent on 1", "child on 2 child on 2", "parent on 1 so far"]


def test_client_pickles_with_its_settings_but_without_its_connections(tls: ssl.SSLContext) -> None:
    with Server(answer(completion()), answer(completion()), b"", context=tls) as server:
        with server.client(headers={"X-Team": "blue"}, timeout=0.2, max_retries=0) as client:
            client.chat("Hi")
            with pickle.loads(pickle.dumps(client)) as copy:
                copy.chat("Hi")
                with pytest.raises(deepinfra_min.APITimeoutError, match=r"0\.2 s"):
                    copy.chat("Hi")
            assert repr(copy) == repr(client)
    first, second, third = server.requests
    assert connections_of(server) == [0, 1, 1]
    assert first[:4] == second[:4] == third[:4]
    assert first.headers["x-team"] == "blue"


def test_client_repr_shows_no_secret() -> None:
    client = Client("sk-secret1", headers={"X-Key": "secret2"}, base_url=EXAMPLE)
    assert "secret" not in repr(client) + str(client)
    assert EXAMPLE in repr(client)


# Time


def assert_times_out(call: Callable[[], object], option: str, seconds: float) -> str:
    """Check that a call ends in time with an error that says why, how long, and what to change."""
    started = time.monotonic()
    with pytest.raises(deepinfra_min.APITimeoutError) as caught:
        call()
    took, text = time.monotonic() - started, str(caught.value)
    assert seconds - 0.02 <= took < seconds + 2
    assert set(re.findall(r"\w+", text)) & {"timeout", "connect_timeout", "deadline"} == {option}
    assert re.search(rf"\b{re.escape(str(seconds))} s\b", text)
    assert isinstance(caught.value, TimeoutError)
    return text


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("option", ["connect_timeout", "deadline"])
def test_connecting_ends_in_time(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(client: Client, address: str) -> None:
        text = assert_times_out(lambda: client.chat("Hi"), option, 0.2)
        assert option == "deadline" or address in text
        assert "hunter2" not in text

    options: Dict[str, Any] = {"max_retries": 0, option: 0.2}
    with deaf_port() as deaf, deaf_port(is_full=True) as full, Server(
            drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as dripping:
        cases = {
            name: (Client("", base_url=f"{scheme}://{address}", **options), address)
            for name, scheme, address in (
                ("TCP", "http", f"127.0.0.1:{full}"), ("TLS", "https", f"127.0.0.1:{deaf}"))}
        for name, port in ("proxy", full), ("CONNECT", deaf), ("CONNECT, drip", dripping.port):
            monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{port}")
            client = Client(TOKEN, base_url=EXAMPLE, **options)
            cases[name] = (client, f"the proxy 127.0.0.1:{port}")
        check_all(check, cases)


def test_connecting_shares_its_time_among_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_port(is_full=True) as port, Server(answer(completion())) as server:
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 2
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: addresses[:])
        with server.client(connect_timeout=0.1, max_retries=0) as client:
            assert_times_out(lambda: client.chat("Hi"), "connect_timeout", 0.1)
            addresses[1] = (*addresses[1][:4], ("127.0.0.1", server.port))
            assert client.chat("Hi").text == "Hi"


SILENCES = {
    "before the answer": b"", "in the status line": b"HTTP/1.1 20",
    "in the headers": b"HTTP/1.1 200 OK\r\nContent-", "in the body": answer(completion())[:-5],
    "in a chunk": answer(completion(), chunks=50)[:-20],
    "at the end of the chunks": answer(completion(), chunks=50)[:-2],
    "in a stream": chunked(sse(delta("Hi"), done=False), type=SSE_TYPE),
    "in a line of a stream": chunked(sse(delta("Hi"))[:20], type=SSE_TYPE)}


def test_silence_ends_after_the_timeout_and_is_not_tried_again() -> None:
    def check(reply: bytes) -> None:
        with Server(reply) as server, server.client(timeout=0.3) as client:
            call: Any = client.stream if b"event" in reply else client.chat
            text = assert_times_out(lambda: list(call("Hi")), "timeout", 0.3)
            assert f"127.0.0.1:{server.port}" in text
            assert len(server.requests) == 1
            assert server.wait_closed()

    check_all(check, {name: (reply,) for name, reply in SILENCES.items()})


def test_timeout_is_all_that_an_opener_without_our_handler_keeps() -> None:
    with deaf_port() as deaf, deaf_port(is_full=True) as full:
        for port in (deaf, full):
            opener = urllib.request.build_opener()
            client = Client("", base_url=f"http://127.0.0.1:{port}", opener=opener, timeout=0.06,
                            connect_timeout=9, max_retries=0)
            assert_times_out(functools.partial(client.chat, "Hi"), "timeout", 0.06)


@beside
def test_timeout_is_for_silence_alone() -> None:
    with Server(drip(chunked(type=SSE_TYPE), chunk(sse(delta("Hi"), done=False)), 999)) as server:
        with server.client(timeout=0.2) as client:
            stream = client.stream("Hi")
            assert [next(stream).text for _ in range(12)] == ["Hi"] * 12
            stream.close()


@beside
def test_timeout_is_for_silence_alone_where_a_server_reads_slowly() -> None:
    def read(count: int) -> None:
        with listener.accept()[0] as sock, contextlib.suppress(OSError):
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while count > 0:
                count -= len(sock.recv(65536))
                time.sleep(0.003)
                sock.sendall(b" ")
            sock.sendall(b'"read"')

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        threading.Thread(target=read, args=(8_000_000,), daemon=True).start()
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client("", base_url=base_url, timeout=0.2, max_retries=0)
        assert client.request("POST", "/x", "x" * 8_000_000) == "read"


DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"x"), "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b" "),
    "body until closed": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "body of an error": (b"HTTP/1.1 404 No\r\nContent-Length: 999999\r\n\r\n", b" "),
    "chunk size": (chunked(), b"0"), "chunks": (chunked(), b"1\r\n \r\n"),
    "chunk": (chunked() + b"ffffff\r\n", b" "),
    "trailers": (chunked(json.dumps(completion()).encode()) + b"0\r\n", b"X: y\r\n"),
    "line of a stream": (chunked(type=SSE_TYPE) + b"ffffff\r\ndata: ", b" "),
    "comments of a stream": (chunked(type=SSE_TYPE) + b"ffffff\r\n", b":\n\n")}


def test_drip_ends_at_the_deadline() -> None:
    def check(head: bytes, again: bytes) -> None:
        with Server(drip(head, again)) as server, server.client(deadline=0.3, timeout=5) as client:
            call: Any = client.stream if b"event" in head else client.chat
            if b"404" in head:  # an error that is known, whatever its body
                started = time.monotonic()
                with pytest.raises(deepinfra_min.DeepInfraError):
                    call("Hi")
                assert time.monotonic() - started < 2
            else:
                assert_times_out(lambda: list(call("Hi")), "deadline", 0.3)
            assert len(server.requests) == 1
            assert server.wait_closed()

    check_all(check, DRIPS)


def test_stream_ends_at_the_deadline_whatever_it_yields(serve: Callable[..., Server]) -> None:
    event = chunk(sse(delta("Hi"), done=False))
    with serve(drip(chunked(type=SSE_TYPE), event, len(event))) as server:
        with server.client(deadline=0.3, timeout=5) as client:
            texts: List[str] = []
            assert_times_out(lambda: texts.extend(part.text for part in client.stream("Hi")),
                             "deadline", 0.3)
            assert 1 <= len(texts) <= 15
            assert server.wait_closed()


@pytest.mark.parametrize("option", ["timeout", "deadline"])
@beside
def test_sending_ends_in_time_where_nothing_is_read(option: str) -> None:
    with deaf_port() as port:
        options: Dict[str, Any] = {option: 0.1}
        client = Client("", base_url=f"http://127.0.0.1:{port}", **options)
        text = "x" * 8_000_000
        assert_times_out(lambda: client.request("POST", "/x", text), option, 0.1)


@beside
def test_deadline_holds_for_a_call_with_its_retries() -> None:
    busy = answer({"error": "busy"}, 503, headers=("Retry-After-Ms: 50",))
    with Server(busy) as server, server.client(deadline=0.3, max_retries=30) as client:
        with pytest.raises(deepinfra_min.ServerError):
            client.chat("Hi")
        assert 2 <= len(server.requests) <= 10
    with Server(busy, busy, b"") as server, server.client(deadline=0.4, max_retries=9) as client:
        assert_times_out(lambda: client.chat("Hi"), "deadline", 0.4)
        assert len(server.requests) == 3


def test_deadline_cuts_no_call_that_is_in_time() -> None:
    with Server(answer(completion()), sse_answer(delta("Hi", "stop"))) as server:
        with server.client(deadline=5, timeout=None, connect_timeout=None) as client:
            assert client.chat("Hi").text == collect(client.stream("Hi")).text == "Hi"


# Retries


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_status_is_tried_again(status: int, waits: List[float]) -> None:
    with Server(answer(b"<html>", status), answer(completion())) as server:
        assert server.client().chat("Hi").text == "Hi"
    assert len(waits) == 1
    first, second = server.requests
    assert first[:4] == second[:4]


NOT_TRIED_AGAIN = {
    **{str(status): answer({"error": "no"}, status) for status in (
        400, 401, 402, 403, 404, 405, 410, 413, 422)},
    "cut status line": cut(b"HTTP/1.1 2"), "cut headers": cut(b"HTTP/1.1 200 OK\r\nContent-"),
    "cut body": cut(answer(completion())[:-5]), "reset headers": reset(b"HTTP/1.1 200 OK\r\n"),
    "reset body": reset(chunked(b"{")),
    "broken JSON": answer(b"{"), "HTML": answer(b"<html>", type="text/html"),
    "wrong shape": answer([]), "error in a 200": answer({"error": {"message": "no", "code": 503}}),
    "not HTTP": cut(b"SSH-2.0-OpenSSH_9.2\r\n")}


@pytest.mark.parametrize("reply", NOT_TRIED_AGAIN.values(), ids=NOT_TRIED_AGAIN)
@pytest.mark.parametrize("method", ["chat", "stream"])
def test_other_failures_are_not_tried_again(reply: Answer, method: str, waits: List[float]) -> None:
    with Server(reply) as server, server.client() as client:
        with pytest.raises(deepinfra_min.DeepInfraError):
            list(getattr(client, method)("Hi"))
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("reply, kind", [
    pytest.param(cut(chunked(sse(delta("Hi"), done=False), type=SSE_TYPE)),
                 deepinfra_min.StreamInterruptedError, id="cut"),
    pytest.param(sse_answer(delta("Hi"), {"error": {"message": "busy", "code": 503}}),
                 deepinfra_min.ServerError, id="error")])
def test_stream_is_not_tried_again_after_a_chunk(reply: Answer, kind: Any,
                                                 waits: List[float]) -> None:
    with Server(reply) as server, server.client() as client:
        stream = client.stream("Hi")
        assert next(stream).text == "Hi"
        with pytest.raises(kind):
            next(stream)
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("die", [cut(b""), reset()], ids=["closed", "reset"])
def test_connection_that_dies_before_an_answer_is_tried_again(
        serve: Callable[..., Server], die: Answer, waits: List[float]) -> None:
    with serve(die, die, sse_answer(delta("Hi", "stop"))) as server, server.client() as client:
        assert collect(client.stream("Hi")).text == "Hi"
    assert (connections_of(server), len(waits)) == ([0, 1, 2], 2)


def test_refused_connection_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: List[float] = []
    with dead_port() as port:
        base_url = f"http://127.0.0.1:{port}"
        monkeypatch.setattr(time, "sleep", waits.append)
        with pytest.raises(deepinfra_min.APIConnectionError) as caught:
            Client("", base_url=base_url, max_retries=4).chat("Hi")
    assert (len(waits), type(caught.value)) == (4, deepinfra_min.APIConnectionError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert f"127.0.0.1:{port}" in str(caught.value)


def test_name_that_is_not_resolved_is_tried_again(monkeypatch: pytest.MonkeyPatch,
                                                  waits: List[float]) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(deepinfra_min.APIConnectionError) as caught:
        Client(TOKEN, base_url="https://api.example.test").chat("Hi")
    assert len(waits) == 2
    assert all(part in str(caught.value) for part in ("DNS", "api.example.test", "not known"))


def test_black_hole_is_tried_again(waits: List[float]) -> None:
    with deaf_port(is_full=True) as port:
        base_url = f"http://127.0.0.1:{port}"
        client = Client("", base_url=base_url, connect_timeout=0.05, max_retries=1)
        with pytest.raises(deepinfra_min.APITimeoutError):
            client.chat("Hi")
    assert len(waits) == 1


@pytest.mark.parametrize("options, attempts", [
    pytest.param({}, 3, id="default"), pytest.param({"max_retries": 0}, 1, id="none"),
    pytest.param({"max_retries": 1}, 2, id="one")])
def test_retries_end(options: Dict[str, int], attempts: int, waits: List[float]) -> None:
    with Server(answer({"error": "busy"}, 429)) as server, server.client(**options) as client:
        with pytest.raises(deepinfra_min.RateLimitError) as caught:
            client.chat("Hi")
    assert (len(server.requests), len(waits)) == (attempts, attempts - 1)
    error = caught.value
    assert (error.status, error.message, error.retry_after) == (429, "busy", None)


def test_waits_grow_to_8_seconds_less_a_random_part(waits: List[float]) -> None:
    with Server(answer({}, 500)) as server, server.client(max_retries=40) as client:
        with pytest.raises(deepinfra_min.ServerError):
            client.chat("Hi")
    parts = [wait / full for wait, full in zip(waits, [0.5, 1, 2, 4] + [8] * 36)]
    assert len(parts) == 40
    assert 0.75 <= min(parts) < 0.85 < 0.9 < max(parts) <= 1
    assert len(set(parts)) > 30


@pytest.mark.parametrize("headers, low, high", [
    pytest.param(["Retry-After: 7"], 7, 7, id="seconds"),
    pytest.param(["Retry-After: 0"], 0, 0, id="at once"),
    pytest.param(["Retry-After: 60"], 60, 60, id="a minute"),
    pytest.param(["retry-after-ms: 1500"], 1.5, 1.5, id="milliseconds"),
    pytest.param(["Retry-After: 7", "retry-after-ms: 20"], 0.02, 0.02, id="both"),
    pytest.param([20], 18.5, 20, id="date"), pytest.param([-20], 0, 0, id="date that is past"),
    pytest.param(["Retry-After: soon", "retry-after-ms: x"], 0.375, 0.5, id="no number"),
    pytest.param(["Retry-After: -1"], 0.375, 0.5, id="negative"),
    pytest.param(["Retry-After:"], 0.375, 0.5, id="empty")])
def test_wait_is_what_the_server_asks_for(headers: List[Any], low: float, high: float,
                                          waits: List[float]) -> None:
    lines = tuple(line if isinstance(line, str) else "Retry-After: " + email.utils.formatdate(
        time.time() + line, usegmt=True) for line in headers)
    with Server(answer({}, 429, headers=lines), answer(completion())) as server:
        with server.client() as client:
            client.chat("Hi")
    wait, = waits
    assert low <= wait <= high


def test_wait_is_spent_before_the_next_attempt() -> None:
    times = []

    def refuse(sock: socket.socket, request: Request) -> bool:
        times.append(time.monotonic())
        sock.sendall(answer({}, 503, headers=("Retry-After-Ms: 80",)))
        return True

    with Server(refuse, refuse, answer(completion())) as server, server.client() as client:
        client.chat("Hi")
        times.append(time.monotonic())
        assert connections_of(server) == [0, 0, 0]
    assert all(0.08 <= later - sooner < 0.37 for sooner, later in zip(times, times[1:]))


@pytest.mark.parametrize("header, options, low, high", [
    pytest.param("Retry-After: 61", {}, 61, 61, id="over a minute"),
    pytest.param("Retry-After: 99999999999", {}, 99999999999, 99999999999, id="over an age"),
    pytest.param("retry-after-ms: 61000", {}, 61, 61, id="over a minute in milliseconds"),
    pytest.param(90, {}, 88.5, 90, id="over a minute, by date"),
    pytest.param("Retry-After: 10", {"deadline": 9}, 10, 10, id="past the deadline")])
def test_wait_that_is_too_long_raises_at_once(header: Any, options: Dict[str, float], low: float,
                                              high: float, waits: List[float]) -> None:
    line = header if isinstance(header, str) else "Retry-After: " + email.utils.formatdate(
        time.time() + header, usegmt=True)
    with Server(answer({}, 429, headers=(line,))) as server, server.client(**options) as client:
        with pytest.raises(deepinfra_min.RateLimitError) as caught:
            client.chat("Hi")
    assert (len(server.requests), waits) == (1, [])
    assert caught.value.retry_after is not None
    assert low <= caught.value.retry_after <= high


def test_deadline_comes_before_a_wait_of_our_own(waits: List[float]) -> None:
    with Server(answer({}, 503)) as server, server.client(deadline=0.3) as client:
        with pytest.raises(deepinfra_min.ServerError):
            client.chat("Hi")
    assert (len(server.requests), waits) == (1, [])


def test_log_has_retries_at_info_and_exchanges_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    busy = answer({"error": "all engines taken"}, 503,
                  headers=("Retry-After-Ms: 20", "X-Answer: hunter2"))
    with Server(busy, answer(completion("hunter3"))) as server:
        with server.client(headers={"X-Key": "hunter4"}) as client:
            client.chat("hunter5")
        url = server.url + "/chat/completions"
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("deepinfra_min", level) for level in (logging.DEBUG, logging.INFO, logging.DEBUG)]
    first, retry, second = (record.getMessage() for record in caplog.records)
    for text, status in ((first, "503"), (second, "200")):
        assert "POST" in text and url in text and status in text
        assert re.search(r"\b0\.\d+ s\b", text)
    assert "503: all engines taken" in retry and "0.02 s" in retry
    records = repr([vars(record) for record in caplog.records])
    assert "hunter" not in records and TOKEN not in records and "Bearer" not in records


def test_log_names_the_cause_of_a_retry(caplog: pytest.LogCaptureFixture,
                                        waits: List[float]) -> None:
    caplog.set_level(logging.INFO)
    with dead_port() as port, pytest.raises(deepinfra_min.APIConnectionError):
        Client("", base_url=f"http://127.0.0.1:{port}", max_retries=2).chat("Hi")
    assert len(caplog.records) == 2
    for record, waited in zip(caplog.records, waits):
        text = record.getMessage()
        assert record.levelno == logging.INFO
        assert f"127.0.0.1:{port}" in text and "refused" in text and f"{waited:.2f} s" in text


# Safety


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused_and_named(status: int, tls: ssl.SSLContext) -> None:
    with Server(answer(completion())) as other, Server(answer(completion()), context=tls) as secure:
        for place in (other.url, f"http://localhost:{other.port}/v1", secure.url, "/v1/elsewhere"):
            moved = answer(b"", status, headers=(f"Location: {place}",))
            with Server(moved) as server, server.client() as client:
                calls: List[Any] = [client.chat, client.stream, lambda text, c=client: c.models()]
                for call in calls:
                    with pytest.raises(deepinfra_min.APIError, match=re.escape(place)) as caught:
                        call("Hi")
                    assert (caught.value.status, "redirect" in str(caught.value)) == (status, True)
                assert len(server.requests) == 3
        assert (other.connections, secure.connections) == (0, 0)


@pytest.mark.parametrize("handlers", [[], [deepinfra_min.KeepAliveHandler]],
                         ids=["urllib's own", "KeepAliveHandler"])
def test_opener_that_follows_redirects_takes_no_token_along(handlers: List[Any]) -> None:
    opener: Any = urllib.request.build_opener(*handlers)
    with Server(answer(completion())) as target:
        moved = answer(b"", 302, headers=(f"Location: {target.url}/there",))
        with Server(moved) as server:
            client = server.client(opener=opener, headers={"X-Key": "hunter2"})
            assert client.chat("Hi").text == "Hi"
            assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
            assert server.requests[0].headers["x-key"] == "hunter2"
    for handler in opener.handlers:
        handler.close()
    request, = target.requests
    assert (request.method, request.path) == ("GET", "/v1/openai/there")
    assert not {"authorization", "x-key"} & set(request.headers)
    assert TOKEN not in repr(request)


def bare(head: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


ECHOES: Dict[str, Callable[[str], Answer]] = {
    "error object": lambda t: answer(
        {"error": {"message": t, "code": t, "param": [t], "type": {t: t}}}, 401),
    "error string": lambda t: answer({"error": f"no {t}"}, 400),
    "error without words": lambda t: answer({"key": {t: [t]}}, 400),
    "validation": lambda t: answer({"detail": [{"loc": ["x", t], "msg": t, "input": t}]}, 422),
    "text": lambda t: answer(f"Who is {t}?".encode(), 403),
    "HTML": lambda t: answer(f"<html>Bearer {t}".encode(), 502, type="text/html"),
    "reason": lambda t: bare(f"401 Not {t}"),
    "reason of a 200": lambda t: bare(f"200 Not {t}", "{"),
    "status": lambda t: bare(f"{t} OK"), "status line": lambda t: cut(f"{t}\r\n\r\n".encode()),
    "headers": lambda t: bare(
        f"429 No\r\nX-Request-Id: {t}\r\nRetry-After: {t}\r\nX-{t}: {t}", "{}"),
    "line that is no header": lambda t: cut(bare(f"400 No\r\nBearer {t}")),
    "folded header": lambda t: bare(f"400 No\r\nX: y\r\n {t}"),
    "content length": lambda t: cut(f"HTTP/1.1 200 OK\r\nContent-Length: {t}\r\n\r\n{{".encode()),
    "redirect": lambda t: bare(f"302 No\r\nLocation: https://api.example.test/?key={t}"),
    "broken JSON": lambda t: answer(f'{{"id": "{t}"'.encode()),
    "broken UTF-8": lambda t: answer(f'{{"id": "{t}'.encode() + b"\xff\xfe"),
    "JSON in UTF-16": lambda t: answer(b"\xff\xfe" + t.encode("utf-16-le") + b"\x00"),
    "wrong shape": lambda t: answer({"choices": t, t: t}),
    "wrong shape in a list": lambda t: answer([t]),
    "HTML in a 200": lambda t: answer(f"<html>{t}".encode(), type="text/html"),
    "HTML, far in": lambda t: answer(b"<" + b"x" * 190 + t.encode(), type="text/html"),
    "message, far in": lambda t: answer({"error": "x" * 990 + t}, 400),
    "error in a 200": lambda t: answer({"error": {"message": t, "code": t}}),
    "chunk size": lambda t: cut(chunked() + f"{t}\r\n".encode()),
    "cut body": lambda t: cut(answer({"error": t}, 401)[:-1]),
    "stream error": lambda t: sse_answer(delta("Hi"), {"error": {"message": t, "code": 401}}),
    "stream error event": lambda t: answer(f"event: error\ndata: {t}\n\n".encode(), type=SSE_TYPE),
    "stream of broken JSON": lambda t: sse_answer(f'{{"id": "{t}'),
    "stream of a wrong shape": lambda t: sse_answer({"choices": [t]}),
    "stream, cut": lambda t: cut(chunked(f"data: {t}".encode(), type=SSE_TYPE)),
    "stream of HTML": lambda t: answer(f"<p>{t}".encode(), type=SSE_TYPE),
    "stream, not one": lambda t: answer(f"Bearer {t}".encode(), type="text/plain")}


@pytest.mark.parametrize("token", [TOKEN, "jwt:a\"b'c\\d/e&f<g>%20{h}"], ids=["token", "odd token"])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_token_that_the_server_echoes_is_masked(echo: Callable[[str], Answer], token: str,
                                                caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Server(echo(token)) as server:
        client: Any = server.client(api_key=token, max_retries=0, timeout=5)
        for call in (client.chat, client.stream):
            with pytest.raises(deepinfra_min.DeepInfraError) as caught:
                list(call("Hi"))
            error = caught.value
            everything = shown(error) + pickle.dumps(error, 0).decode("latin-1") + repr(
                [vars(record) for record in caplog.records])
            for text in (token, repr(token)[1:-1], json.dumps(token)[1:-1], token[:12]):
                assert text not in everything
    assert server.requests[0].headers["authorization"] == f"Bearer {token}"


def test_token_that_is_echoed_is_masked_in_the_log_of_a_retry(caplog: pytest.LogCaptureFixture,
                                                              waits: List[float]) -> None:
    caplog.set_level(logging.DEBUG)
    busy = answer({"error": f"{TOKEN} is busy"}, 503, headers=(f"X: {TOKEN}",))
    with Server(busy, answer(completion())) as server, server.client() as client:
        client.chat("Hi")
    retry, = [record for record in caplog.records if record.levelno == logging.INFO]
    assert "*** is busy" in retry.getMessage()
    assert TOKEN not in repr([vars(record) for record in caplog.records])


def test_token_of_digits_masks_what_holds_it() -> None:
    error = chat_error(answer({"error": {"message": "no 20249", "code": 12024}}, 400),
                       api_key="2024")
    assert str(error).startswith("HTTP 400: no ***9")
    assert (error.status, error.message, error.code, error.body) == (400, "no ***9", "***", "***")


def test_masked_error_still_says_what_the_server_said() -> None:
    with Server(answer({"error": {"message": f"key {TOKEN} is bad"}}, 401)) as server:
        with server.client() as client, pytest.raises(deepinfra_min.AuthenticationError) as caught:
            client.chat("Hi")
    assert caught.value.message == "key *** is bad"
    assert caught.value.body == {"error": {"message": "key *** is bad"}}


@pytest.mark.parametrize("name, value", [
    ("X-Key", "hunter2\r\nX: y"), ("X-Key", "hunter2\n"), ("X-Key", "hunter2\r"),
    ("X-Key\r\nX", "hunter2"), ("X-Key\n", "hunter2"), ("X Key", "hunter2"), ("", "hunter2"),
    ("X-Key", "hunter2\u20ac"), ("X-Key", "hunter2\x00")])
def test_header_that_would_break_the_request_is_refused(name: str, value: str) -> None:
    with pytest.raises(deepinfra_min.ConfigurationError) as caught:
        Client(TOKEN, headers={"X-Good": "y", name: value})
    assert "hunter2" not in shown(caught.value)
    assert repr(name) in str(caught.value)


# Proxies


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for block in iter(functools.partial(source.recv, 65536), b""):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def tunnel(target: Server, login: str = "") -> Answer:
    """Return the answer of a CONNECT proxy that takes clients to the target, whatever they ask."""
    expected = "Basic " + base64.b64encode(login.encode()).decode() if login else None

    def connect(sock: socket.socket, request: Request) -> None:
        if request.method != "CONNECT" or request.headers.get("proxy-authorization") != expected:
            sock.sendall(answer(b"", 407, headers=("Proxy-Authenticate: Basic",)))
            return
        with socket.create_connection(("127.0.0.1", target.port)) as inner:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(inner, sock), daemon=True)
            back.start()
            pump(sock, inner)
            back.join()
    return connect


@pytest.mark.parametrize("login, password", [("", ""), ("me:p@ss:w%rd", "me:p%40ss%3Aw%25rd@")],
                         ids=["open", "with a password"])
def test_connect_proxy_is_used(login: str, password: str, tls: ssl.SSLContext,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answer(completion()), context=tls) as server:
        with Server(tunnel(server, login)) as proxy:
            monkeypatch.setenv("https_proxy", f"http://{password}127.0.0.1:{proxy.port}")
            with Client(TOKEN, base_url=EXAMPLE) as client:
                for _ in range(3):
                    assert client.chat("Hi").text == "Hi"
                for sock in sockets_to(proxy.port):
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert (proxy.connections, len(server.requests), server.connections) == (1, 3, 1)
            assert proxy.wait_closed()
        connect, = proxy.requests
    assert (connect.method, connect.path) == ("CONNECT", "api.example.test:443")
    assert "authorization" not in connect.headers and TOKEN not in repr(connect)
    assert server.requests[0].path == "/v1/openai/chat/completions"
    assert server.requests[0].headers["host"] == "api.example.test"
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "proxy-authorization" not in server.requests[0].headers


def test_connect_proxy_is_used_by_an_opener_of_the_caller(tls: ssl.SSLContext, pems: Path) -> None:
    context = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    with Server(answer(completion()), context=tls) as server, Server(
            tunnel(server, "me:hunter2")) as proxy:
        handler = deepinfra_min.KeepAliveHandler(context)
        opener = urllib.request.build_opener(handler, urllib.request.ProxyHandler(
            {"https": f"http://me:hunter2@127.0.0.1:{proxy.port}"}))
        client = Client(TOKEN, base_url=EXAMPLE, opener=opener)
        assert [client.chat("Hi").text, client.chat("Hi").text] == ["Hi", "Hi"]
        assert (proxy.connections, server.connections) == (1, 1)
        handler.close()
        assert proxy.wait_closed()


def test_plain_http_goes_through_a_proxy_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answer(completion())) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:hunter2@127.0.0.1:{proxy.port}")
        with Client("", base_url="http://api.example.test:8000/v1") as client:
            assert [client.chat("Hi").text, client.chat("Hi").text] == ["Hi", "Hi"]
    assert connections_of(proxy) == [0, 0]
    for request in proxy.requests:
        assert request.path == "http://api.example.test:8000/v1/chat/completions"
        assert request.headers["host"] == "api.example.test:8000"
        assert request.headers["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
        assert "authorization" not in request.headers


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("scheme, reply, reason", [
    pytest.param("https", answer(b"", 407), "407", id="407"),
    pytest.param("http", answer(b"", 407), "407", id="407 by plain http"),
    pytest.param("https", answer(b"<html>", 403), "403", id="403"),
    pytest.param("https", answer(b"", 502), "502", id="502"),
    pytest.param("https", bare("302 No\r\nLocation: http://127.0.0.1:1/"), "302", id="302")])
def test_refusal_of_a_proxy_is_named_and_not_tried_again(
        scheme: str, reply: bytes, reason: str, monkeypatch: pytest.MonkeyPatch,
        waits: List[float]) -> None:
    with Server(reply) as proxy:
        address = f"127.0.0.1:{proxy.port}"
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:hunter2@{address}")
        with pytest.raises(deepinfra_min.APIConnectionError) as caught:
            Client(TOKEN * (scheme == "https"), base_url=f"{scheme}://api.example.test").chat("Hi")
        assert scheme == "http" or closes(proxy)
    text = str(caught.value)
    assert "proxy" in text and address in text and reason in text
    assert "hunter2" not in shown(caught.value)
    assert (proxy.connections, waits) == (1, [])


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("reply", [
    pytest.param(cut(b""), id="cut before it answers"), pytest.param(cut(b"HTTP/1.1 20"), id="cut"),
    pytest.param(cut(b"SSH-2.0-OpenSSH_9.2\r\n"), id="not HTTP"), pytest.param(None, id="down")])
def test_failure_of_a_proxy_is_named(reply: Optional[Answer],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        port = (stack.enter_context(Server(reply)).port if reply
                else stack.enter_context(dead_port()))
        monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{port}")
        with pytest.raises(deepinfra_min.DeepInfraError) as caught:
            Client(TOKEN, base_url=EXAMPLE, max_retries=0).chat("Hi")
    assert f"the proxy 127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in shown(caught.value) and TOKEN not in shown(caught.value)


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "https", "HTTPS", "quic"])
@pytest.mark.parametrize("target", ["http", "https"])
def test_proxy_that_is_not_http_is_refused(scheme: str, target: str,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(b"") as proxy:
        monkeypatch.setenv(f"{target}_proxy", f"{scheme}://me:hunter2@127.0.0.1:{proxy.port}")
        with pytest.raises(deepinfra_min.ConfigurationError) as caught:
            Client(TOKEN * (target == "https"), base_url=f"{target}://api.example.test").chat("Hi")
        assert proxy.connections == 0
    assert f"{scheme}://127.0.0.1:{proxy.port}" in str(caught.value)
    assert "hunter2" not in shown(caught.value)


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("proxy", [
    "http:/me:hunter2@127.0.0.1:1", "http://me:hunter2@127.0.0.1:x", "http://me:hunter2@[::1",
    "http://me:hunter2@", "me:hunter2@127.0.0.1:x"])
def test_proxy_setting_that_is_malformed_shows_no_password(proxy: str,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(deepinfra_min.DeepInfraError, match="proxy") as caught:
        Client(TOKEN, base_url=EXAMPLE, max_retries=0).chat("Hi")
    assert "hunter2" not in shown(caught.value)


@pytest.mark.parametrize("exception", [
    "api.example.test", ".example.test", "a.test, example.test", "*"])
def test_no_proxy_is_honoured(exception: str, tls: ssl.SSLContext, names_are_local: None,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(answer(completion()), context=tls) as server, Server(answer(b"", 403)) as proxy:
        monkeypatch.setenv("no_proxy", exception)
        for address in (proxy.origin, "socks5://127.0.0.1:1"):
            monkeypatch.setenv("https_proxy", address)
            client = Client(TOKEN, base_url=f"https://api.example.test:{server.port}")
            assert client.chat("Hi").text == "Hi"
        assert (proxy.connections, server.connections) == (0, 2)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_reached_through_a_proxy(host: str, serve: Callable[..., Server],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(answer(completion())) as server, Server(answer(b"", 403)) as proxy:
        for scheme in ("http", "https", "all"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.origin)
        with Client(TOKEN, base_url=server.url.replace("127.0.0.1", host)) as client:
            assert client.chat("Hi").text == "Hi"
        assert proxy.connections == 0


# Certificates


def test_certificate_of_an_unknown_ca_is_named(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch,
                                               waits: List[float]) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with Server(answer(completion()), context=tls) as server, server.client() as client:
        with pytest.raises(deepinfra_min.APIConnectionError) as caught:
            client.chat("Hi")
    text = str(caught.value)
    for part in (f"certificate of 127.0.0.1:{server.port}", "local issuer", "SSL_CERT_FILE"):
        assert part in text
    assert "strict" not in text
    assert (server.connections, server.requests, waits) == (1, [], [])


def test_certificate_of_another_host_is_named(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch,
                                              waits: List[float]) -> None:
    with Server(answer(completion()), context=tls) as server, Server(tunnel(server)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.origin)
        with pytest.raises(deepinfra_min.APIConnectionError) as caught:
            Client(TOKEN, base_url="https://www.example.test").chat("Hi")
    assert "not valid for 'www.example.test'" in str(caught.value)
    assert (proxy.connections, server.requests, waits) == (1, [], [])


def test_certificate_that_only_a_strict_check_refuses_is_named(
        tls: ssl.SSLContext, pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pems / "lax_ca.pem"))
    with Server(answer(completion()), context=tls) as server:
        client = server.client(max_retries=0)
        if sys.version_info >= (3, 13):
            with pytest.raises(deepinfra_min.APIConnectionError) as caught:
                client.chat("Hi")
            for part in ("3.13", "strict", "Basic Constraints", "ssl_context=", "SSL_CERT_FILE"):
                assert part in str(caught.value)
        else:
            assert client.chat("Hi").text == "Hi"
    context = ssl.create_default_context(cafile=str(pems / "lax_ca.pem"))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with Server(answer(completion()), context=tls) as server:
        with server.client(ssl_context=context) as client:
            assert client.chat("Hi").text == "Hi"


NO_SSL = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
from deepinfra_min import Client, ConfigurationError, KeepAliveHandler
print(Client(base_url=sys.argv[1]).chat("Hi").text)
try:
    Client("t", base_url="https://127.0.0.1:1").chat("Hi")
except ConfigurationError as error:
    print(error)
"""


def test_python_without_ssl_does_without_https() -> None:
    with Server(answer(completion())) as server:
        first, second = run_python(NO_SSL, server.url).splitlines()
    assert first == "Hi"
    assert "https" in second and "ssl module" in second


# ---- Command line --------------------------------------------------------------------------------

# The tables below hold whole runs of the command, each in a process of its own. An interpreter
# takes a tenth of a second to start, so the processes of all tables are started together, two at a
# time, and where a row is not about the start, forked from one that has imported the module.

MODULE = Path(deepinfra_min.__file__).read_text(encoding="utf-8")
PATIENCE = 15.0  # seconds to wait for a process, on a machine that may be very busy
BY_NAME = ("-m", "deepinfra_min")
STRICT = ("-X", "dev", "-W", "error", *BY_NAME)  # stderr would show a socket that was left open
HI = sse_answer(delta("Hi"), delta(finish_reason="stop"))
CUT_OFF = sse_answer(delta("Hel"), delta("lo"), delta(finish_reason="length"))
MANY_CHARACTERS = sse_answer(delta("Gr\u00fc\u00dfe \u2713 \ud83d"), delta("\ude00", "stop"))
ALL_CHARACTERS = "Gr\u00fc\u00dfe \u2713 \U0001f600\n"
TOOL_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
HISTORY = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
FILES = {
    "messages.json": json.dumps(HISTORY), "object.json": "{}", "text.txt": "plain \u2713 text",
    "key.txt": '\ufeff"sk-from-file"\r\n', "tools.json": json.dumps([{"type": "function"}]),
    "pkg/__init__.py": "", "pkg/_vendor/__init__.py": "", "pkg/_vendor/deepinfra_min.py": MODULE,
    "lib/deepinfra_min.py": MODULE, "renamed.py": MODULE,
}
ZIP_MAIN = "import sys, deepinfra_min; sys.exit(deepinfra_min.main())"
NO_DNS = f"""
import socket
def getaddrinfo(*args, **options):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
socket.getaddrinfo = getaddrinfo
{ZIP_MAIN}
"""

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX has these signals, terminals and files")


FORKER = f"""
import argparse, deepinfra_min, json, os, signal, sys, traceback
for line in sys.stdin.buffer:
    args, env, folder, *files = json.loads(line.decode())
    pid = os.fork()
    if not pid:
        signal.alarm({2 * PATIENCE:.0f})
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        for fd, (name, flags) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
            os.dup2(os.open(name, flags), fd)
        sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")
        code = 70
        try:
            code = deepinfra_min.main(args)
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    print(os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status), flush=True)
"""


class Forker:
    """A process that has imported the module, and forks one for each run of the command."""

    def __init__(self, folder: Path, own_folder: Path) -> None:
        self.folder, self.own_folder = folder, own_folder
        self._process: Any = subprocess.Popen(
            [sys.executable, "-c", FORKER], env=environment(folder, ""),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, args: List[str], env: Dict[str, str], stdin: bytes) -> Tuple[int, bytes, bytes]:
        files = [self.own_folder / name for name in ("stdin", "stdout", "stderr")]
        for file in files:
            file.write_bytes(stdin if file.name == "stdin" else b"")
        job = [args, env, str(self.folder), *map(str, files)]
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, files[1].read_bytes(), files[2].read_bytes()

    def close(self) -> None:
        with self._process:
            self._process.stdin.close()


class Result(NamedTuple):
    """What a run left, and the requests that its server saw."""

    code: int
    out: str
    err: str
    requests: List[Request]


class Case:
    """A run of the command, with a server of its own that gives the answers.

    In its words, {url} and {origin} stand for that server's, {dead} for a URL where none listens.
    `stdin` is what a pipe brings, None for the null device. `redirect` is a shell's. A variable of
    the environment that is None is left out.
    """

    def __init__(self, *args: str, answers: Tuple[Answer, ...] = (HI,),
                 stdin: Optional[bytes] = None, python: Tuple[str, ...] = BY_NAME,
                 redirect: str = "", **env: Optional[str]) -> None:
        self.args, self.answers, self.stdin, self.python = args, answers, stdin, python
        self.redirect, self.env = redirect, env

    def run(self, folder: Path, forkers: queue.Queue[Forker]) -> Result:
        with Server(*self.answers) as server, socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))  # and not listening

            def fill(word: str) -> str:
                word = word.replace("{url}", server.url).replace("{origin}", server.origin)
                return word.replace("{dead}", f"http://127.0.0.1:{dead.getsockname()[1]}/v1")

            args = [fill(word) for word in self.args]
            env = environment(folder, "{url}", **self.env)
            env = {name: fill(text) for name, text in env.items()}
            is_plain = self.python == BY_NAME and not self.redirect
            if FORKS and is_plain and not any(re.match("PYTHON|LC_", name) for name in self.env):
                forker = forkers.get()
                try:
                    code, out, err = forker.run(args, env, self.stdin or b"")
                finally:
                    forkers.put(forker)
                return Result(code, as_text(out), as_text(err), server.requests)
            command = [sys.executable, *self.python, *args]
            if self.redirect:
                command = ["sh", "-c", f'exec "$@" {self.redirect}', "sh", *command]
            given: Any = {"input": self.stdin} if self.stdin is not None else {
                "stdin": subprocess.DEVNULL}
            done = subprocess.run(command, env=env, cwd=str(folder), capture_output=True,
                                  timeout=2 * PATIENCE, **given)
            return Result(done.returncode, as_text(done.stdout), as_text(done.stderr),
                          server.requests)


def environment(folder: Path, url: str, **changes: Optional[str]) -> Dict[str, str]:
    """Return an environment with a token and a base URL, and what else the changes say."""
    unwanted = r"DEEPINFRA_.*|.*_PROXY|LC_.*|LANG|COLUMNS|PYTHON.*"  # above all PYTHONUNBUFFERED
    paths = [str(folder / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {name: os.environ.get(name) for name in list(os.environ)  # which pytest changes meanwhile
           if not re.fullmatch(unwanted, name, re.I)}
    env.update(DEEPINFRA_TOKEN=TOKEN, DEEPINFRA_BASE_URL=url, PYTHONPATH=os.pathsep.join(paths),
               HOME=str(folder), TERM="dumb")
    return {name: text for name, text in {**env, **changes}.items() if text is not None}


def as_text(output: bytes) -> str:
    return output.decode("utf-8").replace(os.linesep, "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the working directory of all runs, with FILES and two archives in it."""
    folder: Path = tmp_path_factory.mktemp("work")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    for name, main in (("module.zip", ""), ("app.pyz", ZIP_MAIN)):
        with zipfile.ZipFile(str(folder / name), "w") as archive:
            archive.writestr("deepinfra_min.py", MODULE)
            archive.writestr("__main__.py", main)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    yield folder
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module", autouse=True)  # so that they run beside the other tests
def results(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory,
            ) -> Iterator[Dict[Case, Future[Result]]]:
    """Start the runs that the chosen tests look at."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    values = [value for spec in chosen if spec for value in spec.params.values()]
    cases = dict.fromkeys(value for value in values if isinstance(value, Case))
    forkers: queue.Queue[Forker] = queue.Queue()
    with contextlib.ExitStack() as stack:  # which forks before there are threads and pipes
        stack.enter_context(running_beside(request.session.items, folder))
        if any("slow_stdin" in item.fixturenames for item in request.session.items):  # type: ignore
            request.getfixturevalue("slow_stdin")
        for _ in range(2 if FORKS and cases else 0):
            own_folder = tmp_path_factory.mktemp("forker")
            forkers.put(stack.enter_context(contextlib.closing(Forker(folder, own_folder))))
        pool = stack.enter_context(ThreadPoolExecutor(2))
        futures = {case: pool.submit(case.run, folder, forkers)
                   for case in cases if not lacks(case)}
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.fixture()
def run(results: Dict[Case, Future[Result]]) -> Callable[[Case], Result]:
    def run(case: Case) -> Result:
        if lacks(case):
            pytest.skip(lacks(case))
        return results[case].result()
    return run


def lacks(case: Case) -> str:
    """Return what this system lacks to run the case."""
    if case.redirect and os.name == "nt":
        return "needs a POSIX shell"
    return "needs /dev/full" if "full" in case.redirect and not os.path.exists("/dev/full") else ""


def table(cases: Dict[str, Any]) -> Any:
    """Return the parameters of a table: its rows, named by its keys."""
    return [pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name)
            for name, row in cases.items()]


def user(text: str) -> Dict[str, str]:
    return {"role": "user", "content": text}


def payload(*messages: Any, **more: Any) -> Dict[str, Any]:
    """Return what the command sends."""
    model = deepinfra_min.DEFAULT_MODEL
    return {"model": model, "messages": list(messages), "stream": True, **more}


OPTIONS = payload(
    {"role": "system", "content": "Be brief"}, user("Hi"), model="m", temperature=0.5,
    stop=["a", "="], user="b=c", tools=[{"type": "function"}], note=FILES["text.txt"])
SENT = {
    "prompt": (Case("Hi"), payload(user("Hi"))),
    "long flags": (Case(
        "--model", "m", "--system=Be brief", "--option", "temperature=0.5", "Hi", "--option",
        'stop=["a", "="]', "--option=user=b=c", "--option", "tools=@tools.json", "--option",
        "note=@text.txt", "--no-stdin", "--base-url", "{url}", "--timeout", "9", "--retries", "0",
        stdin=b"unread", DEEPINFRA_MODEL="other", DEEPINFRA_BASE_URL="{dead}"), OPTIONS),
    "short flags": (Case(
        "-m", "m", "-sBe brief", "-o", "temperature=0.5", "-o", 'stop=["a", "="]', "-o", "user=b=c",
        "-o", "tools=@tools.json", "-o", "note=@text.txt", "-n", "Hi", stdin=b"unread"), OPTIONS),
    "model from the environment": (
        Case("--", "-x", DEEPINFRA_MODEL="m"), payload(user("-x"), model="m")),
    "messages": (Case("--messages", "messages.json", "-s", "S"), payload(
        {"role": "system", "content": "S"}, *HISTORY)),
    "messages from stdin": (Case("--messages", "-", "Hi", stdin=FILES["messages.json"].encode()),
                            payload(*HISTORY, user("Hi"))),
    "stdin alone, with a BOM": (
        Case(stdin="\ufeffa\r\n\u2713".encode()), payload(user("a\r\n\u2713"))),
    "stdin after the prompt": (
        Case("Review", stdin=b"a\n\n b\r\n"), payload(user("Review\n\na\n\n b\r\n"))),
    "stdin for -": (Case("-", stdin=b"Hi"), payload(user("Hi"))),
    "stdin of white space": (Case("Hi", stdin=b" \r\n\t"), payload(user("Hi"))),
    "stdin closed": (Case("Hi", redirect="<&-"), payload(user("Hi"))),
    "an old locale": (
        Case("Gr\u00fc\u00dfe", stdin="\u2713".encode(), LC_ALL="C", PYTHONIOENCODING="ascii"),
        payload(user("Gr\u00fc\u00dfe\n\n\u2713"))),
}


@pytest.mark.parametrize("case, sent", table(SENT))
def test_command_sends(case: Case, sent: Any, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    assert (code, out, err) == (0, "Hi\n", "")
    assert [request.json for request in requests] == [sent]
    assert requests[0].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("case", table({
    "flag": Case("Hi", "--key-file", "key.txt", DEEPINFRA_TOKEN_FILE="no-such-file"),
    "variable": Case("Hi", DEEPINFRA_TOKEN=None, DEEPINFRA_TOKEN_FILE="key.txt"),
}))
def test_command_takes_the_token_from_a_file(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    assert (code, out, err) == (0, "Hi\n", "")
    assert requests[0].headers["authorization"] == "Bearer sk-from-file"


class Paced:
    """An answer that streams one payload at each call of `release`, and [DONE] after the last."""

    def __init__(self, *payloads: Any) -> None:
        self.payloads, self._steps = payloads, threading.Semaphore(0)
        self.release = self._steps.release

    def __call__(self, sock: socket.socket, request: Request) -> bool:
        head = answer(b"", type=SSE_TYPE, headers=("Connection: close",))
        sock.sendall(head.replace(b"Content-Length: 0\r\n", b""))
        for payload in self.payloads:
            if not self._steps.acquire(timeout=PATIENCE):
                return False  # a cut stream, which fails the test
            sock.sendall(sse(payload, done=False))
        sock.sendall(sse())
        return False


@contextlib.contextmanager
def started(folder: Path, *args: str, answer: Answer = HI,
            stdin: int = subprocess.DEVNULL) -> Iterator[Tuple[Any, Server]]:
    """Start the command with pipes, and a server; yield both."""
    with Server(answer) as server:
        env = environment(folder, server.url)
        process = subprocess.Popen([sys.executable, *BY_NAME, *args], env=env, stdin=stdin,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        watchdog = threading.Timer(2 * PATIENCE, process.kill)
        watchdog.start()
        try:
            with process:
                yield process, server
        finally:
            process.kill()
            watchdog.cancel()


@pytest.fixture(scope="module")
def slow_stdin(folder: Path) -> Iterator[Any]:
    """Run the command on a stdin that brings nothing for over 3 s, while other tests run.

    The first of two runs is then sent a prompt, the second Ctrl-C.
    """
    def run(ends: bool) -> Tuple[int, bytes, bytes, bytes, float]:
        begun = time.monotonic()
        with started(folder, stdin=subprocess.PIPE) as (process, _):
            notice, seconds = process.stderr.readline(), time.monotonic() - begun
            if not ends:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(b"Hi" if ends else None, timeout=PATIENCE)
            return process.returncode, out, notice, err, seconds

    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(run, ends) for ends in (True, False)]


def test_answer_is_flushed_chunk_by_chunk_into_a_pipe(folder: Path, slow_stdin: Any) -> None:
    paced = Paced(delta("One"), delta(", two", "stop"))
    with started(folder, "-n", "Hi", answer=paced) as (process, _):
        paced.release()
        assert process.stdout.read(3) == b"One"
        paced.release()
        assert process.communicate(timeout=PATIENCE) == (b", two\n", b"")
        assert process.returncode == 0


@posix
@pytest.mark.parametrize("shown", [b"", b"One"], ids=["before the answer", "within the answer"])
@beside
def test_ctrl_c_dies_of_the_signal_at_once(shown: bytes, folder: Path) -> None:
    paced = Paced(delta("One"), delta("two"))
    with started(folder, "-n", "Hi", answer=paced) as (process, server):
        if shown:
            paced.release()
            assert process.stdout.read(3) == shown
        else:
            wait_until(lambda: bool(server.requests))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
        assert (process.returncode, out.strip(), err) == (-signal.SIGINT, b"", b"")


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)


@posix
@beside
def test_head_ends_the_answer_silently(folder: Path) -> None:
    paced = Paced(delta("One"), delta("two"), delta("three", "stop"))
    with started(folder, "-n", "Hi", answer=paced) as (process, _):
        paced.release()
        assert process.stdout.read(3) == b"One"
        process.stdout.close()
        paced.release()
        assert process.wait(PATIENCE) in (141, -signal.SIGPIPE)
        assert process.stderr.read() == b""


def test_untrusted_certificate(tls: ssl.SSLContext, folder: Path) -> None:
    with Server(HI, context=tls) as server:
        env = environment(folder, server.url, SSL_CERT_FILE=None, SSL_CERT_DIR=None)
        done = subprocess.run([sys.executable, *BY_NAME, "-n", "Hi"], env=env, capture_output=True)
    lines = re.fullmatch(ERROR, as_text(done.stderr))
    assert lines
    assert ("certificate" in lines.group(1), "SSL_CERT_FILE" in lines.group(2)) == (True, True)
    assert (done.returncode, done.stdout) == (6, b"")


@posix
@pytest.mark.parametrize("words", [("--help",), ("-n", "--no-stream", "Hi")], ids=" ".join)
@beside
def test_closed_pipe_is_silent(words: Tuple[str, ...], folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with Server(answer(completion())) as server:
        env = environment(folder, server.url)
        done = subprocess.run([sys.executable, *BY_NAME, *words], env=env, stdout=writer,
                              stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (141, -signal.SIGPIPE)


ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """The command in a terminal of its own; `screen` is all that it was sent."""

    def __init__(self, folder: Path, url: str, *args: str, stdout: Optional[int] = None,
                 stderr: Optional[int] = None, **env: str) -> None:
        self.screen = ""
        self._terminal, end = os.openpty()
        self.process: Any = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *BY_NAME, *args], stdin=end, start_new_session=True,
            stdout=end if stdout is None else stdout, stderr=end if stderr is None else stderr,
            env=environment(folder, url, **env))
        os.close(end)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def read(self, pattern: str, seconds: float = PATIENCE) -> None:
        """Read on until the screen shows the pattern."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.screen):
            is_ready = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))[0]
            block = b""
            with contextlib.suppress(OSError):  # Linux's way to say that the command is gone
                block = os.read(self._terminal, 65536) if is_ready else b""
            assert block, f"no {pattern!r} in {self.screen!r}"
            self.screen += block.decode()

    def visible(self) -> str:
        """Return what can still be read on the last line."""
        line: List[str] = []
        for piece in re.split(r"(\r|\x1b\[\d?K)", self.screen.rpartition("\n")[2]):
            if piece == "\r":
                at = 0
            elif piece.startswith("\x1b"):
                del line[0 if "2" in piece else at :]
            elif piece:
                at = 0 if not line else at
                line[at : at + len(piece)] = piece
                at += len(piece)
        return "".join(line).strip()


@posix
@beside
def test_terminal_is_written_in_its_own_encoding(folder: Path) -> None:
    with Server(MANY_CHARACTERS) as server, Terminal(
            folder, server.url, "Hi", stderr=subprocess.PIPE,
            PYTHONIOENCODING="ascii") as terminal:
        terminal.read("\n")  # and stdin, the terminal, is not waited for
        assert terminal.process.communicate(timeout=PATIENCE) == (None, b"")
    assert (terminal.process.returncode, terminal.screen) == (0, "Gr??e ? ?\r\n")


@posix
@beside
def test_status_line_is_wiped_at_the_first_character(folder: Path) -> None:
    paced = Paced(delta(reasoning_content="Hm"), delta("H"), delta("i", "stop"))
    with Server(paced) as server, Terminal(
            folder, server.url, "Hi", stdout=subprocess.PIPE) as terminal:
        terminal.read(r"\d ?s")
        assert "thinking" not in terminal.screen
        paced.release()
        terminal.read(r"thinking.*[1-9] ?s")
        assert "thinking" in terminal.visible()
        paced.release()
        assert terminal.process.stdout.read(1) == b"H"
        terminal.type("!")  # is echoed after all that was written before it
        terminal.read("!")
        assert terminal.visible() == "!"
        paced.release()
        assert terminal.process.communicate(timeout=PATIENCE) == (b"i\n", None)
    assert (terminal.process.returncode, terminal.visible()) == (0, "!")
    assert "\n" not in terminal.screen


@posix
@beside
def test_conversation_in_a_terminal(folder: Path) -> None:
    paced = Paced(delta("Second"), delta("never"))
    first, third = (sse_answer(delta(text), delta(None, "stop")) for text in ("First", "Third"))
    with Server(first, paced, third) as server, Terminal(
            folder, server.url, "--interactive", "-s", "S") as terminal:
        terminal.type("One\n")
        terminal.read("First")
        terminal.type("Two\n")
        paced.release()
        terminal.read("Second")
        terminal.type("\x03")
        terminal.read(r"Second[^\n]*\n[^\n]*\S")  # something that asks for the next turn
        terminal.type("Three\n")
        terminal.read(r"Third[^\n]*\n[^\n]*\S")
        time.sleep(0.2)  # readline has shown its prompt, and is about to wait for keys and signals
        terminal.type("\x03")  # nothing to end
        terminal.read(r"Third[^\n]*\n[^\n]*\n[^\n]*\S")
        terminal.type("\x04")
        assert terminal.process.wait(PATIENCE) == 0
    assert "Traceback" not in terminal.screen
    assert "error" not in terminal.screen
    first_turn = [user("One"), {"role": "assistant", "content": "First"}]
    begun = [{"role": "system", "content": "S"}, *first_turn, user("Two")]
    assert server.requests[1].json == payload(*begun)
    assert server.requests[2].json["messages"][:4] == begun
    assert server.requests[2].json["messages"][-1] == user("Three")


USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33, "estimated_cost": 0.0125}
THOUGHTFUL = sse_answer(delta(reasoning_content="Let me"), delta(reasoning_content=" think."),
                        delta("Hi"), {**delta(finish_reason="stop"), "usage": USAGE})
COUNTED = r"(?=.*\b11\b)(?=.*\b22\b)(?=.*\$0\.0125\b)(?=.*\d ?s\b).*\n"
CALL_LINES = re.escape("".join(json.dumps(call) + "\n" for call in TOOL_CALLS))
VERSION = re.escape(f"deepinfra_min {deepinfra_min.__version__}\n")
PRINTED = {  # stdout and stderr, both as patterns
    "isolated, in an old locale": (
        Case("Hi", python=("-I", "lib/deepinfra_min.py"), answers=(MANY_CHARACTERS,), LC_ALL="C"),
        ALL_CHARACTERS, ""),
    "without site, in ASCII": (
        Case("Hi", python=("-S", *BY_NAME), answers=(MANY_CHARACTERS,), LC_ALL="C", PYTHONUTF8="0",
             PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii"), ALL_CHARACTERS, ""),
    "half a character, and a newline": (Case("Hi", answers=(
        sse_answer(delta("\ud83d"), delta("!\n", "stop")),)), "[?\ufffd]!\n", ""),
    "tool calls, reasoning and usage unasked for": (Case("Hi", python=STRICT, answers=(sse_answer(
        delta("Wait", reasoning_content="Hm"), delta(tool_calls=[{"index": 0, **TOOL_CALLS[0]}]),
        {**delta(tool_calls=[{"index": 1, **TOOL_CALLS[1]}]), "usage": USAGE},
        delta(finish_reason="tool_calls")),)), "Wait\n" + CALL_LINES, ""),
    "tool calls, not streamed": (Case("Hi", "--no-stream", answers=(
        answer(completion(None, "tool_calls", tool_calls=TOOL_CALLS)),)), CALL_LINES, ""),
    "-r -u, all in one place": (Case("-ru", "Hi", answers=(THOUGHTFUL,), redirect="2>&1"),
                           r"Let me think\.\n+Hi\n" + COUNTED, ""),
    "--reasoning --usage, not streamed": (
        Case("--no-stream", "--reasoning", "--usage", "Hi", answers=(
            answer({**completion(reasoning_content="Hm"), "usage": USAGE}),)),
        "Hi\n", "Hm\n+" + COUNTED),
    "stderr closed": (
        Case("-ruv", "Hi", answers=(THOUGHTFUL,), redirect="2>&-"), "Hi\n", ""),
    "models": (Case("--models", stdin=b"unread", answers=(answer({"data": [
        {"id": "a/b"}, {"id": "c", "metadata": {"context_length": 8192, "pricing": {}}}]}),)),
        r"a/b\b.*\nc\b.*8192.*\n", ""),
    "--version": (Case("--version", DEEPINFRA_TOKEN=None), VERSION, ""),
    "-V": (Case("-V"), VERSION, ""),
}


@pytest.mark.parametrize("case, out, err", table(PRINTED))
def test_command_prints(case: Case, out: str, err: str, run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert re.fullmatch(out, result.out), result
    assert re.fullmatch(err, result.err), result
    assert result.code == 0


@pytest.mark.parametrize("case", table({
    "complete": Case("Hi", "--json", answers=(answer(completion("\u2713 \ud83d")),), LC_ALL="C"),
    "partial": Case("Hi", "--json", answers=(answer(completion("Hel", "length")),)),
}))
def test_command_prints_json_as_the_api_sent_it(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    sent = json.loads(case.answers[0].partition(b"\r\n\r\n")[2])  # type: ignore[union-attr]
    is_complete = sent["choices"][0]["finish_reason"] == "stop"
    assert json.loads(out) == sent
    assert (out.count("\n"), out[-1:]) == (1, "\n")
    assert (code, bool(err)) == ((0, False) if is_complete else (7, True))
    assert "stream" not in requests[0].json


@pytest.mark.parametrize("case", table({"replaced": Case(stdin=b"a\xffb\xc3")}))
def test_command_replaces_what_is_not_utf8(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    assert (code, out) == (0, "Hi\n")
    assert re.fullmatch("deepinfra_min: warning: .*UTF-8.*\n", err)
    assert requests[0].json["messages"] == [user("a\ufffdb\ufffd")]


@pytest.mark.parametrize("case", table({
    "two turns, in an old locale": Case(
        "-i", "--messages", "messages.json", stdin="Gr\u00fc\u00dfe\nTwo\n".encode(), LC_ALL="C",
        PYTHONIOENCODING="ascii", answers=(sse_answer(delta("First", "stop")), HI)),
}))
def test_conversation_through_pipes(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    assert (code, out, err) == (0, "First\nHi\n", "")
    turns = [user("Gr\u00fc\u00dfe"), {"role": "assistant", "content": "First"}, user("Two")]
    sent = [[dict(m, content=m["content"].strip()) for m in r.json["messages"]] for r in requests]
    assert sent == [[*HISTORY, *turns[:1]], [*HISTORY, *turns]]


@pytest.mark.parametrize("case", table({"stdin closed": Case("-i", redirect="<&-")}))
def test_conversation_without_turns_is_over(case: Case, run: Callable[[Case], Result]) -> None:
    assert run(case) == (0, "", "", [])


ERROR = r"deepinfra_min: error: (.+)\n  hint: (.+)\n"
NOTHING = r"usage: deepinfra_min(.*\n)+.*nothing.*\n.*--help.*\n"


@pytest.mark.parametrize("case, err", table({
    "nothing": (Case(DEEPINFRA_TOKEN=None), NOTHING),
    "white space": (Case("-s", "S", "", stdin=b" \n"), NOTHING),
    "stdin closed": (Case("-", redirect="<&-"), NOTHING),
    "extra words": (Case("Why", "is", "it"), "(?s).*quote your prompt.*"),
    "abbreviated flag": (Case("--mod", "m", "Hi"), "(?s).*--mod\\b.*"),
    "option without =": (Case("Hi", "-o", "user"), "(?s).*user.*KEY=VALUE.*"),
    "option that is ours": (Case("Hi", "-o", "stream=true"), "(?s).*stream.*"),
    "file that is missing": (Case("Hi", "-o", "tools=@no-such-file"), "(?s).*no-such-file.*"),
    "messages that are none": (Case("--messages", "object.json"), "(?s).*object.json.*"),
    "base URL": (Case("Hi", "--base-url", "ftp://127.0.0.1"), "(?s).*base URL.*"),
}))
def test_usage_error(case: Case, err: str, run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert (result.code, result.out, result.requests) == (2, "", [])
    assert re.fullmatch(err, result.err)
    assert re.search(ERROR + r"\Z", result.err)


def refusal(status: int, message: str = "no", **fields: str) -> bytes:
    headers = tuple(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())
    return answer({"error": {"message": message}}, status, headers=("retry-after-ms: 1", *headers))


def stay_silent(sock: socket.socket, request: Request) -> bool:
    """Answer nothing until the client goes."""
    return bool(sock.recv(1))


UNKNOWN, LONG = "The model `x` does not exist", "context length is\n8192 \x1b[31mtokens"
BUSY = {"error": {"message": "busy", "code": 429}}
FAILED = {  # exit code, stdout, patterns of the error and of the hint
    "no token": (
        Case("Hi", DEEPINFRA_TOKEN=None, DEEPINFRA_BASE_URL=None),
        3, "", "token", "DEEPINFRA_TOKEN.*https://deepinfra.com"),
    "key file missing": (Case("Hi", "--key-file", "no-such-file"), 3, "", "no-such-file", "."),
    "malformed token": (Case("Hi", DEEPINFRA_TOKEN="sk x"), 3, "", "DEEPINFRA_TOKEN", "."),
    "refused token": (
        Case("Hi", DEEPINFRA_TOKEN=None, DEEPINFRA_API_KEY=TOKEN, answers=(refusal(401),)),
        3, "", "401", "DEEPINFRA_API_KEY"),
    "refused token of a file": (Case("Hi", "--key-file", "key.txt", answers=(refusal(403),)),
                                3, "", "403", "key.txt"),
    "payment": (Case("Hi", answers=(refusal(402),)), 3, "", "402", "payment"),
    "unknown model": (
        Case("Hi", answers=(refusal(404, UNKNOWN),)), 4, "", UNKNOWN, r"(?=.*--models\b).*-m\b"),
    "too long": (Case("Hi", answers=(refusal(400, LONG),)), 4, "", "8192.*tokens", "shorten"),
    "redirect": (
        Case("Hi", answers=(refusal(302, location="https://example.com"),)),
        4, "", "302.*https://example.com", "base URL"),
    "too many, after two retries": (Case("Hi", answers=(refusal(429),)), 5, "", "429", "--retries"),
    "server error": (Case("Hi", "--retries", "0", answers=(refusal(503),)), 6, "", "503", "later"),
    "DNS": (
        Case("Hi", "--retries=0", "--base-url=https://api.invalid/v1", python=("-c", NO_DNS)),
        6, "", "DNS.*api.invalid", "host|name|network"),
    "refused connection": (
        Case("Hi", "--retries=0", "--base-url={dead}"), 6, "", "127.0.0.1:", "base URL"),
    "proxy": (
        Case("Hi", "--base-url=https://api.invalid/v1", HTTPS_PROXY="{origin}",
             answers=(refusal(407),)), 6, "", "proxy.*407", "HTTPS_PROXY"),
    "proxy of a wrong kind": (
        Case("Hi", "--base-url=https://api.invalid/v1", HTTPS_PROXY="socks5://127.0.0.1:1"),
        6, "", "proxy.*socks5", "HTTPS_PROXY"),
    "silence": (
        Case("Hi", "--timeout=0.2", answers=(stay_silent,)), 6, "", "silent.*0.2 s", "--timeout"),
    "not an API": (
        Case("Hi", answers=(answer(b"<html>Log in", type="text/html"),)),
        6, "", ".", "a proxy or captive portal answered"),
    "error before the answer": (Case("Hi", answers=(sse_answer(BUSY),)), 5, "", "busy", "."),
    "error within the answer": (
        Case("Hi", python=STRICT, answers=(sse_answer(delta("Hel"), BUSY),)),
        7, "Hel\n", "busy", "."),
    "cut answer": (
        Case("Hi", answers=(sse_answer(delta("Hel"), done=False),)), 7, "Hel\n", ".", "."),
    "content filter": (
        Case("Hi", "--no-stream", answers=(answer(completion("", "content_filter")),)),
        7, "", "content_filter", "."),
    "full disk": (Case("Hi", redirect=">/dev/full"), 1, "", "(?i)stdout.*space", "."),
    "help on a full disk": (Case("--help", redirect=">/dev/full"), 1, "", "(?i)stdout.*space", "."),
    "stdout closed": (Case("Hi", redirect=">&-"), 1, "", "stdout", "."),
}


@pytest.mark.parametrize("case, code, out, error, hint", table(FAILED))
def test_failure(case: Case, code: int, out: str, error: str, hint: str,
                 run: Callable[[Case], Result]) -> None:
    result = run(case)
    assert (result.code, result.out) == (code, out)
    lines = re.fullmatch(ERROR, result.err)
    assert lines, result.err
    assert result.err.replace("\n", "").isprintable()
    assert re.search(error, lines.group(1))
    assert re.search(hint, lines.group(2))
    assert TOKEN not in result.err


@pytest.mark.parametrize("case, count", table({
    "by default": (FAILED["too many, after two retries"][0], 3),
    "none": (FAILED["server error"][0], 1),
}))
def test_retries(case: Case, count: int, run: Callable[[Case], Result]) -> None:
    assert len(run(case).requests) == count


@pytest.mark.parametrize("case", table({"verbose": Case("-v", "Hi", answers=(
    refusal(429, "busy " + TOKEN), refusal(400, "bad " + TOKEN)))}))
def test_verbose_shows_all_but_the_token(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, requests = run(case)
    assert (code, out, len(requests)) == (4, "", 2)
    for pattern in (r"POST http://127.0.0.1:\d+/v1/openai/chat/completions", "retry.*429.*busy",
                    "400", r"Traceback \(most", ERROR + r"\Z"):
        assert re.search(pattern, err), pattern
    assert TOKEN not in err


@pytest.mark.parametrize("case", table({  # which shows on stdout, on stderr and in the exit code
    name: Case("Hi", python=python, answers=(CUT_OFF,), stdin=stdin, PYTHONPATH=path)
    for name, python, stdin, path in (
        ("python -m", BY_NAME, None, "lib"),
        ("python file", ("lib/deepinfra_min.py",), None, None),
        ("renamed", ("renamed.py",), None, None),
        ("vendored", ("-m", "pkg._vendor.deepinfra_min"), None, None),
        ("python -", ("-",), MODULE.encode(), None),
        ("zip", BY_NAME, None, "module.zip"),
        ("zipapp", ("app.pyz",), None, None))
}))
def test_ways_of_being_started_are_alike(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, _ = run(case)
    assert (code, out) == (7, "Hello\n")
    lines = re.fullmatch(ERROR, err)
    assert lines
    assert ("length" in lines.group(1), "-o max_tokens=" in lines.group(2)) == (True, True)


@pytest.mark.parametrize("case", table({
    "--help": Case("--help", DEEPINFRA_TOKEN=None, FORCE_COLOR="1"),
    "-h": Case("-h", LC_ALL="C", PYTHONIOENCODING="ascii"),
}))
def test_help_is_a_screen_and_a_half(case: Case, run: Callable[[Case], Result]) -> None:
    code, out, err, _ = run(case)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert len(re.findall(r"^ .*python3? -m deepinfra_min ", out, re.M)) == 4
    for flags in ("-m --model", "-s --system", "-o --option", "--messages", "-i --interactive",
                  "--json", "--no-stream", "-r --reasoning", "-u --usage", "--models", "--key-file",
                  "--base-url", "--timeout", "--retries", "-n --no-stdin", "-v --verbose",
                  "-V --version", "-h --help"):
        assert re.search("^  " + r"\b.*, ".join(flags.split()) + r"\b", out, re.M), flags
    for name in ("TOKEN", "API_KEY", "API_TOKEN", "TOKEN_FILE", "MODEL", "BASE_URL"):
        assert re.search(rf"\bDEEPINFRA_{name}\b", out), name
    for number in (*range(8), 130, 141):
        assert re.search(rf"^ +{number} +\w", out, re.M), number
    assert not re.search("--(token|api|key) |\x1b", out)


@posix
def test_stdin_that_does_not_end_is_told(slow_stdin: Any) -> None:
    ended, interrupted = [future.result() for future in slow_stdin]
    code, out, notice, err, seconds = ended
    assert (code, out, err) == (0, b"Hi\n", b"")
    assert re.fullmatch(rb".*stdin.* -n .*</dev/null\s*", notice)
    assert seconds >= 3
    assert interrupted[:4] == (-signal.SIGINT, b"", notice, b"")


def test_command_writes_no_file(results: Dict[Case, Future[Result]], folder: Path) -> None:
    wait(results.values())
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    assert found == {*FILES, "module.zip", "app.pyz"}


# ---- Odd corners ---------------------------------------------------------------------------------


class Raising:
    """A stream whose every use raises an error."""

    encoding = "utf-8"

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.buffer = self

    def isatty(self) -> bool:
        return False

    def read(self, *args: str) -> None:
        raise self.error

    write = flush = read


def run_main(server: Server, *words: str) -> int:
    return deepinfra_min.main(["--base-url", server.url, "--retries", "0", *words])


USED = {**completion(), "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


@pytest.mark.parametrize("words, reply, code, out, err", [
    pytest.param(["--timeout", "soon", "Hi"], b"", 2, "", "--timeout", id="no number"),
    pytest.param(["--timeout", "nan", "Hi"], b"", 2, "", "--timeout", id="no number of seconds"),
    pytest.param(["--timeout=-1", "Hi"], b"", 2, "", "--timeout", id="less than no time"),
    pytest.param(["-i", "-"], b"", 2, "", "stdin", id="stdin for two ends"),
    pytest.param(["-o", "seed", "Hi"], b"", 2, "", "-o seed", id="option without value"),
    pytest.param(["-o", "stream=true", "Hi"], b"", 2, "", "-o stream", id="option with a flag"),
    pytest.param(["--no-stream", "Hi"], answer({**completion(), "choices": []}), 1, "", "no choice",
                 id="no choice"),
    pytest.param(["Hi"], sse_answer(delta("Hi", "eos")), 1, "Hi\n", "'eos'", id="unknown reason"),
    pytest.param(["-u", "Hi"], sse_answer(delta("Hi", "stop")), 0, "Hi\n", "^no usage reported, 0",
                 id="no usage"),
    pytest.param(["-u", "--no-stream", "Hi"], answer(USED), 0, "Hi\n",
                 r"^1 \+ 2 = 3 tokens, \d+\.\d s$", id="no cost"),
    pytest.param(["-u", "Hi"], answer({}, 400), 4, "", "^deepinfra_min: error: .*\n  hint: .*\n$",
                 id="no usage of a refusal"),
    pytest.param(["Hi"], sse_answer(delta("Hi"), {**delta(), "choices": [
        {"index": 1, "delta": {"content": "Ho"}, "finish_reason": "stop"}]}, delta(None, "stop")),
        0, "Hi\n", "^$", id="second choice")])
def test_main_prints_and_returns(words: List[str], reply: bytes, code: int, out: str, err: str,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    with Server(reply) as server:
        found = run_main(server, *([] if "-" in words else ["-n"]), *words)
    captured = capsys.readouterr()
    assert (found, captured.out) == (code, out)
    assert re.search(err, captured.err)


def test_argument_that_the_locale_could_not_decode_is_sent_as_utf8() -> None:
    with Server(answer(completion())) as server:
        assert run_main(server, "-n", "--no-stream", "-s", "\udcff", "Gr\udcc3\udcbc\udcff") == 0
    contents = [message["content"] for message in server.requests[0].json["messages"]]
    assert contents == ["\ufffd", "Gr\xfc\ufffd"]


def test_conversation_drops_a_turn_without_an_answer(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    history = tmp_path / "history.json"
    history.write_text(json.dumps([{"content": "no role"}, {"role": "user", "content": "One"}]))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nTwo\nThree\n"))
    with Server(sse_answer(delta("1", "stop")), answer({}, 400),
                sse_answer(delta("3", "stop"))) as server:
        assert run_main(server, "-i", "--messages", str(history)) == 0
    contents = [message["content"] for message in server.requests[2].json["messages"]]
    assert contents == ["no role", "One", "1", "Three"]


@pytest.mark.parametrize("error, code, err", [
    (ZeroDivisionError("odd"), 1, "ZeroDivisionError: odd"), (KeyboardInterrupt(), 130, "^$"),
    (OSError(28, "No space left"), 1, "stdout can't be written: No space left"),
    (BrokenPipeError(), 141, "^$")], ids=lambda value: type(value).__name__)
def test_main_survives_its_stdout(error: BaseException, code: int, err: str,
                                  capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Raising(error))
    monkeypatch.setattr(os, "kill", lambda *args: None)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with Server(answer(completion())) as server:
            assert run_main(server, "-n", "--no-stream", "Hi") == code
    finally:
        signal.signal(signal.SIGINT, handler)
    assert re.search(err, capsys.readouterr().err)


def test_stdin_that_can_not_be_read_is_an_error(capsys: pytest.CaptureFixture[str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Raising(OSError(5, "Input/output error")))
    with Server(b"") as server:
        assert run_main(server, "Hi") == 2
    assert "can't read stdin: Input/output error" in capsys.readouterr().err


@pytest.mark.parametrize("message", [{"role": "user"}, deepinfra_min.Message("user")])
def test_one_message_alone_is_refused(message: Any) -> None:
    with pytest.raises(TypeError, match="a list"):
        Client("", base_url="http://127.0.0.1:1").chat(message)


def test_port_that_speaks_no_tls_is_named() -> None:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)

        def greet() -> None:
            with listener.accept()[0] as sock:
                sock.sendall(b"220 mail.example ESMTP\r\n")
                sock.recv(9999)

        threading.Thread(target=greet, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(deepinfra_min.APIConnectionError, match=f"^TLS with {url[8:]} failed: "):
            Client(TOKEN, base_url=url, max_retries=0).chat("Hi")


def test_idle_connection_that_was_reset_is_noticed() -> None:
    def answer_and_reset(sock: socket.socket, request: Request) -> bool:
        sock.sendall(answer(completion()))
        time.sleep(0.05)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return False

    with Server(answer_and_reset, answer(completion())) as server, server.client() as client:
        assert client.chat("Hi").text == "Hi"
        assert server.wait_closed()
        assert client.chat("Hi").text == "Hi"
    assert [request.connection for request in server.requests] == [0, 1]


@pytest.mark.parametrize("limit", ["timeout", "connect_timeout", "deadline"])
def test_no_time_at_all_is_up_at_once(limit: str) -> None:
    with Server(answer(completion())) as server:
        with server.client(**{limit: 0, "max_retries": 0}) as client:
            with pytest.raises(deepinfra_min.APITimeoutError, match=f"{limit}.* 0 s"):
                client.chat("Hi")
    assert server.requests == []


# ---- The project: surface, package, README -------------------------------------------------------

HERE = Path(__file__).resolve().parent
PROGRAM = Path(deepinfra_min.__file__).resolve()
SURFACE = [
    "DEFAULT_BASE_URL", "DEFAULT_MODEL", "APIConnectionError", "APIError", "APIResponseError",
    "APITimeoutError", "AuthenticationError", "ChatCompletion", "ChatCompletionChunk", "Choice",
    "ChunkChoice", "Client", "ConfigurationError", "DeepInfraError", "Function",
    "KeepAliveHandler", "Message", "Model", "RateLimitError", "ServerError", "ServerSentEvent",
    "StreamInterruptedError", "ToolCall", "Usage", "collect", "iter_sse",
]
# Runs the module's own code alone, what it imports being loaded, and prints the events of that.
WATCH_IMPORT = """
import os, sys, threading
import deepinfra_min as module
class Unread(dict):
    def __getattribute__(self, name):
        raise AssertionError("the environment was read")
with open(module.__file__, encoding="utf-8") as file:
    code = compile(file.read(), module.__file__, "exec")
events = set()
os.environ = os.environb = Unread()
sys.addaudithook(lambda event, args: events.add(event))
exec(code, {"__name__": "deepinfra_min"})
found = events - {"exec", "compile", "import", "object.__getattr__", "object.__setattr__"}
print(sorted(found), threading.active_count(), flush=True)
os._exit(0)
"""


def test_surface_is_frozen() -> None:
    assert sorted(deepinfra_min.__all__) == sorted(SURFACE)
    assert all(hasattr(deepinfra_min, name) for name in SURFACE)
    public = {name for name, value in vars(deepinfra_min).items()
              if getattr(value, "__module__", None) == "deepinfra_min" and name[0] != "_"}
    assert public - set(SURFACE) == {"main"}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="sys.stdlib_module_names is new in 3.10")
def test_only_the_standard_library_is_imported() -> None:
    nodes = list(ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert [node for node in froms if node.level] == []
    modules |= {str(node.module) for node in froms}
    standard: Any = getattr(sys, "stdlib_module_names", ())
    assert {name.partition(".")[0] for name in modules} <= set(standard)


@pytest.mark.skipif(sys.version_info < (3, 8), reason="audit hooks are new in 3.8")
def test_import_reads_no_environment_opens_nothing_and_starts_nothing() -> None:
    assert run_python(WATCH_IMPORT) == "[] 1\n"


@pytest.mark.parametrize("case", [
    Case("-n", "Hello!", python=(*flags, str(PROGRAM)))
    for flags in (("-I",), ("-S",), ("-OO",), ("-I", "-S", "-OO"))],
    ids=lambda case: " ".join(case.python[:-1]))
def test_module_works_under_flags_of_python(case: Case, run: Callable[[Case], Result]) -> None:
    assert run(case)[:3] == (0, "Hi\n", "")


def test_module_works_from_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    shutil.copy(str(PROGRAM), str(tmp_path))
    (tmp_path / "__pycache__").touch()  # so that root can't write there either
    tmp_path.chmod(0o555)
    with Server(HI) as server:
        env = {**environment(tmp_path, server.url), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-m", "deepinfra_min", "-n", "Hello!"], env=env,
                              capture_output=True, check=False)
    tmp_path.chmod(0o755)
    assert (done.returncode, as_text(done.stdout), done.stderr) == (0, "Hi\n", b"")
    assert sorted(os.listdir(str(tmp_path))) == ["__pycache__", "deepinfra_min.py"]


@pytest.mark.parametrize("args, code, out", [
    (["Hello!"], 0, "".join(SEED_STREAM_DELTAS)),
    (["--no-stream", "Hello!"], 0,
     json.loads(SEED_HELLO_ANSWER)["choices"][0]["message"]["content"]),
    (["--models"], 0, "\n".join(SEED_MODELS)),
    (["-m", "unknown", "Hello!"], 4, "")], ids=["stream", "whole", "models", "unknown model"])
def test_try_out_gives_the_documented_answers(
        args: List[str], code: int, out: str, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DEEPINFRA_TOKEN", "a-real-one")
    monkeypatch.setenv("DEEPINFRA_BASE_URL", "http://nowhere.invalid")
    assert try_out(["-n", *args]) == code
    shown = capsys.readouterr()
    assert shown.out == (out and out + "\n")
    notice = r"a stand-in on http://127\.0\.0\.1:\d+ answers, .*no model is asked\n"
    assert (re.match if code else re.fullmatch)(notice, shown.err)


# Packaging


@pytest.fixture()
def pyproject() -> Any:
    tomllib = pytest.importorskip("tomllib", reason="tomllib is new in Python 3.11")
    path = HERE / "pyproject.toml"
    if not path.exists():
        pytest.skip("pyproject.toml was not copied")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_pyproject_agrees_with_the_module(pyproject: Any) -> None:
    project, source = pyproject["project"], PROGRAM.read_text(encoding="utf-8")
    script = f'# /// script\n# requires-python = "{project["requires-python"]}"\n# ///\n'
    assert source.startswith(script + f"# SPDX-License-Identifier: {project['license']}\n")
    assert project["dynamic"] == ["version", "description"]
    versions = re.findall(r'(?m)^__version__ = "(\d+\.\d+\.\d+)"$', source)
    assert versions == [deepinfra_min.__version__]
    assert (ast.get_docstring(ast.parse(source)) or "").splitlines()[0].endswith(".")
    for place in project["scripts"].values():
        module, _, name = place.partition(":")
        assert getattr(importlib.import_module(module), name) is deepinfra_min.main


def test_pyproject_names_the_five_files(pyproject: Any) -> None:
    project, flit = pyproject["project"], pyproject["tool"]["flit"]
    names = {flit["module"]["name"] + ".py", project["readme"], "pyproject.toml",
             *project["license-files"], *flit["sdist"]["include"]}
    assert names == {PROGRAM.name, Path(__file__).name, "README.md", "LICENSE", "pyproject.toml"}
    assert all((HERE / name).exists() for name in names)
    assert (HERE / "LICENSE").read_text().startswith("MIT No Attribution\n")


def test_extra_and_group_for_tests_are_alike(pyproject: Any) -> None:
    assert pyproject["project"]["optional-dependencies"] == pyproject["dependency-groups"]
    assert pyproject["dependency-groups"] == {"test": ["pytest"]}


# README: every block of Python, and every command


def read_blocks() -> List[Tuple[str, str, str]]:
    """Return README's blocks of code: the heading above, the language, the text."""
    path, heading, blocks = HERE / "README.md", "", []
    text = path.read_text(encoding="utf-8") if path.exists() else ""  # it may not have been copied
    pattern = r"(?ms)^#+ (?P<head>[^\n]*)$|^```(?P<lang>\w+)\n(?P<code>.*?)^```$"
    for match in re.finditer(pattern, text):
        heading = match.group("head") or heading
        if match.group("lang"):
            blocks.append((heading, match.group("lang"), match.group("code")))
    return blocks


BASE = {"model": deepinfra_min.DEFAULT_MODEL}


def chat_of(question: str, **params: Any) -> Dict[str, Any]:
    """Return what chat() sends for a question."""
    return {**BASE, "messages": [{"role": "user", "content": question}], **params}


def streamed(*words: str, **params: Any) -> bytes:
    return sse_answer(*map(delta, words), delta(finish_reason="stop", **params))


def last_words(sock: socket.socket, request: Request) -> bool:
    """Answer with what stands in the last question, as a stream if that was asked for."""
    reply = text_of(request)
    sock.sendall(streamed(reply) if request.json.get("stream") else answer(completion(reply)))
    return True


class Squares:
    """Answers with squares, but refuses one question always, and another once."""

    was_busy = False

    def __call__(self, sock: socket.socket, request: Request) -> bool:
        number = int(text_of(request).split()[2])
        reply = answer(completion(str(number**2)))
        if number == 13:
            reply = answer({"detail": "unlucky"}, 400)
        elif number == 42 and not self.was_busy:
            reply = answer({"error": "busy"}, 429, headers=("retry-after-ms: 1",))
            self.was_busy = True
        sock.sendall(reply)
        return True


TWO_CALLS = [
    {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    for id, arguments in [("c1", '{"city": "Sofia"}'), ("c2", "{}")]]
LAMB = [{"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "Name a way to cook lamb."},
        {"role": "assistant", "content": "Grill it."},
        {"role": "user", "content": "How long does it take?"}]


class Recipe(NamedTuple):
    """A block of Python: the server's answers, what it prints, what the server must see."""

    heading: str
    answers: Tuple[Answer, ...]
    out: str
    sent: Optional[List[Any]] = None
    err: str = ""


RECIPES = [
    Recipe("deepinfra_min", (streamed("Hi", "!"),), "Hi!", [chat_of("Hello!", stream=True)]),
    Recipe("Ask, and wait for the answer", (answer(completion("Light.")),), "Light.\nstop 3 0.5\n",
           [chat_of("Why is the sky blue?", temperature=0.6, max_tokens=500)]),
    Recipe("Stream an answer", (streamed("Once", " upon"),), "Once upon\n",
           [chat_of("Tell me a story.", stream=True, stream_options={"include_usage": True})]),
    Recipe("Stream an answer", (sse_answer(delta("Once"), done=False),), "Once\n"),
    Recipe("Hold a conversation",
           (answer(completion("Grill it.")), answer(completion("An hour."))),
           "Grill it.\nAn hour.\n",
           [{**BASE, "messages": LAMB[:2]}, {**BASE, "messages": LAMB}]),
    Recipe("Let the model call tools",
           (answer(completion(None, "tool_calls", tool_calls=TWO_CALLS)),
            answer(completion("Yes."))), "Yes.\n"),
    Recipe("Get JSON that fits a schema", (answer(completion('{"name": "Goethe", "year": 1808}')),),
           "Goethe 1808\n"),
    Recipe("Show a picture to the model", (answer(completion("A cat.")),), "A cat.\n",
           [{"model": "meta-llama/Llama-3.2-11B-Vision-Instruct", "messages": [
               {"role": "user", "content": [
                   {"type": "text", "text": "What is in this picture?"},
                   {"type": "image_url",
                    "image_url": {"url": "data:image/png;base64,iVBORw=="}}]}]}]),
    Recipe("Follow the reasoning",
           (sse_answer(delta(reasoning_content="r, r, r"), delta("3", "stop")),),
           "3", [chat_of("How many r are in strawberry?", stream=True, reasoning_effort="low")],
           "r, r, r"),
    Recipe("Send 1,000 prompts at once", (Squares(),), "199 answers, 1 failures\n"),
    Recipe("Use it in Spark", (last_words,),
           "('One?', 'One?', None)\n('Two?', 'Two?', None)\n('Three?', 'Three?', None)\n"),
    Recipe("Talk to a local server", (answer(completion("Hi")),), "Hi\n",
           [{**chat_of("Hello!"), "model": "llama3.2"}]),
    Recipe("When it fails", (answer({"detail": "Unauthorized"}, 401),), "Check the token: "),
    Recipe("When it fails", (answer({}, 429, headers=("Retry-After: 90",)),),
           "Try again in 90.0 seconds\n"),
    Recipe("When it fails", (answer({"detail": "Not Found"}, 404),),
           "No answer: HTTP 404: Not Found"),
    Recipe("When it fails", (answer(completion("Hi")),), "Hi\n"),
]
if sys.version_info >= (3, 9):  # it has asyncio.to_thread
    RECIPES.append(Recipe("Use it with asyncio", (last_words,),
                          "['Count to 3.', 'Count to 4.']\nHello!"))
TLS_RECIPES = ["Go through a proxy", "Trust a private CA, show a client certificate"]


class FakeSpark:
    """As much of a SparkContext as README uses, in this process."""

    def __init__(self) -> None:
        self.files: List[str] = []
        self.partitions: List[List[Any]] = []

    def addPyFile(self, path: str) -> None:
        self.files.append(path)

    def parallelize(self, items: List[Any], count: int) -> FakeSpark:
        size = -(-len(items) // count)
        self.partitions = [items[i : i + size] for i in range(0, len(items), size)]
        return self

    def mapPartitions(self, function: Any) -> FakeSpark:
        self.partitions = [list(function(iter(items))) for items in self.partitions]
        return self

    def collect(self) -> List[Any]:
        return [item for items in self.partitions for item in items]


def run_block(heading: str, changes: Dict[str, str], **names: Any) -> Dict[str, Any]:
    """Run README's block of Python below a heading; return its variables."""
    code, = [code for head, language, code in read_blocks()
             if (head, language) == (heading, "python")]
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    variables = {"__name__": "recipe", **names}
    exec(compile(code, heading, "exec", dont_inherit=True), variables)
    return variables


def test_readme_has_no_block_without_a_test() -> None:
    headings = {head for head, language, _ in read_blocks() if language == "python"}
    tested = {recipe.heading for recipe in RECIPES} | {*TLS_RECIPES, "Use it with asyncio"}
    assert headings in (tested, set())
    assert {language for _, language, _ in read_blocks()} <= {"python", "sh"}


@pytest.fixture()
def in_folder(tmp_path: Path, pems: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the files that README speaks of."""
    for path in (PROGRAM, Path(__file__), pems / "ca.pem"):
        shutil.copy(str(path), str(tmp_path))
    shutil.copy(str(pems / "leaf.pem"), str(tmp_path / "client.pem"))
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    (tmp_path / "token.txt").write_text(TOKEN + "\n")
    (tmp_path / "history.json").write_text(json.dumps(LAMB[:3]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)
    return tmp_path


needs_readme = pytest.mark.skipif(not read_blocks(), reason="README.md was not copied")


@needs_readme
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.heading)
def test_readme_recipe(recipe: Recipe, in_folder: Path, monkeypatch: pytest.MonkeyPatch,
                       capsys: pytest.CaptureFixture[str]) -> None:
    spark = FakeSpark()
    with Server(*recipe.answers) as server:
        monkeypatch.setenv("DEEPINFRA_BASE_URL", server.url)
        changes = {"Talk to a local server": {"http://localhost:11434/v1": server.url},
                   "Send 1,000 prompts at once": {"range(1000)": "range(200)"}}
        found = run_block(recipe.heading, changes.get(recipe.heading, {}), sc=spark)
    out, err = capsys.readouterr()
    assert out.startswith(recipe.out) if recipe.heading == "When it fails" else out == recipe.out
    assert err == recipe.err
    assert recipe.sent in (None, [request.json for request in server.requests])
    tokens = {request.headers.get("authorization") for request in server.requests}
    assert tokens == {None if "local" in recipe.heading else "Bearer " + TOKEN}
    check = CHECKS.get(recipe.heading)
    if check:
        check(server, found, spark)


def check_tools(server: Server, found: Any, _: Any) -> None:
    first, second = [request.json for request in server.requests]
    assert first["tools"] == second["tools"] == found["tools"]
    assert second["messages"][:2] == [
        *first["messages"], {"role": "assistant", "content": None, "tool_calls": TWO_CALLS}]
    good, bad = second["messages"][2:]
    assert (good["role"], good["tool_call_id"]) == ("tool", "c1")
    assert json.loads(good["content"]) == {"city": "Sofia", "celsius": 21}
    assert (bad["role"], bad["tool_call_id"]) == ("tool", "c2")
    assert "city" in json.loads(bad["content"])["error"]


def check_schema(server: Server, found: Any, _: Any) -> None:
    form = server.requests[0].json["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", found["schema"])


def check_squares(server: Server, found: Any, _: Any) -> None:
    assert [a for n, a in enumerate(found["answers"]) if n != 13] == [
        str(n**2) for n in range(200) if n != 13]
    (prompt, error), = found["failures"].items()
    assert (prompt, error.status, error.message) == ("What is 13 squared?", 400, "unlucky")
    assert len(server.requests) == 201 and server.connections <= 100


def check_spark(server: Server, _: Any, spark: FakeSpark) -> None:
    assert spark.files == ["deepinfra_min.py"]
    assert [request.connection for request in server.requests] == [0, 0, 1]


CHECKS: Dict[str, Callable[[Server, Any, FakeSpark], None]] = {
    "Let the model call tools": check_tools, "Get JSON that fits a schema": check_schema,
    "Send 1,000 prompts at once": check_squares, "Use it in Spark": check_spark}


@needs_readme
@pytest.mark.skipif(sys.version_info < (3, 9), reason="asyncio.to_thread is new in 3.9")
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["break", "cancel"])
def test_readme_stream_in_asyncio_closes_the_connection(
        is_cancelled: bool, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()

    def send(sock: socket.socket, request: Request) -> None:
        whole = streamed("one", "two")
        sock.sendall(whole[:whole.index(b"two")])
        left.wait(5)
        sock.sendall(whole[whole.index(b"two"):-5])  # all but the end of the body
        sock.recv(1)

    async def leave(stream: Any, client: Client) -> None:
        first = asyncio.Event()

        async def read() -> None:
            async for chunk in stream(client, "Hello!"):
                assert chunk.text == "one"
                first.set()
                if not is_cancelled:
                    break

        task = asyncio.ensure_future(read())
        await first.wait()
        await asyncio.sleep(0.05)
        left.set()
        if is_cancelled:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Server(last_words) as server:
        monkeypatch.setenv("DEEPINFRA_BASE_URL", server.url)
        stream = run_block("Use it with asyncio", {})["stream"]
    with Server(send) as server, server.client() as client:
        asyncio.run(leave(stream, client))
        assert server.wait_closed()


@needs_readme
def test_readme_recipe_for_a_proxy(in_folder: Path, tls: ssl.SSLContext,
                                   monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DEEPINFRA_BASE_URL", EXAMPLE)
    with Server(answer(completion()), context=tls) as server:
        with Server(tunnel(server, "user:password")) as proxy:
            run_block("Go through a proxy", {"proxy.example:3128": f"127.0.0.1:{proxy.port}"})
    assert capsys.readouterr().out == "Hi\n"
    assert ([r.method for r in proxy.requests], len(server.requests)) == (["CONNECT"], 1)


@needs_readme
def test_readme_recipe_for_certificates(in_folder: Path, tls: ssl.SSLContext,
                                        monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations("ca.pem")
    with Server(answer(completion()), context=tls) as server:
        run_block("Trust a private CA, show a client certificate",
                  {"https://gateway.example/v1/openai": server.url})
    assert capsys.readouterr().out == "Hi\n"


COMMANDS = {
    'python3 deepinfra_min.py "Hello!"': ("Hi\n", [chat_of("Hello!", stream=True)]),
    'python3 test_deepinfra_min.py "Hello!"': ("".join(SEED_STREAM_DELTAS) + "\n", []),
    'deepinfra-min "Hello!"': ("Hi\n", [chat_of("Hello!", stream=True)]),
    'HTTPS_PROXY=http://user:password@proxy.example:3128 python3 -m deepinfra_min "Hello!"':
        ("Hi\n", [chat_of("Hello!", stream=True)]),
    'python3 -m deepinfra_min "Why is the sky blue?"':
        ("Hi\n", [chat_of("Why is the sky blue?", stream=True)]),
    'git diff | python3 -m deepinfra_min -s "You review code." "Review this change."':
        ("Hi\n", [{**BASE, "stream": True, "messages": [
            {"role": "system", "content": "You review code."},
            {"role": "user", "content": "Review this change.\n\n-old\n+new\n"}]}]),
    'python3 -m deepinfra_min -m deepseek-ai/DeepSeek-R1 -o temperature=0 --json "List 3 colours."':
        (json.dumps(completion()) + "\n", [chat_of("List 3 colours.", temperature=0)]),
    'python3 -m deepinfra_min --reasoning --usage -n "How many r are in strawberry?"':
        ("Hi\n", [chat_of("How many r are in strawberry?", stream=True,
                          stream_options={"include_usage": True})]),
    'python3 -m deepinfra_min --messages history.json "And then?"':
        ("Hi\n", [{**BASE, "stream": True,
                   "messages": [*LAMB[:3], {"role": "user", "content": "And then?"}]}]),
    "python3 -m deepinfra_min --key-file token.txt --models": ("m\n", [None]),
}


def say_hi(sock: socket.socket, request: Request) -> bool:
    if request.method == "GET":
        sock.sendall(answer({"data": [{"id": "m"}]}))
    else:
        sock.sendall(HI if request.json.get("stream") else answer(completion()))
    return True


def test_readme_has_no_command_without_a_test() -> None:
    blocks = [code for _, language, code in read_blocks() if language == "sh"]
    lines = "".join(blocks).splitlines()
    commands = {line for line in lines if re.search(r"deepinfra[-_]min(\.py)? ", line)}
    assert commands in (set(COMMANDS), set())
    assert not commands or set(lines) - commands == {
        "python3 -m venv .venv && .venv/bin/pip install -q pytest && .venv/bin/python -m pytest -q",
        "pip install .", "sha256sum deepinfra_min.py"}


@posix
def test_readme_commands(in_folder: Path, tls: ssl.SSLContext) -> None:
    entry = "import sys, deepinfra_min; sys.exit(deepinfra_min.main())"
    for name, words in (("python3", f'"{sys.executable}" -S'),
                        ("git", "printf '%s\\n' -old +new #"),
                        ("deepinfra-min", f'"{sys.executable}" -S -c "{entry}"')):
        (in_folder / name).write_text(f'#!/bin/sh\n{words} "$@"\n')
        (in_folder / name).chmod(0o755)

    def check(line: str, out: str, sent: List[Any]) -> None:
        is_proxied = line.startswith("HTTPS_PROXY")
        with Server(say_hi, context=tls if is_proxied else None) as server:
            with Server(tunnel(server, "user:password")) as proxy:
                env = environment(in_folder, EXAMPLE if is_proxied else server.url,
                                  PATH=os.pathsep.join([str(in_folder), os.environ["PATH"]]))
                line_here = line.replace("proxy.example:3128", f"127.0.0.1:{proxy.port}")
                done = subprocess.run(line_here, shell=True, env=env, stdin=subprocess.DEVNULL,
                                      capture_output=True, check=False)
        assert (done.returncode, as_text(done.stdout)) == (0, out), done.stderr
        assert [request.json if request.body else None for request in server.requests] == sent
        assert bool(done.stderr) == ("--usage" in line or "test_" in line), done.stderr
        assert {request.headers["authorization"]
                for request in server.requests} <= {"Bearer " + TOKEN}

    check_all(check, {line: (line, *expected) for line, expected in COMMANDS.items()})


@needs_readme
def test_readme_names_the_whole_surface() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert [name for name in SURFACE if not re.search(rf"`{name}\b", text)] == []
    options = inspect.signature(Client).parameters
    keywords = [name for name, p in options.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert f"`Client(api_key=None, *, {', '.join(keywords)})`" in text
    table = text.partition("| exit code |")[2].partition("\n\n")[0]
    codes = [*map(str, range(8)), "130, 141"]
    assert re.findall(r"(?m)^\| (\d[\d, ]*) \|", table) == codes
