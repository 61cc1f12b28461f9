"""GET / answers the number of visits and the last messages, POST / adds one.

One connection to each of Redis and PostgreSQL stays open for the life of the
program. It is never opened again after a sleep: there is no need.
"""

import http.server
import json
import os
import threading

import psycopg2
import redis

with open(os.environ["DB_PASSWORD_FILE"]) as f:
    password = f.read().strip()
cache = redis.Redis(host=os.environ["REDIS_HOST"])
db = psycopg2.connect(host=os.environ["DB_HOST"], user="web", dbname="postgres", password=password)
db.autocommit = True
db_lock = threading.Lock()


def query(text, *args):
    with db_lock, db.cursor() as cursor:
        cursor.execute(text, args)
        return cursor.fetchall() if cursor.description else []


query("CREATE TABLE IF NOT EXISTS message (id serial PRIMARY KEY, at timestamptz DEFAULT now(), body text NOT NULL)")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        rows = query("SELECT id, at, body FROM message ORDER BY id DESC LIMIT 10")
        self.answer(200, {
            "visits": cache.incr("visits"),
            "messages": [{"id": i, "at": at.isoformat(), "body": body} for i, at, body in rows],
        })

    def do_POST(self):
        length = int(self.headers.get("Content-Length", "0"))
        if not 0 < length <= 1 << 16:
            self.close_connection = True
            self.answer(400, {"error": "a message has 1 to 65536 bytes"})
            return
        body = self.rfile.read(length).decode("utf-8", "replace").replace("\0", "")
        self.answer(201, {"id": query("INSERT INTO message (body) VALUES (%s) RETURNING id", body)[0][0]})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
