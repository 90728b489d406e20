"""Measure deepinfra_min side by side with bare http.client, json.loads and the openai SDK.

Makes its own virtual environment with the openai SDK in a temporary folder, serves from nginx on
loopback where it is on PATH (else from a server of its own), and prints one table. Each figure is
the median over the rounds, each ratio the median of the rounds' own ratios. In a round each
contestant runs once, in a fresh process, one after the other. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import importlib.metadata
import json
import os
import pathlib
import platform
import pwd
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MODULE = pathlib.Path(__file__).resolve().parent.parent / "deepinfra_min.py"
MODEL = "deepseek-ai/DeepSeek-R1"
ROUND_TRIP = 0.05  # seconds, for the row with a far server

# ---- What runs in the fresh processes: a contestant, then a task ---------------------------------

START = f"""
import json, sys, time
url, count = sys.argv[1], int(sys.argv[2])
ask = {{"model": {MODEL!r}, "messages": [{{"role": "user", "content": "Hello!"}}]}}
"""

CONTESTANTS = {
    "ours": """
from deepinfra_min import Client
client = Client("sk-bench", base_url=url)
def chat(): return client.chat(**ask)
def stream(): return client.stream(**ask)
""",
    "openai": """
from openai import OpenAI
client = OpenAI(api_key="sk-bench", base_url=url)
def chat(): return client.chat.completions.create(**ask)
def stream(): return client.chat.completions.create(**ask, stream=True)
""",
    "http.client": """
import http.client, ssl, urllib.parse
parts = urllib.parse.urlsplit(url)
connection = http.client.HTTPSConnection(parts.netloc, context=ssl.create_default_context())
headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
def post(payload):
    connection.request("POST", parts.path + "/chat/completions", json.dumps(payload), headers)
    return connection.getresponse()
def chat(): return json.loads(post(ask).read())
def stream():
    with post(dict(ask, stream=True)) as response:
        for line in response:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
""",
    "json.loads": """
def stream(): return map(json.loads, texts)
with open(url) as file:
    texts = [line[6:-1] for line in file if line.startswith("data: {")]
""",
}

TASKS = {
    "call": """
import statistics
def seconds():
    start = time.perf_counter()
    chat()
    return time.perf_counter() - start
first = [seconds() for _ in range(20)]
print(json.dumps(statistics.median(seconds() for _ in range(count))))
""",
    "chunk": """
start, n = time.perf_counter(), 0
for chunk in stream():
    n += 1
seconds = time.perf_counter() - start
assert n == count, n
print(json.dumps(seconds / n))
""",
    "first": """
import statistics
def seconds():
    start, chunks = time.perf_counter(), iter(stream())
    next(chunks)
    seconds = time.perf_counter() - start
    for _ in chunks:  # to its end, so that the connection is kept
        pass
    return seconds
first = [seconds() for _ in range(20)]
print(json.dumps(statistics.median(seconds() for _ in range(count))))
""",
    "trips": """
chat()
start = time.perf_counter()
for _ in range(count - 1):
    chat()
print(json.dumps((time.perf_counter() - start) / (count - 1)))
""",
    "threads": """
import threading
def peak():  # not ru_maxrss, which begins at what the parent process had
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
counts, ready = [], threading.Barrier(201)
def run():
    ready.wait()
    counts.append(sum(1 for chunk in stream()))
threads = [threading.Thread(target=run) for _ in range(200)]
for thread in threads: thread.start()
ready.wait()
start = time.perf_counter()
for thread in threads: thread.join()
seconds = time.perf_counter() - start
assert counts == [count] * 200, counts
print(json.dumps([sum(counts) / seconds, peak()]))
""",
    "memory": """
def now():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
sizes = [now() for n, chunk in enumerate(stream(), 1) if n in (count // 4, count)]
print(json.dumps(sizes))
""",
}

SCRIPT = f"""
import json, os, sys, urllib.request
url, token = os.environ["DEEPINFRA_BASE_URL"], os.environ["DEEPINFRA_TOKEN"]
messages = [{{"role": "user", "content": sys.argv[1]}}]
body = json.dumps({{"model": {MODEL!r}, "messages": messages, "stream": True}}).encode()
headers = {{"Content-Type": "application/json", "Authorization": "Bearer " + token}}
request = urllib.request.Request(url + "/chat/completions", body, headers)
for line in urllib.request.urlopen(request, timeout=600):
    if line.startswith(b"data: {{"):
        print(json.loads(line[6:])["choices"][0]["delta"].get("content") or "", end="", flush=True)
print()
"""


# ---- The table -----------------------------------------------------------------------------------


@dataclass
class Line:
    """A line of the table. `bar` is the bound of the ratio; with `is_least`, a lower one."""

    what: str
    ours: str
    reference: str
    ratio: float
    bar: float | None = None
    is_least: bool = False

    @property
    def is_missed(self) -> bool:
        if self.bar is None:
            return False
        return self.ratio < self.bar if self.is_least else self.ratio > self.bar

    def cells(self) -> list[str]:
        bar = "" if self.bar is None else f"{'>=' if self.is_least else '<='} {self.bar:.3g}"
        verdict = "" if self.bar is None else "MISS" if self.is_missed else "ok"
        return [self.what, self.ours, self.reference, f"{self.ratio:.2f}", bar, verdict]


def compare(what: str, ours: list[float], reference: list[float], name: str, unit: str,
            bar: float | None = None, *, faster: float | None = None) -> Line:
    """Return the line for two contestants: `bar` bounds ours / reference, `faster` the inverse."""
    pairs = [(b / a if faster else a / b) for a, b in zip(ours, reference)]
    return Line(what, show(ours, unit), f"{name} {show(reference, unit)}",
                statistics.median(pairs), faster or bar, faster is not None)


def show(values: list[float], unit: str) -> str:
    scale = {"ms": 1e3, "us": 1e6, "MB": 1e-6}.get(unit, 1)
    return f"{statistics.median(values) * scale:,.{0 if unit == 'chunks/s' else 2}f} {unit}"


def print_table(lines: list[Line]) -> None:
    head = ["what", "ours", "reference", "ratio", "bar", ""]
    rows = [head, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")


# ---- The rows ------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Where things are: the folder of this run, the servers' origins, the sizes of this run."""

    folder: pathlib.Path
    python: pathlib.Path
    http: str
    https: str
    own: str
    rounds: int
    is_quick: bool

    def size(self, full: int) -> int:
        return full // 10 if self.is_quick else full

    def stream_file(self, count: int) -> str:
        """Return the name of a file that holds a stream of so many chunks."""
        path = self.folder / "files" / f"{count}.sse"
        if not path.exists():
            with path.open("wb") as file:
                for event in events(count):
                    file.write(event)
        return path.name

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """Return the standard output of a fresh Python with the module and the openai SDK."""
        result = subprocess.run([str(self.python), *command], cwd=self.folder / "site", check=True,
                                env={**worker_environment(self.folder), **(env or {})},
                                stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        return result.stdout.decode()

    def measure(self, task: str, contestants: dict[str, str], count: int) -> dict[str, list[Any]]:
        """Return the rounds of a task for each contestant, which is given with its URL."""
        rounds: dict[str, list[Any]] = {name: [] for name in contestants}
        for _ in range(self.rounds):
            for name, url in contestants.items():
                program = START + CONTESTANTS[name] + TASKS[task]
                rounds[name].append(json.loads(self.run("-c", program, url, str(count))))
        return rounds

    def seconds(self, commands: dict[str, list[str]],
                env: dict[str, str]) -> dict[str, list[float]]:
        """Return the seconds from start to end of each command, over three times the rounds."""
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for n in range(3 * self.rounds + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                self.run(*command, env=env)
                if n:  # the first one compiles the modules
                    taken[name].append(time.perf_counter() - start)
        return taken


def bench_call(bench: Bench) -> Iterator[Line]:
    url = f"{bench.https}/answer.json/v1"
    names = ("ours", "http.client", "openai")
    took = bench.measure("call", dict.fromkeys(names, url), bench.size(1000))
    what = "a call over kept-alive TLS"
    yield compare(what, took["ours"], took["http.client"], "http.client", "ms", 1.5)
    yield compare(what + ": times faster", took["ours"], took["openai"], "openai", "ms", faster=4)


def bench_chunk(bench: Bench) -> Iterator[Line]:
    count = bench.size(100_000)
    name = bench.stream_file(count)
    path = str(bench.folder / "files" / name)
    url = f"{bench.http}/{name}/v1"
    took = bench.measure("chunk", {"ours": url, "json.loads": path, "openai": url}, count)
    what = f"a streamed chunk, {count:,}-chunk answer"
    yield compare(what, took["ours"], took["json.loads"], "json.loads", "us", 2.2)
    yield compare(what + ": times faster", took["ours"], took["openai"], "openai", "us", faster=10)
    for server, label in ((f"{bench.https}/{name}/v1", "over TLS"),
                          (f"{bench.own}/{name}.chunked/v1", "an HTTP chunk each")):
        took = bench.measure("chunk", {"ours": server, "json.loads": path}, count)
        yield compare(f"  the same, {label}", took["ours"], took["json.loads"], "json.loads", "us")


def bench_first(bench: Bench) -> Iterator[Line]:
    url = f"{bench.https}/{bench.stream_file(6)}/v1"
    took = bench.measure("first", {"ours": url, "http.client": url}, bench.size(1000))
    yield compare("time to the first chunk of a stream", took["ours"], took["http.client"],
                  "http.client", "ms", 1.5)


def bench_trips(bench: Bench) -> Iterator[Line]:
    with relay(int(bench.https.rpartition(":")[2])) as port:
        url = f"https://127.0.0.1:{port}/answer.json/v1"
        took = bench.measure("trips", {"ours": url, "openai": url}, 20)
    trips = {name: [value / ROUND_TRIP for value in values] for name, values in took.items()}
    yield Line("20 calls at 50 ms: round trips a call, after the first", show(trips["ours"], ""),
               f"openai {show(trips['openai'], '')}", statistics.median(trips["ours"]), 1.2)


def bench_threads(bench: Bench) -> Iterator[Line]:
    count = bench.size(500)
    url = f"{bench.http}/{bench.stream_file(count)}/v1"
    took = bench.measure("threads", {"ours": url, "openai": url}, count)
    (speed, peak), (its_speed, its_peak) = zip(*took["ours"]), zip(*took["openai"])
    what = "200 streams at once in 200 threads"
    yield Line(f"{what}: chunks a second", show(speed, "chunks/s"),
               f"openai {show(its_speed, 'chunks/s')}",
               statistics.median([a / b for a, b in zip(speed, its_speed)]), 4, True)
    yield compare(f"{what}: peak memory", peak, its_peak, "openai", "MB", 1 / 3)


def bench_memory(bench: Bench) -> Iterator[Line]:
    count = bench.size(200_000)
    url = f"{bench.http}/{bench.stream_file(count)}/v1"
    early, late = zip(*bench.measure("memory", {"ours": url}, count)["ours"])
    yield compare(f"memory at chunk {count:,}, against {count // 4:,}", late, early, "itself", "MB",
                  1.02)


def bench_import(bench: Bench) -> Iterator[Line]:
    imports = {"ours": "import deepinfra_min", "openai": "import openai", "nothing": "pass",
               "json, dataclasses, urllib.request": "import json, dataclasses, urllib.request"}
    took = bench.seconds({name: ["-c", code] for name, code in imports.items()}, {})
    nothing = statistics.median(took.pop("nothing"))
    net = {name: [value - nothing for value in values] for name, values in took.items()}
    for name, bar, faster in (("json, dataclasses, urllib.request", 1.25, None),
                              ("openai", None, 7)):
        what = "import deepinfra_min" + (": times faster" if faster else "")
        yield compare(what, net["ours"], net[name], name, "ms", bar, faster=faster)


def bench_cli(bench: Bench) -> Iterator[Line]:
    if "\ndef main(" not in (bench.folder / "site" / MODULE.name).read_text():
        print("(cli: skipped, the module has no main yet)")
        return
    (bench.folder / "site" / "script.py").write_text(SCRIPT)
    env = {"DEEPINFRA_BASE_URL": f"{bench.http}/{bench.stream_file(6)}/v1",
           "DEEPINFRA_TOKEN": "sk-bench"}
    commands = {"ours": ["-m", "deepinfra_min", "-n", "Hi"], "script": ["script.py", "Hi"]}
    outputs = {bench.run(*command, env=env) for command in commands.values()}
    if len(outputs) != 1:
        raise SystemExit(f"the command line and the script differ: {outputs}")
    took = bench.seconds(commands, env)
    yield compare("python -m deepinfra_min -n Hi, start to finish", took["ours"], took["script"],
                  "ten lines of urllib", "ms", 1.3)


ROWS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "call": bench_call, "chunk": bench_chunk, "first": bench_first, "trips": bench_trips,
    "threads": bench_threads, "memory": bench_memory, "import": bench_import, "cli": bench_cli,
}


# ---- What is served ------------------------------------------------------------------------------

WORDS = " Hi", "!", " It", "'s", " nice", " to", " meet", " you", ".", " Is", " there", "\n", " é"
ANSWER = {
    "id": "chatcmpl-guMTxWgpFf", "object": "chat.completion", "created": 1694623155, "model": MODEL,
    "choices": [{"index": 0, "message": {
        "role": "assistant",
        "content": " Hello! It's nice to meet you. Is there something I can help you with or would "
                   "you like to chat for a bit?"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 15, "completion_tokens": 16, "total_tokens": 31,
              "estimated_cost": 0.0000268},
}


def events(count: int) -> Iterator[bytes]:
    """Yield the events of an answer of so many chunks, each as the API's documents show it."""
    for n in range(count):
        delta = {"role": "assistant", "content": WORDS[n % len(WORDS)]} if n < count - 1 else {}
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        payload = {"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk",
                   "created": 1694623354, "model": MODEL, "choices": [choice]}
        yield b"data: %s\n\n" % json.dumps(payload).encode()
    yield b"data: [DONE]\n\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /NAME/v1/... with the file NAME; with NAME.chunked, an HTTP chunk for each event."""

    protocol_version, disable_nagle_algorithm, folder = "HTTP/1.1", True, pathlib.Path()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name, dot, _ = self.path.split("/")[1].partition(".chunked")
        path = self.folder / name
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if name.endswith("json") else
                         "text/event-stream")
        if dot:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            if not dot:
                self.connection.sendfile(file)
                return
            with contextlib.closing(self.connection.makefile("wb", 65536)) as writer:
                for line in filter(bytes.strip, file):
                    writer.write(b"%x\r\n%s\n\r\n" % (len(line) + 1, line))
                writer.write(b"0\r\n\r\n")

    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def own_server(folder: pathlib.Path, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve the folder's files from a thread each connection; yield the origin."""
    handler = type("FolderHandler", (Handler,), {"folder": folder / "files"})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.request_queue_size = 256
        server.socket.listen(256)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()


NGINX = """
daemon off; pid nginx.pid; error_log stderr error; worker_processes 1; {user}
events {{ worker_connections 2048; }}
http {{
    types {{ application/json json; text/event-stream sse; }}
    access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 1h;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{http} backlog=1024; listen 127.0.0.1:{https} ssl backlog=1024;
        ssl_certificate certificate.pem; ssl_certificate_key key.pem;
        root files; rewrite ^/([^/]+)/v1/ /$1 last;
        error_page 405 =200 $uri;  # a file is not to be had by POST, but as the page of that error
    }}
}}
"""


@contextlib.contextmanager
def nginx_server(nginx: str, folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Serve the folder's files from nginx; yield its http and its https origin."""
    ports = free_port(), free_port()
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""
    config = NGINX.format(http=ports[0], https=ports[1], user=user)
    (folder / "nginx.conf").write_text(config)
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        for port in ports:
            wait_for(port, process)
        yield f"http://127.0.0.1:{ports[0]}", f"https://127.0.0.1:{ports[1]}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


@contextlib.contextmanager
def relay(target: int) -> Iterator[int]:
    """Hand on connections to a port of this machine, each way half a round trip late."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay_all, args=(listener, target), daemon=True).start()
        yield listener.getsockname()[1]


def relay_all(listener: socket.socket, target: int) -> None:
    with contextlib.suppress(OSError):  # closed at the end of the row
        while True:
            near = listener.accept()[0]
            far = socket.create_connection(("127.0.0.1", target))
            for source, sink in ((near, far), (far, near)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=relay_one_way, args=(source, sink), daemon=True).start()


def relay_one_way(source: socket.socket, sink: socket.socket) -> None:
    """Hand on what comes, half a round trip after it came: a call is one small block."""
    with contextlib.suppress(OSError):
        while True:
            block = source.recv(1 << 20)
            time.sleep(ROUND_TRIP / 2)
            if not block:
                break
            sink.sendall(block)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# ---- The run -------------------------------------------------------------------------------------


def worker_environment(folder: pathlib.Path) -> dict[str, str]:
    """Return the environment of the contestants: no proxies or settings, but our certificate."""
    kept = {name: value for name, value in os.environ.items()
            if not name.upper().endswith("_PROXY") and not name.startswith(("DEEPINFRA", "OPENAI",
                                                                            "PYTHON"))}
    return {**kept, "SSL_CERT_FILE": str(folder / "certificate.pem")}


def make_certificate(folder: pathlib.Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")],
        check=True, stderr=subprocess.DEVNULL)


def make_environment(folder: pathlib.Path) -> pathlib.Path:
    """Return the Python of a new virtual environment that has the openai SDK."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-qq", "openai"], check=True)
    return python


@contextlib.contextmanager
def servers(folder: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield the name of the main server, its two origins, and the origin of our own server."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(own_server(folder))
        nginx = shutil.which("nginx")
        if nginx:
            yield ("nginx", *stack.enter_context(nginx_server(nginx, folder)), own)
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        yield "its own server", own, stack.enter_context(own_server(folder, context)), own


def describe(python: pathlib.Path, server: str, rounds: int) -> str:
    """Return a line about the machine and the versions that the figures hold for."""
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    found = importlib.metadata.distributions(path=[str(site)])
    version = next(item.version for item in found if item.metadata["Name"] == "openai")
    load = os.getloadavg()[0]
    return (f"Python {platform.python_version()}, openai {version}, {ssl.OPENSSL_VERSION}, "
            f"{server}; {platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
            f"load {load:.1f}; {rounds} rounds")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW",
                        help=f"of {', '.join(ROWS)}; all of them if none")
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the size")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--module", type=pathlib.Path, default=MODULE,
                        help="another version of deepinfra_min.py to measure")
    options = parser.parse_args()
    if not set(options.rows) <= set(ROWS):
        parser.error(f"the rows are {', '.join(ROWS)}")
    rounds = options.rounds or (3 if options.quick else 5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        for sub in ("files", "site"):
            (folder / sub).mkdir()
        shutil.copy(options.module, folder / "site" / MODULE.name)
        (folder / "files" / "answer.json").write_text(json.dumps(ANSWER))
        make_certificate(folder)
        python = make_environment(folder)
        server, *origins = stack.enter_context(servers(folder))
        print(describe(python, server, rounds), flush=True)
        bench = Bench(folder, python, *origins, rounds=rounds, is_quick=options.quick)
        lines = [line for row in ROWS if row in (options.rows or ROWS) for line in ROWS[row](bench)]
        print_table(lines)
    return int(any(line.is_missed for line in lines))


if __name__ == "__main__":
    sys.exit(main())
