"""A server whose requests are slow for the reason that their path names, each by MS milliseconds.

/plain answers at once; /sleep/MS, /burn/MS (of CPU time), /lock/MS (held by another thread), /peer/MS (an answer from
another thread over a socket), /disk/N (N direct reads of 64 KiB from the file given).
serve: a thread for each connection. pool: one thread reads requests, another one answers them.
"""
import mmap
import os
import queue
import socket
import sys
import threading
import time

port, mode, device = int(sys.argv[1]), sys.argv[2], sys.argv[3]
READ = 64 * 1024


def slow(words):
    amount = int(words[2]) if len(words) > 2 else 0
    seconds = amount / 1000
    if words[1] == "sleep":
        time.sleep(seconds)
    elif words[1] == "burn":
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
    elif words[1] == "lock":
        lock = threading.Lock()
        lock.acquire()
        threading.Timer(seconds, lock.release).start()
        lock.acquire()
    elif words[1] == "peer":
        here, there = socket.socketpair()
        threading.Timer(seconds, lambda: there.send(b"x")).start()
        here.recv(1)
    elif words[1] == "disk":
        file = os.open(device, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, READ)
        for turn in range(amount):
            os.preadv(file, [buffer], turn * READ)
        os.close(file)


def path_of(request):
    return request.split(b" ")[1].split(b"?")[0].decode()


def answer(connection, request):
    slow(path_of(request).split("/"))
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    if b"HTTP/1.0" in request:
        connection.shutdown(socket.SHUT_WR)


def requests(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while request := connection.recv(4096):
        yield request


def serve(connection):
    for request in requests(connection):
        answer(connection, request)


def pool(connection):
    for request in requests(connection):
        jobs.put((connection, request))


def work():
    while True:
        answer(*jobs.get())


jobs = queue.SimpleQueue()
if mode == "pool":
    threading.Thread(target=work, daemon=True).start()
listener = socket.create_server(("127.0.0.1", port))
while True:
    accepted, _ = listener.accept()
    threading.Thread(target=pool if mode == "pool" else serve, args=(accepted,), daemon=True).start()
