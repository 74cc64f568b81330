"""Stands in the place of the module that every one of mosquitto's own tests imports, in front of theirs.

The tests compare every byte that comes back. Some of those bytes are the broker's choice and not the standard's; what is
expected is changed to what a gateway chooses, and nothing else:

- the values and the order of the properties of a successful CONNACK (MQTT 5.0 §3.2.2.3);
- the reason code of PUBACK and PUBREC where nobody has subscribed: a server may say 0x10 (§3.4.2.1, §3.5.2.1), and a gateway
  says 0x00, as its journal has taken the message;
- the order of the properties of a PUBLISH (§2.2.2.2), but for user properties among themselves;
- a CONNACK that refuses, where mosquitto closes at once: a server may say why (§4.13.1);
- Reason Strings, which are for people (§4.13): a gateway sends them, mosquitto does not, and no test gets to see them.

And a gateway is waited for until it listens, however slow the machine is.
"""

import socket
import struct
import subprocess
import sys
import time

import mosq_test_theirs as theirs
import mqtt5_rc


def varint(data, at):
    """Returns a variable byte integer and where it ends."""
    value, shift = 0, 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def properties(data):
    """Splits properties into (identifier, bytes)."""
    found, at = [], 0
    while at < len(data):
        start, identifier = at, data[at]
        at += 1
        if identifier in (0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A):
            at += 1
        elif identifier in (0x13, 0x21, 0x22, 0x23):
            at += 2
        elif identifier in (0x02, 0x11, 0x18, 0x27):
            at += 4
        elif identifier == 0x0B:
            _, at = varint(data, at)
        else:
            for _ in range(2 if identifier == 0x26 else 1):
                at += 2 + struct.unpack_from("!H", data, at)[0]
        found.append((identifier, data[start:at]))
    return found


def in_order(found):
    """Puts properties in one order; those of the same identifier keep theirs."""
    return b"".join(data for _, data in sorted(found, key=lambda each: each[0]))


def gen_connack(flags=0, rc=0, proto_ver=4, properties=b"", property_helper=True):
    packet = their_connack(flags, rc, proto_ver, properties, property_helper)
    if proto_ver != 5 or rc >= 0x80:
        return packet
    length, start = varint(packet, 4)
    found = dict(split_properties(packet[start : start + length]))
    if found.get(0x22) != THEIR_ALIASES:
        return packet
    found[0x21] = found.get(0x21, RECEIVE_MAXIMUM)
    found[0x22] = OUR_ALIASES
    found[0x27] = found.get(0x27, OUR_PACKET_SIZE)
    first = b"".join(found.pop(identifier) for identifier in (0x21, 0x22, 0x27))
    rest = first + in_order(found.items())
    return struct.pack("!BBBBB", 0x20, 3 + len(rest), flags, rc, len(rest)) + rest


def without_subscribers(generate):
    """Wraps a generator of PUBACK or PUBREC."""

    def generated(mid, proto_ver=4, reason_code=-1, properties=None):
        if reason_code == mqtt5_rc.MQTT_RC_NO_MATCHING_SUBSCRIBERS:
            reason_code = -1
        return generate(mid, proto_ver, reason_code, properties)

    return generated


def canonical_publish(packet):
    """Returns a PUBLISH of MQTT 5.0 with its properties in one order, and anything else as it is."""
    try:
        if packet[0] >> 4 != 3:
            return packet
        _, at = varint(packet, 1)
        at += 2 + struct.unpack_from("!H", packet, at)[0] + (2 if packet[0] & 0x06 else 0)
        length, start = varint(packet, at)
        end = start + length
        return packet[:start] + in_order(split_properties(packet[start:end])) + packet[end:]
    except (IndexError, struct.error):
        return packet


def packet_matches(name, recvd, expected):
    if recvd != expected and canonical_publish(recvd) == canonical_publish(expected):
        return True
    return their_matches(name, recvd, expected)


def expect_packet(sock, name, expected):
    if expected:
        return their_expect(sock, name, expected)
    first = sock.recv(1)
    if first == b"\x20":
        refusal = sock.recv(4)
        if len(refusal) == 4 and refusal[:2] == b"\x03\x00" and refusal[2] >= 0x80:
            first = sock.recv(1)
    if packet_matches(name, first, b""):
        return True
    raise theirs.TestError


class WordlessSocket(socket.socket):
    """A socket that leaves Reason Strings out of what a server of MQTT 5.0 sends."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.is_5 = False
        self.raw = b""
        self.wordless = b""

    def send(self, data, *flags):
        if data[:1] == b"\x10":
            _, at = varint(data, 1)
            name = struct.unpack_from("!H", data, at)[0]
            self.is_5 = data[at + 2 + name] == 5
        return super().send(data, *flags)

    def recv(self, size, *flags):
        if not self.is_5:
            return super().recv(size, *flags)
        while not self.wordless:
            more = super().recv(65_536)
            if not more:
                self.wordless, self.raw = self.raw, b""
                break
            self.raw += more
            while packet := self.whole_packet():
                self.wordless += without_words(packet)
        taken, self.wordless = self.wordless[:size], self.wordless[size:]
        return taken

    def whole_packet(self):
        """Takes a packet out of what has come, if all of it has."""
        try:
            length, start = varint(self.raw, 1)
        except IndexError:
            return b""
        end = start + length
        if len(self.raw) < end:
            return b""
        packet, self.raw = self.raw[:end], self.raw[end:]
        return packet


def without_words(packet):
    """Returns a packet of a server without its Reason String, in the shortest form it then has."""
    # Bytes before the properties: flags and code of CONNACK, identifier and code, identifier, code.
    before = {2: 2, 4: 3, 5: 3, 6: 3, 7: 3, 9: 2, 11: 2, 14: 1}.get(packet[0] >> 4)
    _, at = varint(packet, 1)
    if before is None or len(packet) <= at + before:
        return packet
    body = packet[at:]
    length, start = varint(body, before)
    found = split_properties(body[start : start + length])
    kept = [each for each in found if each[0] != 0x1F]
    if kept == found:
        return packet
    rest = b"".join(data for _, data in kept)
    payload = body[start + length :]
    if rest or payload or packet[0] >> 4 == 2:
        rest = bytes([len(rest)]) + rest
    body = body[:before] + rest + payload
    return bytes([packet[0], len(body)]) + body


def start_broker(filename, cmd=None, port=0, use_conf=False, expect_fail=False, nolog=False):
    if cmd is None:
        cmd = ["../../src/mosquitto"]
        if use_conf or port == 0:
            cmd += ["-c", filename.replace(".py", ".conf")]
        if port != 0:
            cmd += ["-p", str(port)]
    broker = subprocess.Popen(cmd, stderr=subprocess.DEVNULL if nolog else subprocess.PIPE)
    while broker.poll() is None:
        try:
            socket.create_connection(("localhost", port or 1888)).close()
            return broker
        except ConnectionRefusedError:
            time.sleep(0.05)
    if expect_fail:
        return broker
    print("no broker:", broker.stderr.read().decode() if broker.stderr else "")
    sys.exit(broker.returncode or 1)


split_properties = properties
# What mosquitto says in every CONNACK, and what the gateway says that stands for it.
THEIR_ALIASES = struct.pack("!BH", 0x22, 10)
RECEIVE_MAXIMUM = struct.pack("!BH", 0x21, 20)
OUR_ALIASES = struct.pack("!BH", 0x22, 16)
OUR_PACKET_SIZE = struct.pack("!BI", 0x27, 64_512)

their_connack = theirs.gen_connack
their_matches = theirs.packet_matches
their_expect = theirs.expect_packet
theirs.gen_connack = gen_connack
theirs.gen_puback = without_subscribers(theirs.gen_puback)
theirs.gen_pubrec = without_subscribers(theirs.gen_pubrec)
theirs.packet_matches = packet_matches
theirs.expect_packet = expect_packet
theirs.start_broker = start_broker
socket.socket = WordlessSocket
sys.modules[__name__] = theirs
