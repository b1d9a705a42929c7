"""Stands in for vLLM's server in tests of its life: takes the same arguments, starts at once, and fails as `--fake MODE` says.

serve      answers /health, /metrics, /v1/models and /v1/chat/completions (a token each); GET /crash ends it with status 3
die:N      serves; ends with status 3 instead of answering completion N + 1
freeze:N   serves; completions after the first N are never answered
once:FILE  serves if FILE is not there, and makes it; else like fail
fail       writes what a failing vLLM writes, and ends with status 1
silent     never answers, never writes
halfway    says that it loads weights, and nothing more
stubborn   serves, but neither it nor the child it starts can be asked to end
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAILURE = """\
(APIServer pid=1) INFO 11-21 02:47:19 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0
(EngineCore pid=2) INFO 11-21 02:54:09 [utils.py:347] Using LBHNC KV cache layout.
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510] EngineCore failed to start.
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510]   File "/x/core.py", line 1482, in run_engine_core
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510]     engine_core = EngineCoreProc(*args)
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510]                   ^^^^^^^^^^^^^^^^^^^^^
(EngineCore pid=2) ERROR 11-21 02:54:10 [core.py:1510] ValueError: No available memory for the cache blocks.
(APIServer pid=1) INFO 11-21 02:47:47 [launcher.py:195] Route: /ping, Methods: GET

RuntimeError: Engine core initialization failed. See root cause above.
RuntimeError: Engine core initialization failed. See root cause above.
"""
METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="tiny"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="tiny"}} 0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="tiny"}} 0.1
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{{engine="0",model_name="tiny"}} 0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="tiny"}} {tokens}
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="tiny"}} {tokens}
"""
REPLY = {
    "choices": [{"index": 0, "message": {"content": "[]"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
SLEEP_FOR_EVER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--fake", default="serve")
    options, _ = parser.parse_known_args()
    fake, _, argument = options.fake.partition(":")
    first = Path(argument)
    if fake == "fail" or (fake == "once" and first.exists()):
        sys.exit(FAILURE)
    if fake == "halfway":
        print("(EngineCore pid=2) INFO 11-21 02:47:42 [cpu_model_runner.py:68] Starting to load model", flush=True)
    if fake in ("silent", "halfway"):
        threading.Event().wait()
    if fake == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", SLEEP_FOR_EVER], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()

    if fake == "once":
        first.touch()
    limit = int(argument) if fake in ("die", "freeze") else sys.maxsize
    num_completions = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/crash":
                os._exit(3)
            metrics = METRICS.format(running=max(0, num_completions - limit), tokens=min(num_completions, limit))
            models = json.dumps({"data": [{"id": options.served_model_name}]})
            self.answer({"/metrics": metrics, "/v1/models": models}.get(self.path, ""))

        def do_POST(self) -> None:
            nonlocal num_completions
            num_completions += 1
            if num_completions > limit:
                if fake == "die":
                    os._exit(3)
                threading.Event().wait()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(json.dumps(REPLY))

        def answer(self, content: str) -> None:
            is_open = not self.path.startswith("/v1")
            self.send_response(200 if is_open or self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}" else 401)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    print("(EngineCore pid=2) INFO 11-21 02:47:42 [cpu_model_runner.py:68] Starting to load model", flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
