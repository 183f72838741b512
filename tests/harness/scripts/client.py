"""One requests.Session over one connection. Reads paths from standard input, one a line; logs a JSON line each."""
import json
import sys
import time

import requests

port = sys.argv[1]
session = requests.Session()
session.trust_env = False
for path in sys.stdin.read().split():
    started = time.perf_counter_ns()
    answer = session.get(f"http://127.0.0.1:{port}{path}", timeout=20)
    spent = time.perf_counter_ns() - started
    print(json.dumps({"path": path, "status": str(answer.status_code), "ns": spent}))
