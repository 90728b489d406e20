"""Tests of deepinfra_min, against real servers on loopback; no outside network is used.

`python3 test_deepinfra_min.py "Hello!"` needs neither pytest nor a token nor a network: it runs the
command line against a stand-in on loopback that gives the documented answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import email.utils
import functools
import gc
import inspect
import io
import itertools
import json
import logging
import operator
import os
import pickle
import random
import re
import select
import shlex
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
import types
import typing
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union
from unittest.mock import Mock

import deepinfra_min as dim
from deepinfra_min import Client, collect, iter_sse

# ---- The server on loopback ----------------------------------------------------------------------

TOKEN = "sk-test-0123456789abcdef"
JSON_TYPE, SSE_TYPE = "application/json", "text/event-stream"
PATIENCE = 15.0  # seconds to wait for what should come at once, on a very busy machine


class Request(NamedTuple):
    """A request as the server saw it; `connection` counts the connections from 0."""

    method: str
    path: str
    headers: Dict[str, str]  # names in lower case
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# The bytes to send (the connection stays open unless they say `Connection: close`), or a function
# that is given the socket and the request and returns whether to keep the connection.
Answer = Union[bytes, Callable[[socket.socket, Request], Any]]


class Server:
    """An HTTP server on loopback that gives its answers in order, the last one again and again.

    `requests` are those seen, `connections` is how many were accepted, `closed` how many of them
    have ended. With `context` it speaks TLS.
    """

    def __init__(self, *answers: Answer, context: Optional[ssl.SSLContext] = None) -> None:
        self.answers, self.context = list(answers), context
        self.requests: List[Request] = []
        self.connections = self.closed = 0
        self._lock = threading.Lock()
        self._sockets: List[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        scheme = "https" if context else "http"
        self.address = f"127.0.0.1:{self.port}"
        self.origin = f"{scheme}://{self.address}"
        self.url = self.origin + "/v1/openai"

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        close_socket(self._listener)
        for sock in self._sockets:
            close_socket(sock)

    def client(self, **options: Any) -> Client:
        """Return a client of this server; the token is TOKEN unless the options name another."""
        options = {"api_key": TOKEN, "timeout": PATIENCE, **options}
        return Client(options.pop("api_key"), base_url=self.url, **options)

    def wait_closed(self, count: int = 1) -> bool:
        """Return whether so many connections are closed soon."""
        return wait_until(lambda: self.closed >= count, 2.0)

    @property
    def used(self) -> List[int]:
        """On which connection each request came."""
        return [request.connection for request in self.requests]

    def _accept(self) -> None:
        try:
            while True:
                sock = self._listener.accept()[0]
                self._sockets.append(sock)
                number, self.connections = self.connections, self.connections + 1
                threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()
        except OSError:  # the end, or a shortage of file descriptors: let clients fail at once
            self._listener.close()

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
            close_socket(sock)
            self.closed += 1

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


def close_socket(sock: socket.socket) -> None:
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


def wait_until(is_true: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    """Return whether something comes true in time; works where time.sleep is patched, too."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while not is_true() and time.monotonic() < end:
        pause.wait(0.005)
    return bool(is_true())


def answer(
    body: Any = b"",
    status: int = 200,
    *headers: str,
    type: str = JSON_TYPE,
    chunks: Optional[int] = None,
) -> bytes:
    """Return an HTTP answer; a body that is no bytes is JSON; `chunks` are so many bytes each."""
    text: bytes = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {type}", *headers]
    if chunks is None:
        head.append(f"Content-Length: {len(text)}")
    else:
        head.append("Transfer-Encoding: chunked")
        text = b"".join(chunk(text[i : i + chunks]) for i in range(0, len(text), chunks)) + LAST
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


LAST = b"0\r\n\r\n"  # ends a chunked body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(*pieces: bytes, type: str = SSE_TYPE) -> bytes:
    """Return an answer in chunks, without its end."""
    return answer(type=type, chunks=1)[: -len(LAST)] + b"".join(map(chunk, pieces))


def sse(*payloads: Any, done: bool = True) -> bytes:
    """Return payloads as the body of an event stream."""
    texts = [item if isinstance(item, str) else json.dumps(item) for item in payloads]
    return "".join(f"data: {text}\n\n" for text in texts + ["[DONE]"] * done).encode()


def sse_answer(*payloads: Any, done: bool = True) -> bytes:
    """Return payloads as an HTTP answer that is a chunked event stream."""
    return answer(sse(*payloads, done=done), type=SSE_TYPE, chunks=65536)


def delta(
    content: Optional[str] = None, finish_reason: Any = None, **fields: Any
) -> Dict[str, Any]:
    """Return a chunk as the API sends it."""
    part = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": {**part, **fields}, "finish_reason": finish_reason}
    head = {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice]}


def completion(
    content: Optional[str] = "Hi", finish_reason: str = "stop", **fields: Any
) -> Dict[str, Any]:
    """Return a whole answer as the API sends it."""
    message = {"role": "assistant", "content": content, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 0.5}
    head = {"id": "x1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage}


def cut(wire: bytes) -> Answer:
    """Return an answer after which the server closes the connection, whatever the bytes say."""
    return lambda sock, request: sock.sendall(wire)


def reset(wire: bytes = b"") -> Answer:
    """Return an answer that ends in a RST after these bytes."""

    def send(sock: socket.socket, request: Request) -> None:
        sock.sendall(wire)
        threading.Event().wait(0.02 if wire else 0)  # for the client to read them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    return send


def silence(sock: socket.socket, request: Request) -> bool:
    """Answer nothing; wait for the client to close the connection."""
    while sock.recv(65536):
        pass
    return False


def then_silence(wire: bytes) -> Answer:
    """Return an answer after which the server waits for the client to close the connection."""

    def send(sock: socket.socket, request: Request) -> bool:
        sock.sendall(wire)
        return silence(sock, request)

    return send


def drip(head: bytes, again: bytes, size: int = 1) -> Answer:
    """Return an answer that goes on for ever, so many bytes each 0.02 s."""

    def send(sock: socket.socket, request: Request) -> None:
        sock.sendall(head)
        for start in itertools.cycle(range(0, len(again), size)):
            threading.Event().wait(0.02)
            sock.sendall(again[start : start + size])

    return send


@contextlib.contextmanager
def served(*answers: Answer, **options: Any) -> Iterator[Tuple[Server, Client]]:
    """Yield a server that gives the answers, and a client of it that tries once."""
    with Server(*answers) as server, server.client(**{"max_retries": 0, **options}) as client:
        yield server, client


def text_of(request: Request) -> str:
    """Return the content of a request's last message."""
    return str(request.json["messages"][-1]["content"])


# ---- The documented exchanges --------------------------------------------------------------------

# As DeepInfra's pages print them. The pages of two models differ in the model's name and in white
# space alone: `documented(text, model)` is a text as the page of that model has it.
SEED_MODELS = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B")

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

SEED_STREAM_TEXTS = (" ", " Hi", "!", "", "</s>")
SEED_STREAM_LINES = [  # one page prints `data: [DONE]` after them, one does not
    'data: {"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk", '
    '"created": 1694623354, "model": "deepseek-ai/DeepSeek-R1", "choices": [{"index": 0, '
    f'"delta": {part}}}]}}'
    for part in (
        *(
            f'{{"role": "assistant", "content": "{t}"}}, "finish_reason": null'
            for t in SEED_STREAM_TEXTS
        ),
        '{}, "finish_reason": "stop"',
    )
]


def documented(text: str, model: str) -> str:
    """Return a documented text as the page of the model has it."""
    if model == SEED_MODELS[1]:
        text = "\n".join(line.strip() for line in text.split("\n"))
    return text.replace(SEED_MODELS[0], model)


# ---- The offline try-out -------------------------------------------------------------------------


def stand_in(sock: socket.socket, request: Request, pause: float = 0.0) -> bool:
    """Answer as DeepInfra's documentation does; a stream brings a word a chunk."""
    question = request.json if request.body else {}
    model = question.get("model")
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        reply = answer({"error": {"message": "Not authenticated"}}, 401)
    elif request.path.endswith("/models"):
        reply = answer({"data": [{"id": name} for name in SEED_MODELS]})
    elif model not in SEED_MODELS:
        reply = answer({"detail": {"error": f"The model `{model}` does not exist"}}, 404)
    else:
        text = SEED_LAMB_ANSWER if len(question["messages"]) > 2 else SEED_HELLO_ANSWER
        whole = json.loads(documented(text, model))
        message = whole["choices"][0]["message"]
        message["content"] = message["content"].strip()  # one begins with a space
        if question.get("stream"):
            send_words(sock, whole, pause)
            return True
        reply = answer(whole)
    sock.sendall(reply)
    return True


def send_words(sock: socket.socket, whole: Dict[str, Any], pause: float) -> None:
    sock.sendall(chunked())
    for word in re.findall(r"\S+\s*", whole["choices"][0]["message"]["content"]):
        sock.sendall(chunk(sse(delta(word), done=False)))
        time.sleep(pause)
    sock.sendall(chunk(sse({**delta(finish_reason="stop"), "usage": whole["usage"]})) + LAST)


def try_out(argv: List[str]) -> int:
    """Run the command line against the stand-in, whatever the environment says of other servers."""
    notice = "Offline demo: a local stand-in answers with examples from DeepInfra's documentation;"
    print(notice, "no model is asked.", file=sys.stderr, flush=True)
    for name in list(os.environ):
        if name.startswith("DEEPINFRA_"):
            del os.environ[name]
    with Server(functools.partial(stand_in, pause=0.05)) as server:
        os.environ.update(DEEPINFRA_TOKEN=TOKEN, DEEPINFRA_BASE_URL=server.url)
        return dim.main(argv)


if __name__ == "__main__":
    sys.exit(try_out(sys.argv[1:]))

import pytest  # noqa: E402  (the try-out above must run without it)

for name in list(os.environ):
    if name.upper().startswith("DEEPINFRA_") or name.upper().endswith("_PROXY"):
        del os.environ[name]
sys.setswitchinterval(0.0005)  # servers and clients take turns, in threads of this one process


def table(rows: Dict[str, Any]) -> List[Any]:
    """Return the parameters of a test: a table's rows, under their names."""
    return [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name)
        for name, row in rows.items()
    ]


def chat_error(wire: Answer, **options: Any) -> Any:
    """Return the error that chat() raises for an answer."""
    with served(wire, **options) as (_, client), pytest.raises(dim.DeepInfraError) as caught:
        client.chat("Hi")
    return caught.value


def stream_error(wire: Answer, **options: Any) -> Any:
    """Return the error that collect() raises for a streamed answer."""
    with served(wire, **options) as (_, client), pytest.raises(dim.DeepInfraError) as caught:
        collect(client.stream("Hi"))
    return caught.value


def shown(error: Optional[BaseException]) -> str:
    """Return all that an error shows: its traceback, and it and its causes with all attributes."""
    assert error is not None
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    texts, todo = list(report.format()), [error]
    for item in todo:
        todo += [e for e in (item.__cause__, item.__context__) if e and e not in todo]
        values = [getattr(item, name, None) for name in dir(item) if not name.startswith("__")]
        texts += [repr(item), str(item), repr(item.args), *map(str, item.args)]
        texts += [f"{value!r} {value}" for value in values if not callable(value)]
    return "\n".join(texts)


def check_all(check: Callable[..., Any], cases: Dict[str, Any]) -> None:
    """Check all rows of a table at once, since each mostly waits, and name those that fail."""

    def run(case: Any) -> str:
        try:
            check(*case)
        except BaseException:  # pytest's own are no Exceptions
            return traceback.format_exc()
        return ""

    with ThreadPoolExecutor(len(cases)) as pool:
        results = dict(zip(cases, pool.map(run, cases.values())))
    assert "\n".join(f"{name}: {text}" for name, text in results.items() if text) == ""


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Give a port that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


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


@pytest.fixture()
def waits(monkeypatch: pytest.MonkeyPatch) -> List[float]:
    """Let no time pass between attempts, but note how long it should be."""
    noted: List[float] = []
    sleep, here = time.sleep, threading.current_thread()

    def note(seconds: float) -> None:
        (noted.append if threading.current_thread() is here else sleep)(seconds)

    monkeypatch.setattr(time, "sleep", note)
    return noted


# A CA; a certificate of it for 127.0.0.1, localhost and api.example.test; the key of that. They are
# for these tests alone and hold from 2020 to 2120.
DER = {
    "CA": """
MIIBVjCB/aADAgECAgEBMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAx
MDEwMDAwMDBaMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASYdtXVFtDjhIwJiz+vhUEq
SIjTMburl1B2CmjeotXOrVdyWHP+N9LjuDbKahsutQgQFcBB/FigISv+GOQz0Rqmo0IwQDAPBgNVHRMBAf8EBTADAQH/MA4G
A1UdDwEB/wQEAwICBDAdBgNVHQ4EFgQUTKOv8l3EfywbSSNNH7FxHeQJnjYwCgYIKoZIzj0EAwIDSAAwRQIhAOW6Tsf9y0CR
nxkcl607ZZxUsR/EiWPG/hdTc1Pdqcf6AiBQHbSCY4iFcmdGSzPrJnKlgshRXj/k8lW54MqDpxJ4hg==""",
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
    """Return a folder with ca.pem and leaf.pem, which holds the key, too."""
    folder = tmp_path_factory.mktemp("pems")
    texts = {}
    for name, der in DER.items():
        kind = "PRIVATE KEY" if name.endswith("KEY") else "CERTIFICATE"
        lines = textwrap.wrap(der.replace("\n", ""), 64)
        texts[name] = "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])
    (folder / "ca.pem").write_text(texts["CA"])
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


# ---- Errors and data objects ---------------------------------------------------------------------

ERROR_BASES = {
    "DeepInfraError": "Exception",
    "ConfigurationError": "DeepInfraError ValueError",
    "APIConnectionError": "DeepInfraError",
    "APITimeoutError": "APIConnectionError TimeoutError",
    "StreamInterruptedError": "APIConnectionError",
    "APIResponseError": "DeepInfraError",
    "APIError": "DeepInfraError",
    "AuthenticationError": "APIError",
    "RateLimitError": "APIError",
    "ServerError": "APIError",
}


def check_copies(item: Any) -> None:
    pickled = [pickle.dumps(item, n) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (copy.copy(item), copy.deepcopy(item), *map(pickle.loads, pickled)):
        assert (repr(other), vars(other)) == (repr(item), vars(item))


@pytest.mark.parametrize("name", ERROR_BASES)
def test_error_classes(name: str) -> None:
    kind = getattr(dim, name)
    assert [base.__name__ for base in kind.__bases__] == ERROR_BASES[name].split()
    error = kind("no", hint="try")
    assert (str(error), error.hint, kind().hint) == ("no (try)", "try", "")
    assert (error.partial, error.is_retryable) == (None, False)
    check_copies(error)
    with pytest.raises(TypeError):
        kind("no", hnit="try")


def test_error_keeps_what_the_answer_said_and_survives_copies() -> None:
    body = {"error": {"message": "Busy", "code": "c", "param": "p", "type": "t"}, "more": [1]}
    error = chat_error(answer(body, 429, "Retry-After: 7", "X-Request-Id: r-1"))
    assert (error.status, error.message, error.body) == (429, "Busy", body)
    assert (error.code, error.param, error.type) == ("c", "p", "t")
    assert (error.request_id, error.retry_after) == ("r-1", 7.0)
    assert error.headers["content-type"] == JSON_TYPE
    check_copies(error)
    check_copies(stream_error(sse_answer(delta("Hi"), done=False)))


# An answer that is a completion, a chunk, and a list of models.
RICH: Dict[str, Any] = json.loads("""{
    "id": "x1", "object": "o", "created": 7, "model": "m", "service_tier": "flex", "new": [2],
    "usage": {
        "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 0.5,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2}
    },
    "choices": [{
        "index": 3, "finish_reason": "stop", "logprobs": {"content": [{"logprob": -0.5}]},
        "message": {
            "role": "assistant", "content": "Hi", "reasoning_content": "hm", "name": "n",
            "reasoning_details": [{"text": "hm"}],
            "tool_calls": [{
                "id": "c1", "type": "function", "extra_content": {"signature": "s"},
                "function": {"name": "f", "arguments": "{not JSON", "new": 1}
            }]
        }
    }],
    "data": [{"id": "a/b", "metadata": {"context_length": 9}}, {}, {"id": null}]
}""")
RICH_CHOICE = RICH["choices"][0]
RICH_MESSAGE = RICH_CHOICE["delta"] = RICH_CHOICE["message"]
RICH_CALL = RICH_MESSAGE["tool_calls"][0]
MADE_CALL = dim.ToolCall("c1", "function", dim.Function("f", "{not JSON"))
MADE_MESSAGE = dim.Message("assistant", "Hi", "hm", (MADE_CALL,), "n")
MADE_USAGE = dim.Usage(1, 2, 3, 0.5, {"cached_tokens": 1}, {"reasoning_tokens": 2})
MADE_ENDING = "stop", {"content": [{"logprob": -0.5}]}
MADE_HEAD = "x1", "o", 7, "m"


def rich_objects() -> List[Any]:
    """Return an answer, a chunk and a model as a client makes them."""
    with served(answer(RICH), sse_answer(RICH), answer(RICH)) as (_, client):
        return [client.chat("Hi"), *client.stream("Hi"), client.models()[0]]


def test_data_object_equals_one_made_by_hand_and_its_copies() -> None:
    expected = [
        dim.ChatCompletion(
            *MADE_HEAD, (dim.Choice(3, MADE_MESSAGE, *MADE_ENDING),), MADE_USAGE, "flex"
        ),
        dim.ChatCompletionChunk(
            *MADE_HEAD, (dim.ChunkChoice(3, MADE_MESSAGE, *MADE_ENDING),), MADE_USAGE, "flex"
        ),
        dim.Model("a/b"),
    ]
    for item, made in zip(rich_objects(), expected):
        assert (item, repr(item)) == (made, repr(made))
        assert eval(repr(item), vars(dim)) == item
        check_copies(item)
    assert dim.ToolCall("a", index=1) == dim.ToolCall("a", index=2) != dim.ToolCall("b")


def test_data_object_keeps_its_json() -> None:
    reply, chunk, model = rich_objects()
    message = reply.message
    call = message.tool_calls[0]
    items = [reply, chunk, model, reply.usage, reply.choices[0], message, call, call.function]
    raws = [RICH, RICH, RICH["data"][0], RICH["usage"], RICH_CHOICE, RICH_MESSAGE, RICH_CALL]
    assert [item.raw for item in items] == [*raws, RICH_CALL["function"]]
    assert (dim.Usage().raw, dim.Usage(raw={"new": 1}).raw) == ({}, {"new": 1})


def test_text_is_the_first_choices_and_in_a_chunk_that_of_index_0() -> None:
    reply, chunk, _ = rich_objects()
    assert (reply.text, chunk.text) == ("Hi", "")
    chunk.choices += (dim.ChunkChoice(0, dim.Message(content="a")),)
    assert chunk.text == "a"
    assert dim.ChatCompletion().text == dim.ChatCompletionChunk().text == ""


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the hints are written as in Python 3.10")
def test_public_classes_have_type_hints() -> None:
    for value in [getattr(dim, name) for name in dim.__all__]:
        if isinstance(value, type):
            assert isinstance(typing.get_type_hints(value), dict)


# ---- Settings of a client ------------------------------------------------------------------------

TOKEN_VARIABLES = ("DEEPINFRA_TOKEN", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN")
ASCII_TOKEN = "".join(map(chr, range(33, 127)))
TOKEN_SOURCES = [  # the argument, the variables, the token that is sent
    ("a", ["b", "c", "d"], "a"),
    (None, ["b", "c", "d"], "b"),
    (None, ["", "c", "d"], "c"),
    (None, ["", " ", "d"], "d"),
    (None, [], None),
    ("", ["b", "c", "d"], None),
    (" \t a\n", [], "a"),
    (None, ["'b'"], "b"),
    (None, [' " b "\r\n'], "b"),
    ("jwt:a.b-c_d~+/=", [], "jwt:a.b-c_d~+/="),
    (ASCII_TOKEN, [], ASCII_TOKEN),
]


def client_refusal(api_key: Any = TOKEN, **options: Any) -> Any:
    """Return the error of a client that can't be made, with the module's frames alone."""
    with pytest.raises(dim.ConfigurationError) as caught:
        Client(api_key, **options)
    error = caught.value.with_traceback(caught.tb.tb_next)
    assert TOKEN not in shown(error)
    return error


@pytest.mark.parametrize("api_key, variables, token", TOKEN_SOURCES)
def test_token_source(
    api_key: Any, variables: List[str], token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(TOKEN_VARIABLES, variables):
        monkeypatch.setenv(name, value)
    with served(answer([]), api_key=api_key) as (server, client):
        monkeypatch.setenv("DEEPINFRA_TOKEN", "later")  # the variables were read by now
        client.request("GET", "/x")
    header = server.requests[0].headers.get("authorization")
    assert header == (token and f"Bearer {token}")


@pytest.mark.parametrize("source", ["api_key", *TOKEN_VARIABLES])
def test_malformed_token_names_its_source_and_is_not_shown(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bad in ("\u00e9", "\u2028", "\u20ac", "\n", "\r\nX: y", "\t", "\x7f", "\x1b"):
        token: Optional[str] = f"sk-secret{bad}0123"
        if source != "api_key":
            monkeypatch.setenv(source, f"sk-secret{bad}0123")
            token = None
        error = client_refusal(token)
        assert (error.setting, source in str(error)) == ("api_key", True)
        assert not re.search("secret|0123", shown(error))


PLAIN_URLS = [
    "HTTP://192.168.1.2",
    "http://localhost.example.com/v1",
    "http://127.0.0.1.example.com",
    "http://128.0.0.1",
    "http://127.999.1.1",
    "http://[::2]",
    "http://[2001:db8::1]:8000/v1",
]
BAD_URLS = [
    "file:///etc/passwd",
    "ftp://localhost/v1",
    "data:application/json,{}",
    "ws://localhost",
    "api.deepinfra.com/v1/openai",
    "localhost:8000",
    "//localhost",
    "/v1/openai",
    "https://",
    "https:///v1",
    "https:api.deepinfra.com",
    "http://[::1",
    "https://api.deepinfra.com:x",
    "https://api.deepinfra.com:99999",
    "https://a b.com",
    "https://a.com/\r\nX: y",
    "https://a.com/?x=y",
    "http://127.0.0.1@example.com",
    "http://example.com#@localhost",
    "http://example.com?@127.0.0.1",
    "http://\\127.0.0.1",
    "http://example.com\\@127.0.0.1",
    "nonsense",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_base_url_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client_refusal(base_url=url).setting == "base_url"
    monkeypatch.setenv("DEEPINFRA_BASE_URL", url)
    monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)
    error = client_refusal(None)
    assert (error.setting, "DEEPINFRA_BASE_URL" in error.hint) == ("base_url", True)


def test_base_url_of_an_odd_host_is_refused_or_taken() -> None:
    for host in ("[1]", "[:::]", "[fe80::1%25eth0]", "[v1.x]", "a..b", "-", "x" * 64):
        with contextlib.suppress(dim.ConfigurationError):  # each Python has a view of its own
            Client(TOKEN, base_url=f"https://{host}/v1")


@pytest.mark.parametrize("url", PLAIN_URLS)
def test_plain_http_takes_a_token_to_loopback_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Client("", base_url=url)
    assert client_refusal(None, base_url=url).setting == "api_key"
    client_refusal("", base_url=url, headers={"authorization": f"Basic {TOKEN}"})
    assert client_refusal(base_url=url).setting == "base_url"
    monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)
    assert client_refusal(None, base_url=url).setting == "base_url"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.8.9.10", "[::1]"])
def test_token_may_go_to_loopback_or_be_missing_there(host: str) -> None:
    for api_key, source in ((TOKEN, "api_key"), (None, "none")):
        client = Client(api_key, base_url=f"http://{host}:8000/v1")
        assert repr(client) == f"<Client http://{host}:8000/v1, token: {source}>"
    assert client_refusal(base_url=f"http://{host}", proxy="h").setting == "base_url"


def test_missing_token_names_the_variable_and_where_to_get_one() -> None:
    assert re.search(r"DEEPINFRA_TOKEN.*https://deepinfra\.com/", str(client_refusal(None)))


BASE_URL_SOURCES = [  # the argument, the variable, what counts
    (None, "", "https://api.deepinfra.com/v1/openai"),
    (None, "https://b.example/v1", "https://b.example/v1"),
    ("https://a.example/v1", "https://b.example/v1", "https://a.example/v1"),
    (" https://a.example/v1/", "", "https://a.example/v1"),
    ("HTTPS://a.example", "", "https://a.example"),
]


@pytest.mark.parametrize("argument, variable, expected", BASE_URL_SOURCES)
def test_base_url_source(
    argument: Optional[str], variable: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPINFRA_BASE_URL", variable)
    client = Client(TOKEN, base_url=argument)
    monkeypatch.setenv("DEEPINFRA_BASE_URL", "https://later.example")
    assert client.base_url.lower() == expected


BAD_HEADERS = [
    ("X-Key", "hunter2\r\nX: y"),
    ("X-Key", "hunter2\n"),
    ("X-Key", "hunter2\x00"),
    ("X-Key", "hunter2\u20ac"),
    ("X-Key", None),
    ("X-Key", b"hunter2"),
    ("X-Key\r\nX", "hunter2"),
    ("X Key", "hunter2"),
    ("X:Key", "hunter2"),
    (b"X-Key", "hunter2"),
    ("Transfer-Encoding", "chunked"),
    ("", "hunter2"),
    ("Authorization", "Basic hunter2"),  # beside a token
]


@pytest.mark.parametrize("name, value", BAD_HEADERS)
def test_header_refused(name: Any, value: Any) -> None:
    error = client_refusal(headers={name: value})
    assert (error.setting, repr(name)[1:-1] in str(error)) == ("headers", True)
    assert "hunter2" not in f"{error} {vars(error)}"


def test_headers_of_the_caller_replace_ours() -> None:
    headers = {"user-agent": "mine", "x-name": "caf\u00e9", "authorization": "Basic x", "x-no": ""}
    options = {name.upper(): value for name, value in headers.items()}
    with served(answer([])) as (server, client):
        for one in (client, server.client(api_key="", headers=options)):
            one.request("GET", "/x")
            one.close()
    ours, theirs = [request.headers for request in server.requests]
    assert re.fullmatch(rf"deepinfra_min/{dim.__version__} Python/3\.\d+\.\d+", ours["user-agent"])
    assert (ours["authorization"], ours["content-type"]) == (f"Bearer {TOKEN}", JSON_TYPE)
    assert theirs == {**ours, **headers}


REFUSED_PROXIES = {
    "socks5://me:hunter2@127.0.0.1:1": "socks5://127.0.0.1:1",
    "https://me:hunter2@127.0.0.1:1": "https://127.0.0.1:1",
    "http:/me:hunter2@127.0.0.1:1": "proxy",
    "http://me:12#hunter2@127.0.0.1:1": "proxy",
    "http://me:hunter2\udcff@127.0.0.1": "proxy",
    "http://127.0.0.1:99999": "proxy",
    "me:hunter2@127.0.0.1:x": "proxy",
    "http://me:hunter2@": "proxy",
    "http://me:hunter2@[::1": "proxy",
}


@pytest.mark.parametrize("proxy", REFUSED_PROXIES)
def test_proxy_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [client_refusal(base_url="http://127.0.0.1", proxy=proxy)]
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        errors.append(client_refusal("", base_url=f"{scheme}://a.example"))
    for error in errors:
        assert (error.setting, REFUSED_PROXIES[proxy] in str(error)) == ("proxy", True)
        assert "hunter2" not in f"{error} {vars(error)}"
    Client(TOKEN, base_url="http://127.0.0.1")  # for which no proxy counts
    monkeypatch.setenv("no_proxy", "a.example")
    Client(TOKEN, base_url="https://a.example")


@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "deadline", "max_retries"])
def test_limit_refused(name: str) -> None:
    others = [1.5, None] if name == "max_retries" else [0, 0.0]
    for value in (-1, float("nan"), float("-inf"), "5", b"5", [], *others):
        error = client_refusal(**{name: value})
        assert (error.setting, name in str(error)) == (name, True)


def test_limit_may_be_huge_or_none() -> None:
    for value in (None, float("inf"), 1e300, 10**30):
        limits = dict.fromkeys(["timeout", "connect_timeout", "deadline"], value)
        with served(answer([]), **limits) as (_, client):
            assert client.request("GET", "/x") == []


def test_client_repr_shows_no_secret() -> None:
    client = Client("secret1", base_url=EXAMPLE, headers={"X-Key": "secret2"}, proxy="me:secret3@h")
    assert repr(client) == f"<Client {EXAMPLE}, token: api_key>"
    assert repr(Client.__new__(Client)) == "<Client , token: none>"  # one that can't be made


def test_client_pickles_with_its_settings() -> None:
    with served(answer([]), headers={"X-Team": "blue"}, timeout=7) as (server, client):
        client.request("GET", "/x")
        with pickle.loads(pickle.dumps(client)) as other:
            other.request("GET", "/x")
    first, second = server.requests
    assert (first[:4], server.used) == (second[:4], [0, 1])
    assert (second.headers["x-team"], other.timeout, repr(other)) == ("blue", 7, repr(client))


def test_client_reads_the_environment_again_when_it_is_unpickled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Server(answer(["by proxy"])) as proxy:
        pickled = pickle.dumps(Client("", base_url="http://a.example"))
        monkeypatch.setenv("http_proxy", proxy.origin)
        with pickle.loads(pickled) as client:
            assert client.request("GET", "/x") == ["by proxy"]


# ---- Requests ------------------------------------------------------------------------------------

ONE_MESSAGE = {"role": "user", "content": "Hi"}
MESSAGE_PARTS: Any = [{"type": "image_url", "image_url": {"url": "data:x"}}]
CALLS_JSON = (
    '"tool_calls": [{"id": "c1", "type": "function",'
    '"function": {"name": "f", "arguments": "{not JSON"}}]'
)
SENT_MESSAGES: Dict[str, Any] = {  # what is sent, and what for
    '{"a": null, "b": [null, {"c": null}], "d": "\\ud83d"}': types.MappingProxyType(
        {"a": None, "b": [None, {"c": None}], "d": "\ud83d"}
    ),
    '{"role": "x", "content": ""}': dim.Message("x", ""),
    '{"role": "user", "content": null}': dim.Message("user"),
    f'{{"content": null, "reasoning_content": "hm", "tool_call_id": "c0", {CALLS_JSON}}}': (
        dim.Message(None, None, "hm", (MADE_CALL,), None, "c0")
    ),
    f'{{"x": "in a mapping", {CALLS_JSON}}}': {"x": "in a mapping", "tool_calls": [MADE_CALL]},
    f'{{"role": "user", "content": {json.dumps(MESSAGE_PARTS)}}}': dim.Message(
        "user", MESSAGE_PARTS
    ),
    '{"role": "user", "content": "new", "more": 0}': dim.Message(
        "user", "new", raw={"content": "old", "name": "n", "more": 0, "no": None, "index": 1}
    ),
}


def sent_by_chat(messages: Any, **params: Any) -> Any:
    """Return the JSON that chat() sends."""
    with served(answer(completion())) as (server, client):
        client.chat(messages, **params)
    return server.requests[0].json


def test_messages_on_the_wire() -> None:
    expected = [json.loads(text) for text in SENT_MESSAGES]
    assert sent_by_chat(iter(SENT_MESSAGES.values()))["messages"] == expected
    assert sent_by_chat("")["messages"] == [{"role": "user", "content": ""}]
    assert sent_by_chat(())["messages"] == []


def test_reply_goes_back_with_fields_that_we_do_not_know() -> None:
    with served(answer(RICH), sse_answer(RICH), answer(completion())) as (server, client):
        replies = [client.chat("Hi").message, collect(client.stream("Hi")).message]
        client.chat([*replies, {"tool_calls": list(replies[0].tool_calls)}])
    back = [RICH_MESSAGE, RICH_MESSAGE, {"tool_calls": [RICH_CALL]}]
    assert server.requests[2].json["messages"] == back


BAD_CALLS = [
    (ONE_MESSAGE, None, "a list"),
    (dim.Message("user", "Hi"), None, "a list"),
    ("Hi", True, r"stream\(\)"),
    ("Hi", False, r"stream\(\)"),
    ([{"content": object()}], None, "object"),
]


@pytest.mark.parametrize("messages, stream, words", BAD_CALLS)
def test_call_that_can_not_be_sent_is_a_type_error(messages: Any, stream: Any, words: str) -> None:
    client = Client("", base_url="http://127.0.0.1:1")
    for ask in (client.chat, client.stream):
        with pytest.raises(TypeError, match=words):
            ask(messages, stream=stream)


def test_long_request_arrives_as_it_is() -> None:
    text = "0123456789" * 20_000
    assert sent_by_chat(text)["messages"][0]["content"] == text


def test_params_pass_unchecked_and_none_is_left_out() -> None:
    assert sent_by_chat("Hi") == {"model": "deepseek-ai/DeepSeek-R1", "messages": [ONE_MESSAGE]}
    params = {"temperature": 99, "seed": 0, "n": False, "nonsense": {"a": [None]}, "user": ""}
    expected = {"model": "m", "messages": [ONE_MESSAGE], **params}
    assert sent_by_chat("Hi", model="m", stop=None, stream=None, **params) == expected
    with served(sse_answer(delta("Hi", "stop"))) as (server, client):
        list(client.stream("Hi", model="m", stop=None, **params))
    assert server.requests[0].json == {**expected, "stream": True}


@pytest.mark.parametrize("method", ["GET", "GET /x HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET"])
@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:{port}/x",
        "//127.0.0.1:{port}/x",
        "@127.0.0.1:{port}/x",
        ":{port}/x",
        "/../x",
        "\\\\127.0.0.1:{port}\\x",
        "/x HTTP/1.1\r\nX-Evil: 1",
        "/x\r\n\r\nGET /y",
        "/\u00e9 \x00\x7f",
    ],
)
def test_request_goes_to_its_server_and_is_one_line(method: str, path: str) -> None:
    with Server(answer({})) as other, served(answer({"ok": 1})) as (server, client):
        with contextlib.suppress(dim.DeepInfraError, ValueError):
            assert client.request(method, path.format(port=other.port)) == {"ok": 1}
    assert (other.requests, len(server.requests) < 2) == ([], True)
    for request in server.requests:
        assert request.path.startswith("/v1/openai/")
        assert "x-evil" not in request.headers


def test_request_of_any_endpoint() -> None:
    with served(answer({"data": [1, None]}), answer([2]), answer(b"")) as (server, client):
        payload = {"input": "a", "x": None}
        assert client.request("POST", "/embeddings", payload) == {"data": [1, None]}
        assert client.request("DELETE", "files/a b?c=d&e=%20") == [2]
        assert client.request("GET", "/empty") is None
    post, delete, get = server.requests
    assert post[:2] == ("POST", "/v1/openai/embeddings")
    assert post.json == payload
    assert delete[:2] == ("DELETE", "/v1/openai/files/a%20b?c=d&e=%20")
    assert delete.body == get.body == b""


def test_models() -> None:
    with served(answer(RICH), answer({"data": None}), answer({})) as (server, client):
        models = client.models()
        assert client.models() == client.models() == []
    assert models == [dim.Model("a/b"), dim.Model(), dim.Model()]
    assert server.requests[0][:2] == ("GET", "/v1/openai/models")


# ---- Whole answers -------------------------------------------------------------------------------

EMPTY_CHOICE = dim.Choice()
TOLERATED_CHOICES = {
    "{}": EMPTY_CHOICE,
    '{"message": null, "index": null, "finish_reason": null, "logprobs": null}': EMPTY_CHOICE,
    '{"message": {}, "new": 1}': EMPTY_CHOICE,
    '{"message": {"role": null, "content": null, "name": null, "new": 2}}': EMPTY_CHOICE,
    '{"message": {"reasoning_content": null, "tool_calls": null}}': EMPTY_CHOICE,
    '{"message": {"tool_calls": []}}': EMPTY_CHOICE,
    '{"index": 3, "finish_reason": "tired"}': dim.Choice(3, finish_reason="tired"),
    '{"message": {"content": "\\u2028\\u0000\\ud83d"}}': dim.Choice(
        0, dim.Message("assistant", "\u2028\x00\ud83d")
    ),
    '{"message": {"tool_calls": [{}, {"id": null, "type": null, "function": null}]}}': dim.Choice(
        0, dim.Message("assistant", tool_calls=(dim.ToolCall(), dim.ToolCall()))
    ),
    '{"message": {"tool_calls": [{"function": {"name": null, "arguments": null}}]}}': dim.Choice(
        0, dim.Message("assistant", tool_calls=(dim.ToolCall(),))
    ),
}
NULL_FIELDS = (
    '"id": null, "object": null, "created": null, "model": null, "error": {}, "detail": "x"'
)


@pytest.mark.parametrize("text", TOLERATED_CHOICES)
def test_answer_is_parsed_tolerantly(text: str) -> None:
    usage = '{"prompt_tokens": null, "new": 1, "total_tokens": 3}'
    body = f'{{"choices": [{text}], "usage": {usage}, "new": [3], {NULL_FIELDS}}}'
    with served(answer(b"\xef\xbb\xbf" + body.encode())) as (_, client):
        reply = client.chat("Hi")
    choice, counted = TOLERATED_CHOICES[text], dim.Usage(total_tokens=3)
    assert reply == dim.ChatCompletion(choices=(choice,), usage=counted)
    assert (reply.raw, reply.text) == (json.loads(body), choice.message.content or "")


WRONG_SHAPES = {
    "[]": "the answer: expected an object, got list",
    "1.5": "the answer: expected an object, got float",
    '{"choices": {}}': "choices: expected an array, got dict",
    '{"choices": ["Hi"]}': "choices[0]: expected an object, got str",
    '{"choices": [null]}': "choices[0]: expected an object, got NoneType",
    '{"choices": [{}, []]}': "choices[1]: expected an object, got list",
    '{"choices": [{"index": "0"}]}': "choices[0].index: expected an integer, got str",
    '{"choices": [{"logprobs": [1]}]}': "choices[0].logprobs: expected an object, got list",
    '{"choices": [{"message": "Hi"}]}': "choices[0].message: expected an object, got str",
    '{"choices": [{"message": false}]}': "choices[0].message: expected an object, got bool",
    '{"choices": [{"message": {"content": {}}}]}': (
        "choices[0].message.content: expected a string, got dict"
    ),
    '{"choices": [{"message": {"content": 0}}]}': (
        "choices[0].message.content: expected a string, got int"
    ),
    '{"choices": [{"message": {"reasoning_content": ["x"]}}]}': (
        "choices[0].message.reasoning_content: expected a string, got list"
    ),
    '{"choices": [{"message": {"tool_calls": {}}}]}': (
        "choices[0].message.tool_calls: expected an array, got dict"
    ),
    '{"choices": [{"message": {"tool_calls": [{}, "f"]}}]}': (
        "choices[0].message.tool_calls[1]: expected an object, got str"
    ),
    '{"choices": [{"message": {"tool_calls": [{"function": "f"}]}}]}': (
        "choices[0].message.tool_calls[0].function: expected an object, got str"
    ),
    '{"choices": [{"message": {"tool_calls": [{"function": {"arguments": {}}}]}}]}': (
        "choices[0].message.tool_calls[0].function.arguments: expected a string, got dict"
    ),
    '{"usage": [1], "choices": [{}]}': "usage: expected an object, got list",
    '{"usage": {"prompt_tokens_details": 1}, "choices": [{}]}': (
        "usage.prompt_tokens_details: expected an object, got int"
    ),
}
NO_ANSWERS = {
    "": "the answer is empty",
    "{}": "the answer has no choices",
    '{"choices": []}': "the answer has no choices",
    '{"choices": null, "usage": {}}': "the answer has no choices",
    '{"error": null, "detail": null}': "the answer has no choices",
}
WRONG_MODELS = {
    "": "the answer is empty",
    "[]": "the answer: expected an object, got list",
    '{"data": {}}': "data: expected an array, got dict",
    '{"data": [{}, "m"]}': "data[1]: expected an object, got str",
}


@pytest.mark.parametrize("text, place", {**WRONG_SHAPES, **NO_ANSWERS}.items())
def test_answer_of_a_wrong_shape_says_where(text: str, place: str) -> None:
    error = chat_error(answer(text.encode()))
    assert (type(error), error.args[0]) == (dim.APIResponseError, place)
    assert (error.body, "portal" in str(error)) == (text, False)


@pytest.mark.parametrize("text", WRONG_SHAPES)
def test_chunk_of_a_wrong_shape_says_where(text: str) -> None:
    error = stream_error(sse_answer(delta("Hi"), text.replace("message", "delta")))
    place = WRONG_SHAPES[text].replace(".message", ".delta")
    assert (type(error), error.args[0]) == (dim.APIResponseError, place)
    assert error.partial.text == "Hi"


@pytest.mark.parametrize("text", WRONG_MODELS)
def test_models_of_a_wrong_shape_say_where(text: str) -> None:
    with served(answer(text.encode())) as (_, client):
        with pytest.raises(dim.APIResponseError) as caught:
            client.models()
    assert caught.value.args[0] == WRONG_MODELS[text]


@pytest.mark.parametrize(
    "body",
    [
        b" \n<html><body>Welcome to the hotel</body></html>" + b"x" * 300,
        b'{"id": "x"',
        b'{"a": 1} {"b": 2}',
        b"data: {}\n\n",
        b"\xff\xfe",
        b"\x80" * 300,
        b'{"a":\x00}',
        b"null",
    ],
    ids=repr,
)
def test_answer_that_is_no_json_object_shows_its_first_characters(body: bytes) -> None:
    error = chat_error(answer(body))
    assert type(error) is dim.APIResponseError
    assert error.body == body.decode("utf-8", "replace")[:200]
    assert repr(error.body) in str(error)
    assert ("captive portal" in error.hint) == (b"<" in body)


@pytest.mark.parametrize("opening", ["[", '{"choices":', '{"error":'])
def test_json_of_any_depth_gives_one_of_our_errors(opening: str) -> None:
    body = opening.encode() * 99_999
    assert type(chat_error(answer(body))) is dim.APIResponseError
    assert chat_error(answer(body, 400)).status == 400


TOO_MANY_OBJECTS = {
    "choices": b'{"choices": [%s]}',
    "tool_calls": b'{"choices": [{"message": {"tool_calls": [%s]}}]}',
    "data": b'{"data": [%s]}',
}


@pytest.mark.parametrize("name", TOO_MANY_OBJECTS)
def test_more_than_10_000_items_are_refused(name: str) -> None:
    wires = [answer(TOO_MANY_OBJECTS[name] % (b"{}," * count + b"{}")) for count in (9_999, 10_000)]
    with served(*wires) as (_, client):
        ask: Any = client.models if name == "data" else functools.partial(client.chat, "Hi")
        ask()
        with pytest.raises(dim.APIResponseError, match=name):
            ask()


def error_and_memory(wire: bytes) -> Tuple[Any, int]:
    """Return chat()'s error for an answer, and how many bytes of memory it took."""
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        return chat_error(wire), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_3_mb_of_choices_take_little_memory() -> None:
    error, most = error_and_memory(
        answer(TOO_MANY_OBJECTS["choices"] % (b"{}," * 1_000_000 + b"{}"))
    )
    assert (type(error), most < 300 << 20) == (dim.APIResponseError, True)


# ---- Error answers -------------------------------------------------------------------------------

ERROR_BODIES = {
    '{"error": {"message": "Not authenticated", "param": null, "code": null}}': "Not authenticated",
    '{"detail": "Unauthorized"}': "Unauthorized",
    '{"detail": {"error": "Add a payment method"}}': "Add a payment method",
    '{"message": "context exceeded"}': "context exceeded",
    '{"detail": [{"loc": ["body", "n"], "msg": "low"}, {"loc": ["x", 0], "msg": "high"}]}': (
        "body.n: low; x.0: high"
    ),
    '"overloaded"': "overloaded",
    " upstream timed out\n": "upstream timed out",
    '{"error": "caf\\u00e9 \\ud83d\\ude00"}': "caf\u00e9 \U0001f600",
    '{"error": "\\n\\u001b[2Ja\\r\\nb\\u0000c\\u2028d\\u009be\\u202ef\\ud83d\\t"}': (
        "[2Ja  b c d e f"
    ),
    " \x1b]0;title\x07 down\n": "]0;title  down",
    "<!DOCTYPE html><b>Bad gateway</b>": "an HTML page",
    " \n<html><title></title>": "an HTML page",
    "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n": (
        "an HTML page: 400 No required SSL certificate was sent"
    ),
    "<HTML><MADE_HEAD><TITLE>\n Bad \x1b[2J Request</TITLE><TITLE>2</TITLE>": (
        "an HTML page: Bad  [2J Request"
    ),
}


@pytest.mark.parametrize("text", ERROR_BODIES)
def test_error_body_yields_its_human_message(text: str) -> None:
    error, message = chat_error(answer(text.encode(), 400)), ERROR_BODIES[text]
    assert (error.message, error.args[0]) == (message, f"HTTP 400: {message}")
    assert error.body == (json.loads(text) if text[0] in '{"' else text)
    is_html = bool(re.search("proxy or gateway.*base URL", error.hint))
    assert (is_html, "shorten" in error.hint) == ("HTML" in message, not is_html)


@pytest.mark.parametrize("text", ['{"error": "x"}', "x", "<title>x</title>"])
def test_error_message_is_cut_but_not_the_body(text: str) -> None:
    error = chat_error(answer(text.replace("x", "x" * 5000).encode(), 500))
    assert re.fullmatch(".{16}x{984}", error.message)
    assert (len(str(error)) < 1300, "x" * 5000 in str(error.body)) == (True, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"error": null}',
        b'{"error": {}}',
        b'{"error": 7}',
        b'{"detail": []}',
        b'{"detail": [null, [], "x", {"loc": 1}]}',
        b'{"error": {"message": {}}}',
        b'{"error": {"message": ["a"], "code": {}, "type": []}}',
        b'{"detail": {"detail": {"error": {"error": "x"}}}}',
        b"\xff\xfe\x00",
        b'{"error": "\\ud83d"}',
        b'{"error": "\\n"}',
    ],
    ids=repr,
)
def test_error_body_of_any_other_shape_is_still_the_error_of_its_status(body: bytes) -> None:
    error = chat_error(answer(body, 500))
    assert (type(error), error.status) == (dim.ServerError, 500)
    assert (bool(error.message), error.message.isprintable()) == (True, True)


STATUS_CLASSES = {
    "APIError": [300, 304, 307, 400, 404, 408, 499],
    "AuthenticationError": [401, 403],
    "RateLimitError": [429],
    "ServerError": [500, 502, 529, 599],
}


@pytest.mark.parametrize("name", STATUS_CLASSES)
def test_error_class_goes_by_status(name: str) -> None:
    for status in STATUS_CLASSES[name]:
        body = {"error": {"message": "m", "type": "rate_limit_error", "code": 418}}
        error = chat_error(answer(body, status))
        assert (type(error).__name__, error.status) == (name, status)


TRY_LATER = "try again later"
STATUS_HINTS = {  # words in the error of an answer, and words that would mislead
    "307, Location: /x": ("to /x .*redirects are refused", "None"),
    "307": ("redirects are refused", "None|, to"),
    "400": ("check the parameters.*shorten", TRY_LATER),
    "401": ("check the token, from api_key", "shorten"),
    "402": ("payment method", TRY_LATER),
    "404": (r"base URL.*models\(\)", TRY_LATER),
    "405": ("choose another", TRY_LATER),
    "413": ("too large", TRY_LATER),
    "422": ("correct.*parameters", "-v"),
    "429": ("fewer requests", "asks"),
    "429, Retry-After: 60": ("fewer requests", "60 s"),
    "429, Retry-After: 86400": ("86,?400 s", "None"),
    "500": (TRY_LATER, "shorten"),
    "501": ("HTTP 501", TRY_LATER),
}


@pytest.mark.parametrize("case", STATUS_HINTS)
def test_error_hint(case: str) -> None:
    (status, *headers), (words, misleading) = case.split(", "), STATUS_HINTS[case]
    text = str(chat_error(answer({"error": "m"}, int(status), *headers)))
    assert re.search(words, text)
    assert not re.search(misleading, text)


def test_error_hint_without_a_token() -> None:
    assert "set DEEPINFRA_TOKEN" in chat_error(answer(b"", 401), api_key=None).hint


RETRY_AFTER_HEADERS = {
    "X: y": None,
    "Retry-After: 7": 7.0,
    "Retry-After: \t 7 \t": 7.0,
    "Retry-After: 0": 0.0,
    "Retry-After: 1.5": 1.5,
    "Retry-After: 86400": 86400.0,
    "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT": 0.0,
    "Retry-After: Wed, 99 Oct 2015 07:28:00 GMT": None,
    "Retry-After: soon": None,
    "Retry-After: -5": None,
    "Retry-After: nan": None,
    "Retry-After: \xb2": None,
    "Retry-After:": None,
    "Retry-After-Ms: 250": None,
}


@pytest.mark.parametrize("header", RETRY_AFTER_HEADERS)
def test_error_retry_after(header: str) -> None:
    assert chat_error(answer({}, 503, header)).retry_after == RETRY_AFTER_HEADERS[header]


def test_error_retry_after_of_a_date_to_come() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 28 <= chat_error(answer({}, 429, f"Retry-After: {date} ")).retry_after <= 30


ERRORS_IN_200 = {
    '{"error": {"message": "m", "code": "c", "param": "p", "type": "t"}}': (None, "APIError"),
    '{"error": "m"}': (None, "APIError"),
    '{"detail": "m", "id": 1}': (None, "APIError"),
    '{"error": {"message": "m", "code": 42}}': (None, "APIError"),
    '{"error": {"message": "m", "code": "401"}}': (401, "AuthenticationError"),
    '{"error": {"message": "m", "code": 503}}': (503, "ServerError"),
    '{"error": {"message": "m"}, "choices": [{}]}': (None, "APIError"),
}


@pytest.mark.parametrize("text", ERRORS_IN_200)
def test_error_inside_a_200(text: str) -> None:
    wire = answer(text.encode(), 200, "X-Request-Id: r-1", "Retry-After: 7")
    for error in (chat_error(wire), stream_error(wire)):
        assert (error.status, type(error).__name__) == ERRORS_IN_200[text]
        assert (error.message, error.body) == ("m", json.loads(text))
        assert (error.request_id, error.retry_after) == ("r-1", 7.0)


JOBS_WITH_ERRORS = [
    '{"error": null}',
    '{"detail": []}',
    '{"error": "out of memory", "id": "job-1"}',
    '{"detail": "queued", "id": "job-1"}',
    '[{"error": "m"}]',
]


def test_request_tells_an_error_from_a_job_that_has_one() -> None:
    wires = [answer(text.encode()) for text in JOBS_WITH_ERRORS]
    with served(*wires, answer({"detail": "m"})) as (_, client):
        assert [client.request("GET", "/x") for _ in JOBS_WITH_ERRORS] == [
            json.loads(text) for text in JOBS_WITH_ERRORS
        ]
        with pytest.raises(dim.APIError, match="m"):
            client.request("GET", "/x")


def test_error_body_of_60_mib_is_not_kept() -> None:
    error, most = error_and_memory(answer(b"x" * (60 << 20), 500))
    assert (error.status, len(error.body) <= 1 << 20, most < 16 << 20) == (500, True, True)


# ---- Connections ---------------------------------------------------------------------------------

Serve = Callable[..., Server]
Waits = List[float]
WHOLE = answer(completion())


def steps(*parts: Any) -> Answer:
    """Return an answer of several steps: bytes to send, seconds to wait, functions to call.

    A text is sent as a whole answer; {0} in it is what was asked, {1} on which connection.
    """

    def send(sock: socket.socket, request: Request) -> bool:
        for part in parts:
            if isinstance(part, str):
                text = part.format(text_of(request), request.connection)
                part = answer(completion(text))
            if isinstance(part, bytes):
                sock.sendall(part)
            elif isinstance(part, float):
                threading.Event().wait(part)
            else:
                part()
        return True

    return send


ECHO = steps("{0}")


def client_at(port: int, **options: Any) -> Client:
    return Client("", base_url=f"http://127.0.0.1:{port}", **options)


def failure(client: Client, method: str = "chat") -> Any:
    """Return the error of a call; no variable of this frame holds a secret."""
    with pytest.raises(dim.DeepInfraError) as caught:
        list(getattr(client, method)("Hi"))
    return caught.value


def run_alone(code: str, url: str) -> List[str]:
    """Return the lines that a program prints in a process of its own, to stderr too."""
    command = [sys.executable, "-W", "error", "-c", code, url]
    folder = Path(dim.__file__).resolve().parent
    printed = subprocess.check_output(command, cwd=folder, stderr=subprocess.STDOUT, timeout=30)
    return printed.decode().splitlines()


@contextlib.contextmanager
def raw_server(serve: Callable[[socket.socket], Any]) -> Iterator[int]:
    """Give the port of a server that does this with its one connection."""

    def run() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as sock:
            serve(sock)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]


def test_connection_is_kept_after_every_whole_answer(serve: Serve) -> None:
    stream = sse(delta("Hi", "stop"))
    answers = [
        WHOLE,
        answer(completion(), chunks=7),
        answer({"error": "no"}, 404),
        answer(stream, type=SSE_TYPE),
        answer(stream, type=SSE_TYPE, chunks=7),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        answer({"data": []}),
    ]
    with serve(*answers) as server:
        with server.client() as client:
            assert [client.chat(text).text for text in "12"] == ["Hi", "Hi"]
            assert failure(client).status == 404
            assert [collect(client.stream(text)).text for text in "45"] == ["Hi", "Hi"]
            assert client.request("DELETE", "/6") is None
            assert client.models() == []
            with pickle.loads(pickle.dumps(client)) as copy:
                assert copy.models() == []
            assert server.wait_closed()
            assert server.closed == 1
            assert server.used == [0, 0, 0, 0, 0, 0, 0, 1]


NOT_KEPT = {
    "close": ("GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"),
    "HTTP/1.0": ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "surplus after a length": ("GET", answer({}) + WHOLE),
    "surplus after chunks": ("GET", answer({}, chunks=1) + WHOLE),
    "surplus of a byte": ("GET", answer({}) + b"\n"),
    "HEAD, a body later": ("HEAD", b"HTTP/1.1 204 No\r\n\r\n"),
    "204, a body later": ("DELETE", b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n"),
    "304, a body later": ("GET", b"HTTP/1.1 304 No\r\n\r\n"),
    "two lengths": ("GET", answer({}, 200, "Content-Length: 2")),
    "HEAD": ("HEAD", answer(WHOLE)),
    "204": ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n" + WHOLE),
    "204 with a length": ("DELETE", answer(WHOLE, 204)),
    "204 in chunks": ("DELETE", answer(WHOLE, 204, chunks=9)),
    "304": ("GET", answer(WHOLE, 304)),
}


@pytest.mark.parametrize("method, wire", table(NOT_KEPT))
def test_connection_is_not_kept(serve: Serve, method: str, wire: bytes) -> None:
    with serve(then_silence(wire), ECHO) as server:
        with server.client(max_retries=0) as client:
            with contextlib.suppress(dim.APIError):
                client.request(method, "/1")
            assert client.chat("mine").text == "mine"
            assert server.used == [0, 1]
            assert server.wait_closed()


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
INTERIM = {"100": b"HTTP/1.1 100 Continue\r\n\r\n", "103": HINTS, "16": HINTS * 16}


@pytest.mark.parametrize("before", table(INTERIM))
def test_interim_answers_are_skipped(serve: Serve, before: bytes) -> None:
    with serve(steps(before, "{0}")) as server:
        with server.client() as client:
            assert [client.chat(text).text for text in "123"] == ["1", "2", "3"]
            assert server.used == [0, 0, 0]


def test_switched_protocols_and_too_many_interim_answers_are_errors() -> None:
    switch = HINTS.replace(b"103", b"101")
    with served(steps(switch, "{0}"), steps(HINTS * 17, "{0}"), ECHO) as (server, client):
        assert failure(client).status == 101
        assert type(failure(client)) is dim.APIResponseError
        assert client.chat("mine").text == "mine"
        assert server.used == [0, 1, 2]


ARRIVED = threading.Event()
ARRIVALS = {
    "end": cut(WHOLE),
    "reset": reset(WHOLE),
    "408": steps(WHOLE, 0.02, answer({"error": "idle for too long"}, 408), ARRIVED.set),
    "byte": steps(WHOLE, 0.02, b"\n", ARRIVED.set),
}


@pytest.mark.parametrize("first", table(ARRIVALS))
def test_idle_connection_is_closed_once_anything_arrives(serve: Serve, first: Answer) -> None:
    ARRIVED.clear()
    with serve(first, ECHO) as server:
        with server.client(max_retries=0) as client:
            assert client.chat("1").text == "Hi"
            assert wait_until(lambda: server.closed or ARRIVED.is_set())
            assert client.chat("2").text == "2"
            assert server.used == [0, 1]
            assert server.wait_closed()


def test_client_serves_60_threads_and_keeps_32_connections() -> None:
    meet = steps(threading.Barrier(60).wait, "{0}")
    names = [str(number) for number in range(60)]
    with served(*[meet] * 60, ECHO) as (server, client):
        with ThreadPoolExecutor(60) as pool:
            assert [reply.text for reply in pool.map(client.chat, names)] == names
            assert server.connections == 60
            assert server.wait_closed(28)
            assert server.closed == 28
            for sock in server._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)  # all idle connections end now
            assert client.chat("last").text == "last"
            assert server.wait_closed(60)
            assert server.closed == 60
            assert server.used[-1] == 60


def test_call_that_ends_after_close_closes_its_connection() -> None:
    begun, closed = threading.Event(), threading.Event()
    first = steps(begun.set, closed.wait, "{0}")
    with served(first, ECHO) as (server, client):
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.chat, "1")
            assert begun.wait(PATIENCE)
            client.close()
            closed.set()
            assert call.result().text == "1"
            assert server.wait_closed()
            assert [client.chat(text).text for text in "23"] == ["2", "3"]
            assert server.used == [0, 1, 1]


STREAM = chunked(sse(delta("Hi", "stop")))
ENDS = {  # what follows [DONE], and whether the connection is kept
    "end there": (steps(STREAM + LAST), True),
    "end later": (steps(STREAM, 0.1, LAST), True),
    "end in two": (steps(STREAM + LAST[:3], 0.05, LAST[3:]), True),
    "no end": (steps(STREAM), False),
    "more and more": (drip(STREAM, chunk(b": more\n\n"), 99), False),
    "no chunk size": (steps(STREAM + b"x\r\n\r\n"), False),
    "surplus": (steps(STREAM + LAST + WHOLE), False),
}


def test_stream_gives_its_connection_back_at_done(serve: Serve) -> None:
    def check(first: Answer, is_kept: bool) -> None:
        with serve(first, ECHO) as server:
            with server.client(max_retries=0) as client:
                started = time.monotonic()
                assert "".join(part.text for part in client.stream("1")) == "Hi"
                assert time.monotonic() - started < 2
                assert client.chat("2").text == "2"
                assert is_kept or server.wait_closed()
                assert server.used == [0, 0 if is_kept else 1]

    check_all(check, ENDS)


@pytest.mark.parametrize("die", table({"closed": cut(b""), "reset": reset()}))
def test_kept_connection_that_dies_costs_a_retry(serve: Serve, die: Answer, waits: Waits) -> None:
    meet = steps(threading.Barrier(2).wait, "{0}")
    with serve(meet, meet, die, ECHO, ECHO, die) as server:
        with ThreadPoolExecutor(2) as pool:
            with server.client(max_retries=1) as client:
                list(pool.map(client.chat, "12"))  # leaves two idle connections
                assert client.chat("3").text == "3"
            with server.client(max_retries=0) as client:
                client.chat("4")
                error = failure(client)
    assert type(error) is dim.APIConnectionError
    if sys.version_info >= (3, 8):  # 3.7 does not know how OpenSSL 3 reports an end
        assert f"{server.address} cut the connection before the answer" in str(error)
    assert server.used[3:] == [2, 3, 3]
    assert sum(waits) == 0


def test_denied_socket_options_end_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(sock: socket.socket, *args: int) -> None:
        asked.append(args[1:])
        raise PermissionError("denied")

    asked: List[Any] = []
    with raw_server(lambda sock: sock.recv(9999) and sock.send(WHOLE)) as port:
        monkeypatch.setattr(socket.socket, "setsockopt", deny)
        assert client_at(port).chat("Hi").text == "Hi"
    idle = getattr(socket, "TCP_KEEPIDLE", 0x10)
    assert asked == [(socket.TCP_NODELAY, 1), (socket.SO_KEEPALIVE, 1), (idle, 60)]


FORK = """
import os, sys
from deepinfra_min import Client, collect
client = Client(base_url=sys.argv[1])
stream = client.stream("Hi")
first = next(stream)
print(client.chat("parent").text, flush=True)
pid = os.fork()
if not pid:
    del stream
    print(client.chat("child").text, client.chat("child").text)
    del client
    sys.exit()
assert os.waitpid(pid, 0) == (pid, 0)
print(client.chat("parent").text, first.text + collect(stream).text)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_child_of_a_fork_uses_no_socket_of_its_parent(serve: Serve) -> None:
    child_came, text = threading.Event(), "{0} on {1}"
    rest = chunk(sse(delta(" far", "stop"))) + LAST
    stream = steps(chunked(sse(delta("so"), done=False)), child_came.wait, rest)
    with serve(stream, steps(text), steps(text, child_came.set)) as server:
        lines = ["parent on 1", "child on 2 child on 2", "parent on 1 so far"]
        assert run_alone(FORK, server.url) == lines


EMFILE = """
import os, resource, sys
from deepinfra_min import Client, DeepInfraError
client = Client(base_url=sys.argv[1], max_retries=0)
client.chat("1")
client.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
files = []
try:
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
try:
    client.chat("2")
except DeepInfraError as error:
    failure = error
for number in files:
    os.close(number)
print(failure)
print(client.chat("3").text)
"""


def test_shortage_of_file_descriptors_is_named() -> None:
    pytest.importorskip("resource")
    with Server(ECHO) as server:
        error, text = run_alone(EMFILE, server.url)
    assert "files" in error
    assert "ulimit -n" in error
    assert " cut " not in error
    assert text == "3"


def test_default_context_is_made_once_and_only_when_needed(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> ssl.SSLContext:
        made.append(make())
        threading.Event().wait(0.05)  # for the other threads to come as well
        return made[-1]

    made: List[ssl.SSLContext] = []
    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", count)
    meet = steps(threading.Barrier(4).wait, "{0}")
    with Server(meet, context=tls) as server:
        with ThreadPoolExecutor(4) as pool:
            client = server.client()
            assert made == []
            list(pool.map(client.chat, "1234"))
            assert len(made) == 1


def test_client_certificate_is_shown(tls: ssl.SSLContext, pems: Path) -> None:
    tls.load_verify_locations(str(pems / "ca.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED
    context = ssl.create_default_context()
    with Server(ECHO, context=tls) as server:
        client = server.client(ssl_context=context, max_retries=0)
        failure(client)
        context.load_cert_chain(str(pems / "leaf.pem"))
        assert client.chat("Hi").text == "Hi"


# ---- Time ----------------------------------------------------------------------------------------


def assert_times_out(call: Callable[[], object], option: str, seconds: float) -> str:
    """Check that a call ends in time with an error that says why, how long, and what to change."""
    started = time.monotonic()
    with pytest.raises(dim.APITimeoutError) as caught:
        call()
    took, text = time.monotonic() - started, str(caught.value)
    assert seconds - 0.02 <= took < seconds + 2
    assert set(re.findall(r"\b(?:connect_)?timeout\b|\bdeadline\b", text)) == {option}
    assert f" {seconds} s" in text
    return text


@pytest.mark.parametrize("option", ["timeout", "connect_timeout", "deadline"])
def test_connecting_ends_in_time(option: str) -> None:
    def check(base_url: str, port: int, login: str) -> None:
        options: Dict[str, Any] = {option: 0.2, "max_retries": 0}
        proxy = f"{login}127.0.0.1:{port}" if login else ""
        client = Client("", base_url=base_url, proxy=proxy, **options)
        text = assert_times_out(lambda: client.chat("Hi"), option, 0.2)
        place = f"connecting to {'the proxy ' if login else ''}127.0.0.1:{port}"
        assert option == "deadline" or place in text

    headers = drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 6)
    with deaf_port() as deaf, deaf_port(is_full=True) as full, Server(headers) as dripping:
        cases = {
            "TCP": (f"http://127.0.0.1:{full}", full, ""),
            "TLS": (f"https://127.0.0.1:{deaf}", deaf, ""),
            "proxy": (EXAMPLE, full, "me:hunter2@"),
            "CONNECT": (EXAMPLE, deaf, "me:hunter2@"),
            "CONNECT, drip": (EXAMPLE, dripping.port, "me:hunter2@"),
        }
        check_all(check, cases)


OK = b"HTTP/1.1 200 OK\r\n"
HI = chunk(sse(delta("Hi"), done=False))
START = chunked()
LIMITS = {  # which limit ends an answer that begins so and goes on so, or goes on with nothing
    "silence": ("timeout", b"", b""),
    "silence in the status line": ("timeout", b"HTTP/1.1 20", b""),
    "silence in the headers": ("timeout", b"HTTP/1.1 200 OK\r\nContent-", b""),
    "silence after an interim answer": ("timeout", HINTS, b""),
    "silence in the body": ("timeout", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""),
    "silence in a chunk": ("timeout", START + b'9\r\ndata: {"', b""),
    "silence at the end of the chunks": ("timeout", START + b"0\r\n", b""),
    "silence in a stream": ("timeout", START + HI, b""),
    "status line": ("timeout", b"HTTP/1.1 200 ", b"x"),
    "headers": ("timeout", OK, b"X: y\r\n"),
    "interim answers": ("timeout", b"", HINTS),
    "chunk size": ("timeout", START, b"0"),
    "trailers": ("timeout", START + b"0\r\n", b"X: y\r\n"),
    "headers to the deadline": ("deadline", OK, b"X: y\r\n"),
    "body": ("deadline", b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b" "),
    "body until closed": ("deadline", b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "chunks": ("deadline", START, b"1\r\n \r\n"),
    "line of a stream": ("deadline", START + b"ffffff\r\ndata: ", b" "),
    "events of a stream": ("deadline", START, HI),
}


def test_answer_ends_in_time_and_is_not_tried_again() -> None:
    def check(option: str, head: bytes, again: bytes) -> None:
        endless = drip(head, again, 30) if again else then_silence(head)
        limits = {"timeout": 5, "deadline": 5, option: 0.3}
        with Server(ECHO, endless) as server:
            with server.client(**limits) as client:
                client.chat("1")
                call: Any = client.stream if b"event" in head else client.chat
                text = assert_times_out(lambda: list(call("2")), option, 0.3)
                assert option == "deadline" or f"{server.address} was silent" in text
                assert server.used == [0, 0]
                assert server.wait_closed()

    check_all(check, LIMITS)


def test_body_of_an_error_is_waited_for_10_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() * 25)
    started = time.monotonic()
    endless = drip(b"HTTP/1.1 404 No\r\nContent-Length: 999999\r\n\r\n", b" ")
    assert chat_error(endless, deadline=60).status == 404
    assert 9 < time.monotonic() - started < 40


def test_timeout_is_for_silence_alone() -> None:
    def read(sock: socket.socket) -> None:
        sock.sendall(OK + b"\r\n")
        left = 8_000_000
        while left > 0:
            left -= len(sock.recv(65536))
            threading.Event().wait(0.003)
            sock.sendall(b" ")
        sock.sendall(b'"read"')

    with raw_server(read) as port:
        with client_at(port, timeout=0.2, max_retries=0) as client:
            assert client.request("POST", "/x", "x" * 8_000_000) == "read"
    with served(drip(chunked(), HI, 999), timeout=0.2) as (_, client):
        with contextlib.closing(client.stream("Hi")) as stream:
            assert [next(stream).text for _ in range(12)] == ["Hi"] * 12


def test_sending_ends_in_time_where_nothing_is_read() -> None:
    with deaf_port() as port:
        with client_at(port, timeout=0.1) as client:
            assert_times_out(lambda: client.chat("x" * 8_000_000), "timeout", 0.1)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers on this system")
def test_timeout_error_of_a_signal_handler_comes_through() -> None:
    def ring(number: int, frame: Any) -> None:
        raise TimeoutError("mine")

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        with Server(ECHO, silence) as server:
            with server.client() as client:
                client.chat("1")
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(TimeoutError, match=r"^mine$") as caught:
                    client.chat("2")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert type(caught.value) is TimeoutError
    assert server.used == [0, 0]


def test_deadline_holds_for_a_call_with_its_retries() -> None:
    busy = answer({"error": "busy"}, 503, "Retry-After: 0.2")
    with served(busy, deadline=0.55, max_retries=30) as (server, client):
        assert failure(client).status == 503
        assert 2 <= len(server.requests) <= 3
    with served(busy, silence, deadline=0.4, max_retries=9) as (server, client):
        assert_times_out(lambda: client.chat("Hi"), "deadline", 0.4)
        assert len(server.requests) == 2


# ---- Retries -------------------------------------------------------------------------------------

TRIED_AGAIN: Dict[str, Answer] = {
    **{str(s): answer(b"<html>", s) for s in (408, 409, 429, 500, 502, 503, 504, 529)},
    "closed": cut(b""),
    "reset": reset(),
    "cut in the status line": cut(b"HTTP/1.1 2"),
}


@pytest.mark.parametrize("wire", table(TRIED_AGAIN))
def test_failure_is_tried_again(wire: Answer, waits: Waits) -> None:
    with Server(wire, wire, sse_answer(delta("Hi", "stop"))) as server:
        with server.client() as client:
            assert collect(client.stream("Hi")).text == "Hi"
    first, second, third = server.requests
    assert first[:4] == second[:4] == third[:4]
    assert len(waits) == 2


NOT_TRIED_AGAIN: Dict[str, Answer] = {
    **{str(s): answer({"error": "no"}, s) for s in (400, 401, 402, 403, 404, 405, 413, 422)},
    "cut in the headers": cut(b"HTTP/1.1 200 OK\r\nContent-"),
    "cut in the body": cut(WHOLE[:-5]),
    "reset in the headers": reset(OK),
    "reset in the body": reset(chunked(b"{")),
    "broken JSON": answer(b"{"),
    "error in a 200": cut(b'HTTP/1.1 200 OK\r\n\r\n{"error": {"code": 503}}'),
    "not HTTP": cut(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "stream, cut": cut(chunked(sse(delta("Hi"), done=False))),
    "stream, error": sse_answer(delta("Hi"), {"error": {"message": "no", "code": 503}}),
}


@pytest.mark.parametrize("wire", table(NOT_TRIED_AGAIN))
def test_other_failures_are_not_tried_again(wire: Answer, waits: Waits) -> None:
    with Server(wire, ECHO, wire) as server:
        with server.client() as client:
            failure(client, "stream")  # on a new connection
            client.chat("keep one")
            failure(client, "stream")
    assert len(server.requests) == 3
    assert waits == []


def test_dial_that_fails_is_tried_again(
    waits: Waits, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    with dead_port() as port:
        refused = failure(client_at(port))
    assert f"TCP can't connect to 127.0.0.1:{port}" in str(refused)
    assert isinstance(refused.__cause__, ConnectionRefusedError)
    assert refused.__cause__.__traceback__ is None
    with deaf_port(is_full=True) as port:
        assert type(failure(client_at(port, connect_timeout=0.05))) is dim.APITimeoutError
    no_name = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=no_name))
    unknown = failure(Client(TOKEN, base_url=EXAMPLE))
    assert "DNS can't resolve api.example.test: Name or service not known" in str(unknown)
    assert TOKEN not in shown(unknown)
    monkeypatch.setattr(socket, "create_connection", Mock(side_effect=TimeoutError(110, "slow")))
    assert "127.0.0.1:1: slow" in str(failure(client_at(1)))  # the system's timeout, not ours
    texts = [record.getMessage() for record in caplog.records]
    assert [f"{wait:.2f} s" in text for text, wait in zip(texts, waits)] == [True] * 8
    assert str(refused.args[0]) in texts[0]


def test_waits_grow_to_8_seconds_less_a_random_part(waits: Waits) -> None:
    with dead_port() as port:
        assert type(failure(client_at(port, max_retries=1100))) is dim.APIConnectionError
    parts = [wait / full for wait, full in zip(waits, [0.5, 1, 2, 4] + [8] * 1096)]
    assert len(waits) == 1100
    assert len(parts) == 1100
    assert 0.75 <= min(parts) < 0.8 < 0.95 < max(parts) <= 1


# Retry-After (a number: it is a date in so many seconds), and the bounds of what is waited. More
# than a minute is raised.
ASKED_WAITS = {
    "seconds": ("7", 7, 7),
    "white space": (" 7 \t", 7, 7),
    "at once": ("0", 0, 0),
    "a minute": ("60", 60, 60),
    "more than a minute": ("61", 61, 61),
    "date": (20, 18.5, 20),
    "date that is past": (-20, 0, 0),
    "date in more than a minute": (90, 88.5, 90),
    "no number": ("soon", 0.375, 0.5),
    "milliseconds": ("\r\nRetry-After-Ms: 1", 0.375, 0.5),
}


@pytest.mark.parametrize("value, low, high", table(ASKED_WAITS))
def test_wait_is_what_the_server_asks_for(
    value: Any, low: float, high: float, waits: Waits
) -> None:
    if isinstance(value, int):
        value = email.utils.formatdate(time.time() + value, usegmt=True)
    busy = answer({}, 429, f"Retry-After: {value}")
    with served(busy, max_retries=1) as (server, client):
        error = failure(client)
    assert error.status == 429
    (wait,) = waits or [error.retry_after]
    assert low <= wait <= high
    assert len(waits) == int(high <= 60)
    assert len(server.requests) == 1 + len(waits)


@pytest.mark.parametrize("header", ["Retry-After: 10", "X: our own wait"])
def test_wait_past_the_deadline_is_not_begun(header: str, waits: Waits) -> None:
    with served(answer({}, 503, header), deadline=0.3, max_retries=2) as (server, client):
        assert failure(client).status == 503
    assert len(server.requests) == 1
    assert waits == []


def test_log_has_retries_at_info_and_exchanges_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "deepinfra_min")
    busy = answer({"error": f"{TOKEN} is busy"}, 503, "Retry-After: 0.1", f"X-Answer: {TOKEN}")
    with Server(busy, answer(completion("hunter3"))) as server:
        server.client(headers={"X-Key": "hunter4"}).chat("hunter5")
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.DEBUG, logging.INFO, logging.DEBUG]
    first, retry, second = (record.getMessage() for record in caplog.records)
    exchange = rf"POST {server.url}/chat/completions: HTTP %d in 0\.\d+ s"
    assert re.search(exchange % 503, first)
    assert re.search(exchange % 200, second)
    assert "503: *** is busy" in retry
    assert "0.10 s" in retry
    everything = repr([vars(record) for record in caplog.records])
    assert "hunter" not in everything
    assert TOKEN not in everything


# ---- Safety --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_refused_and_named(status: int, tls: ssl.SSLContext) -> None:
    with Server(ECHO) as other:
        with Server(ECHO, context=tls) as secure:
            for place in (other.url, secure.url, "/v1/elsewhere"):
                error = chat_error(answer(b"", status, f"Location: {place}"))
                assert error.status == status
                assert place in str(error)
                assert "redirect" in str(error)
            assert other.connections == 0
            assert secure.connections == 0


# What the server sends; RAW is the token as it is, ESC as JSON has it.
ECHOES = {
    "object": b'401 No\r\n\r\n{"error": {"message": "ESC", "code": "ESC", "type": ["ESC"]}}',
    "string": b'400 No\r\n\r\n{"error": "no ESC"}',
    "no words": b'400 No\r\n\r\n{"key": {"ESC": ["ESC"]}}',
    "validation": b'422 No\r\n\r\n{"detail": [{"loc": ["ESC"], "msg": "ESC", "input": "ESC"}]}',
    "text cut within": b"403 No\r\nContent-Length: 22\r\n\r\nWho is RAW",
    "HTML": b"502 No\r\n\r\n<html><title>RAW</title>Bearer RAW",
    "cut body": b'401 No\r\nContent-Length: 999\r\n\r\n{"error": "ESC',
    "reason": b"401 Not RAW\r\n\r\n",
    "reason of a 200": b"200 Not RAW\r\nContent-Length: 1\r\n\r\n{",
    "far in a status": b"x" * 970 + b"RAW OK\r\n\r\n",
    "headers": b"429 No\r\nX-Request-Id: RAW\r\nRetry-After: RAW\r\nX-RAW: RAW\r\n\r\n",
    "line that is no header": b"400 No\r\nBearer RAW\r\n\r\n",
    "folded header": b"400 No\r\nX: y\r\n RAW\r\n\r\n",
    "length": b"200 OK\r\nContent-Length: RAW\r\n\r\n{",
    "chunk size": b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nRAW\r\n",
    "redirect": b"302 No\r\nLocation: https://api.example.test/?key=RAW\r\n\r\n",
    "broken JSON": b'200 OK\r\n\r\n{"id": "ESC"',
    "broken UTF-8": b'200 OK\r\n\r\n{"id": "RAW\xff\xfe',
    "wrong shape": b'200 OK\r\n\r\n{"choices": "ESC", "ESC": "ESC"}',
    "far in": b"200 OK\r\n\r\n<" + b"x" * 190 + b"RAW",
    "far in a message": b'400 No\r\n\r\n{"error": "' + b"x" * 990 + b'ESC"}',
    "error in a 200": b'200 OK\r\n\r\n{"error": {"message": "ESC", "code": "ESC"}}',
    "stream error": b'200 OK\r\n\r\ndata: {"error": {"message": "ESC", "code": 401}}\n\n',
    "error event": b"200 OK\r\n\r\nevent: error\ndata: RAW\n\n",
    "broken JSON in a stream": b'200 OK\r\n\r\ndata: {"id": "ESC\n\n',
    "wrong shape in a stream": b'200 OK\r\n\r\ndata: {"choices": ["ESC"]}\n\n',
    "cut stream": b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\ndata: RAW",
    "no stream": b"200 OK\r\nContent-Type: text/event-stream\r\n\r\n<p>RAW",
}


@pytest.mark.parametrize("token", table({"token": TOKEN, "odd": "jwt:a\"b'c\\d/e&f<g>%20{h}"}))
@pytest.mark.parametrize("wire", table(ECHOES))
def test_token_that_the_server_echoes_is_masked(
    wire: bytes, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    escaped = json.dumps(token)[1:-1]
    wire = wire.replace(b"RAW", token.encode()).replace(b"ESC", escaped.encode())
    with served(cut(b"HTTP/1.1 " + wire), api_key=token) as (server, client):
        for error in (failure(client), failure(client, "stream")):
            everything = shown(error) + pickle.dumps(error, 0).decode("latin-1")
            everything += repr([vars(record) for record in caplog.records])
            for spelling in (escaped, repr(token)[1:-1], token[:12]):
                assert spelling not in everything
    assert server.requests[0].headers["authorization"] == f"Bearer {token}"


def test_masked_error_still_says_what_the_server_said() -> None:
    refusal = {"error": {"message": f"key {TOKEN} is bad"}}
    error = chat_error(answer(refusal, 401))
    assert error.message == "key *** is bad"
    assert error.body == {"error": {"message": "key *** is bad"}}


def test_login_of_a_gateway_is_sent_and_masked_like_a_token() -> None:
    login = "Basic bWU6aHVudGVyMg=="
    options: Dict[str, Any] = {"headers": {"authorization": login}}
    refusal = answer({"error": f"not {login}, {login[6:]}"}, 401)
    with served(cut(refusal), api_key="", **options) as (server, client):
        assert "bWU6" not in shown(failure(client))
    assert server.requests[0].headers["authorization"] == login
    for token, url in ("", "http://api.example.test"), (TOKEN, EXAMPLE):
        with pytest.raises(dim.ConfigurationError):
            Client(token, base_url=url, **options)


def test_words_of_a_server_are_cleaned_and_cut(
    caplog: pytest.LogCaptureFixture, waits: Waits
) -> None:
    caplog.set_level(logging.INFO)
    words = "\x1b[31mall\r\n\u202e\x9b\x00busy " + "x" * 900_000
    with Server(answer({"error": words}, 503), answer(words.encode() * 6, 503)) as server:
        error = failure(server.client(max_retries=1))
    cleaned = "[31mall     busy " + "x" * 1000
    assert cleaned.startswith(error.message)
    assert 990 < len(error.message) <= 1000
    assert 900_000 < len(error.body) <= 1 << 20
    for text in (str(error), *(record.getMessage() for record in caplog.records)):
        assert text.isprintable()
        assert len(text) < 1200
    assert len(caplog.records) == 1


# ---- Proxies -------------------------------------------------------------------------------------


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for block in iter(functools.partial(source.recv, 65536), b""):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def tunnel(target: Server, login: str) -> Answer:
    """Return the answer of a CONNECT proxy that takes clients to the target, whatever they ask."""

    def connect(sock: socket.socket, request: Request) -> None:
        if request.headers.get("proxy-authorization", "") != login:
            sock.sendall(answer(b"", 407, "Proxy-Authenticate: Basic"))
            return
        with socket.create_connection(("127.0.0.1", target.port)) as inner:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(inner, sock), daemon=True).start()
            pump(sock, inner)

    return connect


LOGINS = [("", ""), ("me:p%40ss%3Aw%25rd@", "Basic bWU6cEBzczp3JXJk")]


@pytest.mark.parametrize("written, login", LOGINS)
def test_connect_proxy_is_used(
    written: str, login: str, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(ECHO, context=tls) as server:
        with Server(tunnel(server, login)) as proxy:
            monkeypatch.setenv("https_proxy", f"http://{written}{proxy.address}")
            with Client(TOKEN, base_url=EXAMPLE) as client:
                monkeypatch.delenv("https_proxy")  # it was read when the client was made
                assert [client.chat(text).text for text in "123"] == ["1", "2", "3"]
                assert proxy.connections == 1
                assert server.used == [0, 0, 0]
            assert proxy.wait_closed()
    (connect,) = proxy.requests
    assert connect.method == "CONNECT"
    assert connect.path == "api.example.test:443"
    assert TOKEN not in repr(connect)
    path, headers = server.requests[0][1:3]
    assert path == "/v1/openai/chat/completions"
    assert headers["host"] == "api.example.test"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert "proxy-authorization" not in headers


def test_proxy_is_asked_for_an_ipv6_address_in_brackets() -> None:
    with Server(answer(status=403)) as proxy:
        failure(Client(TOKEN, base_url="https://[::1]/v1", proxy=proxy.origin))
    assert proxy.requests[0].path == "[::1]:443"


def test_plain_http_goes_through_a_proxy_without_a_token() -> None:
    with Server(ECHO) as proxy:
        setting = f"me:hunter2@{proxy.address}"  # the scheme may be missing
        with Client("", base_url="http://api.example.test:8000/v1", proxy=setting) as client:
            assert [client.chat(text).text for text in "12"] == ["1", "2"]
    first, second = proxy.requests
    assert first.path == second.path == "http://api.example.test:8000/v1/chat/completions"
    assert first.headers["host"] == "api.example.test:8000"
    assert first.headers["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
    assert "authorization" not in first.headers
    assert proxy.used == [0, 0]


PROXY_FAILURES: Dict[str, Any] = {
    "407": ("https", answer(b"", 407), 0, "refused the connection: 407"),
    "407 by plain http": ("http", answer(b"", 407), 0, "refused the connection: 407"),
    "302": ("https", answer(b"", 302, "Location: http://x/"), 0, "refused the connection: 302"),
    "cut": ("https", cut(b""), 2, "cut the connection"),
    "cut in the status line": ("https", cut(b"HTTP/1.1 20"), 2, "cut the connection"),
    "not HTTP": ("https", cut(b"SSH-2.0-OpenSSH_9.2\r\n"), 0, "does not answer in HTTP"),
}


@pytest.mark.parametrize("scheme, wire, retries, words", table(PROXY_FAILURES))
def test_failure_of_a_proxy_is_named(
    scheme: str, wire: Answer, retries: int, words: str, waits: Waits
) -> None:
    with Server(wire) as proxy:
        setting = f"http://me:hunter2@{proxy.address}"
        error = failure(Client("", base_url=f"{scheme}://api.example.test", proxy=setting))
        assert scheme == "http" or proxy.wait_closed()
    assert f"the proxy {proxy.address} {words}" in str(error)
    assert "hunter2" not in shown(error)
    assert len(waits) == retries


def test_port_of_a_proxy_is_80_unless_it_is_given() -> None:
    for url in (EXAMPLE, EXAMPLE.replace("https", "http")):
        client = Client("", base_url=url, proxy="me:hunter2@127.0.0.1/", max_retries=0)
        assert "the proxy 127.0.0.1:80" in str(failure(client))


ROUTES = {
    "proxy": ("127.1", "", "proxied"),
    "host of NO_PROXY": ("127.1", "a.test, 127.1", "direct"),
    "domain of NO_PROXY": ("127.1", ".1", "direct"),
    "all of NO_PROXY": ("127.1", "*", "direct"),
    "loopback": ("127.0.0.1", "", "direct"),
    "no loopback": ("127.999.1.1", "", "proxied"),
}


@pytest.mark.parametrize("host, no_proxy, route", table(ROUTES))
def test_route(host: str, no_proxy: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", no_proxy)
    with Server(steps("direct")) as server:
        with Server(steps("proxied")) as proxy:
            monkeypatch.setenv("http_proxy", proxy.origin)
            url = f"http://{host}:{server.port}"
            assert Client("", base_url=url).chat("Hi").text == route
            assert Client("", base_url=url, proxy=proxy.origin).chat("Hi").text == "proxied"
            assert Client("", base_url=server.url, proxy="").chat("Hi").text == "direct"


# ---- Certificates --------------------------------------------------------------------------------

# A certificate for the key of LEAF and 127.0.0.1 that held for the year 2020.
EXPIRED = """-----BEGIN CERTIFICATE-----
MIIBZjCCAQygAwIBAgIBBDAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdleHBpcmVk
MB4XDTIwMDEwMTAwMDAwMFoXDTIxMDEwMTAwMDAwMFowEjEQMA4GA1UEAwwHZXhw
aXJlZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIwhrDl2Sw2coqAzDVcI0BbK
aZ0wFW23Rl9Qp1j2KsNSoIfKo7dPePB51fswrhppVO0sRHVipKEJpvWJfsiGe2+j
UzBRMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMA8GA1UdEQQIMAaH
BH8AAAEwHQYDVR0OBBYEFFqSx88XpeKoR4ERWDPpUEav/YInMAoGCCqGSM49BAMC
A0gAMEUCIQDibHJ3nakOUavDUMY+VY+Htr6O2VF3a11lqvods7LhJgIgDNzzZylI
S5wUhGiN45z/H9TVoL+bSuOid5UJFFORXKQ=
-----END CERTIFICATE-----
"""
CERTIFICATES = {  # host, the client's CA file, what the error and its hint say
    "unknown CA": ("127.0.0.1", "expired.pem", "local issuer", "set SSL_CERT_FILE"),
    "missing CA file": ("127.0.0.1", "missing.pem", "local issuer", "missing.pem"),
    "no CA store": ("127.0.0.1", None, "local issuer", "install ca-certificates"),
    "another host": ("127.1", "ca.pem", "127.1", "host name"),
    "expired": ("127.0.0.1", "expired.pem", "expired", "clock"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificate_that_is_not_trusted_is_named(
    name: str, tls: ssl.SSLContext, pems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, file, words, hint = CERTIFICATES[name]
    (pems / "expired.pem").write_text(EXPIRED)
    if name == "expired":
        tls.load_cert_chain(str(pems / "expired.pem"), str(pems / "leaf.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(pems / str(file)))
    if not file:
        monkeypatch.delenv("SSL_CERT_FILE")
        nothing = ssl.DefaultVerifyPaths(None, None, "", "", "", "")  # type: ignore[arg-type]
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    with Server(ECHO, context=tls) as server:
        client = Client(TOKEN, base_url=server.url.replace("127.0.0.1", host))
        error = failure(client)
        assert server.connections == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(pems / "ca.pem"))  # is looked up again
        assert name != "unknown CA" or client.chat("Hi").text == "Hi"
    place = f"TLS: the certificate of {host}:{server.port} is not trusted: "
    assert str(error).startswith(place)
    assert words in str(error)
    assert hint in error.hint
    assert ("set SSL" in error.hint) == (name == "unknown CA")


NO_SSL = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
from deepinfra_min import Client, ConfigurationError
print(Client(base_url=sys.argv[1]).chat("Hi").text)
try:
    Client("t", base_url="https://127.0.0.1:1").chat("Hi")
except ConfigurationError as error:
    print(error)
"""


def test_python_without_ssl_does_without_https() -> None:
    with Server(ECHO) as server:
        text, error = run_alone(NO_SSL, server.url)
    assert text == "Hi"
    assert "https" in error
    assert "ssl module" in error


def test_port_that_speaks_no_tls_is_named() -> None:
    with raw_server(lambda sock: sock.sendall(b"220 mail.example ESMTP\r\n")) as port:
        error = failure(Client("", base_url=f"https://127.0.0.1:{port}", max_retries=0))
    assert str(error).startswith(f"TLS with 127.0.0.1:{port} failed: ")


def test_early_answer_is_found_over_tls_while_much_is_sent(tls: ssl.SSLContext) -> None:
    def refuse(sock: socket.socket) -> None:
        with tls.wrap_socket(sock, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(answer({"error": "too large"}, 413))

    with raw_server(refuse) as port:
        client = Client(TOKEN, base_url=f"https://127.0.0.1:{port}", max_retries=0)
        with pytest.raises(dim.APIError) as caught:
            client.chat("x" * 20_000_000)
    assert caught.value.status == 413
    assert caught.value.message == "too large"


# ---- The documented exchanges, through a server --------------------------------------------------

SEED_HELLO: List[Dict[str, Any]] = [{"role": "user", "content": "Hello!"}]
SEED_LAMB: List[Dict[str, Any]] = [
    {"role": "system", "content": "Respond like a michelin starred chef."},
    {"role": "user", "content": "Can you name at least two different techniques to cook lamb?"},
    {
        "role": "assistant",
        "content": "Bonjour! Let me tell you, my friend, cooking lamb is an art form, and I'm more "
        "than happy to share with you not two, but three of my favorite techniques to coax out the "
        "rich, unctuous flavors and tender textures of this majestic protein. First, we have the "
        'classic "Sous Vide" method. Next, we have the ancient art of "Sous le Sable". And '
        'finally, we have the more modern technique of "Hot Smoking."',
    },
    {"role": "user", "content": "Tell me more about the second method."},
]
DOCUMENTED_ANSWERS = {
    "hello": (SEED_HELLO_ANSWER, SEED_HELLO),
    "lamb": (SEED_LAMB_ANSWER, SEED_LAMB),
}
each_model = pytest.mark.parametrize("model", SEED_MODELS)
each_framing = pytest.mark.parametrize("framing", ["chunked", "length", "none"])


def check_documented_request(server: Server, **payload: Any) -> None:
    """Fail unless the last request is the documented curl line's."""
    request = server.requests[-1]
    assert (request.method, request.path) == ("POST", "/v1/openai/chat/completions")
    assert request.headers["content-type"] == JSON_TYPE
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.json == payload


def documented_events(model: str, done: bool) -> List[bytes]:
    lines = [documented(line, model) for line in SEED_STREAM_LINES] + ["data: [DONE]"] * done
    return [f"{line}\n\n".encode() for line in lines]


def event_stream(body: bytes, size: Optional[int] = None) -> bytes:
    return answer(body, type=SSE_TYPE, chunks=size)


def framed(blocks: List[bytes], framing: str, type: str = SSE_TYPE) -> bytes:
    """Return an answer of which each block is a chunk, or that has a length, or neither."""
    if framing == "chunked":
        return chunked(*blocks, type=type) + LAST
    wire = answer(b"".join(blocks), type=type)
    return wire if framing == "length" else wire.replace(b"Content-Length", b"X-Length")


def blocks_of(data: bytes, size: int) -> List[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def beginnings(wire: bytes, step: int) -> Iterator[bytes]:
    """Yield what arrives of an answer that is cut at every `step` bytes, then all of it.

    The last bytes of a chunked answer are one end: http.client does not look beyond its "0".
    """
    size = len(wire) - 4 if wire.endswith(LAST) else len(wire)
    for end in range(0, size, step):
        yield wire[:end]
    yield wire


@each_model
@each_framing
@pytest.mark.parametrize("done", [True, False])
def test_documented_stream_at_every_cut_and_whole(model: str, done: bool, framing: str) -> None:
    events = documented_events(model, done)
    raws = [json.loads(event[6:]) for event in events[:6]]
    whole = framed(events, framing)
    step = 1 if (framing, done, model) == ("chunked", True, SEED_MODELS[0]) else 29
    with served(b"") as (server, client):
        for wire in beginnings(whole, step):
            server.answers[0] = cut(wire)
            chunks, error = [], None
            try:
                for item in client.stream("Hello!", model=model):
                    chunks.append(item)
            except dim.APIConnectionError as caught:
                error = caught
            count = sum(event in wire for event in events)
            has_ended = framing == "none" or wire == whole
            assert [item.raw for item in chunks] == raws[:count]
            assert (error is None) == (count == 7 or (count == 6 and has_ended))
            if error and b"\r\n\r\n" in wire:
                assert type(error) is dim.StreamInterruptedError
    check_documented_request(server, model=model, messages=SEED_HELLO, stream=True)
    assert [item.text for item in chunks] == [*SEED_STREAM_TEXTS, ""]
    choice = dim.Choice(0, dim.Message("assistant", "  Hi!</s>"), "stop")
    head = ("Rc5hsIPHOSfMP3rNSFUw9tfR", "chat.completion", 1694623354, model)
    assert collect(chunks) == dim.ChatCompletion(*head, (choice,))


@each_model
@each_framing
@pytest.mark.parametrize("text, messages", table(DOCUMENTED_ANSWERS))
def test_documented_answer_at_every_cut_and_whole(
    text: str, messages: List[Dict[str, Any]], framing: str, model: str
) -> None:
    text = documented(text, model)
    whole = framed(blocks_of(text.encode(), 100), framing, JSON_TYPE)
    step = 1 if messages == SEED_HELLO and framing != "chunked" else 83
    with served(b"") as (server, client):
        for wire in beginnings(whole, step):
            server.answers[0] = cut(wire)
            if wire != whole:
                with pytest.raises(dim.DeepInfraError) as caught:
                    client.chat("Hello!")
                is_unseen = framing == "none" and wire.partition(b"\r\n\r\n")[2]
                kind = dim.APIResponseError if is_unseen else dim.APIConnectionError
                assert type(caught.value) is kind
        reply = client.chat([dim.Message(**message) for message in messages], model=model)
    check_documented_request(server, model=model, messages=messages)
    raw = json.loads(text)
    choice = dim.Choice(0, dim.Message(**raw["choices"][0]["message"]), "stop")
    fields = {**raw, "choices": (choice,), "usage": dim.Usage(**raw["usage"])}
    assert reply == dim.ChatCompletion(**fields)
    assert (reply.text, reply.raw) == (choice.message.content, raw)


# ---- Server-sent events --------------------------------------------------------------------------

SSE_BOM = b"\xef\xbb\xbf"
# Events are written as "data|", or as "name=data|" if they have a name.
SSE_CASES: Dict[bytes, str] = {
    b"": "",
    b"\n\r\r\n\n\r\n\r": "",
    b"data: a\r\ndata: b\r\n\r\n": "a\nb|",  # CRLF ends one line, not two
    b"data: a\rdata: b\ndata: c\r\ndata: d\r\n\r": "a\nb\nc\nd|",
    b"\n\ndata: a\n\n\n\n\ndata: b\n\n\n": "a|b|",
    SSE_BOM: "",
    SSE_BOM + b"data: a\n\n": "a|",
    SSE_BOM + b": x\ndata: a\n\n": "a|",
    SSE_BOM + b"\r\n\r\ndata: a\n\n": "a|",
    SSE_BOM + SSE_BOM + b"data: a\n\ndata: b\n\n": "b|",  # a second one is a part of the name
    b"data: a\n\n" + SSE_BOM + b"data: b\n\n": "a|",
    b"data: " + SSE_BOM + b"a\n\n": "\ufeffa|",
    b"\xef\xbbdata: a\n\ndata: b\n\n": "b|",
    b": ping\n\n:\n\n:\ndata: a\n: ping\ndata: b\n\n:data: c\n\n": "a\nb|",
    b"data: a\n\ndata:b\n\ndata:  c \n\n": "a|b| c |",  # one space after the colon is dropped
    b"data:\ta\n\ndata:\xc2\xa0a\n\n": "\ta|\u00a0a|",
    b"data: \n\ndata:  \n\n": "| |",
    b"data: a: b:c\n\ndata::\n\n": "a: b:c|:|",
    b"data: a\ndata:\ndata: b\n\ndata:\ndata:\n\n": "a\n\nb|\n|",
    b"data:\n\ndata: a\ndata\n\n": "|a\n|",
    b"data\n\ndata\ndata\n\n": "|\n|",
    b"event: x\ndata: a\n\ndata: b\n\n": "x=a|b|",
    b"data: a\nevent: x\ndata: b\n\n": "x=a\nb|",
    b"event: x\nevent: y\ndata: a\n\n": "y=a|",
    b"event:\ndata: a\n\nevent: x\nevent\ndata: b\n\n": "a|b|",
    b"event:  x \ndata: a\n\n": " x =a|",
    b"event: x\n\ndata: a\n\n": "a|",  # no data, no event
    b"id: 1\n\nid: 1\ndata: a\n\nid\ndata: b\n\nid: \x00\ndata: c\n\n": "a|b|c|",
    b"retry: 10\ndata: a\n\nretry: soon\n\n": "a|",
    b"x: 1\ndatax: b\ndat: c\nx\ndata: a\n\n": "a|",
    b"Data: a\nDATA: b\n\nEvent: x\ndata: c\n\n": "c|",
    b" data: a\n\ndata : a\n\n": "",
    b"data: a\n\ndata: b": "a|",  # an unfinished event is dropped
    b"data: a\n\ndata: b\n": "a|",
    b"data: a\r": "",
    b"data: a\xffb\n\n": "a\ufffdb|",
    b"data: \xe2\x82\ndata: \xf0\x9f\x98\n\n": "\ufffd\n\ufffd|",
    b"data: \xe2\ndata: \x82\xac\n\n": "\ufffd\n\ufffd\ufffd|",
    b"data: \xc0\xaf\n\ndata: \xed\xa0\x80\n\n": "\ufffd\ufffd|\ufffd\ufffd\ufffd|",
    b"data: \xf4\x90\x80\x80\n\n": "\ufffd\ufffd\ufffd\ufffd|",
    b"da\xffta: a\n\nevent: \xff\ndata: b\n\n": "\ufffd=b|",
    "event: \xe9\ndata: a\xe9\u20ac\U0001f600\n\n".encode(): "\xe9=a\xe9\u20ac\U0001f600|",
    "data: \u2028\u2029\x85\n\n".encode(): "\u2028\u2029\x85|",  # these end no line
    b"data: \x0b\x0c\x1c\x1d\x1e\x00.\n\x00data: c\n\n": "\x0b\x0c\x1c\x1d\x1e\x00.|",
    b"data: " + b"x" * 9999 + b"\n\n": "x" * 9999 + "|",
}
LINE_ENDS = [b"\n", b"\r", b"\r\n"]
BLANK_LINES = [a + b for a in LINE_ENDS for b in LINE_ENDS if a + b != b"\r\n"]


def short_name(value: Any) -> str:
    """Return the name of a case that is its own name."""
    return repr(value)[:50]


def events_of(blocks: List[bytes]) -> str:
    texts = [f"{event.event}={event.data}|" for event in iter_sse(blocks)]
    return "".join(text.replace("message=", "") for text in texts)


@pytest.mark.parametrize("data", SSE_CASES, ids=short_name)
def test_sse(data: bytes) -> None:
    for size in (1, 2, 3, 7, 65536):
        blocks = [piece for block in blocks_of(data, size) for piece in (block, b"")]
        assert events_of(blocks) == SSE_CASES[data]


def test_sse_at_every_cut() -> None:
    data = (
        SSE_BOM + "event: \xe9\r\ndata: a\u20ac\r\rdata: \U0001f600\n\r\ndata: b\r\n\r\n".encode()
    )
    for a, b in itertools.combinations(range(len(data) + 1), 2):
        events = events_of([data[:a], data[a:b], data[b:]])
        assert events == "\xe9=a\u20ac|\U0001f600|b|"


@pytest.mark.parametrize("end", BLANK_LINES, ids=short_name)
def test_sse_yields_an_event_as_soon_as_its_last_byte_is_there(end: bytes) -> None:
    event = b"data: a" + end
    blocks = iter(blocks_of(event * 3, 1))
    left = [operator.length_hint(blocks) for _ in iter_sse(blocks)]
    missing = int(end.endswith(b"\r\n"))  # the CR ends the line, the LF only belongs to it
    assert left == [len(event) * n + missing for n in (2, 1, 0)]


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the least processor time of three runs."""
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


SSE_LOADS: Dict[str, Any] = {  # what comes first, what comes again and again, bytes in a block
    "a line in single bytes": (b"data: ", b"x", 1),
    "a line in blocks": (b"data: ", b"x" * 100, 100),
    "short lines in one block": (b"", b"data\n", 1 << 30),
    "events in one block": (b"", b"data: a\n\n", 1 << 30),
    "events in single bytes": (b"", b"data: a\r\r", 1),
    "a comment in single bytes": (b":", b":", 1),
}


@pytest.mark.parametrize("head, again, size", table(SSE_LOADS))
def test_sse_takes_linear_time(head: bytes, again: bytes, size: int) -> None:
    few, many = [blocks_of(head + again * n + b"\n\n", size) for n in (500, 8000)]
    limit = 0.02 + 64 * cpu_seconds(lambda: list(iter_sse(few)))  # squared, it would be 256 times
    assert cpu_seconds(lambda: list(iter_sse(many))) < limit


@pytest.mark.parametrize("form", [b"%s", b"data: %s\n"])
def test_sse_refuses_an_event_over_64_mib_before_it_is_in_memory(form: bytes) -> None:
    blocks = iter([b"data: "] + [form % (b"x" * (1 << 20))] * 80)
    with pytest.raises(dim.APIResponseError, match="64 MiB"):
        list(iter_sse(blocks))
    assert len(list(blocks)) > 13


# ---- Streams -------------------------------------------------------------------------------------


def texts_of(wire: Answer) -> str:
    """Return the texts of a streamed answer's chunks, each with a bar after it."""
    with served(wire) as (_, client):
        return "".join(item.text + "|" for item in client.stream("Hi"))


def delta_chunk(index: int = 0, **fields: Any) -> Dict[str, Any]:
    """Return a chunk with a delta for one choice."""
    return {"choices": [{"index": index, "delta": fields}]}


EVENT_A, EVENT_DONE = sse(delta("a"), done=False), sse()
EVENT_STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
EVENT_STOP_1 = b'data: {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}\n\n'
EVENT_B_1 = (
    b'data: {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": null}]}\n\n'
)
EVENT_USAGE = b'data: {"choices": [], "usage": {"total_tokens": 1}}\n\n'
KEEPALIVES = [
    b": ping - 2024-01-01 00:00:00\n\n",
    b": ping\r\n\r\n",
    b": ping\r\r",
    b"\r\n\r\n\n\n",
    b"data:\n\n",
    b"data: \r\n\r\n",
    b"data:  \n\n",
    b"data\n\n",
    b"id: 7\n\n",
    b"retry: 3000\n\n",
    b"event: ping\n\n",
    b"event: ping\ndata:\n\n",
    b'data: {"id": "x1", "choices": null}\n\n',
    b'data: {"id": "", "choices": null, "usage": null, "error": null}\n\n',
]


@pytest.mark.parametrize("keepalive", KEEPALIVES, ids=short_name)
def test_stream_passes_over_keepalives(keepalive: bytes) -> None:
    body = b"".join(event + keepalive for event in (keepalive, EVENT_A, EVENT_A, EVENT_STOP))
    for size in (None, 3, 65536):
        assert texts_of(event_stream(body, size)) == "a|a||"
        assert texts_of(event_stream(body + EVENT_DONE, size)) == "a|a||"
    error = stream_error(event_stream(keepalive * 3))
    assert (type(error), error.partial) == (dim.StreamInterruptedError, dim.ChatCompletion())


STREAM_CHUNKS: Dict[str, str] = {  # events without the last, [DONE]; CHUNK is one whose text is "a"
    "data: CHUNK\r\n\r\ndata: CHUNK\r\n\r\n": "a|a|",
    "data: CHUNK\r\rdata: CHUNK\r\r": "a|a|",
    "\ufeffdata: CHUNK\n\n": "a|",
    "data:CHUNK\n\n": "a|",
    'data: {"choices":\ndata: [{"delta": {"content": "a"}}]}\n\n': "a|",
    "event: message\ndata: CHUNK\n\n": "a|",
    'data: {"choices": [{"delta": {"content": "\u2028\x85"}}]}\n\n': "\u2028\x85|",
    'data: {"choices": []}\n\ndata: {"usage": {}}\n\ndata: CHUNK\n\n': "||a|",
    'data: CHUNK\n\ndata: {"choices": null, "usage": {"total_tokens": 1}}\n\n': "a||",
    'data: {"new": 1, "choices": [{"delta": {"content": "a", "new": 1}}]}\n\n': "a|",
    'data: {"error": null, "choices": [{"delta": {"content": "a"}}]}\n\n': "a|",
    'data: {"error": {}, "choices": [{"delta": {"content": "a"}}]}\n\n': "a|",
    'data: {"detail": "high", "choices": [{"delta": {"content": "a"}}]}\n\n': "a|",
    'data: {"choices": [{"delta": null}]}\n\ndata: CHUNK\n\n': "|a|",
    'data: {"choices": [{"delta": {"role": null, "content": null, "tool_calls": null}}]}\n\n': "|",
    'data: {"choices": [{"delta": {"content": "</s>"}}]}\n\n': "</s>|",
    'data: {"choices": [{"delta": {"content": "[DONE]"}}]}\n\n': "[DONE]|",
    'data: {"choices": [{"index": 1, "delta": {"content": "b"}}]}\n\n': "|",
    'data: {"choices": [{"index": 1, "delta": null}, {"delta": {"content": "a"}}]}\n\n': "a|",
}


@pytest.mark.parametrize("text", STREAM_CHUNKS)
def test_stream_yields_a_chunk_for_each_event_that_has_one(text: str) -> None:
    body = text.replace("CHUNK", json.dumps(delta("a"))).encode() + EVENT_DONE
    for size in (None, 1, 65536):
        assert texts_of(event_stream(body, size)) == STREAM_CHUNKS[text]


# The texts of the chunks that come, "*" marking those of choice 1, and of those that go out.
HALVES: Dict[str, str] = {
    "a\ud83d|\ude00b": "a|\U0001f600b",
    "\ud83d||\ude00": "||\U0001f600",
    "a\ud83d|b": "a|\ufffdb",
    "\udbff|\udfff": "|\U0010ffff",
    "a\ud83d": "a|\ufffd",  # in a chunk of its own, at [DONE]
    "\ude00a\ud83db": "\ufffda\ufffdb",
    "\ud83d|\ud83d\U0001f600|\ude00.": "|\ufffd\ufffd\U0001f600|\ufffd.",
    "\ufeffa|\ufeff\ud83d|\ude00": "\ufeffa|\ufeff|\U0001f600",
    "\ud83d|*\ud83d|\ude00|\ude00*": "|*|\U0001f600|\U0001f600*",
}


@pytest.mark.parametrize("name", ["content", "reasoning_content"])
@pytest.mark.parametrize("texts", HALVES, ids=ascii)
def test_stream_never_gives_half_a_character(texts: str, name: str) -> None:
    payloads = [delta_chunk(int("*" in text), **{name: text}) for text in texts.split("|")]
    with served(sse_answer(*payloads)) as (_, client):
        chunks = list(client.stream("Hi"))
    got = [getattr(item.choices[0].delta, name) or "" for item in chunks]
    assert "|".join(got) == HALVES[texts]
    assert [item.raw for item in chunks][: len(payloads)] == payloads


def test_stream_gives_half_a_character_that_stays_alone_with_the_finish_reason() -> None:
    assert texts_of(sse_answer(delta("a\ud83d"), delta(None, "stop"))) == "a|\ufffd|"
    assert texts_of(sse_answer(delta("a\ud83d", "stop"))) == "a\ufffd|"


def test_stream_yields_each_chunk_before_more_is_sent() -> None:
    seen = threading.Semaphore(0)

    def send(sock: socket.socket, request: Request) -> bool:
        sock.sendall(chunked())
        for text in "012":
            for piece in blocks_of(sse(delta(text), done=False), 60):  # an event in pieces
                sock.sendall(chunk(piece))
            assert seen.acquire(timeout=PATIENCE)
        sock.sendall(chunk(EVENT_DONE) + LAST)
        return True

    got = ""
    with served(send) as (_, client):
        for item in client.stream("Hi"):
            got += item.text
            seen.release()
    assert got == "012"


@pytest.mark.parametrize("after", [b"", b"data: x\n\n\xff\x00<html>\n\n" + EVENT_A], ids=len)
def test_stream_ends_at_done_while_the_server_stays_open(after: bytes) -> None:
    body = EVENT_A + EVENT_A + EVENT_DONE + after
    for wire in (chunked(body), framed([body], "none")):
        with served(then_silence(wire)) as (server, client):
            start = time.monotonic()
            assert [item.text for item in client.stream("Hi")] == ["a", "a"]
            assert server.wait_closed()
            assert time.monotonic() - start < 2


COMPLETE_STREAMS: Dict[str, bytes] = {
    "done": EVENT_A + EVENT_DONE,
    "finish reason": EVENT_A + EVENT_STOP,
    "finish reason and usage": EVENT_STOP + EVENT_USAGE,
    "finish reason, then more": EVENT_STOP + EVENT_A,
    "any finish reason": EVENT_STOP.replace(b"stop", b"tired"),
    "finish reason and half of [DONE]": EVENT_STOP + b"data: [DO",
    "finish reason and [DONE] without its blank line": EVENT_STOP + b"data: [DONE]",
    "all choices": EVENT_A + EVENT_STOP_1 + EVENT_STOP,
}
INTERRUPTED_STREAMS: Dict[str, bytes] = {
    "nothing": b"",
    "comments": b": ping\n\n",
    "usage alone": EVENT_USAGE,
    "no finish reason": EVENT_A,
    "finish reason without its blank line": EVENT_A + EVENT_STOP[:-1],
    "one of two choices": EVENT_B_1 + EVENT_STOP,
    "the other of two choices": EVENT_A + EVENT_STOP_1,
    "a choice begun late": EVENT_STOP + EVENT_B_1,
    "[DONE] without its blank line": EVENT_A + b"data: [DONE]\n",
    "[DONE] in a comment": EVENT_A + b": [DONE]\n\n",
    "within an event that two blocks share": EVENT_A + b'data: {"id": "x1", "choi',
    "done alone": EVENT_DONE,
    "done and usage alone": EVENT_USAGE + EVENT_DONE,
}
UP_TO_DATA = len(EVENT_A + b"data: ")


@each_framing
@pytest.mark.parametrize("body", table(COMPLETE_STREAMS))
def test_stream_is_complete(body: bytes, framing: str) -> None:
    blocks = blocks_of(b"\n" + body, UP_TO_DATA)
    texts_of(cut(framed(blocks, framing, "text/plain")))  # a wrong type that does no harm


@each_framing
@pytest.mark.parametrize("body", table(INTERRUPTED_STREAMS))
def test_stream_is_interrupted(body: bytes, framing: str) -> None:
    error = stream_error(cut(framed(blocks_of(body, UP_TO_DATA), framing)))
    has_begun = error.partial.choices != ()
    assert ("arrived is a part" in error.hint) == has_begun
    if body or framing != "none":  # which looks like an answer that was cut within its head
        assert ("chat() or --no-stream" in error.hint) != has_begun
    assert type(error) is (
        dim.APIResponseError if EVENT_DONE in body else dim.StreamInterruptedError
    )


def test_stream_is_interrupted_when_its_body_is_cut_even_after_a_finish_reason() -> None:
    for wire in (
        chunked(EVENT_STOP),
        chunked(EVENT_STOP)[:-40],
        event_stream(EVENT_STOP + EVENT_DONE)[:-8],
    ):
        assert type(stream_error(cut(wire))) is dim.StreamInterruptedError


ERRORS_INSIDE: Dict[str, str] = {  # with the class, the status and the message
    'data: {"error": {"message": "m", "code": "overloaded"}}': "APIError None m",
    'data: {"error": {"message": "m", "code": 0}}': "APIError None m",
    'data: {"error": {"message": "m", "code": 400}}': "APIError 400 m",
    'data: {"error": {"message": "m", "code": 403}}': "AuthenticationError 403 m",
    'data: {"error": {"message": "m", "code": 429}}': "RateLimitError 429 m",
    'data: {"error": {"message": "m", "code": 502}}': "ServerError 502 m",
    'data: {"error": "m"}': "APIError None m",
    'data: {"detail": "m"}': "APIError None m",
    'data: {"detail": {"error": "m"}}': "APIError None m",
    'data: {"choices": [{"delta": {"content": "b"}}], "error": "m"}': "APIError None m",
    "event: error\ndata: m": "APIError None m",
    "event: error\ndata: m\ndata: n": "APIError None m n",
    'event: error\ndata: {"error": {"message": "m", "code": 500}}': "ServerError 500 m",
    'event: error\ndata: {"message": "m", "code": 429}': "RateLimitError 429 m",
    'event: error\ndata: "m"': "APIError None m",
    "event: error\ndata: {m": "APIError None {m",
}


@pytest.mark.parametrize("event", ERRORS_INSIDE)
def test_stream_raises_an_error_inside_it(event: str) -> None:
    for before in (b"", EVENT_A, EVENT_A + EVENT_STOP):
        error = stream_error(event_stream(before + event.encode() + b"\n\n"))
        assert f"{type(error).__name__} {error.status} {error.message}" == ERRORS_INSIDE[event]
        assert error.partial.text == ("a" if before else "")


WHOLE_ANSWER = json.dumps(completion()).encode()
NO_STREAMS: Dict[bytes, str] = {  # with words of the message and hint
    b"<!DOCTYPE html><html>Log in</html>": "captive portal",
    b"\n <html>Log in</html>": "captive portal",
    b"Please log in.\nThank you.\n\n": "not JSON",
    b"Please log in.": "not JSON",
    b"\x80\xff": "not JSON",
    b"[1]": "",
    b'"hello"': "",
    b'{"hello": 1}': "",
    b'{"id": "x1", "choices": [': "not JSON",
    WHOLE_ANSWER: "ignores `stream`",
    b"\n" + WHOLE_ANSWER.replace(b", ", b",\n"): "ignores `stream`",
}


@pytest.mark.parametrize("body", NO_STREAMS, ids=short_name)
def test_stream_refuses_what_is_no_event_stream(body: bytes) -> None:
    is_prose = body.strip()[:1] not in (b"<", b"[", b"{")  # may be unknown fields of an event
    types = ["text/plain"] if is_prose else ["text/plain", JSON_TYPE, SSE_TYPE]
    for type, size in itertools.product(types, (None, 1, 65536)):
        error = stream_error(answer(body, type=type, chunks=size))
        assert error.__class__ is dim.APIResponseError
        assert error.body == body.decode("utf-8", "replace")[:200]
        assert NO_STREAMS[body] in str(error)
        assert ("captive portal" in error.hint) == (b"<" in body)


EVENTS_WITHOUT_JSON = ["Hi", "{", "[DONE]x", "\x00", "NaN{", "{} {}", '{"a": 1\ndata: "b": 2}']


@pytest.mark.parametrize("data", EVENTS_WITHOUT_JSON)
def test_stream_event_that_is_no_json_is_shown(data: str) -> None:
    error = stream_error(sse_answer(delta("a"), data))
    assert (type(error), error.partial.text) == (dim.APIResponseError, "a")
    assert error.body == data.replace("\ndata: ", "\n")
    assert "JSON" in error.args[0]


def test_stream_that_is_a_json_error_is_an_api_error() -> None:
    for type in (JSON_TYPE, SSE_TYPE):
        error = stream_error(answer({"error": {"message": "m", "code": 429}}, type=type))
        assert (error.__class__, error.message) == (dim.RateLimitError, "m")


def test_stream_sends_its_request_at_the_call() -> None:
    with served(cut(b""), answer(b"", 401), sse_answer(delta("a"))) as (server, client):
        for kind in (dim.APIConnectionError, dim.AuthenticationError):
            with pytest.raises(kind):
                client.stream("Hi")
        chunks = client.stream("Hi")
        assert len(server.requests) == 3
        assert [item.text for item in chunks] == ["a"]
        assert list(chunks) == []


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("is_dropped", [True, False])
def test_stream_left_early_closes_the_connection(count: int, is_dropped: bool) -> None:
    with served(then_silence(chunked(EVENT_A + EVENT_A))) as (server, client):
        chunks = client.stream("Hi")
        for _ in range(count):
            next(chunks)
        if is_dropped:
            del chunks
            gc.collect()
        else:
            chunks.close()
            assert list(chunks) == []
        assert server.wait_closed()
        assert server.connections == 1


# ---- Collecting ----------------------------------------------------------------------------------


def chat_result(raw: Any) -> Any:
    """Return what chat() makes of an answer."""
    with served(answer(raw)) as (_, client):
        return client.chat("Hi")


def collected(*payloads: Any) -> Any:
    """Return the collected answer, if its `raw` says the same."""
    with served(sse_answer(*payloads)) as (_, client):
        whole = collect(client.stream("Hi"))
    assert chat_result(whole.raw) == whole
    return whole


def without_nulls(value: Any) -> Any:
    def clean(item: Dict[str, Any]) -> Dict[str, Any]:
        return {name: item[name] for name in item if item[name] is not None}

    return json.loads(json.dumps(value), object_hook=clean)


# Pieces of tool calls, then the calls: index, id, name and arguments, "-" for what is missing.
TOOL_CALLS: Dict[str, str] = {
    "0 c0 f -, 1 c1 g -, 0 - - a, 1 - - b, 0 - - c": "c0 f ac, c1 g b",
    "- c0 f a, - c1 g b, - c0 - c, - c1 - d": "c0 f ac, c1 g bd",
    "- c0 f a, - - - b, - c1 g c, - - - d": "c0 f ab, c1 g cd",
    "0 c0 f a, - - - b": "c0 f ab",
    "0 c0 - a, 1 c1 - b, - c0 - c": "c0 - ac, c1 - b",
    "- - f a, - - - b": "- f ab",
    "0 c0 f a, 0 c0 - b": "c0 f ab",
    "0 c0 f a, 0 c0 f b": "c0 f ab",
    "0 c0 f a, 0 c1 - b": "c0 f ab",
    "0 - - a, 0 c0 f b": "c0 f ab",
    "0 - - {, 0 - - ]]": "- - {]]",
    "0 c0 f -": "c0 f -",
    "1 c0 f a, 1 - - b": "c0 f ab",
    "0 c0 f {}, 0 c1 g {}": "c0 f {}, c1 g {}",  # some servers send index 0 for all
    "0 c0 f a, 0 c1 g b, 0 - - c": "c0 f a, c1 g bc",
    "0 1 f a, 1 2 g b, 0 - - c, 1 - - d": "1 f ac, 2 g bd",  # ids that look like indexes
}


PIECE_WORDS = {"-": None, "0": 0, "1": 1, "2": 2}


def call_piece(text: str) -> Dict[str, Any]:
    """Return a chunk with a piece of a tool call."""
    index, id, name, arguments = [PIECE_WORDS.get(word, word) for word in text.split()]
    function = {"name": name, "arguments": arguments}
    return delta_chunk(tool_calls=[{"index": index, "id": id, "type": None, "function": function}])


@pytest.mark.parametrize("pieces", TOOL_CALLS)
def test_collect_assembles_tool_calls(pieces: str) -> None:
    message = collected(*map(call_piece, pieces.split(", "))).message
    calls = []
    for call in message.tool_calls:
        calls.append(
            f"{call.id or '-'} {call.function.name or '-'} {call.function.arguments or '-'}"
        )
        assert call.type == "function"
    assert ", ".join(calls) == TOOL_CALLS[pieces]
    assert message.content is None


COLLECTED_MESSAGES: Dict[str, str] = {  # deltas, and what the message has beside its role
    '[{"role": "assistant"}]': "{}",
    '[{"role": "assistant", "content": ""}]': '{"content": ""}',
    '[{"content": "a"}, {"content": null}, {}, {"content": "b"}]': '{"content": "ab"}',
    '[{"content": " a\\n"}, {"content": "\\n "}]': '{"content": " a\\n\\n "}',
    '[{"content": "\\ud83d"}, {"content": "\\ude00"}]': '{"content": "\\ud83d\\ude00"}',
    '[{"reasoning_content": "a"}, {"reasoning_content": "b"}]': '{"reasoning_content": "ab"}',
    '[{"name": "n", "content": "a"}, {"name": null}]': '{"name": "n", "content": "a"}',
    '[{"role": "tool", "content": "a"}, {"role": null}]': '{"role": "tool", "content": "a"}',
    '[{"tool_calls": null}, {"tool_calls": [{"type": "x"}]}]': '{"tool_calls": [{"type": "x"}]}',
}


@pytest.mark.parametrize("deltas", COLLECTED_MESSAGES)
def test_collect_joins_a_message(deltas: str) -> None:
    message = {"role": "assistant", **json.loads(COLLECTED_MESSAGES[deltas])}
    whole = collected(*[delta_chunk(**fields) for fields in json.loads(deltas)])
    assert whole == chat_result({"choices": [{"message": message}]})


RICH_STREAM = """\
{"id": "x", "created": 7, "model": "m", "service_tier": "flex", "choices": [], "system": "s"}
{"choices": [{"index": 1, "delta": {"role": "assistant", "content": "b"}}], "system": "s"}
{"choices": [{"index": 0, "delta": {"role": "assistant", "name": "n", "content": ""}}]}
{"choices": [{"index": 0, "delta": {"reasoning_content": "h", "reasoning": "w"}}]}
{"choices": [{"delta": {"reasoning_content": "m", "reasoning": "hy"}}]}
{"choices": [{"index": 1, "delta": {"content": "B"}}, {"index": 0, "delta": {"content": "a"}}]}
{"choices": [{"delta": {"content": "A", "details": [{"a": 1}], "annotations": {"n": 1}}}]}
{"choices": [{"delta": {"details": [{"b": 2}], "annotations": {"n": 2}}}]}
{"choices": [{"delta": {"annotations": null}, "logprobs": {"content": [1], "refusal": null}}]}
{"choices": [{"delta": null, "logprobs": {"content": null, "refusal": [7]}, "matched": 3}]}
{"choices": [{"logprobs": {"content": [2, 3]}, "matched": null}]}
{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]}
{"choices": [{"delta": {"tool_calls": [{"index": 0, "extra_content": {"signed": 1}}]}}]}
{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}
{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": null, "extra_content": null}]}}]}
{"choices": [{"finish_reason": "length"}], "usage": {"total_tokens": 1, "prompt_tokens": 1}}
{"choices": [{"finish_reason": "stop"}, {"index": 1, "finish_reason": "stop"}]}
{"choices": null, "usage": {"total_tokens": 3}, "cached": false, "seed": 0}
{"id": null, "created": null, "model": null, "choices": [], "usage": null}"""
RICH_ANSWER = """{
"id": "x", "object": "chat.completion", "created": 7, "model": "m", "service_tier": "flex",
"choices": [
    {"index": 0, "message": {
        "role": "assistant", "content": "aA", "reasoning_content": "hm", "name": "n",
        "reasoning": "why", "details": [{"a": 1}, {"b": 2}], "annotations": {"n": 2},
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"signed": 1}}]},
     "logprobs": {"content": [1, 2, 3], "refusal": [7]}, "matched": 3, "finish_reason": "stop"},
    {"index": 1, "message": {"role": "assistant", "content": "bB"}, "finish_reason": "stop"}],
"usage": {"total_tokens": 3}, "system": "s", "cached": false, "seed": 0}"""


def test_collect_gives_what_chat_gives_and_its_message_goes_back_as_it_is() -> None:
    streamed, answered = collected(*RICH_STREAM.split("\n")), json.loads(RICH_ANSWER)
    assert without_nulls(streamed.raw) == answered
    assert streamed == chat_result(answered)
    with served(answer(completion())) as (server, client):
        client.chat([streamed.message])
    assert server.requests[0].json["messages"] == [answered["choices"][0]["message"]]


@pytest.mark.parametrize("value", ["x", 5, [1], {"delta": {}}, [[{"tool_calls": 1}]]], ids=repr)
def test_collect_keeps_unknown_fields_under_any_name(value: Any) -> None:
    for name in ("function", "tool_calls", "logprobs", "delta", "content"):
        odd = {
            "choices": [
                {
                    "delta": {"function": value, "logprobs": value},
                    "tool_calls": value,
                    "usage": value,
                }
            ]
        }
        whole = collected(json.dumps({**odd, name: value}))
        assert whole.choices[0].raw["usage"] == value


def test_collect_refuses_too_many_parts() -> None:
    events = [delta(tool_calls=[{"id": f"{n} {k}"} for k in range(9000)]) for n in range(2)]
    error = stream_error(sse_answer(*events))
    assert (type(error), "10000" in str(error)) == (dim.APIResponseError, True)


def test_collect_raises_with_the_partial_answer() -> None:
    error = stream_error(
        sse_answer({**delta("a"), "usage": {}}, delta("b\ud83d"), call_piece("0 c f {"), done=False)
    )
    calls = (dim.ToolCall("c", "function", dim.Function("f", "{")),)
    choice = dim.Choice(0, dim.Message("assistant", "ab\ufffd", tool_calls=calls))
    whole = dim.ChatCompletion("x1", "chat.completion", 1, "m", (choice,), dim.Usage())
    assert (type(error), error.partial) == (dim.StreamInterruptedError, whole)
    assert chat_result(error.partial.raw) == whole


def test_collect_takes_any_iterable_and_leaves_the_chunks_as_they_are() -> None:
    with served(sse_answer(*RICH_STREAM.split("\n"))) as (_, client):
        chunks = list(client.stream("Hi"))
    raws = json.dumps([item.raw for item in chunks])
    assert collect(iter(chunks)) == collect(chunks)
    assert json.dumps([item.raw for item in chunks]) == raws
    assert collect([]) == dim.ChatCompletion()


def test_collect_takes_linear_time() -> None:
    raw = delta_chunk(content="a", tool_calls=[{"id": "c", "function": {"arguments": "d"}}])
    raw["choices"][0]["logprobs"] = {"content": [1]}
    with served(sse_answer(raw)) as (_, client):
        chunks = list(client.stream("Hi"))
    limit = 0.1 + 80 * cpu_seconds(lambda: collect(chunks * 500))
    assert cpu_seconds(lambda: collect(chunks * 10_000)) < limit
    choice = collect(chunks * 10_000).choices[0]
    assert (choice.message.content, choice.logprobs) == ("a" * 10_000, {"content": [1] * 10_000})
    assert choice.message.tool_calls[0].function.arguments == "d" * 10_000


# ---- Any bytes -----------------------------------------------------------------------------------

OK_LINE = b"HTTP/1.1 200 OK\r\n"
SIZED_HEAD = OK_LINE + b"Content-Length: "
CHUNKED_HEAD = OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n"
ANY_BYTES: Dict[bytes, str] = {
    b"": "APIConnectionError",
    bytes(random.Random(1).getrandbits(8) for _ in range(5000)): "DeepInfraError",
    b"SSH-2.0-OpenSSH_9.6\r\n": "APIResponseError",
    b"\x15\x03\x01\x00\x02\x02\x16": "APIResponseError",  # a TLS alert
    b"<html>Hello</html>": "APIResponseError",
    WHOLE_ANSWER: "APIResponseError",
    b"HTTP/1.1 OK 200\r\n\r\n": "APIResponseError",
    OK_LINE + b"Content-Type: multipart/x; boundary*=x\0y'en'z\r\n\r\n": "DeepInfraError",
    b"HTTP/1.1\r\n\r\n": "APIResponseError",
    b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n": "DeepInfraError",
    b"HTTP/9.9 200 OK\r\n\r\n": "APIResponseError",
    b"HTTP/1.1 200 " + b"x" * 99999: "APIResponseError",
    OK_LINE: "APIConnectionError",
    OK_LINE + b"X: " + b"x" * 99999: "APIResponseError",
    OK_LINE + b"X: x\r\n" * 999 + b"\r\n": "APIResponseError",
    OK_LINE + b"X\x00: \x00\xff\r\n\r\n{": "DeepInfraError",
    SIZED_HEAD + b"x\r\n\r\n{": "DeepInfraError",
    SIZED_HEAD + b"-9\r\n\r\n{": "DeepInfraError",
    SIZED_HEAD + b"99999\r\n\r\n" + WHOLE_ANSWER: "APIConnectionError",
    SIZED_HEAD + b"9" * 40 + b"\r\n\r\n" + WHOLE_ANSWER: "APIConnectionError",
    SIZED_HEAD + b"9" * 5000 + b"\r\n\r\n{": "DeepInfraError",
    SIZED_HEAD + b"5\r\nContent-Length: 9\r\n\r\n" + WHOLE_ANSWER: "DeepInfraError",
    CHUNKED_HEAD + b"zz\r\n": "APIConnectionError",
    OK_LINE + b'\r\n{"choices": []}': "APIResponseError",
    CHUNKED_HEAD + b"-5\r\n{}\r\n": "DeepInfraError",
    CHUNKED_HEAD + b"f" * 30 + b"\r\n{}": "APIConnectionError",
    CHUNKED_HEAD + b"1" * 99999: "DeepInfraError",
    CHUNKED_HEAD + b"2\r\n{}zzzz": "APIConnectionError",
    CHUNKED_HEAD + b"2\r\n{}\r\n0\r\n" + b"x" * 99999: "DeepInfraError",
    b"HTTP/1.1 100 Continue\r\n\r\n": "DeepInfraError",
    b"HTTP/1.1 101 Switching\r\n\r\n": "APIError",
    b"HTTP/1.1 204 Nothing\r\n\r\n": "APIResponseError",
    b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\n\r\n": "APIError",
    b"HTTP/1.1 401 No\r\nWWW-Authenticate: \x00\xff=\r\n\r\n": "AuthenticationError",
    b"HTTP/1.1 500 No\r\nContent-Length: 99\r\n\r\nOh": "ServerError",
    b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\nzz": "RateLimitError",
    OK_LINE + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00\x00": "APIResponseError",
    OK_LINE + b'\r\n{"created": [' + b"9" * 9999 + b"]}x": "APIResponseError",
    OK_LINE + b'\r\n{"a": "\\ud83d': "APIResponseError",
}


@pytest.mark.parametrize("wire", ANY_BYTES, ids=short_name)
def test_any_bytes_give_one_of_our_errors(wire: bytes) -> None:
    with served(cut(wire)) as (_, client):
        with pytest.raises(getattr(dim, ANY_BYTES[wire])):
            client.chat("Hi")
        with pytest.raises(dim.DeepInfraError):
            list(client.stream("Hi"))
        with contextlib.suppress(dim.DeepInfraError):
            client.request("GET", "/x")


ODD_ANSWERS = [
    OK_LINE + b"\r\n" + WHOLE_ANSWER,
    OK_LINE + b"\r\n" + SSE_BOM + WHOLE_ANSWER,
    OK_LINE + b"X: \xff\xfe\x00\r\n\r\n" + WHOLE_ANSWER,
    b"HTTP/1.0 200\r\n\r\n" + WHOLE_ANSWER,
    b"HTTP/1.1 200 OK\n\n" + WHOLE_ANSWER,
    b"HTTP/1.1 299 \xff\r\n\r\n" + WHOLE_ANSWER,
    b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + OK_LINE + b"\r\n" + WHOLE_ANSWER,
    answer(completion()) + b"zz",
    CHUNKED_HEAD + b"%x;x=y\r\n%s\r\n0\r\nX: y\r\n\r\nzz" % (len(WHOLE_ANSWER), WHOLE_ANSWER),
]


@pytest.mark.parametrize("wire", ODD_ANSWERS, ids=short_name)
def test_odd_bytes_that_hold_an_answer_give_it(wire: bytes) -> None:
    with served(cut(wire)) as (_, client):
        assert client.chat("Hi").text == client.chat("Hi").text == "Hi"


def ask_both_ways(server: Server, client: Client, wire: bytes) -> None:
    """Let chat() and stream() have an answer, and raise our errors alone."""
    server.answers[0] = cut(wire)
    for ask in (client.chat, lambda text: collect(client.stream(text))):
        try:
            ask("Hi")
        except dim.DeepInfraError as error:
            assert len(str(error)) < 3000


def test_mutated_answers_give_a_result_or_one_of_our_errors() -> None:
    chance = random.Random(1)
    bodies = [WHOLE_ANSWER, RICH_ANSWER.encode(), sse(*RICH_STREAM.split("\n")), b'{"error": "m"}']
    wires = [*map(answer, bodies), *map(event_stream, bodies)]
    wires += [answer(body, 400, chunks=99) for body in bodies]
    wires += [event_stream(body, 99) for body in bodies]
    with served(b"") as (server, client):
        for wire in wires * 20:
            for _ in range(chance.choice([1, 1, 2, 5, 20])):
                at = chance.randrange(len(wire))
                other = bytes(chance.choices(b'\r\n:"[]{},0-9\xff\x00 nu', k=chance.randrange(4)))
                wire = wire[:at] + other + wire[at + chance.randrange(4) :]
            ask_both_ways(server, client, wire)


DEEP_JSON = [
    '{"error": %s}',
    '{"error": {"message": %s, "code": %s}}',
    '{"choices": [{"logprobs": {"a": %s}, "delta": {"tool_calls": %s}}], "x": %s}',
]


@pytest.mark.parametrize("opening, end", [("[", "]"), ('{"error":[', "]}")])
def test_json_of_any_depth_gives_a_result_or_one_of_our_errors(opening: str, end: str) -> None:
    with served(b"") as (server, client):
        for depth, text in itertools.product((480, 900, 50_000), DEEP_JSON):
            text = text.replace("%s", opening * depth + "1" + end * depth)
            for wire in (answer(text.encode()), answer(text.encode(), 400), sse_answer(text)):
                ask_both_ways(server, client, wire)


MANY_ITEMS = "[" + "{}, " * 10_000 + "{}]"
TOO_MANY_ITEMS = [
    '{"choices": %s}',
    '{"choices": [{"message": {"tool_calls": %s}, "delta": {"tool_calls": %s}}]}',
]


@pytest.mark.parametrize("text", TOO_MANY_ITEMS)
def test_answer_of_more_than_10_000_items_is_refused(text: str) -> None:
    for error in (
        chat_error(answer(text.replace("%s", MANY_ITEMS).encode())),
        stream_error(sse_answer(text.replace("%s", MANY_ITEMS))),
    ):
        assert type(error) is dim.APIResponseError


def test_stream_of_comments_alone_is_not_kept_in_memory() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    wire = event_stream((b": " + b"x" * 60_000 + b"\n\n") * 100)
    with served(cut(wire)) as (_, client):
        tracemalloc.start()
        try:
            with pytest.raises(dim.StreamInterruptedError):
                list(client.stream("Hi"))
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()


def test_body_over_64_mib_is_refused_before_it_is_in_memory() -> None:
    blocks = iter([OK_LINE + b'\r\n{"a": "'] + [b"x" * (1 << 20)] * 200)

    def flood(sock: socket.socket, request: Request) -> None:
        for block in blocks:
            sock.sendall(block)

    error = chat_error(flood)
    assert type(error) is dim.APIResponseError
    assert "64 MiB" in str(error)
    assert 120 < len(list(blocks)) < 137


# ---- Command line --------------------------------------------------------------------------------

CLI = (sys.executable, "-m", "deepinfra_min")
CLI_STREAMS = ("stdin", "stdout", "stderr")
CLI_ERROR = r"deepinfra_min: error: (.+)\n  hint: (.+)\n"
CLI_HI = sse_answer(delta("Hi", "stop"))
CLI_TALK = [
    {"role": "system", "content": "Old"},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Me."},
]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, terminals or shells")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C


class Outcome(NamedTuple):
    """What a run of the command left, and the requests that its server saw."""

    code: Any
    out: str
    err: str
    requests: List[Request]


Command = Callable[..., Outcome]


@pytest.fixture()
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: List[float]) -> Command:
    """Return a function that runs a command line, which may begin with variables, in-process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "messages.json").write_text(json.dumps(CLI_TALK))
    (tmp_path / "text.txt").write_bytes('["\u2713"]'.encode())

    def run(line: str, *answers: Answer, piped: bytes = b"", **terminal: Any) -> Outcome:
        buffers = [io.BytesIO(piped), io.BytesIO(), io.BytesIO()]
        streams = [io.TextIOWrapper(buffer, "ascii") for buffer in buffers]
        for name, stream in {**dict(zip(CLI_STREAMS, streams)), **terminal}.items():
            monkeypatch.setattr(sys, name, stream)
        with Server(*(answers or [CLI_HI])) as server, dead_port() as port:
            line = f"DEEPINFRA_TOKEN={TOKEN} DEEPINFRA_BASE_URL={{url}} {line}"
            line = line.replace("{url}", server.url).replace("{origin}", server.origin)
            words = shlex.split(line.replace("{dead}", f"http://127.0.0.1:{port}"))
            while words and re.match("[A-Z_]+=", words[0]):
                name, _, value = words.pop(0).partition("=")
                monkeypatch.setenv(name, value)
            code: Any
            try:
                code = dim.main(words)
            except SystemExit as error:
                code = error.code
        for stream in streams[1:]:
            stream.flush()
        out, err = (buffer.getvalue().decode() for buffer in buffers[1:])
        return Outcome(code, out, err, server.requests)

    return run


@contextlib.contextmanager
def started(server: Server, *words: str, **options: Any) -> Iterator[Any]:
    """Yield a process of the command that asks this server; kill it at the end."""
    env = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    env.update(
        DEEPINFRA_TOKEN=TOKEN,
        DEEPINFRA_BASE_URL=server.url,
        LC_ALL="C",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONIOENCODING="ascii",
        PYTHONPATH=os.path.dirname(os.path.abspath(dim.__file__)),
        TERM="dumb",
    )
    pipes = dict.fromkeys(CLI_STREAMS, subprocess.PIPE)
    with subprocess.Popen(words, env=env, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def sent(*messages: Any, **parameters: Any) -> Dict[str, Any]:
    """Return what the command sends; a message that is a string is the user's."""
    wire = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    return {"model": dim.DEFAULT_MODEL, "messages": wire, "stream": True, **parameters}


def system(text: str) -> Dict[str, str]:
    return {"role": "system", "content": text}


CLI_OPTIONS = sent(
    system("Be brief"),
    "Hi",
    model="m",
    temperature=0.5,
    stop=["="],
    user="b=c",
    tools=CLI_TALK,
    note=["\u2713"],
)
CLI_SENT = [
    ("Hi", b"", sent("Hi")),
    (
        "DEEPINFRA_MODEL=other DEEPINFRA_BASE_URL={dead} --base-url {url} --model m "
        "--system 'Be brief' --option temperature=0.5 Hi --option 'stop=[\"=\"]' "
        "--option=user=b=c --option tools=@messages.json --option note=@text.txt "
        "--no-stdin --timeout 1e99 --retries 0",
        b"unread",
        CLI_OPTIONS,
    ),
    (
        "-m m -s'Be brief' -o temperature=0.5 -o 'stop=[\"=\"]' -o user=b=c "
        "-o tools=@messages.json -o note=@text.txt -n Hi",
        b"unread",
        CLI_OPTIONS,
    ),
    ("DEEPINFRA_MODEL=m -- -x", b"", sent("-x", model="m")),
    ("--messages messages.json -s S", b"", sent(system("S"), *CLI_TALK[1:])),
    ("--messages - Hi", json.dumps(CLI_TALK).encode(), sent(*CLI_TALK, "Hi")),
    ("", "\ufeffa\r\n\u2713".encode(), sent("a\r\n\u2713")),
    ("Review", b"a\n\n b\r\n", sent("Review\n\na\n\n b\r\n")),
    ("-", b"Hi", sent("Hi")),
    ("Hi", b" \r\n\t", sent("Hi")),
    ("-s \udcff Gr\udcc3\udcbc\udcff", b"", sent(system("\ufffd"), "Gr\xfc\ufffd")),
]


@pytest.mark.parametrize("line, stdin, expected", CLI_SENT)
def test_command_sends(line: str, stdin: bytes, expected: Any, command: Command) -> None:
    code, out, err, requests = command(line, piped=stdin)
    assert (code, out, err) == (0, "Hi\n", "")
    assert [request.json for request in requests] == [expected]
    assert requests[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_stdin_that_is_not_utf8_is_sent_with_replacements(command: Command) -> None:
    code, out, err, requests = command("", piped=b"a\xffb\xc3")
    assert (code, out) == (0, "Hi\n")
    assert re.fullmatch("deepinfra_min: warning: stdin is not valid UTF-8.*\n", err)
    assert requests[0].json == sent("a\ufffdb\ufffd")


CLI_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
]
CLI_CALL_LINES = "".join(json.dumps(call) + "\n" for call in CLI_CALLS)
CLI_MODELS = {"data": [{"id": "a/b"}, {"id": "c\x1b", "metadata": {"context_length": 8192}}]}
CLI_THOUGHT = sse_answer(
    delta(reasoning_content="Let me"),
    delta(reasoning_content=" think\x07."),
    delta("Hi"),
    {**delta(None, "stop"), "usage": completion()["usage"]},
)
CLI_COUNT = r"1 \+ 2 = 3 tokens, \$0\.5, \d\.\d s\n"
CLI_OTHER = {"index": 1, "delta": {"content": "Ho"}, "finish_reason": "stop"}
CLI_PRINTED = {  # the line, the answer, stdout, a pattern of stderr
    "version": ("-V", b"", f"deepinfra_min {dim.__version__}\n", ""),
    "long version": ("--version", b"", f"deepinfra_min {dim.__version__}\n", ""),
    "reasoning and usage": ("-ru Hi", CLI_THOUGHT, "Hi\n", "Let me think\x07.\n" + CLI_COUNT),
    "both, not streamed": (
        "--no-stream --reasoning --usage Hi",
        answer(completion(reasoning_content="Hm")),
        "Hi\n",
        "Hm\n" + CLI_COUNT,
    ),
    "neither": ("Hi", CLI_THOUGHT, "Hi\n", ""),
    "no usage": ("-u Hi", CLI_HI, "Hi\n", r"no usage reported, \d\.\d s\n"),
    "no cost": (
        "-u Hi",
        sse_answer({**delta("Hi", "stop"), "usage": {}}),
        "Hi\n",
        r"None \+ None = None tokens, \d\.\d s\n",
    ),
    "reasoning alone": (
        "-r Hi",
        sse_answer(delta(None, "stop", reasoning_content="Hm")),
        "",
        "Hm\n",
    ),
    "control characters": ("Hi", sse_answer(delta("\x1b[1m\x07\n", "stop")), "\x1b[1m\x07\n", ""),
    "half a character": (
        "Hi",
        sse_answer(delta("\ud83d", "stop")),
        "\ufffd\n",
        "",
    ),
    "tool calls": (
        "Hi",
        sse_answer(
            delta("Wait"),
            delta(tool_calls=[{"index": 0, **CLI_CALLS[0]}]),
            delta(None, "tool_calls", tool_calls=[{"index": 1, **CLI_CALLS[1]}]),
        ),
        "Wait\n" + CLI_CALL_LINES,
        "",
    ),
    "tool calls, not streamed": (
        "--no-stream Hi",
        answer(completion(None, "tool_calls", tool_calls=CLI_CALLS, reasoning_content="Hm")),
        CLI_CALL_LINES,
        "",
    ),
    "two choices": (
        "Hi",
        sse_answer({**delta(), "choices": [CLI_OTHER]}, delta("Hi", "stop")),
        "Hi\n",
        "",
    ),
    "models": ("--models", answer(CLI_MODELS), "a/b\nc\x1b\n", ""),
    "models as JSON": ("--models --json", answer(CLI_MODELS), json.dumps(CLI_MODELS) + "\n", ""),
}


@pytest.mark.parametrize("line, wire, out, err", table(CLI_PRINTED))
def test_command_prints(line: str, wire: Answer, out: str, err: str, command: Command) -> None:
    result = command(line, wire, piped=b"unread" if "--models" in line else b"")
    assert (result.code, result.out) == (0, out)
    assert re.fullmatch(err, result.err)
    assert all(request.path.startswith("/v1/openai/") for request in result.requests)


@pytest.mark.parametrize("reason, code, notes", [("stop", 0, 1), ("length", 7, 3)])
def test_json_is_what_the_api_sent(reason: str, code: int, notes: int, command: Command) -> None:
    whole = completion("\u2713 \ud83d", reason, tool_calls=CLI_CALLS)
    result = command("-u --json Hi", answer(whole))
    assert json.loads(result.out) == whole
    assert (result.code, result.err.count("\n"), result.out.count("\n")) == (code, notes, 1)
    assert "stream" not in result.requests[0].json


@pytest.mark.parametrize("cost", ["0.5", [0.5], 10**400, {}], ids=["string", "list", "huge", "map"])
def test_usage_survives_any_cost(cost: Any, command: Command) -> None:
    usage = {**completion()["usage"], "estimated_cost": cost}
    result = command("-u --no-stream Hi", answer({**completion(), "usage": usage}))
    assert (result.code, result.out) == (0, "Hi\n")
    assert result.err.startswith("1 + 2 = 3 tokens")


def test_usage_is_asked_for_in_a_stream(command: Command) -> None:
    asked = sent("Hi", stream_options={"include_usage": True})
    assert command("-u Hi").requests[0].json == asked


def test_help_names_flags_variables_and_exit_codes(command: Command) -> None:
    code, out, err, _ = command("FORCE_COLOR=1 DEEPINFRA_TOKEN= --help")
    assert (code, err, command("-h").out) == (0, "", out)
    flags = """
        -m --model -s --system -o --option --messages -i --interactive --json --no-stream
        -r --reasoning -u --usage --models --base-url --timeout --retries -n --no-stdin
        -v --verbose -V --version -h --help DEEPINFRA_TOKEN DEEPINFRA_API_KEY
        DEEPINFRA_API_TOKEN DEEPINFRA_MODEL DEEPINFRA_BASE_URL HTTPS_PROXY"""
    assert [name for name in flags.split() if not re.search(rf"[ (]{name}\b", out)] == []
    assert re.findall(r"^ +(\d+) ", out, re.M) == [*"01234567", "130", "141"]
    assert not re.search("--key-file|TOKEN_FILE|\x1b", out)


CLI_MISUSED = {  # the line, a pattern of stderr
    "": "usage: deepinfra_min(?s:.*)nothing.*\n.*--help",
    "-s S ' '": "nothing",
    "Why is it": "quote your prompt",
    "--key-file text.txt Hi": "--key-file",
    "-o user Hi": "user.*KEY=VALUE",
    "-o stream=true Hi": "stream",
    "-o messages=[] Hi": "messages",
    "-o tools=@no-such-file Hi": "no-such-file",
    "--messages text.txt": "text.txt",
    "--messages - Hi": "--messages",
    "--base-url ftp://127.0.0.1 Hi": "base URL",
    "--timeout soon Hi": "--timeout",
    "--timeout nan Hi": "timeout",
    "--timeout=-1 Hi": "timeout",
    "--retries=-1 Hi": "retries",
    "--messages - -": "stdin",
    "-i -": "stdin",
    "--models -i": "--models",
}


@pytest.mark.parametrize("line, error", CLI_MISUSED.items())
def test_usage_error(line: str, error: str, command: Command) -> None:
    code, out, err, requests = command(line)
    assert (code, out, requests) == (2, "", [])
    assert re.search(error, err)
    assert re.search(CLI_ERROR + r"\Z", err)


@pytest.mark.skipif(sys.version_info < (3, 8), reason="3.7 can't forbid it without -sTEXT")
def test_flags_are_not_abbreviated(command: Command) -> None:
    assert command("--sys S Hi").code == 2


def refusal(status: int, message: str = "no", *headers: str) -> bytes:
    return answer({"error": {"message": message}}, status, *headers)


CLI_UNKNOWN = "The model `x` does not exist"
CLI_FAILED = {  # the line, the answer, the exit code, stdout, patterns of the error and the hint
    "no token": (
        "DEEPINFRA_TOKEN= DEEPINFRA_BASE_URL= Hi",
        b"",
        3,
        "",
        "token",
        "DEEPINFRA_TOKEN.*https://deepinfra.com",
    ),
    "malformed token": ("DEEPINFRA_TOKEN='sk x' Hi", b"", 3, "", "DEEPINFRA_TOKEN", "."),
    "refused token": (
        "DEEPINFRA_TOKEN= DEEPINFRA_API_KEY=sk-x Hi",
        refusal(401),
        3,
        "",
        "401",
        "DEEPINFRA_API_KEY",
    ),
    "payment": ("Hi", refusal(402), 3, "", "402", "payment"),
    "forbidden": ("Hi", refusal(403), 3, "", "403", "DEEPINFRA_TOKEN"),
    "unknown model": (
        "Hi",
        refusal(404, CLI_UNKNOWN),
        4,
        "",
        CLI_UNKNOWN,
        r"-m\b.*--models",
    ),
    "too long": (
        "-u Hi",
        refusal(400, "context\n8192 \x1b[1m"),
        4,
        "",
        "context 8192",
        "shorten",
    ),
    "redirect": (
        "Hi",
        refusal(302, "", "Location: https://example.com"),
        4,
        "",
        "302.*https://example.com",
        "base URL",
    ),
    "too many": ("Hi", refusal(429), 5, "", "429", "--retries"),
    "server error": ("Hi --retries=0", refusal(503), 6, "", "503", "later"),
    "refused": ("--retries=0 --base-url={dead} Hi", b"", 6, "", "127.0.0.1:", "base URL"),
    "proxy": (
        "HTTPS_PROXY={origin} --base-url=https://api.invalid/v1 Hi",
        refusal(407),
        6,
        "",
        "proxy.*407",
        "HTTPS_PROXY",
    ),
    "proxy of a wrong kind": (
        "HTTPS_PROXY=socks5://127.0.0.1:1 --base-url=https://api.invalid/v1 Hi",
        b"",
        6,
        "",
        "proxy.*socks5",
        "HTTPS_PROXY",
    ),
    "silence": (
        "--timeout 0.2 Hi",
        silence,
        6,
        "",
        "silent.*0.2 s",
        "--timeout",
    ),
    "HTML": ("Hi", answer(b"<html>Log in", type="text/html"), 6, "", ".", "captive portal"),
    "no choices": ("--no-stream Hi", answer({"choices": []}), 6, "", "has no choices", "."),
    "empty stream": (
        "Hi",
        sse_answer(),
        6,
        "",
        ".",
        "--no-stream",
    ),
    "error at once": (
        "Hi",
        sse_answer({"error": {"message": "busy", "code": 429}}),
        5,
        "",
        "busy",
        ".",
    ),
    "error within": ("Hi", sse_answer(delta("Hel"), {"error": "busy"}), 7, "Hel\n", "busy", "."),
    "cut": ("Hi", sse_answer(delta("Hel"), done=False), 7, "Hel\n", ".", "."),
    "filtered": (
        "--no-stream Hi",
        answer(completion("", "content_filter")),
        7,
        "",
        "content_filter",
        ".",
    ),
    "unknown reason": ("Hi", sse_answer(delta("Hi", ["eos"])), 1, "Hi\n", "'eos'", "."),
    "other choices": (
        "Hi",
        sse_answer({**delta(), "choices": [CLI_OTHER]}),
        1,
        "",
        "choice",
        ".",
    ),
}


@pytest.mark.parametrize("line, wire, code, out, error, hint", table(CLI_FAILED))
def test_failure(
    line: str, wire: Answer, code: int, out: str, error: str, hint: str, command: Command
) -> None:
    result = command(line, wire)
    assert (result.code, result.out) == (code, out)
    lines = re.fullmatch(CLI_ERROR, result.err)
    assert lines
    assert re.search(error, lines.group(1))
    assert re.search(hint, lines.group(2))
    assert result.err.replace("\n", "").isprintable()
    assert TOKEN not in result.err


def test_failure_that_nobody_expected(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dim, "Client")
    code, out, err, _ = command("Hi")
    assert (code, out) == (1, "")
    assert re.fullmatch(CLI_ERROR, err)
    assert "NameError" in err


@pytest.mark.parametrize("line, count", [("Hi", 3), ("Hi --retries 1", 2), ("Hi --retries=0", 1)])
def test_command_retries(line: str, count: int, command: Command) -> None:
    assert len(command(line, refusal(429)).requests) == count


def test_conversation_through_pipes(command: Command) -> None:
    replies = [
        sse_answer(delta(None, "tool_calls", role="user", tool_calls=CLI_CALLS)),
        sse_answer(delta("2"), done=False),
        refusal(400),
        CLI_HI,
    ]
    lines = '\n"""Two\n\nlines"""\nrefused\n"""Gr\u00fc\u00dfe"""\n'.encode()
    result = command("-i -s S --messages messages.json One", *replies, piped=lines)
    one = {"role": "assistant", "content": None, "tool_calls": CLI_CALLS}
    two = {"role": "assistant", "content": "2"}
    history = [system("S"), *CLI_TALK[1:], "One", one, "Two\n\nlines", two, "Gr\u00fc\u00dfe"]
    assert (result.code, result.out) == (0, CLI_CALL_LINES + "2\nHi\n")
    assert len(result.requests) == 4
    assert result.requests[3].json == sent(*history)


def test_conversation_asks_nothing_before_a_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "open.json").write_text(json.dumps(CLI_TALK[:2]))
    assert command("-i --messages open.json") == (0, "", "", [])
    result = command("-i --messages open.json", piped=b"Now\n")
    assert [request.json for request in result.requests] == [sent(*CLI_TALK[:2], "Now")]
    assert command("-i", refusal(400), piped=b"Hi\n").code == 4  # that of the last turn
    assert command("-i", piped=b'"""\nopen\n').code == 2


CLI_WIPE = r"(\r {7,}\r|\r\x1b\[2?K)"  # as long as "waiting", at least
CLI_AFTERTHOUGHT = sse_answer(
    delta(reasoning_content="Hm"), delta("H"), delta("i", "stop", reasoning_content="Hm")
)
CLI_SHOWN = {  # the line, the answer, a pattern of what a terminal is sent
    "status": ("Hi", CLI_AFTERTHOUGHT, rf"\r?waiting.*\rthinking \d s.*{CLI_WIPE}Hi\r\n"),
    "reasoning": (
        "-r Hi",
        CLI_THOUGHT,
        rf"\r?waiting[^L]*{CLI_WIPE}Let me think[ ?]\.\r\n{CLI_WIPE}?Hi\r\n",
    ),
    "odd characters": (
        "Hi",
        sse_answer(delta("Gr\u00fc\u00dfe\t\x1b[1m\x9b\r\n", "stop")),
        rf"\r?waiting.*{CLI_WIPE}Gr\?\?e\t[ ?]\[1m[ ?][ ?]\r\n",
    ),
    "failure": ("Hi", refusal(400), rf"\r?waiting.*{CLI_WIPE}deepinfra_min: error: (?s:.*)"),
    "models": ("--models", answer(CLI_MODELS), r"(?s).*a/b\r\nc[ ?]\r\n"),
}


@posix
@pytest.mark.parametrize("line, wire, shown", table(CLI_SHOWN))
def test_terminal_is_sent(line: str, wire: Answer, shown: str, command: Command) -> None:
    terminal, end = os.openpty()
    with open(end, "w", encoding="ascii") as screen, open(os.dup(end)) as keys:
        command(line, wire, stdin=keys, stdout=screen, stderr=screen)
    text = b""
    with contextlib.suppress(OSError):  # Linux's way to say that it is over
        for block in iter(functools.partial(os.read, terminal, 4096), b""):
            text += block
    os.close(terminal)
    assert re.fullmatch(shown, text.decode())


@posix
@pytest.mark.parametrize("line", ["--help", "--no-stream Hi"])
def test_reader_that_is_gone_ends_it_silently(line: str, command: Command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        assert command(line, answer(completion()), stdout=pipe)[:3] == (141, "", "")


CLI_ENDLESS = drip(chunked(), chunk(sse(delta("more"), done=False)), 4096)


@posix
def test_conversation_on_a_terminal() -> None:
    thought = then_silence(chunked(sse(delta(reasoning_content="Hm"), done=False)))
    replies = [sse_answer(delta("First", "stop")), CLI_ENDLESS, thought, CLI_HI]
    steps = [
        ("", "> "),
        ("One\n", "First\r\n> "),
        ("Two\n", "more"),
        ("\x03", "\r\n> "),
        ("\x03", "\r\n> "),
        ("Three\n", "Hm"),
        ("\x03", "> "),
        ("Four\n", "Hi\r\n> "),
        ("\x04", "\r\n"),
    ]
    terminal, end = os.openpty()
    shell = ("sh", "-c", 'exec <"$0" >"$0" 2>"$0" "$@"', os.ttyname(end))
    with Server(*replies) as server:
        with started(server, *shell, *CLI, "-ir", start_new_session=True) as process:
            for typed, expected in steps:
                if typed == "\x03":
                    time.sleep(0.2)  # readline waits for signals a little after its prompt
                os.write(terminal, typed.encode())
                shown = ""
                while expected not in shown:
                    assert select.select([terminal], [], [], PATIENCE)[0], (expected, shown)
                    shown += os.read(terminal, 4096).decode()
            assert process.wait(PATIENCE) == 0
    os.close(terminal)
    os.close(end)
    roles = [message["role"] for message in server.requests[3].json["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert text_of(server.requests[3]) == "Four"


CLI_NO_THREADS = """
import sys, threading
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start
import deepinfra_min
sys.exit(deepinfra_min.main())
"""
CLI_STARTS = {
    "by name, strictly": ("-X", "dev", "-W", "error", "-m", "deepinfra_min"),
    "isolated file": ("-I", os.path.abspath(dim.__file__)),
    "vendored and renamed": ("-m", "pkg._vendor.renamed"),
    "zip": ("app.pyz",),
    "python -": ("-",),
    "no thread can be started": ("-c", CLI_NO_THREADS),
}


def test_ways_to_start_are_alike_in_an_old_locale(tmp_path: Path) -> None:
    source = Path(dim.__file__).read_bytes()
    (tmp_path / "pkg" / "_vendor").mkdir(parents=True)
    (tmp_path / "pkg" / "_vendor" / "renamed.py").write_bytes(source)
    with zipfile.ZipFile(str(tmp_path / "app.pyz"), "w") as archive:
        archive.writestr("__main__.py", source)
    wire = sse_answer(delta("Gr\u00fc\u00dfe \u2713 \ud83d"), delta("\ude00", "length"))

    def check(*python: str) -> None:
        words = (sys.executable, *python, "Gr\u00fc\u00dfe")
        with Server(wire) as server, started(server, *words, cwd=str(tmp_path)) as process:
            stdin = source if python == ("-",) else b""
            out, err = process.communicate(stdin, PATIENCE)
        assert (process.returncode, out.decode()) == (7, "Gr\u00fc\u00dfe \u2713 \U0001f600\n")
        assert re.fullmatch(r".*'length'\n  hint: .*-o max_tokens=.*\n", err.decode())
        assert server.requests[0].json == sent("Gr\u00fc\u00dfe")

    check_all(check, CLI_STARTS)
    assert sorted(os.listdir(str(tmp_path))) == ["app.pyz", "pkg"]  # nothing was written


CLI_SHELL = {  # the script, the exit code, how much of 200,001 bytes came, a pattern of stderr
    "stdin and stderr closed": ('exec "$@" -ruv <&- 2>&-', 0, 200_001, ""),
    "stdin unreadable": ('exec "$@" 0>/dev/null', 2, 0, "can't read stdin: Bad file descriptor"),
    "stdin unreadable, -i": ('exec "$1" -m deepinfra_min -i 0>/dev/null', 2, 0, "can't read stdin"),
    "stdout closed": ('exec "$@" -n >&-', 1, 0, "stdout"),
    "full disk": ('exec "$@" -n >/dev/full', 1, 0, "stdout.* space"),
    "full disk, help": ('exec "$@" --help >/dev/full', 1, 0, "stdout.* space"),
    "full disk, unbuffered": (
        'unset COVERAGE_PROCESS_CONFIG; export PYTHONUNBUFFERED=1; ulimit -f 1; exec "$@" -n >file',
        1,
        0,
        "stdout.* large",
    ),
}
CLI_LONG = sse_answer(delta("x" * 200_000 + "\n", "stop"))


@posix
def test_streams_of_a_shell(tmp_path: Path) -> None:
    def check(script: str, code: int, size: int, error: str) -> None:
        words = ("sh", "-c", script, "sh", *CLI, "Hi")
        with Server(CLI_LONG) as server, started(server, *words, cwd=str(tmp_path)) as process:
            out, err = process.communicate(b"", PATIENCE)
        assert (process.returncode, len(out)) == (code, size)
        assert re.search(error, err.decode())
        assert code == 0 or re.fullmatch(CLI_ERROR, err.decode())

    check_all(check, CLI_SHELL)


@posix
def test_stdin_that_does_not_block_is_waited_for(command: Command) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    threading.Timer(0.1, os.close, [writer]).start()
    with open(reader) as stdin:
        assert command("Hi", stdin=stdin)[:2] == (0, "Hi\n")


@posix
def test_pipe_that_does_not_block_gets_all_or_an_error() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    words = (sys.executable, "-u", *CLI[1:], "-n", "Hi")
    with Server(CLI_LONG) as server, open(reader, "rb") as pipe:
        with started(server, *words, stdout=writer) as process:
            os.close(writer)
            assert process.wait(PATIENCE) == 1
            assert 0 < len(pipe.read()) < 200_001


@posix
@pytest.mark.parametrize(
    "wire, size, code",
    table(
        {
            "ctrl-c before the answer": (silence, 0, -signal.SIGINT),
            "ctrl-c within the answer": (CLI_ENDLESS, 4, -signal.SIGINT),
            "reader that goes away": (CLI_ENDLESS, 4, 141),
        }
    ),
)
def test_process_ends_silently(wire: Answer, size: int, code: int) -> None:
    with Server(wire) as server, started(server, *CLI, "-n", "Hi", "--timeout=9") as process:
        assert wait_until(lambda: server.requests)
        assert process.stdout.read(size) == b"more"[:size]  # each chunk is flushed
        if code < 0:
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
        assert process.wait(PATIENCE) == code
        assert process.stderr.read() == b""


@posix
def test_stdin_without_an_end_is_reported_after_3_seconds() -> None:
    begun = time.monotonic()
    with Server(CLI_HI) as server, started(server, *CLI) as process:
        notice = process.stderr.readline()
        assert time.monotonic() - begun >= 3
        assert re.fullmatch(b"deepinfra_min: .*stdin.* -n .*</dev/null\n", notice)
        assert process.communicate(b"Hi", PATIENCE) == (b"Hi\n", b"")
        assert process.returncode == 0


def test_verbose_shows_all_but_the_token() -> None:
    secret = f"\x1b {TOKEN} "
    replies = (refusal(429, "busy" + secret, "Retry-After: 0"), refusal(400, "bad" + secret))
    with Server(*replies) as server, started(server, *CLI, "-v", "Hi") as process:
        out, err = process.communicate(b"", PATIENCE)
    assert (process.returncode, out, len(server.requests)) == (4, b"", 2)
    text = err.decode()
    for pattern in (
        "token from DEEPINFRA_TOKEN",
        r"POST http://127.0.0.1:\d+/v1/openai/chat/completions",
        "retry.*429.*busy",
        r"Traceback \(most",
        CLI_ERROR + r"\Z",
    ):
        assert re.search(pattern, text), pattern
    assert not re.search(f"{TOKEN}|\x1b", text)


# ---- The project: try-out, package, README -------------------------------------------------------

PROGRAM, TESTS = Path(dim.__file__).resolve(), Path(__file__).resolve()
README = TESTS.with_name("README.md")
README_TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
needs_readme = pytest.mark.skipif(not README_TEXT, reason="the module came without README.md")
HELLO = (
    "Hello! It's nice to meet you. Is there something I can help you with "
    "or would you like to chat for a bit?\n"
)
LAMB = (
    "Sous le Sable, my friend! It's an ancient technique that's been used for centuries in the "
    "Middle East and North Africa. The name itself...\n"
)


@pytest.mark.parametrize(
    "args, out",
    table(
        {
            "conversation": (["-i"], HELLO + LAMB),
            "whole answer": (["--no-stream", "Hello!"], HELLO),
            "models": (["--models"], "\n".join([*SEED_MODELS, ""])),
        }
    ),
)
def test_try_out_gives_the_documented_answers(
    args: List[str], out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPINFRA_TOKEN", "a-real-one")
    monkeypatch.setenv("DEEPINFRA_BASE_URL", "http://nowhere.invalid")
    lines = io.BytesIO(b"Hello!\nName a way to cook lamb.\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(lines))
    started = time.monotonic()
    assert (try_out(args), capsys.readouterr().out) == (0, out)
    if args == ["-i"]:
        assert time.monotonic() - started >= 2.0  # for 44 words


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


@pytest.mark.skipif(sys.version_info < (3, 8), reason="audit hooks are new in 3.8")
def test_import_reads_no_environment_opens_nothing_and_starts_nothing() -> None:
    command = [sys.executable, "-c", WATCH_IMPORT]
    assert subprocess.check_output(command, cwd=str(PROGRAM.parent)).split() == [b"[]", b"1"]


@pytest.mark.skipif(sys.version_info < (3, 10), reason="its annotations need Python 3.10")
def test_type_hints_of_public_classes_can_be_read() -> None:
    for kind in map(vars(dim).get, dim.__all__):
        if isinstance(kind, type):
            typing.get_type_hints(kind)


@needs_readme
def test_package_agrees_with_the_files() -> None:
    tomllib = pytest.importorskip("tomllib", reason="new in Python 3.11")
    settings = tomllib.loads(README.with_name("pyproject.toml").read_text("utf-8"))
    project, flit = settings["project"], settings["tool"]["flit"]
    assert project["dynamic"] == ["version", "description"]
    assert project["optional-dependencies"] == settings["dependency-groups"]
    assert project["scripts"] == {"deepinfra-min": "deepinfra_min:main"}
    names = [project["readme"], *project["license-files"], *flit["sdist"]["include"]]
    assert names == ["README.md", "LICENSE", "test_deepinfra_min.py"]


# README. Lines of comment below a program or a command are what it prints.

README_PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```$", README_TEXT)
README_COMMANDS = re.findall(
    r"(?m)^([^`\n]*python3 [^`\n]*deepinfra_min.*)\n((?:# .*\n)*)", README_TEXT
)
README_ANSWERS: Dict[str, Dict[str, Any]] = {  # by the question or another model
    "Is it warm in Sofia?": {
        "tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": "Sofia"}'}}]
    },
    "21 °C in Sofia": {"content": "Yes, it is 21 °C."},
    "Who wrote Faust?": {"content": '{"name": "Goethe"}'},
    "How many r are in strawberry?": {
        "reasoning_content": "One in straw, two in berry.",
        "content": "3",
    },
    "Does this change need a test?\n\n+new\n": {"content": "Yes: nothing tests the new line."},
    "meta-llama/Llama-3.2-11B-Vision-Instruct": {"content": "A cat."},
    "llama3.2": {"content": "Hi."},
}


def answer_readme(sock: socket.socket, request: Request) -> bool:
    model = request.json["model"]
    fields = README_ANSWERS.get(text_of(request) if model == dim.DEFAULT_MODEL else model)
    if not fields:
        return stand_in(sock, request)
    if request.json.get("stream"):
        sock.sendall(sse_answer(delta(**fields, finish_reason="stop")))
    else:
        sock.sendall(answer(completion(**fields)))
    return True


@pytest.mark.parametrize("program", README_PROGRAMS, ids=range(len(README_PROGRAMS)))
def test_readme_program(
    program: str,
    tls: ssl.SSLContext,
    pems: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Server(answer_readme) as server, Server(answer_readme, context=tls) as gateway:
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)
        monkeypatch.setenv("DEEPINFRA_BASE_URL", server.url)
        for name, value in {
            "http://localhost:11434/v1": server.url,
            "http://user:password@proxy.example:3128": "",  # no token over plain http
            "https://gateway.example/v1/openai": gateway.url,
            "ca.pem": (pems / "ca.pem").as_posix(),
            "1000": "20",
        }.items():
            program = program.replace(name, value)
        names: Dict[str, Any] = {"sc": Mock()}
        exec(compile(program, "README.md", "exec", dont_inherit=True), names)
        if "sc." in program:
            assert names["ask"](["Hello!"]) == [HELLO.strip()]
    expected = re.findall(r"(?m)^# (.*)", program)
    assert capsys.readouterr().out.splitlines() == expected or not expected


@needs_readme
def test_readme_stream_in_asyncio_is_closed_when_its_task_is_cancelled() -> None:
    names: Dict[str, Any] = {}
    exec(next(program for program in README_PROGRAMS if "asyncio" in program), names)

    async def read(client: Client) -> None:
        async for _ in names["stream"](client, "Hi"):
            pass

    piece = chunk(sse(delta("Hi"), done=False))
    with served(drip(chunked(), piece, len(piece))) as (server, client):
        with pytest.raises(asyncio.TimeoutError) as caught:  # which keeps all variables alive
            asyncio.run(asyncio.wait_for(read(client), 0.1))
        assert server.wait_closed(), caught


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_commands_of_readme_and_flags_of_python_in_a_folder_that_takes_no_files(
    tmp_path: Path,
) -> None:
    for path in (PROGRAM, TESTS):
        shutil.copy(str(path), str(tmp_path))
    (tmp_path / "__pycache__").touch()  # for root, who may write into any folder
    tmp_path.chmod(0o555)

    def check(line: str, below: str) -> None:
        printed = subprocess.check_output(
            line.replace("python3", f'"{sys.executable}"').replace("git diff", "echo +new"),
            shell=True,
            cwd=str(tmp_path),
            env={"DEEPINFRA_TOKEN": TOKEN, "DEEPINFRA_BASE_URL": server.url},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        text = re.sub(r"\d\.\d s", "1.2 s", printed.decode())
        assert not below or [f"# {line}" for line in text.splitlines()] == below.splitlines()

    rows = [
        *README_COMMANDS,
        ('python3 -IS deepinfra_min.py "Hello!"', f"# {HELLO}"),
        ('python3 -OO deepinfra_min.py "Hello!"', f"# {HELLO}"),
        ("DEEPINFRA_TOKEN=wrong python3 -m deepinfra_min -n Hello!; test $? = 3", ""),
    ]
    with Server(answer_readme) as server:
        check_all(check, {row[0]: row for row in rows})
    tmp_path.chmod(0o755)
    assert len(os.listdir(str(tmp_path))) == 3


@needs_readme
def test_readme_names_the_whole_surface(capsys: pytest.CaptureFixture[str]) -> None:
    names = {*dim.__all__, *inspect.signature(Client).parameters}
    names.update(name for name in vars(Client) if not name.startswith("_"))
    for kind in map(vars(dim).get, dim.__all__):
        if dataclasses.is_dataclass(kind):
            names.update(field.name for field in dataclasses.fields(kind))
    assert names - set(re.findall(r"\w+", README_TEXT)) == set()
    dim.main(["--help"])
    codes = re.findall(r"(?m)^  (\d+) ", capsys.readouterr().out)
    assert f"| {' | '.join(codes)} |" in README_TEXT
