"""Speaks the Kubernetes container runtime interface, as the kubelet does: cri.py METHOD [KEY=VALUE...]

A key is the way to a field in cri.proto, beside this file: `config.metadata.name=p`. A list grows with each naming
(`cmd=sh cmd=-c`), one of messages has indices (`config.mounts.0.host_path=/etc`), a map has its key after a colon
(`config.linux.sysctls:kernel.msgmax=65536`), enums have their words.

The answer is printed: one string alone as it is, else as JSON. ExecSync prints what the program printed. Exec and Attach
stay connected, by the websocket protocol of Kubernetes, with a terminal's size if there is one. For these three the exit
code is the program's. CRI_SOCKET names another socket than containerd's.
"""

import base64
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import termios
import tty
import urllib.parse

import h2.config
import h2.connection
import h2.events

# message → field → (number, type, kind); kind is "", "repeated", or a map's type of key. enum → word → number.
MESSAGES, ENUMS = {}, {}


def read_proto(text):
    text = re.sub(r"//.*", "", text)
    for word, name, body in re.findall(r"(message|enum) (\w+) {(.*?)}", text, re.S):
        if word == "enum":
            ENUMS[name] = {key: int(number) for key, number in re.findall(r"(\w+) = (\d+);", body)}
            continue
        fields = MESSAGES[name] = {}
        for repeated, pair, kind, field, number in re.findall(
            r"(repeated )?(map<string, string>|)(\w*) (\w+) = (\d+);", body
        ):
            fields[field] = int(number), kind or "string", "map" if pair else repeated.strip()


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def encode(message, value):
    out = b""
    for field, content in value.items():
        number, kind, many = MESSAGES[message][field]
        if many == "map":
            content = [b"".join(encode_one(n, "string", part) for n, part in ((1, k), (2, v))) for k, v in content.items()]
            kind = "bytes"
        for one in content if many else [content]:
            out += encode_one(number, kind, one)
    return out


def encode_one(number, kind, value):
    if kind in MESSAGES:
        value = encode(kind, value)
    elif kind == "string":
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def decode(message, data):
    """A dict of what cri.proto knows of it; the other fields are left out."""
    by_number = {number: (field, kind, many) for field, (number, kind, many) in MESSAGES[message].items()}
    out, at = {}, 0

    def read_varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        tag = read_varint()
        if tag & 7 == 0:
            value = read_varint()
        else:
            size = {1: 8, 5: 4}.get(tag & 7) or read_varint()
            value = data[at : at + size]
            at += size
        field, kind, many = by_number.get(tag >> 3, (None, None, None))
        if field is None:
            continue
        if many == "map":
            pair = decode("KeyValue", value)
            out.setdefault(field, {})[pair.get("key", "")] = pair.get("value", "")
            continue
        if kind in MESSAGES:
            value = decode(kind, value)
        elif kind in ENUMS:
            value = {n: word for word, n in ENUMS[kind].items()}.get(value, value)
        elif kind in ("string", "bytes"):
            value = value.decode(errors="replace")
        elif kind == "bool":
            value = bool(value)
        elif value >> 63:
            value -= 1 << 64
        if many:
            out.setdefault(field, []).append(value)
        else:
            out[field] = value
    return out


def assign(message, target, path, text):
    """Sets the field at `path` (see above) of the dict `target`."""
    field, _, rest = path.partition(".")
    field, _, key = field.partition(":")
    if key:
        key, rest = path.partition(":")[2], ""
    if field not in MESSAGES[message]:
        sys.exit(f"{message} has no field {field}")
    _, kind, many = MESSAGES[message][field]
    if many == "map":
        target.setdefault(field, {})[key] = text
        return
    if kind in MESSAGES:
        inner = target.setdefault(field, [] if many else {})
        if many:
            index, _, rest = rest.partition(".")
            while len(inner) <= int(index):
                inner.append({})
            inner = inner[int(index)]
        assign(kind, inner, rest, text)
        return
    if kind in ENUMS:
        text = ENUMS[kind][text]
    elif kind == "bool":
        text = {"true": 1, "false": 0}[text]
    elif kind != "string":
        text = int(text)
    if many:
        target.setdefault(field, []).append(text)
    else:
        target[field] = text


def call(method, request):
    """One unary gRPC call on a connection of its own."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ.get("CRI_SOCKET", "/run/containerd/containerd.sock"))
    http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    http.initiate_connection()
    http.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/runtime.v1.RuntimeService/{method}"),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ],
    )
    message = encode(f"{method}Request", request)
    http.send_data(1, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
    body, status, done = b"", {}, False
    while not done:
        link.sendall(http.data_to_send())
        data = link.recv(65536)
        if not data:
            sys.exit(f"{method}: the connection ended")
        for event in http.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
                http.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                status.update(event.headers)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                done = True
    if status.get("grpc-status") != "0":
        text = urllib.parse.unquote(status.get("grpc-message", "no answer"))
        sys.exit(f"{method}: code {status.get('grpc-status')}: {text}")
    return decode(f"{method}Response", body[5:])


STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


class Websocket:
    """As little of RFC 6455 as the streaming server of an engine needs."""

    def __init__(self, url):
        url = urllib.parse.urlparse(url)
        self.link = socket.create_connection((url.hostname, url.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.link.sendall(
            f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        self.seen = b""
        head = self.until(b"\r\n\r\n").decode()
        if " 101 " not in head.split("\r\n")[0]:
            sys.exit(f"no websocket: {head}")

    def more(self):
        data = self.link.recv(65536)
        if not data:
            raise EOFError
        self.seen += data

    def until(self, end):
        while end not in self.seen:
            self.more()
        head, self.seen = self.seen.split(end, 1)
        return head

    def take(self, size):
        while len(self.seen) < size:
            self.more()
        data, self.seen = self.seen[:size], self.seen[size:]
        return data

    def send(self, data, kind=2):
        mask = os.urandom(4)
        length = struct.pack(">B", 0x80 | len(data)) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
        self.link.sendall(bytes([0x80 | kind]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def frame(self):
        """The next frame's kind and content."""
        first, size = self.take(2)
        if size >= 126:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        return first & 0xF, self.take(size)


def stream(url, request):
    """Connects this process's own input and output; returns the program's exit code."""
    remote = Websocket(url)
    local_tty = request.get("tty") and sys.stdin.isatty()
    before = termios.tcgetattr(0) if local_tty else None

    def resize(*_):
        columns, rows = os.get_terminal_size(0)
        remote.send(bytes([RESIZE]) + json.dumps({"Width": columns, "Height": rows}).encode())

    if local_tty:
        tty.setraw(0)
        signal.signal(signal.SIGWINCH, resize)
        resize()
    try:
        return relay(remote, [0] if request.get("stdin") else [])
    except EOFError:
        return 0
    finally:
        if before:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def relay(remote, local):
    code = 0
    while True:
        # What came with the answer to the upgrade is in the buffer already.
        ready = [remote.link] if remote.seen else select.select([remote.link, *local], [], [])[0]
        if 0 in ready:
            data = os.read(0, 4096)
            # This version of the protocol has no end of input.
            if data:
                remote.send(bytes([STDIN]) + data)
            else:
                local = []
        if remote.link not in ready:
            continue
        kind, data = remote.frame()
        if kind == 8:
            return code
        if kind == 9:
            remote.send(data, 10)
        elif data[:1] == bytes([ERROR]) and data[1:]:
            code = exit_code(json.loads(data[1:]))
        elif data[:1] in (bytes([STDOUT]), bytes([STDERR])):
            os.write(data[0], data[1:])


def exit_code(status):
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    print(status.get("message"), file=sys.stderr)
    return 1


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with open(os.path.join(os.path.dirname(__file__), "cri.proto"), encoding="utf-8") as file:
        read_proto(file.read())
    method, request = sys.argv[1], {}
    if f"{method}Request" not in MESSAGES:
        sys.exit(f"no method {method}")
    for word in sys.argv[2:]:
        path, _, text = word.partition("=")
        assign(f"{method}Request", request, path, text)
    answer = call(method, request)
    if method in ("Exec", "Attach"):
        return stream(answer["url"], request)
    if method == "ExecSync":
        sys.stdout.write(answer.get("stdout", ""))
        sys.stdout.flush()
        sys.stderr.write(answer.get("stderr", ""))
        return answer.get("exit_code", 0)
    if list(answer) in (["pod_sandbox_id"], ["container_id"]):
        print(*answer.values())
    elif answer:
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
