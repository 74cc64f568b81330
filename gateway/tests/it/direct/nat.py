"""A router as many sites have it, for UDP: each address inside gets one port outside, whoever it sends to, and what comes to that
port is let in only from where something went to before.

    nat.py <device inside> <address outside> <address of the relay>

After SIGUSR1 only the relay is reached; after SIGUSR2 everybody again.
"""

import select
import signal
import socket
import struct
import sys

ETHERNET_IP = 0x0800


class Router:
    def __init__(self, device, outside, relay):
        self.outside = outside
        self.relay = relay
        self.cut = False
        self.inside = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERNET_IP))
        self.inside.bind((device, ETHERNET_IP))
        self.back = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.poll = select.epoll()
        self.poll.register(self.inside, select.EPOLLIN)
        # By address inside: its socket; by the socket's number: the socket, that address, and where something went to.
        self.sockets = {}
        self.mappings = {}

    def run(self):
        while True:
            for number, _ in self.poll.poll():
                if number == self.inside.fileno():
                    self.go_out()
                else:
                    self.come_in(number)

    def passes(self, address):
        return not self.cut or address == self.relay

    def go_out(self):
        packet, sender = self.inside.recvfrom(65536)
        header = (packet[0] & 15) * 4
        if sender[2] == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_UDP:
            return
        source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        source_port, target_port, length = struct.unpack("!HHH", packet[header : header + 6])
        if not self.passes(target):
            return
        key = (source, source_port)
        if key not in self.sockets:
            outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            outside.bind((self.outside, 0))
            self.sockets[key] = outside
            self.mappings[outside.fileno()] = (outside, key, set())
            self.poll.register(outside, select.EPOLLIN)
        outside = self.sockets[key]
        self.mappings[outside.fileno()][2].add((target, target_port))
        try:
            outside.sendto(packet[header + 8 : header + length], (target, target_port))
        except OSError:
            pass  # Nobody is there.

    def come_in(self, number):
        outside, (address, port), known = self.mappings[number]
        payload, sender = outside.recvfrom(65536)
        if sender not in known or not self.passes(sender[0]):
            return
        udp = struct.pack("!HHHH", sender[1], port, 8 + len(payload), 0)
        ends = socket.inet_aton(sender[0]) + socket.inet_aton(address)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
        self.back.sendto(ip + udp + payload, (address, 0))


def main():
    router = Router(*sys.argv[1:])
    signal.signal(signal.SIGUSR1, lambda *_: setattr(router, "cut", True))
    signal.signal(signal.SIGUSR2, lambda *_: setattr(router, "cut", False))
    print("routing", flush=True)
    router.run()


main()
