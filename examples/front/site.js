// A page for people.
const http = require('http');

let visits = 0;

http.createServer((request, response) => {
  visits++;
  const body = `<!doctype html><title>front</title><p>Visit ${visits}. See <a href="/api/">the API</a>.\n`;
  response.writeHead(200, {'Content-Type': 'text/html; charset=utf-8', 'Content-Length': Buffer.byteLength(body)});
  response.end(body);
}).listen(3000, () => console.log('ready'));
