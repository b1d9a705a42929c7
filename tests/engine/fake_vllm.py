"""Stands in for vLLM's server in tests of its life: takes the same arguments, starts at once, and fails as `--fake MODE` says.

serve      answers /health and /v1/models; GET /crash ends it with status 3
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
SLEEP_FOR_EVER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--fake", default="serve")
    options, _ = parser.parse_known_args()
    if options.fake == "fail":
        sys.exit(FAILURE)
    if options.fake == "halfway":
        print("(EngineCore pid=2) INFO 11-21 02:47:42 [cpu_model_runner.py:68] Starting to load model", flush=True)
    if options.fake in ("silent", "halfway"):
        threading.Event().wait()
    if options.fake == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", SLEEP_FOR_EVER], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/crash":
                os._exit(3)
            knows = self.headers["Authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}"
            self.send_response(200 if knows or self.path == "/health" else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": options.served_model_name}]}).encode() if self.path == "/v1/models" else b"")

        def log_message(self, format: str, *args: object) -> None: ...

    print("(EngineCore pid=2) INFO 11-21 02:47:42 [cpu_model_runner.py:68] Starting to load model", flush=True)
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
