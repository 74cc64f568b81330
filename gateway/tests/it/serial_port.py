"""A stock client of a serial port over telnet: sets the line, and has every byte come back.

Usage: serial_port.py <port of the inlet>
"""

import sys

import serial

url = f"rfc2217://127.0.0.1:{sys.argv[1]}?timeout=120"
port = serial.serial_for_url(url, baudrate=4800, stopbits=2, timeout=120)
print("open", flush=True)
every = bytes(range(256))
port.write(every)
assert port.read(len(every)) == every, "not what was written"
port.baudrate = 57600
print("set", flush=True)
sys.stdin.readline()
port.close()
