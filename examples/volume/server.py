"""A notebook: POST adds a note, GET lists all. The database stays open."""

import http.server
import sqlite3
import threading

database = sqlite3.connect("/var/lib/notes/notes.db", check_same_thread=False)
database.execute("PRAGMA journal_mode = PERSIST")  # without locks between transactions, so it can sleep
database.execute("PRAGMA synchronous = FULL")
database.execute("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)")
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with lock, database:
            database.execute("INSERT INTO note (text) VALUES (?)", (text,))
        self.answer("noted\n")

    def do_GET(self):
        with lock:
            notes = database.execute("SELECT id, text FROM note ORDER BY id").fetchall()
        self.answer("".join(f"{number} {text}\n" for number, text in notes))

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
