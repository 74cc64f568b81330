"""A page with many images, each of its own content, that says when it has them all."""

import http.server
import sys

IMAGES = 200
# A picture of one pixel; what stands behind it in the file is ignored by browsers and makes it larger.
PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)
PAGE = """<!doctype html><title>page</title><p id=said>waiting</p><script>
let loaded = 0, failed = 0;
const say = () => { document.getElementById("said").textContent = `loaded ${loaded} failed ${failed}`; };
for (let number = 0; number < %d; number++) {
  const image = new Image();
  image.onload = () => { loaded++; say(); };
  image.onerror = () => { failed++; say(); };
  image.src = `/image-${number}.gif`;
  document.body.appendChild(image);
}
</script>""" % IMAGES


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            self.answer("text/html", PAGE.encode())
        elif self.path.startswith("/image-"):
            number = int(self.path[len("/image-") : -len(".gif")])
            self.answer("image/gif", PIXEL + bytes([number]) * (1000 * (number % 50)))
        else:
            self.send_error(404)

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
