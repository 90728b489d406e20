"""Tests of deepinfra_min, against real servers on loopback; no outside network is used.

`python3 test_deepinfra_min.py "Hello!"` needs neither pytest nor a token nor a network: it runs the
command line against a stand-in on loopback that gives the documented answers.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import gzip
import inspect
import io
import json
import logging
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
import subprocess
import sys
import threading
import time
import types
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple
from unittest.mock import Mock

import deepinfra_min as dim
from deepinfra_min import Client, Message, collect, iter_sse

# ---- The server on loopback ----------------------------------------------------------------------

TOKEN = "sk-test-0123456789abcdef"
PATIENCE = 15.0  # seconds to wait for what should come at once, on a very busy machine


class Request(NamedTuple):
    """A request as the server saw it; `connection` counts the connections from 0."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The content of the last message."""
        return str(self.json["messages"][-1]["content"])


class Server:
    """An HTTP server on loopback that gives its answers in order, the last one again and again.

    An answer is the bytes to send (the connection stays open unless they say `Connection: close`),
    or a function that gets the socket and the request, and says whether to keep the connection.
    `requests` are those seen, `connections` is how many were accepted, `closed` how many of them
    have ended. With `context` it speaks TLS.
    """

    def __init__(self, *answers: Any, context: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.context = context
        self.requests: list[Request] = []
        self.connections = self.closed = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if context else 'http'}://{self.address}/v1/openai"

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in [self._listener, *self._sockets]:
            close_socket(sock)

    def client(self, **options: Any) -> Client:
        """Return a client of this server."""
        return Client(**{"api_key": TOKEN, "base_url": self.url, "timeout": PATIENCE, **options})

    def wait_closed(self, count: int = 1) -> bool:
        """Return whether so many connections are closed soon."""
        return wait_until(lambda: self.closed >= count)

    @property
    def used(self) -> list[int]:
        """On which connection each request came."""
        return [request.connection for request in self.requests]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                sock = self._listener.accept()[0]
                self._sockets.append(sock)
                number = self.connections
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            with sock.makefile("rb") as reader:
                while self._answer(sock, reader, number):
                    pass
        close_socket(sock)
        self.closed += 1

    def _answer(self, sock: socket.socket, reader: Any, number: int) -> bool:
        words = reader.readline().decode("latin-1").split()
        if len(words) != 3:
            return False
        headers = {}
        for line in iter(reader.readline, b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        is_read = not words[1].endswith("/early")  # else the answer comes before the body is read
        body = reader.read(int(headers.get("content-length", 0))) if is_read else b""
        request = Request(words[0], words[1], headers, body, number)
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


def wait_until(is_true: Callable[[], Any]) -> bool:
    """Return whether something comes true in time; works where time.sleep is patched, too."""
    for _ in range(int(PATIENCE * 200)):
        if is_true():
            return True
        pause(0.005)
    return False


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


LAST = b"0\r\n\r\n"  # ends a chunked body


def answer(
    body: Any = b"", status: int = 200, *headers: str, size: int = 0, type: str = "application/json"
) -> bytes:
    """Return an HTTP answer; a body that is no bytes is JSON; with `size`, in chunks of so much."""
    text: bytes = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {type}", *headers]
    if size:
        head.append("Transfer-Encoding: chunked")
        text = b"".join(map(chunk, blocks_of(text, size))) + LAST
    else:
        head.append(f"Content-Length: {len(text)}")
    return "\r\n".join([*head, "", ""]).encode() + text


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def blocks_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def sse(*payloads: Any, done: bool = True) -> bytes:
    """Return payloads as the body of an event stream."""
    texts = [item if isinstance(item, str) else json.dumps(item) for item in payloads]
    return "".join(f"data: {text}\n\n" for text in texts + ["[DONE]"] * done).encode()


def stream_of(*payloads: Any, done: bool = True) -> bytes:
    """Return an answer that is a chunked event stream."""
    body = payloads[0] if isinstance(payloads[0], bytes) else sse(*payloads, done=done)
    return answer(body, size=65536, type="text/event-stream")


def delta(content: Any = None, finish_reason: Any = None, index: Any = 0, **fields: Any) -> Any:
    """Return a chunk as the API sends it."""
    part = {**({} if content is None else {"content": content}), **fields}
    choice = {"index": index, "delta": part, "finish_reason": finish_reason}
    head = {"id": "x1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice]}


def completion(content: Any = "Hi", finish_reason: Any = "stop", **fields: Any) -> Any:
    """Return a whole answer as the API sends it."""
    message = {"role": "assistant", "content": content, **fields}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 0.5}
    head = {"id": "x1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage}


def cut(wire: bytes) -> Any:
    """Return an answer after which the server closes the connection, whatever the bytes say."""
    return lambda sock, request: sock.sendall(wire)


def hang(wire: bytes = b"") -> Any:
    """Return an answer after which the server waits for the client to close the connection."""

    def send(sock: socket.socket, request: Request) -> None:
        sock.sendall(wire)
        while sock.recv(65536):
            pass

    return send


def drip(wire: bytes, again: bytes) -> Any:
    """Return an answer that goes on for ever, with the same bytes each 0.02 s."""

    def send(sock: socket.socket, request: Request) -> None:
        sock.sendall(wire)
        while True:
            pause(0.02)
            sock.sendall(again)

    return send


def steps(*parts: Any) -> Any:
    """Return an answer of steps: bytes to send, seconds to wait, functions to call.

    A text is sent as a whole answer; {0} in it is what was asked, {1} on which connection.
    """

    def send(sock: socket.socket, request: Request) -> bool:
        for part in parts:
            if isinstance(part, str):
                part = answer(completion(part.format(request.text, request.connection)))
            if isinstance(part, bytes):
                sock.sendall(part)
            elif isinstance(part, float):
                pause(part)
            else:
                part()
        return True

    return send


WHOLE = answer(completion())
HI = stream_of(delta("Hi", "stop"))
OPEN = HI[: -len(LAST)]  # the end of the body does not come
START = answer(size=1)[: -len(LAST)]
BUSY = answer({"error": "no"}, 503)
ANEW = answer({"error": f"busy {TOKEN}"}, 429, "Retry-After: 0")
ECHO = steps("{0}")
OK = b"HTTP/1.1 200 OK\r\n"

# ---- The documented exchanges --------------------------------------------------------------------

# As DeepInfra's pages print them. The pages of two models differ in the model's name and in white
# space alone: `documented(text, model)` is a text as the page of that model has it.
MODELS = ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B")

HELLO_ANSWER = """{
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

LAMB_ANSWER = """{
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

STREAM_TEXTS = (" ", " Hi", "!", "", "</s>")
STREAM_HEAD = (
    'data: {"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk", "created": '
    '1694623354, "model": "deepseek-ai/DeepSeek-R1", "choices": [{"index": 0, "delta": {'
)
STREAM_LINES = [  # one page prints `data: [DONE]` after them, one does not
    f'{STREAM_HEAD}"role": "assistant", "content": "{text}"}}, "finish_reason": null}}]}}'
    for text in STREAM_TEXTS
]
STREAM_LINES.append(STREAM_HEAD + '}, "finish_reason": "stop"}]}')

HELLO: Any = [{"role": "user", "content": "Hello!"}]
LAMB: Any = json.loads("""[
{"role": "system", "content": "Respond like a michelin starred chef."},
{"role": "user", "content": "Can you name at least two different techniques to cook lamb?"},
{"role": "assistant", "content": "Bonjour! Let me tell you, my friend, cooking lamb is an \
art form, and I'm more than happy to share with you not two, but three of my favorite techniques \
to coax out the rich, unctuous flavors and tender textures of this majestic protein. First, we \
have the classic \\"Sous Vide\\" method. Next, we have the ancient art of \\"Sous le Sable\\". And \
finally, we have the more modern technique of \\"Hot Smoking.\\""},
{"role": "user", "content": "Tell me more about the second method."}]""")


def documented(text: str, model: str) -> str:
    """Return a documented text as the page of the model has it."""
    if model == MODELS[1]:
        text = "\n".join(line.strip() for line in text.split("\n"))
    return text.replace(MODELS[0], model)


# ---- The offline try-out -------------------------------------------------------------------------

OFFLINE = (
    "Offline demo: a local stand-in answers with examples from DeepInfra's documentation; "
    "no model is asked."
)


def stand_in(sock: socket.socket, request: Request, seconds: float = 0.0) -> bool:
    """Answer as DeepInfra's documentation does; a stream brings a word a chunk."""
    question = request.json if request.body else {}
    model = question.get("model")
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        reply = answer({"error": {"message": "Not authenticated"}}, 401)
    elif request.path.endswith("/models"):
        reply = answer({"data": [{"id": name} for name in MODELS]})
    elif model not in MODELS:
        reply = answer({"detail": {"error": f"The model `{model}` does not exist"}}, 404)
    else:
        text = LAMB_ANSWER if len(question["messages"]) > 2 else HELLO_ANSWER
        whole = json.loads(documented(text, model))
        message = whole["choices"][0]["message"]
        message["content"] = message["content"].strip()  # one begins with a space
        reply = answer(whole)
        if question.get("stream"):
            sock.sendall(START)
            for word in re.findall(r"\S+\s*", message["content"]):
                sock.sendall(chunk(sse(delta(word), done=False)))
                time.sleep(seconds)
            reply = chunk(sse({**delta(None, "stop"), "usage": whole["usage"]})) + LAST
    sock.sendall(reply)
    return True


def try_out(argv: list[str]) -> int:
    """Run the command line against the stand-in, whatever the environment says of other servers."""
    print(OFFLINE, file=sys.stderr, flush=True)
    for name in list(os.environ):
        if name.startswith("DEEPINFRA_"):
            del os.environ[name]
    with Server(functools.partial(stand_in, seconds=0.04)) as server:
        os.environ.update(DEEPINFRA_TOKEN=TOKEN, DEEPINFRA_BASE_URL=server.url)
        return dim.main(argv)


if __name__ == "__main__":
    sys.exit(try_out(sys.argv[1:]))

import pytest  # noqa: E402  (the try-out above must run without it)

for name in list(os.environ):
    if name.upper().startswith("DEEPINFRA_") or name.upper().endswith("_PROXY"):
        del os.environ[name]
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals, terminals or shells")
Patch = pytest.MonkeyPatch


def each(names: str, rows: Any = None) -> pytest.MarkDecorator:
    """Run a test with each row of a table; a mapping names them, else JSON may follow the names."""
    if isinstance(rows, dict):
        rows = [pytest.param(*row, id=name) for name, row in rows.items()]
    if rows is None:
        names, _, text = names.partition("\n")
        rows = json.loads(f"[{text}]")
    return pytest.mark.parametrize(names, rows, ids=lambda value: repr(value)[:50])


def together(check: Callable[..., Any], rows: Any) -> None:
    """Check all rows of a table at once, since each mostly waits."""
    with ThreadPoolExecutor(len(rows)) as pool:
        for call in [pool.submit(check, *row) for row in rows]:
            call.result()


@contextlib.contextmanager
def served(*answers: Any, **options: Any) -> Iterator[tuple[Server, Client]]:
    """Yield a server that gives the answers, and a client of it that tries once."""
    context = options.pop("context", None)
    with Server(*answers, context=context) as server:
        with server.client(**{"max_retries": 0, **options}) as client:
            yield server, client


def ask(client: Client, text: Any = "Hi", way: str = "chat", **params: Any) -> Any:
    """Return the text of an answer, or our error; a way that begins with "stream" streams it."""
    try:
        if way.startswith("stream"):
            return collect(client.stream(text, **params)).text
        return client.chat(text, **params).text
    except dim.DeepInfraError as error:
        return error


def result(wire: Any, way: str = "chat", **options: Any) -> Any:
    """Return what a client that tries once makes of an answer: its text, or our error."""
    with served(wire, **options) as (_, client):
        return ask(client, way=way)


def describe(outcome: Any) -> str:
    """Return a text as it is, and of an error its class, an APIError's status and message, too."""
    if isinstance(outcome, dim.APIError):
        return f"{type(outcome).__name__} {outcome.status} {outcome.message}"
    return outcome if isinstance(outcome, str) else type(outcome).__name__


@contextlib.contextmanager
def deaf_port(is_full: bool = False) -> Iterator[int]:
    """Give a port where nothing answers; a full one takes no connection either."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if is_full else 16)
        for _ in range(8 * is_full):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.02)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture()
def waits(monkeypatch: Patch) -> list[float]:
    """Let no time pass between attempts, but note how long it should be."""
    noted: list[float] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


def pem_of(text: str) -> str:
    """Return a kind and lines of Base64 as PEM, whose lines have 64 characters."""
    kind, *lines = text.split("\n")
    text = "\n".join(re.findall(".{1,64}", "".join(lines)))
    return f"-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n"


# A CA; a certificate of it for 127.0.0.1, localhost and api.example.test; the key of that. They are
# for these tests alone and hold from 2020 to 2120.
CA = pem_of("""CERTIFICATE
MIIBVjCB/aADAgECAgEBMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMD
EwMDAwMDBaMBIxEDAOBgNVBAMMB1Rlc3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASYdtXVFtDjhIwJiz+vhUEqSIjT
Mburl1B2CmjeotXOrVdyWHP+N9LjuDbKahsutQgQFcBB/FigISv+GOQz0Rqmo0IwQDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDw
EB/wQEAwICBDAdBgNVHQ4EFgQUTKOv8l3EfywbSSNNH7FxHeQJnjYwCgYIKoZIzj0EAwIDSAAwRQIhAOW6Tsf9y0CRnxkcl607
ZZxUsR/EiWPG/hdTc1Pdqcf6AiBQHbSCY4iFcmdGSzPrJnKlgshRXj/k8lW54MqDpxJ4hg==""")
LEAF = pem_of("""CERTIFICATE
MIIBgjCCASigAwIBAgIBAzAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdUZXN0IENBMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMT
AxMDAwMDAwWjAPMQ0wCwYDVQQDDARsZWFmMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjCGsOXZLDZyioDMNVwjQFsppnTAV
bbdGX1CnWPYqw1Kgh8qjt0948HnV+zCuGmlU7SxEdWKkoQmm9Yl+yIZ7b6NwMG4wLAYDVR0RBCUwI4cEfwAAAYIJbG9jYWxob3
N0ghBhcGkuZXhhbXBsZS50ZXN0MB8GA1UdIwQYMBaAFEyjr/JdxH8sG0kjTR+xcR3kCZ42MB0GA1UdDgQWBBRaksfPF6XiqEeB
EVgz6VBGr/2CJzAKBggqhkjOPQQDAgNIADBFAiAzIWg/aacnmPsHf7mo3Qs0NV57JfDPcMPvxrSFjk3dFgIhAP5mFEfQmI1pCO
locPuxVnIEhgUVldrOjeDzOR/Z5ILN""")
LEAF_KEY = pem_of("""PRIVATE KEY
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgZ2Qyz9zApc7MgPw4BZW3o9cfm7FRQWKmYy7LCMFWnvKhRANCAA
SMIaw5dksNnKKgMw1XCNAWymmdMBVtt0ZfUKdY9irDUqCHyqO3T3jwedX7MK4aaVTtLER1YqShCab1iX7Ihntv""")

EXAMPLE = "https://api.example.test/v1/openai"


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ca.pem and leaf.pem, which holds the key, too."""
    folder = tmp_path_factory.mktemp("pems")
    (folder / "ca.pem").write_text(CA)
    (folder / "leaf.pem").write_text(LEAF + LEAF_KEY)
    return folder


@pytest.fixture()
def tls(pems: Path, monkeypatch: Patch) -> ssl.SSLContext:
    """Return a server's context; make clients trust it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pems / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pems / "leaf.pem"))
    return context


@pytest.fixture(params=["http", "https"])
def serve(request: Any, tls: ssl.SSLContext) -> Any:
    """Return `served` for plain connections, then for TLS."""
    return functools.partial(served, context=tls if request.param == "https" else None)


# ---- The documented exchanges, through a server --------------------------------------------------

each_model = each("model", MODELS)
each_framing = each("framing", ["chunked", "length", "none"])


def framed(blocks: list[bytes], framing: str) -> bytes:
    """Return an answer in chunks, one with a length, or one that ends with the connection."""
    if framing == "chunked":
        return START + b"".join(map(chunk, blocks)) + LAST
    wire = answer(b"".join(blocks))
    return wire if framing == "length" else wire.replace(b"Content-Length", b"X-Length")


def beginnings(wire: bytes, step: int) -> list[bytes]:
    """Return what arrives of an answer that is cut at every `step` bytes, then all of it.

    The last bytes of a chunked answer are one end: http.client does not look beyond its "0".
    """
    size = len(wire) - 4 if wire.endswith(LAST) else len(wire)
    return [wire[:end] for end in range(0, size, step)] + [wire]


def check_documented_request(request: Request, **payload: Any) -> None:
    """Fail unless the request is the documented curl line's."""
    assert request[:2] == ("POST", "/v1/openai/chat/completions")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.json == payload


@each_model
@each_framing
@each("done", [True, False])
def test_documented_stream_at_every_cut_and_whole(model: str, done: bool, framing: str) -> None:
    lines = [documented(line, model) for line in STREAM_LINES] + ["data: [DONE]"] * done
    events = [f"{line}\n\n".encode() for line in lines]
    raws = [json.loads(event[6:]) for event in events[:6]]
    whole = framed(events, framing)
    step = 1 if (framing, done, model) == ("chunked", True, MODELS[0]) else 53
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
    check_documented_request(server.requests[-1], model=model, messages=HELLO, stream=True)
    assert [item.text for item in chunks] == [*STREAM_TEXTS, ""]
    choice = dim.Choice(0, Message("assistant", "  Hi!</s>"), "stop")
    head = ("Rc5hsIPHOSfMP3rNSFUw9tfR", "chat.completion", 1694623354, model)
    assert collect(chunks) == dim.ChatCompletion(*head, (choice,))


@each_model
@each_framing
@each("text, messages", [(HELLO_ANSWER, HELLO), (LAMB_ANSWER, LAMB)])
def test_documented_answer_at_cuts(text: str, messages: Any, framing: str, model: str) -> None:
    text = documented(text, model)
    whole = framed(blocks_of(text.encode(), 100), framing)
    *parts, _ = beginnings(whole, 1 if (framing, text) == ("length", HELLO_ANSWER) else 83)
    with served(*map(cut, parts), whole) as (server, client):
        for wire in parts:
            is_unseen = framing == "none" and wire.partition(b"\r\n\r\n")[2]
            kind = dim.APIResponseError if is_unseen else dim.APIConnectionError
            assert type(ask(client)) is kind
        server.answers[0] = cut(whole)
        reply = client.chat([Message(**message) for message in messages], model=model)
    check_documented_request(server.requests[-1], model=model, messages=messages)
    raw = json.loads(text)
    choice = dim.Choice(0, Message(**raw["choices"][0]["message"]), "stop")
    fields = {**raw, "choices": (choice,), "usage": dim.Usage(**raw["usage"])}
    assert reply == dim.ChatCompletion(**fields)
    assert (reply.text, reply.raw, reply.to_dict()) == (choice.message.content, raw, raw)


# ---- Errors --------------------------------------------------------------------------------------


def check_copies(item: Any) -> None:
    other = pickle.loads(pickle.dumps(item))
    assert (type(other), repr(other), vars(other)) == (type(item), repr(item), vars(item))


def test_error_classes_and_what_they_keep() -> None:
    assert dim.ConfigurationError.__bases__ == (dim.DeepInfraError, ValueError)
    body = {"error": {"message": "\x1b[31m\r\n" + "x" * 5000, "code": "c"}, "more": [1]}
    error = result(answer(body, 429, "Retry-After: 7", "X-Request-Id: r-1"))
    assert (error.body, error.code, error.partial) == (body, "c", None)
    assert (error.request_id, error.retry_after) == ("r-1", 7.0)
    assert error.headers["content-type"] == "application/json"
    assert (str(error).isprintable(), 900 < len(error.message) <= 1000) == (True, True)
    check_copies(error)
    check_copies(result(stream_of(delta("Hi"), done=False), "stream"))


# The status of an answer, its body, the error, whether the same request may be sent again.
@each(r"""status, body, outcome, is_retryable
    [300, "m", "APIError 300 m", false], [404, "m", "APIError 404 m", false],
    [400, {"error": {"message": "m", "code": 503}}, "APIError 400 m", false],
    [401, "m", "AuthenticationError 401 m", false], [403, "m", "AuthenticationError 403 m", false],
    [408, "m", "APIError 408 m", true], [409, "m", "APIError 409 m", true],
    [429, "m", "RateLimitError 429 m", true], [500, "m", "ServerError 500 m", true],
    [503, null, "ServerError 503 Service Unavailable", true],
    [503, {"error": 7}, "ServerError 503 {\"error\": 7}", true],
    [503, {"detail": [null, [], "x", {"loc": 1}]}, "ServerError 503 x", true],
    [503, {"error": {"message": {}}}, "ServerError 503 {\"error\": {\"message\": {}}}", true],
    [200, {"error": {"message": "m", "code": 429}}, "RateLimitError 429 m", true],
    [200, {"error": {"message": "m", "code": "401"}}, "AuthenticationError 401 m", false],
    [200, {"error": {"message": "m", "code": 42}, "choices": []}, "APIError None m", false],
    [200, {}, "APIResponseError", false],
    [200, {"choices": [], "usage": {}}, "APIResponseError", false],
    [200, {"choices": ["Hi"]}, "APIResponseError", false], [200, [], "APIResponseError", false]""")
def test_error_by_status(status: int, body: Any, outcome: str, is_retryable: bool) -> None:
    error = result(answer(body, status))
    assert (describe(error), error.is_retryable) == (outcome, is_retryable)
    check_copies(error)


def test_body_that_is_not_json() -> None:
    for text in ("", " busy\n", "\n<p>", "[" * 50_000, '{"choices": [{"mess', "\ufffd" * 300):
        error = result(answer(text.encode()))
        assert (describe(error), error.body) == ("APIResponseError", text[:200])
        assert describe(result(answer(text.encode(), 503)))[:16] == "ServerError 503 "
    for begin in (b"", b": ping\n\n", b"\nevent: message\n"):
        assert "event stream" in str(result(answer(begin + sse(delta("Hi", "stop")))))


# The body of an error, and the words that a user must see.
@each(r"""body, words
    [{"error": {"message": "No", "param": null, "code": null}}, "No"],
    [{"detail": "Unauthorized"}, "Unauthorized"],
    [{"detail": {"error": "Add a payment method"}}, "Add a payment method"],
    [{"detail": [{"loc": ["body", "n"], "msg": "low"}, {"loc": ["x", 0], "msg": "high"}]},
    "body.n: low; x.0: high"], [{"error": {"msg": "m", "code": {}}}, "m"],
    [[{"error": {"code": 400, "message": "no such tool"}}], "no such tool"],
    [[{}, {"error": "no such tool"}], "no such tool"],
    [{"errors": [{"code": 7003, "message": "Could not route"}]}, "Could not route"],
    [{"errors": ["Could not", "route"]}, "Could not; route"],
    [{"errors": {"message": "Could not route"}, "success": false}, "Could not route"],
    [{"code": 400, "msg": "model offline"}, "model offline"],
    [{"object": "error", "message": "KV cache full"}, "KV cache full"],
    [{"error": {"error": {"message": "deep"}}}, "deep"],
    [{"error": "\n\u001b[2Ja\r\nb\u0000c\u2028d\u009be\ud83d\t"}, "[2Ja  b c d e"]""")
def test_error_of_any_shape_is_raised_with_its_words(body: Any, words: str) -> None:
    assert describe(result(answer(body, 400))) == f"APIError 400 {words}"
    for wire in (answer(body), stream_of(delta("Hi"), body), stream_of(delta("Hi", "stop"), body)):
        error = result(wire, "stream")
        assert isinstance(error, dim.APIError)
        assert (error.message, error.body) == (words, body)
    assert error.partial.text == "Hi"
    assert result(answer(body)).message == words


# ---- Data ----------------------------------------------------------------------------------------

# An answer that is a completion, a chunk, and a list of models.
RICH: Any = json.loads("""{
    "id": "x1", "object": "o", "created": 7, "model": "m", "service_tier": "flex", "new": [2],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated_cost": 1,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 2}},
    "choices": [{
        "index": 3, "finish_reason": "stop", "logprobs": {"content": [{"logprob": -0.5}]},
        "message": {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "name": "n",
            "reasoning_details": [{"text": "hm"}],
            "tool_calls": [{"id": "c1", "type": "function", "extra_content": {"signature": "s"},
                "function": {"name": "f", "arguments": "{not JSON", "new": 1}}]}}],
    "data": [{"id": "a/b", "metadata": {"tags": []}}, {}]
}""")
CALL = dim.ToolCall("c1", "function", dim.Function("f", "{not JSON"))


def test_answer_is_parsed_whole_and_survives_copies_and_json() -> None:
    with served(answer(RICH)) as (_, client):
        reply = client.chat("Hi")
        assert client.models() == [dim.Model("a/b"), dim.Model()]
    message = Message("assistant", "Hi", "hm", (CALL,), "n")
    choice = dim.Choice(3, message, "stop", {"content": [{"logprob": -0.5}]})
    assert (reply.choices, reply.message, reply.service_tier) == ((choice,), message, "flex")
    check_copies(reply)
    assert json.loads(json.dumps([reply], default=lambda item: item.to_dict())) == [RICH]


# A choice of a whole answer, and what is left of its message; a value of a wrong type is missing.
@each(r"""choice, message
    [{}, {}], [{"message": null, "index": null, "finish_reason": null, "logprobs": null}, {}],
    [{"message": [], "index": "1", "finish_reason": 7, "logprobs": [1]}, {}],
    [{"message": 7, "index": 1.5, "logprobs": true}, {}],
    [{"message": {"role": [], "content": 7, "name": {}, "tool_calls": {}}}, {}],
    [{"message": {"reasoning_content": ["x"], "tool_calls": ["f", null]}}, {}],
    [{"message": {"role": "tool"}}, {"role": "tool"}],
    [{"message": {"tool_calls": [{"id": 1, "type": null, "function": {"name": 7}}]}},
    {"tool_calls": [{"type": "function", "function": {"arguments": ""}}]}],
    [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}},
    {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}],
    [{"message": {"reasoning": "hm", "content": "Hi"}}, {"reasoning": "hm", "content": "Hi"}],
    [{"message": {"content": [{"type": "text", "text": "Hel"}, {"text": "lo"}, "!"]}},
    {"content": "Hello!"}],
    [{"message": {"content": {"type": "text", "text": "Hi"}}}, {"content": "Hi"}],
    [{"message": {"content": {"name": "Goethe"}}}, {"content": "{\"name\": \"Goethe\"}"}],
    [{"message": {"content": [{"type": "thinking", "thinking": "hm"},
    {"type": "text", "text": "Hi"}, 7, null]}}, {"content": "Hi", "reasoning_content": "hm"}],
    [{"message": {"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}]}},
    {"reasoning_content": "hm"}],
    [{"message": {"content": null, "refusal": "No."}}, {"content": "No.", "refusal": "No."}],
    [{"message": {"content": "Yes.", "refusal": "No."}}, {"content": "Yes.", "refusal": "No."}],
    [{"message": {"content": "\u2028\u0000\ud83d"}}, {"content": "\u2028\u0000\ud83d"}]""")
def test_answer_is_parsed_tolerantly(choice: Any, message: Any) -> None:
    usage = {"total_tokens": "3", "prompt_tokens": 1, "completion_tokens": True}
    body = {"choices": [choice, None, 7], "usage": usage, "error": {}, "detail": "", "id": None}
    with served(answer({**body, "object": [], "created": 1.5, "model": 7})) as (_, client):
        reply = client.chat("Hi")
    wanted = {"role": "assistant", "content": None, **message}
    assert (reply.message.to_dict(), reply.text) == (wanted, wanted["content"] or "")
    assert reply.raw["choices"] == body["choices"]
    expected = dim.ChatCompletion(choices=(dim.Choice(0, reply.message),), usage=dim.Usage(1))
    assert reply == expected


# ---- Client: settings and requests ---------------------------------------------------------------


@each(r"""settings
    {"base_url": "api.example.test/v1"}, {"base_url": "ftp://api.example.test"},
    {"base_url": "https://"}, {"base_url": "https://me:hunter2@api.example.test"},
    {"base_url": "https://api.example.test/v1?hunter2"},
    {"base_url": "https://api.example.test/v 1"},
    {"base_url": "https://api.ex\u00e4mple.test"}, {"base_url": "https://api.example.test:99999"},
    {"base_url": "https://api.example.test:0"}, {"base_url": "https://[::1"},
    {"base_url": "http://api.example.test"}, {"base_url": "http://8.8.8.8/v1"},
    {"base_url": "http://127.0.0.1", "proxy": "127.0.0.1:9"},
    {"base_url": "http://a.test", "api_key": "", "headers": {"authorization": "Basic hunter2"}},
    {"api_key": " \t"}, {"api_key": "hunter2\nX: y"}, {"api_key": "hunter2 x"},
    {"api_key": "hunter2\u00e9"}, {"headers": {"X y": "hunter2"}}, {"headers": {"": "hunter2"}},
    {"headers": {"X": "hunter2\r\nY: z"}}, {"headers": {"X": "hunter2\u20ac"}},
    {"headers": {"X": "hunter2\u0000"}}, {"timeout": 0}, {"timeout": NaN}, {"connect_timeout": -1},
    {"deadline": 0}, {"max_retries": -1}, {"proxy": "socks5://me:hunter2@127.0.0.1:1"},
    {"proxy": "https://me:hunter2@127.0.0.1:1"}, {"proxy": "http://me:hunter2@127.0.0.1:x"},
    {"proxy": "http://me:hunter2@127.0.0.1:1/path"}, {"proxy": "http://me:hunter2@"},
    {"proxy": "http://me:hunter2@[::1"}""")
def test_settings_refused(settings: Any) -> None:
    with pytest.raises(dim.ConfigurationError) as caught:
        Client(**{"api_key": TOKEN, **settings})
    assert "hunter2" not in f"{caught.value} {vars(caught.value)}"


@each("""url, expected
    [" https://api.example.test/v1/ ", "https://api.example.test/v1"],
    ["HTTPS://API.example.test:8443", "https://API.example.test:8443"],
    ["https://[2001:db8::1]:8443/a/b", "https://[2001:db8::1]:8443/a/b"],
    ["http://my-server/v1", "http://my-server/v1"], ["http://[::1]:8000", "http://[::1]:8000"],
    ["", "https://api.deepinfra.com/v1/openai"]""")
def test_base_url(url: str, expected: str, monkeypatch: Patch) -> None:
    monkeypatch.setenv("DEEPINFRA_BASE_URL", url)
    assert Client(TOKEN).base_url == expected
    assert Client(TOKEN, base_url=EXAMPLE).base_url == EXAMPLE


@each(r"""env, api_key, sent
    [{"DEEPINFRA_TOKEN": "b"}, "jwt:a", "Bearer jwt:a"],
    [{"DEEPINFRA_TOKEN": "a", "DEEPINFRA_API_KEY": "b"}, null, "Bearer a"],
    [{"DEEPINFRA_API_KEY": "b", "DEEPINFRA_API_TOKEN": "c"}, null, "Bearer b"],
    [{"DEEPINFRA_TOKEN": " ", "DEEPINFRA_API_TOKEN": "c"}, null, "Bearer c"],
    [{"DEEPINFRA_TOKEN": " \"a\"\r\n"}, null, "Bearer a"], [{}, null, null],
    [{"DEEPINFRA_TOKEN": "a"}, "", null]""")
def test_token(env: Any, api_key: Any, sent: Any, monkeypatch: Patch) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with served(WHOLE, answer(b"", 401), api_key=api_key) as (server, client):
        client.chat("Hi")
        with pytest.raises(dim.AuthenticationError, match=r"DEEPINFRA_|api_key"):
            client.stream("Hi")
    assert server.requests[0].headers.get("authorization") == sent


def connect_to(server: Server, monkeypatch: Patch) -> list[Any]:
    """Let all connections go to the server; return the addresses that they are for."""
    connect = socket.create_connection
    asked: list[Any] = []

    def redirect(address: Any, *args: Any, **options: Any) -> socket.socket:
        asked.append("{}:{}".format(*address))
        return connect(("127.0.0.1", server.port), *args, **options)

    monkeypatch.setattr(socket, "create_connection", redirect)
    return asked


@each("host", ["192.168.1.5:8000", "0.0.0.0:8080", "ollama:11434", "::1:81"])
def test_private_address_needs_no_token(host: str, monkeypatch: Patch) -> None:
    with Server(ECHO) as server:
        asked = connect_to(server, monkeypatch)
        for api_key in (None, TOKEN):
            url = f"http://{host}/v1".replace("::1", "[fe80::1]")
            assert ask(Client(api_key, base_url=url, proxy=""), "mine") == "mine"
    assert asked == [host.replace("::1", "fe80::1")] * 2
    sent = [request.headers.get("authorization") for request in server.requests]
    assert sent == [None, f"Bearer {TOKEN}"]


def test_client_pickles_with_its_settings_but_not_its_connections(serve: Any) -> None:
    limits = {"timeout": 7, "connect_timeout": None, "deadline": float("inf")}
    headers = {"X-Team": "blue", "user-agent": "mine"}
    with serve(answer([]), headers=headers, **limits) as (server, client):
        client.request("GET", "/x")
        with pickle.loads(pickle.dumps(client)) as other:
            other.request("GET", "/x")
    first, second = server.requests
    assert (first[:4], server.used, other.timeout) == (second[:4], [0, 1], 7)
    assert {name: first.headers[name.lower()] for name in headers} == headers


def sent_by_chat(messages: Any, **params: Any) -> Any:
    """Return the JSON that chat() sends."""
    with served(WHOLE) as (server, client):
        client.chat(messages, **params)
    return server.requests[0].json


def test_messages_and_params_on_the_wire() -> None:
    plain = {"role": "user", "content": [{"type": "text", "text": "a"}], "b": [None, "\ud83d"]}
    messages = [types.MappingProxyType(plain), Message("x", ""), {"tool_calls": [CALL]}]
    expected = [plain, {"role": "x", "content": ""}, {"tool_calls": [CALL.to_dict()]}]
    assert sent_by_chat(iter(messages))["messages"] == expected
    assert len(sent_by_chat("x" * 1_000_000)["messages"][0]["content"]) == 1_000_000
    assert sent_by_chat("Hello!") == {"model": MODELS[0], "messages": HELLO}
    params = {"temperature": 99, "seed": 0, "n": False, "nonsense": {"a": [None]}, "user": ""}
    sent = sent_by_chat("Hello!", model="m", stop=None, stream=None, **params)
    assert sent == {"model": "m", "messages": HELLO, **params}


def test_call_that_can_not_be_sent_is_a_type_error() -> None:
    client = Client("", base_url="http://127.0.0.1:1")
    rows: Any = [(HELLO[0], None), (Message("user"), None), ([{"content": object()}], None)]
    for messages, stream in [*rows, ("Hi", False)]:
        for call in (client.chat, client.stream):
            with pytest.raises(TypeError):
                call(messages, stream=stream)


def test_request_of_any_endpoint() -> None:
    with served(answer([1, None]), answer(b"")) as (server, client):
        payload = {"input": "a", "x": None}
        assert client.request("POST", "/embeddings", payload) == [1, None]
        assert client.request("DELETE", "files/a?b=c&d=%20") is None
    post, delete = server.requests
    assert (*post[:2], post.json) == ("POST", "/v1/openai/embeddings", payload)
    assert (*delete[:2], delete.body) == ("DELETE", "/v1/openai/files/a?b=c&d=%20", b"")


@each("""body, ids
    [{"data": [{"id": "a/b"}]}, "a/b"], [[{"id": "a/b"}], "a/b"],
    [[{"id": "a/b"}, {"id": 7}, null, "c"], "a/b "], [{"data": null}, ""], [{}, ""], [[], ""]""")
def test_models(body: Any, ids: str) -> None:
    with served(answer(body)) as (server, client):
        assert " ".join(model.id for model in client.models()) == ids
    assert server.requests[0][:2] == ("GET", "/v1/openai/models")


# ---- Connections ---------------------------------------------------------------------------------

# What the server does, the outcome, the number of requests, whether the next call uses the same
# connection.
GZIPPED = gzip.compress(b'{"error": "no"}')
EXCHANGES: Any = [
    ("length", WHOLE, "Hi", 1, True),
    ("chunks", answer(completion(), size=7), "Hi", 1, True),
    ("100 Continue", b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, "Hi", 1, True),
    ("close", hang(OK + b"Connection: close\r\n" + WHOLE[23:]), "Hi", 1, False),
    ("stream", HI, "Hi", 1, True),
    ("stream, its end comes later", steps(OPEN, 0.1, LAST), "Hi", 1, True),
    ("stream without its end", hang(OPEN), "Hi", 1, False),
    ("stream that goes on", drip(OPEN, chunk(b": ping\n\n")), "Hi", 1, False),
    ("stream, cut", cut(OPEN[:-20]), "StreamInterruptedError", 1, False),
    ("stream, whole", WHOLE, "APIResponseError", 1, True),
    ("204", hang(b"HTTP/1.1 204 No\r\n\r\n" + WHOLE), "APIResponseError", 1, False),
    ("103", hang(b"HTTP/1.1 103 Hi\r\n\r\n" + WHOLE), "APIError 103", 1, False),
    ("307", answer(b"x", 307, "Location: http://127.0.0.1:1/"), "APIError 307", 1, True),
    ("400, gzip", answer(GZIPPED, 400, "Content-Encoding: gzip"), "APIError 400 no", 1, True),
    ("429", answer({"error": "no"}, 429), "RateLimitError 429 no", 3, True),
    ("503, cut", cut(BUSY[:-1]), 'ServerError 503 {"error": "no"', 3, False),
    ("503, br", answer(b"x", 503, "Content-Encoding: br"), "ServerError 503", 3, False),
    ("no answer", answer({"a": 1}), "APIResponseError", 1, False),
    ("closed", cut(b""), "APIConnectionError", 3, False),
    ("cut in the body", cut(WHOLE[:-5]), "APIConnectionError", 1, False),
]


def test_exchanges(serve: Any, waits: Any) -> None:
    def check(name: str, wire: Any, outcome: str, requests: int, is_kept: bool) -> None:
        with serve(*[wire] * requests, ECHO, max_retries=2) as (server, client):
            error = ask(client, way=name)
            assert (name, describe(error)[: len(outcome)]) == (name, outcome)
            assert name != "307" or "127.0.0.1:1/" in str(error)
            assert isinstance(error, str) or error.is_retryable == (requests > 1)
            assert len({request.body for request in server.requests}) == 1
            assert ask(client, "2") == "2"
            assert len(server.requests) == requests + 1
            assert (name, server.used[-1] == server.used[-2]) == (name, is_kept)
            assert is_kept or server.wait_closed()

    together(check, EXCHANGES)
    assert len(waits) == sum(row[3] - 1 for row in EXCHANGES)


ARRIVED = threading.Event()


def reset(sock: socket.socket, request: Request) -> None:
    sock.sendall(WHOLE)
    pause(0.02)  # for the client to read it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
    sock.close()


@each("first", [cut(WHOLE), reset, steps(WHOLE, 0.02, WHOLE, ARRIVED.set)])
def test_idle_connection_is_closed_once_anything_arrives(first: Any, serve: Any) -> None:
    ARRIVED.clear()
    with serve(first, ECHO) as (server, client):
        assert ask(client) == "Hi"
        assert wait_until(lambda: server.closed or ARRIVED.is_set())
        assert (ask(client, "2"), server.used) == ("2", [0, 1])
        assert server.wait_closed()


def test_connection_that_was_idle_for_a_minute_is_closed(serve: Any, monkeypatch: Patch) -> None:
    clock, passed = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(passed))
    with serve(ECHO) as (server, client):
        for seconds in (0, 50, 50, 61, 900):
            passed.append(seconds)
            assert ask(client) == "Hi"
        assert server.used == [0, 0, 0, 1, 2]
        assert server.wait_closed(2)


def test_threads_share_a_client_that_keeps_32_connections() -> None:
    meet = steps(threading.Barrier(40).wait, "{0}")
    names = [str(number) for number in range(40)]
    with served(*[meet] * 40, ECHO) as (server, client):
        with ThreadPoolExecutor(40) as pool:
            for texts in (names, names * 5):
                calls = [pool.submit(ask, client, text) for text in texts]
                assert [call.result() for call in calls] == texts
                assert server.wait_closed(8)


def test_connection_that_was_idle_for_longest_is_taken_first() -> None:
    with served(HI, ECHO) as (server, client):
        stream = client.stream("Hi")
        ask(client)
        collect(stream)  # is idle after the other one
        assert [ask(client, text) for text in "12"] == ["1", "2"]
    assert server.used == [0, 1, 1, 0]


def test_call_that_ends_after_close_closes_its_connection() -> None:
    begun, closed = threading.Event(), threading.Event()
    with served(steps(begun.set, closed.wait, "{0}"), ECHO) as (server, client):
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(ask, client, "1")
            assert begun.wait(PATIENCE)
            client.close()
            closed.set()
            assert call.result() == "1"
            assert server.wait_closed()
            assert [ask(client, text) for text in "23"] == ["2", "3"]
            assert server.used == [0, 1, 1]


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
    client.close()
    sys.exit()
assert os.waitpid(pid, 0) == (pid, 0)
print(client.chat("parent").text, first.text + collect(stream).text)
"""


@posix
def test_child_of_a_fork_uses_no_socket_of_its_parent(serve: Any) -> None:
    came, text = threading.Event(), "{0} on {1}"
    begin, rest = chunk(sse(delta("so"), done=False)), chunk(sse(delta(" far", "stop"))) + LAST
    stream = steps(START, begin, came.wait, rest)
    with serve(stream, steps(text), steps(text, came.set)) as (server, _):
        with started(server, sys.executable, "-W", "error", "-c", FORK, server.url) as process:
            out, err = process.communicate(b"", PATIENCE)
    assert out == b"parent on 1\nchild on 2 child on 2\nparent on 1 so far\n"
    assert err == b""


def test_request_that_is_too_large_gets_its_answer(serve: Any) -> None:
    with serve(cut(answer({"error": "no"}, 413))) as (_, client):
        with pytest.raises(dim.APIError) as caught:
            client.request("POST", "/early", "x" * 20_000_000)
    assert describe(caught.value) == "APIError 413 no"


BODY = json.dumps(completion()).encode()


@each(
    "encoding, body, outcome",
    [
        ("gzip", gzip.compress(BODY), "Hi"),
        (" GZIP", gzip.compress(BODY), "Hi"),
        ("deflate", zlib.compress(BODY), "Hi"),
        ("gzip", gzip.compress(BODY)[:60], "APIResponseError"),
        ("gzip", BODY, "APIConnectionError"),
        ("br", BODY, "APIResponseError"),
    ],
)
def test_compression_that_nobody_asked_for(encoding: str, body: bytes, outcome: str) -> None:
    for size in (7, 0):
        found = result(answer(body, 200, f"Content-Encoding: {encoding}", size=size))
        assert describe(found) == outcome
        assert encoding in str(found) or "br" not in encoding
    wire = gzip.compress(sse(delta("a"), delta("b", "stop")))
    assert result(answer(wire, 200, "Content-Encoding: gzip", size=7), "stream") == "ab"


@each("line", ["X-Gr\xf6\xdfe: 1", "X Y: 1", "no colon", " folded: 1", "\xa0: 1", ": 1"])
def test_header_that_can_not_be_read_costs_no_wait(line: str, serve: Any) -> None:
    for wire in (WHOLE, answer(completion(), size=7)):
        odd = wire.replace(b"\r\n", b"\r\n" + line.encode("latin-1") + b"\r\n", 1)
        with serve(hang(odd)) as (_, client):
            assert describe(ask(client)) in ("Hi", "APIConnectionError")


# ---- Connections: limits and retries -------------------------------------------------------------

HEL = chunk(sse(delta("Hel"), done=False))
SIZED = OK + b"Content-Length: 999999\r\n\r\n"
LIMITS: Any = [  # which limit ends an answer, how it begins, what it goes on with
    ("timeout", b"", b""),  # silence
    ("timeout", SIZED + b"{", b""),  # silence in the body
    ("timeout", START + HEL, b""),  # silence in a stream
    ("deadline", SIZED, b" "),  # body
    ("deadline", START, HEL),  # events of a stream
]


def check_timeout(client: Client, option: str, text: str = "Hi", way: str = "chat") -> None:
    """Fail unless a call ends in time with an error that names the limit."""
    started = time.monotonic()
    error = ask(client, text, way)
    took, seconds = time.monotonic() - started, getattr(client, option)
    assert type(error) is dim.APITimeoutError
    assert re.findall("connect_timeout|timeout|deadline", str(error)) == [option]
    assert str(seconds) in str(error)
    assert "127.0.0.1" in str(error)
    assert option == "deadline" or error.is_retryable == (option == "connect_timeout")
    assert seconds - 0.02 <= took < seconds + 2


def check_limit(option: str, wire: bytes, again: bytes) -> None:
    endless = drip(wire, again) if again else hang(wire)
    limits = {"timeout": 5, "deadline": 6, option: 0.3, "max_retries": 2}
    with served(ECHO, endless, **limits) as (server, client):
        ask(client)
        check_timeout(client, option, way="stream" if HEL in wire + again else "chat")
        assert server.used == [0, 0]
        assert server.wait_closed()


def check_connecting() -> None:
    def check(option: str, base_url: str, proxy: str) -> None:
        limits: Any = {"timeout": 5, "connect_timeout": 0.3, option: 0.2}
        client = Client("", base_url=base_url, proxy=proxy, max_retries=0, **limits)
        check_timeout(client, "deadline" if option == "deadline" else "connect_timeout")

    with deaf_port() as deaf, deaf_port(is_full=True) as full:
        hops = [(f"http://127.0.0.1:{full}", ""), (f"https://127.0.0.1:{deaf}", "")]
        hops += [(EXAMPLE, f"me:hunter2@127.0.0.1:{port}") for port in (full, deaf)]
        options = ("timeout", "connect_timeout", "deadline")
        together(check, [(option, *hop) for option in options for hop in hops])


def check_silence_and_retries() -> None:
    with served(drip(START, HEL), timeout=0.2) as (_, client):
        with contextlib.closing(client.stream("Hi")) as stream:
            assert [next(stream).text for _ in range(12)] == ["Hel"] * 12
    assert describe(result(WHOLE, deadline=1e-9)) == "APITimeoutError"
    with served(ANEW, hang(), deadline=0.3, max_retries=9) as (server, client):
        check_timeout(client, "deadline")
        assert len(server.requests) == 2


def check_grace(after: bytes, again: bytes) -> None:
    """Fail unless a complete stream that does not end is waited for 2 seconds."""
    wire = START + HEL + chunk(sse(delta(None, "stop"), done=False)) + after
    with served(drip(wire, again) if again else hang(wire), ECHO) as (server, client):
        started = time.monotonic()
        whole = collect(client.stream("Hi"))
        assert 1.9 < time.monotonic() - started < 4
        assert (whole.text, whole.usage is not None) == ("Hel", after != b"")
        assert (ask(client, "2"), server.used) == ("2", [0, 1])
        assert server.wait_closed()


def check_flow() -> None:
    part = chunk(sse(delta("a", "stop"), done=False))
    with served(steps(START, *[part, 0.5] * 6, LAST)) as (_, client):
        assert ask(client, way="stream") == "aaaaaa"  # though the finish reason came long before


def test_calls_end_in_time() -> None:
    usage = chunk(sse({"choices": [], "usage": {}}, done=False))
    rows = [(check_limit, *row) for row in LIMITS]
    rows += [(check_grace, b"", b""), (check_grace, usage, chunk(b"data: null\n\n"))]
    rows += [(check_silence_and_retries,), (check_connecting,), (check_flow,)]
    together(lambda check, *row: check(*row), rows)


def test_connection_that_is_refused_is_tried_again(waits: Any) -> None:
    with deaf_port() as port:
        pass
    error = ask(Client("", base_url=f"http://127.0.0.1:{port}", max_retries=1100))
    assert (describe(error), f"127.0.0.1:{port}" in str(error)) == ("APIConnectionError", True)
    assert isinstance(error.__cause__, ConnectionRefusedError)
    parts = [wait / full for wait, full in zip(waits, [0.5, 1, 2, 4] + [8] * 1096)]
    assert len(waits) == 1100
    assert 0.75 <= min(parts) < 0.8 < 0.95 < max(parts) <= 1


# Retry-After, the deadline, `retry_after`, and the waits.
@each("""value, deadline, seconds, expected
    ["7", null, 7, [7]], [" 15 ", null, 15, [15]], ["0", null, 0, [0]], ["60", null, 60, [60]],
    ["61", null, 61, []], ["10", 0.3, 10, []], ["soon", 0.3, null, []], ["-5", 0.3, null, []]""")
def test_retry_after(value: str, deadline: Any, seconds: Any, expected: Any, waits: Any) -> None:
    wire = answer({}, 429, f"Retry-After: {value}")
    with served(wire, max_retries=1, deadline=deadline) as (server, client):
        assert ask(client).retry_after == seconds
    assert (waits, len(server.requests)) == (expected, 1 + len(waits))


# ---- Connections: safety, proxies, certificates --------------------------------------------------


# What follows "HTTP/1.1 "; RAW is the token.
@each(r"""text
    "401 No\r\n\r\n{\"error\": {\"message\": \"RAW\", \"code\": \"RAW\", \"type\": [\"RAW\"]}}",
    "400 No\r\n\r\n{\"key\": {\"RAW\": [\"RAW\"]}}", "502 No\r\n\r\n<html>Bearer RAW",
    "302 No\r\nX-Request-Id: RAW\r\nLocation: https://a.test/?key=RAW\r\n\r\n",
    "RAW OK\r\n\r\n", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\nRAW\r\n",
    "200 OK\r\nContent-Encoding: RAW\r\n\r\nx", "200 OK\r\n\r\n{\"id\": \"RAW\"",
    "200 OK\r\n\r\nevent: error\ndata: RAW\n\n", "200 OK\r\n\r\ndata: {\"id\": \"RAW\n\n"
""")
def test_token_that_the_server_echoes_is_masked(text: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    wire = "HTTP/1.1 " + text.replace("RAW", TOKEN)
    with served(cut(wire.encode())) as (_, client):
        for error in (ask(client), ask(client, way="stream")):
            assert isinstance(error, dim.DeepInfraError)
            shown = f"{error!r} {vars(error)} {error.__cause__!r} {caplog.text}"
            assert TOKEN not in shown + pickle.dumps(error, 0).decode("latin-1")
    assert result(answer({"error": "ollama pull"}, 400), api_key="ollama").message == "ollama pull"


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for block in iter(functools.partial(source.recv, 65536), b""):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def tunnel(target: Server, login: Any) -> Any:
    """Return the answer of a CONNECT proxy that takes clients to the target, whatever they ask."""

    def connect(sock: socket.socket, request: Request) -> None:
        assert request.headers.get("proxy-authorization") == login
        with socket.create_connection(("127.0.0.1", target.port)) as inner:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=pump, args=(inner, sock), daemon=True).start()
            pump(sock, inner)

    return connect


@each("written, login", [("", None), ("me:p%40ss%3Aw%25rd@", "Basic bWU6cEBzczp3JXJk")])
def test_connect_proxy_is_used(written: str, login: Any, tls: Any, monkeypatch: Patch) -> None:
    with Server(ECHO, context=tls) as server, Server(tunnel(server, login)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{written}{proxy.address}")
        with Client(TOKEN, base_url=EXAMPLE) as client:
            assert [ask(client, text) for text in "12"] == ["1", "2"]
            assert (proxy.connections, server.used) == (1, [0, 0])
    (connect,) = proxy.requests
    assert connect[:2] == ("CONNECT", "api.example.test:443")
    assert (connect.headers["host"], TOKEN in repr(connect)) == ("api.example.test:443", False)
    headers = server.requests[0].headers
    assert headers["host"] == "api.example.test"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert "proxy-authorization" not in headers


@each("name, wire, requests", [("407", answer(b"", 407), 1), ("closed", cut(b""), 3)])
def test_failure_of_a_proxy_is_named(name: str, wire: Any, requests: int, waits: Any) -> None:
    with Server(wire) as proxy:
        base_url, setting = "https://[::1]/v1", f"http://me:hunter2@{proxy.address}/"
        error = ask(Client("", base_url=base_url, proxy=setting))
        assert (type(error), len(proxy.requests)) == (dim.APIConnectionError, requests)
        assert proxy.requests[0].path == proxy.requests[0].headers["host"] == "[::1]:443"
        assert proxy.address in str(error)
        assert "hunter2" not in str(error)
        assert name in str(error) or not name.isdigit()


def test_plain_http_goes_through_a_proxy(monkeypatch: Patch) -> None:
    monkeypatch.setenv("no_proxy", "127.2")
    with Server(ECHO) as proxy:
        connect_to(proxy, monkeypatch)
        monkeypatch.setenv("http_proxy", "me:hunter2@[::1]")  # the scheme may be missing
        for host in ("127.1", "127.2", "127.0.0.1"):
            ask(Client("", base_url=f"http://{host}:9/v1"))
    paths = [request.path for request in proxy.requests]
    assert paths == ["http://127.1:9/v1/chat/completions"] + ["/v1/chat/completions"] * 2
    logins = [request.headers.get("proxy-authorization") for request in proxy.requests]
    assert logins == ["Basic bWU6aHVudGVyMg==", None, None]


def test_certificate_that_is_not_trusted_is_named(tls: Any, waits: Any, monkeypatch: Patch) -> None:
    with Server(ECHO, context=tls) as server:
        name = {"base_url": server.url.replace("127.0.0.1", "127.1")}
        for options in (name, {"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}):
            error = ask(server.client(**options))
            assert (type(error), error.is_retryable) == (dim.APIConnectionError, False)
            assert str(server.port) in str(error)
            assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert (server.connections, waits) == (2, [])
    monkeypatch.setattr(
        ssl, "create_default_context", Mock(side_effect=ssl.SSLError("broken store"))
    )
    assert "broken store" in str(ask(Client(TOKEN, base_url=EXAMPLE, max_retries=0)))


# ---- Streams: server-sent events -----------------------------------------------------------------

BOM = b"\xef\xbb\xbf"
# https://html.spec.whatwg.org/multipage/server-sent-events.html
STANDARD: Any = json.loads(
    r"""{
    "messages": ["data: This is the first message.\n\ndata: This is the second message, it\ndata: \
has two lines.\n\ndata: This is the third message.\n\n", "This is the first message.|\
This is the second message, it\nhas two lines.|This is the third message.|"],
    "event types": ["event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\n\
data: 113411\n\n", "add=73857293|remove=2153|add=113411|"],
    "stocks": ["data: YHOO\ndata: +2\ndata: 10\n\n", "YHOO\n+2\n10|"],
    "four blocks": [": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n\
data:  third event", "first event|second event|"],
    "empty data": ["data\n\ndata\ndata\n\ndata:", "|\n|"],
    "one space": ["data:test\n\ndata: test\n\n", "test|test|"]
}""".replace("\\\n", "")
)
# Events are written as "data|", or as "name=data|" if they have a name.
SSE_CASES: Any = {
    b"data: a\r\ndata: b\r\n\r\n": "a\nb|",  # CRLF ends one line, not two
    BOM + b"data: a\n\n": "a|",
    BOM + BOM + b"data: a\n\ndata: b\n\n": "b|",  # a second one is a part of the name
    b"data: " + BOM + b"a\n\n" + BOM + b"data: b\n\n": "\ufeffa|",
    b"\xef\xbbdata: a\n\ndata: b\n\n": "b|",
    b": ping\n\n:\n\n:\ndata: a\n: ping\ndata: b\n\n:data: c\n\n": "a\nb|",
    b"data: a\ndata:\ndata: b\n\ndata:\ndata:\n\n": "a\n\nb|\n|",
    b'error: {"a": 1}\n\nevent: x\nerror: m\n\ndata: a\n\n': 'error={"a": 1}|error=m|a|',
    b"data: a\n\ndata: b\n": "a|",  # an unfinished event is dropped
    b"data: a\xffb\n\n": "a\ufffdb|",
    "data: \u2028\u2029\x85\n\n".encode(): "\u2028\u2029\x85|",  # these end no line
}


def events_of(blocks: list[bytes]) -> str:
    texts = [f"{event.event}={event.data}|" for event in iter_sse(blocks)]
    return "".join(texts).replace("message=", "")


@each("text, events", STANDARD)
def test_sse_examples_of_the_standard(text: str, events: str) -> None:
    for end in ("\n", "\r", "\r\n"):
        data = text.replace("\n", end).encode()
        assert events_of([data]) == events_of(blocks_of(data, 1)) == events


@each("data, events", SSE_CASES.items())
def test_sse(data: bytes, events: str) -> None:
    for size in (1, 2, 3, 7, 65536):
        blocks = [piece for block in blocks_of(data, size) for piece in (block, b"")]
        assert events_of(blocks) == events


# ---- Streams: chunks -----------------------------------------------------------------------------


# What comes between an event that carries "Hel" and one that carries "lo", the data of an event or
# other text; the outcome.
@each(r"""between, expected
    ["", "Hello"], [": ping - 2024-01-01 00:00:00", "Hello"], ["data:\n\ndata\n\ndata:  ", "Hello"],
    [null, "Hello"], ["event: ping\ndata: 12:00", "Hello"],
    ["event: completion\ndata: {\"choices\": [{\"delta\": {\"content\": \"x\"}}]}", "Hello"],
    ["data: {\"choices\":\ndata: [{\"delta\": {\"content\": \"x\"}}]}", "Helxlo"],
    [{"id": "", "choices": null, "usage": null, "error": null}, "Hello"],
    [{"choices": []}, "Hello"], [{}, "Hello"], [{"usage": []}, "Hello"],
    [{"usage": [], "choices": [{"delta": {"content": "x"}}]}, "Helxlo"],
    [{"choices": [{"delta": []}]}, "Hello"], [{"choices": [{"delta": null}, null]}, "Hello"],
    [{"choices": {}, "usage": {"prompt_tokens_details": []}}, "Hello"],
    [{"choices": [{"delta": {"content": "x"}, "logprobs": []}], "id": 7}, "Helxlo"],
    [{"choices": [{"delta": {"content": [{"type": "text", "text": "x"}]}}]}, "Helxlo"],
    [{"choices": [{"delta": {"content": [{"type": "thinking", "thinking": "x"}]}}]}, "Hello"],
    [{"choices": [{"message": {"content": "x"}}]}, "Helxlo"],
    [{"choices": [{"delta": {"content": null, "refusal": "x"}}]}, "Helxlo"],
    [{"choices": [{"index": 1, "delta": {"content": "x"}}]}, "Helxlo"],
    [{"choices": [{"delta": {"content": "</s>[DONE]\u2028\u0085"}}]},
    "Hel</s>[DONE]\u2028\u0085lo"],
    [{"choices": [{"delta": {"content": "x"}, "error": null}], "error": {}}, "Helxlo"],
    [{"choices": [{"delta": {"content": "x", "message": "m"}}], "detail": "d"}, "Helxlo"],
    ["error: {\"code\": 500, \"message\": \"Context size has been exceeded.\"}\n\ndata: [DONE]",
    "ServerError 500 Context size has been exceeded."],
    ["error: out of memory", "APIError None out of memory"],
    [{"object": "error", "message": "KV cache full"}, "APIError None KV cache full"],
    [{"choices": [{"delta": {"content": ""}, "finish_reason": "error",
    "error": {"message": "upstream went away", "code": 502}}]},
    "ServerError 502 upstream went away"],
    [{"choices": [{"finish_reason": "error", "error": "gone"}]}, "APIError None gone"],
    [{"choices": [{"finish_reason": "error", "message": {"content": "gone"}}]}, "APIError None"],
    [{"choices": [{"delta": {"content": "b"}}], "error": "m"}, "APIError None m"],
    ["event: error\ndata: m\ndata: n", "APIError None m n"],
    ["event: error\ndata: {\"message\": \"m\", \"code\": 429}", "RateLimitError 429 m"],
    ["data: Hi", "APIResponseError"], ["data: {", "APIResponseError"],
    ["data: {\"a\": \"\u0000\"}", "APIResponseError"]""")
def test_stream_with_this_in_the_middle(between: Any, expected: str, command: Any) -> None:
    if not isinstance(between, str):
        between = f"data: {json.dumps(between, ensure_ascii=False)}"
    body = sse(delta("Hel"), done=False) + f"{between}\n\n".encode() + sse(delta("lo", "stop"))
    for size in (3, 65536):
        outcome = result(answer(body, size=size), "stream")
        assert describe(outcome).startswith(expected)
    code, out, err, _ = command("Hi", stream_of(body))
    if isinstance(outcome, str):
        assert (outcome, code, out, err) == (expected, 0, f"{outcome}\n", "")
    else:
        assert (code, out, err[:15]) == (3, "Hel\n", "deepinfra_min: ")
        assert (expected.partition("None ")[2] in err, outcome.partial.text) == (True, "Hel")


# The indexes of three chunks, a, b and c; `n`; the texts of the choices.
@each("""indexes, n, texts
    [[0, 1, 2], null, ["abc"]], [[1, 1, 1], null, ["abc"]], [[0, 1, 2], 1, ["abc"]],
    [[0, 1, 0], 2, ["ac", "b"]], [[1, 0, 1], 2, ["b", "ac"]]""")
def test_choices_of_a_stream(indexes: Any, n: Any, texts: Any) -> None:
    parts = [delta(text, None, index) for text, index in zip("abc", indexes)]
    parts += [delta(None, "stop", index) for index in range(len(texts))]
    with served(stream_of(*parts, done=False)) as (_, client):
        chunks = list(client.stream("Hi", n=n))
    assert "".join(item.text for item in chunks) == texts[0]
    assert [choice.message.content for choice in collect(chunks).choices] == texts


A, STOP, DONE = sse(delta("a"), done=False), sse(delta(None, "stop"), done=False), sse()
STOP_1 = sse(delta(None, "stop", 1), done=False)
USAGE = b'data: {"choices": [], "usage": {"total_tokens": 1}}\n\n'
EVENTS = dict(A=A, STOP=STOP, STOP_1=STOP_1, USAGE=USAGE, DONE=DONE, PING=b": ping\n\n")
EVENTS.update(EOS=STOP.replace(b"stop", b"eos"), EMPTY=STOP.replace(b"stop", b""))
EVENTS.update(OPEN=STOP[:-1], HALF=b": [DONE]\n\ndata: [DONE]\n")


# The parts of the body, how many choices were asked for, the outcome.
@each(r"""names, count, outcome
    ["A DONE", 1, "a"], ["A STOP", 1, "a"], ["A STOP USAGE", 1, "a"], ["A STOP A", 1, "aa"],
    ["A EOS", 1, "a"], ["A STOP HALF", 1, "a"], ["A STOP_1", 1, "a"], ["A STOP_1 STOP", 2, "a"],
    ["A DONE", 2, "a"], ["", 1, "StreamInterruptedError"], ["PING", 1, "StreamInterruptedError"],
    ["USAGE", 1, "StreamInterruptedError"], ["USAGE", 0, "StreamInterruptedError"],
    ["A EMPTY", 1, "StreamInterruptedError"], ["A OPEN", 1, "StreamInterruptedError"],
    ["A STOP", 2, "StreamInterruptedError"], ["A", 1, "StreamInterruptedError"],
    ["A STOP_1", 2, "StreamInterruptedError"], ["A HALF", 1, "StreamInterruptedError"]""")
@each_framing
def test_stream_is_complete_or_an_error(names: str, count: int, outcome: str, framing: str) -> None:
    body = b"".join(map(EVENTS.__getitem__, names.split()))
    with served(cut(framed(blocks_of(body, 99), framing))) as (_, client):
        found = ask(client, "Hi", "stream", n=count)
    assert describe(found) == outcome
    assert isinstance(found, str) or found.partial.text == "a" * names.count("A ") or names == "A"
    if "STOP" in names and framing != "none":  # a body that is cut is no complete one
        with served(cut(framed([body], framing)[:-6])) as (_, client):
            assert describe(ask(client, "Hi", "stream", n=count)) == "StreamInterruptedError"


def test_stream_left_early_closes_the_connection() -> None:
    with served(hang(START + HEL + HEL)) as (server, client):
        client.stream("Hi").close()
        chunks = client.stream("Hi")
        next(chunks)
        del chunks
        gc.collect()
        assert server.wait_closed(2)


# ---- Collect -------------------------------------------------------------------------------------


def collected(*payloads: Any) -> Any:
    """Return the collected answer, if chat() makes the same of its `raw`."""
    with served(stream_of(*payloads)) as (server, client):
        whole = collect(client.stream("Hi"))
        server.answers[0] = answer(whole.raw)
        assert client.chat("Hi") == whole
    return whole


# Pieces: index, id, name, arguments. Then the calls.
@each(r"""pieces, calls
    [[[0,"a","f",""], [1,"b","g",""], [0,null,null,"x"], [1,"",null,"y"], [0,null,null,"z"]],
    [["a","f","xz"], ["b","g","y"]]],
    [[[null,"a","f","x"], [null,"b","g","y"], [null,"a",null,"z"]],
    [["a","f","xz"], ["b","g","y"]]], [[[0,"a","f","x"], [null,null,null,"y"]], [["a","f","xy"]]],
    [[[0,"","f","{}"], [0,"","g","[]"]], [["","f","{}"], ["","g","[]"]]],
    [[[null,null,"f","x"], [null,null,null,"y"], [null,null,"g","z"]],
    [["","f","xy"], ["","g","z"]]],
    [[[0,"a","f","x"], [0,"b","g","y"], [0,null,null,"z"]], [["a","f","x"], ["b","g","yz"]]],
    [[[0,"a","f","x"], [0,"b","f","y"]], [["a","f","x"], ["b","f","y"]]],
    [[[0,"a","f","x"], [0,"b","g","y"], [0,"a","","z"]], [["a","f","xz"], ["b","g","y"]]],
    [[[0,"a","f","x"], [0,"a","f","y"]], [["a","f","xy"]]],
    [[[0,null,null,"x"], [0,"a","f","y"]], [["a","f","xy"]]],
    [[[0,"a",null,""], [0,null,"f",""], [0,null,null,"x"]], [["a","f","x"]]],
    [[[0,"1","f","x"], [1,"0","g","y"], [0,null,null,"z"]], [["1","f","xz"], ["0","g","y"]]],
    [[[0,"a","f",{"a":1}], [1,"b","g",null]], [["a","f","{\"a\": 1}"], ["b","g",""]]]""")
def test_collect_assembles_tool_calls(pieces: Any, calls: Any) -> None:
    parts = []
    for index, call_id, name, arguments in pieces:
        function = {"name": name, "arguments": arguments}
        part = {"index": index, "id": call_id, "type": None, "function": function}
        parts.append(delta(tool_calls=[part]))
    assert calls == [
        [call.id or "", call.function.name, call.function.arguments]
        for call in collected(*parts).message.tool_calls
        if call.type == "function"
    ]


# Deltas, and what the message has beside its role.
@each(r"""deltas, fields
    [[{}], {}], [[{"content": ""}], {"content": ""}],
    [[{"content": " a\n"}, {"content": null}, {}, {"content": "\n b"}], {"content": " a\n\n b"}],
    [[{"content": "\ud83d"}, {"content": "\ude00"}], {"content": "\ud83d\ude00"}],
    [[{"reasoning": "a"}, {"reasoning": "b", "content": "c"}], {"reasoning": "ab", "content": "c"}],
    [[{"name": "n"}, {"name": "n"}, {"name": null}], {"name": "n"}],
    [[{"role": "tool"}, {"role": null}, {"role": ""}, {"role": "tool"}], {"role": "tool"}],
    [[{"refusal": "I "}, {"refusal": "can't."}], {"content": "I can't."}],
    [[{"content": [{"text": "a"}]}, {"content": [{"text": "b"}]}], {"content": "ab"}]""")
def test_collect_joins_a_message(deltas: Any, fields: Any) -> None:
    whole = collected(*[delta(**fields) for fields in deltas])
    with served(answer({"choices": [{"message": fields}]})) as (_, client):
        assert whole.message == client.chat("Hi").message


RICH_STREAM = """\
{"id": "x", "created": 7, "model": "m", "service_tier": "flex", "choices": [], "system": "s"}
{"choices": [{"index": 1, "delta": {"role": "assistant", "content": "b"}}], "system": "s"}
{"choices": [{"index": 0, "delta": {"role": "assistant", "name": "n", "content": ""}}]}
{"choices": [{"index": 0, "delta": {"reasoning_content": "h"}}]}
{"choices": [{"delta": {"reasoning_content": "m"}}]}
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
        "details": [{"a": 1}, {"b": 2}], "annotations": {"n": 2},
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"signed": 1}}]},
     "logprobs": {"content": [1, 2, 3], "refusal": [7]}, "matched": 3, "finish_reason": "stop"},
    {"index": 1, "message": {"role": "assistant", "content": "bB"}, "finish_reason": "stop"}],
"usage": {"total_tokens": 3}, "system": "s", "cached": false, "seed": 0}"""


def test_collect_gives_what_chat_gives_and_its_message_goes_back_as_it_is() -> None:
    whole = json.loads(RICH_ANSWER)
    with served(stream_of(*RICH_STREAM.split("\n")), answer(whole), WHOLE) as (server, client):
        chunks = list(client.stream("Hi", n=2))
        streamed = collect(iter(chunks))
        assert streamed == collect(chunks) == client.chat("Hi")
        client.chat([streamed.message])
    assert streamed.to_dict() == whole
    assert server.requests[2].json["messages"] == [whole["choices"][0]["message"]]


def assert_linear(work: Callable[[int], Any]) -> None:
    """Fail if ten times the work takes more than 20 times the time."""
    seconds: dict[int, float] = {}
    for count in (2000, 20_000) * 3:
        started = time.process_time()
        work(count)
        seconds[count] = min(time.process_time() - started, seconds.get(count, 99))
    assert seconds[20_000] < 0.02 + 20 * seconds[2000]


@pytest.mark.skipif("PyPy" in sys.version or sys.gettrace() is not None, reason="+= copies")
def test_collecting_and_parsing_take_linear_time() -> None:
    part = delta("a", tool_calls=[{"id": "c", "function": {"arguments": "d"}}])
    with served(stream_of(part)) as (_, client):
        chunks = list(client.stream("Hi"))
    assert_linear(lambda count: collect(chunks * (count // 5)))
    assert_linear(lambda count: list(iter_sse([b"data: ", *[b"x" * 50] * count, b"\n\n"])))
    assert_linear(lambda count: list(iter_sse([b"data: a\n" * count])))


# ---- Any bytes -----------------------------------------------------------------------------------

ANY_BYTES = [
    b"HTTP/1.1 200 " + b"x" * 99999,
    OK + b"Content-Type: multipart/x; boundary*=x\0y'en'z\r\n\r\n",
    OK + b"Content-Type: multipart/x; boundary*=a; boundary*0=b\r\n\r\n",
    OK + b'\r\n{"created": [' + b"9" * 9999 + b"]}x",
    b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\nzz",
]


def test_any_bytes_give_a_result_or_one_of_our_errors() -> None:
    chance = random.Random(1)
    wires = [WHOLE, answer(json.loads(RICH_ANSWER)), stream_of(*RICH_STREAM.split("\n")), BUSY]
    wires.append(answer(gzip.compress(BODY), 400, "Content-Encoding: gzip"))
    with served(b"") as (server, client):
        for number, wire in enumerate(ANY_BYTES + wires * 50):
            for _ in range(chance.choice([1, 1, 2, 5, 20]) * (number >= len(ANY_BYTES))):
                at = chance.randrange(len(wire))
                other = bytes(chance.choices(b'\r\n:"[]{},0-9\xff\x00 nu', k=chance.randrange(4)))
                wire = wire[:at] + other + wire[at + chance.randrange(4) :]
            server.answers[0] = cut(wire)
            for way in ("chat", "stream"):
                assert len(str(ask(client, way=way))) < 3000


# ---- Command line, in this process ---------------------------------------------------------------

STREAMS = ("stdin", "stdout", "stderr")


@pytest.fixture()
def command(monkeypatch: Patch) -> Any:
    """Return a function that runs a command line; what it gives back are the exit code, stdout,
    stderr and the requests that the server saw."""
    monkeypatch.setenv("DEEPINFRA_TOKEN", TOKEN)

    def run(line: str, *answers: Any, piped: bytes = b"", **streams: Any) -> Any:
        buffers = [io.BytesIO(piped), io.BytesIO(), io.BytesIO()]
        files = dict(zip(STREAMS, [io.TextIOWrapper(buffer, "ascii") for buffer in buffers]))
        for name, file in {**files, **streams}.items():
            monkeypatch.setattr(sys, name, file)
        with Server(*(answers or [HI])) as server:
            monkeypatch.setenv("DEEPINFRA_BASE_URL", server.url)
            code: Any
            try:
                code = dim.main(shlex.split(line))
            except SystemExit as error:
                code = error.code
        for file in files.values():
            file.flush()
        out, err = (buffer.getvalue().decode().replace(os.linesep, "\n") for buffer in buffers[1:])
        return code, out, err, server.requests

    return run


# The line, stdin in Latin-1, what the request has beside the model and `stream`.
@each(r"""line, stdin, text, params
    ["Hello!", "", "Hello!", {}], ["", "Hello!", "Hello!", {}],
    ["Review:", "+new\n", "Review:\n\n+new\n", {}], ["Hello!", " \n", "Hello!", {}],
    ["", "\u00ef\u00bb\u00bf\u00e2\u009c\u0093", "\u2713", {}],
    ["", "Gr\u00fc\u00dfe", "Gr\ufffd\ufffde", {}], ["", "\u00ff\u00fe\u00fc\u0000", "\u00fc", {}],
    ["Hi", "\u00fe\u00ff\u0000a\u00d8\u003d\u00de\u0000", "Hi\n\na\ud83d\ude00", {}],
    ["", "\u00ff\u00fea\u0000b", "a\ufffd", {}], ["-n Hello!", "not this", "Hello!", {}],
    ["-i", "Hello!", "Hello!", {}], ["-i Hello!", "", "Hello!", {}],
    ["-m a/b Hello!", "", "Hello!", {"model": "a/b"}],
    ["-u Hello!", "", "Hello!", {"stream_options": {"include_usage": true}}],
    ["Hello! -o temperature=0.5 -o 'stop=[\"a\"]' -o user=x=y -o seed=null -o a= -o b=01", "",
    "Hello!", {"temperature": 0.5, "stop": ["a"], "user": "x=y", "a": "", "b": "01"}]""")
def test_command_sends(line: str, stdin: str, text: str, params: Any, command: Any) -> None:
    *ran, (request,) = command(line, piped=stdin.encode("latin-1"))
    assert ran == [0, "Hi\n", ""]
    messages = [{"role": "user", "content": text}]
    assert request.json == {"model": MODELS[0], "messages": messages, "stream": True, **params}


THOUGHT = stream_of(
    delta(reasoning_content="Let me"), delta(reasoning="\tthink"), delta("H"), delta("i", "stop")
)
CALLED = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
USED = {**delta("Hi", "stop"), "usage": completion()["usage"]}
USED_LINE = r"1 \+ 2 = 3 tokens, \$0.5000000, \d\.\d s\n"


# The line, the deltas of a stream (or another answer), the exit code, stdout, and stderr has what.
@each(r"""line, wire, code, out, err
    ["Hi", [["Hi\n"], [null, "stop"]], 0, "Hi\n", ""],
    ["Hi", [["\u00fc\u2713 \ud83d\u001b", "stop"]], 0, "\u00fc\u2713 ?\u001b\n", ""],
    ["-u Hi", [["Hi", "stop"]], 0, "Hi\n", ""], ["Hi", [["Hel", "length"]], 3, "Hel\n", "length"],
    ["Hi", [["Hel", "model_length"]], 3, "Hel\n", "model_length"],
    ["Hi", [["Hel", "max_tokens"]], 3, "Hel\n", "max_tokens"],
    ["Hi", [["Hel", "content_filter"]], 3, "Hel\n", "content_filter"],
    ["Hi", [["Hello", "eos"]], 0, "Hello\n", ""], ["Hi", [["Hello", "end_turn"]], 0, "Hello\n", ""],
    ["Hi", [["Hello", ""]], 0, "Hello\n", ""], ["Hi", [[null, "length"]], 1, "", "length"],
    ["Hi", {"object": "error", "message": "full"}, 1, "", "full"],
    ["Hi", {}, 1, "", "deepinfra_min: "],
    ["--json Hi", {"choices": [{"message": {"content": "\u00e9"}}]},
    0, "{\"choices\": [{\"message\": {\"content\": \"\u00e9\"}}]}\n", ""],
    ["--json Hi", {"choices": [{"finish_reason": "length", "message": {"content": "a"}}]},
    3, "{\"choices\": [{\"finish_reason\": \"length\", \"message\": {\"content\": \"a\"}}]}\n",
        "length"],
    ["--json Hi", {"choices": [{}]}, 1, "{\"choices\": [{}]}\n", "deepinfra_min: "],
    ["--json Hi", {"error": "no"}, 1, "", "no"],
    ["--models", {"data": [{"id": "a/b"}, {"id": "c"}]}, 0, "a/b\nc\n", ""],
    ["--models", {"error": "no"}, 1, "", "no"], ["' '", {}, 2, "", "deepinfra_min: "],
    ["-o =1 Hi", {}, 2, "", "-o =1"], ["-o temperature Hi", {}, 2, "", "-o temperature"],
    ["-o stream=false Hi", {}, 2, "", "-o stream"], ["-o messages=[] Hi", {}, 2, "", "-o messages"],
    ["-o self=1 Hi", {}, 2, "", "-o self"], ["--timeout 0 Hi", {}, 2, "", "deepinfra_min: "],
    ["--base-url ftp://x Hi", {}, 2, "", "deepinfra_min: "],
    ["--nonsense Hi", {}, 2, "", "nonsense"]""")
def test_command_prints(line: str, wire: Any, code: int, out: str, err: str, command: Any) -> None:
    is_stream = isinstance(wire, list)
    wire = stream_of(*[delta(*row) for row in wire]) if is_stream else answer(wire)
    *ran, shown, requests = command(line, wire)
    assert ran == [code, out]
    assert (err in shown, err == "") == (True, shown == "")
    assert len(requests) == (code != 2)


def test_command_prints_more(command: Any, monkeypatch: Patch, waits: Any) -> None:
    assert command("-r Hi", THOUGHT)[:3] == (0, "Hi\n", "Let me\tthink\n")
    assert command("Hi", THOUGHT)[:3] == (0, "Hi\n", "")
    assert re.fullmatch(USED_LINE, command("-u Hi", stream_of(USED))[2])
    assert "tokens, " in command("-u Hi", stream_of({**USED, "usage": {}}))[2]
    code, out, _, _ = command("Hi", stream_of(delta("One"), delta(tool_calls=CALLED)))
    assert (code, out[:4], json.loads(out[4:])["id"]) == (0, "One\n", "c")
    code, out, err, _ = command("--timeout 0.2 Hi", hang(START + chunk(A)))
    assert (code, out, "0.2" in err) == (3, "a\n", True)
    assert command("-V")[:2] == (0, f"deepinfra_min {dim.__version__}\n")
    assert [len(command(line, BUSY)[3]) for line in ("Hi", "--retries 4 Hi")] == [3, 5]
    monkeypatch.setenv("DEEPINFRA_MODEL", "a/b")
    assert command("Hi")[3][0].json["model"] == "a/b"
    monkeypatch.delenv("DEEPINFRA_TOKEN")
    assert command(f"--base-url {dim.DEFAULT_BASE_URL} Hi")[0] == 2


def test_conversation_through_pipes(command: Any) -> None:
    bad = answer({"error": "no"}, 400)
    called = stream_of(delta(None, "stop", tool_calls=CALLED))
    replies = [HI, stream_of(A), bad, called, HI]
    ran = command("-i -s Be", *replies, piped="1\n\n2\nno\n☎\n3".encode())
    assert (ran[0], ran[2].count("deepinfra_min: ")) == (0, 2)
    assert re.sub(r"\{.*\}", "CALL", ran[1]) == "Hi\na\nCALL\nHi\n"
    messages = ran[3][-1].json["messages"]
    texts = [message["role"][0] + str(message["content"]) for message in messages]
    assert texts == ["sBe", "u1", "aHi", "u2", "aa", "u☎", "aNone", "u3"]
    assert messages[6]["tool_calls"][0]["id"] == "c"
    assert command("-i", bad, piped=b"1\n")[0] == 1


def test_command_works_in_notebooks(command: Any) -> None:
    for line in ("", "--json", "--models", "--help"):
        files = [io.StringIO("Hello!"), io.StringIO(), io.StringIO()]
        wire = WHOLE if line else stream_of(delta("✓", "stop"))
        code, *_, requests = command(line, wire, **dict(zip(STREAMS, files)))
        assert code == 0
        assert line or (files[1].getvalue(), requests[0].text) == ("✓\n", "Hello!")


# The line, the deltas of a stream (or another answer), what a terminal is sent; "@" wipes a line.
@posix
@each(r"""line, wire, shown
    ["Hi", [{"reasoning": "Hm"}, {"content": "H"}, {"content": "i"}],
    "\rwaiting \r\rthinking\r@Hi\r\n"],
    ["-r Hi", [{"reasoning": "\u001b"}, {"content": "\u00fc\t\u001b[1m\u009b\r\n\u007f"}],
    "\rwaiting \r?\r\n@\u00fc\t?[1m?\r\n?\r\n"],
    ["--models", {"data": [{"id": "a\u001b"}]}, "a?\r\n"], ["", {}, "> \r\n"]""")
def test_terminal_is_sent(line: str, wire: Any, shown: str, command: Any) -> None:
    is_stream = isinstance(wire, list)
    wire = stream_of(*[delta(**fields) for fields in wire]) if is_stream else answer(wire)
    terminal, end = os.openpty()
    os.write(terminal, b"\x04")  # Ctrl-D
    with open(end, "w", encoding="ascii") as screen, open(os.dup(end)) as keys:
        command(line, wire, **dict(zip(STREAMS, (keys, screen, screen))))
    text = b""
    with contextlib.suppress(OSError):  # Linux's way to say that it is over
        for block in iter(functools.partial(os.read, terminal, 4096), b""):
            text += block
    os.close(terminal)
    assert text.decode().replace("^D\b\b", "") == shown.replace("@", "\r        \r")


# ---- Command line, in processes ------------------------------------------------------------------

PYTHON = sys.executable
CLI = (PYTHON, "-m", "deepinfra_min")
ENDLESS = drip(START, chunk(sse(delta("more"), done=False)))
LONG = "x" * 200_000


@contextlib.contextmanager
def started(server: Server, *words: str, **options: Any) -> Iterator[Any]:
    """Yield a process of the command that asks this server; kill it at the end."""
    env = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    env.update(DEEPINFRA_TOKEN=TOKEN, DEEPINFRA_BASE_URL=server.url, DEEPINFRA_MODEL="a/b")
    env.update(PYTHONPATH=os.path.dirname(os.path.abspath(dim.__file__)), TERM="dumb", LC_ALL="C")
    env.update(PYTHONDONTWRITEBYTECODE="1", PYTHONIOENCODING="ascii")
    pipes = dict.fromkeys(STREAMS, subprocess.PIPE)
    with subprocess.Popen(words, env=env, **{**pipes, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
HELLO_TEXT = json.loads(HELLO_ANSWER)["choices"][0]["message"]["content"].strip()
PRIVATE = """
import os, socket, sys
from deepinfra_min import main
server = os.environ["DEEPINFRA_BASE_URL"].split("/")[2].split(":")
del os.environ["DEEPINFRA_TOKEN"]
connect = socket.create_connection
socket.create_connection = lambda address, *args: print(*address) or connect(server, *args)
sys.exit(main(["--base-url", "http://192.168.1.5:8000/v1", "Hi"]))
"""


def say(sock: socket.socket, request: Request) -> None:
    """Stream what was asked, and the kind of login."""
    login = request.headers.get("authorization", "none")[:6]
    sock.sendall(stream_of(delta(f"{request.text} {login}", "stop")))


# The words of a command, the answers, stdin, the exit code, stdout, what the one line on stderr
# has, how many seconds it takes at least.
PROCESSES: Any = [
    (CLI, [HI], b"Hi", 0, "Hi", "stdin", 2.5),
    ((*CLI, "-nv", "Hi"), [ANEW, HI], b"", 0, "Hi", "busy ***"),
    ((PYTHON, os.path.abspath(__file__), "-i"), [HI], b"Hello!\n", 0, HELLO_TEXT, OFFLINE, 0.8),
    ((PYTHON, "-c", PRIVATE), [say], b"", 0, "192.168.1.5 8000\nHi none"),
    (CLI, [say], "✓".encode("utf-16"), 0, "✓ Bearer"),
    ((PYTHON, "-I", os.path.abspath(dim.__file__), "Hi"), [say], b"", 0, "Hi Bearer"),
]
for way in ("-X dev -W error -m deepinfra_min", "-m pkg._vendor.renamed", "app.pyz"):
    PROCESSES.append(((PYTHON, *way.split(), "Grüße"), [ANEW, say], b"", 0, "Grüße Bearer"))
FULL, GONE = "KV cache full", {"finish_reason": "error", "error": {"message": "went away"}}
CONTEXT = b'error: {"code": 500, "message": "Context size"}\n\ndata: [DONE]\n\n'
rows = json.loads("""[
    [[["a", null, 0], ["b", null, 1], ["c", "stop", 2]], 0, "abc", ""],
    [[["a", null, 1], ["b", "stop", 1]], 0, "ab", ""], [[["a", "eos"]], 0, "a", ""],
    [[["a", ""]], 0, "a", ""], [[["a", "model_length"]], 3, "a", "model_length"]
]""")
rows = [(stream_of(*[delta(*part) for part in parts]), *row) for parts, *row in rows] + [
    (stream_of(A + CONTEXT), 3, "a", "Context size"),
    (stream_of({"object": "error", "message": FULL}), 1, "", FULL),
    (stream_of(delta("a"), {"choices": [GONE]}), 3, "a", "went away"),
    (hang(START + chunk(A + STOP)), 0, "a", "", 1.9),
    (drip(START + chunk(A + STOP), chunk(b": ping\n\n")), 0, "a", "", 1.9),
]
PROCESSES += [((*CLI, "Hi"), [row[0]], b"", *row[1:]) for row in rows]
# The script of a shell, the exit code, whether the whole answer comes, the line on stderr.
rows = json.loads(r"""[
    ["exec \"$@\" -v <&- 2>&-", 0, true, ""], ["exec \"$1\" -m deepinfra_min -i <&-", 0, false, ""],
    ["exec \"$@\" 0>/dev/null", 1, false, "deepinfra_min: "],
    ["exec \"$@\" -n >&-", 1, false, "deepinfra_min: "],
    ["exec \"$@\" -n >/dev/full", 1, false, "deepinfra_min: "],
    ["exec \"$@\" --help >/dev/full", 1, false, "deepinfra_min: "],
    ["{ \"$@\" -n; echo $? >&2; } | true", 0, false, "141"]
]""")
for script, code, is_whole, err in rows * (os.name != "nt"):
    words = ("sh", "-c", script, "sh", *CLI, "Hi")
    PROCESSES.append((words, [stream_of(delta(LONG, "stop"))], b"", code, LONG * is_whole, err))


def test_command_in_processes_with_an_old_locale(tmp_path: Path) -> None:
    source = Path(dim.__file__).read_bytes()
    (tmp_path / "pkg" / "_vendor").mkdir(parents=True)
    (tmp_path / "pkg" / "_vendor" / "renamed.py").write_bytes(source)
    with zipfile.ZipFile(str(tmp_path / "app.pyz"), "w") as archive:
        archive.writestr("__main__.py", source)

    def check(
        words: Any, answers: Any, piped: bytes, code: int, out: str, err: str = "", least: float = 0
    ) -> None:
        begun = time.monotonic()
        with Server(*answers) as server, started(server, *words, cwd=str(tmp_path)) as process:
            notice = process.stderr.readline() if err == "stdin" else b""  # before stdin ends
            output, errors = process.communicate(piped, PATIENCE)
        printed = output.decode().replace(os.linesep, "\n")
        assert (process.returncode, printed) == (code, out and out + "\n")
        lines = (notice + errors).decode().splitlines()
        assert ([err in line for line in lines], TOKEN in str(lines)) == ([True] * bool(err), False)
        assert time.monotonic() - begun >= least

    together(check, PROCESSES)
    assert sorted(os.listdir(str(tmp_path))) == ["app.pyz", "pkg"]  # nothing was written


# The answer, what is read of it, the exit code; 130 after Ctrl-C.
@posix
@each("wire, text, code", [(hang(), b"", 130), (ENDLESS, b"more", 130), (ENDLESS, b"more", 141)])
def test_process_ends_silently(wire: Any, text: bytes, code: int) -> None:
    with Server(wire) as server, started(server, *CLI, "-n", "Hi", "--timeout=9") as process:
        assert wait_until(lambda: server.requests)
        assert process.stdout.read(len(text)) == text  # each chunk is flushed
        if code == 130:
            process.send_signal(signal.SIGINT)
        else:
            process.stdout.close()
        assert process.wait(PATIENCE) == code
        assert process.stderr.read() == b""


@posix
def test_conversation_on_a_terminal() -> None:
    typed = ["", "One\n", "Two\n", "\x03", "\x03", "Three\n", "\x04"]
    shown = ["> ", "First\r\n> ", "more", "> ", "> ", "Hi\r\n> ", "\r\n"]
    terminal, end = os.openpty()
    shell = ("sh", "-c", 'exec <"$0" >"$0" 2>"$0" "$@"', os.ttyname(end))
    with Server(stream_of(delta("First", "stop")), ENDLESS, HI) as server:
        with started(server, *shell, *CLI, "-ir", start_new_session=True) as process:
            for keys, expected in zip(typed, shown):
                if keys == "\x03":
                    pause(0.2)  # readline waits for signals a little after its prompt
                os.write(terminal, keys.encode())
                text = ""
                while expected not in re.sub(r"\x1b\[\?2004[hl]\r?", "", text):
                    assert select.select([terminal], [], [], PATIENCE)[0], (expected, text)
                    text += os.read(terminal, 4096).decode()
            assert process.wait(PATIENCE) == 0
    os.close(terminal)
    os.close(end)
    messages = server.requests[2].json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
    assert re.fullmatch("(more)+", messages[3]["content"])


# ---- README --------------------------------------------------------------------------------------

README = Path(__file__).resolve().with_name("README.md")
README_TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
# Lines of comment below a program or a command are what it prints.
PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```$", README_TEXT)
SH_BLOCKS = "".join(re.findall(r"(?ms)^```sh\n(.*?)^```$", README_TEXT))
COMMANDS = re.findall(r"(?m)^([^#\n].*deepinfra_min.*)\n((?:# .*\n)+)", SH_BLOCKS)
README_ANSWERS: Any = json.loads("""{
    "Is it warm in Sofia?":
        {"tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Sofia"}}}]},
    "21 °C in Sofia": {"content": "Yes, it is 21 °C."},
    "Who wrote Faust?": {"content": {"name": "Goethe"}},
    "How many r are in strawberry?":
        {"reasoning_content": "One in straw, two in berry.", "content": "3"},
    "Does this change need a test?": {"content": "Yes: nothing tests the new line."},
    "meta-llama/Llama-3.2-11B-Vision-Instruct": {"content": "A cat."},
    "llama3.2": {"content": "Hi."}
}""")  # by the first line of the question, or another model


def answer_readme(sock: socket.socket, request: Request) -> bool:
    question = request.json if request.body else {}
    model = question.get("model", "")
    fields = README_ANSWERS.get(request.text.split("\n")[0] if model == MODELS[0] else model)
    if not fields:
        return stand_in(sock, request)
    is_stream = question.get("stream")
    reply = delta(finish_reason="stop", **fields) if is_stream else completion(**fields)
    sock.sendall(stream_of(reply) if is_stream else answer(reply))
    return True


@each("number", range(len(PROGRAMS)))
def test_readme_program(
    number: int, tls: Any, pems: Path, tmp_path: Path, monkeypatch: Patch, capsys: Any
) -> None:
    program = PROGRAMS[number]
    with Server(answer_readme) as server, Server(answer_readme, context=tls) as gateway:
        monkeypatch.chdir(tmp_path)
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
        names: Any = {"sc": Mock(), "__name__": "readme"}
        exec(compile(program, "README.md", "exec", dont_inherit=True), names)
        if "sc." in program:
            assert names["ask"](["Hello!"]) == [HELLO_TEXT]
    below = "".join(re.findall(r"(?m)^(?:# .*\n)+\Z", program))
    printed = "".join(f"# {line}\n" for line in capsys.readouterr().out.splitlines())
    assert below in ("", printed)


@posix
def test_commands_of_readme_in_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    for path in (dim.__file__, __file__):
        shutil.copy(path, str(tmp_path))
    (tmp_path / "__pycache__").touch()  # for root, who may write into any folder
    (tmp_path / "pytest").mkdir()  # the try-out needs none
    tmp_path.chmod(0o555)

    def check(line: str, below: str) -> None:
        line = line.replace("python3", f'"{sys.executable}"').replace("git diff", "echo +new")
        env = {"DEEPINFRA_TOKEN": TOKEN, "DEEPINFRA_BASE_URL": server.url, "PATH": os.defpath}
        options: Any = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": env}
        printed = subprocess.check_output(line, shell=True, cwd=str(tmp_path), **options)
        text = re.sub(r"\d\.\d s", "1.2 s", printed.decode())
        assert [f"# {line}" for line in text.splitlines()] == below.splitlines()

    rows = [*COMMANDS, ('python3 -ISOO deepinfra_min.py "Hello!"', f"# {HELLO_TEXT}")]
    with Server(answer_readme) as server:
        together(check, rows)
    tmp_path.chmod(0o755)
    assert len(os.listdir(str(tmp_path))) == 4


@pytest.mark.skipif(not README_TEXT, reason="the module came without README.md")
def test_readme_names_the_whole_surface() -> None:
    names = {*dim.__all__, *inspect.signature(Client).parameters}
    names.update(name for name in vars(Client) if not name.startswith("_"))
    assert names - set(re.findall(r"\w+", README_TEXT)) == set()
