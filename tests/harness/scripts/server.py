"""Python's own http.server with keep-alive. Logs a JSON line a request: path, status, nanoseconds.

/wait/MS/… answers after MS milliseconds, /missing… with 404, everything else at once with 200.
The clock runs from the request line being there to the answer being written.
"""
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, log_file = int(sys.argv[1]), sys.argv[2]
log = open(log_file, "a", buffering=1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: without this the second waits for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def parse_request(self):
        self.started_ns = time.perf_counter_ns()
        return super().parse_request()

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        if length:
            self.rfile.read(length)
        parts = self.path.split("/")
        if parts[1] == "wait":
            time.sleep(int(parts[2]) / 1000)
        status = 404 if parts[1].startswith("missing") else 200
        body = b"hello\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        spent = time.perf_counter_ns() - self.started_ns
        log.write(json.dumps({"path": self.path, "status": str(status), "ns": spent}) + "\n")

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
