"""A small service: asks Redis for each request, and a server of another name for every second one.

GET /up/N: one GET to Redis; N even: one GET to the server at STOCK, called stock.example; N a multiple of 5: 500, else 200.
Arguments: its own port, that of Redis, that of the other server. One connection to each for every connection it serves.
"""
import http.client
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, REDIS, STOCK = (int(text) for text in sys.argv[1:4])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.redis = socket.create_connection(("127.0.0.1", REDIS))
        self.answers = self.redis.makefile("rb")
        self.stock = http.client.HTTPConnection("127.0.0.1", STOCK)

    def finish(self):
        super().finish()
        self.redis.close()
        self.stock.close()

    def do_GET(self):
        number = int(self.path.rsplit("/", 1)[1])
        self.redis.sendall(b"*2\r\n$3\r\nGET\r\n$4\r\nitem\r\n")
        assert self.answers.readline() == b"$-1\r\n"
        if number % 2 == 0:
            self.stock.request("GET", f"/stock/{number}", headers={"Host": "stock.example"})
            self.stock.getresponse().read()
        body = b"failed\n" if number % 5 == 0 else b"well\n"
        self.send_response(500 if number % 5 == 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
