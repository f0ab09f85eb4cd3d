"""Requests a second that a ThreadingHTTPServer answers to a loader of its own: SECONDS, CLIENTS.

With three arguments it is the loader, a process on plain Python: SECONDS, CLIENTS, PORT.
"""

import http.server
import socket
import subprocess
import sys
import threading
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


def serve(seconds, clients):
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    loader = [sys.executable, __file__, seconds, clients, str(server.server_port)]
    print(subprocess.run(loader, capture_output=True, text=True, check=True).stdout, end="")
    server.shutdown()


def load(seconds, clients, port):
    end = time.perf_counter() + seconds
    counts = [0] * clients

    def client(me):
        while time.perf_counter() < end:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(REQUEST)
                while connection.recv(4096):
                    pass
            counts[me] += 1

    threads = [threading.Thread(target=client, args=(me,)) for me in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(counts) / seconds)


if len(sys.argv) == 3:
    serve(*sys.argv[1:])
else:
    load(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
