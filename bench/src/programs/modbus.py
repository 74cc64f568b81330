"""Modbus/TCP: `serve PORT` has 1,000 registers, `ask PORT` writes and reads them all and compares."""

import sys

from pymodbus.client import ModbusTcpClient
from pymodbus.datastore import ModbusDeviceContext, ModbusSequentialDataBlock, ModbusServerContext
from pymodbus.server import StartTcpServer

REGISTERS = 1000
AT_ONCE = 100


def serve(port):
    block = ModbusSequentialDataBlock(1, [0] * REGISTERS)
    StartTcpServer(
        ModbusServerContext(devices=ModbusDeviceContext(hr=block), single=True),
        address=("127.0.0.1", port),
    )


def ask(port):
    client = ModbusTcpClient("127.0.0.1", port=port, timeout=30)
    if not client.connect():
        sys.exit("not connected")
    wanted = [(number * 40503) % 65536 for number in range(REGISTERS)]
    for first in range(0, REGISTERS, AT_ONCE):
        answer = client.write_registers(first, wanted[first : first + AT_ONCE])
        if answer.isError():
            sys.exit(f"writing at {first}: {answer}")
    got = []
    for first in range(0, REGISTERS, AT_ONCE):
        answer = client.read_holding_registers(first, count=AT_ONCE)
        if answer.isError():
            sys.exit(f"reading at {first}: {answer}")
        got += answer.registers
    for number in range(0, REGISTERS, 10):
        one = client.read_holding_registers(number, count=1)
        if one.isError() or one.registers != [wanted[number]]:
            sys.exit(f"register {number}: {one}")
    client.close()
    if got != wanted:
        sys.exit("the registers differ")
    print(f"{REGISTERS} registers written and read")


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](int(sys.argv[2]))
