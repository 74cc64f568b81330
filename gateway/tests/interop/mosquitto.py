#!/usr/bin/env python3
"""Stands where mosquitto's own tests look for their broker, and starts a gateway instead.

A test calls it as it calls mosquitto: `mosquitto [-v] [-p PORT] [-c FILE]`. The gateway gets a copy of the directory
INTEROP_TEMPLATE with the port, and what of the file has a key of ours. A file that wants something else ends this with
exit code 64 and a line that names it. With `persistence true` the next start finds what the one before has left, as long as
the file is there that would be mosquitto's database.

INTEROP_FIELDGATE is the binary, INTEROP_STATE a directory for what the gateways keep.
"""

import os
import shutil
import sys
import tempfile

# What means the same as a key of [mqtt].
KEYS = {
    "max_keepalive": "keep_alive_max_secs = {}",
    "max_packet_size": "packet_bytes_max = {}",
    "max_queued_messages": "queue_messages_max = {}",
}
# What a gateway does anyway, or what only says where mosquitto puts its files and lines.
NOTHING = {
    "allow_anonymous true",
    "allow_zero_length_clientid true",
    "log_type all",
    "protocol mqtt",
    "per_listener_settings false",
    "per_listener_settings true",
}
# Bounds that a gateway has with numbers of its own, which no key moves.
BOUNDS = ("autosave_interval", "max_inflight_bytes", "max_queued_bytes", "user")


def settings(path):
    """Reads a file of mosquitto's; returns its port, lines of [mqtt], and the database to be kept, if there is to be one."""
    port, lines, keeps, database = None, [], False, "mosquitto.db"
    with open(path, encoding="utf-8") as file:
        wishes = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    for wish in wishes:
        name, _, value = wish.partition(" ")
        if name in ("port", "listener"):
            if port is not None:
                not_ours("a second listener")
            port = value.split()[0]
        elif name == "max_inflight_messages":
            # mosquitto's bound of both directions; the gateway's own direction follows the client's Receive Maximum.
            lines.append(f"receive_max = {value}")
        elif name == "persistence_file":
            database = value
        elif name in KEYS:
            lines.append(KEYS[name].format(value))
        elif name == "persistence":
            keeps = value == "true"
        elif wish not in NOTHING and name not in BOUNDS:
            not_ours(wish)
    if not any(line.startswith("receive_max") for line in lines):
        lines.append("receive_max = 20")
    return port, lines, database if keeps else None


def place_of(state, database):
    """Returns a directory for the gateway: that of the start before, if its database is still there, or a new one."""
    place = tempfile.mkdtemp(dir=state)
    if database is None:
        return place
    # Tests remove the file of the database to begin anew.
    if os.path.exists(database):
        with open(database, encoding="utf-8") as file:
            return file.read()
    with open(database, "w", encoding="utf-8") as file:
        file.write(place)
    return place


def not_ours(wish):
    """Ends this because of a wish that no gateway has a key for."""
    print(f"no key of a gateway stands for: {wish}", file=sys.stderr)
    sys.exit(64)


def main(arguments):
    port, lines, database = "1883", ["receive_max = 20"], None
    path = arguments[arguments.index("-c") + 1] if "-c" in arguments else None
    if path is not None:
        port, lines, database = settings(path)
    if "-p" in arguments:
        port = arguments[arguments.index("-p") + 1]
    state = os.environ["INTEROP_STATE"]
    place = place_of(state, database)
    shutil.copytree(os.environ["INTEROP_TEMPLATE"], place, dirs_exist_ok=True)
    config = os.path.join(place, "fieldgate.toml")
    with open(config, encoding="utf-8") as file:
        text = file.read()
    listens = 'listen = ["127.0.0.1:@PORT@"]'
    if listens not in text:
        sys.exit(f"{config} has no {listens}")
    text = text.replace(listens, "\n".join([listens.replace("@PORT@", port), *lines]))
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    fieldgate = os.environ["INTEROP_FIELDGATE"]
    os.execv(fieldgate, [fieldgate, "run", "--config", config])


main(sys.argv[1:])
