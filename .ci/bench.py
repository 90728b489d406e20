"""Compare deepinfra_min with what could be used in its place, on Linux: `bench.py [ROW...]`.

call: a call over kept-alive TLS. chunk: one of a stream of 100,000. start: the command, from start
to end. streams: 200 at once in 200 threads, and the peak memory. nginx serves on loopback if it is
on PATH, else Python does. All figures are medians over rounds, in which the programs take turns. A
ratio is ours / reference. The exit code is 1 if one is over the limit that the table shows.
"""

import argparse
import atexit
import http.server
import json
import os
import pathlib
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROWS = {  # reference, unit, and the highest ratio that is allowed
    "call": [("http.client", "ms", 1.25), ("openai", "ms", None)],
    "chunk": [("json.loads", "us", 3.6), ("openai", "us", 1 / 9)],
    "import": [("json, dataclasses, urllib.request", "ms", 1.2), ("openai", "ms", None)],
    "start": [("ten lines of urllib", "ms", 1.4)],
    "streams": [("openai", "chunks/s", None), ("openai", "MB", None)],
}
LAYOUT = "{:8} {:>18}   {:>18}  {:33}   {:>6}   {}"
TASKS = """import gc, json, os, statistics, sys, threading, time, timeit
from concurrent.futures import ThreadPoolExecutor
url, count = os.environ["DEEPINFRA_BASE_URL"], int(sys.argv[1])
ask = {"model": "a-model", "messages": [{"role": "user", "content": "Hi"}]}
def calls():
    assert call() == "Hello!"
    return {"ms": 1e3 * statistics.median(timeit.repeat(call, gc.enable, number=1, repeat=count))}
def streams(number):
    start = time.perf_counter()
    with ThreadPoolExecutor(number, initializer=threading.Barrier(number).wait) as pool:
        totals = list(pool.map(lambda _: sum(1 for _ in stream()), range(number)))
    seconds = time.perf_counter() - start
    assert totals == [count] * number, totals
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
    return {"us": seconds * 1e6 / sum(totals), "chunks/s": sum(totals) / seconds, "MB": peak}"""
CLIENTS = {
    "ours": """from deepinfra_min import Client
client = Client("a-token", base_url=url)
def call(): return client.chat(**ask).text
def stream(): return client.stream(**ask)""",
    "openai": """from openai import OpenAI
client = OpenAI(api_key="a-token", base_url=url)
def call(): return client.chat.completions.create(**ask).choices[0].message.content
def stream(): return client.chat.completions.create(**ask, stream=True)""",
    "http.client": """import http.client, ssl
connection = http.client.HTTPSConnection(url.split("/")[2], context=ssl.create_default_context())
headers = {"Content-Type": "application/json", "Authorization": "Bearer a-token"}
def call():
    connection.request("POST", "/call/v1/chat/completions", json.dumps(ask), headers)
    return json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]""",
    "json.loads": """texts = [line[6:] for line in open("chunk") if line.startswith("data: {")]
def stream(): return map(json.loads, texts)""",
}
IMPORT = """import time; start = time.perf_counter(); import %s
print('{"ms":', (time.perf_counter() - start) * 1e3, "}")"""
TEN_LINES = """import json, os, sys, urllib.request
messages = [{"role": "user", "content": sys.argv[1]}]
body = json.dumps({"model": "a-model", "messages": messages, "stream": True}).encode()
token = "Bearer " + os.environ["DEEPINFRA_TOKEN"]
headers = {"Content-Type": "application/json", "Authorization": token}
url = os.environ["DEEPINFRA_BASE_URL"] + "/chat/completions"
for line in urllib.request.urlopen(urllib.request.Request(url, body, headers)):
    if line.startswith(b"data: {"):
        print(json.loads(line[6:])["choices"][0]["delta"]["content"], end="", flush=True)"""
ANSWER = """{"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model":
"a-model", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}}]}"""
CHUNK = """data: {"id": "chatcmpl-12345678", "object": "chat.completion.chunk", "created": \
1700000000, "model": "a-model", "choices": [{"index": 0, "delta": {"role": "assistant", \
"content": " Hi"}, "finish_reason": null}]}\n\n"""
CERTIFICATE = """openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bench -keyout key.pem
-out cert.pem -addext subjectAltName=IP:127.0.0.1 -addext keyUsage=digitalSignature,keyCertSign"""
NGINX = """user root; daemon off; pid nginx.pid; events { worker_connections 2048; }
http { access_log off; keepalive_requests 1000000; client_body_temp_path t1; proxy_temp_path t2;
fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; default_type application/json;
server { listen 127.0.0.1:%d backlog=1024; listen 127.0.0.1:%d ssl backlog=1024; root .;
ssl_certificate cert.pem; ssl_certificate_key key.pem; rewrite ^/([^/]+)/v1/ /$1 last;
error_page 405 =200 $uri; } }  # POST to a file is an error, whose page may be the file."""


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    extensions_map, log_message = {"": "application/json"}, staticmethod(lambda *_: None)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.path = self.path.partition("/v1/")[0]
        self.do_GET()


def start_servers():
    plain, tls = (http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2))
    ports = plain.server_port, tls.server_port
    if shutil.which("nginx"):
        plain.server_close()
        tls.server_close()
        pathlib.Path("nginx.conf").write_text(NGINX % ports)
        command = ["nginx", "-p", os.getcwd(), "-c", "nginx.conf", "-e", "stderr"]
        atexit.register(subprocess.Popen(command).terminate)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("cert.pem", "key.pem")
        tls.socket = context.wrap_socket(tls.socket, server_side=True)
        for server in (plain, tls):
            server.socket.listen(256)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{ports[0]}", f"https://127.0.0.1:{ports[1]}"


def run(row, name, url, count):
    command = ["-c", IMPORT % name.replace("ours", "deepinfra_min")]
    if row == "start":
        command = ["-m", "deepinfra_min", "-n", "Hi"] if name == "ours" else ["-c", TEN_LINES, "Hi"]
    elif row != "import":
        task = {"call": "calls()", "chunk": "streams(1)", "streams": "streams(200)"}[row]
        command = ["-c", f"{TASKS}\n{CLIENTS[name]}\nprint(json.dumps({task}))", str(count)]
    env = {"DEEPINFRA_BASE_URL": url, "DEEPINFRA_TOKEN": "a-token", "SSL_CERT_FILE": "cert.pem"}
    start = time.perf_counter()
    output = subprocess.check_output(["venv/bin/python", *command], env=env)
    return {"ms": (time.perf_counter() - start) * 1e3} if row == "start" else json.loads(output)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("rows", nargs="*", metavar="ROW", choices=[*ROWS, []])
parser.add_argument("--quick", action="store_true", help="3 rounds, of a tenth of the size")
options = parser.parse_args()
rounds, size = (3, 100) if options.quick else (5, 1000)
counts = {"call": size, "chunk": size * 100, "import": 0, "start": 6, "streams": size // 2}
folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
shutil.copy(pathlib.Path(__file__).parents[1] / "deepinfra_min.py", folder.name)
os.chdir(folder.name)
for row, count in counts.items():
    pathlib.Path(row).write_text(ANSWER if row == "call" else CHUNK * count + "data: [DONE]\n\n")
subprocess.run(CERTIFICATE.split(), check=True, capture_output=True)
plain, tls = start_servers()  # the URLs for http and https
subprocess.run([sys.executable, "-m", "venv", "venv"], check=True)
subprocess.run(["venv/bin/pip", "install", "-qq", "openai"], check=True)
missed = []
print(LAYOUT.format("row", "ours", "reference", "", "ratio", "at most"))
for row in options.rows or ROWS:
    url = f"{tls if row == 'call' else plain}/{row}/v1"
    names = {"ours", *(name for name, _, _ in ROWS[row])}
    results = [{name: run(row, name, url, counts[row]) for name in names} for _ in range(rounds)]
    for name, unit, bar in ROWS[row]:
        pairs = [(result["ours"][unit], result[name][unit]) for result in results]
        ratio = statistics.median(a / b for a, b in pairs)
        ours, other = (f"{statistics.median(values):,.2f} {unit}" for values in zip(*pairs))
        print(LAYOUT.format(row, ours, other, name, f"{ratio:.3f}", f"{bar or '':.3}"), flush=True)
        missed += [row] if bar and ratio > bar else []
sys.exit(f"missed: {', '.join(missed)}" if missed else 0)
