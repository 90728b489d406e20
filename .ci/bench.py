"""Compare deepinfra_min with bare http.client, json.loads, urllib and the openai SDK.

A temporary folder gets the module and a virtual environment with the openai SDK. nginx serves on
loopback if it is on PATH, else our own servers do. In a round, each contestant runs once, in a
fresh process. Figures and ratios are medians over the rounds; a ratio is ours / reference, and for
openai how many times better ours is. The exit code is 1 if a bar is missed.
"""

import argparse
import atexit
import http.server
import json
import os
import pathlib
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

MODULE = pathlib.Path(__file__).resolve().parent.parent / "deepinfra_min.py"
PARTS = "json, dataclasses, urllib.request, http.client"  # the large modules that it imports

# ---- The programs that are measured: the tasks, then a client ------------------------------------

TASKS = """
import json, statistics, sys, threading, time
url, count = sys.argv[1], int(sys.argv[2])
ask = {"model": "a-model", "messages": [{"role": "user", "content": "Hello!"}]}
def first_item(request):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        items = iter(request())
        next(items)
        times.append(time.perf_counter() - start)
        list(items)  # A stream that is read to its end keeps its connection.
    return {"ms": statistics.median(times) * 1e3}
def streams(number):
    totals = []
    def run(): totals.append(sum(1 for _ in stream()))
    threads = [threading.Thread(target=run) for _ in range(number)]
    start = time.perf_counter()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    seconds = time.perf_counter() - start
    assert totals == [count] * number, totals
    with open("/proc/self/status") as file:  # ru_maxrss would include the parent process.
        peak = int(file.read().partition("VmHWM:")[2].split()[0]) / 1024
    return {"us": seconds * 1e6 / sum(totals), "chunks/s": sum(totals) / seconds, "MB": peak}
"""

CLIENTS = {
    "ours": """
from deepinfra_min import Client
client = Client("sk-bench", base_url=url)
def call(): return [client.chat(**ask)]
def stream(): return client.stream(**ask)
""",
    "openai": """
from openai import OpenAI
client = OpenAI(api_key="sk-bench", base_url=url)
def call(): return [client.chat.completions.create(**ask)]
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
def call(): return [json.loads(post(ask).read())]
def stream():
    with post(dict(ask, stream=True)) as response:
        yield from (json.loads(line[6:]) for line in response if line.startswith(b"data: {"))
""",
    "json.loads": """
texts = [line[6:] for line in open("files/" + url.split("/")[3]) if line.startswith("data: {")]
def stream(): return map(json.loads, texts)
""",
}

IMPORT = """
import time
start = time.perf_counter()
import %s
print('{"ms":', (time.perf_counter() - start) * 1e3, "}")
"""
TEN_LINES = """
import json, os, sys, urllib.request
messages = [{"role": "user", "content": sys.argv[1]}]
body = json.dumps({"model": "a-model", "messages": messages, "stream": True}).encode()
token = "Bearer " + os.environ["DEEPINFRA_TOKEN"]
headers = {"Content-Type": "application/json", "Authorization": token}
url = os.environ["DEEPINFRA_BASE_URL"] + "/chat/completions"
for line in urllib.request.urlopen(urllib.request.Request(url, body, headers)):
    if line.startswith(b"data: {"):
        print(json.loads(line[6:])["choices"][0]["delta"].get("content") or "", end="", flush=True)
"""

# ---- The table -----------------------------------------------------------------------------------

LAYOUT = "| {:27} | {:>18} | {:>18}  {:46} | {:>6} | {:18} |"
ROWS = ["call", "first", "chunk", "import", "start", "streams"]


def run(*command):
    return subprocess.check_output(["venv/bin/python", *command], stdin=subprocess.DEVNULL)


class Bench:
    def __init__(self, ports, options):
        self.http = f"http://127.0.0.1:{ports[0]}"
        self.https = f"https://127.0.0.1:{ports[1]}"
        self.rounds = options.rounds or (3 if options.quick else 5)
        self.divisor = 10 if options.quick else 1
        self.is_missed = False

    def run_rounds(self, commands, rounds):
        results = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                results[name].append(json.loads(run(*command)))
        return results

    def run_clients(self, names, task, count, url):
        commands = {}
        for name in names:
            program = f"{TASKS}{CLIENTS[name]}print(json.dumps({task}))"
            commands[name] = ["-c", program, url, str(count)]
        return self.run_rounds(commands, self.rounds)

    def report(self, what, results, reference, unit, bound="", bar=0):
        ours = [result[unit] for result in results["ours"]]
        other = [result[unit] for result in results[reference]]
        ratios = [a / b for a, b in zip(ours, other)]
        if reference == "openai" and unit != "chunks/s":
            ratios = [b / a for a, b in zip(ours, other)]
        ratio = statistics.median(ratios)
        is_missed = (bound == "at most" and ratio > bar) or (bound == "at least" and ratio < bar)
        self.is_missed |= is_missed
        figures = [f"{statistics.median(values):,.2f} {unit}" for values in (ours, other)]
        limit = f"{bound} {bar or ''} {'MISSED' if is_missed else ''}"
        print(LAYOUT.format(what, *figures, reference, f"{ratio:.2f}", limit), flush=True)

    def bench_call(self):
        names, url = ["ours", "http.client", "openai"], f"{self.https}/answer.json/v1"
        results = self.run_clients(names, "first_item(call)", 1000 // self.divisor, url)
        self.report("call, kept-alive TLS", results, "http.client", "ms", "at most", 1.4)
        self.report("call, kept-alive TLS", results, "openai", "ms")

    def bench_first(self):
        names, url = ["ours", "http.client"], f"{self.https}/6.sse/v1"
        results = self.run_clients(names, "first_item(stream)", 1000 // self.divisor, url)
        self.report("first chunk, kept-alive TLS", results, "http.client", "ms")

    def bench_chunk(self):
        names, count = ["ours", "json.loads", "openai"], 100_000 // self.divisor
        results = self.run_clients(names, "streams(1)", count, f"{self.http}/{count}.sse/v1")
        self.report(f"chunk, one of {count:,}", results, "json.loads", "us", "at most", 2.8)
        self.report(f"chunk, one of {count:,}", results, "openai", "us", "at least", 9)

    def bench_import(self):
        names = ["deepinfra_min", "without_cache", PARTS, "openai"]
        # -B writes no caches; all modules but without_cache, a copy of ours, have theirs by now.
        commands = {name: ["-B", "-c", IMPORT % name] for name in names}
        results = self.run_rounds(commands, 3 * self.rounds)
        results["ours"] = results["with its cache"] = results["deepinfra_min"]
        self.report("import", results, PARTS, "ms", "at most", 1.2)
        self.report("import", results, "openai", "ms")
        results["ours"] = results["without_cache"]
        self.report("import, no bytecode cache", results, "with its cache", "ms")

    def bench_start(self):
        commands = {"ours": ["-m", "deepinfra_min"], "ten lines of urllib": ["-c", TEN_LINES]}
        results = {name: [] for name in commands}
        for _ in range(3 * self.rounds):
            for name, command in commands.items():
                start = time.perf_counter()
                assert b" Hi Hi Hi Hi Hi Hi" in run(*command, "Hello!")
                results[name].append({"ms": (time.perf_counter() - start) * 1e3})
        self.report("command, start to end", results, "ten lines of urllib", "ms", "at most", 1.25)

    def bench_streams(self):
        names, count = ["ours", "openai"], 500 // self.divisor
        results = self.run_clients(names, "streams(200)", count, f"{self.http}/{count}.sse/v1")
        self.report("200 streams in 200 threads", results, "openai", "chunks/s", "at least", 4)
        self.report("200 streams, peak memory", results, "openai", "MB")


# ---- What is served, and how ---------------------------------------------------------------------

ANSWER = """{"id": "chatcmpl-guMTxW", "object": "chat.completion", "created": 1694623155, "model":
"a-model", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant",
"content": "Hello! How are you?"}}], "usage": {"prompt_tokens": 15, "completion_tokens": 16}}"""
CHUNK = """data: {"id": "Rc5hsIPHOSfMP3rNSFUw9tfR", "object": "chat.completion.chunk", \
"created": 1694623354, "model": "a-model", "choices": [{"index": 0, "delta": {"role": \
"assistant", "content": " Hi"}, "finish_reason": null}]}\n\n"""
CERTIFICATE = """req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bench -keyout key.pem
-out cert.pem -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=digitalSignature,keyCertSign"""
NGINX = """
user root; pid nginx.pid; error_log stderr error; events { worker_connections 2048; }
http {  # The workers are root's if nginx is, since nobody else may read the folder.
    types { application/json json; text/event-stream sse; }
    access_log off; keepalive_requests 1000000; client_body_temp_path t1; proxy_temp_path t2;
    fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server {
        listen 127.0.0.1:%d backlog=1024; listen 127.0.0.1:%d ssl backlog=1024;
        ssl_certificate cert.pem; ssl_certificate_key key.pem;
        root files; rewrite ^/([^/]+)/v1/ /$1 last;
        error_page 405 =200 $uri;  # POST to a file is an error, whose page may be the file.
    }
}"""


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.path = "/files" + self.path.partition("/v1/")[0]
        self.do_GET()

    def log_message(self, *_):
        pass


def start_own_servers():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    for server in servers:
        server.socket.listen(256)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return [server.server_port for server in servers]


def start_servers():
    """Serve the files until the end. Return the ports of http and https."""
    if not shutil.which("nginx"):
        return start_own_servers()
    address = ("127.0.0.1", 0)
    with socket.create_server(address) as one, socket.create_server(address) as two:
        ports = one.getsockname()[1], two.getsockname()[1]
    pathlib.Path("nginx.conf").write_text(NGINX % ports)
    command = ["nginx", "-p", os.getcwd(), "-c", "nginx.conf", "-e", "stderr"]
    subprocess.run(command, check=True)  # It returns, and nginx goes on in the background.
    atexit.register(subprocess.run, [*command, "-s", "stop"], stderr=subprocess.DEVNULL)
    return ports


def prepare(module):
    os.mkdir("files")
    pathlib.Path("files/answer.json").write_text(ANSWER)
    for count in (6, 50, 500, 10_000, 100_000):
        pathlib.Path(f"files/{count}.sse").write_text(CHUNK * count + "data: [DONE]\n\n")
    shutil.copy(module, "deepinfra_min.py")
    shutil.copy(module, "without_cache.py")
    subprocess.run(["openssl", *CERTIFICATE.split()], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "venv"], check=True)
    run("-m", "pip", "install", "-qq", "openai")
    run("-c", f"import deepinfra_min, openai, {PARTS}")  # It writes the bytecode caches.


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the size")
    parser.add_argument("--rounds", type=int, help="default: 5")
    parser.add_argument("--module", type=os.path.abspath, default=MODULE, help="another version")
    options = parser.parse_args()
    if not set(options.rows) <= set(ROWS):
        parser.error(f"the rows are {', '.join(ROWS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # It stops nginx, too.
    for name in list(os.environ):
        if name.startswith(("DEEPINFRA", "OPENAI", "PYTHON")):
            del os.environ[name]
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chdir(folder)
    prepare(options.module)
    bench = Bench(start_servers(), options)
    os.environ.update(DEEPINFRA_BASE_URL=f"{bench.http}/6.sse/v1", DEEPINFRA_TOKEN="sk-bench")
    os.environ.update(SSL_CERT_FILE="cert.pem", no_proxy="*")
    print(LAYOUT.format("what", "ours", "reference", "", "ratio", "bar"))
    for row in options.rows or ROWS:
        getattr(bench, f"bench_{row}")()
    return int(bench.is_missed)


if __name__ == "__main__":
    sys.exit(main())
